//! Time as the broker counts it: milliseconds on a monotonic clock, handed in as an argument.
//!
//! Nothing below `server` reads a clock. A turn gets `now` once and everything in it shares that value, which is
//! what lets the simulator run the same code under a virtual clock.

/// Milliseconds since an arbitrary point before the process started. Never 0 for a real moment.
pub type Millis = u64;

/// A deadline that never comes.
pub const NEVER: Millis = Millis::MAX;

/// `seconds` from `now`, saturating at [`NEVER`].
pub fn after_s(now: Millis, seconds: u64) -> Millis {
    now.saturating_add(seconds.saturating_mul(1000))
}
