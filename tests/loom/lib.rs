//! Every interleaving of what shards tell each other beside the rings' contents: the doorbell with its inbox bits, the
//! registers that a writer waits for, announcements and the hints of what is retained; and of the owners of a kept
//! message. The very files of `src` are compiled here, over
//! `loom`'s atomics.
//!
//! Each test says what must hold under all interleavings and all reorderings that the memory model allows; with the
//! fences removed it must fail, or the fences would be there for nothing.
#![cfg(test)]

extern crate self as loom;

/// What the sources under test find as `loom::sync`.
pub mod sync {
    pub mod atomic {
        use std::sync::atomic::AtomicBool as Switch;

        pub use explorer::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

        /// Whether [`fence`] does nothing.
        pub static REMOVED: Switch = Switch::new(false);

        pub fn fence(order: Ordering) {
            if !REMOVED.load(Ordering::Relaxed) {
                explorer::sync::atomic::fence(order);
            }
        }
    }
}

#[path = "../../src/mesh/bell.rs"]
mod bell;
#[allow(dead_code)] // Its bytes are not looked at here.
#[path = "../../src/memory/block.rs"]
mod block;
#[path = "../../src/topic/hints.rs"]
mod hints;
#[path = "../../src/mesh/progress.rs"]
mod progress;
#[path = "../../src/mesh/published.rs"]
mod published;
#[allow(dead_code)] // A set has more to it than is looked at here.
#[path = "../../src/memory/shards.rs"]
mod shards;

mod memory {
    pub use crate::shards::{ShardId, ShardSet};
}

use std::panic::catch_unwind;

use explorer::sync::{Arc, Condvar, Mutex};
use explorer::thread;

use crate::bell::Bell;
use crate::block::Block;
use crate::hints::RetainedHints;
use crate::progress::Progress;
use crate::published::Published;
use crate::sync::atomic::{AtomicU64, Ordering, REMOVED};

/// Explores with the fences, which must pass, and without them, which must fail. `preemptions` bounds how often a thread
/// is interrupted where it could go on: with three threads all interleavings are too many.
fn holds_because_of_the_fences(preemptions: Option<usize>, model: fn()) {
    /// The switch is one for all tests.
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut explorer = explorer::model::Builder::new();
    explorer.preemption_bound = preemptions;
    REMOVED.store(false, Ordering::Relaxed);
    explorer.check(model);
    REMOVED.store(true, Ordering::Relaxed);
    let without = catch_unwind(|| explorer.check(model));
    REMOVED.store(false, Ordering::Relaxed);
    assert!(without.is_err(), "it holds without the fences too: the model shows nothing");
}

/// The kernel's part: a wake that comes before the wait ends it at once.
#[derive(Default)]
struct Kernel {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Kernel {
    fn wake(&self) {
        *self.woken.lock().expect("nobody panics here") = true;
        self.changed.notify_one();
    }

    /// A wake that is lost leaves the waiter here for ever, which the explorer reports as a deadlock.
    fn wait(&self) {
        let mut woken = self.woken.lock().expect("nobody panics here");
        while !*woken {
            woken = self.changed.wait(woken).expect("nobody panics here");
        }
        *woken = false;
    }
}

/// What a writer of a ring does in a turn: its tail, then the bell.
fn publish(ring: &AtomicU64, bell: &Bell, from: u16, kernel: &Kernel) {
    ring.store(1, Ordering::Release);
    if bell.ring(from) {
        kernel.wake();
    }
}

/// What the driver of a shard does until it has seen the items of all rings.
fn read_all(rings: &[Arc<AtomicU64>], bell: &Bell, kernel: &Kernel) {
    let mut seen = vec![false; rings.len()];
    loop {
        for from in bell.take().iter() {
            seen[usize::from(from)] |= rings[usize::from(from)].load(Ordering::Acquire) == 1;
        }
        if seen.iter().all(|seen| *seen) {
            return;
        }
        if bell.sleep() {
            kernel.wait();
            bell.awake();
        }
    }
}

#[test]
fn an_item_is_seen_whenever_it_is_published() {
    holds_because_of_the_fences(None, || {
        let (bell, ring) = (Arc::new(Bell::default()), Arc::new(AtomicU64::new(0)));
        let kernel = Arc::new(Kernel::default());
        let writer = {
            let (bell, ring, kernel) = (bell.clone(), ring.clone(), kernel.clone());
            thread::spawn(move || publish(&ring, &bell, 0, &kernel))
        };
        read_all(&[ring], &bell, &kernel);
        writer.join().expect("the writer ends");
    });
}

#[test]
fn two_writers_do_not_hide_each_other() {
    holds_because_of_the_fences(Some(3), || {
        let (bell, kernel) = (Arc::new(Bell::default()), Arc::new(Kernel::default()));
        let rings = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
        let writers: Vec<_> = rings
            .iter()
            .enumerate()
            .map(|(from, ring)| {
                let (bell, ring, kernel) = (bell.clone(), ring.clone(), kernel.clone());
                thread::spawn(move || publish(&ring, &bell, from as u16, &kernel))
            })
            .collect();
        read_all(&rings, &bell, &kernel);
        for writer in writers {
            writer.join().expect("the writers end");
        }
    });
}

#[test]
fn a_writer_that_waits_for_progress_is_rung() {
    holds_because_of_the_fences(None, || {
        let (progress, kernel) = (Arc::new(Progress::default()), Arc::new(Kernel::default()));
        let reader = {
            let (progress, kernel) = (progress.clone(), kernel.clone());
            thread::spawn(move || {
                progress.set(0, 1);
                if progress.is_awaited() {
                    kernel.wake();
                }
            })
        };
        progress.wait();
        if progress.get(0) == 0 {
            kernel.wait();
            assert_eq!(progress.get(0), 1, "rung before there was progress");
        }
        reader.join().expect("the reader ends");
    });
}

/// A log with room for one announcement.
#[derive(Default)]
struct Log {
    published: Published,
    entry: AtomicU64,
}

impl Log {
    fn append(&self) {
        self.entry.store(1, Ordering::Release);
        self.published.add_one();
    }

