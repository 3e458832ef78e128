//! What each packet from the broker means for the connection on which it came.

use super::conn::{Conn, Phase};
use super::ids::Awaiting;
use super::plan::{self, Role};
use super::traffic::Traffic;
use crate::failure::Failure;
use crate::spec::{Pattern, Spec};
use crate::wire::decode::{self, Limits, Malformed, Packet};
use crate::wire::{Version, encode};

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Failure {
        Failure::Malformed { who: String::new(), what: malformed.0 }
    }
}

impl Failure {
    /// Names the client if that is still open.
    pub fn or_of(mut self, role: &Role) -> Failure {
        if let Failure::Malformed { who, .. } = &mut self {
            *who = role.name();
        }
        self
    }
}

impl Phase {
    /// For the sentence "the broker closed the connection …".
    pub fn during(self) -> &'static str {
        match self {
            Phase::Unopened | Phase::Connecting | Phase::AwaitingConnack => "before CONNACK",
            Phase::AwaitingSuback => "before SUBACK",
            Phase::Up => "in the middle of the run",
            Phase::Closing | Phase::Closed => "at the end",
        }
    }
}

/// What a worker knows of its connections as a whole.
#[derive(Default)]
pub struct Links {
    /// Connections that are ready for messages.
    pub up: usize,
    /// Connections that got their CONNACK.
    pub answered: usize,
    /// Failures while connecting.
    pub failures: Vec<Failure>,
}

impl Links {
    /// Stages CONNECT.
    pub fn greet(spec: &Spec, conn: &mut Conn) {
        let client_id = conn.role.client_id(&spec.run_id);
        let connect = encode::Connect {
            version: spec.version,
            client_id: &client_id,
            user: spec.user.as_deref(),
            password: spec.password.as_deref(),
            keep_alive_s: spec.keep_alive_s,
            clean: true,
            session_expiry_s: 0,
            receive_maximum: u16::MAX,
            topic_alias_maximum: 0,
        };
        encode::connect(&mut conn.out, &connect);
    }
}

/// Borrows of a worker's parts for the time of one receive.
pub struct Dispatch<'w, 'a> {
    pub spec: &'a Spec,
    pub traffic: &'w mut Traffic<'a>,
    pub links: &'w mut Links,
    pub now: u64,
}

/// The identifier of a client's only SUBSCRIBE.
const SUBSCRIBE_ID: u16 = 1;

impl Dispatch<'_, '_> {
    /// Acts on one packet; replies are staged in `conn`.
    #[inline]
    pub fn handle_packet(&mut self, conn: &mut Conn, first: u8, body: &[u8]) -> Result<(), Failure> {
        match decode::packet(self.spec.version, first, body)? {
            Packet::Publish { qos, packet_id, payload, .. } => {
                let Role::Subscriber(_) = conn.role else {
                    return Err(Malformed("PUBLISH to a client that has not subscribed").into());
                };
                // [MQTT-4.3.2-4] [MQTT-4.3.3-8]: every PUBLISH above QoS 0 is acknowledged.
                match qos {
                    0 => {}
                    1 => encode::ack(&mut conn.out, encode::Ack::Puback, packet_id),
                    _ => encode::ack(&mut conn.out, encode::Ack::Pubrec, packet_id),
                }
                self.traffic.handle_message(conn.local, self.now, payload);
                Ok(())
            }
            Packet::Puback { packet_id, code } => self.handle_ack(conn, packet_id, Awaiting::Puback, code),
            Packet::Pubrec { packet_id, code } => self.handle_pubrec(conn, packet_id, code),
            Packet::Pubcomp { packet_id, .. } => self.handle_ack(conn, packet_id, Awaiting::Pubcomp, 0),
            Packet::Pubrel { packet_id } => {
                encode::ack(&mut conn.out, encode::Ack::Pubcomp, packet_id);
                Ok(())
            }
            Packet::Connack { code, limits, .. } => self.handle_connack(conn, code, &limits),
            Packet::Suback { packet_id, codes } => self.handle_suback(conn, packet_id, codes),
            Packet::Pingresp => Ok(()),
            Packet::Disconnect { code } => {
                Err(Failure::Closed { who: conn.role.name(), code: Some(code), during: conn.phase.during() })
            }
        }
    }

