//! The `ringmq` command: flags in, a broker until a signal, exit codes out. See `ringmq --help`.
#![deny(unsafe_code)]

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use ringmq::config::{self, Config, ConfigError, exit};
use ringmq::io::machine::Machine;
use ringmq::io::sockets::{self, Signal, StopSignals};
use ringmq::log::{self, Kind, Level};
use ringmq::server::{Server, Stopped};

#[cfg(not(feature = "count-allocations"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(feature = "count-allocations")]
#[global_allocator]
static ALLOCATOR: ringmq::allocator::Counting = ringmq::allocator::Counting;

/// A wait for a signal ends after this time, and begins again.
const WATCH: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    abort_on_panic();
    sockets::small_pages();
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let affinity = sockets::affinity().unwrap_or_default();
    let machine = Machine::look(Path::new("/"));
    match args.get(1).map(String::as_str) {
        Some("passwd") => return tell(config::passwd(&args)),
        Some("config") => return tell(config::effective(&args, &machine)),
        Some("check") => return tell(config::check(&args, &machine, &affinity)),
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

/// The file and all that it names is read again; what was in force before stays if anything is wrong.
fn reload(server: &mut Server, source: &Source) {
    let before = server.config().log_level;
    let outcome = source.config().map_err(|error| error.short()).and_then(|config| {
        let level = config.log_level;
        server.reload(config).map(|done| (done, level)).map_err(|error| error.to_string())
    });
    match outcome {
        Ok((done, level)) => {
            let file = server.config().file.as_ref().map(|path| path.to_string_lossy().into_owned());
            let until = server.certificate_expiry_s().map(log::day);
            let text = done.text();
            let mut values = vec![("signal", Signal::HangUp.name().into())];
            values.extend(file.as_ref().map(|file| ("file", file.into())));
            values.extend(until.as_ref().map(|until| ("certificates-until", until.into())));
            values.extend(text.iter().map(|(name, value)| (*name, log::Value::Ours(value))));
            // By the level that says more of both, so that a change of it is seen.
            log::set_level(level.max(before));
            let importance = if done.needs_restart.is_empty() { Level::Info } else { Level::Warn };
            log::event(importance, Kind::Reload, &values);
            log::set_level(level);
        }
        Err(why) => {
            let values = [("why", log::Value::Ours(&why)), ("kept", "what was in force before".into())];
            log::event(Level::Error, Kind::Reload, &values);
        }
    }
}

fn run(config: &Config, source: &Source) -> ExitCode {
    let fail = |code: u8, what: &dyn std::fmt::Display| {
        say(&with_newline(log::plain(config.log_format, &format!("ringmq: {what}"))));
        ExitCode::from(code)
    };
    // Before any thread starts, so that all of them hold the signals back.
    let signals = match StopSignals::hold() {
        Ok(signals) => signals,
        Err(error) => return fail(exit::SYSTEM, &error),
    };
    let open = match log::start(config.log_level, config.log_format) {
        Ok(open) => open,
        Err(error) => return fail(exit::SYSTEM, &error),
    };
    let mut server = match Server::start(config) {
        Ok(server) => server,
        Err(error) => return fail(error.exit_code(), &error),
    };
    let text: String = server
        .start_text(config)
        .iter()
        .map(|line| with_newline(log::plain(config.log_format, line)))
        .collect();
    say(&text);

    let signal = loop {
        match signals.wait(WATCH) {
            Some(Signal::HangUp) => reload(&mut server, source),
            Some(signal @ (Signal::Terminate | Signal::Interrupt)) => break signal,
            None => {}
        }
    };
    let connections = server.connections();
    log::event(
        Level::Info,
        Kind::Stop,
        &[("signal", signal.name().into()), ("connections", connections.into())],
    );
    server.begin_stop();
    let mut second = None;
    let patience = Duration::from_millis(server.config().shutdown_timeout_ms);
    let (stopped, _) = server.finish(patience, |poll| {
        second = signals.wait(poll).filter(|signal| *signal != Signal::HangUp);
        second.is_some()
    });
    let code = match (stopped, second) {
        (Stopped::Drained, _) => ExitCode::SUCCESS,
        (Stopped::Abandoned, None) => {
            log::event(
                Level::Warn,
                Kind::Stop,
                &[("why", "the time was up before everybody was gone".into())],
            );
            ExitCode::SUCCESS
        }
        (Stopped::Abandoned, Some(signal)) => ExitCode::from(128 + signal.number()),
    };
    drop(open);
    code
}

/// A panic in any thread is the end of the process: half a broker is worse than none.
fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
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
