//! Answers of threads that hash passwords, on the desks of shards: who comes in, and under which rules.

use std::sync::{Arc, Mutex};

use ringmq::access::{Access, Answer, Door, Login, Outcome, Policy, Users, Verdict, Verifier, acl_file};
use ringmq::io::ListenerId;
use ringmq::io::sim::Rng;
use ringmq::limits::Limits;
use ringmq::memory::Key;

use crate::cluster::Cluster;
use crate::packet::{self, Incoming, Publish, Version};
use crate::scene::{self, Client, read_as, rounds, write};

/// The connections that wait for an answer, with the shards that asked.
type Asked = Arc<Mutex<Vec<(usize, Key)>>>;

/// Keeps every login waiting.
struct Waiting(usize, Asked);

impl Verifier for Waiting {
    fn verify(&mut self, login: Login<'_>) -> Verdict {
        self.1.lock().expect("one thread").push((self.0, login.connection));
        Verdict::Later
    }
}

fn cluster() -> (Cluster, Asked) {
    let asked = Asked::default();
    let policy = Arc::new(Policy {
        users: [Users::default()].into(),
        doors: [Door { users: Some(0), ..Door::default() }].into(),
        ..Policy::default()
    });
    let access =
        |shard| Access::new(policy.clone(), Some(Box::new(Waiting(usize::from(shard), asked.clone()))));
    let cluster = Cluster::guarded(&scene::plan(3, Limits::default()), &mut Rng::new(1), 1, access);
    (cluster, asked)
}

/// A client with a user name and a password. What it sends behind its CONNECT comes with it.
fn connect(cluster: &mut Cluster, number: usize, rest: &[u8]) -> Client {
    let mut body = b"\x00\x04MQTT\x05\xC2\x00\x00\x00".to_vec();
    for text in [format!("client-{number}"), format!("user-{number}"), "password".to_string()] {
        body.extend_from_slice(&(text.len() as u16).to_be_bytes());
        body.extend_from_slice(text.as_bytes());
    }
    let mut client = Client::new(cluster.world.borrow_mut().connect(number as u16 % 3, ListenerId(0)));
    write(cluster, &mut client, &[&[0x10, body.len() as u8], &body[..], rest].concat());
    rounds(cluster, 20);
    assert!(read_as(cluster, &mut client, Version::V5).is_empty(), "nobody has answered");
    client
}

fn verified(connection: Key, number: usize) -> Answer {
    Answer { connection, outcome: Outcome::Verified(format!("user-{number}").into()) }
}

#[test]
fn what_a_hashing_thread_puts_down_lets_a_client_in_or_not() {
    let (mut cluster, asked) = cluster();
    let mut clients: Vec<Client> = (0..12).map(|number| connect(&mut cluster, number, &[])).collect();
    let asked = std::mem::take(&mut *asked.lock().expect("one thread"));
    assert_eq!(asked.len(), clients.len());
    // One of them does not wait for its answer.
    cluster.world.borrow_mut().close(clients[0].endpoint);
    rounds(&mut cluster, 20);
    for (number, (shard, connection)) in asked.iter().copied().enumerate() {
        let answer = match number % 2 {
            0 => verified(connection, number),
            _ => Answer { connection, outcome: Outcome::Wrong { hold_ms: 0 } },
        };
        cluster.post(shard, answer);
    }
    rounds(&mut cluster, 20);
    assert!(read_as(&cluster, &mut clients[0], Version::V5).is_empty());
    for (number, client) in clients.iter_mut().enumerate().skip(1) {
        let came = read_as(&cluster, client, Version::V5);
        let [Incoming::ConnAck { code, .. }] = came[..] else { panic!("{number}: {came:?}") };
        assert_eq!(code, [0, 0x86][number % 2], "{number}");
    }
    // An answer that comes twice, or for a connection that is gone, changes nothing.
    for (number, (shard, connection)) in asked.into_iter().enumerate() {
        cluster.post(shard, verified(connection, number));
    }
    rounds(&mut cluster, 20);
    for client in &mut clients {
        assert!(read_as(&cluster, client, Version::V5).is_empty());
    }
}

#[test]
fn a_client_comes_in_under_the_rules_that_were_put_down_before_its_answer() {
    let publish = packet::publish(
        Version::V5,
        &Publish {
            dup: false,
            qos: 1,
            retain: false,
            topic: "t".to_string(),
            packet_id: 1,
            properties: Vec::new(),
            payload: Vec::new(),
        },
    );
    let (mut cluster, asked) = cluster();
    let mut clients: Vec<Client> = (0..6).map(|number| connect(&mut cluster, number, &publish)).collect();
    cluster.rules = Some(acl_file::parse("pattern write other").expect("rules"));
    cluster.settle(Limits::default(), 0);
    let asked = std::mem::take(&mut *asked.lock().expect("one thread"));
    for (number, (shard, connection)) in asked.into_iter().enumerate() {
        cluster.post(shard, verified(connection, number));
    }
    rounds(&mut cluster, 20);
    assert!(cluster.is_obeyed(), "an order has no answer");
    for client in &mut clients {
        let came = read_as(&cluster, client, Version::V5);
        let [Incoming::ConnAck { code: 0, .. }, Incoming::Ack { code: 0x87, .. }] = came[..] else {
            panic!("{came:?}")
        };
    }
}
