//! Control Packets of a connected client: bytes are cut into packets, packets change its session, replies are staged.

use crate::memory::{Key, Outbox, Whole};
use crate::session::{Cx, Link, PubrecReply, Session};
use crate::store::Record;
use crate::wire::{self, AckKind, DecodeError, Disconnect, Frame, NextFrame, Packet, Reason, Version};

use super::Core;
use super::clients::Clients;
use super::connection::End;
use super::env::Env;
use super::gather::gather;
use super::local::Local;
use super::order::Heard;
use super::publish::{Front, Publisher};
use super::replies::{Answered, Reply};
use super::waits::{Blocked, Wait};

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

impl Clients {
    /// [MQTT-4.13.1-1]
    /// The first fault that is found is the one reported; nobody else notices. // [U5-4.13-2] [U5-4.13-3]; 3.1.1: [MQTT-4.8.0-1] [U311-4.8-1]
    pub fn refuse(&mut self, key: Key, error: DecodeError, env: &mut Env) {
        env.counters().protocol_errors_total.add(1);
        self.end(key, End::Refused(error.reason(), error.detail()), env);
    }
}

impl Local {
    fn handle_puback(&mut self, key: Key, ack: wire::Ack) {
        self.acknowledged(key, |session, link, cx| {
            let _ = session.handle_puback(link, ack.packet_id, cx);
        });
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
        if let (Some((session, listener)), Some(expiry_s)) = (at, disconnect.session_expiry_s) {
            let expiry_max_s = self.env.limits_at(listener).session_expiry_max_s;
            if !self.sessions.set_expiry(session, expiry_s, expiry_max_s) {
                return Err(DecodeError::ProtocolError(
                    "Session Expiry Interval on DISCONNECT after 0 on CONNECT",
                ));
            }
        }
        let end = if disconnect.reason == Reason::NORMAL_DISCONNECTION {
            End::Disconnected
        } else {
            End::DisconnectedWithWill // [U5-3.14.2-2]
        };
        self.clients.end(key, end, &mut self.env);
        Ok(())
    }
}

