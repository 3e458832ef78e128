//! Each legal and illegal sequence many times over: memory, descriptors and live objects return to where they were.
//! `scripts/leaks` goes on with a million rounds of each.

use std::time::Instant;

use crate::support::encode::{self, PUBREC, PUBREL};
use crate::support::live::Watch;
use crate::support::*;

/// How often the sequence is run before memory must have reached its level.
const WINDOWS_MAX: u32 = 16;
/// What an allocator may add or give back between two windows, in bytes; far less than a leak adds in one.
const NOISE: u64 = 256 << 10;
/// How many rounds more, by `scripts/leaks`, must add nothing.
const MORE: &str = "RINGMQ_LEAK_ROUNDS";

/// Runs the sequence over and over and looks at what is left. Buffers are touched for the first time and the
/// allocator's pages fill up, so memory grows at first; it must reach a level and stay there.
fn repeat(label: &str, rounds: u32, sequence: impl Fn(&Broker)) {
    // Routes of topics are kept on purpose: of the default number of them the end would not be reached.
    let flags = ["--sys-interval", "1", "--log-level", "error", "--cached-topics-max", "64"];
    let broker = Broker::start(2, &flags);
    let mut watch = Watch::new(&broker);
    for _ in 0..rounds / 4 {
        sequence(&broker);
    }
    let base = watch.settled();
    let descriptors = broker.descriptors();
    let mut levels = vec![broker.resident_bytes()];
    loop {
        for _ in 0..rounds {
            sequence(&broker);
        }
        watch.expect(&base);
        levels.push(broker.resident_bytes());
        let [.., before, now] = levels[..] else { unreachable!("two levels at least") };
        if now <= before + NOISE {
            break;
        }
        assert!(
            levels.len() as u32 <= WINDOWS_MAX,
            "{label}: memory grows every {rounds} rounds: {levels:?}"
        );
    }
    if let Ok(more) = std::env::var(MORE) {
        let more: u32 = more.parse().expect("a number of rounds");
        // Filters linger a second, so a long storm holds more of them than a short window.
        for _ in 0..more / 4 {
            sequence(&broker);
        }
        let (before, start) = (broker.resident_bytes(), Instant::now());
        for _ in 0..more {
            sequence(&broker);
        }
        watch.expect(&base);
        let (now, seconds) = (broker.resident_bytes(), start.elapsed().as_secs());
        println!("{label}: {more} rounds in {seconds} s, {before} bytes before, {now} after");
        assert!(now <= before + 4 * NOISE, "{label}: memory grew from {before} to {now} bytes");
    }
    let left = broker.descriptors();
    assert!(left <= descriptors + 2, "{label}: {left} descriptors, {descriptors} before");
}

#[test]
fn connections_that_come_and_go() {
    repeat("clean", 3000, |b| Client::fresh(b, V5).disconnect());
}

#[test]
fn connections_that_are_cut() {
    repeat("cut", 3000, |b| Client::fresh(b, V311).reset());
}

#[test]
fn connections_that_never_say_who_they_are() {
    repeat("silent", 3000, |b| {
        let mut client = Client::open(b, V5);
        client.send([0x10, 0x40, 0x00, 0x04]);
        client.reset();
    });
}

#[test]
fn refused_connects() {
    repeat("refused", 2000, |b| {
        for connect in [
            Connect::new(V5, "leak").with(Property::ReceiveMaximum(0)),
            Connect::new(V5, "leak").will(Will::new("a/#", vec![b'x'; 2000])),
            Connect::new(V311, "").resume(),
        ] {
            let (mut client, connack) = Client::connect(b, &connect);
            assert_ne!(connack.code, 0);
            client.expect_closed();
        }
    });
}

#[test]
fn identifiers_of_qos_2_that_are_never_released() {
    repeat("QoS 2", 500, |b| {
        let mut client = Client::fresh(b, V311);
        let burst: Vec<u8> = (1..=50).flat_map(|id| Publish::new("t", "x").qos(2, id).bytes(V311)).collect();
        client.send(burst);
        for id in 1..=50 {
            client.expect_ack(PUBREC, id);
        }
        client.ack(PUBREL, 7777);
        client.cut();
    });
}

#[test]
fn messages_in_flight_that_are_never_acknowledged() {
    repeat("in flight", 300, |b| {
        let mut client = Client::fresh(b, V5);
        client.subscribe("leak/flight", 2);
        let burst: Vec<u8> = (1..=20)
            .flat_map(|id| Publish::new("leak/flight", vec![b'x'; 1500]).qos(2, id).bytes(V5))
            .collect();
        client.send(burst);
        client.expect_ack(PUBREC, 1);
        client.reset();
    });
}

#[test]
fn wills_with_all_their_properties() {
    repeat("wills", 1500, |b| {
        let will = Will::new("leak/will", vec![b'x'; 3000])
            .with(Property::ContentType("c".repeat(500)))
            .with(Property::User("n".repeat(500), "v".repeat(500)));
        let connect = Connect::new(V5, name("c")).will(will);
        Client::accepted(b, &connect).reset();
        Client::accepted(b, &connect).disconnect();
    });
}

#[test]
fn subscriptions_of_every_kind() {
    repeat("subscriptions", 800, |b| {
        let mut client = Client::fresh(b, V5);
        let mine = name("t");
        let filters =
            [mine.clone(), format!("{mine}/+/x/#"), format!("$share/{mine}/{mine}"), "a/#/b".to_string()];
        let borrowed: Vec<(&str, u8)> = filters.iter().map(|f| (f.as_str(), 1)).collect();
        client.subscribe_all(1, &[Property::SubscriptionId(5)], &borrowed);
        client.unsubscribe(&[&filters[1], "never"]);
        client.disconnect();
    });
}

#[test]
fn stored_sessions_that_are_resumed_and_ended() {
    repeat("sessions", 600, |b| {
        let connect = Connect::new(V5, name("c")).persistent();
        let topic = name("t");
        let mut client = Client::accepted(b, &connect);
        client.subscribe(&topic, 1);
        client.say(&topic, "x", 1);
        client.cut();
        let mut client = Client::accepted(b, &connect);
        client.send(encode::disconnect(0, &[Property::SessionExpiry(0)]));
        client.raw_until_closed();
    });
}

#[test]
fn retained_messages_that_are_set_and_cleared() {
    repeat("retained", 1500, |b| {
        let mut client = Client::fresh(b, V5);
        let topic = format!("{}/{}", name("t"), "x".repeat(200));
        client.say_retained(&topic, vec![b'x'; 2000]);
        client.say_retained(&topic, "");
        client.disconnect();
    });
}

#[test]
fn takeovers() {
    repeat("takeovers", 800, |b| {
        let id = name("c");
        let mut older = Client::accepted(b, &Connect::new(V5, &id).persistent());
        let mut newer = Client::accepted(b, &Connect::new(V5, &id));
        older.expect_refused(&[0x8E]);
        newer.ping();
        newer.disconnect();
    });
}

#[test]
fn malformed_packets() {
    repeat("malformed", 1500, |b| {
        for bytes in [vec![0xC1, 0], vec![0x30, 0x02, 0, 9], Publish::new("", "x").bytes(V5)] {
            let mut client = Client::fresh(b, V5);
            client.send(bytes);
            client.expect_refused(&[0x81, 0x82]);
        }
    });
}
