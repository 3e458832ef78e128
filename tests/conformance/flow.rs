//! Flow control (3.3.4, 4.9) and Maximum Packet Size (3.1.2.11.4, 3.2.2.3.6).

use crate::support::encode::{PUBACK, PUBCOMP, PUBREC, PUBREL};
use crate::support::*;

/// A client with this Receive Maximum, subscribed at QoS 2 to a topic that has messages at this QoS.
fn loaded(broker: &Broker, maximum: u16, qos: u8, messages: u32) -> (Client, Client, String) {
    let topic = name("t");
    let mut client =
        Client::accepted(broker, &Connect::new(V5, name("c")).with(Property::ReceiveMaximum(maximum)));
    client.subscribe(&topic, 2);
    let mut publisher = Client::fresh(broker, V5);
    for number in 0..messages {
        publisher.say(&topic, number.to_string(), qos);
    }
    (client, publisher, topic)
}

#[test]
fn mqtt_3_3_4_9_mqtt_4_9_0_1_mqtt_4_9_0_2_no_more_than_receive_maximum_is_in_flight() {
    each(|b| {
        for qos in [1, 2] {
            for maximum in [1, 2, 5] {
                let (mut client, _publisher, _) = loaded(b, maximum, qos, 12);
                let mut waiting: Vec<Publish> = (0..maximum).map(|_| client.expect_publish()).collect();
                client.expect_quiet();
                // Each that is finished lets the next one in, and no more.
                for number in u32::from(maximum)..12 {
                    let oldest = waiting.remove(0);
                    client.finish(&oldest);
                    let next = client.expect_publish();
                    assert_eq!(next.text(), number.to_string());
                    waiting.push(next);
                }
                client.expect_quiet();
            }
        }
    });
}

#[test]
fn u5_4_9_1_quota_comes_back_with_the_last_acknowledgement_only() {
    each(|b| {
        let (mut client, _publisher, _) = loaded(b, 1, 2, 3);
        let first = client.expect_publish();
        client.ack(PUBREC, first.packet_id);
        client.expect_ack(PUBREL, first.packet_id);
        client.expect_quiet();
        client.ack(PUBCOMP, first.packet_id);
        let second = client.expect_publish();
        // A refusal is the last acknowledgement too, and asks for no PUBREL.
        client.ack_code(PUBREC, second.packet_id, 0x97);
        let third = client.expect_publish();
        assert_eq!(third.text(), "2");
        client.ack(PUBREC, third.packet_id);
        client.expect_ack(PUBREL, third.packet_id);
        client.ack_code(PUBCOMP, third.packet_id, 0x92);
        client.expect_quiet();
    });
}

#[test]
fn u5_4_9_1_quota_never_rises_above_the_maximum() {
    each(|b| {
        let (mut client, mut publisher, topic) = loaded(b, 2, 1, 0);
        for _ in 0..10 {
            client.send(encode_unknown_acks());
        }
        client
            .expect_quiet_but(Packet::Pubrel(Ack { packet_id: 77, code: 0x92, properties: Vec::new() }), 10);
        for number in 0..5 {
            publisher.say(&topic, number.to_string(), 1);
        }
        let first = client.expect_publish();
        client.expect_publish();
        client.expect_quiet();
        client.ack(PUBACK, first.packet_id);
        // The same acknowledgement a second time is one for an unknown identifier.
        client.ack(PUBACK, first.packet_id);
        client.expect_publish();
        client.expect_quiet();
    });
}

/// Acknowledgements of exchanges that do not exist.
fn encode_unknown_acks() -> Vec<u8> {
    use crate::support::encode::ack;
    [ack(PUBACK, 77), ack(PUBREC, 77), ack(PUBCOMP, 77)].concat()
}

#[test]
fn u5_4_9_3_qos_0_is_not_limited() {
    each(|b| {
        let (mut client, mut publisher, topic) = loaded(b, 1, 1, 3);
        client.expect_publish();
        for number in 0..20 {
            publisher.say(&topic, format!("free {number}"), 0);
        }
        for number in 0..20 {
            assert_eq!(client.expect_publish().text(), format!("free {number}"));
        }
        client.expect_quiet();
    });
}

