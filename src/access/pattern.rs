//! The topic of a rule: a Topic Filter in which levels, or parts of them, may stand for the client's own names.
//!
//! A name is compared as text and never read as a pattern: `+` and `#` in it match nothing but themselves, which no
//! Topic Name holds. What a name could still do is span levels (`/`) or open a tree that is not meant for clients (`$`
//! at the front); an allowing rule therefore holds only for names that can do neither, see [`Name::is_plain`].

use std::borrow::Cow;

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
    /// `%u` is the user name, `%c` the Client Identifier; as a level, or as a part of one.
    Replaced,
}

/// A parsed topic of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(Box<[Part]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// One or more levels.
    Text(Box<str>),
    /// One level that is a name or holds names.
    Names(Box<[Piece]>),
    /// `+`
    Any,
    /// `#`, always last.
    Rest,
}

/// A piece of a level; the level is all of them, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    User,
    ClientId,
}

/// One level of a pattern, or of a Topic Filter, with names put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Level<'a> {
    Is(Cow<'a, str>),
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
    /// Not at the front of a topic: it begins with `$`.
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

    fn is_plain(self, at_the_front: bool) -> bool {
        match self {
            Name::Unfit => false,
            Name::Inner => !at_the_front,
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
                (level, Names::Replaced) if level.contains("%u") || level.contains("%c") => {
                    Part::Names(pieces(level))
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
            Part::Names(pieces) => pieces.iter().enumerate().all(|(at, piece)| match piece {
                Piece::Text(_) => true,
                Piece::User => plain.user.is_plain(level == 0 && at == 0),
                Piece::ClientId => plain.client_id.is_plain(level == 0 && at == 0),
            }),
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
                Part::Names(pieces) => pieces
                    .iter()
                    .try_fold(text, |rest, piece| rest.strip_prefix(piece.of(who)?))
                    .filter(|rest| rest.is_empty() || rest.starts_with('/'))
                    .map(|rest| text.len() - rest.len()),
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
                Part::Text(text) => levels.extend(text.split('/').map(level_of)),
                Part::Names(pieces) => match &**pieces {
                    [piece] => levels.extend(piece.of(who)?.split('/').map(level_of)),
                    pieces => {
                        let text = pieces.iter().map(|piece| piece.of(who)).collect::<Option<String>>()?;
                        levels.extend(text.split('/').map(|level| Level::Is(Cow::Owned(level.to_owned()))));
                    }
                },
            }
        }
        Some(levels)
    }
}

impl Piece {
    /// `None` if it stands for a user name and there is none.
    fn of<'a>(&'a self, who: Who<'a>) -> Option<&'a str> {
        match self {
            Piece::Text(text) => Some(text),
            Piece::User => who.user,
            Piece::ClientId => Some(who.client_id),
        }
    }
}

/// The pieces of a level.
fn pieces(level: &str) -> Box<[Piece]> {
    let mut pieces = Vec::new();
    let mut rest = level;
    while let Some(at) = rest.match_indices('%').map(|(at, _)| at).find(|at| is_name(&rest[*at..])) {
        let (text, name) = rest.split_at(at);
        if !text.is_empty() {
            pieces.push(Piece::Text(text.into()));
        }
        pieces.push(if name.starts_with("%u") { Piece::User } else { Piece::ClientId });
        rest = &name[2..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.into()));
    }
    pieces.into()
}

fn is_name(text: &str) -> bool {
    text.starts_with("%u") || text.starts_with("%c")
}

fn level_of(text: &str) -> Level<'_> {
    Level::Is(Cow::Borrowed(text))
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
        text => level_of(text),
    };
    filter.split('/').map(level).collect()
}

/// A wildcard in the first level does not match a name that begins with `$`. // [MQTT-4.7.2-1]
fn is_closed(wildcard: &Level<'_>, other: Option<&Level<'_>>) -> bool {
    *wildcard != Level::Any && *wildcard != Level::Rest
        || matches!(other, Some(Level::Is(text)) if text.starts_with('$'))
}

/// What matches exactly the Topic Names that both match; `None` if there is none.
pub(super) fn intersection<'a>(a: &[Level<'a>], b: &[Level<'a>]) -> Option<Vec<Level<'a>>> {
    let mut both = Vec::new();
    for at in 0.. {
        let (one, other) = (a.get(at), b.get(at));
        let (wildcard, against, rest) = match (one, other) {
            (None, None) => return Some(both),
            (Some(rest @ Level::Rest), other) => (rest, other, &b[at..]),
            (one, Some(rest @ Level::Rest)) => (rest, one, &a[at..]),
            (None, Some(_)) | (Some(_), None) => return None,
            (Some(any @ Level::Any), against) => (any, against, &b[at..]),
            (against, Some(any @ Level::Any)) => (any, against, &a[at..]),
            (Some(Level::Is(one)), Some(Level::Is(other))) if one == other => {
                both.push(Level::Is(one.clone()));
                continue;
            }
            (Some(Level::Is(_)), Some(Level::Is(_))) => return None,
        };
        if at == 0 && is_closed(wildcard, against) {
            return None;
        }
        if *wildcard == Level::Rest {
            both.extend_from_slice(rest);
            return Some(both);
        }
        both.extend(rest.first().cloned());
    }
    None
}

/// Whether `pattern` matches every Topic Name that `filter` matches.
pub(super) fn covers(pattern: &[Level<'_>], filter: &[Level<'_>]) -> bool {
    for at in 0.. {
        let (ours, theirs) = (pattern.get(at), filter.get(at));
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
