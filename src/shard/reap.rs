//! Completions: what the world did since the last turn.

use crate::io::{Buffer, Completion, Io, ListenerId, ReceiveEnd, Shutdown, Token};
use crate::memory::{Key, OutBatch};

use super::ahead::TOGETHER;
use super::clients::Clients;
use super::connection::{Closing, Connection, End, Phase};
use super::env::Env;
use super::listeners::Entry;
use super::order::Heard;
use super::transports::Layered;
use super::{Core, Shard, events};

impl<I: Io> Shard<I> {
    /// Ends the sends among the completions that were taken, so that whatever is delivered finds the room that they leave: a
    /// message as large as the send buffer fits only where nothing is on its way.
    pub(super) fn reap_sent(&mut self, heard: Heard<'_>) {
        for at in 0..self.completions.len() {
            // What is left of it costs nothing to drop.
            if matches!(self.completions[at], Completion::Sent { .. })
                && let Completion::Sent { token, batch, result } =
                    std::mem::replace(&mut self.completions[at], Completion::Doorbell)
            {
                self.sent(token.key(), batch, result, heard);
                self.core.settle(heard);
            }
        }
    }

    /// Acts on the other completions that were taken, in their order.
    pub(super) fn reap(&mut self, heard: Heard<'_>) {
        let mut completions = std::mem::take(&mut self.completions);
        let count = completions.len();
        self.core.local.env.counters().completions_total.add(count as u64);
        let ahead = self.core.local.clients.looks_ahead(count, &self.core.local.env);
        let mut rest = completions.drain(..);
        loop {
            if ahead && rest.len() % TOGETHER == count % TOGETHER {
                self.core.local.look_ahead(rest.as_slice());
            }
            let Some(completion) = rest.next() else { break };
            match completion {
                Completion::Received { token, buffer, more } => {
                    self.received(token.key(), buffer, more, heard)
                }
                Completion::ReceiveEnded { token, end } => {
                    self.core.receive_ended(token.key(), end, heard);
                    self.core.settle(heard);
                }
                Completion::CancelEnded { token } => self.core.local.clients.cancel_ended(token.key()),
                Completion::Accepted { listener, socket, peer } => {
                    if let Some(socket) =
                        self.core.local.clients.accepted(listener, socket, peer, &mut self.core.local.env)
                    {
                        self.io.close(socket);
                    }
                    self.core.settle(heard);
                }
                Completion::AcceptEnded { listener, errno } => {
                    self.core.local.clients.accept_ended(listener, errno, &self.core.local.env)
                }
                Completion::Sent { .. } | Completion::Doorbell => {}
                Completion::Written { tag, bytes, result } => self.log_written(tag, bytes, result),
                Completion::FileRead { tag, .. } => {
                    debug_assert!(false, "no shard reads a file: {tag}");
                }
            }
        }
        drop(rest);
        self.completions = completions;
    }

    fn received(&mut self, key: Key, buffer: Buffer, more: bool, heard: Heard<'_>) {
        let core = &mut self.core;
        core.local.env.counters().bytes_received_total.add(u64::from(buffer.len));
        if let Some(connection) = core.local.clients.connections.get_mut(key) {
            let is_layered = connection.transport.is_some();
            if !more {
                connection.receive_armed = false;
                core.local.clients.mark_dirty(key);
            }
            if is_layered {
                core.wire_received(key, self.io.bytes(buffer), heard);
            } else {
                core.bytes_received(key, self.io.bytes(buffer), heard);
            }
        }
        self.io.replenish(buffer);
        self.core.settle(heard);
    }

