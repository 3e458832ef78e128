//! Records applied in order: from the log to what a shard keeps.
//!
//! A log may begin in the middle: what stood before it was in segments that are used for something
//! else by now. Then a complete walk follows, and everything that is kept has its image there. So a
//! record about a session that is not known is passed over, until a walk is complete.

use std::collections::{BTreeMap, HashMap};

use super::image::{Delivery, SessionImage};
use super::record::{Damaged, Record};
use super::{StoredWill, WallClock};
use crate::memory::{Message, MessageView};

/// What the records so far say.
#[derive(Debug, Default)]
pub struct State {
    /// By the place that they had in their shard.
    sessions: Vec<Option<Box<SessionImage>>>,
    retained: HashMap<Box<str>, Message, ahash::RandomState>,
    /// Messages on their way to another shard, with their share groups.
    given: BTreeMap<u64, (u64, Message)>,
    /// Sessions that have got a QoS 2 message, by publisher and its Packet Identifier; some may be others by now.
    takers: HashMap<(u64, u16), Vec<u32>, ahash::RandomState>,
    /// The message of the last `Message` or `Again`.
    current: Option<Message>,
    /// Messages of the walk under way, by name.
    named: HashMap<u64, Message, ahash::RandomState>,
    walk: Walk,
    clock: WallClock,
    /// The last record said that the shard stopped in order.
    pub stopped: bool,
}

/// What is known of everything that is kept.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
enum Walk {
    /// The log began in the middle, and no walk is complete yet.
    #[default]
    Missing,
    /// The first one is under way.
    Begun,
    /// All is known.
    Complete,
}

impl State {
    /// `clock` is that of the process that reads: deadlines of messages are on its clock.
    pub fn new(clock: WallClock) -> State {
        State { clock, ..State::default() }
    }

    pub(super) fn clock(&self) -> WallClock {
        self.clock
    }

    /// Commits are missing here: what comes may not fit to what is known.
    pub(super) fn expect_gap(&mut self) {
        self.walk = Walk::Missing;
    }

    /// Whether everything that is kept is known.
    pub fn is_complete(&self) -> bool {
        self.walk == Walk::Complete
    }

    pub fn sessions(&self) -> impl Iterator<Item = &SessionImage> {
        self.sessions.iter().flatten().map(|session| &**session)
    }

    pub fn retained(&self) -> impl Iterator<Item = &Message> {
        self.retained.values()
    }

    /// Messages of share groups whose way to another shard nobody knows the end of, with the fingerprints of their groups, in order.
    pub fn take_given(&mut self) -> Vec<(u64, Message)> {
        std::mem::take(&mut self.given).into_values().collect()
    }

    /// Places up to which there may be sessions.
    pub fn places(&self) -> u32 {
        self.sessions.len() as u32
    }

    /// Messages of share groups whose way to another shard nobody knows the end of, with their numbers and groups.
    pub fn given(&self) -> impl Iterator<Item = (u64, u64, &Message)> {
        self.given.iter().map(|(number, (group, message))| (*number, *group, message))
    }

    /// The session at this place.
    pub fn session(&self, index: u32) -> Option<&SessionImage> {
        self.sessions.get(index as usize)?.as_deref()
    }

    /// Sessions and retained messages.
    pub fn into_parts(self) -> (Vec<Box<SessionImage>>, Vec<Message>) {
        (self.sessions.into_iter().flatten().collect(), self.retained.into_values().collect())
    }

    /// Applies the records of one commit.
    ///
    /// # Errors
    /// They do not fit to what is known, or are no records. What came before the bad one is applied.
    pub fn apply_all(&mut self, mut records: &[u8]) -> Result<u64, Damaged> {
        let mut count = 0;
        while !records.is_empty() {
            let (record, rest) = Record::decode(records)?;
            self.apply(&record)?;
            records = rest;
            count += 1;
        }
        Ok(count)
    }

