//! A network connection: its phase, what the kernel owns of it, and its bytes both ways.
//!
//! `receive_armed`, `cancel_in_flight` and `send_in_flight` are true exactly while the kernel owns the operation. Only
//! `reap` and `tend` change them. A connection leaves its shard, closed or handed over, only when all three are false.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::rc::Rc;

use crate::access::Identity;
use crate::clock::{Millis, NEVER};
use crate::io::{ListenerId, Socket};
use crate::memory::{Key, Outbox, ShardId, ShardSet};
use crate::session::Link;
use crate::topic::Route;
use crate::wire::{Reason, Version};

use super::secure::Secure;
use super::waits::Blocked;

#[derive(Debug)]
pub(super) struct Connection {
    pub socket: Socket,
    /// Apart, since together they are half as large again; the scope of a link-local address is not kept.
    peer_ip: IpAddr,
    peer_port: u16,
    /// Where it was accepted.
    pub listener: ListenerId,
    /// Who its client is; known before the connection goes home, and the session's once it is there.
    pub identity: Option<Box<Identity>>,
    /// What lies between the socket and the stream; a plain connection has nothing there.
    pub secure: Option<Box<Secure>>,
    pub phase: Phase,
    pub receive_armed: bool,
    pub cancel_in_flight: bool,
    pub send_in_flight: bool,
    /// In the list of connections that `tend` looks at.
    pub dirty: bool,
    /// The peer has closed its side.
    pub eof: bool,
    /// A send or a receive failed: nothing more is sent, and the receive has ended or is about to.
    pub broken: bool,
    /// Bytes that are not parsed yet: a partial packet, or everything while the connection is paused.
    pub partial: Vec<u8>,
    /// What is sent next.
    pub outbox: Outbox,
    /// Bytes of the send in flight.
    pub in_flight_bytes: usize,
    /// Charged to `Class::Receive`.
    pub charged_receive: usize,
    /// Charged to `Class::Send`.
    pub charged_send: usize,
    /// The memory for sending is used up: nothing more is staged for it that can be left out or wait.
    pub starved: bool,
    /// When something is due: CONNECT, Keep Alive, the end of lingering, the end of a takeover.
    pub deadline: Millis,
    /// When the earliest timer of this connection fires.
    pub timer_at: Millis,
}

// A million idle clients are held in memory, and each is one of these, one `Live` and one `Slot`. What only some of them
// have is behind a pointer; what a message touches is not.
const _: () = assert!(size_of::<Connection>() <= 168);
const _: () = assert!(size_of::<Live>() <= 96);

/// How far a connection is.
#[derive(Debug)]
pub(super) enum Phase {
    /// Accepted; no whole CONNECT yet.
    Opening,
    /// Its CONNECT is at the front of `partial`; the password is being verified, or is wrong and the answer held back.
    Verifying(Box<Verifying>),
    /// Its CONNECT, at the front of `partial`, belongs to another shard whose ring is full.
    HandOff,
    /// At home; its session's former connection has to end first. The CONNECT is at the front of `partial`.
    Waiting(Box<Successor>),
    /// CONNECT was accepted.
    Live(Box<Live>),
    /// Logically over.
    Closing(Closing),
}

/// What a connection waits for whose password is hashed.
#[derive(Debug)]
pub(super) struct Verifying {
    pub home: ShardId,
    /// When its CONNECT was read.
    pub connected_at: Millis,
    pub refusal: Option<Refusal>,
}

/// What a connection waits for that takes a session over.
#[derive(Debug)]
pub(super) struct Successor {
    pub session: Key,
    /// When its CONNECT was read.
    pub connected_at: Millis,
}

/// Why a CONNECT is refused: the code of v5, and a text for the log.
pub(super) type Refusal = (Reason, &'static str);

/// What holds while a client is connected.
#[derive(Debug)]
pub(super) struct Live {
    pub session: Key,
    pub link: Link,
    /// 0 for none.
    pub keep_alive_s: u16,
    /// While it is not read for what it owes, also when its peer last took bytes: until then it could not be heard.
    pub last_packet_at: Millis,
    /// While it is not read for what it owes: what its peer had not taken when it was last looked; see `tend`.
    pub unsent_bytes: Option<NonZeroU32>,
    /// Keyed hash of the Client Identifier.
    pub client_hash: u64,
    pub mode: Mode,
    /// In mode `Direct` shards that were routed to, in mode `Owner` owners that were relayed to, since the mode began.
    pub touched: ShardSet,
    /// Why it is not parsed; boxed, since few are and each has room for it.
    pub blocked: Option<Box<Blocked>>,
    /// Another connection takes the session over; this one is read to its end.
    pub taken_over: bool,
    /// What it published to last, which is mostly what it publishes to next.
    pub known: Option<Known>,
}

impl Live {
    /// How long it may be silent: 1.5 times the Keep Alive; 0 for as long as it likes. // [U5-3.1.2-2] 3.1.1: [U311-3.1.2-2]
    pub fn idle_max_ms(&self) -> Millis {
        Millis::from(self.keep_alive_s) * 1500
    }
}

/// A topic and its route, as long as [`crate::topic::Router::routes_epoch`] stays the same.
#[derive(Debug)]
pub(super) struct Known {
    pub route: Rc<Route>,
    pub epoch: u64,
}

/// Bytes that may wait for a client, once the memory for sending is used up, before it is not read any more.
const STARVED_BYTES_MAX: usize = 16 * 1024;

/// How a connection publishes at the moment; see `publish`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// It has not published yet; a former connection of its client may have, in either mode, and its will may be held.
    New,
    /// The same, but what was held when it first published is out.
    WillsOut,
    Direct,
    Owner,
}

