//! Listeners of one file, each with users, rules and limits of its own.

use std::time::{Duration, Instant};

use super::place::{PASSWORD, Place};
use super::support::encode::{PUBACK, PUBREC};
use super::support::{Broker, Client, Connect, Event, Packet, Property, Publish, V5, V311, name};

/// Two listeners of a broker, each as if it were a broker.
struct Two {
    inside: Broker,
    outside: Broker,
    _both: Broker,
}

impl Two {
    /// `inside` and `outside` are the keys of the listeners beside their addresses.
    fn start(place: &Place, shards: u16, inside: &str, outside: &str) -> Two {
        let file = place.write(
            "ringmq.toml",
            &format!(
                "shards = {shards}\nno-pin = true\n[[listener]]\naddress = \"127.0.0.1:0\"\n{inside}\n\
                 [[listener]]\naddress = \"127.0.0.2:0\"\n{outside}\n"
            ),
        );
        let both = Broker::start_with(&["--config", &file], 2);
        let [inside, outside] = [0, 1].map(|at| Broker::at(both.addresses()[at]));
        Two { inside, outside, _both: both }
    }
}

/// Whether a connection gets a CONNACK; one too many is closed without.
fn is_accepted(client: &mut Client) -> bool {
    let sent = client.try_send(Connect::new(V5, name("c")).bytes()).is_ok();
    sent && matches!(client.next(Duration::from_secs(10)), Event::Packet(Packet::Connack(_)))
}

fn code(broker: &Broker, connect: &Connect) -> u8 {
    Client::connect(broker, connect).1.code
}

#[test]
fn each_listener_has_its_own_users() {
    let place = Place::new(&["alice"]);
    let others = place.write("others", &super::place::users(&["bob"]));
    for shards in [1, 4] {
        let two = Two::start(
            &place,
            shards,
            "password-file = \"users\"\nallow-anonymous = true",
            &format!("password-file = \"{others}\"\nclient-ids = \"begin-with-user-name\""),
        );
        let with = |user: &str| Connect::new(V5, name(user)).user_name(user).password(PASSWORD);
        let anonymous = Connect::new(V5, name("x"));
        for _ in 0..2 {
            // The second time the passwords are known, at one listener and not at the other.
            assert_eq!(code(&two.inside, &with("alice")), 0);
            assert_eq!(code(&two.outside, &with("bob")), 0);
            assert_eq!(code(&two.inside, &with("bob")), 0x86);
            assert_eq!(code(&two.outside, &with("alice")), 0x86);
        }
        assert_eq!((code(&two.inside, &anonymous), code(&two.outside, &anonymous)), (0, 0x87));
        let named = |user: &str| Connect::new(V5, "named-x").user_name(user).password(PASSWORD);
        assert_eq!((code(&two.inside, &named("alice")), code(&two.outside, &named("bob"))), (0, 0x85));
    }
}

#[test]
fn the_rules_of_a_listener_hold_for_whoever_came_in_there_last() {
    let place = Place::new(&["alice", "admin"]);
    place.write("inner", "user alice\ntopic readwrite #\nuser admin\ntopic readwrite #\n");
    place.write(
        "outer",
        "user alice\ntopic readwrite #\ntopic deny secret/#\nuser admin\ntopic readwrite #\n",
    );
    for shards in [1, 4] {
        let keys = |rules: &str| format!("password-file = \"users\"\nacl-file = \"{rules}\"");
        let two = Two::start(&place, shards, &keys("inner"), &keys("outer"));
        let admin = Connect::new(V5, name("admin")).user_name("admin").password(PASSWORD);
        let mut admin = Client::accepted(&two.inside, &admin);
        for version in [V5, V311] {
            let id = name("a");
            let connect = Connect::new(version, &id).user_name("alice").password(PASSWORD).persistent();
            let mut alice = Client::accepted(&two.inside, &connect);
            alice.subscribe("#", 1);
            admin.say("secret/1", "inside", 1);
            assert_eq!(alice.expect_texts(1), ["inside"]);
            alice.cut();
            // Queued under the rules of the one, resumed under those of the other.
            admin.say("secret/2", "queued", 1);
            admin.say("open/2", "open", 1);
            let mut alice = Client::connect(&two.outside, &connect.clone().resume()).0;
            admin.say("secret/3", "live", 1);
            admin.say("open/3", "live open", 1);
            assert_eq!(alice.expect_texts(2), ["open", "live open"], "{version:?} {shards}");
            let denied = alice.publish(&Publish::new("secret/4", "denied").qos(1, 0));
            assert_eq!(denied, if version == V5 { 0x87 } else { 0 });
            // Taken over through the first one: allowed again.
            let mut again = Client::connect(&two.inside, &connect.clone().resume()).0;
            admin.say("secret/5", "back", 1);
            assert_eq!(again.expect_texts(1), ["back"]);
            let mut end = connect.clone();
            end.clean = true;
            end.properties.clear();
            Client::accepted(&two.inside, &end).disconnect();
        }
    }
}

