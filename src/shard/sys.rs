//! `$SYS`: the counters of all shards as retained messages, each published by the shard that owns its topic.
//!
//! Topic names and text formats are those that exporters for mosquitto read; beside them stand the drops by reason, the
//! live objects, and the counters of each shard under `$SYS/broker/shard/N/`.

use std::fmt::Write;

use crate::clock::{Millis, NEVER};
use crate::memory::MessageView;
use crate::metrics::{self, Counter, Counters};
use crate::topic;
use crate::wire::Qos;

use super::order::{Heard, Owed, Ticket};
use super::{Core, Timer};

/// State between two publications.
pub(super) struct Sys {
    started_at: Millis,
    last_at: Millis,
    /// When the next state is due; [`NEVER`] if none is published.
    due_at: Millis,
    /// By [`RATES`]: the total of last time, and its rates per minute over 1, 5 and 15 minutes.
    rates: Vec<Rate>,
    clients_maximum: u64,
    /// What was published of the deepest sessions.
    deepest: String,
}

#[derive(Copy, Clone, Default)]
struct Rate {
    total: u64,
    per_minute: [f64; 3],
}

/// Timers that are few enough to drop those of gone clients at each state of `$SYS`. Where there are more, the gauge counts
/// those too, until `TIMERS_SPARE` is passed.
const PRUNED_AT_ONCE: usize = 16_384;

/// A number of one shard.
type Pick = fn(&Counters) -> &Counter;

/// Topics below `$SYS/broker/` that are the sum over all shards.
const SUMS: &[(&str, Pick)] = &[
    ("bytes/received", |c| &c.bytes_received_total),
    ("bytes/sent", |c| &c.bytes_sent_total),
    ("clients/connected", |c| &c.clients_connected),
    ("clients/active", |c| &c.clients_connected),
    ("clients/expired", |c| &c.sessions_expired_total),
    ("clients/total", |c| &c.sessions),
    ("connections/accepted", |c| &c.connections_accepted_total),
    ("connections/refused", |c| &c.connections_refused_total),
    ("connects/refused", |c| &c.connects_refused_total),
    ("drops/denied", |c| &c.dropped_denied_total),
    ("drops/expired", |c| &c.dropped_expired_total),
    ("drops/login_memory", |c| &c.dropped_login_memory_total),
    ("drops/memory", |c| &c.dropped_memory_total),
    ("drops/no_member", |c| &c.dropped_no_member_total),
    ("drops/offline", |c| &c.dropped_offline_total),
    ("drops/receive_memory", |c| &c.dropped_receive_memory_total),
    ("drops/queue_full", |c| &c.dropped_queue_full_total),
    ("drops/queue_oldest", |c| &c.dropped_queue_oldest_total),
    ("drops/retained_full", |c| &c.dropped_retained_full_total),
    ("drops/send_buffer", |c| &c.dropped_send_buffer_total),
    ("drops/session_end", |c| &c.dropped_session_end_total),
    ("drops/too_large", |c| &c.dropped_too_large_total),
    ("sessions/bytes", |c| &c.session_bytes),
    ("subscriptions/bytes", |c| &c.subscription_bytes),
    ("subscriptions/refused", |c| &c.subscriptions_refused_total),
    ("sessions/refused", |c| &c.sessions_refused_total),
    ("sessions/ended_queue_full", |c| &c.sessions_ended_queue_full_total),
    ("errors/protocol", |c| &c.protocol_errors_total),
    ("errors/keep_alive", |c| &c.keep_alive_timeouts_total),
    ("errors/connect_timeout", |c| &c.connect_timeouts_total),
    ("live/buffers", |c| &c.buffers_held),
    ("live/connections", |c| &c.connections),
    ("live/mesh", |c| &c.mesh_waiting),
    ("live/retained", |c| &c.retained_messages),
    ("live/sessions", |c| &c.sessions),
    ("live/subscriptions", |c| &c.subscriptions),
    ("live/timers", |c| &c.timers),
    ("messages/received", |c| &c.packets_received_total),
    ("messages/sent", |c| &c.packets_sent_total),
    ("messages/stored", |c| &c.retained_messages),
    ("publish/bytes/received", |c| &c.publish_bytes_received_total),
    ("publish/bytes/sent", |c| &c.publish_bytes_sent_total),
    ("publish/messages/received", |c| &c.publish_received_total),
    ("publish/messages/sent", |c| &c.publish_sent_total),
    ("retained messages/count", |c| &c.retained_messages),
    ("shared_subscriptions/count", |c| &c.subscriptions_shared),
    ("store/messages/bytes", |c| &c.queued_bytes),
    ("store/messages/count", |c| &c.queued_messages),
    ("subscriptions/count", |c| &c.subscriptions),
    ("takeovers", |c| &c.takeovers_total),
];

