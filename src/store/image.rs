//! A session as it is on disk: what a new start makes a session of.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::record::{Queued, Will};
use super::{WallClock, WallMillis};
use crate::clock::{Millis, NEVER};
use crate::memory::Message;
use crate::wire::Qos;

/// One message for a session, and how it gets it.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub message: Message,
    pub qos: Qos,
    /// The RETAIN flag, as the session module numbers it.
    pub retain: u8,
    /// The filter of the shared subscription that it is for; empty without one.
    pub share: Box<str>,
    pub identifiers: Box<[u32]>,
}

impl Delivery {
    pub(super) fn new(message: &Message, queued: &Queued<'_>) -> Delivery {
        Delivery {
            message: message.clone(),
            qos: queued.qos,
            retain: queued.retain,
            share: queued.share.into(),
            identifiers: queued.identifiers.to_vec().into(),
        }
    }
}

/// One subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// With `$share/name/` in front if it is shared.
    pub filter: Box<str>,
    pub options: u8,
    pub identifier: u32,
}

/// The will of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredWill {
    pub topic: Box<str>,
    pub properties: Box<[u8]>,
    pub payload: Box<[u8]>,
    pub qos: Qos,
    pub retain: bool,
    pub delay_s: u32,
    pub expiry_s: Option<u32>,
    /// [`NEVER`] while the client is connected.
    pub due_at: WallMillis,
}

impl From<&Will<'_>> for StoredWill {
    fn from(will: &Will<'_>) -> StoredWill {
        StoredWill {
            topic: will.topic.into(),
            properties: will.properties.into(),
            payload: will.payload.into(),
            qos: will.qos,
            retain: will.retain,
            delay_s: will.delay_s,
            expiry_s: will.expiry_s,
            due_at: will.due_at,
        }
    }
}

/// Filters up to which they are looked through; with more they have an index.
const UNINDEXED_MAX: usize = 16;

/// Subscriptions by filter, in no order that means anything.
#[derive(Clone, Debug, Default)]
pub(super) struct Filters {
    list: Vec<Filter>,
    index: HashMap<Box<str>, usize, ahash::RandomState>,
}

impl Filters {
    fn find(&self, filter: &str) -> Option<usize> {
        if self.list.len() > UNINDEXED_MAX {
            return self.index.get(filter).copied();
        }
        self.list.iter().position(|one| &*one.filter == filter)
    }

    fn insert(&mut self, new: Filter) {
        if let Some(at) = self.find(&new.filter) {
            self.list[at] = new;
            return;
        }
        self.list.push(new);
        if self.list.len() > UNINDEXED_MAX {
            let unindexed = self.index.len();
            let missing = self.list[unindexed..].iter().enumerate();
            self.index.extend(missing.map(|(at, one)| (one.filter.clone(), unindexed + at)));
        }
    }

    fn remove(&mut self, filter: &str) {
        let Some(at) = self.find(filter) else { return };
        self.list.swap_remove(at);
        self.index.remove(filter);
        match self.list.get(at) {
            _ if self.list.len() <= UNINDEXED_MAX => self.index.clear(),
            Some(moved) => {
                self.index.insert(moved.filter.clone(), at);
            }
            None => {}
        }
    }
}

/// Everything that outlives a connection.
#[derive(Clone, Debug)]
pub struct SessionImage {
    pub client_id: Box<str>,
    pub user: Option<Box<str>>,
    pub by_certificate: bool,
    pub expiry_s: u32,
    /// When it ends; `None` if its client was connected.
    pub ends_at: Option<WallMillis>,
    pub will: Option<Box<StoredWill>>,
    pub(super) filters: Filters,
    /// What waits for its first sending.
    pub queue: VecDeque<Delivery>,
    /// What waits behind retained messages.
    pub behind: VecDeque<Delivery>,
    /// What waits for PUBACK or PUBREC, in the order of first sending.
    pub flying: VecDeque<(u16, Delivery)>,
    /// What waits for PUBCOMP, in the order of the PUBRECs.
    pub released: VecDeque<u16>,
    /// QoS 2 messages of the client that wait for its PUBREL.
    pub received: BTreeSet<u16>,
    /// QoS 2 messages that it got and whose publishers may send them again: publisher and its Packet Identifier.
    pub taken: BTreeSet<(u64, u16)>,
    /// Where the search for a free Packet Identifier goes on.
    pub packet_id_next: u16,
}

impl SessionImage {
    pub(super) fn new(client_id: &str, user: Option<&str>, by_certificate: bool) -> SessionImage {
        SessionImage {
            client_id: client_id.into(),
            user: user.map(Into::into),
            by_certificate,
            expiry_s: 0,
            ends_at: None,
            will: None,
            filters: Filters::default(),
            queue: VecDeque::new(),
            behind: VecDeque::new(),
            flying: VecDeque::new(),
            released: VecDeque::new(),
            received: BTreeSet::new(),
            taken: BTreeSet::new(),
            packet_id_next: 0,
        }
    }

    pub fn filters(&self) -> &[Filter] {
        &self.filters.list
    }

    /// Whether it has ended at `wall`. One whose client was connected at the end has its whole
    /// expiry before it.
    pub fn has_ended(&self, wall: WallMillis) -> bool {
        self.ends_at.is_some_and(|at| at <= wall)
    }

    /// When it ends, if its client does not come back. `clock` is that of the new start, at `now`.
    pub fn ends_at(&self, clock: WallClock, now: Millis) -> Millis {
        match self.ends_at {
            Some(at) => clock.millis(at),
            None if self.expiry_s == u32::MAX => NEVER,
            None => now.saturating_add(u64::from(self.expiry_s) * 1000),
        }
    }

    pub(super) fn subscribe(&mut self, filter: &str, options: u8, identifier: u32) {
        self.filters.insert(Filter { filter: filter.into(), options, identifier });
    }

    pub(super) fn unsubscribe(&mut self, filter: &str) {
        self.filters.remove(filter);
    }

    pub(super) fn fly(&mut self, packet_id: u16, delivery: Delivery) {
        self.flying.push_back((packet_id, delivery));
        self.packet_id_next = packet_id.wrapping_add(1);
    }

    /// False if the queue is empty.
    #[must_use]
    pub(super) fn send(&mut self, packet_id: u16) -> bool {
        match self.queue.pop_front() {
            Some(delivery) => {
                self.fly(packet_id, delivery);
                true
            }
            None => false,
        }
    }

    /// False if no delivery has this Packet Identifier.
    #[must_use]
    pub(super) fn acknowledge(&mut self, packet_id: u16) -> bool {
        // Clients acknowledge in order, mostly.
        if let Some(at) = self.flying.iter().position(|(id, _)| *id == packet_id) {
            self.flying.remove(at);
            return true;
        }
        match self.released.iter().position(|id| *id == packet_id) {
            Some(at) => self.released.remove(at).is_some(),
            None => false,
        }
    }

    pub(super) fn release(&mut self, packet_id: u16) {
        if let Some(at) = self.flying.iter().position(|(id, _)| *id == packet_id) {
            self.flying.remove(at);
        }
        self.released.push_back(packet_id);
    }

    /// False if the queue has no such places.
    #[must_use]
    pub(super) fn drop_queued(&mut self, from: u32, count: u32) -> bool {
        let (from, count) = (from as usize, count as usize);
        match from.checked_add(count) {
            Some(to) if to <= self.queue.len() => {
                self.queue.drain(from..to);
                true
            }
            Some(_) | None => false,
        }
    }
}
