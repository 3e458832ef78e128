//! DISCONNECT and AUTH (3.14, 3.15, 4.12).

use crate::support::client::PATIENCE;
use crate::support::encode::{self, packet};
use crate::support::property::block;
use crate::support::*;

#[test]
fn u5_3_14_4_1_u311_3_14_4_1_mqtt_3_14_4_2_the_broker_closes_after_disconnect() {
    each_version(|b, v| {
        let mut client = Client::fresh(b, v);
        client.send(encode::DISCONNECT);
        client.expect_closed();
    });
}

#[test]
fn u5_3_14_2_1_disconnect_has_three_forms() {
    each(|b| {
        let topic = name("w");
        let mut witness = Client::fresh(b, V5);
        witness.subscribe(&topic, 0);
        for bytes in [
            packet(0xE0, []),
            packet(0xE0, [0]),
            packet(0xE0, [0, 0]),
            encode::disconnect(
                0,
                &[Property::ReasonString("done".into()), Property::User("a".into(), "b".into())],
            ),
        ] {
            let mut client =
                Client::accepted(b, &Connect::new(V5, name("c")).will(Will::new(&topic, "will")));
            client.send(bytes);
            client.expect_closed();
        }
        witness.expect_quiet();
    });
}

#[test]
fn mqtt_3_14_4_1_mqtt311_3_14_4_2_what_follows_disconnect_is_ignored() {
    each_version(|b, v| {
        let topic = name("t");
        let mut witness = Client::fresh(b, v);
        witness.subscribe(&topic, 0);
        let mut client = Client::fresh(b, v);
        let publish = Publish::new(&*topic, "too late").retain().bytes(v);
        client.send([&encode::DISCONNECT[..], &publish, &encode::PINGREQ].concat());
        client.expect_closed();
        witness.expect_quiet();
        let mut late = Client::fresh(b, v);
        late.subscribe(&topic, 0);
        late.expect_quiet();
    });
}

#[test]
fn mqtt_3_14_4_1_nothing_follows_the_brokers_own_disconnect() {
    each(|b| {
        // The packets behind the broken one would be answered, if they were read.
        let topic = name("t");
        let mut client = Client::fresh(b, V5);
        client.subscribe(&topic, 0);
        let broken = Publish::new("", "x").bytes(V5);
        let more = Publish::new(&*topic, "x").qos(1, 3).bytes(V5);
        client.send([&encode::PINGREQ[..], &broken, &encode::PINGREQ, &more].concat());
        assert_eq!(client.expect_packet(), Packet::Pingresp);
        client.expect_refused(&[0x82]);
    });
}

#[test]
fn mqtt_3_14_1_1_mqtt311_3_14_1_1_the_flags_are_checked_and_the_will_goes_out() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("w");
        let mut witness = Client::fresh(b, v);
        witness.subscribe(&topic, 0);
        for flags in 1..16 {
            let mut client = Client::accepted(b, &Connect::new(v, name("c")).will(Will::new(&topic, "will")));
            client.send([0xE0 | flags, 0]);
            client.expect_refused(&[0x81]);
            assert_eq!(witness.expect_publish().text(), "will");
        }
    });
}

#[test]
fn mqtt_3_14_2_1_codes_that_a_client_may_not_send_are_refused() {
    // The standard names no code for it; ringmq calls it a protocol error.
    each(|b| {
        for code in [0x01, 0x02, 0x10, 0x18, 0x7F, 0x84, 0x86, 0x87, 0x8B, 0x8D, 0x8E, 0x8F, 0x9C, 0xA2, 0xFF]
        {
            refuse(b, V5, &format!("{code:#04x}"), encode::disconnect(code, &[]), &[0x82]);
        }
    });
}

#[test]
fn u5_3_14_2_5_a_server_reference_of_a_client_is_refused() {
    // It has no meaning there. ringmq takes it for what it is, a property in the wrong hands.
    each(|b| {
        let bytes = encode::disconnect(0, &[Property::ServerReference("elsewhere".into())]);
        refuse(b, V5, "Server Reference", bytes, &[0x82]);
    });
}

#[test]
fn mqtt_3_14_2_2_the_brokers_disconnect_has_no_session_expiry() {
    // The strict decoder refuses it; these are the ways to be sent a DISCONNECT.
    each(|b| {
        let id = name("c");
        let connect = Connect::new(V5, &id).resume().with(Property::SessionExpiry(60));
        let mut taken = Client::accepted(b, &connect);
        let mut broken = Client::accepted(b, &connect);
        taken.expect_refused(&[0x8E]);
        broken.send(Publish::new("", "x").bytes(V5));
        broken.expect_refused(&[0x82]);
        let mut silent = Client::accepted(b, &Connect::new(V5, &id).keep_alive_s(1).resume());
        silent.expect_refused(&[0x8D]);
    });
}

#[test]
fn mqtt_3_14_2_3_mqtt_3_14_2_4_the_brokers_disconnect_fits_a_small_maximum_packet_size() {
    each(|b| {
        for bytes in [Publish::new("", "x").bytes(V5), vec![0xC1, 0], encode::auth(0x18, &[])] {
            let (mut client, _) = super::acks::small(b);
            client.send(bytes);
            client.expect_refused(&[0x81, 0x82]);
        }
    });
}

