//! [`Io`] over epoll and non-blocking sockets, for kernels and containers that forbid io_uring.
//!
//! A plain second implementation: the same completions from the calls that everybody knows, and no tricks. It is also
//! what the ring is measured against and tested against.
//!
//! Level-triggered. A descriptor is registered exactly while an operation waits for it, so a socket without operations
//! can move to another shard as a number. A send is tried at once, and waits only for what the socket did not take; a
//! receive waits until the kernel says that there is something.
//!
//! Invariant: `pending` has a socket exactly while an operation on it is in flight. Meanwhile the rules of [`Io`] keep it on
//! this shard, whose `close` refuses it; so what is pending is open.
#![allow(unsafe_code)] // An operation outlives the borrow of its socket.
//!
//! Every turn is bounded: [`EVENTS`] events, [`ACCEPTS`] connections of each listening socket, [`RECEIVES`] buffers of
//! each socket. What is left is reported again by the next wait.

mod files;
mod sys;

use std::collections::HashMap;
use std::io::{self, IoSlice, Read};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use super::random::Random;
use super::{
    Buffer, Completion, Driver, File, Io, ListenerId, ReadNow, ReceiveEnd, ReceiveMode, Shutdown, Socket,
    Sync, Token, sockets,
};
use crate::memory::{Aligned, OutBatch, ShardId};
use files::{Job, Worker};
use socket2::SockRef;
use sys::{Awaited, Bell, Change, Event, Poll};

/// Events that one wait reports at most.
pub const EVENTS: usize = 1024;
/// Connections that one listening socket accepts in a turn.
pub const ACCEPTS: usize = 64;
/// Buffers that one socket fills in a turn.
pub const RECEIVES: usize = 16;
/// Pieces in one system call; the kernel refuses more. The rest goes with the next send, as with the ring.
const PIECES: usize = libc::UIO_MAXIOV as usize;
/// Bytes of one send at most, as with the ring.
const SEND_BYTES: usize = 1 << 30;
/// Bytes of one `read_now` at most; whoever wants more asks again.
const READ_NOW_BYTES: usize = 64 * 1024;

/// Values of registrations; a socket's is its descriptor, which has 31 bits.
const BELL: u64 = u64::MAX;
const FILES: u64 = u64::MAX - 1;
const LISTENERS: u64 = 1 << 32;

/// `filled` of a buffer that was given back.
const FREE: u32 = u32::MAX;

/// The doorbells of all shards of the process.
#[derive(Debug)]
pub struct Bells(Box<[Bell]>);

impl Bells {
    /// # Errors
    /// `EMFILE` and its like.
    pub fn new(shards: u16) -> io::Result<Bells> {
        Ok(Bells((0..shards).map(|_| Bell::new()).collect::<io::Result<_>>()?))
    }

    /// Wakes a shard, or tells it before it sleeps.
    pub fn ring(&self, shard: ShardId) {
        self.0[usize::from(shard)].ring();
    }
}

struct Listener {
    /// `None` for one that is closed.
    socket: Option<TcpListener>,
    armed: bool,
}

/// A send that is not over.
struct Flight {
    token: Token,
    batch: OutBatch,
    /// Bytes after which it is.
    goal: usize,
    /// It also is when the socket is full and took some.
    in_parts: bool,
    sent: usize,
}

/// The operations of one socket.
struct Pending {
    socket: Awaited,
    receive: Option<(Token, ReceiveMode)>,
    send: Option<Flight>,
    /// As it is registered.
    interest: u32,
}

/// Sockets as a shard sees them. Belongs to the thread that made it.
pub struct Epoll {
    poll: Poll,
    events: Vec<Event>,
    listeners: Vec<Listener>,
    shard: ShardId,
    bells: Arc<Bells>,
    pending: HashMap<RawFd, Pending, ahash::RandomState>,
    /// Where a receive can be found when it is cancelled.
    receives: HashMap<Token, RawFd, ahash::RandomState>,
    done: Vec<Completion>,
    /// Since the first operation on a file.
    files: Option<Worker>,
    memory: Box<[u8]>,
    buffer_bytes: u32,
    free: Vec<u16>,
    /// By buffer: the bytes in it, or [`FREE`].
    filled: Box<[u32]>,
    random: Random,
    calls: u64,
}

