//! Shared subscriptions (4.8) with members that are connected and take nothing, or not everything.

use std::time::{Duration, Instant};

use super::shared::{drain, members, numbers, publish_numbers, sorted};
use crate::support::*;

/// A member whose client may have this many messages unacknowledged.
fn narrow(broker: &Broker, filter: &str, receive_maximum: u16) -> Client {
    let connect = Connect::new(V5, name("c")).with(Property::ReceiveMaximum(receive_maximum));
    let mut client = Client::accepted(broker, &connect);
    client.subscribe(filter, 2);
    client
}

/// The same of several groups: which numbers came, of all that did.
fn texts_of(client: &mut Client) -> Vec<String> {
    drain(std::slice::from_mut(client)).concat()
}

/// 950 of 6,000 were dropped at the queue of the one that hung, while two others had nothing to do.
#[test]
fn u5_4_8_2_1_a_member_that_never_acknowledges_loses_nothing() {
    each_of(&[V5, V311], |b, v| {
        for qos in [1, 2] {
            let topic = name("t");
            let filter = format!("$share/g/{topic}");
            let mut hung = narrow(b, &filter, 50);
            let mut others = members(b, v, 2, &filter, qos);
            let mut publisher = Client::fresh(b, v);
            let mut got = Vec::new();
            for _ in 0..6 {
                publish_numbers(&mut publisher, &topic, 1000, qos);
                got.extend(drain(&mut others).concat());
            }
            // It has its window, and nothing more.
            let mut held = 0;
            while let Event::Packet(Packet::Publish(publish)) = hung.next(Duration::from_millis(100)) {
                got.push(publish.text());
                held += 1;
            }
            assert_eq!(held, 50);
            let mut all: Vec<String> = (0..6).flat_map(|_| numbers(1000)).collect();
            all.sort();
            got.sort();
            assert_eq!(got, all, "QoS {qos}");
        }
    });
}

/// What waited for a member, because all were busy, waited for as long as that one was connected.
#[test]
fn u5_4_8_2_1_what_waits_for_a_member_that_takes_nothing_goes_to_others() {
    each_with(&["--share-wait", "1"], |b| {
        let topic = name("t");
        let filter = format!("$share/g/{topic}");
        let mut hung = narrow(b, &filter, 10);
        let mut others: Vec<Client> = (0..2).map(|_| narrow(b, &filter, 10)).collect();
        publish_numbers(&mut Client::fresh(b, V5), &topic, 300, 1);
        let mut got: Vec<String> = Vec::new();
        while let Event::Packet(Packet::Publish(publish)) = hung.next(Duration::from_millis(100)) {
            got.push(publish.text());
        }
        assert_eq!(got.len(), 10);
        let deadline = Instant::now() + Duration::from_secs(60);
        while got.len() < 300 && Instant::now() < deadline {
            got.extend(drain(&mut others).concat());
        }
        got.sort();
        assert_eq!(got, numbers(300));
        // It takes part again as soon as it takes something.
        drop(others);
        for packet_id in 1..=10 {
            hung.ack(encode::PUBACK, packet_id);
        }
        publish_numbers(&mut Client::fresh(b, V5), &topic, 20, 1);
        assert_eq!(sorted(vec![texts_of(&mut hung)]), numbers(20));
    });
}

/// The queue of one member was full, and messages were dropped there while the queue of another was empty.
#[test]
fn u5_4_8_2_1_a_message_waits_where_there_is_room() {
    each_with(&["--queue-messages-max", "40", "--share-wait", "0"], |b| {
        let topic = name("t");
        let filter = format!("$share/g/{topic}");
        let mut clients: Vec<Client> = (0..3).map(|_| narrow(b, &filter, 1)).collect();
        // Three are sent, and each of the three queues is filled to its end.
        publish_numbers(&mut Client::fresh(b, V5), &topic, 123, 1);
        assert_eq!(sorted(drain(&mut clients)), numbers(123));
    });
}

#[test]
fn u5_4_8_2_1_qos_0_goes_to_a_member_whose_socket_has_room() {
    // It holds a few messages and what the kernel takes, which is much less than what is sent.
    each_with(&["--send-buffer-max", "64k"], |b| {
        let topic = name("t");
        let filter = format!("$share/g/{topic}");
        let mut hung = narrow(b, &filter, 10);
        let mut others = members(b, V5, 2, &filter, 0);
        let mut publisher = Client::fresh(b, V5);
        let text = |n: usize| format!("{n:03}{}", "x".repeat(16_000));
        let mut got = Vec::new();
        for first in (0..999).step_by(3) {
            (first..first + 3).for_each(|n| publisher.say(&topic, text(n), 0));
            publisher.ping();
            for client in &mut others {
                while let Event::Packet(Packet::Publish(publish)) = client.next(Duration::from_millis(2)) {
                    got.push(publish.text()[..3].to_string());
                }
            }
        }
        for client in others.iter_mut().chain([&mut hung]) {
            while let Event::Packet(Packet::Publish(publish)) = client.next(Duration::from_millis(1500)) {
                got.push(publish.text()[..3].to_string());
            }
        }
        assert_eq!(sorted(vec![got]), numbers(999));
    });
}

#[test]
fn mqtt_3_1_2_25_a_message_too_large_for_one_member_goes_to_another() {
    each(|b| {
        for qos in 0..=2 {
            let topic = name("t");
            let filter = format!("$share/g/{topic}");
            let connect = Connect::new(V5, name("c")).with(Property::MaximumPacketSize(200));
            let mut small = Client::accepted(b, &connect);
            small.subscribe(&filter, 2);
            let mut large = members(b, V5, 1, &filter, 2);
            let mut publisher = Client::fresh(b, V5);
            (0..20).for_each(|_| publisher.say(&topic, "x".repeat(300), qos));
            assert_eq!(drain(&mut large).concat().len(), 20, "QoS {qos}");
            small.expect_quiet();
        }
    });
}
