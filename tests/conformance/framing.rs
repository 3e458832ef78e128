//! Chapter 2: fixed header, Packet Identifier, properties as such.

use crate::support::encode::{self, PUBACK, PUBCOMP, PUBREC, PUBREL, packet, string, vbi};
use crate::support::property::{PLACES, Place, allowed, every};
use crate::support::*;

/// A legal packet of each type that a client sends on an accepted connection, with its first byte.
fn client_packets(version: Version) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("PUBACK", encode::ack(PUBACK, 9)),
        ("PUBREC", encode::ack(PUBREC, 9)),
        ("PUBREL", encode::ack(PUBREL, 9)),
        ("PUBCOMP", encode::ack(PUBCOMP, 9)),
        ("SUBSCRIBE", encode::subscribe(version, 9, &[], &[("flags", 0)])),
        ("UNSUBSCRIBE", encode::unsubscribe(version, 9, &["flags"])),
        ("PINGREQ", encode::PINGREQ.to_vec()),
        ("DISCONNECT", encode::DISCONNECT.to_vec()),
    ]
}

/// Sends the packet with every value of its flag bits but the tabled one.
fn refuse_other_flags(broker: &Broker, version: Version, label: &str, bytes: &[u8]) {
    for flags in (0..16).filter(|flags| *flags != bytes[0] & 0x0F) {
        let mut wrong = bytes.to_vec();
        wrong[0] = bytes[0] & 0xF0 | flags;
        refuse(broker, version, &format!("{label} with flags {flags:04b}"), wrong, &[0x81]);
    }
}

#[test]
fn mqtt_2_1_3_1_u5_2_1_3_1_mqtt311_2_2_2_1_mqtt311_2_2_2_2_reserved_flags_must_be_as_tabled() {
    each_of(&[V5, V311], |b, v| {
        for (label, bytes) in client_packets(v) {
            refuse_other_flags(b, v, label, &bytes);
        }
        for flags in 1..16 {
            let mut connect = Connect::new(v, name("c")).bytes();
            connect[0] |= flags;
            refuse_first(b, v, &format!("CONNECT with flags {flags:04b}"), connect, &[0x81]);
        }
    });
}

#[test]
fn u5_2_1_3_1_mqtt_3_15_1_1_the_flags_of_auth_are_zero() {
    each(|b| {
        let auth = encode::auth(0x18, &[Property::AuthMethod("m".into())]);
        for flags in 1..16 {
            let mut wrong = auth.clone();
            wrong[0] |= flags;
            refuse(b, V5, &format!("AUTH with flags {flags:04b}"), wrong, &[0x81]);
        }
    });
}

#[test]
fn u5_2_1_2_1_u311_2_2_1_1_mqtt_2_1_3_1_a_first_byte_that_nothing_makes_good_is_not_waited_for() {
    each_of(&[V5, V311], |b, v| {
        // What no body could make good: the reserved type, what only a server sends, wrong flags, QoS 3, DUP at QoS 0.
        for first in
            [0x00, 0x0F, 0x20, 0x90, 0xB0, 0xD0, 0x41, 0x60, 0x80, 0xA0, 0xC1, 0xE1, 0x36, 0x38, 0x10]
        {
            refuse(b, v, &format!("{first:02x} alone"), [first], &[0x81, 0x82]);
            let larger = [&[first][..], &vbi(268_435_455)].concat();
            refuse(b, v, &format!("{first:02x} and a length beyond the limit"), larger, &[0x81, 0x82]);
        }
        // Behind a packet that is good.
        refuse(b, v, "PUBLISH, then 00", [&Publish::new("t", "x").bytes(v)[..], &[0]].concat(), &[0x81]);
    });
    each(|b| refuse(b, V311, "AUTH alone", [0xF0], &[]));
}

#[test]
fn mqtt_3_1_0_1_mqtt311_3_1_0_1_mqtt_3_1_2_1_a_first_packet_that_is_no_connect_is_not_waited_for() {
    each_of(&[V5, V311], |b, v| {
        let begins: [&[u8]; 8] = [
            &[0x00],
            &[0x30],
            &[0xC0],
            &[0xF0],
            b"G",
            // A CONNECT of another protocol, as far as it can be told.
            &[0x10, 100, 1],
            &[0x10, 100, 0, 4, b'M', b'Q', b'I'],
            &[0x10, 100, 0, 6, b'M', b'Q', b'T', b'T'],
        ];
        for bytes in begins {
            let mut client = Client::open(b, v);
            client.send(bytes);
            let event = client.next(crate::support::client::PATIENCE);
            assert_eq!(event, Event::Closed, "after {bytes:02x?}");
        }
        // Its version is known, and with it that its flags are wrong.
        let level = if v == V5 { 5 } else { 4 };
        let wrong = [&[0x11, 100][..], &string("MQTT"), &[level]].concat();
        refuse_first(b, v, "CONNECT with flags, not whole", wrong, &[0x81]);
    });
}

