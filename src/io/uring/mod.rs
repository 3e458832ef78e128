//! [`Io`] over the kernel: one io_uring, one ring of receive buffers and one table of sends in flight per shard.
//!
//! What it is not: a policy. It arms what it is asked to arm and reports what came of it; the one thing that it does by
//! itself is to go on accepting after an error that concerns a single connection.
//!
//! Sockets are process descriptors, so a hand-off between shards is a number in a message; those that stay may move to the
//! ring's own table (`direct`).
//!
//! - `ring`: queues and the system call; `request`: what may be queued; `buffers`: receive memory; `flights`: send memory;
//!   `files`: reads and writes of files; `features`: what this kernel can do, found out by trying; `peers`: the rings of the other shards; `direct`: sockets that
//!   are no process descriptors.
#![allow(unsafe_code)] // Submissions hold pointers; descriptors change hands as numbers.

mod buffers;
mod direct;
mod features;
mod files;
mod flights;
mod peers;
mod request;
mod ring;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use io_uring::cqueue;
use socket2::SockRef;

use super::random::Random;
use super::{
    Buffer, Completion, Driver, File, Io, ListenerId, Operation, ReadNow, ReceiveEnd, ReceiveMode, Shutdown,
    Socket, Sync, Token, sockets,
};
use crate::memory::{Aligned, Key, OutBatch, ShardId};
use buffers::BufRing;
use direct::Direct;
use files::{FileFlights, Next};
use flights::Flights;
use request::Request;
use ring::{Cqe, Ring};

pub use peers::Peers;

pub(crate) use features::{Features, Unavailable};
#[cfg(test)]
pub(crate) use tests::forbid_io_uring;

/// Sizes of a shard's ring.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Submissions that fit before they are submitted in between; a power of two.
    pub sq_entries: u32,
    /// Completions that fit before the kernel keeps them elsewhere, which ends multishot operations; a power of two.
    pub cq_entries: u32,
    /// Receive buffers; a power of two, at most 32,768. If none is free, receives end and the data stays in the sockets.
    pub buffers: u16,
    /// Bytes of a receive buffer.
    pub buffer_bytes: u32,
    /// Sockets that the ring itself can hold, at most the soft limit of descriptors; 0 for none.
    pub direct: u32,
}

impl Sizes {
    /// Receive buffers at least: what is offered when there is little to do.
    const BUFFERS_MIN: u64 = 64;

    /// With as many receive buffers as `bytes` have room for, but no more than usual.
    pub fn within(bytes: u64) -> Sizes {
        let usual = Sizes::default();
        let fit = (bytes / u64::from(usual.buffer_bytes)).clamp(Self::BUFFERS_MIN, u64::from(usual.buffers));
        Sizes { buffers: 1 << fit.ilog2(), ..usual }
    }
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes { sq_entries: 2048, cq_entries: 16 * 1024, buffers: 2048, buffer_bytes: 16 * 1024, direct: 0 }
    }
}

struct Listener {
    /// `None` for one that is closed.
    socket: Option<TcpListener>,
    armed: bool,
    cancelling: bool,
}

impl Listener {
    const CLOSED: Listener = Listener { socket: None, armed: false, cancelling: false };

    fn new(socket: TcpListener) -> Listener {
        Listener { socket: Some(socket), ..Listener::CLOSED }
    }
}

/// The kernel as a shard sees it. Belongs to the thread that made it.
/// TCP: ordered, lossless, both ways. // [MQTT-4.2.0-1]; 3.1.1: [MQTT-7.1.1-1]
pub struct Uring {
    ring: Ring,
    buffers: BufRing,
    flights: Flights,
    files: FileFlights,
    direct: Direct,
    listeners: Vec<Listener>,
    shard: ShardId,
    peers: Arc<Peers>,
    /// Quiet sends were not known to be over when completions were taken last.
    quiet_left: bool,
    cqes: Vec<Cqe>,
    random: Random,
    /// System calls beside those that enter the ring.
    calls: u64,
}

