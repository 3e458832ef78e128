//! Command lines, and what becomes of them.

use super::size::Size;
use super::*;
use crate::limits::QueueFull;
use crate::memory::Class;

fn machine() -> Machine {
    Machine {
        cpus_online: vec![0, 1, 2, 3],
        cpu_quota: None,
        ram: 16 << 30,
        memory_max: None,
        has_ipv6: true,
    }
}

fn parse_on(line: &str, machine: &Machine) -> Result<Config, ConfigError> {
    let args: Vec<String> =
        std::iter::once("ringmq").chain(line.split_whitespace()).map(String::from).collect();
    Config::parse(&args, machine, &[0, 1, 2, 3])
}

pub fn parse(line: &str) -> Config {
    parse_on(line, &machine()).unwrap()
}

pub fn refused(line: &str) -> String {
    let error = parse_on(line, &machine()).unwrap_err();
    assert_eq!(error.exit_code(), exit::USAGE, "{line}");
    error.to_string()
}

#[test]
fn the_flags_are_consistent() {
    use clap::CommandFactory;
    Flags::command().debug_assert();
}

#[test]
fn without_flags_the_limits_are_the_defaults() {
    let config = parse("");
    let expected = Limits { memory_max: 12 << 30, ..Limits::default() };
    assert_eq!(config.limits, expected);
    assert_eq!(config.addresses(), ["127.0.0.1:1883".parse().unwrap(), "[::1]:1883".parse().unwrap()]);
    assert_eq!(config.placement, [Some(0), Some(1), Some(2), Some(3)]);
    assert_eq!((config.sys_interval_ms, config.shutdown_timeout_ms), (10_000, 5000));
    assert_eq!(config.network_hint, "ringmq --listen :1883 --allow-anonymous");
    assert!(!config.connections_asked);
}

#[test]
fn every_limit_is_a_flag() {
    let config = parse(
        "--connections-max 1 --packet-size-max 1M --connect-packet-size-max 2k --connect-timeout 3 \
         --receive-maximum 4 --send-maximum 5 --topic-alias-max 6 --topic-levels-max 7 \
         --properties-max 9 --subscriptions-max 10 --queue-messages-max 11 --queue-bytes-max 12G \
         --queue-full disconnect --share-wait 41 --send-buffer-max 13k --retained-messages-max 14 --retained-bytes-max 15m \
         --session-expiry-max 16 --keep-alive-max 17 --memory-max 18M",
    );
    let expected = Limits {
        connections_max: 1,
        packet_size_max: 1 << 20,
        connect_packet_size_max: 2048,
        connect_timeout_ms: 3000,
        receive_maximum: 4,
        send_maximum: 5,
        topic_alias_max: 6,
        topic_levels_max: 7,
        properties_max: 9,
        subscriptions_max: 10,
        queue_messages_max: 11,
        queue_bytes_max: 12 << 30,
        queue_full: QueueFull::Disconnect,
        share_wait_ms: 41_000,
        send_buffer_bytes_max: 13 << 10,
        send_burst_bytes_max: 0,
        retained_messages_max: 14,
        retained_bytes_max: 15 << 20,
        session_expiry_max_s: 16,
        keep_alive_max_s: 17,
        memory_max: 18 << 20,
    };
    assert_eq!(config.limits, expected);
    assert!(config.connections_asked);
    assert_eq!(parse("").cached_topics_max, 65_536);
    assert_eq!(parse("--cached-topics-max 19").cached_topics_max, 19);
}

#[test]
fn shards_and_where_they_run() {
    assert_eq!(parse("--cores 0").placement, [Some(0)]);
    assert_eq!(parse("--cores 3,1-2").placement, [Some(1), Some(2), Some(3)]);
    assert_eq!(parse("--cores 0-1 --shards 4").placement, [Some(0), Some(1), Some(0), Some(1)]);
    assert_eq!(parse("--shards 16").placement[5], Some(1));
    assert_eq!(parse("--shards 2").placement, [None, None], "fewer than CPUs: no reason for these two");
    assert_eq!(parse("--cores 0-1 --no-pin").placement, [None, None]);
    let quota = |cpus| Machine { cpu_quota: Some(cpus), ..machine() };
    assert_eq!(parse_on("", &quota(2.5)).unwrap().placement, [None, None]);
    assert_eq!(parse_on("", &quota(0.1)).unwrap().placement, [None]);
    assert_eq!(parse_on("", &quota(64.0)).unwrap().placement.len(), 4);
}

