//! What the simulated kernel does between the looks of the shards: operations go on, as far as the random numbers say.

use super::{ECONNRESET, EMFILE, EPIPE, Endpoint, Pending, Slot, Stream, World};
use crate::io::sim::faults::Fault;
use crate::io::sim::link::Silence;
use crate::io::{Buffer, ReceiveEnd, ReceiveMode, Token};
use crate::memory::ShardId;

impl World {
    /// Lets the operations of `shard` go on.
    pub fn progress(&mut self, shard: ShardId) {
        self.progress_accepts(shard);
        self.progress_files(shard);
        let count = self.sockets.len();
        let first = if count == 0 { 0 } else { self.rng.below(count) };
        for number in (0..count).map(|n| (first + n) % count) {
            let socket = &self.sockets[number];
            if socket.shard != shard || !socket.accepted || socket.link.shard_is_closed() {
                continue;
            }
            if self.rng.happens(self.faults.reset) {
                self.reset(Endpoint(number));
            }
            // Which direction is first is as open as everything else.
            let send_first = self.rng.below(2) == 0;
            if send_first {
                self.progress_send(number);
            }
            let cancel_first = self.rng.below(2) == 0;
            if cancel_first {
                self.progress_cancel(number);
            }
            self.progress_receive(number);
            if !cancel_first {
                self.progress_cancel(number);
            }
            if !send_first {
                self.progress_send(number);
            }
        }
    }

    fn progress_accepts(&mut self, shard: ShardId) {
        for at in 0..self.listeners.len() {
            if self.listeners[at].shard != shard {
                continue;
            }
            while self.listeners[at].armed {
                let id = self.listeners[at].id;
                if self.listeners[at].cancelled && self.rng.below(2) == 0 {
                    self.end_accept(at, 0);
                    break;
                }
                if self.listeners[at].backlog.is_empty() || self.stalls() {
                    break;
                }
                let Some(socket) = self.listeners[at].backlog.pop_front() else { break };
                let peer = self.sockets[socket].peer;
                self.sockets[socket].accepted = true;
                self.tally.accepted += 1;
                self.push(shard, Stream::Accept(id), Pending::Accepted { listener: id, socket, peer });
                if self.rng.happens(self.faults.accept_ends) {
                    self.counts.count(Fault::AcceptEnds);
                    self.end_accept(at, EMFILE);
                }
            }
        }
    }

    fn end_accept(&mut self, at: usize, errno: i32) {
        let listener = &mut self.listeners[at];
        (listener.armed, listener.cancelled) = (false, false);
        let (shard, listener) = (listener.shard, listener.id);
        self.push(shard, Stream::Accept(listener), Pending::AcceptEnded { listener, errno });
    }

    fn progress_cancel(&mut self, number: usize) {
        if self.sockets[number].cancel.is_none() || self.stalls() {
            return;
        }
        if let Some(token) = self.sockets[number].cancel.take() {
            self.push_socket(number, Stream::Cancel(number), Pending::CancelEnded { token });
        }
    }

    fn progress_receive(&mut self, number: usize) {
        // A receive of the `Many` kind may bring several chunks before the shard looks.
        while let Some(receive) = &self.sockets[number].receive {
            let (token, mode, cancelled) = (receive.token, receive.mode, receive.cancelled);
            let readable = self.sockets[number].link.shard_readable();
            let data_first = !cancelled || self.rng.happens(self.faults.data_after_cancel);
            let silence = self.sockets[number].link.shard_silence();
            if !cancelled && readable == 0 && silence == Silence::Quiet {
                return;
            }
            if self.stalls() {
                return;
            }
            if readable > 0 && data_first {
                let spurious = self.rng.happens(self.faults.no_buffers);
                let Some((buffer, bytes)) = (if spurious { None } else { self.fill(number) }) else {
                    self.counts.count(Fault::NoBuffers);
                    self.end_receive(number, token, ReceiveEnd::NoBuffers);
                    return;
                };
                if cancelled {
                    self.counts.count(Fault::DataAfterCancel);
                }
                let ends = mode == ReceiveMode::Many && self.rng.happens(self.faults.receive_ends);
                if ends {
                    self.counts.count(Fault::ReceiveEnds);
                }
                let more = mode == ReceiveMode::Many && !ends;
                if !more {
                    self.sockets[number].receive = None;
                }
                let received = Pending::Received { token, buffer, bytes, more };
                self.push_socket(number, Stream::Receive(number), received);
            } else if cancelled {
                self.counts.count(Fault::Cancelled);
                self.end_receive(number, token, ReceiveEnd::Cancelled);
            } else {
                let end = match silence {
                    Silence::Reset => ReceiveEnd::Error(ECONNRESET),
                    Silence::Ended | Silence::Quiet => ReceiveEnd::Eof,
                };
                self.end_receive(number, token, end);
            }
        }
    }

