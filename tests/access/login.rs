//! Who is let in.

use std::time::{Duration, Instant};

use super::place::{PASSWORD, Place, client, connect, reload};
use super::support::{Client, Connect, V5, V31, V311, name};

/// CONNACK: bad user name or password, not authorised, Client Identifier not valid; v5 and 3.x.
const WRONG: [u8; 2] = [0x86, 4];
const DENIED: [u8; 2] = [0x87, 5];
const IDENTIFIER: [u8; 2] = [0x85, 2];

fn code(connack_of: &Connect, broker: &super::support::Broker) -> u8 {
    Client::connect(broker, connack_of).1.code
}

#[test]
fn the_password_decides_in_every_version() {
    let place = Place::new(&["alice", "bob"]);
    for shards in [1, 4] {
        let broker = place.broker(shards, None, &[]);
        for version in [V5, V311, V31] {
            let wrong = WRONG[usize::from(version != V5)];
            let denied = DENIED[usize::from(version != V5)];
            client(&broker, version, "alice").ping();
            assert_eq!(code(&connect(version, "alice").password("Swordfish"), &broker), wrong);
            assert_eq!(code(&connect(version, "nobody"), &broker), wrong);
            assert_eq!(code(&Connect::new(version, name("x")), &broker), denied, "anonymous, {version:?}");
        }
    }
}

#[test]
fn a_name_without_password_is_refused() {
    let place = Place::new(&["alice"]);
    let broker = place.broker(1, None, &[]);
    assert_eq!(code(&Connect::new(V5, name("x")).user_name("alice"), &broker), WRONG[0]);
    assert_eq!(code(&Connect::new(V5, name("x")).user_name("alice").password(""), &broker), WRONG[0]);
    assert_eq!(
        code(&Connect::new(V5, name("x")).password(PASSWORD), &broker),
        DENIED[0],
        "no name: anonymous"
    );
}

#[test]
fn anonymous_clients_come_in_where_they_are_let_in_and_wrong_passwords_nowhere() {
    let place = Place::new(&["alice"]);
    let broker = place.broker(4, None, &["--allow-anonymous"]);
    for version in [V5, V311, V31] {
        assert_eq!(code(&Connect::new(version, name("x")), &broker), 0);
        let wrong = WRONG[usize::from(version != V5)];
        assert_eq!(code(&connect(version, "alice").password("guess"), &broker), wrong);
        client(&broker, version, "alice").ping();
    }
}

#[test]
fn without_a_file_of_users_names_mean_nothing() {
    let broker = super::support::Broker::start(4, &[]);
    let id = name("same");
    let connect = Connect::new(V5, &id).user_name("whoever").password("whatever").persistent();
    Client::accepted(&broker, &connect).disconnect();
    let (_, connack) = Client::connect(&broker, &Connect::new(V5, &id).persistent().resume());
    assert_eq!((connack.code, connack.session_present), (0, true), "both are anonymous");
}

#[test]
fn client_identifiers_may_be_tied_to_the_user_name() {
    let place = Place::new(&["alice"]);
    for (rule, good, bad) in
        [("user-name", "alice", "alice2"), ("begin-with-user-name", "alice-phone", "phone-alice")]
    {
        let broker = place.broker(4, None, &["--client-ids", rule]);
        for version in [V5, V311] {
            let with_id = |id: &str| Connect::new(version, id).user_name("alice").password(PASSWORD);
            assert_eq!(code(&with_id(good), &broker), 0, "{rule} {good}");
            let refused = IDENTIFIER[usize::from(version != V5)];
            assert_eq!(code(&with_id(bad), &broker), refused, "{rule} {bad}");
        }
    }
}

/// Devices with an old password try it again and again. They do not keep good ones out behind the same address, not even
/// those that use the same name, while guesses at one user are slowed.
#[test]
fn devices_with_an_old_password_keep_nobody_else_out() {
    let names: Vec<String> = (0..40).map(|at| format!("good-{at}")).collect();
    let mut users: Vec<&str> = names.iter().map(String::as_str).collect();
    users.extend(["old-0", "old-1", "old-2", "old-3", "shared"]);
    let place = Place::new(&users);
    for shards in [1, 4] {
        let broker = place.broker(shards, None, &["--log-level", "error"]);
        let waiting: Vec<Client> = (0..60)
            .map(|at| {
                let user = ["old-0", "old-1", "old-2", "old-3", "shared"][at % 5];
                let mut client = Client::open(&broker, V5);
                client.send_connect(&connect(V5, user).password("the old one"));
                client
            })
            .collect();
        // Every one at its first try; "shared" too, though others fail with that name.
        for user in names.iter().map(String::as_str).chain(["shared"]) {
            client(&broker, V311, user).ping();
        }
        let codes: Vec<u8> = waiting.into_iter().map(|mut client| client.expect_connack().code).collect();
        assert!(codes.iter().all(|code| *code == 0x86), "{codes:02x?}");
    }
}

