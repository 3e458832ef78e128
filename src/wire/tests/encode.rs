//! What the server sends, read back by the plain parser of `testing`.

use proptest::prelude::*;

use super::{LIMITS, Packet, VERSIONS, read};
use crate::wire::testing::{Prop, frame, parse_properties, parse_property_block, parse_vbi, properties, vbi};
use crate::wire::{
    AckKind, ConnAck, ConnAckEncoded, PACKET_SIZE_MAX, PublishHead, Qos, Reason, Version, ack_packet_size,
    decode, encode_ack, encode_auth, encode_connack, encode_disconnect, encode_pingresp, encode_suback,
    encode_unsuback,
};

/// What `encode` appends; what was there before stays.
fn appended(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = b"before".to_vec();
    encode(&mut out);
    assert_eq!(&out[..6], b"before");
    out.split_off(6)
}

fn connack(version: Version, connack: &ConnAck<'_>, packet_size_max: u32) -> Option<Vec<u8>> {
    let mut outcome = ConnAckEncoded::CloseSilently;
    let bytes = appended(|out| outcome = encode_connack(out, version, connack, packet_size_max));
    assert_eq!(outcome == ConnAckEncoded::Written, !bytes.is_empty());
    (outcome == ConnAckEncoded::Written).then_some(bytes)
}

const HEAD: PublishHead<'static> = PublishHead {
    version: Version::V5,
    dup: false,
    qos: Qos::AtMostOnce,
    retain: false,
    packet_id: 0,
    topic: "t",
    topic_alias: 0,
    expiry_s: None,
    identifiers: &[],
    properties: &[],
    payload_len: 0,
};

#[test]
fn publish_of_each_version_and_qos_byte_by_byte() {
    let encode = |head: PublishHead<'_>| appended(|out| head.encode(out));
    let head = PublishHead { payload_len: 5, ..HEAD };
    assert_eq!(encode(head), b"\x30\x09\x00\x01t\x00");
    let v311 = PublishHead { version: Version::V311, ..head };
    assert_eq!(encode(v311), b"\x30\x08\x00\x01t");
    let qos1 = PublishHead { qos: Qos::AtLeastOnce, packet_id: 0x0102, dup: true, retain: true, ..head };
    assert_eq!(encode(qos1), b"\x3B\x0B\x00\x01t\x01\x02\x00");
    let everything = PublishHead {
        qos: Qos::ExactlyOnce,
        topic: "",
        topic_alias: 0x0304,
        expiry_s: Some(5),
        identifiers: &[1, 300],
        properties: b"\x01\x01",
        payload_len: 0,
        ..qos1
    };
    let expected = b"\x3D\x14\x00\x00\x01\x02\x0F\x02\0\0\0\x05\x23\x03\x04\x0B\x01\x0B\xAC\x02\x01\x01";
    assert_eq!(encode(everything), expected);
    // [U5-3.3.4-6]: 3.x gets no properties.
    let dropped = PublishHead { version: Version::V31, topic: "t", ..everything };
    assert_eq!(encode(dropped), b"\x3D\x05\x00\x01t\x01\x02");
}

#[test]
fn mqtt_2_2_1_2_a_publish_at_qos_0_has_no_packet_identifier() {
    for version in VERSIONS {
        let with_id = PublishHead { version, packet_id: 7, ..HEAD };
        let without = PublishHead { version, ..HEAD };
        assert_eq!(appended(|out| with_id.encode(out)), appended(|out| without.encode(out)));
    }
}

