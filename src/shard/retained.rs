//! Retained messages: the store of the topics that this shard owns, and the cursors of its subscribers.
//!
//! A new subscription pulls what is retained: its cursor asks every owner that may have matching topics for a batch,
//! delivers it as fast as the client takes it, and asks for the next. So the size of the store never meets the limit of
//! a session's queue. A cursor is (filter, last topic) per owner; it survives changes of the store and, in a persistent
//! session, the loss of the connection. It starts when the SUBACK leaves and its filter is announced, so that an owner knows
//! of it before it answers; without a hint that there is anything, there is no cursor. A message
//! *published with RETAIN* that reached the subscription since SUBSCRIBE makes a retained copy of its topic stale.

use std::collections::{HashSet, VecDeque};

use crate::clock::Millis;
use crate::memory::{Class, Key, Message, MessageView, ShardId};
use crate::session::{Grant, Retain};
use crate::topic::{self, Filter, Options, RetainHandling, Scan};
use crate::wire::{DecodeError, Reason, SubscribeEntry, Version};

use super::parcel::{Found, Parcel, Query};
use super::{Core, Timer};

/// Milliseconds between sweeps for expired retained messages.
pub(super) const SWEEP_MS: Millis = 1000;

/// Retained messages looked at in one sweep.
const SWEEP_VISITS: usize = 10_000;

/// Topics of live messages that a cursor remembers. Beyond it a client may get a message twice, live and retained.
const LIVE_SEEN_MAX: usize = 65_536;

/// Sessions whose cursors advance in one turn.
const CURSOR_BUDGET: usize = 64;

/// Messages of a cursor that may wait in the session's queue for the client's Receive Maximum.
const CURSOR_QUEUE_MAX: usize = 16;

/// The cursors of one session.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    list: Vec<Cursor>,
    /// The session is in `cursor_work`.
    scheduled: bool,
}

/// What is retained, on its way to one subscription.
#[derive(Debug)]
struct Cursor {
    /// Of this shard's own: an answer may come when the cursor is gone and the session has others.
    id: u32,
    subscription: Key,
    filter: Box<str>,
    /// What has to be announced before it asks; see [`Core::announced_at`].
    need: u64,
    sources: Vec<Source>,
    /// Answers that are not delivered yet.
    parked: VecDeque<Message>,
    /// Fingerprints of topics of which a message published with RETAIN came since SUBSCRIBE.
    live_seen: HashSet<u64, ahash::RandomState>,
}

/// How far a cursor is at one owner.
#[derive(Debug)]
struct Source {
    owner: ShardId,
    after: Option<Box<str>>,
    state: Asking,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Asking {
    /// The next batch is to be asked for.
    Ready,
    Asked,
    Done,
}

impl Cursors {
    /// A message published with RETAIN is about to be delivered: what is parked of its topic is older.
    pub fn saw_live(&mut self, fingerprint: u64, topic: &str) {
        for cursor in &mut self.list {
            cursor.parked.retain(|message| message.topic() != topic);
            if cursor.live_seen.len() < LIVE_SEEN_MAX {
                cursor.live_seen.insert(fingerprint);
            }
        }
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
        let limits = self.limits.clone();
        // [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1] [MQTT-4.8.2-1] [MQTT-4.8.2-2]
        let Ok(filter) = topic::parse_filter(entry.filter, limits.topic_levels_max) else {
            return Ok(Err(Reason::TOPIC_FILTER_INVALID));
        };
        if filter.share.is_some() && entry.no_local {
            return Err(DecodeError::ProtocolError("No Local on a shared subscription")); // [MQTT-3.8.3-4]
        }
        let Some(slot) = self.sessions.get_mut(session) else { return Ok(Err(Reason::UNSPECIFIED_ERROR)) };
        let full = slot.subscriptions.len() >= limits.subscriptions_max as usize;
        if full && !self.router.is_subscribed(&slot.subscriptions, entry.filter) {
            self.counters().subscriptions_refused_total.add(1);
            self.log_limit(session, "it has as many subscriptions as --subscriptions-max allows");
            return Ok(Err(Reason::QUOTA_EXCEEDED));
        }
        if let Err(refusal) = self.may_subscribe(session, filter.filter) {
            return Ok(Err(refusal));
        }
        let Some(slot) = self.sessions.get_mut(session) else { return Ok(Err(Reason::UNSPECIFIED_ERROR)) };
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
        let subscribed =
            self.router.subscribe(&mut slot.subscriptions, session, entry.filter, options, identifier);
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
        let need = self.announced_at(subscribed.filter);
        // The hints come after the announcement, and only one that the others can read counts.
        if wants_retained && (need > self.announced() || self.may_be_retained(filter.filter)) {
            self.add_cursor(session, subscribed.key, &filter, need);
        }
        Ok(Ok((Reason(entry.qos as u8), need)))
    }

