//! What is retained on its way to many subscriptions: how much of it one turn may do, and what a client gets that takes none
//! of it for a while.

use ringmq::io::ListenerId;
use ringmq::limits::Limits;
use ringmq::mesh::Bounds;
use ringmq::shard::Options;

use crate::cluster::Cluster;
use crate::packet::{self, ConnectPacket, Incoming, Publish, Version};
use crate::plan::Plan;
use crate::scene::{self, Client, VERSION, home, read, read_as, rounds, turns, write};

/// Levels of the topics before the last one; the filters have `+` at any of them.
const LEVELS: u32 = 6;
/// Filters of a client, all of which match all topics.
const FILTERS: usize = 1 << LEVELS;
const TOPICS: usize = 200;
/// Rings that are never full.
const ROOM: Bounds = Bounds { ring_slots: 1024, spill_max: 1024, bytes_max: 1 << 20 };
/// Enough for all of it.
const ROUNDS: usize = 3 * FILTERS;

fn cluster(shards: u16, limits: Limits) -> Cluster {
    scene::cluster(&Plan { mesh: ROOM, ..scene::plan(shards, limits) })
}

fn with_options(shards: u16, options: Options) -> Cluster {
    scene::cluster(&Plan { mesh: ROOM, options, ..scene::plan(shards, Limits::default()) })
}

fn retain(cluster: &mut Cluster, client: &mut Client, topic: &str, payload: Vec<u8>) {
    let topic = topic.to_string();
    let publish =
        Publish { dup: false, qos: 0, retain: true, topic, packet_id: 0, properties: Vec::new(), payload };
    write(cluster, client, &packet::publish(VERSION, &publish));
    while !client.unsent.is_empty() {
        rounds(cluster, 1);
        write(cluster, client, &[]);
    }
}

/// Topics that are retained, with as many filters as there are subsets of their levels.
fn fill(cluster: &mut Cluster, publisher: &mut Client) -> Vec<(String, u8)> {
    for number in 0..TOPICS {
        retain(cluster, publisher, &format!("{}{number}", "a/".repeat(LEVELS as usize)), b"x".to_vec());
    }
    rounds(cluster, 20);
    let level = |set: usize, at: u32| if set >> at & 1 == 1 { "+/" } else { "a/" };
    let filter = |set| (0..LEVELS).map(|at| level(set, at)).collect::<String>() + "+";
    (0..FILTERS).map(|set| (filter(set), 0)).collect()
}

fn subscribe(cluster: &mut Cluster, client: &mut Client, filters: &[(String, u8)]) {
    for filters in filters.chunks(16) {
        write(cluster, client, &packet::subscribe(VERSION, 1, None, filters));
    }
}

fn payloads(packets: &[Incoming], topic: &str) -> Vec<Vec<u8>> {
    let of_topic = |packet: &Incoming| match packet {
        Incoming::Publish(publish) if publish.topic == topic => Some(publish.payload.clone()),
        _ => None,
    };
    packets.iter().filter_map(of_topic).collect()
}

/// All cursors of a session were served in one turn.
#[test]
fn a_turn_looks_at_so_many_retained_messages() {
    const VISITS: usize = 500;
    let options = Options { retained_visits_in_turn: VISITS, ..scene::plan(1, Limits::default()).options };
    let mut cluster = with_options(1, options);
    let mut names = 0;
    let mut flood = home(&mut cluster, &mut names, 0);
    let mut other = home(&mut cluster, &mut names, 0);
    let filters = fill(&mut cluster, &mut other);
    subscribe(&mut cluster, &mut flood, &filters);
    let before = cluster.sum(|c| &c.publish_sent_total);
    let mut got = 0;
    let mut first = None;
    for turn in 0..ROUNDS {
        if turn == 3 {
            subscribe(&mut cluster, &mut other, &filters[..1]);
        }
        let before = cluster.sum(|c| &c.publish_sent_total);
        turns(&mut cluster, 0, 1);
        let sent = cluster.sum(|c| &c.publish_sent_total) - before;
        assert!(sent <= VISITS as u64, "{sent} in a turn");
        got +=
            read(&cluster, &mut flood).iter().filter(|packet| matches!(packet, Incoming::Publish(_))).count();
        let others = read(&cluster, &mut other);
        if first.is_none() && others.iter().any(|packet| matches!(packet, Incoming::Publish(_))) {
            first = Some(turn);
        }
    }
    assert_eq!(got, FILTERS * TOPICS);
    assert_eq!(cluster.sum(|c| &c.publish_sent_total) - before, ((FILTERS + 1) * TOPICS) as u64);
    assert!(first.is_some_and(|turn| turn < 15), "the other session waited for the flood: {first:?}");
}

