//! Both ends of TLS in memory: every piece of the wire is seen.

use std::fs;

use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, HandshakeKind, SupportedProtocolVersion};

use super::testing::{Certificates, Pair, Shows, write};
use super::*;
use crate::clock::NEVER;
use crate::memory::{MessageView, Outbox};
use crate::wire::Qos;

const BOTH: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// The lengths of the records in `wire`.
fn records(mut wire: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let [_, _, _, high, low, rest @ ..] = wire {
        let len = usize::from(*high) << 8 | usize::from(*low);
        lengths.push(len);
        wire = &rest[len..];
    }
    assert!(wire.is_empty());
    lengths
}

#[test]
fn a_stream_passes_both_ways_however_it_is_cut() {
    let certificates = Certificates::new("cut");
    let acceptor = certificates.acceptor(ClientCertificates::None);
    let large: Vec<u8> = (0..100_000u32).map(|i| (i * 31) as u8).collect();
    for version in BOTH {
        for step in [1, 7, 4096, usize::MAX] {
            let mut pair = Pair::new(&acceptor, &certificates.client(version, Shows::Nothing));
            assert!(pair.server.handshake().is_some());
            pair.say(&large);
            assert_eq!(pair.run(step), Fed::Open);
            assert!(pair.server.handshake().is_none());
            assert!(pair.heard == large);
            assert_eq!(pair.server.peer(), Peer::default());
            let wire = pair.from_server(&large);
            assert!(pair.to_client(&wire).unwrap() == large);
        }
    }
}

/// Bytes that are charged for what is not whole.
fn held(pair: &Pair) -> usize {
    let own = if pair.server.handshake().is_some() { HANDSHAKE_BYTES } else { REST_BYTES };
    pair.server.cost() - own
}

#[test]
fn what_is_not_whole_is_held() {
    let certificates = Certificates::new("held");
    let acceptor = certificates.acceptor(ClientCertificates::None);
    for version in BOTH {
        let mut pair = Pair::new(&acceptor, &certificates.client(version, Shows::Nothing));
        let hello = pair.from_client();
        let (most, last) = hello.split_at(hello.len() - 1);
        let mut plain = Vec::new();
        for (count, byte) in most.iter().enumerate() {
            assert_eq!((held(&pair), pair.server.feed(&[*byte], &mut plain)), (count, Fed::Open));
        }
        assert_eq!((pair.server.feed(last, &mut plain), held(&pair)), (Fed::Open, 0));
        let answer = pair.from_server(&[]);
        pair.to_client(&answer).unwrap();
        assert_eq!(pair.run(usize::MAX), Fed::Open);
        assert!(pair.server.handshake().is_none() && held(&pair) == 0);
        pair.say(&[7; 10_000]);
        let record = pair.from_client();
        let (most, last) = record.split_at(record.len() - 1);
        assert_eq!((pair.server.feed(most, &mut plain), held(&pair)), (Fed::Open, most.len()));
        assert_eq!((pair.server.feed(last, &mut plain), held(&pair)), (Fed::Open, 0));
        assert!(plain == [7; 10_000]);
    }
}

#[test]
fn the_output_of_a_turn_is_as_few_records_as_can_be() {
    let certificates = Certificates::new("records");
    let acceptor = certificates.acceptor(ClientCertificates::None);
    let mut pair = Pair::new(&acceptor, &certificates.client(&TLS13, Shows::Nothing));
    assert_eq!(pair.run(usize::MAX), Fed::Open);
    let payload = vec![7; 2000];
    let view = MessageView {
        topic: "t",
        properties: &[],
        payload: &payload,
        qos: Qos::AtMostOnce,
        retain: false,
        expires_at: NEVER,
        publisher: 0,
        whole: None,
        origin: 0,
        is_repeat: false,
    };
    let message = view.to_message();
    let mut outbox = Outbox::default();
    let mut expected = Vec::new();
    for index in 0..20u8 {
        outbox.bytes_mut().extend_from_slice(&[index; 100]);
        expected.extend_from_slice(&[index; 100]);
        outbox.push_payload(&message);
        expected.extend_from_slice(&payload);
    }
    let wire = write(&mut *pair.server, outbox.take(Vec::new()), Last::No);
    assert_eq!(records(&wire).len(), 3, "42,000 bytes, 16,384 at a time");
    assert!(pair.to_client(&wire).unwrap() == expected);
}

