//! What a run is worth: the generator's judgement of itself and of the broker, and the exit code.

use crate::engine::Outcome;
use crate::report::Figures;
use crate::spec::{Focus, Pattern, Spec};
use crate::threshold::Threshold;

/// A worker that is busier than this can no longer tell its own delay from the broker's.
pub const BUSY_MAX: f64 = 0.90;
/// The largest share of the measured p99 that the generator's own p99 lateness may have.
pub const LATENESS_SHARE_MAX: f64 = 0.20;

/// Exit codes.
pub mod exit {
    pub const FINE: u8 = 0;
    pub const THRESHOLD: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const FAULTY: u8 = 3;
    pub const INVALID: u8 = 4;
    pub const CONNECTION: u8 = 5;
}

/// Whether the figures are the broker's or the generator's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Worth {
    Valid,
    /// Closed loop: the generator was the bottleneck. The rate is a lower bound, latency is void.
    GeneratorBound,
    /// Open loop: the generator did not keep its own schedule. Rate and latency are void.
    Invalid,
    /// The run ended before anything was measured.
    Nothing,
}

const PID_VOID: &str = "the processes of --pid used no CPU time while the broker worked: their CPU time and memory are \
                        void, --pid is wrong";

/// See the top of the file.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub worth: Worth,
    /// Why it is worth no more.
    pub reasons: Vec<String>,
    /// Why what was seen of the processes of `--pid` is void, if it is.
    pub pid_void: Option<&'static str>,
    /// The broker's shortcomings, in words.
    pub faults: Vec<String>,
    /// Thresholds that did not hold.
    pub broken: Vec<String>,
    pub checked: bool,
    pub exit: u8,
}

impl Verdict {
    pub fn name(&self) -> &'static str {
        match self.worth {
            Worth::Valid => "VALID",
            Worth::GeneratorBound => "GENERATOR-BOUND",
            Worth::Invalid => "INVALID",
            Worth::Nothing => "NOTHING MEASURED",
        }
    }

    pub fn latency_holds(&self) -> bool {
        self.worth == Worth::Valid
    }
}

/// Judges a run.
pub fn judge(spec: &Spec, outcome: &Outcome, thresholds: &[Threshold]) -> Verdict {
    let (worth, reasons) = worth(spec, outcome);
    let mut verdict = Verdict {
        worth,
        reasons,
        pid_void: Figures::of(spec, outcome).pid_void.then_some(PID_VOID),
        faults: faults(outcome),
        broken: Vec::new(),
        checked: spec.checked,
        exit: exit::FINE,
    };
    for threshold in thresholds {
        if let Some(why) = threshold.broken(spec, outcome, &verdict) {
            verdict.broken.push(why);
        }
    }
    // The most fundamental trouble decides: without connections nothing counts; a lost message stays lost even in a
    // run whose latencies are void.
    verdict.exit = if outcome.failures_total > 0 {
        exit::CONNECTION
    } else if outcome.totals.faults.any() {
        exit::FAULTY
    } else if worth == Worth::Invalid || (worth == Worth::Nothing && !outcome.interrupted) {
        exit::INVALID
    } else if !verdict.broken.is_empty() {
        exit::THRESHOLD
    } else {
        exit::FINE
    };
    verdict
}

fn worth(spec: &Spec, outcome: &Outcome) -> (Worth, Vec<String>) {
    let mut reasons = Vec::new();
    let totals = &outcome.totals;
    let nothing = match spec.focus {
        Focus::Messages if spec.pattern == Pattern::Swallow => totals.sent == 0,
        Focus::Messages | Focus::Retained => totals.delivered == 0,
        Focus::Idle => outcome.connections == 0,
        Focus::Connects => totals.connected == 0,
        Focus::Reconnects => totals.reconnected == 0,
    };
    if outcome.measured_s <= 0.0 || nothing {
        return (Worth::Nothing, reasons);
    }
    for core in outcome.cores.iter().filter(|core| core.busy() > BUSY_MAX) {
        reasons.push(format!(
            "the generator's CPU {} was {:.0} % busy (limit {:.0} %): give it more with --cores",
            core.cpu,
            100.0 * core.busy(),
            100.0 * BUSY_MAX
        ));
    }
    if !spec.is_open() {
        let worth = if reasons.is_empty() { Worth::Valid } else { Worth::GeneratorBound };
        return (worth, reasons);
    }
    let latency = Figures::of(spec, outcome).latency;
    let (late, p99) = (totals.lateness.value_at_quantile(0.99), latency.value_at_quantile(0.99));
    if late as f64 > LATENESS_SHARE_MAX * p99 as f64 {
        reasons.push(format!(
            "the generator itself was late: its p99 lateness of {} is more than {:.0} % of the measured p99 of {}",
            crate::report::time(late),
            100.0 * LATENESS_SHARE_MAX,
            crate::report::time(p99)
        ));
    }
    let worth = if reasons.is_empty() { Worth::Valid } else { Worth::Invalid };
    (worth, reasons)
}

