//! SIGHUP reads the whole file again: limits, listeners, users; what needs a restart; and mistakes, which change nothing.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::place::{PASSWORD, Place, reload};
use super::support::{Broker, Client, Connect, Property, Publish, V5, name};

/// Shards, and the way to the kernel.
const WAYS: [(u16, &str); 4] = [(1, "uring"), (4, "uring"), (1, "epoll"), (4, "epoll")];

/// A file, and a broker that was started with it.
struct Running {
    place: Place,
    head: String,
    broker: Broker,
    file: String,
}

impl Running {
    fn start(
        users: &[&str],
        (shards, io): (u16, &str),
        rest: &str,
        more: &[&str],
        listeners: usize,
    ) -> Running {
        let place = Place::new(users);
        let head = format!("shards = {shards}\nno-pin = true\nio = \"{io}\"\nsys-interval = 1\n");
        let file = place.write("ringmq.toml", &format!("{head}{rest}"));
        let broker = Broker::start_with(&[&["--config", file.as_str()], more].concat(), listeners);
        Running { place, head, broker, file }
    }

    /// The line that the log has about another file.
    fn reload(&mut self, rest: &str) -> String {
        self.place.write("ringmq.toml", &format!("{}{rest}", self.head));
        reload(&mut self.broker)
    }

    fn at(&self, index: usize) -> Broker {
        Broker::at(self.broker.addresses()[index])
    }
}

fn listener(address: impl std::fmt::Display, keys: &str) -> String {
    format!("[[listener]]\naddress = \"{address}\"\n{keys}\n")
}

/// The addresses behind a word of a line, such as `listening-on="127.0.0.1:1, 127.0.0.2:2"`.
fn addresses(line: &str, word: &str) -> Vec<SocketAddr> {
    let rest = line.split(&format!(" {word}=")).nth(1).unwrap_or_else(|| panic!("no {word} in {line}"));
    let value = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => rest.split(' ').next(),
    };
    value.unwrap_or_default().split(", ").filter_map(|text| text.split(' ').next()?.parse().ok()).collect()
}

fn told(broker: &Broker) -> Vec<Property> {
    Client::connect(broker, &Connect::new(V5, name("t"))).1.properties
}

#[test]
fn a_listener_is_added_and_one_is_removed_whose_clients_stay() {
    for way in WAYS {
        let stays = listener("127.0.0.1:0", "");
        let both = stays.clone() + &listener("127.0.0.2:0", "");
        let mut running = Running::start(&[], way, &both, &[], 2);
        let [first, gone] = [0, 1].map(|at| running.at(at));
        let mut one = Client::fresh(&first, V5);
        let mut other = Client::fresh(&gone, V5);
        one.subscribe("from/#", 1);

        let said = running.reload(&(stays.clone() + &listener("127.0.0.3:0", "")));
        assert!(said.contains(" info reload "), "{said}");
        assert_eq!(addresses(&said, "closed"), [gone.address()], "{said}");
        assert!(said.contains("(1 clients stay)"), "{said}");
        let [added] = addresses(&said, "listening-on")[..] else { panic!("{said}") };
        let refused = TcpStream::connect(gone.address()).expect_err("nobody listens there");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        other.say("from/gone", "still here", 1);
        assert_eq!(one.expect_texts(1), ["still here"], "{way:?}");
        // As many as that come to every shard.
        let added = Broker::at(added);
        let mut new: Vec<Client> = (0..24).map(|_| Client::fresh(&added, V5)).collect();
        for client in &mut new {
            client.say("from/added", "new", 1);
            assert_eq!(one.expect_texts(1), ["new"], "{way:?}");
        }
        // The address is free for others, and comes back to us once they are gone.
        drop(Broker::start_with(&["--listen", &gone.address().to_string(), "--shards", "1", "--no-pin"], 1));
        let said = running.reload(&both);
        assert_eq!(addresses(&said, "closed"), [added.address()], "{said}");
        assert!(said.contains("(24 clients stay)"), "{said}");
        let [again] = addresses(&said, "listening-on")[..] else { panic!("{said}") };
        let mut again = Client::fresh(&Broker::at(again), V5);
        again.say("from/again", "back", 1);
        assert_eq!(one.expect_texts(1), ["back"], "{way:?}");
        let said = running.reload(&both);
        assert!(said.contains("no setting"), "{said}");
    }
}

