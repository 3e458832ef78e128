//! SUBSCRIBE and UNSUBSCRIBE, in slices.
//!
//! A packet may name as many Topic Filters as its size allows, and each costs a look at tree, rights and log. So a turn acts
//! upon [`FILTERS_IN_SLICE`] of one packet. What is left waits at the front of its connection's input, which is not parsed
//! meanwhile, and goes on in the next turns, [`SLICES_IN_TURN`] packets in each. The answer comes at the end.

use std::collections::VecDeque;

use crate::memory::{Class, Key};
use crate::topic::{self, Options, RetainHandling, Router};
use crate::wire::{
    self, DecodeError, Reason, Subscribe, SubscribeEntry, SubscribeFilters, Unsubscribe, UnsubscribeFilters,
    Version,
};

use super::Core;
use super::cursors::NotFrom;
use super::events;
use super::ingress::{Handled, Pressure};
use super::losses::Denied;
use super::order::Heard;
use super::replies::Reply;
use super::waits::{Blocked, Wait};

/// Filters of one packet that a turn acts upon.
pub(super) const FILTERS_IN_SLICE: usize = 256;
/// Packets that are gone on with in one turn.
pub(super) const SLICES_IN_TURN: usize = 4;

/// A packet whose filters were acted upon in part.
#[derive(Debug)]
pub(super) struct Sliced {
    asks: Asks,
    packet_id: u16,
    packet_len: usize,
    /// Bytes of the filters that are left, at its end; and how many they are.
    bytes_left: usize,
    left: u32,
    /// Of those before.
    reasons: Vec<Reason>,
}

#[derive(Debug)]
enum Asks {
    /// `need` is what has to be announced before the SUBACK.
    Subscribe {
        identifier: u32,
        need: u64,
    },
    Unsubscribe,
}

/// Connections whose packets are sliced, in turn.
pub(super) type Line = VecDeque<Key>;

impl Core {
    /// [MQTT-3.8.4-1] [MQTT-3.8.4-5] [MQTT-3.8.4-6]
    /// [MQTT-2.2.1-6] [MQTT-3.8.4-2] [MQTT-3.8.4-7]; 3.1.1: [MQTT-2.3.1-7] [MQTT-3.8.4-2]
    /// A refused filter is a code in the SUBACK and touches nothing else. // [U5-3.8.4-4] [U5-4.13-4]; 3.1.1: [U311-3.9.3-1]
    pub(super) fn handle_subscribe(
        &mut self,
        key: Key,
        version: Version,
        subscribe: &Subscribe<'_>,
        packet_len: usize,
        pressure: Pressure,
    ) -> Result<Handled, DecodeError> {
        let sliced = Sliced {
            asks: Asks::Subscribe { identifier: subscribe.identifier, need: 0 },
            packet_id: subscribe.packet_id,
            packet_len,
            bytes_left: 0,
            left: 0,
            reasons: Vec::with_capacity(subscribe.filters.len()),
        };
        self.subscribe_slice(key, version, subscribe.filters, sliced, slice(pressure))
    }

    /// [MQTT-3.10.4-1] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6]
    /// Only the subscription goes: what is queued or in flight is still delivered. // [MQTT-3.10.4-2] [MQTT-3.10.4-3]
    /// [U5-3.11.3-1]; 3.1.1: [MQTT-3.10.4-2] [MQTT-3.10.4-3]
    pub(super) fn handle_unsubscribe(
        &mut self,
        key: Key,
        version: Version,
        unsubscribe: &Unsubscribe<'_>,
        packet_len: usize,
        pressure: Pressure,
    ) -> Result<Handled, DecodeError> {
        let sliced = Sliced {
            asks: Asks::Unsubscribe,
            packet_id: unsubscribe.packet_id,
            packet_len,
            bytes_left: 0,
            left: 0,
            reasons: Vec::with_capacity(unsubscribe.filters.len()),
        };
        Ok(self.unsubscribe_slice(key, version, unsubscribe.filters, sliced, slice(pressure)))
    }

