//! The standards, statement by statement, against the real binary over TCP.
//!
//! A test bears the ids of the statements that it shows: `mqtt_3_3_1_8_` is [MQTT-3.3.1-8] of MQTT 5.0,
//! `mqtt311_3_3_1_5_` the same of 3.1.1; `u5_`, `u311_` and `v31_` are rules without a number, listed with all
//! others in `docs/conformance.toml`. `scripts/conformance` joins the list, the code and these names.
//! Every body runs with one shard and with four.

mod acks;
mod alias;
mod connack;
mod connect;
mod data_types;
mod disconnect;
mod expiry;
mod flow;
mod framing;
mod judge;
mod keep_alive;
mod login;
mod malformed;
mod model;
mod publish;
mod qos;
mod resume;
mod retain;
mod session;
mod shared;
mod shared_stuck;
mod states;
mod subscribe;
mod subscription_id;
#[path = "../support/mod.rs"]
mod support;
mod topics;
mod unsubscribe;
mod v31;
mod will;
