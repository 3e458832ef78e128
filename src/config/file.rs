//! `ringmq.toml`: a key for each flag, named as the flag is, with the same values and the same
//! meaning; and a table `[[listener]]` for each listener, whose keys are those of
//! [`super::listener`].
//!
//! So there is one list of settings, with one help text each. A flag on the command line replaces
//! what the file says; nothing else does. Paths in the file are relative to the file. Every value
//! is checked where it stands, so that an error has a line and a column.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory, ValueHint};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::foreign;
use super::listener::ListenerKeys;

/// The flags that make no sense in a file.
const ONLY_FLAGS: [&str; 3] = ["config", "help", "version"];

/// A line and a column, from 1.
pub(super) type Place = (usize, usize);

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// Of the whole broker, in the order of the file.
    pub settings: Vec<Setting>,
    pub listeners: Vec<Listener>,
}

/// A `[[listener]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listener {
    pub at: Place,
    pub settings: Vec<Setting>,
}

impl Listener {
    /// Where a key stands, or the table if it has no such key.
    pub fn place_of(&self, key: &str) -> Place {
        self.settings.iter().find(|setting| setting.key == key).map_or(self.at, |setting| setting.at)
    }
}

/// One setting of a file, as flags say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub key: String,
    pub at: Place,
    /// What stands for it on a command line; nothing for a switch that is off.
    pub arguments: Vec<String>,
}

impl Setting {
    /// Its value, if it has exactly one.
    pub fn value(&self) -> Option<&str> {
        match &self.arguments[..] {
            [argument] => argument.split_once('=').map(|(_, value)| value),
            _ => None,
        }
    }
}

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    pub path: PathBuf,
    /// Line and column, from 1; `None` if the file could not be read.
    pub at: Option<(usize, usize)>,
    pub what: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some((line, column)) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for FileError {}

/// Reads the settings of a file in the order in which they stand there.
///
/// # Errors
/// The first thing that is wrong: no TOML, a key that is none, or a value that its flag does not take.
pub(super) fn read(path: &Path, command: &clap::Command) -> Result<Contents, FileError> {
    let text = std::fs::read_to_string(path).map_err(|error| FileError {
        path: path.to_owned(),
        at: None,
        what: error.to_string(),
    })?;
    let directory = path.parent().unwrap_or(Path::new(""));
    parse(&text, command, directory).map_err(|(span, what)| {
        let (at, what) = match foreign::recognised(&text, path) {
            Some((line, what)) => ((line, 1), what),
            None => (place(&text, span.start), what),
        };
        FileError { path: path.to_owned(), at: Some(at), what }
    })
}

type Wrong = (Range<usize>, String);

/// What a flag is given, `None` for the bare flag, and where it stands.
type Placed = (Option<String>, Range<usize>);

/// The key that begins a list of tables.
const LISTENER: &str = "listener";

fn parse(text: &str, command: &clap::Command, directory: &Path) -> Result<Contents, Wrong> {
    let table = DeTable::parse(text)
        .map_err(|error| (error.span().unwrap_or_default(), error.message().to_owned()))?
        .into_inner();
    let reader = Reader { text, directory };
    let mut contents = Contents::default();
    let (lists, flat): (Vec<_>, Vec<_>) = table.iter().partition(|(key, _)| *key.get_ref() == LISTENER);
    contents.settings = reader.settings(flat, command, &|name| unknown(name, command, &[LISTENER]))?;
    for (key, value) in lists {
        let items = match value.get_ref() {
            DeValue::Array(items) => items,
            _ => {
                return Err((
                    key.span(),
                    "write [[listener]] with two brackets, since there may be several".to_owned(),
                ));
            }
        };
        let own = ListenerKeys::command();
        for item in items {
            let DeValue::Table(table) = item.get_ref() else {
                return Err((
                    item.span(),
                    "a listener is a table: write [[listener]], and its keys below that line".to_owned(),
                ));
            };
            let no_key = |name: &str| match settable(command).any(|arg| arg.get_long() == Some(name)) {
                true => {
                    format!("{name:?} is a setting of the whole broker: move it above the first [[listener]]")
                }
                false => unknown(name, &own, &[]),
            };
            let settings = reader.settings(table.iter().collect(), &own, &no_key)?;
            contents.listeners.push(Listener { at: place(text, item.span().start), settings });
        }
    }
    if let (false, Some((span, what))) = (contents.listeners.is_empty(), second_way(&table)) {
        return Err((span, what));
    }
    Ok(contents)
}

