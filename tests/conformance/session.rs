//! Sessions: how they begin, are resumed, taken over and end (3.1.2, 3.1.4, 4.1).

use std::time::{Duration, Instant};

use crate::support::encode::{self, PUBACK, PUBREC, PUBREL};
use crate::support::*;

/// A session that outlives its connection, with a subscription at this QoS.
fn stored(broker: &Broker, version: Version, topic: &str, qos: u8) -> Connect {
    let connect = Connect::new(version, name("c")).persistent();
    let mut client = Client::accepted(broker, &connect);
    client.subscribe(topic, qos);
    client.disconnect();
    connect
}

#[test]
fn mqtt_3_1_2_4_mqtt_3_1_4_4_mqtt311_3_1_2_6_mqtt311_3_1_4_3_clean_start_throws_the_old_session_away() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("t");
        let connect = stored(b, v, &topic, 1);
        let mut publisher = Client::fresh(b, v);
        publisher.say(&topic, "queued", 1);
        let id = String::from_utf8(connect.client_id.clone()).expect("a name");
        let (mut client, connack) = Client::connect(b, &Connect::new(v, &id));
        assert!(!connack.session_present);
        publisher.say(&topic, "live", 1);
        client.expect_quiet();
        client.disconnect();
        // Nor is anything of it there for a later resumption.
        let (mut client, connack) = Client::connect(b, &connect);
        assert!(!connack.session_present);
        client.expect_quiet();
    });
}

#[test]
fn mqtt_3_1_2_5_mqtt_3_1_2_23_mqtt311_3_1_2_4_u5_4_1_1_a_stored_session_is_resumed() {
    each_version(|b, v| {
        let topic = name("t");
        let connect = stored(b, v, &topic, 2);
        let mut publisher = Client::fresh(b, v);
        publisher.say(&topic, "at 1", 1);
        publisher.say(&topic, "at 2", 2);
        let (mut client, connack) = Client::connect(b, &connect);
        assert_eq!(connack.session_present, v != V31);
        assert_eq!(client.expect_texts(2), ["at 1", "at 2"]);
        publisher.say(&topic, "live", 0);
        assert_eq!(client.expect_publish().text(), "live");
    });
}

#[test]
fn mqtt_3_1_2_6_mqtt_3_2_2_3_mqtt311_3_1_2_4_without_a_stored_session_a_new_one_begins() {
    each_version(|b, v| {
        let connect = Connect::new(v, name("c")).persistent();
        let (mut client, connack) = Client::connect(b, &connect);
        assert!(!connack.session_present);
        client.subscribe(&name("t"), 1);
        client.cut();
        assert_eq!(Client::connect(b, &connect).1.session_present, v != V31);
    });
}

#[test]
fn mqtt311_3_1_2_5_mqtt_4_5_0_1_messages_for_an_absent_session_are_stored() {
    each_version(|b, v| {
        let topic = name("t");
        let connect = stored(b, v, &topic, 2);
        let mut publisher = Client::fresh(b, v);
        for number in 0..60 {
            publisher.say(&topic, number.to_string(), 1 + number % 2);
        }
        let mut client = Client::accepted(b, &connect);
        let mut by_qos = [Vec::new(), Vec::new()];
        for _ in 0..60 {
            let publish = client.expect_publish_acked();
            assert!(!publish.dup, "sent for the first time");
            by_qos[usize::from(publish.qos) - 1].push(publish.text().parse::<u32>().expect("a number"));
        }
        assert_eq!(by_qos[0], (0..60).step_by(2).collect::<Vec<_>>());
        assert_eq!(by_qos[1], (1..60).step_by(2).collect::<Vec<_>>());
        client.expect_quiet();
    });
}

#[test]
fn u5_3_1_2_3_mqtt311_3_1_2_6_a_session_without_expiry_ends_with_its_connection() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("t");
        let id = name("c");
        for goodbye in [true, false] {
            let mut client = Client::accepted(b, &Connect::new(v, &id));
            client.subscribe(&topic, 1);
            if goodbye {
                client.disconnect()
            } else {
                client.cut()
            }
            Client::fresh(b, v).say(&topic, "nobody there", 1);
            let (mut client, connack) = Client::connect(b, &Connect::new(v, &id).resume());
            assert!(!connack.session_present);
            client.expect_quiet();
            client.send(encode::DISCONNECT);
        }
    });
}

#[test]
fn u5_3_1_2_3_a_resumed_session_without_expiry_ends_with_that_connection() {
    each(|b| {
        let topic = name("t");
        let connect = stored(b, V5, &topic, 1);
        let id = String::from_utf8(connect.client_id).expect("a name");
        let (client, connack) = Client::connect(b, &Connect::new(V5, &id).resume());
        assert!(connack.session_present);
        client.disconnect();
        assert!(!Client::connect(b, &Connect::new(V5, &id).resume()).1.session_present);
    });
}

