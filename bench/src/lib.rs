//! What the operations of ringmq cost, and the limit that the whole is measured against.
//!
//! - [`OPERATIONS`]: single operations with fixed inputs. `cargo bench -p bench` times them, `scripts/instructions`
//!   counts their instructions, and the tests run each of them tiny and compare a hash of what it did.
//! - [`limit`]: a forwarder over the broker's own event loop, for `scripts/bench-peers`.
//!
//! What it is not: a load test. That is `loadgen`; nothing here goes over a socket but `limit`.

pub mod bare;
mod fanout;
pub mod limit;
mod matching;
mod mesh;
mod packets;
pub mod scale;
mod shards;
mod still;
mod tls;
mod turn;

use std::time::{Duration, Instant};

/// How much of an operation is prepared.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Scale {
    /// For tests: milliseconds, whatever the build.
    Tiny,
    /// For counting instructions: no preparation that takes long under an interpreter.
    Count,
    /// For timing.
    Full,
}

impl Scale {
    /// One of three numbers.
    pub(crate) fn pick(self, tiny: usize, count: usize, full: usize) -> usize {
        match self {
            Scale::Tiny => tiny,
            Scale::Count => count,
            Scale::Full => full,
        }
    }
}

/// Something whose cost is watched.
pub struct Operation {
    pub name: &'static str,
    /// What one unit is, for people.
    pub unit: &'static str,
    prepare: fn(Scale) -> Prepared,
}

/// An operation with its inputs.
#[must_use]
pub struct Prepared {
    /// Units in one step.
    pub units: u64,
    step: Box<dyn FnMut(&mut Meter)>,
}

/// Tells the operation from its preparation, and gathers what it did.
pub struct Meter {
    spent: Duration,
    hash: u64,
    counts: bool,
    watch: Option<fn() -> u64>,
    watched: u64,
}

impl Default for Meter {
    fn default() -> Meter {
        Meter { spent: Duration::ZERO, hash: 0xCBF2_9CE4_8422_2325, counts: false, watch: None, watched: 0 }
    }
}

impl Operation {
    /// The operation of this name.
    pub fn find(name: &str) -> Option<&'static Operation> {
        OPERATIONS.iter().find(|operation| operation.name == name)
    }

    /// Makes the inputs; the same ones each time.
    pub fn prepare(&self, scale: Scale) -> Prepared {
        (self.prepare)(scale)
    }
}

impl Prepared {
    pub(crate) fn new(units: usize, step: impl FnMut(&mut Meter) + 'static) -> Prepared {
        Prepared { units: units as u64, step: Box::new(step) }
    }

    /// Does [`Prepared::units`] units.
    pub fn step(&mut self, meter: &mut Meter) {
        (self.step)(meter);
    }
}

impl Meter {
    /// Runs what is measured.
    pub(crate) fn measure<R>(&mut self, operation: impl FnOnce() -> R) -> R {
        if self.counts {
            return counted(operation);
        }
        let before = self.watch.map_or(0, |watch| watch());
        let begin = Instant::now();
        let result = operation();
        self.spent += begin.elapsed();
        self.watched += self.watch.map_or(0, |watch| watch()) - before;
        result
    }

    /// From now on it also sums up by how much `number` grows within operations.
    pub fn watch(&mut self, number: fn() -> u64) {
        self.watch = Some(number);
    }

    /// What that came to.
    pub fn watched(&self) -> u64 {
        self.watched
    }

    /// From now on operations run where `scripts/instructions` counts, and without a clock.
    pub fn count(&mut self) {
        self.counts = true;
    }

    /// Notes bytes that an operation made.
    pub(crate) fn note(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.note_number(u64::from(*byte)));
    }

    /// Notes a number that an operation made: FNV-1a, so that the recorded hashes depend on no library.
    pub(crate) fn note_number(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x0000_0100_0000_01B3);
    }

    /// Time in the operation so far.
    pub fn spent(&self) -> Duration {
        self.spent
    }

    /// Of everything noted.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

/// The boundary that `scripts/instructions` counts within; its name is known there.
#[inline(never)]
fn counted<R>(operation: impl FnOnce() -> R) -> R {
    operation()
}

