//! What is delivered to a client: sent at once, queued, resent, acknowledged.

use super::fanout::Fanout;
use super::flight::{Flight, Slot};
use super::kept::Kept;
use super::link::in_flight_max;
use super::packet::{Fit, Packet, Sending, fit};
use super::queue::Queue;
use super::{
    Acked, Cx, Delivered, DropReason, Grant, Link, More, Note, Orphan, PubrecReply, Pumped, Session, Share,
    Wire,
};
use crate::clock::{Millis, NEVER};
use crate::limits::{Limits, QueueFull};
use crate::memory::{Budget, Class, Key, SpareMessages};
use crate::wire::{AckKind, Qos, Reason, ack_packet_size, encode_ack};

/// Messages of QoS 1 and 2 that a session holds for its client; never empty between calls.
#[derive(Debug, Default)]
pub(super) struct Egress {
    pub(super) flight: Flight,
    pub(super) queue: Queue,
    /// What is due is not sent before this commit is on disk.
    hold: u64,
}

/// Memory of sessions that have nothing to hold any more, for those that begin to: a client that acknowledges everything
/// before its next message comes would need new memory for each. Belongs to a shard; bounded in number and size.
#[derive(Debug, Default)]
pub struct Spares {
    #[allow(clippy::vec_box)]
    egress: Vec<Box<Egress>>,
    pub(super) messages: SpareMessages,
}

impl Spares {
    /// With [`Spares::SLOTS_MAX`] they take 1.5 MiB at most.
    const LEN_MAX: usize = 256;
    /// Places of a table that is kept.
    const SLOTS_MAX: usize = 64;

    pub(super) fn take(&mut self) -> Box<Egress> {
        self.egress.pop().unwrap_or_default()
    }

    fn keep(&mut self, egress: Box<Egress>) {
        debug_assert!(egress.flight.is_empty() && egress.queue.is_empty());
        if self.egress.len() < Self::LEN_MAX && egress.flight.slots_len() <= Self::SLOTS_MAX {
            self.egress.push(egress);
        }
    }
}

// Beside the places there is the box itself, and the queue's spare memory.
const _: () = assert!(Spares::LEN_MAX * (Spares::SLOTS_MAX * size_of::<Option<Slot>>() + 2048) <= 3 << 19);

impl Session {
    /// A new session without any state.
    pub fn new() -> Session {
        Session::default()
    }

    /// Delivers one message. Without a wire, QoS 0 is dropped and QoS 1 and 2 are queued.
    /// QoS 0 is not kept for a client that is away. // 3.1.1: [U311-3.1.2-1]
    pub fn deliver(
        &mut self,
        wire: Option<Wire<'_>>,
        fanout: &mut Fanout<'_>,
        grant: &Grant<'_>,
        cx: &mut Cx<'_>,
    ) -> Delivered {
        if fanout.message.is_expired(cx.now) {
            return Delivered::Dropped(DropReason::Expired); // [MQTT-3.3.2-5]
        }
        match (grant.qos, wire) {
            (Qos::AtMostOnce, None) => grant.share.refuse(DropReason::Offline),
            (Qos::AtMostOnce, Some(mut wire)) => deliver_at_most_once(&mut wire, fanout, grant, cx),
            (Qos::AtLeastOnce | Qos::ExactlyOnce, wire) => {
                let egress = self.egress.get_or_insert_with(|| cx.spares.take());
                let delivered = egress.deliver(wire, fanout, grant, &mut self.packet_id_next, cx);
                self.trim(cx);
                delivered
            }
        }
    }

    /// PUBACK came; it ends the delivery whatever its code. // [MQTT-4.3.2-3] [MQTT-4.4.0-2] [MQTT-4.8.2-6]
    pub fn handle_puback(&mut self, link: &mut Link, packet_id: u16, cx: &mut Cx<'_>) -> Acked {
        self.handle_pubacks(link, std::iter::once(packet_id), cx)
    }

    /// The same for several; whether any of them ended a delivery.
    #[inline(never)] // Else what everybody goes through has to save registers for it.
    pub fn handle_pubacks(
        &mut self,
        link: &mut Link,
        packet_ids: impl Iterator<Item = u16>,
        cx: &mut Cx<'_>,
    ) -> Acked {
        self.complete(link, packet_ids, cx, |slot| slot.qos() == Qos::AtLeastOnce)
    }

