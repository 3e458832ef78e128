//! What clients missed for want of room, by client and reason, and what the rules denied them: said once per period, never
//! a line per message. And which sessions hold the most, for `$SYS`.
//!
//! A drop costs a look at its session; what is noted there is at most one small box per session that missed something in
//! this period. Invariant: a session that has the box is in the list, once; one that ended may still be there.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::clock::Millis;
use crate::log::{self, Kind, Level, Value};
use crate::memory::Key;
use crate::session::{DropReason, Drops};

use super::env::Env;
use super::local::Local;
use super::sessions::Sessions;
use super::slots::Slot;

/// How often the log says what clients missed.
pub(super) const REPORT_MS: Millis = 10_000;

/// Clients with a line of their own in one report of one shard; of the others only the number is said.
const CLIENTS_MAX: usize = 20;

/// Lines about one client in one report's time that say what it was denied: PUBLISH and SUBSCRIBE each.
const DENIED_LINES_MAX: u8 = 5;

/// Sessions in `$SYS/broker/shard/N/deepest`.
pub(super) const DEEPEST_MAX: usize = 10;

/// Characters of a Client Identifier there.
const CLIENT_CHARS_MAX: usize = 64;

/// Messages that one session missed since the last report.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Missed {
    queue_full: u64,
    queue_oldest: u64,
    send_buffer: u64,
    memory: u64,
    too_large: u64,
    denied_publish: Denials,
    denied_subscribe: Denials,
}

/// What a client was denied since the last report.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
struct Denials {
    /// Lines that the log has about it.
    said: u8,
    /// Those without a line.
    more: u64,
}

/// What a client asked for that the rules do not allow.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Denied {
    Publish,
    Subscribe,
}

impl Denied {
    fn name(self) -> &'static str {
        match self {
            Denied::Publish => "PUBLISH",
            Denied::Subscribe => "SUBSCRIBE",
        }
    }
}

impl Missed {
    fn denials(&mut self, denied: Denied) -> &mut Denials {
        match denied {
            Denied::Publish => &mut self.denied_publish,
            Denied::Subscribe => &mut self.denied_subscribe,
        }
    }

    /// Denials without a line of their own.
    fn denied_more(&self) -> [(Denied, u64); 2] {
        [(Denied::Publish, self.denied_publish.more), (Denied::Subscribe, self.denied_subscribe.more)]
    }

    #[cfg(test)]
    pub fn of_queue(queue_full: u64) -> Missed {
        Missed { queue_full, ..Missed::default() }
    }

    fn sum(&self) -> u64 {
        self.queue_full + self.queue_oldest + self.send_buffer + self.memory + self.too_large
    }

    /// By reason, those that occurred.
    fn reasons(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("queue-full", self.queue_full),
            ("queue-oldest", self.queue_oldest),
            ("send-buffer", self.send_buffer),
            ("memory", self.memory),
            ("too-large", self.too_large),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
    }
}

/// Who has missed something since the last report.
#[derive(Debug, Default)]
pub(super) struct Losses {
    sessions: Vec<Key>,
    /// Messages that were delivered and not retained.
    not_retained: u64,
    reported_at: Millis,
}

impl Sessions {
    /// One message did not reach a client. What it could not have got anyway is no loss of this kind.
    pub fn note_drop(&mut self, session: Key, reason: DropReason) {
        self.note(session, |missed| match reason {
            DropReason::SendBuffer => missed.send_buffer += 1,
            DropReason::QueueFull => missed.queue_full += 1,
            DropReason::Memory => missed.memory += 1,
            DropReason::PacketTooLarge => missed.too_large += 1,
            DropReason::Offline | DropReason::Expired => {}
        });
    }

    /// Messages that waited and were deleted.
    pub fn note_drops(&mut self, session: Key, drops: Drops) {
        if drops.oldest + drops.packet_too_large > 0 {
            self.note(session, |missed| {
                missed.queue_oldest += drops.oldest;
                missed.too_large += drops.packet_too_large;
            });
        }
    }

    fn note(&mut self, session: Key, add: impl FnOnce(&mut Missed)) {
        let Some(slot) = self.arena.get_mut(session) else { return };
        let before = slot.aside.missed();
        let mut missed = before;
        add(&mut missed);
        if missed == before {
            return;
        }
        slot.aside.note_missed(missed);
        if before == Missed::default() {
            self.losses.sessions.push(session);
        }
    }

    /// A message was not retained because there is no room.
    pub fn note_not_retained(&mut self, env: &Env) {
        env.counters().dropped_retained_full_total.add(1);
        self.losses.not_retained += 1;
    }

