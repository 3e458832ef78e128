//! `loadgen compare`: the same work against several brokers in turn, several rounds interleaved.
//!
//! Rounds are interleaved so that a change of the machine in the meantime meets all brokers alike. A ratio is taken
//! within each round, against the first broker, and shown with its spread over the rounds.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::cli::{Refusal, RunArgs};
use crate::engine::{self, meter};
use crate::environment::Environment;
use crate::report::chart::escape;
use crate::report::{DISTURBED_MIN, Figures, count, headline, html, time};
use crate::verdict::{self, Worth};

/// A broker under comparison: `name=host:port[,pid…]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Contender {
    pub name: String,
    pub host: String,
    pub port: u16,
    pub pids: Vec<u32>,
}

impl Contender {
    pub fn parse(text: &str) -> Result<Contender, String> {
        let form = || format!("'{text}' is not name=host:port[,pid]");
        let (name, rest) = text.split_once('=').ok_or_else(form)?;
        let mut parts = rest.split(',');
        let (host, port) = parts.next().and_then(|address| address.rsplit_once(':')).ok_or_else(form)?;
        let pids: Result<Vec<u32>, _> = parts.map(str::parse).collect();
        let (Ok(port), Ok(pids)) = (port.parse(), pids) else { return Err(form()) };
        if name.is_empty() || host.is_empty() {
            return Err(form());
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
        Ok(Contender { name: name.into(), host, port, pids })
    }
}

/// One run of one broker.
pub struct Round {
    pub rate: f64,
    pub p50_ns: Option<u64>,
    pub p99_ns: Option<u64>,
    pub cpu_ns: Option<f64>,
    pub memory: Option<u64>,
    /// Share of the time in which the broker was ready to run and had no CPU.
    pub waited: Option<f64>,
    pub verdict: String,
    pub worth: Worth,
    pub faults: u64,
    pub exit: u8,
}

/// All rounds of one broker.
pub struct Series {
    pub contender: Contender,
    pub rounds: Vec<Round>,
    /// Latencies of all rounds whose latency holds.
    pub latency: Histogram<u64>,
}

/// The comparison as a whole.
pub struct Comparison {
    pub headline: String,
    pub unit: &'static str,
    pub series: Vec<Series>,
}

/// Runs all rounds; `show` hears of each run when it is over.
pub fn compare(
    contenders: &[Contender],
    rounds: u32,
    args: &RunArgs,
    interrupted: &AtomicBool,
    show: &mut dyn FnMut(&str, &Round),
) -> Result<Comparison, Refusal> {
    let start =
        |c: &Contender| Series { contender: c.clone(), rounds: Vec::new(), latency: meter::histogram() };
    let mut comparison =
        Comparison { headline: String::new(), unit: "", series: contenders.iter().map(start).collect() };
    for _ in 0..rounds {
        for series in &mut comparison.series {
            if interrupted.load(Ordering::Relaxed) {
                return Ok(comparison);
            }
            let c = &series.contender;
            let args = RunArgs { host: c.host.clone(), port: c.port, pid: c.pids.clone(), ..args.clone() };
            let spec = args.spec()?;
            let outcome = engine::run(&spec, interrupted, &mut |_| {});
            let verdict = verdict::judge(&spec, &outcome, &args.thresholds());
            let figures = Figures::of(&spec, &outcome);
            let latency = verdict.latency_holds() && !figures.latency.is_empty();
            if latency {
                series.latency.add(figures.latency).expect("all histograms have the same bounds");
            }
            let f = &outcome.totals.faults;
            let result = Round {
                rate: figures.rate,
                p50_ns: latency.then(|| figures.latency.value_at_quantile(0.5)),
                p99_ns: latency.then(|| figures.latency.value_at_quantile(0.99)),
                cpu_ns: figures.cpu_ns_each,
                memory: outcome.cost.map(|cost| cost.memory_peak),
                waited: outcome.cost.map(|cost| cost.waited_ns as f64 / cost.wall_ns.max(1) as f64),
                verdict: verdict.name().into(),
                worth: verdict.worth,
                faults: f.lost + f.duplicated + f.disordered + f.corrupted + f.stray,
                exit: verdict.exit,
            };
            show(&series.contender.name, &result);
            if let Some(failure) = outcome.failures.first() {
                return Err(Refusal::Connection(failure.clone()));
            }
            comparison.headline = headline(&spec).replace(&format!(", {}", spec.target.name), "");
            comparison.unit = figures.unit;
            series.rounds.push(result);
        }
    }
    Ok(comparison)
}

/// Median, lowest and highest of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Spread {
    /// `None` without values.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Spread { median, low, high })
    }

    fn text(&self, show: impl Fn(f64) -> String) -> String {
        format!("{} ({} – {})", show(self.median), show(self.low), show(self.high))
    }
}

