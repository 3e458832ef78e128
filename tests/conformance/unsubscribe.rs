//! UNSUBSCRIBE and UNSUBACK (3.10, 3.11).

use crate::support::encode::{self, PUBACK, PUBCOMP, PUBREC, PUBREL, packet, string};
use crate::support::*;

#[test]
fn mqtt_3_10_4_1_mqtt311_3_10_4_1_filters_are_compared_as_strings() {
    each_version(|b, v| {
        let base = name("t");
        let topic = format!("{base}/a");
        let mut client = Client::fresh(b, v);
        client.subscribe(&format!("{base}/+"), 0);
        let mut publisher = Client::fresh(b, v);
        let others =
            [topic.clone(), format!("{base}/#"), format!("{base}/+/"), format!("{}/+", base.to_uppercase())];
        for other in &others {
            let codes = client.unsubscribe(&[other]);
            assert!(v != V5 || codes == [0x11], "{other}: {codes:02x?}");
        }
        publisher.say(&topic, "still there", 0);
        assert_eq!(client.expect_publish().text(), "still there");
        let codes = client.unsubscribe(&[&format!("{base}/+")]);
        assert!(v != V5 || codes == [0]);
        publisher.say(&topic, "gone", 1);
        client.expect_quiet();
    });
}

#[test]
fn mqtt_3_10_4_2_mqtt311_3_10_4_2_nothing_new_comes_after_unsuback() {
    each_version(|b, v| {
        for round in 0..10 {
            let topic = name("t");
            let filter = if round % 2 == 0 { topic.clone() } else { format!("{topic}/#") };
            let mut client = Client::fresh(b, v);
            client.subscribe(&filter, 2);
            client.unsubscribe(&[&filter]);
            let mut publisher = Client::fresh(b, v);
            for qos in 0..=2 {
                publisher.say(&topic, "x", qos);
            }
            client.expect_quiet();
        }
    });
}

#[test]
fn mqtt_3_10_4_3_mqtt311_3_10_4_3_a_delivery_that_has_begun_is_finished() {
    each_version(|b, v| {
        let topic = name("t");
        let connect = Connect::new(v, name("c")).persistent();
        let mut client = Client::accepted(b, &connect);
        client.subscribe(&topic, 2);
        let mut publisher = Client::fresh(b, v);
        publisher.say(&topic, "at 1", 1);
        publisher.say(&topic, "at 2", 2);
        let one = client.expect_publish();
        let two = client.expect_publish();
        client.unsubscribe(&[&topic]);
        client.ack(PUBREC, two.packet_id);
        client.expect_ack(PUBREL, two.packet_id);
        client.cut();
        // Also over a reconnection: what is not acknowledged comes again.
        let mut client = Client::accepted(b, &connect);
        let mut again = Vec::new();
        for _ in 0..2 {
            match client.expect_packet() {
                Packet::Publish(publish) => again.push((publish.packet_id, publish.dup)),
                Packet::Pubrel(ack) => again.push((ack.packet_id, false)),
                other => panic!("{other:?}"),
            }
        }
        again.sort_unstable();
        let mut expected = vec![(one.packet_id, true), (two.packet_id, false)];
        expected.sort_unstable();
        assert_eq!(again, expected);
        client.ack(PUBACK, one.packet_id);
        client.ack(PUBCOMP, two.packet_id);
        client.expect_quiet();
    });
}

#[test]
fn mqtt_3_10_4_4_mqtt_3_10_4_5_mqtt311_3_10_4_4_mqtt311_3_10_4_5_every_unsubscribe_is_answered() {
    each_version(|b, v| {
        let mut client = Client::fresh(b, v);
        let burst: Vec<u8> =
            (1..=50).flat_map(|id| encode::unsubscribe(v, id, &[format!("never/{id}")])).collect();
        client.send(burst);
        for id in 1..=50 {
            match client.expect_packet() {
                Packet::Unsuback(unsuback) => assert_eq!(unsuback.packet_id, id),
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn u5_3_11_3_1_mqtt_3_10_4_5_the_code_tells_whether_there_was_a_subscription() {
    each(|b| {
        let topic = name("t");
        let mut client = Client::fresh(b, V5);
        assert_eq!(client.unsubscribe(&[&topic]), [0x11]);
        client.subscribe(&topic, 0);
        assert_eq!(client.unsubscribe(&[&topic]), [0x00]);
        assert_eq!(client.unsubscribe(&[&topic]), [0x11]);
    });
}

#[test]
fn mqtt_3_10_4_6_mqtt_3_11_3_1_mqtt_3_11_3_2_mqtt311_3_10_4_6_many_filters_act_like_many_packets() {
    each_version(|b, v| {
        let base = name("t");
        let mut client = Client::fresh(b, v);
        let [a, wild, shared] = [format!("{base}/a"), format!("{base}/+/b"), format!("$share/g/{base}/c")];
        client.subscribe_all(1, &[], &[(&a, 0), (&wild, 0), (&shared, 0)]);
        let codes = client.unsubscribe(&["never", &a, &shared, &a, "a/#/b", &wild]);
        if v == V5 {
            let refused = codes[4];
            assert_eq!(codes, [0x11, 0, 0, 0x11, refused, 0]);
            assert!([0x11, 0x8F].contains(&refused), "no filter, and no subscription: {refused:#04x}");
        }
        let mut publisher = Client::fresh(b, v);
        for topic in [&a, &format!("{base}/x/b"), &format!("{base}/c")] {
            publisher.say(topic, "x", 1);
        }
        client.expect_quiet();
    });
}

#[test]
fn mqtt_3_10_3_1_mqtt311_3_10_3_1_a_filter_must_be_utf8() {
    each_of(&[V5, V311], |b, v| {
        let properties: &[u8] = if v == V5 { &[0] } else { &[] };
        for filter in [&b"a\xFF"[..], b"\xED\xA0\x80", b"a\0b"] {
            let body = [&[0, 1], properties, &string("fine"), &string(filter)].concat();
            refuse(b, v, &format!("{filter:02x?}"), packet(0xA2, body), &[0x81]);
        }
    });
}

#[test]
fn mqtt_3_10_3_2_mqtt311_3_10_3_2_an_unsubscribe_without_a_filter_is_refused() {
    each_of(&[V5, V311], |b, v| {
        let none: &[&str] = &[];
        refuse(b, v, "empty", encode::unsubscribe(v, 1, none), &[0x82]);
    });
}

#[test]
fn mqtt_3_11_2_1_mqtt_3_11_2_2_unsuback_fits_a_small_maximum_packet_size() {
    each(|b| {
        let (mut client, topic) = super::acks::small(b);
        client.subscribe(&topic, 0);
        assert_eq!(client.unsubscribe(&["never", &topic, "never"]), [0x11, 0, 0x11]);
    });
}
