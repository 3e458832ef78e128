//! Generational keys over a slab: a key names one occupant of a slot, never the next one.
//!
//! Keys are `Copy` and may be kept anywhere; a stale key finds nothing. The generation is one counter for the whole
//! arena and has 24 bits, so that index and generation fit the 56 bits that the kernel hands back with a completion.
//! It wraps after 16.7 million insertions; a slot is only freed when the kernel owns nothing of it any more, so a key
//! would have to be kept over exactly that many insertions into the same slot to be mistaken.

use slab::Slab;

/// Names one occupant of an [`Arena`].
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key {
    pub index: u32,
    /// 24 bits.
    pub generation: u32,
}

impl Key {
    /// A key that no arena ever gives out.
    pub const NONE: Key = Key { index: u32::MAX, generation: 0 };

    /// Index in the low 32 bits, generation in the 24 above.
    pub fn pack(self) -> u64 {
        u64::from(self.index) | u64::from(self.generation) << 32
    }

    /// The inverse of [`Key::pack`]; the top 8 bits are ignored.
    pub fn unpack(bits: u64) -> Key {
        Key { index: bits as u32, generation: (bits >> 32) as u32 & 0x00FF_FFFF }
    }
}

/// A slab whose keys carry a generation.
#[derive(Debug)]
pub struct Arena<T> {
    slots: Slab<(u32, T)>,
    generation: u32,
    /// No slot from here on was ever used.
    end: u32,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Arena { slots: Slab::new(), generation: 0, end: 0 }
    }
}

impl<T> Arena<T> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Room for `capacity` values before anything has to move. Memory that was never used is only an address.
    pub fn with_capacity(capacity: usize) -> Self {
        Arena { slots: Slab::with_capacity(capacity), generation: 0, end: 0 }
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Generations start at 1, so [`Key::NONE`] is never given out.
    pub fn insert(&mut self, value: T) -> Key {
        self.generation = if self.generation == 0x00FF_FFFF { 1 } else { self.generation + 1 };
        let index = self.slots.insert((self.generation, value));
        debug_assert!(
            index < Key::NONE.index as usize,
            "an index has 32 bits, and one of them stands for none"
        );
        self.end = self.end.max(index as u32 + 1);
        Key { index: index as u32, generation: self.generation }
    }

    pub fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.index as usize) {
            Some((generation, value)) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index as usize) {
            Some((generation, value)) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// The occupant of a slot, whichever it is, with its key.
    pub fn at(&self, index: u32) -> Option<(Key, &T)> {
        self.slots
            .get(index as usize)
            .map(|(generation, value)| (Key { index, generation: *generation }, value))
    }

    /// Every occupant's index is below.
    pub fn end(&self) -> u32 {
        self.end
    }

    pub fn contains(&self, key: Key) -> bool {
        self.get(key).is_some()
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        Some(self.slots.remove(key.index as usize).1)
    }

    /// In the order of the slots, which does not depend on hashing.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots
            .iter()
            .map(|(index, (generation, value))| (Key { index: index as u32, generation: *generation }, value))
    }

    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.iter().map(|(key, _)| key)
    }

    pub fn shrink(&mut self) {
        self.slots.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut arena = Arena::new();
        let first = arena.insert("first");
        assert_eq!(arena.remove(first), Some("first"));
        let second = arena.insert("second");
        assert_eq!(first.index, second.index);
        assert_eq!(arena.get(first), None);
        assert_eq!(arena.remove(first), None);
        assert_eq!(arena.get(second), Some(&"second"));
    }

    #[test]
    fn keys_survive_packing() {
        let key = Key { index: 0xDEAD_BEEF, generation: 0x00AB_CDEF };
        assert_eq!(Key::unpack(key.pack() | 0xFF << 56), key);
    }

    #[test]
    fn the_generation_wraps_past_zero() {
        let mut arena = Arena::new();
        arena.generation = 0x00FF_FFFF;
        assert_eq!(arena.insert(()).generation, 1);
    }
}
