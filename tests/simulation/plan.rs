//! What happens in a run, drawn from its seed before it begins: the broker's shape, the network's faults, the clients,
//! and a list of steps. A step that makes no sense when its turn comes is skipped, so any subset of the steps is a run
//! too; that is what shrinking needs.

mod data;

use ringmq::io::sim::{Faults, Odds, Rng};
use ringmq::limits::{Limits, QueueFull};
use ringmq::memory::{CLASSES, Class};
use ringmq::mesh::Bounds;
use ringmq::shard::Options;

use crate::packet::Version;

pub use data::{AtAnswers, DataPlan, Ending};

pub type Client = usize;

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub shards: u16,
    pub mesh: Bounds,
    pub memory: [u64; CLASSES],
    pub limits: Limits,
    pub options: Options,
    pub faults: Faults,
    pub clients: Vec<ClientPlan>,
    pub steps: Vec<Step>,
    /// The shards are stopped in the middle of things instead of at rest.
    pub stop_at_once: bool,
    /// How many turns and reads happen between two steps, at most.
    pub gap: usize,
    /// Per SUBACK: at once somebody else publishes to one of its filters.
    pub chorus: Odds,
    /// Per PUBACK or PUBREC of a message with RETAIN: at once somebody else subscribes to its topic.
    pub echo: Odds,
    pub data: Option<DataPlan>,
}

#[derive(Clone, Debug)]
pub struct ClientPlan {
    pub version: Version,
    /// In parts of ten thousand, per look: reads, writes, sends an acknowledgement.
    pub reads: u32,
    pub writes: u32,
    pub acks: u32,
}

#[derive(Clone, Debug)]
pub struct Step {
    /// Position in the whole plan, by which steps are named when a run is shrunk.
    pub number: usize,
    pub client: Client,
    pub what: What,
}

#[derive(Clone, Debug)]
pub struct ConnectPlan {
    pub shard: u16,
    pub clean: bool,
    /// Seconds; `u32::MAX` for ever.
    pub expiry_s: u32,
    pub keep_alive_s: u16,
    pub will: Option<WillPlan>,
    pub receive_maximum: Option<u16>,
    pub topic_alias_maximum: u16,
    pub packet_size_maximum: Option<u32>,
    /// Sends on before CONNACK has come.
    pub eager: bool,
}

#[derive(Clone, Debug)]
pub struct WillPlan {
    pub topic: usize,
    pub qos: u8,
    pub retain: bool,
    pub delay_s: u32,
}

#[derive(Clone, Debug)]
pub struct PublishPlan {
    pub topic: usize,
    pub qos: u8,
    pub retain: bool,
    pub clear: bool,
    pub expiry_s: Option<u32>,
    pub size: usize,
    pub alias: bool,
    pub property: bool,
    pub count: usize,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Leave {
    /// DISCONNECT, then close.
    Disconnect,
    DisconnectWithWill,
    /// DISCONNECT with a new Session Expiry Interval in seconds.
    DisconnectExpiry(u32),
    Close,
    Reset,
    HalfClose,
    Vanish,
}

/// What a client says before another connection takes its place.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Farewell {
    Nothing,
    Disconnect,
    Close,
    Reset,
}

#[derive(Clone, Debug)]
pub enum What {
    /// Connects if it is not connected.
    Connect(ConnectPlan),
    /// Connects through another shard although it is connected.
    TakeOver(Farewell, ConnectPlan),
    Subscribe {
        filters: Vec<(usize, u8)>,
        identifier: Option<u32>,
    },
    /// Joins a share group.
    Share {
        share: usize,
        qos: u8,
    },
    Unsubscribe {
        filters: Vec<usize>,
        shares: Vec<usize>,
    },
    Publish(PublishPlan),
    Ping,
    Leave(Leave),
    /// A packet that the standard forbids; the broker must close.
    Offend(u8),
    Jump {
        ms: u64,
    },
    Rest,
    /// Everything ends at once; so many shards start again on what is on the disk.
    Crash {
        power: bool,
        shards: u16,
    },
}

