//! What a run looks like to people and to programs.

pub mod json;
pub mod text;

use crate::engine::Outcome;
use crate::spec::{Load, Pattern, Spec};

/// The quantiles of every table.
pub const QUANTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)];

/// Figures that are worked out from counts.
pub struct Figures {
    /// Messages a second that were due, open loop only.
    pub offered_rate: f64,
    pub sent_rate: f64,
    /// Copies a second that subscribers received.
    pub delivered_rate: f64,
    pub delivered_bytes_rate: f64,
    pub cpu_ns_per_message: Option<f64>,
    /// Share of one CPU that the broker used.
    pub cpu_share: Option<f64>,
    pub memory_per_connection: Option<f64>,
}

impl Figures {
    pub fn of(spec: &Spec, outcome: &Outcome) -> Figures {
        let seconds = outcome.measured_s.max(1e-9);
        let totals = &outcome.totals;
        let delivered = if spec.pattern == Pattern::Swallow { totals.sent } else { totals.delivered };
        let cost = outcome.cost.filter(|cost| cost.wall_ns > 0);
        // The broker was watched for about the measured time: compare rates, not counts.
        let share = cost.map(|cost| cost.cpu_ns as f64 / cost.wall_ns as f64);
        let rate = delivered as f64 / seconds;
        Figures {
            offered_rate: totals.offered as f64 / seconds,
            sent_rate: totals.sent as f64 / seconds,
            delivered_rate: rate,
            delivered_bytes_rate: totals.delivered_bytes as f64 / seconds,
            cpu_ns_per_message: share.filter(|_| delivered > 0).map(|share| share * 1e9 / rate),
            cpu_share: share,
            memory_per_connection: outcome.cost.filter(|_| outcome.connections > 0).map(|cost| {
                cost.memory_connected.saturating_sub(cost.memory_before) as f64
                    / f64::from(outcome.connections)
            }),
        }
    }
}

/// A count with separators.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A duration in the unit that suits it, three digits.
pub fn time(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$} {unit}")
}

/// Bytes in the unit that suits them.
pub fn bytes(n: f64) -> String {
    let units = ["B", "kB", "MB", "GB"];
    let mut n = n;
    let mut unit = 0;
    while n >= 1000.0 && unit < units.len() - 1 {
        n /= 1000.0;
        unit += 1;
    }
    format!("{n:.*} {}", if unit == 0 || n >= 99.95 { 0 } else { 1 }, units[unit])
}

/// The run's work in one line.
pub fn headline(spec: &Spec) -> String {
    let clients = match spec.pattern {
        Pattern::Pairs => format!("{} pairs", count(spec.publishers.into())),
        Pattern::Shared { groups } => format!(
            "{} publishers, {} subscribers in {groups} share group{}",
            count(spec.publishers.into()),
            count(spec.subscribers.into()),
            if groups == 1 { "" } else { "s" }
        ),
        Pattern::All => {
            format!(
                "{} publishers, {} subscribers",
                count(spec.publishers.into()),
                count(spec.subscribers.into())
            )
        }
        Pattern::Swallow => format!("{} publishers, nobody listens", count(spec.publishers.into())),
    };
    let load = match &spec.load {
        Load::Closed { window } => format!("closed loop, window {window}"),
        Load::Open { schedule } => {
            let kind = match schedule.arrivals {
                crate::schedule::Arrivals::Constant => "constant",
                crate::schedule::Arrivals::Poisson => "Poisson",
            };
            let mean = schedule.due_before(f64::INFINITY) / schedule.seconds();
            let phases = if schedule.segments.len() > 1 { " on average, in phases" } else { "" };
            format!("open loop, {} msg/s{phases}, {kind}", count(mean.round() as u64))
        }
    };
    format!(
        "{}: {clients}, QoS {}, payload {} B, {load}, MQTT {}, {}",
        spec.scenario,
        spec.qos,
        spec.sizes,
        spec.version.name(),
        spec.target.name
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(time(999), "999 ns");
        assert_eq!(time(1_500), "1.50 µs");
        assert_eq!(time(99_960), "100 µs");
        assert_eq!(time(12_345_678), "12.3 ms");
        assert_eq!(bytes(999.0), "999 B");
        assert_eq!(bytes(4_700.0), "4.7 kB");
    }
}
