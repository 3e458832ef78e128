//! Where settings come from, and the commands that serve nobody: `ringmq passwd`, `check` and `config`.

use std::path::PathBuf;

use clap::{CommandFactory, Parser};

use super::{Config, ConfigError, FileError, Flags, file};
use crate::access::passwd::{self, Change, Source};
use crate::io::machine::Machine;

/// A command line and the file that it names.
pub(super) struct Sources {
    given: clap::ArgMatches,
    path: Option<PathBuf>,
    settings: Vec<file::Setting>,
    /// The command line with those settings of the file that it does not replace.
    pub arguments: Vec<String>,
}

impl Sources {
    pub fn read(args: &[String]) -> Result<Sources, ConfigError> {
        let command = Flags::command();
        let given = command.clone().try_get_matches_from(args).map_err(ConfigError::Clap)?;
        let path = given.get_one::<PathBuf>("config").cloned();
        let settings = path.as_deref().map(|path| file::read(path, &command)).transpose();
        let settings = settings.map_err(ConfigError::File)?.unwrap_or_default();
        let mut arguments: Vec<String> = args.iter().take(1).cloned().collect();
        arguments.extend(file::not_given(&settings, &given, &command));
        arguments.extend(args.iter().skip(1).cloned());
        Ok(Sources { given, path, settings, arguments })
    }
}

/// `ringmq config`: what would hold with the rest of the command line, as a file would have it, each setting with where
/// it comes from.
///
/// # Errors
/// As [`Config::parse`], for what is wrong with single settings.
pub fn effective(args: &[String]) -> Result<String, ConfigError> {
    let sources = Sources::read(&without_word(args))?;
    let command = Flags::command();
    let all = command.clone().try_get_matches_from(&sources.arguments).map_err(ConfigError::Clap)?;
    Ok(file::effective(&command, &all, &sources.given, &sources.settings, sources.path.as_deref()))
}

#[derive(Parser, Debug)]
#[command(name = "ringmq check", max_term_width = 110)]
struct CheckFlags {
    /// The file that --config would name
    file: PathBuf,
}

/// `ringmq check FILE`: reads a file, and those that it names, as a start would. Returns what to tell the person.
///
/// # Errors
/// The first thing that a start would refuse.
pub fn check(args: &[String], machine: &Machine, affinity: &[u16]) -> Result<String, ConfigError> {
    let CheckFlags { file } = CheckFlags::try_parse_from(without_word(args)).map_err(ConfigError::Clap)?;
    let path = file.to_string_lossy().into_owned();
    let config = Config::parse(&["ringmq".to_owned(), format!("--config={path}")], machine, affinity)?;
    let (policy, users) = config
        .access
        .load()
        .map_err(|error| ConfigError::File(FileError { path: error.path, at: None, what: error.what }))?;
    let settings = file::read(&file, &Flags::command()).map_err(ConfigError::File)?.len();
    let users = users.map_or("no file of users".to_owned(), |users| format!("{} users", users.len()));
    let rules = if policy.rules.is_some() { "rules" } else { "no rules" };
    Ok(format!("{path}: {settings} settings, {users}, {rules}: all well"))
}

/// The command line without the word behind the program's name.
fn without_word(args: &[String]) -> Vec<String> {
    args.iter().take(1).chain(args.iter().skip(2)).cloned().collect()
}

/// `ringmq passwd`: the rest of the command line behind that word.
#[derive(Parser, Debug)]
#[command(name = "ringmq passwd", max_term_width = 110)]
struct PasswdFlags {
    /// The file that --password-file names; made if it is not there, readable by its owner alone
    file: PathBuf,
    /// The user whose password is set; new ones are added
    user: String,
    /// Read the password from the first line of stdin instead of the terminal
    #[arg(long, conflicts_with = "delete")]
    password_stdin: bool,
    /// Take the user out
    #[arg(long)]
    delete: bool,
}

/// Sets a password in a file of users, as `ringmq passwd` is told by `args`, the program's name first. Returns what to
/// tell the person.
///
/// # Errors
/// What is wrong; nothing was changed then.
pub fn passwd(args: &[String]) -> Result<String, ConfigError> {
    let flags = PasswdFlags::try_parse_from(without_word(args)).map_err(ConfigError::Clap)?;
    let change = match (flags.delete, flags.password_stdin) {
        (true, _) => Change::Delete,
        (false, true) => Change::Set(Source::Stdin),
        (false, false) => Change::Set(Source::Terminal),
    };
    passwd::run(&flags.file, &flags.user, change).map_err(ConfigError::Wrong)
}
