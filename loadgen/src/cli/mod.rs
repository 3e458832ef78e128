//! The command line: options, and how presets and scenario files lie beneath them.

mod build;
pub mod file;
mod fit;
pub mod presets;
mod values;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use build::Refusal;

use crate::compare::Contender;
use crate::payload::Sizes;
use crate::schedule::Segment;
use crate::threshold::{Bound, Threshold};
use crate::wire::Version;

const EXAMPLES: &str = "\
Examples:
  loadgen
      Ten seconds of p2p against 127.0.0.1:1883, as fast as possible without loss.
  loadgen p2p --pairs 50 --qos 1 --payload 256 --window 16 --pid $(pidof mosquitto)
      Saturation with acknowledgements, and what each message costs the broker.
  loadgen p2p --pairs 100 --rate 20k --max p99=5ms --max lost=0
      A fixed rate; latency counts from the time at which each message was due. Exit code 1 if p99 exceeds 5 ms.
  loadgen fanout-5-1000-5-250K -h broker.example -u me -P secret --html report.html
      A preset of the public benchmark suite (see `loadgen presets`), with a page to look at.
  loadgen reconnect-storm --subscribers 5000 --persistent --qos 1 --publishers 10 --rate 1000
      5,000 persistent sessions are cut off every 5 s while messages keep coming; none may be lost.
  loadgen ramp.toml
      A scenario file: the same options as TOML, and phases (ramp, hold, step, spike).
  loadgen compare --broker a=127.0.0.1:1883 --broker b=127.0.0.1:1884 -- p2p --pairs 50
      The same work against several brokers in turn, with ratios and their spread.

Exit codes: 0 fine, 1 threshold not met, 2 usage, 3 lost, duplicated, disordered or corrupted messages,
4 INVALID (the generator was late or busy) or, at a given rate, DISTURBED (others had the CPU), 5 connection,
130 interrupted, after the report. If several apply: 130, then 5, 3, 4, 1.";

/// Measures any MQTT broker over the network, checks every message, and judges its own part in the figures.
#[derive(Parser)]
#[command(
    name = "loadgen",
    about,
    version,
    after_help = EXAMPLES,
    disable_help_flag = true,
    disable_version_flag = true,
    args_override_self = true,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Action>,
    #[command(flatten)]
    pub run: RunArgs,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help, global = true)]
    help: Option<bool>,
    /// Print the version
    #[arg(long, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

