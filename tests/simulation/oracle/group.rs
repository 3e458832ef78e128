//! Shared subscriptions: each message goes to one member of each group.

use super::receive::Delivery;
use super::{Checker, ConnIx, Fate, Millis, Missing, MsgId, Oracle, SessionIx, Subscription, matches};

/// For how long a shard may take it that another one has nobody for a message, since it was told so.
const STALE_MS: Millis = 5;

/// A delivery of a group's message to one member.
#[derive(Clone, Debug)]
pub struct Taken {
    pub conn: ConnIx,
    pub qos: u8,
}

impl Oracle {
    pub(super) fn got_shared(&mut self, d: &Delivery<'_>, id: MsgId, subscription: usize) {
        let group = self.subscriptions[subscription].filter.clone();
        let taken = Taken { conn: d.conn, qos: d.publish.qos };
        self.shared.entry((group, id)).or_default().push(taken);
    }

    /// One member has each message, or as many as it was sent copies. QoS 1 in flight moves on when its member's session
    /// ends, which the member itself may learn late; anything else stays where it was sent.
    fn one_member_each(&mut self) {
        let mut wrong = Vec::new();
        for ((group, id), all) in &self.shared {
            let may_move = all.iter().filter(|t| t.qos == 1 && self.conns[t.conn].over.is_some()).count();
            let m = &self.messages[*id];
            if self.crashed_between(m.earliest, m.settled) {
                continue; // what was on its way from shard to shard is handed over again
            }
            if all.len() - may_move.min(all.len() - 1) > m.copies as usize {
                wrong.push(format!("{} was taken {} times by {group}: {all:?}", self.name(*id), all.len()));
            }
        }
        self.checks.count(Checker::Group, self.shared.len() as u64);
        for what in wrong {
            self.fail(Checker::Group, what);
        }
    }

    /// Once quiet: a group whose members were all there all the time has every message exactly once.
    pub(super) fn groups_at_rest(&mut self, connected: &[(SessionIx, ConnIx)]) {
        self.one_member_each();
        let mut groups: Vec<String> =
            self.subscriptions.iter().filter(|s| s.share.is_some()).map(|s| s.filter.clone()).collect();
        groups.sort();
        groups.dedup();
        let mut idle = Vec::new();
        for group in groups {
            for id in 0..self.messages.len() {
                let m = &self.messages[id];
                let (Some(sent), Fate::Certain, None) = (m.sent, m.fate, m.settled) else { continue };
                let members: Vec<Subscription> = self
                    .subscriptions
                    .iter()
                    .filter(|s| s.filter == group && matches(&s.matches, &m.topic))
                    .filter(|s| s.ended.is_none_or(|ended| ended > m.earliest))
                    .cloned()
                    .collect();
                if members.is_empty() || m.expiry_s.is_some() {
                    continue;
                }
                let there_all_the_time = members.iter().all(|s| {
                    !s.doubtful
                        && s.acked.is_some_and(|acked| acked < sent)
                        && s.ending.is_none()
                        && connected.iter().any(|(session, conn)| {
                            *session == s.session && self.conns[*conn].accepted.is_some_and(|at| at < sent)
                        })
                });
                if !there_all_the_time {
                    continue;
                }
                let count = self.shared.get(&(group.clone(), id)).map_or(0, Vec::len);
                self.checks.count(Checker::Arrival, 1);
                let what = format!("{} reached nobody of group {group}", self.name(id));
                // A message is looked at again until the store was seen after it.
                if count == 0 && !self.missing.iter().any(|missing| missing.what == what) {
                    idle.extend(
                        self.member_with_room(id, &members).map(|member| format!("{what}, but {member}")),
                    );
                    self.missing.push(Missing { queued: false, durable: false, what });
                }
            }
        }
        for what in idle {
            self.fail(Checker::Group, what);
        }
    }

    /// A member that could have had a message that no member has. A message is dropped only if all queues are full, and
    /// what was in a queue then comes later.
    fn member_with_room(&self, id: MsgId, members: &[Subscription]) -> Option<String> {
        let m = &self.messages[id];
        let holds = self.queue_holds.filter(|_| m.qos > 0 && self.drops.too_large == 0)?;
        let expired = self.messages.iter().filter(|message| message.expiry_s.is_some()).count() as u64;
        members.iter().find_map(|member| {
            let least = members.iter().filter(|s| s.session == member.session).map(|s| s.qos).min();
            let session = &self.sessions[member.session];
            let since = m.sent_at.saturating_sub(STALE_MS);
            let came = session.queued_came_at.iter().filter(|at| **at >= since).count() as u64;
            (least > Some(0) && came + expired < holds)
                .then(|| format!("{} got only {came} since, of {holds}", self.names[session.client]))
        })
    }
}