/// A figure by which brokers are compared.
struct Measure {
    name: &'static str,
    value: fn(&Round) -> Option<f64>,
    show: fn(f64) -> String,
}

const MEASURES: [Measure; 5] = [
    Measure { name: "rate", value: |r| Some(r.rate), show: |v| count(v.round() as u64) },
    Measure { name: "p50", value: |r| r.p50_ns.map(|ns| ns as f64), show: |v| time(v as u64) },
    Measure { name: "p99", value: |r| r.p99_ns.map(|ns| ns as f64), show: |v| time(v as u64) },
    Measure { name: "broker's CPU time each", value: |r| r.cpu_ns, show: |v| time(v as u64) },
    Measure { name: "broker's memory", value: |r| r.memory.map(|b| b as f64), show: crate::report::bytes },
];

struct Row {
    measure: &'static str,
    name: String,
    value: Option<String>,
    ratio: Option<Spread>,
    note: &'static str,
}

impl Comparison {
    /// The gravest exit code of all runs.
    pub fn exit(&self) -> u8 {
        let codes = || self.series.iter().flat_map(|s| s.rounds.iter().map(|r| r.exit));
        [5, 3, 4, 1].into_iter().find(|&code| codes().any(|c| c == code)).unwrap_or(0)
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for Measure { name: measure, value, show } in MEASURES {
            for series in &self.series {
                let spread = Spread::of(series.rounds.iter().filter_map(value));
                let pairs = series.rounds.iter().zip(&self.series[0].rounds);
                let ratio = pairs
                    .filter_map(|(mine, first)| Some(value(mine)? / value(first)?.max(f64::MIN_POSITIVE)));
                let any = |worth| series.rounds.iter().any(|r| r.worth == worth);
                let note = match measure {
                    "rate" if any(Worth::Invalid) => "void: ",
                    "rate" if any(Worth::GeneratorBound) => "≥ ",
                    _ => "",
                };
                rows.push(Row {
                    measure,
                    name: series.contender.name.clone(),
                    value: spread.map(|s| s.text(show)),
                    ratio: Spread::of(ratio),
                    note,
                });
            }
        }
        // A measure that nobody has says nothing.
        let known: Vec<&str> = rows.iter().filter(|r| r.value.is_some()).map(|r| r.measure).collect();
        let known: Vec<String> = known.into_iter().map(str::to_string).collect();
        rows.retain(|row| known.iter().any(|k| k == row.measure));
        rows
    }

    /// A table: each measure of each broker, median and spread, and the ratio to the first.
    pub fn text(&self) -> String {
        let rounds = self.series.first().map_or(0, |s| s.rounds.len());
        let mut out =
            format!("{}\n{rounds} rounds, interleaved; median (lowest – highest)\n\n", self.headline);
        let mut last = "";
        for row in self.rows() {
            if row.measure != last {
                let unit = if row.measure == "rate" { self.unit } else { "" };
                let _ = writeln!(
                    out,
                    "  {:<42}{:<38}ratio to {}",
                    format!("{} {unit}", row.measure),
                    "",
                    self.series[0].contender.name
                );
                last = row.measure;
            }
            let value = row.value.map_or("-".into(), |value| format!("{}{value}", row.note));
            let ratio = row.ratio.map_or("-".into(), |r| r.text(|v| format!("{v:.2}")));
            let _ = writeln!(out, "    {:<20}{value:<56}{ratio}", row.name);
        }
        out.push('\n');
        for series in &self.series {
            let verdicts: Vec<&str> = series.rounds.iter().map(|r| r.verdict.as_str()).collect();
            let faults: u64 = series.rounds.iter().map(|r| r.faults).sum();
            let waited = Spread::of(series.rounds.iter().filter_map(|r| r.waited));
            let disturbed = match waited.filter(|w| w.median > DISTURBED_MIN) {
                Some(w) => format!("; DISTURBED: without a CPU {:.0} % of the time", 100.0 * w.median),
                None => String::new(),
            };
            let _ = writeln!(
                out,
                "  {:<20}  {} lost, duplicated, disordered or corrupted; {}{disturbed}",
                series.contender.name,
                count(faults),
                verdicts.join(", ")
            );
        }
        out
    }

    pub fn json(&self, place: &Environment) -> Value {
        let series: Vec<Value> = self
            .series
            .iter()
            .map(|s| {
                let rounds: Vec<Value> = s
                    .rounds
                    .iter()
                    .map(|r| {
                        json!({"rate": r.rate, "p50_ns": r.p50_ns, "p99_ns": r.p99_ns, "cpu_ns_each": r.cpu_ns,
                               "memory": r.memory, "waited": r.waited, "worth": r.verdict, "faults": r.faults, "exit": r.exit})
                    })
                    .collect();
                json!({"name": s.contender.name, "target": format!("{}:{}", s.contender.host, s.contender.port),
                       "rounds": rounds})
            })
            .collect();
        json!({"headline": self.headline, "unit": self.unit, "brokers": series, "environment": place.json()})
    }

