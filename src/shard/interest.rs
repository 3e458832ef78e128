//! What other shards must know of this one's subscriptions, and the barrier that holds a SUBACK until they do.
//!
//! Every change gets the next number of one sequence. For each peer there is a queue of filters whose value the peer
//! does not have yet, each with its *oldest* unsent number; a parcel carries the filter's value of the moment and
//! claims every number below the oldest that is still unsent. So changes coalesce, entries never cancel out silently,
//! and a peer's register says up to which number it knows everything. A SUBACK waits until all peers know the number of
//! its filters' last announcement, whoever caused that; then a PUBLISH sent by anybody after the SUBACK was seen is
//! routed here. A filter that nobody wants any more stays announced for a while.

use std::collections::{HashMap, VecDeque};

use crate::memory::{Key, ShardId, ShardSet};
use crate::mesh::USER;
use crate::topic::{self, Announcement, Change, ChangeKind, FilterKey};

use super::parcel::{Announced, Interest as Value, Parcel};
use super::{Core, Timer};

/// Register: the sequence up to which the reader knows the writer's interest.
pub(super) const INTEREST_KNOWN: usize = USER;

#[derive(Debug)]
pub(super) struct Interest {
    sequence: u64,
    /// By peer: filters and their oldest unsent sequence, ascending.
    unsent: Vec<VecDeque<(FilterKey, u64)>>,
    /// Peers whose queue is not empty: a turn must not look at each peer to find out that there is nothing to do.
    behind: ShardSet,
    entries: HashMap<FilterKey, Entry, ahash::RandomState>,
    /// Announcements by sequence; an entry is dropped once its last one is known everywhere.
    settling: VecDeque<(u64, FilterKey)>,
    staged: VecDeque<StagedSubAck>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Peers in whose queue the filter is.
    dirty: ShardSet,
    /// Sequence of the last announcement that a SUBACK may have to wait for.
    set_at: u64,
    /// It is not wanted any more but stays announced until a timer fires.
    lingers: bool,
}

/// A SUBACK that must not leave yet.
#[derive(Debug)]
struct StagedSubAck {
    connection: Key,
    need: u64,
    packet: Vec<u8>,
}

impl Interest {
    pub fn new(shards: u16) -> Interest {
        Interest {
            sequence: 0,
            unsent: (0..shards).map(|_| VecDeque::new()).collect(),
            behind: ShardSet::EMPTY,
            entries: HashMap::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4)),
            settling: VecDeque::new(),
            staged: VecDeque::new(),
        }
    }

    /// Announcements and SUBACKs that wait.
    pub fn len(&self) -> usize {
        let unsent: usize = self.behind.iter().map(|peer| self.unsent[usize::from(peer)].len()).sum();
        unsent + self.staged.len()
    }

    pub fn is_waiting(&self) -> bool {
        self.awaits_peers() || !self.behind.is_empty()
    }

    /// Something goes on when peers know more.
    fn awaits_peers(&self) -> bool {
        !self.settling.is_empty() || !self.staged.is_empty()
    }
}

impl Core {
    /// A local subscription changed what others must know.
    pub(super) fn interest_changed(&mut self, change: Change) {
        let filter = change.filter;
        if self.shards == 1 {
            return self.router.forget_filter(filter); // nobody to tell; a no-op if it is in use
        }
        match change.kind {
            ChangeKind::Withdrawn => {
                let entry = self.interest.entries.entry(filter).or_default();
                if !entry.lingers {
                    entry.lingers = true;
                    self.timers
                        .set(self.now + self.options.interest_linger_ms, Timer::Interest(filter).pack());
                }
            }
            ChangeKind::Wanted => {
                let known = self.interest.entries.get(&filter).is_some_and(|entry| entry.lingers);
                if !known {
                    self.announce(filter);
                }
                // While it lingered it stayed announced, and set_at still names that announcement.
                if let Some(entry) = self.interest.entries.get_mut(&filter) {
                    entry.lingers = false;
                    self.interest.settling.push_back((self.interest.sequence, filter));
                }
            }
            ChangeKind::Counts => self.announce(filter),
        }
    }

    /// Puts a filter into every peer's queue.
    fn announce(&mut self, filter: FilterKey) {
        let interest = &mut self.interest;
        interest.sequence += 1;
        let entry = interest.entries.entry(filter).or_default();
        entry.set_at = interest.sequence;
        interest.settling.push_back((interest.sequence, filter));
        for peer in self.links.peers().iter() {
            if !entry.dirty.contains(peer) {
                entry.dirty.insert(peer);
                interest.unsent[usize::from(peer)].push_back((filter, interest.sequence));
                interest.behind.insert(peer);
            }
        }
    }

    /// The sequence that peers must know before a SUBACK for this filter may leave.
    pub(super) fn announced_at(&self, filter: FilterKey) -> u64 {
        self.interest.entries.get(&filter).map_or(0, |entry| entry.set_at)
    }

    /// A withdrawn filter has lingered.
    pub(super) fn interest_due(&mut self, filter: FilterKey) {
        let Some(entry) = self.interest.entries.get_mut(&filter) else { return };
        if entry.lingers {
            entry.lingers = false;
            self.announce(filter);
        }
        // Else it is wanted again; a timer set meanwhile for another withdrawal is not needed either.
    }

