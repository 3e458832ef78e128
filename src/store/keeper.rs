//! Segments in stock: made ahead of time, taken by the log of a shard, given back by it.
//!
//! Making one writes all of it once, which takes a while: extents that were never written would cost
//! each flush a change of the file system's own records. So a thread does it, the *keeper*, and
//! keeps [`SPARE`] ready for each shard. A shard that finds none waits; it never makes one.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::io::{File, Files};
use crate::memory::ShardId;

/// Segments that are ready for each shard.
const SPARE: usize = 2;
/// With more that are ready, some are removed.
const SPARE_MAX: usize = 2 * SPARE;
/// After a failure the keeper tries again. As often it flushes, where writes do not.
const RETRY: Duration = Duration::from_secs(1);

/// A segment as a file.
#[derive(Clone, Debug)]
pub struct Stock {
    pub file: File,
    pub path: Box<str>,
    /// Bytes of the file.
    pub len: u64,
}

/// The directory of a shard's segments.
pub fn directory(shard: ShardId) -> String {
    format!("{shard:03}")
}

/// What is asked for and what is there, for one shard.
#[derive(Debug, Default)]
struct Shelf {
    ready: VecDeque<Stock>,
    /// Bytes of a larger one that is asked for.
    large: Option<u64>,
    /// How many files were made.
    made: u32,
    /// Segments that exist, in bytes.
    bytes: u64,
    /// Where writes flush nothing: the segment that is written to, behind those that were since the last flush.
    unflushed: Vec<File>,
}

#[derive(Debug, Default)]
struct Store {
    shelves: Vec<Shelf>,
    segment_len: u64,
    bytes_max: u64,
    /// Writes flush nothing: [`Keeper::flush`] does.
    flushes: bool,
    /// Why the last attempt to make one failed.
    failed: Option<io::ErrorKind>,
    stopping: bool,
}

impl Shelf {
    /// Bytes of segments that are not in stock.
    fn used(&self) -> u64 {
        self.bytes - self.ready.iter().map(|stock| stock.len).sum::<u64>()
    }
}

impl Store {
    /// Whether a shard has too few segments in stock, or too many.
    fn is_due(&self) -> bool {
        self.shelves.iter().any(|shelf| {
            let ready = shelf.ready.len();
            !(SPARE..=SPARE_MAX).contains(&ready) || shelf.large.is_some()
        })
    }
}

/// The stock of all shards. A clone is another name of it.
#[derive(Clone, Debug)]
pub struct Keeper(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Mutex<Store>,
    changed: Condvar,
    /// See [`Keeper::is_full`].
    is_full: AtomicBool,
}

impl Keeper {
    /// An empty stock for `shards` shards, of segments of `segment_len` bytes. With more than
    /// `bytes_max` in use it is full.
    pub fn new(shards: u16, segment_len: u64, bytes_max: u64) -> Keeper {
        let shelves = (0..shards).map(|_| Shelf::default()).collect();
        let store = Store { shelves, segment_len, bytes_max, ..Store::default() };
        let (changed, is_full) = (Condvar::new(), AtomicBool::new(false));
        Keeper(Arc::new(Shared { store: Mutex::new(store), changed, is_full }))
    }

