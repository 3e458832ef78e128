//! Orders of the control thread in the middle of runs: other limits and rules, listeners that come and go, a stop.

use ringmq::access::{Rules, acl_file};
use ringmq::io::ListenerId;
use ringmq::io::sim::Rng;
use ringmq::limits::{Limits, ListenerLimits};
use ringmq::shard::Order;
use ringmq::transport::Layers;

use crate::cluster::Cluster;
use crate::packet::{self, ConnectPacket, Incoming, Value, Version};
use crate::plan::Plan;
use crate::scene::{self, Client, VERSION, publish, read, read_as, rounds, turns, write};

/// A further listener, which has clients in scenes only.
const MORE: ListenerId = ListenerId(1);
/// Steps of a run between two orders, on average.
const STEPS_PER_ORDER: usize = 150;
/// One run in this many has rules some of the time.
const RUNS_PER_RULES: usize = 8;
/// Anonymous clients, and there are no others, may do what they may do without rules: none notices when these come or go.
const HARMLESS: &str = "topic readwrite #\ntopic read $SYS/#\n";

/// What the control thread of a run does, from a seed of its own.
pub struct Orders {
    rng: Rng,
    is_open: bool,
    /// Decides about rules. Apart, so that a run without them is as it was before there were any.
    rules: Option<Rng>,
}

impl Orders {
    pub fn new(plan: &Plan) -> Orders {
        let mut rules = Rng::new(plan.seed ^ 0xDE5C_0001);
        let has_rules = rules.below(RUNS_PER_RULES) == 0;
        Orders { rng: Rng::new(plan.seed ^ 0xDE5C_0000), is_open: false, rules: has_rules.then_some(rules) }
    }

    /// Another cluster begins with the listeners that the plan has.
    pub fn begin_anew(&mut self) {
        self.is_open = false;
    }

    /// Now and then an order, once all shards have answered the one before. Clients keep to what their CONNACK said, and
    /// the oracle calls it wrong to close one for that. Returns what was ordered.
    pub fn step(&mut self, cluster: &mut Cluster, plan: &Plan) -> Option<String> {
        if self.rng.below(STEPS_PER_ORDER) > 0 || !cluster.is_obeyed() {
            return None;
        }
        if cluster.listeners.len() == 1 || self.rng.below(3) > 0 {
            let limits = Limits {
                // What a client has open outlives its connection, and it sends all of it again: not a lower one.
                topic_alias_max: *self.rng.pick(&[0, 1, plan.limits.topic_alias_max]),
                packet_size_max: plan.limits.packet_size_max * *self.rng.pick(&[1, 2]),
                ..plan.limits
            };
            let own = ListenerLimits::of(&limits);
            let old = cluster.listeners.iter().map(|old| old.renewed(Layers::plain(), own));
            cluster.listeners = old.collect();
            if cluster.listeners.len() == 1 {
                cluster.listeners.push(Layers::plain().into());
            }
            let has_rules = self.rules.as_mut().is_some_and(|rng| rng.below(2) == 0);
            cluster.rules = has_rules.then(|| rules(HARMLESS));
            cluster.settle(limits, plan.options.sys_interval_ms);
            return Some(format!("aliases up to {}, rules: {has_rules}", limits.topic_alias_max));
        }
        self.is_open = !self.is_open;
        match self.is_open {
            true => cluster.order(|| Order::Open(vec![(MORE, ())])),
            false => cluster.order(|| Order::Close(vec![MORE])),
        }
        Some(format!("the other listener is open: {}", self.is_open))
    }
}

fn rules(text: &str) -> Rules {
    acl_file::parse(text).expect("rules")
}

fn obeyed(cluster: &mut Cluster) {
    rounds(cluster, 20);
    assert!(cluster.is_obeyed(), "an order has no answer");
}

fn connect(cluster: &Cluster, shard: u16, listener: ListenerId, name: usize) -> Client {
    let mut client = Client::new(cluster.world.borrow_mut().connect(shard, listener));
    write(cluster, &mut client, &scene::connect_bytes(name));
    client
}

fn connect_v5_bytes(name: &str) -> Vec<u8> {
    packet::connect(&ConnectPacket {
        version: Version::V5,
        client_id: name,
        clean_start: true,
        keep_alive_s: 0,
        properties: Vec::new(),
        will: None,
    })
}

fn publish_v5(topic: &str, packet_id: u16) -> Vec<u8> {
    let publish = packet::Publish {
        dup: false,
        qos: 1,
        retain: false,
        topic: topic.to_string(),
        packet_id,
        properties: Vec::new(),
        payload: b"x".to_vec(),
    };
    packet::publish(Version::V5, &publish)
}

