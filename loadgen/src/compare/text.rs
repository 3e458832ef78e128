//! A comparison for people: for each work a table of its measures, and all works in one table where there are several.

use std::fmt::Write;

use super::{Comparison, Contest, MEASURES, Spread, ratio_text};
use crate::report::{DISTURBED_MIN, count};

impl Comparison {
    pub fn text(&self) -> String {
        let mut out = String::new();
        let several = self.contests.len() > 1;
        for contest in &self.contests {
            if several {
                let _ = writeln!(out, "== {}", contest.work.name);
            }
            contest.text(&mut out);
            out.push('\n');
        }
        if several {
            self.overview_text(&mut out);
        }
        if self.interrupted {
            let _ = writeln!(out, "PARTIAL: interrupted; the run that was under way does not count");
        }
        out
    }

    /// A row for each work and measure, a column for each broker.
    fn overview_text(&self, out: &mut String) {
        let names = || self.contests[0].series.iter().map(|s| s.name.as_str());
        for measure in &MEASURES[..4] {
            let mut lines = String::new();
            for contest in self.contests.iter().filter(|c| c.measures().any(|m| m.name == measure.name)) {
                let _ = write!(lines, "  {:<40}", contest.work.name);
                for broker in 0..contest.series.len() {
                    let (value, ratio, mark) = contest.cell(measure, broker);
                    let value = value.map_or("-".into(), |v| format!("{mark}{}", (measure.show)(v.median)));
                    let ratio = match ratio.filter(|_| broker > 0) {
                        Some(r) => format!(" x{}", ratio_text(r.median)),
                        None => String::new(),
                    };
                    let _ = write!(lines, "{:>22}", format!("{value}{ratio}"));
                }
                lines.push('\n');
            }
            if !lines.is_empty() {
                let _ = write!(out, "{:<42}", measure.name);
                names().for_each(|name| out.push_str(&format!("{name:>22}")));
                let _ = writeln!(out, "\n{lines}");
            }
        }
    }
}

impl Contest {
    /// A table: each measure of each broker, median and spread, and the ratio to the first.
    pub(super) fn text(&self, out: &mut String) {
        if self.headline.is_empty() && self.series.iter().all(|s| s.failure().is_none()) {
            let _ = writeln!(out, "ended before the first run was over");
            return;
        }
        let rounds = self.rounds();
        let _ = writeln!(out, "{}\n{rounds} rounds, interleaved; median (lowest – highest)\n", self.headline);
        for measure in self.measures() {
            let unit = if measure.name == "rate" { self.unit } else { "" };
            let title = format!("{} {unit}", measure.name);
            let _ = writeln!(out, "  {title:<80}ratio to {}", self.series[0].name);
            for (broker, series) in self.series.iter().enumerate() {
                let (value, ratio, mark) = self.cell(measure, broker);
                let value = value.map_or("-".into(), |v| format!("{mark}{}", v.text(measure.show)));
                let ratio = ratio.map_or("-".into(), |r| r.text(ratio_text));
                let _ = writeln!(out, "    {:<20}{value:<58}{ratio}", series.name);
            }
        }
        out.push('\n');
        for (name, remarks) in self.remarks() {
            let _ = writeln!(out, "  {name:<20}  {remarks}");
        }
    }

    /// What is to be said of each broker's runs: faults, verdicts, disturbances, why it failed.
    pub(super) fn remarks(&self) -> Vec<(String, String)> {
        let remarks = self.series.iter().map(|series| {
            let mut parts = Vec::new();
            if series.rounds().next().is_some() {
                let faults: u64 = series.rounds().map(|r| r.faults).sum();
                parts.push(format!("{} lost, duplicated, disordered or corrupted", count(faults)));
            }
            // In the order in which they first occurred.
            let mut verdicts: Vec<(&str, usize)> = Vec::new();
            for round in series.rounds() {
                match verdicts.iter_mut().find(|(name, _)| *name == round.verdict) {
                    Some((_, n)) => *n += 1,
                    None => verdicts.push((round.verdict, 1)),
                }
            }
            parts.extend(verdicts.iter().map(|(name, n)| format!("{n} x {name}")));
            let waited = Spread::of(series.rounds().filter_map(|r| r.waited));
            if let Some(waited) = waited.filter(|w| w.median > DISTURBED_MIN) {
                parts.push(format!("DISTURBED: without a CPU {:.0} % of the time", 100.0 * waited.median));
            }
            if series.rounds().any(|r| r.pid_void) {
                parts.push("its pid used no CPU time while the broker worked: it is the wrong one".into());
            }
            parts.extend(series.failure().map(|why| format!("failed: {why}")));
            (series.name.clone(), parts.join("; "))
        });
        remarks.collect()
    }
}
