//! Messages of QoS 1 and 2 that wait for their first sending, in order.

use std::collections::VecDeque;

use super::kept::Kept;
use super::{Cx, Note};
use crate::clock::{Millis, NEVER};
use crate::limits::Limits;
use crate::memory::Class;

#[derive(Debug)]
pub(super) struct Queue {
    entries: VecDeque<Kept>,
    bytes: u64,
    /// None of them expires before.
    expires_at_min: Millis,
}

impl Default for Queue {
    fn default() -> Self {
        Queue { entries: VecDeque::new(), bytes: 0, expires_at_min: NEVER }
    }
}

impl Queue {
    /// Entries that an empty queue may keep the memory of.
    const SPARE_MAX: usize = 16;

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn expires_at_min(&self) -> Millis {
        self.expires_at_min
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Kept> {
        self.entries.iter()
    }

    pub(super) fn front(&self) -> Option<&Kept> {
        self.entries.front()
    }

    /// Whether `cost` bytes more, as one message, are within the limits.
    pub(super) fn fits(&self, cost: usize, limits: &Limits) -> bool {
        self.entries.len() < limits.queue_messages_max as usize
            && self.bytes + cost as u64 <= limits.queue_bytes_max
    }

    pub(super) fn push(&mut self, kept: Kept) {
        self.bytes += kept.cost() as u64;
        self.expires_at_min = self.expires_at_min.min(kept.message.expires_at());
        self.entries.push_back(kept);
    }

    /// The oldest; its bytes stay charged.
    pub(super) fn pop(&mut self) -> Option<Kept> {
        let kept = self.entries.pop_front()?;
        self.bytes -= kept.cost() as u64;
        self.settle();
        Some(kept)
    }

    /// Deletes the oldest.
    pub(super) fn drop_oldest(&mut self, cx: &mut Cx<'_>) {
        if let Some(kept) = self.pop() {
            cx.note(Note::Dropped { at: 0 });
            cx.budget.release(Class::Queue, kept.cost());
        }
    }

    /// Deletes what has expired. // [MQTT-3.3.2-5]
    pub(super) fn delete_expired(&mut self, cx: &mut Cx<'_>) {
        if self.expires_at_min > cx.now {
            return;
        }
        let before = self.entries.len();
        let now = cx.now;
        self.take_if(cx, |kept| kept.message.expires_at() <= now, drop);
        cx.drops.expired += (before - self.entries.len()) as u64;
        self.expires_at_min =
            self.entries.iter().map(|kept| kept.message.expires_at()).min().unwrap_or(NEVER);
    }

    /// Takes what `chosen` names out, in order, and gives its bytes back.
    pub(super) fn take_if(
        &mut self,
        cx: &mut Cx<'_>,
        mut chosen: impl FnMut(&Kept) -> bool,
        mut taken: impl FnMut(Kept),
    ) {
        let mut at = 0;
        for _ in 0..self.entries.len() {
            let Some(kept) = self.entries.pop_front() else { break };
            if chosen(&kept) {
                cx.note(Note::Dropped { at });
                let cost = kept.cost();
                self.bytes -= cost as u64;
                cx.budget.release(Class::Queue, cost);
                taken(kept);
            } else {
                at += 1;
                self.entries.push_back(kept);
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        if self.entries.is_empty() {
            self.expires_at_min = NEVER;
            if self.entries.capacity() > Self::SPARE_MAX {
                self.entries = VecDeque::new();
            }
        }
    }
}
