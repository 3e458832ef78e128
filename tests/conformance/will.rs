//! Wills: when they go out, as what, and when not (3.1.2.5, 3.1.3.2, 3.14).

use std::time::{Duration, Instant};

use crate::support::encode::{self, PUBACK};
use crate::support::*;

/// A subscriber to a topic of its own.
fn witness(broker: &Broker, version: Version) -> (Client, String) {
    let topic = name("w");
    let mut client = Client::fresh(broker, version);
    client.subscribe(&topic, 2);
    (client, topic)
}

#[test]
fn mqtt_3_1_2_7_mqtt_3_1_2_8_u5_3_14_1_mqtt311_3_1_2_8_a_will_goes_out_when_the_connection_is_lost() {
    each_version(|b, v| {
        let (mut witness, topic) = witness(b, v);
        let mortal =
            |text: &str| Client::accepted(b, &Connect::new(v, name("c")).will(Will::new(&topic, text)));
        mortal("end of stream").cut();
        assert_eq!(witness.expect_publish().text(), "end of stream");
        mortal("reset").reset();
        assert_eq!(witness.expect_publish().text(), "reset");
        let mut client = mortal("closed by the broker");
        client.send(Publish::new("", "x").bytes(v));
        client.expect_refused(&[0x82]);
        assert_eq!(witness.expect_publish().text(), "closed by the broker");
        witness.expect_quiet();
    });
}

#[test]
fn mqtt_3_1_2_10_mqtt311_3_1_2_10_a_will_goes_out_once() {
    each_version(|b, v| {
        let (mut witness, topic) = witness(b, v);
        let id = name("c");
        let mut connect = Connect::new(v, &id).will(Will::new(&topic, "once"));
        if v == V5 {
            connect = connect.with(Property::SessionExpiry(60));
        }
        Client::accepted(b, &connect).cut();
        assert_eq!(witness.expect_publish().text(), "once");
        // The same client again, without a will: neither its return nor its loss repeats the old one.
        Client::accepted(b, &Connect::new(v, &id).resume()).cut();
        witness.expect_quiet();
    });
}

#[test]
fn mqtt_3_1_2_10_mqtt_3_14_4_3_mqtt311_3_1_2_10_mqtt311_3_14_4_3_disconnect_removes_the_will() {
    each_version(|b, v| {
        let (mut witness, topic) = witness(b, v);
        Client::accepted(b, &Connect::new(v, name("c")).will(Will::new(&topic, "never"))).disconnect();
        if v == V5 {
            let mut client =
                Client::accepted(b, &Connect::new(v, name("c")).will(Will::new(&topic, "never")));
            client.send(encode::disconnect(0, &[]));
            client.expect_closed();
        }
        witness.expect_quiet();
        std::thread::sleep(Duration::from_millis(200));
        witness.expect_quiet();
    });
}

#[test]
fn mqtt311_3_1_2_12_without_a_will_nothing_goes_out() {
    each_version(|b, v| {
        let mut all = Client::fresh(b, v);
        let topic = name("w");
        all.subscribe(&format!("{topic}/#"), 0);
        let client = Client::accepted(b, &Connect::new(v, &topic));
        client.cut();
        all.expect_quiet();
    });
}

#[test]
fn u5_3_14_2_2_any_other_reason_than_0_lets_the_will_go_out() {
    each(|b| {
        let (mut witness, topic) = witness(b, V5);
        for code in [0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99] {
            let text = format!("{code:#04x}");
            let mut client = Client::accepted(b, &Connect::new(V5, name("c")).will(Will::new(&topic, &text)));
            client.send(encode::disconnect(code, &[]));
            client.expect_closed();
            assert_eq!(witness.expect_publish().text(), text);
        }
    });
}

#[test]
fn mqtt_3_1_2_14_mqtt311_3_1_2_16_a_will_without_retain_is_not_stored() {
    each_version(|b, v| {
        let (mut witness, topic) = witness(b, v);
        Client::accepted(b, &Connect::new(v, name("c")).will(Will::new(&topic, "plain"))).cut();
        let got = witness.expect_publish();
        assert_eq!((got.text().as_str(), got.retain), ("plain", false));
        let mut late = Client::fresh(b, v);
        late.subscribe(&topic, 0);
        late.expect_quiet();
    });
}