/// A setting that says with flags' names what a `[[listener]]` says too.
fn second_way(table: &DeTable<'_>) -> Option<Wrong> {
    table.iter().find_map(|(key, _)| match key.get_ref().as_ref() {
        name @ ("listen" | "tls-listen") => Some((
            key.span(),
            format!(
                "{name} and [[listener]] cannot be combined: write this address into a [[listener]] \
            of its own"
            ),
        )),
        name if name.starts_with("tls-") => Some((
            key.span(),
            format!("{name} belongs to tls-listen: in a [[listener]] use cert, key and client-ca instead"),
        )),
        _ => None,
    })
}

/// What it takes to read the keys of one table.
struct Reader<'a> {
    text: &'a str,
    directory: &'a Path,
}

/// A key and its value, each with its place.
type Entry<'t, 'a> = (&'t Spanned<Cow<'a, str>>, &'t Spanned<DeValue<'a>>);

impl Reader<'_> {
    /// Each value is checked by its flag where it stands. `no_key` says what is wrong with a key
    /// that is none.
    fn settings(
        &self,
        mut entries: Vec<Entry<'_, '_>>,
        command: &clap::Command,
        no_key: &dyn Fn(&str) -> String,
    ) -> Result<Vec<Setting>, Wrong> {
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut settings = Vec::new();
        for (key, value) in entries {
            let (name, span): (&str, _) = (key.get_ref(), key.span());
            let Some(arg) = settable(command).find(|arg| arg.get_long() == Some(name)) else {
                return Err((span, no_key(name)));
            };
            let mut arguments = Vec::new();
            for (value, span) in values(arg, value)? {
                let argument = match value {
                    None => format!("--{name}"),
                    Some(text) => format!("--{name}={}", located(arg, &text, self.directory)),
                };
                let program = (!command.is_no_binary_name_set()).then_some("ringmq");
                let alone = program.into_iter().chain([argument.as_str()]);
                match command.clone().try_get_matches_from(alone) {
                    // What it needs beside it is asked once everything is together.
                    Err(error) if error.kind() != ErrorKind::MissingRequiredArgument => {
                        return Err((span, first_line(&error.to_string())));
                    }
                    Ok(_) | Err(_) => {}
                }
                arguments.push(argument);
            }
            settings.push(Setting { key: name.to_owned(), at: place(self.text, span.start), arguments });
        }
        Ok(settings)
    }
}

/// Flags that may stand in a file.
pub(super) fn settable(command: &clap::Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| arg.get_long().is_some_and(|name| !ONLY_FLAGS.contains(&name)))
}

/// The values to give to a flag.
fn values(arg: &Arg, value: &Spanned<DeValue<'_>>) -> Result<Vec<Placed>, Wrong> {
    let span = value.span();
    match (value.get_ref(), arg.get_action()) {
        (DeValue::Boolean(on), ArgAction::SetTrue) => Ok(on.then_some((None, span)).into_iter().collect()),
        (_, ArgAction::SetTrue) => Err((span, "expected true or false, without quotes".to_owned())),
        (value, ArgAction::Set) if is_switch(arg) => match value {
            DeValue::Boolean(on) => Ok(vec![(Some(on.to_string()), span)]),
            _ => Err((span, "expected true or false, without quotes".to_owned())),
        },
        (DeValue::Array(items), ArgAction::Append) => {
            items.iter().map(|item| Ok((Some(scalar(item)?), item.span()))).collect()
        }
        _ => Ok(vec![(Some(scalar(value)?), span)]),
    }
}

/// Whether it takes `true` and `false`.
fn is_switch(arg: &Arg) -> bool {
    arg.get_possible_values().iter().any(|value| value.get_name() == "true")
}

fn scalar(value: &Spanned<DeValue<'_>>) -> Result<String, Wrong> {
    let wrong = |what: &str| (value.span(), what.to_owned());
    match value.get_ref() {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| wrong("expected a whole number, 0 or more")),
        DeValue::Array(_) => Err(wrong("expected one value, not a list")),
        DeValue::Table(_) => Err(wrong(
            "there are no sections, except [[listener]]: write each key by itself, such as shards = 2",
        )),
        DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            Err(wrong("expected text in quotes or a whole number"))
        }
    }
}

