//! Replies that wait until they are true.
//!
//! A PUBACK or PUBREC says that the broker has taken the message over, and a SUBACK that every shard knows the filter. Where
//! that takes other shards, the reply is held: in order, at its connection, until its [`Wait`] is over. A reply with
//! nothing to wait for is encoded at once, as long as its connection holds none. PUBCOMP and PINGRESP never wait.
//!
//! Held replies belong to a connection and end with it: the client sends what was not acknowledged again. The receive quota is
//! given back when the reply leaves, so a client that keeps to its Receive Maximum bounds what is held; a client of 3.x, which
//! knows no such maximum, is not parsed beyond [`HELD_MAX`].

use std::collections::VecDeque;

use crate::memory::{Key, ShardSet};
use crate::session::Session;
use crate::wire::{self, AckKind, Qos, Reason};

use super::Core;
use super::clients::Clients;
use super::connection::{End, Mode};
use super::env::Env;
use super::exchange::Exchange;
use super::order::Heard;
use super::publish::PacketIds;
use super::waits::{Blocked, Line, Wait};

/// Replies that one connection may hold. With more it is not parsed until half of them have left.
pub(super) const HELD_MAX: usize = 1024;

/// Connections with held replies that are looked at in one turn.
const CONNECTIONS_BUDGET: usize = 1024;

/// What the client is told.
#[derive(Debug)]
pub(super) enum Reply {
    /// PUBACK, PUBREC, PUBREL or PUBCOMP, for packets that are answered the same.
    Ack { kind: AckKind, packet_ids: Answered, reason: Reason },
    /// QoS 2 messages have reached the disks of the shards that keep them: what follows is a record of that, and PUBREC.
    Received { packet_ids: Answered, reason: Reason },
    /// A SUBACK or UNSUBACK packet.
    Packet(Box<[u8]>),
}

/// Packet Identifiers that are answered together.
#[derive(Debug)]
pub(super) enum Answered {
    One(u16),
    Many(Box<[u16]>),
}

impl Answered {
    pub fn new(ids: &PacketIds<'_>) -> Answered {
        Answered::of(ids.iter())
    }

    pub fn of(mut packet_ids: impl Iterator<Item = u16>) -> Answered {
        let (first, second) = (packet_ids.next(), packet_ids.next());
        match (first, second) {
            (Some(one), None) => Answered::One(one),
            _ => Answered::Many(first.into_iter().chain(second).chain(packet_ids).collect()),
        }
    }

    fn take(&mut self) -> Answered {
        std::mem::replace(self, Answered::One(0))
    }

    fn as_slice(&self) -> &[u16] {
        match self {
            Answered::One(one) => std::slice::from_ref(one),
            Answered::Many(many) => many,
        }
    }
}

impl Reply {
    /// What it counts for in [`HELD_MAX`].
    fn weight(&self) -> usize {
        match self {
            Reply::Ack { packet_ids, .. } | Reply::Received { packet_ids, .. } => packet_ids.as_slice().len(),
            Reply::Packet(_) => 1,
        }
    }
}

/// The held replies of one connection, oldest first.
#[derive(Debug, Default)]
pub(super) struct Replies {
    line: Line<Reply>,
    /// What they count for.
    weight: usize,
}

impl Replies {
    pub fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Takes the oldest, if it `may` leave.
    pub fn take_if(&mut self, may: impl FnOnce(&Wait) -> bool) -> Option<Reply> {
        let reply = self.line.take_if(may)?;
        self.weight -= reply.weight();
        Some(reply)
    }

    /// Whether no more may be held.
    pub fn are_many(&self) -> bool {
        self.weight >= HELD_MAX
    }

    /// Whether a connection that is not parsed because of them may go on.
    pub fn are_few(&self) -> bool {
        self.weight <= HELD_MAX / 2
    }
}

/// Connections that hold replies.
#[derive(Debug, Default)]
pub(super) struct Holding {
    /// Each once, the one that waits longest for a look first. Some may be gone.
    connections: VecDeque<Key>,
    /// Of those, from the front: not looked at since something moved.
    unlooked: usize,
}

impl Holding {
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Something moved for which a reply may wait.
    pub fn look_again(&mut self) {
        self.unlooked = self.connections.len();
    }

    /// Whether some of them are to be looked at.
    pub fn has_unlooked(&self) -> bool {
        self.unlooked > 0
    }
}

