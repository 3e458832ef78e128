//! The files of one log to the state that its shard had.
//!
//! All good commits are read in their order. Where numbers are missing between two of them, the log
//! is in parts. If the last part has a complete walk, nothing from before it is needed: segments
//! that are used again make such gaps. If it has none, commits are lost: that is damage. Then
//! everything that is intact is applied, as far as it goes, and the report says what is missing.
//!
//! What follows the last good commit was not answered for: it is cut, and it is no damage. A commit
//! that is not whole with a good one of the same log behind it is damage, since one write is on its
//! way at a time.

use std::io;

use super::frame::{COMMIT_HEAD, CommitHead, SegmentHead, sectors};
use super::keeper::directory;
use super::record::{Damaged, Record};
use super::{Origin, State, WallClock, WallMillis};
use crate::io::{File, Files};
use crate::memory::{Aligned, SECTOR};

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// What was read, in words and numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub segments: u32,
    pub commits: u64,
    pub records: u64,
    pub bytes: u64,
    /// The wall clock of the newest commit.
    pub newest: WallMillis,
    /// Bytes of a commit that was being written when the broker ended.
    pub torn_bytes: u64,
    /// What is damaged, one sentence each.
    pub damage: Vec<String>,
    /// The broker stopped in order.
    pub stopped: bool,
}

/// A log that was read.
#[derive(Debug)]
pub struct Found {
    pub state: State,
    pub report: Report,
    /// The files of the log.
    pub segments: Vec<String>,
    /// Files of other runs, and of no run at all.
    pub others: Vec<String>,
}

/// One segment of the log.
struct Segment {
    path: String,
    file: File,
    head: SegmentHead,
    len: u64,
}

/// A good commit, or what is in its place.
enum Step<'a> {
    Commit {
        head: CommitHead,
        /// Its checksum.
        crc: u32,
        records: &'a [u8],
    },
    /// Bytes that are no commit, with a good one somewhere behind them in the segment.
    Bad { at: u64, bytes: u64 },
    /// Bytes that are no commit, up to the end of what was written.
    Torn { bytes: u64 },
}

/// Reads the log of `origin` below the root of `files`.
///
/// # Errors
/// The directory or a file cannot be read at all.
pub fn recover(files: &dyn Files, origin: Origin, clock: WallClock) -> io::Result<Found> {
    let (segments, others) = segments(files, origin)?;
    let mut report = Report { segments: segments.len() as u32, ..Report::default() };
    let mut state = State::new(clock);
    let mut bad = Vec::new();
    let is_whole = read(files, &segments, &mut state, &mut report, &mut bad, Gap::BeginsAnew)?;
    if !is_whole {
        state = State::new(clock);
        report = Report { segments: report.segments, ..Report::default() };
        bad.clear();
        read(files, &segments, &mut state, &mut report, &mut bad, Gap::GoesOn)?;
        if !state.is_complete() {
            let (directory, run) = (directory(origin.shard), origin.run);
            bad.push(format!("{directory}: no complete image of what was kept is in the log of run {run}"));
        }
        report.damage = bad;
    }
    report.stopped = state.stopped;
    let segments = segments.into_iter().map(|segment| segment.path).collect();
    Ok(Found { state, report, segments, others })
}

/// Where a record stands.
#[derive(Copy, Clone, Debug)]
pub struct Seen<'a> {
    pub path: &'a str,
    pub segment: u32,
    pub commit: u64,
    pub wall: WallMillis,
}

/// What is done with each record, or with what is in the place of one.
pub type See<'a> = dyn FnMut(Seen<'_>, Result<&Record<'_>, Damaged>) -> io::Result<()> + 'a;

/// Shows all records of the log of `origin` in their order, as far as they can be read, whether
/// anything is needed of them or not.
///
/// # Errors
/// The directory or a file cannot be read at all, or `see` fails.
pub fn visit(files: &dyn Files, origin: Origin, see: &mut See<'_>) -> io::Result<()> {
    let (segments, _) = segments(files, origin)?;
    for (at, one) in segments.iter().enumerate() {
        let cut = segments.get(at + 1).map_or(u64::MAX, |next| next.head.first);
        let mut reader = Reader::new(files, one);
        while let Some(step) = reader.next()? {
            let Step::Commit { head: CommitHead { number, wall, .. }, mut records, .. } = step else {
                continue;
            };
            let seen = Seen { path: &one.path, segment: one.head.segment, commit: number, wall };
            while !records.is_empty() && number < cut {
                match Record::decode(records) {
                    Ok((record, rest)) => {
                        see(seen, Ok(&record))?;
                        records = rest;
                    }
                    Err(damaged) => {
                        see(seen, Err(damaged))?;
                        break;
                    }
                }
            }
        }
    }
    Ok(())
}

