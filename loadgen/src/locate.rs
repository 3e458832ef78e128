//! Where the broker runs, if it runs on this machine, and which CPU it leaves to the generator.
//!
//! Everything is read from `/proc`. What may not be read, as the descriptors of another user's processes, is unknown,
//! and nothing is made of it.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};

use crate::sys;

/// Whether packets to this address stay on this machine.
pub fn is_local(address: IpAddr) -> bool {
    address.is_loopback() || sys::can_bind(address).is_ok()
}

/// An address as `/proc/net/tcp` and `tcp6` write it: words of four bytes, each as the machine reads it.
fn in_proc(address: IpAddr) -> String {
    let word = |bytes: &[u8]| format!("{:08X}", u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    match address {
        IpAddr::V4(v4) => word(&v4.octets()),
        IpAddr::V6(v6) => v6.octets().chunks(4).map(word).collect(),
    }
}

/// The inodes of sockets that listen where `target` points, in a table of the kernel.
fn inodes(table: &str, target: SocketAddr) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let (wanted, port) = (in_proc(target.ip()), format!("{:04X}", target.port()));
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (address, its_port) = fields.get(1)?.split_once(':')?;
        let everywhere = address.bytes().all(|digit| digit == b'0');
        let mine = its_port == port && *fields.get(3)? == LISTEN && (everywhere || address == wanted);
        fields.get(9).filter(|_| mine)?.parse().ok()
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

/// The processes that listen there, other than this one, as far as this user may see them.
pub fn listeners(target: SocketAddr) -> Vec<u32> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|file| fs::read_to_string(file).unwrap_or_default());
    let names: HashSet<String> =
        tables.iter().flat_map(|table| inodes(table, target)).map(|n| format!("socket:[{n}]")).collect();
    if names.is_empty() {
        return Vec::new();
    }
    let holds_one = |pid: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|link| link.to_str().is_some_and(|name| names.contains(name)))
    };
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|&pid| pid != std::process::id()).filter(holds_one).collect()
}

/// The CPU for the generator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// The broker does not need this one.
    Free(usize),
    /// The broker is at home on every CPU; this one is shared with it.
    Shared(usize),
}

/// Chooses among the CPUs that are `allowed` here. `threads` has the CPUs of each of the broker's threads.
fn choose(allowed: &[usize], threads: &[BTreeSet<usize>]) -> Option<Room> {
    let last = *allowed.last()?;
    // Who is tied to some of them lives there; who may go everywhere goes where there is room.
    let (tied, roaming): (Vec<_>, Vec<_>) =
        threads.iter().partition(|cpus| allowed.iter().any(|cpu| !cpus.contains(cpu)));
    let taken = |cpu: &usize| tied.iter().any(|cpus| cpus.contains(cpu));
    let free: Vec<usize> = allowed.iter().copied().filter(|cpu| !taken(cpu)).collect();
    Some(match free.last() {
        Some(&cpu) if !tied.is_empty() || roaming.len() < allowed.len() => Room::Free(cpu),
        _ => Room::Shared(last),
    })
}

/// The CPU for a generator on the same machine as these processes; `None` if nothing is known of them.
pub fn room(allowed: &[usize], pids: &[u32]) -> Option<Room> {
    let tasks = pids.iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten());
    let cpus = |status: String| {
        let line = status.lines().find(|line| line.starts_with("Cpus_allowed_list:"))?;
        Some(cpu_list(line.split_ascii_whitespace().nth(1)?))
    };
    let threads: Vec<BTreeSet<usize>> = tasks
        .flatten()
        .filter_map(|task| cpus(fs::read_to_string(task.path().join("status")).ok()?))
        .collect();
    if threads.is_empty() { None } else { choose(allowed, &threads) }
}

