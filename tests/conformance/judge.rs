//! An independent reading of what a client may send: bytes in, verdict out. Written from the standards for the
//! generated cases; knows nothing of the broker's codec.

use crate::support::Version;
use crate::support::property::{Kind, Place, allowed, kind};

/// What a broker must do about some bytes on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Whole packets, all legal.
    Legal,
    /// The same, up to a DISCONNECT: what follows means nothing.
    Ended,
    /// A packet that is not whole yet.
    Incomplete,
    /// A first packet that is no CONNECT of this version.
    NotMqtt,
    /// Cannot be read: 0x81.
    Malformed,
    /// A CONNECT of 3.x without the Client Identifier that it needs: CONNACK 2.
    NoName,
    /// Can be read and is not allowed: this code.
    Refused(u8),
}

use Verdict::{Ended, Incomplete, Legal, Malformed, NoName, NotMqtt, Refused};

type Checked<T> = Result<T, Verdict>;

/// Where on a connection the bytes stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was sent before.
    First,
    /// CONNECT was accepted, with Session Expiry 0.
    Accepted,
}

/// Judges the packets in `bytes` up to the first that is not legal. The broker takes `alias_max` aliases.
pub fn judge(version: Version, mut state: State, alias_max: u16, mut bytes: &[u8]) -> Verdict {
    while !bytes.is_empty() {
        match one(version, state, alias_max, bytes) {
            Ok(_) if bytes[0] >> 4 == 14 => return Ended,
            Ok(length) => bytes = &bytes[length..],
            Err(verdict) => return verdict,
        }
        state = State::Accepted;
    }
    Legal
}

/// The length of the first packet, if it is legal.
fn one(version: Version, state: State, alias_max: u16, bytes: &[u8]) -> Checked<usize> {
    let v5 = version == Version::V5;
    // What no further byte makes good need not be waited for.
    if state == State::Accepted {
        first_byte(version, bytes[0])?;
    }
    let mut remaining = 0usize;
    let mut used = 0;
    loop {
        let Some(byte) = bytes.get(1 + used) else { return Err(Incomplete) };
        remaining |= usize::from(byte & 0x7F) << (7 * used);
        used += 1;
        if byte & 0x80 == 0 {
            if v5 && used > 1 && *byte == 0 {
                return Err(Malformed);
            }
            break;
        }
        if used == 4 {
            return Err(Malformed);
        }
    }
    let Some(body) = bytes.get(1 + used..1 + used + remaining) else { return Err(Incomplete) };
    let mut fields = Fields { bytes: body, v5 };
    match state {
        State::First => connect(version, bytes[0], &mut fields)?,
        State::Accepted => packet(version, alias_max, bytes[0], &mut fields)?,
    }
    Ok(1 + used + remaining)
}

/// What can be said of a packet by its first byte.
fn first_byte(version: Version, first: u8) -> Checked<()> {
    let v5 = version == Version::V5;
    let (kind, flags) = (first >> 4, first & 0x0F);
    match kind {
        0 => return Err(Malformed),
        15 if !v5 => return Err(Malformed),
        2 | 9 | 11 | 13 => return Err(Refused(0x82)),
        _ => {}
    }
    let tabled = if matches!(kind, 6 | 8 | 10) { 2 } else { 0 };
    // 3.1 has DUP and QoS there, or does not use them. A second CONNECT is wrong whatever its flags are.
    if kind != 3 && kind != 1 && flags != tabled && version != Version::V31 {
        return Err(Malformed);
    }
    let qos = flags >> 1 & 3;
    if kind == 3 && (qos == 3 || (qos == 0 && flags & 0x08 != 0)) {
        return Err(Malformed);
    }
    Ok(())
}

fn packet(version: Version, alias_max: u16, first: u8, fields: &mut Fields) -> Checked<()> {
    let v5 = version == Version::V5;
    let (kind, flags) = (first >> 4, first & 0x0F);
    match kind {
        1 => return Err(Refused(0x82)),
        3 => return publish(flags, alias_max, fields),
        4 => ack(fields, Place::Puback, &[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])?,
        5 => ack(fields, Place::Pubrec, &[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])?,
        6 => ack(fields, Place::Pubrel, &[0, 0x92])?,
        7 => ack(fields, Place::Pubcomp, &[0, 0x92])?,
        8 => subscribe(version, fields)?,
        10 => {
            fields.packet_id()?;
            if v5 {
                fields.properties(Place::Unsubscribe)?;
            }
            let mut count = 0;
            while !fields.bytes.is_empty() {
                fields.string()?;
                count += 1;
            }
            if count == 0 {
                return Err(Refused(0x82));
            }
        }
        12 => {}
        14 => disconnect(fields)?,
        _ => {
            // AUTH: never legal where CONNECT named no method; what is wrong first decides the code.
            if fields.bytes.is_empty() {
                return Err(Refused(0x82));
            }
            let code = fields.byte()?;
            if !matches!(code, 0x18 | 0x19) {
                return Err(Refused(0x82));
            }
            fields.properties(Place::Auth)?;
            fields.end()?;
            return Err(Refused(0x82));
        }
    }
    fields.end()
}

