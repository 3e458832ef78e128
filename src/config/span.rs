//! Lengths of time, as flags and files take them: seconds, or a number with a unit.

use std::fmt;
use std::str::FromStr;

use crate::clock::Millis;

/// A length of time.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd)]
pub(super) struct Span {
    pub ms: Millis,
}

/// Units with their milliseconds, the largest first; the first name of each is the one that is
/// printed.
const UNITS: [(&[&str], Millis); 6] = [
    (&["w"], 7 * 24 * 3_600_000),
    (&["d"], 24 * 3_600_000),
    (&["h"], 3_600_000),
    (&["m", "min"], 60_000),
    (&["s", "sec"], 1000),
    (&["ms"], 1),
];

impl Span {
    pub const fn seconds(seconds: u64) -> Span {
        Span { ms: seconds * 1000 }
    }

    /// Whole seconds; what reads a flag that counts in them takes nothing else.
    pub fn whole_s(self) -> u64 {
        self.ms / 1000
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "" => 1000,
            name => {
                let known = UNITS.iter().find(|(names, _)| names.contains(&name));
                known.ok_or_else(|| format!("'{name}' is not a unit of time; use ms, s, m, h, d or w"))?.1
            }
        };
        let number: u64 =
            digits.parse().map_err(|_| "expected a whole number, such as 10, 10s or 7d".to_owned())?;
        number.checked_mul(unit).map(|ms| Span { ms }).ok_or_else(|| "that is too long".to_owned())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A week is said in days.
        let fits = UNITS[1..].iter().find(|(_, ms)| self.ms > 0 && self.ms.is_multiple_of(*ms));
        match fits {
            Some((names, ms)) => write!(f, "{}{}", self.ms / ms, names[0]),
            None => f.write_str("0"),
        }
    }
}

/// Reads a time between two others.
pub(super) fn between(min: Span, max: Span) -> impl Fn(&str) -> Result<Span, String> + Clone + Send + Sync {
    move |text| {
        let span: Span = text.parse()?;
        match min <= span && span <= max {
            true => Ok(span),
            false => Err(format!("{text} is not between {min} and {max}")),
        }
    }
}

/// Reads whole seconds up to a number of them, for what the protocol counts in seconds.
pub(super) fn seconds(max_s: u64) -> impl Fn(&str) -> Result<Span, String> + Clone + Send + Sync {
    move |text| {
        let span: Span = text.parse()?;
        if !span.ms.is_multiple_of(1000) {
            return Err(format!("{text} is not a whole number of seconds"));
        }
        match span <= Span::seconds(max_s) {
            true => Ok(span),
            false => Err(format!("{text} is more than {max_s} seconds")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_they_print() {
        for (text, ms, printed) in [
            ("0", 0, "0"),
            ("0s", 0, "0"),
            ("10", 10_000, "10s"),
            ("10s", 10_000, "10s"),
            ("500ms", 500, "500ms"),
            ("90s", 90_000, "90s"),
            ("5m", 300_000, "5m"),
            ("5min", 300_000, "5m"),
            ("24h", 86_400_000, "1d"),
            ("1w", 604_800_000, "7d"),
            ("604800", 604_800_000, "7d"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.ms, span.to_string().as_str()), (ms, printed), "{text}");
            assert_eq!(span.to_string().parse(), Ok(span));
        }
        for wrong in ["", "s", "-1", "1.5h", "10 s", "1y", "10S", "99999999999999999d", "1h30m"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_outside_its_bounds_is_refused_with_them() {
        let read = between(Span { ms: 100 }, Span::seconds(3600));
        assert_eq!([read("100ms"), read("1h")], [Ok(Span { ms: 100 }), Ok(Span::seconds(3600))]);
        assert_eq!(read("99ms").unwrap_err(), "99ms is not between 100ms and 1h");
        assert!(read("3601").is_err());
        let read = seconds(u16::MAX.into());
        assert_eq!(read("65535"), Ok(Span::seconds(65_535)));
        assert!(read("65536").unwrap_err().contains("65535 seconds"));
        assert!(read("1500ms").unwrap_err().contains("whole number of seconds"));
    }
}
