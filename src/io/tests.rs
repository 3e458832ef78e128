//! The same tests for both kernel backends: real sockets on the loopback interface; every byte that crosses is
//! compared.
//!
//! An echo server over [`Uring`] and [`Epoll`], driven by client threads that use blocking sockets, and single steps for
//! what must happen at an exact moment.

mod descriptors;
pub(super) mod files;
mod foreign;
mod listeners;
mod sends;
mod settled;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::epoll::{Bells, Epoll};
use super::uring::{self, Sizes, Uring};
use super::*;
use crate::memory::{Key, Message, MessageView, Outbox};
use crate::wire::Qos;
use descriptors::no_descriptor_is_left_behind;
use files::{
    a_backend_may_end_with_files_in_flight, a_read_at_the_end_of_a_file_is_short,
    a_synced_write_leaves_nothing_in_the_page_cache, many_operations_on_files_are_in_flight_at_once,
    the_end_of_a_write_wakes_a_shard_that_sleeps, what_is_written_to_a_file_is_read_back,
    what_is_wrong_with_a_file_is_a_result,
};
use listeners::a_listening_socket_is_added_and_closed_while_others_go_on;
use sends::{
    a_send_in_parts_is_over_when_the_socket_took_some,
    a_send_that_nobody_waits_for_completes_and_holds_nothing_up,
    a_shutdown_ends_a_blocked_send_and_the_receive,
    spliced_payloads_arrive_in_order_even_beyond_the_kernels_count_of_pieces,
    what_was_not_taken_on_either_side_is_counted,
};

const PATIENCE: Duration = Duration::from_secs(30);
const TINY: Sizes = Sizes { sq_entries: 8, cq_entries: 16, buffers: 4, buffer_bytes: 128, direct: 0 };
const SMALL: Sizes = Sizes { sq_entries: 64, cq_entries: 1024, buffers: 64, buffer_bytes: 1024, direct: 0 };
const FIRST: ListenerId = ListenerId(0);

/// Reproducible numbers.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.roll() as u8).collect()
    }
}

/// A backend under test.
trait Backend: Driver + Sized {
    /// What its shards share.
    type Peers: Send + std::marker::Sync + 'static;

    fn peers(shards: u16) -> Self::Peers;
    fn make(sizes: Sizes, shard: ShardId, peers: Arc<Self::Peers>, listener: TcpListener) -> Self;
}

impl Backend for Uring {
    type Peers = uring::Peers;

    fn peers(shards: u16) -> uring::Peers {
        uring::Peers::new(shards)
    }

    fn make(sizes: Sizes, shard: ShardId, peers: Arc<uring::Peers>, listener: TcpListener) -> Uring {
        Uring::new(sizes, shard, peers, vec![listener]).unwrap()
    }
}

impl Backend for Epoll {
    type Peers = Bells;

    fn peers(shards: u16) -> Bells {
        Bells::new(shards).unwrap()
    }

    fn make(sizes: Sizes, shard: ShardId, bells: Arc<Bells>, listener: TcpListener) -> Epoll {
        Epoll::new((sizes.buffers, sizes.buffer_bytes), shard, bells, vec![listener]).unwrap()
    }
}

