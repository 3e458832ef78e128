//! Runs: PUBLISH packets that follow each other in one receive and differ in nothing but Packet Identifier and payload.
//!
//! Publishers that send a lot repeat themselves, and what is decided for one packet holds for the next: the topic is
//! valid, its route and the rights are known, the packet goes to its receivers as it came. So everything is looked up once
//! for the run. It is not another way of routing: the first packet of a run has been through `publish`, and only routes
//! without share groups are used. Other shards get a run as one parcel; see `run_between`.
//!
//! At QoS 0 each receiver gets the run in one piece, or, if it cannot have it as it is, message by message. For QoS 1 and 2
//! see `run_kept`.

use crate::clock::NEVER;
use crate::memory::{MessageView, Outbox};
use crate::session::{Fanout, Run, Verbatim};
use crate::topic::{Repeats, Route};
use crate::wire::{Qos, Repeat};

use super::Core;
use super::connection::Known;
use super::deliver::Receiver;
use super::losses::Denied;
use super::publish::Publisher;

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
        let plain = known.epoch == self.sessions.router.routes_epoch()
            && route.repeats == Repeats::Never
            && route.groups.is_empty()
            && route.remote.intersection(self.exchange.links.full()).is_empty()
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
        let packet_size_max = self.clients.packet_size_max(from.connection);
        let run = Run::of(repeat, input, packet_size_max, Outbox::SPLICE_MIN - 1);
        if run.count == 0 {
            return 0;
        }
        let counters = self.env.counters();
        counters.packets_received_total.add(run.count.into());
        counters.publish_received_total.add(run.count.into());
        counters.publish_bytes_received_total.add(run.payload_bytes);
        if !self.sessions.may_publish(from.session, &route.topic, &mut self.env) {
            self.env.counters().dropped_denied_total.add(run.count.into());
            self.log_denied(from.session, Denied::Publish, &route.topic, run.count.into());
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
        self.each_receiver(route, &view(repeat.topic(), &[], publisher), |core, receiver| {
            if !core.deliver_run(receiver, run, repeat.topic()) {
                core.deliver_singly(receiver, run, repeat, publisher);
            }
        });
    }

    /// Gives it the run in one piece; false, and nothing done, if it cannot have it so.
    fn deliver_run(&mut self, receiver: &Receiver, run: &Run<'_>, topic: &str) -> bool {
        if !self.sessions.may_receive(receiver.session, topic, &mut self.env)
            || self.sessions.has_cursors(receiver.session)
        {
            return false;
        }
        let delivered =
            self.with_wire(receiver.session, |_, mut wire, _| run.deliver(&mut wire, &receiver.grant()));
        let Some((key, true)) = delivered else { return false };
        self.sent_of_run(key, run.count.into(), run.payload_bytes);
        true
    }

    /// The same messages one by one: for other forms, other ways to be dropped, and what does not fit.
    fn deliver_singly(&mut self, receiver: &Receiver, run: &Run<'_>, repeat: &Repeat<'_>, publisher: u64) {
        let mut variants = self.scratch.variants.take().unwrap_or_default();
        for (packet, payload) in repeat.packets(run.packets) {
            let packet_id_at = packet.len() - payload.len();
            let verbatim = Verbatim { packet, version: repeat.version(), packet_id_at };
            let message = view(repeat.topic(), payload, publisher);
            let mut fanout = Fanout::of_packet(message, Some(verbatim), &mut variants);
            let matched = std::slice::from_ref(&receiver.subscription);
            self.deliver(receiver.session, &mut fanout, &receiver.grant(), matched);
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
