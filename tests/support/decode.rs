//! The strict decoder: bytes of the broker to packets, with everything checked that the standard lets a
//! server write. A broken rule is an error that names it; the client turns it into a test failure.

use super::encode::{Publish, Version};
use super::property::{Kind, Place, Property, allowed, kind};

/// A packet that a server may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    Connack(Connack),
    Publish(Publish),
    Puback(Ack),
    Pubrec(Ack),
    Pubrel(Ack),
    Pubcomp(Ack),
    Suback(Codes),
    Unsuback(Codes),
    Pingresp,
    Disconnect(Reason),
    Auth(Reason),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connack {
    pub session_present: bool,
    pub code: u8,
    pub properties: Vec<Property>,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP. In 3.x `code` is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    pub packet_id: u16,
    pub code: u8,
    pub properties: Vec<Property>,
}

/// SUBACK or UNSUBACK. In 3.x an UNSUBACK has no codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codes {
    pub packet_id: u16,
    pub codes: Vec<u8>,
    pub properties: Vec<Property>,
}

/// DISCONNECT or AUTH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    pub code: u8,
    pub properties: Vec<Property>,
}

/// Reason codes that a server may send, by packet.
const CONNACK_CODES: [u8; 22] = [
    0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99,
    0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
];
const PUBACK_CODES: [u8; 9] = [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
const PUBREL_CODES: [u8; 2] = [0x00, 0x92];
const SUBACK_CODES: [u8; 12] = [0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2];
const UNSUBACK_CODES: [u8; 7] = [0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
const DISCONNECT_CODES: [u8; 28] = [
    0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96,
    0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1,
];
const AUTH_CODES: [u8; 2] = [0x00, 0x18];

type Result<T> = std::result::Result<T, String>;

/// How many bytes the first packet in `bytes` has, header included, or None while more must be read.
///
/// # Errors
/// A Remaining Length of more than four bytes, or not in its shortest form.
pub fn frame_length(bytes: &[u8]) -> Result<Option<usize>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    Ok(vbi(&bytes[1..])?.map(|(length, used)| 1 + used + length as usize))
}

/// The integer and the bytes it took, or None if it is not whole.
fn vbi(bytes: &[u8]) -> Result<Option<(u32, usize)>> {
    let mut value = 0u32;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            if index > 0 && *byte == 0 {
                return Err("[MQTT-1.5.5-1] a variable byte integer longer than need be".into());
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= 4 { Err("a variable byte integer of more than four bytes".into()) } else { Ok(None) }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        if count > self.bytes.len() {
            return Err(format!("a field of {count} bytes where {} are left", self.bytes.len()));
        }
        let (head, tail) = self.bytes.split_at(count);
        self.bytes = tail;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.take(2)?.try_into().expect("two bytes")))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    fn vbi(&mut self) -> Result<u32> {
        let (value, used) = vbi(self.bytes)?.ok_or("a variable byte integer that is cut off")?;
        self.take(used)?;
        Ok(value)
    }

    fn binary(&mut self) -> Result<Vec<u8>> {
        let length = self.u16()?;
        Ok(self.take(usize::from(length))?.to_vec())
    }

    fn string(&mut self) -> Result<String> {
        let text =
            String::from_utf8(self.binary()?).map_err(|_| "[MQTT-1.5.4-1] a string that is not UTF-8")?;
        if text.contains('\0') {
            return Err("[MQTT-1.5.4-2] a string with U+0000".into());
        }
        Ok(text)
    }

    fn packet_id(&mut self) -> Result<u16> {
        match self.u16()? {
            0 => Err("[MQTT-2.2.1-4] packet identifier 0".into()),
            id => Ok(id),
        }
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    fn end(&self) -> Result<()> {
        if self.bytes.is_empty() { Ok(()) } else { Err(format!("{} bytes too many", self.bytes.len())) }
    }

    fn properties(&mut self, place: Place) -> Result<Vec<Property>> {
        let length = self.vbi()?;
        let mut block = Reader { bytes: self.take(length as usize)? };
        let mut out: Vec<Property> = Vec::new();
        while !block.bytes.is_empty() {
            let property = block.property(place)?;
            let may_repeat = property.id() == 0x26 || (place == Place::Publish && property.id() == 0x0B);
            if !may_repeat && out.iter().any(|p| p.id() == property.id()) {
                return Err(format!("property {:#04x} twice", property.id()));
            }
            out.push(property);
        }
        Ok(out)
    }

    fn property(&mut self, place: Place) -> Result<Property> {
        use Property::*;
        let id = self.byte()?;
        let kind = kind(id).ok_or(format!("unknown property {id:#04x}"))?;
        if !allowed(id, place) {
            return Err(format!("property {id:#04x} in {place:?}"));
        }
        Ok(match kind {
            Kind::Byte => {
                let value = self.byte()?;
                if value > 1 {
                    return Err(format!("property {id:#04x} with value {value}"));
                }
                match id {
                    0x01 => PayloadFormat(value),
                    0x17 => RequestProblemInfo(value),
                    0x19 => RequestResponseInfo(value),
                    0x24 => MaximumQos(value),
                    0x25 => RetainAvailable(value),
                    0x28 => WildcardAvailable(value),
                    0x29 => SubscriptionIdAvailable(value),
                    _ => SharedAvailable(value),
                }
            }
            Kind::U16 => {
                let value = self.u16()?;
                match id {
                    0x13 => ServerKeepAlive(value),
                    0x21 if value == 0 => return Err("Receive Maximum 0".into()),
                    0x21 => ReceiveMaximum(value),
                    0x22 => TopicAliasMaximum(value),
                    _ if value == 0 => return Err("[MQTT-3.3.2-8] Topic Alias 0".into()),
                    _ => TopicAlias(value),
                }
            }
            Kind::U32 => {
                let value = self.u32()?;
                match id {
                    0x02 => MessageExpiry(value),
                    0x11 => SessionExpiry(value),
                    0x18 => WillDelay(value),
                    _ if value == 0 => return Err("Maximum Packet Size 0".into()),
                    _ => MaximumPacketSize(value),
                }
            }
            Kind::Vbi => match self.vbi()? {
                0 => return Err("Subscription Identifier 0".into()),
                value => SubscriptionId(value),
            },
            Kind::Str => {
                let value = self.string()?;
                match id {
                    0x03 => ContentType(value),
                    0x08 => ResponseTopic(value),
                    0x12 => AssignedClientId(value),
                    0x15 => AuthMethod(value),
                    0x1A => ResponseInfo(value),
                    0x1C => ServerReference(value),
                    _ => ReasonString(value),
                }
            }
            Kind::Bin => {
                let value = self.binary()?;
                if id == 0x09 { CorrelationData(value) } else { AuthData(value) }
            }
            Kind::Pair => User(self.string()?, self.string()?),
        })
    }
}

/// One whole packet from a server.
///
/// # Errors
/// The rule that the packet breaks.
pub fn decode(version: Version, bytes: &[u8]) -> Result<Packet> {
    let (_, used) = vbi(&bytes[1..])?.ok_or("a packet without its length")?;
    let mut reader = Reader { bytes: &bytes[1 + used..] };
    let first = bytes[0];
    let v5 = version == Version::V5;
    let packet = match first {
        0x20 => Packet::Connack(connack(&mut reader, version)?),
        0x30..=0x3F => Packet::Publish(publish(first, &mut reader, v5)?),
        0x40 => Packet::Puback(ack(&mut reader, v5, Place::Puback, &PUBACK_CODES)?),
        0x50 => Packet::Pubrec(ack(&mut reader, v5, Place::Pubrec, &PUBACK_CODES)?),
        0x62 => Packet::Pubrel(ack(&mut reader, v5, Place::Pubrel, &PUBREL_CODES)?),
        0x70 => Packet::Pubcomp(ack(&mut reader, v5, Place::Pubcomp, &PUBREL_CODES)?),
        0x90 => {
            let known: &[u8] = match version {
                Version::V5 => &SUBACK_CODES,
                Version::V311 => &[0, 1, 2, 0x80],
                Version::V31 => &[0, 1, 2],
            };
            let suback = codes(&mut reader, v5, Place::Suback, known)?;
            if suback.codes.is_empty() {
                return Err("[MQTT-3.8.4-6] SUBACK without a code".into());
            }
            Packet::Suback(suback)
        }
        0xB0 => {
            Packet::Unsuback(codes(&mut reader, v5, Place::Unsuback, if v5 { &UNSUBACK_CODES } else { &[] })?)
        }
        0xD0 => Packet::Pingresp,
        0xE0 if v5 => {
            let reason = reason(&mut reader, Place::Disconnect, &DISCONNECT_CODES)?;
            if reason.properties.iter().any(|p| matches!(p, Property::SessionExpiry(_))) {
                return Err("[MQTT-3.14.2-2] DISCONNECT of a server with Session Expiry Interval".into());
            }
            Packet::Disconnect(reason)
        }
        0xF0 if v5 => Packet::Auth(reason(&mut reader, Place::Auth, &AUTH_CODES)?),
        _ => return Err(format!("[MQTT-2.1.3-1] first byte {first:#04x} from a server")),
    };
    reader.end()?;
    Ok(packet)
}

fn connack(reader: &mut Reader, version: Version) -> Result<Connack> {
    let flags = reader.byte()?;
    if flags > 1 {
        return Err(format!("[MQTT-3.2.2-1] acknowledge flags {flags:#04x}"));
    }
    let code = reader.byte()?;
    let v5 = version == Version::V5;
    let known = if v5 { CONNACK_CODES.contains(&code) } else { code <= 5 };
    if !known {
        return Err(format!("[MQTT-3.2.2-8] CONNACK code {code:#04x}"));
    }
    if code != 0 && flags != 0 {
        return Err("[MQTT-3.2.2-6] Session Present with a refusal".into());
    }
    if version == Version::V31 && flags != 0 {
        return Err("[V31-3] Session Present to a 3.1 client".into());
    }
    let properties = if v5 { reader.properties(Place::Connack)? } else { Vec::new() };
    Ok(Connack { session_present: flags == 1, code, properties })
}

fn publish(first: u8, reader: &mut Reader, v5: bool) -> Result<Publish> {
    let (dup, qos, retain) = (first & 0x08 != 0, first >> 1 & 0x03, first & 0x01 != 0);
    if qos == 3 {
        return Err("[MQTT-3.3.1-4] PUBLISH with QoS 3".into());
    }
    if dup && qos == 0 {
        return Err("[MQTT-3.3.1-2] DUP at QoS 0".into());
    }
    let topic = reader.string()?;
    if topic.contains(['+', '#']) {
        return Err(format!("[MQTT-3.3.2-2] wildcard in topic name {topic:?}"));
    }
    let packet_id = if qos > 0 { reader.packet_id()? } else { 0 };
    let properties = if v5 { reader.properties(Place::Publish)? } else { Vec::new() };
    if topic.is_empty() && !properties.iter().any(|p| matches!(p, Property::TopicAlias(_))) {
        return Err("[MQTT-4.7.3-1] empty topic name without an alias".into());
    }
    Ok(Publish { dup, qos, retain, topic, packet_id, properties, payload: reader.rest().to_vec() })
}

fn ack(reader: &mut Reader, v5: bool, place: Place, known: &[u8]) -> Result<Ack> {
    let packet_id = reader.packet_id()?;
    let code = if v5 && !reader.bytes.is_empty() { reader.byte()? } else { 0 };
    if !known.contains(&code) {
        return Err(format!("{place:?} with code {code:#04x}"));
    }
    let properties = if v5 && !reader.bytes.is_empty() { reader.properties(place)? } else { Vec::new() };
    Ok(Ack { packet_id, code, properties })
}

fn codes(reader: &mut Reader, v5: bool, place: Place, known: &[u8]) -> Result<Codes> {
    let packet_id = reader.packet_id()?;
    let properties = if v5 { reader.properties(place)? } else { Vec::new() };
    let codes = reader.rest().to_vec();
    if let Some(code) = codes.iter().find(|code| !known.contains(code)) {
        return Err(format!("{place:?} with code {code:#04x}"));
    }
    Ok(Codes { packet_id, codes, properties })
}

fn reason(reader: &mut Reader, place: Place, known: &[u8]) -> Result<Reason> {
    let code = if reader.bytes.is_empty() { 0 } else { reader.byte()? };
    if !known.contains(&code) {
        return Err(format!("{place:?} with code {code:#04x}"));
    }
    let properties = if reader.bytes.is_empty() { Vec::new() } else { reader.properties(place)? };
    Ok(Reason { code, properties })
}