#[test]
fn the_network_is_opened_only_on_purpose() {
    let error = refused("--listen 0.0.0.0:1883 --shards 2");
    assert!(error.ends_with("ringmq --listen 0.0.0.0:1883 --shards 2 --allow-anonymous"), "{error}");
    assert!(refused("--listen 127.0.0.1:1 --listen [::]:1883").contains("[::]:1883"));
    let config = parse("--listen 0.0.0.0:1883 --listen [::1]:1884 --allow-anonymous");
    assert_eq!((config.listeners.len(), config.network_hint.as_str()), (2, ""));
    assert!(
        parse("--listen 127.9.9.9:0 --listen [::1]:0 --listen [::1]:0")
            .network_hint
            .contains("--listen :1883")
    );
}

#[test]
fn what_is_wrong_is_named() {
    for (line, word) in [
        ("--cores 4", "0-3"),
        ("--cores x", "--cores"),
        ("--shards 0", "--shards"),
        ("--shards 129", "--shards"),
        ("--listen local:1883", "getent hosts local"),
        ("--listen :1883 --listen 127.0.0.1:1883 --allow-anonymous", "remove --listen 127.0.0.1:1883"),
        ("--listen localhost:1883 --listen [::1]:1883", "twice"),
        ("--keep-alive-max 1500ms", "whole number of seconds"),
        ("--session-expiry-max 1y", "unit of time"),
        ("--listen 127.0.0.1:1 --listen 127.0.0.1:1", "twice"),
        ("--listen 127.0.0.1:1 --listen 0.0.0.0:1 --allow-anonymous", "remove --listen 127.0.0.1:1"),
        ("--packet-size-max 300M", "--packet-size-max"),
        ("--packet-size-max 1x", "suffix"),
        ("--packet-size-max -1", "-1"),
        ("--queue-bytes-max 99999999999G", "too large"),
        ("--memory-max 1k", "16M"),
        ("--receive-maximum 0", "receive-maximum"),
        ("--connect-timeout 0", "connect-timeout"),
        ("--no-such-flag", "--no-such-flag"),
        ("--tls-listen 127.0.0.1:8883 --tls-cert c", "--tls-key"),
        ("--tls-cert c --tls-key k", "--tls-listen"),
        (
            "--tls-listen 127.0.0.1:8883 --tls-cert c --tls-key k --tls-client-cert required",
            "--tls-client-ca",
        ),
        (
            "--tls-listen 127.0.0.1:8883 --tls-cert c --tls-key k --tls-client-ca a --tls-client-cert none",
            "no effect",
        ),
        ("--listen 127.0.0.1:8883 --tls-listen 127.0.0.1:8883 --tls-cert c --tls-key k", "twice"),
    ] {
        let error = refused(line);
        assert!(error.contains(word), "{line}: {error}");
    }
}

#[test]
fn help_and_version_are_no_failures() {
    for line in ["--help", "-h", "--version"] {
        let error = parse_on(line, &machine()).unwrap_err();
        assert_eq!(error.exit_code(), 0, "{line}");
    }
    let help = parse_on("--help", &machine()).unwrap_err().to_string();
    for word in ["Limits of clients:", "Examples:", "Exit codes:", "[default: 64M]", "[default: 8M]"] {
        assert!(help.contains(word), "{word} is missing in\n{help}");
    }
}

#[test]
fn the_classes_share_no_more_than_there_is() {
    for (memory_max, retained_bytes_max) in
        [(16 << 20, 1 << 30), (1 << 34, 1 << 30), (1 << 34, 0), (1 << 40, 7)]
    {
        let limits = Limits { memory_max, retained_bytes_max, ..Limits::default() };
        let pools = pools(&limits);
        let sum: u64 = pools.iter().sum();
        assert!(sum <= memory_max && sum > memory_max - 200, "{sum} of {memory_max}");
        assert!(pools[Class::Retained as usize] <= retained_bytes_max);
    }
}