/// Bytes for sessions and subscriptions that no run uses up.
const SESSIONS_AMPLE: u64 = 1 << 24;

pub const TOPICS: [&str; 9] = ["a", "a/b", "a/b/c", "b", "a//", "r/1", "r/2", "s/1", "s/2"];
/// Topics that messages are retained on.
pub const RETAINED: [usize; 3] = [5, 6, 1];
pub const FILTERS: [&str; 11] = ["a", "a/b", "a/#", "+/b", "#", "+", "+/+/+", "r/1", "r/+", "b", "s/#"];
/// The topics of a crowded run.
const MET: [usize; 3] = [1, 5, 7];
/// The filters of a crowded run.
const CROWDED: [usize; 3] = [1, 7, 8];
pub const SHARES: [&str; 4] = ["$share/g/s/#", "$share/g/s/1", "$share/h/s/+", "$share/h/a/b"];
/// From here on each shared subscription has an identifier of its own, by which its deliveries are told apart.
pub const SHARED_IDENTIFIERS: u32 = 100;

impl Plan {
    pub fn draw(seed: u64) -> Plan {
        Plan::draw_on(seed, None)
    }

    /// On so many shards, whatever the seed says.
    pub fn draw_on(seed: u64, shards_wanted: Option<u16>) -> Plan {
        Plan::draw_with(seed, shards_wanted, true)
    }

    /// What the seed stands for without a data directory.
    pub fn draw_without_data(seed: u64) -> Plan {
        Plan::draw_with(seed, None, false)
    }

