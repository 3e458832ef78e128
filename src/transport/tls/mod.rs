//! TLS 1.2 and 1.3 through rustls.
//!
//! `files` reads certificates and keys, `config` makes server configurations out of them, and `clients` decides about
//! certificates of clients; [`TlsAcceptor`] holds the one in force, and is shared by all
//! shards, with its tickets, so that a client resumes wherever it lands. Each listener has ticket keys of its own and
//! gets new ones with each reload: a ticket is proof of what was checked when it was given out, and no other listener,
//! no later set of CAs, takes it for more.

mod clients;
#[cfg(test)]
mod clients_tests;
mod config;
mod files;
mod records;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
mod validity;
mod words;

use std::io::{BufRead, IoSlice, Write};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConnection;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};

use super::x509::Certificate;
use super::{Acceptor, Expiry, Fed, Handshake, HandshakeCost, Last, Layer, Peer, Standing};
use crate::log;
use crate::memory::OutBatch;

use records::Records;
use validity::Role;
use words::Head;

// What tests and benchmarks use besides the broker.
pub use config::{CertificateUser, ClientCertificates, Settings};
pub use files::LoadError;

pub(crate) use config::{Loaded, RECORD_SIZE};
pub(crate) use validity::Warning;

/// Bytes of TLS's own that may wait for a peer to read them: certificates, tickets, alerts and answers to key updates.
/// With more the connection fails, since such a peer sends but does not read.
pub const OUTPUT_MAX: usize = 64 * 1024;

/// Bytes charged for a connection at rest, and during its handshake, besides what it holds. Measured: 6.4 KB and 13 to 18 KB.
const REST_BYTES: usize = 8 * 1024;
const HANDSHAKE_BYTES: usize = 16 * 1024;

const HANDSHAKE: Handshake = Handshake {
    cost: HandshakeCost::Dear,
    late: "the TLS handshake did not end within --connect-timeout",
    left: "the peer closed before the TLS handshake was over",
};

/// What stands behind one TLS listener.
#[derive(Debug)]
pub struct TlsAcceptor {
    settings: Settings,
    /// Read once for each connection, written by a reload.
    current: RwLock<Loaded>,
}

