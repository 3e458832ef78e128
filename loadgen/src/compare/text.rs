//! A comparison for people: for each work a table of its measures, and all works in one table where there are several.

use std::fmt::Write;

use super::{Comparison, Contest, LATENCIES, MEASURES, Measure, Spread, in_words};
use crate::report::count;
use crate::report::text::{COLUMNS, wrapped};
use crate::verdict::DISTURBED_MIN;

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
        wrapped(&out)
    }

    /// A row for each work and broker, a column for each measure.
    fn overview_text(&self, out: &mut String) {
        const WIDTH: usize = 21;
        // As many brokers side by side as there is room for.
        let beside = ((COLUMNS - 2) / WIDTH).saturating_sub(1).max(1);
        let names: Vec<&str> = self.contests[0].series.iter().map(|s| s.name.as_str()).collect();
        for measure in &MEASURES[..4] {
            let has = |c: &&Contest| c.measures().any(|m| m.name == measure.name);
            if !self.contests.iter().any(|c| has(&c)) {
                continue;
            }
            for (group, some) in names.chunks(beside).enumerate() {
                let _ = write!(out, "{:<WIDTH$}", if group == 0 { measure.name } else { "" });
                some.iter().for_each(|name| out.push_str(&format!("  {name:>19}")));
                out.push('\n');
                for contest in self.contests.iter().filter(has) {
                    let _ = write!(out, "  {}", contest.work.name);
                    // A long name has a line of its own.
                    if contest.work.name.chars().count() > WIDTH - 2 {
                        out.push_str(&format!("\n{:WIDTH$}", ""));
                    } else {
                        out.push_str(&" ".repeat(WIDTH - 2 - contest.work.name.chars().count()));
                    }
                    for broker in group * beside..group * beside + some.len() {
                        let (value, ratio, mark) = contest.cell(measure, broker);
                        let value =
                            value.map_or("-".into(), |v| format!("{mark}{}", (measure.show)(v.median)));
                        let ratio = match ratio.filter(|_| broker > 0) {
                            Some(r) => format!(" x{}", short(r.median)),
                            None => String::new(),
                        };
                        let _ = write!(out, "  {:>19}", format!("{value}{ratio}"));
                    }
                    out.push('\n');
                }
                out.push('\n');
            }
        }
    }
}

/// A ratio where room is scarce: `26`, `0.52`, `1/26`.
pub(super) fn short(ratio: f64) -> String {
    match ratio {
        r if r >= 9.95 => format!("{r:.0}"),
        r if r >= 0.5 => format!("{r:.2}"),
        r if r > 0.1005 => format!("1/{:.2}", 1.0 / r),
        r if r > 0.0 => format!("1/{:.0}", 1.0 / r),
        _ => "0".into(),
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
        let plural = if rounds == 1 { "" } else { "s" };
        let _ = writeln!(
            out,
            "{}\n{rounds} round{plural}, interleaved; median (lowest – highest)\n",
            self.headline
        );
        let first = &self.series[0].name;
        let mut latency_said = false;
        for measure in self.measures() {
            if LATENCIES.iter().any(|m| m.name == measure.name) {
                if !latency_said {
                    self.latencies_text(out, first);
                }
                latency_said = true;
                continue;
            }
            let unit = if measure.name == "rate" { format!(", {}", self.unit) } else { String::new() };
            let _ = writeln!(out, "  {}{unit}", measure.name);
            for (broker, series) in self.series.iter().enumerate() {
                let (value, ratio, mark) = self.cell(measure, broker);
                let value = value.map_or("-".into(), |v| format!("{mark}{}", v.text(measure.show)));
                let ratio = ratio.filter(|_| broker > 0).map_or(String::new(), |r| {
                    let spread = format!(" ({} – {})", short(r.low), short(r.high));
                    format!(
                        "{}{}",
                        in_words(r.median, first),
                        if r.low < r.high { spread } else { String::new() }
                    )
                });
                // In columns where it fits, and beneath where it does not.
                let line = format!("    {:<12}{value:<34}  {ratio}", series.name);
                let line = match line.trim_end() {
                    fits if fits.chars().count() <= COLUMNS => fits.to_string(),
                    _ => format!("    {:<12}{value}\n{:16}{ratio}", series.name, ""),
                };
                let _ = writeln!(out, "{line}");
            }
        }
        out.push('\n');
        for (name, remarks) in self.remarks() {
            let _ = writeln!(out, "  {name:<12}  {remarks}");
        }
    }

    /// p50 and p99 side by side, each with its spread, and beneath how they stand to the first broker's.
    fn latencies_text(&self, out: &mut String, first: &str) {
        let _ = writeln!(out, "  {:<14}{:<32}{}", "latency", LATENCIES[0].name, LATENCIES[1].name);
        for (broker, series) in self.series.iter().enumerate() {
            let cells = LATENCIES.each_ref().map(|measure: &Measure| self.cell(measure, broker));
            let values = cells.map(|(value, ..)| {
                value.map_or("-".into(), |v| {
                    if v.low < v.high { v.text(LATENCIES[0].show) } else { (LATENCIES[0].show)(v.median) }
                })
            });
            let _ = writeln!(out, "    {:<12}{:<32}{}", series.name, values[0], values[1]);
            let ratios = cells.map(|(_, ratio, _)| {
                ratio.filter(|_| broker > 0).map_or(String::new(), |r| in_words(r.median, first))
            });
            if ratios.iter().any(|words| !words.is_empty()) {
                let _ = writeln!(out, "{:16}{:<32}{}", "", ratios[0], ratios[1]);
            }
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
