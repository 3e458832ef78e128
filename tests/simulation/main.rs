//! The simulator: every message accounted for, under every fault, from one seed. See `docs/TESTING.md`.
//!
//! | module | what it is |
//! |---|---|
//! | `plan` | what happens in a run, drawn from its seed |
//! | `run` | carries a plan out, brings it to rest, asks the oracle |
//! | `cluster` | all shards of a broker on one thread, over the simulated kernel |
//! | `data` | the data directory of a cluster, beside its shards |
//! | `client`, `packet` | scripted clients with a codec of their own |
//! | `oracle` | a naive broker's knowledge, and every check |
//! | `counters` | the broker's counters beside what the kernel and the clients saw |
//! | `counts` | counters in runs that chance does not bring about |
//! | `fairness` | who shares a full shard with floods |
//! | `faults` | faults that are planted to see whether they are caught |
//! | `found` | seeds that once failed |
//! | `retained` | what is retained, on its way to many subscriptions |
//! | `shrink`, `trace`, `command` | what a person gets to see |

mod announcements;
mod by_hand;
mod client;
mod cluster;
mod command;
mod counters;
mod counts;
mod data;
mod fairness;
mod faults;
mod found;
mod logins;
mod oracle;
mod orders;
mod packet;
mod plan;
mod retained;
mod run;
mod scene;
mod shrink;
mod trace;

use plan::Plan;
use run::{Verdict, execute};
use trace::Trace;

/// With arguments in the environment this is `scripts/simulate`; else the fixed set of seeds.
#[test]
fn a_fixed_set_of_seeds() {
    if let Ok(text) = std::env::var(command::VARIABLE) {
        run::keep_panics();
        std::process::exit(command::command(&text));
    }
    assert_eq!(command::command("--runs 300 --from 0"), 0, "the lines above replay it");
}

/// The rules between shards hold on any number of them; `docs/TESTING.md` says what notices that one is gone.
#[test]
fn the_same_seeds_on_one_two_and_four_shards() {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    for shards in [1, 2, 4] {
        let many = command::run_all(2_000, 300, Some(shards), jobs, None);
        assert_eq!(many.failed, None, "with --shards {shards}");
        assert_eq!(many.runs, 300);
    }
}

/// What is drawn has to happen, or nothing is shown by it.
#[test]
fn every_fault_happens_and_every_checker_looks() {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let many = command::run_all(1_000, 300, None, jobs, None);
    assert_eq!(many.failed, None);
    let never = |rows: Vec<(&'static str, u64)>| {
        rows.into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(never(many.figures.faults()), [""; 0], "these never happened");
    assert_eq!(never(many.figures.checks.rows().collect()), [""; 0], "these never looked at anything");
}

#[test]
fn one_seed_is_one_history() {
    let traced = |seed| execute(&Plan::draw(seed), &mut Trace { on: true, ..Trace::default() });
    for seed in 300..310 {
        let (one, again) = (traced(seed), traced(seed));
        assert_eq!(one.hash, again.hash, "seed {seed}");
        assert_eq!(one.trace, again.trace, "seed {seed}");
        assert_eq!(one.verdict, Verdict::Fine, "seed {seed}");
    }
    assert_ne!(traced(300).hash, traced(301).hash);
}
