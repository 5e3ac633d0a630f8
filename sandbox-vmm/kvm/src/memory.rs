//! Guest-physical memory: what backs a slot, and the VMM's access to it.

use std::fs::File;
use std::os::fd::OwnedFd;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap,
    GuestMemoryRegion as _, GuestRegionMmap,
};

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
        len: usize,
    },
}

/// What backs a slot.
#[derive(Debug)]
pub enum Backing {
    /// Zeroes, of this VM alone.
    Anonymous,
    /// A private copy of a file: writes stay in this VM.
    Private(OwnedFd),
    /// A file, read-only for VMM and guest.
    ReadOnly(OwnedFd),
    /// A file shared with another process. Its length must be sealed.
    Shared(OwnedFd),
}

/// A stretch of guest-physical memory.
#[derive(Debug)]
pub struct Slot {
    /// First guest-physical address, page-aligned.
    pub gpa: u64,
    /// Bytes, whole pages.
    pub len: u64,
    /// What backs it.
    pub backing: Backing,
}

impl Slot {
    /// A slot of zeroes.
    pub fn anonymous(gpa: u64, len: u64) -> Slot {
        Slot {
            gpa,
            len,
            backing: Backing::Anonymous,
        }
    }
    /// A slot that starts as a copy of `fd`'s content; writes stay private.
    pub fn private(gpa: u64, len: u64, fd: OwnedFd) -> Slot {
        Slot {
            gpa,
            len,
            backing: Backing::Private(fd),
        }
    }
    /// A slot that shows `fd`'s content and cannot be written.
    pub fn read_only(gpa: u64, len: u64, fd: OwnedFd) -> Slot {
        Slot {
            gpa,
            len,
            backing: Backing::ReadOnly(fd),
        }
    }
    /// A slot that is shared with whoever else maps `fd`.
    pub fn shared(gpa: u64, len: u64, fd: OwnedFd) -> Slot {
        Slot {
            gpa,
            len,
            backing: Backing::Shared(fd),
        }
    }

    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self.backing, Backing::ReadOnly(_))
    }

    fn map(self) -> Result<GuestRegionMmap, MemoryError> {
        let (gpa, len) = (self.gpa, self.len);
        let fail = |cause: String| MemoryError::Map { gpa, len, cause };
        let size = usize::try_from(len).map_err(|e| fail(e.to_string()))?;
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        let (fd, prot, flags) = match self.backing {
            Backing::Anonymous => (
                None,
                rw,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            ),
            Backing::Private(fd) => (Some(fd), rw, libc::MAP_PRIVATE | libc::MAP_NORESERVE),
            Backing::ReadOnly(fd) => (
                Some(fd),
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_NORESERVE,
            ),
            Backing::Shared(fd) => (Some(fd), rw, libc::MAP_SHARED),
        };
        let mut builder = MmapRegionBuilder::new(size)
            .with_mmap_prot(prot)
            .with_mmap_flags(flags);
        if let Some(fd) = fd {
            builder = builder.with_file_offset(FileOffset::new(File::from(fd), 0));
        }
        let region = builder.build().map_err(|e| fail(e.to_string()))?;
        GuestRegionMmap::new(region, GuestAddress(gpa))
            .ok_or_else(|| fail("the addresses wrap".into()))
    }
}

/// The VMM's view of a guest's memory. The guest may write any of it at any time: every access is a volatile copy.
#[derive(Clone, Debug)]
pub struct GuestMemory(GuestMemoryMmap);

impl GuestMemory {
    /// Maps all slots, which must not overlap.
    pub(crate) fn map(slots: Vec<Slot>) -> Result<Self, MemoryError> {
        let mut regions = slots
            .into_iter()
            .map(Slot::map)
            .collect::<Result<Vec<_>, _>>()?;
        regions.sort_by_key(|r| r.start_addr().0);
        GuestMemoryMmap::from_regions(regions)
            .map(GuestMemory)
            .map_err(|e| MemoryError::Map {
                gpa: 0,
                len: 0,
                cause: e.to_string(),
            })
    }

    /// Address in this process of the slot at `gpa`.
    pub(crate) fn host_address(&self, gpa: u64) -> Result<u64, MemoryError> {
        let pointer = self
            .0
            .get_host_address(GuestAddress(gpa))
            .map_err(|_| MemoryError::OutOfBounds { gpa, len: 1 })?;
        Ok(pointer.addr() as u64)
    }

    /// Copies bytes into the guest.
    pub fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        self.0
            .write_slice(bytes, GuestAddress(gpa))
            .map_err(|_| MemoryError::OutOfBounds {
                gpa,
                len: bytes.len(),
            })
    }

    /// Copies bytes out of the guest.
    pub fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
        let len = bytes.len();
        self.0
            .read_slice(bytes, GuestAddress(gpa))
            .map_err(|_| MemoryError::OutOfBounds { gpa, len })
    }

    /// Writes an aligned word at once.
    pub fn write_u64(&self, gpa: u64, value: u64) -> Result<(), MemoryError> {
        self.0
            .store(
                value,
                GuestAddress(gpa),
                std::sync::atomic::Ordering::Relaxed,
            )
            .map_err(|_| MemoryError::OutOfBounds { gpa, len: 8 })
    }

    /// Reads an aligned word at once.
    pub fn read_u64(&self, gpa: u64) -> Result<u64, MemoryError> {
        self.0
            .load(GuestAddress(gpa), std::sync::atomic::Ordering::Relaxed)
            .map_err(|_| MemoryError::OutOfBounds { gpa, len: 8 })
    }

    /// Bytes of the slot at `gpa` that are in the machine's memory now.
    pub fn resident(&self, gpa: u64) -> u64 {
        let Some(region) = self.0.find_region(GuestAddress(gpa)) else {
            return 0;
        };
        let Ok(address) = self.host_address(region.start_addr().0) else {
            return 0;
        };
        let len = usize::try_from(region.len()).unwrap_or(0);
        let mut pages = vec![0_u8; len.div_ceil(4096)];
        // SAFETY: mincore writes one byte for each page of the range, and `pages` has as many; the range is a mapping
        // that `self` keeps alive.
        let failed =
            unsafe { libc::mincore(address as *mut libc::c_void, len, pages.as_mut_ptr()) } != 0;
        if failed {
            0
        } else {
            pages.iter().filter(|p| *p & 1 == 1).count() as u64 * 4096
        }
    }
}
