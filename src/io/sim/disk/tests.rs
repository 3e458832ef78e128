//! The simulated disk: what it keeps, what it may lose, and that it notices each broken rule. The oracle knows no images
//! and no masks: for each 512 bytes of a file it has the values that may be there.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::rc::Rc;

use super::*;
use crate::io::files::LockError;
use crate::io::sim::{Crash, DiskFaults, Fault, FaultCounts, Faults, Odds, SimFiles, SimIo, Tape, World};
use crate::io::{Completion, File, Files, Io, ListenerId};
use crate::memory::Aligned;

const S: usize = SECTOR;
const SECTORS: usize = 6;
const ATOMS: usize = SECTORS * S / ATOM;

/// A world with a shard and files.
struct Bench {
    world: Rc<RefCell<World>>,
    io: SimIo,
    files: SimFiles,
}

impl Bench {
    fn on(world: World) -> Bench {
        let world = Rc::new(RefCell::new(world));
        Bench { io: SimIo::new(0, world.clone()), files: SimFiles::new(world.clone()), world }
    }

    fn new(faults: Faults, seed: u64) -> Bench {
        Bench::on(World::new(2, faults, seed))
    }

    fn turn(&mut self) -> Vec<Completion> {
        let mut completions = Vec::new();
        self.io.completions(&mut completions);
        completions
    }

    fn crash(&mut self, crash: Crash) {
        self.world.borrow_mut().crash(crash, 1);
        self.io = SimIo::new(0, self.world.clone());
    }
}

fn sectors(value: u8, count: usize) -> Aligned {
    Aligned::from(&vec![value; count * S][..])
}

/// The value of each atom of the file.
fn atoms(files: &SimFiles, file: &File) -> Vec<u8> {
    let mut bytes = Aligned::new();
    files.read_at(file, 0, &mut bytes, SECTORS * S).unwrap();
    assert_eq!(bytes.len(), SECTORS * S);
    let one = |atom: &[u8]| {
        assert!(atom.iter().all(|byte| *byte == atom[0]), "an atom is torn");
        atom[0]
    };
    bytes.as_slice().chunks(ATOM).map(one).collect()
}

/// What may be in an atom.
#[derive(Clone)]
struct Possible {
    /// What a read finds; several after a failed write.
    now: BTreeSet<u8>,
    /// What a crash may leave.
    later: BTreeSet<u8>,
}

