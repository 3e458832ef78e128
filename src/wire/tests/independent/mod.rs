//! A second opinion: the codec of the crate mqtt-protocol-core, which shares no line with ours.
//!
//! - What a client sends is written by that codec and read by ours; every packet type, 5.0 and 3.1.1 (it has no 3.1).
//! - What a server sends is written by ours and read by that codec.
//! - What ours accepts of valid packets that were damaged, that codec accepts too and reads alike. Not the other way
//!   round: it leaves to its connection what ours refuses at once, such as reserved flags, wildcards in a Topic Name or
//!   reason codes of the other direction.
//!
//! Where the two differ in what is valid has a test of its own at the end.

mod property;
mod said;
mod server;

use mqtt_protocol_core::mqtt::packet::{Qos as TheirQos, SubEntry, SubOpts, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::{
    AuthReasonCode, DisconnectReasonCode, PubackReasonCode, PubcompReasonCode, PubrecReasonCode,
    PubrelReasonCode,
};
use proptest::prelude::*;

use super::LIMITS;
use crate::wire::testing::{Body, ConnectSpec, Prop, PublishSpec, frame, properties, subscribe, unsubscribe};
use crate::wire::{
    AckKind, ConnAck, ConnAckEncoded, LengthForm, NextFrame, PublishHead, Qos, Reason, Version, decode,
    decode_connect, encode_ack, encode_auth, encode_connack, encode_disconnect, encode_pingresp,
    encode_suback, encode_unsuback, next_frame,
};
use property::theirs;
use said::{Message, Said, by_ours, by_theirs, greeting_by_ours};

/// The versions that both codecs have.
const BOTH: [Version; 2] = [Version::V311, Version::V5];

fn version() -> impl Strategy<Value = Version> {
    prop::sample::select(BOTH.to_vec())
}

fn qos() -> impl Strategy<Value = Qos> {
    prop::sample::select(vec![Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce])
}

fn their_qos(qos: Qos) -> TheirQos {
    TheirQos::try_from(qos as u8).unwrap()
}

/// Reason String and User Properties.
fn explanation() -> impl Strategy<Value = Vec<Prop>> {
    let pairs = prop::collection::vec(("[^\0]{0,12}", "[^\0]{0,60}"), 0..4);
    (prop::option::of("[^\0]{0,80}"), pairs).prop_map(|(text, pairs)| {
        let text = text.map(|text| Prop::Text(0x1F, text));
        text.into_iter().chain(pairs.into_iter().map(|(name, value)| Prop::Pair(name, value))).collect()
    })
}

fn their_properties(props: &[Prop]) -> Vec<mqtt_protocol_core::mqtt::packet::Property> {
    props.iter().map(theirs).collect()
}

/// What our decoder makes of a packet that the other codec wrote.
fn read(version: Version, packet: &[u8]) -> Said {
    let frame = frame(packet);
    if frame.kind() == 1 {
        return greeting_by_ours(&decode_connect(&frame, &LIMITS).unwrap());
    }
    by_ours(decode(version, &frame, &LIMITS).unwrap_or_else(|why| panic!("{why}: {packet:02X?}")))
}

/// A packet that the other codec wrote: byte for byte what the plain encoder of `testing` makes of the same fields,
/// and read alike by both.
#[track_caller]
fn both_read(version: Version, packet: &[u8], meant: &[u8]) {
    assert_eq!(packet, meant);
    assert_eq!(read(version, packet), by_theirs(version, packet).unwrap());
}

/// A packet that ours wrote, as the other codec reads it.
fn told(version: Version, write: impl FnOnce(&mut Vec<u8>)) -> Said {
    let mut packet = Vec::new();
    write(&mut packet);
    by_theirs(version, &packet).unwrap_or_else(|why| panic!("{why:?}: {packet:02X?}"))
}

fn their_connect(spec: &ConnectSpec) -> Vec<u8> {
    macro_rules! common {
        ($connect:ty) => {{
            let mut builder = <$connect>::builder()
                .clean_start(spec.clean_start)
                .keep_alive(spec.keep_alive_s)
                .client_id(spec.client_id.as_str())
                .unwrap();
            if let Some(will) = &spec.will {
                let (topic, payload) = (will.topic.as_str(), will.payload.clone());
                builder = builder.will_message(topic, payload, their_qos(will.qos), will.retain).unwrap();
            }
            if let Some(name) = &spec.user_name {
                builder = builder.user_name(name.as_str()).unwrap();
            }
            if let Some(password) = &spec.password {
                builder = builder.password(password.clone()).unwrap();
            }
            builder
        }};
    }
    if spec.version == Version::V311 {
        return common!(v3_1_1::Connect).build().unwrap().to_continuous_buffer();
    }
    let mut builder = common!(v5_0::Connect).props(their_properties(&spec.properties));
    if let Some(will) = &spec.will {
        builder = builder.will_props(their_properties(&will.properties));
    }
    builder.build().unwrap().to_continuous_buffer()
}

fn their_publish(spec: &PublishSpec) -> Vec<u8> {
    macro_rules! common {
        ($publish:ty) => {{
            let mut builder = <$publish>::builder()
                .topic_name(spec.topic.as_str())
                .unwrap()
                .qos(their_qos(spec.qos))
                .dup(spec.dup)
                .retain(spec.retain)
                .payload(spec.payload.clone());
            if spec.qos != Qos::AtMostOnce {
                builder = builder.packet_id(spec.packet_id);
            }
            builder
        }};
    }
    match spec.version {
        Version::V5 => {
            let builder = common!(v5_0::Publish).props(their_properties(&spec.properties));
            builder.build().unwrap().to_continuous_buffer()
        }
        Version::V311 | Version::V31 => common!(v3_1_1::Publish).build().unwrap().to_continuous_buffer(),
    }
}

/// An acknowledgement with a reason code and, if there are any, properties.
fn their_ack(kind: u8, id: u16, reason: u8, props: &[Prop]) -> Vec<u8> {
    macro_rules! ack {
        ($packet:ty, $code:ty) => {{
            let code = <$code>::try_from(reason).unwrap();
            let builder = <$packet>::builder().packet_id(id).reason_code(code);
            let builder = if props.is_empty() { builder } else { builder.props(their_properties(props)) };
            builder.build().unwrap().to_continuous_buffer()
        }};
    }
    match kind {
        4 => ack!(v5_0::Puback, PubackReasonCode),
        5 => ack!(v5_0::Pubrec, PubrecReasonCode),
        6 => ack!(v5_0::Pubrel, PubrelReasonCode),
        _ => ack!(v5_0::Pubcomp, PubcompReasonCode),
    }
}

/// The shortest form: an identifier alone, which is all that 3.1.1 has.
fn their_short_ack(version: Version, kind: u8, id: u16) -> Vec<u8> {
    macro_rules! ack {
        ($packet:ty) => {
            <$packet>::builder().packet_id(id).build().unwrap().to_continuous_buffer()
        };
    }
    match (version, kind) {
        (Version::V5, 4) => ack!(v5_0::Puback),
        (Version::V5, 5) => ack!(v5_0::Pubrec),
        (Version::V5, 6) => ack!(v5_0::Pubrel),
        (Version::V5, _) => ack!(v5_0::Pubcomp),
        (_, 4) => ack!(v3_1_1::Puback),
        (_, 5) => ack!(v3_1_1::Pubrec),
        (_, 6) => ack!(v3_1_1::Pubrel),
        _ => ack!(v3_1_1::Pubcomp),
    }
}

/// The first byte of an acknowledgement.
fn first_byte(kind: u8) -> u8 {
    kind << 4 | if kind == 6 { 2 } else { 0 }
}

/// The reason codes that PUBACK and PUBREC, or PUBREL and PUBCOMP, may have.
fn ack_reasons(kind: u8) -> Vec<u8> {
    if kind < 6 { vec![0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99] } else { vec![0, 0x92] }
}

fn ack() -> impl Strategy<Value = (u8, u8)> {
    (4_u8..8).prop_flat_map(|kind| (Just(kind), prop::sample::select(ack_reasons(kind))))
}

proptest! {
    #[test]
    fn connect_as_the_other_codec_writes_it(mut spec in super::connect::connect()) {
        if spec.version == Version::V31 {
            spec.version = Version::V311;
        }
        both_read(spec.version, &their_connect(&spec), &spec.encode());
    }

    #[test]
    fn publish_as_the_other_codec_writes_it(
        (version, qos) in (version(), qos()),
        (dup, retain) in any::<(bool, bool)>(),
        topic in "[^\0+#/]{1,200}",
        packet_id in 1..=u16::MAX,
        props in super::properties::message_props(0x23),
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let at_most_once = qos == Qos::AtMostOnce;
        let spec = PublishSpec {
            version,
            dup: dup && !at_most_once,
            qos,
            retain,
            topic,
            packet_id,
            properties: props,
            payload,
        };
        both_read(version, &their_publish(&spec), &spec.encode());
    }

    #[test]
    fn acknowledgements_as_the_other_codec_writes_them(
        version in version(),
        (kind, reason) in ack(),
        id in 1..=u16::MAX,
        props in explanation(),
    ) {
        let body = Body::new().u16(id);
        both_read(version, &their_short_ack(version, kind, id), &body.clone().packet(first_byte(kind)));
        let body = body.u8(reason);
        let meant = if props.is_empty() { body } else { body.props(&props) };
        both_read(Version::V5, &their_ack(kind, id, reason, &props), &meant.packet(first_byte(kind)));
    }

    #[test]
    fn subscribe_and_unsubscribe_as_the_other_codec_writes_them(
        version in version(),
        id in 1..=u16::MAX,
        filters in prop::collection::vec(("[a-z+#/\u{20AC} ]{1,20}", 0_u8..3, any::<[bool; 2]>(), 0_u8..3), 1..16),
        identifier in prop::option::of(1_u32..=268_435_455),
        pairs in prop::collection::vec(("[^\0]{0,12}", "[^\0]{0,60}"), 0..4),
    ) {
        let options = |qos: u8, [local, published]: [bool; 2], handling: u8| match version {
            Version::V5 => qos | u8::from(local) << 2 | u8::from(published) << 3 | handling << 4,
            Version::V31 | Version::V311 => qos,
        };
        let filters: Vec<(&str, u8)> =
            filters.iter().map(|(filter, qos, flags, handling)| (&**filter, options(*qos, *flags, *handling))).collect();
        let pairs: Vec<Prop> = pairs.into_iter().map(|(name, value)| Prop::Pair(name, value)).collect();
        let props: Vec<Prop> =
            identifier.map(|value| Prop::Vbi(0x0B, value)).into_iter().chain(pairs.clone()).collect();
        let entries: Vec<SubEntry> = filters
            .iter()
            .map(|(filter, options)| SubEntry::new(*filter, SubOpts::from_u8(*options).unwrap()).unwrap())
            .collect();
        let names: Vec<&str> = filters.iter().map(|(filter, _)| *filter).collect();
        let (subscribing, unsubscribing) = match version {
            Version::V5 => (
                v5_0::Subscribe::builder()
                    .packet_id(id)
                    .props(their_properties(&props))
                    .entries(entries)
                    .build()
                    .unwrap()
                    .to_continuous_buffer(),
                v5_0::Unsubscribe::builder()
                    .packet_id(id)
                    .props(their_properties(&pairs))
                    .entries(names.clone())
                    .unwrap()
                    .build()
                    .unwrap()
                    .to_continuous_buffer(),
            ),
            Version::V311 | Version::V31 => (
                v3_1_1::Subscribe::builder()
                    .packet_id(id)
                    .entries(entries)
                    .build()
                    .unwrap()
                    .to_continuous_buffer(),
                v3_1_1::Unsubscribe::builder()
                    .packet_id(id)
                    .entries(names.clone())
                    .unwrap()
                    .build()
                    .unwrap()
                    .to_continuous_buffer(),
            ),
        };
        both_read(version, &subscribing, &subscribe(version, id, &props, &filters));
        both_read(version, &unsubscribing, &unsubscribe(version, id, &pairs, &names));
    }

    #[test]
    fn disconnect_auth_and_pingreq_as_the_other_codec_writes_them(
        reason in prop::sample::select(vec![0_u8, 4, 0x80, 0x81, 0x82, 0x83, 0x93, 0x98]),
        expiry in prop::option::of(any::<u32>()),
        text in explanation(),
        step in prop::sample::select(vec![0x18_u8, 0x19]),
        method in "[^\0]{0,30}",
        data in prop::option::of(prop::collection::vec(any::<u8>(), 0..60)),
    ) {
        let props: Vec<Prop> =
            expiry.map(|value| Prop::Four(0x11, value)).into_iter().chain(text.clone()).collect();
        let disconnect = v5_0::Disconnect::builder()
            .reason_code(DisconnectReasonCode::try_from(reason).unwrap())
            .props(their_properties(&props))
            .build()
            .unwrap();
        let meant = Body::new().u8(reason).props(&props).packet(0xE0);
        both_read(Version::V5, &disconnect.to_continuous_buffer(), &meant);

        let mut props = vec![Prop::Text(0x15, method)];
        props.extend(data.map(|data| Prop::Data(0x16, data)));
        props.extend(text);
        let auth = v5_0::Auth::builder()
            .reason_code(AuthReasonCode::try_from(step).unwrap())
            .props(their_properties(&props))
            .build()
            .unwrap();
        both_read(Version::V5, &auth.to_continuous_buffer(), &Body::new().u8(step).props(&props).packet(0xF0));

        both_read(Version::V5, &v5_0::Pingreq::new().to_continuous_buffer(), &[0xC0, 0]);
        both_read(Version::V311, &v3_1_1::Pingreq::new().to_continuous_buffer(), &[0xC0, 0]);
        both_read(Version::V311, &v3_1_1::Disconnect::new().to_continuous_buffer(), &[0xE0, 0]);
        let short = v5_0::Disconnect::builder().build().unwrap().to_continuous_buffer();
        both_read(Version::V5, &short, &[0xE0, 0]);
    }
}

/// A valid packet of each kind, with as many fields as it can have.
fn samples() -> impl Strategy<Value = (Version, Vec<u8>)> {
    let of = |version: Version| {
        super::robust::samples()
            .into_iter()
            .filter(move |sample| by_theirs(version, sample).is_ok())
            .map(move |sample| (version, sample))
    };
    prop::sample::select(BOTH.into_iter().flat_map(of).collect::<Vec<_>>())
}

/// What ours makes of a damaged packet, if it still accepts it: the bytes of the packet, and what they say.
fn still_accepted(version: Version, stream: &[u8]) -> Option<(Vec<u8>, Said)> {
    let form = if stream[0] >> 4 == 1 { LengthForm::Any } else { version.length_form() };
    let Ok(NextFrame::Frame(frame)) = next_frame(stream, 1 << 20, form) else { return None };
    let said = if frame.kind() == 1 {
        let connect = decode_connect(&frame, &LIMITS).ok().filter(|connect| connect.version == version)?;
        greeting_by_ours(&connect)
    } else {
        by_ours(decode(version, &frame, &LIMITS).ok()?)
    };
    Some((stream[..frame.len].to_vec(), said))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn what_ours_still_accepts_of_a_damaged_packet_the_other_codec_reads_alike(
        (version, sample) in samples(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..4, any::<u8>()), 1..4),
    ) {
        let mut bytes = sample;
        for (index, change, value) in changes {
            let at = index.index(bytes.len());
            match change {
                0 => bytes[at] = value,
                1 => bytes[at] ^= 1 << (value & 7),
                2 if bytes.len() > 2 => drop(bytes.remove(at)),
                _ => bytes.insert(at, value),
            }
        }
        if let Some((packet, said)) = still_accepted(version, &bytes) {
            match by_theirs(version, &packet) {
                Ok(theirs) => prop_assert_eq!(said, theirs, "{:02X?}", packet),
                Err(why) => prop_assert!(is_known_difference(version, &said), "{:?}: {:02X?}", why, packet),
            }
        }
    }
}