/// What there is to do beside a run.
#[derive(Subcommand)]
pub enum Action {
    /// List the presets and scenarios
    #[command(disable_help_flag = true)]
    Presets,
    /// Measure what this generator can do on this machine, without a broker; later reports show it
    #[command(disable_help_flag = true)]
    Calibrate {
        /// CPU of the generator [default: the last that is allowed]
        #[arg(long)]
        core: Option<usize>,
        /// Seconds for each of three measurements
        #[arg(long, default_value = "3", value_parser = values::seconds)]
        duration: f64,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Run the same work against several brokers in turn
    #[command(disable_help_flag = true)]
    Compare {
        /// A broker: name=host:port, with ,pid to measure its CPU time; the others are compared with the first
        #[arg(long = "broker", required = true, value_parser = Contender::parse)]
        brokers: Vec<Contender>,
        /// Rounds, in each of which every broker has its turn [default: 3]
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: Option<u32>,
        /// A file with several runs (TOML: [[work]] with name and run; see bench/peers/table.toml); options after --
        /// are added to each of them
        #[arg(long)]
        plan: Option<PathBuf>,
        /// Write the comparison as one HTML page
        #[arg(long)]
        html: Option<PathBuf>,
        /// Write the comparison as JSON; - for standard output
        #[arg(long)]
        json: Option<PathBuf>,
        /// After --: what to run, and its options
        #[arg(last = true)]
        work: Vec<OsString>,
    },
}

/// Options of a run.
#[derive(Args, Clone)]
pub struct RunArgs {
    /// A scenario, a preset (see `loadgen presets`), or a scenario file (*.toml)
    #[arg(default_value = "p2p")]
    pub what: String,
    /// The scenario, set by presets and files
    #[arg(long, hide = true)]
    pub scenario: Option<String>,

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
    #[arg(short = 'V', long = "mqtt", default_value = "5", value_parser = values::version, help_heading = "Broker")]
    pub mqtt: Version,
    /// TLS, trusting the certificates in this PEM file
    #[arg(long, help_heading = "Broker")]
    pub cafile: Option<PathBuf>,
    /// TLS, trusting any certificate
    #[arg(long, help_heading = "Broker")]
    pub insecure: bool,
    /// Client certificate for TLS, PEM
    #[arg(long, requires = "key", help_heading = "Broker")]
    pub cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, requires = "cert", help_heading = "Broker")]
    pub key: Option<PathBuf>,
    /// WebSocket, with this path
    #[arg(long, num_args = 0..=1, default_missing_value = "/mqtt", help_heading = "Broker")]
    pub ws: Option<String>,
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
    /// Each of these connections subscribes to a topic of its own
    #[arg(long, help_heading = "Work")]
    pub subscribe: bool,
    /// Slow subscribers, in addition to the others (slow-subscriber)
    #[arg(long, default_value_t = 1, help_heading = "Work")]
    pub slow: u32,
    /// Bytes a second that each of them reads; 0 for none at all
    #[arg(long, default_value_t = 10_000, help_heading = "Work")]
    pub slow_rate: u32,
    /// Topics of each publisher, used in turn
    #[arg(long, help_heading = "Work")]
    pub topics: Option<u32>,
    /// Topic template below loadgen/RUNID/, with {pub} for the publisher's number and {k} for the topic's
    #[arg(long, help_heading = "Work")]
    pub topic: Option<String>,
    /// Subscribe with wildcards, even if each topic could be named
    #[arg(long, help_heading = "Work")]
    pub wildcard: bool,
    /// QoS of messages and subscriptions
    #[arg(short, long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2), help_heading = "Work")]
    pub qos: u8,
    /// Payload bytes: 64, a range 64..1024, or sizes with weights 64:90,1024:9,65536:1
    #[arg(long, default_value = "64", value_parser = Sizes::parse, help_heading = "Work")]
    pub payload: Sizes,
    /// Retain the messages (they are removed at the end)
    #[arg(long, help_heading = "Work")]
    pub retain: bool,
    /// Use persistent sessions (removed at the end)
    #[arg(long, help_heading = "Work")]
    pub persistent: bool,
    /// Topic Aliases: this many, or as many as the broker allows if that is less
    #[arg(long, default_value_t = 0, help_heading = "Work")]
    pub alias: u16,
    /// Send no check header: payloads may be below 16 bytes, and the report says UNCHECKED
    #[arg(long, help_heading = "Work")]
    pub no_check: bool,

    /// Closed loop: messages outstanding for each publisher [default: 32]
    #[arg(long, conflicts_with = "rate", help_heading = "Schedule")]
    pub window: Option<u32>,
    /// Open loop: messages a second, all publishers together (20k, 1.5M)
    #[arg(long, value_parser = values::rate, help_heading = "Schedule")]
    pub rate: Option<f64>,
    /// Open loop with random (Poisson) gaps instead of even ones
    #[arg(long, help_heading = "Schedule")]
    pub poisson: bool,
    /// Unacknowledged QoS 1 and 2 messages for each publisher; the broker's Receive Maximum applies too
    #[arg(long, default_value_t = 65_535, value_parser = clap::value_parser!(u16).range(1..), help_heading = "Schedule")]
    pub inflight: u16,
    /// Seconds to measure [default: 10]
    #[arg(short, long, value_parser = values::seconds, help_heading = "Schedule")]
    pub duration: Option<f64>,
    /// Seconds of load before the measurement, which do not count [default: 1]
    #[arg(long, value_parser = values::seconds, help_heading = "Schedule")]
    pub warmup: Option<f64>,
    /// Seconds to wait for missing messages after the last arrival
    #[arg(long, default_value = "5", value_parser = values::seconds, help_heading = "Schedule")]
    pub drain: f64,
    /// Connections a second [default: 5000; in storms as fast as it goes]
    #[arg(long, value_parser = values::rate, help_heading = "Schedule")]
    pub connect_rate: Option<f64>,
    /// Seconds between two storms (reconnect-storm)
    #[arg(long, default_value = "5", value_parser = values::seconds, help_heading = "Schedule")]
    pub storm_every: f64,

    /// CPUs of the generator, one worker each: 1 or 2,3 or 4-7 [default: one that the broker leaves free]
    #[arg(long, value_parser = values::cpus, help_heading = "Generator")]
    pub cores: Option<std::vec::Vec<usize>>,
    /// Seconds without any progress after which connecting has failed
    #[arg(long, default_value = "10", value_parser = values::seconds, help_heading = "Generator")]
    pub connect_timeout: f64,
    /// Source addresses, for more connections than one address has ports: 127.0.0.2-127.0.0.20
    #[arg(long, value_parser = values::addresses, help_heading = "Generator")]
    pub source: Option<std::vec::Vec<IpAddr>>,
    /// Keep Alive in seconds
    #[arg(long, default_value_t = 60, help_heading = "Generator")]
    pub keep_alive: u16,
    /// Sleep between messages of an open loop instead of looking for work all the time
    #[arg(long, help_heading = "Generator")]
    pub no_spin: bool,
    /// Closed loop: wait up to this long for more completions (50us), which makes batches larger and cheaper
    #[arg(long, value_parser = values::short, help_heading = "Generator")]
    pub gather: Option<f64>,
    /// Seed of payloads, sizes and random gaps
    #[arg(long, help_heading = "Generator")]
    pub seed: Option<u64>,

    /// Condition: figure=limit that must not be exceeded, like p99=5ms or lost=0; may be repeated
    #[arg(long = "max", value_parser = |s: &str| Threshold::parse(Bound::Max, s), help_heading = "Report")]
    pub maxima: Vec<Threshold>,
    /// Condition: figure=limit that must be reached, like rate=100k; may be repeated
    #[arg(long = "min", value_parser = |s: &str| Threshold::parse(Bound::Min, s), help_heading = "Report")]
    pub minima: Vec<Threshold>,
    /// Write the report as JSON to this file; - for standard output
    #[arg(long, help_heading = "Report")]
    pub json: Option<PathBuf>,
    /// Write the latency distribution in HdrHistogram's text format
    #[arg(long, help_heading = "Report")]
    pub hgrm: Option<PathBuf>,
    /// Write the report as one HTML page
    #[arg(long, help_heading = "Report")]
    pub html: Option<PathBuf>,
    /// Search for the highest rate that meets all conditions, beginning at --rate
    #[arg(long, conflicts_with = "window", help_heading = "Report")]
    pub find_max: bool,
    /// Print nothing while the run goes on
    #[arg(long, help_heading = "Report")]
    pub quiet: bool,

    /// The schedule of a scenario file.
    #[arg(skip)]
    pub phases: Vec<Segment>,
    /// The options that the user gave, on the command line or in a file, by their long names. A preset's own are not
    /// among them.
    #[arg(skip)]
    pub said: Vec<String>,
}

