//! The steps that every confined process takes.

use crate::descriptors;
use rustix::process::{
    DumpableBehavior, Pid, Resource, Rlimit, Signal, getppid, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use rustix::thread::set_no_new_privs;

/// Why a process could not be confined. It must end then: it has more rights than it may have.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// A system call that works on every supported kernel did not.
    #[error("cannot confine this process: {step} failed")]
    Step {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: rustix::io::Errno,
    },
    /// The parent ended before its death could be watched.
    #[error("the parent process {expected} is gone")]
    Orphaned {
        /// Process id of the parent that started this one.
        expected: i32,
    },
}

/// Names the step of a failed system call.
pub(crate) fn step<T>(step: &'static str, result: rustix::io::Result<T>) -> Result<T, JailError> {
    result.map_err(|source| JailError::Step { step, source })
}

/// Ends this process with `SIGKILL` when its parent ends, and finds out whether that came too late.
///
/// The kernel sends the signal when the *thread* that forked ends, so the parent has to start its children from a
/// thread that lives as long as it wants them.
pub(crate) fn die_with_parent(parent: Pid) -> Result<(), JailError> {
    step(
        "watching the parent",
        set_parent_process_death_signal(Some(Signal::KILL)),
    )?;
    // A parent that ended before the line above sends nothing; it is not the parent any more, though.
    if getppid() == Some(parent) {
        Ok(())
    } else {
        Err(JailError::Orphaned {
            expected: parent.as_raw_nonzero().get(),
        })
    }
}

/// No way to privileges through `execve`, no way in through `ptrace`, nothing left behind in a core file.
pub(crate) fn drop_privileges() -> Result<(), JailError> {
    step("no_new_privs", set_no_new_privs(true))?;
    step(
        "forbidding ptrace",
        set_dumpable_behavior(DumpableBehavior::NotDumpable),
    )?;
    limit("the core file limit", Resource::Core, 0)
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_from(first: u32) -> Result<(), JailError> {
    step("closing descriptors", descriptors::close_from(first))
}

/// Sets the limit of a resource, no higher than the hard limit it has now.
pub(crate) fn limit(what: &'static str, resource: Resource, value: u64) -> Result<(), JailError> {
    limits(what, resource, value, value)
}

/// Sets the soft and the hard limit of a resource, neither higher than the hard limit it has now.
pub(crate) fn limits(
    what: &'static str,
    resource: Resource,
    soft: u64,
    hard: u64,
) -> Result<(), JailError> {
    let maximum = rustix::process::getrlimit(resource).maximum;
    let at_most = |value: u64| Some(maximum.map_or(value, |maximum| maximum.min(value)));
    step(
        what,
        setrlimit(
            resource,
            Rlimit {
                current: at_most(soft),
                maximum: at_most(hard),
            },
        ),
    )
}
