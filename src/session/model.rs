//! A session as the standard describes it, with lists and counting instead of tables and quotas kept up to date.
//!
//! What it is not: fast, or a second opinion on encoding; packets come from `testing`. `tests::random` puts it beside
//! the session.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::kept::Kept;
use super::testing::*;
use super::*;
use crate::clock::NEVER;
use crate::limits::QueueFull;
use crate::memory::MessageView;
use crate::wire::{Reason, Version};

pub(super) const PROPERTIES: [u8; 5] = [0x03, 0, 2, b'a', b'b'];

/// One message for this session.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) topic: &'static str,
    pub(super) properties: &'static [u8],
    pub(super) payload: Vec<u8>,
    pub(super) expires_at: Millis,
    pub(super) qos: Qos,
    pub(super) retain: Retain,
    pub(super) identifiers: Vec<u32>,
    pub(super) share: Share,
}

/// A delivery that has begun.
#[derive(Debug)]
struct Begun {
    packet_id: u16,
    delivery: Rc<Delivery>,
    /// The connection that the PUBLISH was sent on last.
    published_on: u32,
    /// The connection that the PUBREL was sent on last; 0 before PUBREC.
    released_on: u32,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) version: Version,
    pub(super) maxima: Maxima,
    aliases: Vec<&'static str>,
    /// PUBLISH packets of QoS 1 that are not answered yet.
    unanswered: usize,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    /// In the order of sending; what waits for PUBCOMP in the order of the PUBRECs.
    publishing: Vec<Begun>,
    releasing: Vec<Begun>,
    queue: VecDeque<Rc<Delivery>>,
    /// QoS 2 identifiers of the client, and the connection that each came on last.
    received: BTreeMap<u16, u32>,
    pub(super) connection: Option<Connection>,
    /// Of the connection, from 1.
    number: u32,
    pub(super) drops: Drops,
    /// What the session wrote; the model takes what it expects from the front.
    pub(super) written: VecDeque<Sent>,
}

/// What does not belong to the session.
#[derive(Clone, Debug)]
pub(super) struct Env {
    pub(super) now: Millis,
    pub(super) limits: Limits,
    pub(super) memory: u64,
    /// Bytes that the socket has room for.
    pub(super) room: usize,
}

/// What would be written.
enum Plan {
    Write { packet: Sent, size: usize, sets_alias: bool },
    TooLarge,
    NoRoom,
}

impl Delivery {
    fn cost(&self) -> u64 {
        let identifiers = if self.identifiers.len() > 1 { 4 * self.identifiers.len() } else { 0 };
        let message =
            Message::OVERHEAD + Message::block(self.topic.len() + self.properties.len() + self.payload.len());
        (message + identifiers + Kept::PLACE_COST) as u64
    }

    pub(super) fn view(&self) -> MessageView<'_> {
        let view = message(self.topic, &self.payload);
        MessageView { expires_at: self.expires_at, properties: self.properties, ..view }
    }

    /// The PUBLISH with its topic in full and without an identifier.
    fn publish(&self, version: Version, now: Millis) -> Publish {
        let v5 = version == Version::V5;
        let left_s = self.expires_at.saturating_sub(now).div_ceil(1000).max(1);
        Publish {
            qos: self.qos as u8,
            retain: self.retain == Retain::Set || v5 && self.retain == Retain::AsPublished,
            topic: self.topic.to_owned(),
            expiry_s: (v5 && self.expires_at != NEVER).then_some(left_s as u32),
            identifiers: if v5 { self.identifiers.clone() } else { Vec::new() },
            properties: if v5 { self.properties.to_vec() } else { Vec::new() },
            payload: self.payload.clone(),
            ..Publish::default()
        }
    }
}

impl Model {
    pub(super) fn in_flight(&self) -> usize {
        self.publishing.len() + self.releasing.len()
    }

    pub(super) fn in_flight_ids(&self) -> Vec<u16> {
        self.publishing.iter().chain(&self.releasing).map(|begun| begun.packet_id).collect()
    }

    pub(super) fn queue_len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn queue_bytes(&self) -> u64 {
        self.queue.iter().map(|delivery| delivery.cost()).sum()
    }

    pub(super) fn charged(&self) -> u64 {
        let publishing: u64 = self.publishing.iter().map(|begun| begun.delivery.cost()).sum();
        publishing + (self.releasing.len() * Kept::PLACE_COST) as u64 + self.queue_bytes()
    }

    pub(super) fn expires_at_min(&self) -> Millis {
        self.queue.iter().map(|delivery| delivery.expires_at).min().unwrap_or(NEVER)
    }

    pub(super) fn received_len(&self) -> usize {
        self.received.len()
    }

