//! A whole broker on one thread over the simulated kernel and clock.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use ringmq::access::Access;
use ringmq::io::ListenerId;
use ringmq::io::sim::{Endpoint, Faults, Rng, SimIo, World};
use ringmq::limits::{Limits, QueueFull};
use ringmq::memory::{CLASSES, Class, Pool};
use ringmq::mesh::Bounds;
use ringmq::metrics::{Counters, sum};
use ringmq::shard::{Control, Ends, Listening, Options, Order, Setup, Shard, Stopping, Turn, desk};
use ringmq::transport::Layers;

/// Milliseconds.
pub type Millis = u64;

/// Turns of all shards in which the broker must have come to rest.
const TURNS_MAX: usize = 100_000;
/// The longest that a session outlives its connection, in seconds.
const EXPIRY_MAX_S: u32 = 30;
/// Bytes of memory by class, in the order of [`Class`].
const MEMORY: [u64; CLASSES] =
    [16 << 20, 16 << 20, 64 << 20, 16 << 20, 16 << 20, 16 << 20, 16 << 20, 16 << 20];

/// When a shard that has ended takes its next turn.
const OVER: Millis = Millis::MAX;

pub struct Broker {
    /// With the time until which each sleeps.
    shards: Vec<(Shard<SimIo>, Option<Millis>)>,
    controls: Vec<Control<()>>,
    world: Rc<RefCell<World>>,
    pool: Arc<Pool>,
    counters: Arc<[Counters]>,
    now: Millis,
    rng: Rng,
}

impl Broker {
    pub fn new(count: u16, rng: &mut Rng) -> Broker {
        // Connections do not fail by themselves: what the two honest clients are owed must stay known.
        let faults = Faults { reset: Faults::none().reset, ..Faults::draw(rng) };
        let world = Rc::new(RefCell::new(World::new(count, faults, rng.bits())));
        let limits = Limits {
            packet_size_max: 20_000,
            connect_packet_size_max: 4_000,
            session_expiry_max_s: EXPIRY_MAX_S,
            queue_messages_max: 200,
            queue_full: *rng.pick(&[QueueFull::DropNewest, QueueFull::DropOldest, QueueFull::Disconnect]),
            receive_maximum: 20,
            topic_levels_max: 12,
            properties_max: 12,
            topic_alias_max: 5,
            ..Limits::default()
        };
        let pool = Pool::new(MEMORY);
        let counters: Arc<[Counters]> = (0..count).map(|_| Counters::default()).collect();
        let stopping = Arc::new(Stopping::default());
        let keys = [rng.bits(), rng.bits(), rng.bits(), rng.bits()];
        let bounds = Bounds { ring_slots: *rng.pick(&[2, 4, 64]), spill_max: 8, bytes_max: 64 << 10 };
        let options = Options {
            sys_interval_ms: *rng.pick(&[0, 500]),
            relay_window: *rng.pick(&[1, 4, 256]),
            retained_batch: *rng.pick(&[1, 64]),
            paused_bytes_max: 2048,
            look_ahead_from: 0,
            ..Options::default()
        };
        // One for all shards, which count its connections together.
        let listeners: Vec<Listening> = vec![Layers::plain().into()];
        let (controls, desks): (Vec<_>, Vec<_>) = (0..count).map(|_| desk()).unzip();
        let sides = Ends::build(count, bounds).into_iter().zip(desks);
        let shards = sides.enumerate().map(|(id, (ends, desk))| {
            let setup = Setup {
                id: id as u16,
                shards: count,
                limits,
                keys,
                ends,
                pool: pool.clone(),
                counters: counters.clone(),
                listeners: listeners.clone(),
                stopping: stopping.clone(),
                access: Access::default(),
                options: options.clone(),
                store: None,
            };
            (Shard::new(setup, SimIo::new(id as u16, world.clone()), 1).with_desk(desk), None)
        });
        let shards = shards.collect();
        Broker { shards, controls, world: world.clone(), pool, counters, now: 1, rng: rng.fork() }
    }

    /// A connection to any of the shards.
    pub fn connect(&mut self) -> Endpoint {
        let shard = self.rng.below(self.shards.len()) as u16;
        self.world.borrow_mut().connect(shard, ListenerId(0))
    }