macro_rules! over_both {
    ($($test:ident)*) => {
        mod over_uring {
            $(#[test] fn $test() { super::$test::<super::Uring>() })*
        }
        mod over_epoll {
            $(#[test] fn $test() { super::$test::<super::Epoll>() })*
        }
    };
}

over_both! {
    thousands_of_random_writes_come_back
    running_out_of_buffers_and_queue_entries_loses_nothing
    a_cancelled_receive_continues_exactly_where_it_ended
    spliced_payloads_arrive_in_order_even_beyond_the_kernels_count_of_pieces
    a_shutdown_ends_a_blocked_send_and_the_receive
    a_send_in_parts_is_over_when_the_socket_took_some
    what_was_not_taken_on_either_side_is_counted
    after_a_shutdown_of_writing_the_client_reads_to_the_end_and_is_still_heard
    a_reset_is_an_error_of_its_connection
    a_socket_moves_between_rings_with_bytes_behind_the_first_packet
    a_doorbell_wakes_a_sleeper_and_is_not_lost_on_one_that_is_away
    a_wait_ends_at_its_timeout_or_with_the_first_that_comes
    a_send_that_nobody_waits_for_completes_and_holds_nothing_up
    a_shard_that_never_waits_still_sees_what_comes
    a_queue_that_is_too_small_delays_but_never_loses
    accepting_stops_when_it_is_cancelled_and_starts_again
    a_listening_socket_is_added_and_closed_while_others_go_on
    a_burst_of_connections_beyond_the_completion_queue_is_accepted_whole
    what_the_kernel_already_has_can_be_read_without_a_receive
    random_numbers_differ
    no_descriptor_is_left_behind
    what_is_written_to_a_file_is_read_back
    a_synced_write_leaves_nothing_in_the_page_cache
    a_read_at_the_end_of_a_file_is_short
    many_operations_on_files_are_in_flight_at_once
    the_end_of_a_write_wakes_a_shard_that_sleeps
    what_is_wrong_with_a_file_is_a_result
    a_backend_may_end_with_files_in_flight
}

/// A backend and what came out of it.
struct Rig<B> {
    io: B,
    waiting: std::collections::VecDeque<Completion>,
    address: SocketAddr,
    accepting: bool,
}

impl<B: Backend> Rig<B> {
    fn new(sizes: Sizes) -> Rig<B> {
        Rig::shard(sizes, 0, Arc::new(B::peers(1)))
    }

    fn shard(sizes: Sizes, shard: ShardId, peers: Arc<B::Peers>) -> Rig<B> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let io = B::make(sizes, shard, peers, listener);
        Rig { io, waiting: std::collections::VecDeque::new(), address, accepting: false }
    }

    fn accept(&mut self) {
        self.accepting = true;
        self.io.accept(FIRST);
    }

    /// The next completion; fails when none comes.
    fn next(&mut self) -> Completion {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(completion) = self.waiting.pop_front() {
                return completion;
            }
            assert!(Instant::now() < deadline, "nothing completes");
            self.poll(1000);
        }
    }

    /// Everything that completes within `timeout_ms`.
    fn poll(&mut self, timeout_ms: u64) {
        self.io.submit_and_wait(timeout_ms);
        let mut into = Vec::new();
        self.io.completions(&mut into);
        self.accepting &= !into.iter().any(|completion| matches!(completion, Completion::AcceptEnded { .. }));
        self.waiting.extend(into);
    }

    /// A connected pair: ours and the client's.
    fn connect(&mut self) -> (Socket, TcpStream) {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        if !self.accepting {
            self.accept();
        }
        match self.next() {
            Completion::Accepted { listener: FIRST, socket, peer } => {
                assert_eq!(peer, client.local_addr().unwrap());
                if socket.has_descriptor() {
                    assert!(socket2::SockRef::from(&socket.descriptor()).tcp_nodelay().unwrap());
                }
                (socket, client)
            }
            other => panic!("{other:?} instead of a connection"),
        }
    }

    fn received(&mut self) -> (Token, Vec<u8>, bool) {
        match self.next() {
            Completion::Received { token, buffer, more } => {
                let bytes = self.io.bytes(buffer).to_vec();
                self.io.replenish(buffer);
                (token, bytes, more)
            }
            other => panic!("{other:?} instead of bytes"),
        }
    }
}

fn name(index: u32) -> Token {
    Token::new(Key { index, generation: 7 })
}

fn batch(bytes: &[u8]) -> OutBatch {
    let mut outbox = Outbox::default();
    outbox.bytes_mut().extend_from_slice(bytes);
    outbox.take(Vec::new())
}

/// A connection of the echo server.
struct Peer {
    socket: Socket,
    unsent: Vec<u8>,
    sending: bool,
    ended: bool,
}

