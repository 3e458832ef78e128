//! The topic of a rule: a Topic Filter in which whole levels may stand for the client's own names.
//!
//! A name is compared as text and never read as a pattern: `+` and `#` in it match nothing but themselves, which no
//! Topic Name holds. What a name could still do is span levels (`/`) or open a tree that is not meant for clients (`$`
//! at the front); an allowing rule therefore holds only for names that can do neither, see [`Name::is_plain`].

use memchr::{memchr, memchr3};

use crate::topic;

/// Who a client is, as rules see it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Who<'a> {
    /// The user name whose password, or certificate, was verified; `None` for an anonymous client.
    pub user: Option<&'a str>,
    pub client_id: &'a str,
}

/// Whether `%u` and `%c` stand for names.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// They are text like any other.
    Literal,
    /// A level `%u` is the user name, a level `%c` the Client Identifier.
    Replaced,
}

/// A parsed topic of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(Box<[Part]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// One or more levels.
    Text(Box<str>),
    User,
    ClientId,
    /// `+`
    Any,
    /// `#`, always last.
    Rest,
}

/// One level of a pattern, or of a Topic Filter, with names put in.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Level<'a> {
    Is(&'a str),
    Any,
    Rest,
}

/// Which of a client's names an allowing rule may use.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plain {
    user: Name,
    client_id: Name,
}

/// How a name may be used in an allowing rule.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
enum Name {
    /// Nowhere: there is none, or it holds `+`, `#` or `/`.
    #[default]
    Unfit,
    /// Not as the first level: it begins with `$`.
    Inner,
    Anywhere,
}

impl Name {
    fn of(name: &str) -> Name {
        if name.is_empty() || memchr3(b'+', b'#', b'/', name.as_bytes()).is_some() {
            Name::Unfit
        } else if name.starts_with('$') {
            Name::Inner
        } else {
            Name::Anywhere
        }
    }

    fn is_plain(self, level: usize) -> bool {
        match self {
            Name::Unfit => false,
            Name::Inner => level > 0,
            Name::Anywhere => true,
        }
    }
}

impl Plain {
    pub(super) fn of(who: Who<'_>) -> Plain {
        Plain { user: who.user.map_or(Name::Unfit, Name::of), client_id: Name::of(who.client_id) }
    }
}

impl Pattern {
    /// # Errors
    /// What is wrong with `text`.
    pub(super) fn parse(text: &str, names: Names) -> Result<Pattern, &'static str> {
        if text.starts_with("$share/") {
            return Err("a rule names the topics themselves, without $share and Share Name");
        }
        if text.contains('\0') || topic::parse_filter(text, u16::MAX).is_err() {
            return Err("not a Topic Filter");
        }
        let mut parts: Vec<Part> = Vec::new();
        for level in text.split('/') {
            let part = match (level, names) {
                ("+", _) => Part::Any,
                ("#", _) => Part::Rest,
                ("%u", Names::Replaced) => Part::User,
                ("%c", Names::Replaced) => Part::ClientId,
                (level, Names::Replaced) if level.contains("%u") || level.contains("%c") => {
                    return Err("%u and %c stand for a whole level, not for a part of one");
                }
                (level, _) => match parts.last_mut() {
                    Some(Part::Text(before)) => {
                        *before = format!("{before}/{level}").into();
                        continue;
                    }
                    _ => Part::Text(level.into()),
                },
            };
            parts.push(part);
        }
        Ok(Pattern(parts.into()))
    }

    /// Whether an allowing rule with this pattern holds for a client with such names.
    pub(super) fn is_open_to(&self, plain: Plain) -> bool {
        self.0.iter().enumerate().all(|(level, part)| match part {
            Part::User => plain.user.is_plain(level),
            Part::ClientId => plain.client_id.is_plain(level),
            Part::Text(_) | Part::Any | Part::Rest => true,
        })
    }

    /// Whether it matches a Topic Name, for this client.
    pub(super) fn matches(&self, topic: &str, who: Who<'_>) -> bool {
        // [MQTT-4.7.2-1]
        if topic.starts_with('$') && matches!(self.0.first(), Some(Part::Any | Part::Rest)) {
            return false;
        }
        let mut rest = Some(topic);
        for part in &self.0 {
            if *part == Part::Rest {
                return true; // the parent too
            }
            let Some(text) = rest else { return false };
            let len = match part {
                Part::Any | Part::Rest => Some(memchr(b'/', text.as_bytes()).unwrap_or(text.len())),
                Part::Text(literal) => whole_levels(text, literal),
                Part::User => who.user.and_then(|name| whole_levels(text, name)),
                Part::ClientId => whole_levels(text, who.client_id),
            };
            let Some(len) = len else { return false };
            rest = text.get(len + 1..);
        }
        rest.is_none()
    }

    /// Its levels for this client; `None` if it uses a user name and there is none.
    pub(super) fn levels<'a>(&'a self, who: Who<'a>) -> Option<Vec<Level<'a>>> {
        let mut levels = Vec::with_capacity(self.0.len());
        for part in &self.0 {
            match part {
                Part::Any => levels.push(Level::Any),
                Part::Rest => levels.push(Level::Rest),
                Part::Text(text) => levels.extend(text.split('/').map(Level::Is)),
                Part::User => levels.extend(who.user?.split('/').map(Level::Is)),
                Part::ClientId => levels.extend(who.client_id.split('/').map(Level::Is)),
            }
        }
        Some(levels)
    }
}

