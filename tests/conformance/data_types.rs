//! Chapter 1.5: strings and integers.

use crate::support::encode::{self, packet, string, vbi};
use crate::support::*;

/// Byte sequences that are not well-formed UTF-8, each for another reason.
const ILL_FORMED: [(&str, &[u8]); 9] = [
    ("a surrogate U+D800", b"a\xED\xA0\x80"),
    ("a surrogate U+DFFF", b"\xED\xBF\xBFa"),
    ("a pair of surrogates", b"\xED\xA0\xBD\xED\xB8\x80"),
    ("an over-long slash", b"\xC0\xAF"),
    ("an over-long three-byte form", b"\xE0\x80\xAF"),
    ("a continuation alone", b"a\x80b"),
    ("a sequence cut off", b"a\xE2\x82"),
    ("a code point above U+10FFFF", b"\xF4\x90\x80\x80"),
    ("a byte that UTF-8 never has", b"a\xFF"),
];

/// The null character, plain and in its over-long form.
const NULLS: [(&str, &[u8]); 3] =
    [("U+0000 alone", b"\0"), ("U+0000 inside", b"a\0b"), ("U+0000 over-long", b"a\xC0\x80")];

/// CONNECT packets with this string in each of their string fields.
fn connects_with(version: Version, text: &[u8]) -> Vec<(String, Vec<u8>)> {
    let connect = || Connect::new(version, name("c"));
    let mut out = vec![
        ("client id".to_string(), Connect::new(version, text).bytes()),
        ("will topic".to_string(), connect().will(Will::new(text, "w")).bytes()),
        ("user name".to_string(), connect().user_name(text).bytes()),
    ];
    if version == Version::V5 {
        for (label, properties) in properties_with(text, &[0x15, 0x26]) {
            out.push((format!("CONNECT {label}"), connect_with_raw(&properties, None)));
        }
        for (label, properties) in properties_with(text, &[0x03, 0x08, 0x26]) {
            out.push((format!("will {label}"), connect_with_raw(&[], Some(&properties))));
        }
    }
    out
}

/// A v5 CONNECT with properties given as bytes.
fn connect_with_raw(properties: &[u8], will_properties: Option<&[u8]>) -> Vec<u8> {
    let flags = if will_properties.is_some() { 0x06 } else { 0x02 };
    let mut body =
        [string("MQTT"), vec![5, flags, 0, 60], vbi(properties.len() as u32), properties.to_vec()].concat();
    body.extend(string(name("c")));
    if let Some(will) = will_properties {
        body.extend(vbi(will.len() as u32));
        body.extend([will, &string("will/topic"), &string("w")].concat());
    }
    packet(0x10, body)
}

/// The properties with these identifiers, each with this string; string pairs twice.
fn properties_with(text: &[u8], ids: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    for id in ids {
        if *id == 0x26 {
            out.push(("user property name".into(), [vec![0x26], string(text), string("v")].concat()));
            out.push(("user property value".into(), [vec![0x26], string("n"), string(text)].concat()));
        } else {
            out.push((format!("property {id:#04x}"), [vec![*id], string(text)].concat()));
        }
    }
    out
}

/// Packets of an accepted connection with this string in each of their string fields.
fn packets_with(version: Version, text: &[u8]) -> Vec<(String, Vec<u8>)> {
    let v5 = version == Version::V5;
    let no_properties: &[u8] = if v5 { &[0] } else { &[] };
    let mut out = vec![
        ("topic name".to_string(), packet(0x30, [&string(text), no_properties].concat())),
        (
            "topic filter".to_string(),
            packet(0x82, [&[0, 1], no_properties, &string("ok"), &[0], &string(text), &[0]].concat()),
        ),
        ("filter to remove".to_string(), packet(0xA2, [&[0, 1], no_properties, &string(text)].concat())),
    ];
    if !v5 {
        return out;
    }
    let with = |first: u8, before: &[u8], properties: &[u8], after: &[u8]| {
        packet(first, [before, &vbi(properties.len() as u32), properties, after].concat())
    };
    for (label, p) in properties_with(text, &[0x03, 0x08, 0x26]) {
        out.push((format!("PUBLISH {label}"), with(0x30, &string("t"), &p, b"payload")));
    }
    for (label, p) in properties_with(text, &[0x26]) {
        out.push((format!("SUBSCRIBE {label}"), with(0x82, &[0, 1], &p, &[0, 1, b'f', 0])));
        out.push((format!("UNSUBSCRIBE {label}"), with(0xA2, &[0, 1], &p, &[0, 1, b'f'])));
    }
    for (label, p) in properties_with(text, &[0x1F, 0x26]) {
        for first in [0x40, 0x50, 0x62, 0x70] {
            out.push((format!("ack {first:#04x} {label}"), with(first, &[0, 9, 0], &p, &[])));
        }
        out.push((format!("DISCONNECT {label}"), with(0xE0, &[0], &p, &[])));
    }
    out
}