    /// One page: bars side by side, percentiles in one chart.
    pub fn html(&self, place: &Environment) -> String {
        let rounds = self.series.first().map_or(0, |s| s.rounds.len());
        let mut body = format!(
            "<h1>Comparison</h1><p>{}</p><p>{rounds} rounds, interleaved; medians, with the lowest and the highest</p>",
            escape(&self.headline)
        );
        for Measure { name: measure, value, show } in MEASURES {
            let spreads: Vec<Option<Spread>> =
                self.series.iter().map(|s| Spread::of(s.rounds.iter().filter_map(value))).collect();
            let top = spreads.iter().flatten().map(|s| s.high).fold(0.0, f64::max);
            if top == 0.0 {
                continue;
            }
            let unit = if measure == "rate" { self.unit } else { "" };
            let _ = write!(body, "<h2>{measure} {unit}</h2><div class=\"card\">");
            for (i, (series, spread)) in self.series.iter().zip(&spreads).enumerate() {
                body.push_str(&bar(&series.contender.name, i % 4, *spread, top, show));
            }
            body.push_str("</div>");
        }
        let lines: Vec<(String, &Histogram<u64>)> =
            self.series.iter().map(|s| (s.contender.name.clone(), &s.latency)).collect();
        if lines.iter().any(|(_, h)| !h.is_empty()) {
            let chart = html::percentile_chart(&lines);
            let _ =
                write!(body, "<h2>Latency by percentile, all rounds</h2><div class=\"card\">{chart}</div>");
        }
        let _ = write!(body, "<h2>In full</h2><div class=\"card\"><pre>{}</pre></div>", escape(&self.text()));
        body.push_str(&html::environment(place));
        html::page("loadgen: comparison", &body)
    }
}

/// A horizontal bar to the median, with a line from the lowest to the highest.
fn bar(name: &str, color: usize, spread: Option<Spread>, top: f64, show: fn(f64) -> String) -> String {
    const WIDTH: f64 = 760.0;
    const LEFT: f64 = 130.0;
    const RIGHT: f64 = 130.0;
    let scale = |v: f64| LEFT + v / top * (WIDTH - LEFT - RIGHT);
    let Some(s) = spread else {
        return format!("<p>{}: no valid figure</p>", escape(name));
    };
    format!(
        "<svg viewBox=\"0 0 {WIDTH} 34\"><text class=\"title\" x=\"0\" y=\"22\">{}</text>\
         <rect class=\"m{color}\" x=\"{LEFT}\" y=\"8\" width=\"{:.1}\" height=\"18\" rx=\"3\"><title>{}</title></rect>\
         <line class=\"s{color}\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"30\" y2=\"30\" stroke-width=\"2\"/>\
         <text class=\"title\" x=\"{:.1}\" y=\"22\">{}</text></svg>",
        escape(name),
        scale(s.median) - LEFT,
        escape(&s.text(show)),
        scale(s.low),
        scale(s.high),
        scale(s.high) + 8.0,
        show(s.median)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_are_read() {
        let c = Contender::parse("a=127.0.0.1:1883,12,13").unwrap();
        assert_eq!((c.name.as_str(), c.port, c.pids.as_slice()), ("a", 1883, &[12, 13][..]));
        assert_eq!(Contender::parse("v6=[::1]:1883").unwrap().host, "::1");
        for bad in ["a", "a=b", "a=b:x", "=b:1", "a=:1", "a=b:1,x"] {
            assert!(Contender::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        let result = |rate| Round {
            rate,
            p50_ns: None,
            p99_ns: None,
            cpu_ns: None,
            memory: None,
            waited: None,
            verdict: "VALID".into(),
            worth: Worth::Valid,
            faults: 0,
            exit: 0,
        };
        let series = |name: &str, rates: [f64; 3]| Series {
            contender: Contender::parse(&format!("{name}=h:1")).unwrap(),
            rounds: rates.map(result).into(),
            latency: meter::histogram(),
        };
        // The machine slowed down over the rounds; the ratio did not change.
        let comparison = Comparison {
            headline: "work".into(),
            unit: "msg/s",
            series: vec![series("a", [400.0, 200.0, 100.0]), series("b", [200.0, 100.0, 50.0])],
        };
        let rows = comparison.rows();
        assert_eq!(rows.len(), 2, "measures without values are left out");
        assert_eq!(rows[1].ratio, Some(Spread { median: 0.5, low: 0.5, high: 0.5 }));
        assert!(comparison.text().contains("0.50 (0.50 – 0.50)"));
        assert_eq!(comparison.exit(), 0);
    }
}
