//! CONNECT: the way home, the takeover of a session, and CONNACK.
//!
//! Any shard accepts. The one that reads a CONNECT either owns the session or hands the connection to the shard that
//! does, with its [`Request`] and everything that was read behind it. At home a connection whose session still has
//! another one waits until that one has ended: its receive is cancelled, what the kernel has of it is read and acted
//! upon, its will is decided. So a DISCONNECT that was sent before the new CONNECT never turns into a will. Several
//! CONNECTs for one session are served one after the other. A session belongs to the user that began it: nobody else
//! takes it over, resumes or ends it, unless that user exists no more and the other wants a Clean Start.

use crate::access::Answer;
use crate::clock::NEVER;
use crate::log::{Kind, Level};
use crate::memory::Key;
use crate::session::Link;
use crate::topic::{self, Presence};
use crate::wire::{
    self, ConnAck, ConnAckEncoded, ConnectError, LengthForm, NextFrame, Opening, Reason, Version,
};

use super::clients::{Clients, Ended};
use super::connection::{Closing, Connection, End, Live, Phase, Refusal, Successor};
use super::env::Env;
use super::events::{self, Who};
use super::local::Local;
use super::login::{self, Identified};
use super::order::Heard;
use super::parcel::HandOff;
use super::request::Request;
use super::terms::Terms;
use super::{Core, strangers};

/// A session belongs to the user that began it.
const ANOTHERS: Refusal = (Reason::NOT_AUTHORIZED, "the session is another user's");

/// Connections that waited for their session and are accepted in one turn.
const SERVED_BUDGET: usize = 256;

impl Clients {
    /// Reads the CONNECT of a new connection. `None` if it is not whole yet, or its client is not known yet, or cannot be
    /// accepted anywhere and was refused.
    /// [MQTT-3.1.4-1]
    fn read_connect(&mut self, key: Key, env: &mut Env) -> Option<Box<Request>> {
        let connection = self.connections.get_mut(key)?;
        if !matches!(connection.phase, Phase::Opening) {
            return None;
        }
        let mut bytes = std::mem::take(&mut connection.partial);
        let size_max = env.limits_at(connection.listener).connect_packet_size_max;
        let frame = match wire::next_frame(&bytes, size_max, LengthForm::Any) {
            Ok(NextFrame::Frame(frame)) => frame,
            Ok(NextFrame::Incomplete { .. }) => {
                // [MQTT-3.1.0-1]: nothing is sent to a client that begins with something else
                match wire::look_at_connect(&bytes) {
                    Ok(_) => self.await_more(key, bytes),
                    Err(error) => self.refuse_first_packet(key, &bytes, error, env),
                }
                return None;
            }
            Err(error) => {
                match wire::look_at_connect(&bytes) {
                    // The next bytes say in which version it is answered; they are few, and have to come in time.
                    Ok(Opening::Unknown) => self.await_more(key, bytes),
                    Ok(Opening::Of(version)) => {
                        self.refuse_first_packet(key, &bytes, ConnectError::of(version, error), env);
                    }
                    // Another protocol, or a length that cannot be.
                    Err(_) if bytes.first().is_some_and(|first| first >> 4 == 1) => {
                        env.counters().protocol_errors_total.add(1);
                        env.counters().connects_refused_total.add(1);
                        self.turn_away(key, strangers::not_framed(error), env);
                    }
                    Err(error) => self.refuse_first_packet(key, &bytes, error, env),
                }
                return None;
            }
        };
        let connect = match wire::decode_connect(&frame, &env.decode_limits) {
            Ok(connect) => connect,
            Err(error) => {
                self.refuse_first_packet(key, &bytes, error, env);
                return None;
            }
        };
        let home = match connect.client_id {
            "" => env.id,
            client_id => topic::shard_of(&env.keys, client_id, env.shards),
        };
        let identified = login::identify(key, connection, &connect, env);
        let mut request = Box::new(Request::new(&connect, Default::default(), home, env.now));
        // What was sent behind CONNECT, in memory of its size. // [U5-3.1.4-1]
        let len = frame.len;
        connection.partial = bytes.split_off(len);
        match identified {
            Identified::Yes(identity) => {
                request.identity = identity;
                Some(request)
            }
            Identified::Later => {
                self.park(key, request, env);
                None
            }
            Identified::No(refusal) => {
                self.refuse_request(key, &request, refusal, None, env);
                None
            }
        }
    }

