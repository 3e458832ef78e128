//! What a run is: everything that was asked for, checked, with no question left open. Made by `cli.rs`.

use std::net::{IpAddr, SocketAddr};

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

/// See the top of the file.
#[derive(Clone, PartialEq, Debug)]
pub struct Spec {
    pub scenario: String,
    pub run_id: String,
    pub run_tag: u16,
    pub seed: u64,
    pub target: Target,
    pub version: Version,
    pub user: Option<String>,
    pub password: Option<String>,
    pub keep_alive_s: u16,
    pub pattern: Pattern,
    pub publishers: u32,
    pub subscribers: u32,
    /// Clients that only hold a connection.
    pub idlers: u32,
    pub topics_per_publisher: u32,
    pub template: Template,
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
    /// Connections a second, all workers together; infinite for as fast as possible.
    pub connect_rate: f64,
    pub connect_timeout_s: f64,
    pub sources: Vec<IpAddr>,
    /// Processes whose CPU time and memory are the broker's.
    pub pids: Vec<u32>,
}

impl Spec {
    pub fn streams(&self) -> u32 {
        self.publishers * self.topics_per_publisher
    }

    pub fn clients(&self) -> u32 {
        self.publishers + self.subscribers + self.idlers
    }

    /// Copies of each message that subscribers must receive.
    pub fn copies(&self) -> u32 {
        match self.pattern {
            Pattern::Pairs => 1,
            Pattern::All => self.subscribers,
            Pattern::Shared { groups } => groups,
            Pattern::Swallow => 0,
        }
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
                "the topic template gives two streams one name: use {pub}, and {n} with --topics".into()
            );
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
