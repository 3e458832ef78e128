//! Retained messages: the store of the topics that this shard owns, and the cursors of its subscribers.
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
use std::sync::Arc;

use crate::clock::Millis;
use crate::memory::{Class, Key, Message, MessageView, ShardId, ShardSet};
use crate::mesh::Published;
use crate::session::{Delivered, Grant, Retain, Share};
use crate::topic::{self, Options, RetainHandling, RetainedHints, Router, Scan};
use crate::wire::{DecodeError, Reason, SubscribeEntry, Version};

use super::behind::Newer;
use super::cursors::{Asking, Cursors, NotFrom, Publisher, Seen, Source};
use super::env::Env;
use super::losses::Denied;
use super::parcel::{Found, Parcel, Query};
use super::{Core, Timer};

/// Milliseconds between sweeps for expired retained messages.
pub(super) const SWEEP_MS: Millis = 1000;

/// Retained messages looked at in one sweep.
const SWEEP_VISITS: usize = 10_000;

/// What a batch costs in visits beside its topics: finding where to begin.
const BATCH_VISITS: usize = 16;

/// Messages of a cursor that may wait in the session's queue for the client's Receive Maximum; no more are asked for until
/// it is down to half.
const CURSOR_QUEUE_MAX: usize = 16;

/// The retained messages of the topics that this shard owns, and what is pulled through it.
pub(super) struct Retained {
    pub store: topic::Retained,
    /// Whether any shard may have something for a filter.
    pub hints: Arc<RetainedHints>,
    pub pulls: Pulls,
}

impl Retained {
    pub fn new(env: &Env, hints: Arc<RetainedHints>) -> Retained {
        Retained {
            store: topic::Retained::new(&env.keys),
            hints,
            pulls: Pulls::new(env.options.questions_max),
        }
    }
}

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
    /// Questions of other shards: `questions_max` of each at most.
    questions: VecDeque<(ShardId, Box<Query>)>,
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
        Pulls {
            work: VecDeque::new(),
            crowded: VecDeque::new(),
            questions_left: questions_max,
            begun: 0,
            questions: VecDeque::new(),
        }
    }

    /// Whether another turn would find something to do.
    pub fn has_work(&self) -> bool {
        let uncrowded = self.questions_left > 0 && !self.crowded.is_empty();
        uncrowded || !self.work.is_empty() || !self.questions.is_empty()
    }

    fn next(&mut self) -> Option<Key> {
        let crowded = if self.questions_left > 0 { self.crowded.pop_front() } else { None };
        crowded.or_else(|| self.work.pop_front())
    }
}

impl Core {
    /// One filter of a SUBSCRIBE: what goes into the SUBACK, and what peers must know before it leaves. An outer error
    /// ends the connection.
    /// [U5-3.8.2-2] [U5-3.8.4-5] [U5-4.8.2-4]
    pub(super) fn subscribe(
        &mut self,
        session: Key,
        version: Version,
        entry: &SubscribeEntry<'_>,
        identifier: u32,
    ) -> Result<Result<(Reason, u64), Reason>, DecodeError> {
        // [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1] [MQTT-4.8.2-1] [MQTT-4.8.2-2]
        let Ok(filter) = topic::parse_filter(entry.filter, self.env.limits.topic_levels_max) else {
            return Ok(Err(Reason::TOPIC_FILTER_INVALID));
        };
        if filter.share.is_some() && entry.no_local {
            return Err(DecodeError::ProtocolError("No Local on a shared subscription")); // [MQTT-3.8.3-4]
        }
        let Some(slot) = self.sessions.arena.get_mut(session) else {
            return Ok(Err(Reason::UNSPECIFIED_ERROR));
        };
        let full = slot.subscriptions.len() >= self.env.limits.subscriptions_max as usize;
        let fits = self.env.budget.has_room(Class::Subscription, Router::cost_at_most(entry.filter));
        if (full || !fits) && !self.sessions.router.is_subscribed(&slot.subscriptions, entry.filter) {
            self.env.counters().subscriptions_refused_total.add(1);
            let why = match full {
                true => "it has as many subscriptions as --subscriptions-max allows",
                false => "the memory for subscriptions is used up; --memory-max bounds it",
            };
            self.log_limit(session, why);
            return Ok(Err(Reason::QUOTA_EXCEEDED));
        }
        if let Err(refusal) = self.may_subscribe(session, filter.filter) {
            self.log_denied(session, Denied::Subscribe, entry.filter, 1);
            return Ok(Err(refusal));
        }
        let Some(slot) = self.sessions.arena.get_mut(session) else {
            return Ok(Err(Reason::UNSPECIFIED_ERROR));
        };
        let retain_handling = match entry.retain_handling {
            crate::wire::RetainHandling::SendAtSubscribe => RetainHandling::Send,
            crate::wire::RetainHandling::SendIfNew => RetainHandling::SendIfNew,
            crate::wire::RetainHandling::DoNotSend => RetainHandling::DontSend,
        };
        let options = Options {
            qos: entry.qos,
            no_local: entry.no_local,
            retain_as_published: entry.retain_as_published && version == Version::V5,
            retain_handling,
        };
        // [MQTT-3.8.4-3]: an identical filter replaces options and identifier.
        let subscribed = self.sessions.router.subscribe(
            &mut slot.subscriptions,
            session,
            entry.filter,
            options,
            identifier,
        );
        // [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.8.4-4] [U5-3.8.4-2]
        let wants_retained = filter.share.is_none()
            && match retain_handling {
                RetainHandling::Send => true,
                RetainHandling::SendIfNew => !subscribed.existed,
                RetainHandling::DontSend => false,
            };
        if let Some(change) = subscribed.interest {
            self.interest_changed(change);
        }
        self.charge_topics();
        let need = self.announced_at(subscribed.filter);
        // The hints come after the announcement, and only one that the others can read counts.
        if wants_retained && (need > self.announced() || self.may_be_retained(filter.filter)) {
            let not_from = if options.no_local { NotFrom::Itself } else { NotFrom::Nobody };
            self.add_cursor(session, subscribed.key, need, not_from);
        } else if let Some(cursors) =
            self.sessions.arena.get_mut(session).and_then(|slot| slot.cursors.as_mut())
        {
            cursors.replaced(subscribed.key);
        }
        Ok(Ok((Reason(entry.qos as u8), need)))
    }

