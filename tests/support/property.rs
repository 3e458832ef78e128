//! The properties of MQTT 5: one table of identifiers, kinds and packets that may carry them.
//!
//! Used in both directions by the tests' own encoder and decoder; written from the standard's table 2-4.

use super::encode::{binary, string, vbi};

/// A property with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Property {
    PayloadFormat(u8),
    MessageExpiry(u32),
    ContentType(String),
    ResponseTopic(String),
    CorrelationData(Vec<u8>),
    SubscriptionId(u32),
    SessionExpiry(u32),
    AssignedClientId(String),
    ServerKeepAlive(u16),
    AuthMethod(String),
    AuthData(Vec<u8>),
    RequestProblemInfo(u8),
    WillDelay(u32),
    RequestResponseInfo(u8),
    ResponseInfo(String),
    ServerReference(String),
    ReasonString(String),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    MaximumQos(u8),
    RetainAvailable(u8),
    User(String, String),
    MaximumPacketSize(u32),
    WildcardAvailable(u8),
    SubscriptionIdAvailable(u8),
    SharedAvailable(u8),
}

/// How a property's value is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Byte,
    U16,
    U32,
    Vbi,
    Str,
    Bin,
    Pair,
}

/// Where a property may stand. `Will` is the will's part of CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Connect,
    Will,
    Connack,
    Publish,
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
    Subscribe,
    Suback,
    Unsubscribe,
    Unsuback,
    Disconnect,
    Auth,
}

/// Every place that has properties.
pub const PLACES: [Place; 14] = [
    Place::Connect,
    Place::Will,
    Place::Connack,
    Place::Publish,
    Place::Puback,
    Place::Pubrec,
    Place::Pubrel,
    Place::Pubcomp,
    Place::Subscribe,
    Place::Suback,
    Place::Unsubscribe,
    Place::Unsuback,
    Place::Disconnect,
    Place::Auth,
];

/// Every property once, with a value that is legal wherever the property is.
pub fn every() -> Vec<Property> {
    use Property::*;
    let text = || "t".to_string();
    vec![
        PayloadFormat(1),
        MessageExpiry(60),
        ContentType(text()),
        ResponseTopic(text()),
        CorrelationData(vec![1, 2]),
        SubscriptionId(300),
        SessionExpiry(1),
        AssignedClientId(text()),
        ServerKeepAlive(9),
        AuthMethod(text()),
        AuthData(vec![3]),
        RequestProblemInfo(1),
        WillDelay(0),
        RequestResponseInfo(0),
        ResponseInfo(text()),
        ServerReference(text()),
        ReasonString(text()),
        ReceiveMaximum(9),
        TopicAliasMaximum(9),
        TopicAlias(1),
        MaximumQos(1),
        RetainAvailable(1),
        User(text(), text()),
        MaximumPacketSize(65536),
        WildcardAvailable(1),
        SubscriptionIdAvailable(1),
        SharedAvailable(1),
    ]
}

/// The kind of the property with this identifier, or None if there is no such property.
pub fn kind(id: u8) -> Option<Kind> {
    Some(match id {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => Kind::Byte,
        0x13 | 0x21 | 0x22 | 0x23 => Kind::U16,
        0x02 | 0x11 | 0x18 | 0x27 => Kind::U32,
        0x0B => Kind::Vbi,
        0x03 | 0x08 | 0x12 | 0x15 | 0x1A | 0x1C | 0x1F => Kind::Str,
        0x09 | 0x16 => Kind::Bin,
        0x26 => Kind::Pair,
        _ => return None,
    })
}

/// Whether the property with this identifier may stand at `place`.
pub fn allowed(id: u8, place: Place) -> bool {
    use Place::*;
    let acks = [Puback, Pubrec, Pubrel, Pubcomp, Suback, Unsuback];
    match id {
        0x01 | 0x02 | 0x03 | 0x08 | 0x09 => matches!(place, Publish | Will),
        0x0B => matches!(place, Publish | Subscribe),
        0x11 => matches!(place, Connect | Connack | Disconnect),
        0x12 | 0x13 | 0x1A | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => place == Connack,
        0x15 | 0x16 => matches!(place, Connect | Connack | Auth),
        0x17 | 0x19 => place == Connect,
        0x18 => place == Will,
        0x1C => matches!(place, Connack | Disconnect),
        0x1F => acks.contains(&place) || matches!(place, Connack | Disconnect | Auth),
        0x21 | 0x22 | 0x27 => matches!(place, Connect | Connack),
        0x23 => place == Publish,
        0x26 => true,
        _ => false,
    }
}

impl Property {
    /// The property's identifier on the wire.
    pub fn id(&self) -> u8 {
        use Property::*;
        match self {
            PayloadFormat(_) => 0x01,
            MessageExpiry(_) => 0x02,
            ContentType(_) => 0x03,
            ResponseTopic(_) => 0x08,
            CorrelationData(_) => 0x09,
            SubscriptionId(_) => 0x0B,
            SessionExpiry(_) => 0x11,
            AssignedClientId(_) => 0x12,
            ServerKeepAlive(_) => 0x13,
            AuthMethod(_) => 0x15,
            AuthData(_) => 0x16,
            RequestProblemInfo(_) => 0x17,
            WillDelay(_) => 0x18,
            RequestResponseInfo(_) => 0x19,
            ResponseInfo(_) => 0x1A,
            ServerReference(_) => 0x1C,
            ReasonString(_) => 0x1F,
            ReceiveMaximum(_) => 0x21,
            TopicAliasMaximum(_) => 0x22,
            TopicAlias(_) => 0x23,
            MaximumQos(_) => 0x24,
            RetainAvailable(_) => 0x25,
            User(..) => 0x26,
            MaximumPacketSize(_) => 0x27,
            WildcardAvailable(_) => 0x28,
            SubscriptionIdAvailable(_) => 0x29,
            SharedAvailable(_) => 0x2A,
        }
    }

    /// The value's bytes, without the identifier.
    pub fn value_bytes(&self) -> Vec<u8> {
        use Property::*;
        match self {
            PayloadFormat(v)
            | RequestProblemInfo(v)
            | RequestResponseInfo(v)
            | MaximumQos(v)
            | RetainAvailable(v)
            | WildcardAvailable(v)
            | SubscriptionIdAvailable(v)
            | SharedAvailable(v) => {
                vec![*v]
            }
            ServerKeepAlive(v) | ReceiveMaximum(v) | TopicAliasMaximum(v) | TopicAlias(v) => {
                v.to_be_bytes().to_vec()
            }
            MessageExpiry(v) | SessionExpiry(v) | WillDelay(v) | MaximumPacketSize(v) => {
                v.to_be_bytes().to_vec()
            }
            SubscriptionId(v) => vbi(*v),
            ContentType(v) | ResponseTopic(v) | AssignedClientId(v) | AuthMethod(v) | ResponseInfo(v)
            | ServerReference(v) | ReasonString(v) => string(v),
            CorrelationData(v) | AuthData(v) => binary(v),
            User(name, value) => [string(name), string(value)].concat(),
        }
    }

    /// Identifier and value as they stand on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        [vec![self.id()], self.value_bytes()].concat()
    }
}

/// Length and properties as they stand on the wire.
pub fn block(properties: &[Property]) -> Vec<u8> {
    let body: Vec<u8> = properties.iter().flat_map(Property::bytes).collect();
    [vbi(body.len() as u32), body].concat()
}