#[test]
fn sizes_read_as_they_print() {
    for (text, size) in
        [("0", 0), ("64k", 65_536), ("1M", 1 << 20), ("3GiB", 3 << 30), ("1000", 1000), ("2T", 2 << 40)]
    {
        let parsed: Size = text.parse().unwrap();
        assert_eq!(parsed, Size(size));
        assert_eq!(parsed.to_string().parse(), Ok(parsed));
    }
    assert_eq!([bytes(0), bytes(1536), bytes(18 << 30)], ["0", "1.5k", "18G"]);
    assert_eq!(ranges(&[0, 1, 2, 6, 8, 9]), "0-2,6,8-9");
}

#[test]
fn a_command_can_be_typed_again() {
    let args = ["ringmq", "--listen", "[::]:1883", "it's"].map(String::from);
    assert_eq!(command(&args), r"ringmq --listen '[::]:1883' 'it'\''s'");
}

/// A file with this text, gone at the end.
struct File(std::path::PathBuf);

impl File {
    fn new(text: &str) -> File {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringmq-config-{}-{count}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        File(path)
    }

    fn config(&self, flags: &str) -> Result<Config, ConfigError> {
        parse_on(&format!("--config {} {flags}", self.0.display()), &machine())
    }

    fn effective(&self, flags: &str) -> String {
        let line = format!("ringmq config --config {} {flags}", self.0.display());
        let args: Vec<String> = line.split_whitespace().map(String::from).collect();
        let text = effective(&args, &machine()).unwrap();
        text.replace(&self.0.display().to_string(), "FILE")
    }

