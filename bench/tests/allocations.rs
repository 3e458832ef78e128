//! A warm turn allocates nothing: counted by an allocator of this test's own, within the turns of a shard and nowhere else.
#![allow(unsafe_code)] // An allocator is an unsafe trait.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bench::{Meter, Operation, Scale};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<u64> = const { Cell::new(0) };
}

fn count(bytes: usize) {
    // A thread that is being torn down has no cells any more, and nobody to read them.
    let _ = ALLOCATIONS.try_with(|cell| cell.set(cell.get() + 1));
    let _ = BYTES.try_with(|cell| cell.set(cell.get() + bytes as u64));
}

// SAFETY: every call is handed to the system's allocator with its arguments unchanged; counting neither allocates nor
// unwinds.
unsafe impl GlobalAlloc for Counting {
    /// # Safety
    /// `layout` is not of size 0.
    // SAFETY: the system returns null or memory of that layout that nobody else has.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: `layout` is not of size 0, as the caller promised.
        unsafe { System.alloc(layout) }
    }

    /// # Safety
    /// `at` came from this allocator with this `layout`, and is not used any more.
    // SAFETY: the memory goes back to the system, where it came from.
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from there, since everything is handed on, with this `layout`, and is not used any more.
        unsafe { System.dealloc(at, layout) }
    }

    /// # Safety
    /// `at` came from this allocator with this `layout`, is used from now on only as it is returned, and `size` is not 0 and no
    /// more than `isize::MAX` when rounded up to the alignment.
    // SAFETY: the system keeps the bytes up to the smaller size, and `at` where it returns null.
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: `at` came from there, since everything is handed on, with this `layout`, and `size` is in the bounds that
        // the caller promised.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Steps until tables and buffers have the size that they keep, and steps that are counted.
const WARM: usize = 50;
const STEPS: u64 = 100;

/// Allocations per message or delivery in warm turns.
fn allocations(name: &str) -> f64 {
    in_warm_turns(name, || ALLOCATIONS.get())
}

/// How much `number` grows per message or delivery in warm turns.
fn in_warm_turns(name: &str, number: fn() -> u64) -> f64 {
    let mut prepared = Operation::find(name).expect(name).prepare(Scale::Tiny);
    let mut meter = Meter::default();
    (0..WARM).for_each(|_| prepared.step(&mut meter));
    meter.watch(number);
    (0..STEPS).for_each(|_| prepared.step(&mut meter));
    meter.watched() as f64 / (STEPS * prepared.units) as f64
}

#[test]
fn a_warm_turn_allocates_nothing() {
    for name in [
        "turn/single",
        "turn/p2p-qos0",
        "turn/p2p-qos1",
        "turn/fan-in",
        "turn/fan-out",
        "turn/fan-out-qos1",
        "shards/63-idle-peers",
    ] {
        assert_eq!(allocations(name), 0.0, "{name}");
    }
}

/// A message that other shards get is a block of memory that the last of them frees, so it is a new one each time. Nothing
/// else of its way allocates.
#[test]
fn a_message_to_another_shard_takes_its_own_memory_and_no_more() {
    for (name, max) in
        [("shards/cross-qos0", 1.0), ("shards/cross-qos1", 1.0), ("shards/fan-out", 1.0 / 100.0)]
    {
        let found = allocations(name);
        assert!(found <= max, "{name}: {found}");
    }
}

/// It comes in several receives, is gathered in memory that is large enough from the first one on, and is kept there.
#[test]
fn a_large_message_takes_the_memory_of_one_and_no_more() {
    let bytes = in_warm_turns("turn/p2p-16k", || BYTES.get());
    assert!((16384.0..1.1 * 16384.0).contains(&bytes), "{bytes} bytes");
}
