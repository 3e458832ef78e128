//! What outlives the process.

use std::thread;
use std::time::Duration;

use crate::runs::*;
use crate::support::encode::{PUBACK, PUBCOMP, PUBREC, PUBREL};
use crate::support::*;

/// The numbers of shards that follow each other in most tests.
const SHARDS: [u16; 3] = [1, 4, 2];

/// Runs the body in all four ways, at the same time.
fn in_all_ways(label: &str, body: impl Fn(&Runs) + Sync) {
    let body = &body;
    thread::scope(|scope| {
        let runs = WAYS.map(|way| (way, scope.spawn(move || body(&Runs::new(label, way)))));
        let failed: Vec<Way> =
            runs.into_iter().filter_map(|(way, run)| run.join().err().map(|_| way)).collect();
        assert!(failed.is_empty(), "failed: {failed:?}; see above");
    });
}

/// Options of a subscription: QoS 1, No Local, Retain As Published, Retain Handling 2.
const ALL_OPTIONS: u8 = 0x01 | 0x04 | 0x08 | 0x20;

#[test]
fn sessions_and_subscriptions_with_their_options_survive() {
    in_all_ways("subs", |runs| {
        let (one, three) = (Connect::new(V5, name("five")), Connect::new(V311, name("three")));
        let (one, three) = (one.persistent(), three.persistent());
        let mut broker = runs.start(SHARDS[0], &[]);
        let mut client = Client::accepted(&broker, &one);
        client.subscribe_with("o/all", ALL_OPTIONS, &[Property::SubscriptionId(7)]);
        client.subscribe_with("p/+", 2, &[Property::SubscriptionId(300)]);
        client.subscribe("gone/#", 1);
        client.subscribe("$share/group/s/#", 1);
        assert_eq!(client.unsubscribe(&["gone/#"]), [0]);
        Client::accepted(&broker, &three).subscribe("o/#", 1);
        for (round, shards) in SHARDS.iter().enumerate() {
            broker = runs.next(broker, *shards, &[]);
            let mut publisher = Client::fresh(&broker, V5);
            let says = [("o/all", true), ("p/one", true), ("gone/x", false), ("s/x", false)];
            for (topic, retain) in says {
                let publish = Publish::new(topic, format!("{round} {topic}")).qos(2, 0);
                publisher.publish(&if retain { publish.retain() } else { publish });
            }
            let mut client = resumed(&broker, &one);
            let mut got: Vec<_> = (0..3).map(|_| client.expect_publish_acked()).collect();
            got.sort_by_key(|publish| publish.topic.clone());
            let got: Vec<_> =
                got.iter().map(|one| (&*one.topic, one.qos, one.retain, one.subscription_ids())).collect();
            let all =
                [("o/all", 1, true, vec![7]), ("p/one", 2, false, vec![300]), ("s/x", 1, false, vec![])];
            assert_eq!(got, all, "round {round}");
            // No Local.
            client.say("o/all", "own", 1);
            on_disk(&mut client);
            client.expect_quiet();
            let mut client = resumed(&broker, &three);
            assert_eq!(client.expect_texts(2), [format!("{round} o/all"), "own".to_owned()]);
            on_disk(&mut client);
        }
    });
}

