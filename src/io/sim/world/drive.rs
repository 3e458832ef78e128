//! The simulated disk in its machine: operations of shards in flight on it, opened files, and the crash of all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Core, Pending, Slot, Stream, World};
use crate::io::sim::disk::{Disk, Fate, Step};
use crate::io::sim::faults::{Fault, Faults};
use crate::io::sim::rng::Rng;
use crate::io::sim::tape::Tape;
use crate::io::{File, Sync, file};
use crate::memory::{Aligned, ShardId};

const EIO: i32 = 5;

/// How everything ends at once.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Crash {
    /// The process is killed; the machine goes on, and writes what it was given.
    Killed,
    /// The machine loses its power.
    Power,
}

#[derive(Debug)]
enum Work {
    Write { bytes: Aligned },
    Read { at: u64, into: Aligned, len: usize },
}

#[derive(Debug)]
struct Flight {
    /// Of the write, or one of its own.
    number: u64,
    shard: ShardId,
    tag: u64,
    file: u64,
    work: Work,
    /// Looks of the shard until it is over.
    looks: usize,
}

/// The disk and what is in flight on it. Draws from numbers of its own, so that a run without files is what it was.
#[derive(Debug)]
pub(in crate::io::sim) struct Drive {
    pub disk: Disk,
    pub rng: Rng,
    /// The disk when recording began.
    start: Disk,
    flights: Vec<Flight>,
    /// By file: where a write in flight begins and ends, until the shard has taken its completion.
    writing: BTreeMap<u64, (u64, u64)>,
    /// By the number of an opened file: the number of the file.
    opened: BTreeMap<u64, u64>,
    opens: u64,
    /// Whether the root is locked.
    locked: Arc<AtomicBool>,
}

impl Drive {
    pub fn new(disk: Disk, seed: u64) -> Drive {
        Drive {
            start: disk.clone(),
            disk,
            rng: Rng::new(seed ^ 0x6469_736B_6469_736B),
            flights: Vec::new(),
            writing: BTreeMap::new(),
            opened: BTreeMap::new(),
            opens: 0,
            locked: Arc::default(),
        }
    }

    pub fn open(&mut self, file: u64) -> File {
        self.opens += 1;
        self.opened.insert(self.opens, file);
        File::imagined(self.opens)
    }

    /// The number of an opened file.
    pub fn file(&self, opened: &File) -> u64 {
        let number = opened.imagined_number();
        let file = self.opened.get(&number).copied();
        file.unwrap_or_else(|| panic!("io-rule: {opened:?} was opened before the last crash"))
    }

    /// Takes the lock; `None` if somebody has it.
    pub fn lock(&self) -> Option<Arc<AtomicBool>> {
        let was_locked = self.locked.swap(true, Ordering::Relaxed);
        (!was_locked).then(|| Arc::clone(&self.locked))
    }

    /// Whether a write fails, and what of it reached the disk then.
    pub fn draw_write(&mut self, faults: &Faults) -> (Result<(), i32>, Fate) {
        if !self.rng.happens(faults.disk.write_fails) {
            return (Ok(()), Fate::Kept);
        }
        let has_effect = self.rng.happens(faults.disk.failed_write_counts);
        (Err(EIO), if has_effect { Fate::draw(&mut self.rng) } else { Fate::Dropped })
    }

    pub fn draw_read(&mut self, faults: &Faults) -> Result<(), i32> {
        if self.rng.happens(faults.disk.read_fails) { Err(EIO) } else { Ok(()) }
    }
}

impl World {
    /// A world on a disk that has seen another one.
    pub fn with_disk(shards: u16, faults: Faults, seed: u64, disk: Disk) -> World {
        let mut world = World::new(shards, faults, seed);
        world.drive = Drive::new(disk, seed);
        world
    }

    pub fn disk(&self) -> &Disk {
        &self.drive.disk
    }

    pub fn disk_mut(&mut self) -> &mut Disk {
        &mut self.drive.disk
    }

    /// Records what happens to the disk from now on.
    pub fn record_disk(&mut self) {
        self.drive.start = self.drive.disk.clone();
        self.drive.disk.record();
    }

    /// What was recorded; recording ends.
    pub fn take_tape(&mut self) -> Tape {
        let steps = self.drive.disk.take_tape();
        Tape::new(std::mem::take(&mut self.drive.start), steps)
    }

