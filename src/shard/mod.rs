//! One core: its clients, their sessions, its topic index, its ends of the mesh. The only place where all of these meet.
//!
//! [`Shard`] is the shell: it asks [`Io`] for things and takes its answers. [`Core`] is everything else and never
//! touches `Io`: a handler changes state, encodes into outboxes and marks connections dirty; what the world shall do
//! about it is decided once per turn, in `tend`. So nothing is sent from inside a handler.
//!
//! The path of a PUBLISH: `reap` (completion) -> `ingress` (frames, packets) -> `publish` (checks, who gets it) ->
//! `deliver` (matching subscriptions of this shard) and `inbox` on the other shards -> `tend` (one send per turn).
//!
//! | file | what it owns |
//! |---|---|
//! | `env` | what every part needs and none owns: time, limits, memory, counters |
//! | `clients` | the owner of connections and listening sockets |
//! | `sessions` | the owner of sessions and subscriptions |
//! | `local` | what joins these: messages between clients and sessions of this shard |
//! | `keep` | what is written down: records of kept sessions and retained messages, and walks |
//! | `once` | QoS 2 messages that kept sessions have got, so that no repetition reaches them |
//! | `custody` | messages of share groups on their way to another shard, until they are on disk there |
//! | `mirror` | for tests: whether the log says what is in memory |
//! | `disk` | how far the disk is, and who waits for that |
//! | `restore` | from what was on disk to sessions, and when a shard may serve |
//! | `exchange` | the owner of what goes to other shards |
//! | `connection` | a network connection: phase, what is in flight, bytes both ways |
//! | `tend` | brings a connection's operations in line with its phase; close and drain |
//! | `reap` | completions |
//! | `desk` | what other threads want: orders of the control thread, answers about passwords |
//! | `listeners` | what a listening socket's connections speak, and the limits that hold there |
//! | `terms` | what connected clients were told that they may send |
//! | `transports` | transports between socket and stream, and what handshakes may cost in a turn |
//! | `connect` | CONNECT, hand-off to the home shard, takeover, CONNACK |
//! | `login` | who a client is |
//! | `rights` | what a client may publish and receive |
//! | `slots` | sessions by client identifier: begin, end, expiry, will |
//! | `aside` | what few sessions have: who waits for them, what they missed |
//! | `ingress` | Control Packets of a connected client |
//! | `ahead` | memory of many connections, asked for at once |
//! | `filters` | SUBSCRIBE and UNSUBSCRIBE, in slices |
//! | `gather` | a packet that comes in several receives |
//! | `publish` | routing: direct, through the owner of a retained topic, the switch between both |
//! | `lifetime` | what follows from the end of a connection or a session |
//! | `request` | a CONNECT that was read |
//! | `will` | the Will Message of a session |
//! | `pulls` | retained messages on their way to new subscriptions |
//! | `deliver` | a batch of messages to the subscriptions of this shard |
//! | `lend` | room beyond the send buffer, for clients that read |
//! | `share` | share groups: first choice, passing on |
//! | `share_stuck` | share groups: members that take nothing |
//! | `interest` | what other shards must know before a SUBACK may leave |
//! | `ends` | what shards share |
//! | `retained` | retained messages: the store, questions and answers |
//! | `cursors` | the cursors of one session |
//! | `behind` | live messages that wait behind retained ones |
//! | `parcel` | what shards send each other |
//! | `inbox` | parcels of other shards |
//! | `order` | the order between shards: what was heard, what was admitted, and all that is pushed |
//! | `replies` | what a client is told only once other shards have acted |
//! | `waits` | everything that waits for other shards: paused connections, held wills, relays |
//! | `events` | what is written to the log |
//! | `strangers` | what is spoken by who does not speak MQTT |
//! | `losses` | which client missed what, once per period |
//! | `stop` | draining |
//! | `survey` | all sessions, a slice at a time |
//! | `sys` | `$SYS` |

