//! Parcels of other shards.
//!
//! An inbox is always drained and never waits for room: what a parcel causes goes to sessions, which have limits, or
//! into spills, which are bounded by what peers may have unfinished.

use crate::io::Io;
use crate::memory::{Message, ShardId, ShardSet};
use crate::session::Batch;
use crate::wire::Version;

use super::deliver::Scratch;
use super::order::{Heard, Intake, MayStore, Owed, Ticket};
use super::parcel::Parcel;
use super::{Core, Shard};

/// What was taken from one ring in this turn.
#[derive(Debug)]
pub(super) struct Reading {
    from: ShardId,
    parcels: usize,
}

impl<I: Io> Shard<I> {
    /// Takes what is in the rings that rang, starting at another peer each turn. All of it before any is acted upon, since the
    /// sender of a parcel may have known of what is in another ring.
    pub(super) fn take_parcels(&mut self, intake: &mut Intake) {
        let core = &mut self.core;
        let rung = core.exchange.links.take_rung();
        if rung.is_empty() {
            return;
        }
        core.exchange.waits.look_again();
        let start =
            (core.local.env.counters().turns_total.get() % u64::from(core.local.env.shards)) as ShardId;
        let first = rung.iter().filter(|from| *from >= start);
        for from in first.chain(rung.iter().filter(|from| *from < start)) {
            let max = core.local.env.options.inbox_budget;
            let parcels = intake.parcels(&mut core.exchange, from, max, &mut self.parcels);
            self.readings.push(Reading { from, parcels });
        }
    }

    /// Acts on the parcels that were taken.
    pub(super) fn read_inbox(&mut self, heard: Heard<'_>) {
        let core = &mut self.core;
        core.local.env.counters().mesh_received_total.add(self.parcels.len() as u64);
        for Reading { from, parcels } in self.readings.drain(..) {
            let (mut relays, mut targets) = (0, ShardSet::EMPTY);
            let mark = core.local.env.written_mark();
            for parcel in self.parcels.drain(..parcels) {
                if let Some(fanned_out_to) = core.parcel_arrived(from, parcel, heard) {
                    relays += 1;
                    targets = targets.union(fanned_out_to);
                }
            }
            // Only now: consumed means acted upon.
            core.exchange.links.consumed(from, parcels);
            let commit = core.local.env.last_commit();
            core.exchange.relays_taken(from, relays, targets, commit);
            // None are no progress, or two shards that wait for each other's disks ring each other until these are done.
            if commit.is_some() && parcels > 0 {
                core.exchange.acted_upon(from, core.local.env.commit_since(mark));
            }
        }
    }
}

impl Core {
    /// Acts upon a parcel. Returns the shards that a relay was fanned out to.
    fn parcel_arrived(&mut self, from: ShardId, parcel: Parcel, heard: Heard<'_>) -> Option<ShardSet> {
        match parcel {
            Parcel::Publish { message, several, ordinary, groups } => {
                let groups = groups.as_deref().map_or(&[][..], |groups| groups);
                match several {
                    None => self.batch_arrived(&Batch::of_kept(&message), ordinary, groups, heard),
                    Some(version) => self.several_arrived(&message, version, heard),
                }
            }
            Parcel::Relay(message) => return self.relay_arrived(&message, heard),
            Parcel::Released(released) => {
                self.local.forget_taken(released.publisher, released.packet_ids.iter().copied());
            }
            Parcel::Query(query) => self.retained.ask(from, query),
            Parcel::Retained(found) => self.local.found_arrived(from, *found),
            Parcel::Share(pass) => self.pass_arrived(*pass, heard),
            Parcel::HandOff(hand_off) => {
                self.hand_off_arrived(*hand_off, heard);
                self.settle(heard);
                self.settle(heard);
            }
        }
        None
    }

    /// Several messages, which are for ordinary subscriptions only.
    fn several_arrived(&mut self, message: &Message, version: Version, heard: Heard<'_>) {
        let mut entries = std::mem::take(&mut self.local.scratch.entries);
        match Batch::of_packed(message, version, &mut entries) {
            Some(batch) => self.batch_arrived(&batch, true, &[], heard),
            None => debug_assert!(false, "several messages begin with a packet"),
        }
        self.local.scratch.entries = Scratch::emptied(entries);
    }

    fn batch_arrived(&mut self, batch: &Batch<'_>, ordinary: bool, groups: &[u64], heard: Heard<'_>) {
        let mut variants = self.local.scratch.variants.take().unwrap_or_default();
        let mut fanout = batch.first(&mut variants);
        self.local.env.comes(&batch.message);
        if ordinary {
            let route = self.local.sessions.router.route(batch.message.topic);
            self.local.deliver_ordinary(&route, batch, &mut fanout);
        }
        for group in groups {
            self.share_arrived(*group, &mut fanout, heard);
        }
        self.local.scratch.variants = Some(variants);
    }

    /// A message for this shard's part of the retained store: kept, and fanned out from here.
    fn relay_arrived(&mut self, message: &Message, heard: Heard<'_>) -> Option<ShardSet> {
        self.store_retained(&message.view(), MayStore::what_was_relayed(heard));
        let (_, targets) = self.route(&Batch::of_kept(message), Ticket::owed(Owed::Relay, heard));
        Some(targets)
    }
}
