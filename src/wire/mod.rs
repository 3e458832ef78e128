//! Bytes to Control Packets and back, server side, for MQTT 5.0, 3.1.1 and 3.1.
//!
//! A stream is cut into frames ([`next_frame`]), the first frame is read by [`decode_connect`], every later
//! one by [`decode`]; the `encode_*` functions and [`PublishHead`] append what a server sends to a `Vec`.
//!
//! What it is not: there is no behaviour here. Whether a Packet Identifier is in use, an alias has a topic
//! or a Topic Filter is well formed is judged by whoever owns that state.
//!
//! Invariants
//! - Decoding allocates nothing: every packet is a view of the bytes it was read from.
//! - Every string in a view is well-formed UTF-8 without U+0000, and every field was read to its end: what
//!   an iterator or [`Properties`] walks a second time has been validated once and cannot fail.
//! - No input panics. A fault is an error that knows its reason code; a 3.x caller just closes.
//! - Cost is linear in the packet, and [`DecodeLimits`] stop floods of small fields.

mod acks;
mod connack;
mod connect;
mod encode;
mod frame;
mod packet;
mod properties;
mod publish;
mod read;
mod reason;
mod repeat;
mod subscribe;
mod text;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

// What tests and benches use besides the broker.
pub use encode::{AckKind, PublishHead, encode_ack};
pub use frame::{LengthForm, NextFrame, next_frame};
pub use packet::{Packet, decode};
pub use reason::Reason;

/// For login by AUTH, which does not exist yet.
#[cfg(test)]
pub(crate) use encode::encode_auth;
#[cfg(test)]
pub(crate) use frame::PACKET_SIZE_MAX;

pub(crate) use acks::PlainAcks;
pub(crate) use connack::{ConnAck, ConnAckEncoded, encode_connack};
pub(crate) use connect::{Connect, ConnectError, Opening, Will, decode_connect, look_at_connect};
pub(crate) use encode::{
    ack_packet_size, encode_disconnect, encode_pingresp, encode_suback, encode_unsuback,
};
pub(crate) use frame::{Frame, packet_name};
pub(crate) use packet::{Ack, Disconnect, decode_publish, judge_first};
pub(crate) use properties::Properties;
pub(crate) use publish::Publish;
pub(crate) use reason::DecodeError;
pub(crate) use repeat::Repeat;
#[cfg(test)]
pub(crate) use repeat::Repetition;
pub(crate) use subscribe::{
    RetainHandling, Subscribe, SubscribeEntry, SubscribeFilters, Unsubscribe, UnsubscribeFilters,
};

/// The protocol version that a connection speaks, fixed by its CONNECT.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Version {
    /// MQTT 3.1: `MQIsdp`, level 3.
    V31,
    /// MQTT 3.1.1: `MQTT`, level 4.
    V311,
    /// MQTT 5.0: `MQTT`, level 5.
    V5,
}

impl Version {
    /// How strictly [`next_frame`] reads lengths on a connection of this version.
    pub const fn length_form(self) -> LengthForm {
        match self {
            Version::V31 | Version::V311 => LengthForm::Any,
            Version::V5 => LengthForm::Shortest,
        }
    }
}

/// A Quality of Service level.
#[repr(u8)]
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Debug, Hash)]
pub enum Qos {
    /// QoS 0: sent once, never acknowledged.
    AtMostOnce = 0,
    /// QoS 1: repeated until PUBACK.
    AtLeastOnce = 1,
    /// QoS 2: PUBREC, PUBREL, PUBCOMP.
    ExactlyOnce = 2,
}

impl Qos {
    /// The level written as `bits`; `None` for 3 and above.
    #[inline]
    pub const fn from_bits(bits: u8) -> Option<Qos> {
        match bits {
            0 => Some(Qos::AtMostOnce),
            1 => Some(Qos::AtLeastOnce),
            2 => Some(Qos::ExactlyOnce),
            _ => None,
        }
    }
}

/// How much of the small and many a single packet may hold. Not limits of the protocol, but of this server.
#[derive(Copy, Clone, Debug)]
pub struct DecodeLimits {
    /// Properties in one property block, User Properties included. More: 0x97 Quota exceeded.
    pub properties_max: u16,
    /// Levels of a Topic Name or Topic Filter. More: 0x90 Topic Name invalid or 0x8F Topic Filter invalid.
    pub topic_levels_max: u16,
    /// The Topic Alias Maximum that this server announced; 0 if none. More: 0x94 Topic Alias invalid.
    pub topic_alias_max: u16,
}

impl DecodeLimits {
    /// For a packet that was judged before.
    pub const NONE: DecodeLimits =
        DecodeLimits { properties_max: u16::MAX, topic_levels_max: u16::MAX, topic_alias_max: u16::MAX };
}
