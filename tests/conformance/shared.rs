//! Shared subscriptions (4.8).

use std::time::Duration;

use crate::support::encode::{self, PUBACK, PUBCOMP, PUBREC, PUBREL};
use crate::support::*;

/// What arrives at these clients until nothing does, acknowledged, as one list of texts per client.
pub fn drain(clients: &mut [Client]) -> Vec<Vec<String>> {
    let mut texts = vec![Vec::new(); clients.len()];
    let mut silent = 0;
    while silent < 4 {
        silent += 1;
        for (client, texts) in clients.iter_mut().zip(&mut texts) {
            while let Event::Packet(packet) = client.next(Duration::from_millis(25)) {
                let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                client.finish(&publish);
                texts.push(publish.text());
                silent = 0;
            }
        }
    }
    texts
}

/// So many members of a group, each with a connection of its own.
pub fn members(broker: &Broker, version: Version, count: usize, filter: &str, qos: u8) -> Vec<Client> {
    (0..count)
        .map(|_| {
            let mut client = Client::fresh(broker, version);
            client.subscribe(filter, qos);
            client
        })
        .collect()
}

pub fn sorted(texts: Vec<Vec<String>>) -> Vec<String> {
    let mut all = texts.concat();
    all.sort();
    all
}

pub fn numbers(count: usize) -> Vec<String> {
    let mut all: Vec<String> = (0..count).map(|n| format!("{n:03}")).collect();
    all.sort();
    all
}

pub fn publish_numbers(publisher: &mut Client, topic: &str, count: usize, qos: u8) {
    for text in numbers(count) {
        publisher.say(topic, text, qos);
    }
}

#[test]
fn u5_4_8_2_1_u311_x_1_each_message_goes_to_exactly_one_member() {
    // 3.1.1 knows no shared subscriptions; ringmq gives them to its clients all the same, in the same words.
    each_version(|b, v| {
        for qos in 0..=2 {
            let topic = name("t");
            let mut clients = members(b, v, 5, &format!("$share/g/{topic}"), 2);
            let mut publisher = Client::fresh(b, v);
            publish_numbers(&mut publisher, &topic, 60, qos);
            let got = drain(&mut clients);
            assert!(got.iter().filter(|texts| !texts.is_empty()).count() > 1, "the load is shared");
            assert_eq!(sorted(got), numbers(60));
        }
    });
}

#[test]
fn u5_4_8_2_2_other_groups_and_plain_subscriptions_get_copies_of_their_own() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("t");
        let mut one = members(b, v, 2, &format!("$share/one/{topic}"), 1);
        let mut two = members(b, v, 2, &format!("$share/two/{topic}"), 1);
        let mut plain = members(b, v, 2, &topic, 1);
        publish_numbers(&mut Client::fresh(b, v), &topic, 20, 1);
        assert_eq!(sorted(drain(&mut one)), numbers(20));
        assert_eq!(sorted(drain(&mut two)), numbers(20));
        for client in &mut plain {
            assert_eq!(sorted(drain(std::slice::from_mut(client))), numbers(20));
        }
    });
}

#[test]
fn u5_4_8_2_2_a_shared_copy_is_not_merged_with_a_plain_one() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("t");
        let mut client = Client::fresh(b, v);
        client.subscribe(&topic, 0);
        client.subscribe(&format!("$share/g/{topic}"), 1);
        Client::fresh(b, v).say(&topic, "x", 1);
        let mut qos: Vec<u8> = (0..2).map(|_| client.expect_publish_acked().qos).collect();
        qos.sort_unstable();
        assert_eq!(qos, [0, 1]);
        client.expect_quiet();
    });
}

#[test]
fn u5_4_8_2_3_one_name_with_another_filter_is_another_group() {
    each_of(&[V5, V311], |b, v| {
        let base = name("t");
        let mut exact = members(b, v, 2, &format!("$share/g/{base}/a"), 1);
        let mut wild = members(b, v, 2, &format!("$share/g/{base}/+"), 1);
        publish_numbers(&mut Client::fresh(b, v), &format!("{base}/a"), 20, 1);
        assert_eq!(sorted(drain(&mut exact)), numbers(20));
        assert_eq!(sorted(drain(&mut wild)), numbers(20));
    });
}

