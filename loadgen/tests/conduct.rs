//! How the program behaves: its verdict on itself, exit codes, errors, interruption, and what it leaves behind.

mod peer;
mod run;

use std::time::Duration;

use peer::{Fate, Peer, Welcome};
use run::{finish, plain, run, signal, start};

const SHORT: &str = "p2p --pairs 2 --rate 500 --duration 300ms --warmup 0 --no-spin --drain 1";

#[test]
fn a_generator_slowed_on_purpose_yields_invalid() {
    let peer = Peer::honest();
    let work = "p2p --pairs 1 --rate 2000 --duration 2 --warmup 0 --no-spin";
    let child = start(&format!("{work} --port {} --json - --quiet", peer.port));
    // The generator is stopped half of the time: it cannot keep its own schedule.
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(30));
        signal(&child, "-STOP");
        std::thread::sleep(Duration::from_millis(30));
        signal(&child, "-CONT");
    }
    let run = finish(child);
    assert_eq!((run.text("verdict.worth").as_str(), run.exit), ("INVALID", 4));
    assert!(run.text("verdict.reasons").contains("late"), "{}", run.text("verdict.reasons"));
    assert_eq!(run.number("faults.lost"), 0.0);
}

#[test]
fn thresholds_decide_the_exit_code() {
    let peer = Peer::scripted(|_| Fate::Late(Duration::from_millis(20)));
    let good = run(peer.port, &format!("{SHORT} --max lost=0 --min rate=100"));
    // Whether the generator kept its schedule is up to this machine; that its conditions held is not.
    assert!([0, 4].contains(&good.exit), "{}", good.stdout);
    let broken = good.text("verdict.broken_thresholds");
    let untold = good.exit == 4 && (broken.contains("the run is INVALID") || broken.contains("[]"));
    assert!(broken == "[]" || untold, "{broken}");
    let bad = run(peer.port, &format!("{SHORT} --max p50=1ms --min rate=1M"));
    assert!([1, 4].contains(&bad.exit), "{}", bad.stdout);
    let broken = bad.text("verdict.broken_thresholds");
    assert!(broken.contains("p50") && broken.contains("rate"), "{broken}");
}

#[test]
fn a_reader_that_goes_away_leaves_the_exit_code_as_it_is() {
    let peer = Peer::scripted(|i| if i == 7 { Fate::Lose } else { Fate::Deliver });
    let work = format!("{SHORT} --port {}", peer.port);
    // Nobody reads the report, and in the end not even the progress.
    for (arguments, exit) in
        [("presets".into(), 0), ("nonsense".into(), 2), (work.clone(), 3), (format!("{work} --json -"), 0)]
    {
        let mut child = start(&arguments);
        drop(child.stdout.take());
        drop(child.stderr.take());
        let code = child.wait().unwrap().code();
        // Whether the generator kept its schedule is up to this machine.
        assert!(code == Some(exit) || (exit == 0 && code == Some(4)), "{arguments}: {code:?}");
    }
}

#[test]
fn usage_errors_end_with_two_and_say_what_to_do() {
    for (arguments, word) in [
        ("p2p --payload 15", "--no-check"),
        ("nonsense", "presets"),
        ("p2p --pid 999999999", "process"),
        ("idle --pairs 5", "--connections"),
        ("p2p --source 192.0.2.1", "no address of this machine"),
        // What would be known too late: a machine that is too small, and reports that nobody could write.
        ("conn-1M-5K", "--source 127.0.0.2-127.0.0."),
        ("p2p --html /nowhere/page.html", "cannot write /nowhere/page.html"),
        ("p2p --json /nowhere/report.json", "cannot write /nowhere/report.json"),
        ("p2p --hgrm /tmp", "cannot write /tmp"),
        ("p2p --find-max --html /nowhere/page.html", "cannot write"),
        ("compare --broker a=127.0.0.1:1 --html /nowhere/page.html -- p2p", "cannot write"),
        ("compare --broker a=127.0.0.1:1 --json /nowhere/report.json -- p2p", "cannot write"),
    ] {
        let run = plain(arguments);
        assert_eq!(run.exit, 2, "{arguments}");
        assert_eq!((run.stderr.lines().count(), run.stdout.as_str()), (1, ""), "{arguments}: {}", run.stderr);
        assert!(run.stderr.contains(word), "{arguments}: {}", run.stderr);
    }
    assert_eq!(plain("--nonsense").exit, 2);
}

