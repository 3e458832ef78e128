//! The modules of the broker that hold `unsafe` or share memory between threads, for a build with a sanitizer.
//!
//! `scripts/sanitize` copies this and the modules into one crate and runs their own tests. It stands in no other build.
#![allow(dead_code, unused_imports)] // Most of their users stayed behind.

pub mod clock;
pub mod io;
pub mod log;
pub mod memory;
pub mod mesh;

/// What `memory` needs of the codec.
pub mod wire {
    #[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
    pub enum Qos {
        AtMostOnce,
        AtLeastOnce,
        ExactlyOnce,
    }
}
