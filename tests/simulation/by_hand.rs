//! Runs made by hand: wills that have to wait, messages that meet in one turn, crowds. Each was a bug that the seeds did
//! not come across.

use ringmq::io::ListenerId;
use ringmq::limits::{Limits, QueueFull};
use ringmq::memory::Class;
use ringmq::shard::Options;
use ringmq::topic::shard_of;

use crate::cluster::Cluster;
use crate::packet::{self, ConnectPacket, Incoming, Publish, Value, Version, WillPacket};
use crate::scene::{
    self, Client, VERSION, connect, connect_bytes, publish, read, read_as, retained, rounds, turns, write,
};

const SHARDS: u16 = 4;
const V5: Version = Version::V5;

/// Four shards at rest, each with a client.
fn four(limits: Limits) -> (Cluster, Vec<Client>) {
    let mut cluster = scene::cluster(&scene::plan(SHARDS, limits));
    let clients = scene::one_on_each(&mut cluster);
    (cluster, clients)
}

fn subscribe(packet_id: u16, filter: &str) -> Vec<u8> {
    packet::subscribe(VERSION, packet_id, None, &[(filter.to_string(), 1)])
}

fn message(topic: &str, payload: &str, packet_id: u16, retain: bool) -> Vec<u8> {
    packet::publish(
        VERSION,
        &Publish {
            dup: false,
            qos: 1,
            retain,
            topic: topic.to_string(),
            packet_id,
            properties: Vec::new(),
            payload: payload.as_bytes().to_vec(),
        },
    )
}

/// The first name from `from` on whose client is at home on `shard`.
fn name_at(cluster: &Cluster, shard: u16, from: usize) -> usize {
    let is_there = |name: &usize| shard_of(&cluster.keys, &format!("client-{name}"), SHARDS) == shard;
    (from..).find(is_there).expect("endless")
}

fn topic_of(cluster: &Cluster, owner: u16, nth: usize) -> String {
    let topics = (0..).map(|number| format!("topic/{number}"));
    topics
        .into_iter()
        .filter(|topic| shard_of(&cluster.keys, topic, SHARDS) == owner)
        .nth(nth)
        .expect("endless")
}

/// A client that comes by way of `shard`; `expiry_s` of its session makes it one of v5.
fn with_will(cluster: &Cluster, shard: u16, name: usize, will: WillPacket, expiry_s: Option<u32>) -> Client {
    let mut client = Client::new(cluster.world.borrow_mut().connect(shard, ListenerId(0)));
    let bytes = packet::connect(&ConnectPacket {
        version: if expiry_s.is_some() { V5 } else { VERSION },
        client_id: &format!("client-{name}"),
        clean_start: true,
        keep_alive_s: 0,
        properties: expiry_s.into_iter().map(|seconds| (0x11, Value::Number(seconds))).collect(),
        will: Some(&will),
    });
    write(cluster, &mut client, &bytes);
    client
}

fn will(topic: &str, payload: &str, retain: bool) -> WillPacket {
    WillPacket {
        topic: topic.to_string(),
        payload: payload.as_bytes().to_vec(),
        qos: 1,
        retain,
        properties: Vec::new(),
    }
}

fn texts(packets: Vec<Incoming>) -> Vec<String> {
    let text = |packet| match packet {
        Incoming::Publish(publish) => Some(String::from_utf8(publish.payload).expect("text")),
        _ => None,
    };
    packets.into_iter().filter_map(text).collect()
}

#[test]
fn a_stop_publishes_wills_to_whoever_saw_a_suback() {
    let (mut cluster, mut clients) = four(Limits::default());
    let name = name_at(&cluster, 1, 2000);
    let _device = with_will(&cluster, 1, name, will("w", "gone", false), None);
    rounds(&mut cluster, 10);
    write(&cluster, &mut clients[0], &subscribe(1, "w"));
    turns(&mut cluster, 0, 3);
    assert!(matches!(read(&cluster, &mut clients[0])[..], [Incoming::SubAck { .. }]));
    // Shard 1 has taken no turn since.
    for at in [1, 0, 2, 3] {
        cluster.stop(at);
    }
    rounds(&mut cluster, 20);
    assert_eq!(texts(read(&cluster, &mut clients[0])), ["gone"]);
}

