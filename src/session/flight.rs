//! Deliveries of QoS 1 and 2 that have begun, by Packet Identifier and in order.
//!
//! A delivery sits in the slot that the low bits of its Packet Identifier name, so a lookup is one index and one
//! comparison. A new delivery takes the next identifier whose slot is vacant: identifiers that are in use are passed
//! over, and so are a few that are not. The table is at most half full, so of every round through it at least half
//! the steps find a slot: constant time, amortised. It grows by doubling, which keeps apart what was apart.
//!
//! The slots are linked, by identifier, into two lists: what waits for PUBACK or PUBREC in the order of first sending,
//! and what waits for PUBCOMP in the order of the PUBRECs. What a new connection has to resend is one stretch of each.
//! // [MQTT-4.4.0-1] [U5-4.6-1]

use super::kept::Kept;
use crate::wire::Qos;

#[derive(Debug, Default)]
pub(super) struct Flight {
    /// Length 0 or a power of two.
    slots: Vec<Option<Slot>>,
    len: usize,
    lists: [List; 2],
}

/// What waits for PUBACK or PUBREC.
const PUBLISHING: usize = 0;
/// What waits for PUBCOMP.
const RELEASING: usize = 1;

/// One delivery.
#[derive(Debug)]
pub(super) struct Slot {
    /// The message until PUBREC; then PUBREL is owed and it is gone for good. // [MQTT-4.3.3-6]
    pub(super) kept: Option<Kept>,
    packet_id: u16,
    /// Identifier of the neighbour, or 0.
    previous: u16,
    next: u16,
    /// Whether it took from the send quota of this connection.
    pub(super) counted: bool,
    /// Whether this connection has still to resend it.
    due: bool,
}

/// Identifiers of slots, 0 for none.
#[derive(Copy, Clone, Debug, Default)]
struct List {
    head: u16,
    tail: u16,
    /// The first one that is still to be resent; what is due is one stretch from here.
    due: u16,
}

impl Slot {
    fn list(&self) -> usize {
        if self.kept.is_some() { PUBLISHING } else { RELEASING }
    }

    /// Only QoS 2 goes on without its message.
    #[inline]
    pub(super) fn qos(&self) -> Qos {
        self.kept.as_ref().map_or(Qos::ExactlyOnce, |kept| kept.qos)
    }

    /// Bytes charged for it.
    pub(super) fn cost(&self) -> usize {
        self.kept.as_ref().map_or(Kept::PLACE_COST, Kept::cost)
    }
}

impl Flight {
    const SLOTS_MIN: usize = 8;

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Places of the table.
    pub(super) fn slots_len(&self) -> usize {
        self.slots.len()
    }

    #[inline]
    pub(super) fn get(&self, packet_id: u16) -> Option<&Slot> {
        let slot = self.slots.get(self.index(packet_id))?.as_ref()?;
        (slot.packet_id == packet_id).then_some(slot)
    }

    #[inline]
    fn get_mut(&mut self, packet_id: u16) -> Option<&mut Slot> {
        let index = self.index(packet_id);
        let slot = self.slots.get_mut(index)?.as_mut()?;
        (slot.packet_id == packet_id).then_some(slot)
    }

    /// Moves `packet_id` on to an identifier that [`Flight::insert`] has a slot for. There are fewer than
    /// `IN_FLIGHT_MAX` deliveries. // [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1]
    pub(super) fn find_vacant(&mut self, packet_id: &mut u16) {
        debug_assert!(self.len < super::IN_FLIGHT_MAX);
        if (self.len + 1) * 2 > self.slots.len() {
            self.grow();
        }
        while *packet_id == 0 || self.slots[self.index(*packet_id)].is_some() {
            *packet_id = packet_id.wrapping_add(1);
        }
    }

