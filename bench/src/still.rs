//! A kernel that stands still: what a shard is fed is laid before it, and what it sends is kept.
//!
//! The simulator's fake draws faults, delays and poison for every byte, which would drown what a turn itself costs; here
//! a completion costs a push and a pop. No faults, no clock, no order but the one in which things were fed.

use std::net::{Ipv4Addr, SocketAddr};

use ringmq::io::{
    Buffer, Completion, File, Io, ListenerId, ReadNow, ReceiveMode, Shutdown, Socket, Sync, Token,
};
use ringmq::memory::{Aligned, OutBatch, ShardId};

/// See the top of the file.
#[derive(Default)]
pub(crate) struct Still {
    completions: Vec<Completion>,
    /// Inputs by buffer id; an input may be received any number of times.
    inputs: Vec<Vec<u8>>,
    /// By socket: where its bytes go, once a receive is armed.
    receives: Vec<Option<(Token, ReceiveMode)>>,
    /// By socket.
    sends: Vec<(usize, Token, OutBatch)>,
    random: u64,
}

impl Still {
    /// A client connects; returns its socket.
    pub fn connect(&mut self) -> usize {
        let socket = self.receives.len();
        self.receives.push(None);
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1024));
        self.completions.push(Completion::Accepted {
            listener: ListenerId(0),
            socket: Socket::imagined(socket as u32),
            peer,
        });
        socket
    }

    /// Bytes that clients will send, as one receive.
    pub fn input(&mut self, bytes: Vec<u8>) -> u16 {
        self.inputs.push(bytes);
        (self.inputs.len() - 1) as u16
    }

    /// Other bytes for the same input; keeps its memory.
    pub fn input_mut(&mut self, input: u16) -> &mut Vec<u8> {
        &mut self.inputs[usize::from(input)]
    }

    /// A client sends an input.
    pub fn feed(&mut self, socket: usize, input: u16) {
        let receive = &mut self.receives[socket];
        let (token, mode) = receive.expect("a receive is armed whenever a client sends");
        let more = mode == ReceiveMode::Many;
        if !more {
            *receive = None;
        }
        let buffer = Buffer { id: input, offset: 0, len: self.inputs[usize::from(input)].len() as u32 };
        self.completions.push(Completion::Received { token, buffer, more });
    }

    /// Every send since the last call is over; the shard learns of it in its next turn. `look` sees the bytes.
    pub fn take_sent(&mut self, mut look: impl FnMut(usize, &OutBatch)) {
        for (socket, token, batch) in self.sends.drain(..) {
            look(socket, &batch);
            let count = batch.remaining();
            self.completions.push(Completion::Sent { token, batch, result: Ok(count) });
        }
    }
}

impl Io for Still {
    type Listener = ();

    fn listen(&mut self, _: ListenerId, (): ()) {}

    fn unlisten(&mut self, _: ListenerId) {}

    fn accept(&mut self, _: ListenerId) {}

    fn accept_cancel(&mut self, _: ListenerId) {}

    fn receive(&mut self, socket: &Socket, token: Token, mode: ReceiveMode) {
        self.receives[socket.imagined_number() as usize] = Some((token, mode));
    }

    fn receive_cancel(&mut self, token: Token) {
        self.completions.push(Completion::CancelEnded { token });
    }

    fn send(&mut self, socket: &Socket, token: Token, batch: OutBatch) {
        self.sends.push((socket.imagined_number() as usize, token, batch));
    }

    fn shutdown(&mut self, _: &Socket, _: Shutdown) {}

    fn read_now(&mut self, _: &Socket, _: &mut Vec<u8>, _: usize) -> ReadNow {
        ReadNow::WouldBlock
    }

    fn unsent(&mut self, _: &Socket) -> Option<u32> {
        Some(0)
    }

    fn unread(&mut self, _: &Socket) -> Option<u32> {
        Some(0)
    }

    fn close(&mut self, _: Socket) {}

    /// The disk takes everything at once and keeps nothing.
    fn write_file(&mut self, _: &File, tag: u64, _: u64, bytes: Aligned, _: Sync) {
        self.completions.push(Completion::Written { tag, bytes, result: Ok(()) });
    }

    /// Every file is full of zeros.
    fn read_file(&mut self, _: &File, tag: u64, _: u64, mut into: Aligned, len: usize) {
        into.clear();
        into.resize(len);
        self.completions.push(Completion::FileRead { tag, bytes: into, result: Ok(()) });
    }

    fn doorbell(&mut self, _: ShardId) {}

    fn completions(&mut self, into: &mut Vec<Completion>) {
        into.append(&mut self.completions);
    }

    fn bytes(&self, buffer: Buffer) -> &[u8] {
        &self.inputs[usize::from(buffer.id)][..buffer.len as usize]
    }

    fn replenish(&mut self, _: Buffer) {}

    fn random(&mut self) -> u64 {
        self.random += 1;
        self.random
    }
}
