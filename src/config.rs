//! Flags and file to [`Config`]: everything that a person can set, checked against the machine before anything starts.
//!
//! Arguments and a description of the machine go in, a configuration or one paragraph that says what to type comes out;
//! nothing but the file that `--config` names is read. Each limit's help says its unit and what happens when it is reached.

mod access;
mod commands;
mod file;
mod placement;
mod size;
mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, ValueEnum};

use crate::access::Settings as AccessSettings;
use crate::clock::Millis;
use crate::io::kernel::Choice;
use crate::io::machine::Machine;
use crate::limits::{Limits, QueueFull};
use crate::log::{Format, Level};
use crate::memory::{CLASSES, Class, ShardSet};
use crate::transport::tls::Settings;

use commands::Sources;
pub use commands::{check, effective, passwd};
pub use file::FileError;
use placement::placement;
pub use placement::ranges;
use size::Size;
pub use size::bytes;
use tls::{TlsFlags, tls};

/// Exit codes, as sysexits.h has them.
pub mod exit {
    /// The command line is wrong, or asks for what this machine does not have.
    pub const USAGE: u8 = 64;
    /// A file that was named is missing or wrong.
    pub const CONFIG: u8 = 78;
    /// There is no io_uring that can be used.
    pub const UNAVAILABLE: u8 = 69;
    /// The operating system refused: an address is taken, descriptors or memory ran out.
    pub const SYSTEM: u8 = 71;
    /// A privilege is missing.
    pub const PRIVILEGE: u8 = 77;
}

/// A broker's configuration, complete and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Addresses of plain MQTT.
    pub listen: Vec<SocketAddr>,
    pub tls: Option<TlsConfig>,
    /// One entry per shard: the CPU that it is bound to, if any.
    pub placement: Vec<Option<u16>>,
    /// Which way to the kernel.
    pub io: Choice,
    pub limits: Limits,
    /// Was `connections_max` asked for? If not, it follows the limit of descriptors.
    pub connections_asked: bool,
    pub log_level: Level,
    pub log_format: Format,
    /// Milliseconds between two states of `$SYS`; 0 for none.
    pub sys_interval_ms: Millis,
    pub shutdown_timeout_ms: Millis,
    pub allow_anonymous: bool,
    pub access: AccessSettings,
    /// The command line that would listen to the network, for the start text; empty if this one does.
    pub network_hint: String,
}

/// MQTT over TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsConfig {
    pub listen: Vec<SocketAddr>,
    pub settings: Settings,
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

const AFTER_HELP: &str = "\
Sizes take the suffixes k, M and G, in steps of 1,024.

Examples:
  Try it on this machine, on every core:
    ringmq
  One core, the plain single-threaded broker:
    ringmq --cores 0
  Four cores, and everybody on the network may connect:
    ringmq --cores 0-3 --listen 0.0.0.0:1883 --listen '[::]:1883' --allow-anonymous
  Users with passwords, and rules about topics, for the network:
    ringmq passwd users.txt alice
    ringmq --listen 0.0.0.0:1883 --password-file users.txt --acl-file rules.txt
  The same from a file with a line for each flag:
    ringmq check ringmq.toml && ringmq --config ringmq.toml
  A small machine with many idle clients:
    ringmq --memory-max 256M --queue-messages-max 100 --send-buffer-max 64k

Exit codes:
  0    stopped by SIGTERM or SIGINT
  64   the command line is wrong, or asks for what this machine does not have
  69   io_uring is missing or forbidden; the message says which, and what to type
  71   the operating system refused: the address is taken, descriptors or memory ran out
  77   a privilege is missing, as for a port below 1024
  78   a file that was named is missing or wrong
  130, 143  ended at once by a second signal (SIGINT, SIGTERM)

Sessions, queued messages and retained messages live in memory: they are lost when the process stops.";

