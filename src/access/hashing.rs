//! Threads that hash passwords, beside the shards.
//!
//! A shard looks into the cache of verified credentials without ever waiting for it, and puts what it does not find
//! there into one bounded queue. The threads take from it, look again (of many clients with one password only the first
//! is hashed), hash, and answer to the shard that asked, whose bell they ring. What nobody waits for any more is not
//! hashed. A shard has at most one answer outstanding for each connection that it parked, which is the bound of its
//! channel.

use std::net::IpAddr;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::failures::Failures;
use super::login::{Answer, Login, Outcome, Verdict, Verifier};
use super::password::Scratch;
use super::users::Users;
use super::verified::{Tag, Tagger, Verified};
use crate::memory::{Key, ShardId};

/// Logins that wait for a hash at most. Beyond it CONNACK says 0x88 (3 in 3.x).
pub const LOGIN_QUEUE_MAX: usize = 1024;

/// Threads that hash; fewer on a small machine.
pub const HASHING_THREADS_MAX: usize = 2;

/// Wakes a shard. Made by the thread that calls it.
pub type Wake = Box<dyn FnMut(ShardId)>;

/// One password to be hashed.
struct Job {
    shard: ShardId,
    connection: Key,
    users: u16,
    user: Box<str>,
    password: Box<[u8]>,
    tag: Tag,
    peer: IpAddr,
    deadline: Instant,
}

/// What shards and threads share.
struct Shared {
    tagger: Tagger,
    /// By file.
    users: Mutex<Arc<[Users]>>,
    verified: Mutex<Verified>,
    failures: Mutex<Failures>,
}

/// The control thread's end.
#[derive(Clone)]
pub struct Hashing {
    shared: Arc<Shared>,
}

/// A shard's end.
pub struct Desk {
    shard: ShardId,
    shared: Arc<Shared>,
    jobs: SyncSender<Job>,
    answers: Receiver<Answer>,
}

/// A thread's end.
pub struct Hasher {
    shared: Arc<Shared>,
    jobs: Arc<Mutex<Receiver<Job>>>,
    answers: Vec<Sender<Answer>>,
}

/// One desk for each shard and as many hashers as asked for; `key` is random.
pub fn build(
    users: Box<[Users]>,
    key: [u8; 32],
    shards: u16,
    hashers: usize,
) -> (Hashing, Vec<Desk>, Vec<Hasher>) {
    let shared = Arc::new(Shared {
        tagger: Tagger::new(key),
        users: Mutex::new(users.into()),
        verified: Mutex::default(),
        failures: Mutex::default(),
    });
    let (jobs, queue) = mpsc::sync_channel(LOGIN_QUEUE_MAX);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..shards).map(|_| mpsc::channel()).unzip();
    let desk = |(shard, answers)| Desk {
        shard: shard as ShardId,
        shared: shared.clone(),
        jobs: jobs.clone(),
        answers,
    };
    let desks = receivers.into_iter().enumerate().map(desk).collect();
    let queue = Arc::new(Mutex::new(queue));
    let hasher = |_| Hasher { shared: shared.clone(), jobs: queue.clone(), answers: senders.clone() };
    let hashers = (0..hashers).map(hasher).collect();
    (Hashing { shared }, desks, hashers)
}

impl Hashing {
    /// From now on these are the users; what was verified by others is forgotten.
    pub fn replace(&self, users: Box<[Users]>) {
        // Both locks, so that no hasher puts an old verdict into the new cache.
        let mut verified = lock(&self.shared.verified);
        *lock(&self.shared.users) = users.into();
        verified.clear();
    }
}

impl Verifier for Desk {
    fn verify(&mut self, login: Login<'_>) -> Verdict {
        let now = Instant::now();
        let tag = self.shared.tagger.tag(login.users, login.user, login.password);
        // A lock that is held counts as a miss: a shard never waits.
        if let Ok(verified) = self.shared.verified.try_lock()
            && let Some(user) = verified.get(&tag, now)
        {
            return Verdict::Verified(user);
        }
        let job = Job {
            shard: self.shard,
            connection: login.connection,
            users: login.users,
            user: login.user.into(),
            password: login.password.into(),
            tag,
            peer: login.peer,
            deadline: now + Duration::from_millis(login.patience_ms),
        };
        match self.jobs.try_send(job) {
            Ok(()) => Verdict::Later,
            Err(_) => Verdict::Busy,
        }
    }

    fn answer(&mut self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}

impl Hasher {
    /// Hashes until all desks are gone.
    pub fn run(self, mut wake: Wake) {
        let mut scratch = Scratch::default();
        loop {
            let job = lock(&self.jobs).recv();
            let Ok(job) = job else { return };
            let (shard, connection) = (job.shard, job.connection);
            let outcome = self.decide(job, &mut scratch);
            // A shard that is gone needs no answer.
            if self.answers[usize::from(shard)].send(Answer { connection, outcome }).is_ok() {
                wake(shard);
            }
        }
    }