    /// `may_keep` says whether it may have a data directory.
    fn draw_with(seed: u64, shards_wanted: Option<u16>, may_keep: bool) -> Plan {
        let mut rng = Rng::new(seed);
        let mut shards = *rng.pick(&[1, 2, 2, 3, 3, 4, 5, 6]);
        let ample = rng.below(2) == 0;
        let mut faults = if rng.below(6) == 0 { Faults::none() } else { Faults::draw(&mut rng) };
        let mut limits = limits(&mut rng, ample);
        let mut options = options(&mut rng);
        let count = rng.between(2, 9);
        let mut clients: Vec<ClientPlan> = (0..count).map(|_| client(&mut rng)).collect();
        let mut taste = Taste::draw(&mut rng);
        // From a generator of its own, so that runs without a focus are what they were before there was any.
        let mut aside = Rng::new(seed ^ 0xF0C5_0000);
        taste.focus = Focus::draw(&mut aside);
        if let Some(focus) = taste.focus {
            taste.weights = focus.weights();
            taste.crowded = focus != Focus::Groups;
            taste.burst = *aside.pick(&[1, 3]);
        }
        match taste.focus {
            Some(Focus::Groups) => clients.iter_mut().for_each(|client| client.version = Version::V5),
            Some(Focus::Overflow) => {
                limits.queue_full = QueueFull::Disconnect;
                limits.queue_messages_max = *aside.pick(&[1, 2, 3]);
            }
            Some(Focus::Returns) => {
                // Owners that are behind, and clients that leave a lot unread.
                taste.burst = 12;
                taste.sizes = *aside.pick(&[&[0, 1, 20], &[30, 900, 1500]]);
                (options.inbox_budget, options.relay_window) = (*aside.pick(&[1, 2]), 256);
                faults.to_shard_bytes = *aside.pick(&[700, 65_536]);
            }
            Some(Focus::Churn | Focus::Bursts | Focus::Announcements) | None => {}
        }
        limits.packet_size_max = *aside.pick(&[2_048, 16_384]);
        // Likewise, so that the other runs are what they were.
        let mut apart = Rng::new(seed ^ 0xB01C_0000);
        if taste.focus.is_none() && apart.below(3) == 0 {
            taste.focus = Some(Focus::Bursts);
            taste.weights = Focus::Bursts.weights();
            (taste.crowded, taste.burst, taste.sizes) = (true, 12, &[0, 1, 20]);
            (faults.buffer_bytes, faults.to_shard_bytes) = (4096, 65_536);
            shards = *apart.pick(&[1, 1, 2, 3]);
        } else if taste.focus.is_none() && apart.below(4) == 0 {
            taste.focus = Some(Focus::Announcements);
            taste.weights = Focus::Announcements.weights();
            (taste.crowded, taste.burst) = (false, *apart.pick(&[3, 12]));
            (options.interest_linger_ms, options.inbox_budget) =
                (*apart.pick(&[1, 1000]), *apart.pick(&[1, 2]));
            shards = *apart.pick(&[2, 3]);
        }
        // And of that again.
        let mut logs = Rng::new(seed ^ 0xA7A0_0000);
        options.announcements_max = match taste.focus {
            Some(Focus::Announcements) => *logs.pick(&[1, 1, 2]),
            _ => *logs.pick(&[1, 2, 8, 4096]),
        };
        // Where owners are behind, an acknowledgement that comes too soon is seen before the message is stored.
        let echo = match taste.focus {
            Some(Focus::Announcements | Focus::Returns) => {
                *logs.pick(&[Odds::NEVER, Odds(5_000), Odds(9_000)])
            }
            _ => Odds::NEVER,
        };
        // Memory is short where nothing else is in focus, so that those runs are what they were too.
        let mut rooms = Rng::new(seed ^ 0x5E55_0000);
        let mut short = || taste.focus.is_none() && rooms.below(5) == 0;
        let (few_sessions, few_sends) = (short(), short());
        let room = if few_sessions { *rooms.pick(&[900, 1_500, 3_000]) } else { SESSIONS_AMPLE };
        let [sessions, subscriptions] =
            *rooms.pick(&[[room, room], [room, SESSIONS_AMPLE], [SESSIONS_AMPLE, room]]);
        let sends = if few_sends { *rooms.pick(&[1, 2_000, 20_000]) } else { 1 << 24 };
        if room < SESSIONS_AMPLE {
            // 3.1 cannot say that a subscription is refused.
            let cannot_say = clients.iter_mut().filter(|client| client.version == Version::V31);
            cannot_say.for_each(|client| client.version = Version::V311);
        }
        let shards = shards_wanted.unwrap_or(shards);
        let mut disks = Rng::new(seed ^ 0xD15C_0000);
        let is_kept = may_keep && disks.below(4) == 0;
        if is_kept {
            faults.disk.no_space = *disks.pick(&[Odds::NEVER, faults.disk.no_space]);
            let cannot_say = clients.iter_mut().filter(|client| client.version == Version::V31);
            cannot_say.for_each(|client| client.version = Version::V311);
        }
        let length = *rng.pick(&[10, 30, 60, 100, 160]);
        let mut steps: Vec<What> = Vec::new();
        let mut owners: Vec<Client> = Vec::new();
        // Everybody begins with a connection and most with subscriptions.
        for (ix, plan) in clients.iter().enumerate() {
            steps.push(What::Connect(taste.connect(&mut rng, shards, plan)));
            owners.push(ix);
            if rng.below(4) > 0 {
                steps.push(taste.subscribe(&mut rng, plan));
                owners.push(ix);
            }
        }
        for _ in 0..length {
            let ix = rng.below(count);
            let step = taste.step(&mut rng, shards, &clients[ix]);
            let returns = taste.focus == Some(Focus::Returns) && matches!(step, What::TakeOver(..));
            // Published on either side of the change, with nothing in between.
            let around = |rng: &mut Rng| What::Publish(taste.publish(rng, &clients[ix]));
            if returns {
                steps.push(around(&mut aside));
            }
            steps.push(step);
            if returns {
                steps.push(around(&mut aside));
            }
            owners.resize(steps.len(), ix);
        }
        let mut steps: Vec<(What, Client)> = steps.into_iter().zip(owners).collect();
        let data = is_kept.then(|| DataPlan::draw(&mut disks, (shards, shards_wanted), &clients, &mut steps));
        if data.as_ref().is_some_and(|data| data.at_answers.happen()) {
            // So slow that what an answer did not wait for is still on its way.
            faults.disk.looks = *disks.pick(&[3, 20, 60]);
            // Else a queue that was full explains what is missing.
            limits.queue_full = QueueFull::DropNewest;
            (limits.queue_messages_max, limits.queue_bytes_max) = (1000, 1 << 20);
        }
        if data.is_some() {
            // Damage is looked for elsewhere: here all that was acknowledged must be there.
            faults.disk.bit_flips = Odds::NEVER;
        }
        let steps = steps.into_iter().enumerate();
        let mesh = if ample { 1 << 26 } else { *rng.pick(&[1 << 14, 1 << 26]) };
        let mut bounds = Bounds {
            ring_slots: *rng.pick(&[1, 2, 3, 8, 256]),
            spill_max: *rng.pick(&[1, 2, 8, 1024]),
            bytes_max: *rng.pick(&[1, 2_000, 1 << 20]),
        };
        if taste.focus == Some(Focus::Announcements) {
            bounds = Bounds { ring_slots: *apart.pick(&[1, 2]), spill_max: 8, bytes_max: 1 << 20 };
        }
        // Half of the runs do what brokers with many connections do; nothing that can be seen depends on it.
        options.look_ahead_from = if seed.is_multiple_of(2) { 0 } else { options.look_ahead_from };
        limits.share_wait_ms = [0, 100, 2000][(seed % 3) as usize];
        Plan {
            seed,
            shards,
            mesh: bounds,
            memory: [
                1 << 24,
                sends,
                if ample { 1 << 26 } else { *rng.pick(&[4096, 1 << 26]) },
                1 << 24,
                mesh,
                sessions,
                subscriptions,
                1 << 24,
            ],
            limits,
            options,
            faults,
            clients,
            steps: steps.map(|(number, (what, client))| Step { number, client, what }).collect(),
            stop_at_once: rng.below(5) == 0,
            gap: *rng.pick(&[2, 10, 40, 200]),
            chorus: rng.odds(9_000),
            echo,
            data,
        }
    }

