//! Each of the fifteen packet types in each state of a connection: before CONNECT, accepted, after DISCONNECT, and
//! as a second CONNECT. One legal example of each type; what is legal in itself may still be out of place.

use std::time::Duration;

use crate::support::client::PATIENCE;
use crate::support::encode::{self, PUBACK, PUBCOMP, PUBREC, PUBREL, packet};
use crate::support::*;

/// A well-formed packet of each type, 1 to 15 (and 0, which has no form), as (type, name, bytes).
fn one_of_each(version: Version) -> Vec<(u8, &'static str, Vec<u8>)> {
    let v5 = version == V5;
    let tail = |bytes: &[u8]| if v5 { bytes.to_vec() } else { Vec::new() };
    let topic = name("t");
    let mut all = vec![
        (1, "CONNECT", Connect::new(version, name("c")).bytes()),
        (2, "CONNACK", packet(0x20, [vec![0, 0], tail(&[0])].concat())),
        (3, "PUBLISH QoS 0", Publish::new(&*topic, "x").bytes(version)),
        (3, "PUBLISH QoS 1", Publish::new(&*topic, "x").qos(1, 9).bytes(version)),
        (3, "PUBLISH QoS 2", Publish::new(&*topic, "x").qos(2, 9).bytes(version)),
        (4, "PUBACK", encode::ack(PUBACK, 9)),
        (5, "PUBREC", encode::ack(PUBREC, 9)),
        (6, "PUBREL", encode::ack(PUBREL, 9)),
        (7, "PUBCOMP", encode::ack(PUBCOMP, 9)),
        (8, "SUBSCRIBE", encode::subscribe(version, 9, &[], &[(&topic, 0)])),
        (9, "SUBACK", packet(0x90, [vec![0, 9], tail(&[0]), vec![0]].concat())),
        (10, "UNSUBSCRIBE", encode::unsubscribe(version, 9, &[&topic])),
        (11, "UNSUBACK", packet(0xB0, [vec![0, 9], tail(&[0, 0])].concat())),
        (12, "PINGREQ", encode::PINGREQ.to_vec()),
        (13, "PINGRESP", vec![0xD0, 0]),
        (14, "DISCONNECT", encode::DISCONNECT.to_vec()),
    ];
    all.push((
        15,
        "AUTH",
        if v5 { encode::auth(0x18, &[Property::AuthMethod("m".into())]) } else { vec![0xF0, 0] },
    ));
    all.push((0, "type 0", vec![0, 0]));
    all
}

#[test]
fn mqtt_3_1_0_1_mqtt311_3_1_0_1_every_type_but_connect_before_connect() {
    each_version(|b, v| {
        for (kind, label, bytes) in one_of_each(v).into_iter().filter(|(kind, ..)| *kind != 1) {
            for _ in 0..2 {
                let mut client = Client::open(b, v);
                // A CONNECT behind it does not heal it.
                client.send([&bytes[..], &Connect::new(v, name("c")).bytes()].concat());
                let event = client.next(PATIENCE);
                assert_eq!(event, Event::Closed, "{v:?}: {label} ({kind}) before CONNECT");
            }
        }
    });
}

/// What an accepted connection makes of a packet that needs no earlier one.
enum Reaction {
    Answer(u8),
    Nothing,
    Closed,
    Refused(&'static [u8]),
}

fn reaction(version: Version, label: &str) -> Reaction {
    use Reaction::*;
    match label {
        "PUBLISH QoS 1" => Answer(0x40),
        "PUBLISH QoS 2" => Answer(0x50),
        // Of an unknown identifier.
        "PUBREC" => Answer(0x62),
        "PUBREL" => Answer(0x70),
        "SUBSCRIBE" => Answer(0x90),
        "UNSUBSCRIBE" => Answer(0xB0),
        "PINGREQ" => Answer(0xD0),
        "PUBLISH QoS 0" | "PUBACK" | "PUBCOMP" => Nothing,
        "DISCONNECT" => Closed,
        "type 0" => Refused(&[0x81]),
        "AUTH" if version != V5 => Refused(&[0x81]),
        _ => Refused(&[0x82]),
    }
}

#[test]
fn u5_2_1_2_2_mqtt_3_1_0_2_mqtt311_3_1_0_2_every_type_on_an_accepted_connection() {
    each_version(|b, v| {
        for (_, label, bytes) in one_of_each(v) {
            let mut client = Client::fresh(b, v);
            client.send(&bytes);
            match reaction(v, label) {
                Reaction::Answer(first) => {
                    let got = match client.expect_packet() {
                        Packet::Puback(_) => 0x40,
                        Packet::Pubrec(_) => 0x50,
                        Packet::Pubrel(_) => 0x62,
                        Packet::Pubcomp(_) => 0x70,
                        Packet::Suback(_) => 0x90,
                        Packet::Unsuback(_) => 0xB0,
                        Packet::Pingresp => 0xD0,
                        other => panic!("{v:?}: {label} was answered with {other:?}"),
                    };
                    assert_eq!(got, first, "{v:?}: {label}");
                    client.expect_quiet();
                }
                // 3.1.1 names no answer to a PUBREC of an unknown identifier; ringmq releases it in every version.
                Reaction::Nothing => client.expect_quiet(),
                Reaction::Closed => client.expect_closed(),
                Reaction::Refused(codes) => drop(client.expect_refused(codes)),
            }
        }
    });
}

#[test]
fn mqtt_3_14_4_1_mqtt311_3_14_4_2_every_type_after_disconnect_is_ignored() {
    each_version(|b, v| {
        for (_, label, bytes) in one_of_each(v) {
            let mut client = Client::fresh(b, v);
            client.send([&encode::DISCONNECT[..], &bytes].concat());
            let event = client.next(PATIENCE);
            assert_eq!(event, Event::Closed, "{v:?}: {label} after DISCONNECT");
        }
    });
}

#[test]
fn mqtt_3_1_4_6_mqtt311_3_1_4_5_every_type_behind_a_refused_connect_is_ignored() {
    each_version(|b, v| {
        for (_, _, bytes) in one_of_each(v) {
            let mut client = Client::open(b, v);
            let mut refused = Connect::new(v, name("c")).bytes();
            // Will QoS 3 is malformed in every version.
            let flags = 2 + 2 + v.name_and_level().0.len() + 1;
            refused[flags] = 0x1E;
            client.send([&refused[..], &bytes].concat());
            client.expect_refused(&[0x81]);
        }
    });
}

#[test]
fn mqtt_3_1_0_2_a_second_connect_of_any_form_is_refused() {
    each_version(|b, v| {
        for second in [
            Connect::new(V5, name("c")).bytes(),
            Connect::new(V311, name("c")).bytes(),
            Connect::new(V31, name("c")).bytes(),
            Connect::new(v, "").bytes(),
        ] {
            let mut client = Client::fresh(b, v);
            client.send(second);
            client.expect_refused(&[0x82]);
        }
    });
}

#[test]
fn u5_4_13_2_mqtt311_4_8_0_1_a_connection_that_is_refused_takes_its_session_along_only() {
    each_version(|b, v| {
        let topic = name("t");
        let connect = Connect::new(v, name("c")).persistent();
        let mut client = Client::accepted(b, &connect);
        client.subscribe(&topic, 1);
        client.send([0x00, 0x00]);
        client.expect_refused(&[0x81]);
        // The session is stored as after any other loss of the connection.
        Client::fresh(b, v).say(&topic, "kept", 1);
        let mut client = Client::accepted(b, &connect);
        assert_eq!(client.expect_texts(1), ["kept"]);
        client.next(Duration::from_millis(1));
    });
}
