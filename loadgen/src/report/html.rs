//! The report as one page that needs nothing from elsewhere: no script, no font, no request.

use std::fmt::Write;

use hdrhistogram::Histogram;

use super::chart::{Axis, COLORS, Series, chart, escape};
use super::{Figures, QUANTILES, count, headline, text, time};
use crate::engine::Outcome;
use crate::environment::{Environment, Subject};
use crate::spec::{Focus, Spec};
use crate::verdict::{Verdict, Worth};

/// Style of all pages. Colours stand out against each other in both schemes and for the colour-blind.
const STYLE: &str = "\
:root{color-scheme:light dark;--bg:#fcfcfb;--fg:#1b1f24;--soft:#5b6570;--line:#dfe3e7;--card:#fff;\
--c0:#0b62b8;--c1:#c8500a;--c2:#12805c;--c3:#8a3fb0;--c4:#6b6b00;--c5:#a3174f;--good:#12805c;--warn:#b25e00;--bad:#b3261e}\
@media (prefers-color-scheme:dark){:root{--bg:#14171b;--fg:#e8ebee;--soft:#9aa5b1;--line:#2c333b;--card:#1b2026;\
--c0:#6db3f8;--c1:#f79a5b;--c2:#5fcf9f;--c3:#cf97ee;--c4:#d6d05a;--c5:#ff8fb5;--good:#5fcf9f;--warn:#f0b35a;--bad:#ff8a80}}\
*{box-sizing:border-box}body{margin:0 auto;max-width:840px;padding:28px 20px 60px;background:var(--bg);color:var(--fg);\
font:15px/1.5 system-ui,sans-serif}h1{font-size:21px;margin:0 0 2px}h2{font-size:16px;margin:30px 0 8px}\
p{margin:4px 0;color:var(--soft)}.card{background:var(--card);border:1px solid var(--line);border-radius:8px;\
padding:14px 16px;overflow-x:auto}.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin:16px 0}\
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 14px}\
.tiles b{display:block;font-size:20px;font-variant-numeric:tabular-nums}.tiles span{color:var(--soft);font-size:13px}\
.verdict{border-left:4px solid var(--good);padding:8px 14px;margin:16px 0;background:var(--card)}\
.verdict.warn{border-color:var(--warn)}.verdict.bad{border-color:var(--bad)}.scroll{overflow-x:auto}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{text-align:right;padding:5px 8px;border-bottom:1px solid var(--line);white-space:nowrap}\
th:first-child,td:first-child{text-align:left}th{color:var(--soft);font-weight:600}\
td.text{text-align:left;white-space:normal;overflow-wrap:anywhere}\
svg{width:100%;height:auto;display:block}svg.narrow{display:none}.head b{color:var(--fg)}.grid{stroke:var(--line);stroke-width:1}\
.fine{stroke:var(--line);stroke-width:.5;opacity:.6}.shade{fill:var(--line);opacity:.45}\
.tick,.title{fill:var(--soft);font:12px system-ui,sans-serif}polyline,.key path{fill:none;stroke-width:2;stroke-linejoin:round}.hit{opacity:0}.hit:hover{opacity:1}\
.key{display:inline-block;width:26px;min-width:0;height:4px;margin-right:6px;vertical-align:middle}\
.legend{display:flex;gap:16px;flex-wrap:wrap;font-size:13px;color:var(--soft);padding-left:8px}\
.s0{stroke:var(--c0)}.s1{stroke:var(--c1);stroke-dasharray:7 3}.s2{stroke:var(--c2);stroke-dasharray:2 2}\
.s3{stroke:var(--c3);stroke-dasharray:9 2 2 2}\
.s4{stroke:var(--c4);stroke-dasharray:12 3}.s5{stroke:var(--c5);stroke-dasharray:4 4}.m4{fill:var(--c4);--b:var(--c4)}.m5{fill:var(--c5);--b:var(--c5)}\
.m0{fill:var(--c0);--b:var(--c0)}.m1{fill:var(--c1);--b:var(--c1)}.m2{fill:var(--c2);--b:var(--c2)}.m3{fill:var(--c3);--b:var(--c3)}\
h3{font-size:13px;margin:12px 0 2px;color:var(--soft);font-weight:600}h3:first-child{margin-top:0}\
.below{margin-top:10px}.soft{color:var(--soft)}\
.bar{display:grid;grid-template-columns:110px 1fr 220px;gap:4px 10px;align-items:center;font-size:13px;margin:2px 0}\
.bar .who{text-align:right;color:var(--soft);overflow-wrap:anywhere}.bar .figure{font-variant-numeric:tabular-nums}\
.track{position:relative;height:16px}.track i{display:block;height:16px;border-radius:2px;background:var(--b);min-width:1px}\
.track u{position:absolute;top:4px;height:8px;border:solid var(--fg);border-width:0 1px;opacity:.75;\
background:linear-gradient(var(--fg),var(--fg)) center/100% 1px no-repeat}\
small{display:inline-block;min-width:52px;color:var(--soft);\
font-size:12px}a{color:inherit}summary{cursor:pointer;color:var(--soft)}.wide td,.wide th{padding:4px 6px;font-size:13.5px}\
@media print{body{max-width:none}.card{break-inside:avoid}}\
pre{overflow-x:auto;font:12.5px/1.45 ui-monospace,monospace;margin:0}\
@media (max-width:640px){body{padding:16px 10px 40px}.card{padding:10px}svg.wide{display:none}svg.narrow{display:block}\
.tiles{grid-template-columns:repeat(auto-fit,minmax(104px,1fr));gap:8px}.tiles div{padding:8px 10px}.tiles b{font-size:17px}\
table{font-size:12.5px}th,td{padding:4px 5px}td:first-child{white-space:normal}\
.bar{grid-template-columns:1fr;gap:1px;margin:8px 0}.bar .who{text-align:left}\
pre{font-size:11px;white-space:pre-wrap;overflow-wrap:anywhere}th{white-space:normal}}";

