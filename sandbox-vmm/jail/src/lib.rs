//! What a process gives up before it touches a tenant's bytes.
//!
//! Two kinds of process are confined: a worker (holds a tenant's microVMs, [`harden`]) and a compiler (reads a tenant's
//! component, [`confine_compiler`]). Both call their function first thing in `main`, while they have one thread.
//! This crate is *not* the isolation boundary of a tenant's code, the VM is; it is what is left when that one fails.
//!
//! # Invariants
//! - Nothing here is ever given back: every step is one-way for the life of the process.
//! - A step that this host cannot do ([`Confinement`]) is reported, never skipped in silence; one that every host can do
//!   is an error if it fails, and the process must end.
//!
//! # What comes where
//! [`harden`] and [`confine_compiler`] are the only callers of the modules below, in this order: `common` (session, signal at the
//! parent's death, privileges, descriptors, core dumps), then `compiler` (limits, namespaces). Further layers
//! (mount and PID namespace, cgroup, seccomp) belong between the namespaces and the return of those two
//! functions: by then all descriptors that the process needs are open, and no thread runs yet.

mod common;
mod compiler;
mod descriptors;
mod worker;

pub use common::JailError;
pub use compiler::{CompilerLimits, Confinement, confine_compiler};
pub use worker::harden;