#[test]
fn queued_messages_and_those_in_flight_survive_in_their_order() {
    in_all_ways("queue", |runs| {
        let connect = Connect::new(V5, name("sub")).persistent().with(Property::ReceiveMaximum(2));
        let topic = name("t");
        let mut broker = runs.start(SHARDS[0], &[]);
        let mut client = Client::accepted(&broker, &connect);
        client.subscribe(&topic, 2);
        let mut publisher = Client::accepted(&broker, &Connect::new(V5, name("pub")).persistent());
        for number in 0..6 {
            publisher.say(&topic, number.to_string(), 1 + number % 2);
        }
        let (first, second) = (client.expect_publish(), client.expect_publish());
        assert_eq!((first.qos, second.qos, second.dup), (1, 2, false));
        client.ack(PUBREC, second.packet_id);
        client.expect_ack(PUBREL, second.packet_id);
        drop((client, publisher));
        let mut third_id = None;
        for shards in SHARDS {
            broker = runs.next(broker, shards, &[]);
            let mut client = resumed(&broker, &connect);
            // A PUBREL takes nothing of the client's Receive Maximum, so the next message is on its way too.
            let mut packets = [(); 3].map(|()| client.expect_packet());
            packets.sort_by_key(|packet| matches!(packet, Packet::Pubrel(_)));
            let [Packet::Publish(again), Packet::Publish(third), Packet::Pubrel(pubrel)] = &packets else {
                panic!("{packets:?}")
            };
            assert_eq!((again.dup, again.packet_id, &*again.text()), (true, first.packet_id, "0"));
            assert_eq!((third.packet_id, &*third.text()), (third_id.unwrap_or(third.packet_id), "2"));
            assert!(third.dup || third_id.is_none());
            third_id = Some(third.packet_id);
            assert_eq!(pubrel.packet_id, second.packet_id);
            on_disk(&mut client);
        }
        broker = runs.next(broker, SHARDS[0], &[]);
        let mut client = resumed(&broker, &connect);
        let _ = [(); 3].map(|()| client.expect_packet());
        client.ack(PUBACK, first.packet_id);
        client.ack(PUBCOMP, second.packet_id);
        client.ack(PUBACK, third_id.expect("its identifier"));
        let texts: Vec<_> = (3..6).map(|_| client.expect_publish_acked()).collect();
        let texts: Vec<_> = texts.iter().map(|one| (one.qos, one.text(), one.dup)).collect();
        let rest = [(2, "3"), (1, "4"), (2, "5")];
        assert_eq!(texts, rest.map(|(qos, text)| (qos, text.to_owned(), false)));
        on_disk(&mut client);
        broker = runs.next(broker, SHARDS[1], &[]);
        resumed(&broker, &connect).expect_quiet();
    });
}

#[test]
fn an_identifier_of_qos_2_is_known_until_pubrel() {
    in_all_ways("received", |runs| {
        let connect = Connect::new(V5, name("pub")).persistent();
        let subscriber = Connect::new(V5, name("sub")).persistent();
        let topic = name("t");
        let mut broker = runs.start(SHARDS[0], &[]);
        Client::accepted(&broker, &subscriber).subscribe(&topic, 2);
        let mut client = Client::accepted(&broker, &connect);
        let publish = Publish::new(&*topic, "once").qos(2, 77);
        client.send_publish(&publish);
        client.expect_ack(PUBREC, 77);
        for shards in SHARDS {
            broker = runs.next(broker, shards, &[]);
            let mut client = resumed(&broker, &connect);
            client.send_publish(&publish.clone().dup());
            client.expect_ack(PUBREC, 77);
        }
        let mut client = resumed(&broker, &connect);
        client.ack(PUBREL, 77);
        assert_eq!(client.expect_ack(PUBCOMP, 77).code, 0);
        broker = runs.next(broker, SHARDS[0], &[]);
        let mut client = resumed(&broker, &connect);
        client.ack(PUBREL, 77);
        assert_eq!(client.expect_ack(PUBCOMP, 77).code, 0x92, "the identifier was free");
        let mut subscriber = resumed(&broker, &subscriber);
        assert_eq!(subscriber.expect_publish_acked().text(), "once");
        subscriber.expect_quiet();
    });
}

