//! Share groups: who is a member here, how many members other shards have, and who gets a message.
//!
//! A group is a (Share Name, filter) pair. // [MQTT-4.8.2-1]
//! It exists while it has a member anywhere, or while other shards may still believe that it has one here. Counts of
//! other shards weight the first choice of a shard only; the shard that gets the message chooses the member.

use super::filter::Filter;
use super::slots::Slots;
use super::subscription::{Presence, Subscription, Target, Where};
use super::{NONE, Router};
use crate::clock::Millis;
use crate::memory::{Key, ShardId, ShardSet, Table};

/// Members of a group on one shard.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub online: u32,
    pub offline: u32,
}

impl Counts {
    pub fn is_empty(self) -> bool {
        self.online == 0 && self.offline == 0
    }

    fn of(self, presence: Presence) -> u32 {
        match presence {
            Presence::Online => self.online,
            Presence::Offline => self.offline,
        }
    }
}

/// Who may get a message of a group; each round is less choosy than the one before.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum Round {
    /// Connected members that can be sent it at once.
    #[default]
    Now,
    /// Connected members in whose queue it can wait.
    Queue,
    /// Any member in whose queue it can wait, also one that takes nothing or is away.
    Any,
}

/// Shards on which nobody could take a message, as this shard was told a moment ago.
#[derive(Debug, Default)]
struct Full {
    /// By [`Round`], with the time of the oldest word.
    rounds: [(ShardSet, Millis); 3],
}

/// Which members count.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Members {
    Online,
    Any,
}

#[derive(Debug)]
pub(super) struct Groups {
    pub(super) slots: Slots<Group>,
    /// First group of each exact filter, by the filter without `$share/name/`.
    exact: Table,
    /// Bytes of their texts.
    texts: usize,
    /// Members of this shard, of all groups.
    members: usize,
}

#[derive(Debug)]
pub(super) struct Group {
    /// `$share/name/filter`.
    pub(super) text: Box<str>,
    filter_at: u32,
    /// Its place in the trie; [`NONE`] for an exact filter.
    node: u32,
    pub(super) fingerprint: u64,
    /// Subscriptions of this shard, those of online sessions first.
    members: Vec<Key>,
    online: u32,
    /// Other shards with members, in ascending order.
    remote: Vec<(ShardId, Counts)>,
    /// Neighbours among the groups with the same filter.
    before: u32,
    next: u32,
    /// Other shards may believe that there are members here.
    announced: bool,
    full: Option<Box<Full>>,
}

/// Milliseconds for which a shard need not be asked again after it had nobody. Where all members everywhere are busy, a
/// message would go around all shards otherwise, once in each round.
const FULL_MS: Millis = 5;

/// A group, its places in two tables, the counts of a few other shards, and which of these are full.
pub(super) const GROUP_BYTES: usize = size_of::<Group>() + 96 + size_of::<Full>();

impl Groups {
    pub(super) fn new() -> Groups {
        Groups { slots: Slots::new(), exact: Table::default(), texts: 0, members: 0 }
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots.bytes() + self.exact.bytes() + self.texts
    }

    /// Bytes in use, without members.
    pub(super) fn kept_bytes(&self) -> usize {
        self.slots.len() * GROUP_BYTES + self.texts
    }

    /// The first group whose exact filter is `topic`.
    pub(super) fn first_exact(&self, hash: u64, topic: &str) -> u32 {
        self.exact.find(hash, |index| self.slots[index].filter() == topic).unwrap_or(NONE)
    }

    /// Keys of the groups from `first` on that have a member anywhere.
    pub(super) fn list(&self, first: u32) -> impl Iterator<Item = Key> + '_ {
        let follow = |index: u32| (index != NONE).then_some(index);
        std::iter::successors(follow(first), move |index| follow(self.slots[*index].next))
            .filter(|index| self.slots[*index].has_members())
            .map(|index| self.slots.key(index))
    }
}

