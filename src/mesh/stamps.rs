//! What came before what, between shards that do not wait for each other.
//!
//! One number that all shards share counts what was published in all logs. An announcement is stamped with one more than
//! the number before it was appended; a parcel that leaves is stamped with the number of that moment. So an announcement
//! that somebody could know of when the parcel left has no higher stamp than the parcel, and one that was made by
//! somebody who could know of the parcel has a higher one. Stamps need not be unique.
//!
//! ```text
//! announcer: stamp = published + 1   append   published += 1   fence   look what others did
//! others:    do it   fence   stamp = published   push
//! ```
//! Either the announcer sees what was done, or the stamp says that the announcement came first.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Shared by all shards of a process; written once for each announcement.
#[derive(Debug)]
#[repr(align(128))]
pub struct Stamps {
    published: AtomicU64,
}

impl Default for Stamps {
    fn default() -> Stamps {
        Stamps { published: AtomicU64::new(0) }
    }
}

impl Stamps {
    /// What is in the logs. Whoever sees a number sees the announcements that made it.
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    /// For an announcement that is about to be appended.
    pub fn of_next(&self) -> u64 {
        self.published() + 1
    }

    /// After it was appended.
    pub fn publish(&self) {
        self.published.fetch_add(1, Ordering::AcqRel);
        fence(Ordering::SeqCst);
    }

    /// For what leaves now, after everything that an announcer must not miss was done.
    pub fn of_leaving(&self) -> u64 {
        fence(Ordering::SeqCst);
        self.published()
    }
}
