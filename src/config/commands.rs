//! Where settings come from, and the commands that serve nobody: `ringmq passwd`, `check` and
//! `config`.

use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};

use super::file::{Listener, Place};
use super::listener::{self, REPLACING};
use super::{Config, ConfigError, FileError, Flags, access_text, exit, file, help, limits, listener_text};
use crate::access::passwd::{self, Change, Source};
use crate::access::{Cost, Users};
use crate::io::machine::Machine;
use crate::log;
use crate::transport::tls::{LoadError, TlsAcceptor};

/// A command line and the file that it names.
pub(super) struct Sources {
    pub given: clap::ArgMatches,
    pub path: Option<PathBuf>,
    settings: Vec<file::Setting>,
    /// Those of the file, unless the command line replaces them.
    pub listeners: Vec<Listener>,
    /// The command line with those settings of the file that it does not replace.
    pub arguments: Vec<String>,
}

/// A value that cannot be.
#[derive(Debug)]
pub(super) struct Unfit {
    /// The setting that has it, as a file names it.
    pub setting: &'static str,
    pub what: String,
}

impl Sources {
    /// Where the file says what holds for the whole broker; `None` if it does not, or the command
    /// line replaces it.
    pub fn place_of(&self, key: &str) -> Option<Place> {
        let said = self.settings.iter().find(|setting| setting.key == key)?;
        (!file::is_given(key, &self.given, &Flags::command())).then_some(said.at)
    }

    /// An error with its place in the file, if it has one.
    pub fn wrong(&self, (at, what): (Option<Place>, String)) -> ConfigError {
        match (at, &self.path) {
            (Some(at), Some(path)) => ConfigError::File(FileError { path: path.clone(), at: Some(at), what }),
            _ => ConfigError::Wrong(what),
        }
    }

    pub fn unfit(&self, Unfit { setting, what }: Unfit) -> ConfigError {
        let at = self.place_of(setting);
        let dashes = if at.is_some() { "" } else { "--" };
        self.wrong((at, format!("{dashes}{setting}: {what}")))
    }

    /// What clap says of the command line and the file together. The command line was looked at
    /// before, so what is missing is missing beside something in the file.
    pub fn incomplete(&self, error: clap::Error) -> ConfigError {
        let begun = self
            .settings
            .iter()
            .find(|setting| setting.key.starts_with("tls-") && self.place_of(&setting.key).is_some());
        match (error.kind(), error.get(ContextKind::InvalidArg), begun) {
            (ErrorKind::MissingRequiredArgument, Some(ContextValue::Strings(missing)), Some(begun)) => {
                let names = missing.iter().map(|name| name.trim_start_matches('-'));
                let names: Vec<_> = names.filter_map(|name| name.split([' ', '=']).next()).collect();
                self.wrong((Some(begun.at), format!("{} needs {} too", begun.key, names.join(" and "))))
            }
            _ => ConfigError::Clap(error),
        }
    }

    pub fn read(args: &[String]) -> Result<Sources, ConfigError> {
        let command = Flags::command();
        let given = command.clone().try_get_matches_from(args).map_err(ConfigError::Clap)?;
        let path = given.get_one::<PathBuf>("config").cloned();
        let contents = path.as_deref().map(|path| file::read(path, &command)).transpose();
        let file::Contents { settings, mut listeners } =
            contents.map_err(ConfigError::File)?.unwrap_or_default();
        if REPLACING.iter().any(|flag| file::is_given(flag, &given, &command)) {
            listeners.clear();
        }
        let mut arguments: Vec<String> = args.iter().take(1).cloned().collect();
        arguments.extend(file::not_given(&settings, &given, &command));
        arguments.extend(args.iter().skip(1).cloned());
        Ok(Sources { given, path, settings, listeners, arguments })
    }
}

/// `ringmq config`: what would hold with the rest of the command line, as a file would have it,
/// each setting with where it comes from, and what holds instead where another limit cuts it on
/// this machine.
///
/// # Errors
/// As [`Config::parse`], for what is wrong with single settings.
pub fn effective(args: &[String], machine: &Machine) -> Result<String, ConfigError> {
    let args = without_word(args);
    // Its own usage and help; the flags are the broker's.
    help::config_command().try_get_matches_from(&args).map_err(ConfigError::Clap)?;
    let sources = Sources::read(&args)?;
    let command = Flags::command();
    let all = command
        .clone()
        .try_get_matches_from(&sources.arguments)
        .map_err(|error| sources.incomplete(error))?;
    let flags = Flags::try_parse_from(&sources.arguments).map_err(|error| sources.incomplete(error))?;
    let limits = limits::limits(&flags, machine).map_err(|unfit| sources.unfit(unfit))?;
    let flat = file::Effective {
        command: &command,
        all: &all,
        given: &sources.given,
        settings: &sources.settings,
        path: sources.path.as_deref(),
        adjusted: limits::adjusted(&flags, &limits, machine),
    };
    Ok(flat.text(!sources.listeners.is_empty()) + &listener::effective(&sources, &flat, machine)?)
}

#[derive(Parser, Debug)]
#[command(name = "ringmq check", bin_name = "ringmq check", max_term_width = 110)]
#[command(about = "Checks a file of settings and the files that it names, and explains what it means")]
struct CheckFlags {
    /// The file, as for --config
    file: PathBuf,
}

/// What `ringmq check` has found in files that a start would take.
#[derive(Debug)]
pub struct Checked {
    /// What the file means, then the warnings, then a summary.
    pub text: String,
    pub warnings: usize,
}

