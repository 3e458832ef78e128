//! Control Packets that a broker sends, as views into the received bytes.
//!
//! Whatever the peer sends, nothing here panics or allocates: it ends in a packet or in [`Malformed`].

use super::Version;

/// The peer sent something that is not MQTT; says what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(pub &'static str);

/// Size of the packet at the start of `bytes`: fixed header and whole packet, both in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    pub header_len: usize,
    pub total_len: usize,
}

/// Measures the packet at the start of `bytes`; `None` if its fixed header is not complete.
#[inline]
pub fn frame(bytes: &[u8]) -> Result<Option<Frame>, Malformed> {
    let mut len = 0usize;
    for i in 0..4 {
        let Some(&b) = bytes.get(1 + i) else { return Ok(None) };
        len |= usize::from(b & 0x7F) << (7 * i);
        if b & 0x80 == 0 {
            return Ok(Some(Frame { header_len: 2 + i, total_len: 2 + i + len }));
        }
    }
    Err(Malformed("remaining length of more than four bytes"))
}

/// The broker's limits in CONNACK, with the standard's defaults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    pub receive_maximum: u16,
    pub topic_alias_maximum: u16,
    pub maximum_qos: u8,
    pub maximum_packet_size: u32,
    pub retain_available: bool,
    pub shared_available: bool,
    pub wildcard_available: bool,
    pub server_keep_alive_s: Option<u16>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            receive_maximum: u16::MAX,
            topic_alias_maximum: 0,
            maximum_qos: 2,
            maximum_packet_size: u32::MAX,
            retain_available: true,
            shared_available: true,
            wildcard_available: true,
            server_keep_alive_s: None,
        }
    }
}

/// A PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    pub qos: u8,
    pub dup: bool,
    pub retain: bool,
    /// Empty if the Topic Alias stands for it.
    pub topic: &'a [u8],
    /// 0 if there is none.
    pub alias: u16,
    pub packet_id: u16,
    pub payload: &'a [u8],
}

/// What a packet says, borrowed from the received bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    Connack { session_present: bool, code: u8, limits: Limits },
    Publish(Publish<'a>),
    Puback { packet_id: u16, code: u8 },
    Pubrec { packet_id: u16, code: u8 },
    Pubrel { packet_id: u16 },
    Pubcomp { packet_id: u16 },
    Suback { packet_id: u16, codes: &'a [u8] },
    Pingresp,
    Disconnect { code: u8 },
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(Malformed("a field runs past its packet"))?;
        self.0 = tail;
        Ok(head)
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    #[inline]
    fn u16(&mut self) -> Result<u16, Malformed> {
        let b = self.take(2)?;
        Ok(u16::from_be_bytes([b[0], b[1]]))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        let b = self.take(4)?;
        Ok(u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// Steps over the value of a property.
    fn skip(&mut self, id: u8) -> Result<(), Malformed> {
        let n = match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => 1,
            0x13 | 0x21 | 0x22 | 0x23 => 2,
            0x02 | 0x11 | 0x18 | 0x27 => 4,
            0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => usize::from(self.u16()?),
            0x26 => {
                let name = usize::from(self.u16()?);
                self.take(name)?;
                usize::from(self.u16()?)
            }
            0x0B => {
                while self.byte()? & 0x80 != 0 {}
                0
            }
            _ => return Err(Malformed("an unknown property")),
        };
        self.take(n).map(drop)
    }

    /// The Topic Alias among the properties of a PUBLISH, or 0.
    fn alias(&mut self) -> Result<u16, Malformed> {
        let mut alias = 0;
        let mut properties = self.properties()?;
        while !properties.0.is_empty() {
            match properties.byte()? {
                0x23 => alias = properties.u16()?,
                id => properties.skip(id)?,
            }
        }
        Ok(alias)
    }

    fn properties(&mut self) -> Result<Reader<'a>, Malformed> {
        let first = self.byte()?;
        let mut len = usize::from(first & 0x7F);
        let mut more = first & 0x80 != 0;
        let mut shift = 7;
        while more {
            if shift > 21 {
                return Err(Malformed("property length of more than four bytes"));
            }
            let b = self.byte()?;
            len |= usize::from(b & 0x7F) << shift;
            more = b & 0x80 != 0;
            shift += 7;
        }
        Ok(Reader(self.take(len)?))
    }
}

/// Whether the packet that begins with this byte is a PUBLISH.
#[inline]
pub fn is_publish(first: u8) -> bool {
    first >> 4 == 3
}

/// Reads the body of a PUBLISH: nearly all that a broker sends.
#[inline]
pub fn publish(version: Version, first: u8, body: &[u8]) -> Result<Publish<'_>, Malformed> {
    let mut r = Reader(body);
    let qos = first >> 1 & 3;
    if qos == 3 {
        return Err(Malformed("PUBLISH with QoS 3"));
    }
    let topic_len = usize::from(r.u16()?);
    let topic = r.take(topic_len)?;
    let packet_id = if qos > 0 { r.u16()? } else { 0 };
    let mut alias = 0;
    if version == Version::V5 {
        match r.0 {
            // Most have no properties.
            [0, payload @ ..] => r.0 = payload,
            _ => alias = r.alias()?,
        }
    }
    let (dup, retain) = (first & 8 != 0, first & 1 != 0);
    Ok(Publish { qos, dup, retain, topic, alias, packet_id, payload: r.0 })
}

