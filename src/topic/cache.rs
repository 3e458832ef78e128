//! The routes of topics that were published to lately.
//!
//! An entry holds generational keys, so what is removed or replaced needs no invalidation: a stale key finds nothing.
//! What is *new* must show: a new exact filter drops the entry of its topic; a new wildcard filter bumps the counter
//! of its literal prefix (no level, one or two), and an entry is good while the sum of its three counters is the one it
//! was made with. Counters only grow, so equal sums mean that none moved; prefixes that share a counter only cost a
//! rebuild. A connect storm under `devices/{id}/+` therefore does not empty the cache.
//!
//! Bounded by entries and by bytes; what gives way is chosen by a clock hand that spares entries used since it last
//! came by.

use std::rc::Rc;

use super::TextHasher;
use super::routes::Route;
use crate::memory::Table;

#[derive(Debug)]
pub(super) struct Cache {
    /// Without holes: the last entry takes the place of a removed one.
    entries: Vec<Entry>,
    table: Table,
    hand: usize,
    bytes: usize,
    entries_max: usize,
    bytes_max: usize,
    /// New wildcard filters that begin with a wildcard.
    unprefixed: u64,
    /// New wildcard filters by hash of their first level, or of their first two.
    prefixed: Box<[u64]>,
    /// Moves whenever any route may have become outdated.
    epoch: u64,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    route: Rc<Route>,
    stamp: Stamp,
    used: bool,
}

/// What an entry's counters were.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Stamp {
    one: u16,
    two: u16,
    sum: u64,
}

/// Bytes of routes per entry that may be cached, on average.
const ROUTE_BYTES_MEAN: usize = 1024;
/// Bytes that may be cached however few the entries; a fan-out to 100,000 sessions takes 800,000.
const ROUTE_BYTES_MIN: usize = 8 << 20;

impl Cache {
    pub(super) fn new(entries_max: usize) -> Cache {
        Cache {
            entries: Vec::new(),
            table: Table::default(),
            hand: 0,
            bytes: 0,
            entries_max,
            bytes_max: (entries_max * ROUTE_BYTES_MEAN).max(ROUTE_BYTES_MIN),
            unprefixed: 0,
            prefixed: vec![0; entries_max.next_power_of_two().clamp(64, 1 << 14)].into_boxed_slice(),
            epoch: 0,
        }
    }

    /// While it stays the same, every route that was good is good.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// One hash, one comparison, three counters.
    pub(super) fn get(&mut self, hash: u64, topic: &str) -> Option<Rc<Route>> {
        let at = self.find(hash, topic)?;
        let Stamp { one, two, sum } = self.entries[at].stamp;
        if self.sum(one, two) != sum {
            return None;
        }
        let entry = &mut self.entries[at];
        entry.used = true;
        Some(entry.route.clone())
    }

    /// Keeps a route; in place of an outdated one, if there is one.
    pub(super) fn insert(&mut self, hash: u64, route: &Rc<Route>, hasher: &TextHasher) {
        let cost = cost(route);
        if let Some(at) = self.find(hash, &route.topic) {
            self.remove(at);
        }
        // A route that would push out a quarter of the others is cheaper to make than to keep.
        if self.entries_max == 0 || cost > self.bytes_max / 4 {
            return;
        }
        while self.entries.len() >= self.entries_max || self.bytes + cost > self.bytes_max {
            self.evict();
        }
        let stamp = self.stamp(&route.topic, hasher);
        self.table.insert(hash, self.entries.len() as u32);
        self.entries.push(Entry { hash, route: route.clone(), stamp, used: false });
        self.bytes += cost;
    }

    /// A new exact filter has this hash.
    pub(super) fn forget(&mut self, hash: u64) {
        self.epoch += 1;
        while let Some(at) = self.table.find(hash, |at| self.entries[at as usize].hash == hash) {
            self.remove(at as usize);
        }
    }

    /// The entry of a topic is worth making anew.
    pub(super) fn forget_topic(&mut self, hash: u64, topic: &str) {
        self.epoch += 1;
        if let Some(at) = self.find(hash, topic) {
            self.remove(at);
        }
    }

