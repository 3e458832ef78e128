//! Every way of a message to a client, allowed and denied, before and after the rules were read again.
//!
//! Messages on `secret/...` are what the rules are about; those on `open/...` are for everybody and show that the way
//! works. `reader` is the one whose reading is allowed or denied, `writer` the one whose writing is; `admin` may do
//! everything. Each body runs from allowed to denied and back, with one shard and with four.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::place::{PASSWORD, Place, client, connect, reload};
use super::support::{Broker, Client, Connect, Event, Packet, Publish, V5, V31, V311, Version, Will, name};

const USERS: [&str; 3] = ["admin", "reader", "writer"];

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Secret {
    Allowed,
    Denied,
}

use Secret::{Allowed, Denied};

impl Secret {
    fn rules(self) -> String {
        let common = "user admin\ntopic readwrite #\ntopic read $SYS/#\n\
                      user reader\ntopic read #\nuser writer\ntopic write #\n";
        let special = match self {
            Allowed => "user reader\ntopic read $SYS/#\n",
            Denied => "user reader\ntopic deny secret/#\nuser writer\ntopic deny secret/#\n",
        };
        format!("{common}{special}")
    }

    fn other(self) -> Secret {
        if self == Allowed { Denied } else { Allowed }
    }

    /// How many of `count` secret messages arrive.
    fn of(self, count: usize) -> usize {
        if self == Allowed { count } else { 0 }
    }
}

/// A broker whose rules change.
struct Ruled {
    place: Place,
    broker: Broker,
}

impl Ruled {
    fn change(&mut self, secret: Secret) {
        self.place.write_rules(&secret.rules());
        let said = reload(&mut self.broker);
        assert!(said.contains("SIGHUP"), "{said}");
    }
}

fn each(more: &[&str], body: impl Fn(&mut Ruled, Secret)) {
    for shards in [1, 4] {
        for first in [Allowed, Denied] {
            let place = Place::new(&USERS);
            let broker = place.broker(shards, Some(&first.rules()), more);
            body(&mut Ruled { place, broker }, first);
        }
    }
}

/// The payloads of the next messages, of which there are `count`, and no more.
fn exactly(client: &mut Client, count: usize) -> Vec<String> {
    let texts = client.expect_texts(count);
    client.expect_quiet();
    texts
}

fn expected(secret: Secret, secrets: &[&str], open: &[&str]) -> BTreeSet<String> {
    let secrets = secrets.iter().take(secret.of(secrets.len()));
    secrets.chain(open).map(|text| (*text).to_owned()).collect()
}

fn gets(client: &mut Client, secret: Secret, secrets: &[&str], open: &[&str]) {
    let expected = expected(secret, secrets, open);
    let got: BTreeSet<String> = exactly(client, expected.len()).into_iter().collect();
    assert_eq!(got, expected, "{secret:?}");
}

#[test]
fn live() {
    each(&[], |ruled, first| {
        for version in [V5, V311, V31] {
            let mut reader = client(&ruled.broker, version, "reader");
            let mut admin = client(&ruled.broker, V5, "admin");
            reader.subscribe("#", 1);
            for (secret, text) in [(first, "1"), (first.other(), "2"), (first, "3")] {
                if secret != first || text == "3" {
                    ruled.change(secret);
                }
                for qos in [0, 1, 2] {
                    admin.say(&format!("secret/{}", name("l")), format!("s{text}"), qos);
                    admin.say("open/l", format!("o{text}"), qos);
                }
                let all = exactly(&mut reader, 3 + secret.of(3));
                assert_eq!(all.iter().filter(|got| **got == format!("o{text}")).count(), 3, "{secret:?}");
                assert_eq!(all.iter().filter(|got| **got == format!("s{text}")).count(), secret.of(3));
            }
        }
    });
}