/// How a device whose will is held comes back.
#[derive(Copy, Clone, Debug)]
enum Back {
    /// Its former connection is lost before.
    AfterLoss,
    /// Its former connection is taken over.
    TakesOver,
    /// When what the will waits for has happened, in the turn that would let the will go.
    AsTheWillLeaves,
}

/// What is retained in the end.
fn presence(owner: u16, back: Back) -> Vec<String> {
    let (mut cluster, mut clients) = four(Limits::default());
    let topic = topic_of(&cluster, owner, 0);
    let name = name_at(&cluster, 0, 3000);
    let device = |cluster: &Cluster| with_will(cluster, 0, name, will(&topic, "offline", true), None);
    write(&cluster, &mut clients[2], &subscribe(1, "x"));
    write(&cluster, &mut clients[0], &publish("x", 1));
    let first = device(&cluster);
    rounds(&mut cluster, 20);
    let mut second = Client::new(cluster.world.borrow_mut().connect(0, ListenerId(0)));
    rounds(&mut cluster, 10);
    // Something is on its way, so that the will has to wait.
    write(&cluster, &mut clients[0], &publish("x", 2));
    match back {
        Back::TakesOver => second = device(&cluster),
        Back::AfterLoss => {
            turns(&mut cluster, 0, 1);
            cluster.world.borrow_mut().close(first.endpoint);
            turns(&mut cluster, 0, 3);
            second = device(&cluster);
        }
        Back::AsTheWillLeaves => {
            turns(&mut cluster, 0, 1);
            cluster.world.borrow_mut().close(first.endpoint);
            turns(&mut cluster, 0, 4);
            turns(&mut cluster, 2, 3);
            write(&cluster, &mut second, &connect_bytes(name));
        }
    }
    write(&cluster, &mut second, &message(&topic, "online", 9, true));
    turns(&mut cluster, 0, 6);
    rounds(&mut cluster, 30);
    write(&cluster, &mut clients[1], &subscribe(3, &topic));
    rounds(&mut cluster, 10);
    texts(read(&cluster, &mut clients[1]))
}

#[test]
fn what_a_client_says_when_it_is_back_comes_after_its_will() {
    for owner in [0, 1] {
        for back in [Back::AfterLoss, Back::TakesOver, Back::AsTheWillLeaves] {
            assert_eq!(presence(owner, back), ["online"], "owner {owner}, {back:?}");
        }
    }
}

#[test]
fn a_will_that_is_held_late_in_a_turn_needs_no_timer() {
    let limits = Limits { queue_messages_max: 1, queue_full: QueueFull::Disconnect, ..Limits::default() };
    let (mut cluster, mut clients) = four(limits);
    let name = name_at(&cluster, 0, 2000);
    let delayed = WillPacket { properties: vec![(0x18, Value::Number(500))], ..will("w", "gone", false) };
    let mut away = with_will(&cluster, 0, name, delayed, Some(1000));
    rounds(&mut cluster, 10);
    write(&cluster, &mut away, &packet::subscribe(V5, 1, None, &[("q".to_string(), 1)]));
    write(&cluster, &mut clients[1], &subscribe(1, "w"));
    write(&cluster, &mut clients[2], &subscribe(1, "x"));
    rounds(&mut cluster, 10);
    cluster.world.borrow_mut().close(away.endpoint);
    write(&cluster, &mut clients[0], &publish("x", 1)); // so that its next one waits for nothing
    rounds(&mut cluster, 20);
    let full = [publish("x", 0), publish("q", 2), publish("q", 3), publish("q", 4)].concat();
    write(&cluster, &mut clients[0], &full);
    turns(&mut cluster, 0, 1);
    for _ in 0..50 {
        [1, 2, 3, 0].into_iter().for_each(|at| turns(&mut cluster, at, 1));
    }
    assert_eq!(cluster.sum(|c| &c.sessions_ended_queue_full_total), 1);
    assert_eq!(texts(read(&cluster, &mut clients[1])), ["gone"]);
}

