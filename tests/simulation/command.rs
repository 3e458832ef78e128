//! The command line of `scripts/simulate`, handed over in an environment variable because the test harness owns the real
//! one, and the figures that it prints.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringmq::metrics::Counters;

use crate::plan::Plan;
use crate::run::{Figures, Outcome, Verdict, execute};
use crate::shrink::{Cut, shrink};
use crate::trace::Trace;

/// Where `scripts/simulate` puts its arguments.
pub const VARIABLE: &str = "RINGMQ_SIMULATE";

pub const USAGE: &str = "\
usage: scripts/simulate --seed N [--steps 0-3,9] [--calm]   one run, with its trace
       scripts/simulate --runs N [--from SEED] [--jobs N]   so many runs
       scripts/simulate --minutes N [--from SEED] [--jobs N]
       scripts/simulate --faults [NAME]                     each planted fault must be caught
exit codes: 0 fine, 10 crash, 11 wrong, 12 stuck, 2 not understood";

const SHRINKING: Duration = Duration::from_secs(20);

impl Verdict {
    pub fn exit_code(&self) -> i32 {
        match self {
            Verdict::Fine => 0,
            Verdict::Crash(_) => 10,
            Verdict::Wrong(_) => 11,
            Verdict::Stuck(_) => 12,
        }
    }
}

#[derive(Default)]
struct Options {
    seed: Option<u64>,
    cut: Cut,
    runs: Option<u64>,
    minutes: Option<f64>,
    from: Option<u64>,
    jobs: Option<usize>,
    /// Only the seed and what was found.
    brief: bool,
}

fn parse(text: &str) -> Option<Options> {
    let mut options = Options::default();
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        match word {
            "--calm" => options.cut.calm = true,
            "--brief" => options.brief = true,
            "--seed" => options.seed = Some(words.next()?.parse().ok()?),
            "--steps" => options.cut.steps = Some(Cut::parse_steps(words.next()?)?),
            "--runs" => options.runs = Some(words.next()?.parse().ok()?),
            "--minutes" => options.minutes = Some(words.next()?.parse().ok()?),
            "--from" => options.from = Some(words.next()?.parse().ok()?),
            "--jobs" => options.jobs = Some(words.next()?.parse().ok()?),
            _ => return None,
        }
    }
    let modes = [options.seed.is_some(), options.runs.is_some(), options.minutes.is_some()];
    (modes.iter().filter(|mode| **mode).count() == 1).then_some(options)
}

/// Carries a command line out; the exit code.
pub fn command(text: &str) -> i32 {
    match parse(text) {
        None => {
            println!("{USAGE}");
            2
        }
        Some(options) => match options.seed {
            Some(seed) => one(seed, &options.cut),
            None => many(&options),
        },
    }
}

fn traced(plan: &Plan) -> Outcome {
    execute(plan, &mut Trace { on: true, ..Trace::default() })
}

/// One run with its trace.
fn one(seed: u64, cut: &Cut) -> i32 {
    let plan = cut.apply(&Plan::draw(seed));
    let outcome = traced(&plan);
    println!("seed {seed}{}: {}", cut.options(), plan.describe());
    for line in &outcome.trace {
        println!("{line}");
    }
    println!("{}: {}", outcome.verdict.kind(), outcome.verdict.text());
    println!("trace {:016x}", outcome.hash);
    outcome.verdict.exit_code()
}

