//! Seeds that once failed, by what they found. A seed stands for the same run only as long as plans are drawn as they are
//! now, so each test also says what its run must still come across; the fault itself, if it was the broker's, is among
//! the planted ones in `faults/`.

use ringmq::io::sim::Odds;
use ringmq::metrics::Counters;

use crate::plan::{Plan, What};
use crate::run::{Verdict, execute};
use crate::trace::Trace;

/// The seed passes, and `counters`, by which the situation is known, are not zero.
fn passes(seed: u64, counters: &[&str]) {
    // The runs that failed had no echo and no data directory.
    let plan = Plan { echo: Odds::NEVER, ..Plan::draw_without_data(seed) };
    let outcome = execute(&plan, &mut Trace::default());
    assert_eq!(outcome.verdict, Verdict::Fine, "seed {seed}, without an echo");
    for name in counters {
        let count = count(&outcome.figures.counters, name);
        assert!(count > 0, "seed {seed} no longer comes across {name}");
    }
}

fn count(counters: &[u64], name: &str) -> u64 {
    let at = Counters::NAMES.iter().position(|other| *other == name);
    counters[at.expect("the name of a counter")]
}

/// The oracle took a delayed will that came with the end of its session for one that came too early.
#[test]
fn a_will_goes_out_with_a_session_whose_queue_was_full() {
    passes(1_795_426_102, &["sessions_ended_queue_full_total", "dropped_session_end_total"]);
}

/// The same policy ended a session whose client had just sent DISCONNECT: its will goes out, read or not.
#[test]
fn a_will_goes_out_although_a_disconnect_lies_in_the_kernel() {
    passes(4667, &["sessions_ended_queue_full_total"]);
}

/// A QoS 2 message that had become too large to be sent again freed its Packet Identifier, which the client still knew.
#[test]
fn a_packet_identifier_that_the_client_knows_is_released() {
    passes(19_615, &["dropped_too_large_total"]);
}

/// The oracle did not think of a retained message that came, took another one's place and expired between two looks.
#[test]
fn a_retained_message_may_come_and_expire_between_two_looks() {
    passes(70_013_351, &["dropped_expired_total"]);
    passes(5_000_152_197, &["dropped_expired_total"]);
}

/// An answer to the cursor of a filter that was unsubscribed was taken for that of a later one: a client got a retained
/// message that it had not subscribed to.
#[test]
fn an_answer_for_a_cursor_that_is_gone_is_nobodys() {
    passes(785, &["mesh_received_total", "pauses_total"]);
}

/// The last read of a connection that is taken over published past what it had sent to an owner before.
#[test]
fn what_is_read_last_waits_for_a_switch() {
    passes(2554, &["takeovers_total", "hand_offs_total", "pauses_total"]);
}

/// A SUBACK started the cursors of subscriptions that were not announced yet: their owner answered, then stored a message, and
/// did not know whom to pass it on to.
#[test]
fn a_cursor_waits_for_the_announcement_of_its_own_filter() {
    passes(816_982_073_813, &["mesh_received_total"]);
    passes(8_923, &["mesh_received_total"]);
}

/// The oracle looked at the store and did not think of a will that came meanwhile and found no room in it. One seed met
/// that once in 100,000; with room for one retained message and a retained will in each CONNECT it is one in a hundred.
#[test]
fn a_will_may_find_no_room_while_the_store_is_looked_at() {
    let mut without_room = 0;
    for seed in 0..320 {
        let mut plan = Plan::draw(seed);
        plan.limits.retained_messages_max = 1;
        plan.options.sys_interval_ms = 0;
        plan.stop_at_once = false;
        for step in &mut plan.steps {
            if let What::Connect(connect) | What::TakeOver(_, connect) = &mut step.what
                && let Some(will) = &mut connect.will
                && plan.clients[step.client].version.is_v5()
            {
                (will.retain, will.topic) = (true, step.number % 3);
                will.delay_s = 1 + (step.number % 40) as u32;
                connect.expiry_s = 100;
            }
        }
        let outcome = execute(&plan, &mut Trace::default());
        assert_eq!(outcome.verdict, Verdict::Fine, "seed {seed}");
        without_room += count(&outcome.figures.counters, "dropped_retained_full_total");
    }
    assert!(without_room > 100, "{without_room} retained messages without room");
}

/// The oracle took a message that was sent again for the copy that its receiver had got as a member of a share group.
#[test]
fn what_is_sent_again_is_not_the_copy_of_a_share_group() {
    passes(3_000_017_992, &["publish_sent_total"]);
}

/// The oracle's client waited for PUBREL of a session that the policy of full queues had ended; the CONNACK of the next
/// one was lost.
#[test]
fn a_session_that_goes_on_may_be_another() {
    passes(4_000_082_347, &["sessions_ended_queue_full_total"]);
}

/// A PUBLISH at QoS 2 without PUBREC was sent again to a session that a lost CONNACK had begun, and came twice.
#[test]
fn what_is_sent_again_to_a_younger_session_may_come_again() {
    passes(300_051_593, &["sessions_expired_total"]);
}

/// A value of a subscription that was gone waited behind retained messages, and came after a newer one of the next one.
#[test]
fn a_value_that_waits_goes_before_a_newer_copy() {
    passes(1_795_949_810, &["publish_sent_total"]);
}

/// The simulated kernel took the name that a connection had on its former shard for that of another one here.
#[test]
fn a_cancel_finds_the_connection_that_is_called_so_here() {
    passes(6_000_091_786, &["hand_offs_total"]);
}

/// The oracle's client did not know that it had been refused: the CONNACK could not be sent in time.
#[test]
fn a_refusal_may_not_arrive() {
    passes(123_860, &["sessions_refused_total", "connects_refused_total"]);
}

/// The oracle took what a SUBSCRIBE had asked for, and a second one to the same filter had not, for unasked, since it was
/// published after the second.
#[test]
fn what_the_first_of_two_asked_for_may_be_newer_than_the_second() {
    passes(146_280, &["publish_sent_total"]);
}