#[test]
fn u5_4_8_2_4_subscribing_again_does_not_make_a_second_member() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("t");
        let filter = format!("$share/g/{topic}");
        let mut clients = members(b, v, 2, &filter, 2);
        for qos in [1, 0, 1] {
            clients[0].subscribe(&filter, qos);
        }
        let mut publisher = Client::fresh(b, v);
        publish_numbers(&mut publisher, &topic, 40, 2);
        assert_eq!(sorted(drain(&mut clients)), numbers(40), "each once, none doubled");
        // And one UNSUBSCRIBE ends the membership.
        clients[0].unsubscribe(&[&filter]);
        publish_numbers(&mut publisher, &topic, 10, 1);
        let got = drain(&mut clients);
        assert_eq!((got[0].len(), got[1].len()), (0, 10));
    });
}

#[test]
fn u5_3_10_4_1_u5_4_8_2_5_the_last_unsubscribe_ends_the_group() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("t");
        let filter = format!("$share/g/{topic}");
        let mut clients = members(b, v, 3, &filter, 1);
        let mut publisher = Client::fresh(b, v);
        for left in (0..3).rev() {
            let codes = clients[left].unsubscribe(&[&filter]);
            assert!(v != V5 || codes == [0]);
            publish_numbers(&mut publisher, &topic, 12, 1);
            let got = drain(&mut clients);
            assert!(got[left..].iter().all(Vec::is_empty));
            assert_eq!(sorted(got), if left == 0 { Vec::new() } else { numbers(12) });
        }
        if v == V5 {
            assert_eq!(clients[0].unsubscribe(&[&filter]), [0x11]);
        }
        // Whoever subscribes now begins a new group: nothing was kept for it.
        let mut late = Client::fresh(b, v);
        late.subscribe(&filter, 1);
        late.expect_quiet();
    });
}

#[test]
fn u5_4_8_2_5_sessions_that_end_leave_the_group() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("t");
        let mut clients = members(b, v, 4, &format!("$share/g/{topic}"), 1);
        let mut publisher = Client::fresh(b, v);
        clients.remove(0).disconnect();
        clients.remove(0).cut();
        publisher.ping();
        publish_numbers(&mut publisher, &topic, 30, 1);
        assert_eq!(sorted(drain(&mut clients)), numbers(30));
    });
}

#[test]
fn u5_4_8_2_7_only_what_follows_the_share_name_is_matched() {
    each_of(&[V5, V311], |b, v| {
        let base = name("t");
        for (filter, topic, matches) in [
            (format!("$share/g//{base}"), format!("/{base}"), true),
            (format!("$share/g//{base}"), base.clone(), false),
            (format!("$share/g/{base}/#"), format!("{base}/x/y"), true),
            (format!("$share/g/+/{base}"), format!("x/{base}"), true),
            (format!("$shared/{base}"), format!("$shared/{base}"), true),
            (format!("$shared/{base}"), base.clone(), false),
            (format!("$share/{base}/{base}x"), base.clone(), false),
        ] {
            let mut client = Client::fresh(b, v);
            client.subscribe(&filter, 1);
            Client::fresh(b, v).say(&topic, "x", 1);
            if matches {
                assert_eq!(client.expect_publish_acked().topic, topic, "{filter}");
            }
            client.expect_quiet();
        }
    });
}

#[test]
fn u5_4_8_2_7_a_shared_wildcard_does_not_match_dollar_topics() {
    each_of(&[V5], |b, v| {
        let mut client = Client::fresh(b, v);
        client.subscribe("$share/g/#", 0);
        let mut asked = Client::fresh(b, v);
        asked.subscribe("$share/g/$SYS/broker/uptime", 0);
        assert_eq!(asked.expect_publish().topic, "$SYS/broker/uptime");
        let ends = std::time::Instant::now() + Duration::from_millis(300);
        while std::time::Instant::now() < ends {
            if let Event::Packet(Packet::Publish(publish)) = client.next(Duration::from_millis(20)) {
                assert!(!publish.topic.starts_with('$'), "{}", publish.topic);
            }
        }
    });
}

