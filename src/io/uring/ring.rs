//! The submission and completion queues of one io_uring, and the one system call that serves both.
//!
//! Knows no connection. Invariants:
//! - No submission is ever lost: what does not fit the queue is submitted at once, and what the kernel refuses to take
//!   for the moment waits, in order, in a backlog.
//! - Every enter asks for completions (GETEVENTS), since under DEFER_TASKRUN nothing completes otherwise, and every
//!   wait has a timeout.
//! - The ring belongs to the thread that made it (SINGLE_ISSUER); the type is not `Send`.
#![allow(unsafe_code)] // The system calls of io_uring, and the queues that are shared with the kernel.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::{IoUring, types};

use super::request::Request;

const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
/// A wait without a deadline still wakes this often; a shard takes an early wake-up for nothing.
const TIMEOUT_MS_MAX: u64 = 3_600_000;

/// What the kernel answered, copied out of the completion queue.
#[derive(Copy, Clone, Debug)]
pub(super) struct Cqe {
    pub user_data: u64,
    pub result: i32,
    pub flags: u32,
}

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct GetEvents {
    sigmask: u64,
    sigmask_size: u32,
    unused: u32,
    timespec: u64,
}

/// Operations of `io_uring_register` that take a [`RingFd`].
#[derive(Copy, Clone)]
#[repr(u32)]
enum RingFds {
    Register = 20,
    Unregister = 21,
}

/// `struct io_uring_rsrc_update`, as [`RingFds`] take it.
#[repr(C)]
struct RingFd {
    offset: u32,
    reserved: u32,
    fd: u64,
}

/// One io_uring.
pub(super) struct Ring {
    ring: IoUring,
    /// Slot of the ring's own descriptor in the table of this thread, which saves a lookup in each enter.
    registered: Option<u32>,
    backlog: VecDeque<Request>,
    enters: u64,
    /// SINGLE_ISSUER: another thread's submissions are refused.
    _not_send: PhantomData<*const ()>,
}

