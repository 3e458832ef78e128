//! MQTT over TLS: messages of every size, resumption on any shard, users out of certificates, the end of a stream.

use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};

use crate::certificates::Certificates;
use crate::client::{Client, config, connect_packet};
use crate::{broker, each_way};

#[test]
fn messages_of_every_size_pass_between_clients_of_both_versions() {
    let certificates = Certificates::new("sizes");
    each_way(&certificates, &[], |broker| {
        let mut subscriber =
            Client::connect(broker.address(), &config(&certificates, &TLS12, None), "subscriber").unwrap();
        subscriber.subscribe("sizes/#").unwrap();
        let tls13 = config(&certificates, &TLS13, None);
        let mut publisher = Client::connect(broker.address(), &tls13, "publisher").unwrap();
        for (index, size) in [0, 1, 200, 1023, 1024, 16_384, 70_000, 2_000_000].into_iter().enumerate() {
            let payload: Vec<u8> = (0..size).map(|i| (i * 7 + index) as u8).collect();
            publisher.publish("sizes/x", &payload).unwrap();
            assert!(subscriber.message().unwrap() == payload, "{size} bytes");
        }
    });
}

#[test]
fn hundreds_of_clients_find_their_home_and_resume_wherever_they_land() {
    let certificates = Certificates::new("home");
    each_way(&certificates, &[], |broker| {
        for version in [&TLS12, &TLS13] {
            let config = config(&certificates, version, None);
            drop(Client::connect(broker.address(), &config, "first").unwrap());
            let mut clients = Vec::new();
            for index in 0..100 {
                let mut client =
                    Client::connect(broker.address(), &config, &format!("client-{index}")).unwrap();
                assert_eq!(client.kind(), HandshakeKind::Resumed, "connection {index}");
                client.subscribe(&format!("home/{index}")).unwrap();
                clients.push(client);
            }
            let mut publisher = Client::connect(broker.address(), &config, "publisher").unwrap();
            for (index, client) in clients.iter_mut().enumerate() {
                publisher.publish(&format!("home/{index}"), &[index as u8]).unwrap();
                assert_eq!(client.message().unwrap(), [index as u8]);
            }
        }
    });
}

#[test]
fn a_client_that_is_taken_over_reads_its_stream_to_the_end() {
    let certificates = Certificates::new("takeover");
    each_way(&certificates, &[], |broker| {
        let config = config(&certificates, &TLS13, None);
        let mut subscriber = Client::connect(broker.address(), &config, "subscriber").unwrap();
        subscriber.subscribe("takeover").unwrap();
        for round in 0..20u8 {
            let mut old = Client::connect(broker.address(), &config, "same").unwrap();
            // Sent before the new connection: acted upon, whatever shard it waits for.
            old.send(&[0x30, 11, 0, 8, b't', b'a', b'k', b'e', b'o', b'v', b'e', b'r', round]).unwrap();
            let _new = Client::connect(broker.address(), &config, "same").unwrap();
            assert!(old.ends_properly(), "round {round}");
            let packet = subscriber.packet().unwrap();
            assert_eq!((packet[0], packet.last()), (0x30, Some(&round)));
        }
    });
}

#[test]
fn the_name_in_a_certificate_is_the_user() {
    let certificates = Certificates::new("user");
    let ca = certificates.path("ca.pem");
    for (flags, user) in [
        (&["--tls-client-ca", &ca][..], "user=sensor-1 "),
        (&["--tls-client-ca", &ca, "--tls-client-user", "subject"], "user=\"CN=sensor-1\" "),
    ] {
        each_way(&certificates, flags, |broker| {
            let config = config(&certificates, &TLS13, Some("sensor-1"));
            let mut client = Client::connect(broker.address(), &config, "with-certificate").unwrap();
            client.subscribe("x").unwrap();
            client.send(&[0xE0, 0]).unwrap();
            assert!(client.ends_properly());
            // The log is written by a thread of its own.
            std::thread::sleep(std::time::Duration::from_millis(100));
            let log = broker.stderr();
            for line in ["connect", "disconnect"] {
                assert!(log.contains(&format!(" {line} client=with-certificate {user}")), "{line} in {log}");
            }
        });
    }
}

#[test]
fn a_certificate_that_names_nobody_lets_nobody_in() {
    let certificates = Certificates::new("nameless");
    let ca = certificates.path("ca.pem");
    let config = config(&certificates, &TLS13, Some("nameless"));
    each_way(&certificates, &["--tls-client-ca", &ca, "--client-ids", "user-name"], |broker| {
        assert!(Client::connect(broker.address(), &config, "meter-7").is_err());
        std::thread::sleep(std::time::Duration::from_millis(100));
        let log = broker.stderr();
        assert!(
            log.contains("client=meter-7 user=\"\"") && log.contains("the certificate names no user"),
            "{log}"
        );
    });
    // Its subject does name somebody, and who says so lets it in.
    for more in [&["--tls-client-user", "subject"], &["--allow-anonymous", "--tls-client-user=common-name"]] {
        let flags = [&["--tls-client-ca", &ca][..], more].concat();
        each_way(&certificates, &flags, |broker| {
            Client::connect(broker.address(), &config, "meter-7").unwrap();
        });
    }
}

#[test]
fn a_stream_that_ends_behind_its_connect_ends_at_home_too() {
    let certificates = Certificates::new("ends");
    each_way(&certificates, &[], |broker| {
        let config = config(&certificates, &TLS13, None);
        for index in 0..20 {
            let mut client = Client::open(broker.address(), &config).unwrap();
            client.send_last(&connect_packet(&format!("ends-{index}"))).unwrap();
            assert!(client.ends(), "client {index}");
        }
        for index in 0..20 {
            let mut client = Client::connect(broker.address(), &config, &format!("asks-{index}")).unwrap();
            client.send_last(&[0x32, 6, 0, 1, b'a', 0, 7, b'x']).unwrap();
            assert_eq!(client.packet().unwrap(), [0x40, 0, 7], "client {index}");
            assert!(client.ends_properly());
        }
    });
}

#[test]
fn a_broker_that_stops_says_goodbye_through_tls() {
    let certificates = Certificates::new("stop");
    for way in crate::WAYS {
        let mut broker = broker(&certificates, way, &[]);
        let config = config(&certificates, &TLS13, None);
        let mut clients: Vec<Client> = (0..20)
            .map(|index| Client::connect(broker.address(), &config, &format!("client-{index}")).unwrap())
            .collect();
        broker.process().signal("TERM");
        for client in &mut clients {
            assert!(client.ends_properly());
        }
        drop(clients);
        assert_eq!(broker.process().exit_code(), 0);
    }
}
