//! What stands behind a listening socket and makes the transports of its connections.

use std::fmt;
use std::sync::Arc;

use super::{Layer, Transport};

/// Makes one layer for each connection of a listening socket. Shared by all shards.
pub trait Acceptor: Send + Sync + fmt::Debug {
    /// The layer of a new connection; `None` if there is none to be had, which refuses the
    /// connection.
    fn accept(&self) -> Option<Box<dyn Layer>>;

    /// Until when its certificates are good; `None` if it shows none.
    fn expiry(&self) -> Option<Expiry> {
        None
    }
}

/// What lies between the socket and MQTT for the connections of one listener, outermost first:
/// nothing for a plain one, TLS.
#[derive(Clone, Debug, Default)]
pub struct Layers(Arc<[Arc<dyn Acceptor>]>);

impl Layers {
    /// `acceptors` stand outermost first.
    pub fn new(acceptors: impl IntoIterator<Item = Arc<dyn Acceptor>>) -> Layers {
        Layers(acceptors.into_iter().collect())
    }

    /// MQTT lies on the socket as it is.
    pub fn plain() -> Layers {
        Layers::default()
    }

    pub fn is_plain(&self) -> bool {
        self.0.is_empty()
    }

    /// The transport of a new connection; `None` if one of its layers is not to be had.
    pub fn accept(&self) -> Option<Transport> {
        let layers = self.0.iter().map(|acceptor| acceptor.accept());
        layers.collect::<Option<_>>().map(Transport::new)
    }

    /// When the certificates expire that clients see here.
    pub fn expiry(&self) -> Option<Expiry> {
        self.0.iter().find_map(|acceptor| acceptor.expiry())
    }
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