    /// Says what was missed since the last time, if it is time. `address` tells where a connection comes from.
    pub fn report_losses(&mut self, now: Millis, address: impl Fn(Key) -> Option<SocketAddr>) {
        if now < self.losses.reported_at + REPORT_MS {
            return;
        }
        self.losses.reported_at = now;
        let not_retained = std::mem::take(&mut self.losses.not_retained);
        if not_retained > 0 {
            let values = [("why", "no room for retained messages".into()), ("dropped", not_retained.into())];
            log::event(Level::Warn, Kind::LimitReached, &values);
        }
        let mut sessions = std::mem::take(&mut self.losses.sessions);
        let missed = |sessions: &Sessions, session: Key| {
            sessions.get(session).map_or(0, |slot| slot.aside.missed().sum())
        };
        // Of many, those who missed most.
        if sessions.len() > CLIENTS_MAX {
            sessions.sort_by_cached_key(|session| std::cmp::Reverse(missed(self, *session)));
            let others = sessions.split_off(CLIENTS_MAX);
            let dropped: u64 = others.iter().map(|session| missed(self, *session)).sum();
            let clients = others.len() as u64;
            let mut denied = 0;
            for session in others {
                if let Some(slot) = self.arena.get_mut(session) {
                    let missed = slot.aside.take_missed();
                    denied += missed.denied_more().iter().map(|(_, count)| count).sum::<u64>();
                }
            }
            let values = [
                ("why", "more clients missed messages".into()),
                ("clients", Value::from(clients)),
                ("dropped", dropped.into()),
                ("denied", denied.into()),
            ];
            log::event(Level::Warn, Kind::LimitReached, &values);
        }
        for session in sessions {
            self.report_missed(session, &address);
        }
    }

    /// Says what one client missed; also when its session ends.
    pub fn report_missed(&mut self, session: Key, address: impl Fn(Key) -> Option<SocketAddr>) {
        let Some(slot) = self.arena.get_mut(session) else { return };
        let missed = slot.aside.take_missed();
        if missed == Missed::default() || !log::enabled(Level::Warn) {
            return;
        }
        let mut values = who(slot, slot.connection.and_then(address));
        for (denied, count) in missed.denied_more().into_iter().filter(|(_, count)| *count > 0) {
            let more = [("packet", denied.name().into()), ("more", count.into())];
            log::event(Level::Warn, Kind::Denied, &[&values[..], &more].concat());
        }
        if missed.sum() == 0 {
            return;
        }
        values.extend([("why", "it missed messages".into()), ("dropped", missed.sum().into())]);
        values.extend(missed.reasons().map(|(reason, count)| (reason, count.into())));
        log::event(Level::Warn, Kind::LimitReached, &values);
    }

    /// A client was denied something, `count` times in a row. The first ones have a line each, the others are counted and
    /// said with what was missed.
    pub fn log_denied(
        &mut self,
        session: Key,
        (denied, topic): (Denied, &str),
        count: u64,
        address: impl Fn(Key) -> Option<SocketAddr>,
    ) {
        if !log::enabled(Level::Warn) {
            return;
        }
        let Some(slot) = self.arena.get(session) else { return };
        let mut missed = slot.aside.missed();
        let denials = missed.denials(denied);
        let has_line = denials.said < DENIED_LINES_MAX;
        if has_line {
            let mut values = who(slot, slot.connection.and_then(address));
            values.extend([("packet", denied.name().into()), ("topic", topic.into())]);
            log::event(Level::Warn, Kind::Denied, &values);
        }
        self.note(session, |missed| {
            let denials = missed.denials(denied);
            denials.said += u8::from(has_line);
            denials.more += count - u64::from(has_line);
        });
    }

    /// The sessions of this shard that hold the most, as the last survey found them, a line each. `sending` tells how many bytes
    /// the socket of a connection did not take yet.
    pub fn deepest(&self, sending: impl Fn(Key) -> u64) -> String {
        let mut text = String::new();
        for &(_, session) in &self.survey.last.deepest {
            let Some(slot) = self.arena.get(session) else { continue };
            let client: String = slot.client_id.chars().take(CLIENT_CHARS_MAX).collect();
            let _ = writeln!(
                text,
                "client={client:?} queued={} queued_bytes={} in_flight={} sending_bytes={} connected={}",
                slot.session.queue_len(),
                slot.session.queue_bytes(),
                slot.session.inflight_len(),
                slot.connection.map_or(0, &sending),
                slot.connection.is_some(),
            );
        }
        if text.is_empty() {
            text.push_str("none\n");
        }
        text
    }
}

/// Whose session it is, as the log says it.
fn who(slot: &Slot, address: Option<SocketAddr>) -> Vec<(&'static str, Value<'_>)> {
    let mut values = vec![
        ("client", Value::from(&*slot.client_id)),
        ("user", slot.user.as_deref().unwrap_or_default().into()),
    ];
    values.extend(address.map(|address| ("address", address.into())));
    values
}

impl Local {
    /// Says what one client missed.
    pub(super) fn report_missed(&mut self, session: Key) {
        self.sessions.report_missed(session, |connection| self.clients.address(connection));
    }

    /// Once in a while: says what clients missed.
    pub(super) fn report_losses(&mut self) {
        self.sessions.report_losses(self.env.now, |connection| self.clients.address(connection));
    }

    #[cold]
    #[inline(never)]
    pub(super) fn log_denied(&mut self, session: Key, denied: Denied, topic: &str, count: u64) {
        let address = |connection| self.clients.address(connection);
        self.sessions.log_denied(session, (denied, topic), count, address);
    }
}
