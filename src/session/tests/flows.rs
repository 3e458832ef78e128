//! Packet Identifiers, acknowledgements, quota, resending, shared subscriptions.

use super::super::testing::*;
use super::super::*;
use super::*;
use crate::wire::{Reason, Version};
use Qos::{AtLeastOnce, AtMostOnce, ExactlyOnce};

#[test]
fn an_idle_session_owns_nothing() {
    let mut bench = Bench::new().connected();
    assert_eq!(bench.deliver(message("t", b"1"), at(AtLeastOnce)), SENT);
    assert!(bench.session.egress.is_some());
    assert!(bench.charged() > 0);
    assert_eq!(bench.puback(1), Acked::Completed);
    assert!(bench.session.egress.is_none());
    assert_eq!(bench.charged(), 0);

    assert_eq!(bench.incoming(ExactlyOnce, 7), Ingress::Route);
    assert_eq!(bench.session.received_len(), 1);
    assert_eq!(bench.pubrel(7), Reason::SUCCESS);
    assert_eq!(format!("{:?}", bench.session.received), format!("{:?}", PacketIds::default()));
}

/// `stuck` deliveries are never acknowledged; all others are, the newest of a window first.
fn deliver_around(stuck: usize, window: usize, rounds: usize) {
    let limits = Limits { send_maximum: u16::MAX, ..Limits::default() };
    let mut bench = Bench::with(limits, 1 << 40).connected();
    let mut in_use = std::collections::HashSet::new();
    for _ in 0..stuck {
        assert_eq!(bench.deliver(message("t", b""), at(ExactlyOnce)), SENT);
    }
    in_use.extend(bench.sent_ids());
    assert_eq!(in_use.len(), stuck);
    for _ in 0..rounds {
        for _ in 0..window {
            assert_eq!(bench.deliver(message("t", b""), at(AtLeastOnce)), SENT);
        }
        let ids = bench.sent_ids();
        for &id in &ids {
            assert!(id != 0 && in_use.insert(id), "{id} is in use");
        }
        for id in ids.into_iter().rev() {
            in_use.remove(&id);
            assert_eq!(bench.puback(id), Acked::Completed);
        }
    }
    assert_eq!(bench.session.inflight_len(), stuck);
}

#[test]
fn mqtt_2_2_1_4_an_identifier_in_use_is_not_given_out_again() {
    deliver_around(0, 1, 70_000);
    deliver_around(1, 1, 140_000);
    deliver_around(3, 100, 1_400);
    deliver_around(1_000, 999, 100);
    deliver_around(20_000, 12_768, 8);
}

#[test]
fn u5_2_2_1_2_an_identifier_rests_before_it_is_used_again() {
    let mut bench = Bench::new().connected();
    for expected in 1..=50 {
        assert_eq!(bench.deliver(message("t", b""), at(AtLeastOnce)), SENT);
        assert_eq!(bench.sent_ids(), [expected]);
        assert_eq!(bench.puback(expected), Acked::Completed);
    }
}

#[test]
fn no_more_than_in_flight_max_are_in_flight() {
    let limits = Limits { send_maximum: u16::MAX, queue_messages_max: 1, ..Limits::default() };
    let mut bench = Bench::with(limits, 1 << 40).connected();
    for _ in 0..IN_FLIGHT_MAX {
        assert_eq!(bench.deliver(message("t", b""), at(AtLeastOnce)), SENT);
    }
    assert_eq!(bench.deliver(message("t", b""), at(AtLeastOnce)), QUEUED);
    assert_eq!(bench.deliver(message("t", b""), at(AtLeastOnce)), dropped(DropReason::QueueFull));
    assert_eq!(bench.pump(), Pumped { published: 0, payload_bytes: 0, released: 0, more: More::Quota });
    assert_eq!(bench.puback(17), Acked::Completed);
    assert_eq!(bench.pump(), Pumped { published: 1, payload_bytes: 0, released: 0, more: More::Nothing });
    let _ = bench.sent();
    for id in (1..=u16::MAX).rev() {
        let _ = bench.puback(id);
    }
    assert_eq!(bench.charged(), 0);
    assert!(bench.session.egress.is_none());
}