#[test]
fn mqtt_4_8_2_1_mqtt_4_8_2_2_ill_formed_share_names_are_refused() {
    // The standard leaves open how. ringmq refuses that filter alone, in SUBACK.
    each_of(&[V5, V311], |b, v| {
        let mut client = Client::fresh(b, v);
        for filter in
            ["$share/", "$share//t", "$share/g", "$share/g/", "$share/a+b/t", "$share/#/t", "$share/+/t"]
        {
            let code = client.subscribe_all(5, &[], &[(filter, 1)]);
            assert_eq!(code, [if v == V5 { 0x8F } else { 0x80 }], "{filter:?}");
        }
        client.ping();
    });
}

#[test]
fn mqtt_3_8_3_4_no_local_on_a_shared_subscription_is_refused() {
    each(|b| {
        let bytes = encode::subscribe(V5, 1, &[], &[("$share/g/t", 0x04)]);
        refuse(b, V5, "No Local", bytes, &[0x82]);
    });
}

#[test]
fn mqtt_4_8_2_3_each_member_gets_messages_at_its_own_qos() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("t");
        let filter = format!("$share/g/{topic}");
        let mut clients: Vec<Client> = (0..=2)
            .map(|qos| {
                let mut client = Client::fresh(b, v);
                client.subscribe(&filter, qos);
                client
            })
            .collect();
        let mut publisher = Client::fresh(b, v);
        for published in 0..=2 {
            publish_numbers(&mut publisher, &topic, 15, published);
            let mut count = 0;
            for (granted, client) in clients.iter_mut().enumerate() {
                while let Event::Packet(Packet::Publish(publish)) = client.next(Duration::from_millis(100)) {
                    client.finish(&publish);
                    assert_eq!(publish.qos, published.min(granted as u8));
                    count += 1;
                }
            }
            assert_eq!(count, 15);
        }
    });
}

#[test]
fn u5_3_8_4_2_no_retained_messages_for_a_shared_subscription() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("t");
        let mut publisher = Client::fresh(b, v);
        publisher.publish(&Publish::new(&*topic, "kept").retain().qos(1, 0));
        let handlings: &[u8] = if v == V5 { &[0x01, 0x11, 0x21] } else { &[0x01] };
        for options in handlings {
            let mut client = Client::fresh(b, v);
            client.subscribe(&format!("$share/g/{topic}"), *options);
            client.expect_quiet();
        }
        publisher.publish(&Publish::new(&*topic, "").retain());
    });
}

/// One member that is away with this message in flight, and another that is there.
fn in_flight_with_one(broker: &Broker, version: Version, qos: u8) -> (Connect, Client, Publish) {
    let topic = name("t");
    let filter = format!("$share/g/{topic}");
    let connect = Connect::new(version, name("c")).persistent();
    let mut holder = Client::accepted(broker, &connect);
    holder.subscribe(&filter, 2);
    Client::fresh(broker, version).say(&topic, "held", qos);
    let held = holder.expect_publish();
    let mut other = Client::fresh(broker, version);
    other.subscribe(&filter, 2);
    holder.cut();
    (connect, other, held)
}

#[test]
fn mqtt_4_8_2_4_qos_2_in_flight_waits_for_its_member() {
    each_of(&[V5, V311], |b, v| {
        let (connect, mut other, held) = in_flight_with_one(b, v, 2);
        other.expect_quiet();
        let mut holder = Client::accepted(b, &connect);
        let again = holder.expect_publish();
        assert_eq!((again.packet_id, again.dup, again.text().as_str()), (held.packet_id, true, "held"));
        holder.ack(PUBREC, again.packet_id);
        holder.expect_ack(PUBREL, again.packet_id);
        holder.ack(PUBCOMP, again.packet_id);
        holder.expect_quiet();
        other.expect_quiet();
    });
}

