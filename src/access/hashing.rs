//! Threads that hash passwords, beside the shards.
//!
//! A shard looks into the cache of verified credentials without ever waiting for it, and puts what it does not find
//! there into one bounded queue. The threads take from it, look again (of many clients with one password only the first
//! is hashed), hash, and tell the shard that asked ([`Tell`]). What nobody waits for any more is not hashed. A shard is told
//! once for each login that it put into the queue, so the bound of the queue is also the bound of what it is told.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::failures::{Chance, Failures};
use super::login::{Answer, Login, Outcome, Verdict, Verifier};
use super::password::Scratch;
use super::queue::{self, Entrance, Exit, Job};
use super::room::{Room, Share};
use super::users::{Users, Whose};
use super::verified::{Tagger, Verified};
use crate::memory::ShardId;

/// Threads that hash at most; fewer where there are fewer CPUs.
pub const HASHING_THREADS_MAX: usize = 32;

/// Gives a shard an answer and wakes it. Made by the thread that calls it.
pub type Tell = Box<dyn FnMut(ShardId, Answer)>;

/// What shards and threads share.
struct Shared {
    tagger: Tagger,
    in_force: Mutex<InForce>,
    /// That of [`Shared::in_force`], for shards, which do not wait for the lock.
    epoch: AtomicU32,
    verified: Mutex<Verified>,
    failures: Mutex<Failures>,
    room: Room,
}

/// The users of the moment.
#[derive(Clone)]
struct InForce {
    /// Another one after each reload.
    epoch: u32,
    /// By file.
    users: Arc<[Users]>,
}

/// The control thread's end.
#[derive(Clone)]
pub struct Hashing {
    shared: Arc<Shared>,
}

/// A shard's end.
pub struct Asker {
    shard: ShardId,
    shared: Arc<Shared>,
    jobs: Entrance,
}

/// A thread's end.
pub struct Hasher {
    shared: Arc<Shared>,
    jobs: Arc<Mutex<Exit>>,
    scratch: Scratch,
    share: Share,
}

/// What hashing may take.
#[derive(Copy, Clone, Debug)]
pub struct Means {
    pub threads: usize,
    /// Bytes, all threads together.
    pub memory: u64,
}

/// One asker for each shard and as many hashers as asked for; `key` is random.
pub fn build(
    users: Arc<[Users]>,
    key: [u8; 32],
    shards: u16,
    means: Means,
) -> (Hashing, Vec<Asker>, Vec<Hasher>) {
    let shared = Arc::new(Shared {
        tagger: Tagger::new(key),
        in_force: Mutex::new(InForce { epoch: 1, users }),
        epoch: AtomicU32::new(1),
        verified: Mutex::default(),
        failures: Mutex::default(),
        room: Room::new(means.memory),
    });
    let (entrance, exit) = queue::queue();
    let asker = |shard| Asker { shard, shared: shared.clone(), jobs: entrance.clone() };
    let askers = (0..shards).map(asker).collect();
    let exit = Arc::new(Mutex::new(exit));
    let hasher = |_| Hasher {
        shared: shared.clone(),
        jobs: exit.clone(),
        scratch: Scratch::default(),
        share: Share::default(),
    };
    let hashers = (0..means.threads).map(hasher).collect();
    (Hashing { shared }, askers, hashers)
}

impl Hashing {
    /// From now on these are the users; what was verified by others is not believed any more.
    pub fn replace(&self, users: Arc<[Users]>) {
        let mut in_force = lock(&self.shared.in_force);
        let epoch = in_force.epoch.wrapping_add(1);
        *in_force = InForce { epoch, users };
        self.shared.epoch.store(epoch, Ordering::Release);
    }
}

impl Verifier for Asker {
    fn verify(&mut self, login: Login<'_>) -> Verdict {
        let now = Instant::now();
        let tag = self.shared.tagger.tag(login.users, login.user, login.password);
        let epoch = self.shared.epoch.load(Ordering::Acquire);
        // A lock that is held counts as a miss: a shard never waits.
        if let Ok(mut verified) = self.shared.verified.try_lock()
            && let Some(user) = verified.get(&tag, epoch, now)
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
        if self.jobs.push(job) { Verdict::Later } else { Verdict::Busy }
    }
}

