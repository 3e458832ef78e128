//! One PUBLISH that a client got: whether it may have it, in this form, at this place in the order.

use super::{Checker, ClientIx, ConnIx, Fate, Got, MsgId, Oracle, SessionIx, Subscription, Tick, matches};
use crate::packet::{self, Properties, Publish};

/// A PUBLISH as its receiver saw it, alias resolved.
#[derive(Debug)]
pub struct Delivery<'a> {
    pub client: ClientIx,
    pub conn: ConnIx,
    pub session: SessionIx,
    pub topic: &'a str,
    pub publish: &'a Publish,
    /// The client speaks 5.0, so that properties reach it.
    pub v5: bool,
    /// The client has it already: a QoS 2 repeat, which its packet identifier tells.
    pub repeat: bool,
}

/// How it came to the receiver.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Way {
    Live,
    Retained,
    /// By the shared subscription with this index.
    Shared(usize),
}

fn number_of(text: &[u8]) -> Option<MsgId> {
    let digits = text.iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |at| at + 1);
    std::str::from_utf8(&text[digits..]).ok()?.parse().ok()
}

fn without(properties: &Properties, ids: &[u8]) -> Properties {
    properties.iter().filter(|(id, _)| !ids.contains(id)).cloned().collect()
}

impl Oracle {
    /// The message that it carries; `None` for an anonymous clear, or if there is none, which is wrong.
    fn identify(&mut self, d: &Delivery<'_>) -> Option<MsgId> {
        let p = d.publish;
        let by_property = p.properties.iter().find_map(|(_, value)| match value {
            packet::Value::Pair(name, value) if name == "m" => value.parse().ok(),
            _ => None,
        });
        let id = if p.payload.is_empty() { by_property } else { number_of(&p.payload) };
        match id {
            Some(id) if id < self.messages.len() => {
                let m = &self.messages[id];
                let same = m.payload == p.payload && m.topic == d.topic;
                let inner =
                    [packet::SUBSCRIPTION_IDENTIFIER, packet::MESSAGE_EXPIRY_INTERVAL, packet::TOPIC_ALIAS];
                let properties = without(&p.properties, &inner) == m.properties || !d.v5;
                let who = &self.names[d.client];
                let what = format!("{who} got {} changed: {} {:?}", self.name(id), d.topic, p);
                self.check(Checker::Content, same && properties, |_| what);
                Some(id)
            }
            _ => {
                let what =
                    format!("{} got something nobody published: {} {p:?}", self.names[d.client], d.topic);
                self.check(Checker::Content, p.payload.is_empty() && by_property.is_none(), |_| what);
                None
            }
        }
    }

    pub fn received(&mut self, d: &Delivery<'_>) -> Option<MsgId> {
        let tick = self.next();
        if d.publish.qos > 0 && !d.repeat {
            self.sessions[d.session].queued_came_at.push(self.now);
        }
        let id = self.identify(d);
        let Some(id) = id else {
            if d.publish.payload.is_empty() {
                self.saw_retained(d, tick, None);
            }
            return None;
        };
        let m = self.messages[id].clone();
        if m.will {
            self.will_seen(id);
        }
        let text = format!(
            "{} got {} at q{}{}",
            self.names[d.client],
            self.name(id),
            d.publish.qos,
            if d.publish.dup { " dup" } else { "" }
        );
        self.check(Checker::Content, m.fate != Fate::Refused || m.will, |_| {
            format!("{text}, which was refused")
        });
        let way = self.way(d, id, &text);
        let seen = self.sessions[d.session].got.get(&id).cloned().unwrap_or_default();
        // A member of a share group may be due the message by a subscription of its own as well.
        let seen = match way {
            Some(Way::Shared(_)) => seen.shared,
            Some(Way::Live | Way::Retained) | None => seen.live + seen.retained,
        };
        if d.repeat || (d.publish.dup && seen > 0) {
            // The same delivery again, unless it was over for good.
            let is_done = |got: &Got| got.is_done && got.live + got.retained + got.shared == 1;
            let is_done = self.sessions[d.session].got.get(&id).is_some_and(is_done);
            // One that was forgotten somewhere may have come anew, and this repeats that.
            let anew = m.copies > 1 || m.is_split && m.sent_undecided > 0;
            self.check(Checker::Once, !is_done || anew || m.retain, |_| {
                format!("{text}, although its acknowledgement is on disk")
            });
            return Some(id);
        }
        self.check_retained_first(d, id, way, &text);
        match way {
            Some(Way::Live) => self.got_live(d, id, tick, &text),
            Some(Way::Retained) => self.got(d, id, tick).retained += 1,
            Some(Way::Shared(subscription)) => {
                self.got(d, id, tick).shared += 1;
                self.got_shared(d, id, subscription);
            }
            None => {}
        }
        if m.retain && !matches!(way, Some(Way::Shared(_))) {
            self.saw_retained(d, tick, Some(id));
        }
        Some(id)
    }