#[test]
fn mqtt_3_1_2_15_mqtt311_3_1_2_17_a_will_with_retain_is_stored() {
    each_version(|b, v| {
        let (mut witness, topic) = witness(b, v);
        Client::accepted(b, &Connect::new(v, name("c")).will(Will::new(&topic, "kept").qos(1).retain()))
            .cut();
        let got = witness.expect_publish_acked();
        assert_eq!((got.text().as_str(), got.retain), ("kept", false), "as a live message");
        let mut late = Client::fresh(b, v);
        late.subscribe(&topic, 1);
        let got = late.expect_publish_acked();
        assert_eq!((got.text().as_str(), got.retain, got.qos), ("kept", true, 1));
        // An empty will with RETAIN clears the topic, as an empty message does.
        Client::accepted(b, &Connect::new(v, name("c")).will(Will::new(&topic, "").retain())).cut();
        assert!(witness.expect_publish().payload.is_empty());
        let mut later = Client::fresh(b, v);
        later.subscribe(&topic, 0);
        later.expect_quiet();
    });
}

#[test]
fn mqtt_3_1_2_7_mqtt_3_3_1_5_a_will_has_its_own_qos() {
    each_version(|b, v| {
        let (mut witness, topic) = witness(b, v);
        for qos in 0..=2 {
            Client::accepted(b, &Connect::new(v, name("c")).will(Will::new(&topic, "x").qos(qos))).cut();
            let got = witness.expect_publish_acked();
            assert_eq!((got.qos, got.dup), (qos, false));
        }
    });
}

#[test]
fn mqtt_3_1_3_10_u5_3_1_3_3_the_properties_of_a_will_go_out_with_it() {
    each(|b| {
        let (mut witness, topic) = witness(b, V5);
        let forwarded = [
            Property::PayloadFormat(1),
            Property::ContentType("text/plain".into()),
            Property::ResponseTopic("answer".into()),
            Property::CorrelationData(vec![0, 255]),
            Property::User("b".into(), "1".into()),
            Property::User("a".into(), "2".into()),
            Property::User("b".into(), "3".into()),
            Property::User("b".into(), "1".into()),
        ];
        let mut will = Will::new(&topic, "x").with(Property::WillDelay(0)).with(Property::MessageExpiry(60));
        will.properties.extend(forwarded.clone());
        Client::accepted(b, &Connect::new(V5, name("c")).will(will)).cut();
        let got = witness.expect_publish();
        assert!(got.expiry_s().is_some_and(|s| (59..=60).contains(&s)), "{got:?}");
        let user = |list: &[Property]| -> Vec<Property> {
            list.iter().filter(|p| p.id() == 0x26).cloned().collect()
        };
        assert_eq!(user(&got.properties), user(&forwarded), "[MQTT-3.1.3-10] order");
        let mut others: Vec<_> =
            got.properties.into_iter().filter(|p| p.id() != 0x26 && p.id() != 0x02).collect();
        others.sort_by_key(Property::id);
        assert_eq!(others, forwarded[..4], "Will Delay is not forwarded, all else is");
    });
}

#[test]
fn u5_3_1_3_5_the_payload_format_of_a_will_is_0_or_1() {
    each(|b| {
        let will = Will::new("w", "x").with(Property::PayloadFormat(2));
        refuse_first(b, V5, "payload format 2", Connect::new(V5, name("c")).will(will).bytes(), &[0x82]);
    });
}

#[test]
fn u5_3_1_3_4_the_payload_of_a_will_is_not_looked_into() {
    // A server may refuse a payload that is not what its indicator says. ringmq forwards payloads unread.
    each(|b| {
        let (mut witness, topic) = witness(b, V5);
        let will = Will::new(&topic, b"\xFF\xFE").with(Property::PayloadFormat(1));
        Client::accepted(b, &Connect::new(V5, name("c")).will(will)).cut();
        assert_eq!(witness.expect_publish().payload, b"\xFF\xFE");
    });
}

/// A CONNECT with a will that waits, and a session that waits longer.
fn delayed(id: &str, topic: &str, delay_s: u32, expiry_s: u32) -> Connect {
    Connect::new(V5, id)
        .resume()
        .with(Property::SessionExpiry(expiry_s))
        .will(Will::new(topic, "late").with(Property::WillDelay(delay_s)))
}

#[test]
fn u5_3_1_3_1_mqtt_3_1_2_8_a_will_waits_for_its_delay() {
    each(|b| {
        let (mut witness, topic) = witness(b, V5);
        let begin = Instant::now();
        Client::accepted(b, &delayed(&name("c"), &topic, 1, 60)).cut();
        witness.expect_quiet();
        assert_eq!(witness.expect_publish().text(), "late");
        let waited = begin.elapsed();
        assert!(waited >= Duration::from_millis(950) && waited < Duration::from_secs(4), "after {waited:?}");
    });
}

