//! Topic Names and Topic Filters (4.7).

use crate::support::encode;
use crate::support::*;

/// Subscribes to the filters, publishes to the names, and compares who got what.
fn check(broker: &Broker, version: Version, filter: &str, matching: &[&str], other: &[&str]) {
    let mut client = Client::fresh(broker, version);
    client.subscribe(filter, 0);
    let mut publisher = Client::fresh(broker, version);
    for topic in matching.iter().chain(other) {
        publisher.send_publish(&Publish::new(*topic, "x"));
    }
    publisher.ping();
    for topic in matching {
        let got = client.expect_publish();
        assert_eq!(got.topic, *topic, "{filter}");
    }
    client.expect_quiet();
}

/// The same below a level of its own, so that tests do not hear each other.
fn check_below(broker: &Broker, version: Version, filter: &str, matching: &[&str], other: &[&str]) {
    let base = name("t");
    let below = |names: &[&str]| -> Vec<String> { names.iter().map(|n| format!("{base}/{n}")).collect() };
    let (matching, other) = (below(matching), below(other));
    let borrow = |names: &[String]| -> Vec<&'static str> {
        names.iter().map(|n| &*Box::leak(n.clone().into_boxed_str())).collect()
    };
    check(broker, version, &format!("{base}/{filter}"), &borrow(&matching), &borrow(&other));
}

#[test]
fn u5_4_7_1_1_u311_4_7_1_the_multi_level_wildcard_matches_the_parent_and_all_below() {
    each_version(|b, v| {
        check_below(
            b,
            v,
            "sport/#",
            &["sport", "sport/", "sport/a", "sport/a/b/c", "sport//"],
            &["sports", "spor", ""],
        );
        check_below(b, v, "#", &["", "a", "a/b", "/"], &[]);
    });
}

#[test]
fn u5_4_7_1_2_u311_4_7_1_the_single_level_wildcard_matches_one_level_also_an_empty_one() {
    each_version(|b, v| {
        check_below(b, v, "sport/+", &["sport/a", "sport/"], &["sport", "sport/a/b", "sport//"]);
        check_below(b, v, "+/+", &["a/b", "/", "/b", "a/"], &["a", "a/b/c"]);
        check_below(b, v, "a/+/c", &["a/b/c", "a//c"], &["a/c", "a/b/b/c", "a/b", "a/b/d"]);
        check_below(b, v, "+", &["a", ""], &["a/b", "/"]);
        check_below(b, v, "+/#", &["a", "a/b", "", "/", "a/b/c"], &[]);
        check_below(b, v, "a/+/#", &["a/b", "a/", "a/b/c/d"], &["a"]);
    });
}

#[test]
fn u5_4_7_1_3_u311_4_7_1_leading_trailing_and_adjacent_slashes_make_empty_levels() {
    each_version(|b, v| {
        let base = name("t");
        for (filter, matches) in [
            (format!("/{base}"), [true, false, false, false]),
            (format!("+/{base}"), [true, false, false, false]),
            (base.clone(), [false, true, false, false]),
            (format!("{base}/"), [false, false, true, false]),
            (format!("{base}//+"), [false, false, false, true]),
        ] {
            let topics = [format!("/{base}"), base.clone(), format!("{base}/"), format!("{base}//x")];
            let mut client = Client::fresh(b, v);
            client.subscribe(&filter, 0);
            let mut publisher = Client::fresh(b, v);
            for (topic, matches) in topics.iter().zip(matches) {
                publisher.say(topic, "x", 0);
                if matches {
                    assert_eq!(client.expect_publish().topic, *topic, "{filter}");
                }
            }
            client.expect_quiet();
        }
    });
}

#[test]
fn mqtt_4_7_1_1_mqtt311_4_7_1_2_misplaced_multi_level_wildcards_are_refused() {
    refused_filters(&["sport/tennis#", "sport/#/ranking", "#/a", "a#", "##", "a/#b", "/#/", "a/b#/c"]);
}

#[test]
fn mqtt_4_7_1_2_mqtt311_4_7_1_3_a_single_level_wildcard_fills_its_level() {
    refused_filters(&["sport+", "+a", "a/b+", "a/+b/c", "++", "a/++", "+#", "#+"]);
}

#[test]
fn mqtt_4_7_3_1_mqtt311_4_7_3_1_an_empty_filter_is_refused() {
    refused_filters(&[""]);
}

/// The standard leaves open how such a filter is refused. ringmq refuses that filter alone, in SUBACK.
fn refused_filters(filters: &[&str]) {
    each_of(&[V5, V311], |b, v| {
        let code = if v == V5 { 0x8F } else { 0x80 };
        let mut client = Client::fresh(b, v);
        for filter in filters {
            assert_eq!(client.subscribe_all(3, &[], &[(filter, 1)]), [code], "{filter:?}");
        }
        let fine = name("t");
        client.subscribe(&fine, 0);
        client.say(&fine, "x", 1);
        assert_eq!(client.expect_publish().topic, fine);
    });
}

