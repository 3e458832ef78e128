//! The message that goes out when the client does not say good-bye.
//! A payload that is not what its Payload Format Indicator says goes out as it came. // [U5-3.1.3-3] [U5-3.1.3-4]

use crate::clock::{Millis, NEVER, after_s};
use crate::memory::MessageView;
use crate::store::{self, StoredWill, WallClock};
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

    /// The words of the log for it.
    pub fn words(&self, clock: WallClock) -> store::Will<'_> {
        store::Will {
            topic: &self.topic,
            properties: &self.properties,
            payload: &self.payload,
            qos: self.qos,
            retain: self.retain,
            delay_s: self.delay_s,
            expiry_s: self.expiry_s,
            due_at: clock.wall(self.due_at),
        }
    }

    /// One that was in the log.
    pub fn restored(will: &StoredWill, clock: WallClock) -> Will {
        Will {
            topic: will.topic.clone(),
            properties: will.properties.clone(),
            payload: will.payload.clone(),
            qos: will.qos,
            expiry_s: will.expiry_s,
            delay_s: will.delay_s,
            retain: will.retain,
            due_at: clock.millis(will.due_at),
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
            origin: 0,
            is_repeat: false,
        }
    }
}
