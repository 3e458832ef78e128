//! One message that a session keeps, queued or in flight, and what it costs.

use super::flight::Slot;
use super::{Grant, Retain};
use crate::memory::{Key, Message, MessageView};
use crate::wire::Qos;

#[derive(Debug)]
pub(super) struct Kept {
    pub(super) message: Message,
    /// Subscription Identifiers, if there are several: a pointer of one word, since most deliveries have one or none.
    many: Option<Box<Box<[u32]>>>,
    /// Subscription Identifier, if there is one; 0 is none.
    one: u32,
    /// [`Key::NONE`] without one.
    share: Key,
    pub(super) qos: Qos,
    pub(super) retain: Retain,
    /// It has a Packet Identifier, and was not sent yet: the disk does not have that identifier.
    pub(super) is_unsent: bool,
}

const _: () = assert!(size_of::<Kept>() == 32);

impl Kept {
    /// Bytes of the place that a delivery takes beside its message: tables are half empty at most, once grown.
    pub(super) const PLACE_COST: usize = 2 * size_of::<Option<Slot>>();

    #[inline]
    pub(super) fn new(message: Message, grant: &Grant<'_>) -> Kept {
        let (one, many) = match *grant.identifiers {
            [] => (0, None),
            [one] => (one, None),
            ref many => (0, Some(Box::new(many.into()))),
        };
        let share = grant.share.subscription().unwrap_or(Key::NONE);
        Kept { message, many, one, share, qos: grant.qos, retain: grant.retain, is_unsent: false }
    }

    pub(super) fn identifiers(&self) -> &[u32] {
        match (&self.many, self.one) {
            (Some(many), _) => many,
            (None, 0) => &[],
            (None, _) => std::slice::from_ref(&self.one),
        }
    }

    /// The shared subscription that it is delivered for.
    pub(super) fn share(&self) -> Option<Key> {
        (self.share != Key::NONE).then_some(self.share)
    }

    /// What [`Kept::cost`] will be. A message that many sessions share is charged in each: who lets go of it last
    /// cannot be known, and the bound must hold whoever it is.
    pub(super) fn cost_of(message: &MessageView<'_>, identifiers: &[u32]) -> usize {
        Kept::PLACE_COST + message.cost() + identifiers_cost(identifiers)
    }

    /// Bytes charged for it, its place included.
    #[inline]
    pub(super) fn cost(&self) -> usize {
        Kept::PLACE_COST + self.message.cost() + identifiers_cost(self.identifiers())
    }
}

fn identifiers_cost(identifiers: &[u32]) -> usize {
    if identifiers.len() < 2 { 0 } else { size_of_val(identifiers) }
}
