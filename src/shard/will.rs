//! The message that goes out when the client does not say good-bye.
//! A payload that is not what its Payload Format Indicator says goes out as it came. // [U5-3.1.3-3] [U5-3.1.3-4]

use crate::clock::{Millis, NEVER, after_s};
use crate::memory::MessageView;
use crate::wire::{self, Qos};

#[derive(Debug)]
pub(super) struct Will {
    pub topic: Box<str>,
    properties: Box<[u8]>,
    payload: Box<[u8]>,
    qos: Qos,
    retain: bool,
    pub delay_s: u32,
    expiry_s: Option<u32>,
    /// When it goes out; [`NEVER`] while the session is connected.
    pub due_at: Millis,
}

impl Will {
    /// [MQTT-3.1.3-10]: the properties keep their order.
    pub fn new(will: &wire::Will<'_>) -> Will {
        let mut properties = Vec::with_capacity(will.properties.len());
        will.properties.write_to(&mut properties);
        Will {
            topic: will.topic.into(),
            properties: properties.into(),
            payload: will.payload.into(),
            qos: will.qos,
            retain: will.retain,
            delay_s: will.delay_s,
            expiry_s: will.expiry_s,
            due_at: NEVER,
        }
    }

    /// Bytes that it keeps.
    pub fn cost(&self) -> usize {
        size_of::<Will>() + self.topic.len() + self.properties.len() + self.payload.len()
    }

    /// The message that it is when it goes out at `now`.
    pub fn message(&self, publisher: u64, now: Millis) -> MessageView<'_> {
        MessageView {
            topic: &self.topic,
            properties: &self.properties,
            payload: &self.payload,
            qos: self.qos,
            retain: self.retain, // [MQTT-3.1.2-14] [MQTT-3.1.2-15]
            expires_at: self.expiry_s.map_or(NEVER, |seconds| after_s(now, seconds.into())),
            publisher,
            whole: None,
        }
    }
}
