//! Which property may stand where, how often, and what of a message is forwarded.

use proptest::prelude::*;

use super::{LIMITS, NOT_STRINGS, Packet, malformed, protocol_error, read, refusal};
use crate::wire::testing::{Body, ConnectSpec, Prop, PublishSpec, frame, parse_properties, properties, vbi};
use crate::wire::{DecodeError, Properties, Qos, Reason, Version, decode_connect};

/// The property table of the standard for packets that a client sends: identifier, type, packets.
const PROPERTY_TABLE: &str = "
01 byte PUBLISH WILL
02 four PUBLISH WILL
03 text PUBLISH WILL
08 text PUBLISH WILL
09 data PUBLISH WILL
0B vbi  SUBSCRIBE
11 four CONNECT DISCONNECT
15 text CONNECT AUTH
16 data CONNECT AUTH
17 byte CONNECT
18 four WILL
19 byte CONNECT
1F text PUBACK PUBREC PUBREL PUBCOMP DISCONNECT AUTH
21 two  CONNECT
22 two  CONNECT
23 two  PUBLISH
26 pair CONNECT WILL PUBLISH PUBACK PUBREC PUBREL PUBCOMP SUBSCRIBE UNSUBSCRIBE DISCONNECT AUTH
27 four CONNECT
";

const PACKETS: [&str; 11] = [
    "CONNECT",
    "WILL",
    "PUBLISH",
    "PUBACK",
    "PUBREC",
    "PUBREL",
    "PUBCOMP",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "DISCONNECT",
    "AUTH",
];

fn table_row(id: u8) -> Option<Vec<&'static str>> {
    let row = |line: &'static str| line.split_whitespace().collect::<Vec<_>>();
    PROPERTY_TABLE.lines().map(row).find(|row| row.first() == Some(&&*format!("{id:02X}")))
}

/// A property with a value that is valid for its type; unknown ones get a byte.
fn sample(id: u8) -> Prop {
    match table_row(id).map_or("byte", |row| row[1]) {
        "byte" => Prop::Byte(id, 1),
        "two" => Prop::Two(id, 1),
        "four" => Prop::Four(id, 1),
        "vbi" => Prop::Vbi(id, 1),
        "text" => Prop::text(id, "text"),
        "data" => Prop::Data(id, b"data".to_vec()),
        _ => Prop::pair("name", "value"),
    }
}

/// A packet of this kind whose property block is `block`, and what it is refused with, if it is.
fn try_block(packet: &str, block: &[u8]) -> Result<(), DecodeError> {
    let with_block = |body: Body| body.raw(&vbi(block.len())).raw(block);
    let ack = |reason| with_block(Body::new().u16(7).u8(reason));
    let connect = |flags| ConnectSpec::protocol(Version::V5).u8(flags).u16(0);
    let bytes = match packet {
        "CONNECT" => with_block(connect(0x02)).str("c").packet(0x10),
        "WILL" => with_block(connect(0x06).props(&[]).str("c")).str("t").bin(b"").packet(0x10),
        "PUBLISH" => with_block(Body::new().str("t")).packet(0x30),
        "PUBACK" => ack(0x00).packet(0x40),
        "PUBREC" => ack(0x00).packet(0x50),
        "PUBREL" => ack(0x92).packet(0x62),
        "PUBCOMP" => ack(0x92).packet(0x70),
        "SUBSCRIBE" => with_block(Body::new().u16(7)).str("f").u8(0).packet(0x82),
        "UNSUBSCRIBE" => with_block(Body::new().u16(7)).str("f").packet(0xA2),
        "DISCONNECT" => with_block(Body::new().u8(0x04)).packet(0xE0),
        "AUTH" => with_block(Body::new().u8(0x18)).packet(0xF0),
        _ => unreachable!(),
    };
    if packet == "CONNECT" || packet == "WILL" {
        match decode_connect(&frame(&bytes), &LIMITS) {
            Ok(_) => Ok(()),
            Err(crate::wire::ConnectError::V5(error)) => Err(error),
            Err(other) => panic!("{other:?}"),
        }
    } else {
        read(Version::V5, &bytes).map(|_| ())
    }
}

