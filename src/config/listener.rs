//! Listeners: `[[listener]]` tables of the file, or `--listen` and `--tls-listen`, to what is
//! behind each address.
//!
//! A listener of the file has certificates, limits and access rules of its own; what it leaves out
//! is as for the whole broker. `--listen` and `--tls-listen` on the command line replace all
//! listeners of the file; any other flag replaces the key of its name in each of them, so that a
//! flag always holds.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{CommandFactory, Parser, ValueEnum};

use super::access::ClientIdsFlag;
use super::address::Place as Where;
use super::commands::Unfit;
use super::file::{self, Listener, Place};
use super::flags::{self, Flags};
use super::limits::{PACKET_SIZE_MAX, PACKET_SIZE_MIN, size};
use super::size::Size;
use super::span::Span;
use super::tls::{self, ClientCertFlag, ClientUserFlag};
use super::{Config, ConfigError, ListenerConfig, Sources};
use crate::access::{Anonymous, Door, Settings as AccessSettings};
use crate::io::machine::Machine;
use crate::limits::{Limits, ListenerLimits};
use crate::transport::tls::Settings as TlsSettings;

/// Flags that stand for listeners, and so for all of those in the file.
pub(super) const REPLACING: [&str; 2] = ["listen", "tls-listen"];
/// What is served where nothing else was said.
pub(super) const DEFAULT: Where = Where::Localhost(1883);
const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);
/// Of the whole broker and of a listener, both of which hold.
const BOTH_HOLD: &str = "connections-max";

/// The keys of a `[[listener]]`, as flags, so that each has one parser, one help and one name.
#[derive(Parser, Debug)]
#[command(name = "[[listener]]", no_binary_name = true, disable_help_flag = true)]
pub(super) struct ListenerKeys {
    /// Address and port, as --listen takes them; the only key that has to be there
    #[arg(long, value_name = "ADDR:PORT")]
    address: Option<Where>,
    /// tcp or tls; tls where there is a certificate
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// The certificate, then those that sign it (PEM, or DER for it alone)
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its private key (PEM or DER); if left out, it is read from the file of the certificate
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// A file whose first line is the password of an encrypted key
    #[arg(long, value_name = "FILE")]
    key_password_file: Option<PathBuf>,
    /// The certificates that sign those of clients (PEM or DER)
    #[arg(long, value_name = "FILE")]
    client_ca: Option<PathBuf>,
    /// none, optional or required; required where there is a client-ca
    #[arg(long, value_enum)]
    client_cert: Option<ClientCertFlag>,
    /// Which part of a client's certificate is its user name: common-name or subject
    #[arg(long, value_enum)]
    client_user: Option<ClientUserFlag>,
    /// Largest payload of one TLS record to a client, 512 to 16k; 16k if left out
    #[arg(long, value_name = "BYTES")]
    record_size_max: Option<Size>,
    /// Whether clients without a user name are let in; if left out, only at loopback and without
    /// users
    #[arg(long)]
    allow_anonymous: Option<bool>,
    /// As the flag, for this listener; names of several files are names of the same users
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// As the flag, for clients that connected here last
    #[arg(long, value_name = "FILE")]
    acl_file: Option<PathBuf>,
    /// As the flag
    #[arg(long, value_enum)]
    client_ids: Option<ClientIdsFlag>,
    /// Connections of this listener; the limit of the whole broker applies too
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    connections_max: Option<u32>,
    /// As the flag
    #[arg(long, value_name = "TIME", value_parser = flags::connect_timeout())]
    connect_timeout: Option<Span>,
    /// As the flag
    #[arg(long, value_name = "BYTES")]
    connect_packet_size_max: Option<Size>,
    /// As the flag
    #[arg(long, value_name = "BYTES")]
    packet_size_max: Option<Size>,
    /// As the flag
    #[arg(long, value_name = "TIME", value_parser = flags::keep_alive_max())]
    keep_alive_max: Option<Span>,
    /// As the flag
    #[arg(long, value_name = "TIME", value_parser = flags::session_expiry_max())]
    session_expiry_max: Option<Span>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// MQTT over TCP
    Tcp,
    /// MQTT over TLS 1.2 and 1.3
    Tls,
}

