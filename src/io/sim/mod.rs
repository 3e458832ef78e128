//! A kernel made of random numbers: the [`Io`] of shards that run on one thread under virtual time.
//!
//! [`World`] is shared by all shards of a run and by the clients of the test; [`SimIo`] is one shard's door to it.
//! Everything follows from one seed. It does what the trait allows and real kernels do rarely: completions late and in
//! any order across sockets, short receives and sends, receives that end at any time or find no buffer, data between a
//! cancel and its end, resets, half-open and slow peers, late doorbells. Buffers that were given back are poisoned, and
//! the trait's rules are asserted on the shard. Its [`Disk`] outlives a [`World::crash`]. It is not a model of speed: nothing here takes time.

mod disk;
mod faults;
mod files;
mod link;
mod rng;
mod tape;
#[cfg(test)]
mod tests;
mod world;

use std::cell::RefCell;
use std::rc::Rc;

use self::world::Pending;
use super::{Buffer, Completion, File, Io, ListenerId, ReadNow, ReceiveMode, Shutdown, Socket, Sync, Token};
use crate::memory::{Aligned, OutBatch, ShardId};

pub use disk::{ATOM, Disk, Fate, Step};
pub use faults::{DiskFaults, Fault, FaultCounts, Faults};
pub use files::SimFiles;
pub use rng::{Odds, Rng};
pub use tape::Tape;
pub use world::{ClientRead, Crash, Endpoint, Tally, World};

/// What a buffer holds once it was given back.
const POISON: u8 = 0xDD;

/// One shard's door to the [`World`].
#[derive(Debug)]
pub struct SimIo {
    shard: ShardId,
    world: Rc<RefCell<World>>,
    buffers: Vec<Vec<u8>>,
    /// Slices that the shard was given in this turn and still holds.
    lent: usize,
}

impl SimIo {
    pub fn new(shard: ShardId, world: Rc<RefCell<World>>) -> SimIo {
        let (count, size) = (world.borrow().faults.buffers, world.borrow().faults.buffer_bytes);
        SimIo { shard, world, buffers: vec![vec![POISON; size]; count], lent: 0 }
    }

    fn slice(buffer: Buffer) -> std::ops::Range<usize> {
        buffer.offset as usize..(buffer.offset + buffer.len) as usize
    }

    /// The completion as the shard sees it; the bytes of a receive go into the buffer.
    fn hand_over(&mut self, pending: Pending) -> Completion {
        match pending {
            Pending::Accepted { listener, socket, peer } => {
                Completion::Accepted { listener, socket: Socket::imagined(socket as u32), peer }
            }
            Pending::AcceptEnded { listener, errno } => Completion::AcceptEnded { listener, errno },
            Pending::Received { token, buffer, bytes, more } => {
                self.buffers[usize::from(buffer.id)][Self::slice(buffer)].copy_from_slice(&bytes);
                self.lent += 1;
                Completion::Received { token, buffer, more }
            }
            Pending::ReceiveEnded { token, end } => Completion::ReceiveEnded { token, end },
            Pending::Sent { token, batch, result } => Completion::Sent { token, batch, result },
            Pending::CancelEnded { token } => Completion::CancelEnded { token },
            Pending::Doorbell => Completion::Doorbell,
            Pending::Written { tag, bytes, result, .. } => Completion::Written { tag, bytes, result },
            Pending::FileRead { tag, bytes, result } => Completion::FileRead { tag, bytes, result },
        }
    }
}

impl Io for SimIo {
    type Listener = ();

    fn listen(&mut self, listener: ListenerId, (): ()) {
        self.world.borrow_mut().listen(self.shard, listener);
    }

    fn unlisten(&mut self, listener: ListenerId) {
        self.world.borrow_mut().unlisten(self.shard, listener);
    }

    fn accept(&mut self, listener: ListenerId) {
        self.world.borrow_mut().accept(self.shard, listener);
    }

    fn accept_cancel(&mut self, listener: ListenerId) {
        self.world.borrow_mut().accept_cancel(self.shard, listener);
    }

    fn receive(&mut self, socket: &Socket, token: Token, mode: ReceiveMode) {
        self.world.borrow_mut().receive(self.shard, socket.imagined_number() as usize, token, mode);
    }

    fn receive_cancel(&mut self, token: Token) {
        self.world.borrow_mut().receive_cancel(self.shard, token);
    }

    fn send(&mut self, socket: &Socket, token: Token, batch: OutBatch) {
        self.world.borrow_mut().send(self.shard, socket.imagined_number() as usize, token, batch, true);
    }

    fn send_unawaited(&mut self, socket: &Socket, token: Token, batch: OutBatch) {
        self.world.borrow_mut().send(self.shard, socket.imagined_number() as usize, token, batch, false);
    }

    fn shutdown(&mut self, socket: &Socket, how: Shutdown) {
        self.world.borrow_mut().shutdown(self.shard, socket.imagined_number() as usize, how);
    }

    fn read_now(&mut self, socket: &Socket, into: &mut Vec<u8>, max: usize) -> ReadNow {
        self.world.borrow_mut().read_now(self.shard, socket.imagined_number() as usize, into, max)
    }

    fn unsent(&mut self, socket: &Socket) -> Option<u32> {
        Some(self.world.borrow_mut().unsent(self.shard, socket.imagined_number() as usize))
    }

    fn unread(&mut self, socket: &Socket) -> Option<u32> {
        Some(self.world.borrow_mut().unread(self.shard, socket.imagined_number() as usize))
    }

    fn close(&mut self, socket: Socket) {
        self.world.borrow_mut().close_socket(self.shard, socket.imagined_number() as usize);
    }

    fn write_file(&mut self, file: &File, tag: u64, at: u64, bytes: Aligned, sync: Sync) {
        self.world.borrow_mut().write_file(self.shard, file, tag, at, bytes, sync);
    }

    fn read_file(&mut self, file: &File, tag: u64, at: u64, into: Aligned, len: usize) {
        self.world.borrow_mut().read_file(self.shard, file, tag, at, into, len);
    }

    fn doorbell(&mut self, shard: ShardId) {
        self.world.borrow_mut().doorbell(self.shard, shard);
    }

    fn completions(&mut self, into: &mut Vec<Completion>) {
        assert_eq!(
            self.lent, 0,
            "io-rule: shard {} kept receive buffers over the end of its turn",
            self.shard
        );
        let taken = self.world.borrow_mut().take_completions(self.shard);
        into.extend(taken.into_iter().map(|pending| self.hand_over(pending)));
    }

    fn bytes(&self, buffer: Buffer) -> &[u8] {
        &self.buffers[usize::from(buffer.id)][Self::slice(buffer)]
    }

    fn replenish(&mut self, buffer: Buffer) {
        self.world.borrow_mut().replenish(self.shard, buffer);
        self.buffers[usize::from(buffer.id)][Self::slice(buffer)].fill(POISON);
        self.lent -= 1;
    }

    fn random(&mut self) -> u64 {
        self.world.borrow_mut().random()
    }
}