    /// More of a CONNECT has to come.
    fn await_more(&mut self, key: Key, bytes: Vec<u8>) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.partial = bytes;
            self.mark_dirty(key);
        }
    }

    /// A CONNECT is answered if its version is known and has an answer; a client that begins with something else is not.
    /// `bytes` are what came. // 3.1.1: [311:MQTT-3.1.4-1]
    fn refuse_first_packet(&mut self, key: Key, bytes: &[u8], error: ConnectError, env: &mut Env) {
        env.counters().protocol_errors_total.add(1);
        let why = match error {
            ConnectError::NotMqtt => strangers::not_a_connect(bytes),
            ConnectError::V5(error) | ConnectError::V3(error) => strangers::not_framed(error),
            ConnectError::UnsupportedVersion(_) | ConnectError::V3IdentifierRejected => error.detail(),
        };
        match error.connack() {
            Some((version, reason)) => {
                self.refuse_connect(key, (Who::default(), None), (version, u32::MAX), (reason, why), env);
            }
            None => {
                env.counters().connects_refused_total.add(1);
                self.turn_away(key, why, env);
            }
        }
    }

    /// There is no memory for more of a connection whose client is not logged in.
    pub(super) fn refuse_unfinished_connect(&mut self, key: Key, env: &mut Env) {
        env.counters().dropped_login_memory_total.add(1);
        let refusal = (Reason::QUOTA_EXCEEDED, "the memory for unfinished logins is used up");
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.request().is_some() {
            let Some(request) = self.forget_request(key) else { return };
            if request.version == Version::V5 {
                return self.refuse_request(key, &request, refusal, None, env);
            }
            if let Some(connection) = self.connections.get(key) {
                events::refused(connection, Who::asks(&request), refusal.0, refusal.1, None);
            }
            return self.end(key, End::Told, env);
        }
        match wire::look_at_connect(&connection.partial) {
            Ok(Opening::Of(Version::V5)) => {
                let nobody = (Who::default(), None);
                self.refuse_connect(key, nobody, (Version::V5, u32::MAX), refusal, env);
            }
            Ok(Opening::Of(_) | Opening::Unknown) | Err(_) => {
                events::refused(connection, Who::default(), refusal.0, refusal.1, None);
                self.end(key, End::Told, env);
            }
        }
    }

    /// Takes the request out of a connection that is to be refused; the session that it waits for learns of it.
    fn forget_request(&mut self, key: Key) -> Option<Box<Request>> {
        let connection = self.connections.get_mut(key)?;
        match std::mem::replace(&mut connection.phase, Phase::Opening) {
            Phase::Verifying(verifying) => Some(verifying.request),
            Phase::HandOff(request) => Some(request),
            Phase::Waiting(successor) => {
                let Successor { session, request } = *successor;
                self.ended.push_back(Ended { connection: key, session, end: End::Told, was_live: false });
                Some(request)
            }
            phase @ (Phase::Opening | Phase::Live(_) | Phase::Closing(_)) => {
                connection.phase = phase;
                None
            }
        }
    }

    /// Refuses a connection with this request. `owner` is the user whose session it wants.
    pub(super) fn refuse_request(
        &mut self,
        key: Key,
        request: &Request,
        refusal: Refusal,
        owner: Option<&str>,
        env: &mut Env,
    ) {
        let answer = (request.version, request.packet_size_max);
        self.refuse_connect(key, (Who::asks(request), owner), answer, refusal, env);
    }

    /// [MQTT-3.2.2-7] [MQTT-3.1.4-2]
    /// What the client sent behind a refused CONNECT is thrown away. // [MQTT-3.1.4-6] [U5-3.1.4-2]; 3.1.1: [MQTT-3.1.4-5]
    /// [MQTT-3.1.3-8] [MQTT-4.13.2-1]; 3.1.1: [MQTT-3.1.3-9]
    fn refuse_connect(
        &mut self,
        key: Key,
        (who, owner): (Who<'_>, Option<&str>),
        (version, packet_size_max): (Version, u32),
        (reason, why): Refusal,
        env: &mut Env,
    ) {
        env.counters().connects_refused_total.add(1);
        let connack = ConnAck { reason, ..ConnAck::default() };
        if let Some(connection) = self.connections.get_mut(key) {
            let out = connection.outbox.bytes_mut();
            match wire::encode_connack(out, version, &connack, packet_size_max) {
                ConnAckEncoded::Written => env.counters().packets_sent_total.add(1),
                ConnAckEncoded::CloseSilently => {}
            }
            events::refused(connection, who, reason, why, owner);
        }
        self.start_closing(key, Closing::Flush, env);
    }

    /// Takes a connection out that goes home to another shard.
    fn leave(&mut self, key: Key, request: Box<Request>, env: &mut Env) -> Option<HandOff> {
        let mut connection = self.connections.remove(key)?;
        connection.release_receive(&mut env.budget);
        env.counters().hand_offs_total.add(1);
        Some(HandOff {
            peer: connection.peer(),
            socket: connection.socket,
            listener: connection.listener,
            transport: connection.transport,
            bytes: connection.partial,
            request,
        })
    }

    /// A connection came home from another shard. `None` if there is no memory for it.
    fn come_home(&mut self, hand_off: HandOff, env: &mut Env) -> Option<(Key, Box<Request>)> {
        let HandOff { socket, peer, listener, transport, bytes, request } = hand_off;
        let deadline = env.now + env.limits_at(listener).connect_timeout_ms;
        let mut connection = Connection::new(socket, peer, listener, deadline);
        connection.transport = transport;
        connection.partial = bytes;
        let key = self.connections.insert(connection);
        self.set_deadline(key, deadline, env);
        self.charge_receive(key, env);
        let is_here = self.connections.get(key).is_some_and(|connection| !connection.is_closing());
        is_here.then_some((key, request))
    }
}

