//! The fake itself: what it promises, and that it notices each broken rule.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::*;
use crate::io::ReceiveEnd;
use crate::memory::{Key, Outbox};

const LISTENER: ListenerId = ListenerId(0);

fn token(index: u32) -> Token {
    Token::new(Key { index, generation: 1 })
}

fn batch(bytes: &[u8]) -> OutBatch {
    let mut outbox = Outbox::default();
    outbox.bytes_mut().extend_from_slice(bytes);
    outbox.take(Vec::new())
}

struct Bench {
    world: Rc<RefCell<World>>,
    io: SimIo,
}

impl Bench {
    fn new(faults: Faults, seed: u64) -> Bench {
        let world = Rc::new(RefCell::new(World::new(2, faults, seed)));
        Bench { io: SimIo::new(0, world.clone()), world }
    }

    fn turn(&mut self) -> Vec<Completion> {
        let mut completions = Vec::new();
        self.io.completions(&mut completions);
        completions
    }

    fn accepted(&mut self) -> (Endpoint, Socket) {
        let endpoint = self.world.borrow_mut().connect(0, LISTENER);
        self.io.accept(LISTENER);
        let socket = match self.turn().pop() {
            Some(Completion::Accepted { socket, .. }) => socket,
            other => panic!("{other:?}"),
        };
        self.io.accept_cancel(LISTENER);
        while !matches!(self.turn().pop(), Some(Completion::AcceptEnded { errno: 0, .. })) {}
        (endpoint, socket)
    }
}

/// Echoes over many sockets under drawn faults; returns what happened, as text.
fn echo(seed: u64) -> String {
    const CLIENTS: usize = 6;
    const BYTES: usize = 700;
    struct Conn {
        socket: Option<Socket>,
        receiving: bool,
        sending: bool,
        out: Vec<u8>,
        over: bool,
    }
    let mut rng = Rng::new(seed);
    let mut faults = Faults::draw(&mut rng);
    faults.reset = Odds::NEVER;
    let mut bench = Bench::new(faults, rng.bits());
    let mut log = String::new();
    let ends: Vec<Endpoint> = (0..CLIENTS).map(|_| bench.world.borrow_mut().connect(0, LISTENER)).collect();
    let mut to_write: Vec<VecDeque<u8>> =
        (0..CLIENTS).map(|c| (0..BYTES).map(|n| (n * 7 + c * 31) as u8).collect()).collect();
    let expected = to_write.clone();
    let mut got = vec![Vec::new(); CLIENTS];
    let mut conns: Vec<Conn> = Vec::new();
    let mut accepting = false;
    for _ in 0..400_000 {
        if conns.len() == CLIENTS && conns.iter().all(|conn| conn.socket.is_none()) && !accepting {
            break;
        }
        if !accepting && conns.len() < CLIENTS {
            bench.io.accept(LISTENER);
            accepting = true;
        }
        for completion in bench.turn() {
            log.push_str(&format!("{completion:?}\n"));
            match completion {
                Completion::Accepted { socket, .. } => conns.push(Conn {
                    socket: Some(socket),
                    receiving: false,
                    sending: false,
                    out: Vec::new(),
                    over: false,
                }),
                Completion::AcceptEnded { .. } => accepting = false,
                Completion::Received { token, buffer, more } => {
                    let conn = &mut conns[token.key().index as usize];
                    conn.out.extend_from_slice(bench.io.bytes(buffer));
                    conn.receiving = more;
                    bench.io.replenish(buffer);
                }
                Completion::ReceiveEnded { token, end } => {
                    let conn = &mut conns[token.key().index as usize];
                    conn.receiving = false;
                    match end {
                        ReceiveEnd::Eof => conn.over = true,
                        ReceiveEnd::NoBuffers => {}
                        other => panic!("{other:?}"),
                    }
                }
                Completion::Sent { token, mut batch, result } => {
                    let conn = &mut conns[token.key().index as usize];
                    batch.advance(result.expect("nothing fails here"));
                    conn.sending = false;
                    if batch.remaining() > 0 {
                        conn.sending = true;
                        bench.io.send(conn.socket.as_ref().expect("open"), token, batch);
                    }
                }
                Completion::CancelEnded { .. }
                | Completion::Doorbell
                | Completion::Written { .. }
                | Completion::FileRead { .. } => panic!("nobody asked"),
            }
        }
        if accepting && conns.len() == CLIENTS {
            bench.io.accept_cancel(LISTENER);
        }
        for (index, conn) in conns.iter_mut().enumerate() {
            let Some(socket) = &conn.socket else { continue };
            if !conn.receiving && !conn.over {
                let mode = if index % 2 == 0 { ReceiveMode::Many } else { ReceiveMode::Once };
                bench.io.receive(socket, token(index as u32), mode);
                conn.receiving = true;
            }
            if !conn.sending && !conn.out.is_empty() {
                bench.io.send(socket, token(index as u32), batch(&conn.out));
                conn.out.clear();
                conn.sending = true;
            }
            if conn.over && !conn.sending && !conn.receiving {
                let socket = conn.socket.take().expect("open");
                bench.io.close(socket);
            }
        }
        let client = rng.below(CLIENTS);
        let mut world = bench.world.borrow_mut();
        let chunk: Vec<u8> = to_write[client].iter().copied().take(rng.between(1, 300)).collect();
        if let Some(count) = world.write(ends[client], &chunk) {
            to_write[client].drain(..count);
            if to_write[client].is_empty() {
                world.half_close(ends[client]);
            }
        }
        world.read(ends[client], &mut got[client], rng.between(1, 400));
    }
    // Sockets were accepted in the order of connecting, so each client has its own bytes back.
    let mut world = bench.world.borrow_mut();
    for client in 0..CLIENTS {
        while world.read(ends[client], &mut got[client], 100) == ClientRead::Open {}
        assert!(got[client].iter().eq(&expected[client]), "seed {seed}: client {client} lost bytes");
    }
    assert_eq!(world.faults_at_rest(), Vec::<String>::new(), "seed {seed}");
    assert!(world.is_quiet(0));
    log
}