/// Serves `connections` connections until all of them have closed; returns how often buffers ran out.
fn serve<B: Backend>(rig: &mut Rig<B>, connections: u32) -> u32 {
    let deadline = Instant::now() + PATIENCE;
    let mut peers: BTreeMap<u32, Peer> = BTreeMap::new();
    let (mut accepted, mut closed, mut starved) = (0, 0, 0);
    rig.accept();
    while closed < connections {
        assert!(Instant::now() < deadline, "{closed} of {connections} connections were served");
        let mut arm = Vec::new();
        rig.poll(100);
        while let Some(completion) = rig.waiting.pop_front() {
            match completion {
                Completion::Accepted { socket, .. } => {
                    peers.insert(accepted, Peer { socket, unsent: Vec::new(), sending: false, ended: false });
                    arm.push(accepted);
                    accepted += 1;
                }
                Completion::Received { token, buffer, more } => {
                    let index = token.key().index;
                    peers.get_mut(&index).unwrap().unsent.extend_from_slice(rig.io.bytes(buffer));
                    rig.io.replenish(buffer);
                    if !more {
                        arm.push(index);
                    }
                }
                Completion::ReceiveEnded { token, end: ReceiveEnd::NoBuffers } => {
                    starved += 1;
                    arm.push(token.key().index);
                }
                Completion::ReceiveEnded { token, end: ReceiveEnd::Eof } => {
                    peers.get_mut(&token.key().index).unwrap().ended = true;
                }
                Completion::Sent { token, mut batch, result } => {
                    let peer = peers.get_mut(&token.key().index).unwrap();
                    batch.advance(result.unwrap());
                    peer.sending = batch.remaining() > 0;
                    if peer.sending {
                        rig.io.send(&peer.socket, token, batch);
                    }
                }
                other => panic!("{other:?} at an echo server"),
            }
        }
        for index in arm {
            rig.io.receive(&peers[&index].socket, name(index), ReceiveMode::Many);
        }
        for (index, peer) in &mut peers {
            if !peer.sending && !peer.unsent.is_empty() {
                peer.sending = true;
                rig.io.send(&peer.socket, name(*index), batch(&std::mem::take(&mut peer.unsent)));
            }
        }
        let over: Vec<u32> =
            peers.iter().filter(|(_, peer)| peer.ended && !peer.sending).map(|(index, _)| *index).collect();
        for index in over {
            rig.io.close(peers.remove(&index).unwrap().socket);
            closed += 1;
        }
    }
    starved
}

/// Writes `writes` pieces of random sizes and reads all of it back at the same time.
fn echo_client(address: SocketAddr, seed: u64, writes: usize, size_max: u64) {
    let mut dice = Dice(seed);
    let bytes = {
        let total = (0..writes).map(|_| dice.roll() % size_max + 1).sum::<u64>();
        dice.bytes(total as usize)
    };
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = client.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let len = (dice.roll() % size_max + 1).min(rest.len() as u64) as usize;
                (&client).write_all(&rest[..len]).unwrap();
                rest = &rest[len..];
            }
            client.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        reader.read_to_end(&mut back).unwrap();
        assert!(back == bytes, "{} bytes came back of {}, or others", back.len(), bytes.len());
    });
}

fn echo<B: Backend>(sizes: Sizes, clients: u32, writes: usize, size_max: u64) -> u32 {
    let mut rig = Rig::<B>::new(sizes);
    let address = rig.address;
    std::thread::scope(|scope| {
        for client in 0..clients {
            scope.spawn(move || echo_client(address, u64::from(client) + 1, writes, size_max));
        }
        serve(&mut rig, clients)
    })
}

fn thousands_of_random_writes_come_back<B: Backend>() {
    echo::<B>(Sizes::default(), 8, 1000, 6000);
}

fn running_out_of_buffers_and_queue_entries_loses_nothing<B: Backend>() {
    let starved = echo::<B>(TINY, 12, 300, 2000);
    assert!(starved > 0, "four buffers were enough for twelve clients");
}

fn a_cancelled_receive_continues_exactly_where_it_ended<B: Backend>() {
    let mut rig = Rig::<B>::new(SMALL);
    let (socket, mut client) = rig.connect();
    let bytes = Dice(3).bytes(1_500_000);
    let expected = bytes.clone();
    let writer = std::thread::spawn(move || {
        client.write_all(&bytes).unwrap();
        client
    });
    let mut got = Vec::new();
    let mut cycles = 0;
    while got.len() < expected.len() {
        rig.io.receive(&socket, name(1), ReceiveMode::Many);
        let (mut received, mut receive_over, mut cancel_over) = (0, false, false);
        let mut cancelling = false;
        while !(receive_over && (cancel_over || !cancelling)) {
            match rig.next() {
                Completion::Received { token, buffer, more } => {
                    assert_eq!(token, name(1));
                    got.extend_from_slice(rig.io.bytes(buffer));
                    rig.io.replenish(buffer);
                    receive_over |= !more;
                    received += 1;
                    if received == 3 || got.len() == expected.len() {
                        rig.io.receive_cancel(name(1));
                        cancelling = true;
                    }
                }
                Completion::ReceiveEnded { end: ReceiveEnd::Cancelled | ReceiveEnd::NoBuffers, .. } => {
                    receive_over = true;
                }
                Completion::CancelEnded { token } => {
                    assert_eq!(token, name(1));
                    cancel_over = true;
                }
                other => panic!("{other:?}"),
            }
        }
        cycles += 1;
    }
    assert!(got == expected);
    assert!(cycles > 10, "{cycles} cancels");
    drop(writer.join().unwrap());
    rig.io.close(socket);
}

