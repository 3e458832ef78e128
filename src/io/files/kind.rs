//! What a directory is on: some file systems forget, and some are far away.

use std::fmt;

/// A file system, as far as its name says what to expect of it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct FileSystem {
    /// As `mount` prints it; `None` for one that is not in the list.
    pub name: Option<&'static str>,
    pub medium: Medium,
    magic: u32,
}

/// What is below a file system.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Medium {
    /// A disk of this machine, or something that is not known to be anything else.
    Disk,
    /// Memory: everything is gone after a restart of the machine.
    Memory,
    /// Another machine or another process, whose locks and flushes may mean less.
    Remote,
}

/// From `linux/magic.h` and the sources of those that are not there.
const KNOWN: &[(u32, &str, Medium)] = &[
    (0xEF53, "ext4", Medium::Disk),
    (0x5846_5342, "xfs", Medium::Disk),
    (0x9123_683E, "btrfs", Medium::Disk),
    (0xF2F5_2010, "f2fs", Medium::Disk),
    (0x2FC1_2FC1, "zfs", Medium::Disk),
    (0xCA45_1A4E, "bcachefs", Medium::Disk),
    (0x794C_7630, "overlay", Medium::Disk),
    (0x0102_1994, "tmpfs", Medium::Memory),
    (0x8584_58F6, "ramfs", Medium::Memory),
    (0x6969, "nfs", Medium::Remote),
    (0xFF53_4D42, "cifs", Medium::Remote),
    (0xFE53_4D42, "smb3", Medium::Remote),
    (0x00C3_6400, "ceph", Medium::Remote),
    (0x5346_414F, "afs", Medium::Remote),
    (0x0102_1997, "9p", Medium::Remote),
    (0x6573_5546, "fuse", Medium::Remote),
    (0x0BD0_0BD0, "lustre", Medium::Remote),
];

impl FileSystem {
    /// By the number that `statfs` gives.
    pub(in crate::io) fn of(magic: u32) -> FileSystem {
        match KNOWN.iter().find(|known| known.0 == magic) {
            Some((_, name, medium)) => FileSystem { name: Some(name), medium: *medium, magic },
            None => FileSystem { name: None, medium: Medium::Disk, magic },
        }
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => write!(f, "{name}"),
            None => write!(f, "file system 0x{:x}", self.magic),
        }
    }
}
