//! Live messages that wait behind retained ones.
//!
//! A program that asks what is retained takes the first message without RETAIN for the end of it. So a live message that
//! matches only subscriptions with cursors (see `cursors`) waits until the cursors of its session that had begun by then are
//! done. A message that another subscription of the session matches too goes out at once, unless one of its topic waits:
//! messages of a topic keep their order.
//!
//! As many bytes wait for a session as it may queue, from the same memory, and [`BEHIND_QUEUES`] times as many messages. Beyond
//! that all of them go out, and so do those that come until its cursors are done: ahead of what is retained, and counted for it.
//!
//! The retained copy of a topic of which a published value waits is that value or a newer one: an owner sends a live message
//! before it answers with it. The value that waits takes the copy's place then, with RETAIN, so that each value comes once and in
//! order. Only one that matched several new subscriptions does not: it comes live for all of them together.

use std::collections::{HashMap, VecDeque};

use ahash::RandomState;

use crate::limits::Limits;
use crate::memory::{Class, Key, Message};
use crate::session::{DropReason, Fanout, Grant, Restored, Retain, Share};
use crate::store::Record;
use crate::topic;
use crate::wire::Qos;

use super::cursors::{Cursors, Publisher, Seen};
use super::env::Env;
use super::local::Local;
use super::sessions::Sessions;

/// How many full queues of messages may wait. A client that clears what it is sent gets each of its own messages back, so that
/// as many wait as it has cleared; they are small.
pub(super) const BEHIND_QUEUES: usize = 16;

/// A live message that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    message: Message,
    qos: Qos,
    retain: Retain,
    identifiers: Box<[u32]>,
    /// The subscriptions that it is delivered for.
    matched: Box<[Key]>,
    /// It took the place of its retained copy.
    is_delivered: bool,
    /// The newest cursor of its session when it came.
    until: u64,
    topic: u64,
    /// The number of the next one of its topic, if there is one.
    next: Option<u64>,
}

/// The live messages of one session that wait, in the order in which they came.
#[derive(Debug)]
pub(super) struct Behind {
    entries: VecDeque<Waiting>,
    /// The number of the first entry.
    front: u64,
    /// By topic: the numbers of the first and the last one.
    topics: HashMap<u64, (u64, u64), RandomState>,
    bytes: u64,
}

/// What a copy of what is retained finds waiting of its topic, for its subscription.
#[derive(Debug)]
pub(super) enum Newer<'a> {
    /// No value.
    Nothing,
    /// A value is the first that waits: it takes the place of the copy, which is no older.
    First { number: u64, message: &'a Message },
    /// A value waits behind a message that is none: the copy is not sent, and the value comes in its turn.
    Later,
    /// A value waits that is older than the subscription, so it is older than the copy as well: up to this number all of the
    /// topic go first.
    Older(u64),
}

impl Behind {
    pub fn new(state: RandomState) -> Behind {
        Behind { entries: VecDeque::new(), front: 0, topics: HashMap::with_hasher(state), bytes: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether one of this topic waits.
    fn has(&self, topic: u64) -> bool {
        self.topics.contains_key(&topic)
    }

    /// Whether `cost` bytes more, as one message, may wait.
    fn fits(&self, cost: usize, limits: &Limits) -> bool {
        self.entries.len() < limits.queue_messages_max as usize * BEHIND_QUEUES
            && self.bytes + cost as u64 <= limits.queue_bytes_max
    }

    fn push(&mut self, waiting: Waiting) {
        let number = self.front + self.entries.len() as u64;
        let (_, last) = self.topics.entry(waiting.topic).or_insert((number, number));
        let before = std::mem::replace(last, number);
        if before != number
            && let Some(before) = self.at_mut(before)
        {
            before.next = Some(number);
        }
        self.bytes += waiting.message.cost() as u64;
        self.entries.push_back(waiting);
    }

    fn at(&self, number: u64) -> Option<&Waiting> {
        self.entries.get(number.checked_sub(self.front)? as usize)
    }

    fn at_mut(&mut self, number: u64) -> Option<&mut Waiting> {
        self.entries.get_mut(number.checked_sub(self.front)? as usize)
    }

    /// Whether it is written down, if its session is.
    fn is_written(waiting: &Waiting) -> bool {
        waiting.qos != Qos::AtMostOnce && !waiting.is_delivered
    }

    /// What is written down of it, in order.
    pub fn written(&self) -> impl Iterator<Item = Restored<'_>> {
        self.entries.iter().filter(|waiting| Behind::is_written(waiting)).map(|waiting| Restored {
            message: &waiting.message,
            qos: waiting.qos,
            retain: waiting.retain,
            identifiers: &waiting.identifiers,
            share: None,
        })
    }

    /// The record that message `number` waits no longer, if it is written down.
    fn ahead(&self, number: u64, session: Key) -> Option<Record<'static>> {
        let at = number.checked_sub(self.front)? as usize;
        let is_written = self.entries.get(at).is_some_and(Behind::is_written);
        let before = self.entries.iter().take(at).filter(|waiting| Behind::is_written(waiting));
        is_written.then(|| Record::Ahead { index: session.index, at: before.count() as u32 })
    }

