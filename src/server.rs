//! A broker in this process: one thread per shard, each with its own ring, and how they start and stop together.
//!
//! The only place that reads the clock for shards and the only one that lets them wait. Invariants:
//! - No shard takes its first turn before every shard has its ring, so a doorbell always has somewhere to ring.
//! - A shard sleeps only after its bell agreed; it waits for several completions only after a turn that had several.
//! - A thread that starts shards holds stop signals back first, so that they reach the thread that waits for them.

mod capacity;
mod certificates;
mod error;
mod listeners;
mod reload;
mod store;
mod text;
pub mod tool;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::access::hashing::{self, Hasher, Hashing, Means};
use crate::access::{Access, Policy, Settings, Users, Verifier};
use crate::clock::Millis;
use crate::config::{self, Config};
use crate::io::Driver;
use crate::io::kernel::{Kernel, KernelError, Visitor};
use crate::io::sockets::{self, BACKLOG};
use crate::limits::Limits;
use crate::memory::{Class, Pool, ShardId};
use crate::mesh::Bounds;
use crate::metrics::{Counters, sum};
use crate::shard::{
    Control, Desk, Ends, Listening, Live, Lost, Options, Order, Parcel, Post, Setup, Shard, Stopping, Turn,
};
use crate::transport::tls::TlsAcceptor;

use capacity::{clients_expected, fit_descriptors};
pub use error::{ReloadError, StartError};
use listeners::{DoorFiles, Served};
pub use reload::Reloaded;
use store::Store;
pub use text::{Field, Sentence, lost_in_a_crash};

/// Bytes of all rings between shards together.
const MESH_RING_BYTES: usize = 32 << 20;
/// Items of one ring at least and at most, whatever the budget says.
const MESH_SLOTS: std::ops::RangeInclusive<usize> = 64..=4096;
/// Items that may wait beside one ring; beyond it publishers to that shard are paused.
const MESH_SPILL_MAX: usize = 4096;
/// Bytes of messages that one FIFO may hold at least, whatever the budget says.
const MESH_BYTES_MIN: usize = 1 << 20;
/// Connections, subscriptions and retained messages of a shard from which on its memory may come in large pages.
const LARGE_PAGES_FROM: u64 = 100_000;
/// The receive buffers of all shards may take one part in so many of --memory-max, beside it.
const RECEIVE_BUFFERS_PART: u64 = 16;
/// Hashing passwords may take one part in so many of --memory-max, beside it.
const HASHING_MEMORY_PART: u64 = 8;
/// How often a stop looks whether the shards are done.
const STOP_POLL: Duration = Duration::from_millis(5);
/// How long a shard may take to notice that it is given up.
const ABANDON_PATIENCE: Duration = Duration::from_millis(200);

/// How a stop ended.
#[must_use]
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Stopped {
    /// Everybody was told and nothing is left.
    Drained,
    /// Time was up first.
    Abandoned,
}

/// What was left in a shard when it ended.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
pub struct Rest {
    pub live: Live,
    pub lost: Lost,
}

impl Rest {
    fn of<D: Driver>(shard: &mut Shard<D>) -> Rest {
        Rest { live: shard.live(), lost: shard.lost() }
    }
}

/// A broker that runs.
pub struct Server {
    shards: Vec<JoinHandle<Rest>>,
    /// To wake shards that sleep.
    bell: Box<dyn Driver>,
    addresses: Vec<SocketAddr>,
    counters: Arc<[Counters]>,
    limits: Limits,
    kernel: Kernel,
    /// Of all TLS listeners.
    acceptors: Vec<Arc<TlsAcceptor>>,
    /// What was said about their certificates.
    certificates: certificates::Watch,
    access: Gatekeeping,
    /// What is in force.
    config: Config,
    /// Connections for which there was room at the start.
    connections_room: u32,
    pool: Arc<Pool>,
    /// By shard.
    desks: Vec<Control<TcpListener>>,
    /// By [`ListenerId`]; those that are closed too.
    served: Vec<Served>,
    /// Last, so that it is closed when the shards have ended.
    store: Option<Store>,
}

/// What is behind users and rules, for reading them again.
struct Gatekeeping {
    settings: Settings,
    /// What is in force.
    policy: Arc<Policy>,
    hashing: Hashing,
    /// The ways to the desks of the shards, for threads that hash.
    posts: Vec<Post<TcpListener>>,
    /// Threads that nobody needed yet, with their seats.
    hashers: Vec<(Hasher, ShardId)>,
    /// Files of users by their numbers, which they keep.
    files: Vec<PathBuf>,
    /// By file of the settings.
    users: Vec<usize>,
}