/// A path is relative to the file that it stands in.
fn located(arg: &Arg, text: &str, directory: &Path) -> String {
    match arg.get_value_hint() {
        ValueHint::AnyPath | ValueHint::FilePath => directory.join(text).to_string_lossy().into_owned(),
        _ => text.to_owned(),
    }
}

/// What is wrong with a key that is none of `command`, nor one of `others`.
fn unknown(name: &str, command: &clap::Command, others: &[&str]) -> String {
    let known = settable(command).filter_map(Arg::get_long).chain(others.iter().copied());
    match known.map(|known| (distance(name, known), known)).min() {
        Some((changes, near)) if changes <= near.len() / 2 => {
            format!("there is no setting {name:?}; did you mean {near:?}?")
        }
        Some(_) | None => format!("there is no setting {name:?}; all settings: ringmq --help"),
    }
}

/// Insertions, deletions and replacements that make `b` of `a`.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (at, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, to) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[row.len() - 1]
}

/// Line and column of a byte, from 1; columns count characters.
fn place(text: &str, byte: usize) -> (usize, usize) {
    let byte = (0..=byte).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let before = &text[..byte];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// What clap says, without its `error:` and its advice about command lines.
pub(super) fn first_line(error: &str) -> String {
    let line = error.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// Those settings that the command line does not replace, as arguments.
pub(super) fn not_given(settings: &[Setting], given: &ArgMatches, command: &clap::Command) -> Vec<String> {
    let kept = settings.iter().filter(|setting| !is_given(&setting.key, given, command));
    kept.flat_map(|setting| setting.arguments.iter().cloned()).collect()
}

pub(super) fn is_given(key: &str, given: &ArgMatches, command: &clap::Command) -> bool {
    settable(command)
        .find(|arg| arg.get_long() == Some(key))
        .is_some_and(|arg| given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine))
}

/// Settings of the whole broker, each with its value and where that comes from.
pub(super) struct Effective<'a> {
    pub command: &'a clap::Command,
    /// The file and the command line.
    pub all: &'a ArgMatches,
    /// The command line.
    pub given: &'a ArgMatches,
    pub settings: &'a [Setting],
    pub path: Option<&'a Path>,
    /// By setting, what holds instead.
    pub adjusted: Vec<(&'static str, String)>,
}

impl Effective<'_> {
    /// A value as TOML has it, and its source; `None` if it is not set.
    pub fn of(&self, name: &str) -> Option<(String, String)> {
        let arg = settable(self.command).find(|arg| arg.get_long() == Some(name))?;
        let raw = self.all.get_raw(arg.get_id().as_str());
        let raw: Vec<_> = raw.into_iter().flatten().map(|value| value.to_string_lossy()).collect();
        let value = match arg.get_action() {
            ArgAction::SetTrue => self.all.get_flag(arg.get_id().as_str()).to_string(),
            ArgAction::Append if raw.is_empty() => return None,
            ArgAction::Append => {
                format!("[{}]", raw.iter().map(|value| quoted(value)).collect::<Vec<_>>().join(", "))
            }
            _ => quoted(raw.first()?),
        };
        let source = match self.settings.iter().find(|setting| setting.key == name) {
            _ if is_given(name, self.given, self.command) => "command line".to_owned(),
            Some(setting) => self.place(setting.at),
            None => "default".to_owned(),
        };
        Some((value, source))
    }

    /// The path that a setting has.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        let arg = settable(self.command).find(|arg| arg.get_long() == Some(name))?;
        self.all.get_one::<PathBuf>(arg.get_id().as_str()).cloned()
    }

    /// A place in the file.
    pub fn place(&self, (line, _): Place) -> String {
        match self.path {
            Some(path) => format!("{}:{line}", path.display()),
            None => format!("line {line}"),
        }
    }

    /// All settings as a file would have them, but those about listeners if `without_listeners`.
    pub fn text(&self, without_listeners: bool) -> String {
        let mut text = String::new();
        let is_about_listeners = |name: &str| name == "listen" || name.starts_with("tls-");
        for name in settable(self.command).filter_map(Arg::get_long) {
            if without_listeners && is_about_listeners(name) {
                continue;
            }
            let holds = self.adjusted.iter().find(|(setting, _)| *setting == name);
            let holds = holds.map_or(String::new(), |(_, holds)| format!(": {holds}"));
            match self.of(name) {
                Some((value, source)) => text.push_str(&format!("{name} = {value}  # {source}{holds}\n")),
                None if name == "listen" && self.of("tls-listen").is_none() => {
                    text.push_str(&format!("listen = [\"{}\"]  # default\n", super::listener::DEFAULT));
                }
                None => text.push_str(&format!("# {name} is not set{holds}\n")),
            }
        }
        text
    }
}

