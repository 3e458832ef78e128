//! CONNECT of all versions.

use proptest::prelude::*;

use super::{LIMITS, NOT_STRINGS, STRINGS, VERSIONS};
use crate::wire::testing::{Body, ConnectSpec, Prop, WillSpec, frame, properties, vbi};
use crate::wire::{Connect, ConnectError, DecodeError, Qos, Reason, Version, decode_connect};

fn read(packet: &[u8]) -> Result<Connect<'_>, ConnectError> {
    decode_connect(&frame(packet), &LIMITS)
}

/// Refused, in v5 with `reason`; 3.x closes without CONNACK.
#[track_caller]
fn refused(version: Version, packet: &[u8], reason: Reason) {
    match (version, read(packet)) {
        (Version::V5, Err(error @ ConnectError::V5(_))) => {
            assert_eq!(error.connack(), Some((Version::V5, reason)), "{error:?}");
        }
        (Version::V31 | Version::V311, Err(error @ ConnectError::V3(_))) => {
            assert_eq!(error.connack(), None);
        }
        (_, other) => panic!("{other:?} for {packet:02X?}"),
    }
}

#[track_caller]
fn malformed(version: Version, packet: &[u8]) {
    refused(version, packet, Reason::MALFORMED_PACKET);
}

/// A v5 CONNECT with these properties.
fn with(properties: &[Prop]) -> Vec<u8> {
    ConnectSpec { properties: properties.to_vec(), ..ConnectSpec::new(Version::V5) }.encode()
}

#[track_caller]
fn protocol_error(properties: &[Prop]) {
    refused(Version::V5, &with(properties), Reason::PROTOCOL_ERROR);
}

#[test]
fn smallest_and_fullest_connect_of_each_version_are_read() {
    for version in VERSIONS {
        let packet = ConnectSpec::new(version).encode();
        let connect = read(&packet).unwrap();
        assert_eq!((connect.version, connect.client_id, connect.keep_alive_s), (version, "c", 60));
        assert_eq!((connect.will, connect.user_name, connect.password), (None, None, None));
        assert_eq!((connect.receive_maximum, connect.packet_size_max), (65_535, u32::MAX));
        assert_eq!((connect.topic_alias_max, connect.session_expiry_s), (0, 0));
        assert!(connect.request_problem_information && !connect.request_response_information);

        let packet = ConnectSpec::full(version).encode();
        let connect = read(&packet).unwrap();
        assert_eq!((connect.user_name, connect.password), (Some("user"), Some(&b"secret"[..])));
        let will = connect.will.unwrap();
        assert_eq!((will.topic, will.payload), ("will/topic", &b"gone"[..]));
        assert_eq!((will.qos, will.retain), (Qos::AtLeastOnce, true));
        let v5 = version == Version::V5;
        assert_eq!((will.delay_s, will.expiry_s), if v5 { (5, Some(7)) } else { (0, None) });
        assert_eq!(will.properties.as_contiguous(), Some(if v5 { &[0x01, 1][..] } else { &[] }));
        assert_eq!(
            (connect.session_expiry_s, connect.receive_maximum),
            if v5 { (9, 10) } else { (0, 65_535) }
        );
    }
}

#[test]
fn clean_session_of_3x_is_an_expiry_of_nothing_or_never() {
    for version in [Version::V31, Version::V311] {
        for (clean_start, expected) in [(true, 0), (false, u32::MAX)] {
            let packet = ConnectSpec { clean_start, ..ConnectSpec::new(version) }.encode();
            let connect = read(&packet).unwrap();
            assert_eq!((connect.clean_start, connect.session_expiry_s), (clean_start, expected));
        }
    }
    // [U5-3.1.2-3]: in v5 Clean Start says nothing about the end.
    let packet = ConnectSpec { clean_start: false, ..ConnectSpec::new(Version::V5) }.encode();
    assert_eq!(read(&packet).unwrap().session_expiry_s, 0);
}

