//! What can be written down, as bytes and back.
//!
//! A record is its kind, the length of what follows, and the fields: numbers little endian, texts
//! with their length in front. Sessions are named by their place in the shard's table; a place is
//! used again only after `Ended`.

use super::WallMillis;
use crate::memory::MessageView;
use crate::wire::Qos;

/// Bytes that are no record.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Damaged;

/// How a session gets the message that was written last.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Queued<'a> {
    pub qos: Qos,
    /// The RETAIN flag of the delivery, as the session module numbers it.
    pub retain: u8,
    /// The filter of the shared subscription that it is for; empty without one.
    pub share: &'a str,
    pub identifiers: Identifiers<'a>,
}

/// Subscription Identifiers.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Identifiers<'a> {
    Numbers(&'a [u32]),
    /// As they are written down, four bytes each.
    Written(&'a [u8]),
}

impl Identifiers<'_> {
    pub fn to_vec(self) -> Vec<u32> {
        match self {
            Identifiers::Numbers(numbers) => numbers.to_vec(),
            Identifiers::Written(bytes) => {
                let (numbers, _) = bytes.as_chunks::<4>();
                numbers.iter().map(|number| u32::from_le_bytes(*number)).collect()
            }
        }
    }
}

/// A will as it is written down.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    pub topic: &'a str,
    pub properties: &'a [u8],
    pub payload: &'a [u8],
    pub qos: Qos,
    pub retain: bool,
    pub delay_s: u32,
    pub expiry_s: Option<u32>,
    /// When it goes out; never while its client is connected.
    pub due_at: WallMillis,
}

/// One change of what a shard keeps.
#[derive(Copy, Clone, Debug)]
pub enum Record<'a> {
    /// A session begins at this place, or one that is there begins anew, with nothing in it.
    Began {
        index: u32,
        /// Where the search for a free Packet Identifier goes on.
        packet_id_next: u16,
        client_id: &'a str,
        user: Option<&'a str>,
        by_certificate: bool,
    },
    /// Its client is connected and asked for this. Its former will is gone.
    Connected {
        index: u32,
        expiry_s: u32,
    },
    /// Its client left. The session ends at `ends_at`, and its will goes out at `will_at`.
    Left {
        index: u32,
        ends_at: WallMillis,
        will_at: WallMillis,
    },
    /// The session has ended.
    Ended {
        index: u32,
    },
    /// The will of a session that is connected.
    Will {
        index: u32,
        will: Will<'a>,
    },
    /// The will is out, or forgotten.
    NoWill {
        index: u32,
    },
    Subscribed {
        index: u32,
        filter: &'a str,
        options: u8,
        identifier: u32,
    },
    Unsubscribed {
        index: u32,
        filter: &'a str,
    },
    /// The message that the next records are about. `name` is 0, or what [`Record::Again`] calls it
    /// in the same walk. Its times are those of the wall.
    Message {
        name: u64,
        message: MessageView<'a>,
    },
    /// The same, written earlier in this walk.
    Again {
        name: u64,
    },
    /// The message goes to the end of the queue of a session.
    Queued {
        index: u32,
        queued: Queued<'a>,
    },
    /// The message is on its way to the client under a Packet Identifier.
    Flying {
        index: u32,
        packet_id: u16,
        queued: Queued<'a>,
    },
    /// What came first in the queue is on its way.
    Sent {
        index: u32,
        packet_id: u16,
    },
    /// PUBACK or PUBCOMP, or the delivery was given up: the Packet Identifier is free.
    Acked {
        index: u32,
        packet_id: u16,
    },
    /// PUBREC: the message is gone if it was still there, PUBREL is owed.
    Released {
        index: u32,
        packet_id: u16,
    },
    /// `count` messages from place `from` of the queue on are gone.
    Dropped {
        index: u32,
        from: u32,
        count: u32,
    },
    /// The message waits behind retained ones.
    Behind {
        index: u32,
        queued: Queued<'a>,
    },
    /// The one at this place of those that wait behind retained ones waits no longer.
    Ahead {
        index: u32,
        at: u32,
    },
    /// A QoS 2 message of the client was taken; PUBREL will free its identifier.
    Received {
        index: u32,
        packet_id: u16,
    },
    /// PUBREL came.
    Freed {
        index: u32,
        packet_id: u16,
    },
    /// The message is the retained one of its topic.
    Retained,
    Cleared {
        topic: &'a str,
    },
    /// The message is for the share group of this fingerprint, and on its way to another shard; `number` names the hand-over.
    Given {
        number: u64,
        group: u64,
    },
    /// The other shard has it on disk.
    Passed {
        number: u64,
    },
    /// The session has got a QoS 2 message that this publisher sent under this Packet Identifier.
    Taken {
        index: u32,
        publisher: u64,
        packet_id: u16,
    },
    /// The publisher will not send it again.
    Forgot {
        publisher: u64,
        packet_id: u16,
    },
    /// A walk begins: what follows has an image of everything that is kept.
    WalkBegins,
    /// It is complete.
    WalkEnds,
    /// The shard stopped in order: nothing follows.
    Stopped,
}

