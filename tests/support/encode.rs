//! Packets as bytes, as a client writes them; illegal ones too, since nothing is checked here.

use super::property::{Property, block};

/// The protocol that a scripted client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V31,
    V311,
    V5,
}

impl Version {
    /// Protocol name and level as CONNECT carries them.
    pub fn name_and_level(self) -> (&'static str, u8) {
        match self {
            Version::V31 => ("MQIsdp", 3),
            Version::V311 => ("MQTT", 4),
            Version::V5 => ("MQTT", 5),
        }
    }
}

/// A variable byte integer in its shortest form.
pub fn vbi(mut value: u32) -> Vec<u8> {
    assert!(value <= 268_435_455, "no variable byte integer holds {value}");
    let mut out = Vec::new();
    loop {
        let low = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return out;
        }
        out.push(low | 0x80);
    }
}

/// A two-byte length and the bytes, whether they are UTF-8 or not.
pub fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    let length = u16::try_from(text.len()).expect("a string of at most 65535 bytes");
    [length.to_be_bytes().as_slice(), text].concat()
}

/// Binary data has the layout of a string.
pub fn binary(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    string(bytes)
}

/// A whole packet: first byte, Remaining Length, body.
pub fn packet(first: u8, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    [vec![first], vbi(body.len() as u32), body.to_vec()].concat()
}

/// A will as CONNECT carries it.
#[derive(Clone, Debug)]
pub struct Will {
    pub topic: Vec<u8>,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub properties: Vec<Property>,
}

impl Will {
    pub fn new(topic: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Will {
        Will {
            topic: topic.as_ref().to_vec(),
            payload: payload.as_ref().to_vec(),
            qos: 0,
            retain: false,
            properties: Vec::new(),
        }
    }

    pub fn qos(mut self, qos: u8) -> Will {
        self.qos = qos;
        self
    }

    pub fn retain(mut self) -> Will {
        self.retain = true;
        self
    }

    /// Only written by a v5 CONNECT.
    pub fn with(mut self, property: Property) -> Will {
        self.properties.push(property);
        self
    }
}

/// A CONNECT in the making. Clean Start / Clean Session is 1 until `resume` is called.
#[derive(Clone, Debug)]
pub struct Connect {
    pub version: Version,
    pub client_id: Vec<u8>,
    pub clean: bool,
    pub keep_alive_s: u16,
    pub will: Option<Will>,
    pub user_name: Option<Vec<u8>>,
    pub password: Option<Vec<u8>>,
    pub properties: Vec<Property>,
    /// Overrides the flags byte when given.
    pub flags: Option<u8>,
}

impl Connect {
    pub fn new(version: Version, client_id: impl AsRef<[u8]>) -> Connect {
        Connect {
            version,
            client_id: client_id.as_ref().to_vec(),
            clean: true,
            keep_alive_s: 60,
            will: None,
            user_name: None,
            password: None,
            properties: Vec::new(),
            flags: None,
        }
    }

    /// Clean Start / Clean Session 0.
    pub fn resume(mut self) -> Connect {
        self.clean = false;
        self
    }

    /// A session that outlives its connection by an hour, resumed if it is there: in 3.x Clean Session 0.
    pub fn persistent(self) -> Connect {
        let mut connect = self.resume();
        if connect.version == Version::V5 {
            connect.properties.push(Property::SessionExpiry(3600));
        }
        connect
    }

    pub fn keep_alive_s(mut self, seconds: u16) -> Connect {
        self.keep_alive_s = seconds;
        self
    }

    pub fn will(mut self, will: Will) -> Connect {
        self.will = Some(will);
        self
    }

    pub fn user_name(mut self, name: impl AsRef<[u8]>) -> Connect {
        self.user_name = Some(name.as_ref().to_vec());
        self
    }

    pub fn password(mut self, password: impl AsRef<[u8]>) -> Connect {
        self.password = Some(password.as_ref().to_vec());
        self
    }

    /// Only written by a v5 CONNECT.
    pub fn with(mut self, property: Property) -> Connect {
        self.properties.push(property);
        self
    }

    /// Writes this flags byte whatever the payload holds.
    pub fn flags(mut self, flags: u8) -> Connect {
        self.flags = Some(flags);
        self
    }

    /// The flags byte that fits the fields.
    pub fn honest_flags(&self) -> u8 {
        let mut flags = u8::from(self.clean) << 1;
        if let Some(will) = &self.will {
            flags |= 0x04 | will.qos << 3 | u8::from(will.retain) << 5;
        }
        flags | u8::from(self.password.is_some()) << 6 | u8::from(self.user_name.is_some()) << 7
    }

