//! From PEM files to a server configuration.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use crate::transport::Expiry;
use crate::transport::x509::Certificate;

/// A ticket costs bytes and time; a client that resumes gets the next one then.
const TICKETS_PER_HANDSHAKE: usize = 1;

/// What a TLS listener is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The server's certificate, then those that sign it, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    pub clients: ClientCertificates,
    pub user: CertificateUser,
}

/// Whether clients show certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked.
    None,
    /// One that is shown must be signed by these CAs (a PEM file); none is accepted too.
    Optional { ca: PathBuf },
    /// Without one that is signed by these CAs the handshake fails.
    Required { ca: PathBuf },
}

impl ClientCertificates {
    /// Whether clients are asked at all.
    pub fn is_asked(&self) -> bool {
        match self {
            ClientCertificates::None => false,
            ClientCertificates::Optional { .. } | ClientCertificates::Required { .. } => true,
        }
    }

    pub fn is_required(&self) -> bool {
        match self {
            ClientCertificates::None | ClientCertificates::Optional { .. } => false,
            ClientCertificates::Required { .. } => true,
        }
    }
}

/// What of a client's certificate is its user name.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
pub enum CertificateUser {
    /// The Common Name, if there is exactly one.
    #[default]
    CommonName,
    /// The whole subject as RFC 4514 writes it: `CN=sensor-1,O=Acme`.
    Subject,
}

/// Files that were read and found good.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub(super) config: Arc<ServerConfig>,
    pub(super) expiry: Expiry,
}

/// Why a file cannot be used.
#[derive(Debug)]
pub struct LoadError {
    pub path: PathBuf,
    pub why: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.why)
    }
}

impl std::error::Error for LoadError {}

impl LoadError {
    fn new(path: &Path, why: impl fmt::Display) -> LoadError {
        LoadError { path: path.to_owned(), why: why.to_string() }
    }

    fn pem(path: &Path, error: &pem::Error, what: &str) -> LoadError {
        let why = match error {
            pem::Error::Io(error) => error.to_string(),
            pem::Error::NoItemsFound => format!("no {what} in this file"),
            other => format!("not PEM: {other}"),
        };
        LoadError::new(path, why)
    }
}

impl Loaded {
    /// Reads and checks all files of a listener.
    ///
    /// # Errors
    /// The first file that cannot be used: unreadable, not PEM, a key of another certificate, no CA.
    pub(super) fn load(settings: &Settings) -> Result<Loaded, LoadError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = certificates(&settings.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&settings.key)
            .map_err(|error| LoadError::pem(&settings.key, &error, "private key"))?;
        let certificate_at_s = expiry(&settings.certificate, &chain)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| LoadError::new(&settings.certificate, error))?;
        let client_ca_at_s = match &settings.clients {
            ClientCertificates::None => None,
            ClientCertificates::Optional { ca } | ClientCertificates::Required { ca } => {
                Some(expiry(ca, &certificates(ca)?)?)
            }
        };
        let builder = match &settings.clients {
            ClientCertificates::None => builder.with_no_client_auth(),
            ClientCertificates::Optional { ca } => {
                let verifier = verifier(ca, &provider)?.allow_unauthenticated().build();
                builder.with_client_cert_verifier(verifier.map_err(|error| LoadError::new(ca, error))?)
            }
            ClientCertificates::Required { ca } => {
                let verifier = verifier(ca, &provider)?.build();
                builder.with_client_cert_verifier(verifier.map_err(|error| LoadError::new(ca, error))?)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                LoadError::new(&settings.key, format!("not the key of {}", settings.certificate.display()))
            }
            error => LoadError::new(&settings.key, error),
        })?;
        config.ticketer =
            aws_lc_rs::Ticketer::new().map_err(|error| LoadError::new(&settings.certificate, error))?;
        config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
        // Tickets carry all there is to resume. A store would be a lock that all shards share.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let expiry = Expiry { certificate_at_s, client_ca_at_s };
        Ok(Loaded { config: Arc::new(config), expiry })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let failed = |error| LoadError::pem(path, &error, "certificate");
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    if chain.is_empty() {
        Err(LoadError::pem(path, &pem::Error::NoItemsFound, "certificate"))
    } else {
        Ok(chain)
    }
}

fn expiry(path: &Path, chain: &[CertificateDer<'_>]) -> Result<u64, LoadError> {
    let mut first = u64::MAX;
    for der in chain {
        let certificate = Certificate::parse(der)
            .ok_or_else(|| LoadError::new(path, "a certificate that cannot be read"))?;
        first = first.min(certificate.not_after_s);
    }
    Ok(first)
}

fn verifier(
    ca: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<rustls::server::ClientCertVerifierBuilder, LoadError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|error| LoadError::new(ca, error))?;
    }
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)))
}
