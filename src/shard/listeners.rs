//! What is behind the listening sockets: what their connections speak, the limits that hold there, and how many came in.
//!
//! A connection keeps the number of its listener wherever it moves, and its place among those who came in there until it
//! is closed: [`Listening::enter`] when it is accepted, [`Listening::leave`] when its socket is closed. Places are counted
//! for all shards together, also where a listener has no limit of its own: it may get one while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

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
    /// Connections that came in here, on all shards.
    taken: Arc<AtomicU32>,
    /// Whether it is listened to.
    is_open: bool,
}

impl Listening {
    pub fn new(kind: ListenerKind, limits: ListenerLimits) -> Listening {
        Listening { limits: Some(limits), ..Listening::from(kind) }
    }

    /// The same listener with other settings, or open again: its clients stay counted.
    #[must_use]
    pub fn renewed(&self, kind: ListenerKind, limits: ListenerLimits) -> Listening {
        Listening { taken: Arc::clone(&self.taken), ..Listening::new(kind, limits) }
    }

    /// The same listener once nobody listens there any more: its clients stay.
    #[must_use]
    pub fn closed(&self) -> Listening {
        Listening { is_open: false, ..self.clone() }
    }

    /// Connections that came in here and are not closed.
    pub fn connections(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Takes a place for a new connection.
    pub(super) fn enter(&self) -> Entry {
        let max = self.limits.and_then(|limits| limits.connections_max).unwrap_or(u32::MAX);
        let more = |taken: u32| (taken < max).then(|| taken + 1);
        match self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Entry::Open,
            Err(_) => Entry::Full,
        }
    }

    /// A connection that came in here is closed, whatever shard it was on.
    pub(super) fn leave(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl From<ListenerKind> for Listening {
    fn from(kind: ListenerKind) -> Listening {
        Listening { kind, limits: None, taken: Arc::default(), is_open: true }
    }
}

/// Whether there was a place.
#[must_use]
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Entry {
    Open,
    Full,
}

/// The limits of each listener, out of what it was told and what holds for the whole broker.
pub(super) fn limits(listeners: &[Listening], all: &Limits) -> Box<[ListenerLimits]> {
    listeners.iter().map(|listener| listener.limits.unwrap_or(ListenerLimits::of(all))).collect()
}

impl Core {
    /// When certificates expire, by listener; a reload may have changed it.
    pub(super) fn expiries(&self) -> impl Iterator<Item = Option<Expiry>> {
        self.clients.listening.iter().map(|listening| match &listening.kind {
            ListenerKind::Secure(acceptor) if listening.is_open => Some(acceptor.expiry()),
            ListenerKind::Plain | ListenerKind::Secure(_) => None,
        })
    }

    /// Shows the first of them to whoever reads counters.
    pub(super) fn count_expiry(&self) {
        let first = self.expiries().flatten().map(|expiry| expiry.certificate_at_s).min();
        self.env.counters().certificate_expiry_s.set(first.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_for_all_shards_together() {
        let limits = ListenerLimits { connections_max: Some(2), ..ListenerLimits::of(&Limits::default()) };
        let here = Listening::new(ListenerKind::Plain, limits);
        let elsewhere = here.clone();
        assert_eq!([here.enter(), elsewhere.enter()], [Entry::Open; 2]);
        assert_eq!([here.enter(), elsewhere.enter()], [Entry::Full; 2]);
        elsewhere.leave();
        assert_eq!([here.enter(), here.enter()], [Entry::Open, Entry::Full]);
        let unlimited = here.renewed(ListenerKind::Plain, ListenerLimits::of(&Limits::default()));
        assert_eq!((unlimited.enter(), here.enter()), (Entry::Open, Entry::Full));
        assert_eq!(unlimited.connections(), 3, "who came in before the limit was taken back counts");
    }
}
