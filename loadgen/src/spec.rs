//! What a run is: everything that was asked for, checked, with no question left open. Made by `cli.rs`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::payload::{HEADER_LEN, STREAMS_MAX, Sizes};
use crate::schedule::Schedule;
use crate::topics::Template;
use crate::wire::Version;

/// Clients that one run may have.
pub const CLIENTS_MAX: u64 = 4_000_000;
/// Pairs of receiver and stream that one run may have; each costs 40 bytes.
pub const TRACKS_MAX: u64 = 200_000_000;

/// Who sends to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// Publisher i to subscriber i.
    Pairs,
    /// Every publisher to every subscriber.
    All,
    /// Every publisher to one member of each share group.
    Shared { groups: u32 },
    /// Publishers only; a message is done when the kernel took it. Measures the generator, not a broker.
    Swallow,
}

/// What a run is about, and so which figures lead its report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Focus {
    /// Messages between publishers and subscribers.
    Messages,
    /// Connections that only stay open: memory and CPU time for nothing.
    Idle,
    /// How fast connections are made.
    Connects,
    /// How fast clients come back after they were all cut off at once.
    Reconnects,
    /// How fast retained messages reach new subscribers.
    Retained,
}

/// What paces publishers.
#[derive(Clone, PartialEq, Debug)]
pub enum Load {
    /// At most this many messages outstanding for each publisher.
    Closed {
        window: u32,
    },
    Open {
        schedule: Schedule,
    },
}

/// The broker under test.
#[derive(Clone, PartialEq, Debug)]
pub struct Target {
    /// As the user wrote it.
    pub name: String,
    pub addresses: Vec<SocketAddr>,
}

/// When a worker that has nothing to do looks for work without sleeping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waiting {
    /// Sleeps until something happens or a message is due.
    Sleep,
    /// Never sleeps while messages are scheduled: on time, at the price of a whole core.
    Spin,
}

/// What lies between TCP and MQTT.
#[derive(Clone, Default)]
pub struct Transport {
    /// TLS with this configuration and server name.
    pub tls: Option<(Arc<rustls::ClientConfig>, rustls::pki_types::ServerName<'static>)>,
    /// WebSocket with this path.
    pub websocket: Option<String>,
}

impl Transport {
    pub fn name(&self) -> &'static str {
        match (&self.tls, &self.websocket) {
            (None, None) => "TCP",
            (Some(_), None) => "TLS",
            (None, Some(_)) => "WebSocket",
            (Some(_), Some(_)) => "WebSocket over TLS",
        }
    }
}

/// See the top of the file.
#[derive(Clone)]
pub struct Spec {
    pub scenario: String,
    pub focus: Focus,
    pub run_id: String,
    pub run_tag: u16,
    pub seed: u64,
    pub target: Target,
    pub transport: Transport,
    pub version: Version,
    pub user: Option<String>,
    pub password: Option<String>,
    pub keep_alive_s: u16,
    /// Sessions outlive connections; removed at the end of the run.
    pub persistent: bool,
    /// Topic Aliases that publishers use and subscribers allow, 5.0 only.
    pub topic_alias_maximum: u16,
    pub pattern: Pattern,
    pub publishers: u32,
    pub subscribers: u32,
    /// The last so many subscribers read slowly; their share counts for itself.
    pub slow: u32,
    /// Bytes a second that each of them reads.
    pub slow_rate: u32,
    /// Clients that only hold a connection.
    pub idlers: u32,
    /// Each of them also subscribes, to a topic of its own.
    pub idlers_subscribe: bool,
    pub topics_per_publisher: u32,
    pub template: Template,
    /// Filters have a wildcard even where topics could be named one by one.
    pub wildcard: bool,
    pub qos: u8,
    pub retain: bool,
    pub sizes: Sizes,
    pub checked: bool,
    pub load: Load,
    /// Unacknowledged QoS 1 and 2 messages that a publisher may have; the broker's Receive Maximum also holds.
    pub inflight: u16,
    pub warmup_s: f64,
    pub duration_s: f64,
    /// How long to wait for messages after the last one was sent, as long as none arrives.
    pub drain_s: f64,
    /// CPUs of the workers; worker i runs on `cores[i % cores.len()]`.
    pub cores: Vec<usize>,
    pub workers: u32,
    pub waiting: Waiting,
    /// Closed loop: how long a busy worker waits for more completions, so that batches grow.
    pub gather: Option<Duration>,
    /// Connections a second, all workers together; infinite for as fast as possible.
    pub connect_rate: f64,
    pub connect_timeout_s: f64,
    /// Seconds between two storms of reconnects.
    pub storm_every_s: f64,
    pub sources: Vec<IpAddr>,
    /// Processes whose CPU time and memory are the broker's.
    pub pids: Vec<u32>,
    /// The target is this machine.
    pub is_local: bool,
    /// Then, without `pids`: the processes that listen there. Only whether they had to wait for a CPU is of interest.
    pub listeners: Vec<u32>,
    /// What to type instead, where broker and generator would be in each other's way.
    pub advice: Option<String>,
}

