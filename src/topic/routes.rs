//! The way of a message: which subscriptions, share groups and shards its topic leads to.

use std::rc::Rc;

use super::{NONE, Router};
use crate::memory::{Key, ShardSet};

/// Where messages with one topic go. It may be older than the last removal: a stale key finds nothing and is skipped.
#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    /// What it is the way of.
    pub topic: Box<str>,
    /// Ordinary subscriptions of this shard; those of one session are next to each other.
    pub local: Box<[Key]>,
    /// Every share group whose filter matches, with members anywhere.
    pub groups: Box<[Key]>,
    /// Other shards with an ordinary subscriber.
    pub remote: ShardSet,
    /// Whether `local` has several subscriptions of one session.
    pub repeats: Repeats,
}

/// Whether a session may occur more than once.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Repeats {
    Never,
    Sometimes,
}

impl Route {
    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.local.is_empty() && self.groups.is_empty() && self.remote.is_empty()
    }
}

/// Buffers for making routes, kept for their memory only.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    nodes: Vec<u32>,
    /// Session and subscription.
    local: Vec<(Key, Key)>,
    groups: Vec<Key>,
}

/// Subscriptions above which the buffer for making a route is given back.
const SCRATCH_MAX: usize = 1 << 16;

impl Router {
    /// The way of a message with this Topic Name; from the cache if it is there.
    pub fn route(&mut self, topic: &str) -> Rc<Route> {
        let hash = self.hasher.text(topic);
        if let Some(route) = self.cache.get(hash, topic) {
            return route;
        }
        let route = self.make_route(hash, topic);
        self.cache.insert(hash, &route, &self.hasher);
        route
    }

    /// While it stays the same, a route that [`Router::route`] gave is as good as a new one; so whoever asks for the same
    /// topic again and again need not ask.
    #[inline]
    pub fn routes_epoch(&self) -> u64 {
        self.cache.epoch()
    }

    /// The reader of a route found that `dead` of its keys are stale; with more than half of them it is made anew at
    /// the next [`Router::route`].
    pub fn report_stale(&mut self, topic: &str, route: &Route, dead: usize) {
        if dead * 2 > route.local.len() + route.groups.len() {
            self.cache.forget_topic(self.hasher.text(topic), topic);
        }
    }

    /// Topics with a cached route.
    pub fn cached_len(&self) -> usize {
        self.cache.len()
    }

    fn make_route(&mut self, hash: u64, topic: &str) -> Rc<Route> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.nodes.clear();
        scratch.local.clear();
        scratch.groups.clear();
        self.trie.matches(topic, &mut scratch.nodes);

        let mut remote = self.remote.exact(hash);
        let mut filters = 0;
        if let Some(first) = self.first_exact(hash, topic) {
            filters += self.gather(first, &mut scratch.local);
        }
        scratch.groups.extend(self.groups.list(self.groups.first_exact(hash, topic)));
        for &at in &scratch.nodes {
            let node = self.trie.node(at);
            if node.own != NONE {
                filters += self.gather(self.first_of(node.own), &mut scratch.local);
            }
            scratch.groups.extend(self.groups.list(node.groups));
            remote = remote.union(self.remote.sets.get(node.remote));
        }
        if filters > 1 {
            // A session has at most one subscription to each filter, so a single filter needs no order.
            scratch.local.sort_unstable();
        }
        let twice = filters > 1 && scratch.local.windows(2).any(|pair| pair[0].0 == pair[1].0);
        let route = Rc::new(Route {
            topic: topic.into(),
            local: scratch.local.iter().map(|(_, key)| *key).collect(),
            groups: scratch.groups.as_slice().into(),
            remote,
            repeats: if twice { Repeats::Sometimes } else { Repeats::Never },
        });
        scratch.local.shrink_to(SCRATCH_MAX);
        self.scratch = scratch;
        route
    }

    /// Appends a filter's subscribers; 1 if there are any.
    fn gather(&self, first: u32, local: &mut Vec<(Key, Key)>) -> usize {
        let mut at = first;
        while at != NONE {
            let subscription = &self.subscriptions[at];
            local.push((subscription.session, self.subscriptions.key(at)));
            at = subscription.next;
        }
        usize::from(first != NONE)
    }
}
