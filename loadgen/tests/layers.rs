//! TLS and WebSocket, through fronts that unwrap them and pass the bytes on to a scripted peer.

mod peer;
mod run;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use peer::Peer;
use run::{Run, run};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

const WORK: &str =
    "p2p --pairs 3 --qos 1 --rate 300 --duration 500ms --warmup 0 --no-spin --drain 2 --payload 16..3000";

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A stream that gives up reading after a millisecond, and its other half.
trait Duplex: Read + Write + Send + 'static {}
impl<T: Read + Write + Send + 'static> Duplex for T {}

/// Passes bytes between both until one ends.
fn pump(mut a: impl Duplex, mut b: impl Duplex) {
    let mut bytes = [0; 4096];
    loop {
        for forward in [true, false] {
            let result = if forward { a.read(&mut bytes) } else { b.read(&mut bytes) };
            match result {
                Ok(0) => return,
                Ok(n) => {
                    let other: &mut dyn Write = if forward { &mut b } else { &mut a };
                    if other.write_all(&bytes[..n]).and_then(|()| other.flush()).is_err() {
                        return;
                    }
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return,
            }
        }
    }
}

fn impatient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Listens and hands each connection, wrapped, to a pump towards the peer.
fn front<S: Duplex>(peer: &Peer, wrap: impl Fn(TcpStream) -> Option<S> + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, behind, wrap) = (listener.local_addr().unwrap().port(), peer.port, Arc::new(wrap));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let wrap = wrap.clone();
            thread::spawn(move || {
                if let Some(stream) = wrap(stream) {
                    pump(stream, impatient(TcpStream::connect(("127.0.0.1", behind)).unwrap()));
                }
            });
        }
    });
    port
}

fn tls_config() -> Arc<ServerConfig> {
    let chain = vec![CertificateDer::from_pem_file(data("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(data("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap())
}

fn tls(stream: TcpStream, config: &Arc<ServerConfig>) -> Option<StreamOwned<ServerConnection, TcpStream>> {
    let mut stream = stream;
    let mut connection = ServerConnection::new(config.clone()).ok()?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).ok()?;
    }
    Some(StreamOwned::new(connection, impatient(stream)))
}

/// A server's end of a WebSocket. It sends tiny frames, so that packets span several of them, and a ping before each.
struct WebSocket<S> {
    stream: S,
    raw: Vec<u8>,
    plain: Vec<u8>,
}

impl<S: Duplex> WebSocket<S> {
    fn accept(mut stream: S, expected_path: &str) -> Option<WebSocket<S>> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                _ => return None,
            }
        }
        let head = String::from_utf8(head).unwrap();
        let right = head.starts_with(&format!("GET {expected_path} HTTP/1.1\r\n"))
            && head.contains("Sec-WebSocket-Protocol: mqtt\r\n")
            && head.contains("Upgrade: websocket\r\n");
        let answer =
            if right { "HTTP/1.1 101 Switching Protocols\r\n\r\n" } else { "HTTP/1.1 404 Not Found\r\n\r\n" };
        stream.write_all(answer.as_bytes()).unwrap();
        right.then(|| WebSocket { stream, raw: Vec::new(), plain: Vec::new() })
    }
}

impl<S: Duplex> Read for WebSocket<S> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let mut bytes = [0; 4096];
        while self.plain.is_empty() {
            let n = self.stream.read(&mut bytes)?;
            if n == 0 {
                return Ok(0);
            }
            self.raw.extend_from_slice(&bytes[..n]);
            while let Some(used) = self.unwrap_frame() {
                self.raw.drain(..used);
            }
        }
        let n = out.len().min(self.plain.len());
        out[..n].copy_from_slice(&self.plain[..n]);
        self.plain.drain(..n);
        Ok(n)
    }
}

impl<S> WebSocket<S> {
    /// Takes one masked frame off `raw`; its size, if it is whole.
    fn unwrap_frame(&mut self) -> Option<usize> {
        let raw = &self.raw;
        let short = usize::from(raw.get(1)? & 0x7F);
        assert!(raw[1] & 0x80 != 0, "a client masks every frame");
        let (len, at) = match short {
            126 => (usize::from(*raw.get(2)?) << 8 | usize::from(*raw.get(3)?), 4),
            127 => (raw.get(2..10)?.iter().fold(0, |n, &b| n << 8 | usize::from(b)), 10),
            n => (n, 2),
        };
        let mask: [u8; 4] = raw.get(at..at + 4)?.try_into().unwrap();
        let payload = raw.get(at + 4..at + 4 + len)?;
        match raw[0] {
            0x82 => self.plain.extend(payload.iter().enumerate().map(|(i, b)| b ^ mask[i & 3])),
            0x8A => assert_eq!(len, 2, "the pong returns what the ping said"),
            first => panic!("a frame of type {first:#x}"),
        }
        Some(at + 4 + len)
    }
}

impl<S: Duplex> Write for WebSocket<S> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut frames = Vec::new();
        for chunk in bytes.chunks(7) {
            frames.extend_from_slice(&[0x89, 2, b'h', b'i', 0x82, chunk.len() as u8]);
            frames.extend_from_slice(chunk);
        }
        self.stream.write_all(&frames)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

#[track_caller]
fn expect_all_received(run: &Run) {
    assert!([0, 4].contains(&run.exit), "{}", run.stdout);
    assert_eq!((run.number("messages.unique"), run.number("faults.lost")), (150.0, 0.0), "{}", run.stdout);
    assert_eq!(run.number("faults.corrupted"), 0.0);
}

#[test]
fn tls_with_a_trusted_certificate() {
    let (peer, config) = (Peer::honest(), tls_config());
    let port = front(&peer, move |stream| tls(stream, &config));
    let trusted = run(port, &format!("{WORK} --cafile {}", data("ca.pem").display()));
    expect_all_received(&trusted);
    assert!(trusted.text("headline").contains("TLS"));
    expect_all_received(&run(port, &format!("{WORK} --insecure -h localhost")));
}

#[test]
fn tls_with_an_untrusted_certificate_is_refused_in_words() {
    let (peer, config) = (Peer::honest(), tls_config());
    let port = front(&peer, move |stream| tls(stream, &config));
    // The server's own certificate is no authority.
    let run = run(port, &format!("{WORK} --cafile {}", data("server.pem").display()));
    assert_eq!(run.exit, 5);
    assert!(run.text("verdict.failures").contains("TLS: invalid peer certificate"), "{}", run.stdout);
}

#[test]
fn websocket_frames_carry_packets_across_their_borders() {
    let peer = Peer::honest();
    let port = front(&peer, |stream| WebSocket::accept(impatient(stream), "/mqtt"));
    let run = run(port, &format!("{WORK} --ws"));
    expect_all_received(&run);
    assert!(run.text("headline").contains("WebSocket"));
}

#[test]
fn websocket_over_tls_with_a_path() {
    let (peer, config) = (Peer::honest(), tls_config());
    let port = front(&peer, move |stream| WebSocket::accept(tls(stream, &config)?, "/here"));
    expect_all_received(&run(port, &format!("{WORK} --ws /here --insecure")));
}

#[test]
fn a_refused_upgrade_is_told() {
    let peer = Peer::honest();
    let port = front(&peer, |stream| WebSocket::accept(impatient(stream), "/mqtt"));
    let run = run(port, &format!("{WORK} --ws /elsewhere"));
    assert_eq!(run.exit, 5);
    assert!(run.text("verdict.failures").contains("404"), "{}", run.stdout);
}
