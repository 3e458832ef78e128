//! mimalloc with a count of allocations for each thread, for measurements (feature `count-allocations`).
//!
//! Not part of an ordinary build. A thread reads its own count only, so counting needs no atomic operation.
#![allow(unsafe_code)] // An allocator is an unsafe trait.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

use mimalloc::MiMalloc;

/// mimalloc, counted.
#[derive(Debug)]
pub struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Allocations and reallocations of this thread so far.
pub fn allocations() -> u64 {
    ALLOCATIONS.get()
}

fn count() {
    // A thread that is being torn down has no cell any more, and nobody to read it.
    let _ = ALLOCATIONS.try_with(|cell| cell.set(cell.get() + 1));
}

// SAFETY: every call is handed to mimalloc with its arguments unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    /// # Safety
    /// `layout` is not of size 0.
    // SAFETY: mimalloc returns null or memory of that layout that nobody else has.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: `layout` is not of size 0, as the caller promised.
        unsafe { MiMalloc.alloc(layout) }
    }

    /// # Safety
    /// `at` came from this allocator with this `layout`, and is not used any more.
    // SAFETY: the memory goes back to mimalloc, where it came from.
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from there, since everything is handed on, with this `layout`, and is not used any more.
        unsafe { MiMalloc.dealloc(at, layout) }
    }

    /// # Safety
    /// `layout` is not of size 0.
    // SAFETY: mimalloc returns null or zeroed memory of that layout that nobody else has.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: `layout` is not of size 0, as the caller promised.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    /// # Safety
    /// `at` came from this allocator with this `layout`, is used from now on only as it is returned, and `size` is not 0 and no
    /// more than `isize::MAX` when rounded up to the alignment.
    // SAFETY: mimalloc keeps the bytes up to the smaller size, and `at` where it returns null.
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: `at` came from there, since everything is handed on, with this `layout`, and `size` is in the bounds that
        // the caller promised.
        unsafe { MiMalloc.realloc(at, layout, size) }
    }
}