    /// The first that waits.
    fn first(&self) -> Option<&Waiting> {
        self.entries.front()
    }

    /// What a copy for `subscription` finds. An empty value is none to be sent as retained.
    pub fn newer(&self, topic: u64, subscription: Key) -> Newer<'_> {
        let mut next = self.topics.get(&topic).map(|(first, _)| *first);
        let mut newer = Newer::Nothing;
        let mut is_first = true;
        let mut older = None;
        while let Some((number, waiting)) = next.and_then(|number| Some((number, self.at(number)?))) {
            next = waiting.next;
            if waiting.is_delivered {
                continue;
            }
            let message = waiting.message.view();
            if !waiting.matched.contains(&subscription) {
                older = if message.retain { Some(number) } else { older };
                continue;
            }
            if let Some(older) = older {
                return Newer::Older(older);
            }
            if is_first && message.retain && !message.payload.is_empty() && waiting.matched.len() == 1 {
                return Newer::First { number, message: &waiting.message };
            }
            is_first = false;
            if message.retain {
                newer = Newer::Later;
            }
        }
        older.map_or(newer, Newer::Older)
    }

    /// The first that waits, which waits no longer.
    fn take_first(&mut self) -> Option<Waiting> {
        let waiting = self.entries.pop_front()?;
        self.front += 1;
        self.bytes -= waiting.message.cost() as u64;
        match waiting.next {
            Some(next) => {
                if let Some((first, _)) = self.topics.get_mut(&waiting.topic) {
                    *first = next;
                }
            }
            None => drop(self.topics.remove(&waiting.topic)),
        }
        Some(waiting)
    }
}

impl Local {
    /// Keeps a live message for later, if it is to wait; `matched` are the subscriptions of the session that matched.
    #[cold]
    #[inline(never)]
    pub(super) fn goes_behind(
        &mut self,
        session: Key,
        fanout: &mut Fanout<'_>,
        grant: &Grant<'_>,
        matched: &[Key],
    ) -> bool {
        let topic = topic::fingerprint(&self.env.keys, fanout.message.topic);
        let Some(slot) = self.sessions.arena.get(session) else { return false };
        let Some(cursors) = &slot.cursors else { return false };
        let gives = |key: &&Key| {
            let subscription = self.sessions.router.subscription(**key);
            subscription.is_some_and(|subscription| self.grant(subscription, &fanout.message).is_some())
        };
        let matched: Box<[Key]> = matched.iter().filter(gives).copied().collect();
        let are_new = matched.iter().all(|key| cursors.has(*key));
        let waits = are_new || cursors.behind.has(topic);
        let is_away = slot.connection.is_none() && grant.qos == Qos::AtMostOnce;
        if !waits || is_away {
            return false;
        }
        if cursors.gave_up {
            self.env.counters().retained_overtaken_total.add(1);
            return false;
        }
        let cost = fanout.shared().cost();
        if !cursors.behind.fits(cost, &self.env.limits) || !self.env.budget.charge(Class::Queue, cost) {
            self.env.counters().retained_overtaken_total.add(1);
            self.overtake(session);
            return false;
        }
        let waiting = Waiting {
            message: fanout.shared().clone(),
            qos: grant.qos,
            retain: grant.retain,
            identifiers: grant.identifiers.into(),
            matched,
            is_delivered: false,
            until: self.sessions.pulls.begun,
            topic,
            next: None,
        };
        let Some(slot) = self.sessions.arena.get_mut(session) else { return true };
        let is_kept = slot.is_kept && Behind::is_written(&waiting);
        if let Some(cursors) = &mut slot.cursors {
            cursors.behind.push(waiting);
        }
        if is_kept {
            let written = &mut fanout.written;
            self.sessions.keep_behind(session, &fanout.message, written, grant, &mut self.env);
        }
        true
    }

