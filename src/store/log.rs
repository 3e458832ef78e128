//! The log of one shard: records are appended, a commit at a time is on its way to the disk, and
//! what is there is known by number.
//!
//! At the end of a turn [`Log::seal`] makes a commit of what was appended, unless one is on its way:
//! so what was written before a crash is always a beginning of the log, and a commit that is not
//! whole can only be the last one. Nor does a busy shard seal more than once in [`PACE_MS`]: a flush
//! costs the same for one record and for a thousand.
//!
//! A write that fails is never tried again in its place, nor is what it left there believed: the
//! same records go into the next segment, whose first number says where the old one ends.

use std::collections::VecDeque;

use super::frame::{COMMIT_HEAD, COMMIT_MAX, CommitHead, SegmentHead, sectors};
use super::keeper::{Keeper, Stock};
use super::record::Record;
use super::{Origin, WallMillis};
use crate::clock::Millis;
use crate::io::File;
use crate::memory::{Aligned, SECTOR};

/// Milliseconds from commit to commit, at least, of a busy shard.
const PACE_MS: Millis = 1;
/// With so many bytes the next commit does not wait for the pace.
const HURRY_BYTES: usize = 64 * 1024;
/// With fewer who wait, two commits may begin in one millisecond: a lone client has the disk's own
/// time.
const HURRY_WAITERS: usize = 8;
/// Commits of a millisecond while few wait.
const COMMITS_IN_MS: u32 = 2;
/// Segments that a log fills at least between two walks.
const WALK_SEGMENTS: u64 = 2;
/// Bytes of the disk beyond the images that pay while the data directory is full.
const WALK_WHEN_FULL: u64 = 256 << 10;

/// One write that the log asks for.
#[derive(Debug)]
pub struct Write {
    pub file: File,
    pub at: u64,
    pub bytes: Aligned,
}

/// What a write that has ended means.
#[must_use]
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// One more commit is on disk.
    OnDisk,
    /// It failed; [`Log::seal`] gives the same records for another segment.
    Again,
    /// It failed again. What was acknowledged is on disk; nothing more will be.
    Broken(i32),
}

/// The segment that is written to.
#[derive(Debug)]
struct Open {
    stock: Stock,
    number: u32,
    /// Where the next commit goes.
    at: u64,
}

/// A segment that is full.
#[derive(Debug)]
struct Full {
    stock: Stock,
    /// The number of its last commit.
    last: u64,
}

/// A commit that is being written.
#[derive(Debug)]
struct InFlight {
    wall: WallMillis,
    /// Where its head begins: behind that of the segment, for the first one there.
    head_at: usize,
    len: usize,
    failed: bool,
}

/// The log of one shard.
#[derive(Debug)]
pub struct Log {
    origin: Origin,
    keeper: Keeper,
    /// Records of the next commit, behind room for its head.
    pending: Vec<u8>,
    /// The number of the next commit.
    next: u64,
    on_disk: u64,
    in_flight: Option<InFlight>,
    /// A commit whose write failed, to be written elsewhere.
    failed: Option<(InFlight, Aligned)>,
    previous: u32,
    open: Option<Open>,
    /// Older ones first.
    full: VecDeque<Full>,
    segment_next: u32,
    sealed_at: Millis,
    sealed_in_ms: u32,
    /// Memory of the last write.
    spare: Aligned,
    /// Bytes appended since the run began.
    appended: u64,
    /// Bytes of the disk that were written since the last walk began, and how many bring about the next one.
    since_walk: u64,
    walk_bytes_min: u64,
    /// The commit in which the walk under way began; bytes appended until then.
    walk: Option<(u64, u64)>,
    /// The same of a complete one whose end is not on disk: where it began, and the commit with its
    /// end.
    walked: Option<(u64, u64)>,
    walk_bytes: u64,
    broken: bool,
    commits: u64,
    bytes_written: u64,
    walks: u64,
}

impl Log {
    pub fn new(origin: Origin, keeper: Keeper) -> Log {
        Log {
            origin,
            walk_bytes_min: WALK_SEGMENTS * keeper.segment_len(),
            keeper,
            pending: vec![0; COMMIT_HEAD],
            next: 1,
            on_disk: 0,
            in_flight: None,
            failed: None,
            previous: 0,
            open: None,
            full: VecDeque::new(),
            segment_next: 0,
            sealed_at: 0,
            sealed_in_ms: 0,
            spare: Aligned::default(),
            appended: 0,
            since_walk: 0,
            walk: None,
            walked: None,
            walk_bytes: 0,
            broken: false,
            commits: 0,
            bytes_written: 0,
            walks: 0,
        }
    }

    #[inline]
    pub fn append(&mut self, record: &Record<'_>) {
        let before = self.pending.len();
        record.encode(&mut self.pending);
        self.appended += (self.pending.len() - before) as u64;
    }

