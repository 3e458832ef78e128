//! The same calls on the kernel's files and on the simulated ones; then what only the kernel has.

use std::cell::RefCell;
use std::io::{ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;

use super::*;
use crate::io::sim::{Faults, SimFiles, World};
use crate::io::tests::files::Scratch;
use crate::memory::SECTOR;

const S: usize = SECTOR;

fn kind_of<T>(result: io::Result<T>) -> ErrorKind {
    result.map(|_| ()).unwrap_err().kind()
}

fn text(files: &impl Files, path: &str) -> String {
    String::from_utf8(files.read(path).unwrap()).unwrap()
}

fn obeys(files: &impl Files) {
    // Directories.
    assert_eq!(files.list("").unwrap(), [""; 0]);
    assert_eq!(files.list("no/such").unwrap(), [""; 0]);
    files.create_dir("b/c").unwrap();
    files.create_dir("b/c").unwrap();
    files.create_dir("a").unwrap();
    assert_eq!(files.list("").unwrap(), ["a", "b"]);
    assert_eq!(files.list("b").unwrap(), ["c"]);

    // A file: zeros, written, read.
    let file = files.create("b/c/f", 3 * S as u64).unwrap();
    assert_eq!(kind_of(files.create("b/c/f", S as u64)), ErrorKind::AlreadyExists);
    assert_eq!(kind_of(files.create("d/f", S as u64)), ErrorKind::NotFound);
    assert_eq!(kind_of(files.create_dir("b/c/f")), ErrorKind::AlreadyExists);
    assert_eq!(kind_of(files.open("b/c/g")), ErrorKind::NotFound);
    assert_eq!(files.len(&file).unwrap(), 3 * S as u64);
    let mut bytes = Aligned::from(&b"old"[..]);
    files.read_at(&file, 0, &mut bytes, 4 * S).unwrap();
    assert!(bytes.as_slice() == [0; 3 * S]);
    files.write_at(&file, S as u64, &Aligned::from(&[7; 2 * S][..])).unwrap();
    files.sync(&file).unwrap();
    let again = files.open("b/c/f").unwrap();
    drop(file);
    files.read_at(&again, 2 * S as u64, &mut bytes, S).unwrap();
    assert!(bytes.as_slice() == [7; S]);
    files.read_at(&again, 3 * S as u64, &mut bytes, S).unwrap();
    assert!(bytes.is_empty(), "the end");
    files.read_at(&again, 0, &mut bytes, S).unwrap();
    assert!(bytes.as_slice() == [0; S]);

    // Small ones.
    assert_eq!(kind_of(files.read("a/text")), ErrorKind::NotFound);
    files.replace("a/text", b"one").unwrap();
    assert_eq!(text(files, "a/text"), "one");
    files.replace("a/text", b"and two").unwrap();
    assert_eq!(text(files, "a/text"), "and two");
    assert_eq!(files.list("a").unwrap(), ["text"], "nothing stays beside it");
    let short = files.open("a/text").unwrap();
    files.read_at(&short, 0, &mut bytes, S).unwrap();
    assert_eq!(bytes.as_slice(), b"and two");

    // Names.
    files.replace("a/other", b"three").unwrap();
    files.rename("a/other", "a/text").unwrap();
    assert_eq!(text(files, "a/text"), "three");
    files.rename("a/text", "b/text").unwrap();
    assert_eq!(
        (files.list("a").unwrap().len(), files.list("b").unwrap()),
        (0, vec!["c".into(), "text".into()])
    );
    assert_eq!(kind_of(files.rename("a/text", "b/text")), ErrorKind::NotFound);
    assert_eq!(kind_of(files.rename("b/text", "d/text")), ErrorKind::NotFound);
    files.remove("b/c/f").unwrap();
    assert_eq!(kind_of(files.remove("b/c/f")), ErrorKind::NotFound);
    assert_eq!(files.list("b/c").unwrap(), [""; 0]);
    files.read_at(&again, 2 * S as u64, &mut bytes, S).unwrap();
    assert!(bytes.as_slice() == [7; S], "what is open is there without a name");

    // The lock.
    assert!(files.free_bytes().unwrap() > 0);
    let lock = files.lock().unwrap();
    assert!(matches!(files.lock(), Err(LockError::Held { .. })));
    drop(lock);
    drop(files.lock().unwrap());
    assert_eq!(files.list("").unwrap(), ["LOCK", "a", "b"]);
}

#[test]
fn the_files_of_the_kernel_obey() {
    obeys(&Scratch::new("obeys").files());
}

#[test]
fn the_files_of_the_simulator_obey() {
    obeys(&SimFiles::new(Rc::new(RefCell::new(World::new(1, Faults::none(), 1)))));
}

#[test]
fn what_is_made_is_for_its_owner_alone() {
    let scratch = Scratch::new("modes");
    let files = OsFiles::new(scratch.path().join("root/below"));
    files.create_dir("").unwrap();
    files.create_dir("a").unwrap();
    files.create("a/f", S as u64).unwrap();
    files.replace("a/t", b"t").unwrap();
    let _lock = files.lock().unwrap();
    let mode = |path: &str| std::fs::metadata(files.root().join(path)).unwrap().mode() & 0o777;
    assert_eq!([mode(".."), mode(""), mode("a")], [0o700; 3]);
    assert_eq!([mode("a/f"), mode("a/t"), mode("LOCK")], [0o600; 3]);
}

#[test]
fn zeros_of_a_new_file_are_written_and_not_only_reserved() {
    let scratch = Scratch::new("zeros");
    let len = (1 << 20) + 3 * S as u64;
    drop(scratch.files().create("f", len).unwrap());
    let mut file = std::fs::File::open(scratch.path().join("f")).unwrap();
    // What is reserved and not written is a hole to a file system such as ext4 or XFS.
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)), Ok(len));
    assert_eq!(file.seek(SeekFrom::End(0)).unwrap(), len);
    assert!(file.metadata().unwrap().blocks() * 512 >= len);
}