/// A whole page around `body`.
pub fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{}</title>\
         <style>{STYLE}</style></head><body>\n{body}\n</body></html>\n",
        escape(title)
    )
}

/// What a reader wants to know first of any page: which broker, in which version, and when.
pub fn head(environment: &Environment, subjects: &[Subject]) -> String {
    let brokers: String = subjects
        .iter()
        .map(|subject| {
            let version = subject.version.as_deref().unwrap_or("version unknown");
            format!(
                "<br><b>{}</b>: {} at {}",
                escape(&subject.name),
                escape(version),
                escape(&subject.target)
            )
        })
        .collect();
    format!("<p class=\"head\">{}{brokers}</p>", escape(&environment.date()))
}

/// A round time without the zeros behind its point.
fn tick(ns: f64) -> String {
    time(ns as u64).replace(".00 ", " ").replace(".0 ", " ")
}

/// Latency by percentile: the x-axis stretches towards 100 %, as 1/(1-percentile).
pub fn percentile_chart(lines: &[(String, &Histogram<u64>)]) -> String {
    let samples = lines.iter().map(|(_, h)| h.len()).max().unwrap_or(0);
    // A name keeps its colour, whoever else has a line.
    let series: Vec<Series> = lines
        .iter()
        .enumerate()
        .filter(|(_, (_, histogram))| !histogram.is_empty())
        .map(|(color, (name, histogram))| {
            // The last message of this line; another's may have more of them.
            let last = 1.0 / histogram.len() as f64;
            let points = histogram
                .iter_quantiles(8)
                .map(|step| {
                    let left = (1.0 - step.quantile_iterated_to()).max(last);
                    (1.0 / left, step.value_iterated_to() as f64)
                })
                .collect();
            Series { name: name.clone(), color: color % COLORS, points }
        })
        .collect();
    let values = || series.iter().flat_map(|s| s.points.iter().map(|p| p.1));
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(1.0, f64::max));
    let nines = (1..=9).map(|n| {
        let share = 100.0 * (1.0 - 10f64.powi(-n));
        (10f64.powi(n), format!("{share:.*} %", (n - 2).max(0) as usize))
    });
    let mut labels = vec![(1.0, "0 %".to_string()), (2.0, "50 %".into())];
    labels.extend(nines);
    // Only a short axis has room for it, and a narrow one not even then: it comes after its neighbours.
    if samples < 50_000 {
        labels.insert(3, (4.0, "75 %".to_string()));
    }
    let x = Axis::log_exact("percentile (logarithmic towards 100 %)", 1.0, samples.max(10) as f64, labels);
    // Below a microsecond nobody can tell differences, and the generator's lateness begins at nanoseconds.
    let y = Axis::log("latency", low.max(1000.0), high, tick);
    chart(&x, &y, &series, |x, y| format!("{:.4} %: {}", 100.0 * (1.0 - 1.0 / x), time(y as u64)))
}

