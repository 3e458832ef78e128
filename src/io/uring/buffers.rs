//! The ring of receive buffers that the kernel fills.
//!
//! Buffers of one size in one mapping, offered to the kernel through a second mapping that both sides see. Invariants:
//! - A buffer belongs either to the kernel or, between the completion that names it and `replenish`, to us; `filled`
//!   knows which, so that neither a stale nor a repeated id can touch memory that the kernel writes to.
//! - What is given back becomes visible to the kernel at `publish`, once per enter. Under DEFER_TASKRUN the kernel takes
//!   buffers only inside an enter, so nothing is gained by doing it earlier.
//! - The kernel writes to the buffers for a receive that is armed, and for nothing else. Receives are made and counted here, and
//!   while one is armed the memory is not unmapped. So it does not matter whether ring or buffers are dropped first.
//!
//! The kernel is offered a *window* of buffers, not all of them: it takes them in turn, so what it is offered is what it
//! touches, and a few that stay in the caches serve as well as thousands that do not. The window follows what turns
//! take: more than half of it in one turn doubles it at once, a long time with less than an eighth halves it. What is
//! above it has no memory.
#![allow(unsafe_code)] // Memory that is shared with the kernel.

use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;

use super::direct::Place;
use super::request::Request;
use crate::io::{Buffer, ReceiveMode};

/// The group that every receive takes its buffers from.
const GROUP: u16 = 0;
/// `filled` of a buffer that the kernel owns.
const KERNELS: u32 = u32::MAX;
/// `filled` of one that nobody uses.
const FREE: u32 = u32::MAX - 1;
/// The smallest window.
const WINDOW_MIN: u16 = 64;
/// Turns over which a window has to be too large before it is halved.
const PERIOD: u16 = 1024;
/// Buffers whose memory is given back in one turn.
const TRIM_MAX: usize = 16;

/// `struct io_uring_buf`: a buffer as it is offered.
#[repr(C)]
struct Entry {
    address: u64,
    len: u32,
    id: u16,
    /// In the first entry the ring's tail, which the kernel reads at any time.
    tail: AtomicU16,
}

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
        // SAFETY: mapped in `new` with this length, and unmapped only here. `BufRing` does not drop a mapping that the kernel
        // may use.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// The receive buffers of one ring.
pub(super) struct BufRing {
    entries: ManuallyDrop<Mapping>,
    memory: ManuallyDrop<Mapping>,
    /// Receives whose last completion has not come.
    armed: usize,
    buffer_bytes: u32,
    mask: u16,
    tail: u16,
    /// By buffer: the bytes that the kernel put there, [`KERNELS`] or [`FREE`].
    filled: Box<[u32]>,
    /// Those that nobody uses. What was given back last is on top and is offered first.
    free: Vec<u16>,
    /// How many of them, from the bottom, have no memory behind them.
    cold: usize,
    /// Buffers that the kernel has.
    offered: u16,
    /// Buffers that the kernel has after [`BufRing::publish`].
    window: u16,
    /// Buffers taken since, and receives that ended for want of one.
    taken: u16,
    missed: u16,
    /// The most that a turn wanted in this period, and how many turns it has lasted.
    peak: u16,
    turns: u16,
}

impl BufRing {
    /// Maps and registers `count` buffers, a power of two up to 32,768, of `buffer_bytes` each.
    ///
    /// # Errors
    /// `ENOMEM`, and `EINVAL` from a kernel without buffer rings (before 5.19).
    pub fn new(submitter: &Submitter<'_>, count: u16, buffer_bytes: u32) -> io::Result<BufRing> {
        assert!(count.is_power_of_two() && count <= 1 << 15, "{count} buffers");
        assert!(buffer_bytes > 0 && buffer_bytes < FREE);
        let entries = Mapping::new(usize::from(count) * size_of::<Entry>())?;
        let memory = Mapping::new(usize::from(count) * buffer_bytes as usize)?;
        // SAFETY: `entries` is page-aligned and holds `count` entries. The kernel looks at them for a receive of this group, which
        // only `receive` makes, and while one is armed they are not unmapped; that it may also keep their pages is its own affair.
        unsafe {
            submitter.register_buf_ring_with_flags(entries.start.as_ptr() as u64, count, GROUP, 0)?;
        }
        let mut ring = BufRing {
            entries: ManuallyDrop::new(entries),
            memory: ManuallyDrop::new(memory),
            armed: 0,
            buffer_bytes,
            mask: count - 1,
            tail: 0,
            filled: vec![FREE; usize::from(count)].into_boxed_slice(),
            free: (0..count).rev().collect(),
            cold: usize::from(count),
            offered: 0,
            window: count.min(WINDOW_MIN),
            taken: 0,
            missed: 0,
            peak: 0,
            turns: 0,
        };
        ring.publish();
        Ok(ring)
    }

