//! The other side of the wire for tests: writes what a client sends, well formed or not, and reads what a
//! server sends.
//!
//! Deliberately plain, owned and slow. It shares no code with the codec, so that a mistake there is not
//! repeated here.

use super::{Frame, LengthForm, NextFrame, Qos, Version, next_frame};

/// One property: its identifier and a value of one of the seven types.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) enum Prop {
    Byte(u8, u8),
    Two(u8, u16),
    Four(u8, u32),
    Vbi(u8, u32),
    Text(u8, String),
    Data(u8, Vec<u8>),
    Pair(String, String),
}

impl Prop {
    pub(crate) fn id(&self) -> u8 {
        match *self {
            Prop::Byte(id, _) | Prop::Two(id, _) | Prop::Four(id, _) | Prop::Vbi(id, _) => id,
            Prop::Text(id, _) | Prop::Data(id, _) => id,
            Prop::Pair(..) => 0x26,
        }
    }

    pub(crate) fn text(id: u8, text: &str) -> Prop {
        Prop::Text(id, text.to_owned())
    }

    pub(crate) fn pair(name: &str, value: &str) -> Prop {
        Prop::Pair(name.to_owned(), value.to_owned())
    }
}

/// Bytes of a packet in the making.
#[derive(Clone, Default, Debug)]
pub(crate) struct Body(pub(crate) Vec<u8>);

impl Body {
    pub(crate) fn new() -> Body {
        Body::default()
    }

    pub(crate) fn u8(mut self, value: u8) -> Body {
        self.0.push(value);
        self
    }

    pub(crate) fn u16(mut self, value: u16) -> Body {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Body {
        self.0.extend(bytes);
        self
    }

    pub(crate) fn bin(self, bytes: &[u8]) -> Body {
        self.u16(u16::try_from(bytes.len()).unwrap()).raw(bytes)
    }

    pub(crate) fn str(self, text: &str) -> Body {
        self.bin(text.as_bytes())
    }

    pub(crate) fn props(self, props: &[Prop]) -> Body {
        let block = properties(props);
        self.raw(&vbi(block.len())).raw(&block)
    }

    /// A property block only where the version has one.
    pub(crate) fn props_if_v5(self, version: Version, props: &[Prop]) -> Body {
        if version == Version::V5 { self.props(props) } else { self }
    }

    /// The whole packet.
    pub(crate) fn packet(self, first: u8) -> Vec<u8> {
        let mut bytes = vec![first];
        bytes.extend(vbi(self.0.len()));
        bytes.extend(self.0);
        bytes
    }
}

/// A variable byte integer by the standard's own recipe.
pub(crate) fn vbi(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let digit = (value % 128) as u8;
        value /= 128;
        if value == 0 {
            bytes.push(digit);
            return bytes;
        }
        bytes.push(digit | 128);
    }
}

/// Properties without their length.
pub(crate) fn properties(props: &[Prop]) -> Vec<u8> {
    props
        .iter()
        .flat_map(|prop| {
            let body = Body::new().u8(prop.id());
            match prop {
                Prop::Byte(_, value) => body.u8(*value),
                Prop::Two(_, value) => body.u16(*value),
                Prop::Four(_, value) => body.raw(&value.to_be_bytes()),
                Prop::Vbi(_, value) => body.raw(&vbi(*value as usize)),
                Prop::Text(_, text) => body.str(text),
                Prop::Data(_, bytes) => body.bin(bytes),
                Prop::Pair(name, value) => body.str(name).str(value),
            }
            .0
        })
        .collect()
}