fn connect_v5(cluster: &mut Cluster, name: &str) -> (Client, packet::Properties) {
    let mut client = Client::new(cluster.world.borrow_mut().connect(0, ListenerId(0)));
    write(cluster, &mut client, &connect_v5_bytes(name));
    rounds(cluster, 20);
    match read_as(cluster, &mut client, Version::V5).pop() {
        Some(Incoming::ConnAck { code: 0, properties, .. }) => (client, properties),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_listener_opens_and_closes_in_the_middle_of_traffic() {
    let plan = scene::plan(3, Limits::default());
    let mut cluster = scene::cluster(&plan);
    let mut clients = scene::one_on_each(&mut cluster);
    let subscribe = packet::subscribe(VERSION, 1, None, &[("t".to_string(), 1)]);
    write(&cluster, &mut clients[0], &subscribe);
    rounds(&mut cluster, 20);
    read(&cluster, &mut clients[0]);

    // Not all shards know the listener: nobody accepts there yet.
    cluster.listeners.push(Layers::plain().into());
    cluster.settle(plan.limits, 0);
    turns(&mut cluster, 0, 2);
    assert!(!cluster.is_obeyed());
    obeyed(&mut cluster);
    for round in 0..3 {
        cluster.order(|| Order::Open(vec![(MORE, ())]));
        obeyed(&mut cluster);
        let mut here: Vec<Client> =
            (0..12).map(|at| connect(&cluster, at % 3, MORE, 1000 + 100 * round + usize::from(at))).collect();
        // In the middle of their way home.
        turns(&mut cluster, 0, 1);
        cluster.listeners[1] = cluster.listeners[1].closed();
        cluster.settle(plan.limits, 0);
        cluster.order(|| Order::Close(vec![MORE]));
        obeyed(&mut cluster);
        let late = connect_refused(&cluster);
        assert!(cluster.world.borrow().is_failed(late), "nobody listens there");
        let mut stayed = 0;
        for client in &mut here {
            let came = read(&cluster, client);
            if cluster.world.borrow().is_failed(client.endpoint) {
                continue; // it was in the backlog
            }
            assert!(matches!(came[..], [Incoming::ConnAck { code: 0, .. }]), "{came:?}");
            stayed += 1;
            write(&cluster, client, &publish("t", 7));
            rounds(&mut cluster, 20);
            assert!(matches!(read(&cluster, client)[..], [Incoming::Ack { code: 0, .. }]));
            let came = read(&cluster, &mut clients[0]);
            assert!(matches!(came[..], [Incoming::Publish(_)]), "{came:?}");
        }
        assert!(stayed > 0, "nobody was accepted");
    }
}

/// A connection to the closed listener.
fn connect_refused(cluster: &Cluster) -> ringmq::io::sim::Endpoint {
    cluster.world.borrow_mut().connect(1, MORE)
}

#[test]
fn mqtt_3_3_4_7_a_client_is_held_to_the_receive_maximum_it_was_told() {
    const RECEIVE_MAXIMUM: u8 = 0x21;
    let limits = Limits { receive_maximum: 4, ..Limits::default() };
    let mut cluster = scene::cluster(&scene::plan(2, limits));
    let (mut old, properties) = connect_v5(&mut cluster, "old");
    assert!(properties.contains(&(RECEIVE_MAXIMUM, Value::Number(4))), "{properties:?}");
    let lower = Limits { receive_maximum: 2, packet_size_max: 300, ..limits };
    cluster.settle(lower, 0);
    obeyed(&mut cluster);
    let (mut new, properties) = connect_v5(&mut cluster, "new");
    assert!(properties.contains(&(RECEIVE_MAXIMUM, Value::Number(2))), "{properties:?}");
    let message = |packet_id, len| {
        let publish = packet::Publish {
            dup: false,
            qos: 2,
            retain: false,
            topic: "t".to_string(),
            packet_id,
            properties: Vec::new(),
            payload: vec![b'x'; len],
        };
        packet::publish(Version::V5, &publish)
    };
    for (client, count) in [(&mut old, 4), (&mut new, 2)] {
        (1..=count + 1).for_each(|id| write(&cluster, client, &message(id, 10)));
        rounds(&mut cluster, 20);
        let came = read_as(&cluster, client, Version::V5);
        let acks = came.iter().filter(|packet| matches!(packet, Incoming::Ack { .. })).count();
        assert_eq!(acks, usize::from(count), "{came:?}");
        assert!(matches!(came.last(), Some(Incoming::Disconnect { code: 0x93 })), "{came:?}");
    }
    // The same of the size of packets.
    cluster.settle(limits, 0);
    obeyed(&mut cluster);
    let (mut old, _) = connect_v5(&mut cluster, "old");
    cluster.settle(lower, 0);
    obeyed(&mut cluster);
    let (mut new, _) = connect_v5(&mut cluster, "new");
    write(&cluster, &mut old, &message(1, 1000));
    write(&cluster, &mut new, &message(1, 1000));
    rounds(&mut cluster, 20);
    assert!(matches!(read_as(&cluster, &mut old, Version::V5)[..], [Incoming::Ack { .. }]));
    assert!(matches!(read_as(&cluster, &mut new, Version::V5)[..], [Incoming::Disconnect { code: 0x95 }]));
}

#[test]
fn a_new_policy_holds_for_clients_that_stay_and_for_those_that_come() {
    let plan = scene::plan(3, Limits::default());
    let mut cluster = scene::cluster(&plan);
    let mut clients: Vec<Client> =
        (0..6).map(|at| connect_v5(&mut cluster, &format!("stays-{at}")).0).collect();
    let steps = [
        (None, ""),
        (Some("topic write a"), "b"),
        (Some("topic write b"), "a"),
        (None, ""),
        (Some(""), "ab"),
    ];
    for (step, (text, denied)) in steps.into_iter().enumerate() {
        cluster.rules = text.map(rules);
        cluster.settle(plan.limits, 0);
        obeyed(&mut cluster);
        clients.push(connect_v5(&mut cluster, &format!("comes-{step}")).0);
        for client in &mut clients {
            for topic in ["a", "b"] {
                write(&cluster, client, &publish_v5(topic, 1));
                rounds(&mut cluster, 20);
                let came = read_as(&cluster, client, Version::V5);
                let [Incoming::Ack { code, .. }] = came[..] else { panic!("{came:?}") };
                assert_eq!(code == 0x87, denied.contains(topic), "step {step}: {topic} has {code:#x}");
            }
        }
    }
}

#[test]
fn a_listener_opens_under_the_policy_that_came_before_it() {
    let plan = scene::plan(3, Limits::default());
    let mut cluster = scene::cluster(&plan);
    cluster.listeners.push(Layers::plain().into());
    cluster.rules = Some(rules("pattern write b"));
    cluster.settle(plan.limits, 0);
    obeyed(&mut cluster);
    cluster.order(|| Order::Open(vec![(MORE, ())]));
    obeyed(&mut cluster);
    let connect = |at: u16| {
        let mut client = Client::new(cluster.world.borrow_mut().connect(at % 3, MORE));
        let packets = [connect_v5_bytes(&format!("c{at}")), publish_v5("a", 1), publish_v5("b", 2)];
        write(&cluster, &mut client, &packets.concat());
        client
    };
    let mut clients: Vec<Client> = (0..12).map(connect).collect();
    rounds(&mut cluster, 20);
    for client in &mut clients {
        let came = read_as(&cluster, client, Version::V5);
        let [Incoming::ConnAck { code: 0, .. }, Incoming::Ack { code: a, .. }, Incoming::Ack { code: b, .. }] =
            came[..]
        else {
            panic!("{came:?}")
        };
        assert!(a == 0x87 && b < 0x80, "{came:?}");
    }
}

/// A turn of each shard in each of these milliseconds.
fn pass(cluster: &mut Cluster, time: std::ops::Range<u64>) {
    for now in time {
        for at in 0..cluster.len() {
            cluster.world.borrow_mut().progress(at as u16);
            cluster.turn(at, now);
        }
    }
}

/// Full of orders that are not answered, since nobody has taken a turn.
fn with_full_desks() -> (Cluster, Client) {
    let mut cluster = scene::cluster(&scene::plan(3, Limits::default()));
    let (client, _) = connect_v5(&mut cluster, "client");
    for at in 0..cluster.len() {
        while cluster.order_of(at, Order::Close(Vec::new())).is_ok() {}
    }
    assert!(!cluster.is_obeyed());
    (cluster, client)
}

#[test]
fn shards_drain_though_their_desks_are_full() {
    let (mut cluster, mut client) = with_full_desks();
    (0..cluster.len()).for_each(|at| cluster.stop(at));
    pass(&mut cluster, 1..100);
    assert!(cluster.is_obeyed(), "an order has no answer");
    let came = read_as(&cluster, &mut client, Version::V5);
    assert!(matches!(came[..], [Incoming::Disconnect { code: 0x8B }]), "{came:?}");
    assert!(!cluster.is_stopped(), "a client is there");
    cluster.world.borrow_mut().close(client.endpoint);
    pass(&mut cluster, 100..200);
    assert!(cluster.is_stopped());
}

#[test]
fn shards_end_at_once_though_their_desks_are_full_and_they_drain() {
    let (mut cluster, mut client) = with_full_desks();
    (0..cluster.len()).for_each(|at| cluster.stop(at));
    cluster.order(|| Order::Abandon);
    pass(&mut cluster, 1..2);
    assert!(cluster.is_stopped());
    assert!(read_as(&cluster, &mut client, Version::V5).is_empty(), "nobody was told");
}
