//! Runs: PUBLISH packets that follow each other in one receive and differ in nothing but Packet Identifier and payload.
//!
//! Publishers that send a lot repeat themselves, and what is decided for one packet holds for the next: the topic is
//! valid, its route and the rights are known, the packet goes to its receivers as it came. So everything is looked up once
//! for the run. It is not another way of routing: the first packet of a run has been through `publish`, and only routes
//! without share groups are used. Other shards get a run as one parcel; see `run_between`.
//!
//! At QoS 0 each receiver gets the run in one piece, or, if it cannot have it as it is, message by message. At QoS 1 and 2
//! every message has a state of its own; a single receiver that is connected gets as many as it can take in one go.

use crate::clock::NEVER;
use crate::memory::{Key, MessageView, Outbox};
use crate::session::{
    Cx, Delivered, Drops, Fanout, Grant, Ingress, KeptRun, Retain, Run, RunEntry, Session, Verbatim,
};
use crate::topic::{Repeats, Route};
use crate::wire::{AckKind, Qos, Repeat, Repetition};

use super::Core;
use super::connection::Known;
use super::deliver::Merged;
use super::publish::Publisher;

/// Who gets a run at QoS 1 or 2, and how.
#[derive(Copy, Clone, Debug)]
pub(super) struct Receiver {
    session: Key,
    qos: Qos,
    retain: Retain,
    /// 0 is none.
    identifier: u32,
}

impl Core {
    /// Takes the packets at the front of `input` that repeat the one that `repeat` was made of, which was just handled.
    /// Returns their bytes.
    pub(super) fn handle_run(
        &mut self,
        from: Publisher,
        repeat: &Repeat<'_>,
        known: Option<&Known>,
        input: &[u8],
    ) -> usize {
        let Some(known) = known else { return 0 };
        let route = &known.route;
        let plain = known.epoch == self.router.routes_epoch()
            && route.repeats == Repeats::Never
            && route.groups.is_empty()
            && route.remote.intersection(self.links.full()).is_empty()
            && *route.topic == *repeat.topic();
        if !plain {
            return 0;
        }
        match repeat.qos() {
            Qos::AtMostOnce => self.handle_run_at_most_once(from, repeat, route, input),
            Qos::AtLeastOnce | Qos::ExactlyOnce => self.handle_run_acknowledged(from, repeat, route, input),
        }
    }

    fn handle_run_at_most_once(
        &mut self,
        from: Publisher,
        repeat: &Repeat<'_>,
        route: &Route,
        input: &[u8],
    ) -> usize {
        let run = Run::of(repeat, input, self.limits.packet_size_max, Outbox::SPLICE_MIN - 1);
        if run.count == 0 {
            return 0;
        }
        let counters = self.counters();
        counters.packets_received_total.add(run.count.into());
        counters.publish_received_total.add(run.count.into());
        counters.publish_bytes_received_total.add(run.payload_bytes);
        if !self.may_publish(from.session, &route.topic) {
            self.counters().dropped_denied_total.add(run.count.into());
            return run.packets.len();
        }
        self.deliver_run_to_all(&run, repeat, route, from.client_hash);
        self.pass_run(from, repeat, route, run.packets);
        run.packets.len()
    }

    /// To every subscription of `route` that is here; no session has two of them.
    pub(super) fn deliver_run_to_all(
        &mut self,
        run: &Run<'_>,
        repeat: &Repeat<'_>,
        route: &Route,
        publisher: u64,
    ) {
        let message = view(repeat.topic(), &[], publisher);
        let mut dead = 0;
        for key in &route.local {
            let Some(subscription) = self.router.subscription(*key) else {
                dead += 1;
                continue;
            };
            let (session, identifier) = (subscription.session, [subscription.identifier]);
            if let Some(merged) = self.grant(subscription, &message) {
                let identifiers: &[u32] = if identifier == [0] { &[] } else { &identifier };
                let grant = Grant { qos: merged.qos, retain: merged.retain, identifiers, share: None };
                if !self.deliver_run(session, run, &grant, repeat.topic()) {
                    self.deliver_singly(session, run, repeat, &grant, publisher);
                }
            }
        }
        if dead > 0 {
            self.router.report_stale(repeat.topic(), route, dead);
        }
    }

