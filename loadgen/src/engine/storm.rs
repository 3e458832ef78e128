//! What ends connections on purpose: storms of reconnects, and the clean-up at the end of a run.

use super::conn::Phase;
use super::plan::Role;
use super::turn::machine;
use super::worker::{Event, Worker, WorkerLoad};
use crate::failure::Failure;
use crate::procfs::ThreadUsage;
use crate::wire::{Version, encode};

/// Reconnects of one worker that may be under way at once.
const RECONNECTING_MAX: usize = 1024;
/// How long a worker waits for the broker to close its end after DISCONNECT.
const GOODBYE_NS: u64 = 2_000_000_000;
/// How long removing sessions may go on without any progress.
const FORGET_NS: u64 = 5_000_000_000;
/// How long clients may take to come back, beyond the end of the measured time.
const RETURN_NS: u64 = 30_000_000_000;

/// Cuts all subscribers and idle clients off at once, again and again.
pub struct Storm {
    next_ns: u64,
    every_ns: u64,
    began_ns: u64,
    /// Clients that were cut off and are not ready again.
    pub away: usize,
    /// Slots whose old socket is gone.
    pub returning: Vec<u32>,
    reopened: usize,
    underway: usize,
    usage: ThreadUsage,
    /// CPU time of this thread in all storms.
    spent: ThreadUsage,
}

impl Storm {
    /// The first storm breaks out at `first_ns`.
    pub fn new(first_ns: u64, every_ns: u64) -> Storm {
        Storm {
            next_ns: first_ns,
            every_ns,
            began_ns: 0,
            away: 0,
            returning: Vec::new(),
            reopened: 0,
            underway: 0,
            usage: ThreadUsage::default(),
            spent: ThreadUsage::default(),
        }
    }

    /// How busy the thread was while storms went on, `storm_ns` in all.
    pub fn load(&self, storm_ns: u64) -> WorkerLoad {
        WorkerLoad::of(&self.spent, storm_ns)
    }

    /// A client is ready again, or failed for good.
    pub fn done(&mut self) {
        self.away = self.away.saturating_sub(1);
        self.underway = self.underway.saturating_sub(1);
    }
}

