//! What a server asks of the operating system before and beside its rings: listening sockets, descriptors, CPUs and
//! signals.
//!
//! Each address has one listening socket per shard (SO_REUSEPORT), among which the kernel spreads connections. That
//! makes the kernel silent about a second instance, which would get a share of the connections; so an address is first
//! locked by the name of an abstract Unix socket, which the kernel frees when the process ends, however it ends, and
//! then probed without SO_REUSEPORT for servers of other programs.
#![allow(unsafe_code)] // TCP_DEFER_ACCEPT, TIOCOUTQ and signals have no safe interface.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::time::Duration;

use rustix::process::{self, Resource, Rlimit};
use rustix::thread::{self, CpuSet};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait in one listening socket to be accepted; the kernel caps it at `net.core.somaxconn`.
pub const BACKLOG: i32 = 4096;

/// Seconds for which a connection without data stays with the kernel. Clients speak first, so most are accepted together
/// with their CONNECT: one look at the socket instead of two. Who says nothing is accepted after this time, when the kernel
/// has asked once more whether the client is there.
const DEFER_S: libc::c_int = 1;

/// Looks at a taken address before it is believed, and the time between two.
const PROBES: u32 = 20;
const PROBE_PAUSE: Duration = Duration::from_millis(25);

/// The listening sockets of all shards, and the locks that keep others away from their addresses.
#[derive(Debug)]
pub struct Listening {
    /// As asked for, with port 0 replaced by the port that the kernel chose.
    pub addresses: Vec<SocketAddr>,
    /// By shard, then by address.
    pub by_shard: Vec<Vec<TcpListener>>,
    /// By address.
    pub locks: Vec<Lock>,
}

/// Held as long as an address is served.
#[derive(Debug)]
pub struct Lock {
    _socket: UnixDatagram,
}

/// Why an address cannot be served.
#[derive(Debug)]
pub struct ListenError {
    pub address: SocketAddr,
    pub cause: Cause,
}

