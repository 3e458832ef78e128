//! The clients of a shard: their network connections, what is to be sent to them, and the listening sockets they come from.
//! It knows no session but by its key.
//!
//! A connection lives and ends here. What its end means to its session is said as a value, [`Ended`], which the turn takes
//! from [`Clients::ended`].

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::clock::{Millis, NEVER};
use crate::io::{ListenerId, ReceiveMode};
use crate::memory::{Arena, Class, Key, ShardSet};
use crate::wire::{self, Reason, Version};

use super::connection::{Closing, Connection, End, Live, Phase};
use super::env::Env;
use super::events;
use super::listeners::Listening;
use super::terms::Told;
use super::transports::Handshakes;
use super::waits::{Blocked, Wait};
use super::{Listener, Timer, filters};

/// Buffers that are kept for reuse, and the largest that is.
const SPARE_BUFFERS_MAX: usize = 1024;
const SPARE_BUFFER_BYTES_MAX: usize = 64 * 1024;

pub(super) struct Clients {
    pub connections: Arena<Connection>,
    /// Connections whose operations may have to change.
    pub dirty: Vec<Key>,
    /// Connections that have ended, and whose sessions do not know it yet.
    pub ended: VecDeque<Ended>,
    /// Send buffers for reuse.
    pub spare_buffers: Vec<Vec<u8>>,
    /// Whose Keep Alive may have passed; what their sockets hold is looked at before they are closed.
    pub silent: Vec<Key>,
    /// Connections with a SUBSCRIBE or UNSUBSCRIBE that is acted upon in slices.
    pub filters: filters::Line,
    /// Accepted connections that wait for room on the way home.
    pub hand_offs: VecDeque<Key>,
    /// Connections that nothing is sent to before this commit is on disk, in its order.
    pub shut: VecDeque<(Key, u64)>,
    pub told: Told,
    pub handshakes: Handshakes,
    /// Bytes of the newest turn's sends whose end nobody waits for: charged, but shown as sent until a turn looks.
    pub quiet_bytes: u64,
    /// Whether each listening socket accepts.
    pub listeners: Vec<Listener>,
    /// What is behind them.
    pub listening: Vec<Listening>,
}

/// A connection that had a session, or waited for one, and has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub connection: Key,
    pub session: Key,
    pub end: End,
    /// It had the session; else it waited for it.
    pub was_live: bool,
}

/// A deadline that passed, and that more than the connection has to do with.
#[derive(Debug)]
pub(super) enum Overdue {
    /// The connection has waited long enough for the end of another one that has this session.
    Takeover { session: Key },
}

/// What a connection needs on its way in.
pub(super) enum Need {
    Nothing,
    Receive(ReceiveMode),
    Cancel,
    LastRead,
}

impl Clients {
    pub fn new(env: &Env, listening: Vec<Listening>) -> Clients {
        Clients {
            connections: Arena::with_capacity(env.options.clients_expected),
            dirty: Vec::new(),
            ended: VecDeque::new(),
            spare_buffers: Vec::new(),
            silent: Vec::new(),
            filters: filters::Line::new(),
            hand_offs: VecDeque::new(),
            shut: VecDeque::new(),
            told: Told::default(),
            handshakes: Handshakes::default(),
            quiet_bytes: 0,
            listeners: vec![Listener::Accepting; listening.len()],
            listening,
        }
    }

    /// What holds while this connection's client is connected.
    #[inline]
    pub fn live(&self, key: Key) -> Option<&Live> {
        self.connections.get(key)?.live()
    }

    #[inline]
    pub fn live_mut(&mut self, key: Key) -> Option<&mut Live> {
        self.connections.get_mut(key)?.live_mut()
    }

