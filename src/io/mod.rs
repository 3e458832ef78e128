//! The kernel boundary: what a shard may ask of the world, and what the world answers.
//!
//! Knows no MQTT word. A shard runs over the trait [`Io`]; `uring` is the kernel, `epoll` is the
//! kernel where rings are forbidden, `sim` is a seeded fake. Everything that a shard asks for is an
//! operation that completes later; nothing here blocks. Only [`files`], which no shard calls, has
//! calls that do. The rules that both sides keep:
//!
//! - One receive and one send per socket at a time. A socket is closed or moved to another shard only after both had
//!   their final completion.
//! - The bytes of a [`Completion::Received`] stay valid until [`Io::replenish`], which the shard calls in the same turn.
//! - A batch given to [`Io::send`] is owned by `Io` until [`Completion::Sent`] brings it back.
//! - Completions of one socket and one direction come in order; between sockets there is no order.
//! - A read or write of a file is named by a number of the shard's own. Places and lengths are multiples of
//!   [`SECTOR`](crate::memory::SECTOR). The memory belongs to `Io` until the completion brings it back. Operations on files
//!   come in any order, and two that overlap are a mistake of the shard.

pub(crate) mod epoll;
mod file;
pub mod files;
pub(crate) mod kernel;
pub mod machine;
mod random;
pub mod sim;
mod socket;
pub mod sockets;
#[cfg(test)]
mod tests;
mod token;
pub mod uring;

use std::net::{SocketAddr, TcpListener};

use crate::memory::{Aligned, OutBatch, ShardId};

pub use file::File;
pub use files::Files;
pub use random::random_keys;
pub use socket::Socket;
pub use token::Token;

use token::Operation;

/// Index of a listening socket, as given to the backend at start.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ListenerId(pub u16);

/// A receive buffer that the kernel filled.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Buffer {
    pub id: u16,
    /// Where the bytes start within the buffer.
    pub offset: u32,
    pub len: u32,
}

/// How long a receive stays armed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ReceiveMode {
    /// One completion. Used until a connection is at home, so that it can move without a cancel.
    Once,
    /// Until it is cancelled, fails, or runs out of buffers.
    Many,
}

/// Why a receive is over.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ReceiveEnd {
    /// The peer closed its side.
    Eof,
    /// No receive buffer was free: nothing is lost, arm again once buffers are back.
    NoBuffers,
    /// [`Io::receive_cancel`] took effect.
    Cancelled,
    /// The connection failed; the errno.
    Error(i32),
}

/// Which directions [`Io::shutdown`] ends.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Shutdown {
    Write,
    Both,
}

/// What a write has reached when it is over.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Sync {
    /// The kernel or the device: a loss of power may undo it.
    None,
    /// The device, flushed: these bytes survive a loss of power. Bytes of other writes may not.
    Data,
}

/// What a non-blocking read found.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ReadNow {
    Bytes(usize),
    WouldBlock,
    Eof,
    Error(i32),
}

/// What the world answers.
#[derive(Debug)]
pub enum Completion {
    Accepted {
        listener: ListenerId,
        socket: Socket,
        peer: SocketAddr,
    },
    /// Accepting ended (cancelled, out of descriptors, ...); arm again to go on. 0 when it was
    /// cancelled.
    AcceptEnded {
        listener: ListenerId,
        errno: i32,
    },
    /// Bytes. With `more` false the receive is over and must be armed again for more.
    Received {
        token: Token,
        buffer: Buffer,
        more: bool,
    },
    /// The receive is over without bytes.
    ReceiveEnded {
        token: Token,
        end: ReceiveEnd,
    },
    /// The send is over. `result` is the number of bytes taken, possibly short, or the errno.
    Sent {
        token: Token,
        batch: OutBatch,
        result: Result<usize, i32>,
    },
    /// The cancel of a receive is over; the receive itself ends by its own completion, before or
    /// after this.
    CancelEnded {
        token: Token,
    },
    /// Another shard rang.
    Doorbell,
    /// A write of a file is over: all of it was written, or the errno. After an error any part of it may have been.
    Written {
        tag: u64,
        /// As they were given.
        bytes: Aligned,
        result: Result<(), i32>,
    },
    /// A read of a file is over.
    FileRead {
        tag: u64,
        /// What was read; shorter than asked for at the end of the file.
        bytes: Aligned,
        result: Result<(), i32>,
    },
}

