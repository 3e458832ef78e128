//! Wills: at the right time, once, and never after a DISCONNECT that was already sent.

use super::{Checker, ConnIx, Fate, Millis, MsgId, Oracle, Over, Tick};

/// A will that was laid down with a CONNECT.
#[derive(Clone, Debug)]
pub struct Will {
    pub message: MsgId,
    pub conn: ConnIx,
    pub delay_ms: Millis,
    /// When the broker noticed the end of the connection, earliest and latest.
    pub ended: Option<(Millis, Option<Millis>)>,
    pub over: Tick,
    pub duty: Duty,
    /// When somebody got it first.
    pub seen: Option<Millis>,
}

/// Whether it is to be published.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Duty {
    /// The connection is up.
    Held,
    Must,
    May,
    Never,
}

impl Oracle {
    pub fn lay_down(&mut self, conn: ConnIx) {
        if let Some((message, delay_ms)) = self.conns[conn].asked.will {
            let (ended, over, duty, seen) = (None, 0, Duty::Held, None);
            self.wills.push(Will { message, conn, delay_ms, ended, over, duty, seen });
        }
    }

    pub fn will_seen(&mut self, message: MsgId) {
        let now = self.now;
        if let Some(will) = self.wills.iter_mut().find(|will| will.message == message) {
            will.seen.get_or_insert(now);
        }
    }

    fn will_of(&mut self, conn: ConnIx) -> Option<&mut Will> {
        self.wills.iter_mut().find(|will| will.conn == conn)
    }

    pub(super) fn will_after_over(&mut self, conn: ConnIx) {
        let Some((how, tick, since)) = self.conns[conn].over else { return };
        let how = self.over_by_crash(conn, how);
        let accepted = self.conns[conn].accepted.is_some();
        let clean_session_end =
            self.conns[conn].session.map_or(0, |session| self.sessions[session].expiry_ms.0);
        let Some(will) = self.will_of(conn) else { return };
        will.delay_ms = will.delay_ms.min(clean_session_end);
        will.ended = Some((since, None));
        will.over = tick;
        will.duty = match how {
            Over::Refused => Duty::Never,
            _ if !accepted => Duty::May,
            Over::Clean => Duty::Never,
            Over::WithWill | Over::Lost | Over::Replaced => Duty::Must,
            Over::Unclear => Duty::May,
        };
    }

    pub(super) fn will_unclear(&mut self, conn: ConnIx) {
        if let Some(will) = self.will_of(conn) {
            will.duty = Duty::May;
        }
    }

    pub(super) fn will_noticed(&mut self, conn: ConnIx) {
        let now = self.noticed_at();
        if let Some(will) = self.will_of(conn)
            && let Some((lo, None)) = will.ended
        {
            will.ended = Some((lo, Some(now)));
        }
    }

    /// The client is back: a will that is still delayed goes with the session or is dropped.
    pub(super) fn settle_wills_at_connect(&mut self, conn: ConnIx, continues: bool) {
        let (client, clean, asked_at, now) =
            (self.conns[conn].client, self.conns[conn].asked.clean, self.conns[conn].asked_at, self.now);
        let conns = &self.conns;
        for will in self.wills.iter_mut().filter(|w| w.conn < conn && conns[w.conn].client == client) {
            let Some((lo, hi)) = will.ended else { continue };
            // Who was connected when the broker crashed and comes back in time is as if it had not left.
            let crashed = conns[will.conn].crashed;
            if will.duty != Duty::Must || (will.delay_ms == 0 && !crashed) {
                continue;
            }
            if hi.is_some_and(|hi| asked_at > hi + will.delay_ms) {
                continue; // it was due before
            }
            let surely_in_time = !clean && continues && now < lo + will.delay_ms && !crashed;
            will.duty = if surely_in_time { Duty::Never } else { Duty::May };
        }
    }

    /// Once everything is quiet: what is due must be out, and nothing else may be.
    pub(super) fn wills_at_rest(&mut self) {
        let now = self.now;
        let forced = self.takeover_may_force;
        let mut by_policy = Vec::new();
        for at in 0..self.wills.len() {
            let will = self.wills[at].clone();
            let name = self.name(will.message);
            self.checks.count(Checker::Will, 1);
            if let Some(seen) = will.seen {
                let lo = will.ended.map_or(0, |(lo, _)| lo);
                match will.duty {
                    Duty::Held => {
                        self.fail(Checker::Will, format!("{name} was published while its connection is up"));
                    }
                    Duty::Never if !forced => {
                        by_policy.push(format!("{name} was published, but must not be"))
                    }
                    Duty::Must if seen < lo => {
                        self.fail(Checker::Will, format!("{name} was published at {seen}, before its time"));
                    }
                    Duty::Must if seen < lo + will.delay_ms => {
                        by_policy.push(format!("{name} was published at {seen}, before its time"));
                    }
                    Duty::Must | Duty::May | Duty::Never => {}
                }
            }
            let due = will.ended.and_then(|(_, hi)| hi).is_some_and(|hi| now >= hi + will.delay_ms);
            if will.duty == Duty::Must && due && self.messages[will.message].fate == Fate::Unknown {
                self.certain(will.message);
                let message = &mut self.messages[will.message];
                message.sent = Some(will.over);
                message.sent_at = now;
            }
        }
        // A session that the policy of full queues ends publishes its will at once [MQTT-3.1.3-9], although a DISCONNECT
        // may be on its way: one will for each of them.
        let most = self.drops.sessions;
        self.check(Checker::Will, by_policy.len() as u64 <= most, |_| {
            format!("{}; the policy of full queues ended {most} sessions", by_policy.join("; "))
        });
    }
}
