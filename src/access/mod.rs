//! Who is let in, and what they may do there.
//!
//! - [`rules`], `pattern`, [`acl_file`]: what a client may publish and receive. Pure.

pub mod acl_file;
mod pattern;
pub mod rules;

#[cfg(test)]
mod rules_tests;

pub use pattern::{Names, Who};
pub use rules::{Action, Effect, Grants, Permissions, Rule, Rules, Subject, Subscribable};
