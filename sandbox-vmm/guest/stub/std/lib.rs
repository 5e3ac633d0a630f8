//! `std` for dependencies that say `extern crate std` wherever the target is unix: core and alloc under its name.
#![no_std]
#![allow(hidden_glob_reexports)]
extern crate alloc;
pub use alloc::{borrow, boxed, collections, format, rc, string, sync, vec};
pub use core::*;
