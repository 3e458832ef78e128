//! The session beside its model, step by step: every decision, every packet, every byte that is charged.

use std::rc::Rc;

use proptest::prelude::*;

use super::super::model::{Delivery, Env, Model, PROPERTIES};
use super::super::testing::*;
use super::super::*;
use crate::clock::NEVER;
use crate::limits::QueueFull;
use crate::wire::{Reason, Version};

/// No alias pays for the first one.
const TOPICS: [&str; 4] = ["t", "four", "a/longer/topic", "another/topic"];

#[derive(Clone, Debug)]
enum Step {
    Deliver {
        qos: Qos,
        topic: usize,
        len: usize,
        expires_in: Option<Millis>,
        retain: Retain,
        identifiers: Vec<u32>,
        share: Share,
        room: usize,
    },
    /// Messages that a publisher sent in one go.
    Batch {
        version: Version,
        qos: Qos,
        topic: usize,
        /// Bytes of each payload.
        lens: Vec<usize>,
        dup: bool,
        identifiers: Vec<u32>,
        /// The subscription's.
        qos_max: Qos,
        /// Whether others receive it too.
        several: bool,
        room: usize,
    },
    Pump {
        room: usize,
    },
    Pubacks(Vec<Id>),
    Pubrec(Id, Reason),
    Pubcomps(Vec<Id>),
    Publish {
        qos: Qos,
        packet_id: u16,
        answer: Answer,
    },
    Pubrel(u16),
    Wait(Millis),
    DeleteExpired,
    Connect(Version, Maxima),
    ConnectionLost,
    TakeUnsentShared,
    EndSession,
}

/// A Packet Identifier that a client may name.
#[derive(Copy, Clone, Debug)]
enum Id {
    /// One of those in flight, if there are any.
    InFlight(usize),
    Any(u16),
}

/// How a client's PUBLISH that is new is answered at once.
#[derive(Copy, Clone, Debug, PartialEq)]
enum Answer {
    NotYet,
    Success,
    Error,
}

fn qos() -> impl Strategy<Value = Qos> {
    prop_oneof![Just(Qos::AtMostOnce), Just(Qos::AtLeastOnce), Just(Qos::ExactlyOnce)]
}

fn id() -> impl Strategy<Value = Id> {
    prop_oneof![9 => any::<usize>().prop_map(Id::InFlight), 1 => (0..20u16).prop_map(Id::Any)]
}

/// Acknowledgements that come in one go.
fn ids() -> impl Strategy<Value = Vec<Id>> {
    proptest::collection::vec(id(), 1..4)
}

/// Room for nothing, a few, or all; 4,000 is the limit, at which nothing else waits.
fn room() -> impl Strategy<Value = usize> {
    prop_oneof![1 => 0..60usize, 2 => 60..3_999usize, 4 => Just(4_000usize)]
}

fn identifiers() -> impl Strategy<Value = Vec<u32>> {
    prop_oneof![Just(vec![]), Just(vec![7]), Just(vec![200]), Just(vec![7, 200, 7])]
}

fn share() -> impl Strategy<Value = Share> {
    let member = Key { index: 1, generation: 2 };
    let shared =
        prop_oneof![Just(Share::Now(member)), Just(Share::Queued(member)), Just(Share::Last(member))];
    prop_oneof![Just(Share::No), shared]
}

