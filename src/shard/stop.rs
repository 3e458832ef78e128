//! Draining: no new connections, then all wills, then DISCONNECT 0x8B to everybody, then nothing.
//!
//! Wills go out before anybody is disconnected, on any shard; and a shard that has nobody left keeps serving the mesh
//! until all are quiet. Two counts that all shards share say how far everybody is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::clock::Millis;
use crate::io::{Io, ListenerId};
use crate::memory::Key;
use crate::store::Record;
use crate::topic::Scan;
use crate::wire::Reason;

use super::connection::{End, Phase};
use super::order::Heard;
use super::waits::Wait;
use super::{Core, Listener, Shard};

/// How far all shards are; shared by them.
#[derive(Debug, Default)]
pub struct Stopping {
    /// Shards whose wills were consumed by all their targets.
    wills_out: AtomicU16,
    /// Shards without connections and with nothing on its way.
    quiet: AtomicU16,
}

/// How far this shard is.
#[derive(Debug)]
pub(super) struct Stop {
    stage: Stage,
    shared: Arc<Stopping>,
}

#[derive(Debug)]
enum Stage {
    Running,
    /// Wills are to be published, once the turn has heard who wants them.
    Begun,
    /// They were published; waiting for their targets.
    Wills(Option<Wait>),
    /// Waiting for the wills of the other shards.
    OthersWills,
    /// Connections are closing.
    Closing,
    /// Nothing is left here.
    Quiet,
}

/// What ends with the process, since nothing of it is kept elsewhere.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
pub struct Lost {
    /// Sessions that would have outlived their connections.
    pub sessions: u64,
    /// Messages for them that wait or are not acknowledged yet.
    pub messages: u64,
    /// Retained messages, without those of `$SYS`.
    pub retained: u64,
}

impl std::ops::Add for Lost {
    type Output = Lost;

    fn add(self, other: Lost) -> Lost {
        Lost {
            sessions: self.sessions + other.sessions,
            messages: self.messages + other.messages,
            retained: self.retained + other.retained,
        }
    }
}

/// How often a stopping shard looks whether the others are done.
const POLL_MS: Millis = 2;

impl Stop {
    pub fn new(shared: Arc<Stopping>) -> Stop {
        Stop { stage: Stage::Running, shared }
    }

    /// When to look again.
    pub fn poll_at(&self, now: Millis) -> Option<Millis> {
        (!matches!(self.stage, Stage::Running)).then_some(now + POLL_MS)
    }
}

impl<I: Io> Shard<I> {
    /// From now on the shard drains. It may have been told before.
    pub(super) fn begin_stop(&mut self) {
        let core = &mut self.core;
        if core.local.env.is_stopping {
            return;
        }
        core.local.env.is_stopping = true;
        core.stop.stage = Stage::Begun;
        for (index, listener) in core.local.clients.listeners.iter_mut().enumerate() {
            if *listener == Listener::Accepting {
                *listener = Listener::Cancelling;
                self.io.accept_cancel(ListenerId(index as u16));
            }
        }
    }

    /// All shards are quiet: this one may end.
    pub(super) fn is_stopped(&self) -> bool {
        let stop = &self.core.stop;
        matches!(stop.stage, Stage::Quiet)
            && stop.shared.quiet.load(Ordering::SeqCst) == self.core.local.env.shards
            && self.core.local.env.keep.as_ref().is_none_or(|keep| keep.is_at_rest())
    }

    /// What is lost when this shard ends now.
    pub fn lost(&self) -> Lost {
        let core = &self.core;
        let kept = core
            .local
            .sessions
            .arena
            .iter()
            .filter(|(_, slot)| slot.expiry_s > 0 && slot.ends_at > core.local.env.now && !slot.is_kept);
        let mut lost = Lost::default();
        for (_, slot) in kept {
            lost.sessions += 1;
            lost.messages += (slot.session.queue_len() + slot.session.inflight_len()) as u64;
        }
        let (mut own, mut visits) = (0, usize::MAX);
        let (Scan::Done | Scan::More { .. }) =
            core.retained.store.scan("$SYS/#", None, usize::MAX, &mut visits, |_| own += 1);
        if core.local.env.keep.is_none() {
            lost.retained = core.retained.store.len() as u64 - own;
        }
        lost
    }

    #[inline(always)]
    pub(super) fn advance_stop(&mut self, heard: Heard<'_>) {
        if self.core.local.env.is_stopping {
            self.core.advance_stop(heard);
        }
    }
}

impl Core {
    fn advance_stop(&mut self, heard: Heard<'_>) {
        match &self.stop.stage {
            Stage::Running => {}
            // Others may have sent something since this shard was quiet.
            Stage::Quiet => _ = self.log_is_at_its_end(),
            Stage::Begun => {
                let sessions: Vec<Key> = self.local.sessions.arena.keys().collect();
                for session in sessions {
                    // A kept session goes on after the next start, and its will with it.
                    if self.local.sessions.get(session).is_some_and(|slot| !slot.is_kept) {
                        self.publish_will(session, heard);
                    }
                }
                self.stop.stage = Stage::Wills(None);
            }
            Stage::Wills(None) => {
                if self.exchange.waits.holds_nothing() {
                    self.stop.stage = Stage::Wills(Some(self.exchange.everything()));
                }
            }
            Stage::Wills(Some(wait)) => {
                if wait.is_over(&self.exchange) {
                    self.stop.shared.wills_out.fetch_add(1, Ordering::SeqCst);
                    self.stop.stage = Stage::OthersWills;
                }
            }
            Stage::OthersWills => {
                if self.stop.shared.wills_out.load(Ordering::SeqCst) == self.local.env.shards {
                    self.stop.stage = Stage::Closing;
                    self.disconnect_all(heard);
                }
            }
            Stage::Closing => {
                let listening = self
                    .local
                    .clients
                    .listeners
                    .iter()
                    .any(|l| matches!(l, Listener::Accepting | Listener::Cancelling | Listener::Closing));
                let idle = self.local.clients.connections.is_empty()
                    && self.exchange.links.is_quiet()
                    && self.exchange.links.waiting() == 0;
                if idle && !listening && self.log_is_at_its_end() {
                    self.stop.shared.quiet.fetch_add(1, Ordering::SeqCst);
                    self.stop.stage = Stage::Quiet;
                }
            }
        }
    }

    /// Whether everything that is kept is on disk, and that this is the end.
    fn log_is_at_its_end(&mut self) -> bool {
        let Some(keep) = &mut self.local.env.keep else { return true };
        if keep.opening.broken().is_none() && keep.stopped_at != Some(keep.log.appended()) {
            keep.log.append(&Record::Stopped);
            keep.stopped_at = Some(keep.log.appended());
        }
        keep.is_at_rest()
    }

    fn disconnect_all(&mut self, heard: Heard<'_>) {
        let all: Vec<Key> = self.local.clients.connections.keys().collect();
        for key in all {
            let end = match self.local.clients.connections.get(key).map(|connection| &connection.phase) {
                Some(Phase::Live(_)) => {
                    End::Refused(Reason::SERVER_SHUTTING_DOWN, "the server is shutting down")
                }
                _ => End::Lost,
            };
            self.local.clients.end(key, end, &mut self.local.env);
            self.settle(heard);
        }
    }
}
