//! One run: threads, stages, and what came out.

pub mod conn;
pub mod control;
pub mod dispatch;
pub mod ids;
pub mod meter;
pub mod plan;
pub mod slow;
pub mod storm;
pub mod traffic;
pub mod turn;
pub mod worker;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use control::{Control, Stage};
use hdrhistogram::Histogram;
use meter::{Interval, Totals};
use worker::{Event, Worker, WorkerReport};

use crate::failure::Failure;
use crate::procfs::{Broker, Memory, ThreadUsage};
use crate::spec::{Focus, Spec};

/// Kinds of failures that are kept word by word; all are counted.
const FAILURES_KEPT: usize = 20;
/// Between the last worker's readiness and the first message.
const START_DELAY_NS: u64 = 20_000_000;

/// One second of all workers.
#[derive(Clone)]
pub struct Second {
    pub second: u32,
    pub offered: u64,
    pub sent: u64,
    pub delivered: u64,
    pub connected: u64,
    pub missing: u64,
    pub latency: Histogram<u32>,
    workers: u32,
}

/// What the broker spent.
#[derive(Clone, Copy, Default, Debug)]
pub struct Cost {
    /// CPU time in the measured time, and the time between both looks.
    pub cpu_ns: u64,
    /// Time in which a thread was ready to run and had no CPU.
    pub waited_ns: u64,
    /// The part of that which is beyond the kernel's own way from ready to running.
    pub undue_ns: u64,
    pub wall_ns: u64,
    /// Memory before the first connection, when all stood, and the most resident memory that was seen.
    pub memory_before: Memory,
    pub memory_connected: Memory,
    pub memory_peak: u64,
    pub threads: usize,
}

impl Cost {
    /// Share of the time in which a thread was ready to run and somebody else had the CPU.
    pub fn undue_share(&self) -> f64 {
        self.undue_ns as f64 / self.wall_ns.max(1) as f64
    }
}

/// What became of one of the generator's CPUs in the measured time.
#[derive(Clone, Debug)]
pub struct CoreUse {
    pub cpu: usize,
    pub workers: u32,
    pub connections: u32,
    /// Share in which its workers ran.
    pub ran: f64,
    /// The largest share in which one of them ran, or was ready to and had to wait.
    pub wanted: f64,
    /// The largest share in which one of them was ready to and somebody else had the CPU.
    pub undue: f64,
}

impl CoreUse {
    /// How busy the CPU was for our purposes: workers that wait for one another, or for other programs, are late.
    pub fn busy(&self) -> f64 {
        self.ran.max(self.wanted)
    }
}

/// Everything that a run brought to light.
#[derive(Default)]
pub struct Outcome {
    pub totals: Totals,
    pub seconds: Vec<Second>,
    pub cores: Vec<CoreUse>,
    pub cost: Option<Cost>,
    /// One of each kind, with how many there were.
    pub failures: Vec<(Failure, u64)>,
    pub failures_total: u64,
    /// What the processes that listen at the target did, if it is this machine and `--pid` names none.
    pub bystanders: Option<Cost>,
    /// The same, without any process: share of the time in which somebody on this machine had to wait for a CPU.
    pub machine_waited: Option<f64>,
    /// From the first connect until all were ready.
    pub connect_s: f64,
    pub connections: u32,
    /// Seconds of the measured time that passed before an early end.
    pub measured_s: f64,
    pub interrupted: bool,
}

/// What to show while a run goes on.
pub enum Progress<'a> {
    Connected {
        up: usize,
        of: u32,
    },
    /// A second is over for all workers.
    Second(&'a Second),
}

/// Runs what `spec` says. `interrupted` ends it early, with a report.
pub fn run(spec: &Spec, interrupted: &AtomicBool, watch: &mut dyn FnMut(Progress<'_>)) -> Outcome {
    let control = Control::new(spec);
    let (sender, receiver) = mpsc::channel();
    let mut coordinator = Coordinator::new(spec, &control);
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..spec.workers)
            .map(|index| {
                let (control, sender) = (&control, sender.clone());
                let spawned = std::thread::Builder::new().name(format!("worker-{index}"));
                spawned.spawn_scoped(scope, move || {
                    let alarm = Alarm(control);
                    let result = Worker::new(spec, control, index, sender).and_then(Worker::run);
                    if result.is_ok() {
                        std::mem::forget(alarm);
                    }
                    result
                })
            })
            .collect();
        drop(sender);
        coordinator.attend(&receiver, interrupted, watch);
        for handle in handles {
            match handle {
                Ok(handle) => match handle.join() {
                    Ok(report) => coordinator.finish(report),
                    Err(panic) => std::panic::resume_unwind(panic),
                },
                Err(e) => {
                    coordinator.finish(Err(Failure::Machine { what: format!("cannot start a thread: {e}") }))
                }
            }
        }
    });
    coordinator.outcome()
}

