//! Control Packets as the simulated clients write and read them: a codec of its own, so that a fault of the broker's
//! codec does not hide itself. Strict where the standard is: what it cannot read is a fault of the broker.

/// 3.1.1 by default; 3.1 differs only in CONNECT.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Version {
    V31,
    V311,
    V5,
}

impl Version {
    pub fn is_v5(self) -> bool {
        self == Version::V5
    }
}

pub const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
pub const RECEIVE_MAXIMUM: u8 = 0x21;
pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
pub const TOPIC_ALIAS: u8 = 0x23;
pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
pub const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
pub const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
pub const WILL_DELAY_INTERVAL: u8 = 0x18;
pub const USER_PROPERTY: u8 = 0x26;
pub const CONTENT_TYPE: u8 = 0x03;

/// A property's value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    Number(u32),
    Bytes(Vec<u8>),
    Pair(String, String),
}

pub type Properties = Vec<(u8, Value)>;

/// The number of the first property with this id.
pub fn number(properties: &Properties, id: u8) -> Option<u32> {
    properties.iter().find_map(|(found, value)| match value {
        Value::Number(number) if *found == id => Some(*number),
        _ => None,
    })
}

enum Shape {
    Byte,
    Two,
    Four,
    Variable,
    Bytes,
    Pair,
}

fn shape(id: u8) -> Option<Shape> {
    Some(match id {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => Shape::Byte,
        0x13 | 0x21 | 0x22 | 0x23 => Shape::Two,
        0x02 | 0x11 | 0x18 | 0x27 => Shape::Four,
        0x0B => Shape::Variable,
        0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => Shape::Bytes,
        0x26 => Shape::Pair,
        _ => return None,
    })
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WillPacket {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub properties: Properties,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Publish {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    pub topic: String,
    pub packet_id: u16,
    pub properties: Properties,
    pub payload: Vec<u8>,
}

/// A packet that the broker sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Incoming {
    ConnAck {
        session_present: bool,
        code: u8,
        properties: Properties,
    },
    Publish(Publish),
    /// PUBACK, PUBREC, PUBREL, PUBCOMP by their type number.
    Ack {
        kind: u8,
        packet_id: u16,
        code: u8,
    },
    SubAck {
        packet_id: u16,
        codes: Vec<u8>,
    },
    UnsubAck {
        packet_id: u16,
        codes: Vec<u8>,
    },
    PingResp,
    Disconnect {
        code: u8,
    },
}

pub const CONNACK: u8 = 2;
pub const PUBLISH: u8 = 3;
pub const PUBACK: u8 = 4;
pub const PUBREC: u8 = 5;
pub const PUBREL: u8 = 6;
pub const PUBCOMP: u8 = 7;
pub const SUBACK: u8 = 9;

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}

fn put_variable(out: &mut Vec<u8>, mut value: u32) {
    loop {
        let byte = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            return out.push(byte);
        }
        out.push(byte | 0x80);
    }
}

fn put_properties(out: &mut Vec<u8>, properties: &Properties) {
    let mut bytes = Vec::new();
    for (id, value) in properties {
        bytes.push(*id);
        match (value, shape(*id)) {
            (Value::Number(number), Some(Shape::Byte)) => bytes.push(*number as u8),
            (Value::Number(number), Some(Shape::Two)) => bytes.extend((*number as u16).to_be_bytes()),
            (Value::Number(number), Some(Shape::Four)) => bytes.extend(number.to_be_bytes()),
            (Value::Number(number), Some(Shape::Variable)) => put_variable(&mut bytes, *number),
            (Value::Bytes(text), Some(Shape::Bytes)) => put_text(&mut bytes, text),
            (Value::Pair(name, value), Some(Shape::Pair)) => {
                put_text(&mut bytes, name.as_bytes());
                put_text(&mut bytes, value.as_bytes());
            }
            (value, _) => panic!("property {id:#x} cannot be {value:?}"),
        }
    }
    put_variable(out, bytes.len() as u32);
    out.extend(bytes);
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    put_variable(&mut out, body.len() as u32);
    out.extend_from_slice(body);
    out
}

pub struct ConnectPacket<'a> {
    pub version: Version,
    pub client_id: &'a str,
    pub clean_start: bool,
    pub keep_alive_s: u16,
    pub properties: Properties,
    pub will: Option<&'a WillPacket>,
}

pub fn connect(c: &ConnectPacket<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    let (name, level) = match c.version {
        Version::V31 => ("MQIsdp", 3),
        Version::V311 => ("MQTT", 4),
        Version::V5 => ("MQTT", 5),
    };
    put_text(&mut body, name.as_bytes());
    body.push(level);
    let mut flags = u8::from(c.clean_start) << 1;
    if let Some(will) = c.will {
        flags |= 0x04 | will.qos << 3 | u8::from(will.retain) << 5;
    }
    body.push(flags);
    body.extend(c.keep_alive_s.to_be_bytes());
    if c.version.is_v5() {
        put_properties(&mut body, &c.properties);
    }
    put_text(&mut body, c.client_id.as_bytes());
    if let Some(will) = c.will {
        if c.version.is_v5() {
            put_properties(&mut body, &will.properties);
        }
        put_text(&mut body, will.topic.as_bytes());
        put_text(&mut body, &will.payload);
    }
    packet(0x10, &body)
}

