//! Where each shard's ring is, so that the others can ring its doorbell.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::memory::ShardId;

/// The ring descriptors of all shards of the process; -1 before a ring exists and after it is gone.
///
/// A descriptor that was closed and taken by something else does no harm: the kernel refuses a doorbell to what is not
/// a ring.
#[derive(Debug)]
pub struct Peers(Box<[AtomicI32]>);

impl Peers {
    pub fn new(shards: u16) -> Peers {
        Peers((0..shards).map(|_| AtomicI32::new(-1)).collect())
    }

    pub(super) fn set(&self, shard: ShardId, ring: Option<RawFd>) {
        self.0[usize::from(shard)].store(ring.unwrap_or(-1), Ordering::Release);
    }

    pub(super) fn ring(&self, shard: ShardId) -> Option<RawFd> {
        let fd = self.0[usize::from(shard)].load(Ordering::Acquire);
        (fd >= 0).then_some(fd)
    }
}
