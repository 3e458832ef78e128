//! What the broker keeps in memory: generational keys, Application Messages, output buffers, byte budgets.
//!
//! Knows nothing of connections, sessions or topics. All of it is safe code but for `block` and
//! `aligned`.

mod aligned;
mod block;
mod budget;
mod key;
mod message;
mod outbox;
mod shards;
mod table;

// What tests, benches and the command use besides the broker.
pub use aligned::{Aligned, SECTOR};
pub use budget::{Budget, CLASSES, Class, Pool};
pub use key::{Arena, Key};
pub use message::MessageView;
pub use outbox::{OutBatch, Outbox};
pub use shards::ShardId;

pub(crate) use message::{Message, SpareMessages, Whole};
pub(crate) use shards::ShardSet;
pub(crate) use table::Table;
