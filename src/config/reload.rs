//! What a file that is read again changes: the settings of the whole broker by name, and which of
//! them need a restart.

use std::fmt;

use clap::CommandFactory;

use super::commands::Sources;
use super::{Config, ConfigError, FileError, Flags, file};

/// Settings that hold from the start to the end of the process.
const NEEDS_RESTART: [&str; 12] = [
    "cores",
    "shards",
    "no-pin",
    "io",
    "cached-topics-max",
    "log-format",
    "log-file",
    "data",
    "durability",
    "data-max",
    "data-damaged",
    "will-grace",
];

/// Settings that name listeners, which are compared one by one.
const LISTENERS: [&str; 2] = ["listen", "tls-listen"];

/// A name and what is set.
type Setting = (String, Option<String>);

/// By name, what is set, in the order of the help.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(Vec<Setting>);

/// A setting that has another value than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub setting: String,
    before: Option<String>,
    now: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
        write!(f, "{} {} -> {}", self.setting, shown(&self.before), shown(&self.now))
    }
}

impl Settings {
    /// What the file and the command line say together.
    pub(super) fn read(sources: &Sources) -> Result<Settings, ConfigError> {
        let command = Flags::command();
        let all = command
            .clone()
            .try_get_matches_from(&sources.arguments)
            .map_err(|error| sources.incomplete(error))?;
        let flat = file::Effective {
            command: &command,
            all: &all,
            given: &sources.given,
            settings: &[],
            path: None,
            adjusted: Vec::new(),
        };
        let names = file::settable(&command).filter_map(clap::Arg::get_long);
        let value = |name: &str| flat.of(name).map(|(value, _)| value.trim_matches('"').to_owned());
        Ok(Settings(names.map(|name| (name.to_owned(), value(name))).collect()))
    }

    /// What is different from `before`.
    fn changes(&self, before: &Settings) -> Vec<Change> {
        let pairs = before.0.iter().zip(&self.0);
        let changed = pairs.filter(|((name, was), (_, is))| was != is && !LISTENERS.contains(&name.as_str()));
        let change = |(was, is): (&Setting, &Setting)| Change {
            setting: was.0.clone(),
            before: was.1.clone(),
            now: is.1.clone(),
        };
        changed.map(change).collect()
    }

    fn set(&mut self, name: &str, from: &Settings) {
        let find = |(other, _): &&Setting| other == name;
        let kept = from.0.iter().find(find).and_then(|(_, value)| value.clone());
        if let Some((_, value)) = self.0.iter_mut().find(|(other, _)| other == name) {
            *value = kept;
        }
    }
}

impl Config {
    /// What differs from the configuration that is in force: what takes effect, and what needs a
    /// restart. The latter is as in `running` from here on.
    pub fn succeed(&mut self, running: &Config) -> (Vec<Change>, Vec<Change>) {
        let changes = self.settings.changes(&running.settings);
        let (kept, taken) =
            changes.into_iter().partition(|change| NEEDS_RESTART.contains(&change.setting.as_str()));
        for name in NEEDS_RESTART {
            self.settings.set(name, &running.settings);
        }
        self.placement.clone_from(&running.placement);
        self.io = running.io;
        self.cached_topics_max = running.cached_topics_max;
        self.log_format = running.log_format;
        self.log_file.clone_from(&running.log_file);
        self.store.clone_from(&running.store);
        (taken, kept)
    }

    /// A limit that cannot be changed so far now stays; it is no change in `taken` then. Returns
    /// what was asked for.
    pub fn keep_connections_max(&mut self, running: &Config, taken: &mut Vec<Change>) -> Option<Change> {
        const NAME: &str = "connections-max";
        self.settings.set(NAME, &running.settings);
        let at = taken.iter().position(|change| change.setting == NAME);
        at.map(|at| taken.remove(at))
    }

    /// An error about a listener, with the place of that listener in the file.
    pub fn at_listener(&self, index: usize, what: String) -> ConfigError {
        match (&self.file, self.listener_places.get(index).copied().flatten()) {
            (Some(path), Some(at)) => ConfigError::File(FileError { path: path.clone(), at: Some(at), what }),
            _ => ConfigError::Wrong(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use super::*;

    #[test]
    fn a_setting_that_needs_a_restart_stays_and_is_named() {
        let running = parse("--shards 1 --packet-size-max 1M --log-level warn");
        let mut new =
            parse("--shards 2 --packet-size-max 2M --io epoll --log-level warn --listen 127.0.0.1:7");
        let (taken, kept) = new.succeed(&running);
        let texts = |changes: &[Change]| changes.iter().map(Change::to_string).collect::<Vec<_>>();
        assert_eq!(texts(&taken), ["packet-size-max 1M -> 2M"]);
        assert_eq!(texts(&kept), ["shards 1 -> 2", "io auto -> epoll"]);
        assert_eq!((new.placement.len(), new.io), (1, running.io));
        let mut again = new.clone();
        assert_eq!(again.succeed(&new), (Vec::new(), Vec::new()), "it is compared with what is in force");
    }

    /// A new flag fails here until somebody has decided whether a running broker takes it.
    #[test]
    fn each_setting_takes_effect_or_needs_a_restart() {
        const TAKES_EFFECT: &[&str] = &[
            "listen",
            "allow-anonymous",
            "password-file",
            "acl-file",
            "client-ids",
            "strict-subscribe",
            "suback-unspecified",
            "tls-listen",
            "tls-cert",
            "tls-key",
            "tls-key-password-file",
            "tls-record-size-max",
            "tls-client-ca",
            "tls-client-cert",
            "tls-client-user",
            "connections-max",
            "share-wait",
            "connect-timeout",
            "keep-alive-max",
            "session-expiry-max",
            "subscriptions-max",
            "packet-size-max",
            "connect-packet-size-max",
            "receive-maximum",
            "send-maximum",
            "topic-alias-max",
            "topic-levels-max",
            "properties-max",
            "queue-messages-max",
            "queue-bytes-max",
            "queue-full",
            "send-buffer-max",
            "retained-messages-max",
            "retained-bytes-max",
            "memory-max",
            "log-level",
            "sys-interval",
            "shutdown-timeout",
        ];
        let command = Flags::command();
        for name in file::settable(&command).filter_map(clap::Arg::get_long) {
            let decided = [TAKES_EFFECT.contains(&name), NEEDS_RESTART.contains(&name)];
            assert!(decided[0] != decided[1], "does {name} take effect at SIGHUP, or need a restart?");
        }
    }
}
