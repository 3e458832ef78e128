//! A naive broker's knowledge: every message, subscription, session and connection of a run in plain lists.
//!
//! Clients tell what they asked for and what they got, each at a tick of its own; the oracle answers what each of them
//! may and must get. Between asking and being answered both outcomes are possible, so most facts have a tick before
//! which they cannot hold and one from which they do. What is certainly wrong is collected in [`Oracle::wrong`];
//! nothing is guessed.

mod checker;
mod crash;
mod group;
mod receive;
mod rest;
mod retained;
mod session;
mod will;

use std::collections::BTreeMap;

pub use checker::{Checker, Checks};
pub use receive::Delivery;
pub use session::{ConnectAsked, Over};

use crate::packet::Properties;

pub type Millis = u64;
pub type ClientIx = usize;
pub type SessionIx = usize;
pub type ConnIx = usize;
pub type MsgId = usize;
/// Orders everything that clients do and see.
pub type Tick = u64;

/// What is known of a message's way into the broker.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It may have arrived or not.
    Unknown,
    /// It was taken.
    Certain,
    /// The broker said no, or it can no longer come.
    Refused,
}

/// An Application Message.
#[derive(Clone, Debug)]
pub struct Message {
    pub by: ClientIx,
    pub topic: String,
    pub qos: u8,
    pub retain: bool,
    /// Ends with the text of its number, unless it clears a retained message.
    pub payload: Vec<u8>,
    pub properties: Properties,
    pub expiry_s: Option<u32>,
    pub will: bool,
    /// Nobody can have it before.
    pub earliest: Tick,
    /// Subscribers that were acknowledged before must get it; none for a will that is not due.
    pub sent: Option<Tick>,
    pub sent_at: Millis,
    pub conn: ConnIx,
    pub fate: Fate,
    /// When `fate` became certain.
    pub certain_at: Tick,
    pub certain_now: Millis,
    /// Everything was quiet since it was certain: nothing of it is on its way between shards.
    pub settled: Option<Tick>,
    /// How often it was sent as a message of its own.
    pub copies: u32,
    /// It was sent again on another connection.
    pub again: bool,
    /// A crash may have kept it on one shard and not on another.
    pub is_split: bool,
    /// A crash came before its publisher knew that it was received.
    pub is_undecided: bool,
    /// How often it was sent again since.
    pub sent_undecided: u32,
}

/// One version of a subscription; SUBSCRIBE for the same filter begins another one.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub client: ClientIx,
    pub session: SessionIx,
    /// As in SUBSCRIBE.
    pub filter: String,
    pub share: Option<String>,
    /// Without the share prefix.
    pub matches: String,
    pub qos: u8,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: u8,
    pub identifier: Option<u32>,
    pub asked: Tick,
    pub acked: Option<Tick>,
    /// From here on it may be gone or replaced.
    pub ending: Option<Tick>,
    /// From here on it is gone or replaced.
    pub ended: Option<Tick>,
    /// `ending` because of another version of the same filter: without a gap.
    pub replaced: bool,
    /// The CONNECT of its session or of a later one got no answer: whether it exists is open.
    pub doubtful: bool,
}

/// What one session got of one message.
#[derive(Clone, Default, Debug)]
pub struct Got {
    /// Copies of its own, not the same one again.
    pub live: u32,
    pub retained: u32,
    pub shared: u32,
    pub last: Tick,
    /// Copies that may come again after a crash.
    pub repeats: u32,
    /// As it was delivered.
    pub qos: u8,
    /// It went out without waiting for a disk, or to a session that is not kept: a crash may forget that.
    pub is_loose: bool,
    /// The client has acknowledged it at QoS 1, on this connection.
    pub acked: Option<ConnIx>,
    /// And that is on disk.
    pub is_done: bool,
}

