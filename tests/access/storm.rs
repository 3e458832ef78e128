//! A storm of logins, each with a hash that takes tens of milliseconds, and clients that are connected meanwhile.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::place::{Place, client, connect};
use super::support::{Client, V5};

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

fn is_answered(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("non-blocking");
    stream.peek(&mut [0]).is_ok()
}
