//! What this kernel's io_uring can do, found out by trying, and what to type where it is missing or forbidden.
//!
//! Versions say little: distributions carry changes back, containers forbid system calls. So the parts that a shard
//! needs are used once at start, on a pair of sockets and between two threads.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use io_uring::{Parameters, Probe, opcode};

use super::{Completion, Driver, Io, Peers, ReceiveMode, Sizes, Socket, Uring, token};

/// Operations that a shard uses.
const OPERATIONS: [(&str, u8); 9] = [
    ("accept", opcode::AcceptMulti::CODE),
    ("receive", opcode::RecvMulti::CODE),
    ("send", opcode::Send::CODE),
    ("sendmsg", opcode::SendMsg::CODE),
    ("cancel", opcode::AsyncCancel::CODE),
    ("doorbell (MSG_RING)", opcode::MsgRingData::CODE),
    ("poll", opcode::PollAdd::CODE),
    ("write", opcode::Write::CODE),
    ("read", opcode::Read::CODE),
];
/// How long each trial may take; it takes microseconds.
const TRIAL_MS: u64 = 2_000;

/// The kernel features that are in use. Prints itself for the start text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// As `uname -r` prints it.
    pub kernel: String,
    /// Enters save the lookup of the ring's descriptor (Linux 5.18).
    pub registered_ring: bool,
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Linux {}: io_uring with deferred task work, multishot accept and receive, buffer ring, doorbells between rings",
            self.kernel
        )?;
        if self.registered_ring {
            write!(f, ", registered ring")?;
        }
        Ok(())
    }
}

impl Features {
    /// Tries everything that a shard needs. Takes a few milliseconds, in threads that are gone afterwards.
    ///
    /// # Errors
    /// What is missing or forbidden, with what to do about it.
    pub fn probe() -> Result<Features, Unavailable> {
        let peers = Arc::new(Peers::new(2));
        let sleeper = Arc::clone(&peers);
        let (ready, is_ready) = mpsc::channel();
        // Rings belong to threads, so each trial has one.
        let trial = |name: &'static str| move |error: io::Error| Unavailable::step(name, &error);
        let waits = std::thread::Builder::new()
            .spawn(move || wait_for_doorbell(sleeper, &ready))
            .map_err(trial("a thread"))?;
        let rings = std::thread::Builder::new()
            .spawn(move || try_all(peers, &is_ready))
            .map_err(trial("a thread"))?;
        let features = rings.join().unwrap_or(Err(Unavailable::missing("a working ring")))?;
        let woken = waits.join().unwrap_or(Err(Unavailable::missing("a working ring")))?;
        if woken { Ok(features) } else { Err(Unavailable::missing("doorbells that wake a sleeping ring")) }
    }
}

fn small() -> Sizes {
    Sizes { sq_entries: 8, cq_entries: 16, buffers: 2, buffer_bytes: 64, direct: 0 }
}

/// Shard 1 of the trial: sleeps until shard 0 rings.
fn wait_for_doorbell(peers: Arc<Peers>, ready: &mpsc::Sender<()>) -> Result<bool, Unavailable> {
    let mut ring = Uring::new(small(), 1, peers, Vec::new())?;
    // The other side gives up by itself if nobody listens any more.
    let _ = ready.send(());
    ring.submit_and_wait(TRIAL_MS);
    let mut completions = Vec::new();
    ring.completions(&mut completions);
    Ok(matches!(completions[..], [Completion::Doorbell]))
}

/// Shard 0 of the trial: looks at the operations, receives, then rings.
fn try_all(peers: Arc<Peers>, other: &mpsc::Receiver<()>) -> Result<Features, Unavailable> {
    let mut ring = Uring::new(small(), 0, peers, Vec::new())?;
    let mut probe = Probe::new();
    ring.ring
        .submitter()
        .register_probe(&mut probe)
        .map_err(|error| Unavailable::step("a list of operations", &error))?;
    if let Some((name, _)) = OPERATIONS.iter().find(|(_, code)| !probe.is_supported(*code)) {
        return Err(Unavailable::missing(name));
    }
    try_receive(&mut ring)?;
    // An error means that the other thread failed and says so itself.
    if other.recv_timeout(Duration::from_millis(TRIAL_MS)).is_ok() {
        ring.doorbell(1);
        ring.submit_and_wait(0);
    }
    Ok(Features { kernel: kernel(), registered_ring: ring.ring.is_registered() })
}