/// A segment, by what its first sector says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub path: String,
    pub origin: Origin,
    /// Its place in the order of its log.
    pub segment: u32,
    /// Bytes of the file.
    pub len: u64,
}

/// The segments in one directory of a shard, of whatever run; files that are none are left out.
///
/// # Errors
/// The directory or a file cannot be read.
pub fn heads(files: &dyn Files, directory: &str) -> io::Result<Vec<Head>> {
    let mut heads = Vec::new();
    for name in files.list(directory)?.iter().filter(|name| name.ends_with(".log")) {
        let path = format!("{directory}/{name}");
        match head(files, &path) {
            Ok(head) => heads.extend(head),
            // A broker that uses the directory has removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    heads.sort_by_key(|head| (head.origin.run, head.segment));
    Ok(heads)
}

/// One segment; `None` if the file is none.
///
/// # Errors
/// The file cannot be read.
pub fn head(files: &dyn Files, path: &str) -> io::Result<Option<Head>> {
    let (_, len, head) = open(files, path)?;
    Ok(head.map(|head| Head { path: path.to_owned(), origin: head.origin, segment: head.segment, len }))
}

/// Opens a file and reads what it is.
fn open(files: &dyn Files, path: &str) -> io::Result<(File, u64, Option<SegmentHead>)> {
    let file = files.open(path)?;
    let len = files.len(&file)?;
    let mut sector = Aligned::default();
    if len >= SECTOR as u64 {
        files.read_at(&file, 0, &mut sector, SECTOR)?;
    }
    let head = SegmentHead::decode(sector.as_slice());
    Ok((file, len, head))
}

/// What to do where commits are missing.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Gap {
    BeginsAnew,
    GoesOn,
}

/// Applies all commits. Returns whether everything that was kept is known.
fn read(
    files: &dyn Files,
    segments: &[Segment],
    state: &mut State,
    report: &mut Report,
    bad: &mut Vec<String>,
    gap: Gap,
) -> io::Result<bool> {
    // The number and the checksum of the commit before.
    let mut last: Option<(u64, u32)> = None;
    let mut fits = true;
    for (at, segment) in segments.iter().enumerate() {
        let cut = segments.get(at + 1).map_or(u64::MAX, |next| next.head.first);
        let is_last = at + 1 == segments.len();
        let mut reader = Reader::new(files, segment);
        while let Some(step) = reader.next()? {
            match step {
                Step::Commit { head, .. } if head.number >= cut => {} // written again in the next segment
                Step::Commit { head: CommitHead { number, wall, previous, .. }, crc, records } => {
                    if let Some((last, last_crc)) = last
                        && (number, previous) != (last + 1, last_crc)
                    {
                        let path = &segment.path;
                        bad.push(match number == last + 1 {
                            true => format!("{path}: commit {number} does not follow the one before it"),
                            false => format!("{path}: commits {} to {} are missing", last + 1, number - 1),
                        });
                        if gap == Gap::BeginsAnew {
                            *state = State::new(state.clock());
                            fits = true;
                        } else {
                            state.expect_gap();
                        }
                    }
                    last = Some((number, crc));
                    report.commits += 1;
                    report.bytes += (COMMIT_HEAD + records.len()) as u64;
                    report.newest = report.newest.max(wall);
                    match state.apply_all(records) {
                        Ok(records) => report.records += records,
                        Err(_) => {
                            fits = false;
                            bad.push(format!(
                                "{}: a record of commit {number} does not fit to those before it",
                                segment.path
                            ));
                        }
                    }
                }
                Step::Bad { at, bytes } => {
                    bad.push(format!("{}: {bytes} bytes at {at} are not readable", segment.path));
                }
                Step::Torn { bytes } if is_last => report.torn_bytes = bytes,
                Step::Torn { .. } => {}
            }
        }
    }
    Ok(fits && state.is_complete())
}

/// The segments of a log, in order, and the other files of its directory.
fn segments(files: &dyn Files, origin: Origin) -> io::Result<(Vec<Segment>, Vec<String>)> {
    let mut segments = Vec::new();
    let mut others = Vec::new();
    for name in files.list(&directory(origin.shard))? {
        if !name.ends_with(".log") {
            continue;
        }
        let path = format!("{}/{name}", directory(origin.shard));
        let (file, len, head) = open(files, &path)?;
        match head {
            Some(head) if head.origin == origin => segments.push(Segment { path, file, head, len }),
            Some(_) | None => others.push(path),
        }
    }
    segments.sort_by_key(|segment| segment.head.segment);
    Ok((segments, others))
}

/// The commits of one segment, one after the other.
struct Reader<'a> {
    files: &'a dyn Files,
    segment: &'a Segment,
    /// What is looked at next.
    at: u64,
    /// The lowest number that the next commit may have.
    number: u64,
    piece: Aligned,
    piece_at: u64,
    is_over: bool,
}

