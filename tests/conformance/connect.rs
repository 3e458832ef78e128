//! Chapter 3.1: CONNECT, field by field. What a Session or a will does stands in files of their own.

use std::time::Duration;

use crate::support::encode::{self, PUBACK, packet, string};
use crate::support::*;

/// A CONNECT from raw parts: protocol name, level, flags, and what follows the keep alive.
fn raw_connect(protocol: &str, level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    packet(0x10, [&string(protocol)[..], &[level, flags, 0, 60], rest].concat())
}

/// The payload of a CONNECT with these fields, properties in front for v5.
fn fields(version: Version, parts: &[&str]) -> Vec<u8> {
    let properties: &[u8] = if version == V5 { &[0] } else { &[] };
    [properties.to_vec(), parts.iter().flat_map(string).collect()].concat()
}

fn refuse_flags(broker: &Broker, version: Version, label: &str, flags: u8, parts: &[&str]) {
    let (protocol, level) = version.name_and_level();
    let bytes = raw_connect(protocol, level, flags, &fields(version, parts));
    refuse_first(broker, version, label, bytes, &[0x81]);
}

#[test]
fn mqtt_3_1_0_1_mqtt311_3_1_0_1_any_other_first_packet_is_closed_upon_without_a_word() {
    each_of(&[V5, V311], |b, v| {
        let first = [
            Publish::new("t", "x").bytes(v),
            Publish::new("t", "x").qos(1, 1).bytes(v),
            Publish::new("t", "x").qos(2, 1).bytes(v),
            encode::ack(PUBACK, 1),
            encode::ack(encode::PUBREC, 1),
            encode::ack(encode::PUBREL, 1),
            encode::ack(encode::PUBCOMP, 1),
            encode::subscribe(v, 1, &[], &[("f", 0)]),
            encode::unsubscribe(v, 1, &["f"]),
            encode::PINGREQ.to_vec(),
            encode::DISCONNECT.to_vec(),
            encode::auth(0x18, &[Property::AuthMethod("m".into())]),
            vec![0x20, 0x02, 0x00, 0x00],
            vec![0xD0, 0x00],
            vec![0x00, 0x00],
            b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n".to_vec(),
            vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xFC],
        ];
        for bytes in first {
            let mut client = Client::open(b, v);
            client.send(&bytes);
            let event = client.next(crate::support::client::PATIENCE);
            assert_eq!(event, Event::Closed, "after {bytes:02x?}");
        }
    });
}

#[test]
fn mqtt_3_1_0_2_mqtt311_3_1_0_2_a_second_connect_is_refused_and_the_will_goes_out() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("t");
        let mut witness = Client::fresh(b, v);
        witness.subscribe(&topic, 0);
        let connect = Connect::new(v, name("c")).will(Will::new(&topic, "second connect"));
        let mut client = Client::accepted(b, &connect);
        client.send(connect.bytes());
        client.expect_refused(&[0x82]);
        assert_eq!(witness.expect_publish().text(), "second connect");
    });
}

#[test]
fn mqtt_3_1_2_1_mqtt311_3_1_2_1_another_protocol_name_is_not_served() {
    each(|b| {
        for protocol in ["", "M", "mqtt", "MQTt", "MQTTX", "MQISDP", "MQIsdpX", "HTTP"] {
            for version in [V5, V311] {
                let (_, level) = version.name_and_level();
                let rest = fields(version, &[&name("c")]);
                let mut client = Client::open(b, version);
                client.send(raw_connect(protocol, level, 2, &rest));
                match client.next(crate::support::client::PATIENCE) {
                    Event::Closed => {}
                    Event::Packet(Packet::Connack(connack)) if [0x84, 0x01].contains(&connack.code) => {
                        client.expect_closed();
                    }
                    other => panic!("{protocol:?}: {other:?}"),
                }
            }
        }
    });
}

#[test]
fn mqtt_3_1_2_2_mqtt311_3_1_2_2_another_protocol_level_gets_its_code_and_a_close() {
    each(|b| {
        for level in [0, 1, 2, 6, 7, 9, 0x7F, 0xFF] {
            // Whoever speaks an unknown level reads one of the two forms of CONNACK; both stand for the same.
            let rest = fields(V5, &[&name("c")]);
            let mut answers = Vec::new();
            for version in [V5, V311] {
                let mut client = Client::open(b, version);
                client.send(raw_connect("MQTT", level, 2, &rest));
                answers.push(client.raw_until_closed());
            }
            assert_eq!(answers[0], answers[1]);
            let expected: [&[u8]; 2] = [&[0x20, 0x03, 0x00, 0x84, 0x00], &[0x20, 0x02, 0x00, 0x01]];
            assert!(expected.contains(&answers[0].as_slice()), "level {level}: {:02x?}", answers[0]);
        }
    });
}

