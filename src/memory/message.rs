//! An Application Message, as a borrowed view on its way and as a shared value where it is kept.
//!
//! A [`MessageView`] lives for one turn: it points into a receive buffer, a mesh record or a [`Message`]. A
//! [`Message`] is what sessions, the retained store and the mesh keep; cloning it copies a pointer. Its count is
//! atomic because it crosses shards.

use std::sync::Arc;

use crate::clock::{Millis, NEVER};
use crate::wire::Qos;

/// A borrowed Application Message.
#[derive(Copy, Clone, Debug)]
pub struct MessageView<'a> {
    pub topic: &'a str,
    /// The properties that are forwarded unchanged, encoded, without the length in front.
    pub properties: &'a [u8],
    pub payload: &'a [u8],
    /// As published.
    pub qos: Qos,
    /// As published.
    pub retain: bool,
    /// When it expires, or [`NEVER`]. Counts from its arrival at the broker.
    pub expires_at: Millis,
    /// Keyed hash of the publisher's Client Identifier, for No Local; 0 for the broker itself.
    pub publisher: u64,
}

impl MessageView<'_> {
    /// Bytes that keeping this message takes, the heads of its allocations included.
    pub fn cost(&self) -> usize {
        Message::OVERHEAD + self.topic.len() + self.properties.len() + self.payload.len()
    }

    pub fn to_message(&self) -> Message {
        let mut bytes = Vec::with_capacity(self.topic.len() + self.properties.len() + self.payload.len());
        bytes.extend_from_slice(self.topic.as_bytes());
        bytes.extend_from_slice(self.properties);
        bytes.extend_from_slice(self.payload);
        Message(Arc::new(Inner {
            bytes: bytes.into_boxed_slice(),
            expires_at: self.expires_at,
            publisher: self.publisher,
            topic_len: self.topic.len() as u32,
            properties_len: self.properties.len() as u32,
            qos: self.qos,
            retain: self.retain,
        }))
    }

    /// Seconds that are left at `now`, rounded up, for the outgoing Message Expiry Interval; `None` if it never
    /// expires. // [MQTT-3.3.2-6]
    pub fn expiry_s(&self, now: Millis) -> Option<u32> {
        (self.expires_at != NEVER)
            .then(|| self.expires_at.saturating_sub(now).div_ceil(1000).min(u64::from(u32::MAX)) as u32)
    }

    pub fn is_expired(&self, now: Millis) -> bool {
        self.expires_at <= now
    }
}

/// A kept Application Message; a clone shares it.
#[derive(Clone, Debug)]
pub struct Message(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Topic Name, then properties, then payload.
    bytes: Box<[u8]>,
    expires_at: Millis,
    publisher: u64,
    topic_len: u32,
    properties_len: u32,
    qos: Qos,
    retain: bool,
}

impl Message {
    /// Bytes beside topic, properties and payload.
    pub const OVERHEAD: usize = 16 + std::mem::size_of::<Inner>() + 16;

    pub fn view(&self) -> MessageView<'_> {
        let inner = &*self.0;
        let (topic, rest) = inner.bytes.split_at(inner.topic_len as usize);
        let (properties, payload) = rest.split_at(inner.properties_len as usize);
        MessageView {
            // The bytes came from a `&str` in `to_message`; checking them again is cheap beside the delivery.
            topic: std::str::from_utf8(topic).unwrap_or_default(),
            properties,
            payload,
            qos: inner.qos,
            retain: inner.retain,
            expires_at: inner.expires_at,
            publisher: inner.publisher,
        }
    }

    pub fn topic(&self) -> &str {
        self.view().topic
    }

    pub fn payload(&self) -> &[u8] {
        let inner = &*self.0;
        &inner.bytes[inner.topic_len as usize + inner.properties_len as usize..]
    }

    pub fn cost(&self) -> usize {
        Message::OVERHEAD + self.0.bytes.len()
    }

    pub fn expires_at(&self) -> Millis {
        self.0.expires_at
    }

    pub fn qos(&self) -> Qos {
        self.0.qos
    }
}