/// An MQTT 5.0, 3.1.1 and 3.1 broker that uses every core.
///
/// One thread and one io_uring per core; each client lives on one of them.
#[derive(Parser, Debug)]
#[command(name = "ringmq", version, after_long_help = AFTER_HELP, max_term_width = 110)]
#[command(
    after_help = "ringmq --help has the whole story: what happens at each limit, examples, exit codes."
)]
struct Flags {
    /// Read settings from this file
    ///
    /// TOML, with a key for each flag: memory-max = "1G", listen = ["127.0.0.1:1883"], allow-anonymous = true. A flag on
    /// the command line replaces what the file says. `ringmq check FILE` looks for mistakes, `ringmq config` with flags
    /// prints what would hold and where it comes from.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    address: AddressFlags,
    #[command(flatten)]
    access: access::AccessFlags,
    #[command(flatten)]
    tls: TlsFlags,
    #[command(flatten)]
    core: CoreFlags,
    #[command(flatten)]
    client: ClientFlags,
    #[command(flatten)]
    packet: PacketFlags,
    #[command(flatten)]
    queue: QueueFlags,
    #[command(flatten)]
    memory: MemoryFlags,
    #[command(flatten)]
    operation: OperationFlags,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Addresses")]
struct AddressFlags {
    /// Address and port to listen on; may be given several times
    ///
    /// IPv6 in brackets: [::1]:1883. With port 0 the kernel chooses one, which is printed. An address that others can
    /// reach needs --password-file or --allow-anonymous. [default: 127.0.0.1:1883, unless --tls-listen is given]
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    listen: Vec<SocketAddr>,

    /// Let clients in that name no user, at every address
    ///
    /// Without this flag they are let in at loopback addresses only, and nowhere if there is a --password-file; a client
    /// with a certificate (--tls-client-ca) is not anonymous. What they may do then is up to the rules.
    #[arg(long)]
    allow_anonymous: bool,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Cores")]
struct CoreFlags {
    /// CPUs to use, one shard on each, such as 0-3,6 [default: all that this process may use]
    ///
    /// The default is the affinity mask of the process, but no more CPUs than the cgroup's cpu.max grants. --cores 0
    /// is a single-threaded broker.
    #[arg(long, value_name = "LIST")]
    cores: Option<String>,

    /// Number of shards [default: one per CPU]
    ///
    /// May exceed the CPUs, which costs speed and helps only to test.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=ShardSet::MAX as i64))]
    shards: Option<u16>,

    /// Let the scheduler move shards between CPUs
    #[arg(long)]
    no_pin: bool,

    /// How to talk to the kernel
    ///
    /// Containers often forbid io_uring: Docker, Podman and containerd by default. What is taken, and why, is printed at
    /// the start.
    #[arg(long, value_enum, value_name = "WAY", default_value_t = Choice::Auto)]
    io: Choice,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Limits of clients")]
struct ClientFlags {
    /// Connections in all [default: 1000000, or what the limit of descriptors allows]
    ///
    /// Handshakes count. Beyond it a connection is closed as soon as it is accepted.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    connections_max: Option<u32>,

    /// Seconds from the connection to a whole CONNECT; beyond it the connection is closed
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().connect_timeout_ms / 1000,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    connect_timeout: u64,

    /// Longest Keep Alive of a v5 client, in seconds; 0 leaves it to the client
    ///
    /// A longer wish is shortened and announced (Server Keep Alive). Clients of 3.1.1 and 3.1 keep theirs.
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().keep_alive_max_s)]
    keep_alive_max: u16,

    /// Seconds that a session outlives its connection at most
    ///
    /// A longer wish is shortened and announced (v5). Persistent sessions of 3.x clients end after this time too.
    #[arg(long, value_name = "SECONDS", default_value_t = Limits::default().session_expiry_max_s)]
    session_expiry_max: u32,

    /// Subscriptions of one session
    ///
    /// Beyond it SUBACK says 0x97 (v5) or 0x80 (3.1.1) for each filter too many; what exists stays.
    #[arg(long, value_name = "N", default_value_t = Limits::default().subscriptions_max)]
    subscriptions_max: u32,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Limits of packets")]
struct PacketFlags {
    /// Bytes of a packet from a client; beyond it 0x95 (v5) and close
    #[arg(long, value_name = "BYTES", default_value_t = Size(Limits::default().packet_size_max.into()))]
    packet_size_max: Size,

    /// Bytes of a packet before CONNECT was accepted; beyond it the connection is closed
    #[arg(long, value_name = "BYTES", default_value_t = Size(Limits::default().connect_packet_size_max.into()))]
    connect_packet_size_max: Size,

