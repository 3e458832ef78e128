//! Messages of one publisher on one topic that came together, delivered in one go as far as they
//! can be sent at once.
//!
//! A batch is one message, whatever it is like, or several whose PUBLISH packets differ in nothing
//! but Packet Identifier and payload. At QoS 1 and 2 each message is a delivery of its own, with a
//! Packet Identifier and a place in flight. But some questions have one answer for all of them:
//! whether the client gets them in the form in which they came, how many its quota and the socket
//! have room for, and what they cost. What does not go this way is left to [`Session::deliver`],
//! message by message, which knows why.

use super::egress::Egress;
use super::fanout::{DUP, as_it_came};
use super::kept::Kept;
use super::link::in_flight_max;
use super::{Cx, Fanout, Grant, Session, Variants, Verbatim, Wire};
use crate::clock::NEVER;
use crate::memory::{Class, Message, MessageView, SpareMessages};
use crate::wire::{Qos, Repeat, Version};

/// One packet of a batch of several.
#[derive(Copy, Clone, Debug)]
pub struct Entry {
    /// Where it lies in the packets of its batch.
    at: u32,
    len: u32,
    payload_len: u32,
    /// Its publisher's; 0 at QoS 0.
    pub packet_id: u16,
}

impl Entry {
    #[inline]
    pub fn new(at: usize, len: usize, payload_len: usize, packet_id: u16) -> Entry {
        // A packet is smaller than 2^28 bytes, and so is what is received at once.
        Entry { at: at as u32, len: len as u32, payload_len: payload_len as u32, packet_id }
    }

    /// Bytes of its packet.
    pub fn size(&self) -> usize {
        self.len as usize
    }

    #[inline]
    fn end(&self) -> usize {
        self.at as usize + self.len as usize
    }
}

/// One or more messages of one publisher on one topic, all of them new.
#[derive(Copy, Clone, Debug)]
pub struct Batch<'a> {
    /// What they have in common, and the payload of the first.
    pub message: MessageView<'a>,
    /// The packet of the first, if deliveries may copy it; if there are several, they may copy all.
    verbatim: Option<Verbatim<'a>>,
    /// The first, if it is kept already.
    kept: Option<&'a Message>,
    /// If there are several: their packets, one behind the other.
    packets: &'a [u8],
    entries: &'a [Entry],
    /// Of all of them.
    payload_bytes: u64,
}

impl<'a> Batch<'a> {
    /// A single message, and the packet that it came in if that can be used.
    #[inline]
    pub fn of_one(message: MessageView<'a>, verbatim: Option<Verbatim<'a>>) -> Batch<'a> {
        Batch { message, verbatim, kept: None, packets: &[], entries: &[], payload_bytes: 0 }
    }

    /// A single message that is kept already; no second copy is made of it.
    pub fn of_kept(message: &'a Message) -> Batch<'a> {
        Batch { kept: Some(message), ..Batch::of_one(message.view(), None) }
    }

    /// Several messages: `packets` lie one behind the other and repeat one another but for Packet
    /// Identifier and payload, in their shortest form, with the topic in full, without properties,
    /// and with payloads that are not sent by reference. `message` is the first of them.
    pub fn of_several(
        message: MessageView<'a>,
        version: Version,
        (packets, payload_bytes): (&'a [u8], u64),
        entries: &'a [Entry],
    ) -> Batch<'a> {
        debug_assert!(message.expires_at == NEVER && message.properties.is_empty() && entries.len() > 1);
        let batch = Batch { message, verbatim: None, kept: None, packets, entries, payload_bytes };
        let verbatim = entries.first().map(|first| batch.verbatim_of(first, version));
        Batch { verbatim, ..batch }
    }

    /// Several messages as [`Batch::packed`] put them together. `entries` is room for what is known
    /// of each.
    ///
    /// Returns `None` if that is not what `message` is.
    pub fn of_packed(
        message: &'a Message,
        version: Version,
        entries: &'a mut Vec<Entry>,
    ) -> Option<Batch<'a>> {
        let packed = message.view();
        let repeat = Repeat::of_known(version, packed.qos, packed.topic, packed.payload)?;
        let (mut at, mut payload_bytes) = (0, 0);
        while let Some(next) = repeat.next(&packed.payload[at..], u32::MAX) {
            entries.push(Entry::new(at, next.len, next.payload_len, next.packet_id));
            at += next.len;
            payload_bytes += next.payload_len as u64;
        }
        debug_assert!(at == packed.payload.len(), "packets and nothing else");
        let first = entries.first()?;
        let payload = &packed.payload[first.end() - first.payload_len as usize..first.end()];
        let message = MessageView { payload, ..packed };
        Some(Batch::of_several(message, version, (packed.payload, payload_bytes), entries))
    }

    /// Several messages as one: their packets are its payload.
    pub fn packed(&self) -> Message {
        debug_assert!(self.count() > 1);
        MessageView { payload: self.packets, ..self.message }.to_message()
    }

    /// How many messages there are.
    #[inline]
    pub fn count(&self) -> usize {
        self.entries.len().max(1)
    }

    /// The version of the publisher, if there are several.
    pub fn version_of_several(&self) -> Option<Version> {
        self.verbatim.filter(|_| self.count() > 1).map(|verbatim| verbatim.version)
    }

    /// The first message, to be delivered by itself.
    #[inline]
    pub fn first<'v>(&self, variants: &'v mut Variants) -> Fanout<'v>
    where
        'a: 'v,
    {
        Fanout::of_packet(self.message, self.verbatim, variants).sharing(self.kept)
    }

    /// Makes `fanout` that of the message at `at` of several; `shared` if it is kept already.
    pub fn turn_to<'v>(&self, at: usize, shared: Option<&Message>, fanout: &mut Fanout<'v>)
    where
        'a: 'v,
    {
        if let (Some(entry), Some(first)) = (self.entries.get(at), &self.verbatim) {
            fanout.turn_to(self.message_of(entry), self.verbatim_of(entry, first.version), shared);
        }
    }

    #[inline]
    fn packet(&self, entry: &Entry) -> &'a [u8] {
        &self.packets[entry.at as usize..entry.end()]
    }

    #[inline]
    fn message_of(&self, entry: &Entry) -> MessageView<'a> {
        let payload = &self.packets[entry.end() - entry.payload_len as usize..entry.end()];
        MessageView { payload, ..self.message }
    }

    #[inline]
    fn verbatim_of(&self, entry: &Entry, version: Version) -> Verbatim<'a> {
        let packet_id_at = packet_id_at(entry, version);
        Verbatim { packet: self.packet(entry), version, packet_id_at }
    }

    /// Payload bytes of the first `count` of several.
    pub fn payload_bytes(&self, count: usize) -> u64 {
        if count == self.entries.len() {
            return self.payload_bytes;
        }
        self.entries[..count].iter().map(|entry| u64::from(entry.payload_len)).sum()
    }

    /// How many of the first `count_max` the socket has room for, if the client takes packets of
    /// their size.
    #[inline]
    fn fitting(&self, wire: &Wire<'_>, count_max: usize) -> usize {
        let size_max = wire.link.packet_size_max as usize;
        let count = count_max.min(self.entries.len());
        // Mostly there is room for all.
        let bytes = self.entries[..count].last().map_or(0, Entry::end);
        if bytes <= wire.send_room.min(size_max) {
            return count;
        }
        let fits = |entry: &&Entry| entry.end() <= wire.send_room && entry.len as usize <= size_max;
        self.entries[..count].iter().take_while(fits).count()
    }
}