#[test]
fn an_address_gives_way_to_one_that_covers_it() {
    for way in WAYS {
        let mut running = Running::start(&[], way, &listener("127.0.0.1:0", ""), &[], 1);
        let (narrow, port) = (running.at(0), running.broker.address().port());
        // With the port that was chosen, which is another address in the file.
        let said = running.reload(&listener(format!("127.0.0.1:{port}"), ""));
        assert!(said.contains(" error reload ") && said.contains("another ringmq"), "{said}");
        let mut client = Client::fresh(&narrow, V5);
        let wide = "allow-anonymous = true\nkeep-alive-max = 7";
        let said = running.reload(&listener(format!("0.0.0.0:{port}"), wide));
        assert!(said.contains(&format!("listening-on=0.0.0.0:{port}")), "{said}");
        assert_eq!(addresses(&said, "closed"), [narrow.address()], "{said}");
        // It is the wider one that serves the address from here on.
        assert!(told(&narrow).contains(&Property::ServerKeepAlive(7)), "{way:?}: {:?}", told(&narrow));
        let wide = Broker::at(SocketAddr::from(([127, 0, 0, 9], port)));
        let mut others: Vec<Client> = (0..8).map(|_| Client::fresh(&wide, V5)).collect();
        others.push(Client::fresh(&narrow, V5));
        client.subscribe("a", 1);
        others[0].say("a", "b", 1);
        assert_eq!(client.expect_texts(1), ["b"]);
    }
}

#[test]
fn limits_hold_for_new_clients_and_those_before_keep_what_they_were_told() {
    for (shards, io) in [(1, "uring"), (4, "epoll")] {
        let one = listener("127.0.0.1:0", "");
        let mut running = Running::start(&[], (shards, io), &one, &[], 1);
        let broker = running.at(0);
        let mut old: Vec<Client> = (0..8).map(|_| Client::fresh(&broker, V5)).collect();
        let away = Connect::new(V5, name("away")).persistent();
        let mut queue = Client::accepted(&broker, &away);
        queue.subscribe("q", 1);
        queue.cut();
        for _ in 0..10 {
            old[0].say("q", "before", 1);
        }
        // All of them are where they wait, on whatever shard that is.
        let mut watcher = Client::fresh(&broker, V5);
        watcher.subscribe("$SYS/broker/store/messages/count", 0);
        let deadline = Instant::now() + Duration::from_secs(30);
        while watcher.expect_texts(1) != ["10"] {
            assert!(Instant::now() < deadline, "ten messages wait");
        }
        let limits = "packet-size-max = \"1k\"\nconnect-packet-size-max = 900\ntopic-alias-max = 3\n\
                      receive-maximum = 2\nqueue-messages-max = 5\nsubscriptions-max = 1\n";
        let said = running.reload(&(limits.to_owned() + &one));
        for word in ["packet-size-max 8M -> 1k", "receive-maximum 1024 -> 2", "queue-messages-max 1000 -> 5"]
        {
            assert!(said.contains(word), "{word} is missing in {said}");
        }
        assert!(!said.contains("listeners-changed"), "{said}");
        let properties = told(&broker);
        for expected in
            [Property::MaximumPacketSize(1024), Property::TopicAliasMaximum(3), Property::ReceiveMaximum(2)]
        {
            assert!(properties.contains(&expected), "{expected:?} in {properties:?}");
        }
        let large = vec![b'x'; 2000];
        for client in &mut old {
            // Told that packets have 8 MiB, and aliases go up to 64.
            assert_eq!(client.publish(&Publish::new("large", &large).qos(1, 0)), 0x10, "{io}");
            client.send_publish(&Publish::new("alias", "x").with(Property::TopicAlias(60)));
            client.send_publish(&Publish::new("", "x").with(Property::TopicAlias(60)));
            let open: Vec<u8> =
                (1..=9).flat_map(|id| Publish::new("open", "x").qos(2, id).bytes(V5)).collect();
            client.send(open);
            (1..=9).for_each(|id| drop(client.expect_ack(0x50, id)));
            client.ping();
        }
        let mut new = Client::fresh(&broker, V5);
        new.send_publish(&Publish::new("large", &large));
        new.expect_refused(&[0x95]);
        let mut new = Client::fresh(&broker, V5);
        new.send_publish(&Publish::new("alias", "x").with(Property::TopicAlias(60)));
        new.expect_refused(&[0x94]);
        let mut new = Client::fresh(&broker, V5);
        new.send((1..=3).flat_map(|id| Publish::new("open", "x").qos(2, id).bytes(V5)).collect::<Vec<u8>>());
        (1..=2).for_each(|id| drop(new.expect_ack(0x50, id)));
        new.expect_refused(&[0x93]);
        let mut new = Client::fresh(&broker, V5);
        new.subscribe("one", 0);
        assert_eq!(new.subscribe_all(7, &[], &[("two", 0)]), [0x97]);
        // What was acknowledged under the limits before is there, and nothing came on top.
        old[0].say("q", "after", 1);
        // It has come to the shard of its queue when what is retained behind it is acknowledged.
        assert!(old[0].publish(&Publish::new(name("fence"), "x").retain().qos(1, 0)) < 0x80);
        let mut queue = Client::accepted(&broker, &away.resume());
        assert_eq!(queue.expect_texts(10), vec!["before"; 10]);
        queue.expect_quiet();

        // And back again, which those who were told less do not notice.
        let mut told_less = Client::fresh(&broker, V5);
        running.reload(&one);
        assert!(!told(&broker).contains(&Property::MaximumPacketSize(1024)));
        told_less.send_publish(&Publish::new("large", &large));
        told_less.expect_refused(&[0x95]);
    }
}

