//! How far the disk is: what waits for it, the writes of the log, and what other shards are told.
//!
//! A reply that stands for something on disk waits for [`Wait::Disk`], the commit of this shard that
//! has it, and for register [`DURABLE`] of each shard that it was sent to. That register counts
//! parcels, in their order, whose effects are on the reader's disk; a parcel that the reader wrote
//! nothing for counts as soon as it was acted upon and those before it count.

use std::collections::VecDeque;

use crate::clock::Millis;
use crate::io::Io;
use crate::memory::{Aligned, Key, ShardId, ShardSet};
use crate::store::{Progress, Record};
use crate::topic;
use crate::wire::{AckKind, Publish, Qos, Reason, Version};

use super::clients::Clients;
use super::env::Env;
use super::exchange::Exchange;
use super::ingress::Pressure;
use super::local::Local;
use super::publish::{PacketIds, Publisher};
use super::replies::{Answered, Reply};
use super::restore::Start;
use super::slots::Slot;
use super::waits::{Blocked, DURABLE, Wait};
use super::{Core, Shard};

/// The number of a log's writes at the kernel boundary: one is on its way at a time.
const LOG: u64 = 1;

/// Who keeps a message that was published at QoS 2.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum KeptBy {
    ThisShard,
    /// Other shards, perhaps beside this one.
    Others,
    /// Whoever kept it when it came first.
    AsBefore,
}

impl KeptBy {
    /// It went to these shards, beside this one.
    pub fn of(others: ShardSet) -> KeptBy {
        if others.is_empty() { KeptBy::ThisShard } else { KeptBy::Others }
    }
}

/// Bytes of a shard that are not on disk, at which publishers of what it would have to keep are not read any more. They go on
/// at half of it.
const WAITING_MAX: u64 = 8 << 20;

/// What becomes of a message that may have to be kept.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum OnDisk {
    /// It is taken.
    MayBe,
    /// It is refused: the data directory is full.
    HasNoRoom,
}

/// What the disk has, as far as others wait for it.
#[derive(Debug)]
pub(super) struct Disk {
    /// Commits of this shard's log that are on disk.
    on_disk: u64,
    /// The data directory is full.
    pub is_full: bool,
    /// Shards whose disks are far behind, this one included.
    behind: ShardSet,
    /// By sender: parcels up to this number, and the commit that has what they changed.
    open: Vec<VecDeque<(u64, u64)>>,
}

impl Disk {
    pub fn new(shards: u16) -> Disk {
        Disk {
            on_disk: 0,
            is_full: false,
            behind: ShardSet::EMPTY,
            open: (0..shards).map(|_| VecDeque::new()).collect(),
        }
    }

    #[inline]
    pub fn on_disk(&self) -> u64 {
        self.on_disk
    }

    /// Whether none of these shards has a disk that is far behind.
    pub fn keep_up(&self, shards: ShardSet) -> bool {
        shards.intersection(self.behind).is_empty()
    }
}

impl Env {
    /// The commit that has everything that was written down so far. `None` without a data directory.
    #[inline]
    pub fn last_commit(&self) -> Option<u64> {
        self.keep.as_ref().map(|keep| keep.log.last_commit())
    }

    /// The commit that has what was written down since `mark`, if anything was.
    #[inline]
    pub fn commit_since(&self, mark: u64) -> Option<u64> {
        let keep = self.keep.as_ref()?;
        (keep.log.appended() != mark).then(|| keep.log.last_commit())
    }
}

impl Exchange {
    /// Parcels of another shard were acted upon; `commit` has what they changed, if they changed anything that is kept.
    pub fn acted_upon(&mut self, from: ShardId, commit: Option<u64>) {
        let open = &mut self.disk.open[usize::from(from)];
        let parcels = self.links.consumed_from(from);
        match commit {
            None if open.is_empty() => self.links.set_register(from, DURABLE, parcels),
            None => open.push_back((parcels, 0)),
            Some(commit) => open.push_back((parcels, commit)),
        }
    }

