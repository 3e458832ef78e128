//! Flags about users and rules.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::access::{ClientIds, Denial, Overlap, Settings};

#[derive(Args, Debug)]
#[command(next_help_heading = "Users and rules")]
pub(super) struct AccessFlags {
    /// File of users and their password hashes, one line `name:hash` for each
    ///
    /// ringmq passwd FILE USER writes it (argon2id; see its --cost). Password files of mosquitto
    /// are read too ($6$, $7$, and the argon2id of 2.1). A client that names a user has to give
    /// that user's password (else 0x86; 4 in 3.x), also where anonymous clients are let in. SIGHUP
    /// reads the file again.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,

    /// File of rules about who may publish and subscribe to what, in the format of mosquitto's ACL
    /// files
    ///
    /// Whatever no rule allows is denied, and a deny wins over an allow. `topic` lines are for the
    /// last `user NAME` or `client ID` line above them, and for anonymous clients if there is none.
    /// `pattern` lines are for everybody; %u stands for the user name and %c for the Client
    /// Identifier, also inside a level (dev-%c). SIGHUP reads the file again. Clients stay
    /// connected, and the new rules apply to every further message.
    #[arg(long, value_name = "FILE")]
    pub acl_file: Option<PathBuf>,

    /// Client Identifiers that a user may have; a client with another one gets 0x85 (2 in 3.x)
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = ClientIdsFlag::Any)]
    pub client_ids: ClientIdsFlag,

    /// Refuse a SUBSCRIBE whose filter also matches topics that the client may not read
    ///
    /// Without this flag a SUBSCRIBE is refused only if the client may read none of the topics that
    /// its filter matches. Otherwise it is granted, and the client gets the messages that it may
    /// read. A client that may read `home/#` can then subscribe to `#` and gets `home/#`. With this
    /// flag the broker refuses `#` to that client.
    #[arg(long)]
    strict_subscribe: bool,

    /// Answer a denied SUBSCRIBE with 0x80 in v5 too, instead of 0x87
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
