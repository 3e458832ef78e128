//! What waits, how long, and what gives way: expiry, queue limits, room, packets too large.

use super::super::testing::*;
use super::super::*;
use super::*;
use crate::clock::NEVER;
use crate::limits::QueueFull;
use crate::memory::MessageView;
use crate::wire::Version;
use Qos::{AtLeastOnce, AtMostOnce, ExactlyOnce};

#[test]
fn mqtt_3_1_2_24_and_25_a_packet_too_large_counts_as_delivered() {
    let packet_size = |qos| {
        Sent::Publish(Publish { qos, topic: "t".into(), ..Default::default() }).encode(Version::V5).len()
            as u32
    };
    let mut bench = Bench::new();
    let fits = Maxima { packet_size: packet_size(1) + 10, ..Maxima::NONE };
    bench.connect(Version::V5, fits);
    let too_large = dropped(DropReason::PacketTooLarge);
    assert_eq!(bench.deliver(message("t", &[0; 10]), at(AtLeastOnce)), SENT);
    assert_eq!(bench.deliver(message("t", &[0; 11]), at(AtLeastOnce)), too_large);
    assert_eq!(bench.deliver(message("t", &[0; 12]), at(AtMostOnce)), SENT);
    assert_eq!(bench.deliver(message("t", &[0; 13]), at(AtMostOnce)), too_large);
    let _ = bench.sent();
    // Queued without a connection, or sent to one that took more.
    bench.disconnect();
    for len in [11, 9] {
        assert_eq!(bench.deliver(message("t", &[0; 11][..len]), at(AtLeastOnce)), QUEUED);
    }
    bench.connect(Version::V5, Maxima { packet_size: packet_size(1) + 9, receive: 1, ..Maxima::NONE });
    assert_eq!(bench.pump(), Pumped { published: 1, payload_bytes: 9, released: 0, more: More::Nothing });
    let packets = bench.sent();
    assert_eq!(packets.len(), 1);
    assert_eq!((packets[0].publish().dup, packets[0].publish().payload.len()), (false, 9));
    assert_eq!(bench.drops, Drops { packet_too_large: 2, ..Drops::default() });
    assert_eq!(bench.session.inflight_len(), 1);
}

/// The client has it from the connection before, and waits for PUBREL: under a Packet Identifier that is simply free again
/// it would take another message for a repetition.
#[test]
fn mqtt_4_3_3_10_a_qos_2_message_too_large_to_be_sent_again_is_released() {
    let mut bench = Bench::new();
    bench.connect(Version::V5, Maxima::NONE);
    assert_eq!(bench.deliver(message("t", &[0; 50]), at(ExactlyOnce)), SENT);
    let packet_id = bench.sent()[0].publish().packet_id;
    bench.disconnect();
    bench.connect(Version::V5, Maxima { packet_size: 30, ..Maxima::NONE });
    assert_eq!(bench.pump(), Pumped { published: 0, payload_bytes: 0, released: 1, more: More::Nothing });
    assert_eq!(bench.sent(), [Sent::PubRel(packet_id)]);
    assert_eq!(bench.drops, Drops { packet_too_large: 1, ..Drops::default() });
    // It is owed until PUBCOMP, on the next connection too.
    bench.disconnect();
    bench.connect(Version::V5, Maxima::NONE);
    assert_eq!(bench.pump(), Pumped { published: 0, payload_bytes: 0, released: 1, more: More::Nothing });
    assert_eq!(bench.sent(), [Sent::PubRel(packet_id)]);
    assert_eq!(bench.deliver(message("t", &[0; 10]), at(ExactlyOnce)), SENT);
    assert_ne!(bench.sent()[0].publish().packet_id, packet_id);
    assert_eq!(bench.pubcomp(packet_id), Acked::Completed);
    assert_eq!(bench.session.inflight_len(), 1);
}

#[test]
fn mqtt_3_3_2_5_a_message_whose_time_is_over_is_deleted_before_its_first_sending() {
    let mut bench = Bench::new();
    let expires = |at| MessageView { expires_at: at, ..message("t", b"") };
    let start = bench.now;
    assert_eq!(bench.deliver(expires(start), at(AtLeastOnce)), dropped(DropReason::Expired));
    for seconds in [1, 3, 2] {
        assert_eq!(bench.deliver(expires(start + seconds * 1000), at(AtLeastOnce)), QUEUED);
    }
    assert_eq!(bench.session.expires_at_min(), start + 1000);
    bench.now = start + 2000;
    bench.connect(Version::V5, Maxima::NONE);
    assert_eq!(bench.pump(), Pumped { published: 1, payload_bytes: 0, released: 0, more: More::Nothing });
    assert_eq!(bench.drops.expired, 2);
    assert_eq!(bench.sent()[0].publish().expiry_s, Some(1));
}

