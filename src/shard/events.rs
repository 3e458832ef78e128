//! What is written to the log: who came and went, and why somebody was refused. Never anything per message.

use std::net::SocketAddr;

use crate::log::{self, Kind, Level, Value};
use crate::memory::Key;
use crate::wire::{self, Connect, LengthForm, NextFrame, Reason, Version};

use super::Core;
use super::connect::ANOTHERS;
use super::connection::{Connection, End, Phase};
use super::slots::Slot;

/// What a CONNECT says of its client.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Who<'a> {
    pub client_id: &'a str,
    pub user_name: &'a str,
}

impl<'a> Who<'a> {
    pub fn of(connect: &Connect<'a>) -> Who<'a> {
        Who { client_id: connect.client_id, user_name: connect.user_name.unwrap_or_default() }
    }
}

impl Core {
    pub(super) fn log_connected(&self, key: Key, connect: &Connect<'_>) {
        if !log::enabled(Level::Info) {
            return;
        }
        let Some(connection) = self.connections.get(key) else { return };
        let version = match connect.version {
            Version::V31 => "3.1",
            Version::V311 => "3.1.1",
            Version::V5 => "5.0",
        };
        let values = [
            ("client", self.client_id(connection).into()),
            ("user", self.user(connection).into()),
            ("address", connection.peer().into()),
            ("version", version.into()),
            ("keep_alive_s", Value::from(connect.keep_alive_s)),
            ("shard", Value::from(self.id)),
        ];
        log::event(Level::Info, Kind::Connect, &values);
    }

    /// A connection is over, as far as the log is concerned; what it had to say of its client was not acted upon yet.
    pub(super) fn log_end(&self, key: Key, end: End) {
        let Some(connection) = self.connections.get(key) else { return };
        let (level, kind, why) = match end {
            End::Told => return,
            End::Disconnected => (Level::Info, Kind::Disconnect, "DISCONNECT"),
            End::DisconnectedWithWill => (Level::Info, Kind::Disconnect, "DISCONNECT with will"),
            End::Lost if matches!(connection.phase, Phase::Opening) => {
                return self.log_left_early(connection);
            }
            End::Lost if self.stop.is_stopping() => {
                (Level::Info, Kind::Disconnect, "the server is shutting down")
            }
            End::Lost if connection.live().is_none() => {
                (Level::Info, Kind::Disconnect, "connection lost before CONNACK")
            }
            End::Lost => (Level::Info, Kind::Disconnect, "connection lost"),
            End::TakenOver => (Level::Info, Kind::TakenOver, "another connection has the session"),
            End::Refused(Reason::KEEP_ALIVE_TIMEOUT | Reason::SERVER_SHUTTING_DOWN, why) => {
                (Level::Info, Kind::Disconnect, why)
            }
            End::Refused(Reason::QUOTA_EXCEEDED, why) => (Level::Warn, Kind::LimitReached, why),
            End::Refused(_, why) => (Level::Warn, Kind::ProtocolError, why),
        };
        let code = match end {
            End::Refused(reason, _) => Some(reason),
            End::Disconnected | End::DisconnectedWithWill | End::Lost | End::Told | End::TakenOver => None,
        };
        self.log_of(connection, (level, kind), why, code);
    }

    /// Whoever was not heard with a CONNECT went away by itself, as a look whether the port is open does.
    fn log_left_early(&self, connection: &Connection) {
        let handshake = connection.transport.as_ref().and_then(|transport| transport.handshake());
        let (level, why) = match (connection.partial.is_empty(), handshake) {
            _ if self.stop.is_stopping() => (Level::Debug, "the server is shutting down"),
            (true, Some(handshake)) => (Level::Debug, handshake.left),
            (true, None) => (Level::Debug, "the peer closed without a byte"),
            (false, _) => (Level::Warn, "the peer closed in the middle of its CONNECT"),
        };
        log::event(level, Kind::NoConnect, &[("address", connection.peer().into()), ("why", why.into())]);
    }

    /// Ends a connection from which no CONNECT came that could be acted upon.
    pub(super) fn turn_away(&mut self, key: Key, why: &'static str) {
        if let Some(connection) = self.connections.get(key) {
            let values = [("address", connection.peer().into()), ("why", why.into())];
            log::event(Level::Warn, Kind::NoConnect, &values);
        }
        self.end(key, End::Told);
    }

    /// What happened to a connection, with its client as far as it is known.
    pub(super) fn log_connection(&self, key: Key, kind: Kind, why: &str) {
        if let Some(connection) = self.connections.get(key) {
            self.log_of(connection, (Level::Warn, kind), why, None);
        }
    }