#[test]
fn mqtt_3_1_0_1_a_first_packet_that_is_no_connect_is_closed_silently() {
    for first in (0x00..=0xFF).filter(|first| first >> 4 != 1) {
        let packet = ConnectSpec::new(Version::V5).body_with_flags(2).packet(first);
        assert_eq!(read(&packet), Err(ConnectError::NotMqtt));
    }
    assert_eq!(ConnectError::NotMqtt.connack(), None);
}

#[test]
fn mqtt_3_1_2_1_an_unknown_protocol_name_is_closed_silently() {
    for name in ["", "mqtt", "MQTT ", "MQTt", "MQISDP", "HTTP", "MQTT\0"] {
        let packet = Body::new().str(name).u8(5).u8(2).u16(0).u8(0).str("c").packet(0x10);
        assert_eq!(read(&packet), Err(ConnectError::NotMqtt), "{name:?}");
    }
    for body in [&b""[..], b"\0", b"\0\x04", b"\0\x04MQT", b"\0\x04MQTT", b"\xFF\xFFMQTT\x05"] {
        assert_eq!(read(&Body(body.to_vec()).packet(0x10)), Err(ConnectError::NotMqtt));
    }
}

#[test]
fn mqtt_3_1_2_2_and_v31_1_a_known_name_with_another_level_is_told_so() {
    for level in 0..=0xFF {
        for name in ["MQTT", "MQIsdp"] {
            if matches!((name, level), ("MQTT", 4 | 5) | ("MQIsdp", 3)) {
                continue;
            }
            // Whatever follows is not looked at: it is not known what it means.
            let packet = Body::new().str(name).u8(level).packet(0x10);
            let error = read(&packet).unwrap_err();
            let newer = name == "MQTT" && (6..0x80).contains(&level);
            let answered = if newer { Version::V5 } else { Version::V311 };
            assert_eq!(error, ConnectError::UnsupportedVersion(answered), "{name} {level}");
            assert_eq!(error.connack(), Some((answered, Reason::UNSUPPORTED_PROTOCOL_VERSION)));
        }
    }
}

#[test]
fn mqtt_3_1_2_3_and_v31_7_reserved_connect_flag() {
    for version in VERSIONS {
        let packet = ConnectSpec::new(version).with_flags(0x03);
        if version == Version::V31 {
            assert!(read(&packet).is_ok());
        } else {
            malformed(version, &packet);
        }
    }
}

#[test]
fn u5_2_1_3_1_and_mqtt311_2_2_2_2_fixed_header_flags_of_connect() {
    for version in VERSIONS {
        for flags in 1..16 {
            let packet = ConnectSpec::new(version).body_with_flags(2).packet(0x10 | flags);
            if version == Version::V31 {
                assert!(read(&packet).is_ok());
            } else {
                malformed(version, &packet);
            }
        }
    }
}

#[test]
fn mqtt_1_5_5_1_over_long_remaining_length_of_connect_is_malformed_in_v5_only() {
    for version in VERSIONS {
        let body = ConnectSpec::new(version).body_with_flags(2).0;
        let packet = [&[0x10, body.len() as u8 | 0x80, 0x00], &body[..]].concat();
        match version {
            Version::V5 => malformed(version, &packet),
            Version::V31 | Version::V311 => assert!(read(&packet).is_ok()),
        }
    }
}

#[test]
fn mqtt_3_1_2_11_12_13_and_mqtt311_3_1_2_11_13_14_15_will_flags_agree() {
    for version in VERSIONS {
        let without = ConnectSpec::new(version);
        for flags in [0x08, 0x10, 0x18, 0x20, 0x38] {
            malformed(version, &without.with_flags(0x02 | flags));
        }
        let with = ConnectSpec { user_name: None, password: None, ..ConnectSpec::full(version) };
        for (flags, qos) in [(0x04, Some(0)), (0x0C, Some(1)), (0x14, Some(2)), (0x1C, None)] {
            for retain in [0x00, 0x20] {
                let packet = with.with_flags(0x02 | flags | retain);
                match qos {
                    None => malformed(version, &packet),
                    Some(qos) => {
                        let will = read(&packet).unwrap().will.unwrap();
                        assert_eq!((will.qos as u8, will.retain), (qos, retain != 0));
                    }
                }
            }
        }
    }
}