    fn apply(&mut self, record: &Record<'_>) -> Result<(), Damaged> {
        self.stopped = false;
        match *record {
            Record::Began { index, packet_id_next, client_id, user, by_certificate } => {
                let at = index as usize;
                if at >= self.sessions.len() {
                    if at > Self::SESSIONS_MAX {
                        return Err(Damaged);
                    }
                    self.sessions.resize_with(at + 1, || None);
                }
                let image = SessionImage::new(client_id, user, by_certificate);
                self.sessions[at] = Some(Box::new(SessionImage { packet_id_next, ..image }));
            }
            Record::Ended { index } => {
                if let Some(session) = self.sessions.get_mut(index as usize) {
                    *session = None;
                }
            }
            Record::Message { name, ref message } => {
                let expires_at = self.clock.millis(message.expires_at);
                let message = MessageView { expires_at, ..*message }.to_message();
                if name != 0 {
                    self.named.insert(name, message.clone());
                }
                self.current = Some(message);
            }
            Record::Again { name } => {
                self.current = self.named.get(&name).cloned();
                if self.current.is_none() && self.walk != Walk::Missing {
                    return Err(Damaged);
                }
            }
            Record::Retained => match &self.current {
                Some(message) => {
                    self.retained.insert(message.topic().into(), message.clone());
                }
                None => return self.unless_missing(),
            },
            Record::Cleared { topic } => {
                self.retained.remove(topic);
            }
            Record::Given { number, group } => match &self.current {
                Some(message) => {
                    self.given.insert(number, (group, message.clone()));
                }
                None => return self.unless_missing(),
            },
            Record::Passed { number } => {
                self.given.remove(&number);
            }
            Record::Taken { index, publisher, packet_id } => {
                if let Some(Some(session)) = self.sessions.get_mut(index as usize) {
                    session.taken.insert((publisher, packet_id));
                    self.takers.entry((publisher, packet_id)).or_default().push(index);
                }
            }
            Record::Forgot { publisher, packet_id } => {
                for index in self.takers.remove(&(publisher, packet_id)).unwrap_or_default() {
                    if let Some(Some(session)) = self.sessions.get_mut(index as usize) {
                        session.taken.remove(&(publisher, packet_id));
                    }
                }
            }
            Record::WalkBegins => {
                self.named.clear();
                if self.walk == Walk::Missing {
                    self.walk = Walk::Begun;
                }
            }
            Record::WalkEnds => {
                self.named.clear();
                if self.walk == Walk::Begun {
                    self.walk = Walk::Complete;
                }
            }
            Record::Stopped => self.stopped = true,
            _ => return self.apply_to_session(record),
        }
        Ok(())
    }

    /// Places of sessions: as many as a shard can have.
    const SESSIONS_MAX: usize = 1 << 28;

    fn apply_to_session(&mut self, record: &Record<'_>) -> Result<(), Damaged> {
        let Some(session) = index_of(record).and_then(|index| self.sessions.get_mut(index as usize)) else {
            return self.unless_missing();
        };
        let Some(session) = session else { return self.unless_missing() };
        let fits = match *record {
            Record::Connected { expiry_s, .. } => {
                (session.expiry_s, session.ends_at, session.will) = (expiry_s, None, None);
                true
            }
            Record::Left { ends_at, will_at, .. } => {
                session.ends_at = Some(ends_at);
                if let Some(will) = &mut session.will {
                    will.due_at = will_at;
                }
                true
            }
            Record::Will { ref will, .. } => {
                session.will = Some(Box::new(StoredWill::from(will)));
                true
            }
            Record::NoWill { .. } => {
                session.will = None;
                true
            }
            Record::Subscribed { filter, options, identifier, .. } => {
                session.subscribe(filter, options, identifier);
                true
            }
            Record::Unsubscribed { filter, .. } => {
                session.unsubscribe(filter);
                true
            }
            Record::Queued { ref queued, .. } => match &self.current {
                Some(message) => {
                    session.queue.push_back(Delivery::new(message, queued));
                    true
                }
                None => false,
            },
            Record::Flying { packet_id, ref queued, .. } => match &self.current {
                Some(message) => {
                    session.fly(packet_id, Delivery::new(message, queued));
                    true
                }
                None => false,
            },
            Record::Sent { packet_id, .. } => session.send(packet_id),
            Record::Acked { packet_id, .. } => session.acknowledge(packet_id),
            Record::Released { packet_id, .. } => {
                session.release(packet_id);
                true
            }
            Record::Dropped { from, count, .. } => session.drop_queued(from, count),
            Record::Behind { ref queued, .. } => match &self.current {
                Some(message) => {
                    session.behind.push_back(Delivery::new(message, queued));
                    true
                }
                None => false,
            },
            Record::Ahead { at, .. } => session.behind.remove(at as usize).is_some(),
            Record::Received { packet_id, .. } => {
                session.received.insert(packet_id);
                true
            }
            Record::Freed { packet_id, .. } => {
                session.received.remove(&packet_id);
                true
            }
            _ => false, // about no session; see `index_of`
        };
        if fits { Ok(()) } else { self.unless_missing() }
    }

    /// A record that fits to nothing is of a session whose image comes later, or it is damage.
    fn unless_missing(&self) -> Result<(), Damaged> {
        if self.walk == Walk::Complete { Err(Damaged) } else { Ok(()) }
    }
}

/// The session that a record is about.
fn index_of(record: &Record<'_>) -> Option<u32> {
    match *record {
        Record::Began { index, .. }
        | Record::Connected { index, .. }
        | Record::Left { index, .. }
        | Record::Ended { index }
        | Record::Will { index, .. }
        | Record::NoWill { index }
        | Record::Subscribed { index, .. }
        | Record::Unsubscribed { index, .. }
        | Record::Queued { index, .. }
        | Record::Flying { index, .. }
        | Record::Sent { index, .. }
        | Record::Acked { index, .. }
        | Record::Released { index, .. }
        | Record::Dropped { index, .. }
        | Record::Behind { index, .. }
        | Record::Ahead { index, .. }
        | Record::Received { index, .. }
        | Record::Freed { index, .. } => Some(index),
        Record::Message { .. }
        | Record::Again { .. }
        | Record::Retained
        | Record::Cleared { .. }
        | Record::Given { .. }
        | Record::Passed { .. }
        | Record::Taken { .. }
        | Record::Forgot { .. }
        | Record::WalkBegins
        | Record::WalkEnds
        | Record::Stopped => None,
    }
}
