//! How far the disk is: what waits for it, the writes of the log, and what other shards are told.
//!
//! A reply that stands for something on disk waits for [`Wait::Disk`], the commit of this shard that
//! has it, and for register [`DURABLE`] of each shard that it was sent to. That register counts
//! parcels, in their order, whose effects are on the reader's disk; a parcel that the reader wrote
//! nothing for counts as soon as it was acted upon and those before it count.

use std::collections::VecDeque;

use crate::clock::Millis;
use crate::io::Io;
use crate::memory::{Aligned, Key, ShardId, ShardSet};
use crate::store::Progress;

use super::clients::Clients;
use super::env::Env;
use super::exchange::Exchange;
use super::restore::Start;
use super::waits::{DURABLE, Wait};
use super::{Core, Shard};

/// The number of a log's writes at the kernel boundary: one is on its way at a time.
const LOG: u64 = 1;

/// What the disk has, as far as others wait for it.
#[derive(Debug)]
pub(super) struct Disk {
    /// Commits of this shard's log that are on disk.
    on_disk: u64,
    /// By sender: parcels up to this number, and the commit that has what they changed.
    open: Vec<VecDeque<(u64, u64)>>,
}

impl Disk {
    pub fn new(shards: u16) -> Disk {
        Disk { on_disk: 0, open: (0..shards).map(|_| VecDeque::new()).collect() }
    }

    #[inline]
    pub fn on_disk(&self) -> u64 {
        self.on_disk
    }
}

impl Env {
    /// The commit that has everything that was written down so far. `None` without a data directory.
    #[inline]
    pub fn last_commit(&self) -> Option<u64> {
        self.keep.as_ref().map(|keep| keep.log.last_commit())
    }

    /// The commit that has what was written down since `mark`, if anything was.
    #[inline]
    pub fn commit_since(&self, mark: u64) -> Option<u64> {
        let keep = self.keep.as_ref()?;
        (keep.log.appended() != mark).then(|| keep.log.last_commit())
    }
}

impl Exchange {
    /// Parcels of another shard were acted upon; `commit` has what they changed, if they changed anything that is kept.
    pub fn acted_upon(&mut self, from: ShardId, commit: Option<u64>) {
        let open = &mut self.disk.open[usize::from(from)];
        let parcels = self.links.consumed_from(from);
        match commit {
            None if open.is_empty() => self.links.set_register(from, DURABLE, parcels),
            None => open.push_back((parcels, 0)),
            Some(commit) => open.push_back((parcels, commit)),
        }
    }

    /// The disk has more: whoever waits for it is looked at, and senders are told.
    fn disk_reached(&mut self, commit: u64) {
        self.disk.on_disk = commit;
        self.waits.look_again();
        for (from, open) in self.disk.open.iter_mut().enumerate() {
            let mut reached = None;
            while let Some((parcels, _)) = open.pop_front_if(|(_, need)| *need <= commit) {
                reached = Some(parcels);
            }
            if let Some(parcels) = reached {
                self.links.set_register(from as ShardId, DURABLE, parcels);
            }
        }
        self.finish_relays();
    }

    /// What an acknowledgement waits for if `commit` and what these shards were sent have to be on disk.
    pub fn on_disk(&self, commit: Option<u64>, targets: ShardSet) -> Wait {
        let own = commit.map(Wait::Disk);
        match (own, targets.intersection(self.links.peers()).is_empty()) {
            (None, true) => Wait::Nothing,
            (Some(own), true) => own,
            (None, false) => self.kept(targets),
            (Some(own), false) => Wait::All([own, self.kept(targets)].into()),
        }
    }
}

impl Clients {
    /// Nothing is sent to this connection before the commit is on disk.
    pub fn shut_until(&mut self, key: Key, commit: u64) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.is_shut = true;
            self.shut.push_back((key, commit));
        }
    }

    /// The disk has this commit.
    fn open_shut(&mut self, commit: u64) {
        while let Some((key, _)) = self.shut.pop_front_if(|(_, need)| *need <= commit) {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.is_shut = false;
                self.mark_dirty(key);
            }
        }
    }
}

impl Core {
    /// What the reply to a client waits for: all that this shard has written down so far, if its session is kept.
    pub(super) fn on_disk_if_kept(&self, session: Key) -> Wait {
        match self.local.env.last_commit() {
            Some(commit) if self.local.sessions.get(session).is_some_and(|slot| slot.is_kept) => {
                Wait::Disk(commit)
            }
            Some(_) | None => Wait::Nothing,
        }
    }
}

impl<I: Io> Shard<I> {
    /// Once per turn, after all handlers: images of a walk, then the next commit.
    #[inline(always)]
    pub(super) fn tend_log(&mut self) {
        if self.core.local.env.keep.is_some() {
            self.seal();
        }
    }

    fn seal(&mut self) {
        let core = &mut self.core;
        let waiters = core.exchange.waits.holding.len() + core.local.clients.shut.len();
        let now = core.local.env.now;
        let Some(keep) = &mut core.local.env.keep else { return };
        keep.advance_walk(&core.local.sessions, &core.retained);
        keep.follow();
        let wall = keep.wall(now);
        if let Some(write) = keep.log.seal(now, wall, waiters) {
            let sync = keep.sync;
            self.io.write_file(&write.file, LOG, write.at, write.bytes, sync);
        }
    }

    /// A write of the log has ended.
    pub(super) fn log_written(&mut self, tag: u64, bytes: Aligned, result: Result<(), i32>) {
        debug_assert!(tag == LOG);
        let core = &mut self.core;
        let Some(keep) = &mut core.local.env.keep else { return };
        match keep.log.written(bytes, result) {
            Progress::OnDisk => {
                let commit = keep.log.on_disk();
                let (commits, bytes) = keep.log.written_total();
                let counters = &core.local.env.counters[usize::from(core.local.env.id)];
                counters.store_commits_total.set(commits);
                counters.store_bytes_total.set(bytes);
                core.exchange.disk_reached(commit);
                core.local.clients.open_shut(commit);
            }
            Progress::Again => core.local.env.counters().store_errors_total.add(1),
            Progress::Broken(errno) => {
                keep.opening.breaks(errno);
                core.local.env.counters().store_errors_total.add(1);
            }
        }
    }

    /// Whether the log has something to write and no more than time is missing.
    pub(super) fn log_due_at(&self) -> Option<Millis> {
        let keep = self.core.local.env.keep.as_ref()?;
        let soon = keep.log.waits() || keep.start != Start::Serving;
        soon.then_some(self.core.local.env.now + 1)
    }
}
