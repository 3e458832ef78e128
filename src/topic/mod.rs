//! What one shard knows about topics: who subscribed here, which other shards want what, and what is retained.
//!
//! Pure: no I/O, no clock and no randomness but what is handed in, and nothing depends on the order of a hash map, so
//! that the same calls give the same answers in the simulator.
//!
//! - `filter`: the rules of Topic Filters, and the plain matching rule.
//! - `router`: [`Router`], the subscriptions of this shard, with `groups` (shared subscriptions), `remote` (what other
//!   shards announced) and `routes` with `cache` (the way of a message, kept by topic).
//! - `retained`: [`Retained`], the retained messages that this shard owns, ordered by topic; `hints`: [`RetainedHints`],
//!   which topics any shard may own.
//! - `trie`, `table`, `order`, `slots`, `set`, `text`: the structures below them.
//! - [`naive`]: the same answers from lists and loops; the oracle of the tests and of the simulator.

mod cache;
mod filter;
mod groups;
mod hints;
#[cfg(test)]
mod hints_tests;
#[cfg(test)]
mod naive;
mod order;
mod remote;
mod retained;
mod router;
mod routes;
mod set;
mod slots;
mod subscription;
mod text;
mod trie;

#[cfg(test)]
mod tests;

use ahash::RandomState;

use crate::memory::ShardId;

// What tests and benches use besides the broker.
pub use filter::matches;
pub use remote::Interest;
pub use router::Router;
pub use routes::Route;
pub use set::SubscriptionSet;
pub use subscription::{Options, RetainHandling};

pub(crate) use filter::parse_filter;
#[cfg(test)]
use groups::Counts;
pub(crate) use groups::{Members, Round};
pub(crate) use hints::RetainedHints;
pub(crate) use retained::{Retained, Scan};
pub(crate) use router::{Announcement, Change, ChangeKind, FilterKey, Subscribed, Unsubscribed};
pub(crate) use routes::Repeats;
pub(crate) use subscription::{Presence, Subscription};

/// Seeds of every hash over text that a client chooses: the same on all shards of a process, random per process.
pub type HashKeys = [u64; 4];

/// Keyed hash of a Topic Name, Topic Filter or Client Identifier; equal on all shards of a process.
pub fn fingerprint(keys: &HashKeys, text: &str) -> u64 {
    TextHasher::new(keys).text(text)
}

/// Where `text` is at home: a Client Identifier's session or a topic's retained message. `shards` is at least 1.
pub fn shard_of(keys: &HashKeys, text: &str, shards: u16) -> ShardId {
    shard_of_fingerprint(fingerprint(keys, text), shards)
}

/// The same for a text whose fingerprint is known.
pub fn shard_of_fingerprint(fingerprint: u64, shards: u16) -> ShardId {
    // The high bits choose the shard and the low bits the place in a table, so a shard's tables stay evenly filled.
    ((u128::from(fingerprint) * u128::from(shards)) >> 64) as ShardId
}

/// [`fingerprint`] with its keys at hand.
#[derive(Clone, Debug)]
struct TextHasher(RandomState);

impl TextHasher {
    fn new(keys: &HashKeys) -> TextHasher {
        TextHasher(RandomState::with_seeds(keys[0], keys[1], keys[2], keys[3]))
    }

    fn text(&self, text: &str) -> u64 {
        self.0.hash_one(text)
    }

    fn bytes(&self, bytes: &[u8]) -> u64 {
        self.0.hash_one(bytes)
    }

    fn number(&self, number: u32) -> u64 {
        self.0.hash_one(number)
    }
}

/// No index: the end of a list, a missing child.
const NONE: u32 = u32::MAX;
