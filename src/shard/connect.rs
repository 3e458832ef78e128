//! CONNECT: the way home, the takeover of a session, and CONNACK.
//!
//! Any shard accepts. The one that reads a CONNECT either owns the session or hands the connection to the shard that
//! does, with everything that was read, before anything of it is acted upon. At home a CONNECT whose session still has
//! a connection waits until that one has ended: its receive is cancelled, what the kernel has of it is read and acted
//! upon, its will is decided. So a DISCONNECT that was sent before the new CONNECT never turns into a will. Several
//! CONNECTs for one session are served one after the other. A session belongs to the user that began it: nobody else
//! takes it over, resumes or ends it, unless that user exists no more and the other wants a Clean Start.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::access::Identity;
use crate::clock::Millis;
use crate::log::Kind;
use crate::memory::Key;
use crate::session::Link;
use crate::topic::{self, Presence};
use crate::wire::{
    self, ConnAck, ConnAckEncoded, Connect, ConnectError, DecodeLimits, LengthForm, NextFrame, Opening,
    Reason, Version,
};

use super::connection::{Closing, Connection, End, Live, Mode, Phase, Refusal, Successor};
use super::events::Who;
use super::login::Identified;
use super::parcel::{HandOff, Parcel};
use super::terms::Terms;
use super::{Core, strangers};
use crate::memory::ShardSet;

/// A session belongs to the user that began it.
pub(super) const ANOTHERS: Refusal = (Reason::NOT_AUTHORIZED, "the session is another user's");

/// Connections that waited for their session and are accepted in one turn.
const SERVED_BUDGET: usize = 256;

impl Core {
    /// Looks whether the bytes of a new connection hold its CONNECT, and acts on it.
    pub(super) fn try_connect(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if !matches!(connection.phase, Phase::Opening) {
            return;
        }
        let bytes = std::mem::take(&mut connection.partial);
        let home = self.read_connect(key, &bytes);
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.is_closing() {
            return;
        }
        connection.partial = bytes;
        match home {
            None => self.mark_dirty(key), // not whole yet: receive more
            Some(home) => self.go_home(key, home, self.now),
        }
    }

    /// The client is known; its connection goes where its session is. Its CONNECT was read at `connected_at`.
    pub(super) fn go_home(&mut self, key: Key, home: crate::memory::ShardId, connected_at: Millis) {
        if home == self.id {
            self.arrive(key, connected_at);
        } else {
            self.send_home(key, home, connected_at);
        }
    }

    /// The home of the client whose CONNECT is at the front of `bytes`; `None` if it is not whole yet, or it is not known yet
    /// who sent it. Refuses what cannot be accepted anywhere.
    /// [MQTT-3.1.4-1]
    fn read_connect(&mut self, key: Key, bytes: &[u8]) -> Option<crate::memory::ShardId> {
        let size_max = self.connect_packet_size_max(key);
        let frame = match wire::next_frame(bytes, size_max, LengthForm::Any) {
            Ok(NextFrame::Frame(frame)) => frame,
            Ok(NextFrame::Incomplete { .. }) => {
                // [MQTT-3.1.0-1]: nothing is sent to who begins with something else
                if let Err(error) = wire::look_at_connect(bytes) {
                    self.refuse_first_packet(key, bytes, error);
                }
                return None;
            }
            Err(error) => {
                match wire::look_at_connect(bytes) {
                    // The next bytes say in which version it is answered; they are few, and have to come in time.
                    Ok(Opening::Unknown) => {}
                    Ok(Opening::Of(version)) => {
                        self.refuse_first_packet(key, bytes, ConnectError::of(version, error));
                    }
                    // Another protocol, or a length that cannot be.
                    Err(_) if bytes.first().is_some_and(|first| first >> 4 == 1) => {
                        self.refuse_unread(key, strangers::not_framed(error));
                    }
                    Err(error) => self.refuse_first_packet(key, bytes, error),
                }
                return None;
            }
        };
        match wire::decode_connect(&frame, &self.decode_limits) {
            Ok(connect) => {
                let home = match connect.client_id {
                    "" => self.id,
                    client_id => topic::shard_of(&self.keys, client_id, self.shards),
                };
                match self.identify(key, &connect, home) {
                    Identified::Yes => Some(home),
                    Identified::Later | Identified::No => None,
                }
            }
            Err(error) => {
                self.refuse_first_packet(key, bytes, error);
                None
            }
        }
    }

