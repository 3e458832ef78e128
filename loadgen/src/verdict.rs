//! What a run is worth: the generator's judgement of itself and of the broker, and the exit code.

use hdrhistogram::Histogram;

use crate::engine::Outcome;
use crate::report::{Figures, time};
use crate::spec::{Focus, Pattern, Spec};
use crate::threshold::Threshold;

/// A worker that is busier than this can no longer tell its own delay from the broker's.
pub const BUSY_MAX: f64 = 0.90;
/// The largest share of a measured quantile that the generator's own lateness at the same quantile may have.
pub const LATENESS_SHARE_MAX: f64 = 0.20;
/// The quantiles that have to be the broker's own.
const JUDGED: [(&str, f64); 3] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)];
/// A thread that wakes up so soon after its time is on time: a virtual CPU that sleeps takes as long to come back.
const WAKE_UP_FINE_NS: u64 = 100_000;
/// Wake-ups that must have been seen beyond a quantile before it says anything.
const WAKE_UPS_BEYOND: f64 = 5.0;
/// Whoever was ready to run for a larger share of the time, while others had the CPU, was not alone on it.
pub const DISTURBED_MIN: f64 = 0.05;
/// The same of a whole machine, on which many short waits come together.
const MACHINE_DISTURBED_MIN: f64 = 0.10;
/// A wait for a CPU lasts some milliseconds: at a given rate it cannot move a median above this by a fifth.
const WAIT_SEEN_BELOW_NS: u64 = 50_000_000;

/// Exit codes.
pub mod exit {
    pub const FINE: u8 = 0;
    pub const THRESHOLD: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const FAULTY: u8 = 3;
    pub const INVALID: u8 = 4;
    pub const CONNECTION: u8 = 5;
    /// Ctrl-C or SIGTERM, after the report of what there was.
    pub const INTERRUPTED: u8 = 130;
}

/// Whether the figures are the broker's or the generator's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Worth {
    Valid,
    /// Closed loop: the generator was the bottleneck. The rate is a lower bound, latency is void.
    GeneratorBound,
    /// Somebody else had the CPU that generator or broker needed: latency is void, the rate is a lower bound.
    Disturbed,
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
    /// Thresholds that did not hold, and those that did.
    pub broken: Vec<String>,
    pub held: Vec<String>,
    /// Whether the broker's processes were seen, so that their waiting for a CPU would have shown.
    pub broker_seen: bool,
    pub checked: bool,
    pub exit: u8,
}

impl Verdict {
    pub fn name(&self) -> &'static str {
        match self.worth {
            Worth::Valid => "VALID",
            Worth::GeneratorBound => "GENERATOR-BOUND",
            Worth::Disturbed => "DISTURBED",
            Worth::Invalid => "INVALID",
            Worth::Nothing => "NOTHING MEASURED",
        }
    }

    /// The broker may well do more than it did in this run.
    pub fn is_lower_bound(&self) -> bool {
        matches!(self.worth, Worth::GeneratorBound | Worth::Disturbed)
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
        held: Vec::new(),
        broker_seen: outcome.cost.or(outcome.bystanders).is_some(),
        checked: spec.checked,
        exit: exit::FINE,
    };
    for threshold in thresholds {
        match threshold.judge(spec, outcome, &verdict) {
            Ok(how) => verdict.held.push(how),
            Err(why) => verdict.broken.push(why),
        }
    }
    // Who ends a run knows why. Else the most fundamental trouble decides: without connections nothing counts; a lost
    // message stays lost even in a run whose latencies are void.
    let spoiled = worth == Worth::Invalid || (worth == Worth::Disturbed && spec.is_open());
    verdict.exit = if outcome.interrupted {
        exit::INTERRUPTED
    } else if outcome.failures_total > 0 {
        exit::CONNECTION
    } else if outcome.totals.faults.any() {
        exit::FAULTY
    } else if spoiled || worth == Worth::Nothing {
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
    let busy = !reasons.is_empty();
    let latency = Figures::of(spec, outcome).latency;
    let late = late(spec, outcome, latency);
    let waited = if spec.focus == Focus::Idle { Vec::new() } else { waited(spec, outcome, latency) };
    let worth = match (spec.is_open(), busy, late.is_some(), !waited.is_empty()) {
        (true, true, ..) | (true, _, true, _) => Worth::Invalid,
        (false, true, ..) => Worth::GeneratorBound,
        (_, _, true, _) | (_, _, _, true) => Worth::Disturbed,
        _ => Worth::Valid,
    };
    reasons.extend(late.into_iter().chain(waited));
    (worth, reasons)
}

/// Whether the generator's own delay is a part of the measured latency, at the quantile where it is the largest part.
fn late(spec: &Spec, outcome: &Outcome, latency: &Histogram<u64>) -> Option<String> {
    let totals = &outcome.totals;
    if latency.is_empty() {
        return None;
    }
    let sends = if spec.is_open() { Some((&totals.lateness, 0, 0.0, "its")) } else { None };
    let wakes = (&totals.wakeups, WAKE_UP_FINE_NS, WAKE_UPS_BEYOND, "for waking up, its");
    let kinds = sends.into_iter().chain([wakes]);
    let parts = kinds.flat_map(|(histogram, fine, beyond, what)| {
        JUDGED.into_iter().filter_map(move |(name, q)| {
            let (own, measured) = (histogram.value_at_quantile(q), latency.value_at_quantile(q));
            let share = own as f64 / measured.max(1) as f64;
            let seen = histogram.len() as f64 * (1.0 - q) >= beyond && !histogram.is_empty();
            let counts = seen && own > fine && share > LATENESS_SHARE_MAX;
            counts.then_some((share, what, name, own, measured))
        })
    });
    let (_, what, name, own, measured) = parts.max_by(|a, b| a.0.total_cmp(&b.0))?;
    Some(format!(
        "the generator itself was late: {what} {name} lateness of {} is more than {:.0} % of the measured {name} of {}",
        time(own),
        100.0 * LATENESS_SHARE_MAX,
        time(measured)
    ))
}

