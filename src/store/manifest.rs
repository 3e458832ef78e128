//! The manifest: which run holds, and what a start has to know before it reads a log.
//!
//! It is a text of a few lines, the last of which is the checksum of the others. It is replaced as a
//! whole. Until a new run has everything on disk the old one holds, for all shards at once.

use std::fmt;
use std::io;

use super::Origin;
use crate::io::Files;
use crate::memory::ShardId;

const NAME: &str = "manifest";
const FORMAT: u32 = 1;

/// What the data directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// A random number of this directory.
    pub store: u64,
    /// The run that holds; 0 for none yet.
    pub run: u32,
    /// Its shards.
    pub shards: u16,
    /// The keys of the hashes by which clients and topics have their shards.
    pub keys: [u64; 4],
}

/// Why there is no manifest to go by.
#[derive(Debug)]
pub enum ManifestError {
    Io(io::Error),
    /// The text is not what a manifest is.
    Damaged,
    /// A later version wrote it; its format.
    Newer(u32),
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ManifestError::Io(error) => write!(f, "the file manifest cannot be read: {error}"),
            ManifestError::Damaged => f.write_str("the file manifest is damaged"),
            ManifestError::Newer(format) => {
                write!(f, "a later version of ringmq wrote it (format {format}; this one reads {FORMAT})")
            }
        }
    }
}

impl std::error::Error for ManifestError {}

impl Manifest {
    /// Of a directory that is empty.
    pub fn new(store: u64, keys: [u64; 4]) -> Manifest {
        Manifest { store, run: 0, shards: 0, keys }
    }

    /// The log of one of its shards.
    pub fn origin(&self, shard: ShardId) -> Origin {
        Origin { store: self.store, run: self.run, shard }
    }

    /// `None` if there is none.
    ///
    /// # Errors
    /// There is one that cannot be used.
    pub fn read(files: &dyn Files) -> Result<Option<Manifest>, ManifestError> {
        match files.read(NAME) {
            Ok(text) => Manifest::parse(&text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ManifestError::Io(error)),
        }
    }

    /// Puts it in place of the one before.
    ///
    /// # Errors
    /// It could not be written; the one before holds.
    pub fn write(&self, files: &dyn Files) -> io::Result<()> {
        files.replace(NAME, self.text().as_bytes())
    }

    fn text(&self) -> String {
        let keys: Vec<String> = self.keys.iter().map(|key| format!("{key:016x}")).collect();
        let lines = format!(
            "ringmq data\nformat {FORMAT}\nstore {:016x}\nrun {}\nshards {}\nkeys {}\n",
            self.store,
            self.run,
            self.shards,
            keys.join(" ")
        );
        let crc = crc32fast::hash(lines.as_bytes());
        format!("{lines}crc32 {crc:08x}\n")
    }

    fn parse(text: &[u8]) -> Result<Manifest, ManifestError> {
        let parsed = || {
            let text = std::str::from_utf8(text).ok()?;
            let (lines, crc) = text.trim_end_matches('\n').rsplit_once('\n')?;
            let lines = format!("{lines}\n");
            let crc = u32::from_str_radix(crc.strip_prefix("crc32 ")?, 16).ok()?;
            (crc == crc32fast::hash(lines.as_bytes())).then_some(lines)
        };
        let lines = parsed().ok_or(ManifestError::Damaged)?;
        let field = |name: &str| {
            let line = lines.lines().find(|line| line.split(' ').next() == Some(name))?;
            line.split_once(' ').map(|(_, value)| value)
        };
        let format = field("format").and_then(|format| format.parse().ok()).ok_or(ManifestError::Damaged)?;
        if format > FORMAT {
            return Err(ManifestError::Newer(format));
        }
        let fields = || {
            let mut keys = [0; 4];
            let mut texts = field("keys")?.split(' ');
            for key in &mut keys {
                *key = u64::from_str_radix(texts.next()?, 16).ok()?;
            }
            Some(Manifest {
                store: u64::from_str_radix(field("store")?, 16).ok()?,
                run: field("run")?.parse().ok()?,
                shards: field("shards")?.parse().ok()?,
                keys,
            })
        };
        fields().ok_or(ManifestError::Damaged)
    }
}
