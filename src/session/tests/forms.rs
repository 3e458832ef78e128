//! What a delivery looks like: flags, identifiers, aliases, copies of one encoding.

use super::super::testing::*;
use super::super::*;
use super::*;
use crate::memory::MessageView;
use crate::wire::Version;
use Qos::{AtLeastOnce, AtMostOnce, ExactlyOnce};

#[test]
fn mqtt_3_3_2_7_and_11_outgoing_aliases_hold_for_one_connection_and_stay_within_the_maximum() {
    let mut bench = Bench::new();
    let takes = |topic_alias| Maxima { topic_alias, ..Maxima::NONE };
    bench.connect(Version::V5, takes(2));
    for (topic, expected) in [
        ("first", ("first", 1)),
        ("first", ("", 1)),
        ("abc", ("abc", 0)), // An alias would not make it smaller.
        ("second", ("second", 2)),
        ("third", ("third", 0)),
        ("second", ("", 2)),
        ("first", ("", 1)),
    ] {
        assert_eq!(bench.deliver(message(topic, b"x"), at(AtLeastOnce)), SENT);
        let packets = bench.sent();
        assert_eq!((&*packets[0].publish().topic, packets[0].publish().alias), expected);
    }
    // Resends name their topic, and so does the first PUBLISH after them.
    bench.connect(Version::V5, takes(2));
    assert_eq!(bench.deliver(message("first", b"y"), at(AtLeastOnce)), QUEUED);
    let _ = bench.pump();
    let packets = bench.sent();
    assert_eq!(packets.len(), 8);
    assert!(packets[..7].iter().all(|p| p.publish().alias == 0 && !p.publish().topic.is_empty()));
    assert_eq!((&*packets[7].publish().topic, packets[7].publish().alias), ("first", 1));
    // Neither side may be made to use more than it allows.
    for (client, server) in [(0, 10), (10, 0)] {
        bench.limits.topic_alias_max = server;
        bench.connect(Version::V5, takes(client));
        let _ = bench.deliver(message("first", b"z"), at(AtMostOnce));
        assert_eq!(bench.sent()[0].publish().alias, 0);
    }
}

#[test]
fn mqtt_3_3_2_7_an_alias_counts_only_when_its_publish_was_written() {
    let mut bench = Bench::new();
    bench.connect(Version::V5, Maxima { topic_alias: 9, ..Maxima::NONE });
    bench.send_room = 3;
    assert_eq!(bench.deliver(message("topic", b""), at(AtMostOnce)), dropped(DropReason::SendBuffer));
    assert_eq!(bench.deliver(message("topic", b""), at(AtLeastOnce)), QUEUED);
    bench.send_room = 1000;
    assert_eq!(bench.deliver(message("topic", b""), at(AtMostOnce)), SENT);
    let _ = bench.pump();
    let packets = bench.sent();
    assert_eq!((&*packets[0].publish().topic, packets[0].publish().alias), ("topic", 1));
    assert_eq!((&*packets[1].publish().topic, packets[1].publish().alias), ("", 1));
}

#[test]
fn an_alias_is_left_out_where_it_would_make_the_packet_too_large_and_used_where_it_makes_it_fit() {
    let size = |topic: &str, alias| {
        let publish = Publish { topic: topic.into(), alias, ..Publish::default() };
        Sent::Publish(publish).encode(Version::V5).len() as u32
    };
    let mut bench = Bench::new();
    bench.connect(Version::V5, Maxima { topic_alias: 9, packet_size: size("some/topic", 0), ..Maxima::NONE });
    assert_eq!(bench.deliver(message("some/topic", b""), at(AtMostOnce)), SENT);
    assert_eq!(bench.sent()[0].publish().alias, 0);
    bench.connect(Version::V5, Maxima { topic_alias: 9, packet_size: size("some/topic", 1), ..Maxima::NONE });
    assert_eq!(
        bench.deliver(message("some/topic", b"1234567"), at(AtMostOnce)),
        dropped(DropReason::PacketTooLarge)
    );
    assert_eq!(bench.deliver(message("some/topic", b""), at(AtMostOnce)), SENT);
    assert_eq!(bench.deliver(message("some/topic", b"1234567"), at(AtMostOnce)), SENT);
}