/// What else comes to the owner in the turn in which it gets a relay.
#[derive(Copy, Clone, Debug)]
enum Beside {
    Nothing,
    Relay,
    HandOff,
    Share,
}

/// What a client gets whose SUBSCRIBE comes after a retained PUBLISH was acknowledged, both before the owner takes a turn.
fn after_the_acknowledgement(beside: Beside, turn: usize, options: u8) -> Vec<Incoming> {
    let (mut cluster, mut clients) = four(Limits::default());
    let (topic, other) = (topic_of(&cluster, 2, 0), topic_of(&cluster, 2, 1));
    write(&cluster, &mut clients[2], &subscribe(9, "$share/g/g"));
    let mut subscriber = Client::new(cluster.world.borrow_mut().connect(0, ListenerId(0)));
    let bytes = packet::connect(&ConnectPacket {
        version: V5,
        client_id: &format!("client-{}", name_at(&cluster, 0, 5000)),
        clean_start: true,
        keep_alive_s: 0,
        properties: Vec::new(),
        will: None,
    });
    write(&cluster, &mut subscriber, &bytes);
    // Neither is new any more, and nothing is retained.
    for (client, topic) in [(1, &topic), (3, &other)] {
        write(&cluster, &mut clients[client], &retained(topic, 1));
        write(&cluster, &mut clients[client], &message(topic, "", 2, true));
    }
    rounds(&mut cluster, 20);
    let _ = (read(&cluster, &mut clients[1]), read_as(&cluster, &mut subscriber, V5));
    for _ in 0..turn {
        cluster.wake(true);
        turns(&mut cluster, 2, 1); // the owner begins with another ring
    }
    write(&cluster, &mut clients[1], &retained(&topic, 7));
    turns(&mut cluster, 1, 3);
    assert!(read(&cluster, &mut clients[1]).is_empty(), "it is not stored yet");
    turns(&mut cluster, 2, 1);
    turns(&mut cluster, 1, 3);
    assert!(matches!(read(&cluster, &mut clients[1])[..], [Incoming::Ack { packet_id: 7, .. }]));
    write(&cluster, &mut subscriber, &packet::subscribe(V5, 1, None, &[(topic.clone(), options)]));
    turns(&mut cluster, 0, 3);
    assert!(matches!(read_as(&cluster, &mut subscriber, V5)[..], [Incoming::SubAck { .. }]));
    let mut newcomer = None;
    match beside {
        Beside::Nothing => {}
        Beside::Relay => write(&cluster, &mut clients[3], &retained(&other, 8)),
        Beside::Share => write(&cluster, &mut clients[3], &publish("g", 8)),
        Beside::HandOff => newcomer = Some(connect(&cluster, 3, name_at(&cluster, 2, 9000))),
    }
    turns(&mut cluster, 3, 3);
    rounds(&mut cluster, 10);
    drop(newcomer);
    read_as(&cluster, &mut subscriber, V5)
}

#[test]
fn what_was_acknowledged_before_a_subscribe_is_retained_whatever_else_comes() {
    const NO_RETAINED: u8 = 2 << 4;
    for beside in [Beside::Nothing, Beside::Relay, Beside::HandOff, Beside::Share] {
        for turn in 0..usize::from(SHARDS) {
            let got = after_the_acknowledgement(beside, turn, 1);
            assert!(matches!(&got[..], [Incoming::Publish(it)] if it.retain), "{beside:?}, {turn}: {got:?}");
            let got = after_the_acknowledgement(beside, turn, 1 | NO_RETAINED);
            assert!(got.is_empty(), "{beside:?}, {turn}: {got:?}");
        }
    }
}