    /// Bytes appended so far: what has grown it is not on disk before [`Log::next_commit`] is.
    #[inline]
    pub fn appended(&self) -> u64 {
        self.appended
    }

    /// The records that were appended since [`Log::appended`] was `mark`, as long as no commit was sealed since.
    pub fn appended_since(&self, mark: u64) -> &[u8] {
        let fresh = (self.appended - mark) as usize;
        &self.pending[self.pending.len() - fresh..]
    }

    /// The commit that holds what was appended last; on disk already, if nothing waits.
    #[inline]
    pub fn last_commit(&self) -> u64 {
        if self.has_pending() { self.next } else { self.next - 1 }
    }

    /// The commit of what is appended next.
    #[inline]
    pub fn next_commit(&self) -> u64 {
        self.next
    }

    /// The commit up to which all are on disk.
    #[inline]
    pub fn on_disk(&self) -> u64 {
        self.on_disk
    }

    #[inline]
    fn has_pending(&self) -> bool {
        self.pending.len() > COMMIT_HEAD
    }

    /// Bytes that are not on disk.
    pub fn waiting_bytes(&self) -> usize {
        let in_flight = self.in_flight.as_ref().or(self.failed.as_ref().map(|(commit, _)| commit));
        self.pending.len() - COMMIT_HEAD + in_flight.map_or(0, |commit| commit.len)
    }

    /// Whether nothing waits and nothing is on its way.
    pub fn is_idle(&self) -> bool {
        !self.has_pending() && self.in_flight.is_none() && self.failed.is_none()
    }

