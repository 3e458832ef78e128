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
    /// That of `GlobalAlloc::alloc`, which is handed on as it is.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the rules of `GlobalAlloc::alloc`.
        unsafe { MiMalloc.alloc(layout) }
    }

    /// # Safety
    /// That of `GlobalAlloc::dealloc`, which is handed on as it is.
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the rules of `GlobalAlloc::dealloc`.
        unsafe { MiMalloc.dealloc(at, layout) }
    }

    /// # Safety
    /// That of `GlobalAlloc::alloc_zeroed`, which is handed on as it is.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the rules of `GlobalAlloc::alloc_zeroed`.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    /// # Safety
    /// That of `GlobalAlloc::realloc`, which is handed on as it is.
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the rules of `GlobalAlloc::realloc`.
        unsafe { MiMalloc.realloc(at, layout, size) }
    }
}