    fn subscribe_slice(
        &mut self,
        key: Key,
        version: Version,
        mut filters: SubscribeFilters<'_>,
        mut sliced: Sliced,
        max: usize,
    ) -> Result<Handled, DecodeError> {
        let Some(session) =
            self.local.clients.connections.get(key).and_then(|connection| connection.session())
        else {
            return Ok(Handled::Done);
        };
        let Asks::Subscribe { identifier, mut need } = sliced.asks else { return Ok(Handled::Done) };
        for entry in filters.by_ref().take(max) {
            let reason = match self.subscribe(session, version, &entry, identifier)? {
                Ok((granted, sequence)) => {
                    need = need.max(sequence);
                    granted
                }
                Err(refusal) => refusal,
            };
            sliced.reasons.push(reason);
        }
        if filters.len() == 0 {
            let mut reply = Vec::new();
            wire::encode_suback(&mut reply, version, sliced.packet_id, &sliced.reasons);
            self.suback(key, session, need, reply.into());
            return Ok(Handled::Done);
        }
        sliced.asks = Asks::Subscribe { identifier, need };
        (sliced.bytes_left, sliced.left) = (filters.bytes_len(), filters.len() as u32);
        Ok(Handled::Blocked(Blocked::Filters(sliced)))
    }

    fn unsubscribe_slice(
        &mut self,
        key: Key,
        version: Version,
        mut filters: UnsubscribeFilters<'_>,
        mut sliced: Sliced,
        max: usize,
    ) -> Handled {
        let Some(session) =
            self.local.clients.connections.get(key).and_then(|connection| connection.session())
        else {
            return Handled::Done;
        };
        for filter in filters.by_ref().take(max) {
            sliced.reasons.push(self.unsubscribe(session, filter));
        }
        if filters.len() == 0 {
            let mut packet = Vec::new();
            wire::encode_unsuback(&mut packet, version, sliced.packet_id, &sliced.reasons);
            let wait = self.on_disk_if_kept(session);
            self.reply(key, Reply::Packet(packet.into()), wait);
            return Handled::Done;
        }
        (sliced.bytes_left, sliced.left) = (filters.bytes_len(), filters.len() as u32);
        Handled::Blocked(Blocked::Filters(sliced))
    }

    /// Goes on with sliced packets, in turn.
    pub(super) fn advance_filters(&mut self, heard: Heard<'_>) {
        for _ in 0..self.local.clients.filters.len().min(SLICES_IN_TURN) {
            let Some(key) = self.local.clients.filters.pop_front() else { return };
            let Some(connection) = self.local.clients.connections.get_mut(key) else { continue };
            let Some(live) = connection.live_mut() else { continue };
            let version = live.link.version;
            // Who is taken over has its last bytes parsed anew, this packet with them.
            if !matches!(live.blocked(), Some(Blocked::Filters(_))) {
                continue;
            }
            let Some(Blocked::Filters(sliced)) = live.unblock() else { continue };
            let bytes = std::mem::take(&mut connection.partial);
            let packet_len = sliced.packet_len;
            let outcome = self.next_slice(key, version, sliced, &bytes);
            let Some(connection) = self.local.clients.connections.get_mut(key) else { continue };
            if connection.is_closing() {
                continue;
            }
            connection.partial = bytes;
            match outcome {
                Ok(Handled::Blocked(blocked)) => self.pause(key, blocked),
                Ok(Handled::Done) => {
                    connection.partial.drain(..packet_len);
                    self.local.env.counters().packets_received_total.add(1);
                    self.resume(key, heard);
                }
                Err(error) => self.local.clients.refuse(key, error, &mut self.local.env),
            }
            self.settle(heard);
        }
    }

