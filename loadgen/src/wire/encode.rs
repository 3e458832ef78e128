//! Control Packets that a client sends, appended to a buffer.
//!
//! Strings are the caller's promise: at most 65,535 bytes, without NUL. `spec.rs` checks what users give.

use super::Version;

/// What CONNECT says.
pub struct Connect<'a> {
    pub version: Version,
    pub client_id: &'a str,
    pub user: Option<&'a str>,
    pub password: Option<&'a str>,
    pub keep_alive_s: u16,
    /// Clean Start (5.0) or Clean Session (3.1.1).
    pub clean: bool,
    /// Session Expiry Interval, 5.0 only; 0 is left out.
    pub session_expiry_s: u32,
    /// Receive Maximum, 5.0 only; 65,535 is left out.
    pub receive_maximum: u16,
    /// Topic Alias Maximum, 5.0 only; 0 is left out.
    pub topic_alias_maximum: u16,
}

fn remaining_length(out: &mut Vec<u8>, mut n: usize) {
    loop {
        let low = (n & 0x7F) as u8;
        n >>= 7;
        out.push(if n > 0 { low | 0x80 } else { low });
        if n == 0 {
            return;
        }
    }
}

fn string(out: &mut Vec<u8>, s: &[u8]) {
    out.extend_from_slice(&(s.len() as u16).to_be_bytes());
    out.extend_from_slice(s);
}

fn packet(out: &mut Vec<u8>, first: u8, body: &[u8]) {
    out.push(first);
    remaining_length(out, body.len());
    out.extend_from_slice(body);
}

pub fn connect(out: &mut Vec<u8>, c: &Connect<'_>) {
    let mut body = Vec::with_capacity(64);
    string(&mut body, b"MQTT");
    body.push(if c.version == Version::V5 { 5 } else { 4 });
    let user = u8::from(c.user.is_some()) << 7;
    let password = u8::from(c.password.is_some()) << 6;
    body.push(user | password | u8::from(c.clean) << 1);
    body.extend_from_slice(&c.keep_alive_s.to_be_bytes());
    if c.version == Version::V5 {
        let mut properties = Vec::new();
        if c.session_expiry_s > 0 {
            properties.push(0x11);
            properties.extend_from_slice(&c.session_expiry_s.to_be_bytes());
        }
        if c.receive_maximum < u16::MAX {
            properties.push(0x21);
            properties.extend_from_slice(&c.receive_maximum.to_be_bytes());
        }
        if c.topic_alias_maximum > 0 {
            properties.push(0x22);
            properties.extend_from_slice(&c.topic_alias_maximum.to_be_bytes());
        }
        remaining_length(&mut body, properties.len());
        body.extend_from_slice(&properties);
    }
    string(&mut body, c.client_id.as_bytes());
    for field in [c.user, c.password].into_iter().flatten() {
        string(&mut body, field.as_bytes());
    }
    packet(out, 0x10, &body);
}

/// SUBSCRIBE with the same QoS for every filter.
pub fn subscribe(out: &mut Vec<u8>, version: Version, packet_id: u16, qos: u8, filters: &[String]) {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    for filter in filters {
        string(&mut body, filter.as_bytes());
        body.push(qos);
    }
    packet(out, 0x82, &body);
}

/// How a PUBLISH names its topic.
#[derive(Clone, Copy)]
pub enum Topic<'a> {
    Name(&'a [u8]),
    /// Name and Topic Alias: sets the alias.
    NameSetsAlias(&'a [u8], u16),
    Alias(u16),
}

/// What stands in a PUBLISH before its payload.
pub struct Publish<'a> {
    pub version: Version,
    pub qos: u8,
    pub retain: bool,
    pub topic: Topic<'a>,
    /// Used if QoS is above 0.
    pub packet_id: u16,
}

