//! One line: its time, its level, its event and its values, as text or as JSON.

use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Format, Kind, Level, VALUE_CHARS_MAX, Value};

/// A line that is being written.
pub(super) struct Line {
    format: Format,
    text: String,
}

impl Line {
    /// `prefixed` puts the level in front, as journald takes it.
    pub fn begin(format: Format, prefixed: bool, now: SystemTime, level: Level, event: &str) -> Line {
        let mut line = Line::bare(format, prefixed, level);
        line.head(now, level, event);
        line
    }

    /// A line of our own words: without time and event where the log is text.
    fn bare(format: Format, prefixed: bool, level: Level) -> Line {
        let mut text = String::with_capacity(160);
        if prefixed {
            let _ = write!(text, "<{}>", level.syslog());
        }
        Line { format, text }
    }

    /// What we say of ourselves, such as how the broker was started: a sentence, and the same as fields where the log is
    /// JSON. `dated` puts time and level in front of the sentence too.
    pub fn sentence(
        (format, prefixed, dated): (Format, bool, bool),
        (now, level, kind): (SystemTime, Level, Kind),
        text: &str,
        fields: &[(&str, Value)],
    ) -> Line {
        let mut line = Line::bare(format, prefixed, level);
        match format {
            Format::Text if dated => {
                line.head(now, level, kind.name());
                line.text.push(' ');
                line.text.push_str(text);
            }
            Format::Text => line.text.push_str(text),
            Format::Json => {
                line.head(now, level, kind.name());
                for (name, value) in fields {
                    line.value(name, *value);
                }
                // Not shortened: it is ours.
                line.text.push_str(",\"text\":\"");
                text.chars().for_each(|c| push_json(&mut line.text, c));
                line.text.push('"');
            }
        }
        line
    }

    fn head(&mut self, now: SystemTime, level: Level, event: &str) {
        let (time, level) = (Utc(now), level.name());
        let _ = match self.format {
            Format::Text => write!(self.text, "{time} {level} {event}"),
            Format::Json => {
                write!(self.text, r#"{{"time":"{time}","level":"{level}","event":"{event}""#)
            }
        };
    }

    pub fn value(&mut self, name: &str, value: Value) {
        let _ = match self.format {
            Format::Text => write!(self.text, " {name}="),
            Format::Json => write!(self.text, ",\"{name}\":"),
        };
        let _ = match (value, self.format) {
            (Value::Number(number), _) => write!(self.text, "{number}"),
            (Value::Flag(flag), _) => write!(self.text, "{flag}"),
            (Value::Code(code), Format::Text) => write!(self.text, "0x{code:02X}"),
            (Value::Code(code), Format::Json) => write!(self.text, "\"0x{code:02X}\""),
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

    pub fn end(mut self) -> String {
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
pub(super) struct Utc(pub SystemTime);

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
