//! No input panics, whatever it is, and what was accepted can be walked to its end.

use proptest::prelude::*;

use super::{LIMITS, VERSIONS};
use crate::wire::testing::{Body, ConnectSpec, Prop, PublishSpec, subscribe, unsubscribe};
use crate::wire::{
    ConnectError, LengthForm, NextFrame, Packet, Properties, Qos, Version, decode, decode_connect, next_frame,
};

fn walk(properties: Properties<'_>) {
    let mut out = Vec::new();
    properties.write_to(&mut out);
    assert_eq!(out.len(), properties.len());
}

/// Reads a stream as every version would, and looks at everything that was accepted.
fn read_all(stream: &[u8]) {
    for form in [LengthForm::Shortest, LengthForm::Any] {
        let mut rest = stream;
        while let Ok(NextFrame::Frame(frame)) = next_frame(rest, 1 << 20, form) {
            assert_eq!(frame.len, rest.len() - rest[frame.len..].len());
            match decode_connect(&frame, &LIMITS) {
                Ok(connect) => {
                    if let Some(will) = connect.will {
                        assert!(!will.topic.is_empty());
                        walk(will.properties);
                    }
                }
                Err(ConnectError::V5(error) | ConnectError::V3(error)) => assert!(!error.detail().is_empty()),
                Err(other) => assert!(!other.detail().is_empty()),
            }
            for version in VERSIONS {
                read_one(version, &frame);
            }
            rest = &rest[frame.len..];
        }
    }
}

fn read_one(version: Version, frame: &crate::wire::Frame<'_>) {
    let packet = match decode(version, frame, &LIMITS) {
        Ok(packet) => packet,
        Err(error) => return assert!(error.reason().is_error() && !error.detail().is_empty()),
    };
    match packet {
        Packet::Publish(publish) => {
            assert!(!publish.topic.contains(['\0', '+', '#']));
            assert!(!publish.topic.is_empty() || publish.topic_alias != 0);
            assert_eq!(publish.packet_id == 0, publish.qos == Qos::AtMostOnce);
            walk(publish.properties);
        }
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            assert_ne!(ack.packet_id, 0);
        }
        Packet::Subscribe(subscribe) => {
            let (announced, mut count) = (subscribe.filters.len(), 0);
            for entry in subscribe.filters {
                assert!(!entry.filter.contains('\0'));
                count += 1;
            }
            assert_eq!((count, count > 0), (announced, true));
        }
        Packet::Unsubscribe(unsubscribe) => {
            let announced = unsubscribe.filters.len();
            assert_eq!((unsubscribe.filters.count(), announced > 0), (announced, true));
        }
        Packet::Auth(auth) => assert!(auth.method.is_some()),
        Packet::PingReq | Packet::Disconnect(_) | Packet::Connect => {}
    }
}

/// One valid packet of each kind, with as many fields as it can have.
pub(super) fn samples() -> Vec<Vec<u8>> {
    let text = [Prop::text(0x1F, "why"), Prop::pair("name", "value")];
    let message = [
        Prop::Byte(0x01, 1),
        Prop::Four(0x02, 9),
        Prop::text(0x03, "text/plain"),
        Prop::Two(0x23, 4),
        Prop::text(0x08, "reply"),
        Prop::Data(0x09, vec![1, 2, 3]),
        Prop::pair("a", "b"),
    ];
    let mut samples: Vec<Vec<u8>> = Vec::new();
    for version in VERSIONS {
        samples.push(ConnectSpec::full(version).encode());
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let spec = PublishSpec::new(version, qos, "topic/name");
            samples.push(PublishSpec { properties: message.to_vec(), ..spec }.encode());
        }
        samples.push(subscribe(version, 7, &[Prop::Vbi(0x0B, 300)], &[("a/+", 1), ("b/#", 2)]));
        samples.push(unsubscribe(version, 7, &text[1..], &["a/+", "b/#"]));
    }
    samples.extend([0x40, 0x50].map(|first| Body::new().u16(7).u8(0x87).props(&text).packet(first)));
    samples.extend([0x62, 0x70].map(|first| Body::new().u16(7).u8(0x92).props(&text).packet(first)));
    samples.push(Body::new().u8(4).props(&text).packet(0xE0));
    samples
        .push(Body::new().u8(0x18).props(&[Prop::text(0x15, "m"), Prop::Data(0x16, vec![9])]).packet(0xF0));
    samples.push(vec![0xC0, 0x00]);
    samples
}

#[test]
fn every_sample_is_valid_and_survives_every_change_of_one_byte() {
    for sample in samples() {
        for at in 0..sample.len() {
            for value in 0..=0xFF {
                let mut changed = sample.clone();
                changed[at] = value;
                read_all(&changed);
            }
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(stream in prop::collection::vec(any::<u8>(), 0..200)) {
        read_all(&stream);
    }

    #[test]
    fn random_bodies_of_every_packet_type_never_panic(
        first in any::<u8>(),
        body in prop::collection::vec(prop_oneof![4 => 0_u8..0x30, 1 => any::<u8>()], 0..60),
    ) {
        read_all(&Body(body).packet(first));
    }

    #[test]
    fn random_property_blocks_never_panic(
        block in prop::collection::vec(prop_oneof![6 => 0_u8..0x2B, 1 => any::<u8>()], 0..100),
    ) {
        let len = crate::wire::testing::vbi(block.len());
        read_all(&Body::new().str("t").raw(&len).raw(&block).packet(0x30));
        let connect = ConnectSpec::protocol(Version::V5).u8(0x06).u16(0).u8(0).str("c");
        read_all(&connect.raw(&len).raw(&block).str("t").bin(b"").packet(0x10));
    }

    #[test]
    fn samples_with_bytes_changed_removed_and_put_in_never_panic(
        sample in prop::sample::select(samples()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..3, any::<u8>()), 1..6),
    ) {
        let mut bytes = sample;
        for (index, change, value) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = index.index(bytes.len());
            match change {
                0 => bytes[at] = value,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, value),
            }
        }
        read_all(&bytes);
    }
}
