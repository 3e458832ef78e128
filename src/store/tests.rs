//! The log against files of the kernel in a temporary directory, and against damage.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use super::record::{Identifiers, Queued, Record};
use super::{Found, Keeper, Log, Manifest, Origin, Progress, State, WallClock, Write, recover};
use crate::clock::NEVER;
use crate::io::files::OsFiles;
use crate::io::sim::{Fate, Faults, SimFiles, Step, World};
use crate::io::{Files, Sync};
use crate::memory::{Aligned, MessageView, SECTOR};
use crate::wire::Qos;

const ORIGIN: Origin = Origin { store: 77, run: 3, shard: 0 };
const CLOCK: WallClock = WallClock { epoch: 1000 };
const SEGMENT: u64 = 64 * 1024;

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("ringmq-store-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Dir(path)
    }

    fn files(&self) -> OsFiles {
        OsFiles::new(&self.0)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A log that writes as soon as it is told to.
struct Stage<'a> {
    files: &'a dyn Files,
    keeper: Keeper,
    log: Log,
    now: u64,
}

impl<'a> Stage<'a> {
    fn new(files: &'a dyn Files) -> Stage<'a> {
        let keeper = Keeper::new(1, SEGMENT, 1 << 30);
        files.create_dir("000").expect("a directory");
        let mut stage = Stage { files, log: Log::new(ORIGIN, keeper.clone()), keeper, now: 10 };
        stage.log.begin_walk();
        stage.log.end_walk();
        stage.commit();
        stage
    }

    fn fill(&self) {
        self.keeper.fill(self.files, "r3").expect("segments");
    }

    /// Everything that was appended goes to the disk.
    fn commit(&mut self) {
        while !self.log.is_idle() {
            self.now += 1;
            self.fill();
            let Some(write) = self.log.seal(self.now, 1000 + self.now, 0) else { continue };
            self.files.write_at(&write.file, write.at, &write.bytes).expect("a write");
            assert_eq!(self.log.written(write.bytes, Ok(())), Progress::OnDisk);
        }
    }

    fn session(&mut self, index: u32, client_id: &str) {
        let user = Some("user");
        self.log.append(&Record::Began { index, packet_id_next: 1, client_id, user, by_certificate: false });
        self.log.append(&Record::Connected { index, expiry_s: 60 });
    }

    fn message(&mut self, index: u32, payload: &str) {
        let message = MessageView {
            topic: "a/b",
            properties: &[],
            payload: payload.as_bytes(),
            qos: Qos::AtLeastOnce,
            retain: false,
            expires_at: NEVER,
            publisher: 5,
            whole: None,
            origin: 0,
            is_repeat: false,
        };
        self.log.append(&Record::Message { name: 0, message });
        self.log.append(&Record::Queued { index, queued: QUEUED });
    }

    /// Everything again, as a shard would walk.
    fn walk(&mut self, found: &State) {
        self.log.begin_walk();
        for (index, session) in found.sessions().enumerate() {
            self.session(index as u32, &session.client_id);
            for delivery in &session.queue {
                let payload = String::from_utf8_lossy(delivery.message.payload()).into_owned();
                self.message(index as u32, &payload);
            }
        }
        self.log.end_walk();
        self.commit();
    }
}

const QUEUED: Queued<'static> =
    Queued { qos: Qos::AtLeastOnce, retain: 0, share: "", identifiers: Identifiers::Numbers(&[7]) };

fn read(files: &dyn Files) -> Found {
    recover(files, ORIGIN, CLOCK).expect("a directory that can be read")
}

fn queue_of(state: &State, index: u32) -> Vec<String> {
    let queue = &state.session(index).expect("a session").queue;
    queue.iter().map(|one| String::from_utf8_lossy(one.message.payload()).into_owned()).collect()
}

#[test]
fn what_was_written_comes_back() {
    let dir = Dir::new("back");
    let files = dir.files();
    let mut stage = Stage::new(&files);
    stage.session(4, "client");
    stage.log.append(&Record::Subscribed { index: 4, filter: "a/#", options: 1, identifier: 9 });
    for n in 0..5 {
        stage.message(4, &format!("m{n}"));
        stage.commit();
    }
    stage.log.append(&Record::Sent { index: 4, packet_id: 11 });
    stage.log.append(&Record::Sent { index: 4, packet_id: 12 });
    stage.log.append(&Record::Acked { index: 4, packet_id: 11 });
    stage.log.append(&Record::Dropped { index: 4, from: 1, count: 1 });
    stage.log.append(&Record::Received { index: 4, packet_id: 99 });
    stage.log.append(&Record::Left { index: 4, ends_at: 70_000, will_at: NEVER });
    stage.commit();
    let Found { state, report, .. } = read(&files);
    assert_eq!(report.damage, Vec::<String>::new());
    assert!(state.is_complete());
    let session = state.session(4).expect("the session");
    assert_eq!((&*session.client_id, session.user.as_deref()), ("client", Some("user")));
    assert_eq!(session.filters().len(), 1);
    assert_eq!((session.expiry_s, session.ends_at), (60, Some(70_000)));
    assert_eq!(session.ends_at(CLOCK, 5), 69_000);
    assert_eq!(queue_of(&state, 4), ["m2", "m4"]);
    assert_eq!(session.queue[0].identifiers[..], [7]);
    let flying: Vec<_> = session.flying.iter().map(|(id, one)| (*id, one.message.payload())).collect();
    assert_eq!(flying, [(12, &b"m1"[..])]);
    assert_eq!((session.packet_id_next, session.received.contains(&99)), (13, true));
}

/// Every prefix of a log, as a crash would leave it, is a prefix of what was appended; and a piece of
/// a commit counts as none.
#[test]
fn every_prefix_of_a_segment_is_a_prefix_of_the_records() {
    let dir = Dir::new("prefix");
    let files = dir.files();
    let mut stage = Stage::new(&files);
    stage.session(0, "client");
    stage.commit();
    for n in 0..6 {
        stage.message(0, &format!("{n}{}", "x".repeat(1000 * n)));
        stage.commit();
    }
    let path = dir.0.join("000/r3-000001.log");
    let whole = std::fs::read(&path).expect("a segment");
    let mut seen = Vec::new();
    for sectors in 1..whole.len() / SECTOR {
        let mut cut = whole.clone();
        cut[sectors * SECTOR..].fill(0);
        std::fs::write(&path, &cut).expect("a write");
        let Found { state, report, .. } = read(&files);
        assert_eq!(report.damage.is_empty(), state.is_complete(), "cut at sector {sectors}: {report:?}");
        if state.session(0).is_some() {
            let queue = queue_of(&state, 0);
            for (n, payload) in queue.iter().enumerate() {
                assert!(payload.starts_with(&n.to_string()), "{payload} at {n}");
            }
            seen.push(queue.len());
        }
    }
    assert!(seen.is_sorted() && seen.first() == Some(&0) && seen.last() == Some(&6), "{seen:?}");
}

/// A byte that flips is found: the record that it was in is not taken, and it is said unless it was
/// in what nobody was answered for.
#[test]
fn a_byte_that_flips_is_never_taken_for_content() {
    let dir = Dir::new("flip");
    let files = dir.files();
    let mut stage = Stage::new(&files);
    stage.session(0, "client");
    stage.commit();
    for n in 0..3 {
        stage.message(0, &format!("m{n}"));
        stage.commit();
    }
    let path = dir.0.join("000/r3-000001.log");
    let whole = std::fs::read(&path).expect("a segment");
    let used = 6 * SECTOR;
    let last = 5 * SECTOR;
    for at in (SECTOR..used).filter(|at| at % SECTOR < 200) {
        let mut bad = whole.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bad).expect("a write");
        let Found { state, report, .. } = read(&files);
        if state.session(0).is_some() {
            let queue = queue_of(&state, 0);
            assert!(queue.iter().all(|payload| ["m0", "m1", "m2"].contains(&&**payload)), "{queue:?}");
        }
        let is_padding = queue_is_whole(&state);
        assert!(is_padding || !report.damage.is_empty() || at >= last, "byte {at}: {report:?}");
    }
}

