//! What goes on within a shard: messages between its clients and its sessions. No other shard has a part in it.
//!
//! It joins `Clients` and `Sessions`. What concerns other shards too is done by `Core`, which has this and the exchange with
//! them.

use super::clients::Clients;
use super::deliver::Scratch;
use super::env::Env;
use super::sessions::Sessions;

pub(super) struct Local {
    pub env: Env,
    pub clients: Clients,
    pub sessions: Sessions,
    /// Memory that is reused from batch to batch.
    pub scratch: Scratch,
}
