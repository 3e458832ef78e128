//! Counters that only a hand-made run can look at, since chance does not bring it about.

use ringmq::io::ListenerId;
use ringmq::limits::Limits;

use crate::packet::{self, ConnectPacket, Value, Version};
use crate::scene::{self, rounds};

/// A client of which even a CONNACK is too large gets none, and none was counted.
#[test]
fn a_connack_that_is_too_large_is_not_counted_as_sent() {
    let mut cluster = scene::cluster(&scene::plan(1, Limits::default()));
    for (largest, packets) in [(4, 0), (5, 0), (100, 1)] {
        let before = cluster.sum(|c| &c.packets_sent_total);
        let endpoint = cluster.world.borrow_mut().connect(0, ListenerId(0));
        let connect = packet::connect(&ConnectPacket {
            version: Version::V5,
            client_id: "client",
            clean_start: true,
            keep_alive_s: 0,
            properties: vec![(packet::MAXIMUM_PACKET_SIZE, Value::Number(largest))],
            will: None,
        });
        cluster.world.borrow_mut().write(endpoint, &connect).expect("a connection");
        rounds(&mut cluster, 20);
        let mut came = Vec::new();
        cluster.world.borrow_mut().read(endpoint, &mut came, usize::MAX);
        assert_eq!(
            (came.is_empty(), cluster.sum(|c| &c.packets_sent_total) - before),
            (packets == 0, packets)
        );
        cluster.world.borrow_mut().close(endpoint);
        rounds(&mut cluster, 20);
    }
}
