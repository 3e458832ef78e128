//! The retained messages that one shard owns, found by hash and ordered by topic.
//!
//! Getting and replacing, which is what devices do all day, take one hash; only a topic that comes or goes touches the
//! order. The order is by level: as bytes, but `/` comes before everything, so that a topic is followed at once by all
//! topics below it. A scan for a filter walks that order and, wherever the next topics cannot match, seeks past them:
//! to the literal level that the filter asks for, or behind the subtree of the last level that `+` stood for. So it
//! looks at no more than the stored prefixes that the filter matches, and one topic beside each.
//!
//! A message expires by being swept; until then it is still here, so readers compare [`Message::expires_at`] with now.

use std::cmp::Ordering;

use slab::Slab;

use super::filter::open_to_wildcards;
use super::order::Order;
use super::{HashKeys, TextHasher};
use crate::clock::{Millis, NEVER};
use crate::memory::{Message, Table};

/// Retained messages by topic: some 35 bytes each beside the message.
#[derive(Debug)]
pub struct Retained {
    messages: Slab<Message>,
    by_topic: Table,
    in_order: Order,
    hasher: TextHasher,
    bytes: usize,
    /// Messages that expire at all.
    expiring: usize,
    /// The slot that the next sweep begins with.
    swept: usize,
}

/// How a [`Retained::scan`] ended.
#[must_use]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scan {
    /// Every match was visited.
    Done,
    /// A limit was reached; go on with this as `after`.
    More { after: Box<str> },
}

/// What a [`Retained::expire`] did.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Sweep {
    /// Slots looked at.
    pub visits: usize,
    /// Messages removed.
    pub removed: usize,
    /// Their bytes.
    pub bytes: usize,
}

impl Retained {
    /// `keys` are those of the process; topics are chosen by clients.
    pub fn new(keys: &HashKeys) -> Retained {
        Retained {
            messages: Slab::new(),
            by_topic: Table::default(),
            in_order: Order::default(),
            hasher: TextHasher::new(keys),
            bytes: 0,
            expiring: 0,
            swept: 0,
        }
    }

    /// Keeps `message`, which has a payload, and returns the one it replaces. // [MQTT-3.3.1-5]
    pub fn insert(&mut self, message: Message) -> Option<Message> {
        debug_assert!(!message.payload().is_empty()); // [MQTT-3.3.1-7]
        self.bytes += message.cost();
        self.expiring += usize::from(message.expires_at() != NEVER);
        let topic = message.topic();
        let hash = self.hasher.text(topic);
        if let Some(slot) = self.find(hash, topic) {
            let previous = std::mem::replace(&mut self.messages[slot as usize], message);
            self.uncount(&previous);
            return Some(previous);
        }
        let place = self.in_order.seek(|slot| self.is_before(slot, topic));
        let slot = self.messages.insert(message) as u32;
        self.by_topic.insert(hash, slot);
        self.in_order.insert(place, slot);
        None
    }

    /// Forgets the message of `topic`. // [MQTT-3.3.1-6]
    pub fn remove(&mut self, topic: &str) -> Option<Message> {
        let hash = self.hasher.text(topic);
        let slot = self.find(hash, topic)?;
        let place = self.in_order.seek(|slot| self.is_before(slot, topic));
        self.in_order.remove(place);
        self.by_topic.remove(hash, slot);
        let removed = self.messages.remove(slot as usize);
        self.uncount(&removed);
        Some(removed)
    }

    /// The message of `topic`, be it expired or not.
    pub fn get(&self, topic: &str) -> Option<&Message> {
        self.find(self.hasher.text(topic), topic).map(|slot| &self.messages[slot as usize])
    }

    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Places of messages; some may be vacant. A message that stays has its place as long.
    pub fn places(&self) -> usize {
        self.messages.capacity()
    }

    /// The message at a place.
    pub fn at(&self, place: usize) -> Option<&Message> {
        self.messages.get(place)
    }