/// What stands in the way.
#[derive(Debug)]
pub enum Cause {
    /// Another instance of ringmq.
    Instance,
    /// Another program, or one of our kind at an address that this one covers or is covered by.
    Taken,
    /// A port below 1024 (or `net.ipv4.ip_unprivileged_port_start`).
    Privileged,
    /// No interface of this machine has the address.
    NotHere,
    /// Out of descriptors.
    Descriptors,
    Other(io::Error),
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, port) = (self.address, self.address.port());
        write!(f, "cannot listen on {address}: ")?;
        match &self.cause {
            Cause::Instance => write!(
                f,
                "another ringmq listens there. To see which: ss -ltnp 'sport = :{port}'. To use another port: --listen {}:PORT",
                host(&self.address)
            ),
            Cause::Taken => write!(
                f,
                "another program listens there, or on an address of port {port} that this one covers. To see which: \
                 ss -ltnp 'sport = :{port}'. To use another port: --listen {}:PORT",
                host(&self.address)
            ),
            Cause::Privileged => write!(
                f,
                "ports below 1024 need a privilege. To grant it: sudo setcap cap_net_bind_service=+ep $(command -v ringmq). \
                 Or use a port above 1023: --listen {}:1883",
                host(&self.address)
            ),
            Cause::NotHere => {
                write!(f, "this machine does not have this address. To see its addresses: ip addr")
            }
            Cause::Descriptors => {
                write!(f, "out of descriptors. To raise the limit in this shell: ulimit -n 20000")
            }
            Cause::Other(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for ListenError {}

/// The address without its port, as `--listen` takes it.
fn host(address: &SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    }
}

/// Binds and listens on every address once per shard.
///
/// With port 0 the first shard's socket chooses the port, and the others take the same.
///
/// # Errors
/// The first address that cannot be served, and why. Nothing stays bound.
pub fn listen(addresses: &[SocketAddr], shards: u16, backlog: i32) -> Result<Listening, ListenError> {
    listen_beside(addresses, &[], shards, backlog)
}

/// The same while this process still listens on the addresses in `leaving`. One that covers or is covered by one of those is
/// not probed: what would be found there is our own.
///
/// # Errors
/// As [`listen`].
pub fn listen_beside(
    addresses: &[SocketAddr],
    leaving: &[SocketAddr],
    shards: u16,
    backlog: i32,
) -> Result<Listening, ListenError> {
    let mut listening = Listening {
        addresses: Vec::new(),
        by_shard: (0..shards).map(|_| Vec::new()).collect(),
        locks: Vec::new(),
    };
    for &asked in addresses {
        let failed = |error| ListenError { address: asked, cause: cause(error) };
        let (address, first) = if asked.port() == 0 {
            // The kernel chooses a port that nobody has.
            let socket = bind(asked).map_err(failed)?;
            let address = socket.local_addr().ok().and_then(|address| address.as_socket()).unwrap_or(asked);
            listening.locks.push(lock(address)?);
            (address, Some(socket))
        } else {
            listening.locks.push(lock(asked)?);
            if !leaving.iter().any(|other| overlap(&asked, other)) {
                probe(asked).map_err(failed)?;
            }
            (asked, None)
        };
        let mut first = first;
        for sockets in &mut listening.by_shard {
            let socket = first.take().map_or_else(|| bind(address), Ok).map_err(failed)?;
            socket.listen(backlog).and_then(|()| defer_accept(&socket)).map_err(failed)?;
            sockets.push(socket.into());
        }
        listening.addresses.push(address);
    }
    Ok(listening)
}

/// Takes the name that stands for the address in this network namespace.
fn lock(address: SocketAddr) -> Result<Lock, ListenError> {
    let name = format!("ringmq/listen/{address}");
    let socket = UnixAddr::from_abstract_name(name).and_then(|name| UnixDatagram::bind_addr(&name));
    socket.map(|socket| Lock { _socket: socket }).map_err(|error| {
        let cause = if error.kind() == io::ErrorKind::AddrInUse { Cause::Instance } else { cause(error) };
        ListenError { address, cause }
    })
}

/// Whether one of both serves the other too.
fn overlap(one: &SocketAddr, other: &SocketAddr) -> bool {
    let is_same = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && is_same
}

/// Fails if anyone listens on the address. Without SO_REUSEPORT the kernel says so; SO_REUSEADDR keeps connections that
/// linger from an earlier run out of it.
///
/// The kernel gives a killed process's listening sockets back a little later than the process ends, so a taken address is
/// looked at again for a moment: a restart must not fail because it came at once.
fn probe(address: SocketAddr) -> io::Result<()> {
    let mut looks = 0;
    loop {
        let socket = socket(address)?;
        let looked = socket.bind(&address.into()).and_then(|()| socket.listen(1));
        looks += 1;
        match looked {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && looks < PROBES => {
                std::thread::sleep(PROBE_PAUSE);
            }
            other => return other,
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn defer_accept(socket: &Socket) -> io::Result<()> {
    let seconds = DEFER_S;
    let (option, len) = ((&raw const seconds).cast(), size_of_val(&seconds) as libc::socklen_t);
    // SAFETY: the kernel reads one integer, which outlives the call.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, option, len)
    })
}

/// Bytes that were sent over a socket and that its peer's kernel did not take yet.
pub(super) fn unsent(socket: BorrowedFd<'_>) -> Option<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one integer, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    u32::try_from(bytes).ok().filter(|_| result == 0)
}

/// Bytes that have come to a socket and were not read yet.
pub(super) fn unread(socket: BorrowedFd<'_>) -> Option<u32> {
    rustix::io::ioctl_fionread(socket).ok().and_then(|bytes| u32::try_from(bytes).ok())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // What listens on an IPv6 address listens on that alone, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn cause(error: io::Error) -> Cause {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => Cause::Taken,
        Some(libc::EACCES | libc::EPERM) => Cause::Privileged,
        Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT) => Cause::NotHere,
        Some(libc::EMFILE | libc::ENFILE) => Cause::Descriptors,
        _ => Cause::Other(error),
    }
}

/// Memory that this process takes from now on comes in pages of 4 KiB, even where the allocator asks for 2 MiB: with few
/// clients most of such a page would be empty, and there is one for each kind of memory and shard.
pub fn small_pages() {
    huge_pages(false);
}

/// Memory that this process takes from now on may come in pages of 2 MiB: with much of it they spare the processor the
/// search for pages.
pub fn large_pages() {
    huge_pages(true);
}

fn huge_pages(may: bool) {
    // A kernel that does not know it has no such pages to give.
    let _ = thread::disable_transparent_huge_pages(!may);
}

/// Raises the soft limit of descriptors to the hard one, if it may; the result is the limit from now on.
pub fn raise_descriptor_limit() -> u64 {
    let limit = process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let current = match process::setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(_) => limit.current,
    };
    current.unwrap_or(u64::MAX)
}

/// CPUs with numbers below this can be named.
pub const CPUS_MAX: u16 = CpuSet::MAX_CPU as u16;

/// The CPUs that this thread may run on, ascending.
pub fn affinity() -> io::Result<Vec<u16>> {
    let mask = thread::sched_getaffinity(None)?;
    Ok((0..CPUS_MAX).filter(|cpu| mask.is_set(usize::from(*cpu))).collect())
}

/// Binds this thread to one CPU.
///
/// # Errors
/// `EINVAL` if the CPU does not exist, is off, or is not in the cpuset of this process.
pub fn pin(cpu: u16) -> io::Result<()> {
    if cpu >= CPUS_MAX {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut mask = CpuSet::new();
    mask.set(cpu.into());
    Ok(thread::sched_setaffinity(None, &mask)?)
}

/// Lets other threads go first, so that what this one does is not felt by them.
pub fn go_last() {
    // That it fails means only that the thread is as any other.
    let _ = process::setpriority_process(None, 19);
}

/// Lets this thread run only where a CPU has nothing else to do.
pub fn go_idle() {
    go_last();
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: the argument lives until the call is over; 0 is this thread. That it fails means only that `go_last` holds.
    let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &none) };
}

