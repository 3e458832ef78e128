//! One shard over the simulator's kernel, for tests of its inside.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::{Ends, Options, Setup, Shard, Stopping, Turn};
use crate::io::ListenerId;
use crate::io::sim::{ClientRead, Endpoint, Faults, SimIo, World};
use crate::limits::Limits;
use crate::memory::{CLASSES, Pool};
use crate::mesh::Bounds;
use crate::metrics::Counters;
use crate::transport::Layers;

/// The moment of all turns.
pub(super) const NOW: u64 = 1000;

/// CONNECT of 5.0 from the client `a`, with Clean Start.
pub(super) const CONNECT: &[u8] = b"\x10\x0e\0\x04MQTT\x05\x02\0\0\0\0\x01a";

/// One shard, and clients of its listeners.
pub(super) struct Stage {
    world: Rc<RefCell<World>>,
    pub shard: Shard<SimIo>,
}

impl Stage {
    pub fn new(listeners: impl IntoIterator<Item = Layers>, options: Options) -> Stage {
        Stage::with_memory([1 << 30; CLASSES], listeners, options)
    }

    /// The same with this memory for each class.
    pub fn with_memory(
        memory: [u64; CLASSES],
        listeners: impl IntoIterator<Item = Layers>,
        options: Options,
    ) -> Stage {
        let world = Rc::new(RefCell::new(World::new(1, Faults::none(), 1)));
        let bounds = Bounds { ring_slots: 64, spill_max: 64, bytes_max: 1 << 20 };
        let setup = Setup {
            id: 0,
            shards: 1,
            limits: Limits::default(),
            keys: [1, 2, 3, 4],
            ends: Ends::build(1, bounds).remove(0),
            pool: Pool::new(memory),
            counters: Arc::new([Counters::default()]),
            listeners: listeners.into_iter().map(Into::into).collect(),
            stopping: Arc::new(Stopping::default()),
            access: crate::access::Access::default(),
            options: Options { sys_interval_ms: 0, ..options },
            store: None,
        };
        let shard = Shard::new(setup, SimIo::new(0, Rc::clone(&world)), NOW);
        Stage { world, shard }
    }

    /// A new connection to a listener.
    pub fn connect(&mut self, listener: u16) -> Endpoint {
        self.world.borrow_mut().connect(0, ListenerId(listener))
    }

    pub fn say(&mut self, endpoint: Endpoint, bytes: &[u8]) {
        assert_eq!(self.world.borrow_mut().write(endpoint, bytes), Some(bytes.len()));
    }

    /// Turns until nothing is left to do.
    pub fn settle(&mut self) {
        let mut idle = 0;
        for _ in 0..100 {
            idle = if matches!(self.shard.turn(NOW), Turn::Busy) { 0 } else { idle + 1 };
            if idle > 3 {
                return;
            }
        }
        panic!("the shard finds no rest");
    }

    /// What came for a client, and whether more may come.
    pub fn hear(&mut self, endpoint: Endpoint) -> (Vec<u8>, ClientRead) {
        let mut bytes = Vec::new();
        let state = self.world.borrow_mut().read(endpoint, &mut bytes, 1 << 20);
        (bytes, state)
    }
}