    /// One line about the run's shape.
    pub fn describe(&self) -> String {
        format!(
            "{} shards, {} clients, {} steps, rings of {} and spill of {}, queue of {} ({:?}), {} buffers of {} bytes, \
             pipes of {} and {} bytes{}{}",
            self.shards,
            self.clients.len(),
            self.steps.len(),
            self.mesh.ring_slots,
            self.mesh.spill_max,
            self.limits.queue_messages_max,
            self.limits.queue_full,
            self.faults.buffers,
            self.faults.buffer_bytes,
            self.faults.to_shard_bytes,
            self.faults.to_client_bytes,
            if self.stop_at_once { ", stopped in the middle" } else { "" },
            self.data.as_ref().map_or(String::new(), |data| format!(", {data:?}"))
        )
    }
}

fn limits(rng: &mut Rng, ample: bool) -> Limits {
    let mut limits = Limits {
        receive_maximum: *rng.pick(&[1, 2, 5, 100]),
        send_maximum: *rng.pick(&[1, 2, 5, 100]),
        topic_alias_max: *rng.pick(&[0, 1, 3, 64]),
        session_expiry_max_s: *rng.pick(&[20, 3600, 7 * 24 * 3600]),
        packet_size_max: 16_384,
        connect_packet_size_max: 4096,
        ..Limits::default()
    };
    if !ample {
        limits.queue_messages_max = *rng.pick(&[1, 2, 5, 1000]);
        limits.queue_bytes_max = *rng.pick(&[600, 5_000, 1 << 20]);
        limits.queue_full = *rng.pick(&[QueueFull::DropNewest, QueueFull::DropOldest, QueueFull::Disconnect]);
        limits.send_buffer_bytes_max = *rng.pick(&[64, 1000, 1 << 20]);
        limits.send_burst_bytes_max = if limits.send_buffer_bytes_max == 1000 { 3000 } else { 0 };
        limits.retained_messages_max = *rng.pick(&[1, 2, 1000]);
    }
    limits
}

