//! What shards tell each other of their subscriptions, with shards that take no turn meanwhile.

use ringmq::limits::Limits;
use ringmq::topic::shard_of;

use crate::cluster::Cluster;
use crate::packet::{self, Incoming, PUBACK, Publish};
use crate::scene::{self, Client, VERSION, connect, publish, read, retained, rounds, turns, write};

const SHARDS: u16 = 4;

/// Four shards at rest, each with a client.
struct Scene {
    cluster: Cluster,
    clients: Vec<Client>,
}

impl Scene {
    fn new(announcements_max: u64) -> Scene {
        Scene::with(Limits::default(), announcements_max)
    }

    fn with(limits: Limits, announcements_max: u64) -> Scene {
        let mut plan = scene::plan(SHARDS, limits);
        plan.options.announcements_max = announcements_max;
        let mut cluster = scene::cluster(&plan);
        let clients = scene::one_on_each(&mut cluster);
        Scene { cluster, clients }
    }

    fn write(&mut self, client: usize, bytes: &[u8]) {
        write(&self.cluster, &mut self.clients[client], bytes);
    }

    fn read(&mut self, client: usize) -> Vec<Incoming> {
        read(&self.cluster, &mut self.clients[client])
    }

    /// A topic whose retained message is at home on `owner`.
    fn topic_of(&self, owner: u16) -> String {
        let topics = (0..).map(|number| format!("topic/{number}"));
        topics
            .into_iter()
            .find(|topic| shard_of(&self.cluster.keys, topic, SHARDS) == owner)
            .expect("endless")
    }

    /// What comes to client 0 when client 1 publishes on `topic`.
    fn arrives(&mut self, topic: &str) -> bool {
        self.write(1, &publish(topic, 0));
        rounds(&mut self.cluster, 10);
        self.read(0)
            .iter()
            .any(|packet| matches!(packet, Incoming::Publish(publish) if publish.topic == topic))
    }
}

fn subscribe(packet_id: u16, filter: &str) -> Vec<u8> {
    packet::subscribe(VERSION, packet_id, None, &[(filter.to_string(), 1)])
}

fn subacks(packets: &[Incoming]) -> usize {
    packets.iter().filter(|packet| matches!(packet, Incoming::SubAck { .. })).count()
}

#[test]
fn a_suback_waits_for_no_other_shard_and_wakes_none() {
    for filter in ["a", "+", "a/#"] {
        let mut scene = Scene::new(4096);
        let doorbells = scene.cluster.sum(|c| &c.doorbells_total);
        scene.write(0, &subscribe(1, filter));
        turns(&mut scene.cluster, 0, 3);
        assert_eq!(subacks(&scene.read(0)), 1, "{filter}: nobody else took a turn");
        assert_eq!(scene.cluster.sum(|c| &c.doorbells_total), doorbells, "{filter}");
        assert!(scene.arrives("a"), "{filter}");
    }
}

#[test]
fn a_full_log_holds_subacks_until_it_is_read() {
    let mut scene = Scene::new(2);
    let all: Vec<u8> = (1..=5).flat_map(|number| subscribe(number, &format!("t/{number}"))).collect();
    scene.write(0, &all);
    turns(&mut scene.cluster, 0, 10);
    assert_eq!(subacks(&scene.read(0)), 2);
    // All others but one read it.
    for _ in 0..10 {
        (0..3).for_each(|shard| turns(&mut scene.cluster, shard, 1));
    }
    assert_eq!(subacks(&scene.read(0)), 0);
    rounds(&mut scene.cluster, 20);
    assert_eq!(subacks(&scene.read(0)), 3);
    for number in 1..=5 {
        assert!(scene.arrives(&format!("t/{number}")), "{number}");
    }
}

/// It went out as unwanted, and who wanted it again had nothing to announce.
#[test]
fn a_filter_that_waits_and_lingers_stays_announced() {
    let mut scene = Scene::new(1);
    let unsubscribe = packet::unsubscribe(VERSION, 3, &["b".to_string()]);
    scene.write(0, &[subscribe(1, "a"), subscribe(2, "b"), unsubscribe].concat());
    turns(&mut scene.cluster, 0, 3);
    assert_eq!(subacks(&scene.read(0)), 1, "b waits");
    rounds(&mut scene.cluster, 20);
    assert_eq!(subacks(&scene.read(0)), 1);
    assert!(!scene.arrives("b"));
    scene.write(0, &subscribe(4, "b"));
    turns(&mut scene.cluster, 0, 3);
    assert_eq!(subacks(&scene.read(0)), 1, "it is announced still");
    assert!(scene.arrives("b"));
}

