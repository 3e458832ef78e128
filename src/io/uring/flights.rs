//! Batches that the kernel is sending, and the vectors that describe those with spliced payloads.
//!
//! Invariant: from `begin` until `end` nothing touches the batch, so the pointers that the submission holds stay valid:
//! they point to heap memory that does not move when the slab grows. What is still in flight when the flights are dropped is
//! never freed.
//!
//! A *quiet* send, whose end nobody waits for, is tried without waiting (MSG_DONTWAIT), so that it is over when it was
//! submitted, and has a completion only if it did not send everything (IOSQE_CQE_SKIP_SUCCESS). So it wakes nobody: what
//! was submitted and has no completion was sent.
#![allow(unsafe_code)] // Submissions that point to batches; an empty C structure.

use slab::Slab;

use super::direct::Place;
use super::request::Request;
use crate::io::{Operation, Token};
use crate::memory::{Key, OutBatch, Outbox};

/// Pieces in one submission; the kernel refuses more. What is left over goes with the next send.
const PIECES_MAX: usize = libc::UIO_MAXIOV as usize;
/// Vectors kept for reuse.
const SPARE_MAX: usize = 64;
/// Bytes of a quiet send at most: what a socket mostly has room for, and fewer than [`PIECES_MAX`] spliced pieces.
const QUIET_MAX: usize = 64 << 10;
const _: () = assert!(QUIET_MAX / Outbox::SPLICE_MIN < PIECES_MAX / 2);
/// Bytes in one submission: the result is a signed 32-bit number.
const BYTES_MAX: usize = 1 << 30;

/// A message header and the pieces that it points to.
struct Vectors {
    header: libc::msghdr,
    pieces: Vec<libc::iovec>,
}

struct Flight {
    token: Token,
    socket: Place,
    batch: OutBatch,
    is_quiet: bool,
    /// Boxed, since the kernel holds the header's address.
    vectors: Option<Box<Vectors>>,
}

/// The sends in flight.
#[derive(Default)]
pub(super) struct Flights {
    slots: Slab<Flight>,
    /// Quiet sends, by index, since they were last taken out; some may have completed.
    quiet: Vec<u32>,
    /// Boxed, because they move in and out of flights.
    #[allow(clippy::vec_box)]
    spare: Vec<Box<Vectors>>,
}

impl Flights {
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Takes the batch over and describes its send.
    pub fn begin(&mut self, socket: Place, token: Token, batch: OutBatch) -> Request {
        let index = self.insert(socket, token, batch);
        self.slots[index].request(index, libc::MSG_WAITALL)
    }

    /// The same for one that is over when a part of it was sent.
    pub fn begin_in_parts(&mut self, socket: Place, token: Token, batch: OutBatch) -> Request {
        let index = self.insert(socket, token, batch);
        self.slots[index].request(index, 0)
    }

    /// The same for one that nobody waits for; quiet if it is not large.
    pub fn begin_quiet(&mut self, socket: Place, token: Token, batch: OutBatch) -> Request {
        if batch.remaining() > QUIET_MAX {
            return self.begin(socket, token, batch);
        }
        let index = self.insert(socket, token, batch);
        self.quiet.push(index as u32);
        let flight = &mut self.slots[index];
        flight.is_quiet = true;
        // With MSG_WAITALL a part is a failure, and so has a completion.
        flight.request(index, libc::MSG_WAITALL | libc::MSG_DONTWAIT).quiet()
    }

    fn insert(&mut self, socket: Place, token: Token, batch: OutBatch) -> usize {
        let vectors = batch.contiguous().is_none().then(|| {
            let mut vectors = self.spare.pop().unwrap_or_else(Vectors::new);
            vectors.fill(&batch);
            vectors
        });
        self.slots.insert(Flight { token, socket, batch, is_quiet: false, vectors })
    }

