//! What a session keeps, for who writes it down, and back into a session.

use super::kept::Kept;
use super::{Grant, Session};
use crate::memory::{Budget, Class, Key, Message};
use crate::wire::Qos;

use super::Retain;

/// Where a message waits, or what is left of it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// For PUBACK or PUBREC.
    Flying { packet_id: u16 },
    /// For PUBCOMP: the message is gone.
    Released { packet_id: u16 },
    /// For its first sending.
    Queued,
}

/// One message that a session keeps, and how its client gets it.
#[derive(Copy, Clone, Debug)]
pub struct Restored<'a> {
    pub message: &'a Message,
    pub qos: Qos,
    pub retain: Retain,
    pub identifiers: &'a [u32],
    /// The shared subscription that it is delivered for.
    pub share: Option<Key>,
}

impl<'a> Restored<'a> {
    fn of(kept: &'a Kept) -> Restored<'a> {
        Restored {
            message: &kept.message,
            qos: kept.qos,
            retain: kept.retain,
            identifiers: kept.identifiers(),
            share: kept.share(),
        }
    }
}

impl Session {
    /// Visits what it keeps: what is in flight in the order of first sending, what is released in the order of the
    /// PUBRECs, then the queue.
    pub fn visit_kept(&self, mut visit: impl FnMut(Place, Option<Restored<'_>>)) {
        let Some(egress) = &self.egress else { return };
        for packet_id in egress.flight.publishing() {
            let kept = egress.flight.get(packet_id).and_then(|slot| slot.kept.as_ref());
            visit(Place::Flying { packet_id }, kept.map(Restored::of));
        }
        for packet_id in egress.flight.releasing() {
            visit(Place::Released { packet_id }, None);
        }
        for kept in egress.queue.iter() {
            visit(Place::Queued, Some(Restored::of(kept)));
        }
    }

    /// Where the search for a free Packet Identifier goes on.
    pub fn packet_id_next(&self) -> u16 {
        self.packet_id_next
    }

    /// The same, as a former process left it.
    pub fn restore_packet_id_next(&mut self, packet_id: u16) {
        self.packet_id_next = packet_id;
    }

    /// Puts a message back where it waited in a former process; in the order of [`Session::visit_kept`]. It is charged in
    /// any case, since it was acknowledged.
    pub fn restore(&mut self, place: Place, kept: Option<(Message, &Grant<'_>)>, budget: &mut Budget) {
        let egress = self.egress.get_or_insert_default();
        let kept = kept.map(|(message, grant)| Kept::new(message, grant));
        budget.charge_always(Class::Queue, kept.as_ref().map_or(Kept::PLACE_COST, Kept::cost));
        match (place, kept) {
            (Place::Queued, Some(kept)) => egress.queue.push(kept),
            (Place::Flying { packet_id } | Place::Released { packet_id }, kept) => {
                egress.flight.restore(packet_id, kept);
            }
            (Place::Queued, None) => debug_assert!(false, "a message that waits is there"),
        }
    }
}
