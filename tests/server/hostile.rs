//! Peers that mean harm: memory before login, processor time, floods, races.

use std::time::{Duration, Instant};

use crate::support::client::PATIENCE;
use crate::support::encode::{self, packet, string, vbi};
use crate::support::live::Watch;
use crate::support::property::block;
use crate::support::*;

#[test]
fn a_length_announced_before_login_costs_no_memory() {
    let broker = Broker::start(2, &["--connect-timeout", "2"]);
    drop(Client::fresh(&broker, V5));
    let before = broker.resident_bytes();
    // Headers of CONNECT packets that never come: some below the limit before login, some far above it.
    let mut peers = Vec::new();
    for index in 0..600u32 {
        let mut client = Client::open(&broker, V5);
        let length = [200, 60_000, 1_000_000, 268_435_455][index as usize % 4];
        client.send([&[0x10][..], &vbi(length)].concat());
        peers.push(client);
    }
    let mut served = Client::fresh(&broker, V5);
    served.ping();
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{} KiB for each of 600 peers that sent five bytes", (grown >> 10) / 600);
    for client in &mut peers {
        client.expect_closed();
    }
    served.ping();
}

#[test]
fn a_length_announced_after_login_costs_no_memory_either() {
    let broker = Broker::start(2, &[]);
    let mut peers: Vec<Client> = (0..300).map(|_| Client::fresh(&broker, V311)).collect();
    let before = broker.resident_bytes();
    for client in &mut peers {
        client.send([&[0x30][..], &vbi(4 << 20), b"\0\x05a/b/c"].concat());
        client.send([b'x'; 100]);
    }
    Client::fresh(&broker, V5).ping();
    std::thread::sleep(Duration::from_millis(300));
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{} KiB for each of 300 half packets", (grown >> 10) / 300);
}

#[test]
fn a_packet_with_thousands_of_properties_is_refused() {
    let broker = Broker::start(1, &[]);
    let many: Vec<Property> = (0..5000).map(|n| Property::User(format!("n{n}"), "v".into())).collect();
    let publish = packet(0x30, [string("t"), block(&many)].concat());
    refuse(&broker, V5, "PUBLISH", publish, &[0x97]);
    let mut connect = Connect::new(V5, name("c"));
    connect.properties.clone_from(&many);
    let mut client = Client::open(&broker, V5);
    client.send(connect.bytes());
    match client.next(PATIENCE) {
        Event::Closed => {}
        Event::Packet(Packet::Connack(connack)) => {
            assert!([0x95, 0x97].contains(&connack.code), "{connack:?}");
            client.expect_closed();
        }
        other => panic!("{other:?}"),
    }
    // A hundred are fine.
    let few: Vec<Property> = many[..100].to_vec();
    let mut client = Client::fresh(&broker, V5);
    client.send(packet(0x32, [string("t"), vec![0, 5], block(&few)].concat()));
    client.expect_ack(encode::PUBACK, 5);
}

#[test]
fn topics_of_thousands_of_levels_are_refused() {
    let broker = Broker::start(1, &[]);
    let deep = "/".repeat(60_000);
    refuse(&broker, V5, "name", Publish::new(&*deep, "x").bytes(V5), &[0x90]);
    refuse(&broker, V311, "name", Publish::new(&*deep, "x").bytes(V311), &[]);
    // A filter may be refused by itself or with its packet.
    let mut client = Client::fresh(&broker, V5);
    client.send(encode::subscribe(V5, 1, &[], &[(&*deep, 0)]));
    match client.expect_packet() {
        Packet::Suback(suback) => assert_eq!(suback.codes, [0x8F]),
        Packet::Disconnect(reason) => assert_eq!(reason.code, 0x8F),
        other => panic!("{other:?}"),
    }
}

#[test]
fn thousands_of_filters_in_one_packet_take_linear_time() {
    let broker = Broker::start(4, &[]);
    let mut client = Client::fresh(&broker, V5);
    let filters = |count: usize| -> Vec<(String, u8)> {
        (0..count).map(|n| (format!("a/{}/+/{n}/#", n % 7), 1)).collect()
    };
    let mut times = Vec::new();
    for count in [100, 10_000] {
        let filters = filters(count);
        let borrowed: Vec<(&str, u8)> = filters.iter().map(|(f, q)| (f.as_str(), *q)).collect();
        let begin = Instant::now();
        assert_eq!(client.subscribe_all(1, &[], &borrowed).len(), count);
        times.push(begin.elapsed());
    }
    assert!(times[1] < Duration::from_secs(5), "{times:?}");
}

