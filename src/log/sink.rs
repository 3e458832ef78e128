//! Where lines go: stderr, or a file that can be opened again.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Who may read a file that the log makes: its owner and the owner's group.
const MODE: u32 = 0o640;

/// Where lines go.
pub(super) struct Sink {
    out: Box<dyn Write + Send>,
    /// The file that `out` is.
    path: Option<PathBuf>,
    is_journal: bool,
    /// The last write ended within a line.
    is_torn: bool,
}

impl Sink {
    pub fn stderr() -> Sink {
        Sink { is_journal: is_journal(), ..Sink::to(Box::new(io::stderr())) }
    }

    /// Appends to a file, which is made if it is not there.
    pub fn file(path: &Path) -> io::Result<Sink> {
        let out = Box::new(open(path)?);
        Ok(Sink { path: Some(path.to_owned()), ..Sink::to(out) })
    }

    pub fn to(out: Box<dyn Write + Send>) -> Sink {
        Sink { out, path: None, is_journal: false, is_torn: false }
    }

    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Lines begin with their level, as journald takes it.
    pub fn is_journal(&self) -> bool {
        self.is_journal
    }

    /// Opens the file again, where another one may stand by now; the old one stays open if that fails.
    pub fn reopen(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            self.out = Box::new(open(path)?);
            self.is_torn = false;
        }
        Ok(())
    }

    /// Writes a line. If the disk is full a part of one may be there: then the next begins on a line of its own.
    pub fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.out.write_all(b"\n")?;
            self.is_torn = false;
        }
        let written = self.out.write_all(line);
        self.is_torn = written.is_err();
        written
    }

    pub fn flush(&mut self) {
        // Nobody is left who could be told.
        let _ = self.out.flush();
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).mode(MODE).open(path)
}

/// Whether journald reads stderr: it names the device and the inode of the stream that it gave to this process.
pub fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let Ok(stderr) = stderr.and_then(|file| file.metadata()) else { return false };
    stream == format!("{}:{}", stderr.dev(), stderr.ino())
}
