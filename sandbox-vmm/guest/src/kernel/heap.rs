//! The heap: dlmalloc over chunks of RAM.

use crate::kernel::cell::Local;
use crate::kernel::frames;
use core::alloc::{GlobalAlloc, Layout};
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

struct Heap(Local<Dlmalloc<Chunks>>);

#[global_allocator]
static HEAP: Heap = Heap(Local::new(Dlmalloc::new_with_allocator(Chunks)));

// SAFETY: dlmalloc keeps GlobalAlloc's contract; `Local` keeps it to one context at a time.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout is not empty, as GlobalAlloc demands.
        self.0
            .with(|h| unsafe { h.malloc(layout.size(), layout.align()) })
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        self.0
            .with(|h| unsafe { h.calloc(layout.size(), layout.align()) })
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller got `pointer` from here with this layout.
        self.0
            .with(|h| unsafe { h.free(pointer, layout.size(), layout.align()) })
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above, and the new size is not empty.
        self.0
            .with(|h| unsafe { h.realloc(pointer, layout.size(), layout.align(), size) })
    }
}
