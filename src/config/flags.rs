//! The command line: every flag of the broker, with its help.

use std::path::PathBuf;

use clap::{Args, Parser, ValueEnum};

use super::access::AccessFlags;
use super::address::Place;
use super::help;
use super::size::Size;
use super::span::{self, Span};
use super::store::StoreFlags;
use super::tls::TlsFlags;
use crate::io::kernel::Choice;
use crate::limits::{CACHED_TOPICS_MAX, Limits};
use crate::log::{Format, Level};
use crate::memory::ShardSet;

const AFTER_HELP: &str = "\
Sizes take the suffixes k, M and G, in steps of 1,024. Times take the units ms, s, m, h, d and w;
a plain number is seconds.

Examples:
  Try it on this machine, on every core:
    ringmq
  One core, the plain single-threaded broker:
    ringmq --cores 0
  Four cores, and everybody on the network may connect:
    ringmq --cores 0-3 --listen :1883 --allow-anonymous
  TLS, and users with passwords:
    ringmq --tls-listen :8883 --tls-cert server.pem --tls-key server.key --password-file users.txt
  Users with passwords, and rules about topics, for the network:
    ringmq passwd users.txt alice
    ringmq --listen :1883 --password-file users.txt --acl-file rules.txt
  The same from a file with a line for each flag:
    ringmq check ringmq.toml && ringmq --config ringmq.toml
  Sessions and messages that survive a restart, and a loss of power:
    ringmq --data /var/lib/ringmq
  A small machine with many idle clients:
    ringmq --memory-max 256M --queue-messages-max 100 --send-buffer-max 64k

Listeners in a file, one table for each. --listen and --tls-listen on the command line replace all of them:
  [[listener]]
  address = \":8883\"              the only key that every listener needs
  cert = \"server.pem\"            makes it a TLS listener (kind = \"tls\"; the other kind is tcp)
  key = \"server.key\"             the private key; if left out, it is read from the file of the certificate
  key-password-file, client-ca, client-cert, client-user, record-size-max
      like the flags that have tls- in front of these names
  allow-anonymous, password-file, acl-file, client-ids, connect-timeout, connect-packet-size-max,
  packet-size-max, keep-alive-max, session-expiry-max
      for this listener alone; a key that is left out has the value of the whole broker, and a flag on
      the command line replaces the key
  connections-max
      for this listener; the limit of the whole broker applies too

Exit codes:
  0    stopped by SIGTERM, SIGINT or SIGQUIT
  1    only from ringmq check: a start would succeed, but there are warnings
  64   the command line is wrong, or asks for something that this machine does not have
  69   io_uring is missing or forbidden, and --io uring asks for it
  71   the operating system refused: the address is taken, descriptors or memory ran out
  74   the data directory cannot be written any more
  77   a privilege is missing, as for a port below 1024
  78   a file is missing or wrong
  130, 131, 143  ended at once by a second signal (SIGINT, SIGQUIT, SIGTERM)

Signals: SIGTERM, SIGINT and SIGQUIT stop the broker in order. SIGHUP reads all files again. SIGUSR1 opens the
log file again. The broker ignores other signals that would end a process, and names them in the log.

Sessions, queued messages and retained messages live in memory, and are lost when the process stops, unless
--data names a directory for them.";

