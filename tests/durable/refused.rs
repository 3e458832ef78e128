//! Directories that a start refuses, and damage that it does not.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::runs::*;
use crate::support::broker::Process;
use crate::support::*;

/// Exit codes as `docs/ARCHITECTURE.md` and `--help` promise them (sysexits.h).
const SYSTEM: i32 = 71;
const PRIVILEGE: i32 = 77;
const CONFIG: i32 = 78;

/// Starts a broker on this data directory, which it must refuse; its exit code and what it wrote.
fn refused(data: &str, more: &[&str]) -> (i32, String) {
    let base = ["--listen", "127.0.0.1:0", "--shards", "1", "--no-pin", "--data", data, "--data-max", "256M"];
    let mut process = Process::spawn(&[&base, more].concat());
    let code = process.exit_code();
    let text = process.stderr();
    assert!(!text.contains("panicked"), "{text}");
    assert!(text.contains(data), "the directory is not named:\n{text}");
    (code, text)
}

/// The files of a log.
pub fn segments(data: &str) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for shard in std::fs::read_dir(data).expect("the data directory").flatten() {
        if shard.file_type().expect("a type").is_dir() && shard.file_name() != "damaged" {
            paths.extend(std::fs::read_dir(shard.path()).expect("a log").flatten().map(|file| file.path()));
        }
    }
    paths
}

/// Changes the bytes of a segment from where this text stands, which must be in one segment alone.
pub fn change(data: &str, text: &str, change: impl Fn(&mut [u8])) {
    let mut changed = 0;
    for path in segments(data) {
        let mut bytes = std::fs::read(&path).expect("a segment");
        if let Some(at) = memchr::memmem::find(&bytes, text.as_bytes()) {
            change(&mut bytes[at..]);
            std::fs::write(&path, bytes).expect("a segment");
            changed += 1;
        }
    }
    assert_eq!(changed, 1, "{text:?} stands in so many segments");
}

/// A directory with a session, `count` messages for it and a retained message, after a kill.
pub fn filled(label: &str, count: usize) -> (Runs, Connect) {
    let runs = Runs::killed(label);
    let connect = Connect::new(V5, name("sub")).persistent();
    let broker = runs.start(1, &[]);
    Client::accepted(&broker, &connect).subscribe("t", 1);
    let mut publisher = Client::fresh(&broker, V5);
    publisher.say_retained("kept", "retained");
    (0..count).for_each(|number| publisher.say("t", format!("needle {number}."), 1));
    runs.end(broker);
    (runs, connect)
}

#[test]
fn a_second_broker_on_the_same_directory_is_refused() {
    let runs = Runs::killed("second");
    let broker = runs.start(1, &[]);
    let (code, text) = refused(&runs.data, &[]);
    assert_eq!(code, SYSTEM, "{text}");
    assert!(text.contains(&format!("process {} uses this directory", broker.pid())), "{text}");
    Client::fresh(&broker, V5).ping();
    // It is free as soon as the first one is gone, however it went.
    runs.next(broker, 1, &[]);
}

#[test]
fn a_directory_that_is_not_writable_is_refused() {
    let dir = Dir::new("readonly");
    let data = dir.text("data");
    std::fs::create_dir(&data).expect("a directory");
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o555)).expect("its mode");
    let flags = ["--listen", "127.0.0.1:0", "--shards", "1", "--no-pin", "--data", &data];
    let mut command = match rustix::process::geteuid().is_root() {
        // Root may write everywhere.
        true => {
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("its mode");
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_ringmq")]);
            command
        }
        false => Command::new(env!("CARGO_BIN_EXE_ringmq")),
    };
    let Ok(output) = command.args(flags).stdin(Stdio::null()).output() else {
        return eprintln!("NOT RUN: there is no setpriv here");
    };
    let text = String::from_utf8_lossy(&output.stderr);
    if text.starts_with("setpriv") {
        return eprintln!("NOT RUN: {text}");
    }
    assert_eq!(output.status.code(), Some(PRIVILEGE), "{text}");
    assert!(text.contains(&data), "{text}");
}

