//! What only the ring has: being forbidden, and sizes that follow memory. Everything else is tested over both backends, in `io::tests`.

use std::os::unix::process::ExitStatusExt;

use super::*;

/// Makes `io_uring_setup` fail with `errno` for this thread, as the filter of a container does.
pub(crate) fn forbid_io_uring(errno: i32) {
    forbid(libc::SYS_io_uring_setup, errno);
}

/// Makes a system call fail with `errno` for this thread.
fn forbid(call: libc::c_long, errno: i32) {
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program is valid, is copied by the kernel, and binds this thread and its children alone.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter), 0);
    }
}

#[test]
fn a_filter_of_system_calls_is_named_with_what_to_type() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        let thread = std::thread::spawn(move || {
            forbid_io_uring(errno);
            Features::probe()
        });
        let error = thread.join().unwrap().unwrap_err();
        assert_eq!(error, Unavailable::Filtered);
        assert!(error.to_string().contains("--security-opt"), "{error}");
    }
}

#[test]
fn receive_buffers_follow_what_memory_there_is() {
    let buffers = |bytes| Sizes::within(bytes).buffers;
    assert_eq!((buffers(u64::MAX), buffers(32 << 20), buffers((32 << 20) - 1)), (2048, 2048, 1024));
    // 4 shards with a sixteenth of 192 MiB.
    assert_eq!((buffers(3 << 20), buffers(0)), (128, 64));
    assert_eq!(Sizes::within(u64::MAX), Sizes::default());
}

/// Says to a process that runs one test that it is the child of that test.
const CHILD: &str = "RINGMQ_TEST_CHILD";

/// The kernel may still write to memory of the caller, so nothing on the way out of `now` may free it.
#[test]
fn a_panic_in_the_middle_of_an_operation_ends_the_process() {
    if std::env::var_os(CHILD).is_some() {
        let mut ring = Uring::new(settling(), 0, Arc::new(Peers::new(1)), Vec::new()).unwrap();
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut socket = Socket::from(OwnedFd::from(ours));
        ring.settle(&mut socket);
        forbid(libc::SYS_io_uring_enter, libc::EPERM);
        let read = std::panic::AssertUnwindSafe(|| ring.read_now(&socket, &mut Vec::new(), 10));
        let unwound = std::panic::catch_unwind(read);
        println!("{unwound:?}");
        std::process::exit(0);
    }
    let test = "a_panic_in_the_middle_of_an_operation_ends_the_process";
    let module = module_path!().split_once("::").unwrap().1;
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::{test}"), "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    assert_eq!(child.status.signal(), Some(libc::SIGABRT), "{:?}: {said}", child.status);
    assert!(said.contains("leaves operations in doubt"), "{said}");
}

fn settling() -> Sizes {
    Sizes { sq_entries: 8, cq_entries: 16, buffers: 2, buffer_bytes: 64, direct: 2 }
}