#[test]
fn thousands_that_are_paused_go_on_without_a_timer() {
    const COUNT: u64 = 3000;
    let (mut cluster, mut clients) = four(Limits::default());
    write(&cluster, &mut clients[2], &subscribe(1, "x"));
    write(&cluster, &mut clients[0], &publish("x", 1));
    let mut many = Vec::new();
    let mut from = 10_000;
    for _ in 0..COUNT {
        let name = name_at(&cluster, 0, from);
        from = name + 1;
        many.push(connect(&cluster, 0, name));
    }
    rounds(&mut cluster, 100);
    write(&cluster, &mut clients[0], &publish("x", 2));
    turns(&mut cluster, 0, 1);
    let before = cluster.sum(|c| &c.publish_received_total);
    for client in &mut many {
        write(&cluster, client, &publish("nobody", 0));
    }
    turns(&mut cluster, 0, 200);
    assert_eq!(cluster.sum(|c| &c.connections_paused), COUNT);
    for _ in 0..20 {
        [1, 2, 3, 0].into_iter().for_each(|at| turns(&mut cluster, at, 1));
    }
    assert_eq!(cluster.sum(|c| &c.publish_received_total) - before, COUNT);
}

#[test]
fn thousands_that_want_one_session_and_leave_at_once_are_served_one_after_the_other() {
    // On a stack that holds no more than it takes to serve one.
    let thread = std::thread::Builder::new().stack_size(128 * 1024).spawn(crowd).expect("a thread");
    thread.join().expect("no panic");
}

fn crowd() {
    const COUNT: u64 = 5000;
    let (mut cluster, _clients) = four(Limits::default());
    let name = name_at(&cluster, 0, 2000);
    let _first = connect(&cluster, 0, name);
    let open = |cluster: &Cluster| Client::new(cluster.world.borrow_mut().connect(0, ListenerId(0)));
    let mut all: Vec<Client> = (0..COUNT).map(|_| open(&cluster)).collect();
    rounds(&mut cluster, 200);
    let [connect, disconnect] = [connect_bytes(name), packet::disconnect(VERSION, 0, None)];
    for client in &mut all {
        write(&cluster, client, &[&connect[..], &disconnect].concat());
    }
    rounds(&mut cluster, 200);
    let answered = |client: &mut Client| {
        let got = read(&cluster, client);
        assert!(matches!(got[..], [Incoming::ConnAck { code: 0, .. }]), "{got:?}");
    };
    all.iter_mut().for_each(answered);
    assert_eq!(cluster.sum(|c| &c.clients_connected), 4);
    assert_eq!(cluster.sum(|c| &c.takeovers_forced_total), 0);
}

#[test]
fn who_replaces_a_session_is_taken_over_without_delay_too() {
    let (mut cluster, _clients) = four(Limits::default());
    let name = name_at(&cluster, 0, 2000);
    let first = connect(&cluster, 0, name);
    rounds(&mut cluster, 10);
    // Both wait for the first; each begins a session of its own.
    let mut both = [connect(&cluster, 0, name), connect(&cluster, 0, name)];
    rounds(&mut cluster, 20);
    for client in &mut both {
        assert!(matches!(read(&cluster, client)[..], [Incoming::ConnAck { code: 0, .. }, ..]));
    }
    assert_eq!(cluster.sum(|c| &c.takeovers_total), 2);
    assert_eq!(cluster.sum(|c| &c.takeovers_forced_total), 0);
    drop(first);
}

