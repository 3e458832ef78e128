//! What an operator is told: who came, who was refused and why, who missed messages, who holds the most.

use std::time::{Duration, Instant};

use crate::support::encode::PUBACK;
use crate::support::*;

/// The first line of the log that has all these words, within a while.
fn line_with(broker: &Broker, words: &[&str]) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = broker.stderr();
        if let Some(line) = text.lines().find(|line| words.iter().all(|word| line.contains(word))) {
            return line.to_string();
        }
        assert!(Instant::now() < deadline, "no line with {words:?} in:\n{text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The last text of a topic that contains these words, within a while.
fn text_with(client: &mut Client, words: &[&str]) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = client.expect_publish().text();
        if words.iter().all(|word| text.contains(word)) {
            return text;
        }
        assert!(Instant::now() < deadline, "no text with {words:?}, last {text}");
    }
}

/// What the log says that a client missed, all its lines together.
fn missed(broker: &Broker, client: &str, reason: &str) -> u64 {
    let lines = broker.stderr();
    let lines = lines.lines().filter(|line| line.contains(&format!("client={client} ")));
    let value = |line: &str| {
        let rest = line.split(&format!(" {reason}=")).nth(1)?;
        rest.split(' ').next()?.parse::<u64>().ok()
    };
    lines.filter_map(value).sum()
}

#[test]
fn every_event_has_client_user_and_address() {
    for format in ["text", "json"] {
        let broker = Broker::start(
            2,
            &["--log-format", format, "--subscriptions-max", "1", "--connections-max", "20"],
        );
        let named = |key: &str, value: &str| match format {
            "text" => format!(" {key}={value}"),
            _ => format!(",\"{key}\":\"{value}\""),
        };
        let address = |client: &Client| named("address", &client.local_address().to_string());
        let connect = |id: &str| Connect::new(V5, id).user_name("someone");
        // Without users a name is a claim.
        let nobody = if format == "text" { " user=\"\"" } else { ",\"user\":\"\"" };

        // Connect, a limit, the end.
        let mut client = Client::accepted(&broker, &connect("alpha"));
        let address_of = address(&client);
        line_with(&broker, &["connect", &named("client", "alpha"), nobody, &address_of]);
        assert_eq!(client.subscribe_all(1, &[], &[("a", 0), ("b", 0)]), [0, 0x97]);
        line_with(&broker, &["limit-reached", &named("client", "alpha"), &address_of, "--subscriptions-max"]);
        client.disconnect();
        line_with(&broker, &["disconnect", &named("client", "alpha"), nobody, &address_of, "DISCONNECT"]);

        // A takeover.
        let mut older = Client::accepted(&broker, &connect("beta"));
        let address_of = address(&older);
        let newer = Client::accepted(&broker, &connect("beta"));
        older.expect_refused(&[0x8E]);
        line_with(&broker, &["taken-over", &named("client", "beta"), nobody, &address_of]);
        newer.disconnect();

        // A refusal, of a CONNECT that could be read; and one that could not.
        let (mut refused, _) =
            Client::connect(&broker, &connect("gamma").with(Property::AuthMethod("none".into())));
        refused.expect_closed();
        let words = [&named("client", "gamma"), &named("user", "someone"), &address(&refused)];
        line_with(&broker, &[&["refused"][..], &words.map(String::as_str)].concat());
        let mut unread = Client::open(&broker, V5);
        let from = address(&unread);
        unread.send(connect("delta").flags(0x83).bytes());
        unread.expect_refused(&[0x81]);
        line_with(&broker, &["refused", &from, "reserved Connect Flag"]);

        // An error of the peer.
        let mut wrong = Client::accepted(&broker, &connect("epsilon"));
        let from = address(&wrong);
        wrong.send([0xC1, 0]);
        wrong.expect_refused(&[0x81]);
        line_with(&broker, &["protocol-error", &named("client", "epsilon"), nobody, &from]);

        // A connection too many; a closing one may still count.
        std::thread::sleep(Duration::from_millis(1200));
        let _held: Vec<Client> = (0..20).map(|_| Client::fresh(&broker, V5)).collect();
        let mut beyond = Client::open(&broker, V5);
        beyond.expect_closed();
        line_with(&broker, &["refused", &address(&beyond), "--connections-max"]);
    }
}