    /// Everything ends at once but the disk: connections are reset, operations in flight never end, opened files and the lock
    /// are gone. What is undecided on the disk is drawn. Then a cluster of `shards` shards may start; make each a new
    /// [`SimIo`](crate::io::sim::SimIo).
    pub fn crash(&mut self, crash: Crash, shards: u16) {
        let Drive { disk, rng, flights, writing, opened, locked, .. } = &mut self.drive;
        flights.clear();
        writing.clear();
        opened.clear();
        *locked = Arc::default();
        let counts = &mut self.counts;
        let mut decide = || {
            let fate = Fate::draw(rng);
            match fate {
                Fate::Kept => {}
                Fate::Dropped => counts.count(Fault::WriteDropped),
                Fate::Torn(_) => counts.count(Fault::WriteTorn),
            }
            fate
        };
        match crash {
            Crash::Killed => disk.kill(&mut decide),
            Crash::Power => disk.crash(&mut decide),
        }
        if rng.happens(self.faults.disk.bit_flips) {
            let named: Vec<(String, u64)> =
                disk.files().map(|(path, file)| (path.to_owned(), file)).collect();
            let filled: Vec<_> = named.into_iter().filter(|(_, file)| disk.len(*file) > 0).collect();
            if !filled.is_empty() {
                let (path, file) = rng.pick(&filled).clone();
                let at = rng.below(disk.len(file) as usize) as u64;
                disk.flip(&path, at, rng.below(8) as u8);
                counts.count(Fault::BitFlipped);
            }
        }
        for socket in &mut self.sockets {
            (socket.receive, socket.send, socket.cancel, socket.token) = (None, None, None, None);
            socket.untaken = 0;
            if !socket.link.shard_is_closed() {
                socket.link.shard_close();
                socket.link.fail(true);
            }
        }
        self.listeners.clear();
        let core = || Core { queue: Default::default(), slots: vec![Slot::default(); self.faults.buffers] };
        self.cores = (0..shards).map(|_| core()).collect();
    }

    pub(in crate::io::sim) fn write_file(
        &mut self,
        shard: ShardId,
        file: &File,
        tag: u64,
        at: u64,
        bytes: Aligned,
        sync: Sync,
    ) {
        file::check(at, bytes.len());
        let drive = &mut self.drive;
        let file = drive.file(file);
        let begun = drive.writing.insert(file, (at, at + bytes.len() as u64));
        assert!(
            begun.is_none(),
            "io-rule: shard {shard} writes file {file} while a write is in flight on it"
        );
        let number = drive.disk.number();
        let copy = Arc::from(bytes.as_slice());
        drive.disk.apply(Step::Begun { write: number, file, at, bytes: copy, sync });
        self.begin_flight(number, shard, tag, file, Work::Write { bytes });
    }

    pub(in crate::io::sim) fn read_file(
        &mut self,
        shard: ShardId,
        file: &File,
        tag: u64,
        at: u64,
        into: Aligned,
        len: usize,
    ) {
        file::check(at, len);
        let file = self.drive.file(file);
        let overlaps = |&(from, to): &(u64, u64)| from < at + len as u64 && at < to;
        let is_written = self.drive.writing.get(&file).is_some_and(overlaps);
        assert!(!is_written, "io-rule: shard {shard} reads what it writes at {at} of file {file}");
        let number = self.drive.disk.number();
        self.begin_flight(number, shard, tag, file, Work::Read { at, into, len });
    }

    fn begin_flight(&mut self, number: u64, shard: ShardId, tag: u64, file: u64, work: Work) {
        let looks = self.drive.rng.below(self.faults.disk.looks + 1);
        if looks > 0 {
            self.counts.count(Fault::DiskSlow);
        }
        self.drive.flights.push(Flight { number, shard, tag, file, work, looks });
    }

    /// Lets operations of `shard` on files go on.
    pub(super) fn progress_files(&mut self, shard: ShardId) {
        let (mut over, mut left) = (Vec::new(), Vec::new());
        for mut flight in std::mem::take(&mut self.drive.flights) {
            if flight.shard == shard && flight.looks == 0 {
                over.push(flight);
            } else {
                flight.looks -= usize::from(flight.shard == shard);
                left.push(flight);
            }
        }
        self.drive.flights = left;
        for Flight { number, tag, file, work, .. } in over {
            let drive = &mut self.drive;
            let pending = match work {
                Work::Write { bytes } => {
                    let (result, reached) = drive.draw_write(&self.faults);
                    if result.is_err() {
                        self.counts.count(Fault::WriteFailed);
                    }
                    drive.disk.apply(Step::Ended { write: number, result, reached });
                    Pending::Written { tag, file, bytes, result }
                }
                Work::Read { at, mut into, len } => {
                    let result = drive.draw_read(&self.faults);
                    into.clear();
                    match result {
                        Ok(()) => into.extend(&drive.disk.read(file, at, len)),
                        Err(_) => self.counts.count(Fault::ReadFailed),
                    }
                    Pending::FileRead { tag, bytes: into, result }
                }
            };
            self.push(shard, Stream::File(number), pending);
        }
    }

    /// The shard learns that a write of the file is over.
    pub(super) fn written(&mut self, file: u64) {
        self.drive.writing.remove(&file);
    }

    /// Shards with operations in flight on files.
    pub(super) fn shards_on_files(&self) -> BTreeSet<ShardId> {
        self.drive.flights.iter().map(|flight| flight.shard).collect()
    }
}
