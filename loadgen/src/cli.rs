//! The command line, and how it becomes a [`Spec`].

use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Parser};

use crate::failure::Failure;
use crate::payload::{Sizes, mix};
use crate::schedule::{Arrivals, Schedule};
use crate::spec::{Load, Pattern, Spec, Target, Waiting};
use crate::sys;
use crate::threshold::{Bound, Threshold};
use crate::topics::Template;
use crate::wire::Version;

/// Connections that one worker holds at most; the soft limit of descriptors caps it too.
const CONNECTIONS_PER_WORKER: u64 = 19_000;

const EXAMPLES: &str = "\
Examples:
  loadgen
      Ten seconds of p2p against 127.0.0.1:1883, as fast as it goes without loss.
  loadgen p2p --pairs 50 --qos 1 --payload 256 --window 16 --pid $(pidof mosquitto)
      Saturation with acknowledgements, and what each message costs the broker.
  loadgen p2p --pairs 100 --rate 20000 --max p99=5ms --max lost=0
      A fixed rate; latency counts from when each message was due. Exit code 1 if p99 exceeds 5 ms.
  loadgen fan-out --publishers 5 --subscribers 1000 --rate 250 --json report.json
      5 publishers, 1000 subscribers, 250,000 deliveries a second.

Exit codes: 0 fine, 1 threshold not met, 2 usage, 3 lost, duplicated, disordered or corrupted messages,
4 INVALID (the generator was late or busy), 5 connection. If several apply: 5, then 3, 4, 1.";

/// Measures any MQTT broker over the network, and itself.
#[derive(Parser)]
#[command(name = "loadgen", version, about, after_help = EXAMPLES, disable_help_flag = true, disable_version_flag = true)]
pub struct Cli {
    #[command(flatten)]
    pub run: RunArgs,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help, global = true)]
    help: Option<bool>,
    /// Print the version
    #[arg(long, action = clap::ArgAction::Version, global = true)]
    version: Option<bool>,
}

/// Options of a run.
#[derive(Args, Clone)]
pub struct RunArgs {
    /// What to run: p2p, fan-in, fan-out, shared or idle
    #[arg(default_value = "p2p")]
    pub what: String,

    /// The broker's host name or address
    #[arg(short = 'h', long, default_value = "127.0.0.1", help_heading = "Broker")]
    pub host: String,
    /// The broker's port
    #[arg(short, long, default_value_t = 1883, help_heading = "Broker")]
    pub port: u16,
    /// User name
    #[arg(short, long, help_heading = "Broker")]
    pub user: Option<String>,
    /// Password
    #[arg(short = 'P', long, help_heading = "Broker")]
    pub password: Option<String>,
    /// MQTT version: 5 or 3.1.1 (also mqttv5, mqttv311)
    #[arg(short = 'V', long = "mqtt", default_value = "5", value_parser = version, help_heading = "Broker")]
    pub mqtt: Version,
    /// Process of the broker, to measure its CPU time and memory; may be repeated
    #[arg(long, help_heading = "Broker")]
    pub pid: Vec<u32>,

    /// Pairs of publisher and subscriber (p2p)
    #[arg(long, conflicts_with_all = ["publishers", "subscribers"], help_heading = "Work")]
    pub pairs: Option<u32>,
    /// Publishers
    #[arg(long, help_heading = "Work")]
    pub publishers: Option<u32>,
    /// Subscribers
    #[arg(long, help_heading = "Work")]
    pub subscribers: Option<u32>,
    /// Share groups (shared)
    #[arg(long, default_value_t = 1, help_heading = "Work")]
    pub groups: u32,
    /// Connections that only stay open
    #[arg(long, help_heading = "Work")]
    pub connections: Option<u32>,
    /// Topics of each publisher, used in turn
    #[arg(long, default_value_t = 1, help_heading = "Work")]
    pub topics: u32,
    /// Topic template below loadgen/RUNID/, with {pub} and {n}
    #[arg(long, help_heading = "Work")]
    pub topic: Option<String>,
    /// QoS of messages and subscriptions
    #[arg(short, long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2), help_heading = "Work")]
    pub qos: u8,
    /// Payload bytes: 64, a range 64..1024, or sizes with weights 64:90,1024:9,65536:1
    #[arg(long, default_value = "64", value_parser = Sizes::parse, help_heading = "Work")]
    pub payload: Sizes,
    /// No check header: payloads may be below 16 bytes, and the run is marked UNCHECKED
    #[arg(long, help_heading = "Work")]
    pub no_check: bool,

