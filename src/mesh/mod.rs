//! The rings between shards and the doorbell: bounded FIFOs with one writer and one reader each.
//!
//! Knows nothing of what it carries. From each shard to each other leads one FIFO: a ring (lock-free, fixed size) and
//! behind it a spill in the writer's memory. Everything goes through the spill and moves to the ring once per turn, so
//! nothing can overtake and the reader sees one new tail per turn; but for control items, which pass the spill and are
//! counted apart. The spill has no bound of its own: [`Links::full`]
//! says when its soft bound is reached, and whoever can be paused must be.
//!
//! The reader publishes *registers*: numbers that only grow and that the writer may read at any time. Register
//! [`CONSUMED`] counts the items that were dequeued **and acted upon**; another one counts control items, the others belong to
//! the user.
//!
//! The doorbell: `bell`; the registers: `progress`. `tests/loom` explores every interleaving of both.

mod bell;
mod links;
mod progress;

pub use bell::Bell;
pub use links::{Bounds, CONSUMED, Links, USER, build};
pub use progress::REGISTERS;