#[test]
fn mqtt_3_6_1_1_mqtt311_3_6_1_1_pubrel_needs_its_flags() {
    each_of(&[V5, V311], |b, v| refuse_other_flags(b, v, "PUBREL", &encode::ack(PUBREL, 9)));
}

#[test]
fn mqtt_3_8_1_1_mqtt311_3_8_1_1_subscribe_needs_its_flags() {
    each_of(&[V5, V311], |b, v| {
        refuse_other_flags(b, v, "SUBSCRIBE", &encode::subscribe(v, 9, &[], &[("flags", 0)]));
    });
}

#[test]
fn mqtt_3_10_1_1_mqtt311_3_10_1_1_unsubscribe_needs_its_flags() {
    each_of(&[V5, V311], |b, v| {
        refuse_other_flags(b, v, "UNSUBSCRIBE", &encode::unsubscribe(v, 9, &["flags"]));
    });
}

#[test]
fn u5_2_1_2_1_u311_2_2_1_1_packet_type_0_is_refused() {
    each_of(&[V5, V311], |b, v| {
        for flags in 0..16 {
            refuse(b, v, &format!("type 0, flags {flags:04b}"), [flags, 0], &[0x81]);
        }
        refuse(b, v, "type 0 with a body", packet(0, [0, 9]), &[0x81]);
    });
}

#[test]
fn u311_2_2_1_1_packet_type_15_is_refused_in_3_x() {
    each_of(&[V311, V31], |b, v| {
        refuse(b, v, "empty", [0xF0, 0], &[]);
        refuse(b, v, "as AUTH of MQTT 5", encode::auth(0x18, &[Property::AuthMethod("m".into())]), &[]);
    });
}

#[test]
fn u5_2_1_2_2_u311_2_2_1_1_packets_that_only_a_server_sends_are_refused() {
    each_of(&[V5, V311], |b, v| {
        let v5 = v == V5;
        let suback: &[u8] = if v5 { &[0, 9, 0, 0] } else { &[0, 9, 0] };
        let unsuback: &[u8] = if v5 { &[0, 9, 0, 0] } else { &[0, 9] };
        let connack: &[u8] = if v5 { &[0, 0, 0] } else { &[0, 0] };
        refuse(b, v, "CONNACK", packet(0x20, connack), &[0x82]);
        refuse(b, v, "SUBACK", packet(0x90, suback), &[0x82]);
        refuse(b, v, "UNSUBACK", packet(0xB0, unsuback), &[0x82]);
        refuse(b, v, "PINGRESP", [0xD0, 0], &[0x82]);
    });
}

#[test]
fn u5_2_1_4_1_u311_2_3_1_fields_fill_the_packet_exactly() {
    each_of(&[V5, V311], |b, v| {
        let shortened = |bytes: &[u8]| packet(bytes[0], &bytes[2..bytes.len() - 1]);
        let lengthened = |bytes: &[u8]| packet(bytes[0], [&bytes[2..], &[0]].concat());
        let subscribe = encode::subscribe(v, 9, &[], &[("fill", 0)]);
        let unsubscribe = encode::unsubscribe(v, 9, &["fill"]);
        refuse(b, v, "SUBSCRIBE cut", shortened(&subscribe), &[0x81]);
        refuse(b, v, "SUBSCRIBE with more", lengthened(&subscribe), &[0x81]);
        refuse(b, v, "UNSUBSCRIBE cut", shortened(&unsubscribe), &[0x81]);
        refuse(b, v, "UNSUBSCRIBE with more", lengthened(&unsubscribe), &[0x81]);
        for first in [PUBACK, PUBREC, PUBREL, PUBCOMP] {
            refuse(b, v, "ack cut", packet(first, [0]), &[0x81]);
            refuse(b, v, "ack empty", packet(first, []), &[0x81]);
        }
        let connect =
            Connect::new(v, name("c")).will(Will::new("w", "x")).user_name("u").password("p").bytes();
        refuse_first(b, v, "CONNECT cut", shortened(&connect), &[0x81]);
        refuse_first(b, v, "CONNECT with more", lengthened(&connect), &[0x81]);
        refuse(b, v, "PUBLISH without a topic", packet(0x30, []), &[0x81]);
        refuse(b, v, "PUBLISH with half a topic", packet(0x30, [0, 5, b'a', b'b']), &[0x81]);
        refuse(b, v, "PUBLISH with half an identifier", packet(0x32, [0, 1, b'a', 0]), &[0x81]);
    });
}

