//! Retained messages (3.3.1.3, 3.8.3.1).

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::encode::PUBACK;
use crate::support::*;

/// Option bits of SUBSCRIBE in MQTT 5.
const RETAIN_AS_PUBLISHED: u8 = 0x08;
const HANDLING_NEW_ONLY: u8 = 0x10;
const HANDLING_NEVER: u8 = 0x20;

fn retain(publisher: &mut Client, topic: &str, payload: &str, qos: u8) {
    let code = publisher.publish(&Publish::new(topic, payload).retain().qos(qos, 0));
    assert!(code < 0x80);
    if qos == 0 {
        // Nobody says when it is stored. What is acknowledged came behind it.
        publisher.say(&name("behind"), "", 1);
    }
    publisher.ping();
}

/// Publishes a retained message to each of these topics below `base`, at QoS 1.
fn retain_each(publisher: &mut Client, base: &str, topics: Range<usize>, text: impl Fn(usize) -> String) {
    for some in topics.collect::<Vec<_>>().chunks(500) {
        let publish = |id, n| Publish::new(format!("{base}/{n}"), text(n)).retain().qos(1, id);
        let burst = (1..).zip(some).flat_map(|(id, n)| publish(id, *n).bytes(publisher.version));
        publisher.send(burst.collect::<Vec<u8>>());
        for (id, _) in (1..).zip(some) {
            publisher.expect_ack(PUBACK, id);
        }
    }
}

/// What a newcomer to this filter gets, as (topic, payload, QoS), sorted.
fn stored(broker: &Broker, version: Version, filter: &str) -> Vec<(String, String, u8)> {
    let mut client = Client::fresh(broker, version);
    client.subscribe(filter, 2);
    let mut out = Vec::new();
    // A ping does not wait for the shards that hold the topics; a quiet moment does.
    while let Event::Packet(packet) = client.next(std::time::Duration::from_millis(150)) {
        let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
        assert!(publish.retain, "RETAIN is 1 on what a subscription brings");
        assert!(!publish.dup);
        client.finish(&publish);
        out.push((publish.topic.clone(), publish.text(), publish.qos));
    }
    out.sort();
    out
}

/// Topics in the tests of what comes first.
const MANY: usize = 3000;

/// Programs that ask what is retained stop at the first message without RETAIN.
#[test]
fn mqtt_3_3_1_9_all_that_is_retained_comes_before_what_is_live() {
    each_version(|b, v| {
        let base = name("t");
        let mut publisher = Client::fresh(b, v);
        retain_each(&mut publisher, &base, 0..MANY, |n| format!("stored {n}"));
        let stop = AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                for n in (0..MANY).step_by(7).cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
                    let live = Publish::new(format!("{base}/{n}"), "live").qos((n % 2) as u8, 0);
                    publisher.publish(&if n % 3 == 0 { live.retain() } else { live });
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let mut subscriber = Client::fresh(b, v);
            subscriber.subscribe(&format!("{base}/#"), 1);
            let mut topics = BTreeSet::new();
            loop {
                let publish = subscriber.expect_publish_acked();
                if !publish.retain {
                    break;
                }
                assert!(topics.insert(publish.topic.clone()), "{} twice", publish.topic);
            }
            stop.store(true, Ordering::Relaxed);
            assert_eq!(topics.len(), MANY, "{v:?}");
        });
    });
}

/// What the client clears itself comes back to it live, behind the rest.
#[test]
fn mqtt_3_3_1_6_who_clears_what_it_is_sent_gets_and_clears_all() {
    each_version(|b, v| {
        let base = name("t");
        let mut publisher = Client::fresh(b, v);
        retain_each(&mut publisher, &base, 0..MANY, |n| format!("stored {n}"));
        let mut remover = Client::fresh(b, v);
        remover.subscribe(&format!("{base}/#"), 0);
        let mut cleared = 0;
        loop {
            let publish = remover.expect_publish();
            if !publish.retain {
                break;
            }
            remover.send_publish(&Publish::new(&publish.topic, "").retain());
            cleared += 1;
        }
        assert_eq!(cleared, MANY, "{v:?}");
        remover.say(&name("behind"), "", 1); // as far as its own shard is concerned
        for _ in 1..MANY {
            let publish = remover.expect_publish();
            assert!(!publish.retain && publish.text().is_empty(), "{publish:?}");
        }
        assert_eq!(stored(b, v, &format!("{base}/#")), []);
    });
}

