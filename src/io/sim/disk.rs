//! A disk made of sectors that outlives its machine: what a crash leaves of what was written, and nothing else.
//!
//! Everything that happens to it is a [`Step`], so that a [`Tape`](super::Tape) of the steps makes the same disk again, up to
//! any point. What is *sure* survives every crash. All else is undecided until the crash: each write of it is kept, dropped or
//! torn by itself ([`Fate`]), whatever became of the others.
//!
//! - A write is in flight from its begin to its end. In flight it may reach the disk or not, and is not read.
//! - After its end it is read. A synced write is sure then, and it alone: earlier writes that were not synced stay undecided
//!   (a device with FUA flushes nothing else).
//! - Names change in order, as a journal keeps them: a crash keeps the first few changes that were not synced.
//! - A write that failed may have reached the disk in any part.

mod image;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::image::Image;
use super::rng::Rng;
use crate::io::Sync;
use crate::memory::SECTOR;

/// What a disk never tears.
pub const ATOM: usize = 512;

/// Something that happens to a disk. Files go by number; a name leads to a number.
#[derive(Clone, Debug)]
pub enum Step {
    /// A write begins.
    Begun {
        write: u64,
        file: u64,
        at: u64,
        bytes: Arc<[u8]>,
        sync: Sync,
    },
    /// A write ends; of one that failed, `reached` says what became of it.
    Ended {
        write: u64,
        result: Result<(), i32>,
        reached: Fate,
    },
    /// A file was filled with zeros up to this length.
    Filled {
        file: u64,
        len: u64,
    },
    /// What was written to the file is sure.
    Synced {
        file: u64,
    },
    MadeDir {
        path: String,
    },
    /// A new file, empty.
    Made {
        path: String,
        file: u64,
    },
    Renamed {
        from: String,
        to: String,
    },
    Removed {
        path: String,
    },
    /// All names so far are sure.
    NamesSynced,
}

/// What becomes of something undecided.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    Kept,
    Dropped,
    /// Some sectors of it; which ones follows from the number. A name that would be torn is dropped.
    Torn(u64),
}

#[derive(Clone, Debug)]
enum Content {
    Bytes(Arc<[u8]>),
    Zeros(u64),
}

/// A write that is not sure.
#[derive(Clone, Debug)]
struct Loose {
    write: u64,
    at: u64,
    content: Content,
    sync: Sync,
    /// By [`ATOM`]: whether it still counts. Empty for all.
    atoms: Vec<bool>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    sure: Image,
    /// Over, in their order.
    loose: Vec<Loose>,
    in_flight: Vec<Loose>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    files: BTreeMap<String, u64>,
    dirs: BTreeSet<String>,
}

/// See the top of the file.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    inodes: BTreeMap<u64, Inode>,
    names: Names,
    sure_names: Names,
    loose_names: Vec<Step>,
    /// Numbers of files and writes given so far.
    numbers: u64,
    /// Bytes that files may have; no bound if 0.
    pub room: u64,
    tape: Option<Vec<Step>>,
}

impl Disk {
    /// Keeps every step from now on.
    pub(super) fn record(&mut self) {
        self.tape = Some(Vec::new());
    }

    pub(super) fn take_tape(&mut self) -> Vec<Step> {
        self.tape.take().unwrap_or_default()
    }

    /// A number that no file and no write has.
    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Does a step.
    pub fn apply(&mut self, step: Step) {
        if let Some(tape) = &mut self.tape {
            tape.push(step.clone());
        }
        match step {
            Step::Begun { write, file, at, bytes, sync } => {
                self.numbers = self.numbers.max(write);
                let loose = Loose { write, at, content: Content::Bytes(bytes), sync, atoms: Vec::new() };
                self.inode(file).in_flight.push(loose);
            }
            Step::Ended { write, result, reached } => self.end(write, result, reached),
            Step::Filled { file, len } => {
                let content = Content::Zeros(len);
                let loose = Loose { write: 0, at: 0, content, sync: Sync::None, atoms: Vec::new() };
                self.inode(file).loose.push(loose);
            }
            Step::Synced { file } => {
                let inode = self.inode(file);
                for loose in std::mem::take(&mut inode.loose) {
                    loose.write_to(&mut inode.sure);
                }
            }
            Step::NamesSynced => {
                self.sure_names = self.names.clone();
                self.loose_names.clear();
            }
            Step::Made { .. } | Step::MadeDir { .. } | Step::Renamed { .. } | Step::Removed { .. } => {
                if let Step::Made { file, .. } = step {
                    self.numbers = self.numbers.max(file);
                    self.inodes.insert(file, Inode::default());
                }
                self.names.apply(&step);
                self.loose_names.push(step);
            }
        }
    }

