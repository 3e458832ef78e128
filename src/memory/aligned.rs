//! Bytes in memory that the kernel can hand to a disk as it is (O_DIRECT): the first byte lies at the begin of a sector.
//!
//! All of the memory is initialised at any time, so a view of it as bytes is always valid. Memory is never given back
//! before the buffer ends, so a buffer that is cleared and filled again allocates nothing.
#![allow(unsafe_code)] // Sectors seen as bytes.

use std::fmt;

/// What a disk writes at once, and the alignment that O_DIRECT asks for at most.
pub const SECTOR: usize = 4096;

#[derive(Copy, Clone)]
#[repr(C, align(4096))]
struct Sector([u8; SECTOR]);

const _: () = assert!(size_of::<Sector>() == SECTOR && align_of::<Sector>() == SECTOR);

/// A byte buffer that grows and whose memory is aligned to [`SECTOR`].
#[derive(Clone, Default)]
pub struct Aligned {
    sectors: Vec<Sector>,
    /// Bytes in use, of those that `sectors` has.
    len: usize,
}

impl Aligned {
    /// An empty buffer without memory.
    pub const fn new() -> Aligned {
        Aligned { sectors: Vec::new(), len: 0 }
    }

    /// An empty buffer with room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Aligned {
        let mut buffer = Aligned::new();
        buffer.reserve(bytes);
        buffer
    }

    /// Bytes in use.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that fit without another allocation.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.sectors.len() * SECTOR
    }

    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        debug_assert!(self.len <= self.capacity());
        // SAFETY: `sectors` holds `capacity` initialised bytes in one piece, of which `len` are in use (each method keeps
        // `len` at or below it), and they are borrowed with `self`.
        unsafe { std::slice::from_raw_parts(self.sectors.as_ptr().cast(), self.len) }
    }

    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        debug_assert!(self.len <= self.capacity());
        // SAFETY: as many bytes as `sectors` has are initialised and in one piece, `len` is not more, and `self` is borrowed
        // mutably. Any bytes make a valid sector.
        unsafe { std::slice::from_raw_parts_mut(self.sectors.as_mut_ptr().cast(), self.len) }
    }

    /// Appends bytes.
    #[inline]
    pub fn extend(&mut self, bytes: &[u8]) {
        let start = self.len;
        let end = start.checked_add(bytes.len()).expect("no buffer is that long");
        if end > self.capacity() {
            self.grow(end);
        }
        self.len = end;
        self.as_mut_slice()[start..].copy_from_slice(bytes);
    }

    /// Appends zeros up to the end of the sector that is begun.
    pub fn pad_to_sector(&mut self) {
        self.resize(self.len.next_multiple_of(SECTOR));
    }

    /// Makes it `len` bytes long; those that it grows by are zero.
    pub fn resize(&mut self, len: usize) {
        self.reserve(len.saturating_sub(self.len));
        let start = self.len.min(len);
        let old = std::mem::replace(&mut self.len, len);
        if old < len {
            self.as_mut_slice()[start..].fill(0);
        }
    }

    /// Shortens it to `len` bytes; does nothing if it is not longer.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Empties it; the memory stays.
    #[inline]
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Makes room for `bytes` more.
    pub fn reserve(&mut self, bytes: usize) {
        let needed = self.len.checked_add(bytes).expect("no buffer is that long");
        if needed > self.capacity() {
            self.grow(needed);
        }
    }

    /// To at least `needed` bytes, and at least twice of what it has, so that appending stays cheap.
    #[cold]
    fn grow(&mut self, needed: usize) {
        let sectors = needed.div_ceil(SECTOR).max(self.sectors.len() * 2);
        self.sectors.reserve_exact(sectors - self.sectors.len());
        self.sectors.resize(sectors, Sector([0; SECTOR]));
    }
}

impl fmt::Debug for Aligned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Aligned({} of {} bytes)", self.len, self.capacity())
    }
}

impl PartialEq for Aligned {
    fn eq(&self, other: &Aligned) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Aligned {}

impl From<&[u8]> for Aligned {
    fn from(bytes: &[u8]) -> Aligned {
        let mut buffer = Aligned::with_capacity(bytes.len());
        buffer.extend(bytes);
        buffer
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Act {
        Extend(Vec<u8>),
        Pad,
        Resize(usize),
        Truncate(usize),
        Clear,
        Write(u8),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            prop::collection::vec(1u8.., 0..9000).prop_map(Act::Extend),
            Just(Act::Pad),
            (0usize..20_000).prop_map(Act::Resize),
            (0usize..20_000).prop_map(Act::Truncate),
            Just(Act::Clear),
            (1u8..).prop_map(Act::Write),
        ]
    }

    proptest! {
        #[test]
        fn it_holds_what_a_vec_holds_and_stays_aligned(acts in prop::collection::vec(act(), 1..40)) {
            let (mut buffer, mut expected) = (Aligned::new(), Vec::new());
            for act in acts {
                match act {
                    Act::Extend(bytes) => {
                        buffer.extend(&bytes);
                        expected.extend_from_slice(&bytes);
                    }
                    Act::Pad => {
                        buffer.pad_to_sector();
                        expected.resize(expected.len().next_multiple_of(SECTOR), 0);
                    }
                    Act::Resize(len) => {
                        buffer.resize(len);
                        expected.resize(len, 0);
                    }
                    Act::Truncate(len) => {
                        buffer.truncate(len);
                        expected.truncate(len);
                    }
                    Act::Clear => {
                        buffer.clear();
                        expected.clear();
                    }
                    Act::Write(byte) => {
                        buffer.as_mut_slice().fill(byte);
                        expected.fill(byte);
                    }
                }
                prop_assert!(buffer.as_slice() == &expected[..]);
                prop_assert_eq!((buffer.len(), buffer.is_empty()), (expected.len(), expected.is_empty()));
                prop_assert!(buffer.capacity() >= buffer.len());
                prop_assert_eq!(buffer.as_slice().as_ptr().addr() % SECTOR, 0);
            }
        }
    }

    #[test]
    fn a_buffer_with_room_allocates_nothing_more() {
        let mut buffer = Aligned::with_capacity(3 * SECTOR - 1);
        assert_eq!((buffer.len(), buffer.capacity()), (0, 3 * SECTOR));
        let start = buffer.as_slice().as_ptr();
        for _ in 0..3 {
            buffer.extend(&[7; 2 * SECTOR + 1]);
            buffer.pad_to_sector();
            assert_eq!((buffer.len(), buffer.capacity()), (3 * SECTOR, 3 * SECTOR));
            buffer.clear();
        }
        assert_eq!(buffer.as_slice().as_ptr(), start);
        // What an earlier use left behind does not come back.
        buffer.resize(SECTOR);
        assert!(buffer.as_slice().iter().all(|byte| *byte == 0));
    }
}