/// One run against the oracle; returns what happened and what a crash lost or tore.
fn run(seed: u64, sum: &mut FaultCounts) -> String {
    let mut rng = Rng::new(seed);
    let mut faults = Faults { disk: DiskFaults::draw(&mut rng), late: rng.odds(5_000), ..Faults::none() };
    faults.disk.write_fails = rng.odds(3_000);
    (faults.disk.no_space, faults.disk.bit_flips, faults.disk.read_fails) =
        (Odds::NEVER, Odds::NEVER, Odds::NEVER);
    let mut bench = Bench::new(faults, rng.bits());
    let mut file = bench.files.create("f", (SECTORS * S) as u64).unwrap();
    let one = |value| BTreeSet::from([value]);
    let mut oracle = vec![Possible { now: one(0), later: one(0) }; ATOMS];
    let mut in_flight: Option<(u8, std::ops::Range<usize>, Sync)> = None;
    let mut said = String::new();
    for value in 1..=200u8 {
        match rng.below(10) {
            0..4 if in_flight.is_none() => {
                let count = rng.between(1, SECTORS);
                let at = rng.below(SECTORS - count + 1);
                let sync = if rng.below(2) == 0 { Sync::Data } else { Sync::None };
                let range = at * S / ATOM..(at + count) * S / ATOM;
                bench.io.write_file(&file, u64::from(value), (at * S) as u64, sectors(value, count), sync);
                oracle[range.clone()].iter_mut().for_each(|atom| atom.later.extend([value]));
                in_flight = Some((value, range, sync));
            }
            4 => {
                if bench.files.sync(&file).is_ok() {
                    for (at, atom) in oracle.iter_mut().enumerate() {
                        atom.later = atom.now.clone();
                        if let Some((value, range, _)) = &in_flight
                            && range.contains(&at)
                        {
                            atom.later.insert(*value);
                        }
                    }
                }
            }
            5 if in_flight.is_none() => {
                let found = atoms(&bench.files, &file);
                for (at, (found, atom)) in found.iter().zip(&mut oracle).enumerate() {
                    assert!(atom.now.contains(found), "seed {seed}, atom {at}: {found} of {:?}", atom.now);
                    // After a failed write it is known now.
                    atom.now = one(*found);
                }
            }
            6 if rng.below(4) == 0 => {
                let crash = if rng.below(3) == 0 { Crash::Killed } else { Crash::Power };
                let was: Vec<Possible> = oracle.clone();
                bench.crash(crash);
                file = bench.files.open("f").unwrap();
                let found = atoms(&bench.files, &file);
                said.push_str(&format!("{crash:?} {found:?}\n"));
                for (at, found) in found.into_iter().enumerate() {
                    let mut allowed = was[at].later.clone();
                    if crash == Crash::Killed {
                        // What was over stays, whether or not it was flushed.
                        allowed = was[at].now.clone();
                        if let Some((value, range, _)) = &in_flight
                            && range.contains(&at)
                        {
                            allowed.insert(*value);
                        }
                    }
                    assert!(allowed.contains(&found), "seed {seed}, atom {at}: {found} of {allowed:?}");
                    oracle[at].now = one(found);
                    match crash {
                        Crash::Power => oracle[at].later = one(found),
                        Crash::Killed => drop(oracle[at].later.insert(found)),
                    }
                }
                in_flight = None;
            }
            _ => {
                for completion in bench.turn() {
                    let Completion::Written { tag, bytes, result } = completion else {
                        panic!("{completion:?}")
                    };
                    let (value, range, sync) = in_flight.take().expect("a write is in flight");
                    assert_eq!((tag, bytes.len()), (u64::from(value), range.len() * ATOM));
                    assert!(bytes.as_slice().iter().all(|byte| *byte == value));
                    said.push_str(&format!("{value} {result:?}\n"));
                    for atom in &mut oracle[range] {
                        match (result, sync) {
                            (Ok(()), Sync::Data) => *atom = Possible { now: one(value), later: one(value) },
                            (Ok(()), Sync::None) => atom.now = one(value),
                            (Err(_), _) => drop(atom.now.insert(value)),
                        }
                    }
                }
            }
        }
    }
    sum.add(&bench.world.borrow().fault_counts());
    said
}

#[test]
fn a_crash_leaves_what_was_synced_and_decides_the_rest() {
    let mut sum = FaultCounts::default();
    for seed in 0..400 {
        let said = run(seed, &mut sum);
        if seed < 20 {
            assert_eq!(said, run(seed, &mut FaultCounts::default()), "seed {seed} is not the same twice");
        }
    }
    for fault in [Fault::DiskSlow, Fault::WriteFailed, Fault::WriteDropped, Fault::WriteTorn] {
        assert!(sum.of(fault) > 100, "{fault:?}: {}", sum.of(fault));
    }
}

