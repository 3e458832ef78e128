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
use super::block::{Block, Only};

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
    /// The Packet Identifier of a QoS 2 message whose publisher's session is kept on disk; else 0.
    pub origin: u16,
    /// It came with DUP: a kept session may have got it before a crash.
    pub is_repeat: bool,
}

/// A PUBLISH packet that has its memory for itself. Shared by those who keep its payload.
#[derive(Clone, Debug)]
pub struct Whole(Arc<Vec<u8>>);

impl Whole {
    /// What is pinned beside the payload is one part in so many of it at most.
    const WASTE: usize = 8;
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

    /// Whether to keep it is better than to copy the payload of `payload_len` bytes at its end: if that is sent by
    /// reference, and little else is pinned with it.
    pub fn is_worth(&self, payload_len: usize) -> bool {
        payload_len >= Outbox::SPLICE_MIN && self.0.capacity() - payload_len <= payload_len / Self::WASTE
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
        Message(Block::new(Message::block(self.len()), self.head(), self.pieces()))
    }

    /// Bytes to copy for keeping it.
    fn len(&self) -> usize {
        self.pieces().map(<[u8]>::len).iter().sum()
    }

    #[inline]
    fn pieces(&self) -> [&[u8]; 3] {
        let payload = if self.whole.is_some() { &[] } else { self.payload };
        [self.topic.as_bytes(), self.properties, payload]
    }

    #[inline]
    fn head(&self) -> Head {
        Head {
            whole: self.whole.cloned(),
            expires_at: self.expires_at,
            publisher: self.publisher,
            topic_len: self.topic.len() as u32,
            properties_len: self.properties.len() as u32,
            payload_len: self.payload.len() as u32,
            qos: self.qos,
            flags: u8::from(self.retain) | u8::from(self.is_repeat) << 1,
            origin: self.origin,
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
pub struct Message(Block<Head>);

/// What stands before Topic Name, properties and, without `whole`, payload.
#[derive(Debug)]
struct Head {
    /// Ends with the payload.
    whole: Option<Whole>,
    expires_at: Millis,
    publisher: u64,
    topic_len: u32,
    properties_len: u32,
    payload_len: u32,
    qos: Qos,
    /// RETAIN, and whether it is a repetition.
    flags: u8,
    origin: u16,
}

const _: () = assert!(size_of::<Head>() == 40);

impl Message {
    /// Bytes that the allocator adds to a block, at most.
    pub const OVERHEAD: usize = 16;
    /// Blocks up to this size come in sizes a quarter of a power of two apart, as the allocator has them, so that they can be
    /// used again.
    const BLOCK_MAX: usize = 1024;
    const BLOCK_MIN: usize = 64;

    /// Bytes of the block that holds topic, properties and payload of `len` bytes.
    pub const fn block(len: usize) -> usize {
        let size = Block::<Head>::FRONT + len;
        if size > Self::BLOCK_MAX {
            size
        } else if size <= Self::BLOCK_MIN {
            Self::BLOCK_MIN
        } else {
            // Its next multiple, without a division: a step is a power of two.
            let step = Self::step(size);
            (size + step - 1) & !(step - 1)
        }
    }

    /// How far apart sizes are near `size`, which is above [`Message::BLOCK_MIN`].
    const fn step(size: usize) -> usize {
        1 << ((size - 1).ilog2() - 2)
    }

    pub fn view(&self) -> MessageView<'_> {
        let head = self.0.head();
        let (topic, rest) = self.0.bytes().split_at(head.topic_len as usize);
        MessageView {
            // Checking the bytes again is cheap compared with the delivery.
            topic: std::str::from_utf8(topic).expect("they came from a `&str`"),
            properties: &rest[..head.properties_len as usize],
            payload: self.payload(),
            qos: head.qos,
            retain: head.flags & 1 != 0,
            expires_at: head.expires_at,
            publisher: head.publisher,
            whole: head.whole.as_ref(),
            origin: head.origin,
            is_repeat: head.flags & 2 != 0,
        }
    }

    pub fn topic(&self) -> &str {
        self.view().topic
    }

    /// A number that no other message has while this one is kept.
    pub fn identity(&self) -> u64 {
        self.0.bytes().as_ptr() as u64
    }

    pub fn payload(&self) -> &[u8] {
        let head = self.0.head();
        let holder = head.whole.as_ref().map_or(self.0.bytes(), Whole::packet);
        &holder[holder.len() - head.payload_len as usize..]
    }

    #[inline]
    pub fn cost(&self) -> usize {
        Message::OVERHEAD + self.0.size() + self.0.head().whole.as_ref().map_or(0, Whole::cost)
    }

    #[inline]
    pub fn expires_at(&self) -> Millis {
        self.0.head().expires_at
    }

    pub fn qos(&self) -> Qos {
        self.0.head().qos
    }
}

/// Small messages that nobody holds any more, for those that are kept next: what is acknowledged while as much arrives
/// needs no new memory. Belongs to a shard.
#[derive(Debug)]
pub struct SpareMessages {
    /// By the size of their blocks.
    by_size: [Vec<Only<Head>>; SpareMessages::PLACES],
}

impl Default for SpareMessages {
    fn default() -> SpareMessages {
        SpareMessages { by_size: [const { Vec::new() }; SpareMessages::PLACES] }
    }
}

impl SpareMessages {
    const PLACES: usize = SpareMessages::place(Message::BLOCK_MAX) + 1;
    /// Sizes that [`Message::block`] gives.
    const SIZES: usize = 1 + 4 * (Message::BLOCK_MAX / Message::BLOCK_MIN).ilog2() as usize;
    /// Bytes kept of each size.
    const BYTES_MAX: usize = 60 << 10;

    /// Keeps a message.
    #[inline]
    pub fn make(&mut self, view: &MessageView<'_>) -> Message {
        let size = Message::block(view.len());
        if size <= Message::BLOCK_MAX
            && let Some(spare) = self.by_size[Self::place(size)].pop()
        {
            return Message(spare.put(view.head(), view.pieces()));
        }
        view.to_message()
    }

    /// Takes what somebody held, for another use if nobody else holds it.
    #[inline]
    pub fn keep(&mut self, message: Message) {
        let Some(mut spare) = message.0.into_only() else { return };
        let size = spare.size();
        if size > Message::BLOCK_MAX {
            return;
        }
        spare.head_mut().whole = None;
        let spares = &mut self.by_size[Self::place(size)];
        if (spares.len() + 1) * (size + Message::OVERHEAD) <= Self::BYTES_MAX {
            spares.push(spare);
        }
    }

    /// The place of a size that [`Message::block`] gives: the smallest steps are 16 bytes, and most places stay empty.
    const fn place(size: usize) -> usize {
        size / 16
    }
}

// All that a shard keeps: nothing that a client could fill a machine with.
const _: () = assert!(SpareMessages::SIZES * SpareMessages::BYTES_MAX <= 1 << 20);

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
            origin: 0,
            is_repeat: false,
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
        assert!(spares.by_size.iter().any(|spares| !spares.is_empty()), "its own block is used again");
        assert_eq!(whole.into_packet().map(|packet| packet.len()).ok(), Some(4000), "nobody has it any more");
    }

