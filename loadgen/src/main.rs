//! The program: command line in, report out.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use loadgen::cli::{self, Action, Refusal, RunArgs, presets};
use loadgen::engine::{self, Progress};
use loadgen::report::{self, count, time};
use loadgen::verdict::{self, exit};

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        // Help and version are no mistakes; clap knows which is which.
        Err(e) => e.exit(),
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second signal ends the program at once, the first one asks for a partial report.
        let _ = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupted));
        let _ = signal_hook::flag::register(signal, Arc::clone(&interrupted));
    }
    ExitCode::from(match cli.command {
        None => run(&cli.run, &interrupted),
        Some(Action::Presets) => {
            print!("{}", presets::list());
            exit::FINE
        }
    })
}

fn run(args: &RunArgs, interrupted: &AtomicBool) -> u8 {
    let spec = match args.spec() {
        Ok(spec) => spec,
        Err(Refusal::Usage(what)) => {
            eprintln!("loadgen: {what}");
            return exit::USAGE;
        }
        Err(Refusal::Connection(failure)) => {
            eprintln!("loadgen: {failure}");
            return exit::CONNECTION;
        }
    };
    let quiet = args.quiet;
    let outcome = engine::run(&spec, interrupted, &mut |progress| {
        if !quiet {
            show(&progress);
        }
    });
    let verdict = verdict::judge(&spec, &outcome, &args.thresholds());
    let to_stdout = args.json.as_ref().is_some_and(|path| path.as_os_str() == "-");
    if !to_stdout {
        if std::io::stdout().is_terminal() {
            println!();
        }
        print!("{}", report::text::render(&spec, &outcome, &verdict));
    }
    if let Some(path) = &args.json {
        let json = report::json::render(&spec, &outcome, &verdict);
        let text = format!("{json:#}\n");
        let written =
            if to_stdout { std::io::stdout().write_all(text.as_bytes()) } else { std::fs::write(path, text) };
        if let Err(e) = written {
            eprintln!("loadgen: cannot write {}: {e}", path.display());
            return exit::USAGE;
        }
    }
    verdict.exit
}

fn show(progress: &Progress<'_>) {
    match progress {
        Progress::Connected { up, of } if *up == *of as usize => {
            eprintln!("{} connections are up", count(u64::from(*of)))
        }
        Progress::Connected { .. } => {}
        Progress::Second(s) => eprintln!(
            "{:>4} s  {:>12} msg/s  p50 {:>9}  p99 {:>9}  missing {}",
            s.second + 1,
            count(s.delivered),
            time(s.latency.value_at_quantile(0.5)),
            time(s.latency.value_at_quantile(0.99)),
            count(s.missing)
        ),
    }
}
