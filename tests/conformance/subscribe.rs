//! SUBSCRIBE and SUBACK (3.8, 3.9).

use crate::support::encode::{self, PUBACK, packet, string};
use crate::support::*;

/// What a SUBACK may say of a filter that is no Topic Filter.
fn refused_filter(version: Version) -> &'static [u8] {
    match version {
        V5 => &[0x8F],
        V311 => &[0x80],
        // 3.1 has no failure code: any granted QoS, and nothing is ever delivered.
        V31 => &[0, 1, 2],
    }
}

#[test]
fn mqtt_3_8_4_1_mqtt_3_8_4_2_mqtt311_3_8_4_1_mqtt311_3_8_4_2_every_subscribe_is_answered() {
    each_version(|b, v| {
        let mut client = Client::fresh(b, v);
        let topic = name("t");
        let burst: Vec<u8> =
            (1..=50).flat_map(|id| encode::subscribe(v, id, &[], &[(format!("{topic}/{id}"), 1)])).collect();
        client.send(burst);
        for id in 1..=50 {
            assert_eq!(client.expect_suback(id), [1]);
        }
    });
}

#[test]
fn mqtt_3_8_4_6_mqtt_3_9_3_1_mqtt_3_8_4_7_mqtt311_3_8_4_5_mqtt311_3_9_3_1_one_code_per_filter_in_order() {
    each_version(|b, v| {
        let mut client = Client::fresh(b, v);
        let base = name("t");
        let filters: Vec<(String, u8)> =
            (0..60).map(|n| (format!("{base}/{n}/#"), [2, 0, 1, 1, 0, 2, 2][n % 7])).collect();
        let borrowed: Vec<(&str, u8)> = filters.iter().map(|(f, q)| (f.as_str(), *q)).collect();
        let granted: Vec<u8> = filters.iter().map(|(_, q)| *q).collect();
        assert_eq!(client.subscribe_all(7, &[], &borrowed), granted);
    });
}

#[test]
fn mqtt_3_8_4_5_mqtt311_3_8_4_4_many_filters_act_like_many_subscribes() {
    each_version(|b, v| {
        let base = name("t");
        let mut client = Client::fresh(b, v);
        let (a, wild) = (format!("{base}/a"), format!("{base}/+/b"));
        // The same filter twice: the second replaces the first, as in two packets.
        assert_eq!(client.subscribe_all(1, &[], &[(&a, 2), (&wild, 1), (&a, 0)]), [2, 1, 0]);
        let mut publisher = Client::fresh(b, v);
        publisher.say(&a, "x", 2);
        assert_eq!(client.expect_publish().qos, 0);
        publisher.say(&format!("{base}/x/b"), "x", 2);
        assert_eq!(client.expect_publish_acked().qos, 1);
        client.expect_quiet();
    });
}

#[test]
fn u5_3_8_4_4_u311_3_9_3_1_v31_4_a_filter_that_is_refused_leaves_the_others_alone() {
    each_version(|b, v| {
        let topic = name("t");
        let mut client = Client::fresh(b, v);
        let codes =
            client.subscribe_all(1, &[], &[("a/#/b", 1), (&topic, 1), ("a+", 0), (&format!("{topic}/x"), 2)]);
        assert_eq!((codes[1], codes[3], codes.len()), (1, 2, 4));
        for code in [codes[0], codes[2]] {
            assert!(refused_filter(v).contains(&code), "{code:#04x}");
        }
        let mut publisher = Client::fresh(b, v);
        publisher.say("a/x/b", "x", 0);
        publisher.say("a", "x", 0);
        publisher.say(&topic, "x", 1);
        assert_eq!(client.expect_publish_acked().topic, topic);
        client.expect_quiet();
    });
}

#[test]
fn mqtt_3_9_3_2_mqtt311_3_9_3_2_v31_4_only_codes_of_the_table_are_used() {
    // The strict decoder knows each version's table; here is every way to be refused without configuration.
    each_version(|b, v| {
        let mut client = Client::fresh(b, v);
        for filter in
            ["", "a/#/b", "a#", "#a", "+a", "a+/b", "$share/g", "$share//a", "$share/g/", "$share/a+b/c"]
        {
            let codes = client.subscribe_all(9, &[], &[(filter, 2)]);
            assert!(refused_filter(v).contains(&codes[0]), "{filter:?}: {codes:02x?}");
        }
        client.ping();
    });
}

