//! A subscriber that stops reading costs no one else anything, and no more memory than the limits say.

use std::time::{Duration, Instant};

use crate::support::encode::{PINGREQ, PUBACK};
use crate::support::*;

/// How long a publisher may wait for an acknowledgement while somebody else is slow.
const ACK_MAX: Duration = Duration::from_secs(1);

#[test]
fn others_get_everything_while_one_does_not_read() {
    for shards in [1, 4] {
        for qos in [0, 1] {
            let broker = Broker::start(shards, &["--sys-interval", "1"]);
            let topic = name("t");
            let mut slow: Vec<Client> = (0..4)
                .map(|_| {
                    let mut client = Client::fresh(&broker, V5);
                    client.subscribe(&topic, qos);
                    client
                })
                .collect();
            let mut swift = Client::fresh(&broker, V5);
            swift.subscribe(&topic, qos);
            let mut publisher = Client::fresh(&broker, V5);
            let before = broker.resident_bytes();
            // 150 MB, which is far more than any socket holds.
            let payload = vec![b'x'; 50_000];
            let mut worst = Duration::ZERO;
            for number in 0..3000u32 {
                let body = [&number.to_be_bytes()[..], &payload].concat();
                let begin = Instant::now();
                publisher.publish(&Publish::new(&*topic, body).qos(1, 0));
                worst = worst.max(begin.elapsed());
                let got = swift.expect_publish_acked();
                assert_eq!(got.payload[..4], number.to_be_bytes());
            }
            assert!(worst < ACK_MAX, "a publisher waited {worst:?} with {shards} shards");
            // Per slow client at most the queue's 64 MiB (QoS 1) and its send buffer; the rest is drops.
            let grown = broker.resident_bytes().saturating_sub(before);
            assert!(grown < 400 << 20, "{} MB more at QoS {qos}", grown >> 20);
            if qos == 0 {
                assert!(grown < 60 << 20, "{} MB more at QoS 0", grown >> 20);
            }
            // The slow ones find a whole stream, with gaps and in order.
            for client in &mut slow {
                client.send(PINGREQ);
                let mut last = None;
                loop {
                    match client.expect_packet() {
                        Packet::Publish(publish) => {
                            let number = publish.payload[..4].to_vec();
                            assert!(last.is_none_or(|last| last < number));
                            last = Some(number);
                            client.finish(&publish);
                        }
                        Packet::Pingresp => break,
                        other => panic!("{other:?}"),
                    }
                }
                assert!(last.is_some());
            }
        }
    }
}

#[test]
fn a_queue_has_its_limit_and_drops_are_counted() {
    let broker = Broker::start(2, &["--queue-messages-max", "10", "--sys-interval", "1"]);
    let topic = name("t");
    let connect = Connect::new(V311, name("c")).persistent();
    let mut client = Client::accepted(&broker, &connect);
    client.subscribe(&topic, 1);
    client.disconnect();
    let mut counts = Client::fresh(&broker, V5);
    counts.subscribe("$SYS/broker/drops/queue_full", 0);
    let mut publisher = Client::fresh(&broker, V5);
    for number in 0..25 {
        publisher.say(&topic, number.to_string(), 1);
    }
    // The newest give way.
    let mut client = Client::accepted(&broker, &connect);
    assert_eq!(client.expect_texts(10), (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
    client.expect_quiet();
    let deadline = Instant::now() + Duration::from_secs(5);
    while counts.expect_publish().text() != "15" {
        assert!(Instant::now() < deadline, "15 drops are not counted");
    }
}

#[test]
fn a_publisher_that_does_not_read_its_acknowledgements_is_bounded() {
    let broker = Broker::start(2, &[]);
    let before = broker.resident_bytes();
    let mut flood = Client::fresh(&broker, V311);
    let burst = Publish::new("nobody/listens", "x").qos(1, 7).bytes(V311).repeat(1000);
    // Writes until the broker takes no more (or has closed), or so many that their answers alone would show.
    const PACKETS_MAX: usize = 24_000_000;
    flood.write_timeout(Duration::from_secs(2));
    let writing = std::sync::atomic::AtomicBool::new(true);
    let sent = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut sent = 0;
            while sent < PACKETS_MAX && flood.try_send(&burst).is_ok() {
                sent += 1000;
            }
            writing.store(false, std::sync::atomic::Ordering::Relaxed);
            sent
        });
        let mut other = Client::fresh(&broker, V5);
        while writing.load(std::sync::atomic::Ordering::Relaxed) {
            let begin = Instant::now();
            other.say("other/topic", "x", 1);
            assert!(begin.elapsed() < ACK_MAX, "another client waited {:?}", begin.elapsed());
        }
        flood.join().expect("no panic")
    });
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 48 << 20, "{} MB more after {sent} packets", grown >> 20);
}

