//! A scripted client over TLS: MQTT 3.1.1, one packet at a time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use crate::certificates::Certificates;

pub const PATIENCE: Duration = Duration::from_secs(20);

/// A client that trusts the CA and shows a certificate, if it has one. Kept from one connection to the next, it resumes.
pub fn config(
    certificates: &Certificates,
    version: &'static SupportedProtocolVersion,
    shows: Option<&str>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(certificates.path("ca.pem")).expect("a CA");
    roots.add(ca).expect("a CA");
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots);
    Arc::new(match shows {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let chain =
                CertificateDer::from_pem_file(certificates.path(&format!("{name}.pem"))).expect("one");
            let key = PrivateKeyDer::from_pem_file(certificates.path(&format!("{name}.key"))).expect("a key");
            builder.with_client_auth_cert(vec![chain], key).expect("they go together")
        }
    })
}

pub fn connect_packet(client_id: &str) -> Vec<u8> {
    let mut packet = b"\x10\0\0\x04MQTT\x04\x02\0\0\0".to_vec();
    packet.push(client_id.len() as u8);
    packet.extend_from_slice(client_id.as_bytes());
    packet[1] = packet.len() as u8 - 2;
    packet
}

/// PUBLISH at QoS 0, or at QoS 1 with Packet Identifier 7.
pub fn publish_packet(topic: &str, payload: &[u8], qos: u8) -> Vec<u8> {
    let mut body = vec![0, topic.len() as u8];
    body.extend_from_slice(topic.as_bytes());
    if qos > 0 {
        body.extend_from_slice(&[0, 7]);
    }
    body.extend_from_slice(payload);
    let mut packet = vec![0x30 | qos << 1];
    let mut length = body.len();
    while length > 0x7F {
        packet.push((length & 0x7F) as u8 | 0x80);
        length >>= 7;
    }
    packet.push(length as u8);
    packet.extend_from_slice(&body);
    packet
}

pub struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Client {
    /// A connection whose handshake is over.
    pub fn open(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Client> {
        let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Client { stream })
    }

    /// A client that was accepted by the broker.
    pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>, client_id: &str) -> io::Result<Client> {
        let mut client = Client::open(address, config)?;
        client.send(&connect_packet(client_id))?;
        match client.packet()?[..] {
            [0x20, 0, 0] => Ok(client),
            ref other => Err(io::Error::other(format!("{other:?} instead of CONNACK"))),
        }
    }

    /// The same with a Keep Alive of so many seconds.
    pub fn connect_alive(
        address: SocketAddr,
        config: &Arc<ClientConfig>,
        client_id: &str,
        keep_alive_s: u8,
    ) -> io::Result<Client> {
        let mut client = Client::open(address, config)?;
        let mut packet = connect_packet(client_id);
        packet[11] = keep_alive_s;
        client.send(&packet)?;
        assert_eq!(client.packet()?, [0x20, 0, 0]);
        Ok(client)
    }

    pub fn kind(&self) -> HandshakeKind {
        self.stream.conn.handshake_kind().expect("the handshake is over")
    }

    /// The first certificate of the server, in DER.
    pub fn server_certificate(&self) -> Vec<u8> {
        self.stream.conn.peer_certificates().expect("the handshake is over")[0].to_vec()
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// The next packet: its first byte, then what is behind its length.
    pub fn packet(&mut self) -> io::Result<Vec<u8>> {
        let mut packet = vec![0];
        self.stream.read_exact(&mut packet)?;
        let (mut length, mut shift) = (0, 0);
        loop {
            let mut digit = [0];
            self.stream.read_exact(&mut digit)?;
            length |= usize::from(digit[0] & 0x7F) << shift;
            shift += 7;
            if digit[0] & 0x80 == 0 {
                break;
            }
        }
        packet.resize(1 + length, 0);
        self.stream.read_exact(&mut packet[1..])?;
        Ok(packet)
    }

    /// At QoS 1.
    pub fn subscribe(&mut self, filter: &str) -> io::Result<()> {
        self.subscribe_at(filter, 1)
    }

    pub fn subscribe_at(&mut self, filter: &str, qos: u8) -> io::Result<()> {
        let mut packet = vec![0x82, filter.len() as u8 + 5, 0, 1, 0, filter.len() as u8];
        packet.extend_from_slice(filter.as_bytes());
        packet.push(qos);
        self.send(&packet)?;
        assert_eq!(self.packet()?, [0x90, 0, 1, qos]);
        Ok(())
    }

    /// QoS 1; returns when it is acknowledged.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) -> io::Result<()> {
        self.send(&publish_packet(topic, payload, 1))?;
        match self.packet()?[..] {
            [0x40, 0, 7] => Ok(()),
            ref other => Err(io::Error::other(format!("{other:?} instead of PUBACK"))),
        }
    }

    /// The payload of the next PUBLISH with QoS 1, acknowledged.
    pub fn message(&mut self) -> io::Result<Vec<u8>> {
        let packet = self.packet()?;
        assert_eq!(packet[0] >> 1, 0x19, "PUBLISH with QoS 1");
        let topic = usize::from(packet[1]) << 8 | usize::from(packet[2]);
        let (id, payload) = packet[3 + topic..].split_at(2);
        self.send(&[0x40, 2, id[0], id[1]])?;
        Ok(payload.to_vec())
    }

    /// Sends bytes and the end of the stream in one write; the connection stays.
    pub fn send_last(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.conn.writer().write_all(bytes)?;
        self.stream.conn.send_close_notify();
        let mut wire = Vec::new();
        while self.stream.conn.wants_write() {
            self.stream.conn.write_tls(&mut wire)?;
        }
        self.stream.sock.write_all(&wire)
    }

    /// True if the connection ends within `limit`, with whatever comes before.
    pub fn ends_within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.stream.sock.set_read_timeout(Some(left)).expect("a timeout");
            let read = self.stream.read(&mut [0; 64]);
            self.stream.sock.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            match read {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return false;
                }
                Err(_) => return true,
            }
        }
    }

    /// True if the broker ended the stream as TLS wants it: close_notify before the end of the connection.
    pub fn ends_properly(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0))
    }

    /// Waits for the end of the connection, whatever comes before.
    pub fn ends(mut self) -> bool {
        let mut rest = Vec::new();
        let limit = Duration::from_secs(5);
        self.stream.sock.set_read_timeout(Some(limit)).is_ok()
            && self.stream.sock.read_to_end(&mut rest).is_ok()
    }

    /// Sends a record that does not decrypt. True if a fatal alert comes back before the end.
    pub fn breaks_a_record(mut self) -> bool {
        let broken = [&[0x17, 3, 3, 0, 100][..], &[9; 100]].concat();
        self.stream.sock.write_all(&broken).expect("the broker reads");
        let error = self.stream.read(&mut [0]).expect_err("an alert");
        error.to_string().contains("fatal alert")
    }
}
