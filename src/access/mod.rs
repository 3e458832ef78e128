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
pub mod gate;
pub mod hashing;
pub mod login;
pub mod passwd;
mod password;
mod pattern;
mod queue;
mod recent;
mod room;
pub mod rules;
pub mod settings;
pub mod users;
mod verified;

#[cfg(test)]
mod rules_tests;

pub use cost::Cost;
pub use gate::{Access, Anonymous, ClientIds, Denial, Door, Identity, Overlap, Policy, Rights};
pub use login::{Answer, LOGIN_WAIT_MAX_MS, Login, Outcome, Verdict, Verifier};
pub use pattern::{Names, Who};
pub use rules::{Action, Effect, Grants, Permissions, Rule, Rules, Subject, Subscribable, is_sys};
pub use settings::{FileError, Settings};
pub use users::Users;
