//! A session and what this shard keeps with it.

use std::sync::Arc;

use crate::access::Rights;
use crate::clock::{Millis, NEVER};
use crate::memory::Key;
use crate::session::Session;
use crate::topic::SubscriptionSet;

use super::aside::Aside;
use super::cursors::Cursors;
use super::will::Will;

pub(super) struct Slot {
    pub client_id: Box<str>,
    /// Whose it is; `None` if an anonymous client began it.
    pub user: Option<Arc<str>>,
    /// The user has shown a certificate for it, and so is in no file of users.
    pub by_certificate: bool,
    /// What the rules of the moment say about its client.
    pub rights: Rights,
    /// Keyed hash of the Client Identifier.
    pub client_hash: u64,
    pub session: Session,
    pub subscriptions: SubscriptionSet,
    /// The live connection, if any.
    pub connection: Option<Key>,
    /// When the CONNECT of the newest connection was read.
    pub connected_at: Millis,
    /// Session Expiry Interval as the client asked for.
    pub asked_expiry_s: u32,
    /// Session Expiry Interval in force.
    pub expiry_s: u32,
    /// When the session ends; [`NEVER`] while it is connected.
    pub ends_at: Millis,
    pub will: Option<Box<Will>>,
    /// It is written down, and everything in it.
    pub is_kept: bool,
    /// Its queue was full and the policy is to end it, which is about to happen.
    pub overflowed: bool,
    /// Retained messages on their way to new subscriptions.
    pub cursors: Option<Box<Cursors>>,
    pub aside: Aside,
}

// See `Connection`: held in memory a million times.
const _: () = assert!(size_of::<Slot>() <= 168);

/// A session's record and its place in the table of Client Identifiers.
const SLOT_BYTES: usize = size_of::<Slot>() + 32;

impl Slot {
    pub fn new(client_id: Box<str>, client_hash: u64, user: Option<Arc<str>>) -> Slot {
        Slot {
            client_id,
            user,
            by_certificate: false,
            rights: Rights::default(),
            client_hash,
            session: Session::default(),
            subscriptions: SubscriptionSet::default(),
            connection: None,
            connected_at: 0,
            asked_expiry_s: 0,
            expiry_s: 0,
            ends_at: NEVER,
            will: None,
            is_kept: false,
            overflowed: false,
            cursors: None,
            aside: Aside::default(),
        }
    }

    /// Bytes charged to `Class::Session` for it; its subscriptions are charged by the router's size.
    pub fn cost(&self) -> usize {
        Slot::cost_of(&self.client_id) + self.will.as_ref().map_or(0, |will| will.cost())
    }

    /// The same of one without a will.
    pub fn cost_of(client_id: &str) -> usize {
        SLOT_BYTES + client_id.len()
    }

    /// When it is looked at whether share groups wait in vain; [`NEVER`] if nothing of theirs waits.
    pub fn lag_due_at(&self) -> Millis {
        self.aside.lag().map_or(NEVER, |lag| lag.due_at)
    }

    /// When the will is due; [`NEVER`] while the session is connected, or without one.
    pub fn will_at(&self) -> Millis {
        self.will.as_ref().map_or(NEVER, |will| will.due_at)
    }
}
