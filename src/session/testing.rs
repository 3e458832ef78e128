//! What the tests of sessions share: a client's end of the connection, and a bench that a session is put on.
//!
//! The packets are read and written here without `crate::wire`, so that both sides cannot share a mistake.

use super::*;
use crate::clock::NEVER;
use crate::limits::QueueFull;
use crate::memory::{Class, MessageView, Pool};
use crate::wire::{Reason, Version};

/// A packet as it left the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Publish(Publish),
    PubRel(u16),
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Publish {
    pub(super) dup: bool,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) topic: String,
    pub(super) packet_id: u16,
    pub(super) alias: u16,
    pub(super) expiry_s: Option<u32>,
    pub(super) identifiers: Vec<u32>,
    pub(super) properties: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

fn put_vbi(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let byte = (value % 128) as u8;
        value /= 128;
        out.push(byte + if value > 0 { 128 } else { 0 });
        if value == 0 {
            break;
        }
    }
}

fn take<'a>(input: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (front, rest) = input.split_at(len);
    *input = rest;
    front
}

fn take_u16(input: &mut &[u8]) -> u16 {
    let bytes = take(input, 2);
    u16::from(bytes[0]) * 256 + u16::from(bytes[1])
}

fn take_vbi(input: &mut &[u8]) -> usize {
    let (mut value, mut factor) = (0, 1);
    loop {
        let byte = take(input, 1)[0];
        value += usize::from(byte % 128) * factor;
        factor *= 128;
        if byte < 128 {
            return value;
        }
    }
}

impl Sent {
    /// The one form that MQTT has for this packet, with properties in the broker's order.
    pub(super) fn encode(&self, version: Version) -> Vec<u8> {
        let publish = match self {
            Sent::PubRel(id) => return vec![0x62, 2, (id >> 8) as u8, *id as u8],
            Sent::Publish(publish) => publish,
        };
        let mut body = Vec::new();
        body.extend((publish.topic.len() as u16).to_be_bytes());
        body.extend(publish.topic.bytes());
        if publish.qos > 0 {
            body.extend(publish.packet_id.to_be_bytes());
        }
        if version == Version::V5 {
            let mut properties = Vec::new();
            if let Some(seconds) = publish.expiry_s {
                properties.push(0x02);
                properties.extend(seconds.to_be_bytes());
            }
            if publish.alias > 0 {
                properties.push(0x23);
                properties.extend(publish.alias.to_be_bytes());
            }
            for &identifier in &publish.identifiers {
                properties.push(0x0B);
                put_vbi(&mut properties, identifier as usize);
            }
            properties.extend(&publish.properties);
            put_vbi(&mut body, properties.len());
            body.extend(properties);
        }
        body.extend(&publish.payload);
        let flags = u8::from(publish.dup) * 8 + publish.qos * 2 + u8::from(publish.retain);
        let mut out = vec![0x30 + flags];
        put_vbi(&mut out, body.len());
        out.extend(body);
        out
    }

    fn decode(version: Version, input: &mut &[u8]) -> Sent {
        let first = take(input, 1)[0];
        let len = take_vbi(input);
        let mut body = take(input, len);
        if first == 0x62 {
            assert_eq!(body.len(), 2);
            return Sent::PubRel(take_u16(&mut body));
        }
        assert_eq!(first & 0xF0, 0x30, "only PUBLISH and PUBREL are written by a session");
        let mut publish = Publish {
            dup: first & 8 != 0,
            qos: (first & 6) / 2,
            retain: first & 1 != 0,
            ..Publish::default()
        };
        let topic_len = take_u16(&mut body);
        publish.topic = String::from_utf8(take(&mut body, usize::from(topic_len)).to_vec()).unwrap();
        if publish.qos > 0 {
            publish.packet_id = take_u16(&mut body);
        }
        if version == Version::V5 {
            let len = take_vbi(&mut body);
            let mut properties = take(&mut body, len);
            while let Some(&id) = properties.first() {
                let all = properties;
                take(&mut properties, 1);
                match id {
                    0x02 => {
                        let high = u32::from(take_u16(&mut properties));
                        publish.expiry_s = Some(high * 65_536 + u32::from(take_u16(&mut properties)));
                    }
                    0x23 => publish.alias = take_u16(&mut properties),
                    0x0B => publish.identifiers.push(take_vbi(&mut properties) as u32),
                    0x03 => {
                        let len = take_u16(&mut properties);
                        take(&mut properties, usize::from(len));
                        publish.properties.extend(&all[..3 + usize::from(len)]);
                    }
                    _ => panic!("property {id:#x}"),
                }
            }
        }
        publish.payload = body.to_vec();
        Sent::Publish(publish)
    }

    #[track_caller]
    pub(super) fn publish(&self) -> &Publish {
        match self {
            Sent::Publish(publish) => publish,
            Sent::PubRel(_) => panic!("{self:?}"),
        }
    }
}