impl Checked {
    /// The code that the process exits with.
    pub fn exit_code(&self) -> u8 {
        if self.warnings == 0 { 0 } else { exit::WARNINGS }
    }
}

/// `ringmq check FILE`: reads a file, and those that it names, as a start would.
///
/// # Errors
/// The first thing that a start would refuse.
pub fn check(args: &[String], machine: &Machine, affinity: &[u16]) -> Result<Checked, ConfigError> {
    let CheckFlags { file } = CheckFlags::try_parse_from(without_word(args)).map_err(ConfigError::Clap)?;
    let path = file.to_string_lossy().into_owned();
    let config = Config::parse(&["ringmq".to_owned(), format!("--config={path}")], machine, affinity)?;
    let users = config
        .access
        .load()
        .map_err(|error| ConfigError::File(FileError { path: error.path, at: None, what: error.what }))?
        .users;
    let unusable =
        |error: LoadError| ConfigError::File(FileError { path: error.path, at: None, what: error.why });
    let contents = file::read(&file, &Flags::command()).map_err(ConfigError::File)?;
    let mut lines = Vec::new();
    let mut warnings = Vec::new();
    for listener in &config.listeners {
        let mut line = format!("listens on {}", listener.address);
        let more = listener_text(&config, listener);
        if !more.is_empty() {
            line.push_str(&format!(": {more}"));
        }
        if let Some(tls) = &listener.tls {
            let acceptor = TlsAcceptor::new(tls.clone()).map_err(unusable)?;
            line.push_str(&format!("; certificate until {}", log::day(acceptor.expiry().certificate_at_s)));
            warnings.extend(acceptor.warnings());
        }
        lines.push(line);
    }
    lines.extend(config.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines.extend(access_text(&config, &users.iter().map(|users| users.len()).collect::<Vec<_>>()));
    for (path, users) in config.access.password_files.iter().zip(&*users) {
        lines.extend(logins_text(path, users, config.hashing_threads));
    }
    let settings = contents.settings.len();
    let listeners = config.listeners.len();
    // Several listeners may share a file.
    warnings.sort();
    warnings.dedup();
    lines.extend(warnings.iter().map(|warning| format!("warning: {warning}")));
    let found = match warnings.len() {
        0 => "no problems".to_owned(),
        1 => "1 warning".to_owned(),
        several => format!("{several} warnings"),
    };
    lines.push(format!("{path}: {settings} settings, {listeners} listeners: {found}"));
    Ok(Checked { text: lines.join("\n"), warnings: warnings.len() })
}

/// What the hashes of a file let in on this machine, as measured with some of them.
fn logins_text(path: &Path, users: &Users, threads: usize) -> Option<String> {
    let hash_ns = users.measure()?.as_nanos().max(1);
    let rate = (1_000_000_000 * threads as u128 / hash_ns).max(1);
    let all_s = (users.len() as u128).div_ceil(rate);
    Some(format!(
        "{}: about {rate} logins a second if {threads} CPUs are idle; all {} users in {all_s} s",
        path.display(),
        users.len(),
    ))
}

/// The command line without the word behind the program's name.
pub(super) fn without_word(args: &[String]) -> Vec<String> {
    args.iter().take(1).chain(args.iter().skip(2)).cloned().collect()
}

/// The rest of the command line behind that word.
#[derive(Parser, Debug)]
#[command(name = "ringmq passwd", bin_name = "ringmq passwd", max_term_width = 110)]
#[command(about = "Sets the password of a user in a file for --password-file", long_about = None)]
struct PasswdFlags {
    /// The password file; if it does not exist, it is made, readable by its owner alone
    file: PathBuf,
    /// The user whose password to set; a new user is added
    user: String,
    /// Read the password from the first line of stdin instead of the terminal
    #[arg(long, conflicts_with = "delete")]
    password_stdin: bool,
    /// Remove the user
    #[arg(long)]
    delete: bool,
    /// Work for each login, and for each guess of a thief: device, mixed, person, or
    /// m=KIB,t=PASSES[,p=LANES]
    ///
    /// device (m=1024,t=1) is for long random passwords, such as 16 characters from `openssl rand`.
    /// Nobody can guess such a password, and after a restart each core lets 1,000 clients and more
    /// back in every second. person (m=19456,t=2) is for passwords that people make up. A thief of
    /// the file can then try some fifty times fewer guesses in the same time, and some fifty times
    /// fewer clients can log in per second. mixed (m=8192,t=1) lies between. Each hash contains its
    /// cost, so one file may have several. `ringmq check` says how many logins a second a file
    /// allows on this machine.
    #[arg(long, value_name = "COST", default_value_t = Cost::DEVICE, conflicts_with = "delete")]
    cost: Cost,
}

/// Sets a password in a file of users, as `ringmq passwd` is told by `args`, the program's name
/// first. Returns what to tell the person.
///
/// # Errors
/// What is wrong; nothing was changed then.
pub fn passwd(args: &[String]) -> Result<String, ConfigError> {
    let flags = PasswdFlags::try_parse_from(without_word(args)).map_err(ConfigError::Clap)?;
    let change = match (flags.delete, flags.password_stdin) {
        (true, _) => Change::Delete,
        (false, true) => Change::Set(Source::Stdin, flags.cost),
        (false, false) => Change::Set(Source::Terminal, flags.cost),
    };
    passwd::run(&flags.file, &flags.user, change).map_err(|error| match error {
        passwd::Error::Asked(what) => ConfigError::Wrong(what),
        passwd::Error::File(what) => ConfigError::File(FileError { path: flags.file, at: None, what }),
    })
}
