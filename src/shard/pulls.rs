//! What is retained comes to new subscriptions: the cursors of a shard's sessions, in turn.
//!
//! A new subscription pulls what is retained: its cursor asks every owner that may have matching topics for a batch,
//! delivers it as fast as the client takes it, and asks for the next. So the size of the store never meets the limit of
//! a session's queue. A cursor is a position per owner; it survives changes of the store and, in a persistent
//! session, the loss of the connection. It starts when the SUBACK leaves and its filter is announced, so that an owner knows
//! of it before it answers; without a hint that there is anything, there is no cursor.
//!
//! An answer is delivered where it arrives, in its place among the live messages of its owner. What the client does not take
//! is dropped and asked for again when it has room, so that nothing is kept for it that the store may have replaced. A message
//! *published with RETAIN* that reached the subscription since SUBSCRIBE makes a retained copy of its topic stale.
//!
//! Algorithm of a turn: take the session that waits longest; one batch of its first cursor that can go on is taken from
//! the own store, or questions go to other owners; it goes behind the others. Until so many topics were looked at. As many
//! are looked at for the questions of other shards, which wait in the order in which they came.

use std::collections::VecDeque;

use crate::memory::{Key, MessageView, ShardId, ShardSet};
use crate::session::{Delivered, Grant, Retain, Share};
use crate::topic;

use super::Core;
use super::behind::Newer;
use super::cursors::{Asking, Cursors, NotFrom, Publisher, Seen, Source};
use super::env::Env;
use super::local::Local;
use super::order::{Heard, MayStore};
use super::parcel::{Found, Query};
use super::sessions::Sessions;

/// Messages of a cursor that may wait in the session's queue for the client's Receive Maximum; no more are asked for until
/// it is down to half.
const CURSOR_QUEUE_MAX: usize = 16;

/// What is pulled through this shard.
#[derive(Debug)]
pub(super) struct Pulls {
    /// Sessions with cursors that may go on.
    work: VecDeque<Key>,
    /// Sessions that may go on once a question is answered.
    crowded: VecDeque<Key>,
    /// Questions of this shard that may still be asked before one is answered.
    questions_left: usize,
    /// Cursors so far, which gives each its number.
    pub begun: u64,
}

/// When a session is to be looked at again.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[must_use]
enum Next {
    Now,
    /// Once this shard has fewer questions under way.
    Crowded,
    /// When it has room, an answer comes, or a SUBACK leaves.
    Later,
}

impl Pulls {
    pub fn new(questions_max: usize) -> Pulls {
        Pulls { work: VecDeque::new(), crowded: VecDeque::new(), questions_left: questions_max, begun: 0 }
    }

    /// Whether another turn would find something to do.
    pub fn has_work(&self) -> bool {
        let uncrowded = self.questions_left > 0 && !self.crowded.is_empty();
        uncrowded || !self.work.is_empty()
    }

    fn next(&mut self) -> Option<Key> {
        let crowded = if self.questions_left > 0 { self.crowded.pop_front() } else { None };
        crowded.or_else(|| self.work.pop_front())
    }
}

impl Sessions {
    /// Out of the session, so that what they deliver is not taken for a live message.
    pub fn take_cursors(&mut self, session: Key) -> Option<Box<Cursors>> {
        self.arena.get_mut(session)?.cursors.take()
    }

    pub fn keep_cursors(&mut self, session: Key, cursors: Box<Cursors>) {
        if let Some(slot) = self.arena.get_mut(session)
            && !cursors.is_done()
        {
            slot.cursors = Some(cursors);
        }
    }

    /// What is retained is to come to a subscription, once its filter is announced up to number `need`.
    pub fn add_cursor(&mut self, session: Key, subscription: Key, need: u64, not_from: NotFrom, env: &Env) {
        self.pulls.begun += 1;
        let id = self.pulls.begun;
        let Some(slot) = self.arena.get_mut(session) else { return };
        let cursors = slot.cursors.get_or_insert_with(|| Box::new(Cursors::new(env.keys)));
        cursors.begin(subscription, id, need, not_from);
    }

    /// A SUBACK left, an answer or a client came, or it has room: the cursors of its session may go on.
    pub fn schedule_cursors(&mut self, session: Key) {
        if let Some(cursors) = self.arena.get_mut(session).and_then(|slot| slot.cursors.as_mut())
            && !cursors.scheduled
        {
            cursors.scheduled = true;
            self.pulls.work.push_back(session);
        }
    }

    /// A message with RETAIN came to a subscription of the session, live, and was `delivered`.
    pub fn note_live(&mut self, session: Key, message: &MessageView<'_>, delivered: Delivered, env: &Env) {
        let Some(slot) = self.arena.get_mut(session) else { return };
        let Some(cursors) = &mut slot.cursors else { return };
        let topic = topic::fingerprint(&env.keys, message.topic);
        let publisher = match delivered {
            Delivered::Dropped(_) | Delivered::Refused(_) | Delivered::Disconnect => Publisher::Missed,
            _ if message.publisher == slot.client_hash => Publisher::Itself,
            Delivered::Sent | Delivered::Queued | Delivered::QueuedDroppingOldest => Publisher::Other,
        };
        cursors.saw_live(topic, Seen { newest: self.pulls.begun, publisher });
    }