    /// [MQTT-3.10.4-1]
    /// The whole `$share/...` text names a shared subscription. // [U5-3.10.4-1] [U5-4.8.2-5]
    pub(super) fn unsubscribe(&mut self, session: Key, filter: &str) -> Reason {
        if topic::parse_filter(filter, self.env.limits.topic_levels_max).is_err() {
            return Reason::TOPIC_FILTER_INVALID;
        }
        let Some(slot) = self.sessions.arena.get_mut(session) else { return Reason::NO_SUBSCRIPTION_EXISTED };
        match self.sessions.router.unsubscribe(&mut slot.subscriptions, filter) {
            Some(unsubscribed) => {
                if let Some(cursors) = &mut slot.cursors {
                    cursors.remove(unsubscribed.key);
                    self.schedule_cursors(session); // something may have waited for it
                }
                if let Some(change) = unsubscribed.interest {
                    self.interest_changed(change);
                }
                self.charge_topics();
                Reason::SUCCESS
            }
            None => Reason::NO_SUBSCRIPTION_EXISTED,
        }
    }

    /// Whether an owner may have something that `filter` matches.
    fn may_be_retained(&self, filter: &str) -> bool {
        self.retained.hints.may_match(filter, |text| topic::fingerprint(&self.env.keys, text))
    }

    /// Before a message with RETAIN is stored here or leaves for its owner.
    pub(super) fn note_retained(&self, view: &MessageView<'_>, fingerprint: u64) {
        if !view.payload.is_empty() {
            self.retained
                .hints
                .note(view.topic, fingerprint, |level| topic::fingerprint(&self.env.keys, level));
        }
        if self.env.shards > 1 {
            Published::before_leaving();
        }
    }

    fn add_cursor(&mut self, session: Key, subscription: Key, need: u64, not_from: NotFrom) {
        self.retained.pulls.begun += 1;
        let id = self.retained.pulls.begun;
        let Some(slot) = self.sessions.arena.get_mut(session) else { return };
        let cursors = slot.cursors.get_or_insert_with(|| Box::new(Cursors::new(self.env.keys)));
        cursors.begin(subscription, id, need, not_from);
    }

    /// A SUBACK left, an answer or a client came, or it has room: the cursors of its session may go on.
    pub(super) fn schedule_cursors(&mut self, session: Key) {
        if let Some(cursors) = self.sessions.arena.get_mut(session).and_then(|slot| slot.cursors.as_mut())
            && !cursors.scheduled
        {
            cursors.scheduled = true;
            self.retained.pulls.work.push_back(session);
        }
    }