#[test]
fn a_damaged_manifest_and_a_later_format_are_refused() {
    let (runs, connect) = filled("manifest", 1);
    let path = format!("{}/manifest", runs.data);
    let good = std::fs::read_to_string(&path).expect("a manifest");
    let (lines, _) = good.split_once("crc32").expect("a checksum");
    for (text, said) in [
        (good.replace("shards 1", "shards 2"), "damaged"),
        (String::new(), "damaged"),
        (good[..good.len() / 2].to_owned(), "damaged"),
        (
            {
                let lines = lines.replace("format 1", "format 99");
                format!("{lines}crc32 {:08x}\n", crc32fast::hash(lines.as_bytes()))
            },
            "format 99",
        ),
    ] {
        std::fs::write(&path, &text).expect("a manifest");
        let (code, why) = refused(&runs.data, &[]);
        assert_eq!(code, CONFIG, "{text:?}: {why}");
        assert!(why.contains(said), "{text:?}: {why}");
    }
    std::fs::write(&path, good).expect("a manifest");
    let broker = runs.start(1, &[]);
    assert_eq!(resumed(&broker, &connect).expect_texts(1), ["needle 0."]);
}

#[test]
fn a_flipped_byte_is_said_and_set_aside_and_the_rest_is_served() {
    let (runs, connect) = filled("flip", 10);
    change(&runs.data, "needle 4.", |bytes| bytes[3] ^= 0x20);
    let (code, text) = refused(&runs.data, &["--data-damaged", "refuse"]);
    assert_eq!(code, CONFIG, "{text}");
    assert!(text.contains("000/") && text.contains("--data-damaged start"), "{text}");
    assert!(!PathBuf::from(format!("{}/damaged", runs.data)).exists(), "a refusal changes nothing");

    let broker = runs.start(1, &["--sys-interval", "1"]);
    broker.expect_said("data is damaged");
    let said = broker.stderr().matches("data is damaged").count();
    expect_sys(&broker, "damaged", &said.to_string());
    let mut client = resumed(&broker, &connect);
    let texts = client.expect_texts(9);
    on_disk(&mut client);
    let rest: Vec<String> =
        (0..10).filter(|number| *number != 4).map(|number| format!("needle {number}.")).collect();
    assert_eq!(texts, rest);
    let mut client = Client::fresh(&broker, V5);
    client.subscribe("kept", 1);
    assert_eq!(client.expect_publish_acked().text(), "retained");
    let aside = std::fs::read_dir(format!("{}/damaged", runs.data)).expect("damaged/").count();
    assert!(aside > 0, "the damaged segment is set aside");

    // It is said once: what was written since is whole.
    let broker = runs.next(broker, 2, &["--data-damaged", "refuse"]);
    assert!(!broker.stderr().contains("damaged:"), "{}", broker.stderr());
    resumed(&broker, &connect).expect_quiet();
}

#[test]
fn a_torn_tail_is_cut_and_no_damage() {
    let runs = Runs::killed("torn");
    let connect = Connect::new(V5, name("sub")).persistent();
    let broker = runs.start(1, &[]);
    Client::accepted(&broker, &connect).subscribe("t", 1);
    let mut publisher = Client::fresh(&broker, V5);
    publisher.say("t", "whole", 1);
    publisher.say("t", format!("needle{}", "x".repeat(20_000)), 1);
    runs.end(broker);
    // As if the last sectors of the last write had not come.
    change(&runs.data, "needle", |bytes| bytes[10_000..22_000].fill(0));
    let broker = runs.start(1, &["--data-damaged", "refuse"]);
    broker.expect_said("the broker ended while it wrote");
    let mut client = resumed(&broker, &connect);
    assert_eq!(client.expect_texts(1), ["whole"]);
    client.expect_quiet();
    assert!(!PathBuf::from(format!("{}/damaged", runs.data)).exists());
}
