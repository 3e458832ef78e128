//! One run: carries a plan out, brings it to rest again and again, and says what was wrong. `crashes` has what runs with a data
//! directory do besides, `ends` how a run ends.

mod crashes;
mod ends;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ringmq::io::sim::{Crash, FaultCounts, Odds, Rng};

use crate::client::{Client, Env, Sums};
use crate::cluster::Cluster;
use crate::counters::Witness;
use crate::oracle::{Checker, Checks, ConnIx, Drops, Millis, MsgId, Oracle, SessionIx, matches};
use crate::orders::Orders;
use crate::packet::Version;
use crate::plan::{
    AtAnswers, ClientPlan, ConnectPlan, Ending, FILTERS, Farewell, Leave, Plan, PublishPlan, TOPICS, What,
};
use crate::trace::Trace;

/// What became of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Fine,
    /// A checker found something that must not be.
    Wrong(String),
    /// It did not come to rest.
    Stuck(String),
    /// A panic of the broker or of the harness.
    Crash(String),
}

impl Verdict {
    /// Failures are the same when their kind and the first words are.
    pub fn kind(&self) -> &'static str {
        match self {
            Verdict::Fine => "fine",
            Verdict::Wrong(_) => "wrong",
            Verdict::Stuck(_) => "stuck",
            Verdict::Crash(_) => "crash",
        }
    }

    pub fn text(&self) -> &str {
        match self {
            Verdict::Fine => "",
            Verdict::Wrong(text) | Verdict::Stuck(text) | Verdict::Crash(text) => text,
        }
    }
}

/// Figures of a run.
#[derive(Clone, Default, Debug)]
pub struct Figures {
    pub simulated_ms: u64,
    pub published: u64,
    pub clients: Sums,
    pub checks: Checks,
    pub turns: u64,
    pub rests: u64,
    /// Steps that moved the clock.
    pub jumps: u64,
    /// Crashes, and those of them that came before all shards served.
    pub crashes: u64,
    pub crashes_in_start: u64,
    pub crashes_in_stop: u64,
    /// Crashes when a client had just read an answer.
    pub crashes_at_answers: u64,
    /// Starts after a stop in order.
    pub starts_again: u64,
    /// Shards that were told to stop while a connection was on its way home.
    pub stops_in_hand_off: u64,
    pub faults: FaultCounts,
    /// Sums of the broker's counters, in their order.
    pub counters: Vec<u64>,
}

pub struct Outcome {
    pub verdict: Verdict,
    pub trace: Vec<String>,
    pub hash: u64,
    pub figures: Figures,
}

/// Rounds in which everybody acts once; far more than any run needs to come to rest.
const ROUNDS_MAX: usize = 200_000;
thread_local! {
    /// Where the last panic of this thread was, for the verdict.
    static PANICKED_AT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// From now on panics say nothing by themselves; the verdict of their run does, with a backtrace if `RUST_BACKTRACE` asks
/// for one.
pub fn keep_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(|at| format!("at {}:{}", at.file(), at.line())).unwrap_or_default();
        let backtrace = std::backtrace::Backtrace::capture();
        let text = match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("{place}\n{backtrace}"),
            _ => place,
        };
        PANICKED_AT.with(|at| *at.borrow_mut() = text);
    }));
}

/// Longer than the broker lets a closing connection or a takeover wait.
const REST_MS: Millis = 3_500;

enum Failure {
    Wrong,
    Stuck(String),
}

type Result<T> = std::result::Result<T, Failure>;

struct Run<'a> {
    plan: &'a Plan,
    rng: Rng,
    cluster: Cluster,
    orders: Orders,
    clients: Vec<Client>,
    /// Looks at the retained store.
    watcher: usize,
    oracle: Oracle,
    trace: &'a mut Trace,
    figures: &'a mut Figures,
    resting: bool,
    stopping: bool,
    /// The cluster serves, as far as the oracle knows.
    open: bool,
}

