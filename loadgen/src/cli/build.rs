//! From options to a [`Spec`]: every gap filled, the whole checked.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::ServerName;

use super::RunArgs;
use crate::failure::Failure;
use crate::holds;
use crate::locate::{self, Room};
use crate::payload::mix;
use crate::procfs::Broker;
use crate::schedule::{Arrivals, Schedule, Segment};
use crate::spec::{Focus, Load, Pattern, Spec, Target, Transport, Waiting};
use crate::sys;
use crate::threshold::Threshold;
use crate::topics::Template;
use crate::transport::{self, client_config};

/// Connections that one worker holds at most; the soft limit of descriptors caps it too.
const CONNECTIONS_PER_WORKER: u64 = 19_000;
/// Descriptors that are not connections.
const DESCRIPTORS_SPARE: u64 = 64;
/// How long an address of a name with several may take to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
const WINDOW: u32 = 32;
const CONNECT_RATE: f64 = 5000.0;

/// Why no run came about.
#[derive(Debug)]
pub enum Refusal {
    /// Exit code 2.
    Usage(String),
    /// Exit code 5.
    Connection(Failure),
}

/// What a scenario makes of the numbers that were given.
struct Shape {
    focus: Focus,
    pattern: Pattern,
    publishers: u32,
    subscribers: u32,
    slow: u32,
    idlers: u32,
    topics: u32,
    topic: &'static str,
}

impl RunArgs {
    /// All thresholds.
    pub fn thresholds(&self) -> Vec<Threshold> {
        self.maxima.iter().chain(&self.minima).cloned().collect()
    }

    /// Fills every gap and checks the whole.
    pub fn spec(&self) -> Result<Spec, Refusal> {
        let spec = self.build().map_err(Refusal::Usage)?;
        let mut spec = self.resolve(spec).map_err(Refusal::Connection)?;
        self.look_around(&mut spec);
        holds::check(&spec).map_err(Refusal::Usage)?;
        Ok(spec)
    }

    /// Looks for the broker on this machine, and for a CPU that it leaves free.
    fn look_around(&self, spec: &mut Spec) {
        let Some(&target) = spec.target.addresses.first() else { return };
        spec.is_local = locate::is_local(target.ip());
        if !spec.is_local {
            return;
        }
        if spec.pids.is_empty() {
            spec.listeners = locate::listeners(target);
        }
        let pids = if spec.pids.is_empty() { &spec.listeners } else { &spec.pids };
        let allowed = sys::cpus_allowed().unwrap_or_default();
        let room = if self.cores.is_none() { locate::room(&allowed, pids) } else { None };
        match room {
            None => {}
            Some(Room::Free(cpu)) => spec.cores = vec![cpu],
            Some(Room::Shared(cpu)) => {
                // A thread that never sleeps would take half of this CPU from the broker.
                (spec.cores, spec.waiting) = (vec![cpu], Waiting::Sleep);
                let commands = Broker::new(pids).unwrap_or_default().commands();
                // With the path that the user typed, so that the line can be typed again.
                let program = std::env::args().next().unwrap_or_else(|| "loadgen".into());
                let own = crate::environment::command().replacen("loadgen", &program, 1);
                spec.advice = Some(locate::advice(&allowed, pids, &commands, &own));
            }
        }
    }