fn queue_is_whole(state: &State) -> bool {
    state.session(0).is_some() && queue_of(state, 0) == ["m0", "m1", "m2"]
}

/// A commit that has the right number and place, and is not the one that followed.
#[test]
fn a_commit_of_another_log_is_not_taken_for_the_next_one() {
    let logs = ["one", "two"].map(|name| {
        let dir = Dir::new(name);
        let files = dir.files();
        let mut stage = Stage::new(&files);
        stage.session(0, "client");
        stage.commit();
        for n in 0..3 {
            stage.message(0, &format!("{name} {n}"));
            stage.commit();
        }
        let path = dir.0.join("000/r3-000001.log");
        let bytes = std::fs::read(&path).expect("a segment");
        (dir, path, bytes)
    });
    let [(dir, path, one), (_, _, two)] = logs;
    let last = 5 * SECTOR..6 * SECTOR;
    let mut mixed = one;
    mixed[last.clone()].copy_from_slice(&two[last]);
    std::fs::write(&path, &mixed).expect("a write");
    let Found { report, .. } = read(&dir.files());
    assert!(report.damage.iter().any(|what| what.contains("does not follow")), "{report:?}");
}

#[test]
fn segments_are_used_again_after_a_walk() {
    let dir = Dir::new("walk");
    let files = dir.files();
    let mut stage = Stage::new(&files);
    stage.session(0, "client");
    for round in 0..20 {
        for n in 0..20 {
            stage.message(0, &format!("{round} {n} {}", "y".repeat(900)));
            stage.commit();
        }
        stage.log.append(&Record::Dropped { index: 0, from: round, count: 20 });
        stage.message(0, &format!("kept {round}"));
        stage.commit();
        let Found { state, report, .. } = read(&files);
        assert_eq!(report.damage, Vec::<String>::new(), "round {round}");
        let kept: Vec<String> = (0..=round).map(|round| format!("kept {round}")).collect();
        assert_eq!(queue_of(&state, 0), kept);
        stage.walk(&state);
    }
    let files_len = std::fs::read_dir(dir.0.join("000")).expect("a directory").count();
    assert!(files_len <= 8, "{files_len} segments for what fits into one");
}