/// An MQTT 5.0, 3.1.1 and 3.1 broker that uses every core.
///
/// One thread and one io_uring per core; each client lives on one of them.
#[derive(Parser, Debug)]
#[command(override_usage = help::USAGE, help_template = help::TEMPLATE)]
#[command(name = "ringmq", version, after_long_help = AFTER_HELP, max_term_width = 110)]
#[command(after_help = "ringmq --help says more: what happens at each limit, examples, exit codes.")]
pub(super) struct Flags {
    /// Read settings from this file
    ///
    /// The file is TOML and has a key for each flag: memory-max = "1G", listen =
    /// ["127.0.0.1:1883"], allow-anonymous = true. Instead of listen it may have a table
    /// [[listener]] for each address; see the end of this text. A flag on the command line replaces
    /// the value in the file. `ringmq check FILE` looks for mistakes and explains the file. `ringmq
    /// config`, with flags, prints every setting and where it comes from.
    ///
    /// SIGHUP reads the file again, and all files that it names. If anything is wrong, nothing
    /// changes. Clients stay connected, also those of a listener that was removed. The log says
    /// what changed and what needs a restart. These settings need one: cores, shards, no-pin, io,
    /// cached-topics-max, log-format, log-file, data, durability, data-max, data-damaged, will-grace.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub address: AddressFlags,
    #[command(flatten)]
    pub access: AccessFlags,
    #[command(flatten)]
    pub tls: TlsFlags,
    #[command(flatten)]
    pub core: CoreFlags,
    #[command(flatten)]
    pub client: ClientFlags,
    #[command(flatten)]
    pub packet: PacketFlags,
    #[command(flatten)]
    pub queue: QueueFlags,
    #[command(flatten)]
    pub memory: MemoryFlags,
    #[command(flatten)]
    pub store: StoreFlags,
    #[command(flatten)]
    pub operation: OperationFlags,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Addresses")]
pub(super) struct AddressFlags {
    /// Address and port to listen on; may be given several times
    ///
    /// Write IPv6 addresses in brackets: [::1]:1883. localhost:1883 means 127.0.0.1 and, if this
    /// machine has it, ::1. :1883 means every address of this machine, IPv4 and IPv6. With port 0
    /// the kernel chooses a port for each address, and the start text shows it. An address that the
    /// network can reach needs --password-file or --allow-anonymous. [default: localhost:1883,
    /// unless --tls-listen is given]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<Place>,

    /// Let clients without a user name in, at every address
    ///
    /// Without this flag they are let in at loopback addresses only, and nowhere if there is a
    /// --password-file. A client with a certificate (--tls-client-ca) is not anonymous. The rules
    /// (--acl-file) say what anonymous clients may do.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub allow_anonymous: Option<bool>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Cores")]
pub(super) struct CoreFlags {
    /// CPUs to use, one shard on each, such as 0-3,6 [default: all that this process may use]
    ///
    /// The default is the affinity mask of the process, but no more CPUs than the cgroup's cpu.max
    /// grants. With --cores 0 the broker is single-threaded.
    #[arg(long, value_name = "LIST")]
    pub cores: Option<String>,

    /// Number of shards [default: one per CPU]
    ///
    /// More shards than CPUs are possible, but slower; they help only in tests.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=ShardSet::MAX as i64))]
    pub shards: Option<u16>,

    /// Let the scheduler move shards between CPUs
    #[arg(long)]
    pub no_pin: bool,

    /// How to talk to the kernel
    ///
    /// Docker, Podman and containerd forbid io_uring by default. The start text says which way was
    /// chosen, and why.
    #[arg(long, value_enum, value_name = "WAY", default_value_t = Choice::Auto)]
    pub io: Choice,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Limits of clients")]
pub(super) struct ClientFlags {
    /// Connections in all [default: 1000000, or what the limit of descriptors allows]
    ///
    /// Connections in a TLS handshake count too. Beyond the limit a connection is closed as soon as
    /// it is accepted.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub connections_max: Option<u32>,

    /// Time in which a new connection has to send its CONNECT; after it the connection is closed
    #[arg(long, value_name = "TIME", default_value_t = Span { ms: Limits::default().connect_timeout_ms },
          value_parser = connect_timeout())]
    pub connect_timeout: Span,

    /// Longest Keep Alive of a v5 client; 0 leaves it to the client
    ///
    /// A longer Keep Alive is shortened, and CONNACK says so (Server Keep Alive). Clients of 3.1.1
    /// and 3.1 keep theirs.
    #[arg(long, value_name = "TIME", default_value_t = Span::seconds(Limits::default().keep_alive_max_s.into()),
          value_parser = keep_alive_max())]
    pub keep_alive_max: Span,

    /// Longest time for which a session outlives its connection
    ///
    /// A longer Session Expiry Interval is shortened, and CONNACK says so (v5). Persistent sessions
    /// of 3.x clients end after this time too.
    #[arg(long, value_name = "TIME", default_value_t = Span::seconds(Limits::default().session_expiry_max_s.into()),
          value_parser = session_expiry_max())]
    pub session_expiry_max: Span,

    /// Subscriptions of one session
    ///
    /// Beyond the limit SUBACK has 0x97 (v5) or 0x80 (3.1.1) for each further filter. Existing
    /// subscriptions stay.
    #[arg(long, value_name = "N", default_value_t = Limits::default().subscriptions_max)]
    pub subscriptions_max: u32,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Limits of packets")]
