//! What a VM that is put back has of its own beyond its template, before its first request: its settings, an instance.
//!
//! There may be secrets in it: it is a file in memory, mapped where the guest's memory is and nowhere else, and goes with
//! the VM.

use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::fs::MemfdFlags;
use sandbox_abi::layout::{self, PAGE};
use sandbox_kvm::GuestMemory;

use crate::runs::Runs;
use crate::vm::VmError;

/// The pages that the guest wrote since it began with its template.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    file: OwnedFd,
    pages: Runs,
}

/// Where the page at `gpa` stands in the file.
fn place(gpa: u64) -> u64 {
    match gpa.checked_sub(layout::RAM) {
        Some(offset) => layout::SYSTEM_LEN + offset,
        None => gpa,
    }
}

impl Checkpoint {
    /// Copies what was written of a guest's memory, of which `exposed` bytes are RAM, and lets the guest go on with a private
    /// copy of that.
    pub(crate) fn take(memory: &GuestMemory, exposed: u64) -> Result<Checkpoint, VmError> {
        let file = rustix::fs::memfd_create("checkpoint", MemfdFlags::CLOEXEC)
            .map_err(|e| VmError::Kernel("memfd_create", e))?;
        let pages = written(memory, exposed)?;
        for (gpa, pages) in pages.iter() {
            memory.store(gpa, pages * PAGE, file.as_fd(), place(gpa))?;
            memory.replace(gpa, pages * PAGE, file.as_fd(), place(gpa))?;
        }
        Ok(Checkpoint { file, pages })
    }

    /// Where the page at `gpa` is kept; `None`: it is the template's.
    pub(crate) fn kept(&self, gpa: u64) -> Option<(BorrowedFd<'_>, u64)> {
        self.pages
            .holds(gpa)
            .then(|| (self.file.as_fd(), place(gpa)))
    }
}

/// The pages that a guest wrote.
pub(crate) fn written(memory: &GuestMemory, exposed: u64) -> Result<Runs, VmError> {
    let mut runs = Runs::default();
    runs.add_written(memory, 0, layout::SYSTEM_LEN)?;
    runs.add_written(memory, layout::RAM, exposed)?;
    Ok(runs)
}
