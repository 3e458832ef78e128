//! Brings the operations of each dirty connection in line with its phase: receives armed or cancelled, one send for
//! everything that this turn staged, the steps of a close. The only place that asks `Io` for anything about a socket.

use std::num::NonZeroU32;

use crate::clock::Millis;
use crate::io::{Io, ListenerId, ReadNow, ReceiveMode, Shutdown, Token};
use crate::limits::Limits;
use crate::memory::{Arena, Class, Key};

use super::connection::{Closing, Connection, Phase};
use super::ingress::LastParse;
use super::slots::Slot;
use super::waits::Blocked;
use super::{Core, Listener, Shard, Timer};

/// Buffers that are kept for reuse, and the largest that is.
const SPARE_BUFFERS_MAX: usize = 1024;
const SPARE_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Bytes read from a connection that is taken over: more than a kernel keeps for one socket (6 MiB by default), so that
/// only a client that goes on sending meets this bound.
const LAST_READ_MAX: usize = 16 << 20;

/// Looks within a Keep Alive at the socket of somebody who seems to be silent.
const LOOKS: Millis = 4;

/// What a live connection needs, decided without touching `Io`.
enum Need {
    Nothing,
    Receive(ReceiveMode),
    Cancel,
    LastRead,
}

impl<I: Io> Shard<I> {
    /// Once per turn, after all handlers.
    pub(super) fn tend_dirty(&mut self) {
        self.tend_listeners();
        if !self.core.silent.is_empty() {
            self.look_at_the_silent();
        }
        // Those whose end was reaped are dirty, and charged for what is left; the others are known to be held now.
        self.core.quiet_bytes = 0;
        let mut dirty = std::mem::take(&mut self.core.dirty);
        for key in dirty.drain(..) {
            self.tend(key);
        }
        // What tending marked anew waits for the next turn; keep the larger list's memory.
        if self.core.dirty.is_empty() {
            self.core.dirty = dirty;
        }
    }

    /// Whose Keep Alive has passed, as far as it was heard.
    ///
    /// What has come, but was not read yet, counts: this process may have been stopped, or its machine.
    ///
    /// Who does not read what it is answered is not read either, so its Keep Alive counts from when its peer last took
    /// something. A completion may be long in coming: a kernel reports room only when a third of its buffer is free. So it is
    /// asked several times in a Keep Alive.
    fn look_at_the_silent(&mut self) {
        let mut silent = std::mem::take(&mut self.core.silent);
        for key in silent.drain(..) {
            let core = &mut self.core;
            let Some(connection) = core.connections.get_mut(key) else { continue };
            let owes = connection.is_unheard(core.limits.send_buffer_bytes_max);
            let Phase::Live(live) = &mut connection.phase else { continue };
            let speaks = if owes {
                let unsent = self.io.unsent(&connection.socket);
                let before = std::mem::replace(&mut live.unsent_bytes, unsent.and_then(NonZeroU32::new));
                if matches!((before, unsent), (Some(before), Some(unsent)) if unsent < before.get()) {
                    live.last_packet_at = core.now;
                }
                before.is_none() && unsent.is_some() // the first look says nothing yet
            } else {
                matches!(self.io.unread(&connection.socket), Some(1..))
            };
            let idle_max_ms = live.idle_max_ms();
            if !speaks && connection.heard_until() <= core.now {
                core.deadline_passed(key);
            } else {
                core.set_deadline(key, core.now + (idle_max_ms / LOOKS).max(1));
            }
        }
        self.core.silent = silent;
    }

    fn tend(&mut self, key: Key) {
        let Some(connection) = self.core.connections.get_mut(key) else { return };
        connection.dirty = false;
        // At home and not going anywhere, and no operation that may not even be submitted yet names the socket.
        if connection.is_at_rest() && connection.live().is_some() {
            self.io.settle(&mut connection.socket);
        }
        self.tend_send(key);
        let Some(connection) = self.core.connections.get(key) else { return };
        match connection.phase {
            Phase::Closing(step) => self.tend_closing(key, step),
            Phase::Opening | Phase::Verifying(_) | Phase::HandOff | Phase::Waiting(_) | Phase::Live(_) => {
                self.tend_receive(key)
            }
        }
    }

