//! Whose certificates of clients are good.
//!
//! webpki decides about X.509 version 3. It refuses version 1, which `openssl x509 -req` makes of a request without
//! `-extfile`, and so do many guides. Version 1 has no extensions: it cannot say that its key may sign certificates, so
//! such a certificate is accepted for a client alone, never as a link of a chain. These hold for it:
//! - A certificate of the client CA file has signed it directly, with an algorithm that version 3 may have too; the
//!   issuer's name is that of the CA, byte by byte.
//! - It is valid now.
//! - Nothing stands outside of what was signed: no extension, no unique identifier, no byte behind it.
//! - The CA limits no names, since a certificate without names would escape that.
//! - The client has proved in the handshake that it holds the key.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerMisbehaved,
    RootCertStore, SignatureScheme,
};

use crate::transport::x509::{self, Certificate};

/// Why a certificate is refused that webpki would not even read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct OldVersion(pub &'static str);

impl std::fmt::Display for OldVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for OldVersion {}

const NOT_DIRECT: &str = "client certificate is X.509 version 1, which is taken only where a certificate of client-ca has \
                          signed it directly; make it version 3: openssl x509 -req ... -extfile client.ext";
const NAMES_LIMITED: &str = "client certificate is X.509 version 1, and its CA limits names (nameConstraints), which \
                             version 1 cannot obey; make it version 3: openssl x509 -req ... -extfile client.ext";
const NOT_BARE: &str = "client certificate is X.509 version 1 with fields that version 1 does not have; make it \
                        version 3: openssl x509 -req ... -extfile client.ext";
const VERSION_2: &str = "client certificate is X.509 version 2, which is not taken; make it version 3: openssl x509 \
                         -req ... -extfile client.ext";

fn old(why: &'static str) -> Error {
    CertificateError::Other(OtherError(Arc::new(OldVersion(why)))).into()
}

/// webpki's verifier, with version 1 in front of it.
#[derive(Debug)]
pub(super) struct Verifier {
    webpki: Arc<dyn ClientCertVerifier>,
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// `webpki` trusts the same roots.
    pub fn new(
        webpki: Arc<dyn ClientCertVerifier>,
        roots: Arc<RootCertStore>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Verifier {
        Verifier { webpki, roots, algorithms }
    }

    fn verify_version_1(&self, certificate: &Certificate<'_>, now: UnixTime) -> Result<(), Error> {
        if !certificate.is_bare {
            return Err(old(NOT_BARE));
        }
        let mut signers = self.roots.roots.iter().filter(|root| root.subject.as_ref() == certificate.issuer);
        let mut outcome = Err(old(NOT_DIRECT));
        let signed = signers.any(|root| {
            outcome = match root.name_constraints {
                Some(_) => Err(old(NAMES_LIMITED)),
                None => self.verify_signature(certificate, root.subject_public_key_info.as_ref()),
            };
            outcome.is_ok()
        });
        if !signed {
            return outcome;
        }
        let (time, not_before_s, not_after_s) = (now, certificate.not_before_s, certificate.not_after_s);
        if now.as_secs() < not_before_s {
            let not_before = UnixTime::since_unix_epoch(std::time::Duration::from_secs(not_before_s));
            return Err(CertificateError::NotValidYetContext { time, not_before }.into());
        }
        if now.as_secs() > not_after_s {
            let not_after = UnixTime::since_unix_epoch(std::time::Duration::from_secs(not_after_s));
            return Err(CertificateError::ExpiredContext { time, not_after }.into());
        }
        Ok(())
    }

    /// Whether the key in `signer`, the contents of a SubjectPublicKeyInfo, has signed the certificate.
    fn verify_signature(&self, certificate: &Certificate<'_>, signer: &[u8]) -> Result<(), Error> {
        let signed = &certificate.signed;
        let (key_algorithm, key) = x509::key_parts(signer).ok_or(CertificateError::BadEncoding)?;
        if !signed.algorithms_agree {
            return Err(CertificateError::BadEncoding.into());
        }
        let unsupported = || {
            Error::from(CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
                signature_algorithm_id: signed.algorithm.to_vec(),
                public_key_algorithm_id: key_algorithm.to_vec(),
            })
        };
        let fitting = self.algorithms.all.iter().find(|algorithm| {
            algorithm.signature_alg_id().as_ref() == signed.algorithm
                && algorithm.public_key_alg_id().as_ref() == key_algorithm
        });
        fitting
            .ok_or_else(unsupported)?
            .verify_signature(key, signed.bytes, signed.signature)
            .map_err(|_| CertificateError::BadSignature.into())
    }
}

/// The certificate, if it is of version 1.
fn version_1<'a>(der: &'a CertificateDer<'_>) -> Option<Certificate<'a>> {
    Certificate::parse(der).filter(|certificate| certificate.version == 1)
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        self.webpki.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.webpki.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match Certificate::parse(end_entity) {
            Some(certificate) if certificate.version == 1 => {
                self.verify_version_1(&certificate, now).map(|()| ClientCertVerified::assertion())
            }
            Some(certificate) if certificate.version == 2 => Err(old(VERSION_2)),
            Some(_) | None => self.webpki.verify_client_cert(end_entity, intermediates, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let Some(old) = version_1(certificate) else {
            return self.webpki.verify_tls12_signature(message, certificate, signature);
        };
        let (key_algorithm, key) =
            x509::sequence(old.public_key).and_then(x509::key_parts).ok_or(CertificateError::BadEncoding)?;
        let (_, algorithms) = self
            .algorithms
            .mapping
            .iter()
            .find(|(scheme, _)| *scheme == signature.scheme)
            .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        // In TLS 1.2 the scheme does not say which curve: that of the key counts.
        algorithms
            .iter()
            .find(|algorithm| algorithm.public_key_alg_id().as_ref() == key_algorithm)
            .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?
            .verify_signature(key, message, signature.signature())
            .map_err(|_| CertificateError::BadSignature)?;
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match version_1(certificate) {
            None => self.webpki.verify_tls13_signature(message, certificate, signature),
            Some(old) => {
                let key = SubjectPublicKeyInfoDer::from(old.public_key);
                verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
            }
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}
