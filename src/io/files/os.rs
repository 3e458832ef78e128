//! [`Files`] of the kernel.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, fdatasync, flock, fstat, statfs, statvfs};
use rustix::io::Errno;

use super::{File, FileSystem, Files, Lock, LockError};
use crate::io::Sync;
use crate::memory::{Aligned, SECTOR};

/// Bytes of zeros in one write.
const ZEROS: usize = 1 << 20;
/// The file that is locked.
const LOCK: &str = "LOCK";
/// Behind the name of a file that is written to replace another.
const BESIDE: &str = ".new";

/// The files below a directory.
#[derive(Clone, Debug)]
pub struct OsFiles {
    root: PathBuf,
}

impl OsFiles {
    /// The root need not exist yet: [`Files::create_dir`] of the empty path makes it.
    pub fn new(root: impl Into<PathBuf>) -> OsFiles {
        OsFiles { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }
}

/// Opens for reading and writing, past the page cache if the file system allows that.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.clone().custom_flags(libc::O_DIRECT).open(path) {
        Ok(file) => Ok(File::new(file.into(), true)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Ok(File::new(options.open(path)?.into(), false))
        }
        Err(error) => Err(error),
    }
}

/// Writes zeros to a new file, so that later writes change no metadata.
fn fill(file: &File, len: u64) -> io::Result<()> {
    match fallocate(file.descriptor(), FallocateFlags::empty(), 0, len) {
        // A file system without it allocates while the zeros are written.
        Ok(()) | Err(Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error.into()),
    }
    let mut zeros = Aligned::new();
    let mut at = 0;
    while at < len {
        zeros.resize((len - at).min(ZEROS as u64) as usize);
        file.write_at(at, &zeros, Sync::None)?;
        at += zeros.len() as u64;
    }
    Ok(rustix::fs::fsync(file.descriptor())?)
}

/// Syncs the directory that a path is in.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(parent)?.sync_all()
}

impl Files for OsFiles {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.path(dir)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        let mut names = entries.map(name).collect::<io::Result<Vec<String>>>()?;
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        let path = self.path(dir);
        let missing: Vec<&Path> =
            path.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.is_dir()).collect();
        for dir in missing.into_iter().rev() {
            DirBuilder::new().mode(0o700).create(dir)?;
            sync_parent(dir)?;
        }
        Ok(())
    }

    fn create(&self, path: &str, len: u64) -> io::Result<File> {
        assert_eq!(len % SECTOR as u64, 0, "a file of {len} bytes, which are no whole sectors");
        let path = self.path(path);
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let made = open(&path).and_then(|file| {
            fill(&file, len)?;
            sync_parent(&path)?;
            Ok(file)
        });
        if made.is_err() {
            // The first error counts.
            let _ = fs::remove_file(&path);
        }
        made
    }

    fn open(&self, path: &str) -> io::Result<File> {
        open(&self.path(path))
    }

    fn len(&self, file: &File) -> io::Result<u64> {
        Ok(fstat(file.descriptor())?.st_size as u64)
    }

    fn read_at(&self, file: &File, at: u64, into: &mut Aligned, len: usize) -> io::Result<()> {
        Ok(file.read_at(at, into, len)?)
    }

    fn write_at(&self, file: &File, at: u64, bytes: &Aligned) -> io::Result<()> {
        Ok(file.write_at(at, bytes, Sync::Data)?)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        Ok(fdatasync(file.descriptor())?)
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(path))
    }

    fn replace(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let beside = self.path(&format!("{path}{BESIDE}"));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        let path = self.path(path);
        fs::rename(&beside, &path)?;
        sync_parent(&path)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path(from), self.path(to));
        fs::rename(&from, &to)?;
        sync_parent(&to)?;
        if from.parent() == to.parent() { Ok(()) } else { sync_parent(&from) }
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let path = self.path(path);
        fs::remove_file(&path)?;
        sync_parent(&path)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let room = statvfs(&self.root)?;
        Ok(room.f_bavail.saturating_mul(room.f_frsize))
    }

    fn kind(&self) -> io::Result<FileSystem> {
        // The number has 32 bits, in whatever type the architecture has for it.
        Ok(FileSystem::of(statfs(&self.root)?.f_type as u32))
    }

    fn lock(&self) -> Result<Lock, LockError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(self.path(LOCK)).map_err(LockError::Failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let read = file.read_to_string(&mut text).ok();
                return Err(LockError::Held { pid: read.and_then(|_| text.trim().parse().ok()) });
            }
            Err(error) => return Err(LockError::Failed(error.into())),
        }
        let written =
            file.set_len(0).and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
        written.map_err(LockError::Failed)?;
        Ok(Lock::new(file))
    }
}
