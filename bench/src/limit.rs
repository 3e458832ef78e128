//! The limit that the broker is measured against: its event loop, with the routing fixed and MQTT answered by rote.
//!
//! What it is not: a broker. It takes it for granted that a publisher keeps to its first topic, that nobody publishes
//! before the subscribers are there, and that everybody is well behaved. Packets of a publisher are cut by their length
//! and go to its subscribers byte for byte, Packet Identifier included. Who sends QoS 1 or 2 is answered at once; what
//! subscribers answer is not looked at, but for the PUBREC that waits for a PUBREL.
//!
//! Invariants
//! - Kernel boundary, buffers, memory of sends and the way of waiting are the broker's own; so what separates the
//!   two is what the broker does between a receive and a send.
//! - One send per client and turn, one in flight.
//! - Output of a client is bounded by [`OUT_BYTES_MAX`]; beyond it the run is worth nothing, and the client is closed.

use std::collections::HashMap;

use ringmq::io::{Completion, Driver, Io, ListenerId, ReceiveEnd, ReceiveMode, Shutdown, Socket, Token};
use ringmq::memory::{Arena, Key, OutBatch, Outbox};
use ringmq::topic;

/// Bytes that may wait for one client.
pub const OUT_BYTES_MAX: usize = 64 << 20;
/// Send buffers that are kept for reuse.
const SPARE_MAX: usize = 1024;
/// Milliseconds of a wait in which nothing happens.
const TIMEOUT_MS: u64 = 1000;

const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;
const PUBREC: u8 = 5;
const PUBREL: u8 = 6;
const SUBSCRIBE: u8 = 8;
const PINGREQ: u8 = 12;
const DISCONNECT: u8 = 14;
/// The level of a PUBLISH in its first byte.
const QOS_BITS: u8 = 0b0110;

/// Who gets what a client publishes.
enum Targets {
    /// It has not published yet.
    Unknown,
    /// One subscriber that nobody else publishes to: what has arrived of a packet can go before its rest.
    Exclusive(Key),
    Several(Vec<Key>),
}

struct Client {
    socket: Socket,
    /// A 5.0 client: its SUBSCRIBE and the answers have properties.
    has_properties: bool,
    receive_armed: bool,
    send_in_flight: bool,
    closing: bool,
    dirty: bool,
    /// The beginning of a packet.
    partial: Vec<u8>,
    /// Bytes of a packet that go to the target as they come.
    passing: usize,
    outbox: Outbox,
    targets: Targets,
    subscribed: bool,
}

/// The forwarder over a kernel boundary.
pub struct Forwarder<I: Io> {
    io: I,
    hub: Hub,
    completions: Vec<Completion>,
}

/// The clients, apart from the kernel boundary.
#[derive(Default)]
struct Hub {
    clients: Arena<Client>,
    dirty: Vec<Key>,
    spare: Vec<Vec<u8>>,
    /// What the client whose packets are being cut is answered.
    replies: Vec<u8>,
    /// Who subscribed to filters without wildcards, so that pairing a thousand publishers is no cost that shows.
    exact: HashMap<String, Vec<Key>>,
    wild: Vec<(String, Key)>,
    /// Somebody has targets, which a new subscription would change.
    paired: bool,
}

