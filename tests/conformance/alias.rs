//! Topic Aliases in both directions (3.3.2.3.4).

use crate::support::*;

/// An alias that the broker allows in any case.
fn alias(publish: Publish, alias: u16) -> Publish {
    publish.with(Property::TopicAlias(alias))
}

/// The broker's Topic Alias Maximum as it announces it.
fn announced(broker: &Broker) -> u16 {
    let connack = Client::connect(broker, &Connect::new(V5, name("c"))).1;
    connack
        .properties
        .iter()
        .find_map(|p| if let Property::TopicAliasMaximum(max) = p { Some(*max) } else { None })
        .unwrap_or(0)
}

#[test]
fn mqtt_3_3_2_12_every_alias_up_to_the_announced_maximum_is_accepted() {
    each(|b| {
        let max = announced(b);
        assert!(max > 0, "ringmq takes aliases");
        let base = name("t");
        let mut subscriber = Client::fresh(b, V5);
        subscriber.subscribe(&format!("{base}/+"), 0);
        let mut publisher = Client::fresh(b, V5);
        let used: Vec<u16> = (1..=max.min(64)).chain([max]).collect();
        for number in &used {
            publisher.send_publish(&alias(Publish::new(format!("{base}/{number}"), "set"), *number));
            assert_eq!(subscriber.expect_publish().topic, format!("{base}/{number}"));
        }
        for number in &used {
            publisher.send_publish(&alias(Publish::new("", "used"), *number));
            let got = subscriber.expect_publish();
            assert_eq!((got.topic, got.payload.as_slice()), (format!("{base}/{number}"), b"used".as_slice()));
        }
    });
}

#[test]
fn u5_3_3_2_5_a_known_alias_with_a_topic_is_set_anew() {
    each(|b| {
        let (one, two) = (name("t"), name("t"));
        let mut subscriber = Client::fresh(b, V5);
        subscriber.subscribe(&one, 0);
        subscriber.subscribe(&two, 0);
        let mut publisher = Client::fresh(b, V5);
        for topic in [&one, &two, &one] {
            publisher.send_publish(&alias(Publish::new(topic.as_str(), "set"), 1));
            publisher.send_publish(&alias(Publish::new("", "used"), 1));
            assert_eq!(subscriber.expect_publish().topic, *topic);
            assert_eq!(subscriber.expect_publish().topic, *topic);
        }
    });
}

#[test]
fn mqtt_3_3_2_8_u5_3_3_4_1_alias_0_is_refused() {
    each(|b| {
        refuse(b, V5, "with a topic", alias(Publish::new("t", "x"), 0).bytes(V5), &[0x94]);
        refuse(b, V5, "without", alias(Publish::new("", "x"), 0).bytes(V5), &[0x94]);
    });
}

#[test]
fn mqtt_3_3_2_9_mqtt_3_2_2_17_u5_3_3_4_1_an_alias_above_the_maximum_is_refused() {
    each(|b| {
        let max = announced(b);
        for number in [max.saturating_add(1), u16::MAX] {
            if number > max {
                let publish = alias(Publish::new("t", "x"), number);
                refuse(b, V5, &format!("{number}"), publish.bytes(V5), &[0x94]);
            }
        }
    });
}

#[test]
fn mqtt_3_2_2_18_without_an_announced_maximum_no_alias_is_accepted() {
    each_with(&["--topic-alias-max", "0"], |broker| {
        assert_eq!(announced(broker), 0);
        refuse(broker, V5, "alias 1", alias(Publish::new("t", "x"), 1).bytes(V5), &[0x94]);
    });
}

#[test]
fn u5_3_3_4_2_an_alias_that_was_never_set_is_refused() {
    each(|b| refuse(b, V5, "alias 1", alias(Publish::new("", "x"), 1).bytes(V5), &[0x82]));
}

#[test]
fn mqtt_3_3_2_7_aliases_do_not_outlive_their_connection() {
    each(|b| {
        let topic = name("t");
        let connect = Connect::new(V5, name("c")).persistent().with(Property::TopicAliasMaximum(5));
        let mut client = Client::accepted(b, &connect);
        client.publish(&alias(Publish::new(&*topic, "set").qos(1, 1), 1));
        client.disconnect();
        let mut client = Client::accepted(b, &connect);
        client.send_publish(&alias(Publish::new("", "stale").qos(1, 2), 1));
        client.expect_refused(&[0x82]);
    });
}

