//! A scripted client: does what its steps say, keeps the rules of the standard, and tells the oracle what it asked for
//! and what it got. It is slow, late and rude as far as its plan says.
//!
//! `asking` is what it sends of its own accord, `network` how it reads and writes, `answering` what it makes of the
//! broker's packets.

mod answering;
mod asking;
mod network;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ringmq::io::ListenerId;
use ringmq::io::sim::{ClientRead, Endpoint, Odds, Rng, World};
use ringmq::limits::Limits;
use ringmq::shard::Options;

use crate::oracle::{
    Checker, ConnIx, ConnectAsked, Delivery, Fate, Message, Millis, MsgId, Oracle, Over, SessionIx,
    Subscription, Tick, split_share,
};
use crate::packet::{self, Incoming, Properties, Publish, Value, Version};
use crate::plan::{
    ClientPlan, ConnectPlan, FILTERS, Farewell, Leave, PublishPlan, SHARED_IDENTIFIERS, SHARES, TOPICS, What,
};
use crate::trace::Trace;

/// What a client needs of the run while it acts.
pub struct Env<'a> {
    pub world: &'a mut World,
    pub oracle: &'a mut Oracle,
    pub trace: &'a mut Trace,
    pub limits: &'a Limits,
    /// Everybody reads, writes and acknowledges at once.
    pub resting: bool,
    pub stopping: bool,
    /// Of the broker.
    pub shards: u16,
}

/// A PUBLISH of ours that is not acknowledged to the end.
#[derive(Clone, Debug)]
struct Outgoing {
    packet_id: u16,
    message: MsgId,
    released: bool,
    sent_on: ConnIx,
}

#[derive(Debug)]
enum Request {
    Subscribe { packet_id: u16, begun: Vec<usize> },
    Unsubscribe { packet_id: u16, filters: Vec<String>, asked: Tick },
}

/// An acknowledgement that waits until the client feels like sending it.
#[derive(Debug)]
struct Ack {
    kind: u8,
    packet_id: u16,
}

#[derive(Debug)]
struct Conn {
    endpoint: Endpoint,
    ix: ConnIx,
    plan: ConnectPlan,
    accepted: bool,
    continues: bool,
    session: SessionIx,
    out: VecDeque<u8>,
    input: Vec<u8>,
    aliases_in: BTreeMap<u32, String>,
    aliases_out: BTreeMap<u32, usize>,
    server_receive_maximum: usize,
    server_alias_maximum: u32,
    acks: VecDeque<Ack>,
    in_flight: BTreeSet<u16>,
    requests: VecDeque<Request>,
    pings: usize,
    queue: VecDeque<PublishPlan>,
    farewell: Option<Leave>,
    half_closed: bool,
    offended: bool,
    last_written: Millis,
    /// The last time at which nothing was left to write.
    whole_at: Millis,
    /// Up to here the broker has surely seen whole packets.
    confirmed: Millis,
    /// Keep Alive may have run out at some time.
    exposed: bool,
    /// When it was last known to be up, and the tick of that.
    last_good: (Millis, Tick),
    disconnect_code: Option<u8>,
    /// There was no room for its session.
    refused: bool,
}

/// A connection that the client has left.
#[derive(Debug)]
struct Left {
    endpoint: Endpoint,
    conn: ConnIx,
    keep_alive_until: Millis,
    closed: bool,
    lossy: bool,
}

#[derive(Debug)]
pub struct Client {
    pub ix: usize,
    pub name: String,
    plan: ClientPlan,
    rng: Rng,
    conn: Option<Conn>,
    left: Vec<Left>,
    outgoing: VecDeque<Outgoing>,
    /// QoS 2 messages that the broker has not released.
    incoming: BTreeSet<u16>,
    /// The broker's packet identifiers that are not acknowledged to the end, with what came under them.
    unfinished: BTreeMap<u16, Option<MsgId>>,
    /// A CONNECT with Clean Start got no answer: our own state is gone, so the broker's must go too.
    must_clean: bool,
    /// A CONNECT without answer, until the broker closed its connection.
    unanswered: Option<(ConnIx, Endpoint)>,
    packet_id: u16,
    /// Subscriptions that a SUBACK just named.
    acknowledged: Vec<usize>,
    /// Messages with RETAIN that PUBACK or PUBREC just named.
    stored: Vec<MsgId>,
    /// Packet types of the answers that came.
    answers: BTreeSet<u8>,
    pub sums: Sums,
}

/// What clients sent and got, for the counters and the figures.
#[derive(Copy, Clone, Default, Debug)]
pub struct Sums {
    /// CONNECT packets.
    pub connects: u64,
    /// PUBLISH packets, repeated ones and forbidden ones included.
    pub publishes: u64,
    /// All packets, whether they were written to the end or not.
    pub packets: u64,
    /// Forbidden packets.
    pub offences: u64,
    /// PUBLISH packets that came.
    pub received: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// Other packets that came.
    pub answers: u64,
    /// Connections that took the place of one through another shard.
    pub elsewhere: u64,
}

impl Sums {
    pub fn add(&mut self, other: &Sums) {
        let Sums { connects, publishes, packets, offences, received, payload_bytes, answers, elsewhere } =
            other;
        self.connects += connects;
        self.publishes += publishes;
        self.packets += packets;
        self.offences += offences;
        self.received += received;
        self.payload_bytes += payload_bytes;
        self.answers += answers;
        self.elsewhere += elsewhere;
    }
}

