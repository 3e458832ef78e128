//! The `ringmq` command: flags in, a broker until a signal, exit codes out. See `ringmq --help`.
#![deny(unsafe_code)]

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ringmq::config::{self, Config, ConfigError, exit};
use ringmq::io::machine::Machine;
use ringmq::io::sockets::{self, Signal, Signals};
use ringmq::log::{self, Kind, Level};
use ringmq::metrics::Counters;
use ringmq::server::{self, Rest, Server, Stopped};
use ringmq::shard::Lost;

#[cfg(not(feature = "count-allocations"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(feature = "count-allocations")]
#[global_allocator]
static ALLOCATOR: ringmq::allocator::Counting = ringmq::allocator::Counting;

/// A wait for a signal ends after this time, and begins again.
const WATCH: Duration = Duration::from_secs(3600);
/// The same where there is a data directory, which is looked at in between.
const WATCH_STORE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    abort_on_panic();
    sockets::small_pages();
    let args = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let args = match config::spelled_out(args) {
        Ok(args) => args,
        Err(error) => return refuse(&error),
    };
    let affinity = sockets::affinity().unwrap_or_default();
    let machine = Machine::look(Path::new("/"));
    match args.get(1).map(String::as_str) {
        Some("passwd") => return tell(config::passwd(&args)),
        Some("config") => return tell(config::effective(&args, &machine)),
        Some("store") => {
            return match config::store_command(&args) {
                Ok(command) => ExitCode::from(server::tool::run(&command)),
                Err(error) => refuse(&error),
            };
        }
        Some("check") => {
            let checked = config::check(&args, &machine, &affinity);
            let code = checked.as_ref().map_or(0, config::Checked::exit_code);
            let told = tell(checked.map(|checked| checked.text));
            return if code == 0 { told } else { ExitCode::from(code) };
        }
        _ => {}
    }
    let source = Source { args, machine, affinity };
    match source.config() {
        Ok(config) => run(&config, &source),
        Err(error) => refuse(&error),
    }
}

fn refuse(error: &ConfigError) -> ExitCode {
    match error {
        ConfigError::Clap(clap) => drop(clap.print()),
        ConfigError::Wrong(_) | ConfigError::File(_) => say(&format!("ringmq: {error}\n")),
    }
    ExitCode::from(error.exit_code())
}

