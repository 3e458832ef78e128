//! One simulated connection: two bounded pipes and the state of both ends.
//!
//! Keeps the rules of TCP as a program on either side sees them: bytes arrive whole and in order; a close with unread
//! bytes resets; a reset may swallow what was not read yet; writing to an end that is closed fails. Knows nothing of
//! operations and completions.

use std::collections::VecDeque;

/// Bytes in one direction.
#[derive(Debug)]
struct Pipe {
    bytes: VecDeque<u8>,
    capacity: usize,
    /// The writer will send nothing more.
    ended: bool,
}

impl Pipe {
    fn new(capacity: usize) -> Pipe {
        Pipe { bytes: VecDeque::new(), capacity, ended: false }
    }

    fn room(&self) -> usize {
        self.capacity - self.bytes.len()
    }

    fn take(&mut self, max: usize) -> impl Iterator<Item = u8> + '_ {
        let count = max.min(self.bytes.len());
        self.bytes.drain(..count)
    }
}

/// What the client did with its end.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Client {
    Open,
    /// Sends nothing more, still reads.
    HalfClosed,
    /// Closed: whatever the shard sends leads to a reset.
    Closed,
    /// Unplugged: says and takes nothing any more, and nobody tells the shard.
    Gone,
}

/// What reading found when there were no bytes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Silence {
    Quiet,
    Ended,
    Reset,
}

#[derive(Debug)]
pub(super) struct Link {
    to_shard: Pipe,
    to_client: Pipe,
    client: Client,
    /// The connection failed; both ends learn it after the bytes that are left for them.
    reset: bool,
    /// Bytes that were in the network or unread were lost with the connection.
    lossy: bool,
    /// The shard shut both directions down, or closed.
    shard_shut: bool,
    shard_closed: bool,
}

impl Link {
    pub(super) fn new(to_shard_bytes: usize, to_client_bytes: usize) -> Link {
        Link {
            to_shard: Pipe::new(to_shard_bytes),
            to_client: Pipe::new(to_client_bytes),
            client: Client::Open,
            reset: false,
            lossy: false,
            shard_shut: false,
            shard_closed: false,
        }
    }

    // The shard's end.

    pub(super) fn shard_readable(&self) -> usize {
        self.to_shard.bytes.len()
    }

    pub(super) fn shard_read(&mut self, max: usize) -> impl Iterator<Item = u8> + '_ {
        self.to_shard.take(max)
    }

    /// What the shard's end finds once no bytes are left.
    pub(super) fn shard_silence(&self) -> Silence {
        if self.reset {
            Silence::Reset
        } else if self.to_shard.ended || self.shard_shut {
            Silence::Ended
        } else {
            Silence::Quiet
        }
    }

    /// Bytes that the kernel would take from the shard now; `None` if sending fails.
    pub(super) fn shard_room(&self) -> Option<usize> {
        if self.reset || self.shard_shut { None } else { Some(self.to_client.room()) }
    }

    /// Bytes that the client did not take yet.
    pub(super) fn shard_unsent(&self) -> usize {
        self.to_client.bytes.len()
    }

    pub(super) fn shard_write(&mut self, bytes: impl Iterator<Item = u8>) {
        match self.client {
            Client::Open | Client::HalfClosed | Client::Gone => self.to_client.bytes.extend(bytes),
            // The kernel took them; the answer is a reset.
            Client::Closed => self.reset = true,
        }
        debug_assert!(self.to_client.bytes.len() <= self.to_client.capacity);
    }

    /// The shard ends its side; it still reads.
    pub(super) fn shard_end(&mut self) {
        self.to_client.ended = true;
    }

    pub(super) fn shard_shutdown(&mut self) {
        self.shard_shut = true;
        self.to_client.ended = true;
    }

    pub(super) fn shard_close(&mut self) {
        self.shard_shutdown();
        self.shard_closed = true;
        if !self.to_shard.bytes.is_empty() {
            self.to_shard.bytes.clear();
            self.reset = true;
        }
    }

    pub(super) fn shard_is_closed(&self) -> bool {
        self.shard_closed
    }

    /// Nothing that the shard still has to learn: for the check that a run came to rest.
    pub(super) fn shard_has_news(&self) -> bool {
        self.shard_readable() > 0 || self.shard_silence() != Silence::Quiet
    }

    // The client's end.

    /// Takes a prefix of `bytes`; `None` if the connection is over.
    pub(super) fn client_write(&mut self, bytes: &[u8]) -> Option<usize> {
        match self.client {
            Client::Open => {}
            Client::Gone => return Some(0),
            Client::HalfClosed | Client::Closed => return None,
        }
        if self.shard_closed {
            self.reset = true;
        }
        if self.reset || self.shard_shut {
            return None;
        }
        let count = bytes.len().min(self.to_shard.room());
        self.to_shard.bytes.extend(&bytes[..count]);
        Some(count)
    }

    pub(super) fn client_readable(&self) -> usize {
        match self.client {
            Client::Open | Client::HalfClosed => self.to_client.bytes.len(),
            Client::Closed | Client::Gone => 0,
        }
    }

    pub(super) fn client_read(&mut self, into: &mut Vec<u8>, max: usize) -> Silence {
        match self.client {
            Client::Open | Client::HalfClosed => into.extend(self.to_client.take(max)),
            Client::Closed => return Silence::Ended,
            Client::Gone => return Silence::Quiet,
        }
        if !self.to_client.bytes.is_empty() {
            Silence::Quiet
        } else if self.reset {
            Silence::Reset
        } else if self.to_client.ended {
            Silence::Ended
        } else {
            Silence::Quiet
        }
    }

    pub(super) fn client_half_close(&mut self) {
        if self.client == Client::Open {
            self.client = Client::HalfClosed;
            self.to_shard.ended = true;
        }
    }

    pub(super) fn client_close(&mut self) {
        if matches!(self.client, Client::Open | Client::HalfClosed) {
            self.client = Client::Closed;
            self.to_shard.ended = true;
            if !self.to_client.bytes.is_empty() {
                self.to_client.bytes.clear();
                self.reset = true;
            }
        }
    }

    pub(super) fn client_vanish(&mut self) {
        if matches!(self.client, Client::Open | Client::HalfClosed) {
            self.client = Client::Gone;
        }
    }

    /// The connection fails for both ends; `lossy` swallows what nobody has read yet.
    pub(super) fn fail(&mut self, lossy: bool) {
        self.reset = true;
        if lossy {
            self.lossy |= !self.to_shard.bytes.is_empty();
            self.to_shard.bytes.clear();
            self.to_client.bytes.clear();
        }
    }

    /// Bytes of the client were lost before the shard could read them.
    pub(super) fn is_lossy(&self) -> bool {
        self.lossy
    }

    pub(super) fn shard_has_ended(&self) -> bool {
        self.to_client.ended
    }

    pub(super) fn is_failed(&self) -> bool {
        self.reset
    }
}
