//! Whether this machine can hold the connections of a run at all: ports, descriptors, memory.
//!
//! Asked before the first connection, so that a run that cannot come about is refused in one line instead of failing
//! some ten thousand connections later.

use std::fs;

use crate::report::{bytes, count};
use crate::spec::Spec;

/// What one end of a connection takes of the kernel and of this program, at the least.
const BYTES_PER_END: u64 = 4096;
/// Where the kernel does not say how many ports it hands out.
const PORTS: u64 = 28_232;

/// The ports from which one source address can connect to one target.
fn ports() -> u64 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut bounds = text.split_ascii_whitespace().filter_map(|n| n.parse::<u64>().ok());
    match (bounds.next(), bounds.next()) {
        (Some(low), Some(high)) if high >= low => high - low + 1,
        _ => PORTS,
    }
}

fn number(file: &str) -> Option<u64> {
    fs::read_to_string(file).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

/// Memory that programs can still get.
fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    Some(line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// What a machine has.
struct Machine {
    ports: u64,
    files: Option<u64>,
    memory: Option<u64>,
}

/// # Errors
/// What is missing, and what to type.
pub fn check(spec: &Spec) -> Result<(), String> {
    let machine = Machine { ports: ports(), files: number("/proc/sys/fs/file-max"), memory: available() };
    fits(spec, &machine)
}

fn fits(spec: &Spec, machine: &Machine) -> Result<(), String> {
    let clients = u64::from(spec.clients());
    let sources = spec.sources.len().max(1) as u64;
    if clients > sources * machine.ports {
        let needed = clients.div_ceil(machine.ports);
        // From 127.0.0.2 on: 127.0.0.1 is left to everybody else.
        let high = needed + 1;
        let example = if spec.is_local && needed < 65_000 {
            format!("--source 127.0.0.2-127.0.{}.{}", (high >> 8) & 0xFF, high & 0xFF)
        } else {
            format!("--source with {} addresses of this machine", count(needed))
        };
        return Err(format!(
            "{} connections need {} source addresses, for one has {} ports: add {example}, or widen \
             `sysctl net.ipv4.ip_local_port_range`",
            count(clients),
            count(needed),
            count(machine.ports)
        ));
    }
    let ends = if spec.is_local { 2 } else { 1 };
    if let Some(files) = machine.files.filter(|&files| clients * ends > files) {
        return Err(format!(
            "{} connections need more open files than the {} of this system: raise `sysctl fs.file-max`, beside \
             `ulimit -n`",
            count(clients),
            count(files)
        ));
    }
    let needed = clients * ends * BYTES_PER_END;
    if let Some(memory) = machine.memory.filter(|&memory| needed > memory) {
        return Err(format!(
            "{} connections need about {} of memory, and {} are free: use fewer with --connections",
            count(clients),
            bytes(needed as f64),
            bytes(memory as f64)
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str, machine: &Machine) -> Option<String> {
        let words = std::iter::once("loadgen").chain(line.split_whitespace());
        let spec = crate::cli::parse(words.map(Into::into)).unwrap().run.spec().unwrap();
        fits(&spec, machine).err()
    }

    #[test]
    fn a_run_that_the_machine_cannot_hold_is_refused_with_what_is_missing() {
        let roomy = Machine { ports: 28_232, files: Some(1 << 40), memory: Some(1 << 40) };
        assert_eq!(refused("idle --connections 20000", &roomy), None);
        let narrow = Machine { ports: 1000, ..roomy };
        let why = refused("idle --connections 20000", &narrow).unwrap();
        assert!(
            why.contains("20 source addresses") && why.contains("--source 127.0.0.2-127.0.0.21"),
            "{why}"
        );
        assert_eq!(refused("idle --connections 20000 --source 127.0.0.2-127.0.0.21", &narrow), None);
        let few = Machine { files: Some(30_000), ..roomy };
        assert!(refused("idle --connections 20000", &few).unwrap().contains("fs.file-max"));
        let small = Machine { memory: Some(100_000_000), ..roomy };
        assert!(refused("idle --connections 20000", &small).unwrap().contains("memory"));
    }
}
