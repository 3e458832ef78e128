//! Certificates made for one test, in a directory that is removed at its end.

use std::fs;
use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, SanType, date_time_ymd,
};

pub struct Certificates {
    root: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Certificates {
    /// A CA (`ca.pem`); signed by it: `server`, `sensor-1` for a client, `nameless` without a Common Name, `old` that has
    /// expired; and `stranger`, signed by another CA that has the same name. Each NAME is two files, NAME.pem and NAME.key.
    pub fn new(test: &str) -> Certificates {
        let root = std::env::temp_dir().join(format!("ringmq-tls-test-{}-{test}", std::process::id()));
        fs::create_dir_all(&root).expect("a directory for certificates");
        let (issuer, pem) = authority();
        fs::write(root.join("ca.pem"), pem).expect("a file");
        let certificates = Certificates { root, issuer };
        certificates.sign("server", 2040);
        certificates.sign("sensor-1", 2040);
        certificates.sign("nameless", 2040);
        certificates.sign("old", 2020);
        certificates.write("stranger", 2040, &authority().0);
        certificates
    }

    /// A certificate by the CA, valid from 2000 to the beginning of `year`.
    pub fn sign(&self, name: &str, year: i32) {
        self.write(name, year, &self.issuer);
    }

    fn write(&self, name: &str, year: i32, issuer: &Issuer<'static, KeyPair>) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let kind = if name == "nameless" { DnType::OrganizationName } else { DnType::CommonName };
        params.distinguished_name.push(kind, name);
        params.subject_alt_names = vec![
            SanType::IpAddress("127.0.0.1".parse().expect("an address")),
            SanType::DnsName("localhost".try_into().expect("a name")),
        ];
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let pem = params.signed_by(&key, issuer).expect("a certificate").pem();
        fs::write(self.root.join(format!("{name}.pem")), pem).expect("a file");
        fs::write(self.root.join(format!("{name}.key")), key.serialize_pem()).expect("a file");
    }

    pub fn path(&self, file: &str) -> String {
        self.root.join(file).into_os_string().into_string().expect("a path in UTF-8")
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn authority() -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "test CA");
    let key = KeyPair::generate().expect("a key");
    let pem = params.self_signed(&key).expect("a certificate").pem();
    (Issuer::new(params, key), pem)
}
