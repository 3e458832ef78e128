//! What each packet from the broker means for the connection on which it came.

use super::conn::{Conn, Phase};
use super::ids::Awaiting;
use super::plan::{self, Role};
use super::traffic::{Arrived, Traffic};
use crate::failure::{BEFORE_CONNACK, Failure};
use crate::spec::{Focus, Pattern, Spec};
use crate::wire::decode::{self, Limits, Malformed, Packet, Publish};
use crate::wire::encode;

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
            Phase::Unopened | Phase::Connecting | Phase::Handshake | Phase::AwaitingConnack => BEFORE_CONNACK,
            Phase::AwaitingSuback => "before SUBACK",
            Phase::Up => "in the middle of the run",
            Phase::Leaving | Phase::Closed => "at the end",
        }
    }
}

/// What a worker knows of its connections as a whole.
#[derive(Default)]
pub struct Links {
    /// Connections that are ready for messages.
    pub up: usize,
    /// Clients that were ready at least once.
    pub ever_up: usize,
    /// Connections that got their CONNACK, or failed before.
    pub answered: usize,
    /// Connections that failed before they were ready.
    pub failed: usize,
    /// Clients that came back or failed to, since the storm last looked.
    pub returned: usize,
    /// PINGREQs that a stage waits for.
    pub pings: usize,
    /// Sessions that were removed by a clean start.
    pub forgotten: usize,
    /// Failures that nobody has dealt with yet.
    pub failures: Vec<Failure>,
}

/// Seconds that a persistent session of 5.0 outlives its connection, should loadgen be killed.
const SESSION_EXPIRY_S: u32 = 3600;

impl Links {
    /// Stages CONNECT.
    pub fn greet(spec: &Spec, conn: &mut Conn, forgetting: bool) {
        let client_id = conn.role.client_id(&spec.run_id);
        let keep = spec.persistent && !forgetting;
        let subscriber = matches!(conn.role, Role::Subscriber(_));
        let connect = encode::Connect {
            version: spec.version,
            client_id: &client_id,
            user: spec.user.as_deref(),
            password: spec.password.as_deref(),
            keep_alive_s: spec.keep_alive_s,
            clean: !keep,
            session_expiry_s: if keep { SESSION_EXPIRY_S } else { 0 },
            receive_maximum: u16::MAX,
            topic_alias_maximum: if subscriber { spec.topic_alias_maximum } else { 0 },
        };
        encode::connect(&mut conn.out, &connect);
        conn.phase = Phase::AwaitingConnack;
    }

    /// Stages SUBSCRIBE.
    pub fn subscribe(spec: &Spec, conn: &mut Conn) {
        let filters = plan::filters_of(spec, conn.role);
        encode::subscribe(&mut conn.out, spec.version, SUBSCRIBE_ID, spec.qos, &filters);
        conn.phase = Phase::AwaitingSuback;
    }
}

/// Borrows of a worker's parts for the time of one receive.
pub struct Dispatch<'w, 'a> {
    pub spec: &'a Spec,
    pub traffic: &'w mut Traffic<'a>,
    pub links: &'w mut Links,
    pub now: u64,
    /// Connections are made only to end sessions.
    pub forgetting: bool,
}

/// The identifier of a client's only SUBSCRIBE.
const SUBSCRIBE_ID: u16 = 1;

impl Dispatch<'_, '_> {
    /// The layers below are ready: stages CONNECT.
    pub fn say_hello(&self, conn: &mut Conn) {
        Links::greet(self.spec, conn, self.forgetting);
    }

    /// Acts on one packet; replies are staged in `conn`.
    #[inline]
    pub fn handle_packet(&mut self, conn: &mut Conn, first: u8, body: &[u8]) -> Result<(), Failure> {
        if matches!(conn.phase, Phase::Leaving | Phase::Closed) {
            return Ok(());
        }
        if decode::is_publish(first) {
            let publish = decode::publish(self.spec.version, first, body)?;
            return self.handle_publish(conn, &publish);
        }
        self.handle_other(conn, decode::packet(self.spec.version, first, body)?)
    }