fn options(rng: &mut Rng) -> Options {
    let options = Options {
        sys_interval_ms: *rng.pick(&[0, 1000, 10_000]),
        interest_linger_ms: *rng.pick(&[1, 50, 1000]),
        relay_window: *rng.pick(&[1, 2, 256]),
        inbox_budget: *rng.pick(&[1, 2, 7, 1024]),
        route_cache_entries: *rng.pick(&[2, 16, 1024]),
        hand_offs_max: *rng.pick(&[1, 2, 1024]),
        paused_bytes_max: *rng.pick(&[64, 1024, 65_536]),
        retained_batch: *rng.pick(&[1, 2, 64]),
        retained_visits: *rng.pick(&[1, 3, 2048]),
        ..Options::default()
    };
    // Not drawn: the seeds that once failed stand for their runs.
    let few = options.retained_batch < 64;
    Options {
        retained_visits_in_turn: if few { options.retained_visits } else { 2048 },
        questions_max: if few { options.retained_batch } else { 256 },
        session_questions_max: if few { options.retained_batch } else { 16 },
        ..options
    }
}

fn client(rng: &mut Rng) -> ClientPlan {
    ClientPlan {
        version: *rng.pick(&[Version::V5, Version::V5, Version::V5, Version::V311, Version::V31]),
        reads: *rng.pick(&[9_000, 9_000, 3_000, 300]),
        writes: *rng.pick(&[9_000, 9_000, 2_000]),
        acks: *rng.pick(&[10_000, 10_000, 5_000, 500, 0]),
    }
}

/// What more than half of the runs are about: a few things again and again in the same place, where rules meet that otherwise do so
/// once in thousands of runs.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Focus {
    /// Publishers come back on other connections and go on at once, with and without RETAIN.
    Returns,
    /// Subscriptions come and go while messages with and without RETAIN are under way.
    Churn,
    /// Members of share groups come and go.
    Groups,
    /// Queues run over, and wills go into the same queues.
    Overflow,
    /// What is wanted changes beside messages with and without RETAIN, and finds no room in the log.
    Announcements,
    /// Whole bursts of plain messages come in one receive, half of the time on one shard.
    Bursts,
}

impl Focus {
    fn draw(rng: &mut Rng) -> Option<Focus> {
        match rng.below(8) {
            0 => Some(Focus::Returns),
            1 => Some(Focus::Churn),
            2 => Some(Focus::Groups),
            3 => Some(Focus::Overflow),
            _ => None,
        }
    }

    fn weights(self) -> Vec<(usize, Kind)> {
        let all = |connect, take_over, subscribe, share, unsubscribe, publish, leave| {
            vec![
                (connect, Kind::Connect),
                (take_over, Kind::TakeOver),
                (subscribe, Kind::Subscribe),
                (share, Kind::Share),
                (unsubscribe, Kind::Unsubscribe),
                (publish, Kind::Publish),
                (leave, Kind::Leave),
                (2, Kind::Rest),
            ]
        };
        match self {
            Focus::Returns => all(10, 25, 5, 0, 0, 60, 2),
            Focus::Churn => all(5, 1, 40, 0, 30, 60, 1),
            Focus::Groups => all(20, 5, 0, 30, 15, 50, 15),
            Focus::Overflow => all(25, 10, 5, 0, 0, 40, 20),
            Focus::Announcements => all(8, 2, 30, 0, 30, 60, 1),
            Focus::Bursts => all(15, 3, 8, 0, 3, 70, 5),
        }
    }
}

/// What this run likes to do: weights that make rare things common in some runs.
struct Taste {
    weights: Vec<(usize, Kind)>,
    /// Everybody meets on a few topics and filters, which come and go.
    crowded: bool,
    burst: usize,
    sizes: &'static [usize; 3],
    focus: Option<Focus>,
}

#[derive(Copy, Clone)]
enum Kind {
    Connect,
    TakeOver,
    Subscribe,
    Share,
    Unsubscribe,
    Publish,
    Ping,
    Leave,
    Offend,
    Jump,
    Rest,
}

