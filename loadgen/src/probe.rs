//! Asks a broker which one it is: the retained message under `$SYS/broker/version`, where it has one.
//!
//! A plain blocking client beside the engine, after the measured time. Whatever goes wrong, the answer is that nobody
//! knows: it is a remark in a report, no measurement.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::engine::conn::feed;
use crate::spec::Spec;
use crate::transport::Layers;
use crate::wire::decode::{self, Malformed, Packet};
use crate::wire::encode;

const TOPIC: &str = "$SYS/broker/version";
/// For connection, handshakes and CONNACK.
const PATIENCE: Duration = Duration::from_secs(1);
/// From SUBACK on: a broker that keeps the message sends it at once.
const AFTER_SUBACK: Duration = Duration::from_millis(100);
/// What a report has room for.
const CHARS_MAX: usize = 80;

/// What the broker says of itself.
pub fn version(spec: &Spec) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(spec.target.addresses.first()?, PATIENCE).ok()?;
    stream.set_nodelay(true).ok()?;
    let mut layers = Layers::new(&spec.transport, &spec.target.name, spec.seed).ok()?;
    let mut raw = Vec::new();
    if let Some(layers) = &mut layers {
        layers.start(&mut raw).ok()?;
    } else {
        connect(spec, &mut raw);
    }
    let mut greeted = layers.is_none();
    let (mut partial, mut found) = (Vec::new(), None);
    let mut deadline = Instant::now() + PATIENCE;
    let mut bytes = [0; 4096];
    while found.is_none() {
        stream.write_all(&raw).ok()?;
        raw.clear();
        let left = deadline.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left).filter(|left| !left.is_zero())).ok()?;
        if left.is_zero() {
            break;
        }
        let n = stream.read(&mut bytes).ok().filter(|&n| n > 0)?;
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        match &mut layers {
            None => plain.extend_from_slice(&bytes[..n]),
            Some(layers) => {
                layers.receive(&bytes[..n], &mut plain, &mut raw).ok()?;
                if !greeted && layers.is_ready() {
                    greeted = true;
                    connect(spec, &mut out);
                }
            }
        }
        let packets = feed::<Malformed>(&mut partial, &plain, |first, body| {
            match decode::packet(spec.version, first, body)? {
                Packet::Connack { code: 0, .. } => {
                    encode::subscribe(&mut out, spec.version, 1, 0, &[TOPIC.to_string()]);
                }
                Packet::Suback { .. } => deadline = Instant::now() + AFTER_SUBACK,
                Packet::Publish(publish) if publish.topic == TOPIC.as_bytes() => {
                    found = Some(String::from_utf8_lossy(publish.payload).chars().take(CHARS_MAX).collect());
                    encode::disconnect(&mut out);
                }
                _ => {}
            }
            Ok(())
        });
        packets.ok()?;
        match &mut layers {
            Some(layers) if !out.is_empty() => layers.send(&out, &mut raw).ok()?,
            _ => raw.append(&mut out),
        }
    }
    if found.is_none() && layers.is_none() {
        encode::disconnect(&mut raw);
    }
    let _ = stream.write_all(&raw);
    found
}

fn connect(spec: &Spec, out: &mut Vec<u8>) {
    let connect = encode::Connect {
        version: spec.version,
        client_id: &format!("lg{}v", spec.run_id),
        user: spec.user.as_deref(),
        password: spec.password.as_deref(),
        keep_alive_s: 60,
        clean: true,
        session_expiry_s: 0,
        receive_maximum: 10,
        topic_alias_maximum: 0,
    };
    encode::connect(out, &connect);
}
