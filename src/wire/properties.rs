//! Property blocks of v5: a walk that refuses what is unknown, misplaced or repeated, and the forwardable
//! properties of a message.
//!
//! A PUBLISH or Will holds properties that go to the receivers unchanged (Payload Format Indicator, Content
//! Type, Response Topic, Correlation Data, User Property) between others that do not (Message Expiry
//! Interval, Topic Alias, Will Delay Interval). [`Properties`] is the stretch of the packet from the first
//! forwardable property to the last. Clients usually write them together; then that stretch is what a
//! receiver gets, byte for byte.

use super::{DecodeError, DecodeLimits, Reason, read::Reader, text};

/// Property identifiers. All fit one byte of the variable byte integer that the standard makes them.
pub(super) mod id {
    pub const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
    pub const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
    pub const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
    pub const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub const AUTHENTICATION_METHOD: u8 = 0x15;
    pub const AUTHENTICATION_DATA: u8 = 0x16;
    pub const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub const WILL_DELAY_INTERVAL: u8 = 0x18;
    pub const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub const RESPONSE_INFORMATION: u8 = 0x1A;
    pub const SERVER_REFERENCE: u8 = 0x1C;
    pub const REASON_STRING: u8 = 0x1F;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub const TOPIC_ALIAS: u8 = 0x23;
    pub const MAXIMUM_QOS: u8 = 0x24;
    pub const RETAIN_AVAILABLE: u8 = 0x25;
    pub const USER_PROPERTY: u8 = 0x26;
    pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
    pub const SUBSCRIPTION_IDENTIFIER_AVAILABLE: u8 = 0x29;
    pub const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2A;
}

/// A set of property identifiers, all of which are below 64.
#[derive(Copy, Clone)]
pub(super) struct IdSet(u64);

impl IdSet {
    pub(super) const fn of(ids: &[u8]) -> IdSet {
        let mut bits = 0;
        let mut i = 0;
        while i < ids.len() {
            bits |= 1 << ids[i];
            i += 1;
        }
        IdSet(bits)
    }

    #[inline]
    const fn contains(self, id: u8) -> bool {
        id < 64 && self.0 >> id & 1 != 0
    }

    #[inline]
    const fn insert(&mut self, id: u8) {
        self.0 |= 1 << id;
    }
}

/// A walk over one property block. After each identifier the caller reads the value from `value`.
pub(super) struct Walk<'a> {
    pub(super) value: Reader<'a>,
    allowed: IdSet,
    seen: IdSet,
    left: u16,
}

impl<'a> Walk<'a> {
    pub(super) const fn new(block: &'a [u8], allowed: IdSet, limits: &DecodeLimits) -> Self {
        Walk { value: Reader::new(block), allowed, seen: IdSet(0), left: limits.properties_max }
    }

    /// The next property's identifier; `None` at the end. [U5-2.2.2-1] [U5-2.2.2-2] [U5-2.2.2-5]
    #[inline]
    pub(super) fn next_id(&mut self) -> Result<Option<u8>, DecodeError> {
        if self.value.is_empty() {
            return Ok(None);
        }
        let id = self.value.u8()?;
        if !self.allowed.contains(id) {
            return Err(DecodeError::Malformed("property is unknown or not allowed in this packet"));
        }
        if self.seen.contains(id) && id != id::USER_PROPERTY {
            return Err(DecodeError::ProtocolError("property occurs more than once"));
        }
        self.seen.insert(id);
        self.left = self
            .left
            .checked_sub(1)
            .ok_or(DecodeError::Specific(Reason::QUOTA_EXCEEDED, "packet holds too many properties"))?;
        Ok(Some(id))
    }

    /// A byte that means no or yes. [U5-3.1.2-7] [U5-3.1.2-8] [U5-3.1.3-5] [U5-3.3.2-2]
    pub(super) fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.value.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::ProtocolError("property that is 0 or 1 has another value")),
        }
    }

    /// Name and value of a User Property. [MQTT-1.5.7-1]
    #[inline]
    pub(super) fn user_property(&mut self) -> Result<(), DecodeError> {
        self.value.string()?;
        self.value.string()?;
        Ok(())
    }
}

/// The properties of a PUBLISH or Will that its receivers get unchanged and in order. [MQTT-3.3.2-4]
/// [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20] [MQTT-3.1.3-10]
///
/// Two are equal if they were sent as the same bytes, even where what lies between is not forwarded.
#[derive(Copy, Clone, Eq, PartialEq, Default)]
pub struct Properties<'a> {
    /// From the first forwardable property to the end of the last; others may lie between.
    span: &'a [u8],
    /// Bytes of the forwardable ones among them.
    len: usize,
}

impl<'a> Properties<'a> {
    /// Whether there is nothing to forward.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the forwardable properties, identifiers included.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// The forwardable properties as they stand in the packet; `None` if others lie between them, so that
    /// only [`Properties::write_to`] can bring them together.
    #[inline]
    pub const fn as_contiguous(&self) -> Option<&'a [u8]> {
        if self.span.len() == self.len { Some(self.span) } else { None }
    }

    /// Appends the forwardable properties, [`Properties::len`] bytes, to `out`.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        if let Some(bytes) = self.as_contiguous() {
            return out.extend_from_slice(bytes);
        }
        let mut rest = self.span;
        while let Some(len) = size_of_first(rest) {
            let (property, after) = rest.split_at(len);
            if FORWARDABLE.contains(property[0]) {
                out.extend_from_slice(property);
            }
            rest = after;
        }
    }
}

