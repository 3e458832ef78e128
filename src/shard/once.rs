//! QoS 2 reaches a kept session once, across crashes.
//!
//! A publisher that was not told PUBREC sends its message again. Some of the sessions that are to
//! get it may have it on disk already, and others not: each is on a disk of its own. So a kept
//! session remembers who has sent it a QoS 2 message under which Packet Identifier, until the
//! publisher has sent PUBREL, and takes no repetition of it.
//!
//! That is forgotten on all shards before PUBCOMP leaves: only then may the client use the identifier
//! for another message. A new message, without DUP, makes an end of what was remembered as well.
//!
//! A share group may give the repetition to another member than the first one.

use std::collections::HashMap;

use crate::memory::{Budget, Class, Key, MessageView};
use crate::session::{Delivered, Grant, Share};
use crate::store::Record;
use crate::wire::{Publish, Qos};

use super::Core;
use super::env::Env;
use super::keep::Keep;
use super::local::Local;

/// Bytes charged to `Class::Queue` for each message that a session remembers.
const TAKEN_BYTES: usize = 32;

/// The publisher's keyed hash, and its Packet Identifier.
type Origin = (u64, u16);

/// What the kept sessions of a shard have got: by origin, their places.
#[derive(Debug, Default)]
pub(super) struct Taken(HashMap<Origin, Vec<u32>, ahash::RandomState>);

impl Taken {
    fn add(&mut self, origin: Origin, index: u32) {
        self.0.entry(origin).or_default().push(index);
    }

    /// A session got it in a former process.
    pub fn restore(&mut self, origin: Origin, index: u32, budget: &mut Budget) {
        budget.charge_always(Class::Queue, TAKEN_BYTES);
        self.add(origin, index);
    }

    /// A session has ended.
    pub fn ended(&mut self, index: u32, budget: &mut Budget) {
        self.0.retain(|_, sessions| {
            let before = sessions.len();
            sessions.retain(|other| *other != index);
            budget.release(Class::Queue, (before - sessions.len()) * TAKEN_BYTES);
            !sessions.is_empty()
        });
    }

    /// All of it, as records.
    pub fn records(&self) -> impl Iterator<Item = Record<'static>> {
        self.0.iter().flat_map(|((publisher, packet_id), sessions)| {
            sessions.iter().map(|index| Record::Taken {
                index: *index,
                publisher: *publisher,
                packet_id: *packet_id,
            })
        })
    }

    fn has(&self, origin: Origin, index: u32) -> bool {
        self.0.get(&origin).is_some_and(|sessions| sessions.contains(&index))
    }
}

impl Keep {
    fn forget(&mut self, (publisher, packet_id): Origin, budget: &mut Budget) {
        if let Some(sessions) = self.taken.0.remove(&(publisher, packet_id)) {
            budget.release(Class::Queue, sessions.len() * TAKEN_BYTES);
            self.append(&Record::Forgot { publisher, packet_id });
        }
    }
}

impl Env {
    /// A message comes, before anybody gets it: one that is new ends what is remembered of its Packet Identifier.
    #[inline]
    pub fn comes(&mut self, message: &MessageView<'_>) {
        if message.origin != 0
            && !message.is_repeat
            && let Some(keep) = &mut self.keep
        {
            keep.forget((message.publisher, message.origin), &mut self.budget);
        }
    }
}

impl Local {
    /// By which origin a kept session remembers a live message of QoS 2; `None` if it does not.
    #[inline]
    pub(super) fn origin(
        &self,
        session: Key,
        message: &MessageView<'_>,
        grant: &Grant<'_>,
        matched: &[Key],
    ) -> Option<Origin> {
        let is_once = message.origin != 0
            && grant.qos == Qos::ExactlyOnce
            && grant.share == Share::No
            && !matched.is_empty();
        (is_once && self.sessions.get(session).is_some_and(|slot| slot.is_kept))
            .then_some((message.publisher, message.origin))
    }

    /// What its receivers remember a message by.
    #[inline]
    pub(super) fn origin_of(&self, publisher: Key, publish: &Publish<'_>) -> u16 {
        let is_once = publish.qos == Qos::ExactlyOnce && self.env.keep.is_some();
        let is_kept = || self.sessions.get(publisher).is_some_and(|slot| slot.is_kept);
        if is_once && is_kept() { publish.packet_id } else { 0 }
    }

    /// Whether the session has got this message before.
    pub(super) fn has_taken(&self, session: Key, origin: Option<Origin>, message: &MessageView<'_>) -> bool {
        message.is_repeat
            && origin.is_some_and(|origin| {
                self.env.keep.as_ref().is_some_and(|keep| keep.taken.has(origin, session.index))
            })
    }

    /// The session has got it now, if `delivered` says so.
    #[inline]
    pub(super) fn note_taken(&mut self, session: Key, origin: Option<Origin>, delivered: Delivered) {
        if let (Some(origin), Delivered::Sent | Delivered::Queued | Delivered::QueuedDroppingOldest) =
            (origin, delivered)
        {
            self.take(session, origin);
        }
    }

    fn take(&mut self, session: Key, (publisher, packet_id): Origin) {
        if !self.env.budget.charge(Class::Queue, TAKEN_BYTES) {
            return self.env.counters().repetitions_unguarded_total.add(1);
        }
        if let Some(keep) = &mut self.env.keep {
            keep.taken.add((publisher, packet_id), session.index);
            keep.append(&Record::Taken { index: session.index, publisher, packet_id });
        }
    }

    /// A publisher will not send these again.
    pub(super) fn forget_taken(&mut self, publisher: u64, packet_ids: impl Iterator<Item = u16>) {
        if let Some(keep) = &mut self.env.keep {
            packet_ids.for_each(|packet_id| keep.forget((publisher, packet_id), &mut self.env.budget));
        }
    }
}

impl Core {
    /// A publisher will not send these again: all shards forget them.
    pub(super) fn forget_everywhere(&mut self, publisher: u64, packet_ids: &[u16]) {
        self.local.forget_taken(publisher, packet_ids.iter().copied());
        for peer in self.exchange.links.peers().iter() {
            self.exchange.push_released(peer, publisher, packet_ids, &self.local.env);
        }
    }
}