fn connect(version: Version, first: u8, fields: &mut Fields) -> Checked<()> {
    let v5 = version == Version::V5;
    let (name, level) = version.name_and_level();
    let known = fields.binary().is_ok_and(|found| found == name.as_bytes());
    if first >> 4 != 1 || !known || fields.byte() != Ok(level) {
        return Err(NotMqtt);
    }
    let v31 = version == Version::V31;
    if first != 0x10 && !v31 {
        return Err(Malformed);
    }
    let flags = fields.byte()?;
    let will = flags & 0x04 != 0;
    if (flags & 0x01 != 0 && !v31) || flags & 0x18 == 0x18 || (!will && flags & 0x38 != 0) {
        return Err(Malformed);
    }
    if !v5 && flags & 0x40 != 0 && flags & 0x80 == 0 {
        return Err(Malformed);
    }
    fields.u16()?;
    let mut method = Ok(());
    if v5 {
        let seen = fields.properties(Place::Connect)?;
        if seen.contains(&0x15) {
            // None is configured.
            method = Err(Refused(0x8C));
        } else if seen.contains(&0x16) {
            method = Err(Refused(0x82));
        }
    }
    let client_id = fields.string()?;
    if will {
        if v5 {
            fields.properties(Place::Will)?;
        }
        topic_name(fields.string()?)?;
        fields.binary()?;
    }
    // 3.1 tolerates a flag whose field is missing.
    let absent = |fields: &Fields| v31 && fields.bytes.is_empty();
    if flags & 0x80 != 0 && !absent(fields) {
        fields.string()?;
    }
    if flags & 0x40 != 0 && !absent(fields) {
        fields.binary()?;
    }
    fields.end()?;
    // 3.x has a code for one fault only: an empty name that it does not allow.
    if client_id.is_empty() && (v31 || (!v5 && flags & 0x02 == 0)) {
        return Err(NoName);
    }
    method
}

fn topic_name(topic: &str) -> Checked<()> {
    if topic.is_empty() || topic.contains(['+', '#']) { Err(Refused(0x90)) } else { Ok(()) }
}

fn publish(flags: u8, alias_max: u16, fields: &mut Fields) -> Checked<()> {
    let qos = flags >> 1 & 3;
    if qos == 3 || (qos == 0 && flags & 8 != 0) {
        return Err(Malformed);
    }
    let topic = fields.string()?;
    if topic.contains(['+', '#']) {
        return Err(Refused(0x90));
    }
    if qos > 0 {
        fields.packet_id()?;
    }
    let mut alias = None;
    if fields.v5 {
        let before = fields.bytes;
        let seen = fields.properties(Place::Publish)?;
        if seen.contains(&0x23) {
            alias = find_u16(before, 0x23);
        }
    }
    match alias {
        Some(0) => Err(Refused(0x94)),
        Some(alias) if alias > alias_max => Err(Refused(0x94)),
        Some(_) if topic.is_empty() => Err(Refused(0x82)),
        None if topic.is_empty() => Err(Refused(0x82)),
        _ => Ok(()),
    }
}

/// The value of a two-byte property in a block that was found legal.
fn find_u16(block: &[u8], id: u8) -> Option<u16> {
    let mut fields = Fields { bytes: block, v5: true };
    let length = fields.vbi().ok()?;
    let mut inner = Fields { bytes: fields.take(length).ok()?, v5: true };
    while !inner.bytes.is_empty() {
        let found = inner.byte().ok()?;
        if found == id {
            return inner.u16().ok();
        }
        inner.value(found, Place::Publish).ok()?;
    }
    None
}

fn ack(fields: &mut Fields, place: Place, codes: &[u8]) -> Checked<()> {
    fields.packet_id()?;
    if !fields.v5 || fields.bytes.is_empty() {
        return Ok(());
    }
    let code = fields.byte()?;
    if !codes.contains(&code) {
        return Err(Refused(0x82));
    }
    if !fields.bytes.is_empty() {
        fields.properties(place)?;
    }
    Ok(())
}

fn subscribe(version: Version, fields: &mut Fields) -> Checked<()> {
    fields.packet_id()?;
    if fields.v5 {
        fields.properties(Place::Subscribe)?;
    }
    let mut count = 0;
    while !fields.bytes.is_empty() {
        let filter = fields.string()?;
        let options = fields.byte()?;
        // 3.1 does not look at the upper bits.
        let reserved = match version {
            Version::V5 => 0xC0,
            Version::V311 => 0xFC,
            Version::V31 => 0,
        };
        if options & reserved != 0 {
            return Err(Malformed);
        }
        if options & 0x03 == 3 || (fields.v5 && options & 0x30 == 0x30) {
            return Err(Refused(0x82));
        }
        if fields.v5 && options & 0x04 != 0 && filter.starts_with("$share/") {
            return Err(Refused(0x82));
        }
        count += 1;
    }
    if count == 0 { Err(Refused(0x82)) } else { Ok(()) }
}

