//! Retained messages: what the store may hold once quiet, and that subscribers agree with it.

use std::collections::BTreeMap;

use super::{Checker, Fate, MsgId, Oracle, SessionIx, matches};

impl Oracle {
    /// What a topic's store may hold, as seen from the publishers: the last certain message of any of them, or one
    /// after it that may have arrived. `None` is an empty store.
    fn candidates(&self, topic: &str) -> Vec<Option<MsgId>> {
        let mut by: BTreeMap<usize, Vec<MsgId>> = BTreeMap::new();
        for (id, m) in self.messages.iter().enumerate() {
            let new = m.settled.is_none() && m.fate != Fate::Refused && (m.sent.is_some() || m.will);
            if m.retain && m.topic == topic && new {
                by.entry(m.by).or_default().push(id);
            }
        }
        let mut found = Vec::new();
        let mut certain = false;
        for ids in by.values() {
            // Wills come at a time of their own, so they stand in no order to what their client published. What was
            // first sent before the last look and is certain only now may be older than what was found then.
            let sure = |id: &MsgId| {
                let m = &self.messages[*id];
                let new = m.sent.is_some_and(|sent| sent > self.store_tick);
                m.fate == Fate::Certain && !m.will && new
            };
            let last = ids.iter().rposition(sure);
            certain |= last.is_some();
            let wills = ids.iter().copied().filter(|&id| self.messages[id].will);
            // Those that were sent again may have come the first time or the second, before or after the others.
            let again = ids.iter().copied().filter(|&id| self.messages[id].again);
            found.extend(ids[last.unwrap_or(0)..].iter().copied().chain(wills).chain(again));
        }
        let mut candidates: Vec<Option<MsgId>> =
            found.iter().map(|&id| (!self.messages[id].payload.is_empty()).then_some(id)).collect();
        if !certain || self.drops.retained > 0 {
            candidates.push(self.store.get(topic).copied());
        }
        // What expires leaves the topic without a message.
        if candidates.iter().flatten().any(|&id| self.messages[id].expiry_s.is_some())
            || self.drops.retained > 0
        {
            candidates.push(None);
        }
        candidates
    }

    /// `seen` is the store as a new subscriber of everything got it while all was quiet.
    pub fn store_at_rest(&mut self, seen: &BTreeMap<String, MsgId>, connected: &[(SessionIx, usize)]) {
        let mut topics: Vec<String> =
            self.messages.iter().filter(|m| m.retain).map(|m| m.topic.clone()).collect();
        topics.sort();
        topics.dedup();
        for topic in &topics {
            let candidates = self.candidates(topic);
            let found = seen.get(topic).copied();
            let checker = if self.crashes.since(self.store_tick) { Checker::Durable } else { Checker::Store };
            self.check(checker, candidates.contains(&found), |o| {
                let list: Vec<_> =
                    candidates.iter().map(|c| c.map_or("nothing".into(), |id| o.name(id))).collect();
                let found = found.map_or("nothing".into(), |id| o.name(id));
                format!("{topic} retains {found}, but must be one of {list:?}")
            });
        }
        let before = std::mem::replace(&mut self.store, seen.clone());
        if self.drops.messages() == 0 && self.drops.retained == 0 {
            for &(session, conn) in connected {
                for topic in &topics {
                    self.subscriber_agrees(session, conn, topic, &before);
                }
            }
        }
        let tick = self.next();
        self.store_tick = tick;
        for m in self.messages.iter_mut().filter(|m| m.sent.is_some() && m.fate == Fate::Certain) {
            m.settled.get_or_insert(tick);
        }
    }

    /// The last value that a subscriber saw of a topic is the store's.
    fn subscriber_agrees(
        &mut self,
        session: SessionIx,
        conn: usize,
        topic: &str,
        before: &BTreeMap<String, MsgId>,
    ) {
        let accepted = self.conns[conn].accepted.unwrap_or(super::Tick::MAX);
        let versions: Vec<_> = self
            .subscriptions
            .iter()
            .filter(|s| s.session == session && s.share.is_none() && matches(&s.matches, topic))
            .collect();
        // Only where nothing but the protocol between the shards decides: one subscription, acknowledged on this
        // connection, that takes everything. Of those that it had before nothing but queued messages may be left, which
        // come before what this one brings; whether they are followed by a clear is not known.
        let open: Vec<_> = versions.iter().filter(|s| s.ended.is_none()).collect();
        let [s] = open[..] else { return };
        let plain = s.acked.is_some() && s.ending.is_none() && !s.doubtful && s.asked > accepted;
        let first = versions.len() == 1;
        if !plain || s.retain_handling == 2 || s.no_local || !(first || s.retain_handling == 0) {
            return;
        }
        let stored = self.store.get(topic).copied();
        let (asked, who) = (s.asked, self.names[self.sessions[session].client].clone());
        let empty = |id: Option<MsgId>| id.is_none_or(|id| self.messages[id].payload.is_empty());
        let last: Vec<(super::Tick, Option<MsgId>)> = self.sessions[session]
            .last_retained
            .iter()
            .filter(|((of, _), _)| of == topic)
            .map(|(_, last)| *last)
            .collect();
        // What expires goes from the store without a word.
        let expires = |id: Option<MsgId>| id.is_some_and(|id| self.messages[id].expiry_s.is_some());
        // One may have come and gone since the store was looked at, and have expired on its way to the subscriber.
        let came_and_went = self
            .messages
            .iter()
            .any(|m| m.retain && m.topic == topic && m.expiry_s.is_some() && m.settled.is_none());
        if came_and_went {
            return;
        }
        if expires(stored) || expires(before.get(topic).copied()) || last.iter().any(|(_, id)| expires(*id)) {
            return;
        }
        let agrees = match stored {
            Some(id) => last.iter().any(|&(at, seen)| seen == Some(id) && at > asked),
            None => {
                // What was sent after the last one that was seen may have expired on its way, and in the store as well.
                let expired_since = |seen: Option<MsgId>| {
                    let since = seen.and_then(|id| self.messages[id].sent);
                    let of_topic = self.messages.iter().filter(|m| m.retain && m.topic == topic);
                    of_topic.filter(|m| m.sent > since).any(|m| m.expiry_s.is_some())
                };
                let gone = |seen: Option<MsgId>| empty(seen) || expired_since(seen);
                !first || last.is_empty() || last.iter().any(|&(_, seen)| gone(seen))
            }
        };
        let text = |id: Option<MsgId>| id.map_or("nothing".into(), |id| self.name(id));
        let seen: Vec<String> = last.iter().map(|(_, id)| text(*id)).collect();
        let what = format!("{who} saw {seen:?} last of {topic}, the store holds {}", text(stored));
        self.check(Checker::LastValue, agrees, |_| what);
    }
}