fn message(payload: &[u8]) -> Message {
    let view = MessageView {
        topic: "t",
        properties: &[],
        payload,
        qos: Qos::AtMostOnce,
        retain: false,
        expires_at: crate::clock::NEVER,
        publisher: 0,
        whole: None,
        origin: 0,
        is_repeat: false,
    };
    view.to_message()
}

fn after_a_shutdown_of_writing_the_client_reads_to_the_end_and_is_still_heard<B: Backend>() {
    let mut rig = Rig::<B>::new(SMALL);
    let (socket, mut client) = rig.connect();
    rig.io.receive(&socket, name(1), ReceiveMode::Many);
    rig.io.send(&socket, name(1), batch(b"goodbye"));
    assert!(matches!(rig.next(), Completion::Sent { result: Ok(7), .. }));
    rig.io.shutdown(&socket, Shutdown::Write);
    let mut read = Vec::new();
    client.read_to_end(&mut read).unwrap();
    assert_eq!(read, b"goodbye");
    client.write_all(b"you too").unwrap();
    assert_eq!(rig.received().1, b"you too");
    drop(client);
    assert!(matches!(rig.next(), Completion::ReceiveEnded { end: ReceiveEnd::Eof, .. }));
    rig.io.close(socket);
}

fn a_reset_is_an_error_of_its_connection<B: Backend>() {
    let mut rig = Rig::<B>::new(SMALL);
    let (socket, client) = rig.connect();
    rig.io.receive(&socket, name(1), ReceiveMode::Many);
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    match rig.next() {
        Completion::ReceiveEnded { end: ReceiveEnd::Error(libc::ECONNRESET), .. } => {}
        other => panic!("{other:?}"),
    }
    rig.io.close(socket);
}

fn a_socket_moves_between_rings_with_bytes_behind_the_first_packet<B: Backend>() {
    const CLIENTS: u32 = 200;
    const PIPELINED: usize = 20_000;
    let mut giver = Rig::<B>::new(SMALL);
    let address = giver.address;
    let (hand, taken) = mpsc::channel::<(Socket, Vec<u8>)>();
    let expect = |client: u32| Dice(u64::from(client) + 99).bytes(PIPELINED);
    let clients = std::thread::spawn(move || {
        for client in 0..CLIENTS {
            let mut stream = TcpStream::connect(address).unwrap();
            let bytes = expect(client);
            let mut whole = client.to_be_bytes().to_vec();
            whole.extend(bytes);
            for piece in whole.chunks(3001) {
                stream.write_all(piece).unwrap();
            }
        }
    });
    let taker = std::thread::spawn(move || {
        let mut rig = Rig::<B>::new(SMALL);
        for (socket, mut bytes) in taken {
            rig.io.receive(&socket, name(1), ReceiveMode::Many);
            loop {
                match rig.next() {
                    Completion::Received { buffer, more, .. } => {
                        bytes.extend_from_slice(rig.io.bytes(buffer));
                        rig.io.replenish(buffer);
                        if !more {
                            rig.io.receive(&socket, name(1), ReceiveMode::Many);
                        }
                    }
                    Completion::ReceiveEnded { end: ReceiveEnd::NoBuffers, .. } => {
                        rig.io.receive(&socket, name(1), ReceiveMode::Many);
                    }
                    Completion::ReceiveEnded { end: ReceiveEnd::Eof, .. } => break,
                    other => panic!("{other:?}"),
                }
            }
            let client = u32::from_be_bytes(bytes[..4].try_into().unwrap());
            assert!(bytes[4..] == expect(client)[..], "client {client}");
            rig.io.close(socket);
        }
    });
    giver.accept();
    let mut sockets = BTreeMap::new();
    let mut index = 0;
    let mut handed = 0;
    while handed < CLIENTS {
        match giver.next() {
            Completion::Accepted { socket, .. } => {
                giver.io.receive(&socket, name(index), ReceiveMode::Once);
                sockets.insert(index, socket);
                index += 1;
            }
            Completion::Received { token, buffer, more } => {
                assert!(!more, "one completion of a one-shot receive");
                let bytes = giver.io.bytes(buffer).to_vec();
                giver.io.replenish(buffer);
                hand.send((sockets.remove(&token.key().index).unwrap(), bytes)).unwrap();
                handed += 1;
            }
            // Buffers of completions that this loop has not come to yet.
            Completion::ReceiveEnded { token, end: ReceiveEnd::NoBuffers } => {
                giver.io.receive(&sockets[&token.key().index], token, ReceiveMode::Once);
            }
            other => panic!("{other:?}"),
        }
    }
    drop(hand);
    clients.join().unwrap();
    taker.join().unwrap();
}

