//! PUBLISH packets that repeat one another but for Packet Identifier and payload.
//!
//! A packet without properties is its fixed header, the topic, perhaps a Packet Identifier, perhaps an empty property
//! block, and the payload. Where type, flags and topic are what they were in a packet that was decoded, little is left to
//! be checked.

use super::frame::{Frame, vbi_len};
use super::{Publish, Qos, Version};

/// What a repetition has in common with the packet that it repeats.
#[derive(Copy, Clone, Debug)]
pub struct Repeat<'a> {
    version: Version,
    qos: Qos,
    /// Type and flags.
    first: u8,
    /// The topic with its length in front.
    head: &'a [u8],
    /// Everything up to the end of the topic.
    before: &'a [u8],
    payload_len: usize,
}

/// One repetition at the front of an input.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Repetition {
    /// Of the whole packet.
    pub len: usize,
    pub payload_len: usize,
    /// 0 at QoS 0.
    pub packet_id: u16,
}

impl<'a> Repeat<'a> {
    /// Of a packet that was decoded to `publish`; `None` if it is to be retained, has properties or is not in its shortest
    /// form.
    #[inline]
    pub fn of(
        version: Version,
        frame: &Frame<'a>,
        packet: &'a [u8],
        publish: &Publish<'a>,
    ) -> Option<Repeat<'a>> {
        let head_len = 2 + publish.topic.len();
        let between = between(version, publish.qos);
        let simple = !publish.retain
            && head_len + between + publish.payload.len() == frame.body.len()
            && !publish.topic.is_empty()
            && frame.is_shortest();
        let before_len = packet.len() - frame.body.len() + head_len;
        simple.then_some(Repeat {
            version,
            qos: publish.qos,
            first: frame.first,
            head: &frame.body[..head_len],
            before: &packet[..before_len],
            payload_len: publish.payload.len(),
        })
    }

    /// Of the first of `packets`, which is known to be what [`Repeat::of`] takes, and on `topic`.
    pub fn of_known(version: Version, qos: Qos, topic: &'a str, packets: &'a [u8]) -> Option<Repeat<'a>> {
        let first = *packets.first()?;
        let (mut remaining, mut body_at) = (0, 1);
        loop {
            let byte = *packets.get(body_at)?;
            remaining |= usize::from(byte & 0x7F) << (7 * (body_at - 1));
            body_at += 1;
            if byte & 0x80 == 0 {
                break;
            }
            if body_at > 4 {
                return None;
            }
        }
        let head_len = 2 + topic.len();
        let before_len = body_at + head_len;
        Some(Repeat {
            version,
            qos,
            first,
            head: packets.get(body_at..before_len)?,
            before: packets.get(..before_len)?,
            payload_len: remaining.checked_sub(head_len + between(version, qos))?,
        })
    }

    /// The packet at the front of `input`, if it is whole, a repetition, and not larger than `packet_size_max`.
    #[inline(always)] // its callers ask in a loop
    pub fn next(&self, input: &[u8], packet_size_max: u32) -> Option<Repetition> {
        // Mostly even the length is the same.
        let (at, len) = if input.starts_with(self.before) {
            let at = self.before.len();
            (at, at + between(self.version, self.qos) + self.payload_len)
        } else {
            self.other_length(input, packet_size_max)?
        };
        let rest = input.get(at..len)?;
        let (packet_id, rest) = match self.qos {
            Qos::AtMostOnce => (0, rest),
            Qos::AtLeastOnce | Qos::ExactlyOnce => {
                let (packet_id, rest) = rest.split_first_chunk::<2>()?;
                (u16::from_be_bytes(*packet_id), rest)
            }
        };
        let payload = match self.version {
            Version::V5 => rest.strip_prefix(&[0])?,
            Version::V31 | Version::V311 => rest,
        };
        let numbered = packet_id != 0 || self.qos == Qos::AtMostOnce;
        numbered.then_some(Repetition { len, payload_len: payload.len(), packet_id })
    }

    /// Where the topic ends and where the packet does.
    fn other_length(&self, input: &[u8], packet_size_max: u32) -> Option<(usize, usize)> {
        let (&first, rest) = input.split_first()?;
        if first != self.first {
            return None;
        }
        let mut remaining = 0;
        for i in 0..4 {
            let byte = *rest.get(i)?;
            remaining |= usize::from(byte & 0x7F) << (7 * i);
            if byte & 0x80 != 0 {
                continue;
            }
            let shortest = vbi_len(remaining as u32) == 1 + i;
            let (body_at, len) = (2 + i, 2 + i + remaining);
            let same = input.get(body_at..len)?.starts_with(self.head);
            let fits = len <= packet_size_max as usize;
            return (shortest && same && fits).then_some((body_at + self.head.len(), len));
        }
        None
    }
}

/// Bytes between topic and payload.
#[inline]
fn between(version: Version, qos: Qos) -> usize {
    let packet_id = if qos == Qos::AtMostOnce { 0 } else { 2 };
    packet_id + if version == Version::V5 { 1 } else { 0 }
}
