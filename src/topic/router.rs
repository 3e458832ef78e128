//! The subscriptions of one shard, and what other shards must learn of them.
//!
//! All filter texts that are in use here, exact, wildcard or shared, are in one hash table. An ordinary filter has a
//! linked list of its subscribers, so that subscribing and unsubscribing take constant time with any number of them;
//! wildcard filters are in the trie besides. What other shards announced is beside that, never mixed with it.

use super::cache::Cache;
use super::filter::{Filter, split};
use super::groups::{Counts, Groups};
use super::remote::Remote;
use super::routes::Scratch;
use super::set::SubscriptionSet;
use super::slots::Slots;
use super::subscription::{Options, Presence, Subscription, Target, Where};
use super::text::Text;
use super::trie::{NODE_BYTES, Trie};
use super::{HashKeys, NONE, TextHasher};
use crate::memory::{Key, ShardId, Table};

/// Who wants what, as one shard knows it. In calling order: [`Router::subscribe`], [`Router::unsubscribe`],
/// [`Router::set_presence`] and [`Router::drop_all`] for sessions at home here; [`Router::announcement`] and
/// [`Router::forget_filter`] to tell other shards; `remote_*` for what they tell; [`Router::route`] for each message,
/// then `group_*` and `choose_*` for the share groups of its route.
#[derive(Debug)]
pub struct Router {
    pub(super) here: ShardId,
    pub(super) hasher: TextHasher,
    pub(super) subscriptions: Slots<Subscription>,
    filters: Slots<Own>,
    /// Bytes of their texts that do not lie in place.
    apart: usize,
    pub(super) groups: Groups,
    /// Texts of ordinary filters and of share groups; the values are [`Target`]s.
    texts: Table,
    pub(super) trie: Trie,
    pub(super) remote: Remote,
    pub(super) cache: Cache,
    pub(super) scratch: Scratch,
}

/// An ordinary filter that is subscribed to here, or whose withdrawal is still to be announced.
#[derive(Debug)]
pub(super) struct Own {
    text: Text<{ Own::SHORT_MAX }>,
    /// Its place in the trie; [`NONE`] for an exact filter.
    node: u32,
    /// The first subscriber.
    first: u32,
}

impl Own {
    /// What is left of a cache line.
    const SHORT_MAX: usize = 46;
}

/// A subscription with its places in the set of its session.
const SUBSCRIPTION_BYTES: usize = 32 + 32;

/// A filter and its place in the table of texts.
const FILTER_BYTES: usize = 64 + 16;

/// Names a filter of this shard that other shards learn about, until [`Router::forget_filter`].
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FilterKey {
    Ordinary(Key),
    Group(Key),
}

/// Something that other shards must learn; the value itself is read later, with [`Router::announcement`].
#[must_use]
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Change {
    pub filter: FilterKey,
    pub kind: ChangeKind,
}

/// What happened to a filter.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ChangeKind {
    /// An ordinary filter got its first subscriber here.
    Wanted,
    /// An ordinary filter lost its last subscriber here; its announcement lingers.
    Withdrawn,
    /// A group has other counts here.
    Counts,
}

/// What is true of a filter on this shard now.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Announcement<'a> {
    Exact { fingerprint: u64, wanted: bool },
    Wildcard { text: &'a str, wanted: bool },
    Group { text: &'a str, online: u32, offline: u32 },
}

/// What came of a SUBSCRIBE for one filter.
#[must_use]
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Subscribed {
    pub key: Key,
    /// The session had a subscription to this filter, which has the new options now. // [MQTT-3.8.4-3]
    pub existed: bool,
    /// Whose last announcement the SUBACK waits for, even if nothing changed.
    pub filter: FilterKey,
    pub interest: Option<Change>,
}

/// What came of an UNSUBSCRIBE for one filter.
#[must_use]
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Unsubscribed {
    /// The subscription that is gone.
    pub key: Key,
    pub interest: Option<Change>,
}

/// Bytes by purpose, from capacities; allocator overhead is not in it.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Footprint {
    /// Subscriptions, filters, groups and their texts.
    pub own: usize,
    /// The trie, which own wildcards and those of other shards share.
    pub trie: usize,
    /// Exact filters of other shards, and all sets of shards.
    pub remote: usize,
    /// Distinct exact filters of other shards.
    pub remote_exact_filters: usize,
    /// Cached routes.
    pub routes: usize,
}

