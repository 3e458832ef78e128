//! The layers of one connection as one.

use super::{Fed, Handshake, Last, Layer, Peer};
use crate::memory::OutBatch;

/// A buffer that grew beyond this is not kept.
const BETWEEN_KEPT_MAX: usize = 64 * 1024;

/// All layers between one socket and its MQTT stream. Moves between shards as one value.
#[derive(Debug)]
pub struct Transport {
    /// Outermost first.
    layers: Box<[Box<dyn Layer>]>,
    /// The peer was told that the stream ends.
    has_ended: bool,
}

/// Buffers for bytes on their way from one layer to the next one; empty between two calls. One for
/// each shard.
#[derive(Debug, Default)]
pub struct Between(Vec<Vec<u8>>);

impl Between {
    fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    fn give(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        if buffer.capacity() <= BETWEEN_KEPT_MAX {
            self.0.push(buffer);
        }
    }
}

impl Transport {
    /// `layers` stand outermost first.
    pub fn new(layers: Box<[Box<dyn Layer>]>) -> Transport {
        Transport { layers, has_ended: false }
    }

    /// Takes bytes off the wire, and appends what they mean for the stream to `plain`.
    pub fn feed(&mut self, received: &[u8], between: &mut Between, plain: &mut Vec<u8>) -> Fed {
        feed(&mut self.layers, received, between, plain)
    }

    /// Turns `batch` into what goes on the wire, in as few pieces as it can: to be called once for
    /// all output of a turn. May come back empty if there was nothing to say. `spare` is an empty
    /// buffer, and so is what it is exchanged for.
    pub fn write(&mut self, batch: OutBatch, last: Last, spare: &mut Vec<u8>) -> OutBatch {
        let last = if self.has_ended { Last::No } else { last };
        self.has_ended |= last == Last::Yes;
        let open = self.layers.iter_mut().rev().filter(|layer| !layer.is_through());
        open.fold(batch, |batch, layer| layer.write(batch, last, spare))
    }

    /// Whether it has something to send besides what is staged, if `last` says how the stream goes
    /// on.
    pub fn wants_write(&self, last: Last) -> bool {
        (last == Last::Yes && !self.has_ended) || self.layers.iter().any(|layer| layer.wants_write())
    }

    /// What goes on before the stream begins; `None` once every layer is ready.
    ///
    /// The cost is that of the dearest handshake that is not over, for the next bytes may bring the
    /// others to their end.
    pub fn handshake(&self) -> Option<Handshake> {
        let mut open = self.layers.iter().filter_map(|layer| layer.handshake());
        let first = open.next()?;
        Some(Handshake { cost: open.map(|inner| inner.cost).fold(first.cost, Ord::max), ..first })
    }

    /// From now on it changes no byte either way: it may be passed by.
    pub fn is_through(&self) -> bool {
        self.layers.iter().all(|layer| layer.is_through())
    }

    /// Who the peer is. What an inner layer says counts more, since it was said later and by
    /// somebody nearer to the client.
    pub fn peer(&self) -> Peer<'_> {
        self.layers.iter().fold(Peer::default(), |outer, layer| layer.peer().or(outer))
    }

    /// Bytes of memory that it keeps.
    pub fn cost(&self) -> usize {
        self.layers.iter().map(|layer| layer.cost()).sum()
    }
}

fn feed(layers: &mut [Box<dyn Layer>], received: &[u8], between: &mut Between, plain: &mut Vec<u8>) -> Fed {
    let Some((layer, inner)) = layers.split_first_mut() else {
        plain.extend_from_slice(received);
        return Fed::Open;
    };
    if layer.is_through() {
        return feed(inner, received, between, plain);
    }
    if inner.iter().all(|layer| layer.is_through()) {
        return layer.feed(received, plain);
    }
    let mut bytes = between.take();
    let fed = layer.feed(received, &mut bytes);
    let within = if bytes.is_empty() { Fed::Open } else { feed(inner, &bytes, between, plain) };
    between.give(bytes);
    // An end that the inner layers saw came before that of this one.
    match within {
        Fed::Open => fed,
        Fed::Closed | Fed::Failed(_) => within,
    }
}
