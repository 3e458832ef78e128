//! The log, on stderr or in a file: one line per event, as text or JSON, that can neither flood the disk nor hold a shard
//! up.
//!
//! - A shard formats a line and offers it to a bounded channel; one thread writes. A full channel loses the line, which
//!   is counted and said as soon as there is room again.
//! - Each kind of event may have so many lines a second; how many more there were is said once the second is over.
//! - A file is opened again when that is asked for, so that it can be moved away while the broker runs. What could not be
//!   written is counted as lost.
//! - What comes from clients is quoted, escaped and shortened, so that no name can forge a line or hide one.
//!
//! Nothing depends on the log: without [`start`], as in simulation, an event is a look at one atomic number. This is the
//! one place below `server` that reads a clock, and only to print the time.

mod line;
mod sink;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use line::Line;
pub use line::day;
use sink::Sink;
pub use sink::is_journal;

/// Lines of one kind in one second; more are counted and left out.
pub const LINES_PER_KIND_AND_SECOND: u64 = 100;
/// Lines that wait for the writer; more are lost and counted.
pub const LINES_WAITING_MAX: usize = 4096;
/// Characters of one value; what is longer is cut, and its length is said.
pub const VALUE_CHARS_MAX: usize = 256;
/// How long the end of the process waits for a reader of stderr that reads no more.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// How much an event matters.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum Level {
    /// Nothing is logged.
    Off,
    /// The broker is in trouble.
    Error,
    /// A client did something wrong or met a limit.
    Warn,
    /// Clients come and go.
    Info,
    /// Everything else.
    Debug,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Off => "off",
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }

    /// As syslog and journald number it.
    fn syslog(self) -> u8 {
        match self {
            Level::Off | Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug => 7,
        }
    }
}

/// How a line looks.
#[derive(Copy, Clone, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Format {
    /// `2026-01-31T12:00:00.000Z info connect client=abc address=127.0.0.1:50000`
    Text,
    /// `{"time":"2026-01-31T12:00:00.000Z","level":"info","event":"connect","client":"abc",...}`
    Json,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// What happened. Each kind has its own allowance of lines.
        #[derive(Copy, Clone, PartialEq, Eq, Debug)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &'static [Kind] = &[$(Kind::$kind),*];

            /// As it is printed.
            pub fn name(self) -> &'static str {
                match self {
                    $(Kind::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    /// A CONNECT was accepted.
    Connect = "connect",
    /// A connection ended, whoever ended it.
    Disconnect = "disconnect",
    /// A connection or a CONNECT was refused.
    Refused = "refused",
    /// A connection ended before a whole CONNECT was read.
    NoConnect = "no-connect",
    /// A client asked for something that the rules do not allow.
    Denied = "denied",
    /// A session got a new connection while it had one.
    TakenOver = "taken-over",
    /// A session ended by expiry.
    Expired = "expired",
    /// A limit was reached.
    LimitReached = "limit-reached",
    /// A peer broke the rules of MQTT.
    ProtocolError = "protocol-error",
    /// The operating system refused something.
    System = "system",
    /// The broker starts.
    Start = "start",
    /// Files were read again, or could not be.
    Reload = "reload",
    /// A signal came that asks for nothing else in this list.
    Signal = "signal",
    /// A certificate has expired, does so soon, or is not valid yet.
    Certificate = "certificate",
    /// The broker stops.
    Stop = "stop",
}

/// A value of an event.
#[derive(Copy, Clone, Debug)]
pub enum Value<'a> {
    /// May come from a client.
    Text(&'a str),
    /// Comes from whoever runs the broker, and is not shortened.
    Ours(&'a str),
    Number(u64),
    Flag(bool),
    /// A reason code; printed in hexadecimal, as the standard does.
    Code(u8),
    Address(SocketAddr),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Value<'a> {
        Value::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Value<'a> {
        Value::Text(text)
    }
}

macro_rules! from_number {
    ($($number:ty)*) => {
        $(impl From<$number> for Value<'_> {
            fn from(number: $number) -> Self {
                Value::Number(number as u64)
            }
        })*
    };
}

from_number!(u8 u16 u32 u64 usize);

impl From<SocketAddr> for Value<'_> {
    fn from(address: SocketAddr) -> Self {
        Value::Address(address)
    }
}