    /// One send for everything that is staged.
    fn tend_send(&mut self, key: Key) {
        let core = &mut self.core;
        let Some(connection) = core.connections.get_mut(key) else { return };
        if connection.broken {
            connection.outbox.clear();
        }
        if connection.send_in_flight
            || !connection.has_output()
            || matches!(connection.phase, Phase::Closing(Closing::Drain | Closing::Abort))
        {
            core.charge_send(key);
            return;
        }
        let mut emptied = Vec::new();
        let mut batch = connection.outbox.take(Vec::new());
        if let Some(transport) = &mut connection.transport {
            emptied = core.spare_buffers.pop().unwrap_or_default();
            batch = transport.write(batch, &connection.phase, &mut emptied);
            if batch.remaining() == 0 {
                core.recycle(batch.into_buffer());
                core.recycle(emptied);
                return core.charge_send(key);
            }
        }
        connection.in_flight_bytes = batch.remaining() as u32;
        connection.send_in_flight = true;
        core.counters[usize::from(core.id)].sends_total.add(1);
        if connection.sends_in_parts(batch.remaining(), core.limits.send_buffer_bytes_max) {
            self.io.send_in_parts(&connection.socket, Token::new(key), batch);
        } else if core.stop.is_stopping() || awaits_sent(connection, &core.sessions, &core.limits) {
            self.io.send(&connection.socket, Token::new(key), batch);
        } else {
            core.quiet_bytes += batch.remaining() as u64;
            self.io.send_unawaited(&connection.socket, Token::new(key), batch);
        }
        core.recycle(emptied);
        core.charge_send(key);
    }

    fn tend_receive(&mut self, key: Key) {
        match self.core.receive_need(key) {
            Need::Nothing => {}
            Need::Receive(mode) => self.arm_receive(key, mode),
            Need::Cancel => self.cancel_receive(key),
            Need::LastRead => {
                if self.last_read(key) == LastParse::Done {
                    self.core.finish_takeover(key);
                }
            }
        }
    }

    fn arm_receive(&mut self, key: Key, mode: ReceiveMode) {
        let Some(connection) = self.core.connections.get_mut(key) else { return };
        connection.receive_armed = true;
        self.io.receive(&connection.socket, Token::new(key), mode);
        self.core.counters().receives_total.add(1);
    }

    fn cancel_receive(&mut self, key: Key) {
        let Some(connection) = self.core.connections.get_mut(key) else { return };
        connection.cancel_in_flight = true;
        self.io.receive_cancel(Token::new(key));
    }

    /// Takes what the kernel already has for a connection that is being taken over, so that a DISCONNECT which was
    /// sent before the new CONNECT never turns into a will. Bounded by [`LAST_READ_MAX`].
    fn last_read(&mut self, key: Key) -> LastParse {
        let core = &mut self.core;
        let max = LAST_READ_MAX;
        let Some(connection) = core.connections.get_mut(key) else { return LastParse::Done };
        let mut bytes = std::mem::take(&mut connection.partial);
        if connection.transport.is_some() {
            self.last_read_layered(key, &mut bytes, max);
        } else {
            let mut read = 0;
            while read < max && !connection.eof {
                match self.io.read_now(&connection.socket, &mut bytes, (max - read).min(64 * 1024)) {
                    ReadNow::Bytes(count) => read += count,
                    ReadNow::Eof | ReadNow::Error(_) => connection.eof = true,
                    ReadNow::WouldBlock => break,
                }
            }
            core.counters[usize::from(core.id)].bytes_received_total.add(read as u64);
        }
        self.core.hear();
        let done = self.core.parse_last(key, &bytes);
        self.flush_mesh(); // before its acknowledgements are sent
        done
    }