/// Where the Packet Identifier is in the packet of `entry`; of no meaning at QoS 0.
#[inline]
fn packet_id_at(entry: &Entry, version: Version) -> usize {
    let properties_len = if version == Version::V5 { 1 } else { 0 };
    (entry.len as usize - entry.payload_len as usize - properties_len).saturating_sub(2)
}

impl Session {
    /// Sends the first messages of a batch of several, as many as can be sent now in the form in
    /// which they came. Returns how many; the next one may still be sent, queued or dropped by
    /// itself. With `shared` it is one of several sessions: what they keep is there, from the first
    /// one on that kept any.
    pub fn deliver_front(
        &mut self,
        wire: &mut Wire<'_>,
        batch: &Batch<'_>,
        shared: Option<&mut Vec<Message>>,
        grant: &Grant<'_>,
        cx: &mut Cx<'_>,
    ) -> usize {
        let Some(Verbatim { version, .. }) = batch.verbatim else { return 0 };
        if !as_it_came(version, (batch.message.qos, batch.message.retain), wire.link, grant) {
            return 0;
        }
        if grant.qos == Qos::AtMostOnce {
            // It takes no quota, and waits for nothing. // [MQTT-4.3.1-1] [U5-4.9-3]
            let count = batch.fitting(wire, usize::MAX);
            let bytes = batch.entries[..count].last().map_or(0, Entry::end);
            wire.outbox.bytes_mut().extend_from_slice(&batch.packets[..bytes]);
            wire.send_room -= bytes;
            return count;
        }
        let egress = self.egress.get_or_insert_with(|| cx.spares.take());
        let packet_id = &mut self.packet_id_next;
        let sent = match shared {
            None => egress.deliver_front(wire, batch, grant, packet_id, cx, |_, entry, messages| {
                messages.make(&batch.message_of(entry))
            }),
            Some(shared) => egress.deliver_front(wire, batch, grant, packet_id, cx, |at, _, messages| {
                if shared.is_empty() {
                    shared.extend(batch.entries.iter().map(|entry| messages.make(&batch.message_of(entry))));
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
    fn deliver_front(
        &mut self,
        wire: &mut Wire<'_>,
        batch: &Batch<'_>,
        grant: &Grant<'_>,
        packet_id: &mut u16,
        cx: &mut Cx<'_>,
        mut keep: impl FnMut(usize, &Entry, &mut SpareMessages) -> Message,
    ) -> usize {
        let Some(Verbatim { version, .. }) = batch.verbatim else { return 0 };
        if !self.queue.is_empty() || self.flight.is_due() {
            return 0; // [MQTT-4.6.0-5]
        }
        let in_flight_room = in_flight_max(cx.limits).saturating_sub(self.flight.len());
        let count = batch.fitting(wire, in_flight_room.min(wire.link.send_quota().into()));
        let entries = &batch.entries[..count];
        let Some(last) = entries.last() else { return 0 };
        let cost = entries.iter().map(|entry| Kept::cost_of(&batch.message_of(entry), &[])).sum();
        if !cx.budget.charge(Class::Queue, cost) {
            return 0;
        }
        let packets = &batch.packets[..last.end()];
        let out = wire.outbox.bytes_mut();
        let start = out.len();
        out.extend_from_slice(packets);
        let sent = &mut out[start..];
        for (at, entry) in entries.iter().enumerate() {
            self.flight.find_vacant(packet_id);
            let packet = &mut sent[entry.at as usize..];
            packet[0] &= !DUP; // [MQTT-3.3.1-3]
            packet[packet_id_at(entry, version)..][..2].copy_from_slice(&packet_id.to_be_bytes());
            self.flight.insert(*packet_id, Kept::new(keep(at, entry, &mut cx.spares.messages), grant));
            *packet_id = packet_id.wrapping_add(1);
        }
        wire.send_room -= packets.len();
        wire.link.take_send_quota(count as u16); // no more than the quota
        count
    }
}