#[test]
fn mqtt_3_1_2_24_the_size_of_a_publish_is_known_before_it_is_written() {
    let steps = [
        (123, 129),
        (124, 131),
        (16_379, 16_386),
        (16_380, 16_388),
        (2_097_147, 2_097_155),
        (2_097_148, 2_097_157),
    ];
    for (payload_len, size) in steps {
        assert_eq!(PublishHead { payload_len, ..HEAD }.packet_size(), size);
    }
    let largest = PublishHead { payload_len: 268_435_455 - 4, ..HEAD };
    assert_eq!(largest.packet_size(), PACKET_SIZE_MAX);
    assert_eq!(appended(|out| largest.encode(out)), b"\x30\xFF\xFF\xFF\x7F\x00\x01t\x00");
    // What MQTT cannot express is above any client's limit, also above none.
    let larger = PublishHead { payload_len: 268_435_455 - 3, ..HEAD };
    assert_eq!(larger.packet_size(), usize::MAX);
    let topic = "t".repeat(65_536);
    assert_eq!(PublishHead { topic: &topic, ..HEAD }.packet_size(), usize::MAX);
}

proptest! {
    #[test]
    fn any_publish_is_read_back_as_it_was_meant(
        version in prop::sample::select(VERSIONS.to_vec()),
        qos in prop::sample::select(vec![Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]),
        (dup, retain) in any::<(bool, bool)>(),
        packet_id in 1..=u16::MAX,
        topic in "[^\0+#/]{1,200}",
        topic_alias in 0..=LIMITS.topic_alias_max,
        expiry_s in prop::option::of(any::<u32>()),
        identifiers in prop::collection::vec(1_u32..=268_435_455, 0..5),
        props in super::properties::message_props(0x23),
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let forwardable: Vec<Prop> =
            props.into_iter().filter(|prop| ![0x02, 0x23].contains(&prop.id())).collect();
        let clean = properties(&forwardable);
        let dup = dup && qos != Qos::AtMostOnce;
        let head = PublishHead {
            version, dup, qos, retain, packet_id, topic: &topic, topic_alias, expiry_s,
            identifiers: &identifiers, properties: &clean, payload_len: payload.len(),
        };
        let mut packet = appended(|out| head.encode(out));
        packet.extend(&payload);
        prop_assert_eq!(packet.len(), head.packet_size());
        let found = frame(&packet);
        prop_assert_eq!(found.len, packet.len());
        prop_assert_eq!(&packet[1..packet.len() - found.body.len()], &vbi(found.body.len())[..]);

        // By the plain parser, with the Subscription Identifiers that the decoder refuses.
        let mut at = 2 + topic.len() + if qos == Qos::AtMostOnce { 0 } else { 2 };
        if version == Version::V5 {
            let (len, len_bytes) = parse_vbi(&found.body[at..]);
            at += len_bytes;
            let block = parse_properties(&found.body[at..at + len as usize]);
            let mut meant: Vec<Prop> = expiry_s.map(|value| Prop::Four(0x02, value)).into_iter().collect();
            if topic_alias != 0 {
                meant.push(Prop::Two(0x23, topic_alias));
            }
            meant.extend(identifiers.iter().map(|&value| Prop::Vbi(0x0B, value)));
            meant.extend(forwardable.clone());
            prop_assert_eq!(block, meant);
            at += len as usize;
        }
        prop_assert_eq!(&found.body[at..], &payload[..]);

        // By the decoder.
        let bare = PublishHead { identifiers: &[], ..head };
        let mut packet = appended(|out| bare.encode(out));
        packet.extend(&payload);
        let Ok(Packet::Publish(publish)) = decode(version, &frame(&packet), &LIMITS) else { panic!() };
        let v5 = version == Version::V5;
        prop_assert_eq!((publish.dup, publish.qos, publish.retain), (dup, qos, retain));
        prop_assert_eq!(publish.topic, &topic);
        prop_assert_eq!(publish.packet_id, if qos == Qos::AtMostOnce { 0 } else { packet_id });
        prop_assert_eq!(publish.topic_alias, if v5 { topic_alias } else { 0 });
        prop_assert_eq!(publish.expiry_s, expiry_s.filter(|_| v5));
        prop_assert_eq!(publish.properties.as_contiguous(), Some(if v5 { &clean[..] } else { &[] }));
        prop_assert_eq!(publish.payload, &payload);
    }
}

