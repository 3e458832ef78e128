//! Deadlines of one shard, in a heap.
//!
//! An owner has one entry and checks for itself, when it comes due, whether its deadline has moved on; then it sets
//! another. So a packet that renews a Keep Alive costs nothing here. Nothing is cancelled: a key that finds nobody is
//! dropped when it comes due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::Millis;

/// Deadlines with a value each.
#[derive(Debug)]
pub struct Timers<T: Ord> {
    heap: BinaryHeap<Reverse<(Millis, T)>>,
}

impl<T: Ord> Default for Timers<T> {
    fn default() -> Self {
        Timers { heap: BinaryHeap::new() }
    }
}

impl<T: Ord> Timers<T> {
    /// Room for so many before the heap has to move.
    pub fn with_capacity(capacity: usize) -> Self {
        Timers { heap: BinaryHeap::with_capacity(capacity) }
    }

    pub fn len(&self) -> usize {
        self.heap.len()
    }

    pub fn set(&mut self, at: Millis, value: T) {
        self.heap.push(Reverse((at, value)));
    }

    /// Drops those that nobody waits for any more; linear.
    pub fn retain(&mut self, mut keep: impl FnMut(Millis, &T) -> bool) {
        self.heap.retain(|Reverse((at, value))| keep(*at, value));
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Millis> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one that is due at `now`, earliest first; equal ones in the order of their values.
    pub fn pop_due(&mut self, now: Millis) -> Option<T> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, value))| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_ones_come_in_order_and_others_wait() {
        let mut timers = Timers::default();
        for (at, value) in [(30, 'c'), (10, 'b'), (10, 'a'), (31, 'd')] {
            timers.set(at, value);
        }
        assert_eq!(timers.next(), Some(10));
        let due: Vec<char> = std::iter::from_fn(|| timers.pop_due(30)).collect();
        assert_eq!(due, ['a', 'b', 'c']);
        assert_eq!(timers.len(), 1);
    }
}
