//! The data directory of a cluster: what the process does beside its shards, between their turns.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use ringmq::io::sim::{Crash, Odds, Rng, SimFiles, World};
use ringmq::io::{Files, Sync};
use ringmq::shard::{Opening, Storing};
use ringmq::store::{self, Failure, Keeper, Kept, Manifest, NextRun, Part, WallClock};
use ringmq::topic::HashKeys;

use crate::oracle::Millis;
use crate::plan::DataPlan;

/// Milliseconds from 1970 to the begin of all runs.
const EPOCH: u64 = 1_700_000_000_000;
/// Failing starts in a row, after which the disk does not fail any more.
const ATTEMPTS: usize = 3;
/// Files of a shard that wait for use, at most.
const SPARES: u64 = 4;

/// How far a start is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Stage {
    /// The run before holds.
    Starting,
    /// The new one holds.
    Holds,
    /// The shards serve; the files of the run before are there still.
    Serves,
    Open,
    /// The manifest could not be written.
    Failed,
}

#[derive(Debug)]
pub struct Data {
    files: SimFiles,
    keeper: Keeper,
    run: NextRun,
    opening: Arc<Opening>,
    stage: Stage,
    rng: Rng,
    /// Per look: segments are made and given back.
    keeps: Odds,
}

impl Data {
    /// What a process does before its shards begin. One that cannot ends, and the next one tries.
    pub fn open(
        plan: &DataPlan,
        world: &Rc<RefCell<World>>,
        shards: u16,
        keys: HashKeys,
        now: Millis,
        rng: Rng,
    ) -> (Data, Vec<Storing>) {
        let faults = world.borrow().faults.disk.clone();
        for attempt in 0.. {
            if attempt == ATTEMPTS {
                let disk = &mut world.borrow_mut().faults.disk;
                (disk.write_fails, disk.read_fails, disk.no_space) = (Odds::NEVER, Odds::NEVER, Odds::NEVER);
            }
            match Data::try_open(plan, world, shards, keys, now, rng.clone()) {
                Ok(opened) => {
                    world.borrow_mut().faults.disk = faults;
                    return opened;
                }
                Err(why) => assert!(attempt < ATTEMPTS, "a start fails: {why}"),
            }
            world.borrow_mut().crash(Crash::Killed, shards);
        }
        unreachable!("the last attempt opens it or panics")
    }

    fn try_open(
        plan: &DataPlan,
        world: &Rc<RefCell<World>>,
        shards: u16,
        keys: HashKeys,
        now: Millis,
        rng: Rng,
    ) -> Result<(Data, Vec<Storing>), Failure> {
        let failed = |what: &'static str| move |error| Failure { what, error };
        let files = SimFiles::new(world.clone());
        let found = Manifest::read(&files)
            .map_err(|error| failed("the manifest")(std::io::Error::other(error.to_string())))?;
        let before = found.unwrap_or_else(|| Manifest::new(keys[0], keys));
        let clock = WallClock { epoch: EPOCH };
        let logs: Result<Vec<_>, _> =
            (0..before.shards).map(|shard| store::recover(&files, before.origin(shard), clock)).collect();
        let kept =
            Kept::of(&files, &before, logs.map_err(failed("a log"))?).map_err(failed("a directory"))?;
        let damage = kept.damage();
        assert!(damage.is_empty(), "disk: damage although nothing was damaged: {damage:?}");
        let clock = kept.clock(clock, now);
        assert_eq!(clock.epoch, EPOCH, "disk: a commit is younger than now");
        let keeper = Keeper::new(shards, plan.segment_bytes, u64::MAX);
        let (run, parts) = NextRun::begin(&files, &before, kept, &keeper, shards)?;
        let opening = Arc::new(Opening::default());
        let storing = |Part { log, sessions, retained, given }| Storing {
            given,
            damaged: 0,
            log,
            clock,
            sync: if plan.power { Sync::Data } else { Sync::None },
            grace_ms: plan.grace_ms,
            sessions,
            retained,
            opening: opening.clone(),
        };
        let stores = parts.into_iter().map(storing).collect();
        let keeps = plan.keeps;
        Ok((Data { files, keeper, run, opening, stage: Stage::Starting, rng, keeps }, stores))
    }

    pub fn keys(&self) -> HashKeys {
        self.run.manifest.keys
    }

    /// One step, as far as its time has come.
    pub fn tend(&mut self, at_once: bool) {
        if at_once || self.rng.happens(self.keeps) {
            // A full disk is noticed here, and nowhere else.
            let _ = self.keeper.fill(&self.files, &self.run.prefix());
        }
        if !at_once && self.rng.below(4) > 0 {
            return;
        }
        self.stage = match self.stage {
            Stage::Starting if self.opening.is_ready(self.run.manifest.shards) => {
                match self.run.hold(&self.files) {
                    Ok(()) => Stage::Holds,
                    Err(_) => Stage::Failed,
                }
            }
            Stage::Holds => {
                self.opening.open();
                Stage::Serves
            }
            Stage::Serves => {
                self.run.clear(&self.files);
                Stage::Open
            }
            stage => stage,
        };
    }

    pub fn has_failed(&self) -> bool {
        self.stage == Stage::Failed || self.opening.broken().is_some()
    }

    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// What is on the disk and should not be, once all is quiet.
    pub fn left_over(&self, segments_in_use: u64) -> Option<String> {
        let mut found = BTreeSet::new();
        let shards = self.run.manifest.shards;
        for dir in self.files.list("").unwrap_or_default() {
            let names = self.files.list(&dir).unwrap_or_default();
            found.extend(names.into_iter().map(|name| format!("{dir}/{name}")));
        }
        let foreign: Vec<&String> =
            found.iter().filter(|path| !path.contains(&format!("/{}-", self.run.prefix()))).collect();
        if !foreign.is_empty() {
            return Some(format!("files of other runs are there: {foreign:?}"));
        }
        let most = segments_in_use + SPARES * u64::from(shards);
        (found.len() as u64 > most).then(|| {
            format!("{} segments are there, but {segments_in_use} are in use: {found:?}", found.len())
        })
    }
}
