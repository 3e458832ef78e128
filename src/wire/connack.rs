//! CONNACK, which announces the server's limits in v5 and is four bytes in 3.x.

use super::encode::{Put, STRING_MAX, packet_size};
use super::frame::{kind, vbi_len};
use super::properties::id;
use super::{Qos, Reason, Version};

/// The server's answer to CONNECT. Properties are `None` where the standard's default holds; they go out in
/// v5 only. Strings and data are at most 65,535 bytes.
#[derive(Copy, Clone, Debug, Default)]
pub struct ConnAck<'a> {
    /// Whether there was a session; goes out as no unless `reason` is success. [MQTT-3.2.2-6]
    pub session_present: bool,
    /// One of the connect reason codes. [MQTT-3.2.2-8]
    pub reason: Reason,
    /// Session Expiry Interval in seconds, if not the client's.
    pub session_expiry_s: Option<u32>,
    /// QoS 1 and 2 messages that the server takes at once.
    pub receive_maximum: Option<u16>,
    /// Maximum QoS; QoS 2 is the default and is not written.
    pub maximum_qos: Option<Qos>,
    /// Whether the server retains messages.
    pub retain_available: Option<bool>,
    /// Largest packet that the server takes, in bytes.
    pub packet_size_max: Option<u32>,
    /// Only if the client's was empty. [MQTT-3.2.2-16]
    pub assigned_client_id: Option<&'a str>,
    /// Highest Topic Alias that the server takes.
    pub topic_alias_max: Option<u16>,
    /// Why, in words.
    pub reason_string: Option<&'a str>,
    /// Names and values, in order.
    pub user_properties: &'a [(&'a str, &'a str)],
    /// Whether Topic Filters may hold wildcards.
    pub wildcard_subscription_available: Option<bool>,
    /// Whether SUBSCRIBE may hold a Subscription Identifier.
    pub subscription_identifier_available: Option<bool>,
    /// Whether there are Shared Subscriptions.
    pub shared_subscription_available: Option<bool>,
    /// Keep Alive in seconds that replaces the client's.
    pub server_keep_alive_s: Option<u16>,
    /// Only if requested. [MQTT-3.1.2-28]
    pub response_information: Option<&'a str>,
    /// Only with 0x9C and 0x9D.
    pub server_reference: Option<&'a str>,
    /// The Authentication Method of CONNECT.
    pub authentication_method: Option<&'a str>,
    /// Last data of that method.
    pub authentication_data: Option<&'a [u8]>,
}

/// Whether there is a CONNACK to send.
#[must_use]
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum ConnAckEncoded {
    /// It was appended.
    Written,
    /// Nothing was appended, since 3.x has no code for the reason or the client takes no packet of that
    /// size: close without CONNACK. 3.1.1: [MQTT-3.2.2-6]
    CloseSilently,
}

/// Appends a CONNACK for a client that takes packets of at most `packet_size_max_of_client` bytes (v5 only;
/// `u32::MAX` if it did not say). To fit, User Properties are left out, then the Reason String.
/// [MQTT-3.2.2-19] [MQTT-3.2.2-20]
pub fn encode_connack(
    out: &mut Vec<u8>,
    version: Version,
    connack: &ConnAck<'_>,
    packet_size_max_of_client: u32,
) -> ConnAckEncoded {
    match version {
        Version::V5 => encode_v5(out, connack, packet_size_max_of_client as usize),
        Version::V31 | Version::V311 => encode_v3(out, version, connack),
    }
}

fn encode_v3(out: &mut Vec<u8>, version: Version, connack: &ConnAck<'_>) -> ConnAckEncoded {
    let Some(code) = return_code(connack.reason) else {
        return ConnAckEncoded::CloseSilently;
    };
    // 3.1 has no Session Present. [V31-3]
    let session_present = connack.session_present && code == 0 && version == Version::V311;
    out.extend_from_slice(&[kind::CONNACK << 4, 2, u8::from(session_present), code]);
    ConnAckEncoded::Written
}