/// What must stand beside `id` for the packet to be valid.
fn companions(packet: &str, id: u8) -> Vec<Prop> {
    match (packet, id) {
        ("AUTH", id) if id != 0x15 => vec![Prop::text(0x15, "method")],
        ("CONNECT", 0x16) => vec![Prop::text(0x15, "method")],
        _ => Vec::new(),
    }
}

fn try_props(packet: &str, props: &[Prop]) -> Option<Reason> {
    try_block(packet, &properties(props)).err().map(DecodeError::reason)
}

#[test]
fn u5_2_2_2_1_and_2_a_property_is_refused_where_the_table_does_not_have_it() {
    for packet in PACKETS {
        for id in 0..=0xFF {
            let allowed = table_row(id).is_some_and(|row| row.contains(&packet));
            let mut props = companions(packet, id);
            props.push(sample(id));
            let expected = match (packet, id) {
                _ if allowed => None,
                // [MQTT-3.3.4-6] and [U5-3.14.2-5]
                ("PUBLISH", 0x0B) | ("DISCONNECT", 0x1C) => Some(Reason::PROTOCOL_ERROR),
                _ => Some(Reason::MALFORMED_PACKET),
            };
            assert_eq!(try_props(packet, &props), expected, "{id:#04X} in {packet}");
        }
    }
}

#[test]
fn u5_2_2_2_5_only_a_user_property_may_repeat() {
    for packet in PACKETS {
        for id in 0..0x80 {
            if !table_row(id).is_some_and(|row| row.contains(&packet)) {
                continue;
            }
            let mut props = companions(packet, id);
            props.extend([sample(id), Prop::pair("between", ""), sample(id)]);
            let expected = (id != 0x26).then_some(Reason::PROTOCOL_ERROR);
            assert_eq!(try_props(packet, &props), expected, "{id:#04X} twice in {packet}");
        }
    }
}

#[test]
fn u5_2_2_2_3_a_property_cut_anywhere_is_malformed() {
    for packet in PACKETS {
        for id in 0..0x80 {
            if !table_row(id).is_some_and(|row| row.contains(&packet)) {
                continue;
            }
            let before = properties(&companions(packet, id));
            let property = properties(&[sample(id)]);
            for cut in 1..property.len() {
                let block = [&before[..], &property[..cut]].concat();
                let reason = try_block(packet, &block).map_err(DecodeError::reason);
                assert_eq!(reason, Err(Reason::MALFORMED_PACKET), "{id:#04X} cut at {cut} in {packet}");
            }
        }
    }
}

#[test]
fn mqtt_1_5_7_1_and_1_5_4_1_and_2_strings_in_properties_are_utf8_without_nul() {
    for packet in PACKETS {
        for bad in NOT_STRINGS {
            let before = properties(&companions(packet, 0x26));
            let name = Body(before.clone()).u8(0x26).bin(bad).str("value").0;
            let value = Body(before).u8(0x26).str("name").bin(bad).0;
            for block in [name, value] {
                let reason = try_block(packet, &block).map_err(DecodeError::reason);
                assert_eq!(reason, Err(Reason::MALFORMED_PACKET), "{packet}");
            }
            for id in [0x03, 0x08, 0x15, 0x1F] {
                if table_row(id).is_some_and(|row| row.contains(&packet)) {
                    let block = Body(properties(&companions(packet, id))).u8(id).bin(bad).0;
                    let reason = try_block(packet, &block).map_err(DecodeError::reason);
                    assert_eq!(reason, Err(Reason::MALFORMED_PACKET), "{id:#04X} in {packet}");
                }
            }
        }
    }
}

