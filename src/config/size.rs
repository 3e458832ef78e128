//! Numbers of bytes, as flags take them and as people read them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes, with an optional suffix.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            other => return Err(format!("'{other}' is not a suffix of sizes; use k, M or G")),
        };
        let number: u64 =
            digits.parse().map_err(|_| "expected a whole number, such as 4096, 64k or 1M".to_owned())?;
        number.checked_mul(1 << shift).map(Size).ok_or_else(|| "that is too large".to_owned())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shift, suffix) = match self.0 {
            0 => (0, ""),
            bytes if bytes.trailing_zeros() >= 30 => (30, "G"),
            bytes if bytes.trailing_zeros() >= 20 => (20, "M"),
            bytes if bytes.trailing_zeros() >= 10 => (10, "k"),
            _ => (0, ""),
        };
        write!(f, "{}{suffix}", self.0 >> shift)
    }
}

/// A number of bytes for people, such as `64k`, `1.5G`.
pub fn bytes(bytes: u64) -> String {
    let unit = |shift: u32, suffix| {
        let tenths = (u128::from(bytes) * 10) >> shift;
        match tenths % 10 {
            0 => format!("{}{suffix}", tenths / 10),
            tenth => format!("{}.{tenth}{suffix}", tenths / 10),
        }
    };
    match bytes {
        0..1024 => bytes.to_string(),
        1024..0x10_0000 => unit(10, "k"),
        0x10_0000..0x4000_0000 => unit(20, "M"),
        _ => unit(30, "G"),
    }
}