/// Fields as they are written.
struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// With the length in front.
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(bytes.len() as u32); // no text or packet is larger than 2^28
        self.0.extend_from_slice(bytes);
        self
    }

    fn queued(&mut self, queued: &Queued<'_>) -> &mut Self {
        self.u8(queued.qos as u8 | queued.retain << 2);
        self.bytes(queued.share.as_bytes());
        match queued.identifiers {
            Identifiers::Numbers(numbers) => {
                self.u32(4 * numbers.len() as u32);
                numbers.iter().fold(self, |fields, number| fields.u32(*number))
            }
            Identifiers::Written(bytes) => self.bytes(bytes),
        }
    }
}

impl Record<'_> {
    const BEGAN: u8 = 1;
    const CONNECTED: u8 = 2;
    const LEFT: u8 = 3;
    const ENDED: u8 = 4;
    const WILL: u8 = 5;
    const NO_WILL: u8 = 6;
    const SUBSCRIBED: u8 = 7;
    const UNSUBSCRIBED: u8 = 8;
    const MESSAGE: u8 = 9;
    const AGAIN: u8 = 10;
    const QUEUED: u8 = 11;
    const FLYING: u8 = 12;
    const SENT: u8 = 13;
    const ACKED: u8 = 14;
    const RELEASED: u8 = 15;
    const DROPPED: u8 = 16;
    const RECEIVED: u8 = 17;
    const FREED: u8 = 18;
    const RETAINED: u8 = 19;
    const CLEARED: u8 = 20;
    const WALK_BEGINS: u8 = 21;
    const WALK_ENDS: u8 = 22;
    const STOPPED: u8 = 23;
    const BEHIND: u8 = 24;
    const AHEAD: u8 = 25;
    const GIVEN: u8 = 26;
    const PASSED: u8 = 27;
    const TAKEN: u8 = 28;
    const FORGOT: u8 = 29;

    /// Appends it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 5]);
        let kind = self.encode_fields(&mut Fields(out));
        out[start] = kind;
        let len = (out.len() - start - 5) as u32; // less than 2^29
        out[start + 1..start + 5].copy_from_slice(&len.to_le_bytes());
    }

    fn encode_fields(&self, fields: &mut Fields<'_>) -> u8 {
        match *self {
            Record::Began { index, packet_id_next, client_id, user, by_certificate } => {
                fields
                    .u32(index)
                    .u16(packet_id_next)
                    .u8(u8::from(by_certificate) | u8::from(user.is_some()) << 1);
                fields.bytes(client_id.as_bytes()).bytes(user.unwrap_or_default().as_bytes());
                Self::BEGAN
            }
            Record::Connected { index, expiry_s } => {
                fields.u32(index).u32(expiry_s);
                Self::CONNECTED
            }
            Record::Left { index, ends_at, will_at } => {
                fields.u32(index).u64(ends_at).u64(will_at);
                Self::LEFT
            }
            Record::Ended { index } => {
                fields.u32(index);
                Self::ENDED
            }
            Record::Will { index, ref will } => {
                fields.u32(index).u8(will.qos as u8 | u8::from(will.retain) << 2);
                fields.u8(u8::from(will.expiry_s.is_some())).u32(will.expiry_s.unwrap_or_default());
                fields.u32(will.delay_s).u64(will.due_at);
                fields.bytes(will.topic.as_bytes()).bytes(will.properties).bytes(will.payload);
                Self::WILL
            }
            Record::NoWill { index } => {
                fields.u32(index);
                Self::NO_WILL
            }
            Record::Subscribed { index, filter, options, identifier } => {
                fields.u32(index).u8(options).u32(identifier).bytes(filter.as_bytes());
                Self::SUBSCRIBED
            }
            Record::Unsubscribed { index, filter } => {
                fields.u32(index).bytes(filter.as_bytes());
                Self::UNSUBSCRIBED
            }
            Record::Message { name, ref message } => {
                fields.u64(name).u8(message.qos as u8 | u8::from(message.retain) << 2);
                fields.u64(message.expires_at).u64(message.publisher);
                fields.bytes(message.topic.as_bytes()).bytes(message.properties).bytes(message.payload);
                Self::MESSAGE
            }
            Record::Again { name } => {
                fields.u64(name);
                Self::AGAIN
            }
            Record::Queued { index, ref queued } => {
                fields.u32(index).queued(queued);
                Self::QUEUED
            }
            Record::Flying { index, packet_id, ref queued } => {
                fields.u32(index).u16(packet_id).queued(queued);
                Self::FLYING
            }
            Record::Sent { index, packet_id } => {
                fields.u32(index).u16(packet_id);
                Self::SENT
            }
            Record::Acked { index, packet_id } => {
                fields.u32(index).u16(packet_id);
                Self::ACKED
            }
            Record::Released { index, packet_id } => {
                fields.u32(index).u16(packet_id);
                Self::RELEASED
            }
            Record::Dropped { index, from, count } => {
                fields.u32(index).u32(from).u32(count);
                Self::DROPPED
            }
            Record::Behind { index, ref queued } => {
                fields.u32(index).queued(queued);
                Self::BEHIND
            }
            Record::Ahead { index, at } => {
                fields.u32(index).u32(at);
                Self::AHEAD
            }
            Record::Received { index, packet_id } => {
                fields.u32(index).u16(packet_id);
                Self::RECEIVED
            }
            Record::Freed { index, packet_id } => {
                fields.u32(index).u16(packet_id);
                Self::FREED
            }
            Record::Retained => Self::RETAINED,
            Record::Cleared { topic } => {
                fields.bytes(topic.as_bytes());
                Self::CLEARED
            }
            Record::Given { number, group } => {
                fields.u64(number).u64(group);
                Self::GIVEN
            }
            Record::Passed { number } => {
                fields.u64(number);
                Self::PASSED
            }
            Record::Taken { index, publisher, packet_id } => {
                fields.u32(index).u64(publisher).u16(packet_id);
                Self::TAKEN
            }
            Record::Forgot { publisher, packet_id } => {
                fields.u64(publisher).u16(packet_id);
                Self::FORGOT
            }
            Record::WalkBegins => Self::WALK_BEGINS,
            Record::WalkEnds => Self::WALK_ENDS,
            Record::Stopped => Self::STOPPED,
        }
    }

    /// The record at the front of `bytes`, and what is behind it.
    ///
    /// # Errors
    /// The bytes are no record of this version.
    pub fn decode(bytes: &[u8]) -> Result<(Record<'_>, &[u8]), Damaged> {
        let mut head = Reader(bytes);
        let (kind, len) = (head.u8()?, head.u32()? as usize);
        let (fields, rest) = head.0.split_at_checked(len).ok_or(Damaged)?;
        let mut reader = Reader(fields);
        let record = Record::decode_fields(kind, &mut reader)?;
        if reader.0.is_empty() { Ok((record, rest)) } else { Err(Damaged) }
    }

    fn decode_fields<'a>(kind: u8, fields: &mut Reader<'a>) -> Result<Record<'a>, Damaged> {
        Ok(match kind {
            Self::BEGAN => {
                let (index, packet_id_next, flags) = (fields.u32()?, fields.u16()?, fields.u8()?);
                let (client_id, user) = (fields.text()?, fields.text()?);
                let user = (flags & 2 != 0).then_some(user);
                Record::Began { index, packet_id_next, client_id, user, by_certificate: flags & 1 != 0 }
            }
            Self::CONNECTED => Record::Connected { index: fields.u32()?, expiry_s: fields.u32()? },
            Self::LEFT => {
                Record::Left { index: fields.u32()?, ends_at: fields.u64()?, will_at: fields.u64()? }
            }
            Self::ENDED => Record::Ended { index: fields.u32()? },
            Self::WILL => {
                let (index, flags) = (fields.u32()?, fields.u8()?);
                let (expires, expiry_s) = (fields.u8()? != 0, fields.u32()?);
                let will = Will {
                    qos: qos(flags)?,
                    retain: flags & 4 != 0,
                    expiry_s: expires.then_some(expiry_s),
                    delay_s: fields.u32()?,
                    due_at: fields.u64()?,
                    topic: fields.text()?,
                    properties: fields.bytes()?,
                    payload: fields.bytes()?,
                };
                Record::Will { index, will }
            }
            Self::NO_WILL => Record::NoWill { index: fields.u32()? },
            Self::SUBSCRIBED => {
                let (index, options, identifier) = (fields.u32()?, fields.u8()?, fields.u32()?);
                Record::Subscribed { index, options, identifier, filter: fields.text()? }
            }
            Self::UNSUBSCRIBED => Record::Unsubscribed { index: fields.u32()?, filter: fields.text()? },
            Self::MESSAGE => {
                let (name, flags) = (fields.u64()?, fields.u8()?);
                let message = MessageView {
                    qos: qos(flags)?,
                    retain: flags & 4 != 0,
                    expires_at: fields.u64()?,
                    publisher: fields.u64()?,
                    topic: fields.text()?,
                    properties: fields.bytes()?,
                    payload: fields.bytes()?,
                    whole: None,
                    origin: 0,
                    is_repeat: false,
                };
                Record::Message { name, message }
            }
            Self::AGAIN => Record::Again { name: fields.u64()? },
            Self::QUEUED => Record::Queued { index: fields.u32()?, queued: fields.queued()? },
            Self::FLYING => {
                let (index, packet_id) = (fields.u32()?, fields.u16()?);
                Record::Flying { index, packet_id, queued: fields.queued()? }
            }
            Self::SENT => Record::Sent { index: fields.u32()?, packet_id: fields.u16()? },
            Self::ACKED => Record::Acked { index: fields.u32()?, packet_id: fields.u16()? },
            Self::RELEASED => Record::Released { index: fields.u32()?, packet_id: fields.u16()? },
            Self::DROPPED => {
                Record::Dropped { index: fields.u32()?, from: fields.u32()?, count: fields.u32()? }
            }
            Self::BEHIND => Record::Behind { index: fields.u32()?, queued: fields.queued()? },
            Self::AHEAD => Record::Ahead { index: fields.u32()?, at: fields.u32()? },
            Self::RECEIVED => Record::Received { index: fields.u32()?, packet_id: fields.u16()? },
            Self::FREED => Record::Freed { index: fields.u32()?, packet_id: fields.u16()? },
            Self::RETAINED => Record::Retained,
            Self::CLEARED => Record::Cleared { topic: fields.text()? },
            Self::GIVEN => Record::Given { number: fields.u64()?, group: fields.u64()? },
            Self::PASSED => Record::Passed { number: fields.u64()? },
            Self::TAKEN => {
                let (index, publisher) = (fields.u32()?, fields.u64()?);
                Record::Taken { index, publisher, packet_id: fields.u16()? }
            }
            Self::FORGOT => Record::Forgot { publisher: fields.u64()?, packet_id: fields.u16()? },
            Self::WALK_BEGINS => Record::WalkBegins,
            Self::WALK_ENDS => Record::WalkEnds,
            Self::STOPPED => Record::Stopped,
            _ => return Err(Damaged),
        })
    }
}

