//! What the log says of those who are turned away or denied something, and what a stop loses.

use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::*;

/// Waits for this many lines of the log with all these words.
fn lines_with(broker: &Broker, count: usize, words: &[&str]) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let text = broker.stderr();
        let lines = text.lines().filter(|line| words.iter().all(|word| line.contains(word)));
        let lines: Vec<String> = lines.map(String::from).collect();
        if lines.len() >= count {
            return lines;
        }
        assert!(Instant::now() < deadline, "no {count} lines with {words:?} in:\n{text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends these bytes; the connection, and its address as the log has it.
fn stranger(broker: &Broker, bytes: &[u8]) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(broker.address()).expect("a connection");
    stream.write_all(bytes).expect("it takes a few bytes");
    let address = format!("address={}", stream.local_addr().expect("an address"));
    (stream, address)
}

#[test]
fn everybody_who_is_closed_before_connect_is_said_with_address_and_reason() {
    let broker = Broker::start(2, &["--connect-timeout", "1s", "--connect-packet-size-max", "256"]);
    let connect = |bytes: &str| [b"\x10\x0c".as_slice(), bytes.as_bytes(), &[0; 12]].concat();
    let large = [b"\x10\xff\x7f".as_slice(), b"\0\x04MQTT\x04\x02\0\0"].concat();
    for (bytes, why) in [
        (&b"GET /mqtt HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"[..], "HTTP or WebSocket"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS is spoken, and this port is plain"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "PROXY"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c", "PROXY"),
        (b"SSH-2.0-OpenSSH_9\r\n", "SSH"),
        (b"\x82\x06\0\x01\0\x01a\0", "the first packet is SUBSCRIBE"),
        (b"\x30\x03\0\x01a", "the first packet is PUBLISH"),
        (b"\xc0\0", "the first packet is PINGREQ"),
        (b"\0\0\0\0", "begins no packet"),
        (b"\xff\xff\xff\xff", "begins no packet"),
        (b"\x10\xff\xff\xff\xff\x7f", "Remaining Length has more than four bytes"),
        (&large, "larger than --connect-packet-size-max"),
        (&connect("\0\x04MQXX\x04\x02"), "not a CONNECT of MQTT"),
        // 3.1.1 with a reserved flag, which gets no CONNACK.
        (b"\x10\x0d\0\x04MQTT\x04\x03\0\0\0\x01a", "reserved Connect Flag"),
        // Too slow.
        (b"\x10\x0d\0\x04", "no whole CONNECT came within --connect-timeout"),
    ] {
        let (_open, address) = stranger(&broker, bytes);
        let [line] = &lines_with(&broker, 1, &[" warn no-connect ", &address])[..] else { panic!("{why}") };
        assert!(line.contains(why), "{bytes:?}: {line}");
        assert!(!broker.stderr().contains(&format!("disconnect client=\"\" user=\"\" {address}")), "twice");
    }
    // Levels that are not spoken get a CONNACK, and a line that says so.
    let (_open, address) = stranger(&broker, b"\x10\x0d\0\x04MQTT\x07\x02\0\0\0\x01a");
    lines_with(&broker, 1, &[" warn refused ", &address, "protocol version is not supported", "code=0x84"]);
    // Whoever goes away by itself.
    let (open, address) = stranger(&broker, b"\x10\x0d\0\x04MQ");
    drop(open);
    lines_with(&broker, 1, &[" warn no-connect ", &address, "closed in the middle of its CONNECT"]);
}

#[test]
fn a_look_whether_the_port_is_open_is_no_warning() {
    for (level, count) in [("debug", 1), ("info", 0)] {
        let broker = Broker::start(1, &["--log-level", level]);
        let (open, address) = stranger(&broker, b"");
        drop(open);
        // The line of the next one comes behind it.
        let (_open, next) = stranger(&broker, b"GET / HTTP/1.0\r\n\r\n");
        lines_with(&broker, 1, &["no-connect", &next]);
        let lines = lines_with(&broker, count, &[" debug no-connect ", &address, "closed without a byte"]);
        assert_eq!(lines.len(), count, "{}", broker.stderr());
    }
}