pub(super) struct PacketFlags {
    /// Bytes of a packet from a client; beyond it 0x95 (v5) and close
    #[arg(long, value_name = "BYTES", default_value_t = Size(Limits::default().packet_size_max.into()))]
    pub packet_size_max: Size,

    /// Bytes of a CONNECT; beyond it CONNACK 0x95 (v5) and close
    ///
    /// Until its CONNECT is accepted, a client uses memory only for the bytes that it has sent. All
    /// such clients share one part of --memory-max.
    #[arg(long, value_name = "BYTES", default_value_t = Size(Limits::default().connect_packet_size_max.into()))]
    pub connect_packet_size_max: Size,

    /// QoS 1 and 2 messages that a client may have unacknowledged; beyond it 0x93 (v5) and close
    #[arg(long, value_name = "N", default_value_t = Limits::default().receive_maximum,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub receive_maximum: u16,

    /// QoS 1 and 2 messages that one client may have to acknowledge
    ///
    /// The client's own Receive Maximum applies if it is smaller. Further messages wait in the
    /// session's queue.
    #[arg(long, value_name = "N", default_value_t = Limits::default().send_maximum,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub send_maximum: u16,

    /// Topic Aliases in each direction; beyond it 0x94 and close
    #[arg(long, value_name = "N", default_value_t = Limits::default().topic_alias_max)]
    pub topic_alias_max: u16,

    /// Levels of a Topic Name or Topic Filter; beyond it 0x90 or 0x8F
    #[arg(long, value_name = "N", default_value_t = Limits::default().topic_levels_max,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub topic_levels_max: u16,

    /// Properties in one packet; beyond it 0x97 and close
    #[arg(long, value_name = "N", default_value_t = Limits::default().properties_max,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub properties_max: u16,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Limits of queues")]
pub(super) struct QueueFlags {
    /// Messages that wait in one session, without those in flight; beyond it see --queue-full
    #[arg(long, value_name = "N", default_value_t = Limits::default().queue_messages_max)]
    pub queue_messages_max: u32,

    /// Bytes that wait in one session; beyond it see --queue-full
    #[arg(long, value_name = "BYTES", default_value_t = Size(Limits::default().queue_bytes_max))]
    pub queue_bytes_max: Size,

    /// What to drop when a session's queue is full; each dropped message is counted
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = QueueFullFlag::DropNewest)]
    pub queue_full: QueueFullFlag,

    /// How long messages of a share group wait for a member that takes nothing; 0 for no limit
    ///
    /// A message goes to a member that can take it at once. It waits in a member's queue only while
    /// all members are busy. If that member takes nothing for this time, the messages that wait
    /// there go to other members.
    #[arg(long, value_name = "TIME", default_value_t = Span { ms: Limits::default().share_wait_ms },
          value_parser = span::between(Span::seconds(0), Span::seconds(86_400)))]
    pub share_wait: Span,

    /// Bytes that may wait for the socket of one connection [default: 1M, and more while the client
    /// reads]
    ///
    /// Beyond the limit QoS 0 messages to this client are dropped and counted, and QoS 1 and 2 messages stay in its queue.
    /// If you do not set this limit, a client that goes on reading may have more QoS 0 bytes waiting: four times
    /// --packet-size-max, but at most a sixteenth of the memory for sending, and only while half of that memory is free.
    #[arg(long, value_name = "BYTES")]
    pub send_buffer_max: Option<Size>,

    /// Retained messages
    ///
    /// Beyond the limit a message on a new topic is delivered but not retained, and counted. A
    /// message on a topic that has a retained message still replaces it.
    #[arg(long, value_name = "N", default_value_t = Limits::default().retained_messages_max)]
    pub retained_messages_max: u64,

    /// Bytes of retained messages
    ///
    /// Beyond the limit a message is delivered but not retained, and counted. The older retained
    /// message of its topic is dropped, since it is out of date.
    #[arg(long, value_name = "BYTES", default_value_t = Size(Limits::default().retained_bytes_max))]
    pub retained_bytes_max: Size,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Memory")]
