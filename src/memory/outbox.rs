//! Output of one connection: encoded bytes, with large payloads and the headers of transports spliced in by reference.
//!
//! An [`Outbox`] is filled during a turn and taken as one [`OutBatch`], which is then owned by the kernel boundary
//! until its send completes. An idle connection's outbox owns no memory.

use super::Message;

/// What a connection has to send next.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// There while a large payload is.
    spliced: Option<Box<Spliced>>,
}

// Each connection has one.
const _: () = assert!(size_of::<Outbox>() == 32);

/// What goes by reference, in order.
#[derive(Debug, Default)]
struct Spliced {
    splices: Vec<Splice>,
    /// Bytes of all of them.
    len: usize,
}

#[derive(Debug)]
struct Splice {
    /// The piece goes before this position of `bytes`.
    at: usize,
    piece: Piece,
}

#[derive(Debug)]
enum Piece {
    Payload(Message),
    /// What a transport puts in front of a batch.
    Header(Box<[u8]>),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Payload(message) => message.payload(),
            Piece::Header(bytes) => bytes,
        }
    }
}

impl Outbox {
    /// Payloads of at least this many bytes are sent by reference: the break-even of a copy against an extra
    /// segment was measured between 512 and 1,024 bytes.
    pub const SPLICE_MIN: usize = 1024;

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.spliced.is_none()
    }

    /// Bytes that will go to the kernel.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.spliced.as_ref().map_or(0, |spliced| spliced.len)
    }

    /// Gives it a buffer to encode to if it has none.
    pub fn provide(&mut self, spare: &mut Vec<Vec<u8>>) {
        if self.bytes.capacity() == 0
            && let Some(buffer) = spare.pop()
        {
            debug_assert!(buffer.is_empty());
            self.bytes = buffer;
        }
    }

    /// Takes the buffer back if nothing is in it.
    pub fn reclaim(&mut self) -> Vec<u8> {
        if self.bytes.is_empty() { std::mem::take(&mut self.bytes) } else { Vec::new() }
    }

    /// Where packets are encoded to; append only.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends the payload of `message`, by reference if that is cheaper.
    pub fn push_payload(&mut self, message: &Message) {
        let payload = message.payload();
        if payload.len() < Self::SPLICE_MIN {
            self.bytes.extend_from_slice(payload);
        } else {
            let spliced = self.spliced.get_or_insert_default();
            spliced.len += payload.len();
            let piece = Piece::Payload(message.clone());
            spliced.splices.push(Splice { at: self.bytes.len(), piece });
        }
    }

    /// Everything so far, as one batch; `spare` is the buffer that the next bytes will go to.
    pub fn take(&mut self, spare: Vec<u8>) -> OutBatch {
        debug_assert!(spare.is_empty());
        let len = self.len();
        OutBatch {
            bytes: std::mem::replace(&mut self.bytes, spare),
            spliced: self.spliced.take(),
            len,
            sent: 0,
        }
    }

    /// Drops what was not sent and gives the memory back.
    pub fn clear(&mut self) {
        *self = Outbox::default();
    }
}

/// Bytes on their way to the kernel.
#[derive(Debug, Default)]
pub struct OutBatch {
    bytes: Vec<u8>,
    spliced: Option<Box<Spliced>>,
    len: usize,
    sent: usize,
}

impl OutBatch {
    /// Bytes that are not sent yet.
    pub fn remaining(&self) -> usize {
        self.len - self.sent
    }

    /// The kernel took `count` bytes more.
    pub fn advance(&mut self, count: usize) {
        debug_assert!(count <= self.remaining());
        self.sent += count;
    }

    /// Puts `header` in front of everything, of which nothing may be sent yet. No payload is copied, and no more than
    /// [`Outbox::SPLICE_MIN`] bytes are moved.
    pub fn put_front(&mut self, header: &[u8]) {
        debug_assert_eq!(self.sent, 0);
        self.len += header.len();
        if self.bytes.len() < Outbox::SPLICE_MIN {
            self.bytes.splice(..0, header.iter().copied());
            let splices = self.spliced.iter_mut().flat_map(|spliced| &mut spliced.splices);
            splices.for_each(|splice| splice.at += header.len());
        } else {
            let spliced = self.spliced.get_or_insert_default();
            spliced.len += header.len();
            spliced.splices.insert(0, Splice { at: 0, piece: Piece::Header(header.into()) });
        }
    }

