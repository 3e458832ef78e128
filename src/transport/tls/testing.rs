//! Certificates made on the spot, and the client's end of TLS, for tests.

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use super::*;
use crate::memory::OutBatch;

/// A directory with certificates, removed at the end.
pub struct Certificates {
    pub root: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// What a client shows.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Shows<'a> {
    Nothing,
    /// A certificate of this name, made before.
    Certificate(&'a str),
}

impl Certificates {
    /// A CA, in `ca.pem`, and a server certificate for `localhost`, in `server.pem` and `server.key`.
    pub fn new(name: &str) -> Certificates {
        let root = std::env::temp_dir().join(format!("ringmq-tls-{}-{name}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("ca of {name}"));
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap();
        fs::write(root.join("ca.pem"), ca.pem()).unwrap();
        let certificates = Certificates { root, issuer: Issuer::new(params, key) };
        certificates.sign("server", 2040);
        certificates
    }

    /// A certificate for both uses that ends with `year`, in `NAME.pem` and `NAME.key`.
    pub fn sign(&self, name: &str, year: i32) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Acme");
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.root.join(format!("{name}.pem")), signed.pem()).unwrap();
        fs::write(self.root.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.root.join(file)
    }

    pub fn settings(&self, clients: ClientCertificates) -> Settings {
        Settings {
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            key_password: None,
            record_size_max: None,
            clients,
            user: CertificateUser::CommonName,
        }
    }

    pub fn acceptor(&self, clients: ClientCertificates) -> Arc<TlsAcceptor> {
        Arc::new(TlsAcceptor::new(self.settings(clients)).unwrap())
    }

    /// What a client needs that trusts this CA; kept from one connection to the next, it resumes.
    pub fn client(&self, version: &'static SupportedProtocolVersion, shows: Shows) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let config = match shows {
            Shows::Nothing => builder.with_no_client_auth(),
            Shows::Certificate(name) => {
                let chain = CertificateDer::from_pem_file(self.path(&format!("{name}.pem"))).unwrap();
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(vec![chain], key).unwrap()
            }
        };
        Arc::new(config)
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Both ends of a connection, without sockets.
pub struct Pair {
    pub server: Box<dyn Layer>,
    pub client: ClientConnection,
    /// What the server's stream has received.
    pub heard: Vec<u8>,
}

impl Pair {
    pub fn new(acceptor: &TlsAcceptor, client: &Arc<ClientConfig>) -> Pair {
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
        client.set_buffer_limit(None);
        Pair { server: acceptor.accept().unwrap(), client, heard: Vec::new() }
    }

    /// What the client has to send.
    pub fn from_client(&mut self) -> Vec<u8> {
        from_client(&mut self.client)
    }

    /// What the server has to send, with `plain` behind it.
    pub fn from_server(&mut self, plain: &[u8]) -> Vec<u8> {
        write(&mut *self.server, OutBatch::from(plain.to_vec()), Last::No)
    }

    /// The client takes wire bytes; what its stream says, or the error.
    pub fn to_client(&mut self, wire: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        to_client(&mut self.client, wire)
    }

    /// Moves bytes in pieces of `step` both ways until nobody has anything to say.
    pub fn run(&mut self, step: usize) -> Fed {
        loop {
            let wire = self.from_client();
            for piece in wire.chunks(step) {
                match self.server.feed(piece, &mut self.heard) {
                    Fed::Open => {}
                    over => return over,
                }
            }
            let back = self.from_server(b"");
            if wire.is_empty() && back.is_empty() {
                return Fed::Open;
            }
            if let Err(error) = self.to_client(&back) {
                return Fed::Failed(format!("the client: {error}").into());
            }
        }
    }

    pub fn say(&mut self, plain: &[u8]) {
        self.client.writer().write_all(plain).unwrap();
    }
}

/// What the server's end makes of a batch.
pub fn write(server: &mut dyn Layer, batch: OutBatch, last: Last) -> Vec<u8> {
    server.write(batch, last, &mut Vec::new()).pieces().flatten().copied().collect()
}

/// What a client has to send.
pub fn from_client(client: &mut ClientConnection) -> Vec<u8> {
    let mut wire = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut wire).unwrap();
    }
    wire
}

/// A client takes wire bytes; what its stream says, or the error.
pub fn to_client(client: &mut ClientConnection, wire: &[u8]) -> Result<Vec<u8>, rustls::Error> {
    let mut rest = wire;
    let mut plain = Vec::new();
    while !rest.is_empty() {
        client.read_tls(&mut rest).unwrap();
        let state = client.process_new_packets()?;
        let start = plain.len();
        plain.resize(start + state.plaintext_bytes_to_read(), 0);
        client.reader().read_exact(&mut plain[start..]).unwrap();
        if state.peer_has_closed() {
            break;
        }
    }
    Ok(plain)
}