#[test]
fn u5_3_4_2_1_and_mqtt311_u311_3_4_1_acknowledgements_are_short() {
    let kinds =
        [(AckKind::PubAck, 0x40), (AckKind::PubRec, 0x50), (AckKind::PubRel, 0x62), (AckKind::PubComp, 0x70)];
    for (kind, first) in kinds {
        let error = match kind {
            AckKind::PubAck | AckKind::PubRec => Reason::NOT_AUTHORIZED,
            AckKind::PubRel | AckKind::PubComp => Reason::PACKET_IDENTIFIER_NOT_FOUND,
        };
        for version in VERSIONS {
            for reason in [Reason::SUCCESS, error] {
                let packet = appended(|out| encode_ack(out, version, kind, 0x0102, reason));
                if version == Version::V5 && reason == error {
                    assert_eq!(packet, [first, 3, 1, 2, error.0]);
                } else {
                    assert_eq!(packet, [first, 2, 1, 2]);
                }
                assert_eq!(packet.len(), ack_packet_size(version, reason));
                assert!(read(version, &packet).is_ok());
            }
        }
    }
}

#[test]
fn mqtt_3_9_3_1_and_mqtt311_3_9_3_2_and_v31_4_suback_has_one_code_per_filter_in_order() {
    let reasons = [Reason(0), Reason::NOT_AUTHORIZED, Reason(2), Reason(1), Reason::TOPIC_FILTER_INVALID];
    let encode = |version| appended(|out| encode_suback(out, version, 0x0102, &reasons));
    assert_eq!(encode(Version::V5), [0x90, 8, 1, 2, 0, 0x00, 0x87, 0x02, 0x01, 0x8F]);
    assert_eq!(encode(Version::V311), [0x90, 7, 1, 2, 0x00, 0x80, 0x02, 0x01, 0x80]);
    let granted = [Reason(0), Reason(1), Reason(2)];
    let packet = appended(|out| encode_suback(out, Version::V31, 0x0102, &granted));
    assert_eq!(packet, [0x90, 5, 1, 2, 0, 1, 2]);
    // A failure that 3.1 cannot be told is the least that can be granted.
    let packet = appended(|out| encode_suback(out, Version::V31, 1, &[Reason::NOT_AUTHORIZED]));
    assert_eq!(packet, [0x90, 3, 0, 1, 0]);
}

#[test]
fn mqtt_3_11_3_1_and_mqtt311_u311_3_4_1_unsuback_has_one_code_per_filter_in_v5_only() {
    let reasons = [Reason::NO_SUBSCRIPTION_EXISTED, Reason::SUCCESS, Reason::NOT_AUTHORIZED];
    let encode = |version| appended(|out| encode_unsuback(out, version, 0x0102, &reasons));
    assert_eq!(encode(Version::V5), [0xB0, 6, 1, 2, 0, 0x11, 0x00, 0x87]);
    assert_eq!(encode(Version::V311), [0xB0, 2, 1, 2]);
    assert_eq!(encode(Version::V31), [0xB0, 2, 1, 2]);
}

#[test]
fn suback_and_unsuback_of_every_length_say_how_long_they_are() {
    for count in [1, 124, 125, 126, 127, 16_380, 16_381, 16_382, 65_535] {
        let reasons = vec![Reason::SUCCESS; count];
        for version in VERSIONS {
            let packet = appended(|out| encode_suback(out, version, 1, &reasons));
            assert_eq!(frame(&packet).len, packet.len());
            let packet = appended(|out| encode_unsuback(out, version, 1, &reasons));
            assert_eq!(frame(&packet).len, packet.len());
        }
    }
}

#[test]
fn mqtt_3_12_4_1_pingresp() {
    assert_eq!(appended(encode_pingresp), [0xD0, 0x00]);
}

