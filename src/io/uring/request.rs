//! A submission that may be queued by safe code.
//!
//! Invariant: a request has no pointers, or was made by an `unsafe` function whose caller promised that they stay valid until
//! the operation's last completion. So whoever has one can queue it, and nobody else can make one.
#![allow(unsafe_code)] // Some submissions have pointers.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use io_uring::{opcode, squeue, types};

use super::direct::Place;
use crate::io::ReceiveMode;

/// See the top of the file.
#[derive(Debug)]
pub(super) struct Request(squeue::Entry);

impl Request {
    /// Accepts connections until it is cancelled.
    pub fn accept(listener: BorrowedFd<'_>) -> Request {
        // No SOCK_NONBLOCK: the kernel would answer EAGAIN instead of waiting for data.
        let accept = opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd()));
        Request(accept.flags(libc::SOCK_CLOEXEC).build())
    }

    /// Receives into buffers of `group`, each of `buffer_bytes`.
    ///
    /// # Safety
    /// What is registered as `group` stays valid until the receive's last completion.
    // SAFETY: nothing is written to the buffers here; the kernel does, from the submission to the last completion.
    #[inline]
    pub unsafe fn receive(place: Place, mode: ReceiveMode, group: u16, buffer_bytes: u32) -> Request {
        on(place, |fd| match mode {
            ReceiveMode::Once => opcode::Recv::new(fd, std::ptr::null_mut(), buffer_bytes)
                .buf_group(group)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT),
            ReceiveMode::Many => opcode::RecvMulti::new(fd, group).build(),
        })
    }

    /// Receives `len` bytes at most, without waiting.
    ///
    /// # Safety
    /// `len` bytes from `into` on may be written, and nobody else uses them, until the completion.
    // SAFETY: nothing is written through the pointer here; the kernel does, from the submission to the completion.
    pub unsafe fn receive_now(slot: u32, into: *mut u8, len: u32) -> Request {
        // With this flag it does not wait in the ring either.
        Request(opcode::Recv::new(types::Fixed(slot), into, len).flags(libc::MSG_DONTWAIT).build())
    }

    /// Sends `len` bytes.
    ///
    /// # Safety
    /// `len` bytes from `bytes` on stay valid and unchanged until the last completion; without one, until the kernel took the
    /// submission and ended it.
    // SAFETY: nothing is read through the pointer here; the kernel does, from the submission to the last completion.
    #[inline]
    pub unsafe fn send(place: Place, bytes: *const u8, len: u32, flags: libc::c_int) -> Request {
        on(place, |fd| opcode::Send::new(fd, bytes, len).flags(flags).build())
    }

    /// Sends what `header` points to.
    ///
    /// # Safety
    /// The header, its vectors and the bytes that they point to stay valid and unchanged until the last completion; without
    /// one, until the kernel took the submission and ended it.
    // SAFETY: nothing is read through the pointers here; the kernel does, from the submission to the last completion.
    #[inline]
    pub unsafe fn send_pieces(place: Place, header: *const libc::msghdr, flags: libc::c_int) -> Request {
        on(place, |fd| opcode::SendMsg::new(fd, header).flags(flags as u32).build())
    }

    /// Writes `len` bytes to a file at `at`; `flags` are RWF_DSYNC or none.
    ///
    /// # Safety
    /// `len` bytes from `bytes` on stay valid and unchanged, and the descriptor open, until the last completion.
    // SAFETY: nothing is read through the pointer here; the kernel does, from the submission to the last completion.
    pub unsafe fn write(
        file: BorrowedFd<'_>,
        bytes: *const u8,
        len: u32,
        at: u64,
        flags: libc::c_int,
    ) -> Request {
        let write = opcode::Write::new(types::Fd(file.as_raw_fd()), bytes, len);
        Request(write.offset(at).rw_flags(flags).build())
    }

    /// Reads at most `len` bytes of a file at `at`.
    ///
    /// # Safety
    /// `len` bytes from `into` on may be written, nobody else uses them, and the descriptor stays open, until the last
    /// completion.
    // SAFETY: nothing is written through the pointer here; the kernel does, from the submission to the last completion.
    pub unsafe fn read(file: BorrowedFd<'_>, into: *mut u8, len: u32, at: u64) -> Request {
        Request(opcode::Read::new(types::Fd(file.as_raw_fd()), into, len).offset(at).build())
    }

    /// Cancels the operation with this `user_data`.
    pub fn cancel(user_data: u64) -> Request {
        Request(opcode::AsyncCancel::new(user_data).build())
    }

    /// Puts a completion with the `user_data` `arrives` into another ring. Has a completion here only if that failed.
    pub fn ring(fd: RawFd, arrives: u64) -> Request {
        let message = opcode::MsgRingData::new(types::Fd(fd), 0, arrives, None).build();
        Request(message.flags(squeue::Flags::SKIP_SUCCESS))
    }

    pub fn shutdown(place: Place, how: libc::c_int) -> Request {
        on(place, |fd| opcode::Shutdown::new(fd, how).build())
    }

    /// Makes a descriptor of what is in a slot.
    pub fn install(slot: u32) -> Request {
        Request(opcode::FixedFdInstall::new(types::Fixed(slot), 0).build())
    }

    #[cfg(test)]
    pub fn nothing() -> Request {
        Request(opcode::Nop::new().build())
    }

    /// What its completion bears.
    #[inline]
    pub fn user_data(self, user_data: u64) -> Request {
        Request(self.0.user_data(user_data))
    }

    /// Has a completion only if it fails.
    #[inline]
    pub fn quiet(self) -> Request {
        Request(self.0.flags(squeue::Flags::SKIP_SUCCESS))
    }

    /// Is not tried on the shard's own thread, which it would block: a worker of the kernel does it.
    pub fn elsewhere(self) -> Request {
        Request(self.0.flags(squeue::Flags::ASYNC))
    }

    #[inline]
    pub fn entry(&self) -> &squeue::Entry {
        &self.0
    }
}

/// An operation on a socket, wherever it is: `with` makes it for a descriptor or a place of that number.
#[inline]
fn on(place: Place, with: impl FnOnce(types::Fd) -> squeue::Entry) -> Request {
    Request(match place {
        Place::Descriptor(fd) => with(types::Fd(fd)),
        Place::Slot(slot) => with(types::Fd(slot as RawFd)).flags(squeue::Flags::FIXED_FILE),
    })
}