    fn got(&mut self, d: &Delivery<'_>, id: MsgId, tick: Tick) -> &mut Got {
        let got = self.sessions[d.session].got.entry(id).or_default();
        got.last = tick;
        got.qos = got.qos.max(d.publish.qos);
        got
    }

    fn saw_retained(&mut self, d: &Delivery<'_>, tick: Tick, id: Option<MsgId>) {
        let key = (d.topic.to_string(), d.publish.qos);
        self.sessions[d.session].last_retained.insert(key, (tick, id));
    }

    /// Versions of subscriptions that may have led to it.
    pub(super) fn possible(&self, session: SessionIx, id: MsgId) -> Vec<usize> {
        let m = &self.messages[id];
        let in_time = |s: &Subscription| s.ended.is_none_or(|ended| ended > m.earliest);
        (0..self.subscriptions.len())
            .filter(|&ix| {
                let s = &self.subscriptions[ix];
                s.session == session && matches(&s.matches, &m.topic) && in_time(s)
            })
            .collect()
    }

    /// Whether a subscription of the session may bring it.
    pub fn may_get(&self, session: SessionIx, id: MsgId) -> bool {
        !self.possible(session, id).is_empty()
    }

    /// Why the client got it: checks QoS, RETAIN, identifiers against all subscriptions that may have led to it.
    fn way(&mut self, d: &Delivery<'_>, id: MsgId, text: &str) -> Option<Way> {
        let m = self.messages[id].clone();
        let p = d.publish;
        let possible = self.possible(d.session, id);
        let identifiers: Vec<u32> = p
            .properties
            .iter()
            .filter_map(|(id, value)| match value {
                packet::Value::Number(number) if *id == packet::SUBSCRIPTION_IDENTIFIER => Some(*number),
                _ => None,
            })
            .collect();
        let subs = &self.subscriptions;
        let of = |ix: &&usize| identifiers.contains(&subs[**ix].identifier.unwrap_or(0));
        let shared: Vec<usize> =
            possible.iter().filter(|&&ix| subs[ix].share.is_some()).filter(of).copied().collect();
        if let Some(&ix) = shared.first() {
            let levels: Vec<u8> = shared.iter().map(|&ix| m.qos.min(subs[ix].qos)).collect();
            self.check(Checker::Form, identifiers.len() == 1 && levels.contains(&p.qos), |_| {
                format!("{text}, shared at one of {levels:?}, with identifiers {identifiers:?}")
            });
            return Some(Way::Shared(ix));
        }
        let ordinary: Vec<usize> = possible.into_iter().filter(|&ix| subs[ix].share.is_none()).collect();
        let local = |s: &Subscription| s.no_local && m.by == d.client;
        let routed = |s: &&Subscription| !local(s) && m.settled.is_none_or(|settled| s.asked < settled);
        let open: Vec<&Subscription> = ordinary.iter().map(|&ix| &subs[ix]).filter(routed).collect();
        // A reply to SUBSCRIBE stands for one subscription and does not know No Local.
        // What an older version of the subscription asked for may come in the form of the newer one, and be what the topic has
        // meanwhile.
        let asked_for = |at: usize| {
            let s = &subs[at];
            let same =
                |o: &&Subscription| (o.session, &o.filter, &o.share) == (s.session, &s.filter, &s.share);
            let older = subs[..at].iter().rev().filter(same).take_while(|o| o.replaced);
            ordinary.iter().map(|&ix| &subs[ix]).filter(same).chain(older).any(|o| o.retain_handling < 2)
        };
        let reply = p.retain
            && m.retain
            && ordinary.iter().map(|&ix| (ix, &subs[ix])).any(|(ix, s)| {
                asked_for(ix)
                    && p.qos == m.qos.min(s.qos)
                    && identifiers == s.identifier.into_iter().collect::<Vec<_>>()
            });
        let live = !open.is_empty() && {
            let levels = open.iter().any(|s| p.qos == m.qos.min(s.qos));
            let known = identifiers.iter().all(|id| open.iter().any(|s| s.identifier == Some(*id)));
            let published_at = m.sent.unwrap_or(m.earliest);
            let sure = |s: &&&Subscription| {
                !s.doubtful
                    && s.acked.is_some_and(|acked| acked < m.earliest)
                    && s.ending.is_none()
                    && self.sessions[s.session].began < published_at
            };
            let all = open.iter().filter(sure).all(|s| {
                p.qos >= m.qos.min(s.qos) && s.identifier.is_none_or(|id| identifiers.contains(&id))
            });
            let retain = if p.retain {
                m.retain && open.iter().any(|s| s.retain_as_published)
            } else {
                !m.retain || open.iter().any(|s| !s.retain_as_published)
            };
            // Whoever subscribed after the acknowledgement gets it from the store. A will or what was sent again may have
            // been on its way for longer.
            let acknowledged = m.retain && m.qos > 0 && !m.will && m.copies == 1 && !m.again;
            let late = acknowledged
                && m.fate == Fate::Certain
                && open.iter().all(|s| s.asked > m.certain_at && !s.doubtful);
            levels && known && all && retain && !late
        };
        let detail = || {
            let list: Vec<String> = ordinary.iter().map(|&ix| format!("{:?}", subs[ix])).collect();
            format!(
                "{text} (retain {}, identifiers {identifiers:?}) by no subscription; possible: {list:#?}",
                p.retain
            )
        };
        let what = if live || reply { String::new() } else { detail() };
        // A session that had ended before a crash may have been what brought it.
        let former = |session: usize| {
            let of = &self.sessions[session];
            of.client == d.client && session != d.session && self.crashes.since(of.began)
        };
        let mut formers = (0..self.sessions.len()).filter(|&session| former(session)).peekable();
        let has_former = formers.peek().is_some();
        let resurrected = formers.any(|session| self.may_get(session, id));
        self.checks.count(Checker::Resurrected, u64::from(has_former));
        let checker = if resurrected { Checker::Resurrected } else { Checker::Form };
        self.check(checker, live || reply, |_| what);
        self.check_expiry(d, id, text);
        match (live, reply) {
            (_, true) if p.retain => Some(Way::Retained),
            (true, _) => Some(Way::Live),
            _ => None,
        }
    }

