//! What one worker measures: histograms, counts, and both again for each second.
//!
//! Latency is filed under the time at which a message was due (open loop) or sent (closed loop); the rate per second
//! under the time at which something happened. Only what was due between the end of the warm-up and the end of the
//! measured time enters the totals.

use hdrhistogram::Histogram;

use crate::check::Faults;

/// Histograms span 1 ns to 60 s with three digits; what is longer counts as 60 s.
pub const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// An empty histogram of nanoseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("constant bounds are valid")
}

/// One second of one worker.
pub struct Interval {
    pub worker: u32,
    /// Seconds since messages began to flow, warm-up included.
    pub second: u32,
    /// Messages that were due.
    pub offered: u64,
    pub sent: u64,
    pub delivered: u64,
    /// Clients that became ready (again).
    pub connected: u64,
    /// Messages known to be missing so far (they may still come).
    pub missing: u64,
    pub latency: Histogram<u32>,
}

/// Everything that one worker has to say at the end.
pub struct Totals {
    pub latency: Histogram<u64>,
    pub uncorrected: Histogram<u64>,
    /// How late this generator was by its own fault.
    pub lateness: Histogram<u64>,
    /// How late its threads were when they had set themselves a time to wake up, in any run.
    pub wakeups: Histogram<u64>,
    /// PUBLISH to PUBACK or PUBCOMP.
    pub acks: Histogram<u64>,
    /// From when a connect was due (or a client cut off) until the client was ready; the first connects of a run in
    /// a run about connects, those after a storm in a run about reconnects.
    pub connects: Histogram<u64>,
    /// The same from when the connect began.
    pub connects_uncorrected: Histogram<u64>,
    /// Clients that became ready for the first time, and again.
    pub connected: u64,
    pub reconnected: u64,
    /// Storms of reconnects.
    pub storms: u64,
    /// Time from a cut until all were ready again, all storms together.
    pub storm_ns: u64,
    /// When the last thing that counts happened.
    pub last_ns: u64,
    /// Messages that slow subscribers received.
    pub slow_delivered: u64,
    /// Messages due, sent, and copies delivered in the measured time.
    pub offered: u64,
    pub sent: u64,
    pub delivered: u64,
    pub delivered_bytes: u64,
    /// The same over the whole run, warm-up and drain included.
    pub offered_all: u64,
    pub sent_all: u64,
    pub unique_all: u64,
    pub delivered_all: u64,
    /// Messages that were due but could not be sent: the broker took no more, or the generator did not keep up.
    pub unsent: u64,
    /// Copies that were written off to get a closed loop going again.
    pub forgiven: u64,
    pub redelivered: u64,
    pub faults: Faults,
}

impl Totals {
    pub fn new() -> Totals {
        Totals {
            latency: histogram(),
            uncorrected: histogram(),
            lateness: histogram(),
            wakeups: histogram(),
            acks: histogram(),
            connects: histogram(),
            connects_uncorrected: histogram(),
            connected: 0,
            reconnected: 0,
            storms: 0,
            storm_ns: 0,
            last_ns: 0,
            slow_delivered: 0,
            offered: 0,
            sent: 0,
            delivered: 0,
            delivered_bytes: 0,
            offered_all: 0,
            sent_all: 0,
            unique_all: 0,
            delivered_all: 0,
            unsent: 0,
            forgiven: 0,
            redelivered: 0,
            faults: Faults::default(),
        }
    }

    pub fn add(&mut self, other: &Totals) {
        for (mine, theirs) in [
            (&mut self.latency, &other.latency),
            (&mut self.uncorrected, &other.uncorrected),
            (&mut self.lateness, &other.lateness),
            (&mut self.wakeups, &other.wakeups),
            (&mut self.acks, &other.acks),
            (&mut self.connects, &other.connects),
            (&mut self.connects_uncorrected, &other.connects_uncorrected),
        ] {
            mine.add(theirs).expect("all histograms have the same bounds");
        }
        self.offered += other.offered;
        self.sent += other.sent;
        self.delivered += other.delivered;
        self.delivered_bytes += other.delivered_bytes;
        self.offered_all += other.offered_all;
        self.sent_all += other.sent_all;
        self.unique_all += other.unique_all;
        self.delivered_all += other.delivered_all;
        self.unsent += other.unsent;
        self.forgiven += other.forgiven;
        self.redelivered += other.redelivered;
        self.connected += other.connected;
        self.reconnected += other.reconnected;
        self.slow_delivered += other.slow_delivered;
        // Storms pass on all workers at once.
        self.storms = self.storms.max(other.storms);
        self.storm_ns = self.storm_ns.max(other.storm_ns);
        self.last_ns = self.last_ns.max(other.last_ns);
        self.faults.add(&other.faults);
    }
}