    /// PUBREC came; a 3.x client's means 0x00. // [MQTT-4.3.3-3] [MQTT-4.3.3-4] [MQTT-4.4.0-2] [U5-4.3-2] [U5-4.3-5]
    pub fn handle_pubrec(
        &mut self,
        link: &mut Link,
        packet_id: u16,
        reason: Reason,
        cx: &mut Cx<'_>,
    ) -> PubrecReply {
        if reason.is_error() {
            let one = std::iter::once(packet_id);
            return match self.complete(link, one, cx, |slot| slot.qos() == Qos::ExactlyOnce) {
                Acked::Completed | Acked::Ignored => PubrecReply::None,
            };
        }
        let Some(egress) = &mut self.egress else { return PubrecReply::PubRelNotFound };
        let Some(released) = egress.flight.release(packet_id) else { return PubrecReply::PubRelNotFound };
        if let Some(kept) = released {
            cx.note(Note::Released { packet_id });
            cx.budget.release(Class::Queue, kept.cost() - Kept::PLACE_COST);
            cx.spares.messages.keep(kept.message);
        }
        PubrecReply::PubRel
    }

    /// PUBCOMP came; it ends the delivery whatever its code. // [MQTT-4.3.3-5]
    pub fn handle_pubcomp(&mut self, link: &mut Link, packet_id: u16, cx: &mut Cx<'_>) -> Acked {
        self.handle_pubcomps(link, std::iter::once(packet_id), cx)
    }

    /// The same for several; whether any of them ended a delivery.
    #[inline(never)]
    pub fn handle_pubcomps(
        &mut self,
        link: &mut Link,
        packet_ids: impl Iterator<Item = u16>,
        cx: &mut Cx<'_>,
    ) -> Acked {
        self.complete(link, packet_ids, cx, |slot| slot.kept.is_none())
    }

    /// Sends what can be sent now: what a resumed session has to resend, then the queue.
    ///
    /// PUBREL goes before PUBLISH, since no lack of quota may hold it back. // [MQTT-3.3.4-10]
    pub fn pump(&mut self, mut wire: Wire<'_>, cx: &mut Cx<'_>) -> Pumped {
        let mut pumped = Pumped { published: 0, payload_bytes: 0, released: 0, more: More::Nothing };
        if let Some(egress) = &mut self.egress {
            pumped.more = egress.resend_pubrels(&mut wire, &mut pumped.released, cx);
            if pumped.more == More::Nothing {
                pumped.more = egress.resend_publishes(&mut wire, &mut pumped, cx);
            }
            if pumped.more == More::Nothing {
                pumped.more = egress.send_queue(&mut wire, &mut self.packet_id_next, &mut pumped, cx);
            }
            self.trim(cx);
        }
        pumped
    }

    /// Whether [`Session::pump`] could find anything to send.
    pub fn is_waiting(&self) -> bool {
        self.egress.as_ref().is_some_and(|egress| !egress.queue.is_empty() || egress.flight.is_due())
    }

    /// The connection is gone, and what held for it alone.
    pub fn connection_lost(&mut self) {
        self.received.forget_connection();
        if let Some(egress) = &mut self.egress {
            egress.flight.forget_connection();
        }
    }

    /// A new connection continues the session: with the next [`Session::pump`] everything in flight is resent.
    /// // [MQTT-4.4.0-1]
    pub fn resume(&mut self) {
        self.connection_lost();
    }

    /// Takes the messages of shared subscriptions that were never sent; call it when the connection is lost. Those of a
    /// subscription that `exists` does not know have no group to go to: they stay, and are the session's like any other.
    pub fn take_unsent_shared(
        &mut self,
        cx: &mut Cx<'_>,
        exists: impl Fn(Key) -> bool,
        out: &mut Vec<Orphan>,
    ) {
        let Some(egress) = &mut self.egress else { return };
        egress.queue.take_if(cx, |kept| kept.share().is_some_and(&exists), |kept| out.extend(orphan(kept)));
        self.trim(cx);
    }

    /// Whether messages of shared subscriptions wait for their first sending.
    pub fn has_unsent_shared(&self) -> bool {
        self.egress.as_ref().is_some_and(|egress| egress.queue.iter().any(|kept| kept.share().is_some()))
    }

