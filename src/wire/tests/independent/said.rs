//! What a packet says, in a form that belongs to neither codec, with one reader by each of them.
//!
//! Only what a broker keeps is here: User Properties of a SUBSCRIBE, say, are read and thrown away by ours.

use mqtt_protocol_core::mqtt::packet::{Property, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::MqttError;

use super::property::{ours as own_form, text};
use crate::wire::testing::{Prop, parse_properties, parse_vbi};
use crate::wire::{Connect, Packet, RetainHandling, Version};

/// A packet, whoever read it.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(super) enum Said {
    Connect(Box<Greeting>),
    Connack {
        session_present: bool,
        reason: u8,
        properties: Vec<Prop>,
    },
    Publish(Message),
    /// PUBACK to PUBCOMP, by the packet type.
    Ack {
        kind: u8,
        packet_id: u16,
        reason: u8,
    },
    Subscribe {
        packet_id: u16,
        identifier: u32,
        filters: Vec<(String, u8)>,
    },
    Unsubscribe {
        packet_id: u16,
        filters: Vec<String>,
    },
    /// SUBACK or UNSUBACK, by the packet type.
    Codes {
        kind: u8,
        packet_id: u16,
        reasons: Vec<u8>,
    },
    Pingreq,
    Pingresp,
    Disconnect {
        reason: u8,
        session_expiry_s: Option<u32>,
        reason_string: Option<String>,
    },
    Auth {
        reason: u8,
        method: Option<String>,
        data: Option<Vec<u8>>,
    },
}

#[derive(Clone, Eq, PartialEq, Debug)]
pub(super) struct Greeting {
    clean_start: bool,
    keep_alive_s: u16,
    client_id: String,
    /// Will Delay Interval, and the message.
    will: Option<(u32, Message)>,
    user_name: Option<String>,
    password: Option<Vec<u8>>,
    session_expiry_s: u32,
    receive_maximum: u16,
    packet_size_max: u32,
    topic_alias_max: u16,
    response_and_problem_information: (bool, bool),
    authentication: (Option<String>, Option<Vec<u8>>),
}

impl Greeting {
    pub(super) fn has_only_a_password(&self) -> bool {
        self.password.is_some() && self.user_name.is_none()
    }
}

#[derive(Clone, Eq, PartialEq, Debug, Default)]
pub(super) struct Message {
    pub(super) dup: bool,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) topic: String,
    pub(super) packet_id: u16,
    pub(super) topic_alias: u16,
    pub(super) expiry_s: Option<u32>,
    /// Of a PUBLISH by the server.
    pub(super) identifiers: Vec<u32>,
    pub(super) forwarded: Vec<Prop>,
    pub(super) payload: Vec<u8>,
}

/// As our decoder reads a packet that is not the first.
pub(super) fn by_ours(packet: Packet<'_>) -> Said {
    let ack =
        |kind, ack: crate::wire::Ack| Said::Ack { kind, packet_id: ack.packet_id, reason: ack.reason.0 };
    match packet {
        Packet::Publish(publish) => Said::Publish(Message {
            dup: publish.dup,
            qos: publish.qos as u8,
            retain: publish.retain,
            topic: publish.topic.to_owned(),
            packet_id: publish.packet_id,
            topic_alias: publish.topic_alias,
            expiry_s: publish.expiry_s,
            identifiers: Vec::new(),
            forwarded: written(publish.properties),
            payload: publish.payload.to_vec(),
        }),
        Packet::PubAck(of) => ack(4, of),
        Packet::PubRec(of) => ack(5, of),
        Packet::PubRel(of) => ack(6, of),
        Packet::PubComp(of) => ack(7, of),
        Packet::Subscribe(subscribe) => {
            let options = |entry: &crate::wire::SubscribeEntry<'_>| {
                let handling = match entry.retain_handling {
                    RetainHandling::SendAtSubscribe => 0,
                    RetainHandling::SendIfNew => 1,
                    RetainHandling::DoNotSend => 2,
                };
                let flags = u8::from(entry.no_local) << 2 | u8::from(entry.retain_as_published) << 3;
                entry.qos as u8 | flags | handling << 4
            };
            Said::Subscribe {
                packet_id: subscribe.packet_id,
                identifier: subscribe.identifier,
                filters: subscribe.filters.map(|entry| (entry.filter.to_owned(), options(&entry))).collect(),
            }
        }
        Packet::Unsubscribe(unsubscribe) => Said::Unsubscribe {
            packet_id: unsubscribe.packet_id,
            filters: unsubscribe.filters.map(str::to_owned).collect(),
        },
        Packet::PingReq => Said::Pingreq,
        Packet::Disconnect(disconnect) => Said::Disconnect {
            reason: disconnect.reason.0,
            session_expiry_s: disconnect.session_expiry_s,
            reason_string: disconnect.reason_string.map(str::to_owned),
        },
        Packet::Auth(auth) => Said::Auth {
            reason: auth.reason.0,
            method: auth.method.map(str::to_owned),
            data: auth.data.map(<[u8]>::to_vec),
        },
        Packet::Connect => panic!("a CONNECT is read by decode_connect"),
    }
}

