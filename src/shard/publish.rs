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

use std::rc::Rc;

use crate::clock::{NEVER, after_s};
use crate::memory::{Key, MessageView, Outbox, ShardSet, Whole};
use crate::session::{Fanout, Ingress, Verbatim};
use crate::topic::{self, Route};
use crate::wire::{self, DecodeError, Frame, Publish, Qos, Reason, Repeat, Version};

use super::Core;
use super::connection::{Known, Mode};
use super::ingress::{Handled, Pressure};
use super::losses::Denied;
use super::parcel::Parcel;
use super::replies::{Release, Replies, Reply};
use super::waits::{Blocked, Fence};

/// Whether anybody had a matching subscription.
#[must_use]
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Routed {
    Somewhere,
    Nowhere,
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

/// How the packet of a message arrived, for those who can have it as it is.
#[derive(Copy, Clone)]
struct Arrived<'a> {
    verbatim: Option<Verbatim<'a>>,
    whole: Option<&'a Whole>,
}

/// Subscriptions of a route that a connection may hold on to; with more, asking for it anew is not what a message costs.
const KNOWN_MAX: usize = 256;

impl Core {
    /// The PUBLISH packet at the front of `input`, what repeats it behind it, and the topic that its connection is known
    /// to publish to, which is kept up to date. Tells how many bytes of `input` were used. `whole` is the packet once more
    /// if it has its memory for itself.
    pub(super) fn handle_publish_packet(
        &mut self,
        from: Publisher,
        frame: &Frame<'_>,
        input: &[u8],
        whole: Option<&Whole>,
        known: &mut Option<Known>,
        pressure: Pressure,
    ) -> Result<(Handled, usize), DecodeError> {
        let (packet, rest) = input.split_at(frame.len);
        let held = known.take();
        let held_topic = held.as_ref().map_or("", |known| &*known.route.topic);
        let publish = wire::decode_publish(from.version, frame, &self.env.decode_limits, held_topic)?;
        let whole = whole.filter(|whole| whole.is_worth(publish.payload.len()));
        let arrived = Arrived { verbatim: verbatim(from.version, frame, packet, &publish), whole };
        let mut fresh = None;
        let handled = self.handle_publish(from, &publish, arrived, (held.as_ref(), &mut fresh), pressure)?;
        if matches!(handled, Handled::Blocked(_)) {
            *known = held;
            return Ok((handled, 0));
        }
        let repeat = match rest.is_empty() {
            true => None,
            false => Repeat::of(from.version, frame, packet, &publish),
        };
        let fresh = fresh.map(|route| Known { route, epoch: self.sessions.router.routes_epoch() });
        let repeated = match &repeat {
            Some(repeat) => self.handle_run(from, repeat, fresh.as_ref().or(held.as_ref()), rest),
            None => 0,
        };
        let small = |known: &Known| known.route.local.len() + known.route.groups.len() <= KNOWN_MAX;
        *known = fresh.filter(small).or(held);
        Ok((handled, packet.len() + repeated))
    }