/// One listener as it was asked for, at one of its addresses.
#[derive(Clone)]
struct Asked {
    address: SocketAddr,
    /// The address in front of it was asked for by the same word.
    is_second: bool,
    tls: Option<TlsSettings>,
    allow_anonymous: Option<bool>,
    password_file: Option<PathBuf>,
    acl_file: Option<PathBuf>,
    client_ids: ClientIdsFlag,
    limits: ListenerLimits,
    /// Where it stands in the file, if it does.
    at: Option<Place>,
}

/// Whether a listener lets anonymous clients in.
enum Open {
    Yes,
    No,
    /// The network can reach it, and no setting says that everybody may come in.
    Unsaid,
    /// Anonymous clients are refused, and there is no other way to come in.
    Nobody,
}

impl Asked {
    /// Whether clients of this listener can be users.
    fn knows_users(&self) -> bool {
        self.password_file.is_some() || self.tls.as_ref().is_some_and(|tls| tls.clients.is_asked())
    }

    fn open(&self) -> Open {
        let has_users = self.password_file.is_some();
        let (certified, certifies) = self
            .tls
            .as_ref()
            .map_or((false, false), |tls| (tls.clients.is_required(), tls.clients.is_asked()));
        // Who has a certificate is not anonymous; those whose certificate names nobody are.
        match self.allow_anonymous {
            Some(true) => Open::Yes,
            Some(false) if has_users || certifies => Open::No,
            Some(false) => Open::Nobody,
            None if certified || has_users => Open::No,
            None if self.address.ip().is_loopback() => Open::Yes,
            None => Open::Unsaid,
        }
    }
}

/// What all listeners come to.
pub(super) struct Listeners {
    pub listeners: Vec<ListenerConfig>,
    pub access: AccessSettings,
    /// Where each stands in the file.
    pub places: Vec<Option<Place>>,
}

/// Builds all listeners, from the file or from flags.
///
/// # Errors
/// What is wrong with one of them, with its place in the file.
pub(super) fn listeners(
    sources: &Sources,
    flags: &Flags,
    (limits, machine): (&Limits, &Machine),
    args: &[String],
) -> Result<Listeners, ConfigError> {
    let asked = match &sources.listeners[..] {
        [] => from_flags(sources, flags, limits, machine)?,
        tables => tables
            .iter()
            .map(|table| {
                from_file(table, sources, flags, (limits, machine)).map_err(|error| sources.wrong(error))
            })
            .collect::<Result<Vec<_>, _>>()?
            .concat(),
    };
    distinct(&asked, sources)?;
    client_ids_of_users(&asked, sources)?;
    let mut access = super::access::settings(&flags.access);
    let mut doors = Vec::new();
    for one in &asked {
        let anonymous = match one.open() {
            Open::Yes => Anonymous::Admitted,
            Open::No => Anonymous::Refused,
            Open::Unsaid => return Err(unsaid(one, sources, args)),
            Open::Nobody => {
                let what = format!(
                    "nobody could connect to {}: allow-anonymous is false, and there are no users. Add \
                     password-file = \"FILE\" or client-ca = \"FILE\" (as flags: --password-file FILE, \
                     --tls-client-ca FILE)",
                    one.address
                );
                return Err(sources.wrong((one.at, what)));
            }
        };
        doors.push(Door {
            anonymous,
            client_ids: one.client_ids.into(),
            users: one.password_file.as_ref().map(|path| number(&mut access.password_files, path)),
            rules: one.acl_file.as_ref().map(|path| number(&mut access.acl_files, path)),
        });
    }
    access.doors = doors.into();
    let places = asked.iter().map(|one| one.at).collect();
    let listeners = asked
        .into_iter()
        .map(|Asked { address, is_second, tls, limits, .. }| ListenerConfig {
            address,
            tls,
            limits,
            shares_room: is_second,
        })
        .collect();
    Ok(Listeners { listeners, access, places })
}