    fn log_of(&self, connection: &Connection, (level, kind): (Level, Kind), why: &str, code: Option<Reason>) {
        if !log::enabled(level) {
            return;
        }
        let said = self.heralded(connection);
        let client = said.map_or_else(|| self.client_id(connection), |said| said.client_id);
        let user = said.map_or_else(|| self.user(connection), |said| said.user_name);
        let mut values = vec![
            ("client", client.into()),
            ("user", user.into()),
            ("address", connection.peer().into()),
            ("why", why.into()),
        ];
        values.extend(code.map(|code| ("code", Value::Code(code.0))));
        log::event(level, kind, &values);
    }

    /// What the CONNECT says that waits at the front of a connection without a session.
    fn heralded<'a>(&self, connection: &'a Connection) -> Option<Who<'a>> {
        if connection.session().is_some() {
            return None;
        }
        let size_max = self.limits_at(connection.listener).connect_packet_size_max;
        match wire::next_frame(&connection.partial, size_max, LengthForm::Any) {
            Ok(NextFrame::Frame(frame)) => {
                wire::decode_connect(&frame, &self.decode_limits).ok().map(|connect| Who::of(&connect))
            }
            Ok(NextFrame::Incomplete { .. }) | Err(_) => None,
        }
    }

    /// A CONNECT was refused; `who` is what it says of its client, as far as it could be read. A certificate counts more.
    pub(super) fn log_refused(&self, key: Key, who: Who<'_>, reason: Reason, why: &'static str) {
        let Some(connection) = self.connections.get(key) else { return };
        let certified = connection.transport.as_ref().and_then(|transport| transport.peer().user);
        let mut values = vec![
            ("client", who.client_id.into()),
            ("user", certified.unwrap_or(who.user_name).into()),
            ("address", connection.peer().into()),
            ("why", why.into()),
            ("code", Value::Code(reason.0)),
        ];
        // Why this is so, an operator sees by whose the session is. The client is told nothing of it.
        let owner = (why == ANOTHERS.1).then(|| self.session_of(who.client_id)).flatten();
        if let Some(slot) = owner.and_then(|session| self.sessions.get(session)) {
            values.push(("owner", slot.user.as_deref().unwrap_or_default().into()));
        }
        log::event(Level::Warn, Kind::Refused, &values);
    }

    /// A connection was closed when it was accepted.
    pub(super) fn log_turned_away(&self, peer: SocketAddr, why: &'static str) {
        log::event(Level::Warn, Kind::Refused, &[("address", peer.into()), ("why", why.into())]);
    }

    /// A connected client wants more of something than it may have.
    pub(super) fn log_limit(&self, session: Key, why: &'static str) {
        let Some(slot) = self.sessions.get(session) else { return };
        let Some(connection) = slot.connection.and_then(|key| self.connections.get(key)) else { return };
        let values = [
            ("client", Value::from(&*slot.client_id)),
            ("user", slot.user.as_deref().unwrap_or_default().into()),
            ("address", connection.peer().into()),
            ("why", why.into()),
        ];
        log::event(Level::Warn, Kind::LimitReached, &values);
    }

    /// The time of a session without a connection is up.
    pub(super) fn log_expired(&self, session: Key) {
        let Some(slot) = self.sessions.get(session) else { return };
        let values = [
            ("client", Value::from(&*slot.client_id)),
            ("user", slot.user.as_deref().unwrap_or_default().into()),
            ("after_s", slot.expiry_s.into()),
        ];
        log::event(Level::Info, Kind::Expired, &values);
    }

    /// The kernel gives no more connections for now.
    pub(super) fn log_accept_failed(&self, errno: i32) {
        let error = std::io::Error::from_raw_os_error(errno).to_string();
        let values =
            [("why", Value::from("no connection could be accepted")), ("error", error.as_str().into())];
        log::event(Level::Error, Kind::System, &values);
    }

    /// The rules of the transport were broken, mostly within the handshake.
    pub(super) fn log_transport_failed(&self, connection: &Connection, why: &str) {
        if connection.live().is_some() {
            return self.log_of(connection, (Level::Warn, Kind::ProtocolError), why, None);
        }
        let values = [("address", connection.peer().into()), ("why", why.into())];
        log::event(Level::Warn, Kind::NoConnect, &values);
    }

    fn client_id(&self, connection: &Connection) -> &str {
        self.slot(connection).map_or("", |slot| &*slot.client_id)
    }

    /// Who the client was found to be; empty if it is anonymous, whatever it calls itself.
    fn user<'a>(&'a self, connection: &'a Connection) -> &'a str {
        let of_session = self.slot(connection).and_then(|slot| slot.user.as_deref());
        let of_login = || connection.identity.as_ref().and_then(|identity| identity.user.as_deref());
        of_session.or_else(of_login).unwrap_or_default()
    }

    fn slot(&self, connection: &Connection) -> Option<&Slot> {
        connection.session().and_then(|session| self.sessions.get(session))
    }
}