/// The same, where there is a data directory.
const STORE_SUMS: &[(&str, Pick)] = &[
    ("store/commits", |c| &c.store_commits_total),
    ("store/commit_bytes", |c| &c.store_bytes_total),
    ("store/damaged", |c| &c.store_damaged),
    ("store/errors", |c| &c.store_errors_total),
    ("store/refused", |c| &c.refused_store_full_total),
    ("store/segments", |c| &c.store_segments),
    ("store/sessions", |c| &c.store_sessions),
    ("store/unguarded", |c| &c.repetitions_unguarded_total),
    ("store/waiting_bytes", |c| &c.store_waiting_bytes),
    ("store/walks", |c| &c.store_walks_total),
];

/// Drops that count as `publish/messages/dropped`: what a subscriber missed for want of room.
const DROPS: &[Pick] = &[
    |c| &c.dropped_send_buffer_total,
    |c| &c.dropped_queue_full_total,
    |c| &c.dropped_queue_oldest_total,
    |c| &c.dropped_memory_total,
    |c| &c.dropped_no_member_total,
];

/// Topics below `$SYS/broker/load/` with their totals.
const RATES: &[(&str, Pick)] = &[
    ("bytes/received", |c| &c.bytes_received_total),
    ("bytes/sent", |c| &c.bytes_sent_total),
    ("connections", |c| &c.connections_accepted_total),
    ("messages/received", |c| &c.packets_received_total),
    ("messages/sent", |c| &c.packets_sent_total),
    ("publish/received", |c| &c.publish_received_total),
    ("publish/sent", |c| &c.publish_sent_total),
    ("sockets", |c| &c.connections_accepted_total),
];

const SPANS_MIN: [(&str, f64); 3] = [("1min", 1.0), ("5min", 5.0), ("15min", 15.0)];

impl Sys {
    pub fn new(now: Millis, publishes: bool) -> Sys {
        Sys {
            started_at: now,
            last_at: now,
            due_at: if publishes { now } else { NEVER },
            rates: vec![Rate::default(); RATES.len()],
            clients_maximum: 0,
            deepest: String::new(),
        }
    }

    pub fn is_due(&self, now: Millis) -> bool {
        now >= self.due_at
    }

    /// Whether this is the moment of its timer.
    pub fn is_due_at(&self, at: Millis) -> bool {
        at == self.due_at
    }

    /// Whether it has a timer.
    pub fn is_timed(&self) -> bool {
        self.due_at != NEVER
    }
}

impl Core {
    /// The next state is due after the interval.
    fn time_sys(&mut self) {
        self.sys.due_at = match self.local.env.options.sys_interval_ms {
            0 => NEVER,
            interval_ms => {
                let due_at = self.local.env.now + interval_ms;
                self.local.env.set_timer(due_at, Timer::Sys);
                due_at
            }
        };
    }

    /// The interval between two states is another one from now on.
    pub(super) fn set_sys_interval(&mut self, interval_ms: Millis) {
        if self.local.env.options.sys_interval_ms != interval_ms {
            self.local.env.options.sys_interval_ms = interval_ms;
            self.time_sys();
            self.prune_timers();
        }
    }

