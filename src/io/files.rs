//! Files by name, with calls that block: for the start, the thread that makes and removes files, and the command.
//!
//! A shard never calls these; it writes and reads opened files through [`Io`](super::Io). [`OsFiles`] is the kernel,
//! [`SimFiles`](super::sim::SimFiles) the simulated disk. All paths are relative to a root directory, without `..`.

use std::fmt;
use std::io;

use super::File;
use crate::memory::Aligned;

mod kind;
mod os;
#[cfg(test)]
mod tests;

pub use kind::{FileSystem, Medium};
pub use os::OsFiles;

/// Files below a root directory. A call that has returned is on the device: a crash does not undo it.
pub trait Files {
    /// The names in a directory, sorted; none if there is no such directory. The root is the empty path.
    ///
    /// # Errors
    /// What the file system says. So for all calls.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Makes a directory (mode 0700), and those above it. One that exists stays as it is.
    fn create_dir(&self, dir: &str) -> io::Result<()>;
    /// Makes a file (mode 0600) of `len` zeros that are written, not only promised, and opens it. Leaves no file behind
    /// when it fails. A file of this name is an error.
    fn create(&self, path: &str, len: u64) -> io::Result<File>;
    /// Opens a file for reading and writing.
    fn open(&self, path: &str) -> io::Result<File>;
    /// Bytes of a file.
    fn len(&self, file: &File) -> io::Result<u64>;
    /// Reads `len` bytes at `at`, both multiples of [`SECTOR`](crate::memory::SECTOR), in place of what `into` held; fewer
    /// at the end of the file.
    fn read_at(&self, file: &File, at: u64, into: &mut Aligned, len: usize) -> io::Result<()>;
    /// Writes at `at`, synced; `at` and the length are multiples of [`SECTOR`](crate::memory::SECTOR).
    fn write_at(&self, file: &File, at: u64, bytes: &Aligned) -> io::Result<()>;
    /// Syncs what was written to the file without being synced (fdatasync).
    fn sync(&self, file: &File) -> io::Result<()>;
    /// The whole of a small file.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;
    /// Puts a small file in place of the one with this name, if there is one. After a crash it is the old one or the new
    /// one, never a part.
    fn replace(&self, path: &str, bytes: &[u8]) -> io::Result<()>;
    /// Gives a file another name, which may be that of a file that goes.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Bytes that this user can still write.
    fn free_bytes(&self) -> io::Result<u64>;
    /// The file system that the root is on.
    fn kind(&self) -> io::Result<FileSystem>;
    /// Takes the root for this process alone, until the lock is dropped or the process ends.
    ///
    /// # Errors
    /// Another process has it.
    fn lock(&self) -> Result<Lock, LockError>;
}

/// The root belongs to whoever has this.
#[derive(Debug)]
pub struct Lock {
    /// Unlocks when it is dropped.
    _held: Box<dyn fmt::Debug + Send + Sync>,
}

impl Lock {
    pub(super) fn new(held: impl fmt::Debug + Send + Sync + 'static) -> Lock {
        Lock { _held: Box::new(held) }
    }
}

/// Why a root could not be locked.
#[derive(Debug)]
pub enum LockError {
    /// By another process; its id, if the file said one.
    Held {
        pid: Option<u32>,
    },
    Failed(io::Error),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Held { pid: Some(pid) } => write!(f, "process {pid} uses this directory"),
            LockError::Held { pid: None } => write!(f, "another process uses this directory"),
            LockError::Failed(error) => write!(f, "the file LOCK cannot be locked: {error}"),
        }
    }
}

impl std::error::Error for LockError {}