/// `client-ids` says which Client Identifiers users may have, so it needs a listener that has
/// users. A `client-ids` of the whole broker needs at least one such listener; a `client-ids` of
/// one listener needs users at that listener.
fn client_ids_of_users(asked: &[Asked], sources: &Sources) -> Result<(), ConfigError> {
    let mut ruled = asked.iter().filter(|one| one.client_ids != ClientIdsFlag::Any).peekable();
    let Some(first) = ruled.peek().map(|one| one.at) else { return Ok(()) };
    if ruled.any(Asked::knows_users) {
        return Ok(());
    }
    let what = "no effect, since no listener has users; add --password-file FILE or --tls-client-ca FILE \
     (in a file: password-file, client-ca)"
        .to_owned();
    let setting = "client-ids";
    match first {
        Some(at) if sources.place_of(setting).is_none() && !sources.listeners.is_empty() => {
            Err(sources.wrong((Some(at), format!("{setting}: {what}"))))
        }
        Some(_) | None => Err(sources.unfit(Unfit { setting, what })),
    }
}

/// The number of a file among those that are read; each is read once.
fn number(files: &mut Vec<PathBuf>, path: &PathBuf) -> u16 {
    let at = files.iter().position(|known| known == path).unwrap_or_else(|| {
        files.push(path.clone());
        files.len() - 1
    });
    at as u16
}

/// The addresses that a word stands for, and whether each is another one of the same word.
fn addresses(place: Where, machine: &Machine) -> impl Iterator<Item = (SocketAddr, bool)> {
    place.addresses(machine.has_ipv6).into_iter().enumerate().map(|(at, address)| (address, at > 0))
}

fn from_flags(
    sources: &Sources,
    flags: &Flags,
    limits: &Limits,
    machine: &Machine,
) -> Result<Vec<Asked>, ConfigError> {
    let tls = tls::tls(&flags.tls).map_err(|unfit| sources.unfit(unfit))?;
    let (tls_listen, settings) = tls.map_or((&[][..], None), |(listen, settings)| (listen, Some(settings)));
    let default = [DEFAULT];
    let listen = match (&flags.address.listen[..], tls_listen) {
        ([], []) => &default[..],
        (listen, _) => listen,
    };
    let asked = |(address, is_second), tls: Option<TlsSettings>, key| Asked {
        address,
        is_second,
        tls,
        allow_anonymous: flags.address.allow_anonymous,
        password_file: flags.access.password_file.clone(),
        acl_file: flags.access.acl_file.clone(),
        client_ids: flags.access.client_ids,
        limits: ListenerLimits::of(limits),
        at: sources.place_of(key).or(sources.place_of("allow-anonymous")),
    };
    let all =
        |places: &[Where]| -> Vec<_> { places.iter().flat_map(|place| addresses(*place, machine)).collect() };
    let plain = all(listen).into_iter().map(|address| asked(address, None, "listen"));
    let secure = all(tls_listen).into_iter().map(|address| asked(address, settings.clone(), "tls-listen"));
    Ok(plain.chain(secure).collect())
}

/// What is wrong, and where.
type Wrong = (Option<Place>, String);

/// A listener of the file, once for each of its addresses.
fn from_file(
    table: &Listener,
    sources: &Sources,
    flags: &Flags,
    (limits, machine): (&Limits, &Machine),
) -> Result<Vec<Asked>, Wrong> {
    let keys = parsed(table, sources)?;
    let Some(place) = keys.address else {
        let what = "a [[listener]] needs an address, such as address = \"127.0.0.1:1883\"".to_owned();
        return Err((Some(table.at), what));
    };
    let wrong =
        |unfit: Unfit| (Some(table.place_of(unfit.setting)), format!("{}: {}", unfit.setting, unfit.what));
    let packet_size_max = match keys.packet_size_max {
        Some(asked) => {
            size("packet-size-max", asked, PACKET_SIZE_MIN, PACKET_SIZE_MAX).map_err(wrong)? as u32
        }
        None => limits.packet_size_max,
    };
    let connect_packet_size_max = match keys.connect_packet_size_max {
        Some(asked) => {
            size("connect-packet-size-max", asked, PACKET_SIZE_MIN, PACKET_SIZE_MAX).map_err(wrong)? as u32
        }
        None => limits.connect_packet_size_max,
    };
    let first = Asked {
        address: ANYWHERE,
        is_second: false,
        tls: tls_of(&keys).map_err(|(key, what)| (Some(table.place_of(key)), what))?,
        allow_anonymous: keys.allow_anonymous.or(flags.address.allow_anonymous),
        password_file: keys.password_file.or_else(|| flags.access.password_file.clone()),
        acl_file: keys.acl_file.or_else(|| flags.access.acl_file.clone()),
        client_ids: keys.client_ids.unwrap_or(flags.access.client_ids),
        limits: ListenerLimits {
            connections_max: keys.connections_max,
            packet_size_max,
            connect_packet_size_max: connect_packet_size_max.min(packet_size_max),
            connect_timeout_ms: keys.connect_timeout.map_or(limits.connect_timeout_ms, |span| span.ms),
            keep_alive_max_s: keys
                .keep_alive_max
                .map_or(limits.keep_alive_max_s, |span| span.whole_s() as u16),
            session_expiry_max_s: keys
                .session_expiry_max
                .map_or(limits.session_expiry_max_s, |span| span.whole_s() as u32),
        },
        at: Some(table.at),
    };
    Ok(addresses(place, machine)
        .map(|(address, is_second)| Asked { address, is_second, ..first.clone() })
        .collect())
}

