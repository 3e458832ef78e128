//! Rules in the format of mosquitto's ACL files, and a little more: `client` lines, and denials of one direction.
//!
//! ```text
//! topic read public/#            before any user or client: for the anonymous
//! user alice
//! topic readwrite home/+/lamp    for alice: read, write, readwrite (if left out) or deny
//! client meter-7
//! topic write meters/7           for the Client Identifier meter-7
//! pattern readwrite own/%u/%c/#  for everybody, with the client's own names
//! ```
//! Lines that are empty or begin with `#` mean nothing. `deny` is for both directions, `denyread` and `denywrite` for
//! one; a deny wins.

use std::fmt;

use super::pattern::Names;
use super::rules::{Action, Effect, Rule, Rules, Subject};

/// What is wrong with a file of rules, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclError {
    /// From 1.
    pub line: usize,
    pub what: String,
}

impl fmt::Display for AclError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for AclError {}

/// # Errors
/// The first line that is not understood; a rule that is skipped would be a rule that is not enforced.
pub fn parse(text: &str) -> Result<Rules, AclError> {
    let mut subject = Subject::Anonymous;
    let mut rules = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| AclError { line: index + 1, what: what.to_owned() };
        let (keyword, rest) = word(line);
        match keyword {
            "user" if rest.is_empty() => return Err(wrong("a user name is missing")),
            "user" => subject = Subject::User(rest.into()),
            "client" if rest.is_empty() => return Err(wrong("a Client Identifier is missing")),
            "client" => subject = Subject::ClientId(rest.into()),
            "topic" | "pattern" => {
                let (action, effect, topic) = access(rest).map_err(wrong)?;
                let (subject, names) = match keyword {
                    "pattern" => (Subject::Everybody, Names::Replaced),
                    _ => (subject.clone(), Names::Literal),
                };
                let rule = Rule { subject, action, effect, topic: topic.into(), names };
                // Built one by one too, so that an error knows its line.
                Rules::build([rule.clone()]).map_err(|error| wrong(&error.to_string()))?;
                rules.push(rule);
            }
            other => {
                return Err(wrong(&format!("{other:?} is none of topic, pattern, user and client")));
            }
        }
    }
    Rules::build(rules).map_err(|error| AclError { line: 0, what: error.to_string() })
}

/// The first word and the rest; a topic or a name may hold spaces.
fn word(text: &str) -> (&str, &str) {
    match text.split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (text, ""),
    }
}

/// What stands behind `topic` or `pattern`.
fn access(rest: &str) -> Result<(Action, Effect, &str), &'static str> {
    let (first, topic) = word(rest);
    match (first, topic) {
        ("" | "read" | "write" | "readwrite" | "deny" | "denyread" | "denywrite", "") => {
            Err("a topic is missing")
        }
        (topic, "") => Ok((Action::Both, Effect::Allow, topic)),
        ("read", topic) => Ok((Action::Subscribe, Effect::Allow, topic)),
        ("write", topic) => Ok((Action::Publish, Effect::Allow, topic)),
        ("readwrite", topic) => Ok((Action::Both, Effect::Allow, topic)),
        ("deny", topic) => Ok((Action::Both, Effect::Deny, topic)),
        ("denyread", topic) => Ok((Action::Subscribe, Effect::Deny, topic)),
        ("denywrite", topic) => Ok((Action::Publish, Effect::Deny, topic)),
        _ => Err("read, write, readwrite, deny, denyread or denywrite is expected before the topic"),
    }
}
