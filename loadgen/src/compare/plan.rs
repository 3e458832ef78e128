//! What is compared: one work from the command line, or several from a file.
//!
//! ```toml
//! rounds = 5
//! options = "--duration 1 --warmup 0.3"      # of every work
//! [[work]]
//! name = "p2p, 50 pairs"
//! run = "p2p --pairs 50 --window 64"
//! [[work]]
//! name = "memory of idle connections"
//! run = "idle --connections 10000"
//! rounds = 1                                 # of this one
//! note = { bytes-max = 700 }                 # anything; goes into the JSON report as it is
//! ```

use std::ffi::OsString;
use std::path::Path;

use serde::Deserialize;

use crate::cli::{self, RunArgs};

/// One thing that all brokers are to do.
#[derive(Clone)]
pub struct Work {
    pub name: String,
    /// The command line of a single run of it.
    pub run: String,
    pub args: RunArgs,
    pub rounds: u32,
    pub note: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rounds: Option<u32>,
    #[serde(default)]
    options: String,
    work: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    run: String,
    rounds: Option<u32>,
    #[serde(default)]
    note: serde_json::Value,
}

/// Rounds where nobody says how many.
const ROUNDS: u32 = 3;
/// More rounds than anybody waits for.
const ROUNDS_MAX: u32 = 1000;

fn read_args(words: &[OsString]) -> Result<RunArgs, String> {
    let line = std::iter::once(OsString::from("loadgen")).chain(words.iter().cloned());
    let cli = cli::parse(line).map_err(|e| e.to_string())?;
    match cli.command {
        Some(_) => Err("only a run can be compared, like: p2p --pairs 50".into()),
        None if cli.run.find_max => Err("--find-max searches against one broker at a time".into()),
        None => Ok(cli.run),
    }
}

impl Work {
    /// What stands after `--` on the command line.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn of_words(words: &[OsString], rounds: u32) -> Result<Work, String> {
        let run: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        let args = read_args(words)?;
        Ok(Work { name: args.what.clone(), run: run.join(" "), args, rounds, note: serde_json::Value::Null })
    }
}

/// All works: those of a file, each with `words` as further options, or the one that `words` say. `rounds` overrules
/// the file.
///
/// # Errors
/// A sentence for the user.
pub fn works(file: Option<&Path>, words: &[OsString], rounds: Option<u32>) -> Result<Vec<Work>, String> {
    let Some(path) = file else { return Ok(vec![Work::of_words(words, rounds.unwrap_or(ROUNDS))?]) };
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    parse(&text, words, rounds).map_err(|e| format!("{}: {e}", path.display()))
}

fn parse(text: &str, words: &[OsString], rounds: Option<u32>) -> Result<Vec<Work>, String> {
    let file: File = toml::from_str(text).map_err(|e| e.to_string())?;
    let work = |entry: Entry| {
        let own = entry.run.split_whitespace().chain(file.options.split_whitespace()).map(OsString::from);
        let all: Vec<OsString> = own.chain(words.iter().cloned()).collect();
        // A work that says how often it makes sense knows better than the command line.
        let rounds = entry.rounds.or(rounds).or(file.rounds).unwrap_or(ROUNDS);
        if !(1..=ROUNDS_MAX).contains(&rounds) {
            return Err(format!("{}: use 1 to {ROUNDS_MAX} rounds", entry.name));
        }
        let mut work = Work::of_words(&all, rounds).map_err(|e| format!("{}: {e}", entry.name))?;
        // What is said of all works holds for those that have a use for it; only its own options must suit a work. Some
        // make no command line without the shared ones (--cert without --key), and are taken as they are.
        let alone: Vec<OsString> = entry.run.split_whitespace().map(OsString::from).collect();
        work.args.said = read_args(&alone).map_or_else(|_| Vec::new(), |args| args.said);
        Ok(Work { name: entry.name, note: entry.note, ..work })
    };
    let works: Vec<Work> = file.work.into_iter().map(work).collect::<Result<_, _>>()?;
    if works.is_empty() { Err("there is no [[work]] in it".into()) } else { Ok(works) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "rounds = 4\noptions = '--duration 7'\n\
        [[work]]\nname = 'a'\nrun = 'p2p --pairs 3'\nnote = { most = 0.5 }\n\
        [[work]]\nname = 'b'\nrun = 'idle --connections 9'\nrounds = 1\n";

    #[test]
    fn works_take_their_options_from_everywhere() {
        let works = parse(TWO, &["--cores".into(), "0".into()], None).unwrap();
        let seen: Vec<_> = works.iter().map(|w| (w.name.as_str(), w.rounds, w.args.duration)).collect();
        assert_eq!(seen, [("a", 4, Some(7.0)), ("b", 1, Some(7.0))]);
        assert_eq!((works[0].args.pairs, works[1].args.connections), (Some(3), Some(9)));
        assert_eq!((works[0].args.cores.clone(), works[0].note["most"].as_f64()), (Some(vec![0]), Some(0.5)));
        let changed = parse(TWO, &["--duration".into(), "2".into()], Some(9)).unwrap();
        assert_eq!((changed[0].rounds, changed[0].args.duration, changed[1].rounds), (9, Some(2.0), 1));
    }

    #[test]
    fn what_is_said_of_all_works_need_not_suit_each() {
        let text = format!("{TWO}[[work]]\nname = 'c'\nrun = 'idle --pairs 9'\n");
        let works = parse(&text, &["--window".into(), "7".into()], None).unwrap();
        assert_eq!(works[0].args.window, Some(7));
        assert!(works[0].args.spec().is_ok() && works[1].args.spec().is_ok());
        assert!(works[2].args.spec().is_err(), "its own options have to");
        let alone = Work::of_words(&["idle".into(), "--window".into(), "7".into()], 1).unwrap();
        assert!(alone.args.spec().is_err());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("", "work"),
            ("work = []", "[[work]]"),
            ("[[work]]\nname = 'x'\nrun = 'p2p'\nrounds = 0", "rounds"),
            ("[[work]]\nname = 'x'\nrun = 'p2p --nonsense'", "--nonsense"),
            ("[[work]]\nname = 'x'\nrun = 'presets'", "only a run"),
            ("[[work]]\nname = 'x'\nrun = 'p2p --find-max'", "--find-max"),
            ("[[work]]\nname = 'x'\nrun = 'p2p'\npace = 1", "pace"),
        ] {
            let Err(what) = parse(text, &[], None) else { panic!("{text} was accepted") };
            assert!(what.contains(word), "{text}: {what}");
        }
    }
}
