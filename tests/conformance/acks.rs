//! PUBACK, PUBREC, PUBREL, PUBCOMP as packets (3.4 to 3.7).

use crate::support::encode::{self, PUBACK, PUBCOMP, PUBREC, PUBREL, packet};
use crate::support::property::block;
use crate::support::*;

/// Every acknowledgement that a client sends, with a code of its table that is not success.
const KINDS: [(u8, &str, u8); 4] = [
    (PUBACK, "PUBACK", 0x80),
    (PUBREC, "PUBREC", 0x80),
    (PUBREL, "PUBREL", 0x92),
    (PUBCOMP, "PUBCOMP", 0x92),
];

/// A client that waits for the acknowledgement of this kind, and the identifier to acknowledge.
fn waiting_for(broker: &Broker, first: u8) -> (Client, u16) {
    let topic = name("t");
    let mut client = Client::fresh(broker, V5);
    if first == PUBREL {
        client.send_publish(&Publish::new(&*topic, "x").qos(2, 5));
        client.expect_ack(PUBREC, 5);
        return (client, 5);
    }
    client.subscribe(&topic, 2);
    Client::fresh(broker, V5).say(&topic, "x", if first == PUBACK { 1 } else { 2 });
    let id = client.expect_publish().packet_id;
    if first == PUBCOMP {
        client.ack(PUBREC, id);
        client.expect_ack(PUBREL, id);
    }
    (client, id)
}

/// What the broker answers to an acknowledgement of this kind that was taken.
fn expect_taken(client: &mut Client, first: u8, id: u16, refused: bool) {
    match first {
        PUBREC if !refused => drop(client.expect_ack(PUBREL, id)),
        PUBREL => assert_eq!(client.expect_ack(PUBCOMP, id).code, 0),
        _ => {}
    }
    client.expect_quiet();
}

#[test]
fn u5_3_4_2_1_acknowledgements_have_three_lengths() {
    each(|b| {
        for (first, _, _) in KINDS {
            for tail in [&[][..], &[0], &[0, 0]] {
                let (mut client, id) = waiting_for(b, first);
                client.send(packet(first, [&id.to_be_bytes()[..], tail].concat()));
                expect_taken(&mut client, first, id, false);
            }
        }
    });
}

#[test]
fn u5_3_4_2_1_acknowledgements_with_properties_are_taken() {
    each(|b| {
        let properties = [
            Property::ReasonString("why".into()),
            Property::User("n".into(), "v".into()),
            Property::User("n".into(), "v".into()),
        ];
        for (first, _, error) in KINDS {
            for code in [0, error] {
                let (mut client, id) = waiting_for(b, first);
                let body = [&id.to_be_bytes()[..], &[code], &block(&properties)].concat();
                client.send(packet(first, body));
                expect_taken(&mut client, first, id, code >= 0x80);
            }
        }
    });
}