    /// What was sent on this connection and not acknowledged counts, nothing else. // [MQTT-3.3.4-9]
    pub(super) fn send_quota(&self, env: &Env) -> usize {
        let start = self.connection.as_ref().unwrap().maxima.receive.min(env.limits.send_maximum);
        let begun = self.publishing.iter().chain(&self.releasing);
        usize::from(start) - begun.filter(|begun| begun.published_on == self.number).count()
    }

    pub(super) fn receive_used(&self) -> usize {
        let unanswered = self.connection.as_ref().unwrap().unanswered;
        unanswered + self.received.values().filter(|&&number| number == self.number).count()
    }

    // Life

    pub(super) fn connect(&mut self, version: Version, maxima: Maxima) {
        self.number += 1;
        self.connection = Some(Connection { version, maxima, aliases: Vec::new(), unanswered: 0 });
    }

    pub(super) fn take_unsent_shared(&mut self) -> Vec<Rc<Delivery>> {
        let (shared, rest) =
            self.queue.drain(..).partition(|delivery| delivery.share.subscription().is_some());
        self.queue = rest;
        shared.into()
    }

    pub(super) fn take_unacked_shared(&mut self) -> Vec<Rc<Delivery>> {
        let moves = |begun: &Begun| {
            begun.delivery.share.subscription().is_some() && begun.delivery.qos == Qos::AtLeastOnce
        };
        let (shared, rest) = self.publishing.drain(..).partition(moves);
        self.publishing = rest;
        shared.into_iter().map(|begun: Begun| begun.delivery).collect()
    }

    // Client to broker

    pub(super) fn handle_publish(&mut self, qos: Qos, packet_id: u16, env: &Env) -> Ingress {
        let is_held_to_it =
            self.connection.as_ref().is_some_and(|connection| connection.version == Version::V5);
        let is_free = !is_held_to_it || self.receive_used() < usize::from(env.limits.receive_maximum);
        match (qos, self.received.get(&packet_id)) {
            (Qos::AtMostOnce, _) => Ingress::Route,
            (Qos::ExactlyOnce, Some(&number)) if number == self.number => Ingress::Repeat,
            _ if !is_free => Ingress::ReceiveMaximumExceeded,
            (Qos::AtLeastOnce, _) => {
                self.connection.as_mut().unwrap().unanswered += 1;
                Ingress::Route
            }
            (Qos::ExactlyOnce, known) => {
                let ingress = if known.is_some() { Ingress::Repeat } else { Ingress::Route };
                self.received.insert(packet_id, self.number);
                ingress
            }
        }
    }

    pub(super) fn acknowledge_publish(&mut self, qos: Qos) {
        if qos == Qos::AtLeastOnce {
            self.connection.as_mut().unwrap().unanswered -= 1;
        }
    }

    pub(super) fn refuse_publish(&mut self, qos: Qos, packet_id: u16) {
        match qos {
            Qos::AtMostOnce => {}
            Qos::AtLeastOnce => self.acknowledge_publish(qos),
            Qos::ExactlyOnce => assert!(self.received.remove(&packet_id).is_some()),
        }
    }

    pub(super) fn handle_pubrel(&mut self, packet_id: u16) -> Reason {
        match self.received.remove(&packet_id) {
            Some(_) => Reason::SUCCESS,
            None => Reason::PACKET_IDENTIFIER_NOT_FOUND,
        }
    }

    // Broker to client: acknowledgements

    pub(super) fn handle_puback(&mut self, packet_id: u16) -> Acked {
        let before = self.in_flight();
        self.publishing.retain(|b| b.packet_id != packet_id || b.delivery.qos != Qos::AtLeastOnce);
        if self.in_flight() < before { Acked::Completed } else { Acked::Ignored }
    }

    pub(super) fn handle_pubrec(&mut self, packet_id: u16, reason: Reason) -> PubrecReply {
        let is_meant = |b: &Begun| b.packet_id == packet_id && b.delivery.qos == Qos::ExactlyOnce;
        if reason.is_error() {
            self.publishing.retain(|begun| !is_meant(begun));
            self.releasing.retain(|begun| !is_meant(begun));
            return PubrecReply::None;
        }
        if let Some(at) = self.publishing.iter().position(is_meant) {
            let begun = self.publishing.remove(at);
            self.releasing.push(Begun { released_on: self.number, ..begun });
            return PubrecReply::PubRel;
        }
        match self.releasing.iter().any(is_meant) {
            true => PubrecReply::PubRel,
            false => PubrecReply::PubRelNotFound,
        }
    }

    pub(super) fn handle_pubcomp(&mut self, packet_id: u16) -> Acked {
        let before = self.in_flight();
        self.releasing.retain(|begun| begun.packet_id != packet_id);
        if self.in_flight() < before { Acked::Completed } else { Acked::Ignored }
    }

    // Broker to client: packets