    /// Closed loop: messages outstanding for each publisher
    #[arg(long, default_value_t = 32, conflicts_with = "rate", help_heading = "Schedule")]
    pub window: u32,
    /// Open loop: messages a second, all publishers together
    #[arg(long, help_heading = "Schedule")]
    pub rate: Option<f64>,
    /// Open loop with random (Poisson) gaps instead of even ones
    #[arg(long, requires = "rate", help_heading = "Schedule")]
    pub poisson: bool,
    /// Unacknowledged QoS 1 and 2 messages for each publisher; the broker's Receive Maximum holds too
    #[arg(long, default_value_t = 65_535, value_parser = clap::value_parser!(u16).range(1..), help_heading = "Schedule")]
    pub inflight: u16,
    /// Seconds to measure
    #[arg(short, long, default_value = "10", value_parser = seconds, help_heading = "Schedule")]
    pub duration: f64,
    /// Seconds of load before that, which do not count
    #[arg(long, default_value = "1", value_parser = seconds, help_heading = "Schedule")]
    pub warmup: f64,
    /// Seconds to wait for missing messages after the last arrival
    #[arg(long, default_value = "5", value_parser = seconds, help_heading = "Schedule")]
    pub drain: f64,

    /// CPUs of the generator, one worker each: 1 or 2,3 or 4-7 [default: the last that is allowed]
    #[arg(long, value_parser = cpus, help_heading = "Generator")]
    pub cores: Option<std::vec::Vec<usize>>,
    /// Connections a second while connecting
    #[arg(long, default_value_t = 5000.0, help_heading = "Generator")]
    pub connect_rate: f64,
    /// Seconds without any progress after which connecting has failed
    #[arg(long, default_value = "10", value_parser = seconds, help_heading = "Generator")]
    pub connect_timeout: f64,
    /// Source addresses, for more connections than one address has ports: 127.0.0.2-127.0.0.20
    #[arg(long, value_parser = addresses, help_heading = "Generator")]
    pub source: Option<std::vec::Vec<IpAddr>>,
    /// Keep Alive in seconds
    #[arg(long, default_value_t = 60, help_heading = "Generator")]
    pub keep_alive: u16,
    /// Sleep between messages of an open loop instead of looking for work all the time
    #[arg(long, help_heading = "Generator")]
    pub no_spin: bool,
    /// Seed of payloads, sizes and random gaps
    #[arg(long, help_heading = "Generator")]
    pub seed: Option<u64>,

    /// Condition: figure=limit that must not be exceeded, like p99=5ms or lost=0; may be repeated
    #[arg(long = "max", value_parser = |s: &str| Threshold::parse(Bound::Max, s), help_heading = "Report")]
    pub maxima: Vec<Threshold>,
    /// Condition: figure=limit that must be reached, like rate=100000; may be repeated
    #[arg(long = "min", value_parser = |s: &str| Threshold::parse(Bound::Min, s), help_heading = "Report")]
    pub minima: Vec<Threshold>,
    /// Write the report as JSON to this file; - for standard output
    #[arg(long, help_heading = "Report")]
    pub json: Option<PathBuf>,
    /// No progress while running
    #[arg(long, help_heading = "Report")]
    pub quiet: bool,
}

