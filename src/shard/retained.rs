//! Retained messages: the store of the topics that this shard owns, and the questions of other shards for them.
//!
//! A batch is no larger than what a client's socket has room for. How subscribers pull what is retained is told in `pulls`.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::clock::Millis;
use crate::memory::{Class, Message, MessageView, ShardId};
use crate::mesh::Published;
use crate::topic::{self, RetainedHints, Scan};

use super::Timer;
use super::env::Env;
use super::order::Hinted;
use super::parcel::{Found, Query};

/// Milliseconds between sweeps for expired retained messages.
pub(super) const SWEEP_MS: Millis = 1000;

/// Retained messages looked at in one sweep.
const SWEEP_VISITS: usize = 10_000;

/// What a batch costs in visits besides its topics: finding where to begin.
const BATCH_VISITS: usize = 16;

/// The retained messages of the topics that this shard owns, and what is pulled through it.
pub(super) struct Retained {
    pub store: topic::Retained,
    /// Whether any shard may have something for a filter.
    pub hints: Arc<RetainedHints>,
    /// Questions of other shards: `questions_max` of each at most.
    questions: VecDeque<(ShardId, Box<Query>)>,
}

impl Retained {
    pub fn new(env: &Env, hints: Arc<RetainedHints>) -> Retained {
        Retained { store: topic::Retained::new(&env.keys), hints, questions: VecDeque::new() }
    }

    /// Whether another shard waits for an answer.
    pub fn has_questions(&self) -> bool {
        !self.questions.is_empty()
    }

    /// Another shard asks; it is answered in its turn.
    pub fn ask(&mut self, from: ShardId, query: Box<Query>) {
        self.questions.push_back((from, query));
    }

    pub fn next_question(&mut self) -> Option<(ShardId, Box<Query>)> {
        self.questions.pop_front()
    }

    /// Whether an owner may have something that `filter` matches.
    pub fn may_match(&self, filter: &str, env: &Env) -> bool {
        self.hints.may_match(filter, |text| topic::fingerprint(&env.keys, text))
    }

    /// Before a message with RETAIN is stored here or leaves for its owner.
    pub fn note(&self, view: &MessageView<'_>, fingerprint: u64, env: &Env) -> Hinted {
        if !view.payload.is_empty() {
            self.hints.note(view.topic, fingerprint, |level| topic::fingerprint(&env.keys, level));
        }
        if env.shards > 1 {
            Published::before_leaving();
        }
        Hinted::by_this_shard()
    }

    /// A batch, no larger than what the socket of a client has room for; and what it costs.
    pub fn find(&self, query: Query, visits: &mut usize, env: &Env) -> Found {
        let (now, bytes_max) = (env.now, env.limits.send_buffer_bytes_max as usize);
        let mut messages: Vec<Message> = Vec::new();
        let (mut bytes, mut is_full) = (0, false);
        let batch = env.options.retained_batch;
        let visits_max = env.options.retained_visits.min(*visits).max(2);
        let mut left = visits_max;
        let scan = self.store.scan(&query.filter, query.after.as_deref(), batch, &mut left, |message| {
            // [U5-3.3.1-3]
            if is_full || message.expires_at() <= now {
                return;
            }
            bytes += message.cost();
            is_full = bytes > bytes_max && !messages.is_empty();
            if !is_full {
                messages.push(message.clone());
            }
        });
        *visits = visits.saturating_sub(BATCH_VISITS + visits_max - left);
        let after = match scan {
            _ if is_full => messages.last().map(|last| Box::from(last.topic())),
            Scan::Done => None,
            Scan::More { after } => Some(after),
        };
        let Query { session, subscription, cursor, .. } = query;
        Found { session, subscription, cursor, messages, after }
    }

    /// Keeps or clears the retained message of a topic that this shard owns. False if there is no room for it.
    /// [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-8]
    /// Whatever its QoS. // [U5-3.3.1-2]; 3.1.1: [MQTT-3.3.1-7]
    #[must_use]
    pub fn keep(&mut self, view: &MessageView<'_>, env: &mut Env) -> bool {
        debug_assert!(view.retain);
        if view.payload.is_empty() {
            if let Some(old) = self.store.remove(view.topic) {
                env.budget.release(Class::Retained, old.cost());
            }
            return true;
        }
        let cost = view.cost();
        let old = self.store.get(view.topic).map(Message::cost);
        if old.is_none() && self.len_of_all(env) >= env.limits.retained_messages_max {
            return false;
        }
        // The old value goes, so the difference is enough: near the limit a topic can still change.
        if !env.budget.charge(Class::Retained, cost.saturating_sub(old.unwrap_or(0))) {
            // The old value would be wrong now: better none than a stale one.
            if let Some(old) = self.store.remove(view.topic) {
                env.budget.release(Class::Retained, old.cost());
            }
            return false;
        }
        if let Some(old) = self.store.insert(view.to_message()) {
            env.budget.release(Class::Retained, old.cost().saturating_sub(cost));
        }
        true
    }

    /// Retained messages of all shards.
    fn len_of_all(&self, env: &Env) -> u64 {
        let here = env.counters().retained_messages.get();
        crate::metrics::sum(&env.counters, |shard| &shard.retained_messages) - here + self.store.len() as u64
    }

    /// Deletes some of what has expired.
    pub fn sweep(&mut self, env: &mut Env) {
        let sweep = self.store.expire(env.now, SWEEP_VISITS);
        env.budget.release(Class::Retained, sweep.bytes);
        env.set_timer(env.now + SWEEP_MS, Timer::Sweep);
    }
}
