//! Guest-physical memory: what backs a slot, and the VMM's access to it.

use crate::mapping::{Mapping, Source};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, GuestMemoryRegion as _, GuestRegionMmap};

/// Bytes in a page.
pub(crate) const PAGE: u64 = 4096;

/// Memory could not be mapped, or an address is not the guest's.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// `mmap` failed, or the slots overlap.
    #[error("cannot map {len} bytes at guest-physical {gpa:#x}: {cause}")]
    Map {
        /// First address.
        gpa: u64,
        /// Bytes.
        len: u64,
        /// The kernel's or vm-memory's words.
        cause: String,
    },
    /// Not within one slot.
    #[error("{len} bytes at guest-physical {gpa:#x} are not the guest's")]
    OutOfBounds {
        /// First address.
        gpa: u64,
        /// Bytes.
        len: u64,
    },
    /// The kernel does not say which pages were written.
    #[error("cannot tell which pages were written")]
    Pages(#[source] std::io::Error),
    /// A file that is to be copied into the guest, or out of it.
    #[error("cannot copy between the guest and a file")]
    File(#[source] std::io::Error),
}

/// What backs a slot.
#[derive(Debug)]
pub enum Backing {
    /// Zeroes, of this VM alone; the first bytes, if any, are a private copy of a file's.
    Anonymous(Option<Prefix>),
    /// A private copy of a file: writes stay in this VM.
    Private(OwnedFd),
    /// A file, read-only for VMM and guest.
    ReadOnly(OwnedFd),
    /// A file shared with another process. Its length must be sealed.
    Shared(OwnedFd),
}

/// The bytes of a file that an anonymous slot begins with.
#[derive(Debug)]
pub struct Prefix {
    /// The file.
    pub file: OwnedFd,
    /// Where in the file; whole pages.
    pub offset: u64,
    /// Bytes, whole pages.
    pub len: u64,
}

/// A stretch of guest-physical memory.
#[derive(Debug)]
pub struct Slot {
    /// First guest-physical address, page-aligned.
    pub gpa: u64,
    /// Bytes, whole pages.
    pub len: u64,
    /// Bytes that the guest may use from the start, whole pages; [`crate::Machine::expose`] gives it more.
    pub exposed: u64,
    /// What backs it.
    pub backing: Backing,
}

impl Slot {
    fn new(gpa: u64, len: u64, backing: Backing) -> Slot {
        Slot {
            gpa,
            len,
            exposed: len,
            backing,
        }
    }
    /// A slot of zeroes, behind a prefix if there is one; the guest sees the first `exposed` bytes.
    pub fn anonymous(gpa: u64, len: u64, exposed: u64, prefix: Option<Prefix>) -> Slot {
        Slot {
            exposed,
            ..Slot::new(gpa, len, Backing::Anonymous(prefix))
        }
    }
    /// A slot that starts as a copy of `fd`'s content; writes stay private.
    pub fn private(gpa: u64, len: u64, fd: OwnedFd) -> Slot {
        Slot::new(gpa, len, Backing::Private(fd))
    }
    /// A slot that shows `fd`'s content and cannot be written.
    pub fn read_only(gpa: u64, len: u64, fd: OwnedFd) -> Slot {
        Slot::new(gpa, len, Backing::ReadOnly(fd))
    }
    /// A slot that is shared with whoever else maps `fd`.
    pub fn shared(gpa: u64, len: u64, fd: OwnedFd) -> Slot {
        Slot::new(gpa, len, Backing::Shared(fd))
    }

    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self.backing, Backing::ReadOnly(_))
    }

    fn map(self) -> Result<(GuestRegionMmap, Arc<Mapping>), MemoryError> {
        let (gpa, len) = (self.gpa, self.len);
        let fail = |cause: String| MemoryError::Map { gpa, len, cause };
        let size = usize::try_from(len).map_err(|e| fail(e.to_string()))?;
        let source = match &self.backing {
            Backing::Anonymous(_) => Source::Zeroes,
            Backing::Private(fd) => Source::Private(fd),
            Backing::ReadOnly(fd) => Source::ReadOnly(fd),
            Backing::Shared(fd) => Source::Shared(fd),
        };
        let mapping = Mapping::new(size, &source).map_err(|e| fail(e.to_string()))?;
        if self.is_read_only() {
            mapping.prefer_large_pages(0, mapping.len());
        }
        if let Backing::Anonymous(Some(prefix)) = &self.backing {
            let len = usize::try_from(prefix.len).map_err(|e| fail(e.to_string()))?;
            mapping
                .overlay(0, len, prefix.file.as_fd(), prefix.offset)
                .map_err(|e| fail(e.to_string()))?;
        }
        // SAFETY: the mapping has `size` bytes, and the caller keeps it as long as the region.
        let builder = unsafe {
            MmapRegionBuilder::new(size)
                .with_mmap_prot(source.protection())
                .with_raw_mmap_pointer(mapping.start())
        };
        let region = builder.build().map_err(|e| fail(e.to_string()))?;
        let region = GuestRegionMmap::new(region, GuestAddress(gpa))
            .ok_or_else(|| fail("the addresses wrap".into()))?;
        Ok((region, Arc::new(mapping)))
    }
}

