//! Control Packets of a connected client: bytes are cut into packets, packets change its session, replies are staged.

use crate::memory::{Class, Key, Outbox, Whole};
use crate::session::{Cx, Link, PubrecReply, Session};
use crate::wire::{self, AckKind, DecodeError, Disconnect, Frame, NextFrame, Packet, Reason, Version};

use super::Core;
use super::connection::{Closing, End, Phase};
use super::gather::gather;
use super::login::NOT_IN_TIME;
use super::publish::{Front, Publisher};
use super::waits::Blocked;

/// Whether a saturated shard may hold a packet back.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Pressure {
    Respect,
    /// The last bytes of a connection: acted upon all the same, once a switch lets them.
    Ignore,
}

/// Why no further packet was taken from the input.
enum Stop {
    /// Its next packet is not whole; `need` bytes in all before it pays to look again.
    Incomplete { need: usize },
    /// Its next packet has to wait.
    Blocked,
    /// The connection is over; the rest means nothing.
    Over,
}

/// Whether a connection that is taken over was parsed to its end.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum LastParse {
    Done,
    Waits,
}

/// What became of one packet.
pub(super) enum Handled {
    Done,
    Blocked(Blocked),
}

impl Core {
    /// Parses what arrived. A partial packet is completed with no more bytes than it needs, so that the rest is parsed
    /// where it lies, and what was gathered can be kept.
    /// What comes behind a DISCONNECT is not looked at. // 3.1.1: [MQTT-3.14.4-2]
    pub(super) fn parse(&mut self, key: Key, bytes: &[u8]) {
        let Some(connection) = self.clients.connections.get_mut(key) else { return };
        let mut rest = bytes;
        // Mostly nothing is kept of it, before or after.
        let mut is_charged =
            connection.secure.is_some() || connection.charged_receive > 0 || connection.charged_login > 0;
        if !connection.partial.is_empty() {
            is_charged = true;
            let mut partial = std::mem::take(&mut connection.partial);
            let mut awaited = 0;
            loop {
                let stop = if partial.len() == awaited && awaited >= Outbox::SPLICE_MIN {
                    self.consume_whole(key, &mut partial)
                } else {
                    let (used, stop) = self.consume(key, &partial, None, Pressure::Respect);
                    partial.drain(..used);
                    stop
                };
                let missing = match stop {
                    Stop::Over => return,
                    Stop::Blocked => rest.len(),
                    Stop::Incomplete { .. } if partial.is_empty() => break,
                    Stop::Incomplete { need } => {
                        awaited = need;
                        need.saturating_sub(partial.len()).min(rest.len())
                    }
                };
                let (more, later) = rest.split_at(missing);
                gather(&mut partial, more, awaited);
                rest = later;
                if more.is_empty() || matches!(stop, Stop::Blocked) {
                    return self.keep(key, partial);
                }
            }
        }
        let (used, need) = match self.consume(key, rest, None, Pressure::Respect) {
            (_, Stop::Over) => return,
            (used, Stop::Incomplete { need }) => (used, need),
            (used, Stop::Blocked) => (used, 0),
        };
        if used < rest.len() {
            let mut partial = Vec::new();
            gather(&mut partial, &rest[used..], need);
            self.keep(key, partial);
        } else if is_charged {
            self.charge_receive(key);
        }
    }

    /// Acts upon one packet that has its memory for itself, so that whoever keeps its payload need not copy it. What was
    /// not used stays in `packet`.
    fn consume_whole(&mut self, key: Key, packet: &mut Vec<u8>) -> Stop {
        let whole = Whole::new(std::mem::take(packet));
        let (used, stop) = self.consume(key, whole.packet(), Some(&whole), Pressure::Respect);
        *packet = match whole.into_packet() {
            Ok(mut packet) => {
                packet.drain(..used);
                packet
            }
            Err(kept) => kept.packet()[used..].to_vec(),
        };
        stop
    }

    /// Parses the last bytes of a connection that is taken over. What waits for a switch is kept, and there is more to
    /// parse once the connection is resumed.
    #[must_use]
    pub(super) fn parse_last(&mut self, key: Key, bytes: &[u8]) -> LastParse {
        match self.consume(key, bytes, None, Pressure::Ignore) {
            (used, Stop::Blocked) => {
                self.keep(key, bytes[used..].to_vec());
                LastParse::Waits
            }
            (_, Stop::Over | Stop::Incomplete { .. }) => LastParse::Done,
        }
    }

    fn keep(&mut self, key: Key, partial: Vec<u8>) {
        if let Some(connection) = self.clients.connections.get_mut(key) {
            connection.partial = partial;
            connection.heard_bytes(self.env.now);
            self.charge_receive(key);
        }
    }

