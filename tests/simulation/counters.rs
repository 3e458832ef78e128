//! The broker's counters beside what the kernel and the clients of the run saw: equal where both know, within bounds
//! where one of them cannot, and zero where nothing of the run could have led to it.

use ringmq::io::sim::{Fault, FaultCounts, Tally};
use ringmq::limits::QueueFull;
use ringmq::metrics::Counters;

use crate::client::Sums;
use crate::oracle::{Checker, Oracle};
use crate::plan::{Plan, What};

/// What is known once everything is quiet.
#[derive(Debug)]
pub struct Witness<'a> {
    pub plan: &'a Plan,
    pub tally: Tally,
    pub faults: FaultCounts,
    /// There was a crash: counters began anew, and what clients and the kernel saw did not.
    pub crashed: bool,
    /// Of all clients together.
    pub clients: Sums,
    /// Connections that clients have and the broker accepted.
    pub connected: u64,
    /// Sockets that shards have not closed.
    pub open: u64,
    /// Bytes charged for retained messages.
    pub charged: u64,
    /// What the retained store holds, if it was just looked at and has nothing but what clients published.
    pub stored: Option<u64>,
    /// The counters, added up over all shards, in the order of their names.
    pub values: Vec<u64>,
}

impl Witness<'_> {
    fn of(&self, name: &str) -> u64 {
        let at = Counters::NAMES.iter().position(|other| *other == name);
        self.values[at.unwrap_or_else(|| panic!("there is no counter {name}"))]
    }

    /// Every counter that something else tells too.
    pub fn check(&self, oracle: &mut Oracle) {
        let certain = oracle.messages.iter().filter(|m| !m.will && m.fate == crate::oracle::Fate::Certain);
        let certain = certain.count() as u64;
        let equal = [
            ("connections_accepted_total", self.tally.accepted),
            ("bytes_received_total", self.tally.received),
            ("bytes_sent_total", self.tally.sent),
            ("no_buffers_total", self.faults.of(Fault::NoBuffers)),
            ("hand_offs_total", self.tally.moved),
            ("mesh_received_total", self.of("mesh_sent_total")),
            ("connections", self.open),
            ("retained_bytes", self.charged),
        ];
        let known = equal.into_iter().filter(|(name, _)| !self.crashed || !name.ends_with("_total"));
        for (name, seen) in known.chain(self.stored.map(|stored| ("retained_messages", stored))) {
            let counted = self.of(name);
            oracle.check(Checker::Counters, counted == seen, |_| {
                format!("{name} is {counted}, but it must be {seen}")
            });
        }
        let sums = &self.clients;
        let within = [
            ("clients_connected", self.connected, self.open),
            ("publish_received_total", certain, sums.publishes),
            ("publish_sent_total", sums.received, u64::MAX),
            ("publish_bytes_sent_total", sums.payload_bytes, u64::MAX),
            ("packets_received_total", certain, sums.packets),
            ("packets_sent_total", sums.received + sums.answers, u64::MAX),
            ("takeovers_total", 0, sums.connects),
            ("protocol_errors_total", 0, sums.offences),
            ("sessions", self.connected, sums.connects),
        ];
        for (name, least, most) in within {
            let least = if self.crashed && name.ends_with("_total") { 0 } else { least };
            let counted = self.of(name);
            oracle.check(Checker::Counters, (least..=most).contains(&counted), |_| {
                format!("{name} is {counted}, but must be between {least} and {most}")
            });
        }
        for name in self.impossible() {
            let counted = self.of(name);
            oracle.check(Checker::Counters, counted == 0, |_| {
                format!("{name} is {counted}, but nothing in this run could lead to it")
            });
        }
    }

    /// Counters that nothing in the plan can move.
    fn impossible(&self) -> Vec<&'static str> {
        let plan = self.plan;
        let connects = || {
            plan.steps.iter().filter_map(|step| match &step.what {
                What::Connect(plan) | What::TakeOver(_, plan) => Some(plan),
                _ => None,
            })
        };
        let publishes = |of: fn(&crate::plan::PublishPlan) -> bool| {
            plan.steps.iter().any(|step| matches!(&step.what, What::Publish(publish) if of(publish)))
        };
        let policy = plan.limits.queue_full;
        let short = plan.is_short_of_sessions();
        let rows: [(bool, &'static str); 19] = [
            (policy != QueueFull::DropOldest, "dropped_queue_oldest_total"),
            (policy != QueueFull::Disconnect, "sessions_ended_queue_full_total"),
            (connects().all(|plan| plan.packet_size_maximum.is_none()), "dropped_too_large_total"),
            (!publishes(|plan| plan.expiry_s.is_some()), "dropped_expired_total"),
            (
                plan.steps.iter().all(|step| !matches!(step.what, What::Share { .. })),
                "dropped_no_member_total",
            ),
            (connects().all(|plan| plan.keep_alive_s == 0), "keep_alive_timeouts_total"),
            (plan.shards_max() == 1, "hand_offs_total"),
            (plan.shards_max() == 1, "mesh_sent_total"),
            (plan.shards_max() == 1, "doorbells_total"),
            (plan.shards_max() == 1, "pauses_total"),
            (true, "connections_refused_total"),
            (!short, "connects_refused_total"),
            (!short, "sessions_refused_total"),
            (true, "logins_failed_total"),
            (!short, "subscriptions_refused_total"),
            (true, "dropped_denied_total"),
            (true, "dropped_receive_memory_total"),
            (true, "dropped_login_memory_total"),
            (true, "transport_failures_total"),
        ];
        rows.into_iter().filter(|(impossible, _)| *impossible).map(|(_, name)| name).collect()
    }
}
