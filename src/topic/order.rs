//! Indexes in an order that only their owner knows: chunks of sorted indexes, 4 bytes each.
//!
//! The order is asked for by a closure, so what is ordered can stay where it is. Finding a place takes one comparison
//! per bit of the length; inserting and removing move at most a chunk, and now and then the list of chunks.

#[derive(Debug, Default)]
pub(super) struct Order {
    /// None is empty, and two neighbours hold more than half a chunk together.
    chunks: Vec<Vec<u32>>,
}

/// Indexes in a chunk: moving half of them costs less than the cache misses of finding the place. Few in tests, so that
/// every sequence crosses the seams.
const CHUNK_MAX: usize = if cfg!(test) { 8 } else { 512 };

/// A place in the order.
#[derive(Copy, Clone, Debug)]
pub(super) struct Place {
    chunk: usize,
    at: usize,
}

impl Order {
    /// The first place.
    pub(super) const START: Place = Place { chunk: 0, at: 0 };

    /// Where the first index is of which `before` is not true. It is true of a beginning of the order only.
    pub(super) fn seek(&self, mut before: impl FnMut(u32) -> bool) -> Place {
        let chunk = self.chunks.partition_point(|chunk| before(chunk[0])).saturating_sub(1);
        self.seek_in(chunk, 0, before)
    }

    /// [`Order::seek`] for a place that is not before `from`, quickly if it is near.
    pub(super) fn seek_from(&self, from: Place, mut before: impl FnMut(u32) -> bool) -> Place {
        match self.chunks.get(from.chunk) {
            Some(chunk) if chunk.last().is_some_and(|last| !before(*last)) => {
                self.seek_in(from.chunk, from.at, before)
            }
            _ => self.seek(before),
        }
    }

    fn seek_in(&self, chunk: usize, from: usize, mut before: impl FnMut(u32) -> bool) -> Place {
        let Some(indexes) = self.chunks.get(chunk) else { return Order::START };
        let at = from + indexes[from..].partition_point(|index| before(*index));
        if at == indexes.len() { Place { chunk: chunk + 1, at: 0 } } else { Place { chunk, at } }
    }

    /// What is at a place; `None` at the end.
    pub(super) fn get(&self, place: Place) -> Option<u32> {
        self.chunks.get(place.chunk)?.get(place.at).copied()
    }

    pub(super) fn next(&self, place: Place) -> Place {
        match self.chunks.get(place.chunk) {
            Some(chunk) if place.at + 1 < chunk.len() => Place { at: place.at + 1, ..place },
            _ => Place { chunk: place.chunk + 1, at: 0 },
        }
    }

    /// Inserts before what is at `place`.
    pub(super) fn insert(&mut self, place: Place, index: u32) {
        // Between two chunks belongs to the first of them.
        let place = match place {
            Place { chunk, at: 0 } if chunk > 0 => {
                Place { chunk: chunk - 1, at: self.chunks[chunk - 1].len() }
            }
            place => place,
        };
        let Some(chunk) = self.chunks.get_mut(place.chunk) else {
            return self.chunks.push(vec![index]);
        };
        chunk.insert(place.at, index);
        if chunk.len() > CHUNK_MAX {
            let half = chunk.split_off(CHUNK_MAX / 2);
            chunk.shrink_to(CHUNK_MAX / 2);
            self.chunks.insert(place.chunk + 1, half);
        }
    }

    /// Removes what is at `place`.
    pub(super) fn remove(&mut self, place: Place) {
        let chunk = &mut self.chunks[place.chunk];
        chunk.remove(place.at);
        if chunk.is_empty() {
            // Its neighbours are half full each, or it has none.
            self.chunks.remove(place.chunk);
            return;
        }
        // Two neighbours that fill half a chunk together become one.
        for first in [place.chunk, place.chunk.saturating_sub(1)] {
            if let [one, two, ..] = &self.chunks[first..]
                && one.len() + two.len() <= CHUNK_MAX / 2
            {
                let two = self.chunks.remove(first + 1);
                self.chunks[first].extend(two);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(order: &Order) -> Vec<u32> {
        let mut found = Vec::new();
        let mut place = Order::START;
        while let Some(index) = order.get(place) {
            found.push(index);
            place = order.next(place);
        }
        found
    }

    #[test]
    fn a_chunk_between_full_ones_may_empty() {
        let mut order = Order::default();
        let count = CHUNK_MAX as u32 * 4;
        for value in (0..count).step_by(2).chain((1..count).step_by(4)) {
            order.insert(order.seek(|index| index < value), value);
        }
        let chunks: Vec<Vec<u32>> = order.chunks.clone();
        assert!(chunks[1].len() > CHUNK_MAX / 2 && chunks[3].len() > CHUNK_MAX / 2);
        for value in &chunks[2] {
            order.remove(order.seek(|index| index < *value));
        }
        assert_eq!(order.chunks.len(), chunks.len() - 1);
        assert_eq!(all(&order), [&chunks[..2], &chunks[3..]].concat().concat());
        assert_eq!(order.get(order.seek(|index| index < chunks[2][0])), Some(chunks[3][0]));
    }

    proptest! {
        /// Beside a sorted list, through splits and joins.
        #[test]
        fn is_a_sorted_list(
            runs in prop::collection::vec((0u32..100, 1u32..60, 1u32..5, prop::bool::weighted(0.6)), 1..20),
            probes in prop::collection::vec((0u32..350, 0u32..350), 1..20),
        ) {
            let mut order = Order::default();
            let mut list: Vec<u32> = Vec::new();
            for (start, count, stride, inserts) in runs {
                for value in (0..count).map(|number| start + number * stride) {
                    let place = order.seek(|index| index < value);
                    match (list.binary_search(&value), inserts) {
                        (Err(at), true) => {
                            order.insert(place, value);
                            list.insert(at, value);
                        }
                        (Ok(at), false) => {
                            prop_assert_eq!(order.get(place), Some(value));
                            order.remove(place);
                            list.remove(at);
                        }
                        _ => {}
                    }
                }
                prop_assert_eq!(&all(&order), &list);
                prop_assert!(order.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK_MAX));
                let pairs = order.chunks.windows(2).map(|two| two[0].len() + two[1].len());
                prop_assert!(pairs.min().is_none_or(|least| least > CHUNK_MAX / 2));
            }
            for (one, two) in probes {
                let from = order.seek(|index| index < one.min(two));
                let place = order.seek_from(from, |index| index < one.max(two));
                let expected = list.get(list.partition_point(|value| *value < one.max(two))).copied();
                prop_assert_eq!(order.get(place), expected);
            }
        }
    }
}
