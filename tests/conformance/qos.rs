//! The exchanges of QoS 0, 1 and 2 within one connection (4.3).

use super::publish::pair;
use crate::support::encode::{PUBACK, PUBCOMP, PUBREC, PUBREL};
use crate::support::*;

#[test]
fn mqtt_4_3_1_1_mqtt311_4_3_1_1_qos_0_is_sent_once_without_identifier_or_dup() {
    each_version(|b, v| {
        let (mut subscriber, mut publisher, topic) = pair(b, v, 0);
        for qos in 0..=2 {
            publisher.say(&topic, "x", qos);
            let got = subscriber.expect_publish();
            assert_eq!((got.qos, got.dup, got.packet_id), (0, false, 0));
        }
        subscriber.expect_quiet();
    });
}

#[test]
fn mqtt_4_3_2_1_mqtt_4_3_2_2_mqtt_4_3_3_1_mqtt_4_3_3_2_mqtt311_4_3_2_1_mqtt311_4_3_3_1_first_transmissions() {
    each_version(|b, v| {
        for qos in [1, 2] {
            let (mut subscriber, mut publisher, topic) = pair(b, v, 2);
            let mut in_use = std::collections::BTreeSet::new();
            for _ in 0..10 {
                publisher.say(&topic, "x", qos);
                let got = subscriber.expect_publish();
                assert_eq!((got.qos, got.dup), (qos, false));
                assert!(in_use.insert(got.packet_id), "an identifier in use");
            }
        }
    });
}

#[test]
fn mqtt_4_3_2_3_mqtt_4_3_3_3_mqtt311_4_3_2_1_mqtt311_4_3_3_1_unacknowledged_until_acknowledged() {
    each_version(|b, v| {
        for qos in [1, 2] {
            let topic = name("t");
            let connect = Connect::new(v, name("c")).persistent();
            let mut client = Client::accepted(b, &connect);
            client.subscribe(&topic, 2);
            Client::fresh(b, v).say(&topic, "x", qos);
            let first = client.expect_publish();
            for _ in 0..3 {
                client.cut();
                client = Client::accepted(b, &connect);
                let again = client.expect_publish();
                assert_eq!((again.packet_id, again.qos, again.dup), (first.packet_id, qos, true));
            }
            client.finish(&first);
            client.ping();
            client.cut();
            Client::accepted(b, &connect).expect_quiet();
        }
    });
}

#[test]
fn mqtt_4_3_2_4_mqtt311_4_3_2_2_qos_1_is_answered_with_puback() {
    each_version(|b, v| {
        let (mut subscriber, mut publisher, topic) = pair(b, v, 1);
        for id in [1, 77, 65_535] {
            publisher.send_publish(&Publish::new(&*topic, "x").qos(1, id));
            publisher.expect_ack(PUBACK, id);
            assert_eq!(subscriber.expect_texts(1), ["x"]);
        }
    });
}

#[test]
fn mqtt_4_3_2_5_mqtt311_4_3_2_2_after_puback_the_identifier_means_a_new_message() {
    each_version(|b, v| {
        let (mut subscriber, mut publisher, topic) = pair(b, v, 1);
        for round in 0..4 {
            let publish = Publish::new(&*topic, round.to_string()).qos(1, 7);
            publisher.publish(&if round % 2 == 1 { publish.dup() } else { publish });
            assert_eq!(subscriber.expect_texts(1), [round.to_string()]);
        }
        subscriber.expect_quiet();
    });
}

#[test]
fn mqtt_4_3_3_8_mqtt_4_3_3_11_mqtt311_4_3_3_2_qos_2_is_answered_with_pubrec_and_pubcomp() {
    each_version(|b, v| {
        let (mut subscriber, mut publisher, topic) = pair(b, v, 2);
        for id in [1, 77, 65_535] {
            publisher.send_publish(&Publish::new(&*topic, "x").qos(2, id));
            publisher.expect_ack(PUBREC, id);
            publisher.ack(PUBREL, id);
            let comp = publisher.expect_ack(PUBCOMP, id);
            assert_eq!(comp.code, 0);
            assert_eq!(subscriber.expect_texts(1), ["x"]);
        }
        subscriber.expect_quiet();
    });
}