/// The keys that hold, without those that a flag on the command line replaces.
fn parsed(table: &Listener, sources: &Sources) -> Result<ListenerKeys, Wrong> {
    let kept = table.settings.iter().filter(|setting| !is_replaced(&setting.key, sources));
    ListenerKeys::try_parse_from(kept.flat_map(|setting| &setting.arguments))
        .map_err(|error| (Some(table.at), file::first_line(&error.to_string())))
}

fn is_replaced(key: &str, sources: &Sources) -> bool {
    key != BOTH_HOLD && file::is_given(key, &sources.given, &Flags::command())
}

/// What the keys say about TLS; an error names the key that is wrong.
fn tls_of(keys: &ListenerKeys) -> Result<Option<TlsSettings>, (&'static str, String)> {
    let certificate = match (keys.kind, &keys.cert) {
        (None | Some(Kind::Tls), Some(certificate)) => certificate.clone(),
        (Some(Kind::Tls), None) => {
            return Err(("kind", "kind = \"tls\" needs a certificate: add cert = \"FILE\"".to_owned()));
        }
        (None | Some(Kind::Tcp), None) | (Some(Kind::Tcp), Some(_)) => {
            let present = [
                ("cert", keys.cert.is_some()),
                ("key", keys.key.is_some()),
                ("key-password-file", keys.key_password_file.is_some()),
                ("client-ca", keys.client_ca.is_some()),
                ("client-cert", keys.client_cert.is_some()),
                ("client-user", keys.client_user.is_some()),
                ("record-size-max", keys.record_size_max.is_some()),
            ];
            return match present.into_iter().find(|(_, is_there)| *is_there) {
                Some((key, _)) if keys.kind.is_some() => {
                    Err((key, format!("{key} is for TLS only: remove it, or write kind = \"tls\"")))
                }
                Some((key, _)) => {
                    Err((key, format!("{key} has no effect without a certificate: add cert = \"FILE\"")))
                }
                None => Ok(None),
            };
        }
    };
    let clients =
        tls::clients(keys.client_cert, keys.client_ca.clone()).map_err(|mismatch| match mismatch {
            tls::Mismatch::OfNoUse => (
                "client-ca",
                "client-ca has no effect with client-cert = \"none\": remove one of them".to_owned(),
            ),
            tls::Mismatch::CaMissing => (
                "client-cert",
                "client-cert needs the CA that signs the clients' certificates: add client-ca = \"FILE\""
                    .to_owned(),
            ),
        })?;
    let record_size_max = tls::record_size("record-size-max", keys.record_size_max)
        .map_err(|unfit| (unfit.setting, format!("{}: {}", unfit.setting, unfit.what)))?;
    Ok(Some(TlsSettings {
        key_password: keys.key_password_file.clone(),
        record_size_max,
        key: keys.key.clone().unwrap_or_else(|| certificate.clone()),
        certificate,
        clients,
        user: keys.client_user.unwrap_or(ClientUserFlag::CommonName).into(),
    }))
}

