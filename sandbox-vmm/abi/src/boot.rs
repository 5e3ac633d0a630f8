//! The boot page: how the VMM and the guest runtime greet each other. One page at [`crate::layout::BOOT`].

/// Offsets in bytes of the 64-bit fields of the boot page. The VMM reads the guest's fields as it would any other
/// hostile input: they can only mislead it about this guest.
pub mod field {
    /// [`crate::VERSION`] of the VMM. Written by the VMM.
    pub const VERSION: u64 = 0x00;
    /// Bytes of the artifact. VMM.
    pub const ARTIFACT_LEN: u64 = 0x08;
    /// Bytes of the encoded configuration. VMM.
    pub const CONFIG_LEN: u64 = 0x10;
    /// Bytes of RAM that are there now; more after [`crate::port::GROW`]. VMM.
    pub const RAM_LEN: u64 = 0x18;
    /// Frequency of the time stamp counter in kHz. VMM.
    pub const TSC_KHZ: u64 = 0x20;
    /// Wall clock, nanoseconds since 1970, at the moment of the last entry after [`crate::port::SLEEP`] or
    /// [`crate::port::CLOCK`]. VMM.
    pub const WALL_NS: u64 = 0x28;
    /// 32 bytes of the host's randomness. VMM; the guest wipes them once read.
    pub const SEED: u64 = 0x30;
    /// First unused byte behind the runtime's image. VMM.
    pub const RUNTIME_END: u64 = 0x50;
    /// End of the runtime's read-only and executable part, page-aligned. VMM.
    pub const TEXT_END: u64 = 0x58;
    /// Bytes of RAM that there may be. VMM.
    pub const RAM_LIMIT: u64 = 0x60;
    /// What there is of the list of [expected](crate::expected) writes: one of [`crate::expected::state`]. VMM; the guest says
    /// so when it has written the list.
    pub const EXPECTED: u64 = 0x68;
    /// Entries of the list. Who writes the list.
    pub const EXPECTED_COUNT: u64 = 0x70;

    /// First argument of a port call. Guest.
    pub const ARG0: u64 = 0x100;
    /// Second argument of a port call. Guest.
    pub const ARG1: u64 = 0x108;
    /// Start of the wasm code; a kick that lands there is handed to [`PREEMPT_ENTRY`]. Guest.
    pub const WASM_START: u64 = 0x110;
    /// End of the wasm code. Guest.
    pub const WASM_END: u64 = 0x118;
    /// Where the VMM lets the guest continue after a kick in wasm code. Guest.
    pub const PREEMPT_ENTRY: u64 = 0x120;
    /// Counts changes of the running request, so that a watcher can see whether one holds the processor. Guest.
    pub const SLICE: u64 = 0x128;
    /// Traps so far. Guest; for statistics only.
    pub const TRAPS: u64 = 0x130;
    /// Requests served so far. Guest; for statistics only.
    pub const REQUESTS: u64 = 0x138;
    /// Where a VM that is made from this one's memory begins: see [`crate::port::TEMPLATE`]. Guest.
    pub const RESUME_ENTRY: u64 = 0x140;
    /// The stack pointer that it begins with. Guest.
    pub const RESUME_STACK: u64 = 0x148;
    /// Where the VMM lets the guest continue, on [`DEFER_STACK`], after a kick that found the runtime at work. Guest.
    pub const DEFER_ENTRY: u64 = 0x150;
    /// The stack pointer that it continues with there; 0 if it is not to be. Guest.
    pub const DEFER_STACK: u64 = 0x158;
    /// Not 0 while such a kick waits for the runtime to return to wasm code: another one would be of no use. Guest.
    pub const DEFERRED: u64 = 0x160;

    /// The instruction pointer for [`PREEMPT_ENTRY`] to go back to. VMM, or the guest in its place.
    pub const PREEMPT_RIP: u64 = 0x200;
    /// The instruction pointer for [`DEFER_ENTRY`] to go back to. VMM.
    pub const DEFER_RIP: u64 = 0x208;
    /// The stack pointer for it. VMM.
    pub const DEFER_RSP: u64 = 0x210;

    /// 64 bytes that KVM keeps, aligned to as many: first the nanoseconds that the processor was ready to run and did not,
    /// others having the host's (`struct kvm_steal_time`). Only differences say something. Stays 0 where KVM has no such
    /// account.
    pub const STEAL: u64 = 0x400;

    /// The list of [expected](crate::expected) writes: at most [`crate::expected::MOST`] entries of 8 bytes. Who writes it.
    pub const EXPECTED_LIST: u64 = 0x800;
}

const _: () = assert!(
    field::EXPECTED_LIST + crate::expected::MOST * crate::expected::ENTRY <= crate::layout::PAGE
);
