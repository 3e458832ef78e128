//! Byte budgets: one pool per class for the whole process, leased by shards in chunks.
//!
//! A shard charges what it keeps against its lease and goes to the shared pool only when the lease is used up, so
//! that the common charge touches no shared cache line. What a shard holds beyond its needs is at most one chunk.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// What memory is kept for; each class has its own bound.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Class {
    /// Partial packets that wait for their rest.
    Receive = 0,
    /// Encoded bytes that wait for a socket.
    Send = 1,
    /// Messages in sessions: queued or in flight.
    Queue = 2,
    /// Retained messages.
    Retained = 3,
    /// Messages between shards.
    Mesh = 4,
    /// Sessions themselves: their records and wills.
    Session = 5,
    /// Subscriptions, their filters, and what is known of other shards' filters.
    Subscription = 6,
    /// Unfinished CONNECTs of all who are not logged in.
    Login = 7,
}

impl Class {
    /// All of them, in the order of their numbers.
    pub const ALL: [Class; CLASSES] = [
        Class::Receive,
        Class::Send,
        Class::Queue,
        Class::Retained,
        Class::Mesh,
        Class::Session,
        Class::Subscription,
        Class::Login,
    ];
}

/// Number of classes.
pub const CLASSES: usize = 8;

/// The bytes that all shards may keep, by class.
#[derive(Debug)]
pub struct Pool {
    free: [AtomicI64; CLASSES],
    /// Half of what each class has.
    halves: [AtomicI64; CLASSES],
}

impl Pool {
    /// `limits` in bytes, indexed by [`Class`].
    pub fn new(limits: [u64; CLASSES]) -> Arc<Pool> {
        let limits = limits.map(|limit| limit.min(i64::MAX as u64) as i64);
        Arc::new(Pool {
            free: limits.map(AtomicI64::new),
            halves: limits.map(|limit| AtomicI64::new(limit / 2)),
        })
    }

    /// The bounds become `now` where they were `before`. What was charged stays: a class that holds more than its new bound
    /// gets nothing more until it holds less.
    pub fn resize(&self, before: [u64; CLASSES], now: [u64; CLASSES]) {
        let signed = |limit: u64| limit.min(i64::MAX as u64) as i64;
        for (((free, half), before), now) in self.free.iter().zip(&self.halves).zip(before).zip(now) {
            free.fetch_add(signed(now) - signed(before), Ordering::Relaxed);
            half.store(signed(now) / 2, Ordering::Relaxed);
        }
    }

    /// Bytes that no shard has leased.
    pub fn free(&self, class: Class) -> i64 {
        self.free[class as usize].load(Ordering::Relaxed)
    }

    fn take(&self, class: Class, bytes: i64) -> bool {
        debug_assert!(bytes > 0, "{class:?} leases {bytes} bytes");
        // Never taken for a moment only: another shard that needs less meanwhile would be refused.
        let enough = |free: i64| (free >= bytes).then_some(free - bytes);
        self.free[class as usize].fetch_update(Ordering::Relaxed, Ordering::Relaxed, enough).is_ok()
    }

    fn give(&self, class: Class, bytes: i64) {
        self.free[class as usize].fetch_add(bytes, Ordering::Relaxed);
    }
}

/// One class of one shard.
#[derive(Debug, Default, Copy, Clone)]
pub struct Lease {
    leased: i64,
    used: i64,
    /// The pool had no whole chunk the last time: what is given back goes back at once, since others may need it.
    scarce: bool,
}

/// One shard's leases.
#[derive(Debug)]
pub struct Budget {
    pool: Arc<Pool>,
    leases: [Lease; CLASSES],
}

impl Budget {
    /// Bytes leased at a time.
    pub const CHUNK: i64 = 256 * 1024;

    pub fn new(pool: Arc<Pool>) -> Budget {
        Budget { pool, leases: [Lease::default(); CLASSES] }
    }