#[test]
fn mqtt_3_8_4_7_mqtt_3_8_4_8_mqtt311_3_8_4_6_delivery_is_at_the_lower_qos() {
    each_version(|b, v| {
        let mut publisher = Client::fresh(b, v);
        for granted in 0..=2 {
            let topic = name("t");
            let mut client = Client::fresh(b, v);
            client.subscribe(&topic, granted);
            for published in 0..=2 {
                publisher.say(&topic, "x", published);
                assert_eq!(client.expect_publish_acked().qos, published.min(granted));
            }
        }
    });
}

#[test]
fn mqtt_3_8_4_3_mqtt311_3_8_4_3_a_subscription_with_the_same_filter_is_replaced() {
    each_version(|b, v| {
        let base = name("t");
        let filter = format!("{base}/+");
        let topic = format!("{base}/x");
        let mut client = Client::fresh(b, v);
        let mut publisher = Client::fresh(b, v);
        for qos in [0, 2, 1] {
            client.subscribe(&filter, qos);
            publisher.say(&topic, "x", 2);
            assert_eq!(client.expect_publish_acked().qos, qos);
            client.expect_quiet();
        }
        assert_eq!(client.unsubscribe(&[&filter]).len(), usize::from(v == V5));
        publisher.say(&topic, "x", 2);
        client.expect_quiet();
    });
}

#[test]
fn mqtt_3_8_4_3_options_are_replaced_with_the_subscription() {
    each(|b| {
        const NO_LOCAL: u8 = 0x04;
        const RETAIN_AS_PUBLISHED: u8 = 0x08;
        let topic = name("t");
        let mut client = Client::fresh(b, V5);
        client.subscribe(&topic, 1 | NO_LOCAL);
        client.send_publish(&Publish::new(&*topic, "own"));
        client.expect_quiet();
        client.subscribe(&topic, 1 | RETAIN_AS_PUBLISHED);
        client.send_publish(&Publish::new(&*topic, "own").retain());
        let got = client.expect_publish();
        assert!(got.retain);
        client.subscribe(&topic, 0x21);
        client.send_publish(&Publish::new(&*topic, "").retain());
        assert!(!client.expect_publish().retain);
    });
}

#[test]
fn mqtt_3_8_4_4_mqtt311_3_8_4_3_no_message_is_lost_while_a_subscription_is_replaced() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("t");
        let mut client = Client::fresh(b, v);
        client.subscribe(&topic, 1);
        let publisher = std::thread::scope(|scope| {
            let publisher = scope.spawn(|| {
                let mut publisher = Client::fresh(b, v);
                for number in 0..200 {
                    publisher.say(&topic, number.to_string(), 1);
                }
            });
            let mut next = 0;
            let mut replacements: u32 = 0;
            while next < 200 {
                if next >= replacements * 4 && replacements < 40 {
                    replacements += 1;
                    client.send(encode::subscribe(v, 1000 + replacements as u16, &[], &[(&topic, 1)]));
                }
                match client.expect_packet() {
                    Packet::Publish(publish) => {
                        assert_eq!(publish.text(), next.to_string());
                        client.ack(PUBACK, publish.packet_id);
                        next += 1;
                    }
                    Packet::Suback(_) => {}
                    other => panic!("{other:?}"),
                }
            }
            publisher.join()
        });
        publisher.expect("the publisher ran through");
    });
}

#[test]
fn u5_3_8_4_1_u311_3_8_4_1_messages_may_come_before_the_suback_and_none_is_lost_after_it() {
    each_of(&[V5, V311], |b, v| {
        // Once SUBACK was seen, whatever anyone publishes arrives: each round with clients of its own, on whichever
        // shards they are.
        for round in 0..20 {
            let topic = name("t");
            let mut publisher = Client::fresh(b, v);
            let mut client = Client::fresh(b, v);
            let filter = if round % 2 == 0 { topic.clone() } else { format!("{topic}/#") };
            client.subscribe(&filter, 0);
            publisher.send_publish(&Publish::new(&*topic, "x"));
            assert_eq!(client.expect_publish().topic, topic);
        }
    });
}