#[test]
fn every_byte_survives_every_fault_in_order() {
    for seed in 0..60 {
        echo(seed);
    }
}

#[test]
fn one_seed_is_one_history() {
    assert_eq!(echo(11), echo(11));
    assert_ne!(echo(11), echo(12));
}

#[test]
fn faults_happen() {
    let mut sum = FaultCounts::default();
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let faults = Faults { reset: Odds(20), ..Faults::draw(&mut rng) };
        let mut bench = Bench::new(faults, seed);
        let mut faults_off = Faults::none();
        std::mem::swap(&mut bench.world.borrow_mut().faults, &mut faults_off);
        let (endpoint, socket) = bench.accepted();
        std::mem::swap(&mut bench.world.borrow_mut().faults, &mut faults_off);
        let mut receiving = false;
        let mut sending = false;
        for _ in 0..200 {
            bench.world.borrow_mut().write(endpoint, &[7; 50]);
            if !receiving {
                bench.io.receive(&socket, token(1), ReceiveMode::Many);
                receiving = true;
            }
            if !sending {
                bench.io.send(&socket, token(1), batch(&[1; 100]));
                sending = true;
            }
            for completion in bench.turn() {
                match completion {
                    Completion::Received { buffer, more, .. } => {
                        receiving = more;
                        assert!(bench.io.bytes(buffer).iter().all(|&byte| byte == 7));
                        bench.io.replenish(buffer);
                    }
                    Completion::ReceiveEnded { .. } => receiving = false,
                    Completion::Sent { .. } => sending = false,
                    _ => {}
                }
            }
            bench.world.borrow_mut().read(endpoint, &mut Vec::new(), 60);
        }
        sum.add(&bench.world.borrow().fault_counts());
    }
    for fault in [
        Fault::Late,
        Fault::Stalled,
        Fault::ShortReceive,
        Fault::ShortSend,
        Fault::ReceiveEnds,
        Fault::NoBuffers,
        Fault::Reset,
        Fault::ResetLosesData,
        Fault::SendBlocked,
        Fault::SendFailed,
    ] {
        assert!(sum.of(fault) > 0, "{fault:?} never happened");
    }
}

