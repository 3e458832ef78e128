//! Runs between shards: what a publisher sends on one topic in one receive is one parcel for each other shard that wants
//! it, not one a message.
//!
//! The packets travel as they came, in one block that all targets share. The receiving shard looks its own route up once
//! and delivers as the publisher's shard does; where one session has two of the subscriptions, it goes message by message.

use crate::memory::{Message, MessageView, Outbox};
use crate::session::{Fanout, KeptRun, Run, RunEntry, Verbatim};
use crate::topic::{Repeats, Route};
use crate::wire::{Qos, Repeat, Version};

use super::Core;
use super::parcel::Parcel;
use super::publish::Publisher;
use super::run::view;
use super::run_kept::Scratch;

impl Core {
    /// To the other shards of `route`, none of which is full. `packets` repeat `repeat` and are all new.
    pub(super) fn pass_run(&mut self, from: Publisher, repeat: &Repeat<'_>, route: &Route, packets: &[u8]) {
        if route.remote.is_empty() || packets.is_empty() {
            return;
        }
        let run = MessageView { qos: repeat.qos(), ..view(repeat.topic(), packets, from.client_hash) };
        let packets = run.to_message();
        for shard in route.remote.iter() {
            self.exchange.push(
                shard,
                Parcel::Run { packets: packets.clone(), version: from.version },
                &self.env,
            );
        }
        self.clients.touch(from.connection, route.remote);
    }

    /// The same for packets of which some may have been routed before.
    pub(super) fn pass_entries(
        &mut self,
        from: Publisher,
        repeat: &Repeat<'_>,
        route: &Route,
        (entries, input): (&[RunEntry], &[u8]),
    ) {
        if entries.iter().all(|entry| entry.is_new) {
            return self.pass_run(from, repeat, route, input);
        }
        let fresh = entries.iter().filter(|entry| entry.is_new);
        let packets: Vec<u8> =
            fresh.flat_map(|entry| &input[entry.at..entry.at + entry.len]).copied().collect();
        self.pass_run(from, repeat, route, &packets);
    }

    /// A run of another shard, for the ordinary subscriptions of this one.
    pub(super) fn run_arrived(&mut self, packets: &Message, version: Version) {
        let MessageView { topic, payload: packets, qos, publisher, .. } = packets.view();
        let Some(repeat) = Repeat::of_known(version, qos, topic, packets) else {
            debug_assert!(false, "a run begins with a packet");
            return;
        };
        let route = self.sessions.router.route(topic);
        if qos == Qos::AtMostOnce && route.repeats == Repeats::Never {
            let run = Run::of(&repeat, packets, u32::MAX, Outbox::SPLICE_MIN - 1);
            debug_assert_eq!(run.packets.len(), packets.len());
            return self.deliver_run_to_all(&run, &repeat, &route, publisher);
        }
        let message = MessageView { qos, ..view(topic, &[], publisher) };
        if route.repeats == Repeats::Never {
            let mut entries = std::mem::take(&mut self.scratch.run.entries);
            entries.extend(repeat.packets(packets).scan(0, |end, (packet, payload)| {
                let at = *end;
                *end += packet.len();
                let (len, payload_len) = (packet.len(), payload.len());
                Some(RunEntry { at, len, payload_len, packet_id: 0, is_new: true })
            }));
            self.deliver_kept_run(&KeptRun { entries: &entries, input: packets, message, version }, &route);
            self.scratch.run.entries = Scratch::emptied(entries);
            return;
        }
        let mut variants = self.scratch.variants.take().unwrap_or_default();
        for (packet, payload) in repeat.packets(packets) {
            let packet_id_at = repeat.packet_id_at(packet, payload);
            let verbatim = Some(Verbatim { packet, version, packet_id_at });
            let mut fanout = Fanout::of_packet(MessageView { payload, ..message }, verbatim, &mut variants);
            self.deliver_ordinary(&route, &mut fanout);
        }
        self.scratch.variants = Some(variants);
    }
}
