//! The cursors of one session: what is retained, on its way to new subscriptions.
//!
//! Nothing here is walked for a filter, an answer or a wake-up: a cursor is found by its subscription, and those that can go
//! on, or wait for their announcement, stand in an order. They are served in the order of their SUBSCRIBE, and only one that
//! has begun knows owners and positions. So many cursors that wait are small.

use std::collections::{BTreeSet, HashMap};

use ahash::RandomState;

use crate::memory::{Key, ShardId};

use super::behind::Behind;

/// Topics of live messages that a session with cursors remembers, some 50 KiB. Beyond it a client may get a message twice,
/// live and retained.
pub(super) const LIVE_SEEN_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct Cursors {
    of: HashMap<Key, Cursor, RandomState>,
    /// Numbers and subscriptions of those that can go on.
    ready: BTreeSet<(u64, Key)>,
    /// Those whose filters are not in the log, by what has to be announced before they ask.
    unannounced: BTreeSet<(u64, Key)>,
    /// By fingerprint of the topic: the newest live message with RETAIN.
    seen: HashMap<u64, Seen, RandomState>,
    /// Numbers of all of them, and of those that are done but for what waits in the session's queue.
    active: BTreeSet<u64>,
    /// The subscriptions of the latter.
    draining: HashMap<Key, u64, RandomState>,
    /// Live messages that wait until what is retained has come.
    pub behind: Behind,
    /// More would have had to wait than may: until the cursors are done, nothing waits.
    pub gave_up: bool,
    /// Of the message that did not fit when something was last to be delivered: less room need not be tried.
    pub next_cost: usize,
    /// Questions that are not answered, those of cursors that are gone included.
    pub asked: usize,
    /// The session stands in a queue of those to be looked at.
    pub scheduled: bool,
}

#[derive(Debug)]
pub(super) struct Cursor {
    /// Of this shard's own: an answer may come when the subscription has another cursor.
    pub id: u64,
    need: u64,
    pub not_from: NotFrom,
    /// Owners that may have more; `None` before it begins.
    pub sources: Option<Vec<Source>>,
}

/// Whose live messages a cursor's SUBSCRIBE asked not to be sent.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum NotFrom {
    Nobody,
    /// No Local.
    Itself,
    /// Another SUBSCRIBE says so by now.
    Replaced,
}

/// How far a cursor is at one owner.
#[derive(Debug)]
pub(super) struct Source {
    pub owner: ShardId,
    /// The client has, or needs not, what comes up to this topic.
    pub after: Option<Box<str>>,
    pub state: Asking,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Asking {
    /// The next batch is to be asked for.
    Ready,
    Asked,
    Done,
}

/// A live message with RETAIN that came to a session.
#[derive(Copy, Clone, Debug)]
pub(super) struct Seen {
    /// The number of the newest cursor then: those after it were not subscribed yet.
    pub newest: u64,
    pub publisher: Publisher,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Publisher {
    /// The client itself: a subscription with No Local did not get it.
    Itself,
    /// The same, and No Local kept it from all its subscriptions.
    Hidden,
    Other,
    /// Anybody, but it was dropped: what is retained is newer than what the client has.
    Missed,
}

impl Cursors {
    pub fn new([a, b, c, d]: [u64; 4]) -> Cursors {
        let state = RandomState::with_seeds(a, b, c, d);
        Cursors {
            of: HashMap::with_hasher(state.clone()),
            ready: BTreeSet::new(),
            unannounced: BTreeSet::new(),
            seen: HashMap::with_hasher(state.clone()),
            active: BTreeSet::new(),
            draining: HashMap::with_hasher(state.clone()),
            behind: Behind::new(state),
            gave_up: false,
            next_cost: 0,
            asked: 0,
            scheduled: false,
        }
    }

    /// Begins a cursor in place of one that the subscription has; it asks once `need` is announced.
    pub fn begin(&mut self, subscription: Key, id: u64, need: u64, not_from: NotFrom) {
        self.remove(subscription);
        self.of.insert(subscription, Cursor { id, need, not_from, sources: None });
        self.unannounced.insert((need, subscription));
        self.active.insert(id);
    }

    /// The subscription was replaced by one that asks for nothing retained: its cursor goes on, but brings nothing of which
    /// the new one had to decide.
    pub fn replaced(&mut self, subscription: Key) {
        if let Some(cursor) = self.of.get_mut(&subscription) {
            cursor.not_from = NotFrom::Replaced;
        }
    }

