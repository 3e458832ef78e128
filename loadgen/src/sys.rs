//! The few calls to Linux that the standard library lacks: CPU affinity, descriptor limit, timer slack, CPU clocks.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::os::fd::AsRawFd;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity, set_current_timer_slack};
use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, Protocol, Socket, Type};

/// The CPUs that this thread may run on, ascending.
pub fn cpus_allowed() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// Ties the calling thread to the given CPUs.
pub fn pin_thread(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus.iter().filter(|&&cpu| cpu < CpuSet::MAX_CPU) {
        set.set(cpu);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// Lifts the soft limit of open descriptors to the hard one and returns it.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// Asks for timers of this thread to fire on time, instead of up to 50 microseconds late.
pub fn sharpen_timers() {
    // A kernel without it fires late, which the report's own lateness shows.
    let _ = set_current_timer_slack(NonZero::new(1));
}

/// Lets `bind` to port 0 leave the choice of the port to `connect`, so that ports are shared between targets.
#[allow(unsafe_code)] // An option that no library has.
pub fn bind_address_no_port(socket: &impl AsRawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let (option, len) = ((&raw const on).cast(), size_of_val(&on) as libc::socklen_t);
    let fd = socket.as_raw_fd();
    // SAFETY: the pointer and the length describe `on`, which lives until the call returns.
    match unsafe { libc::setsockopt(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, option, len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether connections can come from this address. Takes no port, so an error is about the address alone.
pub fn can_bind(source: IpAddr) -> io::Result<()> {
    let address = SocketAddr::new(source, 0);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    bind_address_no_port(&socket)?;
    socket.bind(&address.into())
}

/// CPU time that the calling thread has used, in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The kernel's id of the calling thread, as in `/proc/self/task`.
pub fn thread_id() -> i32 {
    gettid().as_raw_nonzero().get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinning_narrows_the_allowed_cpus() {
        std::thread::spawn(|| {
            let all = cpus_allowed().unwrap();
            let last = *all.last().unwrap();
            pin_thread(&[last]).unwrap();
            assert_eq!(cpus_allowed().unwrap(), [last]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn cpu_time_of_a_thread_grows_with_work() {
        let before = thread_cpu_ns();
        let mut x = 1u64;
        while thread_cpu_ns() - before < 1_000_000 {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        assert!(thread_cpu_ns() > before);
    }
}
