//! Topic Aliases of one connection, both ways. The two tables know nothing of each other. // [U5-3.3.2-7]

use std::rc::Rc;

use crate::wire::{DecodeError, Reason};

/// Aliases that the broker assigns on a connection, whatever is allowed: the table is searched in a straight line.
pub(super) const OUTGOING_MAX: u8 = 64;

/// Lengths of topics that get an alias: a shorter one gains nothing, a longer one is not worth its memory.
const OUTGOING_LEN: std::ops::RangeInclusive<usize> = 4..=512;

/// The Topic Name of a client's PUBLISH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolvedTopic<'t> {
    /// The one in the packet.
    Given(&'t str),
    /// The one that its alias stands for.
    Alias(Rc<str>),
}

impl ResolvedTopic<'_> {
    pub fn as_str(&self) -> &str {
        match self {
            ResolvedTopic::Given(topic) => topic,
            ResolvedTopic::Alias(topic) => topic,
        }
    }
}

/// How an outgoing PUBLISH may name its topic.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Alias {
    None,
    /// By this alias alone.
    Known(u16),
    /// By itself, and this alias from then on.
    New(u16),
}

#[derive(Debug, Default)]
pub(super) struct Aliases {
    /// By alias less one.
    incoming: Vec<Option<Rc<str>>>,
    /// By alias less one; the first topics that were sent, for as long as the connection lasts.
    outgoing: Vec<Box<str>>,
    /// Of `outgoing`, in one piece so that a search touches few cache lines.
    fingerprints: Vec<u64>,
}

impl Aliases {
    /// See [`super::Link::resolve_topic`]; `alias` is not 0.
    pub(super) fn resolve<'t>(
        &mut self,
        topic: &'t str,
        alias: u16,
        alias_max: u16,
    ) -> Result<ResolvedTopic<'t>, DecodeError> {
        if alias > alias_max {
            return Err(DecodeError::Specific(
                Reason::TOPIC_ALIAS_INVALID,
                "Topic Alias is above the maximum",
            ));
        }
        let index = usize::from(alias) - 1;
        if topic.is_empty() {
            return match self.incoming.get(index) {
                Some(Some(topic)) => Ok(ResolvedTopic::Alias(topic.clone())),
                Some(None) | None => Err(DecodeError::ProtocolError("Topic Alias stands for no topic")),
            };
        }
        if index >= self.incoming.len() {
            self.incoming.resize(index + 1, None);
        }
        let mapped = &mut self.incoming[index];
        if mapped.as_deref() != Some(topic) {
            *mapped = Some(topic.into()); // [U5-3.3.2-5]
        }
        Ok(ResolvedTopic::Given(topic))
    }

    pub(super) fn alias_of(&self, topic: &str, alias_max: u8) -> Alias {
        if !OUTGOING_LEN.contains(&topic.len()) {
            return Alias::None;
        }
        let sought = fingerprint(topic);
        for (index, &fingerprint) in self.fingerprints.iter().enumerate() {
            if fingerprint == sought && *self.outgoing[index] == *topic {
                return Alias::Known(index as u16 + 1);
            }
        }
        let next = self.outgoing.len() as u16 + 1;
        if next <= u16::from(alias_max) { Alias::New(next) } else { Alias::None }
    }

    /// Gives `topic` the alias that [`Aliases::alias_of`] called new.
    pub(super) fn assign(&mut self, topic: &str) {
        debug_assert!(self.outgoing.len() < usize::from(OUTGOING_MAX));
        self.fingerprints.push(fingerprint(topic));
        self.outgoing.push(topic.into());
    }
}

/// The seeds need not be secret: topics that collide cost a comparison each, and there are few.
fn fingerprint(topic: &str) -> u64 {
    const STATE: ahash::RandomState = ahash::RandomState::with_seeds(1, 2, 3, 4);
    STATE.hash_one(topic)
}