#[test]
fn mqtt_1_5_5_1_over_long_integers_in_and_before_properties_are_malformed() {
    let over_long_identifiers: [&[u8]; 3] =
        [&[0x81, 0x00], &[0x8B, 0x80, 0x00], &[0x80, 0x80, 0x80, 0x80, 0x01]];
    for over_long in over_long_identifiers {
        // The value of a Subscription Identifier, a property identifier, and the property length.
        let value = Body::new().u8(0x0B).raw(over_long).0;
        assert!(matches!(try_block("SUBSCRIBE", &value), Err(DecodeError::Malformed(_))));
        let identifier = Body::new().raw(over_long).u8(0).0;
        assert!(matches!(try_block("PUBLISH", &identifier), Err(DecodeError::Malformed(_))));
    }
    malformed(Version::V5, &Body::new().str("t").raw(&[0x80, 0x00]).packet(0x30));
    malformed(Version::V5, &Body::new().str("t").raw(&[0x82, 0x00, 0x01, 0x00]).packet(0x30));
    malformed(Version::V5, &Body::new().str("t").raw(&[0x80; 5]).packet(0x30));
    let longest = Body::new().raw(&[0x0B, 0xFF, 0xFF, 0xFF, 0x7F]).0;
    assert_eq!(try_block("SUBSCRIBE", &longest), Ok(()));
}

#[test]
fn a_flood_of_properties_is_stopped_in_every_packet() {
    let max = usize::from(LIMITS.properties_max);
    for packet in PACKETS {
        let before = companions(packet, 0x26);
        let mut props = before.clone();
        props.extend(vec![Prop::pair("", ""); max - before.len()]);
        assert_eq!(try_props(packet, &props), None, "{packet}");
        props.push(Prop::pair("", ""));
        assert_eq!(try_props(packet, &props), Some(Reason::QUOTA_EXCEEDED), "{packet}");
    }
}

#[test]
fn u5_3_3_2_2_payload_format_indicator_is_0_or_1() {
    for value in 0..=0xFF {
        let expected = (value > 1).then_some(Reason::PROTOCOL_ERROR);
        assert_eq!(try_props("PUBLISH", &[Prop::Byte(0x01, value)]), expected);
    }
}

#[test]
fn mqtt_3_3_2_14_and_4_7_3_1_response_topic_is_a_topic_name() {
    for packet in ["PUBLISH", "WILL"] {
        for topic in ["", "+", "#", "reply/+", "reply/#", "a/longer/response/topic/with/a/+/in/it"] {
            let refused = try_props(packet, &[Prop::text(0x08, topic)]);
            assert_eq!(refused, Some(Reason::PROTOCOL_ERROR), "{topic:?}");
        }
        for topic in ["/", "reply/to me", "$SYS/reply"] {
            assert_eq!(try_props(packet, &[Prop::text(0x08, topic)]), None, "{topic:?}");
        }
    }
}

#[test]
fn mqtt_3_3_2_8_9_and_3_2_2_17_18_topic_alias_is_1_to_the_announced_maximum() {
    for (alias, ok) in [(0, false), (1, true), (10, true), (11, false), (u16::MAX, false)] {
        let packet = PublishSpec::with(&[Prop::Two(0x23, alias)]).encode();
        if ok {
            let Ok(Packet::Publish(publish)) = read(Version::V5, &packet) else { panic!("{alias}") };
            assert_eq!(publish.topic_alias, alias);
        } else {
            assert_eq!(refusal(Version::V5, &packet), Reason::TOPIC_ALIAS_INVALID);
        }
    }
}

#[test]
fn mqtt_3_3_4_6_a_subscription_identifier_from_a_client_is_a_protocol_error() {
    protocol_error(Version::V5, &PublishSpec::with(&[Prop::Vbi(0x0B, 1)]).encode());
}

const FORWARDED: [u8; 5] = [0x01, 0x03, 0x08, 0x09, 0x26];

/// What receivers get of a message is what was meant, and in its order.
#[track_caller]
pub(super) fn check_message(meant: &[Prop], found: Properties<'_>, expiry_s: Option<u32>, delay_s: u32) {
    let forwarded: Vec<Prop> = meant.iter().filter(|prop| FORWARDED.contains(&prop.id())).cloned().collect();
    let mut written = b"before".to_vec();
    found.write_to(&mut written);
    let written = &written[b"before".len()..];
    assert_eq!(parse_properties(written), forwarded);
    assert_eq!((written.len(), written.is_empty()), (found.len(), found.is_empty()));

    let first = meant.iter().position(|prop| FORWARDED.contains(&prop.id()));
    let last = meant.iter().rposition(|prop| FORWARDED.contains(&prop.id()));
    let together = match (first, last) {
        (Some(first), Some(last)) => meant[first..=last].iter().all(|prop| FORWARDED.contains(&prop.id())),
        _ => true,
    };
    assert_eq!(found.as_contiguous(), together.then_some(written));

    let meant = |id| meant.iter().find(|prop| prop.id() == id).cloned();
    assert_eq!(expiry_s.map(|value| Prop::Four(0x02, value)), meant(0x02));
    assert_eq!(Prop::Four(0x18, delay_s), meant(0x18).unwrap_or(Prop::Four(0x18, 0)));
}