#[test]
fn mqtt_3_1_2_9_16_17_18_19_and_mqtt311_3_1_2_9_18_19_20_21_flags_and_fields_agree() {
    for version in VERSIONS {
        // A field without its flag is left over at the end.
        let spec = ConnectSpec { user_name: Some("user".into()), ..ConnectSpec::new(version) };
        malformed(version, &spec.with_flags(0x02));
        let spec = ConnectSpec { password: Some(b"pw".to_vec()), ..spec };
        malformed(version, &spec.with_flags(0x82));
        // A flag without its field.
        malformed(version, &ConnectSpec::new(version).with_flags(0x06));
        if version != Version::V31 {
            malformed(version, &ConnectSpec::new(version).with_flags(0x82));
            let spec = ConnectSpec { user_name: Some("user".into()), ..ConnectSpec::new(version) };
            malformed(version, &spec.with_flags(0xC2));
        }
    }
}

#[test]
fn v31_5_a_user_name_or_password_flag_without_its_field_is_tolerated() {
    let spec = ConnectSpec::new(Version::V31);
    for flags in [0x82, 0xC2] {
        let packet = spec.with_flags(flags);
        let connect = read(&packet).unwrap();
        assert_eq!((connect.user_name, connect.password), (None, None));
    }
    let packet = ConnectSpec { user_name: Some("user".into()), ..spec.clone() }.with_flags(0xC2);
    let connect = read(&packet).unwrap();
    assert_eq!((connect.user_name, connect.password), (Some("user"), None));
    // Half a field is not a missing field.
    malformed(Version::V31, &spec.body_with_flags(0x82).u8(0).packet(0x10));
}

#[test]
fn mqtt311_3_1_2_22_password_needs_a_user_name_before_v5() {
    for version in VERSIONS {
        let packet = ConnectSpec { password: Some(b"pw".to_vec()), ..ConnectSpec::new(version) }.encode();
        match version {
            Version::V5 => assert_eq!(read(&packet).unwrap().password, Some(&b"pw"[..])),
            Version::V31 | Version::V311 => malformed(version, &packet),
        }
    }
}

#[test]
fn mqtt_3_1_3_4_11_12_and_mqtt311_3_1_3_4_10_11_strings_are_utf8_without_nul() {
    for version in VERSIONS {
        let v5 = |body: Body| body.props_if_v5(version, &[]);
        let head = |flags| v5(ConnectSpec::protocol(version).u8(flags).u16(0));
        for bad in NOT_STRINGS {
            malformed(version, &head(0x02).bin(bad).packet(0x10));
            malformed(version, &v5(head(0x06).str("c")).bin(bad).bin(b"").packet(0x10));
            malformed(version, &head(0x82).str("c").bin(bad).packet(0x10));
        }
        // [MQTT-1.5.4-3]: taken as they are.
        for text in STRINGS {
            let packet = v5(head(0x86).str(text)).str(text).bin(b"").str(text).packet(0x10);
            let connect = read(&packet).unwrap();
            assert_eq!((connect.client_id, connect.user_name), (text, Some(text)));
            assert_eq!(connect.will.unwrap().topic, text);
        }
        // A password is any bytes.
        let packet = head(0xC2).str("c").str("u").bin(NOT_STRINGS[0]).packet(0x10);
        assert_eq!(read(&packet).unwrap().password, Some(NOT_STRINGS[0]));
    }
}

