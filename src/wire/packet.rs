//! Every Control Packet that a client may send after its CONNECT.

use super::frame::{Frame, kind};
use super::properties::{IdSet, Walk, id};
use super::read::Reader;
use super::{DecodeError, DecodeLimits, Publish, Reason, Subscribe, Unsubscribe, Version};

/// A packet from a client, as a view of its bytes.
#[derive(Copy, Clone, Debug)]
pub enum Packet<'a> {
    /// An Application Message.
    Publish(Publish<'a>),
    /// Ends a QoS 1 delivery.
    PubAck(Ack),
    /// First answer of a QoS 2 delivery.
    PubRec(Ack),
    /// Releases the client's own QoS 2 message.
    PubRel(Ack),
    /// Ends a QoS 2 delivery.
    PubComp(Ack),
    /// Asks for subscriptions.
    Subscribe(Subscribe<'a>),
    /// Ends subscriptions.
    Unsubscribe(Unsubscribe<'a>),
    /// To be answered by PINGRESP.
    PingReq,
    /// The client leaves.
    Disconnect(Disconnect<'a>),
    /// A step of enhanced authentication.
    Auth(Auth<'a>),
    /// A second CONNECT, not looked into: a Protocol Error whatever it holds. [MQTT-3.1.0-2]
    Connect,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Ack {
    /// Never 0.
    pub packet_id: u16,
    /// One that the standard allows in this packet; success in 3.x.
    pub reason: Reason,
}

/// A client's last packet.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Disconnect<'a> {
    /// One that a client may send; normal disconnection in 3.x.
    pub reason: Reason,
    /// Replaces the value of CONNECT. Whether it may is judged by the session. [U5-3.14.2-3]
    pub session_expiry_s: Option<u32>,
    /// Why, in the client's words.
    pub reason_string: Option<&'a str>,
}

/// A step of enhanced authentication.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Auth<'a> {
    /// Continue authentication or Re-authenticate.
    pub reason: Reason,
    /// Always there in a decoded packet; an option so that it compares with the one of CONNECT. [U5-3.15.2-1]
    pub method: Option<&'a str>,
    /// What the method defines.
    pub data: Option<&'a [u8]>,
}

/// Reads a packet that is not the first of its connection.
///
/// # Errors
/// v5: as the error says. 3.x: whatever the error, the connection is closed without a word.
/// 3.1.1: [MQTT-4.8.0-1]
#[inline]
pub fn decode<'a>(
    version: Version,
    frame: &Frame<'a>,
    limits: &DecodeLimits,
) -> Result<Packet<'a>, DecodeError> {
    if frame.is_publish() {
        return Publish::decode(version, frame, limits, "").map(Packet::Publish);
    }
    decode_other(version, frame, limits)
}

/// Reads a packet that [`Frame::is_publish`] names. Where its Topic Name is `known`, which must be one, `known` is what it
/// gets: the same bytes need no second look.
///
/// # Errors
/// As [`decode`].
#[inline]
pub fn decode_publish<'a>(
    version: Version,
    frame: &Frame<'a>,
    limits: &DecodeLimits,
    known: &'a str,
) -> Result<Publish<'a>, DecodeError> {
    Publish::decode(version, frame, limits, known)
}

