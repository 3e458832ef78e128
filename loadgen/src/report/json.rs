//! The report for programs. Times are nanoseconds, rates are per second.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::{Figures, QUANTILES, headline};
use crate::engine::Outcome;
use crate::environment::{Environment, Subject};
use crate::spec::{Load, Spec};
use crate::verdict::Verdict;

fn quantiles(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let mut map = serde_json::Map::new();
    for (name, q) in QUANTILES {
        map.insert(name.into(), histogram.value_at_quantile(q).into());
    }
    map.insert("mean".into(), json!(histogram.mean()));
    map.insert("count".into(), histogram.len().into());
    Value::Object(map)
}

/// The whole report as one object.
pub fn render(
    spec: &Spec,
    outcome: &Outcome,
    verdict: &Verdict,
    place: &Environment,
    subject: &Subject,
) -> Value {
    let figures = Figures::of(spec, outcome);
    let totals = &outcome.totals;
    let open = spec.is_open();
    let seconds: Vec<Value> = outcome
        .seconds
        .iter()
        .map(|s| {
            json!({
                "second": s.second, "offered": s.offered, "sent": s.sent, "delivered": s.delivered,
                "connected": s.connected,
                "p50_ns": s.latency.value_at_quantile(0.5), "p99_ns": s.latency.value_at_quantile(0.99),
                "max_ns": s.latency.max(), "missing": s.missing,
            })
        })
        .collect();
    let cores: Vec<Value> = outcome
        .cores
        .iter()
        .map(|c| json!({"cpu": c.cpu, "workers": c.workers, "busy": c.busy(), "ran": c.ran, "waited_for_cpu": c.undue, "connections": c.connections}))
        .collect();
    let failures = super::text::failures(outcome);
    let broker = outcome.cost.filter(|_| !figures.pid_void).map(|cost| {
        json!({
            "cpu_ns_each": figures.cpu_ns_each, "cpu_share": figures.cpu_share,
            "cpu_ns": cost.cpu_ns, "waited_ns": cost.waited_ns,
            "waited_for_cpu": cost.undue_share(), "wall_ns": cost.wall_ns, "threads": cost.threads,
            "memory_before": cost.memory_before.resident, "memory_connected": cost.memory_connected.resident,
            "anonymous_before": cost.memory_before.anonymous,
            "anonymous_connected": cost.memory_connected.anonymous,
            "memory_peak": cost.memory_peak, "memory_per_connection": figures.memory_per_connection,
            "kernel_per_connection": figures.kernel_per_connection,
        })
    });
    json!({
        "loadgen": env!("CARGO_PKG_VERSION"),
        "run": spec.run_id,
        "headline": headline(spec),
        "scenario": spec.scenario,
        "target": spec.target.name,
        "mqtt": spec.version.name(),
        "transport": spec.transport.name(),
        "qos": spec.qos,
        "payload": spec.sizes.to_string(),
        "publishers": spec.publishers,
        "subscribers": spec.subscribers,
        "idle": spec.idlers,
        "seed": spec.seed,
        "loop": if open { "open" } else { "closed" },
        "window": match spec.load { Load::Closed { window } => json!(window), Load::Open { .. } => Value::Null },
        "warmup_s": spec.warmup_s,
        "measured_s": outcome.measured_s,
        "interrupted": outcome.interrupted,
        "connect_s": outcome.connect_s,
        "connections": outcome.connections,
        "verdict": {
            "worth": verdict.name(), "reasons": verdict.reasons, "faults": verdict.faults,
            "broken_thresholds": verdict.broken, "held_thresholds": verdict.held,
            "broker_seen": verdict.broker_seen, "pid_void": verdict.pid_void, "checked": verdict.checked, "exit": verdict.exit,
            "failures": failures, "failures_total": outcome.failures_total,
        },
        "connects": {
            "connected": totals.connected, "reconnected": totals.reconnected, "storms": totals.storms,
            "storm_ns": totals.storm_ns,
        },
        "rate": {
            "offered": if open { json!(figures.offered_rate) } else { Value::Null },
            "sent": figures.sent_rate,
            "achieved": figures.rate,
            "unit": figures.unit,
            "payload_bytes": figures.bytes_rate,
        },
        "messages": {
            "offered": totals.offered_all, "sent": totals.sent_all, "unique": totals.unique_all,
            "delivered": totals.delivered_all, "unsent": totals.unsent, "written_off": totals.forgiven,
            "redelivered": totals.redelivered, "slow_delivered": totals.slow_delivered,
        },
        "faults": {
            "lost": totals.faults.lost, "duplicated": totals.faults.duplicated,
            "disordered": totals.faults.disordered, "corrupted": totals.faults.corrupted,
            "stray": totals.faults.stray, "sessions_lost": totals.faults.sessions_lost,
        },
        "latency_ns": {
            "corrected": if open { quantiles(figures.latency) } else { Value::Null },
            "uncorrected": if open { quantiles(figures.uncorrected) } else { quantiles(figures.latency) },
            "generator_lateness": quantiles(&totals.lateness),
            "generator_wakeups": quantiles(&totals.wakeups),
            "acknowledgement": quantiles(&totals.acks),
            "connect": quantiles(&totals.connects),
            "messages": quantiles(&totals.latency),
        },
        "broker": broker,
        "waited_for_cpu": {
            "listeners": outcome.bystanders.map(|cost| cost.undue_share()), "machine": outcome.machine_waited,
        },
        "environment": place.json(),
        "subject": subject.json(),
        "generator": cores,
        "seconds": seconds,
    })
}
