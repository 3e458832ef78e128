//! Clients that send what they should not, and two that do not.

use ringmq::io::sim::{ClientRead, Endpoint, Rng};

use crate::broker::Broker;
use crate::packets;
use crate::support::decode::{Packet, decode, frame_length};
use crate::support::encode::{self, Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Publish, Version};

/// Bytes of a connection that are on their way.
struct Wire {
    endpoint: Endpoint,
    version: Version,
    unsent: Vec<u8>,
    unread: Vec<u8>,
    /// Its CONNECT was as it should be, so that what comes is of its version.
    is_known: bool,
    /// Nothing was sent after it that the broker must refuse.
    is_over: bool,
}

impl Wire {
    fn open(broker: &mut Broker, version: Version) -> Wire {
        let endpoint = broker.connect();
        Wire { endpoint, version, unsent: Vec::new(), unread: Vec::new(), is_known: true, is_over: false }
    }

    fn write(&mut self, broker: &Broker, most: usize) {
        let count = self.unsent.len().min(most);
        match broker.world().write(self.endpoint, &self.unsent[..count]) {
            Some(taken) => drop(self.unsent.drain(..taken)),
            None => self.is_over = true,
        }
    }

    /// Whole packets that came, each of which must be legal.
    fn read(&mut self, broker: &Broker, most: usize) -> Vec<Packet> {
        let mut bytes = Vec::new();
        let end = broker.world().read(self.endpoint, &mut bytes, most);
        self.unread.extend(bytes);
        let mut packets = Vec::new();
        loop {
            let length =
                frame_length(&self.unread).unwrap_or_else(|why| panic!("{why}: {:02x?}", self.unread));
            let Some(length) = length.filter(|length| *length <= self.unread.len()) else { break };
            let packet: Vec<u8> = self.unread.drain(..length).collect();
            if self.is_known {
                let shown = &packet[..packet.len().min(60)];
                packets
                    .push(decode(self.version, &packet).unwrap_or_else(|why| panic!("{why}: {shown:02x?}")));
            }
        }
        self.is_over |= matches!(end, ClientRead::Eof | ClientRead::Reset);
        packets
    }
}

/// A client of the bad kind: takes whichever identity, and sends anything.
pub struct Fuzzer {
    rng: Rng,
    wire: Option<Wire>,
    /// Of a hundred packets, how many are damaged.
    damaged: usize,
    /// Whether it answers what it is sent.
    answers: bool,
    /// How many of its looks at the socket read.
    reads: usize,
    last: Vec<u8>,
}

impl Fuzzer {
    pub fn new(number: usize, mut rng: Rng) -> Fuzzer {
        Fuzzer {
            // One that damages nothing keeps sessions and exchanges alive for the others to break.
            damaged: if number == 0 { 0 } else { *rng.pick(&[2, 10, 40, 90]) },
            answers: rng.below(3) > 0,
            reads: *rng.pick(&[0, 3, 10]),
            rng,
            wire: None,
            last: vec![0x30, 0],
        }
    }

    pub fn act(&mut self, broker: &mut Broker) {
        if self.wire.as_ref().is_none_or(|wire| wire.is_over) || self.rng.below(40) == 0 {
            self.leave(broker);
            self.arrive(broker);
        }
        let Some(wire) = &mut self.wire else { return };
        for _ in 0..self.rng.between(1, 4) {
            let bytes = packets::any(&mut self.rng, wire.version);
            let bytes = if self.rng.below(100) < self.damaged {
                packets::damage(&mut self.rng, bytes, &self.last)
            } else {
                bytes
            };
            self.last.clone_from(&bytes);
            wire.unsent.extend(bytes);
        }
        // A socket that takes nothing must not make this client remember more and more.
        wire.unsent.truncate(40_000);
        let most = *self.rng.pick(&[1, 7, 100, 40_000]);
        wire.write(broker, most);
        if self.rng.below(10) < self.reads {
            let most = *self.rng.pick(&[1, 100, 40_000]);
            for packet in wire.read(broker, most) {
                if self.answers {
                    wire.unsent.extend(answer(&packet));
                }
            }
        }
    }

    fn arrive(&mut self, broker: &mut Broker) {
        let version = *self.rng.pick(&[Version::V5, Version::V5, Version::V311, Version::V31]);
        let mut wire = Wire::open(broker, version);
        let mut bytes = packets::connect(&mut self.rng, version);
        if self.rng.below(300) < self.damaged {
            bytes = packets::damage(&mut self.rng, bytes, &self.last);
            wire.is_known = false;
        }
        wire.unsent = bytes;
        self.wire = Some(wire);
    }

