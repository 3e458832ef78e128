//! A reference model of one session's outgoing messages, driven with random steps: messages published, sent,
//! acknowledged, refused, half-finished, and the connection cut in between.
//!
//! The model says what may arrive next and what must arrive in the end. It knows the exchanges of QoS 1 and 2, the
//! quota of MQTT 5 and what a new connection sends again. A failure names its seed; the steps follow from it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::support::client::PATIENCE;
use crate::support::encode::{self, PUBACK, PUBCOMP, PUBREC, PUBREL};
use crate::support::*;

/// A small generator of numbers (xorshift); the steps of a seed are the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// How far the delivery of one message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Sent on an earlier connection, and to be sent again on this one.
    Again,
    /// PUBLISH is there, and not acknowledged.
    Published,
    /// PUBREC was sent on this connection: PUBREL must come.
    Received,
    /// PUBREC was sent on an earlier connection: PUBREL must come again.
    ReleaseAgain,
    /// PUBREL is there, and not completed.
    Released,
}

#[derive(Clone, Debug)]
struct Flight {
    number: u64,
    qos: u8,
    packet_id: u16,
    step: Step,
    /// Whether it takes quota on this connection.
    counted: bool,
}

/// What the broker must hold for one session.
struct Model {
    queue: VecDeque<(u64, u8)>,
    flight: Vec<Flight>,
    maximum: usize,
    /// What has come for the first time, at QoS 1 and 2.
    given: [Vec<u64>; 2],
}

impl Model {
    fn quota(&self) -> usize {
        self.maximum - self.flight.iter().filter(|f| f.counted).count()
    }

    /// A new connection with this Receive Maximum.
    fn reconnect(&mut self, maximum: usize) {
        self.maximum = maximum;
        for flight in &mut self.flight {
            flight.counted = false;
            flight.step = match flight.step {
                Step::Again | Step::Published => Step::Again,
                Step::Received | Step::ReleaseAgain | Step::Released => Step::ReleaseAgain,
            };
        }
    }

    /// Takes in a PUBLISH.
    fn published(&mut self, publish: &Publish) {
        assert!(self.quota() > 0, "beyond the Receive Maximum of {}: {publish:?}", self.maximum);
        let number: u64 = publish.text().parse().expect("a number");
        if let Some(flight) = self.flight.iter_mut().find(|f| f.step == Step::Again) {
            // Before anything new, and in the original order.
            assert_eq!(
                (number, publish.qos, publish.packet_id, publish.dup),
                (flight.number, flight.qos, flight.packet_id, true)
            );
            flight.step = Step::Published;
            flight.counted = true;
            return;
        }
        assert!(
            self.flight.iter().all(|f| f.packet_id != publish.packet_id),
            "an identifier in use: {publish:?}"
        );
        let next = self.queue.pop_front();
        assert_eq!(
            (Some((number, publish.qos)), publish.dup),
            (next, false),
            "out of order, lost or repeated"
        );
        self.given[usize::from(publish.qos) - 1].push(number);
        self.flight.push(Flight {
            number,
            qos: publish.qos,
            packet_id: publish.packet_id,
            step: Step::Published,
            counted: true,
        });
    }

    /// Takes in a PUBREL.
    fn released(&mut self, ack: &Ack) {
        let flight = self.flight.iter_mut().find(|f| f.packet_id == ack.packet_id);
        let flight = flight.unwrap_or_else(|| panic!("a release of nothing: {ack:?}"));
        assert!(matches!(flight.step, Step::Received | Step::ReleaseAgain), "{ack:?} for {flight:?}");
        assert_eq!(ack.code, 0);
        flight.step = Step::Released;
    }

    /// Whether everything that must have come has come.
    fn settled(&self) -> bool {
        let owed = |f: &Flight| matches!(f.step, Step::Received | Step::ReleaseAgain);
        let unsent = self.flight.iter().any(|f| f.step == Step::Again) || !self.queue.is_empty();
        !self.flight.iter().any(owed) && (!unsent || self.quota() == 0)
    }
}

