//! An Application Message, as a borrowed view on its way and as a shared value where it is kept.
//!
//! A [`MessageView`] lives for one turn: it points into a receive buffer, a mesh record or a [`Message`]. A
//! [`Message`] is what sessions, the retained store and the mesh keep; cloning it copies a pointer. Its count is
//! atomic because it crosses shards.
//!
//! Keeping a message copies it, but for a large one that was gathered from several receives: it lies in memory of its own
//! already, its packet ([`Whole`]), which is kept instead.

use std::sync::Arc;

use crate::clock::{Millis, NEVER};
use crate::wire::Qos;

use super::Outbox;

/// A borrowed Application Message.
#[derive(Copy, Clone, Debug)]
pub struct MessageView<'a> {
    pub topic: &'a str,
    /// The properties that are forwarded unchanged, encoded, without the length in front.
    pub properties: &'a [u8],
    pub payload: &'a [u8],
    /// As published.
    pub qos: Qos,
    /// As published.
    pub retain: bool,
    /// When it expires, or [`NEVER`]. Counts from its arrival at the broker.
    pub expires_at: Millis,
    /// Keyed hash of the publisher's Client Identifier, for No Local; 0 for the broker itself.
    pub publisher: u64,
    /// The packet that `payload` is the end of, if that can be kept.
    pub whole: Option<&'a Whole>,
}

/// A PUBLISH packet that has its memory for itself. Shared by those who keep its payload.
#[derive(Clone, Debug)]
pub struct Whole(Arc<Vec<u8>>);

impl Whole {
    /// Bytes beside those of the packet.
    const OVERHEAD: usize = 16 + 16 + std::mem::size_of::<Vec<u8>>() + 16;

    pub fn new(packet: Vec<u8>) -> Whole {
        Whole(Arc::new(packet))
    }

    pub fn packet(&self) -> &[u8] {
        &self.0
    }

    /// The packet's memory, unless somebody keeps it.
    ///
    /// # Errors
    /// What somebody keeps.
    pub fn into_packet(self) -> Result<Vec<u8>, Whole> {
        Arc::try_unwrap(self.0).map_err(Whole)
    }

    /// Whether to keep the packet costs less than to copy its payload. Both are sent by reference.
    pub fn is_worth(packet: &Vec<u8>) -> bool {
        packet.len() >= Outbox::SPLICE_MIN && packet.capacity() - packet.len() <= packet.len() / 8
    }

    fn cost(&self) -> usize {
        Whole::OVERHEAD + self.0.capacity()
    }
}

impl MessageView<'_> {
    /// Bytes that keeping this message takes, the heads of its allocations included.
    pub fn cost(&self) -> usize {
        Message::OVERHEAD + Message::block(self.len()) + self.whole.map_or(0, Whole::cost)
    }

    pub fn to_message(&self) -> Message {
        Message(Arc::new(self.fill(Vec::with_capacity(Message::block(self.len())))))
    }

    /// Bytes to copy for keeping it.
    fn len(&self) -> usize {
        let payload = if self.whole.is_some() { 0 } else { self.payload.len() };
        self.topic.len() + self.properties.len() + payload
    }

    /// The message with its bytes in `bytes`, which is empty and large enough.
    fn fill(&self, mut bytes: Vec<u8>) -> Inner {
        bytes.extend_from_slice(self.topic.as_bytes());
        bytes.extend_from_slice(self.properties);
        if self.whole.is_none() {
            bytes.extend_from_slice(self.payload);
        }
        Inner {
            bytes,
            whole: self.whole.cloned(),
            payload_len: self.payload.len() as u32,
            expires_at: self.expires_at,
            publisher: self.publisher,
            topic_len: self.topic.len() as u32,
            properties_len: self.properties.len() as u32,
            qos: self.qos,
            retain: self.retain,
        }
    }

    /// Seconds that are left at `now`, rounded up, for the outgoing Message Expiry Interval; `None` if it never
    /// expires. // [MQTT-3.3.2-6]
    pub fn expiry_s(&self, now: Millis) -> Option<u32> {
        (self.expires_at != NEVER)
            .then(|| self.expires_at.saturating_sub(now).div_ceil(1000).min(u64::from(u32::MAX)) as u32)
    }

    pub fn is_expired(&self, now: Millis) -> bool {
        self.expires_at <= now
    }
}