/// The level up to which events are logged; read by every event first.
static LEVEL: AtomicU8 = AtomicU8::new(Level::Off as u8);
static LOGGER: OnceLock<Arc<Logger>> = OnceLock::new();

/// Is an event of this level logged? For callers whose values take work.
#[inline]
pub fn enabled(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Logs an event. Never waits.
#[inline]
pub fn event(level: Level, kind: Kind, values: &[(&str, Value)]) {
    if enabled(level)
        && let Some(logger) = LOGGER.get()
    {
        logger.event(SystemTime::now(), level, kind, values);
    }
}

/// Starts the log of this process, on stderr or in a file; the lines that wait are written when the result is dropped.
///
/// # Errors
/// If the file cannot be opened, or the writer's thread cannot be started. A second start changes nothing.
pub fn start(level: Level, format: Format, file: Option<&Path>) -> std::io::Result<Open> {
    let sink = match file {
        Some(path) => Sink::file(path)?,
        None => Sink::stderr(),
    };
    let (logger, open) = Logger::start(level, format, sink)?;
    if LOGGER.set(logger).is_ok() {
        LEVEL.store(level as u8, Ordering::Relaxed);
    }
    Ok(open)
}

/// Another level from now on, if the log was started.
pub fn set_level(level: Level) {
    if let Some(logger) = LOGGER.get() {
        logger.level.store(level as u8, Ordering::Relaxed);
        LEVEL.store(level as u8, Ordering::Relaxed);
    }
}

/// Says a sentence about the broker itself, whatever the level, unless nothing is logged at all. In a JSON log the fields say
/// the same.
pub fn say(level: Level, kind: Kind, text: &str, fields: &[(&str, Value)]) {
    if enabled(Level::Error)
        && let Some(logger) = LOGGER.get()
    {
        logger.say(SystemTime::now(), level, kind, text, fields);
    }
}

/// Why the broker does not start, in the form that the log on stderr has.
pub fn refusal(format: Format, why: &str) -> String {
    let form = (format, is_journal(), false);
    Line::sentence(form, (SystemTime::now(), Level::Error, Kind::Start), why, &[]).end()
}

/// Opens the file of the log again, if it has one; the log says so.
pub fn reopen() {
    if let Some(logger) = LOGGER.get() {
        logger.reopen();
    }
}

/// The lines of one kind in the second that runs.
#[derive(Debug, Default)]
struct Allowance {
    second: AtomicU64,
    lines: AtomicU64,
    suppressed: AtomicU64,
}

impl Allowance {
    /// Shards race at the turn of a second; a few lines more or fewer do no harm, and none goes uncounted.
    fn take(&self, second: u64) -> bool {
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.lines.store(0, Ordering::Relaxed);
        }
        let allowed = self.lines.fetch_add(1, Ordering::Relaxed) < LINES_PER_KIND_AND_SECOND;
        if !allowed {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
        }
        allowed
    }
}

struct Logger {
    /// For what the writer says itself.
    level: AtomicU8,
    format: Format,
    /// journald reads the lines.
    prefixed: bool,
    /// The lines are kept where no journal dates them.
    is_file: bool,
    allowances: Vec<Allowance>,
    lines: SyncSender<Entry>,
    lost: AtomicU64,
    reopen: AtomicBool,
}

enum Entry {
    Line(String),
    /// There is something to do besides lines.
    Look,
    Close,
}

/// The log while it is open; dropping it writes what waits and ends the writer.
pub struct Open {
    logger: Arc<Logger>,
    closed: Receiver<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        // A reader of stderr that reads no more must not keep the process alive.
        let mut left = 50;
        while let Err(TrySendError::Full(_)) = self.logger.lines.try_send(Entry::Close)
            && left > 0
        {
            left -= 1;
            std::thread::sleep(CLOSE_TIMEOUT / 50);
        }
        if left > 0 {
            let _ = self.closed.recv_timeout(CLOSE_TIMEOUT);
        }
    }
}

