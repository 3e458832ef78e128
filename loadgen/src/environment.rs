//! Where a run took place: what a reader needs to judge its figures or to repeat it.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::calibrate::Calibration;
use crate::probe;
use crate::procfs::Broker;
use crate::spec::Spec;

/// This machine and this program.
#[derive(Clone, Debug)]
pub struct Environment {
    pub cpu: String,
    pub cpus: usize,
    pub kernel: String,
    pub memory_bytes: u64,
    pub command: String,
    /// Seconds since 1970.
    pub time: u64,
    /// What `loadgen calibrate` found here, if it ran on this CPU and kernel.
    pub calibration: Option<Calibration>,
}

/// The broker under test, as far as it can be seen from here.
#[derive(Clone, Default, Debug)]
pub struct Subject {
    pub name: String,
    pub target: String,
    /// What it says of itself under `$SYS/broker/version`.
    pub version: Option<String>,
    /// How its processes were started, if they are known.
    pub commands: Vec<String>,
    /// The CPUs on which they may run.
    pub cpus: Option<String>,
}

impl Subject {
    /// Asks the broker that `spec` aims at, and looks at its processes.
    pub fn look(name: &str, pids: &[u32], spec: Option<&Spec>) -> Subject {
        let broker = Broker::new(pids).unwrap_or_default();
        Subject {
            name: name.into(),
            target: spec.map_or(String::new(), |spec| spec.target.name.clone()),
            version: spec.and_then(probe::version),
            commands: broker.commands(),
            cpus: broker.cpus(),
        }
    }

    pub fn json(&self) -> Value {
        json!({
            "name": self.name, "target": self.target, "version": self.version, "commands": self.commands,
            "cpus": self.cpus,
        })
    }

    /// In one line.
    pub fn text(&self) -> String {
        let mut parts = vec![self.target.clone()];
        parts.extend(self.version.clone());
        parts.extend(self.cpus.as_ref().map(|cpus| format!("CPU {cpus}")));
        parts.extend(self.commands.iter().cloned());
        parts.retain(|part| !part.is_empty());
        parts.join("; ")
    }
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

/// CPU model and kernel, which a calibration belongs to.
pub fn machine() -> (String, String) {
    let cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown CPU".into());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    (cpu, kernel.trim().to_string())
}

/// An argument that may hold a secret is not shown.
pub fn command() -> String {
    let mut out = vec!["loadgen".to_string()];
    let mut hide = false;
    for argument in std::env::args().skip(1) {
        let shown = if hide { "***".into() } else { argument.clone() };
        hide = argument == "-P" || argument == "--password";
        let glued = argument.starts_with("--password=") || (argument.starts_with("-P") && argument.len() > 2);
        out.push(if glued { "-P ***".into() } else { shown });
    }
    out.join(" ")
}

impl Environment {
    pub fn here() -> Environment {
        let (cpu, kernel) = machine();
        let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
        let kilobytes: u64 = memory.split_ascii_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
        Environment {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kilobytes * 1024,
            command: command(),
            time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            calibration: Calibration::load().filter(|c| c.cpu == cpu && c.kernel == kernel),
            cpu,
            kernel,
        }
    }

    pub fn json(&self) -> Value {
        json!({
            "cpu": self.cpu, "cpus": self.cpus, "kernel": self.kernel, "memory_bytes": self.memory_bytes,
            "command": self.command, "time": self.time, "loadgen": env!("CARGO_PKG_VERSION"),
            "calibration": self.calibration,
        })
    }

    /// The time as people write it, in UTC.
    pub fn date(&self) -> String {
        let (days, seconds) = (self.time / 86_400, self.time % 86_400);
        let (year, month, day) = civil(days as i64);
        format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3600, seconds / 60 % 60)
    }
}

/// Year, month and day of a number of days since 1970-01-01, by the era arithmetic of the proleptic calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    // Years begin in March, so that a leap day ends one.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(20_780), (2026, 11, 23));
    }

    #[test]
    fn this_machine_has_a_name() {
        let here = Environment::here();
        assert!(!here.kernel.is_empty() && here.cpus > 0 && here.memory_bytes > 1_000_000);
    }
}
