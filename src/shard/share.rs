//! Share groups: each message goes to one member of each group that matches.
//!
//! The shard where it was published chooses a shard, weighted by the counts of connected members that it knows; these
//! may be stale, and only weight the choice. The chosen shard chooses a member at random, and mostly that is all.
//!
//! A member that cannot be sent the message at once is passed over: its window is full, or its socket has no room. Then
//! the message looks for another member in up to three rounds ([`Round`]). In each it visits the shards with members, one
//! after the other, and carries the list of those that it has tried. First it looks for a member that can be sent it
//! now; then for the shortest queue of a connected member, except one that takes nothing (see `share_stuck`); then for
//! any queue. It is dropped and counted only after the last round. // [MQTT-4.8.2-3] [U5-4.8.2-1]
//!
//! A count of connected members may be stale just as well, so the first round visits every shard with any member. While
//! all members everywhere are busy, a message does not go around all shards: each remembers for a few milliseconds which
//! others had nobody (`Router::group_is_full`).
//!
//! Each group gets its own copy, in addition to ordinary subscriptions. // [U5-4.8.2-2] [U5-4.8.2-3] [U5-3.1.2-10]

use crate::memory::{Key, Message, ShardId, ShardSet};
use crate::session::{Delivered, DropReason, Fanout, Grant, Share};
use crate::topic::{Members, Presence, Round};
use crate::wire::Qos;

use super::Core;
use super::deliver::as_published;
use super::env::Env;
use super::local::Local;
use super::order::Heard;
use super::parcel::{Pass, Way};
use super::sessions::Sessions;

/// Members of one shard that are looked at for one message in a round, beginning with any of them.
const MEMBERS_ASKED_MAX: usize = 256;

impl Sessions {
    /// The shard that a newly published message of this group goes to.
    pub fn choose_shard(&mut self, group: Key, env: &mut Env, _: Heard<'_>) -> Option<ShardId> {
        let random = env.random();
        self.router.choose_shard(group, random, ShardSet::EMPTY)
    }

    /// Shards that may have somebody for this round.
    fn untried(&self, group: Key, way: &Way, env: &Env, _: Heard<'_>) -> ShardSet {
        let who = if way.round == Round::Queue { Members::Online } else { Members::Any };
        let tried = way.tried.union(self.router.group_full(group, way.round, env.now));
        self.router.group_shards(group, who).minus(tried)
    }

    /// One of `shards`, with connected members if there are any that we know of.
    fn prefer_online(&self, group: Key, shards: ShardSet, env: &mut Env) -> Option<ShardId> {
        let online = self.router.group_shards(group, Members::Online).intersection(shards);
        let set = if online.is_empty() { shards } else { online };
        let random = env.random();
        set.iter().nth((random % u64::from(set.len().max(1))) as usize)
    }

    /// Any member that may receive messages on `topic` is as likely as any other, unless some may not.
    fn member(&mut self, group: Key, presence: Presence, topic: &str, env: &mut Env) -> Option<Key> {
        let random = env.random();
        if !env.access.has_rules() {
            return self.router.choose_member(group, random, presence);
        }
        let count = self.router.group_members(group, presence).len();
        let first = ((u128::from(random) * count as u128) >> 64) as usize;
        (first..count).chain(0..first).find_map(|at| {
            let member = *self.router.group_members(group, presence).get(at)?;
            let session = self.router.subscription(member)?.session;
            self.may_receive(session, topic, env).then_some(member)
        })
    }
}

impl Local {
    /// Whether a member of this shard took the message.
    fn offer_in_round(&mut self, group: Key, fanout: &mut Fanout<'_>, way: &mut Way) -> bool {
        match way.round {
            Round::Now => {
                let ready = |core: &Local, member| core.is_ready(member, fanout.message.qos);
                let members = self.members(group, Presence::Online, fanout.message.topic, ready);
                self.offer_to(members, fanout, Share::Now, way)
            }
            Round::Queue => {
                let moves = |core: &Local, member| !core.sessions.is_stuck(member);
                let members = self.members(group, Presence::Online, fanout.message.topic, moves);
                self.offer_shortest(members, fanout, way)
            }
            Round::Any => {
                let topic = fanout.message.topic;
                let online = self.members(group, Presence::Online, topic, |_, _| true);
                self.offer_shortest(online, fanout, way) || {
                    let offline = self.members(group, Presence::Offline, topic, |_, _| true);
                    self.offer_to(offline, fanout, Share::Queued, way)
                }
            }
        }
    }