#[test]
fn mqtt_3_1_3_6_and_mqtt311_3_1_3_8_and_v31_2_empty_client_identifier() {
    let rejected = Err(ConnectError::V3IdentifierRejected);
    for (version, clean_start, ok) in [
        (Version::V5, true, true),
        (Version::V5, false, true),
        (Version::V311, true, true),
        (Version::V311, false, false),
        (Version::V31, true, false),
        (Version::V31, false, false),
    ] {
        let spec = ConnectSpec { clean_start, client_id: String::new(), ..ConnectSpec::new(version) };
        let packet = spec.encode();
        let expected = if ok { Ok("") } else { rejected };
        assert_eq!(read(&packet).map(|connect| connect.client_id), expected, "{version:?} {clean_start}");
        // 3.1.1: [MQTT-3.1.4-1]: malformed is not answered, even where the identifier would be.
        malformed(version, &spec.body_with_flags(spec.flags()).u8(0).packet(0x10));
    }
    let answer = Some((Version::V311, Reason::CLIENT_IDENTIFIER_NOT_VALID));
    assert_eq!(ConnectError::V3IdentifierRejected.connack(), answer);
}

#[test]
fn mqtt_4_7_3_1_and_4_7_0_1_will_topic_is_a_topic_name() {
    for version in VERSIONS {
        let will = |topic: &str| {
            let will = WillSpec { topic: topic.to_owned(), ..ConnectSpec::full(version).will.unwrap() };
            ConnectSpec { will: Some(will), ..ConnectSpec::new(version) }.encode()
        };
        for topic in ["", "+", "#", "a/+/b", "a/#", "sport+", "a/long/topic/name/that/ends/in/a/wildcard/#"] {
            refused(version, &will(topic), Reason::TOPIC_NAME_INVALID);
        }
        let deepest = "/".repeat(usize::from(LIMITS.topic_levels_max) - 1);
        assert!(read(&will(&deepest)).is_ok());
        refused(version, &will(&(deepest + "/")), Reason::TOPIC_NAME_INVALID);
    }
}

#[test]
fn u5_3_1_2_5_and_6_receive_maximum_and_maximum_packet_size_are_not_0() {
    protocol_error(&[Prop::Two(0x21, 0)]);
    protocol_error(&[Prop::Four(0x27, 0)]);
    let packet = with(&[Prop::Two(0x21, 1), Prop::Four(0x27, 1), Prop::Two(0x22, 0)]);
    let connect = read(&packet).unwrap();
    assert_eq!((connect.receive_maximum, connect.packet_size_max, connect.topic_alias_max), (1, 1, 0));
}

#[test]
fn u5_3_1_2_7_and_8_request_flags_are_0_or_1() {
    for value in 2..=0xFF {
        protocol_error(&[Prop::Byte(0x17, value)]);
        protocol_error(&[Prop::Byte(0x19, value)]);
    }
    for (byte, value) in [(0, false), (1, true)] {
        let packet = with(&[Prop::Byte(0x17, byte), Prop::Byte(0x19, byte)]);
        let connect = read(&packet).unwrap();
        assert_eq!(
            (connect.request_problem_information, connect.request_response_information),
            (value, value)
        );
    }
}

#[test]
fn u5_3_1_2_9_authentication_data_needs_a_method() {
    protocol_error(&[Prop::Data(0x16, b"data".to_vec())]);
    // [U5-2.2.2-4]: in any order.
    let packet = with(&[Prop::Data(0x16, b"data".to_vec()), Prop::text(0x15, "SCRAM-SHA-1")]);
    let connect = read(&packet).unwrap();
    assert_eq!(connect.authentication_method, Some("SCRAM-SHA-1"));
    assert_eq!(connect.authentication_data, Some(&b"data"[..]));
}

