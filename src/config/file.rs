//! `ringmq.toml`: a key for each flag, named as the flag is, with the same values and the same meaning.
//!
//! So there is one list of settings, with one help text each. A flag on the command line replaces what the file says;
//! nothing else does. Paths in the file are relative to the file. Every value is checked where it stands, so that an
//! error has a line and a column.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, ValueHint};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The flags that make no sense in a file.
const ONLY_FLAGS: [&str; 3] = ["config", "help", "version"];

/// One setting of a file, as flags say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub key: String,
    /// From 1.
    pub line: usize,
    /// What stands for it on a command line; nothing for a switch that is off.
    pub arguments: Vec<String>,
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
pub(super) fn read(path: &Path, command: &clap::Command) -> Result<Vec<Setting>, FileError> {
    let text = std::fs::read_to_string(path).map_err(|error| FileError {
        path: path.to_owned(),
        at: None,
        what: error.to_string(),
    })?;
    let directory = path.parent().unwrap_or(Path::new(""));
    parse(&text, command, directory).map_err(|(span, what)| FileError {
        path: path.to_owned(),
        at: Some(place(&text, span.start)),
        what,
    })
}

type Wrong = (Range<usize>, String);

/// What a flag is given, `None` for the bare flag, and where it stands.
type Placed = (Option<String>, Range<usize>);

fn parse(text: &str, command: &clap::Command, directory: &Path) -> Result<Vec<Setting>, Wrong> {
    let table = DeTable::parse(text)
        .map_err(|error| (error.span().unwrap_or_default(), error.message().to_owned()))?
        .into_inner();
    let mut entries: Vec<(&Spanned<_>, &Spanned<DeValue<'_>>)> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let mut settings = Vec::new();
    for (key, value) in entries {
        let (name, span): (&str, _) = (key.get_ref(), key.span());
        let Some(arg) = settable(command).find(|arg| arg.get_long() == Some(name)) else {
            return Err((span, unknown(name, command)));
        };
        let mut arguments = Vec::new();
        for (value, span) in values(arg, value)? {
            let before = arguments.len();
            match value {
                None => arguments.push(format!("--{name}")),
                Some(text) => arguments.push(format!("--{name}={}", located(arg, &text, directory))),
            }
            let alone = std::iter::once("ringmq").chain(arguments[before..].iter().map(String::as_str));
            if let Err(error) = command.clone().try_get_matches_from(alone) {
                return Err((span, first_line(&error.to_string())));
            }
        }
        settings.push(Setting { key: name.to_owned(), line: place(text, span.start).0, arguments });
    }
    Ok(settings)
}

/// Flags that may stand in a file.
fn settable(command: &clap::Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| arg.get_long().is_some_and(|name| !ONLY_FLAGS.contains(&name)))
}

/// The values to give to a flag.
fn values(arg: &Arg, value: &Spanned<DeValue<'_>>) -> Result<Vec<Placed>, Wrong> {
    let span = value.span();
    match (value.get_ref(), arg.get_action()) {
        (DeValue::Boolean(on), ArgAction::SetTrue) => Ok(on.then_some((None, span)).into_iter().collect()),
        (_, ArgAction::SetTrue) => Err((span, "true or false is expected".to_owned())),
        (DeValue::Array(items), ArgAction::Append) => {
            items.iter().map(|item| Ok((Some(scalar(item)?), item.span()))).collect()
        }
        _ => Ok(vec![(Some(scalar(value)?), span)]),
    }
}

