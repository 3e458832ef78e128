//! PUBLISH packets that repeat one another but for their payloads.
//!
//! A packet of QoS 0 without properties is its fixed header, the topic, perhaps an empty property block, and the payload.
//! Where all before the payload is what it was in a packet that was decoded, there is nothing left to be checked.

use super::frame::{Frame, vbi_len};
use super::{Publish, Qos, Version};

/// What a repetition has in common with the packet that it repeats.
#[derive(Copy, Clone, Debug)]
pub struct Repeat<'a> {
    version: Version,
    /// Type and flags.
    first: u8,
    /// Topic and, in v5, the property block.
    head: &'a [u8],
    topic: &'a str,
    /// Everything before the payload, and the length of the payload.
    last: (&'a [u8], usize),
}

impl<'a> Repeat<'a> {
    /// Of a packet that was decoded to `publish`; `None` unless it is of QoS 0, not to be retained, without properties and
    /// in its shortest form.
    #[inline]
    pub fn of(
        version: Version,
        frame: &Frame<'a>,
        packet: &'a [u8],
        publish: &Publish<'a>,
    ) -> Option<Repeat<'a>> {
        let properties_len = if version == Version::V5 { 1 } else { 0 };
        let head_len = 2 + publish.topic.len() + properties_len;
        let simple = publish.qos == Qos::AtMostOnce
            && !publish.retain
            && head_len + publish.payload.len() == frame.body.len()
            && !publish.topic.is_empty()
            && frame.is_shortest();
        let before_payload = packet.len() - publish.payload.len();
        simple.then_some(Repeat {
            version,
            first: frame.first,
            head: &frame.body[..head_len],
            topic: publish.topic,
            last: (&packet[..before_payload], publish.payload.len()),
        })
    }

    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// Of the connection.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Length of the packet at the front of `input` and of its payload, if it is whole, a repetition, and not larger than
    /// `packet_size_max`.
    #[inline]
    pub fn next(&self, input: &[u8], packet_size_max: u32) -> Option<(usize, usize)> {
        let (before, payload_len) = self.last;
        // Mostly even the length is the same.
        if input.starts_with(before) {
            let len = before.len() + payload_len;
            return (input.len() >= len).then_some((len, payload_len));
        }
        self.next_of_other_length(input, packet_size_max)
    }

    fn next_of_other_length(&self, input: &[u8], packet_size_max: u32) -> Option<(usize, usize)> {
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
            let len = 2 + i + remaining;
            let same = rest.get(1 + i..1 + i + remaining)?.starts_with(self.head);
            let fits = len <= packet_size_max as usize;
            return (shortest && same && fits).then(|| (len, remaining - self.head.len()));
        }
        None
    }

    /// Packets and their payloads, of bytes that are nothing but repetitions.
    pub fn packets<'b>(&self, mut bytes: &'b [u8]) -> impl Iterator<Item = (&'b [u8], &'b [u8])> {
        std::iter::from_fn(move || {
            let (len, payload_len) = self.next(bytes, u32::MAX)?;
            let (packet, rest) = bytes.split_at(len);
            bytes = rest;
            Some((packet, &packet[len - payload_len..]))
        })
    }
}
