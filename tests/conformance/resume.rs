//! Resending on resumption, routing and order (4.4 to 4.6).

use std::collections::BTreeMap;

use crate::support::encode::{self, PUBACK, PUBCOMP, PUBREC, PUBREL};
use crate::support::*;

#[test]
fn mqtt_4_4_0_1_mqtt311_4_4_0_1_everything_unacknowledged_is_sent_again_with_its_identifier() {
    each_version(|b, v| {
        let topic = name("t");
        let connect = Connect::new(v, name("c")).persistent();
        let mut client = Client::accepted(b, &connect);
        client.subscribe(&topic, 2);
        let mut publisher = Client::fresh(b, v);
        for number in 0..9 {
            publisher.say(&topic, number.to_string(), 1 + number % 2);
        }
        let sent: Vec<Publish> = (0..9).map(|_| client.expect_publish()).collect();
        // Every third is finished, every third at QoS 2 is received and not completed.
        let mut expected = BTreeMap::new();
        for (number, publish) in sent.iter().enumerate() {
            match (number % 3, publish.qos) {
                (0, _) => client.finish(publish),
                (1, 2) => {
                    client.ack(PUBREC, publish.packet_id);
                    client.expect_ack(PUBREL, publish.packet_id);
                    expected.insert(publish.packet_id, None);
                }
                _ => drop(expected.insert(publish.packet_id, Some(publish.text()))),
            }
        }
        client.ping();
        client.cut();
        let mut client = Client::accepted(b, &connect);
        let mut again = BTreeMap::new();
        for _ in 0..expected.len() {
            match client.expect_packet() {
                Packet::Publish(publish) => {
                    assert!(publish.dup);
                    again.insert(publish.packet_id, Some(publish.text()));
                }
                Packet::Pubrel(ack) => drop(again.insert(ack.packet_id, None)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(again, expected);
        client.expect_quiet();
    });
}

#[test]
fn mqtt_4_4_0_1_a_clean_start_sends_nothing_again() {
    each_version(|b, v| {
        let topic = name("t");
        let connect = Connect::new(v, name("c")).persistent();
        let mut client = Client::accepted(b, &connect);
        client.subscribe(&topic, 1);
        Client::fresh(b, v).say(&topic, "x", 1);
        client.expect_publish();
        client.cut();
        let id = String::from_utf8(connect.client_id).expect("a name");
        Client::accepted(b, &Connect::new(v, id)).expect_quiet();
    });
}

#[test]
fn u5_4_6_1_mqtt311_4_6_0_1_what_is_sent_again_comes_in_the_original_order_and_first() {
    each_version(|b, v| {
        let topic = name("t");
        let connect = Connect::new(v, name("c")).persistent();
        let mut client = Client::accepted(b, &connect);
        client.subscribe(&topic, 1);
        let mut publisher = Client::fresh(b, v);
        for number in 0..20 {
            publisher.say(&topic, number.to_string(), 1);
        }
        let sent: Vec<Publish> = (0..20).map(|_| client.expect_publish()).collect();
        for number in [3, 0, 7] {
            client.ack(PUBACK, sent[number].packet_id);
        }
        client.ping();
        client.cut();
        for number in 20..25 {
            publisher.say(&topic, number.to_string(), 1);
        }
        let mut client = Client::accepted(b, &connect);
        let again: Vec<Publish> = (0..22).map(|_| client.expect_publish()).collect();
        let expected: Vec<String> =
            (0..25).filter(|n| ![3, 0, 7].contains(n)).map(|n| n.to_string()).collect();
        assert_eq!(again.iter().map(Publish::text).collect::<Vec<_>>(), expected);
        assert!(again.iter().enumerate().all(|(at, publish)| publish.dup == (at < 17)));
    });
}

#[test]
fn mqtt311_4_6_0_2_mqtt311_4_6_0_3_acknowledgements_come_in_the_order_of_the_messages() {
    each_version(|b, v| {
        let topics = [name("t"), name("t"), name("t")];
        let mut client = Client::fresh(b, v);
        // Some retained, some not: they take different ways through the broker.
        let burst: Vec<u8> = (1..=90)
            .flat_map(|id: u16| {
                let publish = Publish::new(&*topics[usize::from(id % 3)], "x").qos(1 + (id % 2) as u8, id);
                if id.is_multiple_of(5) { publish.retain().bytes(v) } else { publish.bytes(v) }
            })
            .collect();
        client.send(burst);
        let mut by_kind = [Vec::new(), Vec::new()];
        for _ in 0..90 {
            match client.expect_packet() {
                Packet::Puback(ack) => by_kind[0].push(ack.packet_id),
                Packet::Pubrec(ack) => by_kind[1].push(ack.packet_id),
                other => panic!("{other:?}"),
            }
        }
        assert!(by_kind.iter().all(|ids| ids.is_sorted()), "{by_kind:?}");
        assert_eq!((by_kind[0].len(), by_kind[1].len()), (45, 45));
        for id in (1..=90).filter(|id| id % 2 == 1) {
            client.ack(PUBREL, id);
            client.expect_ack(PUBCOMP, id);
        }
        for topic in &topics {
            client.send(Publish::new(&**topic, "").retain().bytes(v));
        }
        client.ping();
    });
}

#[test]
fn mqtt311_4_6_0_4_releases_come_in_the_order_of_the_receipts() {
    each_version(|b, v| {
        let topic = name("t");
        let mut client = Client::fresh(b, v);
        client.subscribe(&topic, 2);
        let mut publisher = Client::fresh(b, v);
        for _ in 0..10 {
            publisher.say(&topic, "x", 2);
        }
        let mut ids: Vec<u16> = (0..10).map(|_| client.expect_publish().packet_id).collect();
        ids.swap(2, 7);
        let receipts: Vec<u8> = ids.iter().flat_map(|id| encode::ack(PUBREC, *id)).collect();
        client.send(receipts);
        for id in ids {
            client.expect_ack(PUBREL, id);
            client.ack(PUBCOMP, id);
        }
        client.expect_quiet();
    });
}

#[test]
fn mqtt_4_6_0_5_mqtt_4_6_0_6_mqtt311_4_6_0_5_mqtt311_4_6_0_6_one_publishers_order_is_kept() {
    // Per publisher, topic and QoS; several publishers and subscribers on whichever shards they are.
    each_version(|b, v| {
        let topics = [name("t"), name("t")];
        let mut subscribers: Vec<Client> = (0..3)
            .map(|index| {
                let mut client = Client::fresh(b, v);
                for topic in &topics {
                    let filter = if index == 2 { format!("{topic}/#") } else { topic.clone() };
                    client.subscribe(&filter, 2);
                }
                client
            })
            .collect();
        const MESSAGES: usize = 120;
        std::thread::scope(|scope| {
            for publisher in 0..3 {
                let topics = &topics;
                scope.spawn(move || {
                    let mut client = Client::fresh(b, v);
                    let burst: Vec<u8> = (0..MESSAGES)
                        .flat_map(|n| {
                            let text = format!("{publisher} {n}");
                            let qos = (n % 3) as u8;
                            Publish::new(&*topics[n % 2], text).qos(qos, n as u16 + 1).bytes(v)
                        })
                        .collect();
                    client.send(burst);
                    for n in 0..MESSAGES {
                        match n % 3 {
                            1 => drop(client.expect_ack(PUBACK, n as u16 + 1)),
                            2 => drop(client.expect_ack(PUBREC, n as u16 + 1)),
                            _ => {}
                        }
                    }
                });
            }
            for client in &mut subscribers {
                let mut last: BTreeMap<(String, String, u8), usize> = BTreeMap::new();
                for _ in 0..3 * MESSAGES {
                    let publish = client.expect_publish_acked();
                    let text = publish.text();
                    let (publisher, number) = text.split_once(' ').expect("two words");
                    let number: usize = number.parse().expect("a number");
                    let key = (publisher.to_string(), publish.topic.clone(), publish.qos);
                    let before = last.insert(key, number);
                    assert!(before.is_none_or(|before| before < number), "{text} after {before:?}");
                }
                client.expect_quiet();
            }
        });
    });
}

#[test]
fn mqtt_4_6_0_6_order_holds_when_retained_and_plain_messages_alternate() {
    each_version(|b, v| {
        let topic = name("t");
        let mut subscriber = Client::fresh(b, v);
        subscriber.subscribe(&topic, 1);
        let mut publisher = Client::fresh(b, v);
        let burst: Vec<u8> = (1..=200)
            .flat_map(|id: u16| {
                let publish = Publish::new(&*topic, id.to_string()).qos(1, id);
                if id.is_multiple_of(3) { publish.retain().bytes(v) } else { publish.bytes(v) }
            })
            .collect();
        publisher.send(burst);
        for id in 1..=200 {
            publisher.expect_ack(PUBACK, id);
        }
        assert_eq!(subscriber.expect_texts(200), (1..=200).map(|n| n.to_string()).collect::<Vec<_>>());
        publisher.send(Publish::new(&*topic, "").retain().bytes(v));
    });
}

#[test]
fn mqtt_4_5_0_1_mqtt311_4_5_0_1_a_message_reaches_every_matching_session() {
    each_version(|b, v| {
        let (first, second) = (name("t"), name("t"));
        let topic = format!("{first}/{second}");
        let mut here = Vec::new();
        let mut away = Vec::new();
        for index in 0..12 {
            let connect = Connect::new(v, name("c")).persistent();
            let mut client = Client::accepted(b, &connect);
            let filter = match index % 3 {
                0 => topic.clone(),
                1 => format!("{first}/#"),
                _ => format!("+/{second}"),
            };
            client.subscribe(&filter, 1);
            if index % 2 == 0 {
                here.push(client);
            } else {
                client.disconnect();
                away.push(connect);
            }
        }
        Client::fresh(b, v).say(&topic, "for all", 1);
        for client in &mut here {
            assert_eq!(client.expect_texts(1), ["for all"]);
        }
        for connect in away {
            assert_eq!(Client::accepted(b, &connect).expect_texts(1), ["for all"]);
        }
    });
}
