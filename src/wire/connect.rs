//! CONNECT: which version is spoken, what the client asks for, and which CONNACK, if any, answers a fault.

use super::frame::{Frame, kind};
use super::properties::{IdSet, Message, MessageProperties, Walk, id};
use super::read::Reader;
use super::{DecodeError, DecodeLimits, Properties, Qos, Reason, Version, text};

/// A client's request to open a session.
#[derive(Copy, Clone, Eq, PartialEq)]
pub struct Connect<'a> {
    /// Fixed for the life of the connection.
    pub version: Version,
    /// Clean Start, or Clean Session of 3.x.
    pub clean_start: bool,
    /// Seconds; 0 turns it off.
    pub keep_alive_s: u16,
    /// May be empty only if the server may assign one: in v5, and in 3.1.1 with Clean Session.
    pub client_id: &'a str,
    /// What to publish if the connection ends without a word.
    pub will: Option<Will<'a>>,
    /// The user name, if given.
    pub user_name: Option<&'a str>,
    /// The password, if given; in 3.x never without a user name.
    pub password: Option<&'a [u8]>,
    /// Seconds that the session outlives the connection; `u32::MAX` for ever. Clean Session of 3.x is 0, its
    /// absence is for ever.
    pub session_expiry_s: u32,
    /// Never 0; 65,535 if absent or 3.x. [U5-3.1.2-5]
    pub receive_maximum: u16,
    /// Largest packet that the client takes, in bytes. Never 0; `u32::MAX` if absent or 3.x. [U5-3.1.2-6]
    pub packet_size_max: u32,
    /// Highest Topic Alias that the client takes; 0 for none.
    pub topic_alias_max: u16,
    /// Whether the client asks for Response Information.
    pub request_response_information: bool,
    /// Whether Reason Strings and User Properties may go on every packet that can hold them.
    pub request_problem_information: bool,
    /// Method of enhanced authentication.
    pub authentication_method: Option<&'a str>,
    /// First data of that method; never without a method. [U5-3.1.2-9]
    pub authentication_data: Option<&'a [u8]>,
}

/// Leaves out the secrets.
impl std::fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("clean_start", &self.clean_start)
            .field("keep_alive_s", &self.keep_alive_s)
            .field("session_expiry_s", &self.session_expiry_s)
            .field("user_name", &self.user_name)
            .finish_non_exhaustive()
    }
}

/// The Application Message that a client leaves behind.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Will<'a> {
    /// The level that it is published at.
    pub qos: Qos,
    /// Whether it is to be retained.
    pub retain: bool,
    /// A Topic Name of one character or more.
    pub topic: &'a str,
    /// May be empty.
    pub payload: &'a [u8],
    /// Will Delay Interval in seconds.
    pub delay_s: u32,
    /// Message Expiry Interval in seconds, counted from when the Will is published.
    pub expiry_s: Option<u32>,
    /// What goes to the receivers unchanged.
    pub properties: Properties<'a>,
}

/// Why a first packet opens no session, sorted by what may answer it. The connection is to be closed in any case.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum ConnectError {
    /// Not a CONNECT, or of another protocol: no answer. [MQTT-3.1.0-1] [MQTT-3.1.2-1]
    NotMqtt,
    /// MQTT of a version that is not spoken here, with the version whose CONNACK the client will most likely
    /// understand: `V5`, or `V311` for the form of both 3.x. [MQTT-3.1.2-2] [V31-1]
    UnsupportedVersion(Version),
    /// A faulty CONNECT of v5.
    V5(DecodeError),
    /// A faulty CONNECT of 3.x: no answer. 3.1.1: [MQTT-3.1.4-1]
    V3(DecodeError),
    /// An empty Client Identifier that 3.x does not allow. 3.1.1: [MQTT-3.1.3-8], 3.1: [V31-2]
    V3IdentifierRejected,
}

