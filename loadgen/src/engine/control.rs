//! What the workers of a run share: the stage, the start time, what each publisher has sent and got back.
//!
//! The coordinator alone moves the stage; a worker announces that it is done with one by `arrive`.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use crate::spec::Spec;

/// The parts of a run, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u32)]
pub enum Stage {
    /// Connections are made and subscriptions acknowledged.
    Connect = 0,
    /// Retained messages are stored, in a run about those.
    Store = 1,
    /// Messages flow.
    Run = 2,
    /// Everything was sent: what subscribers still lack is on its way or lost.
    Settle = 3,
    /// Sessions and retained messages are removed, connections closed.
    End = 4,
}

impl Stage {
    fn from(n: u32) -> Stage {
        match n {
            0 => Stage::Connect,
            1 => Stage::Store,
            2 => Stage::Run,
            3 => Stage::Settle,
            _ => Stage::End,
        }
    }
}

/// One time for all threads: nanoseconds since the run was set up.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    #[inline]
    pub fn now(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// See the top of the file.
pub struct Control {
    pub clock: Clock,
    stage: AtomicU32,
    arrived: [AtomicU32; 5],
    /// When messages begin to flow; set before the stage becomes `Run`.
    start_ns: AtomicU64,
    /// The user or a fault wants an early end: publish no more.
    stop: AtomicBool,
    /// Messages that each stream has sent, valid from `Settle` on.
    pub sent: Box<[AtomicU64]>,
    /// Copies that receivers on other workers have returned to each publisher.
    pub credits: Box<[AtomicU64]>,
    /// The bell of each worker's ring, -1 before it has one.
    bells: Box<[AtomicI32]>,
    /// Credits have been left for this worker.
    mail: Box<[AtomicBool]>,
    /// This worker sleeps, or is about to after another look at its mail.
    sleeping: Box<[AtomicBool]>,
}

impl Control {
    pub fn new(spec: &Spec) -> Control {
        let zeros = |n: u32| (0..n).map(|_| AtomicU64::new(0)).collect();
        Control {
            clock: Clock::start(),
            stage: AtomicU32::new(Stage::Connect as u32),
            arrived: Default::default(),
            start_ns: AtomicU64::new(u64::MAX),
            stop: AtomicBool::new(false),
            sent: zeros(spec.streams()),
            credits: zeros(spec.publishers),
            bells: (0..spec.workers).map(|_| AtomicI32::new(-1)).collect(),
            mail: (0..spec.workers).map(|_| AtomicBool::new(false)).collect(),
            sleeping: (0..spec.workers).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    #[inline]
    pub fn stage(&self) -> Stage {
        Stage::from(self.stage.load(Ordering::Acquire))
    }

    pub fn enter(&self, stage: Stage) {
        self.stage.store(stage as u32, Ordering::Release);
    }

    /// A worker has done its part of this stage.
    pub fn arrive(&self, stage: Stage) {
        self.arrived[stage as usize].fetch_add(1, Ordering::AcqRel);
    }

    pub fn arrived(&self, stage: Stage) -> u32 {
        self.arrived[stage as usize].load(Ordering::Acquire)
    }

    /// Something is wrong: the run ends for everyone.
    pub fn fail(&self) {
        self.stop();
        self.enter(Stage::End);
    }

    pub fn set_start(&self, ns: u64) {
        self.start_ns.store(ns, Ordering::Release);
    }

    pub fn start_ns(&self) -> u64 {
        self.start_ns.load(Ordering::Acquire)
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    #[inline]
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub fn set_bell(&self, worker: u32, bell: RawFd) {
        self.bells[worker as usize].store(bell, Ordering::Release);
    }

    /// Tells a worker that credits wait for it; its bell, if it sleeps and has to be woken.
    ///
    /// Both sides write one flag and then read the other, all in one total order: either the sender sees `sleeping`,
    /// or the worker sees its mail before it sleeps.
    #[must_use]
    pub fn leave_mail(&self, worker: u32) -> Option<RawFd> {
        let worker = worker as usize;
        if self.mail[worker].swap(true, Ordering::SeqCst) {
            // Whoever left the first mail has woken the worker.
            return None;
        }
        let asleep = self.sleeping[worker].swap(false, Ordering::SeqCst);
        Some(self.bells[worker].load(Ordering::Acquire)).filter(|&bell| asleep && bell >= 0)
    }

    /// Announces sleep; false if there is mail to read first.
    #[must_use]
    pub fn may_sleep(&self, worker: u32) -> bool {
        self.sleeping[worker as usize].store(true, Ordering::SeqCst);
        !self.mail[worker as usize].load(Ordering::SeqCst)
    }

    pub fn awake(&self, worker: u32) {
        self.sleeping[worker as usize].store(false, Ordering::SeqCst);
    }

    /// Whether credits wait, which the caller then collects.
    #[must_use]
    pub fn take_mail(&self, worker: u32) -> bool {
        let mail = &self.mail[worker as usize];
        mail.load(Ordering::Relaxed) && mail.swap(false, Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    /// Mail that is left while its reader falls asleep always wakes it: a lost bell would cost a whole second here.
    #[test]
    fn no_bell_is_lost() {
        let args = crate::cli::parse(["loadgen", "p2p", "--pairs", "1"].map(Into::into)).unwrap().run;
        let control = Control::new(&args.spec().unwrap());
        control.set_bell(0, 0);
        const ROUNDS: u64 = 100_000;
        let slept_long = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = 0;
                while seen < ROUNDS {
                    if control.may_sleep(0) {
                        let begin = Instant::now();
                        std::thread::park_timeout(Duration::from_secs(1));
                        if begin.elapsed() >= Duration::from_secs(1) {
                            slept_long.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    control.awake(0);
                    if control.take_mail(0) {
                        seen += control.credits[0].swap(0, Ordering::AcqRel);
                    }
                }
            });
            for _ in 0..ROUNDS {
                control.credits[0].fetch_add(1, Ordering::AcqRel);
                if control.leave_mail(0).is_some() {
                    reader.thread().unpark();
                }
            }
        });
        // One may be this machine's doing, a lost bell would show again and again.
        assert!(slept_long.load(Ordering::Relaxed) <= 1);
    }
}
