//! The allocator: one heap for the runtime, and one for each slot's thread while it runs.
//!
//! What a request allocates goes to its slot's [`arena`], which is put back whole when the request is over. What the
//! kernel and the tables of the runtime allocate outlives requests: [`Local::with`](super::cell::Local::with) switches
//! to the runtime's heap. Where a block belongs is told by its address.

use crate::kernel::arena;
use crate::kernel::frames;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};
use dlmalloc::Dlmalloc;
use sandbox_abi::layout::PAGE;

struct Chunks;

// SAFETY: a chunk is fresh, zeroed RAM that nobody else gets; it is never given back.
unsafe impl dlmalloc::Allocator for Chunks {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        let pages = (size as u64).div_ceil(PAGE).next_multiple_of(16);
        match frames::take_adjacent(pages) {
            Some(frame) => (frame.0 as *mut u8, (pages * PAGE) as usize, 0),
            None => (core::ptr::null_mut(), 0, 0),
        }
    }
    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        core::ptr::null_mut()
    }
    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }
    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }
    fn can_release_part(&self, _: u32) -> bool {
        false
    }
    fn allocates_zeros(&self) -> bool {
        true
    }
    fn page_size(&self) -> usize {
        PAGE as usize
    }
}

struct Heap(UnsafeCell<Dlmalloc<Chunks>>);

// SAFETY: there is one virtual processor, the allocator is runtime code, and runtime code is interrupted by nothing but
// page faults in arenas and memories, none of which dlmalloc touches.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap(UnsafeCell::new(Dlmalloc::new_with_allocator(Chunks)));

/// Base of the arena that allocations go to; 0 is the runtime's heap.
static CURRENT: AtomicU64 = AtomicU64::new(0);

/// Lets allocations go to the arena at `base`, or to the runtime's heap for 0; says where they went before.
pub fn switch(base: u64) -> u64 {
    let before = CURRENT.load(Ordering::Relaxed);
    CURRENT.store(base, Ordering::Relaxed);
    before
}

impl Heap {
    /// The runtime's heap.
    #[expect(
        clippy::mut_from_ref,
        reason = "one context, and no call comes back in here"
    )]
    fn runtime(&self) -> &mut Dlmalloc<Chunks> {
        // SAFETY: as for `Sync`; the reference does not outlive the one call that it is made for.
        unsafe { &mut *self.0.get() }
    }
}

// SAFETY: dlmalloc and the arenas keep GlobalAlloc's contract.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match CURRENT.load(Ordering::Relaxed) {
            // SAFETY: the caller's layout is not empty, as GlobalAlloc demands.
            0 => unsafe { self.runtime().malloc(layout.size(), layout.align()) },
            base => arena::alloc(base, layout),
        }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match CURRENT.load(Ordering::Relaxed) {
            // SAFETY: as above.
            0 => unsafe { self.runtime().calloc(layout.size(), layout.align()) },
            base => {
                let block = arena::alloc(base, layout);
                if !block.is_null() {
                    // SAFETY: the block has so many bytes, and is ours.
                    unsafe { core::ptr::write_bytes(block, 0, layout.size()) };
                }
                block
            }
        }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match arena::of(block) {
            // SAFETY: the caller got `block` from here with this layout.
            None => unsafe { self.runtime().free(block, layout.size(), layout.align()) },
            // SAFETY: as above, and the block's address says that it is of this arena.
            Some(base) => unsafe { arena::free(base, block, layout) },
        }
    }
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match arena::of(block) {
            // SAFETY: as above, and the new size is not empty.
            None => unsafe {
                self.runtime()
                    .realloc(block, layout.size(), layout.align(), size)
            },
            // SAFETY: as above, and the block's address says that it is of this arena.
            Some(base) => unsafe { arena::resize(base, block, layout, size) },
        }
    }
}