fn maxima() -> impl Strategy<Value = Maxima> {
    let packet_size = prop_oneof![2 => Just(u32::MAX), 2 => 20..400u32, 1 => 1..20u32];
    (1..6u16, packet_size, 0..4u16).prop_map(|(receive, packet_size, topic_alias)| Maxima {
        receive,
        packet_size,
        topic_alias,
    })
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![3 => Just(Version::V5), 1 => Just(Version::V311), 1 => Just(Version::V31)]
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![4 => 0..300usize, 1 => 1_000..1_050usize, 1 => Just(5_000usize)];
    let retain = prop_oneof![Just(Retain::Clear), Just(Retain::Set), Just(Retain::AsPublished)];
    let expires_in = proptest::option::of(0..5_000u64);
    let deliver = (qos(), 0..TOPICS.len(), len, expires_in, retain, identifiers(), share(), room()).prop_map(
        |(qos, topic, len, expires_in, retain, identifiers, share, room)| Step::Deliver {
            qos,
            topic,
            len,
            expires_in,
            retain,
            identifiers,
            share,
            room,
        },
    );
    let of_batch = prop_oneof![4 => Just(10usize), 1 => 0..300usize];
    let batch =
        (
            version(),
            qos(),
            0..TOPICS.len(),
            proptest::collection::vec(of_batch, 2..8),
            any::<bool>(),
            prop_oneof![4 => Just(vec![]), 1 => Just(vec![7])],
            prop_oneof![4 => Just(Qos::ExactlyOnce), 1 => qos()],
            any::<bool>(),
            room(),
        )
            .prop_map(|(version, qos, topic, lens, dup, identifiers, qos_max, several, room)| {
                Step::Batch { version, qos, topic, lens, dup, identifiers, qos_max, several, room }
            });
    let reason = prop_oneof![4 => Just(Reason::SUCCESS), 1 => Just(Reason::QUOTA_EXCEEDED)];
    let answer = prop_oneof![Just(Answer::NotYet), Just(Answer::Success), Just(Answer::Error)];
    prop_oneof![
        16 => deliver,
        6 => batch,
        8 => room().prop_map(|room| Step::Pump { room }),
        5 => ids().prop_map(Step::Pubacks),
        5 => (id(), reason).prop_map(|(id, reason)| Step::Pubrec(id, reason)),
        4 => ids().prop_map(Step::Pubcomps),
        4 => (qos(), 1..6u16, answer).prop_map(|(qos, packet_id, answer)| Step::Publish { qos, packet_id, answer }),
        2 => (1..7u16).prop_map(Step::Pubrel),
        2 => (1..2_000u64).prop_map(Step::Wait),
        1 => Just(Step::DeleteExpired),
        3 => (version(), maxima()).prop_map(|(version, maxima)| Step::Connect(version, maxima)),
        1 => Just(Step::ConnectionLost),
        1 => Just(Step::TakeUnsentShared),
        1 => Just(Step::EndSession),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    let policy =
        prop_oneof![Just(QueueFull::DropNewest), Just(QueueFull::DropOldest), Just(QueueFull::Disconnect)];
    let queue_bytes_max = prop_oneof![Just(1u64 << 30), 300..4_000u64];
    (policy, 0..6u32, queue_bytes_max, 1..7u16, 1..5u16, 0..4u16).prop_map(
        |(
            queue_full,
            queue_messages_max,
            queue_bytes_max,
            send_maximum,
            receive_maximum,
            topic_alias_max,
        )| {
            Limits {
                queue_full,
                queue_messages_max,
                queue_bytes_max,
                send_maximum,
                receive_maximum,
                topic_alias_max,
                send_buffer_bytes_max: 4_000,
                ..Limits::default()
            }
        },
    )
}

struct Pair {
    bench: Bench,
    model: Model,
    env: Env,
}

impl Pair {
    fn new(limits: Limits, memory: u64) -> Pair {
        let bench = Bench::with(limits, memory);
        let env = Env { now: bench.now, limits, memory, room: 0 };
        Pair { bench, model: Model::default(), env }
    }

    fn packet_id(&self, id: Id) -> u16 {
        let in_flight = self.model.in_flight_ids();
        match id {
            Id::InFlight(index) if !in_flight.is_empty() => in_flight[index % in_flight.len()],
            Id::InFlight(_) => 0,
            Id::Any(packet_id) => packet_id,
        }
    }

    fn set_room(&mut self, room: usize) {
        self.bench.send_room = room;
        self.env.room = room;
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Deliver { qos, topic, len, expires_in, retain, identifiers, share, room } => {
                let delivery = Rc::new(Delivery {
                    topic: TOPICS[topic],
                    properties: &PROPERTIES,
                    payload: (0..len).map(|i| (i + len) as u8).collect(),
                    expires_at: expires_in.map_or(NEVER, |millis| self.env.now + millis),
                    qos,
                    retain,
                    identifiers,
                    share,
                });
                self.deliver(delivery, room);
            }
            batch @ Step::Batch { .. } => self.deliver_batch(batch),
            Step::Wait(millis) => {
                self.env.now += millis;
                self.bench.now += millis;
            }
            Step::DeleteExpired => {
                self.bench.act(|session, _, cx| session.delete_expired(cx));
                self.model.delete_expired(&self.env);
            }
            Step::Connect(version, maxima) => {
                self.bench.connect(version, maxima);
                self.model.connect(version, maxima);
            }
            Step::ConnectionLost => self.lose_connection(),
            Step::TakeUnsentShared => {
                self.lose_connection();
                let taken = self.moved(|session, cx, out| session.take_unsent_shared(cx, |_| true, out));
                assert_eq!(taken, forms(self.model.take_unsent_shared()));
            }
            Step::EndSession => self.end_session(),
            on_connection if self.model.connection.is_some() => self.take_connected(on_connection),
            _without_connection => {}
        }
    }

    fn take_connected(&mut self, step: Step) {
        match step {
            Step::Pump { room } => {
                self.set_room(room);
                let pumped = self.bench.pump();
                self.model.written = self.bench.sent().into();
                assert_eq!(pumped, self.model.pump(&mut self.env));
            }
            Step::Pubacks(ids) => {
                let ids: Vec<u16> = ids.into_iter().map(|id| self.packet_id(id)).collect();
                let acked = self
                    .bench
                    .act(|session, link, cx| session.handle_pubacks(link.unwrap(), ids.iter().copied(), cx));
                assert_eq!(acked, any_of(&ids, |id| self.model.handle_puback(id)));
            }
            Step::Pubrec(id, reason) => {
                let packet_id = self.packet_id(id);
                let expected = self.model.handle_pubrec(packet_id, reason);
                assert_eq!(self.bench.pubrec(packet_id, reason), expected);
            }
            Step::Pubcomps(ids) => {
                let ids: Vec<u16> = ids.into_iter().map(|id| self.packet_id(id)).collect();
                let acked = self
                    .bench
                    .act(|session, link, cx| session.handle_pubcomps(link.unwrap(), ids.iter().copied(), cx));
                assert_eq!(acked, any_of(&ids, |id| self.model.handle_pubcomp(id)));
            }
            Step::Pubrel(packet_id) => {
                assert_eq!(self.bench.pubrel(packet_id), self.model.handle_pubrel(packet_id));
            }
            Step::Publish { qos, packet_id, answer } => self.publish(qos, packet_id, answer),
            other => unreachable!("{other:?}"),
        }
    }

    fn deliver(&mut self, delivery: Rc<Delivery>, room: usize) {
        self.set_room(room);
        let Delivery { qos, retain, share, ref identifiers, .. } = *delivery;
        let delivered = self.bench.deliver(delivery.view(), Grant { qos, retain, identifiers, share });
        self.model.written = self.bench.sent().into();
        assert_eq!(delivered, self.model.deliver(delivery, &mut self.env));
        if delivered == Delivered::Disconnect {
            self.end_session();
        }
    }

    /// As the shard does it: as many as go at once, the others one by one. The model knows only the latter.
    fn deliver_batch(&mut self, step: Step) {
        let Step::Batch { version, qos, topic, lens, dup, identifiers, qos_max, several, room } = step else {
            unreachable!("{step:?}")
        };
        self.set_room(room);
        let payloads = lens.iter().zip(1..).map(|(&len, n)| vec![n; len]).collect();
        let packets = Packets::new(version, qos, TOPICS[topic], dup, payloads);
        let batch = packets.batch();
        let grant = Grant {
            qos: qos.min(qos_max),
            retain: Retain::Clear,
            identifiers: &identifiers,
            share: Share::No,
        };
        let mut shared = Vec::new();
        let at_once = self.bench.deliver_front(&batch, several.then_some(&mut shared), &grant);
        let room_left = self.bench.send_room;
        self.model.written = self.bench.sent().into();
        for (at, payload) in packets.payloads.iter().enumerate() {
            let delivery = Rc::new(Delivery {
                topic: packets.topic,
                properties: &[],
                payload: payload.clone(),
                expires_at: NEVER,
                qos: grant.qos,
                retain: grant.retain,
                identifiers: identifiers.clone(),
                share: Share::No,
            });
            let delivered = if at < at_once {
                Delivered::Sent
            } else {
                self.bench.send_room = self.env.room;
                let delivered = self.bench.deliver_at(&batch, at, &shared, grant);
                self.model.written = self.bench.sent().into();
                delivered
            };
            assert_eq!(delivered, self.model.deliver(delivery, &mut self.env));
            if at + 1 == at_once {
                assert_eq!(room_left, self.env.room);
            }
            if delivered == Delivered::Disconnect {
                return self.end_session();
            }
        }
    }

    fn publish(&mut self, qos: Qos, packet_id: u16, answer: Answer) {
        let ingress = self.bench.incoming(qos, packet_id);
        assert_eq!(ingress, self.model.handle_publish(qos, packet_id, &self.env));
        match (ingress, answer) {
            (Ingress::ReceiveMaximumExceeded, _) => self.lose_connection(),
            (Ingress::Route, Answer::Success) => {
                self.model.acknowledge_publish(qos);
                self.bench.act(|_, link, _| Session::acknowledge_publish(link.unwrap(), qos));
            }
            (Ingress::Route, Answer::Error) => {
                self.model.refuse_publish(qos, packet_id);
                self.bench.act(|session, link, _| session.refuse_publish(link.unwrap(), qos, packet_id));
            }
            (Ingress::Route, Answer::NotYet) | (Ingress::Repeat, _) => {}
        }
    }

    fn lose_connection(&mut self) {
        self.bench.disconnect();
        self.model.connection = None;
    }

    /// Everything is given back, and a new session begins.
    fn end_session(&mut self) {
        self.lose_connection();
        let moved = self.moved(Session::take_unacked_shared);
        assert_eq!(moved, forms(self.model.take_unacked_shared()));
        self.bench.session.release(&mut self.bench.budget);
        assert_eq!(self.bench.charged(), 0);
        assert_eq!((self.bench.session.inflight_len(), self.bench.session.queue_len()), (0, 0));
        self.bench.session = Session::new();
        let drops = self.model.drops;
        self.model = Model::default();
        self.model.drops = drops;
    }

    fn moved(&mut self, take: fn(&mut Session, &mut Cx<'_>, &mut Vec<Orphan>)) -> Vec<(Key, Vec<u8>, Qos)> {
        let mut moved = Vec::new();
        self.bench.act(|session, _, cx| take(session, cx, &mut moved));
        moved.into_iter().map(|(key, message, qos)| (key, message.payload().to_vec(), qos)).collect()
    }

    fn compare(&mut self) {
        let Pair { bench, model, env } = self;
        assert_eq!(bench.sent(), [], "written without a reason");
        assert!(model.written.is_empty(), "{:?}", model.written);
        assert_eq!(bench.session.inflight_len(), model.in_flight());
        assert_eq!(bench.session.queue_len(), model.queue_len());
        assert_eq!(bench.session.queue_bytes(), model.queue_bytes());
        assert_eq!(bench.session.received_len(), model.received_len());
        assert_eq!(bench.charged(), model.charged());
        assert_eq!(bench.drops, model.drops);
        assert!(bench.session.expires_at_min() <= model.expires_at_min());
        assert_eq!(bench.session.egress.is_some(), model.in_flight() + model.queue_len() > 0);
        if let Some(link) = &bench.link {
            assert_eq!(usize::from(link.send_quota()), model.send_quota(env));
            assert_eq!(usize::from(link.receive_used()), model.receive_used());
        }
    }
}

fn forms(deliveries: Vec<Rc<Delivery>>) -> Vec<(Key, Vec<u8>, Qos)> {
    deliveries.iter().map(|d| (d.share.subscription().unwrap(), d.payload.clone(), d.qos)).collect()
}

/// What one after the other is when it is asked of all.
fn any_of(ids: &[u16], mut handle: impl FnMut(u16) -> Acked) -> Acked {
    let each: Vec<Acked> = ids.iter().map(|&id| handle(id)).collect();
    if each.contains(&Acked::Completed) { Acked::Completed } else { Acked::Ignored }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_session_does_what_its_model_does(
        limits in limits(),
        memory in prop_oneof![3 => Just(1u64 << 40), 1 => 1_000..8_000u64],
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        let mut pair = Pair::new(limits, memory);
        pair.take(Step::Connect(Version::V5, Maxima { receive: 3, ..Maxima::NONE }));
        for step in steps {
            pair.take(step);
            pair.compare();
        }
        pair.end_session();
    }
}
