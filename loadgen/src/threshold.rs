//! Conditions on a run's figures: `--max p99=5ms`, `--max lost=0`, `--min rate=100000`.

use std::str::FromStr;

use crate::engine::Outcome;
use crate::report::{self, Figures};
use crate::spec::Spec;
use crate::verdict::{Verdict, Worth};

/// Which side of the bound is bad.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    Max,
    Min,
}

/// A figure that a condition can name.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Metric {
    /// Corrected latency at this quantile, in nanoseconds.
    Latency(f64),
    Rate,
    Lost,
    Duplicated,
    Disordered,
    Corrupted,
    /// Messages that were due and not sent.
    Unsent,
    /// CPU nanoseconds of the broker for each delivered message.
    Cpu,
    /// Resident memory of the broker in bytes, at its highest.
    Memory,
    /// CONNACK latency at this quantile, in nanoseconds.
    Connect(f64),
}

/// One condition.
#[derive(Clone, PartialEq, Debug)]
pub struct Threshold {
    bound: Bound,
    metric: Metric,
    name: String,
    limit: f64,
}

const NAMES: &str = "p50, p90, p99, p99.9, p99.99, max, rate, lost, duplicated, disordered, corrupted, unsent, \
                     cpu, memory, connect-p50, connect-p99, connect-max";

impl Threshold {
    /// Reads `name=value`; latencies take ns, us, ms or s, memory takes k, M or G.
    pub fn parse(bound: Bound, text: &str) -> Result<Threshold, String> {
        let (name, value) =
            text.split_once('=').ok_or(format!("'{text}' is not name=value, like p99=5ms"))?;
        let quantile = |name: &str| match name {
            "max" => Some(1.0),
            _ => name
                .strip_prefix('p')
                .and_then(|p| f64::from_str(p).ok())
                .filter(|p| (0.0..=100.0).contains(p))
                .map(|p| p / 100.0),
        };
        let metric = match name {
            "rate" => Metric::Rate,
            "lost" => Metric::Lost,
            "duplicated" => Metric::Duplicated,
            "disordered" => Metric::Disordered,
            "corrupted" => Metric::Corrupted,
            "unsent" => Metric::Unsent,
            "cpu" => Metric::Cpu,
            "memory" => Metric::Memory,
            _ => match name
                .strip_prefix("connect-")
                .map_or(quantile(name).map(Metric::Latency), |rest| quantile(rest).map(Metric::Connect))
            {
                Some(metric) => metric,
                None => return Err(format!("unknown figure '{name}': use one of {NAMES}")),
            },
        };
        let units: &[(&str, f64)] = match metric {
            Metric::Latency(_) | Metric::Connect(_) => {
                &[("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9)]
            }
            Metric::Cpu => &[("ns", 1.0), ("us", 1e3), ("", 1.0)],
            _ => &[("k", 1e3), ("M", 1e6), ("G", 1e9), ("", 1.0)],
        };
        let number = value.trim_end_matches(|c: char| c.is_alphabetic());
        let unit = &value[number.len()..];
        let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| factor);
        let factor = factor.ok_or(format!(
            "'{value}' needs a unit: one of {:?}",
            units.iter().map(|u| u.0).collect::<Vec<_>>()
        ))?;
        let number: f64 = number.parse().map_err(|_| format!("'{number}' is not a number"))?;
        if !number.is_finite() || number < 0.0 {
            return Err(format!("'{value}' is not a limit"));
        }
        Ok(Threshold { bound, metric, name: name.to_string(), limit: number * factor })
    }

    /// How the condition holds.
    ///
    /// # Errors
    /// Why it does not, or why nobody can tell.
    pub fn judge(&self, spec: &Spec, outcome: &Outcome, verdict: &Verdict) -> Result<String, String> {
        let figures = Figures::of(spec, outcome);
        let faults = &outcome.totals.faults;
        let value = match self.metric {
            Metric::Latency(_) | Metric::Connect(_) if !verdict.latency_holds() => {
                return Err(format!("{} cannot be told: the run's latency is void", self.name));
            }
            Metric::Latency(q) => figures.latency.value_at_quantile(q) as f64,
            Metric::Connect(q) => outcome.totals.connects.value_at_quantile(q) as f64,
            // A lower bound that is high enough is good enough.
            Metric::Rate if verdict.worth == Worth::Invalid => {
                return Err("rate cannot be told: the run is INVALID".into());
            }
            Metric::Rate => figures.rate,
            Metric::Lost | Metric::Duplicated | Metric::Disordered | Metric::Corrupted if !spec.checked => {
                return Err(format!("{} cannot be told: the run is UNCHECKED", self.name));
            }
            Metric::Lost => faults.lost as f64,
            Metric::Duplicated => faults.duplicated as f64,
            Metric::Disordered => faults.disordered as f64,
            Metric::Corrupted => faults.corrupted as f64,
            Metric::Unsent => outcome.totals.unsent as f64,
            Metric::Cpu | Metric::Memory if verdict.pid_void.is_some() => {
                return Err(format!("{} cannot be told: --pid is wrong", self.name));
            }
            Metric::Cpu => match figures.cpu_ns_each {
                Some(ns) => ns,
                None => return Err("cpu cannot be told: give the broker's --pid".into()),
            },
            Metric::Memory => match outcome.cost {
                Some(cost) => cost.memory_peak as f64,
                None => return Err("memory cannot be told: give the broker's --pid".into()),
            },
        };
        let (fine, how, why) = match self.bound {
            Bound::Max => (value <= self.limit, "at most", "above"),
            Bound::Min => (value >= self.limit, "at least", "below"),
        };
        let said = |word| format!("{} is {}, {word} {}", self.name, self.show(value), self.show(self.limit));
        if fine { Ok(said(how)) } else { Err(said(why)) }
    }

    fn show(&self, value: f64) -> String {
        match self.metric {
            Metric::Latency(_) | Metric::Connect(_) => report::time(value as u64),
            Metric::Cpu => format!("{value:.0} ns"),
            _ => report::count(value as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_with_their_units() {
        let t = |text| Threshold::parse(Bound::Max, text).unwrap();
        assert_eq!(t("p99=5ms").limit, 5e6);
        assert_eq!(t("p99.9=250us").metric, Metric::Latency(99.9 / 100.0));
        assert_eq!(t("connect-max=1s").metric, Metric::Connect(1.0));
        assert_eq!(t("rate=100k").limit, 1e5);
        assert_eq!(t("lost=0").limit, 0.0);
        for bad in ["p99=5", "p99", "nothing=1", "p101=1ms", "lost=-1", "lost=x", "rate=NaN", "p99=5parsec"] {
            assert!(Threshold::parse(Bound::Max, bad).is_err(), "{bad}");
        }
    }
}
