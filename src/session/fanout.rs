//! One message on its way to many sessions: each form of it is encoded once, and it is kept once at most.
//!
//! Receivers mostly agree in all that their packet depends on. The first one's packet is encoded where it goes, which is
//! all that a message with one receiver needs. From the second one on, each form is encoded into a [`Variants`] and
//! copied from there; the Packet Identifier is put into the copy.
//!
//! Mostly not even that: what a receiver is due is the packet that the publisher sent, but for the Packet Identifier and
//! DUP ([`Verbatim`]). Then its bytes are copied as they lie in the receive buffer.

use std::ops::Range;

use super::packet::{Packet, Sending};
use super::{Grant, Link, Wire};
use crate::clock::Millis;
use crate::memory::{Message, MessageView, Outbox, SpareMessages};
use crate::wire::{PublishHead, Qos, Version};

/// One message and what its deliveries have in common.
#[derive(Debug)]
pub struct Fanout<'a> {
    /// What is delivered.
    pub message: MessageView<'a>,
    shared: Option<Message>,
    verbatim: Option<Verbatim<'a>>,
    variants: &'a mut Variants,
    /// Whether a packet was written already.
    begun: bool,
    /// Whether nobody wants the message after the next delivery.
    last: bool,
    /// By which number the message was written down; 0 if it was not. Belongs to the shard.
    pub written: u64,
}

/// The packet that a message came in. Only for one whose properties are all forwarded, in the shortest form, with the
/// topic in full, and whose payload is not sent by reference: then a delivery of the same form differs from it in nothing
/// but Packet Identifier and DUP.
#[derive(Copy, Clone, Debug)]
pub struct Verbatim<'a> {
    pub packet: &'a [u8],
    /// Of its publisher.
    pub version: Version,
    /// Where the Packet Identifier is in the packet; of no meaning at QoS 0.
    pub packet_id_at: usize,
}

/// How one delivery gets its bytes.
pub(super) enum Form<'p> {
    Verbatim(Verbatim<'p>),
    Encoded(Packet<'p>),
}

impl Form<'_> {
    /// Bytes of the whole packet.
    #[inline]
    pub(super) fn size(&self) -> usize {
        match self {
            Form::Verbatim(verbatim) => verbatim.packet.len(),
            Form::Encoded(packet) => packet.size,
        }
    }
}

/// DUP in the first byte of a PUBLISH.
pub(super) const DUP: u8 = 0x08;

/// Whether `link` is due the packet of a publisher of `version` as it came, but for Packet Identifier and DUP; if it is a
/// packet as [`Verbatim`] wants it.
#[inline]
pub(super) fn as_it_came(
    version: Version,
    (qos, retain): (Qos, bool),
    link: &Link,
    grant: &Grant<'_>,
) -> bool {
    (version == Version::V5) == (link.version == Version::V5)
        && grant.qos == qos
        && grant.retain.is_set(link.version) == retain
        && grant.identifiers.is_empty()
        && !link.assigns_aliases()
}

impl Verbatim<'_> {
    /// Appends the packet as a delivery of its own, which nobody was sent before. // [MQTT-3.3.1-3]
    #[inline]
    fn write(&self, packet_id: u16, wire: &mut Wire<'_>) {
        let out = wire.outbox.bytes_mut();
        let start = out.len();
        out.extend_from_slice(self.packet);
        if packet_id != 0 {
            out[start] &= !DUP;
            out[start + self.packet_id_at..][..2].copy_from_slice(&packet_id.to_be_bytes());
        }
        wire.send_room = wire.send_room.saturating_sub(self.packet.len());
    }
}

/// Encoded forms of one message; belongs to a shard, which lends it to one [`Fanout`] after another.
#[derive(Debug, Default)]
pub struct Variants {
    entries: Vec<Variant>,
    bytes: Vec<u8>,
    identifiers: Vec<u32>,
}