/// Every way in which four sectors that were not synced can come out of a crash.
#[test]
fn writes_are_torn_by_sectors_by_atoms_and_at_a_point() {
    let (mut whole, mut nothing, mut by_sector, mut by_atom, mut prefix) = (0, 0, 0, 0, 0);
    for seed in 0..300 {
        let mut bench = Bench::new(Faults::none(), seed);
        let file = bench.files.create("f", (SECTORS * S) as u64).unwrap();
        bench.io.write_file(&file, 1, 0, sectors(1, SECTORS), Sync::None);
        bench.turn();
        bench.crash(Crash::Power);
        let file = bench.files.open("f").unwrap();
        let found = atoms(&bench.files, &file);
        let kept = found.iter().filter(|value| **value == 1).count();
        let is_prefix = found.is_sorted_by(|a, b| a >= b);
        let is_sectors = found.chunks(S / ATOM).all(|sector| sector.iter().all(|value| *value == sector[0]));
        match (kept, is_prefix, is_sectors) {
            (ATOMS, ..) => whole += 1,
            (0, ..) => nothing += 1,
            (_, true, _) => prefix += 1,
            (_, _, true) => by_sector += 1,
            _ => by_atom += 1,
        }
    }
    let all = [whole, nothing, by_sector, by_atom, prefix];
    assert!(all.iter().all(|count| *count > 10), "{all:?}");
}

/// A device with FUA flushes nothing else.
#[test]
fn a_synced_write_makes_itself_sure_and_no_other() {
    let mut lost = 0;
    for seed in 0..50 {
        let mut bench = Bench::new(Faults::none(), seed);
        let file = bench.files.create("f", (SECTORS * S) as u64).unwrap();
        bench.io.write_file(&file, 1, 0, sectors(1, 2), Sync::None);
        bench.turn();
        bench.io.write_file(&file, 2, S as u64, sectors(2, 1), Sync::Data);
        bench.turn();
        bench.crash(Crash::Power);
        let found = atoms(&bench.files, &bench.files.open("f").unwrap());
        assert!(
            found[8..16].iter().all(|value| *value == 2),
            "the older write does not come back: {found:?}"
        );
        lost += usize::from(found[0] == 0);
    }
    assert!(lost > 5, "{lost}");
}

#[test]
fn a_tape_makes_the_same_disk_at_every_step() {
    let mut bench = Bench::new(Faults::none(), 5);
    bench.files.create_dir("d").unwrap();
    bench.world.borrow_mut().record_disk();
    let file = bench.files.create("d/f", (2 * S) as u64).unwrap();
    for value in 1..4 {
        bench.io.write_file(&file, 1, 0, sectors(value, 2), if value == 3 { Sync::Data } else { Sync::None });
        bench.turn();
    }
    bench.files.replace("d/t", b"old").unwrap();
    bench.files.replace("d/t", b"new").unwrap();
    bench.files.remove("d/f").unwrap();
    let tape: Tape = bench.world.borrow_mut().take_tape();
    let look = |disk: &Disk| -> Vec<(String, Vec<u8>)> {
        disk.files().map(|(path, file)| (path.to_owned(), disk.read(file, 0, 1 << 20))).collect()
    };
    assert_eq!(look(&tape.disk_after(tape.steps().len())), look(bench.world.borrow().disk()));
    let mut rng = Rng::new(1);
    let (mut states, mut crashed) = (BTreeSet::new(), 0);
    tape.each_prefix(|count, disk| {
        assert_eq!(look(&tape.disk_after(count)), look(disk));
        for left in disk.crashes(&mut rng, 6, 10) {
            crashed += 1;
            assert_eq!(left.undecided(), 0);
            let text = left.find("d/t").map(|file| left.read(file, 0, 100));
            assert!(
                text.as_deref().is_none_or(|text| text == b"old" || text == b"new"),
                "a part of a replacement at step {count}: {text:?}"
            );
            states.insert((text, left.find("d/f").is_some()));
        }
    });
    // No text, the old one and the new one, with the file; the new one without.
    assert!(crashed > tape.steps().len() && states.len() >= 4, "{crashed} {states:?}");
    // All choices of two undecided writes.
    let begun = tape.steps().iter().filter(|step| matches!(step, Step::Begun { .. })).count();
    assert_eq!(begun, 5);
    let at =
        tape.steps().iter().position(|step| matches!(step, Step::Begun { sync: Sync::Data, .. })).unwrap();
    let disk = tape.disk_after(at);
    assert_eq!(disk.undecided(), 2);
    let firsts: Vec<u8> = disk
        .crashes(&mut rng, 6, 0)
        .iter()
        .map(|disk| disk.read(disk.find("d/f").unwrap(), 0, 1)[0])
        .collect();
    assert_eq!(firsts, [0, 1, 2, 2], "neither, the first, the second, both");
}