#[test]
fn u5_3_1_2_4_the_largest_expiry_means_no_end() {
    each(|b| {
        let id = name("c");
        let connect = Connect::new(V5, &id).resume().with(Property::SessionExpiry(u32::MAX));
        let (client, connack) = Client::connect(b, &connect);
        // A server with a limit of its own says so; a second is far below any.
        let capped = connack.properties.iter().find_map(|p| match p {
            Property::SessionExpiry(s) => Some(*s),
            _ => None,
        });
        assert!(capped.is_none_or(|seconds| seconds > 3600), "{capped:?}");
        client.cut();
        std::thread::sleep(Duration::from_millis(1200));
        assert!(Client::connect(b, &connect).1.session_present);
    });
}

#[test]
fn mqtt_4_1_0_2_mqtt_3_1_2_23_a_session_ends_when_its_expiry_has_passed_and_not_before() {
    each(|b| {
        let topic = name("t");
        let (short, long) = (name("c"), name("c"));
        let connect =
            |id: &str, seconds| Connect::new(V5, id).resume().with(Property::SessionExpiry(seconds));
        for (id, seconds) in [(&short, 1), (&long, 60)] {
            let mut client = Client::accepted(b, &connect(id, seconds));
            client.subscribe(&topic, 1);
            client.disconnect();
        }
        Client::fresh(b, V5).say(&topic, "queued", 1);
        let at_once = Client::connect(b, &connect(&short, 1));
        assert!(at_once.1.session_present, "not before");
        at_once.0.disconnect();
        std::thread::sleep(Duration::from_millis(2200));
        assert!(!Client::connect(b, &connect(&short, 1)).1.session_present, "ended");
        let (mut client, connack) = Client::connect(b, &connect(&long, 60));
        assert!(connack.session_present);
        assert_eq!(client.expect_texts(1), ["queued"]);
    });
}

#[test]
fn u5_3_14_2_3_disconnect_may_change_the_expiry() {
    each(|b| {
        let connect = |id: &str| Connect::new(V5, id).resume().with(Property::SessionExpiry(60));
        let id = name("c");
        let mut client = Client::accepted(b, &connect(&id));
        client.send(encode::disconnect(0, &[Property::SessionExpiry(0)]));
        client.expect_closed();
        assert!(!Client::connect(b, &connect(&id)).1.session_present, "0 ends it at once");

        let id = name("c");
        let mut client = Client::accepted(b, &connect(&id));
        client.send(encode::disconnect(0, &[]));
        client.expect_closed();
        assert!(Client::connect(b, &connect(&id)).1.session_present, "absent leaves it");

        let id = name("c");
        let short = Connect::new(V5, &id).resume().with(Property::SessionExpiry(1));
        let mut client = Client::accepted(b, &short);
        client.send(encode::disconnect(0, &[Property::SessionExpiry(60)]));
        client.expect_closed();
        std::thread::sleep(Duration::from_millis(2200));
        assert!(Client::connect(b, &short).1.session_present, "longer than CONNECT had it");
    });
}

#[test]
fn u5_3_14_2_4_disconnect_may_not_make_a_session_of_0_outlive_its_connection() {
    each(|b| {
        let topic = name("t");
        let mut witness = Client::fresh(b, V5);
        witness.subscribe(&topic, 0);
        let id = name("c");
        let mut client = Client::accepted(b, &Connect::new(V5, &id).will(Will::new(&topic, "invalid")));
        client.send(encode::disconnect(0, &[Property::SessionExpiry(60)]));
        client.expect_refused(&[0x82]);
        assert_eq!(witness.expect_publish().text(), "invalid", "such a DISCONNECT does not remove the will");
        assert!(!Client::connect(b, &Connect::new(V5, &id).resume()).1.session_present);
    });
}

#[test]
fn u5_3_2_2_1_a_shorter_expiry_than_asked_is_announced_and_kept() {
    each_with(&["--session-expiry-max", "1"], |broker| {
        let connect = Connect::new(V5, name("c")).resume().with(Property::SessionExpiry(3600));
        let (client, connack) = Client::connect(broker, &connect);
        assert!(connack.properties.contains(&Property::SessionExpiry(1)), "{connack:?}");
        client.disconnect();
        std::thread::sleep(Duration::from_millis(2200));
        assert!(!Client::connect(broker, &connect).1.session_present);
        let (_client, connack) =
            Client::connect(broker, &Connect::new(V5, name("c")).with(Property::SessionExpiry(1)));
        assert!(!connack.properties.iter().any(|p| matches!(p, Property::SessionExpiry(_))), "{connack:?}");
    });
}