    fn next_slice(
        &mut self,
        key: Key,
        version: Version,
        sliced: Sliced,
        input: &[u8],
    ) -> Result<Handled, DecodeError> {
        let left = sliced.left;
        let Some(rest) = input.get(sliced.packet_len - sliced.bytes_left..sliced.packet_len) else {
            return Ok(Handled::Done);
        };
        match sliced.asks {
            Asks::Subscribe { .. } => {
                let filters = SubscribeFilters::of_rest(version, rest, left);
                self.subscribe_slice(key, version, filters, sliced, FILTERS_IN_SLICE)
            }
            Asks::Unsubscribe => {
                let filters = UnsubscribeFilters::of_rest(rest, left);
                Ok(self.unsubscribe_slice(key, version, filters, sliced, FILTERS_IN_SLICE))
            }
        }
    }

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
        let Ok(filter) = topic::parse_filter(entry.filter, self.local.env.limits.topic_levels_max) else {
            return Ok(Err(Reason::TOPIC_FILTER_INVALID));
        };
        if filter.share.is_some() && entry.no_local {
            return Err(DecodeError::ProtocolError("No Local on a shared subscription")); // [MQTT-3.8.3-4]
        }
        let Some(slot) = self.local.sessions.get(session) else {
            return Ok(Err(Reason::UNSPECIFIED_ERROR));
        };
        let full = slot.subscriptions.len() >= self.local.env.limits.subscriptions_max as usize;
        let fits = self.local.env.budget.has_room(Class::Subscription, Router::cost_at_most(entry.filter));
        let no_disk = self.exchange.disk.is_full && slot.is_kept;
        if (full || !fits || no_disk)
            && !self.local.sessions.router.is_subscribed(&slot.subscriptions, entry.filter)
        {
            self.local.env.counters().subscriptions_refused_total.add(1);
            let why = match full {
                _ if no_disk => "the data directory is full; --data-max bounds it",
                true => "it has as many subscriptions as --subscriptions-max allows",
                false => "the memory for subscriptions is used up; --memory-max bounds it",
            };
            if let Some(slot) = self.local.sessions.get(session)
                && let Some(connection) =
                    slot.connection.and_then(|key| self.local.clients.connections.get(key))
            {
                events::limit_reached(connection, slot, why);
            }
            return Ok(Err(Reason::QUOTA_EXCEEDED));
        }
        if let Err(refusal) = self.local.sessions.may_subscribe(session, filter.filter, &mut self.local.env) {
            self.local.log_denied(session, Denied::Subscribe, entry.filter, 1);
            return Ok(Err(refusal));
        }
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
        let Some(subscribed) =
            self.local.sessions.subscribe(session, entry.filter, options, identifier, &mut self.local.env)
        else {
            return Ok(Err(Reason::UNSPECIFIED_ERROR));
        };
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
        self.local.sessions.charge_topics(&mut self.local.env);
        let need = self.exchange.announced_at(subscribed.filter);
        // The hints come after the announcement, and only one that the others can read counts.
        if wants_retained
            && (!Wait::Announced(need).is_over(&self.exchange)
                || self.retained.may_match(filter.filter, &self.local.env))
        {
            let not_from = if options.no_local { NotFrom::Itself } else { NotFrom::Nobody };
            self.local.sessions.add_cursor(session, subscribed.key, need, not_from, &self.local.env);
        } else if let Some(cursors) =
            self.local.sessions.arena.get_mut(session).and_then(|slot| slot.cursors.as_mut())
        {
            cursors.replaced(subscribed.key);
        }
        Ok(Ok((Reason(entry.qos as u8), need)))
    }

    /// [MQTT-3.10.4-1]
    /// The whole `$share/...` text names a shared subscription. // [U5-3.10.4-1] [U5-4.8.2-5]
    pub(super) fn unsubscribe(&mut self, session: Key, filter: &str) -> Reason {
        if topic::parse_filter(filter, self.local.env.limits.topic_levels_max).is_err() {
            return Reason::TOPIC_FILTER_INVALID;
        }
        match self.local.sessions.unsubscribe(session, filter, &mut self.local.env) {
            Some(unsubscribed) => {
                if let Some(change) = unsubscribed.interest {
                    self.interest_changed(change);
                }
                self.local.sessions.charge_topics(&mut self.local.env);
                Reason::SUCCESS
            }
            None => Reason::NO_SUBSCRIPTION_EXISTED,
        }
    }
}

/// The last bytes of a connection are acted upon at once.
fn slice(pressure: Pressure) -> usize {
    match pressure {
        Pressure::Respect => FILTERS_IN_SLICE,
        Pressure::Ignore => usize::MAX,
    }
}
