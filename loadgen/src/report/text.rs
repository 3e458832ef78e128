//! The report for people.

use std::fmt::Write;

use hdrhistogram::Histogram;

use super::{Figures, QUANTILES, bytes, count, headline, time};
use crate::engine::Outcome;
use crate::spec::{Load, Pattern, Spec};
use crate::verdict::{Verdict, Worth};

fn row(out: &mut String, name: &str, histogram: &Histogram<u64>) {
    let cells: Vec<String> = QUANTILES
        .iter()
        .map(|(_, q)| if histogram.is_empty() { "-".into() } else { time(histogram.value_at_quantile(*q)) })
        .map(|cell| format!("{cell:>10}"))
        .collect();
    let _ = writeln!(out, "  {name:<22}{}", cells.concat());
}

/// The whole report, several lines.
pub fn render(spec: &Spec, outcome: &Outcome, verdict: &Verdict) -> String {
    let mut out = String::new();
    let figures = Figures::of(spec, outcome);
    let totals = &outcome.totals;
    let open = matches!(spec.load, Load::Open { .. });
    let _ = writeln!(out, "{}", headline(spec));
    let _ = writeln!(
        out,
        "{:.1} s measured after {:.1} s of warm-up; {} connections in {:.2} s; run {}{}",
        outcome.measured_s,
        spec.warmup_s,
        count(outcome.connections.into()),
        outcome.connect_s,
        spec.run_id,
        if outcome.interrupted { "; PARTIAL, interrupted" } else { "" }
    );
    out.push('\n');
    let at_least = if verdict.worth == Worth::GeneratorBound { "≥ " } else { "" };
    let what =
        if spec.pattern == Pattern::Swallow { "handed to the kernel" } else { "received by subscribers" };
    let _ = writeln!(
        out,
        "  rate          {at_least}{} msg/s {what}, {}/s of payload",
        count(figures.delivered_rate.round() as u64),
        bytes(figures.delivered_bytes_rate)
    );
    if open {
        let _ = writeln!(
            out,
            "  offered       {} msg/s; sent {} msg/s{}",
            count(figures.offered_rate.round() as u64),
            count(figures.sent_rate.round() as u64),
            if spec.copies() > 1 {
                format!("; {} copies of each", count(spec.copies().into()))
            } else {
                String::new()
            }
        );
    } else {
        let _ = writeln!(out, "  sent          {} msg/s", count(figures.sent_rate.round() as u64));
    }
    if !totals.latency.is_empty() {
        latency_table(&mut out, spec, outcome, verdict);
    }
    out.push('\n');
    faults(&mut out, spec, outcome);
    cost(&mut out, outcome, &figures);
    let cores: Vec<String> = outcome
        .cores
        .iter()
        .map(|core| format!("CPU {} {:.0} % busy", core.cpu, 100.0 * core.busy))
        .collect();
    let _ = writeln!(out, "  generator     {}", cores.join(", "));
    ending(&mut out, outcome, verdict);
    out
}

fn latency_table(out: &mut String, spec: &Spec, outcome: &Outcome, verdict: &Verdict) {
    let totals = &outcome.totals;
    out.push('\n');
    let heads: Vec<String> = QUANTILES.iter().map(|(name, _)| format!("{name:>10}")).collect();
    let void = if verdict.latency_holds() { "" } else { " (VOID)" };
    let _ = writeln!(out, "  {:<22}{}", format!("latency{void}"), heads.concat());
    if matches!(spec.load, Load::Open { .. }) {
        row(out, "corrected", &totals.latency);
        row(out, "uncorrected", &totals.uncorrected);
        row(out, "generator's lateness", &totals.lateness);
    } else {
        row(out, "since sent", &totals.latency);
    }
    if !totals.acks.is_empty() {
        row(out, "acknowledgement", &totals.acks);
    }
    if matches!(spec.load, Load::Closed { .. }) {
        let _ = writeln!(
            out,
            "  (a closed loop waits when the broker stalls: its latencies are not corrected for that)"
        );
    }
}

fn faults(out: &mut String, spec: &Spec, outcome: &Outcome) {
    let totals = &outcome.totals;
    let f = &totals.faults;
    if spec.pattern == Pattern::Swallow {
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
        count(totals.delivered_all + f.corrupted.min(totals.unique_all.saturating_sub(totals.delivered_all))),
        count(f.lost),
        count(f.duplicated),
        count(f.disordered),
        count(f.corrupted)
    );
    if f.stray > 0 {
        let _ = writeln!(
            out,
            "                {} reached a client that had not subscribed to them",
            count(f.stray)
        );
    }
    if totals.unsent > 0 {
        let _ = writeln!(
            out,
            "  unsent        {} messages were due, but the broker took no more",
            count(totals.unsent)
        );
    }
    if totals.forgiven > 0 {
        let _ = writeln!(
            out,
            "  written off   {} copies, to go on after a standstill of 1 s",
            count(totals.forgiven)
        );
    }
}

fn cost(out: &mut String, outcome: &Outcome, figures: &Figures) {
    let Some(cost) = outcome.cost else { return };
    if let (Some(ns), Some(share)) = (figures.cpu_ns_per_message, figures.cpu_share) {
        let _ = writeln!(
            out,
            "  broker        {ns:.0} ns of CPU per received message; {:.0} % of one CPU, {} threads",
            100.0 * share,
            cost.threads
        );
    }
    let _ = writeln!(
        out,
        "  its memory    {} before, {} connected{}, {} at most",
        bytes(cost.memory_before as f64),
        bytes(cost.memory_connected as f64),
        figures.memory_per_connection.map_or(String::new(), |b| format!(" ({} per connection)", bytes(b))),
        bytes(cost.memory_peak as f64)
    );
}

fn ending(out: &mut String, outcome: &Outcome, verdict: &Verdict) {
    out.push('\n');
    for failure in &outcome.failures {
        let _ = writeln!(out, "  CONNECTION: {failure}");
    }
    if outcome.failures_total > outcome.failures.len() as u64 {
        let _ = writeln!(out, "  CONNECTION: {} failures in all", count(outcome.failures_total));
    }
    for fault in &verdict.faults {
        let _ = writeln!(out, "  FAULTY: {fault}");
    }
    for reason in &verdict.reasons {
        let _ = writeln!(out, "  {}: {reason}", verdict.name());
    }
    for broken in &verdict.broken {
        let _ = writeln!(out, "  THRESHOLD: {broken}");
    }
    let meaning = match verdict.worth {
        Worth::Valid => "the generator kept up; the figures are the broker's",
        Worth::GeneratorBound => {
            "the rate is a lower bound and latency is void; loss and the broker's CPU per message hold"
        }
        Worth::Invalid => "rate and latency are the generator's, not the broker's",
        Worth::Nothing => "no message arrived in the measured time",
    };
    let checked = if verdict.checked { "" } else { " UNCHECKED" };
    let _ = writeln!(out, "  {}{checked}: {meaning}", verdict.name());
}