mod ahead;
mod aside;
mod behind;
mod clients;
mod connect;
mod connection;
mod cursors;
mod custody;
mod deliver;
mod desk;
mod disk;
mod ends;
mod env;
mod events;
mod exchange;
mod filters;
mod gather;
mod inbox;
mod ingress;
mod interest;
mod keep;
mod lend;
mod lifetime;
mod listeners;
mod local;
mod login;
mod losses;
mod mirror;
mod once;
mod order;
mod parcel;
mod publish;
mod pulls;
mod reap;
mod replies;
mod request;
mod restore;
mod retained;
mod rights;
mod sessions;
mod share;
mod share_stuck;
mod slots;
mod stop;
mod strangers;
mod survey;
mod sys;
mod tend;
mod terms;
#[cfg(test)]
mod testing;
mod transports;
mod waits;
mod will;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::access::Access;
use crate::clock::{Millis, NEVER};
use crate::io::{Completion, Io, ListenerId};
use crate::limits::{CACHED_TOPICS_MAX, Limits};
use crate::memory::{Budget, Class, Key, Pool, ShardId};
use crate::mesh::Bell;
use crate::metrics::Counters;
use crate::timer::Timers;
use crate::topic::{FilterKey, HashKeys};
use crate::wire::DecodeLimits;

use clients::Clients;
pub use desk::{Control, Desk, NewSettings, NoAnswer, Order, Post, desk};
pub use ends::Ends;
use env::Env;
use exchange::Exchange;
pub use listeners::Listening;
use local::Local;
use order::{Heard, Intake};
pub use parcel::Parcel;
pub use restore::{Opening, Storing};
use retained::Retained;
use sessions::Sessions;
pub use stop::{Lost, Stopping};

/// Everything that a shard is made of.
pub struct Setup {
    pub id: ShardId,
    pub shards: u16,
    pub limits: Limits,
    /// The same on all shards; decides home shards and owners.
    pub keys: HashKeys,
    pub ends: Ends,
    pub pool: Arc<Pool>,
    /// One for each shard; this one writes only its own.
    pub counters: Arc<[Counters]>,
    /// The listening sockets that `Io` knows, by [`ListenerId`].
    pub listeners: Vec<Listening>,
    /// How the shards stop together.
    pub stopping: Arc<Stopping>,
    /// Passwords and rules; by default everybody may do everything.
    pub access: Access,
    pub options: Options,
    /// What was kept, and the log; `None` without a data directory.
    pub store: Option<Storing>,
}

/// Settings of the machinery; the limits of clients are in [`Limits`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Milliseconds between two states of `$SYS`; 0 for none.
    pub sys_interval_ms: Millis,
    /// How long a withdrawn filter stays announced, so that a client that comes back at once moves nothing.
    pub interest_linger_ms: Millis,
    /// Announcements that some shard has not read yet; with more, those behind wait, and SUBACKs with them.
    pub announcements_max: u64,
    /// Relays to one owner that may not be consumed yet by all their targets.
    pub relay_window: u64,
    /// Parcels taken from one peer in a turn.
    pub inbox_budget: usize,
    /// Connections from which on the memory of several is asked for at once; that of fewer stays in the processor's caches.
    pub look_ahead_from: usize,
    /// Entries of the cache from topic to subscriptions; the flag is `--cached-topics-max`.
    pub route_cache_entries: usize,
    /// Clients for which a shard has room before anything has to move; room that was never used is only an address.
    pub clients_expected: usize,
    /// Connections that may wait for room on the way to their home; beyond it accepting stops.
    pub hand_offs_max: usize,
    /// Milliseconds that a closing connection may take to take its last bytes and to close its side.
    pub linger_ms: Millis,
    /// Milliseconds that a takeover waits for the end of the old connection; then only its will may be wrong.
    pub takeover_ms: Millis,
    /// Connections fed in a turn that are in a dear handshake (TLS): 100 microseconds each, twice that with client certificates.
    pub dear_handshakes_per_turn: usize,
    /// The same for cheap handshakes, which read a header or a request: some microseconds each.
    pub cheap_handshakes_per_turn: usize,
    /// Bytes of a paused connection that are kept before its receive is cancelled.
    pub paused_bytes_max: usize,
    /// Retained messages in one answer of an owner.
    pub retained_batch: usize,
    /// Retained topics looked at for one answer.
    pub retained_visits: usize,
    /// Retained topics looked at in a turn for the cursors of this shard, and as many for those of others: about a millisecond
    /// each. What is left goes on in the next turn.
    pub retained_visits_in_turn: usize,
    /// Questions for retained messages that wait for answers, so that they cannot fill the mesh; sessions with more wait.
    pub questions_max: usize,
    /// The same of one session. It is one question if something waits for its client already.
    pub session_questions_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            sys_interval_ms: 10_000,
            interest_linger_ms: 1000,
            announcements_max: 4096,
            relay_window: 256,
            inbox_budget: 1024,
            look_ahead_from: 512,
            route_cache_entries: CACHED_TOPICS_MAX as usize,
            clients_expected: 0,
            hand_offs_max: 1024,
            linger_ms: 1000,
            takeover_ms: 2000,
            dear_handshakes_per_turn: 4,
            cheap_handshakes_per_turn: 64,
            paused_bytes_max: 64 * 1024,
            retained_batch: 64,
            retained_visits: 2048,
            retained_visits_in_turn: 2048,
            questions_max: 256,
            session_questions_max: 16,
        }
    }
}