    /// The disk has more: whoever waits for it is looked at, and senders are told.
    fn disk_reached(&mut self, commit: u64) {
        self.disk.on_disk = commit;
        self.waits.look_again();
        for (from, open) in self.disk.open.iter_mut().enumerate() {
            let mut reached = None;
            while let Some(&(parcels, need)) = open.front()
                && need <= commit
            {
                reached = Some(parcels);
                open.pop_front();
            }
            if let Some(parcels) = reached {
                self.links.set_register(from as ShardId, DURABLE, parcels);
            }
        }
        self.finish_relays();
    }

    /// Once a turn: whose disk is far behind, and whether the data directory is full.
    fn look_at_disks(&mut self, is_full: bool, env: &Env) {
        let was_behind = self.disk.behind;
        let is_behind = |shard: &ShardId| {
            let max = if was_behind.contains(*shard) { WAITING_MAX / 2 } else { WAITING_MAX };
            env.counters[usize::from(*shard)].store_waiting_bytes.get() > max
        };
        let behind = ShardSet::first(env.shards).iter().filter(is_behind);
        let behind = behind.fold(ShardSet::EMPTY, ShardSet::with);
        if (behind, is_full) != (was_behind, self.disk.is_full) {
            (self.disk.behind, self.disk.is_full) = (behind, is_full);
            self.waits.look_again();
        }
    }

    /// What an acknowledgement waits for if `commit` and what these shards were sent have to be on disk.
    pub fn on_disk(&self, commit: Option<u64>, targets: ShardSet) -> Wait {
        let own = commit.map(Wait::Disk);
        match (own, targets.intersection(self.links.peers()).is_empty()) {
            (None, true) => Wait::Nothing,
            (Some(own), true) => own,
            (None, false) => self.kept(targets),
            (Some(own), false) => Wait::All([own, self.kept(targets)].into()),
        }
    }
}

impl Clients {
    /// Nothing is sent to this connection before the commit is on disk.
    pub fn shut_until(&mut self, key: Key, commit: u64) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.is_shut = true;
            self.shut.push_back((key, commit));
        }
    }

    /// The disk has this commit.
    fn open_shut(&mut self, commit: u64) {
        while let Some(&(key, need)) = self.shut.front()
            && need <= commit
        {
            self.shut.pop_front();
            if let Some(connection) = self.connections.get_mut(key) {
                connection.is_shut = false;
                self.mark_dirty(key);
            }
        }
    }
}

impl Local {
    /// The shards that would write down a message that comes now, as far as is known here. One that was taken before is no
    /// new one.
    #[cold]
    fn keepers(&mut self, from: Publisher, publish: &Publish<'_>, topic: &str) -> ShardSet {
        let is_repeated = |slot: &Slot| {
            publish.qos == Qos::ExactlyOnce && slot.session.received().any(|id| id == publish.packet_id)
        };
        if self.sessions.get(from.session).is_some_and(is_repeated) {
            return ShardSet::EMPTY;
        }
        let mut keepers = ShardSet::EMPTY;
        if publish.retain {
            keepers.insert(topic::shard_of(&self.env.keys, topic, self.env.shards));
        }
        if publish.qos == Qos::AtMostOnce {
            return keepers;
        }
        let route = self.sessions.router.route(topic);
        let sessions = &self.sessions;
        let is_kept = |key: &Key| {
            let subscription = sessions.router.subscription(*key);
            subscription.is_some_and(|one| sessions.get(one.session).is_some_and(|slot| slot.is_kept))
        };
        if route.local.iter().any(is_kept) {
            keepers.insert(self.env.id);
        }
        keepers.union(self.sessions.next_hops(topic))
    }

    /// It is written down that these QoS 2 messages of the client were received.
    pub fn keep_received(&mut self, session: Key, packet_ids: impl Iterator<Item = u16>) {
        let index = session.index;
        let (Some(keep), true) =
            (&mut self.env.keep, self.sessions.get(session).is_some_and(|slot| slot.is_kept))
        else {
            return;
        };
        for packet_id in packet_ids {
            keep.unreceived.remove(&(index, packet_id));
            keep.append(&Record::Received { index, packet_id });
        }
    }

    /// Messages that were queued in this turn for clients that are here get their Packet Identifiers.
    fn begin_sending(&mut self) {
        while let Some(key) = self.env.keep.as_mut().and_then(|keep| keep.beginning.pop()) {
            self.room_made(key);
        }
    }

