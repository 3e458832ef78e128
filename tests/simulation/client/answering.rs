//! What a client makes of the broker's packets.

use super::*;

impl Client {
    pub(super) fn incoming(&mut self, env: &mut Env<'_>, incoming: Incoming) {
        match &incoming {
            Incoming::Publish(publish) => {
                self.sums.received += 1;
                self.sums.payload_bytes += publish.payload.len() as u64;
            }
            _ => self.sums.answers += 1,
        }
        let Some(conn) = &mut self.conn else { return };
        if !conn.accepted && !matches!(incoming, Incoming::ConnAck { .. }) {
            return env
                .oracle
                .fail(Checker::Answers, format!("{} got {incoming:?} before CONNACK", self.name));
        }
        self.answers.extend(match &incoming {
            Incoming::ConnAck { .. } => Some(packet::CONNACK),
            Incoming::SubAck { .. } => Some(packet::SUBACK),
            Incoming::Ack { kind, .. } => Some(*kind),
            _ => None,
        });
        match incoming {
            Incoming::ConnAck { session_present, code, properties } => {
                self.connack(env, session_present, code, &properties);
            }
            Incoming::Publish(publish) => self.published(env, publish),
            Incoming::Ack { kind: packet::PUBREL, packet_id, code } => self.released(env, packet_id, code),
            Incoming::Ack { kind, packet_id, code } => self.acked(env, kind, packet_id, code),
            Incoming::SubAck { packet_id, codes } => {
                let at =
                    conn.requests.iter().position(|request| matches!(request, Request::Subscribe { .. }));
                match at.and_then(|at| conn.requests.remove(at)) {
                    Some(Request::Subscribe { packet_id: of, begun }) if of == packet_id => {
                        env.oracle.suback(&begun, &codes);
                        self.acknowledged.extend(begun);
                        env.trace.line(env.oracle, || format!("{} got SUBACK {codes:02x?}", self.name));
                    }
                    other => {
                        let what =
                            format!("{} got SUBACK {packet_id} {codes:?}, expected {other:?}", self.name);
                        env.oracle.fail(Checker::Answers, what);
                    }
                }
            }
            Incoming::UnsubAck { packet_id, codes } => {
                let v5 = self.plan.version.is_v5();
                let at =
                    conn.requests.iter().position(|request| matches!(request, Request::Unsubscribe { .. }));
                match at.and_then(|at| conn.requests.remove(at)) {
                    Some(Request::Unsubscribe { packet_id: of, filters, asked }) if of == packet_id => {
                        env.oracle.unsuback(conn.session, asked, &filters, v5.then_some(&codes));
                        env.trace.line(env.oracle, || format!("{} got UNSUBACK {codes:02x?}", self.name));
                    }
                    other => {
                        let what = format!("{} got UNSUBACK {packet_id}, expected {other:?}", self.name);
                        env.oracle.fail(Checker::Answers, what);
                    }
                }
            }
            Incoming::PingResp => {
                env.oracle.check(Checker::Answers, conn.pings > 0, |_| {
                    format!("{} got PINGRESP unasked", self.name)
                });
                conn.pings = conn.pings.saturating_sub(1);
            }
            Incoming::Disconnect { code } => conn.disconnect_code = Some(code),
        }
    }

