//! SUBSCRIBE and UNSUBSCRIBE of all versions.

use proptest::prelude::*;

use super::{
    LIMITS, NOT_STRINGS, Packet, STRINGS, VERSIONS, accepted, malformed, protocol_error, read, refusal,
};
use crate::wire::testing::{Body, Prop, subscribe, unsubscribe};
use crate::wire::{
    Qos, Reason, RetainHandling, Subscribe, SubscribeEntry, SubscribeFilters, Unsubscribe,
    UnsubscribeFilters, Version,
};

#[track_caller]
fn subscription(version: Version, packet: &[u8]) -> Subscribe<'_> {
    match read(version, packet) {
        Ok(Packet::Subscribe(subscribe)) => subscribe,
        other => panic!("{other:?} for {packet:02X?}"),
    }
}

#[track_caller]
fn unsubscription(version: Version, packet: &[u8]) -> Unsubscribe<'_> {
    match read(version, packet) {
        Ok(Packet::Unsubscribe(unsubscribe)) => unsubscribe,
        other => panic!("{other:?} for {packet:02X?}"),
    }
}

#[test]
fn mqtt_3_8_4_5_filters_and_options_come_in_the_order_of_the_packet() {
    let packet = subscribe(
        Version::V5,
        9,
        &[Prop::Vbi(0x0B, 268_435_455)],
        &[("a/#", 0x00), ("$share/g/+", 0x29), ("", 0x16)],
    );
    let found = subscription(Version::V5, &packet);
    assert_eq!((found.packet_id, found.identifier, found.filters.len()), (9, 268_435_455, 3));
    let expected = [
        SubscribeEntry {
            filter: "a/#",
            qos: Qos::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        },
        SubscribeEntry {
            filter: "$share/g/+",
            qos: Qos::AtLeastOnce,
            no_local: false,
            retain_as_published: true,
            retain_handling: RetainHandling::DoNotSend,
        },
        SubscribeEntry {
            filter: "",
            qos: Qos::ExactlyOnce,
            no_local: true,
            retain_as_published: false,
            retain_handling: RetainHandling::SendIfNew,
        },
    ];
    assert_eq!(found.filters.collect::<Vec<_>>(), expected);
    assert_eq!(found.filters.iter().nth(1), Some(expected[1]));
}

#[test]
fn mqtt_3_8_3_5_and_u5_3_8_3_1_and_2_subscription_options_of_v5() {
    for options in 0..=0xFF {
        let packet = subscribe(Version::V5, 9, &[], &[("f", options)]);
        if options & 0xC0 != 0 {
            malformed(Version::V5, &packet);
        } else if options & 0x03 == 0x03 || options & 0x30 == 0x30 {
            protocol_error(Version::V5, &packet);
        } else {
            let entry = subscription(Version::V5, &packet).filters.next().unwrap();
            assert_eq!(entry.qos as u8, options & 0x03);
            assert_eq!((entry.no_local, entry.retain_as_published), (options & 4 != 0, options & 8 != 0));
            assert_eq!(entry.retain_handling as u8, options >> 4);
        }
    }
}

#[test]
fn mqtt311_3_8_3_4_requested_qos_of_3x() {
    for options in 0..=0xFF {
        let packet = subscribe(Version::V311, 9, &[], &[("f", options)]);
        assert_eq!(read(Version::V311, &packet).is_ok(), options < 3, "{options:#04X}");
        // 3.1 does not use the upper bits. [V31-6]
        let packet = subscribe(Version::V31, 9, &[], &[("f", options)]);
        match Qos::from_bits(options & 0x03) {
            None => assert!(read(Version::V31, &packet).is_err()),
            Some(qos) => {
                let entry = subscription(Version::V31, &packet).filters.next().unwrap();
                assert_eq!((entry.qos, entry.no_local, entry.retain_as_published), (qos, false, false));
                assert_eq!(entry.retain_handling, RetainHandling::SendAtSubscribe);
            }
        }
    }
}

#[test]
fn mqtt_3_8_3_2_and_3_10_3_2_and_mqtt311_3_8_3_3_and_3_10_3_2_at_least_one_filter() {
    for version in VERSIONS {
        protocol_error(version, &subscribe(version, 9, &[], &[]));
        protocol_error(version, &unsubscribe(version, 9, &[], &[]));
    }
}