    /// A message with RETAIN came that No Local keeps from the session, which published it.
    pub fn note_hidden(&mut self, session: Key, message: &MessageView<'_>, env: &Env) {
        let topic = topic::fingerprint(&env.keys, message.topic);
        let seen = Seen { newest: self.pulls.begun, publisher: Publisher::Hidden };
        if let Some(cursors) = self.arena.get_mut(session).and_then(|slot| slot.cursors.as_mut()) {
            cursors.saw_live(topic, seen);
        }
    }
}

impl Local {
    /// Delivers a batch as far as the client takes it; what it does not take is to be asked for again. Returns the cost of the
    /// first of that.
    /// What the client itself retained comes as well: No Local is about live messages. // [U5-3.8.3-3] [U5-3.8.4-3] [U5-3.3.1-4]
    fn take_found(
        &mut self,
        source: &mut Source,
        found: Found,
        cursors: &mut Cursors,
        not_from: NotFrom,
    ) -> Option<usize> {
        source.state = Asking::Ready;
        let Found { session, subscription: key, cursor: id, messages, after } = found;
        let mut passed = None;
        for message in &messages {
            let subscription = self.sessions.router.subscription(key)?;
            let (options, identifier) = (subscription.options, subscription.identifier);
            // Options that came since say what is sent live by now.
            let topic = topic::fingerprint(&self.env.keys, message.topic());
            let stale = cursors.is_stale(topic, id, not_from, options.no_local);
            let mut newer = cursors.behind.newer(topic, key);
            if let Newer::Older(number) = newer {
                self.deliver_early(session, cursors, topic, number);
                newer = cursors.behind.newer(topic, key);
            }
            match newer {
                Newer::Nothing | Newer::Older(_) => {}
                Newer::First { number, message: newer } => {
                    if !self.can_take(session, newer.cost()) {
                        source.after = passed.map(Box::from).or(source.after.take());
                        return Some(newer.cost());
                    }
                    self.deliver_in_place(session, cursors, number);
                    passed = Some(message.topic());
                    continue;
                }
                Newer::Later => {
                    passed = Some(message.topic());
                    continue;
                }
            }
            // One that expired on its way is not a message that was dropped. // [U5-3.3.1-3]
            if !stale && message.expires_at() > self.env.now {
                if !self.can_take(session, message.cost()) {
                    if let Some(passed) = passed {
                        source.after = Some(Box::from(passed));
                    }
                    return Some(message.cost());
                }
                let only = [identifier];
                let grant = Grant {
                    qos: options.qos.min(message.qos()),
                    retain: Retain::Set, // [U5-3.3.1-1]; 3.1.1: [311:MQTT-3.3.1-8]
                    identifiers: if identifier == 0 { &[] } else { &only },
                    share: Share::No,
                };
                self.deliver_kept(session, message, &grant);
            }
            passed = Some(message.topic());
        }
        match after {
            Some(after) => source.after = Some(after),
            None => source.state = Asking::Done,
        }
        None
    }

    /// Questions that a session may have under way; none while its client cannot take a message of `cost` bytes.
    fn questions_max(&self, session: Key, cost: usize) -> usize {
        let waiting = self.sessions.arena.get(session).map_or(0, |slot| slot.session.queue_len());
        if waiting > CURSOR_QUEUE_MAX / 2 || !self.can_take(session, cost) {
            0
        } else if waiting > 0 {
            1
        } else {
            self.env.options.session_questions_max
        }
    }

    /// Whether the session's client is there and takes a message of `cost` bytes without anything being dropped for it:
    /// the limits of queue and send buffer are for live messages, a cursor waits.
    pub(super) fn can_take(&self, session: Key, cost: usize) -> bool {
        let Some(slot) = self.sessions.arena.get(session) else { return false };
        let Some(connection) = slot.connection.and_then(|key| self.clients.connections.get(key)) else {
            return false;
        };
        let max = self.env.limits.send_buffer_bytes_max;
        let (room, max_bytes) = (connection.send_room(max), max as usize);
        connection.live().is_some()
            && (room >= max_bytes || (room > max_bytes / 2 && room >= cost))
            && slot.session.queue_len() < CURSOR_QUEUE_MAX
            && slot.session.queue_takes(cost, &self.env.limits)
    }