    fn build(&self) -> Result<Spec, String> {
        let shape = self.shape()?;
        self.fits(shape.publishers > 0 && shape.focus != Focus::Retained)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        let random = mix(now ^ u64::from(std::process::id()) << 32);
        let run_id = format!("{:08x}", random >> 32);
        let plain = shape.topics == 1 && !self.wildcard;
        let default = if plain { shape.topic.to_string() } else { format!("{}/{{k}}", shape.topic) };
        let template = Template::new(self.topic.as_deref().unwrap_or(&default), &run_id)?;
        let allowed = sys::cpus_allowed().map_err(|e| format!("cannot read the CPU affinity: {e}"))?;
        let cores = match &self.cores {
            Some(cores) => cores.clone(),
            None => allowed.last().copied().into_iter().collect(),
        };
        if let Some(cpu) = cores.iter().find(|cpu| !allowed.contains(cpu)) {
            return Err(format!("--cores: CPU {cpu} is not among those allowed: {allowed:?}"));
        }
        let limit = sys::raise_descriptor_limit().unwrap_or(1024).saturating_sub(DESCRIPTORS_SPARE);
        let clients = u64::from(shape.publishers) + u64::from(shape.subscribers) + u64::from(shape.idlers);
        let needed = clients.div_ceil(limit.clamp(1, CONNECTIONS_PER_WORKER)) as usize;
        let steady = matches!(shape.focus, Focus::Messages | Focus::Idle | Focus::Reconnects);
        let (load, warmup_s, duration_s) = self.load(steady);
        // Spinning on every CPU there is would starve a broker on this machine.
        let spin = !self.no_spin && cores.len() < allowed.len();
        let storm = matches!(shape.focus, Focus::Connects | Focus::Reconnects);
        let connect_rate = if storm { f64::INFINITY } else { CONNECT_RATE };
        let spec = Spec {
            scenario: if self.scenario.is_some() || self.what == "p2p" {
                &self.what
            } else {
                self.scenario()
            }
            .into(),
            focus: shape.focus,
            run_id,
            run_tag: random as u16,
            seed: self.seed.unwrap_or(random),
            target: Target { name: format!("{}:{}", self.host, self.port), addresses: Vec::new() },
            transport: self.transport()?,
            version: self.mqtt,
            user: self.user.clone(),
            password: self.password.clone(),
            keep_alive_s: self.keep_alive,
            persistent: self.persistent,
            topic_alias_maximum: self.alias,
            pattern: shape.pattern,
            publishers: shape.publishers,
            subscribers: shape.subscribers,
            slow: shape.slow,
            slow_rate: self.slow_rate,
            idlers: shape.idlers,
            idlers_subscribe: self.subscribe,
            topics_per_publisher: shape.topics,
            template,
            wildcard: self.wildcard,
            qos: self.qos,
            retain: self.retain || shape.focus == Focus::Retained,
            sizes: self.payload.clone(),
            checked: !self.no_check,
            load,
            inflight: self.inflight,
            warmup_s,
            duration_s,
            drain_s: self.drain,
            workers: cores.len().max(needed) as u32,
            cores,
            waiting: if spin { Waiting::Spin } else { Waiting::Sleep },
            gather: self.gather.map(Duration::from_secs_f64),
            connect_rate: self.connect_rate.unwrap_or(connect_rate),
            connect_timeout_s: self.connect_timeout,
            storm_every_s: self.storm_every,
            sources: self.source.clone().unwrap_or_default(),
            pids: self.pid.clone(),
            is_local: false,
            listeners: Vec::new(),
            advice: None,
        };
        for text in [&self.user, &self.password].into_iter().flatten() {
            if text.len() > usize::from(u16::MAX) || text.contains('\0') {
                return Err("user name and password must be below 64 KiB and without NUL".into());
            }
        }
        spec.check()?;
        for &source in &spec.sources {
            sys::can_bind(source).map_err(|e| match e.kind() {
                std::io::ErrorKind::AddrNotAvailable => {
                    format!("--source: {source} is no address of this machine")
                }
                _ => format!("--source: {source} cannot be used: {e}"),
            })?;
        }
        Broker::new(&self.pid)?;
        Ok(spec)
    }

    pub(super) fn scenario(&self) -> &str {
        self.scenario.as_deref().unwrap_or(&self.what)
    }

    /// The load, the warm-up and the measured time. Runs without a fixed length have no warm-up.
    fn load(&self, steady: bool) -> (Load, f64, f64) {
        let arrivals = if self.poisson { Arrivals::Poisson } else { Arrivals::Constant };
        let warmup = if steady { self.warmup.unwrap_or(1.0) } else { 0.0 };
        if !self.phases.is_empty() {
            // The warm-up runs at the rate at which the phases begin.
            let first = self.phases[0].from.max(f64::MIN_POSITIVE);
            let warm = Segment { seconds: warmup, from: first, to: first };
            let segments: Vec<Segment> =
                (warmup > 0.0).then_some(warm).into_iter().chain(self.phases.iter().copied()).collect();
            let duration = self.phases.iter().map(|s| s.seconds).sum();
            return (Load::Open { schedule: Schedule { segments, arrivals } }, warmup, duration);
        }
        let duration = self.duration.unwrap_or(if steady { 10.0 } else { 1.0 });
        match self.rate {
            None => (Load::Closed { window: self.window.unwrap_or(WINDOW) }, warmup, duration),
            // A storm may outlast the measured time by a little; its messages go on meanwhile.
            Some(rate) => (
                Load::Open { schedule: Schedule::constant(rate, warmup + duration, arrivals) },
                warmup,
                duration,
            ),
        }
    }