    /// A receive into these buffers, which is armed from now on.
    #[inline]
    pub fn receive(&mut self, place: Place, mode: ReceiveMode) -> Request {
        self.armed += 1;
        // SAFETY: the group is this one, and its mappings stay while `armed` counts the receive, which is until `ended`.
        unsafe { Request::receive(place, mode, GROUP, self.buffer_bytes) }
    }

    /// The last completion of a receive has come.
    #[inline]
    pub fn ended(&mut self) {
        assert!(self.armed > 0, "a receive ends that was never armed");
        self.armed -= 1;
    }

    /// Whether a receive may still write to the buffers.
    pub fn is_used(&self) -> bool {
        self.armed > 0
    }

    /// The kernel named buffer `id` in a completion, with `len` bytes in it: it is ours from now on.
    pub fn take(&mut self, id: u16, len: u32) -> Buffer {
        assert!(len <= self.buffer_bytes, "{len} bytes in a buffer of {}", self.buffer_bytes);
        let filled = &mut self.filled[usize::from(id)];
        assert_eq!(*filled, KERNELS, "the kernel filled buffer {id}, which it did not own");
        *filled = len;
        self.offered -= 1;
        self.taken += 1;
        Buffer { id, offset: 0, len }
    }

    /// The bytes of a buffer that is ours.
    pub fn bytes(&self, buffer: Buffer) -> &[u8] {
        let filled = self.filled[usize::from(buffer.id)];
        let end = buffer.offset.checked_add(buffer.len).expect("no buffer is that long");
        assert!(filled < FREE && end <= filled, "{buffer:?} of which {filled} bytes are ours");
        let start = usize::from(buffer.id) * self.buffer_bytes as usize + buffer.offset as usize;
        // SAFETY: in bounds of the mapping since `end <= filled <= buffer_bytes`; initialised, since a new mapping is
        // zero; and the kernel does not write to it before `replenish`, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr().add(start), buffer.len as usize) }
    }

    /// Gives a buffer back; the kernel may see it after [`BufRing::publish`].
    pub fn replenish(&mut self, id: u16) {
        let filled = &mut self.filled[usize::from(id)];
        assert!(*filled < FREE, "buffer {id} was given back twice");
        *filled = FREE;
        self.free.push(id);
    }

    /// A receive ended because the kernel had no buffer.
    pub fn ran_out(&mut self) {
        self.missed = self.missed.saturating_add(1);
    }

