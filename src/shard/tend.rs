//! Brings the operations of each dirty connection in line with its phase: receives armed or cancelled, one send for
//! everything that this turn staged, the steps of a close. The only place that asks `Io` for anything about a socket.

use std::num::NonZeroU32;

use crate::clock::Millis;
use crate::io::{Io, ListenerId, ReadNow, ReceiveMode, Shutdown, Token};
use crate::limits::Limits;
use crate::memory::{Arena, Class, Key};

use super::clients::Need;
use super::connection::{Closing, Connection, Phase};
use super::ingress::LastParse;
use super::order::Intake;
use super::slots::Slot;
use super::{Listener, Shard};

/// Bytes read from a connection that is taken over: more than a kernel keeps for one socket (6 MiB by default), so that
/// only a client that goes on sending meets this bound.
const LAST_READ_MAX: usize = 16 << 20;

/// Looks within a Keep Alive at the socket of somebody who seems to be silent.
const LOOKS: Millis = 4;

impl<I: Io> Shard<I> {
    /// Once per turn, after all handlers.
    pub(super) fn tend_dirty(&mut self, intake: &mut Intake) {
        self.tend_listeners();
        if !self.core.local.clients.silent.is_empty() {
            self.look_at_the_silent(intake);
        }
        // Those whose end was reaped are dirty, and charged for what is left; the others are known to be held now.
        self.core.local.clients.quiet_bytes = 0;
        let mut dirty = std::mem::take(&mut self.core.local.clients.dirty);
        for key in dirty.drain(..) {
            self.tend(key, intake);
            if !self.core.local.clients.ended.is_empty() {
                let heard = self.core.hear(intake);
                self.core.settle(heard);
            }
        }
        // What tending marked anew waits for the next turn; keep the larger list's memory.
        if self.core.local.clients.dirty.is_empty() {
            self.core.local.clients.dirty = dirty;
        }
    }

    /// Whose Keep Alive has passed, as far as it was heard.
    ///
    /// What has come, but was not read yet, counts: this process may have been stopped, or its machine.
    ///
    /// Who does not read what it is answered is not read either, so its Keep Alive counts from when its peer last took
    /// something. A completion may be long in coming: a kernel reports room only when a third of its buffer is free. So it is
    /// asked several times in a Keep Alive.
    fn look_at_the_silent(&mut self, intake: &Intake) {
        let heard = self.core.hear(intake);
        let mut silent = std::mem::take(&mut self.core.local.clients.silent);
        for key in silent.drain(..) {
            let core = &mut self.core;
            let Some(connection) = core.local.clients.connections.get_mut(key) else { continue };
            let owes = connection.is_unheard(core.local.env.limits.send_buffer_bytes_max);
            let Phase::Live(live) = &mut connection.phase else { continue };
            let speaks = if owes {
                let unsent = self.io.unsent(&connection.socket);
                let before = std::mem::replace(&mut live.unsent_bytes, unsent.and_then(NonZeroU32::new));
                if matches!((before, unsent), (Some(before), Some(unsent)) if unsent < before.get()) {
                    live.last_packet_at = core.local.env.now;
                }
                before.is_none() && unsent.is_some() // the first look says nothing yet
            } else {
                matches!(self.io.unread(&connection.socket), Some(1..))
            };
            let idle_max_ms = live.idle_max_ms();
            if !speaks && connection.heard_until() <= core.local.env.now {
                let overdue = core.local.clients.deadline_passed(key, &mut core.local.env);
                core.act_on(overdue, heard);
            } else {
                core.local.clients.set_deadline(
                    key,
                    core.local.env.now + (idle_max_ms / LOOKS).max(1),
                    &mut core.local.env,
                );
            }
        }
        self.core.local.clients.silent = silent;
    }

    fn tend(&mut self, key: Key, intake: &mut Intake) {
        let Some(connection) = self.core.local.clients.connections.get_mut(key) else { return };
        connection.dirty = false;
        // At home and not going anywhere, and no operation that may not even be submitted yet names the socket.
        if connection.is_at_rest() && connection.live().is_some() {
            self.io.settle(&mut connection.socket);
        }
        self.tend_send(key);
        let Some(connection) = self.core.local.clients.connections.get(key) else { return };
        match connection.phase {
            Phase::Closing(step) => self.tend_closing(key, step),
            Phase::Opening | Phase::Verifying(_) | Phase::HandOff(_) | Phase::Waiting(_) | Phase::Live(_) => {
                self.tend_receive(key, intake)
            }
        }
    }