    /// The operations of this connection may have to change.
    #[inline]
    pub fn mark_dirty(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push(key);
        }
    }

    // ---- what is to be sent ------------------------------------------------------------------------------------------

    /// Stages a packet for the client.
    /// Nothing here is larger than it has to be: no Reason String, no User Property. // [MQTT-3.4.2-2] [MQTT-3.4.2-3]
    /// [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3] [MQTT-3.7.2-2] [MQTT-3.7.2-3] [MQTT-3.9.2-1]
    /// [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2] [MQTT-3.14.2-4]
    pub fn stage(&mut self, key: Key, env: &Env, encode: impl FnOnce(&mut Vec<u8>)) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let packet_size_max = connection.live().map_or(u32::MAX, |live| live.link.packet_size_max);
        connection.outbox.provide(&mut self.spare_buffers);
        let out = connection.outbox.bytes_mut();
        let start = out.len();
        encode(out);
        if out.len() - start > packet_size_max as usize {
            out.truncate(start); // [MQTT-3.1.2-24] [MQTT-3.1.2-25]
            return;
        }
        env.counters().packets_sent_total.add(1);
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(key);
        }
    }

    /// Keeps a sent buffer for the next connection.
    #[inline]
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        if buffer.capacity() > 0
            && buffer.capacity() <= SPARE_BUFFER_BYTES_MAX
            && self.spare_buffers.len() < SPARE_BUFFERS_MAX
        {
            self.spare_buffers.push(buffer);
        }
    }

    /// A connection with nothing to send keeps no buffer.
    pub fn reclaim(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key) {
            let buffer = connection.outbox.reclaim();
            self.recycle(buffer);
        }
    }

    /// Charges what waits behind a send in flight. A connection that cannot be charged has no send room until it has
    /// sent everything (see [`Connection::send_room`]).
    pub fn charge_send(&mut self, key: Key, env: &mut Env) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let waiting = if connection.send_in_flight {
            connection.in_flight_bytes as usize + connection.outbox.len()
        } else {
            0
        };
        if let Some(lent) = &mut connection.lent {
            lent.bytes = lent.bytes.min(waiting.saturating_sub(env.limits.send_buffer_bytes_max as usize));
            if lent.bytes == 0 {
                connection.lent = None;
            }
        }
        let charged = connection.charged_send as usize;
        if waiting <= charged {
            env.budget.release(Class::Send, charged - waiting);
            connection.starved &= waiting > 0;
        } else if !env.budget.charge(Class::Send, waiting - charged) {
            env.budget.charge_always(Class::Send, waiting - charged);
            connection.starved = true;
        }
        connection.charged_send = waiting as u32; // two send buffers, what is lent, and a turn's answers
    }

    /// Stops answering a client that has much to read first, and says so: a turn may have received much from it, and
    /// from thousands like it, once the memory for sending is used up.
    #[inline(never)]
    pub fn holds_back(&mut self, key: Key, env: &mut Env) -> bool {
        let Some(connection) = self.connections.get_mut(key) else { return false };
        let waiting = connection.outbox.len() + connection.in_flight_bytes as usize;
        let more = waiting.saturating_sub(connection.charged_send as usize);
        connection.starved |= !env.budget.has_room(Class::Send, more);
        // What a client said before it left is acted upon, though nobody reads the answers.
        let leaves = connection.eof || connection.broken;
        if leaves || !connection.is_clogged(env.limits.send_buffer_bytes_max) {
            return false;
        }
        let Some(live) = connection.live_mut() else { return false };
        let _ = live.block(Blocked::Output);
        self.mark_dirty(key);
        true
    }

    // ---- what is kept on the way in ----------------------------------------------------------------------------------

    /// Keeps a packet that is not whole, or may not be acted upon yet.
    pub fn keep(&mut self, key: Key, partial: Vec<u8>, env: &mut Env) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.partial = partial;
            connection.heard_bytes(env.now);
            self.charge_receive(key, env);
        }
    }

    /// Charges what a connection keeps on the way in; ends it where there is no memory for that.
    pub fn charge_receive(&mut self, key: Key, env: &mut Env) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let (kept, login) = connection.kept_bytes();
        let charged = connection.charged_receive as usize;
        if kept <= charged {
            env.budget.release(Class::Receive, charged - kept);
            connection.charged_receive = kept as u32; // no larger than what is charged
        } else if kept <= u32::MAX as usize && env.budget.charge(Class::Receive, kept - charged) {
            connection.charged_receive = kept as u32;
        } else {
            env.counters().dropped_receive_memory_total.add(1);
            let why = "memory for partial packets is used up";
            return self.end(key, End::Refused(Reason::QUOTA_EXCEEDED, why), env);
        }
        if login != connection.charged_login as usize {
            self.charge_login(key, login, env);
        }
    }

    /// Charges what a connection keeps whose client is not logged in.
    #[inline(never)]
    fn charge_login(&mut self, key: Key, kept: usize, env: &mut Env) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let charged = connection.charged_login as usize;
        if kept <= charged {
            env.budget.release(Class::Login, charged - kept);
        } else if !env.budget.charge(Class::Login, kept - charged) {
            return self.refuse_unfinished_connect(key, env);
        }
        connection.charged_login = kept as u32; // a CONNECT and a receive buffer
    }

    /// Whether a connection is to be read, or not any more.
    pub fn receive_need(&self, key: Key, env: &Env) -> Need {
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
                if idle && matches!(live.blocked(), Some(Blocked::Switch(Wait::Fence(_), _))) {
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
                // A connection that is held back may be so for long, and what is kept of it is charged.
                let crowded =
                    connection.is_held_back() || connection.partial.len() >= env.options.paused_bytes_max;
                if crowded && connection.receive_armed && !connection.cancel_in_flight {
                    Need::Cancel
                } else {
                    Need::Nothing
                }
            }
            // It does not read what it is answered: then it is not read either, until it does.
            Phase::Live(_) if connection.is_clogged(env.limits.send_buffer_bytes_max) => {
                if connection.receive_armed && !connection.cancel_in_flight {
                    Need::Cancel
                } else {
                    Need::Nothing
                }
            }
            Phase::Live(_) if idle && !connection.eof => Need::Receive(ReceiveMode::Many),
            Phase::Opening
            | Phase::Verifying(_)
            | Phase::HandOff(_)
            | Phase::Waiting(_)
            | Phase::Live(_)
            | Phase::Closing(_) => Need::Nothing,
        }
    }

    // ---- the end of a connection -------------------------------------------------------------------------------------

    /// Ends a connection: a v5 client is told why if we are the ones who end it, and what is staged is sent unless the peer
    /// is gone. Its session learns of it by [`Clients::ended`].
    /// After DISCONNECT nothing more is staged, and we close. // [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-3.14.2-2]
    /// A DISCONNECT goes only to a client whose CONNECT was accepted, and never to 3.x. // [MQTT-3.14.0-1] [U5-4.13-1]
    /// [U5-3.14.4-1]; 3.1.1: [U311-3.14-1] [U311-3.14.4-1]
    pub fn end(&mut self, key: Key, end: End, env: &mut Env) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.is_closing() {
            if matches!(end, End::Lost | End::Told) {
                self.start_closing(key, Closing::Abort, env);
            }
            return;
        }
        let (session, was_live) = (connection.session(), connection.live().is_some());
        if !was_live {
            events::left(connection, end, env.is_stopping);
        }
        let disconnect = match end {
            End::Refused(reason, detail) => Some((reason, Some(detail))),
            End::TakenOver => Some((Reason::SESSION_TAKEN_OVER, None)), // [MQTT-3.1.4-3]
            End::Disconnected | End::DisconnectedWithWill | End::Lost | End::Told => None,
        };
        if let (Phase::Live(live), Some((reason, text))) = (&connection.phase, disconnect)
            && live.link.version == Version::V5
        {
            let packet_size_max = live.link.packet_size_max;
            let out = connection.outbox.bytes_mut();
            let start = out.len();
            wire::encode_disconnect(out, reason, text, packet_size_max);
            let written = u64::from(out.len() > start);
            env.counters().packets_sent_total.add(written);
        }
        // A client that only ended its own side may still read what it is to be sent.
        let step = match end {
            End::Lost | End::Told if !connection.is_half_closed() => Closing::Abort,
            _ => Closing::Flush,
        };
        self.start_closing(key, step, env);
        if let Some(session) = session {
            self.ended.push_back(Ended { connection: key, session, end, was_live });
        }
    }

    /// Closes a connection whose client was told everything.
    pub fn start_closing(&mut self, key: Key, step: Closing, env: &mut Env) {
        let linger = env.now + env.options.linger_ms;
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let Some(live) = connection.live() {
            self.told.forget(live.link.terms);
        }
        connection.phase = Phase::Closing(step);
        connection.partial = Vec::new();
        connection.release_receive(&mut env.budget);
        if step == Closing::Abort {
            connection.outbox.clear();
        }
        self.set_deadline(key, linger, env);
        self.mark_dirty(key);
    }

    /// Ends a connection from which no CONNECT came that could be acted upon.
    pub fn turn_away(&mut self, key: Key, why: &'static str, env: &mut Env) {
        if let Some(connection) = self.connections.get(key) {
            events::no_connect(connection, why);
        }
        self.end(key, End::Told, env);
    }

    // ---- deadlines ---------------------------------------------------------------------------------------------------

    pub fn set_deadline(&mut self, key: Key, at: Millis, env: &mut Env) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.deadline = at;
        if at < connection.timer_at {
            connection.timer_at = at;
            env.set_timer(at, Timer::Connection(key));
        }
    }

    /// A timer of the connection fired: acts if its deadline has come, and sets the next one otherwise.
    #[must_use]
    pub fn connection_due(&mut self, key: Key, env: &mut Env) -> Option<Overdue> {
        let now = env.now;
        let connection = self.connections.get_mut(key)?;
        if connection.timer_at > now {
            return None; // a later timer than the earliest: superseded
        }
        connection.timer_at = NEVER;
        let owes = connection.is_unheard(env.limits.send_buffer_bytes_max);
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
                return None;
            }
            live.unsent_bytes = None;
        }
        let deadline = connection.deadline;
        if deadline > now {
            if deadline != NEVER {
                self.set_deadline(key, deadline, env);
            }
            return None;
        }
        self.deadline_passed(key, env)
    }

    /// A deadline passed that nothing moved on.
    pub fn deadline_passed(&mut self, key: Key, env: &mut Env) -> Option<Overdue> {
        let connection = self.connections.get_mut(key)?;
        match &connection.phase {
            Phase::Opening | Phase::HandOff(_) => {
                let why = connection.late();
                env.counters().connect_timeouts_total.add(1); // [U5-3.1.0-1]
                self.turn_away(key, why, env);
            }
            Phase::Verifying(_) => self.refuse_unverified(key, env),
            Phase::Waiting(successor) => {
                let session = successor.session;
                // Others may be served before it, each of whom has to end then.
                self.set_deadline(key, env.now + env.options.takeover_ms, env);
                return Some(Overdue::Takeover { session });
            }
            Phase::Live(_) => {
                env.counters().keep_alive_timeouts_total.add(1);
                let why = "no packet within 1.5 times the Keep Alive";
                self.end(key, End::Refused(Reason::KEEP_ALIVE_TIMEOUT, why), env);
            }
            Phase::Closing(_) => {
                connection.phase = Phase::Closing(Closing::Abort);
                self.mark_dirty(key);
            }
        }
        None
    }

    // ---- publishing --------------------------------------------------------------------------------------------------

    /// A connection's messages went to these shards.
    #[inline]
    pub fn touch(&mut self, key: Key, touched: ShardSet) {
        if !touched.is_empty()
            && let Some(live) = self.live_mut(key)
        {
            live.touched = live.touched.union(touched);
        }
    }

    /// Where a connection comes from.
    pub fn address(&self, key: Key) -> Option<SocketAddr> {
        self.connections.get(key).map(|connection| connection.peer())
    }

    /// Bytes that the socket of a connection did not take yet. What this turn has staged is on its way.
    pub fn sending_bytes(&self, key: Key) -> u64 {
        let connection = self.connections.get(key).filter(|connection| connection.send_in_flight);
        connection.map_or(0, |it| it.in_flight_bytes as u64 + it.outbox.len() as u64)
    }

    /// A cancelled receive is over.
    pub fn cancel_ended(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.cancel_in_flight = false;
            self.mark_dirty(key);
        }
    }

    /// Where a connection was accepted.
    pub fn listener_of(&self, key: Key) -> Option<ListenerId> {
        self.connections.get(key).map(|connection| connection.listener)
    }
}
