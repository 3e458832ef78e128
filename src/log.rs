//! The log on stderr: one line per event, as text or JSON, that can neither flood the disk nor hold a shard up.
//!
//! - A shard formats a line and offers it to a bounded channel; one thread writes. A full channel loses the line, which
//!   is counted and said as soon as there is room again.
//! - Each kind of event may have so many lines a second; how many more there were is said once the second is over.
//! - What comes from clients is quoted, escaped and shortened, so that no name can forge a line or hide one.
//!
//! Nothing depends on the log: without [`start`], as in simulation, an event is a look at one atomic number. This is the
//! one place below `server` that reads a clock, and only to print the time.

use std::fmt::{self, Write as _};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// Starts the log of this process on stderr; the lines that wait are written when the result is dropped.
///
/// # Errors
/// If the writer's thread cannot be started. A second start changes nothing.
pub fn start(level: Level, format: Format) -> std::io::Result<Open> {
    let (logger, open) = Logger::start(format, Box::new(std::io::stderr()))?;
    if LOGGER.set(logger).is_ok() {
        LEVEL.store(level as u8, Ordering::Relaxed);
    }
    Ok(open)
}

/// Another level from now on, if the log was started.
pub fn set_level(level: Level) {
    if LOGGER.get().is_some() {
        LEVEL.store(level as u8, Ordering::Relaxed);
    }
}

