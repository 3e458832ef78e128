//! A configuration in words: for `ringmq check`, and for the text at the start.

use super::{Config, ListenerConfig, bytes};
use crate::access::{Anonymous, ClientIds, Door};
use crate::limits::ListenerLimits;
use crate::transport::tls::{CertificateUser, ClientCertificates};

/// What a listener speaks, and what holds there and not elsewhere.
pub fn listener_text(config: &Config, listener: &ListenerConfig) -> String {
    let mut parts = Vec::new();
    if let Some(tls) = &listener.tls {
        parts.push("TLS".to_owned());
        let user = match tls.user {
            CertificateUser::CommonName => "Common Name",
            CertificateUser::Subject => "subject",
        };
        match &tls.clients {
            ClientCertificates::None => {}
            ClientCertificates::Optional { .. } => {
                parts.push(format!("client certificates optional, their {user} is the user name"));
            }
            ClientCertificates::Required { .. } => {
                parts.push(format!("client certificates required, their {user} is the user name"));
            }
        }
    }
    parts.extend(limits(&listener.limits, &ListenerLimits::of(&config.limits)));
    parts.join(", ")
}

/// Those limits that a listener has of its own.
fn limits(own: &ListenerLimits, all: &ListenerLimits) -> Vec<String> {
    let mut parts = Vec::new();
    if let Some(max) = own.connections_max {
        parts.push(format!("{max} connections"));
    }
    let mut differs = |what: &str, own: u64, all: u64, text: String| {
        if own != all {
            parts.push(format!("{what} {text}"));
        }
    };
    let ListenerLimits {
        connections_max: _,
        packet_size_max,
        connect_packet_size_max,
        connect_timeout_ms,
        keep_alive_max_s,
        session_expiry_max_s,
    } = *own;
    let size = |value: u32| bytes(value.into());
    differs("packets of", packet_size_max.into(), all.packet_size_max.into(), size(packet_size_max));
    differs(
        "CONNECT of",
        connect_packet_size_max.into(),
        all.connect_packet_size_max.into(),
        size(connect_packet_size_max),
    );
    let seconds = |value: u64| format!("{value} s");
    differs("CONNECT within", connect_timeout_ms, all.connect_timeout_ms, seconds(connect_timeout_ms / 1000));
    let (own, all_s) = (u64::from(keep_alive_max_s), u64::from(all.keep_alive_max_s));
    differs("Keep Alive up to", own, all_s, if own == 0 { "the client's".to_owned() } else { seconds(own) });
    let (own, all_s) = (u64::from(session_expiry_max_s), u64::from(all.session_expiry_max_s));
    differs("sessions kept for", own, all_s, seconds(own));
    parts
}

/// Who is let in at each listener and what they may do, one line if all are alike. `users` counts
/// those of each file. Nothing where nobody set anything and only this machine is served.
pub fn access_text(config: &Config, users: &[usize]) -> Vec<String> {
    let doors: Vec<String> = config
        .listeners
        .iter()
        .zip(&config.access.doors)
        .map(|(at, door)| door_text(config, at, door, users))
        .collect();
    let is_open = |door: &Door| door.users.is_none() && door.rules.is_none();
    if config.is_local()
        && config.access.doors.iter().all(is_open)
        && config.listeners.iter().all(|it| it.tls.is_none())
    {
        return Vec::new();
    }
    match &doors[..] {
        [first, rest @ ..] if rest.iter().all(|other| other == first) => vec![format!("access: {first}")],
        _ => {
            let each = config.listeners.iter().zip(&doors);
            each.map(|(listener, text)| format!("access at {}: {text}", listener.address)).collect()
        }
    }
}

fn door_text(config: &Config, listener: &ListenerConfig, door: &Door, users: &[usize]) -> String {
    let clients = listener.tls.as_ref().map(|tls| &tls.clients);
    let mut who = Vec::new();
    if let Some(count) = door.users.map(|at| users.get(usize::from(at)).copied().unwrap_or_default()) {
        who.push(format!("{count} users"));
    }
    match clients {
        Some(ClientCertificates::Required { .. }) => who = vec!["clients with a certificate".to_owned()],
        Some(ClientCertificates::Optional { .. }) => who.push("clients with a certificate".to_owned()),
        Some(ClientCertificates::None) | None => {}
    }
    let certified = clients.is_some_and(ClientCertificates::is_required);
    match door.anonymous {
        Anonymous::Admitted if certified => {
            who.push("anonymous clients, whose certificate names no user".to_owned());
        }
        Anonymous::Admitted if who.is_empty() && listener.address.ip().is_loopback() => {
            who.push("everybody on this machine".to_owned());
        }
        Anonymous::Admitted if who.is_empty() => {
            who.push("everybody who reaches this address (allow-anonymous)".to_owned());
        }
        Anonymous::Admitted => who.push("anonymous clients".to_owned()),
        Anonymous::Refused if certified => {}
        Anonymous::Refused => who.push("no anonymous clients".to_owned()),
    }
    let ids = match door.client_ids {
        ClientIds::Any => "",
        ClientIds::UserName => ", whose Client Identifier is the user name",
        ClientIds::BeginWithUserName => ", whose Client Identifier begins with the user name",
    };
    let rules = door.rules.and_then(|at| config.access.acl_files.get(usize::from(at)));
    match rules {
        Some(path) => format!("{}{ids}; their rules are in {}", who.join(", "), path.display()),
        None => format!("{}{ids}; all of them may publish and subscribe", who.join(", ")),
    }
}
