//! Both ends of TLS for a shard over the kernel that stands still: a listener, and clients in
//! memory.
//!
//! Keys are new in each process, so the bytes on the wire differ from one run to the next. Their
//! number does not: TLS 1.3 with one cipher and certificates of one kind.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use ringmq::transport::Layers;
use ringmq::transport::tls::{CertificateUser, ClientCertificates, Settings, TlsAcceptor};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// The server's side.
pub(crate) struct Server {
    acceptor: Arc<TlsAcceptor>,
    /// Trusts the server's certificate.
    config: Arc<ClientConfig>,
}

impl Server {
    pub fn new() -> Server {
        let root = std::env::temp_dir().join(format!("ringmq-bench-{}", std::process::id()));
        std::fs::create_dir_all(&root).expect("a directory for the certificate");
        let (path, trusted) = certificate(&root);
        let settings = Settings {
            certificate: path.with_extension("pem"),
            key: path.with_extension("key"),
            key_password: None,
            record_size_max: None,
            clients: ClientCertificates::None,
            user: CertificateUser::CommonName,
        };
        let acceptor = Arc::new(TlsAcceptor::new(settings).expect("the certificate was just made"));
        let _ = std::fs::remove_dir_all(&root);
        let mut roots = RootCertStore::empty();
        roots.add(trusted).expect("a certificate");
        let provider = rustls::crypto::CryptoProvider {
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
            ..aws_lc_rs::default_provider()
        };
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Server { acceptor, config: Arc::new(config) }
    }

    pub fn layers(&self) -> Layers {
        Layers::new([Arc::clone(&self.acceptor) as _])
    }

    pub fn client(&self) -> Client {
        let name = ServerName::try_from("localhost").expect("a name");
        let mut connection = ClientConnection::new(Arc::clone(&self.config), name).expect("a client");
        connection.set_buffer_limit(None);
        Client(connection)
    }
}

/// A certificate that signs itself, in `server.pem` and `server.key` under `root`; returns their
/// path and the certificate.
fn certificate(root: &std::path::Path) -> (PathBuf, CertificateDer<'static>) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let signed = params.self_signed(&key).expect("a certificate");
    let path = root.join("server");
    std::fs::write(path.with_extension("pem"), signed.pem()).expect("room for the certificate");
    std::fs::write(path.with_extension("key"), key.serialize_pem()).expect("room for the key");
    (path, signed.der().clone())
}

/// One client's side.
pub(crate) struct Client(ClientConnection);

impl Client {
    /// What goes to the wire: `plain`, behind what the handshake has to say.
    pub fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        self.0.writer().write_all(plain).expect("no limit");
        let mut wire = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut wire).expect("into a vector");
        }
        wire
    }

    /// What the server says.
    pub fn open(&mut self, mut wire: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        while !wire.is_empty() {
            self.0.read_tls(&mut wire).expect("from a slice");
            let state = self.0.process_new_packets().expect("the server keeps to TLS");
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            self.0.reader().read_exact(&mut plain[start..]).expect("that many bytes");
        }
        plain
    }
}
