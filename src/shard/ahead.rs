//! Memory of many connections, asked for at once.
//!
//! A message from one of thousands of connections finds nothing of its way in the processor's caches, and each step of the way
//! is known only from the one before: connection, what is live of it, the route that it used last, the subscription, its
//! session, that session's connection. Handled one after the other, each message waits for each step. So where a turn has
//! many, this takes the first step of all, then the second of all, and so on: the processor waits for many at once.
//!
//! Nothing depends on it: whatever is not there, or is another by the time it is needed, was looked at in vain.

use std::hint::black_box;

use crate::io::Completion;
use crate::memory::Key;

use super::clients::Clients;
use super::connection::Live;
use super::env::Env;
use super::local::Local;

/// Completions looked at together: few enough for what they touch to stay in the first cache until it is used.
pub(super) const TOGETHER: usize = 16;
/// Completions below which there is too little to be had at once.
const WORTH: usize = 4;

impl Clients {
    /// Whether a turn with so many completions should do it.
    #[inline]
    pub fn looks_ahead(&self, completions: usize, env: &Env) -> bool {
        completions >= WORTH && self.connections.len() >= env.options.look_ahead_from
    }
}

impl Local {
    /// Touches what the first [`TOGETHER`] of `completions` will need.
    #[inline(never)]
    pub(super) fn look_ahead(&self, completions: &[Completion]) {
        // Each loop takes one step for all; what it reads is where the next one begins.
        let mut lives: [Option<&Live>; TOGETHER] = [None; TOGETHER];
        let mut keys = [Key::NONE; TOGETHER];
        let mut touched = 0u64;
        for (live, completion) in lives.iter_mut().zip(completions) {
            if let Completion::Received { token, .. } | Completion::Sent { token, .. } = completion {
                *live = self.clients.connections.get(token.key()).and_then(|connection| {
                    touched += u64::from(connection.transport.is_some()) + connection.charged_receive as u64;
                    connection.live()
                });
            }
        }
        for live in lives.iter().flatten() {
            touched += u64::from(live.blocked().is_some()) + u64::from(live.known.is_some());
        }
        for (key, live) in keys.iter_mut().zip(&lives) {
            if let Some(known) = live.and_then(|live| live.known.as_ref()) {
                touched += u64::from(known.route.topic.as_bytes().first().copied().unwrap_or_default());
                *key = known.route.local.first().copied().unwrap_or(Key::NONE);
            }
        }
        for (key, live) in keys.iter_mut().zip(&lives) {
            // Who publishes nothing acknowledges, or has taken what was sent: its own session is next.
            let subscription = self.sessions.router.subscription(*key);
            let own = live.map_or(Key::NONE, |live| live.session);
            *key = subscription.map_or(own, |subscription| subscription.session);
        }
        for key in &mut keys {
            *key = self.sessions.arena.get(*key).map_or(Key::NONE, |slot| {
                touched += u64::from(slot.session.is_waiting()) + u64::from(slot.cursors.is_some());
                slot.connection.unwrap_or(Key::NONE)
            });
        }
        for (live, key) in lives.iter_mut().zip(keys) {
            *live = self.clients.connections.get(key).and_then(|connection| {
                touched += connection.in_flight_bytes as u64 + u64::from(connection.transport.is_some());
                connection.live()
            });
        }
        for live in lives.iter().flatten() {
            touched += u64::from(live.link.packet_size_max);
        }
        black_box(touched);
    }
}
