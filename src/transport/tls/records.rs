//! Where the records of a stream begin and end, which their headers say in the clear: what a peer makes TLS keep is the
//! part of a record that is not whole.

/// Type, version and length.
const HEADER_BYTES: usize = 5;

#[derive(Debug, Default)]
pub struct Records {
    header: [u8; HEADER_BYTES],
    /// Bytes of the record that has begun, header included; 0 between records.
    have: usize,
}

impl Records {
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.have < HEADER_BYTES {
                let count = bytes.len().min(HEADER_BYTES - self.have);
                self.header[self.have..self.have + count].copy_from_slice(&bytes[..count]);
                self.have += count;
                bytes = &bytes[count..];
            }
            if self.have >= HEADER_BYTES {
                let whole = HEADER_BYTES + usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                let count = bytes.len().min(whole - self.have);
                self.have += count;
                bytes = &bytes[count..];
                if self.have == whole {
                    self.have = 0;
                }
            }
        }
    }

    /// Bytes of a record that is not whole.
    pub fn partial(&self) -> usize {
        self.have
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
                passed.pass(piece);
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
}
