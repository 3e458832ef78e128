//! A map that forgets what was not used for longest, without ever looking through itself.
//!
//! Two halves: what is put in or used goes into the young one; when that is full it becomes the old one, and what the
//! old one still had is forgotten. So it holds `max` entries at most, and the `max / 2` that were used last for certain.

use std::collections::HashMap;
use std::hash::Hash;

use ahash::RandomState;

#[derive(Debug)]
pub(super) struct Recent<K, V> {
    young: HashMap<K, V, RandomState>,
    old: HashMap<K, V, RandomState>,
    half: usize,
}

impl<K: Hash + Eq, V> Recent<K, V> {
    pub(super) fn new(max: usize) -> Recent<K, V> {
        Recent { young: HashMap::default(), old: HashMap::default(), half: (max / 2).max(1) }
    }

    /// The entry of `key`, if it is not forgotten. It was used now.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.insert(key, value);
        }
        self.young.get_mut(key)
    }

    /// The same without using it.
    pub(super) fn peek(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            // The table of the old half is kept: it is as large as this one needs.
            self.old.clear();
            std::mem::swap(&mut self.old, &mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_what_is_used_stays() {
        let mut recent = Recent::new(100);
        recent.insert(0, 0);
        for key in 1..1000 {
            recent.insert(key, key);
            *recent.get_mut(&0).expect("it is used all the time") += 1;
            assert!(recent.young.len() + recent.old.len() <= 100);
            assert!(recent.peek(&(key - key.min(49))).is_some(), "the last fifty are there");
        }
        assert_eq!((recent.peek(&0), recent.peek(&1)), (Some(&999), None));
        recent.remove(&0);
        assert!(recent.get_mut(&0).is_none());
    }
}