    /// One send for everything that is staged.
    fn tend_send(&mut self, key: Key) {
        let core = &mut self.core;
        let Some(connection) = core.local.clients.connections.get_mut(key) else { return };
        if connection.broken {
            connection.outbox.clear();
        }
        if connection.send_in_flight
            || connection.is_shut
            || !connection.has_output()
            || matches!(connection.phase, Phase::Closing(Closing::Drain | Closing::Abort))
        {
            core.local.clients.charge_send(key, &mut core.local.env);
            return;
        }
        let mut emptied = Vec::new();
        let mut batch = connection.outbox.take(Vec::new());
        if let Some(transport) = &mut connection.transport {
            emptied = core.local.clients.spare_buffers.pop().unwrap_or_default();
            batch = transport.write(batch, &connection.phase, &mut emptied);
            if batch.remaining() == 0 {
                core.local.clients.recycle(batch.into_buffer());
                core.local.clients.recycle(emptied);
                return core.local.clients.charge_send(key, &mut core.local.env);
            }
        }
        connection.in_flight_bytes = batch.remaining() as u32;
        connection.send_in_flight = true;
        core.local.env.counters[usize::from(core.local.env.id)].sends_total.add(1);
        if connection.sends_in_parts(batch.remaining(), core.local.env.limits.send_buffer_bytes_max) {
            self.io.send_in_parts(&connection.socket, Token::new(key), batch);
        } else if core.local.env.is_stopping
            || awaits_sent(connection, &core.local.sessions.arena, &core.local.env.limits)
        {
            self.io.send(&connection.socket, Token::new(key), batch);
        } else {
            core.local.clients.quiet_bytes += batch.remaining() as u64;
            self.io.send_unawaited(&connection.socket, Token::new(key), batch);
        }
        core.local.clients.recycle(emptied);
        core.local.clients.charge_send(key, &mut core.local.env);
    }

    fn tend_receive(&mut self, key: Key, intake: &mut Intake) {
        match self.core.local.clients.receive_need(key, &self.core.local.env) {
            Need::Nothing => {}
            Need::Receive(mode) => self.arm_receive(key, mode),
            Need::Cancel => self.cancel_receive(key),
            Need::LastRead => {
                if self.last_read(key, intake) == LastParse::Done {
                    self.core.local.clients.finish_takeover(key, &mut self.core.local.env);
                }
            }
        }
    }

    fn arm_receive(&mut self, key: Key, mode: ReceiveMode) {
        let Some(connection) = self.core.local.clients.connections.get_mut(key) else { return };
        connection.receive_armed = true;
        self.io.receive(&connection.socket, Token::new(key), mode);
        self.core.local.env.counters().receives_total.add(1);
    }

    fn cancel_receive(&mut self, key: Key) {
        let Some(connection) = self.core.local.clients.connections.get_mut(key) else { return };
        connection.cancel_in_flight = true;
        self.io.receive_cancel(Token::new(key));
    }

    /// Takes what the kernel already has for a connection that is being taken over, so that a DISCONNECT which was
    /// sent before the new CONNECT never turns into a will. Bounded by [`LAST_READ_MAX`].
    fn last_read(&mut self, key: Key, intake: &mut Intake) -> LastParse {
        let core = &mut self.core;
        let max = LAST_READ_MAX;
        let Some(connection) = core.local.clients.connections.get_mut(key) else { return LastParse::Done };
        let mut bytes = std::mem::take(&mut connection.partial);
        if connection.transport.is_some() {
            self.last_read_layered(key, &mut bytes, max, intake);
        } else {
            let mut read = 0;
            while read < max && !connection.eof {
                let most = (max - read).min(64 * 1024);
                match intake.read_now(&mut self.io, &connection.socket, &mut bytes, most) {
                    ReadNow::Bytes(count) => read += count,
                    ReadNow::Eof | ReadNow::Error(_) => connection.eof = true,
                    ReadNow::WouldBlock => break,
                }
            }
            core.local.env.counters[usize::from(core.local.env.id)].bytes_received_total.add(read as u64);
        }
        let heard = self.core.hear(intake);
        let done = self.core.parse_last(key, &bytes, heard);
        self.flush_mesh(); // before its acknowledgements are sent
        done
    }

    fn tend_closing(&mut self, key: Key, step: Closing) {
        let core = &mut self.core;
        let Some(connection) = core.local.clients.connections.get_mut(key) else { return };
        match step {
            Closing::Flush => {
                // What waits for the disk is sent before the end, or given up when the time to linger is over.
                if connection.send_in_flight || connection.is_shut && connection.has_output() {
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
        let Some(mut connection) = core.local.clients.connections.remove(key) else { return };
        if let Some(listening) = core.local.clients.listening.get(usize::from(connection.listener.0)) {
            listening.leave();
        }
        connection.release_receive(&mut core.local.env.budget);
        core.local.env.budget.release(Class::Send, connection.charged_send as usize);
        self.io.close(connection.socket);
    }

    fn tend_listeners(&mut self) {
        self.close_silent();
        let core = &mut self.core;
        if core.local.env.is_stopping || !core.advance_start() {
            return;
        }
        let crowded = core.local.clients.hand_offs.len() >= core.local.env.options.hand_offs_max;
        for (index, listener) in core.local.clients.listeners.iter_mut().enumerate() {
            let id = ListenerId(index as u16);
            if matches!(*listener, Listener::Resting(until) if until <= core.local.env.now) {
                *listener = Listener::Ended;
            }
            match *listener {
                Listener::Accepting if crowded => {
                    *listener = Listener::Cancelling;
                    core.local.env.counters[usize::from(core.local.env.id)].accept_holds_total.add(1);
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
