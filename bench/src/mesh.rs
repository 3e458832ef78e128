//! Items through the ring between two shards, both ends on one thread.

use std::collections::VecDeque;

use ringmq::mesh::{self, Bounds};

use crate::{Prepared, Scale};

/// Items of one step.
const BATCH: u64 = 1024;
/// Items before a flush.
const FLUSH: u64 = 64;

pub(crate) fn ring(_: Scale) -> Prepared {
    let bounds = Bounds { ring_slots: 4096, spill_max: 4096, bytes_max: 1 << 20 };
    let mut links = mesh::build::<[u64; 4]>(2, bounds);
    let (mut to, mut from) = (links.remove(1), links.remove(0));
    let mut taken = VecDeque::new();
    Prepared::new(BATCH as usize, move |meter| {
        let sum = meter.measure(|| {
            let mut sum = 0;
            for item in 0..BATCH {
                from.push(1, [item; 4], 32);
                if item % FLUSH == FLUSH - 1 {
                    let _ = from.flush();
                    for shard in to.take_rung().iter() {
                        let count = to.read(shard, BATCH as usize, &mut taken);
                        sum += taken.drain(..).map(|item| item[0] * item[3]).sum::<u64>();
                        to.consumed(shard, count);
                    }
                    let _ = to.flush();
                }
            }
            sum
        });
        meter.note_number(sum);
    })
}
