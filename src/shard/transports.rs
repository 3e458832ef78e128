//! Connections with a transport between socket and stream (see [`crate::transport`]); a plain one
//! never comes here.
//!
//! What arrives is fed to the transport, and what comes out of it goes the way of all received
//! bytes. A handshake may cost a core as much as thousands of messages, so each turn feeds a
//! limited number of connections that are in one. Each class of cost has a budget and a line of its
//! own, so that cheap handshakes do not wait for dear ones. A connection waits in line with what it
//! has sent: one receive buffer, since it is not read meanwhile.

use std::collections::VecDeque;

use crate::io::ReadNow;
use crate::log::{Kind, Level};
use crate::memory::{Key, OutBatch};
use crate::transport::{Between, Fed, Handshake, HandshakeCost, Last, Peer, Transport};

use super::Core;
use super::connection::{Closing, End, Phase};
use super::events;
use super::local::Local;
use super::order::{Heard, Intake};
use super::{Io, Shard};

/// A buffer for plain bytes that grew beyond this is not kept.
const PLAIN_KEPT_MAX: usize = 64 * 1024;

/// The transport of one connection, and what waits for it. Moves between shards as one value.
#[derive(Debug)]
pub struct Layered {
    transport: Transport,
    /// Received during the handshake and not fed yet.
    waiting: Vec<u8>,
    /// How the stream of the peer ended, as long as nobody has acted upon it: it goes along with a
    /// CONNECT that came before.
    end: Option<Fed>,
}

impl Layered {
    pub(super) fn new(transport: Transport) -> Layered {
        Layered { transport, waiting: Vec::new(), end: None }
    }

    /// Bytes that it keeps.
    pub(super) fn cost(&self) -> usize {
        self.transport.cost() + self.waiting.capacity()
    }

    /// What was received waits for its turn to be fed.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The handshake that goes on.
    pub(super) fn handshake(&self) -> Option<Handshake> {
        self.transport.handshake()
    }

    pub(super) fn peer(&self) -> Peer<'_> {
        self.transport.peer()
    }

    /// Whether it has something to send besides what is staged.
    pub(super) fn has_output(&self, phase: &Phase) -> bool {
        self.transport.wants_write(last(phase))
    }

    /// The batch as the peer shall see it: one write, with the end of the stream behind it in the
    /// last one. May be empty if there is nothing left to say. `spare` is an empty buffer before
    /// and after.
    pub(super) fn write(&mut self, batch: OutBatch, phase: &Phase, spare: &mut Vec<u8>) -> OutBatch {
        self.transport.write(batch, last(phase), spare)
    }
}

/// Whether nothing is staged any more behind what is staged now.
fn last(phase: &Phase) -> Last {
    match phase {
        Phase::Closing(Closing::Flush) => Last::Yes,
        Phase::Closing(Closing::Drain | Closing::Abort)
        | Phase::Opening
        | Phase::Verifying(_)
        | Phase::HandOff(_)
        | Phase::Waiting(_)
        | Phase::Live(_) => Last::No,
    }
}

/// The handshakes of a shard.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    cheap: Line,
    dear: Line,
    /// Plain bytes on their way, empty between two calls.
    plain: Vec<u8>,
    between: Between,
}

/// The handshakes of one class.
#[derive(Debug, Default)]
struct Line {
    /// Connections with received bytes that wait, each once, in the order in which they came.
    waiting: VecDeque<Key>,
    /// Connections that may still be fed in this turn.
    left: usize,
}

impl Line {
    /// The next one that may be fed in this turn.
    fn next(&mut self) -> Option<Key> {
        if self.left == 0 { None } else { self.waiting.pop_front() }
    }
}

impl Handshakes {
    pub fn is_waiting(&self) -> bool {
        !self.cheap.waiting.is_empty() || !self.dear.waiting.is_empty()
    }

    fn line(&mut self, cost: HandshakeCost) -> &mut Line {
        match cost {
            HandshakeCost::Cheap => &mut self.cheap,
            HandshakeCost::Dear => &mut self.dear,
        }
    }
}

impl<I: Io> Shard<I> {
    /// As `last_read`, through the transport: reads at most `max` bytes of the wire.
    pub(super) fn last_read_layered(
        &mut self,
        key: Key,
        bytes: &mut Vec<u8>,
        max: usize,
        intake: &mut Intake,
    ) {
        let core = &mut self.core;
        let Some(connection) = core.local.clients.connections.get_mut(key) else { return };
        let Some(layered) = &mut connection.transport else { return };
        let mut wire = Vec::new();
        let mut read = 0;
        while read < max && !connection.eof {
            wire.clear();
            let most = (max - read).min(PLAIN_KEPT_MAX);
            match intake.read_now(&mut self.io, &connection.socket, &mut wire, most) {
                ReadNow::Bytes(count) => read += count,
                ReadNow::Eof | ReadNow::Error(_) => connection.eof = true,
                ReadNow::WouldBlock => break,
            }
            match layered.transport.feed(&wire, &mut core.local.clients.handshakes.between, bytes) {
                Fed::Open => {}
                Fed::Closed | Fed::Failed(_) => connection.eof = true,
            }
        }
        core.local.env.counters[usize::from(core.local.env.id)].bytes_received_total.add(read as u64);
    }
}