/// The VMM's view of a guest's memory. The guest may write any of it at any time: every access is a volatile copy.
#[derive(Clone, Debug)]
pub struct GuestMemory {
    // Dropped before the mappings that it points into.
    view: GuestMemoryMmap,
    /// By guest-physical address.
    mappings: Vec<(u64, Arc<Mapping>)>,
}

impl GuestMemory {
    /// Maps all slots, which must not overlap.
    pub(crate) fn map(slots: Vec<Slot>) -> Result<Self, MemoryError> {
        let mut regions = Vec::with_capacity(slots.len());
        let mut mappings = Vec::with_capacity(slots.len());
        for slot in slots {
            let gpa = slot.gpa;
            let (region, mapping) = slot.map()?;
            regions.push(region);
            mappings.push((gpa, mapping));
        }
        regions.sort_by_key(|r| r.start_addr().0);
        mappings.sort_by_key(|(gpa, _)| *gpa);
        let view = GuestMemoryMmap::from_regions(regions).map_err(|e| MemoryError::Map {
            gpa: 0,
            len: 0,
            cause: e.to_string(),
        })?;
        Ok(GuestMemory { view, mappings })
    }

    /// The mapping that holds `len` bytes at `gpa`, where in it, and `len`.
    fn find(&self, gpa: u64, len: u64) -> Result<(&Mapping, usize, usize), MemoryError> {
        let outside = MemoryError::OutOfBounds { gpa, len };
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let index = self.mappings.partition_point(|(start, _)| *start <= gpa);
        let Some((start, mapping)) = index.checked_sub(1).and_then(|n| self.mappings.get(n)) else {
            return Err(outside);
        };
        let offset = gpa - start;
        match offset.checked_add(len) {
            Some(end) if end <= mapping.len() as u64 => Ok((mapping, size(offset), size(len))),
            _ => Err(outside),
        }
    }

    /// Address in this process of `len` bytes at `gpa`, which lie in one slot.
    pub(crate) fn host_address(&self, gpa: u64, len: u64) -> Result<u64, MemoryError> {
        let (mapping, offset, _) = self.find(gpa, len)?;
        Ok((mapping.start().addr() + offset) as u64)
    }

