//! Turns of several shards over kernels that stand still: what a message costs that goes from one to another, and what
//! peers cost that do nothing.
//!
//! All shards take their turns on one thread, one after the other, so each parcel is there when its target looks; there is
//! no doorbell, no sleep and no cache line that moves between processors. What is left is what both sides execute.

use std::sync::Arc;

use ringmq::limits::Limits;
use ringmq::memory::{CLASSES, OutBatch, Pool, ShardId};
use ringmq::mesh::Bounds;
use ringmq::metrics::Counters;
use ringmq::shard::{Ends, Listening, Options, Setup, Shard, Stopping, desk};
use ringmq::topic::{HashKeys, shard_of};
use ringmq::transport::Layers;
use ringmq::wire::Qos;

use crate::packets::{put_publish, topic};
use crate::still::Still;
use crate::turn::{connect, put_acks, subscribe};
use crate::{Meter, Prepared, Scale};

const KEYS: HashKeys = [1, 2, 3, 4];
/// Moment of every turn; no timer is due.
const NOW: u64 = 1000;
/// Turns of all shards in which nothing is left to do.
const SETTLE: usize = 8;

/// Who talks to whom.
struct Scene {
    shards: u16,
    publishers: usize,
    subscribers: usize,
    qos: Qos,
    /// Messages of each publisher in a step.
    messages: usize,
    /// Publisher i to subscriber i; otherwise everybody to everybody.
    paired: bool,
    /// Where subscriber i is at home; publishers are on shard 0.
    home: fn(usize) -> ShardId,
    /// Shards whose turns are measured.
    measured: usize,
}

const PAIRS: Scene = Scene {
    shards: 2,
    publishers: 8,
    subscribers: 8,
    qos: Qos::AtMostOnce,
    messages: 16,
    paired: true,
    home: |_| 1,
    measured: 2,
};

pub(crate) fn cross_qos0(_: Scale) -> Prepared {
    prepare(&PAIRS)
}

pub(crate) fn cross_qos1(_: Scale) -> Prepared {
    prepare(&Scene { qos: Qos::AtLeastOnce, ..PAIRS })
}

pub(crate) fn cross_single(_: Scale) -> Prepared {
    prepare(&Scene { publishers: 1, subscribers: 1, messages: 1, ..PAIRS })
}

pub(crate) fn fan_out(_: Scale) -> Prepared {
    prepare(&Scene {
        shards: 4,
        publishers: 1,
        subscribers: 100,
        messages: 8,
        paired: false,
        home: |index| (index % 4) as ShardId,
        measured: 4,
        ..PAIRS
    })
}

pub(crate) fn idle_peers(_: Scale) -> Prepared {
    prepare(&Scene {
        shards: 64,
        publishers: 1,
        subscribers: 1,
        messages: 1,
        home: |_| 0,
        measured: 1,
        ..PAIRS
    })
}

/// A client: its shard and its socket there.
type Client = (usize, usize);

struct Stage {
    shards: Vec<Shard<Still>>,
    subscribers: Vec<Client>,
    /// By subscriber: room for its acknowledgements.
    acks: Vec<u16>,
    sent: Vec<(usize, usize, Vec<u8>)>,
}

fn prepare(scene: &Scene) -> Prepared {
    let mut stage = Stage::new(scene.shards);
    for index in 0..scene.subscribers {
        let filter = if scene.paired { topic(index) } else { "bench/a1b2c3d4/p2p/+".into() };
        let client = stage.client("subscriber", index, (scene.home)(index), &subscribe(&filter, scene.qos));
        let acks = stage.shards[client.0].io_mut().input(Vec::new());
        stage.subscribers.push(client);
        stage.acks.push(acks);
    }
    let publishers: Vec<(Client, u16)> = (0..scene.publishers)
        .map(|index| {
            let client = stage.client("publisher", index, 0, &[0xC0, 0]);
            let mut bytes = Vec::new();
            for packet_id in 1..=scene.messages as u16 {
                put_publish(&mut bytes, scene.qos, packet_id, &topic(index), &[], 64);
            }
            (client, stage.shards[0].io_mut().input(bytes))
        })
        .collect();
    let copies = if scene.paired { 1 } else { scene.subscribers };
    let (measured, acknowledged) = (scene.measured, scene.qos == Qos::AtLeastOnce);
    Prepared::new(scene.publishers * scene.messages * copies, move |meter| {
        for ((shard, socket), input) in &publishers {
            stage.shards[*shard].io_mut().feed(*socket, *input);
        }
        stage.turns(meter, measured);
        if acknowledged {
            stage.acknowledge();
            stage.turns(meter, measured);
        }
        // The last sends end, and with them everything is as it was.
        stage.turns(meter, measured);
    })
}

