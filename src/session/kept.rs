//! One message that a session keeps, queued or in flight, and what it costs.

use super::flight::Slot;
use super::{Grant, Retain};
use crate::memory::{Key, Message, MessageView};
use crate::wire::Qos;

#[derive(Debug)]
pub(super) struct Kept {
    pub(super) message: Message,
    identifiers: Identifiers,
    pub(super) share: Option<Key>,
    pub(super) qos: Qos,
    pub(super) retain: Retain,
}

/// Most deliveries have one identifier or none.
#[derive(Debug)]
enum Identifiers {
    None,
    One(u32),
    Many(Box<[u32]>),
}

impl Kept {
    /// Bytes of the place that a delivery takes beside its message: tables are half empty at most, once grown.
    pub(super) const PLACE_COST: usize = 2 * size_of::<Option<Slot>>();

    pub(super) fn new(message: Message, grant: &Grant<'_>) -> Kept {
        let identifiers = match *grant.identifiers {
            [] => Identifiers::None,
            [one] => Identifiers::One(one),
            ref many => Identifiers::Many(many.into()),
        };
        Kept { message, identifiers, share: grant.share, qos: grant.qos, retain: grant.retain }
    }

    pub(super) fn identifiers(&self) -> &[u32] {
        match &self.identifiers {
            Identifiers::None => &[],
            Identifiers::One(one) => std::slice::from_ref(one),
            Identifiers::Many(many) => many,
        }
    }

    /// What [`Kept::cost`] will be. A message that many sessions share is charged in each: who lets go of it last
    /// cannot be known, and the bound must hold whoever it is.
    pub(super) fn cost_of(message: &MessageView<'_>, identifiers: &[u32]) -> usize {
        Kept::PLACE_COST + message.cost() + identifiers_cost(identifiers)
    }

    /// Bytes charged for it, its place included.
    pub(super) fn cost(&self) -> usize {
        Kept::PLACE_COST + self.message.cost() + identifiers_cost(self.identifiers())
    }
}

fn identifiers_cost(identifiers: &[u32]) -> usize {
    if identifiers.len() < 2 { 0 } else { size_of_val(identifiers) }
}
