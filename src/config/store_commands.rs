//! `ringmq store`: what is asked of a data directory while no broker, or another one, uses it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::ConfigError;
use super::commands::without_word;

#[derive(Parser, Debug)]
#[command(name = "ringmq store", bin_name = "ringmq store", max_term_width = 110)]
#[command(about = "Checks, shows, repairs or copies what --data keeps", long_about = None)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
struct StoreCommandFlags {
    #[command(subcommand)]
    command: StoreCommand,
}

/// One of the commands of `ringmq store`.
#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
pub enum StoreCommand {
    /// Reads everything, and says what a start would find; changes nothing
    ///
    /// Exit code: 0 if all is well, 1 if something is damaged, 2 if the directory cannot be used at all.
    Check {
        /// The data directory
        dir: PathBuf,
        #[command(flatten)]
        running: Running,
    },
    /// Prints what is kept as JSON, one object a line; changes nothing
    ///
    /// Without options: sessions, subscriptions, messages and retained messages. Payloads are text
    /// where they are UTF-8, and else base64 (`payload_base64`). Times are milliseconds since 1970.
    /// Exit code: as `ringmq store check`.
    Dump {
        /// The data directory
        dir: PathBuf,
        #[command(flatten)]
        what: DumpWhat,
        #[command(flatten)]
        running: Running,
    },
    /// Writes what is intact anew, and moves damaged files to damaged/
    ///
    /// If the file manifest is missing or damaged, it is made from the segments. What is intact and
    /// needed is written as a new log, as a start does it, so that a start finds no damage. Nothing
    /// is removed: the former files are in the directory damaged/ afterwards. If there is no damage,
    /// nothing is changed. Exit code: 0, or 2 if the directory cannot be repaired.
    Repair {
        /// The data directory
        dir: PathBuf,
    },
    /// Copies the directory, also while a broker uses it
    ///
    /// The copy has everything that was acknowledged before this command began. Of what is
    /// acknowledged while it runs, the copy may have any part. The copy is read at the end as a start
    /// would read it, and the command says what is in it. To restore it: stop the broker, and put the
    /// copy in the place of the data directory. Exit code: 0 if the copy is whole, 1 if it has damage
    /// as the original has, 2 if there is no copy that can be used.
    Backup {
        /// The data directory
        dir: PathBuf,
        /// The copy: a directory that does not exist yet, or is empty
        to: PathBuf,
    },
}

/// Reading beside a broker.
#[derive(Args, Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// Read the directory although a broker uses it
    ///
    /// Files change while they are read, so this may find damage where there is none.
    #[arg(long)]
    pub running: bool,
}

/// What a dump has.
#[derive(Args, Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct DumpWhat {
    /// Sessions: who owns them, when they end, their Wills
    #[arg(long)]
    pub sessions: bool,
    /// Subscriptions with their options
    #[arg(long)]
    pub subscriptions: bool,
    /// Messages for sessions: queued, in flight, and identifiers that wait for PUBREL or PUBCOMP
    #[arg(long)]
    pub messages: bool,
    /// Retained messages
    #[arg(long)]
    pub retained: bool,
    /// The records of the log in their order, whether anything is needed of them or not
    #[arg(long)]
    pub records: bool,
}

impl DumpWhat {
    /// With nothing asked for it is everything but records.
    pub fn or_all(self) -> DumpWhat {
        if self == DumpWhat::default() {
            DumpWhat { sessions: true, subscriptions: true, messages: true, retained: true, records: false }
        } else {
            self
        }
    }
}

/// The command line behind `ringmq store`, the program's name and that word first.
///
/// # Errors
/// It is wrong, or asks for help.
pub fn store_command(args: &[String]) -> Result<StoreCommand, ConfigError> {
    let flags = StoreCommandFlags::try_parse_from(without_word(args)).map_err(ConfigError::Clap)?;
    Ok(flags.command)
}