    /// A path in the file is relative to it.
    fn beside(&self, name: &str) -> std::path::PathBuf {
        self.0.with_file_name(name)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn three_lines_are_a_tls_listener() {
    let file = File::new("[[listener]]\naddress = \"127.0.0.1:8883\"\ncert = \"both.pem\"\n");
    let config = file.config("").unwrap();
    let [listener] = &config.listeners[..] else { panic!("{config:?}") };
    let tls = listener.tls.as_ref().unwrap();
    assert_eq!(listener.address.to_string(), "127.0.0.1:8883");
    assert_eq!((&tls.certificate, &tls.key), (&file.beside("both.pem"), &file.beside("both.pem")));
    assert_eq!(listener.limits, ListenerLimits::of(&config.limits));
    assert!(config.network_hint.contains("[[listener]]"), "{}", config.network_hint);
}

#[test]
fn flags_about_tls_may_stand_in_a_file() {
    let file =
        File::new("tls-listen = [\"127.0.0.1:8883\"]\ntls-cert = \"c\"\ntls-key = \"k\"\nlisten = []\n");
    let config = file.config("").unwrap();
    let [listener] = &config.listeners[..] else { panic!("{config:?}") };
    assert_eq!(listener.tls.as_ref().unwrap().key, file.beside("k"));
    let file = File::new("tls-listen = [\"127.0.0.1:8883\"]\ntls-cert = \"c\"\n");
    let error = file.config("").unwrap_err();
    assert!(error.to_string().contains(":1:1: tls-listen needs tls-key too"), "{error}");
    assert_eq!(error.exit_code(), exit::CONFIG);
}

#[test]
fn what_is_wrong_with_a_value_of_the_file_has_its_place() {
    for (text, at, what) in [
        ("packet-size-max = 1", (1, 1), "packet-size-max: 1 is not between 128"),
        ("\nmemory-max = \"1k\"", (2, 1), "memory-max: 1k is not between 16M"),
        ("send-buffer-max = 0", (1, 1), "send-buffer-max"),
        ("cores = \"9\"", (1, 1), "cores: this machine has no CPU 9"),
        ("cores = \"a\"", (1, 1), "cores"),
        (
            "tls-listen = [\"127.0.0.1:1\"]\ntls-cert = \"c\"\ntls-key = \"k\"\ntls-client-cert = \"required\"",
            (4, 1),
            "tls-client-ca",
        ),
        (
            "tls-client-user = \"subject\"",
            (1, 1),
            "tls-client-user needs tls-cert and tls-key and tls-listen too",
        ),
        ("allow-anonymous = false", (1, 1), "nobody could connect"),
        ("allow-anonymous = false\n[[listener]]\naddress = \"127.0.0.1:1\"", (2, 1), "nobody could connect"),
        ("allow-anonymous = \"no\"", (1, 19), "true or false"),
    ] {
        match File::new(text).config("") {
            Err(ConfigError::File(error)) => {
                assert!(error.at == Some(at) && error.what.contains(what), "{text}: {error}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    let file = File::new("packet-size-max = 1");
    assert!(file.config("--packet-size-max 1M").is_ok(), "the command line replaces it");
    assert_eq!(file.config("--packet-size-max 2").unwrap_err().exit_code(), exit::USAGE);
}

#[test]
fn who_has_a_certificate_without_a_name_is_anonymous() {
    use crate::access::Anonymous::{Admitted, Refused};
    let secure = "[[listener]]\naddress = \"127.0.0.1:1\"\ncert = \"c\"\nclient-ca = \"a\"\n";
    for (more, expected) in [
        ("", Refused),
        ("password-file = \"users\"", Refused),
        ("allow-anonymous = true", Admitted),
        ("allow-anonymous = false", Refused),
        ("client-cert = \"optional\"", Admitted), // at loopback, as without TLS
        ("client-cert = \"optional\"\nallow-anonymous = false", Refused),
    ] {
        let config = File::new(&format!("{secure}{more}\n")).config("").unwrap();
        assert_eq!(config.access.doors[0].anonymous, expected, "{more}");
    }
    let closed = File::new(&format!("allow-anonymous = false\n{secure}client-cert = \"optional\"\n"));
    assert_eq!(closed.config("").unwrap().access.doors[0].anonymous, Refused);
    assert!(closed.effective("").contains("allow-anonymous = false  # FILE:1"));
}

const TWO: &str = "\
packet-size-max = \"2M\"
password-file = \"users\"
[[listener]]
address = \"0.0.0.0:8883\"
kind = \"tls\"
cert = \"c\"
key = \"k\"
client-ca = \"a\"
client-cert = \"optional\"
client-user = \"subject\"
key-password-file = \"pw\"
record-size-max = \"4k\"
acl-file = \"rules\"
client-ids = \"user-name\"
connections-max = 7
connect-timeout = 3
connect-packet-size-max = \"4k\"
packet-size-max = \"1M\"
keep-alive-max = 60
session-expiry-max = 3600
[[listener]]
address = \"[::1]:1883\"
allow-anonymous = true
password-file = \"others\"
";

#[test]
fn a_rule_for_users_needs_users() {
    for line in ["--client-ids user-name", "--client-ids begin-with-user-name --allow-anonymous"] {
        let error = refused(line);
        assert!(error.contains("--client-ids") && error.contains("--password-file"), "{error}");
    }
    parse("--client-ids user-name --password-file u");
    parse("--client-ids any");
    let certified = "--tls-listen 127.0.0.1:1 --tls-cert c --tls-key k --tls-client-ca a";
    parse(&format!("{certified} --client-ids user-name"));

    let one = |lines: &str| format!("[[listener]]\naddress = \"127.0.0.1:1\"\n{lines}\n");
    let other = "[[listener]]\naddress = \"127.0.0.1:2\"\npassword-file = \"u\"\n";
    let rule = "client-ids = \"user-name\"\n";
    // Where it stands for all listeners it is enough that one of them has users.
    File::new(&[rule, &one(""), other].concat()).config("").unwrap();
    for text in [rule.to_owned(), one(rule), [rule, &one("")].concat(), [&one(rule), other].concat()] {
        let error = File::new(&text).config("").unwrap_err();
        assert_eq!(error.exit_code(), exit::CONFIG, "{text}");
        assert!(error.to_string().contains("client-ids: no effect, since no listener has users"), "{error}");
    }
}

#[test]
fn each_listener_has_certificates_limits_and_access_of_its_own() {
    use crate::access::{Anonymous, ClientIds, Door};
    use crate::transport::tls::{CertificateUser, ClientCertificates};
    let file = File::new(TWO);
    let config = file.config("").unwrap();
    let expected = Settings {
        certificate: file.beside("c"),
        key: file.beside("k"),
        key_password: Some(file.beside("pw")),
        record_size_max: Some(4096),
        clients: ClientCertificates::Optional { ca: file.beside("a") },
        user: CertificateUser::Subject,
    };
    let limits = ListenerLimits {
        connections_max: Some(7),
        packet_size_max: 1 << 20,
        connect_packet_size_max: 4096,
        connect_timeout_ms: 3000,
        keep_alive_max_s: 60,
        session_expiry_max_s: 3600,
    };
    let [secure, plain] = &config.listeners[..] else { panic!("{config:?}") };
    assert_eq!((secure.tls.as_ref(), secure.limits), (Some(&expected), limits));
    assert_eq!((plain.tls.as_ref(), plain.limits), (None, ListenerLimits::of(&config.limits)));
    assert_eq!(plain.limits.packet_size_max, 2 << 20);
    assert_eq!(config.access.password_files, [file.beside("users"), file.beside("others")]);
    assert_eq!(config.access.acl_files, [file.beside("rules")]);
    let secure = Door {
        anonymous: Anonymous::Refused,
        client_ids: ClientIds::UserName,
        users: Some(0),
        rules: Some(0),
    };
    let plain = Door { anonymous: Anonymous::Admitted, users: Some(1), ..Door::default() };
    assert_eq!(*config.access.doors, [secure, plain]);
    let text = listener_text(&config, &config.listeners[0]);
    for word in ["TLS", "optional", "subject", "7 connections", "packets of 1M", "within 3 s", "for 3600 s"] {
        assert!(text.contains(word), "{word} is missing in {text}");
    }
    let access = access_text(&config, &[2, 5]);
    assert!(
        access[0].contains("0.0.0.0:8883: 2 users, clients with a certificate, no anonymous"),
        "{access:?}"
    );
    assert!(access[1].contains("[::1]:1883: 5 users, anonymous clients;"), "{access:?}");
}

#[test]
fn flags_replace_what_the_file_says_of_listeners() {
    let file = File::new(TWO);
    let config = file.config("--packet-size-max 3M --connections-max 100 --password-file all").unwrap();
    assert!(config.listeners.iter().all(|listener| listener.limits.packet_size_max == 3 << 20));
    assert_eq!(config.listeners[0].limits.connections_max, Some(7), "both hold");
    assert_eq!(config.limits.connections_max, 100);
    assert_eq!(config.access.password_files, [std::path::PathBuf::from("all")]);
    let config = file.config("--listen 127.0.0.1:7").unwrap();
    assert_eq!(config.addresses(), ["127.0.0.1:7".parse().unwrap()]);
    let config = file.config("--tls-listen 127.0.0.1:8 --tls-cert c --tls-key k").unwrap();
    assert_eq!(config.addresses(), ["127.0.0.1:8".parse().unwrap()]);
}

#[test]
fn a_listener_that_cannot_be_has_a_place_and_a_reason() {
    let listener = |rest: &str| format!("[[listener]]\naddress = \"127.0.0.1:1\"\n{rest}\n");
    for (text, at, what) in [
        ("[[listener]]\nkind = \"tcp\"\n".to_owned(), (1, 1), "an address"),
        (listener("kind = \"tls\""), (3, 1), "cert = "),
        (listener("kind = \"tcp\"\ncert = \"c\""), (4, 1), "cert is for TLS only"),
        (listener("key = \"k\""), (3, 1), "without a certificate"),
        (listener("cert = \"c\"\nclient-cert = \"required\""), (4, 1), "client-ca"),
        (listener("cert = \"c\"\nclient-ca = \"a\"\nclient-cert = \"none\""), (4, 1), "no effect"),
        (listener("allow-anonymous = false"), (1, 1), "nobody could connect"),
        (listener("allow-anonymous = \"no\""), (3, 19), "true or false"),
        (listener("packet-size-max = 1"), (3, 1), "between 128 and"),
        (listener("connections-max = 0"), (3, 19), "connections-max"),
        (listener("conections-max = 1"), (3, 1), "did you mean \"connections-max\"?"),
        (listener("queue-bytes-max = 1"), (3, 1), "above the first [[listener]]"),
        (listener("kind = \"udp\""), (3, 8), "udp"),
        ("\n[[listener]]\naddress = \"0.0.0.0:1\"\n".to_owned(), (2, 1), "allow-anonymous = true"),
        (listener("") + &listener(""), (4, 1), "given twice"),
        (
            listener("") + "[[listener]]\naddress = \"0.0.0.0:1\"\nallow-anonymous = true\n",
            (4, 1),
            "remove address",
        ),
        ("[listener]\naddress = \"127.0.0.1:1\"\n".to_owned(), (1, 2), "two brackets"),
        ("listener = [1]\n".to_owned(), (1, 13), "a table"),
        ("[[listner]]\naddress = \"127.0.0.1:1\"\n".to_owned(), (1, 3), "did you mean \"listener\"?"),
        ("listen = [\"127.0.0.1:2\"]\n".to_owned() + &listener(""), (1, 1), "cannot be combined"),
        ("tls-cert = \"c\"\n".to_owned() + &listener(""), (1, 1), "belongs to tls-listen"),
    ] {
        let file = File::new(&text);
        match file.config("") {
            Err(ConfigError::File(error)) => {
                assert!(error.at == Some(at) && error.what.contains(what), "{text}: {error}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn what_is_in_force_at_each_listener_has_its_source_and_can_be_read_again() {
    let file = File::new(TWO);
    let text = file.effective("--keep-alive-max 9");
    for line in [
        "[[listener]]  # FILE:3\naddress = \"0.0.0.0:8883\"  # FILE:4\n",
        "kind = \"tls\"  # FILE:5\n",
        "connections-max = 7  # FILE:15\n",
        "keep-alive-max = 9  # command line\nsession-expiry-max = 3600  # FILE:20\n",
        "[[listener]]  # FILE:21\naddress = \"[::1]:1883\"  # FILE:22\nkind = \"tcp\"  # default\n# cert is not set\n",
        "allow-anonymous = true  # FILE:23\n",
        "packet-size-max = \"2M\"  # FILE:1\n",
        "connect-timeout = \"10s\"  # default\n",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    let listeners = &text[text.find("[[listener]]").unwrap()..];
    assert!(listeners.contains("allow-anonymous = false  # default\n"), "{listeners}");
    assert!(!text.contains("\nlisten"), "{text}");
    let again = File::new(&text);
    assert_eq!(again.config("").unwrap().listeners, file.config("--keep-alive-max 9").unwrap().listeners);
    let three = File::new("[[listener]]\naddress = \"127.0.0.1:8883\"\ncert = \"both.pem\"\n").effective("");
    assert!(
        three.contains("allow-anonymous = true  # default\n")
            && three.contains("client-cert = \"none\"  # default")
    );
    assert!(File::new("").effective("").contains("listen = [\"localhost:1883\"]  # default\n"));
    let cut = File::new("connect-packet-size-max = \"4M\"\n")
        .effective("--packet-size-max 1M --memory-max 64M --retained-bytes-max 32M");
    assert!(
        cut.contains("connect-packet-size-max = \"4M\"  # FILE:1: 1M applies, which is packet-size-max\n"),
        "{cut}"
    );
    assert!(cut.contains("retained-bytes-max = \"32M\"  # command line\n"), "{cut}");
    let cut = File::new("memory-max = \"64M\"\n").effective("");
    assert!(
        cut.contains("retained-bytes-max = \"1G\"  # default: 32M applies, half of memory-max\n"),
        "{cut}"
    );
    assert!(
        File::new("").effective("").contains("# memory-max is not set: 12G applies, three quarters of "),
        "{cut}"
    );
    assert!(file.effective("--listen 127.0.0.1:7").contains("listen = [\"127.0.0.1:7\"]  # command line\n"));
}

/// The one help that a person reads names every key of a listener.
#[test]
fn the_help_names_the_keys_of_listeners() {
    use clap::CommandFactory;
    let help = parse_on("--help", &machine()).unwrap_err().to_string();
    let listeners = &help[help.find("Listeners in a file").expect("a section")..];
    for arg in listener::ListenerKeys::command().get_arguments() {
        let name = arg.get_long().unwrap();
        assert!(listeners.contains(name), "{name} is missing in\n{listeners}");
    }
    listener::ListenerKeys::command().debug_assert();
}

#[test]
fn times_have_units_in_flags_and_in_files() {
    let line = "--connect-timeout 500ms --keep-alive-max 5m --session-expiry-max 12h --sys-interval 1m --shutdown-timeout 2s";
    let file = File::new(
        "connect-timeout = \"500ms\"\nkeep-alive-max = \"5m\"\nsession-expiry-max = \"12h\"\nsys-interval = \"1m\"\n\
         shutdown-timeout = \"2s\"\n",
    );
    for config in [parse(line), file.config("").unwrap()] {
        let limits = &config.limits;
        assert_eq!(
            (limits.connect_timeout_ms, limits.keep_alive_max_s, limits.session_expiry_max_s),
            (500, 300, 43_200)
        );
        assert_eq!((config.sys_interval_ms, config.shutdown_timeout_ms), (60_000, 2000));
    }
    let own = File::new(
        "[[listener]]\naddress = \"127.0.0.1:1\"\nconnect-timeout = \"1m\"\nkeep-alive-max = \"1h\"\n\
         session-expiry-max = \"7d\"\n",
    );
    let config = own.config("").unwrap();
    let limits = config.listeners[0].limits;
    assert_eq!(
        (limits.connect_timeout_ms, limits.keep_alive_max_s, limits.session_expiry_max_s),
        (60_000, 3600, 604_800)
    );
    assert!(own.effective("").contains("keep-alive-max = \"1h\"  # FILE:4\n"));
}

#[test]
fn words_stand_for_the_addresses_that_this_machine_has() {
    let addresses = |config: Config| config.addresses().iter().map(|at| at.to_string()).collect::<Vec<_>>();
    let no_ipv6 = Machine { has_ipv6: false, ..machine() };
    assert_eq!(addresses(parse_on("", &no_ipv6).unwrap()), ["127.0.0.1:1883"]);
    assert_eq!(addresses(parse("--listen localhost:7")), ["127.0.0.1:7", "[::1]:7"]);
    assert_eq!(addresses(parse("--listen :7 --allow-anonymous")), ["0.0.0.0:7", "[::]:7"]);
    assert_eq!(addresses(parse_on("--listen :7 --allow-anonymous", &no_ipv6).unwrap()), ["0.0.0.0:7"]);
    let error = refused("--listen :7");
    assert!(error.ends_with("ringmq --listen :7 --allow-anonymous"), "{error}");
    let tls = "--tls-cert c --tls-key k --allow-anonymous";
    assert_eq!(addresses(parse(&format!("--tls-listen :8 {tls}"))), ["0.0.0.0:8", "[::]:8"]);
    let file = File::new(
        "[[listener]]\naddress = \"localhost:7\"\nconnections-max = 3\n[[listener]]\naddress = \"[::1]:8\"\n",
    );
    let config = file.config("").unwrap();
    let shares: Vec<bool> = config.listeners.iter().map(|listener| listener.shares_room).collect();
    assert_eq!(shares, [false, true, false]);
    assert_eq!(config.access.doors.len(), 3);
    assert_eq!(addresses(config), ["127.0.0.1:7", "[::1]:7", "[::1]:8"]);
}

#[test]
fn more_memory_than_there_is_is_a_warning() {
    assert_eq!(parse("--memory-max 16G").warnings, Vec::<String>::new());
    let warnings = parse("--memory-max 17G").warnings;
    assert!(
        warnings[0].contains("--memory-max 17G is more than the 16G that this machine has"),
        "{warnings:?}"
    );
    let granted = Machine { memory_max: Some(1 << 30), ..machine() };
    let warnings = parse_on("--memory-max 2G", &granted).unwrap().warnings;
    assert!(warnings[0].contains("more than the 1G that the cgroup grants"), "{warnings:?}");
    assert_eq!(parse_on("", &granted).unwrap().warnings, Vec::<String>::new());
    let shown = File::new("memory-max = \"32G\"\n").effective("");
    assert!(shown.contains("memory-max = \"32G\"  # FILE:1: 32G is more than the 16G here\n"), "{shown}");
}