    /// Begins a delivery under an identifier of [`Flight::find_vacant`].
    #[inline]
    pub(super) fn insert(&mut self, packet_id: u16, kept: Kept) {
        debug_assert!(!self.is_due(), "what is resent goes first");
        let index = self.index(packet_id);
        debug_assert!(packet_id != 0 && self.slots[index].is_none());
        let previous = self.link_last(PUBLISHING, packet_id);
        self.slots[index] =
            Some(Slot { kept: Some(kept), packet_id, previous, next: 0, counted: true, due: false });
        self.len += 1;
    }

    /// The same for one that is still to be sent; nothing that was sent before it is due.
    pub(super) fn insert_due(&mut self, packet_id: u16, kept: Kept) {
        let index = self.index(packet_id);
        debug_assert!(packet_id != 0 && self.slots[index].is_none());
        let previous = self.link_last(PUBLISHING, packet_id);
        self.slots[index] =
            Some(Slot { kept: Some(kept), packet_id, previous, next: 0, counted: false, due: true });
        self.len += 1;
        if self.lists[PUBLISHING].due == 0 {
            self.lists[PUBLISHING].due = packet_id;
        }
    }

    /// A delivery that a former process began: its message, or `None` if PUBREL is owed. Nothing is due yet.
    pub(super) fn restore(&mut self, packet_id: u16, kept: Option<Kept>) {
        while (self.len + 1) * 2 > self.slots.len() || self.slots[self.index(packet_id)].is_some() {
            // With a slot for each identifier there is one that is vacant.
            self.grow();
        }
        let list = if kept.is_some() { PUBLISHING } else { RELEASING };
        let previous = self.link_last(list, packet_id);
        let index = self.index(packet_id);
        self.slots[index] = Some(Slot { kept, packet_id, previous, next: 0, counted: false, due: false });
        self.len += 1;
    }