/// Reads the body of one packet, `body` being all that follows the fixed header.
pub fn packet(version: Version, first: u8, body: &[u8]) -> Result<Packet<'_>, Malformed> {
    let mut r = Reader(body);
    Ok(match first >> 4 {
        3 => Packet::Publish(publish(version, first, body)?),
        2 => connack(version, r)?,
        4 => Packet::Puback { packet_id: r.u16()?, code: r.byte().unwrap_or(0) },
        5 => Packet::Pubrec { packet_id: r.u16()?, code: r.byte().unwrap_or(0) },
        6 => Packet::Pubrel { packet_id: r.u16()? },
        7 => Packet::Pubcomp { packet_id: r.u16()? },
        9 => {
            let packet_id = r.u16()?;
            if version == Version::V5 {
                r.properties()?;
            }
            Packet::Suback { packet_id, codes: r.0 }
        }
        13 => Packet::Pingresp,
        14 if version == Version::V5 => Packet::Disconnect { code: r.byte().unwrap_or(0) },
        _ => return Err(Malformed("a packet type that no broker sends")),
    })
}

fn connack<'a>(version: Version, mut r: Reader<'a>) -> Result<Packet<'a>, Malformed> {
    let session_present = r.byte()? & 1 != 0;
    let code = r.byte()?;
    let mut limits = Limits::default();
    // A broker that does not speak 5.0 answers in the form of 3.1.1, without properties.
    if version == Version::V5 && !r.0.is_empty() {
        let mut p = r.properties()?;
        while !p.0.is_empty() {
            match p.byte()? {
                0x21 => limits.receive_maximum = p.u16()?,
                0x22 => limits.topic_alias_maximum = p.u16()?,
                0x24 => limits.maximum_qos = p.byte()?,
                0x27 => limits.maximum_packet_size = p.u32()?,
                0x25 => limits.retain_available = p.byte()? != 0,
                0x28 => limits.wildcard_available = p.byte()? != 0,
                0x2A => limits.shared_available = p.byte()? != 0,
                0x13 => limits.server_keep_alive_s = Some(p.u16()?),
                id => p.skip(id)?,
            }
        }
    }
    Ok(Packet::Connack { session_present, code, limits })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::encode;

    #[test]
    fn a_publish_comes_back_as_it_was_encoded() {
        for version in [Version::V311, Version::V5] {
            for (qos, len) in [(0u8, 0usize), (1, 16), (2, 20_000)] {
                let mut out = Vec::new();
                let topic = encode::Topic::Name(b"x/y");
                let head = encode::Publish { version, qos, retain: qos == 1, topic, packet_id: 7 };
                encode::publish(&mut out, &head, len);
                out.extend(std::iter::repeat_n(9, len));
                let f = frame(&out).unwrap().unwrap();
                assert_eq!(f.total_len, out.len());
                let payload = vec![9; len];
                assert_eq!(
                    packet(version, out[0], &out[f.header_len..]).unwrap(),
                    Packet::Publish(Publish {
                        qos,
                        dup: false,
                        retain: qos == 1,
                        topic: b"x/y",
                        alias: 0,
                        packet_id: if qos > 0 { 7 } else { 0 },
                        payload: &payload
                    })
                );
            }
        }
    }

    #[test]
    fn a_head_that_is_kept_makes_the_same_bytes() {
        for (version, qos, len) in [
            (Version::V311, 0u8, 5usize),
            (Version::V311, 1, 300),
            (Version::V5, 0, 64),
            (Version::V5, 2, 20_000),
        ] {
            let publish = |packet_id| {
                let topic = encode::Topic::Name(b"x/y");
                encode::Publish { version, qos, retain: false, topic, packet_id }
            };
            let kept = encode::Head::new(&publish(0), len);
            for packet_id in [1, 0xABCD] {
                let (mut fresh, mut copied) = (vec![1, 2], vec![1, 2]);
                encode::publish(&mut fresh, &publish(packet_id), len);
                kept.append(&mut copied, packet_id);
                assert_eq!(copied, fresh, "{version:?} QoS {qos}");
            }
        }
    }

    #[test]
    fn the_alias_is_found_among_other_properties() {
        let body = b"\x00\x00\x12\x01\x01\x02\0\0\0\x09\x0b\x81\x01\x23\x01\x02\x26\x00\x00\x00\x00p";
        let Packet::Publish(publish) = packet(Version::V5, 0x30, body).unwrap() else { panic!() };
        assert_eq!((publish.alias, publish.topic, publish.payload), (258, &b""[..], &b"p"[..]));
    }

    #[test]
    fn every_cut_of_every_packet_is_refused_without_a_panic() {
        let packets: [&[u8]; 6] = [
            b"\x20\x0b\x00\x00\x08\x21\x00\x0a\x26\x00\x00\x00\x00",
            b"\x32\x09\x00\x01a\x00\x01\x00xyz",
            b"\x40\x02\x00\x01",
            b"\x90\x04\x00\x01\x00\x01",
            b"\xe0\x01\x81",
            b"\x70\x03\x00\x01\x92",
        ];
        for bytes in packets {
            for cut in 2..bytes.len() {
                for version in [Version::V311, Version::V5] {
                    let _ = packet(version, bytes[0], &bytes[2..cut]);
                }
            }
            assert!(packet(Version::V5, bytes[0], &bytes[2..]).is_ok());
        }
        assert!(packet(Version::V5, 0x20, b"\x00\x00\x08\x21\x00").is_err());
        assert!(frame(b"\x30\xff\xff\xff\xff\x01").is_err());
        assert_eq!(frame(b"\x30\xff").unwrap(), None);
    }
}