#[test]
fn filters_made_to_be_slow_are_matched_fast() {
    let broker = Broker::start(2, &[]);
    let mut client = Client::fresh(&broker, V311);
    // Every combination of a level and a wildcard over eight levels: each name matches all of them.
    let filters: Vec<String> = (0..256u32)
        .map(|bits| {
            let levels: Vec<&str> = (0..8).map(|bit| if bits >> bit & 1 == 1 { "+" } else { "a" }).collect();
            levels.join("/")
        })
        .collect();
    let borrowed: Vec<(&str, u8)> = filters.iter().map(|f| (f.as_str(), 0)).collect();
    client.subscribe_all(1, &[], &borrowed);
    let mut publisher = Client::fresh(&broker, V311);
    let begin = Instant::now();
    for last in 0..200 {
        // A new name each time, so that no cache helps; 128 of the filters match.
        publisher.send_publish(&Publish::new(format!("a/a/a/a/a/a/a/{last}"), "x"));
    }
    publisher.ping();
    for _ in 0..200 {
        client.expect_publish();
    }
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(2), "200 messages took {took:?}");
}

#[test]
fn many_names_of_one_publisher_do_not_grow_the_broker() {
    let broker = Broker::start(2, &[]);
    let mut client = Client::fresh(&broker, V311);
    client.subscribe("seen/+", 0);
    let mut publish = |range: std::ops::Range<u32>| {
        for start in range.step_by(1000) {
            let burst: Vec<u8> = (start..start + 1000)
                .flat_map(|n| Publish::new(format!("unseen/{n}/by/anyone"), "x").bytes(V311))
                .collect();
            client.send(burst);
            client.ping();
        }
    };
    publish(0..50_000);
    let before = broker.resident_bytes();
    publish(50_000..400_000);
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 24 << 20, "{} MB more after 350,000 names", grown >> 20);
}

#[test]
fn peers_that_send_a_byte_at_a_time_or_nothing_cost_no_processor_time() {
    let broker = Broker::start(2, &["--connect-timeout", "60"]);
    let _silent: Vec<Client> = (0..100).map(|_| Client::open(&broker, V5)).collect();
    let mut dripping: Vec<Client> = (0..20).map(|_| Client::open(&broker, V5)).collect();
    let bytes = Connect::new(V5, "drip").bytes();
    std::thread::sleep(Duration::from_millis(500));
    let before = broker.cpu_ticks();
    for byte in &bytes[..10] {
        for client in &mut dripping {
            client.send([*byte]);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let used = broker.cpu_ticks() - before;
    assert!(used <= 10, "{used} ticks in two seconds");
}

#[test]
fn storms_of_takeovers_resets_and_traffic_leave_nothing_behind() {
    for shards in [1, 4] {
        let broker = Broker::start(shards, &["--sys-interval", "1", "--log-level", "error"]);
        let mut watch = Watch::new(&broker);
        let base = watch.settled();
        let descriptors = broker.descriptors();
        let topic = name("t");
        let ids: Vec<String> = (0..5).map(|_| name("c")).collect();
        let ends = Instant::now() + Duration::from_secs(3);
        let connections: u32 = std::thread::scope(|scope| {
            let storms: Vec<_> = (0..8u64)
                .map(|seed| {
                    let (broker, topic, ids) = (&broker, &topic, &ids);
                    scope.spawn(move || storm(broker, topic, ids, seed, ends))
                })
                .collect();
            storms.into_iter().map(|storm| storm.join().expect("no rule was broken")).sum()
        });
        assert!(connections > 200, "{connections} connections");
        // The sessions that may have been stored end with a clean one each, once nobody of the storm is left who takes it over.
        watch.settled();
        for id in &ids {
            Client::accepted(&broker, &Connect::new(V5, id)).disconnect();
        }
        let mut publisher = Client::fresh(&broker, V5);
        publisher.say_retained(&topic, "");
        publisher.disconnect();
        watch.expect(&base);
        let left = broker.descriptors();
        assert!(left <= descriptors + 2, "{left} descriptors, {descriptors} before");
    }
}

/// Connects as one of these clients again and again, does something, and leaves in some way.
fn storm(broker: &Broker, topic: &str, ids: &[String], seed: u64, ends: Instant) -> u32 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut below = |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % bound
    };
    let mut count = 0;
    while Instant::now() < ends {
        count += 1;
        let v = [V5, V311][below(2) as usize];
        let id = &ids[below(ids.len() as u64) as usize];
        let mut connect = Connect::new(v, id).will(Will::new(topic, "will").qos(1));
        if below(2) == 0 {
            connect = connect.persistent();
        }
        let mut client = Client::open(broker, v);
        let burst: Vec<u8> = (1..=below(30) as u16 + 1)
            .flat_map(|n| {
                let publish = Publish::new(topic, vec![b'x'; below(4000) as usize]).qos(below(3) as u8, n);
                if below(10) == 0 { publish.retain().bytes(v) } else { publish.bytes(v) }
            })
            .collect();
        client.send(
            [connect.bytes(), encode::subscribe(v, 999, &[], &[(topic, below(3) as u8)]), burst].concat(),
        );
        // Reads some of it, or none.
        for _ in 0..below(20) {
            match client.next(Duration::from_millis(below(10))) {
                Event::Packet(_) => {}
                Event::Closed | Event::Nothing => break,
            }
        }
        match below(4) {
            0 => client.reset(),
            1 => client.send(encode::DISCONNECT),
            2 => client.send([0x00, 0x00]),
            _ => drop(client),
        }
    }
    count
}
