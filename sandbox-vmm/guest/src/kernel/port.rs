//! Calls to the VMM.

use crate::kernel::boot;
use core::arch::asm;
use sandbox_abi::boot::field;
use sandbox_abi::port;

macro_rules! out {
    ($port:expr) => {
        // SAFETY: ring 3 may write ports (IOPL 3); the VMM answers by reading and writing the boot page alone.
        unsafe { asm!("out {port}, al", port = const $port, in("al") 0_u8, options(nostack)) }
    };
}

/// Sleeps until the router wakes the guest, or for `ns` nanoseconds.
pub fn sleep(ns: u64) {
    boot::set(field::ARG0, ns);
    out!(port::SLEEP);
}

/// Wakes the router.
pub fn doorbell() {
    out!(port::DOORBELL);
}

/// Has the VMM write the wall clock.
pub fn clock() {
    out!(port::CLOCK);
}

/// Has the processor forget all translations.
pub fn flush() {
    out!(port::FLUSH);
}

/// A line for the operator. The text must lie in directly mapped memory, as all of the guest's own does.
pub fn debug(line: &str) {
    boot::set(field::ARG0, line.as_ptr() as u64);
    boot::set(field::ARG1, line.len() as u64);
    out!(port::DEBUG);
}

/// The end of the VM.
pub fn fatal(reason: u64) -> ! {
    loop {
        boot::set(field::ARG0, reason);
        out!(port::FATAL);
    }
}