    /// Whatever can fail is looked at before the acknowledgement. // [U5-4.3-4] [MQTT-4.3.3-13] [MQTT-4.5.0-1]
    /// 3.1.1: [MQTT-4.5.0-1] [U311-3.3.3-1] [V31-8]
    fn handle_publish(
        &mut self,
        from: Publisher,
        publish: &Publish<'_>,
        arrived: Arrived<'_>,
        known: (Option<&Known>, &mut Option<Rc<Route>>),
        pressure: Pressure,
    ) -> Result<Handled, DecodeError> {
        let Publisher { connection: key, session, version, client_hash } = from;
        let resolved;
        let topic = if publish.topic_alias == 0 {
            publish.topic
        } else {
            let Some(live) =
                self.clients.connections.get_mut(key).and_then(|connection| connection.live_mut())
            else {
                return Ok(Handled::Done);
            };
            let alias_max = self.clients.told.terms(live.link.terms).topic_alias_max;
            resolved = live.link.resolve_topic(publish.topic, publish.topic_alias, alias_max)?;
            resolved.as_str()
        };

        if self.env.shards > 1 {
            let admitted = match pressure {
                Pressure::Respect => self.admit(key, topic, publish.retain),
                Pressure::Ignore => self.admit_last(key, topic, publish.retain),
            };
            if let Err(blocked) = admitted {
                return Ok(Handled::Blocked(blocked));
            }
        }

        let counters = self.env.counters();
        counters.publish_received_total.add(1);
        counters.publish_bytes_received_total.add(publish.payload.len() as u64);
        match self.take_in(from, publish) {
            Ingress::Route => {}
            // [MQTT-4.3.3-10]
            Ingress::Repeat => {
                let release = self.exchange.stored_before(publish.retain, self.env.shards);
                self.answer_publish(key, publish, Reason::SUCCESS, release);
                return Ok(Handled::Done);
            }
            // [MQTT-3.3.4-7]
            Ingress::ReceiveMaximumExceeded => {
                return Err(DecodeError::Specific(
                    Reason::RECEIVE_MAXIMUM_EXCEEDED,
                    "more PUBLISH unacknowledged than the Receive Maximum",
                ));
            }
        }

        if !self.sessions.may_publish(session, topic, &mut self.env) {
            self.log_denied(session, Denied::Publish, topic, 1);
            self.refuse_publish(key, version, publish);
            return Ok(Handled::Done);
        }

        let mut cleaned = std::mem::take(&mut self.scratch.properties);
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
            expires_at: publish.expiry_s.map_or(NEVER, |seconds| after_s(self.env.now, seconds.into())),
            publisher: client_hash,
            whole: arrived.whole,
        };
        let (routed, release) = if publish.retain {
            let Published { routed, targets, way } = self.publish(&view);
            self.clients.touch(key, targets);
            (routed, self.stored(key, targets, way))
        } else {
            let (routed, touched) = self.route_known(&view, arrived.verbatim, known);
            self.clients.touch(key, touched);
            (routed, Release::Now)
        };
        self.scratch.properties = cleaned;