#[test]
fn v31_1_the_name_and_the_level_of_3_1_belong_together() {
    each(|b| {
        for (protocol, level) in [("MQTT", 3), ("MQIsdp", 4), ("MQIsdp", 2), ("MQIsdp", 6)] {
            let mut client = Client::open(b, V31);
            client.send(raw_connect(protocol, level, 2, &fields(V31, &[&name("c")])));
            assert_eq!(client.raw_until_closed(), [0x20, 0x02, 0x00, 0x01], "{protocol} {level}");
        }
        let mut client = Client::open(b, V31);
        client.send(raw_connect("MQIsdp", 3, 2, &fields(V31, &[&name("c")])));
        assert_eq!(client.expect_connack().code, 0);
    });
}

#[test]
fn mqtt_3_1_2_3_mqtt311_3_1_2_3_the_reserved_flag_must_be_0() {
    each_of(&[V5, V311], |b, v| {
        refuse_flags(b, v, "flags 0x03", 0x03, &[&name("c")]);
        refuse_flags(b, v, "flags 0x01", 0x01, &[&name("c")]);
    });
}

#[test]
fn mqtt_3_1_2_9_mqtt311_3_1_2_9_will_flag_1_needs_the_fields_of_a_will() {
    each_of(&[V5, V311], |b, v| {
        refuse_flags(b, v, "no field", 0x06, &[&name("c")]);
        let (protocol, level) = v.name_and_level();
        let will_properties: &[u8] = if v == V5 { &[0] } else { &[] };
        let topic_only = [fields(v, &[&name("c")]), will_properties.to_vec(), string("will/topic")].concat();
        refuse_first(b, v, "no payload", raw_connect(protocol, level, 0x06, &topic_only), &[0x81]);
        let whole = [topic_only, string("payload")].concat();
        let mut client = Client::open(b, v);
        client.send(raw_connect(protocol, level, 0x06, &whole));
        assert_eq!(client.expect_connack().code, 0);
        client.disconnect();
    });
}

#[test]
fn mqtt_3_1_2_11_mqtt311_3_1_2_11_mqtt311_3_1_2_13_will_flag_0_needs_will_qos_0() {
    each_of(&[V5, V311], |b, v| {
        for qos in 1..=3 {
            refuse_flags(b, v, &format!("Will QoS {qos}"), 0x02 | qos << 3, &[&name("c")]);
        }
    });
}

#[test]
fn mqtt311_3_1_2_11_will_flag_0_leaves_no_room_for_the_fields_of_a_will() {
    each_of(&[V5, V311], |b, v| {
        refuse_flags(b, v, "fields of a will", 0x02, &[&name("c"), "topic", "payload"])
    });
}

#[test]
fn mqtt_3_1_2_12_mqtt311_3_1_2_14_will_qos_3_is_malformed() {
    each_of(&[V5, V311], |b, v| {
        let connect = Connect::new(v, name("c")).will(Will::new("w", "x"));
        refuse_first(b, v, "Will QoS 3", connect.flags(0x1E).bytes(), &[0x81]);
    });
}

#[test]
fn mqtt_3_1_2_13_mqtt311_3_1_2_15_mqtt311_3_1_2_11_will_flag_0_needs_will_retain_0() {
    each_of(&[V5, V311], |b, v| refuse_flags(b, v, "Will Retain", 0x22, &[&name("c")]));
}

#[test]
fn mqtt_3_1_2_16_mqtt311_3_1_2_18_user_name_flag_0_leaves_no_room_for_a_user_name() {
    each_of(&[V5, V311], |b, v| refuse_flags(b, v, "a user name", 0x02, &[&name("c"), "user"]));
}

#[test]
fn mqtt_3_1_2_17_mqtt311_3_1_2_19_user_name_flag_1_needs_a_user_name() {
    each_of(&[V5, V311], |b, v| {
        refuse_flags(b, v, "no user name", 0x82, &[&name("c")]);
        Client::accepted(b, &Connect::new(v, name("c")).user_name("user"));
        Client::accepted(b, &Connect::new(v, name("c")).user_name(""));
    });
}

