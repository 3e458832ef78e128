//! TLS by rustls, without a socket.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::LayerError;

/// One client's end of a TLS connection.
pub struct Tls(ClientConnection);

fn error(what: impl std::fmt::Display) -> LayerError {
    LayerError(format!("TLS: {what}"))
}

impl Tls {
    pub fn new(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Tls, LayerError> {
        let mut connection = ClientConnection::new(config, name).map_err(error)?;
        // What is staged is bounded by the caller.
        connection.set_buffer_limit(None);
        Ok(Tls(connection))
    }

    pub fn is_ready(&self) -> bool {
        !self.0.is_handshaking()
    }

    pub fn receive(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), LayerError> {
        while !bytes.is_empty() {
            self.0.read_tls(&mut bytes).map_err(error)?;
            let state = self.0.process_new_packets().map_err(error)?;
            let before = plain.len();
            plain.resize(before + state.plaintext_bytes_to_read(), 0);
            self.0.reader().read_exact(&mut plain[before..]).map_err(error)?;
        }
        Ok(())
    }

    pub fn send(&mut self, plain: &[u8]) -> Result<(), LayerError> {
        self.0.writer().write_all(plain).map_err(error)
    }

    pub fn take_output(&mut self, raw: &mut Vec<u8>) -> Result<(), LayerError> {
        while self.0.wants_write() {
            self.0.write_tls(raw).map_err(error)?;
        }
        Ok(())
    }
}

/// Files of PEM that say whom to trust and who we are.
pub struct Files<'a> {
    pub ca: Option<&'a Path>,
    pub certificate: Option<&'a Path>,
    pub key: Option<&'a Path>,
    /// Accept any certificate.
    pub insecure: bool,
}

/// A configuration for all connections of a run; errors are sentences for the user.
pub fn client_config(files: &Files<'_>) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS: {e}"))?;
    let builder = match (files.ca, files.insecure) {
        (_, true) => builder.dangerous().with_custom_certificate_verifier(Arc::new(Gullible(algorithms))),
        (Some(path), false) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|e| format!("--cafile {}: {e}", path.display()))?;
            }
            builder.with_root_certificates(roots)
        }
        (None, false) => return Err("TLS needs --cafile, or --insecure to trust any certificate".into()),
    };
    let config = match (files.certificate, files.key) {
        (Some(certificate), Some(key)) => {
            let chain = certificates(certificate)?;
            let key =
                PrivateKeyDer::from_pem_file(key).map_err(|e| format!("--key {}: {e}", key.display()))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| format!("--cert and --key: {e}"))?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err("--cert and --key belong together".into()),
    };
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|e| format!("{}: {e}", path.display()))?.collect();
    let all = all.map_err(|e| format!("{}: {e}", path.display()))?;
    if all.is_empty() {
        return Err(format!("{} holds no certificate in PEM", path.display()));
    }
    Ok(all)
}

/// Trusts any certificate, but still checks that the peer holds its key.
#[derive(Debug)]
struct Gullible(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