    fn give(&mut self, id: u16) {
        self.filled[usize::from(id)] = KERNELS;
        self.offered += 1;
        let start = self.memory.start.as_ptr().wrapping_add(usize::from(id) * self.buffer_bytes as usize);
        let entry = self.entry(self.tail & self.mask);
        // SAFETY: the entry is in bounds, since the mask is one less than their number, and aligned. The kernel does not read
        // these three fields: it reads entries between its head and the published tail, and no more entries than there are
        // buffers are ever between them. The fourth field is not touched: in the first entry the kernel may read it now, which
        // is why no reference to a whole entry is made.
        unsafe {
            (&raw mut (*entry).address).write(start as u64);
            (&raw mut (*entry).len).write(self.buffer_bytes);
            (&raw mut (*entry).id).write(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Where an entry is; the first one has the tail.
    #[inline]
    fn entry(&self, at: u16) -> *mut Entry {
        self.entries.start.as_ptr().cast::<Entry>().wrapping_add(usize::from(at))
    }

    /// Fills the window up, and shows the kernel what it was offered.
    pub fn publish(&mut self) {
        if self.taken > 0 || self.missed > 0 || self.tail == 0 {
            self.adapt();
            while self.offered < self.window
                && let Some(id) = self.free.pop()
            {
                self.give(id);
            }
            self.cold = self.cold.min(self.free.len());
            self.show();
        }
        self.trim();
    }

    /// Lets the window follow what is taken.
    fn adapt(&mut self) {
        let count = self.filled.len() as u16;
        let wanted = std::mem::take(&mut self.taken).saturating_add(std::mem::take(&mut self.missed));
        self.peak = self.peak.max(wanted);
        if wanted > self.window / 2 {
            self.window = wanted.min(count / 2).next_power_of_two().saturating_mul(2).min(count);
        }
        self.turns += 1;
        if self.turns == PERIOD {
            if self.peak < self.window / 8 {
                self.window = (self.window / 2).max(WINDOW_MIN.min(count));
            }
            (self.turns, self.peak) = (0, 0);
        }
    }

    /// Gives back the memory of some of the buffers that are not in the window, those that were used longest ago.
    fn trim(&mut self) {
        if self.offered < self.window {
            return; // All are in use, or about to be.
        }
        for _ in 0..TRIM_MAX {
            let Some(&id) = self.free.get(self.cold) else { return };
            self.cold += 1;
            let start = usize::from(id) * self.buffer_bytes as usize;
            // SAFETY: the buffer lies within the mapping and belongs to nobody: neither the kernel nor a completion
            // names it, and what it held is not looked at again. For a part of a page the kernel says EINVAL, and
            // nothing is given back.
            unsafe {
                let start = self.memory.start.as_ptr().add(start);
                libc::madvise(start.cast(), self.buffer_bytes as usize, libc::MADV_DONTNEED);
            }
        }
    }

    /// Shows the kernel everything that was given.
    fn show(&self) {
        // SAFETY: the first entry is in the mapping and aligned, and its tail is only used as an atomic: it is stored here, and
        // the kernel reads it with acquire.
        unsafe { (*self.entry(0)).tail.store(self.tail, Ordering::Release) };
    }
}

impl Drop for BufRing {
    /// Without a receive the kernel uses nothing of this. With one, it may write there for as long as the process runs.
    fn drop(&mut self) {
        if self.is_used() {
            return;
        }
        // SAFETY: dropped once, here, and not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.entries) };
        // SAFETY: the same is true of the buffers themselves.
        unsafe { ManuallyDrop::drop(&mut self.memory) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::super::ring::Ring;
    use super::*;

    /// A ring of its own, since buffers are registered with one.
    fn buffers(count: u16) -> (io_uring::IoUring, BufRing) {
        let ring = io_uring::IoUring::new(8).unwrap();
        let buffers = BufRing::new(&ring.submitter(), count, 4096).unwrap();
        (ring, buffers)
    }

    /// The kernel takes so many, in the order in which they were offered.
    fn turn(buffers: &mut BufRing, head: &mut u16, count: u16) {
        let ids: Vec<u16> = (0..count)
            .map(|_| {
                let at = *head & buffers.mask;
                *head = head.wrapping_add(1);
                // SAFETY: within the mapping of entries, which the kernel only reads.
                unsafe { (*buffers.entry(at)).id }
            })
            .collect();
        for id in &ids {
            buffers.take(*id, 1);
        }
        for id in ids {
            buffers.replenish(id);
        }
        buffers.publish();
    }

    fn with_memory(buffers: &BufRing) -> usize {
        buffers.filled.len() - buffers.cold
    }

    #[test]
    fn few_buffers_serve_many_turns() {
        let (_ring, mut buffers) = buffers(2048);
        let mut head = 0;
        for _ in 0..5000 {
            turn(&mut buffers, &mut head, 20);
        }
        assert_eq!((buffers.window, with_memory(&buffers)), (WINDOW_MIN, usize::from(WINDOW_MIN)));
    }

    #[test]
    fn the_window_follows_what_turns_take_both_ways() {
        let (_ring, mut buffers) = buffers(2048);
        let mut head = 0;
        turn(&mut buffers, &mut head, 64);
        assert_eq!(buffers.window, 128);
        // The kernel had 128; a thousand more were missed.
        (0..900).for_each(|_| buffers.ran_out());
        turn(&mut buffers, &mut head, 128);
        assert_eq!((buffers.window, buffers.offered), (2048, 2048));
        turn(&mut buffers, &mut head, 2048);
        assert_eq!((buffers.window, with_memory(&buffers)), (2048, 2048));
        for _ in 0..8 * u32::from(PERIOD) {
            turn(&mut buffers, &mut head, 3);
        }
        assert_eq!((buffers.window, with_memory(&buffers)), (WINDOW_MIN, usize::from(WINDOW_MIN)));
    }

    #[test]
    #[should_panic(expected = "given back twice")]
    fn a_buffer_is_given_back_once() {
        let (_ring, mut buffers) = buffers(64);
        buffers.publish();
        buffers.take(0, 1);
        buffers.replenish(0);
        buffers.replenish(0);
    }
    #[test]
    fn memory_that_an_armed_receive_writes_to_outlives_the_buffers() {
        let mut ring = Ring::new(8, 16).unwrap();
        let mut buffers = BufRing::new(&ring.submitter(), 2, 64).unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let place = Place::Descriptor(ours.as_raw_fd());
        ring.push(buffers.receive(place, ReceiveMode::Once).user_data(7));
        let memory = buffers.memory.start;
        drop(buffers);
        theirs.write_all(b"late").unwrap();
        let mut cqes = Vec::new();
        for _ in 0..100 {
            ring.submit_and_wait(100);
            ring.reap(&mut cqes);
            if !cqes.is_empty() {
                break;
            }
        }
        let [cqe] = cqes[..] else { panic!("{cqes:?}") };
        assert_eq!((cqe.user_data, cqe.result), (7, 4));
        let at = usize::from(io_uring::cqueue::buffer_select(cqe.flags).unwrap()) * 64;
        // SAFETY: the kernel has just written four bytes there, and what was armed at the drop is mapped for good.
        assert_eq!(unsafe { memory.add(at).cast::<[u8; 4]>().read() }, *b"late");
    }
}
