//! Acknowledgements, PINGREQ, DISCONNECT, AUTH, and what may not be sent at all.

use super::{Packet, VERSIONS, accepted, malformed, protocol_error, read, table_allows};
use crate::wire::testing::{Body, ConnectSpec, Prop, PublishSpec, subscribe, unsubscribe};
use crate::wire::{Ack, Qos, Reason, Version};

/// First byte and name in the reason code table.
const ACKS: [(u8, &str); 4] = [(0x40, "PA"), (0x50, "PR"), (0x62, "PL"), (0x70, "PC")];

#[track_caller]
fn ack(version: Version, packet: &[u8]) -> Ack {
    let (kind, ack) = match read(version, packet) {
        Ok(Packet::PubAck(ack)) => (4, ack),
        Ok(Packet::PubRec(ack)) => (5, ack),
        Ok(Packet::PubRel(ack)) => (6, ack),
        Ok(Packet::PubComp(ack)) => (7, ack),
        other => panic!("{other:?} for {packet:02X?}"),
    };
    assert_eq!(kind, packet[0] >> 4);
    ack
}

#[test]
fn u5_3_4_2_1_acknowledgements_are_read_short_and_long() {
    for (first, _) in ACKS {
        let plain = Ack { packet_id: 0x0102, reason: Reason::SUCCESS };
        for version in VERSIONS {
            assert_eq!(ack(version, &Body::new().u16(0x0102).packet(first)), plain);
        }
        let body = || Body::new().u16(0x0102).u8(0);
        assert_eq!(ack(Version::V5, &body().packet(first)), plain);
        assert_eq!(ack(Version::V5, &body().props(&[]).packet(first)), plain);
        let props = [Prop::text(0x1F, "why"), Prop::pair("a", "b"), Prop::pair("a", "b")];
        assert_eq!(ack(Version::V5, &body().props(&props).packet(first)), plain);
    }
}

#[test]
fn mqtt_3_4_2_1_and_3_5_2_1_and_3_6_2_1_and_3_7_2_1_reason_codes_of_acknowledgements() {
    for (first, name) in ACKS {
        for code in 0..=0xFF {
            for body in [Body::new().u16(7).u8(code), Body::new().u16(7).u8(code).props(&[])] {
                let packet = body.packet(first);
                if table_allows(code, name) {
                    assert_eq!(ack(Version::V5, &packet), Ack { packet_id: 7, reason: Reason(code) });
                } else {
                    protocol_error(Version::V5, &packet);
                }
            }
        }
    }
}

#[test]
fn mqtt_2_2_1_3_packet_identifier_of_an_acknowledgement_is_not_0() {
    for version in VERSIONS {
        for (first, _) in ACKS {
            protocol_error(version, &Body::new().u16(0).packet(first));
        }
    }
}

#[test]
fn u5_2_1_4_1_and_mqtt311_u311_3_4_1_acknowledgements_have_exactly_their_length() {
    for (first, _) in ACKS {
        for version in VERSIONS {
            malformed(version, &Body::new().packet(first));
            malformed(version, &Body::new().u8(0).packet(first));
        }
        for version in [Version::V31, Version::V311] {
            malformed(version, &Body::new().u16(7).u8(0).packet(first));
            malformed(version, &Body::new().u16(7).u16(0).packet(first));
        }
        malformed(Version::V5, &Body::new().u16(7).u8(0).props(&[]).u8(0).packet(first));
        let whole = Body::new().u16(7).u8(0).props(&[Prop::text(0x1F, "why")]).0;
        for cut in 4..whole.len() {
            malformed(Version::V5, &Body(whole[..cut].to_vec()).packet(first));
        }
    }
}

#[test]
fn mqtt_2_1_3_1_and_u5_2_1_3_1_and_mqtt311_2_2_2_1_and_2_reserved_flags() {
    for version in VERSIONS {
        let packets = [
            (0x40, Body::new().u16(7).packet(0x40)),
            (0x50, Body::new().u16(7).packet(0x50)),
            (0x62, Body::new().u16(7).packet(0x62)),
            (0x70, Body::new().u16(7).packet(0x70)),
            (0x82, subscribe(version, 7, &[], &[("f", 0)])),
            (0xA2, unsubscribe(version, 7, &[], &["f"])),
            (0xC0, Body::new().packet(0xC0)),
            (0xE0, Body::new().packet(0xE0)),
        ];
        for (right, mut packet) in packets {
            for flags in 0..16 {
                packet[0] = right & 0xF0 | flags;
                // 3.1 has DUP and QoS there, or does not look. [V31-6]
                if packet[0] == right || version == Version::V31 {
                    accepted(version, &packet);
                } else {
                    malformed(version, &packet);
                }
            }
        }
    }
    // [MQTT-3.15.1-1]
    for flags in 1..16 {
        let body = Body::new().u8(0x18).props(&[Prop::text(0x15, "method")]);
        malformed(Version::V5, &body.packet(0xF0 | flags));
    }
}

#[test]
fn u5_2_1_2_1_and_mqtt311_u311_2_2_1_1_forbidden_packet_types() {
    for version in VERSIONS {
        for flags in 0..16 {
            malformed(version, &Body::new().packet(flags));
            malformed(version, &Body::new().u16(7).packet(flags));
        }
    }
    let auth = Body::new().u8(0x18).props(&[Prop::text(0x15, "method")]).packet(0xF0);
    accepted(Version::V5, &auth);
    malformed(Version::V311, &auth);
    malformed(Version::V31, &auth);
}

