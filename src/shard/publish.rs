//! Routing of a PUBLISH: who gets it, by which way, and what the publisher is told.
//!
//! One publisher's messages on one topic at one QoS keep their order on the way. // [MQTT-4.6.0-5]; 3.1.1: [MQTT-4.6.0-5]
//!
//! Two ways. **Direct**: this shard delivers to its own sessions and sends one parcel to each other shard with a
//! matching subscription. **Through the owner**: a message with RETAIN goes to the shard that owns its topic, which
//! stores it and fans it out, so that store, live stream and the cursors of subscribers share one FIFO per subscriber
//! shard. Each way keeps the order, but a message that goes one way could pass one that went the other; therefore a
//! connection uses one way at a time, and before it switches it is not parsed until everything that it sent the other
//! way was consumed by all its targets. Its first PUBLISH counts as a switch, since its client may have published on
//! another connection just before.
//!
//! QoS 2 is routed when its PUBLISH comes, and its identifier remembered until PUBREL. // 3.1.1: [U311-4.3.3-2]
//!
//! All or none: every next hop is checked before anything of the packet is acted upon, and all are pushed to in the same
//! step. The acknowledgement is staged after that; a full queue at a subscriber is a counted drop and never changes it.
//!
//! PUBLISH packets that follow each other in one receive and differ in nothing but Packet
//! Identifier and payload go this way together, as a [`Batch`]: each step is taken once for all of
//! them. Whatever else comes is a batch of one.

use std::rc::Rc;

use crate::clock::{NEVER, after_s};
use crate::memory::{Key, MessageView, Outbox, ShardSet, Whole};
use crate::session::{Batch, Entry, Fanout, Ingress, Verbatim};
use crate::topic::{self, Route};
use crate::wire::{self, AckKind, DecodeError, Frame, Publish, Qos, Reason, Repeat, Version};

use super::Core;
use super::connection::{Known, Mode};
use super::deliver::Scratch;
use super::disk::{KeptBy, OnDisk};
use super::env::Env;
use super::ingress::{Handled, Pressure};
use super::local::Local;
use super::losses::Denied;
use super::order::{Heard, Owed, Ticket};
use super::parcel::Parcel;
use super::replies::Replies;
use super::waits::{Blocked, Wait};

/// Whether anybody had a matching subscription.
#[must_use]
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Routed {
    Somewhere,
    Nowhere,
}

impl Routed {
    /// What a publisher of `version` is told.
    #[inline]
    fn reason(self, version: Version) -> Reason {
        match self {
            Routed::Nowhere if version == Version::V5 => Reason::NO_MATCHING_SUBSCRIBERS, // [U5-3.4.2-2]
            Routed::Nowhere | Routed::Somewhere => Reason::SUCCESS,
        }
    }
}

/// What became of a message.
#[must_use]
#[derive(Copy, Clone, Debug)]
pub(super) struct Published {
    pub routed: Routed,
    /// The shards that it was sent to.
    pub targets: ShardSet,
    /// `Owner` if these are the owner of its topic, which fans it out; else they are those who get it.
    pub way: Mode,
}

/// Who publishes.
#[derive(Copy, Clone)]
pub(super) struct Publisher {
    pub connection: Key,
    pub session: Key,
    pub version: Version,
    /// Keyed hash of its Client Identifier.
    pub client_hash: u64,
}

/// What lies at the front of a publisher's input.
#[derive(Copy, Clone)]
pub(super) struct Front<'a> {
    /// The PUBLISH packet that comes first.
    pub frame: Frame<'a>,
    pub input: &'a [u8],
    /// All of `input`, if that is one packet that has its memory for itself.
    pub whole: Option<&'a Whole>,
    /// Bytes of a packet that the publisher may send.
    pub packet_size_max: u32,
}

