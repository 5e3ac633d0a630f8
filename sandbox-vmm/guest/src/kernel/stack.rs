//! Stacks of threads, each between two guard pages. They are kept for the next thread.

use crate::kernel::cell::Local;
use crate::kernel::frames;
use crate::kernel::paging::{self, NO_EXECUTE, PRESENT, WRITE};
use alloc::vec::Vec;
use sandbox_abi::layout::{LARGE_PAGE, PAGE};

/// Bytes that wasm may use; `wasmtime serve` gives half of it.
pub const WASM: u64 = 1 << 20;
/// Bytes for the runtime below wasm: host functions and fault handling run on the same stack.
const HOST: u64 = 256 << 10;
/// Bytes of a stack.
pub const SIZE: u64 = WASM + HOST;
/// Bytes that have frames from the start; the rest gets them when it is touched.
const EAGER: u64 = 64 << 10;
const BASE: u64 = 0x0800_0000_0000;
/// From one stack to the next: the gap is the guard.
const STRIDE: u64 = LARGE_PAGE;
/// Most stacks.
pub const MAX: u64 = 2048;

const _: () = assert!(SIZE + 2 * PAGE <= STRIDE);

/// A stack; its top is what a thread starts with.
#[derive(Debug)]
pub struct Stack(u64);

struct Pool {
    free: Vec<Stack>,
    made: u64,
}

static POOL: Local<Pool> = Local::new(Pool {
    free: Vec::new(),
    made: 0,
});

impl Stack {
    /// A stack; `None` if there are too many or no memory is left.
    pub fn take() -> Option<Stack> {
        POOL.with(|p| {
            if let Some(stack) = p.free.pop() {
                return Some(stack);
            }
            if p.made == MAX {
                return None;
            }
            let top = BASE + p.made * STRIDE + PAGE + SIZE;
            let mut page = top - EAGER;
            while page < top {
                map(page)?;
                page += PAGE;
            }
            p.made += 1;
            Some(Stack(top))
        })
    }

    /// The end of it, where the stack pointer starts.
    pub fn top(&self) -> u64 {
        self.0
    }

    /// For the next thread.
    pub fn give(self) {
        POOL.with(|p| p.free.push(self));
    }
}

fn map(page: u64) -> Option<()> {
    let frame = frames::take_system()?;
    paging::set(page, frame.0 | PRESENT | WRITE | NO_EXECUTE).ok()
}

/// Deals with a page fault at `va`: `true` if it was a stack's page that had no frame yet.
pub fn fault(va: u64) -> bool {
    let Some(offset) = va.checked_sub(BASE) else {
        return false;
    };
    let within = offset % STRIDE;
    let made = POOL.with(|p| p.made);
    if offset / STRIDE >= made || !(PAGE..PAGE + SIZE).contains(&within) {
        return false;
    }
    let page = va & !(PAGE - 1);
    paging::lookup(page) & PRESENT == PRESENT || map(page).is_some()
}
