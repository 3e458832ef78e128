//! Chapter 3.3: PUBLISH, its flags, its topic, and what is forwarded with it.

use crate::support::encode::{PUBACK, PUBCOMP, PUBREC, PUBREL, packet, string};
use crate::support::*;

/// A subscriber at this QoS and a publisher, with a topic of their own.
pub fn pair(broker: &Broker, version: Version, qos: u8) -> (Client, Client, String) {
    let topic = name("t");
    let mut subscriber = Client::fresh(broker, version);
    subscriber.subscribe(&topic, qos);
    (subscriber, Client::fresh(broker, version), topic)
}

#[test]
fn mqtt_3_3_4_1_mqtt311_3_3_4_1_the_answer_depends_on_the_qos() {
    each_version(|b, v| {
        let mut client = Client::fresh(b, v);
        let topic = name("t");
        client.send_publish(&Publish::new(&*topic, "x"));
        client.expect_quiet();
        client.send_publish(&Publish::new(&*topic, "x").qos(1, 10));
        client.expect_ack(PUBACK, 10);
        client.send_publish(&Publish::new(&*topic, "x").qos(2, 11));
        client.expect_ack(PUBREC, 11);
        client.ack(PUBREL, 11);
        client.expect_ack(PUBCOMP, 11);
        client.expect_quiet();
    });
}

#[test]
fn mqtt_3_3_1_1_mqtt311_3_3_1_1_dup_is_1_on_a_redelivery() {
    each_version(|b, v| {
        let topic = name("t");
        let connect = Connect::new(v, name("c")).persistent();
        let mut client = Client::accepted(b, &connect);
        client.subscribe(&topic, 2);
        let mut publisher = Client::fresh(b, v);
        publisher.say(&topic, "one", 1);
        publisher.say(&topic, "two", 2);
        let first: Vec<Publish> = (0..2).map(|_| client.expect_publish()).collect();
        assert!(first.iter().all(|p| !p.dup));
        client.cut();
        let mut client = Client::accepted(b, &connect);
        for old in first {
            assert_eq!(client.expect_publish(), Publish { dup: true, ..old });
        }
    });
}

#[test]
fn mqtt_3_3_1_2_mqtt311_3_3_1_2_dup_at_qos_0_is_refused() {
    each_of(&[V5, V311], |b, v| {
        refuse(b, v, "DUP", Publish::new("t", "x").dup().bytes(v), &[0x81]);
        refuse(b, v, "DUP and RETAIN", Publish::new("t", "x").dup().retain().bytes(v), &[0x81]);
    });
}

#[test]
fn mqtt_3_3_1_3_mqtt311_3_3_1_3_the_dup_of_the_publisher_is_not_passed_on() {
    each_version(|b, v| {
        let (mut subscriber, mut publisher, topic) = pair(b, v, 2);
        for qos in [1, 2] {
            publisher.publish(&Publish::new(&*topic, "x").qos(qos, 50).dup());
            let got = subscriber.expect_publish_acked();
            assert_eq!((got.qos, got.dup), (qos, false));
        }
    });
}

#[test]
fn mqtt_3_3_1_4_mqtt311_3_3_1_4_qos_3_is_refused() {
    each_of(&[V5, V311], |b, v| {
        for flags in [0x06, 0x07, 0x0E, 0x0F] {
            let mut bytes = Publish::new("t", "x").qos(1, 1).bytes(v);
            bytes[0] = 0x30 | flags;
            refuse(b, v, &format!("flags {flags:04b}"), bytes, &[0x81]);
        }
    });
}

#[test]
fn mqtt_3_3_2_1_mqtt311_3_3_2_1_the_topic_name_comes_first_and_is_utf8() {
    each_of(&[V5, V311], |b, v| {
        for topic in [&b"a\xFF"[..], b"\xED\xA0\x80", b"a\xC0\x80"] {
            let body = [string(topic), vec![0]].concat();
            refuse(b, v, &format!("{topic:02x?}"), packet(0x30, body), &[0x81]);
        }
        refuse(b, v, "no topic", packet(0x30, [0]), &[0x81]);
        refuse(b, v, "topic beyond the end", packet(0x30, [0, 9, b'a']), &[0x81]);
    });
}

#[test]
fn mqtt_3_3_2_2_mqtt311_3_3_2_2_mqtt_4_7_0_1_mqtt311_4_7_1_1_a_topic_name_has_no_wildcards() {
    // The standard asks for a close and names no code; to a client, "topic name invalid" says most.
    each_of(&[V5, V311], |b, v| {
        for topic in ["#", "+", "a/#", "a/+/b", "a+", "a#b", "+a"] {
            for qos in 0..=2 {
                let publish = Publish::new(topic, "x").qos(qos, u16::from(qos > 0));
                refuse(b, v, topic, publish.bytes(v), &[0x90]);
            }
        }
    });
}

