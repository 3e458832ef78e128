//! A cursor over the body of one packet: the data types of MQTT, each read whole or refused as malformed.

use super::{DecodeError, text};

const CUT_SHORT: DecodeError = DecodeError::Malformed("packet ends inside a field");

#[derive(Copy, Clone)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// What has not been read yet.
    #[inline]
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Fields fill the packet exactly. [U5-2.1.4-1] [U311-2.3-1]
    pub(super) const fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Malformed("bytes after the last field")) }
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(*head)
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.take::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.take().map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.take().map(u32::from_be_bytes)
    }

    #[inline]
    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(head)
    }

    /// A variable byte integer in its shortest form. [MQTT-1.5.5-1] [U5-1.5.5-1]
    #[inline]
    pub(super) fn vbi(&mut self) -> Result<u32, DecodeError> {
        let first = self.u8()?;
        if first < 0x80 { Ok(u32::from(first)) } else { self.vbi_after(first) }
    }

    fn vbi_after(&mut self, first: u8) -> Result<u32, DecodeError> {
        let mut value = u32::from(first & 0x7F);
        for i in 1..4 {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7F) << (7 * i);
            if byte == 0 {
                return Err(DecodeError::Malformed("variable byte integer is not in its shortest form"));
            }
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Malformed("variable byte integer has more than four bytes"))
    }

    /// Binary data: a two-byte length and that many bytes, so never more than 65,535. [U5-1.5.6-1] [MQTT-4.7.3-3]
    /// 3.1.1: [MQTT-4.7.3-3]
    #[inline]
    pub(super) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u16()?;
        self.bytes(usize::from(len))
    }

    /// A UTF-8 string. [MQTT-1.5.4-1] [MQTT-1.5.4-2]
    #[inline]
    pub(super) fn string(&mut self) -> Result<&'a str, DecodeError> {
        text::string(self.binary()?)
    }

    /// A Packet Identifier, which is never 0. [MQTT-2.2.1-3]
    #[inline]
    pub(super) fn packet_id(&mut self) -> Result<u16, DecodeError> {
        match self.u16()? {
            0 => Err(DecodeError::ProtocolError("Packet Identifier is 0")),
            packet_id => Ok(packet_id),
        }
    }

    /// The property block of a v5 packet; its length is there even if it is 0. [MQTT-2.2.2-1] [U5-2.2.2-3]
    #[inline]
    pub(super) fn property_block(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.vbi()?;
        self.bytes(len as usize)
    }
}
