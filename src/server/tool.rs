//! `ringmq store`: a data directory without a broker.
//!
//! `check` and `dump` change nothing, apart from the file LOCK. `repair` writes a new run, as a start
//! would. `backup` copies a directory that may be in use.

mod backup;
mod dump;
mod repair;

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::config::{StoreCommand, exit};
use crate::io::files::{Files, Lock, LockError, OsFiles};
use crate::store::{Kept, Manifest, ManifestError, Report, WallClock};

use super::store::{read_all, wall_now};

/// Why a directory cannot be used.
#[derive(Debug)]
struct Unusable {
    directory: PathBuf,
    why: String,
}

impl Unusable {
    fn new(directory: &Path, why: impl fmt::Display) -> Unusable {
        Unusable { directory: directory.to_owned(), why: why.to_string() }
    }
}

/// What went wrong where a file was read or written.
fn failed<'a>(directory: &'a Path, what: &'a str) -> impl Fn(io::Error) -> Unusable + 'a {
    move |error| Unusable::new(directory, format!("{what}: {error}"))
}

/// Does what is asked, and returns the exit code of the process.
pub fn run(command: &StoreCommand) -> u8 {
    let done = match command {
        StoreCommand::Check { dir, running } => check(dir, running.running),
        StoreCommand::Dump { dir, what, running } => dump(dir, what.or_all(), running.running),
        StoreCommand::Repair { dir } => repair::repair(dir),
        StoreCommand::Backup { dir, to } => backup::backup(dir, to),
    };
    match done {
        Ok(code) => code,
        Err(Unusable { directory, why }) => {
            warn(&format!("{}: {why}", directory.display()));
            exit::UNUSABLE
        }
    }
}

/// A line for the person; where stdout is gone nobody can be told.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "ringmq: {text}");
}

/// The files of a directory that exists.
fn files_of(dir: &Path) -> Result<OsFiles, Unusable> {
    match std::fs::metadata(dir) {
        Ok(found) if found.is_dir() => Ok(OsFiles::new(dir)),
        Ok(_) => Err(Unusable::new(dir, "it is no directory")),
        Err(error) => Err(Unusable::new(dir, error)),
    }
}

/// Who reads a directory.
enum Use {
    Alone {
        _lock: Lock,
    },
    BesideBroker,
    /// This user may not write there, so nobody can be kept away.
    ReadOnly,
}

/// Takes the directory for this process alone. With `running` it goes on beside a broker.
fn take(files: &OsFiles, running: bool) -> Result<Use, Unusable> {
    match files.lock() {
        Ok(lock) => Ok(Use::Alone { _lock: lock }),
        Err(held @ LockError::Held { .. }) if running => {
            warn(&format!(
                "{}: {held}: what it writes meanwhile may look like damage",
                files.root().display()
            ));
            Ok(Use::BesideBroker)
        }
        Err(held @ LockError::Held { .. }) => Err(Unusable::new(
            files.root(),
            format!(
                "{held}; stop the broker first, or read beside it with --running, or make a copy with backup"
            ),
        )),
        Err(LockError::Failed(error))
            if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) =>
        {
            Ok(Use::ReadOnly)
        }
        Err(error) => Err(Unusable::new(files.root(), error)),
    }
}

/// The manifest of a directory that holds something.
fn manifest(files: &OsFiles) -> Result<Manifest, Unusable> {
    let hint = "`ringmq store repair` makes one from the segments";
    match Manifest::read(files) {
        Ok(Some(manifest)) => Ok(manifest),
        Ok(None) => Err(Unusable::new(files.root(), format!("there is no file manifest; {hint}"))),
        Err(error @ ManifestError::Damaged) => Err(Unusable::new(files.root(), format!("{error}; {hint}"))),
        Err(error) => Err(Unusable::new(files.root(), error)),
    }
}

/// A directory that was read, as a start would.
struct Looked {
    manifest: Manifest,
    clock: WallClock,
    read: Kept,
}

impl Looked {
    fn at(files: &OsFiles) -> Result<Looked, Unusable> {
        let manifest = manifest(files)?;
        Looked::with(files, manifest)
    }

    fn with(files: &OsFiles, manifest: Manifest) -> Result<Looked, Unusable> {
        // The monotonic clock of this process is the wall clock.
        let clock = WallClock::new(0, 0);
        let read = read_all(files, &manifest, clock).map_err(failed(files.root(), "it cannot be read"))?;
        Ok(Looked { manifest, clock, read })
    }

    fn damage(&self) -> impl Iterator<Item = &String> {
        self.read.reports.iter().flat_map(|report| &report.damage)
    }

    fn is_damaged(&self) -> bool {
        self.damage().next().is_some()
    }

    fn exit_code(&self) -> u8 {
        if self.is_damaged() { exit::DAMAGED } else { 0 }
    }

    /// What a start would have.
    fn contents(&self) -> String {
        let wall = wall_now();
        let sessions: Vec<_> = self.read.sessions.iter().filter(|session| !session.has_ended(wall)).collect();
        let messages: usize = sessions
            .iter()
            .map(|session| session.queue.len() + session.flying.len() + session.behind.len())
            .sum();
        let subscriptions: usize = sessions.iter().map(|session| session.filters().len()).sum();
        let retained = self.read.retained.iter().filter(|message| !message.view().is_expired(wall)).count();
        format!(
            "{} sessions with {subscriptions} subscriptions, {messages} messages for them, {retained} retained",
            sessions.len()
        )
    }

    fn torn_bytes(&self) -> u64 {
        self.read.reports.iter().map(|report| report.torn_bytes).sum()
    }
}

/// Everything about one log, in one line.
fn report_text(shard: usize, report: &Report) -> String {
    let Report { segments, commits, records, bytes, .. } = report;
    let end = if report.stopped { "stopped in order" } else { "not stopped in order" };
    format!("shard {shard}: {segments} segments, {commits} commits, {records} records, {bytes} bytes; {end}")
}

fn check(dir: &Path, running: bool) -> Result<u8, Unusable> {
    let files = files_of(dir)?;
    let _use = take(&files, running)?;
    let looked = Looked::at(&files)?;
    let Manifest { store, run, shards, .. } = looked.manifest;
    say(&format!("store {store:016x}, run {run}, {shards} shards"));
    for (shard, report) in looked.read.reports.iter().enumerate() {
        say(&report_text(shard, report));
    }
    say(&format!("a start would have: {}", looked.contents()));
    if looked.torn_bytes() > 0 {
        let bytes = looked.torn_bytes();
        say(&format!("the broker ended while it wrote {bytes} bytes; nobody was answered for them"));
    }
    for damage in looked.damage() {
        say(&format!("damaged: {damage}"));
    }
    let found =
        if looked.is_damaged() { "damaged; a start goes on with what is intact" } else { "no damage" };
    say(&format!("{}: {found}", dir.display()));
    Ok(looked.exit_code())
}

fn dump(dir: &Path, what: crate::config::DumpWhat, running: bool) -> Result<u8, Unusable> {
    let files = files_of(dir)?;
    let _use = take(&files, running)?;
    let looked = Looked::at(&files)?;
    let written = dump::dump(&files, &looked, what, &mut io::stdout().lock());
    match written {
        // Whoever reads has enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written.map_err(failed(dir, "the dump ended early"))?,
    }
    looked.damage().for_each(|damage| warn(&format!("{}: damaged: {damage}", dir.display())));
    Ok(looked.exit_code())
}