#[test]
fn u5_3_1_3_5_payload_format_indicator_of_a_will_is_0_or_1() {
    for (value, ok) in [(0, true), (1, true), (2, false), (0xFF, false)] {
        let will = WillSpec {
            properties: vec![Prop::Byte(0x01, value)],
            ..ConnectSpec::full(Version::V5).will.unwrap()
        };
        let packet = ConnectSpec { will: Some(will), ..ConnectSpec::new(Version::V5) }.encode();
        if ok {
            assert!(read(&packet).is_ok());
        } else {
            refused(Version::V5, &packet, Reason::PROTOCOL_ERROR);
        }
    }
}

#[test]
fn mqtt_2_2_2_1_both_property_lengths_of_connect_are_there() {
    let head = || ConnectSpec::protocol(Version::V5);
    malformed(Version::V5, &head().u8(0x02).u16(0).packet(0x10));
    malformed(Version::V5, &head().u8(0x06).u16(0).props(&[]).str("c").packet(0x10));
    // Without the length, the Client Identifier is taken for properties.
    malformed(Version::V5, &head().u8(0x02).u16(0).str("client").packet(0x10));
}

#[test]
fn mqtt_3_1_4_1_and_u5_2_1_4_1_and_mqtt311_3_1_4_1_a_connect_cut_anywhere_or_with_bytes_left_is_refused() {
    for version in VERSIONS {
        let spec = ConnectSpec::full(version);
        let body = spec.body_with_flags(spec.flags()).0;
        assert!(read(&Body(body.clone()).packet(0x10)).is_ok());
        let protocol_len = ConnectSpec::protocol(version).0.len();
        let user_name_at = body.len() - (2 + 4) - (2 + 6);
        for cut in 0..body.len() {
            let packet = Body(body[..cut].to_vec()).packet(0x10);
            if cut < protocol_len {
                assert_eq!(read(&packet), Err(ConnectError::NotMqtt));
            } else if version == Version::V31 && [user_name_at, user_name_at + 6].contains(&cut) {
                assert!(read(&packet).is_ok(), "[V31-5]");
            } else {
                malformed(version, &packet);
            }
        }
        malformed(version, &Body(body).u8(0).packet(0x10));
    }
}

#[test]
fn too_many_properties_of_connect_or_will_are_stopped() {
    let flood = |count: u16| vec![Prop::pair("", ""); usize::from(count)];
    let full = ConnectSpec::full(Version::V5);
    for (count, ok) in [(LIMITS.properties_max, true), (LIMITS.properties_max + 1, false)] {
        let will = WillSpec { properties: flood(count), ..full.will.clone().unwrap() };
        let in_will = ConnectSpec { will: Some(will), ..full.clone() };
        for spec in [ConnectSpec { properties: flood(count), ..full.clone() }, in_will] {
            let packet = spec.encode();
            if ok {
                assert!(read(&packet).is_ok());
            } else {
                refused(Version::V5, &packet, Reason::QUOTA_EXCEEDED);
            }
        }
    }
}

#[test]
fn debug_output_keeps_secrets() {
    let packet = ConnectSpec::full(Version::V5).encode();
    let text = format!("{:?}", read(&packet).unwrap());
    assert!(
        text.contains("\"user\"") && !text.contains("secret") && !text.contains("115, 101, 99"),
        "{text}"
    );
}

fn will() -> impl Strategy<Value = WillSpec> {
    let qos = prop::sample::select(vec![Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]);
    let properties = super::properties::message_props(0x18);
    let payload = prop::collection::vec(any::<u8>(), 0..40);
    (qos, any::<bool>(), properties, "[^\0+#/]{1,40}", payload).prop_map(
        |(qos, retain, properties, topic, payload)| WillSpec { qos, retain, properties, topic, payload },
    )
}