impl Taste {
    fn draw(rng: &mut Rng) -> Taste {
        let mut weights = vec![
            (12, Kind::Connect),
            (*rng.pick(&[1, 4, 12]), Kind::TakeOver),
            (*rng.pick(&[3, 8]), Kind::Subscribe),
            (*rng.pick(&[0, 3, 8]), Kind::Share),
            (*rng.pick(&[1, 4, 8]), Kind::Unsubscribe),
            (*rng.pick(&[20, 40, 80]), Kind::Publish),
            (1, Kind::Ping),
            (*rng.pick(&[1, 5, 10]), Kind::Leave),
            (*rng.pick(&[0, 0, 1]), Kind::Offend),
            (*rng.pick(&[0, 3, 6]), Kind::Jump),
            (*rng.pick(&[1, 2, 5]), Kind::Rest),
        ];
        weights.retain(|(weight, _)| *weight > 0);
        Taste {
            weights,
            crowded: rng.below(3) == 0,
            burst: *rng.pick(&[1, 3, 12]),
            sizes: [&[0, 1, 20], &[0, 10, 200], &[30, 900, 1500]][rng.below(3)],
            focus: None,
        }
    }

    fn kind(&self, rng: &mut Rng) -> Kind {
        let mut at = rng.below(self.weights.iter().map(|(weight, _)| weight).sum());
        for (weight, kind) in &self.weights {
            if at < *weight {
                return *kind;
            }
            at -= weight;
        }
        Kind::Ping
    }

    fn step(&self, rng: &mut Rng, shards: u16, client: &ClientPlan) -> What {
        let v5 = client.version.is_v5();
        match self.kind(rng) {
            Kind::Connect => What::Connect(self.connect(rng, shards, client)),
            Kind::TakeOver => {
                let farewells = [
                    Farewell::Nothing,
                    Farewell::Disconnect,
                    Farewell::Disconnect,
                    Farewell::Close,
                    Farewell::Reset,
                ];
                What::TakeOver(*rng.pick(&farewells), self.connect(rng, shards, client))
            }
            Kind::Subscribe => self.subscribe(rng, client),
            Kind::Share if v5 => What::Share { share: rng.below(SHARES.len()), qos: rng.below(3) as u8 },
            Kind::Share | Kind::Ping => What::Ping,
            Kind::Unsubscribe => What::Unsubscribe {
                filters: self.filters(rng, 4),
                shares: if v5 { some(rng, SHARES.len(), 2) } else { Vec::new() },
            },
            Kind::Publish => What::Publish(self.publish(rng, client)),
            Kind::Leave => What::Leave(self.leave(rng, client)),
            Kind::Offend => What::Offend(rng.below(6) as u8),
            Kind::Jump => {
                What::Jump { ms: *rng.pick(&[1, 20, 500, 3_000, 15_000, 61_000, 4_000_000, 700_000_000]) }
            }
            Kind::Rest => What::Rest,
        }
    }

    fn connect(&self, rng: &mut Rng, shards: u16, client: &ClientPlan) -> ConnectPlan {
        let v5 = client.version.is_v5();
        let clean = client.version == Version::V31 || rng.below(4) == 0;
        let expiry_s = match client.version {
            Version::V5 => *rng.pick(&[0, 5, 60, 4000, u32::MAX]),
            Version::V311 | Version::V31 if clean => 0,
            Version::V311 | Version::V31 => u32::MAX,
        };
        let will = (rng.below(3) == 0).then(|| WillPlan {
            topic: rng.below(TOPICS.len()),
            qos: rng.below(3) as u8,
            retain: rng.below(4) == 0,
            delay_s: if v5 { *rng.pick(&[0, 0, 3, 50]) } else { 0 },
        });
        let mut connect = ConnectPlan {
            shard: rng.below(usize::from(shards)) as u16,
            clean,
            expiry_s,
            keep_alive_s: *rng.pick(&[0, 0, 0, 2, 30]),
            will,
            receive_maximum: if v5 { *rng.pick(&[None, Some(1), Some(2), Some(7)]) } else { None },
            topic_alias_maximum: if v5 { *rng.pick(&[0, 1, 5]) } else { 0 },
            packet_size_maximum: if v5 && rng.below(10) == 0 { Some(*rng.pick(&[60, 500])) } else { None },
            eager: rng.below(3) == 0,
        };
        match self.focus {
            Some(Focus::Returns) => connect.eager = true,
            Some(Focus::Overflow) if client.version != Version::V31 => {
                connect.clean = false;
                connect.expiry_s = if v5 { 4_000 } else { u32::MAX };
                connect.keep_alive_s = 0;
                connect.will = Some(WillPlan {
                    topic: *rng.pick(&MET),
                    qos: rng.between(1, 2) as u8,
                    retain: false,
                    delay_s: if v5 { *rng.pick(&[0, 3, 50]) } else { 0 },
                });
            }
            Some(_) | None => {}
        }
        connect
    }

