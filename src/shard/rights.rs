//! What a session's client may publish and receive. Without rules each question costs one branch.

use crate::access::{Denial, Overlap, Subscribable, Who, is_sys};
use crate::memory::Key;
use crate::session::{Cx, Drops};
use crate::wire::Reason;

use super::env::Env;
use super::sessions::Sessions;

impl Sessions {
    #[inline]
    pub fn may_publish(&mut self, session: Key, topic: &str, env: &mut Env) -> bool {
        if !env.access.has_rules() {
            return !is_sys(topic); // [U5-4.7.2-1]
        }
        let Some(slot) = self.arena.get_mut(session) else { return false };
        let who = Who { user: slot.user.as_deref(), client_id: &slot.client_id };
        env.access.may_publish(&mut slot.rights, who, topic)
    }

    #[inline]
    pub fn may_receive(&mut self, session: Key, topic: &str, env: &mut Env) -> bool {
        !env.access.has_rules() || self.rules_let_receive(session, topic, env)
    }

    fn rules_let_receive(&mut self, session: Key, topic: &str, env: &mut Env) -> bool {
        let Some(slot) = self.arena.get_mut(session) else { return false };
        if slot.rights.open_in == env.access.generation() {
            return true;
        }
        let who = Who { user: slot.user.as_deref(), client_id: &slot.client_id };
        env.access.permissions(&mut slot.rights, who).is_none_or(|may| may.may_receive(topic))
    }

    /// Whether a SUBSCRIBE for this filter, without `$share` and Share Name, is granted; the code for SUBACK if not.
    pub fn may_subscribe(&mut self, session: Key, filter: &str, env: &mut Env) -> Result<(), Reason> {
        if !env.access.has_rules() {
            return Ok(());
        }
        let Some(slot) = self.arena.get_mut(session) else { return Err(Reason::UNSPECIFIED_ERROR) };
        let who = Who { user: slot.user.as_deref(), client_id: &slot.client_id };
        let answer = env
            .access
            .permissions(&mut slot.rights, who)
            .map_or(Subscribable::Allowed, |may| may.may_subscribe(filter));
        let policy = env.access.policy();
        match (answer, policy.overlap) {
            (Subscribable::Allowed, _) => {
                // What else it has may have been granted under other rules.
                if slot.subscriptions.is_empty() {
                    slot.rights.open_in = env.access.generation();
                }
                Ok(())
            }
            (Subscribable::Filtered, Overlap::Filter) => {
                slot.rights.open_in = 0;
                Ok(())
            }
            (Subscribable::Filtered, Overlap::Refuse) | (Subscribable::Denied, _) => {
                Err(match policy.denial {
                    Denial::NotAuthorized => Reason::NOT_AUTHORIZED,
                    Denial::Unspecified => Reason::UNSPECIFIED_ERROR,
                })
            }
        }
    }

    /// Deletes what waits for a client and what it may not have any more, once for each state of the rules; to be
    /// called before anything that waited is sent.
    #[inline]
    pub fn check_waiting(&mut self, session: Key, env: &mut Env) {
        if env.access.has_rules() {
            self.recheck_waiting(session, env);
        }
    }

    fn recheck_waiting(&mut self, session: Key, env: &mut Env) {
        let Some(slot) = self.arena.get_mut(session) else { return };
        let generation = env.access.generation();
        if std::mem::replace(&mut slot.rights.checked_in, generation) == generation {
            return;
        }
        let who = Who { user: slot.user.as_deref(), client_id: &slot.client_id };
        let Some(may) = env.access.permissions(&mut slot.rights, who) else { return };
        let mut drops = Drops::default();
        let notes = if slot.is_kept { env.keep.as_mut().map(|keep| keep.lend_notes()) } else { None };
        let mut cx = Cx {
            now: env.now,
            limits: &env.limits,
            budget: &mut env.budget,
            drops: &mut drops,
            spares: &mut self.spares,
            notes,
        };
        let forgotten = slot.session.forget(&mut cx, |topic| !may.may_receive(topic));
        env.counters().dropped_denied_total.add(forgotten);
        self.keep(session, env);
    }
}