    /// The disk has this commit, and with it Packet Identifiers of messages that are sent now.
    fn go_on_sending(&mut self, commit: u64) {
        while let Some(keep) = &mut self.env.keep
            && keep.sending.front().is_some_and(|(_, need)| *need <= commit)
            && let Some((key, _)) = keep.sending.pop_front()
        {
            self.room_made(key);
        }
    }
}

impl Core {
    /// Whether a PUBLISH may be taken, where there is a data directory.
    #[inline(never)]
    pub(super) fn ask_disks(
        &mut self,
        from: Publisher,
        publish: &Publish<'_>,
        topic: &str,
        (may_publish, pressure): (bool, Pressure),
    ) -> Result<OnDisk, Blocked> {
        let may_wait = pressure == Pressure::Respect;
        if may_wait {
            self.local.clients.holds_many(from.connection)?;
        }
        let Disk { is_full, behind, .. } = self.exchange.disk;
        if !may_publish || !is_full && behind.is_empty() {
            return Ok(OnDisk::MayBe);
        }
        let keepers = self.local.keepers(from, publish, topic);
        if may_wait && !self.exchange.disk.keep_up(keepers) {
            return Err(Blocked::Shards(Wait::Disks(keepers)));
        }
        match from.version {
            _ if !is_full || keepers.is_empty() || publish.qos == Qos::AtMostOnce => Ok(OnDisk::MayBe),
            Version::V5 => Ok(OnDisk::HasNoRoom),
            Version::V31 | Version::V311 if may_wait => Err(Blocked::Shards(Wait::Store)),
            Version::V31 | Version::V311 => Ok(OnDisk::MayBe),
        }
    }

    /// QoS 2 messages were routed: PUBREC leaves when it is on disk that they were received. If they are kept on this shard
    /// alone, that is in the same commit as they are. Else it is written down when the others have them on disk, or a crash
    /// in between could lose one: its repetition would be answered and not routed.
    pub(super) fn receive(
        &mut self,
        from: Publisher,
        ids: &PacketIds<'_>,
        reason: Reason,
        (wait, kept): (Wait, KeptBy),
    ) {
        if kept == KeptBy::ThisShard {
            self.local.keep_received(from.session, ids.iter());
            let wait = match self.on_disk_if_kept(from.session) {
                Wait::Nothing => wait,
                disk => disk,
            };
            return self.acknowledge_later(from.connection, AckKind::PubRec, ids, reason, wait);
        }
        // A repetition may stand in the log already, and stays there.
        if let Some(keep) = &mut self.local.env.keep
            && kept == KeptBy::Others
            && self.local.sessions.get(from.session).is_some_and(|slot| slot.is_kept)
        {
            keep.unreceived.extend(ids.iter().map(|packet_id| (from.session.index, packet_id)));
        }
        self.reply(from.connection, Reply::Received { packet_ids: Answered::new(ids), reason }, wait);
    }

    /// What the acknowledgement of a message waits for that was sent to these shards: their disks and this one, as far as
    /// they keep it.
    #[inline]
    pub(super) fn kept_wait(&self, targets: ShardSet, mark: u64) -> Wait {
        match &self.local.env.keep {
            Some(_) => self.exchange.on_disk(self.local.env.commit_since(mark), targets),
            None => Wait::Nothing,
        }
    }

    /// What the reply to a client waits for: all that this shard has written down so far, if its session is kept.
    pub(super) fn on_disk_if_kept(&self, session: Key) -> Wait {
        match self.local.env.last_commit() {
            Some(commit) if self.local.sessions.get(session).is_some_and(|slot| slot.is_kept) => {
                Wait::Disk(commit)
            }
            Some(_) | None => Wait::Nothing,
        }
    }
}

impl<I: Io> Shard<I> {
    /// Once per turn, after all handlers: images of a walk, then the next commit.
    #[inline(always)]
    pub(super) fn tend_log(&mut self) {
        if self.core.local.env.keep.is_some() {
            self.seal();
        }
    }

