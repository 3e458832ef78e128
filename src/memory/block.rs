//! A head and bytes in one allocation that several owners share.
//!
//! What `Arc` does, but for two things: head and bytes lie together behind a pointer of one word, and memory that nobody
//! else owns any more ([`Only`]) takes another head and other bytes. There are no weak references, so an owner that
//! counts one owner is alone and stays so: nobody can reach the memory, and so nobody can begin to share it. `tests/loom` explores
//! every interleaving of owners that let go.
#![allow(unsafe_code)] // Memory that is freed by the last of its owners.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr::NonNull;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicUsize, Ordering, fence};

#[cfg(loom)]
use loom::sync::atomic::{AtomicUsize, Ordering, fence};

/// An owner of a block.
pub(super) struct Block<H>(NonNull<Front<H>>);

/// Memory for a block that nobody shares.
pub(super) struct Only<H>(Block<H>);

/// What the bytes follow.
#[repr(C)]
struct Front<H> {
    owners: AtomicUsize,
    /// Bytes of the allocation.
    size: u32,
    /// Bytes that were written behind the front.
    len: u32,
    head: H,
}

// SAFETY: who gets an owner on another thread reads the head there (`H: Sync`), and drops it there if it is the last owner
// (`H: Send`). The count is atomic, and the bytes are not written while there is more than one owner.
unsafe impl<H: Send + Sync> Send for Block<H> {}
// SAFETY: through a shared `Block` another thread reads head and bytes, and can make itself an owner by cloning; so it needs
// of `H` what a `Block` that is sent needs.
unsafe impl<H: Send + Sync> Sync for Block<H> {}

impl<H> Block<H> {
    /// Bytes of a block beside those that are stored.
    pub(super) const FRONT: usize = size_of::<Front<H>>();

    /// A new block of `size` bytes, [`Block::FRONT`] and `pieces` included.
    pub(super) fn new(size: usize, head: H, pieces: [&[u8]; 3]) -> Block<H> {
        let layout = Self::layout(size);
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc(layout) }.cast::<Front<H>>();
        let Some(front) = NonNull::new(memory) else { handle_alloc_error(layout) };
        let owners = AtomicUsize::new(1);
        // SAFETY: the memory is new, aligned, and has room for the front.
        unsafe { front.write(Front { owners, size: size as u32, len: 0, head }) };
        let mut only = Only(Block(front));
        only.write(pieces);
        only.0
    }

    fn layout(size: usize) -> Layout {
        assert!(size >= Self::FRONT && size <= u32::MAX as usize, "a block of {size} bytes");
        Layout::from_size_align(size, align_of::<Front<H>>()).expect("within what was just checked")
    }

    #[inline]
    fn front(&self) -> &Front<H> {
        // SAFETY: initialised in `new`, and not freed while it has an owner. Nobody has it mutably: that takes `Only`.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    pub(super) fn head(&self) -> &H {
        &self.front().head
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        let len = self.front().len as usize;
        // SAFETY: so many bytes behind the front were written. They are written by `Only::write` alone, which borrows the only owner
        // mutably, so not while this borrow of an owner lasts.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast::<u8>().add(Self::FRONT), len) }
    }

    /// Bytes of the allocation.
    #[inline]
    pub(super) fn size(&self) -> usize {
        self.front().size as usize
    }

    /// The memory, if nobody else owns it.
    #[inline]
    pub(super) fn into_only(self) -> Option<Only<H>> {
        // What other owners did happened before they let go: Acquire.
        if self.front().owners.load(Ordering::Acquire) == 1 { Some(Only(self)) } else { None }
    }
}

impl<H> Only<H> {
    /// Puts another head and other bytes there.
    #[inline]
    pub(super) fn put(mut self, head: H, pieces: [&[u8]; 3]) -> Block<H> {
        *self.head_mut() = head;
        self.write(pieces);
        self.0
    }

