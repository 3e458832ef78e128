//! Files: what is written is read back, short at the end, many at once, errors, and what is in flight at the end.
#![allow(unsafe_code)] // A system call that libc has no function for.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use super::*;
use crate::io::files::{Medium, OsFiles};
use crate::memory::SECTOR;

/// A directory of a test, removed at its end.
pub(in crate::io) struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringmq-{name}-{}-{count}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    pub fn path(&self) -> &std::path::Path {
        &self.0
    }

    pub fn files(&self) -> OsFiles {
        OsFiles::new(&self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const S: usize = SECTOR;

fn aligned(bytes: &[u8]) -> Aligned {
    Aligned::from(bytes)
}

impl<B: Backend> Rig<B> {
    /// The next completion, of a write.
    fn written(&mut self) -> (u64, Aligned, Result<(), i32>) {
        match self.next() {
            Completion::Written { tag, bytes, result } => (tag, bytes, result),
            other => panic!("{other:?} instead of a write"),
        }
    }

    /// The next completion, of a read.
    fn file_read(&mut self) -> (u64, Aligned, Result<(), i32>) {
        match self.next() {
            Completion::FileRead { tag, bytes, result } => (tag, bytes, result),
            other => panic!("{other:?} instead of a read"),
        }
    }
}

pub(super) fn what_is_written_to_a_file_is_read_back<B: Backend>() {
    const SECTORS: usize = 256;
    let scratch = Scratch::new("back");
    let file = scratch.files().create("a", (SECTORS * S) as u64).unwrap();
    // As the file system has it, and through the page cache.
    let cached = std::fs::File::options().read(true).write(true).open(scratch.path().join("a")).unwrap();
    let cached = File::new(cached.into(), false);
    let mut rig = Rig::<B>::new(SMALL);
    let (mut dice, mut expected) = (Dice(11), vec![0; SECTORS * S]);
    for file in [file, cached] {
        for tag in 0..40 {
            let len = dice.roll() as usize % 64 + 1;
            let at = dice.roll() as usize % (SECTORS - len + 1) * S;
            let bytes = dice.bytes(len * S);
            expected[at..at + len * S].copy_from_slice(&bytes);
            let sync = if tag % 2 == 0 { Sync::Data } else { Sync::None };
            let (given, memory) = (aligned(&bytes), bytes);
            let address = given.as_slice().as_ptr();
            rig.io.write_file(&file, tag, at as u64, given, sync);
            let (back, given, result) = rig.written();
            assert_eq!((back, result), (tag, Ok(())));
            assert!(given.as_slice() == memory && given.as_slice().as_ptr() == address, "the same memory");
        }
        for tag in 0..40 {
            let len = dice.roll() as usize % 64 + 1;
            let at = dice.roll() as usize % (SECTORS - len + 1) * S;
            let mut into = Aligned::with_capacity(64 * S);
            into.extend(&[0xEE; 3]);
            rig.io.read_file(&file, tag, at as u64, into, len * S);
            let (back, bytes, result) = rig.file_read();
            assert_eq!((back, result, bytes.len()), (tag, Ok(()), len * S));
            assert!(bytes.as_slice() == &expected[at..at + len * S], "{len} sectors at {at}");
        }
        drop(file);
    }
    assert!(std::fs::read(scratch.path().join("a")).unwrap() == expected);
}

/// The same number on x86 and ARM.
const SYS_CACHESTAT: libc::c_long = 451;

/// Pages of a file that the page cache has not written; `None` on kernels that do not say (before 6.5).
fn dirty_pages(file: &std::fs::File) -> Option<u64> {
    // Offset and length, all of the file; then cached, dirty, and three more counts.
    let (range, mut counts) = ([0u64; 2], [0u64; 5]);
    // SAFETY: the call reads the two numbers of `range` and writes the five of `counts`, both of which outlive it.
    let result =
        unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), range.as_ptr(), counts.as_mut_ptr(), 0) };
    (result == 0).then_some(counts[1] + counts[2])
}

pub(super) fn a_synced_write_leaves_nothing_in_the_page_cache<B: Backend>() {
    let scratch = Scratch::new("dirty");
    let plain = std::fs::File::create_new(scratch.path().join("a")).unwrap();
    let file = File::new(OwnedFd::from(plain.try_clone().unwrap()), false);
    let medium = scratch.files().kind().unwrap().medium;
    if dirty_pages(&plain).is_none() || medium != Medium::Disk {
        println!("NOT RUN: this kernel or file system does not count dirty pages ({medium:?})");
        return;
    }
    let mut rig = Rig::<B>::new(SMALL);
    rig.io.write_file(&file, 1, 0, aligned(&[1; 8 * S]), Sync::None);
    assert_eq!(rig.written().2, Ok(()));
    assert_eq!(dirty_pages(&plain), Some(8), "nobody asked for a flush");
    rig.io.write_file(&file, 2, 0, aligned(&[2; 8 * S]), Sync::Data);
    assert_eq!(rig.written().2, Ok(()));
    assert_eq!(dirty_pages(&plain), Some(0));
}

pub(super) fn a_read_at_the_end_of_a_file_is_short<B: Backend>() {
    let scratch = Scratch::new("short");
    let bytes = Dice(12).bytes(5 * S + 100);
    std::fs::write(scratch.path().join("a"), &bytes).unwrap();
    let file = scratch.files().open("a").unwrap();
    let mut rig = Rig::<B>::new(SMALL);
    for (at, len, count) in
        [(0, 8, 5 * S + 100), (4, 4, S + 100), (5, 1, 100), (6, 2, 0), (100, 1, 0), (0, 5, 5 * S)]
    {
        rig.io.read_file(&file, 3, (at * S) as u64, Aligned::new(), len * S);
        let (_, read, result) = rig.file_read();
        assert_eq!((result, read.len()), (Ok(()), count), "{len} sectors at sector {at}");
        let from = (at * S).min(bytes.len());
        assert!(read.as_slice() == &bytes[from..from + count]);
    }
}

