//! Makes a failing run smaller: fewer steps, fewer clients, a kernel without faults, as long as it fails the same way.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::plan::Plan;
use crate::run::{Verdict, execute};
use crate::trace::Trace;

/// What is left of a plan.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Numbers of the steps that stay; all if there is none.
    pub steps: Option<BTreeSet<usize>>,
    /// The kernel does everything at once.
    pub calm: bool,
    /// So many shards instead of those that the seed draws.
    pub shards: Option<u16>,
}

impl Cut {
    /// As `--steps 0-3,9`.
    pub fn parse_steps(text: &str) -> Option<BTreeSet<usize>> {
        let mut steps = BTreeSet::new();
        for part in text.split(',') {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let (from, to): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
            steps.extend(from..=to);
        }
        Some(steps)
    }

    /// The options that make a run this one.
    pub fn options(&self) -> String {
        let mut text = self.shards.map_or(String::new(), |shards| format!(" --shards {shards}"));
        if let Some(steps) = &self.steps {
            let mut ranges: Vec<(usize, usize)> = Vec::new();
            for &step in steps {
                match ranges.last_mut() {
                    Some((_, to)) if *to + 1 == step => *to = step,
                    _ => ranges.push((step, step)),
                }
            }
            let name = |(from, to): &(usize, usize)| {
                if from == to { format!("{from}") } else { format!("{from}-{to}") }
            };
            text.push_str(&format!(" --steps {}", ranges.iter().map(name).collect::<Vec<_>>().join(",")));
        }
        if self.calm {
            text.push_str(" --calm");
        }
        text
    }

    pub fn apply(&self, plan: &Plan) -> Plan {
        let mut plan = plan.clone();
        if let Some(steps) = &self.steps {
            plan.steps.retain(|step| steps.contains(&step.number));
        }
        if self.calm {
            plan.faults.heal();
        }
        plan
    }
}

/// What makes two failures the same: the kind, and the words without names and numbers.
fn signature(verdict: &Verdict) -> String {
    let first = verdict.text().lines().next().unwrap_or_default();
    let words = first
        .split_whitespace()
        .filter(|word| word.chars().all(|c| c.is_ascii_alphabetic() || ",:-".contains(c)));
    format!("{} {}", verdict.kind(), words.take(6).collect::<Vec<_>>().join(" "))
}

/// The smallest cut that was found in the time, and its verdict.
pub fn shrink(plan: &Plan, verdict: &Verdict, time: Duration) -> Cut {
    let until = Instant::now() + time;
    let wanted = signature(verdict);
    let fails = |cut: &Cut| {
        Instant::now() < until
            && signature(&execute(&cut.apply(plan), &mut Trace::default()).verdict) == wanted
    };
    let mut best = Cut::default();
    let calm = Cut { calm: true, ..best.clone() };
    if plan.faults_are_on() && fails(&calm) {
        best = calm;
    }
    // Whole clients first, then ever smaller pieces.
    for client in 0..plan.clients.len() {
        let others = best
            .apply(plan)
            .steps
            .iter()
            .filter(|step| step.client != client)
            .map(|step| step.number)
            .collect();
        let cut = Cut { steps: Some(others), ..best.clone() };
        if fails(&cut) {
            best = cut;
        }
    }
    let mut size = best.apply(plan).steps.len().div_ceil(2);
    while size > 0 && Instant::now() < until {
        let steps: Vec<usize> = best.apply(plan).steps.iter().map(|step| step.number).collect();
        let mut left: BTreeSet<usize> = steps.iter().copied().collect();
        for piece in steps.chunks(size) {
            let without: BTreeSet<usize> =
                left.iter().copied().filter(|step| !piece.contains(step)).collect();
            let cut = Cut { steps: Some(without.clone()), ..best.clone() };
            if fails(&cut) {
                best = cut;
                left = without;
            }
        }
        size = if left.len() < steps.len() { size.min(left.len()) } else { size / 2 };
    }
    best
}

impl Plan {
    fn faults_are_on(&self) -> bool {
        let mut calm = self.faults.clone();
        calm.heal();
        format!("{calm:?}") != format!("{:?}", self.faults)
    }
}

#[test]
fn steps_are_written_as_they_are_read() {
    let steps = Cut::parse_steps("0-3,7,9-10");
    let cut = Cut { steps: steps.clone(), calm: true, shards: Some(4) };
    assert_eq!(cut.options(), " --shards 4 --steps 0-3,7,9-10 --calm");
    assert_eq!(steps.map(|steps| steps.len()), Some(7));
    assert_eq!(Cut::parse_steps("x"), None);
}