#[test]
fn retained_messages_survive_and_stay_cleared() {
    in_all_ways("retained", |runs| {
        let mut broker = runs.start(SHARDS[0], &[]);
        let mut client = Client::fresh(&broker, V5);
        for number in 0..20 {
            client.say_retained(&format!("r/{number}"), "old");
            client.say_retained(&format!("r/{number}"), format!("value {number}"));
        }
        let property = || Property::ContentType("text".into());
        client.publish(&Publish::new("r/0", "value 0").retain().qos(2, 0).with(property()));
        client.say_retained("r/3", "");
        client.publish(&Publish::new("r/4", "value 4").retain().qos(1, 0).with(Property::MessageExpiry(1)));
        thread::sleep(Duration::from_millis(1100));
        for shards in SHARDS {
            broker = runs.next(broker, shards, &[]);
            let mut client = Client::fresh(&broker, V5);
            client.subscribe("r/#", 1);
            let mut got: Vec<_> = (0..18).map(|_| client.expect_publish_acked()).collect();
            client.expect_quiet();
            got.sort_by_key(|one| one.topic[2..].parse::<u32>().expect("a number"));
            let expected: Vec<u32> = (0..20).filter(|number| ![3, 4].contains(number)).collect();
            for (one, number) in got.iter().zip(expected) {
                assert_eq!((&*one.topic, one.text()), (&*format!("r/{number}"), format!("value {number}")));
                assert!(one.retain && one.properties.contains(&property()) == (number == 0), "{one:?}");
            }
        }
    });
}

#[test]
fn the_will_of_a_connected_client_goes_out_after_the_grace_unless_it_comes_back() {
    in_all_ways("wills", |runs| {
        let topic = name("w");
        let mortal = |label: &str, delay_s: u32| {
            let will = Will::new(format!("{topic}/{label}"), "dead").qos(1).retain();
            let will = will.with(Property::WillDelay(delay_s));
            Connect::new(V5, name(label)).persistent().will(will)
        };
        let (gone, gone_late, back, back_late) =
            (mortal("gone", 0), mortal("late", 3), mortal("back", 0), mortal("backlate", 3));
        let broker = runs.start(1, &[]);
        let clients = [&gone, &gone_late, &back, &back_late].map(|one| Client::accepted(&broker, one));
        let began = std::time::Instant::now();
        let broker = runs.next(broker, 4, &["--will-grace", "1500ms"]);
        drop(clients);
        let mut witness = Client::fresh(&broker, V5);
        witness.subscribe(&format!("{topic}/#"), 1);
        let _here = [&back, &back_late].map(|one| resumed(&broker, one));
        assert_eq!(witness.expect_publish_acked().topic, format!("{topic}/gone"));
        assert!(began.elapsed() >= Duration::from_millis(1450), "{:?}", began.elapsed());
        assert_eq!(witness.expect_publish_acked().topic, format!("{topic}/late"));
        assert!(began.elapsed() >= Duration::from_millis(2950), "{:?}", began.elapsed());
        thread::sleep(Duration::from_millis(500));
        witness.expect_quiet();
        // What went out does so once, and is stored.
        let broker = runs.next(broker, 2, &[]);
        let _here = [&gone, &gone_late, &back, &back_late].map(|one| resumed(&broker, one));
        let mut witness = Client::fresh(&broker, V5);
        witness.subscribe(&format!("{topic}/#"), 1);
        let mut got = [witness.expect_publish_acked(), witness.expect_publish_acked()].map(|one| one.topic);
        got.sort();
        assert_eq!(got, [format!("{topic}/gone"), format!("{topic}/late")]);
        witness.expect_quiet();
    });
}

#[test]
fn time_goes_on_while_the_broker_is_down() {
    in_all_ways("expiry", |runs| {
        let topic = name("t");
        let of = |label: &str, expiry_s| {
            Connect::new(V5, name(label)).resume().with(Property::SessionExpiry(expiry_s))
        };
        let (short, long) = (of("short", 1), of("long", 600));
        let broker = runs.start(2, &[]);
        for connect in [&short, &long] {
            let mut client = Client::accepted(&broker, connect);
            client.subscribe(&topic, 1);
            client.disconnect();
        }
        let mut publisher = Client::fresh(&broker, V5);
        publisher.publish(&Publish::new(&*topic, "short").qos(1, 0).with(Property::MessageExpiry(1)));
        publisher.publish(&Publish::new(&*topic, "long").qos(1, 0).with(Property::MessageExpiry(600)));
        runs.end(broker);
        thread::sleep(Duration::from_millis(1200));
        let broker = runs.start(1, &["--will-grace", "0"]);
        begun(&broker, &short);
        let mut client = resumed(&broker, &long);
        let publish = client.expect_publish_acked();
        assert_eq!(publish.text(), "long");
        assert!(publish.expiry_s().is_some_and(|left| left < 600), "{publish:?}");
        client.expect_quiet();
    });
}