#[test]
fn mqtt_3_3_1_5_mqtt311_3_3_1_5_mqtt311_3_3_1_6_the_last_retained_message_is_stored() {
    each_version(|b, v| {
        let base = name("t");
        let mut publisher = Client::fresh(b, v);
        for qos in 0..=2 {
            retain(&mut publisher, &format!("{base}/{qos}"), "first", 2);
            retain(&mut publisher, &format!("{base}/{qos}"), "last", qos);
        }
        let expected: Vec<_> = (0..=2).map(|q| (format!("{base}/{q}"), "last".to_string(), q)).collect();
        assert_eq!(stored(b, v, &format!("{base}/#")), expected);
        assert_eq!(stored(b, v, &format!("{base}/1")), expected[1..2]);
        assert_eq!(stored(b, v, &format!("{base}/+")), expected);
    });
}

#[test]
fn u5_3_3_1_2_mqtt311_3_3_1_7_a_qos_0_message_replaces_and_is_stored() {
    each_version(|b, v| {
        let topic = name("t");
        let mut publisher = Client::fresh(b, v);
        retain(&mut publisher, &topic, "at 2", 2);
        retain(&mut publisher, &topic, "at 0", 0);
        assert_eq!(stored(b, v, &topic), [(topic.clone(), "at 0".to_string(), 0)]);
    });
}

#[test]
fn mqtt_3_3_1_6_mqtt_3_3_1_7_mqtt311_3_3_1_10_mqtt311_3_3_1_11_an_empty_one_clears_and_is_delivered() {
    each_version(|b, v| {
        let topic = name("t");
        let mut publisher = Client::fresh(b, v);
        for qos in 0..=2 {
            retain(&mut publisher, &topic, "kept", 1);
            let mut established = Client::fresh(b, v);
            established.subscribe(&topic, 2);
            assert_eq!(established.expect_publish_acked().text(), "kept");
            retain(&mut publisher, &topic, "", qos);
            let got = established.expect_publish_acked();
            assert_eq!((got.payload.len(), got.retain, got.qos), (0, false, qos));
            assert_eq!(stored(b, v, &topic), []);
            // Nor is the empty message itself stored where there was nothing to clear.
            retain(&mut publisher, &topic, "", qos);
            assert_eq!(established.expect_publish_acked().payload.len(), 0);
            assert_eq!(stored(b, v, &topic), []);
        }
    });
}

#[test]
fn mqtt_3_3_1_8_mqtt311_3_3_1_12_retain_0_leaves_the_store_alone() {
    each_version(|b, v| {
        let topic = name("t");
        let mut publisher = Client::fresh(b, v);
        publisher.say(&topic, "not stored", 1);
        assert_eq!(stored(b, v, &topic), []);
        retain(&mut publisher, &topic, "kept", 1);
        for qos in 0..=2 {
            publisher.say(&topic, "passing by", qos);
            publisher.say(&topic, "", qos);
        }
        assert_eq!(stored(b, v, &topic), [(topic.clone(), "kept".to_string(), 1)]);
    });
}

#[test]
fn u5_3_3_1_1_mqtt311_3_3_1_8_what_a_subscription_brings_has_retain_1() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("t");
        retain(&mut Client::fresh(b, v), &topic, "kept", 1);
        let options: &[u8] =
            if v == V5 { &[1, 1 | RETAIN_AS_PUBLISHED, 1 | HANDLING_NEW_ONLY] } else { &[1] };
        for options in options {
            let mut client = Client::fresh(b, v);
            client.subscribe(&topic, *options);
            assert!(client.expect_publish_acked().retain, "options {options:#04x}");
        }
    });
}

#[test]
fn mqtt_3_3_1_12_mqtt311_3_3_1_9_live_copies_have_retain_0() {
    each_version(|b, v| {
        let topic = name("t");
        let mut client = Client::fresh(b, v);
        client.subscribe(&topic, 2);
        let mut publisher = Client::fresh(b, v);
        for qos in 0..=2 {
            retain(&mut publisher, &topic, "x", qos);
            assert!(!client.expect_publish_acked().retain);
            publisher.say(&topic, "x", qos);
            assert!(!client.expect_publish_acked().retain);
        }
    });
}

#[test]
fn mqtt_3_3_1_13_retain_as_published_passes_the_flag_on() {
    each(|b| {
        let topic = name("t");
        let (mut published, mut plain) = (Client::fresh(b, V5), Client::fresh(b, V5));
        published.subscribe(&topic, 2 | RETAIN_AS_PUBLISHED);
        plain.subscribe(&topic, 2);
        let mut publisher = Client::fresh(b, V5);
        for qos in 0..=2 {
            retain(&mut publisher, &topic, "x", qos);
            assert!(published.expect_publish_acked().retain);
            assert!(!plain.expect_publish_acked().retain);
            publisher.say(&topic, "x", qos);
            assert!(!published.expect_publish_acked().retain);
            assert!(!plain.expect_publish_acked().retain);
        }
        retain(&mut publisher, &topic, "", 0);
        assert!(published.expect_publish().retain, "also when it clears");
    });
}