    /// Copies bytes into the guest.
    pub fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        self.view
            .write_slice(bytes, GuestAddress(gpa))
            .map_err(|_| MemoryError::OutOfBounds {
                gpa,
                len: bytes.len() as u64,
            })
    }

    /// Copies `len` bytes from `at` of a file into the guest, without this process having them in memory of its own.
    pub fn load(
        &self,
        gpa: u64,
        len: u64,
        file: BorrowedFd<'_>,
        at: u64,
    ) -> Result<(), MemoryError> {
        let (mapping, offset, len) = self.find(gpa, len)?;
        let copied = mapping.load(offset, len, file, at);
        copied.map_err(MemoryError::File)
    }

    /// Copies `len` bytes of the guest's to `at` of a file, in the same way.
    pub fn store(
        &self,
        gpa: u64,
        len: u64,
        file: BorrowedFd<'_>,
        at: u64,
    ) -> Result<(), MemoryError> {
        let (mapping, offset, len) = self.find(gpa, len)?;
        let copied = mapping.store(offset, len, file, at);
        copied.map_err(MemoryError::File)
    }

    /// Makes `len` bytes at `gpa` a private copy of a file's from `at` on: what they are when they are discarded from now on.
    /// For anonymous and private slots; whole pages.
    pub fn replace(
        &self,
        gpa: u64,
        len: u64,
        file: BorrowedFd<'_>,
        at: u64,
    ) -> Result<(), MemoryError> {
        let (mapping, offset, bytes) = self.find(gpa, len)?;
        let fail = |e: std::io::Error| MemoryError::Map {
            gpa,
            len,
            cause: e.to_string(),
        };
        mapping.overlay(offset, bytes, file, at).map_err(fail)
    }

    /// Copies bytes out of the guest.
    pub fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
        let len = bytes.len() as u64;
        self.view
            .read_slice(bytes, GuestAddress(gpa))
            .map_err(|_| MemoryError::OutOfBounds { gpa, len })
    }

    /// Writes an aligned word at once.
    pub fn write_u64(&self, gpa: u64, value: u64) -> Result<(), MemoryError> {
        self.view
            .store(
                value,
                GuestAddress(gpa),
                std::sync::atomic::Ordering::Relaxed,
            )
            .map_err(|_| MemoryError::OutOfBounds { gpa, len: 8 })
    }

    /// Reads an aligned word at once.
    pub fn read_u64(&self, gpa: u64) -> Result<u64, MemoryError> {
        self.view
            .load(GuestAddress(gpa), std::sync::atomic::Ordering::Relaxed)
            .map_err(|_| MemoryError::OutOfBounds { gpa, len: 8 })
    }

    /// Bytes of the slot at `gpa` that are in the machine's memory and belong to this VM alone.
    pub fn resident(&self, gpa: u64) -> u64 {
        let Ok((mapping, _, _)) = self.find(gpa, 1) else {
            return 0;
        };
        let mut pages = 0;
        match mapping.private_pages(0, mapping.len(), |_, n| pages += n) {
            Ok(()) => pages * PAGE,
            Err(_) => 0,
        }
    }

    /// Calls `found(gpa, pages)` for each run of pages between `gpa` and `gpa + len` that was written since the slot was
    /// mapped, and so belongs to this VM alone. For anonymous and private slots.
    pub fn written(
        &self,
        gpa: u64,
        len: u64,
        mut found: impl FnMut(u64, u64),
    ) -> Result<(), MemoryError> {
        let (mapping, offset, len) = self.find(gpa, len)?;
        mapping
            .private_pages(offset, len, |at, pages| {
                found(gpa + (at - offset) as u64, pages)
            })
            .map_err(MemoryError::Pages)
    }

    /// Gives `len` bytes at `gpa` pages of this VM's own at once, with the content that they have: as a write to each of them
    /// would, for less. For anonymous and private slots; whole pages.
    pub fn populate(&self, gpa: u64, len: u64) -> Result<(), MemoryError> {
        let (mapping, offset, len) = self.find(gpa, len)?;
        mapping.populate(offset, len).map_err(MemoryError::Pages)
    }

    /// Makes `len` bytes at `gpa` what the slot was mapped with, or [replaced](GuestMemory::replace) by, and gives their
    /// memory back; whole pages.
    pub fn discard(&self, gpa: u64, len: u64) -> Result<(), MemoryError> {
        let (mapping, offset, len) = self.find(gpa, len)?;
        mapping.discard(offset, len).map_err(MemoryError::Pages)
    }

    /// Makes `len` bytes at `gpa` of a shared slot zeroes, for all who share it; whole pages.
    pub fn remove(&self, gpa: u64, len: u64) -> Result<(), MemoryError> {
        let (mapping, offset, len) = self.find(gpa, len)?;
        mapping.remove(offset, len).map_err(MemoryError::Pages)
    }
}
