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
            if text.last().unwrap().contains("to let the network in") {
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
        "--shards 2 --listen :1883 --allow-anonymous",
    ] {
        assert!(text.contains(words), "'{words}' is missing in\n{text}");
    }
}

#[test]
fn a_signal_drains_and_the_exit_code_is_0() {
    for signal in ["TERM", "INT", "QUIT"] {
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
    for (signal, code) in [("TERM", 143), ("QUIT", 131)] {
        let broker = Broker::start(&["--shards", "2", "--shutdown-timeout", "60"]);
        let clients: Vec<TcpStream> = (0..4).map(|_| broker.connect()).collect();
        broker.signal("TERM");
        std::thread::sleep(Duration::from_millis(100));
        let start = Instant::now();
        broker.signal("HUP");
        std::thread::sleep(Duration::from_millis(50));
        broker.signal(signal);
        let (ended, log) = broker.end();
        assert_eq!(ended, Some(code), "{log}");
        assert!(log.contains("signal=SIGHUP why=\"the broker is stopping"), "{log}");
        assert!(start.elapsed() < Duration::from_millis(700), "{:?}", start.elapsed());
        drop(clients);
    }
}

#[test]
fn a_signal_that_means_nothing_is_named_and_ignored() {
    let broker = Broker::start(&["--shards", "2"]);
    let mut client = broker.connect();
    // Those of real time have the numbers from 34 on.
    let others =
        ["USR2", "PIPE", "ALRM", "VTALRM", "PROF", "IO", "PWR", "STKFLT", "XCPU", "XFSZ", "34", "37", "64"];
    for signal in others {
        broker.signal(signal);
    }
    // Meaningful, but there is no file to open again.
    broker.signal("USR1");
    client.write_all(b"\xc0\0").unwrap();
    client.read_exact(&mut [0; 2]).unwrap();
    broker.signal("TERM");
    let (code, log) = broker.end();
    assert_eq!(code, Some(0), "{log}");
    let names = others.map(|name| match name {
        "34" => "SIGRTMIN".to_owned(),
        "37" => "SIGRTMIN+3".to_owned(),
        "64" => "SIGRTMIN+30".to_owned(),
        name => format!("SIG{name}"),
    });
    for name in names {
        let line = format!(" warn signal signal={name} why=\"ringmq ignores this signal\"\n");
        assert!(log.contains(&line), "{name} in\n{log}");
    }
    assert!(log.contains(" signal=SIGUSR1 why=\"the log is on stderr"), "{log}");
}

/// A directory of its own, gone at the end.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = format!("{}/command-{}-{name}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
        std::fs::create_dir_all(&path).unwrap();
        Directory(path.into())
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Waits until a file has these words.
    fn until(&self, name: &str, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.text(name).contains(words) {
            assert!(Instant::now() < deadline, "no {words:?} in\n{}", self.text(name));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_log_file_has_everything_and_is_opened_again_at_usr1() {
    let directory = Directory::new("log-file");
    let path = directory.path("log");
    let broker = Quiet::start(&["--log-file", &path]);
    directory.until("log", " info start only this machine can connect");
    assert!(
        directory.text("log").contains(" info start listening on 127.0.0.1:"),
        "{}",
        directory.text("log")
    );
    std::fs::rename(&path, directory.path("log.1")).unwrap();
    broker.signal("USR1");
    directory.until("log", " info signal signal=SIGUSR1 opened=");
    broker.signal("TERM");
    assert_eq!(broker.end(), (Some(0), String::new()));
    assert!(directory.text("log").contains(" info stop signal=SIGTERM"), "{}", directory.text("log"));
    assert!(!directory.text("log.1").contains("SIGTERM"));

    // In a file of settings its path is relative to that.
    std::fs::write(directory.path("ringmq.toml"), "log-file = \"own.log\"\n").unwrap();
    let broker = Quiet::start(&["--config", &directory.path("ringmq.toml")]);
    directory.until("own.log", "listening on");
    broker.signal("TERM");
    assert_eq!(broker.end().0, Some(0));
}

#[test]
fn usr1_is_said_by_the_level_that_a_reload_has_set() {
    let directory = Directory::new("log-level");
    let file = directory.path("ringmq.toml");
    let set = |level: &str| {
        std::fs::write(&file, format!("log-file = \"log\"\nlog-level = \"{level}\"\n")).unwrap();
    };
    set("off");
    let broker = Quiet::start(&["--config", &file]);
    // Signals wait for the broker from before it makes the file.
    let deadline = Instant::now() + PATIENCE;
    while !std::path::Path::new(&directory.path("log")).exists() {
        assert!(Instant::now() < deadline, "no log file");
        std::thread::sleep(Duration::from_millis(5));
    }
    set("info");
    broker.signal("HUP");
    directory.until("log", "log-level off -> info");
    broker.signal("USR1");
    directory.until("log", " info signal signal=SIGUSR1 opened=");
    set("error");
    broker.signal("HUP");
    directory.until("log", "log-level info -> error");
    broker.signal("USR1");
    broker.signal("TERM");
    assert_eq!(broker.end(), (Some(0), String::new()));
    let text = directory.text("log");
    assert_eq!(text.matches("SIGUSR1").count(), 1, "{text}");
}

#[test]
fn a_log_file_that_cannot_be_written_refuses_the_start() {
    let directory = Directory::new("no-log-file");
    for path in [directory.path("none/log"), directory.path("")] {
        let (code, _, stderr) = run(&["--listen", "127.0.0.1:0", "--log-file", &path]);
        assert_eq!(code, Some(78), "{stderr}");
        assert!(stderr.contains(&format!("--log-file {path}: ")), "{stderr}");
    }
    // What else is wrong is said on stderr and in the file.
    let path = directory.path("log");
    let (code, _, stderr) = run(&["--listen", "192.0.2.1:1883", "--allow-anonymous", "--log-file", &path]);
    assert_eq!(code, Some(64), "{stderr}");
    assert!(stderr.contains("192.0.2.1:1883"), "{stderr}");
    assert!(
        directory.text("log").contains(" error start cannot listen on 192.0.2.1:1883"),
        "{}",
        directory.text("log")
    );
}

/// A broker that says nothing on stderr, or is not listened to.
struct Quiet(Child);

impl Quiet {
    fn start(flags: &[&str]) -> Quiet {
        Quiet(
            ringmq(&[&["--listen", "127.0.0.1:0", "--shards", "1", "--no-pin"], flags].concat())
                .spawn()
                .unwrap(),
        )
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.0.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// The exit code, and all of stderr.
    fn end(mut self) -> (Option<i32>, String) {
        let mut text = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (self.0.wait().unwrap().code(), text)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_log_that_is_off_is_silent_from_the_start_to_the_end() {
    // A port that was free a moment ago, since nobody says which was chosen.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut flags = vec!["--listen", &address, "--shards", "1", "--no-pin", "--memory-max", "8000G"];
    for format in ["text", "json"] {
        flags.extend(["--log-level=off", "--log-format", format]);
        let broker = Quiet(ringmq(&flags).spawn().unwrap());
        let deadline = Instant::now() + PATIENCE;
        let mut client = loop {
            match TcpStream::connect(&address) {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        client.read_to_end(&mut Vec::new()).unwrap_or(0);
        for signal in ["USR1", "USR2", "HUP", "TERM"] {
            broker.signal(signal);
        }
        assert_eq!(broker.end(), (Some(0), String::new()));
        flags.truncate(7);
    }
    let (code, _, stderr) = run(&["--log-level", "off", "--listen", "0.0.0.0:0"]);
    assert_eq!(code, Some(64));
    assert!(stderr.contains("--allow-anonymous"), "a refusal is said: {stderr}");
}

#[test]
fn lines_have_their_level_in_front_where_journald_reads_stderr() {
    use std::os::unix::fs::MetadataExt;
    let directory = Directory::new("journal");
    for (format, is_journal) in [("text", true), ("json", true), ("text", false)] {
        let name = format!("{format}-{is_journal}");
        let file = std::fs::File::create(directory.path(&name)).unwrap();
        let meta = file.metadata().unwrap();
        let inode = meta.ino() + u64::from(!is_journal);
        let flags = ["--listen", "127.0.0.1:0", "--shards", "1", "--no-pin", "--log-format", format];
        let mut command = ringmq(&flags);
        command.stderr(file).env("JOURNAL_STREAM", format!("{}:{inode}", meta.dev()));
        let mut child = command.spawn().unwrap();
        directory.until(&name, "only this machine can connect");
        for signal in ["-USR2", "-TERM"] {
            assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
            directory.until(&name, if signal == "-USR2" { "SIGUSR2" } else { "lost_sessions" });
        }
        assert_eq!(child.wait().unwrap().code(), Some(0));
        let text = directory.text(&name);
        let level = |line: &str| match line {
            line if line.contains("SIGUSR2") => "<4>",
            _ => "<6>",
        };
        assert!(text.lines().all(|line| line.starts_with(level(line)) == is_journal), "{text}");
        assert_eq!(text.contains("<6>"), is_journal, "{text}");
    }
    // A refusal too.
    let file = std::fs::File::create(directory.path("refused")).unwrap();
    let meta = file.metadata().unwrap();
    let mut command = ringmq(&["--listen", "192.0.2.1:1883", "--allow-anonymous"]);
    command.stderr(file).env("JOURNAL_STREAM", format!("{}:{}", meta.dev(), meta.ino()));
    assert_eq!(command.status().unwrap().code(), Some(64));
    assert!(
        directory.text("refused").starts_with("<3>ringmq: cannot listen"),
        "{}",
        directory.text("refused")
    );
}

#[test]
fn the_start_is_fields_where_the_log_is_json() {
    let broker = Broker::start(&["--log-format", "json", "--shards", "2", "--memory-max", "8000G"]);
    let text = broker.text.concat();
    for field in [
        concat!("\"version\":\"", env!("CARGO_PKG_VERSION"), "\",\"pid\":"),
        &format!("\"listening\":\"{}\",\"tls\":false,", broker.address),
        "\"shards\":2,",
        "\"io\":\"",
        "\"connections_max\":",
        "\"memory_max\":8589934592000,",
        "\"persistent\":false,\"text\":\"nothing survives a restart",
        "\"level\":\"warn\",\"event\":\"start\",\"warning\":\"--memory-max 8000G is more than",
    ] {
        assert!(text.contains(field), "{field} is missing in\n{text}");
    }
}

#[test]
fn each_command_has_a_help_of_its_own() {
    let help = |arguments: &[&str]| {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{arguments:?}");
        stdout
    };
    for arguments in [&["-h"][..], &["--help"], &["help"], &["help", "help"]] {
        let text = help(arguments);
        for words in [
            "Usage: ringmq [OPTIONS]",
            "\n  check FILE ",
            "\n  config ",
            "\n  passwd FILE USER ",
            "\n  store COMMAND ",
            "--listen",
        ] {
            assert!(text.contains(words), "{arguments:?}: {words} is missing in\n{text}");
        }
    }
    assert_eq!(help(&["help"]), help(&["--help"]));
    for (command, usage) in [
        ("check", "Usage: ringmq check "),
        ("config", "Usage: ringmq config [OPTIONS]\n"),
        ("passwd", "Usage: ringmq passwd "),
    ] {
        let text = help(&["help", command]);
        assert!(text.contains(usage), "{text}");
        assert_eq!(text, help(&[command, "--help"]));
        let wrong = run(&[command, "--no-such-flag"]);
        assert_eq!(wrong.0, Some(64));
        assert!(wrong.2.contains(&usage[.."Usage: ringmq c".len()]), "{}", wrong.2);
    }
    for (arguments, words) in [
        (&["pasword", "f", "u"][..], "did you mean \"passwd\"?"),
        (&["help", "no-such"], "there is no command"),
        (&["/etc/ringmq.toml"], "--config /etc/ringmq.toml"),
    ] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stdout.as_str()), (Some(64), ""), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    }
}

#[test]
fn localhost_is_every_loopback_address_that_there_is() {
    let has_ipv6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    let directory = Directory::new("localhost");
    let file = directory.path("ringmq.toml");
    std::fs::write(&file, "[[listener]]\naddress = \"localhost:0\"\nconnections-max = 1\n").unwrap();
    let mut child = ringmq(&["--shards", "2", "--no-pin", "--config", &file]).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut addresses = Vec::new();
    let broker = Quiet(child);
    loop {
        let mut line = String::new();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended");
        addresses.extend(
            line.strip_prefix("listening on ").map(|rest| rest.split(' ').next().unwrap().to_owned()),
        );
        if line.contains("only this machine can connect") {
            break;
        }
    }
    assert_eq!(addresses.len(), 1 + usize::from(has_ipv6), "{addresses:?}");
    // One listener, so its limit counts the connections of both.
    let connect = |address: &str| {
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00").unwrap();
        let mut first = [0];
        let read = client.read(&mut first).unwrap_or(0);
        (read == 1).then_some(client)
    };
    let _first = connect(&addresses[0]).expect("there is room for one");
    if let [_, second] = &addresses[..] {
        assert!(connect(second).is_none(), "and for no other");
    }
    drop(broker);
}

#[test]
fn a_file_of_another_kind_is_recognised() {
    let directory = Directory::new("foreign");
    let file = directory.path("mosquitto.conf");
    std::fs::write(&file, "# a comment\nlistener 1883\nallow_anonymous true\n").unwrap();
    for arguments in [&["--config", &file][..], &["check", &file], &["config", "--config", &file]] {
        let (code, _, stderr) = run(arguments);
        assert_eq!(code, Some(78), "{stderr}");
        for words in [
            "mosquitto.conf:2:1: this is a mosquitto.conf",
            "allow-anonymous = true\n\n[[listener]]\naddress = \":1883\"",
        ] {
            assert!(stderr.contains(words), "{arguments:?}: {words} is missing in\n{stderr}");
        }
    }
}

#[test]
fn a_shutdown_timeout_is_kept_whatever_clients_do() {
    let broker = Broker::start(&["--shutdown-timeout", "0"]);
    let _stays = broker.connect();
    let start = Instant::now();
    broker.signal("INT");
    let (code, log) = broker.end();
    assert_eq!(code, Some(0));
    assert!(log.contains("--shutdown-timeout was over"), "{log}");
    assert!(log.contains("lost_sessions=0 "), "its session would have ended with its connection: {log}");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn a_second_instance_is_refused() {
    let broker = Broker::start(&[]);
    let (code, _, stderr) = run(&["--listen", &broker.address]);
    assert_eq!(code, Some(71));
    assert!(stderr.contains("another ringmq listens there"), "{stderr}");
    drop(broker.connect());
}

#[test]
fn what_is_refused_has_an_exit_code_and_says_what_to_type() {
    for (flags, code, words) in [
        (&["--listen", "0.0.0.0:0"][..], 64, "--listen 0.0.0.0:0 --allow-anonymous"),
        (&["--cores", "900"], 64, "has no CPU 900"),
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