/// A session, its surroundings, and its connection if there is one.
pub(super) struct Bench {
    pub(super) session: Session,
    pub(super) link: Option<Link>,
    pub(super) outbox: Outbox,
    pub(super) limits: Limits,
    pub(super) budget: Budget,
    pub(super) drops: Drops,
    spares: Spares,
    pub(super) now: Millis,
    pub(super) send_room: usize,
    pub(super) variants: Variants,
}

/// What CONNECT may say about what a client takes.
#[derive(Copy, Clone, Debug)]
pub(super) struct Maxima {
    pub(super) receive: u16,
    pub(super) packet_size: u32,
    pub(super) topic_alias: u16,
}

impl Maxima {
    pub(super) const NONE: Maxima = Maxima { receive: u16::MAX, packet_size: u32::MAX, topic_alias: 0 };
}

pub(super) const PLAIN: Grant<'static> =
    Grant { qos: Qos::AtLeastOnce, retain: Retain::Clear, identifiers: &[], share: Share::No };

pub(super) fn at(qos: Qos) -> Grant<'static> {
    Grant { qos, ..PLAIN }
}

pub(super) fn message<'a>(topic: &'a str, payload: &'a [u8]) -> MessageView<'a> {
    MessageView {
        topic,
        properties: &[],
        payload,
        qos: Qos::ExactlyOnce,
        retain: false,
        expires_at: NEVER,
        publisher: 0,
        whole: None,
        origin: 0,
        is_repeat: false,
    }
}

/// PUBLISH packets of one publisher, one behind the other, as they make a batch.
pub(super) struct Packets {
    pub(super) topic: &'static str,
    pub(super) version: Version,
    pub(super) qos: Qos,
    pub(super) bytes: Vec<u8>,
    pub(super) entries: Vec<Entry>,
    pub(super) payloads: Vec<Vec<u8>>,
}

impl Packets {
    pub(super) fn new(
        version: Version,
        qos: Qos,
        topic: &'static str,
        dup: bool,
        payloads: Vec<Vec<u8>>,
    ) -> Packets {
        let (mut bytes, mut entries) = (Vec::new(), Vec::new());
        for (payload, packet_id) in payloads.iter().zip(1..) {
            let publish = Publish {
                dup: dup && qos != Qos::AtMostOnce,
                qos: qos as u8,
                topic: topic.to_owned(),
                packet_id: if qos == Qos::AtMostOnce { 0 } else { packet_id },
                payload: payload.clone(),
                ..Publish::default()
            };
            let packet = Sent::Publish(publish).encode(version);
            entries.push(Entry::new(bytes.len(), packet.len(), payload.len(), packet_id));
            bytes.extend(packet);
        }
        Packets { topic, version, qos, bytes, entries, payloads }
    }

    pub(super) fn batch(&self) -> Batch<'_> {
        let message = MessageView { qos: self.qos, ..message(self.topic, &self.payloads[0]) };
        let payload_bytes = self.payloads.iter().map(|payload| payload.len() as u64).sum();
        Batch::of_several(message, self.version, (&self.bytes, payload_bytes), &self.entries)
    }
}

impl Bench {
    pub(super) fn new() -> Bench {
        Bench::with(Limits::default(), 1 << 40)
    }

    /// `memory` is what sessions may charge.
    pub(super) fn with(limits: Limits, memory: u64) -> Bench {
        Bench {
            session: Session::new(),
            link: None,
            outbox: Outbox::default(),
            send_room: limits.send_buffer_bytes_max as usize,
            limits,
            budget: Budget::new(Pool::new([memory; crate::memory::CLASSES])),
            drops: Drops::default(),
            spares: Spares::default(),
            now: 1_000_000,
            variants: Variants::new(),
        }
    }

    pub(super) fn queue_full(policy: QueueFull, messages: u32) -> Bench {
        let limits = Limits { queue_full: policy, queue_messages_max: messages, ..Limits::default() };
        Bench::with(limits, 1 << 40)
    }

    pub(super) fn connect(&mut self, version: Version, maxima: Maxima) {
        self.disconnect();
        self.session.resume();
        let Maxima { receive, packet_size, topic_alias } = maxima;
        self.link = Some(Link::new(version, receive, packet_size, topic_alias, &self.limits));
    }

    pub(super) fn connected(mut self) -> Bench {
        self.connect(Version::V5, Maxima::NONE);
        self
    }

    pub(super) fn disconnect(&mut self) {
        self.link = None;
        self.outbox.clear();
        self.session.connection_lost();
    }

    pub(super) fn deliver(&mut self, message: MessageView<'_>, grant: Grant<'_>) -> Delivered {
        let mut variants = std::mem::take(&mut self.variants);
        let delivered = self.deliver_to_one(&mut Fanout::new(message, &mut variants), grant);
        self.variants = variants;
        delivered
    }

