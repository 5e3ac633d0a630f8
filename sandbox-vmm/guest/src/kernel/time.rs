//! Clocks, from the time stamp counter: no exit to read one.

use crate::kernel::cell::Local;
use crate::kernel::{boot, port};
use sandbox_abi::boot::field;

struct Clock {
    /// Nanoseconds of a tick, times 2^32.
    scale: u64,
    start: u64,
    /// Wall clock, nanoseconds since 1970, at the counter value beside it.
    wall: u64,
    wall_at: u64,
}

static CLOCK: Local<Clock> = Local::new(Clock {
    scale: 0,
    start: 0,
    wall: 0,
    wall_at: 0,
});

/// After so long the host's clock is asked again, as it may have been set.
const RESYNC_NS: u64 = 1_000_000_000;

fn tsc() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and ring 3 may use it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

fn scaled(ticks: u64, scale: u64) -> u64 {
    ((u128::from(ticks) * u128::from(scale)) >> 32) as u64
}

/// Starts the clocks.
pub fn init() {
    let khz = boot::get(field::TSC_KHZ).max(1);
    CLOCK.with(|c| {
        c.scale = ((1_000_000_u128 << 32) / u128::from(khz)) as u64;
        c.start = tsc();
    });
    synchronise();
}

/// Nanoseconds since boot.
pub fn monotonic_ns() -> u64 {
    CLOCK.with(|c| scaled(tsc().wrapping_sub(c.start), c.scale))
}

/// Nanoseconds that this processor has run, from some moment on: time that others had the host's is left out.
pub fn processor_ns() -> u64 {
    monotonic_ns().wrapping_sub(boot::get(field::STEAL))
}

/// Nanoseconds that this processor has run since it showed `then`. The account of what others had may begin with more than
/// there was of this VM's time, so the clock may stand before its zero.
pub fn processor_ns_since(then: u64) -> u64 {
    u64::try_from(processor_ns().wrapping_sub(then).cast_signed()).unwrap_or(0)
}

/// Takes over the wall clock that the VMM has just written.
pub fn synchronise() {
    CLOCK.with(|c| {
        c.wall = boot::get(field::WALL_NS);
        c.wall_at = tsc();
    });
}

/// Seconds since 1970 and nanoseconds of the second.
pub fn wall_clock() -> (u64, u32) {
    let since = CLOCK.with(|c| scaled(tsc().wrapping_sub(c.wall_at), c.scale));
    if since > RESYNC_NS {
        port::clock();
        synchronise();
    }
    let ns = CLOCK.with(|c| c.wall + scaled(tsc().wrapping_sub(c.wall_at), c.scale));
    (ns / 1_000_000_000, (ns % 1_000_000_000) as u32)
}
