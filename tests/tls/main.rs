//! TLS against the real binary: clients of others, openssl's client, hostile peers, a reload in the middle of traffic.
//!
//! Every body runs with one shard and with four, over io_uring and over epoll. Certificates are made here. What a
//! machine does not have is said as NOT RUN, with the reason.

mod certificates;
mod client;
mod foreign;
mod hostile;
mod listeners;
mod openssl;
mod page;
mod reload;
mod sessions;
#[path = "../support/mod.rs"]
mod support;
mod traffic;

use std::net::SocketAddr;

use certificates::Certificates;
use support::Broker;

/// Shards, and the way to the kernel.
const WAYS: [(u16, &str); 4] = [(1, "uring"), (4, "uring"), (1, "epoll"), (4, "epoll")];

/// A broker with one TLS listener.
fn broker(certificates: &Certificates, (shards, io): (u16, &str), more: &[&str]) -> Broker {
    let shards = shards.to_string();
    let (chain, key) = (certificates.path("server.pem"), certificates.path("server.key"));
    let base = [
        "--tls-listen",
        "127.0.0.1:0",
        "--tls-cert",
        &chain,
        "--tls-key",
        &key,
        "--shards",
        &shards,
        "--no-pin",
        "--io",
        io,
    ];
    Broker::start_with(&[&base, more].concat(), 1)
}

/// Runs a body each way, against a broker with these flags more.
fn each_way(certificates: &Certificates, more: &[&str], body: impl Fn(&Broker)) {
    for way in WAYS {
        println!("{} shards over {}", way.0, way.1);
        body(&broker(certificates, way, more));
    }
}

fn port(address: SocketAddr) -> String {
    address.port().to_string()
}
