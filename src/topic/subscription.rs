//! One subscription, and what it is tied to.

use super::NONE;
use crate::memory::Key;
use crate::wire::{self, Qos};

/// When retained messages are sent for a SUBSCRIBE.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum RetainHandling {
    /// Always. // [MQTT-3.3.1-9]
    Send,
    /// Only where the subscription is new. // [MQTT-3.3.1-10]
    SendIfNew,
    /// Never. // [MQTT-3.3.1-11]
    DontSend,
}

impl From<wire::RetainHandling> for RetainHandling {
    fn from(asked: wire::RetainHandling) -> RetainHandling {
        match asked {
            wire::RetainHandling::SendAtSubscribe => RetainHandling::Send,
            wire::RetainHandling::SendIfNew => RetainHandling::SendIfNew,
            wire::RetainHandling::DoNotSend => RetainHandling::DontSend,
        }
    }
}

/// Subscription Options, with the QoS as granted.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Options {
    pub qos: Qos,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: RetainHandling,
}

/// Whether a member of a share group has a connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Presence {
    Online,
    Offline,
}

/// One filter of one session.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub session: Key,
    /// Subscription Identifier; 0 is none.
    pub identifier: u32,
    pub options: Options,
    pub(super) target: Target,
    /// Ordinary: the neighbours in the list of the filter's subscribers. Shared: `before` is the member's place.
    pub(super) before: u32,
    pub(super) next: u32,
}

// A million idle clients have a subscription each: with the generation it fills half a cache line.
const _: () = assert!(size_of::<Subscription>() == 28);

impl Subscription {
    pub(super) fn new(session: Key, target: Target, options: Options, identifier: u32) -> Subscription {
        Subscription { session, identifier, options, target, before: NONE, next: NONE }
    }

    /// Whether it is a membership in a share group.
    pub fn is_shared(&self) -> bool {
        matches!(self.target.get(), Where::Group(_))
    }
}

pub(super) const GROUP_BIT: u32 = 1 << 31;

/// What a filter text names on this shard: an ordinary filter or a share group, by index.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Target(pub(super) u32);

pub(super) enum Where {
    Filter(u32),
    Group(u32),
}

impl Target {
    pub(super) fn filter(index: u32) -> Target {
        Target(index)
    }

    pub(super) fn group(index: u32) -> Target {
        Target(index | GROUP_BIT)
    }

    pub(super) fn get(self) -> Where {
        if self.0 & GROUP_BIT == 0 { Where::Filter(self.0) } else { Where::Group(self.0 & !GROUP_BIT) }
    }
}