/// Packets that go the same way together.
#[derive(Copy, Clone)]
struct Taken {
    /// Of the first; those that follow are new messages.
    ingress: Ingress,
    packets: usize,
    bytes: usize,
    payload_bytes: u64,
    /// What was written down before; see [`Env::written_mark`].
    mark: u64,
}

/// Subscriptions of a route that a connection may hold on to; with more, asking for it anew is not what a message costs.
const KNOWN_MAX: usize = 256;

impl Env {
    /// PUBLISH packets that a client sent.
    #[inline]
    fn count_received(&self, taken: &Taken) {
        let counters = self.counters();
        counters.publish_received_total.add(taken.packets as u64);
        counters.publish_bytes_received_total.add(taken.payload_bytes);
    }
}

impl Local {
    /// What packets behind this one have to repeat, if any may go with it. Alone go a message with
    /// RETAIN, with properties or an alias, with a payload that is sent by reference, for a share
    /// group, or acknowledged later than at once.
    fn repeat<'a>(
        &self,
        from: Publisher,
        publish: &Publish<'a>,
        front: &Front<'a>,
        route: Option<&Route>,
    ) -> Option<Repeat<'a>> {
        let is_once = publish.qos == Qos::ExactlyOnce && self.env.keep.is_some();
        if publish.payload.len() >= Outbox::SPLICE_MIN || is_once {
            return None;
        }
        let repeat = Repeat::of(from.version, &front.frame, &front.input[..front.frame.len], publish)?;
        let together = |route: &Route| {
            // A session that is away keeps what it gets for long. A single message is shared with
            // the other shards, several are not.
            route.groups.is_empty()
                && (publish.qos == Qos::AtMostOnce
                    || route.remote.is_empty()
                    || route.local.iter().all(|key| self.sessions.is_here(*key)))
        };
        let alone = !route.is_none_or(together)
            || publish.qos != Qos::AtMostOnce
                && self.env.keep.is_none()
                && self.clients.holds_replies(from.connection);
        (!alone).then_some(repeat)
    }

    /// The publisher's side: whether the first packet is a new message, and which of those behind
    /// it go with it, as new messages too. If any do, all of them are in `entries`. QoS 0 leaves no
    /// trace in a session.
    #[inline]
    fn take_in(
        &mut self,
        from: Publisher,
        publish: &Publish<'_>,
        front: &Front<'_>,
        repeat: Option<Repeat<'_>>,
        entries: &mut Vec<Entry>,
    ) -> Taken {
        let one = Taken {
            ingress: Ingress::Route,
            packets: 1,
            bytes: front.frame.len,
            payload_bytes: publish.payload.len() as u64,
            mark: self.env.written_mark(),
        };
        if publish.qos == Qos::AtMostOnce {
            return match repeat {
                Some(repeat) => one.follow(&repeat, publish, front, entries, |_| true),
                None => one,
            };
        }
        let taken = self.with_session(from.connection, |session, link, _| {
            match (session.handle_publish(link, publish.qos, publish.packet_id), repeat) {
                (Ingress::Route, Some(repeat)) => one.follow(&repeat, publish, front, entries, |packet_id| {
                    session.handle_following(link, publish.qos, packet_id)
                }),
                (ingress, _) => Taken { ingress, ..one },
            }
        });
        taken.unwrap_or(Taken { ingress: Ingress::Repeat, ..one })
    }

    /// What the connection publishes to, for the next time; not if it is much to hold on to.
    #[inline(never)]
    fn note_known(&mut self, key: Key, route: &Rc<Route>) {
        let epoch = self.sessions.router.routes_epoch();
        let live = self.clients.connections.get_mut(key).and_then(|connection| connection.live_mut());
        if let Some(live) = live
            && route.local.len() + route.groups.len() <= KNOWN_MAX
        {
            live.known = Some(Known { route: route.clone(), epoch });
        }
    }
}