    /// QoS 1 and 2 messages that a client may have unacknowledged; beyond it 0x93 (v5) and close
    #[arg(long, value_name = "N", default_value_t = Limits::default().receive_maximum,
          value_parser = clap::value_parser!(u16).range(1..))]
    receive_maximum: u16,

    /// QoS 1 and 2 messages that the broker has unacknowledged at one client
    ///
    /// The client's own Receive Maximum holds if it is smaller. Beyond it messages wait in the session's queue.
    #[arg(long, value_name = "N", default_value_t = Limits::default().send_maximum,
          value_parser = clap::value_parser!(u16).range(1..))]
    send_maximum: u16,

    /// Topic Aliases in each direction; beyond it 0x94 and close
    #[arg(long, value_name = "N", default_value_t = Limits::default().topic_alias_max)]
    topic_alias_max: u16,

    /// Levels of a Topic Name or Topic Filter; beyond it 0x90 or 0x8F
    #[arg(long, value_name = "N", default_value_t = Limits::default().topic_levels_max,
          value_parser = clap::value_parser!(u16).range(1..))]
    topic_levels_max: u16,

    /// Topic Filters in one SUBSCRIBE or UNSUBSCRIBE; beyond it 0x97 (v5) and close
    #[arg(long, value_name = "N", default_value_t = Limits::default().filters_max,
          value_parser = clap::value_parser!(u16).range(1..))]
    filters_max: u16,

    /// Properties in one packet; beyond it 0x97 and close
    #[arg(long, value_name = "N", default_value_t = Limits::default().properties_max,
          value_parser = clap::value_parser!(u16).range(1..))]
    properties_max: u16,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Limits of queues")]
struct QueueFlags {
    /// Messages that wait in one session, beside those in flight; beyond it see --queue-full
    #[arg(long, value_name = "N", default_value_t = Limits::default().queue_messages_max)]
    queue_messages_max: u32,

    /// Bytes that wait in one session; beyond it see --queue-full
    #[arg(long, value_name = "BYTES", default_value_t = Size(Limits::default().queue_bytes_max))]
    queue_bytes_max: Size,

    /// What gives way when a session's queue is full; each message dropped is counted
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = QueueFullFlag::DropNewest)]
    queue_full: QueueFullFlag,

    /// Bytes that wait for the socket of one connection
    ///
    /// Beyond it QoS 0 messages to this client are dropped and counted, and QoS 1 and 2 stay in its queue.
    #[arg(long, value_name = "BYTES", default_value_t = Size(Limits::default().send_buffer_bytes_max.into()))]
    send_buffer_max: Size,

    /// Retained messages
    ///
    /// Beyond it a message on a new topic is delivered but not retained, which is counted; on a topic that has one it
    /// still replaces it.
    #[arg(long, value_name = "N", default_value_t = Limits::default().retained_messages_max)]
    retained_messages_max: u64,

    /// Bytes of retained messages
    ///
    /// Beyond it a message is delivered but not retained, which is counted; an older one on its topic is dropped, since
    /// it would be wrong from now on.
    #[arg(long, value_name = "BYTES", default_value_t = Size(Limits::default().retained_bytes_max))]
    retained_bytes_max: Size,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Memory")]
struct MemoryFlags {
    /// Bytes for everything that clients make the broker keep [default: 75 % of memory]
    ///
    /// The default is three quarters of the cgroup's memory.max or of RAM, whichever is smaller; the last quarter is
    /// for connections, subscriptions and the program itself, which are bounded by their number. Retained messages may
    /// have --retained-bytes-max of it, but no more than half. Of the rest, queues of sessions get 55 %, bytes that
    /// wait for sockets 25 %, partial packets 15 %, and messages between cores 5 %. When a share is used up, in the
    /// order in which it happens to clients: QoS 0 messages to slow sockets are dropped; publishers that flood other
    /// cores are read more slowly; messages that a queue would have to keep are dropped as --queue-full says; new
    /// topics are not retained; connections with large unfinished packets are closed. All of it is counted.
    #[arg(long, value_name = "BYTES")]
    memory_max: Option<Size>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Operation")]
struct OperationFlags {
    /// Events to log on stderr
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = Level::Info)]
    log_level: Level,

    /// Lines as text or as JSON
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    log_format: Format,

    /// Seconds between two states of $SYS; 0 publishes none
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=86400))]
    sys_interval: u64,

    /// Seconds that stopping may take
    ///
    /// After SIGTERM or SIGINT no connection is accepted, Wills are published and clients are told to go (v5: 0x8B).
    /// What is not done in this time is left undone. A second signal ends the process at once.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=3600))]
    shutdown_timeout: u64,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
