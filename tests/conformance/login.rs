//! What the standards say about clients that are not let in, or not to everything: statements that need users and
//! rules to be shown. How users and rules work is tested in `tests/access`.

#[path = "../access/place.rs"]
#[allow(dead_code)]
mod place;

use crate::support::encode::{self, PUBACK, PUBCOMP, PUBREC, PUBREL};
use crate::support::*;
use crate::{support, support::client::PATIENCE};
use place::{Place, client, connect};

/// Brokers with one shard and with four that know Alice, who may do everything, and Bob, who may not.
fn each_ruled(body: impl Fn(&Broker, Version)) {
    let rules = "user alice\ntopic readwrite #\nuser bob\ntopic readwrite open/#\n";
    let place = Place::new(&["alice", "bob"]);
    for shards in [1, 4] {
        let broker = place.broker(shards, Some(rules), &["--client-ids", "begin-with-user-name"]);
        [V5, V311, V31].into_iter().for_each(|version| body(&broker, version));
    }
}

/// A CONNECT that is refused: the code, nothing behind it, and a close.
fn refused(broker: &Broker, connect: &Connect, v5: u8, v3: u8) {
    let mut client = Client::open(broker, connect.version);
    // What is sent behind it would be answered, if it were read.
    client.send([connect.bytes(), encode::PINGREQ.to_vec()].concat());
    let connack = client.expect_connack();
    let expected = if connect.version == V5 { v5 } else { v3 };
    assert_eq!((connack.code, connack.session_present), (expected, false), "{:?}", connect.version);
    assert_eq!(client.next(PATIENCE), Event::Closed);
}

#[test]
fn mqtt_3_1_4_2_mqtt_3_1_4_6_u311_3_1_4_2_mqtt311_3_1_4_5_who_cannot_say_who_it_is_is_refused_with_the_code_for_it()
 {
    each_ruled(|b, v| {
        refused(b, &connect(v, "alice").password("a guess"), 0x86, 0x04);
        refused(b, &connect(v, "nobody"), 0x86, 0x04);
        refused(b, &Connect::new(v, name("x")), 0x87, 0x05);
        client(b, v, "alice").ping();
    });
}

#[test]
fn mqtt_3_1_3_8_mqtt311_3_1_3_9_an_identifier_that_is_not_allowed_is_refused_with_the_code_for_it() {
    each_ruled(|b, v| {
        let with_id = |id: &str| Connect::new(v, id).user_name("alice").password(place::PASSWORD);
        refused(b, &with_id(&name("bob")), 0x85, 0x02);
        Client::accepted(b, &with_id(&name("alice"))).ping();
    });
}

#[test]
fn u5_3_8_4_4_u311_3_9_3_1_v31_4_a_filter_that_is_denied_leaves_the_others_alone() {
    each_ruled(|b, v| {
        let (open, closed) = (format!("open/{}", name("t")), format!("closed/{}", name("t")));
        let mut bob = client(b, v, "bob");
        let codes = bob.subscribe_all(1, &[], &[(&open, 1), (&closed, 2), (&format!("{open}/#"), 2)]);
        // 3.1 has no word for it: it is granted, and delivers nothing.
        let denied = match v {
            V5 => 0x87,
            V311 => 0x80,
            V31 => codes[1].min(2),
        };
        assert_eq!(codes, [1, denied, 2]);
        let mut alice = client(b, v, "alice");
        alice.say(&closed, "not for Bob", 2);
        alice.say(&open, "for Bob", 1);
        assert_eq!(bob.expect_texts(1), ["for Bob"]);
        bob.expect_quiet();
    });
}

#[test]
fn u5_3_3_4_7_mqtt311_3_3_5_2_u5_4_3_4_mqtt_4_3_3_9_what_may_not_be_published_reaches_nobody() {
    each_ruled(|b, v| {
        let closed = format!("closed/{}", name("t"));
        let mut alice = client(b, v, "alice");
        alice.subscribe(&closed, 2);
        let mut bob = client(b, v, "bob");
        // Whether it may be published is known before it is acknowledged: only MQTT 5 has a word for it.
        let code = if v == V5 { 0x87 } else { 0x00 };
        bob.send_publish(&Publish::new(&*closed, "at 0"));
        bob.send_publish(&Publish::new(&*closed, "at 1").qos(1, 4).retain());
        assert_eq!(bob.expect_ack(PUBACK, 4).code, code);
        bob.send_publish(&Publish::new(&*closed, "at 2").qos(2, 5));
        assert_eq!(bob.expect_ack(PUBREC, 5).code, code);
        if v == V5 {
            // The refusal ended the exchange: the identifier stands for a new message, and its release is unknown.
            bob.ack(PUBREL, 5);
            assert_eq!(bob.expect_ack(PUBCOMP, 5).code, 0x92);
        } else {
            bob.ack(PUBREL, 5);
            bob.expect_ack(PUBCOMP, 5);
        }
        bob.ping();
        alice.expect_quiet();
        let mut late = client(b, v, "alice");
        late.subscribe(&closed, 0);
        late.expect_quiet();
    });
}