    /// The sum of [`Message::cost`].
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Visits messages that `filter` matches (valid, without `$share/name/`), in the order of their topics, from behind
    /// `after` on. Looks at no more than `visits_left` topics (at least two, so that one of them makes progress), which is
    /// less by that afterwards, and visits no more than `messages_max`. Messages that come or go between two calls do not
    /// disturb it: what was there all the time is visited exactly once.
    pub fn scan(
        &self,
        filter: &str,
        after: Option<&str>,
        messages_max: usize,
        visits_left: &mut usize,
        mut visit: impl FnMut(&Message),
    ) -> Scan {
        let levels: Vec<&str> = filter.split('/').collect();
        let prefix = literal_prefix(&levels);
        let mut last = after.unwrap_or_default();
        let mut messages_left = messages_max.max(1);
        *visits_left = (*visits_left).max(2);
        let mut place = match after {
            Some(after) if by_level(after, &prefix).is_ge() => {
                self.in_order.seek(|slot| by_level(self.topic(slot), after).is_le())
            }
            _ => self.in_order.seek(|slot| self.is_before(slot, &prefix)),
        };
        while let Some(slot) = self.in_order.get(place) {
            if *visits_left == 0 {
                return Scan::More { after: last.into() };
            }
            *visits_left -= 1;
            let message = &self.messages[slot as usize];
            last = message.topic();
            match step(&levels, last) {
                Step::Match => {
                    visit(message);
                    messages_left -= 1;
                    if messages_left == 0 {
                        return Scan::More { after: last.into() };
                    }
                    place = self.in_order.next(place);
                }
                Step::Next => place = self.in_order.next(place),
                Step::Seek(to) => {
                    place = self.in_order.seek_from(place, |slot| self.is_before(slot, &to));
                }
                Step::Done => return Scan::Done,
            }
        }
        Scan::Done
    }

    /// Removes expired messages, looking at no more than `visits_max` slots; the next call goes on where this one
    /// stopped, and begins anew at the end. // [U5-3.3.1-3]
    pub fn expire(&mut self, now: Millis, visits_max: usize) -> Sweep {
        let mut sweep = Sweep::default();
        if self.expiring == 0 {
            return sweep;
        }
        let end = self.messages.capacity();
        let begin = if self.swept < end { self.swept } else { 0 };
        self.swept = end.min(begin.saturating_add(visits_max));
        sweep.visits = self.swept - begin;
        for slot in begin..self.swept {
            if let Some(message) = self.messages.get(slot)
                && message.expires_at() <= now
            {
                let message = message.clone();
                self.remove(message.topic());
                sweep.removed += 1;
                sweep.bytes += message.cost();
            }
        }
        sweep
    }

    fn topic(&self, slot: u32) -> &str {
        self.messages[slot as usize].topic()
    }

    fn is_before(&self, slot: u32, topic: &str) -> bool {
        by_level(self.topic(slot), topic).is_lt()
    }

    fn find(&self, hash: u64, topic: &str) -> Option<u32> {
        self.by_topic.find(hash, |slot| self.topic(slot) == topic)
    }

    fn uncount(&mut self, message: &Message) {
        self.bytes -= message.cost();
        self.expiring -= usize::from(message.expires_at() != NEVER);
    }
}

/// The levels before the first wildcard: nothing that matches comes before them.
fn literal_prefix(levels: &[&str]) -> String {
    let literal = levels.iter().take_while(|level| !matches!(**level, "+" | "#")).count();
    levels[..literal].join("/")
}

/// What a topic in the order says about it and those behind it.
enum Step {
    Match,
    /// No match; one may come right behind.
    Next,
    /// No match, and none before this.
    Seek(String),
    /// No match, and none behind.
    Done,
}