#[test]
fn names_that_were_not_synced_survive_in_order() {
    let mut disk = Disk::default();
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        disk.apply(Step::Made { path: name.into(), file: number as u64 + 1 });
    }
    let mut seen = BTreeSet::new();
    for left in disk.crashes(&mut Rng::new(1), 6, 0) {
        seen.insert(left.list("").concat());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["", "a", "ab", "abc"]);
}

#[test]
fn a_full_disk_and_errors_are_results_and_are_counted() {
    let always = Odds(Odds::WHOLE);
    let mut bench = Bench::new(Faults::none(), 1);
    let file = bench.files.create("f", (2 * S) as u64).unwrap();
    bench.world.borrow_mut().disk_mut().room = 3 * S as u64;
    assert_eq!(bench.files.free_bytes().unwrap(), S as u64);
    let full = bench.files.create("g", (2 * S) as u64).unwrap_err();
    assert_eq!((full.kind(), bench.files.list("").unwrap()), (ErrorKind::StorageFull, vec!["f".to_owned()]));
    bench.world.borrow_mut().faults.disk.no_space = always;
    assert!(bench.files.create("g", S as u64).is_err());
    for (counts, reaches) in [(Odds::NEVER, false), (always, true)] {
        let disk = DiskFaults { write_fails: always, failed_write_counts: counts, ..DiskFaults::NONE };
        bench.world.borrow_mut().faults.disk = disk;
        let mut has_reached = false;
        for value in 1..30 {
            bench.io.write_file(&file, 1, 0, sectors(value, 2), Sync::Data);
            let [Completion::Written { result: Err(5), .. }] = bench.turn()[..] else { panic!("it fails") };
            has_reached |= bench.files.read("f").unwrap().contains(&value);
        }
        assert_eq!(has_reached, reaches);
        assert!(bench.files.write_at(&file, 0, &sectors(9, 1)).is_err());
        assert!(bench.files.sync(&file).is_err());
    }
    bench.world.borrow_mut().faults.disk = DiskFaults { read_fails: always, ..DiskFaults::NONE };
    bench.io.read_file(&file, 4, 0, sectors(1, 1), S);
    let [Completion::FileRead { tag: 4, ref bytes, result: Err(5) }] = bench.turn()[..] else {
        panic!("it fails")
    };
    assert!(bytes.is_empty());
    assert!(bench.files.read("f").is_err());
    let counts = bench.world.borrow().fault_counts();
    assert_eq!([counts.of(Fault::NoSpace), counts.of(Fault::ReadFailed)], [2, 2]);
    assert_eq!(counts.of(Fault::WriteFailed), 2 * 31);
}

#[test]
fn one_bit_flips_at_rest() {
    let mut bench = Bench::new(Faults::none(), 3);
    bench.files.create("f", (2 * S) as u64).unwrap();
    bench.world.borrow_mut().faults.disk.bit_flips = Odds(Odds::WHOLE);
    bench.crash(Crash::Power);
    let ones = |bytes: &[u8]| bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
    assert_eq!(ones(&bench.files.read("f").unwrap()), 1);
    bench.world.borrow_mut().disk_mut().flip("f", 5000, 7);
    bench.world.borrow_mut().disk_mut().cut("f", 5001);
    let bytes = bench.files.read("f").unwrap();
    assert_eq!((bytes.len(), bytes[5000] & 0x80), (5001, 0x80));
    // What was cut off does not come back when the file grows.
    bench.world.borrow_mut().disk_mut().cut("f", 5000);
    let file = bench.files.open("f").unwrap();
    bench.files.write_at(&file, 2 * S as u64, &sectors(1, 1)).unwrap();
    assert_eq!(bench.files.read("f").unwrap()[5000], 0);
}