    /// No more may wait at the session: all that waits goes out, ahead of what is retained.
    fn overtake(&mut self, session: Key) {
        loop {
            let Some(slot) = self.sessions.arena.get_mut(session) else { return };
            let Some(cursors) = &mut slot.cursors else { return };
            cursors.gave_up = true;
            if slot.is_kept
                && let Some(record) = cursors.behind.ahead(cursors.behind.front, session)
            {
                self.env.record(&record);
            }
            let Some(waiting) = cursors.behind.take_first() else { return };
            self.env.counters().retained_overtaken_total.add(1);
            self.deliver_waiting(session, &waiting);
        }
    }

    /// Delivers the messages that wait for no cursor any more, as far as the client takes them. Returns whether there are more
    /// that it would take.
    pub(super) fn let_go(&mut self, session: Key, cursors: &mut Cursors, visits: &mut usize) -> bool {
        while let Some(waiting) = cursors.behind.first()
            && cursors.are_done_up_to(waiting.until)
            && self.can_take(session, waiting.message.cost())
        {
            self.keep_ahead(session, cursors, cursors.behind.front);
            if let Some(waiting) = cursors.behind.take_first() {
                self.deliver_waiting(session, &waiting);
            }
            *visits = visits.saturating_sub(1);
            if *visits == 0 {
                return !cursors.behind.is_empty();
            }
        }
        false
    }

    /// Delivers a message that waits no longer. Its session's cursors must be lent or given up, or it would wait again.
    fn deliver_waiting(&mut self, session: Key, waiting: &Waiting) {
        let Waiting { message, qos, retain, identifiers, .. } = waiting;
        self.env.budget.release(Class::Queue, message.cost());
        if !waiting.is_delivered {
            let grant = Grant { qos: *qos, retain: *retain, identifiers, share: Share::No };
            self.deliver_kept(session, message, &grant);
        }
    }

    /// Writes that message `number` waits no longer.
    fn keep_ahead(&mut self, session: Key, cursors: &Cursors, number: u64) {
        if self.sessions.get(session).is_some_and(|slot| slot.is_kept)
            && let Some(record) = cursors.behind.ahead(number, session)
        {
            self.env.record(&record);
        }
    }

    /// Delivers message `number`, which waits, in place of its retained copy. // [U5-3.3.1-1]
    pub(super) fn deliver_in_place(&mut self, session: Key, cursors: &mut Cursors, number: u64) {
        self.keep_ahead(session, cursors, number);
        let Some(waiting) = cursors.behind.at_mut(number) else { return };
        waiting.is_delivered = true;
        let Waiting { message, qos, identifiers, .. } = &*waiting;
        let grant = Grant { qos: *qos, retain: Retain::Set, identifiers, share: Share::No };
        self.deliver_kept(session, message, &grant);
    }

    /// Delivers what waits of a topic up to message `number`, although older cursors are not done.
    pub(super) fn deliver_early(&mut self, session: Key, cursors: &mut Cursors, topic: u64, number: u64) {
        let mut next = cursors.behind.topics.get(&topic).map(|(first, _)| *first);
        while let Some(at) = next.filter(|at| *at <= number) {
            self.keep_ahead(session, cursors, at);
            let Some(waiting) = cursors.behind.at_mut(at) else { return };
            next = waiting.next;
            if std::mem::replace(&mut waiting.is_delivered, true) {
                continue;
            }
            let Waiting { message, qos, retain, identifiers, until, .. } = &*waiting;
            let seen = Seen { newest: *until, publisher: Publisher::Other };
            let (message, is_value) = (message.clone(), message.view().retain);
            let grant = Grant { qos: *qos, retain: *retain, identifiers, share: Share::No };
            self.env.counters().retained_overtaken_total.add(1);
            self.deliver_kept(session, &message, &grant);
            if is_value {
                cursors.saw_live(topic, seen);
            }
        }
    }
}