    fn end(&mut self, write: u64, result: Result<(), i32>, reached: Fate) {
        let place = self.inodes.values_mut().find_map(|inode| {
            let at = inode.in_flight.iter().position(|loose| loose.write == write)?;
            Some((inode, at))
        });
        let (inode, at) = place.unwrap_or_else(|| panic!("write {write} is not in flight"));
        let mut loose = inode.in_flight.remove(at);
        if result.is_ok() && loose.sync == Sync::Data {
            let (from, to) = (loose.at, loose.at + loose.len());
            inode.loose.iter_mut().for_each(|older| older.supersede(from, to));
            loose.write_to(&mut inode.sure);
        } else {
            loose.decide(if result.is_ok() { Fate::Kept } else { reached });
            inode.loose.push(loose);
        }
    }

    fn inode(&mut self, file: u64) -> &mut Inode {
        self.inodes.get_mut(&file).unwrap_or_else(|| panic!("no file has the number {file}"))
    }

    /// How much is undecided: writes of files and changes of names.
    pub fn undecided(&self) -> usize {
        let writes = self.inodes.values().map(|inode| inode.loose.len() + inode.in_flight.len());
        writes.sum::<usize>() + self.loose_names.len()
    }

    /// The machine loses its power. `decide` is asked once for each thing that is undecided: writes by file and in their
    /// order, then names. Nothing is undecided afterwards.
    pub fn crash(&mut self, mut decide: impl FnMut() -> Fate) {
        for inode in self.inodes.values_mut() {
            let over = std::mem::take(&mut inode.loose);
            for mut loose in over.into_iter().chain(std::mem::take(&mut inode.in_flight)) {
                loose.decide(decide());
                loose.write_to(&mut inode.sure);
            }
        }
        let mut goes_on = true;
        for change in std::mem::take(&mut self.loose_names) {
            goes_on &= decide() == Fate::Kept;
            if goes_on {
                self.sure_names.apply(&change);
            }
        }
        self.names = self.sure_names.clone();
        // Nobody has opened anything any more.
        let named: BTreeSet<u64> = self.names.files.values().copied().collect();
        self.inodes.retain(|number, _| named.contains(number));
        self.tape = None;
    }

    /// The process is killed, the machine goes on: what is over is kept, and what is in flight is not decided by that.
    pub fn kill(&mut self, mut decide: impl FnMut() -> Fate) {
        for inode in self.inodes.values_mut() {
            for mut loose in std::mem::take(&mut inode.in_flight) {
                loose.decide(decide());
                inode.loose.push(loose);
            }
        }
    }

    /// Disks that a crash now may leave: with every choice of what is kept and dropped if no more than `all_up_to` things are
    /// undecided, else `drawn` of these; and `drawn` in which things are torn as well.
    pub fn crashes(&self, rng: &mut Rng, all_up_to: usize, drawn: usize) -> Vec<Disk> {
        let undecided = self.undecided();
        let choose = |bit: bool| if bit { Fate::Kept } else { Fate::Dropped };
        let crashed = |decide: &mut dyn FnMut() -> Fate| {
            let mut disk = self.clone();
            disk.crash(decide);
            disk
        };
        let mut disks = Vec::new();
        if undecided <= all_up_to {
            for choice in 0..1u64 << undecided {
                let mut left = choice;
                disks.push(crashed(&mut || {
                    let fate = choose(left & 1 == 1);
                    left >>= 1;
                    fate
                }));
            }
        } else {
            for _ in 0..drawn {
                disks.push(crashed(&mut || choose(rng.below(2) == 0)));
            }
        }
        for _ in 0..if undecided > 0 { drawn } else { 0 } {
            disks.push(crashed(&mut || Fate::draw(rng)));
        }
        disks
    }

    // What is there now.

    /// Bytes of a file.
    pub fn len(&self, file: u64) -> u64 {
        let inode = &self.inodes[&file];
        inode.loose.iter().map(Loose::end).max().unwrap_or(0).max(inode.sure.len())
    }

    /// The bytes of a file from `at` on, at most `len`.
    pub fn read(&self, file: u64, at: u64, len: usize) -> Vec<u8> {
        let inode = &self.inodes[&file];
        let len = self.len(file).saturating_sub(at).min(len as u64) as usize;
        if inode.loose.is_empty() {
            return inode.sure.read(at, len);
        }
        let mut now = Image::default();
        now.write(at, &inode.sure.read(at, len));
        inode.loose.iter().for_each(|loose| loose.write_to(&mut now));
        now.read(at, len)
    }

    /// The number of the file with this name.
    pub fn find(&self, path: &str) -> Option<u64> {
        self.names.files.get(path).copied()
    }

