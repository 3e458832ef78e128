//! Single Control Packets, in and out.

use ringmq::wire::{
    self, AckKind, DecodeLimits, LengthForm, NextFrame, Packet, PublishHead, Qos, Reason, Version,
};

use crate::{Meter, Prepared, Scale};

/// Whatever a packet may hold.
const LIMITS: DecodeLimits = DecodeLimits { properties_max: 256, topic_levels_max: 128, topic_alias_max: 64 };
const PACKET_SIZE_MAX: u32 = 8 << 20;
/// Packets of one step.
const BATCH: usize = 1000;

/// A topic as clients have them.
pub(crate) fn topic(number: usize) -> String {
    format!("bench/a1b2c3d4/p2p/{number}")
}

/// Appends a PUBLISH of version 5; `properties` are encoded, without their length.
pub(crate) fn put_publish(
    out: &mut Vec<u8>,
    qos: Qos,
    packet_id: u16,
    topic: &str,
    properties: &[u8],
    payload: usize,
) {
    let head = PublishHead {
        version: Version::V5,
        dup: false,
        qos,
        retain: false,
        packet_id,
        topic,
        topic_alias: 0,
        expiry_s: None,
        identifiers: &[],
        properties,
        payload_len: payload,
    };
    head.encode(out);
    out.extend((0..payload).map(|i| i as u8));
}

/// Decodes all packets in `input` again and again.
fn decode(input: Vec<u8>) -> Prepared {
    let step = move |meter: &mut Meter| {
        let sum = meter.measure(|| {
            let (mut at, mut sum) = (0, 0);
            while let Ok(NextFrame::Frame(frame)) =
                wire::next_frame(&input[at..], PACKET_SIZE_MAX, LengthForm::Shortest)
            {
                at += frame.len;
                sum += match wire::decode(Version::V5, &frame, &LIMITS) {
                    Ok(Packet::Publish(publish)) => {
                        publish.topic.len() + publish.payload.len() + usize::from(publish.packet_id)
                    }
                    Ok(Packet::PubAck(ack)) => usize::from(ack.packet_id),
                    other => panic!("not a packet of this operation: {other:?}"),
                };
            }
            assert_eq!(at, input.len());
            sum
        });
        meter.note_number(sum as u64);
    };
    Prepared::new(BATCH, step)
}

pub(crate) fn decode_publish(_: Scale) -> Prepared {
    let mut input = Vec::new();
    (0..BATCH).for_each(|number| put_publish(&mut input, Qos::AtMostOnce, 0, &topic(number), &[], 64));
    decode(input)
}

pub(crate) fn decode_publish_properties(_: Scale) -> Prepared {
    // Payload Format Indicator, Content Type, Response Topic, Correlation Data, a User Property.
    let properties =
        b"\x01\x01\x03\x00\x0aapp/json-1\x08\x00\x05reply\x09\x00\x041234\x26\x00\x03key\x00\x05value";
    let mut input = Vec::new();
    for number in 0..BATCH {
        put_publish(&mut input, Qos::AtLeastOnce, number as u16 + 1, &topic(number), properties, 64);
    }
    decode(input)
}

pub(crate) fn decode_puback(_: Scale) -> Prepared {
    let mut input = Vec::new();
    for packet_id in 1..=BATCH as u16 {
        wire::encode_ack(&mut input, Version::V5, AckKind::PubAck, packet_id, Reason::SUCCESS);
    }
    decode(input)
}

pub(crate) fn encode_publish(_: Scale) -> Prepared {
    let topic = topic(7);
    let payload = [7; 64];
    let mut out = Vec::with_capacity(BATCH * 128);
    Prepared::new(BATCH, move |meter| {
        out.clear();
        meter.measure(|| {
            for packet_id in 1..=BATCH as u16 {
                let head = PublishHead {
                    version: Version::V5,
                    dup: false,
                    qos: Qos::AtLeastOnce,
                    retain: false,
                    packet_id,
                    topic: &topic,
                    topic_alias: 0,
                    expiry_s: None,
                    identifiers: &[],
                    properties: &[],
                    payload_len: payload.len(),
                };
                head.encode(&mut out);
                out.extend_from_slice(&payload);
            }
        });
        meter.note(&out[..1000]);
        meter.note_number(out.len() as u64);
    })
}

pub(crate) fn encode_puback(_: Scale) -> Prepared {
    let mut out = Vec::with_capacity(BATCH * 8);
    Prepared::new(BATCH, move |meter| {
        out.clear();
        meter.measure(|| {
            for packet_id in 1..=BATCH as u16 {
                wire::encode_ack(&mut out, Version::V5, AckKind::PubAck, packet_id, Reason::SUCCESS);
            }
        });
        meter.note(&out[..100]);
        meter.note_number(out.len() as u64);
    })
}