impl Sessions {
    /// The session's client is gone: what waits at QoS 0 is not kept for it.
    pub fn drop_behind(&mut self, session: Key, env: &mut Env) {
        let Some(cursors) = self.arena.get_mut(session).and_then(|slot| slot.cursors.as_mut()) else {
            return;
        };
        let kept = Behind::new(cursors.hasher());
        let mut all = std::mem::replace(&mut cursors.behind, kept);
        let mut dropped = 0;
        while let Some(waiting) = all.take_first() {
            if waiting.qos == Qos::AtMostOnce || waiting.is_delivered {
                dropped += u64::from(!waiting.is_delivered);
                env.budget.release(Class::Queue, waiting.message.cost());
            } else {
                cursors.behind.push(Waiting { next: None, ..waiting });
            }
        }
        if dropped > 0 {
            env.count_drop(DropReason::Offline, dropped);
        }
    }

    /// The session ends. Returns how many messages waited.
    pub fn forget_behind(&mut self, session: Key, env: &mut Env) -> u64 {
        let Some(cursors) = self.arena.get_mut(session).and_then(|slot| slot.cursors.as_mut()) else {
            return 0;
        };
        let mut count = 0;
        while let Some(waiting) = cursors.behind.take_first() {
            count += u64::from(!waiting.is_delivered);
            env.budget.release(Class::Queue, waiting.message.cost());
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::NEVER;
    use crate::memory::MessageView;

    fn waiting(topic: u64, number: u8) -> Waiting {
        let view = MessageView {
            topic: "t",
            properties: &[],
            payload: &[number],
            qos: Qos::AtMostOnce,
            retain: number.is_multiple_of(2),
            expires_at: NEVER,
            publisher: 0,
            whole: None,
            origin: 0,
            is_repeat: false,
        };
        Waiting {
            message: view.to_message(),
            qos: Qos::AtMostOnce,
            retain: Retain::Clear,
            identifiers: [].into(),
            matched: if topic == 7 { [key(1), key(2)].into() } else { [key(1)].into() },
            is_delivered: false,
            until: 0,
            topic,
            next: None,
        }
    }

    fn key(index: u32) -> Key {
        Key { index, generation: 1 }
    }

    /// The plain structure beside it: a list that is searched.
    #[test]
    fn it_does_what_a_searched_list_does() {
        let mut random = 7_u64;
        let mut behind = Behind::new(RandomState::with_seeds(1, 2, 3, 4));
        // Topic, number, and whether the first subscription has had it.
        let mut plain: Vec<(u64, u8, bool)> = Vec::new();
        for number in 0..20_000_u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (action, topic, number) = (random >> 60, random >> 40 & 7, number as u8);
            if action < 7 {
                behind.push(waiting(topic, number));
                plain.push((topic, number, false));
            } else if action < 12 {
                assert_eq!(behind.has(topic), plain.iter().any(|(of, ..)| *of == topic));
                let mut of_topic = plain.iter_mut().filter(|(of, _, had)| *of == topic && !had);
                match behind.newer(topic, key(1)) {
                    Newer::First { number, message } => {
                        let payload = message.view().payload[0];
                        let (_, plain_number, had) = of_topic.next().expect("there is one");
                        assert_eq!((payload % 2, *plain_number), (0, payload));
                        *had = true;
                        assert_ne!(topic, 7, "it matched two subscriptions");
                        behind.at_mut(number).expect("it waits").is_delivered = true;
                    }
                    Newer::Later => {
                        let all: Vec<u8> = of_topic.map(|(_, number, _)| *number).collect();
                        assert!(topic == 7 || all[0] % 2 == 1);
                        assert!(all.iter().any(|number| number % 2 == 0));
                    }
                    Newer::Nothing => assert!(of_topic.all(|(_, number, _)| *number % 2 == 1)),
                    Newer::Older(_) => panic!("all of them matched it"),
                }
                let value =
                    plain.iter().rposition(|(of, number, had)| *of == topic && !had && number % 2 == 0);
                match behind.newer(topic, key(3)) {
                    Newer::Older(number) => assert_eq!(Some((number - behind.front) as usize), value),
                    other => assert!(value.is_none(), "{other:?}"),
                }
            } else {
                let first = if plain.is_empty() { None } else { Some(plain.remove(0)) };
                let taken = behind.take_first();
                let taken = taken.map(|it| (it.topic, it.message.view().payload[0], it.is_delivered));
                assert_eq!(taken, first);
            }
            let bytes = plain.len() as u64 * waiting(0, 0).message.cost() as u64;
            assert_eq!((behind.bytes, behind.is_empty()), (bytes, plain.is_empty()));
        }
    }
}
