//! The broker's live-object counts, read as any client reads them: under `$SYS/broker/live/`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::broker::Broker;
use super::client::{Client, Event};
use super::decode::Packet;
use super::each::name;
use super::encode::{Connect, Version};

/// Where the counts stand.
pub const LIVE: &str = "$SYS/broker/live/";

/// A client that follows the counts. It is part of them: one connection, one session, one subscription.
pub struct Watch {
    client: Client,
    counts: BTreeMap<String, i64>,
}

impl Watch {
    /// Subscribes to the counts of a broker that refreshes them every second.
    pub fn new(broker: &Broker) -> Watch {
        // Rounds may take longer than a usual Keep Alive; none at all would let the timer go that CONNECT had.
        let connect = Connect::new(Version::V311, name("watch")).keep_alive_s(u16::MAX);
        let mut client = Client::accepted(broker, &connect);
        client.subscribe(&format!("{LIVE}#"), 0);
        Watch { client, counts: BTreeMap::new() }
    }

    /// Takes in what was published until `limit` has passed.
    fn follow(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            match self.client.next(deadline.saturating_duration_since(Instant::now())) {
                Event::Packet(Packet::Publish(publish)) => {
                    let count = publish.text().trim().parse().expect("a count in decimal");
                    self.counts.insert(publish.topic[LIVE.len()..].to_string(), count);
                }
                Event::Nothing => return,
                other => panic!("expected counts, got {other:?}"),
            }
        }
    }

    /// The counts once they have stood still for two refreshes.
    pub fn settled(&mut self) -> BTreeMap<String, i64> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let before = self.counts.clone();
            self.follow(Duration::from_millis(2200));
            if before == self.counts && !before.is_empty() {
                return before;
            }
            assert!(Instant::now() < deadline, "the counts never settle: {:?}", self.counts);
        }
    }

    /// One count as it was published last.
    pub fn count(&mut self, name: &str) -> i64 {
        self.follow(Duration::from_millis(1200));
        *self.counts.get(name).unwrap_or_else(|| panic!("no count {name} in {:?}", self.counts))
    }

    /// Waits until all counts are what they were, by what was published from now on: two refreshes, since only what
    /// changed is.
    pub fn expect(&mut self, base: &BTreeMap<String, i64>) {
        self.follow(Duration::from_millis(2200));
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.counts != *base {
            assert!(Instant::now() < deadline, "counts {:?} did not return to {base:?}", self.counts);
            self.follow(Duration::from_millis(300));
        }
    }
}
