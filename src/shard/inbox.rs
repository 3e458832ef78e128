//! Parcels of other shards.
//!
//! An inbox is always drained and never waits for room: what a parcel causes goes to sessions, which have limits, or
//! into spills, which are bounded by what peers may have unfinished.

use crate::io::Io;
use crate::memory::{Message, ShardId, ShardSet};
use crate::session::Batch;
use crate::wire::Version;

use super::deliver::Scratch;
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
    pub(super) fn take_parcels(&mut self) {
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
            let parcels =
                core.exchange.links.read(from, core.local.env.options.inbox_budget, &mut self.parcels);
            self.readings.push(Reading { from, parcels });
        }
    }

    /// Acts on the parcels that were taken.
    pub(super) fn read_inbox(&mut self) {
        let core = &mut self.core;
        core.local.env.counters().mesh_received_total.add(self.parcels.len() as u64);
        for Reading { from, parcels } in self.readings.drain(..) {
            let (mut relays, mut targets) = (0, ShardSet::EMPTY);
            for parcel in self.parcels.drain(..parcels) {
                if let Some(fanned_out_to) = core.parcel_arrived(from, parcel) {
                    relays += 1;
                    targets = targets.union(fanned_out_to);
                }
            }
            // Only now: consumed means acted upon.
            core.exchange.links.consumed(from, parcels);
            core.exchange.relays_taken(from, relays, targets);
        }
    }
}

impl Core {
    /// A parcel that is only delivered here needs nothing of the other shards. One that may go on to them, or brings what a
    /// client sent, comes after what its sender could know. Returns the shards that a relay was fanned out to.
    fn parcel_arrived(&mut self, from: ShardId, parcel: Parcel) -> Option<ShardSet> {
        match parcel {
            Parcel::Publish { message, several, ordinary, groups } => {
                if groups.is_some() {
                    self.hear(); // the members here may not be able to take it
                }
                let groups = groups.as_deref().map_or(&[][..], |groups| groups);
                match several {
                    None => self.batch_arrived(&Batch::of_kept(&message), ordinary, groups),
                    Some(version) => self.several_arrived(&message, version),
                }
            }
            Parcel::Relay(message) => return self.relay_arrived(&message),
            Parcel::Query(query) => self.retained.ask(from, query),
            Parcel::Retained(found) => self.local.found_arrived(from, *found),
            Parcel::Share(pass) => {
                self.hear();
                self.pass_arrived(*pass);
            }
            Parcel::HandOff(hand_off) => {
                self.hear();
                self.hand_off_arrived(*hand_off);
                self.settle();
                self.settle();
            }
        }
        None
    }

    /// Several messages, which are for ordinary subscriptions only.
    fn several_arrived(&mut self, message: &Message, version: Version) {
        let mut entries = std::mem::take(&mut self.local.scratch.entries);
        match Batch::of_packed(message, version, &mut entries) {
            Some(batch) => self.batch_arrived(&batch, true, &[]),
            None => debug_assert!(false, "several messages begin with a packet"),
        }
        self.local.scratch.entries = Scratch::emptied(entries);
    }

    fn batch_arrived(&mut self, batch: &Batch<'_>, ordinary: bool, groups: &[u64]) {
        let mut variants = self.local.scratch.variants.take().unwrap_or_default();
        let mut fanout = batch.first(&mut variants);
        if ordinary {
            let route = self.local.sessions.router.route(batch.message.topic);
            self.local.deliver_ordinary(&route, batch, &mut fanout);
        }
        for group in groups {
            self.share_arrived(*group, &mut fanout);
        }
        self.local.scratch.variants = Some(variants);
    }

    /// A message for this shard's part of the retained store: kept, and fanned out from here.
    fn relay_arrived(&mut self, message: &Message) -> Option<ShardSet> {
        self.hear();
        let view = message.view();
        self.store_retained(&view);
        let (_, targets) = self.route(&Batch::of_kept(message));
        Some(targets)
    }
}
