//! Every limit of the broker, named, with its default, its unit and what happens when it is reached.
//!
//! Settings of the user are fields of [`Limits`]; bounds that nobody needs to change are constants. What is reached is
//! counted under the name given here (see `metrics`).

use crate::clock::Millis;

/// Topics whose subscribers a shard remembers, unless said otherwise.
pub const CACHED_TOPICS_MAX: u32 = 65_536;

/// Bytes of a CONNECT, unless said otherwise: each of its ten strings and binary fields may have its 65,535 bytes, and User
/// Properties have the rest.
pub const CONNECT_PACKET_SIZE_MAX: u32 = 1 << 20;
const _: () = assert!(CONNECT_PACKET_SIZE_MAX > 10 * (u16::MAX as u32 + 3));

/// Bytes that wait for one connection's socket, unless said otherwise; and so many packets as large as may be besides, if its
/// client reads.
pub const SEND_BUFFER_BYTES_MAX: u32 = 1 << 20;
pub const SEND_BURST_PACKETS: u32 = 4;

/// The settings that bound what clients may do. One value for the whole process, the same on every shard.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all, handshakes included. Beyond it a connection is closed when it is accepted.
    pub connections_max: u32,
    /// Bytes of a packet from a client. Beyond it: 0x95 (v5), close.
    pub packet_size_max: u32,
    /// Bytes of a packet before CONNECT was accepted. Beyond it: CONNACK 0x95 (v5), close.
    pub connect_packet_size_max: u32,
    /// Milliseconds from accept to a whole CONNECT. Beyond it: close.
    pub connect_timeout_ms: Millis,
    /// QoS 1 and 2 PUBLISH packets that a v5 client may have unacknowledged. Beyond it: 0x93, close. A 3.x client is not
    /// told of it and not held to it.
    pub receive_maximum: u16,
    /// QoS 1 and 2 PUBLISH packets that the broker has unacknowledged at one client, whatever the client allows.
    pub send_maximum: u16,
    /// Topic aliases, in each direction. Beyond it: 0x94, close.
    pub topic_alias_max: u16,
    /// Levels of a Topic Name or Topic Filter. Beyond it: 0x90 or 0x8F.
    pub topic_levels_max: u16,
    /// Properties in one packet. Beyond it: 0x97, close.
    pub properties_max: u16,
    /// Subscriptions of one session. Beyond it: SUBACK 0x97 (v5), 0x80 (3.1.1).
    pub subscriptions_max: u32,
    /// Messages queued in one session, beside those in flight. Beyond it: [`Limits::queue_full`].
    pub queue_messages_max: u32,
    /// Bytes queued in one session. Beyond it: [`Limits::queue_full`].
    pub queue_bytes_max: u64,
    /// What gives way when a session's queue is full.
    pub queue_full: QueueFull,
    /// Milliseconds that messages of share groups wait in the queue of a connected member that takes none. Then other
    /// members get them. 0 lets them wait.
    pub share_wait_ms: Millis,
    /// Bytes that wait for one connection's socket. Beyond it QoS 0 messages are dropped and QoS 1 and 2 stay queued.
    pub send_buffer_bytes_max: u32,
    /// Bytes that may wait beyond [`Limits::send_buffer_bytes_max`], as long as the socket takes bytes and half of the memory
    /// for sending is free; see `shard::lend`. 0: none.
    pub send_burst_bytes_max: u32,
    /// Retained messages. Beyond it a message on a new topic is delivered but not retained; an existing one is still
    /// replaced.
    pub retained_messages_max: u64,
    /// Bytes of retained messages; as above.
    pub retained_bytes_max: u64,
    /// Seconds that a session outlives its connection at most. A longer wish is shortened and announced (v5).
    pub session_expiry_max_s: u32,
    /// Longest Keep Alive of v5 clients, in seconds; 0 leaves it to the client. 3.x clients keep theirs.
    pub keep_alive_max_s: u16,
    /// Bytes of memory in all classes together (see `memory::Class`).
    pub memory_max: u64,
}

/// Those of the limits that a listener may have of its own: what holds for a connection, not for a session, a shard or
/// the machine.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Connections that came in here, beside [`Limits::connections_max`], which holds too. Beyond it a connection is
    /// closed when it is accepted.
    pub connections_max: Option<u32>,
    /// As [`Limits::packet_size_max`], and so on.
    pub packet_size_max: u32,
    pub connect_packet_size_max: u32,
    pub connect_timeout_ms: Millis,
    pub keep_alive_max_s: u16,
    pub session_expiry_max_s: u32,
}

impl ListenerLimits {
    /// What holds at a listener without limits of its own.
    pub fn of(limits: &Limits) -> ListenerLimits {
        ListenerLimits {
            connections_max: None,
            packet_size_max: limits.packet_size_max,
            connect_packet_size_max: limits.connect_packet_size_max,
            connect_timeout_ms: limits.connect_timeout_ms,
            keep_alive_max_s: limits.keep_alive_max_s,
            session_expiry_max_s: limits.session_expiry_max_s,
        }
    }
}

/// What gives way when a session's queue is full.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum QueueFull {
    /// The message that does not fit any more.
    DropNewest,
    /// The one that has waited longest.
    DropOldest,
    /// The client: 0x97 and close; its session ends as if it had expired, since what it missed is unknown.
    Disconnect,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 1_000_000,
            packet_size_max: 8 << 20,
            connect_packet_size_max: CONNECT_PACKET_SIZE_MAX,
            connect_timeout_ms: 10_000,
            receive_maximum: 1024,
            send_maximum: 1024,
            topic_alias_max: 64,
            topic_levels_max: 128,
            properties_max: 256,
            subscriptions_max: 100_000,
            queue_messages_max: 1000,
            queue_bytes_max: 64 << 20,
            queue_full: QueueFull::DropNewest,
            share_wait_ms: 2000,
            send_buffer_bytes_max: SEND_BUFFER_BYTES_MAX,
            send_burst_bytes_max: SEND_BURST_PACKETS * (8 << 20),
            retained_messages_max: 1_000_000,
            retained_bytes_max: 1 << 30,
            session_expiry_max_s: 7 * 24 * 3600,
            keep_alive_max_s: 0,
            memory_max: 1 << 32,
        }
    }
}