/// A password without a user name, which 5.0 allows [MQTT-3.1.2-19] and that codec refuses as 3.1.1 does.
fn is_known_difference(version: Version, said: &Said) -> bool {
    version == Version::V5 && matches!(said, Said::Connect(greeting) if greeting.has_only_a_password())
}

#[test]
fn mqtt_3_1_2_19_a_password_alone_is_where_the_two_codecs_differ() {
    let spec = ConnectSpec { password: Some(b"secret".to_vec()), ..ConnectSpec::new(Version::V5) };
    let packet = spec.encode();
    assert!(is_known_difference(Version::V5, &read(Version::V5, &packet)));
    assert!(by_theirs(Version::V5, &packet).is_err());
}

/// The table of all reason codes (2.4) has 0x8C in DISCONNECT, that of DISCONNECT itself (3.14.2.1) leaves it out. Ours may
/// write it, that codec does not read it. The broker has no use for it there.
#[test]
fn mqtt_3_14_2_1_bad_authentication_method_in_disconnect_is_where_the_two_codecs_differ() {
    let mut packet = Vec::new();
    encode_disconnect(&mut packet, Reason::BAD_AUTHENTICATION_METHOD, None, u32::MAX);
    assert_eq!(packet, [0xE0, 0x01, 0x8C]);
    assert!(by_theirs(Version::V5, &packet).is_err());
}

#[test]
fn every_packet_type_is_among_the_samples_that_are_damaged() {
    let of_client = [1, 3, 4, 5, 6, 7, 8, 10, 12, 14, 15];
    let kinds = |version| {
        super::robust::samples()
            .into_iter()
            .filter(move |sample| {
                still_accepted(version, sample).is_some() && by_theirs(version, sample).is_ok()
            })
            .map(|sample| sample[0] >> 4)
            .collect::<std::collections::BTreeSet<u8>>()
    };
    assert_eq!(kinds(Version::V5), of_client.into());
    assert!(kinds(Version::V311).is_superset(&[1, 3, 8, 10, 12].into()));
}