/// A multishot receive must deliver twice.
fn try_receive(ring: &mut Uring) -> Result<(), Unavailable> {
    let failed = |error: io::Error| Unavailable::step("a pair of sockets", &error);
    let (ours, mut theirs) = UnixStream::pair().map_err(failed)?;
    let socket = Socket::from(OwnedFd::from(ours));
    ring.receive(&socket, token(0), ReceiveMode::Many);
    let mut again = true;
    for _ in 0..2 {
        theirs.write_all(b"ring").map_err(failed)?;
        ring.submit_and_wait(TRIAL_MS);
        let mut completions = Vec::new();
        ring.completions(&mut completions);
        again &=
            matches!(completions[..], [Completion::Received { buffer, more: true, .. }] if buffer.len == 4);
    }
    ring.receive_cancel(token(0));
    ring.submit_and_wait(TRIAL_MS);
    ring.close(socket);
    if again { Ok(()) } else { Err(Unavailable::missing("multishot receive")) }
}

/// What every ring must have; cheap, so checked for each.
pub(super) fn require(params: &Parameters) -> Result<(), Unavailable> {
    let needed = [
        (params.is_feature_nodrop(), "completions that are never dropped"),
        (params.is_feature_ext_arg(), "waits with a timeout"),
        (params.is_feature_skip_cqe_on_success(), "operations without a completion"),
    ];
    match needed.iter().find(|(there, _)| !there) {
        Some((_, what)) => Err(Unavailable::missing(what)),
        None => Ok(()),
    }
}

/// Why there is no io_uring that ringmq can use. Prints one paragraph: which it is, and what to type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// The kernel was built without it (`ENOSYS`).
    Missing { kernel: String },
    /// `kernel.io_uring_disabled` is 1 or 2.
    Disabled { level: u32 },
    /// A filter of system calls, as containers have it, forbids it.
    Filtered,
    /// `EPERM`, and neither of the above: a security module.
    Forbidden,
    /// The kernel lacks a part that is needed.
    TooOld { kernel: String, missing: String },
    /// A limit of the process or of the machine (`EMFILE`, `ENFILE`, `ENOMEM`), or anything else.
    Failed { what: String, errno: i32 },
}

impl Unavailable {
    /// Why a ring could not be set up.
    pub(super) fn setup(error: &io::Error) -> Unavailable {
        let disabled = read_number("/proc/sys/kernel/io_uring_disabled").unwrap_or(0);
        Unavailable::classify(error.raw_os_error().unwrap_or(0), disabled, is_filtered(), kernel())
    }

    /// `disabled` is `kernel.io_uring_disabled`; `filtered` says that this thread runs under a seccomp filter.
    fn classify(errno: i32, disabled: u32, filtered: bool, kernel: String) -> Unavailable {
        match errno {
            libc::EPERM | libc::EACCES if disabled > 0 => Unavailable::Disabled { level: disabled },
            libc::EPERM | libc::EACCES | libc::ENOSYS if filtered => Unavailable::Filtered,
            libc::EPERM | libc::EACCES => Unavailable::Forbidden,
            libc::ENOSYS => Unavailable::Missing { kernel },
            libc::EINVAL => Unavailable::TooOld { kernel, missing: "deferred task work".into() },
            errno => Unavailable::Failed { what: "an io_uring".into(), errno },
        }
    }

    /// In a few words, for a line about something else.
    pub fn short(&self) -> String {
        match self {
            Unavailable::Missing { kernel } => format!("no io_uring in kernel {kernel}"),
            Unavailable::Disabled { level } => {
                format!("io_uring switched off: kernel.io_uring_disabled = {level}")
            }
            Unavailable::Filtered => "io_uring forbidden by seccomp".to_owned(),
            Unavailable::Forbidden => "io_uring forbidden by a security module".to_owned(),
            Unavailable::TooOld { kernel, missing } => {
                format!("the io_uring of kernel {kernel} lacks {missing}")
            }
            Unavailable::Failed { what, errno } => {
                format!("{what}: {}", io::Error::from_raw_os_error(*errno))
            }
        }
    }

