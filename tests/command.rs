//! The `ringmq` command as a person meets it: what it prints, what it refuses, how it ends.
//!
//! Real processes on 127.0.0.1 with ports that the kernel chooses; each is ended by the test that started it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

fn ringmq(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq"));
    command.args(flags).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A broker that runs; killed if the test forgets it.
struct Broker {
    child: Child,
    stderr: BufReader<ChildStderr>,
    text: Vec<String>,
    address: String,
}

impl Broker {
    fn start(flags: &[&str]) -> Broker {
        let mut child = ringmq(&[&["--listen", "127.0.0.1:0"], flags].concat()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let (mut text, mut address) = (Vec::new(), None);
        loop {
            let mut line = String::new();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended: {text:?}");
            let found =
                line.split("listening on ").nth(1).map(|rest| rest.trim_end_matches(['\n', '"', '}']));
            address = address.or(found.map(str::to_owned));
            text.push(line);
            if text.last().unwrap().contains("to listen to the network") {
                break;
            }
        }
        Broker { child, stderr, text, address: address.unwrap() }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// The exit code, and what it printed after the start text.
    fn end(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + PATIENCE;
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(2));
        };
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        (code, rest)
    }

    /// A v5 client with an assigned identifier, after its CONNACK.
    fn connect(&self) -> TcpStream {
        let mut client = TcpStream::connect(&self.address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00").unwrap();
        let mut head = [0; 4];
        client.read_exact(&mut head).unwrap();
        assert_eq!((head[0], head[3]), (0x20, 0));
        client.read_exact(&mut vec![0; usize::from(head[1]) - 2]).unwrap();
        client
    }

    /// Nanoseconds that its threads were on a CPU.
    fn cpu_ns(&self) -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let stat = |path| std::fs::read_to_string(path).unwrap();
        tasks
            .map(|task| stat(task.unwrap().path().join("schedstat")))
            .map(|text| text.split(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs to its end; the exit code, stdout and stderr.
fn run(flags: &[&str]) -> (Option<i32>, String, String) {
    let output = ringmq(flags).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_start_text_has_what_a_person_needs_to_know() {
    let broker = Broker::start(&["--shards", "2"]);
    let text = broker.text.concat();
    for words in [
        "listening on 127.0.0.1:",
        "shards: 2",
        "io: Linux",
        "connections",
        "sessions, queued messages and retained messages are lost when this process stops",
        "--shards 2 --listen 0.0.0.0:1883 --allow-anonymous",
    ] {
        assert!(text.contains(words), "'{words}' is missing in\n{text}");
    }
}

#[test]
fn a_signal_drains_and_the_exit_code_is_0() {
    for signal in ["TERM", "INT"] {
        let broker = Broker::start(&["--shards", "2"]);
        let mut client = broker.connect();
        let start = Instant::now();
        broker.signal(signal);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert_eq!((rest[0], rest[2]), (0xE0, 0x8B));
        drop(client);
        let (code, log) = broker.end();
        assert_eq!(code, Some(0));
        assert!(log.contains(&format!("stop signal=SIG{signal} connections=1")), "{log}");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let broker = Broker::start(&["--shards", "2", "--shutdown-timeout", "60"]);
    let clients: Vec<TcpStream> = (0..4).map(|_| broker.connect()).collect();
    broker.signal("TERM");
    std::thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    broker.signal("TERM");
    assert_eq!(broker.end().0, Some(143));
    assert!(start.elapsed() < Duration::from_millis(700), "{:?}", start.elapsed());
    drop(clients);
}

#[test]
fn a_shutdown_timeout_is_kept_whatever_clients_do() {
    let broker = Broker::start(&["--shutdown-timeout", "0"]);
    let _stays = broker.connect();
    let start = Instant::now();
    broker.signal("INT");
    let (code, log) = broker.end();
    assert_eq!(code, Some(0));
    assert!(log.contains("the time was up"), "{log}");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn a_second_instance_is_refused() {
    let broker = Broker::start(&[]);
    let (code, _, stderr) = run(&["--listen", &broker.address]);
    assert_eq!(code, Some(71));
    assert!(stderr.contains("another ringmq serves it"), "{stderr}");
    drop(broker.connect());
}

#[test]
fn what_is_refused_has_an_exit_code_and_says_what_to_type() {
    for (flags, code, words) in [
        (&["--listen", "0.0.0.0:0"][..], 64, "--listen 0.0.0.0:0 --allow-anonymous"),
        (&["--cores", "900"], 64, "there is no CPU 900"),
        (&["--listen", "192.0.2.1:1883", "--allow-anonymous"], 64, "ip addr"),
        (&["--no-such-flag"], 64, "--help"),
        (&["--connections-max", "4000000000"], 71, "ulimit -n"),
    ] {
        let (got, stdout, stderr) = run(flags);
        assert_eq!(got, Some(code), "{flags:?}: {stderr}");
        assert!(stderr.contains(words) && stdout.is_empty(), "{flags:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
    let (code, stdout, stderr) = run(&["--help"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("Exit codes:"));
}

#[test]
fn a_json_log_is_json_from_the_first_line_to_the_last() {
    let mut broker = Broker::start(&["--log-format", "json"]);
    let text = std::mem::take(&mut broker.text);
    drop(broker.connect());
    broker.signal("TERM");
    let (code, log) = broker.end();
    assert_eq!(code, Some(0));
    for line in text.iter().map(String::as_str).chain(log.lines()) {
        let line = line.trim_end();
        assert!(line.starts_with("{\"time\":\"") && line.ends_with('}'), "{line}");
    }
}

#[test]
fn an_idle_broker_sleeps() {
    let broker = Broker::start(&["--shards", "2"]);
    let _idle = broker.connect();
    std::thread::sleep(Duration::from_millis(300));
    let before = broker.cpu_ns();
    std::thread::sleep(Duration::from_secs(3));
    let used = Duration::from_nanos(broker.cpu_ns() - before);
    assert!(used < Duration::from_millis(15), "{used:?} in 3 s is more than 0.5 % of a CPU");
}
