//! The host's side of the shared memory: a sealed memfd.
//!
//! The router's process makes it, keeps it mapped and passes the descriptor to the worker, which puts it into the
//! guest. Sealed against shrinking, it cannot be cut under the router's feet (`SIGBUS`) by a worker that was taken over.

use crate::{AtomicU64, CONTROL_STRIDE, CONTROLS, Control, Memory};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use sandbox_abi::layout;
use std::sync::Arc;

/// The rings' memory could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RingMemoryError {
    /// The kernel refused.
    #[error("cannot make the rings' memory ({0})")]
    Kernel(&'static str, #[source] rustix::io::Errno),
    /// A descriptor of another size, or one that may shrink.
    #[error("the descriptor is not a sealed memfd of {} bytes", layout::RINGS_LEN)]
    NotOurs,
}

/// The rings' memory, mapped. Unmapped and closed when the last ring is dropped.
#[derive(Debug)]
pub struct RingMemory {
    fd: OwnedFd,
    words: *const AtomicU64,
}

#[expect(
    unsafe_code,
    reason = "a raw pointer forgets that the words behind it are shared atomics"
)]
// SAFETY: the mapping is owned by this value for as long as it lives and holds nothing but atomics.
unsafe impl Send for RingMemory {}
#[expect(
    unsafe_code,
    reason = "a raw pointer forgets that the words behind it are shared atomics"
)]
// SAFETY: as above; every access goes through atomics.
unsafe impl Sync for RingMemory {}

const LEN: usize = layout::RINGS_LEN as usize;
const DATA_WORDS: usize = layout::RING_LEN as usize / 8;
const CONTROL_WORDS: usize = layout::RING_CONTROL as usize / 8;

impl RingMemory {
    /// Makes zeroed rings.
    pub fn create() -> Result<Arc<Self>, RingMemoryError> {
        let fail = |what| move |e| RingMemoryError::Kernel(what, e);
        let fd = rustix::fs::memfd_create(
            "cloister-rings",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )
        .map_err(fail("memfd_create"))?;
        rustix::fs::ftruncate(&fd, layout::RINGS_LEN).map_err(fail("ftruncate"))?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(fail("F_ADD_SEALS"))?;
        Self::map(fd)
    }

    /// Maps rings that another process made. Fails unless the descriptor is a memfd of the right size that cannot shrink.
    pub fn from_fd(fd: OwnedFd) -> Result<Arc<Self>, RingMemoryError> {
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(|_| RingMemoryError::NotOurs)?;
        let size = rustix::fs::fstat(&fd)
            .map_err(|e| RingMemoryError::Kernel("fstat", e))?
            .st_size;
        if !seals.contains(SealFlags::SHRINK) || u64::try_from(size) != Ok(layout::RINGS_LEN) {
            return Err(RingMemoryError::NotOurs);
        }
        Self::map(fd)
    }

    #[expect(unsafe_code, reason = "mmap and madvise")]
    fn map(fd: OwnedFd) -> Result<Arc<Self>, RingMemoryError> {
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing of this process.
        let words = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                LEN,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &fd,
                0,
            )
        }
        .map_err(|e| RingMemoryError::Kernel("mmap", e))?;
        // Requests and answers do not belong into core files. Where this cannot be said, nothing else depends on it.
        // SAFETY: the mapping is the one of LEN bytes from above; what it holds stays as it is.
        let _ = unsafe { rustix::mm::madvise(words, LEN, Advice::LinuxDontDump) };
        Ok(Arc::new(RingMemory {
            fd,
            words: words.cast_const().cast(),
        }))
    }

    /// Address of the mapping, for a memory slot of the worker's.
    pub fn address(&self) -> usize {
        self.words.addr()
    }

    /// Notes for a guest that has not run on these rings yet that it sleeps: whoever writes a record wakes it.
    pub fn put_guest_to_sleep(self: &Arc<Self>) {
        HostRing::host_to_guest(self)
            .control(Control::Sleeping)
            .store(1, std::sync::atomic::Ordering::SeqCst);
    }

    #[expect(
        unsafe_code,
        reason = "the one place where the mapping becomes atomics"
    )]
    fn words(&self) -> &[AtomicU64] {
        // SAFETY: `map` mapped LEN bytes, page-aligned, and `drop` alone unmaps them; the file cannot shrink (sealed);
        // every bit pattern is an AtomicU64, and this crate makes no other kind of reference to them.
        unsafe { std::slice::from_raw_parts(self.words, LEN / 8) }
    }
}

impl AsFd for RingMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for RingMemory {
    #[expect(unsafe_code, reason = "munmap")]
    fn drop(&mut self) {
        // SAFETY: the mapping of `map`, whole; references to it borrow from `self`, so none is left.
        let _ = unsafe { rustix::mm::munmap(self.words.cast_mut().cast(), LEN) };
    }
}

/// One of the two rings of a [`RingMemory`].
#[derive(Clone, Debug)]
pub struct HostRing {
    memory: Arc<RingMemory>,
    second: bool,
}

impl HostRing {
    /// The ring from host to guest.
    pub fn host_to_guest(memory: &Arc<RingMemory>) -> Self {
        HostRing {
            memory: Arc::clone(memory),
            second: false,
        }
    }

    /// The ring from guest to host.
    pub fn guest_to_host(memory: &Arc<RingMemory>) -> Self {
        HostRing {
            memory: Arc::clone(memory),
            second: true,
        }
    }
}

impl Memory for HostRing {
    fn data(&self) -> &[AtomicU64] {
        let start = CONTROL_WORDS + if self.second { DATA_WORDS } else { 0 };
        &self.memory.words()[start..start + DATA_WORDS]
    }

    fn control(&self, which: Control) -> &AtomicU64 {
        let ring = if self.second { CONTROLS } else { 0 };
        &self.memory.words()[(ring + which as usize) * CONTROL_STRIDE]
    }
}
