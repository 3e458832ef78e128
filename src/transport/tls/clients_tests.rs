//! Certificates of X.509 version 1: which are taken, and everything that is almost one. They are made byte by byte, since
//! nothing but openssl makes them.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, GeneralSubtree, IsCa, Issuer, KeyPair, NameConstraints,
    PublicKeyData, SigningKey, date_time_ymd,
};
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};

use super::config::verifier;
use super::testing::{Certificates, Pair};
use super::*;

/// ecdsa-with-SHA256, and ecdsa-with-SHA384 in its place.
const SHA256: &[u8] = &[6, 8, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 2];
const SHA384: &[u8] = &[6, 8, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 3];
const NOW_S: u64 = 1_800_000_000;

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    let [high, low] = (value.len() as u16).to_be_bytes();
    let head = match value.len() {
        len @ 0..=0x7F => vec![tag, len as u8],
        0x80..=0xFF => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [head, value].concat()
}

/// What a certificate says; `Old::default()` says nothing unusual.
struct Old<'a> {
    /// The field of the version, which version 1 leaves out.
    version: &'a [u8],
    inner_algorithm: &'a [u8],
    outer_algorithm: &'a [u8],
    validity: [&'a [u8]; 2],
    /// Behind the public key.
    more: &'a [u8],
    /// Behind the signature, and behind the whole.
    behind: [&'a [u8]; 2],
}

impl Default for Old<'_> {
    fn default() -> Self {
        Old {
            version: b"",
            inner_algorithm: SHA256,
            outer_algorithm: SHA256,
            validity: [b"200101000000Z", b"400101000000Z"],
            more: b"",
            behind: [b"", b""],
        }
    }
}

impl Old<'_> {
    /// The certificate of `key` for a client called `old`.
    fn signed_by(&self, ca: &Ca, key: &KeyPair) -> CertificateDer<'static> {
        let name = tlv(0x31, &[&tlv(0x30, &[&[6, 3, 0x55, 4, 3], &tlv(0x0C, &[b"old"])])]);
        let signed = tlv(
            0x30,
            &[
                self.version,
                &[2, 1, 7],
                &tlv(0x30, &[self.inner_algorithm]),
                &tlv(0x30, &[&ca.name]),
                &tlv(0x30, &self.validity.map(|time| tlv(0x17, &[time])).each_ref().map(Vec::as_slice)),
                &tlv(0x30, &[&name]),
                &key.subject_public_key_info(),
                self.more,
            ],
        );
        let signature = ca.key.sign(&signed).unwrap();
        let algorithm = tlv(0x30, &[self.outer_algorithm]);
        let [inside, outside] = self.behind;
        let whole = tlv(0x30, &[&signed, &algorithm, &tlv(3, &[&[0], &signature]), inside]);
        CertificateDer::from([&whole[..], outside].concat())
    }
}

struct Ca {
    pem: String,
    /// The contents of its name.
    name: Vec<u8>,
    key: KeyPair,
}

impl Ca {
    fn new(name: &str) -> Ca {
        Ca::with(name, |_| {})
    }

    fn with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Ca {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let name = Certificate::parse(certificate.der()).unwrap().issuer.to_vec();
        Ca { pem: certificate.pem(), name, key }
    }

    fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        let ca = CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        verifier(std::path::Path::new("ca.pem"), vec![ca], true, &provider).unwrap()
    }
}

/// A verdict about a certificate that came with `others`: nothing, or the reason in words.
fn verdict(ca: &Ca, certificate: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), String> {
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW_S));
    let verdict = ca.verifier().verify_client_cert(certificate, others, now);
    verdict.map(|_| ()).map_err(|error| words::why(&error, &Head::default(), true))
}

