//! The report for people.

use std::fmt::Write;

use hdrhistogram::Histogram;

use super::{Figures, QUANTILES, bytes, count, headline, time};
use crate::engine::Outcome;
use crate::environment::Environment;
use crate::spec::{Focus, Load, Pattern, Spec};
use crate::verdict::{Verdict, Worth};

/// From so many connections on their memory stands out from the rest.
const CONNECTIONS_THAT_SHOW: u32 = 100;

fn row(out: &mut String, name: &str, histogram: &Histogram<u64>) {
    let cells: Vec<String> = QUANTILES
        .iter()
        .map(|(_, q)| if histogram.is_empty() { "-".into() } else { time(histogram.value_at_quantile(*q)) })
        .map(|cell| format!("{cell:>9}"))
        .collect();
    let _ = writeln!(out, "  {name:<21}{}", cells.concat());
}

/// Columns of a plain terminal.
pub const COLUMNS: usize = 80;
/// Where the second column of the report begins.
const SECOND: usize = 16;

/// Breaks lines that are too long at a space, and lets what follows stand beneath its beginning.
pub fn wrapped(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let characters: Vec<char> = line.chars().collect();
        let own = characters.iter().take_while(|&&c| c == ' ').count();
        let in_second = own < SECOND
            && characters.get(SECOND - 2..SECOND) == Some(&[' ', ' '])
            && characters.get(SECOND).is_some_and(|&c| c != ' ');
        let indent = if in_second {
            SECOND
        } else if own < SECOND {
            own + 2
        } else {
            own
        };
        let (mut rest, mut at) = (characters.as_slice(), own);
        while rest.len() + if at == own { 0 } else { indent } > COLUMNS {
            let room = COLUMNS - if at == own { 0 } else { indent };
            let begin = if at == own { indent.max(own) } else { 0 };
            let Some(cut) = (begin + 1..=room).rev().find(|&i| rest[i] == ' ' && rest[i - 1] != ' ') else {
                break;
            };
            push_line(&mut out, if at == own { 0 } else { indent }, &rest[..cut]);
            let next = rest[cut..].iter().take_while(|&&c| c == ' ').count();
            (rest, at) = (&rest[cut + next..], usize::MAX);
        }
        push_line(&mut out, if at == own { 0 } else { indent }, rest);
    }
    out
}

fn push_line(out: &mut String, indent: usize, rest: &[char]) {
    out.extend(std::iter::repeat_n(' ', indent));
    out.extend(rest);
    out.push('\n');
}

/// What went wrong with connections, a line for each kind.
pub fn failures(outcome: &Outcome) -> Vec<String> {
    let mut lines: Vec<String> = outcome
        .failures
        .iter()
        .map(|(failure, times)| match times {
            1 => failure.to_string(),
            times => format!("{failure} ({} times)", count(*times)),
        })
        .collect();
    let told: u64 = outcome.failures.iter().map(|(_, times)| times).sum();
    if outcome.failures_total > told {
        lines.push(format!("and {} failures of other kinds", count(outcome.failures_total - told)));
    }
    lines
}

/// The whole report, several lines.
pub fn render(spec: &Spec, outcome: &Outcome, verdict: &Verdict, place: &Environment) -> String {
    let mut out = String::new();
    let figures = Figures::of(spec, outcome);
    let _ = writeln!(out, "{}", headline(spec));
    let warmup =
        if spec.warmup_s > 0.0 { format!(" after {} s of warm-up", spec.warmup_s) } else { String::new() };
    let _ = writeln!(
        out,
        "{:.1} s measured{warmup}; {} connections in {:.2} s; run {}{}",
        outcome.measured_s,
        count(outcome.connections.into()),
        outcome.connect_s,
        spec.run_id,
        if outcome.interrupted { "; PARTIAL, interrupted" } else { "" }
    );
    out.push('\n');
    rates(&mut out, spec, outcome, verdict, &figures);
    latency_table(&mut out, spec, outcome, verdict, &figures);
    out.push('\n');
    faults(&mut out, spec, outcome, verdict);
    cost(&mut out, spec, outcome, &figures);
    let cores: Vec<String> = outcome
        .cores
        .iter()
        .map(|core| format!("CPU {} {:.0} % busy", core.cpu, 100.0 * core.busy()))
        .collect();
    let _ = writeln!(out, "  generator     {}", cores.join(", "));
    if let Some(calibration) = &place.calibration {
        let _ = writeln!(out, "  its ceiling   {}", calibration.text());
    }
    ending(&mut out, spec, outcome, verdict);
    wrapped(&out)
}