impl Local {
    fn refuse_anothers(&mut self, key: Key, request: &Request, session: Key) {
        let owner = self.sessions.get(session).map(|slot| slot.user.as_deref().unwrap_or_default());
        self.clients.refuse_request(key, request, ANOTHERS, owner, &mut self.env);
    }

    /// The live connection of a session is to end because another waits for it.
    fn begin_takeover(&mut self, session: Key) {
        let Some(old) = self.sessions.get(session).and_then(|slot| slot.connection) else { return };
        let Some(live) = self.clients.live_mut(old) else { return };
        if !live.taken_over {
            live.taken_over = true;
            let _ = live.unblock();
            self.clients.mark_dirty(old);
        }
    }

    /// The old connection did not end in time: only what it may still have sent is given up.
    pub(super) fn force_takeover(&mut self, session: Key) {
        // Without a connection it is about to be served; see `Sessions::vacant`.
        let Some(old) = self.sessions.get(session).and_then(|slot| slot.connection) else { return };
        self.env.counters().takeovers_forced_total.add(1);
        self.clients.finish_takeover(old, &mut self.env);
    }
}

impl Core {
    /// Looks whether the bytes of a new connection hold its CONNECT, and acts on it.
    pub(super) fn try_connect(&mut self, key: Key, heard: Heard<'_>) {
        if let Some(request) = self.local.clients.read_connect(key, &mut self.local.env) {
            self.go_home(key, request, heard);
        }
    }