#[test]
fn u5_3_8_4_1_none_is_lost_after_the_suback_while_all_shards_are_busy() {
    // Long turns everywhere: what a shard has been told and what it is sent meanwhile are read in one turn.
    const FLOODS: usize = 6;
    let v = V311;
    // Brokers of its own, since others would feel it.
    each_with(&["--log-level", "warn"], |b| {
        let over = std::sync::atomic::AtomicBool::new(false);
        // They read nothing and make the turns longer still: the floods are routed to other shards, too.
        let _readers: Vec<Client> = (0..4)
            .map(|_| {
                let mut client = Client::fresh(b, v);
                client.subscribe("flood/#", 0);
                client
            })
            .collect();
        std::thread::scope(|scope| {
            for _ in 0..FLOODS {
                scope.spawn(|| {
                    let mut client = Client::fresh(b, v);
                    // Each message on a topic of its own, with an answer for each.
                    let burst: Vec<u8> = (1..=2000)
                        .flat_map(|id| Publish::new(format!("flood/{id}/x"), "x").qos(1, id).bytes(v))
                        .collect();
                    while !over.load(std::sync::atomic::Ordering::Relaxed) {
                        client.send(&burst);
                        for id in 1..=2000 {
                            client.expect_ack(PUBACK, id);
                        }
                    }
                });
            }
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let mut publishers: Vec<Client> = (0..4).map(|_| Client::fresh(b, v)).collect();
                for round in 0..60 {
                    let topic = name("t");
                    let mut client = Client::fresh(b, v);
                    let filter = if round % 2 == 0 { topic.clone() } else { format!("{topic}/#") };
                    client.subscribe(&filter, 0);
                    for publisher in &mut publishers {
                        publisher.send_publish(&Publish::new(&*topic, "x"));
                    }
                    for _ in &publishers {
                        assert_eq!(client.expect_publish().topic, topic);
                    }
                }
            }));
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            outcome.unwrap_or_else(|why| std::panic::resume_unwind(why));
        });
    });
}

#[test]
fn mqtt_3_8_3_1_mqtt311_3_8_3_1_a_filter_must_be_utf8() {
    each_of(&[V5, V311], |b, v| {
        let properties: &[u8] = if v == V5 { &[0] } else { &[] };
        for filter in [&b"a\xFF"[..], b"\xED\xA0\x80", b"a\0b"] {
            let body = [&[0, 1], properties, &string("fine"), &[0], &string(filter), &[0]].concat();
            refuse(b, v, &format!("{filter:02x?}"), packet(0x82, body), &[0x81]);
        }
    });
}

#[test]
fn mqtt_3_8_3_2_mqtt311_3_8_3_3_a_subscribe_without_a_filter_is_refused() {
    each_of(&[V5, V311], |b, v| {
        let none: &[(&str, u8)] = &[];
        refuse(b, v, "empty", encode::subscribe(v, 1, &[], none), &[0x82]);
    });
}

#[test]
fn mqtt_3_8_3_5_mqtt311_3_8_3_4_reserved_option_bits_are_refused() {
    each_of(&[V5, V311], |b, v| {
        let reserved: &[u8] =
            if v == V5 { &[0x40, 0x80, 0xC0] } else { &[0x04, 0x08, 0x10, 0x20, 0x40, 0x80] };
        for bits in reserved {
            let subscribe = encode::subscribe(v, 1, &[], &[("a", 0), ("b", *bits | 1)]);
            refuse(b, v, &format!("{bits:#04x}"), subscribe, &[0x81]);
        }
    });
}

#[test]
fn u5_3_8_3_1_mqtt311_3_8_3_4_qos_3_is_refused() {
    each_of(&[V5, V311], |b, v| {
        refuse(b, v, "QoS 3", encode::subscribe(v, 1, &[], &[("a", 3)]), &[0x82]);
    });
}

#[test]
fn u5_3_8_3_2_retain_handling_3_is_refused() {
    each(|b| refuse(b, V5, "3", encode::subscribe(V5, 1, &[], &[("a", 0x31)]), &[0x82]));
}

#[test]
fn mqtt_3_8_3_3_no_local_keeps_a_clients_own_messages_from_it() {
    each(|b| {
        let topic = name("t");
        let mut client = Client::fresh(b, V5);
        client.subscribe(&topic, 2 | 0x04);
        for qos in 0..=2 {
            client.say(&topic, "own", qos);
        }
        client.expect_quiet();
        let mut other = Client::fresh(b, V5);
        other.say(&topic, "another's", 1);
        assert_eq!(client.expect_publish_acked().text(), "another's");
        // Per subscription: one without it brings the message still.
        client.subscribe(&format!("{topic}/#"), 1);
        client.say(&topic, "own", 1);
        assert_eq!(client.expect_publish_acked().text(), "own");
        client.expect_quiet();
    });
}

