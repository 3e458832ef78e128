//! A reload in the middle of traffic: new certificates for new connections, nothing for those that exist. In this
//! process, where it can be said when a reload happens.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ringmq::config::Config;
use ringmq::io::machine::Machine;
use ringmq::io::sockets;
use ringmq::server::{Server, Stopped};
use ringmq::transport::tls::{LoadError, Reload};
use rustls::version::TLS13;

use crate::WAYS;
use crate::certificates::Certificates;
use crate::client::{Client, PATIENCE, config};

/// A broker in this process, with optional certificates of clients.
fn server(certificates: &Certificates, (shards, io): (u16, &str)) -> Server {
    let [chain, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|file| certificates.path(file));
    let line = format!(
        "ringmq --tls-listen 127.0.0.1:0 --tls-cert {chain} --tls-key {key} --tls-client-ca {ca} \
         --tls-client-cert optional --shards {shards} --no-pin --io {io}"
    );
    let args: Vec<String> = line.split_whitespace().map(String::from).collect();
    let machine = Machine::look(Path::new("/"));
    let config = Config::parse(&args, &machine, &sockets::affinity().expect("CPUs")).expect("good flags");
    Server::start(&config).expect("a broker")
}

fn reload(server: &Server) -> Result<(), LoadError> {
    Reload::load(server.acceptors()).map(Reload::swap)
}

fn shown(address: SocketAddr, config: &Arc<rustls::ClientConfig>) -> Vec<u8> {
    Client::open(address, config).expect("a handshake").server_certificate()
}

#[test]
fn a_reload_reaches_new_connections_and_leaves_traffic_alone() {
    let certificates = Certificates::new("reload");
    let ca = certificates.path("ca.pem");
    let own_ca = fs::read(&ca).unwrap();
    for way in WAYS {
        certificates.sign("server", 2040);
        let mut server = server(&certificates, way);
        let address = server.addresses()[0];
        let plain = config(&certificates, &TLS13, None);
        let client = config(&certificates, &TLS13, Some("sensor-1"));
        let mut subscriber = Client::connect(address, &plain, "subscriber").unwrap();
        subscriber.subscribe("reload").unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let publisher = {
            let (over, sent, plain) = (Arc::clone(&over), Arc::clone(&sent), Arc::clone(&plain));
            thread::spawn(move || {
                let mut client = Client::connect(address, &plain, "publisher").unwrap();
                while !over.load(Ordering::Relaxed) {
                    let number = sent.fetch_add(1, Ordering::Relaxed);
                    client.publish("reload", &number.to_be_bytes()).unwrap();
                }
            })
        };
        let mut expected = 0u64;
        let mut traffic = || {
            for _ in 0..50 {
                assert_eq!(subscriber.message().unwrap(), expected.to_be_bytes());
                expected += 1;
            }
        };
        traffic();
        let first = shown(address, &plain);
        let expires = server.acceptors()[0].expiry().certificate_at_s;

        certificates.sign("server", 2041);
        assert!(shown(address, &plain) == first, "files are read at a reload, not before");
        reload(&server).unwrap();
        let second = shown(address, &plain);
        assert!(second != first);
        assert_eq!(
            server.acceptors()[0].expiry().certificate_at_s - expires,
            366 * 86_400,
            "2040 is a leap year"
        );
        traffic();

        // A key that does not belong to the certificate: all stays as it was.
        fs::copy(certificates.path("sensor-1.key"), certificates.path("server.key")).unwrap();
        let error = reload(&server).unwrap_err();
        assert!(error.to_string().contains("not the key of"), "{error}");
        assert!(shown(address, &plain) == second);
        traffic();

        // CAs are read again too: who was known becomes unknown, ticket or not.
        drop(Client::connect(address, &client, "known").unwrap());
        drop(Client::connect(address, &client, "known").unwrap());
        certificates.sign("server", 2042);
        let other = Certificates::new("reload-other-ca");
        fs::copy(other.path("ca.pem"), &ca).unwrap();
        reload(&server).unwrap();
        fs::write(&ca, &own_ca).unwrap();
        assert!(Client::connect(address, &client, "unknown").is_err(), "a ticket must not outlive its CA");
        traffic();

        over.store(true, Ordering::Relaxed);
        publisher.join().unwrap();
        drop(subscriber);
        server.begin_stop();
        let patience = |poll: Duration| {
            thread::sleep(poll);
            false
        };
        assert_eq!(server.finish(PATIENCE, patience).0, Stopped::Drained);
    }
}
