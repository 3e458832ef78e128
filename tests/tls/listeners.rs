//! Several TLS listeners of one file, each with a certificate of its own; SIGHUP, in the middle of traffic.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::version::TLS13;

use crate::WAYS;
use crate::certificates::Certificates;
use crate::client::{Client, PATIENCE, config};
use crate::support::Broker;

/// 2040-01-01 and 2041-01-01.
const SECONDS_2040: u64 = 2_208_988_800;
const SECONDS_2041: u64 = 2_240_611_200;

fn shown(address: SocketAddr, config: &Arc<rustls::ClientConfig>) -> Vec<u8> {
    Client::open(address, config).expect("a handshake").server_certificate()
}

/// Sends SIGHUP and returns what the log says to it.
fn reload(broker: &mut Broker) -> String {
    let said = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.contains(" reload ")).map(String::from).collect()
    };
    let before = said(&broker.stderr()).len();
    broker.process().signal("HUP");
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(line) = said(&broker.stderr()).get(before) {
            return line.clone();
        }
        assert!(Instant::now() < deadline, "no word about a reload:\n{}", broker.stderr());
        thread::sleep(Duration::from_millis(5));
    }
}

/// The value of a topic of `$SYS` as soon as it is `expected`.
fn sys_shows(address: SocketAddr, config: &Arc<rustls::ClientConfig>, topic: &str, expected: u64) {
    let mut client = Client::connect(address, config, "watcher").unwrap();
    client.subscribe(topic).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        // QoS 0 or 1, whatever was granted: the payload is what is behind the topic.
        let packet = client.packet().unwrap();
        let text = String::from_utf8_lossy(&packet);
        if packet[0] >> 4 == 3 && text.contains(topic) && text.ends_with(&expected.to_string()) {
            return;
        }
        assert!(Instant::now() < deadline, "{topic} is not {expected} but {text:?}");
    }
}

#[test]
fn a_reload_reaches_every_listener_or_none_and_traffic_goes_on() {
    for (shards, io) in WAYS {
        let certificates = Certificates::new("listeners");
        certificates.sign("first", 2041);
        certificates.sign("second", 2040);
        let path = |file: &str| certificates.path(file);
        let both =
            fs::read_to_string(path("first.pem")).unwrap() + &fs::read_to_string(path("first.key")).unwrap();
        fs::write(path("both.pem"), both).unwrap();
        let rules = path("rules");
        fs::write(&rules, "topic readwrite a\ntopic read $SYS/#\n").unwrap();
        let file = path("ringmq.toml");
        // The first listener has three lines; its key is in the file of its certificate.
        let text = format!(
            "io = \"{io}\"\nshards = {shards}\nno-pin = true\nsys-interval = 1\nacl-file = \"rules\"\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\ncert = \"both.pem\"\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\ncert = \"second.pem\"\nkey = \"second.key\"\nclient-ca = \"ca.pem\"\n\
             client-cert = \"optional\"\nallow-anonymous = true\n"
        );
        fs::write(&file, text).unwrap();
        let mut broker = Broker::start_with(&["--config", &file], 2);
        let said = broker.stderr();
        assert!(
            said.contains("certificate until 2041-01-01") && said.contains("certificate until 2040-01-01"),
            "{said}"
        );
        let [first, second] = [0, 1].map(|at| broker.addresses()[at]);
        let plain = config(&certificates, &TLS13, None);
        let before = [shown(first, &plain), shown(second, &plain)];
        assert!(before[0] != before[1], "each shows its own");

        let over = Arc::new(AtomicBool::new(false));
        let traffic = {
            let (over, plain) = (Arc::clone(&over), Arc::clone(&plain));
            thread::spawn(move || {
                let mut subscriber = Client::connect(first, &plain, "subscriber").unwrap();
                subscriber.subscribe("a").unwrap();
                let mut publisher = Client::connect(second, &plain, "publisher").unwrap();
                let mut count = 0u64;
                while !over.load(Ordering::Relaxed) {
                    publisher.publish("a", &count.to_be_bytes()).unwrap();
                    assert_eq!(subscriber.message().unwrap(), count.to_be_bytes());
                    count += 1;
                }
                count
            })
        };
        sys_shows(first, &plain, "$SYS/broker/listeners/0/certificate_expiry", SECONDS_2041);
        sys_shows(first, &plain, "$SYS/broker/listeners/1/certificate_expiry", SECONDS_2040);
        sys_shows(first, &plain, "$SYS/broker/shard/0/certificate_expiry_s", SECONDS_2040);

        // New certificates for both, but the rules are wrong: nothing of it holds.
        certificates.sign("second", 2041);
        certificates.sign("first", 2042);
        fs::copy(path("first.pem"), path("both.pem")).unwrap();
        fs::write(&rules, "topic readwrote a\n").unwrap();
        let said = reload(&mut broker);
        assert!(said.contains("error") && said.contains("rules"), "{said}");
        assert!([shown(first, &plain), shown(second, &plain)] == before);
        // The rules are right, but the first file has no key any more: nothing of it holds either.
        fs::write(&rules, "topic readwrite #\ntopic read $SYS/#\n").unwrap();
        let said = reload(&mut broker);
        assert!(said.contains("both.pem") && said.contains("private key"), "{said}");
        assert!([shown(first, &plain), shown(second, &plain)] == before);
        let mut denied = Client::connect(first, &plain, "denied").unwrap();
        denied.send(b"\x82\x06\0\x01\0\x01b\0").unwrap();
        assert_eq!(denied.packet().unwrap(), [0x90, 0, 1, 0x80], "the old rules hold");

        let both =
            fs::read_to_string(path("first.pem")).unwrap() + &fs::read_to_string(path("first.key")).unwrap();
        fs::write(path("both.pem"), both).unwrap();
        let said = reload(&mut broker);
        assert!(said.contains("certificates-until=2041-01-01"), "{said}");
        let after = [shown(first, &plain), shown(second, &plain)];
        assert!(after[0] != before[0] && after[1] != before[1] && after[0] != after[1]);
        denied.subscribe("b").unwrap();
        sys_shows(first, &plain, "$SYS/broker/listeners/1/certificate_expiry", SECONDS_2041);
        sys_shows(first, &plain, "$SYS/broker/shard/0/certificate_expiry_s", SECONDS_2041);
        over.store(true, Ordering::Relaxed);
        let count = traffic.join().expect("traffic went on");
        println!("{count} messages meanwhile");
        assert!(count > 20, "{count}");
    }
}

