//! A scripted client: sends what the test says, and expects.
//!
//! It never answers by itself. Each packet that arrives goes through the strict decoder and through rules that
//! hold for every connection: CONNACK first and once, nothing behind DISCONNECT, sizes, aliases, identifiers
//! and quota within what this client announced.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::broker::Broker;
use super::decode::{Ack, Codes, Connack, Packet, decode, frame_length};
use super::each::{name, target};
use super::encode::{self, Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Publish, Version};
use super::property::Property;

/// How long something that must happen may take.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long two pings are apart where nothing may happen.
const QUIET: Duration = Duration::from_millis(25);

/// What came next on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Packet(Packet),
    /// The broker closed or reset the connection.
    Closed,
    /// Nothing within the time given.
    Nothing,
}

/// One connection.
pub struct Client {
    pub version: Version,
    stream: TcpStream,
    unread: Vec<u8>,
    /// Messages that arrived while an answer was awaited.
    ahead: VecDeque<Publish>,
    rules: Rules,
    next_packet_id: u16,
}

/// What this client announced and what has arrived, to judge each packet by.
#[derive(Default)]
struct Rules {
    connected: bool,
    disconnected: bool,
    packet_size_max: Option<u32>,
    topic_alias_max: u16,
    receive_max: Option<u16>,
    aliases: BTreeMap<u16, String>,
    in_flight: BTreeSet<u16>,
}

impl Client {
    /// A TCP connection on which nothing has been sent.
    pub fn open(broker: &Broker, version: Version) -> Client {
        Client::open_at(broker.address(), version)
    }

    pub fn open_at(address: SocketAddr, version: Version) -> Client {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the broker accepts");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_write_timeout(Some(PATIENCE)).expect("a write timeout");
        Client {
            version,
            stream,
            unread: Vec::new(),
            ahead: VecDeque::new(),
            rules: Rules::default(),
            next_packet_id: 1,
        }
    }

    /// Sends this CONNECT and returns the CONNACK, whatever its code.
    pub fn connect(broker: &Broker, connect: &Connect) -> (Client, Connack) {
        let mut client = Client::open(broker, connect.version);
        client.send_connect(connect);
        let connack = client.expect_connack();
        (client, connack)
    }

    /// A connection that was accepted.
    pub fn accepted(broker: &Broker, connect: &Connect) -> Client {
        let (client, connack) = Client::connect(broker, connect);
        assert_eq!(connack.code, 0, "CONNECT of {} was refused", String::from_utf8_lossy(&connect.client_id));
        client
    }

    /// A connection with a name of its own, a clean session and nothing special.
    pub fn fresh(broker: &Broker, version: Version) -> Client {
        Client::accepted(broker, &Connect::new(version, name("c")))
    }

    pub fn send_connect(&mut self, connect: &Connect) {
        for property in &connect.properties {
            match property {
                // 0 is no limit but an error, which the broker may tell.
                Property::MaximumPacketSize(0) => {}
                Property::MaximumPacketSize(size) => self.rules.packet_size_max = Some(*size),
                Property::TopicAliasMaximum(max) => self.rules.topic_alias_max = *max,
                Property::ReceiveMaximum(max) => self.rules.receive_max = Some(*max),
                _ => {}
            }
        }
        self.send(connect.bytes());
    }

    /// How long a send may wait for the broker to take the bytes.
    pub fn write_timeout(&mut self, limit: Duration) {
        self.stream.set_write_timeout(Some(limit)).expect("a write timeout");
    }

    pub fn local_address(&self) -> SocketAddr {
        self.stream.local_addr().expect("a local address")
    }

    // Sending