#[test]
fn a_file_that_cannot_be_made_leaves_none_behind() {
    let scratch = Scratch::new("large");
    let errno = scratch.files().create("f", 1 << 60).unwrap_err().raw_os_error().unwrap();
    assert!([libc::EFBIG, libc::ENOSPC].contains(&errno), "{errno}");
    assert_eq!(scratch.files().list("").unwrap(), [""; 0]);
}

#[test]
fn files_are_direct_where_the_file_system_takes_that() {
    let scratch = Scratch::new("direct");
    if matches!(scratch.files().kind().unwrap().name, Some("ext4" | "xfs" | "btrfs")) {
        assert!(scratch.files().create("f", S as u64).unwrap().is_direct());
        assert!(scratch.files().open("f").unwrap().is_direct());
    }
    let proc = OsFiles::new("/proc/self");
    assert!(!proc.open("comm").unwrap().is_direct(), "it refuses O_DIRECT");
    assert_eq!(proc.kind().unwrap().to_string(), "file system 0x9fa0");
    let memory = FileSystem::of(0x0102_1994);
    assert_eq!((memory.to_string().as_str(), memory.medium), ("tmpfs", Medium::Memory));
    assert_eq!(FileSystem::of(0x6969).medium, Medium::Remote);
}

#[test]
fn a_lock_says_who_has_it_and_ends_with_its_process() {
    let scratch = Scratch::new("lock");
    let files = scratch.files();
    // A longer number of an earlier process.
    std::fs::write(scratch.path().join("LOCK"), "99999999999\n").unwrap();
    let lock = files.lock().unwrap();
    let error = files.lock().unwrap_err();
    assert_eq!(error.to_string(), format!("process {} uses this directory", std::process::id()));
    drop(lock);
    assert!(files.lock().is_ok());
    let missing = OsFiles::new(scratch.path().join("missing")).lock().unwrap_err();
    assert!(matches!(missing, LockError::Failed(error) if error.kind() == ErrorKind::NotFound));
}