    fn seal(&mut self) {
        let core = &mut self.core;
        let waiters = core.exchange.waits.holding.len() + core.local.clients.shut.len();
        let now = core.local.env.now;
        core.local.begin_sending();
        let Some(keep) = &mut core.local.env.keep else { return };
        if keep.has_custody() {
            keep.settle_custody(&core.exchange);
            core.exchange.await_all(); // until what is left is passed
        }
        keep.advance_walk(&core.local.sessions, &core.retained);
        let is_full = keep.log.is_full();
        let waiting = keep.log.waiting_bytes() as u64;
        keep.follow();
        core.local.env.counters().store_waiting_bytes.set(waiting);
        core.exchange.look_at_disks(is_full, &core.local.env);
        let Some(keep) = &mut core.local.env.keep else { return };
        let wall = keep.wall(now);
        if let Some(write) = keep.log.seal(now, wall, waiters) {
            let sync = keep.sync;
            self.io.write_file(&write.file, LOG, write.at, write.bytes, sync);
        }
    }

    /// A write of the log has ended.
    pub(super) fn log_written(&mut self, tag: u64, bytes: Aligned, result: Result<(), i32>) {
        debug_assert!(tag == LOG);
        let core = &mut self.core;
        let Some(keep) = &mut core.local.env.keep else { return };
        match keep.log.written(bytes, result) {
            Progress::OnDisk => {
                let commit = keep.log.on_disk();
                let (commits, bytes) = keep.log.written_total();
                let counters = &core.local.env.counters[usize::from(core.local.env.id)];
                counters.store_commits_total.set(commits);
                counters.store_bytes_total.set(bytes);
                counters.store_walks_total.set(keep.log.walks_total());
                core.exchange.disk_reached(commit);
                core.local.clients.open_shut(commit);
                core.local.go_on_sending(commit);
            }
            Progress::Again => core.local.env.counters().store_errors_total.add(1),
            Progress::Broken(errno) => {
                keep.opening.breaks(errno);
                core.local.env.counters().store_errors_total.add(1);
            }
        }
    }

    /// Whether the log has something to write and no more than time is missing.
    #[inline(always)]
    pub(super) fn log_due_at(&self) -> Option<Millis> {
        let keep = self.core.local.env.keep.as_ref()?;
        // What other shards have on disk is looked at again and again while somebody waits for it.
        let behind = !self.core.exchange.disk.behind.is_empty();
        let soon = keep.log.waits() || keep.start != Start::Serving || behind;
        soon.then_some(self.core.local.env.now + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::WAITING_MAX;
    use crate::shard::testing::{CONNECT, Stage};

    /// A disk that hangs: messages that nobody acknowledges wait at their publisher, and not here.
    #[test]
    fn what_waits_for_a_slow_disk_has_a_limit() {
        const PAYLOAD: usize = 256 * 1024;
        const COUNT: usize = 160;
        let mut stage = Stage::with_store(8 << 20);
        stage.go_on(20);
        let client = stage.connect(0);
        stage.say(client, CONNECT);
        stage.go_on(20);
        assert_eq!(stage.hear(client).0[0], 0x20, "CONNACK");
        stage.world.borrow_mut().faults.disk.looks = 400;

        let mut packets = Vec::new();
        for n in 0..COUNT {
            // QoS 0 with RETAIN, 5.0; the Remaining Length has three bytes.
            let rest = 2 + 4 + 1 + PAYLOAD;
            let len = [rest & 127 | 128, rest >> 7 & 127 | 128, rest >> 14].map(|byte| byte as u8);
            packets.extend([&[0x31][..], &len, format!("\0\x04t{n:03}\0").as_bytes()].concat());
            packets.resize(packets.len() + PAYLOAD, b'x');
        }
        let (mut sent, mut most) = (0, 0);
        for _ in 0..100_000 {
            let rest = &packets[sent..];
            sent += stage.world.borrow_mut().write(client, rest).unwrap_or(0);
            stage.go_on(1);
            most = most.max(stage.shard.counters().store_waiting_bytes.get());
            if stage.shard.counters().publish_received_total.get() == COUNT as u64 {
                break;
            }
        }
        assert_eq!(
            stage.shard.counters().publish_received_total.get(),
            COUNT as u64,
            "{sent} bytes were sent"
        );
        let one = 2 * PAYLOAD as u64;
        assert!(most > WAITING_MAX && most <= WAITING_MAX + one, "{most} bytes waited");
    }
}