    pub(super) fn connack(&mut self, env: &mut Env<'_>, present: bool, code: u8, properties: &Properties) {
        let version = self.plan.version;
        let Some(conn) = &mut self.conn else { return };
        let no_room = if version.is_v5() { 0x97 } else { 3 };
        if !conn.accepted && code == no_room && env.oracle.may_refuse_sessions {
            conn.refused = true;
            env.oracle.refused_known += 1;
            conn.out.clear();
            return env.trace.line(env.oracle, || format!("{} is refused for want of memory", self.name));
        }
        if conn.accepted || code != 0 {
            let stopping = env.stopping && !conn.accepted;
            return env
                .oracle
                .check(Checker::Connection, stopping, |_| format!("{} got CONNACK {code:#x}", self.name));
        }
        let number = |id| packet::number(properties, id);
        conn.server_receive_maximum = match version {
            Version::V5 => number(packet::RECEIVE_MAXIMUM).unwrap_or(65_535) as usize,
            // Not told of any, and not held to any.
            Version::V31 | Version::V311 => 65_535,
        };
        conn.server_alias_maximum = number(packet::TOPIC_ALIAS_MAXIMUM).unwrap_or(0);
        let asked = conn.plan.expiry_s;
        let granted = number(packet::SESSION_EXPIRY_INTERVAL).unwrap_or(asked);
        let expected = asked.min(env.limits.session_expiry_max_s);
        env.oracle.check(Checker::Answers, granted == expected || !version.is_v5(), |_| {
            format!(
                "{} asked for an expiry of {asked} s, was granted {granted} s, not {expected} s",
                self.name
            )
        });
        let present = (version != Version::V31).then_some(present);
        let doubtful =
            env.oracle.current[self.ix].is_some_and(|session| env.oracle.sessions[session].doubtful);
        let continues = env.oracle.connack(conn.ix, present);
        conn.accepted = true;
        conn.continues = continues;
        conn.session = env.oracle.conns[conn.ix].session.unwrap_or(usize::MAX);
        self.must_clean = false;
        let ix = conn.ix;
        env.trace.line(env.oracle, || {
            format!("{} got CONNACK, session {}", self.name, if continues { "goes on" } else { "is new" })
        });
        if continues {
            // It may be another session than ours, begun by a CONNECT whose answer was lost: then nothing of the broker's
            // is finished, and if it is ours after all, what it sends again says so.
            if doubtful {
                self.incoming.clear();
                self.unfinished.clear();
                // What it sends again is new to that session then, QoS 2 as well.
                let ix = conn.ix;
                for out in self.outgoing.iter().filter(|out| out.sent_on != ix && !out.released) {
                    env.oracle.may_be_new(out.message);
                }
            }
            self.resend(env);
        } else {
            // What went out on this very connection belongs to the new session.
            self.outgoing.retain(|out| out.sent_on == ix);
            self.incoming.clear();
            self.unfinished.clear();
        }
    }

    /// What was not acknowledged before, in its order.
    pub(super) fn resend(&mut self, env: &mut Env<'_>) {
        let version = self.plan.version;
        let Some(conn) = &mut self.conn else { return };
        for out in &mut self.outgoing {
            if out.sent_on == conn.ix {
                continue;
            }
            out.sent_on = conn.ix;
            if out.released {
                conn.say(&mut self.sums, packet::ack(version, packet::PUBREL, out.packet_id, 0));
                continue;
            }
            env.oracle.sent_again(out.message, conn.ix);
            env.trace
                .line(env.oracle, || format!("{} sends {} again", self.name, env.oracle.name(out.message)));
            let m = &env.oracle.messages[out.message];
            let mut properties = m.properties.clone();
            if let Some(expiry) = m.expiry_s {
                properties.push((packet::MESSAGE_EXPIRY_INTERVAL, Value::Number(expiry)));
            }
            let publish = Publish {
                dup: true,
                qos: m.qos,
                retain: m.retain,
                topic: m.topic.clone(),
                packet_id: out.packet_id,
                properties,
                payload: m.payload.clone(),
            };
            conn.say(&mut self.sums, packet::publish(version, &publish));
        }
    }

    pub(super) fn published(&mut self, env: &mut Env<'_>, mut publish: Publish) {
        let Some(conn) = &mut self.conn else { return };
        if let Some(alias) = packet::number(&publish.properties, packet::TOPIC_ALIAS) {
            let within = (1..=u32::from(conn.plan.topic_alias_maximum)).contains(&alias);
            env.oracle.check(Checker::Flow, within, |_| format!("{} got alias {alias}", self.name));
            if publish.topic.is_empty() {
                publish.topic = conn.aliases_in.get(&alias).cloned().unwrap_or_default();
            } else {
                conn.aliases_in.insert(alias, publish.topic.clone());
            }
        }
        let topic = publish.topic.clone();
        let (packet_id, qos) = (publish.packet_id, publish.qos);
        if topic.starts_with("$SYS") {
            return;
        }
        let known = qos > 0 && self.unfinished.contains_key(&packet_id);
        let repeat = qos == 2 && self.incoming.contains(&packet_id);
        if qos > 0 {
            env.oracle.check(Checker::PacketId, !publish.dup || conn.continues, |_| {
                format!("{} got DUP in a new session", self.name)
            });
            env.oracle.check(Checker::PacketId, publish.dup || !known, |_| {
                format!(
                    "{} got packet identifier {packet_id} again before it was acknowledged: {publish:?}",
                    self.name
                )
            });
            conn.in_flight.insert(packet_id);
            let allowed = conn.plan.receive_maximum.unwrap_or(u16::MAX).min(env.limits.send_maximum);
            env.oracle.check(Checker::Flow, conn.in_flight.len() <= usize::from(allowed), |_| {
                format!("{} has {} in flight, allowed {allowed}", self.name, conn.in_flight.len())
            });
        }
        let delivery = Delivery {
            client: self.ix,
            conn: conn.ix,
            session: conn.session,
            topic: &topic,
            publish: &publish,
            v5: self.plan.version.is_v5(),
            repeat,
        };
        let message = env.oracle.received(&delivery);
        env.trace.line(env.oracle, || {
            let name = message.map_or_else(|| format!("a clear of {topic}"), |id| env.oracle.name(id));
            format!(
                "{} got {name} at q{qos}{}{} packet {packet_id}",
                self.name,
                if publish.dup { " dup" } else { "" },
                if publish.retain { " retained" } else { "" }
            )
        });
        match qos {
            0 => return,
            1 => conn.acks.push_back(Ack { kind: packet::PUBACK, packet_id }),
            _ => {
                self.incoming.insert(packet_id);
                conn.acks.push_back(Ack { kind: packet::PUBREC, packet_id });
            }
        }
        let before = self.unfinished.insert(packet_id, message);
        if let Some(before) = before {
            env.oracle.check(Checker::PacketId, before == message, |_| {
                format!(
                    "{}: packet identifier {packet_id} stood for {before:?} and now for {message:?}",
                    self.name
                )
            });
        }
    }

