//! The unsafe fence over KVM: virtual machines, memory slots, virtual processors, kicks.
//!
//! - [`Machine`]: `/dev/kvm`, a VM, its memory slots and its one virtual processor.
//! - [`Slot`]: a stretch of guest-physical memory and what backs it.
//! - [`GuestMemory`]: bounds-checked, volatile access to that memory.
//! - [`kick`]: how another thread gets a virtual processor out of the guest.
//!
//! Everything above this crate is safe code. Nothing here trusts the guest: registers and memory are plain values.

mod cpuid;
pub mod kick;
mod machine;
mod memory;
mod vcpu;

pub use machine::{KvmError, Machine};
pub use memory::{Backing, GuestMemory, MemoryError, Slot};
pub use vcpu::{Exit, Start, Vcpu};