    fn decide(&self, job: Job, scratch: &mut Scratch) -> Outcome {
        let now = Instant::now();
        if let Some(user) = lock(&self.shared.verified).get(&job.tag, now) {
            return Outcome::Verified(user);
        }
        if now >= job.deadline || !lock(&self.shared.failures).may_try(job.peer, now) {
            return Outcome::TooSoon;
        }
        let users = lock(&self.shared.users).clone();
        let known = users.get(usize::from(job.users));
        if !known.is_some_and(|users| users.verify(&job.user, &job.password, scratch)) {
            let hold = lock(&self.shared.failures).failed(job.peer, Instant::now());
            return Outcome::Wrong { hold_ms: hold.as_millis() as u64 };
        }
        let user: Arc<str> = job.user.into();
        let mut verified = lock(&self.shared.verified);
        if Arc::ptr_eq(&users, &lock(&self.shared.users)) {
            verified.insert(job.tag, user.clone(), Instant::now());
        }
        Outcome::Verified(user)
    }
}

/// A panic in a thread ends the process, so no lock is ever poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The password is `swordfish`.
    const BOB: &str = "bob:$6$AAECAwQFBgcICQoL$Y4WPO0ICbkFB25Sxdu2LoRRrxHn+5vSWhC2EUmSYoLLtUV8GIc4CVeWWuvFv5IE5M6bpTbvMD7qDxLQrWa4e8Q==";

    fn login<'a>(password: &'a str, peer: u8, index: u32) -> Login<'a> {
        Login {
            users: 0,
            user: "bob",
            password: password.as_bytes(),
            peer: [127, 0, 0, peer].into(),
            connection: Key { index, generation: 1 },
            patience_ms: 10_000,
        }
    }

    fn wait(desk: &Desk) -> Answer {
        desk.answers.recv_timeout(Duration::from_secs(10)).expect("an answer")
    }

    #[test]
    fn what_was_verified_is_known_at_once_until_the_users_change() {
        let (hashing, mut desks, hashers) = build([Users::parse(BOB).unwrap()].into(), [1; 32], 2, 2);
        let threads: Vec<_> = hashers
            .into_iter()
            .map(|hasher| std::thread::spawn(move || hasher.run(Box::new(|_| {}))))
            .collect();
        assert_eq!(desks[1].verify(login("swordfish", 1, 7)), Verdict::Later);
        let answer = wait(&desks[1]);
        assert_eq!(answer.connection.index, 7);
        assert_eq!(answer.outcome, Outcome::Verified("bob".into()));
        assert_eq!(desks[0].verify(login("swordfish", 1, 8)), Verdict::Verified("bob".into()));
        hashing.replace([Users::default()].into());
        assert_eq!(desks[0].verify(login("swordfish", 1, 9)), Verdict::Later);
        assert_eq!(wait(&desks[0]).outcome, Outcome::Wrong { hold_ms: 0 });
        drop(desks);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn an_address_that_keeps_failing_is_held_back_and_then_not_heard() {
        let (_hashing, mut desks, mut hashers) = build([Users::parse(BOB).unwrap()].into(), [1; 32], 1, 1);
        let thread = std::thread::spawn(move || hashers.remove(0).run(Box::new(|_| {})));
        let desk = &mut desks[0];
        let outcomes: Vec<Outcome> = (0..12)
            .map(|index| {
                assert_eq!(desk.verify(login("wrong", 2, index)), Verdict::Later);
                wait(desk).outcome
            })
            .collect();
        let free = Outcome::Wrong { hold_ms: 0 };
        assert_eq!(outcomes[..4], [free.clone(), free.clone(), free.clone(), free]);
        assert_eq!(outcomes[4], Outcome::Wrong { hold_ms: 100 });
        assert!(outcomes[5..].contains(&Outcome::TooSoon), "{outcomes:?}");
        assert_eq!(desk.verify(login("swordfish", 3, 9)), Verdict::Later, "another address is heard");
        assert_eq!(wait(desk).outcome, Outcome::Verified("bob".into()));
        assert_eq!(desk.verify(login("swordfish", 2, 9)), Verdict::Verified("bob".into()));
        drop(desks);
        thread.join().unwrap();
    }

    #[test]
    fn a_full_queue_says_so_and_what_nobody_waits_for_is_not_hashed() {
        let (_hashing, mut desks, mut hashers) = build([Users::parse(BOB).unwrap()].into(), [1; 32], 1, 1);
        let mut late = login("swordfish", 1, 0);
        late.patience_ms = 0;
        for _ in 0..LOGIN_QUEUE_MAX {
            assert_eq!(desks[0].verify(late), Verdict::Later);
        }
        assert_eq!(desks[0].verify(late), Verdict::Busy);
        let thread = std::thread::spawn(move || hashers.remove(0).run(Box::new(|_| {})));
        for _ in 0..LOGIN_QUEUE_MAX {
            assert_eq!(wait(&desks[0]).outcome, Outcome::TooSoon);
        }
        drop(desks);
        thread.join().unwrap();
    }
}