#[test]
fn u5_3_3_2_1_mqtt_4_7_3_1_mqtt311_4_7_3_1_an_empty_topic_name_is_refused() {
    each_of(&[V5, V311], |b, v| {
        refuse(b, v, "QoS 0", Publish::new("", "x").bytes(v), &[0x82]);
        refuse(b, v, "QoS 1", Publish::new("", "x").qos(1, 1).bytes(v), &[0x82]);
    });
}

#[test]
fn mqtt_3_3_2_3_mqtt311_3_3_2_3_the_topic_that_is_sent_is_the_one_published_to() {
    each_version(|b, v| {
        let base = name("t");
        let mut subscriber = Client::fresh(b, v);
        subscriber.subscribe(&format!("{base}/+/end"), 0);
        subscriber.subscribe(&format!("{base}/deep/#"), 0);
        let mut publisher = Client::fresh(b, v);
        for (topic, matches) in [
            (format!("{base}/x/end"), true),
            (format!("{base}//end"), true),
            (format!("{base}/deep/er/still"), true),
            (format!("{base}/x/y/end"), false),
            (format!("{base}/Deep/er"), false),
            (base.clone(), false),
        ] {
            publisher.say(&topic, "x", 0);
            if matches {
                assert_eq!(subscriber.expect_publish().topic, topic);
            }
        }
        subscriber.expect_quiet();
    });
}

#[test]
fn u311_3_3_3_1_an_empty_payload_is_legal() {
    each_version(|b, v| {
        let (mut subscriber, mut publisher, topic) = pair(b, v, 2);
        for qos in 0..=2 {
            publisher.say(&topic, "", qos);
            let got = subscriber.expect_publish_acked();
            assert_eq!((got.qos, got.payload.len()), (qos, 0));
        }
    });
}

#[test]
fn mqtt_3_3_2_4_the_payload_format_indicator_is_forwarded() {
    each(|b| {
        let (mut subscriber, mut publisher, topic) = pair(b, V5, 0);
        for format in [Some(0), Some(1), None] {
            let mut publish = Publish::new(&*topic, "x");
            publish.properties.extend(format.map(Property::PayloadFormat));
            publisher.send_publish(&publish);
            let got = subscriber.expect_publish().properties;
            // Absent and 0 mean the same.
            let shown: Vec<_> = got.iter().filter(|p| **p != Property::PayloadFormat(0)).collect();
            assert_eq!(shown.len(), usize::from(format == Some(1)), "{format:?}: {got:?}");
        }
    });
}

#[test]
fn u5_3_3_2_2_the_payload_format_indicator_is_0_or_1() {
    each(|b| {
        for format in [2, 255] {
            let publish = Publish::new("t", "x").with(Property::PayloadFormat(format));
            refuse(b, V5, &format!("{format}"), publish.bytes(V5), &[0x82]);
        }
    });
}

#[test]
fn u5_3_3_2_3_the_payload_is_not_looked_into() {
    // A server may refuse a payload that is not what its indicator says. ringmq forwards payloads unread.
    each(|b| {
        let (mut subscriber, mut publisher, topic) = pair(b, V5, 1);
        let code =
            publisher.publish(&Publish::new(&*topic, b"\xFF\xFE").qos(1, 3).with(Property::PayloadFormat(1)));
        assert_eq!(code, 0);
        assert_eq!(subscriber.expect_publish().payload, b"\xFF\xFE");
    });
}

#[test]
fn mqtt_3_3_2_13_the_response_topic_must_be_utf8() {
    refuse_string_property(0x08);
}

#[test]
fn mqtt_3_3_2_19_the_content_type_must_be_utf8() {
    refuse_string_property(0x03);
}

fn refuse_string_property(id: u8) {
    each(|b| {
        for text in [&b"\xFF"[..], b"a\0", b"\xED\xA0\x80"] {
            let property = [vec![id], string(text)].concat();
            let body = [string("t"), vec![property.len() as u8], property].concat();
            refuse(b, V5, &format!("{text:02x?}"), packet(0x30, body), &[0x81]);
        }
    });
}

#[test]
fn mqtt_3_3_2_14_the_response_topic_has_no_wildcards() {
    // The standard names no code for it.
    each(|b| {
        for topic in ["#", "a/+", "a/#"] {
            let publish = Publish::new("t", "x").with(Property::ResponseTopic(topic.into()));
            refuse(b, V5, topic, publish.bytes(V5), &[0x82]);
        }
    });
}

#[test]
fn mqtt_3_3_2_15_the_response_topic_is_forwarded() {
    forwarded(&[Property::ResponseTopic("answers/é/$x".into())]);
}

#[test]
fn mqtt_3_3_2_16_the_correlation_data_is_forwarded() {
    forwarded(&[Property::CorrelationData((0..=255).collect())]);
}

#[test]
fn mqtt_3_3_2_20_the_content_type_is_forwarded() {
    forwarded(&[Property::ContentType("a/b; c=\u{FEFF}日本".into())]);
}