#[test]
fn u5_2_1_2_2_packets_that_only_a_server_sends_are_protocol_errors() {
    for version in VERSIONS {
        protocol_error(version, &Body::new().u16(0).props_if_v5(version, &[]).packet(0x20));
        protocol_error(version, &Body::new().u16(7).props_if_v5(version, &[]).u8(0).packet(0x90));
        protocol_error(version, &Body::new().u16(7).packet(0xB0));
        protocol_error(version, &Body::new().packet(0xD0));
    }
}

#[test]
fn mqtt_3_1_0_2_a_second_connect_is_told_apart_whatever_it_holds() {
    for version in VERSIONS {
        for packet in
            [ConnectSpec::full(version).encode(), Body::new().packet(0x10), Body::new().packet(0x1F)]
        {
            assert!(matches!(read(version, &packet), Ok(Packet::Connect)));
        }
    }
}

#[test]
fn u5_3_12_1_and_mqtt311_u311_3_12_1_pingreq_is_empty() {
    for version in VERSIONS {
        assert!(matches!(read(version, &[0xC0, 0x00]), Ok(Packet::PingReq)));
        malformed(version, &[0xC0, 0x01, 0x00]);
    }
}

#[test]
fn u5_3_14_2_1_disconnect_is_read_short_and_long() {
    for version in VERSIONS {
        let Ok(Packet::Disconnect(found)) = read(version, &[0xE0, 0x00]) else { panic!() };
        assert_eq!(found.reason, Reason::NORMAL_DISCONNECTION);
        assert_eq!((found.session_expiry_s, found.reason_string), (None, None));
    }
    let packet = Body::new().u8(0x04).packet(0xE0);
    let Ok(Packet::Disconnect(found)) = read(Version::V5, &packet) else { panic!() };
    assert_eq!(found.reason, Reason::DISCONNECT_WITH_WILL_MESSAGE);
    let props = [Prop::text(0x1F, "bye"), Prop::pair("a", "b"), Prop::Four(0x11, u32::MAX)];
    let packet = Body::new().u8(0x00).props(&props).packet(0xE0);
    let Ok(Packet::Disconnect(found)) = read(Version::V5, &packet) else { panic!() };
    assert_eq!((found.session_expiry_s, found.reason_string), (Some(u32::MAX), Some("bye")));
}

#[test]
fn mqtt_3_14_2_1_reason_codes_of_a_clients_disconnect() {
    for code in 0..=0xFF {
        for body in [Body::new().u8(code), Body::new().u8(code).props(&[])] {
            let packet = body.packet(0xE0);
            if table_allows(code, "DC") {
                accepted(Version::V5, &packet);
            } else {
                protocol_error(Version::V5, &packet);
            }
        }
    }
}

#[test]
fn u5_3_14_2_5_a_server_reference_from_a_client_is_a_protocol_error() {
    protocol_error(Version::V5, &Body::new().u8(0).props(&[Prop::text(0x1C, "elsewhere")]).packet(0xE0));
}

#[test]
fn u5_2_1_4_1_and_mqtt311_u311_3_12_1_disconnect_has_exactly_its_length() {
    for version in [Version::V31, Version::V311] {
        malformed(version, &[0xE0, 0x01, 0x00]);
    }
    let whole = Body::new().u8(0).props(&[Prop::Four(0x11, 5)]).0;
    for cut in 2..whole.len() {
        malformed(Version::V5, &Body(whole[..cut].to_vec()).packet(0xE0));
    }
    malformed(Version::V5, &Body(whole).u8(0).packet(0xE0));
}

#[test]
fn mqtt_3_15_2_1_reason_codes_of_a_clients_auth() {
    for code in 0..=0xFF {
        let props = [Prop::text(0x15, "method"), Prop::Data(0x16, vec![1, 2])];
        let packet = Body::new().u8(code).props(&props).packet(0xF0);
        if code == 0x18 || code == 0x19 {
            let Ok(Packet::Auth(auth)) = read(Version::V5, &packet) else { panic!() };
            assert_eq!((auth.reason, auth.method), (Reason(code), Some("method")));
            assert_eq!(auth.data, Some(&[1, 2][..]));
        } else {
            protocol_error(Version::V5, &packet);
        }
    }
}

#[test]
fn u5_3_15_2_1_and_2_auth_needs_a_method() {
    protocol_error(Version::V5, &Body::new().packet(0xF0));
    protocol_error(Version::V5, &Body::new().u8(0x18).props(&[]).packet(0xF0));
    protocol_error(Version::V5, &Body::new().u8(0x18).props(&[Prop::Data(0x16, vec![1])]).packet(0xF0));
    let whole = Body::new().u8(0x18).props(&[Prop::text(0x15, "method")]).0;
    for cut in 1..whole.len() {
        malformed(Version::V5, &Body(whole[..cut].to_vec()).packet(0xF0));
    }
    malformed(Version::V5, &Body(whole).u8(0).packet(0xF0));
}

#[test]
fn packets_of_every_kind_are_told_apart() {
    let publish = PublishSpec::new(Version::V5, Qos::AtLeastOnce, "t").encode();
    assert!(matches!(read(Version::V5, &publish), Ok(Packet::Publish(_))));
    let subscribe = subscribe(Version::V5, 1, &[], &[("f", 0)]);
    assert!(matches!(read(Version::V5, &subscribe), Ok(Packet::Subscribe(_))));
    let unsubscribe = unsubscribe(Version::V5, 1, &[], &["f"]);
    assert!(matches!(read(Version::V5, &unsubscribe), Ok(Packet::Unsubscribe(_))));
    for (first, expected) in [(0x40, "PubAck"), (0x50, "PubRec"), (0x62, "PubRel"), (0x70, "PubComp")] {
        let text = format!("{:?}", read(Version::V5, &[first, 2, 0, 1]).unwrap());
        assert!(text.starts_with(expected), "{text}");
    }
}