pub(super) fn many_operations_on_files_are_in_flight_at_once<B: Backend>() {
    const COUNT: u64 = 300;
    let scratch = Scratch::new("many");
    let files: Vec<File> =
        ["a", "b"].iter().map(|name| scratch.files().create(name, COUNT * S as u64).unwrap()).collect();
    // More than the queues hold.
    let mut rig = Rig::<B>::new(TINY);
    let content = |tag: u64| aligned(&[(tag % 251) as u8 + 1; S]);
    for tag in 0..2 * COUNT {
        let sync = if tag % 100 == 0 { Sync::Data } else { Sync::None };
        rig.io.write_file(&files[(tag % 2) as usize], tag, tag / 2 * S as u64, content(tag), sync);
    }
    let mut tags: Vec<u64> = (0..2 * COUNT)
        .map(|_| {
            let (tag, bytes, result) = rig.written();
            assert_eq!(result, Ok(()));
            assert!(bytes == content(tag), "each completion has the bytes of its own operation");
            tag
        })
        .collect();
    tags.sort_unstable();
    assert!(tags.into_iter().eq(0..2 * COUNT));
    for tag in 0..2 * COUNT {
        rig.io.read_file(&files[(tag % 2) as usize], tag, tag / 2 * S as u64, Aligned::new(), S);
    }
    for _ in 0..2 * COUNT {
        let (tag, bytes, result) = rig.file_read();
        assert_eq!(result, Ok(()));
        assert!(bytes == content(tag), "{tag}");
    }
}

pub(super) fn the_end_of_a_write_wakes_a_shard_that_sleeps<B: Backend>() {
    const LEN: usize = 16 << 20;
    let scratch = Scratch::new("wake");
    let file = scratch.files().create("a", LEN as u64).unwrap();
    let mut rig = Rig::<B>::new(SMALL);
    let mut bytes = Aligned::new();
    bytes.resize(LEN);
    for tag in 0..3 {
        rig.io.write_file(&file, tag, 0, bytes, Sync::Data);
        let begin = Instant::now();
        // Each wait would last for a minute if nothing ended it.
        bytes = loop {
            rig.poll(60_000);
            assert!(begin.elapsed() < PATIENCE, "it slept on");
            match rig.waiting.pop_front() {
                Some(Completion::Written { bytes, result: Ok(()), .. }) => break bytes,
                Some(other) => panic!("{other:?}"),
                None => {}
            }
        };
    }
}

pub(super) fn what_is_wrong_with_a_file_is_a_result<B: Backend>() {
    let scratch = Scratch::new("wrong");
    let path = scratch.path().join("a");
    std::fs::write(&path, [1; S]).unwrap();
    let read_only = File::new(std::fs::File::open(&path).unwrap().into(), false);
    let write_only = std::fs::File::options().write(true).open(&path).unwrap();
    let write_only = File::new(write_only.into(), false);
    let full = std::fs::File::options().read(true).write(true).open("/dev/full").unwrap();
    let full = File::new(full.into(), false);
    let mut rig = Rig::<B>::new(SMALL);
    // The device takes no flags.
    let cases = [
        (&read_only, Sync::None, libc::EBADF),
        (&read_only, Sync::Data, libc::EBADF),
        (&full, Sync::None, libc::ENOSPC),
    ];
    for (file, sync, errno) in cases {
        rig.io.write_file(file, 5, 0, aligned(&[2; 2 * S]), sync);
        let (tag, bytes, result) = rig.written();
        assert_eq!((tag, result), (5, Err(errno)));
        assert!(bytes == aligned(&[2; 2 * S]), "given back as it was");
    }
    rig.io.read_file(&write_only, 6, 0, aligned(&[3; S]), S);
    let (tag, bytes, result) = rig.file_read();
    assert_eq!((tag, bytes.len(), result), (6, 0, Err(libc::EBADF)));
    assert_eq!(std::fs::read(&path).unwrap(), [1; S]);
}

/// Sectors are the old ones or the new ones, and no others: nobody wrote to memory that the kernel was still reading.
pub(super) fn a_backend_may_end_with_files_in_flight<B: Backend>() {
    const LEN: usize = 4 << 20;
    let scratch = Scratch::new("ends");
    let file = scratch.files().create("a", 4 * LEN as u64).unwrap();
    for round in 1..=3u8 {
        let mut rig = Rig::<B>::new(SMALL);
        for part in 0..4 {
            rig.io.write_file(&file, part, part * LEN as u64, aligned(&vec![round; LEN]), Sync::Data);
            rig.io.read_file(&file, part, part * LEN as u64, Aligned::new(), LEN);
        }
        if round > 1 {
            rig.io.submit_and_wait(0);
        }
        drop(rig);
        // Would be given to whoever asks next if it had been freed.
        let taken: Vec<Aligned> = (0..8).map(|_| aligned(&vec![0xEE; LEN])).collect();
        std::thread::sleep(Duration::from_millis(20));
        let now = std::fs::read(scratch.path().join("a")).unwrap();
        let is_whole = |sector: &[u8]| sector[0] <= round && sector.iter().all(|byte| *byte == sector[0]);
        assert!(now.chunks(S).all(is_whole), "round {round}");
        assert!(taken.iter().all(|bytes| bytes.as_slice().iter().all(|byte| *byte == 0xEE)));
    }
}
