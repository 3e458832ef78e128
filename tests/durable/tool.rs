//! `ringmq store`: check, dump, repair and backup.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::refused::{change, filled};
use crate::runs::*;
use crate::support::*;

const DAMAGED: i32 = 1;
const UNUSABLE: i32 = 2;

/// Runs `ringmq store` with these arguments: its exit code, and what it wrote to stdout and stderr.
fn store(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ringmq")).arg("store").args(arguments).output();
    let output = output.expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(!err.contains("panicked"), "{arguments:?}: {err}");
    (output.status.code().expect("a code"), out, err)
}

/// The same, where all is well.
fn fine(arguments: &[&str]) -> String {
    let (code, out, err) = store(arguments);
    assert_eq!(code, 0, "{arguments:?}: {out}{err}");
    out
}

/// The objects of a dump.
fn dump(arguments: &[&str]) -> Vec<Value> {
    let lines = fine(&[&["dump"], arguments].concat());
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}")))
        .collect()
}

fn copy(from: &str, to: &str) {
    let status = Command::new("cp").args(["-a", from, to]).status().expect("cp");
    assert!(status.success());
}

#[test]
fn each_command_has_its_help_and_refuses_what_is_wrong() {
    assert!(fine(&["--help"]).contains("backup"));
    for command in ["check", "dump", "repair", "backup"] {
        let help = fine(&[command, "--help"]);
        assert!(
            help.contains(&format!("Usage: ringmq store {command}")) && help.contains("Exit code"),
            "{help}"
        );
    }
    let (code, _, err) = store(&["chek", "x"]);
    assert!(code == 64 && err.contains("check"), "{code}: {err}");
    for arguments in [&["check", "/no/such/directory"][..], &["dump", "/dev/null"], &["repair", "/no/such"]] {
        let (code, _, err) = store(arguments);
        assert!(code == UNUSABLE && err.contains(arguments[1]), "{code}: {err}");
    }
    let empty = Dir::new("nothing");
    let (code, _, err) = store(&["check", &empty.text("")]);
    assert!(code == UNUSABLE && err.contains("no file manifest"), "{code}: {err}");
    let (code, _, err) = store(&["repair", &empty.text("")]);
    assert!(code == UNUSABLE && err.contains("no segment"), "{code}: {err}");
}