impl TlsAcceptor {
    /// Loads the files of a listener.
    ///
    /// # Errors
    /// The first file that cannot be used, and why.
    pub fn new(settings: Settings) -> Result<TlsAcceptor, LoadError> {
        let current = RwLock::new(Loaded::load(&settings)?);
        Ok(TlsAcceptor { settings, current })
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What somebody should know about the certificates in force: those that have expired or do so soon, and those that are
    /// not valid yet.
    pub fn warnings(&self) -> Vec<Warning> {
        let now_s = now_s();
        self.current().validity.iter().filter_map(|validity| validity.warning(now_s)).collect()
    }

    /// Until when clients find the certificates in force good.
    pub fn expiry(&self) -> Expiry {
        let now_s = now_s();
        let validity = self.current().validity;
        let of = |role: Role| validity.iter().filter(move |validity| validity.role == role);
        let first = |role| of(role).map(|validity| validity.not_after_s).min();
        let worst = |role| of(role).map(|validity| validity.standing(now_s)).max();
        Expiry {
            certificate_at_s: first(Role::Server).unwrap_or(0),
            certificate: worst(Role::Server).unwrap_or(Standing::Expired),
            client_ca_at_s: first(Role::ClientCa),
            client_ca: worst(Role::ClientCa),
        }
    }

    fn current(&self) -> Loaded {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Seconds since 1970.
fn now_s() -> u64 {
    DefaultTimeProvider.current_time().map_or(0, |now| now.as_secs())
}

impl Acceptor for TlsAcceptor {
    fn accept(&self) -> Option<Box<dyn Layer>> {
        let Loaded { config, .. } = self.current();
        let mut connection = ServerConnection::new(config).ok()?;
        // The shard bounds what it seals, and `feed` what the peer causes.
        connection.set_buffer_limit(None);
        Some(Box::new(Tls {
            connection,
            user_from: self.settings.user,
            identity: Identity::Unknown,
            records: Records::default(),
            head: Head::default(),
            unanswered: 0,
        }))
    }

    fn expiry(&self) -> Option<Expiry> {
        Some(TlsAcceptor::expiry(self))
    }
}

/// Files that were read again and found good, not in force yet.
#[must_use]
#[derive(Debug)]
pub struct Reload(Vec<(Arc<TlsAcceptor>, Loaded)>);

impl Reload {
    /// Reads the files of all listeners again. Nothing changes before [`Reload::swap`].
    ///
    /// # Errors
    /// The first file that cannot be used: then nothing shall be swapped.
    pub fn load(acceptors: &[Arc<TlsAcceptor>]) -> Result<Reload, LoadError> {
        let load =
            |acceptor: &Arc<TlsAcceptor>| Ok((Arc::clone(acceptor), Loaded::load(&acceptor.settings)?));
        acceptors.iter().map(load).collect::<Result<_, _>>().map(Reload)
    }

    /// Puts what was loaded in force, for connections from now on; those that exist keep what they have.
    pub fn swap(self) {
        for (acceptor, loaded) in self.0 {
            *acceptor.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        }
    }
}

/// What the handshake said about the peer.
#[derive(Debug)]
enum Identity {
    /// The handshake is not over.
    Unknown,
    /// Without a certificate.
    None,
    Certified {
        user: Option<Box<str>>,
    },
}

/// One connection.
#[derive(Debug)]
struct Tls {
    connection: ServerConnection,
    user_from: CertificateUser,
    identity: Identity,
    records: Records,
    /// How the peer began.
    head: Head,
    /// Bytes that came in the handshake since it last had something to say: a message of it may span records.
    unanswered: usize,
}

impl Tls {
    fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Bytes that it was fed and keeps, since what they are part of is not whole.
    fn held(&self) -> usize {
        self.records.partial().max(self.unanswered)
    }

    fn receive(&mut self, received: &[u8], plain: &mut Vec<u8>) -> Result<Fed, String> {
        let mut rest = received;
        while !rest.is_empty() {
            let mut piece = self.records.take(&mut rest);
            let is_whole = self.records.partial() == 0;
            while !piece.is_empty() {
                let taken = self.connection.read_tls(&mut piece).map_err(|error| error.to_string())?;
                if taken == 0 {
                    return Ok(Fed::Open);
                }
                // A part of it means nothing, yet to look at it would cost a copy of what there is.
                if self.records.is_data() && !(is_whole && piece.is_empty()) {
                    continue;
                }
                if self.process(plain)? == Fed::Closed {
                    return Ok(Fed::Closed);
                }
            }
        }
        Ok(Fed::Open)
    }

    /// Takes in what was read.
    fn process(&mut self, plain: &mut Vec<u8>) -> Result<Fed, String> {
        let was_handshaking = self.connection.is_handshaking();
        let state = self.connection.process_new_packets();
        // What came before an error was good.
        while let Ok(chunk @ [_, ..]) = self.connection.reader().fill_buf() {
            plain.extend_from_slice(chunk);
            let len = chunk.len();
            self.connection.reader().consume(len);
        }
        let state = state.map_err(|error| words::why(&error, &self.head, was_handshaking))?;
        if state.tls_bytes_to_write() > OUTPUT_MAX {
            return Err(format!("TLS peer is not reading: {} KiB are waiting for it", OUTPUT_MAX / 1024));
        }
        if matches!(self.identity, Identity::Unknown) && !self.connection.is_handshaking() {
            self.identity = self.identify()?;
        }
        Ok(if state.peer_has_closed() { Fed::Closed } else { Fed::Open })
    }

    /// Looks at the certificate of a peer whose handshake is over.
    fn identify(&self) -> Result<Identity, String> {
        let Some(certificate) = self.connection.peer_certificates().and_then(<[_]>::first) else {
            return Ok(Identity::None);
        };
        let certificate =
            Certificate::parse(certificate).ok_or("a client certificate that cannot be read")?;
        // A ticket does not outlive the certificate that it stands for; a full handshake has checked that already.
        if now_s() > certificate.not_after_s {
            let until = log::day(certificate.not_after_s);
            return Err(format!("client certificate has expired on {until}, after the ticket was given out"));
        }
        let user = match self.user_from {
            CertificateUser::CommonName => certificate.common_name(),
            CertificateUser::Subject => certificate.subject_text(),
        };
        Ok(Identity::Certified { user: user.map(String::into_boxed_str) })
    }
}

impl Layer for Tls {
    fn feed(&mut self, received: &[u8], plain: &mut Vec<u8>) -> Fed {
        if self.is_handshaking() {
            self.head.pass(received);
        }
        self.unanswered += received.len();
        let fed = self.receive(received, plain).unwrap_or_else(|why| Fed::Failed(why.into_boxed_str()));
        if !self.is_handshaking() || self.wants_write() {
            self.unanswered = 0;
        }
        fed
    }

    fn write(&mut self, batch: OutBatch, last: Last, spare: &mut Vec<u8>) -> OutBatch {
        if batch.remaining() > 0 {
            // Without a limit the writer takes everything; a connection that has failed takes nothing more.
            let _ = match batch.contiguous() {
                Some(bytes) => self.connection.writer().write(bytes),
                None => {
                    let slices: Vec<IoSlice> = batch.pieces().map(IoSlice::new).collect();
                    self.connection.writer().write_vectored(&slices)
                }
            };
        }
        if last == Last::Yes {
            self.connection.send_close_notify();
        }
        let mut wire = std::mem::replace(spare, batch.into_buffer());
        while self.connection.wants_write() {
            // Into a vector nothing fails.
            if self.connection.write_tls(&mut wire).is_err() {
                break;
            }
        }
        OutBatch::from(wire)
    }

    fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    fn handshake(&self) -> Option<Handshake> {
        self.is_handshaking().then_some(HANDSHAKE)
    }

    fn peer(&self) -> Peer<'_> {
        match &self.identity {
            Identity::Unknown | Identity::None => Peer::default(),
            Identity::Certified { user } => Peer { address: None, is_certified: true, user: user.as_deref() },
        }
    }

    fn cost(&self) -> usize {
        let own = if self.is_handshaking() { HANDSHAKE_BYTES } else { REST_BYTES };
        own + self.held()
    }
}