#[test]
fn mqtt_3_8_3_3_no_local_goes_by_the_client_id_across_connections() {
    each(|b| {
        let topic = name("t");
        let connect = Connect::new(V5, name("c")).persistent();
        let mut client = Client::accepted(b, &connect);
        client.subscribe(&topic, 1 | 0x04);
        client.send_publish(&Publish::new(&*topic, "own").qos(1, 4));
        client.expect_ack(PUBACK, 4);
        client.cut();
        let mut client = Client::accepted(b, &connect);
        client.say(&topic, "own again", 1);
        client.expect_quiet();
    });
}

#[test]
fn mqtt_3_8_3_3_no_local_is_not_for_who_comes_back_with_3_1_1() {
    each(|b| {
        let (topic, id) = (name("t"), name("c"));
        let mut client = Client::accepted(b, &Connect::new(V5, &*id).persistent());
        client.subscribe(&topic, 1 | 0x04);
        client.disconnect();
        for (version, comes) in [(V311, true), (V5, false), (V31, true)] {
            let mut client = Client::accepted(b, &Connect::new(version, &*id).persistent());
            client.say(&topic, "own", 1);
            if comes {
                assert_eq!(client.expect_publish_acked().text(), "own");
            }
            client.expect_quiet();
            client.disconnect();
        }
    });
}

#[test]
fn mqtt_3_9_2_1_mqtt_3_9_2_2_suback_fits_a_small_maximum_packet_size() {
    each(|b| {
        let (mut client, topic) = super::acks::small(b);
        assert_eq!(
            client.subscribe_all(1, &[], &[(&topic, 1), ("a/#/b", 1), ("$share/g", 1)]),
            [1, 0x8F, 0x8F]
        );
    });
}

#[test]
fn mqtt_3_8_4_6_mqtt_3_10_4_6_mqtt311_3_8_4_4_a_packet_may_name_thousands_of_filters() {
    each_of(&[V5, V311], |b, v| {
        let base = name("t");
        let filters: Vec<String> = (0..5000).map(|n| format!("{base}/{n}")).collect();
        let asked: Vec<(&str, u8)> = filters.iter().enumerate().map(|(n, f)| (&**f, (n % 3) as u8)).collect();
        let mut client = Client::fresh(b, v);
        // What comes behind it waits for it, and a filter that is refused is a code in its place.
        let subscribe = encode::subscribe(v, 1, &[], &asked);
        client.send([&subscribe[..], &Publish::new(&*filters[4999], "own").bytes(v)].concat());
        let expected: Vec<u8> = asked.iter().map(|(_, qos)| *qos).collect();
        assert_eq!(client.expect_suback(1), expected);
        assert_eq!(client.expect_publish().text(), "own");
        let mut publisher = Client::fresh(b, v);
        for n in [0, 255, 256, 2500, 4999] {
            publisher.say(&filters[n], n.to_string(), 0);
            assert_eq!(client.expect_publish().text(), n.to_string());
        }
        let mut asked: Vec<&str> = filters[..4999].iter().map(|filter| &**filter).collect();
        asked.push("never/there");
        let codes = client.unsubscribe(&asked);
        if v == V5 {
            assert_eq!(codes, [vec![0; 4999], vec![0x11]].concat());
        }
        publisher.say(&filters[4998], "gone", 0);
        publisher.say(&filters[4999], "kept", 0);
        assert_eq!(client.expect_publish().text(), "kept");
    });
}

#[test]
fn u5_3_1_4_3_a_session_whose_subscribe_is_not_over_may_be_taken_over() {
    each_of(&[V5, V311], |b, v| {
        let connect = Connect::new(v, name("c")).persistent();
        let base = name("t");
        let filters: Vec<String> = (0..20_000).map(|n| format!("{base}/{n}")).collect();
        let asked: Vec<(&str, u8)> = filters.iter().map(|filter| (&**filter, 1)).collect();
        let mut first = Client::accepted(b, &connect);
        first.send(encode::subscribe(v, 1, &[], &asked));
        let mut second = Client::accepted(b, &connect);
        Client::fresh(b, v).say(&filters[0], "x", 1);
        assert_eq!(second.expect_publish_acked().text(), "x");
        second.ping();
    });
}