    /// A retained message does not come after a live one that only the same subscription can have led to, as far as both came
    /// on the connection that subscribed.
    fn check_retained_first(&mut self, d: &Delivery<'_>, id: MsgId, way: Option<Way>, text: &str) {
        let possible = self.possible(d.session, id);
        let [ix] = possible[..] else { return };
        let s = &self.subscriptions[ix];
        let accepted = self.conns[d.conn].accepted.unwrap_or(Tick::MAX);
        let unsure = s.doubtful || s.ending.is_some() || s.asked < accepted;
        if s.share.is_some() || s.retain_as_published || unsure {
            return;
        }
        let got = self.sessions[d.session].got.get(&id).cloned().unwrap_or_default();
        let twice = match way {
            Some(Way::Live) => got.retained > 0,
            Some(Way::Retained) => got.live > 0,
            Some(Way::Shared(_)) | None => false,
        };
        if twice && self.messages[id].copies == 1 && self.messages[id].sent_undecided == 0 {
            self.overtaken.push(format!("{text}, live and retained by one subscription"));
        }
        match way {
            Some(Way::Live) => {
                self.sessions[d.session].live_of.entry(ix).or_insert(id);
            }
            Some(Way::Retained) => {
                let before = self.sessions[d.session].live_of.get(&ix).copied();
                let after = before.map(|before| self.name(before)).unwrap_or_default();
                self.checks.count(Checker::RetainedFirst, 1);
                // At QoS 2 it waits for the disk where there is one, and what is live at QoS 0 does not.
                let held = self.crashes.keeps && d.publish.qos == 2;
                if before.is_some() && !held {
                    self.overtaken.push(format!("{text}, which is retained, after {after}, which is live"));
                }
            }
            Some(Way::Shared(_)) | None => {}
        }
    }