    /// Everything behind the fixed header.
    pub fn body(&self) -> Vec<u8> {
        let (name, level) = self.version.name_and_level();
        let v5 = self.version == Version::V5;
        let mut out = string(name);
        out.push(level);
        out.push(self.flags.unwrap_or_else(|| self.honest_flags()));
        out.extend(self.keep_alive_s.to_be_bytes());
        if v5 {
            out.extend(block(&self.properties));
        }
        out.extend(string(&self.client_id));
        if let Some(will) = &self.will {
            if v5 {
                out.extend(block(&will.properties));
            }
            out.extend(string(&will.topic));
            out.extend(binary(&will.payload));
        }
        out.extend(self.user_name.iter().chain(&self.password).flat_map(string));
        out
    }

    pub fn bytes(&self) -> Vec<u8> {
        packet(0x10, self.body())
    }
}

/// A PUBLISH, to be sent or as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    pub topic: String,
    /// 0 at QoS 0.
    pub packet_id: u16,
    pub properties: Vec<Property>,
    pub payload: Vec<u8>,
}

impl Publish {
    pub fn new(topic: impl Into<String>, payload: impl AsRef<[u8]>) -> Publish {
        Publish {
            dup: false,
            qos: 0,
            retain: false,
            topic: topic.into(),
            packet_id: 0,
            properties: Vec::new(),
            payload: payload.as_ref().to_vec(),
        }
    }

    /// QoS and, for QoS 1 and 2, the Packet Identifier.
    pub fn qos(mut self, qos: u8, packet_id: u16) -> Publish {
        self.qos = qos;
        self.packet_id = packet_id;
        self
    }

    pub fn retain(mut self) -> Publish {
        self.retain = true;
        self
    }

    pub fn dup(mut self) -> Publish {
        self.dup = true;
        self
    }

    /// Only written to a v5 connection.
    pub fn with(mut self, property: Property) -> Publish {
        self.properties.push(property);
        self
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    pub fn first_byte(&self) -> u8 {
        0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain)
    }

    pub fn bytes(&self, version: Version) -> Vec<u8> {
        let mut body = string(&self.topic);
        if self.qos > 0 {
            body.extend(self.packet_id.to_be_bytes());
        }
        if version == Version::V5 {
            body.extend(block(&self.properties));
        }
        body.extend(&self.payload);
        packet(self.first_byte(), body)
    }

    /// Subscription Identifiers in ascending order.
    pub fn subscription_ids(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = self
            .properties
            .iter()
            .filter_map(|p| if let Property::SubscriptionId(id) = p { Some(*id) } else { None })
            .collect();
        ids.sort_unstable();
        ids
    }

    /// The Message Expiry Interval, if there is one.
    pub fn expiry_s(&self) -> Option<u32> {
        self.properties.iter().find_map(|p| if let Property::MessageExpiry(s) = p { Some(*s) } else { None })
    }
}

/// First bytes of the acknowledgements.
pub const PUBACK: u8 = 0x40;
pub const PUBREC: u8 = 0x50;
pub const PUBREL: u8 = 0x62;
pub const PUBCOMP: u8 = 0x70;

/// PUBACK, PUBREC, PUBREL or PUBCOMP in its shortest form, success.
pub fn ack(first: u8, packet_id: u16) -> Vec<u8> {
    packet(first, packet_id.to_be_bytes())
}

/// The same with a reason code (v5).
pub fn ack_code(first: u8, packet_id: u16, code: u8) -> Vec<u8> {
    let [high, low] = packet_id.to_be_bytes();
    packet(first, [high, low, code])
}

/// Everything behind SUBSCRIBE's fixed header: filters each with an options byte.
pub fn subscribe_body<F: AsRef<[u8]>>(
    version: Version,
    packet_id: u16,
    properties: &[Property],
    filters: &[(F, u8)],
) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.extend(block(properties));
    }
    for (filter, options) in filters {
        body.extend(string(filter));
        body.push(*options);
    }
    body
}

pub fn subscribe<F: AsRef<[u8]>>(
    version: Version,
    packet_id: u16,
    properties: &[Property],
    filters: &[(F, u8)],
) -> Vec<u8> {
    packet(0x82, subscribe_body(version, packet_id, properties, filters))
}

pub fn unsubscribe<F: AsRef<[u8]>>(version: Version, packet_id: u16, filters: &[F]) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    body.extend(filters.iter().flat_map(string));
    packet(0xA2, body)
}

pub const PINGREQ: [u8; 2] = [0xC0, 0];
/// DISCONNECT with Remaining Length 0: normal in every version.
pub const DISCONNECT: [u8; 2] = [0xE0, 0];

/// DISCONNECT with a reason code and properties (v5).
pub fn disconnect(code: u8, properties: &[Property]) -> Vec<u8> {
    packet(0xE0, [vec![code], block(properties)].concat())
}

/// AUTH with a reason code and properties (v5).
pub fn auth(code: u8, properties: &[Property]) -> Vec<u8> {
    packet(0xF0, [vec![code], block(properties)].concat())
}