    /// Sends announcements while the rings have room; before everything that is spilled.
    pub(super) fn flush_interest(&mut self) {
        for peer in self.interest.behind.iter() {
            self.flush_interest_to(peer);
        }
    }

    fn flush_interest_to(&mut self, peer: ShardId) {
        while let Some((filter, _)) = self.interest.unsent[usize::from(peer)].front().copied() {
            let queue = &self.interest.unsent[usize::from(peer)];
            // Everything below the oldest number that stays unsent, or everything.
            let claim = queue.get(1).map_or(self.interest.sequence, |(_, oldest)| oldest - 1);
            // A filter that lingers is still announced: whoever wants it again meanwhile announces nothing.
            let lingers = self.interest.entries.get(&filter).is_some_and(|entry| entry.lingers);
            let value = match self.router.announcement(filter) {
                Some(Announcement::Exact { fingerprint, wanted }) => {
                    Value::Exact { fingerprint, wanted: wanted || lingers }
                }
                Some(Announcement::Wildcard { text, wanted }) => {
                    Value::Wildcard { filter: text.into(), wanted: wanted || lingers }
                }
                Some(Announcement::Group { text, online, offline }) => {
                    Value::Group { filter: text.into(), online, offline }
                }
                // A filter is kept until it was announced, so this is a value that nobody needs.
                None => Value::Exact { fingerprint: 0, wanted: false },
            };
            let parcel = Parcel::Interest(Box::new(Announced { value, claim }));
            if self.links.push_control(peer, parcel).is_err() {
                return;
            }
            self.counters().mesh_sent_total.add(1);
            self.interest.unsent[usize::from(peer)].pop_front();
            if let Some(entry) = self.interest.entries.get_mut(&filter) {
                entry.dirty.remove(peer);
            }
        }
        self.interest.behind.remove(peer);
    }

    /// Drops the entries of filters that everybody knows: a wanted one needs none until it changes, a withdrawn one is
    /// forgotten altogether.
    fn settle(&mut self) {
        let known = self.known_by_all();
        while let Some((sequence, filter)) = self.interest.settling.front().copied()
            && sequence <= known
        {
            self.interest.settling.pop_front();
            let last =
                self.interest.entries.get(&filter).is_some_and(|entry| {
                    entry.set_at <= sequence && entry.dirty.is_empty() && !entry.lingers
                });
            if last {
                self.interest.entries.remove(&filter);
                self.router.forget_filter(filter);
            }
        }
    }

    /// What every peer knows.
    fn known_by_all(&self) -> u64 {
        let peers = self.links.peers();
        peers.iter().map(|peer| self.links.register(peer, INTEREST_KNOWN)).min().unwrap_or(u64::MAX)
    }

    /// Stages a SUBACK; it leaves once all peers know `need` and all SUBACKs before it have left.
    /// A PUBLISH may come before it. // [U5-3.8.4-1]; 3.1.1: [U311-3.8.4-1]
    pub(super) fn stage_suback(&mut self, connection: Key, need: u64, packet: Vec<u8>) {
        if self.interest.staged.is_empty() && (need == 0 || need <= self.known_by_all()) {
            self.stage(connection, |out| out.extend_from_slice(&packet));
            self.start_cursors(connection);
            return;
        }
        // Never less than what the ones before wait for, so that the front decides.
        let need = self.interest.staged.back().map_or(need, |last| need.max(last.need));
        self.interest.staged.push_back(StagedSubAck { connection, need, packet });
    }

    /// Lets SUBACKs go whose time has come.
    pub(super) fn release_subacks(&mut self) {
        if !self.interest.awaits_peers() {
            return;
        }
        self.settle();
        let known = self.known_by_all();
        while let Some(staged) = self.interest.staged.front()
            && staged.need <= known
        {
            let Some(StagedSubAck { connection, packet, .. }) = self.interest.staged.pop_front() else {
                return;
            };
            if self.connections.get(connection).is_some_and(|connection| connection.live().is_some()) {
                self.stage(connection, |out| out.extend_from_slice(&packet));
                self.start_cursors(connection);
            }
        }
    }

    pub(super) fn interest_may_settle(&self) -> bool {
        if !self.interest.awaits_peers() {
            return false;
        }
        let known = self.known_by_all();
        self.interest.staged.front().is_some_and(|staged| staged.need <= known)
            || self.interest.settling.front().is_some_and(|(sequence, _)| *sequence <= known)
    }

    /// Another shard announced something.
    pub(super) fn interest_arrived(&mut self, from: ShardId, announced: Announced) {
        match announced.value {
            Value::Exact { fingerprint, wanted } => {
                self.router.remote_exact(from, fingerprint, value(wanted))
            }
            Value::Wildcard { filter, wanted } => self.router.remote_wildcard(from, &filter, value(wanted)),
            Value::Group { filter, online, offline } => {
                self.router.remote_group(from, &filter, online, offline)
            }
        }
        self.links.set_register(from, INTEREST_KNOWN, announced.claim);
    }
}

fn value(wanted: bool) -> topic::Interest {
    if wanted { topic::Interest::Wanted } else { topic::Interest::Withdrawn }
}
