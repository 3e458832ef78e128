//! Several layers as one: whatever lies under TLS or over it.

use std::sync::Arc;

use rustls::version::TLS13;
use rustls::{ClientConnection, pki_types::ServerName};

use super::testing::{ANSWER, Frames, Introduction, Makes, Mask, REQUEST, frame};
use super::tls::ClientCertificates;
use super::tls::testing::{Certificates, Shows, from_client, to_client};
use super::*;
use crate::clock::NEVER;
use crate::memory::{Message, MessageView, Outbox};
use crate::wire::Qos;

const MASK: u8 = 0x5A;
const INTRODUCTION: &[u8] = b"192.0.2.7:1883 sensor-1\n";

fn message(len: usize) -> Message {
    let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
    MessageView {
        topic: "t",
        properties: &[],
        payload: &payload,
        qos: Qos::AtMostOnce,
        retain: false,
        expires_at: NEVER,
        publisher: 0,
        whole: None,
        origin: 0,
        is_repeat: false,
    }
    .to_message()
}

/// What a client's end of a layer does; outermost first in a list, as on the server's side.
enum End {
    Frames(FramesEnd),
    Introduction { is_said: bool },
    Mask,
    Tls(Box<ClientConnection>),
}

#[derive(Default)]
struct FramesEnd {
    has_asked: bool,
    is_answered: bool,
    partial: Vec<u8>,
    has_ended: bool,
}

impl FramesEnd {
    fn hear(&mut self, wire: &[u8]) -> Vec<u8> {
        self.partial.extend_from_slice(wire);
        if !self.is_answered && self.partial.starts_with(ANSWER) {
            self.partial.drain(..ANSWER.len());
            self.is_answered = true;
        }
        let mut plain = Vec::new();
        while let (true, Some((len, rest))) = (self.is_answered, self.partial.split_first_chunk::<4>()) {
            let len = u32::from_be_bytes(*len) as usize;
            let Some(body) = rest.get(..len) else { break };
            assert!(!self.has_ended, "something follows the end");
            self.has_ended = len == 0;
            plain.extend_from_slice(body);
            self.partial.drain(..4 + len);
        }
        plain
    }
}

impl End {
    /// From the stream to the wire.
    fn say(&mut self, plain: &[u8]) -> Vec<u8> {
        match self {
            End::Frames(end) => {
                let request = if std::mem::replace(&mut end.has_asked, true) { b"" } else { REQUEST };
                let framed = if plain.is_empty() { Vec::new() } else { frame(plain) };
                [request, &framed].concat()
            }
            End::Introduction { is_said: false } => {
                *self = End::Introduction { is_said: true };
                [INTRODUCTION, plain].concat()
            }
            End::Introduction { is_said: true } => plain.to_vec(),
            End::Mask => plain.iter().map(|byte| byte ^ MASK).collect(),
            End::Tls(connection) => {
                std::io::Write::write_all(&mut connection.writer(), plain).unwrap();
                from_client(connection)
            }
        }
    }

    /// From the wire to the stream.
    fn hear(&mut self, wire: &[u8]) -> Vec<u8> {
        match self {
            End::Frames(end) => end.hear(wire),
            End::Introduction { .. } => wire.to_vec(),
            End::Mask => wire.iter().map(|byte| byte ^ MASK).collect(),
            End::Tls(connection) => to_client(connection, wire).unwrap(),
        }
    }
}

/// Both ends of a connection with several layers.
struct Pair {
    server: Transport,
    client: Vec<End>,
    between: Between,
    spare: Vec<u8>,
    /// What the server's stream has received, and how it ended.
    heard: Vec<u8>,
    fed: Fed,
}

impl Pair {
    fn new(certificates: &Certificates, layers: &str) -> Pair {
        Pair::with(certificates, layers, Shows::Nothing)
    }

    fn with(certificates: &Certificates, layers: &str, shows: Shows<'_>) -> Pair {
        let tls = certificates.acceptor(ClientCertificates::Optional { ca: certificates.path("ca.pem") });
        let config = certificates.client(&TLS13, shows);
        let (mut acceptors, mut client): (Vec<Arc<dyn Acceptor>>, Vec<End>) = Default::default();
        for layer in layers.split_whitespace() {
            let (acceptor, end): (Arc<dyn Acceptor>, End) = match layer {
                "frames" => {
                    (Arc::new(Makes(|| Some(Box::<Frames>::default()))), End::Frames(FramesEnd::default()))
                }
                "introduction" => (
                    Arc::new(Makes(|| Some(Box::<Introduction>::default()))),
                    End::Introduction { is_said: false },
                ),
                "mask" => (Arc::new(Makes(|| Some(Box::new(Mask(MASK))))), End::Mask),
                "tls" => {
                    let name = ServerName::try_from("localhost").unwrap();
                    let mut connection = ClientConnection::new(Arc::clone(&config), name).unwrap();
                    connection.set_buffer_limit(None);
                    (Arc::clone(&tls) as Arc<dyn Acceptor>, End::Tls(Box::new(connection)))
                }
                other => panic!("no layer is called {other}"),
            };
            acceptors.push(acceptor);
            client.push(end);
        }
        Pair {
            server: Layers::new(acceptors).accept().unwrap(),
            client,
            between: Between::default(),
            spare: Vec::new(),
            heard: Vec::new(),
            fed: Fed::Open,
        }
    }

