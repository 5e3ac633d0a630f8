//! A worker's confinement.

use crate::common::{JailError, close_from, die_with_parent, drop_privileges, step};
use rustix::io::Errno;
use rustix::process::{Pid, setsid};

/// Confines a worker: own session, no new privileges, no descriptor from `first_closed` on, no core file, not
/// to be traced, and with `parent` killed when the thread of it that started this process ends.
///
/// Call it first thing in `main`: descriptors from `first_closed` on are closed whoever opened them.
/// `parent` is the process id that the parent gave (it cannot be asked for here without a race). `None`: the process is not
/// killed with the thread that started it; right where that thread may end before the parent does, and the process
/// notices the parent's end by other means, such as the end of its socket.
pub fn harden(parent: Option<Pid>, first_closed: u32) -> Result<(), JailError> {
    if let Some(parent) = parent {
        die_with_parent(parent)?;
    }
    match setsid() {
        // EPERM: it leads its process group already, which is as good.
        Ok(_) | Err(Errno::PERM) => {}
        Err(source) => return step("a session of its own", Err(source)),
    }
    close_from(first_closed)?;
    drop_privileges()
}
