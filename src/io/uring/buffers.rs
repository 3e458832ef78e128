//! The ring of receive buffers that the kernel fills.
//!
//! Buffers of one size in one mapping, offered to the kernel through a second mapping that both sides see. Invariants:
//! - A buffer belongs either to the kernel or, between the completion that names it and `replenish`, to us; `filled`
//!   knows which, so that neither a stale nor a repeated id can touch memory that the kernel writes to.
//! - What is given back becomes visible to the kernel at `publish`, once per enter. Under DEFER_TASKRUN the kernel takes
//!   buffers only inside an enter, so nothing is gained by doing it earlier.
#![allow(unsafe_code)] // Memory that is shared with the kernel.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use crate::io::Buffer;

/// The group that every receive takes its buffers from.
pub(super) const GROUP: u16 = 0;
/// `filled` of a buffer that the kernel owns.
const KERNELS: u32 = u32::MAX;

/// An anonymous mapping.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Mapping> {
        // SAFETY: a new anonymous mapping at an address that the kernel chooses touches no memory that exists.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(Mapping { start, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.len == 0 {
            return; // Leaked.
        }
        // SAFETY: mapped in `new` with this length, and unmapped only here.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// The receive buffers of one ring.
pub(super) struct BufRing {
    entries: Mapping,
    memory: Mapping,
    buffer_bytes: u32,
    mask: u16,
    tail: u16,
    /// By buffer: the bytes that the kernel put there, or [`KERNELS`].
    filled: Box<[u32]>,
}

impl BufRing {
    /// Maps and registers `count` buffers, a power of two up to 32,768, of `buffer_bytes` each.
    ///
    /// # Errors
    /// `ENOMEM`, and `EINVAL` from a kernel without buffer rings (before 5.19).
    pub fn new(submitter: &Submitter<'_>, count: u16, buffer_bytes: u32) -> io::Result<BufRing> {
        assert!(count.is_power_of_two() && count <= 1 << 15, "{count} buffers");
        assert!(buffer_bytes > 0 && buffer_bytes < KERNELS);
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(count) * buffer_bytes as usize)?;
        // SAFETY: `entries` is page-aligned, holds `count` entries, and outlives the registration: `Uring` drops the
        // ring before its buffers, or leaks them.
        unsafe {
            submitter.register_buf_ring_with_flags(entries.start.as_ptr() as u64, count, GROUP, 0)?;
        }
        let filled = vec![0; usize::from(count)].into_boxed_slice();
        let mut ring = BufRing { entries, memory, buffer_bytes, mask: count - 1, tail: 0, filled };
        for id in 0..count {
            ring.give(id);
        }
        ring.publish();
        Ok(ring)
    }

    pub fn buffer_bytes(&self) -> u32 {
        self.buffer_bytes
    }

    /// The kernel named buffer `id` in a completion, with `len` bytes in it: it is ours from now on.
    pub fn take(&mut self, id: u16, len: u32) -> Buffer {
        assert!(len <= self.buffer_bytes, "{len} bytes in a buffer of {}", self.buffer_bytes);
        let filled = &mut self.filled[usize::from(id)];
        assert_eq!(*filled, KERNELS, "the kernel filled buffer {id}, which it did not own");
        *filled = len;
        Buffer { id, offset: 0, len }
    }

    /// The bytes of a buffer that is ours.
    pub fn bytes(&self, buffer: Buffer) -> &[u8] {
        let filled = self.filled[usize::from(buffer.id)];
        let end = buffer.offset.checked_add(buffer.len).expect("no buffer is that long");
        assert!(filled != KERNELS && end <= filled, "{buffer:?} of which {filled} bytes are ours");
        let start = usize::from(buffer.id) * self.buffer_bytes as usize + buffer.offset as usize;
        // SAFETY: in bounds of the mapping since `end <= filled <= buffer_bytes`; initialised, since a new mapping is
        // zero; and the kernel does not write to it before `replenish`, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr().add(start), buffer.len as usize) }
    }

    /// Gives a buffer back; the kernel sees it after [`BufRing::publish`].
    pub fn replenish(&mut self, id: u16) {
        assert_ne!(self.filled[usize::from(id)], KERNELS, "buffer {id} was given back twice");
        self.give(id);
    }

    fn give(&mut self, id: u16) {
        self.filled[usize::from(id)] = KERNELS;
        // SAFETY: the offset is in bounds of the mapping. The slot is one that the kernel does not read: it reads
        // between its head and the published tail, and no more entries than buffers are ever in the ring.
        unsafe {
            let address = self.memory.start.as_ptr().add(usize::from(id) * self.buffer_bytes as usize);
            let entry = &mut *self
                .entries
                .start
                .as_ptr()
                .cast::<BufRingEntry>()
                .add(usize::from(self.tail & self.mask));
            entry.set_addr(address as u64);
            entry.set_len(self.buffer_bytes);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Leaves the memory mapped for good.
    pub fn leak(&mut self) {
        self.memory.len = 0;
        self.entries.len = 0;
    }

    /// Shows the kernel everything that was given back.
    pub fn publish(&self) {
        // SAFETY: the tail lies in the reserved field of the first entry, is aligned, and is written only here; the
        // kernel reads it with acquire.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.start.as_ptr().cast());
            AtomicU16::from_ptr(tail.cast_mut()).store(self.tail, Ordering::Release);
        }
    }
}