    pub(super) fn deliver_to_one(&mut self, fanout: &mut Fanout<'_>, grant: Grant<'_>) -> Delivered {
        let Bench { session, link, outbox, limits, budget, drops, spares, now, send_room, .. } = self;
        let wire = link.as_mut().map(|link| Wire { link, outbox, send_room: *send_room });
        session.deliver(
            wire,
            fanout,
            &grant,
            &mut Cx { now: *now, limits, budget, drops, spares, notes: None },
        )
    }

    /// How many went at once; the room that is left is kept.
    pub(super) fn deliver_front(
        &mut self,
        batch: &Batch<'_>,
        shared: Option<&mut Vec<Message>>,
        grant: &Grant<'_>,
    ) -> usize {
        let Bench { session, link, outbox, limits, budget, drops, spares, now, send_room, .. } = self;
        let Some(link) = link else { return 0 };
        let mut wire = Wire { link, outbox, send_room: *send_room };
        let mut cx = Cx { now: *now, limits, budget, drops, spares, notes: None };
        let sent = session.deliver_front(&mut wire, batch, shared, grant, &mut cx);
        *send_room = wire.send_room;
        sent
    }

    /// One message of a batch of several, by itself.
    pub(super) fn deliver_at(
        &mut self,
        batch: &Batch<'_>,
        at: usize,
        shared: &[Message],
        grant: Grant<'_>,
    ) -> Delivered {
        let mut variants = std::mem::take(&mut self.variants);
        let mut fanout = batch.first(&mut variants);
        batch.turn_to(at, shared.get(at), &mut fanout);
        let delivered = self.deliver_to_one(&mut fanout, grant);
        self.variants = variants;
        delivered
    }

    #[track_caller]
    pub(super) fn pump(&mut self) -> Pumped {
        let Bench { session, link, outbox, limits, budget, drops, spares, now, send_room, .. } = self;
        let wire = Wire { link: link.as_mut().unwrap(), outbox, send_room: *send_room };
        session.pump(wire, &mut Cx { now: *now, limits, budget, drops, spares, notes: None })
    }

    /// Calls `act` with what acknowledgements need.
    pub(super) fn act<T>(
        &mut self,
        act: impl FnOnce(&mut Session, Option<&mut Link>, &mut Cx<'_>) -> T,
    ) -> T {
        let Bench { session, link, limits, budget, drops, spares, now, .. } = self;
        act(session, link.as_mut(), &mut Cx { now: *now, limits, budget, drops, spares, notes: None })
    }

    #[track_caller]
    pub(super) fn puback(&mut self, packet_id: u16) -> Acked {
        self.act(|session, link, cx| session.handle_puback(link.unwrap(), packet_id, cx))
    }

    #[track_caller]
    pub(super) fn pubrec(&mut self, packet_id: u16, reason: Reason) -> PubrecReply {
        self.act(|session, link, cx| session.handle_pubrec(link.unwrap(), packet_id, reason, cx))
    }

    #[track_caller]
    pub(super) fn pubcomp(&mut self, packet_id: u16) -> Acked {
        self.act(|session, link, cx| session.handle_pubcomp(link.unwrap(), packet_id, cx))
    }

    #[track_caller]
    pub(super) fn incoming(&mut self, qos: Qos, packet_id: u16) -> Ingress {
        self.act(|session, link, _| session.handle_publish(link.unwrap(), qos, packet_id))
    }

    #[track_caller]
    pub(super) fn pubrel(&mut self, packet_id: u16) -> Reason {
        self.act(|session, link, _| session.handle_pubrel(link.unwrap(), packet_id))
    }

    /// The bytes that left since the last call.
    pub(super) fn bytes(&mut self) -> Vec<u8> {
        self.outbox.take(Vec::new()).pieces().flatten().copied().collect()
    }

    /// The packets that left since the last call, each of which must be in its one form.
    #[track_caller]
    pub(super) fn sent(&mut self) -> Vec<Sent> {
        let bytes = self.bytes();
        let Some(link) = &self.link else {
            assert!(bytes.is_empty(), "nothing is written without a connection: {bytes:02x?}");
            return Vec::new();
        };
        let mut rest = &*bytes;
        let mut packets = Vec::new();
        while !rest.is_empty() {
            let before = rest;
            let packet = Sent::decode(link.version, &mut rest);
            assert_eq!(packet.encode(link.version), &before[..before.len() - rest.len()]);
            packets.push(packet);
        }
        packets
    }

    /// The Packet Identifiers of what left since the last call.
    #[track_caller]
    pub(super) fn sent_ids(&mut self) -> Vec<u16> {
        self.sent().iter().map(|packet| packet.publish().packet_id).collect()
    }

    pub(super) fn charged(&self) -> u64 {
        self.budget.used(Class::Queue)
    }
}
