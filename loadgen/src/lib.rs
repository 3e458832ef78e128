//! `loadgen` measures any MQTT broker over the network.
//!
//! `unsafe` stands in two files only: `ring.rs` (io_uring) and `sys.rs` (a socket option).
#![deny(unsafe_code)]

pub mod calibrate;
pub mod check;
pub mod cli;
pub mod compare;
pub mod engine;
pub mod environment;
pub mod failure;
pub mod findmax;
pub mod holds;
pub mod live;
pub mod locate;
pub mod payload;
pub mod probe;
pub mod procfs;
pub mod report;
pub mod ring;
pub mod schedule;
pub mod spec;
pub mod sys;
pub mod threshold;
pub mod topics;
pub mod transport;
pub mod verdict;
pub mod wire;
