//! Who a client is: decided by the shard that read its CONNECT, before it goes home.
//!
//! A password that was verified before is known at once. Any other is hashed elsewhere: the connection is parked with its
//! CONNECT, under a deadline of its own, until the answer comes.

use std::sync::Arc;

use crate::access::{Anonymous, Answer, Identity, LOGIN_WAIT_MAX_MS, Login, Outcome, Verdict};
use crate::clock::Millis;
use crate::memory::{Key, ShardId};
use crate::wire::{Connect, Reason};

use super::Core;
use super::connection::{Phase, Refusal, Verifying};
use super::events::Who;

/// How much later than its hold is over a client is told that its login failed: a turn may know a moment that is a little
/// older than the one at which the hold began, and whoever is told may try again at once.
const TOLD_LATER_MS: Millis = 20;

/// A login waited for its hash until [`LOGIN_WAIT_MAX_MS`] was over.
pub(super) const NOT_IN_TIME: Refusal = (Reason::SERVER_BUSY, "the password was not verified in time");

/// Whether it is known who sent a CONNECT.
#[must_use]
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Identified {
    Yes,
    /// The connection is parked.
    Later,
    /// It was refused.
    No,
}

impl Core {
    /// Finds out who sent a CONNECT, if that is not known yet.
    pub(super) fn identify(&mut self, key: Key, connect: &Connect<'_>, home: ShardId) -> Identified {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(key) else { return Identified::No };
        if connection.identity.is_some() {
            return Identified::Yes;
        }
        let door = self.access.door(connection.listener.0);
        let peer = connection.transport.as_ref().map(|transport| transport.peer()).unwrap_or_default();
        let (is_certified, certified) = (peer.is_certified, peer.user.map(Arc::from));
        let refusal = match (connect.authentication_method, connect.user_name) {
            // No method is offered, so nothing but CONNACK follows such a CONNECT.
            // [MQTT-3.1.2-30] [MQTT-4.12.0-1] [MQTT-4.12.0-6]
            (Some(_), _) => (Reason::BAD_AUTHENTICATION_METHOD, "no Authentication Method is configured"),
            // Whoever shows a certificate is its user, whatever CONNECT says.
            (None, _) if certified.is_some() => {
                return self.known(key, Identity { user: certified, by_certificate: true }, connect);
            }
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
                    match self.access.verify(login) {
                        Verdict::Verified(user) => {
                            let identity = Identity { user: Some(user), by_certificate: false };
                            return self.known(key, identity, connect);
                        }
                        Verdict::Later => {
                            let verifying = Verifying { home, connected_at: now, refusal: None };
                            connection.phase = Phase::Verifying(Box::new(verifying));
                            // What it waits for now is ours, and none of its time to send CONNECT.
                            self.set_deadline(key, now + LOGIN_WAIT_MAX_MS);
                            return Identified::Later;
                        }
                        Verdict::Busy => {
                            (Reason::SERVER_UNAVAILABLE, "too many passwords wait to be verified")
                        }
                    }
                }
                (Some(_) | None, _) => match door.anonymous {
                    Anonymous::Admitted => return self.known(key, Identity::default(), connect),
                    Anonymous::Refused if is_certified => {
                        (Reason::BAD_USER_NAME_OR_PASSWORD, "the certificate names no user")
                    }
                    Anonymous::Refused => (Reason::NOT_AUTHORIZED, "anonymous clients are not let in here"),
                },
            },
        };
        self.refuse_client(key, connect, refusal)
    }

    fn known(&mut self, key: Key, identity: Identity, connect: &Connect<'_>) -> Identified {
        let Some(connection) = self.connections.get(key) else { return Identified::No };
        let rule = self.access.door(connection.listener.0).client_ids;
        if identity.user.as_ref().is_some_and(|user| !rule.permits(user, connect.client_id)) {
            let why = "the Client Identifier does not go with the user name";
            return self.refuse_client(key, connect, (Reason::CLIENT_IDENTIFIER_NOT_VALID, why));
        }
        match self.connections.get_mut(key) {
            Some(connection) => {
                connection.identity = Some(Box::new(identity));
                Identified::Yes
            }
            None => Identified::No,
        }
    }

    fn refuse_client(&mut self, key: Key, connect: &Connect<'_>, (reason, why): Refusal) -> Identified {
        let who = Who::of(connect);
        self.refuse_connect(key, who, connect.version, reason, connect.packet_size_max, why);
        Identified::No
    }

    /// Refuses a connection that has its CONNECT at the front of its bytes.
    pub(super) fn refuse_login(&mut self, key: Key, refusal: Refusal) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let bytes = std::mem::take(&mut connection.partial);
        self.with_connect(&bytes, |core, connect| Some(core.refuse_client(key, connect, refusal)));
    }

    /// Once per turn: logins that were decided elsewhere.
    pub(super) fn take_answers(&mut self) {
        while let Some(answer) = self.access.answer() {
            self.answer_arrived(answer);
        }
    }

    fn answer_arrived(&mut self, Answer { connection: key, outcome }: Answer) {
        if matches!(outcome, Outcome::Wrong { .. }) {
            self.counters().logins_failed_total.add(1);
        }
        let now = self.now;
        // Its peer may have lost patience, or its deadline may have passed.
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Phase::Verifying(verifying) = &mut connection.phase else { return };
        if verifying.refusal.is_some() {
            return;
        }
        let (home, connected_at) = (verifying.home, verifying.connected_at);
        let wrong = (Reason::BAD_USER_NAME_OR_PASSWORD, "the user name or the password is wrong");
        match outcome {
            Outcome::Verified(user) => {
                connection.phase = Phase::Opening;
                let bytes = std::mem::take(&mut connection.partial);
                let identity = Identity { user: Some(user), by_certificate: false };
                let known =
                    self.with_connect(&bytes, |core, connect| Some(core.known(key, identity, connect)));
                if let (Some(connection), Some(Identified::Yes)) = (self.connections.get_mut(key), known) {
                    connection.partial = bytes;
                    let listener = connection.listener;
                    self.set_deadline(key, now + self.limits_at(listener).connect_timeout_ms);
                    self.go_home(key, home, connected_at);
                }
            }
            Outcome::Wrong { hold_ms: 0 } => self.refuse_login(key, wrong),
            Outcome::Wrong { hold_ms } => {
                verifying.refusal = Some(wrong);
                self.set_deadline(key, now + hold_ms + TOLD_LATER_MS);
            }
            Outcome::TooSoon => {
                let why = "too many logins of this user from this address, or of all from there, have failed";
                self.refuse_login(key, (Reason::CONNECTION_RATE_EXCEEDED, why));
            }
            Outcome::Late => self.refuse_login(key, NOT_IN_TIME),
        }
    }
}
