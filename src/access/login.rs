//! What a shard asks of whoever verifies passwords.

use std::net::IpAddr;
use std::sync::Arc;

use crate::clock::Millis;
use crate::memory::Key;

/// How long a login may wait for its hash. Beyond it CONNACK says 0x89 (3 in 3.x).
pub const LOGIN_WAIT_MAX_MS: Millis = 120_000;

/// A user name and a password that came with a CONNECT.
#[derive(Copy, Clone)]
pub struct Login<'a> {
    /// Which file of users is asked.
    pub users: u16,
    pub user: &'a str,
    pub password: &'a [u8],
    pub peer: IpAddr,
    /// Comes back with the answer.
    pub connection: Key,
    /// Milliseconds after which nobody waits for the answer any more.
    pub patience_ms: Millis,
}

/// What is known at once.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Verified(Arc<str>),
    /// One [`Answer`] will come, on the shard's desk.
    Later,
    /// Too many wait already: CONNACK 0x88, 3 in 3.x.
    Busy,
}

/// What became of a login that was answered with [`Verdict::Later`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub connection: Key,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Verified(Arc<str>),
    /// The name or the password is wrong. The client is told after this time.
    Wrong {
        hold_ms: Millis,
    },
    /// The user at this address, or the address, has failed too often to be heard now.
    TooSoon,
    /// Its time was over before its turn came, or there was no memory for it.
    Late,
}

/// Verifies passwords for one shard. Never blocks; a simulator brings its own.
pub trait Verifier: Send {
    fn verify(&mut self, login: Login<'_>) -> Verdict;
}