    /// Once per turn: cursors whose clients can take more, session by session.
    pub(super) fn advance_cursors(&mut self) {
        let mut visits = self.env.options.retained_visits_in_turn;
        while visits > 0
            && let Some(session) = self.retained.pulls.next()
        {
            visits -= 1;
            let Some(mut cursors) = self.take_cursors(session) else { continue };
            cursors.announced(self.announced());
            let mut next = self.advance(session, &mut cursors, &mut visits);
            if self.sessions.arena.get(session).is_none_or(|slot| slot.session.queue_len() == 0) {
                cursors.queue_is_empty();
            }
            if self.let_go(session, &mut cursors, &mut visits) {
                next = Next::Now;
            }
            cursors.scheduled = next != Next::Later;
            match next {
                Next::Now => self.retained.pulls.work.push_back(session),
                Next::Crowded => self.retained.pulls.crowded.push_back(session),
                Next::Later => {}
            }
            self.keep_cursors(session, cursors);
        }
    }

    /// Out of the session, so that what they deliver is not taken for a live message.
    fn take_cursors(&mut self, session: Key) -> Option<Box<Cursors>> {
        self.sessions.arena.get_mut(session)?.cursors.take()
    }

    fn keep_cursors(&mut self, session: Key, cursors: Box<Cursors>) {
        if let Some(slot) = self.sessions.arena.get_mut(session)
            && !cursors.is_done()
        {
            slot.cursors = Some(cursors);
        }
    }

    /// The first cursor that can go on, at each of its owners: a batch from here, a question to another.
    fn advance(&mut self, session: Key, cursors: &mut Cursors, visits: &mut usize) -> Next {
        let questions_max = self.questions_max(session, cursors.next_cost);
        if questions_max == 0 {
            return Next::Later;
        }
        cursors.next_cost = 0;
        let Some(subscription) = cursors.first() else { return Next::Later };
        let Some(filter) = self.sessions.router.filter_text(subscription).map(Box::<str>::from) else {
            cursors.remove(subscription);
            return Next::Now;
        };
        let Some(mut cursor) = cursors.take(subscription) else { return Next::Later };
        let (id, not_from) = (cursor.id, cursor.not_from);
        let mut sources = cursor.sources.take().unwrap_or_else(|| self.owners_of(&filter));
        let mut next = Next::Now;
        for source in sources.iter_mut().filter(|source| source.state == Asking::Ready) {
            let (filter, after) = (filter.clone(), source.after.clone());
            let query = Query { session, subscription, cursor: id, filter, after };
            if source.owner == self.env.id {
                let found = self.find_retained(query, visits);
                if let Some(cost) = self.take_found(source, found, cursors, not_from) {
                    cursors.next_cost = cost;
                    next = Next::Later; // it has room
                }
            } else if cursors.asked >= questions_max {
                next = Next::Later; // an answer comes
            } else if self.retained.pulls.questions_left == 0 {
                next = Next::Crowded;
            } else {
                source.state = Asking::Asked;
                cursors.asked += 1;
                self.retained.pulls.questions_left -= 1;
                self.push(source.owner, Parcel::Query(Box::new(query)));
            }
        }
        cursor.sources = Some(sources);
        cursors.put(subscription, cursor);
        next
    }

    /// Whose topics the filter may match.
    fn owners_of(&self, filter: &str) -> Vec<Source> {
        let owners = if filter.contains(['+', '#']) {
            ShardSet::first(self.env.shards)
        } else {
            ShardSet::EMPTY.with(topic::shard_of(&self.env.keys, filter, self.env.shards))
        };
        owners.iter().map(Source::new).collect()
    }

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

    pub(super) fn query_arrived(&mut self, from: ShardId, query: Box<Query>) {
        self.retained.pulls.questions.push_back((from, query));
    }

    /// Once per turn: questions of other shards, in the order in which they came.
    pub(super) fn answer_queries(&mut self) {
        let mut visits = self.env.options.retained_visits_in_turn;
        while visits > 0
            && let Some((from, query)) = self.retained.pulls.questions.pop_front()
        {
            self.hear(); // what comes after the answer is to be routed there
            let found = self.find_retained(*query, &mut visits);
            self.push(from, Parcel::Retained(Box::new(found)));
        }
    }

