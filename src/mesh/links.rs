//! The ends of all rings that one shard holds.

use std::collections::VecDeque;
use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};

use super::bell::Bell;
use super::progress::Progress;
use crate::memory::{ShardId, ShardSet};

/// The register that counts items dequeued and acted upon, in the order in which they were pushed.
pub const CONSUMED: usize = 0;

/// The first register that is the user's.
pub const USER: usize = 1;

#[derive(Debug)]
struct Outgoing<T> {
    ring: Producer<T>,
    spill: VecDeque<T>,
    /// Items ever given to [`Links::push`].
    pushed: u64,
    /// Bytes of each pushed item that is not known to be consumed, their sum, and the count of those that are.
    sizes: VecDeque<u32>,
    bytes: usize,
    settled: u64,
    progress: Arc<Progress>,
}

#[derive(Debug)]
struct Incoming<T> {
    ring: Consumer<T>,
    consumed: u64,
    progress: Arc<Progress>,
}

/// One shard's ends.
#[derive(Debug)]
pub struct Links<T> {
    here: ShardId,
    outgoing: Vec<Option<Outgoing<T>>>,
    incoming: Vec<Option<Incoming<T>>>,
    bells: Arc<[Bell]>,
    bounds: Bounds,
    /// Peers with something to publish or to ring for.
    touched: ShardSet,
    /// Peers whose ring may hold items that a budget left behind.
    unread: ShardSet,
    /// Peers whose spill is at its bound.
    full: ShardSet,
    /// Some peer was taken out of `full` since [`Links::forget_eased`].
    eased: bool,
    /// Peers that published progress here and may have to be rung.
    progressed: ShardSet,
}

/// Bounds of one FIFO.
#[derive(Copy, Clone, Debug)]
pub struct Bounds {
    /// Items in the ring.
    pub ring_slots: usize,
    /// Items behind the ring at which it is full: who can wait does not push then.
    pub spill_max: usize,
    /// Bytes of items that are not consumed, at which it is full.
    pub bytes_max: usize,
}

/// All links of `shards` shards.
pub fn build<T>(shards: u16, bounds: Bounds) -> Vec<Links<T>> {
    let count = usize::from(shards);
    assert!((1..=ShardSet::MAX).contains(&count), "{count} shards");
    let bells: Arc<[Bell]> = (0..count).map(|_| Bell::default()).collect();
    let mut links: Vec<Links<T>> = (0..shards)
        .map(|here| Links {
            here,
            outgoing: (0..count).map(|_| None).collect(),
            incoming: (0..count).map(|_| None).collect(),
            bells: bells.clone(),
            bounds,
            touched: ShardSet::EMPTY,
            unread: ShardSet::EMPTY,
            full: ShardSet::EMPTY,
            eased: false,
            progressed: ShardSet::EMPTY,
        })
        .collect();
    for from in 0..count {
        for to in (0..count).filter(|to| *to != from) {
            let (producer, consumer) = RingBuffer::new(bounds.ring_slots);
            let progress = Arc::new(Progress::default());
            links[from].outgoing[to] = Some(Outgoing {
                ring: producer,
                spill: VecDeque::new(),
                pushed: 0,
                sizes: VecDeque::new(),
                bytes: 0,
                settled: 0,
                progress: progress.clone(),
            });
            links[to].incoming[from] = Some(Incoming { ring: consumer, consumed: 0, progress });
        }
    }
    links
}

impl<T> Outgoing<T> {
    fn count(&mut self, bytes: usize) {
        self.pushed += 1;
        self.sizes.push_back(bytes.min(u32::MAX as usize) as u32);
        self.bytes += bytes.min(u32::MAX as usize);
    }

    /// Forgets the sizes of what was consumed.
    fn settle(&mut self) {
        let consumed = self.progress.get(CONSUMED);
        while self.settled < consumed {
            self.settled += 1;
            self.bytes -= self.sizes.pop_front().expect("no more is consumed than was pushed") as usize;
        }
        if self.sizes.is_empty() && self.sizes.capacity() > 4096 {
            self.sizes = VecDeque::new();
        }
    }
}

impl<T> Links<T> {
    pub fn here(&self) -> ShardId {
        self.here
    }

    pub fn shards(&self) -> u16 {
        self.outgoing.len() as u16
    }

    /// All shards but this one.
    pub fn peers(&self) -> ShardSet {
        ShardSet::first(self.shards()).without(self.here)
    }

    pub fn bell(&self) -> &Bell {
        &self.bells[usize::from(self.here)]
    }

    fn out(&mut self, to: ShardId) -> &mut Outgoing<T> {
        self.outgoing[usize::from(to)].as_mut().expect("a shard has no link to itself")
    }

    fn out_ref(&self, to: ShardId) -> &Outgoing<T> {
        self.outgoing[usize::from(to)].as_ref().expect("a shard has no link to itself")
    }