/// `$SYS` goes by the numbers of listeners, which they keep.
#[test]
fn a_listener_that_goes_takes_its_topics_with_it_and_the_others_keep_theirs() {
    for (shards, io) in WAYS {
        let certificates = Certificates::new("goes");
        certificates.sign("first", 2041);
        certificates.sign("second", 2040);
        let file = certificates.path("ringmq.toml");
        let tls = |address: &str, name: &str| {
            format!("[[listener]]\naddress = \"{address}\"\ncert = \"{name}.pem\"\nkey = \"{name}.key\"\n")
        };
        let (first, second) = (tls("127.0.0.1:0", "first"), tls("127.0.0.2:0", "second"));
        let write = |listeners: &[&str]| {
            let head = format!("io = \"{io}\"\nshards = {shards}\nno-pin = true\nsys-interval = 1\n");
            fs::write(&file, head + &listeners.concat()).unwrap();
        };
        write(&[&first, &second]);
        let mut broker = Broker::start_with(&["--config", &file], 2);
        let address = broker.addresses()[1];
        let plain = config(&certificates, &TLS13, None);
        sys_shows(address, &plain, "$SYS/broker/listeners/1/certificate_expiry", SECONDS_2040);
        let mut watcher = Client::connect(address, &plain, "stays").unwrap();
        let topic = "$SYS/broker/listeners/0/certificate_expiry";
        watcher.subscribe(topic).unwrap();

        // The first one goes; the second, now alone in the file, is number 1 still.
        write(&[&second]);
        let said = reload(&mut broker);
        assert!(said.contains("closed="), "{said}");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let packet = watcher.packet().unwrap();
            let is_empty = packet.len() < topic.len() + 9;
            if packet[0] >> 4 == 3 && String::from_utf8_lossy(&packet).contains(topic) && is_empty {
                break;
            }
            assert!(Instant::now() < deadline, "{topic} is there still");
        }
        sys_shows(address, &plain, "$SYS/broker/listeners/1/certificate_expiry", SECONDS_2040);
        sys_shows(address, &plain, "$SYS/broker/shard/0/certificate_expiry_s", SECONDS_2040);

        // It comes back with another certificate, and the other one becomes plain.
        write(&[&tls("127.0.0.1:0", "second"), "[[listener]]\naddress = \"127.0.0.2:0\"\n"]);
        let said = reload(&mut broker);
        assert!(said.contains(&format!("listeners-changed={address}")), "{said}");
        let again = said.split("listening-on=").nth(1).and_then(|rest| rest.split(' ').next());
        let again: SocketAddr = again.and_then(|text| text.parse().ok()).expect("an address");
        sys_shows(again, &plain, "$SYS/broker/listeners/0/certificate_expiry", SECONDS_2040);
        assert!(Client::connect(address, &plain, "tls").is_err(), "it is plain now");
        // Who was connected stays so, through TLS.
        while !String::from_utf8_lossy(&watcher.packet().unwrap()).contains(&SECONDS_2040.to_string()) {}
    }
}

