//! Sockets in the ring's own table instead of the process's: they count against no limit of descriptors.
//!
//! A connection is accepted, read and handed over as a process descriptor, which is a number that any thread may use. Once
//! it is at home for good, [`Direct::settle`] moves it to the table of that shard's ring, and the descriptor is closed. The
//! soft limit of descriptors bounds each table, not all of them together. Where the table is full a socket stays what it
//! is. What has no operation of the ring that ends at once (a shutdown) is done through a descriptor that lives for the
//! length of that call.

use std::os::fd::{AsRawFd, RawFd};

use io_uring::Submitter;

use crate::io::Socket;
use crate::memory::ShardId;

/// The places of one ring's table.
#[derive(Debug)]
pub(super) struct Direct {
    /// The shard of the ring, in the names of what is there.
    shard: ShardId,
    /// The one that was emptied last on top.
    free: Vec<u32>,
}

/// How operations of the ring name a socket.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Descriptor(RawFd),
    Slot(u32),
}

impl Direct {
    /// Registers a table of `places`; none for 0.
    ///
    /// # Errors
    /// `EMFILE` for more than the soft limit of descriptors, `ENOMEM`.
    pub fn new(submitter: &Submitter<'_>, shard: ShardId, places: u32) -> std::io::Result<Direct> {
        if places > 0 {
            submitter.register_files_sparse(places)?;
        }
        Ok(Direct { shard, free: (0..places).rev().collect() })
    }

    /// Where a socket is, which is a descriptor or in this table.
    #[inline]
    pub fn place(&self, socket: &Socket) -> Place {
        match socket.slot(self.shard) {
            None => Place::Descriptor(socket.descriptor().as_raw_fd()),
            Some(slot) => Place::Slot(slot),
        }
    }

    /// Moves a descriptor to the table and closes it; the socket has the name of its place from then on. False, and nothing
    /// changed, where it is in the table already, there is no place, or the kernel has no memory for it.
    pub fn settle(&mut self, submitter: &Submitter<'_>, socket: &mut Socket) -> bool {
        if socket.slot(self.shard).is_some() {
            return false;
        }
        let Some(slot) = self.free.pop() else { return false };
        match submitter.register_files_update(slot, &[socket.descriptor().as_raw_fd()]) {
            Ok(1) => {
                let descriptor = std::mem::replace(socket, Socket::in_table(self.shard, slot));
                drop(descriptor.into_descriptor());
                true
            }
            Ok(_) | Err(_) => {
                self.free.push(slot);
                false
            }
        }
    }

    /// Empties a place: closes the socket in it.
    pub fn close(&mut self, submitter: &Submitter<'_>, slot: u32) {
        debug_assert!(!self.free.contains(&slot), "slot {slot} is closed already");
        // Emptying takes no memory and no descriptor. Should it fail, the place is not used again.
        if submitter.register_files_update(slot, &[-1]).is_ok() {
            self.free.push(slot);
        }
    }
}