fn scalar(value: &Spanned<DeValue<'_>>) -> Result<String, Wrong> {
    let wrong = |what: &str| (value.span(), what.to_owned());
    match value.get_ref() {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| wrong("a number from 0 is expected")),
        DeValue::Array(_) => Err(wrong("one value is expected")),
        DeValue::Table(_) => Err(wrong("this is no section: keys stand by themselves, as flags do")),
        DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            Err(wrong("a text or a whole number is expected"))
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

fn unknown(name: &str, command: &clap::Command) -> String {
    let distances =
        settable(command).filter_map(|arg| Some((distance(name, arg.get_long()?), arg.get_long()?)));
    match distances.min() {
        Some((changes, near)) if changes <= near.len() / 2 => {
            format!("there is no setting {name:?}; is {near:?} meant?")
        }
        Some(_) | None => format!("there is no setting {name:?}; all: ringmq --help"),
    }
}

/// Insertions, deletions and replacements that make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
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
fn first_line(error: &str) -> String {
    let line = error.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// Those settings that the command line does not replace, as arguments.
pub(super) fn not_given(settings: &[Setting], given: &ArgMatches, command: &clap::Command) -> Vec<String> {
    let kept = settings.iter().filter(|setting| !is_given(&setting.key, given, command));
    kept.flat_map(|setting| setting.arguments.iter().cloned()).collect()
}

fn is_given(key: &str, given: &ArgMatches, command: &clap::Command) -> bool {
    settable(command)
        .find(|arg| arg.get_long() == Some(key))
        .is_some_and(|arg| given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine))
}

/// All settings as a file would have them, each with where it comes from. `all` has both, `given` the command line.
pub(super) fn effective(
    command: &clap::Command,
    all: &ArgMatches,
    given: &ArgMatches,
    settings: &[Setting],
    path: Option<&Path>,
) -> String {
    let mut text = String::new();
    for arg in settable(command) {
        let (Some(name), id) = (arg.get_long(), arg.get_id().as_str()) else { continue };
        let source = match settings.iter().find(|setting| setting.key == name) {
            _ if is_given(name, given, command) => "command line".to_owned(),
            Some(setting) => match path {
                Some(path) => format!("{}:{}", path.display(), setting.line),
                None => format!("line {}", setting.line),
            },
            None => "default".to_owned(),
        };
        let raw = || all.get_raw(id).into_iter().flatten().map(|value| value.to_string_lossy());
        let value = match arg.get_action() {
            ArgAction::SetTrue => Some(all.get_flag(id).to_string()),
            ArgAction::Append => {
                Some(format!("[{}]", raw().map(|value| quoted(&value)).collect::<Vec<_>>().join(", ")))
            }
            _ => raw().next().map(|value| quoted(&value)),
        };
        match value {
            Some(value) => text.push_str(&format!("{name} = {value}  # {source}\n")),
            None => text.push_str(&format!("# {name} is not set\n")),
        }
    }
    text
}

/// A value as TOML has it: numbers bare, texts in quotes.
fn quoted(value: &str) -> String {
    if value.parse::<u64>().is_ok() { value.to_owned() } else { format!("{value:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> clap::Command {
        <super::super::Flags as clap::CommandFactory>::command()
    }

    fn parsed(text: &str) -> Result<Vec<String>, (usize, usize, String)> {
        parse(text, &command(), Path::new("/etc/ringmq"))
            .map(|settings| settings.into_iter().flat_map(|setting| setting.arguments).collect())
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
            "--allow-anonymous",
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
            ("shards = 1\nlissten = []\n", (2, 1), "is \"listen\" meant?"),
            ("pasword_file = 'x'", (1, 1), "is \"password-file\" meant?"),
            ("zzzzzzzzzzzz = 1", (1, 1), "ringmq --help"),
            ("config = 'other'", (1, 1), "there is no setting"),
            ("\n  shards = 0", (2, 12), "--shards"),
            ("listen = ['127.0.0.1:1', 'here']", (1, 26), "IP address"),
            ("listen = 1.5", (1, 10), "text or a whole number"),
            ("shards = [1]", (1, 10), "one value"),
            ("shards = -1", (1, 10), "from 0"),
            ("allow-anonymous = 'yes'", (1, 19), "true or false"),
            ("[shards]\nx = 1", (1, 1), "no section"),
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

    #[test]
    fn what_is_printed_can_be_read_again() {
        let command = command();
        let all =
            command.clone().try_get_matches_from(["ringmq", "--shards=3", "--listen=127.0.0.1:7"]).unwrap();
        let text = effective(&command, &all, &all, &[], None);
        assert!(
            text.contains("shards = 3  # command line\n") && text.contains("sys-interval = 10  # default\n"),
            "{text}"
        );
        assert!(text.contains("listen = [\"127.0.0.1:7\"]  # command line\n"), "{text}");
        let arguments = parsed(&text).unwrap();
        let again = command
            .clone()
            .try_get_matches_from(std::iter::once("ringmq".to_owned()).chain(arguments))
            .unwrap();
        let values = |matches| {
            effective(&command, matches, matches, &[], None)
                .lines()
                .map(|line| line.split("  #").next().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(values(&again), values(&all));
    }
}
