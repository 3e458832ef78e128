//! A network connection: its phase, what the kernel owns of it, and its bytes both ways.
//!
//! `receive_armed`, `cancel_in_flight` and `send_in_flight` are true exactly while the kernel owns the operation. Only
//! `reap` and `tend` change them. A connection leaves its shard, closed or handed over, only when all three are false.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::rc::Rc;

use crate::clock::{Millis, NEVER};
use crate::io::{ListenerId, Socket};
use crate::memory::{Budget, Class, Key, Outbox, ShardSet};
use crate::session::Link;
use crate::topic::Route;
use crate::wire::{self, LengthForm, NextFrame, Reason, Version};

use super::lend::Lent;
use super::replies::{Replies, Reply};
use super::request::Request;
use super::transports::Layered;
use super::waits::{Blocked, Wait};

#[derive(Debug)]
pub(super) struct Connection {
    pub socket: Socket,
    /// Apart, since together they are half as large again; the scope of a link-local address is not kept.
    peer_ip: IpAddr,
    peer_port: u16,
    /// Where it was accepted.
    pub listener: ListenerId,
    /// What lies between the socket and the stream; a plain connection has nothing there.
    pub transport: Option<Box<Layered>>,
    pub phase: Phase,
    pub receive_armed: bool,
    pub cancel_in_flight: bool,
    pub send_in_flight: bool,
    /// Nothing is sent until the disk has what its CONNACK stands for.
    pub is_shut: bool,
    /// In the list of connections that `tend` looks at.
    pub dirty: bool,
    /// The peer has closed its side.
    pub eof: bool,
    /// A send or a receive failed: nothing more is sent, and the receive has ended or is about to.
    pub broken: bool,
    /// When the newest bytes came of a packet that was not whole then; the lower half of the time.
    pub bytes_at: u32,
    /// Bytes that are not parsed yet: a partial packet, or everything while the connection is paused.
    pub partial: Vec<u8>,
    /// What is sent next.
    pub outbox: Outbox,
    /// Bytes of the send in flight.
    pub in_flight_bytes: u32,
    /// Charged to `Class::Receive`.
    pub charged_receive: u32,
    /// Charged to `Class::Login`: nothing any more once its CONNECT is accepted.
    pub charged_login: u32,
    /// Charged to `Class::Send`.
    pub charged_send: u32,
    /// What of its output waits beyond the send buffer.
    pub lent: Option<Box<Lent>>,
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
    /// Its password is being verified, or is wrong and the answer held back.
    Verifying(Box<Verifying>),
    /// Its client is at home on another shard whose ring is full.
    HandOff(Box<Request>),
    /// At home; its session's former connection has to end first.
    Waiting(Box<Successor>),
    /// CONNECT was accepted.
    Live(Box<Live>),
    /// Logically over.
    Closing(Closing),
}

/// A connection whose password is hashed.
#[derive(Debug)]
pub(super) struct Verifying {
    pub request: Box<Request>,
    pub refusal: Option<Refusal>,
}

/// A connection that takes a session over.
#[derive(Debug)]
pub(super) struct Successor {
    pub session: Key,
    pub request: Box<Request>,
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
    /// What waits of it; boxed, since few have anything there and each has room for it.
    pub(super) held: Option<Box<Held>>,
    /// Another connection takes the session over; this one is read to its end.
    pub taken_over: bool,
    /// What it published to last, which is mostly what it publishes to next.
    pub known: Option<Known>,
}

/// What waits of a connection. There is none with nothing in it.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Why it is not parsed.
    blocked: Option<Blocked>,
    /// What its client is told later.
    replies: Replies,
}

impl Live {
    pub fn new(session: Key, link: Link, keep_alive_s: u16, client_hash: u64, now: Millis) -> Live {
        Live {
            session,
            link,
            keep_alive_s,
            last_packet_at: now,
            unsent_bytes: None,
            client_hash,
            mode: Mode::New,
            touched: ShardSet::EMPTY,
            held: None,
            taken_over: false,
            known: None,
        }
    }

    /// Why it is not parsed.
    #[inline]
    pub fn blocked(&self) -> Option<&Blocked> {
        self.held.as_ref()?.blocked.as_ref()
    }

