//! A kernel that refuses things: io_uring behind a filter of system calls, ports below 1024, few descriptors.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const UNAVAILABLE: i32 = 69;
const SYSTEM: i32 = 71;
const PRIVILEGE: i32 = 77;

/// Puts a filter before itself that lets `io_uring_setup` (system call 425) fail with the errno of the first argument,
/// as the default profiles of containers do, and becomes the command that follows.
const FILTER: &str = r#"
import ctypes, os, struct, sys
errno, command = int(sys.argv[1]), sys.argv[2:]
program = b"".join(struct.pack("HBBI", *each) for each in [
    (0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050000 | errno), (0x06, 0, 0, 0x7FFF0000)])
text = ctypes.create_string_buffer(program)
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
whole = Program(4, ctypes.addressof(text))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(whole), 0, 0):
    sys.exit(99)
os.execv(command[0], command)
"#;

/// No filter of system calls here.
const NO_FILTER: i32 = 99;

fn command(program: &str, before: &[&str], flags: &[&str]) -> Child {
    Command::new(program)
        .args(before)
        .arg(env!("CARGO_BIN_EXE_ringmq"))
        .args(["--listen", "127.0.0.1:0", "--shards", "2", "--no-pin"])
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts")
}

/// The exit code and what was written to stderr.
fn refused(mut child: Child) -> (i32, String) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.try_wait().expect("it can be waited for").is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("it was not refused: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().expect("its output");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!text.contains("panicked"), "{text}");
    (output.status.code().expect("an exit code"), text)
}

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

#[test]
fn a_filter_before_io_uring_is_named_with_what_to_type() {
    if !has("python3") {
        eprintln!("NOT RUN: no python3 to put a filter of system calls");
        return;
    }
    // EPERM is what Docker's profile answers, ENOSYS what others do.
    for errno in ["1", "38"] {
        let (code, text) = refused(command("python3", &["-c", FILTER, errno], &["--io", "uring"]));
        if code == NO_FILTER {
            eprintln!("NOT RUN: no filter of system calls can be put here");
            return;
        }
        assert_eq!(code, UNAVAILABLE, "errno {errno}: {text}");
        assert!(text.contains("seccomp") && text.contains("--security-opt"), "errno {errno}: {text}");
        assert!(text.contains("--io epoll"), "errno {errno}: {text}");
        assert_eq!(text.trim_end().lines().count(), 1, "one paragraph: {text}");
    }
    // Left to itself it serves all the same, and says by what.
    let mut child = command("python3", &["-c", FILTER, "1"], &[]);
    let mut stderr = child.stderr.take().expect("stderr is piped");
    let mut text = String::new();
    let mut bytes = [0; 4096];
    while !text.contains("sessions, queued") {
        let count = stderr.read(&mut bytes).expect("its stderr");
        assert!(count > 0, "it ended: {text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    let _ = child.kill();
    let _ = child.wait();
    assert!(text.contains("epoll (io_uring forbidden by seccomp)"), "{text}");
}

#[test]
fn a_port_below_1024_without_the_privilege_is_refused_with_what_to_type() {
    let unprivileged = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if unprivileged.is_ok_and(|first| first.trim() == "0") || !has("setpriv") {
        eprintln!("NOT RUN: no setpriv, or no port needs a privilege here");
        return;
    }
    let drop = ["--bounding-set=-net_bind_service", "--inh-caps=-all", "--no-new-privs"];
    // Where this test is root itself, its user goes as well.
    let other = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let is_root =
        std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let before: Vec<&str> = drop.into_iter().chain(other.into_iter().filter(|_| is_root)).collect();
    // The binary may lie where that user cannot look; then there is nothing to see here.
    let trial =
        Command::new("setpriv").args(&before).args([env!("CARGO_BIN_EXE_ringmq"), "--version"]).output();
    if !trial.is_ok_and(|output| output.status.success()) {
        eprintln!("NOT RUN: no other user can run the binary");
        return;
    }
    let (code, text) = refused(command("setpriv", &before, &["--listen", "127.0.0.1:1022"]));
    assert_eq!(code, PRIVILEGE, "{text}");
    assert!(text.contains("cap_net_bind_service") && text.contains("127.0.0.1:1022"), "{text}");
}

#[test]
fn the_soft_limit_of_descriptors_is_raised_and_the_hard_one_is_told() {
    let shell = |limits: &str| format!("{limits} && shift 0 && exec \"$@\"");
    // Sixty-four are kept for the broker itself, and some for each shard.
    let mut child = command("/bin/sh", &["-c", &shell("ulimit -Sn 100 && ulimit -Hn 400"), "sh"], &[]);
    let mut stderr = child.stderr.take().expect("stderr is piped");
    let mut text = String::new();
    let mut bytes = [0; 4096];
    while !text.contains("connections, packets of") {
        let count = stderr.read(&mut bytes).expect("its stderr");
        assert!(count > 0, "it ended: {text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    let _ = child.kill();
    let _ = child.wait();
    let limits = text.split("limits: ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    let connections: u32 = limits.parse().expect("a number of connections");
    assert!((300..=340).contains(&connections), "{connections} connections of 400 descriptors: {text}");

    let asked = &["--connections-max", "1000"];
    let (code, text) = refused(command("/bin/sh", &["-c", &shell("ulimit -n 400"), "sh"], asked));
    assert_eq!(code, SYSTEM, "{text}");
    assert!(text.contains("ulimit -n 10"), "{text}");
}