#[test]
fn mqtt_3_1_2_18_mqtt311_3_1_2_20_password_flag_0_leaves_no_room_for_a_password() {
    each_of(&[V5, V311], |b, v| refuse_flags(b, v, "a password", 0x82, &[&name("c"), "user", "password"]));
}

#[test]
fn mqtt_3_1_2_19_mqtt311_3_1_2_21_password_flag_1_needs_a_password() {
    each_of(&[V5, V311], |b, v| {
        refuse_flags(b, v, "no password", 0xC2, &[&name("c"), "user"]);
        Client::accepted(b, &Connect::new(v, name("c")).user_name("user").password("password"));
        Client::accepted(b, &Connect::new(v, name("c")).user_name("user").password(""));
    });
}

#[test]
fn mqtt_3_1_2_19_a_password_without_a_user_name_is_legal_in_mqtt_5() {
    each(|b| drop(Client::accepted(b, &Connect::new(V5, name("c")).password("password"))));
}

#[test]
fn mqtt311_3_1_2_22_a_password_without_a_user_name_is_refused_in_3_1_1() {
    each(|b| refuse_flags(b, V311, "a password alone", 0x42, &[&name("c"), "password"]));
}

#[test]
fn mqtt_3_1_3_1_mqtt311_3_1_3_1_the_payload_is_read_in_the_order_of_the_standard() {
    each_version(|b, v| {
        let topic = name("t");
        let mut witness = Client::fresh(b, v);
        witness.subscribe(&topic, 1);
        let will = Will::new(&topic, "the will's payload").qos(1).with(Property::ContentType("kind".into()));
        let connect = Connect::new(v, name("c")).will(will).user_name("user").password("password");
        Client::accepted(b, &connect).cut();
        let got = witness.expect_publish_acked();
        assert_eq!((got.topic.as_str(), got.text().as_str(), got.qos), (&*topic, "the will's payload", 1));
        if v == V5 {
            assert_eq!(got.properties, [Property::ContentType("kind".into())]);
        }
    });
}

#[test]
fn mqtt_3_1_3_3_mqtt311_3_1_3_3_a_connect_without_a_client_id_field_is_refused() {
    each_of(&[V5, V311], |b, v| {
        refuse_flags(b, v, "nothing", 0x02, &[]);
        let (protocol, level) = v.name_and_level();
        let half = [fields(v, &[]), vec![0]].concat();
        refuse_first(b, v, "half a length", raw_connect(protocol, level, 2, &half), &[0x81]);
        let cut = [fields(v, &[]), vec![0, 5, b'a', b'b']].concat();
        refuse_first(b, v, "cut off", raw_connect(protocol, level, 2, &cut), &[0x81]);
    });
}

#[test]
fn mqtt_3_1_3_4_mqtt311_3_1_3_4_the_client_id_must_be_utf8() {
    each_of(&[V5, V311], |b, v| {
        for id in [&b"\xC3\x28"[..], b"a\xED\xA0\x80", b"a\0b", b"\xFF"] {
            refuse_first(b, v, &format!("{id:02x?}"), Connect::new(v, id).bytes(), &[0x81]);
        }
    });
}

#[test]
fn mqtt_3_1_3_5_mqtt311_3_1_3_5_plain_client_ids_of_1_to_23_bytes_are_accepted() {
    each_version(|b, v| {
        let alphabet = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        for start in (0..alphabet.len()).step_by(23) {
            let id = &alphabet[start..alphabet.len().min(start + 23)];
            Client::accepted(b, &Connect::new(v, id)).disconnect();
        }
        for length in 1..=23 {
            let id = &name("aaaaaaaaaaaaaaaaaaaaaaaa")[..].repeat(3)[..length];
            Client::accepted(b, &Connect::new(v, id));
        }
    });
}

#[test]
fn mqtt_3_1_3_8_mqtt311_3_1_3_9_v31_2_longer_client_ids_and_other_characters_are_accepted_too() {
    // A server may refuse them with "identifier not valid". ringmq takes any UTF-8 string that is not empty, as
    // deployed clients expect; the refusal that is left is the empty one, tested with the assigned ids.
    each_version(|b, v| {
        for id in [format!("{}-./+#$ é日本", name("c")), name("c").repeat(40)] {
            Client::accepted(b, &Connect::new(v, id)).disconnect();
        }
    });
}

