//! Who shares a full shard with connections that keep it full gets its turn.

use ringmq::limits::Limits;
use ringmq::mesh::Bounds;

use crate::cluster::Cluster;
use crate::packet::{self, Incoming, PUBACK};
use crate::scene::{self, Client, VERSION, connect, home, publish, read, rounds, write};

/// Connections that send more than the other shard takes.
const FLOODS: usize = 3;
/// Rounds in which a full ring is emptied and filled by each of them more than ten times.
const ROUNDS_MAX: usize = 500;

struct Scene {
    cluster: Cluster,
    floods: Vec<Client>,
    reader: Client,
    names: usize,
}

impl Scene {
    /// Two shards; connections of the first keep the way to the second full, where one client reads everything.
    fn new() -> Scene {
        let mut plan = scene::plan(2, Limits::default());
        plan.mesh = Bounds { ring_slots: 4, spill_max: 8, bytes_max: 1 << 20 };
        plan.options.inbox_budget = 2;
        let mut cluster = scene::cluster(&plan);
        let mut names = 0;
        let mut reader = home(&mut cluster, &mut names, 1);
        let filters = [("flood/+".to_string(), 0), ("quiet".to_string(), 0)];
        write(&cluster, &mut reader, &packet::subscribe(VERSION, 1, None, &filters));
        rounds(&mut cluster, 50);
        assert!(matches!(read(&cluster, &mut reader)[..], [Incoming::SubAck { .. }]));
        let floods = (0..FLOODS).map(|_| home(&mut cluster, &mut names, 0)).collect();
        Scene { cluster, floods, reader, names }
    }

    /// One turn of each shard; the floods have sent all that the kernel takes.
    fn round(&mut self) {
        // Two topics in turn: each message crosses by itself.
        let burst: Vec<u8> = (0..64).flat_map(|n| publish(["flood/a", "flood/b"][n % 2], 0)).collect();
        for flood in &mut self.floods {
            write(&self.cluster, flood, &[]);
            while flood.unsent.is_empty() {
                write(&self.cluster, flood, &burst);
            }
        }
        rounds(&mut self.cluster, 1);
        read(&self.cluster, &mut self.reader);
    }

    fn flood(&mut self) {
        for _ in 0..100 {
            self.round();
        }
        let paused = self.cluster.sum(|c| &c.connections_paused);
        assert!(paused >= FLOODS as u64 - 1, "{paused} are paused: the way is not full");
    }

    /// Rounds until `client` got what it waits for.
    fn rounds_until(&mut self, client: &mut Client, wanted: impl Fn(&Incoming) -> bool) -> usize {
        for round in 1..=ROUNDS_MAX {
            self.round();
            if read(&self.cluster, client).iter().any(&wanted) {
                return round;
            }
        }
        panic!("it waits longer than {ROUNDS_MAX} rounds");
    }

    fn publishes(&mut self, client: &mut Client) -> usize {
        write(&self.cluster, client, &publish("quiet", 7));
        self.rounds_until(client, |packet| matches!(packet, Incoming::Ack { kind: PUBACK, packet_id: 7, .. }))
    }
}

/// It was looked at after the connection that had just filled the ring again, each time.
#[test]
fn who_waits_for_a_full_shard_gets_its_turn() {
    let mut scene = Scene::new();
    let mut quiet = home(&mut scene.cluster, &mut scene.names, 0);
    // Not its first message, which has more to wait for.
    write(&scene.cluster, &mut quiet, &publish("quiet", 1));
    rounds(&mut scene.cluster, 50);
    assert!(matches!(read(&scene.cluster, &mut quiet)[..], [Incoming::Ack { kind: PUBACK, .. }]));
    scene.flood();
    for _ in 0..10 {
        let rounds = scene.publishes(&mut quiet);
        assert!(rounds <= ROUNDS_MAX / 5, "{rounds} rounds");
    }
}

/// What it waited for was over whenever there was no room, and had to be waited for anew whenever there was.
#[test]
fn the_first_message_of_a_connection_gets_its_turn() {
    let mut scene = Scene::new();
    let mut quiet: Vec<Client> = (0..10).map(|_| home(&mut scene.cluster, &mut scene.names, 0)).collect();
    scene.flood();
    for quiet in &mut quiet {
        let rounds = scene.publishes(quiet);
        assert!(rounds <= ROUNDS_MAX / 5, "{rounds} rounds");
    }
}

/// It was looked at when others had taken the room.
#[test]
fn who_is_on_its_way_home_gets_its_turn() {
    let mut scene = Scene::new();
    scene.flood();
    let before = scene.cluster.sum(|c| &c.hand_offs_total);
    for _ in 0..10 {
        scene.names += 1;
        let mut client = connect(&scene.cluster, 0, scene.names);
        let rounds =
            scene.rounds_until(&mut client, |packet| matches!(packet, Incoming::ConnAck { code: 0, .. }));
        assert!(rounds <= ROUNDS_MAX / 5, "{rounds} rounds");
    }
    assert!(scene.cluster.sum(|c| &c.hand_offs_total) > before, "all were at home already");
}