    fn transport(&self) -> Result<Transport, String> {
        let mut transport = Transport { tls: None, websocket: self.ws.clone() };
        if let Some(path) = &transport.websocket
            && (!path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()))
        {
            return Err(format!("--ws: '{path}' is not a path like /mqtt"));
        }
        if self.cafile.is_some() || self.insecure || self.cert.is_some() {
            let config = client_config(&transport::Files {
                ca: self.cafile.as_deref(),
                certificate: self.cert.as_deref(),
                key: self.key.as_deref(),
                insecure: self.insecure,
            })?;
            let name = ServerName::try_from(self.host.clone());
            let name = name.map_err(|_| format!("'{}' is not a name that TLS could check", self.host))?;
            transport.tls = Some((Arc::clone(&config), name));
        }
        Ok(transport)
    }

    fn resolve(&self, mut spec: Spec) -> Result<Spec, Failure> {
        let target = spec.target.name.clone();
        let found = (self.host.as_str(), self.port).to_socket_addrs();
        let found = found.map_err(|e| Failure::Unresolved { target: target.clone(), why: e.to_string() })?;
        let found: Vec<SocketAddr> = found.collect();
        // One address, the first that answers: several would split a run between hosts or families.
        let answers = |address: &&SocketAddr| TcpStream::connect_timeout(address, PROBE_TIMEOUT).is_ok();
        let chosen = if found.len() > 1 { found.iter().find(answers) } else { None };
        spec.target.addresses = chosen.or(found.first()).copied().into_iter().collect();
        if spec.target.addresses.is_empty() {
            return Err(Failure::Unresolved { target, why: "no address found".into() });
        }
        Ok(spec)
    }

    fn shape(&self) -> Result<Shape, String> {
        let publishers = |default| self.publishers.unwrap_or(default);
        let subscribers = |default| self.subscribers.unwrap_or(default);
        let topics = self.topics.unwrap_or(1);
        let base = Shape {
            focus: Focus::Messages,
            pattern: Pattern::All,
            publishers: 0,
            subscribers: 0,
            slow: 0,
            idlers: 0,
            topics,
            topic: "topic/{pub}",
        };
        if topics == 0 {
            return Err("--topics must be at least 1".into());
        }
        Ok(match self.scenario() {
            "p2p" => {
                let pairs = self.pairs.or(self.publishers).or(self.subscribers).unwrap_or(10);
                if self.publishers.unwrap_or(pairs) != pairs || self.subscribers.unwrap_or(pairs) != pairs {
                    return Err("p2p needs as many publishers as subscribers: use --pairs".into());
                }
                Shape {
                    pattern: Pattern::Pairs,
                    publishers: pairs,
                    subscribers: pairs,
                    topic: "p2p/{pub}",
                    ..base
                }
            }
            "fan-in" => Shape {
                publishers: publishers(100),
                subscribers: subscribers(1),
                topic: "fan-in/{pub}",
                ..base
            },
            "fan-out" => Shape {
                publishers: publishers(1),
                subscribers: subscribers(100),
                topic: "fan-out/{pub}",
                ..base
            },
            "slow-subscriber" => Shape {
                publishers: publishers(1),
                subscribers: subscribers(10) + self.slow,
                slow: self.slow,
                topic: "slow/{pub}",
                ..base
            },
            "shared" => {
                let subscribers = subscribers(5);
                if self.groups == 0 || self.groups > subscribers {
                    return Err("--groups must be between 1 and the number of subscribers".into());
                }
                let pattern = Pattern::Shared { groups: self.groups };
                Shape { pattern, publishers: publishers(100), subscribers, topic: "shared/{pub}", ..base }
            }
            "retained" => Shape {
                focus: Focus::Retained,
                publishers: publishers(10),
                subscribers: subscribers(10),
                topics: self.topics.unwrap_or(100),
                topic: "retained/{pub}",
                ..base
            },
            "connect-storm" => {
                Shape { focus: Focus::Connects, idlers: self.connections.unwrap_or(1000), ..base }
            }
            "reconnect-storm" => {
                let idlers = self.connections.unwrap_or(if self.subscribers.is_some() { 0 } else { 1000 });
                let (publishers, subscribers) = (publishers(0), subscribers(0));
                // Each message goes to one subscriber, so that a storm does not multiply what is queued.
                let pattern =
                    if publishers > 0 && publishers == subscribers { Pattern::Pairs } else { Pattern::All };
                Shape { focus: Focus::Reconnects, pattern, publishers, subscribers, idlers, ..base }
            }
            "idle" => Shape { focus: Focus::Idle, idlers: self.connections.unwrap_or(1000), ..base },
            "swallow" => {
                Shape { pattern: Pattern::Swallow, publishers: publishers(1), topic: "swallow/{pub}", ..base }
            }
            other => return Err(format!("unknown scenario '{other}': see `loadgen presets`")),
        })
    }
}