    /// The client is known; its connection goes where its session is.
    fn go_home(&mut self, key: Key, request: Box<Request>, heard: Heard<'_>) {
        if request.home == self.local.env.id {
            self.arrive(key, request, heard);
        } else {
            self.send_home(key, request);
        }
    }

    /// A login was decided by another thread, which put the answer on the desk.
    pub(super) fn take_answer(&mut self, answer: Answer, heard: Heard<'_>) {
        if let Some((key, request)) = self.local.clients.answer_arrived(answer, &mut self.local.env) {
            self.go_home(key, request, heard);
        }
        self.settle(heard);
    }

    /// Hands a connection to the shard where its client is at home; it waits here while that shard's ring is full or the
    /// kernel has something of it.
    fn send_home(&mut self, key: Key, request: Box<Request>) {
        let home = request.home;
        let Some(connection) = self.local.clients.connections.get_mut(key) else { return };
        // The last words of a handshake may still be on their way.
        if self.exchange.links.full().contains(home) || !connection.is_at_rest() {
            connection.phase = Phase::HandOff(request);
            self.local.clients.hand_offs.push_back(key);
            return self.local.clients.charge_receive(key, &mut self.local.env);
        }
        if let Some(hand_off) = self.local.clients.leave(key, request, &mut self.local.env) {
            self.exchange.push_hand_off(home, hand_off, &self.local.env);
        }
    }

    /// Connections that waited for room go home.
    pub(super) fn retry_hand_offs(&mut self) {
        for _ in 0..self.local.clients.hand_offs.len() {
            let Some(key) = self.local.clients.hand_offs.pop_front() else { return };
            let Some(connection) = self.local.clients.connections.get_mut(key) else { continue };
            if !matches!(connection.phase, Phase::HandOff(_)) {
                continue;
            }
            if let Phase::HandOff(request) = std::mem::replace(&mut connection.phase, Phase::Opening) {
                self.send_home(key, request);
            }
        }
    }

    /// A connection came home from another shard.
    pub(super) fn hand_off_arrived(&mut self, hand_off: HandOff, heard: Heard<'_>) {
        let Some((key, request)) = self.local.clients.come_home(hand_off, &mut self.local.env) else {
            return;
        };
        if self.local.env.is_stopping {
            return self.local.clients.start_closing(key, Closing::Abort, &mut self.local.env);
        }
        self.arrive(key, request, heard);
        self.stream_ended(key, heard);
    }

    /// A connection with its request is at home.
    fn arrive(&mut self, key: Key, request: Box<Request>, heard: Heard<'_>) {
        let Some(session) = self.local.sessions.find(&request.client_id, &self.local.env) else {
            self.accept(key, request, heard);
            return;
        };
        if !self.local.sessions.owns(&request, session, &mut self.local.env) {
            // Before anything of that session is touched.
            return self.local.refuse_anothers(key, &request, session);
        }
        let Some(connection) = self.local.clients.connections.get_mut(key) else { return };
        let Some(slot) = self.local.sessions.get(session) else { return };
        if request.read_at < slot.connected_at {
            // It came by another way.
            let why = "its client has opened a newer connection meanwhile";
            return self.local.clients.turn_away(key, why, &mut self.local.env);
        }
        if slot.connection.is_none() && !slot.aside.has_successor() {
            self.accept(key, request, heard);
            return;
        }
        let read_at = request.read_at;
        connection.phase = Phase::Waiting(Box::new(Successor { session, request }));
        let deadline = self.local.env.now + self.local.env.options.takeover_ms;
        self.local.clients.set_deadline(key, deadline, &mut self.local.env);
        self.local.clients.charge_receive(key, &mut self.local.env);
        // If there is no memory for it, it was refused, and the older connection stays.
        if self.local.clients.connections.get(key).is_none_or(Connection::is_closing) {
            return;
        }
        self.local.sessions.stand_in_line(session, key, read_at);
        self.local.begin_takeover(session);
    }

