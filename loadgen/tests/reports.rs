//! Reports in their forms, comparisons, the search for the highest rate, and calibration.

mod peer;
mod run;

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use peer::{Fate, Peer};
use run::{finish, plain, run, signal, start};

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
    assert!(
        page.contains("corrected") && page.contains("p99.99") && page.matches("role=\"img\"").count() == 6
    );
    // The head says which broker, when, and what the run is worth; the peer says no version.
    let head = &page[..page.find("<h2>").unwrap()];
    for word in ["version unknown", "127.0.0.1:", " UTC", &run.text("verdict.worth")] {
        assert!(head.contains(word), "{word}: {head}");
    }
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
        "fan-out --subscribers 3 --rate 200 --duration 500ms --warmup 0 --no-spin --max lost=0 --port {}",
        peer.port
    ));
    assert!(run.stdout.lines().all(|line| line.chars().count() <= 80), "{}", run.stdout);
    let verdicts = ["VALID", "DISTURBED"];
    assert!(verdicts.iter().any(|verdict| run.stdout.contains(verdict)), "{}", run.stdout);
    for word in [
        "received by subscribers",
        "offered",
        "corrected",
        "0 lost, 0 duplicated",
        "generator",
        "wake-ups",
        "holds: lost is 0",
    ] {
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
    let rounds = |i: usize| json["works"][0]["brokers"][i]["rounds"].as_array().unwrap().clone();
    assert_eq!((rounds(0).len(), rounds(1).len()), (2, 2));
    for round in rounds(0).iter().chain(&rounds(1)) {
        // What a busy machine delays beyond the half second counts as not received in it.
        assert!((100.0..=240.0).contains(&round["rate"].as_f64().unwrap()), "{round}");
        assert_eq!(round["faults"], 0);
    }
    let page = take(&html);
    assert!(page.contains("fast") && page.contains("slow") && page.contains("class=\"track\""));
    assert!(plain("compare --broker nonsense -- p2p").exit == 2);
}

#[test]
fn a_plan_holds_several_works_and_a_dead_broker_spoils_none_of_them() {
    let peer = Peer::honest();
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (plan, html) = (file("plan.toml"), file("plan.html"));
    let text = "rounds = 2\noptions = '--duration 300ms --warmup 0 --no-spin'\n\
                [[work]]\nname = 'a pair'\nrun = 'p2p --pairs 1 --rate 200'\nnote = { most = 7 }\n\
                [[work]]\nname = 'connects'\nrun = 'connect-storm --connections 9'\nrounds = 1\n";
    std::fs::write(&plan, text).unwrap();
    let run = plain(&format!(
        "compare --broker alive=127.0.0.1:{} --broker dead=127.0.0.1:{dead} --plan {} --json - --html {} -- --qos 1",
        peer.port,
        plan.display(),
        html.display()
    ));
    std::fs::remove_file(&plan).unwrap();
    assert_eq!(run.exit, 5);
    let works = &run.json()["works"];
    assert_eq!((works[0]["name"].as_str(), works[1]["name"].as_str()), (Some("a pair"), Some("connects")));
    assert_eq!(works[0]["note"]["most"], 7);
    assert!(works[0]["headline"].as_str().unwrap().contains("QoS 1"), "{}", works[0]["headline"]);
    for (work, rounds) in [(0, 2), (1, 1)] {
        let of = |broker: usize| works[work]["brokers"][broker]["rounds"].as_array().unwrap();
        assert_eq!((of(0).len(), of(1).len()), (rounds, rounds));
        assert!(of(0).iter().all(|round| round["rate"].as_f64().unwrap() > 1.0), "{works:#}");
        assert!(
            of(1).iter().all(|round| round["failure"].as_str().unwrap().contains("is the broker running"))
        );
    }
    let page = take(&html);
    for word in ["All works", "a pair", "connects", "failed:", "alive"] {
        assert!(page.contains(word), "{word}");
    }
}

#[test]
fn an_interrupted_comparison_reports_the_rounds_that_were_over() {
    let peer = Peer::honest();
    let child = start(&format!(
        "compare --broker one=127.0.0.1:{0} --broker two=127.0.0.1:{0} --rounds 50 --json - -- \
         p2p --pairs 1 --rate 200 --duration 300ms --warmup 0 --no-spin --retain --persistent --qos 1 -V 3.1.1",
        peer.port
    ));
    // In the third or fourth run, for 60 messages belong to each.
    while peer.published.load(Ordering::Relaxed) < 150 {
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(&child, "-INT");
    let run = finish(child);
    let json = run.json();
    assert_eq!((run.exit, &json["interrupted"]), (130, &serde_json::Value::Bool(true)));
    let rounds = |i: usize| json["works"][0]["brokers"][i]["rounds"].as_array().unwrap().len();
    assert_eq!((rounds(0), rounds(1)), (1, 1), "{}", run.stderr);
    assert_eq!((peer.retained(), peer.sessions()), (0, 0), "what the broken-off run left behind");
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

/// Adds the paths of all fields below `value`.
fn fields(value: &serde_json::Value, found: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (name, value) in map {
                found.insert(name.clone());
                fields(value, found);
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| fields(value, found)),
        _ => {}
    }
}

#[test]
fn every_field_of_the_json_reports_is_documented() {
    let peer = Peer::honest();
    let work = "p2p --pairs 1 --rate 200 --duration 300ms --warmup 0 --no-spin --qos 1";
    let single = run(peer.port, &format!("{work} --pid {}", std::process::id())).json();
    let search = run(peer.port, &format!("{work} --find-max --max lost=0 --max rate=1")).json();
    let compared =
        plain(&format!("compare --broker a=127.0.0.1:{} --rounds 1 --json - -- {work}", peer.port));
    let mut found = std::collections::BTreeSet::new();
    for report in [&single, &search, &compared.json()] {
        fields(report, &mut found);
    }
    let guide = include_str!("../JSON.md");
    let missing: Vec<&String> = found.iter().filter(|name| !guide.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty() && found.len() > 80, "{missing:?}, {} fields", found.len());
}
