//! From a topic to its subscriptions: the first time, and when the route is cached.

use ringmq::memory::Key;
use ringmq::topic::{Options, RetainHandling, Route, Router, SubscriptionSet};
use ringmq::wire::Qos;

use crate::{Prepared, Scale};

const KEYS: [u64; 4] = [1, 2, 3, 4];
/// Topics of one step.
const BATCH: usize = 1000;

#[derive(Copy, Clone, PartialEq, Eq)]
enum Cache {
    /// Every topic has its route after the first step.
    Warm,
    /// There is none.
    Off,
}

/// The topic of filter `number`, and of no other exact filter: 64 sites with as many lines as it takes.
fn topic(number: usize) -> String {
    format!("site{}/line{}/sensor{number}/value", number % 64, number / 64)
}

/// `filters` filters of one session each, every tenth with a wildcard in place of a level or of the end.
fn router(filters: usize, cache: Cache) -> Router {
    let mut router = Router::new(KEYS, 0, if cache == Cache::Warm { 1 << 16 } else { 0 });
    let options = Options {
        qos: Qos::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    };
    for number in 0..filters {
        let exact = topic(number);
        let (site, line) = (number % 64, number / 64);
        let filter = match number % 20 {
            5 => format!("site{site}/+/sensor{number}/value"),
            15 => format!("site{site}/line{line}/sensor{number}/#"),
            _ => exact,
        };
        let mut set = SubscriptionSet::default();
        let session = Key { index: number as u32, generation: 1 };
        let _ = router.subscribe(&mut set, session, &filter, options, 0);
    }
    router
}

fn prepare(filters: usize, cache: Cache) -> Prepared {
    let mut router = router(filters, cache);
    // Spread over all filters without order; 7,919 is a prime.
    let topics: Vec<String> = (0..BATCH).map(|i| topic(i * 7919 % filters)).collect();
    let mut pass = move || {
        let of = |route: &Route| route.local.iter().map(|key| u64::from(key.index) + 1).sum::<u64>();
        topics.iter().map(|topic| of(&router.route(topic))).sum::<u64>()
    };
    pass();
    Prepared::new(BATCH, move |meter| {
        let found = meter.measure(&mut pass);
        meter.note_number(found);
    })
}

pub(crate) fn one_cached(_: Scale) -> Prepared {
    prepare(1, Cache::Warm)
}

pub(crate) fn one_cold(_: Scale) -> Prepared {
    prepare(1, Cache::Off)
}

pub(crate) fn thousand_cached(_: Scale) -> Prepared {
    prepare(1000, Cache::Warm)
}

pub(crate) fn thousand_cold(_: Scale) -> Prepared {
    prepare(1000, Cache::Off)
}

pub(crate) fn million_cached(scale: Scale) -> Prepared {
    prepare(scale.pick(2000, 20_000, 1_000_000), Cache::Warm)
}

pub(crate) fn million_cold(scale: Scale) -> Prepared {
    prepare(scale.pick(2000, 20_000, 1_000_000), Cache::Off)
}