#[test]
fn mqtt_3_3_1_12_and_13_and_3_3_4_3_the_grant_decides_retain_and_identifiers() {
    let mut bench = Bench::new();
    let identifiers = [1, 127, 128, 268_435_455];
    let grant = Grant { retain: Retain::Set, identifiers: &identifiers, ..PLAIN };
    assert_eq!(bench.deliver(message("t", b""), grant), QUEUED);
    let one = Grant { identifiers: &identifiers[2..3], ..PLAIN };
    assert_eq!(bench.deliver(MessageView { retain: true, ..message("t", b"") }, one), QUEUED);
    for _ in 0..2 {
        bench.connect(Version::V5, Maxima::NONE);
        let _ = bench.pump();
        let packets = bench.sent();
        assert!(packets[0].publish().retain);
        assert_eq!(packets[0].publish().identifiers, identifiers);
        assert!(!packets[1].publish().retain);
        assert_eq!(packets[1].publish().identifiers, [128]);
    }
    // 3.x gets neither properties nor a place for them. // [U5-3.3.4-6]
    bench.connect(Version::V311, Maxima::NONE);
    let _ = bench.pump();
    assert!(bench.sent()[0].publish().identifiers.is_empty());
}

/// Receivers of all kinds, more forms than are kept; each gets what it would get alone.
#[test]
fn a_copied_form_is_what_its_receiver_would_get_alone() {
    let large = [9; 2000];
    let properties = [0x03, 0, 2, b'a', b'b'];
    let identifiers: Vec<Vec<u32>> = (0..12).map(|i| vec![200; i]).collect();
    let mut variants = Variants::new();
    for payload in [&b"small"[..], &large] {
        let view = MessageView { properties: &properties, ..message("a/topic", payload) };
        let mut fanout = Fanout::new(view, &mut variants);
        for round in 0..3u16 {
            for version in [Version::V5, Version::V31, Version::V311] {
                for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
                    for (i, identifiers) in identifiers.iter().enumerate() {
                        let retain = if i % 2 == 0 { Retain::Clear } else { Retain::Set };
                        let grant = Grant { qos, retain, identifiers, share: Share::No };
                        let topic_alias = if i == 5 { 4 } else { 0 };
                        let maxima = Maxima { topic_alias, ..Maxima::NONE };
                        let (mut in_crowd, mut alone) = (Bench::new(), Bench::new());
                        for bench in [&mut in_crowd, &mut alone] {
                            bench.session.packet_id_next = round * 1000 + 7;
                            bench.connect(version, maxima);
                        }
                        assert_eq!(in_crowd.deliver_to_one(&mut fanout, grant), SENT);
                        assert_eq!(alone.deliver(view, grant), SENT);
                        let bytes = in_crowd.bytes();
                        assert_eq!(bytes, alone.bytes());
                        if qos != AtMostOnce {
                            assert_eq!(
                                in_crowd.puback(round * 1000 + 7) == Acked::Completed,
                                qos == AtLeastOnce
                            );
                        }
                    }
                }
            }
        }
    }
}

