//! A batch beside the same messages one by one: what its receiver is sent and keeps must not differ
//! by a byte.

use proptest::prelude::*;

use super::super::testing::*;
use super::super::*;
use crate::wire::Version;

/// A receiver, in whatever state it may be when a batch comes.
#[derive(Clone, Debug)]
struct Receiver {
    version: Version,
    maxima: Maxima,
    send_maximum: u16,
    queue: u32,
    memory: u64,
    room: usize,
    /// Messages that it has not acknowledged, or that wait.
    before: usize,
    grant: (Qos, Retain, Vec<u32>),
}

impl Receiver {
    fn bench(&self) -> Bench {
        let limits = Limits {
            send_maximum: self.send_maximum,
            queue_messages_max: self.queue,
            send_buffer_bytes_max: 4_000,
            ..Limits::default()
        };
        let mut bench = Bench::with(limits, self.memory);
        bench.connect(self.version, self.maxima);
        for _ in 0..self.before {
            let _ = bench.deliver(message("before", b"it"), at(Qos::AtLeastOnce));
        }
        bench.bytes();
        bench.send_room = self.room;
        bench
    }
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![2 => Just(Version::V5), 1 => Just(Version::V311), 1 => Just(Version::V31)]
}

fn qos() -> impl Strategy<Value = Qos> {
    prop_oneof![Just(Qos::AtMostOnce), Just(Qos::AtLeastOnce), Just(Qos::ExactlyOnce)]
}

fn receiver() -> impl Strategy<Value = Receiver> {
    let packet_size = prop_oneof![4 => Just(u32::MAX), 1 => 10..60u32];
    let topic_alias = prop_oneof![4 => Just(0u16), 1 => Just(3u16)];
    let maxima = (1..12u16, packet_size, topic_alias)
        .prop_map(|(receive, packet_size, topic_alias)| Maxima { receive, packet_size, topic_alias });
    let retain =
        prop_oneof![4 => Just(Retain::Clear), 1 => Just(Retain::AsPublished), 1 => Just(Retain::Set)];
    let identifiers = prop_oneof![4 => Just(vec![]), 1 => Just(vec![7]), 1 => Just(vec![7, 200])];
    let qos = prop_oneof![2 => Just(Qos::ExactlyOnce), 1 => qos()];
    (
        version(),
        maxima,
        1..12u16,
        0..6u32,
        prop_oneof![3 => Just(1u64 << 40), 1 => 200..3_000u64],
        prop_oneof![1 => 0..300usize, 1 => Just(3_999usize), 2 => Just(4_000usize)],
        prop_oneof![3 => Just(0usize), 1 => 0..8usize],
        (qos, retain, identifiers),
    )
        .prop_map(|(version, maxima, send_maximum, queue, memory, room, before, grant)| Receiver {
            version,
            maxima,
            send_maximum,
            queue,
            memory,
            room,
            before,
            grant,
        })
}

/// The payloads that are kept for a receiver, in flight and queued.
fn kept(bench: &Bench) -> Vec<Vec<u8>> {
    let Some(egress) = bench.session.egress.as_ref() else { return Vec::new() };
    let in_flight = egress.flight.publishing().filter_map(|id| egress.flight.get(id)?.kept.as_ref());
    in_flight.chain(egress.queue.iter()).map(|kept| kept.message.payload().to_vec()).collect()
}

/// One message by itself, which takes its room.
fn deliver_at(
    bench: &mut Bench,
    batch: &Batch<'_>,
    at: usize,
    shared: &[Message],
    grant: Grant<'_>,
) -> Delivered {
    let before = bench.outbox.len();
    let delivered = bench.deliver_at(batch, at, shared, grant);
    bench.send_room = bench.send_room.saturating_sub(bench.outbox.len() - before);
    delivered
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_delivers_what_its_messages_deliver_one_by_one(
        receivers in proptest::collection::vec(receiver(), 1..4),
        version in version(),
        qos in qos(),
        dup in any::<bool>(),
        lens in proptest::collection::vec(prop_oneof![4 => Just(10usize), 1 => 0..300usize], 2..10),
    ) {
        let payloads = lens.iter().zip(1..).map(|(&len, n)| vec![n; len]).collect();
        let packets = Packets::new(version, qos, "a/topic", dup, payloads);
        let batch = packets.batch();
        let mut shared = Vec::new();
        for receiver in &receivers {
            let (granted, retain, identifiers) = &receiver.grant;
            let grant = Grant { qos: qos.min(*granted), retain: *retain, identifiers, share: Share::No };
            let (mut together, mut apart) = (receiver.bench(), receiver.bench());
            let several = (receivers.len() > 1).then_some(&mut shared);
            let at_once = together.deliver_front(&batch, several, &grant);
            let mut outcomes = vec![Delivered::Sent; at_once];
            outcomes.extend((at_once..batch.count()).map(|at| deliver_at(&mut together, &batch, at, &shared, grant)));
            let one_by_one = (0..batch.count()).map(|at| deliver_at(&mut apart, &batch, at, &[], grant));
            prop_assert_eq!(outcomes, one_by_one.collect::<Vec<_>>());
            prop_assert_eq!(together.bytes(), apart.bytes());
            prop_assert_eq!(kept(&together), kept(&apart));
            prop_assert_eq!(together.charged(), apart.charged());
            prop_assert_eq!(together.session.packet_id_next, apart.session.packet_id_next);
            prop_assert_eq!(
                together.link.as_ref().map(Link::send_quota),
                apart.link.as_ref().map(Link::send_quota)
            );
        }
    }
}