#[test]
fn mqtt_3_3_4_10_mqtt_4_9_0_3_everything_else_flows_while_quota_is_0() {
    each(|b| {
        let (mut client, _publisher, topic) = loaded(b, 1, 1, 3);
        let held = client.expect_publish();
        client.ping();
        let other = name("t");
        client.subscribe(&other, 1);
        assert_eq!(client.unsubscribe(&[&other]), [0]);
        client.send_publish(&Publish::new(&*other, "x").qos(1, 8));
        client.expect_ack(PUBACK, 8);
        client.send_publish(&Publish::new(&*other, "x").qos(2, 9));
        client.expect_ack(PUBREC, 9);
        client.ack(PUBREL, 9);
        client.expect_ack(PUBCOMP, 9);
        client.expect_quiet();
        client.ack(PUBACK, held.packet_id);
        assert_eq!(client.expect_publish().topic, topic);
    });
}

#[test]
fn mqtt_3_3_4_10_mqtt_4_9_0_3_a_release_that_is_owed_comes_although_quota_is_0() {
    each(|b| {
        let topic = name("t");
        let connect = Connect::new(V5, name("c")).persistent().with(Property::ReceiveMaximum(1));
        let wide = Connect { properties: connect.properties[..1].to_vec(), ..connect.clone() };
        let mut client = Client::accepted(b, &wide);
        client.subscribe(&topic, 2);
        let mut publisher = Client::fresh(b, V5);
        publisher.say(&topic, "received", 2);
        publisher.say(&topic, "sent", 1);
        publisher.say(&topic, "sent, and waits for quota when it is sent again", 1);
        let [received, sent, _] = [(); 3].map(|()| client.expect_publish().packet_id);
        client.ack(PUBREC, received);
        client.expect_ack(PUBREL, received);
        client.cut();
        // One message takes the whole quota of the new connection, another waits for it, and the release comes all the same.
        let mut client = Client::accepted(b, &connect);
        let mut again = [(); 2].map(|()| match client.expect_packet() {
            Packet::Publish(publish) => (publish.packet_id, "PUBLISH"),
            Packet::Pubrel(ack) => (ack.packet_id, "PUBREL"),
            other => panic!("{other:?}"),
        });
        again.sort_by_key(|(_, packet)| *packet);
        assert_eq!(again, [(sent, "PUBLISH"), (received, "PUBREL")]);
        client.expect_quiet();
    });
}

#[test]
fn u5_4_9_2_quota_is_whole_again_on_each_connection() {
    each(|b| {
        let topic = name("t");
        let connect = |maximum| {
            let mut connect = Connect::new(V5, "").persistent();
            connect.properties.push(Property::ReceiveMaximum(maximum));
            connect
        };
        let id = name("c");
        let with_id = |maximum| Connect { client_id: id.clone().into_bytes(), ..connect(maximum) };
        let mut client = Client::accepted(b, &with_id(2));
        client.subscribe(&topic, 1);
        let mut publisher = Client::fresh(b, V5);
        for number in 0..8 {
            publisher.say(&topic, number.to_string(), 1);
        }
        client.expect_publish();
        client.expect_publish();
        client.cut();
        // Two are resent and count; a maximum of three leaves room for one more.
        let mut client = Client::accepted(b, &with_id(3));
        let got: Vec<(String, bool)> =
            (0..3).map(|_| client.expect_publish()).map(|p| (p.text(), p.dup)).collect();
        let expected = [("0", true), ("1", true), ("2", false)].map(|(t, d)| (t.to_string(), d));
        assert_eq!(got, expected);
        client.expect_quiet();
        client.cut();
        // And a smaller one holds for what is resent, too.
        let mut client = Client::accepted(b, &with_id(1));
        for number in 0..8 {
            let got = client.expect_publish_acked();
            assert_eq!((got.text(), got.dup), (number.to_string(), number < 3));
        }
        client.expect_quiet();
    });
}