    /// A batch, no larger than what the socket of a client has room for; and what it costs.
    fn find_retained(&self, query: Query, visits: &mut usize) -> Found {
        let (now, bytes_max) = (self.env.now, self.env.limits.send_buffer_bytes_max as usize);
        let mut messages: Vec<Message> = Vec::new();
        let (mut bytes, mut is_full) = (0, false);
        let batch = self.env.options.retained_batch;
        let visits_max = self.env.options.retained_visits.min(*visits).max(2);
        let mut left = visits_max;
        let scan =
            self.retained.store.scan(&query.filter, query.after.as_deref(), batch, &mut left, |message| {
                // [U5-3.3.1-3]
                if is_full || message.expires_at() <= now {
                    return;
                }
                bytes += message.cost();
                is_full = bytes > bytes_max && !messages.is_empty();
                if !is_full {
                    messages.push(message.clone());
                }
            });
        *visits = visits.saturating_sub(BATCH_VISITS + visits_max - left);
        let after = match scan {
            _ if is_full => messages.last().map(|last| Box::from(last.topic())),
            Scan::Done => None,
            Scan::More { after } => Some(after),
        };
        let Query { session, subscription, cursor, .. } = query;
        Found { session, subscription, cursor, messages, after }
    }

    /// Here, and not later in the turn: a live message that comes behind it is newer.
    pub(super) fn found_arrived(&mut self, from: ShardId, found: Found) {
        self.retained.pulls.questions_left += 1;
        let (session, subscription) = (found.session, found.subscription);
        let Some(mut cursors) = self.take_cursors(session) else { return };
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
        self.keep_cursors(session, cursors);
        self.schedule_cursors(session);
    }

    /// A message with RETAIN came to a subscription of the session, live, and was `delivered`.
    pub(super) fn note_live(&mut self, session: Key, message: &MessageView<'_>, delivered: Delivered) {
        let Some(slot) = self.sessions.arena.get_mut(session) else { return };
        let Some(cursors) = &mut slot.cursors else { return };
        let topic = topic::fingerprint(&self.env.keys, message.topic);
        let publisher = match delivered {
            Delivered::Dropped(_) | Delivered::Refused(_) | Delivered::Disconnect => Publisher::Missed,
            _ if message.publisher == slot.client_hash => Publisher::Itself,
            Delivered::Sent | Delivered::Queued | Delivered::QueuedDroppingOldest => Publisher::Other,
        };
        cursors.saw_live(topic, Seen { newest: self.retained.pulls.begun, publisher });
    }

    /// A message with RETAIN came that No Local keeps from the session, which published it.
    pub(super) fn note_hidden(&mut self, session: Key, message: &MessageView<'_>) {
        let topic = topic::fingerprint(&self.env.keys, message.topic);
        let seen = Seen { newest: self.retained.pulls.begun, publisher: Publisher::Hidden };
        if let Some(cursors) = self.sessions.arena.get_mut(session).and_then(|slot| slot.cursors.as_mut()) {
            cursors.saw_live(topic, seen);
        }
    }

    /// Keeps or clears the retained message of a topic that this shard owns.
    /// [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-8]
    /// Whatever its QoS. // [U5-3.3.1-2]; 3.1.1: [MQTT-3.3.1-7]
    pub(super) fn store_retained(&mut self, view: &MessageView<'_>) {
        debug_assert!(view.retain);
        if view.payload.is_empty() {
            if let Some(old) = self.retained.store.remove(view.topic) {
                self.env.budget.release(Class::Retained, old.cost());
            }
            return;
        }
        let cost = view.cost();
        let old = self.retained.store.get(view.topic).map(Message::cost);
        if old.is_none() && self.retained_in_all() >= self.env.limits.retained_messages_max {
            self.note_not_retained();
            return;
        }
        // The old value goes, so the difference is enough: near the limit a topic can still change.
        if !self.env.budget.charge(Class::Retained, cost.saturating_sub(old.unwrap_or(0))) {
            // The old value would be wrong now: better none than a stale one.
            if let Some(old) = self.retained.store.remove(view.topic) {
                self.env.budget.release(Class::Retained, old.cost());
            }
            self.note_not_retained();
            return;
        }
        if let Some(old) = self.retained.store.insert(view.to_message()) {
            self.env.budget.release(Class::Retained, old.cost().saturating_sub(cost));
        }
    }

    fn retained_in_all(&self) -> u64 {
        let here = self.env.counters().retained_messages.get();
        crate::metrics::sum(&self.env.counters, |shard| &shard.retained_messages) - here
            + self.retained.store.len() as u64
    }

    pub(super) fn sweep_due(&mut self) {
        let now = self.env.now;
        let sweep = self.retained.store.expire(now, SWEEP_VISITS);
        self.env.budget.release(Class::Retained, sweep.bytes);
        self.env.set_timer(now + SWEEP_MS, Timer::Sweep);
        self.report_losses();
    }
}
