//! Logins that failed, and what follows for the next ones.
//!
//! Three things are told apart:
//! - **A user at an address.** The first few failures are free. After each further one the client is told late, and until
//!   then no other password of that user is hashed for that address; the wait doubles up to a few seconds.
//! - **The same wrong password again.** A device with an old password tries it for ever. It is known to be wrong, costs no
//!   hash, and harms nobody else, not even those who use the same name with the right password.
//! - **An address as a whole.** Its failures are charged what they cost in hashing. Beyond its allowance nothing from it is
//!   hashed for a moment, but for users that were let in from there before.
//!
//! Only failures that were hashed make entries here, so tables are never filled faster than passwords are hashed; and an
//! entry that is forgotten lets somebody guess a few times more, never without end.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ahash::RandomState;

use super::recent::Recent;
use super::verified::Tag;

/// Failures of a user at an address without a wait.
const FREE: u32 = 4;
const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_millis(3200);
/// A user at an address without a failure for so long starts anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// Wrong passwords of a user at an address that are remembered.
const WRONG_MAX: usize = 4;

/// Microseconds of hashing that the failures of an address may cost in a second: a tenth of a CPU.
const ADDRESS_MICROS_PER_SECOND: u64 = 100_000;
/// What they may cost at once.
const ADDRESS_MICROS_MAX: u64 = 2_000_000;
/// What a failure costs at least, or quick hashes could be guessed at quickly.
const FAILURE_MICROS_MIN: u64 = 5_000;

/// Pairs of user and address that failed at most; those that failed last are remembered.
pub(super) const FAILED_MAX: usize = 65_536;
/// Addresses with failures at most, as above.
pub(super) const FAILED_ADDRESSES_MAX: usize = 65_536;
/// Pairs of user and address that were let in at most; those that were let in last are remembered.
pub(super) const LET_IN_MAX: usize = 262_144;

/// Who tries to log in from where: a keyed hash of user, file of users and address.
pub(super) type Pair = u64;

/// What is known of a login before its password is hashed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Chance {
    Try,
    /// This very password was found wrong. The client is told after this time.
    Wrong(Duration),
    TooSoon,
}

#[derive(Debug)]
pub(super) struct Failures {
    keys: RandomState,
    pairs: Recent<Pair, Failed>,
    addresses: Recent<IpAddr, Spent>,
    let_in: Recent<Pair, ()>,
}

#[derive(Debug)]
struct Failed {
    count: u32,
    last: Instant,
    until: Instant,
    /// The beginnings of the tags of passwords that were found wrong, under the users of this epoch.
    wrong: [u64; WRONG_MAX],
    wrong_len: usize,
    epoch: u32,
}

/// What the failures of an address have cost, less what time has forgiven.
#[derive(Debug)]
struct Spent {
    micros: u64,
    at: Instant,
}

impl Spent {
    fn now(&mut self, now: Instant) -> u64 {
        let forgiven = now.saturating_duration_since(self.at).as_micros() as u64;
        self.micros = self.micros.saturating_sub(forgiven / (1_000_000 / ADDRESS_MICROS_PER_SECOND));
        self.at = now;
        self.micros
    }
}

impl Failed {
    fn wait(&self) -> Duration {
        match self.count.checked_sub(FREE + 1) {
            None => Duration::ZERO,
            Some(doublings) => WAIT_MIN.saturating_mul(1 << doublings.min(16)).min(WAIT_MAX),
        }
    }

    fn one_more(&mut self, now: Instant) -> Duration {
        if now >= self.last + FORGOTTEN_AFTER {
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        self.last = now;
        self.wait()
    }

    fn knows(&self, tag: &Tag, epoch: u32) -> bool {
        self.epoch == epoch && self.wrong[..self.wrong_len].contains(&beginning(tag))
    }
}

impl Default for Failures {
    fn default() -> Failures {
        Failures {
            keys: RandomState::new(),
            pairs: Recent::new(FAILED_MAX),
            addresses: Recent::new(FAILED_ADDRESSES_MAX),
            let_in: Recent::new(LET_IN_MAX),
        }
    }
}

impl Failures {
    pub(super) fn pair(&self, users: u16, user: &str, peer: IpAddr) -> Pair {
        self.keys.hash_one((users, user, prefix(peer)))
    }

    /// Whether a password may be hashed now. `epoch` is that of the users.
    pub(super) fn chance(&mut self, pair: Pair, peer: IpAddr, tag: &Tag, epoch: u32, now: Instant) -> Chance {
        if let Some(failed) = self.pairs.get_mut(&pair) {
            if failed.knows(tag, epoch) {
                return Chance::Wrong(failed.one_more(now));
            }
            if now < failed.until {
                return Chance::TooSoon;
            }
        }
        let spent = self.addresses.get_mut(&prefix(peer));
        if spent.is_some_and(|spent| spent.now(now) > ADDRESS_MICROS_MAX) && !self.was_let_in(pair) {
            return Chance::TooSoon;
        }
        Chance::Try
    }

