//! The retained messages that one shard owns, ordered by topic.
//!
//! The order is by level: as bytes, but `/` comes before everything, so that a topic is followed at once by all topics
//! below it. A scan for a filter walks that order and, wherever the next topics cannot match, seeks past them: to the
//! literal level that the filter asks for, or behind the subtree of the last level that `+` stood for. So it looks at
//! no more than the stored prefixes that the filter matches, and one topic beside each.
//!
//! A message expires by being swept; until then it is still here, so readers compare [`Message::expires_at`] with now.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeSet, btree_set};
use std::ops::Bound;

use super::filter::open_to_wildcards;
use crate::clock::{Millis, NEVER};
use crate::memory::Message;

/// Retained messages by topic: one pointer each beside the message, and the tree around it.
#[derive(Debug, Default)]
pub struct Retained {
    messages: BTreeSet<Entry>,
    bytes: usize,
    /// Messages that expire at all.
    expiring: usize,
    /// Where the last sweep stopped.
    swept: Option<Box<str>>,
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
    /// Messages looked at.
    pub visits: usize,
    /// Messages removed.
    pub removed: usize,
    /// Their bytes.
    pub bytes: usize,
}

impl Retained {
    pub fn new() -> Retained {
        Retained::default()
    }

    /// Keeps `message`, which has a payload, and returns the one it replaces. // [MQTT-3.3.1-5]
    pub fn insert(&mut self, message: Message) -> Option<Message> {
        debug_assert!(!message.payload().is_empty()); // [MQTT-3.3.1-7]
        self.bytes += message.cost();
        self.expiring += usize::from(message.expires_at() != NEVER);
        let previous = self.messages.replace(Entry(message))?.0;
        self.uncount(&previous);
        Some(previous)
    }

    /// Forgets the message of `topic`. // [MQTT-3.3.1-6]
    pub fn remove(&mut self, topic: &str) -> Option<Message> {
        let removed = self.messages.take(&Probe(topic) as &dyn ByLevel)?.0;
        self.uncount(&removed);
        Some(removed)
    }

    /// The message of `topic`, be it expired or not.
    pub fn get(&self, topic: &str) -> Option<&Message> {
        self.messages.get(&Probe(topic) as &dyn ByLevel).map(|entry| &entry.0)
    }

    pub fn len(&self) -> usize {
        self.messages.len()
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The sum of [`Message::cost`].
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Visits messages that `filter` matches (valid, without `$share/name/`), in the order of their topics, from behind
    /// `after` on. Looks at no more than `visits_max` topics (at least two, so that one of them makes progress) and
    /// visits no more than `messages_max`. Messages that come or go between two calls do not disturb it: what was there
    /// all the time is visited exactly once.
    pub fn scan(
        &self,
        filter: &str,
        after: Option<&str>,
        messages_max: usize,
        visits_max: usize,
        mut visit: impl FnMut(&Message),
    ) -> Scan {
        let levels: Vec<&str> = filter.split('/').collect();
        let prefix = literal_prefix(&levels);
        let mut last = after.unwrap_or_default();
        let mut messages_left = messages_max.max(1);
        let mut visits_left = visits_max.max(2);
        // Where to begin, and whether what is exactly there counts.
        let mut begin = match after {
            Some(after) if by_level(after, &prefix) != Ordering::Less => Bound::Excluded(after.to_owned()),
            _ => Bound::Included(prefix),
        };
        'seek: loop {
            for Entry(message) in self.from(begin.as_ref().map(String::as_str)) {
                if visits_left == 0 {
                    return Scan::More { after: last.into() };
                }
                visits_left -= 1;
                let topic = message.topic();
                last = topic;
                match step(&levels, topic) {
                    Step::Match => {
                        visit(message);
                        messages_left -= 1;
                        if messages_left == 0 {
                            return Scan::More { after: last.into() };
                        }
                    }
                    Step::Next => {}
                    Step::Seek(to) => {
                        begin = Bound::Included(to);
                        continue 'seek;
                    }
                    Step::Done => return Scan::Done,
                }
            }
            return Scan::Done;
        }
    }