#[test]
fn a_client_certificate_names_its_user() {
    let certificates = Certificates::new("user");
    certificates.sign("sensor-1", 2040);
    let ca = certificates.path("ca.pem");
    let required = certificates.acceptor(ClientCertificates::Required { ca: ca.clone() });
    let optional = certificates.acceptor(ClientCertificates::Optional { ca: ca.clone() });
    let subject = TlsAcceptor::new(Settings {
        user: CertificateUser::Subject,
        ..certificates.settings(ClientCertificates::Required { ca })
    })
    .unwrap();
    for version in BOTH {
        let client = certificates.client(version, Shows::Certificate("sensor-1"));
        for (acceptor, user) in
            [(&*required, "sensor-1"), (&*optional, "sensor-1"), (&subject, "CN=sensor-1,O=Acme")]
        {
            let mut pair = Pair::new(acceptor, &client);
            assert_eq!(pair.run(100), Fed::Open);
            assert_eq!(pair.server.peer(), Peer { address: None, is_certified: true, user: Some(user) });
        }
        let nobody = certificates.client(version, Shows::Nothing);
        let mut pair = Pair::new(&optional, &nobody);
        assert_eq!(pair.run(100), Fed::Open);
        assert_eq!(pair.server.peer(), Peer::default());
        let mut pair = Pair::new(&required, &nobody);
        assert!(matches!(pair.run(100), Fed::Failed(_)));
    }
}

#[test]
fn certificates_that_nobody_vouches_for_or_that_have_expired_are_refused_with_an_alert() {
    let certificates = Certificates::new("refused");
    let others = Certificates::new("others");
    certificates.sign("old", 2020);
    others.sign("stranger", 2040);
    for file in ["stranger.pem", "stranger.key"] {
        fs::copy(others.path(file), certificates.path(file)).unwrap();
    }
    let ca = certificates.path("ca.pem");
    for clients in
        [ClientCertificates::Required { ca: ca.clone() }, ClientCertificates::Optional { ca: ca.clone() }]
    {
        let acceptor = certificates.acceptor(clients);
        for version in BOTH {
            for (name, alert) in
                [("old", AlertDescription::CertificateExpired), ("stranger", AlertDescription::UnknownCA)]
            {
                let mut pair = Pair::new(&acceptor, &certificates.client(version, Shows::Certificate(name)));
                let Fed::Failed(why) = pair.run(usize::MAX) else { panic!("{name} is let in") };
                assert!(why.contains("certificate"), "{why}");
                assert!(pair.server.wants_write());
                let wire = pair.from_server(b"");
                let error = pair.to_client(&wire).unwrap_err();
                assert_eq!(error, rustls::Error::AlertReceived(alert), "{name}");
            }
        }
    }
}

/// How a new connection of `client` came about.
fn connect(acceptor: &TlsAcceptor, client: &Arc<rustls::ClientConfig>) -> (Pair, HandshakeKind) {
    let mut pair = Pair::new(acceptor, client);
    pair.say(b"x");
    assert_eq!(pair.run(usize::MAX), Fed::Open);
    let kind = pair.client.handshake_kind().unwrap();
    (pair, kind)
}

#[test]
fn a_ticket_resumes_with_its_user_at_its_listener_and_until_a_reload() {
    let certificates = Certificates::new("ticket");
    certificates.sign("sensor-1", 2040);
    let required = ClientCertificates::Required { ca: certificates.path("ca.pem") };
    let acceptor = certificates.acceptor(required.clone());
    let other = certificates.acceptor(required);
    for version in BOTH {
        let client = certificates.client(version, Shows::Certificate("sensor-1"));
        assert_eq!(connect(&acceptor, &client).1, HandshakeKind::Full);
        for _ in 0..3 {
            let (pair, kind) = connect(&acceptor, &client);
            assert_eq!(kind, HandshakeKind::Resumed);
            assert_eq!(
                pair.server.peer(),
                Peer { address: None, is_certified: true, user: Some("sensor-1") }
            );
        }
        assert_eq!(connect(&other, &client).1, HandshakeKind::Full, "another listener has other tickets");
        assert_eq!(connect(&acceptor, &client).1, HandshakeKind::Full);
        assert_eq!(connect(&acceptor, &client).1, HandshakeKind::Resumed);
        Reload::load(std::slice::from_ref(&acceptor)).unwrap().swap();
        assert_eq!(connect(&acceptor, &client).1, HandshakeKind::Full, "a reload has new tickets");
    }
}