    /// Appends to the FIFO an item that keeps `bytes` of memory; it leaves with the next [`Links::flush`].
    pub fn push(&mut self, to: ShardId, item: T, bytes: usize) {
        let bounds = self.bounds;
        let out = self.out(to);
        out.spill.push_back(item);
        out.count(bytes);
        // What is staged in a turn counts as if the ring were empty: whether it is shows when it is flushed.
        let full = out.spill.len() >= bounds.spill_max + bounds.ring_slots || out.bytes >= bounds.bytes_max;
        self.touched.insert(to);
        if full {
            self.full.insert(to);
        }
    }

    /// Rings for `to` with the next [`Links::flush`], whether there is something for it or not.
    pub fn call(&mut self, to: ShardId) {
        self.touched.insert(to);
    }

    /// Shards to which nothing more should be routed by those who can wait.
    pub fn full(&self) -> ShardSet {
        self.full
    }

    /// Whether some shard has left [`Links::full`] since [`Links::forget_eased`]: what waits for it must be looked at again,
    /// since no bell will ring for that.
    pub fn has_eased(&self) -> bool {
        self.eased
    }

    /// What waits for room is about to be looked at.
    pub fn forget_eased(&mut self) {
        self.eased = false;
    }

    /// Items that wait behind the ring.
    pub fn spilled(&self, to: ShardId) -> usize {
        self.out_ref(to).spill.len()
    }

    /// Items ever pushed to `to`: the position of the newest, which [`CONSUMED`] reaches when it and all before it were
    /// acted upon.
    pub fn pushed(&self, to: ShardId) -> u64 {
        self.out_ref(to).pushed
    }

    /// What `to` published about the FIFO from here to there.
    pub fn register(&self, to: ShardId, register: usize) -> u64 {
        self.out_ref(to).progress.get(register)
    }

    /// Publishes progress about the FIFO from `from` to here; a register only grows.
    pub fn set_register(&mut self, from: ShardId, register: usize, value: u64) {
        let incoming = self.incoming[usize::from(from)].as_ref().expect("a shard has no link to itself");
        incoming.progress.set(register, value);
        self.progressed.insert(from);
    }

    /// Asks `to` to ring here when one of its registers has grown.
    pub fn await_progress(&self, to: ShardId) {
        self.out_ref(to).progress.wait();
    }

    /// Whether [`Links::flush`] has nothing to do.
    pub fn is_flushed(&self) -> bool {
        self.touched.is_empty() && self.progressed.is_empty()
    }

    /// Moves spilled items into the rings, publishes the tails, and rings bells. Returns the shards that must be woken.
    pub fn flush(&mut self) -> ShardSet {
        let mut wake = ShardSet::EMPTY;
        for to in self.touched.iter() {
            let bounds = self.bounds;
            let out = self.out(to);
            out.settle();
            let count = out.spill.len().min(out.ring.slots());
            if count > 0 {
                let room = out.ring.write_chunk_uninit(count).expect("so many slots are free");
                let filled = room.fill_from_iter(out.spill.drain(..count));
                debug_assert_eq!(filled, count, "an item is lost");
            }
            if out.spill.is_empty() && out.spill.capacity() > 4096 {
                out.spill = VecDeque::new();
            }
            let empty = out.spill.is_empty();
            let below = out.spill.len() <= bounds.spill_max / 2 && out.bytes <= bounds.bytes_max / 2;
            if empty && below {
                self.touched.remove(to);
            } else {
                self.await_progress(to);
            }
            if below {
                self.eased |= self.full.contains(to);
                self.full.remove(to);
            }
            if self.bells[usize::from(to)].ring(self.here) {
                wake.insert(to);
            }
        }
        for from in std::mem::take(&mut self.progressed).iter() {
            let incoming = self.incoming[usize::from(from)].as_ref().expect("a shard has no link to itself");
            if incoming.progress.is_awaited() && self.bells[usize::from(from)].ring(self.here) {
                wake.insert(from);
            }
        }
        wake
    }

    /// Whether some ring to here may hold items, or some spill may have found room.
    pub fn has_work(&self) -> bool {
        !self.unread.is_empty()
            || self.touched.iter().any(|to| {
                let out = self.out_ref(to);
                if out.spill.is_empty() {
                    return out.settled < out.progress.get(CONSUMED);
                }
                // Not `slots`: that needs the producer. The consumed count says as much.
                (out.pushed - out.spill.len() as u64)
                    < out.progress.get(CONSUMED) + out.ring.buffer().capacity() as u64
            })
    }

    /// Which rings to read in this turn.
    pub fn take_rung(&mut self) -> ShardSet {
        let rung = self.bell().take();
        let all = rung.union(std::mem::take(&mut self.unread)).without(self.here);
        self.unread = ShardSet::EMPTY;
        all
    }

    /// Takes at most `max` items from `from`. The reader acts on them and then calls [`Links::consumed`].
    pub fn read(&mut self, from: ShardId, max: usize, into: &mut VecDeque<T>) -> usize {
        let incoming = self.incoming[usize::from(from)].as_mut().expect("a shard has no link to itself");
        let ready = incoming.ring.slots();
        let count = ready.min(max);
        if count > 0 {
            into.extend(incoming.ring.read_chunk(count).expect("so many items are there"));
        }
        if ready > count {
            self.unread.insert(from);
        }
        count
    }

