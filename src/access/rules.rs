//! Who may publish and receive what.
//!
//! A rule allows or denies publishing, subscribing or both, on topics, to everybody, to the anonymous, to a user or to
//! a Client Identifier. What no rule allows is denied, and a deny wins over every allow. `$SYS` is the broker's: nobody
//! publishes there, whatever the rules say.
//!
//! Nothing is compiled per client but the two lists that are its own ([`Grants`]), so a million clients cost 16 bytes
//! each; names are put into patterns while matching. A SUBSCRIBE is judged by what its filter could ever match: all of
//! it, some of it, or nothing. "Some" errs on the careful side, since each delivery is checked then.

use std::collections::HashMap;
use std::fmt;

use ahash::RandomState;

use super::pattern::{Level, Names, Pattern, Plain, Who, covers, filter_levels, intersection};

/// A rule as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub subject: Subject,
    pub action: Action,
    pub effect: Effect,
    /// A Topic Filter.
    pub topic: Box<str>,
    /// Whether `%u` and `%c` in it stand for the client's names.
    pub names: Names,
}

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Everybody,
    /// Clients without a verified user name.
    Anonymous,
    User(Box<str>),
    ClientId(Box<str>),
}

/// What a rule is about. Receiving goes with subscribing.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Publish,
    Subscribe,
    Both,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Allow,
    Deny,
}

/// Why a rule makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    pub topic: Box<str>,
    pub why: &'static str,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.topic, self.why)
    }
}

impl std::error::Error for RuleError {}

/// What a SUBSCRIBE for one filter gets.
#[must_use]
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Subscribable {
    /// Everything that the filter matches may be received.
    Allowed,
    /// Some of it may be: each delivery is checked.
    Filtered,
    /// Nothing of it may be received.
    Denied,
}

/// A complete set of rules.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Everybody's, then the anonymous ones', then one for each name.
    lists: Vec<List>,
    users: HashMap<Box<str>, u32, RandomState>,
    clients: HashMap<Box<str>, u32, RandomState>,
}

const EVERYBODY: u32 = 0;
const ANONYMOUS: u32 = 1;
/// A list without rules, for names that no rule is about.
const NOBODY: u32 = 2;
const LISTS: usize = 3;

/// The rules of one subject.
#[derive(Clone, Debug, Default)]
struct List {
    publish: Side,
    subscribe: Side,
}

#[derive(Clone, Debug, Default)]
struct Side {
    allow: Vec<Pattern>,
    deny: Vec<Pattern>,
}

/// Which rules hold for a client, as found in one set of rules. Means nothing in another.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    user_list: u32,
    client_list: u32,
    plain: Plain,
    /// Where the client came in, whose rules these are; beside them, since there is room and every session has one.
    pub(super) listener: u16,
}

impl Grants {
    pub(super) fn of_listener(self, listener: u16) -> Grants {
        Grants { listener, ..self }
    }
}

/// What one client may do.
#[derive(Copy, Clone, Debug)]
pub struct Permissions<'a> {
    rules: &'a Rules,
    grants: Grants,
    who: Who<'a>,
}

impl Rules {
    /// # Errors
    /// The first rule whose topic is not valid.
    pub fn build(rules: impl IntoIterator<Item = Rule>) -> Result<Rules, RuleError> {
        let mut built = Rules { lists: vec![List::default(); LISTS], ..Rules::default() };
        for rule in rules {
            let pattern = Pattern::parse(&rule.topic, rule.names)
                .map_err(|why| RuleError { topic: rule.topic.clone(), why })?;
            let at = match rule.subject {
                Subject::Everybody => EVERYBODY,
                Subject::Anonymous => ANONYMOUS,
                Subject::User(name) => list_of(&mut built.users, &mut built.lists, name),
                Subject::ClientId(id) => list_of(&mut built.clients, &mut built.lists, id),
            };
            let list = &mut built.lists[at as usize];
            if matches!(rule.action, Action::Publish | Action::Both) {
                list.publish.add(rule.effect, pattern.clone());
            }
            if matches!(rule.action, Action::Subscribe | Action::Both) {
                list.subscribe.add(rule.effect, pattern);
            }
        }
        Ok(built)
    }

    /// Which rules hold for a client.
    pub fn grants(&self, who: Who<'_>) -> Grants {
        let user_list = match who.user {
            Some(name) => self.users.get(name).copied().unwrap_or(NOBODY),
            None => ANONYMOUS,
        };
        let client_list = self.clients.get(who.client_id).copied().unwrap_or(NOBODY);
        Grants { user_list, client_list, plain: Plain::of(who), listener: 0 }
    }

    /// What a client may do; `grants` are those that these rules gave it.
    pub fn permissions<'a>(&'a self, grants: Grants, who: Who<'a>) -> Permissions<'a> {
        Permissions { rules: self, grants, who }
    }
}

/// The list of a name; new and empty at its first rule.
fn list_of(names: &mut HashMap<Box<str>, u32, RandomState>, lists: &mut Vec<List>, name: Box<str>) -> u32 {
    *names.entry(name).or_insert_with(|| {
        lists.push(List::default());
        lists.len() as u32 - 1
    })
}

impl Side {
    fn add(&mut self, effect: Effect, pattern: Pattern) {
        match effect {
            Effect::Allow => self.allow.push(pattern),
            Effect::Deny => self.deny.push(pattern),
        }
    }
}

impl<'a> Permissions<'a> {
    pub fn may_publish(&self, topic: &str) -> bool {
        !is_sys(topic) && self.allows(topic, |list| &list.publish)
    }

    pub fn may_receive(&self, topic: &str) -> bool {
        self.allows(topic, |list| &list.subscribe)
    }

    /// `filter` is valid and without `$share` and Share Name, so that a group is no way around a deny.
    pub fn may_subscribe(&self, filter: &str) -> Subscribable {
        let filter = filter_levels(filter);
        let denied: Vec<Vec<Level<'_>>> = self
            .lists()
            .flat_map(|list| &list.subscribe.deny)
            .filter_map(|pattern| pattern.levels(self.who))
            .filter(|deny| intersection(deny, &filter).is_some())
            .collect();
        let mut some = false;
        let mut all = false;
        for allow in self.lists().flat_map(|list| &list.subscribe.allow) {
            if !allow.is_open_to(self.grants.plain) {
                continue;
            }
            let Some(allow) = allow.levels(self.who) else { continue };
            let Some(common) = intersection(&allow, &filter) else { continue };
            some |= !denied.iter().any(|deny| covers(deny, &common));
            all |= covers(&allow, &filter);
        }
        match (some, all && denied.is_empty()) {
            (false, _) => Subscribable::Denied,
            (true, true) => Subscribable::Allowed,
            (true, false) => Subscribable::Filtered,
        }
    }

    fn allows(&self, topic: &str, side: impl Fn(&List) -> &Side) -> bool {
        let denied =
            self.lists().any(|list| side(list).deny.iter().any(|pattern| pattern.matches(topic, self.who)));
        let allowed =
            |pattern: &Pattern| pattern.is_open_to(self.grants.plain) && pattern.matches(topic, self.who);
        !denied && self.lists().any(|list| side(list).allow.iter().any(allowed))
    }

    fn lists(&self) -> impl Iterator<Item = &'a List> + use<'a> {
        let rules = self.rules;
        let all = [EVERYBODY, self.grants.user_list, self.grants.client_list];
        all.into_iter().filter_map(|at| rules.lists.get(at as usize))
    }
}

/// Whether a topic is the broker's own.
pub fn is_sys(topic: &str) -> bool {
    topic.strip_prefix("$SYS").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
