//! Each limit that is a flag: what happens at it, to whom, and where it is counted. Those that the standard asks for are
//! in `tests/conformance` (Receive Maximum, Topic Alias Maximum, Maximum Packet Size, Keep Alive, Session Expiry).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::client::PATIENCE;
use crate::support::encode::{self, packet, string};
use crate::support::property::block;
use crate::support::*;

/// Brokers with one shard and with four and these flags.
fn each_with(flags: &[&str], body: impl Fn(&Broker)) {
    for shards in [1, 4] {
        body(&Broker::start(shards, &[&["--sys-interval", "1"], flags].concat()));
    }
}

/// Waits until this counter, added up over the shards, has this value.
fn expect_count(broker: &Broker, counter: &str, expected: u64) {
    let mut client = Client::fresh(broker, V5);
    client.subscribe(&format!("$SYS/broker/shard/+/{counter}"), 0);
    let mut values = BTreeMap::new();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Event::Packet(Packet::Publish(publish)) = client.next(Duration::from_millis(100)) {
            values.insert(publish.topic.clone(), publish.text().parse::<u64>().expect("a number"));
        }
        if values.values().sum::<u64>() == expected {
            return;
        }
    }
    panic!("{counter} is {values:?}, expected {expected} in all");
}

/// The client of [`away`] comes back once what was acknowledged to publishers has reached its shard; what comes there after
/// it would be delivered live, and met by no limit of a queue.
fn back(broker: &Broker, connect: &Connect) -> Client {
    std::thread::sleep(Duration::from_millis(300));
    Client::accepted(broker, connect)
}

/// A stored session with this subscription at QoS 1, whose client is away.
fn away(broker: &Broker, filter: &str) -> Connect {
    let connect = Connect::new(V5, name("c")).persistent();
    let mut client = Client::accepted(broker, &connect);
    client.subscribe(filter, 1);
    client.disconnect();
    connect
}

#[test]
fn packets_before_connect_have_a_limit_of_their_own() {
    each_with(&["--connect-packet-size-max", "1000"], |b| {
        let sized = |size: usize| {
            let connect = Connect::new(V5, name("c")).will(Will::new("w", ""));
            let rest = connect.clone().bytes().len();
            // A packet above 127 bytes has a length of two bytes.
            let connect = Connect { will: Some(Will::new("w", vec![b'x'; size - rest - 1])), ..connect };
            assert_eq!(connect.bytes().len(), size);
            connect
        };
        Client::accepted(b, &sized(1000)).disconnect();
        let mut client = Client::open(b, V5);
        client.send(sized(1001).bytes());
        client.expect_refused(&[0x95]);
        // The answer needs the version, which may come after the length.
        let mut client = Client::open(b, V5);
        let bytes = sized(1001).bytes();
        client.send(&bytes[..5]);
        assert_eq!(client.next(Duration::from_millis(100)), Event::Nothing);
        client.send(&bytes[5..12]);
        client.expect_refused(&[0x95]);
        let mut client = Client::open(b, V311);
        client.send(&Connect { version: V311, ..sized(1001) }.bytes()[..10]);
        client.send(vec![b'x'; 1]);
        b.expect_said("the CONNECT is larger than --connect-packet-size-max allows");
        // It is the limit of the first packet alone.
        let mut client = Client::fresh(b, V5);
        client.say("t", vec![b'x'; 5000], 1);
    });
}

#[test]
fn properties_and_levels_of_a_packet() {
    each_with(&["--properties-max", "4", "--topic-levels-max", "5"], |b| {
        let with = |count: usize| {
            let properties: Vec<Property> =
                (0..count).map(|n| Property::User(n.to_string(), "v".into())).collect();
            packet(0x32, [string("t"), vec![0, 5], block(&properties)].concat())
        };
        let mut client = Client::fresh(b, V5);
        client.send(with(4));
        client.expect_ack(encode::PUBACK, 5);
        client.send(with(5));
        client.expect_refused(&[0x97]);

        let mut client = Client::fresh(b, V5);
        client.say("1/2/3/4/5", "x", 1);
        client.send_publish(&Publish::new("1/2/3/4/5/6", "x").qos(1, 9));
        client.expect_refused(&[0x90]);
        let mut client = Client::fresh(b, V5);
        assert_eq!(client.subscribe_all(1, &[], &[("1/2/3/4/#", 1)]), [1]);
        // A Share Name is none of the levels.
        assert_eq!(client.subscribe_all(2, &[], &[("$share/g/1/2/3/4/#", 1)]), [1]);
        assert_eq!(client.unsubscribe(&["$share/g/1/2/3/4/#"]), [0]);
        client.send(encode::subscribe(V5, 3, &[], &[("1/2/3/4/5/#", 1)]));
        client.expect_refused(&[0x8F]);
        refuse(
            b,
            V5,
            "six shared levels",
            encode::subscribe(V5, 1, &[], &[("$share/g/1/2/3/4/5/#", 1)]),
            &[0x8F],
        );
        expect_count(b, "protocol_errors", 4);
    });
}