impl Clients {
    /// Stages acknowledgements of one kind that all say the same.
    pub fn stage_acks(
        &mut self,
        key: Key,
        kind: AckKind,
        packet_ids: impl Iterator<Item = u16>,
        reason: Reason,
        env: &Env,
    ) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(live) = connection.live_mut() else { return };
        // A reason that refuses has given the quota back already, with the identifier.
        if kind == AckKind::PubAck && !reason.is_error() {
            Session::acknowledge_publish(&mut live.link, Qos::AtLeastOnce);
        }
        let (version, packet_size_max) = (live.link.version, live.link.packet_size_max);
        if wire::ack_packet_size(version, reason) > packet_size_max as usize {
            return; // [MQTT-3.1.2-24] [MQTT-3.1.2-25]
        }
        connection.outbox.provide(&mut self.spare_buffers);
        let out = connection.outbox.bytes_mut();
        let mut count = 0;
        for packet_id in packet_ids {
            wire::encode_ack(out, version, kind, packet_id, reason);
            count += 1;
        }
        env.counters().packets_sent_total.add(count);
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(key);
        }
    }

    /// Tells the client a reply whose turn has come.
    fn tell(&mut self, key: Key, reply: Reply, env: &Env) {
        match reply {
            Reply::Ack { kind, packet_ids, reason } => {
                self.stage_acks(key, kind, packet_ids.as_slice().iter().copied(), reason, env);
            }
            Reply::Received { .. } => debug_assert!(false, "PUBREC takes its place"),
            Reply::Packet(packet) => self.stage(key, env, |out| out.extend_from_slice(&packet)),
        }
    }

    /// Whether something that the client is to be told waits.
    pub fn holds_replies(&self, key: Key) -> bool {
        self.live(key).is_some_and(|live| live.replies().is_some())
    }

    /// Whether the client may be told no more for now: it would be one reply too many to hold.
    pub fn holds_many(&self, key: Key) -> Result<(), Blocked> {
        match self.live(key).and_then(|live| live.replies()) {
            Some(replies) if replies.are_many() => Err(Blocked::Replies),
            Some(_) | None => Ok(()),
        }
    }
}

impl Exchange {
    /// A PUBLISH that repeats one of a former connection is answered when everything that left this shard is acted upon, that
    /// message included: which owner it went to is not known any more.
    /// Where there is a data directory all of that has to be on disk, up to `commit` on this shard.
    pub fn stored_before(&self, retain: bool, shards: u16, commit: Option<u64>) -> Wait {
        match (commit, retain && shards > 1) {
            (Some(commit), _) => {
                Wait::All([Wait::Disk(commit), self.kept(self.links.peers()), self.everything()].into())
            }
            (None, true) => self.everything(),
            (None, false) => Wait::Nothing,
        }
    }
}

impl Core {
    /// Tells the client `reply` once `wait` is over and all replies before it have left.
    /// In the order of the PUBLISH packets. // 3.1.1: [MQTT-2.3.1-6] [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT-4.6.0-4]
    pub(super) fn reply(&mut self, key: Key, mut reply: Reply, wait: Wait) {
        let Some(live) =
            self.local.clients.connections.get_mut(key).and_then(|connection| connection.live_mut())
        else {
            return;
        };
        let holds_none = live.replies().is_none();
        if let (Reply::Received { packet_ids, reason }, true, true) =
            (&mut reply, holds_none, wait.is_over(&self.exchange))
        {
            let session = live.session;
            let (packet_ids, reason) = (packet_ids.take(), *reason);
            self.local.keep_received(session, packet_ids.as_slice().iter().copied());
            let wait = self.on_disk_if_kept(session);
            return self.reply(key, Reply::Ack { kind: AckKind::PubRec, packet_ids, reason }, wait);
        }
        if holds_none && wait.is_over(&self.exchange) {
            return self.local.clients.tell(key, reply, &self.local.env);
        }
        let replies = live.replies_mut();
        replies.weight += reply.weight();
        replies.line.push(reply, wait);
        if holds_none {
            self.exchange.waits.holding.connections.push_back(key);
            self.exchange.waits.look_again();
            self.exchange.await_all(); // Before the registers are looked at again, so that no growth is missed.
        }
    }

    /// PUBACK or PUBREC of PUBLISH packets that wait for nothing. // [MQTT-3.3.4-1] [MQTT-4.3.2-4] [MQTT-4.3.3-8]
    #[inline]
    pub(super) fn acknowledge(&mut self, key: Key, qos: Qos, ids: &PacketIds<'_>, reason: Reason) {
        let kind = match qos {
            Qos::AtMostOnce => return,
            Qos::AtLeastOnce => AckKind::PubAck,
            Qos::ExactlyOnce => AckKind::PubRec,
        };
        let holds = self.local.clients.live(key).is_some_and(|live| live.replies().is_some());
        if holds {
            return self.acknowledge_later(key, kind, ids, reason, Wait::Nothing);
        }
        self.local.clients.stage_acks(key, kind, ids.iter(), reason, &self.local.env);
    }

