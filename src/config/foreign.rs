//! A file for `--config` that is something else: a mosquitto.conf, which is said once more as a ringmq.toml would have it,
//! or a file that another flag takes.

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
    /// A listener begins: a port and, if it follows, an address.
    Begins,
    /// The address of the listener that stands for no `listener` line.
    Binds,
    /// Nowhere, and why.
    Nowhere(&'static str),
}

const NO_PERSISTENCE: &str = "everything is kept in memory";
const NO_BRIDGE: &str = "there are no bridges";
const SHARED: &str = "each [[listener]] has its own, and takes the rest from above";

/// Settings of mosquitto.
const MOSQUITTO: &[(&str, Goes)] = &[
    ("listener", Goes::Begins),
    ("port", Goes::Begins),
    ("bind_address", Goes::Binds),
    ("allow_anonymous", Goes::All("allow-anonymous")),
    ("password_file", Goes::All("password-file")),
    ("acl_file", Goes::All("acl-file")),
    ("max_keepalive", Goes::All("keep-alive-max")),
    ("max_packet_size", Goes::All("packet-size-max")),
    ("message_size_limit", Goes::All("packet-size-max")),
    ("max_queued_messages", Goes::All("queue-messages-max")),
    ("max_queued_bytes", Goes::All("queue-bytes-max")),
    ("max_inflight_messages", Goes::All("send-maximum")),
    ("max_topic_alias", Goes::All("topic-alias-max")),
    ("memory_limit", Goes::All("memory-max")),
    ("sys_interval", Goes::All("sys-interval")),
    ("certfile", Goes::Listener("cert")),
    ("keyfile", Goes::Listener("key")),
    ("cafile", Goes::Listener("client-ca")),
    ("max_connections", Goes::Listener("connections-max")),
    ("require_certificate", Goes::Nowhere("certificates of clients are required where there is a client-ca")),
    ("use_identity_as_username", Goes::Nowhere("the Common Name of a certificate is the user name")),
    ("use_subject_as_username", Goes::Nowhere("client-user = \"subject\" in its [[listener]]")),
    ("persistent_client_expiration", Goes::Nowhere("session-expiry-max, such as \"14d\"")),
    ("log_dest", Goes::Nowhere("the log goes to stderr, or to log-file")),
    ("log_type", Goes::Nowhere("log-level is one of off, error, warn, info, debug")),
    ("log_timestamp", Goes::Nowhere("the log has the time always")),
    ("log_timestamp_format", Goes::Nowhere("the log has the time always")),
    ("connection_messages", Goes::Nowhere("log-level = \"info\" has them")),
    ("protocol", Goes::Nowhere("MQTT over TCP and TLS is spoken, and no WebSocket")),
    ("per_listener_settings", Goes::Nowhere(SHARED)),
    ("persistence", Goes::Nowhere(NO_PERSISTENCE)),
    ("persistence_location", Goes::Nowhere(NO_PERSISTENCE)),
    ("persistence_file", Goes::Nowhere(NO_PERSISTENCE)),
    ("autosave_interval", Goes::Nowhere(NO_PERSISTENCE)),
    ("autosave_on_changes", Goes::Nowhere(NO_PERSISTENCE)),
    ("retain_available", Goes::Nowhere("retained messages are always there")),
    ("set_tcp_nodelay", Goes::Nowhere("it is always so")),
    ("queue_qos0_messages", Goes::Nowhere("QoS 0 messages are not queued")),
    ("pid_file", Goes::Nowhere("it stays in the foreground")),
    ("user", Goes::Nowhere("start it as the user that it shall be")),
    ("include_dir", Goes::Nowhere("there is one file")),
    ("plugin", Goes::Nowhere("there are no plugins")),
    ("auth_plugin", Goes::Nowhere("there are no plugins")),
    ("capath", Goes::Nowhere("client-ca is one file with all certificates")),
    ("crlfile", Goes::Nowhere("lists of revoked certificates are not read")),
    ("ciphers", Goes::Nowhere("TLS 1.2 and 1.3 with what is safe")),
    ("tls_version", Goes::Nowhere("TLS 1.2 and 1.3 are spoken")),
    ("connection", Goes::Nowhere(NO_BRIDGE)),
    ("address", Goes::Nowhere(NO_BRIDGE)),
    ("remote_username", Goes::Nowhere(NO_BRIDGE)),
    ("remote_password", Goes::Nowhere(NO_BRIDGE)),
];

