//! Message Expiry (3.3.2.3.3, 4.3.3).

use std::thread::sleep;
use std::time::Duration;

use crate::support::encode::{PUBACK, PUBCOMP, PUBREC, PUBREL};
use crate::support::*;

/// A little more than one and a half seconds: past a second, with room for a machine that is busy.
const PAST_ONE: Duration = Duration::from_millis(2100);

fn expiring(topic: &str, text: &str, qos: u8, seconds: u32) -> Publish {
    Publish::new(topic, text).qos(qos, u16::from(qos)).with(Property::MessageExpiry(seconds))
}

/// A stored session subscribed at QoS 2, and the topic.
fn away(broker: &Broker, version: Version) -> (Connect, String) {
    let topic = name("t");
    let connect = Connect::new(version, name("c")).persistent();
    let mut client = Client::accepted(broker, &connect);
    client.subscribe(&topic, 2);
    client.disconnect();
    (connect, topic)
}

#[test]
fn mqtt_3_3_2_5_a_message_that_expired_while_it_waited_is_deleted() {
    each_of(&[V5, V311], |b, v| {
        let (connect, topic) = away(b, v);
        let mut publisher = Client::fresh(b, V5);
        for qos in [1, 2] {
            publisher.publish(&expiring(&topic, "short", qos, 1));
            publisher.publish(&expiring(&topic, "long", qos, 60));
        }
        publisher.say(&topic, "for ever", 1);
        sleep(PAST_ONE);
        let mut client = Client::accepted(b, &connect);
        assert_eq!(client.expect_texts(3), ["long", "long", "for ever"]);
        client.expect_quiet();
    });
}

#[test]
fn mqtt_3_3_2_5_a_message_that_waits_for_quota_expires_too() {
    each(|b| {
        let topic = name("t");
        let mut client = Client::accepted(b, &Connect::new(V5, name("c")).with(Property::ReceiveMaximum(1)));
        client.subscribe(&topic, 1);
        let mut publisher = Client::fresh(b, V5);
        publisher.say(&topic, "in flight", 1);
        publisher.publish(&expiring(&topic, "waits too long", 1, 1));
        publisher.say(&topic, "waits", 1);
        let first = client.expect_publish();
        sleep(PAST_ONE);
        client.ack(PUBACK, first.packet_id);
        assert_eq!(client.expect_texts(1), ["waits"]);
        client.expect_quiet();
    });
}

#[test]
fn mqtt_3_3_2_6_the_interval_is_reduced_by_the_time_that_was_waited() {
    each(|b| {
        let (connect, topic) = away(b, V5);
        let mut publisher = Client::fresh(b, V5);
        publisher.publish(&expiring(&topic, "x", 1, 100));
        sleep(PAST_ONE);
        let mut client = Client::accepted(b, &connect);
        let left = client.expect_publish_acked().expiry_s().expect("an interval");
        assert!((96..=98).contains(&left), "{left}");
        // A message that did not wait has its interval as it was, or a second less where one began.
        publisher.publish(&expiring(&topic, "x", 1, 100));
        let left = client.expect_publish_acked().expiry_s().expect("an interval");
        assert!((99..=100).contains(&left), "{left}");
    });
}

#[test]
fn u5_3_3_2_4_without_an_interval_none_is_added_and_nothing_expires() {
    each(|b| {
        let (connect, topic) = away(b, V5);
        let mut publisher = Client::fresh(b, V5);
        publisher.say(&topic, "queued", 1);
        sleep(Duration::from_millis(1200));
        let mut client = Client::accepted(b, &connect);
        assert_eq!(client.expect_publish_acked().expiry_s(), None);
        publisher.say(&topic, "live", 1);
        assert_eq!(client.expect_publish_acked().expiry_s(), None);
    });
}

#[test]
fn mqtt_4_3_3_7_a_message_that_was_sent_does_not_expire() {
    each(|b| {
        let topic = name("t");
        let connect = Connect::new(V5, name("c")).persistent();
        let mut client = Client::accepted(b, &connect);
        client.subscribe(&topic, 2);
        let mut publisher = Client::fresh(b, V5);
        publisher.publish(&expiring(&topic, "at 1", 1, 1));
        publisher.publish(&expiring(&topic, "at 2", 2, 1));
        let sent = [(); 2].map(|()| client.expect_publish().packet_id);
        client.cut();
        sleep(PAST_ONE);
        let mut client = Client::accepted(b, &connect);
        for (id, text) in sent.into_iter().zip(["at 1", "at 2"]) {
            let again = client.expect_publish_acked();
            assert_eq!((again.packet_id, again.dup, again.text().as_str()), (id, true, text));
        }
    });
}

#[test]
fn mqtt_4_3_3_13_the_handshake_of_an_expired_message_is_finished() {
    each(|b| {
        let topic = name("t");
        let mut client = Client::fresh(b, V5);
        client.subscribe(&topic, 2);
        let mut publisher = Client::fresh(b, V5);
        publisher.send_publish(&expiring(&topic, "x", 2, 1));
        publisher.expect_ack(PUBREC, 2);
        let got = client.expect_publish();
        sleep(PAST_ONE);
        // Both directions, long after the second has passed.
        publisher.ack(PUBREL, 2);
        assert_eq!(publisher.expect_ack(PUBCOMP, 2).code, 0);
        client.ack(PUBREC, got.packet_id);
        assert_eq!(client.expect_ack(PUBREL, got.packet_id).code, 0);
        client.ack(PUBCOMP, got.packet_id);
        client.expect_quiet();
    });
}
