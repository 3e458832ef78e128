//! Bytes to bytes, between a socket and an MQTT stream. Sans-IO: fed with what was received, asked for what to send.
//!
//! A plain connection has no transport at all, so it pays for none of this. Whoever drives a [`Transport`] keeps to:
//! - What [`Transport::feed`] yields belongs to the stream in the order of the calls, even if the call failed.
//! - One turn's output is sealed by one call, so that it becomes as few records as it can.
//! - After [`Fed::Failed`] nothing is fed or sealed but the transport's last words, which `wants_send` tells of.
//! - A transport moves between shards as one value.

pub mod tls;
pub(crate) mod x509;

use std::fmt;

use crate::memory::OutBatch;

/// What lies between one socket and its MQTT stream.
pub trait Transport: Send + fmt::Debug {
    /// Takes received bytes; appends what they mean for the stream to `plain`, at most as much as was received.
    fn feed(&mut self, received: &[u8], plain: &mut Vec<u8>) -> Fed;

    /// Appends the wire form of everything in `batch`, behind what the transport has to say itself. The batch is empty
    /// as long as [`Transport::is_handshaking`].
    fn seal(&mut self, batch: &OutBatch, wire: &mut Vec<u8>);

    /// The stream ends here: the next [`Transport::seal`] says so to the peer.
    fn close(&mut self);

    /// The transport has bytes of its own to send.
    fn wants_send(&self) -> bool;

    /// No byte of the stream can be sent yet.
    fn is_handshaking(&self) -> bool;

    /// Bytes that it was fed and keeps, since what they are part of is not whole.
    fn held(&self) -> usize;

    /// What the transport knows of the peer; complete once the handshake is over.
    fn peer(&self) -> PeerIdentity<'_>;
}

/// What became of received bytes.
#[must_use]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fed {
    /// Go on.
    Open,
    /// The peer said that it sends nothing more.
    Closed,
    /// The peer broke the rules of the transport; the reason, for the log. May quote the peer.
    Failed(Box<str>),
}

/// Who the peer is, as far as its transport proves it.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct PeerIdentity<'a> {
    /// The peer proved that it holds a certificate that we trust.
    pub is_certified: bool,
    /// The user name that its certificate stands for. `None` for a certificate without a usable one.
    pub user: Option<&'a str>,
}

/// Makes the transports of one listening socket's connections. Shared by all shards.
pub trait Acceptor: Send + Sync + fmt::Debug {
    /// A transport for a new connection; `None` if there is none to be had, which refuses the connection.
    fn accept(&self) -> Option<Box<dyn Transport>>;

    /// Until when its peers find it good.
    fn expiry(&self) -> Expiry;
}

/// When certificates expire, in seconds since 1970, and how they stand at the moment.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Expiry {
    /// The server's, or the first of those that sign it.
    pub certificate_at_s: u64,
    /// The worst of these.
    pub certificate: Standing,
    /// The first of those that sign certificates of clients; `None` if clients show none.
    pub client_ca_at_s: Option<u64>,
    pub client_ca: Option<Standing>,
}

/// How a certificate stands, the best first.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Standing {
    Valid,
    /// It is valid, but somebody should renew it.
    ExpiresSoon,
    NotYetValid,
    Expired,
}

impl Standing {
    /// As `$SYS` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Standing::Valid => "valid",
            Standing::ExpiresSoon => "expires soon",
            Standing::NotYetValid => "not yet valid",
            Standing::Expired => "expired",
        }
    }
}