#[test]
fn mqtt_3_14_2_3_disconnect_leaves_out_its_text_and_then_itself_to_fit() {
    let encode = |text, max| appended(|out| encode_disconnect(out, Reason::PROTOCOL_ERROR, text, max));
    assert_eq!(encode(None, u32::MAX), [0xE0, 1, 0x82]);
    let full = b"\xE0\x08\x82\x06\x1F\x00\x03why";
    assert_eq!(encode(Some("why"), u32::MAX), full);
    assert_eq!(encode(Some("why"), full.len() as u32), full);
    assert_eq!(encode(Some("why"), full.len() as u32 - 1), [0xE0, 1, 0x82]);
    assert_eq!(encode(Some("why"), 3), [0xE0, 1, 0x82]);
    assert_eq!(encode(Some("why"), 2), [0_u8; 0]);
    // Text that no string can hold is left out as well.
    let (too_long, longest) = ("y".repeat(65_536), "y".repeat(65_535));
    assert_eq!(encode(Some(&too_long), u32::MAX), [0xE0, 1, 0x82]);
    let packet = encode(Some(&longest), u32::MAX);
    let body = frame(&packet).body;
    assert_eq!(parse_property_block(&body[1..]), (vec![Prop::Text(0x1F, longest)], &[][..]));
}

#[test]
fn mqtt_4_12_0_2_and_5_auth_repeats_the_method() {
    let reason = Reason::CONTINUE_AUTHENTICATION;
    let packet = appended(|out| encode_auth(out, reason, "SCRAM", Some(&[1, 2])));
    assert_eq!(packet, b"\xF0\x0F\x18\x0D\x15\x00\x05SCRAM\x16\x00\x02\x01\x02");
    let packet = appended(|out| encode_auth(out, Reason::SUCCESS, "SCRAM", None));
    assert_eq!(packet, b"\xF0\x0A\x00\x08\x15\x00\x05SCRAM");
    let method = "m".repeat(200);
    let packet = appended(|out| encode_auth(out, reason, &method, Some(&[0; 300])));
    let Ok(Packet::Auth(auth)) = read(Version::V5, &packet) else { panic!() };
    assert_eq!((auth.method, auth.data), (Some(&method[..]), Some(&[0; 300][..])));
}

#[test]
fn u311_3_2_2_1_and_v31_3_connack_of_3x_is_four_bytes() {
    let accepted = ConnAck { session_present: true, receive_maximum: Some(5), ..ConnAck::default() };
    assert_eq!(connack(Version::V311, &accepted, u32::MAX).unwrap(), [0x20, 2, 1, 0]);
    assert_eq!(connack(Version::V31, &accepted, u32::MAX).unwrap(), [0x20, 2, 0, 0]);
    let accepted = ConnAck { session_present: false, ..accepted };
    assert_eq!(connack(Version::V311, &accepted, u32::MAX).unwrap(), [0x20, 2, 0, 0]);
}

#[test]
fn mqtt311_3_2_2_4_and_6_connack_codes_of_3x() {
    let codes = |code| match code {
        0x84 => Some(1),
        0x85 => Some(2),
        0x88 | 0x89 | 0x97 | 0x9F => Some(3),
        0x86 => Some(4),
        0x87 | 0x8A | 0x8C => Some(5),
        _ => None,
    };
    for version in [Version::V31, Version::V311] {
        for code in 1..=0xFF {
            let refused = ConnAck { session_present: true, reason: Reason(code), ..ConnAck::default() };
            let expected = codes(code).map(|code| vec![0x20, 2, 0, code]);
            assert_eq!(connack(version, &refused, u32::MAX), expected, "{code:#04X}");
        }
    }
}

#[test]
fn mqtt_3_2_2_1_and_3_2_2_6_session_present_only_with_success() {
    for (session_present, reason, expected) in [
        (false, Reason::SUCCESS, [0x20, 3, 0, 0x00, 0]),
        (true, Reason::SUCCESS, [0x20, 3, 1, 0x00, 0]),
        (true, Reason::NOT_AUTHORIZED, [0x20, 3, 0, 0x87, 0]),
        (false, Reason::UNSUPPORTED_PROTOCOL_VERSION, [0x20, 3, 0, 0x84, 0]),
    ] {
        let answer = ConnAck { session_present, reason, ..ConnAck::default() };
        assert_eq!(connack(Version::V5, &answer, u32::MAX).unwrap(), expected);
    }
}