    fn end_receive(&mut self, number: usize, token: Token, end: ReceiveEnd) {
        self.sockets[number].receive = None;
        self.push_socket(number, Stream::Receive(number), Pending::ReceiveEnded { token, end });
    }

    /// Moves bytes of the connection into a slice of a buffer.
    fn fill(&mut self, number: usize) -> Option<(Buffer, Vec<u8>)> {
        let shard = usize::from(self.sockets[number].shard);
        let (size, incremental) = (self.faults.buffer_bytes, self.faults.incremental);
        let slots = &mut self.cores[shard].slots;
        let open = |slot: &Slot| !slot.retired && slot.filled < size;
        let id = slots
            .iter()
            .position(|slot| slot.filled > 0 && open(slot))
            .or_else(|| slots.iter().position(|slot| slot.filled == 0 && open(slot)))?;
        let offset = slots[id].filled;
        let mut count = self.sockets[number].link.shard_readable().min(size - offset);
        if count > 1 && self.rng.happens(self.faults.short_receive) {
            count = self.rng.between(1, count - 1);
            self.counts.count(Fault::ShortReceive);
        }
        let bytes: Vec<u8> = self.sockets[number].link.shard_read(count).collect();
        self.tally.received += count as u64;
        let slot = &mut slots[id];
        slot.filled += count;
        slot.retired = !incremental || slot.filled == size;
        slot.lent.push((offset as u32, count as u32));
        Some((Buffer { id: id as u16, offset: offset as u32, len: count as u32 }, bytes))
    }

    fn progress_send(&mut self, number: usize) {
        if self.sockets[number].send.is_none() || self.stalls() {
            return;
        }
        let Some(mut send) = self.sockets[number].send.take() else { return };
        let link = &mut self.sockets[number].link;
        let left = send.batch.remaining() - send.taken;
        let over = match link.shard_room() {
            None => {
                self.counts.count(Fault::SendFailed);
                Some(if send.taken > 0 { Ok(send.taken) } else { Err(EPIPE) })
            }
            Some(room) => {
                let mut count = room.min(left);
                if count > 1 && self.rng.happens(self.faults.short_send) {
                    count = self.rng.between(1, count - 1);
                }
                link.shard_write(send.batch.pieces().flatten().copied().skip(send.taken).take(count));
                send.taken += count;
                if count == left {
                    Some(Ok(send.taken))
                } else if send.taken > 0 && self.rng.happens(self.faults.short_send) {
                    self.counts.count(Fault::ShortSend);
                    Some(Ok(send.taken))
                } else {
                    self.counts.count(Fault::SendBlocked);
                    None
                }
            }
        };
        match over {
            Some(result) => {
                self.tally.sent += result.map_or(0, |count| count as u64);
                let quiet = !send.awaited && result == Ok(send.batch.remaining());
                let sent = Pending::Sent { token: send.token, batch: send.batch, result };
                self.push_socket(number, Stream::Send(number), sent).wakes = !quiet;
            }
            None => {
                send.awaited = true;
                self.sockets[number].send = Some(send);
            }
        }
    }

    fn stalls(&mut self) -> bool {
        let stalls = self.rng.happens(self.faults.stalled);
        if stalls {
            self.counts.count(Fault::Stalled);
        }
        stalls
    }
}
