//! What other shards must know of this one's subscriptions, and when a SUBACK may leave.
//!
//! A change is appended to this shard's log, once for all others (`mesh::Announcements`). Before a shard acts upon what it
//! took in, it reads the logs of the others ([`Core::hear`]). So a SUBACK may leave as soon as its filters are in the log:
//! a PUBLISH that anybody sends after the SUBACK was seen is routed here, and nobody was woken or waited for.
//!
//! A log holds no more than `announcements_max` entries that some shard has not read. What finds no room waits as a
//! filter, once, and its value is looked up when there is room; SUBACKs wait with it, all in one order. A filter that
//! nobody wants any more stays announced for a while.

use std::collections::{HashMap, VecDeque};

use crate::memory::Key;
use crate::mesh::USER;
use crate::topic::{self, Announcement, Change, ChangeKind, FilterKey, Router};

use super::env::Env;
use super::exchange::Exchange;
use super::replies::Reply;
use super::waits::{Line, Wait};
use super::{Core, Timer};

/// Register: how much of the writer's log the reader has read.
const LOG_READ: usize = USER;

/// The current value of one filter, as other shards are to know it.
#[derive(Debug)]
pub enum Announced {
    /// Filters without wildcards, by fingerprint: a false positive costs a parcel and nothing else.
    Exact {
        fingerprint: u64,
        wanted: bool,
    },
    Wildcard {
        filter: Box<str>,
        wanted: bool,
    },
    /// A share group, by its whole filter, and its members at the sender.
    Group {
        filter: Box<str>,
        online: u32,
        offline: u32,
    },
}

#[derive(Debug)]
pub(super) struct Interest {
    /// Filters that found no room in the log, in the order in which they came.
    unsent: VecDeque<FilterKey>,
    /// Filters that ever waited, and those of them that are in the log.
    waited: u64,
    flushed: u64,
    /// Filters that wait or linger.
    entries: HashMap<FilterKey, Entry, ahash::RandomState>,
    /// Sessions that subscribed to some of them, whose cursors wait for that.
    subscribed: Line<Key>,
    /// What all others are known to have read of the log.
    read_by_all: u64,
}

#[derive(Debug, Default)]
struct Entry {
    /// Its number among those that ever waited, if it still does.
    unsent: Option<u64>,
    /// It is not wanted any more but stays announced until a timer fires.
    lingers: bool,
}

impl Interest {
    pub fn new() -> Interest {
        Interest {
            unsent: VecDeque::new(),
            waited: 0,
            flushed: 0,
            entries: HashMap::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4)),
            subscribed: Line::default(),
            read_by_all: 0,
        }
    }

    /// Up to which number of [`Exchange::announced_at`] everything is in the log.
    #[inline]
    pub fn announced(&self) -> u64 {
        self.flushed
    }

    /// Filters and subscribers that wait.
    pub fn len(&self) -> usize {
        self.unsent.len() + self.subscribed.len()
    }
}

impl Exchange {
    /// A local subscription changed what others must know.
    pub fn interest_changed(&mut self, change: Change, router: &mut Router, env: &mut Env) {
        let filter = change.filter;
        if env.shards == 1 {
            return router.forget_filter(filter); // nobody to tell; a no-op if it is in use
        }
        match change.kind {
            ChangeKind::Withdrawn => {
                let entry = self.interest.entries.entry(filter).or_default();
                if !entry.lingers {
                    entry.lingers = true;
                    env.set_timer(env.now + env.options.interest_linger_ms, Timer::Interest(filter));
                }
            }
            ChangeKind::Wanted => match self.interest.entries.get_mut(&filter) {
                // While it lingered it stayed announced, or it still waits to be.
                Some(entry) if entry.lingers => {
                    entry.lingers = false;
                    if entry.unsent.is_none() {
                        self.interest.entries.remove(&filter);
                    }
                }
                _ => self.announce(filter, router, env),
            },
            ChangeKind::Counts => self.announce(filter, router, env),
        }
    }

    /// Tells the others a filter's value, now or when there is room.
    fn announce(&mut self, filter: FilterKey, router: &mut Router, env: &Env) {
        if self.interest.unsent.is_empty() && self.log_has_room(env) {
            return self.append(filter, router);
        }
        let interest = &mut self.interest;
        let entry = interest.entries.entry(filter).or_default();
        if entry.unsent.is_none() {
            interest.waited += 1;
            entry.unsent = Some(interest.waited);
            interest.unsent.push_back(filter);
            if interest.unsent.len() == 1 {
                self.await_all(); // before it is looked again whether there is room, so that no growth is missed
            }
        }
    }

    /// Writes a filter's value of the moment into the log; a filter that is not wanted any more is forgotten with that.
    fn append(&mut self, filter: FilterKey, router: &mut Router) {
        // A filter that lingers is still announced: whoever wants it again meanwhile announces nothing.
        let lingers = self.interest.entries.get(&filter).is_some_and(|entry| entry.lingers);
        match router.announcement(filter) {
            Some(Announcement::Exact { fingerprint, wanted }) => {
                self.announcements.append(Announced::Exact { fingerprint, wanted: wanted || lingers });
            }
            Some(Announcement::Wildcard { text, wanted }) => {
                self.announcements
                    .append(Announced::Wildcard { filter: text.into(), wanted: wanted || lingers });
            }
            Some(Announcement::Group { text, online, offline }) => {
                self.announcements.append(Announced::Group { filter: text.into(), online, offline });
            }
            None => debug_assert!(false, "a filter is kept until it was announced"),
        }
        if lingers {
            return;
        }
        self.interest.entries.remove(&filter);
        router.forget_filter(filter);
    }