#[test]
fn a_directory_is_checked_and_dumped() {
    let runs = Runs::new("dump", WAYS[1]);
    let broker = runs.start(2, &[]);
    let sub = Connect::new(V5, "sub").persistent().will(Will::new("wills", "gone").qos(1));
    let mut client = Client::accepted(&broker, &sub);
    client.subscribe_with("t/#", ALL_OPTIONS, &[Property::SubscriptionId(7)]);
    client.subscribe("$share/g/s", 2);
    let mut publisher = Client::accepted(&broker, &Connect::new(V5, "pub").persistent());
    let user = Property::User("name".into(), "value".into());
    publisher.publish(&Publish::new("t/1", "text \u{e4}").qos(1, 0).with(user));
    assert_eq!(client.expect_publish().text(), "text \u{e4}");
    on_disk(&mut client);
    drop(client);
    thread::sleep(Duration::from_millis(100));
    publisher.say("s", [0xff, 0x00], 2);
    publisher.say_retained("r/1", "retained");
    publisher.send_publish(&Publish::new("s", "unreleased").qos(2, 500));
    publisher.expect_ack(encode::PUBREC, 500);

    // A broker has it: not to be read by accident.
    let (code, _, err) = store(&["check", &runs.data]);
    assert!(code == UNUSABLE && err.contains(&format!("process {}", broker.pid())), "{code}: {err}");
    let (_, out, err) = store(&["check", &runs.data, "--running"]);
    assert!(out.contains("2 sessions") && err.contains("may look like damage"), "{out}{err}");
    runs.end(broker);

    let text = fine(&["check", &runs.data]);
    for part in [
        "2 sessions with 2 subscriptions, 3 messages for them, 1 retained",
        "2 shards",
        "stopped in order",
        "no damage",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    let all = dump(&[&runs.data]);
    let of = |kind: &str| all.iter().filter(|one| one["type"] == kind).collect::<Vec<_>>();
    let sessions = of("session");
    assert_eq!((&sessions[0]["client_id"], &sessions[1]["client_id"]), (&"pub".into(), &"sub".into()));
    assert_eq!(sessions[1]["expiry_s"], 3600);
    assert!(sessions[1]["ends_at"].as_u64().is_some_and(|at| at > 1_600_000_000_000), "{}", sessions[1]);
    let subscription = of("subscription").into_iter().find(|one| one["filter"] == "t/#").expect("t/#");
    for (name, value) in [("qos", 1), ("retain_handling", 2), ("identifier", 7)] {
        assert_eq!(subscription[name], value, "{subscription}");
    }
    assert!(subscription["no_local"] == true && subscription["retain_as_published"] == true);
    let messages = of("message");
    assert_eq!(messages.len(), 3, "{messages:?}");
    assert!(
        messages[0]["place"] == "in_flight" && messages[0]["payload"] == "text \u{e4}",
        "{}",
        messages[0]
    );
    assert_eq!(messages[0]["user_properties"][0][1], "value");
    assert!(
        messages[1]["payload_base64"] == "/wA=" && messages[1]["shared"] == "$share/g/s",
        "{}",
        messages[1]
    );
    assert_eq!(of("waits_for_pubrel")[0]["packet_id"], 500);
    assert_eq!(of("retained").len(), 1);
    let parts: usize = ["--sessions", "--subscriptions", "--messages", "--retained"]
        .map(|flag| dump(&[&runs.data, flag]).len())
        .iter()
        .sum();
    assert_eq!(parts, all.len(), "the parts are the whole");
    let records = dump(&[&runs.data, "--records"]);
    assert!(records.iter().all(|one| one["type"] == "record" && one["commit"].as_u64() > Some(0)));
    let kinds: BTreeSet<&str> = records.iter().filter_map(|one| one["record"].as_str()).collect();
    assert!(
        ["began", "subscribed", "message", "retained", "walk_ends", "stopped"]
            .iter()
            .all(|k| kinds.contains(k))
    );
}

/// Options of a subscription: QoS 1, No Local, Retain As Published, Retain Handling 2.
const ALL_OPTIONS: u8 = 0x01 | 0x04 | 0x08 | 0x20;

#[test]
fn damage_is_repaired_as_far_as_it_goes() {
    let (runs, connect) = filled("repair", 10);
    change(&runs.data, "needle 4.", |bytes| bytes[3] ^= 0x20);
    let (code, out, _) = store(&["check", &runs.data]);
    assert!(code == DAMAGED && out.contains("damaged: 000/"), "{code}: {out}");
    let (code, _, err) = store(&["dump", &runs.data]);
    assert!(code == DAMAGED && err.contains("damaged: 000/"), "{code}: {err}");

    let repaired = fine(&["repair", &runs.data]);
    let contents = "1 sessions with 1 subscriptions, 9 messages for them, 1 retained";
    assert!(repaired.contains(contents), "{repaired}");
    let checked = fine(&["check", &runs.data]);
    assert!(checked.contains(contents), "{checked}");
    assert!(Path::new(&runs.data).join("damaged").read_dir().expect("damaged/").count() > 0);
    assert!(fine(&["repair", &runs.data]).contains("nothing was changed"));
    let broker = runs.start(2, &["--data-damaged", "refuse"]);
    let texts = resumed(&broker, &connect).expect_texts(9);
    assert!(texts.iter().all(|text| text != "needle 4."), "{texts:?}");
    let mut client = Client::fresh(&broker, V5);
    client.subscribe("kept", 1);
    assert_eq!(client.expect_publish_acked().text(), "retained");
}

#[test]
fn a_manifest_is_made_from_the_segments() {
    let (runs, connect) = filled("manifest", 5);
    // Several shards, whose clients and topics are anywhere.
    let broker = runs.start(4, &[]);
    let mut publisher = Client::fresh(&broker, V5);
    (0..20).for_each(|number| publisher.say_retained(&format!("r/{number}"), "value"));
    runs.end(broker);
    let path = Path::new(&runs.data).join("manifest");
    for damage in [None, Some("ringmq data\nformat 1\nnonsense\n")] {
        match damage {
            None => std::fs::remove_file(&path).expect("a manifest"),
            Some(text) => std::fs::write(&path, text).expect("a manifest"),
        }
        let (code, _, err) = store(&["check", &runs.data]);
        assert!(code == UNUSABLE && err.contains("ringmq store repair"), "{code}: {err}");
        let said = fine(&["repair", &runs.data]);
        assert!(said.contains("made from the segments"), "{said}");
        let checked = fine(&["check", &runs.data]);
        assert!(
            checked.contains("4 shards") && checked.contains("5 messages for them, 21 retained"),
            "{checked}"
        );
    }
    let broker = runs.start(2, &["--data-damaged", "refuse"]);
    assert_eq!(resumed(&broker, &connect).expect_texts(5).len(), 5);
    let mut client = Client::fresh(&broker, V5);
    client.subscribe("r/+", 0);
    (0..20).for_each(|_| drop(client.expect_publish()));
}

#[test]
fn a_backup_under_load_has_all_that_was_acknowledged_before() {
    let runs = Runs::killed("backup");
    let copies = Dir::new("copies");
    let more = ["--queue-messages-max", "1000000", "--queue-bytes-max", "1G", "--sys-interval", "1"];
    let broker = runs.start(2, &more);
    let away = Connect::new(V5, name("away")).persistent();
    Client::accepted(&broker, &away).subscribe("small", 1);
    let (acknowledged, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    let made = thread::scope(|scope| {
        // Enough bytes for several walks, so that segments are used again while they are copied.
        for _ in 0..2 {
            scope.spawn(|| {
                let mut busy = Client::accepted(&broker, &Connect::new(V5, name("busy")).persistent());
                let topic = name("big");
                busy.subscribe(&topic, 1);
                let mut publisher = Client::fresh(&broker, V5);
                while !stop.load(Ordering::Relaxed) {
                    for id in 1..=20 {
                        publisher.send_publish(&Publish::new(&*topic, vec![b'x'; 50_000]).qos(1, id));
                    }
                    (0..20).for_each(|_| drop(busy.expect_publish_acked()));
                    (1..=20).for_each(|id| drop(publisher.expect_ack(encode::PUBACK, id)));
                }
            });
        }
        scope.spawn(|| {
            let mut publisher = Client::fresh(&broker, V5);
            for number in 0.. {
                publisher.say("small", number.to_string(), 1);
                acknowledged.store(number + 1, Ordering::Relaxed);
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let began = Instant::now();
        let mut made = Vec::new();
        while began.elapsed() < Duration::from_secs(4) || made.len() < 3 {
            let to = copies.text(&made.len().to_string());
            let before = acknowledged.load(Ordering::Relaxed);
            let done = std::panic::catch_unwind(|| fine(&["backup", &runs.data, &to]));
            made.push((to, before, acknowledged.load(Ordering::Relaxed)));
            if let Err(why) = done {
                stop.store(true, Ordering::Relaxed);
                std::panic::resume_unwind(why);
            }
        }
        stop.store(true, Ordering::Relaxed);
        made
    });
    let walks = sys(&broker, "walks");
    runs.end(broker);
    println!("{} copies, {} messages, {walks} walks", made.len(), acknowledged.into_inner());
    assert!(walks > 4, "{walks} walks: no segment was used again");
    for (to, before, after) in &made {
        assert!(fine(&["check", to]).contains("no damage"));
        let texts: Vec<u32> = dump(&[to, "--messages"])
            .iter()
            .filter(|one| one["topic"] == "small")
            .map(|one| one["payload"].as_str().and_then(|text| text.parse().ok()).expect("a number"))
            .collect();
        assert!(texts.iter().enumerate().all(|(at, number)| *number == at as u32), "a gap in {to}");
        let count = texts.len() as u32;
        assert!((*before..=after + 1).contains(&count), "{count} messages, {before} to {after} acknowledged");
    }
    // Restored by copying it to where the directory was.
    let (to, before, _) = made.last().expect("a copy");
    std::fs::remove_dir_all(&runs.data).expect("the data directory");
    copy(to, &runs.data);
    let broker = runs.start(1, &["--data-damaged", "refuse"]);
    let mut client = resumed(&broker, &away);
    assert_eq!(client.expect_texts(*before as usize).len(), *before as usize);
    // A copy goes to an empty directory alone.
    let (code, _, err) = store(&["backup", &runs.data, to]);
    assert!(code == UNUSABLE && err.contains("not empty"), "{code}: {err}");
}
