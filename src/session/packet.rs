//! One outgoing PUBLISH: its head, whether it fits, and its way into the outbox.

use super::alias::Alias;
use super::kept::Kept;
use super::{Link, Retain, Wire};
use crate::clock::Millis;
use crate::limits::Limits;
use crate::memory::{MessageView, Outbox};
use crate::wire::{PublishHead, Qos};

/// Whether the client may have been sent this PUBLISH before. // [MQTT-3.3.1-1] [MQTT-3.3.1-3]
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    First,
    Again,
}

/// A PUBLISH that is about to be written.
pub(super) struct Packet<'p> {
    pub(super) head: PublishHead<'p>,
    pub(super) size: usize,
    /// The head sets an alias that is not in the link's table yet.
    sets_alias: bool,
}

/// Whether a packet may be written now.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Fits,
    /// Never, to this client. // [MQTT-3.1.2-24]
    TooLarge,
    /// Not before the socket has taken bytes.
    NoRoom,
}

impl<'p> Packet<'p> {
    /// The packet of `message` for `link`; by alias if that is allowed, and then it may be smaller.
    #[inline]
    pub(super) fn new(
        link: &Link,
        message: &MessageView<'p>,
        (qos, retain, identifiers): (Qos, Retain, &'p [u32]),
        packet_id: u16,
        sending: Sending,
        now: Millis,
    ) -> Packet<'p> {
        let head = PublishHead {
            version: link.version,
            dup: sending == Sending::Again,
            qos,
            retain: retain.is_set(link.version),
            packet_id,
            topic: message.topic,
            topic_alias: 0,
            // What was sent in time never expires, and 0 would say that it had. // [MQTT-3.3.2-6] [MQTT-4.3.3-7]
            expiry_s: message.expiry_s(now).map(|left| left.max(1)),
            identifiers,
            properties: message.properties,
            payload_len: message.payload.len(),
        };
        let plain = Packet { size: head.packet_size(), head, sets_alias: false };
        // A resend carries its topic in full, so that it can be told by its bytes alone. // [MQTT-3.3.2-7]
        let alias = if sending == Sending::First { link.alias_of(message.topic) } else { Alias::None };
        let (topic, topic_alias, sets_alias) = match alias {
            Alias::None => return plain,
            Alias::Known(alias) => ("", alias, false),
            Alias::New(alias) => (message.topic, alias, true),
        };
        let head = PublishHead { topic, topic_alias, ..head };
        let aliased = Packet { size: head.packet_size(), head, sets_alias };
        if aliased.size > link.packet_size_max as usize { plain } else { aliased }
    }

    /// The PUBLISH of a message that is kept.
    pub(super) fn of_kept(
        link: &Link,
        kept: &'p Kept,
        packet_id: u16,
        sending: Sending,
        now: Millis,
    ) -> Packet<'p> {
        let form = (kept.qos, kept.retain, kept.identifiers());
        Packet::new(link, &kept.message.view(), form, packet_id, sending, now)
    }

    #[inline]
    pub(super) fn fit(&self, wire: &Wire<'_>, limits: &Limits) -> Fit {
        fit(self.size, wire, limits)
    }

    /// Writes the whole packet; the payload by reference if it is large.
    pub(super) fn write_kept(&self, wire: &mut Wire<'_>, kept: &Kept) {
        self.head.encode(wire.outbox.bytes_mut());
        wire.outbox.push_payload(&kept.message);
        self.written(wire);
    }

    /// The packet is in the outbox.
    #[inline]
    pub(super) fn written(&self, wire: &mut Wire<'_>) {
        wire.send_room = wire.send_room.saturating_sub(self.size);
        if self.sets_alias {
            wire.link.alias_written(self.head.topic);
        }
    }

    /// Bytes of the packet that go into the outbox itself: all, or all but a payload that is sent by reference.
    #[inline]
    pub(super) fn inline_size(&self) -> usize {
        if self.head.payload_len < Outbox::SPLICE_MIN { self.size } else { self.size - self.head.payload_len }
    }
}

/// A packet larger than the whole send buffer goes out when nothing else waits; it would never fit otherwise.
#[inline]
pub(super) fn fit(size: usize, wire: &Wire<'_>, limits: &Limits) -> Fit {
    if size > wire.link.packet_size_max as usize {
        Fit::TooLarge
    } else if size <= wire.send_room || wire.send_room >= limits.send_buffer_bytes_max as usize {
        Fit::Fits
    } else {
        Fit::NoRoom
    }
}