pub(super) fn connect() -> impl Strategy<Value = ConnectSpec> {
    let properties = (
        prop::option::of(any::<u32>()),
        prop::option::of(1..=u16::MAX),
        prop::option::of(1..=u32::MAX),
        prop::option::of(any::<u16>()),
        prop::option::of("[^\0]{0,20}"),
    )
        .prop_map(|(expiry, receive, size, alias, method)| {
            let mut props = vec![Prop::pair("a", "b")];
            props.extend(expiry.map(|value| Prop::Four(0x11, value)));
            props.extend(receive.map(|value| Prop::Two(0x21, value)));
            props.extend(size.map(|value| Prop::Four(0x27, value)));
            props.extend(alias.map(|value| Prop::Two(0x22, value)));
            props.extend(method.map(|value| Prop::Text(0x15, value)));
            props
        })
        .prop_shuffle();
    (
        prop::sample::select(VERSIONS.to_vec()),
        any::<bool>(),
        any::<u16>(),
        properties,
        "[^\0]{1,40}",
        prop::option::of(will()),
        prop::option::of(("[^\0]{0,30}", prop::option::of(prop::collection::vec(any::<u8>(), 0..30)))),
    )
        .prop_map(|(version, clean_start, keep_alive_s, properties, client_id, will, user)| {
            let (user_name, password) = match user {
                Some((user_name, password)) => (Some(user_name), password),
                None => (None, None),
            };
            ConnectSpec {
                version,
                clean_start,
                keep_alive_s,
                properties,
                client_id,
                will,
                user_name,
                password,
            }
        })
}

proptest! {
    #[test]
    fn any_valid_connect_is_read_as_it_was_meant(spec in connect()) {
        let packet = spec.encode();
        let connect = read(&packet).unwrap();
        let v5 = spec.version == Version::V5;
        prop_assert_eq!(connect.version, spec.version);
        prop_assert_eq!(connect.clean_start, spec.clean_start);
        prop_assert_eq!(connect.keep_alive_s, spec.keep_alive_s);
        prop_assert_eq!(connect.client_id, &spec.client_id);
        prop_assert_eq!(connect.user_name, spec.user_name.as_deref());
        prop_assert_eq!(connect.password, spec.password.as_deref());
        prop_assert_eq!(connect.will.is_some(), spec.will.is_some());
        if let (Some(will), Some(expected)) = (connect.will, &spec.will) {
            prop_assert_eq!(will.qos, expected.qos);
            prop_assert_eq!(will.retain, expected.retain);
            prop_assert_eq!(will.topic, &expected.topic);
            prop_assert_eq!(will.payload, &expected.payload);
            let meant: &[Prop] = if v5 { &expected.properties } else { &[] };
            super::properties::check_message(meant, will.properties, will.expiry_s, will.delay_s);
        }
        let meant = |id| spec.properties.iter().find(|prop| v5 && prop.id() == id).cloned();
        if v5 {
            let four = |id, absent| meant(id).map_or(Prop::Four(id, absent), |prop| prop);
            let two = |id, absent| meant(id).map_or(Prop::Two(id, absent), |prop| prop);
            prop_assert_eq!(Prop::Four(0x11, connect.session_expiry_s), four(0x11, 0));
            prop_assert_eq!(Prop::Four(0x27, connect.packet_size_max), four(0x27, u32::MAX));
            prop_assert_eq!(Prop::Two(0x21, connect.receive_maximum), two(0x21, u16::MAX));
            prop_assert_eq!(Prop::Two(0x22, connect.topic_alias_max), two(0x22, 0));
        }
        let method = connect.authentication_method.map(|method| Prop::text(0x15, method));
        prop_assert_eq!(method, meant(0x15));
    }
}

#[test]
fn u5_2_2_2_3_a_property_length_over_the_packet_is_malformed() {
    let block = properties(&[Prop::Four(0x11, 1)]);
    for len in [block.len() - 1, block.len() + 4, 127, 128, 1_000_000] {
        let body = ConnectSpec::protocol(Version::V5).u8(2).u16(0).raw(&vbi(len)).raw(&block).str("c");
        malformed(Version::V5, &body.packet(0x10));
    }
    assert!(matches!(read(&with(&[Prop::Byte(0x7F, 0)])), Err(ConnectError::V5(DecodeError::Malformed(_)))));
}
