//! Locks that a panic elsewhere does not spoil, and descriptors under the runtime.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use tokio::io::unix::AsyncFd;

/// Locks, also after a holder has panicked: every state guarded here is valid between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An eventfd that nobody waits in.
pub(crate) fn event() -> std::io::Result<OwnedFd> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    Ok(eventfd(0, flags)?)
}

/// Registers a descriptor with the runtime, for waiting until it can be read or written.
#[expect(
    deprecated,
    reason = "its successor is unsafe; the reason given, a descriptor that is closed while it is registered, cannot be with one that is owned"
)]
pub(crate) fn watch_fd(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}
