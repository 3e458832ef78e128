//! What sessions themselves may take: their records and wills have a class of memory of their own, and their subscriptions
//! another: a twentieth and a tenth of what retained messages leave of `--memory-max`.

use std::time::{Duration, Instant};

use crate::support::client::PATIENCE;
use crate::support::*;

/// The least that is taken: of it sessions have some 400 KB, subscriptions 800.
const SMALL: [&str; 4] = ["--memory-max", "16M", "--sys-interval", "1"];

/// A CONNECT for a session of an hour whose will is this large, and waits as long.
fn with_will(version: Version, id: &str, bytes: usize) -> Connect {
    let will = Will::new("will", vec![b'w'; bytes]).with(Property::WillDelay(3600));
    Connect::new(version, id).persistent().will(will)
}

/// Sessions with large wills whose clients are gone, until there is no room for one more, whose CONNECT comes last; then
/// with small ones, likewise.
fn filled(broker: &Broker) -> (Vec<Connect>, Connect) {
    let mut kept = Vec::new();
    let mut last = Vec::new();
    for bytes in [40_000, 1_000] {
        loop {
            let connect = with_will(V5, &name("c"), bytes);
            let (client, connack) = Client::connect(broker, &connect);
            match connack.code {
                0 => client.cut(),
                0x97 => break last.push(connect),
                other => panic!("CONNACK {other:#x}"),
            }
            kept.push(connect);
            assert!(kept.len() <= 60, "{} wills in a class of 400 KB", kept.len());
        }
    }
    (kept, last.remove(0))
}

/// A subscriber of one number of `$SYS`.
struct Watch(Client);

impl Watch {
    fn new(broker: &Broker, topic: &str) -> Watch {
        let mut client = Client::fresh(broker, V5);
        client.subscribe(&format!("$SYS/broker/{topic}"), 0);
        Watch(client)
    }

    /// The first number that satisfies `is`.
    fn until(&mut self, is: impl Fn(u64) -> bool) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let number = self.0.expect_publish().text().parse().expect("a number");
            if is(number) {
                return number;
            }
            assert!(Instant::now() < deadline, "it is {number}");
        }
    }
}

#[test]
fn wills_of_clients_that_are_gone_are_bounded() {
    for shards in [1, 4] {
        let broker = Broker::start(shards, &SMALL);
        let mut witness = Client::fresh(&broker, V5);
        witness.subscribe("will", 0);
        // They have their sessions before there is no room for any.
        let mut publisher = Client::fresh(&broker, V5);
        let (mut refusals, mut bytes) =
            (Watch::new(&broker, "sessions/refused"), Watch::new(&broker, "sessions/bytes"));
        let (kept, refused) = filled(&broker);
        // Up to 512 KiB are leased by each shard and may be unused.
        let large = kept
            .iter()
            .take_while(|connect| connect.will.as_ref().is_some_and(|w| w.payload.len() == 40_000));
        let large = large.count();
        assert!(
            if shards == 1 { (8..=10).contains(&large) } else { (1..=10).contains(&large) },
            "{large} wills fit"
        );
        // In 3.1.1 the same is "server unavailable".
        let old = Connect { version: V311, properties: Vec::new(), ..refused.clone() };
        assert_eq!(Client::connect(&broker, &old).1.code, 3);
        refusals.until(|count| count >= 2);
        bytes.until(|bytes| bytes >= 40_000 * large as u64);

        // Who has a session comes back to it with as large a will, and is not refused for what it has itself.
        let (client, connack) = Client::connect(&broker, &kept[0]);
        assert_eq!((connack.code, connack.session_present), (0, true));
        client.cut();
        // Whose larger will has no room finds its session as it was.
        let id = String::from_utf8(kept[0].client_id.clone()).expect("a name");
        let larger = Connect { will: with_will(V5, &id, 60_000).will, ..kept[0].clone() };
        let code = Client::connect(&broker, &larger).1.code;
        assert!(code == 0x97 || shards == 4 && code == 0, "CONNACK {code:#x}");
        let (client, connack) = Client::connect(&broker, &kept[0]);
        assert_eq!((connack.code, connack.session_present), (0, true));
        client.disconnect();
        // Others are served meanwhile, and no will went out.
        publisher.say("will", "none of those", 1);
        assert_eq!(witness.expect_texts(1), ["none of those"]);

        // With the sessions the room comes back.
        for connect in kept {
            let id = String::from_utf8(connect.client_id).expect("a name");
            Client::accepted(&broker, &Connect::new(V5, id)).disconnect();
        }
        Client::accepted(&broker, &refused).disconnect();
    }
}

#[test]
fn subscriptions_are_bounded_by_their_memory_too() {
    for shards in [1, 4] {
        let broker = Broker::start(shards, &[&SMALL[..], &["--subscriptions-max", "1000000"]].concat());
        let mut refused = Watch::new(&broker, "subscriptions/refused");
        let mut bytes = Watch::new(&broker, "subscriptions/bytes");
        let base = bytes.until(|_| true);
        for version in [V5, V311] {
            let refusal = if version == V5 { 0x97 } else { 0x80 };
            let mut client = Client::fresh(&broker, version);
            // Many levels of their own: what other shards keep of them counts as well.
            let filter = |number: usize| {
                let levels: Vec<String> = (0..100).map(|level| format!("{number}x{level}")).collect();
                format!("{}/#", levels.join("/"))
            };
            let granted = |code: u8| code == 0;
            let codes: Vec<u8> = (0..400)
                .map(|number| client.subscribe_all(number as u16 + 1, &[], &[(&filter(number), 0)])[0])
                .collect();
            let fitting = codes.iter().filter(|code| granted(**code)).count();
            assert!(codes.iter().all(|code| granted(*code) || *code == refusal), "{codes:x?}");
            assert!((5..150).contains(&fitting), "{fitting} filters of 100 levels with {shards} shards");
            let first = codes.iter().position(|code| granted(*code)).expect("one of them");
            // One that is there may change all the same, and works.
            assert_eq!(client.subscribe_all(500, &[], &[(&filter(first), 1)]), [1]);
            let topic = filter(first).trim_end_matches("/#").to_string();
            client.say(&topic, "here", 1);
            let publish = client.expect_publish();
            assert_eq!(publish.text(), "here");
            client.finish(&publish);
            bytes.until(|bytes| bytes > base + 10_000);
            client.disconnect();
            // With the session its subscriptions go, at the others once they have heard of it.
            bytes.until(|bytes| bytes < base + 2000);
        }
        refused.until(|count| count > 100);
    }
}

#[test]
fn sessions_that_last_are_bounded_by_their_memory() {
    let broker = Broker::start(1, &SMALL);
    let before = broker.resident_bytes();
    let (mut fitting, mut refused) = (0, 0);
    let deadline = Instant::now() + Duration::from_secs(60);
    while refused < 20 {
        let connect = Connect::new(V5, "i".repeat(200) + &name("c")).persistent();
        let (client, connack) = Client::connect(&broker, &connect);
        match connack.code {
            0 => (fitting, _) = (fitting + 1, client.disconnect()),
            0x97 => refused += 1,
            other => panic!("CONNACK {other:#x}"),
        }
        assert!(Instant::now() < deadline && fitting < 1500, "{fitting} sessions of 400 bytes in 400 KB");
    }
    assert!(fitting > 700, "{fitting} sessions of 400 bytes in 400 KB");
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 4 << 20, "{} KB more", grown >> 10);
}
