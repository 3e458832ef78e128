//! The simulated kernel of all shards: connections, operations in flight, completions that wait to be taken.
//!
//! One thread, no clock: things happen in [`World::progress`], as far and in the order that the random numbers say.
//! Asserts the rules of the trait on the shards; a broken rule is a panic whose text starts with "io-rule".

mod drive;
mod progress;

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::disk::Disk;
use super::faults::{Fault, FaultCounts, Faults};
use super::link::{Link, Silence};
use super::rng::Rng;
use crate::io::{Buffer, ListenerId, ReadNow, ReceiveEnd, ReceiveMode, Shutdown, Token};
use crate::memory::{Aligned, OutBatch, ShardId};

pub use drive::Crash;

pub(super) use drive::Drive;

const EPIPE: i32 = 32;
const ECONNRESET: i32 = 104;
const EMFILE: i32 = 24;

/// A client's end of a connection.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Endpoint(pub(super) usize);

/// What a client's read found beside the bytes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ClientRead {
    Open,
    /// The shard closed.
    Eof,
    /// The connection failed.
    Reset,
}

/// A completion as the kernel holds it, before its bytes are in a buffer of the shard.
#[derive(Debug)]
pub(super) enum Pending {
    Accepted { listener: ListenerId, socket: usize, peer: SocketAddr },
    AcceptEnded { listener: ListenerId, errno: i32 },
    Received { token: Token, buffer: Buffer, bytes: Vec<u8>, more: bool },
    ReceiveEnded { token: Token, end: ReceiveEnd },
    Sent { token: Token, batch: OutBatch, result: Result<usize, i32> },
    CancelEnded { token: Token },
    Doorbell,
    Written { tag: u64, file: u64, bytes: Aligned, result: Result<(), i32> },
    FileRead { tag: u64, bytes: Aligned, result: Result<(), i32> },
}

/// Completions of one stream come in order; streams overtake each other.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Stream {
    Accept(ListenerId),
    Receive(usize),
    Send(usize),
    Cancel(usize),
    Doorbell,
    File(u64),
}

/// A completion in a shard's queue.
#[derive(Debug)]
struct Entry {
    stream: Stream,
    pending: Pending,
    /// Whether a shard that sleeps wakes for it.
    wakes: bool,
}

#[derive(Debug)]
struct Receive {
    token: Token,
    mode: ReceiveMode,
    cancelled: bool,
}

#[derive(Debug)]
struct Send {
    token: Token,
    batch: OutBatch,
    taken: usize,
    /// Somebody waits for its end, or it did not find room at once.
    awaited: bool,
}

/// The shard's end of a connection with what is in flight on it.
#[derive(Debug)]
struct Socket {
    link: Link,
    peer: SocketAddr,
    /// The shard that accepted it or used it last.
    shard: ShardId,
    accepted: bool,
    receive: Option<Receive>,
    send: Option<Send>,
    cancel: Option<Token>,
    /// Of the newest receive, over or not.
    token: Option<Token>,
    /// Completions that the shard has not taken yet.
    untaken: usize,
}

#[derive(Debug)]
struct Listener {
    shard: ShardId,
    id: ListenerId,
    armed: bool,
    cancelled: bool,
    /// The shard has closed it.
    closed: bool,
    backlog: VecDeque<usize>,
}

/// A receive buffer: filled from the front, free again when every slice of it was given back.
#[derive(Clone, Debug, Default)]
struct Slot {
    filled: usize,
    /// Nothing more is put into it until it is free.
    retired: bool,
    /// Offset and length of the slices that the shard holds.
    lent: Vec<(u32, u32)>,
}

#[derive(Debug, Default)]
struct Core {
    queue: VecDeque<Entry>,
    slots: Vec<Slot>,
}

/// What the kernel did for all shards together, beside which their counters must stand.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Connections accepted.
    pub accepted: u64,
    /// Bytes that shards received.
    pub received: u64,
    /// Bytes that the kernel took from shards, as it told them.
    pub sent: u64,
    /// Connections that were used by another shard than before.
    pub moved: u64,
}

/// The simulated kernel of all shards.
#[derive(Debug)]
pub struct World {
    pub faults: Faults,
    counts: FaultCounts,
    tally: Tally,
    rng: Rng,
    sockets: Vec<Socket>,
    listeners: Vec<Listener>,
    cores: Vec<Core>,
    pub(super) drive: Drive,
}