impl Uring {
    /// Makes the ring of `shard` and enters it in `peers`. A listener's index is its [`ListenerId`].
    ///
    /// # Errors
    /// What is missing or forbidden, with what to do about it.
    pub fn new(
        sizes: Sizes,
        shard: ShardId,
        peers: Arc<Peers>,
        listeners: Vec<TcpListener>,
    ) -> Result<Uring, Unavailable> {
        let ring =
            Ring::new(sizes.sq_entries, sizes.cq_entries).map_err(|error| Unavailable::setup(&error))?;
        features::require(ring.params())?;
        let buffers = BufRing::new(&ring.submitter(), sizes.buffers, sizes.buffer_bytes)
            .map_err(|error| Unavailable::step("a ring of receive buffers", &error))?;
        let direct = Direct::new(&ring.submitter(), shard, sizes.direct)
            .map_err(|error| Unavailable::step("a table of descriptors", &error))?;
        let mut accepting = Vec::with_capacity(listeners.len());
        for socket in listeners {
            // Inherited by what is accepted. Output is batched by the turn; waiting for more would only delay it.
            SockRef::from(&socket)
                .set_tcp_nodelay(true)
                .map_err(|error| Unavailable::step("a listening socket", &error))?;
            accepting.push(Listener::new(socket));
        }
        peers.set(shard, Some(ring.fd()));
        Ok(Uring {
            ring,
            buffers,
            flights: Flights::default(),
            files: FileFlights::default(),
            direct,
            listeners: accepting,
            shard,
            peers,
            quiet_left: false,
            cqes: Vec::new(),
            random: Random::default(),
            calls: 0,
        })
    }

    fn ring_peer(&mut self, shard: ShardId) {
        // Without a ring yet, the peer looks at its inbox in its first turn.
        if let Some(fd) = self.peers.ring(shard) {
            let arrives = token(0).user_data(Operation::Doorbell);
            let failed = token(u32::from(shard)).user_data(Operation::Ignore);
            self.ring.push(Request::ring(fd, arrives).user_data(failed));
        }
    }

    fn arm_accept(&mut self, index: usize) {
        let listener = &mut self.listeners[index];
        let socket = listener.socket.as_ref().expect("a closed socket accepts nothing");
        listener.armed = true;
        let name = token(index as u32).user_data(Operation::Accept);
        self.ring.push(Request::accept(socket.as_fd()).user_data(name));
    }

    fn accepted(&mut self, index: usize, cqe: Cqe, into: &mut Vec<Completion>) {
        let id = ListenerId(index as u16);
        if cqe.result >= 0 {
            self.calls += 1;
            // SAFETY: a successful accept hands over a new descriptor that nobody else knows.
            let stream = TcpStream::from(unsafe { OwnedFd::from_raw_fd(cqe.result) });
            // A peer that is gone has no address any more, but what it said before counts.
            let peer = stream.peer_addr().unwrap_or(UNKNOWN_PEER);
            let socket = Socket::from(OwnedFd::from(stream));
            into.push(Completion::Accepted { listener: id, socket, peer });
        }
        if cqueue::more(cqe.flags) {
            return;
        }
        let listener = &mut self.listeners[index];
        listener.armed = false;
        let errno = match -cqe.result {
            _ if listener.cancelling => 0,
            libc::ECANCELED => 0,
            // A full completion queue or a connection that was gone before it was accepted.
            errno if errno <= 0 => return self.arm_accept(index),
            libc::ECONNABORTED | libc::EINTR | libc::EAGAIN | libc::EPROTO => return self.arm_accept(index),
            errno => errno,
        };
        listener.cancelling = false;
        into.push(Completion::AcceptEnded { listener: id, errno });
    }

    fn received(&mut self, token: Token, cqe: Cqe, into: &mut Vec<Completion>) {
        let more = cqueue::more(cqe.flags);
        if !more {
            self.buffers.ended();
        }
        match (cqueue::buffer_select(cqe.flags), cqe.result) {
            (Some(id), len @ 1..) => {
                let buffer = self.buffers.take(id, len as u32);
                into.push(Completion::Received { token, buffer, more });
                return;
            }
            // A buffer was picked and nothing came of it.
            (Some(id), _) => {
                self.buffers.take(id, 0);
                self.buffers.replenish(id);
            }
            (None, _) => {}
        }
        assert!(!more, "a receive goes on after {}", cqe.result);
        let end = match -cqe.result {
            0 => ReceiveEnd::Eof,
            libc::ENOBUFS => {
                self.buffers.ran_out();
                ReceiveEnd::NoBuffers
            }
            libc::ECANCELED => ReceiveEnd::Cancelled,
            errno => ReceiveEnd::Error(errno),
        };
        into.push(Completion::ReceiveEnded { token, end });
    }