    pub fn remove(&mut self, subscription: Key) {
        if let Some(cursor) = self.of.remove(&subscription) {
            self.ready.remove(&(cursor.id, subscription));
            self.unannounced.remove(&(cursor.need, subscription));
            self.active.remove(&cursor.id);
        }
        if let Some(id) = self.draining.remove(&subscription) {
            self.active.remove(&id);
        }
    }

    /// Everything up to this number is in the log.
    pub fn announced(&mut self, announced: u64) {
        while let Some((need, subscription)) = self.unannounced.first().copied()
            && need <= announced
        {
            self.unannounced.pop_first();
            if let Some(cursor) = self.of.get(&subscription) {
                self.ready.insert((cursor.id, subscription));
            }
        }
    }

    /// The first that can go on.
    pub fn first(&self) -> Option<Key> {
        self.ready.first().map(|(_, subscription)| *subscription)
    }

    /// Whether it is cursor `id` that the subscription has.
    pub fn is(&self, subscription: Key, id: u64) -> bool {
        self.of.get(&subscription).is_some_and(|cursor| cursor.id == id)
    }

    /// Lends a cursor; [`Cursors::put`] takes it back.
    pub fn take(&mut self, subscription: Key) -> Option<Cursor> {
        self.of.remove(&subscription)
    }

    /// Sorts a cursor in: it is done, can go on, or waits for answers.
    pub fn put(&mut self, subscription: Key, mut cursor: Cursor) {
        if let Some(sources) = &mut cursor.sources {
            sources.retain(|source| source.state != Asking::Done);
        }
        let sources = cursor.sources.as_deref();
        if sources.is_none_or(|sources| sources.iter().any(|source| source.state == Asking::Ready)) {
            self.ready.insert((cursor.id, subscription));
        } else {
            self.ready.remove(&(cursor.id, subscription));
        }
        if sources.is_none_or(|sources| !sources.is_empty()) {
            self.of.insert(subscription, cursor);
        } else {
            self.draining.insert(subscription, cursor.id);
        }
    }

    /// Whether nothing is on its way.
    pub fn is_done(&self) -> bool {
        self.of.is_empty() && self.draining.is_empty() && self.asked == 0 && self.behind.is_empty()
    }

    /// Nothing waits in the session's queue: what done cursors brought is sent.
    pub fn queue_is_empty(&mut self) {
        for (_, id) in self.draining.drain() {
            self.active.remove(&id);
        }
    }

    /// Whether the subscription has one, or what it brought is not sent yet.
    pub fn has(&self, subscription: Key) -> bool {
        self.of.contains_key(&subscription) || self.draining.contains_key(&subscription)
    }

    /// Whether everything that the cursors up to this number bring is sent.
    pub fn are_done_up_to(&self, id: u64) -> bool {
        self.active.first().is_none_or(|first| *first > id)
    }

    /// How it hashes.
    pub fn hasher(&self) -> RandomState {
        self.seen.hasher().clone()
    }

    /// A live message with RETAIN of this topic came.
    pub fn saw_live(&mut self, topic: u64, seen: Seen) {
        if self.seen.len() < LIVE_SEEN_MAX || self.seen.contains_key(&topic) {
            self.seen.insert(topic, seen);
        }
    }