fn over_time(spec: &Spec, outcome: &Outcome) -> String {
    let connects = matches!(spec.focus, Focus::Connects | Focus::Reconnects);
    // The last second is rarely whole.
    let whole = outcome.seconds.len().saturating_sub(1).max(1);
    let seconds = || outcome.seconds.iter().take(whole);
    let line = |name: &str, color, value: &dyn Fn(&crate::engine::Second) -> f64| Series {
        name: name.into(),
        color,
        points: seconds().map(|s| (f64::from(s.second + 1), value(s))).collect(),
    };
    let warm = spec.warmup_s.min(whole as f64);
    let x = || Axis {
        shaded: (warm > 0.0).then_some((0.0, warm, "warm-up")),
        ..Axis::whole_exact("seconds since messages began to flow", whole as f64)
    };
    let mut rates = Vec::new();
    if connects {
        rates.push(line("connects/s", 0, &|s| s.connected as f64));
    }
    if spec.publishers > 0 {
        rates.push(line("received/s", 0, &|s| s.delivered as f64));
        let copies = f64::from(spec.copies().max(1));
        if spec.is_open() && spec.focus == Focus::Messages {
            let name = if copies > 1.0 { "offered/s × copies" } else { "offered/s" };
            rates.push(line(name, 1, &|s| s.offered as f64 * copies));
        }
    }
    let mut out = String::new();
    let max =
        |series: &[Series]| series.iter().flat_map(|s| s.points.iter().map(|p| p.1)).fold(0.0, f64::max);
    if !rates.is_empty() {
        let what =
            if connects && spec.publishers == 0 { "connections a second" } else { "messages a second" };
        let y = Axis::linear(what, max(&rates), |v| count(v as u64));
        let _ = write!(
            out,
            "<h2>Rate over time</h2><div class=\"card\">{}</div>",
            chart(&x(), &y, &rates, |x, y| format!("second {x:.0}: {}", count(y as u64)))
        );
    }
    if outcome.seconds.iter().any(|s| !s.latency.is_empty()) {
        let quantile = |q: f64| move |s: &crate::engine::Second| s.latency.value_at_quantile(q) as f64;
        let latency = [
            line("p50", 0, &quantile(0.5)),
            line("p99", 1, &quantile(0.99)),
            line("max", 3, &|s| s.latency.max() as f64),
        ];
        let low = latency[0].points.iter().map(|p| p.1).filter(|&v| v > 0.0).fold(1e9, f64::min);
        let y = Axis::log("latency", low, max(&latency), tick);
        let _ = write!(
            out,
            "<h2>Latency over time</h2><div class=\"card\">{}</div>",
            chart(&x(), &y, &latency, |x, y| format!("second {x:.0}: {}", time(y as u64)))
        );
    }
    out
}

/// The environment as a table.
pub fn environment(environment: &Environment, subjects: &[Subject]) -> String {
    let calibration =
        environment.calibration.as_ref().map_or("none: run `loadgen calibrate`".into(), |c| c.text());
    let own = [
        ("command", environment.command.clone()),
        ("time", environment.date()),
        ("CPU", format!("{} × {}", environment.cpus, environment.cpu)),
        ("memory", super::bytes(environment.memory_bytes as f64)),
        ("kernel", format!("Linux {}", environment.kernel)),
        ("loadgen", env!("CARGO_PKG_VERSION").into()),
        ("this generator alone", calibration),
    ];
    let brokers = subjects.iter().map(|subject| (subject.name.as_str(), subject.text()));
    let rows: String = brokers
        .chain(own)
        .collect::<Vec<_>>()
        .iter()
        .map(|(k, v)| format!("<tr><td>{}</td><td class=\"text\">{}</td></tr>", escape(k), escape(v)))
        .collect();
    format!("<h2>Environment</h2><div class=\"card scroll\"><table>{rows}</table></div>")
}

