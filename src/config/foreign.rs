//! A file for `--config` that is something else: a mosquitto.conf, which is said once more as a
//! ringmq.toml would have it, or a file that another flag takes.

use std::fmt::Write;
use std::path::Path;

use super::file::quoted;

/// Where a setting of mosquitto goes.
#[derive(Copy, Clone)]
enum Goes {
    /// To this key of the whole broker.
    All(&'static str),
    /// To this key of the listener above it.
    Listener(&'static str),
    /// To this key of the listener above it with `per_listener_settings true`, else of the whole
    /// broker.
    Door(&'static str),
    /// Whether [`Goes::Door`] is about listeners.
    PerListener,
    /// A listener begins: a port and, if it follows, an address.
    Begins,
    /// As [`Goes::All`] and [`Goes::Listener`], for a number of which 0 or -1 means that there is no
    /// limit.
    Limit(&'static str),
    ListenerLimit(&'static str),
    /// To `client-ca` of the listener, if that listener requires certificates of clients.
    Authority,
    /// Whether the listener requires certificates of clients.
    Requires,
    /// What the listener speaks.
    Protocol,
    /// The port of the default listener, which has no `listener` line; wherever it stands.
    Port,
    /// The same, the address.
    Binds,
    /// Whether [`Goes::Directory`] holds.
    Persists,
    /// To the data directory.
    Directory,
    /// Nowhere; what to know or to do instead.
    Nowhere(&'static str),
}

const NO_DIRECTORY: &str = "to keep sessions and messages, name a directory: data = \"/var/lib/ringmq\"";
const NO_AUTOSAVE: &str = "with data, ringmq acknowledges what is on disk; see durability";
const NO_BRIDGE: &str = "ringmq has no bridges";
const NO_PLUGINS: &str = "ringmq has no plugins";
const NO_WEBSOCKETS: &str = "ringmq has no WebSocket listeners";
const NO_PSK: &str = "ringmq has no pre-shared keys; use certificates";

/// Settings of mosquitto.
const MOSQUITTO: &[(&str, Goes)] = &[
    ("listener", Goes::Begins),
    ("port", Goes::Port),
    ("bind_address", Goes::Binds),
    ("allow_anonymous", Goes::Door("allow-anonymous")),
    ("password_file", Goes::Door("password-file")),
    ("acl_file", Goes::Door("acl-file")),
    ("listener_allow_anonymous", Goes::Listener("allow-anonymous")),
    ("max_keepalive", Goes::All("keep-alive-max")),
    ("max_packet_size", Goes::Limit("packet-size-max")),
    ("message_size_limit", Goes::Limit("packet-size-max")),
    ("max_queued_messages", Goes::Limit("queue-messages-max")),
    ("max_queued_bytes", Goes::Limit("queue-bytes-max")),
    ("max_inflight_messages", Goes::Limit("send-maximum")),
    ("max_topic_alias", Goes::All("topic-alias-max")),
    ("memory_limit", Goes::Limit("memory-max")),
    ("sys_interval", Goes::All("sys-interval")),
    ("certfile", Goes::Listener("cert")),
    ("keyfile", Goes::Listener("key")),
    ("cafile", Goes::Authority),
    ("require_certificate", Goes::Requires),
    ("max_connections", Goes::ListenerLimit("connections-max")),
    ("global_max_connections", Goes::Limit("connections-max")),
    ("use_identity_as_username", Goes::Nowhere("the Common Name of a client certificate is its user name")),
    ("use_subject_as_username", Goes::Nowhere("write client-user = \"subject\" in the [[listener]]")),
    (
        "use_username_as_clientid",
        Goes::Nowhere("client-ids = \"user-name\" refuses other Client Identifiers"),
    ),
    ("clientid_prefixes", Goes::Nowhere("client-ids = \"begin-with-user-name\" is the nearest")),
    ("persistent_client_expiration", Goes::Nowhere("write session-expiry-max, such as \"14d\"")),
    ("log_dest", Goes::Nowhere("the log goes to stderr, or to the file of log-file")),
    ("log_facility", Goes::Nowhere("the log goes to stderr, or to the file of log-file")),
    ("log_type", Goes::Nowhere("write log-level: off, error, warn, info or debug")),
    ("log_timestamp", Goes::Nowhere("every line of the log has its time")),
    ("log_timestamp_format", Goes::Nowhere("every line of the log has its time")),
    ("connection_messages", Goes::Nowhere("log-level = \"info\" has them, \"warn\" does not")),
    ("protocol", Goes::Protocol),
    ("http_dir", Goes::Nowhere(NO_WEBSOCKETS)),
    ("websockets_log_level", Goes::Nowhere(NO_WEBSOCKETS)),
    ("per_listener_settings", Goes::PerListener),
    ("persistence", Goes::Persists),
    ("persistence_location", Goes::Directory),
    ("persistence_file", Goes::Nowhere("the directory of data has several files")),
    ("autosave_interval", Goes::Nowhere(NO_AUTOSAVE)),
    ("autosave_on_changes", Goes::Nowhere(NO_AUTOSAVE)),
    ("retain_available", Goes::Nowhere("ringmq always has retained messages")),
    ("set_tcp_nodelay", Goes::Nowhere("ringmq always sets it")),
    ("queue_qos0_messages", Goes::Nowhere("ringmq does not queue messages at QoS 0")),
    ("upgrade_outgoing_qos", Goes::Nowhere("ringmq never raises the QoS of a message")),
    ("max_inflight_bytes", Goes::Nowhere("send-maximum bounds the number of messages in flight")),
    ("max_qos", Goes::Nowhere("ringmq always takes QoS 0, 1 and 2")),
    ("mount_point", Goes::Nowhere("ringmq has no mount points; use rules (acl-file)")),
    ("bind_interface", Goes::Nowhere("write the address of the interface")),
    ("socket_domain", Goes::Nowhere("write an IPv4 or an IPv6 address")),
    ("allow_duplicate_messages", Goes::Nowhere("a client gets one copy of each message")),
    ("pid_file", Goes::Nowhere("ringmq stays in the foreground")),
    ("user", Goes::Nowhere("start ringmq as the user that it should run as")),
    ("include_dir", Goes::Nowhere("ringmq reads one file")),
    ("allow_zero_length_clientid", Goes::Nowhere("ringmq always allows it")),
    ("auto_id_prefix", Goes::Nowhere("ringmq assigns Client Identifiers without a prefix")),
    ("plugin", Goes::Nowhere(NO_PLUGINS)),
    ("plugin_load", Goes::Nowhere(NO_PLUGINS)),
    ("plugin_use", Goes::Nowhere(NO_PLUGINS)),
    ("global_plugin", Goes::Nowhere(NO_PLUGINS)),
    ("auth_plugin", Goes::Nowhere(NO_PLUGINS)),
    ("psk_hint", Goes::Nowhere(NO_PSK)),
    ("psk_file", Goes::Nowhere(NO_PSK)),
    ("capath", Goes::Nowhere("client-ca is one file with all certificates")),
    ("crlfile", Goes::Nowhere("ringmq reads no lists of revoked certificates")),
    ("dhparamfile", Goes::Nowhere("ringmq uses elliptic curves only")),
    ("ciphers", Goes::Nowhere("ringmq speaks TLS 1.2 and 1.3 with their safe ciphers")),
    ("ciphers_tls1.3", Goes::Nowhere("ringmq speaks TLS 1.2 and 1.3 with their safe ciphers")),
    ("tls_version", Goes::Nowhere("ringmq speaks TLS 1.2 and 1.3")),
    ("connection", Goes::Nowhere(NO_BRIDGE)),
    ("address", Goes::Nowhere(NO_BRIDGE)),
    ("addresses", Goes::Nowhere(NO_BRIDGE)),
    ("remote_clientid", Goes::Nowhere(NO_BRIDGE)),
    ("remote_username", Goes::Nowhere(NO_BRIDGE)),
    ("remote_password", Goes::Nowhere(NO_BRIDGE)),
];

/// What a file is that is no `ringmq.toml`, with the number of the line that shows it, and what to
/// do.
pub(super) fn recognised(text: &str, path: &Path) -> Option<(usize, String)> {
    let lines: Vec<(usize, &str)> = text
        .lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let (first_at, first) = *lines.first()?;
    let path = path.display();
    if first.starts_with("-----BEGIN ") {
        let what =
            "this is a certificate or a key in PEM; name it with --tls-cert, --tls-key or --tls-client-ca";
        return Some((first_at, what.to_owned()));
    }
    if first.starts_with('{') {
        return Some((
            first_at,
            "this looks like JSON; a file of settings is TOML, with lines such as shards = 2".to_owned(),
        ));
    }
    let most =
        |is: &dyn Fn(&str) -> bool| lines.iter().filter(|(_, line)| is(line)).count() * 2 > lines.len();
    if most(&|line| line.split_once(":$").is_some_and(|(name, _)| !name.contains(' '))) {
        return Some((first_at, format!("this is a password file; to use it: --password-file {path}")));
    }
    let is_rule = |line: &str| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("user" | "topic" | "pattern" | "client"))
            && words.next().is_some_and(|word| word != "=")
    };
    if most(&is_rule) && lines.iter().any(|(_, line)| !line.starts_with("user")) {
        return Some((
            first_at,
            format!("this is a file of rules about topics; to use it: --acl-file {path}"),
        ));
    }
    let at = lines.iter().find(|(_, line)| setting(line).is_some())?.0;
    most(&|line| setting(line).is_some()).then(|| {
        let same = translated(lines.iter().map(|(_, line)| *line));
        (
            at,
            format!(
                "this is a mosquitto.conf, and ringmq reads TOML. Its settings in a ringmq.toml:\n\n{same}"
            ),
        )
    })
}

/// A line of a mosquitto.conf.
fn setting(line: &str) -> Option<(&str, &str, Goes)> {
    let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let value = value.trim();
    let known = MOSQUITTO.iter().find(|(name, _)| *name == key)?;
    (!value.starts_with('=')).then_some((key, value, known.1))
}

/// A listener as it is translated.
#[derive(Default)]
struct Translated {
    keys: String,
    authority: Option<String>,
    requires_certificates: bool,
}

/// Whether a number stands for no limit.
fn is_unlimited(value: &str) -> bool {
    matches!(value, "0" | "-1")
}

fn address(host: &str, port: &str) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

fn listener(address: &str) -> Translated {
    Translated { keys: format!("address = {}\n", quoted(address)), ..Translated::default() }
}

/// mosquitto's default listener, if there is one. `port` and `bind_address` say where it listens, in any line; settings of a
/// listener are its own before the first `listener` line.
fn default_listener<'a>(lines: impl Iterator<Item = &'a str>) -> Option<Translated> {
    let (mut port, mut host) = (None, None);
    let (mut has_settings, mut another_has_begun) = (false, false);
    for (_, value, goes) in lines.filter_map(setting) {
        match goes {
            Goes::Port => port = Some(value),
            Goes::Binds => host = Some(value),
            Goes::Begins => another_has_begun = true,
            Goes::ListenerLimit(_) if is_unlimited(value) => {}
            Goes::Listener(_) | Goes::ListenerLimit(_) | Goes::Authority | Goes::Requires => {
                has_settings |= !another_has_begun;
            }
            Goes::All(_) | Goes::Door(_) | Goes::Limit(_) | Goes::PerListener => {}
            Goes::Protocol | Goes::Persists | Goes::Directory | Goes::Nowhere(_) => {}
        }
    }
    let address = match (host, port) {
        (None, None) if !has_settings => return None,
        (None, None) => "localhost:1883".to_owned(),
        (host, port) => address(host.unwrap_or(""), port.unwrap_or("1883")),
    };
    Some(listener(&address))
}

/// The settings as a `ringmq.toml` has them; comments say what has no place there.
fn translated<'a>(lines: impl Iterator<Item = &'a str> + Clone) -> String {
    let mut all: Vec<(&str, String)> = Vec::new();
    let mut notes = String::new();
    let mut listeners: Vec<Translated> = default_listener(lines.clone()).into_iter().collect();
    let mut is_per_listener = false;
    let last_of = |name: &str| {
        lines.clone().filter_map(setting).filter(|(key, ..)| *key == name).last().map(|(_, value, _)| value)
    };
    let persists = last_of("persistence") == Some("true");
    let has_directory = last_of("persistence_location").is_some();
    for line in lines {
        let Some((_, value, goes)) = setting(line) else {
            let _ = writeln!(notes, "# {line}: not known");
            continue;
        };
        match goes {
            Goes::Limit(key) | Goes::ListenerLimit(key) if is_unlimited(value) => {
                let _ = writeln!(notes, "# {line}: ringmq always has a limit here; see {key}");
            }
            Goes::PerListener => is_per_listener = value == "true",
            Goes::Door(key) if is_per_listener && !listeners.is_empty() => {
                let _ = writeln!(last(&mut listeners).keys, "{key} = {}", quoted(value));
            }
            Goes::All(key) | Goes::Limit(key) | Goes::Door(key) => {
                // As with mosquitto the last one counts.
                all.retain(|(other, _)| *other != key);
                all.push((key, quoted(value)));
            }
            Goes::Begins => {
                let (port, host) = value.split_once(' ').unwrap_or((value, ""));
                listeners.push(listener(&address(host.trim(), port)));
            }
            Goes::Port | Goes::Binds => {}
            Goes::Persists if value == "true" && !has_directory => {
                let _ = writeln!(notes, "# {line}: {NO_DIRECTORY}");
            }
            Goes::Persists => {}
            Goes::Directory if persists => {
                all.retain(|(other, _)| *other != "data");
                all.push(("data", quoted(value)));
            }
            Goes::Directory => {
                let _ = writeln!(notes, "# {line}: without persistence true nothing is kept there");
            }
            Goes::Listener(key) | Goes::ListenerLimit(key) => {
                let _ = writeln!(last(&mut listeners).keys, "{key} = {}", quoted(value));
            }
            Goes::Authority => last(&mut listeners).authority = Some(value.to_owned()),
            Goes::Requires => last(&mut listeners).requires_certificates = value == "true",
            Goes::Protocol if value == "mqtt" => {}
            Goes::Protocol => {
                let _ = writeln!(notes, "# {line}: {NO_WEBSOCKETS}; remove its [[listener]]");
            }
            Goes::Nowhere(why) => {
                let _ = writeln!(notes, "# {line}: {why}");
            }
        }
    }
    let listeners: String = listeners
        .into_iter()
        .map(|Translated { mut keys, authority, requires_certificates }| {
            let _ = match authority {
                Some(path) if requires_certificates => writeln!(keys, "client-ca = {}", quoted(&path)),
                Some(path) => {
                    writeln!(keys, "# cafile {path}: without require_certificate no client needs one")
                }
                None => Ok(()),
            };
            format!("\n[[listener]]\n{keys}")
        })
        .collect();
    let all: String = all.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    format!("{all}{notes}{listeners}").trim().to_owned()
}

/// The listener that a line belongs to, which [`default_listener`] began if no line did.
fn last(listeners: &mut [Translated]) -> &mut Translated {
    listeners.last_mut().expect("a setting of a listener has one")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> (usize, String) {
        recognised(text, Path::new("x.conf")).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn a_mosquitto_conf_is_said_once_more_in_toml() {
        let text = "# Place your local configuration in /etc/mosquitto/conf.d/\n\npersistence true\nlistener 1883\n\
                    listener 8883 0.0.0.0\ncertfile /etc/server.pem\nkeyfile /etc/server.key\nallow_anonymous true\n\
                    password_file users\nsome_other thing\n";
        let (at, what) = said(text);
        assert_eq!(at, 3);
        let toml = "allow-anonymous = true\npassword-file = \"users\"\n\
                    # persistence true: to keep sessions and messages, name a directory: data = \
                    \"/var/lib/ringmq\"\n# \
                    some_other thing: not known\n\n\
                    [[listener]]\naddress = \":1883\"\n\n[[listener]]\naddress = \"0.0.0.0:8883\"\n\
                    cert = \"/etc/server.pem\"\nkey = \"/etc/server.key\"";
        assert!(what.contains("this is a mosquitto.conf") && what.ends_with(toml), "{what}");
        assert!(said("max_connections 5\n").1.ends_with("address = \"localhost:1883\"\nconnections-max = 5"));
    }

    /// mosquitto asks clients for certificates only with `require_certificate true`.
    #[test]
    fn clients_need_certificates_where_mosquitto_requires_them() {
        let listener = "listener 8883\ncafile ca.pem\ncertfile server.pem\n";
        let (_, open) = said(listener);
        assert!(open.contains("\n# cafile ca.pem: ") && !open.contains("client-ca ="), "{open}");
        let (_, closed) = said(&format!("{listener}require_certificate true\n"));
        assert!(closed.ends_with("cert = \"server.pem\"\nclient-ca = \"ca.pem\""), "{closed}");
    }

    #[test]
    fn a_place_for_persistence_is_the_data_directory() {
        let (_, what) = said("persistence true\npersistence_location /var/lib/x/\nautosave_interval 5\n");
        assert!(what.contains("\n\ndata = \"/var/lib/x/\"\n# autosave_interval 5: with data, "), "{what}");
        let (_, what) = said("persistence_location /var/lib/x/\npersistence false\n");
        assert!(what.ends_with("without persistence true nothing is kept there"), "{what}");
    }

    #[test]
    fn settings_of_a_listener_stay_with_it() {
        let (_, what) = said(
            "per_listener_settings true\nlistener 8883\nallow_anonymous false\npassword_file u\nlistener \
             1883\n\
             allow_anonymous true\n",
        );
        let first = "address = \":8883\"\nallow-anonymous = false\npassword-file = \"u\"\n";
        assert!(
            what.contains(first) && what.ends_with("address = \":1883\"\nallow-anonymous = true"),
            "{what}"
        );
        let (_, what) = said("listener 1883\nallow_anonymous false\nallow_anonymous true\n");
        assert_eq!(what.matches("allow-anonymous").count(), 1, "{what}");
        assert!(what.contains("allow-anonymous = true"), "{what}");
    }

    /// `port` and `bind_address` are about mosquitto's default listener wherever they stand, and begin no other one.
    #[test]
    fn the_default_listener_has_one_port_and_its_own_settings() {
        for (text, end) in [
            (
                "certfile s.pem\nkeyfile s.key\nport 8883\n",
                "[[listener]]\naddress = \":8883\"\ncert = \"s.pem\"\nkey = \"s.key\"",
            ),
            (
                "max_connections 5\nlistener 8883\ncertfile s.pem\nport 1884\nkeyfile s.key\n",
                "[[listener]]\naddress = \":1884\"\nconnections-max = 5\n\n\
                 [[listener]]\naddress = \":8883\"\ncert = \"s.pem\"\nkey = \"s.key\"",
            ),
            ("bind_address 192.0.2.1\n", "address = \"192.0.2.1:1883\""),
            ("port 1884\nbind_address ::1\nport 1885\n", "[[listener]]\naddress = \"[::1]:1885\""),
            ("listener 1883 fe80::1\nmax_connections -1\n", "[[listener]]\naddress = \"[fe80::1]:1883\""),
            (
                "per_listener_settings true\nallow_anonymous true\nlistener 8883\npassword_file u\nport 1883\n",
                "[[listener]]\naddress = \":1883\"\nallow-anonymous = true\n\n\
                 [[listener]]\naddress = \":8883\"\npassword-file = \"u\"",
            ),
        ] {
            let (_, what) = said(text);
            assert!(what.ends_with(end), "{text}{what}");
            assert_eq!(
                what.matches("[[listener]]").count(),
                end.matches("[[listener]]").count().max(1),
                "{what}"
            );
        }
    }

    #[test]
    fn a_limit_that_mosquitto_switches_off_stays_a_limit() {
        let (_, what) =
            said("listener 1883\nmax_connections -1\nmax_queued_messages 0\nmax_packet_size 70000\n");
        assert!(what.contains("packet-size-max = 70000\n# max_connections -1: "), "{what}");
        assert!(!what.contains("connections-max =") && !what.contains("queue-messages-max ="), "{what}");
    }

    #[test]
    fn files_of_other_flags_are_recognised() {
        for (text, flag) in [
            ("-----BEGIN CERTIFICATE-----\nMII\n", "--tls-cert"),
            ("alice:$argon2id$v=19$m=1\nbob:$7$101$x\n", "--password-file x.conf"),
            ("user alice\ntopic read a/#\npattern write %u/x\n", "--acl-file x.conf"),
            ("{ \"listeners\": [] }", "JSON"),
        ] {
            let (at, what) = said(text);
            assert!(at == 1 && what.contains(flag), "{text}: {what}");
        }
        for text in
            ["", "# nothing\n", "shards = \n", "listen = [\"a\"]\nport = 1\n", "words without a meaning\n"]
        {
            assert_eq!(recognised(text, Path::new("x")), None, "{text}");
        }
    }

    /// What is suggested is a file that can be read.
    #[test]
    fn every_suggestion_names_settings_that_exist() {
        use clap::CommandFactory;
        let of = |command: clap::Command, key: &str| {
            command.get_arguments().any(|arg| arg.get_long() == Some(key))
        };
        for (name, goes) in MOSQUITTO {
            match goes {
                Goes::Door(key) => {
                    assert!(of(super::super::Flags::command(), key), "{name}");
                    assert!(of(super::super::listener::ListenerKeys::command(), key), "{name}");
                }
                Goes::All(key) | Goes::Limit(key) => {
                    assert!(of(super::super::Flags::command(), key), "{name}");
                }
                Goes::Listener(key) | Goes::ListenerLimit(key) => {
                    assert!(of(super::super::listener::ListenerKeys::command(), key), "{name}");
                }
                Goes::Begins
                | Goes::PerListener
                | Goes::Authority
                | Goes::Requires
                | Goes::Protocol
                | Goes::Port
                | Goes::Persists
                | Goes::Directory
                | Goes::Binds
                | Goes::Nowhere(_) => {}
            }
        }
    }
}