fn faults(outcome: &Outcome) -> Vec<String> {
    let f = &outcome.totals.faults;
    let named = [
        (f.lost, "lost"),
        (f.duplicated, "duplicated"),
        (f.disordered, "out of order"),
        (f.corrupted, "corrupted"),
        (f.stray, "delivered to a client that had not subscribed"),
        (f.sessions_lost, "sessions forgotten"),
    ];
    named
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!("{} {what}", crate::report::count(*n)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;
    use crate::engine::{CoreUse, Cost};
    use crate::failure::Failure;
    use crate::threshold::Bound;

    fn spec(line: &str) -> Spec {
        let words = std::iter::once("loadgen").chain(line.split_whitespace());
        cli::parse(words.map(Into::into)).unwrap().run.spec().unwrap()
    }

    /// A run that went well: 1,000 messages of 10 ms in a second, sent 10 µs late by a core that is half busy.
    fn outcome() -> Outcome {
        let mut outcome = Outcome { measured_s: 1.0, ..Outcome::default() };
        outcome.totals.delivered = 1000;
        outcome.totals.latency.record_n(10_000_000, 1000).unwrap();
        outcome.totals.lateness.record_n(10_000, 1000).unwrap();
        outcome.cores.push(CoreUse { cpu: 0, workers: 1, connections: 2, ran: 0.5, wanted: 0.5 });
        outcome
    }

    fn judged(line: &str, outcome: &Outcome) -> (Worth, u8) {
        let verdict = judge(&spec(line), outcome, &[]);
        (verdict.worth, verdict.exit)
    }

    #[test]
    fn a_generator_that_keeps_up_is_valid() {
        assert_eq!(judged("p2p", &outcome()), (Worth::Valid, 0));
        assert_eq!(judged("p2p --rate 1000", &outcome()), (Worth::Valid, 0));
    }

    #[test]
    fn a_busy_generator_bounds_a_closed_loop_and_voids_an_open_one() {
        let mut busy = outcome();
        busy.cores[0].wanted = 0.91;
        assert_eq!(judged("p2p", &busy), (Worth::GeneratorBound, 0));
        assert_eq!(judged("p2p --rate 1000", &busy), (Worth::Invalid, 4));
        // Workers that share a CPU are busy together.
        let mut shared = outcome();
        shared.cores[0].ran = 0.95;
        assert_eq!(judged("p2p --rate 1000", &shared), (Worth::Invalid, 4));
        let verdict = judge(&spec("p2p"), &shared, &[Threshold::parse(Bound::Max, "p99=1s").unwrap()]);
        assert_eq!((verdict.exit, verdict.broken.len()), (1, 1), "a void latency holds no threshold");
        let rate = judge(&spec("p2p"), &shared, &[Threshold::parse(Bound::Min, "rate=900").unwrap()]);
        assert_eq!(rate.exit, 0, "a lower bound that is high enough holds one");
    }

    #[test]
    fn a_late_generator_voids_an_open_loop() {
        let mut late = outcome();
        late.totals.lateness.record_n(2_100_000, 50).unwrap();
        assert_eq!(judged("p2p --rate 1000", &late), (Worth::Invalid, 4));
        assert_eq!(judged("p2p", &late), (Worth::Valid, 0), "a closed loop has no schedule");
    }

    #[test]
    fn a_process_that_did_nothing_is_not_the_broker() {
        let held = |outcome: &Outcome, condition| {
            let verdict = judge(&spec("p2p"), outcome, &[Threshold::parse(Bound::Max, condition).unwrap()]);
            (verdict.worth, verdict.pid_void.is_none(), verdict.broken.is_empty())
        };
        let mut wrong = outcome();
        wrong.cost = Some(Cost { wall_ns: 1_000_000_000, memory_peak: 1, ..Cost::default() });
        assert_eq!(held(&wrong, "cpu=1us"), (Worth::Valid, false, false));
        assert_eq!(held(&wrong, "memory=1G"), (Worth::Valid, false, false), "the memory is not the broker's");
        assert_eq!(held(&wrong, "lost=0"), (Worth::Valid, false, true), "the rest of the run stands");
        let figures = Figures::of(&spec("p2p"), &wrong);
        assert_eq!(
            (figures.cpu_ns_each, figures.cpu_share, figures.memory_per_connection),
            (None, None, None)
        );
        let mut right = wrong;
        right.cost = Some(Cost { cpu_ns: 1000, ..right.cost.unwrap() });
        assert_eq!(held(&right, "cpu=1us"), (Worth::Valid, true, true));
        // A broker that has nothing to do may use nothing.
        right.cost = Some(Cost { cpu_ns: 0, ..right.cost.unwrap() });
        right.connections = 5;
        assert_eq!(judge(&spec("idle"), &right, &[]).pid_void, None);
    }

    #[test]
    fn the_gravest_trouble_decides_the_exit_code() {
        let mut outcome = outcome();
        let threshold = [Threshold::parse(Bound::Max, "p99=1ms").unwrap()];
        let code = |outcome: &Outcome| judge(&spec("p2p --rate 1000"), outcome, &threshold).exit;
        assert_eq!(code(&outcome), 1);
        outcome.cores[0].wanted = 1.0;
        assert_eq!(code(&outcome), 4);
        outcome.totals.faults.lost = 1;
        assert_eq!(code(&outcome), 3);
        outcome.failures.push(Failure::Ports);
        outcome.failures_total = 1;
        assert_eq!(code(&outcome), 5);
    }

    #[test]
    fn a_run_in_which_nothing_happened_is_worth_nothing() {
        assert_eq!(judged("p2p", &Outcome::default()), (Worth::Nothing, 4));
        let interrupted = Outcome { interrupted: true, ..Outcome::default() };
        assert_eq!(judged("p2p", &interrupted), (Worth::Nothing, 0));
    }
}