#[test]
fn mqtt_3_3_2_17_mqtt_3_3_2_18_user_properties_are_forwarded_in_their_order() {
    let pairs = [("b", "1"), ("a", "2"), ("b", "3"), ("", ""), ("b", "1"), ("a", "2"), ("é", "日本")];
    forwarded(&pairs.map(|(n, v)| Property::User(n.into(), v.into())));
}

/// Publishes with these properties at each QoS, live and retained; they must arrive as they were, in their order.
fn forwarded(properties: &[Property]) {
    each(|b| {
        let (mut subscriber, mut publisher, topic) = pair(b, V5, 2);
        for qos in 0..=2 {
            let mut publish = Publish::new(&*topic, "x").retain().qos(qos, u16::from(qos));
            publish.properties = properties.to_vec();
            publisher.publish(&publish);
            assert_eq!(subscriber.expect_publish_acked().properties, properties);
        }
        let mut late = Client::fresh(b, V5);
        late.subscribe(&topic, 0);
        assert_eq!(late.expect_publish().properties, properties, "retained");
        publisher.say(&topic, "", 0);
        publisher.publish(&Publish::new(&*topic, "").retain());
    });
}

#[test]
fn mqtt_3_3_2_17_properties_wait_with_a_queued_message() {
    each(|b| {
        let topic = name("t");
        let connect = Connect::new(V5, name("c")).persistent();
        let mut client = Client::accepted(b, &connect);
        client.subscribe(&topic, 1);
        client.disconnect();
        let publish = Publish::new(&*topic, "x")
            .qos(1, 1)
            .with(Property::PayloadFormat(1))
            .with(Property::ContentType("t".into()))
            .with(Property::ResponseTopic("r".into()))
            .with(Property::CorrelationData(vec![1]))
            .with(Property::User("n".into(), "v".into()));
        Client::fresh(b, V5).publish(&publish);
        let mut client = Client::accepted(b, &connect);
        let mut got = client.expect_publish().properties;
        got.sort_by_key(Property::id);
        assert_eq!(got, publish.properties);
    });
}

#[test]
fn u5_3_3_4_6_properties_are_dropped_for_older_clients() {
    each(|b| {
        let topic = name("t");
        let mut olds = [V311, V31].map(|v| Client::fresh(b, v));
        for old in &mut olds {
            old.subscribe(&topic, 2);
        }
        let mut publisher = Client::fresh(b, V5);
        for qos in 0..=2 {
            let publish = Publish::new(&*topic, "payload")
                .qos(qos, u16::from(qos))
                .with(Property::MessageExpiry(60))
                .with(Property::User("n".into(), "v".into()))
                .with(Property::ContentType("c".into()));
            publisher.publish(&publish);
            for old in &mut olds {
                let got = old.expect_publish_acked();
                assert_eq!((got.qos, got.payload.as_slice()), (qos, b"payload".as_slice()));
            }
        }
    });
}

#[test]
fn u5_3_3_4_6_messages_of_older_clients_have_no_properties() {
    each(|b| {
        let (mut subscriber, _, topic) = pair(b, V5, 1);
        for v in [V311, V31] {
            Client::fresh(b, v).say(&topic, "x", 1);
            let got = subscriber.expect_publish_acked();
            assert!(got.properties.is_empty(), "{got:?}");
        }
    });
}

#[test]
fn u5_3_3_4_7_mqtt311_3_3_5_2_mqtt_4_3_3_9_a_topic_of_the_server_is_not_for_clients_to_publish_to() {
    // `$SYS` is the server's. The answer is the normal one in 3.x, which has no other, and "not authorized" or
    // "topic name invalid" in MQTT 5; in no version does the message reach anyone.
    each_version(|b, v| {
        let topic = format!("$SYS/broker/{}", name("t"));
        let mut witness = Client::fresh(b, v);
        witness.subscribe(&topic, 2);
        let mut client = Client::fresh(b, v);
        client.send_publish(&Publish::new(&*topic, "forged"));
        for qos in [1, 2] {
            client.send_publish(&Publish::new(&*topic, "forged").qos(qos, 9));
            let code = client.expect_ack(if qos == 1 { PUBACK } else { PUBREC }, 9).code;
            assert!(v != V5 || [0x87, 0x90].contains(&code), "{code:#04x}");
            if code < 0x80 && qos == 2 {
                client.ack(PUBREL, 9);
                client.expect_ack(PUBCOMP, 9);
            }
        }
        // After a refusal the identifier stands for a new message.
        let other = name("t");
        witness.subscribe(&other, 2);
        client.send_publish(&Publish::new(&*other, "new").qos(2, 9));
        assert!(client.expect_ack(PUBREC, 9).code < 0x80);
        assert_eq!(witness.expect_publish().text(), "new");
        witness.ping();
    });
}