    /// Removes expired messages, looking at no more than `visits_max`; the next call goes on where this one stopped, and
    /// begins anew at the end. // [U5-3.3.1-3]
    pub fn expire(&mut self, now: Millis, visits_max: usize) -> Sweep {
        let mut sweep = Sweep::default();
        if self.expiring == 0 {
            return sweep;
        }
        let begin = match self.swept.take() {
            Some(topic) => Bound::Excluded(topic),
            None => Bound::Unbounded,
        };
        let mut expired = Vec::new();
        for Entry(message) in self.from(begin.as_ref().map(|topic| &**topic)) {
            if sweep.visits == visits_max {
                break;
            }
            sweep.visits += 1;
            if message.expires_at() <= now {
                expired.push(message.clone());
            }
            if sweep.visits == visits_max {
                self.swept = Some(message.topic().into());
                break;
            }
        }
        for message in expired {
            self.remove(message.topic());
            sweep.removed += 1;
            sweep.bytes += message.cost();
        }
        sweep
    }

    fn from(&self, begin: Bound<&str>) -> btree_set::Range<'_, Entry> {
        let probe;
        let begin: Bound<&dyn ByLevel> = match begin {
            Bound::Included(topic) => {
                probe = Probe(topic);
                Bound::Included(&probe)
            }
            Bound::Excluded(topic) => {
                probe = Probe(topic);
                Bound::Excluded(&probe)
            }
            Bound::Unbounded => Bound::Unbounded,
        };
        self.messages.range::<dyn ByLevel, _>((begin, Bound::Unbounded))
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

/// What can be looked up in the order: a message that is kept, or a topic.
trait ByLevel {
    fn topic(&self) -> &str;
}

#[derive(Debug)]
struct Entry(Message);

struct Probe<'a>(&'a str);

impl ByLevel for Entry {
    fn topic(&self) -> &str {
        self.0.topic()
    }
}

impl ByLevel for Probe<'_> {
    fn topic(&self) -> &str {
        self.0
    }
}

impl<'a> Borrow<dyn ByLevel + 'a> for Entry {
    fn borrow(&self) -> &(dyn ByLevel + 'a) {
        self
    }
}

impl Ord for dyn ByLevel + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        by_level(self.topic(), other.topic())
    }
}

impl PartialOrd for dyn ByLevel + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn ByLevel + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.topic() == other.topic()
    }
}

impl Eq for dyn ByLevel + '_ {}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        by_level(self.topic(), other.topic())
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.topic() == other.topic()
    }
}

impl Eq for Entry {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::naive::NaiveRetained;
    use super::*;
    use crate::memory::MessageView;
    use crate::wire::Qos;

    fn message(topic: &str, payload: &[u8], expires_at: Millis) -> Message {
        let qos = Qos::AtMostOnce;
        MessageView { topic, properties: &[], payload, qos, retain: true, expires_at, publisher: 0 }
            .to_message()
    }

    fn store<'a>(topics: impl IntoIterator<Item = &'a str>) -> Retained {
        let mut retained = Retained::new();
        for topic in topics {
            retained.insert(message(topic, b"x", NEVER));
        }
        retained
    }

    fn topics_of(retained: &Retained, filter: &str) -> Vec<String> {
        let mut found = Vec::new();
        let visit = |message: &Message| found.push(message.topic().to_owned());
        assert_eq!(retained.scan(filter, None, usize::MAX, usize::MAX, visit), Scan::Done);
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
        let mut retained = Retained::new();
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
        assert!(retained.is_empty());
    }

    /// Topics looked at by a whole scan, found by the smallest limit that suffices.
    fn visits(retained: &Retained, filter: &str) -> usize {
        let done = |limit: &usize| retained.scan(filter, None, usize::MAX, *limit, |_| {}) == Scan::Done;
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
        let mut retained = Retained::new();
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

    fn topic() -> impl Strategy<Value = String> {
        let levels = prop::collection::vec(level(), 1..5);
        levels.prop_map(|levels| levels.join("/")).prop_filter("empty", |topic| !topic.is_empty())
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![2 => level(), 2 => Just("+")];
        (prop::collection::vec(level, 0..5), prop::bool::weighted(0.4))
            .prop_map(|(mut levels, open)| {
                levels.extend(open.then_some("#"));
                levels.join("/")
            })
            .prop_filter("empty", |filter| !filter.is_empty())
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
            let mut retained = Retained::new();
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
                let scan = retained.scan(&filter, after.as_deref(), messages_max, visits_max, visit);
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
