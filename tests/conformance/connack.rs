//! Chapter 3.2: CONNACK.

use std::time::{Duration, Instant};

use crate::support::client::PATIENCE;
use crate::support::encode;
use crate::support::*;

#[test]
fn mqtt_3_1_4_5_mqtt311_3_1_4_4_mqtt311_3_2_0_1_an_accepted_connect_is_answered_with_code_0() {
    each_version(|b, v| {
        let (mut client, connack) = Client::connect(b, &Connect::new(v, name("c")));
        assert_eq!((connack.code, connack.session_present), (0, false));
        client.ping();
    });
}

#[test]
fn mqtt_3_2_0_1_mqtt311_3_2_0_1_connack_comes_before_queued_messages() {
    each_version(|b, v| {
        let topic = name("t");
        let connect = Connect::new(v, name("c")).persistent();
        let mut client = Client::accepted(b, &connect);
        client.subscribe(&topic, 1);
        client.disconnect();
        let mut publisher = Client::fresh(b, v);
        for number in 0..20 {
            publisher.say(&topic, number.to_string(), 1);
        }
        // The client's rules refuse anything in front of CONNACK.
        let mut client = Client::accepted(b, &connect);
        assert_eq!(client.expect_texts(20), (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    });
}

#[test]
fn mqtt_3_2_0_2_there_is_one_connack_whatever_happens_later() {
    each_of(&[V5, V311], |b, v| {
        let connect = Connect::new(v, name("c"));
        let mut client = Client::accepted(b, &connect);
        client.ping();
        client.send(connect.bytes());
        loop {
            match client.next(PATIENCE) {
                Event::Closed => break,
                Event::Packet(Packet::Disconnect(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn u311_3_2_2_1_mqtt_3_2_2_1_connack_has_its_exact_form() {
    each(|b| {
        for v in [V311, V31] {
            let mut client = Client::open(b, v);
            client.send([Connect::new(v, name("c")).bytes(), encode::DISCONNECT.to_vec()].concat());
            assert_eq!(client.raw_until_closed(), [0x20, 0x02, 0x00, 0x00]);
        }
        let mut client = Client::open(b, V5);
        client.send([Connect::new(V5, name("c")).bytes(), encode::DISCONNECT.to_vec()].concat());
        let raw = client.raw_until_closed();
        assert_eq!((raw[0], raw[2], raw[3]), (0x20, 0x00, 0x00), "{raw:02x?}");
        assert_eq!(usize::from(raw[1]) + 2, raw.len());
    });
}

#[test]
fn mqtt_3_2_2_1_mqtt_3_2_2_3_mqtt311_3_2_2_2_the_flags_of_a_resumed_session_are_1() {
    each_of(&[V5, V311], |b, v| {
        let connect = Connect::new(v, name("c")).persistent();
        Client::accepted(b, &connect).disconnect();
        let mut client = Client::open(b, v);
        client.send([connect.bytes(), encode::DISCONNECT.to_vec()].concat());
        let raw = client.raw_until_closed();
        assert_eq!((raw[0], raw[2], raw[3]), (0x20, 0x01, 0x00), "{raw:02x?}");
    });
}

#[test]
fn mqtt_3_2_2_2_mqtt311_3_2_2_1_clean_start_has_no_session_present() {
    each_of(&[V5, V311], |b, v| {
        let id = name("c");
        Client::accepted(b, &Connect::new(v, &id).persistent()).disconnect();
        let (_client, connack) = Client::connect(b, &Connect::new(v, &id));
        assert_eq!((connack.code, connack.session_present), (0, false));
    });
}

#[test]
fn mqtt_3_2_2_3_mqtt311_3_2_2_3_session_present_tells_whether_there_was_a_session() {
    each_of(&[V5, V311], |b, v| {
        let connect = Connect::new(v, name("c")).persistent();
        let (client, connack) = Client::connect(b, &connect);
        assert_eq!((connack.code, connack.session_present), (0, false));
        client.disconnect();
        let (client, connack) = Client::connect(b, &connect);
        assert_eq!((connack.code, connack.session_present), (0, true));
        client.cut();
        assert!(Client::connect(b, &connect).1.session_present);
    });
}

#[test]
fn v31_3_connack_of_3_1_has_no_session_present() {
    each(|b| {
        let connect = Connect::new(V31, name("c")).persistent();
        let topic = name("t");
        let mut client = Client::accepted(b, &connect);
        client.subscribe(&topic, 1);
        client.disconnect();
        Client::fresh(b, V31).say(&topic, "kept", 1);
        let (mut client, connack) = Client::connect(b, &connect);
        assert!(!connack.session_present);
        assert_eq!(client.expect_publish_acked().text(), "kept");
    });
}

#[test]
fn mqtt_3_2_2_6_mqtt311_3_2_2_4_a_refusal_has_no_session_present() {
    each(|b| {
        // A session that is there, and a CONNECT for it that is refused.
        let id = name("c");
        Client::accepted(b, &Connect::new(V5, &id).persistent()).disconnect();
        let refused = Connect::new(V5, &id).persistent().with(Property::ReceiveMaximum(0));
        let (mut client, connack) = Client::connect(b, &refused);
        assert_eq!((connack.code, connack.session_present), (0x82, false));
        client.expect_closed();
        let (mut client, connack) = Client::connect(b, &Connect::new(V311, "").resume());
        assert_eq!((connack.code, connack.session_present), (2, false));
        client.expect_closed();
        assert!(
            Client::connect(b, &Connect::new(V5, &id).resume()).1.session_present,
            "the session is untouched"
        );
    });
}

#[test]
fn mqtt_3_2_2_7_mqtt311_3_2_2_5_a_refusal_is_followed_by_a_close() {
    each(|b| {
        let cases = [
            (Connect::new(V5, name("c")).with(Property::ReceiveMaximum(0)), 0x82),
            (Connect::new(V5, name("c")).flags(0x03), 0x81),
            (Connect::new(V311, "").resume(), 2),
            (Connect::new(V31, ""), 2),
        ];
        for (connect, code) in cases {
            let (mut client, connack) = Client::connect(b, &connect);
            assert_eq!(connack.code, code);
            // At once, and not only when the time to say CONNECT is over.
            let begin = Instant::now();
            client.expect_closed();
            assert!(begin.elapsed() < Duration::from_secs(5), "closed after {:?}", begin.elapsed());
        }
    });
}

#[test]
fn mqtt_3_2_2_8_codes_of_refusals_are_those_of_the_table() {
    each(|b| {
        // The strict decoder knows the table; these are the ways to be refused that need no configuration.
        let method = Property::AuthMethod("unknown".into());
        for connect in [
            Connect::new(V5, name("c")).with(method),
            Connect::new(V5, name("c")).with(Property::MaximumPacketSize(0)),
            Connect::new(V5, name("c")).will(Will::new("a/#", "x")),
            Connect::new(V5, name("c")).will(Will::new("w", "x").with(Property::PayloadFormat(2))),
            Connect::new(V5, b"\xFF"),
        ] {
            let (mut client, connack) = Client::connect(b, &connect);
            assert!(connack.code >= 0x80, "{connack:?}");
            client.expect_closed();
        }
    });
}

#[test]
fn u5_3_2_2_2_everything_below_the_default_is_announced_and_holds() {
    each(|b| {
        let connack = Client::connect(b, &Connect::new(V5, name("c"))).1;
        for property in &connack.properties {
            match property {
                Property::ReceiveMaximum(max) => assert_eq!(*max, 1024),
                Property::TopicAliasMaximum(max) => assert!(*max > 0),
                Property::MaximumPacketSize(size) => {
                    assert!(*size >= 1 << 20, "{size} is less than a megabyte")
                }
                Property::RetainAvailable(yes)
                | Property::WildcardAvailable(yes)
                | Property::SubscriptionIdAvailable(yes)
                | Property::SharedAvailable(yes) => assert_eq!(*yes, 1),
                Property::MaximumQos(_) => panic!("QoS 2 is available"),
                other => panic!("nobody asked for {other:?}"),
            }
        }
        // The broker's Receive Maximum is below the default of the standard.
        assert!(connack.properties.contains(&Property::ReceiveMaximum(1024)), "{connack:?}");
    });
}

#[test]
fn mqtt_3_2_2_19_mqtt_3_2_2_20_connack_fits_the_maximum_packet_size_of_the_client() {
    each(|b| {
        // What is left without strings is a few bytes per announced limit; a refusal is five bytes.
        let refused = Connect::new(V5, name("c")).with(Property::MaximumPacketSize(5));
        let (mut client, connack) = Client::connect(b, &refused.with(Property::AuthMethod("unknown".into())));
        assert!(connack.code >= 0x80 && connack.properties.is_empty(), "{connack:?}");
        client.expect_closed();
        let connack =
            Client::connect(b, &Connect::new(V5, name("c")).with(Property::MaximumPacketSize(64))).1;
        assert_eq!(connack.code, 0);
    });
}

#[test]
fn mqtt_4_12_0_6_connack_names_no_method_if_connect_did_not() {
    each(|b| {
        let connack = Client::connect(b, &Connect::new(V5, name("c"))).1;
        let names =
            connack.properties.iter().any(|p| matches!(p, Property::AuthMethod(_) | Property::AuthData(_)));
        assert!(!names, "{connack:?}");
    });
}
