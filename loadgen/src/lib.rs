//! `loadgen` measures any MQTT broker over the network.
//!
//! `unsafe` stands in two files only: `ring.rs` (io_uring) and `sys.rs` (calls of libc).
#![deny(unsafe_code)]

pub mod ring;
pub mod sys;
