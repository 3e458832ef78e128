//! An MQTT broker for Linux.
#![deny(unsafe_code)]

#[cfg(feature = "count-allocations")]
pub mod allocator;
pub mod clock;
pub mod config;
pub mod io;
pub mod limits;
pub mod log;
pub mod memory;
pub mod mesh;
pub mod metrics;
pub mod server;
pub mod session;
pub mod shard;
pub mod timer;
pub mod topic;
pub mod wire;