    /// Takes the messages of shared subscriptions that were sent at QoS 1 and not acknowledged; call it when the session
    /// ends. Those of QoS 2 stay, and end with it. // [U5-4.8.2-6] [MQTT-4.8.2-4] [MQTT-4.8.2-5]
    pub fn take_unacked_shared(&mut self, cx: &mut Cx<'_>, out: &mut Vec<Orphan>) {
        let Some(egress) = &mut self.egress else { return };
        let moves = |slot: &Slot| {
            slot.qos() == Qos::AtLeastOnce && slot.kept.as_ref().is_some_and(|kept| kept.share().is_some())
        };
        let flight = &egress.flight;
        let leaving: Vec<u16> =
            flight.publishing().filter(|&packet_id| flight.get(packet_id).is_some_and(moves)).collect();
        for packet_id in leaving {
            if let Some(slot) = egress.flight.remove(packet_id) {
                cx.note(Note::Acked { packet_id });
                cx.budget.release(Class::Queue, slot.cost());
                out.extend(slot.kept.and_then(orphan));
            }
        }
        self.trim(cx);
    }

    /// Deletes messages of the chosen topics that wait for their first sending, or at QoS 1 for being resent; returns
    /// how many. A QoS 2 delivery that has begun is finished: its Packet Identifier may be known to the client, and would
    /// make it take another message for a repetition. // [MQTT-4.3.3-10]
    pub fn forget(&mut self, cx: &mut Cx<'_>, mut chosen: impl FnMut(&str) -> bool) -> u64 {
        let Some(egress) = &mut self.egress else { return 0 };
        let mut count = 0;
        egress.queue.take_if(cx, |kept| chosen(kept.message.topic()), |_| count += 1);
        let flight = &egress.flight;
        // What took quota on this connection was sent on it, and an acknowledgement is on its way.
        let mut leaves = |slot: &Slot| {
            let topic = slot.kept.as_ref().map(|kept| kept.message.topic());
            slot.qos() == Qos::AtLeastOnce && !slot.counted && topic.is_some_and(&mut chosen)
        };
        let leaving: Vec<u16> =
            flight.publishing().filter(|&packet_id| flight.get(packet_id).is_some_and(&mut leaves)).collect();
        count += leaving.len() as u64;
        for packet_id in leaving {
            egress.give_up(packet_id, cx);
        }
        self.trim(cx);
        count
    }

    /// Deletes what has expired in the queue; so does everything that needs the room. // [MQTT-3.3.2-5]
    pub fn delete_expired(&mut self, cx: &mut Cx<'_>) {
        if let Some(egress) = &mut self.egress {
            egress.queue.delete_expired(cx);
            self.trim(cx);
        }
    }

    /// Nothing in the queue expires before.
    pub fn expires_at_min(&self) -> Millis {
        self.egress.as_ref().map_or(NEVER, |egress| egress.queue.expires_at_min())
    }

    /// The session ends: all is deleted, and all bytes are given back. Returns the number of messages that the client
    /// did not get, as far as is known.
    pub fn release(&mut self, budget: &mut Budget) -> u64 {
        self.received = Default::default();
        let Some(egress) = self.egress.take() else { return 0 };
        let mut lost = egress.queue.len() as u64;
        for kept in egress.queue.iter() {
            budget.release(Class::Queue, kept.cost());
        }
        for slot in egress.flight.into_slots() {
            lost += u64::from(slot.kept.is_some());
            budget.release(Class::Queue, slot.cost());
        }
        lost
    }

    /// Deliveries begun and not finished.
    pub fn inflight_len(&self) -> usize {
        self.egress.as_ref().map_or(0, |egress| egress.flight.len())
    }

    /// Whether a message of `cost` bytes could wait here without pushing anything out; an empty queue takes what it can.
    pub fn queue_takes(&self, cost: usize, limits: &Limits) -> bool {
        self.egress.as_ref().is_none_or(|egress| egress.queue.is_empty() || egress.queue.fits(cost, limits))
    }

    /// Whether a PUBLISH of QoS 1 or 2 would be sent at once, if the socket has room.
    pub fn is_ready(&self, link: &Link, limits: &Limits) -> bool {
        let lets = |egress: &Egress| egress.queue.is_empty() && egress.may_publish(link, limits);
        link.send_quota() > 0 && self.egress.as_deref().is_none_or(lets)
    }

    /// Changes whenever the session sends a PUBLISH of QoS 1 or 2 for the first time.
    pub fn sent_mark(&self) -> u16 {
        self.packet_id_next
    }

    /// Messages that wait for their first sending.
    pub fn queue_len(&self) -> usize {
        self.egress.as_ref().map_or(0, |egress| egress.queue.len())
    }