/// No address twice, and none that another one covers.
fn distinct(asked: &[Asked], sources: &Sources) -> Result<(), ConfigError> {
    for (index, one) in asked.iter().enumerate().filter(|(_, one)| one.address.port() != 0) {
        let address = &one.address;
        let flag = if one.at.is_some() { "address" } else { "--listen" };
        for other in
            asked[..index].iter().map(|other| &other.address).filter(|it| it.port() == address.port())
        {
            if other == address {
                return Err(sources.wrong((one.at, format!("{flag} {address} is given twice"))));
            }
            let same_family = other.is_ipv4() == address.is_ipv4();
            if same_family && (other.ip().is_unspecified() || address.ip().is_unspecified()) {
                let (all, one_of_them) =
                    if other.ip().is_unspecified() { (other, address) } else { (address, other) };
                let what = format!("{flag} {all} covers {one_of_them} too; remove {flag} {one_of_them}");
                return Err(sources.wrong((one.at, what)));
            }
        }
    }
    Ok(())
}

/// The network is opened only on purpose.
fn unsaid(one: &Asked, sources: &Sources, args: &[String]) -> ConfigError {
    let address = one.address;
    let why = format!(
        "will not listen on {address}: the network can reach it, and without users anybody could publish \
         and subscribe there. To require users, add"
    );
    match one.at {
        Some(at) => sources.wrong((
            Some(at),
            format!(
                "{why} password-file = \"FILE\" (see: ringmq passwd --help){}. To let everybody in, add \
                 allow-anonymous = true",
                if sources.listeners.is_empty() { "" } else { ", or client-ca = \"FILE\"" }
            ),
        )),
        None => ConfigError::Wrong(format!(
            "{why} --password-file FILE (see: ringmq passwd --help). To let everybody in: {} \
             --allow-anonymous",
            super::command(args)
        )),
    }
}

impl Config {
    /// Nobody but this machine can reach any listener.
    pub fn is_local(&self) -> bool {
        self.listeners.iter().all(|listener| listener.address.ip().is_loopback())
    }
}

/// The listeners of the file as they are in force, each key with its value and where that comes
/// from. `flat` says so of the settings of the whole broker.
pub(super) fn effective(
    sources: &Sources,
    flat: &file::Effective<'_>,
    machine: &Machine,
) -> Result<String, ConfigError> {
    let mut text = String::new();
    let command = ListenerKeys::command();
    for table in &sources.listeners {
        let keys = parsed(table, sources).map_err(|wrong| sources.wrong(wrong))?;
        let tls = tls_of(&keys).map_err(|(key, what)| sources.wrong((Some(table.place_of(key)), what)))?;
        text.push_str(&format!("\n[[listener]]  # {}\n", flat.place(table.at)));
        for arg in command.get_arguments() {
            let Some(name) = arg.get_long() else { continue };
            let own = table.settings.iter().find(|setting| setting.key == name);
            let shown = match (name, own) {
                (_, Some(own)) if !is_replaced(name, sources) => {
                    own.value().map(|value| (file::quoted(value), flat.place(own.at)))
                }
                (BOTH_HOLD, _) => None,
                ("kind", _) => {
                    Some((file::quoted(if tls.is_some() { "tls" } else { "tcp" }), "default".to_owned()))
                }
                ("key", _) => tls.as_ref().map(|tls| {
                    (file::quoted(&tls.key.to_string_lossy()), "the file of the certificate".to_owned())
                }),
                ("client-cert", _) => tls.as_ref().map(|tls| {
                    (
                        file::quoted(if tls.clients.is_asked() { "required" } else { "none" }),
                        "default".to_owned(),
                    )
                }),
                ("client-user", _) => {
                    tls.as_ref().map(|_| (file::quoted("common-name"), "default".to_owned()))
                }
                (name, _) => flat.of(name),
            };
            let shown = match (name, shown) {
                ("allow-anonymous", None) => {
                    let asked = Asked {
                        address: keys
                            .address
                            .and_then(|place| addresses(place, machine).next())
                            .map_or(ANYWHERE, |(address, _)| address),
                        is_second: false,
                        tls: tls.clone(),
                        allow_anonymous: None,
                        password_file: keys.password_file.clone().or_else(|| flat.path("password-file")),
                        acl_file: None,
                        client_ids: ClientIdsFlag::Any,
                        limits: ListenerLimits::of(&Limits::default()),
                        at: None,
                    };
                    Some((matches!(asked.open(), Open::Yes).to_string(), "default".to_owned()))
                }
                (_, shown) => shown,
            };
            match shown {
                Some((value, source)) => text.push_str(&format!("{name} = {value}  # {source}\n")),
                None => text.push_str(&format!("# {name} is not set\n")),
            }
        }
    }
    Ok(text)
}
