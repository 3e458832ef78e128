//! What holds for one connection only: version, maxima, quotas and aliases. // [U5-3.1.2-11] [MQTT-3.3.2-7]

use super::IN_FLIGHT_MAX;
use super::alias::{Alias, Aliases, OUTGOING_MAX, ResolvedTopic};
use crate::limits::Limits;
use crate::wire::{DecodeError, Version};

/// One connection of a client, as far as its session is concerned.
#[derive(Debug)]
pub struct Link {
    pub version: Version,
    /// Bytes of a packet that the client takes.
    pub packet_size_max: u32,
    /// PUBLISH packets of QoS 1 and 2 that may still be sent.
    send_quota: u16,
    send_quota_max: u16,
    /// PUBLISH packets of QoS 1 and 2 from the client that are not acknowledged yet.
    receive_used: u16,
    /// Their number at most, as the client was told.
    receive_maximum: u16,
    /// Of what else it was told: the number by which the shard finds it.
    pub terms: u8,
    /// That we assign.
    topic_alias_max: u8,
    /// There once an alias was used.
    aliases: Option<Box<Aliases>>,
}

impl Link {
    /// The maxima are those of the client's CONNECT; a 3.x client has none: 65,535, `u32::MAX` and 0.
    pub fn new(
        version: Version,
        receive_maximum_of_client: u16,
        packet_size_max_of_client: u32,
        topic_alias_max_of_client: u16,
        limits: &Limits,
    ) -> Link {
        // [MQTT-4.9.0-1]
        let send_quota_max = receive_maximum_of_client.min(limits.send_maximum).max(1);
        let topic_alias_max = match version {
            // [MQTT-3.3.2-11]
            Version::V5 => {
                topic_alias_max_of_client.min(limits.topic_alias_max).min(OUTGOING_MAX.into()) as u8
            }
            Version::V31 | Version::V311 => 0,
        };
        Link {
            version,
            packet_size_max: packet_size_max_of_client,
            send_quota: send_quota_max,
            send_quota_max,
            receive_used: 0,
            receive_maximum: limits.receive_maximum,
            terms: 0,
            topic_alias_max,
            aliases: None,
        }
    }

    /// The Topic Name that a PUBLISH of the client means; sets the alias if it comes with a topic. `alias_max` is what the
    /// client was told.
    ///
    /// # Errors
    /// 0x94 for an alias above the announced maximum; 0x82 for one without a topic, or neither topic nor alias.
    /// // [MQTT-3.3.2-9] [MQTT-3.3.2-12] [U5-3.3.2-1] [U5-3.3.4-1] [U5-3.3.4-2]
    pub fn resolve_topic<'t>(
        &mut self,
        topic: &'t str,
        alias: u16,
        alias_max: u16,
    ) -> Result<ResolvedTopic<'t>, DecodeError> {
        if alias == 0 {
            return if topic.is_empty() {
                Err(DecodeError::ProtocolError("Topic Name is empty and there is no Topic Alias"))
            } else {
                Ok(ResolvedTopic::Given(topic))
            };
        }
        self.aliases.get_or_insert_default().resolve(topic, alias, alias_max)
    }

    /// PUBLISH packets of QoS 1 and 2 that may be sent before an acknowledgement is needed.
    pub fn send_quota(&self) -> u16 {
        self.send_quota
    }

    /// PUBLISH packets of QoS 1 and 2 from the client that are not acknowledged yet.
    pub fn receive_used(&self) -> u16 {
        self.receive_used
    }

    /// For so many deliveries that begin.
    pub(super) fn take_send_quota(&mut self, count: u16) {
        debug_assert!(self.send_quota >= count, "[MQTT-4.9.0-2]");
        self.send_quota = self.send_quota.saturating_sub(count);
    }

    /// So many deliveries that took quota on this connection have ended. // [U5-4.9-1]
    pub(super) fn give_send_quota(&mut self, count: u16) {
        debug_assert!(count <= self.send_quota_max - self.send_quota);
        self.send_quota = self.send_quota_max.min(self.send_quota.saturating_add(count));
    }

    /// Counts a PUBLISH from the client; false if that is one too many. A 3.x client is not told the Receive Maximum
    /// and so not held to it: what it may have open is bounded by its Packet Identifiers.
    /// // [MQTT-3.3.4-7] [U5-3.3.4-3]
    #[must_use]
    pub(super) fn take_receive_quota(&mut self) -> bool {
        let allowed = self.version != Version::V5 || self.receive_used < self.receive_maximum;
        self.receive_used = self.receive_used.saturating_add(u16::from(allowed));
        allowed
    }

    pub(super) fn give_receive_quota(&mut self) {
        debug_assert!(self.receive_used > 0);
        self.receive_used = self.receive_used.saturating_sub(1);
    }

    /// Whether a PUBLISH to this client may name its topic by an alias.
    #[inline]
    pub(super) fn assigns_aliases(&self) -> bool {
        self.topic_alias_max > 0
    }

    /// How `topic` may be named to this client.
    /// [MQTT-3.1.2-26] [MQTT-3.1.2-27]
    #[inline]
    pub(super) fn alias_of(&self, topic: &str) -> Alias {
        if self.topic_alias_max == 0 {
            return Alias::None;
        }
        match &self.aliases {
            Some(aliases) => aliases.alias_of(topic, self.topic_alias_max),
            None => Aliases::default().alias_of(topic, self.topic_alias_max),
        }
    }

    /// `topic` was written together with the alias that [`Link::alias_of`] offered.
    pub(super) fn alias_written(&mut self, topic: &str) {
        self.aliases.get_or_insert_default().assign(topic);
    }
}

/// Deliveries that a session may have begun and not finished, over all its connections.
pub(super) fn in_flight_max(limits: &Limits) -> usize {
    usize::from(limits.send_maximum.max(1)).min(IN_FLIGHT_MAX)
}