/// A value as TOML has it: numbers, true and false bare, texts in quotes.
pub(super) fn quoted(value: &str) -> String {
    let is_bare = value.parse::<u64>().is_ok() || value == "true" || value == "false";
    if is_bare { value.to_owned() } else { format!("{value:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> clap::Command {
        <super::super::flags::Flags as CommandFactory>::command()
    }

    fn parsed(text: &str) -> Result<Vec<String>, (usize, usize, String)> {
        parse(text, &command(), Path::new("/etc/ringmq"))
            .map(|contents| contents.settings.into_iter().flat_map(|setting| setting.arguments).collect())
            .map_err(|(span, what)| {
                let (line, column) = place(text, span.start);
                (line, column, what)
            })
    }

    #[test]
    fn keys_are_flags_in_the_order_of_the_file() {
        let text = "shards = 2\nlisten = [\"127.0.0.1:1\", '[::1]:2']\nmemory-max = \"64M\"\nallow-anonymous = true\n\
                    strict-subscribe = false\npassword-file = \"users\"\nacl-file = '/rules'\n";
        let expected = [
            "--shards=2",
            "--listen=127.0.0.1:1",
            "--listen=[::1]:2",
            "--memory-max=64M",
            "--allow-anonymous=true",
            "--password-file=/etc/ringmq/users",
            "--acl-file=/rules",
        ];
        assert_eq!(parsed(text).unwrap(), expected);
        assert_eq!(
            parsed("shards = 0x10\nlisten = '127.0.0.1:9'").unwrap(),
            ["--shards=16", "--listen=127.0.0.1:9"]
        );
    }

    #[test]
    fn what_is_wrong_has_a_place_and_a_neighbour() {
        let wrong = [
            ("shards = 1\nlissten = []\n", (2, 1), "did you mean \"listen\"?"),
            ("pasword_file = 'x'", (1, 1), "did you mean \"password-file\"?"),
            ("zzzzzzzzzzzz = 1", (1, 1), "ringmq --help"),
            ("config = 'other'", (1, 1), "there is no setting"),
            ("\n  shards = 0", (2, 12), "--shards"),
            ("listen = ['127.0.0.1:1', 'here']", (1, 26), "an address and a port"),
            ("listen = 1.5", (1, 10), "text in quotes or a whole number"),
            ("shards = [1]", (1, 10), "one value"),
            ("shards = -1", (1, 10), "0 or more"),
            ("allow-anonymous = 'yes'", (1, 19), "true or false"),
            ("[shards]\nx = 1", (1, 1), "no sections"),
            ("shards = ", (1, 10), ""),
            ("shards = 1\nshards = 2", (2, 1), "duplicate"),
        ];
        for (text, at, what) in wrong {
            let (line, column, said) = parsed(text).unwrap_err();
            assert!((line, column) == at && said.contains(what), "{text}: {line}:{column}: {said}");
        }
    }

    #[test]
    fn distances_count_changes() {
        for (a, b, expected) in [("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!((distance(a, b), distance(b, a)), (expected, expected), "{a} {b}");
        }
    }

    fn shown(command: &clap::Command, all: &ArgMatches) -> String {
        Effective { command, all, given: all, settings: &[], path: None, adjusted: Vec::new() }.text(false)
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let command = command();
        let all =
            command.clone().try_get_matches_from(["ringmq", "--shards=3", "--listen=127.0.0.1:7"]).unwrap();
        let text = shown(&command, &all);
        assert!(
            text.contains("shards = 3  # command line\n")
                && text.contains("sys-interval = \"10s\"  # default\n"),
            "{text}"
        );
        assert!(text.contains("listen = [\"127.0.0.1:7\"]  # command line\n"), "{text}");
        let arguments = parsed(&text).unwrap();
        let again = command
            .clone()
            .try_get_matches_from(std::iter::once("ringmq".to_owned()).chain(arguments))
            .unwrap();
        let values = |matches| {
            shown(&command, matches)
                .lines()
                .map(|line| line.split("  #").next().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(values(&again), values(&all));
    }
}
