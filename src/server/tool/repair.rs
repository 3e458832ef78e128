//! A directory that a start finds damaged or cannot read, made whole as far as it goes.
//!
//! What is intact is written as a new run. Then the manifest names that run, and only then the files
//! of the old one are moved aside: a repair that is interrupted has changed nothing, or all.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Looked, Unusable, failed, files_of, say, take};
use crate::io::files::{Files, OsFiles};
use crate::io::random_keys;
use crate::memory::ShardId;
use crate::server::store::{SEGMENT_MIN, wall_now};
use crate::store::{self, Keeper, Manifest, ManifestError, prefix, set_aside};

pub(super) fn repair(dir: &Path) -> Result<u8, Unusable> {
    let files = files_of(dir)?;
    let _use = take(&files, false)?;
    let found = match Manifest::read(&files) {
        Ok(found) => found,
        Err(ManifestError::Damaged) => None,
        Err(error) => return Err(Unusable::new(dir, error)),
    };
    let (mut looked, was_there) = match found {
        Some(manifest) => (Looked::with(&files, manifest)?, true),
        None => (rebuild(&files)?, false),
    };
    if was_there && !looked.is_damaged() {
        say(&format!("{}: no damage; nothing was changed", dir.display()));
        return Ok(0);
    }
    if !was_there && !looked.is_damaged() {
        if files.list("").is_ok_and(|names| names.iter().any(|name| name == "manifest")) {
            set_aside(&files, "manifest").map_err(failed(dir, "the manifest cannot be moved"))?;
        }
        looked.manifest.write(&files).map_err(failed(dir, "the manifest cannot be written"))?;
        say(&format!("{}: the file manifest was made from the segments", dir.display()));
        say(&format!("a start would have: {}", looked.contents()));
        return Ok(0);
    }
    looked.damage().for_each(|damage| say(&format!("damaged: {damage}")));
    let contents = looked.contents();
    let run = newest_run(&files)?.max(looked.manifest.run) + 1;
    let manifest = Manifest { run, ..looked.manifest.clone() };
    write_anew(&files, &manifest, &mut looked).map_err(failed(dir, "a new log cannot be written"))?;
    manifest.write(&files).map_err(failed(dir, "the manifest cannot be written"))?;
    let old = &looked.read.segments;
    for path in old.iter().chain(&looked.read.foreign) {
        if !is_of_run(path, run) {
            set_aside(&files, path).map_err(failed(dir, "a damaged file cannot be moved"))?;
        }
    }
    say(&format!("{}: what is intact was written anew; the former files are in damaged/", dir.display()));
    say(&format!("a start would have: {contents}"));
    Ok(0)
}

/// Writes everything that was read as the logs of a new run.
fn write_anew(files: &OsFiles, manifest: &Manifest, looked: &mut Looked) -> std::io::Result<()> {
    let keeper = Keeper::new(manifest.shards, SEGMENT_MIN, u64::MAX);
    let prefix = prefix(manifest);
    for shard in 0..manifest.shards {
        files.create_dir(&store::directory(shard))?;
    }
    for part in looked.read.parts(manifest, &keeper) {
        store::rewrite(files, (&keeper, &prefix), part, looked.clock, wall_now())?;
    }
    Ok(())
}

/// The run of a file, by its name.
fn run_of(path: &str) -> Option<u32> {
    let name = path.rsplit('/').next()?;
    name.strip_prefix('r')?.split('-').next()?.parse().ok()
}

fn is_of_run(path: &str, run: u32) -> bool {
    run_of(path) == Some(run)
}

/// The directories of shards that are there.
fn shards_of(files: &OsFiles) -> Result<Vec<ShardId>, Unusable> {
    let names = files.list("").map_err(failed(files.root(), "it cannot be read"))?;
    Ok(names.iter().filter(|name| name.len() == 3).filter_map(|name| name.parse().ok()).collect())
}

fn newest_run(files: &OsFiles) -> Result<u32, Unusable> {
    let mut newest = 0;
    for shard in shards_of(files)? {
        let names =
            files.list(&store::directory(shard)).map_err(failed(files.root(), "it cannot be read"))?;
        newest = names.iter().filter_map(|name| run_of(name)).fold(newest, u32::max);
    }
    Ok(newest)
}

/// What the segments say where no manifest does: the newest run that is whole, or else the newest
/// that has anything. A start that was interrupted leaves a run that is not whole beside the one
/// that holds.
fn rebuild(files: &OsFiles) -> Result<Looked, Unusable> {
    let root = files.root();
    // By run: the store that it belongs to. Its shards have files of its name, even before they have
    // written anything.
    let mut runs: BTreeMap<u32, (u64, ShardId)> = BTreeMap::new();
    for shard in shards_of(files)? {
        let directory = store::directory(shard);
        let heads = store::heads(files, &directory).map_err(failed(root, "a segment cannot be read"))?;
        for head in heads {
            runs.entry(head.origin.run).or_default().0 = head.origin.store;
        }
        let names = files.list(&directory).map_err(failed(root, "it cannot be read"))?;
        for run in names.iter().filter_map(|name| run_of(name)) {
            let (_, shards) = runs.entry(run).or_default();
            *shards = (*shards).max(shard + 1);
        }
    }
    let mut newest = None;
    for (run, (store, shards)) in runs.into_iter().rev() {
        // The keys say where sessions live; a start moves them wherever its own say.
        let looked = Looked::with(files, Manifest { store, run, shards, keys: random_keys() })?;
        if !looked.is_damaged() && shards > 0 {
            return Ok(looked);
        }
        let has_commits = looked.read.reports.iter().any(|report| report.commits > 0);
        if newest.is_none() && has_commits {
            newest = Some(looked);
        }
    }
    newest.ok_or_else(|| {
        Unusable::new(root, "there is no manifest, and no segment that one could be made from")
    })
}