#[derive(Clone, Debug)]
pub struct Session {
    pub client: ClientIx,
    pub began: Tick,
    /// Milliseconds that it outlives its connection, least and most.
    pub expiry_ms: (Millis, Millis),
    /// When the connection may have ended at the earliest and has at the latest; none while it is up.
    pub offline: Option<(Millis, Option<Millis>)>,
    /// A CONNECT without answer may have begun another one in its place.
    pub doubtful: bool,
    pub over: bool,
    /// Everything up to here was looked at.
    pub checked: Tick,
    pub got: BTreeMap<MsgId, Got>,
    /// When it got what may have waited in its queue.
    pub queued_came_at: Vec<Millis>,
    /// Position of the last one seen by publisher, topic, QoS published, QoS delivered.
    pub order: BTreeMap<(ClientIx, String, u8, u8), usize>,
    /// The same when all was on disk.
    pub order_on_disk: BTreeMap<(ClientIx, String, u8, u8), usize>,
    /// The newest message published with RETAIN, by topic and QoS delivered, since those overtake each other: tick, and
    /// the message unless it is an anonymous clear.
    pub last_retained: BTreeMap<(String, u8), (Tick, Option<MsgId>)>,
    /// Subscriptions, and a live message of each that no other subscription can have led to.
    pub live_of: BTreeMap<usize, MsgId>,
}

#[derive(Clone, Debug)]
pub struct Conn {
    pub client: ClientIx,
    pub asked: ConnectAsked,
    pub at: Tick,
    pub asked_at: Millis,
    pub accepted: Option<Tick>,
    pub session: Option<SessionIx>,
    pub over: Option<(Over, Tick, Millis)>,
    /// When its client ended it, or learnt that it was over.
    pub over_at: Tick,
    /// The broker closed its end.
    pub closed: bool,
    /// A crash ended it.
    pub crashed: bool,
}

/// Which policies may take messages away in this run.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
pub struct Drops {
    /// Send buffers: each drop takes one QoS 0 message from one session.
    pub unqueued: u64,
    /// Queues and their memory: each takes one QoS 1 or 2 message from one session.
    pub queued: u64,
    /// Packets beyond the receiver's Maximum Packet Size, of any QoS.
    pub too_large: u64,
    /// Retained messages that were not stored.
    pub retained: u64,
    /// Share groups without a member.
    pub no_member: u64,
    /// Sessions that the policy of full queues has ended.
    pub sessions: u64,
    /// CONNECTs that were refused for want of memory.
    pub refused: u64,
    /// Live messages that went out ahead of retained ones.
    pub overtaken: u64,
}

impl Drops {
    /// Messages that single sessions did not get.
    pub fn messages(&self) -> u64 {
        self.unqueued + self.queued + self.too_large
    }
}

/// A message that somebody should have had.
#[derive(Clone, Debug)]
pub struct Missing {
    /// It was surely to be delivered at QoS 1 or 2 to one session: only a queue can have lost it.
    pub queued: bool,
    /// It was acknowledged before a crash.
    pub durable: bool,
    pub what: String,
}

#[derive(Default, Debug)]
pub struct Oracle {
    pub now: Millis,
    pub tick: Tick,
    pub names: Vec<String>,
    pub messages: Vec<Message>,
    pub subscriptions: Vec<Subscription>,
    pub sessions: Vec<Session>,
    pub conns: Vec<Conn>,
    /// The session that each client last had.
    pub current: Vec<Option<SessionIx>>,
    /// Copies in the order of sending, by publisher, topic and QoS.
    pub sent_order: BTreeMap<(ClientIx, String, u8), Vec<MsgId>>,
    /// What the retained store held when it was last looked at.
    pub store: BTreeMap<String, MsgId>,
    /// Until when `store` is exact.
    pub store_tick: Tick,
    pub shared: BTreeMap<(String, MsgId), Vec<group::Taken>>,
    pub wills: Vec<will::Will>,
    pub session_expiry_max_ms: Millis,
    pub takeover_may_force: bool,
    /// There may be no room for a session.
    pub may_refuse_sessions: bool,
    /// Messages that wait in a session's queue before any is dropped, if nothing else takes messages out of it.
    pub queue_holds: Option<u64>,
    /// Connections that ended because of it, as far as their clients know.
    pub refused_known: u64,
    pub drops: Drops,
    /// Messages that were missing and must be explained by drops.
    pub missing: Vec<Missing>,
    /// Retained messages that came after a live one, and must be explained by overtaking.
    pub overtaken: Vec<String>,
    pub wrong: Vec<String>,
    pub crashes: crash::Crashes,
    /// Facts that were checked, for the figures.
    pub checks: Checks,
}

/// Longer than any run.
pub const FOREVER: Millis = Millis::MAX / 4;