#[test]
fn a_reload_changes_all_listeners_or_none_and_no_connection() {
    let certificates = Certificates::new("reload");
    certificates.sign("next", 2041);
    let acceptors = [
        certificates.acceptor(ClientCertificates::None),
        certificates.acceptor(ClientCertificates::Optional { ca: certificates.path("ca.pem") }),
    ];
    let client = certificates.client(&TLS13, Shows::Nothing);
    let (mut live, _) = connect(&acceptors[0], &client);
    let before = acceptors[0].expiry().certificate_at_s;
    assert_eq!(before, 2_208_988_800);

    for file in ["pem", "key"] {
        let (next, server) = (format!("next.{file}"), format!("server.{file}"));
        fs::copy(certificates.path(&next), certificates.path(&server)).unwrap();
    }
    let ca = fs::read(certificates.path("ca.pem")).unwrap();
    fs::write(certificates.path("ca.pem"), "nothing").unwrap();
    let error = Reload::load(&acceptors).unwrap_err();
    assert_eq!(error.path, certificates.path("ca.pem"));
    assert_eq!(
        acceptors[0].expiry().certificate_at_s,
        before,
        "the first file was good, the second one was not"
    );

    fs::write(certificates.path("ca.pem"), ca).unwrap();
    Reload::load(&acceptors).unwrap().swap();
    assert!(acceptors.iter().all(|acceptor| acceptor.expiry().certificate_at_s > before));
    let wire = live.from_server(b"still here");
    assert_eq!(live.to_client(&wire).unwrap(), b"still here");
    let name = |pair: &Pair| {
        let shown = pair.client.peer_certificates().unwrap()[0].clone();
        Certificate::parse(&shown).unwrap().common_name().unwrap()
    };
    assert_eq!(name(&live), "server");
    assert_eq!(name(&connect(&acceptors[0], &client).0), "next");
}