impl ConnectError {
    /// A fault in a CONNECT of this version.
    pub const fn of(version: Version, error: DecodeError) -> ConnectError {
        match version {
            Version::V5 => ConnectError::V5(error),
            Version::V31 | Version::V311 => ConnectError::V3(error),
        }
    }

    /// The CONNACK that answers, as arguments of [`super::encode_connack`]; `None` to close without one.
    pub const fn connack(self) -> Option<(Version, Reason)> {
        match self {
            ConnectError::NotMqtt | ConnectError::V3(_) => None,
            ConnectError::UnsupportedVersion(version) => {
                Some((version, Reason::UNSUPPORTED_PROTOCOL_VERSION))
            }
            ConnectError::V5(error) => Some((Version::V5, error.reason())),
            ConnectError::V3IdentifierRejected => Some((Version::V311, Reason::CLIENT_IDENTIFIER_NOT_VALID)),
        }
    }

    /// What is wrong, for a log line.
    pub const fn detail(self) -> &'static str {
        match self {
            ConnectError::NotMqtt => "first packet is not a CONNECT of MQTT",
            ConnectError::UnsupportedVersion(_) => "protocol version is not supported",
            ConnectError::V5(error) | ConnectError::V3(error) => error.detail(),
            ConnectError::V3IdentifierRejected => "Client Identifier is empty",
        }
    }
}

/// Reads the first packet of a connection, framed with [`super::LengthForm::Any`].
pub fn decode_connect<'a>(frame: &Frame<'a>, limits: &DecodeLimits) -> Result<Connect<'a>, ConnectError> {
    if frame.kind() != kind::CONNECT {
        return Err(ConnectError::NotMqtt);
    }
    let mut reader = Reader::new(frame.body);
    let version = version(&mut reader)?;
    let decoded = fixed_header(version, frame).and_then(|()| decode_body(version, reader, limits));
    let connect = decoded.map_err(|error| ConnectError::of(version, error))?;
    // Last, since a malformed CONNECT of 3.x gets no CONNACK.
    let may_assign = match version {
        Version::V5 => true,
        Version::V311 => connect.clean_start, // 3.1.1: [MQTT-3.1.3-7]
        Version::V31 => false,
    };
    if connect.client_id.is_empty() && !may_assign {
        return Err(ConnectError::V3IdentifierRejected);
    }
    Ok(connect)
}

/// What the first bytes of a connection say of a CONNECT that is not whole.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Opening {
    /// Too little to say.
    Unknown,
    /// It may become one, of this version.
    Of(Version),
}

/// Looks at a CONNECT that is not whole, or too large: what no further byte can make good need not be waited for.
///
/// # Errors
/// As [`decode_connect`] would say of the whole packet.
pub fn look_at_connect(bytes: &[u8]) -> Result<Opening, ConnectError> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(Opening::Unknown) };
    if first >> 4 != kind::CONNECT {
        return Err(ConnectError::NotMqtt);
    }
    let Some(last) = rest.iter().take(4).position(|byte| byte & 0x80 == 0) else {
        return if rest.len() < 4 { Ok(Opening::Unknown) } else { Err(ConnectError::NotMqtt) };
    };
    let body = &rest[last + 1..];
    let begins_as = |name: &[u8]| body.iter().zip(name).all(|(have, want)| have == want);
    let name_len = match (begins_as(b"\0\x04MQTT"), begins_as(b"\0\x06MQIsdp")) {
        (true, _) => 6,
        (false, true) => 8,
        (false, false) => return Err(ConnectError::NotMqtt), // [MQTT-3.1.2-1]
    };
    if body.len() <= name_len {
        return Ok(Opening::Unknown);
    }
    let version = version(&mut Reader::new(body))?;
    match judge_flags(version, first & 0x0F) {
        Ok(()) => Ok(Opening::Of(version)),
        Err(error) => Err(ConnectError::of(version, error)),
    }
}