impl Oracle {
    pub fn new(names: Vec<String>, session_expiry_max_s: u32) -> Oracle {
        Oracle {
            current: vec![None; names.len()],
            names,
            tick: 1,
            session_expiry_max_ms: Millis::from(session_expiry_max_s) * 1000,
            ..Oracle::default()
        }
    }

    pub fn next(&mut self) -> Tick {
        self.tick += 1;
        self.tick
    }

    pub fn fail(&mut self, checker: Checker, what: String) {
        self.wrong.push(format!("{}: {what}", checker.name()));
    }

    pub fn check(&mut self, checker: Checker, holds: bool, what: impl FnOnce(&Oracle) -> String) {
        self.checks.count(checker, 1);
        if !holds {
            let what = what(self);
            self.fail(checker, what);
        }
    }

    /// "m17 c2->a/b q1r".
    pub fn name(&self, id: MsgId) -> String {
        let m = &self.messages[id];
        format!(
            "m{id} {}{}->{} q{}{}{}",
            self.names[m.by],
            if m.will { " will" } else { "" },
            m.topic,
            m.qos,
            if m.retain { "r" } else { "" },
            if m.payload.is_empty() { " clear" } else { "" }
        )
    }

    // Publishing.

    /// A message leaves for the first time, or a will is laid down.
    pub fn message(&mut self, message: Message) -> MsgId {
        let id = self.messages.len();
        if !message.will {
            let key = (message.by, message.topic.clone(), message.qos);
            self.sent_order.entry(key).or_default().push(id);
        }
        self.messages.push(message);
        id
    }

    /// A QoS 1 message leaves again, as a copy of its own; a QoS 2 message does not become another one.
    pub fn sent_again(&mut self, id: MsgId, conn: ConnIx) {
        let tick = self.next();
        let m = &mut self.messages[id];
        (m.conn, m.again) = (conn, true);
        if m.qos == 1 {
            m.copies += 1;
            m.sent = Some(tick);
            m.sent_at = self.now;
            let key = (m.by, m.topic.clone(), 1);
            self.sent_order.entry(key).or_default().push(id);
        } else {
            let is_undecided = m.is_undecided;
            m.sent_undecided += u32::from(is_undecided);
            let order = self.sent_order.entry((m.by, m.topic.clone(), 2)).or_default();
            // What follows one that comes again comes after that one.
            let follows = order.last().is_some_and(|last| *last < id);
            if is_undecided || follows {
                order.push(id);
            }
        }
    }

    /// A QoS 2 message leaves again for a session that may be younger than the message: it may come once more.
    pub fn may_be_new(&mut self, id: MsgId) {
        let m = &mut self.messages[id];
        if m.qos == 2 {
            m.copies += 1;
            let key = (m.by, m.topic.clone(), 2);
            self.sent_order.entry(key).or_default().push(id);
        }
    }

    fn certain(&mut self, id: MsgId) {
        let (tick, now) = (self.next(), self.now);
        let m = &mut self.messages[id];
        if m.fate != Fate::Certain {
            (m.fate, m.certain_at, m.certain_now) = (Fate::Certain, tick, now);
        }
    }

    /// PUBACK or PUBREC.
    pub fn taken(&mut self, id: MsgId, code: u8) {
        if code < 0x80 {
            self.certain(id);
        } else {
            self.messages[id].fate = Fate::Refused;
        }
        // 0x97 is a policy; nothing else is a reason to refuse what these clients publish.
        self.check(Checker::Answers, code < 0x80 || code == 0x97, |o| {
            format!("{} refused with {code:#x}", o.name(id))
        });
    }

    // Subscribing.

    /// SUBSCRIBE leaves; the numbers of the versions that it begins.
    pub fn subscribe(&mut self, session: SessionIx, filters: Vec<Subscription>) -> Vec<usize> {
        let tick = self.next();
        let mut begun = Vec::new();
        for mut subscription in filters {
            subscription.asked = tick;
            for old in &mut self.subscriptions {
                if old.session == session && old.filter == subscription.filter && old.ending.is_none() {
                    old.ending = Some(tick);
                    old.replaced = true;
                }
            }
            begun.push(self.subscriptions.len());
            self.subscriptions.push(subscription);
        }
        begun
    }