fn tiles(spec: &Spec, outcome: &Outcome, verdict: &Verdict, figures: &Figures<'_>) -> String {
    let faults = &outcome.totals.faults;
    let at_least = if verdict.is_lower_bound() { "≥ " } else { "" };
    let mut tiles = Vec::new();
    if spec.focus != Focus::Idle {
        tiles.push((format!("{at_least}{}", count(figures.rate.round() as u64)), figures.unit.to_string()));
    }
    if verdict.latency_holds() && !figures.latency.is_empty() {
        tiles.push((time(figures.latency.value_at_quantile(0.5)), "p50".into()));
        tiles.push((time(figures.latency.value_at_quantile(0.99)), "p99".into()));
    }
    if spec.checked && spec.publishers > 0 {
        tiles.push((count(faults.lost), "lost".into()));
    }
    if let Some(ns) = figures.cpu_ns_each {
        tiles.push((time(ns as u64), "broker's CPU time each".into()));
    }
    if spec.publishers == 0
        && let Some(bytes) = figures.memory_per_connection
    {
        tiles.push((super::bytes(bytes), "broker's memory per connection".into()));
    }
    let tiles: String =
        tiles.iter().map(|(value, name)| format!("<div><b>{value}</b><span>{name}</span></div>")).collect();
    format!("<div class=\"tiles\">{tiles}</div>")
}

/// The whole page.
pub fn render(
    spec: &Spec,
    outcome: &Outcome,
    verdict: &Verdict,
    place: &Environment,
    subject: &Subject,
) -> String {
    let figures = Figures::of(spec, outcome);
    let mut body = format!(
        "<h1>{}: {}</h1>{}<p>{}</p>",
        escape(&spec.scenario),
        verdict.name(),
        head(place, std::slice::from_ref(subject)),
        escape(&headline(spec))
    );
    let class = match (verdict.exit, verdict.worth) {
        (0, Worth::Valid) if verdict.pid_void.is_none() => "verdict",
        (0, _) => "verdict warn",
        _ => "verdict bad",
    };
    let reasons: Vec<&String> =
        verdict.reasons.iter().chain(&verdict.faults).chain(&verdict.broken).collect();
    let reasons: String = reasons
        .into_iter()
        .map(String::as_str)
        .chain(verdict.pid_void)
        .map(|r| format!("<br>{}", escape(r)))
        .chain(verdict.held.iter().map(|r| format!("<br>holds: {}", escape(r))))
        .chain(text::failures(outcome).iter().map(|r| format!("<br>{}", escape(r))))
        .collect();
    let unchecked = if spec.checked || spec.publishers == 0 { "" } else { " UNCHECKED" };
    let _ = write!(body, "<div class=\"{class}\"><b>{}{unchecked}</b>{reasons}</div>", verdict.name());
    body.push_str(&tiles(spec, outcome, verdict, &figures));
    let mut lines: Vec<(String, &Histogram<u64>)> = if spec.is_open() || spec.focus == Focus::Reconnects {
        vec![("corrected".into(), figures.latency), ("uncorrected".into(), figures.uncorrected)]
    } else {
        vec![("latency".into(), figures.latency)]
    };
    if spec.is_open() {
        lines.push(("generator's lateness".into(), &outcome.totals.lateness));
    }
    lines.retain(|(_, histogram)| !histogram.is_empty());
    if !lines.is_empty() {
        let void = if verdict.latency_holds() { "" } else { " (void: see the verdict)" };
        let heads: String = lines.iter().map(|(name, _)| format!("<th>{name}</th>")).collect();
        let _ = write!(
            body,
            "<h2>Latency by percentile{void}</h2><div class=\"card\">{}",
            percentile_chart(&lines)
        );
        // Percentiles down, so that a narrow screen has room for all columns.
        let _ = write!(body, "<div class=\"scroll\"><table><tr><th></th>{heads}</tr>");
        for (name, q) in QUANTILES {
            let cells: String = lines
                .iter()
                .map(|(_, histogram)| format!("<td>{}</td>", time(histogram.value_at_quantile(q))))
                .collect();
            let _ = write!(body, "<tr><td>{name}</td>{cells}</tr>");
        }
        body.push_str("</table></div></div>");
    }
    body.push_str(&over_time(spec, outcome));
    let _ = write!(
        body,
        "<h2>The report in full</h2><div class=\"card\"><pre>{}</pre></div>",
        escape(&text::render(spec, outcome, verdict, place))
    );
    body.push_str(&environment(place, std::slice::from_ref(subject)));
    let version = subject.version.as_deref().unwrap_or("version unknown");
    let title =
        format!("{}: {} of {} ({version}), {}", verdict.name(), spec.scenario, subject.target, place.date());
    page(&title, &body)
}
