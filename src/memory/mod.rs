//! What the broker keeps in memory: generational keys, Application Messages, output buffers, byte budgets.
//!
//! Knows nothing of connections, sessions or topics. All of it is safe code but for `block`.

mod block;
mod budget;
mod key;
mod message;
mod outbox;
mod shards;
mod table;

pub use budget::{Budget, CLASSES, Class, Lease, Pool};
pub use key::{Arena, Key};
pub use message::{Message, MessageView, SpareMessages, Whole};
pub use outbox::{OutBatch, Outbox};
pub use shards::{ShardId, ShardSet};
pub use table::Table;
