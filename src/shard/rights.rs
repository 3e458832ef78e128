//! What a session's client may publish and receive. Without rules each question costs one branch.

use crate::access::{Denial, Overlap, Subscribable, Who, is_sys};
use crate::memory::Key;
use crate::session::Drops;
use crate::wire::Reason;

use super::Core;

impl Core {
    #[inline]
    pub(super) fn may_publish(&mut self, session: Key, topic: &str) -> bool {
        if !self.env.access.has_rules() {
            return !is_sys(topic); // [U5-4.7.2-1]
        }
        let Some(slot) = self.sessions.arena.get_mut(session) else { return false };
        let who = Who { user: slot.user.as_deref(), client_id: &slot.client_id };
        self.env.access.may_publish(&mut slot.rights, who, topic)
    }

    #[inline]
    pub(super) fn may_receive(&mut self, session: Key, topic: &str) -> bool {
        !self.env.access.has_rules() || self.rules_let_receive(session, topic)
    }

    fn rules_let_receive(&mut self, session: Key, topic: &str) -> bool {
        let Some(slot) = self.sessions.arena.get_mut(session) else { return false };
        if slot.rights.open_in == self.env.access.generation() {
            return true;
        }
        let who = Who { user: slot.user.as_deref(), client_id: &slot.client_id };
        self.env.access.permissions(&mut slot.rights, who).is_none_or(|may| may.may_receive(topic))
    }

    /// Whether a SUBSCRIBE for this filter, without `$share` and Share Name, is granted; the code for SUBACK if not.
    pub(super) fn may_subscribe(&mut self, session: Key, filter: &str) -> Result<(), Reason> {
        if !self.env.access.has_rules() {
            return Ok(());
        }
        let Some(slot) = self.sessions.arena.get_mut(session) else { return Err(Reason::UNSPECIFIED_ERROR) };
        let who = Who { user: slot.user.as_deref(), client_id: &slot.client_id };
        let answer = self
            .env
            .access
            .permissions(&mut slot.rights, who)
            .map_or(Subscribable::Allowed, |may| may.may_subscribe(filter));
        let policy = self.env.access.policy();
        match (answer, policy.overlap) {
            (Subscribable::Allowed, _) => {
                // What else it has may have been granted under other rules.
                if slot.subscriptions.is_empty() {
                    slot.rights.open_in = self.env.access.generation();
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
    pub(super) fn check_waiting(&mut self, connection: Key) {
        if self.env.access.has_rules() {
            self.recheck_waiting(connection);
        }
    }

    fn recheck_waiting(&mut self, connection: Key) {
        let session = self.clients.connections.get(connection).and_then(|connection| connection.live());
        let Some(session) = session.map(|live| live.session) else { return };
        let Some(slot) = self.sessions.arena.get_mut(session) else { return };
        let generation = self.env.access.generation();
        if std::mem::replace(&mut slot.rights.checked_in, generation) == generation {
            return;
        }
        let who = Who { user: slot.user.as_deref(), client_id: &slot.client_id };
        let Some(may) = self.env.access.permissions(&mut slot.rights, who) else { return };
        let mut drops = Drops::default();
        let mut cx = context!(self, drops);
        let forgotten = slot.session.forget(&mut cx, |topic| !may.may_receive(topic));
        self.env.counters().dropped_denied_total.add(forgotten);
    }
}
