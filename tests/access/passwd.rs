//! `ringmq passwd`, and that a broker takes what it writes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use super::place::{Place, connect, reload};
use super::support::{Broker, Client, V5};

/// Runs `ringmq passwd` with this on stdin.
pub fn passwd(arguments: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringmq"))
        .arg("passwd")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut pipe = child.stdin.take().expect("stdin is piped");
    // A command that is refused may be over before it was asked for a password; what it says is judged by the caller.
    match pipe.write_all(stdin.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            panic!("stdin is not written: {error}")
        }
        Ok(()) | Err(_) => drop(pipe),
    }
    child.wait_with_output().expect("it ends")
}

fn set(file: &str, user: &str, password: &str) {
    let output = passwd(&[file, user, "--password-stdin"], &format!("{password}\n"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn sets_changes_and_deletes_users_and_a_broker_follows() {
    let place = Place::new(&[]);
    let file = place.users();
    fs::remove_file(&file).expect("the empty file goes");
    set(&file, "alice", "one");
    set(&file, "bob smith", "two words");
    let mode = fs::metadata(&file).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let text = fs::read_to_string(&file).expect("it is text");
    assert!(text.starts_with("alice:$argon2id$v=19$m=1024,t=1,p=1$"), "{text}");

    let mut broker = place.broker(4, None, &[]);
    let code = |broker: &Broker, user: &str, password: &str| {
        Client::connect(broker, &connect(V5, user).password(password)).1.code
    };
    assert_eq!(code(&broker, "alice", "one"), 0);
    assert_eq!(code(&broker, "bob smith", "two words"), 0);
    assert_eq!(code(&broker, "bob smith", "two  words"), 0x86);
    set(&file, "alice", "three");
    assert!(passwd(&[&file, "bob smith", "--delete"], "").status.success());
    reload(&mut broker);
    assert_eq!(code(&broker, "alice", "three"), 0);
    assert_eq!(code(&broker, "alice", "one"), 0x86);
    assert_eq!(code(&broker, "bob smith", "two words"), 0x86);
}

/// The cost stands in the hash, and a file may mix them; `check` says what it makes of logins.
#[test]
fn the_cost_of_a_hash_is_chosen_and_check_says_what_it_allows() {
    let place = Place::new(&[]);
    let file = place.users();
    for (user, cost, written) in [
        ("a", "device", "m=1024,t=1,p=1"),
        ("b", "mixed", "m=8192,t=1,p=1"),
        ("c", "person", "m=19456,t=2,p=1"),
        ("d", "m=64,t=3,p=2", "m=64,t=3,p=2"),
    ] {
        let output = passwd(&[&file, user, "--password-stdin", "--cost", cost], "secret\n");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = fs::read_to_string(&file).expect("it is text");
        assert!(text.contains(&format!("{user}:$argon2id$v=19${written}$")), "{text}");
    }
    for wrong in ["cheap", "m=64", "m=2000000,t=1"] {
        let output = passwd(&[&file, "e", "--password-stdin", "--cost", wrong], "secret\n");
        assert_eq!(output.status.code(), Some(64), "{wrong}");
    }
    let broker = place.broker(2, None, &[]);
    for user in ["a", "b", "c", "d"] {
        let code = |password| Client::connect(&broker, &connect(V5, user).password(password)).1.code;
        assert_eq!((code("secret"), code("Secret")), (0, 0x86), "{user}");
    }
    let config = place.write("ringmq.toml", "password-file = \"users\"\n");
    let output =
        Command::new(env!("CARGO_BIN_EXE_ringmq")).args(["check", &config]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("logins a second") && said.contains("all 4 users in"), "{said}");
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_changed() {
    let place = Place::new(&["alice"]);
    let file = place.users();
    let before = fs::read_to_string(&file).expect("it is there");
    let broken = place.write("broken", "alice\n");
    for (arguments, stdin, code, word) in [
        (&[&*file, "alice", "--password-stdin"][..], "\n", 64, "empty"),
        (&[&*file, "a:b", "--password-stdin"], "x\n", 64, "user name"),
        (&[&*file, "bob", "--delete"], "", 64, "no user"),
        (&[&*file], "", 64, "USER"),
        (&["/nonexistent/users", "bob", "--password-stdin"], "x\n", 78, "/nonexistent"),
        (&[&*broken, "bob", "--password-stdin"], "x\n", 78, "line 1"),
    ] {
        let output = passwd(arguments, stdin);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
    assert_eq!(fs::read_to_string(&file).expect("it is there"), before);
}