#[test]
fn mqtt_3_1_3_6_mqtt_3_1_3_7_mqtt_3_2_2_16_mqtt311_3_1_3_6_an_empty_client_id_gets_one_of_its_own() {
    each(|b| {
        let mut ids = std::collections::BTreeSet::new();
        let mut open = Vec::new();
        for connect in [Connect::new(V5, ""), Connect::new(V5, "").resume()] {
            for _ in 0..8 {
                let (client, connack) = Client::connect(b, &connect);
                assert_eq!(connack.code, 0);
                let assigned = connack.properties.iter().find_map(|p| match p {
                    Property::AssignedClientId(id) => Some(id.clone()),
                    _ => None,
                });
                let id = assigned.expect("[MQTT-3.1.3-7] Assigned Client Identifier");
                assert!(!id.is_empty() && ids.insert(id), "an id is given out once");
                open.push(client);
            }
        }
        // Nobody was taken over.
        open.iter_mut().for_each(Client::ping);
        let mut others: Vec<Client> = (0..4).map(|_| Client::accepted(b, &Connect::new(V311, ""))).collect();
        others.iter_mut().chain(&mut open).for_each(Client::ping);
    });
}

#[test]
fn mqtt_3_1_3_7_an_assigned_client_id_keys_the_session_like_any_other() {
    each(|b| {
        let topic = name("t");
        let first = Connect::new(V5, "").resume().with(Property::SessionExpiry(60));
        let (mut client, connack) = Client::connect(b, &first);
        let id = connack.properties.iter().find_map(|p| match p {
            Property::AssignedClientId(id) => Some(id.clone()),
            _ => None,
        });
        client.subscribe(&topic, 1);
        client.disconnect();
        Client::fresh(b, V5).say(&topic, "kept", 1);
        let (mut client, connack) = Client::connect(b, &Connect::new(V5, id.expect("an id")).resume());
        assert!(connack.session_present);
        assert!(!connack.properties.iter().any(|p| matches!(p, Property::AssignedClientId(_))));
        assert_eq!(client.expect_publish_acked().text(), "kept");
    });
}

#[test]
fn mqtt311_3_1_3_7_mqtt311_3_1_3_8_an_empty_client_id_needs_clean_session() {
    each(|b| {
        let mut client = Client::open(b, V311);
        client.send_connect(&Connect::new(V311, "").resume());
        let connack = client.expect_connack();
        assert_eq!((connack.code, connack.session_present), (2, false));
        client.expect_closed();
    });
}

#[test]
fn v31_2_an_empty_client_id_is_refused_in_3_1() {
    each(|b| {
        for connect in [Connect::new(V31, ""), Connect::new(V31, "").resume()] {
            let (mut client, connack) = Client::connect(b, &connect);
            assert_eq!(connack.code, 2);
            client.expect_closed();
        }
    });
}

#[test]
fn mqtt_3_1_3_11_mqtt311_3_1_3_10_the_will_topic_must_be_a_topic_name() {
    each_of(&[V5, V311], |b, v| {
        for topic in [&b"a\xFFb"[..], b"a\0b", b"\xED\xA0\x80"] {
            let connect = Connect::new(v, name("c")).will(Will::new(topic, "x"));
            refuse_first(b, v, &format!("{topic:02x?}"), connect.bytes(), &[0x81]);
        }
        // Well-formed strings that name no topic: the standard names no code; "topic name invalid" says most.
        for topic in ["", "a/+", "a/#", "#", "+"] {
            let connect = Connect::new(v, name("c")).will(Will::new(topic, "x"));
            refuse_first(b, v, topic, connect.bytes(), &[0x90]);
        }
    });
}

#[test]
fn mqtt_3_1_3_12_mqtt311_3_1_3_11_the_user_name_must_be_utf8() {
    each_of(&[V5, V311], |b, v| {
        for user in [&b"a\xFF"[..], b"a\0b", b"\xED\xBF\xBF"] {
            refuse_first(
                b,
                v,
                &format!("{user:02x?}"),
                Connect::new(v, name("c")).user_name(user).bytes(),
                &[0x81],
            );
        }
    });
}

#[test]
fn mqtt_3_1_4_1_u5_3_1_4_2_an_ill_formed_connect_is_refused_with_connack_in_mqtt_5() {
    each(|b| {
        for (label, bytes) in ill_formed(V5) {
            refuse_first(b, V5, label, bytes, &[0x81]);
        }
        // Before the level has come, nobody knows in which form to answer.
        for bytes in [packet(0x10, []), packet(0x10, string("MQTT"))] {
            let mut client = Client::open(b, V5);
            client.send(bytes);
            client.expect_closed();
        }
    });
}

