//! Who is let in, and what they may do there.
//!
//! - [`rules`], `pattern`, [`acl_file`]: what a client may publish and receive. Pure.
//! - [`users`], `password`, [`passwd`]: names, hashes, and the command that writes them.
//! - [`login`]: what a shard asks about a password; [`hashing`], `verified`, `failures`: the threads that answer.
//! - [`settings`]: the files that all this is read from; [`gate`]: the policy in force and one shard's share of it.
//!
//! What it is not: it sees no connection, no packet and no session. The shard asks and acts.

pub mod acl_file;
mod failures;
pub mod gate;
pub mod hashing;
pub mod login;
pub mod passwd;
mod password;
mod pattern;
pub mod rules;
pub mod settings;
pub mod users;
mod verified;

#[cfg(test)]
mod rules_tests;

pub use gate::{Access, Anonymous, ClientIds, Current, Denial, Door, Identity, Overlap, Policy, Rights};
pub use login::{Answer, Login, Outcome, Verdict, Verifier};
pub use pattern::{Names, Who};
pub use rules::{Action, Effect, Grants, Permissions, Rule, Rules, Subject, Subscribable, is_sys};
pub use settings::{FileError, Settings};
pub use users::Users;
