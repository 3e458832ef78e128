//! Parcels of other shards.
//!
//! An inbox is always drained and never waits for room: what a parcel causes goes to sessions, which have limits, or
//! into spills, which are bounded by what peers may have unfinished.

use crate::io::Io;
use crate::memory::{Message, ShardId, ShardSet};
use crate::session::Fanout;

use super::parcel::{Parcel, Query};
use super::{Core, Shard};

/// What came of the parcels of a turn beside what was done at once.
#[derive(Debug, Default)]
struct Taken {
    /// Of the ring that is being read: relays, and the shards that they were fanned out to.
    relays: u64,
    targets: ShardSet,
    /// Of all rings.
    queries: Vec<(ShardId, Box<Query>)>,
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
        let start = (core.counters().turns_total.get() % u64::from(core.shards)) as ShardId;
        let first = rung.iter().filter(|from| *from >= start);
        for from in first.chain(rung.iter().filter(|from| *from < start)) {
            let count = core.links.read(from, core.options.inbox_budget, &mut self.parcels);
            self.parcels_of.push((from, count));
        }
    }

    /// Acts on the parcels that were taken.
    pub(super) fn read_inbox(&mut self) {
        let core = &mut self.core;
        core.counters().mesh_received_total.add(self.parcels.len() as u64);
        let mut taken = Taken::default();
        for (from, count) in self.parcels_of.drain(..) {
            for parcel in self.parcels.drain(..count) {
                core.parcel_arrived(from, parcel, &mut taken);
            }
            // Only now: consumed means acted upon.
            core.links.consumed(from, count);
            core.relays_taken(from, std::mem::take(&mut taken.relays), std::mem::take(&mut taken.targets));
        }
        // After the relays of all rings: what was acknowledged before somebody subscribed is stored when it is asked for.
        for (from, query) in taken.queries {
            core.hear(); // what comes after the answer is to be routed there
            core.query_arrived(from, *query);
        }
    }
}

impl Core {
    /// What is only delivered here needs nothing of the others. What may go on to them, or brings what a client sent, comes
    /// after what could be known to its sender.
    fn parcel_arrived(&mut self, from: ShardId, parcel: Parcel, taken: &mut Taken) {
        match parcel {
            Parcel::Publish { message, ordinary, groups } => {
                if groups.is_some() {
                    self.hear(); // the members here may not be able to take it
                }
                self.message_arrived(&message, ordinary, groups.as_deref().map_or(&[], |groups| groups));
            }
            Parcel::Run { packets, version } => self.run_arrived(&packets, version),
            Parcel::Relay { message, stamp } => {
                taken.relays += 1;
                taken.targets = taken.targets.union(self.relay_arrived(&message, stamp));
            }
            Parcel::Query(query) => taken.queries.push((from, query)),
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
