//! The forwarder forwards: what a generator relies on, over real sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bench::limit::Forwarder;
use ringmq::io::uring::{Peers, Sizes, Uring};

const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00";

/// Runs `clients` against a forwarder and ends it.
fn with_forwarder(clients: impl FnOnce(SocketAddr)) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        let sizes = Sizes { sq_entries: 64, cq_entries: 256, buffers: 16, buffer_bytes: 4096, direct: 0 };
        let ring = Uring::new(sizes, 0, Arc::new(Peers::new(1)), vec![listener]).unwrap();
        let mut forwarder = Forwarder::new(ring);
        while !stopped.load(Ordering::Relaxed) {
            forwarder.turn();
            forwarder.wait();
        }
    });
    clients(address);
    stop.store(true, Ordering::Relaxed);
    thread.join().unwrap();
}

fn client(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(CONNECT).unwrap();
    expect(&mut stream, &[0x20, 3, 0, 0, 0]);
    stream
}

fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut found = vec![0; bytes.len()];
    stream.read_exact(&mut found).unwrap();
    assert_eq!(found, bytes);
}

fn subscriber(address: SocketAddr, filter: &str, level: u8) -> TcpStream {
    let mut stream = client(address);
    let body = [&[0, 7, 0, 0, filter.len() as u8], filter.as_bytes(), &[level]].concat();
    stream.write_all(&[&[0x82, body.len() as u8], &body[..]].concat()).unwrap();
    expect(&mut stream, &[0x90, 4, 0, 7, 0, level]);
    stream
}

/// A PUBLISH of version 5 with two bytes of length.
fn publish(qos: u8, topic: &str, packet_id: u16, payload: usize) -> Vec<u8> {
    let mut body = vec![0, topic.len() as u8];
    body.extend_from_slice(topic.as_bytes());
    if qos > 0 {
        body.extend_from_slice(&packet_id.to_be_bytes());
    }
    body.push(0);
    body.extend((0..payload).map(|i| i as u8));
    let len = body.len();
    let mut packet = vec![0x30 | qos << 1];
    if len < 128 {
        packet.push(len as u8);
    } else {
        packet.extend([(len & 127) as u8 | 128, (len >> 7) as u8]);
    }
    packet.extend_from_slice(&body);
    packet
}

#[test]
fn every_level_is_forwarded_and_answered() {
    with_forwarder(|address| {
        let mut to = subscriber(address, "a/1", 2);
        let mut from = client(address);
        let messages = [publish(0, "a/1", 0, 64), publish(1, "a/1", 5, 64), publish(2, "a/1", 6, 64)];
        from.write_all(&messages.concat()).unwrap();
        expect(&mut from, &[0x40, 2, 0, 5, 0x50, 2, 0, 6]);
        expect(&mut to, &messages.concat());
        from.write_all(&[0x62, 2, 0, 6]).unwrap();
        expect(&mut from, &[0x70, 2, 0, 6]);
        to.write_all(&[0x40, 2, 0, 5, 0x50, 2, 0, 6]).unwrap();
        expect(&mut to, &[0x62, 2, 0, 6]);
        from.write_all(&[0xC0, 0]).unwrap();
        expect(&mut from, &[0xD0, 0]);
    });
}

#[test]
fn packets_larger_than_a_buffer_arrive_whole() {
    with_forwarder(|address| {
        let mut to = subscriber(address, "a/1", 1);
        let mut from = client(address);
        for qos in [0, 1, 0] {
            let message = publish(qos, "a/1", 9, 15_000);
            from.write_all(&message).unwrap();
            expect(&mut to, &message);
        }
    });
}

#[test]
fn packets_of_several_publishers_do_not_mix() {
    with_forwarder(|address| {
        let mut to = subscriber(address, "a/+", 0);
        let [one, two] = [publish(0, "a/1", 0, 6000), publish(0, "a/2", 0, 6000)];
        let (mut first, mut second) = (client(address), client(address));
        first.write_all(&one[..5000]).unwrap();
        second.write_all(&two).unwrap();
        expect(&mut to, &two);
        first.write_all(&one[5000..]).unwrap();
        expect(&mut to, &one);
    });
}

#[test]
fn everybody_who_subscribed_gets_a_copy() {
    with_forwarder(|address| {
        let mut all: Vec<TcpStream> = (0..5).map(|_| subscriber(address, "a/1", 0)).collect();
        let message = publish(0, "a/1", 0, 10);
        client(address).write_all(&message).unwrap();
        all.iter_mut().for_each(|to| expect(to, &message));
    });
}
