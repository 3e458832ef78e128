//! What the black-box tests share: a broker process, a scripted client and an independent wire format.
//!
//! Not a client library: the client does what a test tells it and nothing else; it never answers by itself.
//! Nothing here uses the broker's own codec, so that a mistake cannot hide by being made twice.
//!
//! Invariants: every wait is bounded; every process started here is ended, also when a test panics or its
//! process is killed; every packet from the broker goes through the strict decoder, whatever the test is about.
#![allow(dead_code, unused_imports, reason = "each test binary uses its own part of this module")]

pub mod broker;
pub mod client;
pub mod decode;
pub mod each;
pub mod encode;
pub mod live;
pub mod property;

pub use broker::Broker;
pub use client::{Client, Event, refuse, refuse_first};
pub use decode::{Ack, Connack, Packet};
pub use each::{each, each_of, each_version, each_with, name};
pub use encode::{Connect, Publish, Version, Will};
pub use property::Property;

pub use Version::{V5, V31, V311};
