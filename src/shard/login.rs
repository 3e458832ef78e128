//! Who a client is: decided by the shard that read its CONNECT, before the connection goes home.
//!
//! A password that was verified before is known at once. Any other is hashed elsewhere: the connection is parked with its
//! request, under a deadline of its own, until the answer comes.

use std::sync::Arc;

use crate::access::{Anonymous, Answer, Identity, LOGIN_WAIT_MAX_MS, Login, Outcome, Verdict};
use crate::clock::Millis;
use crate::memory::Key;
use crate::wire::{Connect, Reason};

use super::clients::Clients;
use super::connection::{Connection, Phase, Refusal, Verifying};
use super::env::Env;
use super::request::Request;

/// How much later than its hold is over a client is told that its login failed: a turn may know a moment that is a little
/// older than the one at which the hold began, and a client that is told may try again at once.
const TOLD_LATER_MS: Millis = 20;

/// A login waited for its hash until [`LOGIN_WAIT_MAX_MS`] was over.
const NOT_IN_TIME: Refusal = (Reason::SERVER_BUSY, "the password was not verified in time");

/// Whether it is known who sent a CONNECT.
#[must_use]
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Identified {
    Yes(Identity),
    /// An answer will come.
    Later,
    No(Refusal),
}

/// Finds out who sent a CONNECT.
pub(super) fn identify(
    key: Key,
    connection: &Connection,
    connect: &Connect<'_>,
    env: &mut Env,
) -> Identified {
    let door = env.access.door(connection.listener.0);
    let peer = connection.transport.as_ref().map(|transport| transport.peer()).unwrap_or_default();
    let (is_certified, certified) = (peer.is_certified, peer.user.map(Arc::from));
    let identity = match (connect.authentication_method, connect.user_name) {
        // No method is offered, so nothing but CONNACK follows such a CONNECT.
        // [MQTT-3.1.2-30] [MQTT-4.12.0-1] [MQTT-4.12.0-6]
        (Some(_), _) => {
            let why = "no Authentication Method is configured";
            return Identified::No((Reason::BAD_AUTHENTICATION_METHOD, why));
        }
        // A client that shows a certificate is its user, whatever CONNECT says.
        (None, _) if certified.is_some() => Identity { user: certified, by_certificate: true },
        (None, user) => match (user, door.users) {
            (Some(user), Some(users)) => {
                let login = Login {
                    users,
                    user,
                    password: connect.password.unwrap_or_default(),
                    peer: connection.peer().ip(),
                    connection: key,
                    patience_ms: LOGIN_WAIT_MAX_MS,
                };
                match env.access.verify(login) {
                    Verdict::Verified(user) => Identity { user: Some(user), by_certificate: false },
                    Verdict::Later => return Identified::Later,
                    Verdict::Busy => {
                        let why = "too many passwords wait to be verified";
                        return Identified::No((Reason::SERVER_UNAVAILABLE, why));
                    }
                }
            }
            (Some(_) | None, _) => match door.anonymous {
                Anonymous::Admitted => Identity::default(),
                Anonymous::Refused if is_certified => {
                    let why = "the certificate names no user";
                    return Identified::No((Reason::BAD_USER_NAME_OR_PASSWORD, why));
                }
                Anonymous::Refused => {
                    let why = "anonymous clients are not let in here";
                    return Identified::No((Reason::NOT_AUTHORIZED, why));
                }
            },
        },
    };
    match may_be_called(&identity, connect.client_id, connection, env) {
        Ok(()) => Identified::Yes(identity),
        Err(refusal) => Identified::No(refusal),
    }
}

/// Whether a user may have this Client Identifier here.
fn may_be_called(
    identity: &Identity,
    client_id: &str,
    connection: &Connection,
    env: &Env,
) -> Result<(), Refusal> {
    let rule = env.access.door(connection.listener.0).client_ids;
    match &identity.user {
        Some(user) if !rule.permits(user, client_id) => {
            let why = "the Client Identifier does not go with the user name";
            Err((Reason::CLIENT_IDENTIFIER_NOT_VALID, why))
        }
        Some(_) | None => Ok(()),
    }
}

impl Clients {
    /// The connection waits until its client's password is verified.
    pub fn park(&mut self, key: Key, request: Box<Request>, env: &mut Env) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.phase = Phase::Verifying(Box::new(Verifying { request, refusal: None }));
        // What it waits for now is ours, and none of its time to send CONNECT.
        self.set_deadline(key, env.now + LOGIN_WAIT_MAX_MS, env);
        self.charge_receive(key, env);
    }

    /// A login was decided elsewhere. Returns a connection that may go home.
    pub fn answer_arrived(&mut self, answer: Answer, env: &mut Env) -> Option<(Key, Box<Request>)> {
        let Answer { connection: key, outcome } = answer;
        if matches!(outcome, Outcome::Wrong { .. }) {
            env.counters().logins_failed_total.add(1);
        }
        // Its peer may have lost patience, or its deadline may have passed.
        let connection = self.connections.get_mut(key)?;
        let Phase::Verifying(verifying) = &mut connection.phase else { return None };
        if verifying.refusal.is_some() {
            return None;
        }
        const WRONG: Refusal = (Reason::BAD_USER_NAME_OR_PASSWORD, "the user name or the password is wrong");
        let refusal = match outcome {
            Outcome::Verified(user) => {
                let identity = Identity { user: Some(user), by_certificate: false };
                let Phase::Verifying(verifying) = std::mem::replace(&mut connection.phase, Phase::Opening)
                else {
                    return None;
                };
                let mut request = verifying.request;
                if let Err(refusal) = may_be_called(&identity, &request.client_id, connection, env) {
                    self.refuse_request(key, &request, refusal, None, env);
                    return None;
                }
                request.identity = identity;
                let timeout_ms = env.limits_at(connection.listener).connect_timeout_ms;
                self.set_deadline(key, env.now + timeout_ms, env);
                return Some((key, request));
            }
            Outcome::Wrong { hold_ms: 0 } => WRONG,
            Outcome::Wrong { hold_ms } => {
                verifying.refusal = Some(WRONG);
                self.set_deadline(key, env.now + hold_ms + TOLD_LATER_MS, env);
                return None;
            }
            Outcome::TooSoon => {
                let why = "too many logins of this user from this address, or of all from there, have failed";
                (Reason::CONNECTION_RATE_EXCEEDED, why)
            }
            Outcome::Late => NOT_IN_TIME,
        };
        verifying.refusal = Some(refusal);
        self.refuse_unverified(key, env);
        None
    }

    /// Tells a client whose password was not verified, or is wrong, that it is not let in.
    pub fn refuse_unverified(&mut self, key: Key, env: &mut Env) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Phase::Verifying(verifying) = std::mem::replace(&mut connection.phase, Phase::Opening) else {
            debug_assert!(false, "a password of this connection is verified");
            return;
        };
        let refusal = verifying.refusal.unwrap_or(NOT_IN_TIME);
        self.refuse_request(key, &verifying.request, refusal, None, env);
    }
}
