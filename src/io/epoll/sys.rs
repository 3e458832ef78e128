//! The system calls behind the epoll backend: an epoll instance, a doorbell, random numbers, and descriptors that
//! change hands as numbers. Nothing here knows what a completion is.
#![allow(unsafe_code)] // epoll, eventfd and getrandom have no safe interface in the standard library.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use socket2::SockRef;

use crate::io::Socket;

pub(super) const READ: u32 = libc::EPOLLIN as u32;
pub(super) const WRITE: u32 = libc::EPOLLOUT as u32;
/// Reported whether or not it was asked for.
pub(super) const BROKEN: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;

/// Something happened: what, and the value that was registered with the descriptor.
#[derive(Copy, Clone, Debug)]
pub(super) struct Event {
    pub ready: u32,
    pub value: u64,
}

/// How a registration changes.
#[derive(Copy, Clone, Debug)]
pub(super) enum Change {
    Add,
    Modify,
    Remove,
}

/// A level-triggered epoll instance.
pub(super) struct Poll {
    epoll: OwnedFd,
    /// Written by the kernel; how many events one wait reports at most.
    events: Box<[libc::epoll_event]>,
}

impl Poll {
    pub fn new(events: usize) -> io::Result<Poll> {
        // SAFETY: `epoll_create1` takes numbers only, and gives -1 or a new descriptor that nobody else owns.
        let epoll = unsafe { own_new(libc::epoll_create1(libc::EPOLL_CLOEXEC))? };
        Ok(Poll { epoll, events: vec![libc::epoll_event { events: 0, u64: 0 }; events].into() })
    }

    /// Registers, changes or removes `fd`.
    ///
    /// # Errors
    /// `ENOSPC` and `ENOMEM` where the kernel bounds what one user may watch.
    pub fn change(&self, change: Change, fd: RawFd, interest: u32, value: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest, u64: value };
        let operation = match change {
            Change::Add => libc::EPOLL_CTL_ADD,
            Change::Modify => libc::EPOLL_CTL_MOD,
            Change::Remove => libc::EPOLL_CTL_DEL,
        };
        // SAFETY: `event` is initialised, lives until the call returns, and is not kept by the kernel.
        let result = unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits for events, appended to `into`; a signal or the end of the time gives none.
    pub fn wait(&mut self, timeout_ms: u64, into: &mut Vec<Event>) {
        let timeout = i32::try_from(timeout_ms).unwrap_or(i32::MAX);
        // SAFETY: the kernel writes at most as many events as the slice holds.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len() as i32,
                timeout,
            )
        };
        let count = usize::try_from(count).unwrap_or_else(|_| {
            let error = io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::EINTR), "epoll_wait: {error}");
            0
        });
        into.extend(self.events[..count].iter().map(|event| Event { ready: event.events, value: event.u64 }));
    }
}

/// A doorbell: rings of any number of shards, heard once.
#[derive(Debug)]
pub(super) struct Bell(File);

impl Bell {
    pub fn new() -> io::Result<Bell> {
        // SAFETY: `eventfd` takes numbers only, and gives -1 or a new descriptor that nobody else owns.
        let fd = unsafe { own_new(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))? };
        Ok(Bell(File::from(fd)))
    }

    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub fn ring(&self) {
        // The only error is a counter that is full, and then it rings already.
        let _ = (&self.0).write(&1u64.to_ne_bytes());
    }

    /// True if it rang since the last time.
    pub fn silence(&self) -> bool {
        (&self.0).read(&mut [0; 8]).is_ok()
    }
}

/// Fills `words` with random bits.
pub(super) fn random(words: &mut [u64]) {
    assert!(size_of_val(words) <= 256, "longer requests may be cut short");
    // SAFETY: exactly the bytes of the slice are written.
    let count = unsafe { libc::getrandom(words.as_mut_ptr().cast(), size_of_val(words), 0) };
    assert_eq!(count, size_of_val(words) as isize, "getrandom: {}", io::Error::last_os_error());
}

pub(super) fn fd(socket: &Socket) -> RawFd {
    socket.0 as RawFd
}

/// The socket, to be used but not closed. `fd` is that of a [`Socket`] which somebody holds.
pub(super) fn with<R>(fd: RawFd, use_it: impl FnOnce(&socket2::Socket) -> R) -> R {
    // SAFETY: whoever holds a Socket owns its descriptor, and it is open until `close` takes the Socket. Operations in
    // flight name descriptors of such sockets alone, since a socket is closed only without any.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    use_it(&SockRef::from(&borrowed))
}

/// The descriptor itself, closed when it is dropped.
pub(super) fn own(socket: Socket) -> OwnedFd {
    // SAFETY: the socket came from an accept or a hand-off, is owned by whoever holds it, and ends here.
    unsafe { OwnedFd::from_raw_fd(fd(&socket)) }
}

/// # Safety
/// `fd` is negative, or open and owned by nobody else.
unsafe fn own_new(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is not negative, so it is open and owned by nobody else, as the caller promised.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
