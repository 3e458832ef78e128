//! CONNECT packets as large as the standard lets them be, and the memory for those that are not whole.

use std::time::{Duration, Instant};

use crate::support::client::PATIENCE;
use crate::support::encode::vbi;
use crate::support::property::Property;
use crate::support::*;

/// The largest string and the largest binary field.
const LARGEST: usize = u16::MAX as usize;

/// A CONNECT whose every field is as large as it can be.
fn largest(version: Version) -> Connect {
    let text = |first: &str| format!("{first}{}", "x".repeat(LARGEST - first.len()));
    let mut will = Will::new(text("will/"), vec![0xAB; LARGEST]);
    if version == V5 {
        will = will
            .with(Property::ContentType(text("type")))
            .with(Property::ResponseTopic(text("response/")))
            .with(Property::CorrelationData(vec![0xCD; LARGEST]))
            .with(Property::User(text("name"), text("value")));
    }
    Connect::new(version, text(&name("c"))).will(will).user_name(text("user")).password(vec![0xEF; LARGEST])
}

#[test]
fn u5_1_5_4_every_field_of_a_connect_may_have_its_65535_bytes() {
    for shards in [1, 4] {
        let broker = Broker::start(shards, &[]);
        for version in [V5, V311] {
            let connect = largest(version);
            let mut witness = Client::fresh(&broker, version);
            witness.subscribe("will/#", 0);
            Client::accepted(&broker, &connect).cut();
            let will = witness.expect_publish();
            assert_eq!(will.topic.len(), LARGEST);
            assert_eq!(
                will.payload,
                connect.will.as_ref().map(|will| will.payload.clone()).unwrap_or_default()
            );
        }
        // Also where it comes in many pieces, and slowly at first.
        let connect = largest(V5);
        let mut client = Client::open(&broker, V5);
        let bytes = connect.bytes();
        bytes[..20].iter().for_each(|byte| client.send([*byte]));
        bytes[20..].chunks(7_001).for_each(|chunk| client.send(chunk));
        assert_eq!(client.expect_connack().code, 0);
    }
}

#[test]
fn those_who_are_not_logged_in_share_one_budget() {
    for shards in [1, 4] {
        // 3 % of the half that retained messages leave, 240 KiB in all.
        let broker =
            Broker::start(shards, &["--memory-max", "16m", "--connect-timeout", "60", "--sys-interval", "1"]);
        let mut served = Client::fresh(&broker, V5);
        let begin = |client: &mut Client, version: Version| {
            let body = Connect::new(version, name("c")).body();
            let packet = [&[0x10][..], &vbi(1_000_000), &body, &vec![b'x'; 40_000][..]].concat();
            let _ = client.try_send(packet);
        };
        let mut refused = 0;
        let mut peers = Vec::new();
        for _ in 0..20 {
            let mut client = Client::open(&broker, V5);
            begin(&mut client, V5);
            peers.push(client);
        }
        for client in &mut peers {
            match client.next(Duration::from_millis(50)) {
                Event::Nothing => {}
                Event::Packet(Packet::Connack(connack)) => {
                    assert_eq!(connack.code, 0x97);
                    refused += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(refused >= 10, "{refused} of 20 peers with 40 kB each were refused");
        assert!(refused < 20, "nobody had room");
        let mut counts = Client::fresh(&broker, V5);
        counts.subscribe("$SYS/broker/drops/login_memory", 0);
        let deadline = Instant::now() + PATIENCE;
        while counts.expect_publish().text() != refused.to_string() {
            assert!(Instant::now() < deadline, "{refused} refused connections are not counted");
        }
        broker.expect_said("the memory for unfinished logins is used up");
        // Who is logged in does not notice, and what is left is enough for an ordinary login.
        served.ping();
        drop(peers);
        let deadline = Instant::now() + PATIENCE;
        let connect = Connect::new(V5, name("c")).user_name("u").password(vec![b'x'; 60_000]);
        while Client::connect(&broker, &connect).1.code != 0 {
            assert!(Instant::now() < deadline, "the memory of those who left is not given back");
        }
    }
}