#[test]
fn mqtt_2_2_1_3_and_mqtt311_2_3_1_1_packet_identifier_is_not_0() {
    for version in VERSIONS {
        protocol_error(version, &subscribe(version, 0, &[], &[("f", 0)]));
        protocol_error(version, &unsubscribe(version, 0, &[], &["f"]));
    }
}

#[test]
fn mqtt_3_8_3_1_and_3_10_3_1_and_4_7_3_2_topic_filters_are_utf8_without_nul() {
    for version in VERSIONS {
        for bad in NOT_STRINGS {
            let body = Body::new().u16(9).props_if_v5(version, &[]);
            malformed(version, &body.clone().bin(bad).u8(0).packet(0x82));
            malformed(version, &body.clone().str("good").u8(0).bin(bad).u8(0).packet(0x82));
            malformed(version, &body.clone().bin(bad).packet(0xA2));
            malformed(version, &body.str("good").bin(bad).packet(0xA2));
        }
        for text in STRINGS {
            let packet = subscribe(version, 9, &[], &[(text, 1)]);
            assert_eq!(subscription(version, &packet).filters.next().unwrap().filter, text);
            let packet = unsubscribe(version, 9, &[], &[text]);
            assert_eq!(unsubscription(version, &packet).filters.next(), Some(text));
        }
    }
}

#[test]
fn u5_3_8_2_1_and_u5_3_3_2_6_subscription_identifier_is_1_or_more_and_given_once() {
    protocol_error(Version::V5, &subscribe(Version::V5, 9, &[Prop::Vbi(0x0B, 0)], &[("f", 0)]));
    let twice = [Prop::Vbi(0x0B, 1), Prop::Vbi(0x0B, 1)];
    protocol_error(Version::V5, &subscribe(Version::V5, 9, &twice, &[("f", 0)]));
    for value in [1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455] {
        let packet = subscribe(Version::V5, 9, &[Prop::pair("", ""), Prop::Vbi(0x0B, value)], &[("f", 0)]);
        assert_eq!(subscription(Version::V5, &packet).identifier, value);
    }
    let packet = subscribe(Version::V5, 9, &[], &[("f", 0)]);
    assert_eq!(subscription(Version::V5, &packet).identifier, 0);
}

#[test]
fn u5_2_1_4_1_and_mqtt311_u311_2_3_1_cut_or_left_over_bytes_are_malformed() {
    for version in VERSIONS {
        let packet = subscribe(version, 9, &[Prop::Vbi(0x0B, 300)], &[("f/1", 1), ("f/2", 2)]);
        let body = &packet[2..];
        // After the first whole entry the packet is whole, too; before it there is none.
        let (none, one) = (body.len() - 12, body.len() - 6);
        for cut in (0..body.len()).filter(|&cut| cut != one && cut != none) {
            malformed(version, &Body(body[..cut].to_vec()).packet(0x82));
        }
        protocol_error(version, &Body(body[..none].to_vec()).packet(0x82));
        accepted(version, &Body(body[..one].to_vec()).packet(0x82));
        malformed(version, &Body(body.to_vec()).u8(0).packet(0x82));

        let packet = unsubscribe(version, 9, &[Prop::pair("a", "b")], &["f/1", "f/2"]);
        let body = &packet[2..];
        let (none, one) = (body.len() - 10, body.len() - 5);
        for cut in (0..body.len()).filter(|&cut| cut != one && cut != none) {
            malformed(version, &Body(body[..cut].to_vec()).packet(0xA2));
        }
        protocol_error(version, &Body(body[..none].to_vec()).packet(0xA2));
        accepted(version, &Body(body[..one].to_vec()).packet(0xA2));
        malformed(version, &Body(body.to_vec()).u8(0).packet(0xA2));
    }
}