/// Options that make another one of a preset or file void, if the user gives them.
const OVERRULES: &[(&str, &[&str])] = &[
    ("window", &["rate", "poisson"]),
    ("rate", &["window"]),
    ("find_max", &["window"]),
    ("pairs", &["publishers", "subscribers"]),
];

/// Reads the command line. A preset or a file gives defaults; what the user writes overrules them.
///
/// # Errors
/// What clap has to say, help included, or what is wrong with a scenario file.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let matches = Cli::command().try_get_matches_from(&arguments)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    if cli.command.is_some() {
        return Ok(cli);
    }
    let mut command = Cli::command();
    let mut said: Vec<String> = command
        .get_arguments()
        .filter(|arg| given(&matches, arg.get_id().as_str()))
        .filter_map(|arg| arg.get_long().map(str::to_string))
        .collect();
    let beneath =
        beneath(&cli.run.what).map_err(|what| Cli::command().error(clap::error::ErrorKind::Io, what))?;
    let Some(file) = beneath else {
        cli.run.said = said;
        return Ok(cli);
    };
    let overruled =
        |option: &str| OVERRULES.iter().any(|(by, options)| options.contains(&option) && given(&matches, by));
    for (option, values) in &file.options {
        let Some(id) = id_of(&command, option) else {
            let known = format!("unknown option '{option}' in {}", cli.run.what);
            return Err(command.error(clap::error::ErrorKind::UnknownArgument, known));
        };
        if !overruled(&id) {
            command = command.mut_arg(id, |arg| arg.default_values(values.clone()));
            if !file.preset {
                said.push(option.clone());
            }
        }
    }
    let matches = command.try_get_matches_from(&arguments)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    if !given(&matches, "rate") && !given(&matches, "window") {
        cli.run.phases = file.segments;
    }
    cli.run.said = said;
    Ok(cli)
}

fn given(matches: &ArgMatches, id: &str) -> bool {
    matches.value_source(id) == Some(ValueSource::CommandLine)
}

fn id_of(command: &Command, option: &str) -> Option<String> {
    let found = command.get_arguments().find(|arg| arg.get_long() == Some(option));
    found.map(|arg| arg.get_id().to_string())
}