/// The fixed header in front of `input`: where the body begins and where the packet ends.
fn packet(input: &[u8]) -> Option<(usize, usize)> {
    let mut len = 0;
    for i in 0..4 {
        let byte = *input.get(1 + i)?;
        len |= usize::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((2 + i, 2 + i + len));
        }
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The answer to a PUBLISH whose body begins with `body`; `None` if its Packet Identifier is not there yet.
fn publish_reply(first: u8, body: &[u8], replies: &mut Vec<u8>) -> Option<()> {
    let kind = match first >> 1 & 3 {
        0 => return Some(()),
        1 => 0x40,
        _ => 0x50,
    };
    let packet_id_at = 2 + usize::from(u16_at(body, 0)?);
    let [high, low] = u16_at(body, packet_id_at)?.to_be_bytes();
    replies.extend_from_slice(&[kind, 2, high, low]);
    Some(())
}

/// The Topic Name of a PUBLISH.
fn topic_of(publish: &[u8]) -> Option<&str> {
    let (body_at, _) = packet(publish)?;
    let len = usize::from(u16_at(publish, body_at)?);
    std::str::from_utf8(publish.get(body_at + 2..body_at + 2 + len)?).ok()
}

/// Filters and granted levels of a SUBSCRIBE.
fn subscribe(body: &[u8], has_properties: bool) -> Option<(u16, Vec<(String, u8)>)> {
    let packet_id = u16_at(body, 0)?;
    // A generator sends no properties that take more than one byte of length.
    let mut at = if has_properties { 3 + usize::from(*body.get(2)?) } else { 2 };
    let mut filters = Vec::new();
    while at < body.len() {
        let len = usize::from(u16_at(body, at)?);
        let filter = std::str::from_utf8(body.get(at + 2..at + 2 + len)?).ok()?;
        filters.push((filter.to_owned(), body.get(at + 2 + len)? & 3));
        at += 3 + len;
    }
    Some((packet_id, filters))
}

impl<I: Io> Forwarder<I> {
    /// Serves listener 0 of `io`.
    pub fn new(mut io: I) -> Forwarder<I> {
        io.accept(ListenerId(0));
        Forwarder { io, hub: Hub::default(), completions: Vec::new() }
    }

    /// One pass: completions, then one send for each client that has something.
    pub fn turn(&mut self) {
        let mut completions = std::mem::take(&mut self.completions);
        self.io.completions(&mut completions);
        for completion in completions.drain(..) {
            match completion {
                Completion::Received { token, buffer, more } => {
                    let key = token.key();
                    if !more && let Some(client) = self.hub.clients.get_mut(key) {
                        client.receive_armed = false;
                        self.hub.mark(key);
                    }
                    self.hub.received(key, self.io.bytes(buffer));
                    self.io.replenish(buffer);
                }
                Completion::Sent { token, batch, result } => self.sent(token.key(), batch, result),
                Completion::ReceiveEnded { token, end } => self.hub.receive_ended(token.key(), end),
                Completion::Accepted { socket, .. } => self.hub.accepted(socket),
                Completion::AcceptEnded { listener, .. } => self.io.accept(listener),
                // A forwarder uses no files.
                Completion::CancelEnded { .. }
                | Completion::Doorbell
                | Completion::Written { .. }
                | Completion::FileRead { .. } => {}
            }
        }
        self.completions = completions;
        let mut dirty = std::mem::take(&mut self.hub.dirty);
        for key in dirty.drain(..) {
            self.tend(key);
        }
        self.hub.dirty = dirty;
    }

    fn sent(&mut self, key: Key, mut batch: OutBatch, result: Result<usize, i32>) {
        let Some(client) = self.hub.clients.get_mut(key) else { return };
        match result {
            Ok(count) => batch.advance(count),
            Err(_) => client.closing = true,
        }
        if batch.remaining() > 0 && !client.closing {
            self.io.send(&client.socket, Token::new(key), batch);
            return;
        }
        client.send_in_flight = false;
        if self.hub.spare.len() < SPARE_MAX {
            self.hub.spare.push(batch.into_buffer());
        }
        self.hub.mark(key);
    }

    fn tend(&mut self, key: Key) {
        let Some(client) = self.hub.clients.get_mut(key) else { return };
        client.dirty = false;
        if client.closing {
            if !client.receive_armed && !client.send_in_flight {
                if let Some(client) = self.hub.clients.remove(key) {
                    if client.subscribed {
                        self.hub.forget(key);
                    }
                    self.io.close(client.socket);
                }
            } else {
                self.io.shutdown(&client.socket, Shutdown::Both);
            }
            return;
        }
        if !client.send_in_flight && !client.outbox.is_empty() {
            client.send_in_flight = true;
            let batch = client.outbox.take(self.hub.spare.pop().unwrap_or_default());
            self.io.send_unawaited(&client.socket, Token::new(key), batch);
        }
        if !client.receive_armed {
            client.receive_armed = true;
            self.io.receive(&client.socket, Token::new(key), ReceiveMode::Many);
        }
    }
}

impl<I: Driver> Forwarder<I> {
    /// Waits as the broker's driver does.
    pub fn wait(&mut self) {
        self.io.submit_and_wait(TIMEOUT_MS);
    }
}

impl Hub {
    fn accepted(&mut self, socket: Socket) {
        let key = self.clients.insert(Client {
            socket,
            has_properties: false,
            receive_armed: false,
            send_in_flight: false,
            closing: false,
            dirty: false,
            partial: Vec::new(),
            passing: 0,
            outbox: Outbox::default(),
            targets: Targets::Unknown,
            subscribed: false,
        });
        self.mark(key);
    }

    fn mark(&mut self, key: Key) {
        if let Some(client) = self.clients.get_mut(key)
            && !client.dirty
        {
            client.dirty = true;
            self.dirty.push(key);
        }
    }

    fn receive_ended(&mut self, key: Key, end: ReceiveEnd) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.receive_armed = false;
        client.closing |= end != ReceiveEnd::NoBuffers;
        self.mark(key);
    }

    fn received(&mut self, key: Key, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let mut rest = bytes;
        if client.passing > 0 {
            let (passed, others) = rest.split_at(client.passing.min(rest.len()));
            client.passing -= passed.len();
            rest = others;
            self.forward(key, passed);
        } else if !client.partial.is_empty() {
            let mut whole = std::mem::take(&mut client.partial);
            whole.extend_from_slice(rest);
            return self.cut(key, &whole);
        }
        self.cut(key, rest);
    }

    /// Acts on each packet in `input` and keeps the beginning of the last.
    fn cut(&mut self, key: Key, input: &[u8]) {
        let mut replies = std::mem::take(&mut self.replies);
        // Whole packets of a publisher that lie next to each other go in one piece.
        let (mut start, mut at) = (0, 0);
        while let Some((body_at, len)) = packet(&input[at..]) {
            let first = input[at];
            let Some(body) = input.get(at + body_at..at + len) else { break };
            if first >> 4 != PUBLISH {
                self.forward(key, &input[start..at]);
                start = at + len;
                self.answer(key, first, body, &mut replies);
            } else if publish_reply(first, body, &mut replies).is_none() {
                return self.close(key);
            }
            at += len;
        }
        self.forward(key, &input[start..at]);
        self.keep(key, &input[at..]);
        if !replies.is_empty() {
            if let Some(client) = self.clients.get_mut(key) {
                client.outbox.bytes_mut().extend_from_slice(&replies);
            }
            self.mark(key);
            replies.clear();
        }
        self.replies = replies;
    }

    /// The beginning of a packet: it goes on if it can, and waits if it cannot.
    fn keep(&mut self, key: Key, begun: &[u8]) {
        if begun.is_empty() {
            return;
        }
        let Some(client) = self.clients.get_mut(key) else { return };
        // Not at QoS 1 and 2: what the subscriber is answered itself would come in between.
        if let (Targets::Exclusive(_), Some((_, len))) = (&client.targets, packet(begun))
            && begun[0] >> 4 == PUBLISH
            && begun[0] & QOS_BITS == 0
        {
            client.passing = len - begun.len();
            return self.forward(key, begun);
        }
        client.partial = begun.to_vec();
    }

    /// Appends to the output of everybody who is to get it.
    fn forward(&mut self, from: Key, publishes: &[u8]) {
        if publishes.is_empty() {
            return;
        }
        let Some(client) = self.clients.get_mut(from) else { return };
        match &client.targets {
            Targets::Exclusive(to) => {
                let to = *to;
                self.append(to, publishes);
            }
            Targets::Several(_) => {
                let Targets::Several(all) = std::mem::replace(&mut client.targets, Targets::Unknown) else {
                    return;
                };
                for to in &all {
                    self.append(*to, publishes);
                }
                if let Some(client) = self.clients.get_mut(from) {
                    client.targets = Targets::Several(all);
                }
            }
            Targets::Unknown => {
                self.pair(from, publishes);
                self.forward(from, publishes);
            }
        }
    }

    fn append(&mut self, to: Key, publishes: &[u8]) {
        let Some(client) = self.clients.get_mut(to) else { return };
        client.outbox.bytes_mut().extend_from_slice(publishes);
        client.closing |= client.outbox.len() > OUT_BYTES_MAX;
        if !client.dirty {
            client.dirty = true;
            self.dirty.push(to);
        }
    }

    /// Finds, once, who subscribed to what a client publishes.
    fn pair(&mut self, publisher: Key, publish: &[u8]) {
        let Some(topic) = topic_of(publish) else { return self.close(publisher) };
        let exact = self.exact.get(topic).into_iter().flatten();
        let wild = self.wild.iter().filter(|(filter, _)| topic::matches(filter, topic)).map(|(_, key)| key);
        let all: Vec<Key> = exact.chain(wild).copied().filter(|key| self.clients.contains(*key)).collect();
        // With wildcards somebody else may publish to it too.
        let exclusive = match all[..] {
            [only] => (!self.wild.iter().any(|(_, key)| *key == only)).then_some(only),
            _ => None,
        };
        self.paired = true;
        if let Some(client) = self.clients.get_mut(publisher) {
            client.targets = exclusive.map_or(Targets::Several(all), Targets::Exclusive);
        }
    }

    /// Everything but PUBLISH.
    fn answer(&mut self, key: Key, first: u8, body: &[u8], replies: &mut Vec<u8>) {
        let Some(client) = self.clients.get_mut(key) else { return };
        match first >> 4 {
            CONNECT => {
                client.has_properties = body.get(6) == Some(&5);
                let answer: &[u8] =
                    if client.has_properties { &[0x20, 3, 0, 0, 0] } else { &[0x20, 2, 0, 0] };
                replies.extend_from_slice(answer);
            }
            SUBSCRIBE => {
                let Some((packet_id, filters)) = subscribe(body, client.has_properties) else {
                    return self.close(key);
                };
                client.subscribed = true;
                let [high, low] = packet_id.to_be_bytes();
                let properties: &[u8] = if client.has_properties { &[0] } else { &[] };
                // A generator asks for a few filters, so one byte of length is enough.
                let len = 2 + properties.len() + filters.len();
                if len > 127 {
                    return self.close(key);
                }
                replies.extend_from_slice(&[0x90, len as u8, high, low]);
                replies.extend_from_slice(properties);
                replies.extend(filters.iter().map(|(_, level)| level));
                for (filter, _) in filters {
                    if filter.contains(['+', '#']) {
                        self.wild.push((filter, key));
                    } else {
                        self.exact.entry(filter).or_default().push(key);
                    }
                }
                if std::mem::take(&mut self.paired) {
                    let all: Vec<Key> = self.clients.iter().map(|(key, _)| key).collect();
                    for key in all {
                        if let Some(client) = self.clients.get_mut(key) {
                            client.targets = Targets::Unknown;
                        }
                    }
                }
            }
            kind @ (PUBREC | PUBREL) => {
                let Some(packet_id) = body.get(..2) else { return self.close(key) };
                replies.extend_from_slice(if kind == PUBREC { &[0x62, 2] } else { &[0x70, 2] });
                replies.extend_from_slice(packet_id);
            }
            PINGREQ => replies.extend_from_slice(&[0xD0, 0]),
            DISCONNECT => self.close(key),
            // What subscribers say of QoS 1 and 2 concerns nobody here.
            _ => {}
        }
    }

    /// A subscriber is gone. Filters of a run bear its name, so most entries end with it.
    fn forget(&mut self, key: Key) {
        self.wild.retain(|(_, subscriber)| *subscriber != key);
        self.exact.retain(|_, subscribers| {
            subscribers.retain(|subscriber| *subscriber != key);
            !subscribers.is_empty()
        });
    }

    fn close(&mut self, key: Key) {
        if let Some(client) = self.clients.get_mut(key) {
            client.closing = true;
        }
        self.mark(key);
    }
}
