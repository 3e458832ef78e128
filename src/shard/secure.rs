//! Connections with a transport between socket and stream (see [`crate::transport`]); a plain one never comes here.
//!
//! What arrives is fed to the transport, and what comes out of it goes the way of all received bytes. A handshake costs
//! a core as much as thousands of messages, so each turn feeds only so many connections that are in one. The others
//! wait in line with what they have sent: one receive buffer each, since they are not read meanwhile.

use std::collections::VecDeque;

use crate::io::ReadNow;
use crate::log::{Kind, Level};
use crate::memory::{Key, OutBatch, Outbox};
use crate::transport::{Fed, PeerIdentity, Transport};

use super::Core;
use super::connection::{Closing, End, Phase};
use super::events;
use super::{Io, Shard};

/// Bytes charged for a transport at rest, and during its handshake, beside what it holds. Measured for TLS: 6.4 KB and 13 to
/// 18 KB.
const TRANSPORT_BYTES: usize = 8 * 1024;
const HANDSHAKE_BYTES: usize = 16 * 1024;
/// A buffer for plain bytes that grew beyond this is not kept.
const PLAIN_KEPT_MAX: usize = 64 * 1024;

/// The transport of one connection. Moves between shards as one value.
#[derive(Debug)]
pub struct Secure {
    transport: Box<dyn Transport>,
    /// Received during the handshake and not fed yet.
    waiting: Vec<u8>,
    /// The peer was told that the stream ends.
    is_closed: bool,
    /// How the stream of the peer ended, as long as nobody has acted upon it: it goes along with a CONNECT that came before.
    end: Option<Fed>,
}

impl Secure {
    pub(super) fn new(transport: Box<dyn Transport>) -> Secure {
        Secure { transport, waiting: Vec::new(), is_closed: false, end: None }
    }

    /// Bytes that it keeps.
    pub(super) fn cost(&self) -> usize {
        let own = if self.transport.is_handshaking() { HANDSHAKE_BYTES } else { TRANSPORT_BYTES };
        own + self.waiting.capacity() + self.transport.held()
    }

    /// What was received waits for its turn to be fed.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.transport.is_handshaking()
    }

    pub(super) fn peer(&self) -> PeerIdentity<'_> {
        self.transport.peer()
    }

    /// Whether it has something to send beside what is staged.
    pub(super) fn has_output(&self, phase: &Phase) -> bool {
        self.transport.wants_send() || (ends_stream(phase) && !self.is_closed)
    }

    /// The batch as the peer shall see it: one write, with the end of the stream behind it in the last one. May be
    /// empty if there is nothing left to say. Gives the batch's buffer back.
    pub(super) fn seal(&mut self, batch: OutBatch, phase: &Phase, spare: Vec<u8>) -> (OutBatch, Vec<u8>) {
        let mut wire = Outbox::default();
        *wire.bytes_mut() = spare;
        self.transport.seal(&batch, wire.bytes_mut());
        if ends_stream(phase) && !self.is_closed {
            self.is_closed = true;
            self.transport.close();
            self.transport.seal(&OutBatch::default(), wire.bytes_mut());
        }
        (wire.take(Vec::new()), batch.into_buffer())
    }
}

/// Nothing is staged any more, and what was staged is the last that is sent.
fn ends_stream(phase: &Phase) -> bool {
    match phase {
        Phase::Closing(Closing::Flush) => true,
        Phase::Closing(Closing::Drain | Closing::Abort)
        | Phase::Opening
        | Phase::Verifying(_)
        | Phase::HandOff(_)
        | Phase::Waiting(_)
        | Phase::Live(_) => false,
    }
}

/// The handshakes of a shard.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    /// Connections with received bytes that wait, each once, in the order in which they came.
    line: VecDeque<Key>,
    /// Connections that may still be fed in this turn.
    left: usize,
    /// Plain bytes on their way, empty between two calls.
    plain: Vec<u8>,
}

impl Handshakes {
    pub fn is_waiting(&self) -> bool {
        !self.line.is_empty()
    }
}