    /// Here, and not later in the turn: a live message that comes behind it is newer.
    pub(super) fn found_arrived(&mut self, from: ShardId, found: Found) {
        self.sessions.pulls.questions_left += 1;
        let (session, subscription) = (found.session, found.subscription);
        let Some(mut cursors) = self.sessions.take_cursors(session) else { return };
        cursors.asked -= 1;
        if cursors.is(subscription, found.cursor)
            && let Some(mut cursor) = cursors.take(subscription)
        {
            let not_from = cursor.not_from;
            if let Some(source) = cursor.asked(from) {
                let cost = self.take_found(source, found, &mut cursors, not_from);
                cursors.next_cost = cost.unwrap_or(cursors.next_cost);
            }
            cursors.put(subscription, cursor);
        }
        self.sessions.keep_cursors(session, cursors);
        self.sessions.schedule_cursors(session);
    }
}

impl Core {
    /// Once per turn: cursors whose clients can take more, session by session.
    #[inline(always)]
    pub(super) fn advance_cursors(&mut self) {
        if self.local.sessions.pulls.has_work() {
            self.advance_scheduled();
        }
    }

    fn advance_scheduled(&mut self) {
        let mut visits = self.local.env.options.retained_visits_in_turn;
        while visits > 0
            && let Some(session) = self.local.sessions.pulls.next()
        {
            visits -= 1;
            let Some(mut cursors) = self.local.sessions.take_cursors(session) else { continue };
            cursors.announced(self.exchange.interest.announced());
            let mut next = self.advance(session, &mut cursors, &mut visits);
            if self.local.sessions.arena.get(session).is_none_or(|slot| slot.session.queue_len() == 0) {
                cursors.queue_is_empty();
            }
            if self.local.let_go(session, &mut cursors, &mut visits) {
                next = Next::Now;
            }
            cursors.scheduled = next != Next::Later;
            match next {
                Next::Now => self.local.sessions.pulls.work.push_back(session),
                Next::Crowded => self.local.sessions.pulls.crowded.push_back(session),
                Next::Later => {}
            }
            self.local.sessions.keep_cursors(session, cursors);
        }
    }

    /// The first cursor that can go on, at each of its owners: a batch from here, a question to another.
    fn advance(&mut self, session: Key, cursors: &mut Cursors, visits: &mut usize) -> Next {
        let questions_max = self.local.questions_max(session, cursors.next_cost);
        if questions_max == 0 {
            return Next::Later;
        }
        cursors.next_cost = 0;
        let Some(subscription) = cursors.first() else { return Next::Later };
        let Some(filter) = self.local.sessions.router.filter_text(subscription).map(Box::<str>::from) else {
            cursors.remove(subscription);
            return Next::Now;
        };
        let Some(mut cursor) = cursors.take(subscription) else { return Next::Later };
        let (id, not_from) = (cursor.id, cursor.not_from);
        let mut sources = cursor.sources.take().unwrap_or_else(|| owners_of(&filter, &self.local.env));
        let mut next = Next::Now;
        for source in sources.iter_mut().filter(|source| source.state == Asking::Ready) {
            let (filter, after) = (filter.clone(), source.after.clone());
            let query = Query { session, subscription, cursor: id, filter, after };
            if source.owner == self.local.env.id {
                let found = self.retained.find(query, visits, &self.local.env);
                if let Some(cost) = self.local.take_found(source, found, cursors, not_from) {
                    cursors.next_cost = cost;
                    next = Next::Later; // it has room
                }
            } else if cursors.asked >= questions_max {
                next = Next::Later; // an answer comes
            } else if self.local.sessions.pulls.questions_left == 0 {
                next = Next::Crowded;
            } else {
                source.state = Asking::Asked;
                cursors.asked += 1;
                self.local.sessions.pulls.questions_left -= 1;
                self.exchange.push_query(source.owner, query, &self.local.env);
            }
        }
        cursor.sources = Some(sources);
        cursors.put(subscription, cursor);
        next
    }

    /// Once per turn: questions of other shards, in the order in which they came.
    pub(super) fn answer_queries(&mut self, heard: Heard<'_>) {
        let mut visits = self.local.env.options.retained_visits_in_turn;
        while visits > 0
            && let Some((from, query)) = self.retained.next_question()
        {
            let found = self.retained.find(*query, &mut visits, &self.local.env);
            self.exchange.push_found(from, found, heard, &self.local.env);
        }
    }

    /// Keeps or clears the retained message of a topic that this shard owns.
    pub(super) fn store_retained(&mut self, view: &MessageView<'_>, _: MayStore) {
        if !self.retained.keep(view, &mut self.local.env) {
            self.local.sessions.note_not_retained(&self.local.env);
        }
        self.retained.keep_value(view, &mut self.local.env);
    }
}

/// Whose topics the filter may match.
fn owners_of(filter: &str, env: &Env) -> Vec<Source> {
    let owners = if filter.contains(['+', '#']) {
        ShardSet::first(env.shards)
    } else {
        ShardSet::EMPTY.with(topic::shard_of(&env.keys, filter, env.shards))
    };
    owners.iter().map(Source::new).collect()
}