fn rates(out: &mut String, spec: &Spec, outcome: &Outcome, verdict: &Verdict, figures: &Figures<'_>) {
    let totals = &outcome.totals;
    let at_least = if verdict.is_lower_bound() { "≥ " } else { "" };
    let rate = format!("{at_least}{} {}", count(figures.rate.round() as u64), figures.unit);
    let _ = match spec.focus {
        Focus::Messages if spec.pattern == Pattern::Swallow => {
            writeln!(out, "  rate          {rate} handed to the kernel")
        }
        Focus::Messages | Focus::Retained => writeln!(
            out,
            "  rate          {rate} received by subscribers, {}/s of payload",
            bytes(figures.bytes_rate)
        ),
        Focus::Idle => Ok(()),
        Focus::Connects => writeln!(out, "  rate          {rate}, {} in all", count(totals.connected)),
        Focus::Reconnects => writeln!(
            out,
            "  rate          {rate} while coming back; {} in {} storms of {:.2} s on average",
            count(totals.reconnected),
            totals.storms,
            totals.storm_ns as f64 / 1e9 / totals.storms.max(1) as f64
        ),
    };
    if spec.publishers == 0 || spec.focus == Focus::Retained {
        return;
    }
    if matches!(spec.load, Load::Open { .. }) {
        let copies = if spec.copies() > 1 {
            format!("; {} copies of each", count(spec.copies().into()))
        } else {
            String::new()
        };
        let _ = writeln!(
            out,
            "  offered       {} msg/s; sent {} msg/s{copies}",
            count(figures.offered_rate.round() as u64),
            count(figures.sent_rate.round() as u64),
        );
    } else {
        let _ = writeln!(out, "  sent          {} msg/s", count(figures.sent_rate.round() as u64));
    }
}

fn latency_table(out: &mut String, spec: &Spec, outcome: &Outcome, verdict: &Verdict, figures: &Figures<'_>) {
    let totals = &outcome.totals;
    let idle = spec.focus == Focus::Idle;
    if figures.latency.is_empty() && totals.latency.is_empty() && !(idle && totals.connected > 0) {
        return;
    }
    out.push('\n');
    let heads: Vec<String> = QUANTILES.iter().map(|(name, _)| format!("{name:>9}")).collect();
    let void = if verdict.latency_holds() { "" } else { " (VOID)" };
    let _ = writeln!(out, "  {:<21}{}", format!("latency{void}"), heads.concat());
    match spec.focus {
        Focus::Reconnects => {
            row(out, "since the cut", figures.latency);
            row(out, "since its connect", figures.uncorrected);
        }
        Focus::Idle => row(out, "connect to ready", &totals.connects_uncorrected),
        Focus::Connects if !spec.is_open() => row(out, "since its connect", figures.uncorrected),
        Focus::Retained => row(out, "since SUBSCRIBE", figures.latency),
        _ if spec.is_open() => {
            row(out, "corrected", figures.latency);
            row(out, "uncorrected", figures.uncorrected);
            row(out, "generator's lateness", &totals.lateness);
        }
        _ => row(out, "since sent", figures.latency),
    }
    if !totals.acks.is_empty() && spec.focus != Focus::Retained {
        row(out, "acknowledgement", &totals.acks);
    }
    if spec.focus == Focus::Reconnects && !totals.latency.is_empty() {
        row(out, "messages, corrected", &totals.latency);
    }
    if spec.focus != Focus::Idle && !totals.wakeups.is_empty() {
        row(out, "its wake-ups' delay", &totals.wakeups);
    }
    if spec.focus == Focus::Messages && !spec.is_open() {
        let _ = writeln!(
            out,
            "  (a closed loop waits when the broker stalls: its latencies are not corrected for that)"
        );
    }
}