fn written(properties: crate::wire::Properties<'_>) -> Vec<Prop> {
    let mut bytes = Vec::new();
    properties.write_to(&mut bytes);
    parse_properties(&bytes)
}

/// As our decoder reads a first packet.
pub(super) fn greeting_by_ours(connect: &Connect<'_>) -> Said {
    let will = connect.will.map(|will| {
        let message = Message {
            qos: will.qos as u8,
            retain: will.retain,
            topic: will.topic.to_owned(),
            expiry_s: will.expiry_s,
            forwarded: written(will.properties),
            payload: will.payload.to_vec(),
            ..Message::default()
        };
        (will.delay_s, message)
    });
    let (response, problem) = (connect.request_response_information, connect.request_problem_information);
    Said::Connect(Box::new(Greeting {
        clean_start: connect.clean_start,
        keep_alive_s: connect.keep_alive_s,
        client_id: connect.client_id.to_owned(),
        will,
        user_name: connect.user_name.map(str::to_owned),
        password: connect.password.map(<[u8]>::to_vec),
        session_expiry_s: connect.session_expiry_s,
        receive_maximum: connect.receive_maximum,
        packet_size_max: connect.packet_size_max,
        topic_alias_max: connect.topic_alias_max,
        response_and_problem_information: (response, problem),
        authentication: (
            connect.authentication_method.map(str::to_owned),
            connect.authentication_data.map(<[u8]>::to_vec),
        ),
    }))
}

/// As the other decoder reads a packet of either direction. It knows no 3.1.
pub(super) fn by_theirs(version: Version, packet: &[u8]) -> Result<Said, MqttError> {
    let (len, at) = parse_vbi(&packet[1..]);
    let (kind, flags, body) = (packet[0] >> 4, packet[0] & 0x0F, &packet[1 + at..]);
    assert_eq!(body.len(), len as usize, "one packet");
    match version {
        Version::V5 => v5(kind, flags, body),
        Version::V311 | Version::V31 => v311(kind, flags, body),
    }
}

/// What `parse` returns, which must have gone to the end: whether it has is left to the caller there.
fn whole<T>(parsed: Result<(T, usize), MqttError>, body: &[u8]) -> Result<T, MqttError> {
    let (packet, used) = parsed?;
    if used == body.len() { Ok(packet) } else { Err(MqttError::MalformedPacket) }
}

/// The part of a PUBLISH or Will that is not among its properties.
macro_rules! message {
    ($publish:expr) => {
        Message {
            dup: $publish.dup(),
            qos: $publish.qos() as u8,
            retain: $publish.retain(),
            topic: $publish.topic_name().to_owned(),
            packet_id: $publish.packet_id().unwrap_or(0),
            payload: $publish.payload().as_slice().to_vec(),
            ..Message::default()
        }
    };
}

/// The part of a CONNECT that both versions have.
macro_rules! greeting {
    ($connect:expr) => {
        Greeting {
            clean_start: $connect.clean_start(),
            keep_alive_s: $connect.keep_alive(),
            client_id: $connect.client_id().to_owned(),
            will: $connect.will_topic().map(|topic| {
                let message = Message {
                    qos: $connect.will_qos() as u8,
                    retain: $connect.will_retain(),
                    topic: topic.to_owned(),
                    payload: $connect.will_payload().unwrap_or_default().to_vec(),
                    ..Message::default()
                };
                (0, message)
            }),
            user_name: $connect.user_name().map(str::to_owned),
            password: $connect.password().map(<[u8]>::to_vec),
            session_expiry_s: 0,
            receive_maximum: u16::MAX,
            packet_size_max: u32::MAX,
            topic_alias_max: 0,
            response_and_problem_information: (false, true),
            authentication: (None, None),
        }
    };
}

