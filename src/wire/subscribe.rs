//! SUBSCRIBE and UNSUBSCRIBE. Whether a Topic Filter's wildcards and `$share` are well placed is judged where
//! subscriptions live, since the answer may concern that filter alone.

use super::frame::Frame;
use super::properties::{IdSet, Walk, id};
use super::read::Reader;
use super::{DecodeError, DecodeLimits, Qos, Version, text};

/// When the retained messages of a Topic Filter are sent.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Hash)]
pub enum RetainHandling {
    /// 0: at every SUBSCRIBE; what 3.x always does.
    SendAtSubscribe,
    /// 1: only if the subscription did not exist.
    SendIfNew,
    /// 2: never.
    DoNotSend,
}

/// One Topic Filter with its Subscription Options.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct SubscribeEntry<'a> {
    /// The Topic Filter, its syntax not yet judged; may be empty.
    pub filter: &'a str,
    /// The highest QoS that the client asks for.
    pub qos: Qos,
    /// Not to be sent what this client publishes.
    pub no_local: bool,
    /// Forward the RETAIN flag as it was published.
    pub retain_as_published: bool,
    /// What to do about retained messages.
    pub retain_handling: RetainHandling,
}

impl<'a> SubscribeEntry<'a> {
    fn decode(
        version: Version,
        reader: &mut Reader<'a>,
        levels_max: u16,
    ) -> Result<SubscribeEntry<'a>, DecodeError> {
        let filter = text::topic_filter(reader.binary()?, levels_max)?; // [MQTT-3.8.3-1]
        let options = reader.u8()?;
        let options = match version {
            Version::V5 if options & 0xC0 != 0 => {
                return Err(DecodeError::Malformed("reserved bits of the Subscription Options are set")); // [MQTT-3.8.3-5]
            }
            Version::V311 if options & 0xFC != 0 => {
                return Err(DecodeError::Malformed("reserved bits of the requested QoS are set")); // 3.1.1: [MQTT-3.8.3-4]
            }
            Version::V5 | Version::V311 => options,
            Version::V31 => options & 0x03, // [V31-6]
        };
        let Some(qos) = Qos::from_bits(options & 0x03) else {
            return Err(DecodeError::ProtocolError("requested QoS is 3")); // [U5-3.8.3-1]
        };
        let retain_handling = match options >> 4 {
            0 => RetainHandling::SendAtSubscribe,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(DecodeError::ProtocolError("Retain Handling is 3")), // [U5-3.8.3-2]
        };
        Ok(SubscribeEntry {
            filter,
            qos,
            no_local: options & 0x04 != 0,
            retain_as_published: options & 0x08 != 0,
            retain_handling,
        })
    }
}

/// A request for subscriptions.
#[derive(Copy, Clone, Debug)]
pub struct Subscribe<'a> {
    /// Never 0.
    pub packet_id: u16,
    /// Subscription Identifier for all filters of the packet; 0 if there is none.
    pub identifier: u32,
    /// One entry or more.
    pub filters: SubscribeFilters<'a>,
}

impl<'a> Subscribe<'a> {
    pub(super) fn decode(
        version: Version,
        frame: &Frame<'a>,
        limits: &DecodeLimits,
    ) -> Result<Subscribe<'a>, DecodeError> {
        let mut reader = Reader::new(frame.body);
        let packet_id = reader.packet_id()?;
        let identifier = match version {
            Version::V5 => subscription_identifier(reader.property_block()?, limits)?,
            Version::V31 | Version::V311 => 0,
        };
        let bytes = reader.rest();
        let left = count_filters(&mut reader, |reader| {
            SubscribeEntry::decode(version, reader, limits.topic_levels_max).map(|_| ())
        })?;
        let filters = SubscribeFilters { version, reader: Reader::new(bytes), left };
        Ok(Subscribe { packet_id, identifier, filters })
    }
}

/// [U5-3.8.2-1] [U5-3.3.2-6]
fn subscription_identifier(block: &[u8], limits: &DecodeLimits) -> Result<u32, DecodeError> {
    const ALLOWED: IdSet = IdSet::of(&[id::SUBSCRIPTION_IDENTIFIER, id::USER_PROPERTY]);
    let mut walk = Walk::new(block, ALLOWED, limits);
    let mut identifier = 0;
    while let Some(id) = walk.next_id()? {
        if id == id::USER_PROPERTY {
            walk.user_property()?;
            continue;
        }
        identifier = walk.value.vbi()?;
        if identifier == 0 {
            return Err(DecodeError::ProtocolError("Subscription Identifier is 0"));
        }
    }
    Ok(identifier)
}