/// `0-3,6` as the kernel writes it.
fn cpu_list(text: &str) -> BTreeSet<usize> {
    let range = |part: &str| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        Some(low.parse::<usize>().ok()?..=high.parse::<usize>().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// CPUs as `--cores` and `taskset -c` take them.
fn written(cpus: &[usize]) -> String {
    cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// What to type so that broker and generator have CPUs of their own.
pub fn advice(allowed: &[usize], pids: &[u32], commands: &[String], own: &str) -> String {
    let count = allowed.len();
    let Some((&last, others)) = allowed.split_last().filter(|(_, others)| !others.is_empty()) else {
        return "the broker has to share this machine's only CPU with loadgen, so latency will say little: run \
                loadgen on another machine"
            .into();
    };
    let others = written(others);
    let mut moves: Vec<String> = pids.iter().map(|pid| format!("taskset -a -c -p {others} {pid}")).collect();
    if let [command] = commands {
        let program = command.split(' ').next().unwrap_or_default();
        let is_ringmq = program.rsplit('/').next() == Some("ringmq");
        if is_ringmq && !command.contains("--cores") {
            // One shard for each CPU that is left, and not several on one.
            moves = vec![format!("{command} --cores {others}   # after stopping the one that runs")];
        }
    }
    let own = own.split(" --cores").next().unwrap_or(own);
    format!(
        "the broker is at home on all {count} CPUs, and this run takes one of them from it: latency will say \
         little. For good figures give each its own, with these two commands:\n  {}\n  {own} --cores {last}",
        moves.join(" && ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(cpus: &[usize]) -> BTreeSet<usize> {
        cpus.iter().copied().collect()
    }

    #[test]
    fn the_generator_takes_a_cpu_that_the_broker_leaves_free() {
        let all = [0, 1, 2, 3];
        // Shards tied to two CPUs, and a main thread that may go everywhere.
        let shards = [set(&all), set(&[2]), set(&[3])];
        assert_eq!(choose(&all, &shards), Some(Room::Free(1)));
        // A broker that is tied as a whole.
        assert_eq!(choose(&[0, 1], &[set(&[1]), set(&[1])]), Some(Room::Free(0)));
        // One thread without ties makes room; as many as there are CPUs do not.
        assert_eq!(choose(&[0, 1], &[set(&[0, 1])]), Some(Room::Free(1)));
        assert_eq!(choose(&[0, 1], &[set(&[0, 1]), set(&[0, 1])]), Some(Room::Shared(1)));
        // One shard on each CPU.
        assert_eq!(choose(&[0, 1], &[set(&[0, 1]), set(&[0]), set(&[1])]), Some(Room::Shared(1)));
        assert_eq!(choose(&[0], &[set(&[0])]), Some(Room::Shared(0)));
        assert_eq!(cpu_list("0-2,5"), set(&[0, 1, 2, 5]));
    }

    #[test]
    fn two_commands_are_named_that_part_broker_and_generator() {
        let ringmq = ["target/release/ringmq --listen 127.0.0.1:1883".to_string()];
        let text = advice(&[0, 1], &[7], &ringmq, "loadgen p2p --pairs 50");
        assert!(text.contains("\n  target/release/ringmq --listen 127.0.0.1:1883 --cores 0 "), "{text}");
        assert!(text.ends_with("\n  loadgen p2p --pairs 50 --cores 1"), "{text}");
        let other = advice(&[0, 1, 2], &[7], &["emqx".to_string()], "loadgen p2p");
        assert!(other.contains("\n  taskset -a -c -p 0,1 7\n") && other.ends_with("--cores 2"), "{other}");
        assert!(advice(&[0], &[7], &ringmq, "loadgen").contains("another machine"));
    }

    #[test]
    fn a_listening_process_is_found_by_its_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:075B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n   \
                     1: 00000000:075B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1\n   \
                     2: 0200007F:075B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1\n   \
                     3: 0100007F:075B 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4714 1\n";
        assert_eq!(inodes(table, "127.0.0.1:1883".parse().unwrap()), [4711, 4712]);
        // A socket of this process is found in the kernel's table, and this process is left out.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        assert_eq!(inodes(&fs::read_to_string("/proc/net/tcp").unwrap(), target).len(), 1);
        assert_eq!(listeners(target), [0u32; 0]);
        assert!(is_local(target.ip()) && !is_local("192.0.2.1".parse().unwrap()));
        assert!(room(&[0], &[std::process::id()]).is_some() && room(&[0], &[u32::MAX]).is_none());
    }
}