#[test]
fn mqtt_2_2_1_3_mqtt311_2_3_1_1_packet_identifier_0_is_refused() {
    each_of(&[V5, V311], |b, v| {
        // Malformed or a protocol error, as one reads it: the packet can be parsed, so ringmq says the latter.
        let codes = [0x82];
        refuse(b, v, "PUBLISH QoS 1", Publish::new("t", "x").qos(1, 0).bytes(v), &codes);
        refuse(b, v, "PUBLISH QoS 2", Publish::new("t", "x").qos(2, 0).bytes(v), &codes);
        refuse(b, v, "SUBSCRIBE", encode::subscribe(v, 0, &[], &[("f", 0)]), &codes);
        refuse(b, v, "UNSUBSCRIBE", encode::unsubscribe(v, 0, &["f"]), &codes);
        for first in [PUBACK, PUBREC, PUBREL, PUBCOMP] {
            refuse(b, v, "an acknowledgement", encode::ack(first, 0), &codes);
        }
    });
}

#[test]
fn mqtt_2_2_1_2_mqtt311_2_3_1_5_a_qos_0_publish_has_no_packet_identifier() {
    each_version(|b, v| {
        let topic = name("t");
        let mut client = Client::fresh(b, v);
        client.subscribe(&topic, 2);
        // An identifier would stand at the head of the payload (or be taken for the property length).
        client.send_publish(&Publish::new(&*topic, "payload"));
        let got = client.expect_publish();
        assert_eq!((got.qos, got.payload.as_slice()), (0, b"payload".as_slice()));
    });
}

#[test]
fn mqtt_2_2_1_4_mqtt311_2_3_1_4_identifiers_of_the_server_are_not_zero_and_not_in_use() {
    each_version(|b, v| {
        let topic = name("t");
        let mut client = Client::fresh(b, v);
        client.subscribe(&topic, 2);
        let mut publisher = Client::fresh(b, v);
        for number in 0..20 {
            publisher.say(&topic, number.to_string(), 1 + number % 2);
        }
        let mut in_use = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let publish = client.expect_publish();
            assert_ne!(publish.packet_id, 0);
            assert!(in_use.insert(publish.packet_id), "{} twice", publish.packet_id);
        }
        client.expect_quiet();
    });
}

#[test]
fn u5_2_2_1_2_identifiers_wrap_around_and_skip_those_in_use() {
    // One message stays unacknowledged while more than 65,535 others pass.
    each_of(&[V311], |b, v| {
        let topic = name("t");
        let mut client = Client::fresh(b, v);
        client.subscribe(&topic, 1);
        let mut publisher = Client::fresh(b, v);
        publisher.say(&topic, "stays", 1);
        let stays = client.expect_publish().packet_id;
        let batch = 500;
        for round in 0..=65_535 / batch {
            let burst: Vec<u8> =
                (1..=batch).flat_map(|id| Publish::new(&*topic, "x").qos(1, id as u16).bytes(v)).collect();
            publisher.send(burst);
            for id in 1..=batch {
                publisher.expect_ack(PUBACK, id as u16);
            }
            for _ in 0..batch {
                let publish = client.expect_publish();
                assert_ne!(publish.packet_id, stays, "in round {round}");
                client.ack(PUBACK, publish.packet_id);
            }
        }
        client.expect_quiet();
    });
}

#[test]
fn mqtt_2_2_1_5_mqtt311_2_3_1_6_acknowledgements_echo_the_identifier() {
    each_version(|b, v| {
        let mut client = Client::fresh(b, v);
        let topic = name("t");
        for id in [1, 2, 255, 256, 32_768, 65_535] {
            client.send_publish(&Publish::new(&*topic, "x").qos(1, id));
            client.expect_ack(PUBACK, id);
            client.send_publish(&Publish::new(&*topic, "x").qos(2, id));
            client.expect_ack(PUBREC, id);
            client.ack(PUBREL, id);
            client.expect_ack(PUBCOMP, id);
        }
        client.subscribe(&topic, 2);
        let mut publisher = Client::fresh(b, v);
        publisher.say(&topic, "x", 2);
        let publish = client.expect_publish();
        client.ack(PUBREC, publish.packet_id);
        client.expect_ack(PUBREL, publish.packet_id);
        client.ack(PUBCOMP, publish.packet_id);
    });
}