#[test]
fn a_filter_that_is_denied_as_such_is_refused_and_one_that_overlaps_is_not() {
    each(&[], |ruled, first| {
        for secret in [first, first.other()] {
            ruled.change(secret);
            for version in [V5, V311] {
                let mut reader = client(&ruled.broker, version, "reader");
                let refused = if version == V5 { 0x87 } else { 0x80 };
                let as_such = if secret == Allowed { 1 } else { refused };
                let codes = reader.subscribe_all(
                    9,
                    &[],
                    &[("secret/a", 1), ("secret/#", 1), ("$share/g/secret/+", 1), ("+/a", 1), ("$SYS/x", 1)],
                );
                assert_eq!(codes, [as_such, as_such, as_such, 1, as_such], "{secret:?} {version:?}");
                // What was refused is not there.
                let mut admin = client(&ruled.broker, V5, "admin");
                admin.say("secret/b", "s", 1);
                admin.say("open/a", "o", 1);
                gets_at_least(&mut reader, secret, "s", "o");
            }
        }
    });
}

/// Shared and plain subscriptions may both deliver.
fn gets_at_least(client: &mut Client, secret: Secret, secret_text: &str, open_text: &str) {
    let count = 1 + secret.of(2);
    let texts = exactly(client, count);
    assert!(texts.contains(&open_text.to_owned()));
    assert_eq!(texts.contains(&secret_text.to_owned()), secret == Allowed);
}

#[test]
fn retained() {
    each(&[], |ruled, first| {
        let mut admin = client(&ruled.broker, V5, "admin");
        for text in ["1", "2", "3"] {
            admin.publish(&Publish::new(format!("secret/{text}"), format!("s{text}")).qos(1, 0).retain());
            admin.publish(&Publish::new(format!("open/{text}"), format!("o{text}")).qos(1, 0).retain());
        }
        for secret in [first, first.other(), first] {
            ruled.change(secret);
            for version in [V5, V311, V31] {
                let mut reader = client(&ruled.broker, version, "reader");
                reader.subscribe("#", 1);
                gets(&mut reader, secret, &["s1", "s2", "s3"], &["o1", "o2", "o3"]);
            }
        }
    });
}

#[test]
fn queued() {
    each(&[], |ruled, first| {
        for version in [V5, V311] {
            let away = || connect(version, "reader").persistent();
            let (steady, changed) = (away(), away());
            for connect in [&steady, &changed] {
                let mut reader = Client::accepted(&ruled.broker, connect);
                reader.subscribe("#", 2);
                reader.cut();
            }
            let mut admin = client(&ruled.broker, V5, "admin");
            for qos in [1, 2] {
                admin.say("secret/q", format!("s{qos}"), qos);
                admin.say("open/q", format!("o{qos}"), qos);
            }
            let resume = |broker: &Broker, connect: &Connect| {
                let (reader, connack) = Client::connect(broker, &connect.clone().resume());
                assert!(connack.code == 0 && (version != V5 || connack.session_present));
                reader
            };
            let mut reader = resume(&ruled.broker, &steady);
            gets(&mut reader, first, &["s1", "s2"], &["o1", "o2"]);
            // Queued while it was allowed, denied when it comes back; and what was never queued does not appear.
            ruled.change(first.other());
            let mut reader = resume(&ruled.broker, &changed);
            gets(&mut reader, Denied, &["s1", "s2"], &["o1", "o2"]);
            ruled.change(first);
        }
    });
}

/// A client that is connected has messages waiting because it acknowledges none.
#[test]
fn queued_for_a_connected_client() {
    each(&[], |ruled, first| {
        if first == Denied {
            return;
        }
        let slow = connect(V5, "reader").with(super::support::Property::ReceiveMaximum(1));
        let mut reader = Client::accepted(&ruled.broker, &slow);
        reader.subscribe("#", 1);
        let mut admin = client(&ruled.broker, V5, "admin");
        for text in ["first", "second", "third"] {
            admin.say("secret/c", text, 1);
        }
        admin.say("open/c", "open", 1);
        let one = reader.expect_publish();
        assert_eq!(one.text(), "first");
        ruled.change(Denied);
        reader.finish(&one);
        assert_eq!(exactly(&mut reader, 1), ["open"]);
    });
}

