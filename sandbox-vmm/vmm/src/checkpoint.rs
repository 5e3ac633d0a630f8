//! What a VM that is put back has of its own beyond its template, before its first request: its settings, an instance.
//!
//! There may be secrets in it: it is a file in memory, mapped where the guest's memory is and nowhere else, and goes with
//! the VM.

use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::fs::MemfdFlags;
use sandbox_abi::layout::{self, PAGE};
use sandbox_kvm::GuestMemory;

use crate::vm::VmError;

/// The pages that the guest wrote since it began with its template.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    file: OwnedFd,
    /// Runs of pages, in order.
    runs: Vec<(u64, u64)>,
    /// Bytes of RAM that the guest had.
    pub(crate) exposed: u64,
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
        let runs = written(memory, exposed)?;
        for (gpa, pages) in &runs {
            memory.store(*gpa, pages * PAGE, file.as_fd(), place(*gpa))?;
            memory.replace(*gpa, pages * PAGE, file.as_fd(), place(*gpa))?;
        }
        Ok(Checkpoint {
            file,
            runs,
            exposed,
        })
    }

    /// Where the page at `gpa` is kept; `None`: it is the template's.
    pub(crate) fn kept(&self, gpa: u64) -> Option<(BorrowedFd<'_>, u64)> {
        holds(&self.runs, gpa).then(|| (self.file.as_fd(), place(gpa)))
    }
}

/// The pages that a guest wrote, in runs, in order.
pub(crate) fn written(memory: &GuestMemory, exposed: u64) -> Result<Vec<(u64, u64)>, VmError> {
    let mut runs = runs(memory, 0, layout::SYSTEM_LEN)?;
    runs.extend(written_ram(memory, exposed)?);
    Ok(runs)
}

/// Those of RAM.
pub(crate) fn written_ram(memory: &GuestMemory, exposed: u64) -> Result<Vec<(u64, u64)>, VmError> {
    runs(memory, layout::RAM, exposed)
}

fn runs(memory: &GuestMemory, start: u64, len: u64) -> Result<Vec<(u64, u64)>, VmError> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    memory.written(start, len, |gpa, pages| match runs.last_mut() {
        Some((first, count)) if *first + *count * PAGE == gpa => *count += pages,
        _ => runs.push((gpa, pages)),
    })?;
    Ok(runs)
}

/// Whether a page lies in one of the runs, which are in order.
pub(crate) fn holds(runs: &[(u64, u64)], gpa: u64) -> bool {
    let behind = runs.partition_point(|(start, _)| *start <= gpa);
    let run = behind.checked_sub(1).and_then(|n| runs.get(n));
    run.is_some_and(|(start, pages)| gpa < start + pages * PAGE)
}
