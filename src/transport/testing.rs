//! Layers for tests: one for each thing that a layer may do, and which TLS does not do.

use std::net::SocketAddr;

use super::*;

/// Frames with a length in front, as WebSocket has them: a request and its answer first, a frame of
/// no bytes as the end. It sends payloads as they are.
#[derive(Debug, Default)]
pub struct Frames {
    is_open: bool,
    wants_answer: bool,
    /// A part of the request, or of a frame.
    partial: Vec<u8>,
}

pub const REQUEST: &[u8] = b"frames, please\n";
pub const ANSWER: &[u8] = b"frames it is\n";

pub fn frame(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

impl Layer for Frames {
    fn feed(&mut self, received: &[u8], plain: &mut Vec<u8>) -> Fed {
        self.partial.extend_from_slice(received);
        if !self.is_open {
            let count = self.partial.len().min(REQUEST.len());
            if self.partial[..count] != REQUEST[..count] {
                return Fed::Failed("this is no request for frames".into());
            }
            if count < REQUEST.len() {
                return Fed::Open;
            }
            self.partial.drain(..count);
            (self.is_open, self.wants_answer) = (true, true);
        }
        while let Some((len, rest)) = self.partial.split_first_chunk::<4>() {
            let len = u32::from_be_bytes(*len) as usize;
            if len == 0 {
                return Fed::Closed;
            }
            let Some(body) = rest.get(..len) else { break };
            plain.extend_from_slice(body);
            self.partial.drain(..4 + len);
        }
        Fed::Open
    }

    fn write(&mut self, mut batch: OutBatch, last: Last, _: &mut Vec<u8>) -> OutBatch {
        if batch.remaining() > 0 {
            assert!(self.is_open, "nothing is sent before the handshake is over");
            batch.put_front(&(batch.remaining() as u32).to_be_bytes());
        }
        if std::mem::take(&mut self.wants_answer) {
            batch.put_front(ANSWER);
        }
        if self.is_open && last == Last::Yes {
            batch.put_back(&frame(b""));
        }
        batch
    }

    fn wants_write(&self) -> bool {
        self.wants_answer
    }

    fn handshake(&self) -> Option<Handshake> {
        let late = "frames were not asked for in time";
        let left = "the peer closed before it had asked for frames";
        (!self.is_open).then_some(Handshake { cost: HandshakeCost::Cheap, late, left })
    }

    fn cost(&self) -> usize {
        self.partial.capacity()
    }
}

/// A line that says who the client is, as the PROXY protocol has it; then nothing more.
#[derive(Debug, Default)]
pub struct Introduction {
    line: Vec<u8>,
    introduced: Option<(SocketAddr, String)>,
}

impl Layer for Introduction {
    fn feed(&mut self, received: &[u8], plain: &mut Vec<u8>) -> Fed {
        assert!(self.introduced.is_none(), "a layer that changes nothing any more is passed by");
        let Some(end) = received.iter().position(|byte| *byte == b'\n') else {
            self.line.extend_from_slice(received);
            return Fed::Open;
        };
        self.line.extend_from_slice(&received[..end]);
        let line = String::from_utf8(std::mem::take(&mut self.line)).unwrap();
        let Some((address, user)) = line.split_once(' ') else {
            return Fed::Failed("nobody is introduced".into());
        };
        self.introduced = Some((address.parse().unwrap(), user.to_owned()));
        plain.extend_from_slice(&received[end + 1..]);
        Fed::Open
    }

    fn write(&mut self, _: OutBatch, _: Last, _: &mut Vec<u8>) -> OutBatch {
        assert!(self.introduced.is_none(), "a layer that changes nothing any more is passed by");
        OutBatch::default()
    }

    fn wants_write(&self) -> bool {
        false
    }

    fn handshake(&self) -> Option<Handshake> {
        let late = "no introduction came in time";
        let left = "the peer closed before its introduction was over";
        self.introduced.is_none().then_some(Handshake { cost: HandshakeCost::Cheap, late, left })
    }

    fn is_through(&self) -> bool {
        self.introduced.is_some()
    }

    fn peer(&self) -> Peer<'_> {
        match &self.introduced {
            None => Peer::default(),
            Some((address, user)) => Peer { address: Some(*address), is_certified: true, user: Some(user) },
        }
    }

    fn cost(&self) -> usize {
        self.line.capacity()
    }
}

/// Every byte is another one on the wire, and there is no handshake.
#[derive(Debug)]
pub struct Mask(pub u8);

impl Layer for Mask {
    fn feed(&mut self, received: &[u8], plain: &mut Vec<u8>) -> Fed {
        plain.extend(received.iter().map(|byte| byte ^ self.0));
        Fed::Open
    }

    fn write(&mut self, batch: OutBatch, _: Last, spare: &mut Vec<u8>) -> OutBatch {
        let mut wire = std::mem::take(spare);
        assert!(wire.is_empty());
        batch.pieces().for_each(|piece| wire.extend(piece.iter().map(|byte| byte ^ self.0)));
        *spare = batch.into_buffer();
        OutBatch::from(wire)
    }

    fn wants_write(&self) -> bool {
        false
    }

    fn handshake(&self) -> Option<Handshake> {
        None
    }

    fn cost(&self) -> usize {
        0
    }
}

/// Makes layers by a function.
pub struct Makes(pub fn() -> Option<Box<dyn Layer>>);

impl fmt::Debug for Makes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Makes")
    }
}

impl Acceptor for Makes {
    fn accept(&self) -> Option<Box<dyn Layer>> {
        (self.0)()
    }
}