enum QueueFullFlag {
    /// The message that does not fit any more
    DropNewest,
    /// The message that has waited longest
    DropOldest,
    /// The client: 0x97 and close, and its session ends
    Disconnect,
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "an IP address and a port are expected, such as 127.0.0.1:1883, 0.0.0.0:1883 or [::1]:1883".to_owned()
    })
}

/// The largest packet that the Remaining Length can express, with its fixed header.
const PACKET_SIZE_MAX: u64 = 268_435_455 + 5;
/// No broker can live on less.
const MEMORY_MIN: u64 = 16 << 20;

impl Config {
    /// Reads the command line, the program's name first. `affinity` has the CPUs that this process may use.
    ///
    /// # Errors
    /// What is wrong and what to type instead; help and version too come this way.
    pub fn parse(args: &[String], machine: &Machine, affinity: &[u16]) -> Result<Config, ConfigError> {
        let sources = Sources::read(args)?;
        let flags = Flags::try_parse_from(&sources.arguments).map_err(ConfigError::Clap)?;
        let placement = placement(&flags.core, machine, affinity).map_err(ConfigError::Wrong)?;
        let limits = limits(&flags, machine).map_err(ConfigError::Wrong)?;
        let tls = tls(&flags.tls).map_err(ConfigError::Wrong)?;
        let mut listen = flags.address.listen.clone();
        if listen.is_empty() && tls.is_none() {
            listen.push(SocketAddr::from(([127, 0, 0, 1], 1883)));
        }
        let tls_listen = tls.as_ref().map_or(&[][..], |tls| &tls.listen);
        distinct(&[&listen, tls_listen].concat()).map_err(ConfigError::Wrong)?;
        let certified = tls.as_ref().is_some_and(|tls| tls.settings.clients.is_required());
        let anonymous = listen.iter().chain(tls_listen.iter().filter(|_| !certified));
        let open: Vec<&SocketAddr> = anonymous.filter(|address| !address.ip().is_loopback()).collect();
        let has_users = flags.access.has_users();
        if let (Some(address), false) = (open.first(), flags.address.allow_anonymous || has_users) {
            return Err(ConfigError::Wrong(format!(
                "not listening on {address}: others can reach it, and without users everybody who does could publish \
                 and subscribe. To have users: --password-file FILE (see: ringmq passwd --help). If everybody is what \
                 you want: {} --allow-anonymous",
                command(args)
            )));
        }
        let port = listen.first().map(SocketAddr::port).filter(|port| *port != 0).unwrap_or(1883);
        let network_hint = match open.is_empty() && tls.is_none() {
            true if has_users => format!("{} --listen 0.0.0.0:{port}", command(&without_listen(args))),
            true => format!("{} --listen 0.0.0.0:{port} --allow-anonymous", command(&without_listen(args))),
            false => String::new(),
        };
        let listeners = listen.iter().map(|address| (*address, false));
        let listeners = listeners.chain(tls_listen.iter().map(|address| (*address, certified)));
        let access = access::settings(&flags.access, listeners, flags.address.allow_anonymous);
        let operation = &flags.operation;
        Ok(Config {
            listen,
            tls,
            placement,
            io: flags.core.io,
            limits,
            connections_asked: flags.client.connections_max.is_some(),
            log_level: operation.log_level,
            log_format: operation.log_format,
            sys_interval_ms: operation.sys_interval * 1000,
            shutdown_timeout_ms: operation.shutdown_timeout * 1000,
            allow_anonymous: flags.address.allow_anonymous,
            access,
            network_hint,
        })
    }

    /// All addresses: those of plain MQTT, then those of TLS.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let tls = self.tls.as_ref().map_or(&[][..], |tls| &tls.listen);
        [&self.listen, tls].concat()
    }

    pub fn shards(&self) -> u16 {
        self.placement.len() as u16
    }
}