/// Ends with what a command that serves nobody has found or done.
fn tell(outcome: Result<String, ConfigError>) -> ExitCode {
    match outcome {
        // Where stdout is gone nobody can be told.
        Ok(done) => {
            let _ = std::io::stdout().write_all(with_newline(done).as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => refuse(&error),
    }
}

/// What a configuration is made of, at the start and again at SIGHUP.
struct Source {
    args: Vec<String>,
    machine: Machine,
    affinity: Vec<u16>,
}

impl Source {
    fn config(&self) -> Result<Config, ConfigError> {
        Config::parse(&self.args, &self.machine, &self.affinity)
    }
}

/// The file and all that it names is read again. What was in force before stays if anything is wrong with it; if a shard does
/// not answer, the log says what applies.
fn reload(server: &mut Server, source: &Source) {
    let before = server.config().log_level;
    let outcome = source.config().map_err(|error| (error.short(), true)).and_then(|config| {
        let level = config.log_level;
        let reloaded = server.reload(config).map(|done| (done, level));
        reloaded.map_err(|error| (error.to_string(), error.changed_nothing()))
    });
    match outcome {
        Ok((done, level)) => {
            let file = server.config().file.as_ref().map(|path| path.to_string_lossy().into_owned());
            let until = server.certificate_expiry_s().map(log::day);
            let text = done.text();
            let mut values = vec![("signal", "SIGHUP".into())];
            values.extend(file.as_ref().map(|file| ("file", file.into())));
            values.extend(until.as_ref().map(|until| ("certificates-until", until.into())));
            values.extend(text.iter().map(|(name, value)| (*name, log::Value::Ours(value))));
            // By the level that says more of both, so that a change of it is seen.
            log::set_level(level.max(before));
            let importance = if done.needs_restart.is_empty() { Level::Info } else { Level::Warn };
            log::event(importance, Kind::Reload, &values);
            log::set_level(level);
        }
        Err((why, changed_nothing)) => {
            let mut values = vec![("why", log::Value::Ours(&why))];
            values.extend(changed_nothing.then(|| ("kept", "the former settings".into())));
            log::event(Level::Error, Kind::Reload, &values);
        }
    }
}

fn run(config: &Config, source: &Source) -> ExitCode {
    let fail = |code: u8, what: &dyn std::fmt::Display| {
        say(&log::refusal(config.log_format, &format!("ringmq: {what}")));
        ExitCode::from(code)
    };
    // Before any thread starts, so that all of them hold the signals back.
    let signals = match Signals::hold() {
        Ok(signals) => signals,
        Err(error) => return fail(exit::SYSTEM, &error),
    };
    let open = match log::start(config.log_level, config.log_format, config.log_file.as_deref()) {
        Ok(open) => open,
        Err(error) => {
            return match &config.log_file {
                Some(path) => fail(exit::CONFIG, &format!("--log-file {}: {error}", path.display())),
                None => fail(exit::SYSTEM, &error),
            };
        }
    };
    let mut server = match Server::start(config) {
        Ok(server) => server,
        Err(error) => {
            if config.log_file.is_some() {
                // Who looks there for the reason finds it too.
                log::say(Level::Error, Kind::Start, &error.to_string(), &[]);
            }
            return fail(error.exit_code(), &error);
        }
    };
    let _ = COUNTERS.set(Arc::clone(server.counters()));
    server.start_text(config).iter().for_each(|sentence| sentence.say());

    let watch = if config.store.is_some() { WATCH_STORE } else { WATCH };
    let mut broken;
    let signal = loop {
        server.tend_certificates();
        server.tend_store();
        broken = server.store_broken();
        if let Some(error) = &broken {
            let why = format!(
                "the data directory cannot be written: {error}; what is not on disk was not acknowledged"
            );
            log::event(Level::Error, Kind::Stop, &[("why", log::Value::Ours(&why))]);
            break Signal::Terminate;
        }
        match signals.wait(watch) {
            Some(signal) if signal.stops() => break signal,
            Some(signal) => handle(signal, &mut server, source),
            None => {}
        }
    };
    let name = signal.to_string();
    let connections = server.connections();
    log::event(
        Level::Info,
        Kind::Stop,
        &[("signal", name.as_str().into()), ("connections", connections.into())],
    );
    let shards = usize::from(config.shards());
    server.begin_stop();
    let mut second = None;
    let patience = Duration::from_millis(server.config().shutdown_timeout_ms);
    let (stopped, left) = server.finish(patience, |poll| {
        match signals.wait(poll) {
            Some(signal) if signal.stops() => second = Some(signal),
            Some(Signal::HangUp) => {
                ignore(Signal::HangUp, "the broker is stopping and reads no files any more")
            }
            Some(signal) => ignore(signal, NO_MEANING),
            None => {}
        }
        second.is_some()
    });
    let code = match (stopped, second) {
        (Stopped::Drained, _) => ExitCode::SUCCESS,
        (Stopped::Abandoned, None) => {
            log::event(
                Level::Warn,
                Kind::Stop,
                &[("why", "--shutdown-timeout was over before all clients were gone".into())],
            );
            ExitCode::SUCCESS
        }
        (Stopped::Abandoned, Some(signal)) => ExitCode::from(128 + signal.number()),
    };
    say_lost(&left, shards);
    drop(open);
    if broken.is_some() { ExitCode::from(exit::IO) } else { code }
}

/// Says what ends with the process, since nothing of it is kept elsewhere.
fn say_lost(left: &[Rest], shards: usize) {
    let lost = left.iter().fold(Lost::default(), |lost, shard| lost + shard.lost);
    let level = if lost == Lost::default() && left.len() == shards { Level::Info } else { Level::Warn };
    let mut values = vec![
        ("lost_sessions", lost.sessions.into()),
        ("lost_messages", lost.messages.into()),
        ("lost_retained", lost.retained.into()),
    ];
    if left.len() < shards {
        // They did not end in time and say nothing.
        values.push(("shards_not_counted", (shards - left.len()).into()));
    }
    log::event(level, Kind::Stop, &values);
}

/// A signal that does not stop the broker.
fn handle(signal: Signal, server: &mut Server, source: &Source) {
    match signal {
        Signal::HangUp => reload(server, source),
        other => ignore(other, NO_MEANING),
    }
}

/// Why most signals are ignored.
const NO_MEANING: &str = "ringmq ignores this signal";

/// A signal that changes nothing but the log.
fn ignore(signal: Signal, why: &str) {
    if signal == Signal::ReopenLog {
        return log::reopen();
    }
    let name = signal.to_string();
    let values = [("signal", name.as_str().into()), ("why", why.into())];
    log::event(Level::Warn, Kind::Signal, &values);
}

/// What the shards count, for the last words of a process that ends by a panic.
static COUNTERS: OnceLock<Arc<[Counters]>> = OnceLock::new();

/// A panic in any thread is the end of the process: half a broker is worse than none.
fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        if let Some(counters) = COUNTERS.get() {
            say(&server::lost_in_a_crash(counters));
        }
        std::process::abort();
    }));
}

/// Writes to stderr at once; nobody can be told if that fails.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn with_newline(mut line: String) -> String {
    if !line.ends_with('\n') {
        line.push('\n');
    }
    line
}
