//! Whether every option that the user gave has a use in this run.
//!
//! An option that would be ignored is a misunderstanding, and the figures would be of another run than the user meant.
//! Not here: what describes messages (`--qos`, `--payload`) and how long a run takes, where it sends none or has no
//! length. Scripts give those to whatever they run.

use super::RunArgs;

/// Which of the options that say who takes part belong to a scenario.
const TAKES: &[(&str, &[&str])] = &[
    ("p2p", &["pairs", "publishers", "subscribers"]),
    ("fan-in", &["publishers", "subscribers"]),
    ("fan-out", &["publishers", "subscribers"]),
    ("shared", &["publishers", "subscribers", "groups"]),
    ("retained", &["publishers", "subscribers"]),
    ("connect-storm", &["connections", "subscribe"]),
    ("reconnect-storm", &["connections", "subscribe", "publishers", "subscribers", "storm-every"]),
    ("idle", &["connections", "subscribe"]),
    ("slow-subscriber", &["publishers", "subscribers", "slow", "slow-rate"]),
    ("swallow", &["publishers"]),
];
/// Options that pace publishers.
const PACING: &[&str] = &["rate", "window", "poisson", "gather", "find-max"];

impl RunArgs {
    fn says(&self, option: &str) -> bool {
        self.said.iter().any(|said| said == option)
    }

    /// Finds an option without a use. `publishes` says whether this run has publishers that anything paces.
    ///
    /// # Errors
    /// A sentence that names the option and what to say instead.
    pub(super) fn fits(&self, publishes: bool) -> Result<(), String> {
        let scenario = self.scenario();
        let Some((_, takes)) = TAKES.iter().find(|(name, _)| *name == scenario) else { return Ok(()) };
        let known = TAKES.iter().flat_map(|(_, options)| *options);
        if let Some(option) = known.into_iter().find(|o| !takes.contains(o) && self.says(o)) {
            let takers = TAKES.iter().filter(|(_, options)| options.contains(option)).map(|(name, _)| *name);
            let takers = takers.collect::<Vec<_>>().join(", ");
            return Err(format!("--{option} is for {takers}: {scenario} takes --{}", takes.join(", --")));
        }
        if !publishes {
            if let Some(option) = PACING.iter().find(|o| self.says(o)) {
                let instead = match scenario {
                    "connect-storm" => "leave it out, or use --connect-rate",
                    "reconnect-storm" => "leave it out, or add --publishers",
                    _ => "leave it out",
                };
                return Err(format!(
                    "--{option} paces publishers, and this {scenario} run has none to pace: {instead}"
                ));
            }
            return match self.phases.is_empty() {
                true => Ok(()),
                false => Err(format!(
                    "[[phases]] pace publishers, and this {scenario} run has none to pace: leave them out"
                )),
            };
        }
        self.pacing_fits()
    }

