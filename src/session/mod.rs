//! The MQTT behaviour of one client, sans-IO: what it publishes, what is delivered to it, what
//! survives its connection.
//!
//! What it is not: it neither reads nor sends a byte, knows no topic tree, no clock and no other
//! session. The shard decodes packets, calls `handle_*`, and encodes the answer; deliveries are
//! written by [`Session::deliver`] and [`Session::pump`] straight into the connection's outbox.
//!
//! - [`Session`] is what outlives a connection, [`Link`] what does not.
//! - Client to broker: [`Session::handle_publish`], [`Session::handle_following`] for the others of
//!   its batch, then [`Session::acknowledge_publish`] or [`Session::refuse_publish`];
//!   [`Session::handle_pubrel`].
//! - Broker to client: [`Session::deliver_front`], [`Session::deliver`];
//!   [`Session::handle_puback`], [`Session::handle_pubrec`], [`Session::handle_pubcomp`];
//!   [`Session::pump`] after each of these, after a connection was resumed, and when the socket has
//!   taken bytes.
//! - Life: [`Session::connection_lost`], [`Session::resume`], [`Session::take_unsent_shared`],
//!   [`Session::take_unacked_shared`], [`Session::release`].
//!
//! Invariants
//! - A Packet Identifier in use is never given to another message, across connections too. // [MQTT-2.2.1-4]
//! - QoS 1 and 2 leave in the order of [`Session::deliver`]: nothing new is sent while anything is queued or is still
//!   to be resent. // [MQTT-4.6.0-6]
//! - A PUBLISH is sent once per connection at most, a PUBREL too unless PUBREC is repeated. // [MQTT-4.4.0-1]
//! - Every byte that is kept is charged to `Class::Queue` and given back when it goes; a session without messages owns
//!   no heap memory.

mod alias;
mod batch;
mod egress;
mod fanout;
mod flight;
mod ingress;
mod kept;
mod link;
mod packet;
mod queue;
mod restore;

#[cfg(test)]
mod model;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use crate::clock::Millis;
use crate::limits::Limits;
use crate::memory::{Budget, Key, Message, Outbox};
use crate::wire::{Qos, Version};

// What tests and benches use besides the broker, with what stands below.
pub use egress::Spares;
pub use fanout::{Fanout, Variants};
pub use link::Link;
pub use restore::{Place, Restored};

pub(crate) use batch::{Batch, Entry};
pub(crate) use fanout::Verbatim;

use egress::Egress;
use ingress::PacketIds;

/// Packet Identifiers that one session may have in use at a time, whatever `Limits::send_maximum` says: with more than
/// half of them in use, finding a free one would no longer take constant time.
pub const IN_FLIGHT_MAX: usize = 32_768;

/// What one client's deliveries and publishes have left behind.
#[derive(Debug, Default)]
pub struct Session {
    /// QoS 2 messages of the client that wait for its PUBREL.
    received: PacketIds,
    /// Messages for the client; there only while there are any.
    egress: Option<Box<Egress>>,
    /// Where the search for a free Packet Identifier goes on; outlives `egress` so that identifiers rest before they
    /// are used again.
    packet_id_next: u16,
}

const _: () = assert!(size_of::<Session>() <= 24, "a million idle sessions are held in memory");

/// Where deliveries go while the client is connected.
#[derive(Debug)]
pub struct Wire<'a> {
    pub link: &'a mut Link,
    pub outbox: &'a mut Outbox,
    /// Bytes that may still be added before `Limits::send_buffer_bytes_max` of them wait for the socket.
    pub send_room: usize,
}

/// What every call may need beside its subject.
#[derive(Debug)]
pub struct Cx<'a> {
    pub now: Millis,
    pub limits: &'a Limits,
    pub budget: &'a mut Budget,
    /// Counts the messages that were kept and are deleted without having been sent. A message that
    /// [`Session::deliver`] drops at once is named by what it returns, and not counted here.
    pub drops: &'a mut Drops,
    pub spares: &'a mut Spares,
    /// There for a session that is written down.
    pub notes: Option<&'a mut Notes>,
}

/// What a call changes about the messages of a session that is written down, and how far the disk is with that.
#[derive(Debug, Default)]
pub struct Notes {
    /// In order.
    pub list: Vec<Note>,
    /// What this call changes is in the commit of this number.
    pub commit: u64,
    /// The commit up to which all are on disk.
    pub on_disk: u64,
}

impl Cx<'_> {
    #[inline]
    fn note(&mut self, note: Note) {
        if let Some(notes) = &mut self.notes {
            notes.list.push(note);
        }
    }

    /// Whether a message must not be sent before the disk has its Packet Identifier: else, after a crash, its client could
    /// take another one for a repetition.
    #[inline]
    fn sends_later(&self, qos: Qos) -> bool {
        qos == Qos::ExactlyOnce && self.notes.is_some()
    }
}

/// A change of the messages that a session keeps. All of them, applied in order, give what it keeps.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The message that is delivered is the last one of the queue.
    Queued,
    /// The message that is delivered is on its way to the client.
    Flying { packet_id: u16 },
    /// The first one of the queue is on its way.
    Sent { packet_id: u16 },
    /// The delivery is over, and its Packet Identifier free.
    Acked { packet_id: u16 },
    /// The message of the delivery is gone, PUBREL is owed.
    Released { packet_id: u16 },
    /// The message at this place of the queue is gone.
    Dropped { at: usize },
}