impl Group {
    fn filter(&self) -> &str {
        &self.text[self.filter_at as usize..]
    }

    pub(super) fn here(&self) -> Counts {
        Counts { online: self.online, offline: self.members.len() as u32 - self.online }
    }

    fn has_members(&self) -> bool {
        !self.members.is_empty() || !self.remote.is_empty()
    }

    fn counts(&self, shard: ShardId, here: ShardId) -> Counts {
        if shard == here {
            return self.here();
        }
        match self.remote.binary_search_by_key(&shard, |(shard, _)| *shard) {
            Ok(at) => self.remote[at].1,
            Err(_) => Counts::default(),
        }
    }

    /// This shard, then the others with members.
    fn shards(&self, here: ShardId) -> impl Iterator<Item = (ShardId, Counts)> + Clone + '_ {
        std::iter::once((here, self.here())).chain(self.remote.iter().copied())
    }

    /// Changes the places of two members.
    fn swap(&mut self, one: u32, two: u32, subscriptions: &mut Slots<Subscription>) {
        self.members.swap(one as usize, two as usize);
        for place in [one, two] {
            subscriptions[self.members[place as usize].index].before = place;
        }
    }
}

/// `random` as a number below `total`.
fn below(random: u64, total: u64) -> u64 {
    ((u128::from(random) * u128::from(total)) >> 64) as u64
}

/// Share groups.
impl Router {
    /// Shard `from` has so many members of the group `text`, which is `$share/name/filter`.
    pub fn remote_group(&mut self, from: ShardId, text: &str, online: u32, offline: u32) {
        debug_assert_ne!(from, self.here);
        let counts = Counts { online, offline };
        let Some(index) = self.group_or_new(text, counts) else { return };
        let group = &mut self.groups.slots[index];
        let is_new = !group.has_members();
        match group.remote.binary_search_by_key(&from, |(shard, _)| *shard) {
            Ok(at) if counts.is_empty() => drop(group.remote.remove(at)),
            Ok(at) => group.remote[at].1 = counts,
            Err(_) if counts.is_empty() => {}
            Err(at) => group.remote.insert(at, (from, counts)),
        }
        if is_new && !counts.is_empty() {
            self.show_group(index);
        }
        self.remove_group_if_unused(index);
    }

    /// Members of all groups on this shard.
    pub fn memberships_len(&self) -> usize {
        self.groups.members
    }

    /// Members on this shard.
    pub fn group_here(&self, group: Key) -> Counts {
        self.group_counts(group, self.here)
    }

    /// Members on `shard`, as far as this shard knows.
    pub fn group_counts(&self, group: Key, shard: ShardId) -> Counts {
        self.groups.slots.get(group).map_or(Counts::default(), |group| group.counts(shard, self.here))
    }

    /// Members of all shards that are connected, as far as this shard knows.
    pub fn group_online(&self, group: Key) -> u64 {
        let group = self.groups.slots.get(group);
        group.map_or(0, |group| group.shards(self.here).map(|(_, counts)| u64::from(counts.online)).sum())
    }

    /// Names the group on all shards: the [`super::fingerprint`] of its text. 0 if the group is gone.
    pub fn group_fingerprint(&self, group: Key) -> u64 {
        self.groups.slots.get(group).map_or(0, |group| group.fingerprint)
    }

    /// The group that another shard named; `None` if nobody is known to be in it. (Two groups with the same fingerprint
    /// could be mistaken for each other; it is keyed and has 64 bits.)
    pub fn group_by_fingerprint(&self, fingerprint: u64) -> Option<Key> {
        self.group_named(fingerprint).map(|index| self.groups.slots.key(index))
    }

    /// `$share/name/filter`.
    pub fn group_text(&self, group: Key) -> Option<&str> {
        self.groups.slots.get(group).map(|group| &*group.text)
    }