    fn subscribe(&self, rng: &mut Rng, client: &ClientPlan) -> What {
        let v5 = client.version.is_v5();
        let filters = self
            .filters(rng, 3)
            .into_iter()
            .map(|filter| {
                let mut options = rng.below(3) as u8;
                if v5 {
                    options |= if rng.below(5) == 0 { 4 } else { 0 };
                    options |= if rng.below(3) == 0 { 8 } else { 0 };
                    options |= *rng.pick(&[0, 0, 1, 2]) << 4;
                }
                (filter, options)
            })
            .collect();
        let identifier = (v5 && rng.below(2) == 0).then(|| 1 + rng.below(90) as u32);
        What::Subscribe { filters, identifier }
    }

    fn filters(&self, rng: &mut Rng, most: usize) -> Vec<usize> {
        if self.crowded {
            some(rng, CROWDED.len(), most.min(2)).into_iter().map(|at| CROWDED[at]).collect()
        } else {
            some(rng, FILTERS.len(), most)
        }
    }

    fn publish(&self, rng: &mut Rng, client: &ClientPlan) -> PublishPlan {
        let v5 = client.version.is_v5();
        let (retain, often) = match self.focus {
            Some(Focus::Returns | Focus::Churn | Focus::Announcements) => (rng.below(2) == 0, true),
            Some(Focus::Groups | Focus::Overflow | Focus::Bursts) => (false, true),
            None => (rng.below(4) == 0, false),
        };
        let topic = match self.focus {
            Some(Focus::Returns | Focus::Announcements) => *rng.pick(&[1, 1, 5]),
            Some(Focus::Groups) => *rng.pick(&[7, 8]),
            _ if retain => *rng.pick(&RETAINED),
            _ if self.crowded => *rng.pick(&MET),
            _ => rng.below(TOPICS.len()),
        };
        let plain = self.focus == Some(Focus::Bursts) && rng.below(8) > 0;
        let clear = retain && v5 && rng.below(if often { 8 } else { 3 }) == 0;
        PublishPlan {
            topic,
            qos: rng.below(3) as u8,
            retain,
            clear,
            expiry_s: (v5 && !clear && !plain && rng.below(8) == 0).then(|| *rng.pick(&[1, 10, 100_000])),
            size: *rng.pick(self.sizes),
            alias: v5 && !plain && rng.below(3) == 0,
            property: v5 && !plain && rng.below(4) == 0,
            count: rng.between(1, self.burst),
        }
    }

    fn leave(&self, rng: &mut Rng, client: &ClientPlan) -> Leave {
        match rng.below(if client.version.is_v5() { 9 } else { 6 }) {
            0 | 1 => Leave::Disconnect,
            2 => Leave::Close,
            3 => Leave::Reset,
            4 => Leave::HalfClose,
            5 => Leave::Vanish,
            6 | 7 => Leave::DisconnectWithWill,
            _ => Leave::DisconnectExpiry(*rng.pick(&[0, 5, 4000])),
        }
    }
}

/// Some of the numbers below `of`, at least one.
fn some(rng: &mut Rng, of: usize, most: usize) -> Vec<usize> {
    let mut found: Vec<usize> = (0..rng.between(1, most)).map(|_| rng.below(of)).collect();
    found.sort_unstable();
    found.dedup();
    found
}