    /// The client says something; what that is on the wire.
    fn wire(&mut self, plain: &[u8]) -> Vec<u8> {
        self.client.iter_mut().rev().fold(plain.to_vec(), |bytes, end| end.say(&bytes))
    }

    /// The server is fed in pieces of `step`.
    fn feed(&mut self, wire: &[u8], step: usize) {
        for piece in wire.chunks(step) {
            if self.fed == Fed::Open {
                self.fed = self.server.feed(piece, &mut self.between, &mut self.heard);
            }
        }
    }

    /// What the server sends, as the client's innermost layer hears it.
    fn answer(&mut self, batch: OutBatch, last: Last) -> Vec<u8> {
        let batch = self.server.write(batch, last, &mut self.spare);
        assert!(self.spare.is_empty(), "a spare buffer is given back empty");
        let wire: Vec<u8> = batch.pieces().flatten().copied().collect();
        assert_eq!(wire.len(), batch.remaining());
        self.client.iter_mut().fold(wire, |bytes, end| end.hear(&bytes))
    }

    /// Everything before the stream begins, in pieces of `step`.
    fn shake_hands(&mut self, step: usize) {
        for _ in 0..4 {
            let wire = self.wire(b"");
            self.feed(&wire, step);
            assert_eq!(self.fed, Fed::Open);
            assert!(self.answer(OutBatch::default(), Last::No).is_empty());
        }
        assert_eq!(self.server.handshake(), None);
        assert!(!self.server.wants_write(Last::No));
    }
}

const STACKS: [&str; 9] = [
    "tls",
    "mask",
    "frames",
    "tls mask",
    "mask tls",
    "tls frames",
    "frames tls",
    "introduction tls frames",
    "introduction mask tls mask",
];

#[test]
fn a_stream_passes_both_ways_through_layers_in_any_order_however_it_is_cut() {
    let certificates = Certificates::new("stacks");
    for layers in STACKS {
        for step in [1, 7, 4096, usize::MAX] {
            let mut pair = Pair::new(&certificates, layers);
            pair.shake_hands(step);
            let said: Vec<u8> = (0..40_000u32).map(|i| (i * 31) as u8).collect();
            let wire = pair.wire(&said);
            pair.feed(&wire, step);
            assert!(pair.fed == Fed::Open && pair.heard == said, "{layers} in pieces of {step}");

            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            for len in [10, 2000, 20_000] {
                let message = message(len);
                outbox.bytes_mut().extend_from_slice(b"head");
                outbox.push_payload(&message);
                expected.extend([b"head", message.payload()].concat());
            }
            assert!(
                pair.answer(outbox.take(Vec::new()), Last::No) == expected,
                "{layers} in pieces of {step}"
            );
        }
    }
}

/// Where each piece of a batch lies.
fn places(batch: &OutBatch) -> Vec<(*const u8, usize)> {
    batch.pieces().map(|piece| (piece.as_ptr(), piece.len())).collect()
}

#[test]
fn a_layer_that_sends_payloads_as_they_are_copies_none() {
    let certificates = Certificates::new("places");
    for inline in [5, 5000] {
        let mut pair = Pair::new(&certificates, "introduction frames");
        pair.shake_hands(usize::MAX);
        let message = message(3000);
        let mut outbox = Outbox::default();
        outbox.bytes_mut().resize(inline, 7);
        outbox.push_payload(&message);
        let batch = outbox.take(Vec::new());
        let before = places(&batch);
        let after = places(&pair.server.write(batch, Last::No, &mut pair.spare));
        assert_eq!(before[1], (message.payload().as_ptr(), 3000));
        assert_eq!(after.last(), before.last(), "the payload of the message itself");
        match inline {
            5 => assert_eq!(
                (after.len(), after[0].1),
                (2, 4 + 5),
                "a few bytes are moved rather than a piece made"
            ),
            _ => assert_eq!((after.len(), after[0].1, after[1]), (3, 4, before[0])),
        }
    }
}

#[test]
fn each_layer_says_once_that_the_stream_ends_the_innermost_first() {
    let certificates = Certificates::new("last");
    let mut pair = Pair::new(&certificates, "tls frames");
    pair.shake_hands(usize::MAX);
    assert!(pair.server.wants_write(Last::Yes) && !pair.server.wants_write(Last::No));
    let batch = OutBatch::from(b"bye".to_vec());
    assert_eq!(pair.answer(batch, Last::Yes), b"bye");
    let [End::Tls(tls), End::Frames(frames)] = &mut pair.client[..] else { panic!("other layers") };
    assert!(frames.has_ended, "the frame was heard, so it came before the end of TLS");
    assert!(tls.process_new_packets().unwrap().peer_has_closed());
    assert!(!pair.server.wants_write(Last::Yes));
    assert!(pair.answer(OutBatch::default(), Last::Yes).is_empty(), "and nothing comes a second time");
}

