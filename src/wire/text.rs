//! Strings and Topic Names: UTF-8, U+0000, wildcards and depth.
//!
//! The standard library validates UTF-8 (its ASCII path takes sixteen bytes a step); the forbidden bytes are
//! then looked for eight at a time, since most Topic Names are too short for memchr to pay off. All forbidden
//! characters are ASCII, so a byte search cannot hit inside a longer character.

use super::{DecodeError, Reason};

/// From this length on memchr is faster than words of eight.
const SHORT_MAX: usize = 64;

/// Well-formed UTF-8 without U+0000; U+FEFF is kept wherever it stands. Control characters and
/// non-characters, which a receiver may refuse, are accepted. [U5-1.5.4-1] [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-1.5.4-3]
#[inline]
pub(super) fn string(bytes: &[u8]) -> Result<&str, DecodeError> {
    let text = utf8(bytes)?;
    let nul = if bytes.len() <= SHORT_MAX {
        short_holds_any(bytes, [0])
    } else {
        memchr::memchr(0, bytes).is_some()
    };
    if nul { Err(DecodeError::Malformed("string holds U+0000")) } else { Ok(text) }
}

/// A Topic Name of any length, the empty one included: a string without wildcards, of at most `levels_max`
/// levels. [MQTT-3.3.2-2] [MQTT-4.7.0-1] [MQTT-4.7.3-2]
#[inline]
pub(super) fn topic_name(bytes: &[u8], levels_max: u16) -> Result<&str, DecodeError> {
    let topic = utf8(bytes)?;
    let forbidden = if bytes.len() <= SHORT_MAX {
        short_holds_any(bytes, [0, b'+', b'#'])
    } else {
        memchr::memchr3(0, b'+', b'#', bytes).is_some()
    };
    if forbidden {
        return Err(topic_name_fault(bytes));
    }
    if exceeds_levels(bytes, levels_max) {
        return Err(DecodeError::Specific(Reason::TOPIC_NAME_INVALID, "Topic Name has too many levels"));
    }
    Ok(topic)
}

/// A string that is a Topic Filter, of at most `levels_max` levels after its Share Name. Its wildcards are not judged here.
pub(super) fn topic_filter(bytes: &[u8], levels_max: u16) -> Result<&str, DecodeError> {
    let filter = string(bytes)?;
    if exceeds_levels(bytes, levels_max) && exceeds_levels(after_share_name(bytes), levels_max) {
        return Err(DecodeError::Specific(Reason::TOPIC_FILTER_INVALID, "Topic Filter has too many levels"));
    }
    Ok(filter)
}

/// What is matched of a Topic Filter: all of it, unless it begins with a Share Name.
fn after_share_name(filter: &[u8]) -> &[u8] {
    let named = filter.strip_prefix(b"$share/");
    let end = named.and_then(|rest| Some(&rest[memchr::memchr(b'/', rest)? + 1..]));
    end.unwrap_or(filter)
}

#[inline]
fn utf8(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Malformed("string is not well-formed UTF-8"))
}

#[cold]
fn topic_name_fault(bytes: &[u8]) -> DecodeError {
    if bytes.contains(&0) {
        DecodeError::Malformed("string holds U+0000")
    } else {
        DecodeError::Specific(Reason::TOPIC_NAME_INVALID, "Topic Name holds a wildcard")
    }
}

/// `n` slashes make `n + 1` levels, and a string of `n` bytes has at most `n` slashes: most need no count.
#[inline]
fn exceeds_levels(bytes: &[u8], levels_max: u16) -> bool {
    bytes.len() >= usize::from(levels_max)
        && memchr::memchr_iter(b'/', bytes).count() >= usize::from(levels_max)
}

/// Whether any byte is one of `needles`. A zero byte of `word ^ needle` is a hit, and only a zero byte has
/// its top bit set in `(x - 1) & !x` (a borrow can only come from a lower hit). The last word overlaps the
/// one before it instead of a byte-wise tail.
#[inline]
fn short_holds_any<const N: usize>(bytes: &[u8], needles: [u8; N]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = ONES << 7;
    let hits = |word: [u8; 8]| {
        let word = u64::from_ne_bytes(word);
        needles.iter().fold(0, |hits, &needle| {
            let x = word ^ (ONES * u64::from(needle));
            hits | (x.wrapping_sub(ONES) & !x)
        }) & TOPS
    };
    let Some(&last) = bytes.last_chunk::<8>() else {
        return bytes.iter().any(|byte| needles.contains(byte));
    };
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().fold(hits(last), |found, &word| found | hits(word)) != 0
}