impl Hasher {
    /// Hashes until all askers are gone.
    pub fn run(mut self, mut tell: Tell) {
        while let Some(job) = self.next_job() {
            let (shard, connection) = (job.shard, job.connection);
            let outcome = self.decide(job);
            if self.shared.room.is_wanted() {
                self.give_memory_back();
            }
            tell(shard, Answer { connection, outcome });
        }
    }

    fn next_job(&mut self) -> Option<Job> {
        let shared = self.shared.clone();
        let goes_first = |job: &Job| {
            let failures = lock(&shared.failures);
            failures.was_let_in(failures.pair(job.users, &job.user, job.peer))
                || lock(&shared.verified).knows(&job.tag)
        };
        if let Ok(mut jobs) = self.jobs.try_lock()
            && let Some(job) = jobs.next(goes_first)
        {
            return Some(job);
        }
        // Memory is kept from one hash to the next, but not while this thread waits: another may wait for the memory.
        self.give_memory_back();
        lock(&self.jobs).wait(goes_first)
    }

    fn give_memory_back(&mut self) {
        self.scratch = Scratch::default();
        self.shared.room.release(&mut self.share);
    }

    fn decide(&mut self, job: Job) -> Outcome {
        let now = Instant::now();
        let shared = self.shared.clone();
        let InForce { epoch, users } = lock(&shared.in_force).clone();
        let was_right = {
            let mut verified = lock(&shared.verified);
            if let Some(user) = verified.get(&job.tag, epoch, now) {
                return Outcome::Verified(user);
            }
            verified.knows(&job.tag)
        };
        if now >= job.deadline {
            return Outcome::Late;
        }
        let pair = lock(&shared.failures).pair(job.users, &job.user, job.peer);
        // What was right once is no guess.
        if !was_right {
            match lock(&shared.failures).chance(pair, job.peer, &job.tag, epoch, now) {
                Chance::Try => {}
                Chance::Wrong(hold) => return Outcome::Wrong { hold_ms: hold.as_millis() as u64 },
                Chance::TooSoon => return Outcome::TooSoon,
            }
        }
        let Some((secret, whose)) =
            users.get(usize::from(job.users)).and_then(|users| users.secret(&job.user))
        else {
            return Outcome::Wrong { hold_ms: 0 }; // there are no users at all
        };
        if secret.memory() > self.share.bytes() {
            self.give_memory_back();
            shared.room.grow(&mut self.share, secret.memory());
        }
        let Ok(fits) = secret.is_of(&job.password, &mut self.scratch) else { return Outcome::Late };
        let now = Instant::now();
        if fits && whose == Whose::Theirs {
            let user: Arc<str> = job.user.into();
            lock(&shared.verified).insert(job.tag, user.clone(), epoch, now);
            lock(&shared.failures).let_in(pair);
            return Outcome::Verified(user);
        }
        if was_right {
            lock(&shared.verified).forget(&job.tag);
        }
        let hold = lock(&shared.failures).failed((pair, job.peer), &job.tag, epoch, secret.micros(), now);
        Outcome::Wrong { hold_ms: hold.as_millis() as u64 }
    }
}