#[test]
fn help_and_presets_teach() {
    let help = plain("--help");
    assert_eq!(help.exit, 0);
    assert!(help.stdout.contains("Examples:") && help.stdout.contains("Exit codes"));
    let presets = plain("presets");
    assert_eq!(presets.exit, 0);
    for name in ["conn-tcp-10K-100", "fanout-5-1000-5-250K", "p2p-50K-50K-50K-50K", "sharedsub-1K-5-1K-1K"] {
        assert!(presets.stdout.contains(name), "{name}");
    }
}

#[test]
fn connection_errors_end_with_five_and_say_what_to_do() {
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = run(free, SHORT);
    assert_eq!(refused.exit, 5);
    assert!(refused.text("verdict.failures").contains("is the broker running"));
    let unknown = plain("-h no-such-host.invalid");
    assert_eq!(unknown.exit, 5);
    assert!(unknown.stderr.contains("no address"));
    for (welcome, extra, word) in [
        (Welcome::Refuse(0x86), "-V 5", "-u and -P"),
        (Welcome::Refuse(5), "-V 3.1.1", "not authorized"),
        (Welcome::Refuse(1), "-V 3.1.1", "-V"),
        (Welcome::Silence, "--connect-timeout 300ms", "no CONNACK"),
        (Welcome::Nonsense, "", "malformed"),
    ] {
        let peer = Peer::new(welcome, |_| Fate::Deliver);
        let run = run(peer.port, &format!("{SHORT} {extra}"));
        assert_eq!(run.exit, 5, "{welcome:?}: {}", run.stdout);
        let failures = run.text("verdict.failures");
        assert!(failures.contains(word), "{welcome:?}: {failures}");
    }
}

#[test]
fn a_broker_that_closes_is_named_with_its_reason() {
    for (fate, word) in [
        (Fate::Disconnect(0x8B), "server shutting down (0x8B)"),
        (Fate::Close, "without a reason"),
        (Fate::Refuse(0x87), "not authorized (0x87)"),
    ] {
        let peer = Peer::scripted(move |i| if i == 50 { fate } else { Fate::Deliver });
        let run = run(peer.port, &format!("{SHORT} --qos 1"));
        assert_eq!(run.exit, 5, "{fate:?}");
        let failures = run.text("verdict.failures");
        assert!(failures.contains(word), "{fate:?}: {failures}");
    }
}

#[test]
fn a_run_ends_soon_after_the_broker_is_gone() {
    let peer = Peer::scripted(|i| if i == 20 { Fate::Close } else { Fate::Deliver });
    let begin = std::time::Instant::now();
    // The only publisher is closed, and then the subscriber with the whole peer.
    let child =
        start(&format!("p2p --pairs 1 --rate 100 --duration 40 --warmup 0 --port {} --json -", peer.port));
    while peer.published.load(std::sync::atomic::Ordering::Relaxed) < 21 {
        std::thread::sleep(Duration::from_millis(5));
    }
    peer.close_all();
    let run = finish(child);
    assert_eq!(run.exit, 5);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert_eq!(run.number("messages.unique"), 20.0);
}