/// A file of rules in the directory for tests, gone at the end.
struct Rules(std::path::PathBuf);

impl Rules {
    fn new(text: &str) -> Rules {
        let path = format!("{}/rules-{}-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id(), name("r"));
        std::fs::write(&path, text).expect("rules are written");
        Rules(path.into())
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn what_is_denied_is_said_a_few_times_and_then_counted() {
    let rules = Rules::new("topic readwrite free/#\n");
    for (shards, version) in [(1, V5), (2, V311)] {
        let broker = Broker::start(shards, &["--acl-file", rules.path()]);
        let mut client = Client::accepted(&broker, &Connect::new(version, "curious"));
        let address = format!("address={}", client.local_address());
        let of = |packet: &str| format!("packet={packet}");
        let said = [" warn denied ", "client=curious", "user=\"\"", &address];
        // One PUBLISH and one SUBSCRIBE are said at once.
        client.send_publish(&Publish::new("secret/1", "x"));
        let refused = if version == V5 { 0x87 } else { 0x80 };
        assert_eq!(client.subscribe_all(1, &[], &[("free/a", 0), ("secret/#", 0)]), [0, refused]);
        lines_with(&broker, 1, &[&said[..], &[&of("PUBLISH"), "topic=secret/1"]].concat());
        lines_with(&broker, 1, &[&said[..], &[&of("SUBSCRIBE"), "topic=\"secret/#\""]].concat());
        // A flood is not, at any QoS, one by one or in a run.
        for number in 0..60 {
            client.send_publish(&Publish::new("secret/2", number.to_string()));
        }
        for _ in 0..40 {
            let packet_id = client.packet_id();
            let _ = client.publish(&Publish::new("secret/3", "x").qos(1, packet_id));
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        let lines = loop {
            let lines = lines_with(&broker, 1, &[&said[..], &[&of("PUBLISH")]].concat());
            let more = |line: &String| line.split(" more=").nth(1)?.trim().parse::<usize>().ok();
            let counted: usize = lines.iter().filter_map(more).sum();
            let single = lines.iter().filter(|line| line.contains(" topic=")).count();
            if counted + single == 101 {
                break lines;
            }
            assert!(Instant::now() < deadline && counted + single < 101, "{lines:?}");
            std::thread::sleep(Duration::from_millis(50));
        };
        assert!(lines.len() <= 24, "five and a count in ten seconds: {lines:?}");
        assert!(lines.iter().filter(|line| line.contains("more=")).count() >= 1, "{lines:?}");
    }
}

#[test]
fn a_will_and_a_client_that_publishes_to_sys_are_denied_with_a_line() {
    let rules = Rules::new("topic readwrite free/#\n");
    let broker = Broker::start(2, &["--acl-file", rules.path()]);
    let will = Will::new("secret/will", "gone");
    drop(Client::accepted(&broker, &Connect::new(V5, "mortal").will(will)));
    lines_with(&broker, 1, &[" warn denied ", "client=mortal", "packet=PUBLISH", "topic=secret/will"]);
    // Without rules this is all that is denied.
    let broker = Broker::start(2, &[]);
    Client::accepted(&broker, &Connect::new(V5, "forger")).send_publish(&Publish::new("$SYS/broker/x", "1"));
    lines_with(&broker, 1, &[" warn denied ", "client=forger", "topic=\"$SYS/broker/x\""]);
}

/// The filter of docs/OPERATIONS.md finds those who are turned away, with the address, and nobody else.
#[test]
fn the_filter_for_fail2ban_finds_who_is_turned_away() {
    let document = include_str!("../../docs/OPERATIONS.md");
    let filter = document.split("failregex = ").nth(1).and_then(|rest| rest.split("\n```").next());
    let patterns: Vec<&str> = filter.expect("a filter").lines().map(str::trim).collect();
    assert_eq!(patterns.len(), 2, "{patterns:?}");
    let users = Rules::new(
        "alice:$6$AAECAwQFBgcICQoL$Y4WPO0ICbkFB25Sxdu2LoRRrxHn+5vSWhC2EUmSYoLLtUV8GIc4CVeWWuvFv5IE5M6bpTbvMD7qDxLQrWa4e8Q==\n",
    );
    let broker = Broker::start(2, &["--password-file", users.path()]);
    let (_http, http) = stranger(&broker, b"GET / HTTP/1.0\r\n\r\n");
    let liar = "x\" user=\"\" address=192.0.2.1:1 why=\"the user name\" code=0x87";
    let mut refused = Client::open(&broker, V5);
    refused.send(Connect::new(V5, liar).bytes());
    refused.expect_connack();
    let refused = format!("address={}", refused.local_address());
    lines_with(&broker, 1, &["no-connect", &http]);
    lines_with(&broker, 1, &["refused", &refused]);
    // What fail2ban puts in the place of <ADDR>, shortened.
    let program = "import re, sys\n\
                   patterns = [re.compile(p.replace('<ADDR>', r'(?P<ip>[0-9A-Fa-f.:]+)')) for p in sys.argv[1:]]\n\
                   for line in sys.stdin:\n    \
                       found = [m for m in (p.search(line.rstrip('\\n')) for p in patterns) if m]\n    \
                       if found: print(found[0]['ip'], 'no-connect' in line)\n";
    let child = Command::new("python3")
        .args(["-c", program])
        .args(&patterns)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        println!("NOT RUN: there is no python3 here");
        return;
    };
    let text = format!(
        "{}\n{}",
        broker.stderr(),
        "2026-01-01T00:00:00.000Z warn no-connect address=[2001:db8::1]:5 why=x"
    );
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("python3 reads");
    let found = String::from_utf8(child.wait_with_output().expect("python3 ends").stdout).expect("UTF-8");
    let found: Vec<&str> = found.lines().collect();
    assert_eq!(found.len(), 3, "{found:?} in\n{text}");
    assert!(found.contains(&"127.0.0.1 True") && found.contains(&"127.0.0.1 False"), "{found:?}");
    assert_eq!(found[2], "2001:db8::1 True");
}

#[test]
fn a_stop_says_what_is_lost() {
    for shards in [1, 3] {
        let mut broker = Broker::start(shards, &["--sys-interval", "1s"]);
        let topic = name("t");
        // Ten sessions that would live on, one of them connected, and one that would not.
        for number in 0..9 {
            let away = Connect::new(V5, format!("away-{number}")).resume().with(Property::SessionExpiry(100));
            let mut client = Client::accepted(&broker, &away);
            client.subscribe(&topic, 1);
            client.disconnect();
        }
        let _here = Client::accepted(&broker, &Connect::new(V311, "here").resume());
        let mut publisher = Client::fresh(&broker, V5);
        for number in 0..3 {
            publisher.say(&topic, "x", 1);
            publisher.say_retained(&format!("{topic}/{number}"), "kept");
        }
        let mut watch = Client::fresh(&broker, V5);
        watch.subscribe("$SYS/broker/uptime", 0);
        watch.expect_publish();
        broker.process().signal("TERM");
        assert_eq!(broker.process().exit_code(), 0);
        lines_with(&broker, 1, &[" warn stop lost_sessions=10 lost_messages=27 lost_retained=3"]);
    }
    let mut broker = Broker::start(2, &[]);
    Client::fresh(&broker, V5).ping();
    broker.process().signal("TERM");
    assert_eq!(broker.process().exit_code(), 0);
    lines_with(&broker, 1, &[" info stop lost_sessions=0 lost_messages=0 lost_retained=0"]);
}