#[test]
fn u5_4_9_2_a_resent_pubrel_takes_no_quota() {
    each(|b| {
        let topic = name("t");
        let connect = Connect::new(V5, name("c")).persistent().with(Property::ReceiveMaximum(1));
        let mut client = Client::accepted(b, &connect);
        client.subscribe(&topic, 2);
        let mut publisher = Client::fresh(b, V5);
        publisher.say(&topic, "one", 2);
        publisher.say(&topic, "two", 2);
        let one = client.expect_publish();
        client.ack(PUBREC, one.packet_id);
        client.expect_ack(PUBREL, one.packet_id);
        client.cut();
        let mut client = Client::accepted(b, &connect);
        // In the new connection nothing is in flight but the release, so the next message may come.
        client.expect_ack(PUBREL, one.packet_id);
        let two = client.expect_publish();
        assert_eq!((two.text().as_str(), two.dup), ("two", false));
        client.ack(PUBCOMP, one.packet_id);
        client.finish(&two);
        client.expect_quiet();
    });
}

#[test]
fn mqtt_3_3_4_7_u5_3_3_4_3_more_than_the_brokers_receive_maximum_is_refused() {
    each(|b| {
        // The broker announces 1,024. Exchanges stay open by holding back PUBREL.
        let topic = name("t");
        let mut client = Client::fresh(b, V5);
        let burst = |ids: std::ops::RangeInclusive<u16>| -> Vec<u8> {
            ids.flat_map(|id| Publish::new(&*topic, "x").qos(2, id).bytes(V5)).collect()
        };
        client.send(burst(1..=1024));
        for id in 1..=1024 {
            assert!(client.expect_ack(PUBREC, id).code < 0x80);
        }
        client.ping();
        // A repetition of an open exchange is not one more.
        client.send_publish(&Publish::new(&*topic, "x").qos(2, 500).dup());
        client.expect_ack(PUBREC, 500);
        // One that ends makes room for one.
        client.ack(PUBREL, 1);
        client.expect_ack(PUBCOMP, 1);
        client.send_publish(&Publish::new(&*topic, "x").qos(2, 2000));
        client.expect_ack(PUBREC, 2000);
        client.send_publish(&Publish::new(&*topic, "x").qos(2, 2001));
        client.expect_refused(&[0x93]);
    });
}

#[test]
fn mqtt_3_3_4_7_the_limit_is_a_flag() {
    each_with(&["--receive-maximum", "3"], |broker| {
        let (mut client, connack) = Client::connect(broker, &Connect::new(V5, name("c")));
        assert!(connack.properties.contains(&Property::ReceiveMaximum(3)), "{connack:?}");
        for id in 1..=3 {
            client.send_publish(&Publish::new("t", "x").qos(2, id));
            client.expect_ack(PUBREC, id);
        }
        // QoS 1 is answered at once and never adds up; QoS 0 does not count.
        client.send_publish(&Publish::new("t", "x"));
        client.ping();
        client.send_publish(&Publish::new("t", "x").qos(2, 4));
        client.expect_refused(&[0x93]);
    });
}

#[test]
fn mqtt_3_1_2_24_mqtt_3_1_2_25_a_message_too_large_for_the_client_is_dropped_as_if_delivered() {
    each(|b| {
        let topic = name("t");
        let connect = Connect::new(V5, name("c"))
            .with(Property::MaximumPacketSize(100))
            .with(Property::ReceiveMaximum(1));
        let mut client = Client::accepted(b, &connect);
        client.subscribe(&topic, 2);
        let mut publisher = Client::fresh(b, V5);
        for qos in 0..=2 {
            publisher.say(&topic, "x".repeat(200), qos);
            publisher.say(&topic, "small", qos);
            // Neither quota nor an identifier is held by the large one: the next passes a maximum of one.
            assert_eq!(client.expect_publish_acked().text(), "small");
            client.expect_quiet();
        }
    });
}