/// The steps of a close.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Closing {
    /// Send what is staged, then end our side.
    Flush,
    /// Our side is ended; what comes is thrown away until the peer ends its own. Closing earlier would let the kernel
    /// answer unread bytes with a reset, which can destroy what was sent last.
    Drain,
    /// End everything now.
    Abort,
}

/// Why a connection ends, for its will, the reason code and the log.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// DISCONNECT 0x00: no will.
    Disconnected,
    /// DISCONNECT with any other code.
    DisconnectedWithWill,
    /// The connection is gone without a DISCONNECT.
    Lost,
    /// Another connection has the session.
    TakenOver,
    /// We end it; the code goes to a v5 client.
    Refused(Reason, &'static str),
}

impl Live {
    /// From now on it publishes in `mode`: what it sent in the other one was consumed.
    pub fn switch_to(&mut self, mode: Mode) {
        self.mode = mode;
        self.touched = ShardSet::EMPTY;
    }
}

impl Connection {
    pub fn new(socket: Socket, peer: SocketAddr, listener: ListenerId, deadline: Millis) -> Connection {
        Connection {
            socket,
            peer_ip: peer.ip(),
            peer_port: peer.port(),
            listener,
            identity: None,
            secure: None,
            phase: Phase::Opening,
            receive_armed: false,
            cancel_in_flight: false,
            send_in_flight: false,
            dirty: false,
            eof: false,
            broken: false,
            partial: Vec::new(),
            outbox: Outbox::default(),
            in_flight_bytes: 0,
            charged_receive: 0,
            charged_send: 0,
            starved: false,
            deadline,
            timer_at: NEVER,
        }
    }

    /// The address of the client.
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.peer_ip, self.peer_port)
    }

    pub fn live(&self) -> Option<&Live> {
        match &self.phase {
            Phase::Live(live) => Some(live),
            Phase::Opening | Phase::Verifying(_) | Phase::HandOff | Phase::Waiting(_) | Phase::Closing(_) => {
                None
            }
        }
    }

    pub fn live_mut(&mut self) -> Option<&mut Live> {
        match &mut self.phase {
            Phase::Live(live) => Some(live),
            Phase::Opening | Phase::Verifying(_) | Phase::HandOff | Phase::Waiting(_) | Phase::Closing(_) => {
                None
            }
        }
    }

    pub fn session(&self) -> Option<Key> {
        match &self.phase {
            Phase::Live(live) => Some(live.session),
            Phase::Waiting(successor) => Some(successor.session),
            Phase::Opening | Phase::Verifying(_) | Phase::HandOff | Phase::Closing(_) => None,
        }
    }

    pub fn version(&self) -> Option<Version> {
        self.live().map(|live| live.link.version)
    }

    pub fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing(_))
    }

    /// There is something to send.
    pub fn has_output(&self) -> bool {
        !self.outbox.is_empty() || self.secure.as_ref().is_some_and(|secure| secure.has_output(&self.phase))
    }

    /// Bytes that it keeps on the way in; the blocks count, not the parts in use.
    pub fn kept_bytes(&self) -> usize {
        self.partial.capacity() + self.secure.as_ref().map_or(0, |secure| secure.cost())
    }

    /// The peer has ended its side in order, and there is something to say to it.
    pub fn is_half_closed(&self) -> bool {
        self.eof && !self.broken && (self.send_in_flight || self.has_output())
    }

    /// Nothing of it is owned by the kernel.
    pub fn is_at_rest(&self) -> bool {
        !self.receive_armed && !self.cancel_in_flight && !self.send_in_flight
    }

    /// Replies alone have filled the send buffer over again: what is delivered stops at its limit, what answers the
    /// client's own packets cannot. Where the memory for sending is used up a little is enough.
    pub fn is_clogged(&self, max: u32) -> bool {
        self.outbox.len() + self.in_flight_bytes > self.clogged_beyond(max)
    }

    /// It does not read what it is answered, and so is not read itself.
    pub fn is_unheard(&self, max: u32) -> bool {
        self.is_held_back() || self.is_clogged(max)
    }

    /// What waits for its client is more than a few packets: before more is answered it is looked whether it may wait too.
    #[inline]
    pub fn owes_much(&self) -> bool {
        self.outbox.len() + self.in_flight_bytes > STARVED_BYTES_MAX
    }

    /// It is not parsed until its client reads.
    pub fn is_held_back(&self) -> bool {
        self.live().is_some_and(|live| matches!(live.blocked.as_deref(), Some(Blocked::Output)))
    }

    /// Whether a send of so many bytes may take long: then it is in parts, by which it is seen whether the client reads at all.
    #[inline]
    pub fn sends_in_parts(&self, bytes: usize, max: u32) -> bool {
        bytes > self.clogged_beyond(max) / 2
    }

    /// Bytes that may wait before the client is not read any more.
    #[inline]
    fn clogged_beyond(&self, max: u32) -> usize {
        if self.starved { STARVED_BYTES_MAX } else { 2 * max as usize }
    }

    /// Bytes that may still be staged before the send buffer is full.
    pub fn send_room(&self, max: u32) -> usize {
        if self.starved {
            return 0;
        }
        (max as usize).saturating_sub(self.outbox.len() + self.in_flight_bytes)
    }
}
