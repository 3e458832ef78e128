//! Who is let in, and what they may do there.
//!
//! - [`rules`], `pattern`, [`acl_file`]: what a client may publish and receive. Pure.
//! - [`users`], `password`, `cost`, [`passwd`]: names, hashes, and the command that writes them.
//! - [`login`]: what a shard asks about a password; [`hashing`]: the threads that answer, with their `queue`, the `room` that
//!   they share, what they remember (`verified`, `failures`), and how (`recent`).
//! - [`settings`]: the files that all this is read from; [`gate`]: the policy in force and one shard's share of it.
//!
//! What it is not: it sees no connection, no packet and no session. The shard asks and acts.

pub mod acl_file;
mod cost;
mod failures;
pub(crate) mod gate;
pub(crate) mod hashing;
pub(crate) mod login;
pub(crate) mod passwd;
mod password;
mod pattern;
mod queue;
mod recent;
mod room;
pub(crate) mod rules;
pub(crate) mod settings;
pub(crate) mod users;
mod verified;

#[cfg(test)]
mod rules_tests;

// What tests and benches use besides the broker.
pub use gate::{Access, Door, Policy};
pub use login::{Answer, Login, Outcome, Verdict, Verifier};
pub use rules::Rules;
pub use users::Users;

pub(crate) use cost::Cost;
pub(crate) use gate::{Anonymous, ClientIds, Denial, Identity, Overlap, Rights};
pub(crate) use login::LOGIN_WAIT_MAX_MS;
pub(crate) use pattern::Who;
pub(crate) use rules::{Subscribable, is_sys};
pub(crate) use settings::{FileError, Settings};