fn v311_greeting(connect: &v3_1_1::Connect) -> Greeting {
    let greeting = greeting!(connect);
    Greeting { session_expiry_s: if greeting.clean_start { 0 } else { u32::MAX }, ..greeting }
}

fn v5_greeting(connect: &v5_0::Connect) -> Greeting {
    let mut greeting = greeting!(connect);
    for property in connect.props() {
        match property {
            Property::SessionExpiryInterval(value) => greeting.session_expiry_s = value.val(),
            Property::ReceiveMaximum(value) => greeting.receive_maximum = value.val(),
            Property::MaximumPacketSize(value) => greeting.packet_size_max = value.val(),
            Property::TopicAliasMaximum(value) => greeting.topic_alias_max = value.val(),
            Property::RequestResponseInformation(value) => {
                greeting.response_and_problem_information.0 = value.val() == 1;
            }
            Property::RequestProblemInformation(value) => {
                greeting.response_and_problem_information.1 = value.val() == 1;
            }
            Property::AuthenticationMethod(value) => greeting.authentication.0 = Some(value.val().to_owned()),
            Property::AuthenticationData(value) => greeting.authentication.1 = Some(value.val().to_vec()),
            _ => {}
        }
    }
    if let Some((delay_s, message)) = &mut greeting.will {
        for property in connect.will_props() {
            if let Property::WillDelayInterval(delay) = property {
                *delay_s = delay.val();
            }
        }
        take_properties(message, connect.will_props());
    }
    greeting
}

fn v5(kind: u8, flags: u8, body: &[u8]) -> Result<Said, MqttError> {
    let ack = |packet_id, reason: Option<u8>| Said::Ack { kind, packet_id, reason: reason.unwrap_or(0) };
    Ok(match kind {
        1 => Said::Connect(Box::new(v5_greeting(&whole(v5_0::Connect::parse(body), body)?))),
        2 => {
            let connack = whole(v5_0::Connack::parse(body), body)?;
            Said::Connack {
                session_present: connack.session_present(),
                reason: connack.reason_code() as u8,
                properties: connack.props().iter().map(own_form).collect(),
            }
        }
        3 => {
            let publish = whole(v5_0::Publish::parse(flags, body.into()), body)?;
            let mut message = message!(publish);
            take_properties(&mut message, publish.props());
            Said::Publish(message)
        }
        4 => {
            let packet = whole(v5_0::Puback::parse(body), body)?;
            ack(packet.packet_id(), packet.reason_code().map(|code| code as u8))
        }
        5 => {
            let packet = whole(v5_0::Pubrec::parse(body), body)?;
            ack(packet.packet_id(), packet.reason_code().map(|code| code as u8))
        }
        6 => {
            let packet = whole(v5_0::Pubrel::parse(body), body)?;
            ack(packet.packet_id(), packet.reason_code().map(|code| code as u8))
        }
        7 => {
            let packet = whole(v5_0::Pubcomp::parse(body), body)?;
            ack(packet.packet_id(), packet.reason_code().map(|code| code as u8))
        }
        8 => {
            let packet = whole(v5_0::Subscribe::parse(body), body)?;
            let identifier = packet.props().iter().find_map(|property| match property {
                Property::SubscriptionIdentifier(identifier) => Some(identifier.val()),
                _ => None,
            });
            let entry = |entry: &mqtt_protocol_core::mqtt::packet::SubEntry| {
                (entry.topic_filter().to_owned(), entry.sub_opts().to_buffer()[0])
            };
            Said::Subscribe {
                packet_id: packet.packet_id(),
                identifier: identifier.unwrap_or(0),
                filters: packet.entries().iter().map(entry).collect(),
            }
        }
        9 => {
            let packet = whole(v5_0::Suback::parse(body), body)?;
            let reasons = packet.reason_codes().into_iter().map(|code| code as u8).collect();
            Said::Codes { kind, packet_id: packet.packet_id(), reasons }
        }
        10 => {
            let packet = whole(v5_0::Unsubscribe::parse(body), body)?;
            let filters = packet.entries().iter().map(|filter| filter.as_str().to_owned()).collect();
            Said::Unsubscribe { packet_id: packet.packet_id(), filters }
        }
        11 => {
            let packet = whole(v5_0::Unsuback::parse(body), body)?;
            let reasons = packet.reason_codes().into_iter().map(|code| code as u8).collect();
            Said::Codes { kind, packet_id: packet.packet_id(), reasons }
        }
        12 => whole(v5_0::Pingreq::parse(body), body).map(|_| Said::Pingreq)?,
        13 => whole(v5_0::Pingresp::parse(body), body).map(|_| Said::Pingresp)?,
        14 => {
            let packet = whole(v5_0::Disconnect::parse(body), body)?;
            let properties = packet.props().as_deref().unwrap_or_default();
            Said::Disconnect {
                reason: packet.reason_code().map_or(0, |code| code as u8),
                session_expiry_s: properties.iter().find_map(|property| match property {
                    Property::SessionExpiryInterval(expiry) => Some(expiry.val()),
                    _ => None,
                }),
                reason_string: text(properties, 0x1F),
            }
        }
        15 => {
            let packet = whole(v5_0::Auth::parse(body), body)?;
            let properties = packet.props().as_deref().unwrap_or_default();
            Said::Auth {
                reason: packet.reason_code().map_or(0, |code| code as u8),
                method: text(properties, 0x15),
                data: properties.iter().find_map(|property| match property {
                    Property::AuthenticationData(data) => Some(data.val().to_vec()),
                    _ => None,
                }),
            }
        }
        _ => return Err(MqttError::MalformedPacket),
    })
}

