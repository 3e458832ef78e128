//! The message log: what a shard has promised to keep, on disk, and back from there.
//!
//! Each shard writes a log of its own. What changes about a kept session or a retained message is a
//! [`Record`]; the records of some turns are a *commit*, which is written and flushed as a whole
//! ([`Log`]). Reading the records in their order gives the state again ([`State`]).
//!
//! A log would grow without end, so from time to time the shard *walks*: it writes an image of
//! everything that it keeps, piece by piece, between the records of what happens meanwhile. When the
//! walk is complete and on disk, nothing from before it is needed, and those segments are used
//! again.
//!
//! What it is not: it submits no operation and knows no session. The shard gives the writes of
//! [`Log::seal`] to its kernel boundary, and turns images into sessions.
//!
//! | file | what is in it |
//! |---|---|
//! | `record` | what can be written down, as bytes and back |
//! | `frame` | commits and segments: heads, checksums |
//! | `log` | append, seal, on disk; segments in use and free |
//! | `image` | a session as it is on disk |
//! | `state` | records applied in order |
//! | `recover` | the files of a log to a state; what is damaged, and what was torn |
//! | `manifest` | the directory: which run holds |
//! | `rewrite` | a state as a new log |
//! | `run` | from the run that holds to the next one |
//! | `keeper` | segments in stock: made, taken, given back |

mod frame;
mod image;
mod keeper;
mod log;
mod manifest;
mod record;
mod recover;
mod rewrite;
mod run;
mod state;
#[cfg(test)]
mod tests;

pub use frame::Origin;
pub use image::{Delivery, Filter, SessionImage, StoredWill};
pub use keeper::{Keeper, directory};
pub use log::{Log, Progress, Write};
pub use manifest::{Manifest, ManifestError};
pub use record::{Damaged, Identifiers, Queued, Record, Will};
pub use recover::{Found, Head, Report, See, Seen, head, heads, recover, visit};
pub use rewrite::rewrite;
pub use run::{Failure, Kept, NextRun, Part, prefix, set_aside};
pub use state::State;

use crate::clock::{Millis, NEVER};

/// Milliseconds since 1970, as deadlines are written down: a restart takes time as well.
/// [`NEVER`] stays what it is.
pub type WallMillis = u64;

/// From the monotonic clock of this process to the wall clock, and back.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct WallClock {
    /// The wall clock when the monotonic clock was 0.
    pub epoch: u64,
}

impl WallClock {
    /// Both clocks at one moment.
    pub fn new(wall: WallMillis, now: Millis) -> WallClock {
        WallClock { epoch: wall.saturating_sub(now) }
    }

    /// `at` as it is written down.
    pub fn wall(self, at: Millis) -> WallMillis {
        if at == NEVER { NEVER } else { at.saturating_add(self.epoch) }
    }

    /// What was written down, on the clock of this process. What is long over is a moment after 0.
    pub fn millis(self, wall: WallMillis) -> Millis {
        if wall == NEVER { NEVER } else { wall.saturating_sub(self.epoch).max(1) }
    }
}
