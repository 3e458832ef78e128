//! One worker: a thread, its ring, its share of the clients, and the order in which a run passes.
//!
//! A turn sends what is staged, waits, and acts on what the kernel has finished. Nothing sends from inside the
//! handling of a packet: bytes are staged in the connection and leave together.

use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::conn::{Conn, Phase, feed};
use super::control::{Control, Stage};
use super::dispatch::{Dispatch, Links};
use super::meter::{Interval, Totals};
use super::plan::{self, Role};
use super::traffic::Traffic;
use crate::failure::Failure;
use crate::procfs::ThreadUsage;
use crate::ring::{Completion, Ring};
use crate::schedule::Pacer;
use crate::spec::{Load, Pattern, Spec, Waiting};
use crate::sys;
use crate::wire::encode;

/// Connections of one worker that may be under way at once; keeps the listener's backlog from overflowing.
const CONNECTING_MAX: usize = 256;
/// Messages of an open loop that are staged before they are sent, so that a late generator does not get later still.
const BATCH_MAX: usize = 64;
/// The longest sleep: stages, the stop flag and Keep Alive are looked at this often.
const NAP_NS: u64 = 20_000_000;
/// A closed loop in which nothing moves for so long has lost what is outstanding.
const STALL_NS: u64 = 1_000_000_000;
/// How long a worker waits for the broker to close its end after DISCONNECT.
const GOODBYE_NS: u64 = 1_000_000_000;
const SECOND_NS: f64 = 1e9;

/// What workers tell the coordinator while they run.
pub enum Event {
    Interval(Interval),
    /// A connection failed while messages were flowing; the run goes on.
    Trouble(Failure),
    /// Connections that have become ready since the last time.
    Connected(usize),
}

/// What a worker has to say at the end.
pub struct WorkerReport {
    pub index: u32,
    pub cpu: usize,
    pub totals: Totals,
    /// Share of the measured time in which the thread worked, or was ready to and had to wait for its CPU.
    pub busy: f64,
    pub connections: u32,
}