/// Appends all of a PUBLISH but its payload of `payload_len` bytes, which the caller appends next.
#[inline]
pub fn publish(out: &mut Vec<u8>, p: &Publish<'_>, payload_len: usize) {
    let (name, alias): (&[u8], Option<u16>) = match p.topic {
        Topic::Name(name) => (name, None),
        Topic::NameSetsAlias(name, alias) => (name, Some(alias)),
        Topic::Alias(alias) => (&[], Some(alias)),
    };
    let properties = match (p.version, alias) {
        (Version::V311, _) => 0,
        (Version::V5, None) => 1,
        (Version::V5, Some(_)) => 4,
    };
    let id = if p.qos > 0 { 2 } else { 0 };
    out.reserve(16 + name.len() + payload_len);
    out.push(0x30 | p.qos << 1 | u8::from(p.retain));
    remaining_length(out, 2 + name.len() + id + properties + payload_len);
    string(out, name);
    if id > 0 {
        out.extend_from_slice(&p.packet_id.to_be_bytes());
    }
    match (p.version, alias) {
        (Version::V311, _) => {}
        (Version::V5, None) => out.push(0),
        (Version::V5, Some(alias)) => {
            out.extend_from_slice(&[3, 0x23]);
            out.extend_from_slice(&alias.to_be_bytes());
        }
    }
}

/// What stands before the payload of every PUBLISH of one topic with payloads of one length: encoded once.
pub struct Head {
    bytes: Box<[u8]>,
    /// Where the Packet Identifier goes, if it has one.
    id_at: Option<usize>,
    payload_len: usize,
}

impl Head {
    pub fn new(p: &Publish<'_>, payload_len: usize) -> Head {
        let mut bytes = Vec::new();
        publish(&mut bytes, p, payload_len);
        // Behind it stands the length of no properties, if anything.
        let tail = if p.version == Version::V5 { 3 } else { 2 };
        let id_at = (p.qos > 0).then(|| bytes.len() - tail);
        Head { bytes: bytes.into(), id_at, payload_len }
    }

    /// Appends it, with room for the payload, which the caller appends next.
    #[inline]
    pub fn append(&self, out: &mut Vec<u8>, packet_id: u16) {
        out.reserve(self.bytes.len() + self.payload_len);
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        if let Some(at) = self.id_at {
            out[start + at..start + at + 2].copy_from_slice(&packet_id.to_be_bytes());
        }
    }
}

/// The four packets that carry a Packet Identifier and nothing else.
#[derive(Clone, Copy)]
pub enum Ack {
    Puback = 0x40,
    Pubrec = 0x50,
    Pubrel = 0x62,
    Pubcomp = 0x70,
}

pub fn ack(out: &mut Vec<u8>, kind: Ack, packet_id: u16) {
    let [high, low] = packet_id.to_be_bytes();
    out.extend_from_slice(&[kind as u8, 2, high, low]);
}

pub fn pingreq(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xC0, 0]);
}

/// A normal DISCONNECT: the session expires as agreed.
pub fn disconnect(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xE0, 0]);
}

/// A DISCONNECT of MQTT 5.0 that ends the session at once.
pub fn disconnect_for_good(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(version: Version) -> Connect<'static> {
        Connect {
            version,
            client_id: "a",
            user: None,
            password: None,
            keep_alive_s: 60,
            clean: true,
            session_expiry_s: 0,
            receive_maximum: u16::MAX,
            topic_alias_maximum: 0,
        }
    }

    #[test]
    fn connect_bytes() {
        let mut out = Vec::new();
        connect(&mut out, &plain(Version::V311));
        assert_eq!(out, b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a");
        out.clear();
        let c = Connect { user: Some("u"), password: Some("p"), session_expiry_s: 1, ..plain(Version::V5) };
        connect(&mut out, &c);
        assert_eq!(
            out,
            b"\x10\x19\x00\x04MQTT\x05\xc2\x00\x3c\x05\x11\x00\x00\x00\x01\x00\x01a\x00\x01u\x00\x01p"
        );
    }

    #[test]
    fn publish_bytes() {
        let mut out = Vec::new();
        let name = Topic::Name(b"a/b");
        publish(
            &mut out,
            &Publish { version: Version::V311, qos: 0, retain: false, topic: name, packet_id: 0 },
            2,
        );
        assert_eq!(out, b"\x30\x07\x00\x03a/b");
        out.clear();
        let alias = Topic::Alias(5);
        publish(
            &mut out,
            &Publish { version: Version::V5, qos: 2, retain: true, topic: alias, packet_id: 258 },
            300,
        );
        assert_eq!(out, b"\x35\xb4\x02\x00\x00\x01\x02\x03\x23\x00\x05");
    }

    #[test]
    fn subscribe_bytes() {
        let mut out = Vec::new();
        subscribe(&mut out, Version::V5, 1, 2, &["a".into(), "b/#".into()]);
        assert_eq!(out, b"\x82\x0d\x00\x01\x00\x00\x01a\x02\x00\x03b/#\x02");
    }
}