#[test]
fn mqtt_3_3_2_6_what_is_left_of_the_interval_is_sent() {
    let mut bench = Bench::new();
    bench.connect(Version::V5, Maxima::NONE);
    let now = bench.now;
    let mut variants = Variants::new();
    // The fourth and fifth receivers get a copy of the third one's bytes.
    for (left, expected) in [(1, 1), (999, 1), (1000, 1), (1001, 2), (59_001, 60)] {
        let message = MessageView { expires_at: now + left, ..message("t", b"") };
        let mut fanout = Fanout::new(message, &mut variants);
        for qos in [AtMostOnce, AtMostOnce, AtMostOnce, AtLeastOnce, ExactlyOnce] {
            assert_eq!(bench.deliver_to_one(&mut fanout, at(qos)), SENT);
            assert_eq!(bench.sent()[0].publish().expiry_s, Some(expected));
        }
    }
    // Time may pass between two receivers.
    let mut fanout = Fanout::new(MessageView { expires_at: now + 9_000, ..message("t", b"") }, &mut variants);
    for (passed, expected) in [(0, 9), (0, 9), (1_000, 8), (1_500, 8), (2_000, 7)] {
        bench.now = now + passed;
        assert_eq!(bench.deliver_to_one(&mut fanout, at(AtMostOnce)), SENT);
        assert_eq!(bench.sent()[0].publish().expiry_s, Some(expected));
    }
    assert_eq!(bench.deliver(message("t", b""), at(AtMostOnce)), SENT);
    assert_eq!(bench.sent()[0].publish().expiry_s, None); // [U5-3.3.2-4]
}

#[test]
fn mqtt_4_3_3_7_what_was_sent_once_does_not_expire() {
    let mut bench = Bench::new().connected();
    let short_lived = MessageView { expires_at: bench.now + 1000, ..message("t", b"") };
    assert_eq!(bench.deliver(short_lived, at(ExactlyOnce)), SENT);
    let _ = bench.sent();
    bench.now += 3_600_000;
    bench.connect(Version::V5, Maxima::NONE);
    bench.act(|session, _, cx| session.delete_expired(cx));
    let _ = bench.pump();
    assert_eq!(bench.sent()[0].publish().expiry_s, Some(1), "0 would say that it had expired");
}

#[test]
fn qos_0_and_the_send_buffer() {
    let mut bench = Bench::new().connected();
    bench.send_room = 8; // The packet: 2 of fixed header, 3 of topic, 1 of properties, payload.
    assert_eq!(bench.deliver(message("t", b"123"), at(AtMostOnce)), dropped(DropReason::SendBuffer));
    assert_eq!(bench.deliver(message("t", b"12"), at(AtMostOnce)), SENT);
    assert_eq!(bench.deliver(message("t", b"12"), at(AtLeastOnce)), QUEUED);
    assert_eq!(bench.pump(), Pumped { published: 0, payload_bytes: 0, released: 0, more: More::Room });
    bench.disconnect();
    assert_eq!(bench.deliver(message("t", b""), at(AtMostOnce)), dropped(DropReason::Offline));
}

#[test]
fn a_packet_larger_than_the_send_buffer_leaves_when_nothing_else_waits() {
    let limits = Limits { send_buffer_bytes_max: 1000, ..Limits::default() };
    let mut bench = Bench::with(limits, 1 << 40).connected();
    let payload = [7; 5000];
    bench.send_room = 999;
    assert_eq!(bench.deliver(message("t", &payload), at(AtLeastOnce)), QUEUED);
    assert_eq!(bench.pump().more, More::Room);
    bench.send_room = 1000;
    assert_eq!(bench.pump(), Pumped { published: 1, payload_bytes: 5000, released: 0, more: More::Nothing });
    assert_eq!(bench.sent()[0].publish().payload, payload);
}