    /// The `count` items of the last [`Links::read`] were acted upon. None are no progress: whoever was rung only because a
    /// register grew must not ring back, or two shards that wait for each other never sleep.
    pub fn consumed(&mut self, from: ShardId, count: usize) {
        let incoming = self.incoming[usize::from(from)].as_mut().expect("a shard has no link to itself");
        incoming.consumed += count as u64;
        let consumed = incoming.consumed;
        if count > 0 {
            self.set_register(from, CONSUMED, consumed);
        }
    }

    /// Items from `from` that were acted upon.
    pub fn consumed_from(&self, from: ShardId) -> u64 {
        self.incoming[usize::from(from)].as_ref().map_or(0, |incoming| incoming.consumed)
    }

    /// Items in this shard's spills and in the rings that lead here.
    pub fn waiting(&self) -> usize {
        let spilled: usize = self.outgoing.iter().flatten().map(|out| out.spill.len()).sum();
        let ready: usize = self.incoming.iter().flatten().map(|incoming| incoming.ring.slots()).sum();
        spilled + ready
    }

    /// Whether everything that was pushed from here was acted upon.
    pub fn is_quiet(&self) -> bool {
        self.peers().iter().map(|to| self.out_ref(to)).all(|out| out.progress.get(CONSUMED) == out.pushed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(links: &mut Links<u32>, budget: usize) -> Vec<u32> {
        let mut got = VecDeque::new();
        for from in links.take_rung().iter() {
            let count = links.read(from, budget, &mut got);
            links.consumed(from, count);
        }
        let _ = links.flush();
        got.into()
    }

    #[test]
    fn items_keep_their_order_through_a_ring_of_two_slots() {
        let mut all = build::<u32>(2, Bounds { ring_slots: 2, spill_max: 4, bytes_max: 1000 });
        let (mut b, mut a) = (all.pop().unwrap(), all.pop().unwrap());
        let mut got = Vec::new();
        for round in 0..50u32 {
            for item in 0..(round % 5) {
                a.push(1, round * 10 + item, 1);
            }
            let _ = a.flush();
            got.extend(read_all(&mut b, (round % 3) as usize));
        }
        while !a.is_quiet() {
            let _ = a.flush();
            got.extend(read_all(&mut b, 2));
        }
        let expected: Vec<u32> =
            (0..50).flat_map(|round| (0..round % 5).map(move |item| round * 10 + item)).collect();
        assert_eq!(got, expected);
        assert_eq!(a.waiting() + b.waiting(), 0);
    }

    #[test]
    fn a_full_spill_is_announced_until_half_of_it_is_gone() {
        let mut all = build::<u32>(2, Bounds { ring_slots: 2, spill_max: 4, bytes_max: 1000 });
        let (mut b, mut a) = (all.pop().unwrap(), all.pop().unwrap());
        for item in 0..6 {
            a.push(1, item, 1);
        }
        assert!(a.full().contains(1));
        let _ = a.flush();
        assert!(a.full().contains(1), "four are spilled");
        assert_eq!(read_all(&mut b, 9), [0, 1]);
        let _ = a.flush();
        assert!(!a.full().contains(1), "two are spilled");
    }

    #[test]
    fn a_sleeper_is_woken_once_and_one_with_work_does_not_sleep() {
        let mut all = build::<u32>(2, Bounds { ring_slots: 2, spill_max: 4, bytes_max: 1000 });
        let (mut b, mut a) = (all.pop().unwrap(), all.pop().unwrap());
        assert!(b.bell().sleep());
        a.push(1, 1, 1);
        assert!(a.flush().contains(1));
        a.push(1, 2, 1);
        assert!(a.flush().is_empty(), "it was woken already");
        assert!(!b.bell().sleep(), "its inbox is not empty");
        a.await_progress(1);
        assert!(a.bell().sleep());
        let mut got = VecDeque::new();
        assert!(b.take_rung().contains(0));
        let count = b.read(0, 9, &mut got);
        b.consumed(0, count);
        assert!(b.flush().contains(0), "progress was awaited");
    }

    #[test]
    fn bytes_that_are_not_consumed_fill_a_fifo_whether_in_the_ring_or_not() {
        let bounds = Bounds { ring_slots: 8, spill_max: 4, bytes_max: 1000 };
        let mut all = build::<u32>(2, bounds);
        let (mut b, mut a) = (all.pop().unwrap(), all.pop().unwrap());
        a.push(1, 1, 600);
        a.push(1, 2, 600);
        let _ = a.flush();
        assert!(a.full().contains(1));
        assert!(!a.has_work(), "nothing to do until the peer has consumed");
        assert_eq!(read_all(&mut b, 9), [1, 2]);
        assert!(a.has_work());
        let _ = a.flush();
        assert!(!a.full().contains(1));
        assert!(!a.has_work());
    }
}