/// Runs of one seed after the other, on several threads, until one fails.
fn many(options: &Options) -> i32 {
    // Fresh seeds by default; the first one is in the output.
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
    let from = options.from.unwrap_or(clock % 1_000_000_000 * 1_000);
    let jobs = options.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let until = options.minutes.map(|minutes| Instant::now() + Duration::from_secs_f64(minutes * 60.0));
    let runs = options.runs.unwrap_or(u64::MAX);
    println!("seeds from {from}, {jobs} at a time");
    let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let sum = Mutex::new((0u64, Figures::default()));
    let failed: Mutex<Option<(u64, Verdict)>> = Mutex::new(None);
    let (started, cpu) = (Instant::now(), cpu_seconds());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) && until.is_none_or(|until| Instant::now() < until) {
                    let run = next.fetch_add(1, Ordering::Relaxed);
                    if run >= runs {
                        return;
                    }
                    let outcome = execute(&Plan::draw(from + run), &mut Trace::default());
                    if let Ok(mut sum) = sum.lock() {
                        sum.0 += 1;
                        sum.1.add(&outcome.figures);
                    }
                    if outcome.verdict != Verdict::Fine
                        && let Ok(mut failed) = failed.lock()
                        && failed.as_ref().is_none_or(|(seed, _)| *seed > from + run)
                    {
                        over.store(true, Ordering::Relaxed);
                        *failed = Some((from + run, outcome.verdict));
                    }
                }
            });
        }
    });
    let (runs, figures) = sum.into_inner().unwrap_or_default();
    let failed = failed.into_inner().ok().flatten();
    if options.brief {
        return match failed {
            None => 0,
            Some((seed, verdict)) => {
                let what = verdict.text().lines().next().unwrap_or_default();
                println!("after {} runs: {}: {what}", seed - from + 1, verdict.kind());
                verdict.exit_code()
            }
        };
    }
    print_figures(runs, &figures, started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    match failed {
        None => 0,
        Some((seed, verdict)) => report(seed, &verdict),
    }
}

/// A failure: the line that replays it, and a smaller one with its trace.
fn report(seed: u64, verdict: &Verdict) -> i32 {
    println!("{}: {}", verdict.kind(), verdict.text());
    println!("replay: scripts/simulate --seed {seed}");
    let plan = Plan::draw(seed);
    let cut = shrink(&plan, verdict, SHRINKING);
    if cut != Cut::default() {
        println!("smaller:");
        one(seed, &cut);
        println!("replay: scripts/simulate --seed {seed}{}", cut.options());
    }
    verdict.exit_code()
}

fn print_figures(runs: u64, figures: &Figures, seconds: f64, cpu: f64) {
    let hours = figures.simulated_ms as f64 / 3_600_000.0;
    let per_minute = |count: u64| count as f64 / cpu.max(0.001) * 60.0;
    println!("{runs} runs in {seconds:.1} s ({cpu:.1} s of CPU): {hours:.0} hours of simulated time");
    println!(
        "{} messages published, {} delivered ({:.0} per CPU minute), {} turns, {} rests, {} facts checked",
        figures.published,
        figures.received,
        per_minute(figures.published + figures.received),
        figures.turns,
        figures.rests,
        figures.checks
    );
    let faults: Vec<String> = figures.faults.rows().map(|(name, count)| format!("{count} {name}")).collect();
    println!("faults: {}", faults.join(", "));
    let never: Vec<&str> = Counters::NAMES
        .iter()
        .zip(&figures.counters)
        .filter(|(name, count)| **count == 0 && name.ends_with("_total"))
        .map(|(name, _)| *name)
        .collect();
    println!(
        "counters that stayed at zero: {}",
        if never.is_empty() { "none".into() } else { never.join(", ") }
    );
}

/// CPU time of this process, from the kernel's table; 100 ticks are a second on every Linux.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

impl Figures {
    fn add(&mut self, other: &Figures) {
        self.simulated_ms += other.simulated_ms;
        self.published += other.published;
        self.received += other.received;
        self.checks += other.checks;
        self.turns += other.turns;
        self.rests += other.rests;
        self.faults.add(&other.faults);
        if self.counters.is_empty() {
            self.counters = vec![0; other.counters.len()];
        }
        for (sum, more) in self.counters.iter_mut().zip(&other.counters) {
            *sum = sum.wrapping_add(*more);
        }
    }
}

#[test]
fn a_command_line_has_one_mode() {
    assert!(parse("--seed 5 --steps 1-2 --calm").is_some());
    assert!(parse("--runs 5 --from 7 --jobs 2").is_some());
    assert!(parse("--minutes 0.5").is_some());
    for text in ["", "--seed", "--seed x", "--seed 1 --runs 2", "--what 3"] {
        assert!(parse(text).is_none(), "{text}");
    }
}
