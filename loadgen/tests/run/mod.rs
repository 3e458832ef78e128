//! Starts the program under test and reads its report.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// No run of these tests takes longer.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a run left behind.
pub struct Run {
    pub exit: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// The report.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", self.stdout, self.stderr))
    }

    /// A number of the report, by its path: `faults.lost`.
    pub fn number(&self, path: &str) -> f64 {
        let json = self.json();
        let value = path.split('.').fold(&json, |value, key| &value[key]);
        value.as_f64().unwrap_or_else(|| panic!("{path} is {value} in {json:#}"))
    }

    /// A text of the report.
    pub fn text(&self, path: &str) -> String {
        let json = self.json();
        let value = path.split('.').fold(&json, |value, key| &value[key]);
        value.as_str().map_or_else(|| value.to_string(), str::to_string)
    }
}

/// Starts loadgen with these arguments.
pub fn start(arguments: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for its end.
pub fn finish(mut child: Child) -> Run {
    let begin = Instant::now();
    // Output is read by threads, so that a full pipe holds nobody up.
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let out = std::thread::spawn(move || std::io::read_to_string(out).unwrap());
    let err = std::thread::spawn(move || std::io::read_to_string(err).unwrap());
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begin.elapsed() > DEADLINE {
            child.kill().unwrap();
            panic!("loadgen did not end within {DEADLINE:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Run { exit: status.code().unwrap_or(-1), stdout: out.join().unwrap(), stderr: err.join().unwrap() }
}

/// Runs loadgen against a port, with its report as JSON.
pub fn run(port: u16, arguments: &str) -> Run {
    finish(start(&format!("{arguments} --port {port} --json - --quiet")))
}

/// Runs loadgen as it is.
pub fn plain(arguments: &str) -> Run {
    finish(start(arguments))
}

/// Sends a signal to a child of this test.
pub fn signal(child: &Child, name: &str) {
    let Output { status, .. } = Command::new("kill").args([name, &child.id().to_string()]).output().unwrap();
    assert!(status.success());
}
