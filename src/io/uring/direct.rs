//! Sockets in the ring's own table instead of the process's: they count against no limit of descriptors.
//!
//! A connection is accepted, read and handed over as a process descriptor, which is a number that any thread may use. Once
//! it is at home for good, [`Direct::settle`] moves it to the table of that shard's ring, and the descriptor is closed. The
//! soft limit of descriptors bounds each table, not all of them together. Where the table is full a socket stays what it
//! is. What has no operation of the ring that ends at once (a shutdown) is done through a descriptor that lives for the
//! length of that call.

use io_uring::Submitter;

use crate::io::Socket;

/// Marks a [`Socket`] that is a place in the table; the place is in the lower 32 bits.
const DIRECT: u64 = 1 << 32;

/// The places of one ring's table.
#[derive(Debug, Default)]
pub(super) struct Direct {
    /// The one that was emptied last on top.
    free: Vec<u32>,
}

/// How operations of the ring name a socket.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Descriptor(i32),
    Slot(u32),
}

impl Place {
    pub fn of(socket: &Socket) -> Place {
        if socket.0 & DIRECT == 0 { Place::Descriptor(socket.0 as i32) } else { Place::Slot(socket.0 as u32) }
    }
}

impl Direct {
    /// Registers a table of `places`; none for 0.
    ///
    /// # Errors
    /// `EMFILE` for more than the soft limit of descriptors, `ENOMEM`.
    pub fn new(submitter: &Submitter<'_>, places: u32) -> std::io::Result<Direct> {
        if places > 0 {
            submitter.register_files_sparse(places)?;
        }
        Ok(Direct { free: (0..places).rev().collect() })
    }

    /// Moves a descriptor to the table; the socket that it is there. The caller closes the descriptor. `None` where there is
    /// no place, or the kernel has no memory for it.
    pub fn settle(&mut self, submitter: &Submitter<'_>, descriptor: i32) -> Option<Socket> {
        let slot = self.free.pop()?;
        match submitter.register_files_update(slot, &[descriptor]) {
            Ok(1) => Some(Socket(DIRECT | u64::from(slot))),
            Ok(_) | Err(_) => {
                self.free.push(slot);
                None
            }
        }
    }

    /// Empties a place: closes the socket in it.
    pub fn close(&mut self, submitter: &Submitter<'_>, slot: u32) {
        // Emptying takes no memory and no descriptor. Should it fail, the place is not used again.
        if submitter.register_files_update(slot, &[-1]).is_ok() {
            self.free.push(slot);
        }
    }
}