fn step(filter: &[&str], topic: &str) -> Step {
    // A first wildcard matches nothing that begins with `$`; behind all of those comes `%`. // [MQTT-4.7.2-1]
    if matches!(filter[0], "+" | "#") && !open_to_wildcards(topic) {
        return Step::Seek("%".to_owned());
    }
    let mut names = topic.split('/');
    let mut start = 0;
    // End of the last level that `+` stood for: behind the subtree of that level the next match may come.
    let mut plus_end = None;
    for &level in filter {
        if level == "#" {
            return Step::Match; // Also where the topic has ended.
        }
        let Some(name) = names.next() else { return Step::Next };
        if level == "+" {
            plus_end = Some(start + name.len());
        } else {
            match name.cmp(level) {
                Ordering::Equal => {}
                Ordering::Less => return Step::Seek([&topic[..start], level].concat()),
                Ordering::Greater => return behind(topic, plus_end),
            }
        }
        start += name.len() + 1;
    }
    match names.next() {
        None => Step::Match,
        Some(_) => behind(topic, plus_end),
    }
}

/// Seeks behind everything under the first `end` bytes of `topic`.
fn behind(topic: &str, end: Option<usize>) -> Step {
    match end {
        // In this order U+0000 follows `/`, and no topic has it.
        Some(end) => Step::Seek([&topic[..end], "\0"].concat()),
        None => Step::Done,
    }
}

/// The order of topics: as bytes, but `/` first.
fn by_level(one: &str, two: &str) -> Ordering {
    let (one, two) = (one.as_bytes(), two.as_bytes());
    let same = common_prefix(one, two);
    let rank = |byte: Option<&u8>| match byte {
        None => 0,
        Some(b'/') => 1,
        Some(byte) => u16::from(*byte) + 2,
    };
    rank(one.get(same)).cmp(&rank(two.get(same)))
}