/// The length of `name` if `text` begins with it and it ends where a level does.
fn whole_levels(text: &str, name: &str) -> Option<usize> {
    let rest = text.strip_prefix(name)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(name.len())
}

/// The levels of a valid Topic Filter without `$share` and Share Name.
pub(super) fn filter_levels(filter: &str) -> Vec<Level<'_>> {
    let level = |text| match text {
        "+" => Level::Any,
        "#" => Level::Rest,
        text => Level::Is(text),
    };
    filter.split('/').map(level).collect()
}

/// A wildcard in the first level does not match a name that begins with `$`. // [MQTT-4.7.2-1]
fn is_closed(wildcard: Level<'_>, other: Option<Level<'_>>) -> bool {
    wildcard != Level::Any && wildcard != Level::Rest
        || matches!(other, Some(Level::Is(text)) if text.starts_with('$'))
}

/// What matches exactly the Topic Names that both match; `None` if there is none.
pub(super) fn intersection<'a>(a: &[Level<'a>], b: &[Level<'a>]) -> Option<Vec<Level<'a>>> {
    let mut both = Vec::new();
    for at in 0.. {
        let (one, other) = (a.get(at).copied(), b.get(at).copied());
        let (wildcard, against, rest) = match (one, other) {
            (None, None) => return Some(both),
            (Some(Level::Rest), other) => (Level::Rest, other, &b[at..]),
            (one, Some(Level::Rest)) => (Level::Rest, one, &a[at..]),
            (None, Some(_)) | (Some(_), None) => return None,
            (Some(Level::Any), against) => (Level::Any, against, &b[at..]),
            (against, Some(Level::Any)) => (Level::Any, against, &a[at..]),
            (Some(Level::Is(one)), Some(Level::Is(other))) if one == other => {
                both.push(Level::Is(one));
                continue;
            }
            (Some(Level::Is(_)), Some(Level::Is(_))) => return None,
        };
        if at == 0 && is_closed(wildcard, against) {
            return None;
        }
        if wildcard == Level::Rest {
            both.extend_from_slice(rest);
            return Some(both);
        }
        both.extend(rest.first());
    }
    None
}

/// Whether `pattern` matches every Topic Name that `filter` matches.
pub(super) fn covers(pattern: &[Level<'_>], filter: &[Level<'_>]) -> bool {
    for at in 0.. {
        let (ours, theirs) = (pattern.get(at).copied(), filter.get(at).copied());
        if let Some(wildcard @ (Level::Any | Level::Rest)) = ours
            && at == 0
            && is_closed(wildcard, theirs)
        {
            return false;
        }
        match (ours, theirs) {
            (Some(Level::Rest), _) | (None, None) => return true,
            (Some(Level::Any), Some(Level::Any | Level::Is(_))) => {}
            (Some(Level::Is(ours)), Some(Level::Is(theirs))) if ours == theirs => {}
            (None, Some(_)) | (Some(Level::Any | Level::Is(_)), _) => return false,
        }
    }
    false
}