    pub(super) fn deliver(&mut self, delivery: Rc<Delivery>, env: &mut Env) -> Delivered {
        let refuse = |env: &Env, reason| match env.limits.queue_full {
            QueueFull::Disconnect => Delivered::Disconnect,
            QueueFull::DropNewest | QueueFull::DropOldest => Delivered::Dropped(reason),
        };
        let charged = self.charged() + delivery.cost();
        if delivery.expires_at <= env.now {
            return Delivered::Dropped(DropReason::Expired);
        }
        if delivery.qos == Qos::AtMostOnce {
            return match self.connection.as_ref().map(|_| self.plan(&delivery, None, env)) {
                None => delivery.share.refuse(DropReason::Offline),
                Some(Plan::TooLarge) => delivery.share.refuse(DropReason::PacketTooLarge),
                Some(Plan::NoRoom) => delivery.share.refuse(DropReason::SendBuffer),
                Some(plan) => {
                    self.expect(plan, &delivery, env);
                    Delivered::Sent
                }
            };
        }
        if self.queue.is_empty() && self.may_begin(env) {
            match self.plan(&delivery, None, env) {
                Plan::TooLarge => return delivery.share.refuse(DropReason::PacketTooLarge),
                Plan::Write { .. } if charged > env.memory && delivery.share.passes_on() => {
                    return Delivered::Refused(DropReason::Memory);
                }
                Plan::Write { .. } if charged > env.memory => return refuse(env, DropReason::Memory),
                plan @ Plan::Write { .. } => {
                    self.begin(plan, delivery, env);
                    return Delivered::Sent;
                }
                Plan::NoRoom => {}
            }
        }
        match delivery.share {
            Share::Now(_) => Delivered::Refused(DropReason::QueueFull),
            Share::Queued(_) => self.enqueue(delivery, env).unwrap_or_else(Delivered::Refused),
            Share::No | Share::Last(_) => {
                self.enqueue(delivery, env).unwrap_or_else(|reason| refuse(env, reason))
            }
        }
    }

    fn enqueue(&mut self, delivery: Rc<Delivery>, env: &Env) -> Result<Delivered, DropReason> {
        let limits = &env.limits;
        let cost = delivery.cost();
        let fits_queue = |model: &Model| {
            model.queue.len() < limits.queue_messages_max as usize
                && model.queue_bytes() + cost <= limits.queue_bytes_max
        };
        let fits_memory = |model: &Model| model.charged() + cost <= env.memory;
        let mut result = Delivered::Queued;
        if !fits_queue(self) || !fits_memory(self) {
            self.delete_expired(env);
        }
        while !fits_queue(self) || !fits_memory(self) {
            let (reason, in_vain) = match fits_queue(self) {
                false => (DropReason::QueueFull, cost > limits.queue_bytes_max),
                true => (DropReason::Memory, cost > self.queue_bytes()),
            };
            let policy = if delivery.share.passes_on() { QueueFull::DropNewest } else { limits.queue_full };
            if policy != QueueFull::DropOldest || in_vain || self.queue.is_empty() {
                return Err(reason);
            }
            self.queue.pop_front();
            self.drops.oldest += 1;
            result = Delivered::QueuedDroppingOldest;
        }
        self.queue.push_back(delivery);
        Ok(result)
    }

    pub(super) fn delete_expired(&mut self, env: &Env) {
        let before = self.queue.len();
        self.queue.retain(|delivery| delivery.expires_at > env.now);
        self.drops.expired += (before - self.queue.len()) as u64;
    }

    pub(super) fn pump(&mut self, env: &mut Env) -> Pumped {
        let mut pumped = Pumped { published: 0, payload_bytes: 0, released: 0, more: More::Nothing };
        pumped.more = self.pump_until_stopped(&mut pumped, env);
        pumped
    }