impl Ring {
    /// Sets a ring up; `sq_entries` and `cq_entries` are powers of two.
    ///
    /// # Errors
    /// What `io_uring_setup` says: `EINVAL` from a kernel without DEFER_TASKRUN (before 6.1), `EPERM` or `ENOSYS` where
    /// it is forbidden.
    pub fn new(sq_entries: u32, cq_entries: u32) -> io::Result<Ring> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(cq_entries)
            .build(sq_entries)?;
        let mut ring =
            Ring { ring, registered: None, backlog: VecDeque::new(), enters: 0, _not_send: PhantomData };
        let mut update = RingFd { offset: u32::MAX, reserved: 0, fd: ring.fd() as u64 };
        if ring.register(RingFds::Register, &mut update) == 1 {
            ring.registered = Some(update.offset);
        }
        Ok(ring)
    }

    pub fn fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }

    pub fn params(&self) -> &io_uring::Parameters {
        self.ring.params()
    }

    pub fn submitter(&self) -> io_uring::Submitter<'_> {
        self.ring.submitter()
    }

    /// Is the ring's descriptor registered?
    pub fn is_registered(&self) -> bool {
        self.registered.is_some()
    }

    /// Calls of `io_uring_enter` so far.
    pub fn enters(&self) -> u64 {
        self.enters
    }

    /// Queues a submission.
    pub fn push(&mut self, request: Request) {
        if !self.backlog.is_empty() {
            self.backlog.push_back(request);
        } else if !self.is_taken(&request) {
            self.submit();
            if !self.is_taken(&request) {
                self.backlog.push_back(request);
            }
        }
    }

    /// Whether the queue had room for it.
    #[inline]
    fn is_taken(&mut self, request: &Request) -> bool {
        // SAFETY: a request has no pointers, or whoever made it promised that they stay valid until its last completion.
        unsafe { self.ring.submission().push(request.entry()) }.is_ok()
    }

    /// Submits all and waits for a completion; returns early for any reason.
    pub fn submit_and_wait(&mut self, timeout_ms: u64) {
        while !self.backlog.is_empty() && self.refill() {
            self.submit();
        }
        let (to_submit, pending) = {
            let queue = self.ring.submission();
            (queue.len() as u32, queue.taskrun() || queue.cq_overflow())
        };
        if timeout_ms == 0 || !self.backlog.is_empty() {
            if to_submit > 0 || pending || !self.backlog.is_empty() {
                self.enter(to_submit, 0, None);
            }
            return;
        }
        let timeout_ms = timeout_ms.min(TIMEOUT_MS_MAX);
        let timeout =
            types::Timespec::new().sec(timeout_ms / 1000).nsec((timeout_ms % 1000) as u32 * 1_000_000);
        self.enter(to_submit, 1, Some(timeout));
    }

    /// Whether the kernel has taken everything that was asked for, and all completions that this made were in the queue.
    pub fn is_submitted(&mut self) -> bool {
        let queue = self.ring.submission();
        self.backlog.is_empty() && queue.is_empty() && !queue.cq_overflow()
    }

    /// Takes everything that the completion queue holds, without a system call.
    pub fn reap(&mut self, into: &mut Vec<Cqe>) {
        into.extend(self.ring.completion().map(|cqe| Cqe {
            user_data: cqe.user_data(),
            result: cqe.result(),
            flags: cqe.flags(),
        }));
    }

    /// Cancels every operation and waits, for a second at most, until the kernel let go of them.
    pub fn cancel_all(&mut self) {
        self.submit_and_wait(0);
        let second = types::Timespec::new().sec(1);
        // ENOENT says that there was nothing, ETIME that something is left: the caller counts what came back.
        let _ = self.submitter().register_sync_cancel(Some(second), types::CancelBuilder::any());
        self.enter(0, 0, None);
    }

    /// Submits what the queue holds. Completions that this makes stay in the completion queue.
    fn submit(&mut self) {
        let to_submit = self.ring.submission().len() as u32;
        self.enter(to_submit, 0, None);
    }

    /// Moves the backlog's head to the queue; true if anything fitted.
    fn refill(&mut self) -> bool {
        let mut moved = false;
        while let Some(request) = self.backlog.pop_front() {
            if !self.is_taken(&request) {
                self.backlog.push_front(request);
                break;
            }
            moved = true;
        }
        moved
    }

    fn enter(&mut self, to_submit: u32, want: u32, timeout: Option<types::Timespec>) {
        let mut flags = ENTER_GETEVENTS;
        let fd = match self.registered {
            Some(index) => {
                flags |= ENTER_REGISTERED_RING;
                index as RawFd
            }
            None => self.fd(),
        };
        let arg = timeout.as_ref().map(|timespec| GetEvents {
            sigmask: 0,
            sigmask_size: 0,
            unused: 0,
            timespec: std::ptr::from_ref(timespec) as u64,
        });
        let (pointer, size) = match &arg {
            Some(arg) => {
                flags |= ENTER_EXT_ARG;
                (std::ptr::from_ref(arg), size_of::<GetEvents>())
            }
            None => (std::ptr::null(), 0),
        };
        self.enters += 1;
        // SAFETY: `pointer` is null or points to `arg`, of this `size`, whose timespec is in `timeout`; both outlive the call.
        // Only `is_taken` fills the queue, with requests, whose pointers stay valid until their last completion.
        let result =
            unsafe { libc::syscall(libc::SYS_io_uring_enter, fd, to_submit, want, flags, pointer, size) };
        if result >= 0 {
            return;
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // The time is up; a signal came; memory is short or completions must be reaped before more is taken. What
            // was not submitted is still in the queue and goes with the next enter.
            Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => {}
            _ => panic!("io_uring_enter failed in a way that leaves operations in doubt: {error}"),
        }
    }

    fn register(&self, operation: RingFds, update: &mut RingFd) -> i64 {
        let (operation, update) = (operation as u32, std::ptr::from_mut(update));
        // SAFETY: both operations read and write one RingFd, and `update` is one, borrowed until the call returns.
        unsafe { libc::syscall(libc::SYS_io_uring_register, self.fd(), operation, update, 1) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let Some(offset) = self.registered {
            // The table's reference would keep the ring alive until the thread ends.
            self.register(RingFds::Unregister, &mut RingFd { offset, reserved: 0, fd: 0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_does_not_take_at_once_follows_in_order() {
        const LATE: u64 = 40;
        let mut ring = Ring::new(4, 128).unwrap();
        let nop = |user_data| Request::nothing().user_data(user_data);
        // As if the kernel had been short of memory for a while.
        ring.backlog.extend((0..LATE).map(nop));
        for user_data in LATE..LATE + 10 {
            ring.push(nop(user_data));
        }
        let mut cqes = Vec::new();
        ring.submit_and_wait(0);
        ring.reap(&mut cqes);
        let order: Vec<u64> = cqes.iter().map(|cqe| cqe.user_data).collect();
        assert_eq!(order, (0..LATE + 10).collect::<Vec<_>>());
        assert!(ring.backlog.is_empty());
    }

    #[test]
    fn completions_beyond_the_queue_are_not_lost() {
        let mut ring = Ring::new(64, 64).unwrap();
        for user_data in 0..500 {
            ring.push(Request::nothing().user_data(user_data));
        }
        let mut cqes = Vec::new();
        for _ in 0..20 {
            // Never waits: the kernel's flag alone says that there is more.
            ring.submit_and_wait(0);
            ring.reap(&mut cqes);
        }
        let mut seen: Vec<u64> = cqes.iter().map(|cqe| cqe.user_data).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..500).collect::<Vec<_>>());
    }

    #[test]
    fn a_ring_that_ends_leaves_the_threads_table_of_rings() {
        // The table has 16 places.
        assert!((0..20).all(|_| Ring::new(4, 16).unwrap().is_registered()));
    }

    #[test]
    fn a_ring_with_nothing_to_do_makes_no_system_call() {
        let mut ring = Ring::new(4, 16).unwrap();
        let before = ring.enters();
        ring.submit_and_wait(0);
        assert_eq!(ring.enters(), before);
    }
}
