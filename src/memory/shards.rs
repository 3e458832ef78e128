//! Which shards: an index and a set of them.

/// Index of a shard.
pub type ShardId = u16;

/// A set of shards; at most [`ShardSet::MAX`] can exist.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug, Hash)]
pub struct ShardSet(u128);

impl ShardSet {
    /// Shards that one process may have.
    pub const MAX: usize = 128;
    pub const EMPTY: ShardSet = ShardSet(0);

    /// All shards below `count`.
    pub fn first(count: u16) -> ShardSet {
        assert!(usize::from(count) <= Self::MAX, "{count} shards");
        if count >= 128 { ShardSet(u128::MAX) } else { ShardSet((1 << count) - 1) }
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    pub fn contains(self, shard: ShardId) -> bool {
        self.0 >> shard & 1 == 1
    }

    pub fn insert(&mut self, shard: ShardId) {
        self.0 |= 1 << shard;
    }

    pub fn remove(&mut self, shard: ShardId) {
        self.0 &= !(1 << shard);
    }

    #[must_use]
    pub fn with(mut self, shard: ShardId) -> ShardSet {
        self.insert(shard);
        self
    }

    #[must_use]
    pub fn without(mut self, shard: ShardId) -> ShardSet {
        self.remove(shard);
        self
    }

    #[must_use]
    pub fn union(self, other: ShardSet) -> ShardSet {
        ShardSet(self.0 | other.0)
    }

    #[must_use]
    pub fn intersection(self, other: ShardSet) -> ShardSet {
        ShardSet(self.0 & other.0)
    }

    #[must_use]
    pub fn minus(self, other: ShardSet) -> ShardSet {
        ShardSet(self.0 & !other.0)
    }

    /// In ascending order.
    pub fn iter(self) -> impl Iterator<Item = ShardId> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            (left != 0).then(|| {
                let shard = left.trailing_zeros() as ShardId;
                left &= left - 1;
                shard
            })
        })
    }

    /// As two words, for a place where it must be atomic or encoded.
    pub fn words(self) -> [u64; 2] {
        [self.0 as u64, (self.0 >> 64) as u64]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_iterates_in_order_up_to_the_last_shard() {
        let mut set = ShardSet::EMPTY;
        for shard in [127, 0, 64, 63, 5] {
            set.insert(shard);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 5, 63, 64, 127]);
        assert_eq!(ShardSet::first(128).len(), 128);
        assert_eq!(ShardSet::first(3).without(1).iter().collect::<Vec<_>>(), [0, 2]);
        assert_eq!(set.words(), [1 << 63 | 1 << 5 | 1, 1 << 63 | 1]);
    }
}
