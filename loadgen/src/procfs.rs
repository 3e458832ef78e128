//! CPU time and memory from `/proc`: of the broker under test, all its threads counted, and of our own threads.

use std::collections::HashMap;
use std::fs;

/// CPU time of threads, from their `schedstat`.
#[derive(Clone, Copy, Default, Debug)]
pub struct ThreadUsage {
    pub ran_ns: u64,
    /// Ready to run, but waiting for the CPU.
    pub waited_ns: u64,
}

fn schedstat(text: &str) -> Option<ThreadUsage> {
    let mut fields = text.split_ascii_whitespace();
    let ran_ns = fields.next()?.parse().ok()?;
    let waited_ns = fields.next()?.parse().ok()?;
    Some(ThreadUsage { ran_ns, waited_ns })
}

impl ThreadUsage {
    /// Of the calling thread; CPU time alone where the kernel keeps no statistics.
    pub fn now() -> ThreadUsage {
        let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let ran_ns = crate::sys::thread_cpu_ns();
        let waited_ns = schedstat(&text).map_or(0, |usage| usage.waited_ns);
        ThreadUsage { ran_ns, waited_ns }
    }
}

/// Follows the processes of a broker. A thread that ends keeps what it had when last seen.
#[derive(Default)]
pub struct Broker {
    pids: Vec<u32>,
    threads: HashMap<(u32, u32), ThreadUsage>,
}

impl Broker {
    /// # Errors
    /// A sentence for the user if a process does not exist.
    pub fn new(pids: &[u32]) -> Result<Broker, String> {
        for pid in pids {
            fs::read_dir(format!("/proc/{pid}/task"))
                .map_err(|e| format!("--pid {pid}: no such process ({e})"))?;
        }
        Ok(Broker { pids: pids.to_vec(), threads: HashMap::new() })
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
        })
    }

    /// Resident memory of all processes, in bytes.
    pub fn memory(&self) -> u64 {
        let field = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
            line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
        };
        self.pids.iter().filter_map(field).sum::<u64>() * 1024
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
        assert!(broker.memory() > 100_000 && broker.threads() >= 1);
        assert!(Broker::new(&[u32::MAX]).is_err());
    }
}