/// Fields as they are read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (first, rest) = self.0.split_first_chunk::<N>().ok_or(Damaged)?;
        self.0 = rest;
        Ok(*first)
    }

    fn u8(&mut self) -> Result<u8, Damaged> {
        Ok(self.take::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, Damaged> {
        Ok(u16::from_le_bytes(self.take()?))
    }

    fn u32(&mut self) -> Result<u32, Damaged> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn u64(&mut self) -> Result<u64, Damaged> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    fn bytes(&mut self) -> Result<&'a [u8], Damaged> {
        let len = self.u32()? as usize;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Damaged)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<&'a str, Damaged> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Damaged)
    }

    fn queued(&mut self) -> Result<Queued<'a>, Damaged> {
        let flags = self.u8()?;
        let (share, identifiers) = (self.text()?, self.bytes()?);
        if identifiers.len() % 4 != 0 || flags >> 2 > 2 {
            return Err(Damaged);
        }
        let identifiers = Identifiers::Written(identifiers);
        Ok(Queued { qos: qos(flags)?, retain: flags >> 2, share, identifiers })
    }
}

fn qos(flags: u8) -> Result<Qos, Damaged> {
    match flags & 3 {
        0 => Ok(Qos::AtMostOnce),
        1 => Ok(Qos::AtLeastOnce),
        2 => Ok(Qos::ExactlyOnce),
        _ => Err(Damaged),
    }
}