    /// A password was hashed in vain, which cost so much. Returns how long to hold the answer back.
    pub(super) fn failed(
        &mut self,
        (pair, peer): (Pair, IpAddr),
        tag: &Tag,
        epoch: u32,
        micros: u64,
        now: Instant,
    ) -> Duration {
        let peer = prefix(peer);
        let micros = micros.max(FAILURE_MICROS_MIN);
        match self.addresses.get_mut(&peer) {
            Some(spent) => spent.micros = spent.now(now).saturating_add(micros),
            None => self.addresses.insert(peer, Spent { micros, at: now }),
        }
        if self.pairs.get_mut(&pair).is_none() {
            let wrong = [0; WRONG_MAX];
            self.pairs.insert(pair, Failed { count: 0, last: now, until: now, wrong, wrong_len: 0, epoch });
        }
        let Some(failed) = self.pairs.get_mut(&pair) else { return Duration::ZERO };
        if failed.epoch != epoch {
            (failed.epoch, failed.wrong_len) = (epoch, 0);
        }
        // The newest is in front.
        failed.wrong.rotate_right(1);
        failed.wrong[0] = beginning(tag);
        failed.wrong_len = (failed.wrong_len + 1).min(WRONG_MAX);
        let wait = failed.one_more(now);
        failed.until = now + wait;
        wait
    }

    pub(super) fn let_in(&mut self, pair: Pair) {
        self.let_in.insert(pair, ());
    }

    pub(super) fn was_let_in(&self, pair: Pair) -> bool {
        self.let_in.peek(&pair).is_some()
    }
}

fn beginning(tag: &Tag) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&tag[..8]);
    u64::from_ne_bytes(first)
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

    fn tag(number: u32) -> Tag {
        let mut tag = [0; 32];
        tag[..4].copy_from_slice(&number.to_ne_bytes());
        tag
    }

    /// A guess of `number` at this user, if it may be made.
    fn guess(failures: &mut Failures, user: &str, peer: IpAddr, number: u32, now: Instant) -> Chance {
        let pair = failures.pair(0, user, peer);
        let chance = failures.chance(pair, peer, &tag(number), 1, now);
        if chance == Chance::Try {
            return Chance::Wrong(failures.failed((pair, peer), &tag(number), 1, 1000, now));
        }
        chance
    }

    #[test]
    fn waits_of_a_user_at_an_address_double_and_end() {
        let mut now = Instant::now();
        let mut failures = Failures::default();
        let mut waits = Vec::new();
        for number in 0..11 {
            let Chance::Wrong(wait) = guess(&mut failures, "bob", address(1), number, now) else {
                panic!("{number} was not heard")
            };
            if wait > Duration::ZERO {
                assert_eq!(guess(&mut failures, "bob", address(1), 1000, now), Chance::TooSoon);
            }
            assert_ne!(guess(&mut failures, "eve", address(2), number, now), Chance::TooSoon);
            waits.push(wait.as_millis());
            now += wait;
        }
        assert_eq!(waits, [0, 0, 0, 0, 100, 200, 400, 800, 1600, 3200, 3200]);
        now += FORGOTTEN_AFTER;
        assert_eq!(guess(&mut failures, "bob", address(1), 99, now), Chance::Wrong(Duration::ZERO));
    }

    #[test]
    fn the_same_wrong_password_is_told_late_and_harms_nobody_else() {
        let now = Instant::now();
        let mut failures = Failures::default();
        let pair = failures.pair(0, "fleet", address(1));
        for round in 0..100_000u32 {
            // Two devices with two old passwords of a name that good ones share.
            let answer = guess(&mut failures, "fleet", address(1), round % 2, now);
            assert!(matches!(answer, Chance::Wrong(wait) if wait <= WAIT_MAX), "{answer:?}");
        }
        assert_eq!(
            failures.chance(pair, address(1), &tag(7), 1, now),
            Chance::Try,
            "the right one is hashed"
        );
        assert_eq!(failures.chance(pair, address(1), &tag(0), 2, now), Chance::Try, "the users have changed");
    }

    #[test]
    fn an_address_has_an_allowance_that_time_renews_and_those_who_were_let_in_do_not_need() {
        let mut now = Instant::now();
        let mut failures = Failures::default();
        let friend = failures.pair(0, "friend", address(1));
        failures.let_in(friend);
        let tries = |failures: &mut Failures, now| {
            let guess = |number| guess(failures, &format!("name {number}"), address(1), number, now);
            (0..10_000).map(guess).filter(|chance| matches!(chance, Chance::Wrong(_))).count() as u64
        };
        assert_eq!(tries(&mut failures, now), ADDRESS_MICROS_MAX / FAILURE_MICROS_MIN + 1);
        assert_eq!(failures.chance(friend, address(1), &tag(1), 1, now), Chance::Try);
        let stranger = failures.pair(0, "stranger", address(1));
        assert_eq!(failures.chance(stranger, address(1), &tag(1), 1, now), Chance::TooSoon);
        assert_eq!(failures.chance(stranger, address(2), &tag(1), 1, now), Chance::Try);
        now += Duration::from_secs(1);
        let later = failures.addresses.get_mut(&address(1)).unwrap().now(now);
        assert_eq!(later, ADDRESS_MICROS_MAX + FAILURE_MICROS_MIN - ADDRESS_MICROS_PER_SECOND);
        assert_eq!(failures.chance(stranger, address(1), &tag(1), 1, now), Chance::Try);
    }

    #[test]
    fn one_network_is_one_address() {
        let now = Instant::now();
        let mut failures = Failures::default();
        let host = |host: u128| IpAddr::V6((0x2001_0db8 << 96 | host).into());
        for number in 0..10 {
            let _ = guess(&mut failures, "bob", host(number.into()), number, now);
        }
        assert_eq!(guess(&mut failures, "bob", host(99), 99, now), Chance::TooSoon);
        assert_ne!(guess(&mut failures, "bob", host(1 << 64), 99, now), Chance::TooSoon);
        assert_eq!(failures.pair(0, "bob", host(1)), failures.pair(0, "bob", host(2)));
        assert_ne!(failures.pair(0, "bob", host(1)), failures.pair(1, "bob", host(1)));
    }
}
