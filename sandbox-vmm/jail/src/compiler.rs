//! A compiler's confinement.

use crate::common::{self, JailError, close_from, die_with_parent, drop_privileges, limit};
use crate::descriptors::unshare;
use rustix::process::{Pid, Resource};
use rustix::thread::UnshareFlags;

/// What one compilation may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompilerLimits {
    /// Address space in bytes; the stacks of its threads count, used or not.
    pub memory_bytes: u64,
    /// Processor time of all threads together, in seconds.
    pub cpu_seconds: u64,
    /// Size of the file that it writes, in bytes.
    pub output_bytes: u64,
}

/// What this host allowed beyond the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// Whether the process is in a user and a network namespace of its own: it has no network then. Hosts that
    /// forbid user namespaces to unprivileged users refuse this.
    pub network: bool,
}

/// Confines a compiler: limits, no descriptor above standard error, no new privileges, no core file, killed with
/// the thread of `parent` that started it, and no network where the host lets an unprivileged process have that.
///
/// Call it first thing in `main`, before threads exist: a namespace is left by one thread alone.
pub fn confine_compiler(parent: Pid, limits: &CompilerLimits) -> Result<Confinement, JailError> {
    die_with_parent(parent)?;
    close_from(3)?;
    let network = unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET).is_ok();
    // After the namespaces: entering a user namespace makes a process dumpable again on some kernels.
    drop_privileges()?;
    limit("the address space limit", Resource::As, limits.memory_bytes)?;
    // The soft limit tells itself by its signal, SIGXCPU; SIGKILL could be anybody's.
    let cpu = limits.cpu_seconds;
    common::limits(
        "the processor time limit",
        Resource::Cpu,
        cpu,
        cpu.saturating_add(2),
    )?;
    limit("the file size limit", Resource::Fsize, limits.output_bytes)?;
    Ok(Confinement { network })
}