fn refuse_everywhere(broker: &Broker, version: Version, texts: &[(&str, &[u8])]) {
    for (why, text) in texts {
        for (field, bytes) in connects_with(version, text) {
            refuse_first(broker, version, &format!("{field}: {why}"), bytes, &[0x81]);
        }
        for (field, bytes) in packets_with(version, text) {
            refuse(broker, version, &format!("{field}: {why}"), bytes, &[0x81]);
        }
    }
}

#[test]
fn mqtt_1_5_4_1_mqtt311_1_5_3_1_a_string_that_is_not_utf8_is_refused_in_every_field() {
    each_of(&[V5, V311], |b, v| refuse_everywhere(b, v, &ILL_FORMED));
}

#[test]
fn mqtt_1_5_4_2_mqtt311_1_5_3_2_a_string_with_u0000_is_refused_in_every_field() {
    each_of(&[V5, V311], |b, v| refuse_everywhere(b, v, &NULLS));
}

#[test]
fn mqtt_1_5_7_1_both_halves_of_a_string_pair_are_checked() {
    each(|b| {
        for (half, pair) in [
            ("name", [string(b"\xED\xA0\x80"), string("v")].concat()),
            ("value", [string("n"), string(b"\xC3")].concat()),
        ] {
            let properties = [vec![0x26], pair].concat();
            let body = [string("t"), vbi(properties.len() as u32), properties].concat();
            refuse(b, V5, half, packet(0x30, body), &[0x81]);
        }
    });
}

#[test]
fn mqtt_1_5_4_3_mqtt311_1_5_3_3_a_byte_order_mark_is_a_character_like_any_other() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("t");
        for marked in [format!("\u{FEFF}{topic}"), format!("{topic}\u{FEFF}"), format!("{topic}/\u{FEFF}/x")]
        {
            let mut client = Client::fresh(b, v);
            client.subscribe(&marked, 0);
            client.subscribe(&topic, 0);
            client.send_publish(&Publish::new(&*marked, "marked"));
            let got = client.expect_publish();
            assert_eq!((got.topic.as_str(), got.text().as_str()), (marked.as_str(), "marked"));
            client.expect_quiet();
        }
    });
}

#[test]
fn mqtt_1_5_5_1_an_over_long_variable_byte_integer_is_refused() {
    // ringmq writes the shortest form, which the decoder of these tests demands everywhere, and refuses others:
    // "malformed" is the one code that the standard offers for bytes that no sender may write.
    each(|b| {
        refuse(b, V5, "Remaining Length of PINGREQ", [0xC0, 0x80, 0x00], &[0x81]);
        refuse(b, V5, "Remaining Length of PUBLISH", [0x30, 0x84, 0x00, 0, 1, b't', 0], &[0x81]);
        refuse(
            b,
            V5,
            "Remaining Length in four bytes",
            [0x30, 0x84, 0x80, 0x80, 0x00, 0, 1, b't', 0],
            &[0x81],
        );
        refuse(b, V5, "property length", packet(0x30, [&string("t")[..], &[0x80, 0x00]].concat()), &[0x81]);
        let identifier = [&[0, 1, 3, 0x0B, 0x81, 0x00][..], &string("f"), &[0]].concat();
        refuse(b, V5, "subscription identifier", packet(0x82, identifier), &[0x81]);
    });
}

