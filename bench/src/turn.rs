//! Whole turns of a shard over a kernel that stands still: completions in, sends out, nothing else in between.
//!
//! Clients are played outside of what is measured. A step is one exchange: messages, and with QoS 1 and 2 every
//! acknowledgement, each in the turn in which it would arrive if everybody answered at once.

use std::sync::Arc;

use ringmq::limits::Limits;
use ringmq::memory::{CLASSES, OutBatch, Pool};
use ringmq::mesh::Bounds;
use ringmq::metrics::Counters;
use ringmq::shard::{Ends, Options, Setup, Shard, Stopping, desk};
use ringmq::transport::Layers;
use ringmq::wire::Qos;

use crate::packets::{put_publish, topic};
use crate::still::Still;
use crate::tls::{Client, Server};
use crate::{Meter, Prepared, Scale};

/// Turns in which nothing is left to do after connecting.
const SETTLE: usize = 8;
/// Flights of a client in a handshake of TLS.
const HANDSHAKE: usize = 2;
/// Moment of every turn; no timer is due.
const NOW: u64 = 1000;

/// Who talks to whom, and how much a step is.
struct Scene {
    publishers: usize,
    subscribers: usize,
    qos: Qos,
    /// Messages of each publisher in a step.
    messages: usize,
    payload: usize,
    /// Bytes of a receive.
    receive: usize,
    /// Publisher i to subscriber i; otherwise everybody to everybody.
    paired: bool,
    over: Over,
}

/// What MQTT goes over.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Over {
    Tcp,
    /// At QoS 0 only: nobody acknowledges.
    Tls,
}

const PAIRS: Scene = Scene {
    publishers: 8,
    subscribers: 8,
    qos: Qos::AtMostOnce,
    messages: 16,
    payload: 64,
    receive: 4096,
    paired: true,
    over: Over::Tcp,
};

pub(crate) fn p2p_qos0(_: Scale) -> Prepared {
    prepare(PAIRS)
}

pub(crate) fn p2p_qos1(_: Scale) -> Prepared {
    prepare(Scene { qos: Qos::AtLeastOnce, ..PAIRS })
}

pub(crate) fn p2p_qos2(_: Scale) -> Prepared {
    prepare(Scene { qos: Qos::ExactlyOnce, ..PAIRS })
}

/// One message of each of many, as when everybody waits for an answer before the next one.
pub(crate) fn p2p_each(_: Scale) -> Prepared {
    prepare(Scene { publishers: 64, subscribers: 64, messages: 1, ..PAIRS })
}

/// With so many that their memory is asked for ahead.
pub(crate) fn p2p_many(_: Scale) -> Prepared {
    prepare(Scene { publishers: 300, subscribers: 300, messages: 1, ..PAIRS })
}

pub(crate) fn p2p_16k(_: Scale) -> Prepared {
    prepare(Scene { messages: 4, payload: 16 * 1024, ..PAIRS })
}

pub(crate) fn tls_p2p_qos0(_: Scale) -> Prepared {
    prepare(Scene { over: Over::Tls, ..PAIRS })
}

pub(crate) fn tls_p2p_16k(_: Scale) -> Prepared {
    prepare(Scene { messages: 4, payload: 16 * 1024, receive: 16 * 1024, over: Over::Tls, ..PAIRS })
}

pub(crate) fn fan_out(_: Scale) -> Prepared {
    prepare(Scene { publishers: 1, subscribers: 100, messages: 8, paired: false, ..PAIRS })
}

pub(crate) fn fan_out_qos1(_: Scale) -> Prepared {
    let qos = Qos::AtLeastOnce;
    prepare(Scene { publishers: 1, subscribers: 100, messages: 8, paired: false, qos, ..PAIRS })
}

pub(crate) fn fan_in(_: Scale) -> Prepared {
    prepare(Scene { publishers: 32, subscribers: 1, messages: 4, paired: false, ..PAIRS })
}

pub(crate) fn single(_: Scale) -> Prepared {
    prepare(Scene { publishers: 1, subscribers: 1, messages: 1, ..PAIRS })
}

