//! A broker process: started on a free port, watched, and always ended.
//!
//! A process is killed when its `Broker` is dropped. For those that live in a static, and for a test process
//! that is itself killed, a shell waits on a pipe that only the test process holds and kills the broker when
//! the pipe closes.
//!
//! `BROKER_FLAGS` in the environment is more flags for every broker that a test waits for, such as `--io epoll`; a broker
//! whose test names its own way to the kernel keeps it. `{fresh}` in it is a directory of that broker alone, as in
//! `BROKER_FLAGS='--data {fresh} --data-max 64M'`.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long a broker may take to listen.
const START_MAX: Duration = Duration::from_secs(20);
/// How much of the broker's stderr is kept, in bytes.
const STDERR_BYTES_MAX: usize = 1 << 20;

/// A broker that accepts connections.
pub struct Broker {
    addresses: Vec<SocketAddr>,
    process: Option<Process>,
    /// Goes when the process has ended.
    _fresh: Option<Fresh>,
}

/// A directory that goes with whoever has this.
struct Fresh(PathBuf);

impl Fresh {
    fn new() -> Fresh {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ringmq-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Fresh(std::env::temp_dir().join(name))
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The broker's process, listening or not.
pub struct Process {
    child: Child,
    stderr: Arc<Mutex<String>>,
    guard: Guard,
}

/// The shell that outlives this process just long enough to kill the broker.
struct Guard {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Guard {
    fn over(pid: u32) -> Guard {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", "read -r line || kill -9 \"$1\"", "sh", &pid.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell that guards the broker");
        let pipe = shell.stdin.take();
        Guard { shell, pipe }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            // A line tells the shell that the broker has been ended already.
            let _ = pipe.write_all(b"ended\n");
        }
        let _ = self.shell.wait();
    }
}

impl Process {
    /// Starts the broker with exactly these arguments.
    pub fn spawn(arguments: &[&str]) -> Process {
        Process::spawn_watched(arguments).0
    }

    fn spawn_watched(arguments: &[&str]) -> (Process, Receiver<SocketAddr>) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ringmq"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the broker's binary starts");
        let guard = Guard::over(child.id());
        let pipe = child.stderr.take().expect("stderr is piped");
        let stderr = Arc::new(Mutex::new(String::new()));
        let (found, addresses) = channel();
        let kept = Arc::clone(&stderr);
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let address = line.split("listening on ").nth(1).and_then(|rest| {
                    rest.split_whitespace()
                        .next()?
                        .trim_end_matches([',', '"', '}'])
                        .parse::<SocketAddr>()
                        .ok()
                });
                let mut kept = kept.lock().expect("no holder panics");
                if kept.len() < STDERR_BYTES_MAX {
                    kept.push_str(&line);
                    kept.push('\n');
                }
                drop(kept);
                if let Some(address) = address {
                    let _ = found.send(address);
                }
            }
        });
        (Process { child, stderr, guard }, addresses)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the broker has written to stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("no holder panics").clone()
    }

    /// Sends a signal by name (`TERM`, `INT`, `STOP`, `CONT`).
    pub fn signal(&self, name: &str) {
        let status = Command::new("/bin/sh")
            .args(["-c", "kill -s \"$1\" \"$2\"", "sh", name, &self.pid().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success(), "could not send SIG{name} to the broker");
    }

    /// The exit status, if the process ends within `limit`.
    pub fn exit_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The exit code, if the process ends by itself within ten seconds. Panics otherwise.
    pub fn exit_code(&mut self) -> i32 {
        let status = self.exit_within(Duration::from_secs(10));
        let status = status.unwrap_or_else(|| panic!("the broker did not end; it wrote:\n{}", self.stderr()));
        // The reader thread may still be a line behind the end of the process.
        thread::sleep(Duration::from_millis(50));
        status.code().unwrap_or_else(|| panic!("ended by a signal: {status}; it wrote:\n{}", self.stderr()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Broker {
    /// Starts a broker with this many shards on a free loopback port, with more arguments behind.
    pub fn start(shards: u16, arguments: &[&str]) -> Broker {
        let shards = shards.to_string();
        let base = ["--listen", "127.0.0.1:0", "--shards", &shards, "--no-pin"];
        Broker::start_with(&[&base, arguments].concat(), 1)
    }

    /// Starts a broker with these arguments, and `BROKER_FLAGS`, and waits until it listens on so many addresses.
    pub fn start_with(arguments: &[&str], listeners: usize) -> Broker {
        let more = std::env::var("BROKER_FLAGS").unwrap_or_default();
        let fresh = more.contains("{fresh}").then(Fresh::new);
        let more = match &fresh {
            Some(fresh) => more.replace("{fresh}", &fresh.0.to_string_lossy()),
            None => more,
        };
        let keeps = |flag: &str| !arguments.contains(&flag) || !more.contains(flag);
        let more = more.split_whitespace().filter(|_| keeps("--io") && keeps("--data"));
        let arguments = &arguments.iter().copied().chain(more).collect::<Vec<_>>()[..];
        let (mut process, found) = Process::spawn_watched(arguments);
        let deadline = Instant::now() + START_MAX;
        let mut addresses = Vec::new();
        while addresses.len() < listeners {
            let left = deadline.saturating_duration_since(Instant::now());
            match found.recv_timeout(left.min(Duration::from_millis(100))) {
                Ok(address) => addresses.push(address),
                Err(_) => {
                    let ended = process.exit_within(Duration::ZERO);
                    if ended.is_some() || Instant::now() >= deadline {
                        panic!("no `listening on` from {arguments:?} ({ended:?}):\n{}", process.stderr());
                    }
                }
            }
        }
        let broker = Broker { addresses, process: Some(process), _fresh: fresh };
        if arguments.windows(2).any(|two| two == ["--io", "epoll"]) {
            broker.expect_said("io: epoll");
        }
        broker
    }

    /// Waits for words of the start text, or a run over epoll might be one over io_uring.
    pub fn expect_said(&self, words: &str) {
        let deadline = Instant::now() + START_MAX;
        while !self.stderr().contains(words) {
            assert!(Instant::now() < deadline, "the broker does not say {words:?}:\n{}", self.stderr());
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// A broker that somebody else runs.
    pub fn at(address: SocketAddr) -> Broker {
        Broker { addresses: vec![address], process: None, _fresh: None }
    }

    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The process. Panics for a broker that was not started here.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("this broker was started by the test")
    }

    /// What the broker wrote to stderr; empty for a broker that was not started here.
    pub fn stderr(&self) -> String {
        self.process.as_ref().map(Process::stderr).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("this broker was started by the test").pid()
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the broker lives");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line VmRSS");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number of KiB");
        kib * 1024
    }

    /// How many descriptors the process has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the broker lives").count()
    }

    /// Processor time of all threads, in clock ticks (1/100 s).
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the broker lives");
        let fields = stat.rsplit(')').next().expect("fields behind the name");
        fields.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().expect("a number")).sum()
    }
}