/// Whatever the publisher's packet was like, a delivery that copies it is the one that would have been encoded.
#[test]
fn mqtt_3_3_1_3_a_copied_packet_is_what_would_have_been_encoded() {
    use crate::wire::PublishHead;
    let properties = [0x03, 0, 2, b'a', b'b'];
    let (mut copied, mut variants, mut others) = (0, Variants::new(), Variants::new());
    for (version, dup, retain) in [Version::V5, Version::V31, Version::V311]
        .into_iter()
        .flat_map(|version| [false, true].map(|dup| (version, dup)))
        .flat_map(|(version, dup)| [false, true].map(|retain| (version, dup, retain)))
    {
        for (qos, len, properties) in [AtMostOnce, AtLeastOnce, ExactlyOnce]
            .into_iter()
            .flat_map(|qos| [0, 1, 100, 200, 1023].map(|len| (qos, len)))
            .flat_map(|(qos, len)| [&[][..], &properties].map(|properties| (qos, len, properties)))
        {
            let payload = vec![7; len];
            let properties = if version == Version::V5 { properties } else { &[] };
            let view = MessageView { properties, qos, retain, ..message("a/topic", &payload) };
            let head = PublishHead {
                version,
                dup: dup && qos != AtMostOnce,
                qos,
                retain,
                packet_id: 777,
                topic: view.topic,
                topic_alias: 0,
                expiry_s: None,
                identifiers: &[],
                properties,
                payload_len: len,
            };
            let mut packet = Vec::new();
            head.encode(&mut packet);
            packet.extend_from_slice(&payload);
            let packet_id_at = 1 + if packet[1] < 128 { 1 } else { 2 } + 2 + view.topic.len();
            let verbatim = Some(Verbatim { packet: &packet, version, packet_id_at });
            let mut fanout = Fanout::of_packet(view, verbatim, &mut variants);
            let mut plain = Fanout::new(view, &mut others);
            for (receiver, granted, set) in [Version::V5, Version::V31, Version::V311]
                .into_iter()
                .flat_map(|version| [AtMostOnce, AtLeastOnce, ExactlyOnce].map(|granted| (version, granted)))
                .flat_map(|(version, granted)| {
                    [Retain::Clear, Retain::Set, Retain::AsPublished]
                        .map(|set| (version, granted.min(qos), set))
                })
            {
                for (identifiers, topic_alias) in [(&[][..], 0), (&[5], 0), (&[], 3)] {
                    let grant = Grant { qos: granted, retain: set, identifiers, share: Share::No };
                    let (mut one, mut other) = (Bench::new(), Bench::new());
                    for bench in [&mut one, &mut other] {
                        bench.connect(receiver, Maxima { topic_alias, ..Maxima::NONE });
                    }
                    assert_eq!(one.deliver_to_one(&mut fanout, grant), SENT);
                    assert_eq!(other.deliver_to_one(&mut plain, grant), SENT);
                    copied += usize::from(fanout.verbatim(one.link.as_ref().unwrap(), &grant).is_some());
                    let bytes = one.bytes();
                    assert_eq!(bytes, other.bytes(), "{version:?} to {receiver:?}, {grant:?}");
                }
            }
        }
    }
    assert!(copied > 500, "{copied} deliveries were copies");
}

#[test]
fn a_batch_is_copied_once_for_all_its_receivers() {
    let texts = ["one", "three", "five"];
    let payloads = texts.map(|text| text.as_bytes().to_vec()).to_vec();
    let packets = Packets::new(Version::V5, AtLeastOnce, "topic", false, payloads);
    let batch = packets.batch();
    let mut benches: Vec<_> = (0..3).map(|_| Bench::new().connected()).collect();
    let mut shared = Vec::new();
    // The first one has no room for the last: that is kept by itself, from what is shared.
    benches[0].send_room = packets.bytes.len() - 1;
    for bench in &mut benches {
        let at_once = bench.deliver_front(&batch, Some(&mut shared), &at(AtLeastOnce));
        for place in at_once..batch.count() {
            assert_eq!(bench.deliver_at(&batch, place, &shared, at(AtLeastOnce)), QUEUED);
        }
    }
    let shared: Vec<_> = shared.iter().map(|message| message.payload().as_ptr()).collect();
    assert_eq!(shared.len(), texts.len());
    for (bench, in_flight) in benches.iter().zip([2, 3, 3]) {
        let egress = bench.session.egress.as_ref().unwrap();
        let ids: Vec<_> = egress.flight.publishing().collect();
        let sent = ids.iter().map(|id| egress.flight.get(*id).unwrap().kept.as_ref().unwrap());
        let kept: Vec<_> = sent.chain(egress.queue.iter()).map(|kept| kept.message.payload()).collect();
        assert_eq!(ids.len(), in_flight);
        assert_eq!(kept, texts.map(str::as_bytes));
        assert_eq!(kept.iter().map(|payload| payload.as_ptr()).collect::<Vec<_>>(), shared);
    }
}

#[test]
fn a_message_is_copied_once_for_all_its_receivers() {
    let mut variants = Variants::new();
    let mut fanout = Fanout::new(message("topic", &[1; 5000]), &mut variants);
    let mut benches: Vec<_> = (0..5).map(|_| Bench::new().connected()).collect();
    for (bench, qos) in
        benches.iter_mut().zip([AtMostOnce, AtLeastOnce, ExactlyOnce, AtMostOnce, AtLeastOnce])
    {
        assert_eq!(bench.deliver_to_one(&mut fanout, at(qos)), SENT);
    }
    let payload = fanout.shared().payload().as_ptr();
    for bench in &mut benches {
        let batch = bench.outbox.take(Vec::new());
        let last = batch.pieces().last().map(<[u8]>::as_ptr);
        assert_eq!(last, Some(payload));
    }
    let kept = fanout.shared().clone();
    let mut fanout = Fanout::of_shared(&kept, &mut variants);
    assert_eq!(fanout.shared().payload().as_ptr(), payload);
}