    /// Bytes charged for them.
    pub fn queue_bytes(&self) -> u64 {
        self.egress.as_ref().map_or(0, |egress| egress.queue.bytes())
    }

    /// Ends the deliveries of `packet_ids` that wait for this acknowledgement. // [U5-2.2.1-2] [U5-4.3-3]
    #[inline]
    fn complete(
        &mut self,
        link: &mut Link,
        packet_ids: impl Iterator<Item = u16>,
        cx: &mut Cx<'_>,
        waits: impl Fn(&Slot) -> bool,
    ) -> Acked {
        let Some(egress) = &mut self.egress else { return Acked::Ignored };
        let (mut acked, mut cost, mut quota) = (Acked::Ignored, 0, 0);
        for packet_id in packet_ids {
            let Some(slot) = egress.flight.remove_if(packet_id, &waits) else { continue };
            acked = Acked::Completed;
            cx.note(Note::Acked { packet_id });
            cost += slot.cost();
            // What this connection has not sent took nothing from its quota. // [U5-4.9-1]
            quota += u16::from(slot.counted);
            if let Some(kept) = slot.kept {
                cx.spares.messages.keep(kept.message);
            }
        }
        cx.budget.release(Class::Queue, cost);
        link.give_send_quota(quota);
        self.trim(cx);
        acked
    }

    /// Gives the memory back when there is nothing in it.
    pub(super) fn trim(&mut self, cx: &mut Cx<'_>) {
        if self.egress.as_ref().is_some_and(|egress| egress.flight.is_empty() && egress.queue.is_empty())
            && let Some(egress) = self.egress.take()
        {
            cx.spares.keep(egress);
        }
    }
}

/// QoS 0 takes no quota and waits for nothing. // [MQTT-4.3.1-1] [U5-4.9-3]
fn deliver_at_most_once(
    wire: &mut Wire<'_>,
    fanout: &mut Fanout<'_>,
    grant: &Grant<'_>,
    cx: &Cx<'_>,
) -> Delivered {
    let form = fanout.form(wire.link, grant, 0, cx.now);
    match fit(form.size(), wire, cx.limits) {
        Fit::Fits => {
            fanout.write(&form, 0, wire);
            Delivered::Sent
        }
        Fit::TooLarge => grant.share.refuse(DropReason::PacketTooLarge),
        Fit::NoRoom => grant.share.refuse(DropReason::SendBuffer),
    }
}

fn orphan(kept: Kept) -> Option<Orphan> {
    Some((kept.share()?, kept.message, kept.qos))
}

impl Egress {
    fn deliver(
        &mut self,
        wire: Option<Wire<'_>>,
        fanout: &mut Fanout<'_>,
        grant: &Grant<'_>,
        packet_id: &mut u16,
        cx: &mut Cx<'_>,
    ) -> Delivered {
        let cost = Kept::cost_of(&fanout.message, grant.identifiers);
        if let Some(mut wire) = wire
            && self.queue.is_empty()
            && !cx.sends_later(grant.qos)
            && self.may_publish(wire.link, cx.limits)
        {
            self.flight.find_vacant(packet_id);
            let form = fanout.form(wire.link, grant, *packet_id, cx.now);
            match fit(form.size(), &wire, cx.limits) {
                Fit::Fits => {
                    if !cx.budget.charge(Class::Queue, cost) {
                        return match grant.share.passes_on() {
                            true => Delivered::Refused(DropReason::Memory),
                            false => refuse(DropReason::Memory, cx),
                        };
                    }
                    fanout.write(&form, *packet_id, &mut wire);
                    cx.note(Note::Flying { packet_id: *packet_id });
                    let kept = Kept::new(fanout.keep(&mut cx.spares.messages), grant);
                    self.begin(packet_id, kept, wire.link);
                    return Delivered::Sent;
                }
                Fit::TooLarge => return grant.share.refuse(DropReason::PacketTooLarge),
                Fit::NoRoom => {}
            }
        }
        let delivered = match grant.share {
            Share::No | Share::Last(_) => self.make_room(cost, cx),
            Share::Now(_) => Delivered::Refused(DropReason::QueueFull),
            Share::Queued(_) => self.room_there(cost, cx),
        };
        match delivered {
            Delivered::Queued | Delivered::QueuedDroppingOldest => {
                self.queue.push(Kept::new(fanout.keep(&mut cx.spares.messages), grant));
                cx.note(Note::Queued);
            }
            Delivered::Sent | Delivered::Dropped(_) | Delivered::Refused(_) | Delivered::Disconnect => {}
        }
        delivered
    }

