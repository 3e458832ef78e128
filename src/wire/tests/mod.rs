//! Tables of valid and invalid packets by requirement, and properties of the codec as a whole.

mod acks;
mod connect;
mod encode;
mod frames;
mod independent;
mod properties;
mod publish;
mod robust;
mod shortcuts;
mod subscribe;

use super::testing::frame;
use super::{DecodeError, DecodeLimits, Packet, Reason, Version, decode};

const LIMITS: DecodeLimits = DecodeLimits { properties_max: 32, topic_levels_max: 24, topic_alias_max: 10 };

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

fn read(version: Version, packet: &[u8]) -> Result<Packet<'_>, DecodeError> {
    decode(version, &frame(packet), &LIMITS)
}

/// The reason for refusing `packet`.
#[track_caller]
fn refusal(version: Version, packet: &[u8]) -> Reason {
    match read(version, packet) {
        Ok(packet) => panic!("accepted as {packet:?}"),
        Err(error) => error.reason(),
    }
}

#[track_caller]
fn malformed(version: Version, packet: &[u8]) {
    assert_eq!(refusal(version, packet), Reason::MALFORMED_PACKET, "{packet:02X?}");
}

#[track_caller]
fn protocol_error(version: Version, packet: &[u8]) {
    assert_eq!(refusal(version, packet), Reason::PROTOCOL_ERROR, "{packet:02X?}");
}

#[track_caller]
fn accepted(version: Version, packet: &[u8]) {
    if let Err(error) = read(version, packet) {
        panic!("refused with {error}: {packet:02X?}");
    }
}

/// Byte strings that are no MQTT strings.
const NOT_STRINGS: [&[u8]; 12] = [
    b"\xFF",
    b"a\x80b",
    b"\xC0\x80",         // over-long U+0000
    b"\xC1\xBF",         // over-long
    b"\xE0\x80\xAF",     // over-long
    b"\xF0\x80\x80\xAF", // over-long
    b"\xED\xA0\x80",     // U+D800
    b"\xED\xBF\xBF",     // U+DFFF
    b"\xF4\x90\x80\x80", // above U+10FFFF
    b"cut at the end \xE2\x82",
    b"\0",
    b"a longer string, of which one in the middle \0 is U+0000, and it goes on after it for a while",
];

/// Strings that must pass, U+FEFF and the outermost code points among them.
const STRINGS: [&str; 8] = [
    "a",
    "\u{FEFF}",
    "a\u{FEFF}b",
    "\u{1}\u{7F}\u{9F}",
    "\u{D7FF}\u{E000}",
    "\u{FFFF}\u{FDD0}",
    "\u{10FFFF}",
    "seventy bytes and more of text, so that the search for long strings is taken, \u{20AC}",
];

#[test]
fn every_error_may_stand_in_a_servers_disconnect() {
    let specific = [
        Reason::PACKET_TOO_LARGE,
        Reason::QUOTA_EXCEEDED,
        Reason::TOPIC_NAME_INVALID,
        Reason::TOPIC_FILTER_INVALID,
        Reason::TOPIC_ALIAS_INVALID,
    ];
    let errors = [DecodeError::Malformed(""), DecodeError::ProtocolError("")]
        .into_iter()
        .chain(specific.map(|reason| DecodeError::Specific(reason, "")));
    for error in errors {
        assert!(error.reason().fits_server_disconnect(), "{error}");
        assert!(error.reason().is_error());
    }
}

/// The reason code table of the standard: code, then the packets that may carry it. DISCONNECT by sender.
const REASON_TABLE: &str = "
00 CA PA PR PL PC SA UA DC DS
01 SA
02 SA
04 DC
10 PA PR
11 UA
18
19
80 CA PA PR SA UA DC DS
81 CA DC DS
82 CA DC DS
83 CA PA PR SA UA DC DS
84 CA
85 CA
86 CA
87 CA PA PR SA UA DS
88 CA
89 CA DS
8A CA
8B DS
8C CA DS
8D DS
8E DS
8F SA UA DS
90 CA PA PR DC DS
91 PA PR SA UA
92 PL PC
93 DC DS
94 DC DS
95 CA DC DS
96 DC DS
97 CA PA PR SA DC DS
98 DC DS
99 CA PA PR DC DS
9A CA DS
9B CA DS
9C CA DS
9D CA DS
9E SA DS
9F CA DS
A0 DS
A1 SA DS
A2 SA DS
";

/// Whether the table lets `code` stand in `packet`.
fn table_allows(code: u8, packet: &str) -> bool {
    REASON_TABLE.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(&format!("{code:02X}")) && words.any(|word| word == packet)
    })
}

#[test]
fn mqtt_3_2_2_8_and_its_like_reason_codes_stand_only_where_the_table_has_them() {
    for code in 0..=0xFF {
        let reason = Reason(code);
        for (packet, fits) in [
            ("CA", reason.fits_connack()),
            ("PA", reason.fits_puback_pubrec()),
            ("PR", reason.fits_puback_pubrec()),
            ("PL", reason.fits_pubrel_pubcomp()),
            ("PC", reason.fits_pubrel_pubcomp()),
            ("SA", reason.fits_suback()),
            ("UA", reason.fits_unsuback()),
            ("DC", reason.fits_client_disconnect()),
            ("DS", reason.fits_server_disconnect()),
        ] {
            assert_eq!(fits, table_allows(code, packet), "{reason} in {packet}");
        }
    }
}

#[test]
fn reason_codes_have_the_names_of_the_table_and_no_others() {
    let listed: Vec<u8> = REASON_TABLE
        .lines()
        .filter_map(|line| u8::from_str_radix(line.split_whitespace().next()?, 16).ok())
        .collect();
    let defined: Vec<u8> = super::reason::DEFINED.iter().map(|reason| reason.0).collect();
    assert_eq!(defined, listed);
    for code in 0..=0xFF {
        assert_eq!(Reason(code).name() != "unknown reason", listed.contains(&code), "{code:#04x}");
        assert_eq!(Reason(code).is_error(), code >= 0x80);
    }
}
