//! Parcels of other shards.
//!
//! An inbox is always drained and never waits for room: what a parcel causes goes to sessions, which have limits, or
//! into spills, which are bounded by what peers may have unfinished.

use crate::io::Io;
use crate::memory::{Message, ShardId, ShardSet};
use crate::session::Fanout;

use super::parcel::Parcel;
use super::{Core, Shard};

impl<I: Io> Shard<I> {
    /// Reads the rings that rang, starting at another peer each turn, and acts on what they hold. Returns how many
    /// parcels there were.
    pub(super) fn read_inbox(&mut self) -> usize {
        let core = &mut self.core;
        let rung = core.links.take_rung();
        if rung.is_empty() {
            return 0;
        }
        let mut total = 0;
        let start = (core.counters().turns_total.get() % u64::from(core.shards)) as ShardId;
        let first = rung.iter().filter(|from| *from >= start);
        for from in first.chain(rung.iter().filter(|from| *from < start)) {
            let budget = core.options.inbox_budget;
            let count = core.links.read(from, budget, &mut self.batch);
            let (mut relays, mut controls) = (0, 0);
            let mut targets = ShardSet::EMPTY;
            for parcel in self.batch.drain(..) {
                if let Parcel::Relay(message) = parcel {
                    relays += 1;
                    targets = targets.union(core.relay_arrived(&message));
                } else {
                    controls += usize::from(parcel.is_control());
                    core.parcel_arrived(from, parcel);
                }
            }
            // Only now: consumed means acted upon.
            core.links.consumed(from, count, controls);
            core.relays_taken(from, relays, targets);
            total += count;
        }
        core.counters().mesh_received_total.add(total as u64);
        total
    }
}

impl Core {
    fn parcel_arrived(&mut self, from: ShardId, parcel: Parcel) {
        match parcel {
            Parcel::Publish { message, ordinary, groups } => {
                self.message_arrived(&message, ordinary, groups.as_deref().map_or(&[], |groups| groups));
            }
            Parcel::Run { packets, version } => self.run_arrived(&packets, version),
            // Handled by the caller, who keeps count of them.
            Parcel::Relay(message) => {
                self.relay_arrived(&message);
            }
            Parcel::Interest(announced) => self.interest_arrived(from, *announced),
            Parcel::Query(query) => self.query_arrived(from, *query),
            Parcel::Retained(found) => self.found_arrived(from, *found),
            Parcel::Share(pass) => self.pass_arrived(*pass),
            Parcel::HandOff(hand_off) => self.hand_off_arrived(*hand_off),
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

    /// A message for this shard's part of the retained store: kept, and fanned out from here.
    fn relay_arrived(&mut self, message: &Message) -> ShardSet {
        let view = message.view();
        self.store_retained(&view);
        let (_, targets) = self.route(&view);
        targets
    }
}