    /// It is not parsed until `blocked` is over. Returns why it was not before.
    pub fn block(&mut self, blocked: Blocked) -> Option<Blocked> {
        self.held.get_or_insert_default().blocked.replace(blocked)
    }

    pub fn unblock(&mut self) -> Option<Blocked> {
        let blocked = self.held.as_mut()?.blocked.take();
        self.drop_empty();
        blocked
    }

    /// What its client is told later, if there is anything.
    #[inline]
    pub fn replies(&self) -> Option<&Replies> {
        self.held.as_ref().map(|held| &held.replies).filter(|replies| !replies.is_empty())
    }

    pub fn replies_mut(&mut self) -> &mut Replies {
        &mut self.held.get_or_insert_default().replies
    }

    /// Takes the next reply that `may` leave, and no memory stays where nothing is left.
    pub fn take_reply(&mut self, may: impl FnOnce(&Wait) -> bool) -> Option<Reply> {
        let reply = self.held.as_mut()?.replies.take_if(may);
        self.drop_empty();
        reply
    }

    fn drop_empty(&mut self) {
        if self.held.as_ref().is_some_and(|held| held.blocked.is_none() && held.replies.is_empty()) {
            self.held = None;
        }
    }

    /// How long it may be silent: 1.5 times the Keep Alive; 0 for as long as it likes. // [U5-3.1.2-2] 3.1.1: [U311-3.1.2-2]
    pub fn idle_max_ms(&self) -> Millis {
        Millis::from(self.keep_alive_s) * 1500
    }

    /// Once the peer has closed its side: everything that it sent was acted upon and answered.
    pub fn has_said_all(&self) -> bool {
        self.held.is_none() && !self.taken_over
    }
}

/// A topic and its route, as long as [`crate::topic::Router::routes_epoch`] stays the same.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub route: Rc<Route>,
    pub epoch: u64,
}

/// Bytes that may wait for a client, once the memory for sending is used up, before it is not read any more.
const STARVED_BYTES_MAX: usize = 16 * 1024;