#[test]
fn mqtt_4_3_3_10_mqtt311_4_3_3_2_a_repetition_before_pubrel_is_not_delivered_again() {
    each_version(|b, v| {
        let (mut subscriber, mut publisher, topic) = pair(b, v, 2);
        let publish = Publish::new(&*topic, "once").qos(2, 9);
        publisher.send_publish(&publish);
        publisher.expect_ack(PUBREC, 9);
        for _ in 0..3 {
            publisher.send_publish(&publish.clone().dup());
            assert!(publisher.expect_ack(PUBREC, 9).code < 0x80);
        }
        publisher.ack(PUBREL, 9);
        publisher.expect_ack(PUBCOMP, 9);
        assert_eq!(subscriber.expect_texts(1), ["once"]);
        subscriber.expect_quiet();
    });
}

#[test]
fn mqtt_4_3_3_12_mqtt311_4_3_3_2_after_pubcomp_the_identifier_means_a_new_message() {
    each_version(|b, v| {
        let (mut subscriber, mut publisher, topic) = pair(b, v, 2);
        for round in 0..4 {
            let publish = Publish::new(&*topic, round.to_string()).qos(2, 7);
            publisher.publish(&if round % 2 == 1 { publish.dup() } else { publish });
            assert_eq!(subscriber.expect_texts(1), [round.to_string()]);
        }
        subscriber.expect_quiet();
    });
}

#[test]
fn mqtt_4_3_3_4_mqtt311_4_3_3_1_pubrec_is_answered_with_pubrel() {
    each_version(|b, v| {
        let (mut subscriber, mut publisher, topic) = pair(b, v, 2);
        publisher.say(&topic, "x", 2);
        let got = subscriber.expect_publish();
        subscriber.ack(PUBREC, got.packet_id);
        let release = subscriber.expect_ack(PUBREL, got.packet_id);
        assert_eq!(release.code, 0);
        // Again, should the client repeat itself.
        subscriber.ack(PUBREC, got.packet_id);
        subscriber.expect_ack(PUBREL, got.packet_id);
        subscriber.ack(PUBCOMP, got.packet_id);
        subscriber.expect_quiet();
    });
}

#[test]
fn mqtt_4_3_3_4_u5_4_3_5_mqtt_4_4_0_2_pubrec_with_an_error_ends_the_exchange() {
    each(|b| {
        let topic = name("t");
        let connect = Connect::new(V5, name("c")).persistent();
        let mut client = Client::accepted(b, &connect);
        client.subscribe(&topic, 2);
        let mut publisher = Client::fresh(b, V5);
        publisher.say(&topic, "refused", 2);
        let got = client.expect_publish();
        client.ack_code(PUBREC, got.packet_id, 0x83);
        client.expect_quiet();
        publisher.say(&topic, "refused at 1", 1);
        let got = client.expect_publish();
        client.ack_code(PUBACK, got.packet_id, 0x83);
        client.expect_quiet();
        client.cut();
        // Neither is sent again.
        Client::accepted(b, &connect).expect_quiet();
    });
}

#[test]
fn mqtt_4_3_3_5_mqtt_4_3_3_6_mqtt311_4_3_3_1_pubrel_waits_for_pubcomp_and_publish_is_not_sent_again() {
    each_version(|b, v| {
        let topic = name("t");
        let connect = Connect::new(v, name("c")).persistent();
        let mut client = Client::accepted(b, &connect);
        client.subscribe(&topic, 2);
        Client::fresh(b, v).say(&topic, "x", 2);
        let got = client.expect_publish();
        client.ack(PUBREC, got.packet_id);
        client.expect_ack(PUBREL, got.packet_id);
        for _ in 0..3 {
            client.cut();
            client = Client::accepted(b, &connect);
            // expect_ack would put a PUBLISH aside: the next packet itself must be the release.
            match client.expect_packet() {
                Packet::Pubrel(ack) => assert_eq!((ack.packet_id, ack.code), (got.packet_id, 0)),
                other => panic!("expected PUBREL, got {other:?}"),
            }
            client.expect_quiet();
        }
        client.ack(PUBCOMP, got.packet_id);
        client.ping();
        client.cut();
        Client::accepted(b, &connect).expect_quiet();
    });
}