    /// Whether the subscription of cursor `id` has had a live message of this topic, which no retained one is newer than.
    /// `has_no_local` is about its options now.
    pub fn is_stale(&self, topic: u64, id: u64, not_from: NotFrom, has_no_local: bool) -> bool {
        self.seen.get(&topic).is_some_and(|seen| {
            seen.newest >= id
                && match (not_from, seen.publisher) {
                    (NotFrom::Replaced, _) | (_, Publisher::Other) => true,
                    (NotFrom::Itself, Publisher::Itself) => !has_no_local,
                    (NotFrom::Nobody, Publisher::Itself | Publisher::Hidden) => true,
                    (NotFrom::Itself, Publisher::Hidden) | (_, Publisher::Missed) => false,
                }
        })
    }
}

impl Cursor {
    /// Where it waits for an answer of `owner`.
    pub fn asked(&mut self, owner: ShardId) -> Option<&mut Source> {
        let mut sources = self.sources.iter_mut().flatten();
        sources.find(|source| source.owner == owner && source.state == Asking::Asked)
    }
}

impl Source {
    pub fn new(owner: ShardId) -> Source {
        Source { owner, after: None, state: Asking::Ready }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: Seen = Seen { newest: 7, publisher: Publisher::Other };

    fn key(index: u32) -> Key {
        Key { index, generation: 1 }
    }

    fn asked(owner: ShardId) -> Source {
        Source { state: Asking::Asked, ..Source::new(owner) }
    }

    #[test]
    fn cursors_go_on_in_order_and_once_they_are_announced() {
        let mut cursors = Cursors::new([1; 4]);
        for (number, need) in [(1, 5), (2, 0), (3, 9)] {
            cursors.begin(key(number), number.into(), need, NotFrom::Nobody);
        }
        cursors.announced(0);
        assert_eq!(cursors.first(), Some(key(2)));
        cursors.announced(8);
        assert_eq!(cursors.first(), Some(key(1)));
        // A new one of the same subscription comes last.
        cursors.begin(key(1), 4, 0, NotFrom::Nobody);
        cursors.announced(9);
        assert_eq!(cursors.ready.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2, 3, 4]);
        for number in 1..=3 {
            cursors.remove(key(number));
        }
        assert!(cursors.is_done() && cursors.ready.is_empty() && cursors.unannounced.is_empty());
    }

    #[test]
    fn a_cursor_waits_for_answers_and_ends_with_the_last() {
        let mut cursors = Cursors::new([1; 4]);
        cursors.begin(key(1), 1, 0, NotFrom::Nobody);
        cursors.announced(0);
        let mut cursor = cursors.take(key(1)).unwrap();
        cursor.sources = Some(vec![asked(0), Source::new(1)]);
        cursors.put(key(1), cursor);
        assert_eq!(cursors.first(), Some(key(1)));
        let mut cursor = cursors.take(key(1)).unwrap();
        cursor.sources = Some(vec![asked(0)]);
        cursors.put(key(1), cursor);
        assert_eq!(cursors.first(), None);
        assert!(!cursors.is_done());
        let mut cursor = cursors.take(key(1)).unwrap();
        cursor.sources = Some(vec![Source { state: Asking::Done, ..Source::new(0) }]);
        cursors.put(key(1), cursor);
        assert!(
            !cursors.is_done() && cursors.has(key(1)) && !cursors.are_done_up_to(1),
            "what it brought is queued"
        );
        cursors.queue_is_empty();
        assert!(cursors.is_done() && !cursors.has(key(1)) && cursors.are_done_up_to(1));
        cursors.asked = 1;
        assert!(!cursors.is_done(), "an answer is to come");
    }

    #[test]
    fn what_came_live_is_stale_for_those_who_had_subscribed_and_got_it() {
        let mut cursors = Cursors::new([1; 4]);
        cursors.saw_live(1, OTHER);
        assert!(
            cursors.is_stale(1, 7, NotFrom::Nobody, true) && cursors.is_stale(1, 3, NotFrom::Itself, true)
        );
        assert!(!cursors.is_stale(1, 8, NotFrom::Nobody, true), "it subscribed later");
        assert!(!cursors.is_stale(2, 7, NotFrom::Nobody, true));
        // Its own message reached another subscription of the session.
        cursors.saw_live(1, Seen { publisher: Publisher::Itself, ..OTHER });
        assert!(cursors.is_stale(1, 7, NotFrom::Nobody, true));
        assert!(!cursors.is_stale(1, 7, NotFrom::Itself, true));
        cursors.saw_live(1, Seen { publisher: Publisher::Hidden, ..OTHER });
        assert!(
            cursors.is_stale(1, 7, NotFrom::Nobody, true) && !cursors.is_stale(1, 7, NotFrom::Itself, false)
        );
        cursors.saw_live(1, Seen { publisher: Publisher::Missed, ..OTHER });
        assert!(
            !cursors.is_stale(1, 7, NotFrom::Nobody, false)
                && cursors.is_stale(1, 7, NotFrom::Replaced, false)
        );
    }

    #[test]
    fn only_so_many_topics_are_remembered() {
        let mut cursors = Cursors::new([1; 4]);
        for topic in 0..2 * LIVE_SEEN_MAX as u64 {
            cursors.saw_live(topic, OTHER);
        }
        assert_eq!(cursors.seen.len(), LIVE_SEEN_MAX);
        cursors.saw_live(0, Seen { newest: 9, ..OTHER });
        assert!(cursors.is_stale(0, 9, NotFrom::Nobody, true), "those that are known are kept up to date");
    }
}
