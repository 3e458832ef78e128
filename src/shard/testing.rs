//! One shard over the simulator's kernel, for tests of its inside.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::{Ends, Opening, Options, Setup, Shard, Stopping, Storing, Turn};
use crate::clock::Millis;
use crate::io::sim::{ClientRead, Endpoint, Faults, SimFiles, SimIo, World};
use crate::io::{Files, ListenerId, Sync};
use crate::limits::Limits;
use crate::memory::{CLASSES, Pool};
use crate::mesh::Bounds;
use crate::metrics::Counters;
use crate::store::{Keeper, Log, Origin, WallClock};
use crate::transport::Layers;

/// The moment of all turns.
pub(super) const NOW: u64 = 1000;

/// CONNECT of 5.0 from the client `a`, with Clean Start.
pub(super) const CONNECT: &[u8] = b"\x10\x0e\0\x04MQTT\x05\x02\0\0\0\0\x01a";

/// One shard, and clients of its listeners.
pub(super) struct Stage {
    pub world: Rc<RefCell<World>>,
    pub shard: Shard<SimIo>,
    keeper: Option<(Keeper, SimFiles)>,
    now: Millis,
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
        Stage::over(world, None, memory, listeners, options)
    }

    /// The same with a data directory on a disk that is empty.
    pub fn with_store(segment_bytes: u64) -> Stage {
        let world = Rc::new(RefCell::new(World::new(1, Faults::none(), 1)));
        let files = SimFiles::new(Rc::clone(&world));
        files.create_dir("000").expect("a directory");
        let keeper = Keeper::new(1, segment_bytes, u64::MAX);
        keeper.fill(&files, "r1").expect("segments");
        let opening = Arc::new(Opening::default());
        opening.open();
        let storing = Storing {
            log: Log::new(Origin { store: 1, run: 1, shard: 0 }, keeper.clone()),
            clock: WallClock::default(),
            sync: Sync::Data,
            grace_ms: 0,
            sessions: Vec::new(),
            retained: Vec::new(),
            given: Vec::new(),
            damaged: 0,
            opening,
        };
        let memory = [1 << 30; CLASSES];
        let mut stage = Stage::over(world, Some(storing), memory, [Layers::plain()], Options::default());
        stage.keeper = Some((keeper, files));
        stage
    }

    fn over(
        world: Rc<RefCell<World>>,
        store: Option<Storing>,
        memory: [u64; CLASSES],
        listeners: impl IntoIterator<Item = Layers>,
        options: Options,
    ) -> Stage {
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
            store,
        };
        let shard = Shard::new(setup, SimIo::new(0, Rc::clone(&world)), NOW);
        Stage { world, shard, keeper: None, now: NOW }
    }

    /// A new connection to a listener.
    pub fn connect(&mut self, listener: u16) -> Endpoint {
        self.world.borrow_mut().connect(0, ListenerId(listener))
    }

    pub fn say(&mut self, endpoint: Endpoint, bytes: &[u8]) {
        assert_eq!(self.world.borrow_mut().write(endpoint, bytes), Some(bytes.len()));
    }

    /// So many turns, one in each millisecond; segments are made in between.
    pub fn go_on(&mut self, turns: usize) {
        for _ in 0..turns {
            self.now += 1;
            let _ = self.shard.turn(self.now);
            if let Some((keeper, files)) = &self.keeper {
                keeper.fill(files, "r1").expect("segments");
            }
        }
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
