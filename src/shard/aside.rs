//! What few sessions have: one word while there is nothing of it.

use std::collections::VecDeque;

use crate::memory::Key;

use super::losses::Missed;
use super::share_stuck::Lag;

#[derive(Debug, Default)]
pub(super) struct Aside(Option<Box<Parts>>);

#[derive(Debug, Default)]
struct Parts {
    /// Connections that want the session, in the order in which they came; the live one has to end first.
    successors: VecDeque<Key>,
    /// What the session missed since the last report.
    missed: Missed,
    /// Messages of share groups wait for its client.
    lag: Option<Lag>,
}

impl Aside {
    pub fn has_successor(&self) -> bool {
        self.0.as_ref().is_some_and(|parts| !parts.successors.is_empty())
    }

    pub fn push_successor(&mut self, key: Key) {
        self.0.get_or_insert_default().successors.push_back(key);
    }

    pub fn pop_successor(&mut self) -> Option<Key> {
        self.take(|parts| parts.successors.pop_front())
    }

    pub fn forget_successor(&mut self, key: Key) {
        self.take(|parts| parts.successors.retain(|waiting| *waiting != key));
    }

    pub fn take_successors(&mut self) -> VecDeque<Key> {
        self.take(|parts| std::mem::take(&mut parts.successors))
    }

    pub fn missed(&self) -> Missed {
        self.0.as_ref().map_or(Missed::default(), |parts| parts.missed)
    }

    pub fn note_missed(&mut self, missed: Missed) {
        self.0.get_or_insert_default().missed = missed;
    }

    pub fn take_missed(&mut self) -> Missed {
        self.take(|parts| std::mem::take(&mut parts.missed))
    }

    pub fn lag(&self) -> Option<Lag> {
        self.0.as_ref().and_then(|parts| parts.lag)
    }

    pub fn set_lag(&mut self, lag: Lag) {
        self.0.get_or_insert_default().lag = Some(lag);
    }

    pub fn forget_lag(&mut self) {
        self.take(|parts| parts.lag = None);
    }

    /// Takes something out, if there is anything; no memory is kept where nothing is left.
    fn take<R: Default>(&mut self, take: impl FnOnce(&mut Parts) -> R) -> R {
        let Some(parts) = &mut self.0 else { return R::default() };
        let taken = take(parts);
        if parts.successors.is_empty() && parts.missed == Missed::default() && parts.lag.is_none() {
            self.0 = None;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: u32) -> Key {
        Key { index, generation: 1 }
    }

    #[test]
    fn one_part_goes_and_the_other_stays_and_nothing_keeps_memory() {
        let missed = Missed::of_queue(3);
        let mut aside = Aside::default();
        assert_eq!((aside.pop_successor(), aside.take_missed()), (None, Missed::default()));

        (1..=3).for_each(|index| aside.push_successor(key(index)));
        aside.note_missed(missed);
        assert_eq!(aside.pop_successor(), Some(key(1)));
        aside.forget_successor(key(2));
        assert_eq!((aside.take_successors(), aside.has_successor()), (VecDeque::from([key(3)]), false));
        assert_eq!((aside.missed(), aside.take_missed()), (missed, missed));
        assert!(aside.0.is_none(), "{aside:?}");

        aside.note_missed(missed);
        aside.push_successor(key(4));
        assert_eq!(aside.take_missed(), missed);
        assert!(aside.has_successor());
        aside.forget_successor(key(4));
        assert!(aside.0.is_none(), "{aside:?}");
    }
}
