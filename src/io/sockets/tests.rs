//! Two instances, other programs, every shard on one port; CPUs, descriptors and signals.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::*;

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[test]
fn every_shard_listens_on_the_port_that_the_first_one_got() {
    let addresses = [any(), "127.0.0.2:0".parse().unwrap()];
    let listening = listen(&addresses, 4, 16).unwrap();
    assert_eq!(listening.by_shard.len(), 4);
    for sockets in &listening.by_shard {
        let bound: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
        assert_eq!(bound, listening.addresses);
    }
    assert!(listening.addresses.iter().all(|address| address.port() != 0));
}

#[test]
fn a_second_instance_is_refused_and_a_later_one_is_not() {
    let first = listen(&[any()], 2, 16).unwrap();
    let address = first.addresses[0];
    let error = listen(&[address], 2, 16).unwrap_err();
    assert!(matches!(error.cause, Cause::Instance), "{error}");
    // A connection that lingers in TIME_WAIT on the server's side.
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"x").unwrap();
    let mut accepted = accept_within(&first, Duration::from_secs(5)).expect("its data is there").0;
    accepted.read_exact(&mut [0; 1]).unwrap();
    drop(accepted);
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    drop(client);
    drop(first);
    listen(&[address], 2, 16).unwrap();
}

/// A connection that one of the sockets accepts, and how long that took.
fn accept_within(listening: &Listening, most: Duration) -> Option<(TcpStream, Duration)> {
    let start = Instant::now();
    while start.elapsed() < most {
        for sockets in &listening.by_shard {
            sockets[0].set_nonblocking(true).unwrap();
            if let Ok((stream, _)) = sockets[0].accept() {
                stream.set_nonblocking(false).unwrap();
                return Some((stream, start.elapsed()));
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    None
}

#[test]
fn who_speaks_is_accepted_at_once_and_who_is_silent_later() {
    let listening = listen(&[any()], 1, 16).unwrap();
    let silent = TcpStream::connect(listening.addresses[0]).unwrap();
    assert!(accept_within(&listening, Duration::from_millis(100)).is_none(), "it said nothing yet");
    let mut speaker = TcpStream::connect(listening.addresses[0]).unwrap();
    speaker.write_all(b"x").unwrap();
    let (first, _) = accept_within(&listening, Duration::from_secs(5)).expect("its data is there");
    assert_eq!(first.peer_addr().unwrap(), speaker.local_addr().unwrap(), "before the one that came first");
    let (second, after) = accept_within(&listening, Duration::from_secs(30)).expect("it is there too");
    assert_eq!(second.peer_addr().unwrap(), silent.local_addr().unwrap());
    assert!(after > Duration::from_millis(500), "the kernel asks once more after a second: {after:?}");
}

#[test]
fn of_many_simultaneous_starts_one_succeeds() {
    let address = listen(&[any()], 1, 16).unwrap().addresses[0];
    let gate = std::sync::Barrier::new(8);
    let started = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                gate.wait();
                let result = listen(&[address], 2, 16);
                started.lock().unwrap().push(result);
            });
        }
    });
    let started = started.into_inner().unwrap();
    assert_eq!(started.iter().filter(|result| result.is_ok()).count(), 1, "{started:?}");
}

#[test]
fn a_server_of_another_program_is_noticed_whatever_it_set() {
    let plain = TcpListener::bind(any()).unwrap();
    let error = listen(&[plain.local_addr().unwrap()], 1, 16).unwrap_err();
    assert!(matches!(error.cause, Cause::Taken), "{error}");
    let shared = bind(any()).unwrap();
    shared.listen(1).unwrap();
    let address = shared.local_addr().unwrap().as_socket().unwrap();
    let error = listen(&[address], 1, 16).unwrap_err();
    assert!(matches!(error.cause, Cause::Taken), "{error}");
    assert!(error.to_string().contains("ss -ltnp"), "{error}");
}

#[test]
fn an_address_of_another_machine_is_told_apart() {
    let error = listen(&["192.0.2.1:1883".parse().unwrap()], 1, 16).unwrap_err();
    assert!(matches!(error.cause, Cause::NotHere), "{error}");
}

#[test]
fn an_ipv6_socket_takes_no_ipv4_connections() {
    match socket("[::]:0".parse().unwrap()) {
        Ok(socket) => assert!(socket.only_v6().unwrap()),
        Err(error) => println!("NOT RUN: this machine has no IPv6: {error}"),
    }
}

#[test]
fn an_ipv6_socket_leaves_the_ipv4_port_alone() {
    let Ok(v6) = listen(&["[::1]:0".parse().unwrap()], 1, 16) else {
        println!("NOT RUN: this machine has no IPv6 loopback");
        return;
    };
    let port = v6.addresses[0].port();
    let v4 = listen(&[SocketAddr::new("127.0.0.1".parse().unwrap(), port)], 1, 16).unwrap();
    TcpStream::connect(v6.addresses[0]).unwrap().write_all(b"6").unwrap();
    let (mut from, _) = v6.by_shard[0][0].accept().unwrap();
    let mut byte = [0];
    from.read_exact(&mut byte).unwrap();
    assert_eq!((&byte, v4.addresses[0].port()), (b"6", port));
}

#[test]
fn a_thread_can_be_pinned_to_each_cpu_it_may_use_and_to_no_other() {
    let allowed = affinity().unwrap();
    assert!(!allowed.is_empty());
    std::thread::spawn(move || {
        for cpu in &allowed {
            pin(*cpu).unwrap();
            assert_eq!(affinity().unwrap(), [*cpu]);
        }
        assert!(pin(CPUS_MAX - 1).is_err());
        assert!(pin(CPUS_MAX).is_err());
    })
    .join()
    .unwrap();
}

#[test]
fn the_soft_limit_of_descriptors_becomes_the_hard_one() {
    let limit = raise_descriptor_limit();
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(numbers[3], limit.to_string());
    assert_eq!(numbers[3], numbers[4]);
}

#[test]
fn a_signal_is_taken_by_the_thread_that_waits() {
    std::thread::spawn(|| {
        let signals = Signals::hold().unwrap();
        assert_eq!(signals.wait(Duration::from_millis(1)), None);
        for (number, name) in [
            (libc::SIGTERM, "SIGTERM"),
            (libc::SIGQUIT, "SIGQUIT"),
            (libc::SIGUSR1, "SIGUSR1"),
            (libc::SIGUSR2, "SIGUSR2"),
            (libc::SIGPIPE, "SIGPIPE"),
            (libc::SIGALRM, "SIGALRM"),
            (libc::SIGRTMIN(), "SIGRTMIN"),
            (libc::SIGRTMAX(), "SIGRTMIN+30"),
        ] {
            // SAFETY: sent to this thread alone, which holds it back.
            unsafe { libc::pthread_kill(libc::pthread_self(), number) };
            let signal = signals.wait(Duration::from_secs(30)).unwrap();
            assert_eq!((libc::c_int::from(signal.number()), signal.to_string().as_str()), (number, name));
            assert_eq!(signal.stops(), [libc::SIGTERM, libc::SIGQUIT].contains(&number), "{name}");
        }
    })
    .join()
    .unwrap();
}