    /// Goes in one of the ways there are.
    pub fn leave(&mut self, broker: &mut Broker) {
        let Some(mut wire) = self.wire.take() else { return };
        match self.rng.below(4) {
            0 => {
                wire.write(broker, usize::MAX);
                wire.read(broker, usize::MAX);
                broker.world().close(wire.endpoint);
            }
            1 => broker.world().reset(wire.endpoint),
            2 => {
                wire.unsent.extend(encode::DISCONNECT);
                wire.write(broker, usize::MAX);
                broker.world().close(wire.endpoint);
            }
            _ => broker.world().close(wire.endpoint),
        }
    }
}

/// The acknowledgement that a packet asks for.
fn answer(packet: &Packet) -> Vec<u8> {
    match packet {
        Packet::Publish(publish) if publish.qos == 1 => encode::ack(PUBACK, publish.packet_id),
        Packet::Publish(publish) if publish.qos == 2 => encode::ack(PUBREC, publish.packet_id),
        Packet::Pubrec(ack) if ack.code < 0x80 => encode::ack(PUBREL, ack.packet_id),
        Packet::Pubrel(ack) => encode::ack(PUBCOMP, ack.packet_id),
        _ => Vec::new(),
    }
}

/// The topic of the honest: no filter of the others matches it but those that match everything.
const TOPIC: &str = "honest/work";

/// A publisher and a subscriber that do as they should. Nothing that others do may cost them a message.
pub struct Pair {
    publisher: Wire,
    subscriber: Wire,
    is_subscribed: bool,
    sent: u32,
    acknowledged: u32,
    next: u32,
    qos: u8,
}

impl Pair {
    pub fn new(broker: &mut Broker, rng: &mut Rng) -> Pair {
        let versions = [Version::V5, Version::V311];
        let qos = 1 + rng.below(2) as u8;
        let mut open = |id: &str| {
            let version = *rng.pick(&versions);
            let mut wire = Wire::open(broker, version);
            let mut connect = Connect::new(version, id);
            connect.keep_alive_s = 0;
            wire.unsent.extend(connect.bytes());
            wire
        };
        let publisher = open("honest publisher");
        let mut subscriber = open("honest subscriber");
        subscriber.unsent.extend(encode::subscribe(subscriber.version, 1, &[], &[(TOPIC, 2)]));
        let mut pair =
            Pair { publisher, subscriber, is_subscribed: false, sent: 0, acknowledged: 0, next: 0, qos };
        for _ in 0..10_000 {
            if pair.is_subscribed {
                return pair;
            }
            pair.look(broker);
            broker.pass(5, |_| {});
        }
        panic!("the honest are not served");
    }

    /// One message more, unless some that were published are not acknowledged yet.
    pub fn publish(&mut self, broker: &mut Broker) {
        if self.sent < self.acknowledged + 8 {
            let publish =
                Publish::new(TOPIC, self.sent.to_string()).qos(self.qos, 1 + (self.sent % 1000) as u16);
            self.publisher.unsent.extend(publish.bytes(self.publisher.version));
            self.sent += 1;
        }
        self.look(broker);
    }

    /// Reads, checks and answers.
    pub fn look(&mut self, broker: &mut Broker) {
        for wire in [&mut self.publisher, &mut self.subscriber] {
            wire.write(broker, usize::MAX);
            for packet in wire.read(broker, usize::MAX) {
                wire.unsent.extend(answer(&packet));
                match packet {
                    Packet::Publish(publish) => {
                        assert_eq!((publish.topic.as_str(), publish.qos), (TOPIC, self.qos));
                        assert_eq!(publish.text(), self.next.to_string(), "lost, repeated or out of order");
                        self.next += 1;
                    }
                    Packet::Puback(ack) | Packet::Pubcomp(ack) => {
                        assert!(ack.code < 0x80, "{ack:?}");
                        self.acknowledged += 1;
                    }
                    Packet::Connack(connack) => assert_eq!(connack.code, 0),
                    Packet::Suback(suback) => {
                        assert_eq!(suback.codes, [2]);
                        self.is_subscribed = true;
                    }
                    Packet::Pubrec(ack) => assert!(ack.code < 0x80, "{ack:?}"),
                    Packet::Pubrel(_) => {}
                    other => panic!("the broker sends the honest {other:?}"),
                }
            }
            assert!(!wire.is_over, "an honest client was cut off");
            wire.write(broker, usize::MAX);
        }
    }

    /// Everything that was published arrives; then both leave.
    pub fn finish(mut self, broker: &mut Broker) {
        for _ in 0..100_000 {
            if self.next == self.sent && self.acknowledged == self.sent && self.subscriber.unsent.is_empty() {
                break;
            }
            self.look(broker);
            broker.rest();
        }
        assert_eq!((self.next, self.acknowledged), (self.sent, self.sent), "some never arrived");
        assert!(self.sent > 5, "only {} messages", self.sent);
        for wire in [&mut self.publisher, &mut self.subscriber] {
            wire.unsent.extend(encode::DISCONNECT);
            for _ in 0..200 {
                wire.write(broker, usize::MAX);
                broker.rest();
            }
            broker.world().close(wire.endpoint);
        }
    }
}