/// No address twice, and none that another one covers.
fn distinct(listen: &[SocketAddr]) -> Result<(), String> {
    for (index, address) in listen.iter().enumerate().filter(|(_, address)| address.port() != 0) {
        for other in listen[..index].iter().filter(|other| other.port() == address.port()) {
            if other == address {
                return Err(format!("--listen {address} is given twice"));
            }
            let same_family = other.is_ipv4() == address.is_ipv4();
            if same_family && (other.ip().is_unspecified() || address.ip().is_unspecified()) {
                let (all, one) =
                    if other.ip().is_unspecified() { (other, address) } else { (address, other) };
                return Err(format!("--listen {all} serves {one} too; leave --listen {one} out"));
            }
        }
    }
    Ok(())
}

/// The command line without its addresses.
fn without_listen(args: &[String]) -> Vec<String> {
    let mut rest = args.iter();
    let mut kept = Vec::new();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--listen" => drop(rest.next()),
            "--allow-anonymous" => {}
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

fn limits(flags: &Flags, machine: &Machine) -> Result<Limits, String> {
    let Flags { client, packet, queue, memory, .. } = flags;
    let packet_size_max = size("--packet-size-max", packet.packet_size_max, 128, PACKET_SIZE_MAX)?;
    let connect_packet_size_max =
        size("--connect-packet-size-max", packet.connect_packet_size_max, 128, PACKET_SIZE_MAX)?;
    let default_memory = Size((machine.memory() / 4 * 3).max(MEMORY_MIN));
    Ok(Limits {
        connections_max: client.connections_max.unwrap_or(Limits::default().connections_max),
        packet_size_max: packet_size_max as u32,
        connect_packet_size_max: connect_packet_size_max.min(packet_size_max) as u32,
        connect_timeout_ms: client.connect_timeout * 1000,
        receive_maximum: packet.receive_maximum,
        send_maximum: packet.send_maximum,
        topic_alias_max: packet.topic_alias_max,
        topic_levels_max: packet.topic_levels_max,
        filters_max: packet.filters_max,
        properties_max: packet.properties_max,
        subscriptions_max: client.subscriptions_max,
        queue_messages_max: queue.queue_messages_max,
        queue_bytes_max: queue.queue_bytes_max.0,
        queue_full: match queue.queue_full {
            QueueFullFlag::DropNewest => QueueFull::DropNewest,
            QueueFullFlag::DropOldest => QueueFull::DropOldest,
            QueueFullFlag::Disconnect => QueueFull::Disconnect,
        },
        send_buffer_bytes_max: size("--send-buffer-max", queue.send_buffer_max, 1024, 1 << 30)? as u32,
        retained_messages_max: queue.retained_messages_max,
        retained_bytes_max: queue.retained_bytes_max.0,
        session_expiry_max_s: client.session_expiry_max,
        keep_alive_max_s: client.keep_alive_max,
        memory_max: size(
            "--memory-max",
            memory.memory_max.unwrap_or(default_memory),
            MEMORY_MIN,
            i64::MAX as u64,
        )?,
    })
}

fn size(flag: &str, Size(bytes): Size, min: u64, max: u64) -> Result<u64, String> {
    if (min..=max).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(format!("{flag}: {} is not between {} and {}", Size(bytes), Size(min), Size(max)))
    }
}