/// Reads properties without their length.
pub(crate) fn parse_properties(mut bytes: &[u8]) -> Vec<Prop> {
    fn take<'a>(bytes: &mut &'a [u8], len: usize) -> &'a [u8] {
        let (head, rest) = bytes.split_at(len);
        *bytes = rest;
        head
    }
    fn number(bytes: &mut &[u8], len: usize) -> u32 {
        take(bytes, len).iter().fold(0, |value, &byte| value << 8 | u32::from(byte))
    }
    fn binary(bytes: &mut &[u8]) -> Vec<u8> {
        let len = number(bytes, 2) as usize;
        take(bytes, len).to_vec()
    }
    fn string(bytes: &mut &[u8]) -> String {
        String::from_utf8(binary(bytes)).unwrap()
    }
    let mut props = Vec::new();
    while !bytes.is_empty() {
        let id = number(&mut bytes, 1) as u8;
        props.push(match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2A => Prop::Byte(id, number(&mut bytes, 1) as u8),
            0x13 | 0x21..=0x23 => Prop::Two(id, number(&mut bytes, 2) as u16),
            0x02 | 0x11 | 0x18 | 0x27 => Prop::Four(id, number(&mut bytes, 4)),
            0x0B => {
                let (value, len) = parse_vbi(bytes);
                take(&mut bytes, len);
                Prop::Vbi(id, value)
            }
            0x03 | 0x08 | 0x12 | 0x15 | 0x1A | 0x1C | 0x1F => Prop::Text(id, string(&mut bytes)),
            0x09 | 0x16 => Prop::Data(id, binary(&mut bytes)),
            0x26 => Prop::Pair(string(&mut bytes), string(&mut bytes)),
            _ => panic!("property {id:#04x} does not exist"),
        });
    }
    props
}

/// Value and size of the variable byte integer that `bytes` begins with.
pub(crate) fn parse_vbi(bytes: &[u8]) -> (u32, usize) {
    let len = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let value = bytes[..len].iter().rev().fold(0, |value, byte| value << 7 | u32::from(byte & 0x7F));
    (value, len)
}

/// Reads a packet from its property length on: the properties and what follows them.
pub(crate) fn parse_property_block(bytes: &[u8]) -> (Vec<Prop>, &[u8]) {
    let (len, at) = parse_vbi(bytes);
    let (block, rest) = bytes[at..].split_at(len as usize);
    (parse_properties(block), rest)
}

/// A Will to put into a [`ConnectSpec`].
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) struct WillSpec {
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) properties: Vec<Prop>,
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
}

/// A CONNECT to write.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) struct ConnectSpec {
    pub(crate) version: Version,
    pub(crate) clean_start: bool,
    pub(crate) keep_alive_s: u16,
    pub(crate) properties: Vec<Prop>,
    pub(crate) client_id: String,
    pub(crate) will: Option<WillSpec>,
    pub(crate) user_name: Option<String>,
    pub(crate) password: Option<Vec<u8>>,
}

impl ConnectSpec {
    /// A client `c` with a clean start and nothing else.
    pub(crate) fn new(version: Version) -> ConnectSpec {
        ConnectSpec {
            version,
            clean_start: true,
            keep_alive_s: 60,
            properties: Vec::new(),
            client_id: "c".to_owned(),
            will: None,
            user_name: None,
            password: None,
        }
    }

    /// One with every field that the version has.
    pub(crate) fn full(version: Version) -> ConnectSpec {
        let will = WillSpec {
            qos: Qos::AtLeastOnce,
            retain: true,
            properties: vec![Prop::Four(0x18, 5), Prop::Byte(0x01, 1), Prop::Four(0x02, 7)],
            topic: "will/topic".to_owned(),
            payload: b"gone".to_vec(),
        };
        ConnectSpec {
            properties: vec![Prop::Four(0x11, 9), Prop::Two(0x21, 10), Prop::pair("name", "value")],
            will: Some(will),
            user_name: Some("user".to_owned()),
            password: Some(b"secret".to_vec()),
            ..ConnectSpec::new(version)
        }
    }

