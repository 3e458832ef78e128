//! Flags and file to [`Config`]: everything that a person can set, checked against the machine before anything starts.
//!
//! Arguments and a description of the machine go in, a configuration or one paragraph that says what to type comes out;
//! nothing but the file that `--config` names is read. Each limit's help says its unit and what happens when it is reached.

mod access;
mod address;
mod commands;
mod explain;
mod file;
mod flags;
mod foreign;
mod help;
mod limits;
mod listener;
mod placement;
mod reload;
mod size;
mod span;
mod store;
mod store_commands;
#[cfg(test)]
mod tests;
mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

use crate::access::Settings as AccessSettings;
use crate::access::hashing::HASHING_THREADS_MAX;
use crate::clock::Millis;
use crate::io::kernel::Choice;
use crate::io::machine::Machine;
use crate::limits::{Limits, ListenerLimits};
use crate::log::{Format, Level};
use crate::transport::tls::Settings;

use commands::Sources;
pub use commands::{Checked, check, effective, passwd};
pub use explain::{access_text, listener_text};
pub use file::FileError;
use flags::Flags;
pub use help::spelled_out;
pub use limits::pools;
use placement::placement;
pub use placement::ranges;
pub use reload::{Change, Settings as SettingsInForce};
pub use size::bytes;
pub use store::{DataDamaged, Durability, StoreConfig};
pub use store_commands::{DumpWhat, StoreCommand, store_command};

/// Exit codes, as sysexits.h has them; those below 64 are our own.
pub mod exit {
    /// `ringmq check` found nothing wrong, but something that somebody should look after, such as a certificate that expires
    /// soon. A start succeeds.
    pub const WARNINGS: u8 = 1;
    /// `ringmq store` found damage.
    pub const DAMAGED: u8 = 1;
    /// `ringmq store` cannot use the data directory at all.
    pub const UNUSABLE: u8 = 2;
    /// The command line is wrong, or asks for what this machine does not have.
    pub const USAGE: u8 = 64;
    /// A file that was named is missing or wrong.
    pub const CONFIG: u8 = 78;
    /// There is no io_uring that can be used.
    pub const UNAVAILABLE: u8 = 69;
    /// The operating system refused: an address is taken, descriptors or memory ran out.
    pub const SYSTEM: u8 = 71;
    /// The data directory cannot be written any more.
    pub const IO: u8 = 74;
    /// A privilege is missing.
    pub const PRIVILEGE: u8 = 77;
}

/// A broker's configuration, complete and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Numbered as [`crate::io::ListenerId`] does.
    pub listeners: Vec<ListenerConfig>,
    /// One entry per shard: the CPU that it is bound to, if any.
    pub placement: Vec<Option<u16>>,
    /// Which way to the kernel.
    pub io: Choice,
    pub limits: Limits,
    /// Was `connections_max` asked for? If not, it follows the limit of descriptors.
    pub connections_asked: bool,
    pub log_level: Level,
    pub log_format: Format,
    /// Where the log goes; `None` for stderr.
    pub log_file: Option<PathBuf>,
    /// Milliseconds between two states of `$SYS`; 0 for none.
    pub sys_interval_ms: Millis,
    /// Of each shard: [`crate::shard::Options::route_cache_entries`].
    pub cached_topics_max: usize,
    pub shutdown_timeout_ms: Millis,
    /// Where what is kept is on disk; `None` to keep nothing.
    pub store: Option<StoreConfig>,
    pub access: AccessSettings,
    /// Threads that hash passwords, where there are users.
    pub hashing_threads: usize,
    /// What would listen to the network, for the start text; empty if something does.
    pub network_hint: String,
    /// What holds and may surprise.
    pub warnings: Vec<String>,
    /// The file that `--config` names.
    pub file: Option<PathBuf>,
    /// Where each listener stands in it.
    pub listener_places: Vec<Option<(usize, usize)>>,
    /// By name, to see what a later file changes.
    pub settings: SettingsInForce,
}

/// One address that is served. Who is let in there is in [`AccessSettings::doors`].
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerConfig {
    pub address: SocketAddr,
    /// `None` for MQTT over plain TCP.
    pub tls: Option<Settings>,
    pub limits: ListenerLimits,
    /// It is one with the listener in front of it: a limit of connections holds for both together.
    pub shares_room: bool,
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// Help or version was asked for, or the flags do not parse; knows how to print itself.
    Clap(clap::Error),
    /// A value that cannot be.
    Wrong(String),
    /// A file that is missing or wrong.
    File(FileError),
}

