//! A batch of messages to the subscriptions of this shard, and what becomes of each message at each
//! of them.
//!
//! A batch of one goes from subscription to subscription. Of a batch of several each receiver first
//! gets as many as it can be sent at once in the form in which they came. Then the receivers that
//! cannot have all of them so get the rest message by message: they take other forms, their quota
//! or their socket is full, they are away, or they must not have them.

use crate::limits::Limits;
use crate::memory::{Key, Message, MessageView};
use crate::session::{
    Batch, Cx, Delivered, DropReason, Drops, Entry, Fanout, Grant, Link, More, Retain, Session, Share,
    Variants, Wire,
};
use crate::topic::{Repeats, Route, Subscription};
use crate::wire::{Qos, Version};

use super::connection::Connection;
use super::env::Env;
use super::local::Local;
use super::slots::Slot;

/// Memory that is reused from batch to batch.
#[derive(Default)]
pub(super) struct Scratch {
    /// A box, so that lending it moves a pointer.
    pub variants: Option<Box<Variants>>,
    pub properties: Vec<u8>,
    pub entries: Vec<Entry>,
    identifiers: Vec<u32>,
    left: Vec<(Receiver, usize)>,
    shared: Vec<Message>,
}

impl Scratch {
    /// Elements of each list that memory is kept for.
    const LEN_MAX: usize = 4096;

    pub fn emptied<T>(mut list: Vec<T>) -> Vec<T> {
        list.clear();
        list.shrink_to(Self::LEN_MAX);
        list
    }
}

/// What one session gets: its matching subscriptions, merged.
#[derive(Copy, Clone)]
pub(super) struct Merged {
    pub qos: Qos,
    pub retain: Retain,
}

/// Who gets a message by one subscription, and how.
#[derive(Copy, Clone, Debug)]
pub(super) struct Receiver {
    pub session: Key,
    pub subscription: Key,
    pub qos: Qos,
    retain: Retain,
    /// 0 is none.
    identifier: [u32; 1],
}

impl Receiver {
    #[inline]
    pub fn grant(&self) -> Grant<'_> {
        let identifiers: &[u32] = if self.identifier == [0] { &[] } else { &self.identifier };
        Grant { qos: self.qos, retain: self.retain, identifiers, share: Share::No }
    }
}

impl Env {
    /// PUBLISH packets that are in outboxes, and their payloads.
    #[inline]
    pub(super) fn count_sent(&self, packets: usize, payload_bytes: u64) {
        let counters = self.counters();
        counters.publish_sent_total.add(packets as u64);
        counters.publish_bytes_sent_total.add(payload_bytes);
        counters.packets_sent_total.add(packets as u64);
    }
}

