//! One worker: a thread, its ring, its share of the clients, and the stages through which a run passes.
//!
//! `turn.rs` has one turn of its loop, `storm.rs` what cuts connections on purpose and what cleans up at the end.

use std::sync::mpsc::Sender;

use socket2::SockAddr;

use super::conn::{Conn, Phase};
use super::control::{Control, Stage};
use super::dispatch::Links;
use super::meter::{Interval, Totals};
use super::plan::{self, Role};
use super::slow::SlowReaders;
use super::storm::Storm;
use super::traffic::Traffic;
use crate::failure::Failure;
use crate::procfs::ThreadUsage;
use crate::ring::Ring;
use crate::schedule::Pacer;
use crate::spec::{Focus, Load, Pattern, Spec, Waiting};
use crate::sys;

/// Connections of one worker that may be under way at once; keeps the listener's backlog from overflowing.
const CONNECTING_MAX: usize = 256;
/// Messages of an open loop that are staged before they are sent, so that a late generator does not get later still.
const BATCH_MAX: usize = 64;
/// The longest sleep: stages, the stop flag and Keep Alive are looked at this often.
const NAP_NS: u64 = 20_000_000;
/// A short sleep, while other workers or stragglers are waited for.
const DOZE_NS: u64 = 1_000_000;
/// A closed loop in which nothing moves for so long has lost what is outstanding.
const STALL_NS: u64 = 1_000_000_000;
/// How long after the end an overtaxed generator still sends what was due before. What remains counts as unsent.
const STRAGGLE_NS: u64 = 2_000_000_000;
const SECOND_NS: f64 = 1e9;

/// What workers tell the coordinator while they run.
pub enum Event {
    Interval(Interval),
    /// A connection failed, and the run goes on.
    Trouble(Failure),
    /// Connections that have become ready since the last time.
    Connected(usize),
}

/// What a worker has to say at the end.
pub struct WorkerReport {
    pub index: u32,
    pub cpu: usize,
    pub totals: Totals,
    pub load: WorkerLoad,
    pub connections: u32,
}

/// What a worker's thread did with the measured time, as shares of it.
#[derive(Clone, Copy, Default, Debug)]
pub struct WorkerLoad {
    /// It worked.
    pub ran: f64,
    /// It was ready to, and had to wait for its CPU.
    pub waited: f64,
    /// The part of that which was somebody else's doing.
    pub undue: f64,
}

impl WorkerLoad {
    /// Of what a thread used in `wall_ns`.
    pub fn of(usage: &ThreadUsage, wall_ns: u64) -> WorkerLoad {
        let share = |ns: u64| ns as f64 / wall_ns.max(1) as f64;
        WorkerLoad {
            ran: share(usage.ran_ns),
            waited: share(usage.waited_ns),
            undue: share(usage.undue_wait_ns()),
        }
    }
}

/// See the top of the file.
pub struct Worker<'a> {
    pub(super) spec: &'a Spec,
    pub(super) control: &'a Control,
    pub(super) index: u32,
    cpu: usize,
    pub(super) events: Sender<Event>,
    pub(super) ring: Ring,
    pub(super) conns: Vec<Conn>,
    pub(super) traffic: Traffic<'a>,
    pub(super) links: Links,
    pub(super) dirty: Vec<u32>,
    /// Bytes of MQTT that a layer has unwrapped, kept for its memory.
    pub(super) plain: Vec<u8>,
    /// Time spent looking for work without finding any.
    pub(super) spun_ns: u64,
    pub(super) spinning: bool,
    /// When this thread next looks how late it is by itself.
    pub(super) probe_ns: u64,
    /// The last turn had more than one completion.
    pub(super) busy_turn: bool,
    pub(super) swept: usize,
    pub(super) next_sweep_ns: u64,
    pub(super) slow: SlowReaders,
    pub(super) storm: Option<Storm>,
    /// Sessions are being removed: connect only to end them.
    pub(super) forgetting: bool,
    load: WorkerLoad,
}

