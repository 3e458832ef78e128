//! What one shard tells all others: a log that it writes once and that each of them reads when it is about to act.
//!
//! Nobody is woken for an announcement and nobody waits until it was read. Who acts upon something first takes it in, then
//! reads the logs ([`Announcements::read`]), then acts; so it knows every announcement that its sender could know of. A log
//! is a list of segments; a segment is freed when its last reader has left it.

use std::sync::{Arc, OnceLock};

use super::published::Published;
use crate::memory::{ShardId, ShardSet};

/// Announcements in one segment.
const SEGMENT: usize = 64;

#[derive(Debug)]
struct Segment<T> {
    entries: [OnceLock<T>; SEGMENT],
    next: OnceLock<Arc<Segment<T>>>,
}

impl<T> Segment<T> {
    fn new() -> Arc<Segment<T>> {
        Arc::new(Segment { entries: [const { OnceLock::new() }; SEGMENT], next: OnceLock::new() })
    }
}

/// A place in a log.
#[derive(Debug)]
struct Place<T> {
    segment: Arc<Segment<T>>,
    at: usize,
    /// Announcements before it.
    count: u64,
}

impl<T> Place<T> {
    fn first(segment: &Arc<Segment<T>>) -> Place<T> {
        Place { segment: Arc::clone(segment), at: 0, count: 0 }
    }

    /// The announcement here, if there is one yet.
    fn get(&mut self) -> Option<&T> {
        if self.at == SEGMENT {
            let next = Arc::clone(self.segment.next.get()?);
            (self.segment, self.at) = (next, 0);
        }
        self.segment.entries[self.at].get()
    }

    fn advance(&mut self) {
        self.at += 1;
        self.count += 1;
    }

    /// By the log's only writer, whose place is its end.
    fn append(&mut self, item: T) {
        if self.at == SEGMENT {
            let next = Arc::clone(self.segment.next.get_or_init(Segment::new));
            (self.segment, self.at) = (next, 0);
        }
        let taken = self.segment.entries[self.at].set(item);
        assert!(taken.is_ok(), "a log has one writer");
        self.advance();
    }
}

/// One shard's log, and how far it has read those of the others.
#[derive(Debug)]
pub struct Announcements<T> {
    published: Arc<Published>,
    own: Place<T>,
    others: Vec<Option<Place<T>>>,
    /// What was published when they were last read.
    read_to: u64,
}

/// The logs of `shards` shards.
pub fn logs<T>(shards: u16) -> Vec<Announcements<T>> {
    let published = Arc::new(Published::default());
    let segments: Vec<_> = (0..shards).map(|_| Segment::new()).collect();
    let others = |here: usize| {
        segments.iter().enumerate().map(move |(at, log)| (at != here).then(|| Place::first(log)))
    };
    (0..usize::from(shards))
        .map(|here| Announcements {
            published: Arc::clone(&published),
            own: Place::first(&segments[here]),
            others: others(here).collect(),
            read_to: 0,
        })
        .collect()
}

impl<T> Announcements<T> {
    /// Tells all others. From when this returns, nobody acts upon anything sent by who knows of it without having read it.
    pub fn append(&mut self, item: T) {
        self.own.append(item);
        self.published.add_one();
    }

    /// Announcements ever appended here.
    pub fn appended(&self) -> u64 {
        self.own.count
    }

    /// Announcements of `from` that were read here.
    pub fn read_of(&self, from: ShardId) -> u64 {
        self.others[usize::from(from)].as_ref().expect("a shard does not read its own log").count
    }

    /// Reads what the others announced, which is no less than what could be known to the senders of what was taken in so far.
    /// Returns the shards that had something to say.
    #[inline]
    pub fn read(&mut self, heard: impl FnMut(ShardId, &T)) -> ShardSet {
        let published = self.published.count();
        if published == self.read_to { ShardSet::EMPTY } else { self.read_on(published, heard) }
    }

    fn read_on(&mut self, published: u64, mut heard: impl FnMut(ShardId, &T)) -> ShardSet {
        self.read_to = published;
        let mut from = ShardSet::EMPTY;
        for (at, place) in self.others.iter_mut().enumerate() {
            let Some(place) = place else { continue };
            while let Some(item) = place.get() {
                heard(at as ShardId, item);
                from.insert(at as ShardId);
                place.advance();
            }
        }
        from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(log: &mut Announcements<u32>) -> Vec<(ShardId, u32)> {
        let mut got = Vec::new();
        log.read(|from, item| got.push((from, *item)));
        got
    }

    #[test]
    fn everybody_reads_everything_once_and_in_order() {
        let mut all = logs::<u32>(3);
        for item in 0..200 {
            all[0].append(item);
            all[2].append(1000 + item);
            if item % 7 == 0 {
                let got = read_all(&mut all[1]);
                assert!(got.iter().any(|(from, _)| *from == 2), "{got:?}");
            }
        }
        assert_eq!(all[0].appended(), 200);
        let late: Vec<_> = read_all(&mut all[2]);
        assert_eq!(late, (0..200).map(|item| (0, item)).collect::<Vec<_>>());
        assert_eq!(all[2].read_of(0), 200);
        let rest = read_all(&mut all[1]);
        assert_eq!(rest.first(), Some(&(0, 197)));
        assert_eq!(all[1].read_of(2), 200);
        assert!(read_all(&mut all[1]).is_empty());
    }

    /// The number of what is published is there to be read, always: who reads up to it does not look again.
    #[test]
    fn what_is_published_can_be_read() {
        const COUNT: u64 = 100_000;
        let mut all = logs::<u64>(2);
        let (mut reader, mut writer) = (all.pop().unwrap(), all.pop().unwrap());
        std::thread::scope(|threads| {
            threads.spawn(move || (0..COUNT).for_each(|item| writer.append(item)));
            while reader.read_of(0) < COUNT {
                let published = reader.published.count();
                reader.read(|_, _| {});
                assert!(reader.read_of(0) >= published, "{} of {published}", reader.read_of(0));
            }
        });
    }

    /// The logs of so many shards, and so many segments of the first one full of one item.
    fn full(shards: u16, segments: usize) -> (Vec<Announcements<Arc<()>>>, Arc<()>) {
        let (mut all, item) = (logs(shards), Arc::new(()));
        (0..segments * SEGMENT).for_each(|_| all[0].append(Arc::clone(&item)));
        (all, item)
    }

    #[test]
    fn segments_that_everybody_has_read_are_freed() {
        let (mut all, item) = full(3, 10);
        all[1].read(|_, _| {});
        assert_eq!(Arc::strong_count(&item), 1 + 10 * SEGMENT, "one shard has read nothing");
        all[2].read(|_, _| {});
        all[0].append(Arc::clone(&item));
        all[1].read(|_, _| {});
        all[2].read(|_, _| {});
        assert_eq!(Arc::strong_count(&item), 2);
    }

    #[test]
    fn a_log_that_nobody_read_ends_with_its_last_owner() {
        let (all, item) = full(2, 100);
        drop(all);
        assert_eq!(Arc::strong_count(&item), 1);
    }
}