    /// Accepts connections that wait for sessions without one.
    #[inline(always)]
    pub(super) fn serve_vacant(&mut self, heard: Heard<'_>) {
        if !self.local.sessions.vacant.is_empty() {
            self.serve_some(heard);
        }
    }

    #[cold]
    fn serve_some(&mut self, heard: Heard<'_>) {
        for _ in 0..SERVED_BUDGET {
            let Some(session) = self.local.sessions.vacant.pop_front() else { return };
            self.serve_waiting(session, heard);
            self.settle(heard);
        }
    }

    /// Accepts the next connection that waits for a session without one.
    fn serve_waiting(&mut self, session: Key, heard: Heard<'_>) {
        if self.local.sessions.get(session).is_none_or(|slot| slot.connection.is_some()) {
            return;
        }
        let (key, request) = loop {
            let Some(key) = self.local.sessions.next_in_line(session) else {
                return self.session_due(session, heard);
            };
            let Some(connection) = self.local.clients.connections.get_mut(key) else { continue };
            if !matches!(connection.phase, Phase::Waiting(_)) {
                continue;
            }
            if let Phase::Waiting(successor) = std::mem::replace(&mut connection.phase, Phase::Opening) {
                break (key, successor.request);
            }
        };
        // It was its own when it came; a client that was served before it may have begun another one in its place.
        if !self.local.sessions.owns(&request, session, &mut self.local.env) {
            self.local.refuse_anothers(key, &request, session);
            return self.local.sessions.vacant.push_back(session);
        }
        let fits = self.accept(key, request, heard);
        // Those who still wait are with the session that it has now, which may be another, or with this one if it has none.
        let session = self.local.clients.live(key).map_or(session, |live| live.session);
        let Some(slot) = self.local.sessions.get(session) else { return };
        match slot.connection {
            Some(_) if slot.aside.has_successor() => self.local.begin_takeover(session),
            None if slot.aside.has_successor() => self.local.sessions.vacant.push_back(session),
            // Its will and its end waited for the one that was refused.
            None if !fits => self.session_due(session, heard),
            Some(_) | None => {}
        }
    }

    /// The request of the connection is accepted. // [MQTT-3.1.4-5]
    /// CONNACK goes first, once, and everything that waits behind it. // [MQTT-3.2.0-1] [MQTT-3.2.0-2]; 3.1.1: [MQTT-3.2.0-1]
    /// False if there is no room for its session.
    fn accept(&mut self, key: Key, request: Box<Request>, heard: Heard<'_>) -> bool {
        let Some(connection) = self.local.clients.connections.get_mut(key) else { return true };
        connection.release_receive(&mut self.local.env.budget);
        let is_new = || self.local.sessions.find(&request.client_id, &self.local.env).is_none();
        if self.exchange.disk.is_full && request.session_expiry_s > 0 && is_new() {
            self.local.env.counters().sessions_refused_total.add(1);
            let why = "the data directory is full; --data-max bounds it";
            let refusal = (Reason::QUOTA_EXCEEDED, why);
            self.local.clients.refuse_request(key, &request, refusal, None, &mut self.local.env);
            return false;
        }
        if !self.local.sessions.fits(&request, &mut self.local.env) {
            // Nothing of the session that the client may have was touched, and it goes on without a connection.
            self.local.env.counters().sessions_refused_total.add(1);
            let why = "the memory for sessions is used up; --memory-max bounds it";
            self.local.clients.refuse_request(
                key,
                &request,
                (Reason::QUOTA_EXCEEDED, why),
                None,
                &mut self.local.env,
            );
            return false;
        }
        let rest = std::mem::take(&mut connection.partial);
        self.open_session(key, *request, heard);
        self.parse(key, &rest, heard);
        true
    }

