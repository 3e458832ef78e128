//! Everything that waits for other shards: connections that are not parsed, wills that must not pass their client's
//! messages, relays that are not consumed by all their targets, replies that are not true yet, cursors whose filters are
//! not announced.
//!
//! All of them wait for a [`Wait`], and [`Wait::is_over`] alone says whether that has come. A further thing to wait for is
//! one more variant of it, and whoever waits need not know. Most of it is that registers of the mesh grow. While anything
//! waits, every peer is asked to ring when it has made progress; the request stands before the registers are looked at, so
//! that no growth is missed.

use std::collections::VecDeque;

use crate::memory::{Key, Message, ShardId, ShardSet};
use crate::mesh::{CONSUMED, Links, USER};

use super::Core;
use super::connection::{End, Live, Mode};
use super::exchange::Exchange;
use super::filters::Sliced;
use super::order::{Heard, Owed, Ticket};
use super::parcel::Parcel;
use super::replies::Holding;

/// Register: relays from the writer to the reader whose fan-out was consumed by all its targets.
pub(super) const RELAYS_DONE: usize = USER + 1;

/// Register: parcels from the writer to the reader whose effects are on the reader's disk; see `disk`.
pub(super) const DURABLE: usize = USER + 2;

/// Paused connections looked at in one turn.
const PAUSED_BUDGET: usize = 1024;

/// What has to be so before something goes on. Once it is, it stays so, but for those that are about room.
#[derive(Debug)]
pub(super) enum Wait {
    /// Nothing: it goes on when those before it in its line have.
    Nothing,
    /// Other shards have acted upon what they were sent.
    Fence(Fence),
    /// Everything of this shard up to this number stands in its announcement log; see [`Exchange::announced_at`].
    Announced(u64),
    /// So many wills have left.
    Wills(u64),
    /// None of these shards is full.
    Room(ShardSet),
    /// What this shard wrote down up to this commit is on disk.
    Disk(u64),
    /// None of these shards has a disk that is far behind.
    Disks(ShardSet),
    /// The data directory is not full.
    Store,
    /// All of these.
    All(Box<[Wait]>),
    /// This owner is not full, and one more relay to it is within the window.
    Relay(ShardId),
}

impl Wait {
    #[inline]
    pub fn is_over(&self, exchange: &Exchange) -> bool {
        match self {
            Wait::Nothing => true,
            Wait::Fence(fence) => fence.is_reached(&exchange.links),
            Wait::Announced(need) => *need <= exchange.interest.announced(),
            Wait::Wills(count) => *count <= exchange.waits.released,
            Wait::Disk(commit) => *commit <= exchange.disk.on_disk(),
            Wait::Disks(shards) => exchange.disk.keep_up(*shards),
            Wait::Store => !exchange.disk.is_full,
            Wait::All(all) => all.iter().all(|wait| wait.is_over(exchange)),
            Wait::Room(shards) => shards.intersection(exchange.links.full()).is_empty(),
            Wait::Relay(owner) => {
                !exchange.links.full().contains(*owner) && exchange.waits.relay_fits(*owner, &exchange.links)
            }
        }
    }
}

/// What waits one behind the other, each for its own [`Wait`].
#[derive(Debug)]
pub(super) struct Line<T>(VecDeque<(T, Wait)>);

impl<T> Default for Line<T> {
    fn default() -> Line<T> {
        Line(VecDeque::new())
    }
}

impl<T> Line<T> {
    pub fn push(&mut self, item: T, wait: Wait) {
        self.0.push_back((item, wait));
    }

    pub fn push_front(&mut self, item: T, wait: Wait) {
        self.0.push_front((item, wait));
    }

    /// Whether the first one may go on.
    pub fn may_go_on(&self, exchange: &Exchange) -> bool {
        self.0.front().is_some_and(|(_, wait)| wait.is_over(exchange))
    }

    /// The first one, if it `may` go on.
    pub fn take_if(&mut self, may: impl FnOnce(&Wait) -> bool) -> Option<T> {
        self.0.front().is_some_and(|(_, wait)| may(wait)).then(|| self.pop())?
    }

