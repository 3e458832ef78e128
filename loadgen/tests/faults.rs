//! Each fault that the scripted peer commits is reported, with the right count.

mod peer;
mod run;

use std::time::Duration;

use peer::{Fate, Peer, Welcome};
use run::run;

/// 1,000 messages of one publisher, whose fates the script decides by their number.
const THOUSAND: &str = "p2p --pairs 1 --rate 1000 --duration 1 --warmup 0 --no-spin --drain 1";

fn every(n: u64, fate: Fate) -> impl Fn(u64) -> Fate {
    move |i| if i % n == n / 2 { fate } else { Fate::Deliver }
}

#[track_caller]
fn expect(run: &run::Run, exit: i32, faults: [u64; 5]) {
    let names = ["lost", "duplicated", "disordered", "corrupted", "stray"];
    let seen = names.map(|name| run.number(&format!("faults.{name}")) as u64);
    assert_eq!(seen, faults, "lost, duplicated, disordered, corrupted, stray");
    assert_eq!(run.exit, exit, "{}", run.stdout);
}

/// The exit code of a run without faults is 0, or 4 if this machine was too busy for its schedule.
#[track_caller]
fn expect_clean(run: &run::Run) {
    expect(run, if run.text("verdict.worth") == "INVALID" { 4 } else { 0 }, [0; 5]);
}

#[test]
fn an_honest_peer_has_no_faults_at_any_qos_and_version() {
    for qos in 0..=2 {
        for version in ["5", "3.1.1"] {
            let peer = Peer::honest();
            let run = run(peer.port, &format!("{THOUSAND} --qos {qos} -V {version} --duration 300ms"));
            expect_clean(&run);
            assert_eq!(run.number("messages.sent"), 300.0);
            assert_eq!(run.number("messages.unique"), 300.0);
            assert_eq!(peer.published.load(std::sync::atomic::Ordering::Relaxed), 300);
        }
    }
}

#[test]
fn lost_messages_are_counted() {
    let peer = Peer::scripted(every(100, Fate::Lose));
    let run = run(peer.port, THOUSAND);
    expect(&run, 3, [10, 0, 0, 0, 0]);
    assert_eq!(run.number("messages.unique"), 990.0);
}

#[test]
fn the_last_messages_can_be_lost_too() {
    let peer = Peer::scripted(|i| if i >= 993 { Fate::Lose } else { Fate::Deliver });
    expect(&run(peer.port, THOUSAND), 3, [7, 0, 0, 0, 0]);
}

#[test]
fn repeated_messages_are_counted() {
    let peer = Peer::scripted(every(50, Fate::Repeat));
    expect(&run(peer.port, &format!("{THOUSAND} --qos 1")), 3, [0, 20, 0, 0, 0]);
}

#[test]
fn swapped_messages_are_counted_once_and_are_not_lost() {
    let peer = Peer::scripted(every(40, Fate::Swap));
    expect(&run(peer.port, THOUSAND), 3, [0, 0, 25, 0, 0]);
}

#[test]
fn damaged_payloads_are_counted() {
    let peer = Peer::scripted(every(100, Fate::Damage(40)));
    expect(&run(peer.port, THOUSAND), 3, [0, 0, 0, 10, 0]);
    let peer = Peer::scripted(every(100, Fate::Shorten));
    expect(&run(peer.port, THOUSAND), 3, [0, 0, 0, 10, 0]);
}

#[test]
fn a_damaged_header_makes_a_message_corrupted_and_lost() {
    let peer = Peer::scripted(every(100, Fate::Damage(0)));
    expect(&run(peer.port, THOUSAND), 3, [10, 0, 0, 10, 0]);
}

#[test]
fn a_message_under_another_topic_is_corrupted() {
    let peer = Peer::scripted(every(100, Fate::Rename));
    expect(&run(peer.port, THOUSAND), 3, [0, 0, 0, 10, 0]);
}

#[test]
fn a_message_to_the_wrong_subscriber_is_stray() {
    let peer = Peer::scripted(every(100, Fate::Stray));
    expect(&run(peer.port, &THOUSAND.replace("--pairs 1", "--pairs 3")), 3, [0, 0, 0, 0, 20]);
}

#[test]
fn a_closed_loop_goes_on_after_losses_and_counts_them() {
    let peer = Peer::scripted(every(100, Fate::Lose));
    let run = run(peer.port, "p2p --pairs 1 --window 8 --duration 1 --warmup 0 --drain 1");
    let sent = run.number("messages.sent") as u64;
    assert!(sent > 200, "{sent}");
    // Those numbered 50, 150 and so on from 0.
    expect(&run, 3, [(sent + 49) / 100, 0, 0, 0, 0]);
}

#[test]
fn a_closed_loop_writes_off_what_will_never_come() {
    let peer = Peer::scripted(|i| if (100..108).contains(&i) { Fate::Lose } else { Fate::Deliver });
    let run = run(peer.port, "p2p --pairs 1 --window 8 --duration 2500ms --warmup 0 --drain 1");
    expect(&run, 3, [8, 0, 0, 0, 0]);
    assert!(run.number("messages.sent") > 200.0);
    assert!(run.number("messages.written_off") >= 8.0);
}

#[test]
fn faults_are_seen_by_every_subscriber_of_a_fan_out() {
    let peer = Peer::scripted(every(100, Fate::Lose));
    let run =
        run(peer.port, "fan-out --subscribers 7 --rate 500 --duration 1 --warmup 0 --no-spin --drain 1");
    expect(&run, 3, [5 * 7, 0, 0, 0, 0]);
}