    /// Appends `trailer`.
    pub fn put_back(&mut self, trailer: &[u8]) {
        self.len += trailer.len();
        self.bytes.extend_from_slice(trailer);
    }

    /// The unsent bytes if they lie in one piece.
    pub fn contiguous(&self) -> Option<&[u8]> {
        self.spliced.is_none().then(|| &self.bytes[self.sent..])
    }

    /// The unsent bytes, in order; no piece is empty.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = 0;
        let mut skip = self.sent;
        let splices = self.spliced.as_ref().map_or(&[][..], |spliced| &spliced.splices);
        let tail = splices.last().map_or(0, |splice| splice.at);
        splices
            .iter()
            .flat_map(move |splice| {
                let before = &self.bytes[from..splice.at];
                from = splice.at;
                [before, splice.piece.bytes()]
            })
            .chain(std::iter::once(&self.bytes[tail..]))
            .filter_map(move |piece| {
                let skipped = skip.min(piece.len());
                skip -= skipped;
                (skipped < piece.len()).then(|| &piece[skipped..])
            })
    }

    /// The buffer, emptied, for another use.
    pub fn into_buffer(mut self) -> Vec<u8> {
        self.bytes.clear();
        self.bytes
    }
}

impl From<Vec<u8>> for OutBatch {
    fn from(bytes: Vec<u8>) -> OutBatch {
        OutBatch { len: bytes.len(), bytes, spliced: None, sent: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::NEVER;
    use crate::memory::MessageView;
    use crate::wire::Qos;

    fn message(len: usize) -> Message {
        let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
        MessageView {
            topic: "t",
            properties: &[],
            payload: &payload,
            qos: Qos::AtMostOnce,
            retain: false,
            expires_at: NEVER,
            publisher: 0,
            whole: None,
            origin: 0,
            is_repeat: false,
        }
        .to_message()
    }

    #[test]
    fn pieces_are_the_bytes_in_order_from_every_offset() {
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for len in [0, 10, 2000, 0, 1024, 5, 3000, 3000] {
            let message = message(len);
            outbox.bytes_mut().extend_from_slice(b"head");
            outbox.push_payload(&message);
            expected.extend_from_slice(b"head");
            expected.extend_from_slice(message.payload());
        }
        assert_eq!(outbox.len(), expected.len());
        let mut batch = outbox.take(Vec::new());
        assert!(outbox.is_empty());
        assert_eq!(batch.contiguous(), None);
        for step in [1, 7, 1500, 2000, 1, 3000].into_iter().cycle() {
            let left: Vec<u8> = batch.pieces().flatten().copied().collect();
            assert_eq!(left, &expected[expected.len() - batch.remaining()..]);
            assert!(batch.pieces().all(|piece| !piece.is_empty()));
            if batch.remaining() == 0 {
                break;
            }
            batch.advance(step.min(batch.remaining()));
        }
    }

    #[test]
    fn what_is_put_around_a_batch_is_around_it() {
        for inline in [0, 3, Outbox::SPLICE_MIN, 3000] {
            for payloads in 0..3 {
                let mut outbox = Outbox::default();
                let mut expected = b"outer inner ".to_vec();
                for _ in 0..payloads {
                    let message = message(2000);
                    outbox.bytes_mut().extend_from_slice(&[7; 3][..inline.min(3)]);
                    outbox.push_payload(&message);
                    expected.extend_from_slice(&[7; 3][..inline.min(3)]);
                    expected.extend_from_slice(message.payload());
                }
                outbox.bytes_mut().extend(vec![8; inline]);
                expected.extend(vec![8; inline]);
                expected.extend_from_slice(b" end");
                let mut batch = outbox.take(Vec::new());
                batch.put_front(b"inner ");
                batch.put_front(b"outer ");
                batch.put_back(b" end");
                assert_eq!(batch.remaining(), expected.len());
                assert!(batch.pieces().all(|piece| !piece.is_empty()));
                let all: Vec<u8> = batch.pieces().flatten().copied().collect();
                assert!(all == expected, "{payloads} payloads and {inline} bytes");
            }
        }
    }
}