    /// [MQTT-3.10.4-1]
    /// The whole `$share/...` text names a shared subscription. // [U5-3.10.4-1] [U5-4.8.2-5]
    pub(super) fn unsubscribe(&mut self, session: Key, filter: &str) -> Reason {
        if topic::parse_filter(filter, self.limits.topic_levels_max).is_err() {
            return Reason::TOPIC_FILTER_INVALID;
        }
        let Some(slot) = self.sessions.get_mut(session) else { return Reason::NO_SUBSCRIPTION_EXISTED };
        match self.router.unsubscribe(&mut slot.subscriptions, filter) {
            Some(unsubscribed) => {
                if let Some(change) = unsubscribed.interest {
                    self.interest_changed(change);
                }
                Reason::SUCCESS
            }
            None => Reason::NO_SUBSCRIPTION_EXISTED,
        }
    }

    /// Whether an owner may have something that `filter` matches.
    fn may_be_retained(&self, filter: &str) -> bool {
        self.retained_hints.may_match(filter, |text| topic::fingerprint(&self.keys, text))
    }

    /// Before a message with RETAIN is stored here or leaves for its owner; the stamp with which it does.
    pub(super) fn note_retained(&self, view: &MessageView<'_>, fingerprint: u64) -> u64 {
        if !view.payload.is_empty() {
            self.retained_hints.note(view.topic, fingerprint, |level| topic::fingerprint(&self.keys, level));
        }
        if self.shards == 1 { 0 } else { self.announcements.stamp() }
    }

    fn add_cursor(&mut self, session: Key, subscription: Key, filter: &Filter<'_>, need: u64) {
        let owners = if filter.has_wildcard {
            crate::memory::ShardSet::first(self.shards)
        } else {
            crate::memory::ShardSet::EMPTY.with(topic::shard_of(&self.keys, filter.filter, self.shards))
        };
        let [a, b, c, d] = self.keys;
        self.cursors_begun = self.cursors_begun.wrapping_add(1);
        let Some(slot) = self.sessions.get_mut(session) else { return };
        let cursors = slot.cursors.get_or_insert_default();
        cursors.list.retain(|cursor| cursor.subscription != subscription);
        let id = self.cursors_begun;
        let sources = owners
            .iter()
            .map(|owner| Source { owner, after: None, state: Asking::Ready })
            .collect::<Vec<_>>();
        cursors.list.push(Cursor {
            id,
            subscription,
            filter: filter.filter.into(),
            need,
            sources,
            parked: VecDeque::new(),
            live_seen: HashSet::with_hasher(ahash::RandomState::with_seeds(a, b, c, d)),
        });
    }

    /// A SUBACK left, a client came back or has room: the cursors of its session may go on.
    pub(super) fn schedule_cursors(&mut self, session: Key) {
        if let Some(cursors) = self.sessions.get_mut(session).and_then(|slot| slot.cursors.as_mut())
            && !cursors.scheduled
        {
            cursors.scheduled = true;
            self.cursor_work.push_back(session);
        }
    }

    /// Once per turn: cursors whose clients can take more.
    pub(super) fn advance_cursors(&mut self) {
        for _ in 0..self.cursor_work.len().min(CURSOR_BUDGET) {
            let Some(session) = self.cursor_work.pop_front() else { return };
            let Some(mut cursors) = self.sessions.get_mut(session).and_then(|slot| slot.cursors.take())
            else {
                continue;
            };
            cursors.scheduled = false;
            let announced = self.announced();
            let mut again = false;
            cursors.list.retain_mut(|cursor| {
                if cursor.need <= announced && self.router.subscription(cursor.subscription).is_some() {
                    again |= self.advance(session, cursor);
                }
                let done = cursor.parked.is_empty()
                    && cursor.sources.iter().all(|source| source.state == Asking::Done);
                !done && self.router.subscription(cursor.subscription).is_some()
            });
            if let Some(slot) = self.sessions.get_mut(session)
                && !cursors.list.is_empty()
            {
                slot.cursors = Some(cursors);
                if again {
                    self.schedule_cursors(session);
                }
            }
        }
    }

    /// Delivers and asks. Returns whether there is more to do at once.
    /// What the client itself retained comes as well: No Local is about live messages. // [U5-3.8.3-3] [U5-3.8.4-3] [U5-3.3.1-4]
    fn advance(&mut self, session: Key, cursor: &mut Cursor) -> bool {
        while let Some(message) = cursor.parked.front()
            && self.can_take(session, message.cost())
            && let Some(message) = cursor.parked.pop_front()
        {
            let Some(subscription) = self.router.subscription(cursor.subscription) else { return false };
            let identifier = [subscription.identifier];
            let grant = Grant {
                qos: subscription.options.qos.min(message.qos()),
                retain: Retain::Set, // [U5-3.3.1-1]; 3.1.1: [311:MQTT-3.3.1-8]
                identifiers: if subscription.identifier == 0 { &[] } else { &identifier },
                share: None,
            };
            self.deliver_kept(session, &message, &grant);
        }
        if !cursor.parked.is_empty() {
            return false; // room_made goes on
        }
        let mut again = false;
        let (session_key, id, filter) = (session, cursor.id, &cursor.filter);
        for source in cursor.sources.iter_mut().filter(|source| source.state == Asking::Ready) {
            let query = Query {
                session: session_key,
                cursor: id,
                filter: filter.clone(),
                after: source.after.clone(),
            };
            if source.owner == self.id {
                let found = self.find_retained(query);
                source.take(found.after);
                let seen = &cursor.live_seen;
                let keys = &self.keys;
                let fresh = found.messages.into_iter();
                cursor.parked.extend(fresh.filter(|m| !seen.contains(&topic::fingerprint(keys, m.topic()))));
                again = true;
            } else {
                source.state = Asking::Asked;
                self.push(source.owner, Parcel::Query(Box::new(query)));
            }
        }
        again
    }

