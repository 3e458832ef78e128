//! A scripted peer: a small broker that loses, repeats, reorders, damages, delays and stalls messages on purpose.
//!
//! It shares no code with the generator, so that neither can hide a mistake of the other. A thread for each
//! connection; a script decides the fate of each PUBLISH by its number.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The fate of a message.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Fate {
    Deliver,
    Lose,
    Repeat,
    /// Delivered right after the next one.
    Swap,
    /// One byte of the payload is changed, at this place.
    Damage(usize),
    /// The last byte is cut off.
    Shorten,
    /// Delivered under another topic.
    Rename,
    /// Delivered to every subscriber, whatever its filter.
    Stray,
    /// The peer stops reading, acknowledging and delivering for so long, then goes on.
    Stall(Duration),
    /// Every message from here on is late by so long, but the flow goes on.
    Late(Duration),
    /// The peer sends DISCONNECT with this code to the publisher and closes.
    Disconnect(u8),
    /// The peer closes the publisher's connection without a word.
    Close,
    /// The publisher gets this reason code in its acknowledgement.
    Refuse(u8),
}

/// What the peer answers to CONNECT.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Welcome {
    Accept,
    /// Accept with this Receive Maximum (5.0).
    ReceiveMaximum(u16),
    /// Accept with this Topic Alias Maximum (5.0).
    Aliases(u16),
    Refuse(u8),
    Silence,
    /// Answer with bytes that are no MQTT.
    Nonsense,
    /// Never keep a session.
    Forget,
}

type Script = Arc<dyn Fn(u64) -> Fate + Send + Sync>;

struct Subscriber {
    filter: String,
    qos: u8,
    version: u8,
    stream: Arc<Mutex<TcpStream>>,
    next_id: u16,
    client: String,
}

#[derive(Default)]
struct Shared {
    subscribers: Vec<Subscriber>,
    retained: HashMap<String, (u8, Vec<u8>)>,
    sessions: HashMap<String, bool>,
    swapped: Option<(String, u8, Vec<u8>)>,
    turn: usize,
    wildcards: Vec<String>,
}

/// A running peer.
pub struct Peer {
    pub port: u16,
    shared: Arc<Mutex<Shared>>,
    pub published: Arc<AtomicU64>,
    /// PUBLISH packets that came with an alias instead of a topic.
    pub aliased: Arc<AtomicU64>,
    /// Filters that were granted.
    pub subscribed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Peer {
    pub fn honest() -> Peer {
        Peer::scripted(|_| Fate::Deliver)
    }

    pub fn scripted(script: impl Fn(u64) -> Fate + Send + Sync + 'static) -> Peer {
        Peer::new(Welcome::Accept, script)
    }

    pub fn new(welcome: Welcome, script: impl Fn(u64) -> Fate + Send + Sync + 'static) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = Peer {
            port: listener.local_addr().unwrap().port(),
            shared: Arc::default(),
            published: Arc::default(),
            aliased: Arc::default(),
            subscribed: Arc::default(),
            stop: Arc::default(),
        };
        let script: Script = Arc::new(script);
        let (shared, published, aliased, stop) =
            (peer.shared.clone(), peer.published.clone(), peer.aliased.clone(), peer.stop.clone());
        let subscribed = peer.subscribed.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let client = Client {
                    script: script.clone(),
                    shared: shared.clone(),
                    published: published.clone(),
                    aliased: aliased.clone(),
                    subscribed: subscribed.clone(),
                    welcome,
                    version: 4,
                    id: String::new(),
                    late: None,
                };
                thread::spawn(move || client.serve(stream));
            }
        });
        peer
    }

    /// Closes the connection of every subscriber.
    pub fn close_all(&self) {
        for subscriber in &self.shared.lock().unwrap().subscribers {
            let _ = subscriber.stream.lock().unwrap().shutdown(Shutdown::Both);
        }
    }

    /// Topics that still hold a retained message.
    pub fn retained(&self) -> usize {
        self.shared.lock().unwrap().retained.len()
    }

    /// Granted filters with a wildcard.
    pub fn wildcards(&self) -> Vec<String> {
        self.shared.lock().unwrap().wildcards.clone()
    }

    /// Sessions that outlived their connection and were not removed.
    pub fn sessions(&self) -> usize {
        self.shared.lock().unwrap().sessions.values().filter(|&&kept| kept).count()
    }
}

