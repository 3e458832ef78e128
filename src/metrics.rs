//! Counters of one shard: plain atomics with one writer, which anybody may read and add up.
//!
//! A bump is a load and a store of a cache line that only its shard writes. Names end in `_total` where they only grow;
//! the others are gauges.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What one shard has done and holds.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl Counters {
            /// Names in the order of [`Counters::values`].
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];

            /// All values.
            pub fn values(&self) -> Vec<u64> {
                vec![$(self.$name.get()),*]
            }
        }
    };
}

counters! {
    /// Connections that exist here, handshakes and closing ones included.
    connections,
    /// Connections whose CONNECT was accepted.
    clients_connected,
    /// Sessions, connected or not.
    sessions,
    /// Subscriptions, shared ones included.
    subscriptions,
    /// Shared subscriptions alone.
    subscriptions_shared,
    /// Retained messages owned by this shard.
    retained_messages,
    /// Their bytes.
    retained_bytes,
    /// Messages in sessions, queued or in flight.
    queued_messages,
    /// Bytes charged for them.
    queued_bytes,
    /// Bytes of sessions themselves: records and wills.
    session_bytes,
    /// Bytes of subscriptions, their filters, and those of other shards.
    subscription_bytes,
    /// Bytes that wait to be parsed or sent.
    buffers_held,
    /// Timers set.
    timers,
    /// Messages that wait for other shards or for this one.
    mesh_waiting,
    /// Connections that are not read because another shard is saturated or a switch waits.
    connections_paused,
    /// When the first of the listeners' certificates expires, in seconds since 1970; 0 without TLS. The same on all
    /// shards.
    certificate_expiry_s,
    /// Connections accepted from the kernel.
    connections_accepted_total,
    /// Connections refused because of a limit.
    connections_refused_total,
    /// Connections handed to their home.
    hand_offs_total,
    /// Subscriptions refused because a session has as many as it may, or the memory for them is used up.
    subscriptions_refused_total,
    /// Connections closed because the memory for partial packets was used up.
    dropped_receive_memory_total,
    /// Connections closed because the memory for unfinished CONNECTs was used up.
    dropped_login_memory_total,
    /// Times accepting stopped because too many connections waited to go home.
    accept_holds_total,
    /// CONNECT packets refused.
    connects_refused_total,
    /// Those of them whose session had no room.
    sessions_refused_total,
    /// User names or passwords that were wrong.
    logins_failed_total,
    /// Sessions taken over by another connection.
    takeovers_total,
    /// Takeovers whose old connection did not end in time.
    takeovers_forced_total,
    /// Sessions that expired.
    sessions_expired_total,
    /// Sessions ended because their queue was full, where that is the policy.
    sessions_ended_queue_full_total,
    /// Connections closed for an error of the peer.
    protocol_errors_total,
    /// Connections closed by Keep Alive.
    keep_alive_timeouts_total,
    /// Connections closed before a CONNECT came.
    connect_timeouts_total,
    /// Handshakes of transports (TLS) that came to their end.
    handshakes_total,
    /// Connections closed because the peer broke the rules of its transport, or could not prove who it is.
    transport_failures_total,
    /// Control Packets received.
    packets_received_total,
    /// Control Packets sent.
    packets_sent_total,
    /// Bytes received.
    bytes_received_total,
    /// Bytes sent.
    bytes_sent_total,
    /// PUBLISH packets received.
    publish_received_total,
    /// Payload bytes of them.
    publish_bytes_received_total,
    /// PUBLISH packets sent.
    publish_sent_total,
    /// Payload bytes of them.
    publish_bytes_sent_total,
    /// QoS 0 messages dropped because the receiver's send buffer was full.
    dropped_send_buffer_total,
    /// Messages dropped because a session's queue was full, the newest ones.
    dropped_queue_full_total,
    /// Messages dropped because a session's queue was full, the oldest ones.
    dropped_queue_oldest_total,
    /// Messages dropped because the memory for queues was used up.
    dropped_memory_total,
    /// Messages dropped because they had expired.
    dropped_expired_total,
    /// Messages dropped because the receiver takes no packet so large.
    dropped_too_large_total,
    /// QoS 0 messages for sessions without a connection.
    dropped_offline_total,
    /// Messages of share groups without any member left.
    dropped_no_member_total,
    /// Messages dropped with the session that held them.
    dropped_session_end_total,
    /// Messages that their publisher may not publish, and deliveries that the rules do not allow.
    dropped_denied_total,
    /// Retained messages not stored because of a limit.
    dropped_retained_full_total,
    /// Live messages that went out ahead of what was retained for the same subscription, because no more could wait.
    retained_overtaken_total,
    /// Commits of the message log that are on disk.
    store_commits_total,
    /// Their bytes.
    store_bytes_total,
    /// Writes of the message log that failed.
    store_errors_total,
    /// Walks of the message log that are complete.
    store_walks_total,
    /// Bytes of the message log that are not on disk yet.
    store_waiting_bytes,
    /// Segments of the message log in use.
    store_segments,
    /// Sessions that are kept on disk.
    store_sessions,
    /// Messages of QoS 1 and 2 that were refused because the data directory is full.
    refused_store_full_total,
    /// What the start found damaged in the data directory; counted at shard 0.
    store_damaged,
    /// QoS 2 messages that a kept session got and does not remember, since the memory for queues is used up: if the broker
    /// crashes before their publisher has sent PUBREL, the session may get them twice.
    repetitions_unguarded_total,
    /// Messages sent to other shards.
    mesh_sent_total,
    /// Messages received from other shards.
    mesh_received_total,
    /// Doorbells rung.
    doorbells_total,
    /// Times a connection was paused.
    pauses_total,
    /// Turns of the loop.
    turns_total,
    /// Completions taken.
    completions_total,
    /// Sends handed to the kernel.
    sends_total,
    /// Receives armed.
    receives_total,
    /// System calls of the loop.
    system_calls_total,
    /// Allocations of the shard's thread; counted only in builds with `count-allocations`.
    allocations_total,
    /// Receives that found no free buffer.
    no_buffers_total,
}

/// One number with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Only by the owning shard.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Only by the owning shard.
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Only by the owning shard.
    pub fn sub(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(count), Ordering::Relaxed);
    }
}

/// The sum over all shards.
pub fn sum(counters: &[Counters], of: impl Fn(&Counters) -> &Counter) -> u64 {
    counters.iter().map(|shard| of(shard).get()).fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_go_together() {
        let counters = Counters::default();
        counters.sessions.add(3);
        counters.sessions.sub(1);
        let at = Counters::NAMES.iter().position(|name| *name == "sessions").unwrap();
        assert_eq!(counters.values()[at], 2);
        assert_eq!(sum(&[counters, Counters::default()], |c| &c.sessions), 2);
    }
}