/// The fifth failure of a user at an address and those after it are told late, and meanwhile no other password of that
/// user is looked at that was not verified before.
#[test]
fn guesses_at_a_user_are_slowed() {
    let place = Place::new(&["alice", "bob"]);
    let broker = place.broker(4, None, &[]);
    client(&broker, V5, "alice").ping();
    let start = Instant::now();
    let codes: Vec<u8> =
        (0..8).map(|at| code(&connect(V5, "alice").password(format!("guess {at}")), &broker)).collect();
    assert_eq!(codes, [0x86; 8], "one after the other each is heard, after its wait");
    assert!(start.elapsed() >= Duration::from_millis(100 + 200 + 400 + 800), "{:?}", start.elapsed());

    // Of many at once the first one is hashed and held back; those behind it are not looked at.
    let storm: Vec<Client> = (0..20)
        .map(|at| {
            let mut client = Client::open(&broker, if at % 2 == 0 { V5 } else { V311 });
            client.send_connect(&connect(client.version, "bob").password(format!("guess {at}")));
            client
        })
        .collect();
    client(&broker, V5, "alice").ping(); // was verified before
    let answers: Vec<u8> = storm.into_iter().map(|mut client| client.expect_connack().code).collect();
    assert!(answers.iter().all(|code| [0x86, 0x9F, 4, 3].contains(code)), "{answers:02x?}");
    let unheard = answers.iter().filter(|code| [0x9F, 3].contains(code)).count();
    assert!(unheard >= 10, "{answers:02x?}");
}

#[test]
fn a_reload_of_users_keeps_clients_and_forgets_old_passwords_at_once() {
    let place = Place::new(&["alice", "bob"]);
    for shards in [1, 4] {
        place.write_users(&["alice", "bob"]);
        let mut broker = place.broker(shards, None, &[]);
        let mut alice = client(&broker, V5, "alice");
        alice.subscribe("t", 1);
        place.write_users(&["bob", "carol"]);
        assert!(reload(&mut broker).contains("SIGHUP"));
        assert_eq!(code(&connect(V5, "alice"), &broker), WRONG[0], "what was verified before is forgotten");
        client(&broker, V311, "carol").say("t", "still here", 1);
        assert_eq!(alice.expect_texts(1), ["still here"]);
    }
}

#[test]
fn a_file_that_is_wrong_refuses_the_start_and_leaves_a_running_broker_as_it_was() {
    let place = Place::new(&["alice"]);
    let mut broker = place.broker(4, Some("user alice\ntopic readwrite a\n"), &[]);
    let mut alice = client(&broker, V5, "alice");
    // Users are new, rules are wrong: neither takes effect.
    place.write_users(&["bob"]);
    place.write_rules("user alice\ntopic readwrote b\n");
    let said = reload(&mut broker);
    assert!(said.contains("line 2") && said.contains("rules"), "{said}");
    assert_eq!(code(&connect(V5, "bob"), &broker), WRONG[0]);
    client(&broker, V5, "alice").subscribe("a", 0);
    alice.subscribe("a", 0);

    for (users, rules) in [(place.users(), place.rules()), (place.users() + ".none", String::new())] {
        let mut arguments =
            vec!["--listen", "127.0.0.1:0", "--shards", "1", "--no-pin", "--password-file", &users];
        if !rules.is_empty() {
            arguments.extend(["--acl-file", &rules]);
        }
        let mut refused = super::support::broker::Process::spawn(&arguments);
        assert_eq!(refused.exit_code(), 78, "{}", refused.stderr());
    }
}

#[test]
fn the_log_says_who_a_client_was_found_to_be() {
    let place = Place::new(&["alice"]);
    let broker = place.broker(2, None, &["--allow-anonymous"]);
    client(&broker, V5, "alice").disconnect();
    Client::accepted(&broker, &Connect::new(V5, "nobody")).disconnect();
    std::thread::sleep(std::time::Duration::from_millis(100)); // it is written by a thread of its own
    let log = broker.stderr();
    for (kind, who) in [("connect", "user=alice"), ("disconnect", "user=alice")] {
        let line = log.lines().find(|line| line.contains(&format!(" {kind} ")) && line.contains(who));
        assert!(line.is_some(), "no {kind} with {who} in\n{log}");
    }
    assert_eq!(log.matches("client=nobody user=\"\"").count(), 2, "{log}");
    // Where there are no users, a name is a claim.
    let open = super::support::Broker::start(1, &[]);
    Client::accepted(&open, &Connect::new(V5, "claims").user_name("admin")).disconnect();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(!open.stderr().contains("admin"), "{}", open.stderr());
}

#[test]
fn secrets_are_in_no_line_of_the_log() {
    let place = Place::new(&["alice"]);
    let mut broker = place.broker(4, None, &["--log-level", "debug"]);
    client(&broker, V5, "alice").disconnect();
    let _ = code(&connect(V5, "alice").password("correct horse"), &broker);
    let _ = code(&connect(V5, "ev\u{1b}[31mil\nconnect user=root").password("correct horse"), &broker);
    reload(&mut broker);
    let log = broker.stderr();
    for secret in [PASSWORD, "correct horse", "$6$", "Y4WPO0"] {
        assert!(!log.contains(secret), "{secret} in\n{log}");
    }
    assert!(!log.contains('\u{1b}'), "an escape sequence in\n{log}");
}
