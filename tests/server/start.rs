//! Starting: what is printed, what is refused, and with which exit code.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::broker::Process;
use crate::support::*;

/// Exit codes as `docs/ARCHITECTURE.md` and `--help` promise them (sysexits.h).
const USAGE: i32 = 64;
const SYSTEM: i32 = 71;

/// Starts the broker with these arguments, which it must refuse; its exit code and what it wrote.
fn refused(arguments: &[&str]) -> (i32, String) {
    let mut process = Process::spawn(arguments);
    let code = process.exit_code();
    let text = process.stderr();
    assert!(!text.contains("panicked"), "{arguments:?}:\n{text}");
    assert!(!text.trim().is_empty(), "{arguments:?} was refused without a word");
    (code, text)
}

#[test]
fn the_start_text_says_what_an_operator_must_know() {
    let broker = Broker::start(2, &["--io", "uring"]);
    drop(Client::fresh(&broker, V5));
    let text = broker.stderr();
    for part in [
        "listening on 127.0.0.1:",
        "shards: 2",
        "io_uring",
        "limits:",
        "sessions, queued messages and retained messages are lost when this process stops",
        "--allow-anonymous",
    ] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

#[test]
fn several_addresses_are_listened_on() {
    let arguments = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.2:0", "--shards", "2", "--no-pin"];
    let broker = Broker::start_with(&arguments, 2);
    let topic = name("t");
    let mut clients: Vec<Client> = broker
        .addresses()
        .iter()
        .map(|address| {
            let mut client = Client::open_at(*address, V5);
            client.send_connect(&Connect::new(V5, name("c")));
            assert_eq!(client.expect_connack().code, 0);
            client.subscribe(&topic, 0);
            client
        })
        .collect();
    clients[0].send_publish(&Publish::new(&*topic, "x"));
    for client in &mut clients {
        assert_eq!(client.expect_publish().text(), "x");
    }
}

#[test]
fn ipv6_is_listened_on_where_there_is_any() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("NOT RUN: no IPv6 loopback here");
        return;
    }
    let broker = Broker::start_with(&["--listen", "[::1]:0", "--shards", "1", "--no-pin"], 1);
    Client::fresh(&broker, V5).ping();
}

#[test]
fn a_second_instance_on_the_same_address_is_refused() {
    let first = Broker::start(2, &[]);
    let address = first.address().to_string();
    for _ in 0..3 {
        let (code, text) = refused(&["--listen", &address, "--shards", "2", "--no-pin"]);
        assert_eq!(code, SYSTEM, "{text}");
        assert!(text.contains(&address), "{text}");
    }
    // The first does not notice.
    for _ in 0..20 {
        Client::fresh(&first, V5).ping();
    }
}

#[test]
fn an_address_that_another_server_has_is_refused() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = other.local_addr().expect("an address").to_string();
    let (code, text) = refused(&["--listen", &address, "--no-pin", "--shards", "1"]);
    assert_eq!(code, SYSTEM, "{text}");
    assert!(text.contains(&address), "{text}");
}

#[test]
fn an_address_beyond_loopback_needs_a_word() {
    for address in ["0.0.0.0:0", "192.0.2.1:1883", "[::]:0", "[2001:db8::1]:1883"] {
        let (code, text) = refused(&["--listen", address]);
        assert_eq!(code, USAGE, "{text}");
        assert!(text.contains("--allow-anonymous"), "the line to type is missing:\n{text}");
    }
}

#[test]
fn all_of_127_is_loopback() {
    let broker = Broker::start_with(&["--listen", "127.9.9.9:0", "--shards", "1", "--no-pin"], 1);
    Client::fresh(&broker, V311).ping();
}

#[test]
fn cpus_that_do_not_exist_are_refused() {
    for cores in ["99999", "0-99999", "-1", "x", "", "1-", "3-1", "0,,1"] {
        let (code, text) = refused(&["--listen", "127.0.0.1:0", "--cores", cores]);
        assert_eq!(code, USAGE, "--cores {cores:?}: {text}");
    }
}