impl Stage {
    fn new(shards: u16) -> Stage {
        let bounds = Bounds { ring_slots: 256, spill_max: 4096, bytes_max: 1 << 20 };
        let counters: Arc<[Counters]> = (0..shards).map(|_| Counters::default()).collect();
        let (pool, stopping) = (Pool::new([1 << 40; CLASSES]), Arc::new(Stopping::default()));
        let listeners: Vec<Listening> = vec![Layers::plain().into()];
        let shards = Ends::build(shards, bounds).into_iter().map(|ends| {
            let setup = Setup {
                id: ends.here(),
                shards,
                limits: Limits::default(),
                keys: KEYS,
                ends,
                pool: Arc::clone(&pool),
                counters: Arc::clone(&counters),
                listeners: listeners.clone(),
                stopping: Arc::clone(&stopping),
                access: ringmq::access::Access::default(),
                options: Options { sys_interval_ms: 0, ..Options::default() },
                store: None,
            };
            Shard::new(setup, Still::default(), NOW).with_desk(desk().1)
        });
        Stage { shards: shards.collect(), subscribers: Vec::new(), acks: Vec::new(), sent: Vec::new() }
    }

    /// Connects a client that is at home on `home`, and sends its first packet.
    fn client(&mut self, name: &str, index: usize, home: ShardId, first: &[u8]) -> Client {
        let count = self.shards.len() as u16;
        let id = (0..)
            .map(|attempt| format!("{name}-{index}-{attempt}"))
            .find(|id| shard_of(&KEYS, id, count) == home)
            .expect("some name hashes to each shard");
        let at = usize::from(home);
        let io = self.shards[at].io_mut();
        let socket = io.connect();
        let (connect, first) = (io.input(connect(&id)), io.input(first.to_vec()));
        self.settle();
        self.shards[at].io_mut().feed(socket, connect);
        self.settle();
        self.shards[at].io_mut().feed(socket, first);
        self.settle();
        (at, socket)
    }

    fn settle(&mut self) {
        for _ in 0..SETTLE {
            for shard in &mut self.shards {
                let _ = shard.turn(NOW);
                shard.io_mut().take_sent(|_, _| {});
            }
        }
    }

    /// One turn of each of the first `measured` shards, beginning with the publishers'.
    fn turns(&mut self, meter: &mut Meter, measured: usize) {
        self.sent.clear();
        for (at, shard) in self.shards[..measured].iter_mut().enumerate() {
            meter.measure(|| {
                let _ = shard.turn(NOW);
            });
            let sent = &mut self.sent;
            shard.io_mut().take_sent(|socket, batch: &OutBatch| {
                let mut bytes = Vec::new();
                batch.pieces().for_each(|piece| bytes.extend_from_slice(piece));
                meter.note_number((at * 1000 + socket) as u64);
                meter.note_number(bytes.len() as u64);
                meter.note(&bytes[..bytes.len().min(64)]);
                sent.push((at, socket, bytes));
            });
        }
    }

    /// Subscribers answer what they were sent in the last turn.
    fn acknowledge(&mut self) {
        for (at, socket, bytes) in &self.sent {
            let Some(subscriber) = self.subscribers.iter().position(|client| *client == (*at, *socket))
            else {
                continue;
            };
            let input = self.acks[subscriber];
            let io = self.shards[*at].io_mut();
            let acks = io.input_mut(input);
            acks.clear();
            put_acks(acks, bytes);
            if !acks.is_empty() {
                io.feed(*socket, input);
            }
        }
    }
}
