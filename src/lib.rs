//! An MQTT broker for Linux.
#![deny(unsafe_code)]

pub mod clock;
pub mod io;
pub mod limits;
pub mod memory;
pub mod mesh;
pub mod metrics;
pub mod timer;
pub mod wire;