/// All operations, from the wire inwards.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        name: "decode/publish",
        unit: "PUBLISH, v5, QoS 0, 64 bytes",
        prepare: packets::decode_publish,
    },
    Operation {
        name: "decode/publish-properties",
        unit: "PUBLISH, v5, QoS 1, with properties",
        prepare: packets::decode_publish_properties,
    },
    Operation { name: "decode/puback", unit: "PUBACK", prepare: packets::decode_puback },
    Operation {
        name: "encode/publish",
        unit: "PUBLISH, v5, QoS 1, 64 bytes",
        prepare: packets::encode_publish,
    },
    Operation { name: "encode/puback", unit: "PUBACK", prepare: packets::encode_puback },
    Operation {
        name: "match/1-cached",
        unit: "route from the cache, 1 filter",
        prepare: matching::one_cached,
    },
    Operation { name: "match/1-cold", unit: "route made, 1 filter", prepare: matching::one_cold },
    Operation {
        name: "match/1000-cached",
        unit: "route from the cache, 1,000 filters, a tenth with wildcards",
        prepare: matching::thousand_cached,
    },
    Operation {
        name: "match/1000-cold",
        unit: "route made, 1,000 filters, a tenth with wildcards",
        prepare: matching::thousand_cold,
    },
    Operation {
        name: "match/1000000-cached",
        unit: "route from the cache, 1,000,000 filters (20,000 where instructions are counted)",
        prepare: matching::million_cached,
    },
    Operation {
        name: "match/1000000-cold",
        unit: "route made, 1,000,000 filters (20,000 where instructions are counted)",
        prepare: matching::million_cold,
    },
    Operation { name: "fanout/qos0", unit: "delivery to one of 1,000 sessions", prepare: fanout::qos0 },
    Operation {
        name: "fanout/qos1",
        unit: "delivery to one of 1,000 sessions, and its PUBACK",
        prepare: fanout::qos1,
    },
    Operation { name: "mesh/ring", unit: "item through one ring, flushed each 64", prepare: mesh::ring },
    Operation { name: "turn/p2p-qos0", unit: "message, 8 pairs, 16 a turn each", prepare: turn::p2p_qos0 },
    Operation { name: "turn/p2p-qos1", unit: "message and both PUBACKs", prepare: turn::p2p_qos1 },
    Operation {
        name: "turn/p2p-qos2",
        unit: "message and all its acknowledgements",
        prepare: turn::p2p_qos2,
    },
    Operation { name: "turn/p2p-each", unit: "message, 64 pairs, one a turn each", prepare: turn::p2p_each },
    Operation { name: "turn/p2p-many", unit: "message, 300 pairs, one a turn each", prepare: turn::p2p_many },
    Operation { name: "turn/p2p-16k", unit: "message of 16 KiB in four receives", prepare: turn::p2p_16k },
    Operation {
        name: "turn/tls-p2p-qos0",
        unit: "message over TLS, 8 pairs, 16 a turn each",
        prepare: turn::tls_p2p_qos0,
    },
    Operation {
        name: "turn/tls-p2p-16k",
        unit: "message of 16 KiB over TLS in two records",
        prepare: turn::tls_p2p_16k,
    },
    Operation { name: "turn/fan-out", unit: "delivery, 1 to 100, 8 messages a turn", prepare: turn::fan_out },
    Operation {
        name: "turn/fan-out-qos1",
        unit: "delivery and its PUBACK, 1 to 100, 8 messages a turn",
        prepare: turn::fan_out_qos1,
    },
    Operation { name: "turn/fan-in", unit: "message, 32 to 1, 4 a turn each", prepare: turn::fan_in },
    Operation {
        name: "shards/cross-qos0",
        unit: "message from one shard to another, 8 pairs, 16 a turn each",
        prepare: shards::cross_qos0,
    },
    Operation {
        name: "shards/cross-qos1",
        unit: "message from one shard to another and both PUBACKs",
        prepare: shards::cross_qos1,
    },
    Operation {
        name: "shards/cross-single",
        unit: "turns with one message from one shard to another",
        prepare: shards::cross_single,
    },
    Operation {
        name: "shards/fan-out",
        unit: "delivery, 1 to 100 on 4 shards, 8 messages a turn",
        prepare: shards::fan_out,
    },
    Operation {
        name: "shards/63-idle-peers",
        unit: "turn with one message beside 63 shards that do nothing",
        prepare: shards::idle_peers,
    },
    Operation { name: "turn/single", unit: "turn with one message of one pair", prepare: turn::single },
];
