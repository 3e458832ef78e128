//! What a shard writes down: the changes of kept sessions, and retained messages.
//!
//! A session is *kept* if it outlives its connection and there is a data directory. Whatever changes
//! in it has a record in the log of its shard ([`crate::store`]): the verbs of [`Sessions`] write
//! theirs, and a call on the session itself leaves notes, which [`Sessions::keep`] writes. So the
//! records in their order always give what is in memory; the simulator compares the two (`mirror`).
//!
//! A *walk* writes an image of everything, some of it each turn, so that older parts of the log can
//! go. See [`crate::store`] for why that may lie between other records.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::clock::Millis;
use crate::io::Sync;
use crate::memory::{Budget, Key, Message, MessageView};
use crate::session::{Grant, Note, Notes, Place, Restored, Retain};
use crate::store::{Identifiers, Log, Queued, Record, WallClock, WallMillis};
use crate::topic::{Options, RetainHandling, Router};
use crate::wire::Qos;

use super::custody::Custody;
use super::env::Env;
use super::mirror::Mirror;
use super::once::Taken;
use super::restore::{Opening, Start};
use super::retained::Retained;
use super::sessions::Sessions;
use super::slots::Slot;
use super::will::Will;

/// Bytes of images in one turn, and sessions or retained messages looked at for them.
const WALK_BYTES: u64 = 64 * 1024;
const WALK_VISITS: usize = 512;
/// With more bytes that are not on disk a walk rests.
const WALK_WAITING_MAX: usize = 1 << 20;

/// The log of a shard, and what it takes to write it.
pub(super) struct Keep {
    pub log: Log,
    pub clock: WallClock,
    /// Notes of the call on a session that is under way.
    pub notes: Notes,
    /// Connections with messages that have no Packet Identifier yet; looked at at the end of the turn.
    pub beginning: Vec<Key>,
    /// Connections with messages that are sent when this commit is on disk, in its order.
    pub sending: VecDeque<(Key, u64)>,
    /// The number of the message that the log is about. Others have other numbers.
    current: u64,
    /// How its writes reach the disk.
    pub sync: Sync,
    pub opening: Arc<Opening>,
    pub start: Start,
    /// The shard stopped in order, and that was the last thing written down when so many bytes were.
    pub stopped_at: Option<u64>,
    pub custody: Custody,
    /// QoS 2 messages that kept sessions have got.
    pub taken: Taken,
    /// QoS 2 messages of clients that other shards do not have on disk yet: not written down as received.
    pub unreceived: HashSet<(u32, u16), ahash::RandomState>,
    walk: Option<Walk>,
    /// What reads the log as it grows; in tests.
    pub mirror: Option<Mirror>,
    /// Messages that the walk under way has written, by identity. They are held until it is complete, so that no other
    /// message gets the same one.
    named: HashMap<u64, Message, ahash::RandomState>,
}

/// How far a walk is.
#[derive(Copy, Clone, Debug)]
enum Walk {
    /// The next session is at this place.
    Sessions(u32),
    /// The next retained message is at this place.
    Retained(usize),
}

/// How a session gets a message, in the words of the log.
fn queued<'a>(
    (qos, retain): (Qos, Retain),
    identifiers: &'a [u32],
    share: Option<Key>,
    router: &'a Router,
) -> Queued<'a> {
    Queued {
        qos,
        retain: retain as u8,
        share: share.and_then(|key| router.filter_text(key)).unwrap_or_default(),
        identifiers: Identifiers::Numbers(identifiers),
    }
}

impl Keep {
    pub fn new(log: Log, clock: WallClock, sync: Sync, opening: Arc<Opening>) -> Keep {
        Keep {
            log,
            clock,
            notes: Notes::default(),
            beginning: Vec::new(),
            sending: VecDeque::new(),
            current: 0,
            sync,
            opening,
            start: Start::Restoring,
            stopped_at: None,
            custody: Custody::default(),
            taken: Taken::default(),
            unreceived: HashSet::default(),
            walk: None,
            mirror: None,
            named: HashMap::default(),
        }
    }

    /// Whether everything is on disk, or what is not cannot be written.
    pub fn is_at_rest(&self) -> bool {
        self.log.is_idle() || (self.opening.broken().is_some() && !self.log.is_writing())
    }

    /// Milliseconds since 1970 at `now`.
    pub fn wall(&self, now: Millis) -> WallMillis {
        self.clock.wall(now)
    }