impl Core {
    /// Acts upon the PUBLISH packet at the front of an input, and upon those behind it that go the
    /// same way. `known` is what the publisher published to last. Returns what became of them, how
    /// many there were, and their bytes.
    ///
    /// Whatever can fail is looked at before the acknowledgement. // [U5-4.3-4] [MQTT-4.3.3-13] [MQTT-4.5.0-1]
    /// 3.1.1: [MQTT-4.5.0-1] [U311-3.3.3-1] [V31-8]
    pub(super) fn handle_publish(
        &mut self,
        from: Publisher,
        front: &Front<'_>,
        known: Option<&Known>,
        pressure: Pressure,
        heard: Heard<'_>,
    ) -> Result<(Handled, usize, usize), DecodeError> {
        let Publisher { connection: key, session, version, .. } = from;
        let known_topic = known.map_or("", |known| &*known.route.topic);
        let publish =
            wire::decode_publish(version, &front.frame, &self.local.env.decode_limits, known_topic)?;
        let resolved;
        let topic = if publish.topic_alias == 0 {
            publish.topic
        } else {
            let Some(live) =
                self.local.clients.connections.get_mut(key).and_then(|connection| connection.live_mut())
            else {
                return Ok((Handled::Done, 1, front.frame.len));
            };
            let alias_max = self.local.clients.told.terms(live.link.terms).topic_alias_max;
            resolved = live.link.resolve_topic(publish.topic, publish.topic_alias, alias_max)?;
            resolved.as_str()
        };

        let ticket = if self.local.env.shards > 1 {
            let admitted = match pressure {
                Pressure::Respect => self.admit(key, topic, publish.retain, heard),
                Pressure::Ignore => self.admit_last(key, topic, publish.retain, heard),
            };
            match admitted {
                Ok(ticket) => ticket,
                Err(blocked) => return Ok((Handled::Blocked(blocked), 0, 0)),
            }
        } else {
            Ticket::owed(Owed::Alone, heard)
        };

        let may_publish = self.local.sessions.may_publish(session, topic, &mut self.local.env);
        let mut is_refused = false;
        if self.local.env.keep.is_some() {
            match self.ask_disks(from, &publish, topic, (may_publish, pressure)) {
                Ok(OnDisk::MayBe) => {}
                Ok(OnDisk::HasNoRoom) => is_refused = true,
                Err(waits) => return Ok((Handled::Blocked(waits), 0, 0)),
            }
        }
        // A topic that was decoded as the known one is that very text.
        let same = |text: &str| std::ptr::eq(text, topic) || text == topic;
        let fresh;
        let route = match known {
            _ if publish.retain || !may_publish || is_refused => None,
            Some(known)
                if known.epoch == self.local.sessions.router.routes_epoch() && same(&known.route.topic) =>
            {
                Some(&known.route)
            }
            _ => {
                fresh = self.local.sessions.router.route(topic);
                self.local.note_known(key, &fresh);
                Some(&fresh)
            }
        };

        let (mut repeat, mut entries) = (None, Vec::new());
        if front.frame.len < front.input.len() {
            repeat = self.local.repeat(from, &publish, front, route.map(|route| &**route));
            entries = std::mem::take(&mut self.local.scratch.entries);
        }
        let taken = self.local.take_in(from, &publish, front, repeat, &mut entries);
        self.local.env.count_received(&taken);
        let ids = PacketIds { first: publish.packet_id, entries: &entries };
        if taken.ingress == Ingress::Route && may_publish && !is_refused {
            self.route_taken(from, &publish, (topic, ticket), (front, &taken), &ids, route);
        } else {
            self.answer_unrouted(from, &publish, topic, (taken.ingress, may_publish), &ids)?;
        }
        if entries.capacity() > 0 {
            self.local.scratch.entries = Scratch::emptied(entries);
        }
        Ok((Handled::Done, taken.packets, taken.bytes))
    }