#[test]
fn mqtt311_3_1_4_1_mqtt311_3_2_2_6_an_ill_formed_connect_is_closed_upon_without_connack_in_3_1_1() {
    each(|b| {
        for (label, bytes) in ill_formed(V311) {
            refuse_first(b, V311, label, bytes, &[]);
        }
    });
}

fn ill_formed(version: Version) -> Vec<(&'static str, Vec<u8>)> {
    let connect = Connect::new(version, name("c")).will(Will::new("w", "x")).user_name("u").password("p");
    let body = connect.body();
    vec![
        ("no keep alive", packet(0x10, &body[..8])),
        ("half a keep alive", packet(0x10, &body[..9])),
        ("no payload", packet(0x10, &body[..10])),
        ("a byte too few", packet(0x10, &body[..body.len() - 1])),
        ("a byte too many", packet(0x10, [&body[..], &[0]].concat())),
        ("the reserved flag", connect.clone().flags(0xC7).bytes()),
    ]
}

#[test]
fn mqtt_3_1_4_2_u5_3_1_4_2_a_connection_beyond_the_limit_is_refused_with_a_code() {
    for shards in [1, 4] {
        let broker = Broker::start(shards, &["--connections-max", "4"]);
        let mut held: Vec<Client> = (0..4).map(|_| Client::fresh(&broker, V5)).collect();
        // The refusal may come as early as on accept, where no CONNECT has told the version yet.
        let mut client = Client::open(&broker, V5);
        client.send_connect(&Connect::new(V5, name("c")));
        match client.next(crate::support::client::PATIENCE) {
            Event::Packet(Packet::Connack(connack)) => {
                assert!([0x88, 0x89, 0x97, 0x9F].contains(&connack.code), "{connack:?}");
                client.expect_closed();
            }
            Event::Closed => {}
            other => panic!("a fifth connection got {other:?}"),
        }
        held.iter_mut().for_each(Client::ping);
        held.pop().expect("four are held").disconnect();
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        loop {
            let mut client = Client::open(&broker, V5);
            client.send_connect(&Connect::new(V5, name("c")));
            match client.next(Duration::from_secs(5)) {
                Event::Packet(Packet::Connack(connack)) if connack.code == 0 => break,
                other => assert!(std::time::Instant::now() < deadline, "no room again: {other:?}"),
            }
        }
    }
}

#[test]
fn mqtt_3_1_4_6_mqtt311_3_1_4_5_nothing_behind_a_refused_connect_is_acted_upon() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("t");
        let mut witness = Client::fresh(b, v);
        witness.subscribe(&topic, 0);
        let refused = Connect::new(v, name("c")).flags(0x03).bytes();
        let publish = Publish::new(&*topic, "x").retain().bytes(v);
        let mut client = Client::open(b, v);
        client.send([refused, publish].concat());
        client.expect_refused(&[0x81]);
        witness.expect_quiet();
        witness.subscribe(&topic, 0);
        witness.expect_quiet();
    });
}

#[test]
fn u5_3_1_0_1_u311_3_1_4_1_a_connection_without_connect_is_closed_in_time() {
    each_with(&["--connect-timeout", "1"], |broker| {
        let mut silent = Client::open(broker, V5);
        let mut half = Client::open(broker, V5);
        half.send(&Connect::new(V5, name("c")).bytes()[..9]);
        let mut drip = Client::open(broker, V311);
        let connect = Connect::new(V311, "a client id that is long enough to drip for some time").bytes();
        for byte in connect.iter().take(24) {
            drip.send([*byte]);
            std::thread::sleep(Duration::from_millis(60));
        }
        let mut served = Client::fresh(broker, V5);
        for client in [&mut silent, &mut half, &mut drip] {
            client.expect_closed();
        }
        std::thread::sleep(Duration::from_millis(1500));
        served.ping();
    });
}

