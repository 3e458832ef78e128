//! CPU time and memory from `/proc`: of the broker under test, all its threads counted, and of our own threads.

use std::collections::HashMap;
use std::fs;

/// CPU time of threads, from their `schedstat`.
#[derive(Clone, Copy, Default, Debug)]
pub struct ThreadUsage {
    pub ran_ns: u64,
    /// Ready to run, but waiting for the CPU.
    pub waited_ns: u64,
    /// Turns that it had on a CPU.
    pub turns: u64,
}

/// What every wake-up waits, also where nobody else wants the CPU: the kernel's own way from ready to running.
const WAKE_UP_NS: u64 = 3_000;

impl ThreadUsage {
    /// The waiting beyond that of any wake-up: somebody else had the CPU.
    pub fn undue_wait_ns(&self) -> u64 {
        self.waited_ns.saturating_sub(self.turns * WAKE_UP_NS)
    }

    /// What came to it since an earlier look.
    pub fn since(&self, before: &ThreadUsage) -> ThreadUsage {
        ThreadUsage {
            ran_ns: self.ran_ns.saturating_sub(before.ran_ns),
            waited_ns: self.waited_ns.saturating_sub(before.waited_ns),
            turns: self.turns.saturating_sub(before.turns),
        }
    }
}

fn schedstat(text: &str) -> Option<ThreadUsage> {
    let mut fields = text.split_ascii_whitespace();
    let ran_ns = fields.next()?.parse().ok()?;
    let waited_ns = fields.next()?.parse().ok()?;
    let turns = fields.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    Some(ThreadUsage { ran_ns, waited_ns, turns })
}

impl ThreadUsage {
    /// Of the calling thread; CPU time alone where the kernel keeps no statistics.
    pub fn now() -> ThreadUsage {
        let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let ran_ns = crate::sys::thread_cpu_ns();
        ThreadUsage { ran_ns, ..schedstat(&text).unwrap_or_default() }
    }
}

/// Nanoseconds since the start in which somebody on this machine was ready to run and had no CPU, where the kernel
/// keeps count (pressure stall information).
pub fn pressure() -> Option<u64> {
    let text = fs::read_to_string("/proc/pressure/cpu").ok()?;
    let total = text.lines().find(|line| line.starts_with("some"))?.split_once("total=")?.1;
    Some(total.trim().parse::<u64>().ok()? * 1000)
}

/// Memory in bytes at one moment.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Memory {
    /// All that is in memory of the processes, code and files included.
    pub resident: u64,
    /// What the processes allocated: heap, stacks, pools.
    pub anonymous: u64,
    /// The kernel's own objects on the whole machine, sockets among them.
    pub kernel: u64,
}

/// A field of a file in `/proc` that counts in kB, in bytes; 0 where it is missing.
fn kilobytes(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_ascii_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Follows the processes of a broker. A thread that ends keeps what it had when last seen.
#[derive(Default)]
pub struct Broker {
    pids: Vec<u32>,
    threads: HashMap<(u32, u32), ThreadUsage>,
}

impl Broker {
    /// A process that is named twice counts once.
    ///
    /// # Errors
    /// A sentence for the user if a process does not exist.
    pub fn new(pids: &[u32]) -> Result<Broker, String> {
        let mut broker = Broker::default();
        for &pid in pids {
            fs::read_dir(format!("/proc/{pid}/task"))
                .map_err(|e| format!("--pid {pid}: no such process ({e})"))?;
            if !broker.pids.contains(&pid) {
                broker.pids.push(pid);
            }
        }
        Ok(broker)
    }

    pub fn is_known(&self) -> bool {
        !self.pids.is_empty()
    }

    /// CPU time of all threads so far.
    pub fn usage(&mut self) -> ThreadUsage {
        for &pid in &self.pids {
            let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for task in tasks.flatten() {
                let Some(tid) = task.file_name().to_str().and_then(|name| name.parse().ok()) else {
                    continue;
                };
                let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                if let Some(usage) = schedstat(&text) {
                    self.threads.insert((pid, tid), usage);
                }
            }
        }
        self.threads.values().fold(ThreadUsage::default(), |sum, thread| ThreadUsage {
            ran_ns: sum.ran_ns + thread.ran_ns,
            waited_ns: sum.waited_ns + thread.waited_ns,
            turns: sum.turns + thread.turns,
        })
    }

    /// Memory of all processes, in bytes.
    pub fn memory(&self) -> Memory {
        let mut memory = Memory { resident: 0, anonymous: 0, kernel: kilobytes("/proc/meminfo", "Slab:") };
        for pid in &self.pids {
            let status = format!("/proc/{pid}/status");
            memory.resident += kilobytes(&status, "VmRSS:");
            memory.anonymous += kilobytes(&status, "RssAnon:");
        }
        memory
    }

    /// What each process was started as.
    pub fn commands(&self) -> Vec<String> {
        let words = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            Some(String::from_utf8_lossy(&line).replace('\0', " ").trim().to_string())
        };
        self.pids.iter().filter_map(words).filter(|line| !line.is_empty()).collect()
    }

    /// Threads that are alive.
    pub fn threads(&self) -> usize {
        let count = |pid: &u32| fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        self.pids.iter().map(count).sum()
    }

    /// The CPUs on which the processes may run, as the kernel lists them.
    pub fn cpus(&self) -> Option<String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pids.first()?)).ok()?;
        let line = status.lines().find(|line| line.starts_with("Cpus_allowed_list:"))?;
        line.split_ascii_whitespace().nth(1).map(str::to_string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_charged_for_all_its_threads_even_those_that_ended() {
        let mut broker = Broker::new(&[std::process::id()]).unwrap();
        let before = broker.usage().ran_ns;
        let burn = || {
            let begin = crate::sys::thread_cpu_ns();
            while crate::sys::thread_cpu_ns() - begin < 30_000_000 {}
        };
        let (ready, wait) = std::sync::mpsc::channel::<()>();
        let (done, finished) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            burn();
            done.send(()).unwrap();
            wait.recv().unwrap();
        });
        finished.recv().unwrap();
        let during = broker.usage().ran_ns;
        assert!(during - before >= 25_000_000, "{}", during - before);
        ready.send(()).unwrap();
        thread.join().unwrap();
        assert!(broker.usage().ran_ns >= during);
        let memory = broker.memory();
        assert!(
            memory.anonymous > 100_000 && memory.resident > memory.anonymous && memory.kernel > 1_000_000
        );
        assert!(broker.threads() >= 1 && !broker.commands()[0].is_empty());
        assert!(Broker::new(&[u32::MAX]).is_err());
    }

    #[test]
    fn a_process_that_is_named_twice_counts_once() {
        let (me, parent) = (std::process::id(), std::os::unix::process::parent_id());
        assert_eq!(Broker::new(&[me, parent, me]).unwrap().pids, [me, parent]);
    }
}