#[test]
fn a_slow_subscriber_with_a_full_window_takes_up_where_it_left() {
    let broker = Broker::start(4, &[]);
    let topic = name("t");
    let mut slow = Client::fresh(&broker, V5);
    slow.subscribe(&topic, 1);
    let mut publisher = Client::fresh(&broker, V5);
    for number in 0..500 {
        publisher.say(&topic, number.to_string(), 1);
    }
    std::thread::sleep(Duration::from_millis(200));
    for number in 0..500 {
        let got = slow.expect_publish();
        assert_eq!(got.text(), number.to_string());
        slow.ack(PUBACK, got.packet_id);
    }
    slow.expect_quiet();
}

#[test]
fn answers_that_nobody_reads_end_once_the_memory_for_sending_is_used_up() {
    use std::io::{ErrorKind, Write};
    for io in ["auto", "epoll"] {
        let broker = Broker::start(1, &["--memory-max", "64M", "--io", io]);
        let before = broker.resident_bytes();
        let mut floods: Vec<(std::net::TcpStream, usize)> = (0..100)
            .map(|_| {
                let mut stream = std::net::TcpStream::connect(broker.address()).expect("it listens");
                stream.write_all(&Connect::new(V311, name("flood")).bytes()).expect("it reads");
                stream.set_nonblocking(true).expect("a socket");
                (stream, 0)
            })
            .collect();
        let mut witness = Client::fresh(&broker, V5);
        let pings = PINGREQ.repeat(32 * 1024);
        let mut closed = 0;
        let mut last = Instant::now();
        while last.elapsed() < Duration::from_millis(500) {
            floods.retain_mut(|(stream, sent)| match stream.write(&pings[*sent % PINGREQ.len()..]) {
                Ok(count) => {
                    *sent += count;
                    last = Instant::now();
                    true
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => true,
                // What it said and is not acted upon found no room either.
                Err(_) => {
                    closed += 1;
                    false
                }
            });
            witness.ping();
        }
        // The class for sending has 6.4 MiB of these 64, that for receiving 4.8, and some memory stays with the allocator. Each may
        // have 16 KiB beyond that, and what it had sent when it was held back.
        let grown = broker.resident_bytes().saturating_sub(before);
        assert!(
            grown < 48 << 20,
            "{} MB for 100 that do not read, over {io}; {closed} were closed",
            grown >> 20
        );
        println!("over {io}: {} KB more, {closed} closed", grown >> 10);
    }
}

/// What arrives of so many messages of this size that are published in one moment; the subscriber begins to read behind them.
fn burst(broker: &Broker, count: u8, size: usize) -> Vec<u8> {
    let topic = name("t");
    let mut subscriber = Client::fresh(broker, V5);
    subscriber.subscribe(&topic, 0);
    let mut publisher = Client::fresh(broker, V5);
    publisher.write_timeout(Duration::from_secs(30));
    let mut all = Vec::new();
    for number in 0..count {
        let mut payload = vec![b'x'; size];
        payload[0] = number;
        all.extend(Publish::new(&*topic, payload).bytes(V5));
    }
    publisher.send(&all);
    publisher.ping(); // behind them all
    subscriber.send(PINGREQ);
    let mut came = Vec::new();
    loop {
        match subscriber.expect_packet() {
            Packet::Publish(publish) => {
                assert_eq!(publish.payload.len(), size);
                came.push(publish.payload[0]);
            }
            Packet::Pingresp => return came,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_burst_of_large_messages_arrives_whole() {
    for shards in [1, 4] {
        let broker = Broker::start(shards, &["--memory-max", "4g"]);
        for (count, size) in [(6, 900_000), (4, 3_000_000), (4, (8 << 20) - 100), (200, 50_000)] {
            let whole: Vec<u8> = (0..count).collect();
            assert_eq!(burst(&broker, count, size), whole, "{count} of {size} bytes, {shards} shards");
        }
        // With a limit that was given more is lost, as it says.
        let broker = Broker::start(shards, &["--memory-max", "4g", "--send-buffer-max", "1m"]);
        assert!(burst(&broker, 5, (8 << 20) - 100).len() < 5, "--send-buffer-max holds as given");
    }
}

#[test]
fn a_packet_of_a_hundred_thousand_filters_stalls_nobody() {
    let broker = Broker::start(1, &[]);
    let base = name("t");
    let filters: Vec<String> = (0..100_000).map(|n| format!("{base}/{n}")).collect();
    let asked: Vec<(&str, u8)> = filters.iter().map(|filter| (&**filter, 0)).collect();
    let unasked: Vec<&str> = filters.iter().map(|filter| &**filter).collect();
    let mut client = Client::fresh(&broker, V5);
    let mut other = Client::fresh(&broker, V5);
    for packet in [
        crate::support::encode::subscribe(V5, 1, &[], &asked),
        crate::support::encode::unsubscribe(V5, 1, &unasked),
    ] {
        client.send(packet);
        let mut pings = 0;
        let answer = loop {
            other.ping();
            match client.next(Duration::from_micros(1)) {
                Event::Nothing => pings += 1,
                Event::Packet(packet) => break packet,
                other => panic!("{other:?}"),
            }
        };
        assert!(matches!(answer, Packet::Suback(_) | Packet::Unsuback(_)), "{answer:?}");
        assert!(pings > 3, "another client was answered {pings} times until then");
    }
}