    /// Charges what a connection keeps on the way in.
    pub(super) fn charge_receive(&mut self, key: Key) {
        let Some(connection) = self.clients.connections.get_mut(key) else { return };
        let (kept, login) = connection.kept_bytes();
        let charged = connection.charged_receive as usize;
        if kept <= charged {
            self.env.budget.release(Class::Receive, charged - kept);
            connection.charged_receive = kept as u32; // no larger than what is charged
        } else if kept <= u32::MAX as usize && self.env.budget.charge(Class::Receive, kept - charged) {
            connection.charged_receive = kept as u32;
        } else {
            self.env.counters().dropped_receive_memory_total.add(1);
            return self
                .end(key, End::Refused(Reason::QUOTA_EXCEEDED, "memory for partial packets is used up"));
        }
        if login != connection.charged_login as usize {
            self.charge_login(key, login);
        }
    }

    /// Charges what a connection keeps whose client is not logged in.
    #[inline(never)]
    fn charge_login(&mut self, key: Key, kept: usize) {
        let Some(connection) = self.clients.connections.get_mut(key) else { return };
        let charged = connection.charged_login as usize;
        if kept <= charged {
            self.env.budget.release(Class::Login, charged - kept);
        } else if !self.env.budget.charge(Class::Login, kept - charged) {
            return self.refuse_unfinished_connect(key);
        }
        connection.charged_login = kept as u32; // a CONNECT and a receive buffer
    }

    /// Acts upon the packets at the front of `input`; `whole` is all of it if that is one packet that has its memory for itself.
    fn consume(
        &mut self,
        key: Key,
        input: &[u8],
        whole: Option<&Whole>,
        pressure: Pressure,
    ) -> (usize, Stop) {
        let mut used = 0;
        // One more packet, though much is owed.
        let mut may_answer = pressure == Pressure::Ignore;
        loop {
            let now = self.env.now;
            let Some(connection) = self.clients.connections.get_mut(key) else {
                return (input.len(), Stop::Over);
            };
            if connection.owes_much() && !may_answer {
                if self.holds_back(key) {
                    return (used, Stop::Blocked);
                }
                may_answer = true;
                continue;
            }
            may_answer = pressure == Pressure::Ignore;
            let Some(live) = connection.live_mut() else { return (input.len(), Stop::Over) };
            let version = live.link.version;
            let rest = &input[used..];
            if let Some(acks) = wire::PlainAcks::of(rest) {
                live.last_packet_at = now;
                used += acks.bytes_len();
                self.handle_acks(key, acks);
                continue;
            }
            let packet_size_max = self.clients.told.terms(live.link.terms).packet_size_max;
            let frame = match wire::next_frame(rest, packet_size_max, version.length_form()) {
                Ok(NextFrame::Frame(frame)) => frame,
                Ok(NextFrame::Incomplete { need }) => {
                    if let Some(first) = rest.first()
                        && let Err(error) = judge_first(version, *first)
                    {
                        self.refuse(key, error);
                        return (input.len(), Stop::Over);
                    }
                    return (used, Stop::Incomplete { need });
                }
                Err(error) => {
                    // The first byte comes first.
                    let error = judge_first(version, rest[0]).err().unwrap_or(error);
                    self.refuse(key, error);
                    return (input.len(), Stop::Over);
                }
            };
            live.last_packet_at = now;
            let handled = if frame.is_publish() {
                let (session, client_hash) = (live.session, live.client_hash);
                let from = Publisher { connection: key, session, version, client_hash };
                let known = live.known.clone();
                let front = Front { frame, input: rest, whole, packet_size_max };
                self.handle_publish(from, &front, known.as_ref(), pressure)
            } else {
                self.handle_frame(key, version, &frame, pressure).map(|handled| (handled, 1, frame.len))
            };
            match handled {
                Ok((Handled::Done, packets, len)) => {
                    used += len;
                    self.env.counters().packets_received_total.add(packets as u64);
                }
                Ok((Handled::Blocked(blocked), ..)) => {
                    self.pause(key, blocked);
                    return (used, Stop::Blocked);
                }
                Err(error) => {
                    self.refuse(key, error);
                    return (input.len(), Stop::Over);
                }
            }
        }
    }