#[test]
fn mqtt_4_8_2_5_qos_2_in_flight_goes_to_no_one_else_when_the_session_ends() {
    each_of(&[V5, V311], |b, v| {
        let (connect, mut other, _) = in_flight_with_one(b, v, 2);
        let id = String::from_utf8(connect.client_id).expect("a name");
        Client::accepted(b, &Connect::new(v, id)).expect_quiet();
        other.expect_quiet();
        std::thread::sleep(Duration::from_millis(200));
        other.expect_quiet();
    });
}

#[test]
fn u5_4_8_2_6_qos_1_in_flight_moves_to_another_member_when_the_session_ends() {
    each_of(&[V5, V311], |b, v| {
        let (connect, mut other, _) = in_flight_with_one(b, v, 1);
        let id = String::from_utf8(connect.client_id).expect("a name");
        Client::accepted(b, &Connect::new(v, id)).expect_quiet();
        assert_eq!(other.expect_texts(1), ["held"]);
        other.expect_quiet();
    });
}

/// They were nobody's once the subscription was gone, and dropped when the connection was.
#[test]
fn mqtt_3_1_2_23_mqtt311_3_1_2_4_u5_4_1_1_what_waits_for_a_member_outlives_its_unsubscribe() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("t");
        let filter = format!("$share/g/{topic}");
        let connect = Connect::new(v, name("c")).persistent();
        let narrow =
            if v == V5 { connect.clone().with(Property::ReceiveMaximum(1)) } else { connect.clone() };
        let mut client = Client::accepted(b, &narrow);
        client.subscribe(&filter, 1);
        let mut publisher = Client::fresh(b, v);
        // 3.1.1 has no Receive Maximum; the broker's own is 1,024.
        let count = if v == V5 { 5 } else { 1030 };
        publish_numbers(&mut publisher, &topic, count, 1);
        client.expect_publish();
        let _others = members(b, v, 1, &filter, 1);
        client.unsubscribe(&[&filter]);
        client.cut();
        std::thread::sleep(Duration::from_millis(100));
        let mut back = Client::accepted(b, &connect);
        let mut got = back.expect_texts(count);
        got.sort();
        assert_eq!(got, numbers(count));
        back.expect_quiet();
    });
}

#[test]
fn mqtt_4_8_2_6_a_message_that_a_member_refuses_is_offered_to_no_other() {
    each(|b| {
        let topic = name("t");
        let mut clients = members(b, V5, 3, &format!("$share/g/{topic}"), 2);
        let mut publisher = Client::fresh(b, V5);
        for qos in [1, 2] {
            publisher.say(&topic, "refused", qos);
            let mut seen = 0;
            for _ in 0..2 {
                for client in &mut clients {
                    if let Event::Packet(Packet::Publish(publish)) = client.next(Duration::from_millis(60)) {
                        client.ack_code(if qos == 1 { PUBACK } else { PUBREC }, publish.packet_id, 0x83);
                        seen += 1;
                    }
                }
            }
            assert_eq!(seen, 1);
        }
        clients.iter_mut().for_each(Client::expect_quiet);
    });
}

#[test]
fn u5_4_8_2_1_members_that_are_there_come_before_those_that_are_away() {
    each_of(&[V5, V311], |b, v| {
        let topic = name("t");
        let filter = format!("$share/g/{topic}");
        let away = Connect::new(v, name("c")).persistent();
        let mut client = Client::accepted(b, &away);
        client.subscribe(&filter, 1);
        client.disconnect();
        let mut publisher = Client::fresh(b, v);
        let mut here = members(b, v, 2, &filter, 1);
        publish_numbers(&mut publisher, &topic, 20, 1);
        assert_eq!(sorted(drain(&mut here)), numbers(20));
        // With nobody there, a message is kept for a member that may come back.
        here.drain(..).for_each(Client::disconnect);
        publisher.ping();
        publish_numbers(&mut publisher, &topic, 5, 1);
        let mut back = [Client::accepted(b, &away)];
        assert_eq!(sorted(drain(&mut back)), numbers(5));
    });
}
