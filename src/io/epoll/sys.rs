//! The system calls behind the epoll backend: an epoll instance, a doorbell, and sockets that operations wait for. Nothing
//! here knows what a completion is.
#![allow(unsafe_code)] // An operation outlives the borrow of its socket.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use socket2::SockRef;

use crate::io::Socket;

pub(super) const READ: u32 = EventFlags::IN.bits();
pub(super) const WRITE: u32 = EventFlags::OUT.bits();
/// Reported whether or not it was asked for.
pub(super) const BROKEN: u32 = EventFlags::ERR.union(EventFlags::HUP).bits();

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
    /// Of the last wait; its capacity is how many one wait reports at most.
    events: Vec<epoll::Event>,
}

impl Poll {
    pub fn new(events: usize) -> io::Result<Poll> {
        Ok(Poll { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(events) })
    }

    /// Registers, changes or removes `fd`.
    ///
    /// # Errors
    /// `ENOSPC` and `ENOMEM` where the kernel bounds what one user may watch.
    pub fn change(&self, change: Change, fd: impl AsFd, interest: u32, value: u64) -> io::Result<()> {
        let (interest, value) = (EventFlags::from_bits_retain(interest), EventData::new_u64(value));
        match change {
            Change::Add => epoll::add(&self.epoll, fd, value, interest)?,
            Change::Modify => epoll::modify(&self.epoll, fd, value, interest)?,
            Change::Remove => epoll::delete(&self.epoll, fd)?,
        }
        Ok(())
    }

    /// Waits for events, appended to `into`; a signal or the end of the time gives none.
    pub fn wait(&mut self, timeout_ms: u64, into: &mut Vec<Event>) {
        let timeout_ms = timeout_ms.min(i32::MAX as u64);
        let timeout =
            Timespec { tv_sec: (timeout_ms / 1000) as i64, tv_nsec: (timeout_ms % 1000 * 1_000_000) as _ };
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("epoll_wait: {error}"),
        }
        into.extend(self.events.iter().map(|event| {
            let epoll::Event { flags, data } = *event;
            Event { ready: flags.bits(), value: data.u64() }
        }));
    }
}

/// A doorbell: rings of any number of shards, heard once.
#[derive(Debug)]
pub(super) struct Bell(File);

impl Bell {
    pub fn new() -> io::Result<Bell> {
        Ok(Bell(File::from(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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

/// A socket that an operation waits for.
#[derive(Debug)]
pub(super) struct Awaited(RawFd);

impl Awaited {
    /// # Safety
    /// The socket is not closed while this exists.
    // SAFETY: the number alone does nothing; `with` uses it, while the socket is open.
    pub unsafe fn new(socket: &Socket) -> Awaited {
        Awaited(socket.descriptor().as_raw_fd())
    }

    /// The socket, to be used but not closed.
    pub fn with<R>(&self, use_it: impl FnOnce(&socket2::Socket) -> R) -> R {
        // SAFETY: open, since it was open when `new` borrowed the socket, whose caller promised that it is not closed meanwhile.
        let borrowed = unsafe { BorrowedFd::borrow_raw(self.0) };
        use_it(&SockRef::from(&borrowed))
    }
}
