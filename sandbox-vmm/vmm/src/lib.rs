//! Builds and runs one microVM: boot image, page tables, exits, deadlines.
//!
//! - [`factory`]: what all VMs of a process are made from.
//! - [`image`]: the guest runtime and the tables it starts with, made once and shared by all VMs of a process.
//! - [`tables`]: the page tables of the boot.
//! - [`vm`]: a VM from its descriptors to its thread.
//! - [`template`]: the memory of a VM that has loaded its component, for others to begin with.
//! - `reset`: putting a VM back to its template.
//! - `run`: the loop of the virtual processor: enter, see why it came back, answer.
//! - [`watch`]: one thread that sees to it that no request holds a processor for longer than a slice.
//!
//! **Invariant**: nothing that a guest does is an error of the host. It ends in an [`vm::VmEvent`].
#![forbid(unsafe_code)]

mod checkpoint;
pub mod factory;
mod hot;
pub mod image;
mod reset;
mod run;
mod runner;
mod runs;
pub mod tables;
pub mod template;
mod translations;
pub mod vm;
pub mod watch;

pub use factory::Factory;
pub use image::BootImage;
pub use template::Template;
pub use vm::{Begin, ResetDescriptors, Vm, VmDescriptors, VmError, VmEvent, VmPlan};
pub use watch::Watch;

/// The guest runtime that belongs to this build, an ELF executable.
pub static GUEST: &[u8] = include_bytes!(env!("CLOISTER_GUEST"));
