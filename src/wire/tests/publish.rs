//! PUBLISH of all versions.

use proptest::prelude::*;

use super::{LIMITS, NOT_STRINGS, Packet, STRINGS, VERSIONS, malformed, protocol_error, read, refusal};
use crate::wire::testing::{Body, Prop, PublishSpec};
use crate::wire::{Publish, Qos, Reason, Version};

const ALL_QOS: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

#[track_caller]
fn publish(version: Version, packet: &[u8]) -> Publish<'_> {
    match read(version, packet) {
        Ok(Packet::Publish(publish)) => publish,
        other => panic!("{other:?} for {packet:02X?}"),
    }
}

#[test]
fn every_legal_combination_of_flags_is_read() {
    for version in VERSIONS {
        for qos in ALL_QOS {
            for (dup, retain) in [(false, false), (false, true), (true, false), (true, true)] {
                if dup && qos == Qos::AtMostOnce {
                    continue;
                }
                let packet = PublishSpec { dup, retain, ..PublishSpec::new(version, qos, "a/b") }.encode();
                let found = publish(version, &packet);
                assert_eq!((found.dup, found.qos, found.retain), (dup, qos, retain));
                assert_eq!((found.topic, found.payload), ("a/b", &b"hello"[..]));
                assert_eq!(found.packet_id, if qos == Qos::AtMostOnce { 0 } else { 7 });
                assert_eq!((found.topic_alias, found.expiry_s), (0, None));
                assert!(found.properties.is_empty());
            }
        }
    }
}

#[test]
fn u311_3_3_3_1_an_empty_payload_is_legal() {
    for version in VERSIONS {
        let spec = PublishSpec { payload: Vec::new(), ..PublishSpec::new(version, Qos::AtLeastOnce, "t") };
        assert_eq!(publish(version, &spec.encode()).payload, b"");
    }
}

#[test]
fn mqtt_3_3_1_2_dup_at_qos_0_is_malformed() {
    for version in VERSIONS {
        malformed(
            version,
            &PublishSpec { dup: true, ..PublishSpec::new(version, Qos::AtMostOnce, "t") }.encode(),
        );
    }
}

#[test]
fn mqtt_3_3_1_4_qos_3_is_malformed() {
    for version in VERSIONS {
        for first in [0x36, 0x37, 0x3E, 0x3F] {
            malformed(version, &Body::new().str("t").u16(7).props_if_v5(version, &[]).packet(first));
        }
    }
}

#[test]
fn mqtt_2_2_1_3_and_mqtt311_2_3_1_1_packet_identifier_is_not_0() {
    for version in VERSIONS {
        for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
            protocol_error(
                version,
                &PublishSpec { packet_id: 0, ..PublishSpec::new(version, qos, "t") }.encode(),
            );
        }
    }
}

#[test]
fn mqtt_3_3_2_1_and_4_7_3_2_topic_name_is_utf8_without_nul() {
    for version in VERSIONS {
        for bad in NOT_STRINGS {
            malformed(version, &Body::new().bin(bad).props_if_v5(version, &[]).packet(0x30));
        }
        for topic in STRINGS {
            let packet = PublishSpec::new(version, Qos::AtMostOnce, topic).encode();
            assert_eq!(publish(version, &packet).topic, topic, "[MQTT-1.5.4-3]");
        }
    }
}

#[test]
fn mqtt_3_3_2_2_and_4_7_0_1_topic_name_has_no_wildcard() {
    let long = "/0123456789".repeat(8);
    for version in VERSIONS {
        for wildcard in ["+", "#"] {
            for len in 0..24 {
                let around = &long[..len];
                for topic in [
                    format!("{wildcard}{around}"),
                    format!("{around}{wildcard}"),
                    format!("{around}{wildcard}{long}"),
                ] {
                    let packet = PublishSpec::new(version, Qos::AtMostOnce, &topic).encode();
                    assert_eq!(refusal(version, &packet), Reason::TOPIC_NAME_INVALID, "{topic}");
                }
            }
        }
        // Their neighbours in ASCII are no wildcards, nor are characters that end in the same byte.
        for topic in
            ["*", ",", "\"", "$", "\u{1}", "\u{2B00}\u{2300}", "+\u{FF0B}"[1..].as_ref(), "a/b/c/d/e/f/g/*"]
        {
            let packet = PublishSpec::new(version, Qos::AtMostOnce, topic).encode();
            assert_eq!(publish(version, &packet).topic, topic);
        }
    }
}