impl Epoll {
    /// `buffers` receive buffers of `buffer_bytes` each; if none is free, receives end and the data stays in the
    /// sockets. A listener's index is its [`ListenerId`].
    ///
    /// # Errors
    /// What the kernel refuses: descriptors and memory.
    pub fn new(
        (buffers, buffer_bytes): (u16, u32),
        shard: ShardId,
        bells: Arc<Bells>,
        listeners: Vec<TcpListener>,
    ) -> io::Result<Epoll> {
        let poll = Poll::new(EVENTS)?;
        poll.change(Change::Add, bells.0[usize::from(shard)].fd(), sys::READ, BELL)?;
        for socket in &listeners {
            socket.set_nonblocking(true)?;
            // Inherited by what is accepted. Output is batched by the turn; waiting for more would only delay it.
            SockRef::from(socket).set_tcp_nodelay(true)?;
        }
        let (mut random, mut calls) = (Random::default(), 0);
        let [a, b, c, d, e, f, g, h] = std::array::from_fn(|_| random.next(&mut calls));
        Ok(Epoll {
            poll,
            events: Vec::new(),
            listeners: listeners
                .into_iter()
                .map(|socket| Listener { socket: Some(socket), armed: false })
                .collect(),
            shard,
            bells,
            pending: HashMap::with_hasher(ahash::RandomState::with_seeds(a, b, c, d)),
            receives: HashMap::with_hasher(ahash::RandomState::with_seeds(e, f, g, h)),
            done: Vec::new(),
            files: None,
            memory: vec![0; usize::from(buffers) * buffer_bytes as usize].into(),
            buffer_bytes,
            free: (0..buffers).rev().collect(),
            filled: vec![FREE; usize::from(buffers)].into(),
            random,
            calls,
        })
    }

    fn happened(&mut self, event: Event) {
        match event.value {
            BELL => {
                self.calls += 1;
                if self.bells.0[usize::from(self.shard)].silence() {
                    self.done.push(Completion::Doorbell);
                }
            }
            FILES => {
                self.calls += 1;
                if let Some(worker) = &self.files {
                    worker.take_done(&mut self.done);
                }
            }
            listener if listener >= LISTENERS => self.accept_some((listener - LISTENERS) as usize),
            socket => {
                let fd = socket as RawFd;
                if event.ready & (sys::READ | sys::BROKEN) != 0 {
                    self.receive_some(fd);
                }
                if event.ready & (sys::WRITE | sys::BROKEN) != 0 {
                    self.send_some(fd);
                }
                self.register(fd);
            }
        }
    }

    fn begin_job(&mut self, job: Job) {
        match self.worker() {
            Ok(worker) => worker.begin(job),
            Err(error) => self.done.push(job.fail(error.raw_os_error().unwrap_or(libc::EIO))),
        }
    }