fn disconnect(fields: &mut Fields) -> Checked<()> {
    if !fields.v5 || fields.bytes.is_empty() {
        return Ok(());
    }
    let code = fields.byte()?;
    if !matches!(code, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99) {
        return Err(Refused(0x82));
    }
    if fields.bytes.is_empty() {
        return Ok(());
    }
    let before = fields.bytes;
    let seen = fields.properties(Place::Disconnect)?;
    fields.end()?;
    // These connections have Session Expiry 0, which DISCONNECT may not raise.
    if seen.contains(&0x11) && session_expiry(before) != Some(0) {
        return Err(Refused(0x82));
    }
    Ok(())
}

fn session_expiry(block: &[u8]) -> Option<u32> {
    let mut fields = Fields { bytes: block, v5: true };
    let length = fields.vbi().ok()?;
    let mut inner = Fields { bytes: fields.take(length).ok()?, v5: true };
    while !inner.bytes.is_empty() {
        let id = inner.byte().ok()?;
        if id == 0x11 {
            return inner.take(4).ok().map(|b| u32::from_be_bytes(b.try_into().expect("four")));
        }
        inner.value(id, Place::Disconnect).ok()?;
    }
    None
}

struct Fields<'a> {
    bytes: &'a [u8],
    v5: bool,
}

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Checked<&'a [u8]> {
        if count > self.bytes.len() {
            return Err(Malformed);
        }
        let (head, tail) = self.bytes.split_at(count);
        self.bytes = tail;
        Ok(head)
    }

    fn byte(&mut self) -> Checked<u8> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Checked<u16> {
        Ok(u16::from_be_bytes(self.take(2)?.try_into().expect("two bytes")))
    }

    fn vbi(&mut self) -> Checked<usize> {
        let mut value = 0;
        for index in 0..4 {
            let byte = self.byte()?;
            value |= usize::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                return if index > 0 && byte == 0 { Err(Malformed) } else { Ok(value) };
            }
        }
        Err(Malformed)
    }

    fn binary(&mut self) -> Checked<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    fn string(&mut self) -> Checked<&'a str> {
        let text = std::str::from_utf8(self.binary()?).map_err(|_| Malformed)?;
        if text.contains('\0') { Err(Malformed) } else { Ok(text) }
    }

    fn packet_id(&mut self) -> Checked<u16> {
        match self.u16()? {
            0 => Err(Refused(0x82)),
            id => Ok(id),
        }
    }

    fn end(&self) -> Checked<()> {
        if self.bytes.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    /// The identifiers of a legal property block.
    fn properties(&mut self, place: Place) -> Checked<Vec<u8>> {
        let length = self.vbi()?;
        let mut block = Fields { bytes: self.take(length)?, v5: true };
        let mut seen = Vec::new();
        while !block.bytes.is_empty() {
            let id = block.byte()?;
            if kind(id).is_none() || !allowed(id, place) {
                return Err(Malformed);
            }
            // Two properties that only a server may put into these packets.
            if matches!((place, id), (Place::Publish, 0x0B) | (Place::Disconnect, 0x1C)) {
                return Err(Refused(0x82));
            }
            if id != 0x26 && seen.contains(&id) {
                return Err(Refused(0x82));
            }
            block.value(id, place)?;
            seen.push(id);
        }
        Ok(seen)
    }

    fn value(&mut self, id: u8, _place: Place) -> Checked<()> {
        match kind(id).ok_or(Malformed)? {
            Kind::Byte => {
                if self.byte()? > 1 {
                    return Err(Refused(0x82));
                }
            }
            Kind::U16 => {
                let value = self.u16()?;
                if id == 0x21 && value == 0 {
                    return Err(Refused(0x82));
                }
            }
            Kind::U32 => {
                let value = self.take(4)?;
                if id == 0x27 && value == [0; 4] {
                    return Err(Refused(0x82));
                }
            }
            Kind::Vbi => {
                if self.vbi()? == 0 {
                    return Err(Refused(0x82));
                }
            }
            Kind::Str => {
                let text = self.string()?;
                if id == 0x08 && (text.is_empty() || text.contains(['+', '#'])) {
                    return Err(Refused(0x82));
                }
            }
            Kind::Bin => drop(self.binary()?),
            Kind::Pair => {
                self.string()?;
                self.string()?;
            }
        }
        Ok(())
    }
}