/// The options beneath the command line, if `what` names a preset or a file.
fn beneath(what: &str) -> Result<Option<file::File>, String> {
    if let Some(preset) = presets::find(what) {
        let options = preset.options.iter().map(|(name, value)| (name.to_string(), vec![value.to_string()]));
        return Ok(Some(file::File { options: options.collect(), segments: Vec::new(), preset: true }));
    }
    if !what.ends_with(".toml") {
        return Ok(None);
    }
    file::read(what.as_ref()).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<RunArgs, clap::Error> {
        parse(line.split_whitespace().map(OsString::from)).map(|cli| cli.run)
    }

    #[test]
    fn the_command_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_preset_gives_defaults_that_the_user_overrules() {
        let plain = read("loadgen p2p-1K-1K-1K-1K").unwrap();
        assert_eq!((plain.pairs, plain.rate, plain.qos), (Some(1000), Some(1000.0), 1));
        assert_eq!(plain.scenario.as_deref(), Some("p2p"));
        let changed = read("loadgen p2p-1K-1K-1K-1K --qos 2 --pairs 5").unwrap();
        assert_eq!((changed.pairs, changed.rate, changed.qos), (Some(5), Some(1000.0), 2));
        let closed = read("loadgen p2p-1K-1K-1K-1K --window 8").unwrap();
        assert_eq!((closed.window, closed.rate), (Some(8), None));
    }

    #[test]
    fn every_preset_is_read_and_makes_a_run() {
        for preset in presets::PRESETS {
            let args = read(&format!("loadgen {} --source 127.0.0.2-127.0.0.60", preset.name)).unwrap();
            match args.spec() {
                Ok(_) => {}
                // A million connections are not for every machine.
                Err(Refusal::Usage(what)) => {
                    assert!(what.contains("memory") || what.contains("ulimit"), "{what}")
                }
                Err(Refusal::Connection(failure)) => panic!("{}: {failure}", preset.name),
            }
        }
        for (scenario, _) in presets::SCENARIOS {
            assert!(read(&format!("loadgen {scenario}")).unwrap().spec().is_ok(), "{scenario}");
        }
    }

    #[test]
    fn a_file_lies_beneath_the_command_line() {
        let path = std::env::temp_dir().join(format!("loadgen-{}.toml", std::process::id()));
        let text = "scenario = 'fan-out'\nsubscribers = 7\npoisson = true\nmax = ['lost=0', 'p99=1s']\n\
                    [[phases]]\nhold = { seconds = 3, rate = 10 }\n";
        std::fs::write(&path, text).unwrap();
        let args = read(&format!("loadgen {} --publishers 3", path.display())).unwrap();
        assert_eq!((args.subscribers, args.publishers, args.poisson), (Some(7), Some(3), true));
        assert_eq!((args.maxima.len(), args.phases.len()), (2, 1));
        let fixed = read(&format!("loadgen {} --rate 5", path.display())).unwrap();
        assert_eq!((fixed.phases.len(), fixed.rate), (0, Some(5.0)));
        std::fs::write(&path, "nonsense = 1\n").unwrap();
        assert!(read(&format!("loadgen {}", path.display())).is_err());
        std::fs::remove_file(&path).unwrap();
        assert!(read("loadgen /nowhere.toml").is_err());
    }

    #[test]
    fn contradictions_are_refused_with_a_reason() {
        for (line, word) in [
            ("loadgen p2p --payload 15", "--no-check"),
            ("loadgen nonsense", "nonsense"),
            ("loadgen p2p --alias 4 -V 3.1.1", "MQTT 5"),
            ("loadgen shared --groups 9 --subscribers 3", "--groups"),
            ("loadgen fan-in --topic a", "{pub}"),
            ("loadgen reconnect-storm --subscribers 3 --publishers 1", "--persistent"),
            ("loadgen fan-out --no-check", "--rate"),
            ("loadgen p2p --window 0", "window"),
            ("loadgen p2p -V 3.1.1 -P secret", "-u"),
            ("loadgen p2p --cores 999", "CPU"),
            ("loadgen p2p --rate 5 --gather 50us", "--gather"),
            ("loadgen p2p --cafile /nowhere.pem", "nowhere"),
            ("loadgen p2p --wildcard --topic a/{pub}", "{k}"),
            ("loadgen p2p --subscribe", "connect-storm"),
            ("loadgen p2p --source 127.0.0.2,192.0.2.1", "192.0.2.1 is no address of this machine"),
            ("loadgen conn-1M-5K", "--source 127.0.0.2-127.0.0."),
            ("loadgen idle --connections 200000", "--source 127.0.0.2-127.0.0."),
        ] {
            let Err(Refusal::Usage(what)) = read(line).unwrap().spec() else { panic!("{line} was accepted") };
            assert!(what.contains(word), "{line}: {what}");
        }
        for line in ["loadgen p2p --rate 5 --window 5", "loadgen p2p --qos 3", "loadgen p2p --max p99"] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
