//! What shards send each other.

use std::net::SocketAddr;

use crate::io::{ListenerId, Socket};
use crate::memory::{Key, Message, ShardSet};
use crate::session::DropReason;
use crate::topic::Round;
use crate::wire::Version;

use super::request::Request;
use super::transports::Layered;

/// One entry of a ring between two shards.
#[derive(Debug)]
pub enum Parcel {
    /// A batch of messages for subscriptions of the receiving shard.
    Publish {
        /// A single message, or several put together: see `several`.
        message: Message,
        /// If there are several, their PUBLISH packets, one behind the other, are the payload, and
        /// this is the version of their publisher.
        several: Option<Version>,
        /// Deliver to ordinary subscriptions.
        ordinary: bool,
        /// Deliver to these share groups, by fingerprint; only a single message.
        groups: Option<Box<Box<[u64]>>>,
    },
    /// A message with RETAIN for the owner of its topic, to be stored and fanned out.
    Relay(Message),
    /// A publisher has sent PUBREL: these messages of QoS 2 will not come again.
    Released(Box<Released>),
    /// A subscriber of the sender asks the owner for retained messages.
    Query(Box<Query>),
    /// Answers a query.
    Retained(Box<Found>),
    /// A message of a share group that no member could take where it was.
    Share(Box<Pass>),
    /// A connection whose client is at home at the receiver.
    HandOff(Box<HandOff>),
}

impl Parcel {
    /// The answer to a query.
    pub(super) fn answer(found: Found) -> Parcel {
        Parcel::Retained(Box::new(found))
    }

    /// Bytes that it keeps while it waits.
    pub(super) fn cost(&self) -> usize {
        let own = size_of::<Parcel>();
        own + match self {
            Parcel::Publish { message, .. } | Parcel::Relay(message) => message.cost(),
            Parcel::Share(pass) => pass.message.cost(),
            Parcel::HandOff(hand_off) => hand_off.cost(),
            // These share messages with the store, or are small.
            Parcel::Retained(_) | Parcel::Query(_) => 64,
            Parcel::Released(released) => 64 + 2 * released.packet_ids.len(),
        }
    }
}

/// Packet Identifiers of messages that a publisher will not send again.
#[derive(Debug)]
pub struct Released {
    /// Keyed hash of its Client Identifier.
    pub publisher: u64,
    pub packet_ids: Box<[u16]>,
}

/// A batch of retained messages is wanted.
#[derive(Debug)]
pub struct Query {
    /// The asking session, its subscription and that one's cursor; comes back with the answer.
    pub session: Key,
    pub subscription: Key,
    pub cursor: u64,
    pub filter: Box<str>,
    /// Topics after this one, in byte order.
    pub after: Option<Box<str>>,
}

/// A batch of retained messages.
#[derive(Debug)]
pub struct Found {
    pub session: Key,
    pub subscription: Key,
    pub cursor: u64,
    pub messages: Vec<Message>,
    /// Where to go on; `None` at the end.
    pub after: Option<Box<str>>,
}

/// A message of a share group on its way to a member.
#[derive(Debug)]
pub struct Pass {
    pub message: Message,
    pub group: u64,
    pub way: Way,
}

/// How far the search for a member has come; see `share`.
#[derive(Copy, Clone, Debug, Default)]
pub struct Way {
    pub round: Round,
    /// Shards that had no suitable member in this round.
    pub tried: ShardSet,
    /// Why the newest member that was asked could not take it.
    pub refused: Option<DropReason>,
}

/// A connection that moves, with everything that belongs to it.
#[derive(Debug)]
pub struct HandOff {
    pub socket: Socket,
    pub peer: SocketAddr,
    /// Where it was accepted.
    pub listener: ListenerId,
    pub transport: Option<Box<Layered>>,
    pub(super) request: Box<Request>,
    /// What was read behind CONNECT.
    pub bytes: Vec<u8>,
}

impl HandOff {
    fn cost(&self) -> usize {
        let transport = self.transport.as_ref().map_or(0, |transport| transport.cost());
        size_of::<HandOff>() + self.bytes.capacity() + self.request.cost() + transport
    }
}
