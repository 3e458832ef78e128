//! Scenario files: the options of the command line as TOML, and phases, which only a file can hold.
//!
//! ```toml
//! scenario = "p2p"
//! pairs = 100
//! qos = 1
//! max = ["p99=5ms", "lost=0"]
//!
//! [[phases]]
//! ramp = { to = 20000, seconds = 10 }    # linearly from the last rate (at first 0)
//! [[phases]]
//! hold = { seconds = 30 }
//! [[phases]]
//! step = { by = 5000, seconds = 10, times = 4 }
//! [[phases]]
//! spike = { to = 100000, seconds = 1 }   # and back to the rate before
//! ```

use std::path::Path;

use serde::Deserialize;

use crate::schedule::Segment;

/// One phase of a schedule.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Phase {
    /// From the last rate to another, linearly.
    Ramp { to: f64, seconds: f64 },
    /// The last rate, or this one, for a while.
    Hold { seconds: f64, rate: Option<f64> },
    /// So many times: raise the rate at once and hold it.
    Step { by: f64, seconds: f64, times: u32 },
    /// Another rate for a while, then back.
    Spike { to: f64, seconds: f64 },
}

/// What a file says.
#[derive(Default, Debug)]
pub struct File {
    /// (option, values) in the words of the command line.
    pub options: Vec<(String, Vec<String>)>,
    pub segments: Vec<Segment>,
    /// The options are a preset's, not the user's.
    pub preset: bool,
}

/// Reads a scenario file; errors are sentences for the user.
pub fn read(path: &Path) -> Result<File, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let file = parse(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    if file.options.iter().all(|(option, _)| option != "scenario") {
        return Err(format!(
            "{}: it does not say which scenario to run, such as scenario = \"p2p\"; see `loadgen presets`",
            path.display()
        ));
    }
    Ok(file)
}

fn parse(text: &str) -> Result<File, String> {
    let mut table: toml::Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
    let mut file = File::default();
    if let Some(phases) = table.remove("phases") {
        let phases: Vec<Phase> = phases.try_into().map_err(|e: toml::de::Error| e.to_string())?;
        file.segments = segments(&phases)?;
    }
    for (option, value) in table {
        let values = match value {
            toml::Value::Array(values) => values.into_iter().map(scalar).collect::<Result<_, _>>()?,
            // An option without a value is there or not.
            toml::Value::Boolean(false) => continue,
            value => vec![scalar(value)?],
        };
        file.options.push((option, values));
    }
    Ok(file)
}

fn scalar(value: toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text),
        toml::Value::Integer(n) => Ok(n.to_string()),
        toml::Value::Float(n) => Ok(n.to_string()),
        toml::Value::Boolean(b) => Ok(b.to_string()),
        other => Err(format!("a {} where a number or a string belongs", other.type_str())),
    }
}

fn segments(phases: &[Phase]) -> Result<Vec<Segment>, String> {
    let mut segments = Vec::new();
    let mut rate = 0.0;
    for phase in phases {
        match *phase {
            Phase::Ramp { to, seconds } => {
                segments.push(Segment { seconds, from: rate, to });
                rate = to;
            }
            Phase::Hold { seconds, rate: other } => {
                rate = other.unwrap_or(rate);
                segments.push(Segment { seconds, from: rate, to: rate });
            }
            Phase::Step { by, seconds, times } => {
                for _ in 0..times.min(1000) {
                    rate += by;
                    segments.push(Segment { seconds, from: rate, to: rate });
                }
            }
            Phase::Spike { to, seconds } => segments.push(Segment { seconds, from: to, to }),
        }
    }
    let valid = |s: &Segment| s.seconds > 0.0 && s.seconds < 1e6 && s.from >= 0.0 && s.to >= 0.0;
    if segments.is_empty() || !segments.iter().all(valid) {
        return Err("every phase needs seconds above 0 and rates that are not negative".into());
    }
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_become_segments() {
        let file = parse(
            "scenario = 'p2p'\npairs = 5\nmax = ['p99=5ms', 'lost=0']\nno-check = false\npoisson = true\n\
             [[phases]]\nramp = { to = 100, seconds = 2 }\n[[phases]]\nhold = { seconds = 3 }\n\
             [[phases]]\nstep = { by = 50, seconds = 1, times = 2 }\n[[phases]]\nspike = { to = 900, seconds = 1 }\n\
             [[phases]]\nhold = { seconds = 1 }\n",
        )
        .unwrap();
        let rates: Vec<(f64, f64)> = file.segments.iter().map(|s| (s.from, s.to)).collect();
        assert_eq!(rates, [(0., 100.), (100., 100.), (150., 150.), (200., 200.), (900., 900.), (200., 200.)]);
        let options: Vec<&str> = file.options.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(options, ["max", "pairs", "poisson", "scenario"]);
        assert_eq!(file.options[0].1, ["p99=5ms", "lost=0"]);
    }

    #[test]
    fn mistakes_are_named() {
        for bad in
            ["x = {", "[[phases]]\nramp = { to = 1 }", "[[phases]]\njump = 1", "[[phases]]\nhold={seconds=0}"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("a = { b = 1 }").is_err());
    }

    #[test]
    fn a_file_without_a_scenario_is_told_what_is_missing() {
        let path = std::env::temp_dir().join(format!("loadgen-file-{}.toml", std::process::id()));
        std::fs::write(&path, "pairs = 5\n").unwrap();
        let error = read(&path).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert!(error.contains("scenario = \"p2p\"") && error.contains(path.to_str().unwrap()), "{error}");
    }
}
