//! From files to a server configuration, and how long what is in them is valid.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};

use super::clients::Verifier;
use super::files::{self, LoadError};
use super::validity::{Role, Validity};
use crate::transport::x509::Certificate;

/// A ticket costs bytes and time; a client that resumes gets the next one then.
const TICKETS_PER_HANDSHAKE: usize = 1;

/// The header of a record, which rustls counts as a part of it.
const RECORD_HEADER_BYTES: usize = 5;
/// Bytes that a record may be told to carry at most: from the smallest that RFC 6066 knows to the largest of TLS.
pub const RECORD_SIZE: std::ops::RangeInclusive<u16> = 512..=16_384;

/// What a TLS listener is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The server's certificate, then those that sign it, in PEM; or it alone, in DER.
    pub certificate: PathBuf,
    /// Its private key, in PEM or DER: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// A file whose first line is the password of an encrypted key.
    pub key_password: Option<PathBuf>,
    /// Bytes of the stream that one record carries at most, within [`RECORD_SIZE`]; `None` for as many as TLS allows.
    pub record_size_max: Option<u16>,
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
    pub(super) validity: Arc<[Validity]>,
}

impl Loaded {
    /// Reads and checks all files of a listener.
    ///
    /// # Errors
    /// The first file that cannot be used: unreadable, no certificate, an encrypted key, a key of another certificate.
    pub(super) fn load(settings: &Settings) -> Result<Loaded, LoadError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = files::certificates(&settings.certificate)?;
        let key = files::private_key(&settings.key, settings.key_password.as_deref())?;
        let key = signing_key(settings, &provider, key)?;
        fit(settings, &chain, &*key)?;
        let mut validity = validities(&settings.certificate, Role::Server, &chain);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| LoadError::new(&settings.certificate, error))?;
        let builder = match &settings.clients {
            ClientCertificates::None => builder.with_no_client_auth(),
            ClientCertificates::Optional { ca } | ClientCertificates::Required { ca } => {
                let signers = files::certificates(ca)?;
                validity.extend(validities(ca, Role::ClientCa, &signers));
                let verifier = verifier(ca, signers, settings.clients.is_required(), &provider)?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        // Not by `with_single_cert`, which reads the certificate as a client would and so refuses version 1.
        let resolver = SingleCertAndKey::from(CertifiedKey::new(chain, key));
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.ticketer =
            aws_lc_rs::Ticketer::new().map_err(|error| LoadError::new(&settings.certificate, error))?;
        config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
        // Tickets carry all there is to resume. A store would be a lock that all shards share.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_fragment_size =
            settings.record_size_max.map(|content| usize::from(content) + RECORD_HEADER_BYTES);
        Ok(Loaded { config: Arc::new(config), validity: validity.into() })
    }
}

fn signing_key(
    settings: &Settings,
    provider: &CryptoProvider,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<dyn SigningKey>, LoadError> {
    provider.key_provider.load_private_key(key).map_err(|error| {
        let what = format!(
            "not a key that TLS can use; RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, and Ed25519 are ({error})"
        );
        LoadError::new(&settings.key, what)
    })
}

/// Whether the key is that of the first certificate.
fn fit(settings: &Settings, chain: &[CertificateDer<'_>], key: &dyn SigningKey) -> Result<(), LoadError> {
    let Some(public_key) = key.public_key() else { return Ok(()) };
    let is_its_own = |der: &CertificateDer<'_>| {
        Certificate::parse(der).is_some_and(|certificate| certificate.public_key == public_key.as_ref())
    };
    let (certificate, key) = (settings.certificate.display(), settings.key.display());
    match chain.iter().position(is_its_own) {
        Some(0) => Ok(()),
        Some(at) => {
            let what = format!(
                "the key in {key} is that of certificate {} of this file; the server's certificate has to be the first",
                at + 1
            );
            Err(LoadError::new(&settings.certificate, what))
        }
        None => {
            let what = format!(
                "not the key of {certificate}. Their public keys are the same if they go together: openssl x509 -in \
                 {certificate} -noout -pubkey; openssl pkey -in {key} -pubout"
            );
            Err(LoadError::new(&settings.key, what))
        }
    }
}

fn validities(path: &Path, role: Role, chain: &[CertificateDer<'_>]) -> Vec<Validity> {
    let path: Arc<Path> = path.into();
    let parsed = chain.iter().filter_map(|der| Certificate::parse(der));
    parsed.map(|certificate| Validity::of(&certificate, role, Arc::clone(&path))).collect()
}

pub(super) fn verifier(
    ca: &Path,
    signers: Vec<CertificateDer<'static>>,
    is_required: bool,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, LoadError> {
    let mut roots = RootCertStore::empty();
    for (at, certificate) in signers.into_iter().enumerate() {
        roots
            .add(certificate)
            .map_err(|error| LoadError::new(ca, format!("certificate {} of this file: {error}", at + 1)))?;
    }
    let roots = Arc::new(roots);
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider));
    let builder = if is_required { builder } else { builder.allow_unauthenticated() };
    let webpki = builder.build().map_err(|error| LoadError::new(ca, error))?;
    Ok(Arc::new(Verifier::new(webpki, roots, provider.signature_verification_algorithms)))
}