impl Worker<'_> {
    /// Begins a storm if one is due before `end`, and lets clients come back; whether one is going on.
    pub(super) fn step_storm(&mut self, now: u64, end: u64) -> Result<bool, Failure> {
        let Some(mut storm) = self.storm.take() else { return Ok(false) };
        for _ in 0..std::mem::take(&mut self.links.returned) {
            storm.done();
        }
        if storm.away == 0 && storm.began_ns > 0 {
            self.traffic.meter.totals.storms += 1;
            self.traffic.meter.totals.storm_ns += now - storm.began_ns;
            storm.began_ns = 0;
            let usage = ThreadUsage::now().since(&storm.usage);
            storm.spent.ran_ns += usage.ran_ns;
            storm.spent.waited_ns += usage.waited_ns;
            storm.spent.turns += usage.turns;
            // A broker that took long gets a pause all the same.
            storm.next_ns = (storm.next_ns + storm.every_ns).max(now + storm.every_ns / 4);
        }
        if storm.away == 0 && now >= storm.next_ns && now < end && !self.control.stopped() {
            self.break_out(&mut storm, now)?;
        }
        let per_ns = self.spec.connect_rate / f64::from(self.spec.workers) / 1e9;
        while !storm.returning.is_empty() && storm.underway < RECONNECTING_MAX {
            // Without a rate everyone wants to be back at once.
            let rank = if per_ns.is_finite() { (storm.reopened as f64 / per_ns) as u64 } else { 0 };
            let due = storm.began_ns + rank;
            if due > now {
                break;
            }
            if let Some(slot) = storm.returning.pop() {
                storm.reopened += 1;
                storm.underway += 1;
                self.open(slot, due)?;
            }
        }
        let going_on = storm.away > 0 && now < end.saturating_add(RETURN_NS);
        self.storm = Some(storm);
        while let Some(failure) = self.links.failures.pop() {
            let _ = self.events.send(Event::Trouble(failure));
        }
        Ok(going_on)
    }

    fn break_out(&mut self, storm: &mut Storm, now: u64) -> Result<(), Failure> {
        (storm.began_ns, storm.reopened, storm.underway) = (now, 0, 0);
        storm.usage = ThreadUsage::now();
        for slot in 0..self.conns.len() {
            let conn = &mut self.conns[slot];
            if !matches!(conn.role, Role::Publisher(_)) && conn.phase == Phase::Up {
                storm.away += 1;
                self.links.up -= 1;
                conn.cut = true;
                self.shut(slot as u32).map_err(machine)?;
            }
        }
        Ok(())
    }

    /// Removes retained messages, says goodbye everywhere and ends sessions.
    pub(super) fn clean_up(&mut self) -> Result<(), Failure> {
        self.storm = None;
        for slot in 0..self.conns.len() {
            self.say_goodbye(slot as u32).map_err(machine)?;
        }
        let leaving = |worker: &Self| worker.conns.iter().any(|c| c.phase == Phase::Leaving);
        self.turn_until(GOODBYE_NS, leaving)?;
        // Whoever is left is shut without ceremony.
        for slot in 0..self.conns.len() {
            if self.conns[slot].has_socket {
                self.shut(slot as u32).map_err(machine)?;
            }
        }
        self.turn_until(GOODBYE_NS, |worker| worker.conns.iter().any(|c| c.has_socket))?;
        self.forget_sessions()
    }

    fn say_goodbye(&mut self, slot: u32) -> std::io::Result<()> {
        let conn = &mut self.conns[slot as usize];
        if !matches!(conn.phase, Phase::Up | Phase::AwaitingSuback) {
            return Ok(());
        }
        if matches!(conn.role, Role::Publisher(_)) && self.spec.retain {
            self.traffic.remove_retained(conn.local, &mut conn.out);
        }
        if conn.session_kept && self.spec.version == Version::V5 {
            encode::disconnect_for_good(&mut conn.out);
            conn.session_kept = false;
        } else {
            encode::disconnect(&mut conn.out);
        }
        conn.phase = Phase::Leaving;
        conn.slow = false;
        self.stage(slot);
        self.receive_more(slot)
    }

    fn turn_until(&mut self, patience_ns: u64, busy: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let deadline = self.now() + patience_ns;
        while busy(self) && self.now() < deadline {
            let now = self.now();
            self.turn(now + 2_000_000)?;
        }
        Ok(())
    }

    /// Connects once more with a clean session, for each session that DISCONNECT has not ended.
    fn forget_sessions(&mut self) -> Result<(), Failure> {
        let kept = |slot: &u32| {
            let conn = &self.conns[*slot as usize];
            conn.session_kept && !conn.has_socket
        };
        let mut left: Vec<u32> = (0..self.conns.len() as u32).filter(kept).collect();
        let total = left.len();
        self.forgetting = true;
        let (mut opened, mut done, mut moved_at) = (0, 0, self.now());
        while self.links.forgotten < total && self.now() - moved_at < FORGET_NS {
            while opened - self.links.forgotten < RECONNECTING_MAX
                && let Some(slot) = left.pop()
            {
                let now = self.now();
                self.open(slot, now)?;
                opened += 1;
            }
            let now = self.now();
            self.turn(now + 2_000_000)?;
            if self.links.forgotten != done {
                (done, moved_at) = (self.links.forgotten, now);
            }
        }
        self.turn_until(GOODBYE_NS, |worker| worker.conns.iter().any(|c| c.phase == Phase::Leaving))?;
        match total - self.links.forgotten {
            0 => Ok(()),
            sessions => Err(Failure::Leftovers { sessions }),
        }
    }
}
