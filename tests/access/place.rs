//! A directory with a file of users and a file of rules, and brokers that read them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use super::support::{Broker, Client, Connect, Version, name};

/// Every user's password, and its hash as mosquitto writes it: quick, since most tests are not about hashing.
pub const PASSWORD: &str = "swordfish";
const HASH: &str = "$6$AAECAwQFBgcICQoL$Y4WPO0ICbkFB25Sxdu2LoRRrxHn+5vSWhC2EUmSYoLLtUV8GIc4CVeWWuvFv5IE5M6bpTbvMD7qDxLQrWa4e8Q==";

/// A file of users with [`PASSWORD`].
pub fn users(users: &[&str]) -> String {
    users.iter().map(|user| format!("{user}:{HASH}\n")).collect()
}

/// The files; gone when this is dropped.
pub struct Place {
    directory: PathBuf,
}

impl Place {
    /// Users with [`PASSWORD`].
    pub fn new(users: &[&str]) -> Place {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("access-{}-{count}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory for files");
        let place = Place { directory };
        place.write_users(users);
        place
    }

    pub fn users(&self) -> String {
        self.file("users")
    }

    pub fn rules(&self) -> String {
        self.file("rules")
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).to_str().expect("a path in UTF-8").to_owned()
    }

    pub fn write_users(&self, users: &[&str]) {
        fs::write(self.users(), self::users(users)).expect("users are written");
    }

    /// Writes any other file and returns its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.file(name), text).expect("a file is written");
        self.file(name)
    }

    pub fn write_rules(&self, rules: &str) {
        fs::write(self.rules(), rules).expect("rules are written");
    }

    /// A broker with these users, with these rules if there are any.
    pub fn broker(&self, shards: u16, rules: Option<&str>, more: &[&str]) -> Broker {
        let (users, file) = (self.users(), self.rules());
        let mut arguments = vec!["--password-file", &users];
        if let Some(rules) = rules {
            self.write_rules(rules);
            arguments.extend(["--acl-file", &file]);
        }
        arguments.extend(more);
        Broker::start(shards, &arguments)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Sends SIGHUP and waits until the broker says what it did. Returns that line.
pub fn reload(broker: &mut Broker) -> String {
    let lines = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.contains(" reload ")).map(String::from).collect()
    };
    let before = lines(&broker.stderr()).len();
    broker.process().signal("HUP");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut said = lines(&broker.stderr());
        if said.len() > before {
            return said.remove(before);
        }
        assert!(Instant::now() < deadline, "no word about a reload:\n{}", broker.stderr());
        thread::sleep(Duration::from_millis(5));
    }
}

/// A CONNECT of this user, with a Client Identifier of its own.
pub fn connect(version: Version, user: &str) -> Connect {
    Connect::new(version, name(user)).user_name(user).password(PASSWORD)
}

/// A connection of this user.
pub fn client(broker: &Broker, version: Version, user: &str) -> Client {
    Client::accepted(broker, &connect(version, user))
}