fn a_doorbell_wakes_a_sleeper_and_is_not_lost_on_one_that_is_away<B: Backend>() {
    let peers = Arc::new(B::peers(2));
    let (ready, is_ready) = mpsc::channel();
    let sleeper = {
        let peers = Arc::clone(&peers);
        std::thread::spawn(move || {
            let mut rig = Rig::<B>::shard(TINY, 1, peers);
            let mut woken_after = Vec::new();
            for round in 0..40 {
                ready.send(()).unwrap();
                if round % 2 == 1 {
                    std::thread::sleep(Duration::from_millis(5)); // Away while it rings.
                }
                let start = Instant::now();
                assert!(matches!(rig.next(), Completion::Doorbell));
                woken_after.push(start.elapsed());
            }
            woken_after
        })
    };
    let mut rig = Rig::<B>::shard(TINY, 0, peers);
    for _ in 0..40 {
        is_ready.recv_timeout(PATIENCE).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        rig.io.doorbell(1);
        rig.poll(0);
    }
    let slowest = sleeper.join().unwrap().into_iter().max().unwrap();
    assert!(slowest < Duration::from_millis(900), "woken after {slowest:?}, by the timeout it seems");
    rig.poll(0);
    assert!(rig.waiting.is_empty(), "the ringer hears nothing: {:?}", rig.waiting);
    rig.io.doorbell(1); // The peer is gone.
    rig.poll(10);
    assert!(rig.waiting.is_empty());
}

fn a_wait_ends_at_its_timeout_or_with_the_first_that_comes<B: Backend>() {
    let mut rig = Rig::<B>::new(SMALL);
    let start = Instant::now();
    rig.poll(50);
    let waited = start.elapsed();
    assert!(rig.waiting.is_empty());
    assert!((Duration::from_millis(45)..Duration::from_secs(5)).contains(&waited), "{waited:?}");

    let (socket, mut client) = rig.connect();
    rig.io.receive(&socket, name(1), ReceiveMode::Once);
    client.write_all(b"one").unwrap();
    let start = Instant::now();
    rig.io.submit_and_wait(10_000);
    assert!(start.elapsed() < Duration::from_secs(5), "one completion ends it");
    assert_eq!(rig.received().1, b"one");
    rig.io.close(socket);
}

fn a_shard_that_never_waits_still_sees_what_comes<B: Backend>() {
    let mut rig = Rig::<B>::new(SMALL);
    let (socket, mut client) = rig.connect();
    rig.io.receive(&socket, name(1), ReceiveMode::Once);
    rig.poll(0);
    client.write_all(b"hello").unwrap();
    let deadline = Instant::now() + PATIENCE;
    while rig.waiting.is_empty() {
        assert!(Instant::now() < deadline, "deferred work is never run");
        rig.poll(0);
    }
    assert_eq!(rig.received().1, b"hello");
    rig.io.close(socket);
}