    /// A CONNECT is answered if its version is known and has an answer; who begins with something else is not. `bytes` are
    /// what came. // 3.1.1: [311:MQTT-3.1.4-1]
    fn refuse_first_packet(&mut self, key: Key, bytes: &[u8], error: ConnectError) {
        self.counters().protocol_errors_total.add(1);
        let why = match error {
            ConnectError::NotMqtt => strangers::not_a_connect(bytes),
            ConnectError::V5(error) | ConnectError::V3(error) => strangers::not_framed(error),
            ConnectError::UnsupportedVersion(_) | ConnectError::V3IdentifierRejected => error.detail(),
        };
        match error.connack() {
            Some((version, reason)) => {
                self.refuse_connect(key, Who::default(), version, reason, u32::MAX, why);
            }
            None => {
                self.counters().connects_refused_total.add(1);
                self.turn_away(key, why);
            }
        }
    }

    /// A first packet whose length is wrong, of a version that is not known.
    fn refuse_unread(&mut self, key: Key, why: &'static str) {
        self.counters().protocol_errors_total.add(1);
        self.counters().connects_refused_total.add(1);
        self.turn_away(key, why);
    }

    /// There is no memory for more of a CONNECT that is not whole.
    pub(super) fn refuse_unfinished_connect(&mut self, key: Key) {
        self.counters().dropped_login_memory_total.add(1);
        self.forget_waiting(key);
        let Some(connection) = self.connections.get(key) else { return };
        let (why, reason) = ("the memory for unfinished logins is used up", Reason::QUOTA_EXCEEDED);
        match wire::look_at_connect(&connection.partial) {
            Ok(Opening::Of(Version::V5)) => {
                self.refuse_connect(key, Who::default(), Version::V5, reason, u32::MAX, why);
            }
            Ok(Opening::Of(_) | Opening::Unknown) | Err(_) => {
                self.log_refused(key, Who::default(), reason, why);
                self.end(key, End::Lost);
            }
        }
    }

    /// [MQTT-3.2.2-7] [MQTT-3.1.4-2]
    /// What the client sent behind a refused CONNECT is thrown away. // [MQTT-3.1.4-6] [U5-3.1.4-2]; 3.1.1: [MQTT-3.1.4-5]
    /// [MQTT-3.1.3-8] [MQTT-4.13.2-1]; 3.1.1: [MQTT-3.1.3-9]
    pub(super) fn refuse_connect(
        &mut self,
        key: Key,
        who: Who<'_>,
        version: Version,
        reason: Reason,
        packet_size_max: u32,
        why: &'static str,
    ) {
        self.counters().connects_refused_total.add(1);
        let connack = ConnAck { reason, ..ConnAck::default() };
        if let Some(connection) = self.connections.get_mut(key) {
            let out = connection.outbox.bytes_mut();
            match wire::encode_connack(out, version, &connack, packet_size_max) {
                ConnAckEncoded::Written => self.counters().packets_sent_total.add(1),
                ConnAckEncoded::CloseSilently => {}
            }
        }
        self.log_refused(key, who, reason, why);
        self.start_closing(key, Closing::Flush);
    }

