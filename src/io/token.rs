//! What travels with an operation through the kernel: 8 bits of operation, 24 of generation, 32 of index.
//!
//! The only place that shifts these bits.

use crate::memory::Key;

/// Names the connection that an operation belongs to.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Token(u64);

/// What kind of operation a `user_data` belongs to.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Operation {
    Accept = 1,
    AcceptCancel = 2,
    Receive = 3,
    ReceiveCancel = 4,
    Send = 5,
    Doorbell = 6,
    /// Its completion means nothing to the shard.
    Ignore = 7,
    /// Its completion is waited for on the spot.
    Now = 8,
    WriteFile = 9,
    ReadFile = 10,
}

impl Token {
    pub fn new(key: Key) -> Token {
        Token(key.pack())
    }

    pub fn key(self) -> Key {
        Key::unpack(self.0)
    }

    /// The value that goes to the kernel.
    pub(super) fn user_data(self, operation: Operation) -> u64 {
        self.0 | (operation as u64) << 56
    }

    /// The inverse of [`Token::user_data`]; `None` for a value that was never given out.
    pub(super) fn split(user_data: u64) -> Option<(Operation, Token)> {
        let operation = match user_data >> 56 {
            1 => Operation::Accept,
            2 => Operation::AcceptCancel,
            3 => Operation::Receive,
            4 => Operation::ReceiveCancel,
            5 => Operation::Send,
            6 => Operation::Doorbell,
            7 => Operation::Ignore,
            8 => Operation::Now,
            9 => Operation::WriteFile,
            10 => Operation::ReadFile,
            _ => return None,
        };
        Some((operation, Token(user_data & ((1 << 56) - 1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_round_trips() {
        let token = Token::new(Key { index: 0xFFFF_FFFE, generation: 0x00FE_DCBA });
        for operation in [Operation::Accept, Operation::Send, Operation::WriteFile, Operation::ReadFile] {
            assert_eq!(Token::split(token.user_data(operation)), Some((operation, token)));
        }
        assert_eq!(token.key(), Key { index: 0xFFFF_FFFE, generation: 0x00FE_DCBA });
        assert_eq!(Token::split(0), None);
    }
}
