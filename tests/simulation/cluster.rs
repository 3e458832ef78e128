//! All shards of a broker on one thread, each with its own sleep, over one simulated kernel and clock.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use ringmq::access::{Access, Answer, Door, Policy, Rules};
use ringmq::io::sim::{Crash, Rng, SimIo, World};
use ringmq::limits::Limits;
use ringmq::memory::{CLASSES, Class, Pool};
use ringmq::metrics::{self, Counter, Counters};
use ringmq::shard::{
    Control, Ends, Listening, Live, NewSettings, NoAnswer, Order, Setup, Shard, Stopping, Storing, Turn, desk,
};
use ringmq::topic::{self, HashKeys};
use ringmq::transport::Layers;

use crate::data::Data;
use crate::oracle::{Drops, Millis};
use crate::plan::Plan;

/// What a shard's thread is doing.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Thread {
    Running,
    /// In the kernel, until something completes or the deadline.
    Waiting(Millis),
    /// At its end, after a stop.
    Over,
}

struct Node {
    shard: Shard<SimIo>,
    thread: Thread,
    control: Control<()>,
}

impl Node {
    /// As a doorbell does it.
    fn wake(&mut self) {
        self.shard.bell().awake();
        self.thread = Thread::Running;
    }
}

pub struct Cluster {
    nodes: Vec<Node>,
    pub world: Rc<RefCell<World>>,
    /// As the shards know them.
    pub listeners: Vec<Listening>,
    /// What clients may do at any of them.
    pub rules: Option<Rules>,
    pub keys: HashKeys,
    pool: Arc<Pool>,
    memory: [u64; CLASSES],
    counters: Arc<[Counters]>,
    /// The counters of those before it on the same disk.
    former: Vec<Arc<[Counters]>>,
    /// Where it has a data directory.
    pub data: Option<Data>,
}

impl Cluster {
    /// Everybody may do everything.
    pub fn new(plan: &Plan, rng: &mut Rng, now: Millis) -> Cluster {
        Cluster::guarded(plan, rng, now, |_| Access::default())
    }

    /// `access` is what each shard knows about it.
    pub fn guarded(plan: &Plan, rng: &mut Rng, now: Millis, access: impl Fn(u16) -> Access) -> Cluster {
        let world = Rc::new(RefCell::new(World::new(plan.shards, plan.faults.clone(), rng.bits())));
        Cluster::start(plan, (world, plan.shards), rng, now, access)
    }

    /// On the disk of a world.
    fn start(
        plan: &Plan,
        (world, shards): (Rc<RefCell<World>>, u16),
        rng: &mut Rng,
        now: Millis,
        access: impl Fn(u16) -> Access,
    ) -> Cluster {
        let pool = Pool::new(plan.memory);
        let counters: Arc<[Counters]> = (0..shards).map(|_| Counters::default()).collect();
        let stopping = Arc::new(Stopping::default());
        let mut keys = [rng.bits(), rng.bits(), rng.bits(), rng.bits()];
        let (data, mut stores): (_, Vec<Option<Storing>>) = match &plan.data {
            None => (None, (0..shards).map(|_| None).collect()),
            Some(of) => {
                let (data, stores) = Data::open(of, &world, shards, keys, now, rng.fork());
                keys = data.keys();
                (Some(data), stores.into_iter().map(Some).collect())
            }
        };
        let listeners: Vec<Listening> = vec![Layers::plain().into()];
        let ends = Ends::build(shards, plan.mesh);
        let nodes = ends.into_iter().enumerate().map(|(id, ends)| {
            let setup = Setup {
                id: id as u16,
                shards,
                limits: plan.limits,
                keys,
                ends,
                pool: pool.clone(),
                counters: counters.clone(),
                listeners: listeners.clone(),
                stopping: stopping.clone(),
                access: access(id as u16),
                options: plan.options.clone(),
                store: stores[id].take(),
            };
            let (control, desk) = desk();
            let mut shard = Shard::new(setup, SimIo::new(id as u16, world.clone()), now).with_desk(desk);
            if plan.data.as_ref().is_some_and(|data| data.is_mirrored) {
                shard.mirror_log();
            }
            Node { shard, thread: Thread::Running, control }
        });
        Cluster {
            nodes: nodes.collect(),
            world: world.clone(),
            listeners,
            rules: None,
            keys,
            pool,
            memory: plan.memory,
            counters,
            former: Vec::new(),
            data,
        }
    }

    /// All of it ends at once; another one starts on the same disk.
    pub fn crash(&mut self, plan: &Plan, crash: Crash, shards: u16, rng: &mut Rng, now: Millis) {
        drop((std::mem::take(&mut self.nodes), self.data.take()));
        let mut former = std::mem::take(&mut self.former);
        former.push(self.counters.clone());
        let world = self.world.clone();
        world.borrow_mut().crash(crash, shards);
        let next = Cluster::start(plan, (world, shards), rng, now, |_| Access::default());
        *self = Cluster { former, ..next };
    }