impl Spec {
    pub fn streams(&self) -> u32 {
        self.publishers * self.topics_per_publisher
    }

    pub fn clients(&self) -> u32 {
        self.publishers + self.subscribers + self.idlers
    }

    /// The broker's processes: those that the user named, or those that were found.
    pub fn known(&self) -> Vec<u32> {
        if self.pids.is_empty() { self.listeners.clone() } else { self.pids.clone() }
    }

    /// Copies of each message that subscribers must receive.
    pub fn copies(&self) -> u32 {
        match self.pattern {
            Pattern::Pairs => 1,
            Pattern::All => self.subscribers - self.slow,
            Pattern::Shared { groups } => groups,
            Pattern::Swallow => 0,
        }
    }

    /// Whether due times come from a schedule, so that latency is corrected and the generator can be late.
    pub fn is_open(&self) -> bool {
        match self.focus {
            Focus::Messages => matches!(self.load, Load::Open { .. }),
            Focus::Connects => self.connect_rate.is_finite(),
            Focus::Idle | Focus::Reconnects | Focus::Retained => false,
        }
    }

    /// Whether a subscriber is one of the slow ones.
    pub fn is_slow(&self, subscriber: u32) -> bool {
        subscriber >= self.subscribers - self.slow
    }

    /// Finds contradictions, in words that name the option to change.
    pub fn check(&self) -> Result<(), String> {
        let streams = u64::from(self.publishers) * u64::from(self.topics_per_publisher);
        let clients = u64::from(self.publishers) + u64::from(self.subscribers) + u64::from(self.idlers);
        if clients == 0 || clients > CLIENTS_MAX {
            return Err(format!("{clients} clients: there must be 1 to {CLIENTS_MAX}"));
        }
        if streams > STREAMS_MAX {
            return Err(format!("{streams} topics in all: the 16-byte header tells {STREAMS_MAX} apart"));
        }
        if streams * u64::from(self.copies().max(1)) > TRACKS_MAX {
            return Err("publishers x topics x subscribers is too large to check every message".into());
        }
        if self.checked && self.sizes.min() < HEADER_LEN {
            return Err(format!(
                "a payload of {} bytes has no room for the 16-byte check header: use --payload 16 or more, \
                 or --no-check for an UNCHECKED run",
                self.sizes.min()
            ));
        }
        if self.sizes.max() > 256 * 1024 * 1024 - 70_000 {
            return Err("a payload must fit into an MQTT packet (256 MiB)".into());
        }
        if !self.template.distinguishes(self.publishers, self.topics_per_publisher) {
            return Err(
                "the topic template gives two streams one name: use {pub}, and {k} with --topics".into()
            );
        }
        let pair = (self.pattern == Pattern::Pairs).then_some(0);
        if self.wildcard && self.subscribers > 0 && !self.template.filter(pair).contains('+') {
            return Err("--wildcard needs a level that varies: put {k} into --topic".into());
        }
        if self.idlers_subscribe && self.idlers == 0 {
            return Err("--subscribe is for connections that do nothing else: idle, connect-storm, \
                        reconnect-storm --connections"
                .into());
        }
        if self.slow > 0 && (self.pattern != Pattern::All || self.slow >= self.subscribers) {
            return Err("slow subscribers need at least one fast one beside them".into());
        }
        if !self.checked && self.pattern != Pattern::Pairs && matches!(self.load, Load::Closed { .. }) {
            return Err("without the check header only p2p can run in a closed loop: give a --rate".into());
        }
        if !self.checked && self.focus == Focus::Retained {
            return Err("retained messages are counted by their check header: leave out --no-check".into());
        }
        if self.focus == Focus::Reconnects && self.publishers > 0 && !(self.persistent && self.qos > 0) {
            return Err("messages survive a reconnect only with --persistent and --qos 1 or 2".into());
        }
        if self.topic_alias_maximum > 0 && self.version == Version::V311 {
            return Err("topic aliases need MQTT 5".into());
        }
        if self.version == Version::V311 && self.password.is_some() && self.user.is_none() {
            return Err("MQTT 3.1.1 has no password without a user name: give -u too".into());
        }
        if self.gather.is_some() && self.is_open() {
            return Err("--gather would make an open loop late on purpose: it is for closed loops".into());
        }
        if matches!(self.load, Load::Closed { window: 0 }) {
            return Err("a window of 0 lets no message out".into());
        }
        if let Load::Open { schedule } = &self.load
            && (schedule.segments.iter().any(|s| !(s.from >= 0.0 && s.to >= 0.0 && s.from + s.to < 1e12))
                || schedule.segments.iter().all(|s| s.from + s.to == 0.0))
        {
            return Err("the rate must be above 0 somewhere and below 1e12 everywhere".into());
        }
        if self.cores.is_empty() || self.workers == 0 {
            return Err("there must be at least one core to run on".into());
        }
        Ok(())
    }
}