/// A signal that a server waits for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Signal {
    Terminate,
    Interrupt,
    Quit,
    /// Files are to be read again.
    HangUp,
    /// The file of the log was moved away and is to be opened again.
    ReopenLog,
    /// Any other signal that would end a process which does not expect it.
    Other(u8),
}

impl Signal {
    fn from_number(number: libc::c_int) -> Option<Signal> {
        Some(match number {
            libc::SIGTERM => Signal::Terminate,
            libc::SIGINT => Signal::Interrupt,
            libc::SIGQUIT => Signal::Quit,
            libc::SIGHUP => Signal::HangUp,
            libc::SIGUSR1 => Signal::ReopenLog,
            other => Signal::Other(u8::try_from(other).ok().filter(|number| *number > 0)?),
        })
    }

    /// Whether it asks the server to stop.
    pub fn stops(self) -> bool {
        matches!(self, Signal::Terminate | Signal::Interrupt | Signal::Quit)
    }

    pub fn number(self) -> u8 {
        match self {
            Signal::Terminate => libc::SIGTERM as u8,
            Signal::Interrupt => libc::SIGINT as u8,
            Signal::Quit => libc::SIGQUIT as u8,
            Signal::HangUp => libc::SIGHUP as u8,
            Signal::ReopenLog => libc::SIGUSR1 as u8,
            Signal::Other(number) => number,
        }
    }
}

/// As `kill -l` has it: SIGTERM, SIGRTMIN+3.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = libc::c_int::from(self.number());
        match OTHERS.iter().chain(&NAMED).find(|(other, _)| *other == number) {
            Some((_, name)) => f.write_str(name),
            None if number == libc::SIGRTMIN() => f.write_str("SIGRTMIN"),
            None if number > libc::SIGRTMIN() => write!(f, "SIGRTMIN+{}", number - libc::SIGRTMIN()),
            None => write!(f, "signal {number}"),
        }
    }
}

/// The signals that mean something to a server.
const NAMED: [(libc::c_int, &str); 5] = [
    (libc::SIGTERM, "SIGTERM"),
    (libc::SIGINT, "SIGINT"),
    (libc::SIGQUIT, "SIGQUIT"),
    (libc::SIGHUP, "SIGHUP"),
    (libc::SIGUSR1, "SIGUSR1"),
];

/// The other signals that end a process unless it takes them, besides those of real time. Not among them: what a fault of
/// the process itself raises, and what cannot be held back.
const OTHERS: [(libc::c_int, &str); 10] = [
    (libc::SIGUSR2, "SIGUSR2"),
    (libc::SIGPIPE, "SIGPIPE"),
    (libc::SIGALRM, "SIGALRM"),
    (libc::SIGVTALRM, "SIGVTALRM"),
    (libc::SIGPROF, "SIGPROF"),
    (libc::SIGIO, "SIGIO"),
    (libc::SIGPWR, "SIGPWR"),
    (libc::SIGSTKFLT, "SIGSTKFLT"),
    (libc::SIGXCPU, "SIGXCPU"),
    (libc::SIGXFSZ, "SIGXFSZ"),
];

/// The signals that a server waits for, taken one by one by the thread that waits for them instead of interrupting any.
#[derive(Debug)]
pub struct Signals {
    _private: (),
}

impl Signals {
    /// Holds all of them back in this thread and in all that it starts from now on.
    pub fn hold() -> io::Result<Signals> {
        let set = held_back();
        // SAFETY: `set` is initialised and lives until the call returns; null: the old mask is not asked for.
        let errno = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if errno == 0 { Ok(Signals { _private: () }) } else { Err(io::Error::from_raw_os_error(errno)) }
    }

    /// Waits for one; `None` when the time is up.
    pub fn wait(&self, timeout: Duration) -> Option<Signal> {
        let set = held_back();
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs().min(86_400) as libc::time_t,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: both are initialised and live until the call returns; null: who sent it is not asked for.
        let number = unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const timeout) };
        Signal::from_number(number)
    }
}

fn held_back() -> libc::sigset_t {
    let known = NAMED.iter().chain(&OTHERS).map(|(number, _)| *number);
    let numbers = known.chain(libc::SIGRTMIN()..=libc::SIGRTMAX());
    // SAFETY: a set is an array of integers, which may be zero; the calls write to `set` alone, which lives until they return,
    // and `sigemptyset` comes first, as the others demand.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for number in numbers {
            libc::sigaddset(&raw mut set, number);
        }
        set
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests;