impl Local {
    /// The stream is lost, but the transport may say why.
    fn transport_failed(&mut self, key: Key, why: &str) {
        let Some(connection) = self.clients.connections.get(key) else { return };
        if connection.is_closing() {
            return;
        }
        match connection.live().and_then(|live| self.sessions.get(live.session)) {
            Some(slot) => {
                let who = events::Who::has(slot);
                events::of_client(connection, who, (Level::Warn, Kind::ProtocolError), why, None);
            }
            None => events::no_connect(connection, why),
        }
        self.env.counters().transport_failures_total.add(1);
        self.clients.end(key, End::Told, &mut self.env);
        self.clients.start_closing(key, Closing::Flush, &mut self.env);
    }
}

impl Core {
    /// A new turn: feeds those that wait first.
    #[inline(always)]
    pub(super) fn advance_handshakes(&mut self, heard: Heard<'_>) {
        let Handshakes { cheap, dear, .. } = &mut self.local.clients.handshakes;
        cheap.left = self.local.env.options.cheap_handshakes_per_turn;
        dear.left = self.local.env.options.dear_handshakes_per_turn;
        if self.local.clients.handshakes.is_waiting() {
            self.feed_waiting(heard);
        }
    }

    #[cold]
    fn feed_waiting(&mut self, heard: Heard<'_>) {
        for cost in [HandshakeCost::Cheap, HandshakeCost::Dear] {
            while let Some(key) = self.local.clients.handshakes.line(cost).next() {
                let Some(layered) =
                    self.local.clients.connections.get_mut(key).and_then(|it| it.transport.as_mut())
                else {
                    continue;
                };
                let waiting = std::mem::take(&mut layered.waiting);
                self.feed(key, &waiting, heard);
                self.settle(heard);
                self.local.clients.mark_dirty(key); // it was not read while it waited
            }
        }
    }

    /// Bytes arrived for a connection with a transport.
    pub(super) fn wire_received(&mut self, key: Key, bytes: &[u8], heard: Heard<'_>) {
        let Some(connection) = self.local.clients.connections.get_mut(key) else { return };
        let Some(layered) = &mut connection.transport else { return };
        if matches!(connection.phase, Phase::Closing(_)) {
            return;
        }
        let line = layered.handshake().map(|handshake| self.local.clients.handshakes.line(handshake.cost));
        if let Some(line) = line.filter(|line| line.left == 0 || layered.is_waiting()) {
            if !layered.is_waiting() {
                line.waiting.push_back(key);
            }
            layered.waiting.extend_from_slice(bytes);
            return self.local.clients.charge_receive(key, &mut self.local.env);
        }
        if layered.transport.is_through() {
            return self.bytes_received(key, bytes, heard);
        }
        self.feed(key, bytes, heard);
    }

    fn feed(&mut self, key: Key, bytes: &[u8], heard: Heard<'_>) {
        let Some(connection) = self.local.clients.connections.get_mut(key) else { return };
        let Some(layered) = &mut connection.transport else { return };
        if matches!(connection.phase, Phase::Closing(_)) {
            return;
        }
        let mut plain = std::mem::take(&mut self.local.clients.handshakes.plain);
        let handshake = layered.handshake();
        let fed = layered.transport.feed(bytes, &mut self.local.clients.handshakes.between, &mut plain);
        layered.end = (fed != Fed::Open).then_some(fed);
        let wants_write = layered.transport.wants_write(Last::No);
        if let Some(handshake) = handshake {
            let line = self.local.clients.handshakes.line(handshake.cost);
            line.left = line.left.saturating_sub(1);
            if layered.handshake().is_none() {
                if let Some(address) = layered.peer().address {
                    connection.set_peer(address);
                }
                self.local.env.counters().handshakes_total.add(1);
            }
        }
        if wants_write {
            self.local.clients.mark_dirty(key);
        }
        if plain.is_empty() {
            // A part of a record is a part of a packet.
            if let Some(connection) = self.local.clients.connections.get_mut(key) {
                connection.heard_bytes(self.local.env.now);
            }
            self.local.clients.charge_receive(key, &mut self.local.env); // for what the transport holds now
        } else {
            self.bytes_received(key, &plain, heard);
        }
        plain.clear();
        if plain.capacity() > PLAIN_KEPT_MAX {
            plain = Vec::new();
        }
        self.local.clients.handshakes.plain = plain;
        self.stream_ended(key, heard);
    }