    /// What the threads beside the shards do; `at_once` whatever is to be done.
    pub fn tend_data(&mut self, at_once: bool) {
        if let Some(data) = &mut self.data {
            data.tend(at_once);
        }
    }

    /// Whether the process would end by itself: what it keeps cannot be written, or it cannot start.
    pub fn has_failed(&self) -> bool {
        self.data.as_ref().is_some_and(Data::has_failed)
    }

    /// Whether clients can come in.
    pub fn is_open(&self) -> bool {
        self.data.as_ref().is_none_or(Data::is_open)
    }

    /// Where the log of a shard and its memory differ.
    pub fn differs_from_log(&mut self, at: usize) -> Option<String> {
        self.nodes[at].shard.differs_from_log()
    }

    /// The home of a client.
    pub fn home(&self, client_id: &str) -> u16 {
        topic::shard_of(&self.keys, client_id, self.nodes.len() as u16)
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// One turn, unless the shard's thread sleeps on. True if there may be more to do.
    pub fn turn(&mut self, at: usize, now: Millis) -> bool {
        let node = &mut self.nodes[at];
        match node.thread {
            Thread::Over => return false,
            Thread::Running => {}
            Thread::Waiting(deadline) => {
                if deadline > now && !self.world.borrow().has_completions(at as u16) {
                    return false;
                }
                node.wake();
            }
        }
        match node.shard.turn(now) {
            Turn::Busy => true,
            Turn::Idle { deadline } => {
                if node.shard.bell().sleep() {
                    node.thread = Thread::Waiting(deadline);
                    deadline <= now
                } else {
                    true
                }
            }
            Turn::Over => {
                node.thread = Thread::Over;
                true
            }
        }
    }

    /// Wakes the shards that have not taken all that completed, or `all`; false if there are none.
    pub fn wake(&mut self, all: bool) -> bool {
        let mut any = false;
        for (at, node) in self.nodes.iter_mut().enumerate() {
            if all || self.world.borrow().has_untaken(at as u16) {
                any = true;
                if let Thread::Waiting(_) = node.thread {
                    node.wake();
                }
            }
        }
        any
    }

    /// Whether every thread sleeps and the kernel has nothing for any of them.
    pub fn is_quiet(&self, now: Millis) -> bool {
        self.nodes.iter().enumerate().all(|(at, node)| match node.thread {
            Thread::Running => false,
            Thread::Waiting(deadline) => deadline > now && self.world.borrow().is_quiet(at as u16),
            Thread::Over => true,
        })
    }

    /// The next moment at which a thread wakes by itself.
    pub fn next_deadline(&self) -> Option<Millis> {
        let deadlines = self.nodes.iter().filter_map(|node| match node.thread {
            Thread::Waiting(deadline) => Some(deadline),
            Thread::Running | Thread::Over => None,
        });
        deadlines.min()
    }

    pub fn threads(&mut self) -> String {
        let threads: Vec<String> =
            self.nodes.iter_mut().map(|node| format!("{:?} {:?}", node.thread, node.shard.live())).collect();
        threads.join("; ")
    }

    /// Puts an order on every desk, and wakes the shards as their bells would.
    pub fn order(&mut self, order: impl Fn() -> Order<()>) {
        for at in 0..self.nodes.len() {
            self.order_of(at, order()).expect("a desk has room");
        }
    }

    /// The same on the desk of one shard.
    pub fn order_of(&mut self, at: usize, order: Order<()>) -> Result<(), NoAnswer> {
        self.nodes[at].control.put(order)?;
        self.nodes[at].wake();
        Ok(())
    }

    /// Puts what became of a login on the desk of a shard, as a thread that hashes does.
    pub fn post(&mut self, at: usize, answer: Answer) {
        assert!(self.nodes[at].control.post().put(answer), "the shard is there");
        self.nodes[at].wake();
    }

    /// Other limits for everybody, and the listeners and the rules as they are here.
    pub fn settle(&mut self, limits: Limits, sys_interval_ms: Millis) {
        let door = Door { rules: self.rules.as_ref().map(|_| 0), ..Door::default() };
        let policy = Policy {
            rules: self.rules.iter().cloned().collect(),
            doors: vec![door; self.listeners.len()].into(),
            ..Policy::default()
        };
        let listeners = self.listeners.clone();
        let settings = NewSettings { limits, listeners, policy: Arc::new(policy), sys_interval_ms };
        self.order(|| Order::Settings(Box::new(settings.clone())));
    }

    /// Whether every shard has done what it was told.
    pub fn is_obeyed(&mut self) -> bool {
        self.nodes.iter_mut().all(|node| node.control.is_answered())
    }

    /// Tells a shard to drain.
    pub fn stop(&mut self, at: usize) {
        self.order_of(at, Order::Drain).expect("a desk has a place for it");
    }

    /// Whether a connection has left the shard that accepted it and has not been touched by its home.
    pub fn is_handing_off(&self) -> bool {
        self.total(|c| &c.hand_offs_total) > self.world.borrow().tally().moved
    }

    pub fn is_stopped(&self) -> bool {
        self.nodes.iter().all(|node| node.thread == Thread::Over)
    }

    pub fn live(&mut self) -> Vec<Live> {
        self.nodes.iter_mut().map(|node| node.shard.live()).collect()
    }

    pub fn sum(&self, of: impl Fn(&Counters) -> &Counter) -> u64 {
        metrics::sum(&self.counters, of)
    }

    /// With those of the clusters before.
    pub fn total(&self, of: impl Fn(&Counters) -> &Counter) -> u64 {
        self.sum(&of) + self.former.iter().map(|counters| metrics::sum(counters, &of)).sum::<u64>()
    }

    /// All counters, added up over the shards, and over the clusters before if they are `of_all`.
    pub fn counter_values(&self, of_all: bool) -> Vec<u64> {
        let mut sums = vec![0u64; Counters::NAMES.len()];
        let former = self.former.iter().filter(|_| of_all).flat_map(|counters| counters.iter());
        for shard in self.counters.iter().chain(former) {
            for (sum, value) in sums.iter_mut().zip(shard.values()) {
                *sum = sum.wrapping_add(value);
            }
        }
        sums
    }

    pub fn drops(&self) -> Drops {
        Drops {
            unqueued: self.total(|c| &c.dropped_send_buffer_total),
            queued: self.total(|c| &c.dropped_queue_full_total)
                + self.total(|c| &c.dropped_queue_oldest_total)
                + self.total(|c| &c.dropped_memory_total),
            too_large: self.total(|c| &c.dropped_too_large_total),
            retained: self.total(|c| &c.dropped_retained_full_total),
            no_member: self.total(|c| &c.dropped_no_member_total),
            sessions: self.policy_ended_sessions(),
            refused: self.refused_sessions(),
            overtaken: self.total(|c| &c.retained_overtaken_total),
        }
    }

    /// CONNECTs refused for want of memory so far; each is counted before anybody can see it.
    pub fn refused_sessions(&self) -> u64 {
        self.total(|c| &c.sessions_refused_total)
    }

    /// Sessions that the policy of full queues has ended so far; each is counted before anybody can see it.
    pub fn policy_ended_sessions(&self) -> u64 {
        self.total(|c| &c.sessions_ended_queue_full_total)
    }

    /// Gauges that must be zero once nobody is left.
    pub fn gauges_left(&self) -> Vec<(&'static str, u64)> {
        let gauges: [(&'static str, u64); 11] = [
            ("connections", self.sum(|c| &c.connections)),
            ("clients_connected", self.sum(|c| &c.clients_connected)),
            ("sessions", self.sum(|c| &c.sessions)),
            ("subscriptions", self.sum(|c| &c.subscriptions)),
            ("subscriptions_shared", self.sum(|c| &c.subscriptions_shared)),
            ("queued_messages", self.sum(|c| &c.queued_messages)),
            ("queued_bytes", self.sum(|c| &c.queued_bytes)),
            ("session_bytes", self.sum(|c| &c.session_bytes)),
            ("subscription_bytes", self.sum(|c| &c.subscription_bytes)),
            ("buffers_held", self.sum(|c| &c.buffers_held)),
            ("connections_paused", self.sum(|c| &c.connections_paused)),
        ];
        gauges.into_iter().filter(|(_, value)| *value != 0).collect()
    }

    /// Bytes that the shards have leased of a class.
    pub fn leased(&self, class: Class) -> i64 {
        self.memory[class as usize] as i64 - self.pool.free(class)
    }

    /// Ends the shards; what they left behind in the kernel and the pools.
    pub fn end(self) -> Vec<String> {
        for at in 0..self.nodes.len() {
            self.world.borrow_mut().close_listeners(at as u16);
        }
        let Cluster { nodes, world, pool, memory, data, .. } = self;
        drop((nodes, data));
        let mut found = world.borrow().faults_at_rest();
        for (class, bytes) in Class::ALL.into_iter().zip(memory) {
            if pool.free(class) != bytes as i64 {
                found.push(format!("{class:?} has {} bytes of {bytes} free at the end", pool.free(class)));
            }
        }
        found
    }
}