fn faults(out: &mut String, spec: &Spec, outcome: &Outcome, verdict: &Verdict) {
    let totals = &outcome.totals;
    let f = &totals.faults;
    if spec.persistent && spec.focus == Focus::Reconnects {
        let _ = writeln!(out, "  sessions      {} forgotten by the broker", count(f.sessions_lost));
    }
    if spec.pattern == Pattern::Swallow || spec.publishers == 0 {
        return;
    }
    if !spec.checked {
        let _ = writeln!(
            out,
            "  UNCHECKED     nobody looked for lost, duplicated, disordered or corrupted messages"
        );
        return;
    }
    let _ = writeln!(
        out,
        "  checked       {} messages: {} lost, {} duplicated, {} out of order, {} corrupted",
        count(totals.unique_all),
        count(f.lost),
        count(f.duplicated),
        count(f.disordered),
        count(f.corrupted)
    );
    let mut note = |n: u64, name: &str, what: &str| {
        if n > 0 {
            let _ = writeln!(out, "  {name:<14}{} {what}", count(n));
        }
    };
    note(f.stray, "stray", "reached a client that had not subscribed to them");
    note(totals.redelivered, "redelivered", "came again on a resumed session, marked as such");
    let why = match verdict.worth {
        Worth::Valid | Worth::Nothing => "were due, but the broker took no more",
        Worth::Invalid | Worth::GeneratorBound | Worth::Disturbed => {
            "were due, but this generator did not keep up"
        }
    };
    note(totals.unsent, "unsent", why);
    note(totals.forgiven, "written off", "copies, to go on after a standstill of 1 s");
    if spec.slow > 0 {
        let expected = totals.sent_all * u64::from(spec.slow);
        let _ = writeln!(
            out,
            "  slow ones     received {} of {} messages; what they miss is no fault",
            count(totals.slow_delivered),
            count(expected)
        );
    }
}

fn cost(out: &mut String, spec: &Spec, outcome: &Outcome, figures: &Figures<'_>) {
    let Some(cost) = outcome.cost.filter(|_| !figures.pid_void) else { return };
    let each = match (figures.cpu_ns_each, spec.focus) {
        (None, _) => String::new(),
        (Some(ns), Focus::Connects | Focus::Reconnects) => {
            format!("{} of CPU per connection; ", time(ns as u64))
        }
        (Some(ns), _) => format!("{ns:.0} ns of CPU per received message; "),
    };
    if let Some(share) = figures.cpu_share {
        let share = 100.0 * share;
        let _ = writeln!(out, "  broker        {each}{share:.1} % of one CPU, {} threads", cost.threads);
        let waited = 100.0 * cost.undue_share();
        let _ = writeln!(out, "                ready to run, but without a CPU {waited:.1} % of the time");
    }
    let _ = writeln!(
        out,
        "  its memory    {} before, {} connected, {} at most",
        bytes(cost.memory_before.resident as f64),
        bytes(cost.memory_connected.resident as f64),
        bytes(cost.memory_peak as f64)
    );
    // A few connections cost less than what else changes meanwhile.
    let many = outcome.connections >= CONNECTIONS_THAT_SHOW;
    if let (Some(own), Some(kernel)) =
        (figures.memory_per_connection.filter(|_| many), figures.kernel_per_connection)
    {
        let _ = writeln!(
            out,
            "                {} allocated per connection; the kernel's objects on this machine grew by {} for each",
            bytes(own),
            bytes(kernel)
        );
    }
}