fn decode_other<'a>(
    version: Version,
    frame: &Frame<'a>,
    limits: &DecodeLimits,
) -> Result<Packet<'a>, DecodeError> {
    judge_first(version, frame.first)?;
    let ack = |allowed| Ack::decode(version, frame, limits, allowed);
    match frame.kind() {
        kind::CONNECT => Ok(Packet::Connect),
        kind::PUBACK => ack(Reason::fits_puback_pubrec).map(Packet::PubAck),
        kind::PUBREC => ack(Reason::fits_puback_pubrec).map(Packet::PubRec),
        kind::PUBREL => ack(Reason::fits_pubrel_pubcomp).map(Packet::PubRel),
        kind::PUBCOMP => ack(Reason::fits_pubrel_pubcomp).map(Packet::PubComp),
        kind::SUBSCRIBE => Subscribe::decode(version, frame, limits).map(Packet::Subscribe),
        kind::UNSUBSCRIBE => Unsubscribe::decode(version, frame, limits).map(Packet::Unsubscribe),
        // [U5-3.12-1], 3.1.1: [U311-3.12-1]
        kind::PINGREQ => Reader::new(frame.body).finish().map(|()| Packet::PingReq),
        kind::DISCONNECT => Disconnect::decode(version, frame, limits).map(Packet::Disconnect),
        _ => Auth::decode(frame, limits).map(Packet::Auth),
    }
}

/// Judges a packet of which no more than its first byte has to be there: what no body can make good need not be waited for.
///
/// # Errors
/// As [`decode`] would say of the whole packet.
#[inline]
pub fn judge_first(version: Version, first: u8) -> Result<(), DecodeError> {
    let frame = Frame { first, body: &[], len: 0 };
    match frame.kind() {
        0 => Err(DecodeError::Malformed("packet type is 0")), // [U5-2.1.2-1], 3.1.1: [U311-2.2.1-1]
        kind::AUTH if version != Version::V5 => Err(DecodeError::Malformed("packet type is 15")),
        kind::CONNACK | kind::SUBACK | kind::UNSUBACK | kind::PINGRESP => {
            Err(DecodeError::ProtocolError("packet type that only a server sends")) // [U5-2.1.2-2]
        }
        kind::PUBLISH => Publish::judge_flags(frame.flags()).map(|_| ()),
        kind::CONNECT => Ok(()),
        _ => check_flags(version, &frame),
    }
}

/// The reserved flags of the fixed header. [MQTT-2.1.3-1] [U5-2.1.3-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1]
/// [MQTT-3.10.1-1] [MQTT-3.14.1-1] [MQTT-3.15.1-1], 3.1.1: [MQTT-2.2.2-1] [MQTT-2.2.2-2]
fn check_flags(version: Version, frame: &Frame<'_>) -> Result<(), DecodeError> {
    let expected = match frame.kind() {
        kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => 0b0010,
        _ => 0,
    };
    // 3.1 has DUP and QoS bits there or does not look at them. [V31-6]
    if frame.flags() == expected || version == Version::V31 {
        Ok(())
    } else {
        Err(DecodeError::Malformed("reserved flags of the fixed header have the wrong value"))
    }
}

impl Ack {
    fn decode(
        version: Version,
        frame: &Frame<'_>,
        limits: &DecodeLimits,
        allowed: fn(Reason) -> bool,
    ) -> Result<Ack, DecodeError> {
        let mut reader = Reader::new(frame.body);
        let packet_id = reader.packet_id()?;
        if reader.is_empty() {
            return Ok(Ack { packet_id, reason: Reason::SUCCESS });
        }
        if version != Version::V5 {
            reader.finish()?; // 3.1.1: [U311-3.4-1]
        }
        // Three bytes: a reason code and no property length. [U5-3.4.2-1]
        let reason = Reason(reader.u8()?);
        if !allowed(reason) {
            // [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]
            return Err(DecodeError::ProtocolError("reason code is not allowed in this acknowledgement"));
        }
        if !reader.is_empty() {
            explanation(reader.property_block()?, limits)?;
        }
        reader.finish()?;
        Ok(Ack { packet_id, reason })
    }
}

/// Properties of an acknowledgement: Reason String and User Property, of no use to a server.
fn explanation(block: &[u8], limits: &DecodeLimits) -> Result<(), DecodeError> {
    const ALLOWED: IdSet = IdSet::of(&[id::REASON_STRING, id::USER_PROPERTY]);
    let mut walk = Walk::new(block, ALLOWED, limits);
    while let Some(id) = walk.next_id()? {
        match id {
            id::REASON_STRING => walk.value.string().map(|_| ())?,
            _ => walk.user_property()?,
        }
    }
    Ok(())
}

