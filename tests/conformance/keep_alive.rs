//! Keep alive and pings (3.1.2.10, 3.2.2.3.14, 3.12).

use std::time::{Duration, Instant};

use crate::support::client::PATIENCE;
use crate::support::encode::{self, packet};
use crate::support::*;

/// Asserts that the broker lets this connection go after about this long.
fn expect_timeout(client: &mut Client, begin: Instant, least: Duration, most: Duration) {
    match client.next(PATIENCE) {
        Event::Packet(Packet::Disconnect(reason)) => {
            assert_eq!(reason.code, 0x8D);
            client.expect_closed();
        }
        Event::Closed if client.version != V5 => {}
        other => panic!("expected the connection to time out, got {other:?}"),
    }
    let waited = begin.elapsed();
    assert!(waited >= least && waited <= most, "after {waited:?}, expected {least:?} to {most:?}");
}

#[test]
fn mqtt_3_1_2_22_mqtt311_3_1_2_24_a_silent_client_is_closed_after_one_and_a_half_keep_alives() {
    each_version(|b, v| {
        let topic = name("w");
        let mut witness = Client::fresh(b, v);
        witness.subscribe(&topic, 0);
        let connect = Connect::new(v, name("c")).keep_alive_s(1).will(Will::new(&topic, "silent"));
        let mut client = Client::accepted(b, &connect);
        expect_timeout(&mut client, Instant::now(), Duration::from_millis(1350), Duration::from_millis(3500));
        assert_eq!(witness.expect_publish().text(), "silent");
    });
}

#[test]
fn mqtt_3_1_2_22_any_packet_puts_the_end_off() {
    each_of(&[V5, V311], |b, v| {
        let mut client = Client::accepted(b, &Connect::new(v, name("c")).keep_alive_s(1));
        let topic = name("t");
        for round in 0..4 {
            std::thread::sleep(Duration::from_millis(800));
            match round {
                0 => client.ping(),
                1 => client.say(&topic, "x", 1),
                2 => drop(client.subscribe(&topic, 0)),
                _ => client.send(encode::ack(encode::PUBACK, 77)),
            }
        }
        expect_timeout(&mut client, Instant::now(), Duration::from_millis(1300), Duration::from_millis(3500));
    });
}

#[test]
fn mqtt_3_1_2_22_what_the_broker_sends_does_not_count() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("t");
        let mut client = Client::accepted(b, &Connect::new(v, name("c")).keep_alive_s(1));
        client.subscribe(&topic, 0);
        let begin = Instant::now();
        let mut publisher = Client::fresh(b, v);
        let mut event = Event::Nothing;
        while begin.elapsed() < Duration::from_secs(5) {
            publisher.say(&topic, "x", 1);
            event = client.next(Duration::from_millis(50));
            if !matches!(event, Event::Packet(Packet::Publish(_)) | Event::Nothing) {
                break;
            }
        }
        let ended = matches!(event, Event::Closed | Event::Packet(Packet::Disconnect(_)));
        assert!(
            ended && begin.elapsed() >= Duration::from_millis(1350),
            "{event:?} after {:?}",
            begin.elapsed()
        );
    });
}

#[test]
fn mqtt_3_1_2_22_u5_3_1_2_2_bytes_of_a_packet_count_as_long_as_its_length_explains() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("t");
        let mut witness = Client::fresh(b, v);
        witness.subscribe(&topic, 0);
        let mut client = Client::accepted(b, &Connect::new(v, name("c")).keep_alive_s(1));
        // A message that takes four Keep Alives.
        let publish = Publish::new(&*topic, vec![b'x'; 200_000]).qos(1, 7).bytes(v);
        for piece in publish.chunks(publish.len() / 20) {
            client.send(piece);
            std::thread::sleep(Duration::from_millis(200));
        }
        client.expect_ack(encode::PUBACK, 7);
        assert_eq!(witness.expect_publish().payload.len(), 200_000);
        // A byte now and then of a small one is another thing.
        let begin = Instant::now();
        let publish = Publish::new("t", "x".repeat(400)).bytes(v);
        let mut event = Event::Nothing;
        for byte in publish {
            let _ = client.try_send([byte]);
            event = client.next(Duration::from_millis(150));
            if event != Event::Nothing {
                break;
            }
        }
        let ended = matches!(event, Event::Closed | Event::Packet(Packet::Disconnect(_)));
        let held = begin.elapsed();
        assert!(ended, "a byte now and then kept the connection alive for {held:?}: {event:?}");
        assert!(held > Duration::from_secs(5), "bytes did not count: {held:?}");
        // And a packet of which nothing more comes is silence.
        let mut client = Client::accepted(b, &Connect::new(v, name("c")).keep_alive_s(1));
        let begin = Instant::now();
        client.send(&Publish::new("t", "x".repeat(100_000)).bytes(v)[..50_000]);
        expect_timeout(&mut client, begin, Duration::from_millis(1350), Duration::from_millis(4500));
    });
}