#[test]
fn mqtt_3_1_2_24_u5_2_1_4_2_a_packet_of_exactly_the_maximum_is_sent() {
    each(|b| {
        let topic = name("t");
        let maximum: u32 = 200;
        let mut client =
            Client::accepted(b, &Connect::new(V5, name("c")).with(Property::MaximumPacketSize(maximum)));
        client.subscribe(&topic, 0);
        let mut publisher = Client::fresh(b, V5);
        // Type, two bytes of length, topic, property length, payload.
        let fits = maximum as usize - 3 - 2 - topic.len() - 1;
        publisher.say(&topic, "y".repeat(fits + 1), 0);
        publisher.say(&topic, "x".repeat(fits), 0);
        assert_eq!(client.expect_publish().text(), "x".repeat(fits));
        client.expect_quiet();
    });
}

#[test]
fn mqtt_3_1_2_25_a_queued_message_too_large_is_dropped_on_resumption() {
    each(|b| {
        let topic = name("t");
        let id = name("c");
        let mut client = Client::accepted(b, &Connect::new(V5, &id).persistent());
        client.subscribe(&topic, 1);
        client.disconnect();
        let mut publisher = Client::fresh(b, V5);
        publisher.say(&topic, "x".repeat(500), 1);
        publisher.say(&topic, "small", 1);
        let narrow = Connect::new(V5, &id).persistent().with(Property::MaximumPacketSize(100));
        let mut client = Client::accepted(b, &narrow);
        assert_eq!(client.expect_texts(1), ["small"]);
        client.expect_quiet();
        client.disconnect();
        let mut client = Client::accepted(b, &Connect::new(V5, &id).persistent());
        client.expect_quiet();
    });
}

#[test]
fn u5_3_1_2_10_a_shared_message_too_large_for_one_member_disturbs_no_one() {
    each(|b| {
        let topic = name("t");
        let filter = format!("$share/g/{topic}");
        let mut narrow =
            Client::accepted(b, &Connect::new(V5, name("c")).with(Property::MaximumPacketSize(100)));
        let mut wide = Client::fresh(b, V5);
        narrow.subscribe(&filter, 1);
        wide.subscribe(&filter, 1);
        let mut publisher = Client::fresh(b, V5);
        for _ in 0..10 {
            publisher.say(&topic, "x".repeat(500), 1);
        }
        publisher.say(&topic, "end", 1);
        // Dropped, or given to the member that can take it: either way each large one arrives at most once.
        let mut large = 0;
        let mut ends = 0;
        for client in [&mut wide, &mut narrow] {
            while let Event::Packet(Packet::Publish(publish)) =
                client.next(std::time::Duration::from_millis(200))
            {
                client.finish(&publish);
                if publish.text() == "end" { ends += 1 } else { large += 1 }
            }
        }
        assert!(ends == 1 && large <= 10, "{ends} ends, {large} large");
        narrow.ping();
    });
}

#[test]
fn mqtt_3_2_2_15_u5_3_2_2_5_u5_2_1_4_2_a_packet_above_the_brokers_maximum_is_refused() {
    each_with(&["--packet-size-max", "1000"], |broker| {
        let connack = Client::connect(broker, &Connect::new(V5, name("c"))).1;
        assert!(connack.properties.contains(&Property::MaximumPacketSize(1000)), "{connack:?}");
        for v in [V5, V311] {
            let topic = name("t");
            let mut client = Client::fresh(broker, v);
            client.subscribe(&topic, 0);
            let header = 3 + 2 + topic.len() + usize::from(v == V5);
            client.send_publish(&Publish::new(&*topic, "x".repeat(1000 - header)));
            assert_eq!(client.expect_publish().payload.len(), 1000 - header);
            client.send_publish(&Publish::new(&*topic, "x".repeat(1001 - header)));
            client.expect_refused(&[0x95]);
            // The announced length alone is enough: the body need not be sent.
            refuse(broker, v, "a header", [0x30, 0xFF, 0xFF, 0xFF, 0x7F], &[0x95]);
        }
    });
}
