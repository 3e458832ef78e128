//! Flags about users and rules.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::access::{Anonymous, ClientIds, Denial, Overlap, Settings};

#[derive(Args, Debug)]
#[command(next_help_heading = "Users and rules")]
pub(super) struct AccessFlags {
    /// Users and the hashes of their passwords, a line `name:hash` for each
    ///
    /// Made by: ringmq passwd FILE USER (argon2id). Files of mosquitto are read too ($6$, $7$). A client that names a
    /// user has to give that user's password (else 0x86; 4 in 3.x), also where anonymous clients are let in. Read again
    /// at SIGHUP, together with the rules: all of it or, if anything is wrong, none.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// Rules about who may publish and subscribe to what, in the format of mosquitto's ACL files
    ///
    /// What no rule allows is denied, and a deny wins. `topic` lines are for the anonymous, or for the last `user NAME`
    /// or `client ID` above them; `pattern` lines are for everybody, with %u and %c for the client's own names. Read
    /// again at SIGHUP; clients stay, and what they may have is checked anew.
    #[arg(long, value_name = "FILE")]
    acl_file: Option<PathBuf>,

    /// Client Identifiers that a user may have; others get 0x85 (2 in 3.x)
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = ClientIdsFlag::Any)]
    client_ids: ClientIdsFlag,

    /// Refuse a SUBSCRIBE that matches anything which the client may not have
    ///
    /// Without this flag it is granted, and each message is checked before it is delivered.
    #[arg(long)]
    strict_subscribe: bool,

    /// Answer a SUBSCRIBE that is denied with 0x80 in v5 too, instead of 0x87
    #[arg(long)]
    suback_unspecified: bool,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
enum ClientIdsFlag {
    Any,
    /// Exactly the user name
    UserName,
    /// Those that begin with the user name
    BeginWithUserName,
}

impl AccessFlags {
    pub fn has_users(&self) -> bool {
        self.password_file.is_some()
    }
}

/// The flags together with the addresses that anonymous clients may or may not use.
///
/// `listeners` are addresses, each with whether a certificate is required there.
pub(super) fn settings(
    flags: &AccessFlags,
    listeners: impl Iterator<Item = (SocketAddr, bool)>,
    allow_anonymous: bool,
) -> Settings {
    let AccessFlags { password_file, acl_file, client_ids, strict_subscribe, suback_unspecified } = flags;
    let anonymous = |(address, certified): (SocketAddr, bool)| {
        let admitted = allow_anonymous || certified || address.ip().is_loopback() && password_file.is_none();
        if admitted { Anonymous::Admitted } else { Anonymous::Refused }
    };
    Settings {
        password_file: password_file.clone(),
        acl_file: acl_file.clone(),
        anonymous: listeners.map(anonymous).collect(),
        client_ids: match client_ids {
            ClientIdsFlag::Any => ClientIds::Any,
            ClientIdsFlag::UserName => ClientIds::UserName,
            ClientIdsFlag::BeginWithUserName => ClientIds::BeginWithUserName,
        },
        overlap: if *strict_subscribe { Overlap::Refuse } else { Overlap::Filter },
        denial: if *suback_unspecified { Denial::Unspecified } else { Denial::NotAuthorized },
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{parse, refused};
    use super::*;

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
            assert_eq!(*parse(line).access.anonymous, expected, "{line}");
        }
        assert!(refused("--listen 0.0.0.0:1 --acl-file r").contains("--password-file"));
        let hint = parse("--password-file u").network_hint;
        assert_eq!(hint, "ringmq --password-file u --listen 0.0.0.0:1883");
    }
}
