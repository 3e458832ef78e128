//! What must have arrived once everything is quiet.

use super::{Checker, ConnIx, Drops, Fate, Missing, MsgId, Oracle, SessionIx, Subscription, Tick, matches};

impl Oracle {
    /// Everything is quiet; `connected` are the sessions whose connection is up, with that connection.
    pub fn at_rest(&mut self, connected: &[(SessionIx, ConnIx)], drops: Drops) {
        self.drops = drops;
        self.wills_at_rest();
        for what in std::mem::take(&mut self.overtaken) {
            self.check(Checker::RetainedFirst, drops.overtaken > 0, |_| what);
        }
        for &(session, conn) in connected {
            self.session_at_rest(session, conn);
        }
        self.groups_at_rest(connected);
        let durable = self.missing.iter().any(|missing| missing.durable);
        let checker = if durable { Checker::Durable } else { Checker::Arrival };
        let missing = self.missing.len() as u64;
        let dropped = drops.messages() + drops.no_member;
        self.check(checker, missing <= dropped, |o| {
            format!("{missing} messages are missing, {dropped} drops were counted: {}", o.list_missing())
        });
        // Not any drop explains them: a send buffer that is full never takes a message that can be queued.
        let missing = self.missing.iter().filter(|missing| missing.queued).count() as u64;
        let dropped = drops.queued + drops.too_large;
        self.check(checker, missing <= dropped, |o| {
            format!("{missing} queued messages are missing, {dropped} were dropped: {}", o.list_missing())
        });
    }

    fn list_missing(&self) -> String {
        let list: Vec<&str> = self.missing.iter().map(|missing| missing.what.as_str()).collect();
        list.join("; ")
    }

    fn session_at_rest(&mut self, session: SessionIx, conn: ConnIx) {
        let covers = self.covers(session);
        let from = self.sessions[session].checked;
        let client = self.sessions[session].client;
        for id in 0..self.messages.len() {
            let m = &self.messages[id];
            if m.fate != Fate::Certain || m.certain_at <= from {
                continue;
            }
            let Some(sent) = m.sent else { continue };
            let mut least: Option<u8> = None;
            for (versions, since) in &covers {
                let local = versions.iter().any(|s| s.no_local) && m.by == client;
                if local || *since >= sent || !matches(&versions[0].matches, &m.topic) {
                    continue;
                }
                let qos = versions.iter().map(|s| s.qos.min(m.qos)).min().unwrap_or(0);
                least = Some(least.map_or(qos, |other| other.max(qos)));
            }
            let Some(qos) = least else { continue };
            let here = self.conns[conn].accepted.is_some_and(|accepted| accepted < sent);
            let expired = m.expiry_s.is_some_and(|s| self.now >= m.sent_at + u64::from(s) * 1000);
            if (qos == 0 && !here) || expired {
                continue;
            }
            let durable = self.crashes.since(m.certain_at);
            self.checks.count(if durable { Checker::Durable } else { Checker::Arrival }, 1);
            let got = self.sessions[session].got.get(&id).is_some_and(|got| got.live + got.retained > 0);
            let cleared = m.payload.is_empty() && self.saw_clear(session, id, sent);
            if !got && !cleared {
                let what = format!("{} (at q{qos}) never reached {}", self.name(id), self.names[client]);
                self.missing.push(Missing { queued: qos > 0, durable, what });
            }
        }
        let tick = self.next();
        self.sessions[session].checked = tick;
    }

    /// A 3.x subscriber cannot tell clears from each other.
    fn saw_clear(&self, session: SessionIx, id: MsgId, sent: Tick) -> bool {
        let topic = &self.messages[id].topic;
        self.sessions[session].last_retained.iter().any(|((of, _), (at, _))| of == topic && *at > sent)
    }

    /// Ordinary filters that were subscribed without a gap up to now, with all their versions since, and since when.
    fn covers(&self, session: SessionIx) -> Vec<(Vec<Subscription>, Tick)> {
        let mut covers: Vec<(Vec<Subscription>, Tick)> = Vec::new();
        let own = |s: &&Subscription| s.session == session && s.share.is_none();
        let mut filters: Vec<&String> = self.subscriptions.iter().filter(own).map(|s| &s.filter).collect();
        filters.sort();
        filters.dedup();
        for filter in filters {
            let mut versions: Vec<Subscription> = Vec::new();
            for s in self.subscriptions.iter().filter(own).filter(|s| s.filter == *filter) {
                if s.ending.is_some() && !s.replaced || s.doubtful {
                    versions.clear();
                } else {
                    versions.push(s.clone());
                }
            }
            let since = versions.iter().filter_map(|s| s.acked).min();
            if let Some(since) = since {
                covers.push((versions, since));
            }
        }
        covers
    }
}