    fn tend_closing(&mut self, key: Key, step: Closing) {
        let core = &mut self.core;
        let Some(connection) = core.connections.get_mut(key) else { return };
        match step {
            Closing::Flush => {
                if connection.send_in_flight {
                    return;
                }
                // tend_send has sent whatever there was.
                self.io.shutdown(&connection.socket, Shutdown::Write);
                connection.phase = Phase::Closing(Closing::Drain);
                self.tend_closing(key, Closing::Drain);
            }
            Closing::Drain => {
                if connection.eof {
                    connection.phase = Phase::Closing(Closing::Abort);
                    self.tend_closing(key, Closing::Abort);
                } else if !connection.receive_armed && !connection.cancel_in_flight {
                    self.arm_receive(key, ReceiveMode::Many);
                }
            }
            Closing::Abort => {
                if connection.is_at_rest() {
                    self.close(key);
                    return;
                }
                if connection.send_in_flight {
                    self.io.shutdown(&connection.socket, Shutdown::Both);
                }
                if connection.receive_armed && !connection.cancel_in_flight {
                    self.cancel_receive(key);
                }
            }
        }
    }

    fn close(&mut self, key: Key) {
        let core = &mut self.core;
        let Some(mut connection) = core.connections.remove(key) else { return };
        if let Some(listening) = core.listening.get(usize::from(connection.listener.0)) {
            listening.leave();
        }
        connection.release_receive(&mut core.budget);
        core.budget.release(Class::Send, connection.charged_send as usize);
        self.io.close(connection.socket);
    }

    fn tend_listeners(&mut self) {
        self.close_silent();
        let core = &mut self.core;
        if core.stop.is_stopping() {
            return;
        }
        let crowded = core.hand_offs.len() >= core.options.hand_offs_max;
        for (index, listener) in core.listeners.iter_mut().enumerate() {
            let id = ListenerId(index as u16);
            if matches!(*listener, Listener::Resting(until) if until <= core.now) {
                *listener = Listener::Ended;
            }
            match *listener {
                Listener::Accepting if crowded => {
                    *listener = Listener::Cancelling;
                    core.counters[usize::from(core.id)].accept_holds_total.add(1);
                    self.io.accept_cancel(id);
                }
                Listener::Ended if !crowded => {
                    *listener = Listener::Accepting;
                    self.io.accept(id);
                }
                Listener::Accepting
                | Listener::Cancelling
                | Listener::Ended
                | Listener::Resting(_)
                | Listener::Closing
                | Listener::Silent
                | Listener::Closed => {}
            }
        }
    }
}

impl Core {
    fn receive_need(&self, key: Key) -> Need {
        let Some(connection) = self.connections.get(key) else { return Need::Nothing };
        let idle = !connection.receive_armed && !connection.cancel_in_flight;
        match &connection.phase {
            // What was received may have to wait for the end of a handshake.
            Phase::Opening
                if connection.transport.as_ref().is_some_and(|transport| transport.is_waiting()) =>
            {
                Need::Nothing
            }
            Phase::Opening if idle && !connection.eof => Need::Receive(ReceiveMode::Once),
            Phase::Live(live) if live.taken_over => {
                if idle && matches!(live.blocked(), Some(Blocked::Fence(..))) {
                    Need::Nothing // a switch takes a moment; the deadline of the takeover is there for more
                } else if idle {
                    Need::LastRead
                } else if connection.receive_armed && !connection.cancel_in_flight {
                    Need::Cancel
                } else {
                    Need::Nothing
                }
            }
            Phase::Live(live) if live.blocked().is_some() => {
                // Who is held back may be so for long, and what is kept of it is charged.
                let crowded =
                    connection.is_held_back() || connection.partial.len() >= self.options.paused_bytes_max;
                if crowded && connection.receive_armed && !connection.cancel_in_flight {
                    Need::Cancel
                } else {
                    Need::Nothing
                }
            }
            // It does not read what it is answered: then it is not read either, until it does.
            Phase::Live(_) if connection.is_clogged(self.limits.send_buffer_bytes_max) => {
                if connection.receive_armed && !connection.cancel_in_flight {
                    Need::Cancel
                } else {
                    Need::Nothing
                }
            }
            Phase::Live(_) if idle && !connection.eof => Need::Receive(ReceiveMode::Many),
            Phase::Opening
            | Phase::Verifying(_)
            | Phase::HandOff
            | Phase::Waiting(_)
            | Phase::Live(_)
            | Phase::Closing(_) => Need::Nothing,
        }
    }

