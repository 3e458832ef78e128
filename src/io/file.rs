//! An opened file, as [`Io`](super::Io) and [`Files`](super::Files) name it.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::{Errno, ReadWriteFlags, pread, pwritev2, retry_on_intr};

use super::Sync;
use crate::memory::{Aligned, SECTOR};

/// An opened file. A clone is another name of the same file; the last one closes it.
#[derive(Clone, Debug)]
pub struct File(Arc<Opened>);

#[derive(Debug)]
enum Opened {
    Descriptor {
        descriptor: OwnedFd,
        is_direct: bool,
    },
    /// No file of the kernel.
    Imagined(u64),
}

impl File {
    /// A file of the kernel; `is_direct` says that it was opened with O_DIRECT.
    pub(super) fn new(descriptor: OwnedFd, is_direct: bool) -> File {
        File(Arc::new(Opened::Descriptor { descriptor, is_direct }))
    }

    /// A file that no kernel knows, for an [`Io`](super::Io) which makes its own: a simulator, a bench. A backend of the
    /// kernel panics when it is given one.
    pub fn imagined(number: u64) -> File {
        File(Arc::new(Opened::Imagined(number)))
    }

    /// The number of one that was made by [`File::imagined`].
    ///
    /// # Panics
    /// For a file of the kernel.
    pub fn imagined_number(&self) -> u64 {
        match &*self.0 {
            Opened::Imagined(number) => *number,
            Opened::Descriptor { .. } => panic!("{self:?} is a file of the kernel"),
        }
    }

    /// Whether reads and writes pass the page cache by (O_DIRECT). False where the file system refuses that.
    pub fn is_direct(&self) -> bool {
        match &*self.0 {
            Opened::Descriptor { is_direct, .. } => *is_direct,
            Opened::Imagined(_) => true,
        }
    }

    /// How many names of it there are.
    #[cfg(test)]
    pub(super) fn names(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// Its descriptor.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        match &*self.0 {
            Opened::Descriptor { descriptor, .. } => descriptor.as_fd(),
            Opened::Imagined(_) => panic!("{self:?} is no file of the kernel"),
        }
    }

    /// Reads `len` bytes in place of what `into` held, fewer at the end of the file; blocks.
    pub(super) fn read_at(&self, at: u64, into: &mut Aligned, len: usize) -> Result<(), Errno> {
        check(at, len);
        into.clear();
        into.resize(len);
        let mut done = 0;
        let result = loop {
            let bytes = &mut into.as_mut_slice()[done..];
            match retry_on_intr(|| pread(self.descriptor(), &mut *bytes, at + done as u64)) {
                Ok(0) => break Ok(()),
                Ok(count) => done += count,
                Err(error) => break Err(error),
            }
            if is_read(done, len) {
                break Ok(());
            }
        };
        into.truncate(done);
        result
    }

    /// Writes all of `bytes`; blocks.
    pub(super) fn write_at(&self, at: u64, bytes: &Aligned, sync: Sync) -> Result<(), Errno> {
        check(at, bytes.len());
        let flags = match sync {
            Sync::None => ReadWriteFlags::empty(),
            Sync::Data => ReadWriteFlags::DSYNC,
        };
        let mut done = 0;
        while done < bytes.len() {
            let left = [IoSlice::new(&bytes.as_slice()[done..])];
            match retry_on_intr(|| pwritev2(self.descriptor(), &left, at + done as u64, flags))? {
                0 => return Err(Errno::IO),
                count => done += count,
            }
        }
        Ok(())
    }
}

/// What every read and write keeps to, so that O_DIRECT takes it.
pub(super) fn check(at: u64, len: usize) {
    assert!(len > 0, "nothing to read or write");
    assert!(at.is_multiple_of(SECTOR as u64), "{at} is not at the begin of a sector");
    assert!(len.is_multiple_of(SECTOR), "{len} bytes are no whole sectors");
}

/// Whether a read of `len` bytes is over with `done` of them, the last of which were read just now. Only the end of a file
/// leaves a sector incomplete, and a further read there would not be aligned.
pub(super) fn is_read(done: usize, len: usize) -> bool {
    done == len || !done.is_multiple_of(SECTOR)
}