impl World {
    pub fn new(shards: u16, faults: Faults, seed: u64) -> World {
        let core = || Core { queue: VecDeque::new(), slots: vec![Slot::default(); faults.buffers] };
        World {
            counts: FaultCounts::default(),
            tally: Tally::default(),
            rng: Rng::new(seed),
            sockets: Vec::new(),
            listeners: Vec::new(),
            cores: (0..shards).map(|_| core()).collect(),
            faults,
            drive: Drive::new(Disk::default(), seed),
        }
    }

    pub(super) fn count(&mut self, fault: Fault) {
        self.counts.count(fault);
    }

    pub fn fault_counts(&self) -> FaultCounts {
        self.counts
    }

    pub fn tally(&self) -> Tally {
        self.tally
    }

    // What clients do.

    /// Opens a connection to a listening socket of `shard`; it is established at once, accepted or not.
    pub fn connect(&mut self, shard: ShardId, listener: ListenerId) -> Endpoint {
        let number = self.sockets.len();
        let peer = SocketAddr::from(([127, 0, 0, 1], 1024 + (number % 60_000) as u16));
        self.sockets.push(Socket {
            link: Link::new(self.faults.to_shard_bytes, self.faults.to_client_bytes),
            peer,
            shard,
            accepted: false,
            receive: None,
            send: None,
            cancel: None,
            token: None,
            untaken: 0,
        });
        let listener = self.listener(shard, listener);
        if self.listeners[listener].closed {
            self.turn_away(number);
        } else {
            self.listeners[listener].backlog.push_back(number);
        }
        Endpoint(number)
    }

    /// Writes a prefix of `bytes` and says how long; `None` if the connection is over.
    pub fn write(&mut self, endpoint: Endpoint, bytes: &[u8]) -> Option<usize> {
        self.sockets[endpoint.0].link.client_write(bytes)
    }

    /// Appends at most `max` bytes to `into`.
    pub fn read(&mut self, endpoint: Endpoint, into: &mut Vec<u8>, max: usize) -> ClientRead {
        match self.sockets[endpoint.0].link.client_read(into, max) {
            Silence::Quiet => ClientRead::Open,
            Silence::Ended => ClientRead::Eof,
            Silence::Reset => ClientRead::Reset,
        }
    }

    /// Bytes that a read would find.
    pub fn readable(&self, endpoint: Endpoint) -> usize {
        self.sockets[endpoint.0].link.client_readable()
    }

    /// Closes the client's end; with unread bytes that is a reset, as in Linux.
    pub fn close(&mut self, endpoint: Endpoint) {
        self.sockets[endpoint.0].link.client_close();
    }

    /// The client sends nothing more and still reads.
    pub fn half_close(&mut self, endpoint: Endpoint) {
        self.counts.count(Fault::HalfClosed);
        self.sockets[endpoint.0].link.client_half_close();
    }

    /// The client is unplugged: nothing comes, nothing is taken, and the shard is not told.
    pub fn vanish(&mut self, endpoint: Endpoint) {
        self.counts.count(Fault::HalfOpen);
        self.sockets[endpoint.0].link.client_vanish();
    }

    /// The connection fails for both.
    pub fn reset(&mut self, endpoint: Endpoint) {
        let lossy = self.rng.happens(self.faults.reset_loses_data);
        self.counts.count(if lossy { Fault::ResetLosesData } else { Fault::Reset });
        self.sockets[endpoint.0].link.fail(lossy);
    }

    /// Whether the shard has taken everything that the client wrote.
    pub fn is_taken(&self, endpoint: Endpoint) -> bool {
        let socket = &self.sockets[endpoint.0];
        socket.link.shard_readable() == 0 && socket.untaken == 0
    }

    /// Whether the connection failed, by whomever.
    pub fn is_failed(&self, endpoint: Endpoint) -> bool {
        self.sockets[endpoint.0].link.is_failed()
    }

    /// Whether bytes that the client had written were lost before the shard could read them.
    pub fn is_lossy(&self, endpoint: Endpoint) -> bool {
        self.sockets[endpoint.0].link.is_lossy()
    }

    /// Whether the shard has ended its side, closed or not.
    pub fn is_ended_by_shard(&self, endpoint: Endpoint) -> bool {
        self.sockets[endpoint.0].link.shard_has_ended()
    }

    /// Whether the shard closed its end.
    pub fn is_closed_by_shard(&self, endpoint: Endpoint) -> bool {
        self.sockets[endpoint.0].link.shard_is_closed()
    }