    /// QoS 1 and 2, to one session at most, and to other shards.
    fn handle_run_acknowledged(
        &mut self,
        from: Publisher,
        repeat: &Repeat<'_>,
        route: &Route,
        input: &[u8],
    ) -> usize {
        if !self.may_publish(from.session, &route.topic) {
            return 0; // Each is refused by itself.
        }
        let message = MessageView { qos: repeat.qos(), ..view(&route.topic, &[], from.client_hash) };
        let here = match *route.local {
            [] if !route.remote.is_empty() => None,
            [only] => match self.one_receiver(only, &message) {
                Some(receiver) => Some(receiver),
                None => return 0,
            },
            _ => return 0,
        };
        let mut entries = std::mem::take(&mut self.scratch.run);
        let used = self.take_run_in(from, repeat, input, &mut entries);
        if !entries.is_empty() {
            if let Some(receiver) = here {
                let run = KeptRun { entries: &entries, input, message, version: from.version };
                self.deliver_entries(receiver, &run);
            }
            self.pass_entries(from, repeat, route, (&entries, &input[..used]));
            let kind = if repeat.qos() == Qos::AtLeastOnce { AckKind::PubAck } else { AckKind::PubRec };
            self.stage_acks(from.connection, kind, entries.iter().map(|entry| entry.packet_id));
            entries.clear();
        }
        self.scratch.run = entries;
        used
    }

    /// The one who gets every message that is like `message`, if it is connected and may receive them.
    pub(super) fn one_receiver(&mut self, subscription: Key, message: &MessageView<'_>) -> Option<Receiver> {
        let subscription = self.router.subscription(subscription)?;
        let Merged { qos, retain } = self.grant(subscription, message)?;
        let (session, identifier) = (subscription.session, subscription.identifier);
        let gets_them = self.is_connected(session) && self.may_receive(session, message.topic);
        gets_them.then_some(Receiver { session, qos, retain, identifier })
    }

    fn is_connected(&self, session: Key) -> bool {
        let connection = self.sessions.get(session).and_then(|slot| slot.connection);
        connection
            .and_then(|key| self.connections.get(key))
            .is_some_and(|connection| connection.live().is_some())
    }

    /// The publisher's side of a run: which packets there are, and which of them are new messages. Stops before one that
    /// has to be refused. Returns the bytes.
    fn take_run_in(
        &mut self,
        from: Publisher,
        repeat: &Repeat<'_>,
        input: &[u8],
        entries: &mut Vec<RunEntry>,
    ) -> usize {
        let mut used = 0;
        let mut payload_bytes = 0;
        self.with_session(from.connection, |session, link, cx| {
            while let Some(next) = repeat.next(&input[used..], cx.limits.packet_size_max) {
                if next.payload_len >= Outbox::SPLICE_MIN {
                    break;
                }
                let is_new = match session.handle_publish(link, repeat.qos(), next.packet_id, cx.limits) {
                    Ingress::Route => true,
                    Ingress::Repeat => false,
                    Ingress::ReceiveMaximumExceeded => break,
                };
                Session::acknowledge_publish(link, repeat.qos());
                let Repetition { len, payload_len, packet_id } = next;
                entries.push(RunEntry { at: used, len, payload_len, packet_id, is_new });
                used += len;
                payload_bytes += payload_len as u64;
            }
        });
        let counters = self.counters();
        counters.packets_received_total.add(entries.len() as u64);
        counters.publish_received_total.add(entries.len() as u64);
        counters.publish_bytes_received_total.add(payload_bytes);
        used
    }