    /// Shards with such members, this one included.
    pub fn group_shards(&self, group: Key, who: Members) -> ShardSet {
        let Some(group) = self.groups.slots.get(group) else { return ShardSet::EMPTY };
        group.shards(self.here).fold(ShardSet::EMPTY, |set, (shard, counts)| {
            let counts = match who {
                Members::Online => counts.online > 0,
                Members::Any => !counts.is_empty(),
            };
            if counts { set.with(shard) } else { set }
        })
    }

    /// Nobody on `shards` could take a message of this group in `round`, at `now`.
    pub fn group_is_full(&mut self, group: Key, round: Round, shards: ShardSet, now: Millis) {
        if self.groups.slots.get(group).is_none() {
            return;
        }
        let group = &mut self.groups.slots[group.index];
        let (full, since) = &mut group.full.get_or_insert_default().rounds[round as usize];
        if now >= *since + FULL_MS {
            (*full, *since) = (ShardSet::EMPTY, now);
        }
        *full = full.union(shards);
    }

    /// Shards that need not be asked in `round`, because they had nobody a moment ago.
    pub fn group_full(&self, group: Key, round: Round, now: Millis) -> ShardSet {
        let full = self.groups.slots.get(group).and_then(|group| group.full.as_ref());
        let told = full.map(|full| full.rounds[round as usize]);
        told.filter(|(_, since)| now < *since + FULL_MS).map_or(ShardSet::EMPTY, |(full, _)| full)
    }

    /// The shard that a message goes to next, among those not in `tried`: by its share of the members online, or where
    /// nobody is online, of those offline. `None` if no untried shard has a member.
    pub fn choose_shard(&self, group: Key, random: u64, tried: ShardSet) -> Option<ShardId> {
        let group = self.groups.slots.get(group)?;
        let untried = group.shards(self.here).filter(|(shard, _)| !tried.contains(*shard));
        [Presence::Online, Presence::Offline].into_iter().find_map(|presence| {
            let total = untried.clone().map(|(_, counts)| u64::from(counts.of(presence))).sum();
            let mut left = below(random, total);
            untried.clone().find_map(|(shard, counts)| {
                let weight = u64::from(counts.of(presence));
                if left < weight {
                    return Some(shard);
                }
                left -= weight;
                None
            })
        })
    }

    /// A member of this shard; `None` if none is so present. Any is as likely as any other.
    pub fn choose_member(&self, group: Key, random: u64, presence: Presence) -> Option<Key> {
        let members = self.group_members(group, presence);
        members.get(below(random, members.len() as u64) as usize).copied()
    }

    /// The members of this shard that are so present, in no order that means anything.
    pub fn group_members(&self, group: Key, presence: Presence) -> &[Key] {
        let Some(group) = self.groups.slots.get(group) else { return &[] };
        let (online, offline) = group.members.split_at(group.online as usize);
        match presence {
            Presence::Online => online,
            Presence::Offline => offline,
        }
    }

    /// The group with this text; made only if `counts` has members.
    fn group_or_new(&mut self, text: &str, counts: Counts) -> Option<u32> {
        let hash = self.hasher.text(text);
        let target = match self.find(hash, text) {
            Some(target) => target,
            None if counts.is_empty() => return None,
            None => self.create(hash, text),
        };
        match target.get() {
            Where::Group(index) => Some(index),
            Where::Filter(_) => {
                debug_assert!(false, "a group was announced whose text is none: {text}");
                None
            }
        }
    }