    /// A shard is no more: its listening sockets go, and who waits in their backlogs is reset.
    pub fn close_listeners(&mut self, shard: ShardId) {
        for listener in self.listeners.iter_mut().filter(|listener| listener.shard == shard) {
            assert!(!listener.armed, "io-rule: {:?} of shard {shard} still accepts at its end", listener.id);
            for socket in listener.backlog.drain(..) {
                self.sockets[socket].link.shard_close();
                self.sockets[socket].link.fail(false);
            }
        }
    }

    /// Nobody listens where this connection was opened.
    fn turn_away(&mut self, socket: usize) {
        self.sockets[socket].link.shard_close();
        self.sockets[socket].link.fail(false);
    }

    // What the kernel does.

    /// Whether a shard that sleeps in the kernel would wake.
    pub fn has_completions(&self, shard: ShardId) -> bool {
        self.cores[usize::from(shard)].queue.iter().any(|entry| entry.wakes)
    }

    /// Whether something completed that the shard has not taken, be it awake or not.
    pub fn has_untaken(&self, shard: ShardId) -> bool {
        !self.cores[usize::from(shard)].queue.is_empty()
    }

    /// Whether nothing is on its way to `shard` and nothing would be, however long one waits.
    pub fn is_quiet(&self, shard: ShardId) -> bool {
        let accepts = self
            .listeners
            .iter()
            .any(|l| l.shard == shard && l.armed && (l.cancelled || !l.backlog.is_empty()));
        let moves = self.sockets.iter().any(|s| {
            let receive = s.receive.as_ref().is_some_and(|r| r.cancelled || s.link.shard_has_news());
            let send = s.send.is_some() && s.link.shard_room() != Some(0);
            s.shard == shard && (s.cancel.is_some() || receive || send)
        });
        let files = self.shards_on_files().contains(&shard);
        !accepts && !moves && !files && !self.has_completions(shard)
    }

    /// What keeps [`World::is_quiet`] from being true.
    pub fn unquiet(&self) -> Vec<String> {
        let mut found = Vec::new();
        for l in &self.listeners {
            if l.armed && (l.cancelled || !l.backlog.is_empty()) {
                found.push(format!("{l:?}"));
            }
        }
        for (number, s) in self.sockets.iter().enumerate() {
            let receive = s.receive.as_ref().is_some_and(|r| r.cancelled || s.link.shard_has_news());
            let send = s.send.is_some() && s.link.shard_room() != Some(0);
            if s.cancel.is_some() || receive || send {
                found.push(format!("socket {number}: {s:?}"));
            }
        }
        found.extend(self.shards_on_files().iter().map(|shard| format!("shard {shard} uses files")));
        for (shard, core) in self.cores.iter().enumerate() {
            found.extend(core.queue.iter().map(|entry| format!("shard {shard}: {entry:?}")));
        }
        found
    }

    /// Bytes of the sends of `shard` that are not over.
    pub fn sending(&self, shard: ShardId) -> u64 {
        let sends =
            self.sockets.iter().filter(|socket| socket.shard == shard).filter_map(|s| s.send.as_ref());
        sends.map(|send| send.batch.remaining() as u64).sum()
    }

    /// Sockets that a shard was given and did not close.
    pub fn open_sockets(&self) -> usize {
        self.sockets.iter().filter(|s| s.accepted && !s.link.shard_is_closed()).count()
    }

    /// What is not as it must be once every shard has stopped.
    pub fn faults_at_rest(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (number, s) in self.sockets.iter().enumerate() {
            if s.accepted && !s.link.shard_is_closed() {
                found.push(format!(
                    "socket {number} was accepted and never closed (last used by shard {})",
                    s.shard
                ));
            }
        }
        for (shard, core) in self.cores.iter().enumerate() {
            if let Some(stream) =
                core.queue.iter().map(|entry| entry.stream).find(|stream| *stream != Stream::Doorbell)
            {
                found.push(format!("shard {shard} left a completion of {stream:?}"));
            }
            for (id, slot) in core.slots.iter().enumerate() {
                if !slot.lent.is_empty() {
                    found.push(format!("shard {shard} never gave buffer {id} back: {:?}", slot.lent));
                }
            }
        }
        for shard in self.shards_on_files() {
            found.push(format!("shard {shard} left an operation on a file"));
        }
        for l in self.listeners.iter().filter(|l| l.armed) {
            found.push(format!("{:?} of shard {} still accepts", l.id, l.shard));
        }
        found
    }

    fn push(&mut self, shard: ShardId, stream: Stream, pending: Pending) -> &mut Entry {
        let queue = &mut self.cores[usize::from(shard)].queue;
        queue.push_back(Entry { stream, pending, wakes: true });
        queue.back_mut().expect("it was just put there")
    }

