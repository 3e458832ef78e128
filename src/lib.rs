//! An MQTT 5.0, 3.1.1 and 3.1 broker for Linux: one thread, one io_uring and one share of the clients per core.
//! Messages go from core to core over single-producer single-consumer rings. What cores share besides is read often and
//! written seldom: rules, certificates, counters, announcements; only logins and handshakes take a lock.
//!
//! The decisions, with their reasons and costs, are in `docs/ARCHITECTURE.md`.
//!
//! # The map
//!
//! | module | what it is |
//! |---|---|
//! | `allocator` | counts allocations, for measurements; there only with the feature `count-allocations` |
//! | [`clock`] | time as a number that is handed in |
//! | [`limits`] | every limit of a client, named, with its default and what happens at it |
//! | [`metrics`] | counters of one shard, which anybody may read |
//! | [`log`] | one line per event, on stderr or in a file, bounded in rate |
//! | [`wire`] | bytes to Control Packets and back; pure, borrowed views |
//! | [`memory`] | keys with generations, kept messages, output buffers, byte budgets |
//! | [`topic`] | filters, subscriptions, routes, share groups, retained messages; pure |
//! | `timer` | deadlines of one shard |
//! | [`mesh`] | the rings between shards and the doorbell; knows no MQTT word |
//! | [`access`] | who is let in, and the rules about what they may do; and the threads that hash passwords |
//! | [`session`] | the MQTT behaviour of one client, without I/O |
//! | [`io`] | the kernel boundary: a trait, io_uring behind it, and a seeded fake; knows no MQTT word |
//! | [`transport`] | bytes to bytes between a socket and an MQTT stream, in layers: TLS; a plain connection has none |
//! | [`store`] | the message log: what is kept, on disk and back |
//! | [`shard`] | one core: the only place where all of these meet |
//! | [`config`] | flags and file to a checked configuration |
//! | [`server`] | the shards on their threads: start, clock, waiting, stop |
//!
//! # The layers
//!
//! A module uses those in rows below its own. Modules of one row never see each other. `tests/tidy.rs` has this table and
//! fails when a path leads up or sideways. (One type is excepted: a kept message has a [`wire::Qos`].)
//!
//! ```text
//!     server
//!     config
//!     shard
//!     store
//!     session   io   access   transport
//!     topic   timer   mesh
//!     wire   memory
//!     limits
//!     allocator   clock   log   metrics
//! ```
//!
//! # The path of a PUBLISH
//!
//! On the shard where its publisher is at home, within one turn ([`shard::Shard::turn`]):
//!
//! 1. `io/uring` has received bytes into a buffer that the kernel chose; `shard/reap` finds the connection by its key.
//! 2. `shard/ingress` cuts the bytes into frames and decodes each to a view of the same bytes ([`wire::decode`]).
//! 3. `shard/publish` asks whether every shard that the message may go to has room; if one has not, the connection is
//!    paused and the packet stays where it is. Then it asks the session ([`session::Session::handle_publish`]) whether
//!    this is a new message.
//! 4. [`topic::Router::route`] gives the way of the topic, mostly from a cache: subscriptions of this shard, share groups,
//!    and the set of other shards that want it.
//! 5. `shard/deliver` merges the subscriptions of each session, and [`session::Session::deliver`] encodes the packet
//!    into that connection's outbox, or keeps it in the queue.
//! 6. One parcel for each other shard goes into the mesh ([`mesh::Links::push`]); there, `shard/inbox` does steps 4 and 5
//!    for the subscriptions of that shard.
//! 7. PUBACK or PUBREC is staged in the publisher's outbox.
//! 8. At the end of the turn `shard/tend` hands one send per connection to the kernel, and the tails of the rings are
//!    published, with a doorbell for each shard that sleeps.
//!
//! A message with RETAIN takes one step more: in step 6 it goes to the shard that owns its topic, which stores it and then
//! does steps 4 to 6 itself.
#![deny(unsafe_code)]

pub mod access;
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
pub mod store;
mod timer;
pub mod topic;
pub mod transport;
pub mod wire;