    fn completed(&mut self, cqe: Cqe, into: &mut Vec<Completion>) {
        let Some((operation, token)) = Token::split(cqe.user_data) else {
            panic!("a completion of nothing: {cqe:?}");
        };
        match operation {
            Operation::Receive => self.received(token, cqe, into),
            Operation::Send => {
                if cqe.result == -libc::EAGAIN
                    && let Some(request) = self.flights.again(token)
                {
                    return self.ring.push(request);
                }
                let (token, batch) = self.flights.end(token);
                let result = usize::try_from(cqe.result).map_err(|_| -cqe.result);
                into.push(Completion::Sent { token, batch, result });
            }
            Operation::WriteFile | Operation::ReadFile => match self.files.completed(token, cqe.result) {
                Next::Again(request) => self.ring.push(request),
                Next::Over(completion) => into.push(completion),
            },
            Operation::Accept => self.accepted(token.key().index as usize, cqe, into),
            Operation::ReceiveCancel => into.push(Completion::CancelEnded { token }),
            Operation::Doorbell => into.push(Completion::Doorbell),
            // A doorbell that did not get through for want of memory is rung again; a ring that is gone hears nothing.
            Operation::Ignore => match -cqe.result {
                libc::ENOMEM | libc::EAGAIN | libc::EOVERFLOW | libc::EINTR => {
                    self.ring_peer(token.key().index as ShardId);
                }
                _ => {}
            },
            // The accept ends with its own completion.
            Operation::AcceptCancel => {}
            // Taken out by `now`.
            Operation::Now => panic!("nobody waited for {cqe:?}"),
        }
    }
}

/// A token of something that is not a connection.
fn token(index: u32) -> Token {
    Token::new(Key { index, generation: 0 })
}

/// Ends the process if it is dropped: by unwinding, since otherwise it is forgotten.
struct NoUnwinding;

impl Drop for NoUnwinding {
    fn drop(&mut self) {
        std::process::abort();
    }
}

impl Uring {
    /// Submits an operation that ends within its submission or soon after, and takes its completion out of the queue.
    ///
    /// It leaves with the only completion or not at all: a panic on the way ends the process, since the kernel may still use
    /// what the request points to, which the caller's caller would free.
    fn now(&mut self, request: Request) -> i32 {
        let user_data = token(0).user_data(Operation::Now);
        let no_unwinding = NoUnwinding;
        self.ring.push(request.user_data(user_data));
        let mut timeout_ms = 0;
        loop {
            self.ring.submit_and_wait(timeout_ms);
            self.ring.reap(&mut self.cqes);
            // The others stay, in their order, for the next turn.
            if let Some(at) = self.cqes.iter().position(|cqe| cqe.user_data == user_data) {
                std::mem::forget(no_unwinding);
                return self.cqes.remove(at).result;
            }
            // A worker thread does it, or the kernel was short of memory for a moment.
            timeout_ms = 1;
        }
    }