#[test]
fn each_who_waits_is_forced_in_when_the_one_before_is_stuck_too() {
    let (mut cluster, mut clients) = four(Limits::default());
    let name = name_at(&cluster, 0, 2000);
    write(&cluster, &mut clients[2], &subscribe(1, "x"));
    let mut first = connect(&cluster, 0, name);
    rounds(&mut cluster, 10);
    // What shard 2 does not take keeps whoever publishes for the first time, and so its takeover too.
    write(&cluster, &mut clients[0], &publish("x", 1));
    turns(&mut cluster, 0, 3);
    write(&cluster, &mut first, &publish("x", 1));
    let mut others = [connect(&cluster, 0, name), connect(&cluster, 0, name)];
    for other in &mut others {
        write(&cluster, other, &publish("x", 1));
    }
    let takeover_ms = Options::default().takeover_ms;
    let mut answered = Vec::new();
    for waits in 0..4 {
        for _ in 0..10 {
            cluster.world.borrow_mut().progress(0);
            cluster.turn(0, 1 + waits * (takeover_ms + 10));
        }
        let is_in =
            |client: &mut Client| matches!(read(&cluster, client)[..], [Incoming::ConnAck { .. }, ..]);
        answered.extend(
            others.iter_mut().enumerate().filter_map(|(at, other)| is_in(other).then_some((at, waits))),
        );
    }
    assert_eq!(answered, [(0, 1), (1, 2)]);
    assert_eq!(cluster.sum(|c| &c.takeovers_forced_total), 2);
}

/// What comes of a session whose client is replaced by one for whose session there is no room: the texts of its will, and
/// the sessions that are left after so many seconds.
fn refused_successor(waits: usize, later_s: u64) -> (Vec<String>, u64) {
    let mut plan = scene::plan(SHARDS, Limits::default());
    plan.memory[Class::Session as usize] = 8_000;
    let mut cluster = scene::cluster(&plan);
    let mut clients = scene::one_on_each(&mut cluster);
    let name = name_at(&cluster, 0, 2000);
    write(&cluster, &mut clients[1], &subscribe(1, "w"));
    let first = with_will(&cluster, 0, name, will("w", "gone", false), Some(60));
    rounds(&mut cluster, 10);
    let large = "x".repeat(10_000);
    let mut others: Vec<Client> =
        (0..waits).map(|_| with_will(&cluster, 0, name, will("w", &large, false), Some(60))).collect();
    rounds(&mut cluster, 20);
    for other in &mut others {
        let got = read_as(&cluster, other, V5);
        assert!(matches!(got[..], [Incoming::ConnAck { code: 0x97, .. }]), "{got:?}");
    }
    assert_eq!(cluster.sum(|c| &c.sessions_refused_total), waits as u64);
    drop(first);
    for _ in 0..10 {
        for at in 0..cluster.len() {
            cluster.world.borrow_mut().progress(at as u16);
            cluster.turn(at, 1 + later_s * 1000);
        }
    }
    let sessions: u64 = cluster.live().into_iter().map(|live| live.sessions).sum();
    (texts(read(&cluster, &mut clients[1])), sessions)
}

#[test]
fn a_session_whose_next_client_is_refused_has_its_will_and_its_end() {
    for waits in 1..=3 {
        assert_eq!(refused_successor(waits, 59), (vec!["gone".to_string()], 5), "{waits} refused");
        assert_eq!(refused_successor(waits, 61), (vec!["gone".to_string()], 4), "{waits} refused");
    }
}

#[test]
fn what_is_due_in_one_millisecond_is_spread_over_turns() {
    let (mut cluster, mut clients) = four(Limits::default());
    const FILTERS: usize = 3_000;
    for packet_id in 0..FILTERS {
        write(&cluster, &mut clients[0], &subscribe(packet_id as u16 + 1, &format!("f/{packet_id}")));
    }
    rounds(&mut cluster, 200);
    assert_eq!(read(&cluster, &mut clients[0]).len(), FILTERS);
    write(&cluster, &mut clients[0], &packet::disconnect(VERSION, 0, None));
    turns(&mut cluster, 0, 20);
    let mut left = vec![cluster.live()[0].timers];
    assert!(left[0] >= FILTERS as u64, "{left:?}");
    let later = 1 + Options::default().interest_linger_ms + 10;
    for _ in 0..10 {
        cluster.turn(0, later);
        left.push(cluster.live()[0].timers);
    }
    let most = left.windows(2).map(|pair| pair[0].saturating_sub(pair[1])).max();
    assert!(left[10] + FILTERS as u64 <= left[0] && most <= Some(1024), "{left:?}");
}

