//! `loadgen compare`: the same work against several brokers in turn, several rounds interleaved.
//!
//! Rounds are interleaved so that a change of the machine in the meantime meets all brokers alike. A ratio is taken
//! within each round, against the first broker, and shown with its spread over the rounds. A broker that fails is said
//! to have failed and sits out the rest of that work; the others go on.

mod json;
mod page;
pub mod plan;
mod text;

use std::sync::atomic::{AtomicBool, Ordering};

use hdrhistogram::Histogram;

use crate::cli::{Refusal, RunArgs};
use crate::engine::{self, Outcome, meter};
use crate::environment::Subject;
use crate::report::{Figures, count, headline, time};
use crate::spec::{Focus, Spec};
use crate::verdict::{self, Verdict, Worth, exit};

pub use plan::Work;

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
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// `None` where nothing moves.
    pub rate: Option<f64>,
    /// p50 and p99, also where they are void.
    pub p50_ns: Option<u64>,
    pub p99_ns: Option<u64>,
    pub latency_holds: bool,
    pub cpu_ns: Option<f64>,
    /// The contender's pid is not the broker's.
    pub pid_void: bool,
    /// Resident memory at most.
    pub memory: Option<u64>,
    /// Allocated by the broker, and by the kernel on this machine, for each connection, in a run about those.
    pub memory_each: Option<f64>,
    pub kernel_each: Option<f64>,
    /// Share of the time in which the broker was ready to run and had no CPU.
    pub waited: Option<f64>,
    /// How busy the busiest of the generator's CPUs was.
    pub busy: f64,
    pub verdict: &'static str,
    pub worth: Worth,
    pub faults: u64,
    pub exit: u8,
}

impl Round {
    fn of(spec: &Spec, outcome: &Outcome, verdict: &Verdict) -> Round {
        let figures = Figures::of(spec, outcome);
        let quantile = |q| (!figures.latency.is_empty()).then(|| figures.latency.value_at_quantile(q));
        let f = &outcome.totals.faults;
        // In a storm memory of the last one is used again, and says nothing.
        let about_connections = spec.focus == Focus::Idle;
        Round {
            rate: (spec.focus != Focus::Idle).then_some(figures.rate),
            p50_ns: quantile(0.5),
            p99_ns: quantile(0.99),
            latency_holds: verdict.latency_holds(),
            cpu_ns: figures.cpu_ns_each,
            pid_void: figures.pid_void,
            memory: outcome.cost.filter(|_| !figures.pid_void).map(|cost| cost.memory_peak),
            memory_each: figures.memory_per_connection.filter(|_| about_connections),
            kernel_each: figures.kernel_per_connection.filter(|_| about_connections),
            waited: outcome.cost.filter(|_| !figures.pid_void).map(|cost| cost.undue_share()),
            busy: outcome.cores.iter().map(|core| core.busy()).fold(0.0, f64::max),
            verdict: verdict.name(),
            worth: verdict.worth,
            faults: f.lost + f.duplicated + f.disordered + f.corrupted + f.stray,
            exit: verdict.exit,
        }
    }

    fn valid(&self, ns: Option<u64>) -> Option<f64> {
        ns.filter(|_| self.latency_holds).map(|ns| ns as f64)
    }

    /// One line, for the time while it goes on.
    pub fn text(&self) -> String {
        let Some(rate) = self.rate.map(|rate| count(rate.round() as u64)) else {
            let memory = self.memory_each.map_or("unknown: give its pid".into(), crate::report::bytes);
            return format!("{:>12}    memory per connection {memory}  {}", "idle", self.verdict);
        };
        let latency = |ns| self.valid(ns).map_or("void".into(), |ns| time(ns as u64));
        let (p50, p99) = (latency(self.p50_ns), latency(self.p99_ns));
        let cpu = self.cpu_ns.map_or(String::new(), |ns| format!("  CPU {:>7}", time(ns as u64)));
        format!("{rate:>10}/s  p50 {p50:>7} p99 {p99:>7}{cpu} {}", self.verdict)
    }
}

/// A broker's turn in one round: what it did, or why nothing came of it.
pub type Turn = Result<Round, String>;

/// All rounds of one broker.
pub struct Series {
    pub name: String,
    pub turns: Vec<Turn>,
    /// Latencies of all rounds whose latency holds.
    pub latency: Histogram<u64>,
}