#[test]
fn after_a_crash_another_number_of_shards_starts_on_the_same_disk() {
    let mut bench = Bench::new(Faults::none(), 1);
    let listener = ListenerId(0);
    let client = bench.world.borrow_mut().connect(0, listener);
    bench.io.accept(listener);
    assert!(matches!(bench.turn()[..], [Completion::Accepted { .. }]));
    let lock = bench.files.lock().unwrap();
    assert!(matches!(bench.files.lock(), Err(LockError::Held { pid: None })));
    let file = bench.files.create("f", (SECTORS * S) as u64).unwrap();
    bench.world.borrow_mut().faults.disk.looks = 5;
    bench.io.read_file(&file, 1, 0, Aligned::new(), S);
    bench.world.borrow_mut().crash(Crash::Power, 3);
    assert!(bench.world.borrow().is_closed_by_shard(client) && bench.world.borrow().is_failed(client));
    assert_eq!(bench.world.borrow().faults_at_rest(), [""; 0]);
    drop(lock); // of the process that is gone
    let _mine = bench.files.lock().unwrap();
    let mut io = SimIo::new(2, bench.world.clone());
    bench.world.borrow_mut().connect(2, listener);
    io.accept(listener);
    let file = bench.files.open("f").unwrap();
    io.read_file(&file, 7, 0, Aligned::new(), S);
    let mut completions = Vec::new();
    for _ in 0..6 {
        assert!(!bench.world.borrow().is_quiet(2) || completions.len() == 2);
        io.completions(&mut completions);
    }
    let [Completion::Accepted { .. }, Completion::FileRead { tag: 7, .. }] = &completions[..] else {
        panic!("{completions:?}")
    };
}

/// The panic's text.
fn broken(work: impl FnOnce(&mut Bench, File)) -> String {
    let mut bench = Bench::new(Faults::none(), 1);
    let file = bench.files.create("f", (SECTORS * S) as u64).unwrap();
    let panic =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&mut bench, file))).unwrap_err();
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn broken_rules_about_files_are_noticed() {
    let second = broken(|bench, file| {
        let same = bench.files.open("f").unwrap();
        bench.io.write_file(&file, 1, 0, sectors(1, 1), Sync::Data);
        bench.io.write_file(&same, 2, S as u64, sectors(1, 1), Sync::Data);
    });
    assert!(second.starts_with("io-rule: ") && second.contains("in flight"), "{second}");
    let untaken = broken(|bench, file| {
        bench.io.write_file(&file, 1, 0, sectors(1, 1), Sync::Data);
        bench.world.borrow_mut().progress(0);
        bench.io.write_file(&file, 2, 0, sectors(1, 1), Sync::Data);
    });
    assert!(untaken.contains("in flight"), "{untaken}");
    let overlap = broken(|bench, file| {
        bench.io.write_file(&file, 1, S as u64, sectors(1, 1), Sync::Data);
        bench.io.read_file(&file, 2, 0, Aligned::new(), S);
        bench.io.read_file(&file, 3, 0, Aligned::new(), 2 * S);
    });
    assert!(overlap.starts_with("io-rule: shard 0 reads what it writes"), "{overlap}");
    let place = broken(|bench, file| bench.io.write_file(&file, 1, 512, sectors(1, 1), Sync::Data));
    assert!(place.contains("not at the begin of a sector"), "{place}");
    let length =
        broken(|bench, file| bench.io.write_file(&file, 1, 0, Aligned::from(&[1; 100][..]), Sync::None));
    assert!(length.contains("no whole sectors"), "{length}");
    let stale = broken(|bench, file| {
        bench.crash(Crash::Power);
        bench.io.write_file(&file, 1, 0, sectors(1, 1), Sync::Data);
    });
    assert!(stale.starts_with("io-rule: ") && stale.contains("before the last crash"), "{stale}");
}