/// Carries a plan out. The trace is kept if `traced`.
pub fn execute(plan: &Plan, trace: &mut Trace) -> Outcome {
    let mut figures = Figures::default();
    let result = catch_unwind(AssertUnwindSafe(|| Run::new(plan, trace, &mut figures).carry_out()));
    let verdict = match result {
        Ok(verdict) => verdict,
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()))
                .unwrap_or_default();
            let at = PANICKED_AT.with(|at| std::mem::take(&mut *at.borrow_mut()));
            // A broken rule of the kernel boundary is found by an assertion of the fake, but it is no crash.
            if text.starts_with("io-rule") || text.starts_with(Checker::Disk.name()) {
                Verdict::Wrong(text)
            } else {
                Verdict::Crash(format!("{text}\n{at}"))
            }
        }
    };
    Outcome { verdict, trace: std::mem::take(&mut trace.lines), hash: trace.hash, figures }
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, trace: &'a mut Trace, figures: &'a mut Figures) -> Run<'a> {
        let mut rng = Rng::new(plan.seed ^ 0x5EED);
        let mut names: Vec<String> = (0..plan.clients.len()).map(|ix| format!("c{ix}")).collect();
        names.push("watcher".into());
        let mut clients: Vec<Client> = plan
            .clients
            .iter()
            .enumerate()
            .map(|(ix, client)| Client::new(ix, client.clone(), rng.fork()))
            .collect();
        let watcher = clients.len();
        let sober = ClientPlan { version: Version::V5, reads: 10_000, writes: 10_000, acks: 10_000 };
        clients.push(Client::new(watcher, sober, rng.fork()));
        clients[watcher].name = "watcher".into();
        let mut oracle = Oracle::new(names, plan.limits.session_expiry_max_s);
        oracle.may_refuse_sessions = plan.is_short_of_sessions();
        oracle.queue_holds = plan.queue_holds();
        oracle.crashes.keeps = plan.data.is_some();
        oracle.now = 1_000;
        let cluster = Cluster::new(plan, &mut rng, oracle.now);
        let orders = Orders::new(plan);
        Run {
            plan,
            rng,
            cluster,
            orders,
            clients,
            watcher,
            oracle,
            trace,
            figures,
            resting: false,
            stopping: false,
            open: plan.data.is_none(),
        }
        .at_home()
    }

    /// The oracle learns where clients are at home.
    fn at_home(mut self) -> Run<'a> {
        self.oracle.crashes.shards = self.cluster.len();
        self.oracle.crashes.homes =
            self.clients.iter().map(|client| self.cluster.home(&client.name)).collect();
        self
    }

    fn carry_out(mut self) -> Verdict {
        let result = self.all();
        self.figures.simulated_ms = self.oracle.now;
        self.figures.published = self.oracle.messages.len() as u64;
        self.figures.clients = self.sums();
        self.figures.checks = self.oracle.checks.clone();
        self.figures.turns = self.cluster.total(|c| &c.turns_total);
        self.figures.faults = self.cluster.world.borrow().fault_counts();
        self.figures.counters = self.cluster.counter_values(true);
        match result {
            Ok(()) => {
                let found = self.cluster.end();
                match found.first() {
                    None => Verdict::Fine,
                    Some(_) => Verdict::Wrong(format!("{}: {}", Checker::Left.name(), found.join("\n"))),
                }
            }
            Err(Failure::Wrong) => Verdict::Wrong(self.oracle.wrong.join("\n")),
            Err(Failure::Stuck(why)) => Verdict::Stuck(why),
        }
    }

    fn all(&mut self) -> Result<()> {
        for step in &self.plan.steps {
            match &step.what {
                What::Jump { ms } => {
                    self.note(|| format!("-- {} ms pass", ms));
                    self.figures.jumps += 1;
                    self.advance(*ms);
                }
                What::Rest => self.rest_and_check()?,
                What::Crash { power, shards } => self.crash(*power, *shards)?,
                what => self.with(step.client, |client, env| client.step(env, what)),
            }
            let gap = self.rng.below(self.plan.gap + 1);
            self.work(gap)?;
        }
        let ending = self.plan.data.as_ref().map_or(Ending::Nothing, |data| data.ending);
        if ending != Ending::Nothing {
            self.start_again(ending)?;
        }
        if !self.plan.stop_at_once {
            self.finish()?;
        }
        self.stop(None)
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        self.trace.line(&self.oracle, text);
    }

    fn with<T>(&mut self, client: usize, act: impl FnOnce(&mut Client, &mut Env<'_>) -> T) -> T {
        let shards = self.cluster.len() as u16;
        self.oracle.drops.sessions = self.cluster.policy_ended_sessions();
        self.oracle.drops.refused = self.cluster.refused_sessions();
        let mut world = self.cluster.world.borrow_mut();
        let mut env = Env {
            world: &mut world,
            oracle: &mut self.oracle,
            trace: self.trace,
            limits: &self.plan.limits,
            resting: self.resting,
            stopping: self.stopping,
            shards,
        };
        act(&mut self.clients[client], &mut env)
    }

    fn sound(&self) -> Result<()> {
        if self.oracle.wrong.is_empty() { Ok(()) } else { Err(Failure::Wrong) }
    }

    fn advance(&mut self, ms: Millis) {
        for client in 0..self.clients.len() {
            self.with(client, |client, env| client.note_time(env));
        }
        self.oracle.now += ms;
        for client in &mut self.clients {
            client.time_moved(self.oracle.now);
        }
    }

    /// So many things happen, in an order that the seed says.
    fn work(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            self.tend_data()?;
            if let Some(ordered) = self.orders.step(&mut self.cluster, self.plan) {
                self.note(|| format!("-- all shards are told: {ordered}"));
            }
            match self.rng.below(100) {
                0..50 => {
                    let at = self.rng.below(self.cluster.len());
                    self.turn(at);
                }
                50..85 => {
                    let client = self.rng.below(self.clients.len());
                    self.with(client, |client, env| client.look(env));
                    self.crash_at_answer(client)?;
                    self.join_in(client);
                    self.look_up(client);
                }
                85..98 => {
                    let at = self.rng.below(self.cluster.len());
                    self.cluster.world.borrow_mut().progress(at as u16);
                }
                _ => {
                    let ms = self.rng.between(1, 5) as Millis;
                    self.advance(ms);
                }
            }
        }
        self.sound()
    }

    /// Somebody publishes to what a client was just told that it is subscribed to: the narrowest case of what a SUBACK
    /// promises.
    fn join_in(&mut self, client: usize) {
        for subscription in self.clients[client].take_acknowledged() {
            if client == self.watcher || self.stopping {
                continue;
            }
            let filter = self.oracle.subscriptions[subscription].matches.clone();
            let topics: Vec<usize> =
                (0..TOPICS.len()).filter(|&topic| matches(&filter, TOPICS[topic])).collect();
            if topics.is_empty() || !self.rng.happens(self.plan.chorus) {
                continue;
            }
            let publisher = self.rng.below(self.watcher);
            let plan = PublishPlan {
                topic: *self.rng.pick(&topics),
                qos: self.rng.below(2) as u8,
                retain: self.rng.below(4) == 0,
                clear: false,
                expiry_s: None,
                size: 0,
                alias: false,
                property: false,
                count: 1,
            };
            self.with(publisher, |client, env| {
                client.step(env, &What::Publish(plan));
                client.look(env)
            });
        }
    }

    /// Somebody subscribes to the topic of a message with RETAIN that was just acknowledged: the narrowest case of what its
    /// acknowledgement promises. It has to be somebody who cannot get the message in another way.
    fn look_up(&mut self, client: usize) {
        for message in self.clients[client].take_stored() {
            if client == self.watcher || self.stopping || !self.rng.happens(self.plan.echo) {
                continue;
            }
            let topic = self.oracle.messages[message].topic.clone();
            let first = self.rng.below(self.watcher);
            let subscriber = (0..self.watcher).map(|n| (first + n) % self.watcher).find(|&at| {
                let up = self.clients[at].up();
                at != client && up.is_some_and(|(session, _)| !self.oracle.may_get(session, message))
            });
            let Some(subscriber) = subscriber else { continue };
            let filters: Vec<usize> =
                (0..FILTERS.len()).filter(|&filter| matches(FILTERS[filter], &topic)).collect();
            let filter = (*self.rng.pick(&filters), self.rng.below(3) as u8);
            self.with(subscriber, |client, env| {
                client.step(env, &What::Subscribe { filters: vec![filter], identifier: None });
                client.look(env)
            });
        }
    }

    /// Everybody acts once. True if anything happened.
    fn round(&mut self) -> bool {
        let mut happened = false;
        let (shards, clients) = (self.cluster.len(), self.clients.len());
        let first = self.rng.below(shards);
        for at in (0..shards).map(|n| (first + n) % shards) {
            self.cluster.world.borrow_mut().progress(at as u16);
            happened |= self.turn(at);
        }
        let first = self.rng.below(clients);
        for at in (0..clients).map(|n| (first + n) % clients) {
            happened |= self.with(at, |client, env| client.look(env));
            self.join_in(at);
            self.look_up(at);
        }
        happened
    }

    /// Until nothing happens any more, and would not within [`REST_MS`].
    fn rest(&mut self) -> Result<()> {
        self.figures.rests += 1;
        self.undisturbed(|run| {
            let horizon = run.oracle.now + REST_MS;
            let (mut rounds, mut noticed) = (0, false);
            loop {
                if run.bounded_round(&mut rounds)? || !run.open || !run.cluster.is_quiet(run.oracle.now) {
                    if run.open || !run.cluster.is_quiet(run.oracle.now) {
                        continue;
                    }
                    run.advance(1); // the shards look whether they may serve
                    continue;
                }
                // Before time helps; a log that waits for its pace has a right to.
                let waits_for_log = run.cluster.sum(|c| &c.store_waiting_bytes) > 0;
                if !waits_for_log && !std::mem::replace(&mut noticed, true) {
                    run.notice()?;
                }
                match run.cluster.next_deadline().filter(|at| *at <= horizon) {
                    Some(at) => run.advance(at.saturating_sub(run.oracle.now)),
                    None => break,
                }
            }
            let waiting: Vec<String> = run.clients.iter().filter_map(Client::unsettled).collect();
            if !run.cluster.is_obeyed() {
                return Err(Failure::Stuck("an order has no answer".to_owned()));
            }
            if !waiting.is_empty() {
                return Err(Failure::Stuck(format!("{}; {}", waiting.join(", "), run.cluster.threads())));
            }
            run.advance(0);
            let connected = run.connected();
            run.oracle.all_on_disk(&connected);
            run.check_disk();
            Ok(())
        })
    }

    /// All is quiet: the shards take what completed without waking them, sends for whose end nobody waits. If that makes one
    /// send something, it was waited for after all.
    fn notice(&mut self) -> Result<()> {
        self.undisturbed(|run| {
            let sent = run.cluster.world.borrow().tally().sent;
            // A send that is blocked may end at any time, and that would look like one that was waited for.
            let short = std::mem::take(&mut run.cluster.world.borrow_mut().faults.short_send);
            let mut rounds = 0;
            while run.cluster.wake(rounds == 0) {
                run.bounded_round(&mut rounds)?;
            }
            run.cluster.world.borrow_mut().faults.short_send = short;
            match run.cluster.world.borrow().tally().sent - sent {
                0 => Ok(()),
                more => Err(Failure::Stuck(format!("{more} bytes waited for a send whose end woke nobody"))),
            }
        })
    }

    /// No connection is reset meanwhile, and clients read.
    fn undisturbed(&mut self, work: impl FnOnce(&mut Run<'a>) -> Result<()>) -> Result<()> {
        let rested = std::mem::replace(&mut self.resting, true);
        let reset = std::mem::take(&mut self.cluster.world.borrow_mut().faults.reset);
        work(self)?;
        self.resting = rested;
        self.cluster.world.borrow_mut().faults.reset = reset;
        Ok(())
    }

    /// One of [`ROUNDS_MAX`] rounds; whether something happened in it.
    fn bounded_round(&mut self, rounds: &mut usize) -> Result<bool> {
        self.tend_data()?;
        let happened = self.round();
        self.sound()?;
        *rounds += 1;
        if *rounds > ROUNDS_MAX {
            let threads = self.cluster.threads();
            return Err(Failure::Stuck(format!("no rest after {rounds} rounds: {threads}")));
        }
        Ok(happened)
    }

    fn drops(&self) -> Drops {
        self.cluster.drops()
    }

    fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for client in &self.clients {
            sums.add(&client.sums);
        }
        sums
    }

    /// `stored` is what the retained store holds, where it was just looked at.
    fn check_counters(&mut self, stored: Option<usize>) {
        let live = self.cluster.live();
        let charged = live.iter().map(|live| live.retained_bytes).sum();
        let world = self.cluster.world.borrow();
        let witness = Witness {
            plan: self.plan,
            tally: world.tally(),
            faults: world.fault_counts(),
            clients: self.sums(),
            connected: self.connected().len() as u64,
            open: world.open_sockets() as u64,
            charged,
            stored: stored.map(|stored| stored as u64),
            values: self.cluster.counter_values(false),
            crashed: !self.oracle.crashes.at.is_empty(),
        };
        for (at, live) in live.iter().enumerate() {
            let (charged, sending) = (live.buffers, world.sending(at as u16));
            self.oracle.check(Checker::Counters, charged >= sending, |_| {
                format!("shard {at} has charged {charged} bytes of buffers, but sends {sending}")
            });
        }
        drop(world);
        witness.check(&mut self.oracle);
    }

    fn connected(&self) -> Vec<(SessionIx, ConnIx)> {
        self.clients.iter().filter_map(Client::up).collect()
    }

    fn rest_and_check(&mut self) -> Result<()> {
        self.note(|| "-- rest".into());
        self.rest()?;
        for client in 0..self.clients.len() {
            self.with(client, Client::settle);
        }
        self.oracle.takeover_may_force |= self.cluster.sum(|c| &c.takeovers_forced_total) > 0;
        let (connected, drops) = (self.connected(), self.drops());
        self.oracle.at_rest(&connected, drops);
        self.notice()?;
        self.check_counters(None);
        self.sound()?;
        self.look_at_store(&connected)
    }

    /// A new subscriber of everything sees the retained store.
    fn look_at_store(&mut self, connected: &[(SessionIx, ConnIx)]) -> Result<()> {
        let watcher = self.watcher;
        let plan = self.connection(0, true);
        self.with(watcher, |client, env| client.connect(env, plan));
        self.rest()?;
        self.with(watcher, |client, env| client.subscribe(env, vec![("#".into(), 0)], None));
        self.rest()?;
        let up = self.clients[watcher].up().map(|(session, _)| session);
        let sees =
            |session| self.oracle.subscriptions.iter().any(|s| s.session == session && s.acked.is_some());
        if self.plan.is_short_of_sessions() && !up.is_some_and(sees) {
            self.with(watcher, |client, env| client.step(env, &What::Leave(Leave::Disconnect)));
            return self.rest().and_then(|()| self.sound());
        }
        let Some(session) = up else {
            return Err(Failure::Stuck("the watcher is not connected".into()));
        };
        let seen: BTreeMap<String, MsgId> = self.oracle.sessions[session]
            .last_retained
            .iter()
            .filter_map(|((topic, _), (_, id))| id.map(|id| (topic.clone(), id)))
            .filter(|(_, id)| !self.oracle.messages[*id].payload.is_empty())
            .collect();
        self.notice()?;
        // Wills may have come while this looked, and the store may have had no room for them.
        let drops = self.drops();
        let before = std::mem::replace(&mut self.oracle.drops, drops);
        let had_room = before.retained == self.oracle.drops.retained;
        self.oracle.store_at_rest(&seen, connected);
        // With $SYS the server's own topics are in it as well, and what expired goes some time later.
        let exact = had_room
            && self.plan.options.sys_interval_ms == 0
            && self.oracle.messages.iter().all(|message| message.expiry_s.is_none());
        self.check_counters(exact.then_some(seen.len()));
        self.with(watcher, |client, env| client.leave(env, Leave::Disconnect));
        self.rest()?;
        self.sound()
    }

    fn connection(&mut self, expiry_s: u32, clean: bool) -> ConnectPlan {
        ConnectPlan {
            shard: self.rng.below(self.cluster.len()) as u16,
            clean,
            expiry_s,
            keep_alive_s: 0,
            will: None,
            receive_maximum: None,
            topic_alias_maximum: 0,
            packet_size_maximum: None,
            eager: false,
        }
    }
}
