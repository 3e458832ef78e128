//! `--find-max`: the highest rate at which the thresholds hold.
//!
//! Doubles the rate until it fails, then halves the interval. A trial holds if every threshold does, nothing was lost
//! or disordered, and the broker took what was offered. Where the generator itself gives out, the search ends there
//! and says so.

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
    /// The generator gave out before the broker did.
    pub generator_bound: bool,
    pub exit: u8,
}

/// Searches. `show` hears of each trial when it is over.
pub fn search(
    args: &RunArgs,
    interrupted: &AtomicBool,
    show: &mut dyn FnMut(&Trial),
) -> Result<Search, Refusal> {
    let mut search = Search { trials: Vec::new(), best: None, generator_bound: false, exit: exit::FINE };
    let mut rate = args.rate.unwrap_or(FIRST_RATE);
    let (mut low, mut high) = (0.0, f64::INFINITY);
    while search.trials.len() < TRIALS_MAX && !interrupted.load(Ordering::Relaxed) {
        let mut trial = try_rate(args, rate, interrupted)?;
        if trial.verdict.worth == Worth::Invalid && !interrupted.load(Ordering::Relaxed) {
            // A hiccup of this machine must not end the search.
            show(&trial);
            search.trials.push(trial);
            trial = try_rate(args, rate, interrupted)?;
        }
        if trial.outcome.interrupted {
            break;
        }
        show(&trial);
        let (held, worth, exit) = (trial.why.is_none(), trial.verdict.worth, trial.verdict.exit);
        search.trials.push(trial);
        if held {
            low = rate;
            search.best = Some(search.trials.len() - 1);
        } else if exit == exit::CONNECTION || worth == Worth::Nothing {
            search.exit = exit;
            return Ok(search);
        } else {
            search.generator_bound = worth == Worth::Invalid;
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
    if search.best.is_none() {
        search.exit = if search.generator_bound { exit::INVALID } else { exit::THRESHOLD };
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
    if let Some(failure) = outcome.failures.first() {
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
        let more =
            if self.generator_bound { "; beyond, this generator gives out, not the broker" } else { "" };
        match self.best {
            Some(best) => {
                let rate = count(self.trials[best].rate.round() as u64);
                let at_least = if self.generator_bound { "at least " } else { "" };
                format!("highest rate that holds: {at_least}{rate} msg/s{more}")
            }
            None => format!("no rate holds the thresholds{more}"),
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
            "generator_bound": self.generator_bound,
        })
    }
}
