//! A comparison for programs. Times are nanoseconds, rates are per second.

use serde_json::{Value, json};

use super::{Comparison, Contest, Round, Turn};
use crate::environment::Environment;

impl Round {
    fn json(&self) -> Value {
        let valid = |ns: Option<u64>| ns.filter(|_| self.latency_holds);
        let void = |ns: Option<u64>| ns.filter(|_| !self.latency_holds);
        json!({
            "rate": self.rate, "p50_ns": valid(self.p50_ns), "p99_ns": valid(self.p99_ns),
            // What was seen while the generator was busy: its own delay is in it.
            "p50_ns_void": void(self.p50_ns), "p99_ns_void": void(self.p99_ns),
            "cpu_ns_each": self.cpu_ns, "pid_void": self.pid_void, "memory": self.memory, "memory_per_connection": self.memory_each,
            "kernel_per_connection": self.kernel_each, "waited": self.waited, "generator_busy": self.busy,
            "worth": self.verdict, "faults": self.faults, "exit": self.exit,
        })
    }
}

impl Contest {
    fn json(&self) -> Value {
        let turn = |turn: &Turn| match turn {
            Ok(round) => round.json(),
            Err(failure) => json!({ "failure": failure }),
        };
        let brokers: Vec<Value> = self
            .series
            .iter()
            .map(|s| json!({"name": s.name, "rounds": s.turns.iter().map(turn).collect::<Vec<_>>()}))
            .collect();
        json!({
            "name": self.work.name, "run": self.work.run, "note": self.work.note, "headline": self.headline,
            "unit": self.unit, "brokers": brokers,
        })
    }
}

impl Comparison {
    pub fn json(&self, place: &Environment) -> Value {
        json!({
            "works": self.contests.iter().map(Contest::json).collect::<Vec<_>>(),
            "interrupted": self.interrupted,
            "brokers": self.subjects.iter().map(|subject| subject.json()).collect::<Vec<_>>(),
            "environment": place.json(),
        })
    }
}
