//! Packets of QoS 1 or 2 that follow each other on one topic, delivered in one go as far as they can be sent at once.
//!
//! Each of them is a delivery of its own, with a Packet Identifier and a place in flight. What says the same of all is
//! asked once: whether the client gets them in the form in which they came, what its quota and the socket have room for,
//! and what they cost. What does not go this way is left to [`Session::deliver`], which knows why.

use super::egress::Egress;
use super::fanout::{DUP, as_it_came};
use super::kept::Kept;
use super::link::in_flight_max;
use super::{Cx, Fanout, Grant, Session, Variants, Verbatim, Wire};
use crate::clock::NEVER;
use crate::memory::{Class, Message, MessageView, SpareMessages};
use crate::wire::Version;

/// One packet of a run at QoS 1 or 2.
#[derive(Copy, Clone, Debug)]
pub struct RunEntry {
    /// Where it lies in the input.
    pub at: usize,
    pub len: usize,
    pub payload_len: usize,
    /// Its publisher's.
    pub packet_id: u16,
    /// Not a QoS 2 message that has been routed already.
    pub is_new: bool,
}

/// Packets of one publisher that repeat one another but for Packet Identifier and payload, in their shortest form, with
/// the topic in full, without properties, and with payloads that are not sent by reference.
#[derive(Copy, Clone, Debug)]
pub struct KeptRun<'a> {
    pub entries: &'a [RunEntry],
    /// What the entries lie in, one behind the other.
    pub input: &'a [u8],
    /// What they have in common: all but the payload.
    pub message: MessageView<'a>,
    /// Of the publisher.
    pub version: Version,
}

impl<'a> KeptRun<'a> {
    #[inline]
    fn payload(&self, entry: &RunEntry) -> &'a [u8] {
        let end = entry.at + entry.len;
        &self.input[end - entry.payload_len..end]
    }

    #[inline]
    fn message(&self, entry: &RunEntry) -> MessageView<'a> {
        MessageView { payload: self.payload(entry), ..self.message }
    }

    /// Where the Packet Identifier is in the packet of `entry`.
    #[inline]
    fn packet_id_at(&self, entry: &RunEntry) -> usize {
        let properties_len = if self.version == Version::V5 { 1 } else { 0 };
        entry.len - entry.payload_len - properties_len - 2
    }

    /// Payload bytes of the first `count`.
    pub fn payload_bytes(&self, count: usize) -> u64 {
        self.entries[..count].iter().map(|entry| entry.payload_len as u64).sum()
    }

    /// One of them, to be delivered by itself; `shared` if it is kept already.
    pub fn fanout<'v>(
        &self,
        entry: &RunEntry,
        shared: Option<&Message>,
        variants: &'v mut Variants,
    ) -> Fanout<'v>
    where
        'a: 'v,
    {
        let packet = &self.input[entry.at..entry.at + entry.len];
        let verbatim = Verbatim { packet, version: self.version, packet_id_at: self.packet_id_at(entry) };
        Fanout::of_packet(self.message(entry), Some(verbatim), variants).sharing(shared)
    }
}

impl Session {
    /// Sends the first messages of `run`, as many as can be sent now in the form in which they came. Returns how many; the
    /// next one may still be sent, queued or dropped by itself. With `shared` it is one of several sessions: what they keep
    /// is there, from the first one that kept any.
    pub fn deliver_run(
        &mut self,
        wire: &mut Wire<'_>,
        run: &KeptRun<'_>,
        shared: Option<&mut Vec<Message>>,
        grant: &Grant<'_>,
        cx: &mut Cx<'_>,
    ) -> usize {
        debug_assert!(run.message.expires_at == NEVER && run.message.properties.is_empty());
        if !as_it_came(run.version, (run.message.qos, run.message.retain), wire.link, grant) {
            return 0;
        }
        let egress = self.egress.get_or_insert_with(|| cx.spares.take());
        let packet_id = &mut self.packet_id_next;
        let mut message = run.message;
        let sent = match shared {
            None => egress.deliver_run(wire, run, grant, packet_id, cx, |_, entry, messages| {
                message.payload = run.payload(entry);
                messages.make(&message)
            }),
            Some(shared) => egress.deliver_run(wire, run, grant, packet_id, cx, |at, _, messages| {
                if shared.is_empty() {
                    let new = run.entries.iter().take_while(|entry| entry.is_new);
                    shared.extend(new.map(|entry| messages.make(&run.message(entry))));
                }
                shared[at].clone()
            }),
        };
        self.trim(cx);
        sent
    }
}

impl Egress {
    /// `keep` gives the message of an entry.
    fn deliver_run(
        &mut self,
        wire: &mut Wire<'_>,
        run: &KeptRun<'_>,
        grant: &Grant<'_>,
        packet_id: &mut u16,
        cx: &mut Cx<'_>,
        mut keep: impl FnMut(usize, &RunEntry, &mut SpareMessages) -> Message,
    ) -> usize {
        if !self.queue.is_empty() || self.flight.is_due() {
            return 0; // [MQTT-4.6.0-5]
        }
        let (entries, cost) = self.fitting(wire, run, cx);
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return 0 };
        if !cx.budget.charge(Class::Queue, cost) {
            return 0;
        }
        let packets = &run.input[first.at..last.at + last.len];
        let out = wire.outbox.bytes_mut();
        let start = out.len();
        out.extend_from_slice(packets);
        let sent = &mut out[start..];
        for (at, entry) in entries.iter().enumerate() {
            self.flight.find_vacant(packet_id);
            let packet = &mut sent[entry.at - first.at..];
            packet[0] &= !DUP; // [MQTT-3.3.1-3]
            packet[run.packet_id_at(entry)..][..2].copy_from_slice(&packet_id.to_be_bytes());
            self.flight.insert(*packet_id, Kept::new(keep(at, entry, &mut cx.spares.messages), grant));
            *packet_id = packet_id.wrapping_add(1);
        }
        wire.send_room -= packets.len();
        wire.link.take_send_quota(entries.len() as u16);
        entries.len()
    }

    /// The entries at the front that are new and can be sent now, and what keeping them costs.
    #[inline]
    fn fitting<'a>(&self, wire: &Wire<'_>, run: &KeptRun<'a>, cx: &Cx<'_>) -> (&'a [RunEntry], usize) {
        let in_flight_room = in_flight_max(cx.limits).saturating_sub(self.flight.len());
        let count_max = in_flight_room.min(wire.link.send_quota().into()).min(run.entries.len());
        let (mut count, mut room, mut cost) = (0, wire.send_room, 0);
        for entry in &run.entries[..count_max] {
            if !entry.is_new || entry.len > room || entry.len > wire.link.packet_size_max as usize {
                break;
            }
            count += 1;
            room -= entry.len;
            cost += Kept::cost_of(&run.message(entry), &[]);
        }
        (&run.entries[..count], cost)
    }
}
