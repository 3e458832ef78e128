//! Flags about TLS.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::address::Place;
use super::commands::Unfit;
use crate::transport::tls::{CertificateUser, ClientCertificates, Settings};

#[derive(Args, Debug)]
#[command(next_help_heading = "TLS")]
pub(super) struct TlsFlags {
    /// Address and port to listen on for MQTT over TLS 1.2 and 1.3; may be given several times
    #[arg(long, value_name = "ADDR:PORT", requires_all = ["tls_cert", "tls_key"])]
    tls_listen: Vec<Place>,

    /// The server's certificate, then those that sign it (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    tls_cert: Option<PathBuf>,

    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    tls_key: Option<PathBuf>,

    /// The certificates that sign those of clients (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    tls_client_ca: Option<PathBuf>,

    /// Whether clients show certificates [default: required with --tls-client-ca, else none]
    #[arg(long, value_enum, value_name = "WHETHER", requires = "tls_listen")]
    tls_client_cert: Option<ClientCertFlag>,

    /// What of a client's certificate is its user name [default: common-name]
    #[arg(long, value_enum, value_name = "WHAT", requires = "tls_listen")]
    tls_client_user: Option<ClientUserFlag>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ClientCertFlag {
    /// They are not asked
    None,
    /// One that is shown must be good
    Optional,
    /// Without one there is no connection
    Required,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ClientUserFlag {
    /// The Common Name, if there is exactly one
    CommonName,
    /// The whole subject, such as CN=sensor-1,O=Acme
    Subject,
}

impl From<ClientUserFlag> for CertificateUser {
    fn from(flag: ClientUserFlag) -> CertificateUser {
        match flag {
            ClientUserFlag::CommonName => CertificateUser::CommonName,
            ClientUserFlag::Subject => CertificateUser::Subject,
        }
    }
}

/// What does not go together.
pub(super) enum Mismatch {
    /// Certificates of clients are not asked for, and there is somebody who signs them.
    OfNoUse,
    /// They are asked for, and nobody signs them.
    CaMissing,
}

/// Whether clients show certificates: they have to where somebody signs them, unless it is said otherwise.
pub(super) fn clients(
    whether: Option<ClientCertFlag>,
    ca: Option<PathBuf>,
) -> Result<ClientCertificates, Mismatch> {
    let default = if ca.is_some() { ClientCertFlag::Required } else { ClientCertFlag::None };
    match (whether.unwrap_or(default), ca) {
        (ClientCertFlag::None, None) => Ok(ClientCertificates::None),
        (ClientCertFlag::Optional, Some(ca)) => Ok(ClientCertificates::Optional { ca }),
        (ClientCertFlag::Required, Some(ca)) => Ok(ClientCertificates::Required { ca }),
        (ClientCertFlag::None, Some(_)) => Err(Mismatch::OfNoUse),
        (ClientCertFlag::Optional | ClientCertFlag::Required, None) => Err(Mismatch::CaMissing),
    }
}

/// The flags, checked against each other: addresses and what is behind them; `None` if there is no TLS.
pub(super) fn tls(flags: &TlsFlags) -> Result<Option<(&[Place], Settings)>, Unfit> {
    let (Some(certificate), Some(key)) = (&flags.tls_cert, &flags.tls_key) else { return Ok(None) };
    let clients =
        clients(flags.tls_client_cert, flags.tls_client_ca.clone()).map_err(|mismatch| match mismatch {
            Mismatch::OfNoUse => {
                Unfit { setting: "tls-client-ca", what: "of no use with --tls-client-cert none".to_owned() }
            }
            Mismatch::CaMissing => Unfit {
                setting: "tls-client-cert",
                what: "needs those who sign certificates of clients: --tls-client-ca FILE".to_owned(),
            },
        })?;
    let user = flags.tls_client_user.unwrap_or(ClientUserFlag::CommonName).into();
    let settings = Settings { certificate: certificate.clone(), key: key.clone(), clients, user };
    Ok(Some((&flags.tls_listen, settings)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{parse, refused};
    use super::*;

    #[test]
    fn tls_replaces_the_default_address_and_a_certificate_stands_for_a_user() {
        let line = "--tls-listen 0.0.0.0:8883 --tls-cert c --tls-key k";
        assert!(refused(line).contains("0.0.0.0:8883"), "anybody could connect");
        assert!(parse(&format!("{line} --allow-anonymous")).listeners[0].tls.is_some());
        let config = parse(&format!("{line} --tls-client-ca a --tls-client-user subject"));
        let settings = Settings {
            certificate: "c".into(),
            key: "k".into(),
            clients: ClientCertificates::Required { ca: "a".into() },
            user: CertificateUser::Subject,
        };
        let [listener] = &config.listeners[..] else { panic!("{config:?}") };
        assert_eq!((listener.address.to_string().as_str(), &listener.tls), ("0.0.0.0:8883", &Some(settings)));
        assert!(refused(&format!("{line} --tls-client-ca a --tls-client-cert optional")).contains("0.0.0.0"));
        let config = parse(
            "--listen 127.0.0.1:0 --tls-listen 127.0.0.1:0 --tls-cert c --tls-key k --tls-client-ca a \
             --tls-client-cert optional",
        );
        let [plain, secure] = &config.listeners[..] else { panic!("{config:?}") };
        assert_eq!(plain.tls, None);
        let clients = &secure.tls.as_ref().unwrap().clients;
        assert_eq!(*clients, ClientCertificates::Optional { ca: "a".into() });
    }
}