    pub(crate) fn flags(&self) -> u8 {
        let will = self.will.as_ref();
        let will = will.map_or(0, |will| 0x04 | (will.qos as u8) << 3 | u8::from(will.retain) << 5);
        u8::from(self.user_name.is_some()) << 7
            | u8::from(self.password.is_some()) << 6
            | will
            | u8::from(self.clean_start) << 1
    }

    /// Protocol Name and Protocol Version.
    pub(crate) fn protocol(version: Version) -> Body {
        match version {
            Version::V31 => Body::new().str("MQIsdp").u8(3),
            Version::V311 => Body::new().str("MQTT").u8(4),
            Version::V5 => Body::new().str("MQTT").u8(5),
        }
    }

    pub(crate) fn body_with_flags(&self, flags: u8) -> Body {
        let mut body = ConnectSpec::protocol(self.version)
            .u8(flags)
            .u16(self.keep_alive_s)
            .props_if_v5(self.version, &self.properties)
            .str(&self.client_id);
        if let Some(will) = &self.will {
            body = body.props_if_v5(self.version, &will.properties).str(&will.topic).bin(&will.payload);
        }
        if let Some(user_name) = &self.user_name {
            body = body.str(user_name);
        }
        if let Some(password) = &self.password {
            body = body.bin(password);
        }
        body
    }

    pub(crate) fn with_flags(&self, flags: u8) -> Vec<u8> {
        self.body_with_flags(flags).packet(0x10)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        self.with_flags(self.flags())
    }
}

/// A PUBLISH to write.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) struct PublishSpec {
    pub(crate) version: Version,
    pub(crate) dup: bool,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) topic: String,
    pub(crate) packet_id: u16,
    pub(crate) properties: Vec<Prop>,
    pub(crate) payload: Vec<u8>,
}

impl PublishSpec {
    /// `hello` on `topic`.
    pub(crate) fn new(version: Version, qos: Qos, topic: &str) -> PublishSpec {
        PublishSpec {
            version,
            dup: false,
            qos,
            retain: false,
            topic: topic.to_owned(),
            packet_id: if qos == Qos::AtMostOnce { 0 } else { 7 },
            properties: Vec::new(),
            payload: b"hello".to_vec(),
        }
    }

    /// A v5 PUBLISH at QoS 0 with these properties.
    pub(crate) fn with(properties: &[Prop]) -> PublishSpec {
        PublishSpec { properties: properties.to_vec(), ..PublishSpec::new(Version::V5, Qos::AtMostOnce, "t") }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Body::new().str(&self.topic);
        if self.qos != Qos::AtMostOnce {
            body = body.u16(self.packet_id);
        }
        let first = 0x30 | u8::from(self.dup) << 3 | (self.qos as u8) << 1 | u8::from(self.retain);
        body.props_if_v5(self.version, &self.properties).raw(&self.payload).packet(first)
    }
}

/// A SUBSCRIBE of Topic Filters with their options.
pub(crate) fn subscribe(
    version: Version,
    packet_id: u16,
    properties: &[Prop],
    filters: &[(&str, u8)],
) -> Vec<u8> {
    let body = Body::new().u16(packet_id).props_if_v5(version, properties);
    filters.iter().fold(body, |body, (filter, options)| body.str(filter).u8(*options)).packet(0x82)
}

/// An UNSUBSCRIBE of Topic Filters.
pub(crate) fn unsubscribe(
    version: Version,
    packet_id: u16,
    properties: &[Prop],
    filters: &[&str],
) -> Vec<u8> {
    let body = Body::new().u16(packet_id).props_if_v5(version, properties);
    filters.iter().fold(body, |body, filter| body.str(filter)).packet(0xA2)
}

/// The frame that `packet` is, whatever its size and form.
pub(crate) fn frame(packet: &[u8]) -> Frame<'_> {
    match next_frame(packet, u32::MAX, LengthForm::Any) {
        Ok(NextFrame::Frame(frame)) if frame.len == packet.len() => frame,
        other => panic!("not exactly one packet: {other:?}"),
    }
}