/// See the top of the file.
pub struct Worker<'a> {
    spec: &'a Spec,
    control: &'a Control,
    index: u32,
    cpu: usize,
    events: Sender<Event>,
    ring: Ring,
    conns: Vec<Conn>,
    traffic: Traffic<'a>,
    links: Links,
    dirty: Vec<u32>,
    /// Time spent looking for work without finding any.
    spun_ns: u64,
    spinning: bool,
    swept: usize,
    next_sweep_ns: u64,
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
        let mut groups = Vec::new();
        let mut conns = Vec::with_capacity(roles.len());
        for (slot, role) in roles.into_iter().enumerate() {
            let local = match role {
                Role::Publisher(n) => traffic.add_publisher(n, slot as u32),
                Role::Subscriber(n) => traffic.add_subscriber(index, n, &mut groups),
                Role::Idler(_) => 0,
            };
            conns.push(Conn::new(role, local));
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
            spun_ns: 0,
            spinning: false,
            swept: 0,
            next_sweep_ns: 0,
        })
    }

    /// Passes through the whole run.
    pub fn run(mut self) -> Result<WorkerReport, Failure> {
        let mut busy = 0.0;
        self.connect_all()?;
        self.control.arrive(Stage::Connect);
        if self.reach(Stage::Run)? {
            busy = self.flow()?;
            self.control.arrive(Stage::Run);
            if self.reach(Stage::Settle)? {
                self.settle()?;
            }
        }
        self.say_goodbye()?;
        let _ = self.events.send(Event::Interval(self.traffic.meter.finish()));
        let totals = std::mem::take(&mut self.traffic.meter.totals);
        let connections = self.conns.len() as u32;
        Ok(WorkerReport { index: self.index, cpu: self.cpu, totals, busy, connections })
    }

    fn now(&self) -> u64 {
        self.control.clock.now()
    }

    /// Serves connections until the coordinator has entered a stage; false if the run is over instead.
    fn reach(&mut self, stage: Stage) -> Result<bool, Failure> {
        while self.control.stage() < stage {
            let now = self.now();
            self.turn(now + 2_000_000)?;
        }
        Ok(self.control.stage() == stage)
    }

    // ---- the stages ----

    /// Makes every connection, at the rate that was asked for, and waits for CONNACK and SUBACK.
    fn connect_all(&mut self) -> Result<(), Failure> {
        let began = self.now();
        let per_ns = self.spec.connect_rate / f64::from(self.spec.workers) / SECOND_NS;
        let silence_ns = (self.spec.connect_timeout_s * SECOND_NS) as u64;
        let (mut opened, mut last_up, mut last_progress) = (0, 0, began);
        while self.links.up < self.conns.len() {
            let now = self.now();
            if self.control.stage() > Stage::Connect {
                return Ok(());
            }
            let due = ((now - began) as f64 * per_ns).min(1e18) as usize + 1;
            while opened < due.min(self.conns.len()) && opened - self.links.answered < CONNECTING_MAX {
                self.open(opened as u32)?;
                opened += 1;
            }
            self.turn(now + 1_000_000)?;
            if let Some(failure) = self.links.failures.pop() {
                return Err(failure);
            }
            if self.links.up != last_up {
                let _ = self.events.send(Event::Connected(self.links.up - last_up));
                (last_up, last_progress) = (self.links.up, self.now());
            } else if now.saturating_sub(last_progress) > silence_ns && opened > last_up {
                return Err(self.silent());
            }
        }
        Ok(())
    }

    fn silent(&self) -> Failure {
        let target = self.spec.target.name.clone();
        let waited_s = self.spec.connect_timeout_s as u64;
        let any = |phase| self.conns.iter().any(|c| c.phase == phase);
        if any(Phase::AwaitingSuback) {
            Failure::Silent { target, waited_s, what: "SUBACK" }
        } else if any(Phase::AwaitingConnack) {
            Failure::Silent { target, waited_s, what: "CONNACK" }
        } else {
            Failure::Unreachable { target, why: format!("no answer within {waited_s} s") }
        }
    }

    /// Lets messages flow from the start time to the end; the share of the measured time in which it was busy.
    fn flow(&mut self) -> Result<f64, Failure> {
        let start = self.control.start_ns();
        let from = start + (self.spec.warmup_s * SECOND_NS) as u64;
        let to = from + (self.spec.duration_s * SECOND_NS) as u64;
        self.traffic.meter.begin(start, from, to);
        let mut pacer = self.pacer();
        while self.now() < start {
            self.turn(start)?;
        }
        if pacer.is_none() {
            self.traffic.begin();
        }
        self.spinning = pacer.is_some() && self.spec.waiting == Waiting::Spin;
        let mut usage = Busy::default();
        let (mut last_progress, mut moved_at) = (self.traffic.progress(), start);
        loop {
            let now = self.now();
            usage.look(now, from, self.spun_ns);
            if now >= to || self.control.stopped() {
                break;
            }
            let mut until = (now + NAP_NS).min(to);
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
        let busy = usage.finish(self.now(), self.spun_ns);
        self.spinning = false;
        self.traffic.stop();
        self.drain_backlog()?;
        self.traffic.publish_counts();
        Ok(busy)
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
            let conn = &mut self.conns[slot as usize];
            self.traffic.offer(local, conn, due, now);
            stage(&mut self.dirty, conn, slot);
        }
        now
    }

    /// Waits until backlogs are sent and messages acknowledged, as long as that moves.
    fn drain_backlog(&mut self) -> Result<(), Failure> {
        let patience = (self.spec.drain_s * SECOND_NS) as u64;
        let (mut progress, mut moved_at) = (self.traffic.progress(), self.now());
        while self.traffic.unfinished() && self.now() - moved_at < patience {
            let now = self.now();
            self.turn(now + 2_000_000)?;
            if self.traffic.progress() != progress {
                (progress, moved_at) = (self.traffic.progress(), now);
            }
        }
        self.traffic.abandon_backlog();
        Ok(())
    }

    /// Waits for what subscribers still lack, then counts the rest as lost.
    fn settle(&mut self) -> Result<(), Failure> {
        if !self.spec.checked {
            // Nobody knows what is missing: wait until nothing has come for a while.
            let quiet = self.now() + (self.spec.drain_s.min(1.0) * SECOND_NS) as u64;
            while self.now() < quiet {
                self.turn(quiet)?;
            }
            return Ok(());
        }
        let expected = self.traffic.expected();
        let patience = (self.spec.drain_s * SECOND_NS) as u64;
        let (mut progress, mut moved_at) = (self.traffic.progress(), self.now());
        while self.traffic.meter.totals.unique_all < expected && self.now() - moved_at < patience {
            let now = self.now();
            self.turn(now + 2_000_000)?;
            if self.traffic.progress() != progress {
                (progress, moved_at) = (self.traffic.progress(), now);
            }
        }
        let totals = &mut self.traffic.meter.totals;
        totals.faults.lost = expected.saturating_sub(totals.unique_all);
        Ok(())
    }

    /// Sends DISCONNECT everywhere and waits a little for the broker to close.
    fn say_goodbye(&mut self) -> Result<(), Failure> {
        for slot in 0..self.conns.len() {
            let conn = &mut self.conns[slot];
            if matches!(conn.phase, Phase::Up | Phase::AwaitingSuback) {
                encode::disconnect(&mut conn.out);
                stage(&mut self.dirty, conn, slot as u32);
                conn.phase = Phase::Closing;
            }
        }
        let deadline = self.now() + GOODBYE_NS;
        while self.conns.iter().any(|c| c.recv_armed || c.send_in_flight) && self.now() < deadline {
            let now = self.now();
            self.turn(now + 5_000_000)?;
        }
        Ok(())
    }

    // ---- one turn ----

    /// Sends what is staged, waits until something happens but not past `until`, and acts on it.
    fn turn(&mut self, until: u64) -> Result<(), Failure> {
        self.flush()?;
        self.wait(until).map_err(machine)?;
        while let Some(completion) = self.ring.take().map_err(machine)? {
            self.handle(completion).map_err(machine)?;
        }
        let now = self.now();
        if self.control.take_mail(self.index) {
            self.traffic.collect_credits();
        }
        self.serve_ready(now);
        self.return_credits().map_err(machine)?;
        self.keep_alive(now);
        while let Some(interval) = self.traffic.meter.second_over(now) {
            let _ = self.events.send(Event::Interval(interval));
        }
        Ok(())
    }

    fn wait(&mut self, until: u64) -> std::io::Result<()> {
        let now = self.now();
        if until <= now || !self.control.may_sleep(self.index) {
            return self.ring.submit();
        }
        if !self.spinning {
            let result = self.ring.wait(Duration::from_nanos(until - now));
            self.control.awake(self.index);
            return result;
        }
        self.control.awake(self.index);
        loop {
            self.ring.submit()?;
            let later = self.now();
            if later >= until || self.ring.has_completions() {
                self.spun_ns += later - now;
                return Ok(());
            }
            std::hint::spin_loop();
        }
    }

    fn handle(&mut self, completion: Completion) -> std::io::Result<()> {
        match completion {
            Completion::Received { slot, bytes, armed } => {
                let now = self.control.clock.now();
                let conn = &mut self.conns[slot as usize];
                conn.recv_armed = armed;
                let mut partial = std::mem::take(&mut conn.partial);
                let mut dispatch =
                    Dispatch { spec: self.spec, traffic: &mut self.traffic, links: &mut self.links, now };
                let received = self.ring.bytes(&bytes);
                let result =
                    feed(&mut partial, received, |first, body| dispatch.handle_packet(conn, first, body));
                conn.partial = partial;
                self.ring.recycle(bytes);
                match result {
                    Ok(()) => {
                        stage(&mut self.dirty, conn, slot);
                        if !armed && conn.phase != Phase::Closed {
                            conn.recv_armed = true;
                            self.ring.receive(slot)?;
                        }
                    }
                    Err(failure) => self.fail(slot, failure.or_of(&self.conns[slot as usize].role))?,
                }
            }
            Completion::Sent { slot, buffer, result } => {
                let now = self.control.clock.now();
                let conn = &mut self.conns[slot as usize];
                conn.send_in_flight = false;
                conn.give_back(buffer);
                if let Err(error) = result {
                    return self.broken(slot, &error);
                }
                if let Role::Publisher(_) = conn.role {
                    if self.spec.pattern == Pattern::Swallow && conn.out.is_empty() {
                        let taken = self.traffic.outstanding(conn.local);
                        self.traffic.credit_local(conn.local, taken);
                    }
                    self.traffic.unblock(conn.local, now);
                }
                stage(&mut self.dirty, &mut self.conns[slot as usize], slot);
            }
            Completion::Connected { slot, result } => {
                let conn = &mut self.conns[slot as usize];
                match result {
                    Ok(()) => {
                        conn.phase = Phase::AwaitingConnack;
                        conn.recv_armed = true;
                        self.ring.receive(slot)?;
                        let conn = &mut self.conns[slot as usize];
                        Links::greet(self.spec, conn);
                        stage(&mut self.dirty, conn, slot);
                    }
                    Err(error) => {
                        conn.phase = Phase::Closed;
                        self.links.failures.push(Failure::of_connect(&error, &self.spec.target.name));
                    }
                }
            }
            Completion::ReceiveEnded { slot, result } => {
                let conn = &mut self.conns[slot as usize];
                conn.recv_armed = false;
                match result {
                    Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                        conn.recv_armed = true;
                        self.ring.receive(slot)?;
                    }
                    Err(e) => self.broken(slot, &e)?,
                    Ok(()) => {
                        let role = conn.role;
                        let during = conn.phase.during();
                        self.fail(slot, Failure::Closed { who: role.name(), code: None, during })?;
                    }
                }
            }
            Completion::Closed { .. } | Completion::Woken => {}
        }
        Ok(())
    }

    fn broken(&mut self, slot: u32, error: &std::io::Error) -> std::io::Result<()> {
        let who = self.conns[slot as usize].role.name();
        let failure = match error.raw_os_error() {
            Some(libc::ECONNRESET | libc::EPIPE) => {
                Failure::Closed { who, code: None, during: self.conns[slot as usize].phase.during() }
            }
            _ => Failure::Broken { who, why: error.to_string() },
        };
        self.fail(slot, failure)
    }

    /// A connection is of no more use; what is in flight ends by itself after the shutdown.
    fn fail(&mut self, slot: u32, failure: Failure) -> std::io::Result<()> {
        let conn = &mut self.conns[slot as usize];
        let before = conn.phase;
        conn.phase = Phase::Closed;
        conn.out.clear();
        if !matches!(before, Phase::Closing | Phase::Closed) {
            if self.control.stage() == Stage::Connect {
                self.links.failures.push(failure);
            } else {
                let _ = self.events.send(Event::Trouble(failure));
            }
        }
        if before != Phase::Closed && (conn.recv_armed || conn.send_in_flight) {
            self.ring.shutdown(slot)?;
        }
        Ok(())
    }

    /// Starts to connect a client.
    fn open(&mut self, slot: u32) -> Result<(), Failure> {
        let target = slot as usize % self.spec.target.addresses.len();
        let conn = &mut self.conns[slot as usize];
        conn.began_ns = self.control.clock.now();
        conn.phase = Phase::Connecting;
        let opened = || -> std::io::Result<Socket> {
            let domain = Domain::for_address(self.spec.target.addresses[target]);
            let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_tcp_nodelay(true)?;
            if !self.spec.sources.is_empty() {
                let number = slot as usize * self.spec.workers as usize + self.index as usize;
                let source = self.spec.sources[number % self.spec.sources.len()];
                sys::bind_address_no_port(&socket)?;
                socket.bind(&std::net::SocketAddr::new(source, 0).into())?;
            }
            Ok(socket)
        };
        let socket = opened().map_err(|e| Failure::of_connect(&e, &self.spec.target.name))?;
        let adopted = self.ring.adopt(slot, socket.into()).and_then(|()| self.ring.connect(slot, target));
        adopted.map_err(machine)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let now = self.control.clock.now();
        while let Some(slot) = self.dirty.pop() {
            let conn = &mut self.conns[slot as usize];
            conn.dirty = false;
            if conn.send_in_flight || conn.out.is_empty() {
                continue;
            }
            conn.send_in_flight = true;
            conn.last_sent_ns = now;
            self.ring.send(slot, conn.take_out()).map_err(machine)?;
        }
        Ok(())
    }

    fn serve_ready(&mut self, now: u64) {
        let ready = self.traffic.take_ready();
        for &local in &ready {
            let slot = self.traffic.publishers[local as usize].conn;
            let conn = &mut self.conns[slot as usize];
            self.traffic.serve(local, conn, now);
            stage(&mut self.dirty, conn, slot);
        }
        self.traffic.give_back_ready(ready);
    }

    fn return_credits(&mut self) -> std::io::Result<()> {
        for (publisher, copies) in self.traffic.take_remote() {
            self.control.credits[publisher as usize].fetch_add(copies, Ordering::AcqRel);
            let (home, _) = plan::publisher_home(self.spec, publisher);
            if let Some(bell) = self.control.leave_mail(home) {
                self.ring.ring_bell(bell)?;
            }
        }
        Ok(())
    }

    /// Looks at a part of the connections, so that each is seen well before its Keep Alive is over.
    fn keep_alive(&mut self, now: u64) {
        if self.spec.keep_alive_s == 0 || now < self.next_sweep_ns || self.conns.is_empty() {
            return;
        }
        self.next_sweep_ns = now + 50_000_000;
        let idle_ns = u64::from(self.spec.keep_alive_s) * 500_000_000;
        // All connections within a quarter of the Keep Alive.
        let count = self.conns.len() * 200 / (usize::from(self.spec.keep_alive_s) * 1000) + 1;
        for _ in 0..count.min(self.conns.len()) {
            self.swept = (self.swept + 1) % self.conns.len();
            let conn = &mut self.conns[self.swept];
            if conn.phase == Phase::Up
                && now.saturating_sub(conn.last_sent_ns) > idle_ns
                && !conn.send_in_flight
            {
                encode::pingreq(&mut conn.out);
                stage(&mut self.dirty, conn, self.swept as u32);
            }
        }
    }
}

/// Puts a connection with bytes to send into the list, once.
#[inline]
fn stage(dirty: &mut Vec<u32>, conn: &mut Conn, slot: u32) {
    if !conn.dirty && !conn.send_in_flight && !conn.out.is_empty() {
        conn.dirty = true;
        dirty.push(slot);
    }
}

fn machine(error: std::io::Error) -> Failure {
    Failure::Machine { what: format!("io_uring: {error}") }
}

/// How busy a worker was in the measured time.
#[derive(Default)]
struct Busy {
    began: Option<(u64, ThreadUsage, u64)>,
}

impl Busy {
    #[inline]
    fn look(&mut self, now: u64, from: u64, spun_ns: u64) {
        if self.began.is_none() && now >= from {
            self.began = Some((now, ThreadUsage::now(), spun_ns));
        }
    }

    fn finish(self, now: u64, spun_ns: u64) -> f64 {
        let Some((began, before, spun_before)) = self.began else { return 0.0 };
        let after = ThreadUsage::now();
        let ran = (after.ran_ns - before.ran_ns).saturating_sub(spun_ns - spun_before);
        let waited = after.waited_ns - before.waited_ns;
        (ran + waited) as f64 / (now - began).max(1) as f64
    }
}