#[test]
fn mqtt_3_3_1_1_and_4_4_0_1_a_resumed_session_resends_in_order_under_the_same_identifiers() {
    let mut bench = Bench::new().connected();
    for (payload, qos) in [
        (b"a", AtLeastOnce),
        (b"b", ExactlyOnce),
        (b"c", ExactlyOnce),
        (b"d", AtLeastOnce),
        (b"e", ExactlyOnce),
    ] {
        assert_eq!(bench.deliver(message("t", payload), at(qos)), SENT);
    }
    assert!(bench.sent().iter().all(|packet| !packet.publish().dup)); // [MQTT-4.3.2-2] [MQTT-4.3.3-2]
    assert_eq!(bench.pubrec(5, Reason::SUCCESS), PubrecReply::PubRel);
    assert_eq!(bench.pubrec(2, Reason::SUCCESS), PubrecReply::PubRel);
    assert_eq!(bench.pump(), Pumped { published: 0, payload_bytes: 0, released: 0, more: More::Nothing });
    assert_eq!(bench.sent(), [], "nothing is resent within a connection");

    bench.disconnect();
    assert_eq!(bench.deliver(message("t", b"f"), at(AtLeastOnce)), QUEUED);
    for _ in 0..2 {
        bench.connect(Version::V5, Maxima::NONE);
        assert_eq!(bench.deliver(message("t", b"g"), at(AtMostOnce)), SENT, "QoS 0 waits for nothing");
        let _ = bench.sent();
        let _ = bench.pump();
        let packets = bench.sent();
        // Owed PUBRELs in the order of the PUBRECs. //
        assert_eq!(packets[..2], [Sent::PubRel(5), Sent::PubRel(2)]);
        let seen: Vec<_> =
            packets[2..5].iter().map(Sent::publish).map(|p| (p.dup, p.packet_id, &*p.payload)).collect();
        assert_eq!(seen, [(true, 1, &b"a"[..]), (true, 3, b"c"), (true, 4, b"d")]);
        // What was queued was sent once before in the second round, and is a resend then.
        assert_eq!(packets[5].publish().payload, b"f");
        assert_eq!(packets.len(), 6);
        assert_eq!(bench.pump().more, More::Nothing);
        assert_eq!(bench.sent(), []);
    }
}

#[test]
fn mqtt_3_3_1_3_dup_says_whether_this_client_may_have_it() {
    let mut bench = Bench::new();
    assert_eq!(bench.deliver(message("t", b""), at(AtLeastOnce)), QUEUED);
    bench.connect(Version::V311, Maxima::NONE);
    let _ = bench.pump();
    assert!(!bench.sent()[0].publish().dup);
    bench.connect(Version::V311, Maxima::NONE);
    let _ = bench.pump();
    assert!(bench.sent()[0].publish().dup);
}

#[test]
fn mqtt_4_3_3_6_no_publish_after_its_pubrel() {
    let mut bench = Bench::new().connected();
    assert_eq!(bench.deliver(message("t", b""), at(ExactlyOnce)), SENT);
    let _ = bench.sent();
    // The PUBREC comes when the PUBLISH was to be resent but was not yet.
    bench.connect(Version::V5, Maxima::NONE);
    assert_eq!(bench.pubrec(1, Reason::SUCCESS), PubrecReply::PubRel);
    assert_eq!(bench.pubrec(1, Reason::SUCCESS), PubrecReply::PubRel, "it may have been lost");
    assert_eq!(bench.pump(), Pumped { published: 0, payload_bytes: 0, released: 0, more: More::Nothing });
    bench.connect(Version::V5, Maxima::NONE);
    let _ = bench.pump();
    assert_eq!(bench.sent(), [Sent::PubRel(1)]);
    assert_eq!(bench.pubcomp(1), Acked::Completed);
    bench.connect(Version::V5, Maxima::NONE);
    assert_eq!(bench.pump(), Pumped { published: 0, payload_bytes: 0, released: 0, more: More::Nothing });
}

#[test]
fn a_repeated_pubrec_does_not_make_the_next_pubrel_forgotten() {
    let mut bench = Bench::new().connected();
    for id in 1..=3 {
        assert_eq!(bench.deliver(message("t", b""), at(ExactlyOnce)), SENT);
        assert_eq!(bench.pubrec(id, Reason::SUCCESS), PubrecReply::PubRel);
    }
    bench.connect(Version::V5, Maxima::NONE);
    assert_eq!(bench.pubrec(2, Reason::SUCCESS), PubrecReply::PubRel);
    let _ = bench.pump();
    assert_eq!(bench.sent(), [Sent::PubRel(1), Sent::PubRel(2), Sent::PubRel(3)]);
}