/// Protocol Name and Protocol Version. [U5-3.1.2-1]
fn version(reader: &mut Reader<'_>) -> Result<Version, ConnectError> {
    let (Ok(name), Ok(level)) = (reader.binary(), reader.u8()) else {
        return Err(ConnectError::NotMqtt);
    };
    match (name, level) {
        (b"MQTT", 5) => Ok(Version::V5),
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQIsdp", 3) => Ok(Version::V31),
        // From 0x80 on levels are bridges of 3.x. [V31-9]
        (b"MQTT", 6..=0x7F) => Err(ConnectError::UnsupportedVersion(Version::V5)),
        (b"MQTT" | b"MQIsdp", _) => Err(ConnectError::UnsupportedVersion(Version::V311)),
        _ => Err(ConnectError::NotMqtt),
    }
}

/// [U5-2.1.3-1], 3.1.1: [MQTT-2.2.2-2]; 3.1 does not use these bits.
fn judge_flags(version: Version, flags: u8) -> Result<(), DecodeError> {
    if version != Version::V31 && flags != 0 {
        return Err(DecodeError::Malformed("reserved flags of the fixed header are set"));
    }
    Ok(())
}

fn fixed_header(version: Version, frame: &Frame<'_>) -> Result<(), DecodeError> {
    judge_flags(version, frame.flags())?;
    if version == Version::V5 && !frame.is_shortest() {
        return Err(DecodeError::Malformed("Remaining Length is not in its shortest form")); // [MQTT-1.5.5-1]
    }
    Ok(())
}

/// The Connect Flags, checked against each other.
struct Flags {
    clean_start: bool,
    will: Option<(Qos, bool)>,
    user_name: bool,
    password: bool,
}

impl Flags {
    fn decode(version: Version, bits: u8) -> Result<Flags, DecodeError> {
        // [MQTT-3.1.2-3]; 3.1 does not use the bit: [V31-7]
        if bits & 0x01 != 0 && version != Version::V31 {
            return Err(DecodeError::Malformed("reserved Connect Flag is set"));
        }
        let will = if bits & 0x04 != 0 {
            // [MQTT-3.1.2-12], 3.1.1: [MQTT-3.1.2-14]
            let qos = Qos::from_bits(bits >> 3 & 0x03).ok_or(DecodeError::Malformed("Will QoS is 3"))?;
            Some((qos, bits & 0x20 != 0))
        } else if bits & 0x38 != 0 {
            // [MQTT-3.1.2-11] [MQTT-3.1.2-13], 3.1.1: [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-15]
            return Err(DecodeError::Malformed("Will QoS or Will Retain without Will Flag"));
        } else {
            None
        };
        let (user_name, password) = (bits & 0x80 != 0, bits & 0x40 != 0);
        if password && !user_name && version != Version::V5 {
            // 3.1.1: [MQTT-3.1.2-22]
            return Err(DecodeError::Malformed("Password Flag without User Name Flag"));
        }
        Ok(Flags { clean_start: bits & 0x02 != 0, will, user_name, password })
    }
}

fn decode_body<'a>(
    version: Version,
    mut reader: Reader<'a>,
    limits: &DecodeLimits,
) -> Result<Connect<'a>, DecodeError> {
    let flags = Flags::decode(version, reader.u8()?)?;
    let keep_alive_s = reader.u16()?;
    let mut connect = Connect {
        version,
        clean_start: flags.clean_start,
        keep_alive_s,
        client_id: "",
        will: None,
        user_name: None,
        password: None,
        session_expiry_s: if version == Version::V5 || flags.clean_start { 0 } else { u32::MAX },
        receive_maximum: u16::MAX,
        packet_size_max: u32::MAX,
        topic_alias_max: 0,
        request_response_information: false,
        request_problem_information: true,
        authentication_method: None,
        authentication_data: None,
    };
    if version == Version::V5 {
        connect.decode_properties(reader.property_block()?, limits)?;
    }
    // [MQTT-3.1.3-1] [MQTT-3.1.3-3] [MQTT-3.1.3-4]
    connect.client_id = reader.string()?;
    if let Some((qos, retain)) = flags.will {
        connect.will = Some(Will::decode(version, qos, retain, &mut reader, limits)?); // [MQTT-3.1.2-9]
    }
    // 3.1 lets a flag be set though nothing is left in the packet. [V31-5]
    let absent = |reader: &Reader<'_>| version == Version::V31 && reader.is_empty();
    if flags.user_name && !absent(&reader) {
        connect.user_name = Some(reader.string()?); // [MQTT-3.1.2-17] [MQTT-3.1.3-12]
    }
    if flags.password && !absent(&reader) {
        connect.password = Some(reader.binary()?); // [MQTT-3.1.2-19]
    }
    reader.finish()?; // [MQTT-3.1.2-16] [MQTT-3.1.2-18]
    Ok(connect)
}