    /// The same of what may wait.
    #[inline(never)]
    pub(super) fn acknowledge_later(
        &mut self,
        key: Key,
        kind: AckKind,
        ids: &PacketIds<'_>,
        reason: Reason,
        wait: Wait,
    ) {
        self.reply(key, Reply::Ack { kind, packet_ids: Answered::new(ids), reason }, wait);
    }

    /// Once per turn: replies whose time has come.
    pub(super) fn release_replies(&mut self, heard: Heard<'_>) {
        for _ in 0..self.exchange.waits.holding.unlooked.min(CONNECTIONS_BUDGET) {
            self.exchange.waits.holding.unlooked -= 1;
            let Some(key) = self.exchange.waits.holding.connections.pop_front() else { break };
            if self.release_those_of(key) {
                self.exchange.waits.holding.connections.push_back(key);
            }
            self.settle(heard);
        }
    }

    /// In front of those that are held.
    fn reply_first(&mut self, key: Key, reply: Reply, wait: Wait) {
        if let Some(live) = self.local.clients.live_mut(key) {
            let replies = live.replies_mut();
            replies.weight += reply.weight();
            replies.line.push_front(reply, wait);
        }
    }

    /// Returns whether the connection still holds replies.
    fn release_those_of(&mut self, key: Key) -> bool {
        loop {
            let Some(connection) = self.local.clients.connections.get_mut(key) else { return false };
            let eof = connection.eof;
            let Some(live) = connection.live_mut() else { return false };
            let session = live.session;
            let reply = live.take_reply(|wait| wait.is_over(&self.exchange));
            if let Some(Reply::Received { packet_ids, reason }) = reply {
                self.local.keep_received(session, packet_ids.as_slice().iter().copied());
                let wait = self.on_disk_if_kept(session);
                self.reply_first(key, Reply::Ack { kind: AckKind::PubRec, packet_ids, reason }, wait);
                continue;
            }
            if let Some(reply) = reply {
                self.local.clients.tell(key, reply, &self.local.env);
                continue;
            }
            let holds = live.replies().is_some();
            // Its client had said everything, and has its answers now.
            if !holds && eof && live.has_said_all() {
                self.local.clients.end(key, End::Lost, &mut self.local.env);
            }
            return holds;
        }
    }

    /// The PUBACK or PUBREC of a message with RETAIN leaves when its owner has stored it and every shard that it was passed on
    /// to has acted upon it. So a SUBSCRIBE that is sent after it was seen finds the message in the store, and no live copy is
    /// on the way to the subscriber's shard. What the connection sent to other owners before is waited for as well.
    /// Where there is a data directory all of that has to be on disk; `mark` stood for what was written before the message.
    pub(super) fn stored(&self, key: Key, targets: ShardSet, way: Mode, mark: u64) -> Wait {
        let live = self.local.clients.connections.get(key).and_then(|connection| connection.live());
        let commit = self.local.env.commit_since(mark);
        match way {
            Mode::Owner => {
                let relayed = self.exchange.relayed(live.map_or(targets, |live| live.touched.union(targets)));
                match commit {
                    Some(commit) => Wait::All([relayed, Wait::Disk(commit)].into()),
                    None => relayed,
                }
            }
            Mode::New | Mode::WillsOut | Mode::Direct if self.local.env.keep.is_some() => {
                self.exchange.on_disk(commit, targets)
            }
            Mode::New | Mode::WillsOut | Mode::Direct => self.exchange.consumed(targets),
        }
    }

    /// A SUBSCRIBE comes after what its client published with RETAIN before it, so that it finds that in the store.
    pub(super) fn subscribe_waits(&self, key: Key) -> Result<(), Blocked> {
        self.local.clients.holds_many(key)?;
        let relayed = match self.local.clients.connections.get(key).and_then(|connection| connection.live()) {
            Some(live) if live.mode == Mode::Owner => self.exchange.relayed(live.touched),
            Some(_) | None => return Ok(()),
        };
        match relayed.is_over(&self.exchange) {
            true => Ok(()),
            false => Err(Blocked::Switch(relayed, Mode::Owner)),
        }
    }
}
