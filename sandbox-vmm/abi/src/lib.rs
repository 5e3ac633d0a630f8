//! The contract between host and guest: memory layout, ports, messages.
//!
//! No dependencies, no allocation, no `unsafe`: both sides compile this crate, and neither side owns it.
//! What a field means is said here once; who writes it is said beside it.
//!
//! - [`layout`]: where everything lies in a guest's physical memory.
//! - [`boot`]: the page with which the VMM and the guest runtime greet each other.
//! - [`port`]: the I/O ports, the guest's only way to call the VMM.
//! - [`message`]: the records on the rings.
//! - [`head`]: how the heads of requests and responses are written into records.
//! - [`expected`]: the pages that a request is expected to write.
//! - [`window`]: how much of a body may be on its way.
//! - [`config`]: what a deployment tells its guest.
//!
//! **Invariant**: a change of any number here changes [`VERSION`]; host and guest refuse each other on a mismatch.
#![no_std]
#![forbid(unsafe_code)]

pub mod boot;
pub mod config;
pub mod expected;
pub mod head;
pub mod layout;
pub mod message;
pub mod port;
pub mod window;
pub mod wire;

/// Version of everything in this crate. The guest compares it at boot.
pub const VERSION: u64 = 6;