/// How `memory_max` is split among the classes of kept bytes, for [`crate::memory::Pool::new`].
///
/// Retained messages have what was asked for them, but no more than half; the rest goes to queues (55 %), sends (25 %),
/// receives (15 %) and the mesh (5 %). What a class does not use is not lent to another: a flood of one kind must not
/// take what another needs to drain it.
pub fn pools(limits: &Limits) -> [u64; CLASSES] {
    let retained = limits.retained_bytes_max.min(limits.memory_max / 2);
    let hundredth = (limits.memory_max - retained) / 100;
    let mut pools = [0; CLASSES];
    pools[Class::Retained as usize] = retained;
    pools[Class::Queue as usize] = hundredth * 55;
    pools[Class::Send as usize] = hundredth * 25;
    pools[Class::Receive as usize] = hundredth * 15;
    pools[Class::Mesh as usize] = hundredth * 5;
    pools
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine { cpus_online: vec![0, 1, 2, 3], cpu_quota: None, ram: 16 << 30, memory_max: None }
    }

    fn parse_on(line: &str, machine: &Machine) -> Result<Config, ConfigError> {
        let args: Vec<String> =
            std::iter::once("ringmq").chain(line.split_whitespace()).map(String::from).collect();
        Config::parse(&args, machine, &[0, 1, 2, 3])
    }

    pub fn parse(line: &str) -> Config {
        parse_on(line, &machine()).unwrap()
    }

    pub fn refused(line: &str) -> String {
        let error = parse_on(line, &machine()).unwrap_err();
        assert_eq!(error.exit_code(), exit::USAGE, "{line}");
        error.to_string()
    }

    #[test]
    fn the_flags_are_consistent() {
        use clap::CommandFactory;
        Flags::command().debug_assert();
    }

    #[test]
    fn without_flags_the_limits_are_the_defaults() {
        let config = parse("");
        let expected = Limits { memory_max: 12 << 30, ..Limits::default() };
        assert_eq!(config.limits, expected);
        assert_eq!(config.listen, ["127.0.0.1:1883".parse().unwrap()]);
        assert_eq!(config.placement, [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!((config.sys_interval_ms, config.shutdown_timeout_ms), (10_000, 5000));
        assert_eq!(config.network_hint, "ringmq --listen 0.0.0.0:1883 --allow-anonymous");
        assert!(!config.connections_asked);
    }

    #[test]
    fn every_limit_is_a_flag() {
        let config = parse(
            "--connections-max 1 --packet-size-max 1M --connect-packet-size-max 2k --connect-timeout 3 \
             --receive-maximum 4 --send-maximum 5 --topic-alias-max 6 --topic-levels-max 7 --filters-max 8 \
             --properties-max 9 --subscriptions-max 10 --queue-messages-max 11 --queue-bytes-max 12G \
             --queue-full disconnect --send-buffer-max 13k --retained-messages-max 14 --retained-bytes-max 15m \
             --session-expiry-max 16 --keep-alive-max 17 --memory-max 18M",
        );
        let expected = Limits {
            connections_max: 1,
            packet_size_max: 1 << 20,
            connect_packet_size_max: 2048,
            connect_timeout_ms: 3000,
            receive_maximum: 4,
            send_maximum: 5,
            topic_alias_max: 6,
            topic_levels_max: 7,
            filters_max: 8,
            properties_max: 9,
            subscriptions_max: 10,
            queue_messages_max: 11,
            queue_bytes_max: 12 << 30,
            queue_full: QueueFull::Disconnect,
            send_buffer_bytes_max: 13 << 10,
            retained_messages_max: 14,
            retained_bytes_max: 15 << 20,
            session_expiry_max_s: 16,
            keep_alive_max_s: 17,
            memory_max: 18 << 20,
        };
        assert_eq!(config.limits, expected);
        assert!(config.connections_asked);
    }

    #[test]
    fn shards_and_where_they_run() {
        assert_eq!(parse("--cores 0").placement, [Some(0)]);
        assert_eq!(parse("--cores 3,1-2").placement, [Some(1), Some(2), Some(3)]);
        assert_eq!(parse("--cores 0-1 --shards 4").placement, [Some(0), Some(1), Some(0), Some(1)]);
        assert_eq!(parse("--shards 16").placement[5], Some(1));
        assert_eq!(parse("--shards 2").placement, [None, None], "fewer than CPUs: no reason for these two");
        assert_eq!(parse("--cores 0-1 --no-pin").placement, [None, None]);
        let quota = |cpus| Machine { cpu_quota: Some(cpus), ..machine() };
        assert_eq!(parse_on("", &quota(2.5)).unwrap().placement, [None, None]);
        assert_eq!(parse_on("", &quota(0.1)).unwrap().placement, [None]);
        assert_eq!(parse_on("", &quota(64.0)).unwrap().placement.len(), 4);
    }

    #[test]
    fn the_network_is_opened_only_on_purpose() {
        let error = refused("--listen 0.0.0.0:1883 --shards 2");
        assert!(error.ends_with("ringmq --listen 0.0.0.0:1883 --shards 2 --allow-anonymous"), "{error}");
        assert!(refused("--listen 127.0.0.1:1 --listen [::]:1883").contains("[::]:1883"));
        let config = parse("--listen 0.0.0.0:1883 --listen [::1]:1884 --allow-anonymous");
        assert_eq!((config.listen.len(), config.network_hint.as_str()), (2, ""));
        assert!(
            parse("--listen 127.9.9.9:0 --listen [::1]:0 --listen [::1]:0").network_hint.contains("0.0.0.0")
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, word) in [
            ("--cores 4", "0-3"),
            ("--cores x", "--cores"),
            ("--shards 0", "--shards"),
            ("--shards 129", "--shards"),
            ("--listen localhost:1883", "127.0.0.1:1883"),
            ("--listen 127.0.0.1:1 --listen 127.0.0.1:1", "twice"),
            ("--listen 127.0.0.1:1 --listen 0.0.0.0:1 --allow-anonymous", "leave --listen 127.0.0.1:1 out"),
            ("--packet-size-max 300M", "--packet-size-max"),
            ("--packet-size-max 1x", "suffix"),
            ("--packet-size-max -1", "-1"),
            ("--queue-bytes-max 99999999999G", "too large"),
            ("--memory-max 1k", "16M"),
            ("--receive-maximum 0", "receive-maximum"),
            ("--connect-timeout 0", "connect-timeout"),
            ("--no-such-flag", "--no-such-flag"),
            ("--tls-listen 127.0.0.1:8883 --tls-cert c", "--tls-key"),
            ("--tls-cert c --tls-key k", "--tls-listen"),
            (
                "--tls-listen 127.0.0.1:8883 --tls-cert c --tls-key k --tls-client-cert required",
                "--tls-client-ca",
            ),
            (
                "--tls-listen 127.0.0.1:8883 --tls-cert c --tls-key k --tls-client-ca a --tls-client-cert none",
                "no use",
            ),
            ("--listen 127.0.0.1:8883 --tls-listen 127.0.0.1:8883 --tls-cert c --tls-key k", "twice"),
        ] {
            let error = refused(line);
            assert!(error.contains(word), "{line}: {error}");
        }
    }

    #[test]
    fn help_and_version_are_no_failures() {
        for line in ["--help", "-h", "--version"] {
            let error = parse_on(line, &machine()).unwrap_err();
            assert_eq!(error.exit_code(), 0, "{line}");
        }
        let help = parse_on("--help", &machine()).unwrap_err().to_string();
        for word in ["Limits of clients:", "Examples:", "Exit codes:", "[default: 64k]", "[default: 8M]"] {
            assert!(help.contains(word), "{word} is missing in\n{help}");
        }
    }

    #[test]
    fn the_classes_share_no_more_than_there_is() {
        for (memory_max, retained_bytes_max) in
            [(16 << 20, 1 << 30), (1 << 34, 1 << 30), (1 << 34, 0), (1 << 40, 7)]
        {
            let limits = Limits { memory_max, retained_bytes_max, ..Limits::default() };
            let pools = pools(&limits);
            let sum: u64 = pools.iter().sum();
            assert!(sum <= memory_max && sum > memory_max - 200, "{sum} of {memory_max}");
            assert!(pools[Class::Retained as usize] <= retained_bytes_max);
        }
    }

    #[test]
    fn sizes_read_as_they_print() {
        for (text, size) in
            [("0", 0), ("64k", 65_536), ("1M", 1 << 20), ("3GiB", 3 << 30), ("1000", 1000), ("2T", 2 << 40)]
        {
            let parsed: Size = text.parse().unwrap();
            assert_eq!(parsed, Size(size));
            assert_eq!(parsed.to_string().parse(), Ok(parsed));
        }
        assert_eq!([bytes(0), bytes(1536), bytes(18 << 30)], ["0", "1.5k", "18G"]);
        assert_eq!(ranges(&[0, 1, 2, 6, 8, 9]), "0-2,6,8-9");
    }

    #[test]
    fn a_command_can_be_typed_again() {
        let args = ["ringmq", "--listen", "[::]:1883", "it's"].map(String::from);
        assert_eq!(command(&args), r"ringmq --listen '[::]:1883' 'it'\''s'");
    }
}
