//! What every part of a shard needs and none owns: time, limits, memory, counters, random numbers, the rules of access.
//! It is handed down as `&mut Env`.

use std::sync::Arc;

use crate::access::Access;
use crate::clock::Millis;
use crate::io::ListenerId;
use crate::limits::{Limits, ListenerLimits};
use crate::memory::{Budget, ShardId};
use crate::metrics::Counters;
use crate::session::{Cx, DropReason, Drops, Spares};
use crate::timer::Timers;
use crate::topic::HashKeys;
use crate::wire::DecodeLimits;

use super::keep::Keep;
use super::{Options, Timer};

pub(super) struct Env {
    /// This shard.
    pub id: ShardId,
    pub shards: u16,
    /// The time at which the turn began.
    pub now: Millis,
    pub limits: Limits,
    /// The limits of each listener, by number.
    pub listener_limits: Box<[ListenerLimits]>,
    pub decode_limits: DecodeLimits,
    pub options: Options,
    pub keys: HashKeys,
    pub budget: Budget,
    /// One for each shard; this one writes only its own.
    pub counters: Arc<[Counters]>,
    pub access: Access,
    /// Packed [`Timer`]s.
    pub timers: Timers<u64>,
    /// The state of [`Env::random`].
    pub seed: u64,
    /// The shard drains.
    pub is_stopping: bool,
    /// What is written down, where there is a data directory.
    pub keep: Option<Box<Keep>>,
}

impl Env {
    /// The counters of this shard.
    #[inline]
    pub fn counters(&self) -> &Counters {
        &self.counters[usize::from(self.id)]
    }

    /// SplitMix64, seeded by `Io`.
    #[inline]
    pub fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.seed;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// The limits of connections that came in at this listener.
    pub fn limits_at(&self, listener: ListenerId) -> ListenerLimits {
        let own = self.listener_limits.get(usize::from(listener.0)).copied();
        own.unwrap_or_else(|| ListenerLimits::of(&self.limits))
    }

    /// Something is due at `at`.
    #[inline]
    pub fn set_timer(&mut self, at: Millis, timer: Timer) {
        self.timers.set(at, timer.pack());
    }

    /// What a call on a session needs. `is_kept` says whether the session is written down; then [`Sessions::keep`] follows.
    ///
    /// [`Sessions::keep`]: super::sessions::Sessions::keep
    #[inline(always)]
    pub fn cx<'a>(&'a mut self, drops: &'a mut Drops, spares: &'a mut Spares, is_kept: bool) -> Cx<'a> {
        let notes = if is_kept { self.keep.as_mut().map(|keep| keep.lend_notes()) } else { None };
        Cx { now: self.now, limits: &self.limits, budget: &mut self.budget, drops, spares, notes }
    }

    pub fn count_drop(&self, reason: DropReason, count: u64) {
        let counters = self.counters();
        match reason {
            DropReason::SendBuffer => counters.dropped_send_buffer_total.add(count),
            DropReason::Offline => counters.dropped_offline_total.add(count),
            DropReason::QueueFull => counters.dropped_queue_full_total.add(count),
            DropReason::Memory => counters.dropped_memory_total.add(count),
            DropReason::Expired => counters.dropped_expired_total.add(count),
            DropReason::PacketTooLarge => counters.dropped_too_large_total.add(count),
        }
    }

    /// Messages that were deleted while they waited.
    pub fn count_drops(&self, drops: Drops) {
        if drops != Drops::default() {
            let counters = self.counters();
            counters.dropped_queue_oldest_total.add(drops.oldest);
            counters.dropped_expired_total.add(drops.expired);
            counters.dropped_too_large_total.add(drops.packet_too_large);
        }
    }
}