impl Router {
    /// `keys` are the same on all shards; at most `cache_entries_max` topics have a cached route.
    pub fn new(keys: HashKeys, here: ShardId, cache_entries_max: usize) -> Router {
        let hasher = TextHasher::new(&keys);
        Router {
            here,
            subscriptions: Slots::new(),
            filters: Slots::new(),
            apart: 0,
            groups: Groups::new(),
            texts: Table::default(),
            trie: Trie::new(hasher.clone()),
            remote: Remote::new(),
            cache: Cache::new(cache_entries_max),
            scratch: Scratch::default(),
            hasher,
        }
    }

    /// Room for so many subscriptions, each with a filter of its own, before anything has to move.
    pub fn with_room(mut self, subscriptions: usize) -> Router {
        self.subscriptions.reserve(subscriptions);
        self.filters.reserve(subscriptions);
        self
    }

    /// Subscribes `session`, or gives the subscription that it has the new options. `filter` is the whole text, which
    /// passed [`super::parse_filter`]; `identifier` is the Subscription Identifier, 0 for none. A new member of a share
    /// group is online.
    pub fn subscribe(
        &mut self,
        set: &mut SubscriptionSet,
        session: Key,
        filter: &str,
        options: Options,
        identifier: u32,
    ) -> Subscribed {
        let hash = self.hasher.text(filter);
        let target = match self.find(hash, filter) {
            Some(target) => target,
            None => self.create(hash, filter),
        };
        if let Some(place) = set.find(target, &self.subscriptions, &self.hasher) {
            let key = set.keys()[place];
            let subscription = &mut self.subscriptions[key.index];
            debug_assert_eq!(subscription.session, session);
            subscription.options = options;
            subscription.identifier = identifier;
            return Subscribed { key, existed: true, filter: self.filter_key(target), interest: None };
        }
        let key = self.subscriptions.insert(Subscription::new(session, target, options, identifier));
        set.insert(key, &self.subscriptions, &self.hasher);
        let kind = match target.get() {
            Where::Filter(index) => self.link(index, key.index, hash),
            Where::Group(index) => {
                self.join(index, key);
                Some(ChangeKind::Counts)
            }
        };
        let filter = self.filter_key(target);
        Subscribed { key, existed: false, filter, interest: kind.map(|kind| Change { filter, kind }) }
    }

    /// Whether `set` has a subscription to `filter`.
    pub fn is_subscribed(&self, set: &SubscriptionSet, filter: &str) -> bool {
        self.find(self.hasher.text(filter), filter)
            .is_some_and(|target| set.find(target, &self.subscriptions, &self.hasher).is_some())
    }

    /// Ends the subscription of `set` to `filter`; `None` if there is none.
    pub fn unsubscribe(&mut self, set: &mut SubscriptionSet, filter: &str) -> Option<Unsubscribed> {
        let target = self.find(self.hasher.text(filter), filter)?;
        let place = set.find(target, &self.subscriptions, &self.hasher)?;
        let key = set.remove(place, &self.subscriptions, &self.hasher);
        Some(Unsubscribed { key, interest: self.detach(key) })
    }

    /// Ends all subscriptions of `set`, in time linear in their number.
    pub fn drop_all(&mut self, set: &mut SubscriptionSet, changes: &mut Vec<Change>) {
        for key in set.take().iter() {
            changes.extend(self.detach(key));
        }
    }

    /// Tells the share groups of `set` whether the session has a connection.
    pub fn set_presence(&mut self, set: &SubscriptionSet, presence: Presence, changes: &mut Vec<Change>) {
        for key in set.iter() {
            let Subscription { target, before: place, .. } = self.subscriptions[key.index];
            if let Where::Group(index) = target.get()
                && self.move_member(index, place, presence)
            {
                changes.push(Change { filter: self.filter_key(target), kind: ChangeKind::Counts });
            }
        }
    }

