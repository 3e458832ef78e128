//! From what was on disk to sessions, subscriptions and retained messages; and when a shard may begin
//! to serve.
//!
//! A shard builds everything before its first turn. Then it announces its filters and writes an
//! image of it all, the first walk of its run. When both are done on all shards, the server makes
//! the new run the one that holds, and the shards accept connections.
//!
//! Deadlines went on while the broker was away. But nothing ends and no will goes out in the first
//! [`Storing::grace_ms`]: clients that come back at once find everything as it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU16, Ordering};

use crate::clock::Millis;
use crate::io::Sync;
use crate::memory::{Class, Message};
use crate::store::{Log, SessionImage, WallClock};
use crate::topic;

use super::Core;
use super::custody::Custody;
use super::keep::Keep;

/// What a shard needs where there is a data directory.
#[derive(Debug)]
pub struct Storing {
    pub log: Log,
    pub clock: WallClock,
    /// How commits reach the disk.
    pub sync: Sync,
    /// How long nothing ends that was there before the start.
    pub grace_ms: Millis,
    pub sessions: Vec<Box<SessionImage>>,
    pub retained: Vec<Message>,
    /// Messages that were on their way to another shard, with the fingerprints of their share groups.
    pub given: Vec<(u64, Message)>,
    /// How much of what was kept could not be read, as far as this shard counts it.
    pub damaged: u64,
    pub opening: Arc<Opening>,
}

/// How far the shards are with their start, and whether their logs can be written; shared by them.
#[derive(Debug, Default)]
pub struct Opening {
    /// Shards that have everything on disk and announced.
    ready: AtomicU16,
    open: AtomicBool,
    /// The errno of a log that cannot be written.
    broken: AtomicI32,
}

impl Opening {
    /// Whether so many shards have everything on disk.
    pub fn is_ready(&self, shards: u16) -> bool {
        self.ready.load(Ordering::SeqCst) == shards
    }

    /// The shards may serve.
    pub fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    /// Why a log cannot be written any more, as an errno.
    pub fn broken(&self) -> Option<i32> {
        Some(self.broken.load(Ordering::SeqCst)).filter(|errno| *errno != 0)
    }

    pub(super) fn breaks(&self, errno: i32) {
        self.broken.store(errno.max(1), Ordering::SeqCst);
    }
}

/// How far this shard is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Start {
    /// Not everything is on disk and announced.
    Restoring,
    /// Waiting for the others.
    Ready,
    Serving,
}

impl Core {
    /// Builds what was kept. Only once, before the first turn.
    pub(super) fn restore(&mut self, storing: Storing) {
        let Storing { log, clock, sync, grace_ms, sessions, retained, given, damaged, opening } = storing;
        self.local.env.counters().store_damaged.set(damaged);
        self.local.env.keep = Some(Box::new(Keep::new(log, clock, sync, opening)));
        let earliest = self.local.env.now + grace_ms;
        for image in sessions {
            let restored = self.local.sessions.restore(&image, clock, earliest, &mut self.local.env);
            for change in restored {
                self.interest_changed(change);
            }
        }
        self.local.sessions.charge_topics(&mut self.local.env);
        let now = self.local.env.now;
        for message in retained {
            if message.expires_at() <= now {
                continue;
            }
            self.local.env.budget.charge_always(Class::Retained, message.cost());
            let view = message.view();
            let fingerprint = topic::fingerprint(&self.local.env.keys, view.topic);
            let _ = self.retained.note(&view, fingerprint, &self.local.env);
            self.retained.store.insert(message);
        }
        if let Some(keep) = &mut self.local.env.keep {
            keep.custody = Custody::new(given);
            keep.begin_walk();
        }
    }

    /// Whether this shard serves, where there is a data directory; moves on with its start.
    #[inline(always)]
    pub(super) fn advance_start(&mut self) -> bool {
        self.local.env.keep.is_none() || self.start_on()
    }

    fn start_on(&mut self) -> bool {
        let is_announced = self.exchange.interest.len() == 0;
        let shards = self.local.env.shards;
        let Some(keep) = &mut self.local.env.keep else { return true };
        match keep.start {
            Start::Serving => {}
            Start::Restoring if keep.log.is_walked() && (is_announced || shards == 1) => {
                keep.start = Start::Ready;
                keep.opening.ready.fetch_add(1, Ordering::SeqCst);
            }
            Start::Ready if keep.opening.open.load(Ordering::SeqCst) => {
                keep.start = Start::Serving;
                // Only now anything may be due: a will that went out before would not reach the shards that had not
                // announced their filters yet.
                let sessions = &self.local.sessions;
                sessions.arena.keys().for_each(|session| sessions.set_timer(session, &mut self.local.env));
                return true;
            }
            Start::Restoring | Start::Ready => {}
        }
        keep.start == Start::Serving
    }
}