#[test]
fn mqtt_3_14_0_1_before_connack_there_is_no_disconnect() {
    // The rules of the client refuse a DISCONNECT in front of CONNACK.
    each(|b| {
        for bytes in [
            Connect::new(V5, name("c")).flags(0x03).bytes(),
            packet(0x10, []),
            vec![0x30, 0x00],
            vec![0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
            Connect::new(V5, name("c")).with(Property::AuthMethod("m".into())).bytes(),
        ] {
            let mut client = Client::open(b, V5);
            client.send(bytes);
            match client.next(PATIENCE) {
                Event::Closed => {}
                Event::Packet(Packet::Connack(connack)) if connack.code >= 0x80 => client.expect_closed(),
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn u311_3_14_1_there_is_no_disconnect_from_the_broker_in_3_x() {
    each_of(&[V311, V31], |b, v| {
        let id = name("c");
        let mut taken = Client::accepted(b, &Connect::new(v, &id));
        let mut silent = Client::accepted(b, &Connect::new(v, &id).keep_alive_s(1));
        taken.expect_closed();
        silent.expect_closed();
        refuse(b, v, "an empty topic", Publish::new("", "x").bytes(v), &[]);
    });
}

#[test]
fn mqtt_4_12_0_1_mqtt_3_1_2_30_a_connect_with_a_method_is_refused_since_none_is_configured() {
    each(|b| {
        for method in ["SCRAM-SHA-1", "GS2-KRB5", "x", ""] {
            let connect = Connect::new(V5, name("c"))
                .with(Property::AuthMethod(method.into()))
                .with(Property::AuthData(vec![1, 2]));
            refuse_first(b, V5, method, connect.bytes(), &[0x8C]);
        }
    });
}

#[test]
fn mqtt_4_12_0_7_u5_3_15_0_1_auth_without_a_method_in_connect_is_refused() {
    each(|b| {
        let method = Property::AuthMethod("m".into());
        refuse(b, V5, "continue", encode::auth(0x18, std::slice::from_ref(&method)), &[0x82]);
        refuse(b, V5, "re-authenticate", encode::auth(0x19, &[method]), &[0x82]);
    });
}

#[test]
fn u5_3_15_2_1_u5_3_15_2_2_mqtt_3_15_2_1_auth_without_a_method_or_with_another_code_is_refused() {
    each(|b| {
        refuse(b, V5, "no properties", packet(0xF0, [0x18, 0]), &[0x82]);
        refuse(b, V5, "data alone", encode::auth(0x18, &[Property::AuthData(vec![1])]), &[0x82]);
        refuse(b, V5, "empty", packet(0xF0, []), &[0x82]);
        refuse(b, V5, "no property length", packet(0xF0, [0x18]), &[0x81]);
        for code in [0x00, 0x01, 0x17, 0x1A, 0x80, 0xFF] {
            let auth = encode::auth(code, &[Property::AuthMethod("m".into())]);
            refuse(b, V5, &format!("{code:#04x}"), auth, &[0x82]);
        }
    });
}

#[test]
fn mqtt_4_12_0_6_the_broker_sends_no_auth_of_its_own() {
    each(|b| {
        let mut client = Client::fresh(b, V5);
        let topic = name("t");
        client.subscribe(&topic, 2);
        client.say(&topic, "x", 2);
        client.expect_publish_acked();
        client.expect_quiet();
    });
}

#[test]
fn u5_4_13_1_mqtt_4_13_1_1_mqtt_4_13_2_1_mqtt311_4_8_0_1_an_error_closes_the_connection() {
    each_of(&[V5, V311], |b, v| {
        refuse(b, v, "malformed", [0xC1, 0], &[0x81]);
        refuse(b, v, "protocol error", Publish::new("", "x").bytes(v), &[0x82]);
        if v == V5 {
            let alias = Publish::new("t", "x").with(Property::TopicAlias(0));
            refuse(b, v, "a code of its own", alias.bytes(v), &[0x94]);
        }
    });
}

#[test]
fn u5_4_13_2_u311_4_8_1_an_error_of_one_client_disturbs_no_other() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("t");
        let mut subscriber = Client::fresh(b, v);
        subscriber.subscribe(&topic, 1);
        let mut publisher = Client::fresh(b, v);
        for round in 0..20 {
            refuse(b, v, "malformed", [0xC1, 0], &[0x81]);
            publisher.say(&topic, round.to_string(), 1);
            assert_eq!(subscriber.expect_texts(1), [round.to_string()]);
        }
        subscriber.expect_quiet();
    });
}

#[test]
fn u5_4_13_3_of_several_errors_any_is_reported() {
    each(|b| {
        // Reserved flags, an empty topic and a property that may not be there.
        let body = [&[0, 0][..], &block(&[Property::ReceiveMaximum(1)])].concat();
        refuse(b, V5, "three faults", packet(0x36, body), &[0x81, 0x82]);
    });
}

#[test]
fn u5_4_13_4_an_error_code_in_an_acknowledgement_concerns_that_packet_only() {
    each(|b| {
        let topic = name("t");
        let mut client = Client::fresh(b, V5);
        client.subscribe(&topic, 2);
        let mut publisher = Client::fresh(b, V5);
        for code in [0x80, 0x83, 0x87, 0x90, 0x97, 0x99] {
            for qos in [1, 2] {
                publisher.say(&topic, "x", qos);
                let got = client.expect_publish();
                client.ack_code(if qos == 1 { encode::PUBACK } else { encode::PUBREC }, got.packet_id, code);
            }
        }
        client.expect_quiet();
        publisher.say(&topic, "goes on", 1);
        assert_eq!(client.expect_texts(1), ["goes on"]);
    });
}