/// A write that fails goes to another segment, and what it left behind is not read twice.
#[test]
fn a_write_that_fails_goes_elsewhere() {
    let dir = Dir::new("fail");
    let files = dir.files();
    for leaves_its_bytes in [false, true] {
        let _ = std::fs::remove_dir_all(dir.0.join("000"));
        let mut stage = Stage::new(&files);
        stage.session(0, "client");
        stage.message(0, "m0");
        stage.commit();
        stage.message(0, "m1");
        stage.fill();
        stage.now += 2;
        let write = stage.log.seal(stage.now, 2000, 0).expect("a write");
        if leaves_its_bytes {
            files.write_at(&write.file, write.at, &write.bytes).expect("a write");
        }
        assert_eq!(stage.log.written(write.bytes, Err(5)), Progress::Again);
        stage.message(0, "m2");
        stage.commit();
        let Found { state, report, .. } = read(&files);
        assert_eq!(
            (report.damage, queue_of(&state, 0)),
            (vec![], vec!["m0".into(), "m1".into(), "m2".into()])
        );
        stage.message(0, "m3");
        stage.fill();
        stage.now += 2;
        let write = stage.log.seal(stage.now, 2000, 0).expect("a write");
        assert_eq!(stage.log.written(write.bytes, Err(5)), Progress::Again);
        stage.fill();
        let write = stage.log.seal(stage.now, 2000, 0).expect("a write");
        assert_eq!(stage.log.written(write.bytes, Err(28)), Progress::Broken(28));
        assert!(stage.log.seal(stage.now + 5, 2000, 0).is_none(), "nothing more is written");
    }
}

