//! The memory in which passwords are hashed, shared by the threads that hash.
//!
//! A thread takes what one hash needs and keeps it for the next ones, until nothing waits or another thread needs it.
//! One hash always fits, however much it asks for.

use std::sync::{Condvar, Mutex};

use super::hashing::lock;

/// Bytes in which passwords are hashed, all threads together; less where --memory-max is small (an eighth of it).
pub const HASHING_MEMORY_MAX: u64 = 1 << 30;

#[derive(Debug)]
pub(super) struct Room {
    max: usize,
    shared: Mutex<Shared>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Shared {
    taken: usize,
    /// Threads that wait for memory.
    waiting: usize,
}

/// What one thread has.
#[derive(Debug, Default)]
pub(super) struct Share(usize);

impl Share {
    pub(super) fn bytes(&self) -> usize {
        self.0
    }
}

impl Room {
    pub(super) fn new(max: u64) -> Room {
        let max = max.min(HASHING_MEMORY_MAX) as usize;
        Room { max, shared: Mutex::default(), freed: Condvar::new() }
    }

    /// Waits until the share may be `bytes`. It has nothing meanwhile, so that no two wait for each other.
    pub(super) fn grow(&self, share: &mut Share, bytes: usize) {
        if bytes <= share.0 {
            return;
        }
        self.release(share);
        let mut shared = lock(&self.shared);
        shared.waiting += 1;
        while shared.taken > 0 && shared.taken + bytes > self.max {
            shared = self.freed.wait(shared).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        shared.waiting -= 1;
        shared.taken += bytes;
        share.0 = bytes;
    }

    /// Whether another thread waits for memory.
    pub(super) fn is_wanted(&self) -> bool {
        lock(&self.shared).waiting > 0
    }

    pub(super) fn release(&self, share: &mut Share) {
        if share.0 > 0 {
            lock(&self.shared).taken -= std::mem::take(&mut share.0);
            self.freed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn shares_fit_the_room_and_one_always_does() {
        let room = Room::new(100);
        let now = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (room, now) = (&room, &now);
                scope.spawn(move || {
                    let mut share = Share::default();
                    for round in 0..200 {
                        let bytes = [10, 40, 60, 500][(thread + round) % 4];
                        room.grow(&mut share, bytes);
                        let before = now.fetch_add(share.0, Ordering::SeqCst);
                        assert!(before == 0 || before + share.0 <= 100, "{before} and {}", share.0);
                        // Long enough for others to be let in beside it, if they are.
                        std::thread::sleep(std::time::Duration::from_micros(20));
                        now.fetch_sub(share.0, Ordering::SeqCst);
                        if room.is_wanted() {
                            room.release(&mut share);
                        }
                    }
                    room.release(&mut share);
                });
            }
        });
        assert_eq!(lock(&room.shared).taken, 0);
    }

    #[test]
    fn one_who_has_a_share_knows_that_another_waits() {
        let room = Room::new(100);
        let mut share = Share::default();
        room.grow(&mut share, 30);
        room.grow(&mut share, 60);
        assert!(!room.is_wanted());
        assert_eq!(lock(&room.shared).taken, 60, "what it had before is given back");
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let mut other = Share::default();
                room.grow(&mut other, 60);
                room.release(&mut other);
            });
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while !room.is_wanted() && std::time::Instant::now() < deadline {
                std::thread::yield_now();
            }
            let is_wanted = room.is_wanted();
            room.release(&mut share);
            other.join().unwrap();
            assert!(is_wanted && !room.is_wanted());
        });
    }
}
