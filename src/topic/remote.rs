//! What other shards announced: which of them have an ordinary subscriber, by exact fingerprint or by wildcard filter.
//!
//! An exact filter costs 12 bytes and a control byte per place of its table, whichever the shard; only one that several
//! shards want owns a set. A fingerprint that two filters share only makes a message travel in vain.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use slab::Slab;

use super::Router;
use crate::memory::{ShardId, ShardSet};

/// What a shard says of an ordinary filter.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Interest {
    /// It has a subscriber.
    Wanted,
    /// It has none any more.
    Withdrawn,
}

/// A set of shards in 4 bytes: a single shard itself, or the place of a larger set.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct SetRef(u32);

impl SetRef {
    pub(super) const EMPTY: SetRef = SetRef(u32::MAX);
}

/// The sets of more than one shard.
#[derive(Debug)]
pub(super) struct ShardSets(Slab<ShardSet>);

impl ShardSets {
    pub(super) fn get(&self, at: SetRef) -> ShardSet {
        match at.0 as usize {
            _ if at == SetRef::EMPTY => ShardSet::EMPTY,
            single if single < ShardSet::MAX => ShardSet::EMPTY.with(at.0 as ShardId),
            many => self.0[many - ShardSet::MAX],
        }
    }

    /// Adds or removes a shard; false if nothing changed.
    pub(super) fn apply(&mut self, at: &mut SetRef, shard: ShardId, interest: Interest) -> bool {
        debug_assert!(usize::from(shard) < ShardSet::MAX);
        let old = self.get(*at);
        let new = match interest {
            Interest::Wanted => old.with(shard),
            Interest::Withdrawn => old.without(shard),
        };
        if new == old {
            return false;
        }
        let single = new.iter().next().map_or(SetRef::EMPTY, |shard| SetRef(u32::from(shard)));
        *at = match (old.len() > 1, new.len() > 1) {
            (false, false) => single,
            (false, true) => SetRef((self.0.insert(new) + ShardSet::MAX) as u32),
            (true, false) => {
                self.0.remove(at.0 as usize - ShardSet::MAX);
                single
            }
            (true, true) => {
                self.0[at.0 as usize - ShardSet::MAX] = new;
                *at
            }
        };
        true
    }
}

/// A fingerprint, aligned so that a table's place takes 12 bytes and not 16.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Print([u32; 2]);

impl Print {
    fn new(fingerprint: u64) -> Print {
        Print([fingerprint as u32, (fingerprint >> 32) as u32])
    }
}

impl Hash for Print {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.0[0]) | u64::from(self.0[1]) << 32);
    }
}

/// For keys that are keyed hashes already.
#[derive(Default, Debug)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not reached by `Print`; still a hash.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// A filter in the table of exact ones, of whose places three quarters are in use on average, and their control bytes.
const EXACT_BYTES: usize = (size_of::<(Print, SetRef)>() + 1) * 4 / 3;

/// Interest of other shards. Wildcards are in the trie that all filters share; their sets are here.
#[derive(Debug)]
pub(super) struct Remote {
    /// Never iterated.
    exact: HashMap<Print, SetRef, BuildHasherDefault<AsIs>>,
    pub(super) sets: ShardSets,
}

impl Remote {
    pub(super) fn new() -> Remote {
        Remote { exact: HashMap::default(), sets: ShardSets(Slab::new()) }
    }

    /// Shards that want an exact filter with this fingerprint.
    pub(super) fn exact(&self, fingerprint: u64) -> ShardSet {
        match self.exact.get(&Print::new(fingerprint)) {
            Some(at) => self.sets.get(*at),
            None => ShardSet::EMPTY,
        }
    }

    fn apply_exact(&mut self, from: ShardId, fingerprint: u64, interest: Interest) -> bool {
        let print = Print::new(fingerprint);
        let mut at = self.exact.get(&print).copied().unwrap_or(SetRef::EMPTY);
        let changed = self.sets.apply(&mut at, from, interest);
        if at != SetRef::EMPTY {
            self.exact.insert(print, at);
        } else if changed {
            self.exact.remove(&print);
            // After a storm of withdrawals the memory goes back.
            if self.exact.capacity() > 1024 && self.exact.len() * 8 < self.exact.capacity() {
                self.exact.shrink_to(self.exact.len() * 2);
            }
        }
        changed
    }

    pub(super) fn bytes(&self) -> usize {
        // The map keeps an eighth of its places free and a control byte for each.
        let places = self.exact.capacity() * 8 / 7;
        places * (size_of::<(Print, SetRef)>() + 1) + self.sets.0.capacity() * size_of::<(usize, ShardSet)>()
    }

    /// Bytes in use.
    pub(super) fn kept_bytes(&self) -> usize {
        self.exact.len() * EXACT_BYTES + self.sets.0.len() * size_of::<ShardSet>()
    }

    pub(super) fn exact_len(&self) -> usize {
        self.exact.len()
    }
}

/// What other shards announced.
impl Router {
    /// Shard `from` has, or has no more, an ordinary subscriber to an exact filter with this [`super::fingerprint`].
    pub fn remote_exact(&mut self, from: ShardId, fingerprint: u64, interest: Interest) {
        debug_assert_ne!(from, self.here);
        if self.remote.apply_exact(from, fingerprint, interest) {
            self.cache.forget(fingerprint);
        }
    }

    /// Shard `from` has, or has no more, an ordinary subscriber to the wildcard filter `text`.
    pub fn remote_wildcard(&mut self, from: ShardId, text: &str, interest: Interest) {
        debug_assert_ne!(from, self.here);
        let node = match interest {
            Interest::Wanted => self.trie.insert(text),
            Interest::Withdrawn => match self.trie.find(text) {
                Some(node) => node,
                None => return,
            },
        };
        if self.remote.sets.apply(&mut self.trie.node_mut(node).remote, from, interest) {
            self.cache.outdate(text, &self.hasher);
        }
        self.trie.prune(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_grows_and_shrinks_without_leaving_anything() {
        let mut sets = ShardSets(Slab::new());
        let mut at = SetRef::EMPTY;
        assert!(!sets.apply(&mut at, 3, Interest::Withdrawn));
        for shard in [127, 0, 64] {
            assert!(sets.apply(&mut at, shard, Interest::Wanted));
            assert!(!sets.apply(&mut at, shard, Interest::Wanted));
        }
        assert_eq!(sets.get(at).iter().collect::<Vec<_>>(), [0, 64, 127]);
        assert!(sets.apply(&mut at, 0, Interest::Withdrawn));
        assert!(sets.apply(&mut at, 127, Interest::Withdrawn));
        assert_eq!(sets.get(at), ShardSet::EMPTY.with(64));
        assert!(sets.0.is_empty());
        assert!(sets.apply(&mut at, 64, Interest::Withdrawn));
        assert_eq!(at, SetRef::EMPTY);
    }

    #[test]
    fn a_place_of_the_exact_table_takes_12_bytes() {
        assert_eq!(size_of::<(Print, SetRef)>(), 12);
    }
}
