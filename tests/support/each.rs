//! Runs one test body against a broker with one shard and against one with four.
//!
//! Both brokers are started once per test process and shared, so names must come from `name`.
//! `CONFORMANCE_TARGET=ADDR:PORT` runs the bodies against another broker instead, to see where brokers differ; of
//! a refusal only the close is asked there, since reason codes are the first thing in which they do.
//! `BROKER_FLAGS='--io epoll'` gives every broker of the tests more flags, see `broker`.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use super::broker::Broker;
use super::encode::Version;

/// The shard counts that every body runs with.
const SHARDS: [u16; 2] = [1, 4];

/// The brokers that tests share.
fn shared(shards: u16) -> &'static Broker {
    static BROKERS: [OnceLock<Broker>; 2] = [OnceLock::new(), OnceLock::new()];
    let slot = SHARDS.iter().position(|count| *count == shards).expect("one of SHARDS");
    BROKERS[slot].get_or_init(|| match target() {
        Some(target) => Broker::at(target),
        None => Broker::start(shards, &["--sys-interval", "1", "--log-level", "warn"]),
    })
}

/// The broker that somebody else runs, if the tests are to use one.
pub fn target() -> Option<SocketAddr> {
    let target = std::env::var("CONFORMANCE_TARGET").ok()?;
    Some(target.parse().expect("CONFORMANCE_TARGET is ADDR:PORT"))
}

/// Runs the body with one shard and with four, at the same time.
pub fn each(body: impl Fn(&Broker) + Sync) {
    let body = &body;
    let failed: Vec<String> = thread::scope(|scope| {
        let runs = SHARDS.map(|shards| {
            let run = thread::Builder::new().name(format!("{}, {shards} shards", current_test()));
            (shards, run.spawn_scoped(scope, move || body(shared(shards))).expect("a thread"))
        });
        runs.into_iter().filter_map(|(shards, run)| run.join().err().map(|why| told(shards, &*why))).collect()
    });
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn told(shards: u16, why: &(dyn std::any::Any + Send)) -> String {
    let text = why.downcast_ref::<String>().cloned();
    let text = text.or_else(|| why.downcast_ref::<&str>().map(|text| (*text).to_string()));
    format!("with {shards} shards: {}", text.unwrap_or_else(|| "panicked".to_string()))
}

fn current_test() -> String {
    thread::current().name().unwrap_or("test").to_string()
}

/// Runs the body against brokers of its own with these flags, one with one shard and then one with four.
pub fn each_with(flags: &[&str], body: impl Fn(&Broker)) {
    SHARDS.iter().for_each(|shards| body(&Broker::start(*shards, flags)));
}

/// Runs the body for each of these versions, with one shard and with four.
pub fn each_of(versions: &[Version], body: impl Fn(&Broker, Version) + Sync) {
    each(|broker| versions.iter().for_each(|version| body(broker, *version)));
}

/// Runs the body for all three versions, with one shard and with four.
pub fn each_version(body: impl Fn(&Broker, Version) + Sync) {
    each_of(&[Version::V5, Version::V311, Version::V31], body);
}

/// A name that no other test uses: at most 23 of the characters that every server accepts in an id.
pub fn name(label: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let label: String = label.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    format!("{label}x{:x}x{count:x}", std::process::id())
}