#[test]
fn a_mistake_changes_nothing_and_has_its_place() {
    let one = listener("127.0.0.1:0", "");
    let mut running = Running::start(&["alice"], (2, "uring"), &one, &[], 1);
    let broker = running.at(0);
    let mut client = Client::fresh(&broker, V5);
    let good = "packet-size-max = \"1k\"\nreceive-maximum = 2\nlog-level = \"error\"\n";
    let bad = [
        ("packet-size-maks = 1\n".to_owned() + &one, ":8:1: ", "did you mean \"packet-size-max\"?"),
        ("sys-interval = 3\n".to_owned() + &one, ":8:1: ", "duplicate"),
        ("retained-messages-max = -1\n".to_owned() + &one, ":8:25: ", "0 or more"),
        (one.clone() + &listener("127.0.0.1:1", "packet-size-max = 1"), ":13:1: ", "between 128"),
        (
            one.clone() + &listener("192.0.2.1:1883", "allow-anonymous = true"),
            ":11:1: ",
            "does not have this address",
        ),
        (one.clone() + &listener("0.0.0.0:0", ""), ":11:1: ", "allow-anonymous = true"),
        (one.clone() + &listener("127.0.0.2:0", "cert = \"none.pem\""), "none.pem", "No such file"),
        ("acl-file = \"none\"\n".to_owned() + &one, "none", "No such file"),
        ("= 1".to_owned(), ":8:1: ", ""),
    ];
    for (text, place, what) in bad {
        let said = running.reload(&format!("{good}{text}")).replace("\\\"", "\"");
        assert!(said.contains(" error reload "), "{text}: {said}");
        assert!(said.contains(place) && said.contains(what), "{text}: {said}");
        let properties = told(&broker);
        assert!(!properties.contains(&Property::MaximumPacketSize(1024)), "{text}: {properties:?}");
        client.ping();
    }
    std::fs::remove_file(&running.file).unwrap();
    let said = reload(&mut running.broker);
    assert!(said.contains(&running.file) && said.contains("No such file"), "{said}");
    let said = running.reload(&format!("{good}{one}"));
    assert!(said.contains("log-level info -> error") && said.contains("packet-size-max 8M -> 1k"), "{said}");
    assert!(told(&broker).contains(&Property::MaximumPacketSize(1024)));
    let said = running.broker.stderr();
    assert!(
        said.lines().last().is_some_and(|line| line.contains("reload")),
        "nobody is told of clients: {said}"
    );
}

#[test]
fn what_needs_a_restart_is_named_and_the_rest_holds() {
    let one = listener("127.0.0.1:0", "");
    let mut running = Running::start(&[], (1, "uring"), &one, &["--receive-maximum", "7"], 1);
    running.head = "shards = 2\nno-pin = true\nio = \"epoll\"\nsys-interval = 1\n".to_owned();
    for _ in 0..2 {
        let said = running.reload(&format!(
            "packet-size-max = \"1k\"\nreceive-maximum = 9\nconnections-max = 4000000000\n{one}"
        ));
        assert!(said.contains(" warn reload "), "{said}");
        assert!(said.contains("shards 1 -> 2 needs a restart"), "{said}");
        // Not where the command line says which way.
        if std::env::var("BROKER_FLAGS").is_err() {
            assert!(said.contains("io uring -> epoll needs a restart"), "{said}");
        }
        assert!(said.contains("connections-max not set -> 4000000000 needs a restart"), "{said}");
        let properties = told(&running.at(0));
        assert!(properties.contains(&Property::MaximumPacketSize(1024)), "{properties:?}");
        // The command line holds, whatever the file says.
        assert!(
            properties.contains(&Property::ReceiveMaximum(7)) && !said.contains("receive-maximum"),
            "{said}"
        );
    }
}

