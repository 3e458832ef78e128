//! The subscriptions of one session: no memory when empty, no heap with one, constant time with 100,000.

use super::TextHasher;
use super::slots::Slots;
use super::subscription::{Subscription, Target};
use crate::memory::{Key, Table};

/// Which subscriptions a session has. Filled and emptied by the [`super::Router`] that it is handed to, which must
/// always be the same; drop it only when empty (see [`super::Router::drop_all`]).
#[derive(Debug, Default)]
pub struct SubscriptionSet(Repr);

#[derive(Debug, Default)]
enum Repr {
    #[default]
    Empty,
    One(Key),
    Many(Box<Many>),
}

#[derive(Debug)]
struct Many {
    keys: Vec<Key>,
    /// From target to place in `keys`; not kept for few, which are looked through.
    index: Option<Table>,
}

// Each session has one.
const _: () = assert!(size_of::<SubscriptionSet>() <= 16);

/// Up to here a set is looked through.
const UNINDEXED_MAX: usize = 16;

impl SubscriptionSet {
    pub fn len(&self) -> usize {
        self.keys().len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys().is_empty()
    }

    /// In an order that depends only on what was subscribed and unsubscribed.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Key> + '_ {
        self.keys().iter().copied()
    }

    pub(super) fn keys(&self) -> &[Key] {
        match &self.0 {
            Repr::Empty => &[],
            Repr::One(key) => std::slice::from_ref(key),
            Repr::Many(many) => &many.keys,
        }
    }

    /// The place of the subscription to `target`.
    pub(super) fn find(
        &self,
        target: Target,
        subscriptions: &Slots<Subscription>,
        hasher: &TextHasher,
    ) -> Option<usize> {
        let keys = self.keys();
        let same = |place: u32| subscriptions[keys[place as usize].index].target == target;
        if let Repr::Many(many) = &self.0
            && let Some(index) = &many.index
        {
            return index.find(hasher.number(target.0), same).map(|place| place as usize);
        }
        (0..keys.len()).find(|place| same(*place as u32))
    }

    /// Adds a subscription that is not in the set.
    pub(super) fn insert(&mut self, key: Key, subscriptions: &Slots<Subscription>, hasher: &TextHasher) {
        match &mut self.0 {
            Repr::Empty => self.0 = Repr::One(key),
            Repr::One(first) => {
                self.0 = Repr::Many(Box::new(Many { keys: vec![*first, key], index: None }));
            }
            Repr::Many(many) => {
                let hash_of = |key: Key| hasher.number(subscriptions[key.index].target.0);
                let place = many.keys.len();
                many.keys.push(key);
                if let Some(index) = &mut many.index {
                    index.insert(hash_of(key), place as u32);
                } else if many.keys.len() > UNINDEXED_MAX {
                    let mut index = Table::default();
                    for (place, key) in many.keys.iter().enumerate() {
                        index.insert(hash_of(*key), place as u32);
                    }
                    many.index = Some(index);
                }
            }
        }
    }

    /// Takes out the subscription at `place`, while it is still in `subscriptions`.
    pub(super) fn remove(
        &mut self,
        place: usize,
        subscriptions: &Slots<Subscription>,
        hasher: &TextHasher,
    ) -> Key {
        let Repr::Many(many) = &mut self.0 else {
            let key = self.keys()[place];
            self.0 = Repr::Empty;
            return key;
        };
        let key = many.keys.swap_remove(place);
        if let Some(index) = &mut many.index {
            let hash_of = |key: Key| hasher.number(subscriptions[key.index].target.0);
            index.remove(hash_of(key), place as u32);
            if let Some(moved) = many.keys.get(place) {
                index.replace(hash_of(*moved), many.keys.len() as u32, place as u32);
            }
        }
        if many.keys.capacity() > 64 && many.keys.len() * 4 < many.keys.capacity() {
            many.keys.shrink_to(many.keys.len() * 2);
        }
        if let [last] = many.keys[..] {
            self.0 = Repr::One(last);
        }
        key
    }

    /// Hash probes so far.
    #[cfg(test)]
    pub(super) fn probes(&self) -> u64 {
        match &self.0 {
            Repr::Many(many) => many.index.as_ref().map_or(0, |index| index.probes.get()),
            Repr::Empty | Repr::One(_) => 0,
        }
    }

    pub(super) fn take(&mut self) -> SubscriptionSet {
        std::mem::take(self)
    }
}