#[test]
fn each_file_that_cannot_be_used_is_named_with_the_reason() {
    let certificates = Certificates::new("files");
    certificates.sign("other", 2040);
    fs::write(certificates.path("empty"), "").unwrap();
    fs::write(certificates.path("broken"), "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n")
        .unwrap();
    let good = certificates.settings(ClientCertificates::None);
    let at = |file: &str| certificates.path(file);
    let required = |file: &str| ClientCertificates::Required { ca: at(file) };
    for (settings, file, word) in [
        (Settings { certificate: at("gone"), ..good.clone() }, "gone", "No such file"),
        (Settings { certificate: at("empty"), ..good.clone() }, "empty", "no certificate"),
        (Settings { certificate: at("broken"), ..good.clone() }, "broken", "not PEM"),
        (Settings { key: at("gone"), ..good.clone() }, "gone", "No such file"),
        (Settings { key: at("server.pem"), ..good.clone() }, "server.pem", "no private key"),
        (Settings { key: at("other.key"), ..good.clone() }, "other.key", "not the key of"),
        (Settings { clients: required("gone"), ..good.clone() }, "gone", "No such file"),
        (Settings { clients: required("server.key"), ..good.clone() }, "server.key", "no certificate"),
    ] {
        let error = TlsAcceptor::new(settings).unwrap_err();
        assert_eq!(error.path, at(file));
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn what_is_not_tls_fails_with_an_alert() {
    let certificates = Certificates::new("garbage");
    let acceptor = certificates.acceptor(ClientCertificates::None);
    let mqtt = b"\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0";
    // A record that claims more than a record may have.
    let oversized = [&[0x16, 3, 1, 0x7F, 0xFF][..], &[1; 5000]].concat();
    for bytes in [&mqtt[..], b"GET / HTTP/1.1\r\n\r\n", &[0xFF; 100], &oversized] {
        let mut server = acceptor.accept().unwrap();
        let mut plain = Vec::new();
        assert!(matches!(server.feed(bytes, &mut plain), Fed::Failed(_)), "{bytes:?}");
        assert!(plain.is_empty() && server.wants_write());
        let wire = write(&mut *server, OutBatch::default(), Last::No);
        assert_eq!((wire[0], wire.len()), (0x15, 7), "one alert");
    }
}

#[test]
fn a_changed_byte_fails_and_what_came_before_it_is_heard() {
    let certificates = Certificates::new("changed");
    let acceptor = certificates.acceptor(ClientCertificates::None);
    for version in BOTH {
        let mut pair = Pair::new(&acceptor, &certificates.client(version, Shows::Nothing));
        assert_eq!(pair.run(usize::MAX), Fed::Open);
        pair.say(b"first");
        let mut wire = pair.from_client();
        pair.say(b"second");
        let second = pair.from_client();
        wire.extend(&second);
        *wire.last_mut().unwrap() ^= 1;
        let fed = pair.server.feed(&wire, &mut pair.heard);
        assert!(matches!(fed, Fed::Failed(_)), "{fed:?}");
        assert_eq!(pair.heard, b"first");
    }
}

#[test]
fn both_ends_say_that_they_close() {
    let certificates = Certificates::new("close");
    let acceptor = certificates.acceptor(ClientCertificates::None);
    for version in BOTH {
        let mut pair = Pair::new(&acceptor, &certificates.client(version, Shows::Nothing));
        assert_eq!(pair.run(usize::MAX), Fed::Open);
        let wire = write(&mut *pair.server, OutBatch::default(), Last::Yes);
        let mut rest = &wire[..];
        pair.client.read_tls(&mut rest).unwrap();
        assert!(pair.client.process_new_packets().unwrap().peer_has_closed());

        let mut pair = Pair::new(&acceptor, &certificates.client(version, Shows::Nothing));
        assert_eq!(pair.run(usize::MAX), Fed::Open);
        pair.say(b"bye");
        pair.client.send_close_notify();
        let wire = pair.from_client();
        assert_eq!(pair.server.feed(&wire, &mut pair.heard), Fed::Closed);
        assert_eq!(pair.heard, b"bye");
    }
}

#[test]
fn a_flood_of_key_updates_ends_before_its_answers_pile_up() {
    let certificates = Certificates::new("updates");
    let acceptor = certificates.acceptor(ClientCertificates::None);
    let mut pair = Pair::new(&acceptor, &certificates.client(&TLS13, Shows::Nothing));
    assert_eq!(pair.run(usize::MAX), Fed::Open);
    let mut fed = Fed::Open;
    let mut updates = 0;
    while fed == Fed::Open {
        assert!(updates < 100_000, "key updates are never refused");
        pair.client.refresh_traffic_keys().unwrap();
        let wire = pair.from_client();
        fed = pair.server.feed(&wire, &mut pair.heard);
        updates += 1;
    }
    let wire = pair.from_server(b"");
    assert!(wire.len() <= 2 * OUTPUT_MAX, "{} bytes after {updates} updates", wire.len());
}

#[test]
fn records_to_a_client_are_as_small_as_was_asked() {
    let certificates = Certificates::new("small-records");
    let settings = Settings { record_size_max: Some(512), ..certificates.settings(ClientCertificates::None) };
    let acceptor = TlsAcceptor::new(settings).unwrap();
    for version in BOTH {
        let mut pair = Pair::new(&acceptor, &certificates.client(version, Shows::Nothing));
        assert_eq!(pair.run(usize::MAX), Fed::Open);
        let wire = pair.from_server(&[7; 5000]);
        let lengths = records(&wire);
        // A nonce, a tag and the type are added to each.
        assert!(lengths.len() == 10 && lengths.iter().all(|len| *len <= 512 + 24), "{lengths:?}");
        assert!(pair.to_client(&wire).unwrap() == [7; 5000]);
    }
}