    /// Whether another announcement fits. Those who have read little are woken before the log is full.
    fn log_has_room(&mut self, env: &Env) -> bool {
        let (appended, max) = (self.announcements.appended(), env.options.announcements_max);
        if appended - self.interest.read_by_all < max / 2 {
            return true;
        }
        let mut read_by_all = appended;
        for peer in self.links.peers().iter() {
            let read = self.links.register(peer, LOG_READ);
            if appended - read >= max / 2 {
                self.links.call(peer);
            }
            read_by_all = read_by_all.min(read);
        }
        self.interest.read_by_all = read_by_all;
        appended - read_by_all < max
    }

    /// Whether [`Exchange::log_has_room`] would say so.
    fn log_may_have_room(&self, env: &Env) -> bool {
        let read = self.links.peers().iter().map(|peer| self.links.register(peer, LOG_READ));
        let appended = self.announcements.appended();
        appended - read.min().unwrap_or(appended) < env.options.announcements_max
    }

    /// A withdrawn filter has lingered.
    pub fn interest_due(&mut self, filter: FilterKey, router: &mut Router, env: &Env) {
        let Some(entry) = self.interest.entries.get_mut(&filter) else { return };
        if entry.lingers {
            entry.lingers = false;
            self.announce(filter, router, env);
        }
        // Else it is wanted again; a timer set meanwhile for another withdrawal is not needed either.
    }

    /// What a SUBACK for this filter has to wait for: a number for [`Wait::Announced`].
    pub fn announced_at(&self, filter: FilterKey) -> u64 {
        self.interest.entries.get(&filter).and_then(|entry| entry.unsent).unwrap_or(0)
    }

    /// The session's cursors may go on once the wait is over.
    pub fn call_when_announced(&mut self, session: Key, wait: Wait) {
        self.interest.subscribed.push(session, wait);
    }

    /// A session whose cursors may go on.
    pub fn next_announced(&mut self) -> Option<Key> {
        if !self.interest.subscribed.may_go_on(self) {
            return None;
        }
        self.interest.subscribed.pop()
    }

    /// Once per turn: what waited for room in the log. Returns whether anything did.
    pub fn flush_interest(&mut self, router: &mut Router, env: &Env) -> bool {
        if self.interest.unsent.is_empty() {
            return false;
        }
        self.await_all();
        while !self.interest.unsent.is_empty() && self.log_has_room(env) {
            let Some(filter) = self.interest.unsent.pop_front() else { break };
            self.interest.flushed += 1;
            if let Some(entry) = self.interest.entries.get_mut(&filter) {
                entry.unsent = None;
            }
            self.append(filter, router);
        }
        self.waits.look_again(); // SUBACKs may wait for it
        true
    }

    /// Whether something that waits has room by now.
    pub fn interest_may_go_on(&self, env: &Env) -> bool {
        !self.interest.unsent.is_empty() && self.log_may_have_room(env)
    }

    /// Learns what the others have announced. Returns whether there was anything.
    #[inline]
    pub fn read_logs(&mut self, router: &mut Router) -> bool {
        let heard = self.announcements.read(|from, announced| match announced {
            Announced::Exact { fingerprint, wanted } => {
                router.remote_exact(from, *fingerprint, value(*wanted))
            }
            Announced::Wildcard { filter, wanted } => router.remote_wildcard(from, filter, value(*wanted)),
            Announced::Group { filter, online, offline } => {
                router.remote_group(from, filter, *online, *offline)
            }
        });
        for from in heard.iter() {
            self.links.set_register(from, LOG_READ, self.announcements.read_of(from));
        }
        !heard.is_empty()
    }
}

impl Core {
    /// A local subscription changed what others must know.
    pub(super) fn interest_changed(&mut self, change: Change) {
        self.exchange.interest_changed(change, &mut self.local.sessions.router, &mut self.local.env);
    }

    /// A withdrawn filter has lingered.
    pub(super) fn interest_due(&mut self, filter: FilterKey) {
        self.exchange.interest_due(filter, &mut self.local.sessions.router, &self.local.env);
        self.local.sessions.charge_topics(&mut self.local.env);
    }

    /// Answers a SUBSCRIBE: once its filters are in the log, up to number `need`, and all replies before have left.
    /// A PUBLISH may come before it. // [U5-3.8.4-1]; 3.1.1: [U311-3.8.4-1]
    pub(super) fn suback(&mut self, connection: Key, session: Key, need: u64, packet: Box<[u8]>) {
        let wait = match self.on_disk_if_kept(session) {
            Wait::Nothing => Wait::Announced(need),
            disk => Wait::All([Wait::Announced(need), disk].into()),
        };
        self.reply(connection, Reply::Packet(packet), wait);
        let announced = Wait::Announced(need);
        if announced.is_over(&self.exchange) {
            self.local.sessions.schedule_cursors(session);
        } else {
            self.exchange.call_when_announced(session, announced);
        }
    }

    /// Once per turn: what waited for room in the log, and the cursors that waited with it.
    pub(super) fn flush_interest(&mut self) {
        if !self.exchange.flush_interest(&mut self.local.sessions.router, &self.local.env) {
            return;
        }
        self.local.sessions.charge_topics(&mut self.local.env);
        while let Some(session) = self.exchange.next_announced() {
            self.local.sessions.schedule_cursors(session); // also if its connection is another by now
        }
    }

    /// Reads the logs of all other shards; see [`Core::hear`].
    #[inline]
    pub(super) fn read_logs(&mut self) {
        if self.exchange.read_logs(&mut self.local.sessions.router) {
            self.local.sessions.charge_topics(&mut self.local.env);
        }
    }
}

fn value(wanted: bool) -> topic::Interest {
    if wanted { topic::Interest::Wanted } else { topic::Interest::Withdrawn }
}
