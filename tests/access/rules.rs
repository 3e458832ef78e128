//! Rules about names, and settings about refusals, as clients meet them.

use super::place::{Place, client, connect, reload};
use super::support::encode::{PUBACK, PUBCOMP, PUBREC, PUBREL};
use super::support::{Client, Connect, Publish, V5, V311};

#[test]
fn a_name_with_wildcards_or_levels_gets_nothing_out_of_a_pattern() {
    let place = Place::new(&["alice", "+", "x#", "alice/x", "$SYS"]);
    let rules = "pattern readwrite own/%u/#\npattern readwrite %c/x\nuser alice\ntopic read all\n";
    let broker = place.broker(4, Some(rules), &["--allow-anonymous"]);
    let mut alice = client(&broker, V5, "alice");
    alice.subscribe("own/alice/#", 1);
    for user in ["+", "x#", "alice/x", "$SYS"] {
        for id in ["+", "#", "a/b", "$SYS"] {
            let mut odd = Client::accepted(&broker, &connect_as(user, id));
            for topic in ["own/alice/x", "own/alice", "own/alice/x/y", "a/b/x", "b/x"] {
                assert_eq!(odd.publish(&Publish::new(topic, "odd").qos(1, 0)), 0x87, "{user} {id} {topic}");
            }
            let filters =
                ["own/alice/#", "own/+/#", "own/#", "#", "+/x", "a/b/x", "$SYS/#", "$share/g/own/#"];
            for filter in filters {
                let codes = odd.subscribe_all(1, &[], &[(filter, 1)]);
                // `own/$SYS` is the own tree of a user of that name, and nobody else's.
                let own = user == "$SYS" && ["own/+/#", "own/#", "#", "$share/g/own/#"].contains(&filter);
                assert_eq!(codes, [if own { 1 } else { 0x87 }], "{user} {id} {filter}");
            }
            odd.disconnect(); // so that the next user may have its Client Identifier
        }
    }
    let mut anonymous = Client::accepted(&broker, &Connect::new(V5, "plain"));
    assert_eq!(anonymous.publish(&Publish::new("own//x", "no user").qos(1, 0)), 0x87);
    assert!(anonymous.publish(&Publish::new("plain/x", "own").qos(1, 0)) < 0x80);
    alice.say("own/alice/x", "mine", 1);
    assert_eq!(alice.expect_texts(1), ["mine"]);
    alice.expect_quiet();
}

fn connect_as(user: &str, id: &str) -> Connect {
    Connect::new(V5, id).user_name(user).password(super::place::PASSWORD)
}

#[test]
fn strict_refuses_an_overlap_and_an_option_names_no_reason() {
    let place = Place::new(&["alice"]);
    let rules = "user alice\ntopic read #\ntopic deny secret/#\n";
    let filters = [("#", 1), ("+/a", 1), ("secret/a", 1), ("open/#", 1)];
    for (options, codes) in [
        (&["--strict-subscribe"][..], [0x87, 0x87, 0x87, 1]),
        (&["--suback-unspecified"][..], [1, 1, 0x80, 1]),
        (&["--strict-subscribe", "--suback-unspecified"][..], [0x80, 0x80, 0x80, 1]),
    ] {
        let broker = place.broker(4, Some(rules), options);
        let mut alice = client(&broker, V5, "alice");
        assert_eq!(alice.subscribe_all(1, &[], &filters), codes, "{options:?}");
        let mut alice = client(&broker, V311, "alice");
        let codes = codes.map(|code| if code == 0x87 { 0x80 } else { code });
        assert_eq!(alice.subscribe_all(1, &[], &filters), codes, "{options:?}");
    }
}

