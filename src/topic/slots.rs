//! Slots with generational keys, whose occupants may also be linked by bare index.
//!
//! Beside [`crate::memory::Arena`], links cost 4 bytes instead of 8, and a key is never mistaken for a later one however
//! long it is kept: each slot counts its occupants, and one whose count is used up is left empty for good (a slot's
//! memory per 16.7 million insertions). A cached route may hold a stale key for days.
//!
//! A bare index is for links that are undone before the occupant goes; whatever may outlive it holds a [`Key`].

use super::NONE;
use crate::memory::Key;

#[derive(Debug)]
pub(super) struct Slots<T> {
    slots: Vec<Slot<T>>,
    /// The slot that was emptied last.
    free: u32,
    len: usize,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    /// With the slot that was emptied before.
    Free(u32),
    Used(T),
}

/// Generations have 24 bits, as in every key.
const GENERATION_MAX: u32 = 0x00FF_FFFF;

impl<T> Slots<T> {
    pub(super) fn new() -> Slots<T> {
        Slots { slots: Vec::new(), free: NONE, len: 0 }
    }

    pub(super) fn reserve(&mut self, slots: usize) {
        self.slots.reserve(slots);
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, value: T) -> Key {
        self.len += 1;
        let state = State::Used(value);
        if self.free == NONE {
            let index = self.slots.len() as u32;
            debug_assert!(index < super::subscription::GROUP_BIT);
            self.slots.push(Slot { generation: 1, state });
            return Key { index, generation: 1 };
        }
        let index = self.free;
        let slot = &mut self.slots[index as usize];
        if let State::Free(next) = std::mem::replace(&mut slot.state, state) {
            self.free = next;
        }
        slot.generation += 1;
        Key { index, generation: slot.generation }
    }

    /// Empties the slot of an occupant that is there.
    pub(super) fn remove(&mut self, index: u32) -> T {
        let slot = &mut self.slots[index as usize];
        let retired = slot.generation == GENERATION_MAX;
        match std::mem::replace(&mut slot.state, State::Free(self.free)) {
            State::Used(value) => {
                self.len -= 1;
                if !retired {
                    self.free = index;
                }
                value
            }
            State::Free(_) => unreachable!("an empty slot was linked"),
        }
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.index as usize) {
            Some(Slot { generation, state: State::Used(value) }) if *generation == key.generation => {
                Some(value)
            }
            _ => None,
        }
    }

    /// The key of the occupant at a linked index.
    pub(super) fn key(&self, index: u32) -> Key {
        Key { index, generation: self.slots[index as usize].generation }
    }

    /// Bytes of the slots, without what their occupants own.
    pub(super) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot<T>>()
    }
}

/// By linked index, whose occupant is there.
impl<T> std::ops::Index<u32> for Slots<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        match &self.slots[index as usize].state {
            State::Used(value) => value,
            State::Free(_) => unreachable!("an empty slot was linked"),
        }
    }
}

impl<T> std::ops::IndexMut<u32> for Slots<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        match &mut self.slots[index as usize].state {
            State::Used(value) => value,
            State::Free(_) => unreachable!("an empty slot was linked"),
        }
    }
}

// The state and the generation cost 4 bytes together: a subscription fills half a cache line.
const _: () = assert!(size_of::<Slot<super::Subscription>>() == 32);
// Matching finds the text and what it leads to with one wait for memory.
const _: () = assert!(size_of::<Slot<super::router::Own>>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing_even_when_generations_run_out() {
        let mut slots = Slots::new();
        let first = slots.insert("first");
        assert_eq!(slots.remove(first.index), "first");
        let second = slots.insert("second");
        assert_eq!(second, Key { index: first.index, generation: 2 });
        assert_eq!((slots.get(first), slots.get(second)), (None, Some(&"second")));

        slots.slots[0].generation = GENERATION_MAX;
        slots.remove(0);
        assert_eq!(slots.get(Key { index: 0, generation: GENERATION_MAX }), None);
        assert_eq!(slots.insert("third"), Key { index: 1, generation: 1 }, "the slot was used again");
        assert_eq!(slots.len(), 1);
    }

    #[test]
    fn emptied_slots_are_used_again() {
        let mut slots = Slots::new();
        for round in 0..3 {
            let keys: Vec<Key> = (0..10).map(|number| slots.insert(number)).collect();
            assert_eq!(slots.slots.len(), 10);
            assert!(keys.iter().all(|key| slots.get(*key).is_some() && key.generation == round + 1));
            assert!(keys.iter().all(|key| slots.key(key.index) == *key));
            for key in keys.iter().rev() {
                slots.remove(key.index);
            }
        }
        assert_eq!(slots.len(), 0);
    }
}