    pub(super) fn sys_due(&mut self, heard: Heard<'_>) {
        self.time_sys();
        if self.local.env.timers.len() <= PRUNED_AT_ONCE {
            self.prune_timers();
        }
        self.publish_gauges();
        self.local.sessions.begin_survey(&mut self.local.env, |key| self.local.clients.sending_bytes(key));
        self.local
            .env
            .counters()
            .subscriptions_shared
            .set(self.local.sessions.router.memberships_len() as u64);
        self.local.clients.count_expiry(&self.local.env);
        let all = self.local.env.counters.clone();
        self.update_rates(&all);
        let mut text = String::new();
        self.publish_number(
            "uptime",
            &mut text,
            |text, core| {
                let _ = write!(text, "{} seconds", (core.local.env.now - core.sys.started_at) / 1000);
            },
            heard,
        );
        self.publish_number(
            "version",
            &mut text,
            |text, _| {
                text.push_str(concat!("ringmq version ", env!("CARGO_PKG_VERSION")));
            },
            heard,
        );
        let kept: &[_] = if self.local.env.keep.is_some() { STORE_SUMS } else { &[] };
        for (name, pick) in SUMS.iter().chain(kept) {
            self.publish_sum(name, &mut text, metrics::sum(&all, pick), heard);
        }
        let dropped = DROPS.iter().map(|pick| metrics::sum(&all, pick)).sum();
        self.publish_sum("publish/messages/dropped", &mut text, dropped, heard);
        let connected = metrics::sum(&all, |c| &c.clients_connected);
        let known = metrics::sum(&all, |c| &c.sessions);
        self.publish_sum("clients/disconnected", &mut text, known.saturating_sub(connected), heard);
        self.publish_sum("clients/inactive", &mut text, known.saturating_sub(connected), heard);
        self.sys.clients_maximum = self.sys.clients_maximum.max(connected);
        self.publish_sum("clients/maximum", &mut text, self.sys.clients_maximum, heard);
        for (at, (name, _)) in RATES.iter().enumerate() {
            for (span, (suffix, _)) in SPANS_MIN.iter().enumerate() {
                let rate = self.sys.rates[at].per_minute[span];
                self.publish_number(
                    &format!("load/{name}/{suffix}"),
                    &mut text,
                    |text, _| {
                        let _ = write!(text, "{rate:.2}");
                    },
                    heard,
                );
            }
        }
        let expiries: Vec<_> = self.local.clients.expiries().collect();
        for (listener, expiry) in expiries.iter().enumerate() {
            let shown = [
                ("certificate_expiry", expiry.map(|expiry| expiry.certificate_at_s)),
                ("client_ca_expiry", expiry.and_then(|expiry| expiry.client_ca_at_s)),
            ];
            for (name, at_s) in shown {
                let name = format!("listeners/{listener}/{name}");
                match at_s {
                    Some(at_s) => self.publish_sum(&name, &mut text, at_s, heard),
                    None => self.withdraw(&name, heard),
                }
            }
            let standings = [
                ("certificate", expiry.as_ref().map(|expiry| expiry.certificate)),
                ("client_ca", expiry.as_ref().and_then(|expiry| expiry.client_ca)),
            ];
            for (of, standing) in standings {
                let name = format!("listeners/{listener}/{of}_state");
                let Some(standing) = standing else {
                    self.withdraw(&name, heard);
                    continue;
                };
                self.publish_number(&name, &mut text, |text, _| text.push_str(standing.name()), heard);
            }
        }
        for (shard, counters) in all.iter().enumerate() {
            for (name, value) in Counters::NAMES.iter().zip(counters.values()) {
                let name = name.trim_end_matches("_total");
                self.publish_sum(&format!("shard/{shard}/{name}"), &mut text, value, heard);
            }
        }
        self.publish_deepest(heard);
    }

    /// Only this shard knows its sessions, whoever owns the topic.
    fn publish_deepest(&mut self, heard: Heard<'_>) {
        let deepest = self.local.sessions.deepest(|key| self.local.clients.sending_bytes(key));
        if deepest != self.sys.deepest {
            self.publish_text(
                &format!("$SYS/broker/shard/{}/deepest", self.local.env.id),
                deepest.as_bytes(),
                heard,
            );
            self.sys.deepest = deepest;
        }
    }

    fn publish_sum(&mut self, name: &str, text: &mut String, value: u64, heard: Heard<'_>) {
        self.publish_number(
            name,
            text,
            |text, _| {
                let _ = write!(text, "{value}");
            },
            heard,
        );
    }

    /// Publishes one value if this shard owns its topic and the value is new.
    fn publish_number(
        &mut self,
        name: &str,
        text: &mut String,
        write: impl FnOnce(&mut String, &Core),
        heard: Heard<'_>,
    ) {
        let topic = format!("$SYS/broker/{name}");
        if topic::shard_of(&self.local.env.keys, &topic, self.local.env.shards) != self.local.env.id {
            return;
        }
        text.clear();
        write(text, self);
        if self.retained.store.get(&topic).is_some_and(|message| message.payload() == text.as_bytes()) {
            return;
        }
        self.publish_text(&topic, text.as_bytes(), heard);
    }

    /// Takes a value back that does not hold any more.
    fn withdraw(&mut self, name: &str, heard: Heard<'_>) {
        let topic = format!("$SYS/broker/{name}");
        if self.retained.store.get(&topic).is_some() {
            self.publish_text(&topic, b"", heard);
        }
    }

    fn publish_text(&mut self, topic: &str, payload: &[u8], heard: Heard<'_>) {
        let view = MessageView {
            topic,
            properties: &[],
            payload,
            qos: Qos::AtMostOnce,
            retain: true,
            expires_at: NEVER,
            publisher: 0,
            whole: None,
            origin: 0,
            is_repeat: false,
        };
        let _ = self.publish(&view, Ticket::owed(Owed::Sys, heard));
    }

    fn update_rates(&mut self, all: &[Counters]) {
        let minutes = (self.local.env.now - self.sys.last_at) as f64 / 60_000.0;
        self.sys.last_at = self.local.env.now;
        if minutes <= 0.0 {
            return;
        }
        for ((_, pick), rate) in RATES.iter().zip(&mut self.sys.rates) {
            let total = metrics::sum(all, pick);
            let now_per_minute = total.wrapping_sub(rate.total) as f64 / minutes;
            rate.total = total;
            for ((_, span), average) in SPANS_MIN.iter().zip(&mut rate.per_minute) {
                // Exponential average over the span.
                *average += (now_per_minute - *average) * (1.0 - (-minutes / span).exp());
            }
        }
    }
}