#[test]
fn mqtt_3_4_2_1_mqtt_3_5_2_1_mqtt_3_6_2_1_mqtt_3_7_2_1_other_codes_than_those_of_the_table_are_refused() {
    // The standard names no code for it; ringmq calls it a protocol error.
    each(|b| {
        let publish_codes = [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
        for (first, label, _) in KINDS {
            let known: &[u8] =
                if first == PUBACK || first == PUBREC { &publish_codes } else { &[0x00, 0x92] };
            for code in [0x01, 0x02, 0x04, 0x10, 0x11, 0x18, 0x7F, 0x81, 0x82, 0x8F, 0x92, 0x9B, 0xA2, 0xFF] {
                if !known.contains(&code) {
                    let label = format!("{label} {code:#04x}");
                    refuse(b, V5, &label, encode::ack_code(first, 9, code), &[0x82]);
                }
            }
        }
    });
}

#[test]
fn mqtt_3_4_2_1_mqtt_3_5_2_1_mqtt_4_4_0_2_every_code_of_the_table_is_taken() {
    each(|b| {
        for code in [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99] {
            for first in [PUBACK, PUBREC] {
                let (mut client, id) = waiting_for(b, first);
                client.ack_code(first, id, code);
                expect_taken(&mut client, first, id, code >= 0x80);
            }
        }
        for first in [PUBREL, PUBCOMP] {
            let (mut client, id) = waiting_for(b, first);
            client.ack_code(first, id, 0x92);
            expect_taken(&mut client, first, id, true);
        }
    });
}

#[test]
fn u5_3_4_2_2_mqtt_3_4_2_1_mqtt_3_5_2_1_a_publish_without_a_subscriber_says_so_or_success() {
    each(|b| {
        let mut client = Client::fresh(b, V5);
        let topic = name("t");
        for qos in [1, 2] {
            let code = client.publish(&Publish::new(&*topic, "x").qos(qos, 3));
            assert!([0x00, 0x10].contains(&code), "{code:#04x}");
        }
        client.subscribe(&topic, 0);
        let code = client.publish(&Publish::new(&*topic, "x").qos(1, 3));
        assert_eq!(code, 0x00, "somebody is there");
    });
}

#[test]
fn u311_3_4_1_acknowledgements_of_3_1_1_have_two_bytes() {
    each(|b| {
        for (first, label, _) in KINDS {
            for body in [&[][..], &[0], &[0, 9, 0], &[0, 9, 0, 0]] {
                refuse(b, V311, &format!("{label} of {}", body.len()), packet(first, body), &[]);
            }
        }
    });
}

#[test]
fn mqtt_3_4_2_2_mqtt_3_4_2_3_mqtt_3_5_2_2_mqtt_3_5_2_3_answers_fit_a_small_maximum_packet_size() {
    // The rules of the client refuse whatever is larger; here is what may be cut down for it.
    each(|b| {
        let (mut client, topic) = small(b);
        let code = client.publish(&Publish::new("$SYS/not/for/you", "x").qos(1, 3));
        assert!(code == 0x10 || code >= 0x80, "{code:#04x}");
        client.publish(&Publish::new("$SYS/not/for/you", "x").qos(2, 3));
        client.say(&topic, "x", 1);
        client.say(&topic, "x", 2);
        client.expect_quiet();
    });
}

#[test]
fn mqtt_3_6_2_2_mqtt_3_6_2_3_mqtt_3_7_2_2_mqtt_3_7_2_3_answers_to_unknown_identifiers_fit_too() {
    each(|b| {
        let (mut client, _) = small(b);
        client.ack(PUBREC, 44);
        assert_eq!(client.expect_ack(PUBREL, 44).code, 0x92);
        client.ack(PUBREL, 45);
        assert_eq!(client.expect_ack(PUBCOMP, 45).code, 0x92);
    });
}

#[test]
fn mqtt_3_1_2_29_without_problem_information_only_connack_and_disconnect_have_words() {
    each(|b| {
        let connect = Connect::new(V5, name("c")).with(Property::RequestProblemInfo(0));
        let mut client = Client::accepted(b, &connect);
        let worded = |properties: &[Property]| properties.iter().any(|p| p.id() == 0x1F || p.id() == 0x26);
        let topic = name("t");
        // Every answer that has a failure to tell.
        client.send(encode::subscribe(V5, 1, &[], &[("a/#/b", 1), (&topic, 1)]));
        assert!(!worded(&client.expect_suback_whole(1).properties));
        client.send(encode::unsubscribe(V5, 2, &["never"]));
        match client.expect_packet() {
            Packet::Unsuback(unsuback) => assert!(!worded(&unsuback.properties)),
            other => panic!("{other:?}"),
        }
        for (qos, first) in [(1, PUBACK), (2, PUBREC)] {
            client.send_publish(&Publish::new(name("nobody"), "x").qos(qos, 5));
            assert!(!worded(&client.expect_ack(first, 5).properties));
            client.send_publish(&Publish::new("$SYS/broker/x", "x").qos(qos, 6));
            assert!(!worded(&client.expect_ack(first, 6).properties));
        }
        client.ack(PUBREC, 44);
        assert!(!worded(&client.expect_ack(PUBREL, 44).properties));
        client.ack(PUBREL, 45);
        assert!(!worded(&client.expect_ack(PUBCOMP, 45).properties));
        // What others publish keeps its User Properties.
        let publish = Publish::new(&*topic, "x").with(Property::User("n".into(), "v".into()));
        Client::fresh(b, V5).send_publish(&publish);
        assert!(worded(&client.expect_publish().properties));
    });
}

/// A client whose Maximum Packet Size has room for codes, and not for words.
pub fn small(broker: &Broker) -> (Client, String) {
    let connect = Connect::new(V5, name("c")).with(Property::MaximumPacketSize(24));
    (Client::accepted(broker, &connect), name("t"))
}

#[test]
fn mqtt_4_3_3_4_mqtt_4_3_3_11_u5_4_3_1_u5_4_3_2_each_of_a_run_has_its_own_answer() {
    const KNOWN: u16 = 100;
    each(|b| {
        // Every second identifier is known, in more than the broker handles at once.
        let topic = name("t");
        let mut client = Client::fresh(b, V5);
        for id in 1..=KNOWN {
            client.send_publish(&Publish::new(&*topic, "x").qos(2, 2 * id));
            client.expect_ack(PUBREC, 2 * id);
        }
        let code_of = |known: bool| if known { 0 } else { 0x92 };
        client.send((1..=2 * KNOWN).flat_map(|id| encode::ack(PUBREL, id)).collect::<Vec<u8>>());
        for id in 1..=2 * KNOWN {
            assert_eq!(client.expect_ack(PUBCOMP, id).code, code_of(id % 2 == 0), "PUBCOMP {id}");
        }

        client.subscribe(&topic, 2);
        let mut publisher = Client::fresh(b, V5);
        (0..KNOWN).for_each(|_| publisher.say(&topic, "x", 2));
        let ids: Vec<u16> = (0..KNOWN).map(|_| client.expect_publish().packet_id).collect();
        let run: Vec<u16> = ids.iter().flat_map(|id| [*id, id + 30_000]).collect();
        client.send(run.iter().flat_map(|id| encode::ack(PUBREC, *id)).collect::<Vec<u8>>());
        for id in run {
            assert_eq!(client.expect_ack(PUBREL, id).code, code_of(ids.contains(&id)), "PUBREL {id}");
        }
        ids.iter().for_each(|id| client.ack(PUBCOMP, *id));
        client.expect_quiet();
    });
}
