//! The unsafe fence over KVM: virtual machines, memory slots, virtual processors, kicks.
//!
//! - [`Host`]: `/dev/kvm`, opened once.
//! - [`Blank`]: a machine without memory; [`Machine`]: one with its memory slots.
//! - [`Slot`]: a stretch of guest-physical memory and what backs it.
//! - [`GuestMemory`]: bounds-checked, volatile access to that memory, and which of its pages were written.
//! - [`kick`]: how another thread gets a virtual processor out of the guest.
//!
//! Everything above this crate is safe code. Nothing here trusts the guest: registers and memory are plain values.

mod cpuid;
pub mod kick;
mod machine;
mod mapping;
mod memory;
mod vcpu;

pub use machine::{Blank, Host, KvmError, Machine};
pub use mapping::write_in_large_pages;
pub use memory::{Backing, GuestMemory, MemoryError, Prefix, Slot};
pub use vcpu::{Exit, Fresh, Start, Vcpu};

/// Opens what the process needs of `/proc` while it can: to be called before it gives up its privileges.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn prepare() -> std::io::Result<()> {
    mapping::prepare()
}