#[test]
fn subscriptions_of_a_session() {
    each_with(&["--subscriptions-max", "2"], |b| {
        for (version, refusal) in [(V5, 0x97), (V311, 0x80)] {
            let mut client = Client::fresh(b, version);
            assert_eq!(client.subscribe_all(1, &[], &[("a", 0), ("b", 1), ("c", 1)]), [0, 1, refusal]);
            // One that is there already may change, and one that is given up makes room.
            assert_eq!(client.subscribe_all(2, &[], &[("b", 2)]), [2]);
            client.unsubscribe(&["a"]);
            assert_eq!(client.subscribe_all(3, &[], &[("c", 1)]), [1]);
        }
        expect_count(b, "subscriptions_refused", 2);
    });
}

#[test]
fn a_full_queue_drops_the_newest_by_default_also_by_bytes() {
    each_with(&["--queue-bytes-max", "20k"], |b| {
        let topic = name("t");
        let connect = away(b, &topic);
        let mut publisher = Client::fresh(b, V5);
        for number in 0..30 {
            publisher.say(&topic, [number.to_string().as_bytes(), &[b'x'; 2000]].concat(), 1);
        }
        let mut client = back(b, &connect);
        let mut got = Vec::new();
        while let Event::Packet(Packet::Publish(publish)) = client.next(Duration::from_millis(300)) {
            client.finish(&publish);
            got.push(publish.text().trim_end_matches('x').parse::<u64>().expect("a number"));
        }
        assert!((5..=10).contains(&got.len()), "{} of 20 KB in messages of 2 KB", got.len());
        assert_eq!(got, (0..got.len() as u64).collect::<Vec<_>>(), "the oldest stay");
        expect_count(b, "dropped_queue_full", 30 - got.len() as u64);
    });
}

#[test]
fn a_full_queue_may_drop_the_oldest() {
    each_with(&["--queue-messages-max", "10", "--queue-full", "drop-oldest"], |b| {
        let topic = name("t");
        let connect = away(b, &topic);
        let mut publisher = Client::fresh(b, V5);
        for number in 0..25 {
            publisher.say(&topic, number.to_string(), 1);
        }
        let mut client = back(b, &connect);
        assert_eq!(client.expect_texts(10), (15..25).map(|n| n.to_string()).collect::<Vec<_>>());
        client.expect_quiet();
        expect_count(b, "dropped_queue_oldest", 15);
    });
}

#[test]
fn a_full_queue_may_end_the_session() {
    each_with(&["--queue-messages-max", "10", "--queue-full", "disconnect"], |b| {
        // One that is away, and one that is there and acknowledges nothing.
        let topic = name("t");
        let gone = away(b, &topic);
        let connect = Connect::new(V5, name("c")).persistent().with(Property::ReceiveMaximum(1));
        let mut slow = Client::accepted(b, &connect);
        slow.subscribe(&topic, 1);
        let mut publisher = Client::fresh(b, V5);
        for number in 0..10 {
            publisher.say(&topic, number.to_string(), 1);
        }
        slow.expect_publish();
        slow.ping();
        publisher.say(&topic, "the eleventh in a queue, and the last straw", 1);
        publisher.say(&topic, "and one more", 1);
        slow.expect_refused(&[0x97]);
        // The other one may be at home on another core.
        expect_count(b, "sessions_ended_queue_full", 2);
        for connect in [gone, connect] {
            assert!(
                !Client::connect(b, &connect).1.session_present,
                "what it missed is unknown, so it is over"
            );
        }
    });
}

