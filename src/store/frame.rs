//! Commits and segments as bytes: heads and checksums.
//!
//! A commit begins at a sector and names its place: store, run, shard, segment, offset, number, and
//! the checksum of the commit before it. So what an earlier use of the segment left behind a commit
//! is never taken for the next one. The first sector of a segment says what segment it is; it is
//! written together with the first commit.

use super::WallMillis;
use crate::memory::SECTOR;

/// Bytes in front of the records of a commit.
pub(super) const COMMIT_HEAD: usize = 64;

/// Bytes of a commit at most, its head included.
pub(super) const COMMIT_MAX: usize = 1 << 30;

/// What the files are, and in which form. The last digit of the format is in the magic number too.
const MAGIC: [u8; 8] = *b"ringmqlg";
const FORMAT: u32 = 1;

/// Whose log it is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// A random number of the data directory.
    pub store: u64,
    /// Grows with each start.
    pub run: u32,
    pub shard: u16,
}

/// The head of a segment.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentHead {
    pub origin: Origin,
    /// Grows by one from segment to segment of a log.
    pub segment: u32,
    /// The number of its first commit.
    pub first: u64,
}

impl SegmentHead {
    /// One sector.
    pub fn encode(&self) -> [u8; SECTOR] {
        let mut sector = [0; SECTOR];
        sector[..8].copy_from_slice(&MAGIC);
        sector[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        sector[12..16].copy_from_slice(&self.origin.run.to_le_bytes());
        sector[16..24].copy_from_slice(&self.origin.store.to_le_bytes());
        sector[24..28].copy_from_slice(&u32::from(self.origin.shard).to_le_bytes());
        sector[28..32].copy_from_slice(&self.segment.to_le_bytes());
        sector[32..40].copy_from_slice(&self.first.to_le_bytes());
        let crc = crc32fast::hash(&sector[..40]);
        sector[40..44].copy_from_slice(&crc.to_le_bytes());
        sector
    }

    /// `None` if `sector` is no head of a segment in this format.
    pub fn decode(sector: &[u8]) -> Option<SegmentHead> {
        if sector.len() < 44 || sector[..8] != MAGIC || u32_at(sector, 8) != FORMAT {
            return None;
        }
        if crc32fast::hash(&sector[..40]) != u32_at(sector, 40) {
            return None;
        }
        let origin =
            Origin { store: u64_at(sector, 16), run: u32_at(sector, 12), shard: u32_at(sector, 24) as u16 };
        Some(SegmentHead { origin, segment: u32_at(sector, 28), first: u64_at(sector, 32) })
    }
}

/// The head of a commit.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct CommitHead {
    pub origin: Origin,
    pub segment: u32,
    /// Where it begins in its segment.
    pub offset: u64,
    /// Grows by one from commit to commit of a log.
    pub number: u64,
    /// The checksum of the commit before it; 0 for the first one of a run.
    pub previous: u32,
    pub wall: WallMillis,
}

impl CommitHead {
    /// Fills in the head of `commit`, which has its records behind [`COMMIT_HEAD`] bytes. Returns
    /// its checksum.
    pub fn seal(&self, commit: &mut [u8]) -> u32 {
        let len = commit.len() as u32; // at most COMMIT_MAX
        commit[4..8].copy_from_slice(&len.to_le_bytes());
        commit[8..12].copy_from_slice(&self.origin.run.to_le_bytes());
        commit[12..16].copy_from_slice(&u32::from(self.origin.shard).to_le_bytes());
        commit[16..24].copy_from_slice(&self.origin.store.to_le_bytes());
        commit[24..32].copy_from_slice(&self.offset.to_le_bytes());
        commit[32..40].copy_from_slice(&self.number.to_le_bytes());
        commit[40..48].copy_from_slice(&self.wall.to_le_bytes());
        commit[48..52].copy_from_slice(&self.segment.to_le_bytes());
        commit[52..56].copy_from_slice(&self.previous.to_le_bytes());
        commit[56..64].copy_from_slice(&[0; 8]);
        let crc = crc32fast::hash(&commit[4..]);
        commit[..4].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// What the head at the front of `bytes` says, and the length of the commit. `None` if it is
    /// none.
    pub fn peek(bytes: &[u8]) -> Option<(CommitHead, usize)> {
        if bytes.len() < COMMIT_HEAD {
            return None;
        }
        let len = u32_at(bytes, 4) as usize;
        if !(COMMIT_HEAD..=COMMIT_MAX).contains(&len) {
            return None;
        }
        let origin =
            Origin { store: u64_at(bytes, 16), run: u32_at(bytes, 8), shard: u32_at(bytes, 12) as u16 };
        let head = CommitHead {
            origin,
            segment: u32_at(bytes, 48),
            offset: u64_at(bytes, 24),
            number: u64_at(bytes, 32),
            previous: u32_at(bytes, 52),
            wall: u64_at(bytes, 40),
        };
        Some((head, len))
    }

    /// The checksum of a whole commit, if it is right.
    pub fn check(commit: &[u8]) -> Option<u32> {
        let crc = u32_at(commit, 0);
        (crc32fast::hash(&commit[4..]) == crc).then_some(crc)
    }
}

/// `len` rounded up to whole sectors.
pub(super) fn sectors(len: usize) -> usize {
    len.next_multiple_of(SECTOR)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