    fn handle_other(&mut self, conn: &mut Conn, packet: Packet<'_>) -> Result<(), Failure> {
        match packet {
            Packet::Publish(publish) => self.handle_publish(conn, &publish),
            Packet::Puback { packet_id, code } => self.handle_ack(conn, packet_id, Awaiting::Puback, code),
            Packet::Pubrec { packet_id, code } => self.handle_pubrec(conn, packet_id, code),
            Packet::Pubcomp { packet_id, .. } => self.handle_ack(conn, packet_id, Awaiting::Pubcomp, 0),
            Packet::Pubrel { packet_id } => {
                conn.release(packet_id);
                encode::ack(&mut conn.out, encode::Ack::Pubcomp, packet_id);
                Ok(())
            }
            Packet::Connack { session_present, code, limits } => {
                self.handle_connack(conn, session_present, code, &limits)
            }
            Packet::Suback { packet_id, codes } => self.handle_suback(conn, packet_id, codes),
            Packet::Pingresp => {
                self.links.pings = self.links.pings.saturating_sub(1);
                Ok(())
            }
            Packet::Disconnect { code } => {
                Err(Failure::Closed { who: conn.role.name(), code: Some(code), during: conn.phase.during() })
            }
        }
    }

    #[inline]
    fn handle_publish(&mut self, conn: &mut Conn, publish: &Publish<'_>) -> Result<(), Failure> {
        let Role::Subscriber(_) = conn.role else {
            return Err(Malformed("PUBLISH to a client that has not subscribed").into());
        };
        // [MQTT-4.3.2-4] [MQTT-4.3.3-8]: every PUBLISH above QoS 0 is acknowledged.
        let mut fresh = true;
        match publish.qos {
            0 => {}
            1 => encode::ack(&mut conn.out, encode::Ack::Puback, publish.packet_id),
            _ => {
                fresh = conn.receive_exactly_once(publish.packet_id);
                encode::ack(&mut conn.out, encode::Ack::Pubrec, publish.packet_id);
            }
        }
        if conn.slow {
            self.traffic.meter.totals.slow_delivered += 1;
            return Ok(());
        }
        let (local, due_ns) = (conn.local, conn.due_ns);
        let arrived = Arrived {
            now_ns: self.now,
            // A message that is repeated on a resumed session is no duplicate of the broker's making.
            repeat: publish.dup && conn.again,
            since_ns: (self.spec.focus == Focus::Retained).then_some(due_ns),
        };
        if !fresh {
            self.traffic.meter.totals.redelivered += 1;
            return Ok(());
        }
        let topic = conn.topic(publish, self.spec.topic_alias_maximum)?;
        self.traffic.handle_message(local, &arrived, topic, publish.payload);
        Ok(())
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

    fn handle_connack(
        &mut self,
        conn: &mut Conn,
        session_present: bool,
        code: u8,
        limits: &Limits,
    ) -> Result<(), Failure> {
        if conn.phase != Phase::AwaitingConnack {
            return Err(Malformed("a second CONNACK").into());
        }
        if code != 0 {
            return Err(Failure::NotAccepted { version: self.spec.version, code });
        }
        if self.forgetting {
            encode::disconnect(&mut conn.out);
            conn.phase = Phase::Leaving;
            conn.session_kept = false;
            self.links.forgotten += 1;
            return Ok(());
        }
        self.suits(limits)?;
        self.links.answered += 1;
        conn.session_kept = self.spec.persistent;
        let resumed = conn.again && self.spec.persistent;
        if resumed && !session_present {
            self.traffic.meter.totals.faults.sessions_lost += 1;
        }
        match conn.role {
            Role::Subscriber(_) if resumed && session_present => self.ready(conn),
            Role::Subscriber(_) if self.spec.focus == Focus::Retained => self.ready(conn),
            Role::Subscriber(_) => Links::subscribe(self.spec, conn),
            Role::Publisher(_) => {
                let limit = self.spec.inflight.min(limits.receive_maximum).max(1);
                let aliases = self.spec.topic_alias_maximum.min(limits.topic_alias_maximum);
                self.traffic.connected(conn.local, limit, aliases);
                self.ready(conn);
            }
            Role::Idler(_) if self.spec.idlers_subscribe && !(resumed && session_present) => {
                Links::subscribe(self.spec, conn);
            }
            Role::Idler(_) => self.ready(conn),
        }
        Ok(())
    }

    /// The client can do its work now.
    fn ready(&mut self, conn: &mut Conn) {
        conn.phase = Phase::Up;
        self.links.up += 1;
        if conn.again {
            self.links.returned += 1;
            self.traffic.meter.reconnected(conn.due_ns, conn.began_ns, self.now);
        } else {
            conn.again = true;
            self.links.ever_up += 1;
            self.traffic.meter.connected(conn.due_ns, conn.began_ns, self.now);
        }
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
        if self.spec.focus == Focus::Retained {
            // It was ready before; this SUBACK belongs to the work.
            conn.phase = Phase::Up;
        } else {
            self.ready(conn);
        }
        Ok(())
    }
}
