//! `scale`: the figures of [`bench::scale`], and turns with and without idle peers, as one line of JSON for
//! `scripts/scale`.

use bench::scale::{Sizes, measure};
use bench::{Meter, Operation, Scale};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Nanoseconds a unit of an operation, the fastest of some rounds.
fn time(name: &str) -> Result<f64, String> {
    let mut prepared = Operation::find(name).ok_or(format!("no operation '{name}'"))?.prepare(Scale::Full);
    let mut best = f64::MAX;
    for _ in 0..20 {
        let mut meter = Meter::default();
        (0..500).for_each(|_| prepared.step(&mut meter));
        best = best.min(meter.spent().as_nanos() as f64 / (500 * prepared.units) as f64);
    }
    Ok(best)
}

fn main() -> Result<(), String> {
    let figures = measure(Sizes::FULL);
    let numbers = [
        ("match_few_ns", figures.match_few_ns),
        ("match_many_ns", figures.match_many_ns),
        ("match_many_warm_ns", figures.match_many_warm_ns),
        ("subscription_bytes", figures.subscription_bytes),
        ("shared_bytes", figures.shared_bytes),
        ("remote_exact_bytes", figures.remote_exact_bytes),
        ("remote_wildcard_bytes", figures.remote_wildcard_bytes),
        ("turn_alone_ns", time("turn/single")?),
        ("turn_peers_ns", time("shards/63-idle-peers")?),
        ("p2p_qos0_ns", time("turn/p2p-qos0")?),
        ("p2p_qos1_ns", time("turn/p2p-qos1")?),
        ("cross_qos0_ns", time("shards/cross-qos0")?),
        ("cross_qos1_ns", time("shards/cross-qos1")?),
        ("cross_single_ns", time("shards/cross-single")?),
    ];
    let fields: Vec<String> = numbers.iter().map(|(name, value)| format!("\"{name}\": {value:.1}")).collect();
    println!("{{{}}}", fields.join(", "));
    Ok(())
}
