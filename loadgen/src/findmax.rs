//! `--find-max`: the highest rate at which the thresholds hold.
//!
//! Doubles the rate until it fails, then halves the interval. A trial holds if every threshold does, nothing was lost
//! or disordered, and the broker took what was offered. A trial that the generator or a neighbour of this machine spoiled
//! is tried again; where all of them are, the rate does not hold, and the search says for whose sake.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::cli::{Refusal, RunArgs};
use crate::engine::{self, Outcome};
use crate::report::{Figures, count, time};
use crate::spec::Spec;
use crate::verdict::{self, Verdict, Worth, exit};

/// Where a search without `--rate` begins.
const FIRST_RATE: f64 = 1000.0;
/// The search ends when the interval is this narrow.
const PRECISION: f64 = 0.03;
const TRIALS_MAX: usize = 40;
/// How often a rate is tried whose trials are spoiled: a hiccup of this machine must not end the search.
const TRIES_MAX: usize = 3;
/// A broker that passes on less than this share of what is offered does not hold the rate.
const KEPT_MIN: f64 = 0.99;

/// One trial.
pub struct Trial {
    pub rate: f64,
    pub spec: Spec,
    pub outcome: Outcome,
    pub verdict: Verdict,
    /// Why it failed.
    pub why: Option<String>,
}

/// What came out.
pub struct Search {
    pub trials: Vec<Trial>,
    /// Index of the best trial that held.
    pub best: Option<usize>,
    /// Why the lowest rate that failed says nothing of the broker: the generator gave out, or the run was disturbed.
    pub spoiled: Option<Worth>,
    pub exit: u8,
}

/// Searches. `show` hears of each trial when it is over.
pub fn search(
    args: &RunArgs,
    interrupted: &AtomicBool,
    show: &mut dyn FnMut(&Trial),
) -> Result<Search, Refusal> {
    let mut search = Search { trials: Vec::new(), best: None, spoiled: None, exit: exit::FINE };
    let mut rate = args.rate.unwrap_or(FIRST_RATE);
    let (mut low, mut high) = (0.0, f64::INFINITY);
    while search.trials.len() < TRIALS_MAX && !interrupted.load(Ordering::Relaxed) {
        let mut trial = try_rate(args, rate, interrupted)?;
        for _ in 1..TRIES_MAX {
            if !trial.is_spoiled() || trial.outcome.interrupted || search.trials.len() + 1 >= TRIALS_MAX {
                break;
            }
            show(&trial);
            search.trials.push(trial);
            trial = try_rate(args, rate, interrupted)?;
        }
        if trial.outcome.interrupted {
            search.exit = exit::INTERRUPTED;
            break;
        }
        show(&trial);
        let (held, worth, exit) = (trial.why.is_none(), trial.verdict.worth, trial.verdict.exit);
        let spoiled = trial.is_spoiled();
        search.trials.push(trial);
        if held {
            low = rate;
            search.best = Some(search.trials.len() - 1);
        } else if exit == exit::CONNECTION || worth == Worth::Nothing {
            search.exit = exit;
            return Ok(search);
        } else {
            search.spoiled = Some(worth).filter(|_| spoiled);
            high = rate;
        }
        if high.is_finite() && high - low <= PRECISION * high {
            break;
        }
        rate = if high.is_infinite() {
            low * 2.0
        } else if search.best.is_none() {
            high / 4.0
        } else {
            (low + high) / 2.0
        };
        if rate < 1.0 {
            break;
        }
    }
    if interrupted.load(Ordering::Relaxed) {
        search.exit = exit::INTERRUPTED;
    } else if search.best.is_none() {
        search.exit = if search.spoiled.is_some() { exit::INVALID } else { exit::THRESHOLD };
    }
    Ok(search)
}

fn try_rate(args: &RunArgs, rate: f64, interrupted: &AtomicBool) -> Result<Trial, Refusal> {
    let args = RunArgs { rate: Some(rate), ..args.clone() };
    let spec = args.spec()?;
    let outcome = engine::run(&spec, interrupted, &mut |_| {});
    let verdict = verdict::judge(&spec, &outcome, &args.thresholds());
    let why = failure(&spec, &outcome, &verdict);
    Ok(Trial { rate, spec, outcome, verdict, why })
}