#[test]
fn a_commit_larger_than_a_segment_has_one_of_its_size() {
    let dir = Dir::new("large");
    let files = dir.files();
    let mut stage = Stage::new(&files);
    stage.session(0, "client");
    stage.message(0, &"z".repeat(3 * SEGMENT as usize));
    stage.message(0, "behind");
    stage.commit();
    let Found { state, report, .. } = read(&files);
    assert_eq!(report.damage, Vec::<String>::new());
    assert_eq!(queue_of(&state, 0)[1], "behind");
}

#[test]
fn a_busy_log_commits_once_in_a_millisecond() {
    let dir = Dir::new("pace");
    let files = dir.files();
    let mut stage = Stage::new(&files);
    stage.session(0, "client");
    stage.commit();
    stage.fill();
    stage.now += 1;
    let many = 100;
    stage.message(0, "first");
    let write = stage.log.seal(stage.now, 2000, many).expect("the first one at once");
    stage.message(0, "second");
    assert!(stage.log.seal(stage.now, 2000, many).is_none(), "one is on its way");
    assert_eq!(stage.log.written(Aligned::default(), Ok(())), Progress::OnDisk);
    drop(write);
    assert!(stage.log.seal(stage.now, 2000, many).is_none() && stage.log.waits());
    assert!(stage.log.seal(stage.now, 2000, 1).is_some(), "few wait");
    assert_eq!(stage.log.written(Aligned::default(), Ok(())), Progress::OnDisk);
    stage.message(0, "third");
    assert!(stage.log.seal(stage.now, 2000, 1).is_none(), "two in this millisecond");
    assert!(stage.log.seal(stage.now + 1, 2000, many).is_some());
}

/// Level `process`: writes flush nothing, and the keeper does.
#[test]
fn what_writes_do_not_flush_the_keeper_flushes() {
    for flushes in [true, false] {
        let world = Rc::new(RefCell::new(World::new(1, Faults::none(), 1)));
        let files = SimFiles::new(Rc::clone(&world));
        files.create_dir("000").expect("a directory");
        let keeper = Keeper::new(1, SEGMENT, 1 << 30);
        let keeper = if flushes { keeper.flushing() } else { keeper };
        keeper.fill(&files, "r3").expect("segments");
        let mut log = Log::new(ORIGIN, keeper.clone());
        log.append(&Record::Stopped);
        for write in 0..2 {
            log.append(&Record::Stopped);
            let Write { file, at, bytes } = log.seal(10 + write, 2000, 0).expect("a write");
            let file = file.imagined_number();
            let begun = Step::Begun { write, file, at, bytes: bytes.as_slice().into(), sync: Sync::None };
            let ended = Step::Ended { write, result: Ok(()), reached: Fate::Kept };
            [begun, ended].into_iter().for_each(|step| world.borrow_mut().disk_mut().apply(step));
            assert_eq!(log.written(bytes, Ok(())), Progress::OnDisk);
            assert_eq!(world.borrow().disk().undecided(), 1);
            keeper.flush(&files).expect("a flush");
            assert_eq!(world.borrow().disk().undecided(), usize::from(!flushes));
            if !flushes {
                break;
            }
        }
    }
}

#[test]
fn a_manifest_says_what_was_written_or_that_it_is_damaged() {
    let dir = Dir::new("manifest");
    let files = dir.files();
    assert!(Manifest::read(&files).expect("none").is_none());
    let manifest = Manifest { store: 5, run: 12, shards: 4, keys: [1, 2, 3, u64::MAX] };
    manifest.write(&files).expect("a write");
    assert_eq!(Manifest::read(&files).expect("one"), Some(manifest));
    let path = dir.0.join("manifest");
    let text = std::fs::read(&path).expect("a text");
    for at in 0..text.len() - 1 {
        let mut bad = text.clone();
        bad[at] ^= 1;
        std::fs::write(&path, &bad).expect("a write");
        assert!(Manifest::read(&files).is_err(), "byte {at}");
    }
}