/// More than twice the send buffer waits for a client: then the broker does not read it either.
fn clogged(broker: &Broker, version: Version, will: &str) -> Client {
    let topic = name("t");
    let connect = Connect::new(version, name("c")).keep_alive_s(1).will(Will::new(will, "silent"));
    let mut client = Client::accepted(broker, &connect);
    client.subscribe(&topic, 0);
    Client::fresh(broker, version).say(&topic, vec![b'x'; 8_000_000], 1);
    client
}

#[test]
fn mqtt_3_1_2_22_mqtt311_3_1_2_24_who_does_not_read_is_closed_too() {
    each_of(&[V5, V311], |b, v| {
        let will = name("w");
        let mut witness = Client::fresh(b, v);
        witness.subscribe(&will, 0);
        let begin = Instant::now();
        let _client = clogged(b, v, &will);
        assert_eq!(witness.expect_publish().text(), "silent");
        let waited = begin.elapsed();
        assert!(waited >= Duration::from_millis(1350) && waited < Duration::from_secs(5), "{waited:?}");
    });
}

#[test]
fn mqtt_3_1_2_22_who_reads_slowly_is_not_silent() {
    each(|b| {
        let mut client = clogged(b, V5, &name("w"));
        // Some seconds, in most of which the broker hears nothing: in so little time so slow a client makes no room for more.
        for round in 0..25 {
            client.send(encode::PINGREQ);
            assert!(client.take_in(40_000), "cut off in round {round}");
            std::thread::sleep(Duration::from_millis(150));
        }
        assert_eq!(client.expect_publish().payload.len(), 8_000_000);
        client.ping();
    });
}

#[test]
fn u5_3_1_2_2_u311_3_1_2_2_keep_alive_0_turns_the_timeout_off() {
    each_version(|b, v| {
        let mut client = Client::accepted(b, &Connect::new(v, name("c")).keep_alive_s(0));
        let event = client.next(Duration::from_millis(2500));
        assert_eq!(event, Event::Nothing);
        client.ping();
    });
}

#[test]
fn mqtt_3_2_2_22_without_server_keep_alive_the_value_of_the_client_holds() {
    each(|b| {
        let (mut client, connack) = Client::connect(b, &Connect::new(V5, name("c")).keep_alive_s(1));
        assert!(!connack.properties.iter().any(|p| matches!(p, Property::ServerKeepAlive(_))), "{connack:?}");
        let begin = Instant::now();
        expect_timeout(&mut client, begin, Duration::from_millis(1350), Duration::from_millis(3500));
    });
}

#[test]
fn mqtt_3_2_2_21_mqtt_3_1_2_21_server_keep_alive_is_announced_and_enforced() {
    each_with(&["--keep-alive-max", "1"], |broker| {
        for asked in [600, 0] {
            let (mut client, connack) =
                Client::connect(broker, &Connect::new(V5, name("c")).keep_alive_s(asked));
            assert!(connack.properties.contains(&Property::ServerKeepAlive(1)), "{connack:?}");
            let begin = Instant::now();
            expect_timeout(&mut client, begin, Duration::from_millis(1350), Duration::from_millis(3500));
        }
        let connack = Client::connect(broker, &Connect::new(V5, name("c")).keep_alive_s(1)).1;
        assert!(
            !connack.properties.iter().any(|p| matches!(p, Property::ServerKeepAlive(_))),
            "nothing to say"
        );
        // 3.1.1 has no way to say it: such a client keeps what it asked for.
        let mut old = Client::accepted(broker, &Connect::new(V311, name("c")).keep_alive_s(60));
        let event = old.next(Duration::from_millis(2500));
        assert_eq!(event, Event::Nothing);
        old.ping();
    });
}

#[test]
fn mqtt_3_12_4_1_mqtt311_3_12_4_1_every_ping_is_answered() {
    each_version(|b, v| {
        let mut client = Client::fresh(b, v);
        client.send(encode::PINGREQ.repeat(100));
        for _ in 0..100 {
            assert_eq!(client.expect_packet(), Packet::Pingresp);
        }
        client.expect_quiet();
    });
}

#[test]
fn u5_3_12_1_u311_3_12_1_a_ping_or_a_3_1_1_disconnect_with_a_body_is_refused() {
    each_of(&[V5, V311], |b, v| {
        refuse(b, v, "PINGREQ with a byte", packet(0xC0, [0]), &[0x81]);
        refuse(b, v, "PINGREQ with two", packet(0xC0, [0, 9]), &[0x81]);
        if v == V311 {
            refuse(b, v, "DISCONNECT with a byte", packet(0xE0, [0]), &[]);
            refuse(b, v, "DISCONNECT as in MQTT 5", packet(0xE0, [4, 0]), &[]);
        }
    });
}
