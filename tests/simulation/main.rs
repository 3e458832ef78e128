//! The simulator: every message accounted for, under every fault, from one seed. See `docs/TESTING.md`.
//!
//! | module | what it is |
//! |---|---|
//! | `plan` | what happens in a run, drawn from its seed |
//! | `run` | carries a plan out, brings it to rest, asks the oracle |
//! | `cluster` | all shards of a broker on one thread, over the simulated kernel |
//! | `client`, `packet` | scripted clients with a codec of their own |
//! | `oracle` | a naive broker's knowledge, and every check |
//! | `shrink`, `trace`, `command` | what a person gets to see |

mod client;
mod cluster;
mod command;
mod oracle;
mod packet;
mod plan;
mod run;
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