/// A kept Application Message; a clone shares it.
#[derive(Clone, Debug)]
pub struct Message(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Topic Name, then properties, then, without `whole`, the payload.
    bytes: Vec<u8>,
    /// Ends with the payload.
    whole: Option<Whole>,
    expires_at: Millis,
    publisher: u64,
    topic_len: u32,
    properties_len: u32,
    payload_len: u32,
    qos: Qos,
    retain: bool,
}

impl Inner {
    fn payload(&self) -> &[u8] {
        let holder = self.whole.as_ref().map_or(&self.bytes[..], Whole::packet);
        &holder[holder.len() - self.payload_len as usize..]
    }
}

impl Message {
    /// Bytes beside the block of topic, properties and payload.
    pub const OVERHEAD: usize = 16 + std::mem::size_of::<Inner>() + 16;
    /// Blocks up to this size come in powers of two, so that they can be used again.
    const BLOCK_MAX: usize = 1024;
    const BLOCK_MIN: usize = 64;

    /// Bytes of the block that holds topic, properties and payload of `len` bytes.
    pub const fn block(len: usize) -> usize {
        if len > Self::BLOCK_MAX {
            len
        } else if len <= Self::BLOCK_MIN {
            Self::BLOCK_MIN
        } else {
            len.next_power_of_two()
        }
    }

    pub fn view(&self) -> MessageView<'_> {
        let inner = &*self.0;
        let (topic, rest) = inner.bytes.split_at(inner.topic_len as usize);
        MessageView {
            // The bytes came from a `&str` in `to_message`; checking them again is cheap beside the delivery.
            topic: std::str::from_utf8(topic).unwrap_or_default(),
            properties: &rest[..inner.properties_len as usize],
            payload: inner.payload(),
            qos: inner.qos,
            retain: inner.retain,
            expires_at: inner.expires_at,
            publisher: inner.publisher,
            whole: inner.whole.as_ref(),
        }
    }

    pub fn topic(&self) -> &str {
        self.view().topic
    }

    pub fn payload(&self) -> &[u8] {
        self.0.payload()
    }

    pub fn cost(&self) -> usize {
        let whole = self.0.whole.as_ref().map_or(0, Whole::cost);
        Message::OVERHEAD + Message::block(self.0.bytes.len()) + whole
    }

    pub fn expires_at(&self) -> Millis {
        self.0.expires_at
    }

    pub fn qos(&self) -> Qos {
        self.0.qos
    }
}

/// Small messages that nobody holds any more, for those that are kept next: what is acknowledged while as much arrives
/// needs no new memory. Belongs to a shard.
#[derive(Debug, Default)]
pub struct SpareMessages {
    /// By the size of their blocks.
    by_block: [Vec<Message>; SpareMessages::BLOCKS],
}

impl SpareMessages {
    const BLOCKS: usize = (Message::BLOCK_MAX / Message::BLOCK_MIN).ilog2() as usize + 1;
    /// Messages of one size.
    const LEN_MAX: usize = 256;

    /// Keeps a message.
    pub fn make(&mut self, view: &MessageView<'_>) -> Message {
        let block = Message::block(view.len());
        if block <= Message::BLOCK_MAX
            && let Some(mut message) = self.by_block[Self::place(block)].pop()
            && let Some(inner) = Arc::get_mut(&mut message.0)
        {
            let mut bytes = std::mem::take(&mut inner.bytes);
            bytes.clear();
            *inner = view.fill(bytes);
            return message;
        }
        view.to_message()
    }