    /// Whether a write is on its way.
    pub fn is_writing(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Commits on disk, and their bytes.
    pub fn written_total(&self) -> (u64, u64) {
        (self.commits, self.bytes_written)
    }

    /// Walks that are complete and on disk.
    pub fn walks_total(&self) -> u64 {
        self.walks
    }

    /// Segments in use.
    pub fn segments_len(&self) -> usize {
        self.full.len() + usize::from(self.open.is_some())
    }

    // ---- walks -------------------------------------------------------------------------------------------------------

    /// Whether the log has grown so much that a walk pays.
    pub fn is_walk_due(&self) -> bool {
        // One that is full walks as soon as that may free something.
        let least = match self.is_full() {
            true => WALK_WHEN_FULL + self.walk_bytes,
            false => self.walk_bytes_min + 2 * self.walk_bytes,
        };
        self.walk.is_none() && self.walked.is_none() && self.since_walk > least
    }

    /// Whether the data directory is full; see [`Keeper::is_full`].
    #[inline]
    pub fn is_full(&self) -> bool {
        self.keeper.is_full()
    }

    pub fn begin_walk(&mut self) {
        debug_assert!(self.walk.is_none());
        self.since_walk = 0;
        self.append(&Record::WalkBegins);
        self.walk = Some((self.next, self.appended));
    }

    pub fn end_walk(&mut self) {
        let Some((began, appended)) = self.walk.take() else { return };
        self.append(&Record::WalkEnds);
        self.walk_bytes = self.appended - appended;
        self.walked = Some((began, self.next));
    }

    /// Whether a walk is complete and on disk, and none is under way.
    pub fn is_walked(&self) -> bool {
        self.walk.is_none() && self.walked.is_none() && self.walk_bytes > 0
    }

    // ---- commits -----------------------------------------------------------------------------------------------------

    /// The next write, if there is something to write, none is on its way, and it is time. `waiters`
    /// is how many wait for it. `None` also where there is no segment for it yet.
    pub fn seal(&mut self, now: Millis, wall: WallMillis, waiters: usize) -> Option<Write> {
        if self.in_flight.is_some() || self.broken {
            return None;
        }
        if let Some((commit, bytes)) = self.failed.take() {
            return self.write_again(commit, bytes);
        }
        if !self.has_pending() || !self.is_time(now, waiters) {
            return None;
        }
        let len = self.pending.len();
        assert!(len <= COMMIT_MAX, "a turn appended {len} bytes");
        let begins_segment = !self.make_room(len)?;
        let head = self.head(wall);
        let open = self.open.as_mut()?;
        self.previous = head.seal(&mut self.pending);

        let mut bytes = std::mem::take(&mut self.spare);
        bytes.clear();
        let head_at = if begins_segment { SECTOR } else { 0 };
        if begins_segment {
            bytes.extend(
                &SegmentHead { origin: self.origin, segment: open.number, first: self.next }.encode(),
            );
        }
        bytes.extend(&self.pending);
        bytes.pad_to_sector();
        let at = open.at - head_at as u64;
        open.at += sectors(len) as u64;
        // A commit takes whole sectors, however little is in it.
        self.since_walk += sectors(len) as u64;
        self.in_flight = Some(InFlight { wall, head_at, len, failed: false });
        self.next += 1;
        self.pending.truncate(COMMIT_HEAD);
        self.pending.shrink_to(4 * HURRY_BYTES);
        Some(Write { file: open.stock.file.clone(), at, bytes })
    }

    /// Whether a commit would be sealed but for the pace: the shard must look again in a
    /// millisecond.
    pub fn waits(&self) -> bool {
        (self.has_pending() || self.failed.is_some()) && self.in_flight.is_none() && !self.broken
    }

    fn is_time(&mut self, now: Millis, waiters: usize) -> bool {
        if now >= self.sealed_at + PACE_MS {
            self.sealed_in_ms = 0;
        }
        let few = waiters < HURRY_WAITERS && self.sealed_in_ms < COMMITS_IN_MS;
        let is_time = self.sealed_in_ms == 0 || few || self.pending.len() >= HURRY_BYTES;
        if is_time {
            self.sealed_at = now;
            self.sealed_in_ms += 1;
        }
        is_time
    }

    /// The write that was asked for has ended; `bytes` come back.
    pub fn written(&mut self, bytes: Aligned, result: Result<(), i32>) -> Progress {
        let Some(commit) = self.in_flight.take() else {
            debug_assert!(false, "no write is on its way");
            return Progress::OnDisk;
        };
        match result {
            Ok(()) => {
                self.commits += 1;
                self.bytes_written += bytes.len() as u64;
                self.spare = bytes;
                self.on_disk = self.next - 1;
                if let Some((began, ended)) = self.walked
                    && ended <= self.on_disk
                {
                    self.walked = None;
                    self.walks += 1;
                    self.free_before(began);
                }
                Progress::OnDisk
            }
            Err(errno) if commit.failed => {
                self.broken = true;
                Progress::Broken(errno)
            }
            Err(_) => {
                self.failed = Some((InFlight { failed: true, ..commit }, bytes));
                Progress::Again
            }
        }
    }

    /// The commit whose write failed, for the begin of the next segment.
    fn write_again(&mut self, commit: InFlight, bytes: Aligned) -> Option<Write> {
        // The last commit that is good in this segment is the one before.
        self.close_segment(self.next - 2);
        if !self.open_segment(commit.len) {
            self.failed = Some((commit, bytes));
            return None;
        }
        let previous = u32::from_le_bytes(
            bytes.as_slice()[commit.head_at + 52..commit.head_at + 56].try_into().expect("four bytes"),
        );
        let open = self.open.as_mut()?;
        let number = self.next - 1;
        let head = CommitHead {
            origin: self.origin,
            segment: open.number,
            offset: SECTOR as u64,
            number,
            previous,
            wall: commit.wall,
        };
        let mut records = bytes.as_slice()[commit.head_at..commit.head_at + commit.len].to_vec();
        self.previous = head.seal(&mut records);
        let mut again = Aligned::with_capacity(SECTOR + sectors(commit.len));
        again.extend(&SegmentHead { origin: self.origin, segment: open.number, first: number }.encode());
        again.extend(&records);
        again.pad_to_sector();
        open.at = (SECTOR + sectors(commit.len)) as u64;
        self.in_flight = Some(InFlight { head_at: SECTOR, ..commit });
        Some(Write { file: open.stock.file.clone(), at: 0, bytes: again })
    }

    fn head(&self, wall: WallMillis) -> CommitHead {
        let (segment, offset) = self.open.as_ref().map_or((0, 0), |open| (open.number, open.at));
        CommitHead { origin: self.origin, segment, offset, number: self.next, previous: self.previous, wall }
    }

    // ---- segments ----------------------------------------------------------------------------------------------------

    /// Room for a commit of `len` bytes: in the open segment (true), or at the begin of another
    /// one. `None` if there is no other one yet.
    fn make_room(&mut self, len: usize) -> Option<bool> {
        if let Some(open) = &self.open {
            if open.at + sectors(len) as u64 <= open.stock.len {
                return Some(open.at > SECTOR as u64);
            }
            self.close_segment(self.next - 1);
        }
        self.open_segment(len).then_some(false)
    }

    fn close_segment(&mut self, last: u64) {
        if let Some(open) = self.open.take() {
            self.full.push_back(Full { stock: open.stock, last });
        }
    }

    fn open_segment(&mut self, len: usize) -> bool {
        let Some(stock) = self.keeper.take(self.origin.shard, (SECTOR + sectors(len)) as u64) else {
            return false;
        };
        let number = self.segment_next;
        self.segment_next += 1;
        self.open = Some(Open { stock, number, at: SECTOR as u64 });
        true
    }

    /// Segments whose commits are all older than `commit` are free.
    fn free_before(&mut self, commit: u64) {
        while self.full.front().is_some_and(|full| full.last < commit) {
            if let Some(full) = self.full.pop_front() {
                self.keeper.give_back(self.origin.shard, full.stock);
            }
        }
    }
}
