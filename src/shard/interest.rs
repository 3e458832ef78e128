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
use crate::topic::{self, Announcement, Change, ChangeKind, FilterKey};

use super::replies::{Release, Reply};
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
    /// Sessions that subscribed to some of them: their cursors may go on once so many are in the log.
    subscribed: VecDeque<(u64, Key)>,
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
            subscribed: VecDeque::new(),
            read_by_all: 0,
        }
    }

    /// Filters and subscribers that wait.
    pub fn len(&self) -> usize {
        self.unsent.len() + self.subscribed.len()
    }
}

impl Core {
    /// A local subscription changed what others must know.
    pub(super) fn interest_changed(&mut self, change: Change) {
        let filter = change.filter;
        if self.env.shards == 1 {
            return self.sessions.router.forget_filter(filter); // nobody to tell; a no-op if it is in use
        }
        match change.kind {
            ChangeKind::Withdrawn => {
                let entry = self.exchange.interest.entries.entry(filter).or_default();
                if !entry.lingers {
                    entry.lingers = true;
                    self.env.set_timer(
                        self.env.now + self.env.options.interest_linger_ms,
                        Timer::Interest(filter),
                    );
                }
            }
            ChangeKind::Wanted => match self.exchange.interest.entries.get_mut(&filter) {
                // While it lingered it stayed announced, or it still waits to be.
                Some(entry) if entry.lingers => {
                    entry.lingers = false;
                    if entry.unsent.is_none() {
                        self.exchange.interest.entries.remove(&filter);
                    }
                }
                _ => self.announce(filter),
            },
            ChangeKind::Counts => self.announce(filter),
        }
    }

    /// Tells the others a filter's value, now or when there is room.
    fn announce(&mut self, filter: FilterKey) {
        if self.exchange.interest.unsent.is_empty() && self.log_has_room() {
            return self.append(filter);
        }
        let interest = &mut self.exchange.interest;
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
    fn append(&mut self, filter: FilterKey) {
        // A filter that lingers is still announced: whoever wants it again meanwhile announces nothing.
        let lingers = self.exchange.interest.entries.get(&filter).is_some_and(|entry| entry.lingers);
        match self.sessions.router.announcement(filter) {
            Some(Announcement::Exact { fingerprint, wanted }) => {
                self.exchange
                    .announcements
                    .append(Announced::Exact { fingerprint, wanted: wanted || lingers });
            }
            Some(Announcement::Wildcard { text, wanted }) => {
                self.exchange
                    .announcements
                    .append(Announced::Wildcard { filter: text.into(), wanted: wanted || lingers });
            }
            Some(Announcement::Group { text, online, offline }) => {
                self.exchange.announcements.append(Announced::Group { filter: text.into(), online, offline });
            }
            None => debug_assert!(false, "a filter is kept until it was announced"),
        }
        if lingers {
            return;
        }
        self.exchange.interest.entries.remove(&filter);
        self.sessions.router.forget_filter(filter);
        self.charge_topics();
    }

    /// Whether another announcement fits. Those who have read little are woken before the log is full.
    fn log_has_room(&mut self) -> bool {
        let (appended, max) = (self.exchange.announcements.appended(), self.env.options.announcements_max);
        if appended - self.exchange.interest.read_by_all < max / 2 {
            return true;
        }
        let mut read_by_all = appended;
        for peer in self.exchange.links.peers().iter() {
            let read = self.exchange.links.register(peer, LOG_READ);
            if appended - read >= max / 2 {
                self.exchange.links.call(peer);
            }
            read_by_all = read_by_all.min(read);
        }
        self.exchange.interest.read_by_all = read_by_all;
        appended - read_by_all < max
    }

    /// Whether [`Core::log_has_room`] would say so.
    fn log_may_have_room(&self) -> bool {
        let read =
            self.exchange.links.peers().iter().map(|peer| self.exchange.links.register(peer, LOG_READ));
        let appended = self.exchange.announcements.appended();
        appended - read.min().unwrap_or(appended) < self.env.options.announcements_max
    }

    /// A withdrawn filter has lingered.
    pub(super) fn interest_due(&mut self, filter: FilterKey) {
        let Some(entry) = self.exchange.interest.entries.get_mut(&filter) else { return };
        if entry.lingers {
            entry.lingers = false;
            self.announce(filter);
        }
        // Else it is wanted again; a timer set meanwhile for another withdrawal is not needed either.
    }

    /// What a SUBACK for this filter has to wait for: a number for [`Release::Announced`].
    pub(super) fn announced_at(&self, filter: FilterKey) -> u64 {
        self.exchange.interest.entries.get(&filter).and_then(|entry| entry.unsent).unwrap_or(0)
    }

    /// Up to which number of [`Core::announced_at`] everything is in the log.
    pub(super) fn announced(&self) -> u64 {
        self.exchange.interest.flushed
    }

    /// Answers a SUBSCRIBE: once its filters are in the log, up to number `need`, and all replies before have left.
    /// A PUBLISH may come before it. // [U5-3.8.4-1]; 3.1.1: [U311-3.8.4-1]
    pub(super) fn suback(&mut self, connection: Key, session: Key, need: u64, packet: Box<[u8]>) {
        self.reply(connection, Reply::SubAck(packet), Release::Announced(need));
        if need <= self.announced() {
            self.schedule_cursors(session);
        } else {
            self.exchange.interest.subscribed.push_back((need, session));
        }
    }

    /// Once per turn: what waited for room in the log, and the cursors that waited with it.
    pub(super) fn flush_interest(&mut self) {
        if self.exchange.interest.unsent.is_empty() {
            return;
        }
        self.await_all();
        while !self.exchange.interest.unsent.is_empty() && self.log_has_room() {
            let Some(filter) = self.exchange.interest.unsent.pop_front() else { break };
            self.exchange.interest.flushed += 1;
            if let Some(entry) = self.exchange.interest.entries.get_mut(&filter) {
                entry.unsent = None;
            }
            self.append(filter);
        }
        self.exchange.waits.look_again(); // SUBACKs may wait for it
        while let Some((need, session)) = self.exchange.interest.subscribed.front().copied()
            && need <= self.announced()
        {
            self.exchange.interest.subscribed.pop_front();
            self.schedule_cursors(session); // also if its connection is another by now
        }
    }

    /// Whether something that waits has room by now.
    pub(super) fn interest_may_go_on(&self) -> bool {
        !self.exchange.interest.unsent.is_empty() && self.log_may_have_room()
    }

    /// Learns what the others have announced; called when something was taken in, before it is acted upon. So whoever sent it
    /// could know of nothing that this shard does not know.
    #[inline]
    pub(super) fn hear(&mut self) {
        let router = &mut self.sessions.router;
        let heard = self.exchange.announcements.read(|from, announced| match announced {
            Announced::Exact { fingerprint, wanted } => {
                router.remote_exact(from, *fingerprint, value(*wanted))
            }
            Announced::Wildcard { filter, wanted } => router.remote_wildcard(from, filter, value(*wanted)),
            Announced::Group { filter, online, offline } => {
                router.remote_group(from, filter, *online, *offline)
            }
        });
        if heard.is_empty() {
            return;
        }
        self.charge_topics();
        for from in heard.iter() {
            self.exchange.links.set_register(from, LOG_READ, self.exchange.announcements.read_of(from));
        }
    }
}

fn value(wanted: bool) -> topic::Interest {
    if wanted { topic::Interest::Wanted } else { topic::Interest::Withdrawn }
}