#[test]
fn mqtt_2_2_1_6_mqtt311_2_3_1_7_suback_and_unsuback_echo_the_identifier() {
    each_version(|b, v| {
        let mut client = Client::fresh(b, v);
        for id in [1, 256, 65_535] {
            client.send(encode::subscribe(v, id, &[], &[("echo", 0)]));
            client.expect_suback(id);
            client.send(encode::unsubscribe(v, id, &["echo"]));
            match client.expect_packet() {
                Packet::Unsuback(unsuback) => assert_eq!(unsuback.packet_id, id),
                other => panic!("expected UNSUBACK, got {other:?}"),
            }
        }
    });
}

#[test]
fn u5_2_2_1_1_the_same_identifier_may_be_in_use_in_both_directions() {
    each_version(|b, v| {
        let (topic, other) = (name("t"), name("t"));
        let mut client = Client::fresh(b, v);
        client.subscribe(&topic, 2);
        let mut publisher = Client::fresh(b, v);
        publisher.say(&topic, "down", 2);
        let down = client.expect_publish();
        client.send_publish(&Publish::new(&*other, "up").qos(2, down.packet_id));
        client.expect_ack(PUBREC, down.packet_id);
        client.ack(PUBREC, down.packet_id);
        client.expect_ack(PUBREL, down.packet_id);
        client.ack(PUBREL, down.packet_id);
        client.expect_ack(PUBCOMP, down.packet_id);
        client.ack(PUBCOMP, down.packet_id);
        client.expect_quiet();
    });
}

#[test]
fn u5_2_2_1_3_an_identifier_in_an_open_exchange_does_not_stop_a_subscribe() {
    // A client that uses one identifier for two purposes breaks a rule that binds it alone. ringmq keeps the
    // exchanges apart by packet type and answers both, as most brokers do.
    each_version(|b, v| {
        let mut client = Client::fresh(b, v);
        client.send_publish(&Publish::new(name("t"), "x").qos(2, 7));
        client.expect_ack(PUBREC, 7);
        assert_eq!(client.subscribe_all(7, &[], &[(&name("f"), 1)]), [1]);
        client.ack(PUBREL, 7);
        client.expect_ack(PUBCOMP, 7);
    });
}

#[test]
fn mqtt_2_2_2_1_a_missing_property_length_is_refused() {
    each(|b| {
        refuse(b, V5, "SUBSCRIBE", packet(0x82, [0, 1]), &[0x81]);
        refuse(b, V5, "UNSUBSCRIBE", packet(0xA2, [0, 1]), &[0x81]);
        refuse(b, V5, "PUBLISH", packet(0x30, string("t")), &[0x81]);
        refuse(b, V5, "PUBLISH QoS 1", packet(0x32, [&string("t")[..], &[0, 1]].concat()), &[0x81]);
        let connect = [&string("MQTT")[..], &[5, 2, 0, 60]].concat();
        refuse_first(b, V5, "CONNECT", packet(0x10, connect), &[0x81]);
    });
}

/// A packet of this place with these bytes as its properties, for those that a client sends.
fn with_properties(place: Place, properties: &[u8]) -> Option<Vec<u8>> {
    let block = [vbi(properties.len() as u32), properties.to_vec()].concat();
    Some(match place {
        Place::Connect => {
            packet(0x10, [string("MQTT"), vec![5, 2, 0, 60], block, string(name("c"))].concat())
        }
        Place::Will => {
            let head = [string("MQTT"), vec![5, 6, 0, 60, 0], string(name("c"))].concat();
            packet(0x10, [head, block, string("will"), string("w")].concat())
        }
        Place::Publish => packet(0x32, [string("t"), vec![0, 9], block, b"payload".to_vec()].concat()),
        Place::Puback => packet(0x40, [vec![0, 9, 0], block].concat()),
        Place::Pubrec => packet(0x50, [vec![0, 9, 0], block].concat()),
        Place::Pubrel => packet(0x62, [vec![0, 9, 0], block].concat()),
        Place::Pubcomp => packet(0x70, [vec![0, 9, 0], block].concat()),
        Place::Subscribe => packet(0x82, [vec![0, 9], block, string("f"), vec![0]].concat()),
        Place::Unsubscribe => packet(0xA2, [vec![0, 9], block, string("f")].concat()),
        Place::Disconnect => packet(0xE0, [vec![0], block].concat()),
        Place::Auth => return None,
        Place::Connack | Place::Suback | Place::Unsuback => return None,
    })
}

