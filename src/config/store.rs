//! Flags about the data directory.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::size::Size;
use super::span::{self, Span};
use crate::clock::Millis;
use crate::io::Sync;

/// What an acknowledgement means, where there is a data directory.
#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// It survives a crash of the broker; a loss of power may cost the last second
    Process,
    /// It survives a loss of power: it is on the disk, and flushed
    Power,
}

impl Durability {
    /// As the flag names it.
    pub fn name(self) -> &'static str {
        match self {
            Durability::Process => "process",
            Durability::Power => "power",
        }
    }

    /// How a commit reaches the disk.
    pub fn sync(self) -> Sync {
        match self {
            Durability::Process => Sync::None,
            Durability::Power => Sync::Data,
        }
    }
}

/// What a start does where a part of what was kept cannot be read.
#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub enum DataDamaged {
    /// It goes on with what is intact, sets the damaged files aside, and says so
    Start,
    /// It ends with exit code 78
    Refuse,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Data")]
pub(super) struct StoreFlags {
    /// Keep sessions, their messages and retained messages in this directory
    ///
    /// The broker makes the directory if it does not exist. Sessions with a Session Expiry Interval
    /// above 0 (3.x: without Clean Session) are kept there, with their subscriptions and messages
    /// of QoS 1 and 2, and so are retained messages. A client is acknowledged when that is on disk.
    /// Without this flag everything is lost when the process stops. One broker uses a directory at
    /// a time. The number of shards may change from start to start.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// What an acknowledgement means, with --data
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = Durability::Power)]
    pub durability: Durability,

    /// Bytes that the data directory may have [default: half of what is free at the start]
    ///
    /// When they are used up, publishers of messages that are kept wait until there is room again.
    #[arg(long, value_name = "BYTES")]
    pub data_max: Option<Size>,

    /// What to do at the start if something in the data directory cannot be read
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = DataDamaged::Start)]
    pub data_damaged: DataDamaged,

    /// Time after a start in which no session ends and no Will is published that was there before
    ///
    /// Clients that come back within it find their sessions, and their Wills stay unsent.
    #[arg(long, value_name = "TIME", default_value_t = Span::seconds(10),
          value_parser = span::between(Span::seconds(0), Span::seconds(86_400)))]
    pub will_grace: Span,
}

/// The data directory and what holds there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    pub directory: PathBuf,
    pub durability: Durability,
    /// `None` for half of what is free at the start.
    pub bytes_max: Option<u64>,
    pub damaged: DataDamaged,
    /// How long nothing ends that was there before the start.
    pub grace_ms: Millis,
}

impl StoreConfig {
    /// `None` without a data directory.
    pub(super) fn of(flags: &StoreFlags) -> Option<StoreConfig> {
        let directory = flags.data.clone()?;
        Some(StoreConfig {
            directory,
            durability: flags.durability,
            bytes_max: flags.data_max.map(|size| size.0),
            damaged: flags.data_damaged,
            grace_ms: flags.will_grace.ms,
        })
    }
}
