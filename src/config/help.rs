//! The commands besides the broker itself: how they are found on the command line, and their help.

use std::path::Path;

use clap::CommandFactory;

use super::{ConfigError, Flags, file};

/// Words that may stand behind the program's name.
const COMMANDS: [&str; 5] = ["check", "config", "passwd", "store", "help"];

/// The help of the broker: as clap has it, with the commands in front of the flags.
pub(super) const TEMPLATE: &str = "\
{about-with-newline}
{usage-heading} {usage}

Commands, each with its own --help:
  check FILE        Checks a file of settings and explains what it means
  config [OPTIONS]  Prints every setting that would apply, and where it comes from
  passwd FILE USER  Sets the password of a user in a file for --password-file
  store COMMAND     Checks, shows, repairs or copies what --data keeps
  help [COMMAND]    Prints this help, or the help of a command

{all-args}{after-help}";

pub(super) const USAGE: &str = "ringmq [OPTIONS]\n       ringmq COMMAND ...";

/// `ringmq config` takes the flags of the broker.
pub(super) fn config_command() -> clap::Command {
    Flags::command()
        .name("ringmq config")
        .about("Prints every setting that would apply with these flags, and where it comes from.")
        .long_about(
            "Prints every setting that would apply with these flags, in the form of a file. Behind each \
             setting stands where it comes from, and the value that applies instead if another limit is \
             lower. Nothing is started.",
        )
        .override_usage("ringmq config [OPTIONS]")
        .help_template("{about-with-newline}\n{usage-heading} {usage}\n\n{all-args}")
}

/// The command line with `help` spelled out: `help passwd` is `passwd --help`.
///
/// # Errors
/// A first word that is no command.
pub fn spelled_out(args: Vec<String>) -> Result<Vec<String>, ConfigError> {
    let (Some(program), Some(word)) = (args.first(), args.get(1)) else { return Ok(args) };
    if word.starts_with('-') || word != "help" && COMMANDS.contains(&word.as_str()) {
        return Ok(args);
    }
    let asked = |words: &[&str]| {
        let words = words.iter().map(|word| (*word).to_owned());
        Ok(std::iter::once(program.clone()).chain(words).collect())
    };
    match (word.as_str(), args.get(2).map(String::as_str)) {
        ("help", None | Some("help")) => asked(&["--help"]),
        ("help", Some(command)) if COMMANDS.contains(&command) => asked(&[command, "--help"]),
        ("help", Some(other)) | (other, _) => Err(ConfigError::Wrong(no_command(other, program))),
    }
}

fn no_command(word: &str, program: &str) -> String {
    if word.ends_with(".toml") || word.ends_with(".conf") || Path::new(word).is_file() {
        return format!("there is no command {word:?}. To start with that file: {program} --config {word}");
    }
    let near = COMMANDS.iter().map(|known| (file::distance(word, known), known)).min();
    match near {
        Some((changes, near)) if changes <= near.len() / 2 => {
            format!("there is no command {word:?}; did you mean {near:?}? All commands: {program} --help")
        }
        Some(_) | None => format!("there is no command {word:?}; all commands: {program} --help"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_spelled_out_and_a_wrong_word_is_answered() {
        let of = |line: &str| {
            let args = line.split(' ').map(String::from).collect();
            spelled_out(args).map(|args| args.join(" ")).map_err(|error| error.to_string())
        };
        for (line, spelled) in [
            ("ringmq", "ringmq"),
            ("ringmq --shards 2", "ringmq --shards 2"),
            ("ringmq help", "ringmq --help"),
            ("ringmq help help", "ringmq --help"),
            ("ringmq help passwd", "ringmq passwd --help"),
            ("ringmq passwd f u", "ringmq passwd f u"),
        ] {
            assert_eq!(of(line).unwrap(), spelled);
        }
        for (line, said) in [
            ("ringmq pasword f u", "did you mean \"passwd\"?"),
            ("ringmq help chek", "did you mean \"check\"?"),
            ("ringmq start", "all commands: ringmq --help"),
            ("ringmq ringmq.toml", "ringmq --config ringmq.toml"),
        ] {
            let error = of(line).unwrap_err();
            assert!(error.contains(said), "{line}: {error}");
        }
    }
}
