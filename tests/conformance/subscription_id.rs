//! Subscription Identifiers and overlapping subscriptions (3.3.4, 3.8.2.1.2).

use crate::support::encode::{self, packet, string, vbi};
use crate::support::*;

fn id(number: u32) -> Property {
    Property::SubscriptionId(number)
}

#[test]
fn mqtt_3_3_4_2_mqtt311_3_3_5_1_overlapping_subscriptions_bring_the_highest_qos() {
    // A server may send one copy or one per subscription; ringmq sends one, at the highest QoS that was granted.
    each_version(|b, v| {
        let base = name("t");
        let topic = format!("{base}/a/b");
        let filters = [topic.clone(), format!("{base}/+/b"), format!("{base}/#")];
        for highest in 0..3 {
            for published in 0..=2 {
                let mut client = Client::fresh(b, v);
                for (index, filter) in filters.iter().enumerate() {
                    client.subscribe(filter, if index == highest { 2 } else { (index % 2) as u8 });
                }
                Client::fresh(b, v).say(&topic, "x", published);
                assert_eq!(client.expect_publish_acked().qos, published);
                client.expect_quiet();
            }
        }
    });
}

#[test]
fn mqtt_3_3_4_3_mqtt_3_3_4_4_one_copy_carries_all_identifiers_that_match() {
    each(|b| {
        let base = name("t");
        let mut client = Client::fresh(b, V5);
        client.subscribe_with(&format!("{base}/a"), 0, &[id(1)]);
        client.subscribe_with(&format!("{base}/+"), 2, &[id(268_435_455)]);
        client.subscribe_with(&format!("{base}/#"), 1, &[id(128)]);
        client.subscribe_with(&format!("{base}/b"), 1, &[id(4)]);
        client.subscribe(&format!("{base}/+/#"), 1);
        client.subscribe(&format!("{base}/a/#"), 1);
        let mut publisher = Client::fresh(b, V5);
        for qos in 0..=2 {
            publisher.say(&format!("{base}/a"), "x", qos);
            let got = client.expect_publish_acked();
            assert_eq!((got.subscription_ids(), got.qos), (vec![1, 128, 268_435_455], qos));
        }
        publisher.say(&format!("{base}/b"), "x", 1);
        assert_eq!(client.expect_publish_acked().subscription_ids(), [4, 128, 268_435_455]);
        client.expect_quiet();
    });
}

#[test]
fn u5_3_3_4_4_an_identifier_of_several_subscriptions_is_sent_with_each_or_once() {
    each(|b| {
        let base = name("t");
        let mut client = Client::fresh(b, V5);
        client.subscribe_with(&format!("{base}/a"), 0, &[id(7)]);
        client.subscribe_with(&format!("{base}/+"), 0, &[id(7)]);
        Client::fresh(b, V5).say(&format!("{base}/a"), "x", 0);
        let ids = client.expect_publish().subscription_ids();
        assert!(ids == [7] || ids == [7, 7], "{ids:?}");
        client.expect_quiet();
    });
}

#[test]
fn u5_3_8_2_2_u5_3_8_4_5_a_subscription_keeps_the_last_identifier_or_none() {
    each(|b| {
        let topic = name("t");
        let mut client = Client::fresh(b, V5);
        let mut publisher = Client::fresh(b, V5);
        for (properties, expected) in
            [(vec![id(5)], vec![5]), (vec![id(6)], vec![6]), (vec![], vec![]), (vec![id(7)], vec![7])]
        {
            client.subscribe_with(&topic, 0, &properties);
            publisher.say(&topic, "x", 0);
            assert_eq!(client.expect_publish().subscription_ids(), expected);
        }
        client.unsubscribe(&[&topic]);
        client.subscribe(&topic, 0);
        publisher.say(&topic, "x", 0);
        assert!(client.expect_publish().subscription_ids().is_empty());
    });
}