/// Ends the run for everyone if a worker fails or panics.
struct Alarm<'a>(&'a Control);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.0.fail();
    }
}

struct Coordinator<'a> {
    spec: &'a Spec,
    control: &'a Control,
    broker: Broker,
    cost: Cost,
    cpu_before: Option<(ThreadUsage, u64)>,
    cpu_after: Option<(ThreadUsage, u64)>,
    /// What `procfs::pressure` said at both ends of the measured time, where no process of the broker is known.
    pressure: [Option<(u64, u64)>; 2],
    seconds: BTreeMap<u32, Second>,
    shown: u32,
    up: usize,
    outcome: Outcome,
    from_ns: u64,
    to_ns: u64,
}

impl<'a> Coordinator<'a> {
    fn new(spec: &'a Spec, control: &'a Control) -> Coordinator<'a> {
        let known = if spec.pids.is_empty() { &spec.listeners } else { &spec.pids };
        let broker = Broker::new(known).unwrap_or_default();
        let cost = Cost { memory_before: broker.memory(), ..Cost::default() };
        Coordinator {
            spec,
            control,
            broker,
            cost,
            cpu_before: None,
            cpu_after: None,
            pressure: [None; 2],
            seconds: BTreeMap::new(),
            shown: 0,
            up: 0,
            outcome: Outcome::default(),
            from_ns: if spec.focus == Focus::Connects { 0 } else { u64::MAX },
            to_ns: u64::MAX,
        }
    }

    /// Moves the stages along until every worker has hung up.
    fn attend(
        &mut self,
        events: &mpsc::Receiver<Event>,
        interrupted: &AtomicBool,
        watch: &mut dyn FnMut(Progress<'_>),
    ) {
        let mut next_sample = 0;
        loop {
            let now = self.control.clock.now();
            let mut until = now + 5_000_000;
            for edge in [self.from_ns, self.to_ns] {
                if edge > now {
                    until = until.min(edge);
                }
            }
            match events.recv_timeout(Duration::from_nanos(until - now)) {
                Ok(event) => self.take(event, watch),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if interrupted.load(Ordering::Relaxed) && !self.outcome.interrupted {
                self.outcome.interrupted = true;
                self.interrupt();
            }
            self.advance();
            let now = self.control.clock.now();
            self.sample(now, &mut next_sample);
        }
    }

    fn interrupt(&mut self) {
        self.control.stop();
        if self.control.stage() == Stage::Connect {
            self.outcome.connect_s = self.control.clock.now() as f64 / 1e9;
            self.control.enter(Stage::End);
        }
        self.to_ns = self.to_ns.min(self.control.clock.now());
    }

    fn advance(&mut self) {
        let all = |stage| self.control.arrived(stage) == self.spec.workers;
        let now = self.control.clock.now();
        match self.control.stage() {
            Stage::Connect if all(Stage::Connect) => {
                self.outcome.connect_s = now as f64 / 1e9;
                self.cost.memory_connected = self.broker.memory();
                if self.spec.focus == Focus::Connects {
                    self.to_ns = now;
                }
                self.control.enter(Stage::Store);
            }
            Stage::Store if all(Stage::Store) => {
                let start = now + START_DELAY_NS;
                if self.spec.focus == Focus::Retained {
                    self.from_ns = start;
                } else if self.spec.focus != Focus::Connects {
                    self.from_ns = start + (self.spec.warmup_s * 1e9) as u64;
                    self.to_ns = self.from_ns + (self.spec.duration_s * 1e9) as u64;
                }
                self.control.set_start(start);
                self.control.enter(Stage::Run);
            }
            Stage::Run if all(Stage::Run) => {
                self.to_ns = self.to_ns.min(now);
                self.control.enter(Stage::Settle);
            }
            Stage::Settle if all(Stage::Settle) => self.control.enter(Stage::End),
            _ => {}
        }
    }

    /// Looks at the broker once a second and at both ends of the measured time.
    fn sample(&mut self, now: u64, next_sample: &mut u64) {
        let begins = now >= self.from_ns && self.cpu_before.is_none();
        let ends = now >= self.to_ns && self.cpu_after.is_none();
        if !self.broker.is_known() && self.spec.is_local {
            self.sample_machine(now);
        }
        if !(begins || ends || now >= *next_sample) || !self.broker.is_known() {
            return;
        }
        *next_sample = now + 1_000_000_000;
        let look = (self.broker.usage(), self.control.clock.now());
        if begins {
            self.cpu_before = Some(look);
        }
        if ends {
            self.cpu_after = Some(look);
        }
        self.cost.memory_peak = self.cost.memory_peak.max(self.broker.memory().resident);
        self.cost.threads = self.broker.threads();
    }

    fn sample_machine(&mut self, now: u64) {
        let look = || Some((crate::procfs::pressure()?, self.control.clock.now()));
        if now >= self.from_ns && self.pressure[0].is_none() {
            self.pressure[0] = look();
        } else if now >= self.to_ns && self.pressure[1].is_none() {
            self.pressure[1] = look();
        }
    }

    fn take(&mut self, event: Event, watch: &mut dyn FnMut(Progress<'_>)) {
        match event {
            Event::Interval(interval) => {
                let second = interval.second;
                self.add_interval(interval);
                let whole = self.seconds.get(&second).is_some_and(|s| s.workers == self.spec.workers);
                if whole && second >= self.shown {
                    self.shown = second + 1;
                    watch(Progress::Second(&self.seconds[&second]));
                }
            }
            Event::Trouble(failure) => self.note(failure),
            Event::Connected(up) => {
                self.up += up;
                watch(Progress::Connected { up: self.up, of: self.spec.clients() });
            }
        }
    }

    fn add_interval(&mut self, interval: Interval) {
        let second = self.seconds.entry(interval.second).or_insert_with(|| Second {
            second: interval.second,
            offered: 0,
            sent: 0,
            delivered: 0,
            connected: 0,
            missing: 0,
            latency: Histogram::new_from(&interval.latency),
            workers: 0,
        });
        second.offered += interval.offered;
        second.sent += interval.sent;
        second.delivered += interval.delivered;
        second.connected += interval.connected;
        second.missing += interval.missing;
        second.latency.add(&interval.latency).expect("all histograms have the same bounds");
        second.workers += 1;
    }

    fn note(&mut self, failure: Failure) {
        self.outcome.failures_total += 1;
        let failures = &mut self.outcome.failures;
        if let Some((_, times)) = failures.iter_mut().find(|(known, _)| known.is_like(&failure)) {
            *times += 1;
        } else if failures.len() < FAILURES_KEPT {
            failures.push((failure, 1));
        }
    }

    fn finish(&mut self, report: Result<WorkerReport, Failure>) {
        match report {
            Ok(report) => {
                self.outcome.totals.add(&report.totals);
                self.outcome.connections += report.connections;
                let cores = &mut self.outcome.cores;
                if !cores.iter().any(|core| core.cpu == report.cpu) {
                    cores.push(CoreUse {
                        cpu: report.cpu,
                        workers: 0,
                        connections: 0,
                        ran: 0.0,
                        wanted: 0.0,
                        undue: 0.0,
                    });
                }
                for core in cores.iter_mut().filter(|core| core.cpu == report.cpu) {
                    core.workers += 1;
                    core.connections += report.connections;
                    core.ran += report.load.ran;
                    core.wanted = core.wanted.max(report.load.ran + report.load.waited);
                    core.undue = core.undue.max(report.load.undue);
                }
            }
            Err(failure) => self.note(failure),
        }
    }

    fn outcome(mut self) -> Outcome {
        if let (Some((cpu, at)), Some((cpu_end, at_end))) = (self.cpu_before, self.cpu_after) {
            let used = cpu_end.since(&cpu);
            self.cost.cpu_ns = used.ran_ns;
            self.cost.waited_ns = used.waited_ns;
            self.cost.undue_ns = used.undue_wait_ns();
            self.cost.wall_ns = at_end - at;
        }
        if let [Some((before, at)), Some((after, at_end))] = self.pressure {
            self.outcome.machine_waited =
                Some(after.saturating_sub(before) as f64 / at_end.saturating_sub(at).max(1) as f64);
        }
        let cost = Some(self.cost).filter(|_| self.broker.is_known());
        match self.spec.pids.is_empty() {
            true => self.outcome.bystanders = cost,
            false => self.outcome.cost = cost,
        }
        let last_ns = self.outcome.totals.last_ns;
        let end = match self.spec.focus {
            // These last as long as they take.
            Focus::Connects | Focus::Retained => last_ns,
            Focus::Messages | Focus::Idle | Focus::Reconnects => self.to_ns.min(self.control.clock.now()),
        };
        self.outcome.measured_s =
            if self.from_ns == u64::MAX { 0.0 } else { end.saturating_sub(self.from_ns) as f64 / 1e9 };
        self.outcome.seconds = self.seconds.into_values().collect();
        self.outcome
    }
}
