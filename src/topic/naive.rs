//! What [`super::Router`] and [`super::Retained`] answer, from lists and loops: the oracle of the tests and of the
//! simulator. Slow, without a cache, and plain enough to be checked by reading.

use super::filter::split;
use super::{Counts, HashKeys, Interest, Options, Presence, fingerprint, matches};
use crate::memory::{Key, Message, ShardId, ShardSet};

/// One subscription.
#[derive(Clone, Debug)]
pub struct NaiveSubscription {
    pub session: Key,
    /// The whole text.
    pub filter: String,
    pub options: Options,
    pub identifier: u32,
    pub presence: Presence,
}

/// The routing knowledge of one shard.
#[derive(Clone, Debug, Default)]
pub struct NaiveRouter {
    pub subscriptions: Vec<NaiveSubscription>,
    pub remote_exact: Vec<(ShardId, u64)>,
    pub remote_wildcards: Vec<(ShardId, String)>,
    pub remote_groups: Vec<(ShardId, String, Counts)>,
}

impl NaiveRouter {
    pub fn find(&self, session: Key, filter: &str) -> Option<usize> {
        self.subscriptions.iter().position(|one| one.session == session && one.filter == filter)
    }

    /// Whether the session had the subscription before.
    pub fn subscribe(&mut self, session: Key, filter: &str, options: Options, identifier: u32) -> bool {
        match self.find(session, filter) {
            Some(at) => {
                self.subscriptions[at].options = options;
                self.subscriptions[at].identifier = identifier;
                true
            }
            None => {
                self.subscriptions.push(NaiveSubscription {
                    session,
                    filter: filter.to_owned(),
                    options,
                    identifier,
                    presence: Presence::Online,
                });
                false
            }
        }
    }

    /// Whether the session had the subscription.
    pub fn unsubscribe(&mut self, session: Key, filter: &str) -> bool {
        match self.find(session, filter) {
            Some(at) => {
                self.subscriptions.remove(at);
                true
            }
            None => false,
        }
    }

    pub fn drop_all(&mut self, session: Key) {
        self.subscriptions.retain(|one| one.session != session);
    }

    pub fn set_presence(&mut self, session: Key, presence: Presence) {
        for one in self.subscriptions.iter_mut().filter(|one| one.session == session) {
            one.presence = presence;
        }
    }

    pub fn remote_exact(&mut self, from: ShardId, fingerprint: u64, interest: Interest) {
        self.remote_exact.retain(|one| *one != (from, fingerprint));
        if interest == Interest::Wanted {
            self.remote_exact.push((from, fingerprint));
        }
    }

    pub fn remote_wildcard(&mut self, from: ShardId, filter: &str, interest: Interest) {
        self.remote_wildcards.retain(|(shard, text)| (*shard, &**text) != (from, filter));
        if interest == Interest::Wanted {
            self.remote_wildcards.push((from, filter.to_owned()));
        }
    }

    pub fn remote_group(&mut self, from: ShardId, text: &str, counts: Counts) {
        self.remote_groups.retain(|(shard, group, _)| (*shard, &**group) != (from, text));
        if !counts.is_empty() {
            self.remote_groups.push((from, text.to_owned(), counts));
        }
    }

    /// Ordinary subscriptions that match: session and filter, sorted.
    pub fn local(&self, topic: &str) -> Vec<(Key, &str)> {
        let mut found: Vec<_> = self
            .subscriptions
            .iter()
            .filter(|one| split(&one.filter).share.is_none() && matches(&one.filter, topic))
            .map(|one| (one.session, &*one.filter))
            .collect();
        found.sort_unstable();
        found
    }

    /// Whole texts of the share groups that match and have a member anywhere, sorted.
    pub fn groups(&self, topic: &str) -> Vec<&str> {
        let here = self.subscriptions.iter().map(|one| &*one.filter);
        let elsewhere = self.remote_groups.iter().map(|(_, text, _)| &**text);
        let mut found: Vec<&str> = here
            .chain(elsewhere)
            .filter(|text| {
                let parts = split(text);
                parts.share.is_some() && matches(parts.filter, topic)
            })
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Other shards with an ordinary subscriber.
    pub fn remote(&self, topic: &str, keys: &HashKeys) -> ShardSet {
        let print = fingerprint(keys, topic);
        let exact = self.remote_exact.iter().filter(|one| one.1 == print).map(|one| one.0);
        let wildcard = self.remote_wildcards.iter().filter(|one| matches(&one.1, topic)).map(|one| one.0);
        exact.chain(wildcard).fold(ShardSet::EMPTY, ShardSet::with)
    }

    /// Members of the group `text` on shard `here`, which is this one.
    pub fn counts_here(&self, text: &str) -> Counts {
        let mut counts = Counts::default();
        for one in self.subscriptions.iter().filter(|one| one.filter == text) {
            match one.presence {
                Presence::Online => counts.online += 1,
                Presence::Offline => counts.offline += 1,
            }
        }
        counts
    }

    /// Members of the group `text` on another shard.
    pub fn counts_remote(&self, text: &str, shard: ShardId) -> Counts {
        let found = self.remote_groups.iter().find(|(from, group, _)| *from == shard && group == text);
        found.map_or(Counts::default(), |found| found.2)
    }
}

/// The retained messages of one shard.
#[derive(Clone, Debug, Default)]
pub struct NaiveRetained {
    pub messages: Vec<Message>,
}

impl NaiveRetained {
    pub fn insert(&mut self, message: Message) {
        self.remove(message.topic());
        self.messages.push(message);
    }

    pub fn remove(&mut self, topic: &str) {
        self.messages.retain(|one| one.topic() != topic);
    }

    /// Messages that `filter` matches, by topic as bytes.
    pub fn matching(&self, filter: &str) -> Vec<&Message> {
        let mut found: Vec<_> = self.messages.iter().filter(|one| matches(filter, one.topic())).collect();
        found.sort_unstable_by_key(|one| one.topic());
        found
    }
}