pub fn publish(version: Version, p: &Publish) -> Vec<u8> {
    let mut body = Vec::new();
    put_text(&mut body, p.topic.as_bytes());
    if p.qos > 0 {
        body.extend(p.packet_id.to_be_bytes());
    }
    if version.is_v5() {
        put_properties(&mut body, &p.properties);
    }
    body.extend_from_slice(&p.payload);
    packet(0x30 | u8::from(p.dup) << 3 | p.qos << 1 | u8::from(p.retain), &body)
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP; the code is written only where it is an error and there is room for it.
pub fn ack(version: Version, kind: u8, packet_id: u16, code: u8) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version.is_v5() && code != 0 {
        body.push(code);
    }
    packet(kind << 4 | if kind == PUBREL { 2 } else { 0 }, &body)
}

/// Options as in the standard's byte, whose upper bits 3.x clients leave 0.
pub fn subscribe(
    version: Version,
    packet_id: u16,
    identifier: Option<u32>,
    filters: &[(String, u8)],
) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version.is_v5() {
        let properties = identifier.map(|id| (SUBSCRIPTION_IDENTIFIER, Value::Number(id)));
        put_properties(&mut body, &properties.into_iter().collect());
    }
    for (filter, options) in filters {
        put_text(&mut body, filter.as_bytes());
        body.push(*options);
    }
    packet(0x82, &body)
}

pub fn unsubscribe(version: Version, packet_id: u16, filters: &[String]) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version.is_v5() {
        put_properties(&mut body, &Vec::new());
    }
    for filter in filters {
        put_text(&mut body, filter.as_bytes());
    }
    packet(0xA2, &body)
}

pub fn pingreq() -> Vec<u8> {
    packet(0xC0, &[])
}

pub fn disconnect(version: Version, code: u8, expiry: Option<u32>) -> Vec<u8> {
    if !version.is_v5() || (code == 0 && expiry.is_none()) {
        return packet(0xE0, &[]);
    }
    let mut body = vec![code];
    if let Some(expiry) = expiry {
        put_properties(&mut body, &vec![(SESSION_EXPIRY_INTERVAL, Value::Number(expiry))]);
    }
    packet(0xE0, &body)
}

/// Walks the bytes of one packet; every `Err` is a fault of the broker.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        if count > self.0.len() {
            return Err("packet ends early".into());
        }
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn two(&mut self) -> Result<u16, String> {
        Ok(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    fn four(&mut self) -> Result<u32, String> {
        Ok(u32::from(self.two()?) << 16 | u32::from(self.two()?))
    }

    fn variable(&mut self) -> Result<u32, String> {
        let mut value = 0;
        for at in 0..4 {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7F) << (7 * at);
            if byte & 0x80 == 0 {
                return if at > 0 && byte == 0 { Err("over-long integer".into()) } else { Ok(value) };
            }
        }
        Err("integer of five bytes".into())
    }

    fn bytes(&mut self) -> Result<Vec<u8>, String> {
        let len = self.two()?;
        Ok(self.take(usize::from(len))?.to_vec())
    }

    fn text(&mut self) -> Result<String, String> {
        String::from_utf8(self.bytes()?).map_err(|_| "text is not UTF-8".into())
    }

    fn properties(&mut self) -> Result<Properties, String> {
        let len = self.variable()? as usize;
        let mut inner = Reader(self.take(len)?);
        let mut found = Properties::new();
        while !inner.0.is_empty() {
            let id = inner.byte()?;
            let value = match shape(id).ok_or_else(|| format!("unknown property {id:#x}"))? {
                Shape::Byte => Value::Number(u32::from(inner.byte()?)),
                Shape::Two => Value::Number(u32::from(inner.two()?)),
                Shape::Four => Value::Number(inner.four()?),
                Shape::Variable => Value::Number(inner.variable()?),
                Shape::Bytes => Value::Bytes(inner.bytes()?),
                Shape::Pair => Value::Pair(inner.text()?, inner.text()?),
            };
            if ![USER_PROPERTY, SUBSCRIPTION_IDENTIFIER].contains(&id)
                && found.iter().any(|(of, _)| *of == id)
            {
                return Err(format!("property {id:#x} twice"));
            }
            found.push((id, value));
        }
        Ok(found)
    }

    fn end(&self) -> Result<(), String> {
        if self.0.is_empty() { Ok(()) } else { Err(format!("{} bytes too many", self.0.len())) }
    }
}

