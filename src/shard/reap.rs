//! Completions: what the world did since the last turn.

use crate::io::{Buffer, Completion, Io, ListenerId, ReceiveEnd, Shutdown, Token};
use crate::memory::{Key, OutBatch};

use super::ahead::TOGETHER;
use super::connection::{Closing, Connection, End, Phase};
use super::listeners::Entry;
use super::transports::Layered;
use super::{Core, Listener, Shard};

/// How long accepting rests when descriptors or memory ran out.
const REST_MS: u64 = 100;

impl<I: Io> Shard<I> {
    /// Ends the sends among the completions that were taken, so that whatever is delivered finds the room that they leave: a
    /// message as large as the send buffer fits only where nothing is on its way.
    pub(super) fn reap_sent(&mut self) {
        let mut completions = std::mem::take(&mut self.completions);
        for completion in &mut completions {
            // What is left of it costs nothing to drop.
            if matches!(completion, Completion::Sent { .. })
                && let Completion::Sent { token, batch, result } =
                    std::mem::replace(completion, Completion::Doorbell)
            {
                self.sent(token.key(), batch, result);
            }
        }
        self.completions = completions;
    }

    /// Acts on the other completions that were taken, in their order.
    pub(super) fn reap(&mut self) {
        let mut completions = std::mem::take(&mut self.completions);
        let count = completions.len();
        self.core.counters().completions_total.add(count as u64);
        let ahead = self.core.looks_ahead(count);
        let mut rest = completions.drain(..);
        loop {
            if ahead && rest.len() % TOGETHER == count % TOGETHER {
                self.core.look_ahead(rest.as_slice());
            }
            let Some(completion) = rest.next() else { break };
            match completion {
                Completion::Received { token, buffer, more } => self.received(token.key(), buffer, more),
                Completion::ReceiveEnded { token, end } => self.core.receive_ended(token.key(), end),
                Completion::CancelEnded { token } => self.core.cancel_ended(token.key()),
                Completion::Accepted { listener, socket, peer } => {
                    if let Some(socket) = self.core.accepted(listener, socket, peer) {
                        self.io.close(socket);
                    }
                }
                Completion::AcceptEnded { listener, errno } => self.core.accept_ended(listener, errno),
                Completion::Sent { .. } | Completion::Doorbell => {}
            }
        }
        drop(rest);
        self.completions = completions;
    }

    fn received(&mut self, key: Key, buffer: Buffer, more: bool) {
        let core = &mut self.core;
        core.counters().bytes_received_total.add(u64::from(buffer.len));
        if let Some(connection) = core.connections.get_mut(key) {
            let is_layered = connection.transport.is_some();
            if !more {
                connection.receive_armed = false;
                core.mark_dirty(key);
            }
            if is_layered {
                core.wire_received(key, self.io.bytes(buffer));
            } else {
                core.bytes_received(key, self.io.bytes(buffer));
            }
        }
        self.io.replenish(buffer);
    }

    fn sent(&mut self, key: Key, mut batch: OutBatch, result: Result<usize, i32>) {
        let core = &mut self.core;
        let Some(connection) = core.connections.get_mut(key) else { return };
        match result {
            Ok(count) => {
                core.counters[usize::from(core.id)].bytes_sent_total.add(count as u64);
                if count > 0
                    && connection.is_clogged(core.limits.send_buffer_bytes_max)
                    && let Some(live) = connection.live_mut()
                {
                    live.last_packet_at = core.now;
                    // It may be read again from here on.
                    if !connection.dirty {
                        connection.dirty = true;
                        core.dirty.push(key);
                    }
                }
                if let Some(lent) = &mut connection.lent
                    && count > 0
                {
                    lent.taken_at = core.now;
                }
                batch.advance(count.min(batch.remaining()));
                connection.in_flight_bytes = batch.remaining() as u32;
                let aborted = matches!(connection.phase, Phase::Closing(Closing::Abort));
                if batch.remaining() > 0 && count > 0 && !aborted {
                    core.counters[usize::from(core.id)].sends_total.add(1);
                    let token = Token::new(key);
                    if connection.sends_in_parts(batch.remaining(), core.limits.send_buffer_bytes_max) {
                        self.io.send_in_parts(&connection.socket, token, batch);
                    } else {
                        self.io.send(&connection.socket, token, batch);
                    }
                    return;
                }
                connection.send_in_flight = false;
                connection.in_flight_bytes = 0;
                let (starved, held_back) = (connection.starved, connection.is_held_back());
                core.recycle(batch.into_buffer());
                core.mark_dirty(key);
                if starved {
                    // Not any more, before it is looked what waits for room: nobody would look again.
                    core.charge_send(key);
                }
                core.room_made(key);
                if held_back {
                    core.output_taken(key);
                }
            }
            Err(_) => {
                connection.send_in_flight = false;
                connection.in_flight_bytes = 0;
                let is_live = connection.live().is_some();
                if is_live {
                    // A client that says DISCONNECT and closes resets what we still send, yet the kernel keeps what it
                    // said. So the receive brings the end, after everything that was sent before it; the shutdown
                    // makes sure that it does, whatever the error was.
                    connection.broken = true;
                    self.io.shutdown(&connection.socket, Shutdown::Both);
                }
                core.recycle(batch.into_buffer());
                core.mark_dirty(key);
                if is_live {
                    core.output_taken(key);
                } else {
                    core.end(key, End::Lost);
                }
            }
        }
    }
}

