//! What clients may do over plain TCP holds over TLS too, where bytes of a packet come and go in records.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};

use crate::certificates::Certificates;
use crate::client::{Client, config, publish_packet};
use crate::support::Broker;
use crate::{WAYS, broker, each_way};

const PINGREQ: [u8; 2] = [0xC0, 0];
/// Its first byte, with nothing behind its length.
const PINGRESP: [u8; 1] = [0xD0];

/// What arrives of so many messages of this size at QoS 0 that are published in one moment; the subscriber begins to read
/// behind them.
fn burst(broker: &Broker, config: &Arc<ClientConfig>, count: u8, size: usize) -> Vec<u8> {
    let mut subscriber = Client::connect(broker.address(), config, "subscriber").unwrap();
    subscriber.subscribe_at("burst", 0).unwrap();
    let mut publisher = Client::connect(broker.address(), config, "publisher").unwrap();
    let mut all = Vec::new();
    for number in 0..count {
        let mut payload = vec![b'x'; size];
        payload[0] = number;
        all.extend(publish_packet("burst", &payload, 0));
    }
    publisher.send(&all).unwrap();
    publisher.send(&PINGREQ).unwrap();
    assert_eq!(publisher.packet().unwrap(), PINGRESP, "behind them all");
    subscriber.send(&PINGREQ).unwrap();
    let mut came = Vec::new();
    loop {
        let packet = subscriber.packet().unwrap();
        if packet == PINGRESP {
            return came;
        }
        let payload = packet.strip_prefix(b"\x30\0\x05burst").expect("a PUBLISH at QoS 0");
        assert_eq!(payload.len(), size);
        came.push(payload[0]);
    }
}

#[test]
fn a_burst_of_large_messages_arrives_whole() {
    let certificates = Certificates::new("burst");
    let config = config(&certificates, &TLS13, None);
    each_way(&certificates, &["--memory-max", "4g"], |broker| {
        for (count, size) in [(6, 900_000), (4, 3_000_000), (4, (8 << 20) - 100), (200, 50_000)] {
            let whole: Vec<u8> = (0..count).collect();
            assert_eq!(burst(broker, &config, count, size), whole, "{count} of {size} bytes");
        }
    });
    // With a limit that was given more is lost, as it says.
    each_way(&certificates, &["--memory-max", "4g", "--send-buffer-max", "1m"], |broker| {
        let came = burst(broker, &config, 5, (8 << 20) - 100).len();
        assert!(came < 5, "--send-buffer-max holds as given");
    });
}

#[test]
fn mqtt_3_1_2_22_bytes_of_a_packet_count_as_long_as_its_length_explains() {
    let certificates = Certificates::new("alive");
    // Nearly all of it is waiting.
    thread::scope(|scope| {
        for way in WAYS {
            for version in [&TLS12, &TLS13] {
                let certificates = &certificates;
                scope.spawn(move || {
                    let broker = broker(certificates, way, &[]);
                    bytes_count(&broker, &config(certificates, version, None));
                });
            }
        }
    });
}

fn bytes_count(broker: &Broker, config: &Arc<ClientConfig>) {
    let alive = |client_id| Client::connect_alive(broker.address(), config, client_id, 1).unwrap();
    let mut witness = Client::connect(broker.address(), config, "witness").unwrap();
    witness.subscribe("t").unwrap();
    let mut client = alive("slow");
    // A message that takes four Keep Alives.
    let publish = publish_packet("t", &vec![b'x'; 200_000], 1);
    for piece in publish.chunks(publish.len() / 20) {
        client.send(piece).unwrap();
        thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(client.packet().unwrap(), [0x40, 0, 7]);
    assert_eq!(witness.message().unwrap().len(), 200_000);
    // A byte now and then of a small one is another thing.
    let begin = Instant::now();
    let mut ended = false;
    for byte in publish_packet("t", &[b'x'; 400], 0) {
        ended = client.send(&[byte]).is_err() || client.ends_within(Duration::from_millis(150));
        if ended {
            break;
        }
    }
    let held = begin.elapsed();
    assert!(ended, "a byte now and then kept the connection alive for {held:?}");
    assert!(held > Duration::from_secs(5), "bytes did not count: {held:?}");
    // And a packet of which nothing more comes is silence.
    let mut client = alive("silent");
    let begin = Instant::now();
    client.send(&publish_packet("t", &vec![b'x'; 100_000], 0)[..50_000]).unwrap();
    let ended = client.ends_within(Duration::from_secs(10));
    let held = begin.elapsed();
    assert!(ended, "half a packet kept the connection alive for {held:?}");
    assert!(held >= Duration::from_millis(1350) && held < Duration::from_millis(4500), "{held:?}");
}