    pub(super) fn released(&mut self, env: &mut Env<'_>, packet_id: u16, code: u8) {
        let Some(conn) = &mut self.conn else { return };
        let known = self.incoming.remove(&packet_id);
        // Where there is a data directory it has its identifier before it is found to be too large for the client.
        let too_large = env.oracle.crashes.keeps && conn.plan.packet_size_maximum.is_some();
        env.oracle.check(Checker::PacketId, known || conn.continues || too_large, |_| {
            format!("{} got PUBREL {packet_id} (code {code:#x}) for nothing", self.name)
        });
        // On a resumed connection it counts against what the broker may have in flight until it is finished.
        conn.acks.push_back(Ack { kind: packet::PUBCOMP, packet_id });
    }

    pub(super) fn acked(&mut self, env: &mut Env<'_>, kind: u8, packet_id: u16, code: u8) {
        let Some(conn) = &mut self.conn else { return };
        let messages = &env.oracle.messages;
        let fits = |out: &Outgoing| match kind {
            packet::PUBACK => messages[out.message].qos == 1,
            packet::PUBREC => messages[out.message].qos == 2 && !out.released,
            _ => out.released,
        };
        // Acknowledgements of one kind come in the order of what they answer.
        let at = self.outgoing.iter().position(fits);
        let Some(at) = at.filter(|&at| self.outgoing[at].packet_id == packet_id) else {
            let open = format!("{:?}", self.outgoing);
            let what = format!("{} got acknowledgement {kind} of {packet_id}, open: {open}", self.name);
            return env.oracle.fail(Checker::Answers, what);
        };
        let message = self.outgoing[at].message;
        env.trace.line(env.oracle, || {
            format!(
                "{} was answered {} code {code:#x} for {}",
                self.name,
                ["", "", "", "", "PUBACK", "PUBREC", "", "PUBCOMP"][usize::from(kind)],
                env.oracle.name(message)
            )
        });
        match kind {
            packet::PUBREC if code < 0x80 => {
                self.outgoing[at].released = true;
                conn.acks.push_back(Ack { kind: packet::PUBREL, packet_id });
                env.oracle.taken(message, code);
                self.stored.extend(env.oracle.messages[message].retain.then_some(message));
            }
            packet::PUBCOMP => {
                self.outgoing.remove(at);
                let again = code == 0x92 && conn.continues;
                env.oracle.check(Checker::Answers, code == 0 || again, |_| {
                    format!("{} got PUBCOMP {code:#x}", self.name)
                });
            }
            _ => {
                self.outgoing.remove(at);
                env.oracle.taken(message, code);
                let retained = env.oracle.messages[message].retain && code < 0x80;
                self.stored.extend(retained.then_some(message));
            }
        }
    }

    /// At rest: what was written on a connection that is up, or was ended in order, has arrived.
    pub fn settle(&mut self, env: &mut Env<'_>) {
        if let Some((_, conn)) = self.up() {
            env.oracle.all_taken(conn);
        }
    }
}