/// What a shard's thread needs to begin.
struct Seat {
    setup: Setup,
    cpu: Option<u16>,
    kernel: Kernel,
    listeners: Vec<TcpListener>,
    desk: Desk<TcpListener>,
    epoch: Instant,
    ready: mpsc::Sender<Result<(), StartError>>,
    go: mpsc::Receiver<()>,
}

impl Server {
    /// Probes the kernel, binds the addresses and starts the shards; when this returns, clients can connect.
    ///
    /// # Errors
    /// What is missing, forbidden or taken, with what to type. Nothing stays behind.
    pub fn start(config: &Config) -> Result<Server, StartError> {
        let policy = config.access.load().map_err(StartError::Access)?;
        let users = Arc::clone(&policy.users);
        let shards = config.shards();
        // The last seats are this thread's and those of the threads that hash.
        let hashers = config.hashing_threads as u16;
        let mut kernel = Kernel::choose(config.io, shards + 1 + hashers)?;
        let (limits, room) = fit_descriptors(config, hashers, &mut kernel)?;
        let acceptors = listeners::acceptors(config, &[])?;
        let mut behind: Vec<Listening> = Vec::new();
        for (acceptor, listener) in acceptors.iter().zip(&config.listeners) {
            behind.push(match behind.last() {
                Some(first) if listener.shares_room => Listening::clone(first),
                Some(_) | None => Listening::new(listeners::layers(acceptor.as_ref()), listener.limits),
            });
        }
        let epoch = Instant::now();
        let mut bell = kernel.ringer(shards)?;
        let keys = [bell.random(), bell.random(), bell.random(), bell.random()];
        // Before any address is bound.
        let begun = match &config.store {
            Some(store) => Some(Store::open(store, shards, now(epoch), keys)?),
            None => None,
        };
        let (mut store, storing, keys) = match begun {
            Some(store::Begun { store, shards, keys }) => (Some(store), shards, keys),
            None => (None, Vec::new(), keys),
        };
        let mut storing = storing.into_iter();
        let listening = sockets::listen(&config.addresses(), shards, BACKLOG)?;
        let counters: Arc<[Counters]> = (0..shards).map(|_| Counters::default()).collect();
        let pool = Pool::new(config::pools(&limits));
        let stopping = Arc::new(Stopping::default());
        let options = Options {
            sys_interval_ms: config.sys_interval_ms,
            route_cache_entries: config.cached_topics_max,
            clients_expected: clients_expected(limits.connections_max, shards),
            ..Options::default()
        };
        let users_len = users.iter().map(Users::len).collect();
        let policy = Arc::new(policy);
        let has_users = !users.is_empty();
        let mut key = [0; 32];
        for part in key.chunks_mut(8) {
            part.copy_from_slice(&bell.random().to_ne_bytes());
        }
        let means = Means { threads: hashers.into(), memory: limits.memory_max / HASHING_MEMORY_PART };
        let (hashing, askers, threads) = hashing::build(users, key, shards, means);
        let (mut desk_controls, desks): (Vec<_>, Vec<_>) = (0..shards).map(|_| crate::shard::desk()).unzip();
        let seat = |(index, hasher)| (hasher, shards + 1 + index as ShardId);
        let mut gatekeeping = Gatekeeping {
            settings: config.access.clone(),
            policy: Arc::clone(&policy),
            hashing,
            posts: desk_controls.iter().map(Control::post).collect(),
            hashers: threads.into_iter().enumerate().map(seat).collect(),
            files: config.access.password_files.clone(),
            users: users_len,
        };
        if has_users {
            gatekeeping.start_hashing(&kernel)?;
        }
        let access = askers.into_iter().map(|asker| {
            let verifier = Box::new(asker) as Box<dyn Verifier>;
            Access::new(Arc::clone(&policy), Some(verifier))
        });
        let (ready, is_ready) = mpsc::channel();
        let ends = Ends::build(shards, mesh_bounds(shards, config::pools(&limits)[Class::Mesh as usize]));
        let mut threads = Vec::new();
        let mut gates = Vec::new();
        let sides = ends.into_iter().zip(listening.by_shard).zip(&config.placement);
        for (((ends, listeners), &cpu), (access, desk)) in sides.zip(access.zip(desks)) {
            let (open, go) = mpsc::channel();
            let setup = Setup {
                id: ends.here(),
                shards,
                limits,
                keys,
                ends,
                pool: Arc::clone(&pool),
                counters: Arc::clone(&counters),
                listeners: behind.clone(),
                stopping: Arc::clone(&stopping),
                access,
                options: options.clone(),
                store: storing.next(),
            };
            let (kernel, ready) = (kernel.clone(), ready.clone());
            let name = format!("shard-{}", setup.id);
            let seat = Seat { setup, cpu, kernel, listeners, desk, epoch, ready, go };
            let thread = std::thread::Builder::new()
                .name(name)
                .spawn(move || serve(seat))
                .map_err(|error| StartError::System { what: "a thread for a shard", error })?;
            threads.push(thread);
            gates.push(open);
        }
        drop(ready);
        // A seat that fails says so; one that panics closes its end.
        let mut outcome = Ok(());
        let mut seated = 0;
        for ready in is_ready.iter().take(threads.len()) {
            seated += 1;
            outcome = outcome.and(ready);
        }
        if seated < threads.len() {
            let error = io::Error::other("it ended before it began");
            outcome = outcome.and(Err(StartError::System { what: "a shard", error }));
        }
        if let Err(error) = outcome {
            // The threads that wait at their gates end, and with them their sockets are closed.
            drop(gates);
            threads.into_iter().for_each(|thread| drop(thread.join()));
            return Err(error);
        }
        for gate in gates {
            let _ = gate.send(());
        }
        if let Some(store) = &mut store
            && let Err(error) = store.commit(|| !threads.iter().any(JoinHandle::is_finished))
        {
            for desk in &mut desk_controls {
                let _ = desk.put(Order::Abandon);
            }
            for shard in 0..shards {
                bell.doorbell(shard);
            }
            bell.submit_and_wait(0);
            threads.into_iter().for_each(|thread| drop(thread.join()));
            return Err(error.into());
        }
        let served = behind.into_iter().zip(listening.addresses.iter().zip(listening.locks)).enumerate();
        let served = served.map(|(index, (listening, (&address, lock)))| Served {
            address,
            config: config.listeners[index].clone(),
            door: config.access.doors[index],
            files: DoorFiles::of(&config.access, &config.access.doors[index]),
            listening,
            lock: Some(lock),
        });
        let served = served.collect();
        Ok(Server {
            shards: threads,
            bell,
            addresses: listening.addresses,
            counters,
            limits,
            kernel,
            acceptors: listeners::distinct(&acceptors),
            certificates: certificates::Watch::default(),
            access: gatekeeping,
            config: config.clone(),
            connections_room: limits.connections_max.max(room),
            pool,
            desks: desk_controls,
            served,
            store,
        })
    }