#[test]
fn a_packet_holds_as_many_filters_as_its_size_allows_and_may_be_gone_on_with() {
    const COUNT: usize = 70_000;
    for version in VERSIONS {
        let packet = subscribe(version, 9, &[], &vec![("f", 0); COUNT]);
        let mut filters = subscription(version, &packet).filters;
        assert_eq!((filters.len(), filters.by_ref().take(1000).count()), (COUNT, 1000));
        let rest = &packet[packet.len() - filters.bytes_len()..];
        let rest = SubscribeFilters::of_rest(version, rest, filters.len() as u32);
        assert_eq!(rest.filter(|entry| entry.filter == "f").count(), COUNT - 1000);
        let packet = unsubscribe(version, 9, &[], &vec!["f"; COUNT]);
        let mut filters = unsubscription(version, &packet).filters;
        assert_eq!((filters.len(), filters.by_ref().take(1000).count()), (COUNT, 1000));
        let rest = &packet[packet.len() - filters.bytes_len()..];
        assert_eq!(UnsubscribeFilters::of_rest(rest, filters.len() as u32).count(), COUNT - 1000);
    }
}

#[test]
fn a_flood_of_filter_levels_is_stopped() {
    let deepest = "/".repeat(usize::from(LIMITS.topic_levels_max) - 1);
    let deeper = format!("{deepest}/");
    for version in VERSIONS {
        accepted(version, &subscribe(version, 9, &[], &[(&deepest, 0)]));
        accepted(version, &unsubscribe(version, 9, &[], &[&deepest]));
        let reason = refusal(version, &subscribe(version, 9, &[], &[("f", 0), (&deeper, 0)]));
        assert_eq!(reason, Reason::TOPIC_FILTER_INVALID);
        let reason = refusal(version, &unsubscribe(version, 9, &[], &["f", &deeper]));
        assert_eq!(reason, Reason::TOPIC_FILTER_INVALID);
        // A Share Name is no level, and without a whole one all are counted.
        let shared =
            [format!("$share/g/{deepest}"), format!("$share/g/{deeper}"), format!("$share{deepest}")];
        accepted(version, &subscribe(version, 9, &[], &[(&shared[0], 0)]));
        accepted(version, &unsubscribe(version, 9, &[], &[&shared[0]]));
        accepted(version, &subscribe(version, 9, &[], &[(&shared[2], 0)]));
        let reason = refusal(version, &subscribe(version, 9, &[], &[(&shared[1], 0)]));
        assert_eq!(reason, Reason::TOPIC_FILTER_INVALID);
    }
}

proptest! {
    #[test]
    fn any_valid_subscribe_and_unsubscribe_are_read_as_they_were_meant(
        version in prop::sample::select(VERSIONS.to_vec()),
        packet_id in 1..=u16::MAX,
        identifier in prop::option::of(1_u32..=268_435_455),
        filters in prop::collection::vec(("[^\0/]{0,30}", 0_u8..3, 0_u8..4, 0_u8..3), 1..16),
    ) {
        let v5 = version == Version::V5;
        let properties: Vec<Prop> = identifier.map(|value| Prop::Vbi(0x0B, value)).into_iter().collect();
        let entries: Vec<(&str, u8)> = filters
            .iter()
            .map(|(filter, qos, flags, handling)| {
                (filter.as_str(), if v5 { qos | flags << 2 | handling << 4 } else { *qos })
            })
            .collect();
        let packet = subscribe(version, packet_id, &properties, &entries);
        let found = subscription(version, &packet);
        prop_assert_eq!(found.packet_id, packet_id);
        prop_assert_eq!(found.identifier, if v5 { identifier.unwrap_or(0) } else { 0 });
        prop_assert_eq!(found.filters.len(), entries.len());
        let again: Vec<(&str, u8)> = found
            .filters
            .map(|entry| {
                let flags = u8::from(entry.no_local) << 2 | u8::from(entry.retain_as_published) << 3;
                (entry.filter, entry.qos as u8 | flags | (entry.retain_handling as u8) << 4)
            })
            .collect();
        prop_assert_eq!(&again, &entries);

        let names: Vec<&str> = entries.iter().map(|entry| entry.0).collect();
        let packet = unsubscribe(version, packet_id, &[Prop::pair("a", "b")], &names);
        let found = unsubscription(version, &packet);
        prop_assert_eq!(found.packet_id, packet_id);
        prop_assert_eq!(found.filters.len(), names.len());
        prop_assert_eq!(found.filters.collect::<Vec<_>>(), names);
    }
}