    /// For a call on a session that is kept.
    #[inline]
    pub fn lend_notes(&mut self) -> &mut Notes {
        (self.notes.commit, self.notes.on_disk) = (self.log.next_commit(), self.log.on_disk());
        &mut self.notes
    }

    /// Nothing of the session is kept any more.
    pub fn ended(&mut self, index: u32, budget: &mut Budget) {
        self.append(&Record::Ended { index });
        self.unreceived.retain(|(of, _)| *of != index);
        self.taken.ended(index, budget);
    }

    #[inline]
    pub(super) fn append(&mut self, record: &Record<'_>) {
        self.log.append(record);
    }

    /// Writes a message; what follows is about it. Returns its number.
    fn message(&mut self, name: u64, view: &MessageView<'_>) -> u64 {
        let expires_at = self.clock.wall(view.expires_at);
        self.append(&Record::Message { name, message: MessageView { expires_at, ..*view } });
        self.current += 1;
        self.current
    }

    /// Makes the log be about a message; `written` is the number by which it was written down, or 0.
    pub(super) fn about(&mut self, message: &MessageView<'_>, written: &mut u64) {
        if *written == 0 || *written != self.current {
            *written = self.message(0, message);
        }
    }

    /// Makes the log be about a message that is kept; within a walk each is written once.
    fn named_message(&mut self, message: &Message) {
        let name = message.identity();
        if self.named.insert(name, message.clone()).is_none() {
            self.message(name, &message.view());
        } else {
            self.append(&Record::Again { name });
            self.current += 1;
        }
    }

    /// Notes that are about no message.
    fn plain_notes(&mut self, index: u32) {
        for at in 0..self.notes.list.len() {
            match self.notes.list[at] {
                Note::Sent { packet_id } => self.log.append(&Record::Sent { index, packet_id }),
                Note::Acked { packet_id } => self.log.append(&Record::Acked { index, packet_id }),
                Note::Released { packet_id } => self.log.append(&Record::Released { index, packet_id }),
                Note::Dropped { at } => {
                    self.log.append(&Record::Dropped { index, from: at as u32, count: 1 });
                }
                Note::Queued | Note::Flying { .. } => {
                    debug_assert!(false, "only a delivery adds a message");
                }
            }
        }
        self.notes.list.clear();
    }

    fn will(&mut self, index: u32, will: &Will) {
        let words = will.words(self.clock);
        self.append(&Record::Will { index, will: words });
    }

    /// A session as it is, from nothing.
    fn image(&mut self, index: u32, slot: &Slot, router: &Router) {
        let Slot { client_id, user, by_certificate, .. } = slot;
        self.append(&Record::Began {
            index,
            packet_id_next: slot.session.packet_id_next(),
            client_id,
            user: user.as_deref(),
            by_certificate: *by_certificate,
        });
        self.append(&Record::Connected { index, expiry_s: slot.expiry_s });
        if let Some(will) = &slot.will {
            self.will(index, will);
        }
        if slot.connection.is_none() {
            let (ends_at, will_at) = (self.clock.wall(slot.ends_at), self.clock.wall(slot.will_at()));
            self.append(&Record::Left { index, ends_at, will_at });
        }
        for key in slot.subscriptions.iter() {
            if let (Some(filter), Some(subscription)) = (router.filter_text(key), router.subscription(key)) {
                let options = options_to_byte(subscription.options);
                let identifier = subscription.identifier;
                self.append(&Record::Subscribed { index, filter, options, identifier });
            }
        }
        for packet_id in slot.session.received() {
            if self.unreceived.contains(&(index, packet_id)) {
                continue;
            }
            self.append(&Record::Received { index, packet_id });
        }
        slot.session.visit_kept(|place, kept| {
            let queued = kept.map(|kept| {
                let Restored { message, qos, retain, identifiers, share } = kept;
                self.named_message(message);
                queued((qos, retain), identifiers, share, router)
            });
            match (place, queued) {
                (Place::Flying { packet_id }, Some(queued)) => {
                    self.append(&Record::Flying { index, packet_id, queued });
                }
                (Place::Queued, Some(queued)) => self.append(&Record::Queued { index, queued }),
                (Place::Released { packet_id }, _) => self.append(&Record::Released { index, packet_id }),
                (Place::Flying { .. } | Place::Queued, None) => {
                    debug_assert!(false, "a message that waits is there");
                }
            }
        });
        self.image_behind(index, slot, router);
    }