impl Local {
    /// Delivers to every session with an ordinary subscription in `route`, once each: at the highest QoS of its
    /// matching subscriptions and with all their identifiers. // [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4]
    /// 3.1.1: [311:MQTT-3.3.5-1]. `fanout` is that of the first message. Returns whether anybody was there.
    /// [MQTT-3.3.2-3] [U5-3.3.4-4] [U5-3.8.4-6]; 3.1.1: [MQTT-3.3.2-3]
    pub(super) fn deliver_ordinary<'a>(
        &mut self,
        route: &Route,
        batch: &Batch<'a>,
        fanout: &mut Fanout<'a>,
    ) -> bool {
        let (reached, dead) = match (route.repeats, batch.count()) {
            (Repeats::Never, 1) => self.deliver_each(route, fanout),
            (Repeats::Never, _) => self.deliver_several(route, batch, fanout),
            (Repeats::Sometimes, 1) => self.deliver_merged(route, fanout),
            (Repeats::Sometimes, count) => (0..count).fold((false, 0), |_, at| {
                batch.turn_to(at, None, fanout);
                self.deliver_merged(route, fanout)
            }),
        };
        if dead > 0 {
            // Removals do not outdate a cached route; one that is mostly dead is made anew.
            self.sessions.router.report_stale(fanout.message.topic, route, dead);
        }
        reached
    }

    /// No session has two of the subscriptions. Returns whether anybody was there, and how many keys were stale.
    fn deliver_each(&mut self, route: &Route, fanout: &mut Fanout<'_>) -> (bool, usize) {
        let mut dead = 0;
        let only = route.groups.is_empty() && route.remote.is_empty();
        for (at, key) in route.local.iter().enumerate() {
            let Some(subscription) = self.sessions.router.subscription(*key) else {
                dead += 1;
                continue;
            };
            if only && at + 1 == route.local.len() {
                fanout.comes_to_its_end();
            }
            let session = subscription.session;
            if let Some(receiver) = self.receiver(*key, subscription, &fanout.message) {
                let matched = std::slice::from_ref(key);
                self.deliver(session, fanout, &receiver.grant(), matched);
            } else if fanout.message.retain {
                self.sessions.note_hidden(session, &fanout.message, &self.env);
            }
        }
        (dead < route.local.len(), dead)
    }

    /// The same of a batch of several. What more than one receiver keeps is kept once.
    fn deliver_several<'a>(
        &mut self,
        route: &Route,
        batch: &Batch<'a>,
        fanout: &mut Fanout<'a>,
    ) -> (bool, usize) {
        let mut dead = 0;
        let several = route.local.len() > 1;
        let mut left = std::mem::take(&mut self.scratch.left);
        let mut shared = if several { std::mem::take(&mut self.scratch.shared) } else { Vec::new() };
        for key in &route.local {
            let Some(subscription) = self.sessions.router.subscription(*key) else {
                dead += 1;
                continue;
            };
            if let Some(receiver) = self.receiver(*key, subscription, &batch.message) {
                let sent = self.deliver_front(&receiver, batch, several.then_some(&mut shared));
                if sent < batch.count() {
                    left.push((receiver, sent));
                }
            }
        }
        if !left.is_empty() {
            for at in 0..batch.count() {
                batch.turn_to(at, shared.get(at), fanout);
                for (place, (receiver, from)) in left.iter().enumerate() {
                    if place + 1 == left.len() {
                        fanout.comes_to_its_end();
                    }
                    if *from <= at {
                        let matched = std::slice::from_ref(&receiver.subscription);
                        self.deliver(receiver.session, fanout, &receiver.grant(), matched);
                    }
                }
            }
        }
        self.scratch.left = if left.is_empty() { left } else { Scratch::emptied(left) };
        if several {
            self.scratch.shared = Scratch::emptied(shared);
        }
        (dead < route.local.len(), dead)
    }

    /// Sends one receiver the first messages of a batch of several, as many as it can be sent at
    /// once in the form in which they came. Returns how many.
    fn deliver_front(
        &mut self,
        receiver: &Receiver,
        batch: &Batch<'_>,
        shared: Option<&mut Vec<Message>>,
    ) -> usize {
        if !self.sessions.may_receive(receiver.session, batch.message.topic, &mut self.env) {
            return 0;
        }
        let Some(slot) = self.sessions.arena.get_mut(receiver.session) else { return 0 };
        // What it gets may have to wait behind retained messages, or is written down message by message.
        if slot.cursors.is_some() || slot.is_kept && receiver.qos != Qos::AtMostOnce {
            return 0;
        }
        let Some(key) = slot.connection else { return 0 };
        let Some(connection) = self.clients.connections.get_mut(key) else { return 0 };
        let wire = Self::wire(connection, &mut self.clients.spare_buffers, &self.env.limits);
        let Some(mut wire) = wire else { return 0 };
        let mut drops = Drops::default();
        let mut cx = self.env.cx(&mut drops, &mut self.sessions.spares, false);
        let sent = slot.session.deliver_front(&mut wire, batch, shared, &receiver.grant(), &mut cx);
        if sent == 0 {
            // A connection with nothing to send keeps no buffer.
            let buffer = connection.outbox.reclaim();
            self.clients.recycle(buffer);
            return 0;
        }
        if !connection.dirty {
            connection.dirty = true;
            self.clients.dirty.push(key);
        }
        self.env.count_sent(sent, batch.payload_bytes(sent));
        sent
    }

    #[inline]
    fn receiver(&self, key: Key, subscription: &Subscription, message: &MessageView<'_>) -> Option<Receiver> {
        let Merged { qos, retain } = self.grant(subscription, message)?;
        let Subscription { session, identifier, .. } = *subscription;
        Some(Receiver { session, subscription: key, qos, retain, identifier: [identifier] })
    }

    /// Subscriptions of one session, which are next to each other, become one delivery. Returns the same.
    fn deliver_merged(&mut self, route: &Route, fanout: &mut Fanout<'_>) -> (bool, usize) {
        let mut identifiers = std::mem::take(&mut self.scratch.identifiers);
        let mut reached = false;
        let mut dead = 0;
        let mut rest = &route.local[..];
        while let Some((first, others)) = rest.split_first() {
            rest = others;
            let Some(subscription) = self.sessions.router.subscription(*first) else {
                dead += 1;
                continue;
            };
            let session = subscription.session;
            let from = route.local.len() - rest.len() - 1;
            identifiers.clear();
            let mut merged = None;
            self.merge(subscription, fanout, &mut merged, &mut identifiers);
            while let Some((next, others)) = rest.split_first() {
                match self.sessions.router.subscription(*next) {
                    Some(subscription) if subscription.session == session => {
                        self.merge(subscription, fanout, &mut merged, &mut identifiers);
                    }
                    Some(_) => break,
                    None => dead += 1,
                }
                rest = others;
            }
            reached = true;
            if let Some(Merged { qos, retain }) = merged {
                let grant = Grant { qos, retain, identifiers: &identifiers, share: Share::No };
                let matched = &route.local[from..route.local.len() - rest.len()];
                self.deliver(session, fanout, &grant, matched);
            } else if fanout.message.retain {
                self.sessions.note_hidden(session, &fanout.message, &self.env);
            }
        }
        self.scratch.identifiers = identifiers;
        (reached, dead)
    }

    /// What one subscription gives its session of `message`; nothing to a publisher that asked for No Local, unless it came
    /// back with 3.x, which has no such option.
    #[inline]
    pub(super) fn grant(&self, subscription: &Subscription, message: &MessageView<'_>) -> Option<Merged> {
        let options = subscription.options;
        if options.no_local
            && self
                .sessions
                .arena
                .get(subscription.session)
                .is_some_and(|slot| slot.client_hash == message.publisher && !self.is_of_3_x(slot))
        {
            return None; // [MQTT-3.8.3-3]
        }
        // [MQTT-3.8.4-8] [MQTT-3.3.1-12] [MQTT-3.3.1-13]; 3.1.1: [311:MQTT-3.3.1-9] [311:MQTT-3.8.4-6]
        let qos = options.qos.min(message.qos);
        Some(Merged { qos, retain: as_published(options.retain_as_published && message.retain) })
    }

    /// Whether it is connected with a version that knows no Subscription Options.
    fn is_of_3_x(&self, slot: &Slot) -> bool {
        let version = slot.connection.and_then(|key| self.clients.connections.get(key)?.version());
        version.is_some_and(|version| version != Version::V5)
    }

    fn merge(
        &self,
        subscription: &Subscription,
        fanout: &Fanout<'_>,
        merged: &mut Option<Merged>,
        identifiers: &mut Vec<u32>,
    ) {
        let Some(Merged { qos, retain }) = self.grant(subscription, &fanout.message) else { return };
        if subscription.identifier != 0 {
            identifiers.push(subscription.identifier);
        }
        *merged = Some(match *merged {
            None => Merged { qos, retain },
            Some(other) => {
                let set = retain == Retain::AsPublished || other.retain == Retain::AsPublished;
                Merged { qos: qos.max(other.qos), retain: as_published(set) }
            }
        });
    }

    /// Delivers to one session. `matched` are its subscriptions that a live message matched; there are none for a message of
    /// a share group and for one that was kept.
    #[inline]
    pub(super) fn deliver(
        &mut self,
        session: Key,
        fanout: &mut Fanout<'_>,
        grant: &Grant<'_>,
        matched: &[Key],
    ) {
        let _ = self.offer(session, fanout, grant, matched);
    }

    /// The same, and what became of it; `None` if the session must not or need not have it, or has it later.
    pub(super) fn offer(
        &mut self,
        session: Key,
        fanout: &mut Fanout<'_>,
        grant: &Grant<'_>,
        matched: &[Key],
    ) -> Option<Delivered> {
        if !self.sessions.may_receive(session, fanout.message.topic, &mut self.env) {
            self.env.counters().dropped_denied_total.add(1);
            return None;
        }
        let mut origin = None;
        if fanout.message.origin != 0 {
            origin = self.origin(session, &fanout.message, grant, matched);
            if self.has_taken(session, origin, &fanout.message) {
                return None;
            }
        }
        let mut slot = self.sessions.arena.get_mut(session)?;
        if fanout.message.is_expired(self.env.now) {
            self.env.counters().dropped_expired_total.add(1); // [MQTT-3.3.2-5]
            return None;
        }
        if slot.cursors.is_some() && !matched.is_empty() {
            if self.goes_behind(session, fanout, grant, matched) {
                self.note_taken(session, origin, Delivered::Queued);
                return None;
            }
            slot = self.sessions.arena.get_mut(session)?;
        }
        let mut drops = Drops::default();
        let is_kept = slot.is_kept;
        let mut cx = self.env.cx(&mut drops, &mut self.sessions.spares, is_kept);
        let connection = slot.connection;
        let wired = connection.and_then(|key| Some((key, self.clients.connections.get_mut(key)?)));
        let delivered = match wired {
            Some((key, connection)) => {
                let wire = Self::wire(connection, &mut self.clients.spare_buffers, cx.limits);
                let delivered = slot.session.deliver(wire, fanout, grant, &mut cx);
                if delivered == Delivered::Sent {
                    if !connection.dirty {
                        connection.dirty = true;
                        self.clients.dirty.push(key);
                    }
                } else {
                    // A connection with nothing to send keeps no buffer.
                    let buffer = connection.outbox.reclaim();
                    self.clients.recycle(buffer);
                }
                delivered
            }
            None => slot.session.deliver(None, fanout, grant, &mut cx),
        };
        if is_kept {
            let written = &mut fanout.written;
            self.sessions.keep_delivered(session, &fanout.message, written, grant, &mut self.env);
            self.note_taken(session, origin, delivered);
            if let (Some(key), Some(keep)) = (connection, &mut self.env.keep)
                && delivered == Delivered::Queued
                && grant.qos == Qos::ExactlyOnce
                && keep.beginning.last() != Some(&key)
            {
                keep.beginning.push(key);
            }
        }
        let live = fanout.message.retain && grant.share == Share::No;
        if delivered == Delivered::Sent && drops == Drops::default() && !live {
            self.env.count_sent(1, fanout.message.payload.len() as u64);
            return Some(delivered);
        }
        Some(self.offered(session, fanout, grant, delivered, drops))
    }

    /// What else follows from what became of a message.
    #[inline(never)] // Else what is sent at once has to save registers for it.
    fn offered(
        &mut self,
        session: Key,
        fanout: &mut Fanout<'_>,
        grant: &Grant<'_>,
        delivered: Delivered,
        drops: Drops,
    ) -> Delivered {
        let delivered = match delivered {
            Delivered::Dropped(DropReason::SendBuffer) => self.deliver_lent(session, fanout, grant),
            delivered => delivered,
        };
        if drops != Drops::default() {
            self.env.count_drops(drops);
            self.sessions.note_drops(session, drops);
        }
        if fanout.message.retain && grant.share == Share::No {
            self.sessions.note_live(session, &fanout.message, delivered, &self.env);
        }
        self.sessions.count_delivered(session, delivered, fanout.message.payload.len(), &self.env);
        delivered
    }

    /// Where a live connection is written to.
    #[inline]
    pub(super) fn wire<'a>(
        connection: &'a mut Connection,
        spare_buffers: &mut Vec<Vec<u8>>,
        limits: &Limits,
    ) -> Option<Wire<'a>> {
        connection.outbox.provide(spare_buffers);
        let send_room = connection.send_room(limits.send_buffer_bytes_max);
        let Connection { phase, outbox, .. } = connection;
        match phase {
            super::connection::Phase::Live(live) => Some(Wire { link: &mut live.link, outbox, send_room }),
            _ => None,
        }
    }

    /// Runs `f`, which frees quota, on the session of a live connection; then what waited for it goes on.
    pub(super) fn acknowledged(&mut self, key: Key, f: impl FnOnce(&mut Session, &mut Link, &mut Cx<'_>)) {
        let Some(live) = self.clients.connections.get_mut(key).and_then(|connection| connection.live_mut())
        else {
            return;
        };
        let Some(slot) = self.sessions.arena.get_mut(live.session) else { return };
        let mut drops = Drops::default();
        let session = live.session;
        let mut cx = self.env.cx(&mut drops, &mut self.sessions.spares, slot.is_kept);
        f(&mut slot.session, &mut live.link, &mut cx);
        let waits = slot.session.is_waiting() || slot.cursors.is_some();
        self.sessions.keep(session, &mut self.env);
        self.env.count_drops(drops);
        if waits {
            self.room_made(key);
        }
    }

    /// Runs `f` on a session that is connected, and where its connection is written to. Returns the connection too.
    pub(super) fn with_wire<R>(
        &mut self,
        session: Key,
        f: impl FnOnce(&mut Session, Wire<'_>, &mut Cx<'_>) -> R,
    ) -> Option<(Key, R)> {
        let slot = self.sessions.arena.get_mut(session)?;
        let key = slot.connection?;
        let connection = self.clients.connections.get_mut(key)?;
        let wire = Self::wire(connection, &mut self.clients.spare_buffers, &self.env.limits)?;
        let mut drops = Drops::default();
        let mut cx = self.env.cx(&mut drops, &mut self.sessions.spares, slot.is_kept);
        let result = f(&mut slot.session, wire, &mut cx);
        self.sessions.keep(session, &mut self.env);
        if drops != Drops::default() {
            self.env.count_drops(drops);
            self.sessions.note_drops(session, drops);
        }
        Some((key, result))
    }

    /// Runs `f` on the session of a live connection.
    pub(super) fn with_session<R>(
        &mut self,
        key: Key,
        f: impl FnOnce(&mut Session, &mut Link, &mut Cx<'_>) -> R,
    ) -> Option<R> {
        let live = self.clients.connections.get_mut(key)?.live_mut()?;
        let slot = self.sessions.arena.get_mut(live.session)?;
        let mut drops = Drops::default();
        let session = live.session;
        let mut cx = self.env.cx(&mut drops, &mut self.sessions.spares, slot.is_kept);
        let result = f(&mut slot.session, &mut live.link, &mut cx);
        self.sessions.keep(session, &mut self.env);
        self.env.count_drops(drops);
        Some(result)
    }

    /// The connection can take more, by an acknowledgement or because bytes were sent: what waits for it goes on.
    pub(super) fn room_made(&mut self, key: Key) {
        let Some(session) = self.clients.live(key).map(|live| live.session) else { return };
        self.sessions.check_waiting(session, &mut self.env);
        let Some(slot) = self.sessions.arena.get(session) else { return };
        let has_cursors = slot.cursors.is_some();
        if slot.session.is_waiting()
            && let Some((_, pumped)) = self.with_wire(session, |session, wire, cx| session.pump(wire, cx))
        {
            if let (More::Disk(commit), Some(keep)) = (pumped.more, &mut self.env.keep)
                && keep.sending.back() != Some(&(key, commit))
            {
                keep.sending.push_back((key, commit));
            }
            self.env.count_sent(pumped.published as usize, pumped.payload_bytes);
            self.env.counters().packets_sent_total.add(pumped.released.into());
            if pumped.published + pumped.released > 0 {
                self.clients.mark_dirty(key);
            } else {
                self.clients.reclaim(key);
            }
        }
        if has_cursors {
            self.sessions.schedule_cursors(session);
        }
    }

    /// Delivers a kept message.
    pub(super) fn deliver_kept(&mut self, session: Key, message: &Message, grant: &Grant<'_>) {
        let mut variants = self.scratch.variants.take().unwrap_or_default();
        let mut fanout = Fanout::of_shared(message, &mut variants);
        self.deliver(session, &mut fanout, grant, &[]);
        self.scratch.variants = Some(variants);
    }
}

pub(super) fn as_published(set: bool) -> Retain {
    if set { Retain::AsPublished } else { Retain::Clear }
}

#[cfg(test)]
mod tests {
    use super::Scratch;

    #[test]
    fn memory_for_many_receivers_is_given_back() {
        let few = Scratch::emptied(Vec::<u32>::with_capacity(100));
        assert_eq!((few.len(), few.capacity()), (0, 100));
        let many = Scratch::emptied(vec![0_u32; 1_000_000]);
        assert!(many.is_empty() && many.capacity() <= 2 * Scratch::LEN_MAX);
    }
}