    /// The thread for files, started if need be.
    fn worker(&mut self) -> io::Result<&Worker> {
        if self.files.is_none() {
            self.calls += 3;
            let worker = Worker::start()?;
            self.poll.change(Change::Add, worker.bell(), sys::READ, FILES)?;
            self.files = Some(worker);
        }
        // A system call of the thread for each operation, and one to ring.
        self.calls += 2;
        self.files.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn accept_some(&mut self, index: usize) {
        let id = ListenerId(index as u16);
        for _ in 0..ACCEPTS {
            self.calls += 1;
            let socket = self.listeners[index].socket.as_ref().expect("a closed socket accepts nothing");
            match socket.accept() {
                Ok((stream, peer)) => {
                    self.calls += 1;
                    // A socket that cannot be switched is closed again.
                    if stream.set_nonblocking(true).is_ok() {
                        let socket = Socket::from(OwnedFd::from(stream));
                        self.done.push(Completion::Accepted { listener: id, socket, peer });
                    }
                }
                Err(error) => match error.raw_os_error().unwrap_or(0) {
                    libc::EAGAIN => return,
                    // A connection that was gone before it was accepted.
                    libc::ECONNABORTED | libc::EINTR | libc::EPROTO => {}
                    errno => return self.accept_over(index, errno),
                },
            }
        }
    }

    fn accept_over(&mut self, index: usize, errno: i32) {
        self.calls += 1;
        let listener = &mut self.listeners[index];
        listener.armed = false;
        // Removing what is registered cannot fail.
        if let Some(socket) = &listener.socket {
            let _ = self.poll.change(Change::Remove, socket, 0, 0);
        }
        self.done.push(Completion::AcceptEnded { listener: ListenerId(index as u16), errno });
    }

    fn receive_some(&mut self, fd: RawFd) {
        for _ in 0..RECEIVES {
            let Some(pending) = self.pending.get(&fd) else { return };
            let Some((token, mode)) = pending.receive else { return };
            let Some(&id) = self.free.last() else { return self.receive_over(fd, ReceiveEnd::NoBuffers) };
            let start = usize::from(id) * self.buffer_bytes as usize;
            let into = &mut self.memory[start..start + self.buffer_bytes as usize];
            self.calls += 1;
            let end = match pending.socket.with(|mut socket| socket.read(into)) {
                Ok(0) => ReceiveEnd::Eof,
                Ok(count) => {
                    self.free.pop();
                    self.filled[usize::from(id)] = count as u32;
                    let buffer = Buffer { id, offset: 0, len: count as u32 };
                    let more = mode == ReceiveMode::Many;
                    self.done.push(Completion::Received { token, buffer, more });
                    if !more {
                        self.forget_receive(fd);
                    }
                    if count < self.buffer_bytes as usize {
                        return;
                    }
                    continue;
                }
                Err(error) => match error.raw_os_error().unwrap_or(libc::EIO) {
                    libc::EAGAIN | libc::EINTR => return,
                    errno => ReceiveEnd::Error(errno),
                },
            };
            return self.receive_over(fd, end);
        }
    }

    fn forget_receive(&mut self, fd: RawFd) -> Option<Token> {
        let (token, _) = self.pending.get_mut(&fd)?.receive.take()?;
        self.receives.remove(&token);
        Some(token)
    }

    fn receive_over(&mut self, fd: RawFd, end: ReceiveEnd) {
        if let Some(token) = self.forget_receive(fd) {
            self.done.push(Completion::ReceiveEnded { token, end });
        }
    }

    /// The operations of a socket, of which one begins now.
    fn begin(&mut self, socket: &Socket) -> (RawFd, &mut Pending) {
        let fd = socket.descriptor().as_raw_fd();
        let pending = self.pending.entry(fd).or_insert_with(|| {
            // SAFETY: this is dropped when no operation is in flight any more. Until then `close` refuses the socket here, and no
            // other shard has it: it moves without operations only, by the first rule of `Io`.
            let socket = unsafe { Awaited::new(socket) };
            Pending { socket, receive: None, send: None, interest: 0 }
        });
        (fd, pending)
    }

    fn begin_send(&mut self, socket: &Socket, flight: Flight) {
        assert!(flight.goal > 0, "nothing to send");
        let (fd, pending) = self.begin(socket);
        assert!(pending.send.is_none(), "a send is in flight");
        pending.send = Some(flight);
        self.send_some(fd);
        self.register(fd);
    }

    /// Sends until the goal is reached or the socket is full.
    fn send_some(&mut self, fd: RawFd) {
        let Some(pending) = self.pending.get_mut(&fd) else { return };
        let Some(flight) = &mut pending.send else { return };
        let result = loop {
            if flight.sent == flight.goal {
                break Ok(flight.sent);
            }
            self.calls += 1;
            match flight.send_once(&pending.socket) {
                Ok(count) => flight.sent += count,
                Err(error) => match error.raw_os_error().unwrap_or(libc::EIO) {
                    libc::EAGAIN if flight.sent == 0 || !flight.in_parts => return,
                    libc::EINTR => {}
                    // What was taken counts; the next send meets the error again.
                    _ if flight.sent > 0 => break Ok(flight.sent),
                    errno => break Err(errno),
                },
            }
        };
        let Flight { token, batch, .. } = pending.send.take().expect("it was sent from just now");
        self.done.push(Completion::Sent { token, batch, result });
    }

    /// Brings the registration in line with what waits; without anything the socket is forgotten.
    fn register(&mut self, fd: RawFd) {
        let Some(pending) = self.pending.get_mut(&fd) else { return };
        let read = if pending.receive.is_some() { sys::READ } else { 0 };
        let write = if pending.send.is_some() { sys::WRITE } else { 0 };
        let (before, wanted) = (pending.interest, read | write);
        pending.interest = wanted;
        let change = match (before, wanted) {
            (0, 0) => None,
            (0, _) => Some(Change::Add),
            (_, 0) => Some(Change::Remove),
            (before, wanted) if before != wanted => Some(Change::Modify),
            _ => return,
        };
        if let Some(change) = change {
            self.calls += 1;
            let changed = pending.socket.with(|socket| self.poll.change(change, socket, wanted, fd as u64));
            if let Err(error) = changed {
                self.fail(fd, error.raw_os_error().unwrap_or(libc::EIO));
            }
        }
        if wanted == 0 {
            self.pending.remove(&fd);
        }
    }

    /// The kernel does not watch the socket: nothing on it would ever end.
    fn fail(&mut self, fd: RawFd, errno: i32) {
        self.receive_over(fd, ReceiveEnd::Error(errno));
        if let Some(Pending { send: Some(flight), .. }) = self.pending.remove(&fd) {
            let Flight { token, batch, .. } = flight;
            self.done.push(Completion::Sent { token, batch, result: Err(errno) });
        }
    }
}

impl Flight {
    fn new(token: Token, batch: OutBatch) -> Flight {
        let all = match batch.contiguous() {
            Some(bytes) => bytes.len(),
            None => batch.pieces().take(PIECES).map(<[u8]>::len).sum(),
        };
        Flight { token, goal: all.min(SEND_BYTES), in_parts: false, batch, sent: 0 }
    }

