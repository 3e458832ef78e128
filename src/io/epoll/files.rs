//! Reads and writes of files by a thread beside the shard's, since epoll knows no files.
//!
//! One thread for each shard that uses files, from the first operation to the end of the shard. It does one operation after
//! the other. It owns the memory meanwhile, so nothing is freed under it.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use super::sys::Bell;
use crate::io::{Completion, File, Sync, file};
use crate::memory::Aligned;

/// How long the end of a shard waits for an operation that has begun.
const LINGER: Duration = Duration::from_secs(1);

/// What the thread is asked to do.
pub(super) enum Job {
    Write { file: File, tag: u64, at: u64, bytes: Aligned, sync: Sync },
    Read { file: File, tag: u64, at: u64, into: Aligned, len: usize },
}

/// The thread, and what goes to and fro.
pub(super) struct Worker {
    /// `None` while it ends.
    jobs: Option<Sender<Job>>,
    done: Receiver<Completion>,
    bell: Arc<Bell>,
    /// What has not begun is not begun any more.
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// # Errors
    /// No thread or no descriptor is left.
    pub fn start() -> io::Result<Worker> {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (told, done) = mpsc::channel();
        let (bell, ends) = (Arc::new(Bell::new()?), Arc::new(AtomicBool::new(false)));
        let (rings, over) = (Arc::clone(&bell), Arc::clone(&ends));
        let thread = std::thread::Builder::new().name("files".into()).spawn(move || {
            for job in todo {
                if over.load(Ordering::Relaxed) || told.send(job.run()).is_err() {
                    return;
                }
                rings.ring();
            }
        })?;
        Ok(Worker { jobs: Some(jobs), done, bell, ends, thread: Some(thread) })
    }

    /// Rings when something is over.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.fd()
    }

    pub fn begin(&self, job: Job) {
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job).is_ok());
        assert_eq!(sent, Some(true), "the thread for files has ended");
    }

    /// Takes what is over.
    pub fn take_done(&self, into: &mut Vec<Completion>) {
        // First the bell: what ends after this rings again.
        self.bell.silence();
        into.extend(self.done.try_iter());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.jobs = None;
        loop {
            match self.done.recv_timeout(LINGER) {
                Ok(_) => {}
                // It is stuck in a call; what it has goes with it when the call returns.
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Some(thread) = self.thread.take() {
            // It has left its loop. A panic there was said already.
            let _ = thread.join();
        }
    }
}

impl Job {
    pub fn write(file: &File, tag: u64, at: u64, bytes: Aligned, sync: Sync) -> Job {
        file::check(at, bytes.len());
        Job::Write { file: file.clone(), tag, at, bytes, sync }
    }

    pub fn read(file: &File, tag: u64, at: u64, into: Aligned, len: usize) -> Job {
        file::check(at, len);
        Job::Read { file: file.clone(), tag, at, into, len }
    }

    fn run(self) -> Completion {
        match self {
            Job::Write { file, tag, at, bytes, sync } => {
                let result = file.write_at(at, &bytes, sync).map_err(|error| error.raw_os_error());
                Completion::Written { tag, bytes, result }
            }
            Job::Read { file, tag, at, mut into, len } => {
                let result = file.read_at(at, &mut into, len).map_err(|error| error.raw_os_error());
                Completion::FileRead { tag, bytes: into, result }
            }
        }
    }

    /// It cannot be done.
    pub fn fail(self, errno: i32) -> Completion {
        match self {
            Job::Write { tag, bytes, .. } => Completion::Written { tag, bytes, result: Err(errno) },
            Job::Read { tag, mut into, .. } => {
                into.clear();
                Completion::FileRead { tag, bytes: into, result: Err(errno) }
            }
        }
    }
}
