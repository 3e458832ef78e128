//! Batches that the kernel is sending, and the vectors that describe those with spliced payloads.
//!
//! Invariant: from `begin` until `end` nothing touches the batch, so the pointers that the submission holds stay valid:
//! they point to heap memory that does not move when the slab grows.
#![allow(unsafe_code)] // An empty C structure.

use slab::Slab;

use io_uring::{opcode, squeue};

use crate::io::{Operation, Socket, Token};
use crate::memory::{Key, OutBatch};

/// Pieces in one submission; the kernel refuses more. What is left over goes with the next send.
const PIECES_MAX: usize = libc::UIO_MAXIOV as usize;
/// Vectors kept for reuse.
const SPARE_MAX: usize = 64;
/// Bytes in one submission: the result is a signed 32-bit number.
const BYTES_MAX: usize = 1 << 30;

/// A message header and the pieces that it points to.
struct Vectors {
    header: libc::msghdr,
    pieces: Vec<libc::iovec>,
}

struct Flight {
    token: Token,
    batch: OutBatch,
    /// Boxed, since the kernel holds the header's address.
    vectors: Option<Box<Vectors>>,
}

/// The sends in flight.
#[derive(Default)]
pub(super) struct Flights {
    slots: Slab<Flight>,
    /// Boxed, because they move in and out of flights.
    #[allow(clippy::vec_box)]
    spare: Vec<Box<Vectors>>,
}

impl Flights {
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Takes the batch over and describes its send. The submission's pointers are valid until [`Flights::end`].
    pub fn begin(&mut self, socket: &Socket, token: Token, batch: OutBatch) -> squeue::Entry {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let index = self.slots.insert(Flight { token, batch, vectors: None });
        let flight = &mut self.slots[index];
        let entry = super::on(socket, |fd| match flight.batch.contiguous() {
            Some(bytes) => {
                let len = bytes.len().min(BYTES_MAX) as u32;
                opcode::Send::new(fd, bytes.as_ptr(), len).flags(flags).build()
            }
            None => {
                let mut vectors = self.spare.pop().unwrap_or_else(Vectors::new);
                vectors.fill(&flight.batch);
                let header: *const libc::msghdr = &vectors.header;
                flight.vectors = Some(vectors);
                opcode::SendMsg::new(fd, header).flags(flags as u32).build()
            }
        });
        // The slot's index, not the connection's: a flight is found without trusting what the shard kept.
        entry.user_data(Token::new(Key { index: index as u32, generation: 0 }).user_data(Operation::Send))
    }

    /// The send is over: gives the batch back to the connection that it belongs to.
    pub fn end(&mut self, flight: Token) -> (Token, OutBatch) {
        let flight = self.slots.remove(flight.key().index as usize);
        if let Some(mut vectors) = flight.vectors {
            vectors.clear();
            if self.spare.len() < SPARE_MAX {
                self.spare.push(vectors);
            }
        }
        (flight.token, flight.batch)
    }
}

fn empty_header() -> libc::msghdr {
    // SAFETY: all zero is the empty header: null pointers and lengths of 0.
    unsafe { std::mem::zeroed() }
}

impl Vectors {
    fn new() -> Box<Vectors> {
        Box::new(Vectors { header: empty_header(), pieces: Vec::new() })
    }

    fn fill(&mut self, batch: &OutBatch) {
        let mut bytes = 0;
        for piece in batch.pieces().take(PIECES_MAX) {
            if bytes + piece.len() > BYTES_MAX && bytes > 0 {
                break;
            }
            bytes += piece.len();
            self.pieces
                .push(libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() });
        }
        self.header.msg_iov = self.pieces.as_mut_ptr();
        self.header.msg_iovlen = self.pieces.len() as _;
    }

    fn clear(&mut self) {
        self.header = empty_header();
        self.pieces.clear();
    }
}