impl Logger {
    fn start(level: Level, format: Format, sink: Sink) -> std::io::Result<(Arc<Logger>, Open)> {
        let (lines, waiting) = mpsc::sync_channel(LINES_WAITING_MAX);
        let (closing, closed) = mpsc::sync_channel(1);
        let logger = Arc::new(Logger {
            level: AtomicU8::new(level as u8),
            format,
            prefixed: sink.is_journal(),
            is_file: sink.path().is_some(),
            allowances: Kind::ALL.iter().map(|_| Allowance::default()).collect(),
            lines,
            lost: AtomicU64::new(0),
            reopen: AtomicBool::new(false),
        });
        let writes = Arc::clone(&logger);
        std::thread::Builder::new().name("log".into()).spawn(move || {
            writes.write(&waiting, sink);
            let _ = closing.send(());
        })?;
        Ok((Arc::clone(&logger), Open { logger, closed }))
    }

    fn begin(&self, now: SystemTime, level: Level, kind: Kind) -> Line {
        Line::begin(self.format, self.prefixed, now, level, kind.name())
    }

    fn event(&self, now: SystemTime, level: Level, kind: Kind, values: &[(&str, Value)]) {
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if !self.allowances[kind as usize].take(second) {
            return;
        }
        let mut line = self.begin(now, level, kind);
        for (name, value) in values {
            line.value(name, *value);
        }
        self.offer(line);
    }

    fn say(&self, now: SystemTime, level: Level, kind: Kind, text: &str, fields: &[(&str, Value)]) {
        let form = (self.format, self.prefixed, self.is_file);
        self.offer(Line::sentence(form, (now, level, kind), text, fields));
    }

    fn offer(&self, line: Line) {
        if self.lines.try_send(Entry::Line(line.end())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
        // With lines waiting the writer looks soon anyway.
        let _ = self.lines.try_send(Entry::Look);
    }

    /// The writer's thread.
    fn write(&self, waiting: &Receiver<Entry>, mut sink: Sink) {
        loop {
            match waiting.recv_timeout(Duration::from_secs(1)) {
                Ok(Entry::Line(line)) => {
                    // Nobody can be told about a log that fails before it works again.
                    if sink.write(line.as_bytes()).is_err() {
                        self.lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(Entry::Close) | Err(RecvTimeoutError::Disconnected) => {
                    self.write_counts(SystemTime::now(), u64::MAX, &mut sink);
                    sink.flush();
                    return;
                }
                Ok(Entry::Look) | Err(RecvTimeoutError::Timeout) => {}
            }
            let now = SystemTime::now();
            if self.reopen.swap(false, Ordering::Acquire) {
                self.open_again(now, &mut sink);
            }
            let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            self.write_counts(now, second, &mut sink);
        }
    }

    /// Opens the file again and says so there, or in the old one that it cannot be opened.
    fn open_again(&self, now: SystemTime, sink: &mut Sink) {
        let path = sink.path().map(|path| path.display().to_string());
        let opened = sink.reopen();
        let level = if opened.is_err() { Level::Error } else { Level::Info };
        if level as u8 > self.level.load(Ordering::Relaxed) {
            return;
        }
        let mut line = self.begin(now, level, Kind::Signal);
        line.value("signal", "SIGUSR1".into());
        match (&path, opened) {
            (None, _) => line.value("why", "the log is on stderr and not in a --log-file".into()),
            (Some(path), Ok(())) => line.value("opened", path.into()),
            (Some(path), Err(error)) => {
                line.value("why", "the log file could not be opened again; the old one goes on".into());
                line.value("path", path.into());
                line.value("error", (&error.to_string()).into());
            }
        }
        if sink.write(line.end().as_bytes()).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Says what was left out in seconds that are over.
    fn write_counts(&self, now: SystemTime, second: u64, sink: &mut Sink) {
        for (kind, allowance) in Kind::ALL.iter().zip(&self.allowances) {
            if allowance.second.load(Ordering::Relaxed) != second {
                self.write_count(now, *kind, ("suppressed", &allowance.suppressed), sink);
            }
        }
        self.write_count(now, Kind::System, ("lines-lost", &self.lost), sink);
    }

    /// Says a count that is not 0, and begins anew once it is written.
    fn write_count(&self, now: SystemTime, kind: Kind, (name, of): (&str, &AtomicU64), sink: &mut Sink) {
        let count = of.load(Ordering::Relaxed);
        if count == 0 {
            return;
        }
        let mut line = self.begin(now, Level::Warn, kind);
        line.value(name, count.into());
        if sink.write(line.end().as_bytes()).is_ok() {
            of.fetch_sub(count, Ordering::Relaxed);
        }
    }
}