#[test]
fn an_interrupted_run_reports_what_it_has_and_cleans_up() {
    let peer = Peer::honest();
    let work =
        "p2p --pairs 3 --rate 500 --duration 30 --warmup 0 --no-spin --retain --persistent -V 3.1.1 --qos 1";
    let child = start(&format!("{work} --port {} --json - --quiet", peer.port));
    while peer.published.load(std::sync::atomic::Ordering::Relaxed) < 300 {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(peer.retained() > 0 && peer.sessions() > 0);
    signal(&child, "-INT");
    let run = finish(child);
    assert_eq!((run.text("interrupted").as_str(), run.exit), ("true", 130));
    assert!(run.number("measured_s") < 20.0 && run.number("measured_s") > 0.1);
    assert!(run.number("messages.unique") >= 300.0);
    assert_eq!(run.number("faults.lost"), 0.0);
    assert_eq!(
        (peer.retained(), peer.sessions()),
        (0, 0),
        "retained messages and sessions that were left behind"
    );
}

#[test]
fn nothing_is_left_behind_by_a_run_that_ends_by_itself() {
    for version in ["5", "3.1.1"] {
        let peer = Peer::honest();
        run(peer.port, &format!("{SHORT} --retain --persistent -V {version} --qos 1"));
        assert_eq!((peer.retained(), peer.sessions()), (0, 0), "MQTT {version}");
    }
}

#[test]
fn retained_messages_are_stored_fetched_counted_and_removed() {
    let peer = Peer::honest();
    let fetched = run(peer.port, "retained --publishers 3 --topics 20 --subscribers 4 --qos 1 --drain 1");
    assert_eq!(fetched.exit, 0, "{}", fetched.stdout);
    assert_eq!(fetched.number("messages.sent"), 60.0);
    assert_eq!(fetched.number("messages.unique"), 240.0);
    assert_eq!(peer.retained(), 0);
    // A message that the peer damaged on its way in is damaged in the store for all four.
    let faulty = Peer::scripted(|_| Fate::Deliver);
    let lost = run(faulty.port, "retained --publishers 1 --topics 1 --subscribers 4 --drain 500ms -V 3.1.1");
    assert_eq!((lost.exit, lost.number("messages.unique")), (0, 4.0));
}

#[test]
fn storms_bring_everyone_back_and_miss_no_session() {
    let peer = Peer::honest();
    let work = "reconnect-storm --subscribers 8 --persistent --qos 1 --duration 900ms --warmup 0 --storm-every 300ms";
    let kept = run(peer.port, work);
    assert_eq!(kept.exit, 0, "{}", kept.stdout);
    let storms = kept.number("connects.storms");
    assert!(storms >= 2.0, "{storms}");
    assert_eq!(kept.number("connects.reconnected"), 8.0 * storms);
    assert_eq!(peer.sessions(), 0);
    let forgetful = Peer::new(Welcome::Forget, |_| Fate::Deliver);
    let lost = run(forgetful.port, work);
    assert_eq!(lost.exit, 3);
    assert_eq!(lost.number("faults.sessions_lost"), lost.number("connects.reconnected"));
}

#[test]
fn connections_that_do_nothing_else_subscribe_if_asked() {
    for (work, count) in
        [("idle --connections 20 --duration 200ms --warmup 0", 20), ("connect-storm --connections 30", 30)]
    {
        let peer = Peer::honest();
        let quiet = run(peer.port, work);
        assert_eq!(quiet.exit, 0, "{}", quiet.stdout);
        // What asks for the version afterwards is no part of the run.
        assert_eq!(peer.subscribed.load(std::sync::atomic::Ordering::Relaxed), 1, "{work}");
        let subscribed = run(peer.port, &format!("{work} --subscribe"));
        assert_eq!((subscribed.exit, subscribed.number("connections")), (0, f64::from(count)));
        assert_eq!(peer.subscribed.load(std::sync::atomic::Ordering::Relaxed), 2 + count as u64, "{work}");
    }
}

#[test]
fn filters_have_a_wildcard_if_asked() {
    let peer = Peer::honest();
    assert_eq!(run(peer.port, SHORT).number("messages.unique"), 150.0);
    assert_eq!(peer.wildcards(), Vec::<String>::new());
    assert_eq!(run(peer.port, &format!("{SHORT} --wildcard")).number("messages.unique"), 150.0);
    let wildcards = peer.wildcards();
    assert_eq!(wildcards.len(), 2, "{wildcards:?}");
    assert!(wildcards.iter().all(|filter| filter.ends_with("/+")), "{wildcards:?}");
}

#[test]
fn connects_are_counted_and_timed() {
    let peer = Peer::honest();
    let run = run(peer.port, "connect-storm --connections 60 --connect-rate 200 --no-spin");
    assert_eq!(run.number("connects.connected"), 60.0);
    // 60 connects at 200 a second take 0.3 s.
    assert!(run.number("measured_s") >= 0.29);
    assert!(run.number("latency_ns.connect.count") == 60.0);
}

#[test]
fn the_broker_is_charged_for_its_cpu_time_and_memory() {
    let peer = Peer::honest();
    let me = std::process::id();
    let run = run(peer.port, &format!("{SHORT} --pid {me}"));
    assert!(run.number("broker.cpu_ns_each") > 100.0);
    assert!(run.number("broker.memory_peak") > 1e6);
    assert!(
        run.number("broker.anonymous_connected") > 1e5 && run.number("broker.kernel_per_connection") >= 0.0
    );
    assert!(run.text("subject.commands").contains("conduct"), "{}", run.text("subject.commands"));
    assert!(run.number("broker.threads") >= 2.0);
}

#[test]
fn a_process_that_is_not_the_broker_is_charged_for_nothing() {
    let peer = Peer::honest();
    let mut stranger = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let pid = stranger.id();
    let work = format!("{SHORT} --port {} --max cpu=9us --max memory=1G --pid {pid}", peer.port);
    let (json, text) = (plain(&format!("{work} --json -")), plain(&work.replace("--max cpu=9us", "")));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert_ne!(json.exit, 0);
    assert!(json.text("verdict.pid_void").contains("--pid is wrong"), "{}", json.stdout);
    assert!(json.text("verdict.broken_thresholds").contains("cpu cannot be told"), "{}", json.stdout);
    assert_eq!(json.text("broker"), "null");
    assert!(text.stdout.contains("  VOID: ") && !text.stdout.contains("its memory"), "{}", text.stdout);
}

#[test]
fn a_scenario_file_with_phases_sends_what_its_phases_say() {
    let peer = Peer::honest();
    let path = std::env::temp_dir().join(format!("loadgen-conduct-{}.toml", std::process::id()));
    let text = "scenario = 'fan-in'\npublishers = 4\nwarmup = '0s'\nno-spin = true\n\
                [[phases]]\nramp = { to = 400, seconds = 0.5 }\n\
                [[phases]]\nhold = { seconds = 0.5 }\n\
                [[phases]]\nspike = { to = 1000, seconds = 0.2 }\n";
    std::fs::write(&path, text).unwrap();
    let run = run(peer.port, path.to_str().unwrap());
    std::fs::remove_file(&path).unwrap();
    // 100 while ramping, 200 while holding, 200 in the spike.
    let sent = run.number("messages.sent");
    assert!((498.0..=501.0).contains(&sent), "{sent}");
    assert_eq!(run.number("faults.lost"), 0.0);
    assert!(run.text("headline").contains("in phases"));
}

#[test]
fn a_slow_subscriber_slows_nobody_and_its_losses_are_no_fault() {
    let peer = Peer::honest();
    let run = run(
        peer.port,
        "slow-subscriber --subscribers 3 --slow 1 --slow-rate 2000 --rate 200 --duration 1 --warmup 0 --no-spin",
    );
    assert_eq!(run.number("messages.unique"), 600.0);
    assert_eq!(run.number("faults.lost"), 0.0);
    // 2,000 bytes a second are about 20 messages, after what the connection's set-up let through.
    let slow = run.number("messages.slow_delivered");
    assert!((1.0..120.0).contains(&slow), "{slow}");
}

#[test]
fn a_connection_that_does_not_come_about_is_one_line_and_no_report() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let locked = Peer::new(Welcome::Refuse(0x86), |_| Fate::Deliver);
    for (port, word) in [(free, "is the broker running"), (locked.port, "-u and -P")] {
        for work in
            ["p2p --pairs 50", "connect-storm --connections 300", "idle", "p2p --find-max --max lost=0"]
        {
            let page = std::env::temp_dir().join(format!("loadgen-none-{}-{port}.html", std::process::id()));
            let run = plain(&format!("{work} --quiet --duration 1 --port {port} --html {}", page.display()));
            assert_eq!(run.exit, 5, "{work}: {}", run.stderr);
            assert_eq!(run.stdout, "", "{work}");
            // What to type on a crowded machine is said too; it is no error.
            let lines: Vec<&str> = run.stderr.lines().filter(|line| line.contains(word)).collect();
            assert_eq!(lines.len(), 1, "{work}: {}", run.stderr);
            assert!(!page.exists(), "{work}: a page about nothing");
        }
    }
}