    fn push_socket(&mut self, number: usize, stream: Stream, pending: Pending) -> &mut Entry {
        self.sockets[number].untaken += 1;
        self.push(self.sockets[number].shard, stream, pending)
    }

    // What shards ask for.

    fn listener(&mut self, shard: ShardId, id: ListenerId) -> usize {
        let found = self.listeners.iter().position(|l| l.shard == shard && l.id == id);
        found.unwrap_or_else(|| {
            self.listeners.push(Listener {
                shard,
                id,
                armed: false,
                cancelled: false,
                closed: false,
                backlog: VecDeque::new(),
            });
            self.listeners.len() - 1
        })
    }

    pub(super) fn listen(&mut self, shard: ShardId, id: ListenerId) {
        let known = self.listeners.iter().any(|l| l.shard == shard && l.id == id);
        let at = self.listener(shard, id);
        let listener = &mut self.listeners[at];
        assert!(listener.closed || !known, "io-rule: {id:?} of shard {shard} is open");
        listener.closed = false;
    }

    pub(super) fn unlisten(&mut self, shard: ShardId, id: ListenerId) {
        let at = self.listener(shard, id);
        let listener = &mut self.listeners[at];
        assert!(!listener.armed && !listener.closed, "io-rule: {id:?} of shard {shard} accepts or is closed");
        listener.closed = true;
        for socket in std::mem::take(&mut listener.backlog) {
            self.turn_away(socket);
        }
    }

    pub(super) fn accept(&mut self, shard: ShardId, id: ListenerId) {
        let at = self.listener(shard, id);
        let listener = &mut self.listeners[at];
        assert!(!listener.closed, "io-rule: shard {shard} accepts on {id:?}, which is closed");
        assert!(!listener.armed, "io-rule: shard {shard} accepts twice on {id:?}");
        listener.armed = true;
    }

    pub(super) fn accept_cancel(&mut self, shard: ShardId, id: ListenerId) {
        let at = self.listener(shard, id);
        self.listeners[at].cancelled = self.listeners[at].armed;
    }

    /// The socket, now used by `shard`; it may have come from another one.
    fn used(&mut self, shard: ShardId, number: usize) -> &mut Socket {
        let socket = &mut self.sockets[number];
        assert!(
            socket.accepted && !socket.link.shard_is_closed(),
            "io-rule: socket {number} used after close"
        );
        if socket.shard != shard {
            let idle = socket.receive.is_none() && socket.send.is_none() && socket.cancel.is_none();
            assert!(
                idle && socket.untaken == 0,
                "io-rule: socket {number} moved from shard {} to {shard} with operations in flight",
                socket.shard
            );
            socket.shard = shard;
            socket.token = None; // a name of the former shard's
            self.tally.moved += 1;
        }
        socket
    }

    /// Whether completions of the stream were not taken yet.
    fn is_untaken(&self, shard: ShardId, stream: Stream) -> bool {
        self.cores[usize::from(shard)].queue.iter().any(|entry| entry.stream == stream)
    }

    pub(super) fn receive(&mut self, shard: ShardId, number: usize, token: Token, mode: ReceiveMode) {
        let untaken = self.is_untaken(shard, Stream::Receive(number));
        let socket = self.used(shard, number);
        assert!(socket.receive.is_none() && !untaken, "io-rule: second receive on socket {number}");
        socket.receive = Some(Receive { token, mode, cancelled: false });
        socket.token = Some(token);
    }

    /// If the receive's end is on its way already, the cancel finds nothing and ends all the same.
    pub(super) fn receive_cancel(&mut self, shard: ShardId, token: Token) {
        let named = |s: &&mut Socket| s.shard == shard && s.token == Some(token) && !s.link.shard_is_closed();
        let Some(socket) = self.sockets.iter_mut().find(named) else {
            panic!("io-rule: cancel of {token:?}, which never was on an open socket")
        };
        assert!(socket.cancel.is_none(), "io-rule: second cancel of {token:?}");
        socket.cancel = Some(token);
        if let Some(receive) = &mut socket.receive {
            receive.cancelled = true;
        }
    }

    pub(super) fn send(
        &mut self,
        shard: ShardId,
        number: usize,
        token: Token,
        batch: OutBatch,
        awaited: bool,
    ) {
        assert!(batch.remaining() > 0, "io-rule: empty batch for socket {number}");
        let untaken = self.is_untaken(shard, Stream::Send(number));
        let socket = self.used(shard, number);
        assert!(socket.send.is_none() && !untaken, "io-rule: second send on socket {number}");
        socket.send = Some(Send { token, batch, taken: 0, awaited });
    }