#[test]
fn mqtt_3_1_3_2_mqtt311_3_1_3_2_the_client_id_is_the_key_of_the_session() {
    each_of(&[V5, V311], |b, v| {
        let id = name("c");
        let mut sessions = Vec::new();
        // Ids that differ in case, by a space, by normalisation or as a prefix are different ids.
        for id in [
            id.to_lowercase(),
            id.to_uppercase(),
            format!("{id} "),
            format!("{id}é"),
            format!("{id}e\u{301}"),
        ] {
            let topic = name("t");
            let connect = Connect::new(v, &id).persistent();
            let (mut client, connack) = Client::connect(b, &connect);
            assert!(!connack.session_present, "{id:?}");
            client.subscribe(&topic, 1);
            client.disconnect();
            sessions.push((connect, topic));
        }
        let mut publisher = Client::fresh(b, v);
        for (_, topic) in &sessions {
            publisher.say(topic, topic, 1);
        }
        for (connect, topic) in &sessions {
            let (mut client, connack) = Client::connect(b, connect);
            assert!(connack.session_present);
            assert_eq!(client.expect_texts(1), std::slice::from_ref(topic));
            client.expect_quiet();
        }
    });
}

#[test]
fn mqtt_3_1_4_3_the_older_connection_is_told_0x8e_and_closed() {
    each(|b| {
        let id = name("c");
        for next in [Connect::new(V5, &id), Connect::new(V5, &id).resume(), Connect::new(V311, &id)] {
            let mut older = Client::accepted(b, &Connect::new(V5, &id));
            let mut newer = Client::accepted(b, &next);
            older.expect_refused(&[0x8E]);
            newer.ping();
            newer.disconnect();
        }
    });
}

#[test]
fn mqtt311_3_1_4_2_the_older_connection_is_closed() {
    each_of(&[V311, V31], |b, v| {
        let id = name("c");
        let mut older = Client::accepted(b, &Connect::new(v, &id));
        let mut newer = Client::accepted(b, &Connect::new(v, &id));
        older.expect_closed();
        newer.ping();
    });
}

#[test]
fn mqtt_3_1_4_3_a_takeover_keeps_the_session_if_asked_to() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("t");
        let connect = Connect::new(v, name("c")).persistent();
        let mut older = Client::accepted(b, &connect);
        older.subscribe(&topic, 1);
        let mut publisher = Client::fresh(b, v);
        publisher.say(&topic, "unacknowledged", 1);
        let first = older.expect_publish();
        let (mut newer, connack) = Client::connect(b, &connect);
        assert!(connack.session_present);
        let again = newer.expect_publish();
        assert_eq!((again.text(), again.dup, again.packet_id), (first.text(), true, first.packet_id));
        newer.ack(PUBACK, again.packet_id);
        newer.expect_quiet();
    });
}

#[test]
fn mqtt_3_1_4_3_of_many_connections_with_one_id_the_last_one_lives() {
    each_of(&[V5, V311], |b, v| {
        let id = name("c");
        let mut older: Vec<Client> = Vec::new();
        for _ in 0..20 {
            older.push(Client::accepted(b, &Connect::new(v, &id)));
        }
        let mut last = older.pop().expect("twenty");
        for client in &mut older {
            client.expect_refused(&[0x8E]);
        }
        last.expect_quiet();
    });
}

#[test]
fn u5_3_1_2_11_limits_of_one_connection_do_not_bind_the_next() {
    each(|b| {
        let topic = name("t");
        let id = name("c");
        let narrow = Connect::new(V5, &id)
            .persistent()
            .with(Property::ReceiveMaximum(1))
            .with(Property::MaximumPacketSize(64))
            .with(Property::TopicAliasMaximum(2));
        let mut client = Client::accepted(b, &narrow);
        client.subscribe(&topic, 1);
        client.disconnect();
        let mut publisher = Client::fresh(b, V5);
        for number in 0..3 {
            publisher.say(&topic, format!("{number}").repeat(200), 1);
        }
        // The next connection announces nothing: the rules of the client demand no alias and allow any size.
        let mut client = Client::accepted(b, &Connect::new(V5, &id).resume());
        let ids: Vec<u16> = (0..3).map(|_| client.expect_publish().packet_id).collect();
        assert_eq!(ids.len(), 3, "all three in flight at once");
    });
}

#[test]
fn mqtt_4_1_0_1_mqtt311_4_1_0_1_mqtt311_4_1_0_2_a_session_lives_as_long_as_its_connection() {
    each_of(&[V5, V311], |b, v| {
        // An expiry of a second counts from the close only.
        let topic = name("t");
        let connect = if v == V5 {
            Connect::new(v, name("c")).resume().with(Property::SessionExpiry(1))
        } else {
            Connect::new(v, name("c")).persistent()
        };
        let mut client = Client::accepted(b, &connect);
        client.subscribe(&topic, 2);
        client.send_publish(&Publish::new(name("t"), "open").qos(2, 5));
        client.expect_ack(PUBREC, 5);
        std::thread::sleep(Duration::from_millis(2200));
        Client::fresh(b, v).say(&topic, "still here", 2);
        assert_eq!(client.expect_texts(1), ["still here"]);
        client.ack(PUBREL, 5);
        client.expect_ack(encode::PUBCOMP, 5);
    });
}