#[test]
fn a_broker_that_dies_is_one_line_with_a_count() {
    let peer = Peer::honest();
    let child = start(&format!(
        "p2p --pairs 30 --rate 300 --duration 40 --warmup 0 --no-spin --drain 1 --port {}",
        peer.port
    ));
    while peer.published.load(std::sync::atomic::Ordering::Relaxed) < 60 {
        std::thread::sleep(Duration::from_millis(5));
    }
    peer.close_all();
    let run = finish(child);
    assert_eq!(run.exit, 5);
    assert_eq!(run.stdout.matches("CONNECTION: ").count(), 1, "{}", run.stdout);
    let flat = run.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains("times)") && flat.contains("closed the connection of"), "{flat}");
}

#[test]
fn an_interrupted_storm_of_connects_has_its_rate_and_its_load() {
    let peer = Peer::honest();
    let child = start(&format!(
        "connect-storm --connections 5000 --subscribe --connect-rate 100 --port {} --json - --quiet",
        peer.port
    ));
    while peer.subscribed.load(std::sync::atomic::Ordering::Relaxed) < 50 {
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(&child, "-INT");
    let run = finish(child);
    assert_eq!(run.exit, 130);
    // 100 a second, and never what comes of a division by no time at all.
    let rate = run.number("rate.achieved");
    assert!((1.0..=250.0).contains(&rate), "{rate}");
    assert!(run.number("measured_s") > 0.1 && run.number("connect_s") > 0.1, "{}", run.stdout);
    let busy = run.json()["generator"][0]["busy"].as_f64().unwrap();
    assert!(busy > 0.0, "{}", run.stdout);
}