#[test]
fn mqtt_4_4_0_2_an_error_code_acknowledges() {
    let mut bench = Bench::new().connected();
    assert_eq!(bench.deliver(message("t", b""), at(ExactlyOnce)), SENT);
    assert_eq!(bench.pubrec(1, Reason::NOT_AUTHORIZED), PubrecReply::None);
    assert_eq!(bench.session.inflight_len(), 0);
    assert_eq!(bench.link.as_ref().unwrap().send_quota(), bench.limits.send_maximum);
    assert_eq!(bench.pubrec(1, Reason::NOT_AUTHORIZED), PubrecReply::None);
}

#[test]
fn u5_4_3_2_and_u5_4_3_3_acknowledgements_of_nothing() {
    let mut bench = Bench::new().connected();
    assert_eq!(bench.pubrec(9, Reason::SUCCESS), PubrecReply::PubRelNotFound);
    assert_eq!(bench.puback(9), Acked::Ignored);
    assert_eq!(bench.deliver(message("t", b"1"), at(AtLeastOnce)), SENT);
    assert_eq!(bench.deliver(message("t", b"2"), at(ExactlyOnce)), SENT);
    // Of the wrong kind, of no delivery, of an identifier that no packet has.
    for id in [0, 1, 9, 65_535] {
        assert_eq!(bench.pubrec(id, Reason::SUCCESS), PubrecReply::PubRelNotFound);
        assert_eq!(bench.pubcomp(id), Acked::Ignored);
    }
    for id in [0, 2, 9, 65_535] {
        assert_eq!(bench.puback(id), Acked::Ignored);
    }
    assert_eq!(bench.pubcomp(2), Acked::Ignored, "PUBREC has not come");
    assert_eq!(bench.session.inflight_len(), 2);
    assert_eq!(bench.link.as_ref().unwrap().send_quota(), bench.limits.send_maximum - 2);
}

#[test]
fn mqtt_4_9_0_2_no_publish_without_quota() {
    let mut bench = Bench::new();
    bench.connect(Version::V5, Maxima { receive: 2, ..Maxima::NONE });
    assert_eq!(bench.deliver(message("t", b"1"), at(AtLeastOnce)), SENT);
    assert_eq!(bench.deliver(message("t", b"2"), at(ExactlyOnce)), SENT);
    assert_eq!(bench.deliver(message("t", b"3"), at(AtLeastOnce)), QUEUED);
    assert_eq!(bench.deliver(message("t", b"4"), at(AtMostOnce)), SENT); // [U5-4.9-3]
    assert_eq!(bench.sent_ids(), [1, 2, 0]);
    assert_eq!(bench.pubrec(2, Reason::SUCCESS), PubrecReply::PubRel); // [MQTT-4.9.0-3]
    assert_eq!(bench.pump(), Pumped { published: 0, payload_bytes: 0, released: 0, more: More::Quota });
    assert_eq!(bench.pubcomp(2), Acked::Completed);
    assert_eq!(bench.deliver(message("t", b"5"), at(AtLeastOnce)), QUEUED, "quota, but another one's turn");
    assert_eq!(bench.pump(), Pumped { published: 1, payload_bytes: 1, released: 0, more: More::Quota });
    assert_eq!(bench.sent()[0].publish().payload, b"3");
}

#[test]
fn mqtt_3_3_4_9_the_lower_of_both_maxima_holds() {
    let limits = Limits { send_maximum: 3, ..Limits::default() };
    let mut bench = Bench::with(limits, 1 << 40).connected();
    for delivered in [SENT, SENT, SENT, QUEUED] {
        assert_eq!(bench.deliver(message("t", b""), at(ExactlyOnce)), delivered);
    }
    // Those that wait for PUBCOMP take no quota on the next connection, but their number is bounded all the same.
    for id in [1, 2, 3] {
        assert_eq!(bench.pubrec(id, Reason::SUCCESS), PubrecReply::PubRel);
    }
    bench.connect(Version::V5, Maxima::NONE);
    assert_eq!(bench.pump(), Pumped { published: 0, payload_bytes: 0, released: 3, more: More::Quota });
    assert_eq!(bench.pubcomp(1), Acked::Completed);
    assert_eq!(bench.pump(), Pumped { published: 1, payload_bytes: 0, released: 0, more: More::Nothing });
}

