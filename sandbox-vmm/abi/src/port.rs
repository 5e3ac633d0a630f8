//! The I/O ports: `out imm8, al` is the guest's only way to call the VMM. Arguments stand in the boot page.

/// Nothing to do: the thread of the virtual processor may sleep until woken, or for `arg0` nanoseconds
/// (`u64::MAX`: without end). The VMM writes `wall_ns` before it re-enters the guest.
pub const SLEEP: u8 = 0xE0;
/// There is something in the guest-to-host ring for a router that sleeps. Never reaches the VMM: an ioeventfd takes it.
pub const DOORBELL: u8 = 0xE1;
/// A line for the operator: `arg1` bytes (at most [`DEBUG_MAX`]) at guest-physical `arg0`.
pub const DEBUG: u8 = 0xE2;
/// The guest cannot go on; `arg0` is one of [`fatal`]. The VM is lost.
pub const FATAL: u8 = 0xE3;
/// Forget all translations: the guest took mappings away.
pub const FLUSH: u8 = 0xE4;
/// Write `wall_ns` and come back.
pub const CLOCK: u8 = 0xE5;

/// The guest has loaded its component and made what can be made ahead, and nothing in its memory depends on the
/// configuration, the time, randomness or the rings. The VMM may keep a copy of the memory: other VMs begin with it, at
/// [`crate::boot::field::RESUME_ENTRY`], where this one goes on too.
pub const TEMPLATE: u8 = 0xE6;
/// Make at least `arg0` bytes of RAM out of the limit's; [`crate::boot::field::RAM_LEN`] says how many there are then.
pub const GROW: u8 = 0xE7;

/// The `arg1` bytes of RAM at guest-physical `arg0` are about to be used: they may be given to the guest at once. A hint.
pub const POPULATE: u8 = 0xE8;

/// Most bytes of a [`DEBUG`] line that the VMM reads.
pub const DEBUG_MAX: u64 = 8192;

/// Reasons of [`FATAL`].
pub mod fatal {
    /// The runtime panicked; the text went out before by [`super::DEBUG`].
    pub const PANIC: u64 = 1;
    /// A processor exception outside of wasm code.
    pub const EXCEPTION: u64 = 2;
    /// Host and guest were built from different versions of this crate.
    pub const VERSION: u64 = 3;
    /// The artifact or its imports were refused; the text went out before by [`super::DEBUG`].
    pub const ARTIFACT: u64 = 4;
    /// No memory for the runtime itself.
    pub const MEMORY: u64 = 5;
    /// The host broke the ring's contract.
    pub const RING: u64 = 6;
}
