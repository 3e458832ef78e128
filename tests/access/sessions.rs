//! A session belongs to the user that began it.

use super::place::{PASSWORD, Place, client, reload};
use super::support::{Client, Connect, V5, V31, V311, name};

#[test]
fn nobody_else_takes_over_resumes_or_discards_a_session() {
    let place = Place::new(&["alice", "mallory"]);
    for shards in [1, 4] {
        let broker = place.broker(shards, None, &["--allow-anonymous"]);
        for version in [V5, V311, V31] {
            let id = name("mine");
            let as_user =
                |user: &str| Connect::new(version, &id).user_name(user).password(PASSWORD).persistent();
            let refused = if version == V5 { 0x87 } else { 5 };
            let mut alice = Client::accepted(&broker, &as_user("alice").resume());
            alice.subscribe("secret", 1);
            let intruders = || {
                let mut clean = Connect::new(version, &id).user_name("mallory").password(PASSWORD);
                clean.clean = true;
                let mut anonymous = Connect::new(version, &id);
                anonymous.clean = true;
                [as_user("mallory").resume(), clean, anonymous]
            };
            // While it is connected.
            for intruder in intruders() {
                assert_eq!(Client::connect(&broker, &intruder).1.code, refused);
            }
            let mut publisher = client(&broker, V5, "mallory");
            publisher.say("secret", "live", 1);
            assert_eq!(alice.expect_texts(1), ["live"], "{version:?}: she was not taken over");
            // While it is not.
            alice.cut();
            for intruder in intruders() {
                assert_eq!(Client::connect(&broker, &intruder).1.code, refused);
            }
            publisher.say("secret", "queued", 1);
            let (mut alice, connack) = Client::connect(&broker, &as_user("alice").resume());
            assert_eq!(connack.code, 0);
            assert_eq!(alice.expect_texts(1), ["queued"], "{version:?}: nothing of it was taken or lost");
            // Once it has ended, the name is free.
            alice.disconnect();
            let mut end = as_user("alice");
            end.clean = true;
            end.properties.clear();
            Client::accepted(&broker, &end).disconnect();
            Client::accepted(&broker, &as_user("mallory")).ping();
        }
    }
}

/// A device that has a new user name gets its old Client Identifier, by Clean Start, once the old name is in no file.
#[test]
fn a_session_whose_owner_is_in_no_file_may_be_replaced_by_clean_start_alone() {
    for shards in [1, 4] {
        for version in [V5, V311, V31] {
            let place = Place::new(&["old", "new"]);
            let mut broker = place.broker(shards, None, &[]);
            let id = name("device");
            let as_user = |user: &str, clean: bool| {
                let mut connect = Connect::new(version, &id).user_name(user).password(PASSWORD).persistent();
                connect.clean = clean;
                connect
            };
            let refused = if version == V5 { 0x87 } else { 5 };
            let mut old = Client::accepted(&broker, &as_user("old", false));
            old.subscribe("secret", 1);
            old.cut();
            assert_eq!(Client::connect(&broker, &as_user("new", true)).1.code, refused, "the owner is there");
            let logged = |text: &str| text.contains("user=new") && text.contains("owner=old");
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
            while !logged(&broker.stderr()) {
                assert!(std::time::Instant::now() < deadline, "no line with both:\n{}", broker.stderr());
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            place.write_users(&["new"]);
            reload(&mut broker);
            assert_eq!(
                Client::connect(&broker, &as_user("new", false)).1.code,
                refused,
                "nothing is inherited"
            );
            let (mut new, connack) = Client::connect(&broker, &as_user("new", true));
            assert!(connack.code == 0 && !connack.session_present);
            client(&broker, V5, "new").say("secret", "not for it", 1);
            new.subscribe("open", 1);
            client(&broker, V5, "new").say("open", "for it", 1);
            assert_eq!(new.expect_texts(1), ["for it"]);
        }
    }
}

#[test]
fn the_owner_takes_over_as_ever() {
    let place = Place::new(&["alice"]);
    let broker = place.broker(4, None, &[]);
    for version in [V5, V311] {
        let connect = Connect::new(version, name("own")).user_name("alice").password(PASSWORD).persistent();
        let mut old = Client::accepted(&broker, &connect);
        old.subscribe("t", 1);
        let (mut new, connack) = Client::connect(&broker, &connect.clone().resume());
        assert!(connack.code == 0 && connack.session_present);
        old.expect_refused(&[0x8E]);
        client(&broker, V5, "alice").say("t", "to the new one", 1);
        assert_eq!(new.expect_texts(1), ["to the new one"]);
    }
}
