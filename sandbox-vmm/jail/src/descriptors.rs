//! The only `unsafe` of this crate: closing descriptors by number, and leaving namespaces.
#![expect(unsafe_code, reason = "neither call has a safe wrapper")]

use rustix::io::{Errno, Result};
use rustix::thread::UnshareFlags;

/// Closes every descriptor from `first` on.
pub(crate) fn close_from(first: u32) -> Result<()> {
    // SAFETY: close_range takes no pointers. It invalidates owned descriptors above `first` in the sense of I/O safety;
    // the callers document that they run before the process has opened any, so none is owned.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if done == 0 { Ok(()) } else { Err(last_error()) }
}

/// Moves this process into new namespaces.
pub(crate) fn unshare(flags: UnshareFlags) -> Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: the requirement concerns `UnshareFlags::FILES` alone, which the one caller does not pass.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

fn last_error() -> Errno {
    std::io::Error::last_os_error()
        .raw_os_error()
        .map_or(Errno::IO, Errno::from_raw_os_error)
}
