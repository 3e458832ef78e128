//! Who speaks something else than MQTT, by its first bytes: only for the log, so that an operator need not guess.

use crate::wire::{self, DecodeError, Reason};

/// What a connection began with, if its bytes show it.
pub(super) fn spoken(bytes: &[u8]) -> Option<&'static str> {
    /// Beginnings of other protocols.
    const KNOWN: [(&[u8], &str); 12] = [
        (b"PRI * HTTP/2", "HTTP/2 is spoken, and this is a port for MQTT"),
        (b"GET ", HTTP),
        (b"POST ", HTTP),
        (b"HEAD ", HTTP),
        (b"PUT ", HTTP),
        (b"OPTIONS ", HTTP),
        (b"CONNECT ", HTTP),
        (b"DELETE ", HTTP),
        (b"PROXY ", PROXY),
        (b"\r\n\r\n\0\r\nQUIT\n", PROXY),
        (b"\x16\x03", "TLS is spoken, and this port is plain; --tls-listen opens one for TLS"),
        (b"SSH-", "SSH is spoken, and this is a port for MQTT"),
    ];
    const HTTP: &str = "HTTP or WebSocket is spoken, and this is a port for MQTT";
    const PROXY: &str =
        "a PROXY protocol header came, which is not understood here; switch it off at the proxy";
    KNOWN.iter().find(|(beginning, _)| bytes.starts_with(beginning)).map(|(_, said)| *said)
}

/// Why a connection whose first byte begins no CONNECT is closed.
pub(super) fn not_a_connect(bytes: &[u8]) -> &'static str {
    if let Some(said) = spoken(bytes) {
        return said;
    }
    let first = bytes.first().copied().unwrap_or_default();
    match wire::packet_name(first) {
        Some("CONNECT") => "the first packet is not a CONNECT of MQTT",
        Some("PUBLISH") => "the first packet is PUBLISH and not CONNECT",
        Some("SUBSCRIBE") => "the first packet is SUBSCRIBE and not CONNECT",
        Some("UNSUBSCRIBE") => "the first packet is UNSUBSCRIBE and not CONNECT",
        Some("PINGREQ") => "the first packet is PINGREQ and not CONNECT",
        Some("DISCONNECT") => "the first packet is DISCONNECT and not CONNECT",
        Some("AUTH") => "the first packet is AUTH and not CONNECT",
        Some(_) => "the first packet is an acknowledgement and not CONNECT",
        None => "the first byte begins no packet of MQTT",
    }
}

/// Why the first packet cannot be framed.
pub(super) fn not_framed(error: DecodeError) -> &'static str {
    match error.reason() {
        Reason::PACKET_TOO_LARGE => "the CONNECT is larger than --connect-packet-size-max allows",
        _ => error.detail(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spoken_is_told_by_the_first_bytes() {
        for (bytes, word) in [
            (&b"GET /mqtt HTTP/1.1\r\n"[..], "HTTP"),
            (b"PRI * HTTP/2.0\r\n\r\nSM", "HTTP/2"),
            (b"\x16\x03\x01\x02\x00\x01\x00", "TLS"),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "PROXY"),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c", "PROXY"),
            (b"SSH-2.0-x\r\n", "SSH"),
            (b"\x82\x05\0\x01\0\0\0", "SUBSCRIBE"),
            (b"\x30\x03\0\x01a", "PUBLISH"),
            (b"\xc0\0", "PINGREQ"),
            (b"\xe0\0", "DISCONNECT"),
            (b"\x40\x02\0\x01", "acknowledgement"),
            (b"\0\0", "begins no packet"),
            (b"hello", "begins no packet"),
            (b"\x80\0", "begins no packet"),
        ] {
            assert!(not_a_connect(bytes).contains(word), "{bytes:?}: {}", not_a_connect(bytes));
        }
        assert_eq!(spoken(b"\x10\x0c\0\x04MQTT"), None);
    }
}