    /// Charges `cost` bytes for a message that is then queued, if nothing has to give way for it but what has expired.
    fn room_there(&mut self, cost: usize, cx: &mut Cx<'_>) -> Delivered {
        let mut expired_deleted = false;
        loop {
            let fits = self.queue.fits(cost, cx.limits);
            if fits && cx.budget.charge(Class::Queue, cost) {
                return Delivered::Queued;
            }
            if expired_deleted {
                return Delivered::Refused(if fits { DropReason::Memory } else { DropReason::QueueFull });
            }
            self.queue.delete_expired(cx);
            expired_deleted = true;
        }
    }

    /// Charges `cost` bytes for a message that is then queued, at the expense of whatever the policy names.
    fn make_room(&mut self, cost: usize, cx: &mut Cx<'_>) -> Delivered {
        let mut admitted = Delivered::Queued;
        let mut expired_deleted = false;
        // A queue from before its limit was lowered keeps what it has: a new message takes the place of as much as it needs.
        let mut place: Option<(usize, u64)> = None;
        loop {
            let fits = self.queue.fits(cost, cx.limits)
                || place.is_some_and(|(len, bytes)| {
                    self.queue.len() < len && self.queue.bytes() + cost as u64 <= bytes
                });
            if fits && cx.budget.charge(Class::Queue, cost) {
                return admitted;
            }
            if !expired_deleted {
                self.queue.delete_expired(cx);
                expired_deleted = true;
                continue;
            }
            // Old messages are not given up for one that would not fit even then.
            let (reason, helps) = if fits {
                (DropReason::Memory, self.queue.bytes() >= cost as u64)
            } else {
                (DropReason::QueueFull, !self.queue.is_empty() && cost as u64 <= cx.limits.queue_bytes_max)
            };
            if !helps || cx.limits.queue_full != QueueFull::DropOldest {
                return refuse(reason, cx);
            }
            place = place.or(Some((self.queue.len(), self.queue.bytes())));
            self.queue.drop_oldest(cx);
            cx.drops.oldest += 1;
            admitted = Delivered::QueuedDroppingOldest;
        }
    }

    /// Whether a new PUBLISH of QoS 1 or 2 may be sent: what is to be resent goes first. // [MQTT-3.3.4-9]
    fn may_publish(&self, link: &Link, limits: &Limits) -> bool {
        link.send_quota() > 0 && self.flight.len() < in_flight_max(limits) && !self.flight.is_due()
    }

    /// A PUBLISH was written under `packet_id`, which moves on.
    #[inline]
    fn begin(&mut self, packet_id: &mut u16, kept: Kept, link: &mut Link) {
        self.flight.insert(*packet_id, kept);
        *packet_id = packet_id.wrapping_add(1);
        link.take_send_quota(1);
    }

    fn resend_pubrels(&mut self, wire: &mut Wire<'_>, released: &mut u32, cx: &mut Cx<'_>) -> More {
        let size = ack_packet_size(wire.link.version, Reason::SUCCESS);
        while let Some(packet_id) = self.flight.pubrel_due() {
            match fit(size, wire, cx.limits) {
                Fit::Fits => {
                    let out = wire.outbox.bytes_mut();
                    encode_ack(out, wire.link.version, AckKind::PubRel, packet_id, Reason::SUCCESS);
                    wire.send_room = wire.send_room.saturating_sub(size);
                    self.flight.resent(packet_id);
                    *released += 1;
                }
                Fit::TooLarge => self.give_up(packet_id, cx),
                Fit::NoRoom => return More::Room,
            }
        }
        More::Nothing
    }