#[test]
fn mqtt311_3_3_1_9_retain_as_published_is_not_for_who_comes_back_with_3_1_1() {
    each_of(&[V311, V31], |b, v| {
        let topic = name("t");
        let filters = [topic.clone(), format!("$share/g/{topic}")];
        for filter in &filters {
            let id = name("c");
            let connect = Connect::new(V5, &*id).persistent();
            let mut client = Client::accepted(b, &connect);
            client.subscribe(filter, 1 | RETAIN_AS_PUBLISHED);
            client.disconnect();
            let mut publisher = Client::fresh(b, V5);
            // One that waits for it, and one that finds it there.
            retain(&mut publisher, &topic, "away", 1);
            std::thread::sleep(std::time::Duration::from_millis(100));
            let mut client = Client::accepted(b, &Connect::new(v, &*id).persistent());
            retain(&mut publisher, &topic, "here", 1);
            for text in ["away", "here"] {
                let publish = client.expect_publish_acked();
                assert_eq!((publish.text().as_str(), publish.retain), (text, false), "{filter}");
            }
            client.disconnect();
            // Its subscription is what it was.
            let mut client = Client::accepted(b, &connect);
            retain(&mut publisher, &topic, "again", 1);
            assert!(client.expect_publish_acked().retain);
            client.unsubscribe(&[filter]);
        }
    });
}

#[test]
fn mqtt_3_3_1_9_mqtt_3_8_4_4_retain_handling_0_sends_at_every_subscribe() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("t");
        retain(&mut Client::fresh(b, v), &topic, "kept", 1);
        let mut client = Client::fresh(b, v);
        for _ in 0..3 {
            client.subscribe(&topic, 1);
            let got = client.expect_publish_acked();
            assert_eq!((got.text().as_str(), got.retain), ("kept", true));
        }
        client.expect_quiet();
    });
}

#[test]
fn mqtt_3_3_1_10_u5_3_8_4_3_retain_handling_1_sends_for_a_new_subscription_only() {
    each(|b| {
        let topic = name("t");
        retain(&mut Client::fresh(b, V5), &topic, "kept", 1);
        let mut client = Client::fresh(b, V5);
        client.subscribe(&topic, 1 | HANDLING_NEW_ONLY);
        assert!(client.expect_publish_acked().retain);
        client.subscribe(&topic, 1 | HANDLING_NEW_ONLY);
        client.subscribe(&topic, HANDLING_NEW_ONLY);
        client.expect_quiet();
        client.unsubscribe(&[&topic]);
        client.subscribe(&topic, 1 | HANDLING_NEW_ONLY);
        assert!(client.expect_publish_acked().retain, "it is new again");
        // A subscription that a stored session brings back is not new.
        let connect = Connect::new(V5, name("c")).persistent();
        let mut client = Client::accepted(b, &connect);
        client.subscribe(&topic, 1 | HANDLING_NEW_ONLY);
        client.expect_publish_acked();
        client.disconnect();
        let mut client = Client::accepted(b, &connect);
        client.subscribe(&topic, 1 | HANDLING_NEW_ONLY);
        client.expect_quiet();
    });
}

#[test]
fn mqtt_3_3_1_11_retain_handling_2_sends_none() {
    each(|b| {
        let topic = name("t");
        let mut publisher = Client::fresh(b, V5);
        retain(&mut publisher, &topic, "kept", 1);
        let mut client = Client::fresh(b, V5);
        client.subscribe(&topic, 1 | HANDLING_NEVER);
        client.subscribe(&topic, 1 | HANDLING_NEVER);
        client.expect_quiet();
        retain(&mut publisher, &topic, "live", 1);
        assert_eq!(client.expect_publish_acked().text(), "live");
    });
}

#[test]
fn mqtt_3_8_4_8_mqtt311_3_8_4_6_a_retained_message_comes_at_the_lower_qos() {
    each_version(|b, v| {
        let base = name("t");
        let mut publisher = Client::fresh(b, v);
        for qos in 0..=2 {
            retain(&mut publisher, &format!("{base}/{qos}"), "x", qos);
        }
        for granted in 0..=2 {
            let mut client = Client::fresh(b, v);
            client.subscribe(&format!("{base}/+"), granted);
            let mut got: Vec<(String, u8)> =
                (0..3).map(|_| client.expect_publish_acked()).map(|p| (p.topic, p.qos)).collect();
            got.sort();
            let expected: Vec<_> = (0..=2).map(|q: u8| (format!("{base}/{q}"), q.min(granted))).collect();
            assert_eq!(got, expected);
        }
    });
}