#[test]
fn a_buffer_given_back_is_poisoned_and_reused() {
    let mut bench = Bench::new(Faults { buffers: 1, ..Faults::none() }, 1);
    let (endpoint, socket) = bench.accepted();
    for round in 0..3u8 {
        bench.world.borrow_mut().write(endpoint, &[round; 9]);
        bench.io.receive(&socket, token(1), ReceiveMode::Once);
        let Some(Completion::Received { buffer, more: false, .. }) = bench.turn().pop() else { panic!() };
        assert_eq!(bench.io.bytes(buffer), [round; 9]);
        bench.io.replenish(buffer);
        assert_eq!(bench.io.bytes(buffer), [POISON; 9]);
    }
}

#[test]
fn without_a_buffer_a_receive_ends_and_nothing_is_lost() {
    let mut bench = Bench::new(Faults { buffers: 1, buffer_bytes: 4, ..Faults::none() }, 1);
    let (endpoint, socket) = bench.accepted();
    bench.world.borrow_mut().write(endpoint, b"abcdef");
    bench.io.receive(&socket, token(1), ReceiveMode::Many);
    let completions = bench.turn();
    let [Completion::Received { buffer, more: true, .. }, Completion::ReceiveEnded { end, .. }] =
        completions[..]
    else {
        panic!("{completions:?}")
    };
    assert_eq!(end, ReceiveEnd::NoBuffers);
    assert_eq!(bench.io.bytes(buffer), b"abcd");
    bench.io.replenish(buffer);
    let mut rest = Vec::new();
    assert_eq!(bench.io.read_now(&socket, &mut rest, 100), ReadNow::Bytes(2));
    assert_eq!(rest, b"ef");
    assert_eq!(bench.io.read_now(&socket, &mut rest, 100), ReadNow::WouldBlock);
}