/// The text of a line that is not an event, in the form that the log has.
pub fn plain(format: Format, text: &str) -> String {
    match format {
        Format::Text => text.to_owned(),
        Format::Json => {
            let mut line = Line::new(format);
            line.begin(SystemTime::now(), Level::Info, Kind::Start.name());
            // Not shortened: it is ours.
            line.text.push_str(",\"text\":\"");
            text.chars().for_each(|c| push_json(&mut line.text, c));
            line.text.push('"');
            line.end()
        }
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
    format: Format,
    allowances: Vec<Allowance>,
    lines: SyncSender<Entry>,
    lost: AtomicU64,
}

enum Entry {
    Line(String),
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
    fn start(format: Format, out: Box<dyn Write + Send>) -> std::io::Result<(Arc<Logger>, Open)> {
        let (lines, waiting) = mpsc::sync_channel(LINES_WAITING_MAX);
        let (closing, closed) = mpsc::sync_channel(1);
        let allowances = Kind::ALL.iter().map(|_| Allowance::default()).collect();
        let logger = Arc::new(Logger { format, allowances, lines, lost: AtomicU64::new(0) });
        let writes = Arc::clone(&logger);
        std::thread::Builder::new().name("log".into()).spawn(move || {
            writes.write(&waiting, out);
            let _ = closing.send(());
        })?;
        Ok((Arc::clone(&logger), Open { logger, closed }))
    }

    fn event(&self, now: SystemTime, level: Level, kind: Kind, values: &[(&str, Value)]) {
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if !self.allowances[kind as usize].take(second) {
            return;
        }
        let mut line = Line::new(self.format);
        line.begin(now, level, kind.name());
        for (name, value) in values {
            line.value(name, *value);
        }
        if self.lines.try_send(Entry::Line(line.end())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The writer's thread.
    fn write(&self, waiting: &Receiver<Entry>, mut out: Box<dyn Write + Send>) {
        loop {
            // Nobody can be told about a stderr that fails.
            match waiting.recv_timeout(Duration::from_secs(1)) {
                Ok(Entry::Line(line)) => {
                    let _ = out.write_all(line.as_bytes());
                }
                Ok(Entry::Close) | Err(RecvTimeoutError::Disconnected) => {
                    self.write_counts(SystemTime::now(), u64::MAX, &mut out);
                    let _ = out.flush();
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = SystemTime::now();
            let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            self.write_counts(now, second, &mut out);
        }
    }

    /// Says what was left out in seconds that are over.
    fn write_counts(&self, now: SystemTime, second: u64, out: &mut Box<dyn Write + Send>) {
        for (kind, allowance) in Kind::ALL.iter().zip(&self.allowances) {
            if allowance.suppressed.load(Ordering::Relaxed) > 0
                && allowance.second.load(Ordering::Relaxed) != second
            {
                let count = allowance.suppressed.swap(0, Ordering::Relaxed);
                let mut line = Line::new(self.format);
                line.begin(now, Level::Warn, kind.name());
                line.value("suppressed", count.into());
                let _ = out.write_all(line.end().as_bytes());
            }
        }
        if self.lost.load(Ordering::Relaxed) > 0 {
            let count = self.lost.swap(0, Ordering::Relaxed);
            let mut line = Line::new(self.format);
            line.begin(now, Level::Warn, Kind::System.name());
            line.value("lines-lost", count.into());
            let _ = out.write_all(line.end().as_bytes());
        }
    }
}

/// A line that is being written.
struct Line {
    format: Format,
    text: String,
}

impl Line {
    fn new(format: Format) -> Line {
        Line { format, text: String::with_capacity(160) }
    }

    fn begin(&mut self, now: SystemTime, level: Level, event: &str) {
        let (time, level) = (Utc(now), level.name());
        let _ = match self.format {
            Format::Text => write!(self.text, "{time} {level} {event}"),
            Format::Json => {
                write!(self.text, r#"{{"time":"{time}","level":"{level}","event":"{event}""#)
            }
        };
    }

    fn value(&mut self, name: &str, value: Value) {
        let _ = match self.format {
            Format::Text => write!(self.text, " {name}="),
            Format::Json => write!(self.text, ",\"{name}\":"),
        };
        let _ = match (value, self.format) {
            (Value::Number(number), _) => write!(self.text, "{number}"),
            (Value::Address(address), Format::Text) => write!(self.text, "{address}"),
            (Value::Address(address), Format::Json) => write!(self.text, "\"{address}\""),
            (Value::Text(text), format) => {
                self.quoted(text, format, VALUE_CHARS_MAX);
                Ok(())
            }
            (Value::Ours(text), format) => {
                self.quoted(text, format, usize::MAX);
                Ok(())
            }
        };
    }

    fn quoted(&mut self, text: &str, format: Format, chars_max: usize) {
        let bare = |c: char| c.is_ascii_alphanumeric() || "_-./:@+".contains(c);
        if format == Format::Text && !text.is_empty() && text.len() <= chars_max && text.chars().all(bare) {
            self.text.push_str(text);
            return;
        }
        self.text.push('"');
        for c in text.chars().take(chars_max) {
            match format {
                Format::Text => self.text.extend(c.escape_debug()),
                Format::Json => push_json(&mut self.text, c),
            }
        }
        if text.chars().nth(chars_max).is_some() {
            let _ = write!(self.text, "... ({} bytes)", text.len());
        }
        self.text.push('"');
    }

    fn end(mut self) -> String {
        self.text.push_str(if self.format == Format::Json { "}\n" } else { "\n" });
        self.text
    }
}

/// Appends a character of a JSON string; what does not print, or would change how others print, is escaped.
fn push_json(into: &mut String, c: char) {
    match c {
        '"' => into.push_str("\\\""),
        '\\' => into.push_str("\\\\"),
        '\'' => into.push('\''),
        _ if c.escape_debug().count() == 1 => into.push(c),
        _ => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(into, "\\u{unit:04x}");
            }
        }
    }
}

/// Prints as RFC 3339 with milliseconds.
struct Utc(SystemTime);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (seconds, millis) = (since.as_secs(), since.subsec_millis());
        let (days, of_day) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

/// A moment in seconds since 1970 as its date, such as `2040-01-31`.
pub fn day(seconds: u64) -> String {
    let (year, month, day) = date(seconds / 86_400);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The date that is `days` after 1970-01-01. Counts years from March, so that the leap day comes last.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let days = days + 719_468; // Since 0000-03-01.
    let (era, day) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Kept {
        fn lines(&self) -> Vec<String> {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
        }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn log(format: Format, work: impl FnOnce(&Logger)) -> Vec<String> {
        let kept = Kept::default();
        let (logger, open) = Logger::start(format, Box::new(kept.clone())).unwrap();
        work(&logger);
        drop(open);
        kept.lines()
    }

    const HOSTILE: &str = "a\n2026 info connect \"x\" \\ \u{202e}\u{1f980}\u{0}";

    #[test]
    fn a_hostile_name_stays_one_value_of_one_line() {
        let values: &[(&str, Value)] = &[
            ("client", HOSTILE.into()),
            ("user", "plain".into()),
            ("none", "".into()),
            ("address", SocketAddr::from(([127, 0, 0, 1], 5)).into()),
            ("bytes", 7u32.into()),
        ];
        let event = |logger: &Logger| logger.event(at(951_782_400), Level::Info, Kind::Connect, values);
        assert_eq!(
            log(Format::Text, event),
            [concat!(
                r#"2000-02-29T00:00:00.000Z info connect "#,
                r#"client="a\n2026 info connect \"x\" \\ \u{202e}🦀\0" user=plain none="" address=127.0.0.1:5 bytes=7"#
            )]
        );
        assert_eq!(
            log(Format::Json, event),
            [concat!(
                r#"{"time":"2000-02-29T00:00:00.000Z","level":"info","event":"connect","#,
                r#""client":"a\u000a2026 info connect \"x\" \\ \u202e🦀\u0000","user":"plain","none":"","#,
                r#""address":"127.0.0.1:5","bytes":7}"#
            )]
        );
    }

    #[test]
    fn a_long_value_is_cut_and_its_length_said() {
        let long = "x".repeat(60_000);
        let lines = log(Format::Text, |logger| {
            logger.event(at(0), Level::Warn, Kind::Refused, &[("client", (&long).into())]);
        });
        assert!(lines[0].ends_with("xxx... (60000 bytes)\"") && lines[0].len() < 400, "{lines:?}");
    }

    #[test]
    fn each_kind_has_its_own_allowance_and_the_rest_is_counted() {
        let lines = log(Format::Text, |logger| {
            for _ in 0..LINES_PER_KIND_AND_SECOND + 23 {
                logger.event(at(5), Level::Info, Kind::Connect, &[]);
            }
            logger.event(at(5), Level::Info, Kind::Disconnect, &[]);
            logger.event(at(6), Level::Info, Kind::Connect, &[]);
        });
        let connects = lines.iter().filter(|line| line.ends_with(" info connect")).count() as u64;
        assert_eq!(connects, LINES_PER_KIND_AND_SECOND + 1);
        assert!(lines.iter().any(|line| line.ends_with(" info disconnect")));
        // The writer may look in between and say it in parts.
        let suppressed = |line: &String| line.split(" warn connect suppressed=").nth(1)?.parse::<u64>().ok();
        assert_eq!(lines.iter().filter_map(suppressed).sum::<u64>(), 23, "{lines:?}");
    }

    #[test]
    fn a_writer_that_hangs_holds_nobody_up_and_the_loss_is_counted() {
        /// Hangs until it is let go.
        struct Stuck(Arc<Mutex<()>>, Kept);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                drop(self.0.lock().unwrap());
                self.1.write(bytes)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (gate, kept) = (Arc::new(Mutex::new(())), Kept::default());
        let held = gate.lock().unwrap();
        let out = Box::new(Stuck(Arc::clone(&gate), kept.clone()));
        let (logger, open) = Logger::start(Format::Text, out).unwrap();
        let offered = 2 * LINES_WAITING_MAX as u64;
        for index in 0..offered {
            // One second each, so that no allowance stands in the way.
            logger.event(at(index), Level::Info, Kind::Connect, &[]);
        }
        drop(held);
        drop(open);
        let lines = kept.lines();
        let written = lines.iter().filter(|line| line.ends_with("connect")).count() as u64;
        let lost: u64 =
            lines.iter().filter_map(|line| line.split("lines-lost=").nth(1)?.parse::<u64>().ok()).sum();
        assert!(lost > 0, "{}", lines.len());
        assert_eq!(written + lost, offered);
    }

    #[test]
    fn times() {
        let time = |seconds| Utc(at(seconds)).to_string();
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(1_709_251_199), "2024-02-29T23:59:59.000Z");
        assert_eq!(time(1_709_251_200), "2024-03-01T00:00:00.000Z");
        assert_eq!(time(4_107_542_399), "2100-02-28T23:59:59.000Z");
        assert_eq!(time(4_107_542_400), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn start_text_is_json_too_where_the_log_is() {
        assert_eq!(plain(Format::Text, "a \"b\""), "a \"b\"");
        let json = plain(Format::Json, "a \"b\"");
        assert!(json.starts_with("{\"time\":") && json.ends_with("\"text\":\"a \\\"b\\\"\"}\n"), "{json}");
    }
}