/// A panic in a thread ends the process, so no lock is ever poisoned.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread::JoinHandle;

    use super::*;

    /// The password is `swordfish`.
    const BOB: &str = "bob:$6$AAECAwQFBgcICQoL$Y4WPO0ICbkFB25Sxdu2LoRRrxHn+5vSWhC2EUmSYoLLtUV8GIc4CVeWWuvFv5IE5M6bpTbvMD7qDxLQrWa4e8Q==";

    fn means(threads: usize) -> Means {
        Means { threads, memory: 1 << 20 }
    }

    fn login<'a>(password: &'a str, peer: u8, index: u32) -> Login<'a> {
        Login {
            users: 0,
            user: "bob",
            password: password.as_bytes(),
            peer: [127, 0, 0, peer].into(),
            connection: crate::memory::Key { index, generation: 1 },
            patience_ms: 10_000,
        }
    }

    type Told = mpsc::Receiver<(ShardId, Answer)>;

    /// What the threads tell the shards.
    fn start(hashers: Vec<Hasher>) -> (Vec<JoinHandle<()>>, Told) {
        let (tell, told) = mpsc::channel();
        let start = |hasher: Hasher| {
            let tell = tell.clone();
            let tell = move |shard, answer| tell.send((shard, answer)).unwrap();
            std::thread::spawn(move || hasher.run(Box::new(tell)))
        };
        (hashers.into_iter().map(start).collect(), told)
    }

    fn wait(told: &Told, shard: ShardId) -> Answer {
        let (to, answer) = told.recv_timeout(Duration::from_secs(10)).expect("an answer");
        assert_eq!(to, shard);
        answer
    }

    #[test]
    fn what_was_verified_is_known_at_once_until_the_users_change() {
        let (hashing, mut askers, hashers) = build([Users::parse(BOB).unwrap()].into(), [1; 32], 2, means(2));
        let (threads, told) = start(hashers);
        assert_eq!(askers[1].verify(login("swordfish", 1, 7)), Verdict::Later);
        let answer = wait(&told, 1);
        assert_eq!(answer.connection.index, 7);
        assert_eq!(answer.outcome, Outcome::Verified("bob".into()));
        assert_eq!(askers[0].verify(login("swordfish", 1, 8)), Verdict::Verified("bob".into()));
        hashing.replace([Users::default()].into());
        assert_eq!(askers[0].verify(login("swordfish", 1, 9)), Verdict::Later);
        assert_eq!(wait(&told, 0).outcome, Outcome::Wrong { hold_ms: 0 });
        drop(askers);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn guesses_at_a_user_are_held_back_and_what_was_right_is_heard() {
        let (hashing, mut askers, hashers) = build([Users::parse(BOB).unwrap()].into(), [1; 32], 1, means(1));
        let (threads, told) = start(hashers);
        let asker = &mut askers[0];
        let ask = |asker: &mut Asker, password: &str, peer| {
            assert_eq!(asker.verify(login(password, peer, 9)), Verdict::Later, "{password}");
            wait(&told, 0).outcome
        };
        let outcomes: Vec<Outcome> = (0..12).map(|at| ask(asker, &format!("guess {at}"), 2)).collect();
        let free = Outcome::Wrong { hold_ms: 0 };
        assert_eq!(outcomes[..4], [free.clone(), free.clone(), free.clone(), free]);
        assert_eq!(outcomes[4], Outcome::Wrong { hold_ms: 100 });
        assert!(outcomes[5..].contains(&Outcome::TooSoon), "{outcomes:?}");
        assert_eq!(ask(asker, "swordfish", 3), Outcome::Verified("bob".into()), "at another address");
        assert_eq!(asker.verify(login("swordfish", 2, 9)), Verdict::Verified("bob".into()));
        // After a reload it is hashed again, and that it was right once is enough to be heard amid guesses.
        hashing.replace([Users::parse(BOB).unwrap()].into());
        let guesses = std::iter::from_fn(|| Some(ask(asker, "another guess", 2)));
        assert!(guesses.take(20).any(|outcome| outcome == Outcome::TooSoon), "nothing was held back");
        assert_eq!(ask(asker, "swordfish", 2), Outcome::Verified("bob".into()));
        drop(askers);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn a_password_that_is_no_longer_right_has_one_try_before_it_is_a_guess_as_any_other() {
        let (hashing, mut askers, hashers) = build([Users::parse(BOB).unwrap()].into(), [1; 32], 1, means(1));
        let (threads, told) = start(hashers);
        assert_eq!(askers[0].verify(login("swordfish", 1, 1)), Verdict::Later);
        assert_eq!(wait(&told, 0).outcome, Outcome::Verified("bob".into()));
        hashing.replace([Users::parse(&BOB.replace("Y4WPO0", "Z4WPO0")).unwrap()].into());
        let outcomes: Vec<Outcome> = (0..6)
            .map(|_| {
                assert_eq!(askers[0].verify(login("swordfish", 1, 1)), Verdict::Later);
                wait(&told, 0).outcome
            })
            .collect();
        assert_eq!(outcomes[0], Outcome::Wrong { hold_ms: 0 });
        assert_eq!(outcomes[5], Outcome::Wrong { hold_ms: 200 });
        drop(askers);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn what_nobody_waits_for_is_not_hashed() {
        let (_hashing, mut askers, hashers) =
            build([Users::parse(BOB).unwrap()].into(), [1; 32], 1, means(1));
        let mut late = login("swordfish", 1, 0);
        late.patience_ms = 0;
        assert_eq!(askers[0].verify(late), Verdict::Later);
        let (threads, told) = start(hashers);
        assert_eq!(wait(&told, 0).outcome, Outcome::Late);
        drop(askers);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
