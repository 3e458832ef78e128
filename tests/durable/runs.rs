//! One broker after another over the same data directory.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::support::*;

/// A directory that goes with the test.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new(label: &str) -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringmq-{label}-{}-{count}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Dir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Below the directory, for a command line.
    pub fn text(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a path in UTF-8").to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How a broker ends, and how it talks to the kernel.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Way {
    pub signal: &'static str,
    pub io: &'static str,
}

pub const WAYS: [Way; 4] = [
    Way { signal: "KILL", io: "uring" },
    Way { signal: "TERM", io: "uring" },
    Way { signal: "KILL", io: "epoll" },
    Way { signal: "TERM", io: "epoll" },
];

/// A data directory, and the way in which its brokers end.
pub struct Runs {
    _dir: Dir,
    pub data: String,
    way: Way,
}

impl Runs {
    pub fn new(label: &str, way: Way) -> Runs {
        let dir = Dir::new(label);
        let data = dir.text("data");
        Runs { _dir: dir, data, way }
    }

    /// What most tests do: io_uring, and a kill.
    pub fn killed(label: &str) -> Runs {
        Runs::new(label, WAYS[0])
    }

    pub fn start(&self, shards: u16, more: &[&str]) -> Broker {
        // Small segments: each start writes them once.
        let data = ["--data", &self.data, "--data-max", "256M", "--io", self.way.io, "--log-level", "info"];
        Broker::start(shards, &[&data, more].concat())
    }

    pub fn end(&self, mut broker: Broker) {
        let process = broker.process();
        process.signal(self.way.signal);
        let status = process.exit_within(Duration::from_secs(10)).expect("the broker ends");
        if self.way.signal == "TERM" {
            assert_eq!(status.code(), Some(0), "{:?}:\n{}", self.way, broker.stderr());
        }
    }

    /// Ends this broker and starts the next one.
    pub fn next(&self, broker: Broker, shards: u16, more: &[&str]) -> Broker {
        self.end(broker);
        self.start(shards, more)
    }
}

/// A client whose session was there.
pub fn resumed(broker: &Broker, connect: &Connect) -> Client {
    let (client, connack) = Client::connect(broker, connect);
    assert_eq!(connack.code, 0);
    let id = String::from_utf8_lossy(&connect.client_id);
    assert!(connack.session_present, "the session of {id} is gone:\n{}", broker.stderr());
    client
}

/// A client whose session was not there.
pub fn begun(broker: &Broker, connect: &Connect) -> Client {
    let (client, connack) = Client::connect(broker, connect);
    assert_eq!((connack.code, connack.session_present), (0, false));
    client
}

/// Waits until what this client has done is on disk: its acknowledgements are written down, but nobody is told when.
pub fn on_disk(client: &mut Client) {
    client.unsubscribe(&["no/such/filter"]);
}

/// Waits until a topic below `$SYS/broker/store/` has this value.
pub fn expect_sys(broker: &Broker, name: &str, value: &str) {
    let mut client = Client::fresh(broker, V5);
    client.subscribe(&format!("$SYS/broker/store/{name}"), 0);
    while client.expect_publish().text() != value {}
}

/// The value of such a topic after the next refresh of a broker that has one each second.
pub fn sys(broker: &Broker, name: &str) -> u64 {
    std::thread::sleep(Duration::from_millis(1100));
    let mut client = Client::fresh(broker, V5);
    client.subscribe(&format!("$SYS/broker/store/{name}"), 0);
    client.expect_publish().text().parse().expect("a number")
}