impl std::fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Properties({} bytes)", self.len)
    }
}

const FORWARDABLE: IdSet = IdSet::of(&[
    id::PAYLOAD_FORMAT_INDICATOR,
    id::CONTENT_TYPE,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::USER_PROPERTY,
]);

/// Whole size of the validated message property that `bytes` begins with; `None` at the end.
fn size_of_first(bytes: &[u8]) -> Option<usize> {
    let string_at = |at: usize| {
        let len = *bytes.get(at..)?.first_chunk::<2>()?;
        Some(at + 2 + usize::from(u16::from_be_bytes(len)))
    };
    let end = match *bytes.first()? {
        id::PAYLOAD_FORMAT_INDICATOR => 2,
        id::TOPIC_ALIAS => 3,
        id::MESSAGE_EXPIRY_INTERVAL | id::WILL_DELAY_INTERVAL => 5,
        id::USER_PROPERTY => string_at(string_at(1)?)?,
        _ => string_at(1)?,
    };
    (end <= bytes.len()).then_some(end)
}

/// Whose properties a message block holds.
#[derive(Copy, Clone, Eq, PartialEq)]
pub(super) enum Message {
    Publish,
    Will,
}

/// What a message's property block says.
#[derive(Default)]
pub(super) struct MessageProperties<'a> {
    pub(super) expiry_s: Option<u32>,
    /// 0 if there is none.
    pub(super) topic_alias: u16,
    pub(super) will_delay_s: u32,
    pub(super) forwardable: Properties<'a>,
}

impl<'a> MessageProperties<'a> {
    #[inline]
    pub(super) fn decode(
        block: &'a [u8],
        message: Message,
        limits: &DecodeLimits,
    ) -> Result<Self, DecodeError> {
        if block.is_empty() { Ok(Self::default()) } else { Self::decode_some(block, message, limits) }
    }

    fn decode_some(block: &'a [u8], message: Message, limits: &DecodeLimits) -> Result<Self, DecodeError> {
        // A Subscription Identifier from a client has an error of its own, so the walk lets it through.
        const PUBLISH: IdSet = IdSet(
            FORWARDABLE.0
                | IdSet::of(&[id::MESSAGE_EXPIRY_INTERVAL, id::TOPIC_ALIAS, id::SUBSCRIPTION_IDENTIFIER]).0,
        );
        const WILL: IdSet =
            IdSet(FORWARDABLE.0 | IdSet::of(&[id::MESSAGE_EXPIRY_INTERVAL, id::WILL_DELAY_INTERVAL]).0);

        let allowed = if message == Message::Publish { PUBLISH } else { WILL };
        let mut walk = Walk::new(block, allowed, limits);
        let mut found = Self::default();
        let (mut span_start, mut span_end) = (0, 0);
        loop {
            let start = block.len() - walk.value.rest().len();
            let Some(id) = walk.next_id()? else { break };
            match id {
                id::MESSAGE_EXPIRY_INTERVAL => found.expiry_s = Some(walk.value.u32()?),
                id::TOPIC_ALIAS => found.topic_alias = topic_alias(walk.value.u16()?, limits)?,
                id::WILL_DELAY_INTERVAL => found.will_delay_s = walk.value.u32()?,
                id::SUBSCRIPTION_IDENTIFIER => {
                    // [MQTT-3.3.4-6]
                    return Err(DecodeError::ProtocolError("Subscription Identifier in a client's PUBLISH"));
                }
                forwardable => {
                    check_forwardable(forwardable, &mut walk)?;
                    let end = block.len() - walk.value.rest().len();
                    if found.forwardable.len == 0 {
                        span_start = start;
                    }
                    span_end = end;
                    found.forwardable.len += end - start;
                }
            }
        }
        found.forwardable.span = &block[span_start..span_end];
        Ok(found)
    }
}

fn check_forwardable(id: u8, walk: &mut Walk<'_>) -> Result<(), DecodeError> {
    match id {
        id::PAYLOAD_FORMAT_INDICATOR => walk.flag().map(|_| ()),
        id::CONTENT_TYPE => walk.value.string().map(|_| ()), // [MQTT-3.3.2-19]
        id::RESPONSE_TOPIC => response_topic(walk.value.binary()?),
        id::CORRELATION_DATA => walk.value.binary().map(|_| ()),
        _ => walk.user_property(),
    }
}

/// A Topic Name that is not empty. [MQTT-3.3.2-13] [MQTT-3.3.2-14] [MQTT-4.7.3-1]
fn response_topic(bytes: &[u8]) -> Result<(), DecodeError> {
    match text::topic_name(bytes, u16::MAX) {
        Err(DecodeError::Malformed(detail)) => Err(DecodeError::Malformed(detail)),
        Ok("") => Err(DecodeError::ProtocolError("Response Topic is empty")),
        Ok(_) => Ok(()),
        Err(_) => Err(DecodeError::ProtocolError("Response Topic is not a Topic Name")),
    }
}

/// [MQTT-3.3.2-8] [MQTT-3.3.2-9] [MQTT-3.2.2-17] [MQTT-3.2.2-18]
fn topic_alias(alias: u16, limits: &DecodeLimits) -> Result<u16, DecodeError> {
    if alias == 0 || alias > limits.topic_alias_max {
        return Err(DecodeError::Specific(
            Reason::TOPIC_ALIAS_INVALID,
            "Topic Alias is 0 or above the maximum",
        ));
    }
    Ok(alias)
}