/// Appends what a subscriber answers to these packets.
pub(crate) fn put_acks(acks: &mut Vec<u8>, bytes: &[u8]) {
    let mut rest = bytes;
    while let [first, ..] = rest {
        let (len_bytes, remaining) = if rest[1] < 128 {
            (1, usize::from(rest[1]))
        } else {
            (2, usize::from(rest[1] & 127) + 128 * usize::from(rest[2]))
        };
        let (packet, others) = rest.split_at(1 + len_bytes + remaining);
        let body = &packet[1 + len_bytes..];
        rest = others;
        let topic_len = usize::from(u16::from_be_bytes([body[0], body[1]]));
        match first >> 1 {
            // PUBLISH of QoS 1, of QoS 2, PUBREL.
            0b001_1001 => acks.extend([0x40, 2, body[2 + topic_len], body[3 + topic_len]]),
            0b001_1010 => acks.extend([0x50, 2, body[2 + topic_len], body[3 + topic_len]]),
            0b011_0001 => acks.extend([0x70, 2, body[0], body[1]]),
            other => panic!("a subscriber was sent {other:#b}"),
        }
    }
}

/// A shard and its clients.
struct Stage {
    shard: Shard<Still>,
    publishers: Vec<usize>,
    subscribers: Vec<usize>,
    /// By publisher: what it sends in a step, receive by receive.
    publishes: Vec<Vec<u16>>,
    /// By publisher: its PUBRELs of a step.
    pubrels: Vec<u16>,
    /// By subscriber: room for its acknowledgements.
    acks: Vec<u16>,
    sent: Vec<(usize, Vec<u8>)>,
    /// The ends of TLS by socket; without them the clients are plain.
    tls: Vec<Client>,
    server: Option<Server>,
    /// What each input says inside of TLS.
    plain: Vec<(u16, Vec<u8>)>,
}

fn shard(layers: Layers) -> Shard<Still> {
    let bounds = Bounds { ring_slots: 64, spill_max: 64, bytes_max: 1 << 20 };
    let setup = Setup {
        id: 0,
        shards: 1,
        limits: Limits::default(),
        keys: [1, 2, 3, 4],
        ends: Ends::build(1, bounds).remove(0),
        pool: Pool::new([1 << 40; CLASSES]),
        counters: Arc::new([Counters::default()]),
        listeners: vec![layers.into()],
        stopping: Arc::new(Stopping::default()),
        access: ringmq::access::Access::default(),
        options: Options { sys_interval_ms: 0, ..Options::default() },
        store: None,
    };
    Shard::new(setup, Still::default(), NOW).with_desk(desk().1)
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 128);
    [&[first, body.len() as u8], body].concat()
}

pub(crate) fn connect(client_id: &str) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x05\x02\x00\x00\x00".to_vec();
    string(&mut body, client_id);
    packet(0x10, &body)
}

pub(crate) fn subscribe(filter: &str, qos: Qos) -> Vec<u8> {
    let mut body = vec![0, 1, 0];
    string(&mut body, filter);
    body.push(qos as u8);
    packet(0x82, &body)
}

fn prepare(scene: Scene) -> Prepared {
    let mut stage = Stage::new(&scene);
    let copies = if scene.paired { 1 } else { scene.subscribers };
    let deliveries = scene.publishers * scene.messages * copies;
    let step = move |meter: &mut Meter| {
        for i in 0..stage.publishers.len() {
            for receive in 0..stage.publishes[i].len() {
                let (socket, input) = (stage.publishers[i], stage.publishes[i][receive]);
                stage.seal(socket, input);
                stage.shard.io_mut().feed(socket, input);
            }
        }
        stage.turn(meter);
        let rounds = match scene.qos {
            Qos::AtMostOnce => 0,
            Qos::AtLeastOnce => 1,
            Qos::ExactlyOnce => 2,
        };
        for round in 0..rounds {
            stage.acknowledge();
            if scene.qos == Qos::ExactlyOnce && round == 0 {
                for i in 0..stage.publishers.len() {
                    let (socket, input) = (stage.publishers[i], stage.pubrels[i]);
                    stage.shard.io_mut().feed(socket, input);
                }
            }
            stage.turn(meter);
        }
        // The last sends end, and with them everything is as it was.
        stage.turn(meter);
    };
    Prepared::new(deliveries, step)
}