    /// There is a new filter with wildcards.
    pub(super) fn outdate(&mut self, filter: &str, hasher: &TextHasher) {
        self.epoch += 1;
        match literal_prefix(filter) {
            None => self.unprefixed += 1,
            Some(prefix) => self.prefixed[usize::from(self.counter(prefix, hasher))] += 1,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn find(&self, hash: u64, topic: &str) -> Option<usize> {
        let same = |at: u32| {
            let entry = &self.entries[at as usize];
            entry.hash == hash && *entry.route.topic == *topic
        };
        self.table.find(hash, same).map(|at| at as usize)
    }

    fn evict(&mut self) {
        loop {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            let entry = &mut self.entries[self.hand];
            if !entry.used {
                return self.remove(self.hand);
            }
            entry.used = false;
            self.hand += 1;
        }
    }

    fn remove(&mut self, at: usize) {
        let entry = self.entries.swap_remove(at);
        self.table.remove(entry.hash, at as u32);
        if let Some(moved) = self.entries.get(at) {
            self.table.replace(moved.hash, self.entries.len() as u32, at as u32);
        }
        self.bytes -= cost(&entry.route);
    }

    fn stamp(&self, topic: &str, hasher: &TextHasher) -> Stamp {
        let (first, second) = prefixes(topic);
        let one = self.counter(first, hasher);
        let two = self.counter(second, hasher);
        Stamp { one, two, sum: self.sum(one, two) }
    }

    fn sum(&self, one: u16, two: u16) -> u64 {
        // Wrapping keeps the argument: only the total of all bumps since counts, and it stays below 2^64.
        self.unprefixed
            .wrapping_add(self.prefixed[usize::from(one)])
            .wrapping_add(self.prefixed[usize::from(two)])
    }

    fn counter(&self, prefix: &str, hasher: &TextHasher) -> u16 {
        (hasher.text(prefix) as usize & (self.prefixed.len() - 1)) as u16
    }
}

/// Bytes that an entry takes, roughly.
fn cost(route: &Route) -> usize {
    const PER_ENTRY: usize = size_of::<Entry>() + size_of::<Route>() + 64;
    PER_ENTRY + route.topic.len() + size_of_val(&*route.local) + size_of_val(&*route.groups)
}

/// The first level of a topic and its first two; the same twice where it has only one.
fn prefixes(topic: &str) -> (&str, &str) {
    let mut ends = memchr::memchr_iter(b'/', topic.as_bytes());
    let one = ends.next().unwrap_or(topic.len());
    let two = ends.next().unwrap_or(topic.len());
    (&topic[..one], &topic[..two])
}

/// The literal levels before the first wildcard, at most two; `None` if the first level is a wildcard.
fn literal_prefix(filter: &str) -> Option<&str> {
    let (one, two) = prefixes(filter);
    match (one, &two[one.len()..]) {
        ("+" | "#", _) => None,
        (_, "/+" | "/#") => Some(one),
        _ => Some(two),
    }
}

#[cfg(test)]
mod tests {
    use super::super::routes::Repeats;
    use super::*;
    use crate::memory::{Key, ShardSet};

    fn route(topic: &str, keys: usize) -> Rc<Route> {
        let local = (0..keys as u32).map(|index| Key { index, generation: 1 }).collect();
        Rc::new(Route {
            topic: topic.into(),
            local,
            groups: Box::default(),
            remote: ShardSet::EMPTY,
            repeats: Repeats::Never,
        })
    }

    fn hasher() -> TextHasher {
        TextHasher::new(&[1, 2, 3, 4])
    }

    #[test]
    fn a_prefix_has_at_most_two_literal_levels() {
        let cases = [
            ("#", None),
            ("+", None),
            ("+/a", None),
            ("a/#", Some("a")),
            ("a/+/b", Some("a")),
            ("a/b/#", Some("a/b")),
            ("a/b/c/+", Some("a/b")),
            ("/+", Some("")),
            ("//#", Some("/")),
        ];
        for (filter, prefix) in cases {
            assert_eq!(literal_prefix(filter), prefix, "{filter}");
        }
        assert_eq!(prefixes("a"), ("a", "a"));
        assert_eq!(prefixes("a/b"), ("a", "a/b"));
        assert_eq!(prefixes("/b/c"), ("", "/b"));
    }

    #[test]
    fn entries_and_bytes_stay_bounded_whatever_the_topics() {
        let hasher = hasher();
        let mut cache = Cache::new(100);
        for number in 0..1000 {
            let topic = format!("t/{number}");
            cache.insert(hasher.text(&topic), &route(&topic, ROUTE_BYTES_MIN / 8 / 6), &hasher);
            assert!(cache.bytes() <= cache.bytes_max && cache.len() <= 5);
        }
        for number in 0..1000 {
            let topic = format!("s/{number}");
            cache.insert(hasher.text(&topic), &route(&topic, 1), &hasher);
            assert!(cache.bytes() <= cache.bytes_max && cache.len() <= 100);
        }
        assert_eq!(cache.len(), 100);
        cache.insert(hasher.text("x"), &route("x", ROUTE_BYTES_MIN / 8 / 2), &hasher);
        assert_eq!(cache.len(), 100);
        assert!(cache.get(hasher.text("x"), "x").is_none());
        for number in 0..1000 {
            cache.forget(hasher.text(&format!("s/{number}")));
            cache.forget_topic(hasher.text(&format!("t/{number}")), &format!("t/{number}"));
        }
        assert_eq!((cache.len(), cache.bytes()), (0, 0));
    }

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let hasher = hasher();
        let mut cache = Cache::new(8);
        cache.insert(hasher.text("hot"), &route("hot", 1), &hasher);
        for number in 0..1000 {
            assert!(cache.get(hasher.text("hot"), "hot").is_some(), "{number}");
            let topic = format!("cold/{number}");
            cache.insert(hasher.text(&topic), &route(&topic, 1), &hasher);
        }
        assert!(cache.get(hasher.text("cold/0"), "cold/0").is_none());
    }

    #[test]
    fn a_new_wildcard_outdates_its_own_prefix_only() {
        let hasher = hasher();
        let mut cache = Cache::new(1 << 14);
        let topics = ["a", "a/b", "a/b/c", "b", "b/b", "$SYS/x"];
        for (filter, outdated) in [
            ("#", &topics[..]),
            ("a/#", &["a", "a/b", "a/b/c"]),
            ("a/b/+", &["a/b", "a/b/c"]),
            ("c/+", &[]),
            ("b/#", &["b", "b/b"]),
        ] {
            for topic in topics {
                cache.insert(hasher.text(topic), &route(topic, 1), &hasher);
            }
            let epoch = cache.epoch();
            cache.outdate(filter, &hasher);
            assert_ne!(cache.epoch(), epoch);
            for topic in topics {
                let kept = cache.get(hasher.text(topic), topic).is_some();
                assert_eq!(kept, !outdated.contains(&topic), "{filter} {topic}");
            }
        }
    }
}