    /// Stops answering a client that owes it to us to read first, and says so: a turn may have received much from it, and
    /// from thousands like it, once the memory for sending is used up.
    #[inline(never)]
    fn holds_back(&mut self, key: Key) -> bool {
        let Some(connection) = self.clients.connections.get_mut(key) else { return false };
        let waiting = connection.outbox.len() + connection.in_flight_bytes as usize;
        let more = waiting.saturating_sub(connection.charged_send as usize);
        connection.starved |= !self.env.budget.has_room(Class::Send, more);
        // What a client said before it left is acted upon, though nobody reads the answers.
        let leaves = connection.eof || connection.broken;
        if leaves || !connection.is_clogged(self.env.limits.send_buffer_bytes_max) {
            return false;
        }
        let Some(live) = connection.live_mut() else { return false };
        let _ = live.block(Blocked::Output);
        self.mark_dirty(key);
        true
    }

    /// A send has ended: who was held back until then goes on.
    pub(super) fn output_taken(&mut self, key: Key) {
        let max = self.env.limits.send_buffer_bytes_max;
        let Some(connection) = self.clients.connections.get(key) else { return };
        if connection.is_held_back() && (connection.broken || !connection.is_clogged(max)) {
            self.resume(key);
        }
    }

    /// [MQTT-4.13.1-1]
    /// The first fault that is found is the one reported; nobody else notices. // [U5-4.13-2] [U5-4.13-3]; 3.1.1: [MQTT-4.8.0-1] [U311-4.8-1]
    pub(super) fn refuse(&mut self, key: Key, error: DecodeError) {
        self.env.counters().protocol_errors_total.add(1);
        self.end(key, End::Refused(error.reason(), error.detail()));
    }

    /// A packet other than PUBLISH.
    fn handle_frame(
        &mut self,
        key: Key,
        version: Version,
        frame: &Frame<'_>,
        pressure: Pressure,
    ) -> Result<Handled, DecodeError> {
        match wire::decode(version, frame, &self.env.decode_limits)? {
            Packet::Publish(_) => {}
            Packet::PubAck(ack) => self.handle_puback(key, ack),
            Packet::PubRec(ack) => self.handle_pubrec(key, ack),
            Packet::PubRel(ack) => self.handle_pubrel(key, ack),
            Packet::PubComp(ack) => self.handle_pubcomp(key, ack),
            Packet::Subscribe(subscribe) => {
                if let Err(blocked) = self.subscribe_waits(key) {
                    return Ok(Handled::Blocked(blocked));
                }
                return self.handle_subscribe(key, version, &subscribe, frame.len, pressure);
            }
            Packet::Unsubscribe(unsubscribe) => {
                return self.handle_unsubscribe(key, version, &unsubscribe, frame.len, pressure);
            }
            // [MQTT-3.12.4-1]
            Packet::PingReq => self.stage(key, wire::encode_pingresp),
            Packet::Disconnect(disconnect) => self.handle_disconnect(key, &disconnect)?,
            // [MQTT-3.1.0-2]; 3.1.1: [311:MQTT-3.1.0-2]
            Packet::Connect => return Err(SECOND_CONNECT),
            // No CONNECT with an Authentication Method is accepted, so AUTH is always out of place. // [MQTT-4.12.0-7]
            // [U5-3.15.0-1]
            Packet::Auth(_) => {
                return Err(DecodeError::ProtocolError("AUTH without an Authentication Method"));
            }
        }
        Ok(Handled::Done)
    }

    /// Stages a packet for the client.
    /// Nothing here is larger than it has to be: no Reason String, no User Property. // [MQTT-3.4.2-2] [MQTT-3.4.2-3]
    /// [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3] [MQTT-3.7.2-2] [MQTT-3.7.2-3] [MQTT-3.9.2-1]
    /// [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2] [MQTT-3.14.2-4]
    pub(super) fn stage(&mut self, key: Key, encode: impl FnOnce(&mut Vec<u8>)) {
        let Some(connection) = self.clients.connections.get_mut(key) else { return };
        let packet_size_max = connection.live().map_or(u32::MAX, |live| live.link.packet_size_max);
        connection.outbox.provide(&mut self.clients.spare_buffers);
        let out = connection.outbox.bytes_mut();
        let start = out.len();
        encode(out);
        if out.len() - start > packet_size_max as usize {
            out.truncate(start); // [MQTT-3.1.2-24] [MQTT-3.1.2-25]
            return;
        }
        self.env.counters[usize::from(self.env.id)].packets_sent_total.add(1);
        if !connection.dirty {
            connection.dirty = true;
            self.clients.dirty.push(key);
        }
    }