#[test]
fn the_brokers_own_window_holds_where_a_client_has_none() {
    each_with(&["--send-maximum", "4"], |b| {
        for version in [V5, V311] {
            let topic = name("t");
            let mut client = Client::fresh(b, version);
            client.subscribe(&topic, 1);
            let mut publisher = Client::fresh(b, V5);
            for number in 0..10 {
                publisher.say(&topic, number.to_string(), 1);
            }
            let first: Vec<Publish> = (0..4).map(|_| client.expect_publish()).collect();
            client.expect_quiet();
            client.finish(&first[0]);
            assert_eq!(client.expect_publish().text(), "4");
            client.expect_quiet();
        }
    });
}

/// What is retained below `topic`: payloads by the rest of the topic.
fn retained(broker: &Broker, topic: &str) -> BTreeMap<String, String> {
    let mut client = Client::fresh(broker, V5);
    client.subscribe(&format!("{topic}/#"), 0);
    let mut found = BTreeMap::new();
    while let Event::Packet(Packet::Publish(publish)) = client.next(Duration::from_millis(300)) {
        found.insert(publish.topic[topic.len() + 1..].to_string(), publish.text());
    }
    found
}

#[test]
fn retained_messages_have_a_number() {
    // `$SYS` retains as well, and needs its share.
    for shards in [1, 4] {
        let broker = Broker::start(shards, &["--sys-interval", "0", "--retained-messages-max", "5"]);
        let topic = name("t");
        let mut live = Client::fresh(&broker, V5);
        live.subscribe(&format!("{topic}/#"), 0);
        let mut publisher = Client::fresh(&broker, V5);
        for number in 0..8 {
            publisher.say_retained(&format!("{topic}/{number}"), "first");
            // Delivered, whether it is retained or not; shards know of each other's with a turn's delay.
            assert_eq!(live.expect_publish().text(), "first");
            std::thread::sleep(Duration::from_millis(30));
        }
        let kept = retained(&broker, &topic);
        assert_eq!(kept.len(), 5, "{kept:?}");
        // One that is there is replaced all the same, and one that is cleared makes room.
        let some = kept.keys().next().expect("five").clone();
        publisher.say_retained(&format!("{topic}/{some}"), "second");
        assert_eq!(retained(&broker, &topic)[&some], "second");
        publisher.say_retained(&format!("{topic}/{some}"), "");
        std::thread::sleep(Duration::from_millis(30));
        publisher.say_retained(&format!("{topic}/new"), "x");
        assert!(retained(&broker, &topic).contains_key("new"));
    }
}

#[test]
fn retained_messages_have_a_number_of_bytes() {
    for shards in [1, 4] {
        let broker = Broker::start(shards, &["--sys-interval", "1", "--retained-bytes-max", "2M"]);
        let topic = name("t");
        let mut publisher = Client::fresh(&broker, V5);
        for number in 0..40 {
            publisher.say_retained(&format!("{topic}/{number}"), vec![b'x'; 100_000]);
        }
        let before = retained(&broker, &topic);
        let kept = before.len() as u64;
        // Shards lease memory in chunks of 256 KiB, of which a part may be unused.
        assert!((10..=20).contains(&kept), "{kept} messages of 100 KB in 2 MB with {shards} shards");
        expect_count(&broker, "dropped_retained_full", 40 - kept);
        // What is there can be replaced by something as large, all of it.
        for number in before.keys() {
            publisher.say_retained(&format!("{topic}/{number}"), vec![b'y'; 100_000]);
        }
        let after = retained(&broker, &topic);
        assert!(after.keys().eq(before.keys()) && after.values().all(|text| text.starts_with('y')));
        expect_count(&broker, "dropped_retained_full", 40 - kept);
    }
}

