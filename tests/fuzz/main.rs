//! Several clients at once that send damaged packets, over the simulated kernel: publishers, subscribers, and others that
//! take their sessions over. Beside them two clients that do nothing wrong and must not notice.
//!
//! Every run follows from its seed. What is asked of the broker, whatever it is sent: no panic; what it writes is whole
//! packets, and on a connection whose CONNECT was not damaged they are legal; the two others get every message, in order;
//! and when all are gone and the sessions have expired, nothing is left behind.
//!
//!     cargo test --test fuzz                                  a fixed set of seeds, some seconds
//!     FUZZ_SECONDS=600 cargo test --release --test fuzz       fresh seeds for ten minutes; the seed is printed if one fails
//!     FUZZ_SEED=7 cargo test --test fuzz                      one seed again

mod broker;
mod client;
mod packets;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use ringmq::io::sim::Rng;

use broker::Broker;
use client::{Fuzzer, Pair};

/// Steps of one run.
const STEPS: usize = 400;
/// Seeds of the fixed set.
const SEEDS: u64 = 40;

fn run(seed: u64) {
    let mut rng = Rng::new(seed);
    let shards = *rng.pick(&[1u16, 2, 4]);
    let mut broker = Broker::new(shards, &mut rng);
    let mut pair = Pair::new(&mut broker, &mut rng);
    let clients = rng.between(3, 8);
    let mut fuzzers: Vec<Fuzzer> = (0..clients).map(|number| Fuzzer::new(number, rng.fork())).collect();
    for step in 0..STEPS {
        // Any number of clients act before the broker comes to rest, and it need not come to rest at all.
        for _ in 0..rng.between(1, 4) {
            let at = rng.below(fuzzers.len());
            fuzzers[at].act(&mut broker);
        }
        if step % 8 == 0 {
            pair.publish(&mut broker);
        }
        if rng.below(3) == 0 {
            broker.rest();
        } else {
            broker.some_turns(&mut rng);
        }
        if rng.below(10) == 0 {
            let by = *rng.pick(&[1, 50, 1000, 11_000]);
            broker.pass(by, |broker| pair.look(broker));
        }
        pair.look(&mut broker);
    }
    pair.finish(&mut broker);
    for fuzzer in &mut fuzzers {
        fuzzer.leave(&mut broker);
    }
    broker.end();
}

fn run_loudly(seed: u64) {
    let outcome = std::panic::catch_unwind(|| run(seed));
    if let Err(why) = outcome {
        eprintln!("FUZZ_SEED={seed} fails");
        std::panic::resume_unwind(why);
    }
}

#[test]
fn damaged_packets_of_several_clients_harm_nobody_else() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = number("FUZZ_SEED") {
        return run(seed);
    }
    match number("FUZZ_SECONDS") {
        None => (0..SEEDS).for_each(run_loudly),
        Some(seconds) => {
            let ends = Instant::now() + Duration::from_secs(seconds);
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let first = now.map_or(0, |since| since.as_millis() as u64);
            let mut count = 0;
            while Instant::now() < ends {
                run_loudly(first + count);
                count += 1;
            }
            eprintln!("{count} runs from seed {first} on");
        }
    }
}