#[test]
fn mqtt_4_7_3_1_and_u5_3_3_2_1_an_empty_topic_name_needs_an_alias() {
    for version in VERSIONS {
        protocol_error(version, &PublishSpec::new(version, Qos::AtMostOnce, "").encode());
    }
    let packet = PublishSpec { topic: String::new(), ..PublishSpec::with(&[Prop::Two(0x23, 2)]) }.encode();
    let found = publish(Version::V5, &packet);
    assert_eq!((found.topic, found.topic_alias), ("", 2));
}

#[test]
fn a_flood_of_topic_levels_is_stopped() {
    let max = usize::from(LIMITS.topic_levels_max);
    for version in VERSIONS {
        for level in ["", "level", "a level of some length"] {
            let packet = PublishSpec::new(version, Qos::AtMostOnce, &vec![level; max].join("/")).encode();
            assert_eq!(publish(version, &packet).topic.split('/').count(), max);
            let packet = PublishSpec::new(version, Qos::AtMostOnce, &vec![level; max + 1].join("/")).encode();
            assert_eq!(refusal(version, &packet), Reason::TOPIC_NAME_INVALID);
        }
    }
}

#[test]
fn u5_2_1_4_1_and_mqtt311_u311_2_3_1_a_publish_cut_before_its_payload_is_malformed() {
    for version in VERSIONS {
        for qos in ALL_QOS {
            let spec = PublishSpec {
                payload: Vec::new(),
                properties: vec![Prop::Four(0x02, 5), Prop::pair("name", "value")],
                ..PublishSpec::new(version, qos, "topic/name")
            };
            let packet = spec.encode();
            let (first, body) = (packet[0], &packet[2..]);
            for cut in 0..body.len() {
                malformed(version, &Body(body[..cut].to_vec()).packet(first));
            }
        }
    }
}

#[test]
fn mqtt_2_2_2_1_the_property_length_is_there_even_if_it_is_0() {
    malformed(Version::V5, &Body::new().str("t").packet(0x30));
    assert_eq!(publish(Version::V5, &Body::new().str("t").u8(0).packet(0x30)).payload, b"");
    // The same bytes are a payload in 3.x.
    assert_eq!(publish(Version::V311, &Body::new().str("t").u8(0).packet(0x30)).payload, b"\0");
}

#[test]
fn mqtt_4_7_3_3_the_longest_topic_name_is_read() {
    let topic = "t".repeat(65_535);
    for version in VERSIONS {
        let packet = PublishSpec::new(version, Qos::ExactlyOnce, &topic).encode();
        assert_eq!(publish(version, &packet).topic.len(), 65_535);
    }
}

proptest! {
    #[test]
    fn any_valid_publish_is_read_as_it_was_meant(
        version in prop::sample::select(VERSIONS.to_vec()),
        qos in prop::sample::select(ALL_QOS.to_vec()),
        (dup, retain) in any::<(bool, bool)>(),
        topic in "[^\0+#/]{1,90}",
        packet_id in 1..=u16::MAX,
        properties in super::properties::message_props(0x23),
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let dup = dup && qos != Qos::AtMostOnce;
        let packet_id = if qos == Qos::AtMostOnce { 0 } else { packet_id };
        let spec = PublishSpec { version, dup, qos, retain, topic, packet_id, properties, payload };
        let packet = spec.encode();
        let found = publish(version, &packet);
        prop_assert_eq!((found.dup, found.qos, found.retain), (dup, qos, retain));
        prop_assert_eq!(found.topic, &spec.topic);
        prop_assert_eq!(found.packet_id, packet_id);
        prop_assert_eq!(found.payload, &spec.payload);
        let meant: &[Prop] = if version == Version::V5 { &spec.properties } else { &[] };
        super::properties::check_message(meant, found.properties, found.expiry_s, 0);
    }

    #[test]
    fn a_topic_name_is_judged_as_a_plain_search_would(bytes in prop::collection::vec(
        prop_oneof![8 => b'a'..=b'z', 1 => Just(b'/'), 1 => prop::sample::select(&b"\0+#\x01\x80,*\"$\xAB\xA3"[..])],
        1..100,
    )) {
        let packet = Body::new().bin(&bytes).packet(0x30);
        let expected = if std::str::from_utf8(&bytes).is_err() || bytes.contains(&0) {
            Some(Reason::MALFORMED_PACKET)
        } else if bytes.contains(&b'+') || bytes.contains(&b'#')
            || bytes.split(|&byte| byte == b'/').count() > usize::from(LIMITS.topic_levels_max)
        {
            Some(Reason::TOPIC_NAME_INVALID)
        } else {
            None
        };
        let found = read(Version::V311, &packet).err().map(|error| error.reason());
        prop_assert_eq!(found, expected);
    }
}