struct Run<'a> {
    broker: &'a Broker,
    version: Version,
    id: String,
    topic: String,
    publisher: Client,
    client: Client,
    model: Model,
    random: Random,
    published: u64,
}

impl Run<'_> {
    fn connect(&mut self) {
        // 3.x has no Receive Maximum; the broker's own window is far above what these steps put in flight.
        let maximum = if self.version == V5 { 1 + self.random.below(5) as u16 } else { u16::MAX };
        let mut connect = Connect::new(self.version, &self.id).persistent();
        if self.version == V5 {
            connect = connect.with(Property::ReceiveMaximum(maximum));
        }
        let (client, connack) = Client::connect(self.broker, &connect);
        assert_eq!((connack.code, connack.session_present), (0, self.version != V31));
        self.client = client;
        self.model.reconnect(usize::from(maximum));
    }

    /// Reads until the model has nothing owed to it.
    fn settle(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.client.send(encode::PINGREQ);
            loop {
                match self.client.expect_packet() {
                    Packet::Publish(publish) => self.model.published(&publish),
                    Packet::Pubrel(ack) => self.model.released(&ack),
                    Packet::Pingresp => break,
                    other => panic!("{other:?}"),
                }
            }
            if self.model.settled() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "owed: {:?}, queued: {:?}",
                self.model.flight,
                self.model.queue
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn publish(&mut self) {
        let qos = 1 + self.random.below(2) as u8;
        let number = self.published;
        self.published += 1;
        self.publisher.say(&self.topic, number.to_string(), qos);
        self.model.queue.push_back((number, qos));
    }

    /// Acknowledges one of the messages in flight by one step.
    fn advance(&mut self) {
        if self.model.flight.is_empty() {
            return;
        }
        let at = self.random.below(self.model.flight.len() as u64) as usize;
        let refuse = self.version == V5 && self.random.below(8) == 0;
        let Flight { qos, packet_id, step, .. } = self.model.flight[at];
        match (step, qos) {
            (Step::Published, 1) => {
                if refuse {
                    self.client.ack_code(PUBACK, packet_id, 0x83);
                } else {
                    self.client.ack(PUBACK, packet_id);
                }
                self.model.flight.remove(at);
            }
            (Step::Published, _) if refuse => {
                self.client.ack_code(PUBREC, packet_id, 0x83);
                self.model.flight.remove(at);
            }
            (Step::Published, _) => {
                self.client.ack(PUBREC, packet_id);
                self.model.flight[at].step = Step::Received;
            }
            (Step::Released, _) => {
                self.client.ack(PUBCOMP, packet_id);
                self.model.flight.remove(at);
            }
            (Step::Again | Step::Received | Step::ReleaseAgain, _) => {}
        }
    }

    /// Cuts the connection after everything that was sent has been acted upon.
    fn cut(&mut self) {
        self.settle();
        let next = Client::open(self.broker, self.version);
        std::mem::replace(&mut self.client, next).cut();
        for _ in 0..self.random.below(3) {
            self.publish();
        }
        self.connect();
    }

    /// Takes the session over from a live connection.
    fn take_over(&mut self) {
        self.settle();
        let next = Client::open(self.broker, self.version);
        let mut old = std::mem::replace(&mut self.client, next);
        self.connect();
        old.expect_refused(&[0x8E]);
    }

    fn finish(mut self) {
        while !(self.model.flight.is_empty() && self.model.queue.is_empty()) {
            self.settle();
            self.advance();
        }
        self.client.expect_quiet();
        for given in &self.model.given {
            assert!(given.is_sorted_by(|a, b| a < b), "order, and each once: {given:?}");
        }
        let id = std::mem::take(&mut self.id);
        drop(Client::accepted(self.broker, &Connect::new(self.version, id)));
    }
}

