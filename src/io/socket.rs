//! A connected socket, whose name nobody but its backend can make.
//!
//! A name is worth what the socket is worth: who has it can read, write and close. So there are three ways to one, and none
//! of them takes a number for a socket of the kernel: from an owned descriptor, from the ring that has it in its table, and
//! [`Socket::imagined`], which the kernel's backends refuse.
#![allow(unsafe_code)] // A descriptor is kept as a number, so that nothing is closed behind the back of its operations.

use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use crate::memory::ShardId;

/// A connected socket. Its holder owns it; it moves between shards by value and must end in [`Io::close`](super::Io::close).
/// One that is dropped stays open to the end of the process: an operation of the kernel may still name it.
#[derive(Debug, PartialEq, Eq)]
pub struct Socket(Name);

#[derive(Debug, PartialEq, Eq)]
enum Name {
    /// Of the process; it belongs to this name alone.
    Descriptor(RawFd),
    /// A place in the table of a shard's ring.
    Slot(ShardId, u32),
    /// No socket of the kernel.
    Imagined(u32),
}

// It travels with each connection, and between shards.
const _: () = assert!(size_of::<Socket>() == 8);

impl Socket {
    /// A socket that no kernel knows, for an [`Io`](super::Io) which makes its own: a simulator, a bench. A backend of the
    /// kernel panics when it is given one.
    pub fn imagined(number: u32) -> Socket {
        Socket(Name::Imagined(number))
    }

    /// The number of one that was made by [`Socket::imagined`].
    ///
    /// # Panics
    /// For a socket of the kernel.
    #[inline]
    pub fn imagined_number(&self) -> u32 {
        match self.0 {
            Name::Imagined(number) => number,
            Name::Descriptor(_) | Name::Slot(..) => panic!("{self:?} is a socket of the kernel"),
        }
    }

    /// The socket in `slot` of the table that the ring of `shard` has.
    pub(super) fn in_table(shard: ShardId, slot: u32) -> Socket {
        Socket(Name::Slot(shard, slot))
    }

    /// Where it is in the table of `shard`'s ring; `None` for a descriptor.
    #[inline]
    pub(super) fn slot(&self, shard: ShardId) -> Option<u32> {
        match self.0 {
            Name::Descriptor(_) => None,
            Name::Slot(ring, slot) if ring == shard => Some(slot),
            Name::Slot(..) | Name::Imagined(_) => self.is_foreign(),
        }
    }

    /// Its descriptor. A socket in the table of a ring has none.
    #[inline]
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        match self.0 {
            // SAFETY: `from` took the descriptor from its owner, and only `into_descriptor`, which takes the name by value,
            // gives it back; so it is open while the name is borrowed.
            Name::Descriptor(fd) => unsafe { BorrowedFd::borrow_raw(fd) },
            Name::Slot(..) | Name::Imagined(_) => self.is_foreign(),
        }
    }

    /// Its descriptor, which is closed when it is dropped.
    pub(super) fn into_descriptor(self) -> OwnedFd {
        match self.0 {
            // SAFETY: `from` took the descriptor from its owner, and this name, the only one that it has, ends here.
            Name::Descriptor(fd) => unsafe { OwnedFd::from_raw_fd(fd) },
            Name::Slot(..) | Name::Imagined(_) => self.is_foreign(),
        }
    }

    #[cfg(test)]
    pub(super) fn has_descriptor(&self) -> bool {
        matches!(self.0, Name::Descriptor(_))
    }

    #[cold]
    fn is_foreign(&self) -> ! {
        panic!("{self:?} belongs to another backend, or to the ring of another shard")
    }
}

impl From<OwnedFd> for Socket {
    fn from(descriptor: OwnedFd) -> Socket {
        Socket(Name::Descriptor(descriptor.into_raw_fd()))
    }
}
