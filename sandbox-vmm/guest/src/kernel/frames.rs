//! Physical memory, by page.
//!
//! Frames come from the bottom of RAM upwards and go to a list when they are given back. All RAM is mapped one to one,
//! so that a frame's address is also the pointer to it.

use crate::kernel::boot;
use crate::kernel::cell::Local;
use sandbox_abi::boot::field;
use sandbox_abi::layout::{PAGE, RAM};

/// The address of a physical page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame(pub u64);

struct Frames {
    /// First page that was never taken.
    next: u64,
    /// End of the RAM that is there.
    end: u64,
    /// End of the RAM that there may be.
    limit: u64,
    /// First of the free frames; each holds the address of the next.
    free: u64,
    count: u64,
}

static FRAMES: Local<Frames> = Local::new(Frames {
    next: 0,
    end: 0,
    limit: 0,
    free: 0,
    count: 0,
});

/// Frames that only the runtime may have: a wasm program that eats all memory must not take the runtime down.
const RESERVE: u64 = 512;
/// So many pages cost more, touched one by one, than a call of the VMM.
const MANY: u64 = 16;
/// Pages that are left for page tables when more RAM has to be mapped.
const RESERVE_TABLES: u64 = 4;
/// Most bytes that are asked for beyond what is needed.
const MOST_MORE: u64 = 256 << 20;
/// Bytes at the start of RAM that are the scheduler's stack.
const FIRST_STACK: u64 = 1 << 20;

/// Starts with all of RAM but the first stack.
pub fn init() {
    FRAMES.with(|f| {
        f.next = RAM + FIRST_STACK;
        f.end = RAM + boot::get(field::RAM_LEN);
    });
    set_limit();
}

/// How much RAM there may be is a matter of the deployment, and not of the template.
pub fn set_limit() {
    FRAMES.with(|f| f.limit = RAM + boot::get(field::RAM_LIMIT));
}

/// Frames that are left.
pub fn left() -> u64 {
    FRAMES.with(|f| f.count + f.limit.saturating_sub(f.next) / PAGE)
}

/// Sees to it that `pages` pages behind those that were taken are there, as far as the limit allows.
pub fn provide(pages: u64) {
    let want = FRAMES.with(|f| {
        let need = f.next + (pages + RESERVE_TABLES) * PAGE;
        // As much as there is, again: the VMM is asked a few times in a VM's life.
        let more = need.max(f.end + (f.end - RAM).min(MOST_MORE)).min(f.limit);
        (need > f.end && f.end < f.limit).then_some(more)
    });
    let Some(want) = want else { return };
    crate::kernel::port::grow(want - RAM);
    let end = RAM + boot::get(field::RAM_LEN);
    let start = FRAMES.with(|f| {
        let start = f.end;
        f.end = end.max(start);
        start
    });
    if crate::kernel::paging::map_ram(start, end).is_err() {
        FRAMES.with(|f| f.end = start);
    }
}

/// Whom a page is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The runtime itself: page tables, stacks, arenas.
    Runtime,
    /// wasm memory, which leaves the runtime its reserve.
    Wasm,
}

/// A page, of zeroes or with any content. `None` when there are none for this purpose.
pub fn take(purpose: Purpose, zeroed: bool) -> Option<Frame> {
    if purpose == Purpose::Wasm && left() <= RESERVE {
        return None;
    }
    if FRAMES.with(|f| f.free == 0) {
        provide(1);
    }
    let (frame, dirty) = FRAMES.with(|f| {
        if f.free != 0 {
            let frame = f.free;
            // SAFETY: `frame` is a free page of RAM, mapped one to one; `give` wrote the link.
            f.free = unsafe { *(frame as *const u64) };
            f.count -= 1;
            Some((Frame(frame), true))
        } else if f.next < f.end {
            f.next += PAGE;
            Some((Frame(f.next - PAGE), false))
        } else {
            None
        }
    })?;
    if dirty && zeroed {
        zero(frame);
    }
    Some(frame)
}

/// Readies the pages that the next `n` calls of [`take`] will give, beyond those that were used before, if they are many.
pub fn expect(n: u64) {
    provide(n);
    let (start, end) = FRAMES.with(|f| {
        let fresh = n.saturating_sub(f.count);
        (f.next, (f.next + fresh * PAGE).min(f.end))
    });
    if end.saturating_sub(start) >= MANY * PAGE {
        crate::kernel::port::populate(start, end - start);
    }
}

/// A zeroed page for the runtime itself.
pub fn take_system() -> Option<Frame> {
    take(Purpose::Runtime, true)
}

/// `n` adjacent zeroed pages for the heap. Never given back.
pub fn take_adjacent(n: u64) -> Option<Frame> {
    provide(n);
    FRAMES.with(|f| {
        let start = f.next;
        let end = start.checked_add(n * PAGE)?;
        if end > f.end {
            return None;
        }
        f.next = end;
        Some(Frame(start))
    })
}

/// Gives a page back. No translation to it may be left, nor be cached.
pub fn give(frame: Frame) {
    FRAMES.with(|f| {
        // SAFETY: the caller owned the page, and it is mapped one to one.
        unsafe { *(frame.0 as *mut u64) = f.free };
        f.free = frame.0;
        f.count += 1;
    });
}

/// Fills a page with zeroes.
pub fn zero(frame: Frame) {
    // SAFETY: the caller owns the page, and it is mapped one to one.
    unsafe { core::ptr::write_bytes(frame.0 as *mut u8, 0, PAGE as usize) }
}

/// Copies the page at `from` into a frame.
pub fn copy(frame: Frame, from: Frame) {
    // SAFETY: the caller owns the frame; `from` is a page of the artifact or a frame that is frozen: both are mapped one to
    // one, and nobody writes them.
    unsafe {
        core::ptr::copy_nonoverlapping(from.0 as *const u8, frame.0 as *mut u8, PAGE as usize)
    }
}