fn failure(spec: &Spec, outcome: &Outcome, verdict: &Verdict) -> Option<String> {
    if let Some((failure, _)) = outcome.failures.first() {
        return Some(failure.to_string());
    }
    if verdict.exit != exit::FINE {
        let reasons = verdict.faults.iter().chain(&verdict.reasons).chain(&verdict.broken);
        return Some(reasons.cloned().collect::<Vec<_>>().join("; "));
    }
    let figures = Figures::of(spec, outcome);
    let offered = figures.offered_rate * f64::from(spec.copies().max(1));
    let kept = figures.rate / offered.max(1e-9);
    (kept < KEPT_MIN).then(|| format!("only {:.1} % of what was offered arrived in time", 100.0 * kept))
}

impl Trial {
    /// It says more of the generator or of this machine than of the broker.
    fn is_spoiled(&self) -> bool {
        matches!(self.verdict.worth, Worth::Invalid | Worth::Disturbed)
    }

    /// One line.
    pub fn text(&self) -> String {
        let figures = Figures::of(&self.spec, &self.outcome);
        let verdict = self.why.as_ref().map_or("holds".into(), |why| format!("fails: {why}"));
        format!(
            "{:>12} msg/s  p50 {:>9}  p99 {:>9}  {verdict}",
            count(self.rate.round() as u64),
            time(figures.latency.value_at_quantile(0.5)),
            time(figures.latency.value_at_quantile(0.99)),
        )
    }
}

impl Search {
    /// The result in one sentence.
    pub fn text(&self) -> String {
        let more = match self.spoiled {
            None => "",
            Some(Worth::Disturbed) => {
                "; beyond, the runs were DISTURBED: give broker and loadgen their own CPUs"
            }
            Some(_) => "; beyond, this generator gives out, not the broker",
        };
        match self.best {
            Some(best) => {
                let rate = count(self.trials[best].rate.round() as u64);
                let at_least = if self.spoiled.is_some() { "at least " } else { "" };
                format!("highest rate that holds: {at_least}{rate} msg/s{more}")
            }
            None => format!("no rate was found that holds the thresholds{more}"),
        }
    }

    pub fn json(&self) -> Value {
        let trials: Vec<Value> = self
            .trials
            .iter()
            .map(|trial| json!({"rate": trial.rate, "holds": trial.why.is_none(), "why": trial.why}))
            .collect();
        json!({
            "trials": trials,
            "best_rate": self.best.map(|best| self.trials[best].rate),
            "generator_bound": self.spoiled == Some(Worth::Invalid),
            "disturbed": self.spoiled == Some(Worth::Disturbed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Cost;

    #[test]
    fn no_rate_holds_at_which_the_run_was_disturbed() {
        let words = ["loadgen", "p2p", "--rate", "64000", "--max", "p99=5ms"].map(Into::into);
        let args = crate::cli::parse(words).unwrap().run;
        let spec = args.spec().unwrap();
        let mut outcome = Outcome { measured_s: 1.0, ..Outcome::default() };
        (outcome.totals.offered, outcome.totals.delivered) = (64_000, 64_000);
        outcome.totals.latency.record_n(80_000, 64_000).unwrap();
        let held =
            |outcome: &Outcome| failure(&spec, outcome, &verdict::judge(&spec, outcome, &args.thresholds()));
        assert_eq!(held(&outcome), None);
        outcome.bystanders = Some(Cost { wall_ns: 100, undue_ns: 38, ..Cost::default() });
        assert!(held(&outcome).unwrap().contains("without a CPU for 38 %"));
        let trials = |spoiled| Search { trials: Vec::new(), best: None, spoiled, exit: exit::INVALID };
        assert!(trials(Some(Worth::Disturbed)).text().contains("DISTURBED"));
        assert_eq!(trials(Some(Worth::Disturbed)).json()["disturbed"], true);
    }
}