    /// Why a later step failed.
    pub(super) fn step(what: &str, error: &io::Error) -> Unavailable {
        match error.raw_os_error().unwrap_or(0) {
            libc::EINVAL | libc::EOPNOTSUPP => Unavailable::missing(what),
            errno => Unavailable::Failed { what: what.into(), errno },
        }
    }

    fn missing(what: &str) -> Unavailable {
        Unavailable::TooOld { kernel: kernel(), missing: what.into() }
    }
}

impl std::error::Error for Unavailable {}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unavailable::Missing { kernel } => write!(
                f,
                "This kernel ({kernel}) has no io_uring (ENOSYS): it was built without CONFIG_IO_URING, or an emulated \
                 kernel such as gVisor runs this container. ringmq needs Linux 6.1 or newer with io_uring. \
                 See which kernel runs: uname -a"
            ),
            Unavailable::Disabled { level } => write!(
                f,
                "io_uring is switched off on this machine (kernel.io_uring_disabled = {level}{}). \
                 To allow it until the next boot: sudo sysctl -w kernel.io_uring_disabled=0. \
                 To keep it: echo kernel.io_uring_disabled=0 | sudo tee /etc/sysctl.d/90-io-uring.conf",
                if *level == 1 { ": only for root and the group kernel.io_uring_group" } else { "" }
            ),
            Unavailable::Filtered => write!(
                f,
                "io_uring is forbidden by a filter of system calls (seccomp), as the default profiles of Docker, \
                 Podman and containerd have it. Allow it for this container: docker run --security-opt \
                 seccomp=scripts/seccomp.json ... (a profile that adds io_uring_setup, io_uring_enter and \
                 io_uring_register to the allowed calls); or do without: --io epoll. \
                 In systemd units: SystemCallFilter=@io-event io_uring_setup io_uring_enter io_uring_register"
            ),
            Unavailable::Forbidden => write!(
                f,
                "io_uring is forbidden to this process (EPERM), though kernel.io_uring_disabled is 0 and no seccomp \
                 filter is set: a security module denies it. See which: sudo dmesg | grep -iE 'denied|audit' | tail"
            ),
            Unavailable::TooOld { kernel, missing } => write!(
                f,
                "The io_uring of this kernel ({kernel}) lacks what ringmq needs: {missing}. Linux 6.1 or newer has it. \
                 See which kernel runs: uname -r"
            ),
            Unavailable::Failed { what, errno } => {
                let error = io::Error::from_raw_os_error(*errno);
                let hint = match *errno {
                    libc::EMFILE => "; more descriptors for this shell: ulimit -n 20000",
                    libc::ENFILE => "; more descriptors for this machine: sudo sysctl -w fs.file-max=1000000",
                    libc::ENOMEM => {
                        "; locked memory may be limited: ulimit -l unlimited (as root), or fewer shards"
                    }
                    _ => "",
                };
                write!(f, "The kernel refused {what}: {error}{hint}")
            }
        }
    }
}

/// As `uname -r` prints it.
fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".into(), |release| release.trim().to_owned())
}

fn read_number(path: &str) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Does this thread run under a seccomp filter?
fn is_filtered() -> bool {
    std::fs::read_to_string("/proc/thread-self/status").is_ok_and(|status| {
        status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_passes_every_trial() {
        let features = Features::probe().unwrap();
        assert!(features.to_string().contains("multishot"), "{features}");
    }

    #[test]
    fn each_refusal_is_told_apart() {
        let classify =
            |errno, disabled, filtered| Unavailable::classify(errno, disabled, filtered, "6.1".into());
        assert_eq!(classify(libc::ENOSYS, 0, false), Unavailable::Missing { kernel: "6.1".into() });
        assert_eq!(classify(libc::ENOSYS, 0, true), Unavailable::Filtered);
        assert_eq!(classify(libc::EPERM, 0, true), Unavailable::Filtered);
        assert_eq!(classify(libc::EPERM, 2, true), Unavailable::Disabled { level: 2 });
        assert_eq!(classify(libc::EPERM, 0, false), Unavailable::Forbidden);
        assert!(matches!(classify(libc::EINVAL, 0, false), Unavailable::TooOld { .. }));
        assert!(matches!(classify(libc::ENOMEM, 0, false), Unavailable::Failed { errno: libc::ENOMEM, .. }));
        assert!(classify(libc::EPERM, 1, false).to_string().contains("sysctl -w kernel.io_uring_disabled=0"));
    }
}
