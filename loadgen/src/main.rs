//! The program: command line in, report out.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use loadgen::calibrate::calibrate;
use loadgen::cli::{self, Action, Refusal, RunArgs, presets};
use loadgen::compare::{Contender, News, compare, plan};
use loadgen::engine::{self, Outcome};
use loadgen::environment::{Environment, Subject};
use loadgen::findmax;
use loadgen::live::Live;
use loadgen::report::{self, Figures, count, time};
use loadgen::spec::Spec;
use loadgen::verdict::{self, Verdict, Worth, exit};

/// An exit code that is not 0, with what to tell the user.
struct Stop(u8, String);

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        match refusal {
            Refusal::Usage(what) => Stop(exit::USAGE, what),
            Refusal::Connection(failure) => Stop(exit::CONNECTION, failure.to_string()),
        }
    }
}

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        // Help and version are no mistakes; clap knows which is which.
        Err(e) => e.exit(),
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The first signal asks for a partial report, the second ends the program at once.
        let second = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupted));
        if second.and_then(|_| signal_hook::flag::register(signal, Arc::clone(&interrupted))).is_err() {
            tell("loadgen: Ctrl-C will end the run without a report");
        }
    }
    let result = match cli.command {
        None if cli.run.find_max => find_max(&cli.run, &interrupted),
        None => run(&cli.run, &interrupted),
        Some(Action::Presets) => print(&presets::list()).map(|()| exit::FINE),
        Some(Action::Calibrate { core, duration, json }) => measure_self(core, duration, json, &interrupted),
        Some(Action::Compare { brokers, rounds, plan, html, json, work }) => {
            let works = plan::works(plan.as_deref(), &work, rounds).map_err(|what| Stop(exit::USAGE, what));
            works
                .and_then(|works| writable([&html, &json]).map(|()| works))
                .and_then(|works| comparison(&brokers, works, html.as_deref(), json.as_deref(), &interrupted))
        }
    };
    ExitCode::from(result.unwrap_or_else(|Stop(code, what)| {
        tell(&format!("loadgen: {what}"));
        code
    }))
}

/// A line on standard error. Nobody may be there to read it, and `eprintln!` would panic then.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes to standard output.
fn print(text: &str) -> Result<(), Stop> {
    write(Path::new("-"), text)
}