/// Whether there is more to do.
#[must_use]
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Turn {
    /// Call again at once.
    Busy,
    /// Nothing to do before `deadline` unless something completes or the bell rings.
    Idle { deadline: Millis },
    /// The shard may end: it was told to at once, or all shards have drained.
    Over,
}

/// Live objects of one shard; all of them are back at their base when the clients are gone.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
pub struct Live {
    pub connections: u64,
    pub sessions: u64,
    pub subscriptions: u64,
    /// Bytes charged for sessions.
    pub session_bytes: u64,
    /// Bytes charged for subscriptions and what is known of other shards' filters.
    pub subscription_bytes: u64,
    pub retained: u64,
    /// Bytes charged for them.
    pub retained_bytes: u64,
    /// Bytes that wait to be parsed or sent.
    pub buffers: u64,
    pub timers: u64,
    pub mesh: u64,
}

/// Deadlines that are met in a turn: a hundred thousand filters may be withdrawn in one millisecond.
const TIMERS_BUDGET: usize = 1024;

/// Timers beyond one for each connection and session at which those of gone ones are dropped.
const TIMERS_SPARE: usize = 4096;

/// What a deadline is for. Packed into 8 bytes where it waits, since every client has one.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Timer {
    Connection(Key),
    Session(Key),
    /// A withdrawn filter has lingered.
    Interest(FilterKey),
    Sys,
    /// The sweep of expired retained messages.
    Sweep,
    /// Messages of share groups may have waited too long for this session's client.
    Share(Key),
    /// The next slice of the survey.
    Survey,
}

impl Timer {
    /// What it is in the upper 8 bits, which a packed key leaves free.
    fn pack(self) -> u64 {
        let (kind, key) = match self {
            Timer::Connection(key) => (0, key),
            Timer::Session(key) => (1, key),
            Timer::Interest(FilterKey::Ordinary(key)) => (2, key),
            Timer::Interest(FilterKey::Group(key)) => (3, key),
            Timer::Sys => (4, Key::NONE),
            Timer::Sweep => (5, Key::NONE),
            Timer::Share(key) => (6, key),
            Timer::Survey => (7, Key::NONE),
        };
        key.pack() | kind << 56
    }

    fn unpack(bits: u64) -> Timer {
        let key = Key::unpack(bits);
        match bits >> 56 {
            0 => Timer::Connection(key),
            1 => Timer::Session(key),
            2 => Timer::Interest(FilterKey::Ordinary(key)),
            3 => Timer::Interest(FilterKey::Group(key)),
            4 => Timer::Sys,
            5 => Timer::Sweep,
            6 => Timer::Share(key),
            _ => Timer::Survey,
        }
    }
}

/// One core's share of the broker, over the kernel boundary `I`.
pub struct Shard<I: Io> {
    io: I,
    core: Core,
    completions: Vec<Completion>,
    /// Taken from the rings in this turn, ring by ring.
    parcels: VecDeque<Parcel>,
    readings: Vec<inbox::Reading>,
    /// Where other threads put what they want; there in a broker, not where a shard runs alone.
    desk: Option<Desk<I::Listener>>,
}