/// An owner was asked for all filters at once, and answered all that had come in one turn.
#[test]
fn questions_and_answers_of_a_turn_are_bounded() {
    const CLIENTS: usize = 10;
    const OF_SESSION: usize = 3;
    // Once what a shard asks is the limit, once what a session asks.
    for (in_all, expected) in [(20, 20), (1000, CLIENTS * OF_SESSION)] {
        questions_and_answers(CLIENTS, OF_SESSION, in_all, expected as u64);
    }
}

fn questions_and_answers(clients: usize, of_session: usize, in_all: usize, expected: u64) {
    let options = Options {
        session_questions_max: of_session,
        questions_max: in_all,
        retained_visits_in_turn: 6 * 64,
        ..scene::plan(2, Limits::default()).options
    };
    let mut cluster = with_options(2, options);
    let mut names = 0;
    let mut publisher = home(&mut cluster, &mut names, 1);
    let mut clients: Vec<Client> = (0..clients).map(|_| home(&mut cluster, &mut names, 0)).collect();
    let filters = fill(&mut cluster, &mut publisher);
    for client in &mut clients {
        subscribe(&mut cluster, client, &filters);
    }
    turns(&mut cluster, 0, ROUNDS);
    let received = cluster.sum(|c| &c.mesh_received_total);
    turns(&mut cluster, 1, 1);
    let questions = cluster.sum(|c| &c.mesh_received_total) - received;
    assert_eq!(questions, expected);
    let received = cluster.sum(|c| &c.mesh_received_total);
    turns(&mut cluster, 0, 1);
    let answers = cluster.sum(|c| &c.mesh_received_total) - received;
    assert!(
        (1..=6).contains(&answers),
        "{answers} answers of 64 messages to {questions} questions in a turn"
    );
    let mut got = vec![0; clients.len()];
    for _ in 0..clients.len() * ROUNDS {
        rounds(&mut cluster, 1);
        for (client, got) in clients.iter_mut().zip(&mut got) {
            let packets = read(&cluster, client);
            *got += packets.iter().filter(|packet| matches!(packet, Incoming::Publish(_))).count();
        }
    }
    assert_eq!(got, vec![FILTERS * TOPICS; clients.len()]);
}

/// The old value had been found already, and the new one came while the client took nothing.
#[test]
fn who_takes_nothing_for_a_while_gets_what_is_retained_by_then() {
    for shards in [1, 2] {
        let limits = Limits { send_buffer_bytes_max: 1000, send_burst_bytes_max: 0, ..Limits::default() };
        let mut cluster = cluster(shards, limits);
        let mut names = 0;
        let mut publisher = home(&mut cluster, &mut names, 0);
        let mut reader = home(&mut cluster, &mut names, 0);
        for topic in 0..200 {
            retain(&mut cluster, &mut publisher, &format!("much/{topic}"), vec![b'x'; 900]);
        }
        retain(&mut cluster, &mut publisher, "value", vec![b'1'; 980]);
        rounds(&mut cluster, 20);
        subscribe(&mut cluster, &mut reader, &[("much/+".to_string(), 0), ("value".to_string(), 0)]);
        rounds(&mut cluster, 500);
        retain(&mut cluster, &mut publisher, "value", vec![b'2'; 980]);
        rounds(&mut cluster, 50);
        assert_eq!(cluster.sum(|c| &c.dropped_send_buffer_total), 0, "it waits behind what is retained");
        let mut got = Vec::new();
        for _ in 0..1000 {
            got.extend(read(&cluster, &mut reader));
            rounds(&mut cluster, 1);
        }
        assert_eq!(payloads(&got, "value"), [vec![b'2'; 980]], "{shards} shards");
        assert_eq!(got.iter().filter(|packet| matches!(packet, Incoming::Publish(_))).count(), 201);
    }
}