    fn resend_publishes(&mut self, wire: &mut Wire<'_>, pumped: &mut Pumped, cx: &mut Cx<'_>) -> More {
        if let Some(notes) = &cx.notes
            && self.hold > notes.on_disk
            && self.flight.is_due()
        {
            return More::Disk(self.hold);
        }
        while let Some((packet_id, kept)) = self.flight.publish_due() {
            let sending = if kept.is_unsent { Sending::First } else { Sending::Again };
            let packet = Packet::of_kept(wire.link, kept, packet_id, sending, cx.now);
            match packet.fit(wire, cx.limits) {
                Fit::TooLarge => {
                    cx.drops.packet_too_large += 1;
                    if kept.qos == Qos::AtLeastOnce {
                        self.give_up(packet_id, cx);
                        continue;
                    }
                    // The client may have it from an earlier connection, and would take another message under its Packet
                    // Identifier for a repetition. So it is released like one that was received. // [MQTT-4.3.3-10]
                    if let Some(kept) = self.flight.pass_over(packet_id) {
                        cx.note(Note::Released { packet_id });
                        cx.budget.release(Class::Queue, kept.cost() - Kept::PLACE_COST);
                    }
                    match self.resend_pubrels(wire, &mut pumped.released, cx) {
                        More::Nothing => {}
                        more => return more,
                    }
                }
                Fit::Fits | Fit::NoRoom if wire.link.send_quota() == 0 => return More::Quota,
                Fit::NoRoom => return More::Room,
                Fit::Fits => {
                    pumped.published += 1;
                    pumped.payload_bytes += packet.head.payload_len as u64;
                    packet.write_kept(wire, kept);
                    wire.link.take_send_quota(1);
                    self.flight.resent(packet_id);
                }
            }
        }
        More::Nothing
    }

    fn send_queue(
        &mut self,
        wire: &mut Wire<'_>,
        packet_id: &mut u16,
        pumped: &mut Pumped,
        cx: &mut Cx<'_>,
    ) -> More {
        let mut unsent = 0;
        while let Some(kept) = self.queue.front() {
            if kept.message.expires_at() <= cx.now {
                self.queue.drop_oldest(cx);
                cx.drops.expired += 1; // [MQTT-3.3.2-5]
                continue;
            }
            if cx.sends_later(kept.qos) {
                // Together with those behind it, as far as the quota goes; then nothing before they are sent.
                if unsent == wire.link.send_quota() || self.flight.len() >= in_flight_max(cx.limits) {
                    break;
                }
                unsent += 1;
                self.begin_unsent(packet_id, cx);
                continue;
            }
            if unsent > 0 {
                break;
            }
            if !self.may_publish(wire.link, cx.limits) {
                return More::Quota;
            }
            self.flight.find_vacant(packet_id);
            let packet = Packet::of_kept(wire.link, kept, *packet_id, Sending::First, cx.now);
            match packet.fit(wire, cx.limits) {
                Fit::TooLarge => {
                    self.queue.drop_oldest(cx);
                    cx.drops.packet_too_large += 1; // [MQTT-3.1.2-25]
                }
                Fit::NoRoom => return More::Room,
                Fit::Fits => {
                    pumped.published += 1;
                    pumped.payload_bytes += packet.head.payload_len as u64;
                    packet.write_kept(wire, kept);
                    if let Some(kept) = self.queue.pop() {
                        cx.note(Note::Sent { packet_id: *packet_id });
                        self.begin(packet_id, kept, wire.link);
                    }
                }
            }
        }
        match (unsent, self.queue.is_empty()) {
            (0, true) => More::Nothing,
            (0, false) => More::Quota,
            (1.., _) => More::Disk(self.hold),
        }
    }

    /// Gives the first message of the queue its Packet Identifier. It is sent when the disk has that.
    fn begin_unsent(&mut self, packet_id: &mut u16, cx: &mut Cx<'_>) {
        self.flight.find_vacant(packet_id);
        let Some(mut kept) = self.queue.pop() else { return };
        kept.is_unsent = true;
        cx.note(Note::Sent { packet_id: *packet_id });
        self.hold = cx.notes.as_ref().map_or(0, |notes| notes.commit);
        self.flight.insert_due(*packet_id, kept);
        *packet_id = packet_id.wrapping_add(1);
    }

    /// What does not fit the client's Maximum Packet Size counts as delivered. // [MQTT-3.1.2-25]
    fn give_up(&mut self, packet_id: u16, cx: &mut Cx<'_>) {
        if let Some(slot) = self.flight.remove(packet_id) {
            cx.note(Note::Acked { packet_id });
            cx.budget.release(Class::Queue, slot.cost());
        }
    }
}

/// A message that there is no room for, and that nothing else makes room for.
fn refuse(reason: DropReason, cx: &Cx<'_>) -> Delivered {
    match cx.limits.queue_full {
        QueueFull::DropNewest | QueueFull::DropOldest => Delivered::Dropped(reason),
        QueueFull::Disconnect => Delivered::Disconnect,
    }
}