    /// What is taken in and goes nowhere: it was routed before, or its client may not publish it.
    #[inline(never)]
    fn answer_unrouted(
        &mut self,
        from: Publisher,
        publish: &Publish<'_>,
        topic: &str,
        (ingress, may_publish): (Ingress, bool),
        ids: &PacketIds<'_>,
    ) -> Result<(), DecodeError> {
        match ingress {
            // The data directory is full, and nothing of it is kept.
            Ingress::Route if may_publish => {
                self.local.env.counters().refused_store_full_total.add(ids.count() as u64);
                self.refuse_with(from, publish.qos, ids, Reason::QUOTA_EXCEEDED);
                Ok(())
            }
            Ingress::Route => {
                self.local.log_denied(from.session, Denied::Publish, topic, ids.count() as u64);
                self.refuse_publish(from, publish.qos, ids);
                Ok(())
            }
            // [MQTT-4.3.3-10]
            Ingress::Repeat => {
                let (shards, commit) = (self.local.env.shards, self.local.env.last_commit());
                let wait = self.exchange.stored_before(publish.retain, shards, commit);
                match commit {
                    // Perhaps nobody has written down yet that it was received.
                    Some(_) => self.receive(from, ids, Reason::SUCCESS, (wait, KeptBy::AsBefore)),
                    None => self.answer_publish(from.connection, publish, Reason::SUCCESS, wait),
                }
                Ok(())
            }
            // [MQTT-3.3.4-7]
            Ingress::ReceiveMaximumExceeded => Err(DecodeError::Specific(
                Reason::RECEIVE_MAXIMUM_EXCEEDED,
                "more PUBLISH unacknowledged than the Receive Maximum",
            )),
        }
    }