#[derive(Debug)]
struct Variant {
    /// 3.1 and 3.1.1 do not differ here.
    has_properties: bool,
    qos: Qos,
    retain: bool,
    expiry_s: Option<u32>,
    /// In `Variants::identifiers`.
    identifiers: Range<usize>,
    /// In `Variants::bytes`: the packet, without a payload that is sent by reference.
    bytes: Range<usize>,
    /// Where the Packet Identifier is in the packet; of no meaning at QoS 0.
    packet_id_at: usize,
}

impl<'a> Fanout<'a> {
    pub fn new(message: MessageView<'a>, variants: &'a mut Variants) -> Fanout<'a> {
        Self::of_packet(message, None, variants)
    }

    /// Of a message and the packet that it came in, if that can be used.
    #[inline]
    pub fn of_packet(
        message: MessageView<'a>,
        verbatim: Option<Verbatim<'a>>,
        variants: &'a mut Variants,
    ) -> Fanout<'a> {
        debug_assert!(verbatim.is_none() || message.payload.len() < Outbox::SPLICE_MIN);
        variants.clear();
        Fanout { message, shared: None, verbatim, variants, begun: false, last: false, written: 0 }
    }

    /// Of a message that is kept already; no second copy is made of it.
    pub fn of_shared(message: &'a Message, variants: &'a mut Variants) -> Fanout<'a> {
        variants.clear();
        let (message, shared) = (message.view(), Some(message.clone()));
        Fanout { message, shared, verbatim: None, variants, begun: false, last: false, written: 0 }
    }

    /// With what is kept of the message already, if it is.
    #[inline]
    pub(super) fn sharing(self, shared: Option<&Message>) -> Fanout<'a> {
        Fanout { shared: shared.cloned(), ..self }
    }

    /// Goes on to another message.
    pub(super) fn turn_to(
        &mut self,
        message: MessageView<'a>,
        verbatim: Verbatim<'a>,
        shared: Option<&Message>,
    ) {
        self.variants.clear();
        self.message = message;
        self.shared = shared.cloned();
        self.verbatim = Some(verbatim);
        (self.begun, self.last, self.written) = (false, false, 0);
    }

    /// The next delivery is the last one: its session may have the message for itself.
    pub fn comes_to_its_end(&mut self) {
        self.last = true;
    }

    /// The message for one session to keep.
    pub(super) fn keep(&mut self, spares: &mut SpareMessages) -> Message {
        let shared = self.shared.take().unwrap_or_else(|| spares.make(&self.message));
        if self.last { shared } else { self.shared.insert(shared).clone() }
    }

    /// What `link` is sent under `grant`, for the first time.
    #[inline]
    pub(super) fn form<'p>(&self, link: &Link, grant: &Grant<'p>, packet_id: u16, now: Millis) -> Form<'p>
    where
        'a: 'p,
    {
        if let Some(verbatim) = self.verbatim(link, grant) {
            return Form::Verbatim(verbatim);
        }
        let form = (grant.qos, grant.retain, grant.identifiers);
        Form::Encoded(Packet::new(link, &self.message, form, packet_id, Sending::First, now))
    }

    #[inline]
    pub(super) fn verbatim(&self, link: &Link, grant: &Grant<'_>) -> Option<Verbatim<'a>> {
        let verbatim = self.verbatim.as_ref()?;
        let form = (self.message.qos, self.message.retain);
        as_it_came(verbatim.version, form, link, grant).then_some(*verbatim)
    }

    /// The message to keep; copied at the first call.
    pub fn shared(&mut self) -> &Message {
        self.shared.get_or_insert_with(|| self.message.to_message())
    }

    /// Writes what [`Fanout::form`] gave.
    #[inline]
    pub(super) fn write(&mut self, form: &Form<'_>, packet_id: u16, wire: &mut Wire<'_>) {
        match form {
            Form::Verbatim(verbatim) => verbatim.write(packet_id, wire),
            Form::Encoded(packet) => self.write_encoded(packet, wire),
        }
    }

    fn write_encoded(&mut self, packet: &Packet<'_>, wire: &mut Wire<'_>) {
        let by_reference = self.message.payload.len() >= Outbox::SPLICE_MIN;
        let inline_payload = if by_reference { &[] } else { self.message.payload };
        let cacheable = packet.head.topic_alias == 0 && packet.inline_size() <= Variants::PACKET_SIZE_MAX;
        if self.begun && cacheable {
            self.variants.write(&packet.head, inline_payload, wire.outbox.bytes_mut());
        } else {
            self.begun |= cacheable;
            packet.head.encode(wire.outbox.bytes_mut());
            wire.outbox.bytes_mut().extend_from_slice(inline_payload);
        }
        if by_reference {
            wire.outbox.push_payload(self.shared());
        }
        packet.written(wire);
    }
}

