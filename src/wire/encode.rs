//! What a server sends, but for CONNACK: everything is appended to a `Vec` in its shortest form.
//!
//! Lengths are known before the first byte is written, so nothing is patched or moved afterwards.

use super::frame::{REMAINING_LENGTH_MAX, kind, vbi_len};
use super::properties::id;
use super::{Qos, Reason, Version};

/// Appends the data types of MQTT.
pub(super) trait Put {
    fn put_u8(&mut self, value: u8);
    fn put_u16(&mut self, value: u16);
    fn put_u32(&mut self, value: u32);
    /// The shortest form. [MQTT-1.5.5-1]
    fn put_vbi(&mut self, value: u32);
    /// A string or binary data of at most 65,535 bytes.
    fn put_binary(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_vbi(&mut self, mut value: u32) {
        while value > 0x7F {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn put_binary(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= STRING_MAX);
        self.put_u16(bytes.len() as u16);
        self.extend_from_slice(bytes);
    }
}

/// Size of a whole packet by its Remaining Length. [U5-2.1.4-2]
pub(super) const fn packet_size(remaining: usize) -> usize {
    1 + vbi_len(remaining as u32) + remaining
}

/// The longest string or binary data, in bytes.
pub(super) const STRING_MAX: usize = u16::MAX as usize;

/// Everything of an outgoing PUBLISH but its payload, which follows from wherever it is kept.
#[derive(Copy, Clone, Debug)]
pub struct PublishHead<'a> {
    /// The receiver's version; 3.x gets no properties. [U5-3.3.4-6]
    pub version: Version,
    /// Whether this receiver may have been sent it before. [MQTT-3.3.1-3]
    pub dup: bool,
    /// The level of this delivery.
    pub qos: Qos,
    /// The RETAIN flag of this delivery.
    pub retain: bool,
    /// Not written for QoS 0. [MQTT-2.2.1-2]
    pub packet_id: u16,
    /// Empty only together with an alias that the receiver knows.
    pub topic: &'a str,
    /// 0 for none.
    pub topic_alias: u16,
    /// What is left of the Message Expiry Interval, in seconds.
    pub expiry_s: Option<u32>,
    /// Subscription Identifiers, each 1 to 268,435,455.
    pub identifiers: &'a [u32],
    /// Properties that go to every receiver, as [`super::Properties`] writes them.
    pub properties: &'a [u8],
    /// Bytes of the payload.
    pub payload_len: usize,
}

impl PublishHead<'_> {
    /// Size of the whole packet with its payload, in bytes; `usize::MAX`, above any client's Maximum Packet
    /// Size, if MQTT cannot express it.
    #[inline]
    pub fn packet_size(&self) -> usize {
        let remaining = self.remaining(self.own_properties_len());
        if remaining > REMAINING_LENGTH_MAX as usize || self.topic.len() > STRING_MAX {
            return usize::MAX;
        }
        packet_size(remaining)
    }

    /// Appends everything before the payload.
    ///
    /// # Panics
    /// If [`PublishHead::packet_size`] is `usize::MAX`.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        let own_len = self.own_properties_len();
        let remaining = self.remaining(own_len);
        assert!(remaining <= REMAINING_LENGTH_MAX as usize && self.topic.len() <= STRING_MAX);
        debug_assert!(self.qos == Qos::AtMostOnce || self.packet_id != 0, "[MQTT-2.2.1-4]");
        debug_assert!(self.qos != Qos::AtMostOnce || !self.dup, "[MQTT-3.3.1-2]");
        debug_assert!(!self.topic.is_empty() || self.topic_alias != 0, "[MQTT-4.7.3-1]");

        let mut front = Scratch::new();
        let flags = u8::from(self.dup) << 3 | (self.qos as u8) << 1 | u8::from(self.retain);
        front.byte(kind::PUBLISH << 4 | flags);
        front.vbi(remaining as u32);
        front.bytes((self.topic.len() as u16).to_be_bytes());

        let mut middle = Scratch::new();
        if self.qos != Qos::AtMostOnce {
            middle.bytes(self.packet_id.to_be_bytes());
        }
        if self.version == Version::V5 {
            middle.vbi((own_len + self.properties.len()) as u32);
            if let Some(expiry_s) = self.expiry_s {
                middle.byte(id::MESSAGE_EXPIRY_INTERVAL);
                middle.bytes(expiry_s.to_be_bytes());
            }
            if self.topic_alias != 0 {
                middle.byte(id::TOPIC_ALIAS);
                middle.bytes(self.topic_alias.to_be_bytes());
            }
        }