fn ending(out: &mut String, spec: &Spec, outcome: &Outcome, verdict: &Verdict) {
    out.push('\n');
    for line in failures(outcome) {
        let _ = writeln!(out, "  CONNECTION: {line}");
    }
    for fault in &verdict.faults {
        let _ = writeln!(out, "  FAULTY: {fault}");
    }
    for reason in &verdict.reasons {
        let _ = writeln!(out, "  {}: {reason}", verdict.name());
    }
    if let Some(why) = verdict.pid_void {
        let _ = writeln!(out, "  VOID: {why}");
    }
    for broken in &verdict.broken {
        let _ = writeln!(out, "  THRESHOLD: {broken}");
    }
    for held in &verdict.held {
        let _ = writeln!(out, "  holds: {held}");
    }
    let meaning = match verdict.worth {
        Worth::Valid if verdict.pid_void.is_some() => {
            "the generator kept up; the figures are the broker's, except those of --pid"
        }
        Worth::Valid if !verdict.broker_seen && spec.focus != Focus::Idle => {
            "the generator kept up; whether the broker had to wait for a CPU was not seen from here"
        }
        Worth::Valid => "the generator kept up; the figures are the broker's",
        Worth::Disturbed => {
            "others had the CPU: latency is void and the rate a lower bound; loss and the broker's CPU per message hold"
        }
        Worth::GeneratorBound if verdict.pid_void.is_some() => {
            "the rate is a lower bound and latency is void; loss holds"
        }
        Worth::GeneratorBound => {
            "the rate is a lower bound and latency is void; loss and the broker's CPU per message hold"
        }
        Worth::Invalid => "rate and latency are the generator's, not the broker's",
        Worth::Nothing => "nothing happened in the measured time",
    };
    let checked = if verdict.checked || spec.publishers == 0 { "" } else { " UNCHECKED" };
    let _ = writeln!(out, "  {}{checked}: {meaning}", verdict.name());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_at_spaces_and_lose_no_word() {
        let words = "word ".repeat(40);
        let table = format!("  {:<21}{}", "latency", "   1.50 µs".repeat(6));
        let text = format!(
            "  its ceiling   {words}\n  INVALID: {words}\nhead {words}\n{table}\n                {words}\nshort\n"
        );
        let broken = wrapped(&text);
        assert!(broken.lines().all(|line| line.chars().count() <= COLUMNS), "{broken}");
        let all = |text: &str| text.split_whitespace().map(str::to_string).collect::<Vec<_>>();
        assert_eq!(all(&broken), all(&text));
        assert!(broken.contains("\n                word") && broken.contains("\n    word"), "{broken}");
        assert_eq!(wrapped(&"x".repeat(200)).len(), 201, "what has no space stays whole");
    }

    #[test]
    fn clients_that_fail_alike_share_a_line_with_their_number() {
        use crate::failure::Failure;
        let closed =
            |n: u32| Failure::Closed { who: format!("subscriber {n}"), code: None, during: "while up" };
        assert!(closed(1).is_like(&closed(2)) && !closed(1).is_like(&Failure::Ports));
        let outcome = Outcome {
            failures: vec![(closed(1), 998), (Failure::Ports, 1)],
            failures_total: 1001,
            ..Outcome::default()
        };
        let lines = failures(&outcome);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].contains("subscriber 1") && lines[0].ends_with("(998 times)"), "{lines:?}");
        assert!(lines[2].contains("2 failures"), "{lines:?}");
    }

    #[test]
    fn messages_that_were_not_sent_are_the_brokers_fault_only_where_the_generator_kept_up() {
        let words = ["loadgen", "p2p", "--rate", "1000"].map(Into::into);
        let spec = crate::cli::parse(words).unwrap().run.spec().unwrap();
        let mut outcome = Outcome { measured_s: 1.0, ..Outcome::default() };
        outcome.totals.delivered = 1000;
        outcome.totals.unsent = 5;
        let report = |outcome: &Outcome| {
            render(&spec, outcome, &crate::verdict::judge(&spec, outcome, &[]), &Environment::here())
        };
        assert!(report(&outcome).contains("5 were due, but the broker took no more"));
        let busy =
            crate::engine::CoreUse { cpu: 0, workers: 1, connections: 2, ran: 1.0, wanted: 1.0, undue: 0.0 };
        outcome.cores.push(busy);
        let text = report(&outcome);
        assert!(text.contains("5 were due, but this generator did not keep up"), "{text}");
        assert!(text.contains("INVALID") && !text.contains("the broker took no more"), "{text}");
    }
}