    /// The addresses that are served, with the ports that were chosen for port 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What stands behind the TLS listeners, to be loaded again (see [`crate::transport::tls::Reload`]).
    pub fn acceptors(&self) -> &[Arc<TlsAcceptor>] {
        &self.acceptors
    }

    /// When the first certificate of a listener expires, in seconds since 1970; `None` without TLS.
    pub fn certificate_expiry_s(&self) -> Option<u64> {
        self.acceptors.iter().map(|acceptor| acceptor.expiry().certificate_at_s).min()
    }

    /// The counters of all shards.
    pub fn counters(&self) -> &Arc<[Counters]> {
        &self.counters
    }

    /// Why the data directory cannot be written any more, if that is so.
    pub fn store_broken(&self) -> Option<io::Error> {
        self.store.as_ref()?.opening.broken().map(io::Error::from_raw_os_error)
    }

    /// Says that the data directory is full, and when it is not any more.
    pub fn tend_store(&mut self) {
        if let Some(store) = &mut self.store {
            store.tend();
        }
    }

    /// The configuration that is in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Begins to drain: no new connections, wills, DISCONNECT 0x8B.
    pub fn begin_stop(&mut self) {
        self.tell(|| Order::Drain);
    }

    /// Waits until all shards have ended or `patience` has run out; then those that have not are given up.
    ///
    /// `interrupted` waits for the time given to it and is asked again and again; true gives up at once. The result has
    /// what was left in each shard that ended.
    pub fn finish(
        mut self,
        patience: Duration,
        mut interrupted: impl FnMut(Duration) -> bool,
    ) -> (Stopped, Vec<Rest>) {
        let ended = |shards: &[JoinHandle<Rest>]| shards.iter().all(JoinHandle::is_finished);
        let deadline = Instant::now() + patience;
        let mut stopped = Stopped::Drained;
        while !ended(&self.shards) {
            if Instant::now() >= deadline || interrupted(STOP_POLL) {
                stopped = Stopped::Abandoned;
                self.tell(|| Order::Abandon);
                break;
            }
        }
        // A shard looks up once a turn; one that does not is left to the end of the process.
        let last = Instant::now() + ABANDON_PATIENCE;
        while !ended(&self.shards) && Instant::now() < last {
            std::thread::sleep(STOP_POLL);
        }
        let shards = std::mem::take(&mut self.shards).into_iter().filter(JoinHandle::is_finished);
        (stopped, shards.map(|shard| shard.join().unwrap_or_default()).collect())
    }

