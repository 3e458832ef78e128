//! Logins that wait for a hash: bounded by number and by bytes; those that are probably right go first.
//!
//! Shards put logins in without waiting for anybody. The threads that hash take turns at the other end: the one whose turn
//! it is sorts what has come and takes one.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use super::verified::Tag;
use crate::memory::{Key, ShardId};

/// Logins that wait for a hash at most. Beyond it CONNACK says 0x88 (3 in 3.x).
pub const LOGIN_QUEUE_MAX: usize = 1 << 18;
/// Bytes of them at most, names and passwords included; as above.
pub const LOGIN_QUEUE_BYTES_MAX: usize = 64 << 20;

/// One password to be hashed.
pub(super) struct Job {
    pub(super) shard: ShardId,
    pub(super) connection: Key,
    pub(super) users: u16,
    pub(super) user: Box<str>,
    pub(super) password: Box<[u8]>,
    pub(super) tag: Tag,
    pub(super) peer: IpAddr,
    pub(super) deadline: Instant,
}

impl Job {
    /// Where a job waits it is moved once, from the channel into a list; both are counted as one.
    fn bytes(&self) -> usize {
        size_of::<Job>() + self.user.len() + self.password.len()
    }
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: AtomicUsize,
    bytes: AtomicUsize,
}

/// A shard's end.
#[derive(Clone)]
pub(super) struct Entrance {
    jobs: Sender<Job>,
    waiting: Arc<Waiting>,
}

/// The end that the threads share.
pub(super) struct Exit {
    arrived: Receiver<Job>,
    first: VecDeque<Job>,
    others: VecDeque<Job>,
    waiting: Arc<Waiting>,
}

pub(super) fn queue() -> (Entrance, Exit) {
    let (jobs, arrived) = channel();
    let waiting = Arc::new(Waiting::default());
    let exit = Exit { arrived, first: VecDeque::new(), others: VecDeque::new(), waiting: waiting.clone() };
    (Entrance { jobs, waiting }, exit)
}

impl Entrance {
    /// False if it is full, or nobody hashes any more.
    #[must_use]
    pub(super) fn push(&self, job: Job) -> bool {
        let bytes = job.bytes();
        let jobs_before = self.waiting.jobs.fetch_add(1, Ordering::Relaxed);
        let bytes_before = self.waiting.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = jobs_before < LOGIN_QUEUE_MAX && bytes_before + bytes <= LOGIN_QUEUE_BYTES_MAX;
        let taken = fits && self.jobs.send(job).is_ok();
        if !taken {
            self.waiting.leave(bytes);
        }
        taken
    }
}

impl Waiting {
    fn leave(&self, bytes: usize) {
        self.jobs.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Exit {
    /// The next one; `None` if there is none now.
    pub(super) fn next(&mut self, goes_first: impl Fn(&Job) -> bool) -> Option<Job> {
        while let Ok(job) = self.arrived.try_recv() {
            self.sort(job, &goes_first);
        }
        self.take()
    }

    /// The next one, when it comes; `None` if none will.
    pub(super) fn wait(&mut self, goes_first: impl Fn(&Job) -> bool) -> Option<Job> {
        match self.next(&goes_first) {
            Some(job) => Some(job),
            None => {
                let job = self.arrived.recv().ok()?;
                self.sort(job, &goes_first);
                self.take()
            }
        }
    }

    fn sort(&mut self, job: Job, goes_first: impl Fn(&Job) -> bool) {
        let line = if goes_first(&job) { &mut self.first } else { &mut self.others };
        line.push_back(job);
    }

    fn take(&mut self) -> Option<Job> {
        let job = self.first.pop_front().or_else(|| self.others.pop_front())?;
        self.waiting.leave(job.bytes());
        if self.first.is_empty() && self.others.is_empty() {
            // What a storm needed is not kept.
            (self.first, self.others) = (VecDeque::new(), VecDeque::new());
        }
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(index: u32, password: usize) -> Job {
        Job {
            shard: 0,
            connection: Key { index, generation: 1 },
            users: 0,
            user: "bob".into(),
            password: vec![0; password].into(),
            tag: [0; 32],
            peer: [127, 0, 0, 1].into(),
            deadline: Instant::now(),
        }
    }

    #[test]
    fn it_is_bounded_by_number_and_by_bytes() {
        let (entrance, mut exit) = queue();
        let fits = (0..).take_while(|index| entrance.push(job(*index, 65_535))).count();
        assert!((1000..1024).contains(&fits), "{fits}");
        assert!(exit.next(|_| false).is_some() && entrance.push(job(0, 65_535)));
        while exit.next(|_| false).is_some() {}
        assert_eq!(exit.waiting.bytes.load(Ordering::Relaxed), 0);
        let fits = (0..).take_while(|index| entrance.push(job(*index, 10))).count();
        assert_eq!(fits, LOGIN_QUEUE_MAX);
    }

    #[test]
    fn some_go_first_and_otherwise_order_is_kept() {
        let (entrance, mut exit) = queue();
        for index in 0..6 {
            assert!(entrance.push(job(index, 1)));
        }
        let order: Vec<u32> = std::iter::from_fn(|| {
            exit.next(|job| job.connection.index.is_multiple_of(3)).map(|job| job.connection.index)
        })
        .collect();
        assert_eq!(order, [0, 3, 1, 2, 4, 5]);
        drop(entrance);
        assert!(exit.wait(|_| false).is_none());
    }
}
