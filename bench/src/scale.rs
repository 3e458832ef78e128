//! What a million subscriptions cost: memory of the index by kind of entry, and matching with more topics than the cache
//! of routes or the processor's caches hold. For `scripts/scale`; the numbers of [`Sizes::FULL`] take a few seconds.

use std::hint::black_box;
use std::time::{Duration, Instant};

use ringmq::memory::Key;
use ringmq::topic::{Interest, Options, RetainHandling, Router, SubscriptionSet};
use ringmq::wire::Qos;

/// How much of each there is.
#[derive(Copy, Clone, Debug)]
pub struct Sizes {
    pub few: usize,
    pub many: usize,
    pub topics: usize,
}

impl Sizes {
    /// What `scripts/scale` reports.
    pub const FULL: Sizes = Sizes { few: 1000, many: 1_000_000, topics: 100_000 };
}

/// Nanoseconds and bytes.
#[derive(Copy, Clone, Debug)]
pub struct Figures {
    /// A route made anew, with few subscriptions and with many.
    pub match_few_ns: f64,
    pub match_many_ns: f64,
    /// Subscriptions that the routes led to, of each topic once.
    pub found_few: usize,
    pub found_many: usize,
    /// A route from the cache, with many.
    pub match_many_warm_ns: f64,
    /// A subscription with a filter of its own, a tenth with a wildcard.
    pub subscription_bytes: f64,
    /// One more subscription to a filter that is known.
    pub shared_bytes: f64,
    /// A filter of another shard that nobody here wants.
    pub remote_exact_bytes: f64,
    pub remote_wildcard_bytes: f64,
}

const OPTIONS: Options = Options {
    qos: Qos::AtMostOnce,
    no_local: false,
    retain_as_published: false,
    retain_handling: RetainHandling::Send,
};

fn topic(number: usize) -> String {
    format!("site{}/line{}/sensor{number}/value", number % 64, number / 64 % 1000)
}

fn filter(number: usize) -> String {
    let (site, line) = (number % 64, number / 64 % 1000);
    match number % 20 {
        5 => format!("site{site}/+/sensor{number}/value"),
        15 => format!("site{site}/line{line}/sensor{number}/#"),
        _ => topic(number),
    }
}

/// The same numbers in an order without order, each once: 7,919 is a prime that divides none of the counts.
fn shuffled(count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |index| index * 7919 % count)
}

fn subscribed(count: usize, cached: usize) -> Router {
    let mut router = Router::new([1, 2, 3, 4], 0, cached);
    for number in shuffled(count) {
        let mut set = SubscriptionSet::default();
        let session = Key { index: number as u32, generation: 1 };
        let _ = router.subscribe(&mut set, session, &filter(number), OPTIONS, 0);
    }
    router
}

/// Mean time of a route to each of `topics`, evenly drawn from those that have a subscriber; the fastest of three passes.
fn routes(router: &mut Router, count: usize, topics: usize) -> (f64, usize) {
    let names: Vec<String> =
        shuffled(topics).map(|index| topic(index * (count / topics.min(count)) % count)).collect();
    let mut found = 0;
    let mut best = Duration::MAX;
    for _ in 0..3 {
        found = 0;
        let begin = Instant::now();
        for name in &names {
            found += black_box(router.route(name)).local.len();
        }
        best = best.min(begin.elapsed());
    }
    (best.as_nanos() as f64 / names.len() as f64, found)
}

/// Measures everything.
pub fn measure(sizes: Sizes) -> Figures {
    let Sizes { few, many, topics } = sizes;
    let bytes = |router: &Router| {
        let footprint = router.footprint();
        (footprint.own + footprint.trie + footprint.remote) as f64
    };
    let (match_few_ns, found_few) = routes(&mut subscribed(few, 0), few, topics);
    let mut router = subscribed(many, 0);
    let subscription_bytes = bytes(&router) / many as f64;
    let (match_many_ns, found_many) = routes(&mut router, many, topics);
    let before = bytes(&router);
    for number in 0..many {
        let mut set = SubscriptionSet::default();
        let session = Key { index: number as u32, generation: 2 };
        let _ = router.subscribe(&mut set, session, &filter(number), OPTIONS, 0);
    }
    let shared_bytes = (bytes(&router) - before) / many as f64;
    drop(router);

    let mut router = subscribed(many, topics * 2);
    let _ = routes(&mut router, many, topics);
    let (match_many_warm_ns, _) = routes(&mut router, many, topics);
    drop(router);

    let mut remote = Router::new([1, 2, 3, 4], 0, 0);
    for number in 0..many {
        remote.remote_exact(1, (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15), Interest::Wanted);
    }
    let remote_exact_bytes = bytes(&remote) / many as f64;
    let mut remote = Router::new([1, 2, 3, 4], 0, 0);
    for number in 0..many {
        remote.remote_wildcard(1, &format!("site{}/+/sensor{number}/value", number % 64), Interest::Wanted);
    }
    let remote_wildcard_bytes = bytes(&remote) / many as f64;
    Figures {
        match_few_ns,
        match_many_ns,
        found_few,
        found_many,
        match_many_warm_ns,
        subscription_bytes,
        shared_bytes,
        remote_exact_bytes,
        remote_wildcard_bytes,
    }
}