impl Client {
    pub fn new(ix: usize, plan: ClientPlan, rng: Rng) -> Client {
        Client {
            ix,
            name: format!("c{ix}"),
            plan,
            rng,
            conn: None,
            left: Vec::new(),
            outgoing: VecDeque::new(),
            incoming: BTreeSet::new(),
            unfinished: BTreeMap::new(),
            must_clean: false,
            unanswered: None,
            packet_id: 0,
            acknowledged: Vec::new(),
            stored: Vec::new(),
            answers: BTreeSet::new(),
            sums: Sums::default(),
        }
    }

    pub fn version(&self) -> Version {
        self.plan.version
    }

    /// Session and connection if they are up and the client has not said goodbye.
    pub fn up(&self) -> Option<(SessionIx, ConnIx)> {
        let conn = self.conn.as_ref()?;
        (conn.accepted && !conn.half_closed && !conn.offended && conn.farewell.is_none())
            .then_some((conn.session, conn.ix))
    }

    /// Subscriptions that were acknowledged since this was last asked.
    pub fn take_acknowledged(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.acknowledged)
    }

    /// Messages with RETAIN for which PUBACK or PUBREC came since this was last asked.
    pub fn take_stored(&mut self) -> Vec<MsgId> {
        std::mem::take(&mut self.stored)
    }

    /// Packet types of the acknowledgements that came since this was last asked.
    pub fn take_answers(&mut self) -> BTreeSet<u8> {
        std::mem::take(&mut self.answers)
    }

    /// All shards ended at once. What the broker had sent at QoS 1 it may not remember, its Packet Identifier included.
    pub fn crashed(&mut self) {
        self.unfinished.retain(|packet_id, _| self.incoming.contains(packet_id));
        self.answers.clear();
    }

    pub fn is_connected(&self) -> bool {
        self.conn.is_some()
    }

    /// What it still waits for, or has not got rid of.
    pub fn unsettled(&self) -> Option<String> {
        let Some(conn) = &self.conn else {
            return self.unanswered.map(|_| format!("{} waits for the end of an old connection", self.name));
        };
        let why = if conn.refused {
            "waits for the broker to close"
        } else if !conn.accepted {
            "waits for CONNACK"
        } else if conn.half_closed || conn.offended || conn.farewell.is_some() {
            "waits for the broker to close"
        } else if !conn.out.is_empty() || !conn.acks.is_empty() {
            "cannot write"
        } else if !conn.requests.is_empty() {
            "waits for SUBACK or UNSUBACK"
        } else if conn.pings > 0 {
            "waits for PINGRESP"
        } else if !self.outgoing.is_empty() || !conn.queue.is_empty() {
            "waits for an acknowledgement of its PUBLISH"
        } else if !self.incoming.is_empty() {
            "waits for PUBREL"
        } else {
            return None;
        };
        Some(format!("{} {why}", self.name))
    }

    // Steps.

    pub fn step(&mut self, env: &mut Env<'_>, what: &What) {
        match what {
            What::Connect(plan) if self.conn.is_none() => self.connect(env, plan.clone()),
            What::TakeOver(farewell, plan) if self.up().is_some() => {
                let shard = self.conn.as_ref().map(|conn| conn.plan.shard);
                self.sums.elsewhere += u64::from(shard != Some(plan.shard));
                self.abandon(env, *farewell);
                self.connect(env, plan.clone());
            }
            What::Subscribe { filters, identifier } => {
                let named = |&(filter, options): &(usize, u8)| (FILTERS[filter].to_string(), options);
                self.subscribe(env, filters.iter().map(named).collect(), *identifier);
            }
            What::Share { share, qos } => {
                let identifier = SHARED_IDENTIFIERS + *share as u32;
                self.subscribe(env, vec![(SHARES[*share].to_string(), *qos)], Some(identifier));
            }
            What::Unsubscribe { filters, shares } => {
                let ordinary = filters.iter().map(|&filter| FILTERS[filter].to_string());
                self.unsubscribe(
                    env,
                    ordinary.chain(shares.iter().map(|&s| SHARES[s].to_string())).collect(),
                );
            }
            What::Publish(plan) => self.publish(env, plan),
            What::Ping if self.up().is_some() => self.ping(),
            What::Leave(how) if self.up().is_some() => self.leave(env, *how),
            What::Offend(kind) if self.up().is_some() => self.offend(env, *kind),
            What::Connect(_) | What::TakeOver(..) | What::Ping | What::Leave(_) | What::Offend(_) => {}
            What::Jump { .. } | What::Rest | What::Crash { .. } => {
                unreachable!("steps of the run, not of a client")
            }
        }
    }
}

impl Conn {
    /// One packet more to write.
    fn say(&mut self, sums: &mut Sums, packet: Vec<u8>) {
        sums.packets += 1;
        sums.publishes += u64::from(packet[0] >> 4 == packet::PUBLISH);
        self.out.extend(packet);
    }

    /// Since when the broker may know that the connection is over, if the client ends it now.
    fn since(&self, env: &Env<'_>) -> (Millis, Tick) {
        if env.oracle.drops.sessions > 0 {
            // The broker may have ended it long ago, and cannot tell a client that does not read.
            let asked = &env.oracle.conns[self.ix];
            (asked.asked_at, asked.at)
        } else if self.may_be_over(env) {
            self.last_good
        } else {
            (env.oracle.now, env.oracle.tick)
        }
    }

    /// Whether something else may have ended it before.
    fn may_be_over(&self, env: &Env<'_>) -> bool {
        env.world.is_failed(self.endpoint)
            || env.world.is_ended_by_shard(self.endpoint)
            || self.is_overdue(env.oracle.now)
            || env.stopping
    }

    /// The broker may have ended it by Keep Alive.
    fn is_overdue(&self, now: Millis) -> bool {
        let keep_alive = Millis::from(self.plan.keep_alive_s) * 1500;
        keep_alive > 0 && (self.exposed || now >= self.confirmed + keep_alive)
    }
}
