//! What this machine grants the process: CPUs and memory, with the cgroup's share taken into account.
//!
//! Reads files below a root that is an argument, so that tests can describe other machines. Both versions of cgroups
//! are read; the limits of all groups above count, and the smallest one holds.

use std::fs;
use std::path::{Path, PathBuf};

/// CPUs and memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// CPUs that are switched on, ascending.
    pub cpus_online: Vec<u16>,
    /// CPU time that the cgroup grants, in CPUs; `None` without a bound.
    pub cpu_quota: Option<f64>,
    /// Bytes of RAM.
    pub ram: u64,
    /// Bytes that the cgroup grants; `None` without a bound below the RAM.
    pub memory_max: Option<u64>,
    /// Whether it has the loopback address of IPv6; where that is switched off there is none.
    pub has_ipv6: bool,
}

impl Machine {
    /// Looks at `root`, which is `/` but in tests. What cannot be read is taken as not bounded.
    pub fn look(root: &Path) -> Machine {
        let groups = Groups::find(root);
        let ram = ram(root);
        let quota =
            groups.limits("cpu", "cpu.max", parse_cpu_max).into_iter().chain(groups.limits_v1("cpu", cfs));
        let memory = groups
            .limits("memory", "memory.max", |text| text.parse().ok())
            .into_iter()
            .chain(groups.limits_v1("memory", |dir| read(&dir.join("memory.limit_in_bytes"))?.parse().ok()))
            .filter(|max: &u64| *max < ram);
        Machine {
            cpus_online: read(&root.join("sys/devices/system/cpu/online"))
                .and_then(|text| parse_cpus(&text).ok())
                .unwrap_or_default(),
            cpu_quota: quota.reduce(f64::min),
            memory_max: memory.min(),
            has_ipv6: read(&root.join("proc/net/if_inet6")).is_some_and(|text| text.lines().any(is_loopback)),
            ram,
        }
    }

    /// Bytes that this process can have at most.
    pub fn memory(&self) -> u64 {
        self.memory_max.unwrap_or(self.ram)
    }
}

/// Numbers and ranges, as the kernel writes them and `--cores` takes them: `0-3,6`. Ascending, each once.
///
/// # Errors
/// The part that is not a number or a range.
pub fn parse_cpus(text: &str) -> Result<Vec<u16>, String> {
    let mut cpus = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) if first <= last => cpus.extend(first..=last),
            _ => return Err(format!("'{part}' is neither a CPU number nor a range such as 0-3")),
        }
    }
    cpus.sort_unstable();
    cpus.dedup();
    Ok(cpus)
}

/// The directories of this process's cgroups, from its own up to the mount.
#[derive(Default)]
struct Groups {
    unified: Vec<PathBuf>,
    /// By controller.
    v1: Vec<(String, Vec<PathBuf>)>,
}

impl Groups {
    fn find(root: &Path) -> Groups {
        let mut groups = Groups::default();
        let Some(own) = read(&root.join("proc/self/cgroup")) else { return groups };
        let mounts = mounts(root);
        for line in own.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            let unified = mounts.iter().find(|mount| mount.kind == "cgroup2" && controllers.is_empty());
            if let Some(mount) = unified {
                groups.unified = mount.directories(root, path);
            }
            for controller in controllers.split(',').filter(|name| !name.is_empty()) {
                let holds = |mount: &&Mount| {
                    mount.kind == "cgroup" && mount.options.split(',').any(|option| option == controller)
                };
                if let Some(mount) = mounts.iter().find(holds) {
                    groups.v1.push((controller.to_owned(), mount.directories(root, path)));
                }
            }
        }
        groups
    }

    /// The limits in version 2, unless version 1 has the controller.
    fn limits<T>(&self, controller: &str, file: &str, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
        if self.v1.iter().any(|(name, _)| name == controller) {
            return Vec::new();
        }
        self.unified.iter().filter_map(|dir| parse(&read(&dir.join(file))?)).collect()
    }

    fn limits_v1<T>(&self, controller: &str, parse: impl Fn(&Path) -> Option<T>) -> Vec<T> {
        let own = self.v1.iter().find(|(name, _)| name == controller);
        own.map_or(Vec::new(), |(_, dirs)| dirs.iter().filter_map(|dir| parse(dir)).collect())
    }
}

struct Mount {
    /// The part of the hierarchy that is mounted.
    top: String,
    at: String,
    kind: String,
    options: String,
}

impl Mount {
    /// The group's directory and all above it, as far as this mount shows them.
    fn directories(&self, root: &Path, group: &str) -> Vec<PathBuf> {
        let at = root.join(self.at.trim_start_matches('/'));
        let below = if self.top == "/" { Some(group) } else { group.strip_prefix(self.top.as_str()) };
        // A group outside of the mount (a container without a cgroup namespace): the mount's top is the nearest.
        let below = below.unwrap_or("").trim_matches('/');
        let below = if below.split('/').any(|part| part == "..") { "" } else { below };
        at.join(below).ancestors().take_while(|dir| dir.starts_with(&at)).map(Path::to_path_buf).collect()
    }
}

