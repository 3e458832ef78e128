//! Flags about TLS.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::address::Place;
use super::commands::Unfit;
use super::limits::size;
use super::size::Size;
use crate::transport::tls::{CertificateUser, ClientCertificates, RECORD_SIZE, Settings};

#[derive(Args, Debug)]
#[command(next_help_heading = "TLS")]
pub(super) struct TlsFlags {
    /// Address and port to listen on for MQTT over TLS 1.2 and 1.3; may be given several times
    #[arg(long, value_name = "ADDR:PORT", requires_all = ["tls_cert", "tls_key"])]
    tls_listen: Vec<Place>,

    /// The server's certificate, then those that sign it (PEM, or DER for it alone)
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    tls_cert: Option<PathBuf>,

    /// Its private key (PEM or DER)
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    tls_key: Option<PathBuf>,

    /// A file whose first line is the password of the private key, if that is encrypted
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    tls_key_password_file: Option<PathBuf>,

    /// The certificates that sign those of clients (PEM or DER)
    #[arg(long, value_name = "FILE", requires = "tls_listen")]
    tls_client_ca: Option<PathBuf>,

    /// Whether clients have to show certificates [default: required with --tls-client-ca, else
    /// none]
    #[arg(long, value_enum, value_name = "WHETHER", requires = "tls_listen")]
    tls_client_cert: Option<ClientCertFlag>,

    /// Which part of a client's certificate is its user name [default: common-name]
    #[arg(long, value_enum, value_name = "WHAT", requires = "tls_listen")]
    tls_client_user: Option<ClientUserFlag>,

    /// Largest payload of one TLS record to a client, 512 to 16k [default: 16k]
    ///
    /// For devices that have no room for large records, such as those that ask for
    /// max_fragment_length. Smaller records cost CPU time.
    #[arg(long, value_name = "BYTES", requires = "tls_listen")]
    tls_record_size_max: Option<Size>,
}

/// Bytes of a record as they were asked for.
pub(super) fn record_size(setting: &'static str, asked: Option<Size>) -> Result<Option<u16>, Unfit> {
    let (min, max) = (u64::from(*RECORD_SIZE.start()), u64::from(*RECORD_SIZE.end()));
    asked.map(|asked| size(setting, asked, min, max).map(|bytes| bytes as u16)).transpose()
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ClientCertFlag {
    /// Clients are not asked for one
    None,
    /// A client may show one; it must be valid then
    Optional,
    /// A client without a valid one is refused
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

/// Whether clients show certificates: they have to where somebody signs them, unless it is said
/// otherwise.
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

/// The flags, checked against each other: addresses and what is behind them; `None` if there is no
/// TLS.
pub(super) fn tls(flags: &TlsFlags) -> Result<Option<(&[Place], Settings)>, Unfit> {
    let (Some(certificate), Some(key)) = (&flags.tls_cert, &flags.tls_key) else { return Ok(None) };
    let clients =
        clients(flags.tls_client_cert, flags.tls_client_ca.clone()).map_err(|mismatch| match mismatch {
            Mismatch::OfNoUse => Unfit {
                setting: "tls-client-ca",
                what: "no effect with --tls-client-cert none; remove one of them".to_owned(),
            },
            Mismatch::CaMissing => Unfit {
                setting: "tls-client-cert",
                what: "needs the CA that signs the clients' certificates: add --tls-client-ca FILE"
                    .to_owned(),
            },
        })?;
    let user = flags.tls_client_user.unwrap_or(ClientUserFlag::CommonName).into();
    let settings = Settings {
        certificate: certificate.clone(),
        key: key.clone(),
        key_password: flags.tls_key_password_file.clone(),
        record_size_max: record_size("tls-record-size-max", flags.tls_record_size_max)?,
        clients,
        user,
    };
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
        let config = parse(&format!(
            "{line} --tls-client-ca a --tls-client-user subject --tls-key-password-file p \
             --tls-record-size-max 1k"
        ));
        let settings = Settings {
            certificate: "c".into(),
            key: "k".into(),
            key_password: Some("p".into()),
            record_size_max: Some(1024),
            clients: ClientCertificates::Required { ca: "a".into() },
            user: CertificateUser::Subject,
        };
        let [listener] = &config.listeners[..] else { panic!("{config:?}") };
        assert_eq!((listener.address.to_string().as_str(), &listener.tls), ("0.0.0.0:8883", &Some(settings)));
        assert!(refused(&format!("{line} --tls-client-ca a --tls-client-cert optional")).contains("0.0.0.0"));
        for size in ["511", "17k"] {
            assert!(refused(&format!("{line} --tls-record-size-max {size}")).contains("between 512 and 16k"));
        }
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