impl<'a> Connect<'a> {
    fn decode_properties(&mut self, block: &'a [u8], limits: &DecodeLimits) -> Result<(), DecodeError> {
        const ALLOWED: IdSet = IdSet::of(&[
            id::SESSION_EXPIRY_INTERVAL,
            id::AUTHENTICATION_METHOD,
            id::AUTHENTICATION_DATA,
            id::REQUEST_PROBLEM_INFORMATION,
            id::REQUEST_RESPONSE_INFORMATION,
            id::RECEIVE_MAXIMUM,
            id::TOPIC_ALIAS_MAXIMUM,
            id::USER_PROPERTY,
            id::MAXIMUM_PACKET_SIZE,
        ]);
        let mut walk = Walk::new(block, ALLOWED, limits);
        while let Some(id) = walk.next_id()? {
            match id {
                id::SESSION_EXPIRY_INTERVAL => self.session_expiry_s = walk.value.u32()?,
                id::AUTHENTICATION_METHOD => self.authentication_method = Some(walk.value.string()?),
                id::AUTHENTICATION_DATA => self.authentication_data = Some(walk.value.binary()?),
                id::REQUEST_PROBLEM_INFORMATION => self.request_problem_information = walk.flag()?,
                id::REQUEST_RESPONSE_INFORMATION => self.request_response_information = walk.flag()?,
                id::RECEIVE_MAXIMUM => self.receive_maximum = walk.value.u16()?,
                id::TOPIC_ALIAS_MAXIMUM => self.topic_alias_max = walk.value.u16()?,
                id::MAXIMUM_PACKET_SIZE => self.packet_size_max = walk.value.u32()?,
                _ => walk.user_property()?,
            }
        }
        if self.receive_maximum == 0 {
            return Err(DecodeError::ProtocolError("Receive Maximum is 0"));
        }
        if self.packet_size_max == 0 {
            return Err(DecodeError::ProtocolError("Maximum Packet Size is 0"));
        }
        if self.authentication_data.is_some() && self.authentication_method.is_none() {
            return Err(DecodeError::ProtocolError("Authentication Data without Authentication Method"));
        }
        Ok(())
    }
}

impl<'a> Will<'a> {
    fn decode(
        version: Version,
        qos: Qos,
        retain: bool,
        reader: &mut Reader<'a>,
        limits: &DecodeLimits,
    ) -> Result<Will<'a>, DecodeError> {
        let properties = match version {
            Version::V5 => MessageProperties::decode(reader.property_block()?, Message::Will, limits)?,
            Version::V31 | Version::V311 => MessageProperties::default(),
        };
        let topic = text::topic_name(reader.binary()?, limits.topic_levels_max)?; // [MQTT-3.1.3-11]
        if topic.is_empty() {
            return Err(DecodeError::Specific(Reason::TOPIC_NAME_INVALID, "Will Topic is empty")); // [MQTT-4.7.3-1]
        }
        Ok(Will {
            qos,
            retain,
            topic,
            payload: reader.binary()?,
            delay_s: properties.will_delay_s,
            expiry_s: properties.expiry_s,
            properties: properties.forwardable,
        })
    }
}
