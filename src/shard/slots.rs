//! Sessions by Client Identifier: how they begin, what outlives a connection, how they end, and their wills.

use std::sync::Arc;

use crate::access::Rights;
use crate::clock::{Millis, NEVER, after_s};
use crate::memory::{Class, Key, Message, MessageView};
use crate::session::{Cx, Drops, Orphan, Session};
use crate::topic::{self, Presence, Router, SubscriptionSet};
use crate::wire::{self, Connect, Qos};

use super::aside::Aside;
use super::connection::End;
use super::cursors::Cursors;
use super::losses::Denied;
use super::waits::Fence;
use super::{Core, Timer};

/// A session and what this shard keeps with it.
pub(super) struct Slot {
    pub client_id: Box<str>,
    /// Whose it is; `None` if an anonymous client began it.
    pub user: Option<Arc<str>>,
    /// The user has shown a certificate for it, and so is in no file of users.
    pub by_certificate: bool,
    /// What the rules of the moment say about its client.
    pub rights: Rights,
    /// Keyed hash of the Client Identifier.
    pub client_hash: u64,
    pub session: Session,
    pub subscriptions: SubscriptionSet,
    /// The live connection, if any.
    pub connection: Option<Key>,
    /// When the CONNECT of the newest connection was read.
    pub connected_at: Millis,
    /// Session Expiry Interval as the client asked for.
    pub asked_expiry_s: u32,
    /// Session Expiry Interval in force.
    pub expiry_s: u32,
    /// When the session ends; [`NEVER`] while it is connected.
    pub ends_at: Millis,
    pub will: Option<Box<Will>>,
    /// Its queue was full and the policy is to end it, which is about to happen.
    pub overflowed: bool,
    /// Retained messages on their way to new subscriptions.
    pub cursors: Option<Box<Cursors>>,
    pub aside: Aside,
}

// See `Connection`: held in memory a million times.
const _: () = assert!(size_of::<Slot>() <= 168);

/// A session's record and its place in the table of Client Identifiers.
const SLOT_BYTES: usize = size_of::<Slot>() + 32;

impl Slot {
    /// Bytes charged to `Class::Session` for it; its subscriptions are charged by the router's size.
    fn cost(&self) -> usize {
        slot_cost(&self.client_id) + self.will.as_ref().map_or(0, |will| will.cost())
    }

    /// When it is looked at whether share groups wait in vain; [`NEVER`] if nothing of theirs waits.
    pub fn lag_due_at(&self) -> Millis {
        self.aside.lag().map_or(NEVER, |lag| lag.due_at)
    }

    /// When the will is due; [`NEVER`] while the session is connected, or without one.
    pub fn will_at(&self) -> Millis {
        self.will.as_ref().map_or(NEVER, |will| will.due_at)
    }
}

fn slot_cost(client_id: &str) -> usize {
    SLOT_BYTES + client_id.len()
}

/// The message that goes out when the client does not say good-bye.
/// A payload that is not what its Payload Format Indicator says goes out as it came. // [U5-3.1.3-3] [U5-3.1.3-4]
pub(super) struct Will {
    topic: Box<str>,
    properties: Box<[u8]>,
    payload: Box<[u8]>,
    qos: Qos,
    retain: bool,
    delay_s: u32,
    expiry_s: Option<u32>,
    due_at: Millis,
}

impl Will {
    /// [MQTT-3.1.3-10]: the properties keep their order.
    pub fn new(will: &wire::Will<'_>) -> Will {
        let mut properties = Vec::with_capacity(will.properties.len());
        will.properties.write_to(&mut properties);
        Will {
            topic: will.topic.into(),
            properties: properties.into(),
            payload: will.payload.into(),
            qos: will.qos,
            retain: will.retain,
            delay_s: will.delay_s,
            expiry_s: will.expiry_s,
            due_at: NEVER,
        }
    }

    fn cost(&self) -> usize {
        Will::cost_of(&self.topic, self.properties.len(), &self.payload)
    }

    fn cost_of(topic: &str, properties: usize, payload: &[u8]) -> usize {
        size_of::<Will>() + topic.len() + properties + payload.len()
    }
}

impl Core {
    /// Whether there is room for the session that this CONNECT asks for, beside what its client's session takes already.
    pub(super) fn session_fits(&mut self, connect: &Connect<'_>) -> bool {
        let session = self.session_of(connect.client_id);
        let kept = session.and_then(|session| self.sessions.arena.get(session)).map_or(0, Slot::cost);
        let will = connect.will.as_ref();
        let will = will.map_or(0, |will| Will::cost_of(will.topic, will.properties.len(), will.payload));
        let cost = slot_cost(connect.client_id) + will;
        self.env.budget.has_room(Class::Session, cost.saturating_sub(kept))
    }

