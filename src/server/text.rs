//! What is said at the start: sentences for people, and the same as fields where the log is JSON.

use std::net::SocketAddr;

use super::{Reloaded, Server};
use crate::config::{self, Change, Config};
use crate::limits::QueueFull;
use crate::log::{self, Kind, Level, Value};
use crate::metrics::{Counter, Counters, sum};

/// A line of the start text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sentence {
    pub level: Level,
    pub text: String,
    pub fields: Vec<(&'static str, Field)>,
}

/// A value of a [`Sentence`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Field {
    Text(String),
    Number(u64),
    Flag(bool),
}

impl Sentence {
    fn new(text: impl Into<String>) -> Sentence {
        Sentence { level: Level::Info, text: text.into(), fields: Vec::new() }
    }

    fn with(mut self, name: &'static str, field: Field) -> Sentence {
        self.fields.push((name, field));
        self
    }

    fn text(self, name: &'static str, text: impl Into<String>) -> Sentence {
        self.with(name, Field::Text(text.into()))
    }

    fn number(self, name: &'static str, number: impl Into<u64>) -> Sentence {
        self.with(name, Field::Number(number.into()))
    }

    fn flag(self, name: &'static str, flag: bool) -> Sentence {
        self.with(name, Field::Flag(flag))
    }

    /// Says it in the log.
    pub fn say(&self) {
        let value = |field| match field {
            &Field::Number(number) => Value::Number(number),
            &Field::Flag(flag) => Value::Flag(flag),
            Field::Text(text) => Value::Text(text),
        };
        let fields: Vec<_> = self.fields.iter().map(|(name, field)| (*name, value(field))).collect();
        log::say(self.level, Kind::Start, &self.text, &fields);
    }
}

impl Server {
    /// What a person should know, line by line.
    pub fn start_text(&self, config: &Config) -> Vec<Sentence> {
        let version = env!("CARGO_PKG_VERSION");
        let mut said = vec![
            Sentence::new(format!("ringmq {version}"))
                .text("version", version)
                .number("pid", std::process::id()),
        ];
        said.extend(self.listeners_text(config));
        said.push(self.shards_text(config));
        let io = self.kernel.to_string();
        said.push(Sentence::new(format!("io: {io}")).text("io", io));
        said.push(self.limits_text());
        said.extend(self.store_text());
        let access = config::access_text(config, &self.access.users);
        said.extend(access.into_iter().map(|text| match text.split_once(": ") {
            Some((_, who)) => {
                let who = who.to_owned();
                Sentence::new(text).text("access", who)
            }
            None => Sentence::new(text),
        }));
        said.extend(config.warnings.iter().map(|warning| Sentence {
            level: Level::Warn,
            ..Sentence::new(format!("warning: {warning}")).text("warning", warning)
        }));
        if !config.network_hint.is_empty() {
            said.push(
                Sentence::new(format!(
                    "only this machine can connect; to let the network in: {}",
                    config.network_hint
                ))
                .flag("local", true),
            );
        }
        said
    }

    fn listeners_text(&self, config: &Config) -> Vec<Sentence> {
        let one = |(address, listener): (&std::net::SocketAddr, &config::ListenerConfig)| {
            let mut more = config::listener_text(config, listener);
            let acceptor =
                self.acceptors.iter().find(|acceptor| Some(acceptor.settings()) == listener.tls.as_ref());
            let until = acceptor.map(|acceptor| log::day(acceptor.expiry().certificate_at_s));
            if let Some(until) = &until {
                more.push_str(&format!(", certificate until {until}"));
            }
            let text = match more.is_empty() {
                true => format!("listening on {address}"),
                false => format!("listening on {address} ({more})"),
            };
            let said = Sentence::new(text)
                .text("listening", address.to_string())
                .flag("tls", listener.tls.is_some());
            match until {
                Some(until) => said.text("certificate_until", until),
                None => said,
            }
        };
        self.addresses.iter().zip(&config.listeners).map(one).collect()
    }

