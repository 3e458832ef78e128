//! Peers that waste: what they cost in processor time, memory and patience of others is measured.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;

use crate::certificates::Certificates;
use crate::client::{Client, PATIENCE, config};
use crate::each_way;
use crate::support::Broker;

/// Seconds from the connection to a whole CONNECT.
const DEADLINE: [&str; 2] = ["--connect-timeout", "2"];
const LINGER: Duration = Duration::from_secs(2);
/// Processor time per clock tick.
const TICK: Duration = Duration::from_millis(10);

fn tcp(broker: &Broker) -> TcpStream {
    let stream = TcpStream::connect(broker.address()).expect("the broker accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// A ClientHello that any server takes.
fn client_hello(certificates: &Certificates) -> Vec<u8> {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut connection = ClientConnection::new(config(certificates, &TLS13, None), name).expect("a client");
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).expect("a vector takes it");
    bytes
}

/// Reads until the broker closes; the bytes, or `None` if it was still open after a while. A reset is a close too.
fn read_to_close(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return Some(bytes),
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Some(bytes),
            Err(_) => return None,
        }
    }
}

fn cpu(broker: &Broker) -> Duration {
    TICK * broker.cpu_ticks() as u32
}

#[test]
fn a_handshake_that_fails_has_one_line_in_the_log_with_its_address() {
    let certificates = Certificates::new("log");
    let flags = [&DEADLINE[..], &["--log-level", "debug"]].concat();
    each_way(&certificates, &flags, |broker| {
        let mut plain = tcp(broker);
        plain.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("it takes a few bytes");
        let mut silent = tcp(broker);
        silent.write_all(&client_hello(&certificates)[..50]).expect("it takes a few bytes");
        for (stream, why) in
            [(&mut plain, ""), (&mut silent, "handshake did not end within --connect-timeout")]
        {
            read_to_close(stream).expect("closed");
            let address = format!("address={} ", stream.local_addr().expect("an address"));
            let of_it = |text: &str| -> Vec<String> {
                text.lines().filter(|line| line.contains(&address)).map(String::from).collect()
            };
            let begin = Instant::now();
            while of_it(&broker.stderr()).is_empty() && begin.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(5));
            }
            // A second one would come with the first.
            thread::sleep(Duration::from_millis(50));
            let text = broker.stderr();
            let [line] = &of_it(&text)[..] else { panic!("{address}:\n{text}") };
            assert!(line.contains(" warn no-connect ") && line.contains(why), "{line}");
        }
    });
}

#[test]
fn who_says_nothing_or_a_byte_at_a_time_is_gone_after_the_deadline_and_costs_nothing() {
    let certificates = Certificates::new("slow");
    let hello = client_hello(&certificates);
    each_way(&certificates, &DEADLINE, |broker| {
        let (before, memory_before) = (cpu(broker), broker.resident_bytes());
        let mut silent: Vec<TcpStream> = (0..100).map(|_| tcp(broker)).collect();
        let mut slow: Vec<TcpStream> = (0..100).map(|_| tcp(broker)).collect();
        let start = Instant::now();
        for byte in hello.iter().cycle() {
            // Nobody is told beforehand that the broker has closed.
            let alive = slow.iter_mut().filter_map(|stream| stream.write_all(&[*byte]).ok()).count();
            if alive == 0 {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "{alive} may go on for ever");
            thread::sleep(Duration::from_millis(200));
        }
        for stream in &mut silent {
            assert_eq!(read_to_close(stream).as_deref(), Some(&[][..]), "nobody has said anything");
        }
        let spent = cpu(broker) - before;
        let bytes = broker.resident_bytes().saturating_sub(memory_before) / 200;
        println!("200 slow peers: {spent:?} of processor time in {:?}, {bytes} bytes each", start.elapsed());
        assert!(spent < Duration::from_millis(500), "{spent:?}");
        assert!(bytes < 64 * 1024, "{bytes} bytes each");
    });
}

#[test]
fn records_that_cannot_be_are_answered_with_an_alert_at_once() {
    let certificates = Certificates::new("records");
    each_way(&certificates, &DEADLINE, |broker| {
        let oversized = [&[0x16, 3, 1, 0xFF, 0xFF][..], &[1; 60_000]].concat();
        let mqtt = b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01x";
        let unknown = [0x99; 1000];
        for bytes in [&oversized[..], mqtt, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", &unknown] {
            let mut stream = tcp(broker);
            let start = Instant::now();
            // It may be refused before all of it is written.
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let answer = read_to_close(&mut stream).expect("the broker closes");
            assert!(answer.is_empty() || answer[0] == 0x15, "{answer:?}");
            assert!(start.elapsed() < Duration::from_millis(1500), "only the deadline ended it");
        }
        // Within a stream too.
        let tls = config(&certificates, &TLS13, None);
        let client = Client::connect(broker.address(), &tls, "good").expect("a good client is served");
        assert!(client.breaks_a_record(), "a fatal alert comes before the end");
    });
}

