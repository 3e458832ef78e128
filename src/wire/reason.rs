//! Reason codes of MQTT 5.0 and the errors of decoding, each of which knows its code.

use std::fmt;

/// A reason code of MQTT 5.0, as it stands on the wire. Any byte can be held; the constants are the defined ones.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Hash, Default)]
pub struct Reason(pub u8);

macro_rules! reasons {
    ($($code:literal $constant:ident $name:literal)*) => {
        impl Reason {
            $(#[doc = concat!(stringify!($code), ": ", $name, ".")]
            pub const $constant: Reason = Reason($code);)*

            /// The name that the standard gives the code; `"unknown reason"` if it defines none.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($code => $name,)*
                    _ => "unknown reason",
                }
            }
        }

        /// Every defined code once, in ascending order.
        #[cfg(test)]
        pub(super) const DEFINED: &[Reason] = &[$(Reason($code)),*];
    };
}

reasons! {
    0x00 SUCCESS "Success"
    0x01 GRANTED_QOS_1 "Granted QoS 1"
    0x02 GRANTED_QOS_2 "Granted QoS 2"
    0x04 DISCONNECT_WITH_WILL_MESSAGE "Disconnect with Will Message"
    0x10 NO_MATCHING_SUBSCRIBERS "No matching subscribers"
    0x11 NO_SUBSCRIPTION_EXISTED "No subscription existed"
    0x18 CONTINUE_AUTHENTICATION "Continue authentication"
    0x19 RE_AUTHENTICATE "Re-authenticate"
    0x80 UNSPECIFIED_ERROR "Unspecified error"
    0x81 MALFORMED_PACKET "Malformed Packet"
    0x82 PROTOCOL_ERROR "Protocol Error"
    0x83 IMPLEMENTATION_SPECIFIC_ERROR "Implementation specific error"
    0x84 UNSUPPORTED_PROTOCOL_VERSION "Unsupported Protocol Version"
    0x85 CLIENT_IDENTIFIER_NOT_VALID "Client Identifier not valid"
    0x86 BAD_USER_NAME_OR_PASSWORD "Bad User Name or Password"
    0x87 NOT_AUTHORIZED "Not authorized"
    0x88 SERVER_UNAVAILABLE "Server unavailable"
    0x89 SERVER_BUSY "Server busy"
    0x8A BANNED "Banned"
    0x8B SERVER_SHUTTING_DOWN "Server shutting down"
    0x8C BAD_AUTHENTICATION_METHOD "Bad authentication method"
    0x8D KEEP_ALIVE_TIMEOUT "Keep Alive timeout"
    0x8E SESSION_TAKEN_OVER "Session taken over"
    0x8F TOPIC_FILTER_INVALID "Topic Filter invalid"
    0x90 TOPIC_NAME_INVALID "Topic Name invalid"
    0x91 PACKET_IDENTIFIER_IN_USE "Packet Identifier in use"
    0x92 PACKET_IDENTIFIER_NOT_FOUND "Packet Identifier not found"
    0x93 RECEIVE_MAXIMUM_EXCEEDED "Receive Maximum exceeded"
    0x94 TOPIC_ALIAS_INVALID "Topic Alias invalid"
    0x95 PACKET_TOO_LARGE "Packet too large"
    0x96 MESSAGE_RATE_TOO_HIGH "Message rate too high"
    0x97 QUOTA_EXCEEDED "Quota exceeded"
    0x98 ADMINISTRATIVE_ACTION "Administrative action"
    0x99 PAYLOAD_FORMAT_INVALID "Payload format invalid"
    0x9A RETAIN_NOT_SUPPORTED "Retain not supported"
    0x9B QOS_NOT_SUPPORTED "QoS not supported"
    0x9C USE_ANOTHER_SERVER "Use another server"
    0x9D SERVER_MOVED "Server moved"
    0x9E SHARED_SUBSCRIPTIONS_NOT_SUPPORTED "Shared Subscriptions not supported"
    0x9F CONNECTION_RATE_EXCEEDED "Connection rate exceeded"
    0xA0 MAXIMUM_CONNECT_TIME "Maximum connect time"
    0xA1 SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED "Subscription Identifiers not supported"
    0xA2 WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED "Wildcard Subscriptions not supported"
}

impl Reason {
    /// 0x00 as DISCONNECT names it.
    pub const NORMAL_DISCONNECTION: Reason = Reason::SUCCESS;
    /// 0x00 as SUBACK names it.
    pub const GRANTED_QOS_0: Reason = Reason::SUCCESS;

    /// Whether the code means a failure: 0x80 and above.
    #[inline]
    pub const fn is_error(self) -> bool {
        self.0 >= 0x80
    }

    /// May a CONNACK carry it? [MQTT-3.2.2-8]
    pub(super) const fn fits_connack(self) -> bool {
        matches!(self.0, 0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F)
    }

    /// May a PUBACK or PUBREC carry it? [MQTT-3.4.2-1] [MQTT-3.5.2-1]
    pub(super) const fn fits_puback_pubrec(self) -> bool {
        matches!(self.0, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
    }

    /// May a PUBREL or PUBCOMP carry it? [MQTT-3.6.2-1] [MQTT-3.7.2-1]
    pub(super) const fn fits_pubrel_pubcomp(self) -> bool {
        matches!(self.0, 0x00 | 0x92)
    }

    /// May a SUBACK carry it? [MQTT-3.9.3-2]
    pub(super) const fn fits_suback(self) -> bool {
        matches!(self.0, 0x00..=0x02 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2)
    }

    /// May an UNSUBACK carry it? [MQTT-3.11.3-2]
    pub(super) const fn fits_unsuback(self) -> bool {
        matches!(self.0, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91)
    }

    /// May a client's DISCONNECT carry it? [MQTT-3.14.2-1]
    pub(super) const fn fits_client_disconnect(self) -> bool {
        matches!(self.0, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99)
    }

    /// May a server's DISCONNECT carry it? 0x8C stands in one of the standard's two tables; so it may.
    /// [MQTT-3.14.2-1]
    pub(super) const fn fits_server_disconnect(self) -> bool {
        matches!(self.0, 0x00 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B..=0x90 | 0x93..=0xA2)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02X} {}", self.0, self.name())
    }
}

/// Why bytes are not a packet that this server takes. The connection is to be closed; a v5 client may be told
/// [`DecodeError::reason`] first.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum DecodeError {
    /// Cannot be parsed: 0x81.
    Malformed(&'static str),
    /// Can be parsed but is not allowed: 0x82.
    ProtocolError(&'static str),
    /// Not allowed, and the standard or this server has a code of its own for it.
    Specific(Reason, &'static str),
}

impl DecodeError {
    /// The reason code to answer a v5 client with; any of them may stand in a server's DISCONNECT.
    pub const fn reason(self) -> Reason {
        match self {
            DecodeError::Malformed(_) => Reason::MALFORMED_PACKET,
            DecodeError::ProtocolError(_) => Reason::PROTOCOL_ERROR,
            DecodeError::Specific(reason, _) => reason,
        }
    }

    /// What is wrong, for a log line or a Reason String. Never holds anything of the peer's.
    pub const fn detail(self) -> &'static str {
        match self {
            DecodeError::Malformed(detail)
            | DecodeError::ProtocolError(detail)
            | DecodeError::Specific(_, detail) => detail,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason(), self.detail())
    }
}

impl std::error::Error for DecodeError {}