    pub(super) fn shutdown(&mut self, shard: ShardId, number: usize, how: Shutdown) {
        let link = &mut self.used(shard, number).link;
        match how {
            Shutdown::Write => link.shard_end(),
            Shutdown::Both => link.shard_shutdown(),
        }
    }

    pub(super) fn read_now(
        &mut self,
        shard: ShardId,
        number: usize,
        into: &mut Vec<u8>,
        max: usize,
    ) -> ReadNow {
        let untaken = self.is_untaken(shard, Stream::Receive(number));
        let socket = self.used(shard, number);
        assert!(
            socket.receive.is_none() && !untaken,
            "io-rule: socket {number} read beside a receive in flight"
        );
        if max > 0 && socket.link.shard_readable() > 0 {
            let from = into.len();
            into.extend(socket.link.shard_read(max));
            self.tally.received += (into.len() - from) as u64;
            return ReadNow::Bytes(into.len() - from);
        }
        match socket.link.shard_silence() {
            Silence::Quiet => ReadNow::WouldBlock,
            Silence::Ended => ReadNow::Eof,
            Silence::Reset => ReadNow::Error(ECONNRESET),
        }
    }

    pub(super) fn unsent(&mut self, shard: ShardId, number: usize) -> u32 {
        self.used(shard, number).link.shard_unsent() as u32
    }

    pub(super) fn unread(&mut self, shard: ShardId, number: usize) -> u32 {
        self.used(shard, number).link.shard_readable() as u32
    }

    pub(super) fn close_socket(&mut self, shard: ShardId, number: usize) {
        let socket = self.used(shard, number);
        assert!(
            socket.receive.is_none()
                && socket.send.is_none()
                && socket.cancel.is_none()
                && socket.untaken == 0,
            "io-rule: socket {number} closed with operations in flight: {socket:?}"
        );
        socket.link.shard_close();
    }

    pub(super) fn doorbell(&mut self, from: ShardId, to: ShardId) {
        assert!(
            usize::from(to) < self.cores.len(),
            "io-rule: shard {from} rings shard {to}, which does not exist"
        );
        self.push(to, Stream::Doorbell, Pending::Doorbell);
    }

    /// The completions that `shard` gets to see now.
    pub(super) fn take_completions(&mut self, shard: ShardId) -> Vec<Pending> {
        self.progress(shard);
        let core = &mut self.cores[usize::from(shard)];
        let (mut taken, mut held) = (Vec::new(), Vec::new());
        for entry in std::mem::take(&mut core.queue) {
            let stream = entry.stream;
            let (odds, fault) = match stream {
                Stream::Doorbell => (self.faults.late_doorbell, Fault::LateDoorbell),
                _ => (self.faults.late, Fault::Late),
            };
            let held_back = held.contains(&stream);
            if held_back || self.rng.happens(odds) {
                if !held_back {
                    self.counts.count(fault);
                    held.push(stream);
                }
                core.queue.push_back(Entry { wakes: true, ..entry });
                continue;
            }
            match stream {
                Stream::Receive(number) | Stream::Send(number) | Stream::Cancel(number) => {
                    self.sockets[number].untaken -= 1;
                }
                Stream::Accept(_) | Stream::Doorbell | Stream::File(_) => {}
            }
            taken.push(entry.pending);
        }
        for pending in &taken {
            if let Pending::Written { file, .. } = pending {
                self.written(*file);
            }
        }
        // What was not over by now is a send like any other.
        for socket in self.sockets.iter_mut().filter(|socket| socket.shard == shard) {
            if let Some(send) = &mut socket.send {
                send.awaited = true;
            }
        }
        taken
    }

    /// A slice of a buffer comes back.
    pub(super) fn replenish(&mut self, shard: ShardId, buffer: Buffer) {
        let slot = &mut self.cores[usize::from(shard)].slots[usize::from(buffer.id)];
        let lent = slot.lent.iter().position(|&(offset, len)| (offset, len) == (buffer.offset, buffer.len));
        let Some(lent) = lent else { panic!("io-rule: {buffer:?} given back twice or never lent") };
        slot.lent.swap_remove(lent);
        if slot.lent.is_empty() && (slot.retired || slot.filled == self.faults.buffer_bytes) {
            *slot = Slot::default();
        }
    }

    pub(super) fn random(&mut self) -> u64 {
        self.rng.bits()
    }
}