impl Variants {
    /// Forms kept at a time. Beyond it they are forgotten and gathered anew.
    const LEN_MAX: usize = 16;
    /// Bytes of a packet that is kept. A larger one is encoded for each receiver.
    const PACKET_SIZE_MAX: usize = 8192;

    pub fn new() -> Variants {
        Variants::default()
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.bytes.clear();
        self.identifiers.clear();
    }

    fn write(&mut self, head: &PublishHead<'_>, payload: &[u8], out: &mut Vec<u8>) {
        let at = match self.entries.iter().position(|variant| self.is_form_of(variant, head)) {
            Some(at) => at,
            None => self.encode(head, payload),
        };
        let variant = &self.entries[at];
        let start = out.len();
        out.extend_from_slice(&self.bytes[variant.bytes.clone()]);
        if head.qos != Qos::AtMostOnce {
            let packet_id_at = start + variant.packet_id_at;
            out[packet_id_at..packet_id_at + 2].copy_from_slice(&head.packet_id.to_be_bytes());
        }
    }

    #[inline]
    fn is_form_of(&self, variant: &Variant, head: &PublishHead<'_>) -> bool {
        variant.qos == head.qos
            && variant.has_properties == (head.version == Version::V5)
            && variant.retain == head.retain
            && (!variant.has_properties
                || variant.expiry_s == head.expiry_s
                    && self.identifiers[variant.identifiers.clone()] == *head.identifiers)
    }

    /// The place of the new entry.
    fn encode(&mut self, head: &PublishHead<'_>, payload: &[u8]) -> usize {
        if self.entries.len() == Self::LEN_MAX {
            self.clear();
        }
        let start = self.bytes.len();
        head.encode(&mut self.bytes);
        self.bytes.extend_from_slice(payload);
        // After the fixed header, whose length ends with a byte below 0x80, comes the topic.
        let length_len = 1 + self.bytes[start + 1..].iter().take_while(|&&byte| byte >= 0x80).count();
        let identifiers_start = self.identifiers.len();
        self.identifiers.extend_from_slice(head.identifiers);
        self.entries.push(Variant {
            has_properties: head.version == Version::V5,
            qos: head.qos,
            retain: head.retain,
            expiry_s: head.expiry_s,
            identifiers: identifiers_start..self.identifiers.len(),
            bytes: start..self.bytes.len(),
            packet_id_at: 1 + length_len + 2 + head.topic.len(),
        });
        self.entries.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{Delivered, Grant};
    use super::*;

    #[test]
    fn small_qos_0_messages_are_not_kept_and_forms_reuse_their_memory() {
        let mut bench = Bench::new().connected();
        let mut variants = Variants::new();
        let mut capacities = Vec::new();
        for _ in 0..10 {
            let mut fanout = Fanout::new(message("topic", &[1; 500]), &mut variants);
            for identifier in 1..10 {
                let grant = Grant { identifiers: &[identifier], ..at(Qos::AtMostOnce) };
                assert_eq!(bench.deliver_to_one(&mut fanout, grant), Delivered::Sent);
            }
            assert!(fanout.shared.is_none());
            assert_eq!(bench.sent().len(), 9);
            capacities.push((
                variants.bytes.capacity(),
                variants.identifiers.capacity(),
                variants.entries.capacity(),
            ));
        }
        capacities.dedup();
        assert_eq!(capacities.len(), 1);
        assert!(bench.session.egress.is_none());
    }
}