    fn check_expiry(&mut self, d: &Delivery<'_>, id: MsgId, text: &str) {
        let m = self.messages[id].clone();
        let left = packet::number(&d.publish.properties, packet::MESSAGE_EXPIRY_INTERVAL);
        match (m.expiry_s, left) {
            (Some(expiry), Some(left)) => {
                // The broker had it before its answer was seen, and sent it after this connection was asked for.
                let known = m.fate == Fate::Certain && !m.will && m.copies == 1;
                let asked_at = self.conns[d.conn].asked_at;
                let waited = if known { asked_at.saturating_sub(m.certain_now) } else { 0 };
                let most = (u64::from(expiry) * 1000).saturating_sub(waited).div_ceil(1000).max(1);
                self.check(Checker::Expiry, left >= 1 && u64::from(left) <= most, |_| {
                    format!("{text} with {left} s left of {expiry}, at most {most} are possible")
                });
            }
            (None, Some(left)) => {
                self.fail(Checker::Expiry, format!("{text} with an expiry of {left} s that nobody set"));
            }
            (Some(expiry), None) => {
                self.check(Checker::Expiry, !d.v5, |_| format!("{text} without its expiry of {expiry} s"));
            }
            (None, None) => {}
        }
        // A connection that began after the message was dead cannot have it, unless it was sent before.
        if let Some(expiry) = m.expiry_s
            && !d.publish.dup
            && !m.will
            && m.fate == Fate::Certain
        {
            let dead = m.sent_at + u64::from(expiry) * 1000;
            let late = self.conns[d.conn].asked_at > dead && m.certain_now <= dead && m.copies == 1;
            self.check(Checker::Expiry, !late, |_| format!("{text} after it had expired at {dead}"));
        }
    }

    /// Once per copy, and in the order of sending.
    fn got_live(&mut self, d: &Delivery<'_>, id: MsgId, tick: Tick, text: &str) {
        let m = self.messages[id].clone();
        let is_loose = d.publish.qos == 0 || !self.is_kept(d.conn);
        let got = self.got(d, id, tick);
        got.live += 1;
        got.is_loose |= is_loose;
        let got = &self.sessions[d.session].got[&id];

        // A will that is out may have left before the disk knew that it has; it goes out again then.
        let again = match m.will {
            true => self.crashes.at.len() as u32,
            false if m.is_split || got.is_loose => m.sent_undecided,
            false => 0,
        };
        let (live, most) = (got.live, m.copies + got.repeats + again);
        self.check(Checker::Once, live <= most, |_| {
            format!("{text}: {live} times, sent {} times, {most} are possible", m.copies)
        });
        if m.will {
            return;
        }
        let key = (m.by, m.topic.clone(), m.qos);
        let Some(order) = self.sent_order.get(&key) else { return };
        let key = (m.by, m.topic.clone(), m.qos, d.publish.qos);
        let last = self.sessions[d.session].order.get(&key).copied();
        let from = last.map_or(0, |last| last + 1);
        let position = order[from..].iter().position(|&other| other == id).map(|at| from + at);
        let newest = last.map(|last| order[last]);
        match position {
            Some(position) => {
                self.sessions[d.session].order.insert(key, position);
            }
            None => {
                let after = newest.map(|newest| self.name(newest)).unwrap_or_default();
                self.fail(Checker::Order, format!("{text} out of order: after {after}"));
            }
        }
        self.checks.count(Checker::Order, 1);
    }
}
