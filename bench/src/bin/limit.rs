//! `limit [ADDRESS] [CPU]`: the forwarder of [`bench::limit`] on a socket, until it is killed. Prints where it listens.

use std::net::SocketAddr;
use std::sync::Arc;

use bench::limit::Forwarder;
use ringmq::io::sockets;
use ringmq::io::uring::{Peers, Sizes, Uring};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), String> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or("127.0.0.1:0".into());
    if let Some(cpu) = args.next() {
        let cpu = cpu.parse().map_err(|_| format!("'{cpu}' is not a CPU number"))?;
        sockets::pin(cpu).map_err(|error| format!("CPU {cpu}: {error}"))?;
    }
    sockets::raise_descriptor_limit();
    let address: SocketAddr =
        address.parse().map_err(|_| format!("'{address}' is not an address with a port"))?;
    let mut listening = sockets::listen(&[address], 1, sockets::BACKLOG)
        .map_err(|error| format!("{address}: {:?}", error.cause))?;
    let address = listening.addresses[0];
    let listeners = listening.by_shard.remove(0);
    let ring = Uring::new(Sizes::default(), 0, Arc::new(Peers::new(1)), listeners)
        .map_err(|error| error.to_string())?;
    eprintln!("listening on {address}");
    let mut forwarder = Forwarder::new(ring);
    loop {
        forwarder.turn();
        forwarder.wait();
    }
}