    /// Routes what was taken in, and acknowledges it. What is to be retained has no route here.
    #[inline]
    fn route_taken(
        &mut self,
        from: Publisher,
        publish: &Publish<'_>,
        (topic, ticket): (&str, Ticket<'_>),
        (front, taken): (&Front<'_>, &Taken),
        ids: &PacketIds<'_>,
        route: Option<&Rc<Route>>,
    ) {
        let mut cleaned = std::mem::take(&mut self.local.scratch.properties);
        let properties = match publish.properties.as_contiguous() {
            Some(bytes) => bytes,
            None => {
                cleaned.clear();
                publish.properties.write_to(&mut cleaned);
                &cleaned
            }
        };
        // The payload is not looked into, whatever its Payload Format Indicator says. // [U5-3.3.2-3]
        let view = MessageView {
            topic,
            properties,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            expires_at: publish.expiry_s.map_or(NEVER, |seconds| after_s(self.local.env.now, seconds.into())),
            publisher: from.client_hash,
            whole: front.whole.filter(|whole| whole.is_worth(publish.payload.len())),
            origin: self.local.origin_of(from.session, publish),
            is_repeat: publish.dup,
        };
        self.local.env.comes(&view);
        match route {
            Some(route) => {
                let batch = match ids.entries {
                    [] => Batch::of_one(view, verbatim(from.version, front, publish)),
                    entries => {
                        let packets = &front.input[..taken.bytes];
                        Batch::of_several(view, from.version, (packets, taken.payload_bytes), entries)
                    }
                };
                let (routed, touched) = self.route_along(route, &batch, ticket);
                self.local.clients.touch(from.connection, touched);
                let reason = routed.reason(from.version);
                match publish.qos {
                    Qos::AtMostOnce => {}
                    qos if self.local.env.keep.is_none() => {
                        self.acknowledge(from.connection, qos, ids, reason);
                    }
                    Qos::ExactlyOnce => {
                        let wait = self.kept_wait(touched, taken.mark);
                        self.receive(from, ids, reason, (wait, KeptBy::of(touched)));
                    }
                    Qos::AtLeastOnce => {
                        let wait = self.kept_wait(touched, taken.mark);
                        self.acknowledge_later(from.connection, AckKind::PubAck, ids, reason, wait);
                    }
                }
            }
            None => {
                let Published { routed, targets, way } = self.publish(&view, ticket);
                self.local.clients.touch(from.connection, targets);
                let wait = self.stored(from.connection, targets, way, taken.mark);
                let reason = routed.reason(from.version);
                if publish.qos == Qos::ExactlyOnce && self.local.env.keep.is_some() {
                    self.receive(from, ids, reason, (wait, KeptBy::of(targets)));
                } else {
                    self.answer_publish(from.connection, publish, reason, wait);
                }
            }
        }
        self.local.scratch.properties = cleaned;
    }

    /// Nobody is told of messages that their publisher may not publish. Only v5 has a word for it;
    /// a 3.x client gets the normal acknowledgement. // [U5-3.3.4-7] 3.1.1: [311:MQTT-3.3.5-2]
    fn refuse_publish(&mut self, from: Publisher, qos: Qos, ids: &PacketIds<'_>) {
        self.local.env.counters().dropped_denied_total.add(ids.count() as u64);
        if from.version != Version::V5 {
            return self.acknowledge(from.connection, qos, ids, Reason::SUCCESS);
        }
        self.refuse_with(from, qos, ids, Reason::NOT_AUTHORIZED);
    }

    /// A v5 client is told why its messages were not taken.
    fn refuse_with(&mut self, from: Publisher, qos: Qos, ids: &PacketIds<'_>, reason: Reason) {
        self.local.with_session(from.connection, |session, link, _| {
            // At QoS 1 all of a batch have one place in the quota.
            let places = if qos == Qos::ExactlyOnce { ids.count() } else { 1 };
            ids.iter().take(places).for_each(|packet_id| session.refuse_publish(link, qos, packet_id));
        });
        self.acknowledge(from.connection, qos, ids, reason);
    }

    /// Answers a single PUBLISH, now or later. // [MQTT-3.3.4-1] [MQTT-4.3.2-4] [MQTT-4.3.3-8]
    fn answer_publish(&mut self, key: Key, publish: &Publish<'_>, reason: Reason, wait: Wait) {
        let ids = PacketIds { first: publish.packet_id, entries: &[] };
        match (wait, publish.qos) {
            (Wait::Nothing, qos) => self.acknowledge(key, qos, &ids, reason),
            (_, Qos::AtMostOnce) => {}
            (later, Qos::AtLeastOnce) => self.acknowledge_later(key, AckKind::PubAck, &ids, reason, later),
            (later, Qos::ExactlyOnce) => self.acknowledge_later(key, AckKind::PubRec, &ids, reason, later),
        }
    }

    /// Whether all next hops have room and the way is free.
    fn admit<'intake>(
        &mut self,
        key: Key,
        topic: &str,
        retain: bool,
        heard: Heard<'intake>,
    ) -> Result<Ticket<'intake>, Blocked> {
        let owner = if retain {
            topic::shard_of(&self.local.env.keys, topic, self.local.env.shards)
        } else {
            self.local.env.id
        };
        if owner != self.local.env.id {
            let ticket = self.exchange.admit_relay(owner, heard)?;
            self.switch(key, Mode::Owner)?;
            return Ok(ticket);
        }
        let ticket = self.exchange.admit(|| self.local.sessions.next_hops(topic), heard)?;
        if retain {
            self.begin(key)?; // Both ways begin here.
        } else {
            self.switch(key, Mode::Direct)?;
        }
        Ok(ticket)
    }

