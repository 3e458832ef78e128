//! A storm of logins, each with a hash that takes tens of milliseconds, and clients that are connected meanwhile; and
//! many users who come at once, of whom none may be refused.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::place::{Place, client, connect};
use super::support::{Client, Event, Packet, V5};

/// Logins that come at once, each from an address of its own, so that none is held back for another's failures.
const LOGINS: u8 = 250;

/// Were one hash made on the shard, this would take longer than a second or two; hashing all of them takes much longer.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(1000);

/// A connection from 127.0.1.`host`.
fn connection_from(host: u8, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket
        .bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 1, host), 0)).into())
        .expect("an address of loopback");
    socket.connect(&to.into()).expect("the broker accepts");
    socket.into()
}

#[test]
fn connected_clients_do_not_feel_a_storm_of_logins() {
    let place = Place::new(&["pinger"]);
    // The password of this one is hashed with argon2, and so is every guess at it.
    let made = super::passwd::passwd(
        &[&place.users(), "target", "--password-stdin", "--cost", "person"],
        "a real password\n",
    );
    assert!(made.status.success());
    for shards in [1, 4] {
        let broker = place.broker(shards, None, &["--log-level", "error"]);
        let mut pinger = client(&broker, V5, "pinger");
        pinger.subscribe("echo", 0);
        let storm: Vec<TcpStream> = (1..=LOGINS)
            .map(|host| {
                let mut stream = connection_from(host, broker.address());
                let guess = connect(V5, "target").password(format!("guess {host}"));
                std::io::Write::write_all(&mut stream, &guess.bytes()).expect("CONNECT is written");
                stream
            })
            .collect();
        let start = Instant::now();
        let mut worst = Duration::ZERO;
        let mut trips = 0;
        while start.elapsed() < Duration::from_secs(2) {
            let before = Instant::now();
            pinger.say("echo", "x", 1);
            assert_eq!(pinger.expect_texts(1), ["x"]);
            worst = worst.max(before.elapsed());
            trips += 1;
        }
        println!("{shards} shards: {trips} round trips during {LOGINS} logins, the longest took {worst:?}");
        assert!(worst < ROUND_TRIP_MAX, "a round trip took {worst:?}");
        // The one who knows is let in after all.
        let unanswered = storm.iter().filter(|stream| !is_answered(stream)).count();
        println!("{unanswered} of {LOGINS} still waited");
        drop(storm);
        let mut known = Client::accepted(&broker, &connect(V5, "pinger"));
        known.ping();
    }
}

/// Users who come at once, as after a restart.
const USERS: usize = 800;

/// Hashes for them. Each user has one of these; the broker hashes for each user all the same.
const HASHES: usize = 8;

/// When the last one has to be in, on a busy machine too. A hash at the default cost takes some milliseconds of a CPU in a
/// debug build.
const ALL_IN_MAX: Duration = Duration::from_secs(60);

#[test]
fn hundreds_of_users_who_connect_at_once_all_get_in() {
    let place = Place::new(&[]);
    for number in 0..HASHES {
        let user = format!("first-{number}");
        let made = super::passwd::passwd(
            &[&place.users(), &user, "--password-stdin"],
            &format!("password {number}\n"),
        );
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    let text = std::fs::read_to_string(place.users()).expect("it is text");
    let hashes: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once(':')?.1)).collect();
    assert_eq!(hashes.len(), HASHES);
    let users: String = (0..USERS).map(|at| format!("user-{at}:{}\n", hashes[at % HASHES])).collect();
    place.write("users", &users);
    for shards in [1, 4] {
        // The time that a client has for its CONNECT is not what its hash may take.
        let broker = place.broker(shards, None, &["--connect-timeout", "1", "--log-level", "error"]);
        let mut clients: Vec<Client> = (0..USERS).map(|_| Client::open(&broker, V5)).collect();
        let start = Instant::now();
        for (at, client) in clients.iter_mut().enumerate() {
            let password = format!("password {}", at % HASHES);
            client.send_connect(&connect(V5, &format!("user-{at}")).password(password));
        }
        let mut refused = Vec::new();
        for (at, client) in clients.iter_mut().enumerate() {
            match client.next(ALL_IN_MAX.saturating_sub(start.elapsed())) {
                Event::Packet(Packet::Connack(connack)) if connack.code == 0 => {}
                Event::Nothing => panic!("user-{at} has no CONNACK after {ALL_IN_MAX:?}"),
                other => refused.push((at, other)),
            }
        }
        println!("{shards} shards: {USERS} users came in within {:?}", start.elapsed());
        assert!(refused.is_empty(), "{} of {USERS} were refused, first {:?}", refused.len(), refused[0]);
        clients.iter_mut().for_each(Client::ping);
    }
}

fn is_answered(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("non-blocking");
    stream.peek(&mut [0]).is_ok()
}