impl Core {
    /// Acknowledgements that say no more than success.
    fn handle_acks(&mut self, key: Key, acks: wire::PlainAcks<'_>) {
        self.local.env.counters().packets_received_total.add(acks.count() as u64);
        match acks.kind() {
            AckKind::PubAck => self.local.acknowledged(key, |session, link, cx| {
                let _ = session.handle_pubacks(link, acks.packet_ids(), cx);
            }),
            AckKind::PubComp => self.local.acknowledged(key, |session, link, cx| {
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

    /// Handles acknowledgements that are answered, and answers them: at once, or when the disk has what they changed.
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
            let unknown = self.local.with_session(key, |session, link, cx| {
                some.packet_ids().zip(0..).fold(0, |unknown, (packet_id, at)| {
                    unknown | u64::from(handle(session, link, packet_id, cx) != Reason::SUCCESS) << at
                })
            });
            let Some(unknown) = unknown else { return };
            if kind == AckKind::PubComp {
                self.keep_freed(key, some.packet_ids());
            }
            if unknown == 0 {
                self.answer_all(key, kind, some.packet_ids(), Reason::SUCCESS);
                continue;
            }
            for (packet_id, at) in some.packet_ids().zip(0..) {
                let known = unknown >> at & 1 == 0;
                let reason = if known { Reason::SUCCESS } else { Reason::PACKET_IDENTIFIER_NOT_FOUND };
                self.answer_all(key, kind, std::iter::once(packet_id), reason);
            }
        }
    }

    /// Answers these packets with the same.
    fn answer_all(&mut self, key: Key, kind: AckKind, packet_ids: impl Iterator<Item = u16>, reason: Reason) {
        if self.local.env.keep.is_none() {
            return self.local.clients.stage_acks(key, kind, packet_ids, reason, &self.local.env);
        }
        let Some(session) = self.local.clients.live(key).map(|live| live.session) else { return };
        let packet_ids = Answered::of(packet_ids);
        let disk = self.on_disk_if_kept(session);
        let peers = self.exchange.links.peers();
        let wait = match kind {
            // No shard takes the next message under this identifier for this one.
            AckKind::PubComp if !peers.is_empty() => Wait::All([disk, self.exchange.kept(peers)].into()),
            AckKind::PubAck | AckKind::PubRec | AckKind::PubRel | AckKind::PubComp => disk,
        };
        self.reply(key, Reply::Ack { kind, packet_ids, reason }, wait);
    }

    fn handle_pubrec(&mut self, key: Key, ack: wire::Ack) {
        let reply = self.local.with_session(key, |session, link, cx| {
            session.handle_pubrec(link, ack.packet_id, ack.reason, cx)
        });
        let Some(reason) = reply.and_then(pubrel) else { return self.local.room_made(key) };
        self.answer_all(key, AckKind::PubRel, std::iter::once(ack.packet_id), reason);
    }

    /// [MQTT-4.3.3-11]
    fn handle_pubrel(&mut self, key: Key, ack: wire::Ack) {
        let reason =
            self.local.with_session(key, |session, link, _| session.handle_pubrel(link, ack.packet_id));
        if let Some(reason) = reason {
            self.keep_freed(key, std::iter::once(ack.packet_id));
            self.answer_all(key, AckKind::PubComp, std::iter::once(ack.packet_id), reason);
        }
    }

    /// PUBREL came for these identifiers.
    fn keep_freed(&mut self, key: Key, packet_ids: impl Iterator<Item = u16>) {
        if self.local.env.keep.is_none() {
            return;
        }
        let Some(session) = self.local.clients.live(key).map(|live| live.session) else { return };
        let Some(publisher) = self.local.sessions.get(session).map(|slot| slot.client_hash) else { return };
        let packet_ids: Vec<u16> = packet_ids.collect();
        let record = |index, packet_id| Record::Freed { index, packet_id };
        self.local.sessions.keep_ids(session, packet_ids.iter().copied(), record, &mut self.local.env);
        if let Some(keep) = &mut self.local.env.keep {
            packet_ids.iter().for_each(|packet_id| {
                keep.unreceived.remove(&(session.index, *packet_id));
            });
        }
        self.forget_everywhere(publisher, &packet_ids);
    }

    /// Parses what arrived. A partial packet is completed with no more bytes than it needs, so that the rest is parsed
    /// where it lies, and what was gathered can be kept.
    /// What comes behind a DISCONNECT is not looked at. // 3.1.1: [MQTT-3.14.4-2]
    pub(super) fn parse(&mut self, key: Key, bytes: &[u8], heard: Heard<'_>) {
        let Some(connection) = self.local.clients.connections.get_mut(key) else { return };
        let mut rest = bytes;
        // Mostly nothing is kept of it, before or after.
        let mut is_charged =
            connection.transport.is_some() || connection.charged_receive > 0 || connection.charged_login > 0;
        if !connection.partial.is_empty() {
            is_charged = true;
            let mut partial = std::mem::take(&mut connection.partial);
            let mut awaited = 0;
            loop {
                let stop = if partial.len() == awaited && awaited >= Outbox::SPLICE_MIN {
                    self.consume_whole(key, &mut partial, heard)
                } else {
                    let (used, stop) = self.consume(key, &partial, None, Pressure::Respect, heard);
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
                    return self.local.clients.keep(key, partial, &mut self.local.env);
                }
            }
        }
        let (used, need) = match self.consume(key, rest, None, Pressure::Respect, heard) {
            (_, Stop::Over) => return,
            (used, Stop::Incomplete { need }) => (used, need),
            (used, Stop::Blocked) => (used, 0),
        };
        if used < rest.len() {
            let mut partial = Vec::new();
            gather(&mut partial, &rest[used..], need);
            self.local.clients.keep(key, partial, &mut self.local.env);
        } else if is_charged {
            self.local.clients.charge_receive(key, &mut self.local.env);
        }
    }

    /// Acts upon one packet that has its memory for itself, so that whoever keeps its payload need not copy it. What was
    /// not used stays in `packet`.
    fn consume_whole(&mut self, key: Key, packet: &mut Vec<u8>, heard: Heard<'_>) -> Stop {
        let whole = Whole::new(std::mem::take(packet));
        let (used, stop) = self.consume(key, whole.packet(), Some(&whole), Pressure::Respect, heard);
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
    pub(super) fn parse_last(&mut self, key: Key, bytes: &[u8], heard: Heard<'_>) -> LastParse {
        match self.consume(key, bytes, None, Pressure::Ignore, heard) {
            (used, Stop::Blocked) => {
                self.local.clients.keep(key, bytes[used..].to_vec(), &mut self.local.env);
                LastParse::Waits
            }
            (_, Stop::Over | Stop::Incomplete { .. }) => LastParse::Done,
        }
    }

    /// Acts upon the packets at the front of `input`; `whole` is all of it if that is one packet that has its memory for itself.
    fn consume(
        &mut self,
        key: Key,
        input: &[u8],
        whole: Option<&Whole>,
        pressure: Pressure,
        heard: Heard<'_>,
    ) -> (usize, Stop) {
        let mut used = 0;
        // One more packet, though much is owed.
        let mut may_answer = pressure == Pressure::Ignore;
        loop {
            let now = self.local.env.now;
            let Some(connection) = self.local.clients.connections.get_mut(key) else {
                return (input.len(), Stop::Over);
            };
            if connection.owes_much() && !may_answer {
                if self.local.clients.holds_back(key, &mut self.local.env) {
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
            let packet_size_max = self.local.clients.told.terms(live.link.terms).packet_size_max;
            let frame = match wire::next_frame(rest, packet_size_max, version.length_form()) {
                Ok(NextFrame::Frame(frame)) => frame,
                Ok(NextFrame::Incomplete { need }) => {
                    if let Some(first) = rest.first()
                        && let Err(error) = judge_first(version, *first)
                    {
                        self.local.clients.refuse(key, error, &mut self.local.env);
                        return (input.len(), Stop::Over);
                    }
                    return (used, Stop::Incomplete { need });
                }
                Err(error) => {
                    // The first byte comes first.
                    let error = judge_first(version, rest[0]).err().unwrap_or(error);
                    self.local.clients.refuse(key, error, &mut self.local.env);
                    return (input.len(), Stop::Over);
                }
            };
            live.last_packet_at = now;
            let handled = if frame.is_publish() {
                let (session, client_hash) = (live.session, live.client_hash);
                let from = Publisher { connection: key, session, version, client_hash };
                let known = live.known.clone();
                let front = Front { frame, input: rest, whole, packet_size_max };
                self.handle_publish(from, &front, known.as_ref(), pressure, heard)
            } else {
                self.handle_frame(key, version, &frame, pressure).map(|handled| (handled, 1, frame.len))
            };
            match handled {
                Ok((Handled::Done, packets, len)) => {
                    used += len;
                    self.local.env.counters().packets_received_total.add(packets as u64);
                }
                Ok((Handled::Blocked(blocked), ..)) => {
                    self.pause(key, blocked);
                    return (used, Stop::Blocked);
                }
                Err(error) => {
                    self.local.clients.refuse(key, error, &mut self.local.env);
                    return (input.len(), Stop::Over);
                }
            }
        }
    }

    /// A send has ended: who was held back until then goes on.
    pub(super) fn output_taken(&mut self, key: Key, heard: Heard<'_>) {
        let max = self.local.env.limits.send_buffer_bytes_max;
        let Some(connection) = self.local.clients.connections.get(key) else { return };
        if connection.is_held_back() && (connection.broken || !connection.is_clogged(max)) {
            self.resume(key, heard);
        }
    }

    /// A packet other than PUBLISH.
    fn handle_frame(
        &mut self,
        key: Key,
        version: Version,
        frame: &Frame<'_>,
        pressure: Pressure,
    ) -> Result<Handled, DecodeError> {
        match wire::decode(version, frame, &self.local.env.decode_limits)? {
            Packet::Publish(_) => {}
            Packet::PubAck(ack) => self.local.handle_puback(key, ack),
            Packet::PubRec(ack) => self.handle_pubrec(key, ack),
            Packet::PubRel(ack) => self.handle_pubrel(key, ack),
            Packet::PubComp(ack) => self.local.handle_pubcomp(key, ack),
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
            Packet::PingReq => self.local.clients.stage(key, &self.local.env, wire::encode_pingresp),
            Packet::Disconnect(disconnect) => self.local.handle_disconnect(key, &disconnect)?,
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