/// What a file is that is no `ringmq.toml`, with the number of the line that shows it, and what to do.
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
            "this is a certificate or a key in PEM; those are for --tls-cert, --tls-key and --tls-client-ca";
        return Some((first_at, what.to_owned()));
    }
    if first.starts_with('{') {
        return Some((
            first_at,
            "this looks like JSON; a file of settings is TOML, lines of key = value".to_owned(),
        ));
    }
    let most =
        |is: &dyn Fn(&str) -> bool| lines.iter().filter(|(_, line)| is(line)).count() * 2 > lines.len();
    if most(&|line| line.split_once(":$").is_some_and(|(name, _)| !name.contains(' '))) {
        return Some((
            first_at,
            format!("these are users with hashes of passwords; use it so: --password-file {path}"),
        ));
    }
    let is_rule = |line: &str| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("user" | "topic" | "pattern" | "client"))
            && words.next().is_some_and(|word| word != "=")
    };
    if most(&is_rule) && lines.iter().any(|(_, line)| !line.starts_with("user")) {
        return Some((first_at, format!("these are rules about topics; use it so: --acl-file {path}")));
    }
    let at = lines.iter().find(|(_, line)| setting(line).is_some())?.0;
    most(&|line| setting(line).is_some()).then(|| {
        let same = translated(lines.iter().map(|(_, line)| *line));
        (at, format!("this is a configuration of mosquitto, and ringmq reads TOML. The same in a ringmq.toml:\n\n{same}"))
    })
}

/// A line of a mosquitto.conf.
fn setting(line: &str) -> Option<(&str, &str, Goes)> {
    let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let value = value.trim();
    let known = MOSQUITTO.iter().find(|(name, _)| *name == key)?;
    (!value.starts_with('=')).then_some((key, value, known.1))
}

/// The settings as a `ringmq.toml` has them; comments say what has no place there.
fn translated<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let (mut all, mut notes) = (String::new(), String::new());
    let mut listeners: Vec<String> = Vec::new();
    for line in lines {
        match setting(line) {
            Some((_, value, Goes::All(key))) => {
                let _ = writeln!(all, "{key} = {}", quoted(value));
            }
            Some((_, value, Goes::Begins)) => {
                let (port, host) = value.split_once(' ').unwrap_or((value, ""));
                listeners.push(format!("address = \"{}:{port}\"\n", host.trim()));
            }
            Some((_, value, Goes::Listener(key))) => {
                if listeners.is_empty() {
                    listeners.push("address = \"localhost:1883\"\n".to_owned());
                }
                let last = listeners.len() - 1;
                let _ = writeln!(listeners[last], "{key} = {}", quoted(value));
            }
            Some((_, value, Goes::Binds)) => {
                let _ = writeln!(notes, "# {line}: it is part of the address, such as {value}:1883");
            }
            Some((_, _, Goes::Nowhere(why))) => {
                let _ = writeln!(notes, "# {line}: {why}");
            }
            None => {
                let _ = writeln!(notes, "# {line}: not known");
            }
        }
    }
    let listeners: String = listeners.iter().map(|keys| format!("\n[[listener]]\n{keys}")).collect();
    format!("{all}{notes}{listeners}").trim().to_owned()
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
                    # persistence true: everything is kept in memory\n# some_other thing: not known\n\n\
                    [[listener]]\naddress = \":1883\"\n\n[[listener]]\naddress = \"0.0.0.0:8883\"\n\
                    cert = \"/etc/server.pem\"\nkey = \"/etc/server.key\"";
        assert!(what.contains("configuration of mosquitto") && what.ends_with(toml), "{what}");
        assert!(said("max_connections 5\n").1.ends_with("address = \"localhost:1883\"\nconnections-max = 5"));
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
                Goes::All(key) => assert!(of(super::super::Flags::command(), key), "{name}"),
                Goes::Listener(key) => {
                    assert!(of(super::super::listener::ListenerKeys::command(), key), "{name}");
                }
                Goes::Begins | Goes::Binds | Goes::Nowhere(_) => {}
            }
        }
    }
}