impl<'a> Reader<'a> {
    fn new(files: &'a dyn Files, segment: &'a Segment) -> Reader<'a> {
        Reader {
            files,
            segment,
            at: SECTOR as u64,
            number: segment.head.first,
            piece: Aligned::default(),
            piece_at: 0,
            is_over: false,
        }
    }

    fn next(&mut self) -> io::Result<Option<Step<'_>>> {
        if self.is_over {
            return Ok(None);
        }
        if let Some((head, len, crc)) = self.commit_at(self.at)? {
            let from = (self.at - self.piece_at) as usize;
            self.at += sectors(len) as u64;
            self.number = head.number + 1;
            let records = &self.piece.as_slice()[from + COMMIT_HEAD..from + len];
            return Ok(Some(Step::Commit { head, crc, records }));
        }
        let bad_at = self.at;
        let (mut at, mut written_to) = (self.at, self.at);
        while at + SECTOR as u64 <= self.segment.len {
            if self.commit_at(at)?.is_some() {
                self.at = at;
                return Ok(Some(Step::Bad { at: bad_at, bytes: at - bad_at }));
            }
            if self.is_of_this_use(at) {
                written_to = at + SECTOR as u64;
            }
            at += SECTOR as u64;
        }
        self.is_over = true;
        let bytes = written_to - bad_at;
        Ok((bytes > 0).then_some(Step::Torn { bytes }))
    }

    /// The good commit that begins at `at`, if one does: its head, length and checksum; it is in the piece then.
    fn commit_at(&mut self, at: u64) -> io::Result<Option<(CommitHead, usize, u32)>> {
        if at + SECTOR as u64 > self.segment.len {
            return Ok(None);
        }
        self.load(at, SECTOR)?;
        let from = (at - self.piece_at) as usize;
        let Some((head, len)) = CommitHead::peek(&self.piece.as_slice()[from..]) else { return Ok(None) };
        let own = &self.segment.head;
        let fits = head.origin == own.origin
            && head.segment == own.segment
            && head.offset == at
            && head.number >= self.number
            && at + len as u64 <= self.segment.len;
        if !fits {
            return Ok(None);
        }
        self.load(at, sectors(len))?;
        let from = (at - self.piece_at) as usize;
        let commit = &self.piece.as_slice()[from..from + len];
        Ok(CommitHead::check(commit).map(|crc| (head, len, crc)))
    }

    /// Whether a commit of this use of the segment seems to begin at `at`.
    fn is_of_this_use(&self, at: u64) -> bool {
        let from = (at - self.piece_at) as usize;
        let head = CommitHead::peek(&self.piece.as_slice()[from..]);
        head.is_some_and(|(head, _)| head.offset == at && head.segment == self.segment.head.segment)
    }

    /// Makes the piece hold `len` bytes at `at`.
    fn load(&mut self, at: u64, len: usize) -> io::Result<()> {
        let end = self.piece_at + self.piece.len() as u64;
        if at >= self.piece_at && at + len as u64 <= end {
            return Ok(());
        }
        let left = (self.segment.len - at) as usize;
        self.files.read_at(&self.segment.file, at, &mut self.piece, len.max(PIECE).min(left))?;
        self.piece_at = at;
        if self.piece.len() < len {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        Ok(())
    }
}