    /// [MQTT-3.1.3-2] [MQTT-3.1.3-5] [MQTT-3.1.3-7]; 3.1.1: [MQTT-3.1.3-2] [MQTT-3.1.3-5] [MQTT-3.1.4-3]
    fn open_session(&mut self, key: Key, mut request: Request, heard: Heard<'_>) {
        let assigned =
            request.client_id.is_empty().then(|| self.local.sessions.assign_client_id(&self.local.env));
        if let Some(assigned) = &assigned {
            request.client_id = assigned.clone();
        }
        let client_hash = topic::fingerprint(&self.local.env.keys, &request.client_id);
        let Some(listener) = self.local.clients.listener_of(key) else { return };
        let own = self.local.env.limits_at(listener);
        let mark = self.local.env.written_mark();
        let (session, present) = self.find_or_begin(&request, client_hash, heard);

        // 0xFFFFFFFF is for ever, as far as the limit goes. // [U5-3.1.2-4]
        let expiry_s = request.session_expiry_s.min(own.session_expiry_max_s);
        self.local.sessions.connect(session, (key, listener), &mut request, expiry_s, &mut self.local.env);

        let (number, terms) = self.local.clients.told.tell(Terms::of(&self.local.env.limits, &own));
        let limits = &self.local.env.limits;
        // [MQTT-3.1.2-21] [MQTT-3.2.2-21] [MQTT-3.2.2-22]
        let keep_alive_s = match (request.version, own.keep_alive_max_s) {
            (Version::V5, max) if max > 0 && (request.keep_alive_s == 0 || request.keep_alive_s > max) => max,
            (Version::V31 | Version::V311 | Version::V5, _) => request.keep_alive_s,
        };
        let mut link = Link::new(
            request.version,
            request.receive_maximum,
            request.packet_size_max,
            request.topic_alias_max,
            limits,
        );
        link.terms = number;
        let live = Live::new(session, link, keep_alive_s, client_hash, self.local.env.now);
        let connack = ConnAck {
            // [MQTT-3.2.2-2] [MQTT-3.2.2-3]; 3.1.1: [MQTT-3.2.2-1] [MQTT-3.2.2-2] [MQTT-3.2.2-3]
            session_present: present && request.version != Version::V31, // [V31-3]
            reason: Reason::SUCCESS,
            session_expiry_s: (expiry_s != request.session_expiry_s).then_some(expiry_s), // [U5-3.2.2-1]
            // Whatever is lower than its default is announced. // [U5-3.2.2-2] [MQTT-3.1.2-29]
            receive_maximum: Some(limits.receive_maximum),
            packet_size_max: Some(terms.packet_size_max),
            assigned_client_id: assigned.as_deref(), // [MQTT-3.2.2-16]
            topic_alias_max: Some(terms.topic_alias_max),
            server_keep_alive_s: (keep_alive_s != request.keep_alive_s).then_some(keep_alive_s),
            ..ConnAck::default()
        };
        let fits = self.local.clients.go_live(key, live, &connack, &request, &mut self.local.env);
        let (Some(connection), Some(slot)) =
            (self.local.clients.connections.get(key), self.local.sessions.get(session))
        else {
            return;
        };
        events::connected(connection, slot, &request, self.local.env.id);
        if !fits {
            let why = "its client takes no packet as large as a CONNACK";
            events::of_client(connection, Who::has(slot), (Level::Warn, Kind::Refused), why, None);
            return self.local.clients.end(key, End::Told, &mut self.local.env);
        }
        // CONNACK says that the session is there, or that a former one is not any more.
        if let Some(commit) = self.local.env.commit_since(mark) {
            self.local.clients.shut_until(key, commit);
        }
        self.set_presence(session, Presence::Online);
        self.local.room_made(key); // what waited for the client
        if self.local.sessions.get(session).is_some_and(|slot| slot.session.has_unsent_shared()) {
            self.local.sessions.watch_share(session, &mut self.local.env);
        }
        self.local.sessions.schedule_cursors(session);
    }