#[test]
fn what_is_checked_includes_certificates() {
    let certificates = Certificates::new("check");
    let file = certificates.path("ringmq.toml");
    let check = || {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_ringmq"))
            .args(["check", &file])
            .output()
            .expect("the binary runs");
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    let listener = "[[listener]]\naddress = \"127.0.0.1:8883\"\ncert = \"server.pem\"\n";
    fs::write(&file, format!("{listener}key = \"server.key\"\nclient-ca = \"ca.pem\"\n")).unwrap();
    let (code, text) = check();
    assert_eq!(code, Some(0), "{text}");
    for words in [
        "listens on 127.0.0.1:8883: TLS, client certificates required",
        "certificate until 2040-01-01",
        "access: clients with a certificate",
        "1 listeners: no problems",
    ] {
        assert!(text.contains(words), "{words} is missing in\n{text}");
    }
    for (key, words) in [
        ("", "no private key"),
        ("key = \"old.key\"\n", "not the key of"),
        ("key = \"none\"\n", "No such file"),
    ] {
        fs::write(&file, format!("{listener}{key}")).unwrap();
        let (code, text) = check();
        assert!(code == Some(78) && text.contains(words), "{code:?} {text}");
        let mut refused = crate::support::broker::Process::spawn(&["--config", &file]);
        assert_eq!(refused.exit_code(), 78, "{}", refused.stderr());
    }
}

#[test]
fn an_expired_certificate_is_a_warning_of_check_in_the_log_and_in_sys() {
    let certificates = Certificates::new("expired");
    let file = certificates.path("ringmq.toml");
    let plain = "[[listener]]\naddress = \"127.0.0.1:0\"\nallow-anonymous = true\n";
    let text = "[[listener]]\naddress = \"127.0.0.2:0\"\ncert = \"old.pem\"\nkey = \"old.key\"\n";
    fs::write(&file, format!("sys-interval = 1\n{plain}{text}")).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_ringmq"))
        .args(["check", &file])
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("warning: ") && said.contains("2 listeners: 1 warning"), "{said}");
    let warning = "certificate CN=old has expired on 2020-01-01; clients refuse it";
    assert!(said.contains(&format!("{}: {warning}", certificates.path("old.pem"))), "{said}");

    let mut broker = Broker::start_with(&["--config", &file, "--shards", "1", "--no-pin"], 2);
    let warnings = |broker: &Broker| {
        broker
            .stderr()
            .lines()
            .filter(|line| line.contains(" warn certificate ") && line.contains(warning))
            .count()
    };
    let wait = |broker: &Broker, count: usize| {
        let deadline = Instant::now() + PATIENCE;
        while warnings(broker) < count {
            assert!(Instant::now() < deadline, "{}", broker.stderr());
            thread::sleep(Duration::from_millis(10));
        }
    };
    wait(&broker, 1);
    reload(&mut broker);
    wait(&broker, 2);

    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(broker.addresses()[0]).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01x").unwrap();
    let topic = b"$SYS/broker/listeners/1/certificate_state";
    let mut subscribe = vec![0x82, topic.len() as u8 + 5, 0, 1, 0, topic.len() as u8];
    subscribe.extend_from_slice(topic);
    subscribe.push(0);
    stream.write_all(&subscribe).unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"certificate_stateexpired") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the state is published");
        heard.push(byte[0]);
    }
}
