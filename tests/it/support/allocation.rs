//! How much memory some work takes, counted where it is asked for.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// What this thread holds beyond what it held at first, and the most of it; counted while somebody asks.
    static HELD: Cell<(bool, isize, isize)> = const { Cell::new((false, 0, 0)) };
}

fn count(bytes: isize) {
    // a thread that ends has no place to count any more
    let _ = HELD.try_with(|held| {
        let (true, now, most) = held.get() else { return };
        held.set((true, now + bytes, most.max(now + bytes)));
    });
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

// SAFETY: the system's allocator does the work; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: as the caller promised
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-signed(layout.size()));
        // SAFETY: as the caller promised
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: as the caller promised
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(signed(size) - signed(layout.size()));
        // SAFETY: as the caller promised
        unsafe { System.realloc(place, layout, size) }
    }
}

/// What the work gives, and the most bytes that it held at once, in this thread.
pub fn most_held<T>(work: impl FnOnce() -> T) -> (T, usize) {
    HELD.set((true, 0, 0));
    let done = work();
    let (_, _, most) = HELD.replace((false, 0, 0));
    (done, usize::try_from(most).unwrap_or(0))
}
