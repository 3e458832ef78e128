//! The data directory: from the lock to the moment when what was kept can be served, and the thread
//! that makes segments.
//!
//! A start makes a new *run*. The old one holds until every shard of the new one has everything on
//! disk; then the manifest names the new one, and the files of the old one go. A crash in between
//! starts over.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::clock::Millis;
use crate::config::{DataDamaged, StoreConfig, exit};
use crate::io::Sync;
use crate::io::files::{Files, Lock, LockError, Medium, OsFiles};
use crate::log::{self, Kind, Level, Value};
use crate::memory::ShardId;
use crate::shard::{Opening, Storing};
use crate::store::{
    self, Found, Keeper, Kept, Manifest, ManifestError, NextRun, Part, SessionImage, WallClock,
};
use crate::topic::HashKeys;

/// Bytes of a segment at least and at most; between them it is a part of --data-max.
pub(super) const SEGMENT_MIN: u64 = 4 << 20;
const SEGMENT_MAX: u64 = 16 << 20;
/// Segments of one shard that --data-max has room for, unless they are at their least.
const SEGMENTS_OF_SHARD: u64 = 32;
/// How often the start looks whether the shards are ready.
const READY_POLL: Duration = Duration::from_millis(1);

/// Why a data directory cannot be used.
#[derive(Debug)]
pub struct StoreError {
    pub directory: PathBuf,
    pub why: Why,
}

#[derive(Debug)]
pub enum Why {
    Io {
        what: &'static str,
        error: io::Error,
    },
    Lock(LockError),
    Manifest(ManifestError),
    /// There is none, and yet there are segments.
    NoManifest,
    /// It is damaged, and that refuses the start.
    Damaged(Vec<String>),
    /// What is kept there does not survive what it is kept for.
    Unfit(String),
}