    /// The same for the last read of a connection that is taken over: no shard's saturation holds it up, but order does.
    fn admit_last<'intake>(
        &mut self,
        key: Key,
        topic: &str,
        retain: bool,
        heard: Heard<'intake>,
    ) -> Result<Ticket<'intake>, Blocked> {
        match retain {
            true if topic::shard_of(&self.local.env.keys, topic, self.local.env.shards)
                != self.local.env.id =>
            {
                self.switch(key, Mode::Owner)?;
            }
            true => self.begin(key)?,
            false => self.switch(key, Mode::Direct)?,
        }
        Ok(Ticket::owed(Owed::LastRead, heard))
    }

    /// The connection is about to publish to a topic for which both ways are one.
    fn begin(&self, key: Key) -> Result<(), Blocked> {
        self.local.clients.holds_many(key)?;
        let live = self.local.clients.connections.get(key).and_then(|connection| connection.live());
        live.map_or(Ok(()), |live| self.exchange.waits.lets_begin(live.mode))
    }

    /// The connection is about to publish in `mode`: waits until what it sent in the other one was consumed.
    fn switch(&mut self, key: Key, mode: Mode) -> Result<(), Blocked> {
        let Some(live) =
            self.local.clients.connections.get_mut(key).and_then(|connection| connection.live_mut())
        else {
            return Ok(());
        };
        if live.replies().is_some_and(Replies::are_many) {
            return Err(Blocked::Replies);
        }
        if live.mode == mode {
            return Ok(());
        }
        self.exchange.waits.lets_begin(live.mode)?;
        let wait = match live.mode {
            Mode::New | Mode::WillsOut => self.exchange.everything(),
            Mode::Direct => self.exchange.consumed(live.touched),
            Mode::Owner => self.exchange.relayed(live.touched),
        };
        if !wait.is_over(&self.exchange) {
            return Err(Blocked::Switch(wait, mode));
        }
        live.switch_to(mode);
        Ok(())
    }

    /// Takes ownership of a message: to the owner of its topic if it is to be retained, else to its subscribers.
    pub(super) fn publish(&mut self, view: &MessageView<'_>, ticket: Ticket<'_>) -> Published {
        if !view.retain {
            let (routed, targets) = self.route(&Batch::of_one(*view, None), ticket);
            return Published { routed, targets, way: Mode::Direct };
        }
        let fingerprint = topic::fingerprint(&self.local.env.keys, view.topic);
        let owner = topic::shard_of_fingerprint(fingerprint, self.local.env.shards);
        let hinted = self.retained.note(view, fingerprint, &self.local.env);
        if owner != self.local.env.id {
            self.exchange.push_relay(owner, view, &ticket, &self.local.env);
            let targets = ShardSet::EMPTY.with(owner);
            return Published { routed: Routed::Somewhere, targets, way: Mode::Owner };
        }
        let may_store = self.hear_hinted(hinted);
        self.store_retained(view, may_store);
        let (routed, targets) = self.route(&Batch::of_one(*view, None), ticket);
        Published { routed, targets, way: Mode::Direct }
    }

    /// Delivers here and sends to the other shards that want it; returns which these were.
    pub(super) fn route(&mut self, batch: &Batch<'_>, ticket: Ticket<'_>) -> (Routed, ShardSet) {
        let route = self.local.sessions.router.route(batch.message.topic);
        self.route_along(&route, batch, ticket)
    }

    fn route_along(&mut self, route: &Route, batch: &Batch<'_>, ticket: Ticket<'_>) -> (Routed, ShardSet) {
        if route.is_empty() {
            return (Routed::Nowhere, ShardSet::EMPTY);
        }
        let mut variants = self.local.scratch.variants.take().unwrap_or_default();
        let mut fanout = batch.first(&mut variants);
        let reached = self.local.deliver_ordinary(route, batch, &mut fanout);
        let done = if route.groups.is_empty() && route.remote.is_empty() {
            (if reached { Routed::Somewhere } else { Routed::Nowhere }, ShardSet::EMPTY)
        } else {
            self.route_on(route, batch, &mut fanout, reached, &ticket)
        };
        self.local.scratch.variants = Some(variants);
        done
    }

    /// To share groups and other shards.
    fn route_on(
        &mut self,
        route: &Route,
        batch: &Batch<'_>,
        fanout: &mut Fanout<'_>,
        reached: bool,
        ticket: &Ticket<'_>,
    ) -> (Routed, ShardSet) {
        let several = batch.version_of_several();
        debug_assert!(several.is_none() || route.groups.is_empty(), "a share group gets message by message");
        let mut shares = Vec::new();
        let mut shared_here = false;
        for group in route.groups.iter() {
            match self.local.sessions.choose_shard(*group, &mut self.local.env, ticket.heard()) {
                Some(shard) if shard == self.local.env.id => {
                    shared_here = true;
                    self.share_here(*group, fanout, ticket.heard());
                }
                Some(shard) => shares.push((shard, self.local.sessions.router.group_fingerprint(*group))),
                None => {}
            }
        }
        let targets = shares.iter().fold(route.remote, |set, (shard, _)| set.with(*shard));
        let packed = several.filter(|_| !targets.is_empty()).map(|_| batch.packed());
        for shard in targets.iter() {
            let groups: Box<[u64]> =
                shares.iter().filter(|(target, _)| *target == shard).map(|(_, group)| *group).collect();
            let parcel = Parcel::Publish {
                message: packed.as_ref().unwrap_or_else(|| fanout.shared()).clone(),
                several,
                ordinary: route.remote.contains(shard),
                groups: (!groups.is_empty()).then(|| Box::new(groups)),
            };
            self.exchange.push_publication(shard, parcel, ticket, &self.local.env);
        }
        let nowhere = !reached && !shared_here && targets.is_empty();
        (if nowhere { Routed::Nowhere } else { Routed::Somewhere }, targets)
    }
}