    /// Writes the bytes.
    #[inline]
    fn write(&mut self, pieces: [&[u8]; 3]) {
        let front = self.0.0.as_ptr();
        // SAFETY: the front is initialised, and an `Only` is its only owner.
        let (room, len) = unsafe { ((*front).size as usize - Block::<H>::FRONT, &mut (*front).len) };
        *len = 0;
        for piece in pieces {
            if piece.is_empty() {
                continue;
            }
            assert!(piece.len() <= room - *len as usize, "more bytes than the block has room for");
            // SAFETY: `len` bytes are written and `piece` still fits, so the target is within the allocation; it is not
            // within `piece`, which cannot be borrowed from a block that nobody else owns while this borrows it mutably.
            unsafe {
                let bytes = front.cast::<u8>().add(Block::<H>::FRONT + *len as usize);
                bytes.copy_from_nonoverlapping(piece.as_ptr(), piece.len());
            }
            *len += piece.len() as u32;
        }
    }

    #[inline]
    pub(super) fn head_mut(&mut self) -> &mut H {
        // SAFETY: this is the only owner, and it is borrowed mutably.
        unsafe { &mut (*self.0.0.as_ptr()).head }
    }

    #[inline]
    pub(super) fn size(&self) -> usize {
        self.0.size()
    }
}

impl<H> Clone for Block<H> {
    #[inline]
    fn clone(&self) -> Block<H> {
        // Nothing that is done with the memory depends on the order of this: who clones owns it already.
        let owners = self.front().owners.fetch_add(1, Ordering::Relaxed);
        if owners > isize::MAX as usize {
            std::process::abort(); // Owners that were leaked; another one might make the count wrap.
        }
        Block(self.0)
    }
}

impl<H> Drop for Block<H> {
    #[inline]
    fn drop(&mut self) {
        let owners = &self.front().owners;
        // The only owner needs no locked operation to find that out, and is ordered by the fence as well.
        if owners.load(Ordering::Relaxed) != 1 && owners.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire); // What other owners did happened before they let go.
        let size = self.size();
        // SAFETY: the last owner: nobody reaches the memory from now on. It was allocated with this layout.
        unsafe {
            std::ptr::drop_in_place(&raw mut (*self.0.as_ptr()).head);
            dealloc(self.0.as_ptr().cast(), Self::layout(size));
        }
    }
}

impl<H: fmt::Debug> fmt::Debug for Block<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block").field("head", self.head()).field("len", &self.bytes().len()).finish()
    }
}

impl<H: fmt::Debug> fmt::Debug for Only<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A head whose end is seen.
    type Witness = Arc<()>;

    #[test]
    fn bytes_and_head_live_until_the_last_owner_lets_go_whichever_thread_it_is_on() {
        let witness = Witness::default();
        for round in 0..200_usize {
            let head = (witness.clone(), round);
            let size = Block::<(Witness, usize)>::FRONT + 9;
            let block = Block::new(size, head, [b"one", b"", b"three!"]);
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    let block = block.clone();
                    std::thread::spawn(move || {
                        let again = block.clone();
                        drop(block);
                        assert_eq!((again.bytes(), again.head().1), (&b"onethree!"[..], round));
                        again.into_only().is_some()
                    })
                })
                .collect();
            drop(block);
            let alone: usize = threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum();
            assert!(alone <= 1, "one of them at most was the only owner");
            assert_eq!(Arc::strong_count(&witness), 1, "each head is dropped once");
        }
    }

    #[test]
    fn memory_that_somebody_else_owns_is_not_used_again() {
        let witness = Witness::default();
        let block = Block::new(128, witness.clone(), [b"a", b"b", b"c"]);
        let other = block.clone();
        assert!(block.into_only().is_none());
        assert_eq!(other.bytes(), b"abc");
        let only = other.into_only().expect("nobody else has it any more");
        assert_eq!(only.size(), 128);
        let block = only.put(witness.clone(), [b"", b"other", b""]);
        assert_eq!((block.bytes(), Arc::strong_count(&witness)), (&b"other"[..], 2));
    }

    #[test]
    #[should_panic(expected = "more bytes than the block has room for")]
    fn no_more_is_written_than_there_is_room_for() {
        Block::new(Block::<u64>::FRONT + 4, 0_u64, [b"abc", b"de", b""]);
    }
}