    /// Calls `f` with a descriptor of the socket; `None` if there is none to be had.
    fn with_descriptor<R>(&mut self, socket: &Socket, f: impl FnOnce(BorrowedFd<'_>) -> R) -> Option<R> {
        match socket.slot(self.shard) {
            None => Some(f(socket.descriptor())),
            Some(slot) => {
                let fd = self.now(Request::install(slot));
                if fd < 0 {
                    return None;
                }
                self.calls += 1;
                // SAFETY: not negative: a new descriptor of the socket, which `now` took from the kernel and nobody else owns.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                Some(f(fd.as_fd()))
            }
        }
    }

    /// What the kernel says of a socket at once.
    fn ask(&mut self, socket: &Socket, question: fn(BorrowedFd<'_>) -> Option<u32>) -> Option<u32> {
        self.calls += 1;
        self.with_descriptor(socket, question)?
    }
}

impl Io for Uring {
    type Listener = TcpListener;

    fn listen(&mut self, listener: ListenerId, socket: TcpListener) {
        let index = usize::from(listener.0);
        if index >= self.listeners.len() {
            self.listeners.resize_with(index + 1, || Listener::CLOSED);
        }
        assert!(self.listeners[index].socket.is_none(), "{listener:?} is open");
        // As in `new`. That it fails costs time, not truth.
        let _ = SockRef::from(&socket).set_tcp_nodelay(true);
        self.listeners[index] = Listener::new(socket);
    }

    fn unlisten(&mut self, listener: ListenerId) {
        let state = &mut self.listeners[usize::from(listener.0)];
        assert!(!state.armed, "{listener:?} is accepting");
        *state = Listener::CLOSED;
    }

    fn accept(&mut self, listener: ListenerId) {
        let index = usize::from(listener.0);
        assert!(!self.listeners[index].armed, "{listener:?} is accepting");
        self.arm_accept(index);
    }

    fn accept_cancel(&mut self, listener: ListenerId) {
        let index = usize::from(listener.0);
        let state = &mut self.listeners[index];
        if !state.armed || state.cancelling {
            return;
        }
        state.cancelling = true;
        let accept = token(index as u32);
        let cancel = Request::cancel(accept.user_data(Operation::Accept));
        self.ring.push(cancel.user_data(accept.user_data(Operation::AcceptCancel)));
    }

    fn settle(&mut self, socket: &mut Socket) {
        if self.direct.settle(&self.ring.submitter(), socket) {
            self.calls += 2;
        }
    }

    fn receive(&mut self, socket: &Socket, token: Token, mode: ReceiveMode) {
        let receive = self.buffers.receive(self.direct.place(socket), mode);
        self.ring.push(receive.user_data(token.user_data(Operation::Receive)));
    }

    fn receive_cancel(&mut self, token: Token) {
        let cancel = Request::cancel(token.user_data(Operation::Receive));
        self.ring.push(cancel.user_data(token.user_data(Operation::ReceiveCancel)));
    }

    fn send(&mut self, socket: &Socket, token: Token, batch: OutBatch) {
        debug_assert!(batch.remaining() > 0, "nothing to send");
        let request = self.flights.begin(self.direct.place(socket), token, batch);
        self.ring.push(request);
    }

    fn send_in_parts(&mut self, socket: &Socket, token: Token, batch: OutBatch) {
        let request = self.flights.begin_in_parts(self.direct.place(socket), token, batch);
        self.ring.push(request);
    }

    fn send_unawaited(&mut self, socket: &Socket, token: Token, batch: OutBatch) {
        let request = self.flights.begin_quiet(self.direct.place(socket), token, batch);
        self.ring.push(request);
    }

    fn shutdown(&mut self, socket: &Socket, how: Shutdown) {
        self.calls += 1;
        // The operation of io_uring would start a worker thread for what never blocks. The only error is that the peer
        // was faster.
        let (how, number) = match how {
            Shutdown::Write => (std::net::Shutdown::Write, libc::SHUT_WR),
            Shutdown::Both => (std::net::Shutdown::Both, libc::SHUT_RDWR),
        };
        let done = self.with_descriptor(socket, |fd| SockRef::from(&fd).shutdown(how));
        if done.is_none() {
            // Out of descriptors: rather a worker thread than a peer that never hears of the end. It is waited for: the place
            // may be closed and given to another socket before this turn is submitted.
            self.now(Request::shutdown(self.direct.place(socket), number));
        }
    }

    fn read_now(&mut self, socket: &Socket, into: &mut Vec<u8>, max: usize) -> ReadNow {
        self.calls += 1;
        let room = max.min(READ_NOW_MAX);
        into.reserve(room);
        let spare = &mut into.spare_capacity_mut()[..room];
        let result = match socket.slot(self.shard) {
            None => match SockRef::from(&socket.descriptor()).recv_with_flags(spare, libc::MSG_DONTWAIT) {
                Ok(count) => count as i32,
                Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
            },
            Some(slot) => {
                let start = spare.as_mut_ptr().cast();
                // SAFETY: `spare` has room for `room` bytes, and nobody else uses it while it is borrowed, which is until `now`
                // has returned with the completion; it does not unwind.
                let receive = unsafe { Request::receive_now(slot, start, room as u32) };
                self.now(receive)
            }
        };
        let len = into.len() + result.max(0) as usize;
        // SAFETY: not beyond the `room` bytes that were reserved behind the old length, and so many of them were written.
        unsafe { into.set_len(len) };
        match result {
            1.. => ReadNow::Bytes(result as usize),
            0 if room > 0 => ReadNow::Eof,
            0 => ReadNow::Bytes(0),
            _ if result == -libc::EAGAIN => ReadNow::WouldBlock,
            _ => ReadNow::Error(-result),
        }
    }

    fn unsent(&mut self, socket: &Socket) -> Option<u32> {
        self.ask(socket, sockets::unsent)
    }

    fn unread(&mut self, socket: &Socket) -> Option<u32> {
        self.ask(socket, sockets::unread)
    }

    fn close(&mut self, socket: Socket) {
        self.calls += 1;
        match socket.slot(self.shard) {
            None => drop(socket.into_descriptor()),
            Some(slot) => self.direct.close(&self.ring.submitter(), slot),
        }
    }

    fn write_file(&mut self, file: &File, tag: u64, at: u64, bytes: Aligned, sync: Sync) {
        let request = self.files.write(file, tag, at, bytes, sync);
        self.ring.push(request);
    }

    fn read_file(&mut self, file: &File, tag: u64, at: u64, into: Aligned, len: usize) {
        let request = self.files.read(file, tag, at, into, len);
        self.ring.push(request);
    }

    fn doorbell(&mut self, shard: ShardId) {
        self.ring_peer(shard);
    }

    fn completions(&mut self, into: &mut Vec<Completion>) {
        let mut cqes = std::mem::take(&mut self.cqes);
        self.ring.reap(&mut cqes);
        let quiet_are_over = self.flights.has_quiet() && self.ring.is_submitted();
        for cqe in cqes.drain(..) {
            self.completed(cqe, into);
        }
        self.cqes = cqes;
        // Nothing tells when they are: then the next wait must not last.
        self.quiet_left = self.flights.has_quiet() && !quiet_are_over;
        if quiet_are_over {
            while let Some((token, batch)) = self.flights.end_quiet() {
                let result = Ok(batch.remaining());
                into.push(Completion::Sent { token, batch, result });
            }
        }
    }

    fn bytes(&self, buffer: Buffer) -> &[u8] {
        self.buffers.bytes(buffer)
    }

    fn replenish(&mut self, buffer: Buffer) {
        self.buffers.replenish(buffer.id);
    }

    fn random(&mut self) -> u64 {
        self.random.next(&mut self.calls)
    }
}

/// Stands for a peer that was gone when it was accepted.
const UNKNOWN_PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Bytes of one `read_now` at most; whoever wants more asks again.
const READ_NOW_MAX: usize = 64 * 1024;

/// Looks at the completion queue when a ring ends; one is enough unless the queue had overflown.
const DROP_ROUNDS: u32 = 64;

impl Driver for Uring {
    fn submit_and_wait(&mut self, timeout_ms: u64) {
        self.buffers.publish();
        // What `now` left behind has completed already, and quiet sends may have.
        let timeout_ms = if self.cqes.is_empty() && !self.quiet_left { timeout_ms } else { 0 };
        self.ring.submit_and_wait(timeout_ms);
    }

    fn system_calls(&self) -> u64 {
        self.ring.enters() + self.calls
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.peers.set(self.shard, None);
        self.ring.cancel_all();
        let mut left = Vec::new();
        for _ in 0..DROP_ROUNDS {
            self.completions(&mut left);
            for completion in left.drain(..) {
                if let Completion::Accepted { socket, .. } = completion {
                    self.close(socket);
                }
            }
            if !self.buffers.is_used() && self.flights.is_empty() && self.files.is_empty() {
                break;
            }
            self.ring.submit_and_wait(10);
        }
        // Cancelling waits for all. Should that fail, `buffers`, `flights` and `files` do not free what the kernel may still
        // use. A disk may take longer than this waits.
        debug_assert!(
            std::thread::panicking() || (!self.buffers.is_used() && self.flights.is_empty()),
            "the kernel did not let go of a ring"
        );
    }
}