        // Room for the scratch bytes that are cut off again, too.
        out.reserve(2 * Scratch::SIZE + self.topic.len() + own_len + self.properties.len());
        front.append_to(out);
        out.extend_from_slice(self.topic.as_bytes());
        middle.append_to(out);
        if self.version == Version::V5 {
            for &identifier in self.identifiers {
                out.put_u8(id::SUBSCRIPTION_IDENTIFIER);
                out.put_vbi(identifier);
            }
            out.extend_from_slice(self.properties);
        }
    }

    /// Bytes of the properties that are this delivery's own.
    #[inline]
    fn own_properties_len(&self) -> usize {
        let expiry = if self.expiry_s.is_some() { 5 } else { 0 };
        let alias = if self.topic_alias != 0 { 3 } else { 0 };
        let identifiers: usize = self.identifiers.iter().map(|&id| 1 + vbi_len(id)).sum();
        expiry + alias + identifiers
    }

    #[inline]
    fn remaining(&self, own_properties_len: usize) -> usize {
        let packet_id = if self.qos == Qos::AtMostOnce { 0 } else { 2 };
        let properties = match self.version {
            Version::V5 => {
                let len = own_properties_len + self.properties.len();
                vbi_len(len.min(REMAINING_LENGTH_MAX as usize) as u32) + len
            }
            Version::V31 | Version::V311 => 0,
        };
        2 + self.topic.len() + packet_id + properties + self.payload_len
    }
}

/// A few bytes gathered on the stack and appended in one store of constant size, which is cheaper than
/// appending each field.
struct Scratch {
    bytes: [u8; Scratch::SIZE],
    len: usize,
}

impl Scratch {
    /// Packet Identifier, property length, expiry and alias take 14.
    const SIZE: usize = 16;

    #[inline]
    const fn new() -> Self {
        Scratch { bytes: [0; Scratch::SIZE], len: 0 }
    }

    #[inline]
    fn byte(&mut self, byte: u8) {
        self.bytes([byte]);
    }

    #[inline]
    fn bytes<const N: usize>(&mut self, bytes: [u8; N]) {
        self.bytes[self.len..self.len + N].copy_from_slice(&bytes);
        self.len += N;
    }

    #[inline]
    fn vbi(&mut self, mut value: u32) {
        while value > 0x7F {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    #[inline]
    fn append_to(&self, out: &mut Vec<u8>) {
        let end = out.len() + self.len;
        out.extend_from_slice(&self.bytes);
        out.truncate(end);
    }
}

/// Which of the four acknowledgements of a PUBLISH.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum AckKind {
    /// Answers QoS 1.
    PubAck,
    /// Answers QoS 2.
    PubRec,
    /// Answers PUBREC.
    PubRel,
    /// Answers PUBREL.
    PubComp,
}

impl AckKind {
    const fn first_byte(self) -> u8 {
        match self {
            AckKind::PubAck => kind::PUBACK << 4,
            AckKind::PubRec => kind::PUBREC << 4,
            AckKind::PubRel => kind::PUBREL << 4 | 0b0010, // [MQTT-3.6.1-1]
            AckKind::PubComp => kind::PUBCOMP << 4,
        }
    }