    fn handle_ack(&mut self, conn: &Conn, packet_id: u16, what: Awaiting, code: u8) -> Result<(), Failure> {
        let Role::Publisher(_) = conn.role else {
            return Err(Malformed("an acknowledgement to a client that has not published").into());
        };
        self.traffic.handle_acked(conn.local, packet_id, what, self.now);
        if code >= 0x80 {
            return Err(Failure::MessageRefused { who: conn.role.name(), code });
        }
        Ok(())
    }

    fn handle_pubrec(&mut self, conn: &mut Conn, packet_id: u16, code: u8) -> Result<(), Failure> {
        if let Role::Publisher(_) = conn.role
            && code < 0x80
        {
            // [MQTT-4.3.3-4]: PUBREL answers PUBREC.
            self.traffic.publishers[conn.local as usize].ids.received(packet_id);
            encode::ack(&mut conn.out, encode::Ack::Pubrel, packet_id);
            return Ok(());
        }
        self.handle_ack(conn, packet_id, Awaiting::Pubrec, code)
    }

    fn handle_connack(&mut self, conn: &mut Conn, code: u8, limits: &Limits) -> Result<(), Failure> {
        if conn.phase != Phase::AwaitingConnack {
            return Err(Malformed("a second CONNACK").into());
        }
        self.links.answered += 1;
        if code != 0 {
            return Err(Failure::NotAccepted { version: self.spec.version, code });
        }
        self.suits(limits)?;
        self.traffic.meter.connected(conn.began_ns, self.now);
        match conn.role {
            Role::Subscriber(number) => {
                let filters = plan::filters_of(self.spec, number);
                encode::subscribe(&mut conn.out, self.spec.version, SUBSCRIBE_ID, self.spec.qos, &filters);
                conn.phase = Phase::AwaitingSuback;
            }
            Role::Publisher(_) => {
                let limit = self.spec.inflight.min(limits.receive_maximum).max(1);
                self.traffic.publishers[conn.local as usize].ids = super::ids::PacketIds::new(limit);
                conn.phase = Phase::Up;
                self.links.up += 1;
            }
            Role::Idler(_) => {
                conn.phase = Phase::Up;
                self.links.up += 1;
            }
        }
        Ok(())
    }

    /// Whether the broker's limits leave room for this run.
    fn suits(&self, limits: &Limits) -> Result<(), Failure> {
        let unsupported = |what: String| Err(Failure::Unsupported { what });
        let spec = self.spec;
        if limits.maximum_qos < spec.qos {
            return unsupported(format!("Maximum QoS is {}: use --qos {0}", limits.maximum_qos));
        }
        let overhead = spec.template.name(spec.publishers, spec.topics_per_publisher).len() + 16;
        if spec.publishers > 0 && spec.sizes.max() + overhead > limits.maximum_packet_size as usize {
            return unsupported(format!("its Maximum Packet Size is {} bytes", limits.maximum_packet_size));
        }
        if spec.retain && !limits.retain_available {
            return unsupported("it does not keep retained messages".into());
        }
        if matches!(spec.pattern, Pattern::Shared { .. }) && !limits.shared_available {
            return unsupported("it has no shared subscriptions".into());
        }
        Ok(())
    }

    fn handle_suback(&mut self, conn: &mut Conn, packet_id: u16, codes: &[u8]) -> Result<(), Failure> {
        if conn.phase != Phase::AwaitingSuback || packet_id != SUBSCRIBE_ID {
            return Err(Malformed("a SUBACK that nobody waits for").into());
        }
        for &code in codes {
            if code >= 0x80 {
                return Err(Failure::SubscriptionRefused { version: self.spec.version, code });
            }
            if code < self.spec.qos {
                return Err(Failure::LowerQos { granted: code, wanted: self.spec.qos });
            }
        }
        conn.phase = Phase::Up;
        self.links.up += 1;
        Ok(())
    }

    /// The version that this run speaks.
    pub fn version(&self) -> Version {
        self.spec.version
    }
}