impl Default for Totals {
    fn default() -> Self {
        Totals::new()
    }
}

/// Copies in a row that took equally long: those of one batch. They enter the histograms together.
#[derive(Default)]
struct Alike {
    latency_ns: u64,
    copies: u64,
    /// How many of them were due in the measured time, and would also have been measured by a client that waits.
    measured: u64,
    uncorrected: u64,
}

/// See the top of the file.
pub struct Meter {
    worker: u32,
    pub totals: Totals,
    /// The measured time, on the run's clock.
    from_ns: u64,
    to_ns: u64,
    start_ns: u64,
    second: u32,
    second_ends_ns: u64,
    interval: Interval,
    alike: Alike,
}

const SECOND_NS: u64 = 1_000_000_000;

fn interval(worker: u32, second: u32) -> Interval {
    let latency = Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("constant bounds are valid");
    Interval { worker, second, offered: 0, sent: 0, delivered: 0, connected: 0, missing: 0, latency }
}

impl Meter {
    pub fn new(worker: u32) -> Meter {
        Meter {
            worker,
            totals: Totals::new(),
            from_ns: u64::MAX,
            to_ns: u64::MAX,
            start_ns: u64::MAX,
            second: 0,
            second_ends_ns: u64::MAX,
            interval: interval(worker, 0),
            alike: Alike::default(),
        }
    }

    /// Messages begin to flow at `start_ns`; the measured time is `from_ns..to_ns`.
    pub fn begin(&mut self, start_ns: u64, from_ns: u64, to_ns: u64) {
        (self.start_ns, self.from_ns, self.to_ns) = (start_ns, from_ns, to_ns);
        self.second_ends_ns = start_ns + SECOND_NS;
    }

    #[inline]
    fn measured(&self, at_ns: u64) -> bool {
        at_ns >= self.from_ns && at_ns < self.to_ns
    }

    #[inline]
    pub fn offered(&mut self, due_ns: u64, count: u64) {
        self.totals.offered_all += count;
        self.interval.offered += count;
        if self.measured(due_ns) {
            self.totals.offered += count;
        }
    }

    #[inline]
    pub fn sent(&mut self, now_ns: u64, count: u64) {
        self.totals.sent_all += count;
        self.interval.sent += count;
        if self.measured(now_ns) {
            self.totals.sent += count;
        }
    }

    #[inline]
    pub fn late(&mut self, due_ns: u64, lateness_ns: u64) {
        if self.measured(due_ns) {
            self.totals.lateness.saturating_record(lateness_ns.max(1));
        }
    }

    /// The thread wanted to look at its work `overshoot_ns` ago.
    pub fn woke(&mut self, now_ns: u64, overshoot_ns: u64) {
        if self.measured(now_ns) {
            self.totals.wakeups.saturating_record(overshoot_ns.max(1));
        }
    }

    /// A copy arrived: `uncorrected` says whether a client that waits would have measured it too.
    #[inline]
    pub fn delivered(&mut self, now_ns: u64, due_ns: u64, bytes: usize, uncorrected: bool) {
        let latency = now_ns.saturating_sub(due_ns).max(1);
        self.totals.delivered_all += 1;
        self.totals.last_ns = now_ns;
        self.interval.delivered += 1;
        if self.measured(now_ns) {
            self.totals.delivered += 1;
            self.totals.delivered_bytes += bytes as u64;
        }
        if self.alike.latency_ns != latency {
            self.record_alike();
            self.alike.latency_ns = latency;
        }
        let measured = self.measured(due_ns);
        self.alike.copies += 1;
        self.alike.measured += u64::from(measured);
        self.alike.uncorrected += u64::from(measured && uncorrected);
    }

