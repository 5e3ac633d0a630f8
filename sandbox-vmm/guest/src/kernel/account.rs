//! Processor time of requests.

use crate::kernel::{sched, time};

/// Starts counting for the running thread, with no limit.
pub fn begin_request() {
    sched::account(|a| {
        *a = sched::Account {
            turn_ns: time::processor_ns(),
            ..Default::default()
        }
    });
}

/// Nanoseconds of processor time that the running thread has used.
pub fn cpu_ns() -> u64 {
    sched::account(|a| a.used_ns + time::processor_ns_since(a.turn_ns))
}

/// Limits it.
pub fn set_cpu_limit(ns: u64) {
    sched::account(|a| a.limit_ns = Some(ns));
}

/// Whether the running thread is over its limit. Then, too, the outcome is set.
pub fn over() -> bool {
    let used = cpu_ns();
    sched::account(|a| {
        // Once ended, whatever for, it stays ended, even if somebody sets another limit.
        let over = a.outcome.is_some() || a.limit_ns.is_some_and(|limit| used > limit);
        if over {
            a.outcome.get_or_insert(sandbox_abi::message::outcome::CPU);
        }
        over
    })
}

/// The running thread's wasm has to end, for this reason (one of `sandbox_abi::message::outcome`).
pub fn end(outcome: u32) {
    sched::account(|a| a.outcome = Some(outcome));
}

/// Why the kernel ended the running thread's wasm, if it did.
pub fn outcome() -> Option<u32> {
    sched::account(|a| a.outcome)
}