/// What a shard may ask of the world.
pub trait Io {
    /// A listening socket as it is given to a shard that runs.
    type Listener;

    /// A further listening socket, which does not accept yet. Its number is that of no other that
    /// is open.
    fn listen(&mut self, listener: ListenerId, socket: Self::Listener);
    /// Closes a listening socket that does not accept. The kernel resets connections that wait
    /// there.
    fn unlisten(&mut self, listener: ListenerId);
    /// Starts accepting; connections come as [`Completion::Accepted`] until
    /// [`Completion::AcceptEnded`].
    fn accept(&mut self, listener: ListenerId);
    /// Stops accepting; ends with [`Completion::AcceptEnded`].
    fn accept_cancel(&mut self, listener: ListenerId);
    /// Moves a socket into this shard's own table, where it needs no process descriptor, and
    /// changes `socket` to its name there. The socket must have no operation in flight, and must
    /// not move to another shard later. A socket that is in the table already stays as it is.
    fn settle(&mut self, socket: &mut Socket) {
        let _ = socket;
    }
    /// Arms a receive.
    fn receive(&mut self, socket: &Socket, token: Token, mode: ReceiveMode);
    /// Cancels an armed receive. Data may still come before its end.
    fn receive_cancel(&mut self, token: Token);
    /// Sends a batch that is not empty.
    fn send(&mut self, socket: &Socket, token: Token, batch: OutBatch);
    /// Sends a batch without waking the shard when all of it is sent at once. The completion of
    /// such a send is found when the shard takes completions for another reason. A send that cannot
    /// finish at once is like any other send.
    fn send_unawaited(&mut self, socket: &Socket, token: Token, batch: OutBatch) {
        self.send(socket, token, batch);
    }
    /// Sends a large batch. The send ends as soon as the socket has taken a part of it, so the
    /// shard learns that the peer is still reading.
    fn send_in_parts(&mut self, socket: &Socket, token: Token, batch: OutBatch) {
        self.send(socket, token, batch);
    }
    /// Shuts down. With `Write` the peer sees the end of the stream after what was sent. With
    /// `Both` a receive in flight also ends after the pending data, and a send in flight fails.
    fn shutdown(&mut self, socket: &Socket, how: Shutdown);
    /// Reads at most `max` bytes that the kernel already has, without waiting, and appends them to
    /// `into`.
    fn read_now(&mut self, socket: &Socket, into: &mut Vec<u8>, max: usize) -> ReadNow;
    /// Bytes that were sent and that the peer's kernel has not acknowledged. `None` if that cannot
    /// be known now.
    fn unsent(&mut self, socket: &Socket) -> Option<u32>;
    /// Bytes that have come to the socket and that no completion has reported yet. `None` if that
    /// cannot be known now.
    fn unread(&mut self, socket: &Socket) -> Option<u32>;
    /// Closes; the socket has no operation in flight.
    fn close(&mut self, socket: Socket);
    /// Writes bytes to a file, at least one sector; ends with [`Completion::Written`] and the same `tag`.
    fn write_file(&mut self, file: &File, tag: u64, at: u64, bytes: Aligned, sync: Sync);
    /// Reads `len` bytes of a file in place of what `into` holds; ends with [`Completion::FileRead`] and the same `tag`.
    fn read_file(&mut self, file: &File, tag: u64, at: u64, into: Aligned, len: usize);
    /// Wakes a shard that announced that it sleeps.
    fn doorbell(&mut self, shard: ShardId);
    /// Takes what has completed, appended to `into`. Does not wait.
    fn completions(&mut self, into: &mut Vec<Completion>);
    /// The bytes of a filled buffer.
    fn bytes(&self, buffer: Buffer) -> &[u8];
    /// Gives a buffer back; a receive may fill it from now on.
    fn replenish(&mut self, buffer: Buffer);
    /// A random number; seeded in simulation.
    fn random(&mut self) -> u64;
}

/// A backend with a real clock behind it.
pub trait Driver: Io<Listener = TcpListener> {
    /// Submits everything that was asked for, then waits for a completion, but at most
    /// `timeout_ms`. With 0 it does not wait.
    fn submit_and_wait(&mut self, timeout_ms: u64);
    /// System calls so far, of every kind.
    fn system_calls(&self) -> u64;
}