#[test]
fn an_end_within_an_inner_layer_comes_before_that_of_an_outer_one() {
    let certificates = Certificates::new("ends");
    let mut pair = Pair::new(&certificates, "tls frames");
    pair.shake_hands(usize::MAX);
    let mut wire = pair.wire(b"said");
    let End::Tls(tls) = &mut pair.client[0] else { panic!("another layer") };
    std::io::Write::write_all(&mut tls.writer(), &frame(b"")).unwrap();
    wire.extend(from_client(tls));
    // What follows is no record.
    wire.extend([0xFF; 20]);
    pair.feed(&wire, usize::MAX);
    assert_eq!((pair.fed, &pair.heard[..]), (Fed::Closed, &b"said"[..]));
}

#[test]
fn a_broken_inner_layer_has_its_reason_and_the_outer_one_its_last_words() {
    let certificates = Certificates::new("broken");
    let mut pair = Pair::new(&certificates, "tls frames");
    let End::Frames(frames) = &mut pair.client[1] else { panic!("another layer") };
    frames.has_asked = true;
    for _ in 0..2 {
        let wire = pair.wire(b"");
        pair.feed(&wire, usize::MAX);
        pair.answer(OutBatch::default(), Last::No);
    }
    let wire = pair.wire(b"");
    assert!(wire.is_empty());
    let wire = pair.wire(b"GET / HTTP/1.1");
    pair.feed(&wire, usize::MAX);
    assert_eq!(pair.fed, Fed::Failed("this is no request for frames".into()));
    pair.answer(OutBatch::default(), Last::Yes);
    let [End::Tls(tls), End::Frames(frames)] = &mut pair.client[..] else { panic!("other layers") };
    assert!(tls.process_new_packets().unwrap().peer_has_closed());
    assert!(!frames.has_ended, "who never asked for frames gets none");
}

#[test]
fn a_handshake_is_as_dear_as_the_dearest_layer_that_is_not_ready() {
    let certificates = Certificates::new("cost");
    let mut pair = Pair::new(&certificates, "introduction tls frames");
    let mut seen = Vec::new();
    let mut see = |pair: &Pair| {
        let now = pair.server.handshake().map(|handshake| (handshake.cost, handshake.left));
        if seen.last() != Some(&now) {
            seen.push(now);
        }
    };
    see(&pair);
    for _ in 0..4 {
        for byte in pair.wire(b"") {
            pair.feed(&[byte], 1);
            see(&pair);
        }
        pair.answer(OutBatch::default(), Last::No);
    }
    let texts = [
        Some((HandshakeCost::Dear, "the peer closed before its introduction was over")),
        Some((HandshakeCost::Dear, "the peer closed before the TLS handshake was over")),
        Some((HandshakeCost::Cheap, "the peer closed before it had asked for frames")),
        None,
    ];
    assert_eq!(seen, texts);
}

#[test]
fn an_inner_layer_knows_the_peer_better_than_an_outer_one() {
    let certificates = Certificates::new("peer");
    certificates.sign("gateway", 2040);
    let address = Some("192.0.2.7:1883".parse().unwrap());
    for (layers, shows, user) in [
        ("introduction frames", Shows::Nothing, "sensor-1"),
        ("introduction tls", Shows::Nothing, "sensor-1"),
        ("introduction tls frames", Shows::Certificate("gateway"), "gateway"),
        ("tls introduction", Shows::Certificate("gateway"), "sensor-1"),
    ] {
        let mut pair = Pair::with(&certificates, layers, shows);
        assert_eq!(pair.server.peer(), Peer::default(), "{layers}");
        pair.shake_hands(usize::MAX);
        let peer = Peer { address, is_certified: true, user: Some(user) };
        assert_eq!(pair.server.peer(), peer, "{layers}");
    }
}

#[test]
fn a_layer_that_changes_nothing_any_more_is_passed_by() {
    let certificates = Certificates::new("through");
    let mut pair = Pair::new(&certificates, "introduction");
    assert!(!pair.server.is_through());
    let wire = pair.wire(b"and then this");
    pair.feed(&wire, 10);
    assert!(pair.server.is_through() && pair.heard == b"and then this");
    // The layer itself would panic.
    pair.feed(b" and that", 10);
    assert!(pair.heard == b"and then this and that");
    let batch = OutBatch::from(b"an answer".to_vec());
    let before = places(&batch);
    assert_eq!(places(&pair.server.write(batch, Last::Yes, &mut pair.spare)), before);
}

#[test]
fn a_connection_has_all_its_layers_or_is_refused() {
    let some: Arc<dyn Acceptor> = Arc::new(Makes(|| Some(Box::new(Mask(MASK)))));
    let none: Arc<dyn Acceptor> = Arc::new(Makes(|| None));
    assert!(Layers::new([Arc::clone(&some), Arc::clone(&some)]).accept().is_some());
    assert!(Layers::new([some, none]).accept().is_none());
    assert!(Layers::plain().is_plain());
}
