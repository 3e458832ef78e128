//! What is written to the log: who came and went, and why somebody was refused. Never anything per message.

use std::net::SocketAddr;

use crate::log::{self, Kind, Level, Value};
use crate::memory::ShardId;
use crate::wire::{Reason, Version};

use super::connection::{Connection, End, Phase};
use super::request::Request;
use super::slots::Slot;

/// What is known of a client when something is said of it.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Who<'a> {
    pub client_id: &'a str,
    pub user: &'a str,
}

impl<'a> Who<'a> {
    /// The client of a CONNECT.
    pub fn asks(request: &'a Request) -> Who<'a> {
        Who { client_id: &request.client_id, user: request.user() }
    }

    /// The client of a session; its user is who it was found to be, whatever it calls itself.
    pub fn has(slot: &'a Slot) -> Who<'a> {
        Who { client_id: &slot.client_id, user: slot.user.as_deref().unwrap_or_default() }
    }
}

pub(super) fn connected(connection: &Connection, slot: &Slot, request: &Request, shard: ShardId) {
    if !log::enabled(Level::Info) {
        return;
    }
    let version = match request.version {
        Version::V31 => "3.1",
        Version::V311 => "3.1.1",
        Version::V5 => "5.0",
    };
    let Who { client_id, user } = Who::has(slot);
    let values = [
        ("client", client_id.into()),
        ("user", user.into()),
        ("address", connection.peer().into()),
        ("version", version.into()),
        ("keep_alive_s", Value::from(request.keep_alive_s)),
        ("shard", Value::from(shard)),
    ];
    log::event(Level::Info, Kind::Connect, &values);
}

/// A connection is over whose client was connected.
pub(super) fn disconnected(connection: &Connection, slot: &Slot, end: End, is_stopping: bool) {
    let (level, kind, why) = match end {
        End::Told => return,
        End::Disconnected => (Level::Info, Kind::Disconnect, "DISCONNECT"),
        End::DisconnectedWithWill => (Level::Info, Kind::Disconnect, "DISCONNECT with will"),
        End::Lost if is_stopping => (Level::Info, Kind::Disconnect, "the server is shutting down"),
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
    of_client(connection, Who::has(slot), (level, kind), why, code);
}

/// A connection is over whose client was not connected.
pub(super) fn left(connection: &Connection, end: End, is_stopping: bool) {
    let (level, kind, why, code) = match end {
        End::Told => return,
        End::Lost if matches!(connection.phase, Phase::Opening) => {
            return left_before_connect(connection, is_stopping);
        }
        End::Lost if is_stopping => (Level::Info, Kind::Disconnect, "the server is shutting down", None),
        End::Refused(reason, why) => (Level::Warn, Kind::LimitReached, why, Some(reason)),
        End::Lost | End::Disconnected | End::DisconnectedWithWill | End::TakenOver => {
            (Level::Info, Kind::Disconnect, "connection lost before CONNACK", None)
        }
    };
    let who = connection.request().map_or(Who::default(), Who::asks);
    of_client(connection, who, (level, kind), why, code);
}

/// A connection that ends before its CONNECT went away by itself, as a look whether the port is open does.
fn left_before_connect(connection: &Connection, is_stopping: bool) {
    let handshake = connection.transport.as_ref().and_then(|transport| transport.handshake());
    let (level, why) = match (connection.partial.is_empty(), handshake) {
        _ if is_stopping => (Level::Debug, "the server is shutting down"),
        (true, Some(handshake)) => (Level::Debug, handshake.left),
        (true, None) => (Level::Debug, "the peer closed without a byte"),
        (false, _) => (Level::Warn, "the peer closed in the middle of its CONNECT"),
    };
    log::event(level, Kind::NoConnect, &[("address", connection.peer().into()), ("why", why.into())]);
}

/// Something is said of a client.
pub(super) fn of_client(
    connection: &Connection,
    Who { client_id, user }: Who<'_>,
    (level, kind): (Level, Kind),
    why: &str,
    code: Option<Reason>,
) {
    if !log::enabled(level) {
        return;
    }
    let mut values = vec![
        ("client", client_id.into()),
        ("user", user.into()),
        ("address", connection.peer().into()),
        ("why", why.into()),
    ];
    values.extend(code.map(|code| ("code", Value::Code(code.0))));
    log::event(level, kind, &values);
}

/// A CONNECT was refused. `owner` is whose the session is that it asked for: why the answer is what it is, an operator sees
/// by this. The client is told nothing of it.
pub(super) fn refused(
    connection: &Connection,
    who: Who<'_>,
    reason: Reason,
    why: &'static str,
    owner: Option<&str>,
) {
    // A certificate counts more than what CONNECT says.
    let certified = connection.transport.as_ref().and_then(|transport| transport.peer().user);
    let mut values = vec![
        ("client", who.client_id.into()),
        ("user", certified.unwrap_or(who.user).into()),
        ("address", connection.peer().into()),
        ("why", why.into()),
        ("code", Value::Code(reason.0)),
    ];
    values.extend(owner.map(|owner| ("owner", owner.into())));
    log::event(Level::Warn, Kind::Refused, &values);
}

/// A connection was closed when it was accepted.
pub(super) fn turned_away(peer: SocketAddr, why: &'static str) {
    log::event(Level::Warn, Kind::Refused, &[("address", peer.into()), ("why", why.into())]);
}

/// A connection ends from which no CONNECT came that could be acted upon.
pub(super) fn no_connect(connection: &Connection, why: &str) {
    let values = [("address", connection.peer().into()), ("why", why.into())];
    log::event(Level::Warn, Kind::NoConnect, &values);
}

/// A connected client wants more of something than it may have.
pub(super) fn limit_reached(connection: &Connection, slot: &Slot, why: &'static str) {
    of_client(connection, Who::has(slot), (Level::Warn, Kind::LimitReached), why, None);
}

/// The time of a session without a connection is up.
pub(super) fn expired(slot: &Slot) {
    let Who { client_id, user } = Who::has(slot);
    let values = [("client", client_id.into()), ("user", user.into()), ("after_s", slot.expiry_s.into())];
    log::event(Level::Info, Kind::Expired, &values);
}

/// The kernel gives no more connections for now.
pub(super) fn accept_failed(errno: i32) {
    let error = std::io::Error::from_raw_os_error(errno).to_string();
    let values = [("why", Value::from("no connection could be accepted")), ("error", error.as_str().into())];
    log::event(Level::Error, Kind::System, &values);
}