    /// The session that the client gets, and whether it was there before. // [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-3.1.2-6]
    /// [MQTT-3.1.4-4]; 3.1.1: [MQTT-3.1.2-7]
    fn find_or_begin(&mut self, request: &Request, client_hash: u64, heard: Heard<'_>) -> (Key, bool) {
        let Some(session) = self.local.sessions.find(&request.client_id, &self.local.env) else {
            return (self.local.sessions.begin(request, client_hash, &mut self.local.env), false);
        };
        if !request.clean_start && !self.local.sessions.has_ended(session, self.local.env.now) {
            // Before the last look: a will may fill the queue of the session itself.
            if self.local.sessions.will_is_cancelled(session, self.local.env.now) {
                drop(self.local.sessions.take_will(session, &mut self.local.env)); // [MQTT-3.1.3-9]
            } else {
                self.publish_will(session, heard);
            }
        }
        if request.clean_start || self.local.sessions.has_ended(session, self.local.env.now) {
            // [U5-3.1.4-3]: with its session the will of the former connection ends its delay, and goes out.
            let line = self.local.sessions.take_line(session);
            self.end_session(session, heard);
            let new = self.local.sessions.begin(request, client_hash, &mut self.local.env);
            for key in &line.connections {
                if let Some(connection) = self.local.clients.connections.get_mut(*key)
                    && let Phase::Waiting(successor) = &mut connection.phase
                {
                    successor.session = new;
                }
            }
            self.local.sessions.pass_line_on(new, line);
            return (new, false);
        }
        (session, true)
    }
}

impl Clients {
    /// The old connection was read to its end.
    pub fn finish_takeover(&mut self, old: Key, env: &mut Env) {
        if self.live(old).is_some() {
            env.counters().takeovers_total.add(1);
            self.end(old, End::TakenOver, env); // and the next in line is served
        }
    }

    /// The client is connected: its connection is live, and CONNACK is staged. False if the client takes no packet as large as
    /// that.
    fn go_live(
        &mut self,
        key: Key,
        live: Live,
        connack: &ConnAck<'_>,
        request: &Request,
        env: &mut Env,
    ) -> bool {
        let Some(connection) = self.connections.get_mut(key) else { return false };
        let out = connection.outbox.bytes_mut();
        let fits = match wire::encode_connack(out, request.version, connack, request.packet_size_max) {
            ConnAckEncoded::Written => true,
            ConnAckEncoded::CloseSilently => false,
        };
        let deadline = match live.idle_max_ms() {
            0 => NEVER,
            idle_max_ms => env.now + idle_max_ms,
        };
        connection.phase = Phase::Live(Box::new(live));
        env.counters().packets_received_total.add(1);
        env.counters().packets_sent_total.add(u64::from(fits));
        env.counters().clients_connected.add(1);
        connection.deadline = deadline;
        self.set_deadline(key, deadline, env);
        self.mark_dirty(key);
        fits
    }
}

#[cfg(test)]
mod tests {
    use crate::memory::{CLASSES, Class};
    use crate::shard::Options;
    use crate::shard::testing::{CONNECT, Stage};
    use crate::transport::Layers;

    #[test]
    fn a_connection_that_has_no_memory_to_wait_leaves_the_older_one_alone() {
        let mut memory = [1 << 30; CLASSES];
        // Room for a CONNECT that was received, and not for what is kept of it while it waits.
        memory[Class::Login as usize] = 50;
        let mut stage = Stage::with_memory(memory, [Layers::plain()], Options::default());
        let older = stage.connect(0);
        stage.say(older, CONNECT);
        stage.settle();
        assert_eq!(stage.hear(older).0[0], 0x20, "CONNACK");
        let newer = stage.connect(0);
        stage.say(newer, CONNECT);
        stage.settle();
        let (refused, _) = stage.hear(newer);
        assert_eq!((refused[0], refused[3]), (0x20, 0x97), "Quota exceeded");
        stage.say(older, b"\xc0\0");
        stage.settle();
        assert_eq!(stage.hear(older).0, b"\xd0\0", "PINGRESP");
    }
}