#[test]
fn mqtt_1_5_5_1_what_the_broker_writes_is_minimal_at_every_size_of_the_length() {
    // Payload sizes at which Remaining Length needs another byte; the decoder refuses a byte too many.
    each(|b| {
        let topic = name("t");
        let mut client = Client::fresh(b, V5);
        client.subscribe(&topic, 0);
        let header = 2 + topic.len() + 1;
        for remaining in [127, 128, 16_383, 16_384] {
            client.send_publish(&Publish::new(&*topic, vec![b'x'; remaining - header]));
            assert_eq!(client.expect_publish().payload.len(), remaining - header);
        }
    });
}

#[test]
fn u5_1_5_5_1_u311_2_2_3_1_a_variable_byte_integer_of_five_bytes_is_refused() {
    each(|b| {
        for v in [V5, V311] {
            refuse(b, v, "Remaining Length", [0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F], &[0x81]);
            refuse(b, v, "Remaining Length of zeros", [0x30, 0x80, 0x80, 0x80, 0x80, 0x00], &[0x81]);
        }
        refuse_first(b, V311, "CONNECT", [0x10, 0x80, 0x80, 0x80, 0x80, 0x01], &[]);
        let five = [&string("t")[..], &[0x80, 0x80, 0x80, 0x80, 0x00]].concat();
        refuse(b, V5, "property length", packet(0x30, five), &[0x81]);
        let identifier = [&[0, 1, 6, 0x0B, 0x80, 0x80, 0x80, 0x80, 0x01][..], &string("f"), &[0]].concat();
        refuse(b, V5, "subscription identifier", packet(0x82, identifier), &[0x81]);
    });
}

#[test]
fn u311_2_2_3_1_an_over_long_remaining_length_is_legal_in_3_1_1() {
    // Only MQTT 5 asks for the shortest form.
    each_of(&[V311, V31], |b, v| {
        let mut client = Client::fresh(b, v);
        client.send([0xC0, 0x80, 0x00]);
        assert_eq!(client.expect_packet(), Packet::Pingresp);
    });
}

#[test]
fn u5_1_5_4_1_control_characters_and_non_characters_are_accepted_and_kept() {
    // A server may refuse them. ringmq does not look for them: they do no harm to a broker, and a second look at
    // each name would cost every message.
    each_of(&[V5, V311], |b, v| {
        let topic = format!("{}/\u{1}\u{1F}\u{7F}\u{9F}\u{FFFF}\u{FDD0}\u{1FFFE}", name("t"));
        let mut client = Client::fresh(b, v);
        client.subscribe(&topic, 0);
        client.send_publish(&Publish::new(&*topic, "x"));
        assert_eq!(client.expect_publish().topic, topic);
    });
}

#[test]
fn u5_1_5_6_1_binary_data_longer_than_the_packet_is_refused() {
    each(|b| {
        // Correlation Data of 9 bytes in a property block of 5.
        let body = [&string("t")[..], &[5, 0x09, 0, 9, 1, 2], b"payload"].concat();
        refuse(b, V5, "correlation data", packet(0x30, body), &[0x81]);
        let mut connect = Connect::new(V5, name("c")).will(Will::new("w", "payload")).body();
        let at = connect.len() - 8;
        connect[at] = 9;
        refuse_first(b, V5, "will payload", packet(0x10, connect), &[0x81]);
        let password = Connect::new(V5, name("c")).password("secret").body();
        let cut = &password[..password.len() - 1];
        refuse_first(b, V5, "password", packet(0x10, cut), &[0x81]);
    });
}

#[test]
fn u5_1_5_6_1_binary_data_may_hold_any_byte() {
    each(|b| {
        let topic = name("t");
        let mut client = Client::fresh(b, V5);
        client.subscribe(&topic, 0);
        let every: Vec<u8> = (0..=255).collect();
        client.send_publish(&Publish::new(&*topic, &every).with(Property::CorrelationData(every.clone())));
        let got = client.expect_publish();
        assert_eq!(got.payload, every);
        assert_eq!(got.properties, [Property::CorrelationData(every)]);
        let empty = Publish::new(&*topic, "").with(Property::CorrelationData(Vec::new()));
        client.send(empty.bytes(V5));
        assert_eq!(client.expect_publish(), empty);
        let connect = Connect::new(V5, name("c")).user_name("u").password([0, 0xFF, 0xC0, 0x80]);
        assert_eq!(Client::connect(b, &connect).1.code, 0);
        client.send(encode::DISCONNECT);
    });
}