/// Messages that were deleted while they waited in a session, by reason.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// Made room for a newer one (`QueueFull::DropOldest`).
    pub oldest: u64,
    /// Expired before their first sending. // [MQTT-3.3.2-5]
    pub expired: u64,
    /// Larger than this client takes. // [MQTT-3.1.2-25]
    pub packet_too_large: u64,
}

/// How one session gets a message.
#[derive(Copy, Clone, Debug)]
pub struct Grant<'a> {
    /// The lower one of the level that the message was published at and the level granted.
    pub qos: Qos,
    pub retain: Retain,
    /// Of all subscriptions that matched. // [MQTT-3.3.4-3] [MQTT-3.3.4-4]
    pub identifiers: &'a [u32],
    pub share: Share,
}

/// Whether a delivery is for a share group, and what happens if its member cannot take it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Share {
    /// It is for an ordinary subscription.
    No,
    /// By this shared subscription. The message is sent at once, or another member gets it.
    Now(Key),
    /// The message may wait in the session's queue if there is room; else another member gets it.
    Queued(Key),
    /// No other member can take it: what does not fit is dropped as the policy says.
    Last(Key),
}

impl Share {
    /// The shared subscription that the delivery is for.
    pub fn subscription(self) -> Option<Key> {
        match self {
            Share::No => None,
            Share::Now(key) | Share::Queued(key) | Share::Last(key) => Some(key),
        }
    }

    /// Whether another member may get what this one cannot take.
    fn passes_on(self) -> bool {
        matches!(self, Share::Now(_) | Share::Queued(_))
    }

    /// What becomes of a message that is not taken for this reason.
    fn refuse(self, reason: DropReason) -> Delivered {
        if self.passes_on() { Delivered::Refused(reason) } else { Delivered::Dropped(reason) }
    }
}

/// The RETAIN flag of a delivery.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Retain {
    Clear,
    /// Set by a subscription with Retain As Published. A session may have one from a 5.0 client and be resumed by one of
    /// 3.x, which knows the flag for retained messages alone. // [311:MQTT-3.3.1-9]
    AsPublished,
    Set,
}

impl Retain {
    /// The flag in a packet of `version`.
    #[inline]
    pub(super) fn is_set(self, version: Version) -> bool {
        // In the order of the declaration, so that deliveries need no branch for it.
        self as u8 > u8::from(version != Version::V5)
    }
}

/// What became of a message in [`Session::deliver`].
#[must_use]
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// It is in the outbox.
    Sent,
    /// It waits for quota, room, its turn or a connection.
    Queued,
    /// It waits, and older ones were deleted for it; they are counted in [`Cx::drops`].
    QueuedDroppingOldest,
    /// It is neither sent nor kept.
    Dropped(DropReason),
    /// The same, but another member of the share group may take it: nothing is lost yet.
    Refused(DropReason),
    /// The queue is full and the policy is `QueueFull::Disconnect`: answer 0x97, close, end the session.
    Disconnect,
}

/// Why a message was dropped by [`Session::deliver`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// QoS 0 without a connection.
    Offline,
    /// QoS 0 while too much waits for the socket.
    SendBuffer,
    /// The session's queue is full.
    QueueFull,
    /// The memory for queues is used up.
    Memory,
    /// The packet would be larger than the client's Maximum Packet Size. // [MQTT-3.1.2-25]
    PacketTooLarge,
    /// Its Message Expiry Interval is over. // [MQTT-3.3.2-5]
    Expired,
}

/// What to do with a client's PUBLISH.
#[must_use]
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// A new message.
    Route,
    /// A QoS 2 message that has been routed already: answer PUBREC 0x00. // [MQTT-4.3.3-10]
    Repeat,
    /// More are unacknowledged than was allowed: 0x93, close. // [MQTT-3.3.4-7]
    ReceiveMaximumExceeded,
}

/// What a PUBACK or PUBCOMP was.
#[must_use]
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Acked {
    /// It ended a delivery: its Packet Identifier is free, and [`Session::pump`] may find quota.
    Completed,
    /// It named no delivery that waits for it; nothing is answered. // [U5-4.3-3]
    Ignored,
}

/// The answer to a PUBREC.
#[must_use]
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PubrecReply {
    /// PUBREL 0x00.
    PubRel,
    /// PUBREL 0x92.
    PubRelNotFound,
    /// Nothing: an error code ended the delivery, or named none.
    None,
}

/// What [`Session::pump`] did.
#[must_use]
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Pumped {
    /// PUBLISH packets written, resends included.
    pub published: u32,
    /// Their payloads.
    pub payload_bytes: u64,
    /// PUBREL packets written.
    pub released: u32,
    pub more: More,
}

/// What the rest waits for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum More {
    /// There is no rest.
    Nothing,
    /// An acknowledgement.
    Quota,
    /// The socket.
    Room,
    /// The disk, which is to have this commit.
    Disk(u64),
}

/// A message of a shared subscription that leaves its session for another member: the subscription, the message, the
/// level of the delivery that did not happen.
pub type Orphan = (Key, Message, Qos);
