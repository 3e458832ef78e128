//! The tests of `io::tests` once more, over sockets that are in the ring's own table from their accept on.

use std::net::TcpListener;
use std::sync::Arc;

use super::*;
use crate::io::uring::Peers;

/// A ring that settles every socket.
struct Settled(Uring);

/// Places: no test has as many connections at a time.
const PLACES: u32 = 8192;

impl Backend for Settled {
    type Peers = Peers;

    fn peers(shards: u16) -> Peers {
        Peers::new(shards)
    }

    fn make(sizes: Sizes, shard: ShardId, peers: Arc<Peers>, listener: TcpListener) -> Settled {
        Settled(Uring::make(Sizes { direct: PLACES, ..sizes }, shard, peers, listener))
    }
}

impl Io for Settled {
    type Listener = std::net::TcpListener;

    fn listen(&mut self, listener: ListenerId, socket: std::net::TcpListener) {
        self.0.listen(listener, socket);
    }

    fn unlisten(&mut self, listener: ListenerId) {
        self.0.unlisten(listener);
    }

    fn accept(&mut self, listener: ListenerId) {
        self.0.accept(listener);
    }

    fn accept_cancel(&mut self, listener: ListenerId) {
        self.0.accept_cancel(listener);
    }

    fn receive(&mut self, socket: &Socket, token: Token, mode: ReceiveMode) {
        self.0.receive(socket, token, mode);
    }

    fn receive_cancel(&mut self, token: Token) {
        self.0.receive_cancel(token);
    }

    fn send(&mut self, socket: &Socket, token: Token, batch: OutBatch) {
        self.0.send(socket, token, batch);
    }

    fn send_in_parts(&mut self, socket: &Socket, token: Token, batch: OutBatch) {
        self.0.send_in_parts(socket, token, batch);
    }

    fn send_unawaited(&mut self, socket: &Socket, token: Token, batch: OutBatch) {
        self.0.send_unawaited(socket, token, batch);
    }

    fn shutdown(&mut self, socket: &Socket, how: Shutdown) {
        self.0.shutdown(socket, how);
    }

    fn read_now(&mut self, socket: &Socket, into: &mut Vec<u8>, max: usize) -> ReadNow {
        self.0.read_now(socket, into, max)
    }

    fn unsent(&mut self, socket: &Socket) -> Option<u32> {
        self.0.unsent(socket)
    }

    fn unread(&mut self, socket: &Socket) -> Option<u32> {
        self.0.unread(socket)
    }

    fn close(&mut self, socket: Socket) {
        self.0.close(socket);
    }

    fn write_file(&mut self, file: &File, tag: u64, at: u64, bytes: Aligned, sync: Sync) {
        self.0.write_file(file, tag, at, bytes, sync);
    }

    fn read_file(&mut self, file: &File, tag: u64, at: u64, into: Aligned, len: usize) {
        self.0.read_file(file, tag, at, into, len);
    }

    fn doorbell(&mut self, shard: ShardId) {
        self.0.doorbell(shard);
    }

    fn completions(&mut self, into: &mut Vec<Completion>) {
        self.0.completions(into);
        for completion in into {
            if let Completion::Accepted { socket, .. } = completion {
                assert!(socket.has_descriptor(), "{socket:?}");
                self.0.settle(socket);
                assert!(!socket.has_descriptor(), "it has another name now: {socket:?}");
            }
        }
    }

    fn bytes(&self, buffer: Buffer) -> &[u8] {
        self.0.bytes(buffer)
    }

    fn replenish(&mut self, buffer: Buffer) {
        self.0.replenish(buffer);
    }

    fn random(&mut self) -> u64 {
        self.0.random()
    }
}

impl Driver for Settled {
    fn submit_and_wait(&mut self, timeout_ms: u64) {
        self.0.submit_and_wait(timeout_ms);
    }

    fn system_calls(&self) -> u64 {
        self.0.system_calls()
    }
}

macro_rules! once_more {
    ($($test:ident)*) => {
        $(#[test] fn $test() { super::$test::<Settled>() })*
    };
}

once_more! {
    thousands_of_random_writes_come_back
    running_out_of_buffers_and_queue_entries_loses_nothing
    a_cancelled_receive_continues_exactly_where_it_ended
    spliced_payloads_arrive_in_order_even_beyond_the_kernels_count_of_pieces
    a_shutdown_ends_a_blocked_send_and_the_receive
    a_send_in_parts_is_over_when_the_socket_took_some
    what_was_not_taken_on_either_side_is_counted
    after_a_shutdown_of_writing_the_client_reads_to_the_end_and_is_still_heard
    a_reset_is_an_error_of_its_connection
    a_queue_that_is_too_small_delays_but_never_loses
    what_the_kernel_already_has_can_be_read_without_a_receive
}