fn v311(kind: u8, flags: u8, body: &[u8]) -> Result<Said, MqttError> {
    let ack = |packet_id| Said::Ack { kind, packet_id, reason: 0 };
    Ok(match kind {
        1 => Said::Connect(Box::new(v311_greeting(&whole(v3_1_1::Connect::parse(body), body)?))),
        2 => {
            let connack = whole(v3_1_1::Connack::parse(body), body)?;
            Said::Connack {
                session_present: connack.session_present(),
                reason: connack.return_code() as u8,
                properties: Vec::new(),
            }
        }
        3 => Said::Publish(message!(whole(v3_1_1::Publish::parse(flags, body.into()), body)?)),
        4 => ack(whole(v3_1_1::Puback::parse(body), body)?.packet_id()),
        5 => ack(whole(v3_1_1::Pubrec::parse(body), body)?.packet_id()),
        6 => ack(whole(v3_1_1::Pubrel::parse(body), body)?.packet_id()),
        7 => ack(whole(v3_1_1::Pubcomp::parse(body), body)?.packet_id()),
        8 => {
            let packet = whole(v3_1_1::Subscribe::parse(body), body)?;
            let entry = |entry: &mqtt_protocol_core::mqtt::packet::SubEntry| {
                (entry.topic_filter().to_owned(), entry.sub_opts().to_buffer()[0])
            };
            let filters = packet.entries().iter().map(entry).collect();
            Said::Subscribe { packet_id: packet.packet_id(), identifier: 0, filters }
        }
        9 => {
            let packet = whole(v3_1_1::Suback::parse(body), body)?;
            let reasons = packet.return_codes().into_iter().map(|code| code as u8).collect();
            Said::Codes { kind, packet_id: packet.packet_id(), reasons }
        }
        10 => {
            let packet = whole(v3_1_1::Unsubscribe::parse(body), body)?;
            let filters = packet.entries().iter().map(|filter| filter.as_str().to_owned()).collect();
            Said::Unsubscribe { packet_id: packet.packet_id(), filters }
        }
        11 => {
            let packet = whole(v3_1_1::Unsuback::parse(body), body)?;
            Said::Codes { kind, packet_id: packet.packet_id(), reasons: Vec::new() }
        }
        12 => whole(v3_1_1::Pingreq::parse(body), body).map(|_| Said::Pingreq)?,
        13 => whole(v3_1_1::Pingresp::parse(body), body).map(|_| Said::Pingresp)?,
        14 => {
            whole(v3_1_1::Disconnect::parse(body), body)?;
            Said::Disconnect { reason: 0, session_expiry_s: None, reason_string: None }
        }
        _ => return Err(MqttError::MalformedPacket),
    })
}

/// Sorts properties into the places that ours puts them.
fn take_properties(message: &mut Message, properties: &[Property]) {
    for property in properties {
        match property {
            Property::TopicAlias(alias) => message.topic_alias = alias.val(),
            Property::MessageExpiryInterval(expiry) => message.expiry_s = Some(expiry.val()),
            Property::SubscriptionIdentifier(identifier) => message.identifiers.push(identifier.val()),
            Property::WillDelayInterval(_) => {}
            other => message.forwarded.push(own_form(other)),
        }
    }
}
