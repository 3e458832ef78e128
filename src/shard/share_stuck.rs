//! Share groups: members that are connected and take nothing.
//!
//! A message waits in the queue of a member only if no member could be sent it at once. If that member's client then
//! neither acknowledges nor reads, the message would wait for as long as the connection lives. So a session for which
//! messages of share groups wait is looked at after `Limits::share_wait_ms`. If it was sent nothing meanwhile, it is
//! stuck: what waits there goes to other members, and it is passed over until it takes something again. What its client
//! was sent stays with it, and is bounded by its window. // [U5-4.8.2-6] [MQTT-4.8.2-4]
//!
//! If all members are stuck, messages come back to one of them. The wait doubles each time, so that this costs little.

use std::cell::Cell;

use crate::clock::{Millis, NEVER};
use crate::memory::Key;
use crate::topic::{FilterKey, Router};

use super::Timer;
use super::env::Env;
use super::sessions::{Orphans, Sessions};

/// By how much a wait that is in vain again and again may grow.
const WAIT_GROWTH_MAX: Millis = 32;

/// What is known of a session for which messages of share groups wait.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Lag {
    /// When it is looked at; [`NEVER`] if nothing of share groups waits.
    pub due_at: Millis,
    /// How long it has to take nothing until then.
    wait: Millis,
    /// `Session::sent_mark` at the last look.
    mark: u16,
    /// It took nothing for a whole wait before that.
    stuck: bool,
}

impl Sessions {
    /// A message of a share group waits in this session, or may do so.
    pub fn watch_share(&mut self, session: Key, env: &mut Env) {
        let wait = env.limits.share_wait_ms;
        let Some(slot) = self.arena.get_mut(session) else { return };
        if slot.connection.is_none() || slot.lag_due_at() != NEVER || wait == 0 {
            return;
        }
        let mark = slot.session.sent_mark();
        let known = slot.aside.lag().filter(|lag| lag.mark == mark);
        let lag = known.unwrap_or(Lag { due_at: NEVER, wait, mark, stuck: false });
        let due_at = env.now.saturating_add(lag.wait);
        slot.aside.set_lag(Lag { due_at, ..lag });
        env.set_timer(due_at, Timer::Share(session));
    }

    /// Whether a member's session took nothing for too long, and nothing since.
    pub fn is_stuck(&self, member: Key) -> bool {
        let slot = self.router.subscription(member).and_then(|s| self.arena.get(s.session));
        slot.is_some_and(|slot| {
            slot.aside.lag().is_some_and(|lag| lag.stuck && lag.mark == slot.session.sent_mark())
        })
    }

    /// Messages that members have queued.
    pub fn queue_len_of(&self, member: Key) -> usize {
        let session = self.router.subscription(member).and_then(|s| self.arena.get(s.session));
        session.map_or(0, |slot| slot.session.queue_len())
    }

    /// Looks at a session for which messages of share groups wait. Returns those that go to other members.
    pub fn share_due(&mut self, session: Key, env: &mut Env) -> Orphans {
        let Some(slot) = self.arena.get_mut(session) else { return Vec::new() };
        let Some(lag) = slot.aside.lag().filter(|lag| lag.due_at <= env.now) else { return Vec::new() };
        if lag.mark != slot.session.sent_mark() {
            slot.aside.forget_lag();
            if slot.session.has_unsent_shared() {
                self.watch_share(session, env);
            }
            return Vec::new();
        }
        let wait = lag.wait.saturating_mul(2).min(env.limits.share_wait_ms.saturating_mul(WAIT_GROWTH_MAX));
        slot.aside.set_lag(Lag { due_at: NEVER, wait, stuck: true, ..lag });
        let stays = Cell::new(false);
        let orphans = self.take_orphans(session, env, |session, router, cx, out| {
            let moves = |member| match has_others(router, member) {
                Some(true) => true,
                Some(false) => {
                    stays.set(true);
                    false
                }
                None => false,
            };
            session.take_unsent_shared(cx, moves, out);
        });
        if stays.get() {
            self.watch_share(session, env); // another member may join
        }
        orphans
    }
}

/// Whether the group of this member has another one that is connected; `None` if its subscription is gone.
fn has_others(router: &Router, member: Key) -> Option<bool> {
    match router.filter_of(member)? {
        FilterKey::Group(group) => Some(router.group_online(group) > 1),
        FilterKey::Ordinary(_) => None,
    }
}