    /// The will that a CONNECT brings; the session has none at that time.
    pub(super) fn set_will(&mut self, session: Key, will: Option<&wire::Will<'_>>) {
        let Some(slot) = self.sessions.arena.get_mut(session) else { return };
        debug_assert!(slot.will.is_none(), "the former will was sent or forgotten");
        if let Some(will) = will {
            let will = Box::new(Will::new(will));
            self.env.budget.charge_always(Class::Session, will.cost());
            slot.will = Some(will);
        }
    }

    fn take_will(&mut self, session: Key) -> Option<Box<Will>> {
        let will = self.sessions.arena.get_mut(session)?.will.take()?;
        self.env.budget.release(Class::Session, will.cost());
        Some(will)
    }

    /// What the router keeps is charged as it is: at each SUBSCRIBE, and where something of it may have gone.
    pub(super) fn charge_topics(&mut self) {
        let kept = self.sessions.router.kept_bytes();
        self.env.budget.recharge(Class::Subscription, self.sessions.charged_topics, kept);
        self.sessions.charged_topics = kept;
    }

    /// The session of a Client Identifier.
    pub(super) fn session_of(&self, client_id: &str) -> Option<Key> {
        let named =
            |index| self.sessions.arena.at(index).is_some_and(|(_, slot)| *slot.client_id == *client_id);
        let index = self.sessions.by_client_id.find(topic::fingerprint(&self.env.keys, client_id), named)?;
        self.sessions.arena.at(index).map(|(key, _)| key)
    }

    /// A session of its own for a Client Identifier that has none.
    pub(super) fn begin_session(&mut self, client_id: &str, client_hash: u64, user: Option<Arc<str>>) -> Key {
        let key = self.sessions.arena.insert(Slot {
            client_id: client_id.into(),
            user,
            by_certificate: false,
            rights: Rights::default(),
            client_hash,
            session: Session::default(),
            subscriptions: SubscriptionSet::default(),
            connection: None,
            connected_at: 0,
            asked_expiry_s: 0,
            expiry_s: 0,
            ends_at: NEVER,
            will: None,
            overflowed: false,
            cursors: None,
            aside: Aside::default(),
        });
        self.sessions.by_client_id.insert(client_hash, key.index);
        self.env.budget.charge_always(Class::Session, slot_cost(client_id)); // it was looked whether it fits
        key
    }

    /// The connection of a session is over: its will, its expiry, and what share groups are owed.
    /// [MQTT-3.1.2-23] [U5-3.14-1] [U5-4.1-1]; 3.1.1: [MQTT-3.1.2-5] [MQTT-4.1.0-1]
    pub(super) fn connection_ended(&mut self, session: Key, connection: Key, end: End) {
        let Some(slot) = self.sessions.arena.get_mut(session) else { return };
        if slot.connection != Some(connection) {
            return;
        }
        slot.connection = None;
        slot.aside.forget_lag();
        slot.session.connection_lost();
        if slot.cursors.is_some() {
            self.drop_behind(session);
        }
        self.env.counters[usize::from(self.env.id)].clients_connected.sub(1);
        match end {
            // [MQTT-3.14.4-3] [MQTT-3.1.2-10]
            End::Disconnected => drop(self.take_will(session)),
            // Of a session that is taken over the next connection decides, in `find_or_begin`.
            End::TakenOver | End::DisconnectedWithWill | End::Lost | End::Told | End::Refused(..) => {}
        }
        let Some(slot) = self.sessions.arena.get_mut(session) else { return };
        let (expiry_s, has_next) = (slot.expiry_s, slot.aside.has_successor());
        slot.ends_at = if expiry_s == u32::MAX { NEVER } else { after_s(self.env.now, expiry_s.into()) };
        if let Some(will) = &mut slot.will {
            will.due_at = after_s(self.env.now, will.delay_s.min(expiry_s).into()); // [U5-3.1.3-1]
        }
        let due = slot.ends_at.min(slot.will_at());

        self.set_presence(session, Presence::Offline);
        let orphans = self.take_orphans(session, |session, router, cx, out| {
            session.take_unsent_shared(cx, |member| router.subscription(member).is_some(), out);
        });
        self.redistribute(orphans);

        // A successor decides about will and session itself; else what is due now happens now.
        if has_next {
            self.vacate(session);
        } else if due <= self.env.now {
            self.session_due(session);
        } else if due != NEVER {
            self.env.set_timer(due, Timer::Session(session));
        }
    }

