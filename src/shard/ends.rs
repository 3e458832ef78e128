//! What shards share: a shard's ends of it, made for all of them at once.

use std::sync::Arc;

use crate::memory::ShardId;
use crate::mesh::{self, Announcements, Bounds, Links};
use crate::topic::RetainedHints;

use super::interest::Announced;
use super::parcel::Parcel;

/// One shard's ends.
#[derive(Debug)]
pub struct Ends {
    pub(super) links: Links<Parcel>,
    pub(super) announcements: Announcements<Announced>,
    pub(super) retained_hints: Arc<RetainedHints>,
}

impl Ends {
    /// The ends of `shards` shards, by shard.
    pub fn build(shards: u16, bounds: Bounds) -> Vec<Ends> {
        let hints = Arc::new(RetainedHints::default());
        let both = mesh::build(shards, bounds).into_iter().zip(mesh::logs(shards));
        both.map(|(links, announcements)| Ends { links, announcements, retained_hints: Arc::clone(&hints) })
            .collect()
    }

    /// Whose ends these are.
    pub fn here(&self) -> ShardId {
        self.links.here()
    }
}
