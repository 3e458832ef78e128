//! What the reader of a FIFO tells its writer: registers that only grow, and whether the writer waits for them.
//!
//! The writer says that it waits, then looks at the registers; the reader publishes a register, then looks whether the
//! writer waits. As in `bell`, a SeqCst fence stands between the store and the look of either side.
//!
//! ```text
//! writer: awaited=true   fence   registers? -> go on, else sleep
//! reader: register.publish   fence   awaited? -> take it, ring the writer's bell
//! ```

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// Registers of each FIFO.
pub const REGISTERS: usize = 4;

/// Written by the reader of a FIFO, read by its writer.
#[derive(Debug)]
#[repr(align(128))]
pub struct Progress {
    registers: [AtomicU64; REGISTERS],
    /// The writer wants its bell rung when a register has grown.
    awaited: AtomicBool,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress { registers: [const { 0 }; REGISTERS].map(AtomicU64::new), awaited: AtomicBool::new(false) }
    }
}

impl Progress {
    pub fn get(&self, register: usize) -> u64 {
        self.registers[register].load(Ordering::Acquire)
    }

    /// By the reader alone. Whatever it did before is seen by a writer that sees the value.
    pub fn set(&self, register: usize, value: u64) {
        debug_assert!(value >= self.registers[register].load(Ordering::Relaxed), "a register only grows");
        self.registers[register].store(value, Ordering::Release);
    }

    /// By the writer: from now on it wants to be rung. It looks at the registers after this.
    pub fn wait(&self) {
        self.awaited.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// By the reader, after [`Progress::set`]. True: the writer waits, and the caller must ring its bell.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        fence(Ordering::SeqCst);
        self.awaited.load(Ordering::Relaxed) && self.awaited.swap(false, Ordering::Relaxed)
    }
}