    /// Hands a connection to the shard where its client is at home; it waits here while that shard's ring is full or the
    /// kernel has something of it.
    fn send_home(&mut self, key: Key, home: crate::memory::ShardId, connected_at: Millis) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        // The last words of a handshake may still be on their way.
        if self.links.full().contains(home) || !connection.is_at_rest() {
            if !matches!(connection.phase, Phase::HandOff) {
                connection.phase = Phase::HandOff;
                self.hand_offs.push_back(key);
            }
            return;
        }
        let Some(mut connection) = self.connections.remove(key) else { return };
        connection.release_receive(&mut self.budget);
        self.counters().hand_offs_total.add(1);
        let hand_off = HandOff {
            peer: connection.peer(),
            socket: connection.socket,
            listener: connection.listener,
            identity: connection.identity,
            transport: connection.transport,
            bytes: connection.partial,
            connected_at,
        };
        self.push(home, Parcel::HandOff(Box::new(hand_off)));
    }

    /// Connections that waited for room go home.
    pub(super) fn retry_hand_offs(&mut self) {
        for _ in 0..self.hand_offs.len() {
            let Some(key) = self.hand_offs.pop_front() else { return };
            let Some(connection) = self.connections.get_mut(key) else { continue };
            if !matches!(connection.phase, Phase::HandOff) {
                continue;
            }
            connection.phase = Phase::Opening;
            self.try_connect(key);
        }
    }

    /// A connection came home from another shard.
    pub(super) fn hand_off_arrived(&mut self, hand_off: HandOff) {
        let HandOff { socket, peer, listener, identity, transport, bytes, connected_at } = hand_off;
        let deadline = self.now + self.limits_at(listener).connect_timeout_ms;
        let mut connection = Connection::new(socket, peer, listener, deadline);
        connection.identity = identity;
        connection.transport = transport;
        connection.partial = bytes;
        let key = self.connections.insert(connection);
        self.set_deadline(key, deadline);
        self.charge_receive(key);
        if self.connections.get(key).is_none_or(|connection| connection.is_closing()) {
            return; // there is no memory for it
        }
        if self.stop.is_stopping() {
            return self.start_closing(key, Closing::Abort);
        }
        self.arrive(key, connected_at);
        self.stream_ended(key);
    }

    /// A connection with a whole CONNECT is at home.
    fn arrive(&mut self, key: Key, connected_at: Millis) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let bytes = std::mem::take(&mut connection.partial);
        let session = self.with_connect(&bytes, |core, connect| core.session_of(connect.client_id));
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.partial = bytes;
        let Some(session) = session else {
            self.accept(key, connected_at);
            return;
        };
        if !self.owns(key, session) {
            // Before anything of that session is touched.
            return self.refuse_login(key, ANOTHERS);
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(slot) = self.sessions.get_mut(session) else { return };
        if connected_at < slot.connected_at {
            // It came by another way.
            return self.turn_away(key, "its client has opened a newer connection meanwhile");
        }
        if slot.connection.is_none() && !slot.aside.has_successor() {
            self.accept(key, connected_at);
            return;
        }
        slot.connected_at = connected_at;
        slot.aside.push_successor(key);
        connection.phase = Phase::Waiting(Box::new(Successor { session, connected_at }));
        self.set_deadline(key, self.now + self.options.takeover_ms);
        self.begin_takeover(session);
    }

    /// Whether the session may be had by the client of a connection that has its CONNECT in front: it is its user's, or it has
    /// ended, or nobody can come in any more as its owner and the client wants a new one in its place.
    fn owns(&mut self, key: Key, session: Key) -> bool {
        let (Some(connection), Some(slot)) = (self.connections.get(key), self.sessions.get(session)) else {
            return false;
        };
        let user = connection.identity.as_ref().and_then(|identity| identity.user.as_ref());
        let ended = slot.connection.is_none() && slot.ends_at <= self.now;
        if slot.user.as_ref() == user || ended {
            return true;
        }
        self.access.is_gone(slot.user.as_deref(), slot.by_certificate) && self.starts_clean(key)
    }

    #[cold]
    fn starts_clean(&mut self, key: Key) -> bool {
        let Some(connection) = self.connections.get_mut(key) else { return false };
        let bytes = std::mem::take(&mut connection.partial);
        let clean = self.with_connect(&bytes, |_, connect| Some(connect.clean_start));
        if let Some(connection) = self.connections.get_mut(key) {
            connection.partial = bytes;
        }
        clean == Some(true)
    }

    /// Bytes of a CONNECT that this connection may send.
    fn connect_packet_size_max(&self, key: Key) -> u32 {
        let listener = self.connections.get(key).map(|connection| connection.listener);
        listener.map_or(0, |listener| self.limits_at(listener).connect_packet_size_max)
    }

    /// Calls `f` with the CONNECT at the front of `bytes`, which was found whole and well formed before. No limit is asked
    /// again: it may be another one by now.
    pub(super) fn with_connect<R>(
        &mut self,
        bytes: &[u8],
        f: impl FnOnce(&mut Core, &Connect<'_>) -> Option<R>,
    ) -> Option<R> {
        let Ok(NextFrame::Frame(frame)) = wire::next_frame(bytes, u32::MAX, LengthForm::Any) else {
            return None;
        };
        let connect = wire::decode_connect(&frame, &DecodeLimits::NONE).ok()?;
        f(self, &connect)
    }

    /// The live connection of a session is to end because another waits for it.
    fn begin_takeover(&mut self, session: Key) {
        let Some(old) = self.sessions.get(session).and_then(|slot| slot.connection) else { return };
        let Some(live) = self.connections.get_mut(old).and_then(|connection| connection.live_mut()) else {
            return;
        };
        if !live.taken_over {
            live.taken_over = true;
            let _ = live.unblock();
            self.mark_dirty(old);
        }
    }

    /// The old connection was read to its end.
    pub(super) fn finish_takeover(&mut self, old: Key) {
        if self.connections.get(old).is_some_and(|connection| connection.live().is_some()) {
            self.counters().takeovers_total.add(1);
            self.end(old, End::TakenOver); // and the next in line is served
        }
    }

    /// The old connection did not end in time: only what it may still have sent is given up.
    pub(super) fn force_takeover(&mut self, session: Key) {
        // Without a connection it is about to be served; see `vacate`.
        let Some(old) = self.sessions.get(session).and_then(|slot| slot.connection) else { return };
        self.counters().takeovers_forced_total.add(1);
        self.finish_takeover(old);
    }

    /// The session has no connection, and others wait for it. They are served in the turn and not by whoever ends the
    /// former one: each of thousands may end as it is accepted.
    pub(super) fn vacate(&mut self, session: Key) {
        self.vacant.push_back(session);
    }

    /// Accepts connections that wait for sessions without one.
    pub(super) fn serve_vacant(&mut self) {
        for _ in 0..SERVED_BUDGET {
            let Some(session) = self.vacant.pop_front() else { return };
            self.serve_waiting(session);
        }
    }

    /// Accepts the next connection that waits for a session without one.
    fn serve_waiting(&mut self, session: Key) {
        let Some(slot) = self.sessions.get_mut(session) else { return };
        if slot.connection.is_some() {
            return;
        }
        let (key, connected_at) = loop {
            let Some(key) = slot.aside.pop_successor() else { return self.session_due(session) };
            let connection = self.connections.get(key);
            if let Some(Phase::Waiting(successor)) = connection.map(|connection| &connection.phase) {
                break (key, successor.connected_at);
            }
        };
        // It was its own when it came; whoever was served before it may have begun another one in its place.
        if !self.owns(key, session) {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.phase = Phase::Opening;
            }
            self.refuse_login(key, ANOTHERS);
            return self.vacate(session);
        }
        let fits = self.accept(key, connected_at);
        // Those who still wait are with the session that it has now, which may be another, or with this one if it has none.
        let live = self.connections.get(key).and_then(|connection| connection.live());
        let session = live.map_or(session, |live| live.session);
        let Some(slot) = self.sessions.get(session) else { return };
        match slot.connection {
            Some(_) if slot.aside.has_successor() => self.begin_takeover(session),
            None if slot.aside.has_successor() => self.vacate(session),
            // Its will and its end waited for the one that was refused.
            None if !fits => self.session_due(session),
            Some(_) | None => {}
        }
    }

    /// A connection ends that may be waiting for a session.
    pub(super) fn forget_waiting(&mut self, key: Key) {
        let Some(Phase::Waiting(successor)) = self.connections.get(key).map(|connection| &connection.phase)
        else {
            return;
        };
        let session = successor.session;
        if let Some(slot) = self.sessions.get_mut(session) {
            slot.aside.forget_successor(key);
        }
    }

    /// The CONNECT at the front of the connection's bytes is accepted. // [MQTT-3.1.4-5]
    /// CONNACK goes first, once, and everything that waits behind it. // [MQTT-3.2.0-1] [MQTT-3.2.0-2]; 3.1.1: [MQTT-3.2.0-1]
    /// False if there is no room for its session.
    fn accept(&mut self, key: Key, connected_at: Millis) -> bool {
        let Some(connection) = self.connections.get_mut(key) else { return true };
        let bytes = std::mem::take(&mut connection.partial);
        connection.release_receive(&mut self.budget);
        let used = match wire::next_frame(&bytes, u32::MAX, LengthForm::Any) {
            Ok(NextFrame::Frame(frame)) => frame.len,
            Ok(NextFrame::Incomplete { .. }) | Err(_) => {
                self.end(key, End::Lost);
                return true;
            }
        };
        let opened = self.with_connect(&bytes, |core, connect| {
            if !core.session_fits(connect) {
                core.refuse_session(key, connect);
                return None;
            }
            core.open_session(key, connect, connected_at);
            Some(())
        });
        // What was sent behind CONNECT. // [U5-3.1.4-1]
        self.parse(key, &bytes[used..]);
        opened.is_some()
    }

    /// Nothing of the session that the client may have was touched, and it goes on without a connection.
    fn refuse_session(&mut self, key: Key, connect: &Connect<'_>) {
        self.counters().sessions_refused_total.add(1);
        let why = "the memory for sessions is used up; --memory-max bounds it";
        let (who, reason) = (Who::of(connect), Reason::QUOTA_EXCEEDED);
        self.refuse_connect(key, who, connect.version, reason, connect.packet_size_max, why);
    }

    /// [MQTT-3.1.3-2] [MQTT-3.1.3-5] [MQTT-3.1.3-7]; 3.1.1: [MQTT-3.1.3-2] [MQTT-3.1.3-5] [MQTT-3.1.4-3]
    fn open_session(&mut self, key: Key, connect: &Connect<'_>, connected_at: Millis) {
        let assigned = connect.client_id.is_empty().then(|| self.assign_client_id());
        let client_id = assigned.as_deref().unwrap_or(connect.client_id);
        let client_hash = topic::fingerprint(&self.keys, client_id);
        let Some(connection) = self.connections.get_mut(key) else { return };
        let identity = connection.identity.take().map(|identity| *identity).unwrap_or_default();
        let Identity { user, by_certificate } = identity;
        let listener = connection.listener;
        let own = self.limits_at(listener);
        let (session, present) = self.find_or_begin(client_id, client_hash, connect.clean_start, user);

        // 0xFFFFFFFF is for ever, as far as the limit goes. // [U5-3.1.2-4]
        let expiry_s = connect.session_expiry_s.min(own.session_expiry_max_s);
        let Some(slot) = self.sessions.get_mut(session) else { return };
        slot.rights.enter(listener.0);
        slot.by_certificate |= by_certificate;
        slot.connection = Some(key);
        slot.connected_at = slot.connected_at.max(connected_at);
        slot.asked_expiry_s = connect.session_expiry_s;
        slot.expiry_s = expiry_s;
        slot.ends_at = crate::clock::NEVER;
        if present {
            slot.session.resume();
        }
        self.set_will(session, connect.will.as_ref()); // [MQTT-3.1.2-7]

        let (number, terms) = self.told.tell(Terms::of(&self.limits, &own));
        let limits = &self.limits;
        // [MQTT-3.1.2-21] [MQTT-3.2.2-21] [MQTT-3.2.2-22]
        let keep_alive_s = match (connect.version, own.keep_alive_max_s) {
            (Version::V5, max) if max > 0 && (connect.keep_alive_s == 0 || connect.keep_alive_s > max) => max,
            (Version::V31 | Version::V311 | Version::V5, _) => connect.keep_alive_s,
        };
        let mut link = Link::new(
            connect.version,
            connect.receive_maximum,
            connect.packet_size_max,
            connect.topic_alias_max,
            limits,
        );
        link.terms = number;
        let live = Live {
            session,
            link,
            keep_alive_s,
            last_packet_at: self.now,
            unsent_bytes: None,
            client_hash,
            mode: Mode::New,
            touched: ShardSet::EMPTY,
            held: None,
            taken_over: false,
            known: None,
        };
        let connack = ConnAck {
            // [MQTT-3.2.2-2] [MQTT-3.2.2-3]; 3.1.1: [MQTT-3.2.2-1] [MQTT-3.2.2-2] [MQTT-3.2.2-3]
            session_present: present && connect.version != Version::V31, // [V31-3]
            reason: Reason::SUCCESS,
            session_expiry_s: (expiry_s != connect.session_expiry_s).then_some(expiry_s), // [U5-3.2.2-1]
            // Whatever is lower than its default is announced. // [U5-3.2.2-2] [MQTT-3.1.2-29]
            receive_maximum: Some(limits.receive_maximum),
            packet_size_max: Some(terms.packet_size_max),
            assigned_client_id: assigned.as_deref(), // [MQTT-3.2.2-16]
            topic_alias_max: Some(terms.topic_alias_max),
            server_keep_alive_s: (keep_alive_s != connect.keep_alive_s).then_some(keep_alive_s),
            ..ConnAck::default()
        };
        let Some(connection) = self.connections.get_mut(key) else { return };
        let out = connection.outbox.bytes_mut();
        let fits = match wire::encode_connack(out, connect.version, &connack, connect.packet_size_max) {
            ConnAckEncoded::Written => true,
            ConnAckEncoded::CloseSilently => false, // it takes no packet as large as a CONNACK
        };
        let deadline = match live.idle_max_ms() {
            0 => crate::clock::NEVER,
            idle_max_ms => self.now + idle_max_ms,
        };
        connection.phase = Phase::Live(Box::new(live));
        self.counters().packets_received_total.add(1);
        self.counters().packets_sent_total.add(u64::from(fits));
        self.counters().clients_connected.add(1);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.deadline = deadline;
        }
        self.set_deadline(key, deadline);
        self.mark_dirty(key);
        self.log_connected(key, connect);
        if !fits {
            self.log_connection(key, Kind::Refused, "its client takes no packet as large as a CONNACK");
            return self.end(key, End::Told);
        }
        self.set_presence(session, Presence::Online);
        self.room_made(key); // what waited for the client
        if self.sessions.get(session).is_some_and(|slot| slot.session.has_unsent_shared()) {
            self.watch_share(session);
        }
        self.schedule_cursors(session);
    }

    /// The session that the client gets, and whether it was there before. // [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-3.1.2-6]
    /// [MQTT-3.1.4-4]; 3.1.1: [MQTT-3.1.2-7]
    fn find_or_begin(
        &mut self,
        client_id: &str,
        client_hash: u64,
        clean_start: bool,
        user: Option<Arc<str>>,
    ) -> (Key, bool) {
        let Some(session) = self.session_of(client_id) else {
            return (self.begin_session(client_id, client_hash, user), false);
        };
        if !clean_start && !self.has_ended(session) {
            // Before the last look: a will may fill the queue of the session itself.
            if self.will_is_cancelled(session) {
                self.cancel_will(session);
            } else {
                self.publish_will(session);
            }
        }
        if clean_start || self.has_ended(session) {
            // [U5-3.1.4-3]: with its session the will of the former connection ends its delay, and goes out.
            let successors = self.sessions.get_mut(session).map(|slot| slot.aside.take_successors());
            let connected_at = self.sessions.get(session).map_or(0, |slot| slot.connected_at);
            self.end_session(session);
            let new = self.begin_session(client_id, client_hash, user);
            for key in successors.iter().flatten() {
                if let Some(connection) = self.connections.get_mut(*key)
                    && let Phase::Waiting(successor) = &mut connection.phase
                {
                    successor.session = new;
                }
            }
            if let (Some(slot), Some(successors)) = (self.sessions.get_mut(new), successors) {
                successors.into_iter().for_each(|key| slot.aside.push_successor(key));
                slot.connected_at = connected_at;
            }
            return (new, false);
        }
        (session, true)
    }

    fn has_ended(&self, session: Key) -> bool {
        self.sessions.get(session).is_none_or(|slot| slot.overflowed || slot.ends_at <= self.now)
    }

    /// Whether a client that comes back to its session is in time to cancel its will.
    fn will_is_cancelled(&self, session: Key) -> bool {
        self.sessions.get(session).is_some_and(|slot| slot.will_at() > self.now)
            && self.will_survives_takeover(session)
    }

    /// A Client Identifier that no session has and that is at home here. // [MQTT-3.1.3-6] [MQTT-3.2.2-16]
    ///
    /// Nobody can tell the next one from those before: they are hashed with the keys of the process, which the kernel's
    /// random numbers made and nobody is told.
    fn assign_client_id(&mut self) -> String {
        loop {
            self.client_ids_assigned += 1;
            let mut hash = Sha256::new();
            self.keys.iter().for_each(|key| hash.update(key.to_le_bytes()));
            hash.update(b"assigned Client Identifier");
            hash.update(self.id.to_le_bytes());
            hash.update(self.client_ids_assigned.to_le_bytes());
            let hash = hash.finalize();
            let id = hash[..10].iter().fold("auto-".to_owned(), |id, byte| id + &format!("{byte:02x}"));
            let here = topic::shard_of(&self.keys, &id, self.shards) == self.id;
            if here && self.session_of(&id).is_none() {
                return id;
            }
        }
    }
}