    /// What is true of `filter` now; `None` once it was forgotten.
    pub fn announcement(&self, filter: FilterKey) -> Option<Announcement<'_>> {
        match filter {
            FilterKey::Ordinary(key) => self.filters.get(key).map(|own| {
                let wanted = own.first != NONE;
                match own.node {
                    NONE => Announcement::Exact { fingerprint: self.hasher.text(own.text.as_str()), wanted },
                    _ => Announcement::Wildcard { text: own.text.as_str(), wanted },
                }
            }),
            FilterKey::Group(key) => self.groups.slots.get(key).map(|group| {
                let Counts { online, offline } = group.here();
                Announcement::Group { text: &group.text, online, offline }
            }),
        }
    }

    /// Other shards know that `filter` is withdrawn, or that a group has no member here. Nothing happens if it is in use
    /// again.
    pub fn forget_filter(&mut self, filter: FilterKey) {
        match filter {
            FilterKey::Ordinary(key) => {
                if self.filters.get(key).is_some_and(|own| own.first == NONE) {
                    self.remove_filter(key.index);
                }
            }
            FilterKey::Group(key) => {
                if self.groups.slots.get(key).is_some() {
                    self.forget_group(key.index);
                }
            }
        }
    }

    /// The subscription that `key` names, if it still exists.
    pub fn subscription(&self, key: Key) -> Option<&Subscription> {
        self.subscriptions.get(key)
    }

    /// The filter of a subscription, `$share/name/` included.
    pub fn filter_text(&self, key: Key) -> Option<&str> {
        Some(match self.subscriptions.get(key)?.target.get() {
            Where::Filter(index) => self.filters[index].text.as_str(),
            Where::Group(index) => &self.groups.slots[index].text,
        })
    }

    /// The filter of a subscription as other shards know it.
    pub fn filter_of(&self, key: Key) -> Option<FilterKey> {
        Some(self.filter_key(self.subscriptions.get(key)?.target))
    }

    /// Subscriptions on this shard.
    pub fn subscriptions_len(&self) -> usize {
        self.subscriptions.len()
    }

    /// What the parts take, for measurements.
    pub fn footprint(&self) -> Footprint {
        Footprint {
            own: self.subscriptions.bytes()
                + self.filters.bytes()
                + self.texts.bytes()
                + self.apart
                + self.groups.bytes(),
            trie: self.trie.bytes(),
            remote: self.remote.bytes(),
            remote_exact_filters: self.remote.exact_len(),
            routes: self.cache.bytes(),
        }
    }

    /// Bytes in use by subscriptions, filters, groups and what other shards announced: from counts, so that it is exact to
    /// what comes and goes, where [`Router::footprint`] has the capacities. Routes are not in it; they give way.
    pub fn kept_bytes(&self) -> usize {
        self.subscriptions.len() * SUBSCRIPTION_BYTES
            + self.filters.len() * FILTER_BYTES
            + self.apart
            + self.groups.kept_bytes()
            + self.trie.kept_bytes()
            + self.remote.kept_bytes()
    }

    /// What a subscription to `filter` adds to [`Router::kept_bytes`] at most, which is where nobody else has one like it.
    pub fn cost_at_most(filter: &str) -> usize {
        // Its text, and where it has wildcards that of its levels once more.
        let nodes = filter.bytes().filter(|byte| *byte == b'/').count() + 1;
        SUBSCRIPTION_BYTES
            + FILTER_BYTES.max(super::groups::GROUP_BYTES)
            + 2 * filter.len()
            + nodes * NODE_BYTES
    }

    /// What `text` names here.
    pub(super) fn find(&self, hash: u64, text: &str) -> Option<Target> {
        let same = |value| match Target(value).get() {
            Where::Filter(index) => self.filters[index].text.as_bytes() == text.as_bytes(),
            Where::Group(index) => *self.groups.slots[index].text == *text,
        };
        self.texts.find(hash, same).map(Target)
    }

    /// The first subscriber of the exact filter that is `topic`.
    pub(super) fn first_exact(&self, hash: u64, topic: &str) -> Option<u32> {
        match self.find(hash, topic)?.get() {
            Where::Filter(index) if self.filters[index].node == NONE => Some(self.filters[index].first),
            // A topic may look like a shared filter.
            Where::Filter(_) | Where::Group(_) => None,
        }
    }

    /// The first subscriber of a filter in the trie.
    pub(super) fn first_of(&self, own: u32) -> u32 {
        self.filters[own].first
    }

    /// Makes the filter or group of a text that names nothing yet.
    pub(super) fn create(&mut self, hash: u64, text: &str) -> Target {
        let parts = split(text);
        let target = match parts.share {
            Some(_) => Target::group(self.create_group(hash, text, parts)),
            None => Target::filter(self.create_filter(text, parts)),
        };
        self.texts.insert(hash, target.0);
        target
    }

    fn create_filter(&mut self, text: &str, parts: Filter<'_>) -> u32 {
        let node = if parts.has_wildcard { self.trie.insert(text) } else { NONE };
        let text = Text::new(text);
        self.apart += text.apart();
        let index = self.filters.insert(Own { text, node, first: NONE }).index;
        if node != NONE {
            self.trie.node_mut(node).own = index;
        }
        index
    }

    fn remove_filter(&mut self, index: u32) {
        let own = self.filters.remove(index);
        self.apart -= own.text.apart();
        self.unname(own.text.as_str(), Target::filter(index));
        if own.node != NONE {
            self.trie.node_mut(own.node).own = NONE;
            self.trie.prune(own.node);
        }
    }

    pub(super) fn unname(&mut self, text: &str, target: Target) {
        self.texts.remove(self.hasher.text(text), target.0);
    }

    pub(super) fn group_named(&self, fingerprint: u64) -> Option<u32> {
        let same = |value| match Target(value).get() {
            Where::Filter(_) => false,
            Where::Group(index) => self.groups.slots[index].fingerprint == fingerprint,
        };
        self.texts.find(fingerprint, same).map(|value| value & !super::subscription::GROUP_BIT)
    }

    fn filter_key(&self, target: Target) -> FilterKey {
        match target.get() {
            Where::Filter(index) => FilterKey::Ordinary(self.filters.key(index)),
            Where::Group(index) => FilterKey::Group(self.groups.slots.key(index)),
        }
    }

    /// Puts a new subscription at the head of its filter's list.
    fn link(&mut self, filter: u32, subscription: u32, hash: u64) -> Option<ChangeKind> {
        let own = &mut self.filters[filter];
        let next = std::mem::replace(&mut own.first, subscription);
        if own.node == NONE {
            self.cache.forget(hash);
        } else {
            self.cache.outdate(own.text.as_str(), &self.hasher);
        }
        self.subscriptions[subscription].next = next;
        if next == NONE {
            return Some(ChangeKind::Wanted);
        }
        self.subscriptions[next].before = subscription;
        None
    }

    /// Takes a subscription, which is in no set any more, out of its filter or group.
    fn detach(&mut self, key: Key) -> Option<Change> {
        let Subscription { target, before, next, .. } = self.subscriptions.remove(key.index);
        let filter = self.filter_key(target);
        let kind = match target.get() {
            Where::Group(index) => {
                self.leave(index, before);
                Some(ChangeKind::Counts)
            }
            Where::Filter(index) => {
                if next != NONE {
                    self.subscriptions[next].before = before;
                }
                if before == NONE {
                    self.filters[index].first = next;
                } else {
                    self.subscriptions[before].next = next;
                }
                (self.filters[index].first == NONE).then_some(ChangeKind::Withdrawn)
            }
        };
        kind.map(|kind| Change { filter, kind })
    }

    /// Hash probes so far.
    #[cfg(test)]
    pub(super) fn probes(&self) -> u64 {
        self.texts.probes.get()
    }

    /// Number of everything that must be gone when nobody subscribes any more.
    #[cfg(test)]
    pub(super) fn leftovers(&self) -> [usize; 5] {
        [
            self.subscriptions.len(),
            self.filters.len(),
            self.groups.slots.len(),
            self.trie.len() - 1,
            self.remote.exact_len(),
        ]
    }
}
