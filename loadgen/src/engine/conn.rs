//! One connection: which part of its life it is in, the bytes to send, and the start of a packet not yet whole.
//!
//! Invariant: `recv_armed` and `send_in_flight` are true exactly while the ring owns such a request for this slot.

use super::plan::Role;
use crate::wire::decode::{self, Malformed};

/// The life of a connection, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Not begun.
    Unopened,
    Connecting,
    AwaitingConnack,
    AwaitingSuback,
    Up,
    /// Said goodbye or failed; what is in flight comes back.
    Closing,
    Closed,
}

/// A packet may not be larger than this (the standard's limit).
const PACKET_MAX: usize = 268_435_460;

/// See the top of the file.
pub struct Conn {
    pub role: Role,
    /// Number among the publishers or subscribers of this worker.
    pub local: u32,
    pub phase: Phase,
    pub recv_armed: bool,
    pub send_in_flight: bool,
    /// Stands in the worker's list of connections with bytes to send.
    pub dirty: bool,
    /// Bytes to send next.
    pub out: Vec<u8>,
    /// The last buffer that came back from the ring.
    spare: Vec<u8>,
    /// The beginning of a packet whose rest has not arrived.
    pub partial: Vec<u8>,
    pub began_ns: u64,
    pub last_sent_ns: u64,
}

impl Conn {
    pub fn new(role: Role, local: u32) -> Conn {
        Conn {
            role,
            local,
            phase: Phase::Unopened,
            recv_armed: false,
            send_in_flight: false,
            dirty: false,
            out: Vec::new(),
            spare: Vec::new(),
            partial: Vec::new(),
            began_ns: 0,
            last_sent_ns: 0,
        }
    }

    /// The bytes to send, leaving an empty buffer to fill meanwhile.
    pub fn take_out(&mut self) -> Vec<u8> {
        std::mem::replace(&mut self.out, std::mem::take(&mut self.spare))
    }

    /// A buffer came back from the ring. Only connections that send often keep it.
    pub fn give_back(&mut self, buffer: Vec<u8>) {
        if !matches!(self.role, Role::Idler(_)) {
            self.spare = buffer;
        }
    }
}

/// Cuts received bytes into packets and hands each to `f` as (first byte, all after the fixed header).
///
/// `partial` keeps the start of a packet between calls; whole packets are read where they lie.
#[inline]
pub fn feed<E: From<Malformed>>(
    partial: &mut Vec<u8>,
    mut bytes: &[u8],
    mut f: impl FnMut(u8, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    while !partial.is_empty() && !bytes.is_empty() {
        let frame = decode::frame(partial)?;
        let wanted = frame.map_or(1, |frame| frame.total_len - partial.len());
        let (head, tail) = bytes.split_at(wanted.min(bytes.len()));
        partial.extend_from_slice(head);
        bytes = tail;
        if let Some(frame) = decode::frame(partial)?
            && frame.total_len == partial.len()
        {
            f(partial[0], &partial[frame.header_len..])?;
            partial.clear();
        }
    }
    while let Some(frame) = decode::frame(bytes)? {
        if bytes.len() < frame.total_len {
            if frame.total_len > PACKET_MAX {
                return Err(Malformed("a packet of more than 256 MiB").into());
            }
            break;
        }
        f(bytes[0], &bytes[frame.header_len..frame.total_len])?;
        bytes = &bytes[frame.total_len..];
    }
    partial.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_whole_however_the_stream_is_split() {
        let packets: Vec<Vec<u8>> = [2usize, 0, 127, 128, 300, 20_000]
            .iter()
            .map(|&len| {
                let mut packet = vec![0x30];
                let mut n = len;
                loop {
                    packet.push((n & 0x7F) as u8 | if n > 0x7F { 0x80 } else { 0 });
                    n >>= 7;
                    if n == 0 {
                        break;
                    }
                }
                packet.extend((0..len).map(|i| i as u8));
                packet
            })
            .collect();
        let stream: Vec<u8> = packets.concat();
        for step in [1, 2, 3, 5, 7, 64, 129, 1000, stream.len()] {
            let mut partial = Vec::new();
            let mut bodies: Vec<Vec<u8>> = Vec::new();
            for chunk in stream.chunks(step) {
                feed::<Malformed>(&mut partial, chunk, |first, body| {
                    assert_eq!(first, 0x30);
                    bodies.push(body.to_vec());
                    Ok(())
                })
                .unwrap();
            }
            let lens: Vec<usize> = bodies.iter().map(Vec::len).collect();
            assert_eq!(lens, [2, 0, 127, 128, 300, 20_000], "step {step}");
            assert!(bodies.iter().all(|b| b.iter().enumerate().all(|(i, &x)| x == i as u8)));
            assert!(partial.is_empty());
        }
    }
}