    /// Writes what waits behind retained messages, as a part of an image.
    fn image_behind(&mut self, index: u32, slot: &Slot, router: &Router) {
        for kept in slot.cursors.iter().flat_map(|cursors| cursors.behind.written()) {
            self.named_message(kept.message);
            let queued = queued((kept.qos, kept.retain), kept.identifiers, kept.share, router);
            self.append(&Record::Behind { index, queued });
        }
    }

    /// Writes what is on its way to other shards.
    fn image_custody(&mut self) {
        let custody = std::mem::take(&mut self.custody);
        for (number, group, message) in custody.iter() {
            self.named_message(message);
            self.append(&Record::Given { number, group });
        }
        self.custody = custody;
        let taken = std::mem::take(&mut self.taken);
        taken.records().for_each(|record| self.append(&record));
        self.taken = taken;
    }

    /// Writes some of the images of a walk, if one is under way or due.
    pub fn advance_walk(&mut self, sessions: &Sessions, retained: &Retained) {
        let Some(mut walk) = self.walk else {
            if self.log.is_walk_due() {
                self.begin_walk();
            }
            return;
        };
        if self.log.waiting_bytes() > WALK_WAITING_MAX {
            return;
        }
        let begin = self.log.appended();
        for _ in 0..WALK_VISITS {
            if self.log.appended() - begin >= WALK_BYTES {
                break;
            }
            walk = match walk {
                Walk::Sessions(at) if at < sessions.arena.end() => {
                    if let Some((_, slot)) = sessions.arena.at(at)
                        && slot.is_kept
                    {
                        self.image(at, slot, &sessions.router);
                    }
                    Walk::Sessions(at + 1)
                }
                Walk::Sessions(_) => Walk::Retained(0),
                Walk::Retained(at) if at < retained.store.places() => {
                    if let Some(message) = retained.store.at(at)
                        && is_stored(message.topic())
                    {
                        self.named_message(message);
                        self.append(&Record::Retained);
                    }
                    Walk::Retained(at + 1)
                }
                Walk::Retained(_) => {
                    self.image_custody();
                    self.log.end_walk();
                    self.named = HashMap::default();
                    self.walk = None;
                    return;
                }
            };
        }
        self.walk = Some(walk);
    }

    /// The first walk of a run, and each one that is due.
    pub fn begin_walk(&mut self) {
        self.named.clear();
        self.log.begin_walk();
        self.walk = Some(Walk::Sessions(0));
    }

    /// Whether the walk under way can go on at once.
    pub fn may_walk_on(&self) -> bool {
        self.walk.is_some() && self.log.waiting_bytes() <= WALK_WAITING_MAX
    }
}

/// `$SYS` is never stored.
pub(super) fn is_stored(topic: &str) -> bool {
    !topic.starts_with("$SYS/")
}

/// Subscription Options as the standard has them in a byte.
pub(super) fn options_to_byte(options: Options) -> u8 {
    let handling = match options.retain_handling {
        RetainHandling::Send => 0,
        RetainHandling::SendIfNew => 1,
        RetainHandling::DontSend => 2,
    };
    options.qos as u8
        | u8::from(options.no_local) << 2
        | u8::from(options.retain_as_published) << 3
        | handling << 4
}

/// The same, back. What is no such byte is taken as the nearest one that is.
pub(super) fn options_of_byte(byte: u8) -> Options {
    Options {
        qos: match byte & 3 {
            0 => Qos::AtMostOnce,
            1 => Qos::AtLeastOnce,
            _ => Qos::ExactlyOnce,
        },
        no_local: byte & 4 != 0,
        retain_as_published: byte & 8 != 0,
        retain_handling: match byte >> 4 & 3 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            _ => RetainHandling::DontSend,
        },
    }
}

impl Env {
    /// Appends a record, where there is a log.
    #[inline]
    pub fn record(&mut self, record: &Record<'_>) {
        if let Some(keep) = &mut self.keep {
            keep.append(record);
        }
    }

    /// How much was written down so far; 0 without a data directory.
    #[inline]
    pub fn written_mark(&self) -> u64 {
        self.keep.as_ref().map_or(0, |keep| keep.log.appended())
    }
}

