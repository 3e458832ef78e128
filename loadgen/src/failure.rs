//! What can go wrong with a broker or with this machine, each with what to do about it.

use std::io;

use crate::wire::{Version, reason};

/// Why a client could not connect, or lost its connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The target's name has no address.
    Unresolved {
        target: String,
        why: String,
    },
    /// Nobody listens there.
    Refused {
        target: String,
    },
    /// The kernel could not reach it.
    Unreachable {
        target: String,
        why: String,
    },
    /// Connected, but no CONNACK (or SUBACK) in time.
    Silent {
        target: String,
        waited_s: u64,
        what: &'static str,
    },
    /// CONNACK with another code than 0.
    NotAccepted {
        version: Version,
        code: u8,
    },
    /// SUBACK with a failure code.
    SubscriptionRefused {
        version: Version,
        code: u8,
    },
    /// The broker granted a lower QoS than the run needs.
    LowerQos {
        granted: u8,
        wanted: u8,
    },
    /// The broker says in CONNACK that it cannot do what the run needs.
    Unsupported {
        what: String,
    },
    /// The broker ended a connection.
    Closed {
        who: String,
        code: Option<u8>,
        during: &'static str,
    },
    /// The connection broke.
    Broken {
        who: String,
        why: String,
    },
    /// The broker refused a message (reason code of PUBACK, PUBREC or PUBCOMP).
    MessageRefused {
        who: String,
        code: u8,
    },
    /// The peer does not speak MQTT as it should.
    Malformed {
        who: String,
        what: &'static str,
    },
    /// TLS or WebSocket did not come about.
    Layer {
        who: String,
        why: String,
    },
    /// Sessions that could not be removed at the end.
    Leftovers {
        sessions: usize,
    },
    Descriptors {
        why: &'static str,
    },
    Ports,
    /// This machine cannot run the generator.
    Machine {
        what: String,
    },
}

/// The time of a connection in which most mistakes of the command line show.
pub const BEFORE_CONNACK: &str = "before CONNACK";
/// What came was something else than MQTT.
pub const NO_CONNACK: &str = "an answer to CONNECT that is no CONNACK";
const LISTENERS: &str = "Is it the right kind of listener? TLS needs --cafile (or --insecure), WebSocket --ws, \
                         plain MQTT neither";

impl Failure {
    /// What a failed `socket` or `connect` means.
    pub fn of_connect(error: &io::Error, target: &str) -> Failure {
        let target = target.to_string();
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => Failure::Refused { target },
            Some(libc::EMFILE) => Failure::Descriptors { why: "this process may open no more descriptors" },
            Some(libc::ENFILE) => Failure::Descriptors { why: "the system's table of open files is full" },
            Some(libc::EADDRNOTAVAIL) => Failure::Ports,
            _ => Failure::Unreachable { target, why: error.to_string() },
        }
    }
}