#[test]
fn a_session_that_expires_is_said() {
    let broker = Broker::start(2, &[]);
    let connect = Connect::new(V5, "expires").resume().with(Property::SessionExpiry(1));
    Client::accepted(&broker, &connect).disconnect();
    line_with(&broker, &["expired", "client=expires", "after_s=1"]);
}

#[test]
fn what_clients_missed_is_said_by_client_and_reason_and_not_per_message() {
    for shards in [1, 4] {
        let broker = Broker::start(
            shards,
            &["--queue-messages-max", "10", "--queue-full", "drop-newest", "--send-buffer-max", "64k"],
        );
        let topic = name("t");
        let away = Connect::new(V5, "away").persistent();
        let mut client = Client::accepted(&broker, &away);
        client.subscribe(&topic, 1);
        client.disconnect();
        // It reads nothing: QoS 0 is dropped when its sockets are full.
        let mut slow = Client::accepted(&broker, &Connect::new(V311, "slow"));
        slow.subscribe(&topic, 0);
        let mut publisher = Client::fresh(&broker, V5);
        for _ in 0..300 {
            publisher.say(&topic, vec![b'x'; 60_000], 1);
        }
        // A period may end in between.
        let deadline = Instant::now() + Duration::from_secs(25);
        while missed(&broker, "away", "queue-full") < 290 {
            assert!(Instant::now() < deadline, "not all drops are told:\n{}", broker.stderr());
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(missed(&broker, "away", "queue-full"), 290);
        assert_eq!(missed(&broker, "away", "dropped"), 290);
        let line = line_with(&broker, &["limit-reached", "client=slow", "send-buffer="]);
        assert!(line.contains("address=127.0.0.1:"), "{line}");
        let lines = broker.stderr().matches("it missed messages").count();
        assert!(lines <= 8, "{lines} lines about two clients");
    }
}

#[test]
fn what_a_session_missed_is_said_at_its_end_at_the_latest() {
    let broker = Broker::start(4, &["--queue-messages-max", "5"]);
    let topic = name("t");
    let away = Connect::new(V5, "gone").resume().with(Property::SessionExpiry(1));
    let mut client = Client::accepted(&broker, &away);
    client.subscribe(&topic, 1);
    client.disconnect();
    let mut publisher = Client::fresh(&broker, V5);
    for _ in 0..12 {
        publisher.say(&topic, "x", 1);
    }
    line_with(&broker, &["limit-reached", "client=gone", "queue-full=7"]);
    line_with(&broker, &["expired", "client=gone"]);
}

#[test]
fn a_flood_of_events_is_cut_and_counted() {
    let broker = Broker::start(2, &[]);
    for _ in 0..600 {
        let mut client = Client::open(&broker, V311);
        client.send(Connect::new(V311, "").resume().bytes());
        client.expect_connack();
    }
    let line = line_with(&broker, &["refused", "suppressed="]);
    assert!(!line.contains("suppressed=0"), "{line}");
}

/// The topics that exporters for mosquitto read, below `$SYS/broker/`.
const EXPORTED: [&str; 32] = [
    "bytes/received",
    "bytes/sent",
    "clients/active",
    "clients/connected",
    "clients/disconnected",
    "clients/expired",
    "clients/inactive",
    "clients/maximum",
    "clients/total",
    "load/bytes/received/1min",
    "load/bytes/sent/5min",
    "load/connections/15min",
    "load/messages/received/1min",
    "load/messages/sent/1min",
    "load/publish/received/5min",
    "load/publish/sent/15min",
    "load/sockets/1min",
    "messages/received",
    "messages/sent",
    "messages/stored",
    "publish/bytes/received",
    "publish/bytes/sent",
    "publish/messages/dropped",
    "publish/messages/received",
    "publish/messages/sent",
    "retained messages/count",
    "shared_subscriptions/count",
    "store/messages/bytes",
    "store/messages/count",
    "subscriptions/count",
    "uptime",
    "version",
];

#[test]
fn exporters_find_their_topics_in_their_formats() {
    for shards in [1u16, 4] {
        let broker = Broker::start(shards, &["--sys-interval", "1"]);
        let mut publisher = Client::fresh(&broker, V5);
        publisher.subscribe("t/#", 1);
        for number in 0..7 {
            publisher.send_publish(&Publish::new("t/x", "four").qos(0, 0));
            assert_eq!(publisher.expect_publish().text(), "four", "{number}");
        }
        // A newcomer gets all of it, since it is retained; and the values of the next interval.
        let mut client = Client::fresh(&broker, V311);
        client.subscribe("$SYS/#", 0);
        let mut values = std::collections::BTreeMap::new();
        let ends = Instant::now() + Duration::from_secs(3);
        while Instant::now() < ends {
            if let Event::Packet(Packet::Publish(publish)) = client.next(Duration::from_millis(100)) {
                let topic =
                    publish.topic.strip_prefix("$SYS/broker/").expect("below $SYS/broker").to_string();
                values.insert(topic, publish.text());
            }
        }
        for topic in EXPORTED {
            let value = values.get(topic).unwrap_or_else(|| panic!("no {topic} in {values:?}"));
            let fits = match topic {
                "version" => value.starts_with("ringmq version "),
                "uptime" => value.strip_suffix(" seconds").is_some_and(|n| n.parse::<u64>().is_ok()),
                _ if topic.starts_with("load/") => {
                    value.split_once('.').is_some_and(|(_, digits)| digits.len() == 2)
                        && value.parse::<f64>().is_ok()
                }
                _ => value.parse::<u64>().is_ok(),
            };
            assert!(fits, "{topic}: {value:?}");
        }
        let number = |topic: &str| values[topic].parse::<u64>().expect("a number");
        assert_eq!(number("clients/connected"), 2);
        assert_eq!(number("publish/messages/received"), 7);
        assert_eq!(number("publish/bytes/received"), 28);
        assert_eq!(number("subscriptions/count"), 2);
        // The same by shard, which adds up.
        for (sum, each) in
            [("clients/connected", "clients_connected"), ("subscriptions/count", "subscriptions")]
        {
            let all: u64 = (0..shards).map(|shard| number(&format!("shard/{shard}/{each}"))).sum();
            assert_eq!(all, number(sum), "{each}");
        }
    }
}

#[test]
fn the_sessions_that_hold_the_most_are_shown() {
    for shards in [1, 4] {
        let broker = Broker::start(shards, &["--sys-interval", "1"]);
        let topic = name("t");
        // Twelve that are away, each with more than the one before, and one that does not acknowledge.
        let mut publisher = Client::fresh(&broker, V5);
        for number in 1..=12 {
            let connect = Connect::new(V5, format!("deep{number:02}")).persistent();
            let mut client = Client::accepted(&broker, &connect);
            client.subscribe(&format!("{topic}/{number}"), 1);
            client.disconnect();
            for _ in 0..number {
                publisher.say(&format!("{topic}/{number}"), vec![b'x'; 1000], 1);
            }
        }
        let mut held = Client::accepted(&broker, &Connect::new(V5, "held"));
        held.subscribe(&topic, 1);
        publisher.say(&topic, "x", 1);
        let unacknowledged = held.expect_publish();

        let mut watch = Client::fresh(&broker, V5);
        watch.subscribe("$SYS/broker/shard/+/deepest", 0);
        if shards == 1 {
            let text = text_with(&mut watch, &["client=\"deep12\" queued=12 "]);
            let clients: Vec<&str> =
                text.lines().map(|line| line.split('"').nth(1).expect("a client")).collect();
            let expected: Vec<String> = (3..=12).rev().map(|number| format!("deep{number:02}")).collect();
            assert_eq!(clients, expected, "the ten deepest, the deepest first");
            assert!(text.lines().all(|line| line.ends_with("connected=false")), "{text}");
        } else {
            text_with(&mut watch, &["client=\"held\"", "in_flight=1", "connected=true"]);
        }
        // Once nothing is held any more, that is said too.
        held.ack(PUBACK, unacknowledged.packet_id);
        for number in 1..=12 {
            drop(Client::accepted(&broker, &Connect::new(V5, format!("deep{number:02}"))));
        }
        let mut fresh = Client::fresh(&broker, V5);
        fresh.subscribe("$SYS/broker/shard/+/deepest", 0);
        let mut empty = std::collections::BTreeSet::new();
        let deadline = Instant::now() + Duration::from_secs(20);
        while empty.len() < usize::from(shards) {
            let got = fresh.expect_publish();
            if got.text() == "none\n" {
                empty.insert(got.topic)
            } else {
                empty.remove(&got.topic)
            };
            assert!(Instant::now() < deadline, "only {empty:?} are empty");
        }
    }
}