#[test]
fn rules_work_without_users() {
    let place = Place::new(&[]);
    place.write_rules("topic read public/#\nclient meter\ntopic write meters/1\npattern readwrite own/%c\n");
    let broker = super::support::Broker::start(4, &["--acl-file", &place.rules()]);
    let mut anybody = Client::accepted(&broker, &Connect::new(V5, "any").user_name("meter"));
    let mut meter = Client::accepted(&broker, &Connect::new(V5, "meter"));
    assert_eq!(
        anybody.subscribe_all(1, &[], &[("public/x", 0), ("meters/1", 0), ("own/any", 0)]),
        [0, 0x87, 0]
    );
    assert_eq!(
        anybody.publish(&Publish::new("meters/1", "x").qos(1, 0)),
        0x87,
        "a name without proof is none"
    );
    assert_eq!(meter.publish(&Publish::new("meters/1", "x").qos(1, 0)), 0x10);
    assert_eq!(meter.publish(&Publish::new("own/any", "x").qos(1, 0)), 0x87);
    assert_eq!(meter.publish(&Publish::new("own/meter", "x").qos(1, 0)), 0x10);
    assert_eq!(connect(V5, "meter").user_name.as_deref(), Some(&b"meter"[..]));
}

/// A QoS 2 PUBLISH that was refused has left nothing: its Packet Identifier is free for another one.
#[test]
fn a_refused_packet_identifier_is_free() {
    let place = Place::new(&["alice"]);
    let broker = place.broker(4, Some("user alice\ntopic readwrite good\n"), &[]);
    let mut alice = client(&broker, V5, "alice");
    alice.subscribe("good", 2);
    for _ in 0..2000 {
        assert_eq!(alice.publish(&Publish::new("bad", "x").qos(2, 77)), 0x87);
    }
    assert_eq!(alice.publish(&Publish::new("good", "x").qos(2, 77)), 0);
    assert_eq!(alice.expect_texts(1), ["x"]);
}

/// Many messages in one write are judged as each of them alone would be: by what their publisher may say, and by what each
/// subscriber may hear, also when that has changed since the topic was published to last.
#[test]
fn a_run_of_messages_is_judged_like_each_of_them() {
    const COUNT: u16 = 40;
    let rules = "user alice\ntopic write open/#\ntopic write secret/#\ntopic deny secret/mute\n\
                 user bob\ntopic read #\ntopic deny secret/#\n";
    let later = "user alice\ntopic deny open/#\nuser bob\ntopic read #\n";
    for shards in [1, 4] {
        let place = Place::new(&["alice", "bob"]);
        let mut broker = place.broker(shards, Some(rules), &[]);
        let mut alice = client(&broker, V5, "alice");
        let mut bob = client(&broker, V5, "bob");
        bob.subscribe("#", 2);
        let mut publish_run = |topic: &str, qos: u8, refused: bool| {
            let label = format!("{topic} at QoS {qos}, {shards} shards, refused: {refused}");
            let texts: Vec<String> = (0..COUNT).map(|at| format!("{label} {at:02}")).collect();
            let ids: Vec<u16> = texts.iter().map(|_| if qos == 0 { 0 } else { alice.packet_id() }).collect();
            let packets =
                texts.iter().zip(&ids).map(|(text, id)| Publish::new(topic, text).qos(qos, *id).bytes(V5));
            alice.send(packets.collect::<Vec<_>>().concat());
            // That somebody subscribed is said, whether or not he may hear it.
            let (first, code) = (if qos == 1 { PUBACK } else { PUBREC }, if refused { 0x87 } else { 0 });
            for id in ids.iter().filter(|id| **id != 0) {
                assert_eq!(alice.expect_ack(first, *id).code, code, "{label}");
            }
            if qos == 2 && !refused {
                ids.iter().for_each(|id| alice.ack(PUBREL, *id));
                ids.iter().for_each(|id| drop(alice.expect_ack(PUBCOMP, *id)));
            }
            alice.ping();
            texts
        };
        for qos in 0..3 {
            publish_run("secret/mute", qos, true);
            publish_run("secret/a", qos, false);
            bob.expect_quiet();
            let texts = publish_run("open/a", qos, false);
            assert_eq!(bob.expect_texts(texts.len()), texts);
        }
        place.write_rules(later);
        reload(&mut broker);
        for qos in 0..3 {
            publish_run("open/a", qos, true);
            bob.expect_quiet();
        }
    }
}