fn a_queue_that_is_too_small_delays_but_never_loses<B: Backend>() {
    let mut rig = Rig::<B>::new(TINY);
    let mut pairs: Vec<(Socket, TcpStream)> = (0..100).map(|_| rig.connect()).collect();
    // 200 submissions for a queue of 8, and then 200 completions for a queue of 16.
    for (index, (socket, client)) in pairs.iter_mut().enumerate() {
        client.write_all(&(index as u32).to_be_bytes()).unwrap();
        rig.io.receive(socket, name(index as u32), ReceiveMode::Once);
        rig.io.send(socket, name(index as u32), batch(&(index as u32).to_be_bytes()));
    }
    let (mut sent, mut got) = (0, 0);
    while sent + got < 200 {
        match rig.next() {
            Completion::Sent { result, .. } => {
                assert_eq!(result, Ok(4));
                sent += 1;
            }
            Completion::Received { token, buffer, .. } => {
                assert_eq!(rig.io.bytes(buffer), token.key().index.to_be_bytes());
                rig.io.replenish(buffer);
                got += 1;
            }
            Completion::ReceiveEnded { token, end: ReceiveEnd::NoBuffers } => {
                let (socket, _) = &pairs[token.key().index as usize];
                rig.io.receive(socket, token, ReceiveMode::Once);
            }
            other => panic!("{other:?}"),
        }
    }
    for (index, (socket, mut client)) in pairs.into_iter().enumerate() {
        let mut bytes = [0; 4];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, (index as u32).to_be_bytes());
        rig.io.close(socket);
    }
}

fn accepting_stops_when_it_is_cancelled_and_starts_again<B: Backend>() {
    let mut rig = Rig::<B>::new(SMALL);
    let (first, _client) = rig.connect();
    rig.io.accept_cancel(FIRST);
    rig.io.accept_cancel(FIRST);
    match rig.next() {
        Completion::AcceptEnded { listener: FIRST, errno: 0 } => {}
        other => panic!("{other:?}"),
    }
    rig.io.accept_cancel(FIRST);
    let _late = TcpStream::connect(rig.address).unwrap();
    rig.poll(50);
    assert!(rig.waiting.is_empty(), "{:?}", rig.waiting);
    rig.accept();
    match rig.next() {
        Completion::Accepted { socket, .. } => rig.io.close(socket),
        other => panic!("{other:?}"),
    }
    rig.io.close(first);
}

fn a_burst_of_connections_beyond_the_completion_queue_is_accepted_whole<B: Backend>() {
    const BURST: usize = 100;
    let mut rig = Rig::<B>::new(TINY);
    let clients: Vec<TcpStream> = (0..BURST).map(|_| TcpStream::connect(rig.address).unwrap()).collect();
    rig.accept();
    let mut peers = Vec::new();
    for _ in 0..BURST {
        match rig.next() {
            Completion::Accepted { socket, peer, .. } => {
                rig.io.close(socket);
                peers.push(peer);
            }
            other => panic!("{other:?}"),
        }
    }
    let mut expected: Vec<SocketAddr> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
    expected.sort();
    peers.sort();
    assert_eq!(peers, expected);
}

fn what_the_kernel_already_has_can_be_read_without_a_receive<B: Backend>() {
    let mut rig = Rig::<B>::new(SMALL);
    let (socket, mut client) = rig.connect();
    let mut into = b"> ".to_vec();
    assert_eq!(rig.io.read_now(&socket, &mut into, 100), ReadNow::WouldBlock);
    client.write_all(b"last words").unwrap();
    assert_eq!(rig.io.read_now(&socket, &mut into, 4), ReadNow::Bytes(4));
    assert_eq!(rig.io.read_now(&socket, &mut into, 100), ReadNow::Bytes(6));
    assert_eq!(into, b"> last words");
    drop(client);
    assert_eq!(rig.io.read_now(&socket, &mut into, 100), ReadNow::Eof);
    rig.io.close(socket);
}

#[test]
#[should_panic(expected = "given back twice")]
fn a_buffer_cannot_be_given_back_twice_to_a_ring() {
    given_back_twice::<Uring>();
}

#[test]
#[should_panic(expected = "given back twice")]
fn a_buffer_cannot_be_given_back_twice_to_epoll() {
    given_back_twice::<Epoll>();
}

fn given_back_twice<B: Backend>() {
    let mut rig = Rig::<B>::new(SMALL);
    let (socket, mut client) = rig.connect();
    client.write_all(b"x").unwrap();
    rig.io.receive(&socket, name(1), ReceiveMode::Once);
    let Completion::Received { buffer, .. } = rig.next() else { panic!("no bytes") };
    rig.io.replenish(buffer);
    rig.io.replenish(buffer);
}

fn random_numbers_differ<B: Backend>() {
    let mut rig = Rig::<B>::new(TINY);
    let numbers: std::collections::BTreeSet<u64> = (0..100).map(|_| rig.io.random()).collect();
    assert_eq!(numbers.len(), 100);
}
