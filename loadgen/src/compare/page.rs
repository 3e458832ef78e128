//! A comparison as one HTML page: an overview where there are several works, then each work with its bars and its
//! percentiles in one chart.

use std::fmt::Write;

use hdrhistogram::Histogram;

use super::text::short;
use super::{Comparison, Contest, MEASURES, Measure, Spread, in_words};
use crate::environment::Environment;
use crate::report::chart::{COLORS, escape};
use crate::report::html;

impl Comparison {
    pub fn html(&self, place: &Environment) -> String {
        let names: Vec<String> =
            self.contests.first().map_or(Vec::new(), |c| c.series.iter().map(|s| escape(&s.name)).collect());
        let mut body = format!("<h1>Comparison: {}</h1>", names.join(", "));
        body.push_str(&html::head(place, &self.subjects));
        let _ = write!(body, "<div class=\"{}\"><b>{}</b></div>", self.class(), escape(&self.summary()));
        body.push_str(
            "<p>Rounds are interleaved; figures are medians, with the lowest and the highest behind them. A ratio is \
             taken within each round, to the first broker. ≥: the generator was the bottleneck, or others had the \
             CPU, so the rate is a lower bound and latency is void (–).</p>",
        );
        if self.interrupted {
            body.push_str("<div class=\"verdict bad\"><b>PARTIAL</b>: interrupted before its end</div>");
        }
        let several = self.contests.len() > 1;
        if several {
            self.overview_html(&mut body);
        }
        for (number, contest) in self.contests.iter().enumerate() {
            if several {
                let _ = write!(body, "<h2 id=\"w{number}\">{}</h2>", escape(&contest.work.name));
            }
            contest.html(&mut body);
        }
        let _ = write!(
            body,
            "<h2>In full</h2><details class=\"card\"><summary>The report as text</summary><pre>{}</pre></details>",
            escape(&self.text())
        );
        body.push_str(&html::environment(place, &self.subjects));
        html::page("loadgen: comparison", &body)
    }

    fn class(&self) -> &'static str {
        match (self.exit(), self.verdicts()) {
            (0, verdicts) if verdicts.iter().all(|(name, _)| *name == "VALID") => "verdict",
            (0, _) => "verdict warn",
            _ => "verdict bad",
        }
    }

    /// How many runs had which verdict, in the order in which they first occurred.
    fn verdicts(&self) -> Vec<(&'static str, usize)> {
        let mut verdicts: Vec<(&str, usize)> = Vec::new();
        for turn in self.contests.iter().flat_map(|c| &c.series).flat_map(|s| &s.turns) {
            let name = turn.as_ref().map_or("failed", |round| round.verdict);
            match verdicts.iter_mut().find(|(known, _)| *known == name) {
                Some((_, n)) => *n += 1,
                None => verdicts.push((name, 1)),
            }
        }
        verdicts
    }

    fn summary(&self) -> String {
        let verdicts = self.verdicts();
        let runs: usize = verdicts.iter().map(|(_, n)| n).sum();
        let parts: Vec<String> = verdicts.iter().map(|(name, n)| format!("{n} {name}")).collect();
        format!("{runs} runs: {}", parts.join(", "))
    }

    /// A table for each measure: works down, brokers across.
    fn overview_html(&self, body: &mut String) {
        let names: String = self.contests[0].series.iter().map(|s| heading(&s.name)).collect();
        // What a message costs comes first: of all measures it suffers least from the generator.
        for measure in [&MEASURES[3], &MEASURES[0], &MEASURES[1], &MEASURES[2], &MEASURES[5]] {
            let mut rows = String::new();
            for (number, contest) in self.contests.iter().enumerate() {
                if !contest.measures().any(|m| m.name == measure.name) {
                    continue;
                }
                let _ =
                    write!(rows, "<tr><td><a href=\"#w{number}\">{}</a></td>", escape(&contest.work.name));
                for broker in 0..contest.series.len() {
                    let (value, ratio, mark) = contest.cell(measure, broker);
                    let value = value.map_or("–".into(), |v| format!("{mark}{}", (measure.show)(v.median)));
                    let ratio = match ratio.filter(|_| broker > 0) {
                        Some(r) => format!("<small>×{}</small>", short(r.median)),
                        None if broker > 0 => "<small></small>".into(),
                        None => String::new(),
                    };
                    let _ = write!(rows, "<td>{}{ratio}</td>", escape(&value));
                }
                rows.push_str("</tr>");
            }
            if !rows.is_empty() {
                let title = title(measure, "a second");
                let _ = write!(
                    body,
                    "<h2>All works: {title}</h2><div class=\"card scroll\"><table class=\"wide\"><tr><th></th>{names}</tr>{rows}</table></div>"
                );
            }
        }
    }
}