impl StoreError {
    pub fn exit_code(&self) -> u8 {
        match &self.why {
            Why::Io { error, .. } | Why::Lock(LockError::Failed(error))
                if error.kind() == ErrorKind::PermissionDenied =>
            {
                exit::PRIVILEGE
            }
            Why::Io { .. } | Why::Lock(_) => exit::SYSTEM,
            Why::Manifest(_) | Why::NoManifest | Why::Damaged(_) | Why::Unfit(_) => exit::CONFIG,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--data {}: ", self.directory.display())?;
        match &self.why {
            Why::Io { what, error } => write!(f, "{what}: {error}"),
            Why::Lock(error) => error.fmt(f),
            Why::Manifest(error @ ManifestError::Damaged) => {
                write!(f, "{error}; to make it anew: ringmq store repair {}", self.directory.display())
            }
            Why::Manifest(error) => error.fmt(f),
            Why::NoManifest => write!(
                f,
                "the file manifest is missing, though there are segments of a message log; to make it anew: \
                 ringmq store repair {}",
                self.directory.display()
            ),
            Why::Damaged(damage) => write!(
                f,
                "{}. With --data-damaged start the broker starts with what is intact",
                damage.join("; ")
            ),
            Why::Unfit(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for StoreError {}

/// A data directory in use.
pub(super) struct Store {
    files: OsFiles,
    keeper: Keeper,
    thread: Option<JoinHandle<()>>,
    run: NextRun,
    /// Why there was no room when it was last looked at.
    full: Option<ErrorKind>,
    pub opening: Arc<Opening>,
    pub said: Said,
    _lock: Lock,
}

/// What a start found, for its text.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    pub directory: PathBuf,
    pub durability: &'static str,
    pub sessions: u64,
    pub messages: u64,
    pub retained: u64,
    pub torn_bytes: u64,
    pub took_ms: u64,
    /// The broker before stopped in order.
    pub stopped: bool,
    pub is_new: bool,
    pub damage: Vec<String>,
    pub warnings: Vec<String>,
}

/// What the shards of the new run begin with.
pub(super) struct Begun {
    pub store: Store,
    pub shards: Vec<Storing>,
    pub keys: HashKeys,
}

impl Store {
    /// Reads what is kept, and prepares the new run. `now` is the moment on the clock of the shards;
    /// `keys` are those of a directory that is new.
    pub fn open(config: &StoreConfig, shards: u16, now: Millis, keys: HashKeys) -> Result<Begun, StoreError> {
        let began = Instant::now();
        let failed = |why: Why| StoreError { directory: config.directory.clone(), why };
        let io = |what: &'static str| {
            let directory = config.directory.clone();
            move |error| StoreError { directory, why: Why::Io { what, error } }
        };
        let files = OsFiles::new(&config.directory);
        files.create_dir("").map_err(io("the directory cannot be made"))?;
        let lock = files.lock().map_err(|error| failed(Why::Lock(error)))?;
        let warnings = fitness(&files).map_err(|error| io("the file system cannot be looked at")(error))?;
        let found = Manifest::read(&files).map_err(|error| failed(Why::Manifest(error)))?;
        let before = match found {
            Some(manifest) => manifest,
            None if has_segments(&files).map_err(io("it cannot be read"))? => {
                return Err(failed(Why::NoManifest));
            }
            None => {
                // Before the first segment: where there are segments, a manifest has been lost.
                let new = Manifest::new(keys[0] ^ keys[3].rotate_left(17), keys);
                new.write(&files).map_err(io("the file manifest cannot be written"))?;
                new
            }
        };
        let is_new = before.run == 0;
        let clock = WallClock::new(wall_now(), now);
        let kept = read_all(&files, &before, clock).map_err(io("it cannot be read"))?;
        let damage = kept.damage();
        if !damage.is_empty() && config.damaged == DataDamaged::Refuse {
            return Err(failed(Why::Damaged(damage)));
        }
        let clock = kept.clock(clock, now);
        let waits = |session: &SessionImage| {
            (session.queue.len() + session.flying.len() + session.behind.len()) as u64
        };
        let mut said = Said {
            directory: config.directory.clone(),
            durability: config.durability.name(),
            sessions: kept.sessions.len() as u64,
            messages: kept.sessions.iter().map(|session| waits(session)).sum(),
            retained: kept.retained.len() as u64,
            torn_bytes: kept.reports.iter().map(|report| report.torn_bytes).sum(),
            stopped: !kept.reports.is_empty() && kept.reports.iter().all(|report| report.stopped),
            is_new,
            damage,
            warnings,
            ..Said::default()
        };
        let opening = Arc::new(Opening::default());
        let keeper = keeper(config, &files, shards).map_err(io("its room cannot be found"))?;
        let (run, parts) = NextRun::begin(&files, &before, kept, &keeper, shards)
            .map_err(|failure| io(failure.what)(failure.error))?;
        let found_damaged = said.damage.len() as u64;
        let parts = parts.into_iter().enumerate();
        let parts = parts.map(|(shard, Part { log, sessions, retained, given })| Storing {
            log,
            clock,
            sync: config.durability.sync(),
            grace_ms: config.grace_ms,
            sessions,
            retained,
            given,
            damaged: if shard == 0 { found_damaged } else { 0 },
            opening: Arc::clone(&opening),
        });
        let thread =
            start_keeper(&keeper, &files, run.prefix()).map_err(io("its thread cannot be started"))?;
        said.took_ms = began.elapsed().as_millis() as u64;
        let store = Store {
            files,
            keeper,
            thread: Some(thread),
            run,
            full: None,
            opening: Arc::clone(&opening),
            said,
            _lock: lock,
        };
        Ok(Begun { store, shards: parts.collect(), keys: before.keys })
    }

    /// Waits until all shards have everything on disk, and makes the new run the one that holds.
    /// `alive` says whether all of them are there.
    pub fn commit(&mut self, alive: impl Fn() -> bool) -> Result<(), StoreError> {
        let began = Instant::now();
        let failed = |what: &'static str, error: io::Error| StoreError {
            directory: self.said.directory.clone(),
            why: Why::Io { what, error },
        };
        while !self.opening.is_ready(self.run.manifest.shards) {
            if let Some(errno) = self.opening.broken() {
                return Err(failed("what is kept cannot be written", io::Error::from_raw_os_error(errno)));
            }
            if !alive() {
                return Err(failed("a shard", io::Error::other("it ended before it began")));
            }
            std::thread::sleep(READY_POLL);
        }
        self.run.hold(&self.files).map_err(|failure| failed(failure.what, failure.error))?;
        self.opening.open();
        self.run.clear(&self.files);
        self.said.took_ms += began.elapsed().as_millis() as u64;
        Ok(())
    }

    /// Says that segments cannot be made, and when they can be made again.
    pub fn tend(&mut self) {
        let full = self.keeper.failure();
        if std::mem::replace(&mut self.full, full) == full {
            return;
        }
        let directory = self.said.directory.display().to_string();
        let (level, why) = match full {
            Some(kind) => (
                Level::Error,
                format!(
                    "the next segment of the message log cannot be made: {kind}; when the last one is full, \
                     acknowledgements of what is kept wait until there is room"
                ),
            ),
            None => (Level::Info, "segments of the message log can be made again".to_owned()),
        };
        log::event(level, Kind::System, &[("data", Value::Ours(&directory)), ("why", Value::Ours(&why))]);
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.keeper.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Milliseconds since 1970.
pub(super) fn wall_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// What somebody should know about the file system.
fn fitness(files: &OsFiles) -> io::Result<Vec<String>> {
    let kind = files.kind()?;
    Ok(match kind.medium {
        Medium::Memory => {
            vec![format!("{kind} is memory: what is kept there does not survive a restart of the machine")]
        }
        Medium::Remote => {
            vec![format!("{kind} is on another machine or process: a flush may not reach its disk")]
        }
        Medium::Disk => Vec::new(),
    })
}

fn keeper(config: &StoreConfig, files: &OsFiles, shards: u16) -> io::Result<Keeper> {
    let bytes_max = match config.bytes_max {
        Some(bytes_max) => bytes_max,
        None => files.free_bytes()? / 2,
    };
    let segment = bytes_max / (SEGMENTS_OF_SHARD * u64::from(shards));
    let segment = segment.clamp(SEGMENT_MIN, SEGMENT_MAX) >> 20 << 20;
    let keeper = Keeper::new(shards, segment, bytes_max);
    Ok(match config.durability.sync() {
        Sync::None => keeper.flushing(),
        Sync::Data => keeper,
    })
}

fn start_keeper(keeper: &Keeper, files: &OsFiles, prefix: String) -> io::Result<JoinHandle<()>> {
    let (keeper, files) = (keeper.clone(), files.clone());
    std::thread::Builder::new().name("keeper".to_owned()).spawn(move || keeper.run(&files, &prefix))
}

/// Reads all logs at once, each in a thread of its own.
fn read_logs(files: &OsFiles, manifest: &Manifest, clock: WallClock) -> io::Result<Vec<Found>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..manifest.shards)
            .map(|shard| {
                let origin = manifest.origin(shard);
                scope.spawn(move || store::recover(files, origin, clock))
            })
            .collect();
        let read = threads.into_iter().map(|thread| match thread.join() {
            Ok(found) => found,
            Err(_) => Err(io::Error::other("a thread that reads it panicked")),
        });
        read.collect()
    })
}

/// Whether anything was ever written to a log here.
fn has_segments(files: &OsFiles) -> io::Result<bool> {
    for directory in files.list("")? {
        if directory.len() == 3
            && directory.parse::<ShardId>().is_ok()
            && !store::heads(files, &directory)?.is_empty()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Everything that the run that holds has kept.
pub(super) fn read_all(files: &OsFiles, manifest: &Manifest, clock: WallClock) -> io::Result<Kept> {
    Kept::of(files, manifest, read_logs(files, manifest, clock)?)
}
