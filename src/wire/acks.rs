//! Acknowledgements as they mostly come: many of one kind, each of four bytes.
//!
//! Success and nothing else is said by the Packet Identifier alone, in all versions; there is nothing to decode.

use super::encode::AckKind;
use super::frame::kind;

/// Acknowledgements of one kind that follow each other, all with success and without properties.
#[derive(Copy, Clone, Debug)]
pub struct PlainAcks<'a> {
    kind: AckKind,
    packets: &'a [[u8; 4]],
}

impl<'a> PlainAcks<'a> {
    /// Those at the front of `input`; `None` if there is none. What ends them is for [`super::decode`] to judge.
    #[inline]
    pub fn of(input: &'a [u8]) -> Option<PlainAcks<'a>> {
        const PUBACK: u8 = kind::PUBACK << 4;
        const PUBREC: u8 = kind::PUBREC << 4;
        const PUBREL: u8 = kind::PUBREL << 4 | 0b0010;
        const PUBCOMP: u8 = kind::PUBCOMP << 4;
        let (packets, _) = input.as_chunks::<4>();
        let first = packets.first()?[0];
        let kind = match first {
            PUBACK => AckKind::PubAck,
            PUBREC => AckKind::PubRec,
            PUBREL => AckKind::PubRel,
            PUBCOMP => AckKind::PubComp,
            _ => return None,
        };
        let plain = |packet: &[u8; 4]| packet[..2] == [first, 2] && packet[2..] != [0, 0];
        let count = packets.iter().take_while(|packet| plain(packet)).count();
        (count > 0).then_some(PlainAcks { kind, packets: &packets[..count] })
    }

    pub fn kind(&self) -> AckKind {
        self.kind
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.packets.len()
    }

    /// Bytes of all.
    pub fn bytes_len(&self) -> usize {
        size_of_val(self.packets)
    }

    /// At most `count` of them at a time.
    pub fn chunks(self, count: usize) -> impl Iterator<Item = PlainAcks<'a>> {
        self.packets.chunks(count).map(move |packets| PlainAcks { kind: self.kind, packets })
    }

    /// Never 0.
    pub fn packet_ids(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.packets.iter().map(|packet| u16::from_be_bytes([packet[2], packet[3]]))
    }
}
