//! Flags about users and rules.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::access::{ClientIds, Denial, Overlap, Settings};

#[derive(Args, Debug)]
#[command(next_help_heading = "Users and rules")]
pub(super) struct AccessFlags {
    /// Users and the hashes of their passwords, a line `name:hash` for each
    ///
    /// Made by: ringmq passwd FILE USER (argon2id; see its --cost). Files of mosquitto are read too ($6$, $7$, and the
    /// argon2id of 2.1). A client that names a
    /// user has to give that user's password (else 0x86; 4 in 3.x), also where anonymous clients are let in. Read again
    /// at SIGHUP, as the whole file is (see --config).
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,

    /// Rules about who may publish and subscribe to what, in the format of mosquitto's ACL files
    ///
    /// What no rule allows is denied, and a deny wins. `topic` lines are for the anonymous, or for the last `user NAME`
    /// or `client ID` above them; `pattern` lines are for everybody, with %u and %c for the client's own names,
    /// also inside a level (dev-%c). Read again at SIGHUP; clients stay, and what they may have is checked anew.
    #[arg(long, value_name = "FILE")]
    pub acl_file: Option<PathBuf>,

    /// Client Identifiers that a user may have; others get 0x85 (2 in 3.x)
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = ClientIdsFlag::Any)]
    pub client_ids: ClientIdsFlag,

    /// Refuse a SUBSCRIBE that matches anything which the client may not have
    ///
    /// Without this flag a SUBSCRIBE is refused only if the client may have nothing that its filter matches. Otherwise it
    /// is granted, SUBACK says so, and of what matches the client gets just the messages that it may have: `#` is granted to
    /// a client that may read `home/#`, and brings it `home/#`. With this flag `#` is refused to that client.
    #[arg(long)]
    strict_subscribe: bool,

    /// Answer a SUBSCRIBE that is denied with 0x80 in v5 too, instead of 0x87
    #[arg(long)]
    suback_unspecified: bool,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ClientIdsFlag {
    Any,
    /// Exactly the user name
    UserName,
    /// Those that begin with the user name
    BeginWithUserName,
}

impl From<ClientIdsFlag> for ClientIds {
    fn from(flag: ClientIdsFlag) -> ClientIds {
        match flag {
            ClientIdsFlag::Any => ClientIds::Any,
            ClientIdsFlag::UserName => ClientIds::UserName,
            ClientIdsFlag::BeginWithUserName => ClientIds::BeginWithUserName,
        }
    }
}

/// What holds at all listeners; their files and doors are still to come.
pub(super) fn settings(flags: &AccessFlags) -> Settings {
    Settings {
        overlap: if flags.strict_subscribe { Overlap::Refuse } else { Overlap::Filter },
        denial: if flags.suback_unspecified { Denial::Unspecified } else { Denial::NotAuthorized },
        ..Settings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{parse, refused};
    use crate::access::Anonymous;

    #[test]
    fn anonymous_clients_come_in_at_loopback_unless_there_are_users() {
        use Anonymous::{Admitted, Refused};
        for (line, expected) in [
            ("--listen 127.0.0.1:1 --listen [::1]:2", [Admitted, Admitted]),
            ("--listen 127.0.0.1:1 --listen [::1]:2 --password-file u", [Refused, Refused]),
            ("--listen 127.0.0.1:1 --listen 0.0.0.0:2 --password-file u", [Refused, Refused]),
            ("--listen 127.0.0.1:1 --listen 0.0.0.0:2 --allow-anonymous", [Admitted, Admitted]),
            (
                "--listen 127.0.0.1:1 --listen 0.0.0.0:2 --password-file u --allow-anonymous",
                [Admitted, Admitted],
            ),
        ] {
            let doors = parse(line).access.doors;
            assert_eq!(doors.iter().map(|door| door.anonymous).collect::<Vec<_>>(), expected, "{line}");
        }
        assert!(refused("--listen 0.0.0.0:1 --acl-file r").contains("--password-file"));
        let hint = parse("--allow-anonymous=true --shards 1").network_hint;
        assert_eq!(hint, "ringmq --shards 1 --listen :1883 --allow-anonymous");
        let hint = parse("--password-file u").network_hint;
        assert_eq!(hint, "ringmq --password-file u --listen :1883");
    }
}
