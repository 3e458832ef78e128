//! What MQTT 3.1 does otherwise than 3.1.1, and the transport that all versions share.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::encode::{self, PUBACK, PUBCOMP, PUBREC, PUBREL, packet, string};
use crate::support::*;

#[test]
fn v31_5_a_user_name_or_password_flag_without_its_field_is_tolerated() {
    each(|b| {
        for (flags, parts) in [(0x82, vec!["id"]), (0xC2, vec!["id"]), (0xC2, vec!["id", "user"])] {
            let mut body = [&string("MQIsdp")[..], &[3, flags, 0, 60]].concat();
            for part in parts {
                body.extend(string(if part == "id" { name("c") } else { part.to_string() }));
            }
            let mut client = Client::open(b, V31);
            client.send(packet(0x10, body));
            assert_eq!(client.expect_connack().code, 0);
            client.ping();
        }
    });
}

#[test]
fn v31_6_header_bits_that_3_1_does_not_use_are_ignored() {
    each(|b| {
        let topic = name("t");
        let mut client = Client::fresh(b, V31);
        for first in [0x82, 0x8A] {
            let mut subscribe = encode::subscribe(V31, 3, &[], &[(&topic, 1)]);
            subscribe[0] = first;
            client.send(subscribe);
            assert_eq!(client.expect_suback(3), [1]);
        }
        client.send_publish(&Publish::new(name("t"), "x").qos(2, 4));
        client.expect_ack(PUBREC, 4);
        for first in [PUBREL, 0x6A] {
            client.send(packet(first, [0, 4]));
            client.expect_ack(PUBCOMP, 4);
        }
        for first in [0xA2, 0xAA] {
            let mut unsubscribe = encode::unsubscribe(V31, 5, &[&topic]);
            unsubscribe[0] = first;
            client.send(unsubscribe);
            assert!(matches!(client.expect_packet(), Packet::Unsuback(_)));
        }
        client.send([0xC1, 0]);
        assert_eq!(client.expect_packet(), Packet::Pingresp);
    });
}

#[test]
fn v31_7_the_reserved_connect_flag_is_not_checked() {
    each(|b| drop(Client::accepted(b, &Connect::new(V31, name("c")).flags(0x03))));
}

#[test]
fn v31_8_packets_sent_again_on_a_timer_are_answered_again() {
    each(|b| {
        let topic = name("t");
        let mut subscriber = Client::fresh(b, V31);
        subscriber.subscribe(&topic, 2);
        let mut client = Client::fresh(b, V31);
        let publish = Publish::new(&*topic, "once").qos(2, 6);
        client.send_publish(&publish);
        client.expect_ack(PUBREC, 6);
        client.send_publish(&publish.clone().dup());
        client.expect_ack(PUBREC, 6);
        for first in [PUBREL, 0x6A] {
            client.send(packet(first, [0, 6]));
            client.expect_ack(PUBCOMP, 6);
        }
        assert_eq!(subscriber.expect_texts(1), ["once"]);
        subscriber.expect_quiet();
        // QoS 1 is a new message each time.
        for _ in 0..2 {
            client.send_publish(&Publish::new(&*topic, "twice").qos(1, 7).dup());
            client.expect_ack(PUBACK, 7);
        }
        assert_eq!(subscriber.expect_texts(2), ["twice", "twice"]);
    });
}

#[test]
fn v31_9_the_bridge_mark_of_other_brokers_is_refused_as_an_unknown_level() {
    // Some brokers take a level with its highest bit set for a bridge of their kind. ringmq keeps to the standards:
    // whoever needs what it stands for has No Local and Retain As Published in MQTT 5.
    each(|b| {
        for (protocol, level) in [("MQIsdp", 0x83), ("MQTT", 0x84)] {
            let body = [&string(protocol)[..], &[level, 2, 0, 60], &string(name("c"))].concat();
            let mut client = Client::open(b, V311);
            client.send(packet(0x10, body));
            assert_eq!(client.raw_until_closed(), [0x20, 2, 0, 1]);
        }
    });
}

#[test]
fn v31_2_ids_longer_than_23_bytes_are_tolerated() {
    each(|b| drop(Client::accepted(b, &Connect::new(V31, format!("{}-and-more-than-23-bytes", name("c"))))));
}

#[test]
fn mqtt_4_2_0_1_mqtt311_7_1_1_1_the_transport_is_an_ordered_lossless_stream() {
    // Plain TCP: a megabyte each way on one connection, in pieces of every size, arrives as it was sent.
    each_of(&[V5, V311], |b, v| {
        let topic = name("t");
        let mut client = Client::fresh(b, v);
        client.subscribe(&topic, 0);
        let payload: Vec<u8> = (0..1 << 20).map(|i: u32| (i * 7 % 251) as u8).collect();
        let bytes = Publish::new(&*topic, &payload).bytes(v);
        let mut rest = &bytes[..];
        let mut size = 1;
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(size.min(rest.len()));
            client.send(piece);
            rest = later;
            size = size * 3 / 2 + 1;
        }
        assert!(client.expect_publish().payload == payload);
        client.expect_quiet();
    });
}

#[test]
fn mqtt_4_2_0_1_a_client_that_is_not_of_these_tests_makes_the_same_of_the_stream() {
    // The whole exchange in bytes, read with nothing but a socket.
    each(|b| {
        let mut socket = TcpStream::connect(b.address()).expect("accepted");
        socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).expect("a timeout");
        let id = name("c");
        let connect = [
            &[0x10, 12 + id.len() as u8, 0, 4][..],
            b"MQTT\x04\x02\0\x3C\0",
            &[id.len() as u8],
            id.as_bytes(),
        ];
        socket.write_all(&connect.concat()).expect("sent");
        let mut answer = [0; 4];
        socket.read_exact(&mut answer).expect("CONNACK");
        assert_eq!(answer, [0x20, 2, 0, 0]);
        socket.write_all(b"\x82\x0B\0\x01\0\x06/raw/x\x01").expect("sent");
        let mut answer = [0; 5];
        socket.read_exact(&mut answer).expect("SUBACK");
        assert_eq!(answer, [0x90, 3, 0, 1, 1]);
        socket.write_all(b"\xC0\0\xE0\0").expect("sent");
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).expect("closed");
        assert_eq!(rest, [0xD0, 0]);
    });
}