    /// Acknowledgements that say no more than success.
    fn handle_acks(&mut self, key: Key, acks: wire::PlainAcks<'_>) {
        self.env.counters().packets_received_total.add(acks.count() as u64);
        match acks.kind() {
            AckKind::PubAck => self.acknowledged(key, |session, link, cx| {
                let _ = session.handle_pubacks(link, acks.packet_ids(), cx);
            }),
            AckKind::PubComp => self.acknowledged(key, |session, link, cx| {
                let _ = session.handle_pubcomps(link, acks.packet_ids(), cx);
            }),
            AckKind::PubRec => self.answer(key, acks, AckKind::PubRel, |session, link, packet_id, cx| {
                // Success is answered in any case.
                pubrel(session.handle_pubrec(link, packet_id, Reason::SUCCESS, cx)).unwrap_or(Reason::SUCCESS)
            }),
            // [MQTT-4.3.3-11]
            AckKind::PubRel => self.answer(key, acks, AckKind::PubComp, |session, link, packet_id, _| {
                session.handle_pubrel(link, packet_id)
            }),
        }
    }

    /// Handles acknowledgements that are answered, and stages the answers.
    #[inline(never)] // Else what everybody goes through has to save registers for it.
    fn answer(
        &mut self,
        key: Key,
        acks: wire::PlainAcks<'_>,
        kind: AckKind,
        mut handle: impl FnMut(&mut Session, &mut Link, u16, &mut Cx<'_>) -> Reason,
    ) {
        for some in acks.chunks(u64::BITS as usize) {
            // A bit for each that is not known.
            let unknown = self.with_session(key, |session, link, cx| {
                some.packet_ids().zip(0..).fold(0, |unknown, (packet_id, at)| {
                    unknown | u64::from(handle(session, link, packet_id, cx) != Reason::SUCCESS) << at
                })
            });
            let Some(unknown) = unknown else { return };
            if unknown == 0 {
                self.stage_acks(key, kind, some.packet_ids(), Reason::SUCCESS);
                continue;
            }
            let Some(version) = self.clients.connections.get(key).and_then(|connection| connection.version())
            else {
                return;
            };
            for (packet_id, at) in some.packet_ids().zip(0..) {
                let known = unknown >> at & 1 == 0;
                let reason = if known { Reason::SUCCESS } else { Reason::PACKET_IDENTIFIER_NOT_FOUND };
                self.stage(key, |out| wire::encode_ack(out, version, kind, packet_id, reason));
            }
        }
    }

    fn handle_puback(&mut self, key: Key, ack: wire::Ack) {
        self.acknowledged(key, |session, link, cx| {
            let _ = session.handle_puback(link, ack.packet_id, cx);
        });
    }

    fn handle_pubrec(&mut self, key: Key, ack: wire::Ack) {
        let reply = self.with_session(key, |session, link, cx| {
            session.handle_pubrec(link, ack.packet_id, ack.reason, cx)
        });
        let version = self.clients.connections.get(key).and_then(|connection| connection.version());
        let (Some(reason), Some(version)) = (reply.and_then(pubrel), version) else {
            return self.room_made(key);
        };
        self.stage(key, |out| wire::encode_ack(out, version, AckKind::PubRel, ack.packet_id, reason));
    }

    /// [MQTT-4.3.3-11]
    fn handle_pubrel(&mut self, key: Key, ack: wire::Ack) {
        let reason = self.with_session(key, |session, link, _| session.handle_pubrel(link, ack.packet_id));
        let version = self.clients.connections.get(key).and_then(|connection| connection.version());
        if let (Some(reason), Some(version)) = (reason, version) {
            self.stage(key, |out| wire::encode_ack(out, version, AckKind::PubComp, ack.packet_id, reason));
        }
    }

    fn handle_pubcomp(&mut self, key: Key, ack: wire::Ack) {
        self.acknowledged(key, |session, link, cx| {
            let _ = session.handle_pubcomp(link, ack.packet_id, cx);
        });
    }

    /// [MQTT-3.14.4-3]
    fn handle_disconnect(&mut self, key: Key, disconnect: &Disconnect<'_>) -> Result<(), DecodeError> {
        let connection = self.clients.connections.get(key);
        let at = connection.and_then(|connection| Some((connection.session()?, connection.listener)));
        let at = at.map(|(session, listener)| (session, self.env.limits_at(listener).session_expiry_max_s));
        if let (Some((session, expiry_max_s)), Some(expiry_s)) = (at, disconnect.session_expiry_s)
            && let Some(slot) = self.sessions.arena.get_mut(session)
        {
            // [U5-3.14.2-4]: then the DISCONNECT counts as not received, and the will goes out.
            if slot.asked_expiry_s == 0 && expiry_s != 0 {
                return Err(DecodeError::ProtocolError(
                    "Session Expiry Interval on DISCONNECT after 0 on CONNECT",
                ));
            }
            slot.expiry_s = expiry_s.min(expiry_max_s); // [U5-3.14.2-3]
        }
        let end = if disconnect.reason == Reason::NORMAL_DISCONNECTION {
            End::Disconnected
        } else {
            End::DisconnectedWithWill // [U5-3.14.2-2]
        };
        self.end(key, end);
        Ok(())
    }

    /// Ends a connection: its session learns of it, a v5 client is told why if we are the ones who end it, and what is
    /// staged is sent unless the peer is gone.
    /// After DISCONNECT nothing more is staged, and we close. // [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-3.14.2-2]
    /// A DISCONNECT goes only to a client whose CONNECT was accepted, and never to 3.x. // [MQTT-3.14.0-1] [U5-4.13-1] [U5-3.14.4-1]; 3.1.1: [U311-3.14-1] [U311-3.14.4-1]
    pub(super) fn end(&mut self, key: Key, end: End) {
        let Some(connection) = self.clients.connections.get(key) else { return };
        if connection.is_closing() {
            if matches!(end, End::Lost | End::Told) {
                self.start_closing(key, Closing::Abort);
            }
            return;
        }
        self.log_end(key, end);
        self.forget_waiting(key);
        let disconnect = match end {
            End::Refused(reason, _) => Some(reason),
            End::TakenOver => Some(Reason::SESSION_TAKEN_OVER), // [MQTT-3.1.4-3]
            End::Disconnected | End::DisconnectedWithWill | End::Lost | End::Told => None,
        };
        let Some(connection) = self.clients.connections.get_mut(key) else { return };
        if let (Phase::Live(live), Some(reason)) = (&connection.phase, disconnect)
            && live.link.version == Version::V5
        {
            let packet_size_max = live.link.packet_size_max;
            let text = match end {
                End::Refused(_, detail) => Some(detail),
                End::TakenOver | End::Disconnected | End::DisconnectedWithWill | End::Lost | End::Told => {
                    None
                }
            };
            let out = connection.outbox.bytes_mut();
            let start = out.len();
            wire::encode_disconnect(out, reason, text, packet_size_max);
            let written = u64::from(out.len() > start);
            self.env.counters[usize::from(self.env.id)].packets_sent_total.add(written);
        }
        let live = connection.live().map(|live| live.session);
        // Who only ended its own side may still read what it is owed.
        let step = match end {
            End::Lost | End::Told if !connection.is_half_closed() => Closing::Abort,
            _ => Closing::Flush,
        };
        self.start_closing(key, step);
        if let Some(session) = live {
            self.connection_ended(session, key, end);
        }
    }

    /// A deadline passed that nothing moved on.
    pub(super) fn deadline_passed(&mut self, key: Key) {
        let Some(connection) = self.clients.connections.get_mut(key) else { return };
        match &connection.phase {
            Phase::Opening | Phase::HandOff => {
                let why = connection.late();
                self.env.counters().connect_timeouts_total.add(1); // [U5-3.1.0-1]
                self.turn_away(key, why);
            }
            Phase::Verifying(verifying) => {
                let refusal = verifying.refusal.unwrap_or(NOT_IN_TIME);
                self.refuse_login(key, refusal);
            }
            Phase::Waiting(successor) => {
                let session = successor.session;
                self.force_takeover(session);
                // Others may be served before it, each of whom has to end then.
                self.set_deadline(key, self.env.now + self.env.options.takeover_ms);
            }
            Phase::Live(_) => {
                self.env.counters().keep_alive_timeouts_total.add(1);
                self.end(
                    key,
                    End::Refused(Reason::KEEP_ALIVE_TIMEOUT, "no packet within 1.5 times the Keep Alive"),
                );
            }
            Phase::Closing(_) => {
                connection.phase = Phase::Closing(Closing::Abort);
                self.mark_dirty(key);
            }
        }
    }
}

const SECOND_CONNECT: DecodeError = DecodeError::ProtocolError("second CONNECT");

/// Judges a packet that is not whole yet by its first byte. Who sends one that nothing can make good is not waited for.
#[cold]
fn judge_first(version: Version, first: u8) -> Result<(), DecodeError> {
    match first >> 4 {
        1 => Err(SECOND_CONNECT),
        _ => wire::judge_first(version, first),
    }
}

/// The code of the PUBREL that answers a PUBREC, if one does. // [MQTT-4.3.3-4]
fn pubrel(reply: PubrecReply) -> Option<Reason> {
    match reply {
        PubrecReply::PubRel => Some(Reason::SUCCESS),
        PubrecReply::PubRelNotFound => Some(Reason::PACKET_IDENTIFIER_NOT_FOUND), // [U5-4.3-2]
        PubrecReply::None => None,
    }
}