    /// Charges what waits behind a send in flight. A connection that cannot be charged has no send room until it has
    /// sent everything (see [`super::connection::Connection::send_room`]).
    pub(super) fn charge_send(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let waiting = if connection.send_in_flight {
            connection.in_flight_bytes as usize + connection.outbox.len()
        } else {
            0
        };
        if let Some(lent) = &mut connection.lent {
            lent.bytes = lent.bytes.min(waiting.saturating_sub(self.limits.send_buffer_bytes_max as usize));
            if lent.bytes == 0 {
                connection.lent = None;
            }
        }
        let charged = connection.charged_send as usize;
        if waiting <= charged {
            self.budget.release(Class::Send, charged - waiting);
            connection.starved &= waiting > 0;
        } else if !self.budget.charge(Class::Send, waiting - charged) {
            self.budget.charge_always(Class::Send, waiting - charged);
            connection.starved = true;
        }
        connection.charged_send = waiting as u32; // two send buffers, what is lent, and a turn's answers
    }

    /// Keeps a sent buffer for the next connection.
    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        if buffer.capacity() > 0
            && buffer.capacity() <= SPARE_BUFFER_BYTES_MAX
            && self.spare_buffers.len() < SPARE_BUFFERS_MAX
        {
            self.spare_buffers.push(buffer);
        }
    }

    /// Ends a connection whose logical end was dealt with already.
    pub(super) fn start_closing(&mut self, key: Key, step: Closing) {
        let linger = self.now + self.options.linger_ms;
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let Some(live) = connection.live() {
            self.told.forget(live.link.terms);
        }
        connection.phase = Phase::Closing(step);
        connection.partial = Vec::new();
        connection.release_receive(&mut self.budget);
        if step == Closing::Abort {
            connection.outbox.clear();
        }
        self.set_deadline(key, linger);
        self.mark_dirty(key);
    }

    pub(super) fn set_deadline(&mut self, key: Key, at: Millis) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.deadline = at;
        if at < connection.timer_at {
            connection.timer_at = at;
            self.timers.set(at, Timer::Connection(key).pack());
        }
    }

    /// A timer of the connection fired: act if its deadline has come, set the next one otherwise.
    pub(super) fn connection_due(&mut self, key: Key) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.timer_at > now {
            return; // a later timer than the earliest: superseded
        }
        connection.timer_at = crate::clock::NEVER;
        let owes = connection.is_unheard(self.limits.send_buffer_bytes_max);
        let heard_until = connection.heard_until();
        if let Phase::Live(live) = &mut connection.phase
            && !live.taken_over
            && live.keep_alive_s > 0
        {
            // [MQTT-3.1.2-22]; 3.1.1: [311:MQTT-3.1.2-24]. A paused connection is not read, so its silence is ours. So is
            // that of one that owes us reading, but only while it goes on reading.
            let is_paused = live.blocked().is_some_and(|blocked| !matches!(blocked, Blocked::Output));
            connection.deadline = if is_paused { now + live.idle_max_ms() } else { heard_until };
            if !is_paused && (owes || connection.deadline <= now) {
                self.silent.push(key);
                return;
            }
            live.unsent_bytes = None;
        }
        let deadline = connection.deadline;
        if deadline > now {
            if deadline != crate::clock::NEVER {
                self.set_deadline(key, deadline);
            }
            return;
        }
        self.deadline_passed(key);
    }
}

/// Whether something goes on when the connection has sent what it was just given. Where nothing does, the end of that send
/// need not wake the shard: whatever does so next finds it.
#[inline]
fn awaits_sent(connection: &Connection, sessions: &Arena<Slot>, limits: &Limits) -> bool {
    let Some(live) = connection.live() else { return true };
    let waits = connection.starved
        || connection.broken
        || connection.has_output()
        || connection.is_clogged(limits.send_buffer_bytes_max)
        || live.blocked().is_some()
        || live.taken_over;
    let session = sessions.get(live.session);
    waits || session.is_none_or(|slot| slot.session.is_waiting() || slot.cursors.is_some())
}