impl Sessions {
    /// The client is connected, and its session is kept from now on, or no longer, or goes on.
    pub(super) fn keep_connected(&mut self, session: Key, env: &mut Env) {
        let Some(slot) = self.arena.get_mut(session) else { return };
        let Some(keep) = &mut env.keep else { return };
        let was_kept = std::mem::replace(&mut slot.is_kept, slot.expiry_s > 0);
        let index = session.index;
        let kept = &env.counters[usize::from(env.id)].store_sessions;
        match (was_kept, slot.is_kept) {
            (false, true) => {
                kept.add(1);
                keep.image(index, slot, &self.router);
            }
            (true, true) => {
                keep.append(&Record::Connected { index, expiry_s: slot.expiry_s });
                if let Some(will) = &slot.will {
                    keep.will(index, will);
                }
            }
            (true, false) => {
                kept.sub(1);
                keep.ended(index, &mut env.budget);
            }
            (false, false) => {}
        }
    }

    /// Writes a record for each of these Packet Identifiers of the client.
    pub(super) fn keep_ids(
        &self,
        session: Key,
        packet_ids: impl Iterator<Item = u16>,
        record: impl Fn(u32, u16) -> Record<'static>,
        env: &mut Env,
    ) {
        if let Some(keep) = &mut env.keep
            && self.get(session).is_some_and(|slot| slot.is_kept)
        {
            packet_ids.for_each(|packet_id| keep.append(&record(session.index, packet_id)));
        }
    }

    /// The client left: the session waits for it, or ends with its connection after all.
    pub(super) fn keep_left(&mut self, session: Key, env: &mut Env) {
        let Some(slot) = self.arena.get_mut(session) else { return };
        let (Some(keep), true) = (&mut env.keep, slot.is_kept) else { return };
        let index = session.index;
        if slot.expiry_s == 0 {
            slot.is_kept = false;
            env.counters[usize::from(env.id)].store_sessions.sub(1);
            return keep.ended(index, &mut env.budget);
        }
        let (ends_at, will_at) = (keep.clock.wall(slot.ends_at), keep.clock.wall(slot.will_at()));
        keep.append(&Record::Left { index, ends_at, will_at });
    }

    /// Writes what a call on the session has noted, if it added no message.
    #[inline]
    pub(super) fn keep(&self, session: Key, env: &mut Env) {
        if let Some(keep) = &mut env.keep
            && !keep.notes.list.is_empty()
        {
            keep.plain_notes(session.index);
        }
    }

    /// Writes what a delivery of the message has noted. `written` is the number by which the message was written down, as
    /// long as no other was written after it.
    pub(super) fn keep_delivered(
        &self,
        session: Key,
        message: &MessageView<'_>,
        written: &mut u64,
        grant: &Grant<'_>,
        env: &mut Env,
    ) {
        let Some(keep) = &mut env.keep else { return };
        let added = match keep.notes.list.last() {
            Some(Note::Queued) => None,
            Some(Note::Flying { packet_id }) => Some(*packet_id),
            Some(Note::Sent { .. } | Note::Acked { .. } | Note::Released { .. } | Note::Dropped { .. }) => {
                return keep.plain_notes(session.index);
            }
            None => return,
        };
        keep.notes.list.pop();
        let index = session.index;
        keep.plain_notes(index);
        keep.about(message, written);
        let share = grant.share.subscription();
        let queued = queued((grant.qos, grant.retain), grant.identifiers, share, &self.router);
        match added {
            None => keep.append(&Record::Queued { index, queued }),
            Some(packet_id) => keep.append(&Record::Flying { index, packet_id, queued }),
        }
    }

    /// Writes that the message waits behind retained ones; see [`Sessions::keep_delivered`].
    #[cold]
    pub(super) fn keep_behind(
        &self,
        session: Key,
        message: &MessageView<'_>,
        written: &mut u64,
        grant: &Grant<'_>,
        env: &mut Env,
    ) {
        let Some(keep) = &mut env.keep else { return };
        keep.about(message, written);
        let queued = queued((grant.qos, grant.retain), grant.identifiers, None, &self.router);
        keep.append(&Record::Behind { index: session.index, queued });
    }
}

impl Retained {
    /// Writes what was kept or cleared for a topic of this shard.
    pub(super) fn keep_value(&self, view: &MessageView<'_>, env: &mut Env) {
        let Some(keep) = &mut env.keep else { return };
        if !is_stored(view.topic) {
            return;
        }
        if self.store.get(view.topic).is_some() {
            keep.message(0, view);
            keep.append(&Record::Retained);
        } else {
            keep.append(&Record::Cleared { topic: view.topic });
        }
    }
}