/// Writes a file, or standard output for `-`. A reader that has gone away, like `head`, changes nothing about the run.
fn write(path: &Path, text: &str) -> Result<(), Stop> {
    let written = if path.as_os_str() == "-" {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush())
    } else {
        std::fs::write(path, text)
    };
    match written {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Stop(exit::USAGE, format!("cannot write {}: {e}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Finds out before a run whether its reports can be written, so that no run is for nothing.
fn writable<'a>(paths: impl IntoIterator<Item = &'a Option<PathBuf>>) -> Result<(), Stop> {
    for path in paths.into_iter().flatten().filter(|path| path.as_os_str() != "-") {
        let new = !path.exists();
        // What stands there already stays until the report takes its place.
        let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
        let cleared = opened.and_then(|_| if new { std::fs::remove_file(path) } else { Ok(()) });
        cleared.map_err(|e| Stop(exit::USAGE, format!("cannot write {}: {e}", path.display())))?;
    }
    Ok(())
}

fn run(args: &RunArgs, interrupted: &AtomicBool) -> Result<u8, Stop> {
    writable([&args.json, &args.hgrm, &args.html])?;
    let spec = args.spec()?;
    advise(&spec);
    let mut live = Live::new(&spec);
    let outcome = engine::run(&spec, interrupted, &mut |progress| {
        if !args.quiet {
            live.show(&progress);
        }
    });
    if !args.quiet {
        live.end();
    }
    let verdict = verdict::judge(&spec, &outcome, &args.thresholds());
    reports(args, &spec, &outcome, &verdict)?;
    Ok(verdict.exit)
}

fn advise(spec: &Spec) {
    if let Some(advice) = &spec.advice {
        tell(&format!("loadgen: {advice}"));
    }
}

/// Writes every report that was asked for. Of a run that came to nothing there is a line instead, and JSON for programs.
fn reports(args: &RunArgs, spec: &Spec, outcome: &Outcome, verdict: &Verdict) -> Result<(), Stop> {
    let nothing = verdict.worth == Worth::Nothing && outcome.failures_total > 0;
    if nothing {
        for line in report::text::failures(outcome) {
            tell(&format!("loadgen: {line}"));
        }
        if args.json.is_none() {
            return Ok(());
        }
    }
    let place = Environment::here();
    let looked = !nothing && (args.json.is_some() || args.html.is_some());
    // Only what is kept has to say later which broker it was.
    let subject =
        if looked { Subject::look("broker", &spec.known(), Some(spec)) } else { Subject::default() };
    if args.json.as_deref() != Some(Path::new("-")) && !nothing {
        print(&report::text::render(spec, outcome, verdict, &place))?;
    }
    if let Some(path) = &args.json {
        write(path, &format!("{:#}\n", report::json::render(spec, outcome, verdict, &place, &subject)))?;
    }
    if nothing {
        return Ok(());
    }
    if let Some(path) = &args.hgrm {
        write(path, &report::hgrm::render(Figures::of(spec, outcome).latency))?;
    }
    if let Some(path) = &args.html {
        write(path, &report::html::render(spec, outcome, verdict, &place, &subject))?;
    }
    Ok(())
}

fn find_max(args: &RunArgs, interrupted: &AtomicBool) -> Result<u8, Stop> {
    writable([&args.json, &args.hgrm, &args.html])?;
    advise(&args.spec()?);
    let search = findmax::search(args, interrupted, &mut |trial| {
        // A trial that came to nothing has its own line below.
        if trial.verdict.worth != Worth::Nothing {
            tell(&trial.text());
        }
    })?;
    let shown = search.best.or(search.trials.len().checked_sub(1)).map(|i| &search.trials[i]);
    if let Some(trial) = shown {
        let plain = RunArgs { json: None, ..args.clone() };
        if args.json.as_deref() != Some(Path::new("-")) || trial.verdict.worth == Worth::Nothing {
            reports(&plain, &trial.spec, &trial.outcome, &trial.verdict)?;
        }
        if let Some(path) = &args.json {
            let place = Environment::here();
            let subject = Subject::look("broker", &trial.spec.known(), Some(&trial.spec));
            let mut json =
                report::json::render(&trial.spec, &trial.outcome, &trial.verdict, &place, &subject);
            json["search"] = search.json();
            write(path, &format!("{json:#}\n"))?;
        }
    }
    if search.exit != exit::CONNECTION {
        tell(&search.text());
    }
    Ok(search.exit)
}

fn measure_self(
    core: Option<usize>,
    duration: f64,
    json: bool,
    interrupted: &AtomicBool,
) -> Result<u8, Stop> {
    let found = calibrate(core, duration, interrupted)?;
    if json {
        let text = serde_json::to_string_pretty(&found);
        print(&format!("{}\n", text.map_err(|e| Stop(exit::USAGE, e.to_string()))?))?;
    } else {
        let row = |name, rate, per_cpu_s| {
            format!("    {name:<24}{:>18}{:>18}\n", count(rate as u64), count(per_cpu_s as u64))
        };
        print(&format!(
            "{}, Linux {}\n  one core, 64 bytes, QoS 0, window 256:   msg/s   msg per second of its CPU time\n\
             {}{}  latency floor at 1,000 msg/s   p50 {}, p99 {}\n",
            found.cpu,
            found.kernel,
            row("sent", found.swallow_rate, found.swallow_per_cpu_s),
            row("sent and received", found.reflect_rate, found.reflect_per_cpu_s),
            time(found.floor_p50_ns),
            time(found.floor_p99_ns)
        ))?;
    }
    match found.save() {
        Ok(path) => tell(&format!("kept in {} for the reports to come", path.display())),
        Err(e) => tell(&format!("reports to come will not show it: {e}")),
    }
    Ok(exit::FINE)
}

fn comparison(
    brokers: &[Contender],
    works: Vec<plan::Work>,
    html: Option<&Path>,
    json: Option<&Path>,
    interrupted: &AtomicBool,
) -> Result<u8, Stop> {
    let result = compare(brokers, works, interrupted, &mut |news| match news {
        News::Work(name) => tell(&format!("== {name}")),
        News::Turn(name, Ok(round)) => tell(&format!("{name:<10} {}", round.text())),
        News::Turn(name, Err(failure)) => tell(&format!("{name:<10} failed: {failure}")),
    })?;
    let place = Environment::here();
    if json != Some(Path::new("-")) {
        print(&result.text())?;
    }
    if let Some(path) = json {
        write(path, &format!("{:#}\n", result.json(&place)))?;
    }
    if let Some(path) = html {
        write(path, &result.html(&place))?;
    }
    Ok(result.exit())
}