    /// A quiet send found no room: the same once more, which waits for it. `None` if it was not quiet.
    pub fn again(&mut self, flight: Token) -> Option<Request> {
        let index = flight.key().index as usize;
        let flight = &mut self.slots[index];
        std::mem::take(&mut flight.is_quiet).then(|| flight.request(index, libc::MSG_WAITALL))
    }

    /// A quiet send that is over without a completion. Only when all were submitted, and after their completions.
    pub fn end_quiet(&mut self) -> Option<(Token, OutBatch)> {
        while let Some(index) = self.quiet.pop() {
            if self.slots.get(index as usize).is_some_and(|flight| flight.is_quiet) {
                return Some(self.remove(index as usize));
            }
        }
        None
    }

    pub fn has_quiet(&self) -> bool {
        !self.quiet.is_empty()
    }

    /// The send is over: gives the batch back to the connection that it belongs to.
    pub fn end(&mut self, flight: Token) -> (Token, OutBatch) {
        self.remove(flight.key().index as usize)
    }

    fn remove(&mut self, index: usize) -> (Token, OutBatch) {
        let flight = self.slots.remove(index);
        if let Some(mut vectors) = flight.vectors {
            vectors.clear();
            if self.spare.len() < SPARE_MAX {
                self.spare.push(vectors);
            }
        }
        (flight.token, flight.batch)
    }
}

impl Drop for Flights {
    /// The kernel may read what it did not let go of for as long as the process runs.
    fn drop(&mut self) {
        if !self.is_empty() {
            std::mem::forget(std::mem::take(&mut self.slots));
        }
    }
}

impl Flight {
    fn request(&self, index: usize, flags: libc::c_int) -> Request {
        let flags = flags | libc::MSG_NOSIGNAL;
        let request = match (&self.vectors, self.batch.contiguous()) {
            (None, Some(bytes)) => {
                let len = bytes.len().min(BYTES_MAX) as u32;
                // SAFETY: the bytes are on the heap and belong to the batch, which stays as it is until `end` or `end_quiet`
                // takes the flight out: that is when the send is over. A flight that is dropped before leaks its batch.
                unsafe { Request::send(self.socket, bytes.as_ptr(), len, flags) }
            }
            // SAFETY: the box holds the header and its vectors, the batch or a message that it shares holds the bytes, and all of
            // it stays until `end` or `end_quiet` takes the flight out: that is when the send is over.
            (Some(vectors), _) => unsafe {
                Request::send_pieces(self.socket, &raw const vectors.header, flags)
            },
            (None, None) => unreachable!("what is in pieces has vectors"),
        };
        // The slot's index, not the connection's: a flight is found without trusting what the shard kept.
        request.user_data(Token::new(Key { index: index as u32, generation: 0 }).user_data(Operation::Send))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::NEVER;
    use crate::memory::{MessageView, Whole};
    use crate::wire::Qos;

    /// A batch in flight whose only payload is `whole`, which it shares.
    fn begin(flights: &mut Flights, whole: &Whole) -> Request {
        let message = MessageView {
            topic: "t",
            properties: &[],
            payload: whole.packet(),
            qos: Qos::AtMostOnce,
            retain: false,
            expires_at: NEVER,
            publisher: 0,
            whole: Some(whole),
            origin: 0,
            is_repeat: false,
        };
        let mut outbox = Outbox::default();
        outbox.push_payload(&message.to_message());
        let token = Token::new(Key { index: 1, generation: 1 });
        flights.begin(Place::Descriptor(-1), token, outbox.take(Vec::new()))
    }

    #[test]
    fn what_is_in_flight_when_the_flights_end_is_never_freed() {
        for ended in [true, false] {
            let (mut flights, whole) = (Flights::default(), Whole::new(vec![7; 10_000]));
            let _unsent = begin(&mut flights, &whole);
            if ended {
                flights.end(Token::new(Key { index: 0, generation: 0 }));
            }
            drop(flights);
            assert_eq!(whole.into_packet().is_ok(), ended);
        }
    }
}
