//! How many connections fit: the descriptors of the process, and beyond them the tables of the shards' rings.

use super::{StartError, sockets};
use crate::config::Config;
use crate::io::kernel::Kernel;
use crate::limits::Limits;
use crate::memory::{ShardId, ShardSet};

/// Descriptors that are kept free of connections: rings, locks, the log, files of the runtime.
const DESCRIPTORS_RESERVED: u64 = 64;
/// Fewer connections than this are no broker.
const CONNECTIONS_MIN: u64 = 16;

/// Places of a table at most, whatever the limit: the kernel refuses more.
const TABLE_MAX: u64 = 1 << 20;

/// The configured limits, with as many connections as there can be descriptors. More of them than that, if they were asked
/// for, live in the rings' own tables, of which each may be as large as the limit of descriptors. Also how many there would
/// have been room for.
pub(super) fn fit_descriptors(
    config: &Config,
    hashers: u16,
    kernel: &mut Kernel,
) -> Result<(Limits, u32), StartError> {
    let limit = sockets::raise_descriptor_limit();
    let shards = config.shards();
    let own =
        DESCRIPTORS_RESERVED + u64::from(hashers) + u64::from(shards) * (config.addresses().len() as u64 + 1);
    let available = limit.saturating_sub(own);
    let asked = u64::from(config.limits.connections_max);
    let least = if config.connections_asked { asked } else { CONNECTIONS_MIN };
    if available < least {
        let table = limit.min(TABLE_MAX);
        let needed = shards_for(least, table);
        let places = table.min(clients_expected(config.limits.connections_max, shards) as u64);
        // What is not at home yet, or closes, still needs some.
        if available < CONNECTIONS_MIN || u64::from(shards) < needed || !kernel.hold_sockets(places as u32) {
            let shards = (needed <= ShardSet::MAX as u64 && kernel.has_rings()).then_some(needed);
            return Err(StartError::Descriptors { limit, needed: least + own, connections: least, shards });
        }
        return Ok((config.limits, config.limits.connections_max));
    }
    let connections_max = asked.min(available) as u32;
    let room = u32::try_from(available).unwrap_or(u32::MAX);
    Ok((Limits { connections_max, ..config.limits }, room))
}

/// Clients of one shard: an even share, and an eighth more for a hash that is not quite even.
pub(super) fn clients_expected(connections_max: u32, shards: ShardId) -> usize {
    let share = connections_max as usize / usize::from(shards);
    share + share / 8
}

/// Shards whose tables hold so many connections, if each has `limit` places: the inverse of [`clients_expected`].
fn shards_for(connections: u64, limit: u64) -> u64 {
    (connections * 9).div_ceil(limit.max(1) * 8)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::exit;
    use crate::io::kernel::Choice;
    use crate::io::machine::Machine;

    fn fit(flags: &str, choice: Choice) -> Result<(Limits, Kernel), StartError> {
        let args: Vec<String> =
            std::iter::once("ringmq").chain(flags.split_whitespace()).map(String::from).collect();
        let machine = Machine::look(Path::new("/"));
        let config = Config::parse(&args, &machine, &sockets::affinity().unwrap()).unwrap();
        let mut kernel = Kernel::choose(choice, config.shards()).unwrap();
        fit_descriptors(&config, 0, &mut kernel).map(|(limits, _)| (limits, kernel))
    }

    #[test]
    fn connections_fit_the_descriptors_or_the_start_is_refused() {
        let (limits, _) = fit("--shards 2 --listen 127.0.0.1:1883", Choice::Auto).unwrap();
        let available = sockets::raise_descriptor_limit() - DESCRIPTORS_RESERVED - 2 * 2;
        assert_eq!(u64::from(limits.connections_max), available.min(1_000_000));
        let error = fit("--shards 2 --connections-max 4000000000", Choice::Auto).unwrap_err();
        assert!(
            matches!(error, StartError::Descriptors { connections: 4_000_000_000, shards: None, .. }),
            "{error}"
        );
        assert_eq!(error.exit_code(), exit::SYSTEM);
    }

    #[test]
    fn beyond_the_descriptors_sockets_live_in_the_rings() {
        let limit = sockets::raise_descriptor_limit();
        if limit > 1 << 24 {
            return; // No number of connections is beyond it.
        }
        let asked = limit * 3 / 2;
        let flags = |shards| format!("--shards {shards} --connections-max {asked}");
        let (limits, kernel) = fit(&flags(2), Choice::Uring).unwrap();
        assert_eq!(u64::from(limits.connections_max), asked);
        assert!(matches!(kernel, Kernel::Uring { direct, .. } if u64::from(direct) <= limit && direct > 0));
        let error = fit(&flags(1), Choice::Uring).unwrap_err();
        assert!(error.to_string().contains("--shards 2"), "{error}");
        let error = fit(&flags(2), Choice::Epoll).unwrap_err();
        assert!(!error.to_string().contains("--shards"), "{error}");
    }
}
