//! What is behind the listening sockets: what their connections speak, the limits that hold there, and how many came in.
//!
//! A connection keeps the number of its listener wherever it moves, and its place among those who came in there until it
//! is closed. Places are counted for all shards together, and only where a listener has a limit of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::io::ListenerId;
use crate::limits::{Limits, ListenerLimits};
use crate::transport::{Acceptor, Expiry};

use super::Core;

/// What the connections of a listening socket speak.
#[derive(Clone, Debug)]
pub enum ListenerKind {
    /// MQTT.
    Plain,
    /// MQTT through transports that this makes; it is shared by all shards.
    Secure(Arc<dyn Acceptor>),
}

/// One listening socket, as all shards know it.
#[derive(Clone, Debug)]
pub struct Listening {
    pub kind: ListenerKind,
    /// `None` where those of the whole broker hold.
    limits: Option<ListenerLimits>,
    room: Option<Room>,
}

impl Listening {
    pub fn new(kind: ListenerKind, limits: ListenerLimits) -> Listening {
        Listening { kind, room: limits.connections_max.map(Room::new), limits: Some(limits) }
    }

    /// Takes a place for a new connection.
    pub(super) fn enter(&self) -> Entry {
        match &self.room {
            None => Entry::Free,
            Some(room) => room.enter(),
        }
    }
}

impl From<ListenerKind> for Listening {
    fn from(kind: ListenerKind) -> Listening {
        Listening { kind, limits: None, room: None }
    }
}

/// Whether there was a place.
#[must_use]
#[derive(Debug)]
pub(super) enum Entry {
    /// Nobody counts here.
    Free,
    Taken(Place),
    Full,
}

/// How many connections came in at one listener, on all shards.
#[derive(Clone, Debug)]
struct Room {
    max: u32,
    taken: Arc<AtomicU32>,
}

impl Room {
    fn new(max: u32) -> Room {
        Room { max, taken: Arc::default() }
    }

    fn enter(&self) -> Entry {
        let more = |taken: u32| (taken < self.max).then(|| taken + 1);
        match self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Entry::Taken(Place { taken: Arc::clone(&self.taken) }),
            Err(_) => Entry::Full,
        }
    }
}

/// A connection's place among those of its listener; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    taken: Arc<AtomicU32>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The limits of each listener, out of what it was told and what holds for the whole broker.
pub(super) fn limits(listeners: &[Listening], all: &Limits) -> Box<[ListenerLimits]> {
    listeners.iter().map(|listener| listener.limits.unwrap_or(ListenerLimits::of(all))).collect()
}

impl Core {
    /// What holds for connections that came in here.
    pub(super) fn limits_at(&self, listener: ListenerId) -> ListenerLimits {
        let own = self.listener_limits.get(usize::from(listener.0)).copied();
        own.unwrap_or_else(|| ListenerLimits::of(&self.limits))
    }

    /// When certificates expire, by listener; a reload may have changed it.
    pub(super) fn expiries(&self) -> impl Iterator<Item = Option<Expiry>> {
        self.listening.iter().map(|listening| match &listening.kind {
            ListenerKind::Plain => None,
            ListenerKind::Secure(acceptor) => Some(acceptor.expiry()),
        })
    }

    /// Shows the first of them to whoever reads counters.
    pub(super) fn count_expiry(&self) {
        let first = self.expiries().flatten().map(|expiry| expiry.certificate_at_s).min();
        self.counters().certificate_expiry_s.set(first.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back_from_wherever_the_connection_went() {
        let limits = ListenerLimits { connections_max: Some(2), ..ListenerLimits::of(&Limits::default()) };
        let here = Listening::new(ListenerKind::Plain, limits);
        let elsewhere = here.clone();
        let first = here.enter();
        let second = elsewhere.enter();
        assert!(matches!((&first, &second), (Entry::Taken(_), Entry::Taken(_))));
        assert!(matches!(here.enter(), Entry::Full) && matches!(elsewhere.enter(), Entry::Full));
        std::thread::spawn(move || drop(second)).join().unwrap();
        let third = here.enter();
        assert!(matches!(third, Entry::Taken(_)) && matches!(here.enter(), Entry::Full));
        assert!(matches!(Listening::from(ListenerKind::Plain).enter(), Entry::Free));
    }
}
