//! Compiles a component into the artifact that a guest runs, in a process of its own.
//!
//! [`compile`] is called by the control plane: it starts this executable again as a compiler ([`child_main`]), which
//! reads the component, says early and by name what is wrong with it ([`Rejection`]), and writes machine code. The
//! parent never parses a byte of the component; it only hashes it. This crate runs nothing that it compiled.
//!
//! # Invariants
//! - A tenant's bytes are parsed in a confined process only ([`sandbox_jail::confine_compiler`]).
//! - An artifact's name covers everything that it depends on ([`cache`](mod@cache)), and appears by rename after its bytes are on disk:
//!   a file of that name is whole.
//! - The artifact is *not* trusted: a compiler that was taken over can write what it likes. It runs inside a
//!   tenant's own VM and nowhere else.
//!
//! # Modules
//! [`config`](mod@config): the engine's configuration, the contract with the guest. `features`: the processor features that
//! code may use. `imports`: which interfaces a component imports. `inspect`: what a component imports, exports and
//! holds. `world`: what the guest implements. `child`: the compiler process. `parent`: starts and watches it. `cache`:
//! names of artifacts. `error`: all that can be wrong.

pub mod cache;
mod child;
pub mod config;
mod error;
mod features;
mod imports;
mod inspect;
mod parent;
mod world;

pub use child::{ROLE, child_main};
pub use config::engine_config;
pub use error::{CompileError, MissingImport, Rejection};
pub use inspect::{MAX_COMPONENT_BYTES, MAX_MEMORIES, inspect};
pub use parent::{Artifact, CompileLimits, CompileReport, compile};
