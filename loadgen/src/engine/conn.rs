//! One connection: which part of its life it is in, the bytes to send, and the start of a packet not yet whole.
//!
//! Invariant: `connecting`, `recv_armed`, `send_in_flight` and `close_in_flight` are true exactly while the ring owns
//! such a request for this slot; a slot is closed only when the first three are false.

use std::collections::HashSet;

use super::plan::Role;
use crate::transport::Layers;
use crate::wire::decode::{self, Malformed, Publish};

/// The life of a connection, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Not begun.
    Unopened,
    Connecting,
    /// TLS or WebSocket shake hands.
    Handshake,
    AwaitingConnack,
    AwaitingSuback,
    Up,
    /// Said goodbye: the broker closes.
    Leaving,
    /// Of no more use; what is in flight comes back.
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
    pub connecting: bool,
    pub recv_armed: bool,
    pub send_in_flight: bool,
    pub close_in_flight: bool,
    /// The slot holds a socket.
    pub has_socket: bool,
    /// Stands in the worker's list of connections with bytes to send.
    pub dirty: bool,
    /// Reads a little at a time.
    pub slow: bool,
    /// Cut off by a storm: comes back once its socket is closed.
    pub cut: bool,
    /// Connected before in this run.
    pub again: bool,
    /// The broker keeps a session of this client beyond the connection.
    pub session_kept: bool,
    /// MQTT bytes to send next.
    pub out: Vec<u8>,
    /// Bytes of the layers below MQTT to send before that.
    pub raw: Vec<u8>,
    /// The last buffer that came back from the ring.
    spare: Vec<u8>,
    /// The beginning of a packet whose rest has not arrived.
    pub partial: Vec<u8>,
    pub layers: Option<Box<Layers>>,
    /// When the current connect was due, and when it began.
    pub due_ns: u64,
    pub began_ns: u64,
    pub last_sent_ns: u64,
    /// QoS 2 messages that arrived and are not released yet; outlives the connection, as the session does.
    unreleased: HashSet<u16>,
    /// Topic Names by the broker's Topic Alias, from 1.
    aliases: Vec<Box<[u8]>>,
}

impl Conn {
    pub fn new(role: Role, local: u32, slow: bool) -> Conn {
        Conn {
            role,
            local,
            phase: Phase::Unopened,
            connecting: false,
            recv_armed: false,
            send_in_flight: false,
            close_in_flight: false,
            has_socket: false,
            dirty: false,
            slow,
            cut: false,
            again: false,
            session_kept: false,
            out: Vec::new(),
            raw: Vec::new(),
            spare: Vec::new(),
            partial: Vec::new(),
            layers: None,
            due_ns: 0,
            began_ns: 0,
            last_sent_ns: 0,
            unreleased: HashSet::new(),
            aliases: Vec::new(),
        }
    }

    /// Forgets everything of the last connection; what belongs to the session stays.
    pub fn reset(&mut self) {
        self.out.clear();
        self.raw.clear();
        self.partial.clear();
        self.layers = None;
        self.aliases = Vec::new();
    }

    /// Whether the ring owns nothing of this slot, so that its socket can be closed.
    pub fn is_quiet(&self) -> bool {
        !(self.connecting || self.recv_armed || self.send_in_flight || self.close_in_flight)
    }

    /// Whether there is something to send.
    #[inline]
    pub fn has_output(&self) -> bool {
        !self.out.is_empty() || !self.raw.is_empty()
    }

    /// A QoS 2 message arrived: whether it is new.
    pub fn receive_exactly_once(&mut self, packet_id: u16) -> bool {
        self.unreleased.insert(packet_id)
    }

    /// PUBREL arrived.
    pub fn release(&mut self, packet_id: u16) {
        self.unreleased.remove(&packet_id);
    }

    /// The Topic Name of a PUBLISH, by its alias if it has one; `maximum` is what this client allowed.
    #[inline]
    pub fn topic<'c>(&'c mut self, publish: &Publish<'c>, maximum: u16) -> Result<&'c [u8], Malformed> {
        if publish.alias == 0 { Ok(publish.topic) } else { self.aliased(publish, maximum) }
    }

    fn aliased<'c>(&'c mut self, publish: &Publish<'c>, maximum: u16) -> Result<&'c [u8], Malformed> {
        if publish.alias > maximum {
            return Err(Malformed("a Topic Alias above the Topic Alias Maximum"));
        }
        let at = usize::from(publish.alias) - 1;
        if !publish.topic.is_empty() {
            if self.aliases.len() <= at {
                self.aliases.resize(at + 1, Box::default());
            }
            self.aliases[at] = publish.topic.into();
        }
        match self.aliases.get(at) {
            Some(name) if !name.is_empty() => Ok(name),
            _ => Err(Malformed("a Topic Alias that was never set")),
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
