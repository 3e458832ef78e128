//! What happened, in words, one line per event; kept only where somebody will read it.

use crate::oracle::Oracle;

#[derive(Default, Debug)]
pub struct Trace {
    pub on: bool,
    pub lines: Vec<String>,
    /// Of all lines, to compare two runs.
    pub hash: u64,
}

impl Trace {
    pub fn line(&mut self, oracle: &Oracle, text: impl FnOnce() -> String) {
        if self.on {
            let line = format!("{:>9} ms {:>6}  {}", oracle.now, oracle.tick, text());
            for byte in line.bytes() {
                self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
            }
            self.lines.push(line);
        }
    }
}