#[test]
fn mqtt_3_3_2_7_a_resent_message_carries_its_topic() {
    // The rules of the client refuse an empty topic with an alias that this connection has not set.
    each(|b| {
        let topic = name("t");
        let connect = Connect::new(V5, name("c")).persistent().with(Property::TopicAliasMaximum(5));
        let mut client = Client::accepted(b, &connect);
        client.subscribe(&topic, 1);
        let mut publisher = Client::fresh(b, V5);
        for number in 0..6 {
            publisher.say(&topic, number.to_string(), 1);
        }
        for number in 0..6 {
            assert_eq!(client.expect_publish().text(), number.to_string());
        }
        client.cut();
        let mut client = Client::accepted(b, &connect);
        for number in 0..6 {
            let got = client.expect_publish_acked();
            assert_eq!((got.topic.as_str(), got.text(), got.dup), (&*topic, number.to_string(), true));
        }
    });
}

#[test]
fn mqtt_3_1_2_26_mqtt_3_3_2_11_aliases_of_the_broker_stay_within_the_clients_maximum() {
    // Each alias that arrives is held against the maximum and resolved by the rules of the client.
    each(|b| {
        let base = name("t");
        for max in [1, 3, 10] {
            let mut client =
                Client::accepted(b, &Connect::new(V5, name("c")).with(Property::TopicAliasMaximum(max)));
            client.subscribe(&format!("{base}/#"), 1);
            let mut publisher = Client::fresh(b, V5);
            for round in 0..4 {
                for number in 0..6 {
                    let topic = format!("{base}/a/topic/long/enough/to/deserve/an/alias/{number}");
                    publisher.say(&topic, format!("{round}"), round % 2);
                    let got = client.expect_publish_acked();
                    assert_eq!((got.topic, got.payload), (topic, format!("{round}").into_bytes()));
                }
            }
            client.disconnect();
        }
    });
}

#[test]
fn mqtt_3_3_2_11_the_broker_uses_aliases_where_it_may() {
    each(|b| {
        let topic = format!("{}/a/topic/that/is/long/enough/to/be/worth/an/alias", name("t"));
        let mut client =
            Client::accepted(b, &Connect::new(V5, name("c")).with(Property::TopicAliasMaximum(8)));
        client.subscribe(&topic, 0);
        let mut publisher = Client::fresh(b, V5);
        let mut with_alias = 0;
        for _ in 0..8 {
            publisher.say(&topic, "x", 0);
            let got = client.expect_publish();
            assert_eq!(got.topic, topic);
            with_alias += usize::from(got.properties.iter().any(|p| p.id() == 0x23));
        }
        assert!(with_alias >= 2, "{with_alias} of 8");
    });
}

#[test]
fn mqtt_3_1_2_27_without_a_maximum_the_broker_sends_no_alias() {
    each(|b| {
        let topic = format!("{}/a/topic/that/is/long/enough/to/be/worth/an/alias", name("t"));
        for connect in
            [Connect::new(V5, name("c")), Connect::new(V5, name("c")).with(Property::TopicAliasMaximum(0))]
        {
            let mut client = Client::accepted(b, &connect);
            client.subscribe(&topic, 0);
            let mut publisher = Client::fresh(b, V5);
            for _ in 0..5 {
                publisher.say(&topic, "x", 0);
                let got = client.expect_publish();
                assert!(got.properties.is_empty(), "{got:?}");
            }
        }
    });
}

#[test]
fn u5_3_3_2_7_the_tables_of_the_two_directions_are_independent() {
    each(|b| {
        let (up, down) = (name("up"), format!("{}/long/enough/to/be/worth/an/alias/for/a/broker", name("t")));
        let mut client =
            Client::accepted(b, &Connect::new(V5, name("c")).with(Property::TopicAliasMaximum(1)));
        client.subscribe(&down, 0);
        let mut other = Client::fresh(b, V5);
        other.subscribe(&up, 0);
        for _ in 0..3 {
            other.say(&down, "down", 0);
            assert_eq!(client.expect_publish().topic, down);
            client.send_publish(&alias(Publish::new(&*up, "up"), 1));
            assert_eq!(other.expect_publish().topic, up);
            client.send_publish(&alias(Publish::new("", "up"), 1));
            assert_eq!(other.expect_publish().topic, up);
        }
    });
}

#[test]
fn u5_3_3_2_7_an_alias_of_the_publisher_is_not_forwarded() {
    each(|b| {
        let topic = name("t");
        let mut subscriber = Client::fresh(b, V5);
        subscriber.subscribe(&topic, 0);
        let mut publisher = Client::fresh(b, V5);
        publisher.send_publish(&alias(Publish::new(&*topic, "x").retain(), 2));
        assert!(subscriber.expect_publish().properties.is_empty());
        publisher.ping();
        let mut late = Client::fresh(b, V5);
        late.subscribe(&topic, 0);
        assert!(late.expect_publish().properties.is_empty());
        publisher.publish(&Publish::new(&*topic, "").retain());
    });
}
