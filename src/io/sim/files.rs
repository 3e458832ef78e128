//! [`Files`] of the simulated disk.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::World;
use super::disk::Step;
use super::faults::Fault;
use crate::io::files::{FileSystem, Lock, LockError};
use crate::io::{File, Files, Sync, file};
use crate::memory::{Aligned, SECTOR};

const ENOSPC: i32 = 28;
const LOCK: &str = "LOCK";
/// The number of ext4.
const EXT4: u32 = 0xEF53;

/// A process's view of the disk in a [`World`].
#[derive(Clone, Debug)]
pub struct SimFiles {
    world: Rc<RefCell<World>>,
}

/// Unlocks when it is dropped.
#[derive(Debug)]
struct Held(Arc<AtomicBool>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

/// The directory of a path.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

impl SimFiles {
    pub fn new(world: Rc<RefCell<World>>) -> SimFiles {
        SimFiles { world }
    }

    fn find(&self, path: &str) -> io::Result<u64> {
        self.world.borrow().drive.disk.find(path).ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// A new file, whose name is not sure yet.
    fn make(&self, path: &str) -> io::Result<u64> {
        let disk = &mut self.world.borrow_mut().drive.disk;
        if !disk.has_dir(parent(path)) {
            return Err(ErrorKind::NotFound.into());
        }
        let file = disk.number();
        disk.apply(Step::Made { path: path.to_owned(), file });
        Ok(file)
    }

    fn apply(&self, step: Step) {
        self.world.borrow_mut().drive.disk.apply(step);
    }

    fn write(&self, file: u64, at: u64, bytes: &[u8], sync: Sync) -> io::Result<()> {
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        let write = world.drive.disk.number();
        world.drive.disk.apply(Step::Begun { write, file, at, bytes: bytes.into(), sync });
        let (result, reached) = world.drive.draw_write(&world.faults);
        world.drive.disk.apply(Step::Ended { write, result, reached });
        if result.is_err() {
            world.count(Fault::WriteFailed);
        }
        result.map_err(errno)
    }

    fn read_some(&self, file: u64, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        let result = world.drive.draw_read(&world.faults);
        if result.is_err() {
            world.count(Fault::ReadFailed);
        }
        result.map(|()| world.drive.disk.read(file, at, len)).map_err(errno)
    }
}

impl Files for SimFiles {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        Ok(self.world.borrow().drive.disk.list(dir))
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        let disk = &mut self.world.borrow_mut().drive.disk;
        let ends = dir.match_indices('/').map(|(at, _)| at).chain([dir.len()]);
        for end in ends {
            let path = &dir[..end];
            if disk.find(path).is_some() {
                return Err(ErrorKind::AlreadyExists.into());
            }
            if !disk.has_dir(path) {
                disk.apply(Step::MadeDir { path: path.to_owned() });
                disk.apply(Step::NamesSynced);
            }
        }
        Ok(())
    }

    fn create(&self, path: &str, len: u64) -> io::Result<File> {
        assert_eq!(len % SECTOR as u64, 0, "a file of {len} bytes, which are no whole sectors");
        if self.find(path).is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let file = self.make(path)?;
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        let drive = &mut world.drive;
        let is_full = drive.disk.room > 0 && drive.disk.used() + len > drive.disk.room;
        if is_full || drive.rng.happens(world.faults.disk.no_space) {
            drive.disk.apply(Step::Removed { path: path.to_owned() });
            world.count(Fault::NoSpace);
            return Err(errno(ENOSPC));
        }
        drive.disk.apply(Step::Filled { file, len });
        drive.disk.apply(Step::Synced { file });
        drive.disk.apply(Step::NamesSynced);
        Ok(drive.open(file))
    }

    fn open(&self, path: &str) -> io::Result<File> {
        let file = self.find(path)?;
        Ok(self.world.borrow_mut().drive.open(file))
    }

    fn len(&self, file: &File) -> io::Result<u64> {
        let drive = &self.world.borrow().drive;
        Ok(drive.disk.len(drive.file(file)))
    }

    fn read_at(&self, file: &File, at: u64, into: &mut Aligned, len: usize) -> io::Result<()> {
        file::check(at, len);
        into.clear();
        let file = self.world.borrow().drive.file(file);
        into.extend(&self.read_some(file, at, len)?);
        Ok(())
    }

    fn write_at(&self, file: &File, at: u64, bytes: &Aligned) -> io::Result<()> {
        file::check(at, bytes.len());
        let file = self.world.borrow().drive.file(file);
        self.write(file, at, bytes.as_slice(), Sync::Data)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        let file = world.drive.file(file);
        // What is undecided after a failure stays so.
        let (result, _) = world.drive.draw_write(&world.faults);
        match result {
            Ok(()) => world.drive.disk.apply(Step::Synced { file }),
            Err(_) => world.count(Fault::WriteFailed),
        }
        result.map_err(errno)
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let file = self.find(path)?;
        let len = self.world.borrow().drive.disk.len(file);
        self.read_some(file, 0, len as usize)
    }

    fn replace(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let beside = format!("{path}.new");
        let file = self.make(&beside)?;
        self.write(file, 0, bytes, Sync::None)?;
        self.apply(Step::Synced { file });
        self.apply(Step::Renamed { from: beside, to: path.to_owned() });
        self.apply(Step::NamesSynced);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.find(from)?;
        if !self.world.borrow().drive.disk.has_dir(parent(to)) {
            return Err(ErrorKind::NotFound.into());
        }
        self.apply(Step::Renamed { from: from.to_owned(), to: to.to_owned() });
        self.apply(Step::NamesSynced);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.find(path)?;
        self.apply(Step::Removed { path: path.to_owned() });
        self.apply(Step::NamesSynced);
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let disk = &self.world.borrow().drive.disk;
        Ok(if disk.room == 0 { u64::MAX } else { disk.room.saturating_sub(disk.used()) })
    }

    fn kind(&self) -> io::Result<FileSystem> {
        Ok(FileSystem::of(EXT4))
    }

    fn lock(&self) -> Result<Lock, LockError> {
        let held = self.world.borrow().drive.lock().ok_or(LockError::Held { pid: None })?;
        if self.find(LOCK).is_err() {
            self.make(LOCK).map_err(LockError::Failed)?;
        }
        Ok(Lock::new(Held(held)))
    }
}
