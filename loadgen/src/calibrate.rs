//! `loadgen calibrate`: what this generator can do on this machine when no broker is in the way.
//!
//! One core of the generator against a peer in this process, on other CPUs where there are any: a peer that only
//! reads (the most that can be sent), and one that passes a publisher's bytes on to its subscriber unread (the most
//! that can be sent and received). At a modest rate the latter also gives the floor under every latency.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde::{Deserialize, Serialize};

use crate::cli::{self, Refusal};
use crate::engine::{self, Outcome};
use crate::environment::machine;
use crate::report::{Figures, count, time};
use crate::spec::Spec;
use crate::sys;

/// The figures of one machine.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Calibration {
    pub cpu: String,
    pub kernel: String,
    /// 64-byte messages a second that one core hands to the kernel, QoS 0, window 256.
    pub swallow_rate: f64,
    /// The same, sent and received by one core.
    pub reflect_rate: f64,
    /// Latency of 1,000 messages a second through the peer, in nanoseconds.
    pub floor_p50_ns: u64,
    pub floor_p99_ns: u64,
    /// The first two as if the core had had nothing else to do: messages for each second of its CPU time.
    pub swallow_per_cpu_s: f64,
    pub reflect_per_cpu_s: f64,
}

fn path() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    Some(cache.join("loadgen").join("calibration.json"))
}

impl Calibration {
    /// What was last found on this machine.
    pub fn load() -> Option<Calibration> {
        serde_json::from_str(&std::fs::read_to_string(path()?).ok()?).ok()
    }

    /// Keeps it for the reports to come; where, if that worked.
    pub fn save(&self) -> io::Result<PathBuf> {
        let path = path().ok_or_else(|| io::Error::other("neither XDG_CACHE_HOME nor HOME is set"))?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, serde_json::to_string_pretty(self).map_err(io::Error::other)?)?;
        Ok(path)
    }

    /// In words.
    pub fn text(&self) -> String {
        format!(
            "{} msg/s sent by one core, {} msg/s sent and received by one core (64 bytes, QoS 0, window 256); \
             latency floor p50 {}, p99 {}",
            count(self.swallow_rate as u64),
            count(self.reflect_rate as u64),
            time(self.floor_p50_ns),
            time(self.floor_p99_ns)
        )
    }
}

/// What a peer does with messages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    Swallow,
    Reflect,
}

/// Measures; `seconds` for each of the three runs.
pub fn calibrate(
    core: Option<usize>,
    seconds: f64,
    interrupted: &AtomicBool,
) -> Result<Calibration, Refusal> {
    let swallow = run(Peer::Swallow, "swallow --window 256", core, seconds, interrupted)?;
    let reflect = run(Peer::Reflect, "p2p --pairs 1 --window 256", core, seconds, interrupted)?;
    let floor = run(Peer::Reflect, "p2p --pairs 1 --rate 1000", core, seconds, interrupted)?;
    let (cpu, kernel) = machine();
    let rate = |(spec, outcome): &(Spec, Outcome)| Figures::of(spec, outcome).rate;
    let per_cpu_s = |(spec, outcome): &(Spec, Outcome)| {
        Figures::of(spec, outcome).rate / outcome.cores.iter().map(|core| core.ran).sum::<f64>().max(0.01)
    };
    Ok(Calibration {
        cpu,
        kernel,
        swallow_rate: rate(&swallow),
        reflect_rate: rate(&reflect),
        floor_p50_ns: floor.1.totals.latency.value_at_quantile(0.5),
        floor_p99_ns: floor.1.totals.latency.value_at_quantile(0.99),
        swallow_per_cpu_s: per_cpu_s(&swallow),
        reflect_per_cpu_s: per_cpu_s(&reflect),
    })
}

fn run(
    peer: Peer,
    work: &str,
    core: Option<usize>,
    seconds: f64,
    interrupted: &AtomicBool,
) -> Result<(Spec, Outcome), Refusal> {
    let allowed = sys::cpus_allowed().unwrap_or_default();
    let core = core.or(allowed.last().copied()).unwrap_or(0);
    let elsewhere: Vec<usize> = allowed.iter().copied().filter(|&cpu| cpu != core).collect();
    let cpus = if elsewhere.is_empty() { allowed } else { elsewhere };
    let port = serve(peer, cpus).map_err(|e| Refusal::Usage(format!("cannot listen on 127.0.0.1: {e}")))?;
    let line = format!(
        "loadgen {work} --port {port} --duration {seconds} --warmup 500ms --keep-alive 0 --cores {core}"
    );
    let parsed = cli::parse(line.split_whitespace().map(OsString::from));
    let args = parsed.map_err(|e| Refusal::Usage(e.to_string()))?.run;
    let spec = args.spec()?;
    let outcome = engine::run(&spec, interrupted, &mut |_| {});
    match outcome.failures.first() {
        Some((failure, _)) => Err(Refusal::Connection(failure.clone())),
        None => Ok((spec, outcome)),
    }
}

/// The streams of subscribers by filter.
type Subscribers = Arc<Mutex<HashMap<Vec<u8>, TcpStream>>>;

/// Starts a peer for the rest of the process; its port.
fn serve(peer: Peer, cpus: Vec<usize>) -> io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let subscribers = Subscribers::default();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (subscribers, cpus) = (Arc::clone(&subscribers), cpus.clone());
            thread::spawn(move || {
                // On its own CPUs if possible; a peer in the generator's way would only lower the figures.
                let _ = sys::pin_thread(&cpus);
                let _ = attend(peer, stream, &subscribers);
            });
        }
    });
    Ok(port)
}

fn read_packet(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    // The packets before the first PUBLISH are short, and so is a 64-byte PUBLISH.
    let mut len = usize::from(head[1] & 0x7F);
    if head[1] >= 0x80 {
        let mut high = [0];
        stream.read_exact(&mut high)?;
        len |= usize::from(high[0]) << 7;
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body)?;
    Ok((head[0], body))
}

/// Serves one connection of MQTT 5.0 to its end.
fn attend(peer: Peer, mut stream: TcpStream, subscribers: &Subscribers) -> io::Result<()> {
    stream.set_nodelay(true)?;
    read_packet(&mut stream)?;
    stream.write_all(&[0x20, 3, 0, 0, 0])?;
    let mut bytes = vec![0; 256 * 1024];
    if peer == Peer::Swallow {
        while stream.read(&mut bytes)? > 0 {}
        return Ok(());
    }
    let (first, body) = read_packet(&mut stream)?;
    let lock = |subscribers: &Subscribers| -> Option<TcpStream> {
        let name = body.get(2..2 + usize::from(*body.get(1)?))?;
        let all = subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(name)?.try_clone().ok()
    };
    if first >> 4 == 8 {
        // SUBSCRIBE: packet id, no properties, filter, options.
        let filter = body.get(5..body.len() - 1).unwrap_or_default().to_vec();
        let mut all = subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(filter, stream.try_clone()?);
        drop(all);
        stream.write_all(&[0x90, 4, body[0], body[1], 0, 0])?;
        while stream.read(&mut bytes)? > 0 {}
        return Ok(());
    }
    let Some(mut subscriber) = lock(subscribers) else { return Ok(()) };
    let mut head = vec![first];
    let mut len = body.len();
    while len >= 0x80 {
        head.push(len as u8 | 0x80);
        len >>= 7;
    }
    head.push(len as u8);
    subscriber.write_all(&[head, body].concat())?;
    loop {
        let n = stream.read(&mut bytes)?;
        if n == 0 {
            return Ok(());
        }
        subscriber.write_all(&bytes[..n])?;
    }
}