/// The state of a shard, apart from its kernel boundary: owners that do not call each other.
struct Core {
    local: Local,
    exchange: Exchange,
    retained: Retained,
    stop: stop::Stop,
    sys: sys::Sys,
}

/// Whether a listening socket accepts.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Listener {
    Accepting,
    /// The accept ended and is to be armed again.
    Ended,
    /// Descriptors or memory ran out; tried again at this time.
    Resting(Millis),
    /// Its cancel is in flight, because too many connections wait or the shard stops.
    Cancelling,
    /// The same, and then it is closed.
    Closing,
    /// It accepts no more and is to be closed in this turn.
    Silent,
    /// There is no socket, not any more or not yet.
    Closed,
}

impl<I: Io> Shard<I> {
    pub fn new(setup: Setup, mut io: I, now: Millis) -> Shard<I> {
        let random = io.random();
        // Where there is a data directory the shard serves when all that was kept is there; see `restore`.
        if setup.store.is_none() {
            for listener in 0..setup.listeners.len() as u16 {
                io.accept(ListenerId(listener));
            }
        }
        Shard {
            io,
            core: Core::new(setup, random, now),
            completions: Vec::new(),
            parcels: VecDeque::new(),
            readings: Vec::new(),
            desk: None,
        }
    }

    /// One pass: completions, parcels, deadlines, what waits for others, output. Never blocks.
    pub fn turn(&mut self, now: Millis) -> Turn {
        self.core.local.env.now = now;
        let mut intake = Intake::of_this_turn();
        // First, so that an order holds for all that is read below.
        if self.desk.as_ref().is_some_and(Desk::has_papers) && self.take_papers(&mut intake).is_break() {
            return Turn::Over;
        }
        self.core.local.env.counters().turns_total.add(1);
        intake.completions(&mut self.io, &mut self.completions);
        if self.core.local.env.shards > 1 {
            self.take_parcels(&mut intake);
        }
        let heard = self.core.hear(&intake);
        self.core.advance_handshakes(heard);
        self.reap_sent(heard);
        if self.core.local.env.shards > 1 {
            if !self.readings.is_empty() {
                self.read_inbox(heard);
            }
            self.core.answer_queries(heard);
        }
        self.reap(heard);
        let core = &mut self.core;
        core.fire_timers(heard);
        core.progress(heard);
        core.advance_filters(heard);
        core.advance_cursors();
        core.end_overflowed(heard);
        core.serve_vacant(heard);
        core.hand_over_given(heard);
        self.advance_stop(heard);
        // Before anything is sent: who sees a CONNACK is counted by then.
        self.core.publish_counts();
        // A backend may send at once, and who sees an acknowledgement takes it that every shard can have the message.
        self.flush_mesh();
        // Before the sends, so that the disk works meanwhile.
        self.tend_log();
        self.tend_dirty(&mut intake);
        self.flush_mesh(); // connections that go home
        if self.is_stopped() {
            return Turn::Over;
        }
        let core = &mut self.core;
        if !core.local.clients.dirty.is_empty() || core.has_work() {
            core.publish_counts();
            return Turn::Busy;
        }
        core.publish_gauges();
        let deadline = core.next_deadline();
        Turn::Idle { deadline: self.log_due_at().map_or(deadline, |at| at.min(deadline)) }
    }

    pub fn io_mut(&mut self) -> &mut I {
        &mut self.io
    }

    pub fn bell(&self) -> &Bell {
        self.core.exchange.links.bell()
    }

    pub fn counters(&self) -> &Counters {
        self.core.local.env.counters()
    }

    pub fn live(&mut self) -> Live {
        self.core.prune_timers();
        self.core.live()
    }

    /// Publishes the tails of the rings and wakes who sleeps. Inlined, since there mostly is nothing.
    #[inline(always)]
    fn flush_mesh(&mut self) {
        if !self.core.exchange.links.is_flushed() {
            self.publish_tails();
        }
    }