    pub fn world(&self) -> std::cell::RefMut<'_, World> {
        self.world.borrow_mut()
    }

    /// One turn of one shard, unless it sleeps on. Whether there may be more to do.
    fn turn(&mut self, at: usize) -> bool {
        let now = self.now;
        self.world.borrow_mut().progress(at as u16);
        let (shard, asleep) = &mut self.shards[at];
        if let Some(deadline) = *asleep {
            if deadline > now && !self.world.borrow().has_completions(at as u16) {
                return false;
            }
            shard.bell().awake();
            *asleep = None;
        }
        match shard.turn(now) {
            Turn::Busy => true,
            Turn::Idle { deadline } if shard.bell().sleep() => {
                *asleep = Some(deadline);
                deadline <= now
            }
            Turn::Idle { .. } => true,
            Turn::Over => {
                *asleep = Some(OVER);
                false
            }
        }
    }

    fn is_quiet(&self) -> bool {
        self.shards.iter().enumerate().all(|(at, (_, asleep))| {
            asleep.is_some_and(|deadline| deadline > self.now) && self.world.borrow().is_quiet(at as u16)
        })
    }

    /// Some turns of some shards.
    pub fn some_turns(&mut self, rng: &mut Rng) {
        for _ in 0..rng.between(1, 12) {
            let at = rng.below(self.shards.len());
            self.turn(at);
        }
    }

    /// Turns of all shards until none has anything to do. Who reads nothing does not keep a broker busy.
    pub fn rest(&mut self) {
        for _ in 0..TURNS_MAX {
            let mut happened = false;
            for at in 0..self.shards.len() {
                happened |= self.turn(at);
            }
            if !happened && self.is_quiet() {
                return;
            }
        }
        panic!("the broker does not come to rest: {:?}", self.world.borrow().unquiet());
    }

    /// Time passes, with every deadline on the way.
    pub fn pass(&mut self, by: Millis, mut meanwhile: impl FnMut(&mut Broker)) {
        let until = self.now + by;
        loop {
            self.rest();
            meanwhile(self);
            self.rest();
            let next = self.shards.iter().filter_map(|(_, asleep)| *asleep).min();
            match next {
                Some(at) if at <= until => self.now = at.max(self.now),
                _ => break,
            }
        }
        self.now = until;
        self.rest();
    }

    /// The shards end, as at a signal.
    fn stop(&mut self) {
        for ((shard, asleep), control) in self.shards.iter_mut().zip(&mut self.controls) {
            control.put(Order::Drain).expect("a desk has a place for it");
            shard.bell().awake();
            *asleep = None;
        }
        for _ in 0..TURNS_MAX {
            if self.shards.iter().all(|(_, asleep)| *asleep == Some(OVER)) {
                return;
            }
            for at in 0..self.shards.len() {
                self.turn(at);
            }
            self.now += 1;
        }
        panic!("the shards do not stop");
    }

    /// All clients are gone: after the last session has expired nothing may be left but what is retained.
    pub fn end(mut self) {
        self.world.borrow_mut().faults.heal();
        self.pass(Millis::from(EXPIRY_MAX_S) * 1000 + 20_000, |_| {});
        for (at, (shard, _)) in self.shards.iter_mut().enumerate() {
            let live = shard.live();
            let left = [
                live.connections,
                live.sessions,
                live.subscriptions,
                live.session_bytes,
                live.subscription_bytes,
                live.buffers,
                live.timers,
                live.mesh,
            ];
            assert_eq!(left, [0; 8], "shard {at} keeps {live:?}");
        }
        for (what, left) in [
            ("queued messages", sum(&self.counters, |c| &c.queued_bytes)),
            ("paused connections", sum(&self.counters, |c| &c.connections_paused)),
        ] {
            assert_eq!(left, 0, "{what}");
        }
        self.stop();
        for at in 0..self.shards.len() {
            self.world.borrow_mut().close_listeners(at as u16);
        }
        let Broker { shards, world, pool, .. } = self;
        drop(shards);
        let found = world.borrow().faults_at_rest();
        assert!(found.is_empty(), "{found:?}");
        for (class, bytes) in Class::ALL.into_iter().zip(MEMORY) {
            assert_eq!(pool.free(class), bytes as i64, "{class:?}");
        }
    }
}
