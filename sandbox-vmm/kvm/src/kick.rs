//! How another thread gets a virtual processor out of the guest: by a signal to its thread.
//!
//! A kick that comes just before the guest is entered is lost. Whoever kicks therefore repeats it until what it wanted
//! has happened; nothing here waits.

use std::os::unix::thread::JoinHandleExt;
use std::sync::OnceLock;
use std::thread::JoinHandle;

extern "C" fn nothing(_: libc::c_int) {}

/// The signal of kicks: the first real-time one, which nothing else in a worker uses.
fn signal() -> libc::c_int {
    static READY: OnceLock<libc::c_int> = OnceLock::new();
    *READY.get_or_init(|| {
        let signal = libc::SIGRTMIN();
        // SAFETY: an all-zero sigaction is a valid one; the handler does nothing and so is async-signal-safe; without
        // SA_RESTART, KVM_RUN and poll come back with EINTR.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
        signal
    })
}

/// Installs the handler. To be called before the first thread that may be kicked runs.
pub fn prepare() {
    signal();
}

/// Kicks the thread: its `KVM_RUN` or `poll`, if it is in one, ends with `EINTR`.
pub fn kick<T>(thread: &JoinHandle<T>) {
    let signal = signal();
    // SAFETY: the handle exists, so the thread was neither joined nor detached and its pthread_t is valid, even if the
    // thread has ended; the handler is installed.
    unsafe { libc::pthread_kill(thread.as_pthread_t(), signal) };
}