    fn sent(&mut self, key: Key, mut batch: OutBatch, result: Result<usize, i32>, heard: Heard<'_>) {
        let core = &mut self.core;
        let Some(connection) = core.local.clients.connections.get_mut(key) else { return };
        match result {
            Ok(count) => {
                core.local.env.counters[usize::from(core.local.env.id)].bytes_sent_total.add(count as u64);
                if count > 0
                    && connection.is_clogged(core.local.env.limits.send_buffer_bytes_max)
                    && let Some(live) = connection.live_mut()
                {
                    live.last_packet_at = core.local.env.now;
                    // It may be read again from here on.
                    if !connection.dirty {
                        connection.dirty = true;
                        core.local.clients.dirty.push(key);
                    }
                }
                if let Some(lent) = &mut connection.lent
                    && count > 0
                {
                    lent.taken_at = core.local.env.now;
                }
                batch.advance(count.min(batch.remaining()));
                connection.in_flight_bytes = batch.remaining() as u32;
                let aborted = matches!(connection.phase, Phase::Closing(Closing::Abort));
                if batch.remaining() > 0 && count > 0 && !aborted {
                    core.local.env.counters[usize::from(core.local.env.id)].sends_total.add(1);
                    let token = Token::new(key);
                    if connection
                        .sends_in_parts(batch.remaining(), core.local.env.limits.send_buffer_bytes_max)
                    {
                        self.io.send_in_parts(&connection.socket, token, batch);
                    } else {
                        self.io.send(&connection.socket, token, batch);
                    }
                    return;
                }
                connection.send_in_flight = false;
                connection.in_flight_bytes = 0;
                let (starved, held_back) = (connection.starved, connection.is_held_back());
                core.local.clients.recycle(batch.into_buffer());
                core.local.clients.mark_dirty(key);
                if starved {
                    // Not any more, before it is looked what waits for room: nobody would look again.
                    core.local.clients.charge_send(key, &mut core.local.env);
                }
                core.local.room_made(key);
                if held_back {
                    core.output_taken(key, heard);
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
                core.local.clients.recycle(batch.into_buffer());
                core.local.clients.mark_dirty(key);
                if is_live {
                    core.output_taken(key, heard);
                } else {
                    core.local.clients.end(key, End::Lost, &mut core.local.env);
                }
            }
        }
    }
}

impl Clients {
    /// A new connection; gives the socket back if it is refused.
    fn accepted(
        &mut self,
        listener: ListenerId,
        socket: crate::io::Socket,
        peer: std::net::SocketAddr,
        env: &mut Env,
    ) -> Option<crate::io::Socket> {
        env.counters().connections_accepted_total.add(1);
        // The other shards' numbers are those of their last turn: the limit may be passed by what a turn accepts.
        let others =
            crate::metrics::sum(&env.counters, |shard| &shard.connections) - env.counters().connections.get();
        let all = others + self.connections.len() as u64;
        if env.is_stopping || all >= u64::from(env.limits.connections_max) {
            env.counters().connections_refused_total.add(1);
            if !env.is_stopping {
                events::turned_away(peer, "there are as many connections as --connections-max allows");
            }
            return Some(socket);
        }
        let deadline = env.now + env.limits_at(listener).connect_timeout_ms;
        let mut connection = Connection::new(socket, peer, listener, deadline);
        if let Some(listening) = self.listening.get(usize::from(listener.0)) {
            if listening.enter() == Entry::Full {
                env.counters().connections_refused_total.add(1);
                events::turned_away(
                    peer,
                    "there are as many connections as this listener's connections-max allows",
                );
                return Some(connection.socket);
            }
            if !listening.layers.is_plain() {
                let Some(transport) = listening.layers.accept() else {
                    listening.leave();
                    env.counters().connections_refused_total.add(1);
                    events::turned_away(peer, "no transport (such as TLS) could be made for it");
                    return Some(connection.socket);
                };
                connection.transport = Some(Box::new(Layered::new(transport)));
            }
        }
        let key = self.connections.insert(connection);
        self.set_deadline(key, deadline, env);
        self.charge_receive(key, env); // which may end it
        self.mark_dirty(key);
        None
    }
}

impl Core {
    fn receive_ended(&mut self, key: Key, end: ReceiveEnd, heard: Heard<'_>) {
        let Some(connection) = self.local.clients.connections.get_mut(key) else { return };
        connection.receive_armed = false;
        connection.broken |= matches!(end, ReceiveEnd::Error(_));
        self.local.clients.mark_dirty(key);
        match end {
            ReceiveEnd::NoBuffers => self.local.env.counters().no_buffers_total.add(1),
            ReceiveEnd::Cancelled => {}
            ReceiveEnd::Eof | ReceiveEnd::Error(_) => self.peer_closed(key, heard),
        }
    }

    /// The peer sends nothing any more.
    pub(super) fn peer_closed(&mut self, key: Key, heard: Heard<'_>) {
        let Some(connection) = self.local.clients.connections.get_mut(key) else { return };
        connection.eof = true;
        if connection.is_held_back() {
            return self.resume(key, heard); // which ends it
        }
        match &mut connection.phase {
            // What it sent before it closed is still to be parsed or answered: a paused connection ends when it is resumed,
            // one that holds replies with the last of them, and one that is taken over by its last read.
            Phase::Live(live) if !live.has_said_all() => {}
            // The connection that it waits for has to end first; the session would otherwise come to life for nobody.
            Phase::Opening | Phase::Verifying(_) | Phase::HandOff(_) | Phase::Waiting(_) | Phase::Live(_) => {
                self.local.clients.end(key, End::Lost, &mut self.local.env)
            }
            Phase::Closing(_) => {}
        }
    }

    /// Bytes arrived.
    pub(super) fn bytes_received(&mut self, key: Key, bytes: &[u8], heard: Heard<'_>) {
        let Some(connection) = self.local.clients.connections.get_mut(key) else { return };
        match &connection.phase {
            Phase::Live(live) if live.blocked().is_some() => {
                connection.partial.extend_from_slice(bytes);
                self.local.clients.mark_dirty(key);
                self.local.clients.charge_receive(key, &mut self.local.env);
            }
            Phase::Live(_) => self.parse(key, bytes, heard),
            Phase::Opening => {
                connection.partial.extend_from_slice(bytes);
                self.local.clients.charge_receive(key, &mut self.local.env);
                self.try_connect(key, heard);
            }
            // Not armed in these phases, but a completion may still be on its way when the phase changes.
            Phase::Verifying(_) | Phase::HandOff(_) | Phase::Waiting(_) => {
                connection.partial.extend_from_slice(bytes);
                self.local.clients.charge_receive(key, &mut self.local.env);
            }
            Phase::Closing(_) => {}
        }
    }
}
