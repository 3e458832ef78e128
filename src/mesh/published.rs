//! How much was announced: one number that all shards share, so that a look at it says whether there is anything to read.
//!
//! It also decides who tells a subscriber of a retained message. The two sides do this:
//!
//! ```text
//! announcer: append   published += 1   fence   look at the hints
//! publisher: set the hint   fence   push the message to its owner, which reads the logs before it acts
//! ```
//! Either the announcer sees the hint and asks the owner, or the owner reads the announcement and passes the message on.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Shared by all shards of a process; written once for each announcement.
#[derive(Debug)]
#[repr(align(128))]
pub struct Published {
    count: AtomicU64,
}

impl Default for Published {
    fn default() -> Published {
        Published { count: AtomicU64::new(0) }
    }
}

impl Published {
    /// Announcements in all logs together. Whoever sees a number sees the announcements that made it.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// After one was appended, and before its writer looks what others did.
    pub fn add_one(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        fence(Ordering::SeqCst);
    }

    /// After everything was done that an announcer must not miss, and before the message leaves.
    pub fn before_leaving() {
        fence(Ordering::SeqCst);
    }
}