    fn store_text(&self) -> Vec<Sentence> {
        let Some(store) = &self.store else {
            return vec![
                Sentence::new(
                    "nothing survives a restart: sessions, queued messages and retained messages are lost when this \
                     process stops; to keep them: --data DIRECTORY",
                )
                .flag("persistent", false),
            ];
        };
        let found = &store.said;
        let (directory, level) = (found.directory.display(), found.durability);
        let what = match found.is_new {
            true => "new".to_owned(),
            false => format!(
                "{} sessions, {} messages for them, {} retained, in {} ms{}",
                found.sessions,
                found.messages,
                found.retained,
                found.took_ms,
                if found.stopped { "" } else { ", after a broker that was not stopped in order" }
            ),
        };
        let mut said = vec![
            Sentence::new(format!(
                "data: {directory} ({what}); acknowledged means kept after a loss of {}",
                match level {
                    "power" => "power",
                    _ => "the process",
                }
            ))
            .flag("persistent", true)
            .text("data", directory.to_string())
            .text("durability", level)
            .number("sessions", found.sessions)
            .number("messages", found.messages)
            .number("retained", found.retained)
            .number("took_ms", found.took_ms),
        ];
        if found.torn_bytes > 0 {
            let bytes = found.torn_bytes;
            said.push(
                Sentence::new(format!(
                    "data: the broker ended while it wrote {bytes} bytes; nobody was answered for them, and they are gone"
                ))
                .number("torn_bytes", bytes),
            );
        }
        let warn = |text: String| Sentence { level: Level::Warn, ..Sentence::new(text) };
        said.extend(found.warnings.iter().map(|why| warn(format!("warning: data: {why}"))));
        said.extend(found.damage.iter().map(|what| Sentence {
            level: Level::Error,
            ..Sentence::new(format!("data is damaged: {what}; the files are in {directory}/damaged"))
        }));
        said
    }

    fn shards_text(&self, config: &Config) -> Sentence {
        let shards = self.shards.len();
        match config.placement.iter().copied().collect::<Option<Vec<u16>>>() {
            Some(mut cpus) => {
                cpus.sort_unstable();
                cpus.dedup();
                let cpus = config::ranges(&cpus);
                Sentence::new(format!("shards: {shards}, bound to CPU {cpus}"))
                    .number("shards", shards as u64)
                    .text("cpus", cpus)
            }
            None => Sentence::new(format!("shards: {shards}, on CPUs that the scheduler chooses"))
                .number("shards", shards as u64),
        }
    }

    fn limits_text(&self) -> Sentence {
        let limits = &self.limits;
        let (full, full_said) = match limits.queue_full {
            QueueFull::DropNewest => ("drop-newest", "the newest is dropped"),
            QueueFull::DropOldest => ("drop-oldest", "the oldest is dropped"),
            QueueFull::Disconnect => ("disconnect", "the client is disconnected"),
        };
        let retained_bytes = limits.retained_bytes_max.min(limits.memory_max / 2);
        Sentence::new(format!(
            "limits: {} connections, packets of {}, {} messages and {} queued a session ({full_said}), {} retained \
             messages of {} in all, {} of memory; all: ringmq --help",
            limits.connections_max,
            config::bytes(limits.packet_size_max.into()),
            limits.queue_messages_max,
            config::bytes(limits.queue_bytes_max),
            limits.retained_messages_max,
            config::bytes(retained_bytes),
            config::bytes(limits.memory_max),
        ))
        .number("connections_max", limits.connections_max)
        .number("packet_size_max", limits.packet_size_max)
        .number("queue_messages_max", limits.queue_messages_max)
        .number("queue_bytes_max", limits.queue_bytes_max)
        .text("queue_full", full)
        .number("retained_messages_max", limits.retained_messages_max)
        .number("retained_bytes_max", retained_bytes)
        .number("memory_max", limits.memory_max)
    }
}

/// The last words of a broker that ends by a panic: what is lost, as it was counted last.
pub fn lost_in_a_crash(counters: &[Counters]) -> String {
    let of = |pick: fn(&Counters) -> &Counter| sum(counters, pick);
    format!(
        "ringmq: the process ends after a panic. Lost, as last counted: {} sessions, {} messages for them, {} retained messages\n",
        of(|shard| &shard.sessions),
        of(|shard| &shard.queued_messages),
        of(|shard| &shard.retained_messages)
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_says_what_is_lost() {
        let counters = [Counters::default(), Counters::default()];
        counters.iter().for_each(|shard| shard.sessions.add(2));
        counters[1].retained_messages.add(7);
        let said = lost_in_a_crash(&counters);
        assert!(said.contains("4 sessions, 0 messages for them, 7 retained messages"), "{said}");
    }
}