    /// Whether somebody who reads now learns of it.
    fn tells(&self) -> bool {
        self.published.count() == 1 && self.entry.load(Ordering::Acquire) == 1
    }
}

/// Announcements need no fence for this: who saw the SUBACK and who took in what it sent are links of one chain.
#[test]
fn who_saw_a_suback_is_routed_to_the_subscriber() {
    /// How often the interesting case came up.
    static SENT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let mut explorer = explorer::model::Builder::new();
    explorer.preemption_bound = Some(3);
    explorer.check(|| {
        let log = Arc::new(Log::default());
        let (suback, packet) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let subscriber = {
            let (log, suback) = (log.clone(), suback.clone());
            thread::spawn(move || {
                log.append();
                suback.store(1, Ordering::Release);
            })
        };
        let publisher = {
            let packet = packet.clone();
            thread::spawn(move || {
                if suback.load(Ordering::Acquire) == 1 {
                    packet.store(1, Ordering::Release);
                }
            })
        };
        if packet.load(Ordering::Acquire) == 1 {
            SENT.fetch_add(1, Ordering::Relaxed);
            assert!(log.tells(), "it is passed over");
        }
        subscriber.join().expect("the subscriber ends");
        publisher.join().expect("the publisher ends");
    });
    assert!(SENT.load(Ordering::Relaxed) > 0);
}

/// Either the subscriber asks for it, or the owner passes it on.
#[test]
fn no_retained_message_falls_between_the_store_and_the_live_stream() {
    fn hash(_: &str) -> u64 {
        5
    }
    holds_because_of_the_fences(None, || {
        let (log, hints) = (Arc::new(Log::default()), Arc::new(RetainedHints::with_bits(64)));
        let publisher = {
            let (log, hints) = (log.clone(), hints.clone());
            thread::spawn(move || {
                hints.note("$a", 5, hash);
                Published::before_leaving();
                log.tells() // The owner reads as it acts, at the earliest now.
            })
        };
        log.append();
        let asks = hints.may_match("$a", hash);
        let passed_on = publisher.join().expect("the publisher ends");
        assert!(asks || passed_on, "neither");
    });
}

/// A bit that another publisher has set is as good as one's own.
#[test]
fn a_hint_that_is_set_already_counts() {
    fn hash(_: &str) -> u64 {
        5
    }
    holds_because_of_the_fences(Some(2), || {
        let (log, hints) = (Arc::new(Log::default()), Arc::new(RetainedHints::with_bits(64)));
        let publishers: Vec<_> = (0..2)
            .map(|_| {
                let (log, hints) = (log.clone(), hints.clone());
                thread::spawn(move || {
                    hints.note("$a", 5, hash);
                    Published::before_leaving();
                    log.tells()
                })
            })
            .collect();
        log.append();
        let asks = hints.may_match("$a", hash);
        for publisher in publishers {
            let passed_on = publisher.join().expect("the publisher ends");
            assert!(asks || passed_on, "neither");
        }
    });
}

/// The head of a block: what its owners did before they let go, which whoever frees it must see. Relaxed, so that nothing but the
/// block's own order makes it seen.
struct Traces([AtomicU64; 2]);

impl Traces {
    fn assert_all(&self) {
        for trace in &self.0 {
            assert_eq!(trace.load(Ordering::Relaxed), 1, "an owner's last act is not seen");
        }
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        self.assert_all();
    }
}

fn block_of_two_owners() -> (Block<Traces>, Block<Traces>) {
    let head = Traces([AtomicU64::new(0), AtomicU64::new(0)]);
    let block = Block::new(128, head, [b"a", b"b", b"c"]);
    (block.clone(), block)
}

#[test]
fn the_last_owner_sees_what_the_others_did() {
    holds_because_of_the_fences(None, || {
        let (theirs, ours) = block_of_two_owners();
        let other = thread::spawn(move || {
            theirs.head().0[0].store(1, Ordering::Relaxed);
            drop(theirs);
        });
        ours.head().0[1].store(1, Ordering::Relaxed);
        drop(ours);
        other.join().expect("the other owner ends");
    });
}

#[test]
fn memory_is_used_again_after_all_that_others_did_with_it() {
    /// How often one of them was alone: the interesting case, which the explorer must come across.
    static ALONE: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    explorer::model(|| {
        let (theirs, ours) = block_of_two_owners();
        let other = thread::spawn(move || {
            theirs.head().0[0].store(1, Ordering::Relaxed);
            if let Some(mut only) = theirs.into_only() {
                only.head_mut().assert_all();
                ALONE.fetch_add(1, Ordering::Relaxed);
            }
        });
        ours.head().0[1].store(1, Ordering::Relaxed);
        drop(ours);
        other.join().expect("the other owner ends");
    });
    assert!(ALONE.load(Ordering::Relaxed) > 0);
}
