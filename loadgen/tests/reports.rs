//! Reports in their forms, comparisons, the search for the highest rate, and calibration.

mod peer;
mod run;

use std::path::PathBuf;
use std::time::Duration;

use peer::{Fate, Peer};
use run::{plain, run};

fn file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("loadgen-{}-{name}", std::process::id()))
}

/// Reads a file that a run has written, and removes it.
fn take(path: &PathBuf) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    std::fs::remove_file(path).unwrap();
    text
}

#[test]
fn the_page_stands_alone_and_the_percentiles_have_their_format() {
    let peer = Peer::honest();
    let (html, hgrm) = (file("page.html"), file("page.hgrm"));
    let run = run(
        peer.port,
        &format!(
            "p2p --pairs 2 --rate 500 --duration 1200ms --warmup 0 --no-spin --password hunter2 --user u --html {} --hgrm {}",
            html.display(),
            hgrm.display()
        ),
    );
    assert_eq!(run.number("messages.unique"), 600.0);
    let page = take(&html);
    for word in
        ["<!doctype html>", "Latency by percentile", "Rate over time", "Latency over time", "Environment"]
    {
        assert!(page.contains(word), "{word}");
    }
    assert!(page.contains("corrected") && page.contains("p99.99") && page.matches("<svg").count() == 3);
    for outside in ["http://", "https://", "<script", "@import", "url("] {
        assert!(!page.contains(outside), "the page asks for something: {outside}");
    }
    assert!(!page.contains("hunter2") && !run.stdout.contains("hunter2"), "a password in a report");
    let lines: Vec<String> = take(&hgrm).lines().map(str::to_string).collect();
    assert!(lines[0].contains("Percentile") && lines.last().unwrap().starts_with("#[Buckets"));
    let totals: Vec<f64> = lines[2..lines.len() - 3]
        .iter()
        .map(|line| line.split_whitespace().nth(2).unwrap().parse().unwrap())
        .collect();
    assert!(totals.is_sorted() && *totals.last().unwrap() == 600.0, "{totals:?}");
}

#[test]
fn the_text_report_has_the_figures_and_the_verdict() {
    let peer = Peer::honest();
    let run = plain(&format!(
        "fan-out --subscribers 3 --rate 200 --duration 500ms --warmup 0 --no-spin --port {}",
        peer.port
    ));
    for word in
        ["received by subscribers", "offered", "corrected", "0 lost, 0 duplicated", "generator", "VALID"]
    {
        assert!(run.stdout.contains(word), "{word}: {}", run.stdout);
    }
    assert!(run.stderr.contains("4 connections are up"), "{}", run.stderr);
}

#[test]
fn brokers_are_compared_in_turns() {
    // The second peer delays every message by 20 ms.
    let (fast, slow) = (Peer::honest(), Peer::scripted(|_| Fate::Late(Duration::from_millis(20))));
    let html = file("compare.html");
    let run = plain(&format!(
        "compare --broker fast=127.0.0.1:{} --broker slow=127.0.0.1:{} --rounds 2 --json - --html {} -- \
         p2p --pairs 1 --rate 200 --duration 500ms --warmup 0 --no-spin",
        fast.port,
        slow.port,
        html.display()
    ));
    let json = run.json();
    let rounds = |i: usize| json["brokers"][i]["rounds"].as_array().unwrap().clone();
    assert_eq!((rounds(0).len(), rounds(1).len()), (2, 2));
    for round in rounds(0).iter().chain(&rounds(1)) {
        // What a busy machine delays beyond the half second counts as not received in it.
        assert!((100.0..=240.0).contains(&round["rate"].as_f64().unwrap()), "{round}");
        assert_eq!(round["faults"], 0);
    }
    let page = take(&html);
    assert!(page.contains("fast") && page.contains("slow") && page.contains("<rect"));
    assert!(plain("compare --broker nonsense -- p2p").exit == 2);
}

#[test]
fn the_highest_rate_is_found_where_messages_begin_to_be_lost() {
    // This peer takes 100 ms, so that a busy machine makes no run invalid, and loses a message whenever the last half second brought more than 150.
    let begin = std::time::Instant::now();
    let recent = std::sync::Mutex::new(std::collections::VecDeque::new());
    let peer = Peer::scripted(move |_| {
        let (mut recent, now) = (recent.lock().unwrap(), begin.elapsed());
        recent.push_back(now);
        while recent.front().is_some_and(|&t: &Duration| now - t > Duration::from_millis(500)) {
            recent.pop_front();
        }
        match recent.len() {
            151.. => Fate::Lose,
            _ => Fate::Late(Duration::from_millis(100)),
        }
    });
    let run = run(
        peer.port,
        "p2p --pairs 1 --rate 200 --duration 700ms --warmup 300ms --no-spin --drain 200ms --find-max --max lost=0",
    );
    let json = run.json();
    let trials = json["search"]["trials"].as_array().unwrap();
    assert!(trials.iter().any(|t| t["why"].as_str().is_some_and(|why| why.contains("lost"))), "{trials:?}");
    // A busy machine may end the search early, at a rate that held; it must never claim more.
    let best = json["search"]["best_rate"].as_f64().unwrap();
    assert!((50.0..=310.0).contains(&best), "{best}");
}

#[test]
fn calibration_measures_and_is_kept_for_reports() {
    let cache = file("cache");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["calibrate", "--duration", "300ms", "--json"])
        .env("XDG_CACHE_HOME", &cache)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(found["swallow_rate"].as_f64().unwrap() > 10_000.0, "{found}");
    assert!(found["reflect_rate"].as_f64().unwrap() > 1_000.0, "{found}");
    assert!(found["floor_p50_ns"].as_f64().unwrap() > 1_000.0, "{found}");
    let peer = Peer::honest();
    let report = std::process::Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args([
            "p2p",
            "--pairs",
            "1",
            "--rate",
            "50",
            "--duration",
            "200ms",
            "--warmup",
            "0",
            "--json",
            "-",
            "--quiet",
        ])
        .args(["--port", &peer.port.to_string()])
        .env("XDG_CACHE_HOME", &cache)
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["environment"]["calibration"]["swallow_rate"], found["swallow_rate"]);
    std::fs::remove_dir_all(cache).unwrap();
}