/// When a late message is due, its topic, QoS and payload.
type Waiting = (Instant, String, u8, Vec<u8>);

struct Client {
    script: Script,
    shared: Arc<Mutex<Shared>>,
    published: Arc<AtomicU64>,
    aliased: Arc<AtomicU64>,
    subscribed: Arc<AtomicU64>,
    welcome: Welcome,
    version: u8,
    id: String,
    /// Where late messages wait for their time, once there are any.
    late: Option<(Duration, Sender<Waiting>)>,
}

fn read_packet(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut byte = [0];
    stream.read_exact(&mut byte).ok()?;
    let first = byte[0];
    let (mut len, mut shift) = (0usize, 0);
    loop {
        stream.read_exact(&mut byte).ok()?;
        len |= usize::from(byte[0] & 0x7F) << shift;
        shift += 7;
        if byte[0] < 0x80 {
            break;
        }
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).ok()?;
    Some((first, body))
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut len = body.len();
    loop {
        let low = (len % 128) as u8;
        len /= 128;
        out.push(if len > 0 { low + 128 } else { low });
        if len == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

fn string(body: &[u8], at: &mut usize) -> String {
    let len = usize::from(body[*at]) << 8 | usize::from(body[*at + 1]);
    *at += 2 + len;
    String::from_utf8(body[*at - len..*at].to_vec()).unwrap()
}

fn matches(filter: &str, topic: &str) -> bool {
    let filter = filter.strip_prefix("$share/").map_or(filter, |rest| rest.split_once('/').unwrap().1);
    let (f, t): (Vec<_>, Vec<_>) = (filter.split('/').collect(), topic.split('/').collect());
    f.len() == t.len() && f.iter().zip(&t).all(|(f, t)| *f == "+" || f == t)
}

impl Client {
    fn serve(mut self, mut stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let writer = Arc::new(Mutex::new(stream.try_clone().unwrap()));
        let mut aliases: HashMap<u16, String> = HashMap::new();
        let mut clean_end = false;
        while let Some((first, body)) = read_packet(&mut stream) {
            let go_on = match first >> 4 {
                1 => self.connect(&body, &writer),
                3 => self.publish(first, &body, &writer, &mut aliases),
                5 => reply(&writer, 0x62, &body[..2]),
                6 => reply(&writer, 0x70, &body[..2]),
                8 => self.subscribe(&body, &writer),
                12 => reply(&writer, 0xD0, &[]),
                14 => {
                    clean_end = body.len() >= 7 && body[2] == 0x11;
                    false
                }
                _ => true,
            };
            if !go_on {
                break;
            }
        }
        let mut shared = self.shared.lock().unwrap();
        if clean_end {
            shared.sessions.insert(self.id.clone(), false);
        }
        if !shared.sessions.get(&self.id).copied().unwrap_or(false) {
            shared.subscribers.retain(|s| s.client != self.id);
        }
        let _ = stream.shutdown(Shutdown::Both);
    }

    fn connect(&mut self, body: &[u8], writer: &Arc<Mutex<TcpStream>>) -> bool {
        let mut at = 0;
        string(body, &mut at);
        self.version = body[at];
        let clean = body[at + 1] & 2 != 0;
        at += 4;
        if self.version == 5 {
            at += 1 + usize::from(body[at]);
        }
        self.id = string(body, &mut at);
        let mut shared = self.shared.lock().unwrap();
        let known =
            shared.sessions.get(&self.id).copied().unwrap_or(false) && self.welcome != Welcome::Forget;
        let present = u8::from(known && !clean);
        if !clean || shared.sessions.contains_key(&self.id) {
            shared.sessions.insert(self.id.clone(), !clean);
        }
        if present == 0 {
            shared.subscribers.retain(|s| s.client != self.id);
        }
        for subscriber in shared.subscribers.iter_mut().filter(|s| s.client == self.id) {
            subscriber.stream = writer.clone();
        }
        drop(shared);
        let (code, properties): (u8, Vec<u8>) = match self.welcome {
            Welcome::Silence => return true,
            Welcome::Nonsense => {
                return writer.lock().unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").is_ok();
            }
            Welcome::Refuse(code) => (code, vec![0]),
            Welcome::ReceiveMaximum(n) => (0, vec![3, 0x21, (n >> 8) as u8, n as u8]),
            Welcome::Aliases(n) => (0, vec![3, 0x22, (n >> 8) as u8, n as u8]),
            Welcome::Accept | Welcome::Forget => (0, vec![0]),
        };
        let mut answer = vec![present, code];
        if self.version == 5 {
            answer.extend(properties);
        }
        reply(writer, 0x20, &answer) && code == 0
    }

    fn subscribe(&mut self, body: &[u8], writer: &Arc<Mutex<TcpStream>>) -> bool {
        let mut at = if self.version == 5 { 3 } else { 2 };
        let mut answer = body[..2].to_vec();
        if self.version == 5 {
            answer.push(0);
        }
        let mut filters = Vec::new();
        while at < body.len() {
            let filter = string(body, &mut at);
            answer.push(body[at] & 3);
            filters.push((filter, body[at] & 3));
            at += 1;
        }
        // A SUBSCRIBE without a filter is a protocol error: no answer, and the end.
        if filters.is_empty() || !reply(writer, 0x90, &answer) {
            return false;
        }
        self.subscribed.fetch_add(filters.len() as u64, Ordering::Relaxed);
        for (filter, _) in filters.iter().filter(|(filter, _)| filter.contains('+')) {
            self.shared.lock().unwrap().wildcards.push(filter.clone());
        }
        for (filter, qos) in filters {
            let mut subscriber = Subscriber {
                filter,
                qos,
                version: self.version,
                stream: writer.clone(),
                next_id: 0,
                client: self.id.clone(),
            };
            let mut shared = self.shared.lock().unwrap();
            for (topic, (qos, payload)) in &shared.retained {
                if matches(&subscriber.filter, topic) {
                    deliver(&mut subscriber, topic, *qos, payload);
                }
            }
            shared.subscribers.push(subscriber);
        }
        true
    }

    fn publish(
        &mut self,
        first: u8,
        body: &[u8],
        writer: &Arc<Mutex<TcpStream>>,
        aliases: &mut HashMap<u16, String>,
    ) -> bool {
        let mut at = 0;
        let mut topic = string(body, &mut at);
        let qos = first >> 1 & 3;
        let id = if qos > 0 {
            at += 2;
            body[at - 2..at].to_vec()
        } else {
            Vec::new()
        };
        if self.version == 5 {
            let len = usize::from(body[at]);
            if len == 3 && body[at + 1] == 0x23 {
                let alias = u16::from(body[at + 2]) << 8 | u16::from(body[at + 3]);
                if topic.is_empty() {
                    self.aliased.fetch_add(1, Ordering::Relaxed);
                    topic = aliases[&alias].clone();
                } else {
                    aliases.insert(alias, topic.clone());
                }
            }
            at += 1 + len;
        }
        let mut payload = body[at..].to_vec();
        if first & 1 == 1 {
            let mut shared = self.shared.lock().unwrap();
            if payload.is_empty() {
                shared.retained.remove(&topic);
                return true;
            }
            shared.retained.insert(topic.clone(), (qos, payload.clone()));
        }
        let fate = (self.script)(self.published.fetch_add(1, Ordering::Relaxed));
        let mut code = 0;
        match fate {
            Fate::Stall(time) => thread::sleep(time),
            Fate::Late(time) if self.late.is_none() => self.late = Some((time, self.waiting_room())),
            Fate::Disconnect(code) => {
                reply(writer, 0xE0, &[code, 0]);
                return false;
            }
            Fate::Close => return false,
            Fate::Refuse(reason) => code = reason,
            _ => {}
        }
        let acknowledged = match qos {
            0 => true,
            1 | 2 if code > 0 => {
                reply(writer, if qos == 1 { 0x40 } else { 0x50 }, &[id, vec![code, 0]].concat())
            }
            1 => reply(writer, 0x40, &id),
            _ => reply(writer, 0x50, &id),
        };
        if code == 0 {
            match fate {
                Fate::Damage(at) => payload[at] ^= 0x20,
                Fate::Shorten => drop(payload.pop()),
                Fate::Rename => topic.push('x'),
                _ => {}
            }
            self.route(topic, qos, payload, fate);
        }
        acknowledged
    }

    /// A thread that delivers messages in order when their time has come.
    fn waiting_room(&self) -> Sender<Waiting> {
        let (sender, queue) = channel::<Waiting>();
        let shared = self.shared.clone();
        thread::spawn(move || {
            for (due, topic, qos, payload) in queue {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                spread(&mut shared.lock().unwrap(), &topic, qos, &payload, Fate::Deliver);
            }
        });
        sender
    }

    fn route(&mut self, topic: String, qos: u8, payload: Vec<u8>, fate: Fate) {
        if fate == Fate::Lose {
            return;
        }
        if let Some((late, queue)) = &self.late {
            let _ = queue.send((Instant::now() + *late, topic, qos, payload));
            return;
        }
        let mut shared = self.shared.lock().unwrap();
        match fate {
            Fate::Swap => {
                shared.swapped = Some((topic, qos, payload));
                return;
            }
            _ => spread(&mut shared, &topic, qos, &payload, fate),
        }
        if fate == Fate::Repeat {
            spread(&mut shared, &topic, qos, &payload, fate);
        }
        if let Some((topic, qos, payload)) = shared.swapped.take() {
            spread(&mut shared, &topic, qos, &payload, Fate::Deliver);
        }
    }
}

/// Hands a message to everyone whose filter matches, and to one member of each share group.
fn spread(shared: &mut Shared, topic: &str, qos: u8, payload: &[u8], fate: Fate) {
    shared.turn += 1;
    let turn = shared.turn;
    let mut groups: HashMap<String, Vec<usize>> = HashMap::new();
    let original = topic.strip_suffix('x').filter(|_| fate == Fate::Rename).unwrap_or(topic);
    for (i, subscriber) in shared.subscribers.iter_mut().enumerate() {
        if fate != Fate::Stray && !matches(&subscriber.filter, original) {
            continue;
        }
        if subscriber.filter.starts_with("$share/") {
            groups.entry(subscriber.filter.clone()).or_default().push(i);
        } else {
            deliver(subscriber, topic, qos, payload);
        }
    }
    for members in groups.values() {
        deliver(&mut shared.subscribers[members[turn % members.len()]], topic, qos, payload);
    }
}

fn deliver(subscriber: &mut Subscriber, topic: &str, qos: u8, payload: &[u8]) {
    let qos = qos.min(subscriber.qos);
    let mut body = vec![(topic.len() >> 8) as u8, topic.len() as u8];
    body.extend_from_slice(topic.as_bytes());
    if qos > 0 {
        subscriber.next_id = subscriber.next_id % 65_535 + 1;
        body.extend_from_slice(&subscriber.next_id.to_be_bytes());
    }
    if subscriber.version == 5 {
        body.push(0);
    }
    body.extend_from_slice(payload);
    let _ = subscriber.stream.lock().unwrap().write_all(&packet(0x30 | qos << 1, &body));
}

fn reply(writer: &Arc<Mutex<TcpStream>>, first: u8, body: &[u8]) -> bool {
    writer.lock().unwrap().write_all(&packet(first, body)).is_ok()
}
