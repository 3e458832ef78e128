//! Share groups: each message goes to one member of each group that matches.
//!
//! The shard where it was published chooses a shard, weighted by the counts of connected members that it knows; these
//! may be stale, and only weight the choice. The chosen shard chooses the member. If nobody is connected there any
//! more, it passes the message on, with the list of shards tried, to a shard with any member, connected or not: a
//! count of connected members may be stale just as well. When all were tried and nobody was connected, a second round
//! gives it to the first shard that has any member, as an offline message. Only if there is none it is dropped and
//! counted. // [MQTT-4.8.2-3] [U5-4.8.2-1]
//!
//! Each group gets its own copy, beside ordinary subscriptions. // [U5-4.8.2-2] [U5-4.8.2-3] [U5-3.1.2-10]

use crate::memory::{Key, Message, ShardId, ShardSet};
use crate::session::{Fanout, Grant, Orphan};
use crate::topic::{FilterKey, Members, Presence};

use super::Core;
use super::deliver::as_published;
use super::parcel::{Parcel, Pass, Round};

impl Core {
    /// The shard that a newly published message of this group goes to.
    pub(super) fn choose_shard(&mut self, group: Key) -> Option<ShardId> {
        let random = self.random();
        self.router.choose_shard(group, random, ShardSet::EMPTY)
    }

    /// A message published here for a group whose chosen shard is this one.
    pub(super) fn share_here(&mut self, group: Key, fanout: &mut Fanout<'_>) {
        if let Some(member) = self.member(group, Presence::Online, fanout.message.topic) {
            return self.deliver_shared(member, fanout);
        }
        let message = fanout.shared().clone();
        self.pass(group, message, ShardSet::EMPTY, Round::Online);
    }

    /// A message that was sent here for a group.
    pub(super) fn share_arrived(&mut self, group: u64, fanout: &mut Fanout<'_>) {
        match self.router.group_by_fingerprint(group) {
            Some(group) => self.share_here(group, fanout),
            None => self.counters().dropped_no_member_total.add(1),
        }
    }

    pub(super) fn pass_arrived(&mut self, pass: Pass) {
        match self.router.group_by_fingerprint(pass.group) {
            Some(group) => self.pass(group, pass.message, pass.tried, pass.round),
            None => self.counters().dropped_no_member_total.add(1),
        }
    }

    /// Gives a message to a member here, or passes it on.
    pub(super) fn pass(&mut self, group: Key, message: Message, tried: ShardSet, round: Round) {
        let random = self.random();
        if let Some(member) = self.member(group, Presence::Online, message.topic()) {
            return self.deliver_shared_kept(member, &message);
        }
        if round == Round::Any
            && let Some(member) = self.member(group, Presence::Offline, message.topic())
        {
            return self.deliver_shared_kept(member, &message);
        }
        let tried = tried.with(self.id);
        let others = self.router.group_shards(group, Members::Any).without(self.id);
        let untried = others.minus(tried);
        let (to, tried, round) = match round {
            Round::Online if !untried.is_empty() => {
                (self.prefer_online(group, untried, random), tried, round)
            }
            Round::Online => {
                if let Some(member) = self.member(group, Presence::Offline, message.topic()) {
                    return self.deliver_shared_kept(member, &message);
                }
                (others.iter().next(), ShardSet::EMPTY.with(self.id), Round::Any)
            }
            Round::Any => (untried.iter().next(), tried, round),
        };
        match to {
            Some(shard) => {
                let group = self.router.group_fingerprint(group);
                self.push(shard, Parcel::Share(Box::new(Pass { message, group, tried, round })));
            }
            None => self.counters().dropped_no_member_total.add(1),
        }
    }

    /// One of `shards`, with connected members if there are any that we know of.
    fn prefer_online(&self, group: Key, shards: ShardSet, random: u64) -> Option<ShardId> {
        let online = self.router.group_shards(group, Members::Online).intersection(shards);
        let set = if online.is_empty() { shards } else { online };
        set.iter().nth((random % u64::from(set.len().max(1))) as usize)
    }

    /// Any member that may receive messages on `topic` is as likely as any other, unless some may not.
    fn member(&mut self, group: Key, presence: Presence, topic: &str) -> Option<Key> {
        let random = self.random();
        if !self.access.has_rules() {
            return self.router.choose_member(group, random, presence);
        }
        let count = self.router.group_members(group, presence).len();
        let first = ((u128::from(random) * count as u128) >> 64) as usize;
        (first..count).chain(0..first).find_map(|at| {
            let member = *self.router.group_members(group, presence).get(at)?;
            let session = self.router.subscription(member)?.session;
            self.may_receive(session, topic).then_some(member)
        })
    }

    fn deliver_shared(&mut self, member: Key, fanout: &mut Fanout<'_>) {
        let Some(subscription) = self.router.subscription(member) else { return };
        let session = subscription.session;
        let identifier = [subscription.identifier];
        let message = fanout.message;
        let grant = Grant {
            qos: subscription.options.qos.min(message.qos), // [MQTT-4.8.2-3]
            retain: as_published(subscription.options.retain_as_published && message.retain),
            identifiers: if subscription.identifier == 0 { &[] } else { &identifier }, // [U5-3.3.4-5]
            share: Some(member),
        };
        self.deliver(session, fanout, &grant, &[]);
    }

    fn deliver_shared_kept(&mut self, member: Key, message: &Message) {
        let mut variants = self.scratch.variants.take().unwrap_or_default();
        let mut fanout = Fanout::of_shared(message, &mut variants);
        self.deliver_shared(member, &mut fanout);
        self.scratch.variants = Some(variants);
    }

    /// Messages that a member had and will not finish, with their groups; to be called while its subscriptions exist.
    pub(super) fn groups_of(&self, orphans: Vec<Orphan>) -> Vec<(Option<Key>, Message)> {
        let group = |subscription| match self.router.filter_of(subscription) {
            Some(FilterKey::Group(group)) => Some(group),
            Some(FilterKey::Ordinary(_)) | None => None,
        };
        orphans.into_iter().map(|(subscription, message, _)| (group(subscription), message)).collect()
    }

    /// They go to other members.
    pub(super) fn redistribute(&mut self, orphans: Vec<(Option<Key>, Message)>) {
        for (group, message) in orphans {
            match group.filter(|_| self.stop.is_running()) {
                Some(group) => self.pass(group, message, ShardSet::EMPTY, Round::Online),
                None => self.counters().dropped_session_end_total.add(1),
            }
        }
    }
}
