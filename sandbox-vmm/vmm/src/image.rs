//! The boot image: the system slot as every VM of this process starts with it, in a sealed memfd.

use crate::tables::{NO_EXECUTE, PRESENT, Stretch, WRITE};
use object::{Object, ObjectSegment, SegmentFlags, elf};
use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use sandbox_abi::layout;
use sandbox_kvm::Start;
use std::hash::{DefaultHasher, Hasher};

/// The image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The guest runtime is no ELF executable, or does not lie where it should.
    #[error("the guest runtime is unusable: {0}")]
    Guest(String),
    /// Its code and constants cannot be written to the memfd.
    #[error("cannot write the boot image")]
    Constant(#[source] std::io::Error),
    /// The kernel refused the memfd.
    #[error("cannot make the boot image")]
    Kernel(#[from] Errno),
}

/// The boot image.
#[derive(Debug)]
pub struct BootImage {
    fd: OwnedFd,
    /// First instruction.
    pub(crate) entry: u64,
    /// First address behind the runtime.
    pub(crate) end: u64,
    /// What is mapped how.
    pub(crate) stretches: Vec<Stretch>,
    /// Tells builds of the guest runtime apart.
    pub(crate) digest: u64,
}

impl BootImage {
    /// Lays out the guest runtime `elf` ([`crate::GUEST`], or another in tests).
    pub fn new(elf: &[u8]) -> Result<Self, ImageError> {
        let bad = |e: object::Error| ImageError::Guest(e.to_string());
        let file = object::File::parse(elf).map_err(bad)?;
        let fd = rustix::fs::memfd_create(
            "cloister-boot",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        rustix::fs::ftruncate(&fd, layout::SYSTEM_LEN)?;
        let mut end = layout::RUNTIME;
        // Page 0 stays unmapped: a null pointer faults.
        let mut stretches = vec![Stretch {
            start: layout::PAGE,
            end: layout::RUNTIME,
            flags: PRESENT | WRITE | NO_EXECUTE,
        }];
        for segment in file.segments() {
            let (start, stop) = (
                segment.address(),
                segment.address().saturating_add(segment.size()),
            );
            if start < layout::RUNTIME || stop > layout::SYSTEM_LEN {
                return Err(ImageError::Guest(format!(
                    "a segment at {start:#x}..{stop:#x} is outside of the system slot"
                )));
            }
            let flags = protection(&segment)?;
            let data = segment.data().map_err(bad)?;
            if flags & WRITE == 0 {
                // Each page of them that a new VM needs would be a fault of its own.
                sandbox_kvm::write_in_large_pages(&fd, start, data)
                    .map_err(ImageError::Constant)?;
            } else {
                write_all(&fd, data, start)?;
            }
            let (start, stop) = (
                start & !(layout::PAGE - 1),
                stop.next_multiple_of(layout::PAGE),
            );
            stretches.push(Stretch {
                start,
                end: stop,
                flags,
            });
            end = end.max(stop);
        }
        for (n, entry) in (0..).zip(Start::gdt_entries(layout::TSS)) {
            write_all(&fd, &entry.to_le_bytes(), layout::GDT + n * 8)?;
        }
        write_all(&fd, &layout::RING0_STACK_TOP.to_le_bytes(), layout::TSS + 4)?;
        rustix::fs::fcntl_add_seals(
            &fd,
            SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL,
        )?;
        Ok(BootImage {
            fd,
            entry: file.entry(),
            end,
            stretches,
            digest: digest(elf),
        })
    }

    /// Where the page at `gpa` of the system slot is kept.
    pub(crate) fn kept(&self, gpa: u64) -> Option<(BorrowedFd<'_>, u64)> {
        (gpa < layout::SYSTEM_LEN).then(|| (self.fd.as_fd(), gpa))
    }

    /// Another descriptor of the image, for a VM's system slot.
    pub(crate) fn fd(&self) -> Result<OwnedFd, Errno> {
        rustix::io::fcntl_dupfd_cloexec(&self.fd, 3)
    }
}

/// The same for the same build; a template of another one is of no use.
fn digest(elf: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(elf);
    hasher.finish()
}

fn protection(segment: &object::Segment<'_, '_>) -> Result<u64, ImageError> {
    let SegmentFlags::Elf { p_flags } = segment.flags() else {
        return Err(ImageError::Guest("not an ELF file".into()));
    };
    let (write, execute) = (p_flags & elf::PF_W != 0, p_flags & elf::PF_X != 0);
    match (write, execute) {
        (true, true) => Err(ImageError::Guest(
            "a segment is both writable and executable".into(),
        )),
        (true, false) => Ok(PRESENT | WRITE | NO_EXECUTE),
        (false, true) => Ok(PRESENT),
        (false, false) => Ok(PRESENT | NO_EXECUTE),
    }
}

fn write_all(fd: &OwnedFd, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let n = rustix::io::pwrite(fd, bytes, at)?;
        bytes = bytes.get(n..).unwrap_or_default();
        at += n as u64;
    }
    Ok(())
}