pub(super) struct MemoryFlags {
    /// Bytes for everything that clients make the broker keep [default: 75 % of memory]
    ///
    /// The default is three quarters of the cgroup's memory.max or of RAM, whichever is smaller.
    /// The last quarter is for connections and the program itself, and for receive buffers, which
    /// take up to a sixteenth of this limit.
    ///
    /// Retained messages may use --retained-bytes-max of it, but no more than half. The rest is
    /// divided: queues of sessions 45 %, bytes that wait for sockets 20 %, incomplete packets 12 %,
    /// incomplete CONNECTs 3 %, subscriptions 10 %, sessions with their Wills 5 %, messages between
    /// cores 5 %.
    ///
    /// When a share is used up: QoS 0 messages to slow sockets are dropped; publishers that flood
    /// other cores are read more slowly; messages for queues are dropped as --queue-full says; new
    /// topics are not retained; new subscriptions and new sessions are refused; connections with
    /// large incomplete packets are closed. All of it is counted.
    #[arg(long, value_name = "BYTES")]
    pub memory_max: Option<Size>,

    /// Topics whose subscribers each shard remembers
    ///
    /// This memory is not part of --memory-max: up to 1 kB for each topic on average. Beyond the
    /// limit the topic that was used least is forgotten, and matched again when it is used again. 0
    /// remembers none.
    #[arg(long, value_name = "N", default_value_t = CACHED_TOPICS_MAX)]
    pub cached_topics_max: u32,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Operation")]
pub(super) struct OperationFlags {
    /// Least important events to log; off logs nothing once the broker runs
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = Level::Info)]
    pub log_level: Level,

    /// Lines as text or as JSON
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    pub log_format: Format,

    /// File to append the log to, instead of stderr
    ///
    /// SIGUSR1 opens the file again, for logrotate. The reason why the broker does not start is on
    /// stderr too.
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,

    /// Time between two updates of $SYS; 0 for no $SYS topics
    #[arg(long, value_name = "TIME", default_value_t = Span::seconds(10),
          value_parser = span::between(Span::seconds(0), Span::seconds(86_400)))]
    pub sys_interval: Span,

    /// Time that stopping may take
    ///
    /// After SIGTERM, SIGINT or SIGQUIT the broker accepts no connection, publishes all Wills and
    /// disconnects all clients (v5: 0x8B). When this time is over the process ends in any case. A
    /// second signal ends it at once.
    #[arg(long, value_name = "TIME", default_value_t = Span::seconds(5),
          value_parser = span::between(Span::seconds(0), Span::seconds(3600)))]
    pub shutdown_timeout: Span,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum QueueFullFlag {
    /// The new message
    DropNewest,
    /// The message that has waited longest, until the new one fits
    DropOldest,
    /// The client, with 0x97; its session ends
    Disconnect,
}

/// What `connect-timeout` takes, for all and at a listener.
pub(super) fn connect_timeout() -> impl Fn(&str) -> Result<Span, String> + Clone + Send + Sync {
    span::between(Span { ms: 100 }, Span::seconds(3600))
}

/// The same of `keep-alive-max`.
pub(super) fn keep_alive_max() -> impl Fn(&str) -> Result<Span, String> + Clone + Send + Sync {
    span::seconds(u16::MAX.into())
}

/// The same of `session-expiry-max`.
pub(super) fn session_expiry_max() -> impl Fn(&str) -> Result<Span, String> + Clone + Send + Sync {
    span::seconds(u32::MAX.into())
}
