//! What is written to the log: connects, ends and refusals, never anything per message.

use crate::memory::Key;
use crate::wire::Reason;

use super::Core;
use super::connection::End;

impl Core {
    pub(super) fn log_connected(&self, _key: Key) {}

    pub(super) fn log_end(&self, _key: Key, _end: End) {}

    pub(super) fn log_refused(&self, _key: Key, _reason: Reason, _why: &'static str) {}
}