    /// Takes what somebody held, for another use if nobody else holds it.
    pub fn keep(&mut self, mut message: Message) {
        let Some(inner) = Arc::get_mut(&mut message.0) else { return };
        inner.whole = None;
        let block = inner.bytes.capacity();
        if (Message::BLOCK_MIN..=Message::BLOCK_MAX).contains(&block) && block.is_power_of_two() {
            let spares = &mut self.by_block[Self::place(block)];
            if spares.len() < Self::LEN_MAX {
                spares.push(message);
            }
        }
    }

    fn place(block: usize) -> usize {
        (block / Message::BLOCK_MIN).ilog2() as usize
    }
}

// All that a shard keeps, in bytes: nothing that a client could fill a machine with.
const _: () = assert!(
    SpareMessages::LEN_MAX * (2 * Message::BLOCK_MAX + SpareMessages::BLOCKS * Message::OVERHEAD) < 1 << 20
);

#[cfg(test)]
mod tests {
    use super::*;

    fn view<'a>(topic: &'a str, payload: &'a [u8]) -> MessageView<'a> {
        MessageView {
            topic,
            properties: &[1, 2],
            payload,
            qos: Qos::AtLeastOnce,
            retain: true,
            expires_at: 77,
            publisher: 5,
            whole: None,
        }
    }

    #[test]
    fn a_packet_that_is_kept_whole_is_not_copied_and_lives_as_long_as_somebody_has_it() {
        let mut packet = Vec::with_capacity(5000);
        packet.resize(4000, 7);
        let payload_at = 11;
        let whole = Whole::new(packet);
        let view = MessageView { whole: Some(&whole), ..view("topic", &whole.packet()[payload_at..]) };
        let mut spares = SpareMessages::default();
        for message in [view.to_message(), spares.make(&view)] {
            assert_eq!(message.payload().as_ptr(), view.payload.as_ptr(), "no copy");
            assert_eq!(message.cost(), view.cost());
            assert!(message.cost() > 5000, "what is charged is pinned");
            let again = message.view().to_message();
            assert_eq!((again.topic(), again.payload()), ("topic", view.payload));
            assert_eq!(again.view().properties, view.properties);
            drop(message);
            assert_eq!(again.payload(), view.payload);
            spares.keep(again);
        }
        let spare = spares.by_block[0].last().expect("the head is used again");
        assert!(spare.0.whole.is_none(), "a spare message pins nothing");
        assert_eq!(whole.into_packet().map(|packet| packet.len()).ok(), Some(4000), "nobody has it any more");
    }

    #[test]
    fn what_is_used_again_has_nothing_of_its_former_use() {
        let mut spares = SpareMessages::default();
        for round in 0..3 {
            for len in [0, 10, 55, 60, 61, 62, 200, 400, 1000, 1016, 1017, 5000] {
                let payload = vec![round; len];
                let view = view("topic", &payload);
                let message = spares.make(&view);
                assert_eq!((message.topic(), message.payload()), (view.topic, view.payload));
                assert_eq!((message.view().properties, message.expires_at()), (view.properties, 77));
                assert_eq!(message.cost(), view.cost());
                assert_eq!(message.0.bytes.capacity(), Message::block(7 + len), "what is charged is pinned");
                spares.keep(message);
            }
        }
        let kept: usize = spares.by_block.iter().map(Vec::len).sum();
        assert_eq!(kept, SpareMessages::BLOCKS, "one of each size is enough, the largest is not kept");
    }

    #[test]
    fn what_somebody_holds_is_not_used_again_and_spares_are_bounded() {
        let mut spares = SpareMessages::default();
        let message = spares.make(&view("t", b"held"));
        let held = message.clone();
        spares.keep(message);
        let other = spares.make(&view("t", b"new"));
        assert_eq!((held.payload(), other.payload()), (&b"held"[..], &b"new"[..]));
        for message in (0..1000).map(|_| view("t", b"x").to_message()).collect::<Vec<_>>() {
            spares.keep(message);
        }
        assert_eq!(spares.by_block[0].len(), SpareMessages::LEN_MAX);
    }
}