#[test]
fn a_session_that_ended_stays_ended() {
    in_all_ways("ends", |runs| {
        let topic = name("t");
        let ids = ["clean", "anew", "expired", "never"].map(name);
        let broker = runs.start(1, &[]);
        for id in &ids[..3] {
            let mut client = Client::accepted(&broker, &Connect::new(V5, id).persistent());
            client.subscribe(&topic, 1);
            client.disconnect();
        }
        Client::fresh(&broker, V5).say(&topic, "for those who are away", 1);
        // Clean Start with a session that is not kept, and with one that is.
        begun(&broker, &Connect::new(V5, &ids[0])).disconnect();
        let mut anew = Connect::new(V5, &ids[1]).persistent();
        anew.clean = true;
        begun(&broker, &anew).disconnect();
        // DISCONNECT may end it as well.
        let mut client = Client::accepted(&broker, &Connect::new(V5, &ids[2]).persistent());
        let ends = [Property::SessionExpiry(0)];
        client.send(encode::disconnect(0, &ends));
        while client.next(Duration::from_secs(5)) != Event::Closed {}
        // This one ends with its connection.
        let mut client = Client::accepted(&broker, &Connect::new(V5, &ids[3]).resume());
        client.subscribe(&topic, 1);
        let broker = runs.next(broker, 2, &[]);
        for id in [&ids[0], &ids[2], &ids[3]] {
            begun(&broker, &Connect::new(V5, id).resume());
        }
        resumed(&broker, &Connect::new(V5, &ids[1]).persistent()).expect_quiet();
    });
}

/// Level `process` differs in what it costs and in a loss of power alone.
#[test]
fn level_process_survives_a_kill() {
    let runs = Runs::killed("process");
    let connect = Connect::new(V5, name("sub")).persistent();
    let level = ["--durability", "process"];
    let broker = runs.start(2, &level);
    Client::accepted(&broker, &connect).subscribe("t", 1);
    let mut publisher = Client::fresh(&broker, V5);
    (0..50).for_each(|number| publisher.say("t", number.to_string(), 1));
    let broker = runs.next(broker, 1, &level);
    broker.expect_said("acknowledged means kept after a loss of the process");
    let texts = resumed(&broker, &connect).expect_texts(50);
    assert!(texts.iter().enumerate().all(|(at, text)| *text == at.to_string()), "{texts:?}");
}

#[test]
fn sys_counts_the_sessions_that_are_kept() {
    let runs = Runs::killed("sys");
    let sys = ["--sys-interval", "1"];
    let ids = ["stays", "clean", "zero"].map(name);
    let broker = runs.start(2, &sys);
    let _none = Client::fresh(&broker, V5);
    for id in &ids {
        let connect = Connect::new(V5, id).persistent();
        drop(Client::accepted(&broker, &connect));
        // A second connection to the session counts no second session.
        resumed(&broker, &connect).disconnect();
    }
    expect_sys(&broker, "sessions", "3");
    begun(&broker, &Connect::new(V5, &ids[1])).disconnect();
    expect_sys(&broker, "sessions", "2");
    let mut client = resumed(&broker, &Connect::new(V5, &ids[2]).persistent());
    client.send(encode::disconnect(0, &[Property::SessionExpiry(0)]));
    client.expect_closed();
    expect_sys(&broker, "sessions", "1");
    expect_sys(&broker, "damaged", "0");
    expect_sys(&broker, "errors", "0");
    let broker = runs.next(broker, 1, &sys);
    expect_sys(&broker, "sessions", "1");
    expect_sys(&broker, "walks", "1");
    // It is no longer kept from this CONNECT on.
    resumed(&broker, &Connect::new(V5, &ids[0]).resume()).ping();
    expect_sys(&broker, "sessions", "0");
}
