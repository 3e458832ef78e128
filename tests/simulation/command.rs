//! The command line of `scripts/simulate`, handed over in an environment variable because the test harness owns the real
//! one, and the figures that it prints.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringmq::metrics::Counters;

use crate::oracle::Checker;
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
       scripts/simulate --coverage --runs N                 runs, and what of shard/ and session/ they reached
       each with --shards N: on so many shards, whatever the seed draws
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
            "--shards" => {
                options.cut.shards =
                    Some(words.next()?.parse().ok().filter(|shards| (1..=64).contains(shards))?);
            }
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
    if text.trim() == "--checkers" {
        println!("checkers: {} io-rule rest assertion", Checker::NAMES.join(" "));
        return 0;
    }
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
    let plan = cut.apply(&Plan::draw_on(seed, cut.shards));
    let outcome = traced(&plan);
    println!("seed {seed}{}: {}", cut.options(), plan.describe());
    for line in &outcome.trace {
        println!("{line}");
    }
    println!("{}: {}", outcome.verdict.kind(), outcome.verdict.text());
    println!("trace {:016x}", outcome.hash);
    outcome.verdict.exit_code()
}

/// What came of many runs.
pub struct Many {
    pub runs: u64,
    pub figures: Figures,
    /// The lowest seed that failed.
    pub failed: Option<(u64, Verdict)>,
}

/// Runs of one seed after the other, on several threads, until one fails, `runs` are done or the time has come.
pub fn run_all(from: u64, runs: u64, shards: Option<u16>, jobs: usize, until: Option<Instant>) -> Many {
    let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let sum = Mutex::new(Many { runs: 0, figures: Figures::default(), failed: None });
    let work = || {
        while !over.load(Ordering::Relaxed) && until.is_none_or(|until| Instant::now() < until) {
            let run = next.fetch_add(1, Ordering::Relaxed);
            if run >= runs {
                return;
            }
            let outcome = execute(&Plan::draw_on(from + run, shards), &mut Trace::default());
            let Ok(mut sum) = sum.lock() else { return };
            sum.runs += 1;
            sum.figures.add(&outcome.figures);
            if outcome.verdict != Verdict::Fine
                && sum.failed.as_ref().is_none_or(|(seed, _)| *seed > from + run)
            {
                over.store(true, Ordering::Relaxed);
                sum.failed = Some((from + run, outcome.verdict));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(work);
        }
    });
    sum.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn many(options: &Options) -> i32 {
    // Fresh seeds by default; the first one is in the output.
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
    let from = options.from.unwrap_or(clock % 1_000_000_000 * 1_000);
    let jobs = options.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let until = options.minutes.map(|minutes| Instant::now() + Duration::from_secs_f64(minutes * 60.0));
    println!("seeds from {from}, {jobs} at a time");
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let Many { runs, figures, failed } =
        run_all(from, options.runs.unwrap_or(u64::MAX), options.cut.shards, jobs, until);
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
        Some((seed, verdict)) => report(seed, options.cut.shards, &verdict),
    }
}

/// A failure: the line that replays it, and a smaller one with its trace.
fn report(seed: u64, shards: Option<u16>, verdict: &Verdict) -> i32 {
    println!("{}: {}", verdict.kind(), verdict.text());
    let whole = Cut { shards, ..Cut::default() };
    println!("replay: scripts/simulate --seed {seed}{}", whole.options());
    let plan = Plan::draw_on(seed, shards);
    let cut = Cut { shards, ..shrink(&plan, verdict, SHRINKING) };
    if cut != whole {
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
        "{} messages published, {} delivered ({:.0} per CPU minute), {} turns, {} rests",
        figures.published,
        figures.clients.received,
        per_minute(figures.published + figures.clients.received),
        figures.turns,
        figures.rests,
    );
    let list = |rows: Vec<(&str, u64)>| {
        rows.into_iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
    };
    println!("faults: {}", list(figures.faults()));
    println!("{} facts checked: {}", figures.checks.total(), list(figures.checks.rows().collect()));
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
    /// What went wrong on purpose, by kind: first what the kernel did, then what the run did.
    pub fn faults(&self) -> Vec<(&'static str, u64)> {
        let counter = |name: &str| {
            let at = Counters::NAMES.iter().position(|other| *other == name);
            at.and_then(|at| self.counters.get(at)).copied().unwrap_or(0)
        };
        let own = [
            ("returns through another shard", self.clients.elsewhere),
            ("clock jumps", self.jumps),
            ("stops in the middle of a hand-off", self.stops_in_hand_off),
            ("crashes", self.crashes),
            ("crashes before all shards served", self.crashes_in_start),
            ("crashes in the middle of a stop", self.crashes_in_stop),
            ("crashes at answers", self.crashes_at_answers),
            ("starts after a stop", self.starts_again),
            ("forbidden packets", self.clients.offences),
            ("publishers paused by full rings", counter("pauses_total")),
            ("accepts held by full hand-offs", counter("accept_holds_total")),
            ("queues full", counter("dropped_queue_full_total") + counter("dropped_queue_oldest_total")),
            ("send buffers full", counter("dropped_send_buffer_total")),
            ("queue memory used up", counter("dropped_memory_total")),
            ("sessions ended by full queues", counter("sessions_ended_queue_full_total")),
            ("retained stores full", counter("dropped_retained_full_total")),
        ];
        // Bits at rest stay what they are: damage is looked for elsewhere.
        let disk = self.faults.disk_rows().filter(|(name, _)| *name != "bits flipped at rest");
        self.faults.rows().chain(disk).chain(own).collect()
    }

    fn add(&mut self, other: &Figures) {
        self.simulated_ms += other.simulated_ms;
        self.published += other.published;
        self.clients.add(&other.clients);
        self.checks.add(&other.checks);
        self.turns += other.turns;
        self.rests += other.rests;
        self.jumps += other.jumps;
        self.stops_in_hand_off += other.stops_in_hand_off;
        self.crashes += other.crashes;
        self.crashes_in_start += other.crashes_in_start;
        self.crashes_in_stop += other.crashes_in_stop;
        self.crashes_at_answers += other.crashes_at_answers;
        self.starts_again += other.starts_again;
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