    /// Identifiers of what waits for PUBCOMP, in order.
    pub(super) fn releasing(&self) -> impl Iterator<Item = u16> + '_ {
        self.ids_of(RELEASING)
    }

    /// Ends a delivery.
    pub(super) fn remove(&mut self, packet_id: u16) -> Option<Slot> {
        self.remove_if(packet_id, |_| true)
    }

    /// Ends a delivery if it is `the_one`.
    #[inline]
    pub(super) fn remove_if(&mut self, packet_id: u16, the_one: impl FnOnce(&Slot) -> bool) -> Option<Slot> {
        let index = self.index(packet_id);
        let slot = self.slots.get_mut(index)?.take_if(|slot| slot.packet_id == packet_id && the_one(slot))?;
        self.len -= 1;
        self.close_gap(slot.list(), packet_id, (slot.previous, slot.next));
        Some(slot)
    }

    /// PUBREC came for a delivery at QoS 2: from now on PUBREL is owed, and now it is sent as an answer. Returns the
    /// message, if no PUBREC came before; `None` if there is no such delivery.
    pub(super) fn release(&mut self, packet_id: u16) -> Option<Option<Kept>> {
        let slot = self.get_mut(packet_id).filter(|slot| slot.qos() == Qos::ExactlyOnce)?;
        let Some(kept) = slot.kept.take() else { return Some(None) };
        let (previous, next) = (slot.previous, slot.next);
        (slot.due, slot.next) = (false, 0);
        self.close_gap(PUBLISHING, packet_id, (previous, next));
        let previous = self.link_last(RELEASING, packet_id);
        if let Some(slot) = self.get_mut(packet_id) {
            slot.previous = previous;
        }
        Some(Some(kept))
    }

    /// The PUBLISH is not sent again, though its Packet Identifier may be known to the client: PUBREL is owed as if PUBREC
    /// had come, and is still to be sent. To be called once no other PUBREL is. Returns the message.
    pub(super) fn pass_over(&mut self, packet_id: u16) -> Option<Kept> {
        debug_assert!(self.pubrel_due().is_none());
        let kept = self.release(packet_id)??;
        self.get_mut(packet_id)?.due = true;
        self.lists[RELEASING].due = packet_id;
        Some(kept)
    }

    /// Whether anything is still to be resent.
    pub(super) fn is_due(&self) -> bool {
        self.lists.iter().any(|list| list.due != 0)
    }

    /// The first PUBREL that is still to be resent.
    pub(super) fn pubrel_due(&self) -> Option<u16> {
        Some(self.lists[RELEASING].due).filter(|&packet_id| packet_id != 0)
    }

    /// The first PUBLISH that is still to be resent, and its message.
    pub(super) fn publish_due(&self) -> Option<(u16, &Kept)> {
        let packet_id = self.lists[PUBLISHING].due;
        Some((packet_id, self.get(packet_id)?.kept.as_ref()?))
    }

    /// What was due was written again. A PUBLISH takes quota, a PUBREL does not. // [MQTT-4.9.0-2]
    pub(super) fn resent(&mut self, packet_id: u16) {
        let next_due = self.next_due(packet_id);
        let Some(slot) = self.get_mut(packet_id) else { return };
        let list = slot.list();
        slot.due = false;
        if let Some(kept) = &mut slot.kept {
            kept.is_unsent = false;
        }
        slot.counted = list == PUBLISHING;
        self.lists[list].due = next_due;
    }

    /// Everything is to be resent, and nothing has taken quota yet. // [U5-4.9-2]
    pub(super) fn forget_connection(&mut self) {
        for slot in self.slots.iter_mut().flatten() {
            slot.counted = false;
            slot.due = true;
        }
        for list in &mut self.lists {
            list.due = list.head;
        }
    }

    /// Identifiers of what waits for PUBACK or PUBREC, in order.
    pub(super) fn publishing(&self) -> impl Iterator<Item = u16> + '_ {
        self.ids_of(PUBLISHING)
    }

    fn ids_of(&self, list: usize) -> impl Iterator<Item = u16> + '_ {
        let first = Some(self.lists[list].head).filter(|&packet_id| packet_id != 0);
        std::iter::successors(first, |&packet_id| {
            self.get(packet_id).map(|slot| slot.next).filter(|&packet_id| packet_id != 0)
        })
    }

    /// All, in no order that means anything.
    pub(super) fn into_slots(self) -> impl Iterator<Item = Slot> {
        self.slots.into_iter().flatten()
    }

    fn index(&self, packet_id: u16) -> usize {
        usize::from(packet_id) & self.slots.len().wrapping_sub(1)
    }

    fn grow(&mut self) {
        let len = (self.slots.len() * 2).max(Self::SLOTS_MIN);
        let old = std::mem::take(&mut self.slots);
        self.slots.resize_with(len, || None);
        for slot in old.into_iter().flatten() {
            let index = self.index(slot.packet_id);
            self.slots[index] = Some(slot);
        }
    }

    /// What is due after `packet_id` in its list, or 0.
    fn next_due(&self, packet_id: u16) -> u16 {
        self.get(packet_id).map_or(0, |slot| self.if_due(slot.next))
    }

    /// `packet_id`, or 0 if it is not due.
    fn if_due(&self, packet_id: u16) -> u16 {
        self.get(packet_id).filter(|slot| slot.due).map_or(0, |slot| slot.packet_id)
    }

    /// Makes `packet_id` what comes last in the list, and returns what came last before it.
    #[inline]
    fn link_last(&mut self, list: usize, packet_id: u16) -> u16 {
        let previous = std::mem::replace(&mut self.lists[list].tail, packet_id);
        match self.get_mut(previous) {
            Some(last) => last.next = packet_id,
            None => self.lists[list].head = packet_id,
        }
        previous
    }

    /// Links the neighbours of what leaves `list` to each other.
    #[inline]
    fn close_gap(&mut self, list: usize, packet_id: u16, (previous, next): (u16, u16)) {
        if self.lists[list].due == packet_id {
            self.lists[list].due = self.if_due(next);
        }
        match self.get_mut(previous) {
            Some(neighbour) => neighbour.next = next,
            None => self.lists[list].head = next,
        }
        match self.get_mut(next) {
            Some(neighbour) => neighbour.previous = previous,
            None => self.lists[list].tail = previous,
        }
    }
}

// Twice this is what a message in flight takes beside itself.
const _: () = assert!(size_of::<Option<Slot>>() == 40);