/// Who was ready to run while others had the CPU.
fn waited(spec: &Spec, outcome: &Outcome, latency: &Histogram<u64>) -> Vec<String> {
    let slow = spec.is_open() && latency.value_at_quantile(0.5) >= WAIT_SEEN_BELOW_NS;
    if slow {
        return Vec::new();
    }
    let mut reasons = Vec::new();
    for core in outcome.cores.iter().filter(|core| core.undue > DISTURBED_MIN) {
        reasons.push(format!(
            "the generator was ready to run, but others had its CPU {} for {:.0} % of the time",
            core.cpu,
            100.0 * core.undue
        ));
    }
    let broker = outcome.cost.or(outcome.bystanders).map_or(0.0, |cost| cost.undue_share());
    if broker > DISTURBED_MIN {
        reasons.push(format!(
            "the broker was ready to run, but without a CPU for {:.0} % of the time: give it and loadgen CPUs of \
             their own (--cores)",
            100.0 * broker
        ));
    }
    if let Some(share) = outcome.machine_waited.filter(|&share| share > MACHINE_DISTURBED_MIN) {
        reasons.push(format!(
            "somebody on this machine had to wait for a CPU {:.0} % of the time, perhaps the broker: name it with \
             --pid to know",
            100.0 * share
        ));
    }
    reasons
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
        outcome.cores.push(CoreUse { cpu: 0, workers: 1, connections: 2, ran: 0.5, wanted: 0.5, undue: 0.0 });
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
    fn each_quantile_has_to_be_the_brokers_own() {
        // p50 80 µs, p90 2.3 ms, p99 10 ms; the generator was late by so much in 150 of 1,000 cases, and else by that.
        for (often, sometimes, worth) in [
            (1_000, 1_000, Worth::Valid),
            (1_000, 600_000, Worth::Invalid),
            (20_000, 20_000, Worth::Invalid),
            (1_000, 2_500_000, Worth::Invalid),
        ] {
            let mut mixed = outcome();
            mixed.totals.latency.reset();
            mixed.totals.lateness.reset();
            for (latency, n) in [(80_000, 850), (2_300_000, 130), (10_000_000, 20)] {
                mixed.totals.latency.record_n(latency, n).unwrap();
            }
            mixed.totals.lateness.record_n(often, 850).unwrap();
            mixed.totals.lateness.record_n(sometimes, 150).unwrap();
            assert_eq!(judged("p2p --rate 1000", &mixed).0, worth, "{often} {sometimes}");
        }
    }

    #[test]
    fn a_thread_that_wakes_up_late_spoils_any_run_whether_or_not_the_broker_is_known() {
        let mut sleepy = outcome();
        sleepy.totals.wakeups.record_n(50_000, 800).unwrap();
        sleepy.totals.wakeups.record_n(2_500_000, 200).unwrap();
        assert_eq!(judged("p2p", &sleepy), (Worth::Disturbed, 0));
        assert_eq!(judged("p2p --rate 1000", &sleepy), (Worth::Invalid, 4));
        let verdict = judge(&spec("p2p"), &sleepy, &[Threshold::parse(Bound::Max, "p99=1s").unwrap()]);
        assert!(!verdict.latency_holds() && verdict.exit == exit::THRESHOLD);
        // Too few to say anything of p90 or p99.
        sleepy.totals.wakeups.reset();
        sleepy.totals.wakeups.record_n(2_500_000, 9).unwrap();
        assert_eq!(judged("p2p", &sleepy), (Worth::Valid, 0));
    }

    #[test]
    fn who_waits_for_a_cpu_while_others_have_it_makes_no_valid_run() {
        let waiting = Cost { cpu_ns: 9, wall_ns: 1_000_000_000, undue_ns: 380_000_000, ..Cost::default() };
        let mut known = outcome();
        known.cost = Some(waiting);
        let mut found = outcome();
        found.bystanders = Some(waiting);
        let mut own = outcome();
        own.cores[0].undue = 0.2;
        let mut machine = outcome();
        machine.machine_waited = Some(0.3);
        for disturbed in [known, found, own, machine] {
            assert_eq!(judged("p2p --rate 50k", &disturbed), (Worth::Disturbed, 4));
            assert_eq!(judged("p2p", &disturbed), (Worth::Disturbed, 0));
            assert_eq!(judged("idle", &Outcome { connections: 1, ..disturbed }).0, Worth::Valid);
        }
    }

    #[test]
    fn a_threshold_that_holds_is_said_to_hold() {
        let limits = ["p99=20ms", "lost=0"].map(|text| Threshold::parse(Bound::Max, text).unwrap());
        let verdict = judge(&spec("p2p"), &outcome(), &limits);
        assert_eq!(verdict.held, ["p99 is 10.0 ms, at most 20.0 ms", "lost is 0, at most 0"]);
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
        outcome.failures.push((Failure::Ports, 1));
        outcome.failures_total = 1;
        assert_eq!(code(&outcome), 5);
    }

    #[test]
    fn a_run_in_which_nothing_happened_is_worth_nothing() {
        assert_eq!(judged("p2p", &Outcome::default()), (Worth::Nothing, 4));
        let interrupted = Outcome { interrupted: true, ..Outcome::default() };
        assert_eq!(judged("p2p", &interrupted), (Worth::Nothing, 130));
    }
}