#[test]
fn u5_4_1_2_mqtt311_3_1_2_7_retained_messages_outlive_the_session_that_published_them() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("t");
        let mut publisher = Client::fresh(b, v);
        publisher.publish(&Publish::new(&*topic, "kept").retain().qos(1, 0));
        publisher.disconnect();
        let mut client = Client::fresh(b, v);
        client.subscribe(&topic, 0);
        assert_eq!(client.expect_publish().text(), "kept");
        client.publish(&Publish::new(&*topic, "").retain());
    });
}

#[test]
fn u5_4_1_1_every_part_of_the_session_is_stored() {
    each_of(&[V5, V311], |b, v| {
        let (topic, wild, up) = (name("t"), name("t"), name("t"));
        let connect = Connect::new(v, name("c")).persistent();
        let mut witness = Client::fresh(b, v);
        witness.subscribe(&up, 2);
        let mut client = Client::accepted(b, &connect);
        client.subscribe(&topic, 2);
        client.subscribe(&format!("{wild}/#"), 1);
        let mut publisher = Client::fresh(b, v);
        publisher.say(&topic, "waits for PUBREC", 2);
        publisher.say(&topic, "waits for PUBCOMP", 2);
        publisher.say(&format!("{wild}/x"), "waits for PUBACK", 1);
        let [received, released, acked] = [(); 3].map(|()| client.expect_publish().packet_id);
        client.ack(PUBREC, released);
        client.expect_ack(PUBREL, released);
        client.send_publish(&Publish::new(&*up, "an open identifier").qos(2, 9));
        client.expect_ack(PUBREC, 9);
        client.cut();
        publisher.say(&topic, "queued", 1);

        let mut client = Client::accepted(b, &connect);
        let (mut publishes, mut releases) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            match client.expect_packet() {
                Packet::Publish(publish) => publishes.push((publish.text(), publish.dup, publish.packet_id)),
                Packet::Pubrel(ack) => releases.push(ack.packet_id),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(releases, [released]);
        assert_eq!(publishes[0], ("waits for PUBREC".to_string(), true, received));
        assert_eq!(publishes[1], ("waits for PUBACK".to_string(), true, acked));
        assert_eq!((publishes[2].0.as_str(), publishes[2].1), ("queued", false));
        // The identifier that was open is still known: no second delivery.
        client.send_publish(&Publish::new(&*up, "an open identifier").qos(2, 9).dup());
        client.expect_ack(PUBREC, 9);
        assert_eq!(witness.expect_publish_acked().text(), "an open identifier");
        witness.expect_quiet();
    });
}

#[test]
fn mqtt_3_1_4_3_a_storm_of_takeovers_leaves_one_connection_and_no_broken_one() {
    each(|b| {
        let id = name("c");
        let ends = Instant::now() + Duration::from_millis(700);
        let connections: usize = std::thread::scope(|scope| {
            let storm: Vec<_> = (0..6)
                .map(|_| {
                    scope.spawn(|| {
                        let mut count = 0;
                        while Instant::now() < ends {
                            let mut client = Client::open(b, V5);
                            client.send_connect(&Connect::new(V5, &id).resume());
                            // Taken over before or after CONNACK, or not at all; never a broken stream.
                            client.next(Duration::from_secs(10));
                            count += 1;
                        }
                        count
                    })
                })
                .collect();
            storm.into_iter().map(|run| run.join().expect("no panic")).sum()
        });
        assert!(connections > 20, "{connections} connections only");
        let mut last = Client::accepted(b, &Connect::new(V5, &id));
        last.expect_quiet();
    });
}

#[test]
fn u311_3_1_2_1_qos_0_messages_are_not_kept_for_a_session_that_is_away() {
    // A server may keep them. ringmq does not: whoever wants a message kept publishes it at QoS 1.
    each_version(|b, v| {
        let topic = name("t");
        let connect = stored(b, v, &topic, 2);
        let mut publisher = Client::fresh(b, v);
        publisher.say(&topic, "at 0", 0);
        publisher.say(&topic, "at 1", 1);
        // Acknowledged is what is on its way to the session's shard; what comes there after the client gets it live.
        std::thread::sleep(Duration::from_millis(200));
        let mut client = Client::accepted(b, &connect);
        assert_eq!(client.expect_texts(1), ["at 1"]);
        client.expect_quiet();
    });
}