fn refuse_properties(broker: &Broker, place: Place, label: &str, properties: &[u8], codes: &[u8]) {
    let Some(bytes) = with_properties(place, properties) else { return };
    let label = format!("{place:?}: {label}");
    if matches!(place, Place::Connect | Place::Will) {
        refuse_first(broker, V5, &label, bytes, codes);
    } else {
        refuse(broker, V5, &label, bytes, codes);
    }
}

#[test]
fn u5_2_2_2_1_a_property_where_it_may_not_be_is_refused() {
    each(|b| {
        for place in PLACES {
            for property in every() {
                let (id, bytes) = (property.id(), property.bytes());
                // Legal by the table, yet not from a client: another test each.
                let servers =
                    place == Place::Publish && id == 0x0B || place == Place::Disconnect && id == 0x1C;
                if !allowed(id, place) && !servers {
                    refuse_properties(b, place, &format!("property {id:#04x}"), &bytes, &[0x81]);
                }
            }
        }
    });
}

#[test]
fn u5_2_2_2_2_an_unknown_property_is_refused() {
    each(|b| {
        for place in PLACES {
            for id in [0x00, 0x04, 0x0A, 0x14, 0x1B, 0x1D, 0x20, 0x2B, 0x7F] {
                refuse_properties(b, place, &format!("identifier {id:#04x}"), &[id, 0, 0], &[0x81]);
            }
        }
    });
}

#[test]
fn u5_2_2_2_3_a_property_that_runs_over_its_block_is_refused() {
    each(|b| {
        for place in PLACES {
            let whole = every();
            // Two that only a server may put there are refused before they are read.
            let servers = |id| matches!((place, id), (Place::Publish, 0x0B) | (Place::Disconnect, 0x1C));
            let read = |id: u8| allowed(id, place) && !servers(id);
            for property in whole.iter().filter(|p| read(p.id())) {
                let bytes = property.bytes();
                for length in 1..bytes.len() {
                    let label = format!("property {:#04x} cut to {length}", property.id());
                    refuse_properties(b, place, &label, &bytes[..length], &[0x81]);
                }
            }
        }
        let over = packet(0x30, [&string("t")[..], &[9, 0x01, 1]].concat());
        refuse(b, V5, "a property length beyond the packet", over, &[0x81]);
    });
}

#[test]
fn u5_2_2_2_5_a_property_that_may_not_repeat_is_refused_the_second_time() {
    each(|b| {
        for place in PLACES {
            for property in every().iter().filter(|p| allowed(p.id(), place) && p.id() != 0x26) {
                let server_only = place == Place::Publish && property.id() == 0x0B;
                let needs_method = property.id() == 0x16;
                if server_only || needs_method {
                    continue;
                }
                let twice = [property.bytes(), property.bytes()].concat();
                refuse_properties(
                    b,
                    place,
                    &format!("property {:#04x} twice", property.id()),
                    &twice,
                    &[0x82],
                );
            }
        }
    });
}

#[test]
fn u5_2_2_2_4_properties_may_stand_in_any_order() {
    each(|b| {
        let topic = name("t");
        let mut client = Client::fresh(b, V5);
        client.subscribe(&topic, 0);
        let mut properties = vec![
            Property::User("a".into(), "1".into()),
            Property::ContentType("text".into()),
            Property::PayloadFormat(1),
            Property::CorrelationData(vec![7]),
            Property::ResponseTopic("r".into()),
        ];
        for _ in 0..properties.len() {
            properties.rotate_left(1);
            let mut publish = Publish::new(&*topic, "x");
            publish.properties.clone_from(&properties);
            client.send_publish(&publish);
            let mut got = client.expect_publish().properties;
            let mut sent = properties.clone();
            got.sort_by_key(Property::id);
            sent.sort_by_key(Property::id);
            assert_eq!(got, sent);
        }
        let connect = Connect::new(V5, name("c"))
            .with(Property::User("z".into(), "1".into()))
            .with(Property::MaximumPacketSize(9000))
            .with(Property::SessionExpiry(1))
            .with(Property::ReceiveMaximum(5));
        assert_eq!(Client::connect(b, &connect).1.code, 0);
    });
}