    pub(super) fn create_group(&mut self, fingerprint: u64, text: &str, parts: Filter<'_>) -> u32 {
        let node = if parts.has_wildcard { self.trie.insert(parts.filter) } else { NONE };
        self.groups.texts += text.len();
        let index = self
            .groups
            .slots
            .insert(Group {
                text: text.into(),
                filter_at: (text.len() - parts.filter.len()) as u32,
                node,
                fingerprint,
                members: Vec::new(),
                online: 0,
                remote: Vec::new(),
                before: NONE,
                next: NONE,
                announced: false,
                full: None,
            })
            .index;
        // At the head of the groups with the same filter.
        let next = if node == NONE {
            let hash = self.hasher.text(parts.filter);
            let next = self.groups.first_exact(hash, parts.filter);
            match next {
                NONE => self.groups.exact.insert(hash, index),
                _ => self.groups.exact.replace(hash, next, index),
            }
            next
        } else {
            std::mem::replace(&mut self.trie.node_mut(node).groups, index)
        };
        self.groups.slots[index].next = next;
        if next != NONE {
            self.groups.slots[next].before = index;
        }
        index
    }

    /// Adds an online member.
    pub(super) fn join(&mut self, index: u32, member: Key) {
        let group = &mut self.groups.slots[index];
        let is_new = !group.has_members();
        self.groups.members += 1;
        group.announced = true;
        group.members.push(member);
        let last = group.members.len() as u32 - 1;
        group.swap(last, group.online, &mut self.subscriptions);
        group.online += 1;
        if is_new {
            self.show_group(index);
        }
    }

    /// Removes the member at `place`, whose subscription is gone already.
    pub(super) fn leave(&mut self, index: u32, place: u32) {
        self.groups.members -= 1;
        let group = &mut self.groups.slots[index];
        // The last online member fills the gap, and the last of all fills that one's.
        let mut gap = place;
        if gap < group.online {
            group.online -= 1;
            let filler = group.members[group.online as usize];
            if gap != group.online {
                group.members[gap as usize] = filler;
                self.subscriptions[filler.index].before = gap;
            }
            gap = group.online;
        }
        group.members.swap_remove(gap as usize);
        if let Some(filler) = group.members.get(gap as usize) {
            self.subscriptions[filler.index].before = gap;
        }
        if group.members.capacity() > 64 && group.members.len() * 4 < group.members.capacity() {
            group.members.shrink_to(group.members.len() * 2);
        }
    }

    /// Moves the member at `place` among those online or offline; false if it is there.
    pub(super) fn move_member(&mut self, index: u32, place: u32, presence: Presence) -> bool {
        let group = &mut self.groups.slots[index];
        match (presence, place < group.online) {
            (Presence::Online, true) | (Presence::Offline, false) => return false,
            (Presence::Online, false) => {
                group.swap(place, group.online, &mut self.subscriptions);
                group.online += 1;
            }
            (Presence::Offline, true) => {
                group.online -= 1;
                group.swap(place, group.online, &mut self.subscriptions);
            }
        }
        true
    }

    /// Other shards know that there is no member here, if so it is.
    pub(super) fn forget_group(&mut self, index: u32) {
        let group = &mut self.groups.slots[index];
        group.announced = !group.members.is_empty();
        self.remove_group_if_unused(index);
    }

    /// A group has its first member: routes must show it.
    fn show_group(&mut self, index: u32) {
        let group = &self.groups.slots[index];
        match group.node {
            NONE => self.cache.forget(self.hasher.text(group.filter())),
            _ => self.cache.outdate(group.filter(), &self.hasher),
        }
    }

    fn remove_group_if_unused(&mut self, index: u32) {
        let group = &self.groups.slots[index];
        if group.has_members() || group.announced {
            return;
        }
        let group = self.groups.slots.remove(index);
        self.groups.texts -= group.text.len();
        self.unname(&group.text, Target::group(index));
        if group.next != NONE {
            self.groups.slots[group.next].before = group.before;
        }
        if group.before != NONE {
            self.groups.slots[group.before].next = group.next;
        } else if group.node != NONE {
            self.trie.node_mut(group.node).groups = group.next;
        } else {
            let hash = self.hasher.text(group.filter());
            match group.next {
                NONE => self.groups.exact.remove(hash, index),
                next => self.groups.exact.replace(hash, index, next),
            }
        }
        if group.node != NONE {
            self.trie.prune(group.node);
        }
    }
}