impl<I: Io> Shard<I> {
    /// As `last_read`, through the transport: reads at most `max` bytes of the wire.
    pub(super) fn last_read_secure(&mut self, key: Key, bytes: &mut Vec<u8>, max: usize) {
        let core = &mut self.core;
        let Some(connection) = core.clients.connections.get_mut(key) else { return };
        let Some(secure) = &mut connection.secure else { return };
        let mut wire = Vec::new();
        let mut read = 0;
        while read < max && !connection.eof {
            wire.clear();
            match self.io.read_now(&connection.socket, &mut wire, (max - read).min(PLAIN_KEPT_MAX)) {
                ReadNow::Bytes(count) => read += count,
                ReadNow::Eof | ReadNow::Error(_) => connection.eof = true,
                ReadNow::WouldBlock => break,
            }
            match secure.transport.feed(&wire, bytes) {
                Fed::Open => {}
                Fed::Closed | Fed::Failed(_) => connection.eof = true,
            }
        }
        core.env.counters[usize::from(core.env.id)].bytes_received_total.add(read as u64);
    }
}

impl Core {
    /// A new turn: feeds those that wait first.
    pub(super) fn advance_handshakes(&mut self) {
        self.clients.handshakes.left = self.env.options.handshakes_per_turn;
        while self.clients.handshakes.left > 0 {
            let Some(key) = self.clients.handshakes.line.pop_front() else { return };
            let Some(secure) = self.clients.connections.get_mut(key).and_then(|it| it.secure.as_mut()) else {
                continue;
            };
            let waiting = std::mem::take(&mut secure.waiting);
            self.feed(key, &waiting);
            self.settle();
            self.clients.mark_dirty(key); // it was not read while it waited
        }
    }

    /// Bytes arrived for a connection with a transport.
    pub(super) fn secure_received(&mut self, key: Key, bytes: &[u8]) {
        let Some(connection) = self.clients.connections.get_mut(key) else { return };
        let Some(secure) = &mut connection.secure else { return };
        if matches!(connection.phase, Phase::Closing(_)) {
            return;
        }
        if secure.is_waiting() || (secure.transport.is_handshaking() && self.clients.handshakes.left == 0) {
            if !secure.is_waiting() {
                self.clients.handshakes.line.push_back(key);
            }
            secure.waiting.extend_from_slice(bytes);
            return self.clients.charge_receive(key, &mut self.env);
        }
        self.feed(key, bytes);
    }

    fn feed(&mut self, key: Key, bytes: &[u8]) {
        let Some(connection) = self.clients.connections.get_mut(key) else { return };
        let Some(secure) = &mut connection.secure else { return };
        if matches!(connection.phase, Phase::Closing(_)) {
            return;
        }
        let mut plain = std::mem::take(&mut self.clients.handshakes.plain);
        let was_handshaking = secure.transport.is_handshaking();
        let fed = secure.transport.feed(bytes, &mut plain);
        secure.end = (fed != Fed::Open).then_some(fed);
        let is_over = was_handshaking && !secure.transport.is_handshaking();
        let wants_send = secure.transport.wants_send();
        self.clients.handshakes.left =
            self.clients.handshakes.left.saturating_sub(usize::from(was_handshaking));
        if is_over {
            self.env.counters().handshakes_total.add(1);
        }
        if wants_send {
            self.clients.mark_dirty(key);
        }
        if plain.is_empty() {
            // A part of a record is a part of a packet.
            if let Some(connection) = self.clients.connections.get_mut(key) {
                connection.heard_bytes(self.env.now);
            }
            self.clients.charge_receive(key, &mut self.env); // for what the transport holds now
        } else {
            self.bytes_received(key, &plain);
        }
        plain.clear();
        if plain.capacity() > PLAIN_KEPT_MAX {
            plain = Vec::new();
        }
        self.clients.handshakes.plain = plain;
        self.stream_ended(key);
    }

    /// Acts upon the end of a peer's stream, if it has ended.
    pub(super) fn stream_ended(&mut self, key: Key) {
        let Some(secure) =
            self.clients.connections.get_mut(key).and_then(|connection| connection.secure.as_mut())
        else {
            return;
        };
        match secure.end.take() {
            Some(Fed::Open) | None => {}
            Some(Fed::Closed) => self.peer_closed(key),
            Some(Fed::Failed(why)) => self.transport_failed(key, &why),
        }
    }

    /// The stream is lost, but the transport may say why.
    fn transport_failed(&mut self, key: Key, why: &str) {
        let Some(connection) = self.clients.connections.get(key) else { return };
        if connection.is_closing() {
            return;
        }
        match connection.live().and_then(|live| self.sessions.get(live.session)) {
            Some(slot) => {
                let who = events::Who::has(slot);
                events::of_client(connection, who, (Level::Warn, Kind::ProtocolError), why, None);
            }
            None => events::no_connect(connection, why),
        }
        self.env.counters().transport_failures_total.add(1);
        self.clients.end(key, End::Told, &mut self.env);
        self.clients.start_closing(key, Closing::Flush, &mut self.env);
    }
}
