//! Why a handshake failed, in words for the log: the cause, and what to do about it where that is known.

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::clients::OldVersion;
use crate::log;

/// The first bytes of a connection that are kept until its handshake is over, to say what it speaks.
pub const HEAD_BYTES: usize = 12;
/// The first byte of every record that begins a handshake.
const HANDSHAKE_RECORD: u8 = 0x16;

/// What a peer says first.
#[derive(Copy, Clone, Default, Debug)]
pub(super) struct Head {
    bytes: [u8; HEAD_BYTES],
    have: usize,
}

impl Head {
    pub fn pass(&mut self, received: &[u8]) {
        let count = received.len().min(HEAD_BYTES - self.have);
        self.bytes[self.have..self.have + count].copy_from_slice(&received[..count]);
        self.have += count;
    }

    /// What was sent instead of TLS; `None` if it begins as TLS does.
    fn foreign(&self) -> Option<String> {
        let head = &self.bytes[..self.have];
        let begins = |words: &[&str]| words.iter().any(|word| head.starts_with(word.as_bytes()));
        let what = match head {
            [] | [HANDSHAKE_RECORD, ..] => return None,
            // Its length is one byte to four.
            [0x10, rest @ ..] if rest.windows(2).take(4).any(|pair| pair == [0, 4] || pair == [0, 6]) => {
                "this is MQTT without TLS, and the listener wants TLS; the client has to turn TLS on, or to use a plain port"
            }
            _ if begins(&["GET ", "POST ", "PUT ", "HEAD ", "OPTIONS ", "PRI "]) => {
                "this is HTTP without TLS, and the listener wants MQTT over TLS"
            }
            _ if begins(&["PROXY ", "\r\n\r\n\0\r\nQUIT"]) => {
                "this is the header of a PROXY protocol, which the listener does not take; turn it off in the proxy"
            }
            _ if begins(&["SSH-"]) => "this is SSH, and the listener wants MQTT over TLS",
            // SSL 2.0: two bytes of length, then a ClientHello.
            [0x80..=0xFF, _, 1, ..] => "this is SSL 2.0, and TLS 1.2 or 1.3 is wanted",
            _ => {
                let shown: Vec<String> = head.iter().map(|byte| format!("{byte:02x}")).collect();
                return Some(format!("this is not TLS; it begins with the bytes {}", shown.join(" ")));
            }
        };
        Some(what.to_owned())
    }
}

/// Why TLS ended with `error`, for a peer that began with `head`.
pub(super) fn why(error: &Error, head: &Head, was_handshaking: bool) -> String {
    if let (true, Some(foreign)) = (was_handshaking, head.foreign()) {
        return foreign;
    }
    match error {
        Error::NoCertificatesPresented => {
            "client shows no certificate, and this listener requires one".to_owned()
        }
        Error::InvalidCertificate(error) => certificate(error),
        Error::AlertReceived(alert) => alerted(*alert),
        Error::PeerIncompatible(what) => incompatible(what),
        other => other.to_string(),
    }
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("client certificate has expired on {}", log::day(not_after.as_secs()))
        }
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "client certificate is not valid before {}; see whether the clocks of both machines are right",
            log::day(not_before.as_secs())
        ),
        CertificateError::UnknownIssuer => {
            "client certificate is signed by none of the certificates in client-ca".to_owned()
        }
        CertificateError::BadSignature => "client certificate is not signed by the CA of client-ca that it names, but by \
                                           one of the same name, or the client does not hold its key"
            .to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "client certificate is not one for clients: its extendedKeyUsage lacks clientAuth".to_owned()
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "client certificate is signed with an algorithm that is not taken (such as SHA-1); sign it anew with SHA-256"
                .to_owned()
        }
        CertificateError::BadEncoding => "client certificate cannot be read".to_owned(),
        CertificateError::Other(other) => match other.0.downcast_ref::<OldVersion>() {
            Some(old) => old.to_string(),
            None => format!("client certificate: {}", other.0),
        },
        other => format!("client certificate: {other}"),
    }
}

fn alerted(alert: AlertDescription) -> String {
    let server = match alert {
        AlertDescription::UnknownCA => "client does not trust the CA of the server's certificate",
        AlertDescription::CertificateExpired => "client says that the server's certificate has expired",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRevoked => {
            "client refuses the server's certificate (its name, its version, or who signed it)"
        }
        AlertDescription::ProtocolVersion => "client takes neither TLS 1.2 nor 1.3",
        _ => "client ended TLS",
    };
    format!("{server} (alert {alert:?})")
}

fn incompatible(what: &PeerIncompatible) -> String {
    match what {
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled => "client offers neither TLS 1.2 nor 1.3".to_owned(),
        PeerIncompatible::NoCipherSuitesInCommon => {
            "client offers no cipher that is served: ECDHE with AES-GCM or ChaCha20-Poly1305".to_owned()
        }
        PeerIncompatible::NoKxGroupsInCommon => {
            "client offers no curve that is served: X25519, P-256 or P-384".to_owned()
        }
        PeerIncompatible::NoSignatureSchemesInCommon => {
            "client takes no signature that the server's key can make; a key of another kind (RSA or EC) may help".to_owned()
        }
        other => format!("client and server have no way in common: {other:?}"),
    }
}