    pub fn has_dir(&self, path: &str) -> bool {
        path.is_empty() || self.names.dirs.contains(path)
    }

    /// All names with their files.
    pub fn files(&self) -> impl Iterator<Item = (&str, u64)> {
        self.names.files.iter().map(|(path, file)| (path.as_str(), *file))
    }

    /// Names in a directory, of files and directories, sorted.
    pub fn list(&self, dir: &str) -> Vec<String> {
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let all = self.names.files.keys().chain(&self.names.dirs);
        let inside = all.filter_map(|path| path.strip_prefix(&prefix)).filter(|name| !name.contains('/'));
        inside.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.names.files.values().map(|file| self.len(*file)).sum()
    }

    // What time does to it.

    /// Flips a bit at rest.
    ///
    /// # Panics
    /// The file has no such byte.
    pub fn flip(&mut self, path: &str, at: u64, bit: u8) {
        let file = self.find(path).unwrap_or_else(|| panic!("there is no file {path}"));
        let mut byte = self.read(file, at, 1);
        byte[0] ^= 1 << bit;
        self.inode(file).sure.write(at, &byte);
    }

    /// Cuts a file, as a repair of a file system may.
    ///
    /// # Panics
    /// There is no such file.
    pub fn cut(&mut self, path: &str, len: u64) {
        let file = self.find(path).unwrap_or_else(|| panic!("there is no file {path}"));
        self.inode(file).sure.cut(len);
    }
}

impl Names {
    fn apply(&mut self, change: &Step) {
        match change {
            Step::Made { path, file } => {
                self.files.insert(path.clone(), *file);
            }
            Step::MadeDir { path } => {
                self.dirs.insert(path.clone());
            }
            Step::Renamed { from, to } => {
                if let Some(file) = self.files.remove(from) {
                    self.files.insert(to.clone(), file);
                }
            }
            Step::Removed { path } => {
                self.files.remove(path);
            }
            Step::Begun { .. }
            | Step::Ended { .. }
            | Step::Filled { .. }
            | Step::Synced { .. }
            | Step::NamesSynced => panic!("{change:?} changes no name"),
        }
    }
}

impl Fate {
    pub fn draw(rng: &mut Rng) -> Fate {
        match rng.below(3) {
            0 => Fate::Kept,
            1 => Fate::Dropped,
            _ => Fate::Torn(rng.bits()),
        }
    }

    /// Whether each of `count` atoms is kept: by sector, by atom, or up to some point.
    fn atoms(self, count: usize) -> Vec<bool> {
        let Fate::Torn(seed) = self else { return vec![self == Fate::Kept; count] };
        let mut rng = Rng::new(seed);
        match rng.below(3) {
            0 => {
                let kept = rng.below(count + 1);
                (0..count).map(|atom| atom < kept).collect()
            }
            1 => (0..count).map(|_| rng.below(2) == 0).collect(),
            _ => {
                let per_sector = SECTOR / ATOM;
                let sectors: Vec<bool> = (0..count.div_ceil(per_sector)).map(|_| rng.below(2) == 0).collect();
                (0..count).map(|atom| sectors[atom / per_sector]).collect()
            }
        }
    }
}

impl Loose {
    fn len(&self) -> u64 {
        match &self.content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Zeros(len) => *len,
        }
    }

    fn count(&self) -> usize {
        self.len().div_ceil(ATOM as u64) as usize
    }

    fn counts(&self, atom: usize) -> bool {
        self.atoms.is_empty() || self.atoms[atom]
    }

    /// Where the last atom that counts ends.
    fn end(&self) -> u64 {
        let last = (0..self.count()).rev().find(|atom| self.counts(*atom));
        last.map_or(0, |atom| self.at + ((atom as u64 + 1) * ATOM as u64).min(self.len()))
    }

    fn decide(&mut self, fate: Fate) {
        let kept = fate.atoms(self.count());
        self.atoms = (0..self.count()).map(|atom| kept[atom] && self.counts(atom)).collect();
    }

    /// A synced write went over these bytes: what was here cannot come back.
    fn supersede(&mut self, from: u64, to: u64) {
        let covers = |atom: usize| (from..to).contains(&(self.at + (atom * ATOM) as u64));
        self.atoms = (0..self.count()).map(|atom| self.counts(atom) && !covers(atom)).collect();
    }

    fn write_to(&self, image: &mut Image) {
        match &self.content {
            Content::Zeros(_) => image.grow(self.end()),
            Content::Bytes(bytes) => {
                for (atom, piece) in bytes.chunks(ATOM).enumerate().filter(|(atom, _)| self.counts(*atom)) {
                    image.write(self.at + (atom * ATOM) as u64, piece);
                }
            }
        }
    }
}