#[test]
fn mqtt_3_3_2_4_15_16_17_18_20_forwardable_properties_are_kept_in_order_wherever_others_lie() {
    let own = [Prop::Four(0x02, 60), Prop::Two(0x23, 3)];
    let forwarded = [
        Prop::pair("a", "1"),
        Prop::Byte(0x01, 1),
        Prop::pair("a", "1"),
        Prop::Data(0x09, vec![0, 1, 2]),
        Prop::text(0x08, "reply"),
        Prop::text(0x03, ""),
        Prop::pair("", ""),
    ];
    for expiry_at in 0..=forwarded.len() {
        for alias_at in 0..=forwarded.len() + 1 {
            let mut props = forwarded.to_vec();
            props.insert(expiry_at, own[0].clone());
            props.insert(alias_at, own[1].clone());
            let packet = PublishSpec::with(&props).encode();
            let Ok(Packet::Publish(publish)) = read(Version::V5, &packet) else { panic!() };
            assert_eq!((publish.topic_alias, publish.payload), (3, &b"hello"[..]));
            check_message(&props, publish.properties, publish.expiry_s, 0);
        }
    }
    let packet = PublishSpec::with(&own).encode();
    let Ok(Packet::Publish(publish)) = read(Version::V5, &packet) else { panic!() };
    assert_eq!((publish.properties.is_empty(), publish.properties.as_contiguous()), (true, Some(&[][..])));
}

/// Properties of a message, with a Topic Alias (0x23) or a Will Delay Interval (0x18), in any order.
pub(super) fn message_props(own: u8) -> impl Strategy<Value = Vec<Prop>> {
    let own = match own {
        0x23 => (1_u16..=10).prop_map(|alias| Prop::Two(0x23, alias)).boxed(),
        _ => any::<u32>().prop_map(|delay_s| Prop::Four(0x18, delay_s)).boxed(),
    };
    (
        prop::option::of(own),
        prop::option::of(any::<u32>()),
        prop::option::of(0_u8..2),
        prop::option::of("[^\0]{0,20}"),
        prop::option::of("[^\0+#]{1,20}"),
        prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        prop::collection::vec(("[^\0]{0,12}", "[^\0]{0,80}"), 0..6),
    )
        .prop_map(|(own, expiry, format, content_type, response, correlation, pairs)| {
            let mut props: Vec<Prop> = own.into_iter().collect();
            props.extend(expiry.map(|value| Prop::Four(0x02, value)));
            props.extend(format.map(|value| Prop::Byte(0x01, value)));
            props.extend(content_type.map(|value| Prop::Text(0x03, value)));
            props.extend(response.map(|value| Prop::Text(0x08, value)));
            props.extend(correlation.map(|value| Prop::Data(0x09, value)));
            props.extend(pairs.into_iter().map(|(name, value)| Prop::Pair(name, value)));
            props
        })
        .prop_shuffle()
}

proptest! {
    #[test]
    fn any_message_properties_are_read_and_forwarded_as_they_were_meant(props in message_props(0x23)) {
        let packet = PublishSpec::with(&props).encode();
        let Ok(Packet::Publish(publish)) = read(Version::V5, &packet) else { panic!("{packet:02X?}") };
        check_message(&props, publish.properties, publish.expiry_s, 0);
        let alias = props.iter().find(|prop| prop.id() == 0x23).cloned();
        prop_assert_eq!(Prop::Two(0x23, publish.topic_alias), alias.unwrap_or(Prop::Two(0x23, 0)));
        prop_assert_eq!(publish.qos, Qos::AtMostOnce);
    }
}
