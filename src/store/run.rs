//! From the run that holds to the next one.
//!
//! What the logs of the old run gave goes to the shards of the new one, by the homes that clients and topics have there. The
//! shards write images of it all. When they have it on disk, the manifest names the new run ([`NextRun::hold`]), and only then
//! the files of the old one go ([`NextRun::clear`]). A crash in between starts over.

use std::fmt;
use std::io;

use super::keeper::directory;
use super::{Found, Keeper, Log, Manifest, Report, SessionImage, WallClock};
use crate::clock::Millis;
use crate::io::Files;
use crate::memory::Message;
use crate::topic;

/// Where files of a damaged log go.
const DAMAGED: &str = "damaged";

/// What could not be done, and why.
#[derive(Debug)]
pub struct Failure {
    pub what: &'static str,
    pub error: io::Error,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.error)
    }
}

impl std::error::Error for Failure {}

fn failure(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure { what, error }
}

/// What the run that holds has kept, of all its shards.
#[derive(Debug, Default)]
pub struct Kept {
    pub sessions: Vec<Box<SessionImage>>,
    pub retained: Vec<Message>,
    /// Messages of share groups on their way from shard to shard, with the fingerprints of their groups.
    pub given: Vec<(u64, Message)>,
    pub reports: Vec<Report>,
    /// Segments of the run that holds.
    pub segments: Vec<String>,
    /// Files of other runs, and of none.
    pub foreign: Vec<String>,
}

impl Kept {
    /// Of logs that were read with [`recover`](super::recover).
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn of(
        files: &dyn Files,
        manifest: &Manifest,
        logs: impl IntoIterator<Item = Found>,
    ) -> io::Result<Kept> {
        let mut kept = Kept { foreign: foreign(files, manifest)?, ..Kept::default() };
        for found in logs {
            let mut state = found.state;
            kept.given.extend(state.take_given());
            let (sessions, retained) = state.into_parts();
            kept.sessions.extend(sessions);
            kept.retained.extend(retained);
            kept.reports.push(found.report);
            kept.segments.extend(found.segments);
            kept.foreign.extend(found.others);
        }
        kept.foreign.sort_unstable();
        kept.foreign.dedup();
        Ok(kept)
    }

    /// What each shard of a run is to keep, and its log. Nothing of it is left here.
    pub fn parts(&mut self, manifest: &Manifest, keeper: &Keeper) -> Vec<Part> {
        let shards = manifest.shards;
        let part = |shard| Part {
            log: Log::new(manifest.origin(shard), keeper.clone()),
            sessions: Vec::new(),
            retained: Vec::new(),
            given: Vec::new(),
        };
        let mut parts: Vec<Part> = (0..shards).map(part).collect();
        let home = |name: &str| usize::from(topic::shard_of(&manifest.keys, name, shards));
        for session in std::mem::take(&mut self.sessions) {
            parts[home(&session.client_id)].sessions.push(session);
        }
        for message in std::mem::take(&mut self.retained) {
            parts[home(message.topic())].retained.push(message);
        }
        for (group, message) in std::mem::take(&mut self.given) {
            parts[(group % u64::from(shards)) as usize].given.push((group, message));
        }
        parts
    }

    /// What is damaged, one sentence each.
    pub fn damage(&self) -> Vec<String> {
        self.reports.iter().flat_map(|report| report.damage.clone()).collect()
    }

    /// A clock that is behind the newest commit counts as standing at it.
    pub fn clock(&self, clock: WallClock, now: Millis) -> WallClock {
        let newest = self.reports.iter().map(|report| report.newest).max().unwrap_or(0);
        WallClock { epoch: clock.epoch.max(newest.saturating_sub(now)) }
    }
}

/// Files in directories of shards that the run that holds does not have.
fn foreign(files: &dyn Files, manifest: &Manifest) -> io::Result<Vec<String>> {
    let mut foreign = Vec::new();
    for directory in files.list("")? {
        let Ok(shard) = directory.parse::<u16>() else { continue };
        if directory.len() != 3 || shard < manifest.shards {
            continue;
        }
        let names = files.list(&directory)?.into_iter().filter(|name| name.ends_with(".log"));
        foreign.extend(names.map(|name| format!("{directory}/{name}")));
    }
    Ok(foreign)
}

/// What one shard of the new run begins with.
#[derive(Debug)]
pub struct Part {
    pub log: Log,
    pub sessions: Vec<Box<SessionImage>>,
    pub retained: Vec<Message>,
    /// See [`Kept::given`].
    pub given: Vec<(u64, Message)>,
}

/// A run that begins.
#[derive(Debug)]
pub struct NextRun {
    pub manifest: Manifest,
    /// Files that nothing is needed of once it holds.
    old: Vec<String>,
    is_damaged: bool,
}

impl NextRun {
    /// The one after `before`: makes the first segments of its `shards` shards and gives each what it is to keep.
    ///
    /// # Errors
    /// A file cannot be made or removed. The old run holds.
    pub fn begin(
        files: &dyn Files,
        before: &Manifest,
        mut kept: Kept,
        keeper: &Keeper,
        shards: u16,
    ) -> Result<(NextRun, Vec<Part>), Failure> {
        let manifest = Manifest { run: before.run + 1, shards, ..before.clone() };
        let is_damaged = kept.reports.iter().any(|report| !report.damage.is_empty());
        // Whatever a start left that did not come to its end has the names and the heads of this run.
        for path in &kept.foreign {
            remove(files, path, is_damaged).map_err(failure("an old file cannot be removed"))?;
        }
        for shard in 0..shards {
            files.create_dir(&directory(shard)).map_err(failure("a directory cannot be made"))?;
        }
        let next = NextRun { manifest, old: std::mem::take(&mut kept.segments), is_damaged };
        keeper.fill(files, &next.prefix()).map_err(failure("a segment cannot be made"))?;
        let parts = kept.parts(&next.manifest, keeper);
        Ok((next, parts))
    }

    /// Files of two runs have different names.
    pub fn prefix(&self) -> String {
        prefix(&self.manifest)
    }

    /// All its shards have everything on disk: from now on it is the one that holds.
    ///
    /// # Errors
    /// The manifest cannot be written: the old run holds.
    pub fn hold(&self, files: &dyn Files) -> Result<(), Failure> {
        self.manifest.write(files).map_err(failure("the file manifest cannot be written"))
    }

    /// Removes the files of the old run. What is left behind is removed by the next start.
    pub fn clear(&mut self, files: &dyn Files) {
        for path in std::mem::take(&mut self.old) {
            let _ = remove(files, &path, self.is_damaged);
        }
    }
}

/// Removes a file; one of a damaged directory is kept for who wants to look at it.
fn remove(files: &dyn Files, path: &str, is_damaged: bool) -> io::Result<()> {
    if is_damaged { set_aside(files, path) } else { files.remove(path) }
}

/// A file of a damaged directory is kept for whoever wants to look at it.
///
/// # Errors
/// It cannot be moved.
pub fn set_aside(files: &dyn Files, path: &str) -> io::Result<()> {
    files.create_dir(DAMAGED)?;
    files.rename(path, &format!("{DAMAGED}/{}", path.replace('/', "-")))
}

/// How the names of the files of a run begin.
pub fn prefix(manifest: &Manifest) -> String {
    format!("r{}", manifest.run)
}