/// The return code of 3.x that comes closest.
const fn return_code(reason: Reason) -> Option<u8> {
    match reason {
        Reason::SUCCESS => Some(0),
        Reason::UNSUPPORTED_PROTOCOL_VERSION => Some(1),
        Reason::CLIENT_IDENTIFIER_NOT_VALID => Some(2),
        Reason::SERVER_UNAVAILABLE
        | Reason::SERVER_BUSY
        | Reason::QUOTA_EXCEEDED
        | Reason::CONNECTION_RATE_EXCEEDED => Some(3),
        Reason::BAD_USER_NAME_OR_PASSWORD => Some(4),
        Reason::NOT_AUTHORIZED | Reason::BANNED | Reason::BAD_AUTHENTICATION_METHOD => Some(5),
        _ => None,
    }
}

fn encode_v5(out: &mut Vec<u8>, connack: &ConnAck<'_>, packet_size_max: usize) -> ConnAckEncoded {
    debug_assert!(connack.reason.fits_connack(), "[MQTT-3.2.2-8]");
    let mut properties = Vec::new();
    put_properties(&mut properties, connack);
    // Text comes last, so that what does not fit is cut off the end.
    let bare_len = properties.len();
    if let Some(text) = connack.reason_string.filter(|text| text.len() <= STRING_MAX) {
        properties.put_u8(id::REASON_STRING);
        properties.put_binary(text.as_bytes());
    }
    let explained_len = properties.len();
    for (name, value) in connack.user_properties {
        properties.put_u8(id::USER_PROPERTY);
        properties.put_binary(name.as_bytes());
        properties.put_binary(value.as_bytes());
    }
    for len in [properties.len(), explained_len, bare_len] {
        let remaining = 2 + vbi_len(len as u32) + len;
        if packet_size(remaining) > packet_size_max {
            continue;
        }
        let session_present = connack.session_present && connack.reason == Reason::SUCCESS;
        out.put_u8(kind::CONNACK << 4);
        out.put_vbi(remaining as u32);
        out.put_u8(u8::from(session_present)); // [MQTT-3.2.2-1]
        out.put_u8(connack.reason.0);
        out.put_vbi(len as u32);
        out.extend_from_slice(&properties[..len]);
        return ConnAckEncoded::Written;
    }
    ConnAckEncoded::CloseSilently
}

/// Everything but Reason String and User Properties.
fn put_properties(out: &mut Vec<u8>, connack: &ConnAck<'_>) {
    let mut byte = |id, value: Option<u8>| {
        if let Some(value) = value {
            out.extend_from_slice(&[id, value]);
        }
    };
    byte(id::MAXIMUM_QOS, connack.maximum_qos.filter(|&qos| qos < Qos::ExactlyOnce).map(|qos| qos as u8));
    byte(id::RETAIN_AVAILABLE, connack.retain_available.map(u8::from));
    byte(id::WILDCARD_SUBSCRIPTION_AVAILABLE, connack.wildcard_subscription_available.map(u8::from));
    byte(id::SUBSCRIPTION_IDENTIFIER_AVAILABLE, connack.subscription_identifier_available.map(u8::from));
    byte(id::SHARED_SUBSCRIPTION_AVAILABLE, connack.shared_subscription_available.map(u8::from));
    let mut number16 = |id, value: Option<u16>| {
        if let Some(value) = value {
            out.put_u8(id);
            out.put_u16(value);
        }
    };
    number16(id::RECEIVE_MAXIMUM, connack.receive_maximum);
    number16(id::TOPIC_ALIAS_MAXIMUM, connack.topic_alias_max);
    number16(id::SERVER_KEEP_ALIVE, connack.server_keep_alive_s);
    let mut number32 = |id, value: Option<u32>| {
        if let Some(value) = value {
            out.put_u8(id);
            out.put_u32(value);
        }
    };
    number32(id::SESSION_EXPIRY_INTERVAL, connack.session_expiry_s);
    number32(id::MAXIMUM_PACKET_SIZE, connack.packet_size_max);
    let mut binary = |id, value: Option<&[u8]>| {
        if let Some(value) = value {
            out.put_u8(id);
            out.put_binary(value);
        }
    };
    binary(id::ASSIGNED_CLIENT_IDENTIFIER, connack.assigned_client_id.map(str::as_bytes));
    binary(id::RESPONSE_INFORMATION, connack.response_information.map(str::as_bytes));
    binary(id::SERVER_REFERENCE, connack.server_reference.map(str::as_bytes));
    binary(id::AUTHENTICATION_METHOD, connack.authentication_method.map(str::as_bytes));
    binary(id::AUTHENTICATION_DATA, connack.authentication_data);
}