/// The first packet of `bytes` and its length; `None` if it is not complete.
pub fn decode(version: Version, bytes: &[u8]) -> Result<Option<(Incoming, usize)>, String> {
    if bytes.len() < 2 {
        return Ok(None);
    }
    let mut header = Reader(&bytes[1..]);
    let complete = (1..=4).any(|n| bytes.len() > n && bytes[n] & 0x80 == 0);
    if !complete {
        return if bytes.len() > 5 { Err("length of five bytes".into()) } else { Ok(None) };
    }
    let len = header.variable()? as usize;
    if header.0.len() < len {
        return Ok(None);
    }
    let total = bytes.len() - header.0.len() + len;
    let packet = body(version, bytes[0], Reader(&header.0[..len]))
        .map_err(|why| format!("unreadable packet: {why}: {:02x?}", &bytes[..total.min(64)]))?;
    Ok(Some((packet, total)))
}

fn body(version: Version, first: u8, mut r: Reader<'_>) -> Result<Incoming, String> {
    let (kind, flags) = (first >> 4, first & 15);
    let expected = if kind == PUBREL { 2 } else { 0 };
    if kind != 3 && flags != expected {
        return Err(format!("flags {flags:#x}"));
    }
    let v5 = version.is_v5();
    let packet = match kind {
        2 => {
            let present = r.byte()?;
            if present > 1 {
                return Err("reserved bits of CONNACK".into());
            }
            let code = r.byte()?;
            let properties = if v5 { r.properties()? } else { Properties::new() };
            Incoming::ConnAck { session_present: present == 1, code, properties }
        }
        3 => {
            let (dup, qos, retain) = (flags & 8 != 0, flags >> 1 & 3, flags & 1 != 0);
            if qos == 3 || (qos == 0 && dup) {
                return Err("QoS or DUP of PUBLISH".into());
            }
            let topic = r.text()?;
            let packet_id = if qos > 0 { r.two()? } else { 0 };
            if qos > 0 && packet_id == 0 {
                return Err("Packet Identifier 0".into());
            }
            let properties = if v5 { r.properties()? } else { Properties::new() };
            let payload = std::mem::take(&mut r.0).to_vec();
            Incoming::Publish(Publish { dup, qos, retain, topic, packet_id, properties, payload })
        }
        PUBACK..=PUBCOMP => {
            let packet_id = r.two()?;
            let code = if v5 && !r.0.is_empty() { r.byte()? } else { 0 };
            if v5 && !r.0.is_empty() {
                r.properties()?;
            }
            Incoming::Ack { kind, packet_id, code }
        }
        9 | 11 => {
            let packet_id = r.two()?;
            if v5 {
                r.properties()?;
            }
            let codes = std::mem::take(&mut r.0).to_vec();
            if kind == 9 {
                Incoming::SubAck { packet_id, codes }
            } else {
                Incoming::UnsubAck { packet_id, codes }
            }
        }
        13 => Incoming::PingResp,
        14 if v5 => {
            let code = if r.0.is_empty() { 0 } else { r.byte()? };
            if !r.0.is_empty() {
                r.properties()?;
            }
            Incoming::Disconnect { code }
        }
        other => return Err(format!("packet type {other} from the broker")),
    };
    r.end()?;
    Ok(packet)
}

#[test]
fn what_is_written_is_read_back() {
    let publish_packet = Publish {
        dup: true,
        qos: 2,
        retain: true,
        topic: "a/b".into(),
        packet_id: 7,
        properties: vec![
            (MESSAGE_EXPIRY_INTERVAL, Value::Number(9)),
            (SUBSCRIPTION_IDENTIFIER, Value::Number(200)),
            (USER_PROPERTY, Value::Pair("k".into(), "v".into())),
            (CONTENT_TYPE, Value::Bytes(b"x".to_vec())),
        ],
        payload: vec![5; 300],
    };
    let bytes = publish(Version::V5, &publish_packet);
    for cut in 0..bytes.len() {
        assert_eq!(decode(Version::V5, &bytes[..cut]), Ok(None));
    }
    let expected = Some((Incoming::Publish(publish_packet), bytes.len()));
    assert_eq!(decode(Version::V5, &bytes), Ok(expected));
    let rel = ack(Version::V5, PUBREL, 3, 0x92);
    assert_eq!(rel, [0x62, 3, 0, 3, 0x92]);
    let expected = Some((Incoming::Ack { kind: PUBREL, packet_id: 3, code: 0x92 }, 5));
    assert_eq!(decode(Version::V5, &rel), Ok(expected));
    assert_eq!(subscribe(Version::V311, 1, None, &[("a".into(), 1)]), [0x82, 6, 0, 1, 0, 1, b'a', 1]);
    assert_eq!(disconnect(Version::V5, 4, None), [0xE0, 1, 4]);
}

#[test]
fn what_the_standard_forbids_is_refused() {
    for bytes in [
        &[0x20, 3, 2, 0, 0][..],
        &[0x36, 3, 0, 1, b'a'],
        &[0x32, 5, 0, 1, b'a', 0, 0],
        &[0x61, 2, 0, 1],
        &[0xD0, 1, 0],
        &[0x30, 0x80, 0x00],
        &[0x10, 0],
    ] {
        assert!(decode(Version::V5, bytes).is_err(), "{bytes:02x?}");
    }
}
