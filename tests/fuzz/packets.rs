//! Packets that clients may send, drawn from a small world of names, and what is done to them.

use ringmq::io::sim::Rng;

use crate::support::encode::{self, Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Publish, Version, Will};
use crate::support::property::{Property, every};

/// Few names, so that clients meet: on topics, in groups, and in one another's sessions.
const IDS: [&str; 6] = ["a", "b", "c", "d", "e", ""];
const TOPICS: [&str; 8] = ["t", "t/u", "t/u/v", "t//v", "/", "$x/y", "$SYS/broker/uptime", "u"];
const FILTERS: [&str; 14] = [
    "t",
    "t/#",
    "t/+",
    "+/u/#",
    "#",
    "+",
    "/",
    "$x/#",
    "$SYS/#",
    "$share/g/t/#",
    "$share/h/#",
    "$share/g/t",
    "t/#/u",
    "$share/g",
];

/// A CONNECT, and whether it asks for a version that is served.
pub fn connect(rng: &mut Rng, version: Version) -> Vec<u8> {
    let mut connect = Connect::new(version, *rng.pick(&IDS));
    connect.clean = rng.below(3) == 0;
    connect.keep_alive_s = *rng.pick(&[0, 5, 60]);
    if rng.below(3) == 0 {
        let mut will = Will::new(*rng.pick(&TOPICS), payload(rng)).qos(rng.below(3) as u8);
        if rng.below(3) == 0 {
            will = will.retain();
        }
        if version == Version::V5 && rng.below(2) == 0 {
            will = will.with(Property::WillDelay(rng.below(20) as u32));
        }
        connect = connect.will(will);
    }
    if version == Version::V5 {
        for property in [
            Property::SessionExpiry(rng.below(60) as u32),
            Property::ReceiveMaximum(1 + rng.below(10) as u16),
            Property::MaximumPacketSize(20 + rng.below(4000) as u32),
            Property::TopicAliasMaximum(rng.below(10) as u16),
        ] {
            if rng.below(3) == 0 {
                connect = connect.with(property);
            }
        }
    }
    connect.bytes()
}

fn payload(rng: &mut Rng) -> Vec<u8> {
    let length = *rng.pick(&[0, 1, 10, 300, 2000, 9000]);
    vec![b'x'; length]
}

/// Any packet that may follow a CONNECT. Identifiers are few, so that exchanges meet as well.
pub fn any(rng: &mut Rng, version: Version) -> Vec<u8> {
    let id = 1 + rng.below(12) as u16;
    let v5 = version == Version::V5;
    match rng.below(23) {
        0..=6 => {
            let qos = rng.below(3) as u8;
            let topic = if v5 && rng.below(6) == 0 { "" } else { *rng.pick(&TOPICS) };
            let mut publish = Publish::new(topic, payload(rng)).qos(qos, if qos == 0 { 0 } else { id });
            publish.retain = rng.below(4) == 0;
            publish.dup = qos > 0 && rng.below(5) == 0;
            if v5 && (topic.is_empty() || rng.below(4) == 0) {
                publish = publish.with(Property::TopicAlias(rng.below(7) as u16));
            }
            if v5 && rng.below(4) == 0 {
                publish = publish.with(Property::MessageExpiry(rng.below(3) as u32));
            }
            if v5 && rng.below(4) == 0 {
                publish = publish.with(Property::User("name".into(), "value".into()));
            }
            publish.bytes(version)
        }
        7..=9 => {
            let filters: Vec<(&str, u8)> = (0..=rng.below(3))
                .map(|_| (*rng.pick(&FILTERS), if v5 { rng.below(0x30) as u8 } else { rng.below(3) as u8 }))
                .collect();
            let identifier = [Property::SubscriptionId(1 + rng.below(300) as u32)];
            let properties: &[Property] = if v5 && rng.below(2) == 0 { &identifier } else { &[] };
            encode::subscribe(version, id, properties, &filters)
        }
        10 => encode::unsubscribe(version, id, &[*rng.pick(&FILTERS), *rng.pick(&FILTERS)]),
        11..=15 => {
            let first = *rng.pick(&[PUBACK, PUBREC, PUBREL, PUBCOMP]);
            if v5 && rng.below(3) == 0 {
                encode::ack_code(first, id, *rng.pick(&[0x00, 0x80, 0x92, 0x97]))
            } else {
                encode::ack(first, id)
            }
        }
        16 => encode::PINGREQ.to_vec(),
        17 if rng.below(3) > 0 => encode::PINGREQ.to_vec(),
        17 => encode::DISCONNECT.to_vec(),
        18 => connect(rng, version),
        // What repeats itself takes short ways through a broker.
        19 | 20 => {
            let topic = *rng.pick(&TOPICS);
            let lengths = [1 + rng.below(20), 1 + rng.below(200)];
            let payloads = (0..rng.between(2, 9)).map(|_| vec![b'y'; *rng.pick(&lengths)]);
            payloads.flat_map(|payload| Publish::new(topic, payload).bytes(version)).collect()
        }
        21 => {
            let first = *rng.pick(&[PUBACK, PUBREC, PUBREL, PUBCOMP]);
            (1..rng.between(2, 9) as u16).flat_map(|id| encode::ack(first, id)).collect()
        }
        _ => {
            let mut all = every();
            let property = all.swap_remove(rng.below(all.len()));
            match rng.below(3) {
                0 => encode::auth(0x18, &[property]),
                1 => encode::disconnect(*rng.pick(&[0x00, 0x04, 0x80]), &[property]),
                _ => Publish::new("t", "x").with(property).bytes(version),
            }
        }
    }
}

/// The packet with something wrong with it, if anything.
pub fn damage(rng: &mut Rng, mut bytes: Vec<u8>, other: &[u8]) -> Vec<u8> {
    for _ in 0..rng.between(1, 3) {
        if bytes.is_empty() {
            break;
        }
        let at = rng.below(bytes.len());
        match rng.below(9) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = *rng.pick(&[0x00, 0x7F, 0x80, 0xFF, b'+', b'#', b'/', b'$']),
            2 => bytes.truncate(at),
            3 => drop(bytes.remove(at)),
            4 => bytes.insert(at, rng.bits() as u8),
            // The end of another packet in place of its own.
            5 => {
                bytes.truncate(at);
                bytes.extend(&other[at.min(other.len())..]);
            }
            6 => {
                let twice = bytes[at..].to_vec();
                bytes.extend(twice);
            }
            // Its length, so that what follows is read as something else.
            7 if bytes.len() > 1 => bytes[1] = rng.bits() as u8 & 0x7F,
            _ => bytes.extend((0..rng.below(8)).map(|_| rng.bits() as u8)),
        }
    }
    bytes
}