#[test]
fn u5_4_3_1_u311_4_3_3_1_a_release_of_an_unknown_identifier_is_completed() {
    each_version(|b, v| {
        let mut client = Client::fresh(b, v);
        for id in [1, 500, 65_535] {
            client.ack(PUBREL, id);
            let comp = client.expect_ack(PUBCOMP, id);
            assert_eq!(comp.code, if v == V5 { 0x92 } else { 0 });
        }
        client.expect_quiet();
    });
}

#[test]
fn u5_4_3_2_a_receipt_of_an_unknown_identifier_is_released_with_0x92() {
    each(|b| {
        let mut client = Client::fresh(b, V5);
        client.ack(PUBREC, 500);
        assert_eq!(client.expect_ack(PUBREL, 500).code, 0x92);
        client.ack_code(PUBREC, 501, 0x80);
        client.expect_quiet();
    });
}

#[test]
fn u5_4_3_3_other_acknowledgements_of_unknown_identifiers_are_ignored() {
    // Nothing is defined for them. They do harm to no one, so the connection stays.
    each_version(|b, v| {
        let mut client = Client::fresh(b, v);
        client.ack(PUBACK, 500);
        client.ack(PUBCOMP, 501);
        client.expect_quiet();
    });
}

#[test]
fn u5_4_3_3_an_acknowledgement_of_the_wrong_kind_does_not_finish_an_exchange() {
    each_version(|b, v| {
        let topic = name("t");
        let connect = Connect::new(v, name("c")).persistent();
        let mut client = Client::accepted(b, &connect);
        client.subscribe(&topic, 2);
        Client::fresh(b, v).say(&topic, "x", 2);
        let got = client.expect_publish();
        client.send(crate::support::encode::ack(PUBACK, got.packet_id));
        // Closed upon or ignored; in either case the message is not lost.
        client.cut();
        let mut client = Client::accepted(b, &connect);
        let again = client.expect_publish();
        assert_eq!((again.packet_id, again.dup), (got.packet_id, true));
        client.finish(&again);
        client.expect_quiet();
    });
}

#[test]
fn mqtt_4_4_0_1_u311_4_4_1_nothing_is_sent_again_within_a_connection() {
    each_version(|b, v| {
        let (mut subscriber, mut publisher, topic) = pair(b, v, 2);
        publisher.say(&topic, "one", 1);
        publisher.say(&topic, "two", 2);
        subscriber.expect_publish();
        subscriber.expect_publish();
        let event = subscriber.next(std::time::Duration::from_millis(1500));
        assert_eq!(event, Event::Nothing);
        subscriber.expect_quiet();
    });
}

#[test]
fn u5_4_3_4_the_acknowledgement_takes_over_the_message_for_those_who_are_there() {
    // Whatever was acknowledged reaches every subscriber, also those that are away.
    each_version(|b, v| {
        let topic = name("t");
        let away: Vec<Connect> = (0..4).map(|_| Connect::new(v, name("c")).persistent()).collect();
        for connect in &away {
            let mut client = Client::accepted(b, connect);
            client.subscribe(&topic, 1);
            client.disconnect();
        }
        let mut publisher = Client::fresh(b, v);
        publisher.send_publish(&Publish::new(&*topic, "mine now").qos(1, 1));
        publisher.expect_ack(PUBACK, 1);
        publisher.reset();
        for connect in &away {
            assert_eq!(Client::accepted(b, connect).expect_texts(1), ["mine now"]);
        }
    });
}

