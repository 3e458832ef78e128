//! Warnings about certificates in the log: at the start, after a reload, when one begins to expire, and once a day.

use std::time::{Duration, Instant};

use super::Server;
use crate::log::{self, Kind, Level};
use crate::transport::tls::Warning;

/// How long a warning stays unsaid that has been said.
const WARNINGS_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// What was said about certificates.
#[derive(Debug, Default)]
pub(super) struct Watch {
    said: Vec<Warning>,
    /// `None` if what is in force now was never looked at.
    said_at: Option<Instant>,
}

impl Watch {
    /// Other certificates are in force: whatever there is to say about them is new.
    pub fn forget(&mut self) {
        *self = Watch::default();
    }

    /// Those of `warnings` that are to be said now.
    fn due(&mut self, mut warnings: Vec<Warning>, now: Instant) -> Vec<Warning> {
        // Several listeners may share a file.
        warnings.sort();
        warnings.dedup();
        let is_again = self.said_at.is_none_or(|at| now.duration_since(at) >= WARNINGS_AGAIN);
        if is_again {
            self.said.clear();
            self.said_at = Some(now);
        }
        let new = warnings.iter().filter(|warning| !self.said.contains(warning)).cloned().collect();
        self.said = warnings;
        new
    }
}

impl Server {
    /// Logs what somebody should know about certificates. To be called at the start, after each reload, and at least once
    /// an hour; what was said is said again after a day.
    pub fn tend_certificates(&mut self) {
        let warnings = self.acceptors.iter().flat_map(|acceptor| acceptor.warnings()).collect();
        for warning in self.certificates.due(warnings, Instant::now()) {
            let file = warning.path.display().to_string();
            let values = [("file", file.as_str().into()), ("why", warning.what.as_str().into())];
            log::event(Level::Warn, Kind::Certificate, &values);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn warning(what: &str) -> Warning {
        Warning { path: Path::new("server.pem").into(), what: what.to_owned() }
    }

    #[test]
    fn a_warning_is_said_once_then_after_a_day_and_after_a_reload() {
        const HOUR: Duration = Duration::from_secs(3600);
        let (soon, expired) = (warning("expires soon"), warning("has expired"));
        let start = Instant::now();
        let mut watch = Watch::default();
        // Two listeners with one file.
        assert_eq!(watch.due(vec![soon.clone(), soon.clone()], start), vec![soon.clone()]);
        let said = |watch: &mut Watch, hours: u32, warnings: &[&Warning]| {
            watch.due(warnings.iter().copied().cloned().collect(), start + HOUR * hours)
        };
        for hour in 1..24 {
            assert_eq!(said(&mut watch, hour, &[&soon]), []);
        }
        assert_eq!(said(&mut watch, 24, &[&soon]), vec![soon.clone()], "a day is over");
        assert_eq!(said(&mut watch, 25, &[&expired]), vec![expired.clone()], "it is another one");
        assert_eq!(said(&mut watch, 26, &[&expired]), []);
        watch.forget();
        assert_eq!(said(&mut watch, 27, &[&expired]), vec![expired.clone()], "a reload");
        assert_eq!(said(&mut watch, 28, &[]), []);
        assert_eq!(said(&mut watch, 29, &[&expired]), vec![expired], "it was gone meanwhile");
    }
}