    /// The same, for logs whose writes flush nothing: the thread flushes them once in [`RETRY`].
    #[must_use]
    pub fn flushing(self) -> Keeper {
        self.lock().flushes = true;
        self
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.0.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing more that is kept should be taken: the segments in use have all the bytes that they may, or no
    /// further one can be made. What is in stock is for acknowledgements, and for the images that make room again.
    pub fn is_full(&self) -> bool {
        self.0.is_full.load(Ordering::Relaxed)
    }

    /// Full at the bound, and no longer full with a tenth of it free.
    fn judge(&self, store: &Store) {
        let used: u64 = store.shelves.iter().map(Shelf::used).sum();
        let bound = if self.is_full() { store.bytes_max / 10 * 9 } else { store.bytes_max };
        self.0.is_full.store(used > bound || store.failed.is_some(), Ordering::Relaxed);
    }

    /// Bytes of a segment.
    pub fn segment_len(&self) -> u64 {
        self.lock().segment_len
    }

    /// A segment of `bytes` at least, for a shard. `None` if there is none yet.
    pub(super) fn take(&self, shard: ShardId, bytes: u64) -> Option<Stock> {
        let mut store = self.lock();
        let shelf = &mut store.shelves[usize::from(shard)];
        let at = shelf.ready.iter().position(|stock| stock.len >= bytes);
        if at.is_none() && !shelf.ready.is_empty() {
            shelf.large = Some(bytes);
        }
        let taken = at.and_then(|at| shelf.ready.remove(at));
        if store.flushes
            && let Some(taken) = &taken
        {
            store.shelves[usize::from(shard)].unflushed.push(taken.file.clone());
        }
        self.judge(&store);
        self.0.changed.notify_all();
        taken
    }

    /// A segment that nothing is needed of comes back.
    pub(super) fn give_back(&self, shard: ShardId, stock: Stock) {
        let mut store = self.lock();
        store.shelves[usize::from(shard)].ready.push_back(stock);
        self.judge(&store);
        drop(store);
        self.0.changed.notify_all();
    }

    /// Makes what is missing, and removes what is too much, until nothing is. The thread calls
    /// this, and so does a start.
    /// `prefix` is in the names of the files: those of two runs must not be the same.
    ///
    /// # Errors
    /// A segment cannot be made. What is there stays.
    pub fn fill(&self, files: &dyn Files, prefix: &str) -> io::Result<()> {
        while let Some(stock) = self.next_spare() {
            files.remove(&stock.path)?;
        }
        while let Some((shard, number, len)) = self.next_missing() {
            let path = format!("{}/{prefix}-{number:06}.log", directory(shard));
            let made = files.create(&path, len);
            let mut store = self.lock();
            store.failed = made.as_ref().err().map(io::Error::kind);
            self.judge(&store);
            let shelf = &mut store.shelves[usize::from(shard)];
            let file = made?;
            shelf.bytes += len;
            shelf.ready.push_back(Stock { file, path: path.into(), len });
            if shelf.large.is_some_and(|large| large <= len) {
                shelf.large = None;
            }
        }
        Ok(())
    }

    /// Flushes what was written to segments, if their writes do not. A log that is written to stays in the list.
    ///
    /// # Errors
    /// What the disk says. It cannot be relied on any more, so nothing more that is kept is taken.
    pub fn flush(&self, files: &dyn Files) -> io::Result<()> {
        let take = |shelf: &mut Shelf| {
            let last = shelf.unflushed.last().cloned();
            std::mem::replace(&mut shelf.unflushed, last.into_iter().collect())
        };
        let unflushed: Vec<File> = self.lock().shelves.iter_mut().flat_map(take).collect();
        let flushed = unflushed.iter().try_for_each(|file| files.sync(file));
        if let Err(error) = &flushed {
            let mut store = self.lock();
            store.failed = Some(error.kind());
            self.judge(&store);
        }
        flushed
    }

    /// One that is too much.
    fn next_spare(&self) -> Option<Stock> {
        let mut store = self.lock();
        let segment_len = store.segment_len;
        let shelf = store.shelves.iter_mut().find(|shelf| shelf.ready.len() > SPARE_MAX)?;
        let large = shelf.ready.iter().position(|stock| stock.len > segment_len);
        let stock = shelf.ready.remove(large.unwrap_or(0))?;
        shelf.bytes -= stock.len;
        Some(stock)
    }

    /// The next segment to make: its shard, the number of its file, its length.
    fn next_missing(&self) -> Option<(ShardId, u32, u64)> {
        let mut store = self.lock();
        let segment_len = store.segment_len;
        for (shard, shelf) in store.shelves.iter_mut().enumerate() {
            let len = match shelf.large {
                Some(large) => large.next_multiple_of(1 << 20),
                None if shelf.ready.len() < SPARE => segment_len,
                None => continue,
            };
            shelf.made += 1;
            return Some((shard as ShardId, shelf.made, len));
        }
        None
    }

    /// What the thread does until [`Keeper::stop`].
    pub fn run(&self, files: &dyn Files, prefix: &str) {
        let mut flushed_at = Instant::now();
        loop {
            let mut failed = self.fill(files, prefix).is_err();
            if flushed_at.elapsed() >= RETRY {
                flushed_at = Instant::now();
                failed |= self.flush(files).is_err();
            }
            let rests = |store: &mut Store| !store.stopping && (failed || !store.is_due());
            let (store, _) = self
                .0
                .changed
                .wait_timeout_while(self.lock(), RETRY, rests)
                .unwrap_or_else(PoisonError::into_inner);
            if store.stopping {
                return;
            }
        }
    }

    pub fn stop(&self) {
        self.lock().stopping = true;
        self.0.changed.notify_all();
    }

    /// Why the last segment could not be made, if that is so.
    pub fn failure(&self) -> Option<io::ErrorKind> {
        self.lock().failed
    }
}
