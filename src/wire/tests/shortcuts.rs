//! The short cuts say the same as the decoder: [`Repeat`] and [`PlainAcks`] beside [`decode`], on packets that are nearly
//! what they take.

use proptest::prelude::*;

use super::{LIMITS, Packet, VERSIONS};
use crate::wire::testing::PublishSpec;
use crate::wire::{
    Ack, AckKind, NextFrame, PlainAcks, Qos, Reason, Repeat, Repetition, Version, decode, decode_publish,
    next_frame,
};

const SIZE_MAX: u32 = 300;

/// The packet at the front, decoded.
fn first_of(version: Version, input: &[u8]) -> Option<(usize, Packet<'_>)> {
    match next_frame(input, SIZE_MAX, version.length_form()) {
        Ok(NextFrame::Frame(frame)) => Some((frame.len, decode(version, &frame, &LIMITS).ok()?)),
        Ok(NextFrame::Incomplete { .. }) | Err(_) => None,
    }
}

fn version() -> impl Strategy<Value = Version> {
    prop::sample::select(VERSIONS.to_vec())
}

/// A PUBLISH of one QoS on one of few topics, and now and then something else.
fn publish(version: Version, qos: Qos) -> impl Strategy<Value = Vec<u8>> {
    let topic = prop::sample::select(vec!["a/b", "a/b", "a/b", "a/c", "a/bc"]);
    let qos = prop::sample::select(vec![qos, qos, qos, Qos::AtLeastOnce]);
    let len = prop_oneof![4 => Just(5usize), 2 => 0usize..8, 1 => 110usize..140, 1 => 280usize..310];
    (topic, qos, len, prop::bool::weighted(0.1), 0usize..20).prop_map(
        move |(topic, qos, len, retain, damage)| {
            let spec =
                PublishSpec { retain, payload: vec![b'x'; len], ..PublishSpec::new(version, qos, topic) };
            let mut packet = spec.encode();
            if damage < 3 {
                let at = (damage * 7) % packet.len();
                packet[at] ^= 1 << damage;
            }
            packet
        },
    )
}

fn check_repeat(version: Version, input: &[u8]) -> Result<usize, TestCaseError> {
    let Some((len, Packet::Publish(model))) = first_of(version, input) else { return Ok(0) };
    let Ok(NextFrame::Frame(frame)) = next_frame(input, SIZE_MAX, version.length_form()) else {
        unreachable!("it was decoded");
    };
    let (packet, mut rest) = input.split_at(len);
    let known = decode_publish(version, &frame, &LIMITS, model.topic).unwrap();
    prop_assert_eq!(known, model);
    let Some(repeat) = Repeat::of(version, &frame, packet, &model) else {
        let simple = !model.retain && model.properties.is_empty();
        prop_assert!(!(simple && frame.is_shortest() && model.topic_alias == 0 && model.expiry_s.is_none()));
        return Ok(0);
    };
    let mut count = 0;
    loop {
        let found = repeat.next(rest, SIZE_MAX);
        let expected = match first_of(version, rest) {
            Some((len, Packet::Publish(publish))) if rest[0] == packet[0] && publish.topic == model.topic => {
                let Ok(NextFrame::Frame(frame)) = next_frame(rest, SIZE_MAX, version.length_form()) else {
                    unreachable!("it was decoded");
                };
                let packet_id_len = if publish.qos == Qos::AtMostOnce { 0 } else { 2 };
                let properties_len = usize::from(version == Version::V5);
                let head_len = 2 + model.topic.len() + packet_id_len + properties_len;
                let payload_len = publish.payload.len();
                (frame.body.len() == head_len + payload_len && frame.is_shortest()).then_some(Repetition {
                    len,
                    payload_len,
                    packet_id: publish.packet_id,
                })
            }
            _ => None,
        };
        prop_assert_eq!(found, expected, "{:02x?} after {:02x?}", rest, packet);
        let Some(found) = found else { break };
        rest = &rest[found.len..];
        count += 1;
    }
    let taken = &input[len..input.len() - rest.len()];
    if count > 0 {
        // One that is made of repetitions alone finds the same in them.
        let known = Repeat::of_known(version, model.qos, model.topic, taken).unwrap();
        let mut rest = taken;
        while !rest.is_empty() {
            let found = known.next(rest, SIZE_MAX);
            prop_assert_eq!(found, repeat.next(rest, SIZE_MAX));
            rest = &rest[found.unwrap().len..];
        }
    }
    Ok(count)
}

proptest! {
    #[test]
    fn repetitions_are_what_the_decoder_would_have_found(
        (version, packets) in (version(), 0u8..3).prop_flat_map(|(version, qos)| {
            let qos = Qos::from_bits(qos).unwrap();
            (Just(version), prop::collection::vec(publish(version, qos), 1..8))
        }),
        cut in 0usize..12,
    ) {
        let mut input = packets.concat();
        input.truncate(input.len().saturating_sub(cut));
        check_repeat(version, &input)?;
    }

    #[test]
    fn plain_acknowledgements_are_what_the_decoder_would_have_found(
        version in version(),
        packets in prop::collection::vec((0usize..5, 0usize..4, 0u16..3, 0u8..4), 0..8),
        same in prop::bool::ANY,
    ) {
        let firsts = [0x40, 0x50, 0x62, 0x70, 0x44];
        let mut input = Vec::new();
        for (first, len, packet_id, reason) in &packets {
            let first = firsts[if same { packets[0].0 } else { *first }];
            let [high, low] = packet_id.to_be_bytes();
            match len {
                0 => input.extend([first, 3, high, low, *reason]),
                1 => input.extend([first, 2, high]),
                _ => input.extend([first, 2, high, low]),
            }
        }
        let (kind, ids) = match PlainAcks::of(&input) {
            Some(acks) => {
                prop_assert_eq!(acks.bytes_len(), acks.count() * 4);
                (Some(acks.kind()), acks.packet_ids().collect())
            }
            None => (None, Vec::new()),
        };
        let mut rest = &input[..];
        for packet_id in ids {
            let plain = Ack { packet_id, reason: Reason::SUCCESS };
            let (len, packet) = first_of(version, rest).expect("taken for an acknowledgement");
            match (kind.unwrap(), packet) {
                (AckKind::PubAck, Packet::PubAck(ack))
                | (AckKind::PubRec, Packet::PubRec(ack))
                | (AckKind::PubRel, Packet::PubRel(ack))
                | (AckKind::PubComp, Packet::PubComp(ack)) => prop_assert_eq!(ack, plain),
                (kind, packet) => prop_assert!(false, "{:?} for {:?}", kind, packet),
            }
            prop_assert_eq!(len, 4);
            rest = &rest[len..];
        }
        // What is left does not begin with one more of the kind.
        if let [first, 2, high, low, ..] = *rest && kind.is_some() {
            prop_assert!(first != input[0] || (high, low) == (0, 0));
        }
    }
}

#[test]
fn equal_packets_are_repetitions() {
    for version in VERSIONS {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let packet = PublishSpec::new(version, qos, "some/topic").encode();
            assert_eq!(check_repeat(version, &packet.repeat(20)).unwrap(), 19);
        }
    }
}
