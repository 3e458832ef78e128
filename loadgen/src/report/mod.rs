//! What a run looks like to people and to programs.

pub mod chart;
pub mod hgrm;
pub mod html;
pub mod json;
pub mod text;

use hdrhistogram::Histogram;

use crate::engine::Outcome;
use crate::procfs::Memory;
use crate::spec::{Focus, Load, Pattern, Spec};

/// The quantiles of every table.
pub const QUANTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)];

/// Figures that are worked out from counts, with what the run is about in front.
pub struct Figures<'a> {
    /// Messages a second that were due, open loop only.
    pub offered_rate: f64,
    pub sent_rate: f64,
    /// What the run is about, a second: copies that subscribers received, connects, reconnects.
    pub rate: f64,
    pub unit: &'static str,
    pub bytes_rate: f64,
    /// From due time, and from when it really began. Empty in an idle run.
    pub latency: &'a Histogram<u64>,
    pub uncorrected: &'a Histogram<u64>,
    /// The processes of `--pid` did nothing while the broker worked, so they are not the broker: what was seen of
    /// them is no figure.
    pub pid_void: bool,
    /// Broker's CPU time for each received message, or each connect.
    pub cpu_ns_each: Option<f64>,
    /// CPU time of the broker in CPUs.
    pub cpu_share: Option<f64>,
    /// What the broker allocated for each connection, and what the kernel did, both ends if they are on one machine.
    pub memory_per_connection: Option<f64>,
    pub kernel_per_connection: Option<f64>,
}

impl Figures<'_> {
    pub fn of<'a>(spec: &Spec, outcome: &'a Outcome) -> Figures<'a> {
        let totals = &outcome.totals;
        let seconds = outcome.measured_s.max(1e-9);
        let messages = (&totals.latency, &totals.uncorrected);
        let connects = (&totals.connects, &totals.connects_uncorrected);
        let (count, seconds_about, unit, (latency, uncorrected)) = match spec.focus {
            Focus::Messages if spec.pattern == Pattern::Swallow => (totals.sent, seconds, "msg/s", messages),
            Focus::Messages | Focus::Retained => (totals.delivered, seconds, "msg/s", messages),
            Focus::Idle => (0, seconds, "msg/s", messages),
            Focus::Connects => (totals.connected, seconds, "connections/s", connects),
            Focus::Reconnects => {
                (totals.reconnected, (totals.storm_ns as f64 / 1e9).max(1e-9), "reconnects/s", connects)
            }
        };
        let pid_void = count > 0 && outcome.cost.is_some_and(|cost| cost.wall_ns > 0 && cost.cpu_ns == 0);
        let known = outcome.cost.filter(|_| !pid_void);
        let cost = known.filter(|cost| cost.wall_ns > 0);
        // The broker was watched for about the measured time: compare rates, not counts.
        let share = cost.map(|cost| cost.cpu_ns as f64 / cost.wall_ns as f64);
        let each = share.filter(|_| count > 0).map(|share| share * 1e9 * seconds / count as f64);
        let connected = known.filter(|_| outcome.connections > 0);
        let per_connection = |memory: fn(&Memory) -> u64| {
            connected.map(|cost| {
                let grown = memory(&cost.memory_connected).saturating_sub(memory(&cost.memory_before));
                grown as f64 / f64::from(outcome.connections)
            })
        };
        Figures {
            offered_rate: totals.offered as f64 / seconds,
            sent_rate: totals.sent as f64 / seconds,
            // What took no time at all has no rate.
            rate: if outcome.measured_s > 0.0 { count as f64 / seconds_about } else { 0.0 },
            unit,
            bytes_rate: totals.delivered_bytes as f64 / seconds,
            latency,
            uncorrected,
            pid_void,
            // In a run about reconnects the broker also does other work.
            cpu_ns_each: each.filter(|_| spec.focus != Focus::Reconnects || spec.publishers == 0),
            cpu_share: share,
            memory_per_connection: per_connection(|memory| memory.anonymous),
            kernel_per_connection: per_connection(|memory| memory.kernel),
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

fn clients(spec: &Spec) -> String {
    let mut parts = Vec::new();
    let mut add = |n: u32, what: &str| {
        if n > 0 {
            parts.push(format!("{} {what}{}", count(n.into()), if n == 1 { "" } else { "s" }));
        }
    };
    if spec.pattern == Pattern::Pairs {
        add(spec.publishers, "pair");
    } else {
        add(spec.publishers, "publisher");
        add(spec.subscribers - spec.slow, "subscriber");
        add(spec.slow, "slow subscriber");
    }
    add(spec.idlers, if spec.idlers_subscribe { "subscribed connection" } else { "connection" });
    if let Pattern::Shared { groups } = spec.pattern {
        add(groups, "share group");
    }
    parts.join(", ")
}

fn load(spec: &Spec) -> String {
    match (&spec.focus, &spec.load) {
        (Focus::Connects, _) | (Focus::Reconnects, Load::Closed { .. }) => match spec.connect_rate {
            rate if rate.is_finite() => format!("{} connects/s", count(rate as u64)),
            _ => "as fast as it goes".into(),
        },
        (Focus::Idle, _) => "idle".into(),
        (Focus::Retained, _) => {
            format!("{} retained messages, fetched by all at once", count(spec.streams().into()))
        }
        (_, Load::Closed { window }) => match spec.gather {
            None => format!("closed loop, window {window}"),
            Some(time) => format!("closed loop, window {window}, gathering {} µs", time.as_micros()),
        },
        (_, Load::Open { schedule }) => {
            let kind = match schedule.arrivals {
                crate::schedule::Arrivals::Constant => "constant",
                crate::schedule::Arrivals::Poisson => "Poisson",
            };
            // Of the measured time, like every figure beside it: the warm-up has its own rate.
            let due = schedule.due_before(f64::INFINITY) - schedule.due_before(spec.warmup_s);
            let mean = due / (schedule.seconds() - spec.warmup_s);
            let phases = if schedule.segments.len() > 1 { " on average, in phases" } else { "" };
            format!("open loop, {} msg/s{phases}, {kind}", count(mean.round() as u64))
        }
    }
}

/// The run's work in one line.
pub fn headline(spec: &Spec) -> String {
    let messages = if spec.publishers > 0 {
        let wildcard = if spec.wildcard { ", wildcard filters" } else { "" };
        format!(", QoS {}, payload {} B{wildcard}", spec.qos, spec.sizes)
    } else {
        String::new()
    };
    format!(
        "{}: {}{messages}, {}, MQTT {} over {}, {}",
        spec.scenario,
        clients(spec),
        load(spec),
        spec.version.name(),
        spec.transport.name(),
        spec.target.name
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_of_phases_is_that_of_the_measured_time() {
        let path = std::env::temp_dir().join(format!("loadgen-average-{}.toml", std::process::id()));
        let phases = "[[phases]]\nhold = { seconds = 1, rate = 100 }\n[[phases]]\nhold = { seconds = 1, rate = 500 }\n";
        for warmup in ["", "warmup = 0\n"] {
            std::fs::write(&path, format!("scenario = 'p2p'\n{warmup}{phases}")).unwrap();
            let cli = crate::cli::parse(["loadgen".into(), path.clone().into_os_string()]).unwrap();
            let line = headline(&cli.run.spec().unwrap());
            assert!(line.contains("300 msg/s on average, in phases"), "{line}");
        }
        std::fs::remove_file(&path).unwrap();
    }

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