/// Bytes at the beginning that are equal, eight at a time.
fn common_prefix(one: &[u8], two: &[u8]) -> usize {
    let mut same = 0;
    for (one, two) in one.as_chunks::<8>().0.iter().zip(two.as_chunks::<8>().0) {
        let differ = u64::from_le_bytes(*one) ^ u64::from_le_bytes(*two);
        if differ != 0 {
            return same + differ.trailing_zeros() as usize / 8;
        }
        same += 8;
    }
    same + one[same..].iter().zip(&two[same..]).take_while(|(one, two)| one == two).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::naive::NaiveRetained;
    use super::*;
    use crate::memory::MessageView;
    use crate::wire::Qos;

    fn message(topic: &str, payload: &[u8], expires_at: Millis) -> Message {
        let qos = Qos::AtMostOnce;
        MessageView {
            topic,
            properties: &[],
            payload,
            qos,
            retain: true,
            expires_at,
            publisher: 0,
            whole: None,
            origin: 0,
            is_repeat: false,
        }
        .to_message()
    }

    fn store<'a>(topics: impl IntoIterator<Item = &'a str>) -> Retained {
        let mut retained = Retained::new(&[1, 2, 3, 4]);
        for topic in topics {
            retained.insert(message(topic, b"x", NEVER));
        }
        retained
    }

    fn topics_of(retained: &Retained, filter: &str) -> Vec<String> {
        let mut found = Vec::new();
        let visit = |message: &Message| found.push(message.topic().to_owned());
        assert_eq!(retained.scan(filter, None, usize::MAX, &mut { usize::MAX }, visit), Scan::Done);
        found
    }

    #[test]
    fn a_topic_comes_right_before_what_is_below_it() {
        let sorted = ["/", "/a", "$s", "$s/x", "a", "a/", "a/b", "a/b/c", "a!", "a!/b", "a-b", "ab"];
        let retained = store(sorted.iter().rev().copied());
        let mut begin: Vec<String> = topics_of(&retained, "#");
        assert_eq!(begin, sorted.iter().copied().filter(|t| !t.starts_with('$')).collect::<Vec<_>>());
        begin = topics_of(&retained, "a/#");
        assert_eq!(begin, ["a", "a/", "a/b", "a/b/c"]);
        assert_eq!(topics_of(&retained, "$s/#"), ["$s", "$s/x"]);
        assert_eq!(topics_of(&retained, "+"), ["a", "a!", "a-b", "ab"]);
        assert_eq!(topics_of(&retained, "+/b"), ["a/b", "a!/b"]);
    }

    #[test]
    fn replacing_and_removing_keep_the_sums() {
        let mut retained = Retained::new(&[1, 2, 3, 4]);
        let first = message("a/b", b"first", 5_000);
        let second = message("a/b", b"second!", NEVER);
        assert!(retained.insert(first.clone()).is_none());
        assert_eq!(retained.bytes(), first.cost());
        assert_eq!(retained.insert(second.clone()).unwrap().payload(), b"first");
        assert_eq!((retained.len(), retained.bytes(), retained.expiring), (1, second.cost(), 0));
        assert_eq!(retained.get("a/b").unwrap().payload(), b"second!");
        assert!(retained.get("a").is_none() && retained.remove("a").is_none());
        assert_eq!(retained.remove("a/b").unwrap().payload(), b"second!");
        assert_eq!((retained.len(), retained.bytes()), (0, 0));
        assert_eq!(retained.len(), 0);
    }

    /// Topics looked at by a whole scan, found by the smallest limit that suffices.
    fn visits(retained: &Retained, filter: &str) -> usize {
        let done =
            |limit: &usize| retained.scan(filter, None, usize::MAX, &mut { *limit }, |_| {}) == Scan::Done;
        let limits: Vec<usize> = (0..=retained.len() * 2).collect();
        limits.partition_point(|limit| !done(limit))
    }

    #[test]
    fn a_scan_skips_what_cannot_match() {
        let topics: Vec<String> = (0..100)
            .flat_map(|one| (0..50).map(move |two| format!("x/{one:03}/{two:02}/y")))
            .chain((0..1000).map(|number| format!("$SYS/{number}")))
            .chain((0..1000).map(|number| format!("w/{number}")))
            .collect();
        let retained = store(topics.iter().map(String::as_str));
        // A literal prefix is a range; behind it one topic is looked at, or none.
        assert!(visits(&retained, "x/050/#") <= 51);
        assert!(visits(&retained, "x/050/07/y") <= 2);
        assert!(visits(&retained, "z/#") <= 2);
        // One subtree of a hundred after the other: its first topic, the match, the one behind it.
        assert!(visits(&retained, "x/+/25/+") <= 301, "{}", visits(&retained, "x/+/25/+"));
        assert!(visits(&retained, "x/+/25") <= 301);
        // Neither the thousand of `$SYS` nor what lies below the level asked for.
        assert!(visits(&retained, "+/017/#") <= 60, "{}", visits(&retained, "+/017/#"));
        assert!(visits(&retained, "+") <= 5, "{}", visits(&retained, "+"));
        assert!(visits(&retained, "#") <= 6003);
        assert!(visits(&retained, "$SYS/+") <= 1001);
    }

    #[test]
    fn an_expired_message_is_swept_and_the_rest_is_not() {
        let mut retained = Retained::new(&[1, 2, 3, 4]);
        for number in 0..100u64 {
            let expires_at = if number % 3 == 0 { NEVER } else { 1_000 * number };
            retained.insert(message(&format!("t/{number:02}"), b"x", expires_at));
        }
        let bytes = retained.bytes();
        let mut swept = Sweep::default();
        for _ in 0..15 {
            let sweep = retained.expire(50_000, 7);
            assert!(sweep.visits <= 7);
            swept.removed += sweep.removed;
            swept.bytes += sweep.bytes;
        }
        assert_eq!(swept.removed, (1..=50).filter(|number| number % 3 != 0).count());
        assert_eq!(retained.bytes(), bytes - swept.bytes);
        // [U5-3.3.1-3]
        assert!(
            retained.get("t/50").is_none()
                && retained.get("t/52").is_some()
                && retained.get("t/48").is_some()
        );
        while retained.expiring > 0 {
            retained.expire(NEVER - 1, 7);
        }
        assert_eq!(retained.expire(NEVER - 1, 7), Sweep::default(), "nothing left that could expire");
        assert_eq!(retained.len(), 34);
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "c", "", "a!", "a-b", "$s", "é"])
    }

    /// A text has at least one character. // [MQTT-4.7.3-1]
    fn not_empty(text: String) -> String {
        if text.is_empty() { "/".to_owned() } else { text }
    }

    fn topic() -> impl Strategy<Value = String> {
        let levels = prop::collection::vec(level(), 1..5);
        levels.prop_map(|levels| levels.join("/")).prop_map(not_empty)
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![2 => level(), 2 => Just("+")];
        (prop::collection::vec(level, 0..5), prop::bool::weighted(0.4))
            .prop_map(|(mut levels, open)| {
                levels.extend(open.then_some("#"));
                levels.join("/")
            })
            .prop_map(not_empty)
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_lists_of_levels(one in "[a!/é$-]{0,20}", two in "[a!/é$-]{0,20}") {
            let by_lists = one.split('/').cmp(two.split('/'));
            prop_assert_eq!(by_level(&one, &two), by_lists);
        }

        /// Every scan, in pieces of any size, while messages come and go: what was there all the time is visited
        /// exactly once, in order, and nothing that does not match.
        #[test]
        fn scans_are_those_of_lists_and_loops(
            topics in prop::collection::vec(topic(), 0..60),
            filter in filter(),
            limits in prop::collection::vec((1usize..6, 0usize..8), 1..20),
            changes in prop::collection::vec((topic(), prop::bool::ANY), 0..20),
        ) {
            let mut retained = Retained::new(&[1, 2, 3, 4]);
            let mut naive = NaiveRetained::default();
            for topic in &topics {
                retained.insert(message(topic, b"x", NEVER));
                naive.insert(message(topic, b"x", NEVER));
            }
            let names = |naive: &NaiveRetained| -> Vec<String> {
                naive.matching(&filter).iter().map(|one| one.topic().to_owned()).collect()
            };
            let mut all = topics_of(&retained, &filter);
            prop_assert!(all.is_sorted_by(|one, two| by_level(one, two).is_lt()));
            all.sort_unstable();
            prop_assert_eq!(&all, &names(&naive));

            let (mut ever, mut always) = (all.clone(), all);
            let mut changes = changes.into_iter();
            let mut limits = limits.into_iter().cycle();
            let mut found: Vec<String> = Vec::new();
            let mut after: Option<Box<str>> = None;
            let mut calls = 0;
            loop {
                calls += 1;
                prop_assert!(calls <= 4 * (topics.len() + 20) + 4, "no progress");
                let (messages_max, visits_max) = limits.next().unwrap();
                let before = found.len();
                let visit = |message: &Message| found.push(message.topic().to_owned());
                let mut left = visits_max;
                let scan = retained.scan(&filter, after.as_deref(), messages_max, &mut left, visit);
                prop_assert!(found.len() - before <= messages_max);
                match scan {
                    Scan::Done => break,
                    Scan::More { after: next } => {
                        prop_assert!(after.is_none_or(|after| by_level(&after, &next).is_lt()));
                        after = Some(next);
                    }
                }
                if let Some((topic, comes)) = changes.next() {
                    if comes {
                        retained.insert(message(&topic, b"y", NEVER));
                        naive.insert(message(&topic, b"y", NEVER));
                    } else {
                        prop_assert_eq!(retained.remove(&topic).is_some(), naive.messages.iter().any(|one| one.topic() == topic));
                        naive.remove(&topic);
                    }
                    let now = names(&naive);
                    always.retain(|topic| now.contains(topic));
                    ever.extend(now);
                }
            }
            prop_assert!(found.is_sorted_by(|one, two| by_level(one, two).is_lt()));
            prop_assert!(always.iter().all(|topic| found.contains(topic)), "{always:?} {found:?}");
            prop_assert!(found.iter().all(|topic| ever.contains(topic)));
            prop_assert_eq!(retained.len(), naive.messages.len());
            prop_assert_eq!(retained.bytes(), naive.messages.iter().map(Message::cost).sum::<usize>());
        }
    }
}