#[test]
fn memory_in_all_gives_way_by_class_and_the_broker_stays_usable() {
    // Of 64 MB some 18 are for queues: far less than these sessions could hold by their own limits.
    each_with(&["--memory-max", "64M", "--queue-messages-max", "1000000"], |b| {
        let topic = name("t");
        let sessions: Vec<Connect> = (0..10).map(|_| away(b, &format!("{topic}/#"))).collect();
        let before = b.resident_bytes();
        let mut publisher = Client::fresh(b, V5);
        let mut dropped = Client::fresh(b, V5);
        dropped.subscribe("$SYS/broker/drops/memory", 0);
        // 120 MB, acknowledged to the publisher whatever becomes of them.
        for number in 0..1200 {
            publisher.say(&format!("{topic}/{number}"), vec![b'x'; 100_000], 1);
        }
        let grown = b.resident_bytes().saturating_sub(before);
        assert!(grown < 80 << 20, "{} MB more", grown >> 20);
        let deadline = Instant::now() + PATIENCE;
        while dropped.expect_publish().text() == "0" {
            assert!(Instant::now() < deadline, "drops for want of memory are not counted");
        }
        // QoS 0, retained messages and new clients have memory of their own.
        let mut live = Client::fresh(b, V5);
        live.subscribe("other/#", 0);
        publisher.say_retained("other/retained", "still retained");
        assert_eq!(live.expect_publish().text(), "still retained");
        publisher.say("other/topic", "still here", 0);
        assert_eq!(live.expect_publish().text(), "still here");
        // With the sessions the memory comes back.
        for connect in sessions {
            let id = String::from_utf8(connect.client_id).expect("a name");
            drop(Client::accepted(b, &Connect::new(V5, id)));
        }
        let again = away(b, &topic);
        publisher.say(&topic, "room again", 1);
        assert_eq!(Client::accepted(b, &again).expect_texts(1), ["room again"]);
    });
}

/// Small messages that wait must not hold the large buffers that they came in (rumqtt 1001).
#[test]
fn queued_small_messages_cost_what_they_weigh() {
    for shards in [1, 4] {
        let broker = Broker::start(shards, &["--queue-messages-max", "100000"]);
        let topic = name("t");
        let _sessions: Vec<Connect> = (0..4).map(|_| away(&broker, &topic)).collect();
        let mut publisher = Client::fresh(&broker, V311);
        let before = broker.resident_bytes();
        for _ in 0..100 {
            let burst: Vec<u8> =
                (1..=400).flat_map(|id| Publish::new(&*topic, [b'x'; 234]).qos(1, id).bytes(V311)).collect();
            publisher.send(burst);
            for id in 1..=400 {
                publisher.expect_ack(encode::PUBACK, id);
            }
        }
        // 40,000 messages in each of four sessions; they share the bytes on a shard, and between shards.
        let grown = broker.resident_bytes().saturating_sub(before);
        assert!(grown < 64 << 20, "{} bytes for each of 160,000 messages", grown / 160_000);
    }
}

/// Who is away on different shards shares what waits, also where it was published in one go.
#[test]
fn queued_messages_are_shared_between_shards() {
    let broker = Broker::start(2, &["--queue-messages-max", "100000", "--log-level", "info"]);
    let topic = name("t");
    let home = |connect: &Connect| -> String {
        let id = String::from_utf8(connect.client_id.clone()).expect("a name");
        broker.expect_said(&format!("connect client={id} "));
        let log = broker.stderr();
        let line =
            log.lines().find(|line| line.contains(&format!("connect client={id} "))).expect("just seen");
        line.split("shard=").nth(1).expect("a shard").to_owned()
    };
    let first = away(&broker, &topic);
    let mut others = (0..64).map(|_| Connect::new(V5, name("c")).persistent());
    let other = others.find(|connect| {
        drop(Client::accepted(&broker, connect));
        home(connect) != home(&first)
    });
    let mut elsewhere = Client::accepted(&broker, &other.expect("one of 64 at home elsewhere"));
    elsewhere.subscribe(&topic, 1);
    elsewhere.disconnect();
    let mut publisher = Client::fresh(&broker, V311);
    let before = broker.resident_bytes();
    for _ in 0..100 {
        let burst: Vec<u8> =
            (1..=400).flat_map(|id| Publish::new(&*topic, [b'x'; 900]).qos(1, id).bytes(V311)).collect();
        publisher.send(burst);
        for id in 1..=400 {
            publisher.expect_ack(encode::PUBACK, id);
        }
    }
    // 40,000 messages of 900 bytes once, and 40,000 places in each of two sessions.
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 60 << 20, "{} bytes for each of 40,000 messages", grown / 40_000);
}