#[test]
fn a_cancel_and_its_receive_end_once_each_with_data_before_or_after() {
    let (mut cancel_first, mut receive_first, mut data_first, mut data_left) = (0, 0, 0, 0);
    for seed in 0..100 {
        let faults = Faults { data_after_cancel: Odds(5_000), stalled: Odds(3_000), ..Faults::none() };
        let mut bench = Bench::new(Faults::none(), seed);
        let (endpoint, socket) = bench.accepted();
        bench.world.borrow_mut().faults = faults;
        bench.io.receive(&socket, token(1), ReceiveMode::Many);
        bench.io.receive_cancel(token(1));
        bench.world.borrow_mut().write(endpoint, b"xyz");
        let (mut ended, mut cancelled, mut bytes) = (0, 0, Vec::new());
        while ended == 0 || cancelled == 0 {
            for completion in bench.turn() {
                match completion {
                    Completion::Received { buffer, more, .. } => {
                        assert!(more && ended == 0);
                        bytes.extend_from_slice(bench.io.bytes(buffer));
                        bench.io.replenish(buffer);
                    }
                    Completion::ReceiveEnded { end, .. } => {
                        assert_eq!(end, ReceiveEnd::Cancelled);
                        ended += 1;
                        receive_first += u32::from(cancelled == 0);
                    }
                    Completion::CancelEnded { .. } => {
                        cancelled += 1;
                        cancel_first += u32::from(ended == 0);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!((ended, cancelled), (1, 1));
        data_first += u32::from(!bytes.is_empty());
        data_left += u32::from(bytes.is_empty());
        while let ReadNow::Bytes(_) = bench.io.read_now(&socket, &mut bytes, 2) {}
        assert_eq!(bytes, b"xyz");
        bench.io.close(socket);
        assert_eq!(bench.world.borrow().faults_at_rest(), Vec::<String>::new());
    }
    for count in [cancel_first, receive_first, data_first, data_left] {
        assert!(count > 5, "{cancel_first} {receive_first} {data_first} {data_left}");
    }
}

#[test]
fn the_client_learns_how_the_shard_ended() {
    // Everything read: an orderly end after the last bytes.
    let mut bench = Bench::new(Faults::none(), 1);
    let (endpoint, socket) = bench.accepted();
    bench.io.send(&socket, token(1), batch(b"bye"));
    assert!(matches!(bench.turn()[..], [Completion::Sent { result: Ok(3), .. }]));
    bench.io.shutdown(&socket, Shutdown::Both);
    bench.io.close(socket);
    let mut got = Vec::new();
    assert_eq!(bench.world.borrow_mut().read(endpoint, &mut got, 2), ClientRead::Open);
    assert_eq!(bench.world.borrow_mut().read(endpoint, &mut got, 2), ClientRead::Eof);
    assert_eq!(got, b"bye");
    assert_eq!(bench.world.borrow_mut().write(endpoint, b"x"), None);
    // Bytes that nobody read: a reset.
    let mut bench = Bench::new(Faults::none(), 1);
    let (endpoint, socket) = bench.accepted();
    bench.world.borrow_mut().write(endpoint, b"x");
    bench.io.close(socket);
    assert_eq!(bench.world.borrow_mut().read(endpoint, &mut got, 2), ClientRead::Reset);
}

#[test]
fn the_shard_learns_how_the_client_ended() {
    for (end, expected) in [(0, ReceiveEnd::Eof), (1, ReceiveEnd::Error(104)), (2, ReceiveEnd::Eof)] {
        let mut bench = Bench::new(Faults::none(), 1);
        let (endpoint, socket) = bench.accepted();
        bench.world.borrow_mut().write(endpoint, b"last");
        match end {
            0 => bench.world.borrow_mut().close(endpoint),
            1 => bench.world.borrow_mut().reset(endpoint),
            _ => bench.io.shutdown(&socket, Shutdown::Both),
        }
        bench.io.receive(&socket, token(1), ReceiveMode::Many);
        let completions = bench.turn();
        let [Completion::Received { buffer, .. }, Completion::ReceiveEnded { end, .. }] = completions[..]
        else {
            panic!("{completions:?}")
        };
        assert_eq!(end, expected);
        bench.io.replenish(buffer);
        bench.io.close(socket);
    }
}

#[test]
fn a_send_to_a_slow_reader_stays_in_flight_and_fails_with_the_connection() {
    let mut bench = Bench::new(Faults { to_client_bytes: 10, ..Faults::none() }, 1);
    let (endpoint, socket) = bench.accepted();
    bench.io.send(&socket, token(1), batch(&[5; 25]));
    assert!(bench.turn().is_empty());
    assert!(bench.world.borrow().is_quiet(0));
    bench.world.borrow_mut().read(endpoint, &mut Vec::new(), 10);
    assert!(!bench.world.borrow().is_quiet(0));
    assert!(bench.turn().is_empty());
    bench.io.shutdown(&socket, Shutdown::Both);
    assert!(matches!(bench.turn()[..], [Completion::Sent { result: Ok(20), .. }]));
    bench.io.send(&socket, token(1), batch(&[5; 5]));
    assert!(matches!(bench.turn()[..], [Completion::Sent { result: Err(32), .. }]));
    bench.io.close(socket);
}

#[test]
fn a_socket_moves_between_shards_with_its_unread_bytes() {
    let mut bench = Bench::new(Faults::none(), 1);
    let (endpoint, socket) = bench.accepted();
    bench.world.borrow_mut().write(endpoint, b"onetwo");
    let mut first = Vec::new();
    bench.io.read_now(&socket, &mut first, 3);
    let mut other = SimIo::new(1, bench.world.clone());
    bench.io.doorbell(1);
    other.receive(&socket, token(9), ReceiveMode::Many);
    let mut completions = Vec::new();
    other.completions(&mut completions);
    let [Completion::Doorbell, Completion::Received { buffer, .. }] = completions[..] else {
        panic!("{completions:?}")
    };
    assert_eq!(other.bytes(buffer), b"two");
}

fn breaks(rule: &str, body: impl FnOnce(&mut Bench, Socket)) {
    let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut bench = Bench::new(Faults::none(), 1);
        let (endpoint, socket) = bench.accepted();
        bench.world.borrow_mut().write(endpoint, b"some bytes");
        body(&mut bench, socket);
    }));
    let panic = broken.expect_err(rule);
    let text = panic.downcast_ref::<String>().expect("a formatted panic");
    assert!(text.contains(rule), "{text}");
}

#[test]
fn each_broken_rule_is_noticed() {
    breaks("second receive", |bench, socket| {
        bench.io.receive(&socket, token(1), ReceiveMode::Many);
        bench.io.receive(&socket, token(1), ReceiveMode::Many);
    });
    breaks("second send", |bench, socket| {
        bench.io.send(&socket, token(1), batch(b"a"));
        bench.io.send(&socket, token(1), batch(b"b"));
    });
    breaks("empty batch", |bench, socket| bench.io.send(&socket, token(1), batch(b"")));
    breaks("closed with operations in flight", |bench, socket| {
        bench.io.receive(&socket, token(1), ReceiveMode::Many);
        bench.io.close(socket);
    });
    breaks("read beside a receive", |bench, socket| {
        bench.io.receive(&socket, token(1), ReceiveMode::Many);
        bench.io.read_now(&socket, &mut Vec::new(), 1);
    });
    breaks("given back twice", |bench, socket| {
        bench.io.receive(&socket, token(1), ReceiveMode::Many);
        let Some(Completion::Received { buffer, .. }) = bench.turn().pop() else { panic!() };
        bench.io.replenish(buffer);
        bench.io.replenish(buffer);
    });
    breaks("kept receive buffers", |bench, socket| {
        bench.io.receive(&socket, token(1), ReceiveMode::Many);
        assert_eq!(bench.turn().len(), 1);
        bench.turn();
    });
    breaks("moved from shard 0 to 1", |bench, socket| {
        bench.io.receive(&socket, token(1), ReceiveMode::Many);
        SimIo::new(1, bench.world.clone()).shutdown(&socket, Shutdown::Both);
    });
    breaks("accepts twice", |bench, _| {
        bench.io.accept(LISTENER);
        bench.io.accept(LISTENER);
    });
    breaks("used after close", |bench, socket| {
        let again = Socket::imagined(socket.imagined_number());
        bench.io.close(socket);
        bench.io.shutdown(&again, Shutdown::Both);
    });
    breaks("never was on an open socket", |bench, _| bench.io.receive_cancel(token(77)));
}

#[test]
fn what_is_left_over_is_named() {
    let mut bench = Bench::new(Faults::none(), 1);
    let (endpoint, socket) = bench.accepted();
    bench.world.borrow_mut().write(endpoint, b"some bytes");
    bench.io.receive(&socket, token(1), ReceiveMode::Many);
    assert_eq!(bench.turn().len(), 1);
    bench.io.accept(LISTENER);
    let found = bench.world.borrow().faults_at_rest();
    for part in ["never closed", "never gave buffer 0 back", "still accepts"] {
        assert!(found.iter().any(|line| line.contains(part)), "{part}: {found:?}");
    }
    assert_eq!(bench.world.borrow().open_sockets(), 1);
}