fn walk(broker: &Broker, version: Version, seed: u64) {
    let (id, topic) = (name("c"), name("t"));
    let mut client = Client::accepted(broker, &Connect::new(version, &id).persistent());
    client.subscribe(&topic, 2);
    client.cut();
    let model =
        Model { queue: VecDeque::new(), flight: Vec::new(), maximum: 0, given: [Vec::new(), Vec::new()] };
    let publisher = Client::fresh(broker, version);
    let client = Client::open(broker, version);
    let random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut run = Run { broker, version, id, topic, publisher, client, model, random, published: 0 };
    run.connect();
    for _ in 0..150 {
        match run.random.below(20) {
            0..=5 => run.publish(),
            6..=14 => run.advance(),
            15..=17 => run.settle(),
            18 => run.cut(),
            _ => run.take_over(),
        }
    }
    run.finish();
}

#[test]
fn mqtt_4_4_0_1_mqtt_4_9_0_2_mqtt311_4_4_0_1_random_walks_agree_with_the_model_of_a_session() {
    each_version(|b, v| {
        for seed in 1..=8 {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| walk(b, v, seed)));
            if let Err(why) = outcome {
                eprintln!("{v:?}, seed {seed}");
                std::panic::resume_unwind(why);
            }
        }
    });
}

/// Publishes numbers upwards at this QoS over connections that are cut at random, sending again what was not
/// acknowledged, as a client must. Returns what the witness got.
fn publish_through_cuts(broker: &Broker, version: Version, qos: u8, seed: u64) -> Vec<u64> {
    const MESSAGES: u64 = 40;
    let topic = name("t");
    let mut witness = Client::fresh(broker, version);
    witness.subscribe(&topic, 2);
    let connect = Connect::new(version, name("c")).persistent();
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut client = Client::accepted(broker, &connect);
    for number in 0..MESSAGES {
        let id = 1 + (number % 7) as u16;
        let publish = Publish::new(&*topic, number.to_string()).qos(qos, id);
        // The packets of the exchange in turn; each may be lost with the connection, before or after it was read.
        let mut resend = false;
        let (mut step, last) = (0, if qos == 1 { 1 } else { 2 });
        while step < last {
            if step == 0 {
                client.send_publish(&if resend { publish.clone().dup() } else { publish.clone() });
            } else {
                client.ack(PUBREL, id);
            }
            let cut = random.below(4);
            if cut == 0 {
                // The packet may or may not have been read.
                client.reset();
            } else {
                let first = [[PUBACK, 0], [PUBREC, PUBCOMP]][usize::from(qos) - 1][step];
                client.expect_ack(first, id);
                step += 1;
                resend = false;
                if cut > 1 {
                    continue;
                }
                client.cut();
            }
            client = Client::accepted(broker, &connect);
            // From its own state a client knows what to send again.
            resend = step == 0;
        }
    }
    let mut got = Vec::new();
    while got.last() != Some(&(MESSAGES - 1)) {
        got.push(witness.expect_publish_acked().text().parse().expect("a number"));
    }
    while let Event::Packet(Packet::Publish(publish)) = witness.next(Duration::from_millis(60)) {
        witness.finish(&publish);
        got.push(publish.text().parse().expect("a number"));
    }
    got
}

#[test]
fn mqtt_4_3_3_10_mqtt311_4_3_3_2_qos_2_upwards_is_exactly_once_over_cut_connections() {
    each_version(|b, v| {
        for seed in 1..=4 {
            let got = publish_through_cuts(b, v, 2, seed);
            assert_eq!(got, (0..40).collect::<Vec<_>>(), "{v:?}, seed {seed}");
        }
    });
}

#[test]
fn mqtt_4_3_2_4_mqtt311_4_3_2_2_qos_1_upwards_is_at_least_once_over_cut_connections() {
    each_version(|b, v| {
        for seed in 1..=4 {
            let mut got = publish_through_cuts(b, v, 1, seed);
            got.dedup();
            assert_eq!(got, (0..40).collect::<Vec<_>>(), "{v:?}, seed {seed}");
        }
    });
}
