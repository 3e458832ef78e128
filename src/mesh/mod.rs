//! The rings between shards and the doorbell: bounded FIFOs with one writer and one reader each.
//!
//! Knows nothing of what it carries. From each shard to each other leads one FIFO: a ring (lock-free, fixed size) and
//! behind it a spill in the writer's memory. Everything goes through the spill and moves to the ring once per turn, so
//! nothing can overtake and the reader sees one new tail per turn. The spill has no bound of its own: [`Links::full`] says
//! when its soft bound is reached, and whoever can be paused must be.
//!
//! The reader publishes *registers*: numbers that only grow and that the writer may read at any time. Register
//! [`CONSUMED`] counts the items that were dequeued **and acted upon**; the others belong to the user.
//!
//! What a shard tells all others stands in a log of its own, which they read when they are about to act: `announce`.
//!
//! The doorbell: `bell`; the registers: `progress`; how much was announced: `published`. `tests/loom`
//! explores every interleaving of the three.

mod announce;
mod bell;
mod links;
mod progress;
mod published;

// What tests and benches use besides the broker.
pub use announce::logs;
pub use links::{Bounds, build};

pub(crate) use announce::Announcements;
pub(crate) use bell::Bell;
pub(crate) use links::{CONSUMED, Links, USER};
pub(crate) use published::Published;