#[test]
fn mqtt_4_7_2_1_mqtt311_4_7_2_1_a_leading_wildcard_does_not_match_a_dollar_topic() {
    each_version(|b, v| {
        // The broker publishes under $SYS every second.
        let mut plain = Client::fresh(b, v);
        plain.subscribe("#", 0);
        let mut single = Client::fresh(b, v);
        single.subscribe("+/broker/#", 0);
        let mut asked = Client::fresh(b, v);
        asked.subscribe("$SYS/#", 0);
        assert!(asked.expect_publish().topic.starts_with("$SYS/"), "[U5-4.7.2-1] the server's own use");
        let ends = std::time::Instant::now() + std::time::Duration::from_millis(1300);
        while std::time::Instant::now() < ends {
            for client in [&mut plain, &mut single] {
                if let Event::Packet(Packet::Publish(publish)) =
                    client.next(std::time::Duration::from_millis(20))
                {
                    assert!(!publish.topic.starts_with('$'), "{}", publish.topic);
                }
            }
        }
    });
}

#[test]
fn u5_4_7_2_1_dollar_topics_of_other_names_are_not_special_but_for_leading_wildcards() {
    // A server should keep clients from using `$` topics among each other. ringmq keeps them from `$SYS`, which is
    // its own; other names are left to clients, as mosquitto leaves them.
    each_of(&[V5, V311], |b, v| {
        let base = format!("${}", name("t"));
        let topic = format!("{base}/x");
        let mut exact = Client::fresh(b, v);
        exact.subscribe(&format!("{base}/+"), 0);
        let mut wild = Client::fresh(b, v);
        wild.subscribe("+/x", 0);
        Client::fresh(b, v).say(&topic, "x", 0);
        assert_eq!(exact.expect_publish().topic, topic);
        while let Event::Packet(Packet::Publish(publish)) = wild.next(std::time::Duration::from_millis(50)) {
            assert_ne!(publish.topic, topic);
        }
    });
}

#[test]
fn mqtt_4_7_3_2_mqtt311_4_7_3_2_names_and_filters_have_no_u0000() {
    each_of(&[V5, V311], |b, v| {
        refuse(b, v, "name", Publish::new("a\0b", "x").bytes(v), &[0x81]);
        refuse(b, v, "filter", encode::subscribe(v, 1, &[], &[("a/\0/+", 0)]), &[0x81]);
        refuse(b, v, "filter to remove", encode::unsubscribe(v, 1, &["\0"]), &[0x81]);
    });
}

#[test]
fn mqtt_4_7_3_3_mqtt311_4_7_3_3_names_and_filters_may_have_65535_bytes() {
    each_version(|b, v| {
        let topic = format!("{}/{}", name("t"), "x".repeat(65_535));
        let topic = &topic[..65_535];
        let mut client = Client::fresh(b, v);
        client.subscribe(topic, 1);
        client.say(topic, "at the limit", 1);
        let got = client.expect_publish_acked();
        assert_eq!((got.topic.len(), got.text().as_str()), (65_535, "at the limit"));
    });
}

#[test]
fn mqtt_4_7_3_4_mqtt311_4_7_3_4_u5_4_7_3_1_u311_4_7_1_names_are_compared_byte_by_byte() {
    each_version(|b, v| {
        let base = name("t");
        // Case, white space, composed and decomposed letters, and characters that look alike.
        let topics = [
            format!("{base}/accounts"),
            format!("{base}/ACCOUNTS"),
            format!("{base}/Accounts"),
            format!("{base}/accounts "),
            format!("{base}/ accounts"),
            format!("{base}/accounts payable"),
            format!("{base}/é"),
            format!("{base}/e\u{301}"),
            format!("{base}/Ａ"),
            format!("{base}/A"),
            format!("{base}/%41"),
            format!("{base}/./A"),
            format!("{base}/../A"),
        ];
        let mut clients: Vec<Client> = topics
            .iter()
            .map(|topic| {
                let mut client = Client::fresh(b, v);
                client.subscribe(topic, 0);
                client
            })
            .collect();
        let mut publisher = Client::fresh(b, v);
        for topic in &topics {
            publisher.say(topic, topic, 0);
        }
        for (client, topic) in clients.iter_mut().zip(&topics) {
            assert_eq!(client.expect_publish().text(), *topic);
            client.expect_quiet();
        }
    });
}

#[test]
fn u5_4_7_3_1_u311_4_7_1_a_lone_slash_is_a_topic() {
    each_version(|b, v| {
        let mut client = Client::fresh(b, v);
        client.subscribe("/", 0);
        let text = name("x");
        Client::fresh(b, v).say("/", &text, 0);
        while client.expect_publish().text() != text {}
        let mut wild = Client::fresh(b, v);
        wild.subscribe("+/+", 0);
        Client::fresh(b, v).say("/", &text, 0);
        loop {
            let got = wild.expect_publish();
            if (got.topic.as_str(), got.text()) == ("/", text.clone()) {
                return;
            }
        }
    });
}

#[test]
fn u5_4_7_3_1_a_hundred_levels_are_matched() {
    each_version(|b, v| {
        let base = name("t");
        let deep = format!("{base}{}", "/x".repeat(100));
        let filters = [deep.clone(), format!("{base}{}", "/+".repeat(100)), format!("{base}/#")];
        let mut client = Client::fresh(b, v);
        for filter in &filters {
            client.subscribe(filter, 0);
            client.say(&deep, "x", 1);
            assert_eq!(client.expect_publish().topic, deep);
            client.unsubscribe(&[filter]);
        }
    });
}