/// Whichever ring the owner reads first, and although it was busy all the while.
#[test]
fn what_was_acknowledged_before_a_subscribe_comes_as_retained() {
    for publisher in [0, 1] {
        for filter in ["topic/+", "#", ""] {
            for turn in 0..4 {
                let mut scene = Scene::new(4096);
                let topic = scene.topic_of(2);
                turns(&mut scene.cluster, 2, turn);
                // Not its first message, which has more to wait for.
                scene.write(publisher, &publish("before", 1));
                rounds(&mut scene.cluster, 10);
                scene.read(publisher);
                scene.write(publisher, &retained(&topic, 7));
                turns(&mut scene.cluster, publisher, 3);
                assert!(scene.read(publisher).is_empty(), "it is not stored yet");
                turns(&mut scene.cluster, 2, 1);
                turns(&mut scene.cluster, publisher, 3);
                let acked = scene.read(publisher);
                assert!(matches!(acked[..], [Incoming::Ack { kind: PUBACK, packet_id: 7, .. }]), "{acked:?}");
                scene.write(0, &subscribe(1, if filter.is_empty() { &topic } else { filter }));
                turns(&mut scene.cluster, 0, 3);
                assert_eq!(subacks(&scene.read(0)), 1);
                rounds(&mut scene.cluster, 10);
                let got = scene.read(0);
                assert!(
                    matches!(&got[..], [Incoming::Publish(publish)] if publish.retain && publish.topic == topic),
                    "publisher {publisher}, {filter}, turn {turn}: {got:?}"
                );
            }
        }
    }
}

/// It is acted upon as it comes home, before anything that clients of that shard sent.
#[test]
fn what_comes_with_a_hand_off_is_routed_to_who_subscribed_before() {
    for home_shard in [0, 3] {
        let mut scene = Scene::new(4096);
        let keys = scene.cluster.keys;
        let at_home = |name: &usize| shard_of(&keys, &format!("client-{name}"), SHARDS) == home_shard;
        let name = (1000..).find(at_home).expect("endless");
        scene.write(2, &subscribe(1, "a"));
        turns(&mut scene.cluster, 2, 3);
        assert_eq!(subacks(&scene.read(2)), 1);
        let mut publisher = connect(&scene.cluster, 1, name);
        write(&scene.cluster, &mut publisher, &publish("a", 0));
        turns(&mut scene.cluster, 1, 3);
        turns(&mut scene.cluster, usize::from(home_shard), 3);
        turns(&mut scene.cluster, 2, 3);
        let got = scene.read(2);
        assert!(
            matches!(&got[..], [Incoming::Publish(publish)] if publish.topic == "a"),
            "{home_shard}: {got:?}"
        );
    }
}

/// The send of the SUBACK had ended, but the shard looked at its parcels first: a message as large as the send buffer was
/// dropped.
#[test]
fn a_message_from_another_shard_finds_the_room_of_a_send_that_has_ended() {
    let mut scene = Scene::with(Limits { send_buffer_bytes_max: 1000, ..Limits::default() }, 4096);
    scene.write(0, &subscribe(1, "a"));
    turns(&mut scene.cluster, 0, 1);
    scene.write(1, &packet::publish(VERSION, &large("a", 1000)));
    turns(&mut scene.cluster, 1, 3);
    turns(&mut scene.cluster, 0, 3);
    let got = scene.read(0);
    assert!(matches!(&got[..], [Incoming::SubAck { .. }, Incoming::Publish(_)]), "{got:?}");
}

fn large(topic: &str, bytes: usize) -> Publish {
    let (topic, payload) = (topic.to_string(), vec![b'x'; bytes]);
    Publish { dup: false, qos: 0, retain: false, topic, packet_id: 0, properties: Vec::new(), payload }
}