/// A client that pings and does not read, while there is no memory for what waits to be sent.
#[test]
fn who_does_not_read_is_not_answered_on_and_on_where_memory_is_short() {
    let mut plan = scene::plan(SHARDS, Limits::default());
    plan.memory[Class::Send as usize] = 1;
    plan.faults.to_client_bytes = 4_096;
    plan.faults.to_shard_bytes = 1 << 20;
    let mut cluster = scene::cluster(&plan);
    let mut clients = scene::one_on_each(&mut cluster);
    const PINGS: usize = 200_000;
    let mut witness = clients.remove(1);
    write(&cluster, &mut witness, &subscribe(1, "t"));
    rounds(&mut cluster, 10);
    assert!(matches!(read(&cluster, &mut witness)[..], [Incoming::SubAck { .. }]));
    let flooder = &mut clients[0];
    write(&cluster, flooder, &packet::pingreq().repeat(PINGS));
    let mut sending = 0;
    for _ in 0..200 {
        rounds(&mut cluster, 1);
        write(&cluster, flooder, &[]);
        sending = sending.max(cluster.leased(Class::Send));
    }
    assert!(sending < 64 << 10, "{sending} bytes wait for a client that does not read");
    // Once it reads it gets all of its answers, and what it said behind them counts.
    write(&cluster, flooder, &publish("t", 1));
    let (mut answers, mut acks) = (0, 0);
    for _ in 0..4_000 {
        rounds(&mut cluster, 1);
        write(&cluster, flooder, &[]);
        for packet in read(&cluster, flooder) {
            match packet {
                Incoming::PingResp => answers += 1,
                _ => acks += 1,
            }
        }
    }
    assert_eq!((answers, acks), (PINGS, 1));
    assert_eq!(texts(read(&cluster, &mut witness)), ["x"]);
}

/// Messages that expired in the queue of a client that is away kept the memory of all others for as long as its session.
#[test]
fn what_expired_for_a_client_that_is_away_makes_room_for_others() {
    let mut plan = scene::plan(1, Limits::default());
    plan.memory[Class::Queue as usize] = 8192;
    let mut cluster = scene::cluster(&plan);
    let mut away: Vec<Client> = ["a", "b"]
        .into_iter()
        .enumerate()
        .map(|(name, filter)| {
            let mut client = with_will(&cluster, 0, name, will("w", "", false), Some(1000));
            write(&cluster, &mut client, &packet::subscribe(V5, 1, None, &[(filter.to_string(), 1)]));
            client
        })
        .collect();
    let mut publisher = with_will(&cluster, 0, 9, will("w", "", false), Some(1000));
    rounds(&mut cluster, 10);
    away.drain(..).for_each(|client| cluster.world.borrow_mut().close(client.endpoint));
    rounds(&mut cluster, 10);
    let mut say = |cluster: &Cluster, topic: &str, packet_id, properties| {
        let (topic, payload) = (topic.to_string(), vec![b'x'; 100]);
        let publish = Publish { dup: false, qos: 1, retain: false, topic, packet_id, properties, payload };
        write(cluster, &mut publisher, &packet::publish(V5, &publish));
    };
    for packet_id in 1..=100 {
        say(&cluster, "a", packet_id, vec![(packet::MESSAGE_EXPIRY_INTERVAL, Value::Number(1))]);
    }
    rounds(&mut cluster, 10);
    let dropped = cluster.sum(|c| &c.dropped_memory_total);
    assert!(dropped > 0, "they fill the memory for queues");
    for _ in 0..3 {
        cluster.wake(true);
        cluster.turn(0, 5000);
    }
    say(&cluster, "b", 101, Vec::new());
    cluster.world.borrow_mut().progress(0);
    for _ in 0..5 {
        cluster.turn(0, 5000);
    }
    assert_eq!(cluster.sum(|c| &c.publish_received_total), 101);
    assert_eq!(cluster.sum(|c| &c.dropped_memory_total), dropped, "there is room for what is not expired");
}