impl Core {
    /// A new connection; gives the socket back if it is refused.
    fn accepted(
        &mut self,
        listener: ListenerId,
        socket: crate::io::Socket,
        peer: std::net::SocketAddr,
    ) -> Option<crate::io::Socket> {
        self.counters().connections_accepted_total.add(1);
        // The other shards' numbers are those of their last turn: the limit may be passed by what a turn accepts.
        let others = crate::metrics::sum(&self.counters, |shard| &shard.connections)
            - self.counters().connections.get();
        let all = others + self.connections.len() as u64;
        if self.stop.is_stopping() || all >= u64::from(self.limits.connections_max) {
            self.counters().connections_refused_total.add(1);
            if self.stop.is_running() {
                self.log_turned_away(peer, "there are as many connections as --connections-max allows");
            }
            return Some(socket);
        }
        let deadline = self.now + self.limits_at(listener).connect_timeout_ms;
        let mut connection = Connection::new(socket, peer, listener, deadline);
        if let Some(listening) = self.listening.get(usize::from(listener.0)) {
            if listening.enter() == Entry::Full {
                self.counters().connections_refused_total.add(1);
                self.log_turned_away(
                    peer,
                    "there are as many connections as this listener's connections-max allows",
                );
                return Some(connection.socket);
            }
            if !listening.layers.is_plain() {
                let Some(transport) = listening.layers.accept() else {
                    listening.leave();
                    self.counters().connections_refused_total.add(1);
                    self.log_turned_away(peer, "no transport (such as TLS) could be made for it");
                    return Some(connection.socket);
                };
                connection.transport = Some(Box::new(Layered::new(transport)));
            }
        }
        let key = self.connections.insert(connection);
        self.set_deadline(key, deadline);
        self.charge_receive(key); // which may end it
        self.mark_dirty(key);
        None
    }

    fn accept_ended(&mut self, listener: ListenerId, errno: i32) {
        let rest = self.now + REST_MS;
        if let Some(state) = self.listeners.get_mut(usize::from(listener.0)) {
            *state = match *state {
                Listener::Closing => Listener::Silent,
                _ if errno == 0 => Listener::Ended,
                _ => Listener::Resting(rest),
            };
        }
        if errno != 0 {
            self.log_accept_failed(errno);
        }
    }

    fn receive_ended(&mut self, key: Key, end: ReceiveEnd) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.receive_armed = false;
        connection.broken |= matches!(end, ReceiveEnd::Error(_));
        self.mark_dirty(key);
        match end {
            ReceiveEnd::NoBuffers => self.counters().no_buffers_total.add(1),
            ReceiveEnd::Cancelled => {}
            ReceiveEnd::Eof | ReceiveEnd::Error(_) => self.peer_closed(key),
        }
    }

    fn cancel_ended(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.cancel_in_flight = false;
            self.mark_dirty(key);
        }
    }

    /// The peer sends nothing any more.
    pub(super) fn peer_closed(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.eof = true;
        if connection.is_held_back() {
            return self.resume(key); // which ends it
        }
        match &mut connection.phase {
            // What it sent before it closed is still to be parsed or answered: a paused connection ends when it is resumed,
            // one that holds replies with the last of them, and one that is taken over by its last read.
            Phase::Live(live) if !live.has_said_all() => {}
            // The connection that it waits for has to end first; the session would otherwise come to life for nobody.
            Phase::Opening | Phase::Verifying(_) | Phase::HandOff | Phase::Waiting(_) | Phase::Live(_) => {
                self.end(key, End::Lost)
            }
            Phase::Closing(_) => {}
        }
    }

    /// Bytes arrived.
    pub(super) fn bytes_received(&mut self, key: Key, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        match &connection.phase {
            Phase::Live(live) if live.blocked().is_some() => {
                connection.partial.extend_from_slice(bytes);
                self.mark_dirty(key);
                self.charge_receive(key);
            }
            Phase::Live(_) => self.parse(key, bytes),
            Phase::Opening => {
                connection.partial.extend_from_slice(bytes);
                self.charge_receive(key);
                self.try_connect(key);
            }
            // Not armed in these phases, but a completion may still be on its way when the phase changes.
            Phase::Verifying(_) | Phase::HandOff | Phase::Waiting(_) => {
                connection.partial.extend_from_slice(bytes);
                self.charge_receive(key);
            }
            Phase::Closing(_) => {}
        }
    }
}