    fn publish_tails(&mut self) {
        for shard in self.core.exchange.links.flush().iter() {
            self.core.local.env.counters().doorbells_total.add(1);
            self.io.doorbell(shard);
        }
    }
}

/// What a packet may hold. Of aliases as many as any client may have been told; its link knows how many it was.
fn decode_limits(limits: &Limits, topic_alias_max_before: u16) -> DecodeLimits {
    DecodeLimits {
        properties_max: limits.properties_max,
        topic_levels_max: limits.topic_levels_max,
        topic_alias_max: limits.topic_alias_max.max(topic_alias_max_before),
    }
}

impl Core {
    fn new(setup: Setup, random: u64, now: Millis) -> Core {
        let Setup {
            id,
            shards,
            limits,
            keys,
            ends,
            pool,
            counters,
            listeners,
            stopping,
            access,
            options,
            store,
        } = setup;
        let mut env = Env {
            id,
            shards,
            now,
            limits,
            listener_limits: listeners::limits(&listeners, &limits),
            decode_limits: decode_limits(&limits, 0),
            keys,
            budget: Budget::new(pool),
            counters,
            access,
            timers: Timers::with_capacity(options.clients_expected),
            seed: random,
            is_stopping: false,
            keep: None,
            options,
        };
        let sys = sys::Sys::new(now, env.options.sys_interval_ms > 0);
        if env.options.sys_interval_ms > 0 {
            env.set_timer(now, Timer::Sys);
        }
        env.set_timer(now + retained::SWEEP_MS, Timer::Sweep);
        let mut core = Core {
            exchange: Exchange::new(&env, ends.links, ends.announcements),
            retained: Retained::new(&env, ends.retained_hints),
            local: Local {
                clients: Clients::new(&env, listeners),
                sessions: Sessions::new(&env),
                scratch: deliver::Scratch::default(),
                env,
            },
            stop: stop::Stop::new(stopping),
            sys,
        };
        if let Some(storing) = store {
            core.local.clients.listeners.fill(Listener::Ended);
            core.restore(storing);
        }
        core
    }

    fn fire_timers(&mut self, heard: Heard<'_>) {
        if self.local.env.timers.len()
            > 2 * (self.local.clients.connections.len() + self.local.sessions.arena.len()) + TIMERS_SPARE
        {
            self.prune_timers();
        }
        // What is left is due at once, so the next turn comes without a wait.
        for _ in 0..TIMERS_BUDGET {
            match self.local.env.timers.pop_due(self.local.env.now).map(Timer::unpack) {
                Some(Timer::Connection(key)) => self.connection_due(key, heard),
                Some(Timer::Session(key)) => self.session_due(key, heard),
                Some(Timer::Interest(filter)) => self.interest_due(filter),
                Some(Timer::Share(key)) => {
                    let orphans = self.local.sessions.share_due(key, &mut self.local.env);
                    self.redistribute(orphans, heard);
                }
                Some(Timer::Survey) => {
                    self.local
                        .sessions
                        .survey_on(&mut self.local.env, |key| self.local.clients.sending_bytes(key));
                }
                Some(Timer::Sys) if self.sys.is_due(self.local.env.now) => self.sys_due(heard),
                Some(Timer::Sys) => {} // of an interval that does not hold any more
                Some(Timer::Sweep) => {
                    self.retained.sweep(&mut self.local.env);
                    self.local.report_losses();
                    self.local
                        .sessions
                        .begin_survey(&mut self.local.env, |key| self.local.clients.sending_bytes(key));
                    self.local.clients.count_expiry(&self.local.env);
                }
                None => break,
            }
        }
    }

    fn next_deadline(&self) -> Millis {
        let resting = self.local.clients.listeners.iter().filter_map(|listener| match listener {
            Listener::Resting(until) if !self.local.env.is_stopping => Some(*until),
            Listener::Accepting
            | Listener::Ended
            | Listener::Cancelling
            | Listener::Resting(_)
            | Listener::Closing
            | Listener::Silent
            | Listener::Closed => None,
        });
        resting
            .chain(self.local.env.timers.next())
            .chain(self.stop.poll_at(self.local.env.now))
            .min()
            .unwrap_or(NEVER)
    }

