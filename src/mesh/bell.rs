//! The wake of a sleeping shard.
//!
//! A reader that finds no work announces that it sleeps, then looks once more, then waits. A writer publishes its work,
//! then looks whether the reader sleeps. Between the store and the look of either side stands a SeqCst fence: with less,
//! even on x86, both can miss each other (61,543 lost wake-ups in 2 million were measured without). The same two
//! fences order the inbox bits, which tell a reader which rings to look at.
//!
//! ```text
//! writer: ring.publish   fence   set inbox bit (if clear)   fence   sleeping? -> take it, wake
//! reader: sleeping=true  fence   inbox bits? -> awake, else wait
//! reader: take inbox bits   fence   read rings
//! ```

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use crate::memory::{ShardId, ShardSet};

/// One shard's bell; others ring it.
#[derive(Debug)]
#[repr(align(128))]
pub struct Bell {
    sleeping: AtomicBool,
    inbox: [AtomicU64; 2],
}

impl Default for Bell {
    fn default() -> Bell {
        Bell { sleeping: AtomicBool::new(false), inbox: [AtomicU64::new(0), AtomicU64::new(0)] }
    }
}

impl Bell {
    /// Called by `from` after it published work for this bell's shard. True: the shard sleeps, and the caller, and
    /// nobody else, must wake it.
    #[must_use]
    pub fn ring(&self, from: ShardId) -> bool {
        let word = &self.inbox[usize::from(from) / 64];
        let bit = 1 << (from % 64);
        fence(Ordering::SeqCst);
        // The bit is usually set while the reader is busy: a look costs less than a locked write.
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        // One of several writers wakes. Not a swap: a late one would write a `false` that nobody asked for.
        self.sleeping.load(Ordering::Relaxed)
            && self.sleeping.compare_exchange(true, false, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Called by the shard itself before it waits. False: there is work, do not wait.
    #[must_use]
    pub fn sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.inbox.iter().any(|word| word.load(Ordering::Relaxed) != 0) {
            self.awake();
            return false;
        }
        true
    }

    /// Called by the shard itself when it stops waiting, for whatever reason.
    pub fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// Takes the set of shards that rang. Their rings are read after this.
    pub fn take(&self) -> ShardSet {
        let mut set = ShardSet::EMPTY;
        for (index, word) in self.inbox.iter().enumerate() {
            if word.load(Ordering::Relaxed) != 0 {
                let mut bits = word.swap(0, Ordering::Relaxed);
                while bits != 0 {
                    set.insert((index * 64) as ShardId + bits.trailing_zeros() as ShardId);
                    bits &= bits - 1;
                }
            }
        }
        fence(Ordering::SeqCst);
        set
    }
}
