//! What an operating system would do for wasmtime: memory, faults, threads, time, rings.
//!
//! There is one virtual processor. Runtime code is never interrupted; only wasm code is, and only to switch threads
//! ([`trap`]). That is why nothing here needs a lock.

pub mod account;
pub mod arena;
pub mod boot;
pub mod cell;
pub mod debug;
pub mod expected;
pub mod frames;
pub mod heap;
mod mem;
pub mod paging;
pub mod port;
pub mod preempt;
pub mod random;
pub mod rings;
pub mod sched;
pub mod space;
pub mod stack;
pub mod time;
pub mod trap;

/// Starts all of it, in the order in which they need each other.
pub fn init() {
    trap::init();
    frames::init();
    if paging::init().is_err() {
        fatal_memory();
    }
    space::init();
    rings::init();
    resume();
}

/// Starts what is of this VM and not of its template: clocks, randomness, the limit of RAM.
fn resume() {
    frames::set_limit();
    time::init();
    random::init();
}

/// Lets the VMM keep the memory as it is now. Comes back in this VM, and in each one that begins with that.
pub fn leave_to_others() {
    preempt::forget();
    port::template();
    resume();
}

/// The VM cannot go on without memory for its own runtime.
pub fn fatal_memory() -> ! {
    port::fatal(sandbox_abi::port::fatal::MEMORY)
}
