//! Arenas: the heap of one slot, made for being put back to an earlier state by copying a few pages.
//!
//! Blocks have size classes, each with a list of free ones; new ones are cut off the end. All that the allocator knows
//! stands in the arena's first page, so that it is put back with the rest. Once an arena is [sealed](seal), new blocks
//! come from pages behind what it held then: the pages that a request dirties are those of what it changes, not those
//! of what it allocates.

use crate::kernel::space;
use core::alloc::Layout;
use sandbox_abi::layout::PAGE;

/// Where arenas begin.
pub const BASE: u64 = 0x0c00_0000_0000;
/// From one arena to the next, and the most bytes of one.
pub const STRIDE: u64 = 2 << 30;
/// Most arenas.
pub const MAX: u64 = 2048;
const END: u64 = BASE + MAX * STRIDE;
/// Pages that an arena grows by.
const STEP: u64 = 16 * PAGE;
/// Classes of 16, 32, 48 and 64 bytes, then four for each doubling.
const CLASSES: usize = 4 + 4 * 26;
/// Blocks are aligned to this.
const ALIGN: usize = 16;
/// Largest block; more is refused.
const LARGEST: usize = 1 << 30;

#[repr(C)]
struct Header {
    /// First byte that was never given out.
    next: u64,
    /// End of what has frames.
    end: u64,
    /// First free block of each class, 0 for none; a free block's first word is the next one.
    free: [u64; CLASSES],
}

const _: () = assert!(size_of::<Header>() <= PAGE as usize);

/// The class of a size, and the bytes of its blocks.
fn class(size: usize) -> (usize, usize) {
    if size <= 64 {
        let blocks = size.div_ceil(ALIGN).max(1);
        return (blocks - 1, blocks * ALIGN);
    }
    let last = size - 1;
    let top = last.ilog2() as usize;
    let quarter = (last >> (top - 2)) & 3;
    (
        4 + (top - 6) * 4 + quarter,
        (1 << top) + ((quarter + 1) << (top - 2)),
    )
}

/// The arena that a block lies in.
pub fn of(block: *mut u8) -> Option<u64> {
    let address = block.addr() as u64;
    (BASE..END)
        .contains(&address)
        .then_some(address & !(STRIDE - 1))
}

/// The number of the arena at `base`.
pub fn number(base: u64) -> usize {
    ((base - BASE) / STRIDE) as usize
}

/// The address of an arena.
pub fn base(number: usize) -> u64 {
    BASE + number as u64 * STRIDE
}

fn header<'a>(base: u64) -> &'a mut Header {
    // SAFETY: `create` mapped and wrote the first page of the arena, and it stays mapped; arenas are used by runtime code
    // alone, which nothing interrupts in here but page faults in this very memory, which touch no header.
    unsafe { &mut *(base as *mut Header) }
}

/// Writes the header of an arena whose first step has frames.
pub fn create(base: u64) {
    // SAFETY: the caller has had the page mapped, and nobody uses it.
    unsafe {
        (base as *mut Header).write(Header {
            next: base + PAGE,
            end: base + STEP,
            free: [0; CLASSES],
        });
    }
}

/// Bytes that an arena has frames for when it is made.
pub const FIRST: u64 = STEP;

/// Cuts `size` bytes off the end, aligned to `align`.
fn cut(base: u64, size: usize, align: usize) -> *mut u8 {
    let h = header(base);
    let start = h.next.next_multiple_of(align as u64);
    let end = start + size as u64;
    if end > h.end {
        let to = end.next_multiple_of(STEP);
        if to > base + STRIDE || !space::extend(number(base), to - base) {
            return core::ptr::null_mut();
        }
        h.end = to;
    }
    h.next = end;
    start as *mut u8
}

/// A block; null where there is no memory for it.
pub fn alloc(base: u64, layout: Layout) -> *mut u8 {
    if layout.size() > LARGEST {
        return core::ptr::null_mut();
    }
    let (class, size) = class(layout.size());
    if layout.align() > ALIGN {
        return cut(base, size, layout.align());
    }
    let h = header(base);
    let block = h.free[class];
    if block == 0 {
        return cut(base, size, ALIGN);
    }
    // SAFETY: a free block of this arena, whose first word `free` wrote.
    h.free[class] = unsafe { *(block as *const u64) };
    block as *mut u8
}

/// Takes a block back. One with a larger alignment than most is only used again after the arena was put back.
///
/// # Safety
/// `block` came from the arena at `base` with this layout, and nobody uses it any more.
pub unsafe fn free(base: u64, block: *mut u8, layout: Layout) {
    if layout.align() > ALIGN {
        return;
    }
    let (class, _) = class(layout.size());
    let h = header(base);
    // SAFETY: the block is ours again, and has at least 16 bytes.
    unsafe { *block.cast::<u64>() = h.free[class] };
    h.free[class] = block.addr() as u64;
}

/// Makes a block larger or smaller, where it stands if that is possible.
///
/// # Safety
/// `block` came from the arena at `base` with this layout, and nobody uses it any more but by what is returned.
pub unsafe fn resize(base: u64, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
    let (old_class, old) = class(layout.size());
    let (new_class, new) = class(size.min(LARGEST));
    if old_class == new_class && size <= LARGEST {
        return block;
    }
    let h = header(base);
    if size <= LARGEST && block.addr() as u64 + old as u64 == h.next {
        let end = block.addr() as u64 + new as u64;
        if end <= h.end {
            h.next = end;
            return block;
        }
    }
    let Ok(wanted) = Layout::from_size_align(size, layout.align()) else {
        return core::ptr::null_mut();
    };
    let moved = alloc(base, wanted);
    if !moved.is_null() {
        // SAFETY: both blocks have the lesser of the two sizes, and they are different blocks.
        unsafe { core::ptr::copy_nonoverlapping(block, moved, layout.size().min(size)) };
        // SAFETY: the caller gives the block up, and its content has moved.
        unsafe { free(base, block, layout) };
    }
    moved
}

/// Bytes of the arena at `base` that were given out.
pub fn size(base: u64) -> u64 {
    header(base).next - base
}

/// Lets new blocks come from fresh pages; says how many bytes the arena holds until then.
pub fn seal(base: u64) -> u64 {
    let h = header(base);
    h.next = h.next.next_multiple_of(PAGE);
    h.free = [0; CLASSES];
    h.next - base
}