    /// Whether the session's client is there and takes a message of `cost` bytes without anything being dropped for it:
    /// the limits of queue and send buffer are for live messages, a cursor waits.
    fn can_take(&self, session: Key, cost: usize) -> bool {
        let Some(slot) = self.sessions.get(session) else { return false };
        let Some(connection) = slot.connection.and_then(|key| self.connections.get(key)) else {
            return false;
        };
        let max = self.limits.send_buffer_bytes_max;
        let (room, max_bytes) = (connection.send_room(max), max as usize);
        connection.live().is_some()
            && (room >= max_bytes || (room > max_bytes / 2 && room >= cost))
            && slot.session.queue_len() < CURSOR_QUEUE_MAX
            && slot.session.queue_takes(cost, &self.limits)
    }

    pub(super) fn query_arrived(&mut self, from: ShardId, query: Query) {
        let found = self.find_retained(query);
        self.push(from, Parcel::Retained(Box::new(found)));
    }

    fn find_retained(&self, query: Query) -> Found {
        let mut messages = Vec::new();
        let now = self.now;
        let (batch, visits) = (self.options.retained_batch, self.options.retained_visits);
        let scan = self.retained.scan(&query.filter, query.after.as_deref(), batch, visits, |message| {
            if message.expires_at() > now {
                messages.push(message.clone()); // [U5-3.3.1-3]
            }
        });
        let after = match scan {
            Scan::Done => None,
            Scan::More { after } => Some(after),
        };
        Found { session: query.session, cursor: query.cursor, messages, after }
    }

    pub(super) fn found_arrived(&mut self, from: ShardId, found: Found) {
        let keys = self.keys;
        let Some(cursors) = self.sessions.get_mut(found.session).and_then(|slot| slot.cursors.as_mut())
        else {
            return;
        };
        let Some(cursor) = cursors.list.iter_mut().find(|cursor| cursor.id == found.cursor) else { return };
        let Some(source) = cursor.sources.iter_mut().find(|source| source.owner == from) else { return };
        source.take(found.after);
        let seen = &cursor.live_seen;
        let fresh = found.messages.into_iter();
        cursor
            .parked
            .extend(fresh.filter(|message| !seen.contains(&topic::fingerprint(&keys, message.topic()))));
        self.schedule_cursors(found.session);
    }

    /// Keeps or clears the retained message of a topic that this shard owns.
    /// [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-8]
    /// Whatever its QoS. // [U5-3.3.1-2]; 3.1.1: [MQTT-3.3.1-7]
    pub(super) fn store_retained(&mut self, view: &MessageView<'_>) {
        debug_assert!(view.retain);
        if view.payload.is_empty() {
            if let Some(old) = self.retained.remove(view.topic) {
                self.budget.release(Class::Retained, old.cost());
            }
            return;
        }
        let cost = view.cost();
        let old = self.retained.get(view.topic).map(Message::cost);
        if old.is_none() && self.retained_in_all() >= self.limits.retained_messages_max {
            self.note_not_retained();
            return;
        }
        // The old value goes, so the difference is enough: near the limit a topic can still change.
        if !self.budget.charge(Class::Retained, cost.saturating_sub(old.unwrap_or(0))) {
            // The old value would be wrong now: better none than a stale one.
            if let Some(old) = self.retained.remove(view.topic) {
                self.budget.release(Class::Retained, old.cost());
            }
            self.note_not_retained();
            return;
        }
        if let Some(old) = self.retained.insert(view.to_message()) {
            self.budget.release(Class::Retained, old.cost().saturating_sub(cost));
        }
    }

    fn retained_in_all(&self) -> u64 {
        let here = self.counters().retained_messages.get();
        crate::metrics::sum(&self.counters, |shard| &shard.retained_messages) - here
            + self.retained.len() as u64
    }

    pub(super) fn sweep_due(&mut self) {
        let now = self.now;
        let sweep = self.retained.expire(now, SWEEP_VISITS);
        self.budget.release(Class::Retained, sweep.bytes);
        self.timers.set(now + SWEEP_MS, Timer::Sweep.pack());
        self.report_losses();
    }
}

impl Source {
    /// An answer came: the next batch begins after `after`, or there is none.
    fn take(&mut self, after: Option<Box<str>>) {
        self.state = if after.is_some() { Asking::Ready } else { Asking::Done };
        self.after = after;
    }
}
