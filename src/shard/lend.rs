//! Room beyond the send buffer, for QoS 0 to clients that read.
//!
//! A burst of large messages is more than a send buffer holds, though its receiver is well: the socket is about to take it.
//! So what does not fit any more is lent room, message by message. Nobody is lent more than
//! [`Limits::send_burst_bytes_max`](crate::limits::Limits::send_burst_bytes_max). Nobody is lent anything once half of the
//! memory for sending is used: that half is for the send buffers of all. And nobody is lent more whose socket took nothing for
//! [`SEND_GRACE_MS`]. What is lent is charged before it is staged, and is back once no more waits than a send buffer holds.
//!
//! Nothing of this is on the way of a message that fits.

use crate::clock::Millis;
use crate::memory::{Class, Key};
use crate::session::{Delivered, DropReason, Fanout, Grant};

use super::clients::Clients;
use super::env::Env;
use super::local::Local;

/// How long a socket that was lent room may take nothing before it is lent no more.
pub(super) const SEND_GRACE_MS: Millis = 10_000;

/// Bytes of a PUBLISH besides its topic, properties, payload and Subscription Identifiers, at most; and of one of those.
const HEAD_BYTES: usize = 64;
const IDENTIFIER_BYTES: usize = 5;

/// What one connection was lent.
#[derive(Debug)]
pub(super) struct Lent {
    pub bytes: usize,
    /// When its socket last took something, or it was first lent to.
    pub taken_at: Millis,
}

impl Clients {
    /// Whether so many bytes more may wait for a client.
    fn lend(&mut self, key: Key, size: usize, env: &mut Env) -> bool {
        let (now, max) = (env.now, env.limits.send_burst_bytes_max as usize);
        let Some(connection) = self.connections.get_mut(key) else { return false };
        let (bytes, taken_at) = connection.lent.as_ref().map_or((0, now), |lent| (lent.bytes, lent.taken_at));
        let reads = now.saturating_sub(taken_at) < SEND_GRACE_MS && !connection.broken;
        if connection.starved || !reads || bytes + size > max || !env.budget.charge_spare(Class::Send, size) {
            return false;
        }
        connection.charged_send += size as u32; // bounded by `max`
        connection.lent = Some(Box::new(Lent { bytes: bytes + size, taken_at }));
        true
    }
}

impl Local {
    /// Delivers a message of QoS 0 that does not fit into the send buffer, if its receiver is lent the room.
    #[cold]
    #[inline(never)]
    pub(super) fn deliver_lent(
        &mut self,
        session: Key,
        fanout: &mut Fanout<'_>,
        grant: &Grant<'_>,
    ) -> Delivered {
        const DROPPED: Delivered = Delivered::Dropped(DropReason::SendBuffer);
        let message = &fanout.message;
        let fields = message.topic.len() + message.properties.len() + message.payload.len();
        let size = HEAD_BYTES + fields + IDENTIFIER_BYTES * grant.identifiers.len();
        let Some(key) = self.sessions.arena.get(session).and_then(|slot| slot.connection) else {
            return DROPPED;
        };
        if !self.clients.lend(key, size, &mut self.env) {
            return DROPPED;
        }
        let delivered = self.with_wire(session, |session, mut wire, cx| {
            wire.send_room = size;
            session.deliver(Some(wire), fanout, grant, cx)
        });
        self.clients.mark_dirty(key);
        delivered.map_or(DROPPED, |(_, delivered)| delivered)
    }
}