impl Series {
    pub fn rounds(&self) -> impl Iterator<Item = &Round> {
        self.turns.iter().flatten()
    }

    /// Why it failed, if it did.
    pub fn failure(&self) -> Option<&str> {
        self.turns.iter().find_map(|turn| turn.as_ref().err().map(String::as_str))
    }
}

/// One work, done by all.
pub struct Contest {
    pub work: Work,
    pub headline: String,
    pub unit: &'static str,
    pub series: Vec<Series>,
}

/// The comparison as a whole.
pub struct Comparison {
    pub contests: Vec<Contest>,
    pub subjects: Vec<Subject>,
    /// The user ended it early; the round that was under way does not count.
    pub interrupted: bool,
}

/// What is heard of a comparison while it goes on.
pub enum News<'a> {
    Work(&'a str),
    Turn(&'a str, &'a Turn),
}

/// Runs all works one after the other.
///
/// # Errors
/// What is wrong with the options of a work, before anything runs.
pub fn compare(
    contenders: &[Contender],
    works: Vec<Work>,
    interrupted: &AtomicBool,
    show: &mut dyn FnMut(News<'_>),
) -> Result<Comparison, Refusal> {
    for (contender, work) in contenders.iter().flat_map(|c| works.iter().map(move |w| (c, w))) {
        if let Err(Refusal::Usage(what)) = against(contender, work).spec() {
            return Err(Refusal::Usage(format!("{}: {what}", work.name)));
        }
    }
    let mut comparison = Comparison { contests: Vec::new(), subjects: Vec::new(), interrupted: false };
    for work in works {
        show(News::Work(&work.name));
        let contest = contest(contenders, work, interrupted, show);
        comparison.contests.push(contest);
        if interrupted.load(Ordering::Relaxed) {
            comparison.interrupted = true;
            break;
        }
    }
    // Asked at the end, so that brokers are measured as they were started.
    for contender in contenders {
        let spec = comparison.contests.first().and_then(|first| against(contender, &first.work).spec().ok());
        let pids = spec.as_ref().map_or(contender.pids.clone(), Spec::known);
        comparison.subjects.push(Subject::look(&contender.name, &pids, spec.as_ref()));
    }
    Ok(comparison)
}

fn against(contender: &Contender, work: &Work) -> RunArgs {
    RunArgs {
        host: contender.host.clone(),
        port: contender.port,
        pid: contender.pids.clone(),
        ..work.args.clone()
    }
}

fn contest(
    contenders: &[Contender],
    work: Work,
    interrupted: &AtomicBool,
    show: &mut dyn FnMut(News<'_>),
) -> Contest {
    let start =
        |c: &Contender| Series { name: c.name.clone(), turns: Vec::new(), latency: meter::histogram() };
    let mut contest =
        Contest { headline: String::new(), unit: "", series: contenders.iter().map(start).collect(), work };
    for _ in 0..contest.work.rounds {
        for (contender, series) in contenders.iter().zip(&mut contest.series) {
            if let Some(failure) = series.failure() {
                let failure = failure.to_string();
                series.turns.push(Err(failure));
                continue;
            }
            let args = against(contender, &contest.work);
            let turn = match args.spec() {
                Err(Refusal::Usage(what)) => Err(what),
                Err(Refusal::Connection(failure)) => Err(failure.to_string()),
                Ok(spec) => {
                    let outcome = engine::run(&spec, interrupted, &mut |_| {});
                    if outcome.interrupted {
                        return contest;
                    }
                    contest.headline = headline(&spec).replace(&format!(", {}", spec.target.name), "");
                    contest.unit = Figures::of(&spec, &outcome).unit;
                    series.take(&spec, &outcome, &verdict::judge(&spec, &outcome, &args.thresholds()))
                }
            };
            show(News::Turn(&contender.name, &turn));
            series.turns.push(turn);
            if interrupted.load(Ordering::Relaxed) {
                return contest;
            }
        }
    }
    contest
}

impl Series {
    fn take(&mut self, spec: &Spec, outcome: &Outcome, verdict: &Verdict) -> Turn {
        if let Some((failure, _)) = outcome.failures.first() {
            return Err(failure.to_string());
        }
        if verdict.worth == Worth::Nothing {
            return Err("nothing happened in the measured time".into());
        }
        let round = Round::of(spec, outcome, verdict);
        if round.latency_holds {
            let latency = Figures::of(spec, outcome).latency;
            self.latency.add(latency).expect("all histograms have the same bounds");
        }
        Ok(round)
    }
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

    pub fn text(&self, show: impl Fn(f64) -> String) -> String {
        format!("{} ({} – {})", show(self.median), show(self.low), show(self.high))
    }
}

/// How a figure stands to that of the first broker, in words: `26 times a's`, `1/26 of a's`.
fn in_words(ratio: f64, first: &str) -> String {
    match ratio {
        r if (0.995..1.005).contains(&r) => format!("as {first}"),
        r if r >= 0.5 => format!("{} times {first}'s", text::short(r)),
        r => format!("{} of {first}'s", text::short(r)),
    }
}

/// A figure by which brokers are compared.
#[derive(Clone, Copy)]
pub struct Measure {
    pub name: &'static str,
    pub value: fn(&Round) -> Option<f64>,
    pub show: fn(f64) -> String,
}

/// All of them; what nobody has is left out.
pub const MEASURES: [Measure; 7] = [
    Measure { name: "rate", value: |r| r.rate, show: |v| count(v.round() as u64) },
    Measure { name: "p50", value: |r| r.valid(r.p50_ns), show: |v| time(v as u64) },
    Measure { name: "p99", value: |r| r.valid(r.p99_ns), show: |v| time(v as u64) },
    Measure { name: "broker's CPU time each", value: |r| r.cpu_ns, show: |v| time(v as u64) },
    Measure {
        name: "broker's memory at most",
        value: |r| r.memory.map(|b| b as f64),
        show: crate::report::bytes,
    },
    Measure {
        name: "allocated by the broker per connection",
        value: |r| r.memory_each,
        show: crate::report::bytes,
    },
    Measure {
        name: "kernel's objects per connection, both ends",
        value: |r| r.kernel_each,
        show: crate::report::bytes,
    },
];

/// Those of latency, which a reader wants to see together.
pub const LATENCIES: &[Measure; 2] = &[MEASURES[1], MEASURES[2]];

impl Contest {
    /// A measure of one broker: its spread, its ratio to the first broker within rounds, and a mark in front.
    fn cell(&self, measure: &Measure, broker: usize) -> (Option<Spread>, Option<Spread>, &'static str) {
        let series = &self.series[broker];
        let value = |turn: &Turn| turn.as_ref().ok().and_then(measure.value);
        let pairs = series.turns.iter().zip(&self.series[0].turns);
        let ratios =
            pairs.filter_map(|(mine, first)| Some(value(mine)? / value(first).filter(|&v| v > 0.0)?));
        let any = |worth| series.rounds().any(|r| r.worth == worth);
        let mark = match measure.name {
            "rate" if any(Worth::Invalid) => "void: ",
            "rate" if any(Worth::GeneratorBound) || any(Worth::Disturbed) => "≥ ",
            _ => "",
        };
        (Spread::of(series.turns.iter().filter_map(value)), Spread::of(ratios), mark)
    }

    /// The measures that anybody has.
    fn measures(&self) -> impl Iterator<Item = &'static Measure> {
        let known = |measure: &&Measure| {
            self.series.iter().any(|s| s.rounds().any(|r| (measure.value)(r).is_some_and(|v| v > 0.0)))
        };
        MEASURES.iter().filter(known)
    }

    /// Rounds that every broker has had.
    fn rounds(&self) -> usize {
        self.series.iter().map(|s| s.turns.len()).min().unwrap_or(0)
    }
}

impl Comparison {
    /// The gravest exit code of all runs.
    pub fn exit(&self) -> u8 {
        if self.interrupted {
            return exit::INTERRUPTED;
        }
        let series = || self.contests.iter().flat_map(|contest| &contest.series);
        let codes = || {
            series().flat_map(|s| s.rounds().map(|r| r.exit)).chain(
                // A broker that failed did so at its connections.
                series().filter(|s| s.failure().is_some()).map(|_| exit::CONNECTION),
            )
        };
        let grave = [exit::CONNECTION, exit::FAULTY, exit::INVALID, exit::THRESHOLD];
        grave.into_iter().find(|&code| codes().any(|c| c == code)).unwrap_or(exit::FINE)
    }
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

    fn round(rate: f64) -> Round {
        Round {
            rate: Some(rate),
            p50_ns: Some(5),
            p99_ns: Some(9),
            latency_holds: false,
            cpu_ns: None,
            pid_void: false,
            memory: None,
            memory_each: None,
            kernel_each: None,
            waited: None,
            busy: 1.0,
            verdict: "GENERATOR-BOUND",
            worth: Worth::GeneratorBound,
            faults: 0,
            exit: 0,
        }
    }

    fn comparison(series: Vec<(&str, Vec<Turn>)>) -> Comparison {
        let series = series.into_iter().map(|(name, turns)| Series {
            name: name.into(),
            turns,
            latency: meter::histogram(),
        });
        let work = Work::of_words(&["p2p".into()], 3).unwrap();
        let contest = Contest { work, headline: "work".into(), unit: "msg/s", series: series.collect() };
        Comparison { contests: vec![contest], subjects: Vec::new(), interrupted: false }
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        // The machine slowed down over the rounds; the ratio did not change.
        let turns = |rates: [f64; 3]| rates.map(|rate| Ok(round(rate))).into();
        let comparison =
            comparison(vec![("a", turns([400.0, 200.0, 100.0])), ("b", turns([200.0, 100.0, 50.0]))]);
        let contest = &comparison.contests[0];
        let names: Vec<&str> = contest.measures().map(|m| m.name).collect();
        assert_eq!(names, ["rate"], "void latencies and measures without values are left out");
        assert_eq!(contest.cell(&MEASURES[0], 1).1, Some(Spread { median: 0.5, low: 0.5, high: 0.5 }));
        let text = comparison.text();
        assert!(text.contains("0.50 times a's") && text.contains("≥ 100"), "{text}");
        assert_eq!(comparison.exit(), 0);
    }

    #[test]
    fn a_ratio_is_said_in_words_and_p50_and_p99_stand_side_by_side() {
        for (ratio, words) in [
            (26.04, "26 times a's"),
            (0.0384, "1/26 of a's"),
            (1.3, "1.30 times a's"),
            (0.25, "1/4.00 of a's"),
            (1.0, "as a"),
        ] {
            assert_eq!(in_words(ratio, "a"), words);
        }
        let valid = |rate: f64, p50, p99| {
            Ok(Round {
                p50_ns: Some(p50),
                p99_ns: Some(p99),
                latency_holds: true,
                verdict: "VALID",
                worth: Worth::Valid,
                cpu_ns: Some(1e9 / rate),
                ..round(rate)
            })
        };
        let two = comparison(vec![
            ("ringmq", vec![valid(5_900_000.0, 81_000, 2_300_000), valid(6_100_000.0, 91_000, 2_500_000)]),
            ("mosquitto", vec![valid(217_000.0, 162_000, 4_600_000), valid(227_000.0, 182_000, 5_000_000)]),
        ]);
        let text = two.text();
        assert!(text.contains("27 times ringmq's"), "{text}");
        let line = text.lines().find(|line| line.contains("2.00 times")).unwrap();
        assert_eq!(line.matches("2.00 times ringmq's").count(), 2, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn a_contender_with_the_wrong_pid_is_told_so() {
        let comparison = comparison(vec![
            ("a", vec![Ok(round(400.0))]),
            ("b", vec![Ok(Round { pid_void: true, ..round(200.0) })]),
        ]);
        let remarks = comparison.contests[0].remarks();
        assert!(!remarks[0].1.contains("pid") && remarks[1].1.contains("pid"), "{remarks:?}");
    }

    #[test]
    fn a_broker_that_fails_spoils_nothing_but_its_own_column() {
        let dead = || Err("connection refused".to_string());
        let comparison = comparison(vec![
            ("a", vec![Ok(round(400.0)), Ok(round(200.0))]),
            ("b", vec![Ok(round(200.0)), dead()]),
            ("c", vec![dead(), dead()]),
        ]);
        let contest = &comparison.contests[0];
        assert_eq!(contest.cell(&MEASURES[0], 1).1.unwrap().median, 0.5);
        assert_eq!(contest.cell(&MEASURES[0], 2), (None, None, ""));
        assert!(comparison.text().contains("failed: connection refused"));
        assert_eq!(comparison.exit(), 5);
    }
}