    /// Tells all shards how to stop. Nobody waits for the answers.
    fn tell(&mut self, order: impl Fn() -> Order<TcpListener>) {
        for desk in &mut self.desks {
            // The desk has a place for it. A shard that is gone, or was told before, needs no order.
            let _ = desk.put(order());
        }
        self.wake();
    }

    /// Wakes all shards.
    fn wake(&mut self) {
        for shard in 0..self.shards.len() {
            self.bell.doorbell(shard as ShardId);
        }
        self.bell.submit_and_wait(0);
    }

    /// Connections that exist, for the log of a stop.
    pub fn connections(&self) -> u64 {
        sum(&self.counters, |shard| &shard.connections)
    }
}

/// A thread that hashes, with a ring of its own to wake shards; it ends with them.
fn start_hashing(
    hasher: Hasher,
    here: ShardId,
    kernel: Kernel,
    posts: Vec<Post<TcpListener>>,
    make_way: fn(),
) -> Result<(), StartError> {
    let (ready, is_ready) = mpsc::channel();
    let serve = move || {
        make_way();
        let mut ring = match kernel.ringer(here) {
            Ok(ring) => ring,
            Err(error) => return drop(ready.send(Err(error.into()))),
        };
        let _ = ready.send(Ok(()));
        let mut completions = Vec::new();
        hasher.run(Box::new(move |shard, answer| {
            if !posts[usize::from(shard)].put(answer) {
                return; // a shard that is gone needs no answer
            }
            ring.doorbell(shard);
            ring.submit_and_wait(0);
            ring.completions(&mut completions);
            completions.clear();
        }));
    };
    std::thread::Builder::new()
        .name(format!("hashing-{here}"))
        .spawn(serve)
        .map_err(|error| StartError::System { what: "a thread for passwords", error })?;
    let ended = || StartError::System { what: "a thread for passwords", error: io::ErrorKind::Other.into() };
    is_ready.recv().unwrap_or_else(|_| Err(ended()))
}

/// What each FIFO between two shards may hold, out of budgets for all of them.
fn mesh_bounds(shards: u16, bytes: u64) -> Bounds {
    let rings = (usize::from(shards) * (usize::from(shards) - 1)).max(1);
    let slots = MESH_RING_BYTES / rings / size_of::<Parcel>();
    let slots = if slots.is_power_of_two() { slots } else { slots.next_power_of_two() / 2 };
    Bounds {
        ring_slots: slots.clamp(*MESH_SLOTS.start(), *MESH_SLOTS.end()),
        spill_max: MESH_SPILL_MAX,
        bytes_max: (bytes as usize / rings).max(MESH_BYTES_MIN),
    }
}

/// A shard's thread, from its seat to its end.
fn serve(seat: Seat) -> Rest {
    let Seat { setup, cpu, kernel, listeners, desk, epoch, ready, go } = seat;
    // Bound first, so that the memory that the driver takes is near this CPU.
    let bound = cpu.map_or(Ok(()), |cpu| sockets::pin(cpu).map_err(|error| StartError::Pin { cpu, error }));
    let id = setup.id;
    let buffer_bytes = setup.limits.memory_max / RECEIVE_BUFFERS_PART / u64::from(setup.shards);
    let seated = Seated { setup, desk, epoch, ready, go };
    match bound {
        Ok(()) => kernel.drive(id, listeners, buffer_bytes, seated),
        Err(error) => seated.give_up(error),
    }
}

