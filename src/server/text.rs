//! What is printed at the start.

use std::net::SocketAddr;

use super::{Reloaded, Server};
use crate::config::{self, Change, Config};
use crate::limits::QueueFull;
use crate::log;
use crate::transport::Acceptor;

impl Server {
    /// What a person should know, line by line.
    pub fn start_text(&self, config: &Config) -> Vec<String> {
        let limits = &self.limits;
        let cpus = match config.placement.iter().copied().collect::<Option<Vec<u16>>>() {
            Some(mut cpus) => {
                cpus.sort_unstable();
                cpus.dedup();
                format!("bound to CPU {}", config::ranges(&cpus))
            }
            None => "on CPUs that the scheduler chooses".to_owned(),
        };
        let full = match limits.queue_full {
            QueueFull::DropNewest => "the newest is dropped",
            QueueFull::DropOldest => "the oldest is dropped",
            QueueFull::Disconnect => "the client is disconnected",
        };
        let mut lines = vec![format!("ringmq {}", env!("CARGO_PKG_VERSION"))];
        lines.extend(self.addresses.iter().zip(&config.listeners).map(|(address, listener)| {
            let mut more = config::listener_text(config, listener);
            let acceptor =
                self.acceptors.iter().find(|acceptor| Some(acceptor.settings()) == listener.tls.as_ref());
            if let Some(acceptor) = acceptor {
                more.push_str(&format!(
                    ", certificate until {}",
                    log::day(acceptor.expiry().certificate_at_s)
                ));
            }
            if more.is_empty() {
                format!("listening on {address}")
            } else {
                format!("listening on {address} ({more})")
            }
        }));
        lines.push(format!("shards: {}, {cpus}", self.shards.len()));
        lines.push(format!("io: {}", self.kernel));
        lines.push(format!(
            "limits: {} connections, packets of {}, {} messages and {} queued a session ({full}), {} retained messages \
             of {} in all, {} of memory; all: ringmq --help",
            limits.connections_max,
            config::bytes(limits.packet_size_max.into()),
            limits.queue_messages_max,
            config::bytes(limits.queue_bytes_max),
            limits.retained_messages_max,
            config::bytes(limits.retained_bytes_max.min(limits.memory_max / 2)),
            config::bytes(limits.memory_max),
        ));
        lines.push(
            "sessions, queued messages and retained messages are lost when this process stops".to_owned(),
        );
        lines.extend(config::access_text(config, &self.access.users));
        if !config.network_hint.is_empty() {
            lines.push(format!(
                "only this machine is served; to listen to the network: {}",
                config.network_hint
            ));
        }
        lines
    }
}

impl Reloaded {
    /// What a reload did, for the line in the log.
    pub fn text(&self) -> Vec<(&'static str, String)> {
        let list = |texts: Vec<String>| texts.join(", ");
        let mut values = Vec::new();
        if self.users > 0 {
            values.push(("users", self.users.to_string()));
        }
        if self.rule_files > 0 {
            values.push(("acl-files", self.rule_files.to_string()));
        }
        let mut more = |name, texts: Vec<String>| {
            if !texts.is_empty() {
                values.push((name, list(texts)));
            }
        };
        let all = |changes: &[Change]| changes.iter().map(Change::to_string).collect();
        more("changed", all(&self.changed));
        more("listening-on", self.opened.iter().map(SocketAddr::to_string).collect());
        let gone = |(address, clients): &(SocketAddr, u32)| format!("{address} ({clients} clients stay)");
        more("closed", self.closed.iter().map(gone).collect());
        more("listeners-changed", self.altered.iter().map(SocketAddr::to_string).collect());
        let restart = |change: &Change| format!("{change} needs a restart");
        more("not-changed", self.needs_restart.iter().map(restart).collect());
        let is_same = self.changed.is_empty()
            && self.opened.is_empty()
            && self.closed.is_empty()
            && self.altered.is_empty();
        if is_same {
            values.push(("changed", "no setting".to_owned()));
        }
        values
    }
}