    /// Charges `bytes`; false, and nothing charged, if the whole process has no more of this class.
    #[must_use]
    pub fn charge(&mut self, class: Class, bytes: usize) -> bool {
        let lease = &mut self.leases[class as usize];
        let bytes = bytes as i64;
        let missing = lease.used + bytes - lease.leased;
        if missing > 0 {
            // A chunk if there is one, else just what is needed: near the limit every byte counts.
            let chunk = missing.max(Self::CHUNK);
            lease.scarce = !self.pool.take(class, chunk);
            if !lease.scarce {
                lease.leased += chunk;
            } else if self.pool.take(class, missing) {
                lease.leased += missing;
            } else {
                return false;
            }
        }
        lease.used += bytes;
        true
    }

    /// Charges `bytes` of which something else could do without: only while half of the class is free afterwards.
    #[must_use]
    pub fn charge_spare(&mut self, class: Class, bytes: usize) -> bool {
        let spare =
            self.pool.free(class) - bytes as i64 >= self.pool.halves[class as usize].load(Ordering::Relaxed);
        spare && self.charge(class, bytes)
    }

    /// Whether `bytes` could be charged now: what only then turns out to be less is charged by [`Budget::charge_always`].
    #[must_use]
    pub fn has_room(&mut self, class: Class, bytes: usize) -> bool {
        let fits = self.charge(class, bytes);
        if fits {
            self.release(class, bytes);
        }
        fits
    }

    /// Makes what is charged for one thing `now` instead of `before`, in any case.
    pub fn recharge(&mut self, class: Class, before: usize, now: usize) {
        if now > before {
            self.charge_always(class, now - before);
        } else {
            self.release(class, before - now);
        }
    }

    /// Charges what must be kept in any case; the class may go beyond its bound by it.
    pub fn charge_always(&mut self, class: Class, bytes: usize) {
        if !self.charge(class, bytes) {
            let lease = &mut self.leases[class as usize];
            let missing = lease.used + bytes as i64 - lease.leased;
            self.pool.give(class, -missing);
            lease.leased += missing;
            lease.used += bytes as i64;
        }
    }

    /// Gives back what was charged.
    pub fn release(&mut self, class: Class, bytes: usize) {
        let lease = &mut self.leases[class as usize];
        lease.used -= bytes as i64;
        debug_assert!(lease.used >= 0, "{class:?} released more than was charged");
        let (kept, least) = if lease.scarce { (0, 1) } else { (Self::CHUNK, Self::CHUNK) };
        let spare = lease.leased - lease.used - kept;
        if spare >= least {
            lease.leased -= spare;
            self.pool.give(class, spare);
        }
    }

    /// Bytes charged by this shard.
    pub fn used(&self, class: Class) -> u64 {
        self.leases[class as usize].used.max(0) as u64
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        for (class, lease) in self.leases.iter().enumerate() {
            self.pool.free[class].fetch_add(lease.leased, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_beyond_the_pool_is_refused_whole() {
        let pool = Pool::new([1_000_000; CLASSES]);
        let mut one = Budget::new(pool.clone());
        let mut two = Budget::new(pool.clone());
        assert!(one.charge(Class::Queue, 600_000));
        assert!(!two.charge(Class::Queue, 600_000));
        assert_eq!(two.used(Class::Queue), 0);
        assert!(two.charge(Class::Retained, 600_000), "classes are apart");
        one.release(Class::Queue, 600_000);
        assert!(two.charge(Class::Queue, 600_000));
        assert!(!one.has_room(Class::Queue, 600_000) && one.has_room(Class::Queue, 400_000));
        one.recharge(Class::Queue, 0, 500_000);
        assert_eq!(
            (one.used(Class::Queue), pool.free(Class::Queue)),
            (500_000, -100_000),
            "beyond the bound"
        );
        one.recharge(Class::Queue, 500_000, 100);
        assert_eq!(one.used(Class::Queue), 100);
        assert!(!two.charge_spare(Class::Send, 600_000), "half of it is kept for others");
        assert!(two.charge_spare(Class::Send, 400_000) && !one.charge_spare(Class::Send, 400_000));
        assert!(one.charge(Class::Send, 400_000));
        pool.resize([1_000_000; CLASSES], [500_000; CLASSES]);
        assert!(!one.charge(Class::Queue, 400_000), "the class holds more than it may now");
        pool.resize([500_000; CLASSES], [1_000_000; CLASSES]);
        drop((one, two));
        assert_eq!(pool.free(Class::Queue), 1_000_000);
        assert_eq!(pool.free(Class::Retained), 1_000_000);
    }
}
