//! Messages of share groups that are on their way to another shard.
//!
//! Whoever published such a message has its acknowledgement when the shard that it came to has it on
//! disk. So a shard that passes one on, because no member here can take it or because its session
//! ends, writes it down first, and keeps it until the other shard has it on disk. After a crash in
//! between it is handed over again: at least once.

use std::collections::{BTreeMap, VecDeque};

use crate::memory::{Message, ShardId};
use crate::session::Fanout;
use crate::store::Record;
use crate::wire::Qos;

use super::Core;
use super::env::Env;
use super::exchange::Exchange;
use super::keep::Keep;
use super::order::Heard;
use super::parcel::Way;
use super::restore::Start;
use super::waits::DURABLE;

/// The messages that a shard has passed on and still keeps.
#[derive(Debug, Default)]
pub(super) struct Custody {
    /// By number: the group and the message.
    kept: BTreeMap<u64, (u64, Message)>,
    next: u64,
    /// By receiver: its parcel's place in the ring, and the number.
    on_the_way: BTreeMap<ShardId, VecDeque<(u64, u64)>>,
    /// Those of a former process, which are handed over when everybody serves.
    from_before: Vec<u64>,
}

impl Custody {
    /// With what a former process had passed on.
    pub fn new(given: Vec<(u64, Message)>) -> Custody {
        let next = given.len() as u64;
        let from_before = (0..next).collect();
        let kept = (0..).zip(given).collect();
        Custody { kept, next, from_before, ..Custody::default() }
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64, &Message)> {
        self.kept.iter().map(|(number, (group, message))| (*number, *group, message))
    }
}

impl Env {
    /// A message goes to another shard, as the next parcel behind `pushed`.
    #[cold]
    pub fn give(&mut self, to: ShardId, pushed: u64, group: u64, fanout: &mut Fanout<'_>) {
        let Some(keep) = &mut self.keep else { return };
        if fanout.message.qos == Qos::AtMostOnce {
            return;
        }
        keep.about(&fanout.message, &mut fanout.written);
        let number = keep.custody.next;
        keep.custody.next += 1;
        keep.append(&Record::Given { number, group });
        keep.custody.kept.insert(number, (group, fanout.shared().clone()));
        keep.custody.on_the_way.entry(to).or_default().push_back((pushed + 1, number));
    }
}

impl Keep {
    fn pass(&mut self, number: u64) {
        if self.custody.kept.remove(&number).is_some() {
            self.append(&Record::Passed { number });
        }
    }

    /// Other shards may have more on disk: what they have is theirs.
    pub fn settle_custody(&mut self, exchange: &Exchange) {
        let mut passed = Vec::new();
        for (to, waiting) in &mut self.custody.on_the_way {
            let durable = exchange.links.register(*to, DURABLE);
            while waiting.front().is_some_and(|(parcel, _)| *parcel <= durable)
                && let Some((_, number)) = waiting.pop_front()
            {
                passed.push(number);
            }
        }
        passed.into_iter().for_each(|number| self.pass(number));
    }

    fn may_hand_over(&self) -> bool {
        !self.custody.from_before.is_empty() && self.start == Start::Serving
    }

    /// Whether something is on its way.
    pub fn has_custody(&self) -> bool {
        self.custody.on_the_way.values().any(|waiting| !waiting.is_empty())
    }
}

impl Core {
    /// What a former process had passed on goes to a member, once all shards serve.
    #[inline(always)]
    pub(super) fn hand_over_given(&mut self, heard: Heard<'_>) {
        if self.local.env.keep.as_ref().is_some_and(|keep| keep.may_hand_over()) {
            self.hand_over_again(heard);
        }
    }

    #[cold]
    fn hand_over_again(&mut self, heard: Heard<'_>) {
        let Some(keep) = &mut self.local.env.keep else { return };
        for number in std::mem::take(&mut keep.custody.from_before) {
            let Some(keep) = &mut self.local.env.keep else { return };
            let Some((group, message)) = keep.custody.kept.get(&number).cloned() else { continue };
            match self.local.sessions.router.group_by_fingerprint(group) {
                Some(group) => self.with_fanout(&message, |core, fanout| {
                    core.share_on(group, fanout, Way::default(), heard);
                }),
                None => self.local.env.counters().dropped_no_member_total.add(1),
            }
            if let Some(keep) = &mut self.local.env.keep {
                keep.pass(number);
            }
        }
    }
}
