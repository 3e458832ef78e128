//! Parcels of other shards.
//!
//! An inbox is always drained and never waits for room: what a parcel causes goes to sessions, which have limits, or
//! into spills, which are bounded by what peers may have unfinished.

use crate::io::Io;
use crate::memory::{Message, ShardId, ShardSet};
use crate::session::Fanout;

use super::parcel::Parcel;
use super::{Core, Shard};

/// What was taken from one ring in this turn.
#[derive(Debug)]
pub(super) struct Batch {
    from: ShardId,
    parcels: usize,
    /// Relays among them, and the shards that they were fanned out to.
    relays: u64,
    targets: ShardSet,
}

/// A relay of this turn.
#[derive(Debug)]
pub(super) struct Relay {
    message: Message,
    stamp: u64,
    /// The batch that it came in.
    batch: usize,
}

impl<I: Io> Shard<I> {
    /// Takes what is in the rings that rang, starting at another peer each turn. All of it before any is acted upon: who sent
    /// something may have known of what is in another ring.
    pub(super) fn take_parcels(&mut self) {
        let core = &mut self.core;
        let rung = core.links.take_rung();
        if rung.is_empty() {
            return;
        }
        core.waits.look_again();
        let start = (core.counters().turns_total.get() % u64::from(core.shards)) as ShardId;
        let first = rung.iter().filter(|from| *from >= start);
        for from in first.chain(rung.iter().filter(|from| *from < start)) {
            let parcels = core.links.read(from, core.options.inbox_budget, &mut self.parcels);
            self.batches.push(Batch { from, parcels, relays: 0, targets: ShardSet::EMPTY });
        }
    }

    /// Acts on the parcels that were taken: relays first, then what may make this shard read the logs on.
    pub(super) fn read_inbox(&mut self) {
        self.read_relays();
        let core = &mut self.core;
        core.counters().mesh_received_total.add(self.parcels.len() as u64);
        for Batch { from, parcels, relays, targets } in self.batches.drain(..) {
            for parcel in self.parcels.drain(..parcels) {
                core.parcel_arrived(from, parcel);
            }
            // Only now: consumed means acted upon.
            core.links.consumed(from, parcels);
            core.relays_taken(from, relays, targets);
        }
    }

    /// Acts on the relays among the parcels, by their stamps: none may find the logs read further than it knew of.
    fn read_relays(&mut self) {
        let mut parcels = self.parcels.iter_mut();
        for (batch, count) in self.batches.iter().map(|batch| batch.parcels).enumerate() {
            for parcel in parcels.by_ref().take(count) {
                if matches!(parcel, Parcel::Relay { .. })
                    && let Parcel::Relay { message, stamp } = std::mem::replace(parcel, Parcel::Taken)
                {
                    self.relays.push(Relay { message, stamp, batch });
                }
            }
        }
        self.relays.sort_by_key(|relay| relay.stamp); // which keeps the order of each ring
        for Relay { message, stamp, batch } in self.relays.drain(..) {
            let targets = self.core.relay_arrived(&message, stamp);
            let batch = &mut self.batches[batch];
            batch.relays += 1;
            batch.targets = batch.targets.union(targets);
        }
    }
}

impl Core {
    /// What is only delivered here needs nothing of the others. What may go on to them, or brings what a client sent, comes
    /// after what could be known to its sender.
    fn parcel_arrived(&mut self, from: ShardId, parcel: Parcel) {
        match parcel {
            Parcel::Publish { message, ordinary, groups } => {
                if groups.is_some() {
                    self.hear(); // the members here may not be able to take it
                }
                self.message_arrived(&message, ordinary, groups.as_deref().map_or(&[], |groups| groups));
            }
            Parcel::Run { packets, version } => self.run_arrived(&packets, version),
            Parcel::Relay { .. } | Parcel::Taken => {} // acted upon before all others
            Parcel::Query(query) => self.query_arrived(from, query),
            Parcel::Retained(found) => self.found_arrived(from, *found),
            Parcel::Share(pass) => {
                self.hear();
                self.pass_arrived(*pass);
            }
            Parcel::HandOff(hand_off) => {
                self.hear();
                self.hand_off_arrived(*hand_off);
            }
        }
    }

    fn message_arrived(&mut self, message: &Message, ordinary: bool, groups: &[u64]) {
        let mut variants = self.scratch.variants.take().unwrap_or_default();
        let mut fanout = Fanout::of_shared(message, &mut variants);
        if ordinary {
            let route = self.router.route(message.topic());
            self.deliver_ordinary(&route, &mut fanout);
        }
        for group in groups {
            self.share_arrived(*group, &mut fanout);
        }
        self.scratch.variants = Some(variants);
    }

    /// A message for this shard's part of the retained store: kept, and fanned out from here. To those who subscribed after
    /// it was sent it is not live: they ask for it.
    fn relay_arrived(&mut self, message: &Message, stamp: u64) -> ShardSet {
        self.hear_until(stamp);
        let view = message.view();
        self.store_retained(&view);
        let (_, targets) = self.route(&view);
        targets
    }
}
