//! What a run shows while it goes on: a table on a terminal, plain lines where standard error is piped.

use std::io::{IsTerminal, Write};

use crate::engine::{Progress, Second};
use crate::report::{count, time};
use crate::spec::{Focus, Spec};

const BAR: usize = 24;

/// Writes to standard error.
pub struct Live {
    terminal: bool,
    seconds: u32,
    /// Seconds at the beginning that do not count.
    warmup: u32,
    connects: bool,
    headed: bool,
}

impl Live {
    pub fn new(spec: &Spec) -> Live {
        Live {
            terminal: std::io::stderr().is_terminal(),
            seconds: (spec.warmup_s + spec.duration_s).ceil() as u32,
            warmup: spec.warmup_s.ceil() as u32,
            connects: matches!(spec.focus, Focus::Connects | Focus::Reconnects),
            headed: false,
        }
    }

    /// Shows a step of the run. Errors of a closed terminal are nobody's business.
    pub fn show(&mut self, progress: &Progress<'_>) {
        let mut err = std::io::stderr().lock();
        let _ = match progress {
            Progress::Connected { up, of } if self.terminal => {
                write!(err, "\r\x1b[Kconnecting {} of {}", count(*up as u64), count(u64::from(*of)))
            }
            Progress::Connected { up, of } if *up == *of as usize => {
                writeln!(err, "{} connections are up", count(u64::from(*of)))
            }
            Progress::Connected { .. } => Ok(()),
            Progress::Second(second) => self.second(&mut err, second),
        };
        let _ = err.flush();
    }

    fn second(&mut self, err: &mut impl Write, s: &Second) -> std::io::Result<()> {
        let events = if self.connects { s.connected } else { s.delivered };
        // What is left of a second after the end of the schedule is mostly nothing.
        if s.second >= self.seconds && events + s.offered + s.sent == 0 {
            return Ok(());
        }
        if !self.headed {
            let what = if self.connects { "connects/s" } else { "msg/s" };
            let clear = if self.terminal { "\r\x1b[K" } else { "" };
            writeln!(err, "{clear}{:>6}  {what:>12}  {:>9}  {:>9}  {:>9}", "second", "p50", "p99", "lost")?;
        }
        self.headed = true;
        let quantile = |q| match s.latency.is_empty() {
            true => "-".into(),
            false => time(s.latency.value_at_quantile(q)),
        };
        let row = format!(
            "{:>6}  {:>12}  {:>9}  {:>9}  {:>9}{}",
            s.second + 1,
            count(events),
            quantile(0.5),
            quantile(0.99),
            count(s.missing),
            if s.second < self.warmup { "  warm-up" } else { "" }
        );
        if !self.terminal {
            return writeln!(err, "{row}");
        }
        let done = (s.second + 1).min(self.seconds);
        let filled = BAR * done as usize / self.seconds.max(1) as usize;
        let left = self.seconds - done;
        write!(err, "\r\x1b[K{row}\n[{}{}] {left} s left", "#".repeat(filled), "-".repeat(BAR - filled))
    }

    /// Clears the line with the progress.
    pub fn end(&self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
