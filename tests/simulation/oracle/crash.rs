//! What a crash changes: what was not acknowledged may be undone, what was may not.
//!
//! At rest everything is on disk. What happened since, and was not acknowledged to who did it, may be there after a crash or
//! not: an acknowledgement of a client, a DISCONNECT, that a message was sent. What follows from that is widened here, and
//! nothing else is.

use super::will::Duty;
use super::{ConnIx, FOREVER, Fate, Millis, MsgId, Oracle, Over, SessionIx, Tick};

/// What is known of crashes.
#[derive(Debug, Default)]
pub struct Crashes {
    /// When they were.
    pub at: Vec<Tick>,
    /// Everything up to here is on disk.
    on_disk: Tick,
    /// When clients that are not there count as away, at the latest; [`FOREVER`] while nothing serves.
    pub back_at: Millis,
    /// There is a data directory.
    pub keeps: bool,
    /// The home of each client.
    pub homes: Vec<u16>,
    pub shards: usize,
}

impl Crashes {
    /// Whether there was one since.
    pub fn since(&self, tick: Tick) -> bool {
        self.at.last().is_some_and(|at| *at > tick)
    }
}

impl Oracle {
    /// Everything is quiet: whatever was written down is on disk. What was sent on connections that are up was read.
    pub fn all_on_disk(&mut self, connected: &[(SessionIx, ConnIx)]) {
        self.wrote_all();
        for &(session, conn) in connected {
            for got in self.sessions[session].got.values_mut() {
                let is_one = got.live + got.retained + got.shared == 1;
                got.is_done |= is_one && got.acked == Some(conn);
            }
        }
    }

    /// What the shards have read and sent is on disk.
    fn wrote_all(&mut self) {
        self.crashes.on_disk = self.tick;
        self.next(); // not everything that happens now has a tick of its own
        for session in &mut self.sessions {
            session.order_on_disk = session.order.clone();
        }
    }

    /// The client has acknowledged a message to the end, at QoS 1.
    pub fn acknowledged(&mut self, (session, conn): (SessionIx, ConnIx), id: MsgId) {
        if let Some(got) = self.sessions.get_mut(session).and_then(|session| session.got.get_mut(&id)) {
            got.acked = Some(conn);
        }
    }

    /// All shards ended at once, or in order.
    pub fn crashed(&mut self, in_order: bool) {
        let tick = self.next();
        self.crashes.at.push(tick);
        self.crashes.back_at = FOREVER;
        for conn in 0..self.conns.len() {
            match &mut self.conns[conn] {
                one if one.over.is_none() => one.crashed = true,
                // Its DISCONNECT may be forgotten.
                one if one.over_at > self.crashes.on_disk => self.lossy(conn),
                _ => {}
            }
        }
        if in_order {
            self.wrote_all();
        }
        for session in self.sessions.iter_mut().filter(|session| !session.over) {
            if let Some((_, Some(hi))) = &mut session.offline {
                *hi = FOREVER;
            }
        }
        self.forget_what_is_not_on_disk();
        self.wills_at_crash();
        self.undecided_at_crash();
    }

    /// What a session got since all was on disk may come again at QoS 1, and what follows it too.
    fn forget_what_is_not_on_disk(&mut self) {
        let on_disk = self.crashes.on_disk;
        for session in &mut self.sessions {
            for got in session.got.values_mut() {
                if got.last > on_disk && got.qos == 1 {
                    got.repeats += got.live + got.shared;
                }
            }
            let qos = |key: &(usize, String, u8, u8)| key.3;
            session.order.retain(|key, _| qos(key) != 1);
            let before = session.order_on_disk.iter().filter(|(key, _)| qos(key) == 1);
            session.order.extend(before.map(|(key, position)| (key.clone(), *position)));
        }
    }

    fn wills_at_crash(&mut self) {
        for at in 0..self.wills.len() {
            let will = &self.wills[at];
            let message = &self.messages[will.message];
            if will.duty == Duty::Held || message.settled.is_some() {
                continue;
            }
            let (conn, lo) = (will.conn, will.ended.map_or(self.now, |(lo, _)| lo));
            let may_be_out = will.seen.is_some() || self.now >= lo + will.delay_ms;
            if may_be_out {
                // That it is out may be forgotten, or that it reached another shard.
                self.messages[self.wills[at].message].copies += 1;
            }
            let is_kept = self.is_kept(conn);
            let will = &mut self.wills[at];
            if will.duty == Duty::Must && (may_be_out || !is_kept) {
                will.duty = Duty::May;
            }
            if let Some((_, Some(hi))) = &mut will.ended {
                *hi = FOREVER;
            }
        }
    }

    /// Whether the session of a connection surely outlives a crash.
    pub(super) fn is_kept(&self, conn: ConnIx) -> bool {
        self.conns[conn].session.is_some_and(|session| self.sessions[session].expiry_ms.0 > 0)
    }

    /// A message at QoS 2 without PUBREC goes through several logs. If some of them have it, and the one of its publisher does not
    /// say that it was received, it comes twice: what one shard has decided is not told to the others. Where everybody is on one
    /// shard it comes once.
    fn undecided_at_crash(&mut self) {
        let homes = self.crashes.homes.clone();
        for m in self.messages.iter_mut().filter(|m| m.qos == 2 && !m.will && m.fate == Fate::Unknown) {
            m.is_undecided = true;
            // The owner of a topic may be on another shard than everybody.
            let has_owner = m.retain && self.crashes.shards > 1;
            m.is_split |= has_owner || homes.iter().any(|home| *home != homes[m.by]);
        }
    }

    /// Whether there was a crash between these.
    pub(super) fn crashed_between(&self, from: Tick, to: Option<Tick>) -> bool {
        self.crashes.at.iter().any(|at| *at > from && to.is_none_or(|to| *at < to))
    }

    /// The shards serve again. Nothing of those who are away is due in the first `grace_ms`.
    pub fn back(&mut self, grace_ms: Millis) {
        let at = self.now + grace_ms;
        self.crashes.back_at = at;
        let ended = self.wills.iter_mut().filter_map(|will| will.ended.as_mut());
        for (_, hi) in self.sessions.iter_mut().filter_map(|session| session.offline.as_mut()).chain(ended) {
            if *hi == Some(FOREVER) {
                *hi = Some(at);
            }
        }
    }

    /// By when the broker has noticed that somebody is away.
    pub(super) fn noticed_at(&self) -> Millis {
        self.now.max(self.crashes.back_at)
    }

    /// How a connection that a crash ended looks to its will.
    pub(super) fn over_by_crash(&self, conn: ConnIx, how: Over) -> Over {
        if self.conns[conn].crashed && !self.is_kept(conn) { Over::Unclear } else { how }
    }
}