/// Reads filters to the end of the packet; how many there are. [MQTT-3.8.3-2] [MQTT-3.10.3-2]
fn count_filters<'a>(
    reader: &mut Reader<'a>,
    mut one: impl FnMut(&mut Reader<'a>) -> Result<(), DecodeError>,
) -> Result<u32, DecodeError> {
    let mut count = 0;
    while !reader.is_empty() {
        one(reader)?;
        count += 1;
    }
    if count == 0 {
        return Err(DecodeError::ProtocolError("packet holds no Topic Filter"));
    }
    Ok(count)
}

/// The entries of a SUBSCRIBE in the order of the packet; they were validated when it was decoded.
#[derive(Copy, Clone)]
pub struct SubscribeFilters<'a> {
    version: Version,
    reader: Reader<'a>,
    left: u32,
}

impl<'a> SubscribeFilters<'a> {
    /// The entries from the first on, without using up `self`.
    pub const fn iter(&self) -> SubscribeFilters<'a> {
        *self
    }

    /// Bytes of the entries that are left: they are the last of the packet.
    pub const fn bytes_len(&self) -> usize {
        self.reader.rest().len()
    }

    /// Goes on with `left` entries, which are all of `bytes` and the last of a packet that was decoded.
    pub const fn of_rest(version: Version, bytes: &'a [u8], left: u32) -> SubscribeFilters<'a> {
        SubscribeFilters { version, reader: Reader::new(bytes), left }
    }
}

impl<'a> Iterator for SubscribeFilters<'a> {
    type Item = SubscribeEntry<'a>;

    fn next(&mut self) -> Option<SubscribeEntry<'a>> {
        self.left = self.left.checked_sub(1)?;
        SubscribeEntry::decode(self.version, &mut self.reader, u16::MAX).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for SubscribeFilters<'_> {}

impl std::fmt::Debug for SubscribeFilters<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

/// A request to end subscriptions.
#[derive(Copy, Clone, Debug)]
pub struct Unsubscribe<'a> {
    /// Never 0.
    pub packet_id: u16,
    /// One filter or more.
    pub filters: UnsubscribeFilters<'a>,
}

impl<'a> Unsubscribe<'a> {
    pub(super) fn decode(
        version: Version,
        frame: &Frame<'a>,
        limits: &DecodeLimits,
    ) -> Result<Unsubscribe<'a>, DecodeError> {
        const ALLOWED: IdSet = IdSet::of(&[id::USER_PROPERTY]);
        let mut reader = Reader::new(frame.body);
        let packet_id = reader.packet_id()?;
        if version == Version::V5 {
            let mut walk = Walk::new(reader.property_block()?, ALLOWED, limits);
            while walk.next_id()?.is_some() {
                walk.user_property()?;
            }
        }
        let bytes = reader.rest();
        let left = count_filters(&mut reader, |reader| {
            text::topic_filter(reader.binary()?, limits.topic_levels_max).map(|_| ()) // [MQTT-3.10.3-1]
        })?;
        Ok(Unsubscribe { packet_id, filters: UnsubscribeFilters { reader: Reader::new(bytes), left } })
    }
}

/// The Topic Filters of an UNSUBSCRIBE in the order of the packet; they were validated when it was decoded.
#[derive(Copy, Clone)]
pub struct UnsubscribeFilters<'a> {
    reader: Reader<'a>,
    left: u32,
}

impl<'a> UnsubscribeFilters<'a> {
    /// The filters from the first on, without using up `self`.
    pub const fn iter(&self) -> UnsubscribeFilters<'a> {
        *self
    }

    /// Bytes of the filters that are left: they are the last of the packet.
    pub const fn bytes_len(&self) -> usize {
        self.reader.rest().len()
    }

    /// Goes on with `left` filters, which are all of `bytes` and the last of a packet that was decoded.
    pub const fn of_rest(bytes: &'a [u8], left: u32) -> UnsubscribeFilters<'a> {
        UnsubscribeFilters { reader: Reader::new(bytes), left }
    }
}

impl<'a> Iterator for UnsubscribeFilters<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.left = self.left.checked_sub(1)?;
        self.reader.string().ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for UnsubscribeFilters<'_> {}

impl std::fmt::Debug for UnsubscribeFilters<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}