    #[test]
    fn a_packet_is_kept_for_its_payload_alone() {
        let of = |len: usize, capacity: usize| {
            let mut packet = Vec::with_capacity(capacity);
            packet.resize(len, 0);
            Whole::new(packet)
        };
        assert!(of(9000, 9000).is_worth(8000));
        assert!(!of(9000, 9001).is_worth(8000), "as much again as an eighth, and one byte");
        assert!(!of(9000, 9000).is_worth(100), "large properties would be kept twice");
        assert!(of(1100, 1100).is_worth(Outbox::SPLICE_MIN));
        assert!(!of(1100, 1100).is_worth(Outbox::SPLICE_MIN - 1), "it is copied to each receiver anyway");
    }

    #[test]
    fn what_is_used_again_has_nothing_of_its_former_use() {
        let mut spares = SpareMessages::default();
        for round in 0..3 {
            for len in [0, 10, 55, 60, 61, 62, 200, 400, 960, 961, 962, 5000] {
                let payload = vec![round; len];
                let view = view("topic", &payload);
                let message = spares.make(&view);
                assert_eq!((message.topic(), message.payload()), (view.topic, view.payload));
                assert_eq!((message.view().properties, message.expires_at()), (view.properties, 77));
                assert_eq!(message.cost(), view.cost());
                assert_eq!(message.0.size(), Message::block(7 + len), "what is charged is pinned");
                spares.keep(message);
            }
        }
        let kept: usize = spares.by_size.iter().map(Vec::len).sum();
        assert_eq!(kept, 6, "one of each size is enough, the largest is not kept");
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
        let size = Message::block(4) + Message::OVERHEAD;
        let bytes = spares.by_size[SpareMessages::place(Message::block(4))].len() * size;
        assert!(
            (SpareMessages::BYTES_MAX - size..=SpareMessages::BYTES_MAX).contains(&bytes),
            "{bytes} bytes"
        );
    }

    #[test]
    fn each_size_has_a_place_of_its_own() {
        let mut sizes: Vec<usize> = (0..5000).map(Message::block).collect();
        assert!(sizes.iter().zip(0..).all(|(size, len)| *size >= Block::<Head>::FRONT + len));
        assert!(sizes.iter().all(|size| size % 8 == 0 || *size > Message::BLOCK_MAX));
        sizes.dedup();
        sizes.retain(|size| *size <= Message::BLOCK_MAX);
        let places: Vec<usize> = sizes.iter().map(|size| SpareMessages::place(*size)).collect();
        assert!(
            places.is_sorted_by(|one, next| one < next) && places.len() == SpareMessages::SIZES,
            "{sizes:?}"
        );
        assert!(places.iter().all(|place| *place < SpareMessages::PLACES), "{sizes:?}");
    }
}
