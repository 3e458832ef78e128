//! A walk over all sessions, a slice at a time: what expired in their queues is deleted, messages are counted, and the
//! sessions that hold the most are found.
//!
//! Nothing else deletes what expired in the queue of a client that is away, unless a newer message comes for it; so it
//! would keep memory that other sessions need. A pass over a million sessions takes about ten seconds.
//! // [MQTT-3.3.2-5]

use crate::clock::Millis;
use crate::memory::Key;
use crate::session::Drops;

use super::Timer;
use super::env::Env;
use super::losses::DEEPEST_MAX;
use super::sessions::Sessions;

/// Places of sessions that are looked at in one turn: some 50 microseconds, if they are in no cache.
const SLICE: u32 = 1024;

/// Milliseconds between two slices.
const GAP_MS: Millis = 10;

/// What a pass has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Messages that wait or are in flight.
    pub queued: u64,
    /// Sessions that hold the most, with what that is judged by; the most first.
    pub deepest: Vec<(u64, Key)>,
}

#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The next place; `None` between two passes.
    next: Option<u32>,
    found: Found,
    /// Of the last whole pass.
    pub last: Found,
}

impl Sessions {
    /// Begins a pass, if none is under way. Few sessions are seen at once.
    pub fn begin_survey(&mut self, env: &mut Env, sending: impl Fn(Key) -> u64) {
        if self.survey.next.is_none() {
            self.survey.next = Some(0);
            self.survey_on(env, sending);
        }
    }

    /// The next slice. `sending` tells how many bytes the socket of a connection did not take yet.
    pub fn survey_on(&mut self, env: &mut Env, sending: impl Fn(Key) -> u64) {
        let Some(from) = self.survey.next else { return };
        let end = self.arena.end();
        let to = end.min(from.saturating_add(SLICE));
        for place in from..to {
            self.look_at_session(place, env, &sending);
        }
        if to < end {
            self.survey.next = Some(to);
            return env.set_timer(env.now + GAP_MS, Timer::Survey);
        }
        self.survey.next = None;
        self.survey.last = std::mem::take(&mut self.survey.found);
        env.counters().queued_messages.set(self.survey.last.queued);
    }

    fn look_at_session(&mut self, place: u32, env: &mut Env, sending: impl Fn(Key) -> u64) {
        let Some((session, slot)) = self.arena.at(place) else { return };
        if slot.session.expires_at_min() <= env.now {
            self.delete_expired(session, env);
        }
        let Some(slot) = self.arena.get(session) else { return };
        let in_flight = slot.session.inflight_len() as u64;
        self.survey.found.queued += slot.session.queue_len() as u64 + in_flight;
        let weight = slot.session.queue_bytes() + slot.connection.map_or(0, sending) + in_flight;
        let deepest = &mut self.survey.found.deepest;
        if weight > 0 && (deepest.len() < DEEPEST_MAX || deepest.last().is_some_and(|last| last.0 < weight)) {
            let at = deepest.partition_point(|other| other.0 >= weight);
            deepest.insert(at, (weight, session));
            deepest.truncate(DEEPEST_MAX);
        }
    }

    fn delete_expired(&mut self, session: Key, env: &mut Env) {
        let Some(slot) = self.arena.get_mut(session) else { return };
        let mut drops = Drops::default();
        let mut cx = env.cx(&mut drops, &mut self.spares, slot.is_kept);
        slot.session.delete_expired(&mut cx);
        self.keep(session, env);
        env.count_drops(drops);
    }
}
