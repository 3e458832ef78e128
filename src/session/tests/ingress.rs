//! What a client publishes.

use super::super::testing::*;
use super::super::*;
use crate::wire::{DecodeError, Reason, Version};
use Qos::{AtLeastOnce, AtMostOnce, ExactlyOnce};

#[test]
fn mqtt_3_3_2_9_and_12_incoming_aliases() {
    let limits = Limits { topic_alias_max: 3, ..Limits::default() };
    let mut link = Link::new(Version::V5, 10, u32::MAX, 0, &limits);
    let mut resolve = |topic: &'static str, alias| {
        link.resolve_topic(topic, alias, 3).map(|topic| topic.as_str().to_owned())
    };
    let reason = |error: Result<String, DecodeError>| error.map_err(DecodeError::reason);
    assert_eq!(resolve("a", 0).unwrap(), "a");
    assert_eq!(reason(resolve("", 0)), Err(Reason::PROTOCOL_ERROR)); // [U5-3.3.2-1]
    assert_eq!(reason(resolve("", 3)), Err(Reason::PROTOCOL_ERROR)); // [U5-3.3.4-2]
    assert_eq!(resolve("three", 3).unwrap(), "three");
    assert_eq!(reason(resolve("", 2)), Err(Reason::PROTOCOL_ERROR));
    assert_eq!(resolve("", 3).unwrap(), "three");
    assert_eq!(resolve("other", 3).unwrap(), "other"); // [U5-3.3.2-5]
    assert_eq!(resolve("", 3).unwrap(), "other");
    assert_eq!(reason(resolve("four", 4)), Err(Reason::TOPIC_ALIAS_INVALID)); // [U5-3.3.4-1]
    assert_eq!(reason(resolve("", 65_535)), Err(Reason::TOPIC_ALIAS_INVALID));
}

#[test]
fn mqtt_4_3_3_10_and_12_a_qos_2_identifier_means_one_message_until_pubrel() {
    let mut bench = Bench::new().connected();
    for id in [1, 255, 256, 65_535] {
        assert_eq!(bench.incoming(ExactlyOnce, id), Ingress::Route);
        assert_eq!(bench.incoming(ExactlyOnce, id), Ingress::Repeat);
    }
    bench.connect(Version::V5, Maxima::NONE);
    for id in [256, 65_535, 1, 255] {
        assert_eq!(bench.incoming(ExactlyOnce, id), Ingress::Repeat, "it survives the connection");
        assert_eq!(bench.pubrel(id), Reason::SUCCESS);
        assert_eq!(bench.pubrel(id), Reason::PACKET_IDENTIFIER_NOT_FOUND); // [U5-4.3-1]
        assert_eq!(bench.incoming(ExactlyOnce, id), Ingress::Route);
    }
    assert_eq!(bench.session.received_len(), 4);
}

#[test]
fn mqtt_4_3_2_5_a_qos_1_identifier_means_a_new_message_each_time() {
    let mut bench = Bench::new().connected();
    for _ in 0..3 {
        assert_eq!(bench.incoming(AtLeastOnce, 5), Ingress::Route);
        bench.act(|_, link, _| Session::acknowledge_publish(link.unwrap(), AtLeastOnce));
    }
}

#[test]
fn mqtt_4_3_3_9_a_refused_identifier_is_free() {
    let mut bench = Bench::new().connected();
    for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
        for _ in 0..2 {
            assert_eq!(bench.incoming(qos, 5), Ingress::Route);
            bench.act(|session, link, _| session.refuse_publish(link.unwrap(), qos, 5));
        }
    }
    assert_eq!(bench.link.as_ref().unwrap().receive_used(), 0);
    assert_eq!(bench.session.received_len(), 0);
}

#[test]
fn mqtt_3_3_4_7_one_publish_too_many() {
    let limits = Limits { receive_maximum: 2, ..Limits::default() };
    let mut bench = Bench::with(limits, 1 << 40).connected();
    assert_eq!(bench.incoming(ExactlyOnce, 1), Ingress::Route);
    assert_eq!(bench.incoming(AtLeastOnce, 2), Ingress::Route);
    assert_eq!(bench.incoming(ExactlyOnce, 1), Ingress::Repeat, "it counts once");
    assert_eq!(bench.incoming(AtMostOnce, 0), Ingress::Route, "QoS 0 never counts");
    assert_eq!(bench.incoming(ExactlyOnce, 3), Ingress::ReceiveMaximumExceeded);
    assert_eq!(bench.incoming(AtLeastOnce, 3), Ingress::ReceiveMaximumExceeded);
    bench.act(|_, link, _| {
        let link = link.unwrap();
        Session::acknowledge_publish(link, ExactlyOnce);
        assert_eq!(link.receive_used(), 2, "PUBREC is not the end");
        Session::acknowledge_publish(link, AtLeastOnce);
    });
    assert_eq!(bench.incoming(AtLeastOnce, 3), Ingress::Route);
    assert_eq!(bench.pubrel(1), Reason::SUCCESS);
    assert_eq!(bench.incoming(ExactlyOnce, 4), Ingress::Route);

    // On the next connection it counts again when it is repeated, and only then.
    bench.connect(Version::V5, Maxima::NONE);
    assert_eq!(bench.incoming(ExactlyOnce, 5), Ingress::Route);
    assert_eq!(bench.incoming(ExactlyOnce, 4), Ingress::Repeat);
    assert_eq!(bench.incoming(ExactlyOnce, 6), Ingress::ReceiveMaximumExceeded);
    bench.connect(Version::V5, Maxima::NONE);
    assert_eq!(bench.pubrel(4), Reason::SUCCESS);
    assert_eq!(bench.link.as_ref().unwrap().receive_used(), 0);
}

#[test]
fn mqtt_4_3_3_10_only_a_new_message_joins_a_batch_and_only_with_quota() {
    let limits = Limits { receive_maximum: 3, ..Limits::default() };
    let mut bench = Bench::with(limits, 1 << 40).connected();
    let joins = |bench: &mut Bench, qos, id| {
        bench.act(|session, link, _| session.handle_following(link.unwrap(), qos, id))
    };
    assert_eq!(bench.incoming(ExactlyOnce, 1), Ingress::Route);
    assert!(!joins(&mut bench, ExactlyOnce, 1), "routed before");
    assert!(joins(&mut bench, ExactlyOnce, 2));
    assert_eq!(bench.incoming(ExactlyOnce, 2), Ingress::Repeat);
    assert!(joins(&mut bench, ExactlyOnce, 3));
    assert!(!joins(&mut bench, ExactlyOnce, 4), "no quota");
    assert_eq!(bench.session.received_len(), 3);
    // At QoS 1 all of a batch have the place of the first.
    assert!(joins(&mut bench, AtLeastOnce, 5));
    assert_eq!(bench.link.as_ref().unwrap().receive_used(), 3);
    bench.connect(Version::V5, Maxima::NONE);
    assert!(!joins(&mut bench, ExactlyOnce, 3), "routed on an earlier connection");
    assert_eq!(bench.link.as_ref().unwrap().receive_used(), 0);
}