#[test]
fn u5_3_1_2_1_all_three_versions_share_a_port_and_talk_to_each_other() {
    each(|b| {
        let topic = name("t");
        let mut clients = [V5, V311, V31].map(|v| Client::fresh(b, v));
        for client in &mut clients {
            client.subscribe(&topic, 1);
        }
        for index in 0..3 {
            let publish = Publish::new(&*topic, index.to_string()).qos(1, 77);
            clients[index].send_publish(&publish);
            for (other, client) in clients.iter_mut().enumerate() {
                // The publisher's own PUBACK and copy may come in either order.
                let mut seen = Vec::new();
                for _ in 0..1 + usize::from(other == index) {
                    match client.expect_packet() {
                        Packet::Publish(publish) => {
                            client.ack(PUBACK, publish.packet_id);
                            seen.push(publish.text());
                        }
                        Packet::Puback(ack) => assert_eq!(ack.packet_id, 77),
                        packet => panic!("{packet:?}"),
                    }
                }
                assert_eq!(seen, [index.to_string()]);
            }
        }
    });
}

#[test]
fn u5_3_1_2_5_receive_maximum_0_is_refused() {
    each(|b| refuse_property(b, Property::ReceiveMaximum(0)));
}

#[test]
fn u5_3_1_2_6_maximum_packet_size_0_is_refused() {
    each(|b| refuse_property(b, Property::MaximumPacketSize(0)));
}

#[test]
fn u5_3_1_2_7_request_response_information_is_0_or_1() {
    each(|b| {
        refuse_property(b, Property::RequestResponseInfo(2));
        Client::accepted(b, &Connect::new(V5, name("c")).with(Property::RequestResponseInfo(1)));
    });
}

#[test]
fn u5_3_1_2_8_request_problem_information_is_0_or_1() {
    each(|b| {
        refuse_property(b, Property::RequestProblemInfo(2));
        Client::accepted(b, &Connect::new(V5, name("c")).with(Property::RequestProblemInfo(0)));
    });
}

#[test]
fn u5_3_1_2_9_authentication_data_needs_a_method() {
    each(|b| refuse_property(b, Property::AuthData(vec![1])));
}

fn refuse_property(broker: &Broker, property: Property) {
    let label = format!("{property:?}");
    refuse_first(broker, V5, &label, Connect::new(V5, name("c")).with(property).bytes(), &[0x82]);
}

#[test]
fn mqtt_3_1_2_28_no_response_information_is_sent() {
    each(|b| {
        for asked in [None, Some(0), Some(1)] {
            let mut connect = Connect::new(V5, name("c"));
            connect.properties.extend(asked.map(Property::RequestResponseInfo));
            let connack = Client::connect(b, &connect).1;
            assert!(
                !connack.properties.iter().any(|p| matches!(p, Property::ResponseInfo(_))),
                "{connack:?}"
            );
        }
    });
}

#[test]
fn u5_3_1_4_1_u311_3_1_4_3_packets_behind_connect_are_acted_upon_after_acceptance() {
    each_version(|b, v| {
        let topic = name("t");
        let mut client = Client::open(b, v);
        let bytes = [
            Connect::new(v, name("c")).bytes(),
            encode::subscribe(v, 1, &[], &[(&topic, 1)]),
            Publish::new(&*topic, "at once").qos(1, 2).bytes(v),
            encode::PINGREQ.to_vec(),
        ];
        client.send(bytes.concat());
        assert_eq!(client.expect_connack().code, 0);
        let mut kinds = Vec::new();
        for _ in 0..4 {
            match client.expect_packet() {
                Packet::Suback(_) => kinds.push("suback"),
                Packet::Puback(_) => kinds.push("puback"),
                Packet::Pingresp => kinds.push("pingresp"),
                Packet::Publish(publish) => {
                    assert_eq!(publish.text(), "at once");
                    client.ack(PUBACK, publish.packet_id);
                    kinds.push("publish");
                }
                other => panic!("{other:?}"),
            }
        }
        kinds.sort_unstable();
        assert_eq!(kinds, ["pingresp", "puback", "publish", "suback"]);
    });
}

#[test]
fn u5_3_1_4_1_connect_may_arrive_in_pieces_of_any_size() {
    each_version(|b, v| {
        let topic = name("t");
        let stream =
            |id: &str| [Connect::new(v, id).bytes(), encode::subscribe(v, 1, &[], &[(&topic, 0)])].concat();
        let length = stream(&name("c")).len();
        for cut in 1..length {
            let bytes = stream(&name("c"));
            let cut = cut.min(bytes.len() - 1);
            let mut client = Client::open(b, v);
            client.send(&bytes[..cut]);
            // Long enough for the first piece to be read alone, most of the time.
            std::thread::sleep(Duration::from_micros(300));
            client.send(&bytes[cut..]);
            assert_eq!(client.expect_connack().code, 0, "cut at {cut}");
            assert_eq!(client.expect_suback(1), [0]);
        }
    });
}
