//! Hand-made runs: which client is at home where, and which shard takes a turn when.

use ringmq::io::ListenerId;
use ringmq::io::sim::{Endpoint, Faults, Rng};
use ringmq::limits::Limits;
use ringmq::memory::CLASSES;
use ringmq::shard::Options;

use crate::cluster::Cluster;
use crate::packet::{self, ConnectPacket, Incoming, Publish, Version};
use crate::plan::Plan;

pub const VERSION: Version = Version::V311;

/// A plan without faults, and in which `$SYS` is silent.
pub fn plan(shards: u16, limits: Limits) -> Plan {
    Plan {
        shards,
        memory: [64 << 20; CLASSES],
        limits,
        options: Options { sys_interval_ms: 0, ..Options::default() },
        faults: Faults::none(),
        ..Plan::draw_without_data(0)
    }
}

pub fn cluster(plan: &Plan) -> Cluster {
    Cluster::new(plan, &mut Rng::new(1), 1)
}

/// A client at home on each shard, and all at rest.
pub fn one_on_each(cluster: &mut Cluster) -> Vec<Client> {
    let mut names = 0;
    let clients = (0..cluster.len() as u16).map(|shard| home(cluster, &mut names, shard)).collect();
    rounds(cluster, 20);
    clients
}

pub struct Client {
    pub endpoint: Endpoint,
    pub unsent: Vec<u8>,
    unread: Vec<u8>,
}

impl Client {
    pub fn new(endpoint: Endpoint) -> Client {
        Client { endpoint, unsent: Vec::new(), unread: Vec::new() }
    }
}

/// The client's next CONNECT goes through `shard`.
pub fn connect(cluster: &Cluster, shard: u16, name: usize) -> Client {
    let mut client = Client::new(cluster.world.borrow_mut().connect(shard, ListenerId(0)));
    write(cluster, &mut client, &connect_bytes(name));
    client
}

pub fn connect_bytes(name: usize) -> Vec<u8> {
    packet::connect(&ConnectPacket {
        version: VERSION,
        client_id: &format!("client-{name}"),
        clean_start: true,
        keep_alive_s: 0,
        properties: Vec::new(),
        will: None,
    })
}

/// A client that is at home on `shard`: names are tried until one is.
pub fn home(cluster: &mut Cluster, names: &mut usize, shard: u16) -> Client {
    loop {
        *names += 1;
        let handed_off = cluster.sum(|c| &c.hand_offs_total);
        let mut client = connect(cluster, shard, *names);
        rounds(cluster, 20);
        let came = read(cluster, &mut client);
        assert!(
            matches!(came[..], [Incoming::ConnAck { code: 0, .. }]),
            "{came:?} {:?}",
            cluster.world.borrow().is_failed(client.endpoint)
        );
        if cluster.sum(|c| &c.hand_offs_total) == handed_off {
            return client;
        }
        cluster.world.borrow_mut().close(client.endpoint);
    }
}

/// So many turns of each shard.
pub fn rounds(cluster: &mut Cluster, count: usize) {
    for _ in 0..count {
        (0..cluster.len()).for_each(|at| turns(cluster, at, 1));
    }
}

/// So many turns of one shard.
pub fn turns(cluster: &mut Cluster, at: usize, count: usize) {
    for _ in 0..count {
        cluster.world.borrow_mut().progress(at as u16);
        cluster.turn(at, 1);
    }
}

/// QoS 1 if there is a Packet Identifier.
pub fn publish(topic: &str, packet_id: u16) -> Vec<u8> {
    put(topic, packet_id, false)
}

pub fn retained(topic: &str, packet_id: u16) -> Vec<u8> {
    put(topic, packet_id, true)
}

fn put(topic: &str, packet_id: u16, retain: bool) -> Vec<u8> {
    let publish = Publish {
        dup: false,
        qos: u8::from(packet_id > 0),
        retain,
        topic: topic.to_string(),
        packet_id,
        properties: Vec::new(),
        payload: b"x".to_vec(),
    };
    packet::publish(VERSION, &publish)
}

/// Sends `bytes` after what the kernel did not take before.
pub fn write(cluster: &Cluster, client: &mut Client, bytes: &[u8]) {
    client.unsent.extend_from_slice(bytes);
    let taken = cluster.world.borrow_mut().write(client.endpoint, &client.unsent);
    client.unsent.drain(..taken.expect("a connection"));
}

/// What came since the last time.
pub fn read(cluster: &Cluster, client: &mut Client) -> Vec<Incoming> {
    read_as(cluster, client, VERSION)
}

pub fn read_as(cluster: &Cluster, client: &mut Client, version: Version) -> Vec<Incoming> {
    cluster.world.borrow_mut().read(client.endpoint, &mut client.unread, usize::MAX);
    let mut packets = Vec::new();
    while let Some((packet, length)) = packet::decode(version, &client.unread).expect("what the broker sends")
    {
        client.unread.drain(..length);
        packets.push(packet);
    }
    packets
}