    /// Offers the message to one after the other.
    fn offer_to(
        &mut self,
        members: Vec<Key>,
        fanout: &mut Fanout<'_>,
        share: fn(Key) -> Share,
        way: &mut Way,
    ) -> bool {
        members.into_iter().any(|member| match self.offer_shared(fanout, share(member)) {
            Ok(()) => true,
            Err(reason) => {
                way.refused = Some(reason);
                false
            }
        })
    }

    /// The same, beginning with those for whom the fewest messages wait.
    fn offer_shortest(&mut self, mut members: Vec<Key>, fanout: &mut Fanout<'_>, way: &mut Way) -> bool {
        members.sort_by_key(|member| self.sessions.queue_len_of(*member));
        self.offer_to(members, fanout, Share::Queued, way)
    }

    /// Nobody can take the message: it goes the way of one that does not fit a queue.
    fn drop_shared(&mut self, group: Key, fanout: &mut Fanout<'_>, refused: Option<DropReason>) {
        let topic = fanout.message.topic;
        let member = self
            .sessions
            .member(group, Presence::Online, topic, &mut self.env)
            .or_else(|| self.sessions.member(group, Presence::Offline, topic, &mut self.env));
        match (member, refused) {
            (Some(member), _) => {
                let dropped = self.offer_shared(fanout, Share::Last(member));
                debug_assert!(dropped.is_ok(), "the last member has to take it or drop it");
            }
            (None, Some(reason)) => self.env.count_drop(reason, 1),
            (None, None) => self.env.counters().dropped_no_member_total.add(1),
        }
    }

    /// Members that may receive messages on `topic` and are `chosen`, in order from any of them on.
    fn members(
        &mut self,
        group: Key,
        presence: Presence,
        topic: &str,
        chosen: impl Fn(&Local, Key) -> bool,
    ) -> Vec<Key> {
        let random = self.env.random();
        let count = self.sessions.router.group_members(group, presence).len();
        let first = ((u128::from(random) * count as u128) >> 64) as usize;
        let mut members = Vec::new();
        for at in (first..count).chain(0..first).take(MEMBERS_ASKED_MAX) {
            let member = self.sessions.router.group_members(group, presence)[at];
            if chosen(self, member)
                && let Some(session) = self.sessions.router.subscription(member).map(|s| s.session)
                && self.sessions.may_receive(session, topic, &mut self.env)
            {
                members.push(member);
            }
        }
        members
    }

    /// Whether a connected member would be sent a message of `qos` at once, as far as can be seen without its size.
    fn is_ready(&self, member: Key, qos: Qos) -> bool {
        let Some(subscription) = self.sessions.router.subscription(member) else { return false };
        let Some(slot) = self.sessions.arena.get(subscription.session) else { return false };
        let connection = slot.connection.and_then(|key| self.clients.connections.get(key));
        let Some(live) = connection.and_then(|connection| connection.live()) else { return false };
        subscription.options.qos.min(qos) == Qos::AtMostOnce
            || slot.session.is_ready(&live.link, &self.env.limits)
    }

    /// Delivers to the member that `share` names.
    ///
    /// # Errors
    /// Why it cannot take the message, if another one may.
    fn offer_shared(&mut self, fanout: &mut Fanout<'_>, share: Share) -> Result<(), DropReason> {
        let Some(subscription) =
            share.subscription().and_then(|member| self.sessions.router.subscription(member))
        else {
            debug_assert!(false, "a member is a subscription of this shard");
            return Err(DropReason::Offline);
        };
        let session = subscription.session;
        let identifier = [subscription.identifier];
        let message = fanout.message;
        let grant = Grant {
            qos: subscription.options.qos.min(message.qos), // [MQTT-4.8.2-3]
            retain: as_published(subscription.options.retain_as_published && message.retain),
            identifiers: if subscription.identifier == 0 { &[] } else { &identifier }, // [U5-3.3.4-5]
            share,
        };
        match self.offer(session, fanout, &grant, &[]) {
            Some(Delivered::Refused(reason)) => return Err(reason),
            Some(Delivered::Queued | Delivered::QueuedDroppingOldest) => {
                self.sessions.watch_share(session, &mut self.env)
            }
            Some(Delivered::Sent | Delivered::Dropped(_) | Delivered::Disconnect) | None => {}
        }
        Ok(())
    }
}

