//! Addresses from which logins failed, and how long they have to wait.
//!
//! The first few failures are free. After each further one the client is told late, and until then no password from its
//! address is looked at; the wait doubles up to a few seconds. Who logs in with credentials that were verified a moment
//! ago is not asked, so neighbours of an attacker behind one address keep their connections. A quiet address is
//! forgotten.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ahash::RandomState;

/// Failures without a wait.
const FREE: u32 = 4;
const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_millis(3200);
/// An address without a failure for so long starts anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// Addresses at most. Beyond it the one that has been quiet for longest is forgotten.
pub(super) const FAILED_ADDRESSES_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Failures {
    addresses: HashMap<IpAddr, Failed, RandomState>,
}

#[derive(Debug)]
struct Failed {
    count: u32,
    last: Instant,
    until: Instant,
}

impl Failures {
    /// Whether a password from this address may be looked at now.
    pub(super) fn may_try(&self, peer: IpAddr, now: Instant) -> bool {
        self.addresses.get(&prefix(peer)).is_none_or(|failed| failed.until <= now)
    }

    /// One more failure; returns how long to hold the answer back.
    pub(super) fn failed(&mut self, peer: IpAddr, now: Instant) -> Duration {
        let peer = prefix(peer);
        if self.addresses.len() >= FAILED_ADDRESSES_MAX && !self.addresses.contains_key(&peer) {
            self.addresses.retain(|_, failed| now < failed.last + FORGOTTEN_AFTER);
            if self.addresses.len() >= FAILED_ADDRESSES_MAX
                && let Some(quiet) =
                    self.addresses.iter().min_by_key(|(_, failed)| failed.last).map(|(peer, _)| *peer)
            {
                self.addresses.remove(&quiet);
            }
        }
        let failed = self.addresses.entry(peer).or_insert(Failed { count: 0, last: now, until: now });
        if now >= failed.last + FORGOTTEN_AFTER {
            failed.count = 0;
        }
        failed.count = failed.count.saturating_add(1);
        failed.last = now;
        let wait = match failed.count.checked_sub(FREE + 1) {
            None => Duration::ZERO,
            Some(doublings) => WAIT_MIN.saturating_mul(1 << doublings.min(16)).min(WAIT_MAX),
        };
        failed.until = now + wait;
        wait
    }
}

/// A network of IPv6 counts as one address, since whoever has one has all of it.
fn prefix(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn waits_double_and_end() {
        let start = Instant::now();
        let mut failures = Failures::default();
        let waits: Vec<u128> = (0..11).map(|_| failures.failed(address(1), start).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 100, 200, 400, 800, 1600, 3200, 3200]);
        assert!(!failures.may_try(address(1), start) && failures.may_try(address(2), start));
        assert!(failures.may_try(address(1), start + WAIT_MAX));
        assert_eq!(failures.failed(address(1), start + FORGOTTEN_AFTER), Duration::ZERO);
    }

    #[test]
    fn the_table_is_bounded_and_the_loudest_stay() {
        let start = Instant::now();
        let mut failures = Failures::default();
        for number in 0..FAILED_ADDRESSES_MAX as u32 + 100 {
            let now = start + Duration::from_micros(number.into());
            failures.failed(address(number), now);
            failures.failed(address(u32::MAX), now);
        }
        assert_eq!(failures.addresses.len(), FAILED_ADDRESSES_MAX);
        assert!(!failures.may_try(address(u32::MAX), start + Duration::from_millis(100)));
    }

    #[test]
    fn one_network_is_one_address() {
        let start = Instant::now();
        let mut failures = Failures::default();
        for host in 0..10u128 {
            let peer = IpAddr::V6((0x2001_0db8 << 96 | host).into());
            failures.failed(peer, start);
        }
        assert!(!failures.may_try(IpAddr::V6((0x2001_0db8 << 96 | 99).into()), start));
        assert!(failures.may_try(IpAddr::V6((0x2001_0db8 << 96 | 1 << 64).into()), start));
    }
}