impl<'a> Disconnect<'a> {
    fn decode(
        version: Version,
        frame: &Frame<'a>,
        limits: &DecodeLimits,
    ) -> Result<Disconnect<'a>, DecodeError> {
        let mut reader = Reader::new(frame.body);
        let mut disconnect =
            Disconnect { reason: Reason::NORMAL_DISCONNECTION, session_expiry_s: None, reason_string: None };
        if version != Version::V5 {
            reader.finish()?; // 3.1.1: [U311-3.12-1]
        }
        if reader.is_empty() {
            return Ok(disconnect); // [U5-3.14.2-1]
        }
        disconnect.reason = Reason(reader.u8()?);
        if !disconnect.reason.fits_client_disconnect() {
            return Err(DecodeError::ProtocolError("reason code is not allowed in a client's DISCONNECT")); // [MQTT-3.14.2-1]
        }
        if !reader.is_empty() {
            disconnect.decode_properties(reader.property_block()?, limits)?;
        }
        reader.finish()?;
        Ok(disconnect)
    }

    fn decode_properties(&mut self, block: &'a [u8], limits: &DecodeLimits) -> Result<(), DecodeError> {
        const ALLOWED: IdSet = IdSet::of(&[
            id::SESSION_EXPIRY_INTERVAL,
            id::REASON_STRING,
            id::USER_PROPERTY,
            id::SERVER_REFERENCE,
        ]);
        let mut walk = Walk::new(block, ALLOWED, limits);
        while let Some(id) = walk.next_id()? {
            match id {
                id::SESSION_EXPIRY_INTERVAL => self.session_expiry_s = Some(walk.value.u32()?),
                id::REASON_STRING => self.reason_string = Some(walk.value.string()?),
                id::SERVER_REFERENCE => {
                    // [U5-3.14.2-5]
                    return Err(DecodeError::ProtocolError("Server Reference in a client's DISCONNECT"));
                }
                _ => walk.user_property()?,
            }
        }
        Ok(())
    }
}

impl<'a> Auth<'a> {
    fn decode(frame: &Frame<'a>, limits: &DecodeLimits) -> Result<Auth<'a>, DecodeError> {
        const NO_METHOD: DecodeError = DecodeError::ProtocolError("AUTH without Authentication Method");
        let mut reader = Reader::new(frame.body);
        if reader.is_empty() {
            return Err(NO_METHOD); // [U5-3.15.2-2]
        }
        let reason = Reason(reader.u8()?);
        if !matches!(reason, Reason::CONTINUE_AUTHENTICATION | Reason::RE_AUTHENTICATE) {
            return Err(DecodeError::ProtocolError("reason code is not allowed in a client's AUTH")); // [MQTT-3.15.2-1]
        }
        let mut auth = Auth { reason, method: None, data: None };
        auth.decode_properties(reader.property_block()?, limits)?;
        reader.finish()?;
        if auth.method.is_none() {
            return Err(NO_METHOD); // [U5-3.15.2-1]
        }
        Ok(auth)
    }

    fn decode_properties(&mut self, block: &'a [u8], limits: &DecodeLimits) -> Result<(), DecodeError> {
        const ALLOWED: IdSet = IdSet::of(&[
            id::AUTHENTICATION_METHOD,
            id::AUTHENTICATION_DATA,
            id::REASON_STRING,
            id::USER_PROPERTY,
        ]);
        let mut walk = Walk::new(block, ALLOWED, limits);
        while let Some(id) = walk.next_id()? {
            match id {
                id::AUTHENTICATION_METHOD => self.method = Some(walk.value.string()?),
                id::AUTHENTICATION_DATA => self.data = Some(walk.value.binary()?),
                id::REASON_STRING => walk.value.string().map(|_| ())?,
                _ => walk.user_property()?,
            }
        }
        Ok(())
    }
}