    /// Files the copies that took equally long.
    fn record_alike(&mut self) {
        let Alike { latency_ns, copies, measured, uncorrected } = std::mem::take(&mut self.alike);
        if copies > 0 {
            self.interval.latency.saturating_record_n(latency_ns, copies as u32);
        }
        if measured > 0 {
            self.totals.latency.saturating_record_n(latency_ns, measured);
        }
        if uncorrected > 0 {
            self.totals.uncorrected.saturating_record_n(latency_ns, uncorrected);
        }
    }

    /// A copy without a header arrived.
    #[inline]
    pub fn delivered_unchecked(&mut self, now_ns: u64, bytes: usize) {
        self.totals.delivered_all += 1;
        self.interval.delivered += 1;
        if self.measured(now_ns) {
            self.totals.delivered += 1;
            self.totals.delivered_bytes += bytes as u64;
        }
    }

    #[inline]
    pub fn acked(&mut self, sent_ns: u64, now_ns: u64) {
        if self.measured(sent_ns) {
            self.totals.acks.saturating_record(now_ns.saturating_sub(sent_ns).max(1));
        }
    }

    /// A client is ready for the first time.
    pub fn connected(&mut self, due_ns: u64, began_ns: u64, now_ns: u64) {
        self.totals.connected += 1;
        self.ready(due_ns, began_ns, now_ns);
    }

    /// The first reconnect begins: the first connects are of no more interest.
    pub fn begin_reconnects(&mut self) {
        self.totals.connects.reset();
        self.totals.connects_uncorrected.reset();
    }

    /// A client is ready again.
    pub fn reconnected(&mut self, due_ns: u64, began_ns: u64, now_ns: u64) {
        self.totals.reconnected += 1;
        self.ready(due_ns, began_ns, now_ns);
    }

    fn ready(&mut self, due_ns: u64, began_ns: u64, now_ns: u64) {
        self.interval.connected += 1;
        self.totals.connects.saturating_record(now_ns.saturating_sub(due_ns).max(1));
        self.totals.connects_uncorrected.saturating_record(now_ns.saturating_sub(began_ns).max(1));
    }

    /// Something happened until which a run without a fixed length lasts.
    pub fn last(&mut self, now_ns: u64) {
        self.totals.last_ns = self.totals.last_ns.max(now_ns);
    }

    /// Ends the current second if it is over, once for each call.
    #[inline]
    pub fn second_over(&mut self, now_ns: u64) -> Option<Interval> {
        if now_ns < self.second_ends_ns {
            return None;
        }
        self.record_alike();
        self.second += 1;
        self.second_ends_ns += SECOND_NS;
        let mut done = std::mem::replace(&mut self.interval, interval(self.worker, self.second));
        done.missing = self.totals.faults.lost;
        Some(done)
    }

    /// Ends the last second early.
    pub fn finish(&mut self) -> Interval {
        self.record_alike();
        let mut done = std::mem::replace(&mut self.interval, interval(self.worker, self.second + 1));
        done.missing = self.totals.faults.lost;
        done
    }

    pub fn second_ends_ns(&self) -> u64 {
        self.second_ends_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_that_took_equally_long_are_filed_one_by_one_all_the_same() {
        let mut meter = Meter::new(0);
        meter.begin(1000, 2000, SECOND_NS);
        // Due before the measured time, in it, and the latter also for a client that waits; all took 500.
        for (due, uncorrected) in [(1500, true), (2500, false), (3500, true)] {
            meter.delivered(due + 500, due, 64, uncorrected);
        }
        meter.delivered(9000, 8000, 64, true);
        let first = meter.second_over(1000 + SECOND_NS).unwrap();
        assert_eq!(
            (first.latency.len(), first.latency.count_at(500), first.latency.count_at(1000)),
            (4, 3, 1)
        );
        meter.delivered(SECOND_NS + 500, SECOND_NS - 1500, 64, false);
        assert_eq!(meter.finish().latency.len(), 1);
        let totals = &meter.totals;
        assert_eq!((totals.latency.len(), totals.latency.count_at(500), totals.uncorrected.len()), (4, 2, 2));
        assert_eq!((totals.delivered_all, totals.delivered), (5, 4));
    }
}
