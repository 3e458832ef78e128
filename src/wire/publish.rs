//! PUBLISH as a client sends it.

use super::frame::Frame;
use super::properties::{Message, MessageProperties};
use super::read::Reader;
use super::{DecodeError, DecodeLimits, Properties, Qos, Version, text};

/// An Application Message on its way in.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Publish<'a> {
    /// Whether the client says that it may have sent this packet before.
    pub dup: bool,
    /// The level that the message is published at.
    pub qos: Qos,
    /// Whether the message is to be retained.
    pub retain: bool,
    /// The Topic Name: no wildcards; empty only if there is a Topic Alias.
    pub topic: &'a str,
    /// 0 exactly for QoS 0.
    pub packet_id: u16,
    /// 1 to the announced Topic Alias Maximum; 0 if there is none. Whether it is known is not judged here.
    pub topic_alias: u16,
    /// Message Expiry Interval in seconds.
    pub expiry_s: Option<u32>,
    /// What goes to the receivers unchanged.
    pub properties: Properties<'a>,
    /// May be empty.
    pub payload: &'a [u8],
}

impl<'a> Publish<'a> {
    /// DUP and QoS.
    #[inline]
    pub(super) fn judge_flags(flags: u8) -> Result<(bool, Qos), DecodeError> {
        let dup = flags & 0x08 != 0;
        // [MQTT-3.3.1-4]
        let Some(qos) = Qos::from_bits(flags >> 1 & 0x03) else {
            return Err(DecodeError::Malformed("QoS of PUBLISH is 3"));
        };
        if dup && qos == Qos::AtMostOnce {
            // [MQTT-3.3.1-2]
            return Err(DecodeError::Malformed("PUBLISH has DUP set at QoS 0"));
        }
        Ok((dup, qos))
    }

    #[inline]
    pub(super) fn decode(
        version: Version,
        frame: &Frame<'a>,
        limits: &DecodeLimits,
        known: &'a str,
    ) -> Result<Publish<'a>, DecodeError> {
        let flags = frame.flags();
        let (dup, qos) = Publish::judge_flags(flags)?;
        let mut reader = Reader::new(frame.body);
        let topic = reader.binary()?; // [MQTT-3.3.2-1]
        let topic = match topic == known.as_bytes() {
            true => known,
            false => text::topic_name(topic, limits.topic_levels_max)?,
        };
        let packet_id = if qos == Qos::AtMostOnce { 0 } else { reader.packet_id()? };
        let properties = match version {
            Version::V5 => MessageProperties::decode(reader.property_block()?, Message::Publish, limits)?,
            Version::V31 | Version::V311 => MessageProperties::default(),
        };
        if topic.is_empty() && properties.topic_alias == 0 {
            // [MQTT-4.7.3-1] [U5-3.3.2-1]
            return Err(DecodeError::ProtocolError("Topic Name is empty and there is no Topic Alias"));
        }
        Ok(Publish {
            dup,
            qos,
            retain: flags & 0x01 != 0,
            topic,
            packet_id,
            topic_alias: properties.topic_alias,
            expiry_s: properties.expiry_s,
            properties: properties.forwardable,
            payload: reader.rest(),
        })
    }
}