impl<'a> Worker<'a> {
    /// Pins the calling thread and sets everything up; no connection is made yet.
    pub fn new(
        spec: &'a Spec,
        control: &'a Control,
        index: u32,
        events: Sender<Event>,
    ) -> Result<Worker<'a>, Failure> {
        let cpu = spec.cores[index as usize % spec.cores.len()];
        let machine = |what: String| Failure::Machine { what };
        sys::pin_thread(&[cpu])
            .map_err(|e| machine(format!("cannot run on CPU {cpu}: {e} (see --cores)")))?;
        sys::sharpen_timers();
        let roles = plan::clients_of(spec, index);
        let targets: Vec<SockAddr> = spec.target.addresses.iter().map(|&a| a.into()).collect();
        let ring = Ring::new(roles.len().max(1) as u32, targets).map_err(|e| match e.raw_os_error() {
            Some(libc::EMFILE) => {
                Failure::Descriptors { why: "a worker's table of connections is limited too" }
            }
            _ => machine(format!("io_uring cannot be set up: {e} (Linux 6.1 or newer, and not forbidden)")),
        })?;
        control.set_bell(index, ring.bell());
        let mut traffic = Traffic::new(spec, control, index);
        let mut slow = SlowReaders::new(spec.slow_rate);
        let mut conns = Vec::with_capacity(roles.len());
        for (slot, role) in roles.into_iter().enumerate() {
            let is_slow = matches!(role, Role::Subscriber(n) if spec.is_slow(n));
            let local = match role {
                Role::Publisher(n) => traffic.add_publisher(n, slot as u32),
                Role::Subscriber(n) => traffic.add_subscriber(n),
                Role::Idler(_) => 0,
            };
            if is_slow {
                slow.add(slot as u32);
            }
            conns.push(Conn::new(role, local, is_slow));
        }
        Ok(Worker {
            spec,
            control,
            index,
            cpu,
            events,
            ring,
            conns,
            traffic,
            links: Links::default(),
            dirty: Vec::new(),
            plain: Vec::new(),
            spun_ns: 0,
            spinning: false,
            probe_ns: 0,
            busy_turn: false,
            swept: 0,
            next_sweep_ns: 0,
            slow,
            storm: None,
            forgetting: false,
            load: WorkerLoad::default(),
        })
    }

    /// Passes through the whole run. Whatever happens, sessions and retained messages are removed.
    pub fn run(mut self) -> Result<WorkerReport, Failure> {
        let result = self.stages();
        if result.is_err() {
            self.control.fail();
        }
        let cleaned = self.clean_up();
        result.and(cleaned)?;
        let _ = self.events.send(Event::Interval(self.traffic.meter.finish()));
        let totals = std::mem::take(&mut self.traffic.meter.totals);
        let connections = (self.links.ever_up) as u32;
        Ok(WorkerReport { index: self.index, cpu: self.cpu, totals, load: self.load, connections })
    }

    fn stages(&mut self) -> Result<(), Failure> {
        self.connect_all()?;
        self.control.arrive(Stage::Connect);
        if self.reach(Stage::Store)? {
            self.store()?;
            self.control.arrive(Stage::Store);
        }
        if self.reach(Stage::Run)? {
            self.flow()?;
            self.control.arrive(Stage::Run);
        }
        if self.reach(Stage::Settle)? {
            self.settle()?;
            self.control.arrive(Stage::Settle);
        }
        Ok(())
    }

    pub(super) fn now(&self) -> u64 {
        self.control.clock.now()
    }

    /// Whether the broker has closed every connection of this worker: nothing will come any more.
    fn is_cut_off(&self) -> bool {
        self.links.up == 0 && self.storm.is_none() && !self.conns.is_empty()
    }

    /// Serves connections until the coordinator has entered a stage; false if the run is over instead.
    fn reach(&mut self, stage: Stage) -> Result<bool, Failure> {
        while self.control.stage() < stage {
            let now = self.now();
            self.turn(now + DOZE_NS)?;
        }
        Ok(self.control.stage() == stage)
    }

    /// Turns while `more` says so, as long as something moves at least every `drain_s`.
    pub(super) fn turn_while(&mut self, more: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let patience = (self.spec.drain_s * SECOND_NS) as u64;
        let (mut progress, mut moved_at) = (self.traffic.progress(), self.now());
        while more(self) && self.control.stage() < Stage::End && !self.is_cut_off() {
            let now = self.now();
            if self.traffic.progress() != progress {
                (progress, moved_at) = (self.traffic.progress(), now);
            } else if now - moved_at >= patience {
                break;
            }
            self.turn(now + DOZE_NS)?;
        }
        Ok(())
    }

    /// Makes every connection, at the rate that was asked for, and waits for CONNACK and SUBACK.
    fn connect_all(&mut self) -> Result<(), Failure> {
        let began = self.now();
        let tolerant = self.spec.focus == Focus::Connects;
        if tolerant {
            self.traffic.meter.begin(began, began, u64::MAX);
        }
        let mut usage = Busy::begin(began, self.spun_ns);
        let per_ns = self.spec.connect_rate / f64::from(self.spec.workers) / SECOND_NS;
        let silence_ns = (self.spec.connect_timeout_s * SECOND_NS) as u64;
        let (mut opened, mut last_done, mut last_up, mut last_progress) = (0, 0, 0, began);
        while self.links.up + self.links.failed < self.conns.len() {
            let now = self.now();
            if self.control.stage() > Stage::Connect {
                if tolerant {
                    self.load = usage.finish(now, self.spun_ns);
                    self.traffic.meter.last(now);
                }
                return Ok(());
            }
            let mut next_due = u64::MAX;
            while opened < self.conns.len() {
                // Without a rate a connect is due when it begins.
                let due = if per_ns.is_finite() { began + (opened as f64 / per_ns) as u64 } else { now };
                if due > now {
                    next_due = due;
                    break;
                }
                if opened - self.links.answered >= CONNECTING_MAX {
                    break;
                }
                if tolerant && per_ns.is_finite() {
                    self.traffic.meter.late(due, now - due);
                }
                self.open(opened as u32, due)?;
                opened += 1;
            }
            self.turn(next_due.min(now + DOZE_NS))?;
            while let Some(failure) = self.links.failures.pop() {
                if !tolerant {
                    return Err(failure);
                }
                let _ = self.events.send(Event::Trouble(failure));
            }
            if self.links.up > last_up {
                let _ = self.events.send(Event::Connected(self.links.up - last_up));
                last_up = self.links.up;
            }
            let done = self.links.up + self.links.failed;
            if done != last_done {
                (last_done, last_progress) = (done, self.now());
            } else if now.saturating_sub(last_progress) > silence_ns && opened > done {
                if !tolerant {
                    return Err(self.silent());
                }
                let _ = self.events.send(Event::Trouble(self.silent()));
                break;
            }
        }
        let now = self.now();
        if tolerant {
            self.load = usage.finish(now, self.spun_ns);
            self.traffic.meter.last(now);
        }
        Ok(())
    }

    fn silent(&self) -> Failure {
        let target = self.spec.target.name.clone();
        let waited_s = self.spec.connect_timeout_s as u64;
        let any = |phase| self.conns.iter().any(|c| c.phase == phase);
        let what = if any(Phase::AwaitingSuback) {
            "SUBACK"
        } else if any(Phase::AwaitingConnack) {
            "CONNACK"
        } else if any(Phase::Handshake) {
            "answer to the handshake"
        } else {
            return Failure::Unreachable { target, why: format!("no answer within {waited_s} s") };
        };
        Failure::Silent { target, waited_s, what }
    }

    /// In a run about retained messages: publishes each once and waits until the broker has it.
    fn store(&mut self) -> Result<(), Failure> {
        if self.spec.focus != Focus::Retained {
            return Ok(());
        }
        let now = self.now();
        self.traffic.queue_each_stream_once(now);
        self.turn_while(|worker| worker.traffic.unfinished())?;
        // A PINGRESP comes after everything that was sent before: QoS 0 has no other sign of arrival.
        for slot in 0..self.conns.len() {
            let conn = &mut self.conns[slot];
            if matches!(conn.role, Role::Publisher(_)) && conn.phase == Phase::Up {
                crate::wire::encode::pingreq(&mut conn.out);
                self.links.pings += 1;
                self.stage(slot as u32);
            }
        }
        self.turn_while(|worker| worker.links.pings > 0)?;
        self.traffic.publish_counts();
        Ok(())
    }

    /// Lets messages flow from the start time to the end.
    fn flow(&mut self) -> Result<(), Failure> {
        let start = self.control.start_ns();
        if self.spec.focus == Focus::Retained {
            return self.fetch_retained(start);
        }
        let from = start + (self.spec.warmup_s * SECOND_NS) as u64;
        let to = from + (self.spec.duration_s * SECOND_NS) as u64;
        if self.spec.focus != Focus::Connects {
            self.traffic.meter.begin(start, from, to);
        }
        let mut pacer = self.pacer();
        while self.now() < start {
            self.turn(start)?;
        }
        if pacer.is_none() {
            self.traffic.begin();
        }
        if self.spec.focus == Focus::Reconnects {
            self.traffic.meter.begin_reconnects();
            self.storm = Some(Storm::new(from, (self.spec.storm_every_s * SECOND_NS) as u64));
        }
        self.spinning = pacer.is_some() && self.spec.waiting == Waiting::Spin;
        let mut usage = Busy::default();
        let (mut last_progress, mut moved_at) = (self.traffic.progress(), start);
        loop {
            let now = self.now();
            usage.look(now, from, self.spun_ns);
            let stormy = self.step_storm(now, to)?;
            // What was due before the end is sent, if a little late; the verdict knows of it.
            let behind = pacer.as_ref().and_then(Pacer::due_ns).is_some_and(|due| start + due < to);
            if self.control.stopped()
                || self.is_cut_off()
                || (now >= to && !stormy && !behind)
                || (now >= to + STRAGGLE_NS && !stormy)
            {
                break;
            }
            let mut until = if now < to { (now + NAP_NS).min(to) } else { now + DOZE_NS };
            if stormy {
                until = until.min(now + DOZE_NS);
            }
            if let Some(pacer) = &mut pacer {
                until = until.min(self.offer_due(pacer, start, now));
            } else if self.traffic.progress() != last_progress {
                (last_progress, moved_at) = (self.traffic.progress(), now);
            } else if now - moved_at > STALL_NS && self.spec.pattern != Pattern::Swallow {
                self.traffic.forgive();
                moved_at = now;
            }
            self.turn(until)?;
        }
        self.load = match (self.spec.focus, &self.storm) {
            (Focus::Connects, _) => self.load,
            // Between storms there is nothing to be busy with.
            (_, Some(storm)) => storm.load(self.traffic.meter.totals.storm_ns),
            (_, None) => usage.finish(self.now(), self.spun_ns),
        };
        self.spinning = false;
        if let Some(pacer) = pacer.filter(|_| !self.control.stopped() && !self.is_cut_off()) {
            self.traffic.give_up(pacer, start, to);
        }
        self.traffic.stop();
        self.turn_while(|worker| worker.traffic.unfinished())?;
        self.traffic.abandon_backlog();
        self.traffic.publish_counts();
        Ok(())
    }

    /// Subscribes everywhere at once and waits for every retained message.
    fn fetch_retained(&mut self, start: u64) -> Result<(), Failure> {
        self.traffic.meter.begin(start, start, u64::MAX);
        while self.now() < start {
            self.turn(start)?;
        }
        let mut usage = Busy::begin(start, self.spun_ns);
        for slot in 0..self.conns.len() {
            let now = self.now();
            let conn = &mut self.conns[slot];
            if let Role::Subscriber(_) = conn.role
                && conn.phase == Phase::Up
            {
                Links::subscribe(self.spec, conn);
                conn.due_ns = now;
                self.stage(slot as u32);
                self.flush()?;
            }
        }
        let expected = self.traffic.expected();
        self.turn_while(|worker| {
            worker.traffic.meter.totals.unique_all < expected && !worker.control.stopped()
        })?;
        self.load = usage.finish(self.now(), self.spun_ns);
        Ok(())
    }

    /// This worker's part of an open loop's schedule.
    fn pacer(&self) -> Option<Pacer> {
        let Load::Open { schedule } = &self.spec.load else { return None };
        let here = self.traffic.publishers.len() as u32;
        if here == 0 {
            return None;
        }
        let share = f64::from(here) / f64::from(self.spec.publishers);
        let phase = (f64::from(self.index) + 0.5) / f64::from(self.spec.workers);
        Some(schedule.pacer(share, phase, here, self.spec.seed ^ u64::from(self.index) << 32))
    }

    /// Stages what is due, up to a batch; when the next message is due on the run's clock.
    fn offer_due(&mut self, pacer: &mut Pacer, start: u64, now: u64) -> u64 {
        for _ in 0..BATCH_MAX {
            let Some(due) = pacer.due_ns().map(|due| start + due) else { return u64::MAX };
            if due > now {
                return due;
            }
            let local = pacer.take();
            let slot = self.traffic.publishers[local as usize].conn;
            self.traffic.offer(local, &mut self.conns[slot as usize], due, now);
            self.stage(slot);
        }
        now
    }

    /// Waits for what subscribers still lack, then counts the rest as lost.
    fn settle(&mut self) -> Result<(), Failure> {
        if self.spec.publishers == 0 {
            return Ok(());
        }
        if !self.spec.checked {
            // Nobody knows what is missing: wait until nothing has come for a while.
            let quiet = self.now() + (self.spec.drain_s.min(1.0) * SECOND_NS) as u64;
            while self.now() < quiet {
                self.turn(quiet)?;
            }
            return Ok(());
        }
        let expected = self.traffic.expected();
        self.turn_while(|worker| worker.traffic.meter.totals.unique_all < expected)?;
        let totals = &mut self.traffic.meter.totals;
        totals.faults.lost = expected.saturating_sub(totals.unique_all);
        Ok(())
    }
}

/// How busy a worker was in the measured time.
#[derive(Default)]
struct Busy {
    began: Option<(u64, ThreadUsage, u64)>,
}

impl Busy {
    fn begin(now: u64, spun_ns: u64) -> Busy {
        Busy { began: Some((now, ThreadUsage::now(), spun_ns)) }
    }

    #[inline]
    fn look(&mut self, now: u64, from: u64, spun_ns: u64) {
        if self.began.is_none() && now >= from {
            *self = Busy::begin(now, spun_ns);
        }
    }

    fn finish(&mut self, now: u64, spun_ns: u64) -> WorkerLoad {
        let Some((began, before, spun_before)) = self.began.take() else { return WorkerLoad::default() };
        let usage = ThreadUsage::now().since(&before);
        let usage = ThreadUsage { ran_ns: usage.ran_ns.saturating_sub(spun_ns - spun_before), ..usage };
        WorkerLoad::of(&usage, now - began)
    }
}