#[test]
fn a_full_queue_drops_the_newest() {
    let mut bench = Bench::queue_full(QueueFull::DropNewest, 2);
    for delivered in [QUEUED, QUEUED, dropped(DropReason::QueueFull)] {
        assert_eq!(bench.deliver(message("t", b""), at(AtLeastOnce)), delivered);
    }
    // What has expired makes room, wherever it is.
    let mut bench = Bench::queue_full(QueueFull::DropNewest, 2);
    let expires_at = bench.now + 1;
    assert_eq!(bench.deliver(message("t", b""), at(AtLeastOnce)), QUEUED);
    assert_eq!(bench.deliver(MessageView { expires_at, ..message("t", b"") }, at(AtLeastOnce)), QUEUED);
    bench.now += 1;
    assert_eq!(bench.deliver(message("t", b""), at(AtLeastOnce)), QUEUED);
    assert_eq!(bench.drops, Drops { expired: 1, ..Drops::default() });
    assert_eq!(bench.session.expires_at_min(), NEVER);
}

#[test]
fn a_full_queue_drops_the_oldest_but_nothing_in_flight() {
    let mut bench = Bench::queue_full(QueueFull::DropOldest, 2);
    bench.connect(Version::V5, Maxima { receive: 1, ..Maxima::NONE });
    for (payload, delivered) in
        [(b"1", SENT), (b"2", QUEUED), (b"3", QUEUED), (b"4", Delivered::QueuedDroppingOldest)]
    {
        assert_eq!(bench.deliver(message("t", payload), at(AtLeastOnce)), delivered);
    }
    assert_eq!(bench.drops, Drops { oldest: 1, ..Drops::default() });
    bench.connect(Version::V5, Maxima::NONE);
    let _ = bench.pump();
    let payloads: Vec<_> = bench.sent().iter().map(|packet| packet.publish().payload[0]).collect();
    assert_eq!(payloads, b"134");
}

#[test]
fn a_lowered_limit_of_a_queue_takes_nothing_back() {
    let mut bench = Bench::queue_full(QueueFull::DropOldest, 100);
    for _ in 0..10 {
        assert_eq!(bench.deliver(message("t", b"x"), at(AtLeastOnce)), QUEUED);
    }
    bench.limits.queue_messages_max = 3;
    let one_for_one = Delivered::QueuedDroppingOldest;
    assert_eq!(bench.deliver(message("t", b"x"), at(AtLeastOnce)), one_for_one);
    assert_eq!((bench.session.queue_len(), bench.drops.oldest), (10, 1));
    bench.limits.queue_bytes_max = 1000;
    assert_eq!(bench.deliver(message("t", &[0; 500]), at(AtLeastOnce)), one_for_one);
    assert!((5..10).contains(&bench.session.queue_len()), "{}", bench.session.queue_len());
    bench.limits.queue_full = QueueFull::DropNewest;
    let before = bench.session.queue_len();
    assert_eq!(bench.deliver(message("t", b"x"), at(AtLeastOnce)), dropped(DropReason::QueueFull));
    assert_eq!(bench.session.queue_len(), before);
}

#[test]
fn a_message_that_cannot_fit_drives_nothing_out() {
    let limits = Limits { queue_full: QueueFull::DropOldest, queue_bytes_max: 2000, ..Limits::default() };
    let mut bench = Bench::with(limits, 1 << 40);
    assert_eq!(bench.deliver(message("t", b""), at(AtLeastOnce)), QUEUED);
    assert_eq!(bench.deliver(message("t", &[0; 2000]), at(AtLeastOnce)), dropped(DropReason::QueueFull));
    assert_eq!(bench.session.queue_len(), 1);
    // No more memory, and the queue's own would not be enough.
    let mut bench = Bench::with(limits, 600);
    assert_eq!(bench.deliver(message("t", b""), at(AtLeastOnce)), QUEUED);
    assert_eq!(bench.deliver(message("t", &[0; 500]), at(AtLeastOnce)), dropped(DropReason::Memory));
    assert_eq!(bench.session.queue_len(), 1);
    assert_eq!(bench.session.release(&mut bench.budget), 1);
    assert_eq!(bench.charged(), 0);
}

#[test]
fn a_full_queue_disconnects() {
    let mut bench = Bench::queue_full(QueueFull::Disconnect, 1);
    assert_eq!(bench.deliver(message("t", b""), at(AtLeastOnce)), QUEUED);
    assert_eq!(bench.deliver(message("t", b""), at(AtLeastOnce)), Delivered::Disconnect);
    assert_eq!(bench.session.queue_len(), 1);
}