#[test]
fn u311_4_3_3_2_a_qos_2_message_goes_onward_before_its_release() {
    // 3.1.1 leaves the choice between PUBLISH and PUBREL; MQTT 5 takes the former, and so does ringmq for all.
    each_version(|b, v| {
        let (mut subscriber, mut publisher, topic) = pair(b, v, 2);
        publisher.send_publish(&Publish::new(&*topic, "at once").qos(2, 4));
        publisher.expect_ack(PUBREC, 4);
        assert_eq!(subscriber.expect_texts(1), ["at once"]);
        publisher.ack(PUBREL, 4);
        publisher.expect_ack(PUBCOMP, 4);
        subscriber.expect_quiet();
    });
}

/// Messages that come in one write go to each subscriber as they would alone: at the level that it asked for, in its form,
/// within its maxima, in order, once, and later to who is away.
#[test]
fn mqtt_4_6_0_5_mqtt_3_8_4_8_mqtt_3_3_4_9_mqtt_3_1_2_24_mqtt_3_3_1_3_many_messages_in_one_write_reach_each_subscriber()
 {
    const COUNT: usize = 50;
    each_version(|b, v| {
        for qos in [1, 2] {
            let topic = name("t");
            let plain = |version| Client::accepted(b, &Connect::new(version, name("c")));
            let with = |property| Client::accepted(b, &Connect::new(V5, name("c")).with(property));
            let mut subscribers = vec![
                ("at QoS 2", plain(v), 2),
                ("at QoS 1", plain(v), 1),
                ("at QoS 0", plain(v), 0),
                ("in 3.1.1", plain(V311), 2),
                ("in 5.0", plain(V5), 2),
                ("two at a time", with(Property::ReceiveMaximum(2)), 2),
                ("nine at a time", with(Property::ReceiveMaximum(9)), 2),
                ("by alias", with(Property::TopicAliasMaximum(3)), 2),
                ("the short ones", with(Property::MaximumPacketSize(70)), 2),
            ];
            for (_, subscriber, level) in &mut subscribers {
                subscriber.subscribe(&topic, *level);
            }
            let mut numbered = plain(V5);
            numbered.subscribe_with(&topic, 2, &[Property::SubscriptionId(300)]);
            subscribers.push(("with an identifier", numbered, 2));
            let away = Connect::new(v, name("c")).persistent();
            let mut client = Client::accepted(b, &away);
            client.subscribe(&topic, 2);
            client.disconnect();

            let texts: Vec<String> =
                (0..COUNT).map(|at| format!("{at} {}", "x".repeat(at % 3 * 30))).collect();
            let mut publisher = plain(v);
            let packets = texts.iter().zip(1..).map(|(text, id)| {
                let publish = Publish::new(&*topic, text).qos(qos, id);
                // As if sent before, on a connection that was lost.
                if qos == 2 { publish.dup().bytes(v) } else { publish.bytes(v) }
            });
            publisher.send(packets.collect::<Vec<_>>().concat());
            for id in 1..=COUNT as u16 {
                publisher.expect_ack(if qos == 1 { PUBACK } else { PUBREC }, id);
            }
            subscribers.push(("who was away", Client::accepted(b, &away), 2));
            for (who, subscriber, level) in &mut subscribers {
                let fits = |text: &&String| *who != "the short ones" || text.len() < 50;
                for text in texts.iter().filter(fits) {
                    let publish = subscriber.expect_publish_acked();
                    assert_eq!((publish.text(), publish.qos), (text.clone(), qos.min(*level)), "{who}");
                    assert!(!publish.dup && !publish.retain, "{who}");
                    let identifier = publish.properties.contains(&Property::SubscriptionId(300));
                    assert_eq!(identifier, *who == "with an identifier", "{who}");
                }
                subscriber.expect_quiet();
            }
        }
    });
}
