//! The report for programs. Times are nanoseconds, rates are per second.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::{Figures, QUANTILES, headline};
use crate::engine::Outcome;
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
pub fn render(spec: &Spec, outcome: &Outcome, verdict: &Verdict) -> Value {
    let figures = Figures::of(spec, outcome);
    let totals = &outcome.totals;
    let open = matches!(spec.load, Load::Open { .. });
    let seconds: Vec<Value> = outcome
        .seconds
        .iter()
        .map(|s| {
            json!({
                "second": s.second, "offered": s.offered, "sent": s.sent, "delivered": s.delivered,
                "p50_ns": s.latency.value_at_quantile(0.5), "p99_ns": s.latency.value_at_quantile(0.99),
                "max_ns": s.latency.max(), "missing": s.missing,
            })
        })
        .collect();
    let cores: Vec<Value> = outcome
        .cores
        .iter()
        .map(|c| json!({"worker": c.worker, "cpu": c.cpu, "busy": c.busy, "connections": c.connections}))
        .collect();
    let failures: Vec<String> = outcome.failures.iter().map(ToString::to_string).collect();
    json!({
        "loadgen": env!("CARGO_PKG_VERSION"),
        "run": spec.run_id,
        "headline": headline(spec),
        "scenario": spec.scenario,
        "target": spec.target.name,
        "mqtt": spec.version.name(),
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
            "broken_thresholds": verdict.broken, "checked": verdict.checked, "exit": verdict.exit,
            "failures": failures, "failures_total": outcome.failures_total,
        },
        "rate": {
            "offered": if open { json!(figures.offered_rate) } else { Value::Null },
            "sent": figures.sent_rate,
            "delivered": figures.delivered_rate,
            "delivered_bytes": figures.delivered_bytes_rate,
        },
        "messages": {
            "offered": totals.offered_all, "sent": totals.sent_all, "unique": totals.unique_all,
            "delivered": totals.delivered_all, "unsent": totals.unsent, "written_off": totals.forgiven,
            "redelivered": totals.redelivered,
        },
        "faults": {
            "lost": totals.faults.lost, "duplicated": totals.faults.duplicated,
            "disordered": totals.faults.disordered, "corrupted": totals.faults.corrupted,
            "stray": totals.faults.stray,
        },
        "latency_ns": {
            "corrected": if open { quantiles(&totals.latency) } else { Value::Null },
            "uncorrected": if open { quantiles(&totals.uncorrected) } else { quantiles(&totals.latency) },
            "generator_lateness": quantiles(&totals.lateness),
            "acknowledgement": quantiles(&totals.acks),
            "connect": quantiles(&totals.connects),
        },
        "broker": outcome.cost.map(|cost| json!({
            "cpu_ns_per_message": figures.cpu_ns_per_message, "cpu_share": figures.cpu_share,
            "cpu_ns": cost.cpu_ns, "threads": cost.threads,
            "memory_before": cost.memory_before, "memory_connected": cost.memory_connected,
            "memory_peak": cost.memory_peak, "memory_per_connection": figures.memory_per_connection,
        })),
        "generator": cores,
        "seconds": seconds,
    })
}
