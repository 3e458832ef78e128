//! A client's end of a WebSocket that carries MQTT: binary frames, subprotocol `mqtt`, no extension.
//!
//! MQTT packets may span frames and share them, so payload bytes go straight into the byte stream. The masking key is
//! pseudo-random: it protects proxies against browsers, which is nothing that a generator has to do well.

use super::LayerError;
use crate::payload::mix;

/// A response to the upgrade may not be longer.
const RESPONSE_MAX: usize = 16 * 1024;

enum State {
    /// Waiting for the response to the upgrade; holds its beginning.
    Upgrading(Vec<u8>),
    Open,
}

/// One connection.
pub struct WebSocket {
    state: State,
    host: String,
    path: String,
    random: u64,
    /// The beginning of a frame header, or of a control frame, not yet whole.
    partial: Vec<u8>,
    /// Payload bytes of the current data frame that have not arrived.
    left: u64,
}

fn error(what: impl Into<String>) -> LayerError {
    LayerError(format!("WebSocket: {}", what.into()))
}

impl WebSocket {
    pub fn new(host: &str, path: &str, seed: u64) -> WebSocket {
        WebSocket {
            state: State::Upgrading(Vec::new()),
            host: host.into(),
            path: path.into(),
            random: mix(seed),
            partial: Vec::new(),
            left: 0,
        }
    }

    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// The upgrade request.
    pub fn request(&self) -> Vec<u8> {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.random.to_be_bytes());
        key[8..].copy_from_slice(&mix(self.random).to_be_bytes());
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {}\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
            self.path,
            self.host,
            base64(&key)
        )
        .into_bytes()
    }

    /// Takes bytes off the wire.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        plain: &mut Vec<u8>,
        raw: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        let State::Upgrading(head) = &mut self.state else { return self.frames(bytes, plain, raw) };
        head.extend_from_slice(bytes);
        let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") else {
            return if head.len() > RESPONSE_MAX {
                Err(error("the response to the upgrade never ends"))
            } else {
                Ok(())
            };
        };
        let first = head.split(|&b| b == b'\r').next().unwrap_or_default();
        if !first.starts_with(b"HTTP/1.1 101") {
            return Err(error(format!("the upgrade was answered with '{}'", String::from_utf8_lossy(first))));
        }
        let rest = head.split_off(end + 4);
        self.state = State::Open;
        self.frames(&rest, plain, raw)
    }

    fn frames(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>, raw: &mut Vec<u8>) -> Result<(), LayerError> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let n = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                plain.extend_from_slice(&bytes[..n]);
                self.left -= n as u64;
                bytes = &bytes[n..];
                continue;
            }
            self.partial.push(bytes[0]);
            bytes = &bytes[1..];
            self.header(raw)?;
        }
        Ok(())
    }

    /// Looks at what there is of a frame's header (and, for control frames, of all of it).
    fn header(&mut self, raw: &mut Vec<u8>) -> Result<(), LayerError> {
        let Some(&[first, second]) = self.partial.first_chunk() else { return Ok(()) };
        if first & 0x70 != 0 || second & 0x80 != 0 {
            return Err(error("a frame with an extension or a mask, which no server sends unasked"));
        }
        let opcode = first & 0x0F;
        let short = usize::from(second & 0x7F);
        let header_len = match short {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        if self.partial.len() < header_len {
            return Ok(());
        }
        if opcode & 8 == 0 {
            if opcode == 1 {
                return Err(error("a text frame"));
            }
            let mut length = [0; 8];
            match header_len {
                2 => length[7] = short as u8,
                4 => length[6..].copy_from_slice(&self.partial[2..4]),
                _ => length.copy_from_slice(&self.partial[2..10]),
            }
            self.left = u64::from_be_bytes(length);
            self.partial.clear();
            return Ok(());
        }
        if header_len > 2 {
            return Err(error("a control frame of more than 125 bytes"));
        }
        if self.partial.len() < 2 + short {
            return Ok(());
        }
        let payload = self.partial.split_off(2);
        self.partial.clear();
        match opcode {
            8 => Err(error(match payload.first_chunk() {
                Some(code) => format!("the server closed with code {}", u16::from_be_bytes(*code)),
                None => "the server closed without a code".into(),
            })),
            9 => {
                self.frame(0xA, &payload, raw);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Wraps bytes into one binary frame.
    pub fn send(&mut self, plain: &[u8], raw: &mut Vec<u8>) {
        self.frame(2, plain, raw);
    }

    fn frame(&mut self, opcode: u8, payload: &[u8], raw: &mut Vec<u8>) {
        raw.push(0x80 | opcode);
        match payload.len() {
            n @ 0..126 => raw.push(0x80 | n as u8),
            n @ 126..65_536 => {
                raw.push(0xFE);
                raw.extend_from_slice(&(n as u16).to_be_bytes());
            }
            n => {
                raw.push(0xFF);
                raw.extend_from_slice(&(n as u64).to_be_bytes());
            }
        }
        self.random = mix(self.random);
        let mask = (self.random as u32).to_be_bytes();
        raw.extend_from_slice(&mask);
        let at = raw.len();
        raw.extend_from_slice(payload);
        for (i, byte) in raw[at..].iter_mut().enumerate() {
            *byte ^= mask[i & 3];
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, &b| word << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * i)) as usize & 63] as char;
            out.push(if i <= chunk.len() { digit } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESPONSE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

    fn open() -> WebSocket {
        let mut socket = WebSocket::new("h", "/mqtt", 1);
        socket.receive(RESPONSE, &mut Vec::new(), &mut Vec::new()).unwrap();
        assert!(socket.is_ready());
        socket
    }

    #[test]
    fn base64_of_known_strings() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn frames_of_every_length_form_arrive_however_they_are_split() {
        let mut stream = RESPONSE.to_vec();
        let mut expected = Vec::new();
        for len in [0usize, 1, 125, 126, 65_535, 65_536] {
            let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
            stream.push(0x82);
            match len {
                0..126 => stream.push(len as u8),
                126..65_536 => stream.extend_from_slice(&[126, (len >> 8) as u8, len as u8]),
                _ => {
                    stream.push(127);
                    stream.extend_from_slice(&(len as u64).to_be_bytes());
                }
            }
            stream.extend_from_slice(&payload);
            expected.extend_from_slice(&payload);
            stream.extend_from_slice(b"\x89\x02hi");
        }
        for step in [1, 3, 100, stream.len()] {
            let mut socket = WebSocket::new("h", "/mqtt", 1);
            let (mut plain, mut raw) = (Vec::new(), Vec::new());
            for chunk in stream.chunks(step) {
                socket.receive(chunk, &mut plain, &mut raw).unwrap();
            }
            assert!(plain == expected, "step {step}");
            let pong = raw.first_chunk::<8>().unwrap();
            assert_eq!(pong[..2], [0x8A, 0x82]);
            assert_eq!([pong[6] ^ pong[2], pong[7] ^ pong[3]], *b"hi");
            assert_eq!(raw.len(), 6 * 8);
        }
    }

    #[test]
    fn what_is_sent_is_masked_and_framed() {
        let mut raw = Vec::new();
        open().send(&[7; 300], &mut raw);
        assert_eq!(raw[..4], [0x82, 0xFE, 1, 44]);
        let mask: [u8; 4] = raw[4..8].try_into().unwrap();
        assert!(raw[8..].iter().enumerate().all(|(i, b)| b ^ mask[i & 3] == 7));
    }

    #[test]
    fn refusals_and_closes_are_told_in_words() {
        let mut socket = WebSocket::new("h", "/", 1);
        let refused = socket.receive(b"HTTP/1.1 404 Not Found\r\n\r\n", &mut Vec::new(), &mut Vec::new());
        assert_eq!(
            refused.unwrap_err().0,
            "WebSocket: the upgrade was answered with 'HTTP/1.1 404 Not Found'"
        );
        let closed = open().receive(b"\x88\x02\x03\xea", &mut Vec::new(), &mut Vec::new());
        assert!(closed.unwrap_err().0.contains("1002"));
        for bad in [&b"\x81\x01a"[..], b"\xc2\x00", b"\x82\x80", b"\x89\x7e\x00\x80"] {
            assert!(open().receive(bad, &mut Vec::new(), &mut Vec::new()).is_err(), "{bad:?}");
        }
    }
}