#[test]
fn version_1_is_taken_from_a_trusted_ca_and_nothing_else_is() {
    let (ca, key) = (Ca::new("ca"), KeyPair::generate().unwrap());
    assert_eq!(verdict(&ca, &Old::default().signed_by(&ca, &key), &[]), Ok(()));
    let explicit = Old { version: &[0xA0, 3, 2, 1, 0], ..Old::default() };
    assert_eq!(verdict(&ca, &explicit.signed_by(&ca, &key), &[]), Ok(()), "openssl writes its number");

    let extensions = tlv(0xA3, &[&tlv(0x30, &[])]);
    let unique_id = tlv(0x81, &[&[0, 1]]);
    for (old, why) in [
        (
            Old { validity: [b"200101000000Z", b"210101000000Z"], ..Old::default() },
            "has expired on 2021-01-01",
        ),
        (
            Old { validity: [b"390101000000Z", b"400101000000Z"], ..Old::default() },
            "not valid before 2039-01-01",
        ),
        (Old { more: &extensions, ..Old::default() }, "fields that version 1 does not have"),
        (Old { more: &unique_id, ..Old::default() }, "fields that version 1 does not have"),
        (Old { behind: [b"\x05\0", b""], ..Old::default() }, "fields that version 1 does not have"),
        (Old { behind: [b"", b"\x05\0"], ..Old::default() }, "fields that version 1 does not have"),
        (Old { inner_algorithm: SHA384, ..Old::default() }, "cannot be read"),
        (Old { outer_algorithm: SHA384, ..Old::default() }, "cannot be read"),
        (Old { inner_algorithm: SHA384, outer_algorithm: SHA384, ..Old::default() }, "not signed by the CA"),
        (
            Old { inner_algorithm: &[6, 1, 1], outer_algorithm: &[6, 1, 1], ..Old::default() },
            "algorithm that is not taken",
        ),
        (Old { version: &[0xA0, 3, 2, 1, 1], ..Old::default() }, "X.509 version 2"),
    ] {
        let said = verdict(&ca, &old.signed_by(&ca, &key), &[]).unwrap_err();
        assert!(said.contains(why), "{why}: {said}");
    }
    for version in [&[0xA0, 3, 2, 1, 3][..], &[0xA0, 4, 2, 2, 0, 0], &[0xA0, 0], &[0xA0, 3, 4, 1, 0]] {
        let old = Old { version, ..Old::default() };
        assert!(verdict(&ca, &old.signed_by(&ca, &key), &[]).is_err(), "{version:?}");
    }
}

#[test]
fn version_1_is_refused_from_anybody_whom_nobody_trusts() {
    let (ca, key) = (Ca::new("ca"), KeyPair::generate().unwrap());
    let (namesake, other) = (Ca::new("ca"), Ca::new("other"));
    let said = verdict(&ca, &Old::default().signed_by(&namesake, &key), &[]).unwrap_err();
    assert!(said.contains("one of the same name"), "{said}");
    let said = verdict(&ca, &Old::default().signed_by(&other, &key), &[]).unwrap_err();
    assert!(said.contains("X.509 version 1") && said.contains("-extfile client.ext"), "{said}");

    // By a CA in between, sent along, that has itself been signed by the trusted one.
    let between_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "between");
    let mut trusted = CertificateParams::default();
    trusted.distinguished_name.push(DnType::CommonName, "ca");
    let issuer = Issuer::new(trusted, &ca.key);
    let between = params.signed_by(&between_key, &issuer).unwrap().der().clone();
    let name = Ca::new("between").name;
    let between_ca = Ca { pem: String::new(), name, key: between_key };
    let said = verdict(&ca, &Old::default().signed_by(&between_ca, &key), &[between]).unwrap_err();
    assert!(said.contains("signed it directly"), "{said}");

    // By a CA that limits names.
    let limited = Ca::with("limited", |params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("example.com".to_owned())],
            excluded_subtrees: vec![],
        });
    });
    let said = verdict(&limited, &Old::default().signed_by(&limited, &key), &[]).unwrap_err();
    assert!(said.contains("nameConstraints"), "{said}");
}

#[test]
fn version_1_signs_no_other_certificate() {
    let (ca, key) = (Ca::new("ca"), KeyPair::generate().unwrap());
    let old = Old::default().signed_by(&ca, &key);
    assert_eq!(verdict(&ca, &old, &[]), Ok(()));
    // It calls itself `old`, and signs for a client as a CA would, in version 3 and in version 1.
    let mut issuer = CertificateParams::default();
    issuer.distinguished_name = rcgen::DistinguishedName::new();
    issuer.distinguished_name.push(DnType::CommonName, "old");
    let client_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "admin");
    let forged = params.signed_by(&client_key, &Issuer::new(issuer, &key)).unwrap();
    assert!(verdict(&ca, forged.der(), std::slice::from_ref(&old)).is_err());
    let name = Certificate::parse(forged.der()).unwrap().issuer.to_vec();
    let forger = Ca { pem: String::new(), name, key };
    let forged = Old::default().signed_by(&forger, &client_key);
    assert!(verdict(&ca, &forged, &[old]).is_err());
}

#[test]
fn no_changed_bit_and_no_cut_makes_a_good_certificate() {
    let (ca, key) = (Ca::new("ca"), KeyPair::generate().unwrap());
    let good = Old::default().signed_by(&ca, &key);
    let verifier = ca.verifier();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW_S));
    let is_good = |der: Vec<u8>| verifier.verify_client_cert(&CertificateDer::from(der), &[], now).is_ok();
    assert!(is_good(good.to_vec()));
    for at in 0..good.len() {
        assert!(!is_good(good[..at].to_vec()), "cut at {at}");
        for bit in 0..8 {
            let mut bent = good.to_vec();
            bent[at] ^= 1 << bit;
            assert!(!is_good(bent), "bit {bit} of byte {at}");
        }
    }
}

