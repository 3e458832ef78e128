//! A disk that is full.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::runs::*;
use crate::support::encode::PUBACK;
use crate::support::*;

/// A small file system in memory, unmounted at the end.
struct Small(Dir);

impl Small {
    /// `None` where this user may not mount.
    fn mount(label: &str, size: &str) -> Option<Small> {
        let dir = Dir::new(label);
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
            .arg(dir.path())
            .output();
        done.is_ok_and(|output| output.status.success()).then_some(Small(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

/// How long a PUBACK may be missing.
const LATE: Duration = Duration::from_secs(5);

#[test]
fn a_full_disk_loses_nothing_and_the_broker_goes_on_when_there_is_room() {
    let Some(small) = Small::mount("full", "64m") else {
        return eprintln!("NOT RUN: this user may not mount a small file system");
    };
    let data = small.path().join("data");
    let data = data.to_str().expect("a path in UTF-8");
    let flags =
        ["--data", data, "--data-max", "128M", "--queue-bytes-max", "100M", "--queue-messages-max", "5000"];
    let mut broker = Broker::start(1, &flags);
    let connect = Connect::new(V5, name("sub")).persistent();
    Client::accepted(&broker, &connect).subscribe("t", 1);
    let filler = small.path().join("filler");
    std::fs::write(&filler, vec![1; 44 << 20]).expect("room for the filler");

    let mut publisher = Client::fresh(&broker, V5);
    let publish = |number: u16| Publish::new("t", format!("{number} {}", "x".repeat(100_000))).qos(1, number);
    let mut said = 1;
    loop {
        assert!(said < 600, "60 MB were acknowledged on a disk that has 20:\n{}", broker.stderr());
        publisher.send_publish(&publish(said));
        match publisher.next(LATE) {
            Event::Packet(Packet::Puback(ack)) if ack.code == 0x97 => break,
            Event::Packet(Packet::Puback(ack)) => assert_eq!((ack.packet_id, ack.code), (said, 0)),
            other => panic!("{other:?}"),
        }
        said += 1;
    }
    assert!(said > 20, "{said} messages of 100 KB fit where there are some MB");
    // A 3.x client is not answered: it is not read until there is room.
    let mut waiting = Client::fresh(&broker, V311);
    waiting.send_publish(&publish(said));
    assert!(matches!(waiting.next(Duration::from_millis(300)), Event::Nothing));
    // New kept sessions are refused.
    let (_, connack) = Client::connect(&broker, &Connect::new(V5, name("new")).persistent());
    assert_eq!(connack.code, 0x97);
    // Clients that keep nothing are served.
    let mut other = Client::fresh(&broker, V5);
    other.subscribe("o", 1);
    other.say("o", "served", 1);
    assert_eq!(other.expect_publish_acked().text(), "served");

    broker.expect_said("the next segment of the message log cannot be made: no storage space");
    std::fs::remove_file(&filler).expect("the filler");
    let began = Instant::now();
    waiting.expect_ack(PUBACK, said);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    broker.expect_said("segments of the message log can be made again");
    for number in said + 1..said + 10 {
        publisher.send_publish(&publish(number));
        publisher.expect_ack(PUBACK, number);
    }
    broker.process().signal("KILL");
    broker.process().exit_within(Duration::from_secs(5)).expect("killed");
    let broker = Broker::start(1, &flags);
    let mut client = resumed(&broker, &connect);
    for number in 1..said + 10 {
        let text = client.expect_publish_acked().text();
        assert_eq!(text.split(' ').next(), Some(&*number.to_string()));
    }
    client.expect_quiet();
}
