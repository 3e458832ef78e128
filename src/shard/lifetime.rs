//! What follows from the end of a connection, and from the end of a session: its will, other shards, members of share groups.

use crate::memory::Key;
use crate::topic::{Change, Presence};
use crate::wire::Reason;

use super::Core;
use super::clients::{Ended, Overdue};
use super::connection::End;
use super::events;
use super::losses::Denied;
use super::order::{Heard, Owed, Ticket};
use super::sessions::{Disconnected, Forfeited, SessionEnd};

impl Core {
    /// Tells sessions of connections that have ended; to be called when something was acted upon.
    #[inline(always)]
    pub(super) fn settle(&mut self, heard: Heard<'_>) {
        if !self.local.clients.ended.is_empty() {
            self.settle_ended(heard);
        }
    }

    #[cold]
    fn settle_ended(&mut self, heard: Heard<'_>) {
        while let Some(Ended { connection, session, end, was_live }) = self.local.clients.ended.pop_front() {
            if !was_live {
                self.local.sessions.leave_line(session, connection);
                continue;
            }
            let Some(slot) = self.local.sessions.get(session) else { continue };
            if let Some(connection) = self.local.clients.connections.get(connection) {
                events::disconnected(connection, slot, end, self.local.env.is_stopping);
            }
            if let Some(Disconnected { interest, orphans, is_due }) =
                self.local.sessions.disconnect(session, connection, end, &mut self.local.env)
            {
                self.announce_all(interest);
                self.local.sessions.charge_topics(&mut self.local.env);
                self.redistribute(orphans, heard);
                if is_due {
                    self.session_due(session, heard);
                }
            }
        }
    }

    /// The time of a connection has come.
    pub(super) fn connection_due(&mut self, key: Key, heard: Heard<'_>) {
        let overdue = self.local.clients.connection_due(key, &mut self.local.env);
        self.act_on(overdue, heard);
    }

    pub(super) fn act_on(&mut self, overdue: Option<Overdue>, heard: Heard<'_>) {
        match overdue {
            Some(Overdue::Takeover { session }) => self.local.force_takeover(session),
            None => {}
        }
        self.settle(heard);
    }

    /// The will or the end of a session without a connection may have come.
    pub(super) fn session_due(&mut self, session: Key, heard: Heard<'_>) {
        let now = self.local.env.now;
        let Some(slot) = self.local.sessions.get(session) else { return };
        if slot.connection.is_some() || slot.aside.has_successor() {
            return;
        }
        // A stop is no end of a kept session.
        if self.local.env.is_stopping && slot.is_kept {
            return;
        }
        if slot.ends_at <= now {
            if slot.expiry_s > 0 {
                self.local.env.counters().sessions_expired_total.add(1);
                events::expired(slot);
            }
            return self.end_session(session, heard);
        }
        if slot.will_at() <= now {
            self.publish_will(session, heard);
        }
        self.local.sessions.set_timer(session, &mut self.local.env);
    }

    /// Ends a session and everything in it; a will that was still to come goes out now. // [MQTT-4.1.0-2]
    pub(super) fn end_session(&mut self, session: Key, heard: Heard<'_>) {
        self.publish_will(session, heard);
        self.local.report_missed(session);
        if self.local.env.keep.is_some()
            && let Some(slot) = self.local.sessions.get(session)
        {
            // Its client has nothing to send again.
            let (publisher, received) = (slot.client_hash, slot.session.received().collect::<Vec<_>>());
            if !received.is_empty() {
                self.forget_everywhere(publisher, &received);
            }
        }
        let Some(SessionEnd { interest, orphans, lost }) =
            self.local.sessions.end(session, &mut self.local.env)
        else {
            return;
        };
        self.local.env.counters().dropped_session_end_total.add(lost);
        self.announce_all(interest);
        self.local.sessions.charge_topics(&mut self.local.env);
        self.redistribute(orphans, heard);
    }

    /// Ends the sessions whose queues were full. Those that overflow by this are left to the next turn.
    #[inline(always)]
    pub(super) fn end_overflowed(&mut self, heard: Heard<'_>) {
        if !self.local.sessions.overflowed.is_empty() {
            self.end_those_that_overflowed(heard);
        }
    }

    #[cold]
    fn end_those_that_overflowed(&mut self, heard: Heard<'_>) {
        for session in std::mem::take(&mut self.local.sessions.overflowed) {
            match self.local.sessions.forfeit(session, self.local.env.now) {
                Some(Forfeited::Connected(key)) => {
                    let end = End::Refused(Reason::QUOTA_EXCEEDED, "the session's queue is full");
                    self.local.clients.end(key, end, &mut self.local.env);
                    self.settle(heard);
                }
                Some(Forfeited::Ends) => self.end_session(session, heard),
                Some(Forfeited::Awaited) | None => {}
            }
        }
    }

    /// Publishes the will of a session, once. // [MQTT-3.1.2-8] [MQTT-3.1.2-10]
    pub(super) fn publish_will(&mut self, session: Key, heard: Heard<'_>) {
        let Some(will) = self.local.sessions.take_will(session, &mut self.local.env) else { return };
        let publisher = self.local.sessions.get(session).map_or(0, |slot| slot.client_hash);
        if !self.local.sessions.may_publish(session, &will.topic, &mut self.local.env) {
            self.local.env.counters().dropped_denied_total.add(1);
            return self.local.log_denied(session, Denied::Publish, &will.topic, 1);
        }
        let view = will.message(publisher, self.local.env.now);
        // A client's will comes after its messages; those may still be on the other way (see `publish`).
        let wait = self.exchange.everything();
        if self.exchange.waits.holds_nothing() && wait.is_over(&self.exchange) {
            let _ = self.publish(&view, Ticket::owed(Owed::Will, heard));
        } else {
            self.exchange.waits.hold(view.to_message(), wait);
            self.exchange.await_all(); // it may be long until something else asks
        }
    }

    pub(super) fn set_presence(&mut self, session: Key, presence: Presence) {
        let interest = self.local.sessions.set_presence(session, presence);
        if !interest.is_empty() {
            self.announce_all(interest);
            self.local.sessions.charge_topics(&mut self.local.env);
        }
    }

    fn announce_all(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.interest_changed(change);
        }
    }
}