impl Stage {
    fn new(scene: &Scene) -> Stage {
        let server = (scene.over == Over::Tls).then(Server::new);
        assert!(server.is_none() || scene.qos == Qos::AtMostOnce, "acknowledgements are not sealed");
        let mut stage = Stage {
            shard: shard(server.as_ref().map_or_else(Layers::plain, Server::layers)),
            publishers: Vec::new(),
            subscribers: Vec::new(),
            publishes: Vec::new(),
            pubrels: Vec::new(),
            acks: Vec::new(),
            sent: Vec::new(),
            tls: Vec::new(),
            server,
            plain: Vec::new(),
        };
        for i in 0..scene.subscribers {
            let filter = if scene.paired { topic(i) } else { "bench/a1b2c3d4/p2p/+".into() };
            let socket = stage.client(&format!("subscriber-{i}"), &subscribe(&filter, scene.qos));
            stage.subscribers.push(socket);
            let acks = stage.shard.io_mut().input(Vec::new());
            stage.acks.push(acks);
        }
        for i in 0..scene.publishers {
            let socket = stage.client(&format!("publisher-{i}"), &[0xC0, 0]);
            stage.publishers.push(socket);
            let (mut publishes, mut pubrels) = (Vec::new(), Vec::new());
            for packet_id in 1..=scene.messages as u16 {
                put_publish(&mut publishes, scene.qos, packet_id, &topic(i), &[], scene.payload);
                pubrels.extend_from_slice(&[0x62, 2, 0, packet_id as u8]);
            }
            let io = stage.shard.io_mut();
            let inputs: Vec<u16> =
                publishes.chunks(scene.receive).map(|bytes| io.input(bytes.to_vec())).collect();
            stage.pubrels.push(io.input(pubrels));
            if stage.server.is_some() {
                let plain = publishes.chunks(scene.receive).map(<[u8]>::to_vec);
                stage.plain.extend(inputs.iter().copied().zip(plain));
            }
            stage.publishes.push(inputs);
        }
        stage
    }

    /// Connects a client and sends its first packet.
    fn client(&mut self, client_id: &str, first: &[u8]) -> usize {
        let socket = self.shard.io_mut().connect();
        self.settle();
        if let Some(server) = &self.server {
            self.tls.push(server.client());
            for _ in 0..HANDSHAKE {
                self.say(socket, &[]);
            }
        }
        self.say(socket, &connect(client_id));
        self.say(socket, first);
        socket
    }

    /// A client says something, and hears what there is to hear.
    fn say(&mut self, socket: usize, bytes: &[u8]) {
        let wire = match self.tls.get_mut(socket) {
            Some(client) => client.seal(bytes),
            None => bytes.to_vec(),
        };
        if !wire.is_empty() {
            let io = self.shard.io_mut();
            let input = io.input(wire);
            io.feed(socket, input);
        }
        self.settle();
    }

    /// What an input says goes into new records, outside of what is measured.
    fn seal(&mut self, socket: usize, input: u16) {
        let Some(client) = self.tls.get_mut(socket) else { return };
        let said = self.plain.iter().find(|(of, _)| *of == input);
        let (_, said) = said.expect("each input of a client with TLS is known");
        *self.shard.io_mut().input_mut(input) = client.seal(said);
    }

    fn settle(&mut self) {
        for _ in 0..SETTLE {
            let _ = self.shard.turn(NOW);
            let tls = &mut self.tls;
            self.shard.io_mut().take_sent(|socket, batch| {
                if let Some(client) = tls.get_mut(socket) {
                    batch.pieces().for_each(|piece| drop(client.open(piece)));
                }
            });
        }
    }

    /// One turn; what it sent is noted, and over by the next one.
    fn turn(&mut self, meter: &mut Meter) {
        let shard = &mut self.shard;
        meter.measure(|| {
            let _ = shard.turn(NOW);
        });
        let (sent, tls) = (&mut self.sent, &mut self.tls);
        sent.clear();
        self.shard.io_mut().take_sent(|socket, batch: &OutBatch| {
            let mut bytes = Vec::new();
            batch.pieces().for_each(|piece| bytes.extend_from_slice(piece));
            meter.note_number(socket as u64);
            meter.note_number(bytes.len() as u64);
            if let Some(client) = tls.get_mut(socket) {
                bytes = client.open(&bytes);
            }
            // The front of a batch has every kind of field; all of it would cost more than the turn.
            meter.note(&bytes[..bytes.len().min(64)]);
            sent.push((socket, bytes));
        });
    }

    /// Subscribers answer what they were sent in the last turn.
    fn acknowledge(&mut self) {
        for (socket, bytes) in &self.sent {
            let Some(subscriber) = self.subscribers.iter().position(|subscriber| subscriber == socket) else {
                continue;
            };
            let input = self.acks[subscriber];
            let io = self.shard.io_mut();
            let acks = io.input_mut(input);
            acks.clear();
            put_acks(acks, bytes);
            if !acks.is_empty() {
                io.feed(*socket, input);
            }
        }
    }
}