impl Taken {
    /// Takes the packets behind the first one that repeat it and that `joins` lets in, by their
    /// Packet Identifiers.
    #[inline(never)] // By itself it keeps what it needs in registers.
    fn follow(
        self,
        repeat: &Repeat<'_>,
        publish: &Publish<'_>,
        front: &Front<'_>,
        entries: &mut Vec<Entry>,
        mut joins: impl FnMut(u16) -> bool,
    ) -> Taken {
        let Taken { mut bytes, mut payload_bytes, .. } = self;
        entries.push(Entry::new(0, bytes, publish.payload.len(), publish.packet_id));
        while let Some(next) = repeat.next(&front.input[bytes..], front.packet_size_max)
            && next.payload_len < Outbox::SPLICE_MIN
            && joins(next.packet_id)
        {
            entries.push(Entry::new(bytes, next.len, next.payload_len, next.packet_id));
            bytes += next.len;
            payload_bytes += next.payload_len as u64;
        }
        let packets = entries.len();
        if packets == 1 {
            entries.clear();
        }
        Taken { packets, bytes, payload_bytes, ..self }
    }
}

/// The Packet Identifiers of a batch.
pub(super) struct PacketIds<'a> {
    pub first: u16,
    /// Of all, if there are several.
    pub entries: &'a [Entry],
}

impl PacketIds<'_> {
    pub fn count(&self) -> usize {
        self.entries.len().max(1)
    }

    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        let first = if self.entries.is_empty() { Some(self.first) } else { None };
        first.into_iter().chain(self.entries.iter().map(|entry| entry.packet_id))
    }
}

/// The packet as its receivers can have it, if they can.
#[inline]
fn verbatim<'a>(version: Version, front: &Front<'a>, publish: &Publish<'_>) -> Option<Verbatim<'a>> {
    let Front { frame, input, .. } = front;
    let packet_id_at = frame.len - frame.body.len() + 2 + publish.topic.len();
    let as_it_is = publish.topic_alias == 0
        && publish.expiry_s.is_none()
        && publish.payload.len() < Outbox::SPLICE_MIN
        && publish.properties.as_contiguous().is_some()
        && frame.is_shortest();
    as_it_is.then_some(Verbatim { packet: &input[..frame.len], version, packet_id_at })
}
