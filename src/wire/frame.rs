//! Cuts a byte stream into Control Packets by their fixed header. Knows sizes and nothing of what is inside.
//!
//! A packet's size is judged as soon as its fixed header is there, so that nobody buffers a body that will
//! be refused.

use super::{DecodeError, Reason};

/// The largest packet that a fixed header can announce, in bytes.
#[cfg(test)]
pub const PACKET_SIZE_MAX: usize = 1 + 4 + REMAINING_LENGTH_MAX as usize;

/// The largest variable byte integer.
pub(super) const REMAINING_LENGTH_MAX: u32 = 268_435_455;

/// Packet types: the upper four bits of a packet's first byte.
pub(super) mod kind {
    pub const CONNECT: u8 = 1;
    pub const CONNACK: u8 = 2;
    pub const PUBLISH: u8 = 3;
    pub const PUBACK: u8 = 4;
    pub const PUBREC: u8 = 5;
    pub const PUBREL: u8 = 6;
    pub const PUBCOMP: u8 = 7;
    pub const SUBSCRIBE: u8 = 8;
    pub const SUBACK: u8 = 9;
    pub const UNSUBSCRIBE: u8 = 10;
    pub const UNSUBACK: u8 = 11;
    pub const PINGREQ: u8 = 12;
    pub const PINGRESP: u8 = 13;
    pub const DISCONNECT: u8 = 14;
    pub const AUTH: u8 = 15;
}

/// The packet that a client may begin with this byte, as the standard names it; `None` if there is none.
pub const fn packet_name(first: u8) -> Option<&'static str> {
    Some(match (first >> 4, first & 0x0F) {
        (kind::CONNECT, 0) => "CONNECT",
        (kind::PUBLISH, _) => "PUBLISH",
        (kind::PUBACK, 0) => "PUBACK",
        (kind::PUBREC, 0) => "PUBREC",
        (kind::PUBREL, 2) => "PUBREL",
        (kind::PUBCOMP, 0) => "PUBCOMP",
        (kind::SUBSCRIBE, 2) => "SUBSCRIBE",
        (kind::UNSUBSCRIBE, 2) => "UNSUBSCRIBE",
        (kind::PINGREQ, 0) => "PINGREQ",
        (kind::DISCONNECT, 0) => "DISCONNECT",
        (kind::AUTH, 0) => "AUTH",
        _ => return None,
    })
}

/// One whole Control Packet, its type and flags not yet judged.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Frame<'a> {
    /// The first byte: packet type and flags.
    pub first: u8,
    /// What follows the fixed header: Remaining Length bytes.
    pub body: &'a [u8],
    /// Size of the whole packet in bytes; what to advance the stream by.
    pub len: usize,
}

impl Frame<'_> {
    pub(super) const fn kind(&self) -> u8 {
        self.first >> 4
    }

    pub(super) const fn flags(&self) -> u8 {
        self.first & 0x0F
    }

    /// Whether it is a PUBLISH.
    #[inline]
    pub const fn is_publish(&self) -> bool {
        self.kind() == kind::PUBLISH
    }

    /// Whether the Remaining Length was written in the fewest bytes possible.
    #[inline]
    pub const fn is_shortest(&self) -> bool {
        self.len == 1 + vbi_len(self.body.len() as u32) + self.body.len()
    }
}

/// What stands at the front of a stream.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum NextFrame<'a> {
    /// A whole packet.
    Frame(Frame<'a>),
    /// Not yet a whole packet.
    Incomplete {
        /// Bytes that must be there before it pays to call again: more than there are now, and the size of
        /// the whole packet once its fixed header is complete.
        need: usize,
    },
}

/// Whether a Remaining Length may be written in more bytes than it needs.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum LengthForm {
    /// Only the shortest form, as v5 demands. [MQTT-1.5.5-1]
    Shortest,
    /// Any form: 3.x has no such rule, and before CONNECT the version is unknown ([`super::decode_connect`]
    /// judges it then).
    Any,
}

/// The packet at the front of `input`. A packet of exactly `packet_size_max` bytes is legal.
///
/// # Errors
/// Malformed for a Remaining Length of five bytes or (`Shortest`) an over-long one; 0x95 for a packet above
/// `packet_size_max`, though its body may not have arrived. [MQTT-3.2.2-15]
#[inline]
pub fn next_frame(
    input: &[u8],
    packet_size_max: u32,
    length_form: LengthForm,
) -> Result<NextFrame<'_>, DecodeError> {
    let Some(&first) = input.first() else {
        return Ok(NextFrame::Incomplete { need: 2 });
    };
    let mut remaining = 0;
    for i in 0..4 {
        let Some(&byte) = input.get(1 + i) else {
            return Ok(NextFrame::Incomplete { need: 2 + i });
        };
        remaining |= usize::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 != 0 {
            continue;
        }
        if i > 0 && byte == 0 && length_form == LengthForm::Shortest {
            return Err(DecodeError::Malformed("Remaining Length is not in its shortest form"));
        }
        let body_at = 2 + i;
        let len = body_at + remaining;
        // [U5-3.2.2-5]
        if len > packet_size_max as usize {
            return Err(DecodeError::Specific(Reason::PACKET_TOO_LARGE, "packet exceeds the maximum size"));
        }
        return Ok(match input.get(body_at..len) {
            Some(body) => NextFrame::Frame(Frame { first, body, len }),
            None => NextFrame::Incomplete { need: len },
        });
    }
    Err(DecodeError::Malformed("Remaining Length has more than four bytes"))
}

/// Bytes that `value` takes as a variable byte integer. [MQTT-1.5.5-1]
#[inline]
pub(super) const fn vbi_len(value: u32) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}