fn heading(name: &str) -> String {
    format!("<th>{}</th>", escape(name))
}

/// A measure with its unit and which way is better.
fn title(measure: &Measure, unit: &str) -> String {
    match measure.name {
        "rate" => format!("rate, {unit} (more is better)"),
        name => format!("{name} (less is better)"),
    }
}

impl Contest {
    fn html(&self, body: &mut String) {
        if self.headline.is_empty() && self.series.iter().all(|s| s.failure().is_none()) {
            body.push_str("<p>ended before the first run was over</p>");
            return;
        }
        let _ =
            write!(body, "<p>{}; {} rounds</p><div class=\"card\">", escape(&self.headline), self.rounds());
        for measure in self.measures() {
            let spreads: Vec<_> = (0..self.series.len()).map(|broker| self.cell(measure, broker)).collect();
            let top = spreads.iter().filter_map(|cell| cell.0).map(|s| s.high).fold(0.0, f64::max);
            let _ = write!(body, "<h3>{}</h3>", escape(&title(measure, self.unit)));
            for (i, (spread, ratio, mark)) in spreads.iter().enumerate() {
                let ratio = ratio.filter(|_| i > 0).map(|r| in_words(r.median, &self.series[0].name));
                body.push_str(&bar(
                    &self.series[i].name,
                    i % COLORS,
                    *spread,
                    ratio,
                    mark,
                    top,
                    measure.show,
                ));
            }
        }
        body.push_str("</div>");
        let lines: Vec<(String, &Histogram<u64>)> =
            self.series.iter().map(|s| (s.name.clone(), &s.latency)).collect();
        if lines.iter().any(|(_, h)| !h.is_empty()) {
            let chart = html::percentile_chart(&lines);
            let _ = write!(
                body,
                "<div class=\"card below\"><h3>latency by percentile, all valid rounds</h3>{chart}</div>"
            );
        }
        let remarks: String = self
            .remarks()
            .iter()
            .map(|(name, text)| {
                format!("<tr><td>{}</td><td class=\"text\">{}</td></tr>", escape(name), escape(text))
            })
            .collect();
        let _ = write!(body, "<div class=\"card below scroll\"><table>{remarks}</table></div>");
    }
}

/// A horizontal bar to the median, with a whisker from the lowest to the highest.
fn bar(
    name: &str,
    color: usize,
    spread: Option<Spread>,
    ratio: Option<String>,
    mark: &str,
    top: f64,
    show: fn(f64) -> String,
) -> String {
    let head = format!("<div class=\"bar\"><span class=\"who\">{}</span>", escape(name));
    let Some(s) = spread else {
        return format!("{head}<span class=\"soft\">no valid figure</span></div>");
    };
    let percent = |v: f64| 100.0 * v / top.max(f64::MIN_POSITIVE);
    let ratio = ratio.map_or(String::new(), |words| format!(" <small>{}</small>", escape(&words)));
    format!(
        "{head}<span class=\"track\" title=\"{}\"><i class=\"m{color}\" style=\"width:{:.1}%\"></i>\
         <u style=\"left:{:.1}%;width:{:.1}%\"></u></span><span class=\"figure\">{}{}{ratio}</span></div>",
        escape(&s.text(show)),
        percent(s.median),
        percent(s.low),
        percent(s.high - s.low),
        escape(mark),
        escape(&show(s.median))
    )
}