    const fn allows(self, reason: Reason) -> bool {
        match self {
            AckKind::PubAck | AckKind::PubRec => reason.fits_puback_pubrec(),
            AckKind::PubRel | AckKind::PubComp => reason.fits_pubrel_pubcomp(),
        }
    }
}

/// Size of what [`encode_ack`] writes, in bytes.
pub const fn ack_packet_size(version: Version, reason: Reason) -> usize {
    match version {
        Version::V5 if reason.0 != Reason::SUCCESS.0 => 5,
        Version::V5 | Version::V31 | Version::V311 => 4,
    }
}

/// Appends PUBACK, PUBREC, PUBREL or PUBCOMP; 3.x has no reason codes. [U5-3.4.2-1] [U311-3.4-1]
/// [MQTT-2.2.1-5]
#[inline]
pub fn encode_ack(out: &mut Vec<u8>, version: Version, kind: AckKind, packet_id: u16, reason: Reason) {
    debug_assert!(kind.allows(reason), "[MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]");
    let [high, low] = packet_id.to_be_bytes();
    if version == Version::V5 && reason != Reason::SUCCESS {
        out.extend_from_slice(&[kind.first_byte(), 3, high, low, reason.0]);
    } else {
        out.extend_from_slice(&[kind.first_byte(), 2, high, low]);
    }
}

/// Appends SUBACK with one reason per Topic Filter, in the order of the SUBSCRIBE. [MQTT-3.8.4-6]
/// [MQTT-3.9.3-1]
///
/// 3.1.1 knows one failure, 0x80; 3.1 knows none, so that its caller passes the QoS to pretend: a failure
/// would go out as QoS 0. 3.1.1: [MQTT-3.9.3-2], 3.1: [V31-4]
pub fn encode_suback(out: &mut Vec<u8>, version: Version, packet_id: u16, reasons: &[Reason]) {
    debug_assert!(reasons.iter().all(|reason| reason.fits_suback()), "[MQTT-3.9.3-2]");
    out.put_u8(kind::SUBACK << 4);
    out.put_vbi(id_and_reasons_len(version, reasons.len()) as u32);
    put_packet_id(out, version, packet_id);
    out.extend(reasons.iter().map(|reason| match version {
        Version::V5 => reason.0,
        Version::V311 if reason.is_error() => Reason::UNSPECIFIED_ERROR.0,
        Version::V31 if reason.is_error() => Reason::GRANTED_QOS_0.0,
        Version::V31 | Version::V311 => reason.0,
    }));
}

/// Appends UNSUBACK with one reason per Topic Filter, in the order of the UNSUBSCRIBE; 3.x has none.
/// [MQTT-3.11.3-1] [MQTT-3.11.3-2]
pub fn encode_unsuback(out: &mut Vec<u8>, version: Version, packet_id: u16, reasons: &[Reason]) {
    debug_assert!(reasons.iter().all(|reason| reason.fits_unsuback()), "[MQTT-3.11.3-2]");
    let reasons = if version == Version::V5 { reasons } else { &[] };
    out.put_u8(kind::UNSUBACK << 4);
    out.put_vbi(id_and_reasons_len(version, reasons.len()) as u32);
    put_packet_id(out, version, packet_id);
    out.extend(reasons.iter().map(|reason| reason.0));
}

/// Remaining Length of a Packet Identifier, an empty property block in v5, and `reasons` bytes.
const fn id_and_reasons_len(version: Version, reasons: usize) -> usize {
    match version {
        Version::V5 => 3 + reasons,
        Version::V31 | Version::V311 => 2 + reasons,
    }
}

fn put_packet_id(out: &mut Vec<u8>, version: Version, packet_id: u16) {
    out.put_u16(packet_id);
    if version == Version::V5 {
        out.put_u8(0); // [MQTT-2.2.2-1]
    }
}

/// Appends PINGRESP. [MQTT-3.12.4-1]
#[inline]
pub fn encode_pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[kind::PINGRESP << 4, 0]);
}

/// Appends a v5 DISCONNECT; 3.x has none from a server. The Reason String is left out if the packet would
/// exceed `packet_size_max`, the packet if it still would. [MQTT-3.14.2-3] [MQTT-3.1.2-24]
pub fn encode_disconnect(
    out: &mut Vec<u8>,
    reason: Reason,
    reason_string: Option<&str>,
    packet_size_max: u32,
) {
    debug_assert!(reason.fits_server_disconnect(), "[MQTT-3.14.2-1]");
    let short: &[u8] = &[kind::DISCONNECT << 4, 1, reason.0];
    if let Some(text) = reason_string.filter(|text| text.len() <= STRING_MAX) {
        let properties = 3 + text.len();
        let remaining = 1 + vbi_len(properties as u32) + properties;
        if packet_size(remaining) <= packet_size_max as usize {
            out.put_u8(kind::DISCONNECT << 4);
            out.put_vbi(remaining as u32);
            out.put_u8(reason.0);
            out.put_vbi(properties as u32);
            out.put_u8(id::REASON_STRING);
            out.put_binary(text.as_bytes());
            return;
        }
    }
    if short.len() <= packet_size_max as usize {
        out.extend_from_slice(short);
    }
}

/// Appends a v5 AUTH with the Authentication Method of CONNECT.
///
/// `method` and `data` are at most 65,535 bytes each.
#[cfg(test)]
pub fn encode_auth(out: &mut Vec<u8>, reason: Reason, method: &str, data: Option<&[u8]>) {
    debug_assert!(matches!(reason, Reason::SUCCESS | Reason::CONTINUE_AUTHENTICATION), "[MQTT-3.15.2-1]");
    let properties = 3 + method.len() + data.map_or(0, |data| 3 + data.len());
    let remaining = 1 + vbi_len(properties as u32) + properties;
    out.put_u8(kind::AUTH << 4);
    out.put_vbi(remaining as u32);
    out.put_u8(reason.0);
    out.put_vbi(properties as u32);
    out.put_u8(id::AUTHENTICATION_METHOD);
    out.put_binary(method.as_bytes());
    if let Some(data) = data {
        out.put_u8(id::AUTHENTICATION_DATA);
        out.put_binary(data);
    }
}
