//! `ringmq.toml`, and the commands that look at it.

use std::fs;
use std::process::{Command, Output};

use super::place::{Place, client, connect, reload};
use super::support::{Broker, Client, V5};

fn ringmq(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringmq")).args(arguments).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_file_serves_and_flags_replace_what_it_says() {
    let place = Place::new(&["alice"]);
    place.write_rules("user alice\ntopic readwrite a\n");
    // Paths are relative to the file.
    let file = place.write(
        "ringmq.toml",
        "listen = [\"127.0.0.1:0\"]\nshards = 2\nno-pin = true\npassword-file = \"users\"\nacl-file = \"rules\"\n\
         memory-max = \"64M\" # enough\n",
    );
    let mut broker = Broker::start_with(&["--config", &file], 1);
    let mut alice = client(&broker, V5, "alice");
    assert_eq!(alice.subscribe_all(1, &[], &[("a", 0), ("b", 0)]), [0, 0x87]);
    place.write_users(&["bob"]);
    place.write_rules("user bob\ntopic readwrite b\n");
    reload(&mut broker);
    broker.expect_said("shards: 2");
    let mut bob = client(&broker, V5, "bob");
    assert_eq!(bob.subscribe_all(1, &[], &[("a", 0), ("b", 0)]), [0x87, 0]);

    let other = Broker::start_with(&["--config", &file, "--shards", "3", "--allow-anonymous"], 1);
    assert_eq!(Client::connect(&other, &connect(V5, "alice")).1.code, 0x86);
    other.expect_said("shards: 3");

    let shown = text(&ringmq(&["config", "--config", &file, "--shards", "3"]).stdout);
    assert!(shown.contains("shards = 3  # command line\n"), "{shown}");
    assert!(shown.contains(&format!("memory-max = \"64M\"  # {file}:6\n")), "{shown}");
    assert!(shown.contains("keep-alive-max = 0  # default\n"), "{shown}");
}

#[test]
fn a_mistake_has_a_line_and_a_column_and_refuses_the_start() {
    let place = Place::new(&["alice"]);
    for (content, what) in [
        (
            "shards = 1\nlissten = [\"127.0.0.1:0\"]\n",
            ":2:1: there is no setting \"lissten\"; did you mean \"listen\"?",
        ),
        ("shards = 1\n  memory-max = \"much\"\n", ":2:16: invalid value"),
        ("password-file = \"none\"\n", "none: No such file"),
        ("listen = [\"0.0.0.0:0\"]\n", ":1:1: will not listen on 0.0.0.0:0"),
        ("shards = 1\nmemory-max = \"1k\"\n", ":2:1: memory-max: 1k is not between 16M"),
    ] {
        let file = place.write("wrong.toml", content);
        for arguments in [&["check", &file][..], &["--config", &file]] {
            let output = ringmq(arguments);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(78), "{arguments:?} {said}");
            assert!(said.contains(what), "{arguments:?} {said}");
        }
    }
    let good = place.write("good.toml", "listen = [\"0.0.0.0:0\"]\npassword-file = \"users\"\n");
    let output = ringmq(&["check", &good]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}");
    for words in [
        "listens on 0.0.0.0:0\n",
        "access: 1 users, no anonymous clients; all of them may",
        "2 settings, 1 listeners",
    ] {
        assert!(said.contains(words), "{words} is missing in\n{said}");
    }
    assert_eq!(ringmq(&["check", &(good.clone() + ".none")]).status.code(), Some(78));
    assert!(fs::metadata(&good).is_ok());
}
