//! Connections that end early: what was sent before counts, and what is owed is said. Over either way to the kernel.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::support::encode::{self, PINGREQ};
use crate::support::*;

const WAYS: [&str; 2] = ["auto", "epoll"];

fn stream(broker: &Broker) -> TcpStream {
    let stream = TcpStream::connect(broker.address()).expect("the broker listens");
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    stream
}

#[test]
fn who_ends_only_its_own_side_gets_its_acknowledgements() {
    for io in WAYS {
        let broker = Broker::start(2, &["--io", io]);
        for round in 0..40 {
            let mut stream = stream(&broker);
            stream.write_all(&Connect::new(V311, name("half")).bytes()).expect("it reads");
            stream.read_exact(&mut [0; 4]).expect("a CONNACK");
            let last = [
                Publish::new("a", "x").qos(1, 7).bytes(V311),
                encode::subscribe(V311, 9, &[], &[("b", 0)]),
                PINGREQ.to_vec(),
            ];
            stream.write_all(&last.concat()).expect("it reads");
            stream.shutdown(Shutdown::Write).expect("a socket");
            let mut got = Vec::new();
            stream.read_to_end(&mut got).expect("an orderly end");
            assert_eq!(got, [0x40, 2, 0, 7, 0x90, 3, 0, 9, 0, 0xD0, 0], "round {round} over {io}");
        }
    }
}

#[test]
fn what_a_client_sent_before_it_reset_its_connection_counts() {
    for io in WAYS {
        let broker = Broker::start(1, &["--io", io]);
        let mut subscriber = Client::fresh(&broker, V5);
        subscriber.subscribe("gone", 0);
        for number in 0..50u8 {
            let mut stream = stream(&broker);
            let bytes =
                [Connect::new(V311, name("gone")).bytes(), Publish::new("gone", [number]).bytes(V311)];
            stream.write_all(&bytes.concat()).expect("it reads");
            let now = libc::linger { l_onoff: 1, l_linger: 0 };
            // SAFETY: the option's value is a `linger`, of that size.
            let done = unsafe {
                libc::setsockopt(
                    stream.as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_LINGER,
                    (&raw const now).cast(),
                    size_of::<libc::linger>() as u32,
                )
            };
            assert_eq!(done, 0);
            drop(stream); // answered with a reset
            assert_eq!(subscriber.expect_publish().payload, [number], "over {io}");
        }
    }
}

#[test]
fn a_large_message_finds_the_room_of_what_was_sent_before() {
    for (io, shards) in [("auto", 1), ("auto", 2), ("epoll", 1)] {
        let broker = Broker::start(shards, &["--io", io]);
        let mut subscriber = Client::fresh(&broker, V311);
        subscriber.subscribe("#", 0);
        let mut other = Client::fresh(&broker, V311);
        let mut publisher = Client::fresh(&broker, V311);
        let large = Publish::new("large", vec![b'x'; 2 << 20]).bytes(V311);
        for round in 0..8 {
            let (most, last) = large.split_at(large.len() - 1);
            publisher.send(most);
            other.publish(&Publish::new("small", "x"));
            assert_eq!(subscriber.expect_publish().topic, "small");
            subscriber.ping();
            std::thread::sleep(Duration::from_millis(20)); // all that was sent has ended
            publisher.send(last);
            assert_eq!(
                subscriber.expect_publish().topic,
                "large",
                "round {round} over {io}, {shards} shards"
            );
        }
    }
}

#[test]
fn who_spoke_while_the_broker_was_stopped_is_not_silent() {
    for (io, shards) in [("auto", 1), ("auto", 4), ("epoll", 1), ("epoll", 4)] {
        let mut broker = Broker::start(shards, &["--io", io]);
        let connect = || Connect::new(V311, name("c")).keep_alive_s(1);
        let mut silent: Vec<Client> = (0..10).map(|_| Client::accepted(&broker, &connect())).collect();
        let mut speaking: Vec<Client> = (0..100).map(|_| Client::accepted(&broker, &connect())).collect();
        broker.process().signal("STOP");
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(500));
            speaking.iter_mut().for_each(|client| client.send(PINGREQ));
        }
        broker.process().signal("CONT");
        for client in &mut speaking {
            for _ in 0..5 {
                assert_eq!(client.expect_packet(), Packet::Pingresp, "over {io} with {shards} shards");
            }
        }
        silent.iter_mut().for_each(Client::expect_closed);
    }
}