    /// Whether another turn would find something to do without a completion or a bell.
    fn has_work(&self) -> bool {
        self.local.sessions.pulls.has_work()
            || self.retained.has_questions()
            || !self.local.sessions.overflowed.is_empty()
            || !self.local.sessions.vacant.is_empty()
            || !self.local.clients.filters.is_empty()
            || self.local.clients.handshakes.is_waiting()
            || self.exchange.links.has_work()
            || self.has_progress()
            || self.local.env.keep.as_ref().is_some_and(|keep| keep.may_walk_on())
    }

    #[inline(always)]
    fn live(&self) -> Live {
        // Between reaping and tending what ended is charged still, and was sent quietly for the most part.
        let sends = self.local.env.budget.used(Class::Send).saturating_sub(self.local.clients.quiet_bytes);
        Live {
            connections: self.local.clients.connections.len() as u64,
            sessions: self.local.sessions.arena.len() as u64,
            subscriptions: self.local.sessions.router.subscriptions_len() as u64,
            session_bytes: self.local.env.budget.used(Class::Session),
            subscription_bytes: self.local.env.budget.used(Class::Subscription),
            retained: self.retained.store.len() as u64,
            retained_bytes: self.local.env.budget.used(Class::Retained),
            buffers: self.local.env.budget.used(Class::Receive)
                + self.local.env.budget.used(Class::Login)
                + sends,
            timers: self.live_timers(),
            mesh: if self.local.env.shards == 1 { 0 } else { self.exchange.waiting_len() },
        }
    }

    /// Deadlines beside those that a shard always has.
    fn live_timers(&self) -> u64 {
        let own = 1 + u64::from(self.sys.is_timed());
        (self.local.env.timers.len() as u64).saturating_sub(own)
    }

    /// Drops the timers of connections and sessions that are gone. Nothing cancels a timer, so that renewing a
    /// Keep Alive is free; without this, a storm of short connections with a long Keep Alive would pile them up.
    fn prune_timers(&mut self) {
        let (connections, sessions) = (&self.local.clients.connections, &self.local.sessions.arena);
        self.local.env.timers.retain(|at, timer| match Timer::unpack(*timer) {
            Timer::Connection(key) => {
                connections.get(key).is_some_and(|connection| connection.timer_at == at)
            }
            Timer::Session(key) => sessions.get(key).is_some_and(|slot| {
                slot.connection.is_none() && (slot.ends_at == at || slot.will_at() == at)
            }),
            Timer::Share(key) => sessions.get(key).is_some_and(|slot| slot.lag_due_at() == at),
            Timer::Sys => self.sys.is_due_at(at),
            Timer::Interest(_) | Timer::Sweep | Timer::Survey => true,
        });
    }

    /// What limits are judged by; every turn.
    fn publish_counts(&self) {
        let counters = self.local.env.counters();
        counters.connections.set(self.local.clients.connections.len() as u64);
        counters.retained_messages.set(self.retained.store.len() as u64);
    }

    /// The rest, when there is time: some of it looks at cache lines of other shards.
    #[inline(always)] // its callers are few, and of what it adds up most is in registers then
    fn publish_gauges(&self) {
        self.publish_counts();
        let counters = self.local.env.counters();
        let live = self.live();
        counters.sessions.set(live.sessions);
        counters.subscriptions.set(live.subscriptions);
        counters.retained_bytes.set(self.retained.store.bytes() as u64);
        counters.queued_bytes.set(self.local.env.budget.used(Class::Queue));
        counters.session_bytes.set(live.session_bytes);
        counters.subscription_bytes.set(live.subscription_bytes);
        counters.buffers_held.set(live.buffers);
        counters.timers.set(live.timers);
        counters.mesh_waiting.set(live.mesh);
        counters.connections_paused.set(self.exchange.waits.paused_len() as u64);
        if let Some(keep) = &self.local.env.keep {
            counters.store_segments.set(keep.log.segments_len() as u64);
        }
    }
}
