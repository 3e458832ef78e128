//! The process as its operator and its worst clients see it: start, stop, hostile peers, slow subscribers, leaks.
//!
//! What the standards say is in `tests/conformance`; here are limits, memory, processor time and exit codes. Each
//! test has a broker of its own.

#[path = "../support/mod.rs"]
mod support;

mod ends;
mod forbidden;
mod hostile;
mod leaks;
mod limits;
mod logins;
mod report;
mod session_memory;
mod slow;
mod start;
mod stop;
mod told;