#[test]
fn mqtt_3_3_4_10_no_lack_of_quota_holds_back_a_pubrel() {
    let mut bench = Bench::new().connected();
    for _ in 0..4 {
        assert_eq!(bench.deliver(message("t", b""), at(ExactlyOnce)), SENT);
    }
    let _ = bench.sent();
    assert_eq!(bench.pubrec(4, Reason::SUCCESS), PubrecReply::PubRel);
    bench.connect(Version::V5, Maxima { receive: 1, ..Maxima::NONE });
    assert_eq!(bench.pump(), Pumped { published: 1, payload_bytes: 0, released: 1, more: More::Quota });
    let packets = bench.sent();
    assert_eq!(packets[0], Sent::PubRel(4));
    assert_eq!(packets[1].publish().packet_id, 1);
}

#[test]
fn u5_4_9_1_quota_never_rises_above_its_start() {
    let mut bench = Bench::new().connected();
    for qos in [ExactlyOnce, AtLeastOnce, AtLeastOnce] {
        assert_eq!(bench.deliver(message("t", b""), at(qos)), SENT);
    }
    assert_eq!(bench.pubrec(1, Reason::SUCCESS), PubrecReply::PubRel);
    bench.connect(Version::V5, Maxima { receive: 1, ..Maxima::NONE });
    let quota = |bench: &Bench| bench.link.as_ref().unwrap().send_quota();
    // Acknowledged before it was resent.
    assert_eq!(bench.puback(3), Acked::Completed);
    assert_eq!(quota(&bench), 1);
    let _ = bench.pump();
    assert_eq!(quota(&bench), 0);
    // A PUBREL took none and gives none.
    assert_eq!(bench.pubcomp(1), Acked::Completed);
    assert_eq!(quota(&bench), 0);
    assert_eq!(bench.puback(2), Acked::Completed);
    assert_eq!(quota(&bench), 1);
}

#[test]
fn mqtt_4_8_2_4_and_5_shared_messages_that_may_move_and_those_that_stay() {
    let share = Some(Key { index: 3, generation: 4 });
    let shared = |qos| Grant { share: Share::Last(Key { index: 3, generation: 4 }), ..at(qos) };
    let mut bench = Bench::new();
    bench.connect(Version::V5, Maxima { receive: 4, ..Maxima::NONE });
    for (payload, grant) in [
        (b"1", shared(AtLeastOnce)),
        (b"2", shared(ExactlyOnce)),
        (b"3", at(AtLeastOnce)),
        (b"4", shared(AtLeastOnce)),
        (b"5", shared(ExactlyOnce)),
        (b"6", at(AtLeastOnce)),
        (b"7", shared(AtLeastOnce)),
    ] {
        let _ = bench.deliver(message("t", payload), grant);
    }
    bench.disconnect();
    let mut moved = Vec::new();
    let mut seen = |bench: &mut Bench, take: fn(&mut Session, &mut Cx<'_>, &mut Vec<Orphan>)| {
        bench.act(|session, _, cx| take(session, cx, &mut moved));
        let seen: Vec<_> = moved.drain(..).map(|(key, m, qos)| (Some(key), m.payload()[0], qos)).collect();
        seen
    };
    // What is left of a subscription that is gone has nowhere to go.
    assert_eq!(seen(&mut bench, |session, cx, out| session.take_unsent_shared(cx, |_| false, out)), []);
    assert_eq!((bench.session.inflight_len(), bench.session.queue_len()), (4, 3));
    let unsent = seen(&mut bench, |session, cx, out| session.take_unsent_shared(cx, |_| true, out));
    assert_eq!(unsent, [(share, b'5', ExactlyOnce), (share, b'7', AtLeastOnce)]);
    assert_eq!((bench.session.inflight_len(), bench.session.queue_len()), (4, 1));
    let unacked = seen(&mut bench, Session::take_unacked_shared); // [U5-4.8.2-6]
    assert_eq!(unacked, [(share, b'1', AtLeastOnce), (share, b'4', AtLeastOnce)]);
    assert_eq!(bench.session.release(&mut bench.budget), 3);
    assert_eq!(bench.charged(), 0);
}
