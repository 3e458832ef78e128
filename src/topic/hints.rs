//! Which topics somebody may have retained: bits that all shards share, so that a subscriber asks no owner in vain.
//!
//! A bit for each topic and one for its first level, by keyed hash; two topics may share one. Bits are set before a message
//! with RETAIN leaves for its owner and stay set, also when the message is cleared or was not stored: then subscribers ask,
//! which costs a question. Whoever announces a subscription looks after that; see `mesh::published` for why none is missed.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

/// Bits: with 100,000 topics a tenth of the questions are in vain. 128 KiB.
const BITS: usize = 1 << 20;

/// What the hash of a first level is turned by, so that the topic `a` and the level `a` are two things.
const LEVEL_TURN: u32 = 29;

/// Topics that may be retained.
#[derive(Debug)]
pub struct RetainedHints {
    bits: Box<[AtomicU64]>,
    /// Whether there is a topic that `#` or `+/...` could match, 0 or 1. // [MQTT-4.7.2-1]
    any: AtomicU64,
}

impl Default for RetainedHints {
    fn default() -> RetainedHints {
        RetainedHints::with_bits(BITS)
    }
}

impl RetainedHints {
    /// `bits` is a power of two, and at least 64.
    pub(super) fn with_bits(bits: usize) -> RetainedHints {
        debug_assert!(bits.is_power_of_two() && bits >= 64);
        RetainedHints { bits: (0..bits / 64).map(|_| AtomicU64::new(0)).collect(), any: AtomicU64::new(0) }
    }

    /// A message on `topic`, whose keyed hash is `fingerprint`, is to be retained.
    pub fn note(&self, topic: &str, fingerprint: u64, hash: impl Fn(&str) -> u64) {
        self.set(fingerprint);
        self.set(hash(first_level(topic)).rotate_left(LEVEL_TURN));
        if !topic.starts_with('$') && self.any.load(Ordering::Relaxed) == 0 {
            self.any.store(1, Ordering::Relaxed);
        }
    }

    /// Whether a topic that `filter`, without `$share/name/`, matches was ever noted. May be true for none.
    pub fn may_match(&self, filter: &str, hash: impl Fn(&str) -> u64) -> bool {
        match first_level(filter) {
            "#" | "+" => self.any.load(Ordering::Relaxed) != 0,
            _ if !filter.contains(['+', '#']) => self.get(hash(filter)),
            first => self.get(hash(first).rotate_left(LEVEL_TURN)),
        }
    }

    fn place(&self, hash: u64) -> (&AtomicU64, u64) {
        let bit = hash as usize & (self.bits.len() * 64 - 1);
        (&self.bits[bit / 64], 1 << (bit % 64))
    }

    fn set(&self, hash: u64) {
        let (word, bit) = self.place(hash);
        // Usually it is set: a look leaves the line where it is.
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    fn get(&self, hash: u64) -> bool {
        let (word, bit) = self.place(hash);
        word.load(Ordering::Relaxed) & bit != 0
    }
}

fn first_level(text: &str) -> &str {
    text.split('/').next().unwrap_or_default()
}