/// A shard's seat once its thread is where it belongs; `visit` runs the shard to its end.
struct Seated {
    setup: Setup,
    desk: Desk<TcpListener>,
    epoch: Instant,
    ready: mpsc::Sender<Result<(), StartError>>,
    go: mpsc::Receiver<()>,
}

impl Seated {
    fn give_up(self, error: StartError) -> Rest {
        let _ = self.ready.send(Err(error));
        Rest::default()
    }
}

impl Visitor for Seated {
    type Output = Rest;

    fn visit<D: Driver>(self, driver: D) -> Rest {
        let Seated { setup, desk, epoch, ready, go } = self;
        let shard = Shard::new(setup, driver, now(epoch)).with_desk(desk);
        let _ = ready.send(Ok(()));
        drop(ready);
        match go.recv() {
            Ok(()) => drive(shard, epoch),
            // Another shard could not start.
            Err(_) => Rest::default(),
        }
    }

    fn refuse(self, error: KernelError) -> Rest {
        self.give_up(error.into())
    }
}

/// Milliseconds since a second before `epoch`, so that no moment is 0.
fn now(epoch: Instant) -> Millis {
    epoch.elapsed().as_millis() as Millis + 1000
}

/// The loop of a shard: a turn, then one system call that submits what it asked for and waits for what comes.
fn drive<D: Driver>(mut shard: Shard<D>, epoch: Instant) -> Rest {
    let mut large = false;
    loop {
        let moment = now(epoch);
        let timeout_ms = match shard.turn(moment) {
            Turn::Busy => 0,
            // From when the turn began: a second look at the clock would be dearer than to be late by a turn.
            Turn::Idle { deadline } => deadline.saturating_sub(moment),
            Turn::Over => return Rest::of(&mut shard),
        };
        let counters = shard.counters();
        if !large {
            let clients = counters.connections.get() + counters.subscriptions.get();
            large = clients + counters.retained_messages.get() >= LARGE_PAGES_FROM;
            if large {
                sockets::large_pages();
            }
        }
        let sleeps = timeout_ms > 0 && shard.bell().sleep();
        shard.io_mut().submit_and_wait(if sleeps { timeout_ms } else { 0 });
        if sleeps {
            shard.bell().awake();
        }
        let calls = shard.io_mut().system_calls();
        shard.counters().system_calls_total.set(calls);
        #[cfg(feature = "count-allocations")]
        shard.counters().allocations_total.set(crate::allocator::allocations());
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::path::Path;

    use super::*;
    use crate::config::exit;
    use crate::io::machine::Machine;
    use crate::io::uring::Unavailable;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn config(flags: &str) -> Config {
        let args: Vec<String> =
            std::iter::once("ringmq").chain(flags.split_whitespace()).map(String::from).collect();
        Config::parse(&args, &Machine::look(Path::new("/")), &sockets::affinity().unwrap()).unwrap()
    }

    fn wait(poll: Duration) -> bool {
        std::thread::sleep(poll);
        false
    }

    /// A v5 client with an assigned identifier.
    fn connect(address: SocketAddr) -> TcpStream {
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00").unwrap();
        let connack = packet(&mut client);
        assert_eq!((connack[0], connack[3]), (0x20, 0));
        client
    }

    /// One packet of fewer than 128 bytes.
    fn packet(client: &mut TcpStream) -> Vec<u8> {
        let mut bytes = vec![0; 2];
        client.read_exact(&mut bytes).unwrap();
        bytes.resize(2 + usize::from(bytes[1]), 0);
        client.read_exact(&mut bytes[2..]).unwrap();
        bytes
    }

    #[test]
    fn a_stop_says_goodbye_to_everybody_and_leaves_nothing() {
        for shards in [1, 2, 4] {
            let io = if shards == 2 { "epoll" } else { "uring" };
            let flags = format!("--listen 127.0.0.1:0 --listen 127.0.0.2:0 --shards {shards} --io {io}");
            let config = config(&flags);
            let mut server = Server::start(&config).unwrap();
            let addresses = server.addresses().to_vec();
            let text = server.start_text(&config);
            assert!(
                addresses
                    .iter()
                    .all(|address| text.iter().any(|said| said.text == format!("listening on {address}"))),
                "{text:?}"
            );
            let mut clients: Vec<TcpStream> = (0..20).map(|index| connect(addresses[index % 2])).collect();
            assert_eq!(sum(server.counters(), |shard| &shard.clients_connected), 20);
            server.begin_stop();
            for client in &mut clients {
                let disconnect = packet(client);
                assert_eq!((disconnect[0], disconnect[2]), (0xE0, 0x8B)); // [U5-3.14.2-1]
                assert_eq!(client.read(&mut [0]).unwrap(), 0);
            }
            drop(clients);
            let (stopped, live) = server.finish(PATIENCE, wait);
            assert_eq!((stopped, live.len()), (Stopped::Drained, shards));
            for Rest { live, lost } in live {
                assert_eq!(lost, Lost::default());
                assert_eq!((live.connections, live.subscriptions), (0, 0), "{live:?}");
            }
            // The addresses are free again.
            drop(sockets::listen(&addresses, 1, 1).unwrap());
        }
    }

    #[test]
    fn a_stop_ends_when_its_time_is_up() {
        let config = config("--listen 127.0.0.1:0 --shards 2");
        let mut server = Server::start(&config).unwrap();
        let _stays = connect(server.addresses()[0]);
        server.begin_stop();
        let start = Instant::now();
        let (stopped, _) = server.finish(Duration::ZERO, wait);
        assert_eq!(stopped, Stopped::Abandoned);
        assert!(start.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn a_start_that_fails_leaves_nothing_behind() {
        let mut config = config("--listen 127.0.0.1:0 --shards 2");
        let port = sockets::listen(&config.addresses(), 1, 1).unwrap().addresses[0];
        config.listeners[0].address = port;
        config.placement = vec![None, Some(sockets::CPUS_MAX - 1)];
        let error = Server::start(&config).map(drop).unwrap_err();
        assert!(matches!(error, StartError::Pin { .. }), "{error}");
        assert_eq!(error.exit_code(), exit::USAGE);
        config.placement = vec![None, None];
        let server = Server::start(&config).unwrap();
        let error = Server::start(&config).map(drop).unwrap_err();
        assert_eq!((error.exit_code(), server.addresses()), (exit::SYSTEM, &[port][..]), "{error}");
        let (stopped, _) = server.finish(Duration::ZERO, wait);
        assert_eq!(stopped, Stopped::Abandoned, "nobody told it to stop before");
    }

    #[test]
    fn where_rings_are_forbidden_the_broker_runs_on_epoll_and_says_why() {
        let thread = std::thread::spawn(|| {
            crate::io::uring::forbid_io_uring(libc::EPERM);
            let error = Server::start(&config("--listen 127.0.0.1:0 --io uring")).map(drop).unwrap_err();
            assert_eq!(error.exit_code(), exit::UNAVAILABLE, "{error}");
            let config = config("--listen 127.0.0.1:0 --shards 2");
            let mut server = Server::start(&config).unwrap();
            let text = server.start_text(&config);
            assert!(
                text.iter().any(|said| said.text == "io: epoll (io_uring forbidden by seccomp)"),
                "{text:?}"
            );
            let clients: Vec<TcpStream> = (0..20).map(|_| connect(server.addresses()[0])).collect();
            drop(clients);
            server.begin_stop();
            assert_eq!(server.finish(PATIENCE, wait).0, Stopped::Drained);
        });
        thread.join().unwrap();
    }

    #[test]
    fn a_missing_io_uring_has_its_own_exit_code() {
        assert_eq!(
            StartError::from(KernelError::Uring(Unavailable::Filtered)).exit_code(),
            exit::UNAVAILABLE
        );
        assert_eq!(
            StartError::from(KernelError::Uring(Unavailable::Disabled { level: 2 })).exit_code(),
            exit::UNAVAILABLE
        );
    }

    #[test]
    fn rings_between_shards_share_one_budget() {
        let bytes = |shards: u16| {
            let rings = usize::from(shards) * usize::from(shards - 1);
            rings * mesh_bounds(shards, 0).ring_slots * size_of::<Parcel>()
        };
        assert!((2..=64).all(|shards| bytes(shards) <= MESH_RING_BYTES.max(bytes(2))));
        assert_eq!(mesh_bounds(1, 0).ring_slots, *MESH_SLOTS.end());
        assert_eq!(mesh_bounds(128, 0).ring_slots, *MESH_SLOTS.start());
    }
}
