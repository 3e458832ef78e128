//! Bytes to bytes, between a socket and an MQTT stream. Sans-IO: fed with what was received, asked
//! for what to send.
//!
//! A [`Layer`] is one protocol of one connection, such as TLS. A [`Transport`] is all layers of one
//! connection. [`Layers`] stands behind a listening socket and makes a transport for each of its
//! connections. A plain connection has no transport, so it pays for none of this.
//!
//! A new layer is a type that implements [`Layer`], and one that implements [`Acceptor`] and stands
//! in the list of a listener. A shard needs no change for it: it sees transports only. Layers know
//! nothing of MQTT.

mod accept;
mod stack;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod tls;
pub(crate) mod x509;

use std::fmt;
use std::net::SocketAddr;

use crate::memory::OutBatch;

pub use accept::{Acceptor, Expiry, Layers, Standing};
pub use stack::{Between, Transport};

/// One protocol between the socket and the MQTT stream of one connection. *Outside* is the side of
/// the socket.
///
/// - What [`Layer::feed`] yields belongs to the stream in the order of the calls, even if the call
///   failed.
/// - After [`Fed::Closed`] or [`Fed::Failed`] a layer is fed nothing more. It is still written to,
///   since it may have last words.
/// - As long as its handshake goes on, a layer writes nothing but what belongs to the handshake.
pub trait Layer: Send + fmt::Debug {
    /// Takes bytes from outside, and appends what they mean to `plain`. That is at most as much as
    /// came in this call and was kept of the calls before.
    fn feed(&mut self, received: &[u8], plain: &mut Vec<u8>) -> Fed;

    /// Turns `batch` into what goes outside, behind what the layer has to say itself. `batch` may
    /// be empty.
    ///
    /// A layer that sends the stream as it is returns `batch` itself with its own bytes around it,
    /// so that no payload is copied. One that changes the bytes writes them to `spare`, and leaves
    /// the buffer of `batch` there in exchange. `spare` is empty at the beginning and at the end.
    fn write(&mut self, batch: OutBatch, last: Last, spare: &mut Vec<u8>) -> OutBatch;

    /// The layer has bytes of its own to send.
    fn wants_write(&self) -> bool;

    /// What the layer waits for before the stream begins; `None` once it has begun.
    fn handshake(&self) -> Option<Handshake>;

    /// From now on the layer changes no byte either way. Never taken back.
    fn is_through(&self) -> bool {
        false
    }

    /// What the layer knows of the peer; complete once the handshake is over.
    fn peer(&self) -> Peer<'_> {
        Peer::default()
    }

    /// Bytes of memory that it keeps.
    fn cost(&self) -> usize;
}

/// What became of received bytes.
#[must_use]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fed {
    /// Go on.
    Open,
    /// The peer said that it sends nothing more.
    Closed,
    /// The peer broke the rules of a layer; the reason, for the log. May quote the peer.
    Failed(Box<str>),
}

/// Whether the stream ends behind a batch.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Last {
    No,
    /// Nothing follows. Each layer says so to the peer in its own way.
    Yes,
}

/// A handshake that goes on.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Handshake {
    pub cost: HandshakeCost,
    /// Why a connection is closed that takes too long for it, for the log.
    pub late: &'static str,
    /// What a peer did that went away before its end, for the log.
    pub left: &'static str,
}

/// What the next bytes of a handshake cost the processor.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum HandshakeCost {
    /// Some microseconds: a header or a request is read and answered.
    Cheap,
    /// Some hundred microseconds: keys are agreed upon, certificates checked.
    Dear,
}

/// Who the peer is, as far as a transport knows.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Peer<'a> {
    /// Where the client is, if it is not at the other end of the socket.
    pub address: Option<SocketAddr>,
    /// The peer proved that it holds a certificate that we trust.
    pub is_certified: bool,
    /// The user name that its certificate stands for. `None` for a certificate without a usable
    /// one.
    pub user: Option<&'a str>,
}

impl<'a> Peer<'a> {
    /// What `self` does not know, a layer further outside may. A certificate and its user go
    /// together.
    fn or(self, outer: Peer<'a>) -> Peer<'a> {
        let proof = if self.is_certified { self } else { outer };
        Peer { address: self.address.or(outer.address), is_certified: proof.is_certified, user: proof.user }
    }
}