    /// One system call for what is left.
    fn send_once(&self, socket: &Awaited) -> io::Result<usize> {
        let flags = libc::MSG_NOSIGNAL;
        if let Some(bytes) = self.batch.contiguous() {
            let left = &bytes[self.sent..self.goal];
            return socket.with(|socket| socket.send_with_flags(left, flags));
        }
        let mut skip = self.sent;
        let mut room = self.goal - self.sent;
        let mut slices = Vec::new();
        for piece in self.batch.pieces().take(PIECES) {
            let skipped = skip.min(piece.len());
            skip -= skipped;
            let piece = &piece[skipped..(skipped + room).min(piece.len())];
            if !piece.is_empty() {
                room -= piece.len();
                slices.push(IoSlice::new(piece));
            }
        }
        socket.with(|socket| socket.send_vectored_with_flags(&slices, flags))
    }
}

impl Io for Epoll {
    type Listener = TcpListener;

    fn listen(&mut self, listener: ListenerId, socket: TcpListener) {
        let index = usize::from(listener.0);
        if index >= self.listeners.len() {
            self.listeners.resize_with(index + 1, || Listener { socket: None, armed: false });
        }
        assert!(self.listeners[index].socket.is_none(), "{listener:?} is open");
        self.calls += 2;
        // As in `new`. That it fails costs time, not truth.
        let _ = SockRef::from(&socket).set_tcp_nodelay(true);
        // A socket that would block has no place here: then accepting ends with an error.
        let switched = socket.set_nonblocking(true).is_ok();
        self.listeners[index].socket = Some(socket).filter(|_| switched);
    }

    fn unlisten(&mut self, listener: ListenerId) {
        let state = &mut self.listeners[usize::from(listener.0)];
        assert!(!state.armed, "{listener:?} is accepting");
        state.socket = None;
    }

    fn accept(&mut self, listener: ListenerId) {
        let index = usize::from(listener.0);
        let state = &mut self.listeners[index];
        assert!(!state.armed, "{listener:?} is accepting");
        state.armed = true;
        self.calls += 1;
        let value = LISTENERS + index as u64;
        let added = match &state.socket {
            Some(socket) => self.poll.change(Change::Add, socket, sys::READ, value),
            None => Err(io::Error::from_raw_os_error(libc::EBADF)),
        };
        if let Err(error) = added {
            self.accept_over(index, error.raw_os_error().unwrap_or(libc::EIO));
        }
    }

    fn accept_cancel(&mut self, listener: ListenerId) {
        let index = usize::from(listener.0);
        if self.listeners[index].armed {
            self.accept_over(index, 0);
        }
    }

    fn receive(&mut self, socket: &Socket, token: Token, mode: ReceiveMode) {
        let (fd, pending) = self.begin(socket);
        assert!(pending.receive.is_none(), "a receive is armed");
        pending.receive = Some((token, mode));
        self.receives.insert(token, fd);
        self.register(fd);
    }