/// A record is kept until it is whole, and no longer than the deadline.
#[test]
fn large_records_that_never_end_cost_what_was_sent_and_end() {
    const PEERS: u64 = 400;
    let certificates = Certificates::new("endless");
    // The largest record that there may be, without its last bytes.
    let record = [&[0x16, 3, 1, 0x40, 0][..], &[1; 16_000]].concat();
    each_way(&certificates, &DEADLINE, |broker| {
        let (cpu_before, memory_before) = (cpu(broker), broker.resident_bytes());
        let mut peers: Vec<TcpStream> = (0..PEERS).map(|_| tcp(broker)).collect();
        for peer in &mut peers {
            // It may be refused for what is in it before all of it is there.
            let _ = peer.write_all(&record);
        }
        thread::sleep(Duration::from_millis(300));
        let bytes = broker.resident_bytes().saturating_sub(memory_before) / PEERS;
        for peer in &mut peers {
            assert!(read_to_close(peer).is_some(), "it may go on for ever");
        }
        let spent = cpu(broker) - cpu_before;
        println!("{PEERS} large records without an end: {bytes} bytes each, {spent:?} of processor time");
        assert!(bytes < 96 * 1024, "{bytes} bytes each");
        assert!(spent < Duration::from_secs(2), "{spent:?}");
    });
}

#[test]
fn thousands_of_half_open_handshakes_cost_little_and_end() {
    const PEERS: u32 = 2000;
    let certificates = Certificates::new("half-open");
    let hello = client_hello(&certificates);
    let plain = config(&certificates, &TLS13, None);
    each_way(&certificates, &DEADLINE, |broker| {
        let mut steady = Client::connect(broker.address(), &plain, "steady").expect("accepted");
        let (cpu_before, memory_before) = (cpu(broker), broker.resident_bytes());
        let descriptors = broker.descriptors();
        let mut half_open = Vec::new();
        let mut slowest = Duration::ZERO;
        for index in 0..PEERS {
            let mut stream = tcp(broker);
            stream.write_all(&hello).expect("the broker reads");
            half_open.push(stream);
            if index % 10 == 0 {
                let start = Instant::now();
                steady.send(&[0xC0, 0]).expect("a ping");
                assert_eq!(steady.packet().expect("an answer"), [0xD0]);
                slowest = slowest.max(start.elapsed());
            }
        }
        let bytes = broker.resident_bytes().saturating_sub(memory_before) / u64::from(PEERS);
        let spent = (cpu(broker) - cpu_before) / PEERS;
        println!(
            "{PEERS} half-open handshakes: {spent:?} and {bytes} bytes each; slowest ping meanwhile {slowest:?}"
        );
        assert!(bytes < 64 * 1024, "{bytes} bytes each");
        // 0.1 ms with optimisation; the tests run without, and beside others.
        assert!(spent < Duration::from_millis(5), "{spent:?} each");
        assert!(slowest < Duration::from_secs(2), "{slowest:?}");
        // The deadline, then the time that a closing connection has.
        let gone = Instant::now() + Duration::from_secs(2) + LINGER + Duration::from_secs(6);
        while broker.descriptors() > descriptors {
            assert!(Instant::now() < gone, "{} descriptors are left", broker.descriptors() - descriptors);
            thread::sleep(Duration::from_millis(50));
        }
        drop(half_open);
        Client::connect(broker.address(), &plain, "later").expect("others are served");
        steady.send(&[0xC0, 0]).expect("a ping");
        assert_eq!(steady.packet().expect("the steady client is still there"), [0xD0]);
    });
}

#[test]
fn a_storm_of_handshakes_leaves_connected_clients_their_turn() {
    let certificates = Certificates::new("storm");
    let plain = config(&certificates, &TLS13, None);
    each_way(&certificates, &[], |broker| {
        let mut steady = Client::connect(broker.address(), &plain, "steady").expect("accepted");
        let address = broker.address();
        let storm: Vec<_> = (0..4)
            .map(|thread| {
                let plain = Arc::clone(&plain);
                thread::spawn(move || {
                    for index in 0..50 {
                        let name = format!("storm-{thread}-{index}");
                        drop(Client::connect(address, &plain, &name).expect("all are let in"));
                    }
                })
            })
            .collect();
        let mut pings = 0;
        while storm.iter().any(|thread| !thread.is_finished()) {
            steady.send(&[0xC0, 0]).expect("a ping");
            assert_eq!(steady.packet().expect("an answer"), [0xD0]);
            pings += 1;
        }
        storm.into_iter().for_each(|thread| thread.join().expect("a client failed"));
        println!("{pings} pings during 200 handshakes");
        assert!(pings > 20, "{pings} pings were answered");
    });
}
