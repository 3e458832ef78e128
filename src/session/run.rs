//! Packets of QoS 0 that follow each other on one topic, delivered in one piece.

use super::fanout::as_it_came;
use super::{Grant, Wire};
use crate::wire::{Qos, Repeat, Version};

/// Packets of one publisher, each of which its receivers may get as it is.
#[derive(Copy, Clone, Debug)]
pub struct Run<'a> {
    pub packets: &'a [u8],
    pub count: u32,
    pub payload_bytes: u64,
    version: Version,
    /// Bytes of the largest.
    packet_len_max: usize,
}

impl<'a> Run<'a> {
    /// The packets at the front of `input` that repeat another one, with payloads of at most `payload_max` bytes.
    #[inline]
    pub fn of(repeat: &Repeat<'_>, input: &'a [u8], packet_size_max: u32, payload_max: usize) -> Run<'a> {
        let (mut len, mut count, mut payload_bytes, mut packet_len_max) = (0, 0, 0, 0);
        while let Some(next) = repeat.next(&input[len..], packet_size_max) {
            if next.payload_len > payload_max {
                break;
            }
            len += next.len;
            count += 1;
            payload_bytes += next.payload_len as u64;
            packet_len_max = packet_len_max.max(next.len);
        }
        Run { packets: &input[..len], count, payload_bytes, version: repeat.version(), packet_len_max }
    }

    /// Writes all of them; false, and nothing written, if a packet of this delivery would have another form than the
    /// publisher's, is too large for the client, or does not fit any more.
    #[inline]
    pub fn deliver(&self, wire: &mut Wire<'_>, grant: &Grant<'_>) -> bool {
        let as_they_are = as_it_came(self.version, (Qos::AtMostOnce, false), wire.link, grant)
            && self.packet_len_max <= wire.link.packet_size_max as usize
            && self.packets.len() <= wire.send_room;
        if as_they_are {
            wire.outbox.bytes_mut().extend_from_slice(self.packets);
            wire.send_room -= self.packets.len();
        }
        as_they_are
    }
}
