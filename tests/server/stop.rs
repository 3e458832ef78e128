//! Stopping: who is told what, how long it takes, and that nothing stays behind.

use std::time::{Duration, Instant};

use crate::support::client::PATIENCE;
use crate::support::*;

/// How long a stop may take where nobody holds it up.
const STOP_MAX: Duration = Duration::from_secs(5);

#[test]
fn term_and_int_stop_it_with_code_0() {
    for signal in ["TERM", "INT"] {
        for shards in [1, 4] {
            let mut broker = Broker::start(shards, &[]);
            let mut clients: Vec<Client> = (0..10).map(|_| Client::fresh(&broker, V5)).collect();
            let begin = Instant::now();
            broker.process().signal(signal);
            for client in &mut clients {
                client.expect_refused(&[0x8B]);
            }
            let status = broker.process().exit_within(STOP_MAX).expect("it ends in time");
            assert_eq!(status.code(), Some(0), "SIG{signal}:\n{}", broker.stderr());
            assert!(begin.elapsed() < STOP_MAX);
        }
    }
}

#[test]
fn old_clients_are_just_closed() {
    let mut broker = Broker::start(2, &[]);
    let mut clients = [V311, V31].map(|v| Client::fresh(&broker, v));
    broker.process().signal("TERM");
    clients.iter_mut().for_each(Client::expect_closed);
    assert_eq!(broker.process().exit_code(), 0);
}

#[test]
fn wills_reach_those_who_are_connected() {
    for shards in [1, 4] {
        let mut broker = Broker::start(shards, &[]);
        let topic = name("w");
        let mut witnesses: Vec<Client> = (0..4)
            .map(|_| {
                let mut client = Client::fresh(&broker, V5);
                client.subscribe(&format!("{topic}/#"), 0);
                client
            })
            .collect();
        let mut mortals: Vec<Client> = (0..6)
            .map(|number| {
                let will = Will::new(format!("{topic}/{number}"), "the broker stopped");
                Client::accepted(&broker, &Connect::new(V5, name("c")).will(will))
            })
            .collect();
        broker.process().signal("TERM");
        for client in &mut witnesses {
            let mut wills = 0;
            loop {
                match client.next(PATIENCE) {
                    Event::Packet(Packet::Publish(publish)) => {
                        assert_eq!(publish.text(), "the broker stopped");
                        wills += 1;
                    }
                    Event::Packet(Packet::Disconnect(reason)) => {
                        assert_eq!(reason.code, 0x8B);
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(wills, 6, "with {shards} shards");
            client.expect_closed();
        }
        for client in &mut mortals {
            client.expect_refused(&[0x8B]);
        }
        assert_eq!(broker.process().exit_code(), 0);
    }
}

#[test]
fn what_was_acknowledged_to_a_publisher_is_sent_before_the_end() {
    let mut broker = Broker::start(4, &[]);
    let topic = name("t");
    let mut subscriber = Client::fresh(&broker, V5);
    subscriber.subscribe(&topic, 0);
    let mut publisher = Client::fresh(&broker, V5);
    for number in 0..200 {
        publisher.say(&topic, number.to_string(), 1);
    }
    broker.process().signal("TERM");
    for number in 0..200 {
        assert_eq!(subscriber.expect_publish().text(), number.to_string());
    }
    subscriber.expect_refused(&[0x8B]);
    assert_eq!(broker.process().exit_code(), 0);
}

#[test]
fn no_one_new_is_let_in() {
    let mut broker = Broker::start(2, &["--shutdown-timeout", "3"]);
    let address = broker.address();
    // Somebody who reads nothing holds the stop up.
    let topic = name("t");
    let mut slow = Client::fresh(&broker, V5);
    slow.subscribe(&topic, 0);
    let mut publisher = Client::fresh(&broker, V5);
    for _ in 0..100 {
        publisher.say(&topic, vec![b'x'; 200_000], 0);
    }
    broker.process().signal("TERM");
    publisher.expect_refused(&[0x8B]);
    if let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
        // A connection that the kernel still took is never answered.
        use std::io::{Read, Write};
        let mut stream = stream;
        let _ = stream.write_all(&Connect::new(V5, name("c")).bytes());
        let _ = stream.set_read_timeout(Some(Duration::from_millis(500)));
        let mut answer = [0; 16];
        assert!(!matches!(stream.read(&mut answer), Ok(count) if count > 0), "{answer:02x?}");
    }
    let status = broker.process().exit_within(Duration::from_secs(6)).expect("the timeout ends it");
    assert_eq!(status.code(), Some(0), "{}", broker.stderr());
    drop(slow);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut broker = Broker::start(2, &["--shutdown-timeout", "60"]);
    let topic = name("t");
    let mut slow = Client::fresh(&broker, V5);
    slow.subscribe(&topic, 0);
    let mut publisher = Client::fresh(&broker, V5);
    for _ in 0..100 {
        publisher.say(&topic, vec![b'x'; 200_000], 0);
    }
    broker.process().signal("TERM");
    publisher.expect_refused(&[0x8B]);
    assert!(
        broker.process().exit_within(Duration::from_millis(300)).is_none(),
        "the slow client holds it up"
    );
    broker.process().signal("TERM");
    let status = broker.process().exit_within(Duration::from_secs(2)).expect("at once");
    assert_eq!(status.code(), Some(128 + 15));
    drop(slow);
}

#[test]
fn the_address_is_free_after_a_stop() {
    let mut broker = Broker::start(2, &[]);
    let address = broker.address().to_string();
    for _ in 0..5 {
        let mut client = Client::fresh(&broker, V5);
        broker.process().signal("TERM");
        client.expect_refused(&[0x8B]);
        assert_eq!(broker.process().exit_code(), 0);
        broker = Broker::start_with(&["--listen", &address, "--shards", "2", "--no-pin"], 1);
    }
}

#[test]
fn a_supervisor_may_start_it_again_at_once_after_it_was_killed() {
    let mut broker = Broker::start(2, &[]);
    let address = broker.address().to_string();
    for _ in 0..5 {
        let client = Client::fresh(&broker, V5);
        broker.process().signal("KILL");
        broker.process().exit_within(STOP_MAX).expect("killed");
        drop(client);
        broker = Broker::start_with(&["--listen", &address, "--shards", "2", "--no-pin"], 1);
        Client::fresh(&broker, V5).ping();
    }
}
