//! Flags to [`Limits`], and how the memory is shared out.

use super::commands::Unfit;
use super::flags::{Flags, QueueFullFlag};
use super::size::{Size, bytes};
use crate::io::machine::Machine;
use crate::limits::{Limits, QueueFull, SEND_BUFFER_BYTES_MAX, SEND_BURST_PACKETS};
use crate::memory::{CLASSES, Class};

/// The largest packet that the Remaining Length can express, with its fixed header.
pub(super) const PACKET_SIZE_MAX: u64 = 268_435_455 + 5;
/// No client can live on less.
pub(super) const PACKET_SIZE_MIN: u64 = 128;
/// No broker can live on less.
const MEMORY_MIN: u64 = 16 << 20;
/// One connection may wait with no more than this part of the memory for sending, beyond its send
/// buffer.
const SEND_BURST_SHARE: u64 = 16;

pub(super) fn limits(flags: &Flags, machine: &Machine) -> Result<Limits, Unfit> {
    let Flags { client, packet, queue, memory, .. } = flags;
    let packet_size_max = size("packet-size-max", packet.packet_size_max, PACKET_SIZE_MIN, PACKET_SIZE_MAX)?;
    let connect_packet_size_max =
        size("connect-packet-size-max", packet.connect_packet_size_max, PACKET_SIZE_MIN, PACKET_SIZE_MAX)?;
    let default_memory = Size((machine.memory() / 4 * 3).max(MEMORY_MIN));
    let send_buffer = queue.send_buffer_max.unwrap_or(Size(SEND_BUFFER_BYTES_MAX.into()));
    let mut limits = Limits {
        connections_max: client.connections_max.unwrap_or(Limits::default().connections_max),
        packet_size_max: packet_size_max as u32,
        connect_packet_size_max: connect_packet_size_max.min(packet_size_max) as u32,
        connect_timeout_ms: client.connect_timeout.ms,
        receive_maximum: packet.receive_maximum,
        send_maximum: packet.send_maximum,
        topic_alias_max: packet.topic_alias_max,
        topic_levels_max: packet.topic_levels_max,
        properties_max: packet.properties_max,
        subscriptions_max: client.subscriptions_max,
        queue_messages_max: queue.queue_messages_max,
        queue_bytes_max: queue.queue_bytes_max.0,
        queue_full: match queue.queue_full {
            QueueFullFlag::DropNewest => QueueFull::DropNewest,
            QueueFullFlag::DropOldest => QueueFull::DropOldest,
            QueueFullFlag::Disconnect => QueueFull::Disconnect,
        },
        share_wait_ms: queue.share_wait.ms,
        send_buffer_bytes_max: size("send-buffer-max", send_buffer, 1024, 1 << 30)? as u32,
        send_burst_bytes_max: 0,
        retained_messages_max: queue.retained_messages_max,
        retained_bytes_max: queue.retained_bytes_max.0,
        session_expiry_max_s: client.session_expiry_max.whole_s() as u32,
        keep_alive_max_s: client.keep_alive_max.whole_s() as u16,
        memory_max: size(
            "memory-max",
            memory.memory_max.unwrap_or(default_memory),
            MEMORY_MIN,
            i64::MAX as u64,
        )?,
    };
    if queue.send_buffer_max.is_none() {
        let most = pools(&limits)[Class::Send as usize] / SEND_BURST_SHARE;
        let packets = packet_size_max * u64::from(SEND_BURST_PACKETS);
        limits.send_burst_bytes_max = packets.min(most).min(1 << 30) as u32;
    }
    Ok(limits)
}

/// What was asked for and cannot be had when it is needed.
pub(super) fn warnings(flags: &Flags, machine: &Machine) -> Vec<String> {
    let asked = flags.memory.memory_max.filter(|asked| asked.0 > machine.memory());
    asked
        .map(|asked| {
            let of = if machine.memory_max.is_some() { "the cgroup grants" } else { "this machine has" };
            format!(
                "--memory-max {asked} is more than the {} that {of}: the kernel may kill the broker \
                 before it reaches this limit. Leave the flag out to use three quarters",
                bytes(machine.memory())
            )
        })
        .into_iter()
        .collect()
}

/// By setting, what holds where another limit cuts what was asked for, or nothing was and this
/// machine decides.
pub(super) fn adjusted(flags: &Flags, limits: &Limits, machine: &Machine) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if flags.packet.connect_packet_size_max.0 > limits.packet_size_max.into() {
        let holds = Size(limits.connect_packet_size_max.into());
        found.push(("connect-packet-size-max", format!("{holds} applies, which is packet-size-max")));
    }
    let half = limits.memory_max / 2;
    if limits.retained_bytes_max > half {
        found.push(("retained-bytes-max", format!("{} applies, half of memory-max", Size(half))));
    }
    if flags.memory.memory_max.is_none() {
        let holds = Size(limits.memory_max);
        found.push(("memory-max", format!("{holds} applies, three quarters of the memory here")));
    }
    if let Some(asked) = flags.memory.memory_max.filter(|asked| asked.0 > machine.memory()) {
        found.push(("memory-max", format!("{asked} is more than the {} here", bytes(machine.memory()))));
    }
    found
}

pub(super) fn size(setting: &'static str, Size(bytes): Size, min: u64, max: u64) -> Result<u64, Unfit> {
    if (min..=max).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(Unfit {
            setting,
            what: format!("{} is not between {} and {}", Size(bytes), Size(min), Size(max)),
        })
    }
}

/// How `memory_max` is split among the classes of kept bytes, for [`crate::memory::Pool::new`].
///
/// Retained messages have what was asked for them, but no more than half; the rest goes to queues
/// (45 %), sends (20 %), receives (12 %), CONNECTs that are not whole (3 %), subscriptions (10 %),
/// sessions (5 %) and the mesh (5 %). What a class does not use is not lent to another: a flood of
/// one kind must not take what another needs to drain it.
pub fn pools(limits: &Limits) -> [u64; CLASSES] {
    let retained = limits.retained_bytes_max.min(limits.memory_max / 2);
    let hundredth = (limits.memory_max - retained) / 100;
    let mut pools = [0; CLASSES];
    pools[Class::Retained as usize] = retained;
    pools[Class::Queue as usize] = hundredth * 45;
    pools[Class::Send as usize] = hundredth * 20;
    pools[Class::Receive as usize] = hundredth * 12;
    pools[Class::Login as usize] = hundredth * 3;
    pools[Class::Subscription as usize] = hundredth * 10;
    pools[Class::Session as usize] = hundredth * 5;
    pools[Class::Mesh as usize] = hundredth * 5;
    pools
}
