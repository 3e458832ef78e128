//! What is written to the log: who came and went, and why somebody was refused. Never anything per message.

use crate::log::{self, Kind, Level, Value};
use crate::memory::Key;
use crate::wire::{Connect, Reason, Version};

use super::Core;
use super::connection::{Connection, End};

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
        let certified = connection.secure.as_ref().and_then(|secure| secure.peer().user);
        let values = [
            ("client", self.client_id(connection).into()),
            ("user", certified.or(connect.user_name).unwrap_or_default().into()),
            ("address", connection.peer().into()),
            ("version", version.into()),
            ("keep_alive_s", Value::from(connect.keep_alive_s)),
            ("shard", Value::from(self.id)),
        ];
        log::event(Level::Info, Kind::Connect, &values);
    }

    pub(super) fn log_end(&self, key: Key, end: End) {
        let (level, kind, why) = match end {
            End::Disconnected => (Level::Info, Kind::Disconnect, "DISCONNECT"),
            End::DisconnectedWithWill => (Level::Info, Kind::Disconnect, "DISCONNECT with will"),
            End::Lost => (Level::Info, Kind::Disconnect, "connection lost"),
            End::TakenOver => (Level::Info, Kind::TakenOver, "another connection has the session"),
            End::Refused(Reason::KEEP_ALIVE_TIMEOUT | Reason::SERVER_SHUTTING_DOWN, why) => {
                (Level::Info, Kind::Disconnect, why)
            }
            End::Refused(Reason::QUOTA_EXCEEDED, why) => (Level::Warn, Kind::LimitReached, why),
            End::Refused(_, why) => (Level::Warn, Kind::ProtocolError, why),
        };
        if !log::enabled(level) {
            return;
        }
        let Some(connection) = self.connections.get(key) else { return };
        let mut values = vec![
            ("client", self.client_id(connection).into()),
            ("address", connection.peer().into()),
            ("why", why.into()),
        ];
        if let End::Refused(reason, _) = end {
            values.push(("code", reason.0.into()));
        }
        log::event(level, kind, &values);
    }

    pub(super) fn log_refused(&self, key: Key, reason: Reason, why: &'static str) {
        let Some(connection) = self.connections.get(key) else { return };
        let values = [("address", connection.peer().into()), ("why", why.into()), ("code", reason.0.into())];
        log::event(Level::Warn, Kind::Refused, &values);
    }

    pub(super) fn log_transport_failed(&self, connection: &Connection, why: &str) {
        let values = [
            ("client", self.client_id(connection).into()),
            ("address", connection.peer().into()),
            ("why", why.into()),
        ];
        log::event(Level::Warn, Kind::Refused, &values);
    }

    fn client_id(&self, connection: &Connection) -> &str {
        connection
            .session()
            .and_then(|session| self.sessions.get(session))
            .map_or("", |slot| &*slot.client_id)
    }
}