    /// Sends raw bytes. A connection that the broker closed meanwhile is not an error here.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.try_send(bytes);
    }

    /// Sends raw bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    pub fn send_publish(&mut self, publish: &Publish) {
        self.send(publish.bytes(self.version));
    }

    /// Publishes and goes through the acknowledgements of its QoS. Returns the code of PUBACK or PUBREC.
    pub fn publish(&mut self, publish: &Publish) -> u8 {
        let mut publish = publish.clone();
        if publish.qos > 0 && publish.packet_id == 0 {
            publish.packet_id = self.packet_id();
        }
        self.send_publish(&publish);
        match publish.qos {
            0 => 0,
            1 => self.expect_ack(PUBACK, publish.packet_id).code,
            _ => {
                let code = self.expect_ack(PUBREC, publish.packet_id).code;
                if code < 0x80 {
                    self.ack(PUBREL, publish.packet_id);
                    self.expect_ack(PUBCOMP, publish.packet_id);
                }
                code
            }
        }
    }

    /// Publishes at this QoS and waits for the broker to have taken it over; at QoS 0 for a ping behind it.
    pub fn say(&mut self, topic: &str, payload: impl AsRef<[u8]>, qos: u8) {
        let code = self.publish(&Publish::new(topic, payload).qos(qos, 0));
        assert!(code < 0x80, "PUBLISH to {topic} answered with {code:#04x}");
        if qos == 0 {
            self.ping();
        }
    }

    /// Publishes with RETAIN and waits until whoever owns the topic has stored it (or cleared it, if empty).
    pub fn say_retained(&mut self, topic: &str, payload: impl AsRef<[u8]>) {
        let code = self.publish(&Publish::new(topic, payload).retain().qos(1, 0));
        assert!(code < 0x80, "PUBLISH to {topic} answered with {code:#04x}");
    }

    /// The next identifier for a packet of this client.
    pub fn packet_id(&mut self) -> u16 {
        let id = self.next_packet_id;
        self.next_packet_id = self.next_packet_id.wrapping_add(1).max(1);
        id
    }

    /// Subscribes to one filter with these options (the QoS in 3.x), expects them granted, returns the id used.
    pub fn subscribe(&mut self, filter: &str, options: u8) -> u16 {
        self.subscribe_with(filter, options, &[])
    }

    pub fn subscribe_with(&mut self, filter: &str, options: u8, properties: &[Property]) -> u16 {
        let id = self.packet_id();
        let codes = self.subscribe_all(id, properties, &[(filter, options)]);
        assert_eq!(codes, [options & 0x03], "SUBACK for {filter}");
        id
    }

    /// Sends one SUBSCRIBE and returns the codes. Retained messages may already stand behind the SUBACK.
    pub fn subscribe_all(&mut self, id: u16, properties: &[Property], filters: &[(&str, u8)]) -> Vec<u8> {
        self.send(encode::subscribe(self.version, id, properties, filters));
        self.expect_suback(id)
    }

    /// Sends one UNSUBSCRIBE and returns the codes (none in 3.x).
    pub fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let id = self.packet_id();
        self.send(encode::unsubscribe(self.version, id, filters));
        match self.expect_answer() {
            Packet::Unsuback(unsuback) if unsuback.packet_id == id => unsuback.codes,
            other => panic!("expected UNSUBACK {id}, got {other:?}"),
        }
    }

    /// Sends PUBACK, PUBREC, PUBREL or PUBCOMP.
    pub fn ack(&mut self, first: u8, packet_id: u16) {
        if first == PUBACK || first == PUBCOMP {
            self.rules.in_flight.remove(&packet_id);
        }
        self.send(encode::ack(first, packet_id));
    }

    /// The same with a reason code (v5).
    pub fn ack_code(&mut self, first: u8, packet_id: u16, code: u8) {
        if first == PUBACK || first == PUBCOMP || code >= 0x80 {
            self.rules.in_flight.remove(&packet_id);
        }
        self.send(encode::ack_code(first, packet_id, code));
    }

    /// Says goodbye and waits for the broker to close. What it sent before it knew is not looked at.
    pub fn disconnect(mut self) {
        self.send(encode::DISCONNECT);
        loop {
            match self.next(PATIENCE) {
                Event::Closed => return,
                Event::Packet(Packet::Publish(_)) => {}
                other => panic!("expected the broker to close after DISCONNECT, got {other:?}"),
            }
        }
    }

    /// Cuts the connection without a word and waits until the broker has noticed.
    ///
    /// The broker answers the end of the stream by closing its side, unless packets were on the way; either ends
    /// the wait.
    pub fn cut(mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.read_some(Duration::from_millis(100)) {
                Read1::Bytes => self.unread.clear(),
                Read1::Nothing => {}
                Read1::End => return,
            }
        }
        panic!("the broker did not close a connection whose client is gone");
    }

    /// Cuts the connection with a reset.
    pub fn reset(self) {
        // Unread bytes or a zero linger make close() a reset; std offers neither, so socket2 does.
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    pub fn shutdown_write(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    // Expecting

    /// Whatever comes next, within `limit`.
    pub fn next(&mut self, limit: Duration) -> Event {
        match self.ahead.pop_front() {
            Some(publish) => Event::Packet(Packet::Publish(publish)),
            None => self.next_unread(limit),
        }
    }

    /// The next packet that is no PUBLISH. A message may overtake an answer: it is kept for `next`.
    fn expect_answer(&mut self) -> Packet {
        loop {
            match self.next_unread(PATIENCE) {
                Event::Packet(Packet::Publish(publish)) => self.ahead.push_back(publish),
                Event::Packet(packet) => return packet,
                other => panic!("expected an answer, got {other:?}"),
            }
        }
    }

    fn next_unread(&mut self, limit: Duration) -> Event {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(packet) = self.unread_packet() {
                return Event::Packet(packet);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Event::Nothing;
            }
            match self.read_some(left) {
                Read1::Bytes => {}
                Read1::Nothing => return Event::Nothing,
                Read1::End => {
                    assert!(
                        self.unread.is_empty(),
                        "the broker closed inside a packet: {:02x?}",
                        self.unread
                    );
                    return Event::Closed;
                }
            }
        }
    }

    /// Takes at least so many bytes in, if there are as many, and looks at none; false at the end of the connection.
    pub fn take_in(&mut self, bytes: usize) -> bool {
        let goal = self.unread.len() + bytes;
        while self.unread.len() < goal {
            match self.read_some(Duration::from_millis(50)) {
                Read1::Bytes => {}
                Read1::Nothing => return true,
                Read1::End => return false,
            }
        }
        true
    }

    fn read_some(&mut self, limit: Duration) -> Read1 {
        self.stream.set_read_timeout(Some(limit.max(Duration::from_millis(1)))).expect("a read timeout");
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => Read1::End,
            Ok(count) => {
                self.unread.extend(&bytes[..count]);
                Read1::Bytes
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Read1::Nothing,
                _ => Read1::End,
            },
        }
    }

    fn unread_packet(&mut self) -> Option<Packet> {
        let length =
            frame_length(&self.unread).unwrap_or_else(|why| panic!("{why}: {:02x?}", self.unread))?;
        if length > self.unread.len() {
            return None;
        }
        let bytes: Vec<u8> = self.unread.drain(..length).collect();
        let shown = &bytes[..bytes.len().min(80)];
        let packet = decode(self.version, &bytes).unwrap_or_else(|why| panic!("{why}: {shown:02x?}"));
        Some(self.rules.judge(packet, length as u32).unwrap_or_else(|why| panic!("{why}: {shown:02x?}")))
    }

    /// The next packet.
    pub fn expect_packet(&mut self) -> Packet {
        match self.next(PATIENCE) {
            Event::Packet(packet) => packet,
            other => panic!("expected a packet, got {other:?}"),
        }
    }

    pub fn expect_connack(&mut self) -> Connack {
        match self.expect_packet() {
            Packet::Connack(connack) => connack,
            other => panic!("expected CONNACK, got {other:?}"),
        }
    }

    pub fn expect_publish(&mut self) -> Publish {
        match self.expect_packet() {
            Packet::Publish(publish) => publish,
            other => panic!("expected PUBLISH, got {other:?}"),
        }
    }

    /// The next PUBLISH, acknowledged according to its QoS.
    pub fn expect_publish_acked(&mut self) -> Publish {
        let publish = self.expect_publish();
        self.finish(&publish);
        publish
    }

    /// Goes through the acknowledgements that a received PUBLISH asks for.
    pub fn finish(&mut self, publish: &Publish) {
        match publish.qos {
            0 => {}
            1 => self.ack(PUBACK, publish.packet_id),
            _ => {
                self.ack(PUBREC, publish.packet_id);
                self.expect_ack(PUBREL, publish.packet_id);
                self.ack(PUBCOMP, publish.packet_id);
            }
        }
    }

    /// The payloads of the next `count` messages, each acknowledged.
    pub fn expect_texts(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.expect_publish_acked().text()).collect()
    }

    /// The next acknowledgement, which must be this one.
    pub fn expect_ack(&mut self, first: u8, packet_id: u16) -> Ack {
        let packet = self.expect_answer();
        let ack = match (first, &packet) {
            (PUBACK, Packet::Puback(ack))
            | (PUBREC, Packet::Pubrec(ack))
            | (PUBREL, Packet::Pubrel(ack))
            | (PUBCOMP, Packet::Pubcomp(ack)) => ack,
            _ => panic!("expected an acknowledgement {first:#04x} of {packet_id}, got {packet:?}"),
        };
        assert_eq!(ack.packet_id, packet_id, "[MQTT-2.2.1-5] {packet:?}");
        ack.clone()
    }

    /// The codes of the next SUBACK.
    pub fn expect_suback(&mut self, packet_id: u16) -> Vec<u8> {
        self.expect_suback_whole(packet_id).codes
    }

    pub fn expect_suback_whole(&mut self, packet_id: u16) -> Codes {
        match self.expect_answer() {
            Packet::Suback(suback) if suback.packet_id == packet_id => suback,
            other => panic!("expected SUBACK {packet_id}, got {other:?}"),
        }
    }

    /// PINGREQ and its answer, with nothing in between.
    pub fn ping(&mut self) {
        self.send(encode::PINGREQ);
        let packet = self.expect_packet();
        assert_eq!(packet, Packet::Pingresp, "expected nothing but the answer to a ping");
    }

    /// Nothing arrives, and the connection is alive: two pings, some time apart, are answered and nothing else is.
    ///
    /// What others did before must have been acknowledged to them; then the second ping is behind its effects.
    pub fn expect_quiet(&mut self) {
        self.ping();
        let event = self.next(QUIET);
        assert_eq!(event, Event::Nothing, "expected nothing");
        self.ping();
    }

    /// This packet so many times, and nothing else until a ping behind it is answered.
    pub fn expect_quiet_but(&mut self, packet: Packet, times: usize) {
        for _ in 0..times {
            let got = self.expect_packet();
            assert_eq!(got, packet);
        }
        self.ping();
    }

    /// The broker closes, without a packet before.
    pub fn expect_closed(&mut self) {
        let event = self.next(PATIENCE);
        assert_eq!(event, Event::Closed, "expected the connection to be closed");
    }

    /// Every byte until the broker closes, unjudged.
    pub fn raw_until_closed(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Read1::End = self.read_some(Duration::from_millis(200)) {
                return std::mem::take(&mut self.unread);
            }
        }
        panic!("the broker did not close; it wrote {:02x?}", self.unread);
    }

    /// The broker refuses what was sent last: closes, and in v5 says one of these codes before.
    ///
    /// Before acceptance the code stands in CONNACK, after it in DISCONNECT.
    pub fn expect_refused(&mut self, codes: &[u8]) -> u8 {
        self.refused_as("refused", codes)
    }

    fn refused_as(&mut self, label: &str, codes: &[u8]) -> u8 {
        let accepted = self.rules.connected;
        let code = match self.next(PATIENCE) {
            Event::Packet(Packet::Disconnect(reason)) if accepted => reason.code,
            Event::Packet(Packet::Connack(connack)) if !accepted => connack.code,
            Event::Closed if self.version != Version::V5 || target().is_some() => return 0,
            other => panic!("{label}: expected a refusal with one of {codes:02x?}, got {other:?}"),
        };
        assert!(
            codes.contains(&code) || target().is_some(),
            "{label}: refused with {code:#04x}, expected one of {codes:02x?}"
        );
        let event = self.next(PATIENCE);
        assert_eq!(event, Event::Closed, "{label}: expected the connection to be closed");
        code
    }
}