#[test]
fn workers_hand_credits_to_one_another() {
    // Two workers on one CPU: every second publisher lives away from the only subscriber.
    let cpus = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = cpus.lines().find(|line| line.starts_with("Cpus_allowed_list:")).unwrap();
    let last = line.rsplit([',', '-', '\t']).next().unwrap();
    let peer = Peer::honest();
    let work = format!("fan-in --publishers 6 --window 4 --duration 500ms --warmup 0 --cores {last},{last}");
    let run = run(peer.port, &work);
    assert_eq!(run.json()["generator"][0]["workers"], 2);
    assert_eq!((run.number("faults.lost"), run.number("messages.written_off")), (0.0, 0.0));
    // Without credits each publisher would stop after its window of 4.
    assert!(run.number("messages.sent") > 200.0, "{}", run.stdout);
}

#[test]
fn a_share_group_as_a_whole_gets_every_message_once() {
    let honest = Peer::honest();
    let work = "shared --groups 2 --subscribers 6 --publishers 5 --rate 500 --duration 1 --warmup 0 --no-spin --drain 1";
    let clean = run(honest.port, work);
    expect_clean(&clean);
    assert_eq!(clean.number("messages.unique"), 1000.0);
    let faulty = Peer::scripted(every(100, Fate::Repeat));
    expect(&run(faulty.port, work), 3, [0, 10, 0, 0, 0]);
}

#[test]
fn topics_of_one_publisher_have_an_order_each() {
    let peer = Peer::scripted(every(40, Fate::Swap));
    // The next message belongs to another topic, so a swap of neighbours breaks no topic's order.
    expect_clean(&run(peer.port, &format!("{THOUSAND} --topics 4")));
}

#[test]
fn topic_aliases_are_used_as_far_as_the_peer_takes_them() {
    let peer = Peer::new(Welcome::Aliases(3), |_| Fate::Deliver);
    expect_clean(&run(peer.port, &format!("{THOUSAND} --topics 5 --alias 10")));
    // 200 messages on each of five topics; three have an alias, set by their first message.
    assert_eq!(peer.aliased.load(std::sync::atomic::Ordering::Relaxed), 3 * 199);
    let none = Peer::honest();
    expect_clean(&run(none.port, &format!("{THOUSAND} --alias 10")));
    assert_eq!(none.aliased.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn payloads_of_all_sizes_are_checked() {
    let peer = Peer::scripted(every(100, Fate::Damage(15_000)));
    let run = run(peer.port, &format!("{THOUSAND} --payload 16384"));
    expect(&run, 3, [0, 0, 0, 10, 0]);
    let mixed = Peer::honest();
    expect_clean(&self::run(mixed.port, &format!("{THOUSAND} --payload 16:5,300:3,40000:1")));
}

#[test]
fn an_unchecked_run_says_so_and_looks_for_nothing() {
    let peer = Peer::scripted(every(100, Fate::Lose));
    let run = run(peer.port, &format!("{THOUSAND} --no-check --payload 5 --max lost=0"));
    assert_eq!(run.text("verdict.checked"), "false");
    assert_eq!(run.number("messages.delivered"), 990.0);
    assert!(run.text("verdict.broken_thresholds").contains("UNCHECKED"));
}

#[test]
fn a_stall_shows_in_corrected_latency_and_hardly_in_uncorrected() {
    let stall = Duration::from_millis(100);
    let peer = Peer::scripted(move |i| if i == 1500 { Fate::Stall(stall) } else { Fate::Deliver });
    let run = run(peer.port, "p2p --pairs 1 --rate 1000 --duration 3 --warmup 0 --no-spin");
    // 100 of 3,000 messages wait for 100 ms and less: 1 % of all waits for about 70 ms and more.
    let (corrected, uncorrected) =
        (run.number("latency_ns.corrected.p99") / 1e6, run.number("latency_ns.uncorrected.p99") / 1e6);
    assert!(corrected > 50.0, "corrected p99 {corrected} ms");
    assert!(uncorrected < corrected / 2.0, "uncorrected p99 {uncorrected} ms, corrected {corrected} ms");
    // A client that waits sees the stall once.
    let worst = run.number("latency_ns.uncorrected.max") / 1e6;
    assert!(worst > 90.0, "{worst} ms");
    expect(&run, run.exit, [0; 5]);
}

#[test]
fn a_stall_that_holds_back_acknowledgements_is_charged_to_the_peer() {
    let stall = Duration::from_millis(100);
    let peer =
        Peer::new(
            Welcome::ReceiveMaximum(1),
            move |i| if i == 500 { Fate::Stall(stall) } else { Fate::Deliver },
        );
    let run = run(peer.port, "p2p --pairs 1 --rate 500 --qos 1 --duration 3 --warmup 0 --no-spin");
    // The publisher may have one message in flight: the others wait in the generator, and count from when they
    // were due all the same, while the generator itself was not late.
    let corrected = run.number("latency_ns.corrected.p99") / 1e6;
    assert!(corrected > 50.0, "{corrected} ms");
    let lateness = run.number("latency_ns.generator_lateness.p99") / 1e6;
    assert!(lateness < 50.0, "{lateness} ms");
    assert_eq!(run.number("messages.sent"), 1500.0);
}

#[test]
fn a_constant_delay_is_measured() {
    let peer = Peer::scripted(|_| Fate::Late(Duration::from_millis(30)));
    let run = run(peer.port, "p2p --pairs 1 --rate 100 --duration 1 --warmup 0 --no-spin");
    let median = run.number("latency_ns.corrected.p50") / 1e6;
    assert!((30.0..90.0).contains(&median), "{median} ms");
    expect(&run, run.exit, [0; 5]);
}