/// Lines of mountinfo: `36 35 0:33 TOP AT OPTIONS [more] - KIND SOURCE SUPER_OPTIONS`.
fn mounts(root: &Path) -> Vec<Mount> {
    let text = read(&root.join("proc/self/mountinfo")).unwrap_or_default();
    let parse = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let mut right = right.split(' ');
        let (top, at) = (left.next()?.to_owned(), left.next()?.to_owned());
        let (kind, options) = (right.next()?.to_owned(), right.nth(1)?.to_owned());
        Some(Mount { top, at, kind, options })
    };
    text.lines().filter_map(parse).collect()
}

/// `cpu.max`: quota and period in microseconds, or `max`.
fn parse_cpu_max(text: &str) -> Option<f64> {
    let (quota, period) = text.split_once(' ')?;
    ratio(quota.parse().ok()?, period.parse().ok()?)
}

fn cfs(dir: &Path) -> Option<f64> {
    let quota: i64 = read(&dir.join("cpu.cfs_quota_us"))?.parse().ok()?;
    let period: i64 = read(&dir.join("cpu.cfs_period_us"))?.parse().ok()?;
    ratio(quota, period)
}

/// A quota of -1 is none.
fn ratio(quota: i64, period: i64) -> Option<f64> {
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

fn ram(root: &Path) -> u64 {
    let text = read(&root.join("proc/meminfo")).unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
    kib.map_or(RAM_UNKNOWN, |kib| kib * 1024)
}

/// Lines of if_inet6: an address in 32 digits, then numbers and the interface.
fn is_loopback(line: &str) -> bool {
    line.split(' ').next().is_some_and(|address| u128::from_str_radix(address, 16) == Ok(1))
}

/// Assumed where `/proc` cannot be read.
const RAM_UNKNOWN: u64 = 1 << 30;

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with these files, removed at the end.
    struct Fake(PathBuf);

    impl Fake {
        fn new(name: &str, files: &[(&str, &str)]) -> Fake {
            let root = std::env::temp_dir().join(format!("ringmq-machine-{}-{name}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Fake(root)
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:       16000000 kB\nMemFree:  1 kB\n");

    #[test]
    fn version_2_takes_the_smallest_limit_on_the_way_up() {
        let fake = Fake::new(
            "v2",
            &[
                MEMINFO,
                ("sys/devices/system/cpu/online", "0-3,6\n"),
                ("proc/self/cgroup", "0::/user/app\n"),
                (
                    "proc/self/mountinfo",
                    "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n",
                ),
                ("sys/fs/cgroup/user/app/cpu.max", "max 100000\n"),
                ("sys/fs/cgroup/user/cpu.max", "250000 100000\n"),
                ("sys/fs/cgroup/user/app/memory.max", "2000000\n"),
                ("sys/fs/cgroup/user/memory.max", "1000000\n"),
                ("sys/fs/cgroup/memory.max", "max\n"),
                (
                    "proc/net/if_inet6",
                    "fe80000000000000000000000000abcd 02 40 20 80  eth0\n00000000000000000000000000000001 01 80 10 80 lo\n",
                ),
            ],
        );
        let machine = Machine::look(&fake.0);
        assert_eq!(machine.cpus_online, [0, 1, 2, 3, 6]);
        assert_eq!(machine.cpu_quota, Some(2.5));
        assert_eq!(machine.memory_max, Some(1_000_000));
        assert_eq!(machine.memory(), 1_000_000);
        assert!(machine.has_ipv6);
        assert_eq!(machine.ram, 16_000_000 * 1024);
    }

    #[test]
    fn version_1_in_a_container_that_mounts_its_own_group() {
        let mounts = "32 31 0:29 /docker/ab /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n\
                      35 31 0:32 /docker/ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let fake = Fake::new(
            "v1",
            &[
                MEMINFO,
                ("proc/self/cgroup", "4:memory:/docker/ab\n2:cpu,cpuacct:/docker/ab\n0::/\n"),
                ("proc/self/mountinfo", mounts),
                ("proc/net/if_inet6", ""),
                ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n"),
                ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ],
        );
        let machine = Machine::look(&fake.0);
        assert_eq!(machine.cpu_quota, Some(0.5));
        assert_eq!(machine.memory_max, None, "the largest number means none");
        assert!(!machine.has_ipv6, "switched off");
        assert_eq!(machine.memory(), machine.ram);
    }

    #[test]
    fn a_machine_that_says_nothing_bounds_nothing() {
        let fake = Fake::new("empty", &[]);
        let machine = Machine::look(&fake.0);
        assert_eq!((machine.cpu_quota, machine.memory_max, machine.ram), (None, None, RAM_UNKNOWN));
        let here = Machine::look(Path::new("/"));
        assert!(!here.cpus_online.is_empty() && here.ram > RAM_UNKNOWN / 8);
    }

    #[test]
    fn lists_of_cpus() {
        assert_eq!(parse_cpus("6,0-3,2"), Ok(vec![0, 1, 2, 3, 6]));
        assert_eq!(parse_cpus("0"), Ok(vec![0]));
        for wrong in ["", "a", "3-1", "1-", "-1", "0,,1", "70000"] {
            assert!(parse_cpus(wrong).is_err(), "{wrong}");
        }
    }
}
