//! Topic Names and Topic Filters: what is valid, and which filter matches which name.
//!
//! Levels are split at `/` and may be empty; nothing is normalised and case counts. // [MQTT-4.7.3-4]
//! That a text is UTF-8 without U+0000 and that a Topic Name has no wildcard was checked when it was decoded.

use memchr::{memchr, memchr_iter, memchr2};

/// A Topic Filter, taken apart.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Filter<'a> {
    /// The Share Name of a Shared Subscription.
    pub share: Option<&'a str>,
    /// What topics are matched with: the text without `$share/name/`.
    pub filter: &'a str,
    /// Whether `+` or `#` occurs in `filter`.
    pub has_wildcard: bool,
}

/// Why a Topic Filter is refused; either is SUBACK 0x8F.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum FilterError {
    /// Against the rules of the standard.
    Invalid,
    /// More levels than the broker's limit.
    TooManyLevels,
}

/// Levels in `text`; at least 1.
fn levels(text: &str) -> usize {
    memchr_iter(b'/', text.as_bytes()).count() + 1
}

/// Checks a Topic Filter and takes it apart. Only the levels after the Share Name count against `levels_max`.
pub fn parse_filter(text: &str, levels_max: u16) -> Result<Filter<'_>, FilterError> {
    let parts = split(text);
    // `$share/` without a whole Share Name and a `/` after it. // [MQTT-4.8.2-1] [MQTT-4.8.2-2]
    if parts.share.is_none() && text.starts_with(SHARE) {
        return Err(FilterError::Invalid);
    }
    if parts.share.is_some_and(|name| name.is_empty() || memchr2(b'+', b'#', name.as_bytes()).is_some()) {
        return Err(FilterError::Invalid);
    }
    if parts.filter.is_empty() {
        return Err(FilterError::Invalid); // [MQTT-4.7.3-1] [MQTT-4.8.2-2]
    }
    if parts.has_wildcard && !wildcards_are_valid(parts.filter) {
        return Err(FilterError::Invalid);
    }
    if levels(parts.filter) > usize::from(levels_max) {
        return Err(FilterError::TooManyLevels);
    }
    Ok(parts)
}

/// A wildcard is a whole level, and `#` is the last one. // [MQTT-4.7.1-1] [MQTT-4.7.1-2]
fn wildcards_are_valid(filter: &str) -> bool {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let whole = match level {
            "+" => true,
            "#" => levels.peek().is_none(),
            literal => memchr2(b'+', b'#', literal.as_bytes()).is_none(),
        };
        if !whole {
            return false;
        }
    }
    true
}

const SHARE: &str = "$share/";

/// [`parse_filter`] for a text that passed it once.
pub(super) fn split(text: &str) -> Filter<'_> {
    let shared = text.strip_prefix(SHARE).and_then(|rest| {
        let end = memchr(b'/', rest.as_bytes())?;
        Some((&rest[..end], &rest[end + 1..]))
    });
    let (share, filter) = match shared {
        Some((name, filter)) => (Some(name), filter),
        None => (None, text),
    };
    Filter { share, filter, has_wildcard: memchr2(b'+', b'#', filter.as_bytes()).is_some() }
}

/// Whether a wildcard in the first level may match `topic`. // [MQTT-4.7.2-1]
pub(super) fn open_to_wildcards(topic: &str) -> bool {
    !topic.starts_with('$')
}

/// Whether a valid `filter` (without `$share/name/`) matches `topic`.
/// [U5-4.7.1-1] [U5-4.7.1-2] [U5-4.7.1-3] [U5-4.7.3-1] [U5-4.8.2-7]; 3.1.1: [U311-4.7-1]
pub fn matches(filter: &str, topic: &str) -> bool {
    if !open_to_wildcards(topic) && (filter.starts_with('+') || filter.starts_with('#')) {
        return false;
    }
    let mut filter = filter.split('/');
    let mut topic = topic.split('/');
    loop {
        match (filter.next(), topic.next()) {
            // Also where the topic has ended: the parent matches.
            (Some("#"), _) | (None, None) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some(level), Some(name)) if level != "+" && level != name => return false,
            (Some(_), Some(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the standard's examples. // [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.2-1] [MQTT-4.7.3-4]
    #[test]
    fn matches_as_the_standard_says() {
        let yes = [
            ("sport/#", "sport"),
            ("sport/#", "sport/"),
            ("sport/#", "sport/a/b"),
            ("sport/+", "sport/a"),
            ("sport/+", "sport/"),
            ("sport/tennis/+", "sport/tennis/player1"),
            ("#", "a"),
            ("#", "/"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("+", "finance"),
            ("+/monitor/Clients", "a/monitor/Clients"),
            ("$SYS/#", "$SYS"),
            ("$SYS/#", "$SYS/monitor/Clients"),
            ("$SYS/monitor/+", "$SYS/monitor/Clients"),
            ("+/tennis/#", "sport/tennis"),
            ("a//b", "a//b"),
            ("a/+/b", "a//b"),
            ("/", "/"),
            ("a b", "a b"),
        ];
        let no = [
            ("sport/#", "sports"),
            ("sport/+", "sport"),
            ("sport/+", "sport/a/b"),
            ("+", "/finance"),
            ("#", "$SYS/x"),
            ("+/x", "$SYS/x"),
            ("+/monitor/Clients", "$SYS/monitor/Clients"),
            ("ACCOUNTS", "Accounts"),
            ("a", "a/"),
            ("a/", "a"),
            ("/a", "a"),
            ("e\u{301}", "\u{e9}"),
        ];
        for (filter, topic) in yes {
            assert!(matches(filter, topic), "{filter} {topic}");
        }
        for (filter, topic) in no {
            assert!(!matches(filter, topic), "{filter} {topic}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_filter() {
        let invalid = [
            "",
            "sport/tennis#",
            "sport/#/x",
            "sport+",
            "+sport",
            "#/",
            "##",
            "++",
            "a/#b",
            "a/+b/c",
            "$share/",
            "$share/g",
            "$share/g/",
            "$share//x",
            "$share//",
            "$share/a+b/x",
            "$share/#/x",
            "$share/+/x",
            "$share/g/a#",
            "$share/g/#/a",
        ];
        for text in invalid {
            assert_eq!(parse_filter(text, 128), Err(FilterError::Invalid), "{text}");
        }
    }

    #[test]
    fn takes_a_filter_apart() {
        let parsed = |text| parse_filter(text, 128).unwrap();
        assert_eq!(parsed("a/b"), Filter { share: None, filter: "a/b", has_wildcard: false });
        assert_eq!(parsed("$share/g/a/+"), Filter { share: Some("g"), filter: "a/+", has_wildcard: true });
        assert_eq!(parsed("$share/g//x"), Filter { share: Some("g"), filter: "/x", has_wildcard: false });
        assert_eq!(parsed("$share/g/$SYS/#").filter, "$SYS/#");
        for ordinary in ["$share", "$shared/x", "$SHARE/g/x", "#", "+", "/", "+/+/#", "//", "$"] {
            assert_eq!(parsed(ordinary).share, None, "{ordinary}");
        }
    }

    #[test]
    fn counts_levels() {
        assert!(parse_filter("a/b/#", 3).is_ok());
        assert_eq!(parse_filter("a/b/#", 2), Err(FilterError::TooManyLevels));
        assert!(parse_filter("$share/g/a/b", 2).is_ok());
        assert_eq!(parse_filter("$share/g/a/b", 1), Err(FilterError::TooManyLevels));
    }
}