        let reason = match routed {
            Routed::Nowhere if version == Version::V5 => Reason::NO_MATCHING_SUBSCRIBERS, // [U5-3.4.2-2]
            Routed::Nowhere | Routed::Somewhere => Reason::SUCCESS,
        };
        self.answer_publish(key, publish, reason, release);
        Ok(Handled::Done)
    }

    /// Whether it is a new message. QoS 0 leaves no trace in a session.
    #[inline]
    fn take_in(&mut self, from: Publisher, publish: &Publish<'_>) -> Ingress {
        if publish.qos == Qos::AtMostOnce {
            return Ingress::Route;
        }
        let taken = self.with_session(from.connection, |session, link, _| {
            session.handle_publish(link, publish.qos, publish.packet_id)
        });
        taken.unwrap_or(Ingress::Repeat)
    }

    /// Routes along the known route if it is one of this topic and still good; a new one is put into `fresh`.
    #[inline]
    fn route_known(
        &mut self,
        view: &MessageView<'_>,
        verbatim: Option<Verbatim<'_>>,
        (held, fresh): (Option<&Known>, &mut Option<Rc<Route>>),
    ) -> (Routed, ShardSet) {
        // A topic that was decoded as the known one is that very text.
        let same = |text: &str| std::ptr::eq(text, view.topic) || text == view.topic;
        if let Some(known) = held
            && known.epoch == self.sessions.router.routes_epoch()
            && same(&known.route.topic)
        {
            return self.route_along(&known.route, view, verbatim);
        }
        let route = self.sessions.router.route(view.topic);
        let done = self.route_along(&route, view, verbatim);
        *fresh = Some(route);
        done
    }

    /// Nobody is told of a message that its publisher may not publish. Only v5 has a word for it; a 3.x client gets the
    /// normal acknowledgement. // [U5-3.3.4-7] 3.1.1: [311:MQTT-3.3.5-2]
    fn refuse_publish(&mut self, key: Key, version: Version, publish: &Publish<'_>) {
        self.env.counters().dropped_denied_total.add(1);
        if version != Version::V5 {
            return self.acknowledge(key, publish.qos, publish.packet_id, Reason::SUCCESS);
        }
        self.with_session(key, |session, link, _| {
            session.refuse_publish(link, publish.qos, publish.packet_id)
        });
        self.acknowledge(key, publish.qos, publish.packet_id, Reason::NOT_AUTHORIZED);
    }

    /// Answers a PUBLISH, now or later. // [MQTT-3.3.4-1] [MQTT-4.3.2-4] [MQTT-4.3.3-8]
    #[inline]
    fn answer_publish(&mut self, key: Key, publish: &Publish<'_>, reason: Reason, release: Release) {
        let Publish { qos, packet_id, .. } = *publish;
        match release {
            Release::Now => self.acknowledge(key, qos, packet_id, reason),
            Release::Announced(_) | Release::Fence(_) if qos == Qos::AtMostOnce => {}
            later => self.reply(key, Reply::Ack { qos, packet_id, reason }, later),
        }
    }

    /// Whether all next hops have room and the way is free.
    fn admit(&mut self, key: Key, topic: &str, retain: bool) -> Result<(), Blocked> {
        let owner =
            if retain { topic::shard_of(&self.env.keys, topic, self.env.shards) } else { self.env.id };
        let full = self.exchange.links.full();
        if !full.is_empty() {
            let hops = if owner == self.env.id {
                self.sessions.next_hops(topic)
            } else {
                ShardSet::EMPTY.with(owner)
            };
            let held = hops.intersection(full);
            if !held.is_empty() {
                return Err(Blocked::Mesh(held));
            }
        }
        if owner != self.env.id {
            if !self.exchange.waits.relay_fits(owner, &self.exchange.links, self.env.options.relay_window) {
                return Err(Blocked::Relay(owner));
            }
            self.switch(key, Mode::Owner)
        } else if retain {
            self.begin(key) // Both ways begin here.
        } else {
            self.switch(key, Mode::Direct)
        }
    }

    /// The same for the last read of a connection that is taken over: no shard's saturation holds it up, but order does.
    fn admit_last(&mut self, key: Key, topic: &str, retain: bool) -> Result<(), Blocked> {
        match retain {
            true if topic::shard_of(&self.env.keys, topic, self.env.shards) != self.env.id => {
                self.switch(key, Mode::Owner)
            }
            true => self.begin(key),
            false => self.switch(key, Mode::Direct),
        }
    }

    /// The connection is about to publish to a topic for which both ways are one.
    fn begin(&self, key: Key) -> Result<(), Blocked> {
        self.clients.holds_many(key)?;
        let live = self.clients.connections.get(key).and_then(|connection| connection.live());
        live.map_or(Ok(()), |live| self.exchange.waits.lets_begin(live.mode))
    }

    /// The connection is about to publish in `mode`: waits until what it sent in the other one was consumed.
    fn switch(&mut self, key: Key, mode: Mode) -> Result<(), Blocked> {
        let Some(live) = self.clients.connections.get_mut(key).and_then(|connection| connection.live_mut())
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
        let fence = match live.mode {
            Mode::New | Mode::WillsOut => Fence::everything(&self.exchange.links, &self.exchange.waits),
            Mode::Direct => Fence::consumed(live.touched, &self.exchange.links),
            Mode::Owner => self.exchange.waits.relayed(live.touched),
        };
        if !fence.is_reached(&self.exchange.links) {
            return Err(Blocked::Fence(fence, mode));
        }
        live.switch_to(mode);
        Ok(())
    }

    /// Takes ownership of a message: to the owner of its topic if it is to be retained, else to its subscribers.
    pub(super) fn publish(&mut self, view: &MessageView<'_>) -> Published {
        if !view.retain {
            let (routed, targets) = self.route(view);
            return Published { routed, targets, way: Mode::Direct };
        }
        let fingerprint = topic::fingerprint(&self.env.keys, view.topic);
        let owner = topic::shard_of_fingerprint(fingerprint, self.env.shards);
        self.retained.note(view, fingerprint, &self.env);
        if owner != self.env.id {
            self.exchange.waits.count_relay(owner);
            self.exchange.push(owner, Parcel::Relay(view.to_message()), &self.env);
            let targets = ShardSet::EMPTY.with(owner);
            return Published { routed: Routed::Somewhere, targets, way: Mode::Owner };
        }
        self.hear();
        self.store_retained(view);
        let (routed, targets) = self.route(view);
        Published { routed, targets, way: Mode::Direct }
    }

    /// Delivers here and sends to the other shards that want it; returns which these were.
    pub(super) fn route(&mut self, view: &MessageView<'_>) -> (Routed, ShardSet) {
        let route = self.sessions.router.route(view.topic);
        self.route_along(&route, view, None)
    }

    fn route_along(
        &mut self,
        route: &Route,
        view: &MessageView<'_>,
        verbatim: Option<Verbatim<'_>>,
    ) -> (Routed, ShardSet) {
        if route.is_empty() {
            return (Routed::Nowhere, ShardSet::EMPTY);
        }
        let mut variants = self.scratch.variants.take().unwrap_or_default();
        let mut fanout = Fanout::of_packet(*view, verbatim, &mut variants);
        let reached = self.deliver_ordinary(route, &mut fanout);
        let done = if route.groups.is_empty() && route.remote.is_empty() {
            (if reached { Routed::Somewhere } else { Routed::Nowhere }, ShardSet::EMPTY)
        } else {
            self.route_on(route, &mut fanout, reached)
        };
        self.scratch.variants = Some(variants);
        done
    }

    /// To share groups and other shards.
    fn route_on(&mut self, route: &Route, fanout: &mut Fanout<'_>, reached: bool) -> (Routed, ShardSet) {
        let mut shares = Vec::new();
        let mut shared_here = false;
        for group in route.groups.iter() {
            match self.choose_shard(*group) {
                Some(shard) if shard == self.env.id => {
                    shared_here = true;
                    self.share_here(*group, fanout);
                }
                Some(shard) => shares.push((shard, self.sessions.router.group_fingerprint(*group))),
                None => {}
            }
        }
        let targets = shares.iter().fold(route.remote, |set, (shard, _)| set.with(*shard));
        for shard in targets.iter() {
            let groups: Box<[u64]> =
                shares.iter().filter(|(target, _)| *target == shard).map(|(_, group)| *group).collect();
            let parcel = Parcel::Publish {
                message: fanout.shared().clone(),
                ordinary: route.remote.contains(shard),
                groups: (!groups.is_empty()).then(|| Box::new(groups)),
            };
            self.exchange.push(shard, parcel, &self.env);
        }
        let nowhere = !reached && !shared_here && targets.is_empty();
        (if nowhere { Routed::Nowhere } else { Routed::Somewhere }, targets)
    }
}

/// The packet as its receivers can have it, if they can.
#[inline]
fn verbatim<'a>(
    version: Version,
    frame: &Frame<'_>,
    packet: &'a [u8],
    publish: &Publish<'_>,
) -> Option<Verbatim<'a>> {
    let packet_id_at = packet.len() - frame.body.len() + 2 + publish.topic.len();
    let as_it_is = publish.topic_alias == 0
        && publish.expiry_s.is_none()
        && publish.payload.len() < Outbox::SPLICE_MIN
        && publish.properties.as_contiguous().is_some()
        && frame.is_shortest();
    as_it_is.then_some(Verbatim { packet, version, packet_id_at })
}
