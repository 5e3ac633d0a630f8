//! Calls to the VMM.

use crate::kernel::boot;
use core::arch::{asm, naked_asm};
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

/// Has the VMM make RAM of at least `len` bytes, as far as the limit allows.
pub fn grow(len: u64) {
    boot::set(field::ARG0, len);
    out!(port::GROW);
}

/// Has the VMM give the guest `len` bytes of RAM at `start`, which are its own and are about to be used.
pub fn populate(start: u64, len: u64) {
    boot::set(field::ARG0, start);
    boot::set(field::ARG1, len);
    out!(port::POPULATE);
}

/// Tells the VMM that the memory may be kept as a template. Comes back in this VM, and in each one that begins with it.
pub fn template() {
    // SAFETY: an `out` of ring 3, which the VMM answers.
    unsafe { save_and_tell() }
}

/// A VM that begins behind the `out` has none of the registers: those that a call keeps are on the stack, whose pointer is
/// in the boot page.
#[unsafe(naked)]
unsafe extern "C" fn save_and_tell() {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "lea rax, [rip + 2f]",
        "mov [{entry}], rax",
        "mov [{stack}], rsp",
        "out {port}, al",
        "2:",
        "cld",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
        entry = const sandbox_abi::layout::BOOT + field::RESUME_ENTRY,
        stack = const sandbox_abi::layout::BOOT + field::RESUME_STACK,
        port = const port::TEMPLATE,
    )
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