    /// The receiver's side: what `deliver` does for one message.
    pub(super) fn deliver_entries(&mut self, receiver: Receiver, run: &KeptRun<'_>) {
        let Receiver { session, qos, retain, identifier } = receiver;
        let identifier = [identifier];
        let identifiers: &[u32] = if identifier == [0] { &[] } else { &identifier };
        let grant = &Grant { qos, retain, identifiers, share: None };
        let Some(slot) = self.sessions.get_mut(session) else { return };
        let Some(key) = slot.connection else { return };
        let Some(connection) = self.connections.get_mut(key) else { return };
        let mut drops = Drops::default();
        let mut cx = Cx {
            now: self.now,
            limits: &self.limits,
            budget: &mut self.budget,
            drops: &mut drops,
            spares: &mut self.spares,
        };
        let at_once = Self::wire(connection, &mut self.spare_buffers, &self.limits)
            .map_or(0, |mut wire| slot.session.deliver_run(&mut wire, run, grant, &mut cx));
        let (first, rest) = run.entries.split_at(at_once);
        let mut sent = at_once as u64;
        let mut payload_bytes = first.iter().map(|entry| entry.payload_len as u64).sum();
        let mut others = Vec::new();
        if !rest.is_empty() {
            let mut variants = self.scratch.variants.take().unwrap_or_default();
            for entry in rest.iter().filter(|entry| entry.is_new) {
                let mut fanout = run.fanout(entry, &mut variants);
                fanout.comes_to_its_end();
                let wire = Self::wire(connection, &mut self.spare_buffers, &self.limits);
                match slot.session.deliver(wire, &mut fanout, grant, &mut cx) {
                    Delivered::Sent => {
                        sent += 1;
                        payload_bytes += entry.payload_len as u64;
                    }
                    other => others.push(other),
                }
            }
            self.scratch.variants = Some(variants);
        }
        if sent > 0 && !connection.dirty {
            connection.dirty = true;
            self.dirty.push(key);
        }
        let buffer = connection.outbox.reclaim();
        self.recycle(buffer);
        if drops != Drops::default() {
            self.count_drops(drops);
            self.note_drops(session, drops);
        }
        let counters = self.counters();
        counters.publish_sent_total.add(sent);
        counters.publish_bytes_sent_total.add(payload_bytes);
        counters.packets_sent_total.add(sent);
        for delivered in others {
            self.count_delivered(session, delivered, 0);
        }
    }

    /// Gives a session the run in one piece; false, and nothing done, if it cannot have it so.
    fn deliver_run(&mut self, session: Key, run: &Run<'_>, grant: &Grant<'_>, topic: &str) -> bool {
        if !self.may_receive(session, topic) {
            return false;
        }
        let Some(key) = self.sessions.get(session).and_then(|slot| slot.connection) else { return false };
        let Some(connection) = self.connections.get_mut(key) else { return false };
        let Some(mut wire) = Self::wire(connection, &mut self.spare_buffers, &self.limits) else {
            return false;
        };
        if !run.deliver(&mut wire, grant) {
            return false;
        }
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(key);
        }
        let counters = self.counters();
        counters.publish_sent_total.add(run.count.into());
        counters.publish_bytes_sent_total.add(run.payload_bytes);
        counters.packets_sent_total.add(run.count.into());
        true
    }

    /// The same messages one by one: for other forms, other ways to be dropped, and what does not fit.
    fn deliver_singly(
        &mut self,
        session: Key,
        run: &Run<'_>,
        repeat: &Repeat<'_>,
        grant: &Grant<'_>,
        publisher: u64,
    ) {
        let mut variants = self.scratch.variants.take().unwrap_or_default();
        for (packet, payload) in repeat.packets(run.packets) {
            let packet_id_at = packet.len() - payload.len();
            let verbatim = Verbatim { packet, version: repeat.version(), packet_id_at };
            let message = view(repeat.topic(), payload, publisher);
            let mut fanout = Fanout::of_packet(message, Some(verbatim), &mut variants);
            self.deliver(session, &mut fanout, grant);
        }
        self.scratch.variants = Some(variants);
    }
}

/// A message of a run.
pub(super) fn view<'a>(topic: &'a str, payload: &'a [u8], publisher: u64) -> MessageView<'a> {
    MessageView {
        topic,
        properties: &[],
        payload,
        qos: Qos::AtMostOnce,
        retain: false,
        expires_at: NEVER,
        publisher,
        whole: None,
    }
}