impl Core {
    /// A message published here for a group whose chosen shard is this one.
    pub(super) fn share_here(&mut self, group: Key, fanout: &mut Fanout<'_>, heard: Heard<'_>) {
        if let Some(member) =
            self.local.sessions.member(group, Presence::Online, fanout.message.topic, &mut self.local.env)
            && self.local.offer_shared(fanout, Share::Now(member)).is_ok()
        {
            return;
        }
        self.share_on(group, fanout, Way::default(), heard);
    }

    /// A message that was sent here for a group.
    pub(super) fn share_arrived(&mut self, group: u64, fanout: &mut Fanout<'_>, heard: Heard<'_>) {
        match self.local.sessions.router.group_by_fingerprint(group) {
            Some(group) => self.share_here(group, fanout, heard),
            None => self.local.env.counters().dropped_no_member_total.add(1),
        }
    }

    pub(super) fn pass_arrived(&mut self, pass: Pass, heard: Heard<'_>) {
        let Pass { message, group, way } = pass;
        match self.local.sessions.router.group_by_fingerprint(group) {
            Some(group) => {
                self.local.sessions.router.group_is_full(group, way.round, way.tried, self.local.env.now);
                self.with_fanout(&message, |core, fanout| core.share_on(group, fanout, way, heard));
            }
            None => self.local.env.counters().dropped_no_member_total.add(1),
        }
    }

    /// Gives a message to a member here, or passes it on.
    #[cold]
    pub(super) fn share_on(&mut self, group: Key, fanout: &mut Fanout<'_>, mut way: Way, heard: Heard<'_>) {
        loop {
            if self.local.offer_in_round(group, fanout, &mut way) {
                return;
            }
            way.tried.insert(self.local.env.id);
            let untried = self.local.sessions.untried(group, &way, &self.local.env, heard);
            if let Some(to) = self.local.sessions.prefer_online(group, untried, &mut self.local.env) {
                if self.local.env.keep.is_some() {
                    let pushed = self.exchange.links.pushed(to);
                    let group = self.local.sessions.router.group_fingerprint(group);
                    self.local.env.give(to, pushed, group, fanout);
                }
                let (message, group) =
                    (fanout.shared().clone(), self.local.sessions.router.group_fingerprint(group));
                return self.exchange.push_share(to, Pass { message, group, way }, heard, &self.local.env);
            }
            // Nothing waits at QoS 0.
            way.round = match way.round {
                Round::Now if fanout.message.qos > Qos::AtMostOnce => Round::Queue,
                Round::Queue => Round::Any,
                Round::Now | Round::Any => return self.local.drop_shared(group, fanout, way.refused),
            };
            way.tried = ShardSet::EMPTY;
        }
    }

    pub(super) fn with_fanout(&mut self, message: &Message, f: impl FnOnce(&mut Core, &mut Fanout<'_>)) {
        let mut variants = self.local.scratch.variants.take().unwrap_or_default();
        f(self, &mut Fanout::of_shared(message, &mut variants));
        self.local.scratch.variants = Some(variants);
    }

    /// They go to other members.
    pub(super) fn redistribute(&mut self, orphans: Vec<(Option<Key>, Message)>, heard: Heard<'_>) {
        for (group, message) in orphans {
            match group.filter(|_| !self.local.env.is_stopping) {
                Some(group) => {
                    self.with_fanout(&message, |core, fanout| {
                        core.share_on(group, fanout, Way::default(), heard)
                    });
                }
                None => self.local.env.counters().dropped_session_end_total.add(1),
            }
        }
    }
}
