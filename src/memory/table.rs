//! A hash table of indexes: 8 bytes a place, the texts stay with what the indexes name.
//!
//! Open addressing with linear probing and backward shift on removal, so there are no tombstones. It keeps 32 bits of
//! each hash, which is what places an entry and spares most comparisons. It is never iterated: no behaviour can come
//! from its order. Clients choose what is hashed, so hashes must be keyed.

/// No index: marks a free place.
const NONE: u32 = u32::MAX;

/// See the top of the file.
#[derive(Clone, Debug, Default)]
pub struct Table {
    places: Box<[Place]>,
    len: usize,
    /// Places looked at by all calls so far.
    #[cfg(test)]
    pub probes: std::cell::Cell<u64>,
}

#[derive(Copy, Clone, Debug)]
struct Place {
    hash: u32,
    /// [`NONE`] where the place is free.
    value: u32,
}

impl Place {
    const FREE: Place = Place { hash: 0, value: NONE };
}

/// Places of the smallest table.
const PLACES_MIN: usize = 8;

impl Table {
    /// Bytes of its places.
    pub fn bytes(&self) -> usize {
        self.places.len() * size_of::<Place>()
    }

    /// The value under `hash` for which `same` says yes.
    pub fn find(&self, hash: u64, mut same: impl FnMut(u32) -> bool) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let mask = self.places.len() - 1;
        let hash = hash as u32;
        let mut at = hash as usize & mask;
        loop {
            self.count_probe();
            let place = self.places[at];
            if place.value == NONE {
                return None;
            }
            if place.hash == hash && same(place.value) {
                return Some(place.value);
            }
            at = (at + 1) & mask;
        }
    }

    fn count_probe(&self) {
        #[cfg(test)]
        self.probes.set(self.probes.get() + 1);
    }

    /// Adds `value`, which is not in the table.
    pub fn insert(&mut self, hash: u64, value: u32) {
        assert!(value != NONE, "no index has this number");
        // At most three quarters full: probes stay short, and there is always a free place to end them.
        if (self.len + 1) * 4 > self.places.len() * 3 {
            self.resize((self.places.len() * 2).max(PLACES_MIN));
        }
        self.place(hash as u32, value);
        self.len += 1;
    }

    fn place(&mut self, hash: u32, value: u32) {
        let mask = self.places.len() - 1;
        let mut at = hash as usize & mask;
        while self.places[at].value != NONE {
            at = (at + 1) & mask;
        }
        self.places[at] = Place { hash, value };
    }

    fn resize(&mut self, places: usize) {
        let old = std::mem::replace(&mut self.places, vec![Place::FREE; places].into_boxed_slice());
        for place in old.iter().filter(|place| place.value != NONE) {
            self.place(place.hash, place.value);
        }
    }

    fn position(&self, hash: u64, value: u32) -> Option<usize> {
        if self.len == 0 {
            return None;
        }
        let mask = self.places.len() - 1;
        let mut at = hash as u32 as usize & mask;
        while self.places[at].value != value {
            self.count_probe();
            if self.places[at].value == NONE {
                return None;
            }
            at = (at + 1) & mask;
        }
        Some(at)
    }

    /// Puts `new` in the place of `old`, which was inserted with the same hash.
    pub fn replace(&mut self, hash: u64, old: u32, new: u32) {
        let at = self.position(hash, old).expect("what is replaced was inserted with this hash");
        self.places[at].value = new;
    }

    /// Takes out `value`, which was inserted with the same hash.
    pub fn remove(&mut self, hash: u64, value: u32) {
        let mut free = self.position(hash, value).expect("what is removed was inserted with this hash");
        let mask = self.places.len() - 1;
        let mut at = free;
        loop {
            at = (at + 1) & mask;
            let place = self.places[at];
            if place.value == NONE {
                break;
            }
            // An entry may move back to the free place unless it belongs between that place and its own.
            let home = place.hash as usize & mask;
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(free) & mask) {
                self.places[free] = place;
                free = at;
            }
        }
        self.places[free] = Place::FREE;
        self.len -= 1;
        if self.places.len() > PLACES_MIN && self.len * 8 < self.places.len() {
            self.resize(self.places.len() / 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Beside a plain list, with few hashes and hashes that wrap around the end, so that every run is long.
        #[test]
        fn does_what_a_list_does(steps in prop::collection::vec((0u8..4, 0u32..40), 1..400)) {
            let hash_of = |value: u32| u64::from([0, 1, 7, u32::MAX, u32::MAX - 1][value as usize % 5]);
            let mut table = Table::default();
            let mut list: Vec<u32> = Vec::new();
            for (step, value) in steps {
                let known = list.iter().position(|one| *one == value);
                match (step, known) {
                    (0 | 1, None) => {
                        table.insert(hash_of(value), value);
                        list.push(value);
                    }
                    (2, Some(at)) => {
                        table.remove(hash_of(value), value);
                        list.swap_remove(at);
                    }
                    (3, Some(at)) if !list.contains(&(value + 40)) => {
                        // 40 is a multiple of 5: the same hash.
                        table.replace(hash_of(value), value, value + 40);
                        list[at] = value + 40;
                    }
                    _ => {}
                }
                prop_assert_eq!(table.len, list.len());
                for value in 0..80 {
                    let found = table.find(hash_of(value), |one| one == value);
                    prop_assert_eq!(found.is_some(), list.contains(&value));
                }
            }
        }
    }

    #[test]
    fn gives_memory_back() {
        let mut table = Table::default();
        for value in 0..10_000u32 {
            table.insert(u64::from(value.wrapping_mul(0x9E37_79B9)), value);
        }
        let full = table.bytes();
        assert!(full <= 10_000 * 16, "{full}");
        for value in 0..10_000u32 {
            table.remove(u64::from(value.wrapping_mul(0x9E37_79B9)), value);
        }
        assert_eq!(table.bytes(), PLACES_MIN * 8);
    }
}