    fn pump_until_stopped(&mut self, pumped: &mut Pumped, env: &mut Env) -> More {
        while let Some(at) = self.releasing.iter().position(|begun| begun.released_on != self.number) {
            if self.connection.as_ref().unwrap().maxima.packet_size < 4 {
                self.releasing.remove(at);
                continue;
            }
            if env.room < 4 {
                return More::Room;
            }
            env.room -= 4;
            self.releasing[at].released_on = self.number;
            // PUBREL takes no quota, and the PUBLISH was not sent here.
            assert_eq!(self.written.pop_front(), Some(Sent::PubRel(self.releasing[at].packet_id)));
            pumped.released += 1;
        }
        while let Some(at) = self.publishing.iter().position(|begun| begun.published_on != self.number) {
            let (delivery, packet_id) = (self.publishing[at].delivery.clone(), self.publishing[at].packet_id);
            match self.plan(&delivery, Some(packet_id), env) {
                Plan::TooLarge => {
                    let begun = self.publishing.remove(at);
                    self.drops.packet_too_large += 1;
                    let smallest = self.connection.as_ref().unwrap().maxima.packet_size;
                    if delivery.qos == Qos::AtLeastOnce || smallest < 4 {
                        continue;
                    }
                    // The client may know the identifier: PUBREL is owed, now or when there is room.
                    let sent = env.room >= 4;
                    let released_on = if sent { self.number } else { 0 };
                    self.releasing.push(Begun { released_on, ..begun });
                    if !sent {
                        return More::Room;
                    }
                    env.room -= 4;
                    assert_eq!(self.written.pop_front(), Some(Sent::PubRel(packet_id)));
                    pumped.released += 1;
                }
                _ if self.send_quota(env) == 0 => return More::Quota,
                Plan::NoRoom => return More::Room,
                plan @ Plan::Write { .. } => {
                    self.expect(plan, &delivery, env);
                    self.publishing[at].published_on = self.number;
                    pumped.published += 1;
                    pumped.payload_bytes += delivery.payload.len() as u64;
                }
            }
        }
        while let Some(delivery) = self.queue.front().cloned() {
            if delivery.expires_at <= env.now {
                self.queue.pop_front();
                self.drops.expired += 1;
                continue;
            }
            if !self.may_begin(env) {
                return More::Quota;
            }
            match self.plan(&delivery, None, env) {
                Plan::NoRoom => return More::Room,
                Plan::TooLarge => self.drops.packet_too_large += 1,
                plan @ Plan::Write { .. } => {
                    pumped.published += 1;
                    pumped.payload_bytes += delivery.payload.len() as u64;
                    self.begin(plan, delivery, env);
                }
            }
            self.queue.pop_front();
        }
        More::Nothing
    }

    fn may_begin(&self, env: &Env) -> bool {
        self.connection.is_some()
            && self.send_quota(env) > 0
            && self.in_flight() < usize::from(env.limits.send_maximum)
            && self.publishing.iter().all(|begun| begun.published_on == self.number)
            && self.releasing.iter().all(|begun| begun.released_on == self.number)
    }

    fn begin(&mut self, plan: Plan, delivery: Rc<Delivery>, env: &mut Env) {
        let packet_id = self.expect(plan, &delivery, env);
        let published_on = self.number;
        self.publishing.push(Begun { packet_id, delivery, published_on, released_on: 0 });
    }

    /// `resend` is the identifier of an earlier sending.
    fn plan(&self, delivery: &Delivery, resend: Option<u16>, env: &Env) -> Plan {
        let connection = self.connection.as_ref().unwrap();
        let Connection { version, maxima, aliases, .. } = connection;
        let size_of = |packet: &Sent| packet.encode(*version).len();
        let mut publish = delivery.publish(*version, env.now);
        publish.dup = resend.is_some();
        publish.packet_id = resend.unwrap_or(0);
        let mut sets_alias = false;
        let mut packet = Sent::Publish(publish.clone());
        if *version == Version::V5 && resend.is_none() && delivery.topic.len() > 3 {
            let mut alias = aliases.iter().position(|&topic| topic == delivery.topic);
            if alias.is_some() {
                publish.topic.clear();
            } else if aliases.len() < usize::from(maxima.topic_alias.min(env.limits.topic_alias_max)) {
                alias = Some(aliases.len());
                sets_alias = true;
            }
            publish.alias = alias.map_or(0, |at| at as u16 + 1);
            let aliased = Sent::Publish(publish);
            if size_of(&aliased) <= maxima.packet_size as usize {
                packet = aliased;
            } else {
                sets_alias = false;
            }
        }
        let size = size_of(&packet);
        if size > maxima.packet_size as usize {
            Plan::TooLarge
        } else if size > env.room && env.room < env.limits.send_buffer_bytes_max as usize {
            Plan::NoRoom
        } else {
            Plan::Write { packet, size, sets_alias }
        }
    }

    /// The session must have written what was planned. A new identifier is its choice. // [MQTT-2.2.1-4]
    fn expect(&mut self, plan: Plan, delivery: &Delivery, env: &mut Env) -> u16 {
        let Plan::Write { packet: Sent::Publish(mut expected), size, sets_alias } = plan else {
            panic!("nothing is written")
        };
        let written = self.written.pop_front().expect("a PUBLISH is missing");
        if expected.packet_id == 0 && expected.qos > 0 {
            expected.packet_id = written.publish().packet_id;
            assert!(expected.packet_id != 0 && !self.in_flight_ids().contains(&expected.packet_id));
        }
        assert_eq!(*written.publish(), expected);
        if sets_alias {
            self.connection.as_mut().unwrap().aliases.push(delivery.topic);
        }
        env.room = env.room.saturating_sub(size);
        expected.packet_id
    }
}