    /// The first one, which may go on.
    pub fn pop(&mut self) -> Option<T> {
        self.0.pop_front().map(|(item, _)| item)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Why a connection is not parsed.
#[derive(Debug)]
pub(super) enum Blocked {
    /// Other shards have something to do first.
    Shards(Wait),
    /// The same, and then it publishes this way.
    Switch(Wait, Mode),
    /// It holds as many replies as it may.
    Replies,
    /// The filters of the packet at the front of its input are acted upon in slices. It waits for no peer, so not among the
    /// paused.
    Filters(Sliced),
    /// Its client does not read what it is answered. Over when it has taken enough: no peer has a say in that, so it does
    /// not wait among the paused.
    Output,
}

/// Values that registers of peers have to reach.
///
/// Most fences are about one shard; only the others take memory of their own.
#[derive(Debug)]
pub(super) struct Fence {
    first: Option<Wanted>,
    rest: Vec<Wanted>,
}

/// A register of a peer, and the value that it has to reach.
type Wanted = (ShardId, usize, u64);

impl FromIterator<Wanted> for Fence {
    fn from_iter<I: IntoIterator<Item = Wanted>>(wanted: I) -> Fence {
        let mut wanted = wanted.into_iter();
        Fence { first: wanted.next(), rest: wanted.collect() }
    }
}

impl Fence {
    fn is_reached(&self, links: &Links<Parcel>) -> bool {
        let mut wanted = self.first.iter().chain(&self.rest).copied();
        wanted.all(|(shard, register, value)| links.register(shard, register) >= value)
    }
}

#[derive(Debug)]
pub(super) struct Waits {
    /// Connections that are not parsed, who waits longest first.
    paused: VecDeque<Key>,
    /// In their order, which is that of their fences too.
    held: Line<Message>,
    /// Those that left.
    released: u64,
    /// Of `paused`, from the front: not looked at since something moved.
    unlooked: usize,
    /// By owner: relays sent there.
    relays_sent: Vec<u64>,
    /// By sender: relays taken from there, and those whose fan-out is not consumed yet, in order.
    relays_taken: Vec<u64>,
    relays_open: Vec<Line<u64>>,
    /// Senders of those.
    relaying: ShardSet,
    /// Relays to one owner that may be unfinished.
    relay_window: u64,
    /// Connections whose clients are told something later.
    pub holding: Holding,
}

impl Waits {
    pub fn new(shards: u16, relay_window: u64) -> Waits {
        let shards = usize::from(shards);
        Waits {
            paused: VecDeque::new(),
            held: Line::default(),
            released: 0,
            unlooked: 0,
            relays_sent: vec![0; shards],
            relays_taken: vec![0; shards],
            relays_open: (0..shards).map(|_| Line::default()).collect(),
            relaying: ShardSet::EMPTY,
            relay_window,
            holding: Holding::default(),
        }
    }

    pub fn paused_len(&self) -> usize {
        self.paused.len()
    }

    pub fn len(&self) -> usize {
        let relays: usize = self.relaying.iter().map(|from| self.relays_open[usize::from(from)].len()).sum();
        self.paused.len() + self.held.len() + self.holding.len() + relays
    }

    fn is_empty(&self) -> bool {
        self.paused.is_empty() && self.held.is_empty() && self.relaying.is_empty() && self.holding.len() == 0
    }

    /// Keeps a message of the broker's own making until the wait is over.
    pub fn hold(&mut self, message: Message, wait: Wait) {
        self.held.push(message, wait);
    }

    pub fn holds_nothing(&self) -> bool {
        self.held.is_empty()
    }

    /// The first PUBLISH of a connection comes after wills that are held: one may be that of its former connection.
    pub fn lets_begin(&self, mode: Mode) -> Result<(), Blocked> {
        match mode {
            Mode::New if !self.held.is_empty() => {
                let wills = Wait::Wills(self.released + self.held.len() as u64);
                Err(Blocked::Switch(wills, Mode::WillsOut))
            }
            Mode::New | Mode::WillsOut | Mode::Direct | Mode::Owner => Ok(()),
        }
    }

    /// Something moved for which a paused connection or a held reply may wait.
    pub fn look_again(&mut self) {
        self.unlooked = self.paused.len();
        self.holding.look_again();
    }

    fn relays_sent(&self, owners: ShardSet) -> impl Iterator<Item = Wanted> {
        let sent = owners.iter().map(|owner| (owner, RELAYS_DONE, self.relays_sent[usize::from(owner)]));
        sent.filter(|(_, _, sent)| *sent > 0)
    }

    /// Whether one more relay to this owner is within the window.
    fn relay_fits(&self, owner: ShardId, links: &Links<Parcel>) -> bool {
        self.relays_sent[usize::from(owner)] - links.register(owner, RELAYS_DONE) < self.relay_window
    }

    pub fn count_relay(&mut self, owner: ShardId) {
        self.relays_sent[usize::from(owner)] += 1;
    }
}

impl Exchange {
    /// Everything that was pushed to these shards so far is consumed.
    pub fn consumed(&self, targets: ShardSet) -> Wait {
        Wait::Fence(self.pushed(targets).collect())
    }

    /// The relays that were sent to these owners are consumed by all their targets.
    pub fn relayed(&self, owners: ShardSet) -> Wait {
        Wait::Fence(self.waits.relays_sent(owners).collect())
    }

    /// What was pushed to these shards so far is on their disks, as far as they keep it.
    pub fn kept(&self, targets: ShardSet) -> Wait {
        let targets = targets.intersection(self.links.peers());
        let wanted = targets.iter().map(|target| (target, DURABLE, self.links.pushed(target)));
        Wait::Fence(wanted.collect())
    }

    /// Everything that left here by either way is consumed by all that it was for.
    pub fn everything(&self) -> Wait {
        let peers = self.links.peers();
        Wait::Fence(self.pushed(peers).chain(self.waits.relays_sent(peers)).collect())
    }

    fn pushed(&self, targets: ShardSet) -> impl Iterator<Item = Wanted> {
        let targets = targets.intersection(self.links.peers());
        targets.iter().map(|target| (target, CONSUMED, self.links.pushed(target)))
    }

    /// Asks every peer to ring when it has made progress; what waits for that is looked at after this.
    pub fn await_all(&self) {
        self.links.peers().iter().for_each(|peer| self.links.await_progress(peer));
    }

    /// A batch of parcels from `from` was acted upon; `relays` of them were relays, fanned out to `targets`. `commit` has
    /// what they changed, where there is a data directory.
    pub fn relays_taken(&mut self, from: ShardId, relays: u64, targets: ShardSet, commit: Option<u64>) {
        if relays == 0 {
            return;
        }
        let at = usize::from(from);
        self.waits.relays_taken[at] += relays;
        // Where there is a data directory a relay is done when it is on disk: here, and wherever it was passed on to.
        let wait = match commit {
            Some(commit) => Wait::All([Wait::Disk(commit), self.kept(targets)].into()),
            None => self.consumed(targets),
        };
        self.waits.relays_open[at].push(self.waits.relays_taken[at], wait);
        self.waits.relaying.insert(from);
        self.finish_relays();
    }

    /// Tells senders of relays which of them are consumed by all that they were for.
    pub fn finish_relays(&mut self) {
        for from in self.waits.relaying.iter() {
            let at = usize::from(from);
            while self.waits.relays_open[at].may_go_on(self)
                && let Some(number) = self.waits.relays_open[at].pop()
            {
                self.links.set_register(from, RELAYS_DONE, number);
            }
            if self.waits.relays_open[at].is_empty() {
                self.waits.relaying.remove(from);
            }
        }
    }

    /// The next held message that may leave.
    fn next_held(&mut self) -> Option<Message> {
        if !self.waits.held.may_go_on(self) {
            return None;
        }
        let message = self.waits.held.pop()?;
        self.waits.released += 1;
        self.waits.look_again();
        Some(message)
    }

    /// What is on its way to other shards, or waits for them.
    pub fn waiting_len(&self) -> u64 {
        self.links.waiting() as u64 + self.waits.len() as u64 + self.interest.len() as u64
    }
}

impl Core {
    /// The connection is not parsed until `blocked` is over.
    pub(super) fn pause(&mut self, key: Key, blocked: Blocked) {
        let Some(live) =
            self.local.clients.connections.get_mut(key).and_then(|connection| connection.live_mut())
        else {
            return;
        };
        if matches!(blocked, Blocked::Filters(_)) {
            let _ = live.block(blocked);
            return self.local.clients.filters.push_back(key);
        }
        // One that is taken over may be paused already, for another reason.
        if live.block(blocked).is_none() {
            self.exchange.waits.paused.push_back(key);
            self.exchange.waits.look_again();
            self.local.env.counters().pauses_total.add(1);
        }
        self.local.clients.mark_dirty(key);
    }

    /// Lets everything go on whose time has come.
    pub(super) fn progress(&mut self, heard: Heard<'_>) {
        if self.local.env.shards == 1 {
            if !self.exchange.waits.is_empty() {
                self.release_replies(heard);
                self.resume_paused(heard);
            }
            return;
        }
        if !self.exchange.waits.is_empty() || self.local.env.is_stopping {
            self.exchange.await_all();
        }
        self.flush_interest();
        self.exchange.finish_relays();
        self.release_held(heard);
        // First, since each takes one place only, and those that keep a shard full would leave it none.
        if !self.local.clients.hand_offs.is_empty() {
            self.retry_hand_offs();
        }
        self.exchange.links.forget_eased(); // those who wait for it are looked at now
        self.release_replies(heard);
        self.resume_paused(heard);
    }

    /// Lets paused connections go on, in turn: who is paused again at once goes behind all who wait, or those that keep a
    /// shard full would have all its room.
    fn resume_paused(&mut self, heard: Heard<'_>) {
        if self.exchange.waits.paused.is_empty() {
            return;
        }
        let mut waiting = std::mem::take(&mut self.exchange.waits.paused);
        let looked_at = waiting.len().min(PAUSED_BUDGET);
        let unlooked =
            self.exchange.waits.unlooked.min(waiting.len()) - self.exchange.waits.unlooked.min(looked_at);
        for _ in 0..looked_at {
            let Some(key) = waiting.pop_front() else { break };
            let Some(live) = self.local.clients.connections.get(key).and_then(|connection| connection.live())
            else {
                continue;
            };
            let free = match live.blocked() {
                Some(Blocked::Shards(wait) | Blocked::Switch(wait, _)) => wait.is_over(&self.exchange),
                Some(Blocked::Replies) => live.replies().is_none_or(|replies| replies.are_few()),
                Some(Blocked::Output | Blocked::Filters(_)) | None => continue,
            };
            if free {
                self.resume(key, heard);
            } else {
                waiting.push_back(key);
            }
        }
        waiting.append(&mut self.exchange.waits.paused); // who was paused again meanwhile
        self.exchange.waits.paused = waiting;
        self.exchange.waits.unlooked = unlooked;
    }

    pub(super) fn resume(&mut self, key: Key, heard: Heard<'_>) {
        let now = self.local.env.now;
        let Some(live) =
            self.local.clients.connections.get_mut(key).and_then(|connection| connection.live_mut())
        else {
            return;
        };
        // Here and not when its packet is admitted: that may have to wait for room, and with room the fence would be another.
        match live.unblock() {
            Some(Blocked::Switch(_, mode)) => live.switch_to(mode),
            Some(Blocked::Shards(_) | Blocked::Replies | Blocked::Output | Blocked::Filters(_)) | None => {}
        }
        live.last_packet_at = now;
        if live.taken_over {
            return self.local.clients.mark_dirty(key); // its last read goes on
        }
        self.parse(key, &[], heard);
        self.local.clients.mark_dirty(key);
        let Some(connection) = self.local.clients.connections.get(key) else { return };
        if connection.eof && connection.live().is_some_and(Live::has_said_all) {
            self.local.clients.end(key, End::Lost, &mut self.local.env);
        }
        self.settle(heard);
    }

    fn release_held(&mut self, heard: Heard<'_>) {
        while let Some(message) = self.exchange.next_held() {
            let _ = self.publish(&message.view(), Ticket::owed(Owed::Will, heard));
        }
    }

    /// Whether something that waits could go on now.
    pub(super) fn has_progress(&self) -> bool {
        self.exchange.waits.holding.has_unlooked()
            || self.exchange.waits.unlooked > 0
            || self.local.env.shards > 1
                && (self.exchange.interest_may_go_on(&self.local.env)
                    || self.exchange.waits.held.may_go_on(&self.exchange)
                    || (self.exchange.links.has_eased() && self.waits_for_room()))
    }

    fn waits_for_room(&self) -> bool {
        !self.local.clients.hand_offs.is_empty() || !self.exchange.waits.paused.is_empty()
    }
}