/// A client where only three may be, and those before may not be gone yet.
fn accepted(broker: &Broker) -> Client {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut client = Client::open(broker, V5);
        if is_accepted(&mut client) {
            return client;
        }
        assert!(Instant::now() < deadline, "no connection of three is free");
    }
}

#[test]
fn each_listener_has_its_own_limits() {
    let place = Place::new(&[]);
    for shards in [1, 4] {
        let limits = "connections-max = 3\npacket-size-max = \"1k\"\nconnect-packet-size-max = 200\n\
                      connect-timeout = 1\nkeep-alive-max = 7\nsession-expiry-max = 60";
        let two = Two::start(&place, shards, "", limits);
        let wish = Connect::new(V5, name("l")).keep_alive_s(100).with(Property::SessionExpiry(1000));
        let (mut inside, connack) = Client::connect(&two.inside, &wish);
        assert!(!connack.properties.iter().any(|property| matches!(property, Property::ServerKeepAlive(_))));
        let (mut outside, connack) =
            Client::connect(&two.outside, &Connect { client_id: name("m").into(), ..wish.clone() });
        for expected in
            [Property::ServerKeepAlive(7), Property::SessionExpiry(60), Property::MaximumPacketSize(1024)]
        {
            assert!(connack.properties.contains(&expected), "{expected:?} in {connack:?}");
        }
        let large = vec![b'x'; 2000];
        inside.say("large", &large, 1);
        outside.send_publish(&Publish::new("large", &large));
        outside.expect_refused(&[0x95]);
        // Also behind a smaller one on the same topic, in one piece with it.
        let long = "t".repeat(600);
        inside.subscribe(&long, 2);
        for qos in 0..=2 {
            let of = |payload: &[u8], id| Publish::new(&*long, payload).qos(qos, id).bytes(V5);
            let mut outside = accepted(&two.outside);
            outside.send([of(b"x", 1), of(&large[..900], 2)].concat());
            if qos > 0 {
                outside.expect_ack(if qos == 1 { PUBACK } else { PUBREC }, 1);
            }
            outside.expect_refused(&[0x95]);
        }

        // A CONNECT that is too large, and one that does not come.
        let long = Connect::new(V5, name("l")).user_name("u".repeat(300));
        assert_eq!(code(&two.inside, &long), 0);
        let mut client = Client::open(&two.outside, V5);
        client.send_connect(&long);
        client.expect_refused(&[0x95]);
        let (mut silent, mut patient) = (Client::open(&two.outside, V5), Client::open(&two.inside, V5));
        silent.expect_closed();
        assert!(is_accepted(&mut patient), "the other listener gives ten seconds");

        // Three at a time, whatever shards they are at home on, and three again.
        for _ in 0..2 {
            let clients = [(); 3].map(|()| accepted(&two.outside));
            assert!(!is_accepted(&mut Client::open(&two.outside, V5)), "a fourth connection");
            Client::fresh(&two.inside, V5).ping();
            clients.into_iter().for_each(|client| client.disconnect());
        }
    }
}