#[test]
fn a_wrong_command_line_is_refused_with_the_code_for_it() {
    let wrong: [&[&str]; 16] = [
        &["--no-such-flag"],
        &["stray"],
        &["--listen"],
        &["--listen", "nonsense"],
        &["--listen", "127.0.0.1"],
        &["--listen", "127.0.0.1:99999"],
        &["--shards", "0"],
        &["--shards", "x"],
        &["--shards", "100000"],
        &["--receive-maximum", "0"],
        &["--receive-maximum", "65536"],
        &["--log-level", "loud"],
        &["--log-format", "xml"],
        &["--packet-size-max", "0"],
        &["--sys-interval", "-1"],
        &["--connections-max", "many"],
    ];
    for arguments in wrong {
        let (code, text) = refused(arguments);
        assert_eq!(code, USAGE, "{arguments:?}: {text}");
    }
}

#[test]
fn help_and_version_end_well() {
    for (flag, part) in
        [("--help", "--listen"), ("-h", "--listen"), ("--version", "ringmq "), ("-V", "ringmq ")]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_ringmq")).arg(flag).output().expect("it runs");
        assert!(output.status.success(), "{flag}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(part), "{flag}: {output:?}");
    }
}

#[test]
fn too_few_descriptors_are_an_error_and_no_panic() {
    for limit in ["12", "16", "24"] {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "ulimit -n \"$1\" && shift && exec \"$@\"", "sh", limit])
            .args([env!("CARGO_BIN_EXE_ringmq"), "--listen", "127.0.0.1:0", "--shards", "4", "--no-pin"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a shell");
        // It may find that it has enough and start; then it is ended here.
        std::thread::sleep(Duration::from_secs(2));
        let ended = child.try_wait().expect("it can be waited for");
        let _ = child.kill();
        let output = child.wait_with_output().expect("its output");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!text.contains("panicked"), "{text}");
        match ended {
            Some(status) => assert!([Some(USAGE), Some(SYSTEM)].contains(&status.code()), "{status}: {text}"),
            None => assert!(text.contains("listening on"), "{limit} descriptors: {text}"),
        }
    }
}

#[test]
fn json_logs_are_json_line_by_line() {
    let broker = Broker::start(1, &["--log-format", "json", "--log-level", "debug"]);
    Client::accepted(&broker, &Connect::new(V5, "a \"quoted\"\n client")).disconnect();
    std::thread::sleep(Duration::from_millis(200));
    let text = broker.stderr();
    assert!(text.lines().count() > 3, "{text}");
    for line in text.lines() {
        assert!(line.starts_with('{') && line.ends_with('}'), "{line}");
        let quotes = line.replace("\\\\", "").replace("\\\"", "").matches('"').count();
        assert!(quotes.is_multiple_of(2), "{line}");
    }
}

#[test]
fn log_lines_of_a_client_are_escaped() {
    let broker = Broker::start(1, &["--log-level", "debug"]);
    Client::accepted(&broker, &Connect::new(V5, "evil\n2026-01-01 info forged line\u{1b}[31m")).disconnect();
    std::thread::sleep(Duration::from_millis(200));
    let text = broker.stderr();
    assert!(text.contains("evil"), "{text}");
    assert!(!text.lines().any(|line| line.starts_with("2026-01-01 info forged")), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn an_idle_broker_uses_no_processor_time_to_speak_of() {
    let broker = Broker::start(4, &["--sys-interval", "10"]);
    let _idle: Vec<Client> = (0..20).map(|_| Client::fresh(&broker, V5)).collect();
    std::thread::sleep(Duration::from_secs(1));
    let before = broker.cpu_ticks();
    std::thread::sleep(Duration::from_secs(4));
    let used = broker.cpu_ticks() - before;
    // Half a percent of four seconds is two ticks of a hundredth; one more for the edges.
    assert!(used <= 3, "{used} ticks in four seconds");
}