/// A client with this certificate, which it shows whatever its own library thinks of it.
fn client(
    certificates: &Certificates,
    version: &'static SupportedProtocolVersion,
    certificate: CertificateDer<'static>,
    key: &KeyPair,
) -> Arc<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificates.path("ca.pem")).unwrap()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let key = provider.key_provider.load_private_key(key).unwrap();
    let shows: Arc<dyn ResolvesClientCert> =
        Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key)));
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(shows);
    Arc::new(config)
}

#[test]
fn a_client_of_version_1_proves_its_key_in_both_versions_of_tls() {
    let certificates = Certificates::new("version-1");
    let (ca, other_ca) = (Ca::new("devices"), Ca::new("others"));
    std::fs::write(certificates.path("devices.pem"), &ca.pem).unwrap();
    let required = ClientCertificates::Required { ca: certificates.path("devices.pem") };
    let acceptor = certificates.acceptor(required);
    let curves = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
    for version in [&TLS12, &TLS13] {
        for curve in curves {
            let key = KeyPair::generate_for(curve).unwrap();
            let good = client(&certificates, version, Old::default().signed_by(&ca, &key), &key);
            for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let mut pair = Pair::new(&acceptor, &good);
                pair.say(b"x");
                assert_eq!(pair.run(usize::MAX), Fed::Open);
                assert_eq!(pair.client.handshake_kind(), Some(expected));
                assert_eq!(pair.server.peer(), Peer { address: None, is_certified: true, user: Some("old") });
            }
        }
        let key = KeyPair::generate().unwrap();
        let thief = KeyPair::generate().unwrap();
        let stolen = Old::default().signed_by(&ca, &key);
        let expired = Old { validity: [b"200101000000Z", b"210101000000Z"], ..Old::default() };
        for (certificate, key, why, alert) in [
            (stolen, &thief, "does not hold its key", AlertDescription::DecryptError),
            (expired.signed_by(&ca, &key), &key, "has expired", AlertDescription::CertificateExpired),
            (
                Old::default().signed_by(&other_ca, &key),
                &key,
                "X.509 version 1",
                AlertDescription::CertificateUnknown,
            ),
        ] {
            let mut pair = Pair::new(&acceptor, &client(&certificates, version, certificate, key));
            let Fed::Failed(said) = pair.run(usize::MAX) else { panic!("it is let in: {why}") };
            assert!(said.contains(why), "{said}");
            let wire = pair.from_server(b"");
            assert_eq!(pair.to_client(&wire).unwrap_err(), rustls::Error::AlertReceived(alert), "{why}");
        }
    }
}

#[test]
fn a_server_certificate_of_version_1_is_served_with_its_own_key_alone() {
    let certificates = Certificates::new("version-1-server");
    let (ca, key) = (Ca::new("ca"), KeyPair::generate().unwrap());
    let der = Old::default().signed_by(&ca, &key);
    std::fs::write(certificates.path("old.der"), &der).unwrap();
    std::fs::write(certificates.path("old.key"), key.serialize_pem()).unwrap();
    let settings = Settings {
        certificate: certificates.path("old.der"),
        key: certificates.path("old.key"),
        ..certificates.settings(ClientCertificates::None)
    };
    TlsAcceptor::new(settings.clone()).unwrap();
    let other = Settings { key: certificates.path("server.key"), ..settings };
    let error = TlsAcceptor::new(other).unwrap_err();
    assert!(error.path == certificates.path("server.key") && error.why.contains("not the key of"), "{error}");
}

#[test]
fn an_expired_ca_is_warned_about() {
    let certificates = Certificates::new("warned");
    let past = Ca::with("past", |params| params.not_after = date_time_ymd(2020, 1, 1));
    std::fs::write(certificates.path("past.pem"), &past.pem).unwrap();
    let acceptor = certificates.acceptor(ClientCertificates::Required { ca: certificates.path("past.pem") });
    let [warning] = &acceptor.warnings()[..] else { panic!("{:?}", acceptor.warnings()) };
    assert!(warning.to_string().contains("past.pem: CA of clients CN=past"), "{warning}");
    let expiry = acceptor.expiry();
    assert_eq!((expiry.certificate, expiry.client_ca), (Standing::Valid, Some(Standing::Expired)));
}