fn version(text: &str) -> Result<Version, String> {
    match text {
        "5" | "5.0" | "mqttv5" => Ok(Version::V5),
        "3.1.1" | "311" | "4" | "mqttv311" => Ok(Version::V311),
        _ => Err("use 5 or 3.1.1".into()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let (number, factor) = match text {
        t if t.ends_with("ms") => (&t[..t.len() - 2], 1e-3),
        t if t.ends_with('s') => (&t[..t.len() - 1], 1.0),
        t if t.ends_with('m') => (&t[..t.len() - 1], 60.0),
        t => (t, 1.0),
    };
    let n: f64 = number.parse().map_err(|_| "use seconds, or 500ms, 10s, 2m".to_string())?;
    if (0.0..=1e6).contains(&n) { Ok(n * factor) } else { Err("use 0 to 1000000 seconds".into()) }
}

fn cpus(text: &str) -> Result<Vec<usize>, String> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let number = |s: &str| s.trim().parse::<usize>().map_err(|_| format!("'{s}' is not a CPU number"));
        let (low, high) = (number(low)?, number(high)?);
        if high < low || high > 4096 {
            return Err(format!("'{part}' is not a range of CPUs"));
        }
        cpus.extend(low..=high);
    }
    Ok(cpus)
}

fn addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    let mut list = Vec::new();
    for part in text.split(',') {
        let parse = |s: &str| s.parse::<IpAddr>().map_err(|_| format!("'{s}' is not an address"));
        let Some((low, high)) = part.split_once('-') else {
            list.push(parse(part)?);
            continue;
        };
        let (IpAddr::V4(low), IpAddr::V4(high)) = (parse(low)?, parse(high)?) else {
            return Err("ranges of addresses are for IPv4".into());
        };
        let (low, high) = (u32::from(low), u32::from(high));
        if high < low || high - low > 65_535 {
            return Err(format!("'{part}' is not a range of addresses"));
        }
        list.extend((low..=high).map(|n| IpAddr::V4(Ipv4Addr::from(n))));
    }
    Ok(list)
}

/// Why no run came about.
pub enum Refusal {
    /// Exit code 2.
    Usage(String),
    /// Exit code 5.
    Connection(Failure),
}

impl RunArgs {
    /// All thresholds.
    pub fn thresholds(&self) -> Vec<Threshold> {
        self.maxima.iter().chain(&self.minima).cloned().collect()
    }

    /// Fills every gap and checks the whole.
    pub fn spec(&self) -> Result<Spec, Refusal> {
        let usage = |what: String| Refusal::Usage(what);
        let (pattern, publishers, subscribers, idlers, topic) = self.shape().map_err(usage)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        let random = mix(now ^ u64::from(std::process::id()) << 32);
        let run_id = format!("{:08x}", random >> 32);
        let template = Template::new(self.topic.as_deref().unwrap_or(topic), &run_id).map_err(usage)?;
        let allowed = sys::cpus_allowed().map_err(|e| usage(format!("cannot read the CPU affinity: {e}")))?;
        let cores = match &self.cores {
            Some(cores) => cores.clone(),
            None => allowed.last().copied().into_iter().collect(),
        };
        if let Some(cpu) = cores.iter().find(|cpu| !allowed.contains(cpu)) {
            return Err(usage(format!("--cores: CPU {cpu} is not among those allowed: {allowed:?}")));
        }
        let limit = sys::raise_descriptor_limit().unwrap_or(1024).saturating_sub(64);
        let clients = u64::from(publishers) + u64::from(subscribers) + u64::from(idlers);
        let needed = clients.div_ceil(limit.clamp(1, CONNECTIONS_PER_WORKER)) as usize;
        let load = match self.rate {
            None => Load::Closed { window: self.window },
            Some(rate) => {
                let arrivals = if self.poisson { Arrivals::Poisson } else { Arrivals::Constant };
                Load::Open { schedule: Schedule::constant(rate, self.warmup + self.duration, arrivals) }
            }
        };
        // Spinning on every CPU there is would starve a broker on this machine.
        let spin = !self.no_spin && cores.len() < allowed.len();
        let name = format!("{}:{}", self.host, self.port);
        let spec = Spec {
            scenario: self.what.clone(),
            run_id,
            run_tag: random as u16,
            seed: self.seed.unwrap_or(random),
            target: Target { name, addresses: Vec::new() },
            version: self.mqtt,
            user: self.user.clone(),
            password: self.password.clone(),
            keep_alive_s: self.keep_alive,
            pattern,
            publishers,
            subscribers,
            idlers,
            topics_per_publisher: self.topics,
            template,
            qos: self.qos,
            retain: false,
            sizes: self.payload.clone(),
            checked: !self.no_check,
            load,
            inflight: self.inflight,
            warmup_s: self.warmup,
            duration_s: self.duration,
            drain_s: self.drain,
            workers: cores.len().max(needed) as u32,
            cores,
            waiting: if spin { Waiting::Spin } else { Waiting::Sleep },
            connect_rate: self.connect_rate,
            connect_timeout_s: self.connect_timeout,
            sources: self.source.clone().unwrap_or_default(),
            pids: self.pid.clone(),
        };
        spec.check().map_err(usage)?;
        crate::procfs::Broker::new(&self.pid).map_err(usage)?;
        self.resolve(spec).map_err(Refusal::Connection)
    }

