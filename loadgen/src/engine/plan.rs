//! Which client lives on which worker. Pure arithmetic, so that every worker knows it without asking.
//!
//! Publisher i lives on worker i mod W, as does its partner in `Pairs`, so that a window turns without crossing cores.
//! All members of a share group live on one worker, which alone sees which messages the group has received.

use crate::spec::{Pattern, Spec};

/// What a client does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Publisher with this number in the run.
    Publisher(u32),
    /// Subscriber with this number in the run.
    Subscriber(u32),
    Idler(u32),
}

impl Role {
    pub fn name(self) -> String {
        match self {
            Role::Publisher(i) => format!("publisher {i}"),
            Role::Subscriber(i) => format!("subscriber {i}"),
            Role::Idler(i) => format!("idle client {i}"),
        }
    }

    /// The Client Identifier: unique in the run, and short enough for any broker (23 bytes).
    pub fn client_id(self, run_id: &str) -> String {
        match self {
            Role::Publisher(i) => format!("lg{run_id}p{i}"),
            Role::Subscriber(i) => format!("lg{run_id}s{i}"),
            Role::Idler(i) => format!("lg{run_id}i{i}"),
        }
    }
}

/// The worker on which a publisher lives, and its number there.
pub fn publisher_home(spec: &Spec, publisher: u32) -> (u32, u32) {
    (publisher % spec.workers, publisher / spec.workers)
}

fn subscriber_worker(spec: &Spec, subscriber: u32) -> u32 {
    match spec.pattern {
        Pattern::Shared { groups } => subscriber % groups % spec.workers,
        Pattern::Pairs | Pattern::All | Pattern::Swallow => subscriber % spec.workers,
    }
}

/// The clients of one worker: subscribers first, since they have to be ready first.
pub fn clients_of(spec: &Spec, worker: u32) -> Vec<Role> {
    let on = |i: &u32| i % spec.workers == worker;
    let subscribers = (0..spec.subscribers).filter(|&i| subscriber_worker(spec, i) == worker);
    subscribers
        .map(Role::Subscriber)
        .chain((0..spec.publishers).filter(on).map(Role::Publisher))
        .chain((0..spec.idlers).filter(on).map(Role::Idler))
        .collect()
}

/// The share group of a subscriber, if the pattern has groups.
pub fn group_of(spec: &Spec, subscriber: u32) -> Option<u32> {
    match spec.pattern {
        Pattern::Shared { groups } => Some(subscriber % groups),
        Pattern::Pairs | Pattern::All | Pattern::Swallow => None,
    }
}

/// The streams that a subscriber receives: the first, and how many.
pub fn streams_of(spec: &Spec, subscriber: u32) -> (u32, u32) {
    match spec.pattern {
        Pattern::Pairs => (subscriber * spec.topics_per_publisher, spec.topics_per_publisher),
        Pattern::All | Pattern::Shared { .. } => (0, spec.streams()),
        Pattern::Swallow => (0, 0),
    }
}

/// Exact filters up to this many topics, a wildcard beyond.
const FILTERS_MAX: u32 = 16;

/// The filters of a client.
pub fn filters_of(spec: &Spec, role: Role) -> Vec<String> {
    let subscriber = match role {
        Role::Subscriber(number) => number,
        Role::Idler(number) => return vec![spec.template.idle("idle", number)],
        Role::Publisher(_) => return Vec::new(),
    };
    if spec.publishers == 0 {
        // A SUBSCRIBE without a filter is malformed [MQTT-3.8.3-2]; this one hears nothing.
        return vec![spec.template.idle("silent", subscriber)];
    }
    let (first, count) = streams_of(spec, subscriber);
    let topics = spec.topics_per_publisher;
    let exact = || (first..first + count).map(|s| spec.template.name(s / topics, s % topics));
    match spec.pattern {
        Pattern::Swallow => Vec::new(),
        Pattern::Pairs | Pattern::All if count <= FILTERS_MAX && !spec.wildcard => exact().collect(),
        Pattern::Pairs => vec![spec.template.filter(Some(subscriber))],
        Pattern::All => vec![spec.template.filter(None)],
        Pattern::Shared { groups } => {
            let group = subscriber % groups;
            vec![format!("$share/g{group}/{}", spec.template.filter(None))]
        }
    }
}