    /// Acts upon the end of a peer's stream, if it has ended.
    pub(super) fn stream_ended(&mut self, key: Key, heard: Heard<'_>) {
        let Some(layered) = self.local.clients.connections.get_mut(key).and_then(|it| it.transport.as_mut())
        else {
            return;
        };
        match layered.end.take() {
            Some(Fed::Open) | None => {}
            Some(Fed::Closed) => self.peer_closed(key, heard),
            Some(Fed::Failed(why)) => self.local.transport_failed(key, &why),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::io::sim::ClientRead;
    use crate::shard::Options;
    use crate::shard::testing::{CONNECT, NOW, Stage};
    use crate::transport::testing::{ANSWER, Frames, Introduction, Makes, REQUEST, frame};
    use crate::transport::{Acceptor, Layer, Layers};

    fn handshakes(stage: &Stage) -> u64 {
        stage.shard.counters().handshakes_total.get()
    }

    fn frames() -> Arc<dyn Acceptor> {
        Arc::new(Makes(|| Some(Box::<Frames>::default())))
    }

    fn introduction() -> Arc<dyn Acceptor> {
        Arc::new(Makes(|| Some(Box::<Introduction>::default())))
    }

    /// A handshake of one byte that counts as dear.
    #[derive(Debug, Default)]
    struct Slow(bool);

    impl Layer for Slow {
        fn feed(&mut self, received: &[u8], plain: &mut Vec<u8>) -> Fed {
            plain.extend_from_slice(&received[usize::from(!std::mem::replace(&mut self.0, true))..]);
            Fed::Open
        }

        fn write(&mut self, batch: OutBatch, _: Last, _: &mut Vec<u8>) -> OutBatch {
            batch
        }

        fn wants_write(&self) -> bool {
            false
        }

        fn handshake(&self) -> Option<Handshake> {
            (!self.0).then_some(Handshake { cost: HandshakeCost::Dear, late: "late", left: "left" })
        }

        fn cost(&self) -> usize {
            0
        }
    }

    #[test]
    fn mqtt_goes_through_a_layer_that_the_shard_does_not_know() {
        let mut stage = Stage::new([Layers::new([introduction(), frames()])], Options::default());
        let client = stage.connect(0);
        let wire = [b"192.0.2.7:1883 sensor-1\n", REQUEST, &frame(CONNECT)].concat();
        for piece in wire.chunks(5) {
            stage.say(client, piece);
            stage.settle();
        }
        let connection = stage.shard.core.local.clients.connections.iter().next().expect("a connection").1;
        assert_eq!(connection.peer().to_string(), "192.0.2.7:1883");
        let user = connection.transport.as_ref().and_then(|transport| transport.peer().user);
        assert_eq!(user, Some("sensor-1"));
        let (heard, _) = stage.hear(client);
        let answer = heard.strip_prefix(ANSWER).expect("an answer");
        assert_eq!((answer[4], usize::from(answer[5])), (0x20, answer.len() - 6), "one frame with a CONNACK");
        stage.say(client, &frame(b"\xc0\0"));
        stage.settle();
        assert_eq!(stage.hear(client).0, frame(b"\xd0\0"), "PINGRESP");
        // A packet that no client may send: DISCONNECT in a frame, and the end of frames behind it.
        stage.say(client, &frame(b"\xd0\0"));
        stage.settle();
        let (heard, state) = stage.hear(client);
        assert_eq!((heard[4], state), (0xe0, ClientRead::Eof));
        assert!(heard.ends_with(&frame(b"")) && heard.len() > 8 + 4, "{heard:?}");
    }

    #[test]
    fn each_class_of_handshake_has_a_budget_of_its_own_in_a_turn() {
        let slow: Arc<dyn Acceptor> = Arc::new(Makes(|| Some(Box::<Slow>::default())));
        let listeners =
            [Layers::new([frames()]), Layers::new([Arc::clone(&slow)]), Layers::new([introduction(), slow])];
        let options =
            Options { cheap_handshakes_per_turn: 3, dear_handshakes_per_turn: 1, ..Options::default() };
        let mut stage = Stage::new(listeners, options);
        for _ in 0..5 {
            let client = stage.connect(0);
            stage.say(client, REQUEST);
        }
        for listener in [1, 1, 2] {
            let client = stage.connect(listener);
            let wire: &[u8] = if listener == 1 { b"!" } else { b"192.0.2.7:1883 sensor-1\n!" };
            stage.say(client, wire);
        }
        let mut seen = vec![0];
        for _ in 0..20 {
            let _ = stage.shard.turn(NOW);
            if handshakes(&stage) > *seen.last().expect("a count") {
                seen.push(handshakes(&stage));
            }
        }
        // Five cheap ones and three dear ones; a cheap layer in front makes no dear one cheap.
        assert_eq!(seen, [0, 4, 7, 8]);
    }
}