    fn receive_cancel(&mut self, token: Token) {
        if let Some(fd) = self.receives.get(&token).copied() {
            self.receive_over(fd, ReceiveEnd::Cancelled);
            self.register(fd);
        }
        self.done.push(Completion::CancelEnded { token });
    }

    fn send(&mut self, socket: &Socket, token: Token, batch: OutBatch) {
        self.begin_send(socket, Flight::new(token, batch));
    }

    fn send_in_parts(&mut self, socket: &Socket, token: Token, batch: OutBatch) {
        self.begin_send(socket, Flight { in_parts: true, ..Flight::new(token, batch) });
    }

    fn shutdown(&mut self, socket: &Socket, how: Shutdown) {
        self.calls += 1;
        let how = match how {
            Shutdown::Write => std::net::Shutdown::Write,
            Shutdown::Both => std::net::Shutdown::Both,
        };
        // The only error is that the peer was faster.
        let _ = SockRef::from(&socket.descriptor()).shutdown(how);
    }

    fn read_now(&mut self, socket: &Socket, into: &mut Vec<u8>, max: usize) -> ReadNow {
        let max = max.min(READ_NOW_BYTES);
        if max == 0 {
            return ReadNow::Bytes(0);
        }
        let before = into.len();
        into.resize(before + max, 0);
        self.calls += 1;
        let result = (&*SockRef::from(&socket.descriptor())).read(&mut into[before..]);
        into.truncate(before + result.as_ref().map_or(0, |count| *count));
        match result {
            Ok(0) => ReadNow::Eof,
            Ok(count) => ReadNow::Bytes(count),
            Err(error) => match error.raw_os_error().unwrap_or(libc::EIO) {
                libc::EAGAIN => ReadNow::WouldBlock,
                errno => ReadNow::Error(errno),
            },
        }
    }

    fn unsent(&mut self, socket: &Socket) -> Option<u32> {
        self.calls += 1;
        sockets::unsent(socket.descriptor())
    }

    fn unread(&mut self, socket: &Socket) -> Option<u32> {
        self.calls += 1;
        sockets::unread(socket.descriptor())
    }

    fn close(&mut self, socket: Socket) {
        let is_pending = self.pending.contains_key(&socket.descriptor().as_raw_fd());
        assert!(!is_pending, "closed with an operation in flight");
        self.calls += 1;
        drop(socket.into_descriptor());
    }

    fn write_file(&mut self, file: &File, tag: u64, at: u64, bytes: Aligned, sync: Sync) {
        self.begin_job(Job::write(file, tag, at, bytes, sync));
    }

    fn read_file(&mut self, file: &File, tag: u64, at: u64, into: Aligned, len: usize) {
        self.begin_job(Job::read(file, tag, at, into, len));
    }

    fn doorbell(&mut self, shard: ShardId) {
        self.calls += 1;
        self.bells.ring(shard);
    }

    fn completions(&mut self, into: &mut Vec<Completion>) {
        into.append(&mut self.done);
    }

    fn bytes(&self, buffer: Buffer) -> &[u8] {
        let filled = self.filled[usize::from(buffer.id)];
        let end = buffer.offset.checked_add(buffer.len).expect("no buffer is that long");
        assert!(filled != FREE && end <= filled, "{buffer:?} of which {filled} bytes are ours");
        let start = usize::from(buffer.id) * self.buffer_bytes as usize + buffer.offset as usize;
        &self.memory[start..start + buffer.len as usize]
    }

    fn replenish(&mut self, buffer: Buffer) {
        let filled = &mut self.filled[usize::from(buffer.id)];
        assert_ne!(*filled, FREE, "buffer {} was given back twice", buffer.id);
        *filled = FREE;
        self.free.push(buffer.id);
    }

    fn random(&mut self) -> u64 {
        self.random.next(&mut self.calls)
    }
}

impl Driver for Epoll {
    fn submit_and_wait(&mut self, timeout_ms: u64) {
        let timeout_ms = if self.done.is_empty() { timeout_ms } else { 0 };
        let mut events = std::mem::take(&mut self.events);
        self.calls += 1;
        self.poll.wait(timeout_ms, &mut events);
        for event in events.drain(..) {
            self.happened(event);
        }
        self.events = events;
    }

    fn system_calls(&self) -> u64 {
        self.calls
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        for completion in self.done.drain(..) {
            if let Completion::Accepted { socket, .. } = completion {
                drop(socket.into_descriptor());
            }
        }
    }
}