/// How long the bytes of one packet keep its client alive: so long, and a second for so many of its bytes. A record of TLS
/// is within the first.
pub(super) const PACKET_BASE_MS: Millis = 10_000;
pub(super) const PACKET_BYTES_PER_S_MIN: Millis = 512;

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
    /// The same, and the log has said why.
    Told,
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
            transport: None,
            phase: Phase::Opening,
            receive_armed: false,
            cancel_in_flight: false,
            send_in_flight: false,
            is_shut: false,
            dirty: false,
            eof: false,
            broken: false,
            bytes_at: 0,
            partial: Vec::new(),
            outbox: Outbox::default(),
            in_flight_bytes: 0,
            charged_receive: 0,
            charged_login: 0,
            charged_send: 0,
            lent: None,
            starved: false,
            deadline,
            timer_at: NEVER,
        }
    }

    /// When its Keep Alive passes if nothing more is heard of it; 0 if it is not connected.
    ///
    /// Bytes of a packet count, since a client can send nothing else before its end. But a packet has a bound in time, by its
    /// length: else a byte now and then would hold a connection for ever.
    pub fn heard_until(&self) -> Millis {
        let Some(live) = self.live() else { return 0 };
        let idle_max_ms = live.idle_max_ms();
        let until = live.last_packet_at + idle_max_ms;
        let bytes_after = self.bytes_at.wrapping_sub(live.last_packet_at as u32) as i32;
        if bytes_after <= 0 {
            return until;
        }
        let len = match wire::next_frame(&self.partial, u32::MAX, LengthForm::Any) {
            Ok(NextFrame::Incomplete { need }) => need,
            Ok(NextFrame::Frame(_)) | Err(_) => 0,
        };
        // It began no earlier than the packet before it ended.
        let packet_ms = PACKET_BASE_MS + len as Millis * 1000 / PACKET_BYTES_PER_S_MIN;
        until + (bytes_after as Millis).min(packet_ms)
    }

    /// Bytes of a packet came that is not whole.
    pub fn heard_bytes(&mut self, now: Millis) {
        self.bytes_at = now as u32;
    }

    /// The address of the client.
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.peer_ip, self.peer_port)
    }

    /// Its transport knows where the client is.
    pub fn set_peer(&mut self, peer: SocketAddr) {
        (self.peer_ip, self.peer_port) = (peer.ip(), peer.port());
    }

    pub fn live(&self) -> Option<&Live> {
        match &self.phase {
            Phase::Live(live) => Some(live),
            Phase::Opening
            | Phase::Verifying(_)
            | Phase::HandOff(_)
            | Phase::Waiting(_)
            | Phase::Closing(_) => None,
        }
    }

    pub fn live_mut(&mut self) -> Option<&mut Live> {
        match &mut self.phase {
            Phase::Live(live) => Some(live),
            Phase::Opening
            | Phase::Verifying(_)
            | Phase::HandOff(_)
            | Phase::Waiting(_)
            | Phase::Closing(_) => None,
        }
    }

    pub fn session(&self) -> Option<Key> {
        match &self.phase {
            Phase::Live(live) => Some(live.session),
            Phase::Waiting(successor) => Some(successor.session),
            Phase::Opening | Phase::Verifying(_) | Phase::HandOff(_) | Phase::Closing(_) => None,
        }
    }

    /// The CONNECT that is not answered yet.
    pub fn request(&self) -> Option<&Request> {
        match &self.phase {
            Phase::Verifying(verifying) => Some(&verifying.request),
            Phase::HandOff(request) => Some(request),
            Phase::Waiting(successor) => Some(&successor.request),
            Phase::Opening | Phase::Live(_) | Phase::Closing(_) => None,
        }
    }

    pub fn version(&self) -> Option<Version> {
        self.live().map(|live| live.link.version)
    }

    /// What it lacks when the time for its CONNECT is up.
    pub fn late(&self) -> &'static str {
        let handshake = self.transport.as_ref().and_then(|transport| transport.handshake());
        match (&self.phase, handshake) {
            (Phase::HandOff(_), _) => "its shard had no room for it within --connect-timeout",
            (_, Some(handshake)) => handshake.late,
            _ if self.partial.is_empty() => "nothing was sent within --connect-timeout",
            _ => "no whole CONNECT came within --connect-timeout",
        }
    }

    pub fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing(_))
    }

    /// There is something to send.
    pub fn has_output(&self) -> bool {
        !self.outbox.is_empty()
            || self.transport.as_ref().is_some_and(|transport| transport.has_output(&self.phase))
    }

    /// Bytes that it keeps on the way in, for `Class::Receive` and for `Class::Login`; the blocks count, not the parts in use.
    pub fn kept_bytes(&self) -> (usize, usize) {
        let transport = self.transport.as_ref().map_or(0, |transport| transport.cost());
        match &self.phase {
            Phase::Live(_) | Phase::Closing(_) => (self.partial.capacity() + transport, 0),
            Phase::Opening | Phase::Verifying(_) | Phase::HandOff(_) | Phase::Waiting(_) => {
                let request = self.request().map_or(0, Request::cost);
                (transport, self.partial.capacity() + request)
            }
        }
    }

    /// Gives back what is charged for what it keeps on the way in.
    pub fn release_receive(&mut self, budget: &mut Budget) {
        budget.release(Class::Receive, std::mem::take(&mut self.charged_receive) as usize);
        budget.release(Class::Login, std::mem::take(&mut self.charged_login) as usize);
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
        let waiting = self.outbox.len() + self.in_flight_bytes as usize;
        let beyond = self.clogged_beyond(max);
        waiting > beyond
            && (self.starved || waiting > beyond + self.lent.as_ref().map_or(0, |lent| lent.bytes))
    }

    /// It does not read what it is answered, and so is not read itself.
    pub fn is_unheard(&self, max: u32) -> bool {
        self.is_held_back() || self.is_clogged(max)
    }

    /// What waits for its client is more than a few packets: before more is answered it is looked whether it may wait too.
    #[inline]
    pub fn owes_much(&self) -> bool {
        self.outbox.len() + self.in_flight_bytes as usize > STARVED_BYTES_MAX
    }

    /// It is not parsed until its client reads.
    pub fn is_held_back(&self) -> bool {
        self.live().is_some_and(|live| matches!(live.blocked(), Some(Blocked::Output)))
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
        (max as usize).saturating_sub(self.outbox.len() + self.in_flight_bytes as usize)
    }
}
