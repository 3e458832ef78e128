//! What one shard tells all others: a log that it writes once and that each of them reads when it is about to act.
//!
//! Nobody is woken for an announcement and nobody waits until it was read. Who acts upon something first takes it in, then
//! reads the logs ([`Announcements::read`]), then acts; so it knows every announcement that its sender could know of. A log
//! is a list of segments; a segment is freed when its last reader has left it.

use std::sync::{Arc, OnceLock};

use super::stamps::Stamps;
use crate::memory::{ShardId, ShardSet};

/// Announcements in one segment.
const SEGMENT: usize = 64;

#[derive(Debug)]
struct Segment<T> {
    entries: [OnceLock<Entry<T>>; SEGMENT],
    next: OnceLock<Arc<Segment<T>>>,
}

#[derive(Debug)]
struct Entry<T> {
    stamp: u64,
    item: T,
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
    fn get(&mut self) -> Option<&Entry<T>> {
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
    fn append(&mut self, entry: Entry<T>) {
        if self.at == SEGMENT {
            let next = Arc::clone(self.segment.next.get_or_init(Segment::new));
            (self.segment, self.at) = (next, 0);
        }
        let taken = self.segment.entries[self.at].set(entry);
        debug_assert!(taken.is_ok(), "a log has one writer");
        self.advance();
    }
}

/// One shard's log, and how far it has read those of the others.
#[derive(Debug)]
pub struct Announcements<T> {
    stamps: Arc<Stamps>,
    own: Place<T>,
    others: Vec<Option<Place<T>>>,
    /// The stamp up to which they were read.
    read_to: u64,
}

/// The logs of `shards` shards.
pub fn logs<T>(shards: u16) -> Vec<Announcements<T>> {
    let stamps = Arc::new(Stamps::default());
    let segments: Vec<_> = (0..shards).map(|_| Segment::new()).collect();
    let others = |here: usize| {
        segments.iter().enumerate().map(move |(at, log)| (at != here).then(|| Place::first(log)))
    };
    (0..usize::from(shards))
        .map(|here| Announcements {
            stamps: Arc::clone(&stamps),
            own: Place::first(&segments[here]),
            others: others(here).collect(),
            read_to: 0,
        })
        .collect()
}

impl<T> Announcements<T> {
    /// Tells all others. From when this returns, nobody acts upon anything sent by who knows of it without having read it.
    pub fn append(&mut self, item: T) {
        self.own.append(Entry { stamp: self.stamps.of_next(), item });
        self.stamps.publish();
    }

    /// Announcements ever appended here.
    pub fn appended(&self) -> u64 {
        self.own.count
    }

    /// Announcements of `from` that were read here.
    pub fn read_of(&self, from: ShardId) -> u64 {
        self.others[usize::from(from)].as_ref().map_or(0, |place| place.count)
    }

    /// The stamp of what leaves now.
    pub fn stamp(&self) -> u64 {
        self.stamps.of_leaving()
    }

    /// What there is to read now; no less than what could be known to the senders of what was taken in so far.
    pub fn published(&self) -> u64 {
        self.stamps.published()
    }

    /// Reads what the others announced with stamps up to `until`, which is all that could be known to the sender of something
    /// with that stamp. Returns the shards that had something to say.
    #[inline]
    pub fn read(&mut self, until: u64, heard: impl FnMut(ShardId, &T)) -> ShardSet {
        if until <= self.read_to { ShardSet::EMPTY } else { self.read_on(until, heard) }
    }

    fn read_on(&mut self, until: u64, mut heard: impl FnMut(ShardId, &T)) -> ShardSet {
        self.read_to = until;
        let mut from = ShardSet::EMPTY;
        for (at, place) in self.others.iter_mut().enumerate() {
            let Some(place) = place else { continue };
            while let Some(entry) = place.get()
                && entry.stamp <= until
            {
                heard(at as ShardId, &entry.item);
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

    fn read(log: &mut Announcements<u32>, until: u64) -> Vec<(ShardId, u32)> {
        let mut got = Vec::new();
        log.read(until, |from, item| got.push((from, *item)));
        got
    }

    fn read_all(log: &mut Announcements<u32>) -> Vec<(ShardId, u32)> {
        read(log, log.published())
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

    #[test]
    fn a_stamp_parts_what_came_before_from_what_came_after() {
        let mut all = logs::<u32>(3);
        all[0].append(1);
        let first = all[1].stamp();
        all[0].append(2);
        let second = all[1].stamp();
        all[0].append(3);
        assert_eq!(read(&mut all[2], first), [(0, 1)]);
        assert!(read(&mut all[2], first).is_empty());
        assert_eq!(read(&mut all[2], second), [(0, 2)]);
        assert_eq!(read_all(&mut all[2]), [(0, 3)]);
        assert!(read(&mut all[2], second).is_empty(), "an older parcel that comes late");
        all[0].append(4);
        let third = all[1].stamp();
        assert_eq!(read(&mut all[2], third), [(0, 4)]);
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
                let published = reader.published();
                reader.read(published, |_, _| {});
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
        let published = all[1].published();
        all[1].read(published, |_, _| {});
        assert_eq!(Arc::strong_count(&item), 1 + 10 * SEGMENT, "one shard has read nothing");
        all[2].read(published, |_, _| {});
        all[0].append(Arc::clone(&item));
        all[1].read(published + 1, |_, _| {});
        all[2].read(published + 1, |_, _| {});
        assert_eq!(Arc::strong_count(&item), 2);
    }

    #[test]
    fn a_log_that_nobody_read_ends_with_its_last_owner() {
        let (all, item) = full(2, 100);
        drop(all);
        assert_eq!(Arc::strong_count(&item), 1);
    }
}
