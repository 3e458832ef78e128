//! Users, rules and the ownership of sessions, against the real binary over TCP.
//!
//! Every broker here has files of its own, since rules are changed and read again while it runs. What must not arrive
//! is always followed by something that must, so that no test passes because nothing arrives at all.

mod config;
mod listeners;
mod login;
mod matrix;
mod passwd;
mod place;
mod reload;
mod rules;
mod sessions;
mod storm;
#[path = "../support/mod.rs"]
mod support;