#[test]
fn shared() {
    const COUNT: usize = 24;
    each(&[], |ruled, first| {
        let id = name("g");
        let filter = format!("$share/{id}/+/{id}");
        let mut reader = client(&ruled.broker, V5, "reader");
        let mut helper = client(&ruled.broker, V311, "admin");
        let mut admin = client(&ruled.broker, V5, "admin");
        reader.subscribe(&filter, 1);
        helper.subscribe(&filter, 1);
        for secret in [first, first.other(), first] {
            ruled.change(secret);
            for tree in ["secret", "open"] {
                for _ in 0..COUNT {
                    admin.say(&format!("{tree}/{id}"), tree, 1);
                }
                let (to_reader, to_helper) = (all(&mut reader), all(&mut helper));
                assert_eq!(to_reader + to_helper, COUNT, "{tree}: each message to one member");
                let barred = tree == "secret" && secret == Denied;
                assert_eq!(to_reader == 0, barred, "{secret:?} {tree}: {to_reader} of {COUNT}");
            }
        }
        // With nobody left who may have it, a message is dropped; others go on.
        helper.disconnect();
        ruled.change(Denied);
        admin.say(&format!("secret/{id}"), "nobody", 1);
        admin.say(&format!("open/{id}"), "reader", 1);
        assert_eq!(exactly(&mut reader, 1), ["reader"]);
    });
}

/// How many messages there are now, each acknowledged.
fn all(client: &mut Client) -> usize {
    let mut count = 0;
    loop {
        match client.next(Duration::from_millis(150)) {
            Event::Packet(Packet::Publish(publish)) => {
                client.finish(&publish);
                count += 1;
            }
            Event::Nothing => return count,
            other => panic!("expected messages, got {other:?}"),
        }
    }
}

#[test]
fn will() {
    each(&[], |ruled, first| {
        let mut admin = client(&ruled.broker, V5, "admin");
        let id = name("w");
        admin.subscribe(&format!("+/{id}"), 1);
        for (secret, text) in [(first, "1"), (first.other(), "2")] {
            ruled.change(secret);
            for version in [V5, V311, V31] {
                let dies = |topic: String, text: String| {
                    let will = Will::new(topic, text).qos(1);
                    Client::accepted(&ruled.broker, &connect(version, "writer").will(will)).cut();
                };
                dies(format!("secret/{id}"), format!("s{text}"));
                dies(format!("open/{id}"), format!("o{text}"));
                gets(&mut admin, secret, &[&format!("s{text}")], &[&format!("o{text}")]);
            }
        }
    });
}

/// The rules that hold when it is published decide, not those of the CONNECT.
#[test]
fn will_after_a_change() {
    each(&[], |ruled, first| {
        let mut admin = client(&ruled.broker, V5, "admin");
        let id = name("w");
        admin.subscribe(&format!("+/{id}"), 1);
        let will = |topic: &str, text: &str| Will::new(format!("{topic}/{id}"), text).qos(1);
        let secret = Client::accepted(&ruled.broker, &connect(V5, "writer").will(will("secret", "s")));
        let open = Client::accepted(&ruled.broker, &connect(V5, "writer").will(will("open", "o")));
        ruled.change(first.other());
        secret.cut();
        open.cut();
        gets(&mut admin, first.other(), &["s"], &["o"]);
    });
}

#[test]
fn publish() {
    each(&[], |ruled, first| {
        let id = name("p");
        let mut admin = client(&ruled.broker, V5, "admin");
        admin.subscribe(&format!("+/{id}"), 2);
        let mut writers: Vec<Client> =
            [V5, V311, V31].map(|version| client(&ruled.broker, version, "writer")).into();
        for secret in [first, first.other(), first] {
            ruled.change(secret);
            for writer in &mut writers {
                for qos in [0, 1, 2] {
                    let code = writer.publish(&Publish::new(format!("secret/{id}"), "s").qos(qos, 0));
                    let says_so = secret == Denied && qos > 0 && writer.version == V5;
                    assert_eq!(code, if says_so { 0x87 } else { 0 }, "{secret:?} {:?} {qos}", writer.version);
                    writer.say(&format!("open/{id}"), "o", qos);
                    let mut texts = exactly(&mut admin, 1 + secret.of(1));
                    texts.sort();
                    assert_eq!(texts.join(""), if secret == Allowed { "os" } else { "o" });
                }
            }
        }
    });
}