impl Failure {
    /// Whether a reader would take both for the same trouble, of two clients.
    pub fn is_like(&self, other: &Failure) -> bool {
        match (self, other) {
            (Failure::Closed { code, .. }, Failure::Closed { code: theirs, .. }) => code == theirs,
            (Failure::Broken { why, .. }, Failure::Broken { why: theirs, .. })
            | (Failure::Layer { why, .. }, Failure::Layer { why: theirs, .. }) => why == theirs,
            (Failure::MessageRefused { code, .. }, Failure::MessageRefused { code: theirs, .. }) => {
                code == theirs
            }
            (Failure::Malformed { what, .. }, Failure::Malformed { what: theirs, .. }) => what == theirs,
            _ => self == other,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Unresolved { target, why } => write!(f, "{target} has no address: {why}"),
            Failure::Refused { target } => {
                write!(
                    f,
                    "{target} refused the connection: is the broker running, and is this its port (-p)?"
                )
            }
            Failure::Unreachable { target, why } => write!(f, "cannot connect to {target}: {why}"),
            Failure::Silent { target, waited_s, what } => {
                write!(
                    f,
                    "{target} sent no {what} within {waited_s} s: is it the right kind of listener? TLS needs --cafile (or --insecure), WebSocket --ws"
                )
            }
            Failure::NotAccepted { version, code } => {
                let hint = match (version, code) {
                    (Version::V311, 4 | 5) | (Version::V5, 0x86 | 0x87) => {
                        " (give user and password with -u and -P)"
                    }
                    (Version::V311, 1) | (Version::V5, 0x84 | 1) => " (choose another version with -V)",
                    (Version::V311, 3) | (Version::V5, 0x88 | 0x89 | 0x97 | 0x9F) => {
                        " (try again later, with fewer connections, or slower with --connect-rate)"
                    }
                    _ => "",
                };
                // A broker without 5.0 answers with a code of 3.1.1.
                let version = if *code < 0x80 { Version::V311 } else { *version };
                write!(f, "the broker refused to log in: {} (0x{code:02X}){hint}", reason(version, *code))
            }
            Failure::SubscriptionRefused { version, code } => {
                write!(f, "the broker refused a subscription: {} (0x{code:02X})", reason(*version, *code))
            }
            Failure::LowerQos { granted, wanted } => {
                write!(
                    f,
                    "the broker granted QoS {granted} where the run needs {wanted}: use --qos {granted}"
                )
            }
            Failure::Unsupported { what } => write!(f, "the broker does not support this run: {what}"),
            Failure::Closed { who, code: Some(code), during } => {
                let why = reason(Version::V5, *code);
                write!(f, "the broker closed the connection of {who} {during}: {why} (0x{code:02X})")
            }
            Failure::Closed { who, code: None, during } if *during == BEFORE_CONNACK => {
                write!(
                    f,
                    "the broker closed the connection of {who} {during}, without a reason: see its log. {LISTENERS}"
                )
            }
            Failure::Closed { who, code: None, during } => {
                write!(f, "the broker closed the connection of {who} {during}, without a reason: see its log")
            }
            Failure::Broken { who, why } => write!(f, "the connection of {who} broke: {why}"),
            Failure::MessageRefused { who, code } => {
                let why = reason(Version::V5, *code);
                write!(f, "the broker refused a message of {who}: {why} (0x{code:02X})")
            }
            Failure::Malformed { who, what } if *what == NO_CONNACK => {
                write!(f, "the broker sent {who} something malformed: {what}. {LISTENERS}")
            }
            Failure::Malformed { who, what } => {
                write!(f, "the broker sent {who} something malformed: {what}")
            }
            Failure::Layer { who, why } => {
                let hint = match why {
                    why if why.contains("CertificateRequired") => {
                        ": the broker wants a certificate of the client (--cert and --key)"
                    }
                    why if why.contains("UnknownIssuer") => {
                        ": the certificate is not signed by one in --cafile (--insecure trusts any)"
                    }
                    why if why.contains("NotValidForName") => {
                        ": the certificate is for another name than -h says (--insecure trusts any)"
                    }
                    why if why.contains("InvalidContentType") => ": does this port speak TLS?",
                    _ => "",
                };
                write!(f, "the connection of {who} failed: {why}{hint}")
            }
            Failure::Leftovers { sessions } => {
                write!(f, "{sessions} persistent sessions could not be removed: the broker still keeps them")
            }
            Failure::Descriptors { why } => write!(
                f,
                "too few descriptors: {why}; raise `ulimit -n`, or `sysctl fs.file-max` and `fs.nr_open`"
            ),
            Failure::Ports => write!(
                f,
                "too few local ports: give more source addresses (--source 127.0.0.2-127.0.0.20), or widen \
                 `sysctl net.ipv4.ip_local_port_range`"
            ),
            Failure::Machine { what } => f.write_str(what),
        }
    }
}