    fn resolve(&self, mut spec: Spec) -> Result<Spec, Failure> {
        let target = spec.target.name.clone();
        let found = (self.host.as_str(), self.port).to_socket_addrs();
        let found = found.map_err(|e| Failure::Unresolved { target: target.clone(), why: e.to_string() })?;
        // One address: a name that stands for several families would split a run between them.
        spec.target.addresses = found.take(1).collect();
        if spec.target.addresses.is_empty() {
            return Err(Failure::Unresolved { target, why: "no address found".into() });
        }
        Ok(spec)
    }

    /// Pattern, publishers, subscribers, idlers and default topic of the scenario.
    fn shape(&self) -> Result<(Pattern, u32, u32, u32, &'static str), String> {
        let publishers = |default| self.publishers.unwrap_or(default);
        let subscribers = |default| self.subscribers.unwrap_or(default);
        let shape = match self.what.as_str() {
            "p2p" => {
                let pairs = self.pairs.or(self.publishers).or(self.subscribers).unwrap_or(10);
                if self.publishers.unwrap_or(pairs) != pairs || self.subscribers.unwrap_or(pairs) != pairs {
                    return Err("p2p needs as many publishers as subscribers: use --pairs".into());
                }
                (Pattern::Pairs, pairs, pairs, 0, "p2p/{pub}")
            }
            "fan-in" => (Pattern::All, publishers(100), subscribers(1), 0, "fan-in/{pub}"),
            "fan-out" => (Pattern::All, publishers(1), subscribers(100), 0, "fan-out/{pub}"),
            "shared" => {
                let subscribers = subscribers(5);
                if self.groups == 0 || self.groups > subscribers {
                    return Err("--groups must be between 1 and the number of subscribers".into());
                }
                (Pattern::Shared { groups: self.groups }, publishers(100), subscribers, 0, "shared/{pub}")
            }
            "idle" => (Pattern::All, 0, 0, self.connections.unwrap_or(1000), "idle/{pub}"),
            "swallow" => (Pattern::Swallow, publishers(1), 0, 0, "swallow/{pub}"),
            other => {
                return Err(format!("unknown scenario '{other}': use p2p, fan-in, fan-out, shared or idle"));
            }
        };
        let topic = match (shape.4, self.topics) {
            (_, 0) => return Err("--topics must be at least 1".into()),
            (topic, 1) => topic,
            ("p2p/{pub}", _) => "p2p/{pub}/{n}",
            ("fan-in/{pub}", _) => "fan-in/{pub}/{n}",
            ("fan-out/{pub}", _) => "fan-out/{pub}/{n}",
            ("shared/{pub}", _) => "shared/{pub}/{n}",
            (_, _) => "topic/{pub}/{n}",
        };
        Ok((shape.0, shape.1, shape.2, shape.3, topic))
    }
}