impl ConfigError {
    /// The code that the process exits with.
    pub fn exit_code(&self) -> u8 {
        match self {
            ConfigError::Clap(error) if !error.use_stderr() => 0,
            ConfigError::File(_) => exit::CONFIG,
            _ => exit::USAGE,
        }
    }
}

impl ConfigError {
    /// What is wrong, in one line, for the log.
    pub fn short(&self) -> String {
        match self {
            ConfigError::Clap(error) => file::first_line(&error.to_string()),
            ConfigError::Wrong(_) | ConfigError::File(_) => self.to_string(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Clap(error) => error.fmt(f),
            ConfigError::Wrong(what) => f.write_str(what),
            ConfigError::File(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads the command line, the program's name first. `affinity` has the CPUs that this process may use.
    ///
    /// # Errors
    /// What is wrong and what to type instead; help and version too come this way.
    pub fn parse(args: &[String], machine: &Machine, affinity: &[u16]) -> Result<Config, ConfigError> {
        let sources = Sources::read(args)?;
        let flags = Flags::try_parse_from(&sources.arguments).map_err(|error| sources.incomplete(error))?;
        let placement = placement(&flags.core, machine, affinity).map_err(|unfit| sources.unfit(unfit))?;
        let limits = limits::limits(&flags, machine).map_err(|unfit| sources.unfit(unfit))?;
        let listener::Listeners { listeners, access, places } =
            listener::listeners(&sources, &flags, (&limits, machine), args)?;
        let operation = &flags.operation;
        let mut config = Config {
            listeners,
            placement,
            io: flags.core.io,
            limits,
            connections_asked: flags.client.connections_max.is_some(),
            log_level: operation.log_level,
            log_format: operation.log_format,
            log_file: operation.log_file.clone(),
            sys_interval_ms: operation.sys_interval.ms,
            cached_topics_max: flags.memory.cached_topics_max as usize,
            shutdown_timeout_ms: operation.shutdown_timeout.ms,
            store: StoreConfig::of(&flags.store),
            access,
            hashing_threads: hashing_threads(machine, affinity.len()),
            network_hint: String::new(),
            warnings: limits::warnings(&flags, machine),
            file: sources.path.clone(),
            listener_places: places,
            settings: SettingsInForce::read(&sources)?,
        };
        if config.is_local() {
            config.network_hint = network_hint(&config, &sources, args);
        }
        Ok(config)
    }

    /// The addresses of all listeners.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|listener| listener.address).collect()
    }

    pub fn shards(&self) -> u16 {
        self.placement.len() as u16
    }
}

/// What to do so that the network is served.
fn network_hint(config: &Config, sources: &Sources, args: &[String]) -> String {
    if let (false, Some(path)) = (sources.listeners.is_empty(), &sources.path) {
        return format!("an address such as :1883 in a [[listener]] of {}", path.display());
    }
    let plain = config.listeners.iter().find(|listener| listener.tls.is_none());
    if plain.is_none() {
        return "--tls-listen with another address, such as :8883".to_owned();
    }
    let port = plain.map(|listener| listener.address.port()).filter(|port| *port != 0).unwrap_or(1883);
    let command = command(&without_listen(args));
    match config.access.password_files.is_empty() {
        true => format!("{command} --listen :{port} --allow-anonymous"),
        false => format!("{command} --listen :{port}"),
    }
}

/// One for each CPU, since they take only the time that nothing else wants. A quota of CPU time knows no such order: where
/// there is one, they have half of it.
fn hashing_threads(machine: &Machine, cpus: usize) -> usize {
    let threads = match machine.cpu_quota {
        Some(quota) if quota < cpus as f64 => (quota / 2.0) as usize,
        Some(_) | None => cpus,
    };
    threads.clamp(1, HASHING_THREADS_MAX)
}

/// The command line without its addresses.
fn without_listen(args: &[String]) -> Vec<String> {
    let mut rest = args.iter();
    let mut kept = Vec::new();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--listen" => drop(rest.next()),
            "--allow-anonymous" | "--allow-anonymous=true" => {}
            other if other.starts_with("--listen=") => {}
            _ => kept.push(arg.clone()),
        }
    }
    kept
}

/// The command as it was typed, to be typed again.
fn command(args: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=".contains(c);
    let quote = |arg: &String| match !arg.is_empty() && arg.chars().all(plain) {
        true => arg.clone(),
        false => format!("'{}'", arg.replace('\'', "'\\''")),
    };
    args.iter().map(quote).collect::<Vec<_>>().join(" ")
}