#[test]
fn u5_3_8_4_5_identifiers_live_as_long_as_the_session() {
    each(|b| {
        let topic = name("t");
        let connect = Connect::new(V5, name("c")).persistent();
        let mut client = Client::accepted(b, &connect);
        client.subscribe_with(&topic, 1, &[id(300)]);
        client.disconnect();
        let mut publisher = Client::fresh(b, V5);
        publisher.say(&topic, "queued", 1);
        let mut client = Client::accepted(b, &connect);
        assert_eq!(client.expect_publish_acked().subscription_ids(), [300]);
        publisher.say(&topic, "live", 1);
        assert_eq!(client.expect_publish_acked().subscription_ids(), [300]);
        client.disconnect();
        let id = String::from_utf8(connect.client_id).expect("a name");
        let mut client = Client::accepted(b, &Connect::new(V5, id));
        client.subscribe(&topic, 1);
        publisher.say(&topic, "new session", 1);
        assert!(client.expect_publish_acked().subscription_ids().is_empty());
    });
}

#[test]
fn u5_3_8_4_6_after_a_new_identifier_was_used_the_old_one_is_not() {
    each(|b| {
        let topic = name("t");
        let connect = Connect::new(V5, name("c")).persistent();
        let mut client = Client::accepted(b, &connect);
        client.subscribe_with(&topic, 1, &[id(1)]);
        let mut publisher = Client::fresh(b, V5);
        publisher.say(&topic, "first", 1);
        client.expect_publish();
        client.subscribe_with(&topic, 1, &[id(2)]);
        client.cut();
        publisher.say(&topic, "second", 1);
        let mut client = Client::accepted(b, &connect);
        let ids: Vec<Vec<u32>> = (0..2).map(|_| client.expect_publish_acked().subscription_ids()).collect();
        assert!(ids == [[1], [2]] || ids == [[2], [2]], "{ids:?}");
    });
}

#[test]
fn u5_3_3_4_5_the_identifiers_are_those_of_the_receiver() {
    each(|b| {
        let topic = name("t");
        let mut clients: Vec<Client> = (1..=3)
            .map(|number| {
                let mut client = Client::fresh(b, V5);
                client.subscribe_with(&topic, 1, &[id(number)]);
                client.subscribe_with(&format!("$share/g/{topic}"), 1, &[id(10 + number)]);
                client
            })
            .collect();
        Client::fresh(b, V5).say(&topic, "x", 1);
        let mut shared = 0;
        for (client, number) in clients.iter_mut().zip(1..) {
            let mut ids = vec![client.expect_publish_acked().subscription_ids()];
            if let Event::Packet(Packet::Publish(publish)) =
                client.next(std::time::Duration::from_millis(200))
            {
                client.finish(&publish);
                ids.push(publish.subscription_ids());
                shared += 1;
            }
            ids.sort();
            assert!(ids == [vec![number]] || ids == [vec![number], vec![10 + number]], "{ids:?}");
        }
        assert_eq!(shared, 1, "one member got the shared copy");
    });
}

#[test]
fn u5_3_3_2_6_u5_3_8_2_1_identifier_0_or_two_of_them_are_refused() {
    each(|b| {
        let zero = [vec![0, 1, 2, 0x0B, 0], string("f"), vec![0]].concat();
        refuse(b, V5, "0", packet(0x82, zero), &[0x82]);
        let twice = encode::subscribe(V5, 1, &[id(1), id(2)], &[("f", 0)]);
        refuse(b, V5, "two", twice, &[0x82]);
    });
}

#[test]
fn u5_3_3_2_6_identifiers_of_every_length_are_accepted() {
    each(|b| {
        let topic = name("t");
        let mut client = Client::fresh(b, V5);
        for number in [1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455] {
            client.subscribe_with(&topic, 0, &[id(number)]);
            client.send_publish(&Publish::new(&*topic, "x"));
            assert_eq!(client.expect_publish().subscription_ids(), [number]);
        }
    });
}

#[test]
fn mqtt_3_3_4_6_a_client_may_not_publish_with_an_identifier() {
    each(|b| {
        let property = [vec![0x0B], vbi(5)].concat();
        let body = [string("t"), vec![property.len() as u8], property, b"x".to_vec()].concat();
        refuse(b, V5, "in PUBLISH", packet(0x30, body), &[0x82]);
    });
}