#[test]
fn u5_3_1_3_1_the_end_of_the_session_ends_the_delay() {
    each(|b| {
        let (mut witness, topic) = witness(b, V5);
        let begin = Instant::now();
        Client::accepted(b, &delayed(&name("c"), &topic, 600, 1)).cut();
        assert_eq!(witness.expect_publish().text(), "late");
        let waited = begin.elapsed();
        assert!(waited >= Duration::from_millis(950) && waited < Duration::from_secs(4), "after {waited:?}");
        // Without an expiry the session ends with the connection, and so does the delay.
        Client::accepted(b, &delayed(&name("c"), &topic, 600, 0)).cut();
        assert_eq!(witness.expect_publish().text(), "late");
    });
}

#[test]
fn mqtt_3_1_3_9_mqtt_3_1_2_8_who_comes_back_within_the_delay_cancels_the_will() {
    each(|b| {
        let (mut witness, topic) = witness(b, V5);
        let id = name("c");
        Client::accepted(b, &delayed(&id, &topic, 1, 60)).cut();
        let (mut client, connack) =
            Client::connect(b, &Connect::new(V5, &id).resume().with(Property::SessionExpiry(60)));
        assert!(connack.session_present);
        std::thread::sleep(Duration::from_millis(1600));
        witness.expect_quiet();
        client.ping();
    });
}

#[test]
fn u5_3_1_3_2_a_takeover_of_a_session_with_a_waiting_will_sends_none() {
    each(|b| {
        let (mut witness, topic) = witness(b, V5);
        let id = name("c");
        let mut older = Client::accepted(b, &delayed(&id, &topic, 1, 60));
        let newer = Connect::new(V5, &id).resume().with(Property::SessionExpiry(60));
        let mut newer = Client::accepted(b, &newer);
        older.expect_refused(&[0x8E]);
        std::thread::sleep(Duration::from_millis(1600));
        witness.expect_quiet();
        newer.ping();
    });
}

#[test]
fn u5_3_1_4_3_u5_3_1_3_2_a_takeover_sends_the_will_if_nothing_makes_it_wait() {
    each(|b| {
        let (mut witness, topic) = witness(b, V5);
        let cases = [
            ("no delay", delayed("", &topic, 0, 60), true),
            ("no session to wait for", delayed("", &topic, 600, 0), true),
            ("Clean Start ends the session", delayed("", &topic, 600, 60), false),
        ];
        for (label, mut connect, resumes) in cases {
            let id = name("c");
            connect.client_id = id.clone().into_bytes();
            let mut older = Client::accepted(b, &connect);
            let newer = Connect::new(V5, &id);
            let mut newer = Client::accepted(b, &if resumes { newer.resume() } else { newer });
            older.expect_refused(&[0x8E]);
            assert_eq!(witness.expect_publish().text(), "late", "{label}");
            newer.ping();
        }
        witness.expect_quiet();
    });
}

#[test]
fn mqtt311_3_1_4_2_a_takeover_sends_the_will_in_3_1_1() {
    each_of(&[V311, V31], |b, v| {
        let (mut witness, topic) = witness(b, v);
        for resume in [false, true] {
            let id = name("c");
            let older = Connect::new(v, &id).will(Will::new(&topic, "taken over"));
            let newer = Connect::new(v, &id);
            let (older, newer) = if resume { (older.resume(), newer.resume()) } else { (older, newer) };
            let mut older = Client::accepted(b, &older);
            let mut newer = Client::accepted(b, &newer);
            older.expect_closed();
            assert_eq!(witness.expect_publish().text(), "taken over");
            newer.ping();
        }
    });
}

#[test]
fn mqtt_3_1_2_10_a_disconnect_in_front_of_a_takeover_removes_the_will() {
    // The DISCONNECT is in the broker's socket before the CONNECT that takes over is sent.
    each_of(&[V5, V311], |b, v| {
        let (mut witness, topic) = witness(b, v);
        for round in 0..20 {
            let id = name("c");
            let mut older =
                Client::accepted(b, &Connect::new(v, &id).will(Will::new(&topic, format!("{round}"))));
            older.send(encode::DISCONNECT);
            let mut newer = Client::accepted(b, &Connect::new(v, &id));
            older.expect_closed();
            newer.ping();
        }
        witness.expect_quiet();
    });
}

#[test]
fn mqtt_3_1_2_8_a_will_reaches_sessions_that_are_away() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("w");
        let away = Connect::new(v, name("c")).persistent();
        let mut client = Client::accepted(b, &away);
        client.subscribe(&topic, 1);
        client.disconnect();
        Client::accepted(b, &Connect::new(v, name("c")).will(Will::new(&topic, "for later").qos(1))).cut();
        let mut client = Client::accepted(b, &away);
        let got = client.expect_publish();
        assert_eq!(got.text(), "for later");
        client.ack(PUBACK, got.packet_id);
    });
}
