//! A slab with generational keys whose occupants may also be linked by bare index.
//!
//! As [`crate::memory::Arena`], but lists through the occupants cost 4 bytes a link instead of 8. A bare index is for
//! links that are undone before the occupant goes; whatever may outlive it holds a [`Key`].

use slab::Slab;

use crate::memory::Key;

#[derive(Debug)]
pub(super) struct Slots<T> {
    slab: Slab<(u32, T)>,
    generation: u32,
}

/// Generations have 24 bits, as everywhere.
const GENERATION_MAX: u32 = 0x00FF_FFFF;

impl<T> Slots<T> {
    pub(super) fn new() -> Slots<T> {
        Slots { slab: Slab::new(), generation: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whoever keeps keys of removed occupants for long must drop them when [`Slots::turned`] says so.
    pub(super) fn insert(&mut self, value: T) -> Key {
        self.generation = if self.generation == GENERATION_MAX { 1 } else { self.generation + 1 };
        let index = self.slab.insert((self.generation, value)) as u32;
        debug_assert!(index < super::subscription::GROUP_BIT);
        Key { index, generation: self.generation }
    }

    /// Whether the last insertion began a new half of the range of generations: a key that is not older than the
    /// half before can never be mistaken for a later one.
    pub(super) fn turned(&self) -> bool {
        matches!(self.generation, 1 | 0x0080_0000)
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        match self.slab.get(key.index as usize) {
            Some((generation, value)) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// The key of the occupant at a linked index.
    pub(super) fn key(&self, index: u32) -> Key {
        Key { index, generation: self.slab[index as usize].0 }
    }

    pub(super) fn remove(&mut self, index: u32) -> T {
        self.slab.remove(index as usize).1
    }

    /// Bytes of the slots, without what their occupants own.
    pub(super) fn bytes(&self) -> usize {
        self.slab.capacity() * size_of::<(u32, T)>()
    }

    #[cfg(test)]
    pub(super) fn set_generation(&mut self, generation: u32) {
        self.generation = generation;
    }
}

/// By linked index, whose occupant is there.
impl<T> std::ops::Index<u32> for Slots<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        &self.slab[index as usize].1
    }
}

impl<T> std::ops::IndexMut<u32> for Slots<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        &mut self.slab[index as usize].1
    }
}