#[test]
fn mqtt_3_2_2_16_and_u5_3_2_2_2_connack_announces_what_it_is_told_and_nothing_else() {
    let everything = ConnAck {
        session_present: true,
        reason: Reason::SUCCESS,
        session_expiry_s: Some(0x0102_0304),
        receive_maximum: Some(20),
        maximum_qos: Some(Qos::AtLeastOnce),
        retain_available: Some(false),
        packet_size_max: Some(1_048_576),
        assigned_client_id: Some("assigned"),
        topic_alias_max: Some(30),
        reason_string: Some("welcome"),
        user_properties: &[("a", "1"), ("a", "2")],
        wildcard_subscription_available: Some(true),
        subscription_identifier_available: Some(false),
        shared_subscription_available: Some(true),
        server_keep_alive_s: Some(40),
        response_information: Some("reply/"),
        server_reference: Some("other:1883"),
        authentication_method: Some("SCRAM"),
        authentication_data: Some(&[7, 8]),
    };
    let packet = connack(Version::V5, &everything, u32::MAX).unwrap();
    let body = frame(&packet).body;
    assert_eq!(body[..2], [1, 0]);
    let (mut found, rest) = parse_property_block(&body[2..]);
    assert!(rest.is_empty());
    let mut expected = vec![
        Prop::Four(0x11, 0x0102_0304),
        Prop::text(0x12, "assigned"),
        Prop::Two(0x13, 40),
        Prop::text(0x15, "SCRAM"),
        Prop::Data(0x16, vec![7, 8]),
        Prop::text(0x1A, "reply/"),
        Prop::text(0x1C, "other:1883"),
        Prop::text(0x1F, "welcome"),
        Prop::Two(0x21, 20),
        Prop::Two(0x22, 30),
        Prop::Byte(0x24, 1),
        Prop::Byte(0x25, 0),
        Prop::pair("a", "1"),
        Prop::pair("a", "2"),
        Prop::Four(0x27, 1_048_576),
        Prop::Byte(0x28, 1),
        Prop::Byte(0x29, 0),
        Prop::Byte(0x2A, 1),
    ];
    found.sort_by_key(Prop::id);
    expected.sort_by_key(Prop::id);
    assert_eq!(found, expected);
    // A Maximum QoS of 2 must not be sent: its absence means 2.
    let qos2 = ConnAck { maximum_qos: Some(Qos::ExactlyOnce), ..ConnAck::default() };
    assert_eq!(connack(Version::V5, &qos2, u32::MAX).unwrap(), [0x20, 3, 0, 0, 0]);
}

#[test]
fn mqtt_3_2_2_19_and_20_connack_leaves_out_its_text_to_fit() {
    let answer = ConnAck {
        receive_maximum: Some(20),
        reason_string: Some("why"),
        user_properties: &[("name", "value")],
        ..ConnAck::default()
    };
    let ids = |max| {
        connack(Version::V5, &answer, max).map(|packet| {
            assert!(packet.len() <= max as usize);
            let (props, _) = parse_property_block(&frame(&packet).body[2..]);
            props.iter().map(Prop::id).collect::<Vec<_>>()
        })
    };
    let (bare, explained, full) = (5 + 3, 5 + 3 + 6, 5 + 3 + 6 + 14);
    for max in 0..=full + 5 {
        let expected = match max {
            _ if max < bare => None,
            _ if max < explained => Some(vec![0x21]),
            _ if max < full => Some(vec![0x21, 0x1F]),
            _ => Some(vec![0x21, 0x1F, 0x26]),
        };
        assert_eq!(ids(max), expected, "{max}");
    }
}