    pub fn suback(&mut self, begun: &[usize], codes: &[u8]) {
        let tick = self.next();
        if begun.len() != codes.len() {
            let what = format!("SUBACK with {} codes for {} filters", codes.len(), begun.len());
            return self.fail(Checker::Answers, what);
        }
        for (&ix, &code) in begun.iter().zip(codes) {
            let asked = self.subscriptions[ix].clone();
            self.check(Checker::Answers, code == asked.qos || code == 0x97 || code == 0x80, |o| {
                format!(
                    "{} asked for {} at q{} and was answered {code:#x}",
                    o.names[asked.client], asked.filter, asked.qos
                )
            });
            for old in &mut self.subscriptions[..ix] {
                if old.session == asked.session && old.filter == asked.filter && old.ended.is_none() {
                    old.ended = Some(tick);
                }
            }
            let s = &mut self.subscriptions[ix];
            if code >= 0x80 {
                (s.ending, s.ended) = (Some(tick), Some(tick));
            } else {
                s.acked = Some(tick);
            }
        }
    }

    /// UNSUBSCRIBE leaves.
    pub fn unsubscribe(&mut self, session: SessionIx, filters: &[String]) {
        let tick = self.next();
        for s in &mut self.subscriptions {
            if s.session == session && filters.contains(&s.filter) && s.ended.is_none() && s.asked < tick {
                s.ending.get_or_insert(tick);
                s.replaced = false;
            }
        }
    }

    /// Whether a subscription surely was there when UNSUBSCRIBE left, and whether it may have been.
    fn had(&self, session: SessionIx, asked: Tick, filter: &str) -> (bool, bool) {
        let all = || {
            let of = move |s: &&Subscription| s.session == session && s.filter == filter && s.asked < asked;
            self.subscriptions.iter().filter(of)
        };
        let surely = all().any(|s| {
            let open = s.ending.is_none_or(|ending| ending >= asked);
            !s.doubtful && s.acked.is_some_and(|acked| acked < asked) && open
        });
        (surely, all().any(|s| s.ended.is_none_or(|ended| ended > asked)))
    }

    pub fn unsuback(&mut self, session: SessionIx, asked: Tick, filters: &[String], codes: Option<&[u8]>) {
        let tick = self.next();
        if let Some(codes) = codes {
            self.check(Checker::Answers, codes.len() == filters.len(), |_| {
                "UNSUBACK with another number of codes".into()
            });
            for (filter, &code) in filters.iter().zip(codes) {
                let (least, most) = self.had(session, asked, filter);
                let right = if code == 0 { most } else { code == 0x11 && !least };
                self.check(Checker::Answers, right, |o| {
                    let who = &o.names[o.sessions[session].client];
                    format!("{who} got UNSUBACK {code:#x} for {filter}, which was there: {least} to {most}")
                });
            }
        }
        for s in &mut self.subscriptions {
            if s.session == session && filters.contains(&s.filter) && s.asked < asked {
                s.ended.get_or_insert(tick);
            }
        }
    }
}

/// Whether a Topic Filter matches a Topic Name, level by level.
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let filter: Vec<&str> = filter.split('/').collect();
    let topic: Vec<&str> = topic.split('/').collect();
    for (at, level) in filter.iter().enumerate() {
        match *level {
            "#" => return true,
            "+" if at < topic.len() => {}
            level if topic.get(at) == Some(&level) => {}
            _ => return false,
        }
    }
    filter.len() == topic.len()
}

/// Share Name and filter of a shared subscription, or the filter alone.
pub fn split_share(filter: &str) -> (Option<String>, String) {
    match filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/')) {
        Some((name, rest)) => (Some(name.to_string()), rest.to_string()),
        None => (None, filter.to_string()),
    }
}

#[test]
fn matching_follows_the_table_of_the_standard() {
    for (filter, topic, expected) in [
        ("sport/#", "sport", true),
        ("sport/#", "sport/a/b", true),
        ("sport/#", "sports", false),
        ("#", "$SYS/x", false),
        ("sport/+", "sport/", true),
        ("sport/+", "sport", false),
        ("+/+", "/finance", true),
        ("+", "/finance", false),
        ("$SYS/#", "$SYS/x", true),
        ("a/+/c", "a/b/c", true),
        ("a/+/c", "a/b", false),
    ] {
        assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
    }
    assert_eq!(split_share("$share/g/a/#"), (Some("g".into()), "a/#".into()));
}