    /// One thing paces publishers: phases, a rate or a window.
    fn pacing_fits(&self) -> Result<(), String> {
        if !self.phases.is_empty() {
            return Err(match ["find-max", "rate", "window", "duration"].into_iter().find(|o| self.says(o)) {
                None => return Ok(()),
                Some("find-max") => "--find-max tries one rate after the other, and [[phases]] give their own: leave \
                                     those out, or say with --rate where to begin"
                    .into(),
                Some("duration") => "--duration has no effect with [[phases]], which have seconds of their own: \
                                     leave it out, or give --rate or --window on the command line instead of phases"
                    .into(),
                Some(option) => format!(
                    "{option} has no say beside [[phases]] in the same file: leave one of them out, or give --{option} on \
                     the command line instead of phases"
                ),
            });
        }
        if self.rate.is_some() && self.window.is_some() {
            return Err(
                "--rate (or --find-max) makes an open loop and --window a closed one: leave one of them out"
                    .into(),
            );
        }
        if self.poisson && self.rate.is_none() {
            return Err(
                "--poisson spreads the messages of an open loop: give a --rate too, or leave it out".into()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::presets::SCENARIOS;
    use super::super::{Refusal, parse};
    use super::TAKES;

    /// Why this line is refused; `FILE` stands for a file with this text.
    fn refused(line: &str, file: &str) -> Option<String> {
        let id = std::thread::current().id();
        let path = std::env::temp_dir().join(format!("loadgen-fit-{}-{id:?}.toml", std::process::id()));
        std::fs::write(&path, file).unwrap();
        let line = line.replace("FILE", path.to_str().unwrap());
        let parsed = parse(std::iter::once("loadgen").chain(line.split_whitespace()).map(Into::into));
        std::fs::remove_file(&path).unwrap();
        match parsed.unwrap_or_else(|e| panic!("{line}: {e}")).run.spec() {
            Err(Refusal::Usage(what)) => Some(what),
            _ => None,
        }
    }

    const HOLD: &str = "[[phases]]\nhold = { seconds = 3, rate = 10 }\n";

    #[test]
    fn an_option_without_a_use_is_refused_and_what_to_say_instead_is_named() {
        for (line, file, words) in [
            ("idle --pairs 5", "", ["--pairs", "--connections"]),
            ("fan-out --pairs 5", "", ["--pairs", "--publishers, --subscribers"]),
            ("fanout-1-1K-1-1K --pairs 5", "", ["--pairs", "--publishers"]),
            ("p2p --connections 5", "", ["--connections", "--pairs"]),
            ("fan-in --groups 2", "", ["--groups", "shared"]),
            ("fan-out --slow-rate 1", "", ["--slow-rate", "slow-subscriber"]),
            ("connect-storm --storm-every 1", "", ["--storm-every", "reconnect-storm"]),
            ("connect-storm --rate 5", "", ["--rate", "--connect-rate"]),
            ("reconnect-storm --rate 5", "", ["--rate", "--publishers"]),
            ("retained --window 5", "", ["--window", "leave it out"]),
            ("p2p --poisson", "", ["--poisson", "--rate"]),
            ("FILE", "scenario = 'idle'\npairs = 5", ["--pairs", "--connections"]),
            ("FILE", "scenario = 'p2p'\nrate = 5\nwindow = 5", ["--rate", "--window"]),
            ("FILE", "scenario = 'p2p'\nfind-max = true\nrate = 5\nwindow = 5", ["--find-max", "--window"]),
            ("FILE -d 1", &format!("scenario = 'p2p'\n{HOLD}"), ["--duration", "[[phases]]"]),
            ("FILE", &format!("scenario = 'p2p'\nduration = 1\n{HOLD}"), ["--duration", "[[phases]]"]),
            ("FILE", &format!("scenario = 'p2p'\nrate = 1\n{HOLD}"), ["rate", "[[phases]]"]),
            ("FILE", &format!("scenario = 'p2p'\nwindow = 1\n{HOLD}"), ["window", "[[phases]]"]),
            ("FILE --find-max", &format!("scenario = 'p2p'\n{HOLD}"), ["--find-max", "[[phases]]"]),
            ("FILE", &format!("scenario = 'idle'\n{HOLD}"), ["[[phases]]", "leave them out"]),
        ] {
            let what = refused(line, file).unwrap_or_else(|| panic!("{line} was accepted: {file}"));
            assert!(words.iter().all(|word| what.contains(word)), "{line}: {what}");
        }
    }

    #[test]
    fn what_has_a_use_is_taken_and_the_command_line_overrules_a_file() {
        for (line, file) in [
            ("p2p --publishers 3 --subscribers 3", ""),
            ("p2p-1K-1K-1K-1K --pairs 5 -d 1 --window 3", ""),
            ("conn-tcp-10K-100 --connections 5 -d 1 --warmup 0 --qos 1", ""),
            ("reconnect-storm --connections 5 --subscribe --storm-every 1", ""),
            ("FILE --rate 5 -d 1", &format!("scenario = 'p2p'\n{HOLD}")),
            ("FILE --window 5", &format!("scenario = 'p2p'\npoisson = true\n{HOLD}")),
            ("FILE --find-max --rate 5", &format!("scenario = 'p2p'\n{HOLD}")),
            ("FILE --find-max", "scenario = 'p2p'\nwindow = 5"),
            ("FILE --rate 5", "scenario = 'p2p'\nwindow = 5"),
        ] {
            assert_eq!(refused(line, file), None, "{line}: {file}");
        }
    }

    #[test]
    fn every_scenario_says_what_it_takes() {
        let names: Vec<&str> = SCENARIOS.iter().map(|(name, _)| *name).collect();
        assert!(names.iter().all(|name| TAKES.iter().any(|(known, _)| known == name)), "{names:?}");
        assert_eq!(names.len(), TAKES.len());
    }
}
