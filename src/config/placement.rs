//! Which shards there are, and on which CPUs.

use super::commands::Unfit;
use super::flags::CoreFlags;
use crate::io::machine::{Machine, parse_cpus};
use crate::memory::ShardSet;

/// Which shards there are, and where.
///
/// Shards are bound to CPUs if CPUs were named, or if there are at least as many shards as CPUs.
/// With fewer, binding would put every such process of a machine on the same first CPUs.
pub(super) fn placement(
    flags: &CoreFlags,
    machine: &Machine,
    affinity: &[u16],
) -> Result<Vec<Option<u16>>, Unfit> {
    let unfit = |what: String| Unfit { setting: "cores", what };
    let named = flags.cores.as_deref().map(parse_cpus).transpose().map_err(unfit)?;
    if let Some(missing) = named.iter().flatten().find(|cpu| !machine.cpus_online.contains(cpu)) {
        return Err(unfit(format!(
            "this machine has no CPU {missing}; it has {}. To see them: lscpu --extended",
            ranges(&machine.cpus_online)
        )));
    }
    if affinity.is_empty() {
        return Err(unfit("this process may not use any CPU. To see its CPUs: taskset -cp $$".to_owned()));
    }
    let granted = machine.cpu_quota.map_or(usize::MAX, |quota| (quota as usize).max(1));
    let cpus = named.as_deref().unwrap_or(affinity);
    let count = match (flags.shards, &named) {
        (Some(shards), _) => usize::from(shards),
        (None, Some(named)) => named.len(),
        (None, None) => affinity.len().min(granted),
    };
    if count > ShardSet::MAX {
        return Err(unfit(format!(
            "{count} shards are too many: at most {} are possible. Name fewer CPUs, or add --shards N",
            ShardSet::MAX
        )));
    }
    let pin = !flags.no_pin && (named.is_some() || count >= cpus.len());
    Ok((0..count).map(|shard| pin.then(|| cpus[shard % cpus.len()])).collect())
}

/// Numbers as `0-3,6`.
pub fn ranges(numbers: &[u16]) -> String {
    let mut parts: Vec<(u16, u16)> = Vec::new();
    for &number in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => parts.push((number, number)),
        }
    }
    let part = |(first, last): &(u16, u16)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    parts.iter().map(part).collect::<Vec<_>>().join(",")
}