#[test]
fn users_and_rules_come_and_go_with_the_file() {
    for way in [(1, "epoll"), (4, "uring")] {
        let one = listener("127.0.0.1:0", "");
        let mut running = Running::start(&["alice", "bob"], way, &one, &[], 1);
        let broker = running.at(0);
        let mut anonymous = Client::fresh(&broker, V5);
        anonymous.subscribe("#", 1);
        running
            .place
            .write_rules("topic read open/#\nuser carol\ntopic read open/#\nuser alice\ntopic readwrite #\n");
        let said = running.reload(&format!("password-file = \"users\"\nacl-file = \"rules\"\n{one}"));
        assert!(said.contains("users=2") && said.contains("acl-files=1"), "{said}");
        assert!(said.contains(&format!("listeners-changed={}", broker.address())), "{said}");
        let code = |connect: Connect| Client::connect(&broker, &connect).1.code;
        assert_eq!(code(Connect::new(V5, name("x"))), 0x87);
        let alice = || Connect::new(V5, name("a")).user_name("alice").password(PASSWORD);
        assert_eq!(code(alice().password("wrong")), 0x86);
        let mut admin = Client::accepted(&broker, &alice());
        // Rules hold at once, for those too who came before them.
        admin.say("secret", "no", 1);
        admin.say("open/1", "yes", 1);
        assert_eq!(anonymous.expect_texts(1), ["yes"]);

        // Another file of users at an address of its own.
        let others = running.place.write("others", &super::place::users(&["carol"]));
        let two = format!(
            "password-file = \"users\"\nacl-file = \"rules\"\n{}{}",
            listener("127.0.0.2:0", &format!("password-file = \"{others}\"")),
            one
        );
        let said = running.reload(&two);
        assert!(said.contains("users=3") && !said.contains("listeners-changed"), "{said}");
        let [added] = addresses(&said, "listening-on")[..] else { panic!("{said}") };
        let added = Broker::at(added);
        let carol = || Connect::new(V5, name("c")).user_name("carol").password(PASSWORD);
        for _ in 0..2 {
            // The second time it is known who they are, at one listener and not at the other.
            assert_eq!(Client::connect(&added, &carol()).1.code, 0);
            assert_eq!(Client::connect(&added, &alice()).1.code, 0x86);
            assert_eq!((code(alice()), code(carol())), (0, 0x86));
        }
        let mut carol = Client::accepted(&added, &carol());
        carol.subscribe("open/#", 1);
        // Its listener goes; what it may do stays, as the file has it.
        running
            .place
            .write_rules("topic read open/2\nuser carol\ntopic read open/2\nuser alice\ntopic readwrite #\n");
        let said = running.reload(&format!("password-file = \"users\"\nacl-file = \"rules\"\n{one}"));
        assert_eq!(addresses(&said, "closed"), [added.address()], "{said}");
        admin.say("open/1", "no more", 1);
        admin.say("open/2", "still", 1);
        assert_eq!(carol.expect_texts(1), ["still"], "{way:?}");
        let denied = carol.publish(&Publish::new("open/2", "x").qos(1, 0));
        assert_eq!(denied, 0x87);

        // And without users again.
        running.reload(&one);
        assert_eq!(code(Connect::new(V5, name("x"))), 0);
        let denied = carol.publish(&Publish::new("open/2", "x").qos(1, 0));
        assert_eq!(denied, 0x87, "the rules under which it came in hold on");
        admin.say("anything", "all", 1);
        assert_eq!(anonymous.expect_texts(2), ["still", "all"]);
    }
}

#[test]
fn a_listener_that_gets_a_limit_counts_who_is_there_already() {
    let one = |keys: &str| listener("127.0.0.1:0", keys);
    let mut running = Running::start(&[], (2, "uring"), &one(""), &[], 1);
    let broker = running.at(0);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::fresh(&broker, V5)).collect();
    let said = running.reload(&one("connections-max = 3"));
    assert!(said.contains("listeners-changed="), "{said}");
    let is_accepted = || {
        let mut client = Client::open(&broker, V5);
        client.try_send(Connect::new(V5, name("x")).bytes()).is_ok()
            && matches!(client.next(Duration::from_secs(10)), super::support::Event::Packet(_))
    };
    assert!(!is_accepted(), "there are three");
    clients.iter_mut().for_each(Client::ping);
    drop(clients);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_accepted() {
        assert!(Instant::now() < deadline, "three are gone");
    }
}