    /// The will or the end of a session without a connection may have come.
    pub(super) fn session_due(&mut self, session: Key) {
        let now = self.env.now;
        let Some(slot) = self.sessions.arena.get_mut(session) else { return };
        if slot.connection.is_some() || slot.aside.has_successor() {
            return;
        }
        if slot.ends_at <= now {
            if slot.expiry_s > 0 {
                self.env.counters().sessions_expired_total.add(1);
                self.log_expired(session);
            }
            return self.end_session(session);
        }
        if slot.will_at() <= now {
            self.publish_will(session);
        }
        let Some(slot) = self.sessions.arena.get_mut(session) else { return };
        let next = slot.ends_at.min(slot.will_at());
        if next != NEVER {
            self.env.set_timer(next, Timer::Session(session));
        }
    }

    /// Ends a session and everything in it; a will that was still to come goes out now. // [MQTT-4.1.0-2]
    /// Only here is state discarded, and never that of a live connection. // [MQTT-4.1.0-1] [U5-4.1-2]; 3.1.1: [MQTT-4.1.0-2]
    pub(super) fn end_session(&mut self, session: Key) {
        self.publish_will(session);
        self.report_missed(session);
        // [U5-4.8.2-6] [MQTT-4.8.2-5]
        let orphans = self.take_orphans(session, |session, _, cx, out| {
            session.take_unacked_shared(cx, out);
            session.take_unsent_shared(cx, |_| true, out);
        });
        let mut changes = Vec::new();
        let waited = self.forget_behind(session);
        let Some(slot) = self.sessions.arena.get_mut(session) else { return };
        let lost = waited + slot.session.release(&mut self.env.budget);
        self.sessions.router.drop_all(&mut slot.subscriptions, &mut changes);
        let successors = slot.aside.take_successors();
        if let Some(slot) = self.sessions.arena.remove(session) {
            self.sessions.by_client_id.remove(slot.client_hash, session.index);
            self.env.budget.release(Class::Session, slot.cost());
        }
        self.env.counters().dropped_session_end_total.add(lost);
        for change in changes {
            self.interest_changed(change);
        }
        self.charge_topics();
        self.redistribute(orphans);
        debug_assert!(successors.is_empty(), "a session with successors does not end on its own");
    }

    /// Publishes the will of a session, once. // [MQTT-3.1.2-8] [MQTT-3.1.2-10]
    pub(super) fn publish_will(&mut self, session: Key) {
        let Some(will) = self.take_will(session) else { return };
        let publisher = self.sessions.arena.get(session).map_or(0, |slot| slot.client_hash);
        if !self.may_publish(session, &will.topic) {
            self.env.counters().dropped_denied_total.add(1);
            return self.log_denied(session, Denied::Publish, &will.topic, 1);
        }
        let view = MessageView {
            topic: &will.topic,
            properties: &will.properties,
            payload: &will.payload,
            qos: will.qos,
            retain: will.retain, // [MQTT-3.1.2-14] [MQTT-3.1.2-15]
            expires_at: will.expiry_s.map_or(NEVER, |seconds| after_s(self.env.now, seconds.into())),
            publisher,
            whole: None,
        };
        // A client's will comes after its messages; those may still be on the other way (see `publish`).
        let fence = Fence::everything(&self.exchange.links, &self.exchange.waits);
        if self.exchange.waits.holds_nothing() && fence.is_reached(&self.exchange.links) {
            let _ = self.publish(&view);
        } else {
            self.exchange.waits.hold(view.to_message(), fence);
            self.await_all(); // it may be long until something else asks
        }
    }

    /// Forgets the will because the client came back in time. // [MQTT-3.1.3-9]
    pub(super) fn cancel_will(&mut self, session: Key) {
        drop(self.take_will(session));
    }

    /// Whether the will of a connection that is taken over goes out. // [U5-3.1.4-3] [U5-3.1.3-2]
    pub(super) fn will_survives_takeover(&self, session: Key) -> bool {
        self.sessions
            .arena
            .get(session)
            .is_some_and(|slot| slot.will.as_ref().is_some_and(|will| will.delay_s > 0) && slot.expiry_s > 0)
    }

    pub(super) fn set_presence(&mut self, session: Key, presence: Presence) {
        let mut changes = Vec::new();
        if let Some(slot) = self.sessions.arena.get_mut(session) {
            self.sessions.router.set_presence(&slot.subscriptions, presence, &mut changes);
        }
        for change in changes {
            self.interest_changed(change);
        }
    }

    /// Messages of shared subscriptions that the session will not finish, with their groups.
    pub(super) fn take_orphans(
        &mut self,
        session: Key,
        take: impl FnOnce(&mut Session, &Router, &mut Cx<'_>, &mut Vec<Orphan>),
    ) -> Vec<(Option<Key>, Message)> {
        let Some(slot) = self.sessions.arena.get_mut(session) else { return Vec::new() };
        let mut drops = Drops::default();
        let mut cx = context!(self, drops);
        let mut orphans = Vec::new();
        take(&mut slot.session, &self.sessions.router, &mut cx, &mut orphans);
        self.count_drops(drops);
        self.groups_of(orphans)
    }
}