/// The cursor of a subscription had begun when another SUBSCRIBE replaced it, with No Local and without retained messages. It
/// brought its client's own message, which came after that.
#[test]
fn no_local_holds_for_the_cursor_of_a_subscription_that_was_replaced() {
    const NO_LOCAL: u8 = 0x04;
    const DO_NOT_SEND: u8 = 0x20;
    // Some topics are owned here, others there.
    for (shards, number) in [1, 2].into_iter().flat_map(|shards| (0..4).map(move |number| (shards, number))) {
        let mut cluster = cluster(shards, Limits::default());
        let mut client = Client::new(cluster.world.borrow_mut().connect(0, ListenerId(0)));
        let connect = ConnectPacket {
            version: Version::V5,
            client_id: &format!("client-{number}"),
            clean_start: true,
            keep_alive_s: 0,
            properties: Vec::new(),
            will: None,
        };
        write(&cluster, &mut client, &packet::connect(&connect));
        rounds(&mut cluster, 20);
        assert!(matches!(
            read_as(&cluster, &mut client, Version::V5)[..],
            [Incoming::ConnAck { code: 0, .. }]
        ));
        let own = |topic: &str, payload: &str| {
            let (topic, payload, properties) = (topic.to_string(), payload.as_bytes().to_vec(), Vec::new());
            let publish =
                Publish { dup: false, qos: 0, retain: true, topic, packet_id: 0, properties, payload };
            packet::publish(Version::V5, &publish)
        };
        let topics = [format!("replaced/{number}"), format!("kept/{number}")];
        for topic in &topics {
            write(&cluster, &mut client, &own(topic, "old"));
        }
        rounds(&mut cluster, 20);
        // All of it comes in one turn, and no cursor goes on before the end of that.
        let filters = topics.clone().map(|topic| (topic, 0));
        let mut said = packet::subscribe(Version::V5, 1, None, &filters);
        let filters = [(topics[0].clone(), NO_LOCAL | DO_NOT_SEND)];
        said.extend(packet::subscribe(Version::V5, 2, None, &filters));
        for topic in &topics {
            said.extend(own(topic, "own"));
        }
        write(&cluster, &mut client, &said);
        assert!(client.unsent.is_empty(), "{} bytes", said.len());
        let mut got = Vec::new();
        for _ in 0..100 {
            rounds(&mut cluster, 1);
            got.extend(read_as(&cluster, &mut client, Version::V5));
        }
        assert_eq!(payloads(&got, &topics[0]), Vec::<Vec<u8>>::new(), "{number}, {shards} shards: {got:?}");
        assert_eq!(payloads(&got, &topics[1]), [b"own".to_vec()], "{number}, {shards} shards: {got:?}");
    }
}

/// A client that takes nothing for a while: so many live messages wait, and those beyond go on as if nothing were retained.
#[test]
fn what_waits_behind_retained_messages_has_a_limit() {
    const WAITING: u32 = 32;
    for shards in [1, 2] {
        let limits = Limits {
            send_buffer_bytes_max: 1000,
            send_burst_bytes_max: 0,
            queue_messages_max: WAITING / 16,
            ..Limits::default()
        };
        let mut cluster = cluster(shards, limits);
        let mut names = 0;
        let mut publisher = home(&mut cluster, &mut names, 0);
        let mut reader = home(&mut cluster, &mut names, 0);
        let mut other = home(&mut cluster, &mut names, 0);
        for topic in 0..200 {
            retain(&mut cluster, &mut publisher, &format!("much/{topic}"), vec![b'x'; 900]);
        }
        rounds(&mut cluster, 20);
        subscribe(&mut cluster, &mut other, &[("live".to_string(), 0)]);
        subscribe(&mut cluster, &mut reader, &[("#".to_string(), 0)]);
        rounds(&mut cluster, 500);
        let live = |number: u32| {
            let (topic, payload) = ("live".to_string(), number.to_string().into_bytes());
            Publish {
                dup: false,
                qos: 0,
                retain: false,
                topic,
                packet_id: 0,
                properties: Vec::new(),
                payload,
            }
        };
        for number in 0..WAITING {
            write(&cluster, &mut publisher, &packet::publish(VERSION, &live(number)));
            rounds(&mut cluster, 5);
        }
        assert_eq!(cluster.sum(|c| &c.retained_overtaken_total), 0, "all of them may wait");
        assert_eq!(cluster.sum(|c| &c.dropped_send_buffer_total), 0);
        assert!(cluster.sum(|c| &c.queued_bytes) > 0);
        write(&cluster, &mut publisher, &packet::publish(VERSION, &live(WAITING)));
        rounds(&mut cluster, 5);
        assert_eq!(cluster.sum(|c| &c.retained_overtaken_total), u64::from(WAITING) + 1);
        let dropped = cluster.sum(|c| &c.dropped_send_buffer_total);
        assert!(dropped > 0, "it reads nothing");
        assert_eq!(cluster.sum(|c| &c.queued_bytes), 0);
        assert_eq!(
            payloads(&read(&cluster, &mut other), "live").len(),
            WAITING as usize + 1,
            "nobody else waits"
        );
        let mut got = Vec::new();
        for _ in 0..1000 {
            got.extend(read(&cluster, &mut reader));
            rounds(&mut cluster, 1);
        }
        let expected = 200 + u64::from(WAITING) + 1 - dropped;
        assert_eq!(
            got.iter().filter(|packet| matches!(packet, Incoming::Publish(_))).count() as u64,
            expected
        );
        // It is over: the next one comes at once.
        write(&cluster, &mut publisher, &packet::publish(VERSION, &live(99)));
        rounds(&mut cluster, 10);
        assert_eq!(payloads(&read(&cluster, &mut reader), "live"), [b"99".to_vec()]);
        assert_eq!(cluster.sum(|c| &c.retained_overtaken_total), u64::from(WAITING) + 1);
    }
}
