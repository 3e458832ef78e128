//! Where the records of a stream begin and end, which their headers say in the clear: what a peer
//! makes TLS keep is the part of a record that is not whole.

/// Type, version and length.
const HEADER_BYTES: usize = 5;

/// The type of a record whose contents are encrypted.
const DATA: u8 = 23;
/// The major number in the version of every record.
const VERSION: u8 = 3;
/// Bytes that a record may have behind its header: those of its contents, and 2,048 for what a
/// cipher adds.
const BODY_MAX: usize = 16_384 + 2048;

#[derive(Default, Debug)]
pub struct Records {
    header: [u8; HEADER_BYTES],
    /// Bytes of the record that has begun, header included; 0 between records.
    have: usize,
    /// See [`Records::is_data`].
    is_data: bool,
}

impl Records {
    /// Splits off the bytes of one record: up to its end, or all of them if the end is not among
    /// them.
    pub fn take<'a>(&mut self, bytes: &mut &'a [u8]) -> &'a [u8] {
        let mut count = 0;
        if self.have < HEADER_BYTES {
            count = bytes.len().min(HEADER_BYTES - self.have);
            self.header[self.have..self.have + count].copy_from_slice(&bytes[..count]);
            self.have += count;
        }
        self.is_data = false;
        if self.have >= HEADER_BYTES {
            let [kind, version, _, high, low] = self.header;
            let body = usize::from(u16::from_be_bytes([high, low]));
            self.is_data = (kind, version) == (DATA, VERSION) && body <= BODY_MAX;
            let more = (bytes.len() - count).min(HEADER_BYTES + body - self.have);
            count += more;
            self.have += more;
            if self.have == HEADER_BYTES + body {
                self.have = 0;
            }
        }
        let (taken, rest) = bytes.split_at(count);
        *bytes = rest;
        taken
    }

    /// Bytes of a record that is not whole.
    pub fn partial(&self) -> usize {
        self.have
    }

    /// The newest bytes belong to a record of encrypted data with a header that is in order: such a
    /// record means nothing before it is whole, not even an error.
    pub fn is_data(&self) -> bool {
        self.is_data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_end_where_their_headers_say_however_they_are_cut() {
        let records =
            [&[23, 3, 3, 0, 3, 1, 2, 3][..], &[23, 3, 3, 0, 0], &[23, 3, 3, 1, 0], &[7; 256]].concat();
        for step in 1..=records.len() {
            let mut passed = Records::default();
            for (at, piece) in records.chunks(step).enumerate() {
                let mut rest = piece;
                while !rest.is_empty() {
                    assert!(!passed.take(&mut rest).is_empty());
                }
                let end = at * step + piece.len();
                let begin = [0, 8, 13, records.len()].into_iter().filter(|begin| *begin <= end).max();
                assert_eq!(
                    passed.partial(),
                    end - begin.unwrap_or_default(),
                    "{step} bytes at a time, after {end}"
                );
            }
        }
    }

    #[test]
    fn a_record_ends_a_piece_and_only_data_in_order_may_wait() {
        let mut records = Records::default();
        let bytes = [&[23, 3, 3, 0, 2, 1, 2][..], &[22, 3, 1, 0, 1, 9], &[23, 3, 3, 0x48, 1, 0]].concat();
        let mut rest = &bytes[..];
        assert_eq!((records.take(&mut rest).len(), records.partial(), records.is_data()), (7, 0, true));
        assert_eq!((records.take(&mut rest).len(), records.partial(), records.is_data()), (6, 0, false));
        assert_eq!(
            (records.take(&mut rest).len(), records.is_data()),
            (6, false),
            "longer than a record may be"
        );
        assert!(rest.is_empty());
        let mut records = Records::default();
        for (byte, is_data) in [(23, false), (3, false), (3, false), (0x48, false), (0, true), (7, true)] {
            let _ = records.take(&mut &[byte][..]);
            assert_eq!(records.is_data(), is_data);
        }
    }
}
