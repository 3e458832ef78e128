//! A copy of a data directory that a broker may be using.
//!
//! The segments of each log are listed, and copied from the oldest to the newest. What was on disk at
//! the beginning lies in these segments, and each is copied after that moment. So the copy is a
//! beginning of the log that has at least what was acknowledged before.
//!
//! But the broker may use a segment again, or remove it, before it is copied whole: its head tells.
//! Then a walk is complete that needs nothing from before it, and its records lie in newer segments.
//! So those are copied too, from a new list, until no segment of a list was used again meanwhile.
//!
//! The copy is then recovered as a start would do it, which is the proof: commits name their place,
//! so a part of another use of a segment is never taken for one.
//!
//! The logs end at different moments. A message that one shard passes to another while the copy is
//! made may be in both, or, if its publisher was not yet answered when the command began, in none.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

use super::{Looked, Unusable, failed, files_of, manifest, say, warn};
use crate::config::exit;
use crate::io::files::{Files, OsFiles};
use crate::memory::{Aligned, ShardId};
use crate::store::{self, Head, Manifest, WallClock};

/// Bytes that are copied at once; those that are all zeros are left out.
const PIECE: usize = 1 << 20;
/// How often a copy is made again before the command gives up.
const TRIES: u32 = 3;
/// How often the list of segments is read for one log.
const LISTS: u32 = 20;

pub(super) fn backup(dir: &Path, to: &Path) -> Result<u8, Unusable> {
    let files = files_of(dir)?;
    let is_empty = match fs::read_dir(to) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new()
                .mode(0o700)
                .create(to)
                .map_err(failed(to, "the directory cannot be made"))?;
            true
        }
        Err(error) => return Err(failed(to, "the directory cannot be read")(error)),
    };
    if !is_empty {
        return Err(Unusable::new(to, "the directory is not empty"));
    }
    let copy = OsFiles::new(to);
    for attempt in 1..=TRIES {
        let began = manifest(&files)?;
        let mut bytes = 0;
        for shard in 0..began.shards {
            bytes += copy_log(&files, &copy, &began, shard)?;
        }
        // A broker that starts meanwhile makes a new run, and removes what is copied here.
        let held = manifest(&files)? == began;
        if held {
            let looked = Looked::with(&copy, began.clone())?;
            if !looked.is_damaged() {
                return finish(&copy, &began, &looked, bytes, dir);
            }
            // Once more, unless the original is no better: what the broker changes meanwhile is gone
            // at the next try.
            if attempt == TRIES {
                looked.damage().for_each(|damage| warn(&format!("damaged: {damage}")));
                finish(&copy, &began, &looked, bytes, dir)?;
                return Ok(exit::DAMAGED);
            }
        }
        for shard in 0..began.shards {
            let _ = fs::remove_dir_all(to.join(store::directory(shard)));
        }
    }
    Err(Unusable::new(dir, "brokers start while it is copied; there is no copy"))
}

/// The manifest comes last: a directory without one is no copy.
fn finish(
    copy: &OsFiles,
    manifest: &Manifest,
    looked: &Looked,
    bytes: u64,
    dir: &Path,
) -> Result<u8, Unusable> {
    manifest.write(copy).map_err(failed(copy.root(), "the manifest cannot be written"))?;
    let (from, to) = (dir.display(), copy.root().display());
    say(&format!("{from}: copied to {to}, {bytes} bytes; read back: {}", looked.contents()));
    Ok(0)
}

/// Copies one log. Returns the bytes that were written.
fn copy_log(files: &OsFiles, copy: &OsFiles, manifest: &Manifest, shard: ShardId) -> Result<u64, Unusable> {
    let directory = store::directory(shard);
    let origin = manifest.origin(shard);
    copy.create_dir(&directory).map_err(failed(copy.root(), "a directory cannot be made"))?;
    let mut bytes = 0;
    let mut newest: Option<u32> = None;
    for _ in 0..LISTS {
        let mut heads =
            store::heads(files, &directory).map_err(failed(files.root(), "a segment cannot be read"))?;
        heads.retain(|head| head.origin == origin);
        let mut is_whole = true;
        // The newest one so far has grown since it was copied.
        for head in heads.iter().filter(|head| newest.is_none_or(|newest| head.segment >= newest)) {
            let to = copy.root().join(format!("{directory}/r{}-s{:06}.log", manifest.run, head.segment));
            match copy_segment(files, head, &to).map_err(failed(&to, "a segment cannot be copied"))? {
                Copied::Whole(copied) => bytes += copied,
                Copied::UsedAgain => is_whole = false,
            }
        }
        if is_whole {
            let found = store::recover(copy, origin, WallClock::default());
            let found = found.map_err(failed(copy.root(), "it cannot be read back"))?;
            let last = heads.last().map(|head| head.segment);
            if found.report.damage.is_empty() || last == newest {
                break;
            }
            newest = last;
        } else {
            newest = heads.last().map(|head| head.segment).or(newest);
        }
    }
    File::open(copy.root().join(&directory))
        .and_then(|directory| directory.sync_all())
        .map_err(failed(copy.root(), "it cannot be flushed"))?;
    Ok(bytes)
}

/// What became of a segment.
enum Copied {
    /// It was the same segment before and after; so many bytes were written.
    Whole(u64),
    /// The broker has removed it, or uses it for something else.
    UsedAgain,
}

fn copy_segment(files: &OsFiles, head: &Head, to: &Path) -> io::Result<Copied> {
    let from = match files.open(&head.path) {
        Ok(from) => from,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Copied::UsedAgain),
        Err(error) => return Err(error),
    };
    let to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to)?;
    to.set_len(head.len)?;
    let mut piece = Aligned::default();
    let (mut at, mut bytes) = (0, 0);
    while at < head.len {
        let len = (head.len - at).min(PIECE as u64) as usize;
        files.read_at(&from, at, &mut piece, len)?;
        if piece.as_slice().iter().any(|byte| *byte != 0) {
            to.write_all_at(piece.as_slice(), at)?;
            bytes += piece.len() as u64;
        }
        if piece.len() < len {
            break;
        }
        at += len as u64;
    }
    to.sync_all()?;
    let is_same = store::head(files, &head.path).is_ok_and(|now| now.as_ref() == Some(head));
    Ok(if is_same { Copied::Whole(bytes) } else { Copied::UsedAgain })
}