/// Sends these bytes on a connection that was accepted; the broker must refuse them with one of the codes.
pub fn refuse(broker: &Broker, version: Version, label: &str, bytes: impl AsRef<[u8]>, codes: &[u8]) {
    let mut client = Client::fresh(broker, version);
    client.send(bytes);
    client.refused_as(&format!("{version:?}, {label}"), codes);
}

/// Sends these bytes as the first on a connection; the broker must refuse them with one of the codes.
pub fn refuse_first(broker: &Broker, version: Version, label: &str, bytes: impl AsRef<[u8]>, codes: &[u8]) {
    let mut client = Client::open(broker, version);
    client.send(bytes);
    client.refused_as(&format!("{version:?}, {label}"), codes);
}

/// What a single read brought.
enum Read1 {
    Bytes,
    Nothing,
    End,
}

impl Rules {
    /// Checks a packet against the rules of the connection; an alias is replaced by its topic.
    fn judge(&mut self, packet: Packet, size: u32) -> Result<Packet, String> {
        if self.disconnected {
            return Err("[MQTT-3.14.4-1] a packet behind DISCONNECT".into());
        }
        if self.packet_size_max.is_some_and(|max| size > max) {
            return Err(format!("[MQTT-3.1.2-24] a packet of {size} bytes"));
        }
        match packet {
            Packet::Connack(_) if self.connected => Err("[MQTT-3.2.0-2] a second CONNACK".into()),
            Packet::Connack(connack) => {
                self.connected = connack.code == 0;
                Ok(Packet::Connack(connack))
            }
            Packet::Auth(auth) => Ok(Packet::Auth(auth)),
            Packet::Disconnect(_) if !self.connected => {
                Err("[MQTT-3.14.0-1] DISCONNECT before CONNACK".into())
            }
            Packet::Disconnect(reason) => {
                self.disconnected = true;
                Ok(Packet::Disconnect(reason))
            }
            _ if !self.connected => Err("[MQTT-3.2.0-1] a packet before CONNACK".into()),
            Packet::Publish(publish) => self.judge_publish(publish).map(Packet::Publish),
            other => Ok(other),
        }
    }

    fn judge_publish(&mut self, mut publish: Publish) -> Result<Publish, String> {
        let alias = publish.properties.iter().find_map(|p| match p {
            Property::TopicAlias(alias) => Some(*alias),
            _ => None,
        });
        if let Some(alias) = alias {
            if alias > self.topic_alias_max {
                return Err(format!("[MQTT-3.1.2-26] alias {alias} of {}", self.topic_alias_max));
            }
            if publish.topic.is_empty() {
                let topic = self.aliases.get(&alias).ok_or(format!("alias {alias} was never set"))?;
                publish.topic.clone_from(topic);
            } else {
                self.aliases.insert(alias, publish.topic.clone());
            }
        }
        if publish.qos > 0 {
            if !self.in_flight.insert(publish.packet_id) {
                return Err(format!("[MQTT-2.2.1-4] identifier {} is in use", publish.packet_id));
            }
            let max = self.receive_max.map_or(usize::MAX, usize::from);
            if self.in_flight.len() > max {
                return Err(format!("[MQTT-3.3.4-9] {} in flight of {max}", self.in_flight.len()));
            }
        }
        Ok(publish)
    }
}