#[test]
fn u5_3_3_1_4_a_retained_message_keeps_its_properties() {
    each(|b| {
        let topic = name("t");
        let publish = Publish::new(&*topic, "x")
            .retain()
            .qos(1, 1)
            .with(Property::MessageExpiry(100))
            .with(Property::ContentType("c".into()))
            .with(Property::User("n".into(), "v".into()));
        Client::fresh(b, V5).publish(&publish);
        std::thread::sleep(std::time::Duration::from_millis(1200));
        let mut client = Client::fresh(b, V5);
        let id = client.packet_id();
        client.subscribe_all(id, &[Property::SubscriptionId(5)], &[(&topic, 1)]);
        let got = client.expect_publish_acked();
        assert!(got.expiry_s().is_some_and(|s| (97..=99).contains(&s)), "{got:?}");
        assert_eq!(got.subscription_ids(), [5]);
        assert!(got.properties.contains(&Property::ContentType("c".into())));
        assert!(got.properties.contains(&Property::User("n".into(), "v".into())));
    });
}

#[test]
fn u5_3_3_1_3_an_expired_retained_message_is_gone() {
    each(|b| {
        let base = name("t");
        let mut publisher = Client::fresh(b, V5);
        for (topic, seconds) in [("short", 1), ("long", 60)] {
            let publish = Publish::new(format!("{base}/{topic}"), topic).retain().qos(1, 0);
            publisher.publish(&publish.with(Property::MessageExpiry(seconds)));
        }
        assert_eq!(stored(b, V5, &format!("{base}/#")).len(), 2);
        std::thread::sleep(std::time::Duration::from_millis(2100));
        for v in [V5, V311] {
            let left = stored(b, v, &format!("{base}/#"));
            assert_eq!(left, [(format!("{base}/long"), "long".to_string(), 1)]);
        }
    });
}

#[test]
fn u5_3_8_4_3_every_matching_retained_message_comes_even_if_there_are_many() {
    // More than a session queue holds: what a subscription brings is pulled, not queued.
    each_of(&[V5, V311], |b, v| {
        let base = name("t");
        let count = 3000;
        // What it gets is with the shard that holds the topic, which the acknowledgements do not wait for: before, a newcomer
        // could rightly get it live.
        let mut watcher = Client::fresh(b, v);
        watcher.subscribe(&format!("{base}/+"), 0);
        let mut publisher = Client::fresh(b, v);
        retain_each(&mut publisher, &base, 0..count, |n| n.to_string());
        for _ in 0..count {
            watcher.expect_publish();
        }
        let mut client = Client::fresh(b, v);
        client.subscribe(&format!("{base}/+"), 1);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..count {
            let publish = client.expect_publish_acked();
            assert!(publish.retain);
            assert!(seen.insert(publish.text()), "{} twice", publish.text());
        }
        client.expect_quiet();
        retain_each(&mut publisher, &base, 0..count, |_| String::new()); // other tests share this broker
    });
}

#[test]
fn mqtt_3_8_4_4_mqtt311_3_8_4_3_nothing_is_lost_while_retained_messages_are_sent() {
    each_of(&[V5, V311], |b, v| {
        let base = name("t");
        let mut publisher = Client::fresh(b, v);
        let (stored, changed) = (1500, 600);
        retain_each(&mut publisher, &base, 0..stored, |_| "old".to_string());
        let mut client = Client::fresh(b, v);
        client.subscribe(&format!("{base}/#"), 1);
        // It acknowledges nothing, so the broker is in the middle of them: it has 1,024 unacknowledged at most.
        let first: Vec<Publish> = (0..1000).map(|_| client.expect_publish()).collect();
        retain_each(&mut publisher, &base, 0..changed, |_| "new".to_string());
        // Per topic: what was stored, unless the live one came first, and the last is what the store holds.
        let mut last = std::collections::BTreeMap::new();
        for publish in first {
            client.finish(&publish);
            last.insert(publish.topic.clone(), publish.text());
        }
        while last.len() < stored || last.values().filter(|text| *text == "new").count() < changed {
            let publish = client.expect_publish_acked();
            last.insert(publish.topic.clone(), publish.text());
        }
        client.expect_quiet();
        retain_each(&mut publisher, &base, 0..stored, |_| String::new()); // other tests share this broker
    });
}

#[test]
fn u5_3_8_3_3_retained_messages_of_its_own_reach_a_client_with_no_local() {
    // The standard does not say whether No Local covers them. A retained message is the state of its topic, which
    // a newcomer asks for whoever set it; so ringmq sends it, as mosquitto does.
    each(|b| {
        let topic = name("t");
        let mut client = Client::fresh(b, V5);
        retain(&mut client, &topic, "own", 1);
        client.subscribe(&topic, 1 | 0x04);
        assert_eq!(client.expect_publish_acked().text(), "own");
    });
}