#[test]
fn what_may_not_be_published_is_not_retained_either() {
    each(&[], |ruled, first| {
        let id = name("r");
        let mut writer = client(&ruled.broker, V5, "writer");
        for tree in ["secret", "open"] {
            writer.publish(&Publish::new(format!("{tree}/{id}"), tree).qos(1, 0).retain());
        }
        let mut admin = client(&ruled.broker, V5, "admin");
        admin.subscribe(&format!("+/{id}"), 1);
        gets(&mut admin, first, &["secret"], &["open"]);
    });
}

#[test]
fn sys() {
    each(&["--sys-interval", "1"], |ruled, first| {
        let subscribed = |ruled: &Ruled, secret: Secret, version: Version| {
            let mut reader = client(&ruled.broker, version, "reader");
            let codes = reader.subscribe_all(1, &[], &[("$SYS/broker/uptime", 0), ("$SYS/#", 0)]);
            let refused = if version == V5 { 0x87 } else { 0x80 };
            assert_eq!(codes, if secret == Allowed { [0, 0] } else { [refused, refused] });
            reader
        };
        let mut readers: Vec<Client> = [V5, V311].map(|version| subscribed(ruled, first, version)).into();
        let mut admin = client(&ruled.broker, V5, "admin");
        admin.subscribe("$SYS/broker/uptime", 0);
        assert!(admin.expect_publish().topic == "$SYS/broker/uptime", "there is something to see");
        for reader in &mut readers {
            assert_eq!(all_of_a_while(reader) > 0, first == Allowed);
        }
        ruled.change(first.other());
        for (reader, version) in readers.iter_mut().zip([V5, V311]) {
            let _ = all(reader); // what was on its way
            if first == Allowed {
                assert_eq!(all_of_a_while(reader), 0, "an older subscription has no more rights");
            }
            let mut new = subscribed(ruled, first.other(), version);
            assert_eq!(all_of_a_while(&mut new) > 0, first == Denied);
        }
        let code = admin.publish(&Publish::new("$SYS/broker/uptime", "0").qos(1, 0));
        assert_eq!(code, 0x87, "nobody publishes there");
    });
}

/// How many messages come in more than one interval of `$SYS`.
fn all_of_a_while(client: &mut Client) -> usize {
    let deadline = Instant::now() + Duration::from_millis(1500);
    let mut count = 0;
    loop {
        match client.next(deadline.saturating_duration_since(Instant::now())) {
            Event::Packet(Packet::Publish(_)) => count += 1,
            Event::Nothing => return count,
            other => panic!("expected messages, got {other:?}"),
        }
    }
}

/// A session keeps its subscriptions over a change, and its rights follow the rules at once.
#[test]
fn an_old_subscription_has_no_old_rights() {
    each(&[], |ruled, first| {
        if first == Denied {
            return;
        }
        let connect = Connect::new(V5, name("old")).user_name("reader").password(PASSWORD).persistent();
        let mut reader = Client::accepted(&ruled.broker, &connect);
        reader.subscribe("secret/only", 1);
        reader.subscribe("open/o", 1);
        let mut admin = client(&ruled.broker, V5, "admin");
        admin.say("secret/only", "before", 1);
        assert_eq!(exactly(&mut reader, 1), ["before"]);
        ruled.change(Denied);
        admin.say("secret/only", "meanwhile", 1);
        admin.say("open/o", "open", 1);
        assert_eq!(exactly(&mut reader, 1), ["open"]);
        ruled.change(Allowed);
        admin.say("secret/only", "after", 1);
        assert_eq!(exactly(&mut reader, 1), ["after"]);
    });
}
